#pragma once
// What the policy says of a statement: the decision and the words for the client. Values only.

#include "policy/facts.h"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::policy {

// `answer`: pgchaperone answers it itself (StatementFacts::chaperone), whatever the rules say.
enum class Action : std::uint8_t { allow, block, supervise, hold, answer };
std::string_view action_name(Action action);  // "allow", as in the policy and the audit log

// How much of a statement its records show. Where it was simply allowed, `statement` leaves out
// what the text holds of literals.
enum class AuditDetail : std::uint8_t { decision, statement, parameters };

struct SuperviseLimits;  // policy/rule.h
struct HoldTerms;        // policy/rule.h

// What a client is told of a refusal: the fields of an ErrorResponse, UTF-8, without the severity.
struct Refusal {
    std::string sqlstate = "42501";  // insufficient_privilege
    std::string message;
    std::string detail;
    std::string hint;
    std::string reason{};  // for records: why, without the rule's name; empty: the message says it
};

// How long something may take by the word of a rule.
struct TimeLimit {
    std::chrono::milliseconds after{0};  // 0: as long as it likes
    std::string rule;
    explicit operator bool() const { return after.count() > 0; }
};

struct Decision {
    Action action = Action::allow;
    std::string rule;       // name of the rule that decided; empty: the policy's default
    bool observed = false;  // `mode: observe`: the action is logged but not taken; treat as allow
    bool audit = false;     // leave a record even though it is allowed
    AuditDetail audit_detail = AuditDetail::statement;  // of any record
    bool depends_on_moment = false;  // may come out otherwise at another time or in another state:
                                     // judge again
    Refusal refusal;  // filled for block (and, as what to say when nobody approves, for hold)
    std::shared_ptr<const SuperviseLimits>
        supervise;                          // the terms of `supervise`; lives on after a reload
    std::shared_ptr<const HoldTerms> hold;  // the terms of `hold`
    TimeLimit statement_timeout;            // of the statement, as it runs
    TimeLimit transaction_timeout;          // of the transaction that it runs in
};

// The answer for one Query or Parse text.
struct Judgement {
    AnalysisPtr analysis;
    std::uint64_t policy_version = 0;
    // One per statement of the analysis, in order. Empty: every statement is plainly allowed, at
    // any moment and without a record: the fast path.
    std::vector<Decision> decisions;

    bool plainly_allowed() const { return decisions.empty(); }
    // Of the statement that decision `index` is about; null: nothing is known of it.
    const StatementFacts* facts(std::size_t index) const {
        return analysis && index < analysis->statements.size() ? &analysis->statements[index]
                                                               : nullptr;
    }
};

}  // namespace pgchaperone::policy
