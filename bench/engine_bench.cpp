// What judging costs: nanoseconds for one statement, cached and not, with few rules and with many.
// A plain program: `engine_bench [seconds for each line]`.
#include "config/policy_loader.h"
#include "policy/analyzer.h"
#include "policy/engine.h"
#include "policy/rule_book.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

using namespace pgchaperone;

namespace {

double seconds = 0.5;

template <class Work>
void measure(const char* name, Work work) {
    using Clock = std::chrono::steady_clock;
    std::size_t rounds = 0;
    for (int i = 0; i < 200; ++i) work(rounds++);
    double best = 1e9;
    // The best of five runs: what disturbs a run only ever makes it longer.
    for (int run = 0; run < 5; ++run) {
        const auto begin = Clock::now();
        std::size_t done = 0;
        std::chrono::duration<double> spent{};
        do {
            for (int i = 0; i < 100; ++i) work(rounds++);
            done += 100;
            spent = Clock::now() - begin;
        } while (spent.count() < seconds / 5);
        best = std::min(best, spent.count() / static_cast<double>(done));
    }
    std::printf("%-58s %9.0f ns\n", name, best * 1e9);
}

policy::Policy load(const std::string& yaml) {
    config::Problems problems;
    const config::Surroundings nothing;
    config::YamlReader reader("bench", problems, nothing);
    config::PolicyLoader loader(problems, nothing);
    policy::Policy policy = loader.load(reader, *reader.parse(yaml), {});
    if (problems.has_errors()) {
        std::fputs(problems.text().c_str(), stderr);
        std::exit(2);
    }
    return policy;
}

std::string many_rules(int count) {
    std::string yaml = "rules:\n";
    for (int i = 0; i < count; ++i) {
        const std::string n = std::to_string(i);
        yaml += "  - { name: rule" + n +
                ", match: { command: [UPDATE, SELECT, \"DROP *\"], relation: [\"archive" + n +
                ".*\", secret" + n + "], user: [\"team" + n + "_*\"], client: 10." +
                std::to_string(i % 256) + ".0.0/16 }, action: block }\n";
    }
    return yaml;
}

// Without conditions on the session, and with names whose schema the statement leaves open.
std::string rules_on_relations(int count) {
    std::string yaml = "rules:\n";
    for (int i = 0; i < count; ++i) {
        const std::string n = std::to_string(i);
        yaml += "  - { name: rule" + n +
                ", match: { command: [DELETE, TRUNCATE], relation: [\"archive" + n +
                ".*\", public.t" + n + "] }, action: block }\n";
    }
    return yaml;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc > 1) seconds = std::atof(argv[1]);
    const std::string point = "SELECT abalance FROM pgbench_accounts WHERE aid = 1";
    const std::string blocked = "DELETE FROM orders";
    policy::SessionFacts session;
    session.id = 1;
    session.user = "app";
    session.database = "shop";
    session.client = *policy::parse_client_address("10.1.2.3");
    policy::Moment moment;
    moment.now = std::chrono::system_clock::now();
    const policy::LexicalSettings lexical;

    const policy::Analyzer analyzer;
    measure("analyze a pgbench statement", [&](std::size_t) { analyzer.analyze(point, lexical); });
    const std::string timed =
        "rules: [ { name: night, match: { time: { inside: \"22:00-06:00\", zone: Europe/Berlin }, "
        "class: READ }, action: block } ]";
    const std::pair<const char*, std::string> policies[] = {
        {"interactive", "preset: interactive"},
        {"200 rules", many_rules(200)},
        {"200 rules on relations", rules_on_relations(200)},
        {"a rule on the time", timed}};
    for (const auto& [name, yaml] : policies) {
        policy::Engine engine(std::make_shared<policy::RuleBook>(load(yaml)));
        const auto line = [&](const char* what) { return std::string(name) + ": " + what; };
        measure(line("allowed, cached").c_str(),
                [&](std::size_t) { engine.judge(point, lexical, session, moment); });
        const auto analysis = engine.judge(point, lexical, session, moment).analysis;
        measure(line("judged again").c_str(),
                [&](std::size_t) { engine.judge_again(analysis, session, moment); });
        measure(line("allowed, new text each time").c_str(), [&](std::size_t i) {
            engine.judge("SELECT abalance FROM pgbench_accounts WHERE aid = " + std::to_string(i),
                         lexical, session, moment);
        });
        measure(line("blocked or not, cached").c_str(),
                [&](std::size_t) { engine.judge(blocked, lexical, session, moment); });
        measure(line("a new session each time, cached text").c_str(), [&](std::size_t i) {
            session.id = 2 + i;
            engine.judge(point, lexical, session, moment);
        });
        session.id = 1;
    }
}
