// The effective configuration written as YAML that loads to the same.
#include "config/loader.h"
#include "config/upstreams.h"
#include "config/values.h"
#include "config/webhook_loader.h"

#include <yaml-cpp/yaml.h>

#include <sstream>

namespace pgchaperone::config {
namespace {

using policy::Condition;
using policy::HoldTerms;
using policy::SuperviseLimits;

// What would be read as an environment variable is kept from it.
std::string literal(const std::string& text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text.compare(i, 2, "${") == 0) out += '$';
        out += text[i];
    }
    return out;
}

template <class Items, class Text>
YAML::Node list(const Items& items, Text text) {
    YAML::Node node(YAML::NodeType::Sequence);
    for (const auto& item : items) node.push_back(literal(text(item)));
    node.SetStyle(YAML::EmitterStyle::Flow);
    return node;
}

YAML::Node conditions(const std::vector<Condition>& all);

YAML::Node value_of(const Condition& condition) {
    const auto text = [](const auto& item) { return item.text(); };
    switch (policy::condition_type(condition.kind).shape) {
        case policy::ValueShape::conditions: return conditions(condition.children.front().children);
        case policy::ValueShape::condition_list: {
            YAML::Node node(YAML::NodeType::Sequence);
            for (const Condition& child : condition.children)
                node.push_back(conditions(child.children));
            node.SetStyle(YAML::EmitterStyle::Flow);
            return node;
        }
        case policy::ValueShape::globs:
            if (condition.kind != policy::ConditionKind::command)
                return list(condition.globs, text);
            return list(condition.globs, [](const policy::Glob& glob) {
                std::string tag = glob.text();
                for (char& c : tag) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
                return tag;
            });
        case policy::ValueShape::names: return list(condition.names, text);
        case policy::ValueShape::networks: return list(condition.networks, text);
        case policy::ValueShape::flag: return YAML::Node(condition.expected);
        case policy::ValueShape::regex: return YAML::Node(literal(condition.regex->text()));
        case policy::ValueShape::window: {
            YAML::Node node;
            node[condition.outside ? "outside" : "inside"] = list(
                condition.window->spans(), [](const std::string& span) { return span; });
            node["zone"] = condition.window->zone();
            node.SetStyle(YAML::EmitterStyle::Flow);
            return node;
        }
        case policy::ValueShape::classes: {
            YAML::Node node(YAML::NodeType::Sequence);
            for (const std::string_view name : policy::class_names(condition.classes))
                node.push_back(std::string(name));
            node.SetStyle(YAML::EmitterStyle::Flow);
            return node;
        }
    }
    return {};
}

YAML::Node conditions(const std::vector<Condition>& all) {
    YAML::Node node(YAML::NodeType::Map);
    for (const Condition& condition : all) {
        node[std::string(policy::condition_type(condition.kind).key)] = value_of(condition);
    }
    node.SetStyle(YAML::EmitterStyle::Flow);
    return node;
}

YAML::Node hold_of(const HoldTerms& terms) {
    YAML::Node node;
    node["wait"] = duration_text(terms.wait);
    node["ticket_ttl"] = duration_text(terms.ticket_ttl);
    node["notify_every"] = duration_text(terms.notify_every);
    node["evidence"] = terms.evidence == HoldTerms::Evidence::none   ? "none"
                       : terms.evidence == HoldTerms::Evidence::plan ? "plan"
                                                                     : "trial";
    node["in_transaction"] = terms.in_transaction == HoldTerms::InTransaction::wait ? "wait"
                                                                                    : "refuse";
    if (!terms.approvers.empty())
        node["approvers"] = list(terms.approvers, [](const std::string& role) { return role; });
    node["approvals"] = terms.approvals;
    node["allow_self"] = terms.allow_self;
    return node;
}

YAML::Node supervise_of(const SuperviseLimits& limits) {
    YAML::Node node;
    if (limits.max_rows) node["max_rows"] = *limits.max_rows;
    for (const auto& table : limits.max_rows_per_table)
        node["max_rows_per_table"][literal(table.table.text())] = table.rows;
    if (limits.max_fraction) node["max_fraction"] = *limits.max_fraction;
    if (limits.max_rows_per_transaction)
        node["max_rows_per_transaction"] = *limits.max_rows_per_transaction;
    if (limits.max_rows_per_session) {
        node["max_rows_per_session"]["rows"] = limits.max_rows_per_session->rows;
        node["max_rows_per_session"]["window"] = duration_text(limits.max_rows_per_session->window);
    }
    if (limits.max_inserted) node["max_inserted"] = *limits.max_inserted;
    node["catalog_changes"] = limits.catalog_changes == policy::Permission::allow ? "allow"
                                                                                  : "refuse";
    node["exclusive_locks"] = limits.exclusive_locks == policy::Permission::allow ? "allow"
                                                                                  : "refuse";
    node["effects"] = limits.effects == SuperviseLimits::Effects::tag ? "tag" : "total";
    node["on_exceed"] = limits.on_exceed == SuperviseLimits::OnExceed::block ? "block" : "hold";
    if (limits.lock_timeout) node["lock_timeout"] = duration_text(*limits.lock_timeout);
    if (limits.hold && limits.on_exceed == SuperviseLimits::OnExceed::hold)
        node["hold"] = hold_of(*limits.hold);
    return node;
}

YAML::Node action_of(const policy::RuleAction& action) {
    YAML::Node node;
    if (action.action == policy::Action::supervise && action.supervise)
        node["supervise"] = supervise_of(*action.supervise);
    else if (action.action == policy::Action::hold && action.hold)
        node["hold"] = hold_of(*action.hold);
    else
        node = std::string(policy::action_name(action.action));
    return node;
}

YAML::Node rule_of(const policy::Rule& rule) {
    YAML::Node node;
    node["name"] = literal(rule.name);
    if (!rule.match.children.empty()) node["match"] = conditions(rule.match.children);
    if (rule.decides) node["action"] = action_of(rule.action);
    if (rule.limits.statement) node["statement_timeout"] = duration_text(*rule.limits.statement);
    if (rule.limits.transaction)
        node["transaction_timeout"] = duration_text(*rule.limits.transaction);
    if (rule.observe) node["mode"] = "observe";
    if (rule.audit) {
        switch (rule.audit_detail) {
            case policy::AuditDetail::decision: node["audit"] = "decision"; break;
            case policy::AuditDetail::statement: node["audit"] = "statement"; break;
            case policy::AuditDetail::parameters: node["audit"] = "statement+parameters"; break;
        }
    }
    if (!rule.message.empty()) node["message"] = literal(rule.message);
    if (!rule.hint.empty()) node["hint"] = literal(rule.hint);
    return node;
}

YAML::Node policy_of(const policy::Policy& from) {
    YAML::Node policy;
    policy["mode"] = from.observe ? "observe" : "enforce";
    policy["unparsable"] = action_of(from.unparsable);
    policy["default"] = action_of(from.by_default);
    const auto glob = [](const policy::Glob& g) { return g.text(); };
    if (!from.approvers.empty()) policy["approvers"] = list(from.approvers, glob);
    if (!from.operators.empty()) policy["operators"] = list(from.operators, glob);
    if (from.break_glass) {
        policy["break_glass"]["roles"] = list(from.break_glass->roles, glob);
        policy["break_glass"]["require_reason"] = from.break_glass->require_reason;
    }
    policy["rules"] = YAML::Node(YAML::NodeType::Sequence);
    for (const policy::Rule& rule : from.rules) policy["rules"].push_back(rule_of(rule));
    return policy;
}

template <class Wanted>
void put_settings(YAML::Node& node, const Options& options, Wanted wanted) {
    for (const Setting& setting : settings()) {
        const std::string value = setting.show(options);
        if (value.empty() || !wanted(setting)) continue;
        const std::string key(setting.key);
        const auto dot = key.find('.');
        if (dot == std::string::npos)
            node[key] = literal(value);
        else
            node[key.substr(0, dot)][key.substr(dot + 1)] = literal(value);
    }
}

std::string text_of(const YAML::Node& root) {
    YAML::Emitter emitter;
    emitter.SetIndent(2);
    emitter << root;
    return std::string(emitter.c_str()) + "\n";
}

}  // namespace

std::string show(const policy::Policy& policy) {
    YAML::Node root;
    root["policy"] = policy_of(policy);
    return text_of(root);
}

std::string show(const Loaded& loaded) {
    YAML::Node root;
    put_settings(root, loaded.options, [](const Setting&) { return true; });
    if (!loaded.options.webhooks.empty())
        root["webhooks"] = shown_webhooks(loaded.options.webhooks);
    root["policy"] = policy_of(loaded.policy);
    for (const Upstream& entry : loaded.upstreams) {
        YAML::Node node;
        node["name"] = entry.name;
        put_settings(node, entry.options, [&](const Setting& setting) {
            // Its databases are never taken over. Nor can a setting be unset.
            return setting.key == "databases" ||
                   (scope_of(setting) != Scope::process &&
                    setting.show(entry.options) != setting.show(loaded.options));
        });
        node["policy"] = policy_of(entry.policy);
        root["upstreams"].push_back(node);
    }
    return text_of(root);
}

}  // namespace pgchaperone::config
