#pragma once
// What happened to a ticket between two sights of it. A process that shares the store with others
// may see it only now and then; what happened meanwhile is told in full and in order. Pure.

#include "approval/ticket.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace pgchaperone::approval {

// For the log and for who is to be told (webhooks).
struct Happened {
    // `voted`: an approval that was not enough by itself. `decided`: approved or denied, as the
    // ticket's state says. `finished`: what was used or glass is over, and its outcome is known.
    enum class Kind : std::uint8_t {
        opened,
        voted,
        decided,
        expired,
        withdrawn,
        used,
        glass,
        finished
    };
    Kind kind = Kind::opened;
    Ticket ticket;     // as it was then
    bool own = false;  // this process did it, so it is the one of all replicas to send word of it
};

// As much of a ticket as its next sight is compared with.
struct Sight {
    State state = State::pending;
    std::size_t votes = 0;
    bool finished = false;
    bool operator==(const Sight&) const = default;
};
Sight sight_of(const Ticket& ticket);

// `before` null: it was not seen before, so it was opened too.
std::vector<Happened> happened_since(const Sight* before, const Ticket& now);

}  // namespace pgchaperone::approval
