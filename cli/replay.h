#pragma once
// `pgchaperone replay`: judges the statements of an audit log by another policy, and tells which
// would be judged otherwise.

#include "cli/terminal.h"
#include "policy/rule_book.h"

#include <filesystem>
#include <iosfwd>
#include <memory>
#include <vector>

namespace pgchaperone::cli {

// Returns the exit status: 0 nothing would be judged otherwise, 1 something would, 2 a file can't
// be read. Statements whose text is not in the log can't be judged, and are counted.
int replay_log(const std::vector<std::filesystem::path>& files,
               const std::shared_ptr<const policy::RuleBook>& rules, bool json, const Look& look,
               std::ostream& out, std::ostream& err);

}  // namespace pgchaperone::cli
