#pragma once
// The names of the virtual schema `chaperone`, and what a statement wants of it. All of SHOW
// chaperone.… and CALL chaperone.…(…) is ours, whatever the server may have under that name; save
// SHOW chaperone.reason, which is a setting like others. What the answers look like is known to
// proxy/session/virtual_schema.h.

#include "policy/facts.h"
#include "policy/parse_node.h"

#include <array>
#include <memory>
#include <string_view>

namespace pgchaperone::policy {

inline constexpr std::string_view chaperone_schema = "chaperone";
// SHOW chaperone.ticket_k7: one ticket; what stands behind this is its id.
inline constexpr std::string_view ticket_prefix = "ticket_";
// The setting that a role sets before it breaks the glass.
inline constexpr std::string_view reason_setting = "reason";

struct ChaperoneName {
    std::string_view name;
    bool call = false;
    std::array<std::string_view, 2> arguments{};  // their names, in order; empty: there is none
    std::size_t required = 0;                     // as many of them must be given
};

inline constexpr std::array chaperone_names = {
    ChaperoneName{"pending", false, {}, 0},
    ChaperoneName{ticket_prefix, false, {}, 0},
    ChaperoneName{"history", false, {}, 0},
    ChaperoneName{"sessions", false, {}, 0},
    ChaperoneName{"rules", false, {}, 0},
    ChaperoneName{"version", false, {}, 0},
    ChaperoneName{"stats", false, {}, 0},
    ChaperoneName{"approve", true, {"ticket", "comment"}, 1},
    ChaperoneName{"deny", true, {"ticket", "comment"}, 1},
    ChaperoneName{"withdraw", true, {"ticket", "comment"}, 1},
    ChaperoneName{"explain", true, {"sql"}, 1},
    ChaperoneName{"reload", true, {}, 0},
};

// The entry of a call's name; null: there is none.
const ChaperoneName* find_chaperone_name(std::string_view name, bool call) noexcept;

// What a whole statement wants of pgchaperone itself; null: nothing, it is for the server. The
// arguments stand in the order of the table above, as many as it names; those left out are NULL.
std::shared_ptr<const ChaperoneCall> chaperone_call(const Node& statement);

}  // namespace pgchaperone::policy
