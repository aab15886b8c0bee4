#include "cli/verdict.h"

#include "policy/own_tables.h"

namespace pgchaperone::cli {
namespace {

int strictness(const StatementVerdict& statement) {
    if (statement.observed) return 0;
    switch (statement.action) {
        case policy::Action::answer:
        case policy::Action::allow: return 0;
        case policy::Action::supervise: return 1;
        case policy::Action::hold: return 2;
        case policy::Action::block: return 3;
    }
    return 0;
}

}  // namespace

const StatementVerdict* Verdict::strictest() const {
    const StatementVerdict* found = nullptr;
    for (const StatementVerdict& statement : statements) {
        if (found == nullptr || strictness(statement) > strictness(*found)) found = &statement;
    }
    return found;
}

Verdict judge(const policy::Policy& policy, std::string_view sql, const Situation& situation) {
    static const policy::Analyzer analyzer;
    Verdict verdict;
    verdict.analysis = analyzer.analyze(sql, policy::LexicalSettings{},
                                        situation.session.replication);
    const auto session_answers = policy::answer_session_conditions(policy, situation.session);
    const std::string_view text = verdict.analysis->text;
    std::size_t number = 0;
    policy::Moments moments(situation.moment);
    for (const policy::StatementFacts& facts : verdict.analysis->statements) {
        StatementVerdict statement;
        statement.facts = &facts;
        statement.text = facts.location <= text.size() ? text.substr(facts.location, facts.length)
                                                       : text;
        statement.moment = moments.now();
        const policy::Subject subject{facts, statement.text, situation.session, statement.moment};
        statement.outcome = policy::evaluate(policy, subject, session_answers, nullptr);
        policy::Outcome told = statement.outcome;
        const bool allowed = told.action(policy).action == policy::Action::allow;
        if (allowed && told.observed >= 0) {
            told.rule = told.observed;
            statement.observed = true;
        }
        statement.action = told.action(policy).action;
        if (policy.observe && statement.action != policy::Action::allow) statement.observed = true;
        if (told.rule >= 0) statement.rule = &policy.rules[static_cast<std::size_t>(told.rule)];
        statement.reason = policy::reason(policy, told, subject);
        statement.hint = policy::hint(policy, told, subject);
        statement.refusal = policy::refusal(policy, told, subject,
                                            {++number, verdict.analysis->statements.size()});
        if (facts.chaperone) {
            // No rule is asked: the server never sees it.
            statement.action = policy::Action::answer;
            statement.observed = false;
            statement.rule = nullptr;
            statement.reason = "it is for pgchaperone itself";
            statement.hint.clear();
            statement.refusal = {};
        }
        moments.ran(facts);
        verdict.statements.push_back(std::move(statement));
    }
    return verdict;
}

std::string_view action_word(const policy::Rule& rule) {
    return rule.decides ? policy::action_name(rule.action.action) : "limit";
}

std::string decided_by(const StatementVerdict& statement) {
    if (statement.facts->chaperone) return "pgchaperone itself";
    if (statement.rule != nullptr) return "rule \"" + statement.rule->name + "\"";
    if (statement.outcome.rule == policy::Outcome::unparsable) return "the policy's `unparsable`";
    return "the default";
}

}  // namespace pgchaperone::cli
