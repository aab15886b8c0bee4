#pragma once
// Which statements on a session's own tables harm nobody else, and how long the session's list of
// them (Moment::own_tables) stays certain. Shared by the engine, the commands that judge files, and
// the session core.
//
// All of it errs on the side of refusing: a wrong yes here would let a real table be emptied.

#include "policy/facts.h"
#include "policy/session_facts.h"

#include <cstdint>
#include <string_view>
#include <vector>

namespace pgchaperone::policy {

// How many statements after its making a permanent table counts as the session's own: then others
// may have come to use it.
inline constexpr std::uint64_t permanent_statements_max = 16;

// After this statement the name on the list certainly means the same table as before: a plain
// command that drops, renames, hides or rolls back nothing, or a DROP TABLE of others.
bool keeps_own_table(const StatementFacts& facts, const RelationName& name);

// The table that a statement certainly makes when it succeeds, if it is a CREATE TABLE, CREATE
// TABLE AS or SELECT INTO and nothing makes its name doubtful; else null.
const RelationName* table_made(const StatementFacts& facts, const NameDoubts& doubts);

// Adds what a statement that runs makes doubtful.
void add_doubts(const StatementFacts& facts, NameDoubts& doubts);

// The statement is a plain UPDATE, DELETE, TRUNCATE, DROP TABLE or CREATE INDEX, and everything
// that it changes is on the list.
bool harms_own_tables_only(const StatementFacts& facts, const std::vector<RelationName>& own);

// The list from one statement to the next where each only runs when those before it have succeeded:
// the statements of one text, or those of a file that ends at its first error.
class OwnTablesInOrder {
public:
    // `one_transaction`: until one of the statements says COMMIT.
    enum class Scope : std::uint8_t { one_transaction, file };
    explicit OwnTablesInOrder(const Moment& before, Scope scope = Scope::one_transaction);

    const std::vector<RelationName>& names() const { return names_; }
    const NameDoubts& doubts() const { return doubts_; }
    void ran(const StatementFacts& facts);
    void doubt();  // something else happened

private:
    Scope scope_;
    NameDoubts doubts_;
    std::vector<RelationName> names_;
    std::vector<std::uint64_t> until_statement_;  // as many; 0: no end
    std::uint64_t statement_ = 0;
};

// The moments at which the statements of one text run.
class Moments {
public:
    explicit Moments(const Moment& before) : moment_(before), own_tables_(before) {}
    const Moment& now() const { return moment_; }
    void ran(const StatementFacts& facts) {
        own_tables_.ran(facts);
        moment_.own_tables = own_tables_.names();
    }

private:
    Moment moment_;
    OwnTablesInOrder own_tables_;
};

}  // namespace pgchaperone::policy
