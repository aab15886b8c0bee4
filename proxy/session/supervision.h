#pragma once
// What the session core remembers of supervised statements: those that run in a transaction whose
// effects are counted before it may commit. The ways of it are in supervise.cpp. Private to the
// session core; only sessions that supervise have one.

#include "policy/decision.h"
#include "policy/facts.h"
#include "policy/rule.h"
#include "proxy/session/effects.h"
#include "proxy/session/event.h"
#include "proxy/session/identity.h"
#include "proxy/session/names.h"
#include "proxy/session/outcomes.h"
#include "proxy/session/time_limits.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pgchaperone::session {

// A statement that is counted, and by which terms.
struct Counted {
    policy::AnalysisPtr analysis;  // keeps `facts` alive
    const policy::StatementFacts* facts = nullptr;
    std::shared_ptr<const policy::SuperviseLimits> limits;
    std::string rule;
    policy::AuditDetail audit_detail = policy::AuditDetail::statement;
    bool total = false;        // its effects are read from the server's counters
    bool reads_only = false;   // by its text it writes nothing: one look at the transaction's id
                               // will nearly always do
    bool lite = false;         // of a reading: it is only that look
    bool planning = false;     // and at what its Parse and Bind did
    std::uint64_t number = 0;  // in the audit log; 0: it has left no record there
    StatementHandle bound;     // an Execute's, where its ticket would need the parameters
};
using CountedPtr = std::shared_ptr<const Counted>;

struct Supervision {
    // One statement of a Query, or a FunctionCall.
    struct Piece {
        std::string text;        // empty: the client's own message, as it came
        std::size_t offset = 0;  // characters before it in the client's text
        CountedPtr counted;      // null: not supervised
        std::string command;     // its tag
        policy::TransactionControl control = policy::TransactionControl::none;
        bool chains = false;
        bool copies_in = false;
        bool function_call = false;
        bool changes_settings = false;
        TimedPtr timed;                    // null: it may take its time
        std::uint64_t number = 0;          // in the audit log, where what came of it is told
        std::optional<Followed> followed;  // until it is sent
        // For pgchaperone itself: asked before it is sent, and then null. `text` is what is sent.
        std::shared_ptr<const policy::ChaperoneCall> call;

        bool commits() const {
            return control == policy::TransactionControl::commit ||
                   control == policy::TransactionControl::prepare;
        }
        // What is sent behind it must wait for its reply: the server would take it for data, or
        // its bytes are still on their way.
        bool stands_alone() const { return copies_in || function_call; }
    };

    // What is waited for when all that was sent has been answered.
    enum class Step : std::uint8_t {
        start,       // replies to what came before
        opened,      // BEGIN, where it can't be sent together with the statement
        identified,  // who asks pgchaperone something
        asked,       // and pgchaperone's own answer: nothing is owed by the server meanwhile
        ran,         // a piece, and the reading behind it where there is one
        resynced,    // the Sync after an error in what was injected
        gate,        // the reading before a COMMIT of the client's
        ended,       // our own COMMIT or ROLLBACK before the client's, which has no block to end
        controlled,  // a BEGIN, COMMIT ... of the client's
        last_gate,   // the reading before our own COMMIT
        committed,   // our COMMIT
        undone,      // our ROLLBACK, or the statement that makes the client's block fail
        exceeding,   // who asks, since what it did needs an approval
        retreated,   // our ROLLBACK, before it waits for one
        ticketed,  // a ticket, which it does not wait for: nothing is owed by the server meanwhile
    };

    // A Query or FunctionCall under way, statement by statement.
    struct Unit {
        Step step = Step::start;
        std::vector<Piece> pieces;
        std::size_t at = 0;
        std::size_t message_bytes = 0;  // of the client's message, at the front of what it sent
        bool opening = false;           // our BEGIN is under way
        bool ours = false;        // the open transaction block is ours: to the client there is none
        bool read_total = false;  // some piece in our block had its effects read
        bool read_at_all = false;  // likewise, or it was asked whether anything was written
        bool chained = false;      // COMMIT AND CHAIN is under way: our READ ONLY is to be undone
        bool read_lite = false;    // the reading under way only asks whether anything was written
        bool nothing_else = true;  // all that ran in our block so far was found to write nothing
        bool read_behind = false;  // the piece's reading has been sent
        bool settled = false;      // deferred constraints and triggers have been fired for it
        bool failed = false;       // the client has been told of an error
        bool copy_open = false;    // the server takes COPY data, and the client has not ended it
        std::string withheld;      // the piece's completion, whole messages
        std::string tag;           // of it
        std::string reports;       // ParameterStatus messages that wait for its end
        CountedPtr read_terms;     // of the last piece whose effects were read
        CountedPtr gate_terms;
        unsigned attempts = 0;  // at undoing
        // The client's message stays at the front and what it is shown is kept back, so that all of
        // it can be taken back and run again once it is approved.
        bool keeps = false;
        bool shown = false;  // too much, or too early, to be kept
        Effects effects;     // of all its pieces so far
        std::string kept;
    };

    // An extended-protocol group, from its first message to its Sync.
    struct Group {
        bool supervised = false;  // its Sync, and what else would commit it, waits
        bool total = false;
        bool refused = false;  // the client was told of an error that the server knows nothing of
        bool lock_limited = false;
        bool planned = false;  // something that only reads was, and what that did was not looked at
        CountedPtr planned_by;
        bool failed = false;     // a supervised Execute of it failed
        bool our_block = false;  // we have begun a transaction block in it
        bool leaving = false;    // it was ended, or given to the client, and that is not answered
        bool folded = false;     // the Query behind it runs in that block, and ends it
        bool run_anew = false;   // the Execute at the front runs what was bound anew for it
        bool settled = false;    // what is deferred has been fired and read
        bool copy_due = false;   // the reading of a COPY FROM STDIN is still to come
        std::string withheld;    // the completion of the Execute that is being judged
        std::string tag;         // of it
        CountedPtr last;
        std::vector<std::string> to_close;  // statements that the client can't know of
        // It was refused since an Execute did more than its limits allow, and a ticket is to be
        // opened for it before the client is told.
        enum class Exceeded : std::uint8_t { no, due, identified, retreated, opened };
        Exceeded exceeded = Exceeded::no;
        bool at_gate = false;  // and a message waits at the gate meanwhile
        // The rows of the only Execute, kept back until it is judged: it may be run again.
        bool keeps = false;
        std::string kept;
    };
    // Of the message at the front of what the client sent.
    enum class Gate : std::uint8_t { none, waiting, passed };

    // A Bind that asks pgchaperone something: what it waits for. See answer.cpp.
    enum class Asking : std::uint8_t { nothing, identity, answer };

    Unit unit;
    Group group;
    Asking asking = Asking::nothing;
    std::optional<ChaperoneAnswer> answer;  // to it, or to a piece
    Gate gate = Gate::none;
    bool execute_waits = false;    // it is an Execute that has been judged
    bool gate_reads = false;       // what is deferred has to be fired and read before it may pass
    bool gate_ends_group = false;  // it is a Sync
    bool gate_chains = false;      // it is a COMMIT AND CHAIN
    bool undo_read_only = false;   // our READ ONLY would go on behind it
    bool gate_has_read = false;    // and that was asked of the server
    bool gate_commits = false;     // it is a COMMIT of the client's own block
    policy::AnalysisPtr unit_analysis;
    CountedPtr folded;  // a judged group whose transaction the Query at the front will end

    // Readings. `before` is of the transaction under way, null at its beginning.
    Identity identity;  // filled by the answer to identity_sql; empty it before that is sent
    Reading incoming;
    std::optional<Reading> before;
    std::optional<Reading> accepted;  // up to which all was within limits; of a sticky transaction
    std::uint32_t first_oid = 0;      // the highest oid at the first of all; 0: there was none
    bool fresh = false;     // nothing that could change anything was sent since the last reading
    bool unjudged = false;  // something opaque was: what it did is still to be read
    std::optional<Effects> effects;  // of the last finished reading that was not a first one
    bool unusable = false;           // a reading came that can't be relied on
    bool uncounted = false;          // that was why the last verdict was a refusal
    bool counters_off = false;
    std::string injected_error;  // the whole ErrorResponse for something of ours
    std::string injected_sqlstate;

    // The client's transaction. `since`: the last message of it that was supervised, of a group.
    std::uint64_t since = 0;
    std::uint64_t transaction_rows = 0;
    CountedPtr latest;                // of the last statement that was counted at all
    CountedPtr transaction_terms;     // of the last statement in it that was read; null: none was
    bool transaction_sticky = false;  // it has a cursor on something opaque: whatever runs may run
                                      // that

    // What was done so far by the approval of one ticket.
    std::string approved_ticket;
    Effects approved_effects;

    // Rows changed by this session, for max_rows_per_session.
    std::deque<std::pair<std::chrono::system_clock::time_point, std::uint64_t>> window;
    std::chrono::system_clock::time_point now;
};

}  // namespace pgchaperone::session
