#include "webhook/retry.h"

#include "approval/visible_text.h"
#include "approval/words.h"

#include <algorithm>

namespace pgchaperone::webhook {
namespace {

constexpr std::size_t shown_characters = 200;
// Shorter pieces of a path are words such as "api"; a secret is longer.
constexpr std::size_t secret_piece_bytes = 8;

void leave_out(std::string& text, std::string_view what) {
    constexpr std::string_view mark = "...";
    for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += mark.size())
        text.replace(at, what.size(), mark);
}

std::string without_path(std::string text, std::string_view url) {
    const std::size_t host = url.find("://");
    const std::size_t begin = url.find('/', host == std::string_view::npos ? 0 : host + 3);
    if (begin == std::string_view::npos) return text;
    std::string_view path = url.substr(begin);
    if (path.size() > 1) leave_out(text, path);
    while (!path.empty()) {
        const std::size_t end = std::min(path.find_first_of("/?&=#"), path.size());
        if (end >= secret_piece_bytes) leave_out(text, path.substr(0, end));
        path.remove_prefix(std::min(end + 1, path.size()));
    }
    return text;
}

}  // namespace

Outcome outcome_of(long status) {
    if (status >= 200 && status < 300) return Outcome::delivered;
    if (status == 408 || status == 425 || status == 429 || status >= 500) return Outcome::again;
    return Outcome::never;
}

std::chrono::milliseconds retry_delay(unsigned failures, double chance,
                                      std::optional<std::chrono::seconds> asked) {
    // Far beyond where the last delay is reached.
    const unsigned doublings = std::min(failures == 0 ? 0U : failures - 1, 16U);
    const auto full = std::min<std::chrono::milliseconds>(retry_first * (1LL << doublings),
                                                          retry_last);
    const auto spread = std::chrono::milliseconds(static_cast<long long>(
        static_cast<double>(full.count()) * (1 - std::clamp(chance, 0.0, 1.0) / 2)));
    if (!asked || asked->count() <= 0) return spread;
    const auto wanted = std::min<std::chrono::milliseconds>(
        std::min(*asked, std::chrono::seconds(86'400)), retry_after_max);
    return std::max(spread, wanted);
}

std::string answer_text(long status, std::string_view beginning, std::string_view url) {
    std::string text = "answered " + std::to_string(status);
    if (status >= 300 && status < 400)
        return text + ": redirections are not followed; set the url to where it leads";
    const std::string shown = approval::visible_line(
        approval::first_characters(without_path(std::string(beginning), url), shown_characters));
    return shown.empty() ? text : text + ": " + shown;
}

}  // namespace pgchaperone::webhook
