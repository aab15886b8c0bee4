#include "audit/verify.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string_view>
#include <system_error>
#include <utility>

namespace pgchaperone::audit {
namespace {

constexpr std::size_t line_limit_bytes = 256 * 1024 * 1024;

// Checks line after line; the first that is out of order ends it.
class ChainChecker {
public:
    ChainChecker(const std::optional<ChainPoint>& after, const std::optional<ChainPoint>& expected)
        : after_(after), expected_(expected) {
        if (after_) result_.begin = result_.head = *after_;
        look_for_expected();
    }

    // False where the chain breaks.
    bool line(std::string_view text) {
        const std::uint64_t number = result_.lines + 1;
        const auto place = read_place(text);
        if (!place) return broken(number, "it is no record of an audit log");
        if (number == 1 && !after_) {
            result_.begin = {place->seq - 1, place->prev};
            result_.head = result_.begin;
            if ((place->seq == 1) != (place->prev == ChainPoint{}.hash))
                return broken(number, "only a log's very first line has nothing before it");
        }
        if (place->seq != result_.head.seq + 1)
            return broken(number, place->seq > result_.head.seq + 1
                                      ? "lines are missing before it: its seq is " +
                                            std::to_string(place->seq) + " and " +
                                            std::to_string(result_.head.seq + 1) + " was expected"
                                      : "its seq " + std::to_string(place->seq) +
                                            " was there before: lines were moved or copied");
        if (place->prev != result_.head.hash)
            return broken(number, number == 1 ? "it does not follow the file before"
                                              : "its prev is not the hash of the line before: one "
                                                "of the two was changed");
        result_.head = {place->seq, sha_256_hex(text)};
        result_.lines = number;
        look_for_expected();
        return true;
    }

    bool broken(std::uint64_t line, std::string problem) {
        result_.outcome = Verification::Outcome::broken;
        result_.line = line;
        result_.problem = std::move(problem);
        return false;
    }
    void unreadable(std::string problem) {
        result_.outcome = Verification::Outcome::unreadable;
        result_.problem = std::move(problem);
    }
    std::uint64_t next_line() const { return result_.lines + 1; }
    Verification take() { return std::move(result_); }

private:
    void look_for_expected() {
        if (expected_ && result_.head == *expected_) result_.contains_expected = true;
    }

    std::optional<ChainPoint> after_;
    std::optional<ChainPoint> expected_;
    Verification result_;
};

}  // namespace

Verification verify(const std::filesystem::path& file, const std::optional<ChainPoint>& after,
                    const std::optional<ChainPoint>& expected) {
    ChainChecker checker(after, expected);
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> in(std::fopen(file.c_str(), "re"),
                                                             &std::fclose);
    if (!in) {
        checker.unreadable(std::generic_category().message(errno));
        return checker.take();
    }
    std::string buffer;
    std::string chunk(1024 * 1024, '\0');
    bool going = true;
    while (going) {
        const std::size_t count = std::fread(chunk.data(), 1, chunk.size(), in.get());
        if (count == 0) break;
        const std::size_t searched = buffer.size();
        buffer.append(chunk, 0, count);
        std::size_t begin = 0;
        std::size_t end = buffer.find('\n', searched);
        while (going && end != std::string::npos) {
            going = checker.line(std::string_view(buffer).substr(begin, end - begin));
            begin = end + 1;
            end = buffer.find('\n', begin);
        }
        buffer.erase(0, begin);
        if (going && buffer.size() > line_limit_bytes)
            going = checker.broken(checker.next_line(), "it is too long for a record");
    }
    if (going && std::ferror(in.get()) != 0) {
        checker.unreadable(std::generic_category().message(errno));
    } else if (going && !buffer.empty()) {
        checker.broken(checker.next_line(),
                       "it is cut off in its middle: a crash, or somebody shortened the file");
    }
    return checker.take();
}

}  // namespace pgchaperone::audit
