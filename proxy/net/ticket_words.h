#pragma once
// A ticket in words, for the columns of the virtual schema and for the log. Pure functions.

#include "approval/desk.h"
#include "approval/ticket.h"
#include "approval/visible_text.h"

#include <string>
#include <utility>
#include <vector>

namespace pgchaperone::net {

// Everything that a ticket says of itself, as names and values, the statement last; what is empty
// is left out.
std::vector<std::pair<std::string, std::string>> ticket_fields(const approval::Ticket& ticket,
                                                               approval::Time now);

// For the log: one line without the statement. `loud`: it is a warning.
struct LogLine {
    std::string text;
    bool loud = false;
};
LogLine log_line(const approval::Happened& happened);

}  // namespace pgchaperone::net
