#include "config/policy_loader.h"
#include "config/values.h"
#include "policy/rule_presets.h"
#include "support/catch.h"

#include <map>

using namespace pgchaperone::config;
namespace policy = pgchaperone::policy;
using Catch::Matchers::ContainsSubstring;

namespace {

struct Result {
    policy::Policy policy;
    std::string problems;
    bool good;
};

Result load(const std::string& yaml, const std::map<std::string, std::string>& files = {}) {
    Problems problems;
    Surroundings surroundings;
    surroundings.read_file = [&](const std::filesystem::path& path) -> Parsed<std::string> {
        const auto at = files.find(path.string());
        if (at == files.end()) return PatternError{"No such file or directory"};
        return {boost::system::in_place_value, at->second};
    };
    surroundings.environment = [](const std::string&) { return std::nullopt; };
    YamlReader reader("p.yaml", problems, surroundings);
    const auto root = reader.parse(yaml);
    REQUIRE(root.has_value());
    PolicyLoader loader(problems, surroundings);
    Result result;
    result.policy = loader.load(reader, *root, {});
    report_unreachable_rules(result.policy, problems);
    result.problems = problems.text();
    result.good = !problems.has_errors();
    return result;
}

std::string rule(const std::string& match, const std::string& action = "block") {
    return "rules:\n  - name: r\n    match: " + match + "\n    action: " + action + "\n";
}

void refused(const std::string& yaml, const std::string& why) {
    const Result result = load(yaml);
    INFO(yaml);
    CHECK_FALSE(result.good);
    CHECK_THAT(result.problems, ContainsSubstring(why));
}

}  // namespace

TEST_CASE("the policy of the design loads") {
    const Result r = load(R"(
mode: enforce
unparsable: block
default: allow
approvers: [lead]
rules:
  - name: no-unbounded-writes
    match: { command: [UPDATE, DELETE, MERGE], unbounded: true }
    action: hold
    message: "This would touch every row of {relations}."
  - name: nobody-drops-production
    match: { command: ["DROP *", TRUNCATE], not: { user: [dba_*] } }
    action: block
  - name: weekend-and-night
    match: { class: [WRITE, DDL], time: { outside: "Mon-Fri 08:00-18:00", zone: Europe/Berlin } }
    action: hold
  - name: count-before-commit
    match: { any: [ { class: WRITE }, { opaque: true } ] }
    action:
      supervise: { max_rows: 1000, max_rows_per_transaction: 5000, effects: total, on_exceed: hold }
)");
    CHECK(r.problems == "");
    REQUIRE(r.policy.rules.size() == 4);
    CHECK(r.policy.rules[0].place.line == 7);
    const auto& limits = *r.policy.rules[3].action.supervise;
    CHECK(*limits.max_rows == 1000);
    CHECK(limits.effects == policy::SuperviseLimits::Effects::total);
    CHECK(limits.hold);
    CHECK(r.policy.rules[1].match.children[0].globs[1].matches("TRUNCATE TABLE"));
}

TEST_CASE("mistakes in conditions are told with a suggestion") {
    refused(rule("{ comand: DELETE }"), "did you mean \"command\"?");
    refused(rule("{ command: DELTE }"), "did you mean \"DELETE\"?");
    refused(rule("{ command: DROP }"), "did you mean \"DROP *\"?");
    refused(rule("{ command: \"DORP *\" }"), "no command matches");
    refused(rule("{ class: WRITES }"), "did you mean \"WRITE\"?");
    refused(rule("{ unbounded: maybe }"), "must be true or false");
    refused(rule("{ user: [] }"), "empty list");
    refused(rule("{ user: }"), "has no value");
    refused(rule("{ client: 10.0.0.1/8 }"), "bits set behind");
    refused(rule("{ text: \"(\" }"), "regular expression");
    refused(rule("{ time: { inside: \"8-18\" } }"), "not a span of hours");
    refused(rule("{ time: { zone: UTC } }"), "needs inside or outside");
    refused(rule("{ time: { inside: Mon, outside: Tue } }"), "not both");
    refused(rule("{ time: { inside: Mon, zone: Mars/Base } }"), "there is no time zone");
    refused(rule("{ any: { class: WRITE } }"), "must be a list of conditions");
    refused(rule("{ any: [] }"), "must be a list of conditions");
    refused(rule("{ not: [ { class: WRITE } ] }"), "not must be a mapping");
    refused(rule("{ not: {} }"), "not is empty");
    refused(rule("{}"), "match is empty");
    refused(rule("{ relation: \"a b\" }"), "holds a space");
    refused(rule("{ user: a, user: b }"), "stands twice");
}

TEST_CASE("mistakes in rules and actions are told") {
    refused("rules:\n  - match: { class: DDL }\n", "a rule needs a name");
    refused("rules:\n  - name: r\n", "a rule needs an action");
    refused("rules:\n  - { name: r, statement_timeout: 30s, audit: true }\n",
            "audit belongs to an action");
    refused("rules:\n  - { name: r, statement_timeout: soon }\n", "statement_timeout");
    refused("rules: { name: r }", "rules must be a list");
    refused(rule("{ class: DDL }", "blok"), "did you mean \"block\"?");
    refused(rule("{ class: DDL }", "supervise"), "supervise needs limits");
    refused(rule("{ class: DDL }", "{ supervise: {} }"), "supervise limits nothing");
    refused(rule("{ class: DDL }", "{ supervise: { max_row: 5 } }"), "did you mean \"max_rows\"?");
    refused(rule("{ class: DDL }", "{ supervise: { max_rows: -1 } }"), "must be a whole number");
    refused(rule("{ class: DDL }", "{ supervise: { max_fraction: 120% } }"), "part of the rows");
    refused(rule("{ class: DDL }", "{ supervise: { catalog_changes: refuse } }"),
            "add effects: total");
    refused(rule("{ class: DDL }", "{ supervise: { max_rows: 1, hold: { wait: 1s } } }"),
            "add on_exceed: hold");
    refused(rule("{ class: DDL }", "{ supervise: { max_rows_per_session: { rows: 5 } } }"),
            "needs rows and window");
    refused(rule("{ class: DDL }", "{ hold: { wait: 2h } }"), "longer than ticket_ttl");
    refused(rule("{ class: DDL }", "{ hold: { approvals: 0 } }"), "from 1 to 10");
    refused(rule("{ class: DDL }", "{ hold: { wait: 60 } }"), "is not a duration");
    refused(rule("{ class: DDL }", "{ hold: {}, supervise: { max_rows: 1 } }"), "one action");
    refused("unparsable: { supervise: { max_rows: 1 } }", "can't be supervised");
    refused("rules:\n  - { name: r, action: block, message: \"no {relation}\" }\n",
            "did you mean \"relations\"?");
    refused(
        "rules:\n  - { name: r, action: block }\n  - { name: r, match: { class: DDL }, action: "
        "block }\n",
        "a second rule with the name");
    refused("break_glass: {}", "needs roles");
    refused("presett: agent", "did you mean \"preset\"?");
}

TEST_CASE("several mistakes are told at once, each at its line and column") {
    const Result r = load(
        "mode: observ\nrules:\n  - name: a\n    match: { clas: DDL, usr: x }\n    action: allw\n  "
        "- name: b\n    action: block\n    mesage: x\n");
    CHECK_FALSE(r.good);
    for (const char* place :
         {"p.yaml:1:7:", "p.yaml:4:14:", "p.yaml:4:25:", "p.yaml:5:13:", "p.yaml:8:5:"}) {
        CHECK_THAT(r.problems, ContainsSubstring(place));
    }
}

TEST_CASE("holding without anybody who may approve is worth a warning") {
    const Result r = load(rule("{ class: DDL }", "hold"));
    CHECK(r.good);
    CHECK_THAT(r.problems, ContainsSubstring("nobody may approve"));
    CHECK(load("approvers: lead\n" + rule("{ class: DDL }", "hold")).problems == "");
    CHECK(load(rule("{ class: DDL }", "{ hold: { approvers: lead } }")).problems == "");
    CHECK_THAT(load("default: hold\nrules: []").problems,
               ContainsSubstring("1:10: warning: default holds statements, but nobody may"));
    CHECK_THAT(load("default: block\nunparsable: hold").problems,
               ContainsSubstring("unparsable holds statements, but nobody may"));
    CHECK(load("approvers: lead\ndefault: hold\nrules: []").problems == "");
}

TEST_CASE("operators are roles like approvers, and a file's take the place of a preset's") {
    const Result r = load("operators: [\"dba_*\", root]");
    REQUIRE(r.policy.operators.size() == 2);
    CHECK(r.policy.operators[0].matches("dba_anna"));
    CHECK(r.policy.operators[1].text() == "root");
    CHECK(load("approvers: lead").policy.operators.empty());
}

TEST_CASE("a preset that holds wants approvers, and says so once") {
    const Result r = load("preset: approval");
    CHECK(r.good);
    CHECK_THAT(r.problems, ContainsSubstring("the rules \"no-destruction\", ") &&
                               ContainsSubstring("nobody may approve"));
    CHECK(r.problems.find("nobody may approve") == r.problems.rfind("nobody may approve"));
    CHECK(load("preset: approval\napprovers: lead").problems == "");
}

TEST_CASE("every preset loads without a problem") {
    REQUIRE(policy::presets().size() == 5);
    for (const policy::Preset& preset : policy::presets()) {
        INFO(preset.name);
        const Result r = load("approvers: lead\npreset: " + std::string(preset.name));
        CHECK(r.problems == "");
        CHECK_FALSE(r.policy.rules.empty());
    }
    refused("preset: interactiv", "did you mean \"interactive\"?");
}

TEST_CASE(
    "rules of one's own come before those of the preset, replace those of the same name, and "
    "switch off others") {
    const Result plain = load("preset: interactive");
    const Result r = load("disable: [no-table-locks]\ndefault: block\npreset: interactive\n" +
                          rule("{ user: dba }", "allow") +
                          "  - name: no-unbounded-writes\n    match: { unbounded: true }\n    "
                          "action: hold\napprovers: lead\n");
    CHECK(r.problems == "");
    REQUIRE(r.policy.rules.size() == plain.policy.rules.size() - 2 + 2);
    CHECK(r.policy.rules[0].name == "r");
    CHECK(r.policy.rules[1].action.action == policy::Action::hold);
    CHECK(r.policy.by_default.action == policy::Action::block);
    for (std::size_t i = 2; i < r.policy.rules.size(); ++i) {
        CHECK(r.policy.rules[i].name != "no-table-locks");
        CHECK(r.policy.rules[i].name != "no-unbounded-writes");
        CHECK(r.policy.rules[i].origin == "preset interactive");
    }
    refused("preset: interactive\ndisable: no-tabel-locks\n", "did you mean \"no-table-locks\"?");
}

TEST_CASE("files of rules are put in where they are included") {
    const std::map<std::string, std::string> files = {
        {"a.yaml", "- { name: a, match: { class: DDL }, action: block }\n- include: sub/b.yaml\n"},
        {"sub/b.yaml",
         "rules: [ { name: b, match: { class: ROLE }, action: block }, { include: c.yaml } ]"},
        {"sub/c.yaml", "- { name: c, match: { class: MISC }, action: block }\n"},
        {"loop.yaml", "- include: loop.yaml\n"},
        {"broken.yaml", "- { name: x, actoin: block }\n"}};
    const Result r = load("rules:\n  - include: a.yaml\n  - { name: last, action: block }\n",
                          files);
    CHECK(r.problems == "");
    REQUIRE(r.policy.rules.size() == 4);
    CHECK(r.policy.rules[1].name == "b");
    CHECK(r.policy.rules[2].name == "c");
    CHECK(r.policy.rules[2].place.file == "sub/c.yaml");
    CHECK_THAT(load("rules: [ { include: loop.yaml } ]", files).problems,
               ContainsSubstring("includes itself"));
    CHECK_THAT(load("rules: [ { include: none.yaml } ]", files).problems,
               ContainsSubstring("can't read none.yaml"));
    CHECK_THAT(load("rules: [ { include: broken.yaml } ]", files).problems,
               ContainsSubstring("broken.yaml:1:14: error: unknown key"));
}

TEST_CASE("a rule that can never be reached is told, as an error where it is the stricter one") {
    const auto two = [](const std::string& first, const std::string& first_action,
                        const std::string& second, const std::string& second_action) {
        return load("approvers: x\nrules:\n  - name: first\n    match: " + first +
                    "\n    action: " + first_action + "\n  - name: second\n    match: " + second +
                    "\n    action: " + second_action + "\n");
    };
    const Result covered = two("{ user: \"*\" }", "allow", "{ user: clerk, unbounded: true }",
                               "block");
    CHECK_FALSE(covered.good);
    CHECK_THAT(covered.problems, ContainsSubstring("rule \"second\" can never be reached"));
    CHECK_THAT(covered.problems, ContainsSubstring("(p.yaml:3:5)"));
    CHECK_THAT(covered.problems, ContainsSubstring("move it before \"first\""));
    CHECK(two("{ class: [WRITE, DDL] }", "block", "{ class: WRITE, user: x }", "allow")
              .problems.find("warning") != std::string::npos);
    CHECK(two("{ client: 10.0.0.0/8 }", "block", "{ client: 10.1.0.0/16 }", "block").problems !=
          "");
    CHECK(two("{ any: [ { class: WRITE }, { class: DDL } ] }", "block", "{ class: DDL }", "block")
              .problems != "");
    CHECK(two("{ not: { user: a } }", "block", "{ not: { user: [a, b] } }", "block").problems !=
          "");
    CHECK_FALSE(two("{ user: \"*\" }", "allow", "{ unbounded: true }", "block").good);
    // These can be reached.
    CHECK(two("{ command: SELECT }", "allow", "{ command: SELECT }", "block").problems == "");
    CHECK(two("{ user: clerk }", "block", "{ user: \"*\" }", "block").problems == "");
    CHECK(two("{ not: { user: [a, b] } }", "block", "{ not: { user: a } }", "block").problems ==
          "");
    CHECK(two("{ unbounded: true }", "block", "{ unbounded: false }", "block").problems == "");
    CHECK_THAT(load("rules: [ { name: a, action: block }, { name: b, match: { class: DDL }, "
                    "action: allow } ]")
                   .problems,
               ContainsSubstring("always applies"));
    // Conditions that every statement meets, with the care that unreadable ones need.
    const auto covers = [&](const char* first, const char* second, const char* action = "block") {
        return two(first, action, second, "block").problems != "";
    };
    CHECK(covers("{ command: \"*\" }", "{ command: DROP TABLE }", "allow"));
    CHECK(covers("{ command: \"*\" }", "{ unbounded: true, user: x }", "allow"));
    CHECK_FALSE(covers("{ command: \"*\" }", "{ user: x }"));
    CHECK_FALSE(covers("{ command: \"*\" }", "{ unparsable: true }"));
    CHECK_FALSE(covers("{ command: \"*\" }", "{ any: [ { user: x }, { opaque: true } ] }"));
    CHECK_FALSE(covers("{ command: \"*\" }", "{ text: x }"));
    CHECK(covers("{ command: \"*\" }", "{ not: { opaque: true } }"));
    CHECK(covers("{ class: [READ, WRITE, FUNCTION, ROLE, DDL, MISC] }", "{ writes: t }", "allow"));
    CHECK(covers("{ command: [\"DROP *\"] }", "{ command: DROP TABLE }"));
    CHECK(covers("{ command: [\"DROP *\", TRUNCATE*] }", "{ command: [DROP TABLE, TRUNCATE] }"));
    CHECK(covers("{ command: [\"DROP *\"] }", "{ command: DROP TABLE, user: x, tls: true }"));
    CHECK_FALSE(covers("{ command: [\"DROP *\"], user: x }", "{ command: DROP TABLE }"));
    CHECK(covers("{ command: [\"DROP *\"], user: \"x*\" }", "{ command: DROP TABLE, user: xy }"));
    CHECK_FALSE(covers("{ command: [\"DROP *\"] }", "{ command: DROP TABLE }", "allow"));
    CHECK(two("{ command: [\"DROP *\"] }", "allow", "{ command: DROP TABLE }", "allow").problems !=
          "");
    CHECK(covers("{ writes: \"hr.*\" }", "{ writes: hr.pay }"));
    CHECK(covers("{ writes: pay }", "{ writes: [hr.pay, sales.pay] }"));
    CHECK_FALSE(covers("{ writes: hr.pay }", "{ writes: pay }"));
    CHECK_FALSE(covers("{ writes: '\"a*\"' }", "{ writes: \"a*\" }"));
    CHECK_FALSE(covers("{ writes: '\"*\"x*' }", "{ writes: \"*xy\" }"));
    CHECK_FALSE(covers("{ writes: hr.pay }", "{ relation: hr.pay }"));
    CHECK(covers("{ any: [ { tls: true }, { tls: false } ] }", "{ user: x }", "allow"));
    CHECK(covers("{ any: [ { user: x }, { not: { user: x } } ] }", "{ unparsable: true }"));
    CHECK(covers("{ any: [ { opaque: true }, { opaque: false } ] }", "{ class: DDL }", "allow"));
    CHECK_FALSE(covers("{ any: [ { opaque: true }, { opaque: false } ] }", "{ user: x }"));
    CHECK(covers("{ any: [ { writes: t }, { not: { writes: t } } ] }", "{ class: DDL }"));
    CHECK_FALSE(
        covers("{ any: [ { writes: t }, { not: { writes: t } } ] }", "{ class: DDL }", "allow"));
    CHECK(covers("{ not: { all: [ { tls: true }, { tls: false } ] } }", "{ user: x }", "allow"));
    CHECK(covers("{ not: { not: { class: DDL } } }", "{ class: DDL, user: x }"));
    CHECK(covers("{ any: [ { class: DDL }, { user: x } ] }",
                 "{ any: [ { user: x, class: READ }, { class: DDL } ] }"));
    CHECK(covers("{ not: { user: [x, \"dba_*\"] } }", "{ not: { user: [x, \"dba_*\", y] } }"));
    CHECK_FALSE(
        covers("{ class: DDL, not: { user: [x, y] } }", "{ class: DDL, not: { user: x } }"));
    // One that only observes covers nothing.
    CHECK(load("rules: [ { name: a, action: block, mode: observe }, { name: b, match: { class: DDL "
               "}, action: block } ]")
              .problems == "");
}

TEST_CASE("a rule whose conditions contradict each other is told") {
    const auto never = [](const std::string& match, const std::string& action = "block") {
        const Result result = load(rule(match, action));
        CHECK(result.good);
        return result.problems.find("can never apply") != std::string::npos;
    };
    CHECK(never("{ unbounded: true, not: { unbounded: true } }"));
    CHECK(never("{ tls: true, all: [ { tls: false } ] }"));
    CHECK(never("{ all: [ { tls: true }, { tls: false } ] }"));
    CHECK(never("{ not: { user: \"*\" } }"));
    CHECK(never("{ any: [ { not: { user: \"*\" } }, { not: { database: \"*\" } } ] }"));
    // A statement may be both in part, and a rule that restricts applies to it.
    CHECK_FALSE(never("{ command: DELETE, not: { command: DELETE } }"));
    CHECK(never("{ command: DELETE, not: { command: DELETE } }", "allow"));
    CHECK_FALSE(never("{ unbounded: true, destructive: true }"));
}

TEST_CASE("rules that can never be reached are told together with what else is wrong") {
    const Result r = load(
        "rules:\n  - { name: a, action: allow }\n  - { name: b, match: { class: DDL }, action: "
        "block }\n  - { name: c, match: { comand: DROP }, action: block }\n");
    CHECK_THAT(r.problems, ContainsSubstring("rule \"b\" can never be reached"));
    CHECK_THAT(r.problems, ContainsSubstring("unknown key"));
    // What is left of a broken rule covers nothing.
    const Result broken = load(
        "rules:\n  - { name: a, match: { usr: x }, action: allow }\n  - { name: b, match: { class: "
        "DDL }, action: block }\n");
    CHECK_THAT(broken.problems, ContainsSubstring("unknown key"));
    CHECK_THAT(broken.problems, !ContainsSubstring("can never be reached"));
}

TEST_CASE("a rule may limit the time of what it matches, with an action and without one") {
    const Result result = load(
        "rules:\n"
        "  - { name: people, match: { user: [person_*] }, statement_timeout: 30s }\n"
        "  - { name: all, action: allow, transaction_timeout: 5m }\n");
    INFO(result.problems);
    REQUIRE(result.good);
    CHECK(result.problems.empty());
    REQUIRE(result.policy.rules.size() == 2);
    CHECK_FALSE(result.policy.rules[0].decides);
    CHECK(result.policy.rules[0].limits.statement == std::chrono::seconds(30));
    CHECK_FALSE(result.policy.rules[0].limits.transaction);
    CHECK(result.policy.rules[1].decides);
    CHECK(result.policy.rules[1].limits.transaction == std::chrono::minutes(5));
}

TEST_CASE("a rule that only limits hides none behind it, and can be hidden itself") {
    CHECK(load("rules:\n  - { name: all, statement_timeout: 30s }\n"
               "  - { name: guard, match: { unbounded: true }, action: block }\n")
              .problems.empty());
    CHECK_THAT(load("rules:\n  - { name: all, action: allow }\n"
                    "  - { name: late, statement_timeout: 30s }\n")
                   .problems,
               ContainsSubstring("\"late\" can never be reached"));
}
