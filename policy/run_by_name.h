#pragma once
// What a statement runs by a name alone: EXECUTE of a prepared statement, FETCH and MOVE of a
// cursor. Its own text does not show what that does, so the facts of what the name stands for are
// joined to its own, as those of inner statements are. Knows no session: who keeps the names says
// what they stand for.
//
// Joining only ever adds: what the rules say of the joined facts is at least as strict as what they
// say of either.

#include "policy/facts.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace pgchaperone::policy {

// What a name stands for.
struct NamedText {
    std::string name;
    StatementFacts facts;
    std::string text;   // as people may see it
    bool whole = true;  // it is neither cut nor masked
};
using NamedTextPtr = std::shared_ptr<const NamedText>;

bool runs_by_name(const StatementFacts& facts);
bool runs_by_name(const Analysis& analysis);

// How much its lists hold, in items: what joining it costs.
std::size_t weight_of(const StatementFacts& facts);

// Joins within a bound, so that no text costs more than a multiple of its length.
class Joiner {
public:
    explicit Joiner(std::size_t text_bytes);
    // Past the bound `outer` becomes unparsable: it is not known whole.
    void join(const StatementFacts& inner, StatementFacts& outer);

private:
    std::uint64_t left_;
};

// Joins what the statements of one text run that earlier ones of the same text have named.
void join_within(Analysis& analysis);

// The facts of a statement that was not seen being prepared.
StatementFacts unknown_statement();

}  // namespace pgchaperone::policy
