#include "sim/policies.h"

#include "config/policy_loader.h"

#include <cstdio>
#include <cstdlib>

namespace pgchaperone::sim {

const std::vector<PolicyCase>& policy_cases() {
    static const std::vector<PolicyCase> cases = [] {
        std::vector<PolicyCase> list;
        list.push_back({.name = "allow everything", .yaml = "rules: []"});
        list.push_back({.name = "block by text",
                        .yaml = R"(rules:
  - { name: no-truncate, match: { command: TRUNCATE }, action: block }
  - { name: bounded, match: { command: [UPDATE, DELETE], unbounded: true },
      action: block })",
                        .blocks_text = true});
        list.push_back({.name = "supervise, total effects",
                        .yaml = R"(rules:
  - name: counted
    match: { any: [ { class: WRITE }, { opaque: true } ] }
    action: { supervise: { max_rows: 10, max_rows_per_transaction: 20, max_inserted: 10,
                           effects: total, catalog_changes: refuse, exclusive_locks: refuse } })",
                        .supervised = true,
                        .total = true,
                        .max_rows = 10,
                        .max_inserted = 10,
                        .max_rows_per_transaction = 20,
                        .no_locks = true,
                        .no_catalog_changes = true});
        list.push_back({.name = "supervise, by tag",
                        .yaml = R"(rules:
  - name: counted
    match: { any: [ { class: WRITE }, { opaque: true } ] }
    action: { supervise: { max_rows: 10, max_rows_per_transaction: 20, max_inserted: 10,
                           effects: tag } })",
                        .supervised = true,
                        .max_rows = 10,
                        .max_inserted = 10,
                        .max_rows_per_transaction = 20});
        list.push_back({.name = "supervise by table and insertion, block by text",
                        .yaml = R"(rules:
  - { name: no-truncate, match: { command: TRUNCATE }, action: block }
  - { name: bounded, match: { command: [UPDATE, DELETE], unbounded: true }, action: block }
  - name: counted
    match: { any: [ { class: WRITE }, { opaque: true } ] }
    action: { supervise: { max_rows: 30, max_rows_per_table: { public.t1: 3 }, max_inserted: 8,
                           effects: total } })",
                        .supervised = true,
                        .total = true,
                        .blocks_text = true,
                        .max_rows = 30,
                        .max_rows_of_t1 = 3,
                        .max_inserted = 8});
        list.push_back({.name = "supervise by fraction, session and lock timeout",
                        .yaml = R"(rules:
  - name: counted
    match: { any: [ { class: WRITE }, { opaque: true } ] }
    action: { supervise: { max_fraction: 10%, max_rows_per_session: { rows: 12, window: 10h },
                           effects: total, lock_timeout: 2s } })",
                        .supervised = true,
                        .total = true,
                        .max_rows_per_session = 12,
                        .max_rows_of_a_table = 5});
        list.push_back({.name = "observe only",
                        .yaml = R"(mode: observe
rules:
  - { name: no-truncate, match: { command: TRUNCATE }, action: block }
  - name: counted
    match: { any: [ { class: WRITE }, { opaque: true } ] }
    action: { supervise: { max_rows: 1, effects: total } })",
                        .observed = true});
        const auto holding = [&](std::string_view name, std::string_view yaml, bool tried) {
            list.push_back({.name = name, .yaml = yaml, .held = true, .tried = tried});
        };
        holding("hold", R"(approvers: [boss, chief]
rules:
  - name: held
    match: { any: [ { class: WRITE }, { opaque: true } ] }
    action: { hold: { wait: 60s, ticket_ttl: 2m, evidence: none } })",
                false);
        holding("hold, with a plan, for two approvers, up to the ticket's end",
                R"(approvers: [boss, chief]
rules:
  - name: held
    match: { any: [ { class: WRITE }, { opaque: true } ] }
    action: { hold: { wait: 60s, ticket_ttl: 60s, evidence: plan, approvals: 2 } })",
                false);
        holding("hold, with a trial", R"(approvers: [boss, chief]
rules:
  - name: held
    match: { any: [ { class: WRITE }, { opaque: true } ] }
    action: { hold: { wait: 60s, ticket_ttl: 2m, evidence: trial } })",
                true);
        holding("hold, refuse in a transaction", R"(approvers: [boss, chief]
break_glass: { roles: [clerk] }
rules:
  - name: held
    match: { any: [ { class: WRITE }, { opaque: true } ] }
    action: { hold: { wait: 60s, ticket_ttl: 2m, evidence: plan, in_transaction: refuse } })",
                false);
        list.push_back({.name = "hold what exceeds",
                        .yaml = R"(approvers: [boss, chief]
rules:
  - name: counted
    match: { any: [ { class: WRITE }, { opaque: true } ] }
    action: { supervise: { max_rows: 3, max_inserted: 5, effects: total, on_exceed: hold,
                           hold: { wait: 60s, ticket_ttl: 2m } } })",
                        .supervised = true,
                        .total = true,
                        .exceeding_waits = true,
                        .max_rows = 3,
                        .max_inserted = 5});
        return list;
    }();
    return cases;
}

std::unique_ptr<policy::Engine> engine_for(const PolicyCase& policy_case) {
    config::Problems problems;
    const config::Surroundings surroundings;
    config::YamlReader reader("policy.yaml", problems, surroundings);
    const auto root = reader.parse(std::string(policy_case.yaml));
    config::PolicyLoader loader(problems, surroundings);
    policy::Policy rules;
    if (root) rules = loader.load(reader, *root, {});
    if (!root || problems.has_errors()) {
        std::fprintf(stderr, "the simulator's own policy: %s\n", problems.text().c_str());
        std::abort();
    }
    policy::Capabilities capabilities;
    capabilities.supervise = true;
    capabilities.hold = true;
    return std::make_unique<policy::Engine>(std::make_shared<policy::RuleBook>(std::move(rules)),
                                            capabilities);
}

std::uint64_t rows_changed(const CountsByTable& counts) {
    std::uint64_t rows = 0;
    for (int table = 0; table < tables_count; ++table) {
        rows += counts[static_cast<std::size_t>(table)].changed();
    }
    return rows;
}

std::optional<std::string> PolicyCase::forbids(const std::vector<Effect>& effects,
                                               std::uint64_t before) const {
    if (!supervised) return std::nullopt;
    std::uint64_t sum = 0;
    for (const Effect& effect : effects) {
        const bool seen_whole = total || effect.opaque;
        if (effect.deferred && !total) continue;
        const std::uint64_t rows = seen_whole ? effect.rows() : effect.tagged.changed();
        const std::uint64_t inserted = seen_whole ? effect.inserted() : effect.tagged.inserted;
        sum += rows;
        const auto over = [&](const char* what, std::uint64_t count, std::uint64_t limit) {
            return effect.text + ": " + what + " " + std::to_string(count) + ", limit " +
                   std::to_string(limit);
        };
        if (max_rows && rows > *max_rows) return over("rows", rows, *max_rows);
        if (max_rows_of_t1 && effect.counts[0].changed() > *max_rows_of_t1) {
            return over("rows of t1", effect.counts[0].changed(), *max_rows_of_t1);
        }
        for (int table = 0; table < tables_count; ++table) {
            const Counts& counts = effect.counts[static_cast<std::size_t>(table)];
            if (max_rows_of_a_table && counts.changed() > *max_rows_of_a_table) {
                return over("rows of one table", counts.changed(), *max_rows_of_a_table);
            }
        }
        if (max_inserted && inserted > *max_inserted) {
            return over("inserted", inserted, *max_inserted);
        }
        // A TRUNCATE that says so itself hides nothing.
        if (no_locks && effect.truncated && effect.opaque) {
            return effect.text + ": a hidden ACCESS EXCLUSIVE lock";
        }
        if (no_catalog_changes && effect.counts[catalog_table].any()) {
            return effect.text + ": the catalog was changed";
        }
    }
    if (max_rows_per_transaction && sum > *max_rows_per_transaction) {
        return "the transaction: rows " + std::to_string(sum) + ", limit " +
               std::to_string(*max_rows_per_transaction);
    }
    if (max_rows_per_session && sum > 0 && before + sum > *max_rows_per_session) {
        return "the session: rows " + std::to_string(before + sum) + ", limit " +
               std::to_string(*max_rows_per_session);
    }
    return std::nullopt;
}

bool PolicyCase::surely_within(const CountsByTable& counts, std::uint64_t before,
                               bool locked) const {
    if (!supervised) return true;
    const std::uint64_t rows = rows_changed(counts);
    std::uint64_t inserted = 0;
    for (int table = 0; table < tables_count; ++table) {
        inserted += counts[static_cast<std::size_t>(table)].inserted;
    }
    if (max_rows && rows > *max_rows) return false;
    if (max_rows_per_transaction && rows > *max_rows_per_transaction) return false;
    if (max_rows_of_a_table && rows > *max_rows_of_a_table) return false;
    if (max_rows_per_session && before + rows > *max_rows_per_session) return false;
    if (max_rows_of_t1 && counts[0].changed() > *max_rows_of_t1) return false;
    if (max_inserted && inserted > *max_inserted) return false;
    if (no_locks && locked) return false;
    return !no_catalog_changes || !counts[catalog_table].any();
}

bool PolicyCase::holds(const Statement& statement) const {
    switch (statement.verb) {
        case Verb::insert:
        case Verb::update:
        case Verb::remove:
        case Verb::truncate:
        case Verb::copy_in:
        case Verb::execute: return held;
        default: return held && statement.opaque();
    }
}

bool PolicyCase::blocks(const Statement& statement) const {
    if (statement.verb == Verb::syntax_error) return !observed;
    if (!blocks_text) return false;
    const Verb verb = statement.verb == Verb::prepare ? statement.inner : statement.verb;
    const bool changes = verb == Verb::update || verb == Verb::remove ||
                         verb == Verb::with_remove || verb == Verb::explain_remove;
    return verb == Verb::truncate || (changes && !statement.bounded);
}

}  // namespace pgchaperone::sim
