#pragma once
// Reads a policy out of YAML: rules, conditions, actions, presets and included rule files. Every
// problem is reported with its place; a policy with an error must not be used. The grammar is in
// docs/policy.md.

#include "config/yaml_reader.h"
#include "policy/rule.h"

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::config {

class PolicyLoader {
public:
    PolicyLoader(Problems& problems, const Surroundings& surroundings)
        : problems_(problems), surroundings_(surroundings) {}

    // The policy of a `policy:` mapping. `base` is where the names of included files start from.
    policy::Policy load(YamlReader& reader, const YAML::Node& node,
                        const std::filesystem::path& base);

    // One of the presets that come with the program. The name must be known.
    policy::Policy load_preset(std::string_view name);

    // Files that were read besides the one that `load` was given.
    const std::vector<std::filesystem::path>& included() const { return included_; }

private:
    void load_rules(YamlReader& reader, const YAML::Node& node, const std::filesystem::path& base,
                    std::vector<policy::Rule>& rules, int depth);
    void include_rules(YamlReader& reader, const YAML::Node& node,
                       const std::filesystem::path& base, std::vector<policy::Rule>& rules,
                       int depth);
    std::optional<policy::Rule> load_rule(YamlReader& reader, const YAML::Node& node);
    bool load_conditions(YamlReader& reader, const YAML::Node& node, std::string_view what,
                         policy::Condition& all, int depth);
    bool load_condition(YamlReader& reader, const YAML::Node& key, const YAML::Node& value,
                        const policy::ConditionType& type, policy::Condition& condition, int depth);
    bool load_window(YamlReader& reader, const YAML::Node& node, policy::Condition& condition);
    std::optional<policy::RuleAction> load_action(YamlReader& reader, const YAML::Node& node);
    std::shared_ptr<const policy::SuperviseLimits> load_supervise(YamlReader& reader,
                                                                  const YAML::Node& node);
    std::shared_ptr<const policy::HoldTerms> load_hold(YamlReader& reader, const YAML::Node& node);
    void check_message(YamlReader& reader, const YAML::Node& node, const std::string& text);

    Problems& problems_;
    const Surroundings& surroundings_;
    std::vector<std::filesystem::path> included_;
    std::vector<std::filesystem::path> open_files_;  // against files that include each other
    bool in_base_ = false;  // a preset that a policy starts from: what it lacks may still come
};

// Reports rules that can never be reached because an earlier one always takes what they would.
void report_unreachable_rules(const policy::Policy& policy, Problems& problems);

}  // namespace pgchaperone::config
