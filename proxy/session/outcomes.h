#pragma once
// What came of statements that leave a record: what the server said to each, how long it took, and
// whether its transaction was committed. Told by the server's own words alone: command tags, errors
// and the status in ReadyForQuery, of everything that is sent, ours as well. Knows no bytes and no
// clock: the time is that of the event under way, as the session was told it.
//
// A statement outside of a transaction block is told of when its transaction is over, with that. In
// a block it is told of when it is done, with the block's number; the block's end is told by
// itself.
//
// Memory: what the ledger holds, and ended_max statements that wait for their transaction's end.

#include "audit/record.h"
#include "policy/decision.h"
#include "proxy/session/command.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::session {

// A statement with a record of its decision, which lets it run.
struct Followed {
    std::uint64_t number = 0;  // in its session
    std::size_t index = 0;     // among those of its message
    StatementKind kind = StatementKind::query;
    policy::Action decision = policy::Action::allow;
    bool observed = false;
    // Outside of a block it commits what it does by itself, whatever comes behind it.
    bool commits_itself = false;
    std::uint32_t row_limit = 0;  // of its Execute; 0: none
    std::uint64_t fingerprint = 0;
    std::string rule;
    std::string command;
};

class Outcomes {
public:
    using Time = std::chrono::steady_clock::time_point;
    // So many wait for the end of an implicit transaction; then they are told of as of a block.
    static constexpr std::size_t ended_max = 64;

    // Nothing is followed and nothing is to be told: replies need not be shown.
    bool idle() const { return sent_.empty() && ended_.empty() && transaction_ == 0; }
    // To be told before whatever is to be timed.
    void time(Time now) { now_ = now; }

    // It is being sent, as (a part of) the message with this sequence number.
    void sent(Followed statement, std::uint64_t sequence);
    // It never will be. `sqlstate`: since the server told of this error; empty: for another reason.
    void not_run(Followed statement, std::string_view sqlstate = {});

    // Replies, in their order, by the sequence numbers of the messages that they answer.
    // `ours`: to something that was injected.
    void completed(std::uint64_t sequence, std::string_view tag, bool ours);
    void suspended(std::uint64_t sequence);
    void failed(std::uint64_t sequence, std::string_view sqlstate);
    // `held`: the open transaction block is ours, and will soon be over.
    void ready(std::uint64_t sequence, char status, bool held);
    // The connection to the server is lost. `nothing_owed`: so what was open was rolled back.
    void lost(bool nothing_owed);

    bool has_news() const { return !news_.empty(); }
    // Records without what is known of the session.
    std::vector<audit::Record> take_news();

private:
    struct Sent {
        Followed statement;
        std::uint64_t sequence = 0;
        Time at;
    };
    struct Ended {
        audit::Record record;
        bool commits_itself = false;
    };

    // A ROLLBACK that may have ended the transaction, or gone back to a savepoint: the next
    // ReadyForQuery tells.
    enum class Rollback : std::uint8_t { none, ours, clients };

    void see(std::uint64_t sequence);
    std::optional<Sent> take_next(std::uint64_t sequence);
    void done(Sent one, std::string_view outcome, audit::Done done);
    bool open() const { return !ended_.empty() || transaction_ != 0; }
    void transaction_ended(std::string_view how);
    void tell_of_block();

    std::deque<Sent> sent_;     // and not answered
    std::vector<Ended> ended_;  // done, in a transaction that is not known to be over
    std::vector<audit::Record> news_;
    Time now_{};
    // The message that is being answered, and how many of its statements have been.
    std::uint64_t answered_ = 0;
    std::size_t answered_statements_ = 0;
    std::string last_error_;  // its SQLSTATE
    // The block that some were told to be in; 0: none.
    std::uint64_t transaction_ = 0;
    std::uint64_t transaction_statements_ = 0;
    std::uint64_t last_transaction_ = 0;
    // Of the transaction under way, where something of it is open.
    bool error_ = false;  // the server has told of one since the last ReadyForQuery
    Rollback rollback_ = Rollback::none;
    std::size_t before_rollback_ = 0;  // so many of ended_ stood before that
    bool in_part_ = false;             // the client went back to a savepoint
};

}  // namespace pgchaperone::session
