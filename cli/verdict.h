#pragma once
// One text judged by one policy for people: what `explain`, `test` and `check` have in common.
// Unlike the proxy's engine it keeps everything that can be told, and it takes the policy at its
// word.

#include "cli/session_options.h"
#include "policy/analyzer.h"
#include "policy/rule_match.h"
#include "policy/rule_refusal.h"

#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::cli {

struct StatementVerdict {
    const policy::StatementFacts* facts = nullptr;  // into Verdict::analysis
    std::string_view text;                          // the same
    policy::Moment moment;                          // with what the statements before it did
    policy::Outcome outcome;
    policy::Action action = policy::Action::allow;  // as the policy says, observed or not
    const policy::Rule* rule = nullptr;             // null: the default, or `unparsable`
    bool observed = false;                          // the action is noted, not taken
    std::string reason;
    std::string hint;
    policy::Refusal refusal;  // what the client would read
};

struct Verdict {
    policy::AnalysisPtr analysis;
    std::vector<StatementVerdict> statements;

    // The statement whose decision is the strictest, or nullptr where there is none. What is only
    // observed counts as allowed.
    const StatementVerdict* strictest() const;
};

// `policy` must be sealed and must outlive the verdict.
Verdict judge(const policy::Policy& policy, std::string_view sql, const Situation& situation);

// "block"; "limit" of a rule that decides nothing.
std::string_view action_word(const policy::Rule& rule);

std::string decided_by(const StatementVerdict& statement);  // `rule "x"`, `the default`, ...

}  // namespace pgchaperone::cli
