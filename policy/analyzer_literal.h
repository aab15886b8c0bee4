#pragma once
// The text that an expression is known to be before it runs: a literal, literals joined by ||, and
// the few functions that people build SQL with when all their arguments are literals.

#include "policy/parse_node.h"

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace pgchaperone::policy {

std::optional<std::string> literal_text(const Json& expression);

// The same where variables may stand in it that hold one of several texts. All texts that it can
// be; none where that is not known, or where there are too many.
using KnownTexts = std::map<std::string, std::vector<std::string>, std::less<>>;
std::vector<std::string> literal_texts(const Json& expression, const KnownTexts& variables);

}  // namespace pgchaperone::policy
