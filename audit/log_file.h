#pragma once
// The audit log's file: opened, locked, its torn tail set aside, and appended to so that a failed
// write leaves nothing behind. Knows where the chain stands, but not what a record is. For one
// thread.
//
// Its lock belongs to one writer, or to several that know of each other and share it: whoever does
// not is refused. Who of them may write when is audit/turn.h's.

#include "audit/chain.h"

#include <boost/system/result.hpp>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace pgchaperone::audit {

class Disk;

// Why the log cannot be opened, as a sentence that names the file.
struct OpenError {
    std::string text;
};
[[noreturn]] void throw_exception_from_error(const OpenError& error,
                                             const boost::source_location& where);

class LogFile {
public:
    // How far back from the end a torn tail may reach: more than the writer ever writes at once.
    static constexpr std::size_t tail_window_bytes = 64 * 1024 * 1024;

    // What a crash left at the end and was moved out of the log.
    struct Torn {
        std::uint64_t bytes = 0;
        std::string sha256;
        std::filesystem::path kept_in;
        std::uint64_t lines = 0;  // whole ones: damaged, or not on the disk in full
    };
    // Somebody else changed the file's size, or put another one in its place.
    struct Changed {
        std::uint64_t expected_bytes = 0;
        std::uint64_t found_bytes = 0;
        bool ends_within_line = false;
        bool other_file = false;
    };

    // Which file it is, and how far it and its chain go.
    struct Stand {
        std::uint64_t device = 0;
        std::uint64_t inode = 0;
        std::uint64_t size_bytes = 0;
        ChainPoint head;
        bool same_file(const Stand& other) const {
            return device == other.device && inode == other.inode;
        }
    };

    // Opens or makes (mode 0600) a regular file and takes its lock. The chain goes on from the
    // file's last line; in an empty file from `before`. `shared`: others may share the lock.
    static boost::system::result<std::unique_ptr<LogFile>, OpenError> open(
        const std::filesystem::path& path, const ChainPoint& before, Disk& disk,
        bool shared = false);
    // The same for a log that is being written and stands at `head`: nothing that is in the file
    // changes that. What ends otherwise is not what we left: then foreign() says so.
    static boost::system::result<std::unique_ptr<LogFile>, OpenError> open_next(
        const std::filesystem::path& path, const ChainPoint& head, Disk& disk, bool shared);
    ~LogFile();
    LogFile(const LogFile&) = delete;
    LogFile& operator=(const LogFile&) = delete;

    const std::filesystem::path& path() const { return path_; }
    const ChainPoint& head() const { return head_; }
    const std::optional<Torn>& torn() const { return torn_; }
    // What open_next() found.
    const std::optional<Changed>& foreign() const { return foreign_; }
    // Bits of the file's mode that let others read or change it.
    unsigned loose_mode() const { return loose_mode_; }

    // Of what is whole and on the disk.
    std::uint64_t size_bytes() const { return size_bytes_; }
    // When the file's first line was made; nothing where there is none.
    std::optional<std::chrono::system_clock::time_point> first_time() const;

    Stand stand() const;
    // There may be more in the file than the stand says, of a write that failed.
    bool leftover() const { return dirty_; }

    // Shares the lock, or makes it ours alone again: false where others have it.
    bool share();
    bool unshare();
    // Others have written to this very file since, and it stands like this now.
    void adopt(const Stand& now, bool leftover);
    // One of them was killed while it wrote: what is there is taken over if it is all that was
    // about to be written, and set aside otherwise (then torn() says so). The problem, or nothing.
    std::string settle(const Stand& about_to_be);

    // True while the name still leads to this very file.
    bool is_current() const;
    // True where the file has no name any more: what is written to it is lost.
    bool is_deleted() const;

    // Puts in order what an earlier failure or somebody else left behind. Call it before lines are
    // made for append(). `changed` is set where the file is not as long as we left it.
    std::string prepare(std::optional<Changed>& changed);

    // Appends whole lines and flushes them to the disk; the chain's head is then `head`. Returns
    // nothing, or why not: "cannot write FILE: ..."; then none of them is in the file.
    std::string append(std::string_view lines, const ChainPoint& head);

private:
    LogFile(std::filesystem::path path, int file, Disk& disk);
    static boost::system::result<std::unique_ptr<LogFile>, OpenError> open_locked(
        const std::filesystem::path& path, Disk& disk, bool shared,
        const std::function<std::string(LogFile&)>& look);
    std::string recover(const ChainPoint& before);
    std::string look_for_end(const ChainPoint& head);
    std::string set_aside(std::string_view tail, std::uint64_t good_bytes);
    std::string problem(const char* what, int error) const;
    bool cut_back();

    std::filesystem::path path_;
    int file_;
    Disk& disk_;
    ChainPoint head_;
    std::uint64_t size_bytes_ = 0;  // of what is whole and on the disk
    bool dirty_ = false;            // there may be more in the file than that
    std::optional<Torn> torn_;
    std::optional<Changed> foreign_;
    unsigned loose_mode_ = 0;
};

}  // namespace pgchaperone::audit
