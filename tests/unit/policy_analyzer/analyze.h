#pragma once
// What the tests of the analyzer share.

#include "policy/analyzer.h"
#include "support/catch.h"

#include <algorithm>
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

template <typename List, typename Value>
bool contains(const List& list, const Value& value) {
    return std::find(list.begin(), list.end(), value) != list.end();
}

}  // namespace pgchaperone::policy
