// `pgchaperone explain`: what a statement is, which rules apply to it and why, and what would
// happen.
#include "cli/subcommands.h"
#include "cli/verdict.h"
#include "config/json_text.h"
#include "config/values.h"
#include "policy/relation_names.h"

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include <chrono>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <set>

namespace pgchaperone::cli {
namespace {

using policy::StatementFacts;

std::vector<std::string> names(const std::vector<policy::RelationName>& relations) {
    std::set<std::string> out;
    for (const auto& relation : relations) out.insert(policy::relation_text(relation));
    return {out.begin(), out.end()};
}

std::vector<std::string> names(const std::vector<policy::FunctionName>& functions) {
    std::set<std::string> out;
    for (const auto& function : functions)
        out.insert((function.schema.empty() ? "" : function.schema + ".") + function.name);
    return {out.begin(), out.end()};
}

std::vector<std::string> classes(const StatementFacts& facts) {
    std::vector<std::string> out;
    for (const auto c : facts.classes) out.emplace_back(policy::class_name(c));
    return out;
}

std::string join(const std::vector<std::string>& items) {
    std::string out;
    for (const auto& item : items) out += (out.empty() ? "" : ", ") + item;
    return out;
}

struct NamedFlag {
    const char* name;
    const policy::Flag* flag;
};
std::vector<NamedFlag> flags(const StatementFacts& facts) {
    return {{"unbounded", &facts.unbounded}, {"destructive", &facts.destructive},
            {"dangerous", &facts.dangerous}, {"blocking", &facts.blocking},
            {"opaque", &facts.opaque},       {"unparsable", &facts.unparsable}};
}

void line(std::ostream& out, std::string_view name, std::string_view value) {
    if (value.empty()) return;
    out << "  " << name << std::string(name.size() < 14 ? 14 - name.size() : 1, ' ') << value
        << '\n';
}

void print_time_limits(const policy::Policy& policy, const StatementVerdict& statement,
                       std::ostream& out) {
    const auto print = [&](std::string_view name, int rule,
                           std::optional<std::chrono::milliseconds> policy::TimeLimits::*limit) {
        if (rule < 0) return;
        const policy::Rule& by = policy.rules[static_cast<std::size_t>(rule)];
        const std::chrono::milliseconds time = *(by.limits.*limit);
        line(out, name,
             (time.count() == 0 ? "none" : config::duration_text(time)) + ", by rule \"" + by.name +
                 '"');
    };
    print("statement_timeout", statement.outcome.statement_limit, &policy::TimeLimits::statement);
    print("transaction_timeout", statement.outcome.transaction_limit,
          &policy::TimeLimits::transaction);
}

std::vector<std::string> approvers_of(const policy::Policy& policy,
                                      const policy::HoldTerms& terms) {
    if (!terms.approvers.empty()) return terms.approvers;
    std::vector<std::string> out;
    for (const policy::Glob& role : policy.approvers) out.push_back(role.text());
    return out;
}

std::string who_decides(const policy::Policy& policy, const policy::HoldTerms& terms) {
    const std::string roles = join(approvers_of(policy, terms));
    if (roles.empty()) return "nobody: the policy lists no approvers";
    return (terms.approvals > 1 ? std::to_string(terms.approvals) + " different people" : "one") +
           " of " + roles + (terms.allow_self ? "; the requester may be one of them" : "");
}

std::string evidence_word(const policy::HoldTerms& terms) {
    switch (terms.evidence) {
        case policy::HoldTerms::Evidence::none: return "none";
        case policy::HoldTerms::Evidence::plan: return "plan";
        case policy::HoldTerms::Evidence::trial: return "trial";
    }
    return {};
}

void print_facts(const StatementFacts& facts, std::ostream& out) {
    line(out, "command", facts.command);
    std::vector<std::string> inner;
    for (const auto& command : facts.commands) {
        if (command != facts.command) inner.push_back(command);
    }
    line(out, "inside it", join(inner));
    line(out, "class", join(classes(facts)));
    line(out, "reads", join(names(facts.read)));
    line(out, "writes", join(names(facts.written)));
    line(out, "calls", join(names(facts.functions)));
    line(out, "sets", join(facts.settings));
    for (const NamedFlag& flag : flags(facts)) {
        if (*flag.flag)
            line(out, flag.name,
                 "yes" + (flag.flag->reason.empty() ? "" : ": " + flag.flag->reason));
    }
    if (!facts.runs_in_transaction) line(out, "transaction", "can't run inside one");
    if (facts.controls_transaction) line(out, "transaction", "controls it");
}

void print(const policy::Policy& policy, const Verdict& verdict, const Situation& situation,
           std::ostream& out) {
    std::size_t width = 4;
    for (const auto& rule : policy.rules) width = std::max(width, rule.name.size());
    std::size_t number = 0;
    for (const StatementVerdict& statement : verdict.statements) {
        ++number;
        if (number > 1) out << '\n';
        out << "Statement";
        if (verdict.statements.size() > 1)
            out << ' ' << number << " of " << verdict.statements.size();
        out << ": " << policy::first_words(statement.text, 100) << '\n';
        print_facts(*statement.facts, out);
        if (statement.action == policy::Action::answer) {
            out << "Decision: answer, by pgchaperone itself: the server never sees it, and no rule"
                   " is asked\n";
            continue;
        }
        out << "Rules of " << policy.source << (policy.rules.empty() ? ": none" : "") << '\n';
        const policy::Subject subject{*statement.facts, statement.text, situation.session,
                                      statement.moment};
        std::size_t rule_number = 0;
        for (const policy::RuleTrace& trace : policy::explain(policy, subject)) {
            const std::string action(action_word(*trace.rule));
            ++rule_number;
            out << "  " << rule_number << (rule_number < 10 ? "  " : " ") << trace.rule->name
                << std::string(width - trace.rule->name.size() + 2, ' ') << action
                << std::string(10 - action.size(), ' ');
            if (!trace.reached)
                out << "not reached\n";
            else if (trace.applies)
                out << (trace.rule->observe ? "would apply (observed): " : "APPLIES: ")
                    << trace.because << '\n';
            else
                out << "no: " << trace.because << '\n';
        }
        out << "Decision: " << (statement.observed ? "allow, but noted: " : "")
            << policy::action_name(statement.action) << ", by " << decided_by(statement);
        if (statement.rule != nullptr && statement.rule->place.line > 0)
            out << " (" << statement.rule->place.text() << ")";
        out << '\n';
        print_time_limits(policy, statement, out);
        if (statement.observed) continue;
        const auto& terms = statement.outcome.action(policy).hold;
        if (statement.action == policy::Action::hold && terms) {
            line(out, "reason", statement.reason);
            line(out, "waits",
                 config::duration_text(terms->wait) +
                     " for a decision; the ticket stays open for " +
                     config::duration_text(terms->ticket_ttl));
            line(out, "approvers", who_decides(policy, *terms));
            line(out, "evidence", evidence_word(*terms));
        }
        if (statement.action == policy::Action::block) {
            line(out, "MESSAGE", statement.refusal.message);
            std::string detail = statement.refusal.detail;
            for (std::size_t at = 0; (at = detail.find('\n', at)) != std::string::npos; at += 17) {
                detail.replace(at, 1, "\n" + std::string(16, ' '));
            }
            line(out, "DETAIL", detail);
            line(out, "HINT", statement.refusal.hint);
        }
    }
    if (verdict.statements.empty()) out << "There is no statement in this text: it is allowed.\n";
}

boost::json::array texts(const std::vector<std::string>& items) {
    return boost::json::array(items.begin(), items.end());
}

boost::json::value as_json(const policy::Policy& policy, const Verdict& verdict,
                           const Situation& situation) {
    boost::json::array out;
    for (const StatementVerdict& statement : verdict.statements) {
        const StatementFacts& facts = *statement.facts;
        boost::json::object fact_values{{"command", facts.command},
                                        {"commands", texts(facts.commands)},
                                        {"classes", texts(classes(facts))},
                                        {"reads", texts(names(facts.read))},
                                        {"writes", texts(names(facts.written))},
                                        {"functions", texts(names(facts.functions))}};
        for (const NamedFlag& flag : flags(facts)) {
            fact_values[flag.name] = *flag.flag ? boost::json::value(flag.flag->reason)
                                                : boost::json::value(nullptr);
        }
        fact_values["runs_in_transaction"] = facts.runs_in_transaction;
        fact_values["controls_transaction"] = facts.controls_transaction;
        boost::json::array rules;
        const policy::Subject subject{facts, statement.text, situation.session, statement.moment};
        for (const policy::RuleTrace& trace : policy::explain(policy, subject)) {
            rules.push_back(boost::json::object{{"name", trace.rule->name},
                                                {"action", action_word(*trace.rule)},
                                                {"reached", trace.reached},
                                                {"applies", trace.applies},
                                                {"because", trace.because}});
        }
        boost::json::object decision{{"action", policy::action_name(statement.action)},
                                     {"observed", statement.observed}};
        if (statement.rule != nullptr) decision["rule"] = statement.rule->name;
        const auto& terms = statement.outcome.action(policy).hold;
        if (statement.action == policy::Action::hold && terms) {
            decision["reason"] = statement.reason;
            decision["hold"] = boost::json::object{
                {"wait", config::duration_text(terms->wait)},
                {"ticket_ttl", config::duration_text(terms->ticket_ttl)},
                {"evidence", evidence_word(*terms)},
                {"approvers", texts(approvers_of(policy, *terms))},
                {"approvals", terms->approvals},
                {"allow_self", terms->allow_self}};
        }
        if (statement.action == policy::Action::block) {
            decision["message"] = statement.refusal.message;
            decision["detail"] = statement.refusal.detail;
            decision["hint"] = statement.refusal.hint;
        }
        out.push_back(boost::json::object{{"statement", policy::first_words(statement.text, 4096)},
                                          {"facts", std::move(fact_values)},
                                          {"rules", std::move(rules)},
                                          {"decision", std::move(decision)}});
    }
    return out;
}

}  // namespace

void add_explain(CLI::App& app, int& status) {
    struct Arguments {
        PolicySource source;
        SessionWords session;
        std::string sql;
        std::string format = "text";
    };
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = app.add_subcommand(
        "explain", "Say what a statement is, which rules apply, and what would happen");
    command->add_option("sql", arguments->sql, "The statement; - reads it from standard input")
        ->type_name("SQL")
        ->required();
    command->add_option("--format", arguments->format, "text or json")
        ->check(CLI::IsMember({"text", "json"}))
        ->type_name("FORMAT");
    add_policy_options(*command, arguments->source);
    add_session_options(*command, arguments->session);
    command->callback([arguments, &status] {
        auto loaded = load_or_complain(arguments->source.request(), arguments->source.upstream);
        const auto here = situation(arguments->session,
                                    [](const std::string& name, const std::string& message) {
                                        std::cerr << "--" << name << ": error: " << message << '\n';
                                    });
        if (!loaded || !here) {
            status = exit_trouble;
            return;
        }
        std::string sql = arguments->sql;
        if (sql == "-") sql.assign(std::istreambuf_iterator<char>(std::cin), {});
        loaded->policy.seal();
        const Verdict verdict = judge(loaded->policy, sql, *here);
        if (arguments->format == "json")
            std::cout << config::pretty(as_json(loaded->policy, verdict, *here));
        else
            print(loaded->policy, verdict, *here, std::cout);
    });
}

}  // namespace pgchaperone::cli
