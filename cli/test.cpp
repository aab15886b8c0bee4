// `pgchaperone test`: runs files of cases against a policy, for CI. The files are described in
// docs/policy.md.
#include "cli/subcommands.h"
#include "cli/verdict.h"
#include "config/policy_loader.h"
#include "policy/rule_presets.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <vector>

namespace pgchaperone::cli {
namespace {

struct Expectation {
    std::string action;
    std::string rule;
    std::optional<bool> observed;
};

struct Case {
    std::string name;
    std::string sql;
    SessionWords session;
    Expectation expected;
    policy::Place place;
};

struct CaseFile {
    std::string policy;  // a preset or a file beside this one; empty: as the command line says
    std::vector<Case> cases;
};

const std::vector<std::string>& actions() {
    static const std::vector<std::string> words = {"allow", "block", "supervise", "hold"};
    return words;
}

void read_expectation(config::YamlReader& reader, const YAML::Node& node, Expectation& expected) {
    const auto action = [&](const YAML::Node& value) {
        const auto text = reader.text(value, "expect");
        if (!text) return;
        const auto word = config::parse_word(*text, actions());
        if (!word) reader.error(value, "expect: " + word.error().message);
        expected.action = *text;
    };
    if (!node.IsMap()) return action(node);
    reader.mapping(node, "expect", {"action", "rule", "observed"},
                   [&](const std::string& key, const YAML::Node&, const YAML::Node& value) {
                       if (key == "action") return action(value);
                       if (key == "observed") {
                           if (const auto flag = reader.value<bool>(value, key, config::parse_flag))
                               expected.observed = *flag;
                       } else if (const auto rule = reader.text(value, key)) {
                           expected.rule = *rule;
                       }
                   });
    if (expected.action.empty()) reader.error(node, "expect needs an action", "action: block");
}

CaseFile read_cases(config::YamlReader& reader, const YAML::Node& root) {
    CaseFile file;
    SessionWords shared;
    if (root.IsMap() && root["session"]) read_session(reader, root["session"], shared);
    reader.mapping(root, "a file of cases", {"policy", "session", "cases"},
                   [&](const std::string& key, const YAML::Node&, const YAML::Node& value) {
                       if (key == "policy") {
                           if (const auto text = reader.text(value, key)) file.policy = *text;
                       }
                       if (key != "cases") return;
                       if (!value.IsSequence()) {
                           reader.error(value, "cases must be a list",
                                        "begin each case with a dash: - name: ...");
                           return;
                       }
                       for (const auto& item : value) {
                           Case one;
                           one.session = shared;
                           one.place = reader.place(item);
                           reader.mapping(item, "a case", {"name", "sql", "session", "expect"},
                                          [&](const std::string& inner, const YAML::Node&,
                                              const YAML::Node& v) {
                                              if (inner == "session") {
                                                  read_session(reader, v, one.session);
                                              } else if (inner == "expect") {
                                                  read_expectation(reader, v, one.expected);
                                              } else if (const auto text = reader.text(v, inner)) {
                                                  (inner == "name" ? one.name : one.sql) = *text;
                                              }
                                          });
                           if (!item.IsMap()) continue;
                           for (const char* needed : {"sql", "expect"}) {
                               if (!item[needed])
                                   reader.error(item, std::string("a case needs ") + needed);
                           }
                           if (one.name.empty()) one.name = policy::first_words(one.sql, 70);
                           file.cases.push_back(std::move(one));
                       }
                   });
    if (root.IsMap() && !root["cases"])
        reader.error(root, "there are no cases in this file",
                     "write cases: [ { sql: ..., expect: ... } ]");
    return file;
}

// What differs from the expectation; empty: nothing.
std::string difference(const Case& one, const Verdict& verdict, std::string& got) {
    const StatementVerdict* decisive = verdict.strictest();
    const bool observed = decisive != nullptr && decisive->observed;
    std::string action = decisive == nullptr || observed
                             ? "allow"
                             : std::string(policy::action_name(decisive->action));
    const std::string rule = decisive != nullptr && decisive->rule != nullptr ? decisive->rule->name
                                                                              : "";
    got = action;
    if (decisive != nullptr) {
        if (observed) got += " (noted: " + std::string(policy::action_name(decisive->action)) + ")";
        got += " by " + decided_by(*decisive);
    }
    if (one.expected.action == action && (one.expected.rule.empty() || one.expected.rule == rule) &&
        (!one.expected.observed || *one.expected.observed == observed)) {
        return {};
    }
    std::string wanted = one.expected.action;
    if (!one.expected.rule.empty()) wanted += " by rule \"" + one.expected.rule + "\"";
    if (one.expected.observed) wanted += *one.expected.observed ? ", observed" : ", not observed";
    return "expected " + wanted + ", got " + got;
}

}  // namespace

void add_test(CLI::App& app, int& status) {
    struct Arguments {
        PolicySource source;
        std::vector<std::string> files;
        bool quiet = false;
    };
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = app.add_subcommand(
        "test", "Run files of cases (statement, session, expected decision) against a policy");
    command->add_option("files", arguments->files, "Files of cases (YAML)")
        ->type_name("FILE")
        ->required();
    command->add_flag("-q,--quiet", arguments->quiet, "Show failures and the summary only");
    add_policy_options(*command, arguments->source);
    command->callback([arguments, &status] {
        const auto surroundings = config::real_surroundings();
        std::size_t run = 0, failed = 0;
        for (const std::string& name : arguments->files) {
            config::Problems problems;
            const auto text = surroundings.read_file(name);
            if (!text) {
                std::cerr << name << ": error: can't read it: " << text.error().message << '\n';
                status = exit_trouble;
                return;
            }
            config::YamlReader reader(name, problems, surroundings);
            CaseFile file;
            if (const auto root = reader.parse(*text)) file = read_cases(reader, *root);
            // Every mistake of the file at once, sessions included.
            std::vector<Situation> situations;
            for (const Case& one : file.cases) {
                const auto here = situation(
                    one.session, [&](const std::string& word, const std::string& message) {
                        problems.error(one.place, word + ": " + message);
                    });
                situations.push_back(here.value_or(Situation{}));
            }
            problems.print(std::cerr);
            config::Request request;
            request.file = arguments->source.file;
            request.policy = arguments->source.policy;
            if (request.file.empty() && request.policy.empty() && !file.policy.empty()) {
                const auto presets = policy::presets();
                const bool preset = std::any_of(presets.begin(), presets.end(), [&](const auto& p) {
                    return p.name == file.policy;
                });
                request.policy = preset ? file.policy
                                        : (std::filesystem::path(name).parent_path() / file.policy)
                                              .lexically_normal()
                                              .string();
            }
            auto loaded = problems.has_errors()
                              ? std::nullopt
                              : load_or_complain(request, arguments->source.upstream);
            if (!loaded) {
                status = exit_trouble;
                return;
            }
            loaded->policy.seal();
            std::cout << name << "  (policy: " << loaded->policy.source << ")\n";
            for (std::size_t i = 0; i < file.cases.size(); ++i) {
                const Case& one = file.cases[i];
                const Verdict verdict = judge(loaded->policy, one.sql, situations[i]);
                std::string got;
                const std::string wrong = difference(one, verdict, got);
                ++run;
                if (wrong.empty()) {
                    if (!arguments->quiet)
                        std::cout << "  ok    " << one.name << "  [" << got << "]\n";
                    continue;
                }
                ++failed;
                std::cout << "  FAIL  " << one.name << "\n        " << one.place.text() << ": "
                          << wrong << '\n';
                if (const StatementVerdict* decisive = verdict.strictest()) {
                    std::cout << "        statement: " << policy::first_words(decisive->text, 90)
                              << '\n';
                    if (decisive->action != policy::Action::allow)
                        std::cout << "        reason: " << decisive->reason << '\n';
                }
            }
        }
        std::cout << run << (run == 1 ? " case, " : " cases, ") << failed << " failed\n";
        if (failed > 0) status = exit_findings;
    });
}

}  // namespace pgchaperone::cli
