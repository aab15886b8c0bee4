#pragma once
// What there is to say of a ticket, in words, wherever people read of one. Pure functions.

#include "approval/ticket.h"

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

namespace pgchaperone::approval {

// "0 of 1"
std::string approvals_text(const Ticket& ticket);
// "dba_*, lead; and auditors": one of every list.
std::string approvers_text(const Terms& terms);
// The first characters of a text, never half of one; what is left out shows as an ellipsis.
std::string first_characters(std::string_view text, std::size_t characters);
// "29 minutes", "1 hour", "40 seconds"
std::string span_text(std::chrono::milliseconds span);
// What a vote has done, for who gave it.
std::string voted_text(const Ticket& ticket, Time now);

}  // namespace pgchaperone::approval
