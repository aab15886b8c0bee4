#pragma once
// Reads a file of an audit log line by line, gzip-compressed or not. Knows nothing of what a line
// holds. What it can't read it tells apart: a file that can't be had, and one that was damaged.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

struct gzFile_s;

namespace pgchaperone::audit {

class LineReader {
public:
    enum class State : std::uint8_t {
        reading,
        ended,       // all lines were whole
        unreadable,  // it can't be opened or read: problem() says why
        torn,        // what is behind the last line feed is rest()
        damaged,     // compressed bytes that are not what was written, or a line without end
    };

    // Opens at once; where that fails the state says so.
    explicit LineReader(const std::filesystem::path& file);
    ~LineReader();
    LineReader(const LineReader&) = delete;
    LineReader& operator=(const LineReader&) = delete;

    // The next line without its line feed, valid until the next call; nothing when there is no
    // other: then the state says why.
    std::optional<std::string_view> next();

    // The same, and the next call has it once more.
    std::optional<std::string_view> peek();

    State state() const { return state_; }
    bool missing() const { return missing_; }  // unreadable, for there is no such file
    const std::string& problem() const { return problem_; }  // a sentence, without the file's name
    std::string_view rest() const { return std::string_view(buffer_).substr(begin_); }

private:
    bool fill();
    void fail(State state, std::string problem);

    gzFile_s* file_ = nullptr;
    State state_ = State::reading;
    bool missing_ = false;
    std::string problem_;
    std::string buffer_;
    std::size_t begin_ = 0;     // of what was not handed out yet
    std::size_t searched_ = 0;  // there is no line feed from begin_ up to here
};

}  // namespace pgchaperone::audit
