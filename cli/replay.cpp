#include "cli/replay.h"

#include "cli/audit_lines.h"
#include "cli/subcommands.h"
#include "cli/table.h"
#include "policy/engine.h"
#include "policy/rule_pattern.h"

#include <CLI/CLI.hpp>

#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

namespace pgchaperone::cli {
namespace {

using boost::json::object;

struct Verdict {
    std::string action;  // what is done: of what is only observed, "allow"
    std::string rule;
    std::string reason;
    int rank = 0;  // the stricter, the higher
};

int rank_of(policy::Action action) {
    switch (action) {
        case policy::Action::allow:
        case policy::Action::answer: return 0;
        case policy::Action::supervise: return 1;
        case policy::Action::hold: return 2;
        case policy::Action::block: return 3;
    }
    return 0;
}

// The strictest of what is decided on a text: one record may have been of several statements.
Verdict verdict_of(const policy::Judgement& judgement) {
    Verdict strictest{"allow", {}, {}, -1};
    if (judgement.plainly_allowed()) return strictest;
    for (const policy::Decision& decision : judgement.decisions) {
        const policy::Action action = decision.observed ? policy::Action::allow : decision.action;
        if (rank_of(action) <= strictest.rank) continue;
        const policy::Refusal& refusal = decision.refusal;
        strictest = {std::string(policy::action_name(action)), decision.rule,
                     refusal.reason.empty() ? refusal.message : refusal.reason, rank_of(action)};
    }
    return strictest;
}

class Replay {
public:
    explicit Replay(const RulesOf& rules) : rules_(rules) {}

    // Whether there are rules that hold at its server.
    bool knows(const object& record) {
        return engine_of(member_text(record, "upstream")) != nullptr;
    }
    // What would be decided now; nothing where the record does not show the statement. There must
    // be rules.
    std::optional<Verdict> judge(const object& record) {
        const std::string statement = member_bytes(record, "statement");
        if (statement.empty() || member_flag(record, "redacted") ||
            member_lists(record, "shortened", "statement"))
            return std::nullopt;
        policy::Moment moment;
        if (const auto time = parse_time(member_text(record, "time"))) moment.now = *time;
        return verdict_of(engine_of(member_text(record, "upstream"))
                              ->judge(statement, {}, session_of(record), moment));
    }

private:
    policy::Engine* engine_of(const std::string& upstream) {
        const auto [at, made] = engines_.try_emplace(upstream);
        if (made) {
            if (const auto rules = rules_(upstream))
                at->second = std::make_unique<policy::Engine>(
                    rules, policy::Capabilities{.supervise = true, .hold = true});
        }
        return at->second.get();
    }

    const policy::SessionFacts& session_of(const object& record) {
        const auto key = std::make_tuple(
            member_text(record, "user"), member_text(record, "database"),
            member_text(record, "client"), member_text(record, "application"));
        const auto [at, made] = sessions_.try_emplace(key);
        policy::SessionFacts& session = at->second;
        if (!made) return session;
        session.id = sessions_.size();
        std::tie(session.user, session.database, std::ignore, session.application_name) = key;
        const std::string& client = std::get<2>(key);
        if (auto address = policy::parse_client_address(client)) {
            session.client = *std::move(address);
        } else {
            session.client.local = true;
            session.client.text = client;
        }
        return session;
    }

    const RulesOf& rules_;
    std::map<std::string, std::unique_ptr<policy::Engine>> engines_;  // by upstream
    std::map<std::tuple<std::string, std::string, std::string, std::string>, policy::SessionFacts>
        sessions_;
};

std::string counted(std::size_t count, const std::string& thing) {
    return std::to_string(count) + " " + thing + (count == 1 ? "" : "s");
}

}  // namespace

int replay_log(const std::vector<std::filesystem::path>& files, const RulesOf& rules, bool json,
               const Look& look, std::ostream& out, std::ostream& err) {
    constexpr std::size_t statement_bytes = 1000;  // of it, in a table
    Replay replay(rules);
    std::size_t judged = 0, unknown = 0, elsewhere = 0, changed = 0;
    std::map<std::pair<std::string, std::string>, std::size_t> kinds;
    Table table({"TIME", "USER", "WAS", "WOULD BE", "RULE", "STATEMENT"});
    const bool read = for_each_record(
        files,
        [&](const object& record, std::string_view) {
            const std::string decided = member_text(record, "decision");
            if (member_text(record, "event") != "decision" || decided == "answer") return;
            if (!replay.knows(record)) {
                ++elsewhere;
                return;
            }
            const auto verdict = replay.judge(record);
            if (!verdict) {
                ++unknown;
                return;
            }
            ++judged;
            const std::string before = member_flag(record, "observed") ? "allow" : decided;
            if (verdict->action == before) return;
            ++changed;
            ++kinds[{before, verdict->action}];
            const std::string statement = member_text(record, "statement");
            const auto* const seq = record.if_contains("seq");
            if (json) {
                out << boost::json::serialize(object{{"seq", seq ? *seq : boost::json::value()},
                                                     {"time", member_text(record, "time")},
                                                     {"user", member_text(record, "user")},
                                                     {"database", member_text(record, "database")},
                                                     {"was", before},
                                                     {"was_rule", member_text(record, "rule")},
                                                     {"would_be", verdict->action},
                                                     {"rule", verdict->rule},
                                                     {"reason", verdict->reason},
                                                     {"statement", statement}})
                    << '\n';
                return;
            }
            table.add({{visible_line(member_text(record, "time").substr(0, 19)), Ink::plain},
                       {visible_line(member_text(record, "user")), Ink::plain},
                       {visible_line(before), Ink::plain},
                       {visible_line(verdict->action), Ink::bold},
                       {visible_line(verdict->rule), Ink::plain},
                       {visible_line(statement.substr(0, statement_bytes)), Ink::plain}});
        },
        err);
    if (!json) {
        if (changed > 0) out << table.text(look) << '\n';
        out << counted(judged, "record") << " judged, " << changed << " otherwise than then";
        for (const auto& [kind, count] : kinds)
            out << "\n  " << count << ": " << kind.first << " -> " << kind.second;
        if (unknown > 0)
            out << "\n"
                << counted(unknown, "record")
                << " can't be judged: the statement is not, or not whole, in the log";
        if (elsewhere > 0)
            out << "\n"
                << counted(elsewhere, "record")
                << " can't be judged: the configuration has no upstream of that name";
        out << '\n';
    }
    if (!read) return exit_trouble;
    return changed > 0 ? exit_findings : exit_ok;
}

void add_replay(CLI::App& app, int& status) {
    struct Arguments {
        std::vector<std::filesystem::path> files;
        PolicySource source;
        bool json = false;
    };
    const auto arguments = std::make_shared<Arguments>();
    CLI::App* command = app.add_subcommand(
        "replay", "Judge the statements of an audit log by another policy: what would change");
    add_policy_options(*command, arguments->source);
    command
        ->add_option("LOG", arguments->files,
                     "The audit log, with all its old files; or several files of it")
        ->required();
    command->add_flag("--json", arguments->json, "One JSON object a line for each that differs");
    command->footer(
        "Exit status: 0 all would be judged as they were, 1 some would not, 2 trouble.");
    command->callback([arguments, &status] {
        const PolicySource& source = arguments->source;
        auto loaded = load_or_complain(source.request(), source.upstream);
        if (!loaded) {
            status = exit_trouble;
            return;
        }
        // One policy for all records, where one was named; else each by that of its own server.
        const bool one = !source.policy.empty() || !source.upstream.empty();
        const auto rules = [&](const std::string& upstream) {
            const policy::Policy* policy = upstream.empty() || one ? &loaded->policy : nullptr;
            for (const config::Upstream& entry : loaded->upstreams) {
                if (!one && entry.name == upstream) policy = &entry.policy;
            }
            return policy ? std::make_shared<const policy::RuleBook>(*policy) : nullptr;
        };
        status = replay_log(arguments->files, rules, arguments->json, look_of_output(), std::cout,
                            std::cerr);
    });
}

}  // namespace pgchaperone::cli
