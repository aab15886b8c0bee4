#include "proxy/session/own_tables.h"

#include "policy/own_tables.h"

#include <algorithm>
#include <cctype>
#include <string_view>

namespace pgchaperone::session {

namespace {

// A client that makes thousands of tables goes on without this convenience.
constexpr std::size_t tables_max = 256;

// ON COMMIT DROP, and more than that: too often yes does no harm.
bool may_drop_on_commit(std::string_view text) {
    constexpr std::string_view word = "drop";
    return std::search(text.begin(), text.end(), word.begin(), word.end(), [](char a, char b) {
               return std::tolower(static_cast<unsigned char>(a)) == b;
           }) != text.end();
}

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

void OwnTables::sent(const policy::Analysis& analysis, std::uint64_t sequence) {
    ++statement_;
    if (!made_.empty()) {
        const bool keeps = std::all_of(analysis.statements.begin(), analysis.statements.end(),
                                       policy::keeps_own_tables);
        forget_if([&](const Made& made) {
            return !keeps || (made.until_statement != 0 && made.until_statement < statement_);
        });
    }
    const policy::RelationName* const name = policy::table_made(analysis);
    if (name == nullptr || made_.size() >= tables_max) return;
    Made made;
    made.name = *name;
    made.sequence = sequence;
    if (!analysis.statements.front().creates_temporary) {
        made.until_statement = statement_ + permanent_statements_max;
    }
    made.until_commit = may_drop_on_commit(analysis.text);
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
