#pragma once
// What EXPLAIN (FORMAT JSON) says of a statement, as evidence for an approver. Pure.

#include "approval/ticket.h"

#include <string_view>

namespace pgchaperone::session {

// Estimates of the rows that it changes, per table, and the plan's nodes in short, one a line. What
// can't be read gives evidence that says so.
approval::Evidence evidence_of_plan(std::string_view json);

}  // namespace pgchaperone::session
