#pragma once
// Which statements on a session's own tables harm nobody else, and how long the session's list of
// them (Moment::own_tables) stays certain. Shared by the engine, the rules and the session core.
//
// All of it errs on the side of refusing: a wrong yes here would let a real table be emptied.

#include "policy/facts.h"

#include <vector>

namespace pgchaperone::policy {

// After this statement the names on the list certainly mean the same tables as before: a short list
// of plain commands, none of which drops, renames, hides or rolls back anything.
bool keeps_own_tables(const StatementFacts& facts);

// The table that a text certainly makes when it succeeds, if it is a single CREATE TABLE, CREATE
// TABLE AS or SELECT INTO; else null.
const RelationName* table_made(const Analysis& analysis);

// The statement is a plain UPDATE, DELETE, TRUNCATE, DROP TABLE or CREATE INDEX, and everything
// that it changes is on the list.
bool harms_own_tables_only(const StatementFacts& facts, const std::vector<RelationName>& own);

}  // namespace pgchaperone::policy
