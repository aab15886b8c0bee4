#include "sim/model_store.h"

#include <algorithm>
#include <set>
#include <utility>

namespace pgchaperone::sim {

namespace {

using approval::State;
using approval::Ticket;

// Whether a ticket may come from one state to the other.
bool follows(const Ticket& before, const Ticket& after) {
    if (before.state == after.state) return true;
    switch (before.state) {
        case State::pending: return after.state != State::used;
        case State::approved: return after.state != State::pending;
        case State::denied:
        case State::expired:
        case State::withdrawn:
        case State::used: return false;
    }
    return false;
}

}  // namespace

bool rightly_approved(const Ticket& ticket) {
    if (ticket.request.glass) return true;
    std::set<std::uint32_t> people;
    for (const approval::Vote& vote : ticket.votes) {
        if (!vote.approve) return false;
        if (vote.oid == ticket.request.requester.oid && !ticket.request.terms.allow_self) {
            return false;
        }
        people.insert(vote.oid);
    }
    return people.size() >= ticket.request.terms.approvals;
}

Ticket* ModelStore::at(const std::string& id) {
    const auto found = std::find_if(tickets_.begin(), tickets_.end(),
                                    [&](const Ticket& one) { return one.id == id; });
    return found == tickets_.end() ? nullptr : &*found;
}

const Ticket* ModelStore::find(const std::string& id) const {
    return const_cast<ModelStore*>(this)->at(id);
}

void ModelStore::put(Ticket& old, Ticket now) {
    const std::string what = old.id + " became " + std::string(state_name(now.state)) +
                             ", and was " + std::string(state_name(old.state));
    if (!follows(old, now)) violation("a ticket's life went wrong: " + what);
    const bool approved = now.state == State::approved ||
                          (now.state == State::used && !now.request.glass);
    if (approved && !rightly_approved(now)) {
        violation("a ticket was approved by too few people, or by its requester: " + what);
    }
    if (!old.outcome.empty() && now.outcome != old.outcome) {
        violation("a ticket's run ended twice: " + old.id + " " + old.outcome + ", " + now.outcome);
    }
    old = std::move(now);
}

Ticket ModelStore::open(approval::Request request, Time now) {
    for (Ticket& ticket : tickets_) {
        auto again = approval::taken_up(ticket, request, "model", now);
        if (!again) continue;
        put(ticket, std::move(*again));
        return ticket;
    }
    tickets_.push_back(
        approval::opened(std::move(request), approval::id_of(tickets_.size() + 1), "model", now));
    return tickets_.back();
}

approval::Result<std::optional<Ticket>> ModelStore::claim(const approval::Claim& claim, Time now) {
    for (Ticket& ticket : tickets_) {
        const bool same = ticket.request.binding == claim.binding;
        const bool sabotaged = same && ((claims_unapproved && ticket.open()) ||
                                        (claims_twice && ticket.state == State::used));
        if (sabotaged) {
            ticket.state = State::used;
            ticket.outcome.clear();
            return std::optional(ticket);
        }
        if (!approval::claimable(ticket, claim, now)) continue;
        if (ticket.state != State::approved || now >= ticket.expires) {
            violation("ticket " + ticket.id + " was claimed, which is " +
                      std::string(state_name(ticket.state)));
        }
        put(ticket, approval::claimed(ticket, now));
        return std::optional(ticket);
    }
    if (claim.ticket.empty()) return std::optional<Ticket>();
    const Ticket* const wanted = find(claim.ticket);
    if (wanted == nullptr) {
        violation("a ticket is claimed that was never opened: " + claim.ticket);
        return std::optional<Ticket>();
    }
    return approval::why_not_claimable(*wanted, claim, now);
}

void ModelStore::release(const std::string& id, Time now) {
    if (Ticket* const ticket = at(id)) put(*ticket, approval::released(*ticket, now));
}

bool ModelStore::withdraw(const std::string& id, const approval::Person* by, std::string why,
                          Time now) {
    Ticket* const ticket = at(id);
    if (ticket == nullptr) return false;
    auto after = approval::withdrawn(*ticket, by, std::move(why), now);
    if (!after) return false;
    put(*ticket, std::move(*after));
    return true;
}

void ModelStore::finish(const std::string& id, std::string outcome) {
    Ticket* const ticket = at(id);
    if (ticket == nullptr || ticket->state != State::used) {
        return violation("a run of ticket " + id + " ended, which nobody has claimed: " + outcome);
    }
    if (outcome.empty()) outcome = "nothing";
    put(*ticket, approval::finished(*ticket, std::move(outcome)));
}

approval::Result<Ticket> ModelStore::vote(const std::string& id, const approval::Person& by,
                                          bool approve, Time now) {
    Ticket* const ticket = at(id);
    auto after = approval::voted(*ticket, by, approve, "as chance has it", now);
    if (!after) return after.error();
    put(*ticket, std::move(*after));
    return *ticket;
}

std::vector<std::string> ModelStore::expire(Time now) {
    std::vector<std::string> ids;
    for (Ticket& ticket : tickets_) {
        if (!ticket.open() || now < ticket.expires) continue;
        put(ticket, approval::expired_by(ticket, now));
        if (ticket.open()) violation("ticket " + ticket.id + " does not expire");
        ids.push_back(ticket.id);
    }
    return ids;
}

std::vector<std::string> ModelStore::open_ids() const {
    std::vector<std::string> ids;
    for (const Ticket& ticket : tickets_) {
        if (ticket.open()) ids.push_back(ticket.id);
    }
    return ids;
}

bool ModelStore::any_approved() const {
    return std::any_of(tickets_.begin(), tickets_.end(),
                       [](const Ticket& one) { return one.state == State::approved; });
}

}  // namespace pgchaperone::sim
