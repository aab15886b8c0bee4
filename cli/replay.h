#pragma once
// `pgchaperone replay`: judges the statements of an audit log by another policy, and tells which
// would be judged otherwise.

#include "cli/terminal.h"
#include "policy/rule_book.h"

#include <filesystem>
#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

namespace pgchaperone::cli {

// Returns the exit status: 0 nothing would be judged otherwise, 1 something would, 2 a file can't
// be read. Statements whose text is not in the log can't be judged, and are counted.
// `rules`: those that hold at the upstream of this name; null: there are none, and it is counted
// likewise.
using RulesOf = std::function<std::shared_ptr<const policy::RuleBook>(const std::string& upstream)>;
int replay_log(const std::vector<std::filesystem::path>& files, const RulesOf& rules, bool json,
               const Look& look, std::ostream& out, std::ostream& err);

}  // namespace pgchaperone::cli
