#pragma once
// When a session's list of its own tables (Moment::own_tables) stops being certain. Shared by the
// engine, for the later statements of a text, and by the session core, for the later statements of
// a session.

#include "policy/facts.h"

namespace pgchaperone::policy {

// After this statement an unqualified name may mean another table than before: it may drop, rename,
// roll back or hide what the session made, or nobody can tell.
bool makes_own_tables_doubtful(const StatementFacts& facts);

}  // namespace pgchaperone::policy
