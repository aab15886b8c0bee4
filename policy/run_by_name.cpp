#include "policy/run_by_name.h"

#include <algorithm>
#include <array>
#include <unordered_map>
#include <utility>
#include <vector>

namespace pgchaperone::policy {

namespace {

// A PREPARE in a DO block may not have run: so many meanings of one name are kept in one text.
constexpr std::size_t meanings_max = 8;

template <typename T>
void add_unique(std::vector<T>& list, const std::vector<T>& more) {
    for (const T& value : more) {
        if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(value);
    }
}

void raise(Flag& flag, const Flag& inner) {
    if (!flag.set) flag = inner;
}

// What gives the name does not run when the name does.
bool only_names(const std::string& command) {
    static constexpr std::array<std::string_view, 2> naming{"DECLARE CURSOR", "PREPARE"};
    return std::find(naming.begin(), naming.end(), command) != naming.end();
}

}  // namespace

bool runs_by_name(const StatementFacts& facts) {
    return !facts.executes.empty() || !facts.fetches.empty();
}

bool runs_by_name(const Analysis& analysis) {
    return std::any_of(analysis.statements.begin(), analysis.statements.end(),
                       [](const StatementFacts& facts) { return runs_by_name(facts); });
}

std::size_t weight_of(const StatementFacts& facts) {
    return 8 + facts.commands.size() + facts.read.size() + facts.written.size() +
           facts.functions.size() + facts.settings.size() + facts.prepares.size() +
           facts.declares.size();
}

Joiner::Joiner(std::size_t text_bytes) : left_(20'000 + text_bytes / 8) {}

void Joiner::join(const StatementFacts& inner, StatementFacts& outer) {
    const std::uint64_t cost = weight_of(inner) * (1 + weight_of(outer) / 64);
    if (cost > left_) {
        raise(outer.unparsable, {true, "what it runs by name is too much to look at"});
        return;
    }
    left_ -= cost;
    for (const std::string& command : inner.commands) {
        if (!only_names(command)) add_unique(outer.commands, {command});
    }
    add_unique(outer.classes, inner.classes);
    add_unique(outer.read, inner.read);
    add_unique(outer.written, inner.written);
    add_unique(outer.functions, inner.functions);
    add_unique(outer.settings, inner.settings);
    add_unique(outer.prepares, inner.prepares);
    add_unique(outer.declares, inner.declares);
    raise(outer.unbounded, inner.unbounded);
    raise(outer.opaque, inner.opaque);
    raise(outer.unparsable, inner.unparsable);
    raise(outer.destructive, inner.destructive);
    raise(outer.dangerous, inner.dangerous);
    raise(outer.blocking, inner.blocking);
    outer.moves_pg_temp |= inner.moves_pg_temp;
    outer.updates_on_conflict |= inner.updates_on_conflict;
    outer.may_change_lexical_settings |= inner.may_change_lexical_settings;
    outer.changes_search_path |= inner.changes_search_path;
    // A cursor WITH HOLD has run its query when it is fetched from.
    outer.holds_cursor |= inner.holds_cursor && !outer.executes.empty();
}

void join_within(Analysis& analysis) {
    std::vector<StatementFacts>& statements = analysis.statements;
    if (statements.size() < 2 || !runs_by_name(analysis)) return;
    using Meanings = std::unordered_map<std::string, std::vector<std::size_t>>;
    Meanings prepared;
    Meanings declared;
    Joiner joiner(analysis.text.size());
    const auto join = [&](const Meanings& names, const std::vector<std::string>& wanted,
                          StatementFacts& outer) {
        for (const std::string& name : wanted) {
            const auto found = names.find(name);
            if (found == names.end()) continue;
            for (const std::size_t at : found->second) joiner.join(statements[at], outer);
            if (found->second.size() > meanings_max) {
                raise(outer.unparsable, {true, "what it runs by name was given too often"});
            }
        }
    };
    const auto keep = [](Meanings& names, const std::vector<std::string>& given, std::size_t at,
                         bool certain) {
        for (const std::string& name : given) {
            std::vector<std::size_t>& meanings = names[name];
            // Nothing behind it runs unless it succeeds, and then the name was free.
            if (certain) meanings.clear();
            // One more tells that there were more.
            if (meanings.size() <= meanings_max) meanings.push_back(at);
        }
    };
    for (std::size_t i = 0; i < statements.size(); ++i) {
        StatementFacts& facts = statements[i];
        join(prepared, facts.executes, facts);
        join(declared, facts.fetches, facts);
        keep(prepared, facts.prepares, i, facts.command == "PREPARE");
        keep(declared, facts.declares, i, facts.command == "DECLARE CURSOR");
    }
}

StatementFacts unknown_statement() {
    StatementFacts facts;
    facts.command = "EXECUTE";
    facts.commands = {facts.command};
    facts.classes = {StatementClass::misc};
    facts.opaque = {true, "it runs a statement that was not seen being prepared"};
    facts.may_change_lexical_settings = true;
    return facts;
}

}  // namespace pgchaperone::policy
