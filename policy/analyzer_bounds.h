#pragma once
// Decides whether a write can reach every row of its target: "A WHERE is a bound only if some
// conjunct relates a column of the target to something that is not the target's own row." It sees
// one statement's tree and knows no catalogue: an unqualified name beside other relations may
// belong to either.
//
// It errs towards "unbounded" where the text leaves no relation to be seen, and towards "bound"
// where two names of unknown owners are compared.

#include "policy/facts.h"
#include "policy/parse_node.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::policy {

// A common table expression that is visible where the write stands.
struct VisibleQuery {
    std::string_view name;
    Json query;
    bool
        recursive = false;  // its own query sees it; otherwise the name means something older there
};

// Where the value of a PL/pgSQL variable comes from: a row of a query, or what was gathered of all
// of them. Named "$1" for what USING hands to dynamic SQL. A later origin of a name counts, and one
// without a query says that it is not known any more.
struct VariableOrigin {
    std::string name;
    std::optional<JsonObject> query;  // the body of a SelectStmt
    bool extreme = false;  // min(...) or max(...) of it: one value, but everything is on one side
};

// What surrounds a write.
struct BoundsScope {
    const std::vector<VisibleQuery>* queries = nullptr;
    const std::vector<std::string>*
        variables = nullptr;  // of a function's body: parameters, declarations
    // How many nodes may still be visited: conditions of queries in queries would take time without
    // end. When it is used up, what is not yet known to be a bound isn't one.
    std::uint64_t* work = nullptr;
    const std::vector<VariableOrigin>* origins = nullptr;
    bool repeats = false;  // in a loop that ends when nothing is left: a LIMIT limits nothing
};

// Whether a condition about the variables of a loop, or its contrary, picks out some of its rows.
bool picks_rows(const Json& condition, bool negated = false);

// Each takes the body of its node and answers with the reason in words that follow on "This UPDATE
// ...": "has no WHERE".
Flag unbounded_update(const JsonObject& update, const BoundsScope& scope);
Flag unbounded_delete(const JsonObject& del, const BoundsScope& scope);
Flag unbounded_merge(const JsonObject& merge, const BoundsScope& scope);
// Only an upsert can be: an INSERT ... SELECT from the target itself with ON CONFLICT DO UPDATE.
Flag unbounded_insert(const JsonObject& insert, const BoundsScope& scope);

}  // namespace pgchaperone::policy
