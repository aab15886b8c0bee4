#include "audit/line_reader.h"

#include <zlib.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace pgchaperone::audit {
namespace {

constexpr std::size_t line_limit_bytes = 256 * 1024 * 1024;
// Of a log in many small files most are opened for their first line alone.
constexpr std::size_t chunk_bytes = 32 * 1024;

}  // namespace

LineReader::LineReader(const std::filesystem::path& file) {
    std::error_code ignored;
    errno = std::filesystem::is_directory(file, ignored) ? EISDIR : 0;
    if (errno == 0) file_ = gzopen(file.c_str(), "re");
    if (file_ == nullptr) {
        missing_ = errno == ENOENT;
        fail(State::unreadable, std::generic_category().message(errno != 0 ? errno : ENOMEM));
    } else {
        gzbuffer(file_, chunk_bytes);
    }
}

LineReader::~LineReader() {
    if (file_ != nullptr) gzclose(file_);
}

void LineReader::fail(State state, std::string problem) {
    state_ = state;
    problem_ = std::move(problem);
}

std::optional<std::string_view> LineReader::next() {
    while (state_ == State::reading) {
        const std::size_t end = buffer_.find('\n', searched_);
        if (end != std::string::npos) {
            const std::string_view line = std::string_view(buffer_).substr(begin_, end - begin_);
            begin_ = searched_ = end + 1;
            return line;
        }
        if (!fill()) break;
    }
    return std::nullopt;
}

std::optional<std::string_view> LineReader::peek() {
    const auto line = next();
    if (line) begin_ = searched_ = static_cast<std::size_t>(line->data() - buffer_.data());
    return line;
}

// Reads more behind what is there. False at the end, whatever kind of end it is.
bool LineReader::fill() {
    buffer_.erase(0, begin_);
    begin_ = 0;
    searched_ = buffer_.size();
    if (buffer_.size() > line_limit_bytes) {
        fail(State::damaged, "it is too long for a record");
        return false;
    }
    buffer_.resize(searched_ + chunk_bytes);
    errno = 0;
    const int count = gzread(file_, buffer_.data() + searched_, chunk_bytes);
    const int system_error = errno;
    buffer_.resize(searched_ + static_cast<std::size_t>(count > 0 ? count : 0));
    if (count > 0) return true;
    int error = Z_OK;
    const char* const words = gzerror(file_, &error);
    if (error == Z_ERRNO) {
        fail(State::unreadable, std::generic_category().message(system_error));
    } else if (error != Z_OK) {
        fail(State::damaged, error == Z_BUF_ERROR ? std::string("its compressed bytes are cut off")
                                                  : "its compressed bytes were changed (" +
                                                        std::string(words) + ")");
    } else if (!buffer_.empty()) {
        fail(State::torn, "it is cut off in its middle: a crash, or somebody shortened the file");
    } else {
        state_ = State::ended;
    }
    return false;
}

}  // namespace pgchaperone::audit
