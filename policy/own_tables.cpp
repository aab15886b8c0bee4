#include "policy/own_tables.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>

namespace pgchaperone::policy {

namespace {

// A session that makes thousands of views or tables goes on without this convenience.
constexpr std::size_t names_max = 256;

bool all_commands_among(const StatementFacts& facts,
                        std::initializer_list<std::string_view> plain) {
    return std::all_of(facts.commands.begin(), facts.commands.end(),
                       [&](const std::string& command) {
                           return std::find(plain.begin(), plain.end(), command) != plain.end();
                       });
}

bool has_command(const StatementFacts& facts, std::string_view command) {
    return std::find(facts.commands.begin(), facts.commands.end(), command) != facts.commands.end();
}

bool hides_something(const StatementFacts& facts) {
    return facts.opaque || facts.unparsable || facts.changes_search_path || facts.moves_pg_temp;
}

// Of any schema: which one a name without schema means is not known here.
bool writes_name(const StatementFacts& facts, const std::string& name) {
    return std::any_of(facts.written.begin(), facts.written.end(), [&](const RelationName& each) {
        return each.is_every() || each.name == name;
    });
}

bool is_doubtful(const NameDoubts& doubts, const std::string& name) {
    return doubts.all ||
           std::find(doubts.names.begin(), doubts.names.end(), name) != doubts.names.end();
}

}  // namespace

bool keeps_own_table(const StatementFacts& facts, const RelationName& name) {
    if (hides_something(facts)) return false;  // COMMIT too, as what SET LOCAL changed comes back
    // No table on the list is another's child, so that none goes along with what is dropped.
    if (all_commands_among(facts, {"DROP TABLE"})) return !writes_name(facts, name.name);
    return !facts.may_change_lexical_settings &&
           all_commands_among(
               facts, {"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "TRUNCATE",
                       "TRUNCATE TABLE", "BEGIN", "START TRANSACTION", "ANALYZE", "EXPLAIN", "SHOW",
                       "CREATE INDEX", "CREATE TABLE", "CREATE TABLE AS", "SELECT INTO"});
}

const RelationName* table_made(const StatementFacts& facts, const NameDoubts& doubts) {
    if (hides_something(facts) || facts.may_change_lexical_settings) return nullptr;
    if (facts.tables_created.size() != 1 || facts.creates_child) return nullptr;
    if (!all_commands_among(facts, {"CREATE TABLE", "CREATE TABLE AS", "SELECT INTO", "SELECT"}))
        return nullptr;
    const RelationName& name = facts.tables_created.front();
    return is_doubtful(doubts, name.name) ? nullptr : &name;
}

void add_doubts(const StatementFacts& facts, NameDoubts& doubts) {
    doubts.all = doubts.all || facts.moves_pg_temp;
    // A view over a temporary table is temporary without saying so, so each view counts, and each
    // name that something is given.
    const bool renames = facts.command.starts_with("ALTER ") && facts.written.size() > 1;
    if (doubts.all || !(has_command(facts, "CREATE VIEW") || renames)) return;
    for (const RelationName& view : facts.written) {
        if (!is_doubtful(doubts, view.name)) doubts.names.push_back(view.name);
    }
    doubts.all = doubts.names.size() > names_max;
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

OwnTablesInOrder::OwnTablesInOrder(const Moment& before, Scope scope)
    : scope_(scope),
      doubts_(before.name_doubts),
      names_(before.own_tables),
      until_statement_(before.own_tables.size(), 0) {}

void OwnTablesInOrder::doubt() {
    names_.clear();
    until_statement_.clear();
}

void OwnTablesInOrder::ran(const StatementFacts& facts) {
    ++statement_;
    add_doubts(facts, doubts_);
    for (std::size_t i = names_.size(); i-- > 0;) {
        const bool over = until_statement_[i] != 0 && until_statement_[i] < statement_;
        if (!over && keeps_own_table(facts, names_[i])) continue;
        names_.erase(names_.begin() + static_cast<std::ptrdiff_t>(i));
        until_statement_.erase(until_statement_.begin() + static_cast<std::ptrdiff_t>(i));
    }
    const RelationName* const made = table_made(facts, doubts_);
    if (made == nullptr || names_.size() >= names_max) return;
    // Outside of a transaction block, and a file need not show where it is in one, such a table is
    // gone at once.
    if (scope_ == Scope::file && facts.drops_on_commit) return;
    const bool ends = scope_ == Scope::file && !facts.creates_temporary;
    names_.push_back(*made);
    until_statement_.push_back(ends ? statement_ + permanent_statements_max : 0);
}

}  // namespace pgchaperone::policy
