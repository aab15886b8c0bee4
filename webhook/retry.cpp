#include "webhook/retry.h"

#include <algorithm>

namespace pgchaperone::webhook {
namespace {

constexpr std::size_t error_name_bytes = 40;

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

std::string answer_text(long status, std::string_view beginning) {
    std::string text = "answered " + std::to_string(status);
    if (status >= 300 && status < 400)
        return text + ": redirections are not followed; set the url to where it leads";
    while (!beginning.empty() && (beginning.back() == '\n' || beginning.back() == '\r'))
        beginning.remove_suffix(1);
    const bool name = !beginning.empty() && beginning.size() <= error_name_bytes &&
                      beginning.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") ==
                          std::string_view::npos;
    return name ? text + ": " + std::string(beginning) : text;
}

}  // namespace pgchaperone::webhook
