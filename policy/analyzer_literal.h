#pragma once
// The text that an expression is known to be before it runs: a literal, literals joined by ||, and
// the few functions that people build SQL with when all their arguments are literals.

#include "policy/parse_node.h"

#include <optional>
#include <string>

namespace pgchaperone::policy {

std::optional<std::string> literal_text(const Json& expression);

}  // namespace pgchaperone::policy
