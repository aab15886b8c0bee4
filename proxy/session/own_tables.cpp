#include "proxy/session/own_tables.h"

#include <algorithm>
#include <string_view>

namespace pgchaperone::session {

namespace {

// A client that makes thousands of tables goes on without this convenience.
constexpr std::size_t tables_max = 256;

}  // namespace

template <class Condition>
void OwnTables::forget_if(Condition condition) {
    made_.erase(std::remove_if(made_.begin(), made_.end(), condition), made_.end());
    names_.clear();
    for (const Made& made : made_) {
        if (made.answered) names_.push_back(made.name);
    }
}

void OwnTables::doubt() {
    if (!made_.empty()) forget_if([](const Made&) { return true; });
}

void OwnTables::started_with(std::string_view value) {
    constexpr std::string_view schema = "pg_temp";
    const auto found = std::search(
        value.begin(), value.end(), schema.begin(), schema.end(),
        [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + 32 : a) == b; });
    doubts_.all = doubts_.all || found != value.end();
}

void OwnTables::sent(const policy::Analysis& analysis, std::uint64_t sequence) {
    ++statement_;
    for (const policy::StatementFacts& facts : analysis.statements) {
        policy::add_doubts(facts, doubts_);
    }
    if (!made_.empty()) {
        forget_if([&](const Made& made) {
            const bool over = made.until_statement != 0 && made.until_statement < statement_;
            return over || !std::all_of(analysis.statements.begin(), analysis.statements.end(),
                                        [&](const policy::StatementFacts& facts) {
                                            return policy::keeps_own_table(facts, made.name);
                                        });
        });
    }
    // Of several statements in one text no later one knows whether they all succeeded.
    if (analysis.statements.size() != 1 || made_.size() >= tables_max) return;
    const policy::StatementFacts& facts = analysis.statements.front();
    const policy::RelationName* const name = policy::table_made(facts, doubts_);
    if (name == nullptr) return;
    Made made;
    made.name = *name;
    made.sequence = sequence;
    if (!facts.creates_temporary) {
        made.until_statement = statement_ + policy::permanent_statements_max;
    }
    made.until_commit = facts.drops_on_commit;
    made_.push_back(std::move(made));
}

void OwnTables::settled(std::uint64_t sequence, bool ok) {
    if (made_.empty()) return;
    for (Made& made : made_) made.answered = made.answered || (ok && made.sequence == sequence);
    forget_if([&](const Made& made) { return !made.answered && made.sequence <= sequence; });
}

void OwnTables::failed() {
    if (!made_.empty()) forget_if([](const Made& made) { return !made.committed; });
}

void OwnTables::transaction_ended() {
    if (made_.empty()) return;
    forget_if([](const Made& made) { return made.answered && made.until_commit; });
    for (Made& made : made_) made.committed = made.committed || made.answered;
}

}  // namespace pgchaperone::session
