#pragma once
// `pgchaperone audit verify`: checks the chain of an audit log's files. What the chain shows and
// what it can't is audit/verify.h's; the page for people is docs/audit.md.

#include "audit/chain.h"
#include "audit/signature.h"
#include "config/options.h"

#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace pgchaperone::cli {

// Exit statuses, as for the other subcommands.
inline constexpr int audit_intact = 0;
inline constexpr int audit_broken = 1;   // the chain breaks, or the expected point is not in it
inline constexpr int audit_trouble = 2;  // a file can't be read

struct VerifyTerms {
    // The first file must follow this point.
    std::optional<audit::ChainPoint> after;
    // It must be in one of the files.
    std::optional<audit::ChainPoint> expected;
    // Public keys of which one must have signed each checkpoint; none: signatures are not looked
    // at.
    std::vector<audit::Key> keys;
    // How many lines in a row may be without a checkpoint that speaks for them: where it is given,
    // also behind the last one; else none, where one follows.
    std::optional<std::uint64_t> unsigned_max;
    // Whether the first file must begin with line 1, unless `after` says what it follows.
    bool whole = false;
};

// Verifies the files as one chain, the oldest first: each must go on where the one before ended.
// One line for each file goes to `out`, what is wrong to `err`. Returns the exit status.
int verify_logs(const std::vector<std::filesystem::path>& files, const VerifyTerms& terms,
                std::ostream& out, std::ostream& err);

// The same for a log and its old files, found by its name, even while it is written and rotated.
int verify_log(const std::filesystem::path& log, const VerifyTerms& terms, std::ostream& out,
               std::ostream& err);

// What a configuration says of the log, or the defaults; nothing where it can't be loaded, which is
// then told.
std::optional<config::Audit> configured_audit(const std::string& config);

// Adds `audit` with its own subcommands to those of `app`; where it is the one called, `status`
// becomes its exit status.
void add_audit(CLI::App& app, int& status);

}  // namespace pgchaperone::cli
