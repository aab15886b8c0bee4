#include "policy/rule.h"

#include <algorithm>
#include <array>

namespace pgchaperone::policy {
namespace {

using K = ConditionKind;
using D = DependsOn;
using V = ValueShape;

constexpr std::array types = {
    ConditionType{K::all, "all", D::nothing, V::condition_list,
                  "Every one of the listed conditions holds.",
                  "all: [ { class: WRITE }, { not: { user: app } } ]"},
    ConditionType{K::any, "any", D::nothing, V::condition_list,
                  "At least one of the listed conditions holds.",
                  "any: [ { class: WRITE }, { opaque: true } ]"},
    ConditionType{K::negation, "not", D::nothing, V::conditions,
                  "The conditions below it do not all hold.", "not: { user: [dba_*] }"},
    ConditionType{K::command, "command", D::statement, V::globs,
                  "The command tag, of the statement itself or of one inside it, in either case.",
                  "command: [UPDATE, DELETE, \"DROP *\"]"},
    ConditionType{K::statement_class, "class", D::statement, V::classes,
                  "pgaudit's class: READ, WRITE, FUNCTION, ROLE, DDL, MISC or MISC_SET.",
                  "class: [WRITE, DDL]"},
    ConditionType{K::relation, "relation", D::statement, V::names,
                  "A relation that the statement reads or writes.",
                  "relation: [public.orders, \"audit.*\"]"},
    ConditionType{K::reads, "reads", D::statement, V::names, "A relation that the statement reads.",
                  "reads: \"hr.*\""},
    ConditionType{K::writes, "writes", D::statement, V::names,
                  "A relation that the statement changes, defines or removes.",
                  "writes: [\"billing.*\"]"},
    ConditionType{K::function, "function", D::statement, V::names,
                  "A function that the statement calls.",
                  "function: [\"pg_terminate_backend\", \"dblink*\"]"},
    ConditionType{K::setting, "setting", D::statement, V::globs,
                  "A setting that the statement changes for its session, by SET, RESET or "
                  "set_config(); SET ROLE changes role.",
                  "setting: [role, session_authorization, \"*_timeout\"]"},
    ConditionType{K::unbounded, "unbounded", D::statement, V::flag,
                  "A write that can reach every row of its target.", "unbounded: true"},
    ConditionType{K::destructive, "destructive", D::statement, V::flag,
                  "Takes away, for good, something that was there: DROP, TRUNCATE, a dropped "
                  "column and the like.",
                  "destructive: true"},
    ConditionType{K::dangerous, "dangerous", D::statement, V::flag,
                  "Reaches beyond the rows of tables: privileges, system catalogs, other sessions, "
                  "files, programs, "
                  "settings of the server, locks that stop others.",
                  "dangerous: true"},
    ConditionType{K::blocking, "blocking", D::statement, V::flag,
                  "Takes a lock on whole tables that makes others wait: CREATE INDEX without "
                  "CONCURRENTLY, LOCK and "
                  "the like.",
                  "blocking: true"},
    ConditionType{
        K::opaque, "opaque", D::statement, V::flag,
        "The text does not show what the statement does: an unknown function, CALL, dynamic SQL.",
        "opaque: true"},
    ConditionType{K::unparsable, "unparsable", D::statement, V::flag,
                  "The statement could not be read the way the server will read it.",
                  "unparsable: true"},
    ConditionType{
        K::runs_in_transaction, "runs_in_transaction", D::statement, V::flag,
        "The command can run inside a transaction block (VACUUM and CREATE DATABASE can't).",
        "runs_in_transaction: false"},
    ConditionType{K::controls_transaction, "controls_transaction", D::statement, V::flag,
                  "BEGIN, COMMIT, ROLLBACK, SAVEPOINT, PREPARE TRANSACTION and the like.",
                  "controls_transaction: true"},
    ConditionType{K::user, "user", D::session, V::globs, "The role that logged in.",
                  "user: [clerk, \"dba_*\"]"},
    ConditionType{K::database, "database", D::session, V::globs, "The database of the session.",
                  "database: shop"},
    ConditionType{
        K::client, "client", D::session, V::networks,
        "Where the client comes from: networks, addresses, or local for a Unix-domain socket.",
        "client: [10.0.0.0/8, \"fd00::/8\", local]"},
    ConditionType{
        K::application_name, "application_name", D::session, V::globs,
        "The name that the client gave itself. A label, not an identity: anybody can set any.",
        "application_name: \"DBeaver*\""},
    ConditionType{K::tls, "tls", D::session, V::flag, "The client's connection is encrypted.",
                  "tls: false"},
    ConditionType{K::replication, "replication", D::session, V::flag,
                  "The session is a replication connection.", "replication: true"},
    ConditionType{K::in_transaction, "in_transaction", D::moment, V::flag,
                  "The statement runs inside a transaction block that the client opened.",
                  "in_transaction: false"},
    ConditionType{K::time, "time", D::moment, V::window,
                  "The time is inside (or outside) of the given spans.",
                  "time: { outside: \"Mon-Fri 08:00-18:00\", zone: Europe/Berlin }"},
    ConditionType{K::text, "text", D::statement, V::regex,
                  "A regular expression is found in the statement's text. A last resort: SQL can "
                  "be spelled in "
                  "many ways.",
                  "text: \"(?i)/\\\\* no-proxy \\\\*/\""},
};

template <class Items>
std::string list(const Items& items) {
    std::string out;
    for (const auto& item : items) {
        if (!out.empty()) out += ", ";
        out += item.text();
    }
    return items.size() == 1 ? out : "[" + out + "]";
}

DependsOn strongest(const Condition& condition) {
    DependsOn result = condition_type(condition.kind).depends_on;
    for (const Condition& child : condition.children) result = std::max(result, strongest(child));
    return result;
}

// The cheapest first, and what may depend on the moment last, so that most answers need not look at
// it. The order of conditions in a rule has no meaning, so the answer stays the same.
int rank(const Condition& condition) {
    int result = 0;
    for (const Condition& child : condition.children) result = std::max(result, rank(child));
    switch (condition_type(condition.kind).depends_on) {
        case D::nothing: return result;
        case D::session: return std::max(result, 1);  // answered once for a session
        case D::statement: {
            const V shape = condition_type(condition.kind).shape;
            return std::max(result, shape == V::regex ? 4 : shape == V::names ? 3 : 2);
        }
        case D::moment: return 5;
    }
    return result;
}

void order(Condition& condition) {
    for (Condition& child : condition.children) order(child);
    std::stable_sort(condition.children.begin(), condition.children.end(),
                     [](const Condition& a, const Condition& b) { return rank(a) < rank(b); });
}

void number(Condition& condition, Policy& policy) {
    if (condition.kind == K::time) {
        condition.number = static_cast<std::uint32_t>(policy.time_conditions.size());
        policy.time_conditions.push_back(&condition);
    } else if (condition_type(condition.kind).depends_on == D::session) {
        condition.number = static_cast<std::uint32_t>(policy.session_conditions.size());
        policy.session_conditions.push_back(&condition);
    }
    for (Condition& child : condition.children) number(child, policy);
}

constexpr std::array<std::string_view, 9> placeholders = {"command",  "relations", "functions",
                                                          "reason",   "statement", "user",
                                                          "database", "client",    "rule"};

}  // namespace

std::string_view action_name(Action action) {
    switch (action) {
        case Action::allow: return "allow";
        case Action::block: return "block";
        case Action::supervise: return "supervise";
        case Action::hold: return "hold";
        case Action::answer: return "answer";
    }
    return "";
}

std::string_view class_name(StatementClass statement_class) {
    switch (statement_class) {
        case StatementClass::read: return "READ";
        case StatementClass::write: return "WRITE";
        case StatementClass::function: return "FUNCTION";
        case StatementClass::role: return "ROLE";
        case StatementClass::ddl: return "DDL";
        case StatementClass::misc: return "MISC";
        case StatementClass::misc_set: return "MISC_SET";
    }
    return "";
}

std::vector<std::string_view> class_names(std::uint8_t classes) {
    const auto bit = [](StatementClass one) { return 1U << static_cast<unsigned>(one); };
    std::vector<std::string_view> names;
    for (int i = 0; i < statement_classes; ++i) {
        const auto one = static_cast<StatementClass>(i);
        const bool within = one == StatementClass::misc_set &&
                            (classes & bit(StatementClass::misc));
        if ((classes & bit(one)) && !within) names.push_back(class_name(one));
    }
    return names;
}

std::string Place::text() const {
    if (line == 0) return file;
    return file + ":" + std::to_string(line) + ":" + std::to_string(column);
}

std::span<const ConditionType> condition_types() { return types; }

const ConditionType& condition_type(ConditionKind kind) {
    // The table stands in the order of the enumeration; a unit test holds it to that.
    return types[static_cast<std::size_t>(kind)];
}

std::span<const std::string_view> message_placeholders() { return placeholders; }

std::string Condition::summary() const {
    const std::string key(condition_type(kind).key);
    switch (condition_type(kind).shape) {
        case V::conditions:
        case V::condition_list: {
            std::string out;
            for (const Condition& child : children)
                out += (out.empty() ? "" : ", ") + child.summary();
            return key + ": { " + out + " }";
        }
        case V::globs: {
            std::string text = list(globs);
            // Patterns of commands are kept folded; people write them in capitals.
            if (kind == K::command) {
                for (char& c : text)
                    c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
            }
            return key + ": " + text;
        }
        case V::names: return key + ": " + list(names);
        case V::networks: return key + ": " + list(networks);
        case V::flag: return key + ": " + (expected ? "true" : "false");
        case V::window: return key + (outside ? ": outside " : ": inside ") + window->text();
        case V::regex: return key + ": /" + regex->text() + "/";
        case V::classes: {
            std::string out;
            for (const std::string_view name : class_names(classes))
                out += (out.empty() ? "" : ", ") + std::string(name);
            return key + ": " + (out.find(',') == std::string::npos ? out : "[" + out + "]");
        }
    }
    return key;
}

namespace {

std::vector<std::string> texts(const std::vector<Glob>& globs) {
    std::vector<std::string> out;
    for (const Glob& glob : globs) out.push_back(glob.text());
    return out;
}

void seal(std::shared_ptr<const HoldTerms>& hold, const Policy& policy) {
    if (!hold) return;
    auto sealed = std::make_shared<HoldTerms>(*hold);
    sealed->deciders = hold->approvers.empty() ? texts(policy.approvers) : hold->approvers;
    if (policy.break_glass) {
        sealed->glass_roles = texts(policy.break_glass->roles);
        sealed->glass_needs_reason = policy.break_glass->require_reason;
    }
    hold = std::move(sealed);
}

void seal(RuleAction& action, const Policy& policy) {
    seal(action.hold, policy);
    if (!action.supervise || action.supervise->on_exceed != SuperviseLimits::OnExceed::hold) return;
    auto sealed = std::make_shared<SuperviseLimits>(*action.supervise);
    if (!sealed->hold) sealed->hold = std::make_shared<const HoldTerms>();
    seal(sealed->hold, policy);
    action.supervise = std::move(sealed);
}

}  // namespace

void Policy::seal() {
    policy::seal(unparsable, *this);
    policy::seal(by_default, *this);
    for (Rule& rule : rules) policy::seal(rule.action, *this);
    session_conditions.clear();
    time_conditions.clear();
    for (Rule& rule : rules) {
        order(rule.match);
        rule.depends_on = strongest(rule.match);
        number(rule.match, *this);
    }
}

}  // namespace pgchaperone::policy
