#pragma once
// What pgchaperone itself sends to the server beside the client's statements, as the model must
// know it. The only place in the simulator that knows the guard's own SQL.

#include <string_view>

namespace pgchaperone::sim {

// Put in place of a refused statement; fails in the parser.
bool is_substitute(std::string_view sql);
// Its query that limits how long a lock is waited for.
bool is_guard_setting(std::string_view sql);
// Who is at the other end, and under which settings.
bool is_guard_identity(std::string_view sql);
// EXPLAIN of a statement that is held; the rest is the statement's text.
bool is_guard_plan(std::string_view sql);
std::string_view planned_text(std::string_view sql);
// One of the guard's own queries, this one or those that read the effects of a transaction.
bool is_guard_reading(std::string_view sql);
// Anything that the guard may send of its own accord.
bool is_injected(std::string_view sql);

}  // namespace pgchaperone::sim
