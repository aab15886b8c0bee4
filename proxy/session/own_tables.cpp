#include "proxy/session/own_tables.h"

#include "policy/own_tables.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <string_view>

namespace pgchaperone::session {

namespace {

// A client that makes thousands of temporary tables goes on without this convenience.
constexpr std::size_t tables_max = 256;

// ON COMMIT DROP, and more than that: too often yes does no harm.
bool may_drop_on_commit(std::string_view text) {
    constexpr std::string_view word = "drop";
    return std::search(text.begin(), text.end(), word.begin(), word.end(), [](char a, char b) {
               return std::tolower(static_cast<unsigned char>(a)) == b;
           }) != text.end();
}

}  // namespace

void OwnTables::sent(const policy::Analysis& analysis, std::uint64_t sequence) {
    Made made;
    made.sequence = sequence;
    for (const policy::StatementFacts& facts : analysis.statements) {
        if (policy::makes_own_tables_doubtful(facts)) {
            forget();
            made.names.clear();
        }
        made.names.insert(made.names.end(), facts.tables_created.begin(), facts.tables_created.end());
    }
    if (made.names.empty() || names_.size() + made.names.size() > tables_max ||
        awaited_.size() > tables_max) {
        return;
    }
    made.until_commit = may_drop_on_commit(analysis.text);
    awaited_.push_back(std::move(made));
}

void OwnTables::settled(std::uint64_t sequence, bool ok) {
    while (!awaited_.empty() && awaited_.front().sequence <= sequence) {
        Made made = std::move(awaited_.front());
        awaited_.erase(awaited_.begin());
        if (ok && made.sequence == sequence) made_.push_back(std::move(made));
    }
    list();
}

void OwnTables::failed() {
    awaited_.clear();
    made_.clear();
    list();
}

void OwnTables::transaction_ended() {
    if (made_.empty()) return;
    std::copy_if(std::make_move_iterator(made_.begin()), std::make_move_iterator(made_.end()),
                 std::back_inserter(committed_),
                 [](const Made& made) { return !made.until_commit; });
    made_.clear();
    list();
}

void OwnTables::forget() {
    awaited_.clear();
    made_.clear();
    committed_.clear();
    names_.clear();
}

void OwnTables::list() {
    names_.clear();
    for (const std::vector<Made>* all : {&made_, &committed_}) {
        for (const Made& made : *all)
            names_.insert(names_.end(), made.names.begin(), made.names.end());
    }
}

}  // namespace pgchaperone::session
