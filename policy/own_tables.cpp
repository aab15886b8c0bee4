#include "policy/own_tables.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace pgchaperone::policy {

bool makes_own_tables_doubtful(const StatementFacts& facts) {
    if (facts.opaque || facts.unparsable || facts.changes_search_path) return true;
    constexpr std::array<std::string_view, 7> doubtful = {
        "DROP", "ALTER", "DISCARD", "ROLLBACK", "COMMIT", "PREPARE", "EXECUTE"};
    return std::any_of(
        facts.commands.begin(), facts.commands.end(), [&](const std::string& command) {
            return std::any_of(doubtful.begin(), doubtful.end(),
                               [&](std::string_view word) { return command.starts_with(word); });
        });
}

}  // namespace pgchaperone::policy
