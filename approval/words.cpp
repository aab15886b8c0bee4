#include "approval/words.h"

#include <algorithm>

namespace pgchaperone::approval {

std::string approvals_text(const Ticket& ticket) {
    return std::to_string(ticket.approvals()) + " of " +
           std::to_string(ticket.request.terms.approvals);
}

std::string approvers_text(const Terms& terms) {
    std::string out;
    for (const auto& list : terms.approvers) {
        if (!out.empty()) out += "; and one of: ";
        for (std::size_t i = 0; i < list.size(); ++i) out += (i == 0 ? "" : ", ") + list[i];
    }
    if (out.empty()) out = "nobody";
    if (terms.allow_self) out += "; the requester may be one of them";
    return out;
}

std::string first_characters(std::string_view text, std::size_t characters) {
    std::size_t seen = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool begins = (static_cast<unsigned char>(text[i]) & 0xC0) != 0x80;
        if (begins && seen++ == characters) return std::string(text.substr(0, i)) + "…";
    }
    return std::string(text);
}

std::string span_text(std::chrono::milliseconds span) {
    using namespace std::chrono;
    const auto say = [](std::int64_t count, const char* unit) {
        return std::to_string(count) + ' ' + unit + (count == 1 ? "" : "s");
    };
    const auto s = std::max<std::int64_t>(ceil<seconds>(span).count(), 0);
    if (s < 120) return say(s, "second");
    if (s < 2 * 3600) return say(s / 60, "minute");
    if (s < 2 * 86400) return say(s / 3600, "hour");
    return say(s / 86400, "day");
}

std::string voted_text(const Ticket& ticket, Time now) {
    const std::string of = ticket.request.requester.role + "'s " + ticket.request.command;
    switch (ticket.state) {
        case State::approved:
            if (ticket.waiting(now)) return "approved: " + of + " runs now";
            return "approved: " + of + " may run once, within " +
                   span_text(
                       std::chrono::duration_cast<std::chrono::milliseconds>(ticket.expires - now));
        case State::denied: return "denied: " + of + " does not run";
        case State::pending: {
            const unsigned missing = ticket.request.terms.approvals - ticket.approvals();
            return "your approval counts; " + std::to_string(missing) +
                   (missing == 1 ? " more is needed" : " more are needed");
        }
        // Its session was quicker than this answer.
        case State::used: return "approved: " + of + " runs";
        case State::withdrawn: return "withdrawn: " + of + " does not run";
        case State::expired: return "expired: " + of + " does not run";
    }
    return {};
}

}  // namespace pgchaperone::approval
