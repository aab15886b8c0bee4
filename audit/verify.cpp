#include "audit/verify.h"

#include "audit/line.h"

#include <boost/json.hpp>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

namespace pgchaperone::audit {
namespace {

// What the line admits, in printable words: empty where it is another line.
std::string admission(std::string_view line) {
    static constexpr std::array<std::string_view, 3> events{
        R"("event":"torn")", R"("event":"refused")", R"("event":"changed")"};
    // A statement that holds these words has its quotes escaped.
    if (std::none_of(events.begin(), events.end(), [&](std::string_view event) {
            return line.find(event) != std::string_view::npos;
        })) {
        return {};
    }
    boost::system::error_code trouble;
    const boost::json::value value = boost::json::parse({line.data(), line.size()}, trouble);
    if (trouble || !value.is_object()) return {};
    const boost::json::object& object = value.get_object();
    const auto number = [&](std::string_view name) {
        const auto* const member = object.if_contains({name.data(), name.size()});
        return member != nullptr && member->is_number() ? boost::json::serialize(*member) : "?";
    };
    const auto text = [&](std::string_view name) {
        std::string out;
        const auto* const member = object.if_contains({name.data(), name.size()});
        if (member != nullptr && member->is_string()) {
            append_json_text(out, {member->get_string().data(), member->get_string().size()});
        }
        return out;
    };
    const std::string event = text("event");
    if (event == "\"torn\"") {
        return number("bytes") +
               " bytes that were no whole line were taken out before it, and put into " +
               text("kept_in");
    }
    if (event == "\"refused\"") {
        return number("records") + " records are missing before it: " + text("problem");
    }
    if (event == "\"changed\"") {
        const std::string problem = text("problem");
        return "somebody else had changed the file, from " + number("expected_bytes") + " to " +
               number("found_bytes") + " bytes" + (problem.empty() ? "" : ": " + problem);
    }
    return {};
}

// Checks line after line; the first that is out of order ends it.
class ChainChecker {
public:
    ChainChecker(const std::optional<ChainPoint>& after, const std::optional<ChainPoint>& expected,
                 SignatureCheck* signatures)
        : after_(after), expected_(expected), signatures_(signatures) {
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
        if (place->seq != result_.head.seq + 1 || place->prev != result_.head.hash)
            result_.claimed = ChainPoint{place->seq - 1, place->prev};
        if (place->seq != result_.head.seq + 1)
            return broken(number, place->seq > result_.head.seq + 1
                                      ? missing_before(*place)
                                      : "its seq " + std::to_string(place->seq) +
                                            " was there before: lines were moved or copied");
        if (place->prev != result_.head.hash)
            return broken(number, number == 1 ? "it does not follow the file before"
                                              : "its prev is not the hash of the line before: one "
                                                "of the two was changed");
        if (signatures_) {
            const std::string problem = signature_problem(text, place->seq);
            if (!problem.empty()) return broken(number, problem);
        }
        result_.head = {place->seq, sha_256_hex(text)};
        result_.lines = number;
        if (std::string words = admission(text); !words.empty()) {
            if (result_.admissions.size() < Verification::admissions_max) {
                result_.admissions.push_back({number, std::move(words)});
            } else {
                ++result_.more_admissions;
            }
        }
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
    std::string missing_before(const LinePlace& place) const {
        const bool one = place.seq == result_.head.seq + 2;
        return (one ? "line " + std::to_string(result_.head.seq + 1) + " is"
                    : "lines " + std::to_string(result_.head.seq + 1) + " to " +
                          std::to_string(place.seq - 1) + " are") +
               " missing before it" +
               (result_.lines == 0 ? ": a file between it and the one before is not there" : "");
    }
    // Empty where the line is no checkpoint, or a good one.
    std::string signature_problem(std::string_view text, std::uint64_t seq) {
        SignatureCheck& check = *signatures_;
        if (!check.begun) {
            check.begun = true;
            check.looked_at = seq - 1;
        }
        const auto checkpoint = read_checkpoint(text);
        if (!checkpoint) return {};
        const auto key = std::find_if(check.keys.begin(), check.keys.end(),
                                      [&](const Key& one) { return one.id() == checkpoint->key; });
        if (key == check.keys.end())
            return "this checkpoint is signed by another key, whose id is \"" + checkpoint->key +
                   "\"";
        if (!key->verifies(checkpoint->signed_bytes, checkpoint->signature) ||
            checkpoint->from == 0 || checkpoint->from > seq)
            return "the signature of this checkpoint is not its key's: it was made by somebody "
                   "else, or changed";
        if (checkpoint->from > check.looked_at + 1)
            check.unsigned_lines.push_back({check.looked_at + 1, checkpoint->from - 1});
        check.looked_at = seq;
        ++check.checkpoints;
        return {};
    }
    void look_for_expected() {
        if (expected_ && result_.head == *expected_) result_.contains_expected = true;
    }

    std::optional<ChainPoint> after_;
    std::optional<ChainPoint> expected_;
    SignatureCheck* signatures_;
    Verification result_;
};

}  // namespace

Verification verify(const std::filesystem::path& file, const std::optional<ChainPoint>& after,
                    const std::optional<ChainPoint>& expected, SignatureCheck* signatures) {
    LineReader reader(file);
    return verify(reader, after, expected, signatures);
}

Verification verify(LineReader& reader, const std::optional<ChainPoint>& after,
                    const std::optional<ChainPoint>& expected, SignatureCheck* signatures) {
    ChainChecker checker(after, expected, signatures);
    while (const auto line = reader.next()) {
        if (!checker.line(*line)) return checker.take();
    }
    switch (reader.state()) {
        case LineReader::State::reading:
        case LineReader::State::ended: break;
        case LineReader::State::unreadable: checker.unreadable(reader.problem()); break;
        case LineReader::State::torn:
        case LineReader::State::damaged:
            checker.broken(checker.next_line(), reader.problem());
            break;
    }
    return checker.take();
}

std::optional<LinePosition> find_line(const std::vector<std::filesystem::path>& files,
                                      const std::string& hash) {
    for (const std::filesystem::path& file : files) {
        LineReader reader(file);
        for (std::uint64_t number = 1; const auto line = reader.next(); ++number) {
            if (sha_256_hex(*line) == hash) return LinePosition{file, number};
        }
    }
    return std::nullopt;
}

}  // namespace pgchaperone::audit
