#pragma once
// A ticket as one JSON object, as the stores keep it. Bytes that are no UTF-8, or that hold a NUL,
// survive: such a text is written as {"hex": "..."} in place of a string. Moments are microseconds
// since 1970. Fields that this version does not know are left aside when reading.

#include "approval/ticket.h"

#include <optional>
#include <string>
#include <string_view>

namespace pgchaperone::approval {

std::string json_of(const Ticket& ticket);
// Nothing: this is no ticket.
std::optional<Ticket> ticket_of(std::string_view json);

}  // namespace pgchaperone::approval
