#pragma once
// Walks the parse tree of one statement and gathers its facts, with everything that stands inside
// it: common table expressions, subqueries, the statement under EXPLAIN ANALYZE, bodies of
// functions ... Knows neither bytes nor encodings: text and tree are UTF-8.

#include "policy/facts.h"
#include "policy/parse_node.h"

#include <cstdint>
#include <string_view>

namespace pgchaperone::policy {

// What is the same for all statements of a text.
struct WalkContext {
    bool backslash_escapes = false;     // standard_conforming_strings is off
    unsigned nesting = 0;               // how many literals with SQL in them stand around this text
    std::uint64_t work = 0;             // nodes that may still be visited to judge conditions
    std::vector<RelationName> created;  // by earlier statements of the same text
};

// `text` is the statement as it was written (a PL/pgSQL body is read from it once more).
void gather_facts(const Node& statement, std::string_view text, WalkContext& context,
                  StatementFacts& facts);

}  // namespace pgchaperone::policy
