#pragma once
// A ticket as the page and the API show it: the schemas Ticket and FullTicket of openapi.yaml.

#include "approval/ticket.h"
#include "web/json_out.h"

#include <cstddef>
#include <string>

namespace pgchaperone::web {

inline constexpr std::size_t statement_characters = 1000;  // of it, where many are shown

// Names what somebody sees who looks at this ticket: what would run, what it would do, and under
// which terms. It stays the same while people vote, and becomes another where the ticket is taken
// up again with other evidence.
std::string seen_of(const approval::Ticket& ticket);

enum class Extent : std::uint8_t { brief, full };
// One object. `message`: what a decision has just done; may be empty.
void put_ticket(JsonOut& out, const approval::Ticket& ticket, const approval::Person& person,
                approval::Time now, Extent extent, const std::string& message = {});

}  // namespace pgchaperone::web
