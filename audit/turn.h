#pragma once
// Memory that processes share which write one audit log together, as long as one takes over from
// another: whose turn it is to write, and where the log stands. So there is one chain, and what
// somebody else puts into the file is told from what the other process has written.
//
// Invariants:
// - who has no turn reads and writes none of this, nor the file;
// - turns alternate: who has just had one does not get the next before those who wait;
// - a process that is killed gives its turn back by that, and what it was about to write is known.
//
// It is handed on as a descriptor. The file itself is the writer's.

#include "audit/log_file.h"

#include <boost/system/result.hpp>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>

namespace pgchaperone::audit {

class Turn {
public:
    // For the log of this name.
    static boost::system::result<std::shared_ptr<Turn>, OpenError> make(
        const std::filesystem::path& log);
    // What make() has made, in this process or another. The descriptor stays the caller's.
    static boost::system::result<std::shared_ptr<Turn>, OpenError> of_descriptor(int descriptor);
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    int descriptor() const { return descriptor_; }
    // Whether it is made for the log of this name.
    bool is_for(const std::filesystem::path& log) const;

    // False where it does not come in time. Not recursive; given back by the thread that took it.
    bool take(std::chrono::milliseconds patience);
    void give_back();

    // The rest within a turn.

    // Where the log stands; nothing before the first was noted.
    std::optional<LogFile::Stand> stand() const;
    // What was about to be written when its writer was killed; nothing where nobody was.
    std::optional<LogFile::Stand> about_to_be() const;
    // Before a write: where the log will stand after it.
    void announce(const LogFile::Stand& next);
    // What was announced has come to pass.
    void confirm();
    // It has not, or the log has changed otherwise. `leftover`: there may be more in the file.
    void note(const LogFile::Stand& now, bool leftover);
    bool leftover() const;

    // The number of the first line that no checkpoint speaks for.
    std::uint64_t unsigned_from() const;
    void set_unsigned_from(std::uint64_t line);

private:
    struct Page;
    Turn(int descriptor, Page* page) : descriptor_(descriptor), page_(page) {}
    int descriptor_;
    Page* page_;
};

}  // namespace pgchaperone::audit
