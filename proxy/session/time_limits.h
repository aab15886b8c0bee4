#pragma once
// How long what runs may run, by the rules: what is under way of it, and which words are said when
// it took too long. The ways of it are in time_limits.cpp. Private to the session core; only
// sessions that have run something with a limit have Clocks.

#include "policy/decision.h"
#include "policy/facts.h"
#include "proxy/session/command.h"

#include <cstddef>
#include <cstdint>
#include <memory>

namespace pgchaperone::session {

// A statement with its limits.
struct Timed {
    policy::TimeLimit statement;
    policy::TimeLimit transaction;
    policy::AnalysisPtr analysis;
    std::size_t index = 0;  // which of its statements
    StatementKind kind = StatementKind::query;
    policy::AuditDetail audit_detail = policy::AuditDetail::statement;
};
using TimedPtr = std::shared_ptr<const Timed>;

// The limits on one statement of the judgement; on the strictest of all of them; null: there are
// none.
TimedPtr timed(const policy::Judgement& judgement, StatementKind kind, std::size_t index);
TimedPtr timed(const policy::Judgement& judgement, StatementKind kind);

struct Clocks {
    // The last message that was sent with a limit on its statement; null: it is over.
    TimedPtr statement;
    std::uint64_t statement_sequence = 0;
    bool running = false;     // the server works on it, and its deadline is set
    TimedPtr expired;         // it is to be cancelled, for this; null: nothing is
    bool cancelling = false;  // and the server has not answered: what is sent now might be hit
    TimedPtr transaction;     // whose limit counts; null: no transaction has one
    std::uint64_t transaction_sequence = 0;  // the last message in it that had one
    bool transaction_due = false;            // it is over as soon as that can be said
};

}  // namespace pgchaperone::session
