#pragma once
// The store of tickets and the people who decide, as the simulator has them. What happens to a
// ticket is said by approval/ticket.h; what may happen at all is checked here once more, by other
// words. Knows no session.

#include "approval/ticket.h"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace pgchaperone::sim {

// By so many different people, none of whom has asked for it.
bool rightly_approved(const approval::Ticket& ticket);

class ModelStore {
public:
    using Time = approval::Time;

    // Told of every state that a ticket must not have come to.
    std::function<void(std::string)> violation;
    bool claims_unapproved = false;  // to break it on purpose
    bool claims_twice = false;       // likewise

    approval::Ticket open(approval::Request request, Time now);
    approval::Result<std::optional<approval::Ticket>> claim(const approval::Claim& claim, Time now);
    void release(const std::string& id, Time now);
    // Whether it was open until then.
    bool withdraw(const std::string& id, const approval::Person* by, std::string why, Time now);
    void finish(const std::string& id, std::string outcome);
    approval::Result<approval::Ticket> vote(const std::string& id, const approval::Person& by,
                                            bool approve, Time now);
    // Ids of those whose time has come.
    std::vector<std::string> expire(Time now);

    const approval::Ticket* find(const std::string& id) const;
    std::vector<std::string> open_ids() const;
    bool any_approved() const;
    const std::vector<approval::Ticket>& tickets() const { return tickets_; }

private:
    approval::Ticket* at(const std::string& id);
    void put(approval::Ticket& old, approval::Ticket now);

    std::vector<approval::Ticket> tickets_;
};

}  // namespace pgchaperone::sim
