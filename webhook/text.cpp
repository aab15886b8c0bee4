#include "webhook/text.h"

#include <boost/json.hpp>

#include <algorithm>
#include <array>

namespace pgchaperone::webhook {
namespace {

// The word behind an opening brace, or nothing where there is none.
std::string_view word_at(std::string_view text, std::size_t open) {
    const std::string_view rest = text.substr(open + 1);
    const auto end = std::find_if_not(rest.begin(), rest.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    });
    const auto size = static_cast<std::size_t>(end - rest.begin());
    if (size == 0 || size == rest.size() || rest[size] != '}') return {};
    return rest.substr(0, size);
}

std::string inside_of_json(const std::string& value) {
    const std::string quoted = boost::json::serialize(boost::json::string(value));
    return quoted.substr(1, quoted.size() - 2);
}

}  // namespace

std::span<const TextWord> text_words() {
    static constexpr std::array words = {
        TextWord{"headline", "what happened, in a few words: UPDATE waits for approval"},
        TextWord{"event", "opened, voted, decided, expired, withdrawn, used, glass or finished"},
        TextWord{"id", "of the message: the same when it is sent again"},
        TextWord{"time", "when it happened"},
        TextWord{"ticket", "its id: B1"},
        TextWord{"state", "pending, approved, denied, expired, withdrawn or used"},
        TextWord{"requester", "the role that asks"},
        TextWord{"database", "where"},
        TextWord{"upstream", "the name of its server, where several are guarded"},
        TextWord{"client", "the address that it asks from"},
        TextWord{"application", "what its client calls itself"},
        TextWord{"command", "UPDATE"},
        TextWord{"rule", "the rule that holds it"},
        TextWord{"reason", "why it is held; where the glass is broken, why it was"},
        TextWord{"effects", "what it would change, as far as that is known"},
        TextWord{"approvals", "0 of 1"},
        TextWord{"decided_by", "who approved or denied it"},
        TextWord{"comment", "what they said"},
        TextWord{"outcome", "what the run came to, if that is known"},
        TextWord{"opened", "when the ticket was opened"},
        TextWord{"expires", "when it expires"},
        TextWord{"replica", "the pgchaperone that tells it"},
        TextWord{"url", "of the ticket's page, if there is one"},
        TextWord{"statement", "its first 2,000 characters; needs statement: true"},
    };
    return words;
}

std::vector<std::string> words_in(std::string_view text) {
    std::vector<std::string> out;
    for (std::size_t at = 0; (at = text.find('{', at)) != std::string_view::npos; ++at)
        if (const std::string_view word = word_at(text, at); !word.empty()) out.emplace_back(word);
    return out;
}

std::string filled(std::string_view text, bool json,
                   const std::function<std::optional<std::string>(std::string_view)>& value_of) {
    std::string out;
    while (!text.empty()) {
        const std::size_t open = std::min(text.find('{'), text.size());
        out += text.substr(0, open);
        text.remove_prefix(open);
        if (text.empty()) break;
        const std::string_view word = word_at(text, 0);
        const auto value = word.empty() ? std::nullopt : value_of(word);
        if (!value) {
            out += '{';
            text.remove_prefix(1);
            continue;
        }
        out += json ? inside_of_json(*value) : *value;
        text.remove_prefix(word.size() + 2);
    }
    return out;
}

std::optional<std::string> why_no_json(std::string_view text) {
    // Within a string all values are as good as this one, and outside none is.
    const std::string sample = filled(text, true, [](std::string_view) { return "a \"b\" \\ c"; });
    boost::system::error_code error;
    boost::json::parse(sample, error);
    if (error) return error.message();
    return std::nullopt;
}

}  // namespace pgchaperone::webhook
