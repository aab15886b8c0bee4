#pragma once
// Reads the lines of a whole log, of all files that it consists of, while it may be written on,
// rotated and compressed: none is left out and none comes twice. Whether they are in order is not
// its affair.

#include "audit/line_reader.h"
#include "audit/log_files.h"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::audit {

class LogReader {
public:
    explicit LogReader(std::filesystem::path log);

    // The next line without its line feed, valid until the next call; nothing behind the last of
    // those that were there when the reading began, or where one can't be read. A last line that is
    // cut off is left out.
    std::optional<std::string_view> next();

    // "FILE: why it can't be read"; empty where all could.
    const std::string& problem() const { return problem_; }

private:
    bool open_next();
    bool open(const ListedFile& file);
    const ListedFile* first_unread() const;
    bool follows(const ListedFile& file) const;
    void close();

    std::filesystem::path log_;
    std::vector<ListedFile> files_;     // as they were last listed
    std::set<std::string> read_;     // the identities of those that were read
    std::optional<std::uint64_t> end_;  // where the newest file began when the reading began
    std::optional<LineReader> reader_;
    std::filesystem::path path_;                   // of what is read
    std::optional<std::string_view> first_line_;  // of it, read but not handed out yet
    std::string last_line_;
    std::optional<std::uint64_t> last_seq_;  // of the file that was read before
    bool gone_ = false;  // what was listed is there no more under that name
    std::string problem_;
};

}  // namespace pgchaperone::audit
