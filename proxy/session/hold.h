#pragma once
// What the session core remembers of a statement that waits for a second person. The ways of it are
// in hold.cpp. Private to the session core; only sessions that have held something have one.

#include "approval/ticket.h"
#include "policy/decision.h"
#include "policy/rule.h"
#include "proxy/session/command.h"
#include "proxy/session/effects.h"
#include "proxy/session/names.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pgchaperone::session {

struct Counted;
using CountedPtr = std::shared_ptr<const Counted>;

// An SQL EXECUTE, or an EXPLAIN or CREATE TABLE AS of one.
bool executes_by_name(const policy::StatementFacts& facts);

// The terms of all statements of a message that are held, together: the strictest of each.
struct HeldTerms {
    approval::Terms approval;
    std::chrono::milliseconds wait{0};
    std::chrono::milliseconds notify_every{0};
    policy::HoldTerms::Evidence evidence = policy::HoldTerms::Evidence::none;
    bool waits_in_transaction = true;
    std::vector<std::vector<std::string>> glass_roles;  // one list per held statement
    bool glass_needs_reason = false;
};

struct Hold {
    enum class Step : std::uint8_t {
        drained,     // replies to what came before
        identified,  // who asks
        claimed,     // TicketClaimed
        tried,       // evidence: the plan, or a trial's statement and readings
        retreated,   // the trial's rollback
        opened,      // TicketOpened
        waiting,     // TicketDecided
    };
    Step step = Step::drained;
    bool looks_only = false;   // for an approval that lies ready; nothing is held
    bool extended = false;     // asks by messages of the extended protocol
    std::uint64_t number = 0;  // in the audit log, of the first that is held
    std::vector<std::pair<std::size_t, std::uint64_t>> numbers;  // of all its statements, by index
    bool quiet = false;     // no transaction is open: nothing of the client's is in its group
    bool in_block = false;  // a transaction of the client's is open
    HeldTerms terms;
    std::string command;
    std::string rule;
    std::string reason;
    std::string binding;
    // Makes the binding that of this run alone, where the text does not say what runs; 0: it does.
    std::uint64_t this_run = 0;
    approval::Request request;
    bool statement_masked = false;  // secrets of its text, or of its parameters, are left out there
    approval::Evidence evidence;
    std::string plan;          // EXPLAIN's answer
    std::string error;         // the server's ErrorResponse for what was tried, whole
    std::ptrdiff_t moved = 0;  // characters from its text to the client's
    CountedPtr trial;          // whose effects are read
    std::string tag;           // of the trial
    std::size_t tried = 0;     // so many of its statements were run
    bool trial_in_block = false;
    bool deferred_failed = false;  // what the trial deferred, and what it tried had run
    unsigned attempts = 0;         // at rolling it back
    bool may_break_glass = false;
    std::string ticket;                   // opened, and waited for
    std::string reclaim;                  // approved: to be claimed
    std::chrono::milliseconds waited{0};  // since the ticket was opened, as the notices count
    long keep_alive_ms = 0;
    StatementHandle bound;  // on_exceed: what was executed
    bool flushed = false;
    policy::Refusal exceeded;  // on_exceed: what the statement did too much

    // 0: it has none.
    std::uint64_t number_of(std::size_t index) const {
        for (const auto& [at, given] : numbers) {
            if (at == index) return given;
        }
        return 0;
    }
};

// A ticket that was claimed, while its statement runs.
struct ClaimedTicket {
    std::string id;
    std::uint64_t sequence = 0;  // of the message that runs it; 0: it has not been sent yet
    StatementHandle bound;       // the portal that is to run by it, of a Bind
    std::string outcome;
    bool failed = false;
    bool secretive = false;  // its text or parameters hold secrets
};

}  // namespace pgchaperone::session
