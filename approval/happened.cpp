#include "approval/happened.h"

#include <utility>

namespace pgchaperone::approval {
namespace {

// The ticket with so many of its votes, when it was in this state.
Ticket as_it_was(const Ticket& now, std::size_t votes, State state) {
    if (now.state == state && now.votes.size() == votes) return now;
    Ticket ticket = now;
    ticket.votes.resize(votes);
    ticket.state = state;
    ticket.comment = votes > 0 && state != State::pending ? ticket.votes.back().comment : "";
    if (ticket.open()) {
        ticket.ended.reset();
        ticket.ended_by.clear();
    }
    ticket.outcome.clear();
    return ticket;
}

Ticket unfinished(Ticket ticket) {
    ticket.outcome.clear();
    return ticket;
}

}  // namespace

Sight sight_of(const Ticket& ticket) {
    return {
        .state = ticket.state, .votes = ticket.votes.size(), .finished = !ticket.outcome.empty()};
}

std::vector<Happened> happened_since(const Sight* before, const Ticket& now) {
    using Kind = Happened::Kind;
    std::vector<Happened> all;
    if (!before && now.request.glass) {
        all.push_back({Kind::glass, unfinished(now)});
    } else if (!before) {
        all.push_back({Kind::opened, as_it_was(now, 0, State::pending)});
    }
    State state = before ? before->state : State::pending;
    for (std::size_t votes = before ? before->votes : 0; votes < now.votes.size(); ++votes) {
        Kind kind = Kind::decided;
        if (!now.votes[votes].approve) {
            state = State::denied;
        } else if (as_it_was(now, votes + 1, State::pending).approvals() >=
                   now.request.terms.approvals) {
            state = State::approved;
        } else {
            kind = Kind::voted;
        }
        all.push_back({kind, as_it_was(now, votes + 1, state)});
    }
    if (now.state != state && !now.request.glass) {
        switch (now.state) {
            case State::expired: all.push_back({Kind::expired, now}); break;
            case State::withdrawn: all.push_back({Kind::withdrawn, now}); break;
            case State::used: all.push_back({Kind::used, unfinished(now)}); break;
            case State::pending:
            case State::approved:
            case State::denied: break;  // told with the vote that made it so
        }
    }
    if (!now.outcome.empty() && !(before && before->finished)) all.push_back({Kind::finished, now});
    return all;
}

}  // namespace pgchaperone::approval
