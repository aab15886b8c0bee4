#pragma once
// Which rule of a policy decides a statement. Pure: facts, session and moment in, the rule's number
// out; no cache, no text for people except in explain().
//
// What is true of a part of a statement only, or what a name may or may not mean, is `maybe`. A
// rule that restricts applies then, a rule that allows does not: a DELETE inside a SELECT is caught
// by `command: DELETE` with block, and is not let through by `command: SELECT` with allow. Of a
// statement that could not be read nothing is known: only rules that hold whatever it is apply to
// it.

#include "policy/rule.h"
#include "policy/session_facts.h"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::policy {

// The answers to a policy's session conditions for one session: as long as neither changes, neither
// do they.
using SessionAnswers = std::vector<bool>;
SessionAnswers answer_session_conditions(const Policy& policy, const SessionFacts& session);

// Answers to a policy's time conditions, by their number, each with the time up to which it holds.
using TimeAnswers = std::vector<TimeWindow::Answer>;

struct Subject {
    const StatementFacts& facts;
    std::string_view text;  // of this statement alone
    const SessionFacts& session;
    const Moment& moment;
};

// What of the moment an evaluation has looked at: as long as that is the same, the outcome is the
// same.
struct MomentUse {
    bool transaction = false;  // Moment::in_transaction
    bool search_path = false;
    bool own_tables = false;
    bool time = false;
    TimeWindow::Time from = TimeWindow::Time::min();   // the outcome holds from here
    TimeWindow::Time until = TimeWindow::Time::max();  // and before here
    bool any() const { return transaction || search_path || own_tables || time; }
};

struct Outcome {
    static constexpr int by_default = -1;
    static constexpr int unparsable = -2;
    int rule = by_default;       // which rule decides, from 0, or one of the constants above
    int observed = -1;           // the first rule under `observe` that would have decided something
    int statement_limit = -1;    // the first rule that says how long the statement may take
    int transaction_limit = -1;  // likewise, the transaction
    MomentUse used;
    bool depends_on_moment() const { return used.any(); }

    const RuleAction& action(const Policy& policy) const;
};

// `policy` must be sealed. `session_answers` are those of the subject's session. `times` may be
// null; else it has one entry per time condition and is refreshed where it is out of date.
Outcome evaluate(const Policy& policy, const Subject& subject,
                 const SessionAnswers& session_answers, TimeAnswers* times);

// Why a rule applies or not, for people.
struct RuleTrace {
    const Rule* rule = nullptr;
    bool applies = false;
    bool reached = true;  // an earlier rule has not decided already
    std::string
        because;  // the conditions that held, or the first that did not, with what was found
};
std::vector<RuleTrace> explain(const Policy& policy, const Subject& subject);

}  // namespace pgchaperone::policy
