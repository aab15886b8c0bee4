#include "policy/own_tables.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>

namespace pgchaperone::policy {

namespace {

bool all_commands_among(const StatementFacts& facts,
                        std::initializer_list<std::string_view> plain) {
    return std::all_of(facts.commands.begin(), facts.commands.end(),
                       [&](const std::string& command) {
                           return std::find(plain.begin(), plain.end(), command) != plain.end();
                       });
}

bool hides_something(const StatementFacts& facts) {
    return facts.opaque || facts.unparsable || facts.changes_search_path ||
           facts.may_change_lexical_settings;
}

}  // namespace

bool keeps_own_tables(const StatementFacts& facts) {
    return !hides_something(facts) &&
           all_commands_among(facts, {"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "COPY",
                                      "TRUNCATE", "TRUNCATE TABLE", "BEGIN", "START TRANSACTION",
                                      "COMMIT", "ANALYZE", "EXPLAIN", "SHOW", "CREATE INDEX",
                                      "CREATE TABLE", "CREATE TABLE AS", "SELECT INTO"});
}

const RelationName* table_made(const Analysis& analysis) {
    if (analysis.statements.size() != 1) return nullptr;
    const StatementFacts& facts = analysis.statements.front();
    if (!keeps_own_tables(facts) || facts.tables_created.size() != 1) return nullptr;
    const bool makes = facts.command == "CREATE TABLE" || facts.command == "CREATE TABLE AS" ||
                       facts.command == "SELECT INTO";
    return makes ? &facts.tables_created.front() : nullptr;
}

bool harms_own_tables_only(const StatementFacts& facts, const std::vector<RelationName>& own) {
    if (own.empty() || facts.written.empty() || facts.opaque || facts.dangerous) return false;
    if (!all_commands_among(facts, {"SELECT", "UPDATE", "DELETE", "TRUNCATE", "TRUNCATE TABLE",
                                    "DROP TABLE", "CREATE INDEX"})) {
        return false;
    }
    return std::all_of(facts.written.begin(), facts.written.end(), [&](const RelationName& name) {
        return std::find(own.begin(), own.end(), name) != own.end();
    });
}

}  // namespace pgchaperone::policy
