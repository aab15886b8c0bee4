#pragma once
// A policy as values: rules, their conditions and their actions, ready to be evaluated. Filled by
// config/policy_loader from YAML; evaluated by policy/rule_match. Knows no file format.
//
// Rules are read from top to bottom and the first that applies decides.

#include "policy/decision.h"
#include "policy/rule_pattern.h"
#include "policy/rule_regex.h"
#include "policy/rule_time.h"

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::policy {

std::string_view class_name(StatementClass statement_class);  // "READ", as pgaudit writes it
// Of bits as in Condition::classes, as people write them: MISC stands for MISC_SET, too.
std::vector<std::string_view> class_names(std::uint8_t classes);

// Where something stands in a policy file, for messages. Line and column count from 1; 0: nowhere.
struct Place {
    std::string file;
    int line = 0;
    int column = 0;
    std::string text() const;  // file:line:column
};

// What a condition asks. The order is that of docs/policy.md.
enum class ConditionKind : std::uint8_t {
    all,
    any,
    negation,
    command,
    statement_class,
    relation,
    reads,
    writes,
    function,
    setting,
    unbounded,
    destructive,
    dangerous,
    blocking,
    opaque,
    unparsable,
    runs_in_transaction,
    controls_transaction,
    user,
    database,
    client,
    application_name,
    tls,
    replication,
    in_transaction,
    time,
    text,
};

// What a condition's answer depends on, and so how long it may be remembered.
enum class DependsOn : std::uint8_t { nothing, statement, session, moment };

// How a condition's value is written.
enum class ValueShape : std::uint8_t {
    conditions,
    condition_list,
    globs,
    classes,
    names,
    flag,
    networks,
    window,
    regex
};

struct ConditionType {
    ConditionKind kind;
    std::string_view key;  // in YAML
    DependsOn depends_on;
    ValueShape shape;
    std::string_view summary;  // one sentence, for the schema and the documentation
    std::string_view example;  // YAML
};
std::span<const ConditionType> condition_types();
const ConditionType& condition_type(ConditionKind kind);

struct Condition {
    ConditionKind kind = ConditionKind::all;
    std::vector<Condition> children;  // all, any; negation has one
    bool expected = true;             // flags
    std::uint8_t classes = 0;         // bit per StatementClass
    std::vector<Glob> globs;
    std::vector<NamePattern> names;
    std::vector<Network> networks;
    std::shared_ptr<const TimeWindow> window;
    bool outside = false;  // of the window
    std::shared_ptr<const Regex> regex;
    Place place;
    std::uint32_t
        number = 0;  // among the conditions on the session, or those on time; see Policy::seal

    std::string summary() const;  // as in YAML, on one line
};

enum class Permission : std::uint8_t { allow, refuse };

// Terms of a hold: see DESIGN.md section 8.
struct HoldTerms {
    enum class Evidence : std::uint8_t { none, plan, trial };
    enum class InTransaction : std::uint8_t { wait, refuse };
    std::chrono::milliseconds wait{60'000};
    std::chrono::milliseconds ticket_ttl{30 * 60'000};
    std::chrono::milliseconds notify_every{15'000};
    Evidence evidence = Evidence::plan;
    InTransaction in_transaction = InTransaction::wait;
    std::vector<std::string> approvers;  // roles; empty: those of the policy
    unsigned approvals = 1;              // so many different people
    bool allow_self = false;

    // Filled in by Policy::seal: who may decide (role patterns; `approvers`, or the policy's), and
    // who may go ahead alone.
    std::vector<std::string> deciders;
    std::vector<std::string> glass_roles;
    bool glass_needs_reason = true;
};

// What a second person has approved of: a run that does more is taken back, whatever else the
// limits say.
struct ApprovedEffects {
    struct Table {
        std::string table;
        std::uint64_t inserted = 0;
        std::uint64_t updated = 0;
        std::uint64_t deleted = 0;
    };
    std::string ticket;
    std::vector<Table> tables;
    std::vector<std::string> catalog_changes;
    std::vector<std::string> exclusive_locks;  // schema.name
    std::vector<std::string> foreign_writes;   // likewise
};

// Limits of a supervised transaction. A limit that is not there does not apply.
struct SuperviseLimits {
    enum class Effects : std::uint8_t { tag, total };
    enum class OnExceed : std::uint8_t { block, hold };
    struct TableLimit {
        NamePattern table;
        std::uint64_t rows;
    };
    struct SessionLimit {
        std::uint64_t rows;
        std::chrono::milliseconds window;
    };
    std::optional<std::uint64_t> max_rows;       // changed by one statement, in all tables together
    std::vector<TableLimit> max_rows_per_table;  // the first pattern that matches a table counts
    std::optional<double>
        max_fraction;  // of a table's rows as the catalogue estimates them, 0 to 1
    std::optional<std::uint64_t> max_rows_per_transaction;
    std::optional<std::uint64_t> max_inserted;
    std::optional<SessionLimit> max_rows_per_session;
    Permission catalog_changes = Permission::allow;
    Permission exclusive_locks = Permission::allow;
    Effects effects = Effects::tag;
    OnExceed on_exceed = OnExceed::block;
    std::shared_ptr<const HoldTerms> hold;  // where on_exceed is hold
    std::optional<std::chrono::milliseconds> lock_timeout;
    std::shared_ptr<const ApprovedEffects> approved;  // in place of all limits above
};

struct RuleAction {
    Action action = Action::allow;
    std::shared_ptr<const SuperviseLimits> supervise;
    std::shared_ptr<const HoldTerms> hold;
};

// How long what a rule matches may take; 0: as long as it likes, whatever a later rule says.
struct TimeLimits {
    std::optional<std::chrono::milliseconds> statement;
    std::optional<std::chrono::milliseconds> transaction;
};

struct Rule {
    std::string name;
    Condition match;  // an `all`; without children it always holds
    RuleAction action;
    std::string message;   // replaces the reason in a refusal; may hold {placeholders}
    std::string hint;      // replaces the usual hint; the same
    bool observe = false;  // note what it would have done, and go on with the next rule
    bool audit = false;    // an allowed statement leaves a record
    AuditDetail audit_detail = AuditDetail::statement;  // of that, and of any other
    TimeLimits limits;
    bool decides = true;  // false: it only limits, and the next rule is asked
    Place place;
    std::string origin;  // "the preset interactive", or empty for a rule of the file itself
    DependsOn depends_on = DependsOn::nothing;  // the strongest of its conditions; see Policy::seal

    // What it lets through must be certain to be what it means.
    bool lets_through() const {
        const auto exempts = [](const std::optional<std::chrono::milliseconds>& limit) {
            return limit && limit->count() == 0;
        };
        if (!decides) return exempts(limits.statement) || exempts(limits.transaction);
        return action.action == Action::allow;
    }
};

struct BreakGlass {
    std::vector<Glob> roles;
    bool require_reason = true;
};

struct Policy {
    std::string source;    // for people: a file's name or "preset interactive"
    bool observe = false;  // judge and log, but let everything through
    RuleAction unparsable{Action::block, nullptr, nullptr};
    RuleAction by_default{Action::allow, nullptr, nullptr};
    std::vector<Rule> rules;
    std::vector<Glob> approvers;
    std::vector<Glob> operators;  // who may reload, and see everybody's sessions
    std::optional<BreakGlass> break_glass;

    // Numbers the conditions, works out what each rule depends on and hands every hold the policy's
    // approvers and who may break the glass. To be called once after the last change; RuleBook
    // does.
    void seal();
    std::vector<const Condition*> session_conditions;  // by number; point into `rules`
    std::vector<const Condition*> time_conditions;
};

// Placeholders that `message` and `hint` may hold, without braces.
std::span<const std::string_view> message_placeholders();

}  // namespace pgchaperone::policy
