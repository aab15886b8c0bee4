#include "config/policy_loader.h"

#include "config/values.h"
#include "policy/rule_presets.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace pgchaperone::config {
namespace {

using policy::Action;
using policy::Condition;
using policy::ConditionKind;
using policy::ConditionType;
using policy::Glob;
using policy::HoldTerms;
using policy::Permission;
using policy::Policy;
using policy::Rule;
using policy::RuleAction;
using policy::SuperviseLimits;
using policy::ValueShape;

constexpr std::uint64_t most_rows = std::numeric_limits<std::uint64_t>::max();
constexpr int deepest = 16;

const std::vector<std::string>& command_tags() {
    static const std::vector<std::string> tags = {
#include "config/command_tags.inc"
    };
    return tags;
}

// What people write for a command whose tag is another.
constexpr std::array<std::pair<std::string_view, std::string_view>, 14> command_aliases = {{
    {"TRUNCATE", "TRUNCATE TABLE"},
    {"LOCK", "LOCK TABLE"},
    {"ALTER USER", "ALTER ROLE"},
    {"CREATE USER", "CREATE ROLE"},
    {"DROP USER", "DROP ROLE"},
    {"ALTER GROUP", "ALTER ROLE"},
    {"CREATE GROUP", "CREATE ROLE"},
    {"DROP GROUP", "DROP ROLE"},
    {"DECLARE", "DECLARE CURSOR"},
    {"END", "COMMIT"},
    {"ABORT", "ROLLBACK"},
    {"ANALYSE", "ANALYZE"},
    {"REFRESH", "REFRESH MATERIALIZED VIEW"},
    {"REASSIGN", "REASSIGN OWNED"},
}};

std::string upper(std::string_view text) {
    std::string out(text);
    for (char& c : out) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    return out;
}

std::vector<std::string> condition_keys() {
    std::vector<std::string> keys;
    for (const ConditionType& type : policy::condition_types()) keys.emplace_back(type.key);
    return keys;
}

policy::Parsed<std::uint64_t> count(std::string_view text) {
    return parse_count(text, 0, most_rows);
}
policy::Parsed<std::uint64_t> positive(std::string_view text) {
    return parse_count(text, 1, most_rows);
}

policy::Parsed<double> fraction(std::string_view text) {
    std::string number(text);
    const bool percent = !number.empty() && number.back() == '%';
    if (percent) number.pop_back();
    std::size_t used = 0;
    double value = -1;
    try {
        value = std::stod(number, &used) / (percent ? 100 : 1);
    } catch (const std::exception&) {
        used = std::string::npos;
    }
    if (used != number.size() || !std::isfinite(value) || value <= 0 || value > 1) {
        return policy::PatternError{"\"" + std::string(text) +
                                    "\" must be a part of the rows, such as 0.1 or 10%"};
    }
    return value;
}

policy::Parsed<Permission> permission(std::string_view text) {
    const auto word = parse_word(text, {"allow", "refuse"});
    if (!word) return word.error();
    return *word == 0 ? Permission::allow : Permission::refuse;
}

template <class T>
std::function<policy::Parsed<T>(std::string_view)> words(std::vector<std::string> list) {
    return [list = std::move(list)](std::string_view text) -> policy::Parsed<T> {
        const auto word = parse_word(text, list);
        if (!word) return word.error();
        return static_cast<T>(*word);
    };
}

std::filesystem::path resolve(const std::filesystem::path& base, const std::string& name) {
    return (base / std::filesystem::path(name)).lexically_normal();
}

}  // namespace

Policy PolicyLoader::load_preset(std::string_view name) {
    for (const policy::Preset& preset : policy::presets()) {
        if (preset.name != name) continue;
        const std::string file = "preset " + std::string(name);
        YamlReader reader(file, problems_, surroundings_);
        const auto root = reader.parse(std::string(preset.yaml));
        if (!root || !(*root)["policy"]) return {};
        Policy policy = load(reader, (*root)["policy"], {});
        policy.source = file;
        for (Rule& rule : policy.rules) {
            if (rule.origin.empty()) rule.origin = file;
        }
        return policy;
    }
    return {};
}

Policy PolicyLoader::load(YamlReader& reader, const YAML::Node& node,
                          const std::filesystem::path& base) {
    Policy policy;
    policy.source = reader.file();
    // The preset comes first, wherever it stands: the other keys override it.
    if (node.IsMap() && node["preset"]) {
        std::vector<std::string> names;
        for (const policy::Preset& preset : policy::presets()) names.emplace_back(preset.name);
        const auto name = reader.value<std::size_t>(node["preset"], "preset",
                                                    words<std::size_t>(names));
        if (name) {
            in_base_ = true;
            policy = load_preset(names[*name]);
            in_base_ = false;
            policy.source = reader.file();
        }
    }
    std::vector<Rule> own;
    bool has_rules = false;
    std::vector<YamlReader::Item> disabled;
    const std::vector<std::string> keys = {"preset",    "mode",      "unparsable",
                                           "default",   "rules",     "disable",
                                           "approvers", "operators", "break_glass"};
    reader.mapping(
        node, "the policy", keys,
        [&](const std::string& key, const YAML::Node& at, const YAML::Node& value) {
            if (key == "mode") {
                if (const auto mode = reader.value<std::size_t>(
                        value, key, words<std::size_t>({"enforce", "observe"}))) {
                    policy.observe = *mode == 1;
                }
            } else if (key == "unparsable") {
                if (auto action = load_action(reader, value))
                    policy.unparsable = *std::move(action);
                if (policy.unparsable.action == Action::supervise) {
                    reader.error(value, "what can't be read can't be supervised",
                                 "write block, hold or allow");
                }
            } else if (key == "default") {
                if (auto action = load_action(reader, value))
                    policy.by_default = *std::move(action);
            } else if (key == "rules") {
                has_rules = true;
                load_rules(reader, value, base, own, 0);
            } else if (key == "disable") {
                if (auto items = reader.texts(value, key)) disabled = *std::move(items);
                if (!node["preset"])
                    reader.error(at,
                                 "disable switches off rules of a preset, and there is none here");
            } else if (key == "approvers" || key == "operators") {
                std::vector<Glob>& roles = key == "approvers" ? policy.approvers : policy.operators;
                roles.clear();
                if (auto items = reader.texts(value, key)) {
                    for (const auto& item : *items) roles.emplace_back(item.text);
                }
            } else if (key == "break_glass") {
                policy::BreakGlass glass;
                reader.mapping(
                    value, "break_glass", {"roles", "require_reason"},
                    [&](const std::string& inner, const YAML::Node&, const YAML::Node& v) {
                        if (inner == "roles") {
                            if (auto items = reader.texts(v, inner)) {
                                for (const auto& item : *items) glass.roles.emplace_back(item.text);
                            }
                        } else if (const auto flag = reader.value<bool>(v, inner, parse_flag)) {
                            glass.require_reason = *flag;
                        }
                    });
                if (value.IsMap() && !value["roles"])
                    reader.error(value, "break_glass needs roles", "roles: [dba_on_call]");
                policy.break_glass = std::move(glass);
            }
        });

    for (const auto& item : disabled) {
        std::vector<std::string> names;
        for (const Rule& rule : policy.rules) names.push_back(rule.name);
        const auto at = std::find_if(policy.rules.begin(), policy.rules.end(),
                                     [&](const Rule& rule) { return rule.name == item.text; });
        if (at == policy.rules.end()) {
            reader.error(item.node, "the preset has no rule \"" + item.text + "\"",
                         did_you_mean(item.text, names));
        } else {
            policy.rules.erase(at);
        }
    }
    for (std::size_t i = 0; i < own.size(); ++i) {
        for (std::size_t j = 0; j < i; ++j) {
            if (own[i].name == own[j].name) {
                problems_.error(
                    own[i].place, "a second rule with the name \"" + own[i].name + "\"",
                    "the first is at " + own[j].place.text() + "; give this one another name");
                break;
            }
        }
        // A rule of the same name takes the place of the preset's.
        std::erase_if(policy.rules, [&](const Rule& rule) { return rule.name == own[i].name; });
    }
    policy.rules.insert(policy.rules.begin(), std::make_move_iterator(own.begin()),
                        std::make_move_iterator(own.end()));
    if (node.IsMap() && !has_rules && !node["preset"] &&
        policy.by_default.action == Action::allow) {
        reader.warning(node, "this policy has no rules and lets everything through",
                       "write rules, or start from a preset: preset: interactive");
    }
    if (problems_.has_errors()) return policy;
    const auto holds = [](const RuleAction& action) {
        const HoldTerms* terms = action.hold        ? action.hold.get()
                                 : action.supervise ? action.supervise->hold.get()
                                                    : nullptr;
        return terms != nullptr && terms->approvers.empty();
    };
    if (policy.approvers.empty() && !in_base_) {
        std::string names;
        const Rule* first = nullptr;
        bool several = false;
        for (const Rule& rule : policy.rules) {
            if (!holds(rule.action)) continue;
            several = first != nullptr;
            names += (several ? ", \"" : "\"") + rule.name + "\"";
            if (!several) first = &rule;
        }
        if (first != nullptr) {
            problems_.warning(
                first->place,
                (several ? "the rules " + names + " hold" : "rule " + names + " holds") +
                    " statements, but nobody may approve them",
                "list roles: approvers: [dba_*], in the policy or in the rule's hold");
        }
        for (const auto& [key, action] : {std::pair("unparsable", &policy.unparsable),
                                          std::pair("default", &policy.by_default)}) {
            if (!holds(*action)) continue;
            reader.warning(node[key] ? node[key] : node,
                           std::string(key) + " holds statements, but nobody may approve them",
                           "list roles: approvers: [dba_*], in the policy or in its hold");
        }
    }
    return policy;
}

void PolicyLoader::load_rules(YamlReader& reader, const YAML::Node& node,
                              const std::filesystem::path& base, std::vector<Rule>& rules,
                              int depth) {
    if (!node.IsSequence()) {
        reader.error(node, "rules must be a list", "begin each rule with a dash: - name: ...");
        return;
    }
    for (const auto& item : node) {
        if (item.IsMap() && item["include"]) {
            if (item.size() > 1) {
                reader.error(item, "include stands alone: a rule can't have other keys beside it");
                continue;
            }
            if (const auto files = reader.texts(item["include"], "include")) {
                for (const auto& file : *files)
                    include_rules(reader, file.node, base, rules, depth);
            }
            continue;
        }
        if (auto rule = load_rule(reader, item)) rules.push_back(*std::move(rule));
    }
}

void PolicyLoader::include_rules(YamlReader& reader, const YAML::Node& node,
                                 const std::filesystem::path& base, std::vector<Rule>& rules,
                                 int depth) {
    const auto name = reader.text(node, "include");
    if (!name) return;
    const auto path = resolve(base, *name);
    if (depth >= deepest ||
        std::find(open_files_.begin(), open_files_.end(), path) != open_files_.end()) {
        reader.error(node, "\"" + *name + "\" includes itself, perhaps by way of another file");
        return;
    }
    const auto text = surroundings_.read_file(path);
    if (!text) {
        reader.error(node, "can't read " + path.string() + ": " + text.error().message,
                     "names of included files are relative to the file that includes them");
        return;
    }
    included_.push_back(path);
    open_files_.push_back(path);
    YamlReader inner(path.string(), problems_, surroundings_);
    if (const auto root = inner.parse(*text)) {
        if (root->IsMap()) {
            inner.mapping(*root, "a file of rules", {"rules"},
                          [&](const std::string&, const YAML::Node&, const YAML::Node& value) {
                              load_rules(inner, value, path.parent_path(), rules, depth + 1);
                          });
        } else if (!root->IsNull()) {
            load_rules(inner, *root, path.parent_path(), rules, depth + 1);
        }
    }
    open_files_.pop_back();
}

// none, or one more than an AuditDetail; true and false stand for the usual.
Parsed<std::size_t> audit_word(std::string_view text) {
    if (const auto flag = parse_flag(text)) return *flag ? 2 : 0;
    return parse_word(text, {"none", "decision", "statement", "statement+parameters"});
}

std::optional<Rule> PolicyLoader::load_rule(YamlReader& reader, const YAML::Node& node) {
    const std::size_t errors_before = problems_.error_count();
    Rule rule;
    rule.place = reader.place(node);
    rule.match.place = rule.place;
    bool good = true, has_action = false;
    const std::vector<std::string> keys = {"name",
                                           "match",
                                           "action",
                                           "message",
                                           "hint",
                                           "mode",
                                           "audit",
                                           "statement_timeout",
                                           "transaction_timeout"};
    const bool is_map = reader.mapping(
        node, "a rule", keys,
        [&](const std::string& key, const YAML::Node&, const YAML::Node& value) {
            if (key == "name") {
                const auto name = reader.text(value, key);
                if (!name) {
                    good = false;
                } else if (name->empty() || name->size() > 80 ||
                           std::any_of(name->begin(), name->end(), [](char c) {
                               return static_cast<unsigned char>(c) < 0x20 || c == '"' || c == 0x7f;
                           })) {
                    reader.error(value,
                                 "a rule's name must have 1 to 80 characters, without quotes and "
                                 "line breaks");
                    good = false;
                } else {
                    rule.name = *name;
                }
            } else if (key == "match") {
                if (value.IsNull()) {
                    reader.error(
                        value, "match is empty",
                        "write conditions, or leave match out for a rule that always applies");
                    good = false;
                } else {
                    good = load_conditions(reader, value, "match", rule.match, 0) && good;
                }
            } else if (key == "action") {
                has_action = true;
                if (auto action = load_action(reader, value))
                    rule.action = *std::move(action);
                else
                    good = false;
            } else if (key == "message" || key == "hint") {
                if (const auto text = reader.text(value, key)) {
                    check_message(reader, value, *text);
                    (key == "message" ? rule.message : rule.hint) = *text;
                }
            } else if (key == "mode") {
                if (const auto mode = reader.value<std::size_t>(
                        value, key, words<std::size_t>({"enforce", "observe"}))) {
                    rule.observe = *mode == 1;
                }
            } else if (key == "statement_timeout" || key == "transaction_timeout") {
                auto& limit = key == "statement_timeout" ? rule.limits.statement
                                                         : rule.limits.transaction;
                const auto time = reader.value<std::chrono::milliseconds>(value, key,
                                                                          parse_duration);
                if (time) {
                    limit = *time;
                } else {
                    good = false;
                }
            } else if (const auto detail = reader.value<std::size_t>(value, key, audit_word)) {
                rule.audit = *detail > 0;
                if (rule.audit) rule.audit_detail = static_cast<policy::AuditDetail>(*detail - 1);
            }
        });
    if (!is_map) return std::nullopt;
    if (!node["name"]) {
        reader.error(node, "a rule needs a name: refusals and the audit log tell it",
                     "name: no-unbounded-writes");
        good = false;
    }
    rule.decides = has_action;
    if (!has_action && !rule.limits.statement && !rule.limits.transaction) {
        reader.error(
            node, "a rule needs an action",
            "action: block (or allow, hold, supervise), or a limit: statement_timeout: 30s");
        good = false;
    } else if (!has_action) {
        for (const char* const key : {"message", "hint", "mode", "audit"}) {
            if (!node[key]) continue;
            reader.error(node[key],
                         std::string(key) + " belongs to an action, and this rule only limits",
                         "leave it out, or give the rule an action");
            good = false;
        }
    }
    // What is left of it might match far more than was meant.
    if (!good || problems_.error_count() > errors_before) return std::nullopt;
    return rule;
}

void PolicyLoader::check_message(YamlReader& reader, const YAML::Node& node,
                                 const std::string& text) {
    std::vector<std::string> known;
    for (const auto placeholder : policy::message_placeholders()) known.emplace_back(placeholder);
    for (std::size_t open = text.find('{'); open != std::string::npos;
         open = text.find('{', open + 1)) {
        const auto close = text.find('}', open);
        if (close == std::string::npos) return;
        const std::string name = text.substr(open + 1, close - open - 1);
        const bool is_name = !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
            return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        });
        if (!is_name || std::find(known.begin(), known.end(), name) != known.end()) continue;
        std::string advice = did_you_mean(name, known);
        if (advice.empty()) {
            advice = "known:";
            for (const std::string& word : known) advice += " {" + word + "}";
        }
        reader.error(node, "unknown placeholder {" + name + "}", advice);
    }
}

bool PolicyLoader::load_conditions(YamlReader& reader, const YAML::Node& node,
                                   std::string_view what, Condition& all, int depth) {
    if (depth > deepest) {
        reader.error(node, "conditions are nested too deeply");
        return false;
    }
    bool good = true;
    const std::vector<std::string> keys = condition_keys();
    const bool is_map = reader.mapping(
        node, what, keys,
        [&](const std::string& key, const YAML::Node& key_node, const YAML::Node& value) {
            for (const ConditionType& type : policy::condition_types()) {
                if (type.key != key) continue;
                Condition condition;
                condition.kind = type.kind;
                condition.place = reader.place(key_node);
                if (load_condition(reader, key_node, value, type, condition, depth)) {
                    all.children.push_back(std::move(condition));
                } else {
                    good = false;
                }
            }
        });
    if (is_map && node.size() == 0) {
        reader.error(node, std::string(what) + " is empty", "write conditions, or leave it out");
        return false;
    }
    return is_map && good;
}

bool PolicyLoader::load_condition(YamlReader& reader, const YAML::Node& key,
                                  const YAML::Node& value, const ConditionType& type,
                                  Condition& condition, int depth) {
    const std::string name(type.key);
    switch (type.shape) {
        case ValueShape::conditions: {
            Condition all;
            all.place = condition.place;
            if (!load_conditions(reader, value, name, all, depth + 1)) return false;
            condition.children.push_back(std::move(all));
            return true;
        }
        case ValueShape::condition_list: {
            if (!value.IsSequence() || value.size() == 0) {
                reader.error(value.IsNull() ? key : value, name + " must be a list of conditions",
                             "such as " + std::string(type.example));
                return false;
            }
            bool good = true;
            for (const auto& item : value) {
                Condition all;
                all.place = reader.place(item);
                if (load_conditions(reader, item, "an item of " + name, all, depth + 1)) {
                    condition.children.push_back(std::move(all));
                } else {
                    good = false;
                }
            }
            return good;
        }
        case ValueShape::flag: {
            const auto flag = reader.value<bool>(value, name, parse_flag);
            if (flag) condition.expected = *flag;
            return flag.has_value();
        }
        case ValueShape::window: return load_window(reader, value, condition);
        case ValueShape::regex: {
            auto regex = reader.value<policy::Regex>(value, name, policy::Regex::parse);
            if (regex) condition.regex = std::make_shared<const policy::Regex>(*std::move(regex));
            return regex.has_value();
        }
        case ValueShape::globs:
        case ValueShape::classes:
        case ValueShape::names:
        case ValueShape::networks: break;
    }
    const auto items = reader.texts(value, name);
    if (!items) return false;
    bool good = true;
    for (const auto& item : *items) {
        if (item.text.empty()) {
            reader.error(item.node, name + ": an empty text matches nothing",
                         "use \"*\" for everything");
            good = false;
        } else if (type.kind == ConditionKind::command) {
            std::string pattern = upper(item.text);
            for (const auto& [alias, tag] : command_aliases) {
                if (pattern == alias) pattern = tag;
            }
            const Glob glob(pattern, Glob::Case::folded);
            const auto& tags = command_tags();
            if (std::none_of(tags.begin(), tags.end(),
                             [&](const std::string& tag) { return glob.matches(tag); })) {
                std::string advice = did_you_mean(pattern, tags);
                if (advice.empty() ||
                    std::any_of(tags.begin(), tags.end(), [&](const std::string& tag) {
                        return tag.starts_with(pattern + " ");
                    })) {
                    advice = "did you mean \"" + pattern + " *\"?";
                    const Glob wider(pattern + " *", Glob::Case::folded);
                    if (std::none_of(tags.begin(), tags.end(),
                                     [&](const std::string& t) { return wider.matches(t); })) {
                        advice =
                            "write command tags as PostgreSQL reports them, such as DELETE or "
                            "\"DROP *\"";
                    }
                }
                reader.error(item.node, "no command matches \"" + item.text + "\"", advice);
                good = false;
            }
            condition.globs.push_back(glob);
        } else if (type.kind == ConditionKind::setting) {
            condition.globs.emplace_back(item.text, Glob::Case::folded);
        } else if (type.shape == ValueShape::globs) {
            condition.globs.emplace_back(item.text);
        } else if (type.shape == ValueShape::classes) {
            std::vector<std::string> names;
            for (int i = 0; i < policy::statement_classes; ++i)
                names.emplace_back(policy::class_name(static_cast<policy::StatementClass>(i)));
            const auto word = parse_word(upper(item.text), names);
            if (!word) {
                reader.error(item.node, "class: " + word.error().message);
                good = false;
            } else {
                const auto bit = [](policy::StatementClass one) {
                    return 1U << static_cast<unsigned>(one);
                };
                unsigned classes = condition.classes | (1U << *word);
                // To who writes MISC a SET is one of these, as it is in older pgaudits.
                if (classes & bit(policy::StatementClass::misc))
                    classes |= bit(policy::StatementClass::misc_set);
                condition.classes = static_cast<std::uint8_t>(classes);
            }
        } else if (type.shape == ValueShape::names) {
            auto pattern = policy::NamePattern::parse(item.text);
            if (!pattern) {
                reader.error(item.node, name + ": " + pattern.error().message);
                good = false;
            } else {
                condition.names.push_back(*std::move(pattern));
            }
        } else {
            auto network = policy::Network::parse(item.text);
            if (!network) {
                reader.error(item.node, name + ": " + network.error().message);
                good = false;
            } else {
                condition.networks.push_back(*std::move(network));
            }
        }
    }
    return good;
}

bool PolicyLoader::load_window(YamlReader& reader, const YAML::Node& node, Condition& condition) {
    std::optional<std::vector<YamlReader::Item>> spans;
    std::string zone;
    int kinds = 0;
    bool good = true;
    if (!node.IsMap()) {
        spans = reader.texts(node, "time");
        kinds = 1;
    } else {
        reader.mapping(node, "time", {"inside", "outside", "zone"},
                       [&](const std::string& key, const YAML::Node&, const YAML::Node& value) {
                           if (key == "zone") {
                               const auto text = reader.text(value, key);
                               if (text)
                                   zone = *text;
                               else
                                   good = false;
                               return;
                           }
                           ++kinds;
                           condition.outside = key == "outside";
                           spans = reader.texts(value, key);
                       });
        if (kinds != 1) {
            reader.error(node,
                         kinds == 0 ? "time needs inside or outside"
                                    : "time takes inside or outside, not both",
                         "such as time: { outside: \"Mon-Fri 08:00-18:00\", zone: Europe/Berlin }");
            return false;
        }
    }
    if (!spans || !good) return false;
    std::vector<std::string> texts;
    for (const auto& item : *spans) texts.push_back(item.text);
    auto window = policy::TimeWindow::parse(texts, zone);
    if (!window) {
        reader.error(node, "time: " + window.error().message);
        return false;
    }
    condition.window = std::make_shared<const policy::TimeWindow>(*std::move(window));
    return true;
}

std::optional<RuleAction> PolicyLoader::load_action(YamlReader& reader, const YAML::Node& node) {
    const std::vector<std::string> names = {"allow", "block", "supervise", "hold"};
    RuleAction action;
    if (node.IsMap()) {
        int kinds = 0;
        const std::size_t before = problems_.list().size();
        reader.mapping(node, "an action", {"supervise", "hold"},
                       [&](const std::string& key, const YAML::Node&, const YAML::Node& value) {
                           ++kinds;
                           if (key == "hold") {
                               action.action = Action::hold;
                               action.hold = load_hold(reader, value);
                           } else {
                               action.action = Action::supervise;
                               action.supervise = load_supervise(reader, value);
                           }
                       });
        if (kinds > 1)
            reader.error(node, "a rule has one action",
                         "supervise can hold what exceeds: on_exceed: hold");
        if (kinds == 0 && problems_.list().size() == before)
            reader.error(node, "the action is empty");
        if (problems_.list().size() != before && problems_.has_errors()) return std::nullopt;
        return action;
    }
    const auto word = reader.value<std::size_t>(node, "action", words<std::size_t>(names));
    if (!word) return std::nullopt;
    action.action = static_cast<Action>(*word);
    if (action.action == Action::hold) action.hold = std::make_shared<const HoldTerms>();
    if (action.action == Action::supervise) {
        reader.error(node, "supervise needs limits",
                     "such as action: { supervise: { max_rows: 1000 } }");
        return std::nullopt;
    }
    return action;
}

std::shared_ptr<const SuperviseLimits> PolicyLoader::load_supervise(YamlReader& reader,
                                                                    const YAML::Node& node) {
    auto limits = std::make_shared<SuperviseLimits>();
    const std::vector<std::string> keys = {"max_rows",
                                           "max_rows_per_table",
                                           "max_fraction",
                                           "max_rows_per_transaction",
                                           "max_rows_per_session",
                                           "max_inserted",
                                           "catalog_changes",
                                           "exclusive_locks",
                                           "effects",
                                           "on_exceed",
                                           "hold",
                                           "lock_timeout"};
    const bool is_map = reader.mapping(
        node, "supervise", keys,
        [&](const std::string& key, const YAML::Node& at, const YAML::Node& value) {
            if (key == "max_rows")
                limits->max_rows = reader.value<std::uint64_t>(value, key, count);
            else if (key == "max_rows_per_transaction")
                limits->max_rows_per_transaction = reader.value<std::uint64_t>(value, key, count);
            else if (key == "max_inserted")
                limits->max_inserted = reader.value<std::uint64_t>(value, key, count);
            else if (key == "max_fraction")
                limits->max_fraction = reader.value<double>(value, key, fraction);
            else if (key == "lock_timeout")
                limits->lock_timeout = reader.value<std::chrono::milliseconds>(value, key,
                                                                               parse_duration);
            else if (key == "catalog_changes") {
                if (const auto p = reader.value<Permission>(value, key, permission))
                    limits->catalog_changes = *p;
            } else if (key == "exclusive_locks") {
                if (const auto p = reader.value<Permission>(value, key, permission))
                    limits->exclusive_locks = *p;
            } else if (key == "effects") {
                if (const auto e = reader.value<SuperviseLimits::Effects>(
                        value, key, words<SuperviseLimits::Effects>({"tag", "total"})))
                    limits->effects = *e;
            } else if (key == "on_exceed") {
                if (const auto e = reader.value<SuperviseLimits::OnExceed>(
                        value, key, words<SuperviseLimits::OnExceed>({"block", "hold"})))
                    limits->on_exceed = *e;
            } else if (key == "hold") {
                limits->hold = load_hold(reader, value);
            } else if (key == "max_rows_per_session") {
                SuperviseLimits::SessionLimit limit{0, std::chrono::milliseconds(0)};
                bool rows = false, window = false;
                reader.mapping(
                    value, key, {"rows", "window"},
                    [&](const std::string& inner, const YAML::Node&, const YAML::Node& v) {
                        if (inner == "rows") {
                            if (const auto n = reader.value<std::uint64_t>(v, "rows", positive)) {
                                limit.rows = *n;
                                rows = true;
                            }
                        } else if (const auto d = reader.value<std::chrono::milliseconds>(
                                       v, "window", parse_duration)) {
                            limit.window = *d;
                            window = d->count() > 0;
                            if (!window) reader.error(v, "the window must be longer than nothing");
                        }
                    });
                if (rows && window)
                    limits->max_rows_per_session = limit;
                else if (value.IsMap() && (!value["rows"] || !value["window"]))
                    reader.error(at, "max_rows_per_session needs rows and window",
                                 "such as { rows: 10000, window: 10m }");
            } else if (key == "max_rows_per_table") {
                if (!value.IsMap() || value.size() == 0) {
                    reader.error(value.IsNull() ? at : value,
                                 "max_rows_per_table must map tables to numbers of rows",
                                 "such as { public.orders: 100, \"*\": 1000 }");
                    return;
                }
                for (const auto& pair : value) {
                    const auto table = reader.value<policy::NamePattern>(
                        pair.first, key, policy::NamePattern::parse);
                    const auto rows = reader.value<std::uint64_t>(pair.second, key, count);
                    if (table && rows) limits->max_rows_per_table.push_back({*table, *rows});
                }
            }
        });
    if (!is_map) return limits;
    const bool limited = limits->max_rows || !limits->max_rows_per_table.empty() ||
                         limits->max_fraction || limits->max_rows_per_transaction ||
                         limits->max_rows_per_session || limits->max_inserted ||
                         limits->catalog_changes == Permission::refuse ||
                         limits->exclusive_locks == Permission::refuse;
    if (!limited && !problems_.has_errors()) {
        reader.error(node, "supervise limits nothing", "such as supervise: { max_rows: 1000 }");
    }
    if (limits->max_rows && limits->max_rows_per_transaction &&
        *limits->max_rows_per_transaction < *limits->max_rows) {
        reader.warning(node, "max_rows is more than max_rows_per_transaction, so it never counts");
    }
    const bool needs_total = limits->catalog_changes == Permission::refuse ||
                             limits->exclusive_locks == Permission::refuse;
    if (needs_total && limits->effects == SuperviseLimits::Effects::tag) {
        reader.error(node, "catalog_changes and exclusive_locks show only in total effects",
                     "add effects: total");
    }
    if (limits->hold && limits->on_exceed == SuperviseLimits::OnExceed::block) {
        reader.error(node, "hold's terms are given, but nothing is held", "add on_exceed: hold");
    }
    if (!limits->hold && limits->on_exceed == SuperviseLimits::OnExceed::hold)
        limits->hold = std::make_shared<const HoldTerms>();
    return limits;
}

std::shared_ptr<const HoldTerms> PolicyLoader::load_hold(YamlReader& reader,
                                                         const YAML::Node& node) {
    auto terms = std::make_shared<HoldTerms>();
    if (node.IsNull()) return terms;
    const std::vector<std::string> keys = {"wait",       "ticket_ttl",    "notify_every",
                                           "evidence",   "approvers",     "approvals",
                                           "allow_self", "in_transaction"};
    reader.mapping(
        node, "hold", keys,
        [&](const std::string& key, const YAML::Node&, const YAML::Node& value) {
            if (key == "wait" || key == "ticket_ttl" || key == "notify_every") {
                if (const auto d = reader.value<std::chrono::milliseconds>(value, key,
                                                                           parse_duration)) {
                    (key == "wait"         ? terms->wait
                     : key == "ticket_ttl" ? terms->ticket_ttl
                                           : terms->notify_every) = *d;
                }
            } else if (key == "evidence") {
                if (const auto e = reader.value<HoldTerms::Evidence>(
                        value, key, words<HoldTerms::Evidence>({"none", "plan", "trial"})))
                    terms->evidence = *e;
            } else if (key == "in_transaction") {
                if (const auto e = reader.value<HoldTerms::InTransaction>(
                        value, key, words<HoldTerms::InTransaction>({"wait", "refuse"})))
                    terms->in_transaction = *e;
            } else if (key == "approvers") {
                if (const auto items = reader.texts(value, key)) {
                    for (const auto& item : *items) terms->approvers.push_back(item.text);
                }
            } else if (key == "approvals") {
                const auto n = reader.value<std::uint64_t>(
                    value, key, [](std::string_view text) { return parse_count(text, 1, 10); });
                if (n) terms->approvals = static_cast<unsigned>(*n);
            } else if (const auto flag = reader.value<bool>(value, key, parse_flag)) {
                terms->allow_self = *flag;
            }
        });
    if (terms->wait > terms->ticket_ttl) {
        reader.error(node,
                     "wait is longer than ticket_ttl: the ticket would be gone while its statement "
                     "still waits",
                     "make ticket_ttl at least " + duration_text(terms->wait));
    }
    if (terms->notify_every < std::chrono::seconds(1)) {
        reader.error(node, "notify_every must be at least 1s");
    }
    return terms;
}

}  // namespace pgchaperone::config
