#pragma once
// Policies and facts for tests of the rules.

#include "config/policy_loader.h"
#include "policy/rule_book.h"
#include "policy/rule_match.h"
#include "support/catch.h"

#include <string>
#include <vector>

namespace pgchaperone::policy::testing {

inline Policy policy(const std::string& yaml) {
    config::Problems problems;
    const config::Surroundings nothing;
    config::YamlReader reader("policy.yaml", problems, nothing);
    const auto root = reader.parse(yaml);
    REQUIRE(root.has_value());
    config::PolicyLoader loader(problems, nothing);
    Policy result = loader.load(reader, *root, {});
    INFO(problems.text());
    REQUIRE_FALSE(problems.has_errors());
    result.seal();
    return result;
}

// A policy of one rule: blocks (or does `action`) what `match` says.
inline std::string one_rule(const std::string& match, const std::string& action = "block") {
    return "rules: [ { name: r, match: " + match + ", action: " + action + " } ]";
}

struct Scene {
    StatementFacts facts;
    SessionFacts session;
    Moment moment;
    std::string text;

    Outcome outcome(const Policy& p) const {
        return evaluate(p, {facts, text, session, moment}, answer_session_conditions(p, session),
                        nullptr);
    }
    bool decides(const Policy& p) const { return outcome(p).rule == 0; }
    bool decides(const std::string& match, const std::string& action = "block") const {
        const Policy p = policy(one_rule(match, action));
        return decides(p);
    }
};

inline Scene select_from(std::vector<RelationName> tables) {
    Scene scene;
    scene.facts.command = "SELECT";
    scene.facts.commands = {"SELECT"};
    scene.facts.classes = {StatementClass::read};
    scene.facts.read = std::move(tables);
    return scene;
}

inline Scene delete_from(RelationName table) {
    Scene scene;
    scene.facts.command = "DELETE";
    scene.facts.commands = {"DELETE"};
    scene.facts.classes = {StatementClass::write};
    scene.facts.written = {std::move(table)};
    scene.text = "DELETE FROM " + scene.facts.written.front().name;
    scene.facts.length = static_cast<std::uint32_t>(scene.text.size());
    return scene;
}

// WITH d AS (DELETE FROM table ...) SELECT ...
inline Scene select_with_delete(RelationName table) {
    Scene scene = select_from({});
    scene.facts.commands = {"SELECT", "DELETE"};
    scene.facts.classes = {StatementClass::read, StatementClass::write};
    scene.facts.written = {std::move(table)};
    return scene;
}

}  // namespace pgchaperone::policy::testing
