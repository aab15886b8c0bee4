#pragma once
// The policies that the simulator plays with, each as the YAML that the real engine judges by and,
// beside it, as the few numbers that the simulator holds the outcome against.

#include "policy/engine.h"
#include "policy/rule_book.h"
#include "sim/model_database.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::sim {

struct PolicyCase {
    std::string_view name;
    std::string_view yaml;
    bool supervised = false;       // everything that writes and everything opaque
    bool total = false;            // effects: total
    bool blocks_text = false;      // TRUNCATE, and writes without a WHERE
    bool observed = false;         // nothing is refused
    bool held = false;             // everything that writes and everything opaque waits
    bool tried = false;            // and is tried before
    bool exceeding_waits = false;  // on_exceed: hold
    std::optional<std::uint64_t> max_rows = std::nullopt;
    std::optional<std::uint64_t> max_rows_of_t1 = std::nullopt;
    std::optional<std::uint64_t> max_inserted = std::nullopt;
    std::optional<std::uint64_t> max_rows_per_transaction = std::nullopt;
    std::optional<std::uint64_t> max_rows_per_session = std::nullopt;
    std::optional<std::uint64_t>
        max_rows_of_a_table = std::nullopt;  // max_fraction of the estimate
    bool no_locks = false;
    bool no_catalog_changes = false;

    // Why a transaction with these effects must not commit; nothing where it may. `before`: rows
    // changed by the session's earlier ones.
    std::optional<std::string> forbids(const std::vector<Effect>& effects,
                                       std::uint64_t before) const;
    // Whether no reading of the limits can object to a transaction in which this was counted.
    bool surely_within(const CountsByTable& counts, std::uint64_t before, bool locked) const;
    // What can't be read, too.
    bool blocks(const Statement& statement) const;
    // It must not run before somebody has approved it.
    bool holds(const Statement& statement) const;
};

// Rows that the effects count as changed.
std::uint64_t rows_changed(const CountsByTable& counts);

const std::vector<PolicyCase>& policy_cases();

// An engine with a case's rules; not shared between threads.
std::unique_ptr<policy::Engine> engine_for(const PolicyCase& policy_case);

}  // namespace pgchaperone::sim
