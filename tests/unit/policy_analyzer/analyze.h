#pragma once
// What the tests of the analyzer share.

#include "policy/analyzer.h"
#include "support/catch.h"

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>

namespace pgchaperone::policy {

inline AnalysisPtr analyze(std::string_view sql, const LexicalSettings& lexical = {}) {
    return Analyzer().analyze(sql, lexical);
}

// The facts of a text that must be one statement.
inline StatementFacts facts_of(std::string_view sql, const LexicalSettings& lexical = {}) {
    const AnalysisPtr analysis = analyze(sql, lexical);
    INFO(sql);
    REQUIRE(analysis->statements.size() == 1);
    return analysis->statements.front();
}

// Checks what is said of whole statements.
inline void all_unbounded(std::initializer_list<const char*> statements) {
    for (const char* sql : statements) {
        const StatementFacts facts = facts_of(sql);
        INFO(sql);
        REQUIRE_FALSE(facts.unparsable);
        CHECK(facts.unbounded.set);
        CHECK_FALSE(facts.unbounded.set == facts.unbounded.reason.empty());
    }
}

inline void all_bounded(std::initializer_list<const char*> statements) {
    for (const char* sql : statements) {
        const StatementFacts facts = facts_of(sql);
        INFO(sql << " -- " << facts.unbounded.reason);
        REQUIRE_FALSE(facts.unparsable);
        CHECK_FALSE(facts.unbounded.set);
    }
}

// The same for the condition of a DELETE.
inline void reach_every_row(std::initializer_list<const char*> conditions) {
    for (const char* condition : conditions) {
        all_unbounded({("DELETE FROM orders WHERE " + std::string(condition)).c_str()});
    }
}

inline void are_bounds(std::initializer_list<const char*> conditions) {
    for (const char* condition : conditions) {
        all_bounded({("DELETE FROM orders WHERE " + std::string(condition)).c_str()});
    }
}

template <typename List, typename Value>
bool contains(const List& list, const Value& value) {
    return std::find(list.begin(), list.end(), value) != list.end();
}

}  // namespace pgchaperone::policy
