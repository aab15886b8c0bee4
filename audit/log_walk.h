#pragma once
// Goes through the files of a log, the oldest first, while it may be written on, rotated and
// compressed: none is left out and none comes twice, whatever they are renamed to meanwhile. What
// is in them, and whether it is in order, is not its affair.

#include "audit/line_reader.h"
#include "audit/log_files.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace pgchaperone::audit {

class LogWalk {
public:
    explicit LogWalk(std::filesystem::path log);

    // Opens the next file; nullptr behind the one that was the newest when the walk began. Of a log
    // that has no file at all it is the log's own, which can't be read then. `last_seq` is the
    // number of the last line of the file before, where that is known.
    LineReader* next(std::optional<std::uint64_t> last_seq);

    // Of the file that was opened last, at that time.
    const std::filesystem::path& path() const { return path_; }

private:
    void list();
    bool open(const ListedFile& file);
    const ListedFile* first_unread(std::optional<std::uint64_t> last_seq) const;
    bool follows(const ListedFile& file, std::optional<std::uint64_t> last_seq) const;

    std::filesystem::path log_;
    std::vector<ListedFile> files_;  // as they were last listed
    std::size_t at_ = 0;             // of these; all before it need not be looked at again
    // How many were opened of each identity: a copy of the log's beginning is not the log.
    std::map<std::string, std::size_t> read_;
    std::optional<std::uint64_t> end_;  // where the newest file began when the walk began
    bool begun_ = false;
    bool gone_ = false;  // something was there no more under the name that was listed
    std::filesystem::path path_;
    std::optional<LineReader> reader_;
};

}  // namespace pgchaperone::audit
