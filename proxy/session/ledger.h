#pragma once
// The reply ledger: a FIFO of what the server still owes for the messages that it was sent, so that
// every reply is known by the message that it answers. It mirrors the server's own rules
// (PostgreSQL's tcop/postgres.c and commands/copyfromparse.c): after an error in the extended
// protocol everything up to Sync is dropped, a simple Query included; an error in a simple Query or
// FunctionCall starts no skipping; while the server reads COPY data it ignores Sync and Flush.
//
// Knows message tags, not bytes. NoticeResponse, NotificationResponse and ParameterStatus live
// outside it.
//
// Invariant: entries stand in the order in which their messages were sent; sequence numbers only
// grow.

#include "policy/decision.h"

#include <boost/circular_buffer.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::session {

enum class Owed : std::uint8_t {
    query,               // replies up to and with ReadyForQuery
    function_call,       // FunctionCallResponse or ErrorResponse, then ReadyForQuery
    parse,               // ParseComplete
    bind,                // BindComplete
    describe_statement,  // ParameterDescription, then RowDescription or NoData
    describe_portal,     // RowDescription or NoData
    execute,   // rows or COPY, up to CommandComplete, EmptyQueryResponse or PortalSuspended
    close,     // CloseComplete
    sync,      // ReadyForQuery
    copy_end,  // nothing: marks where the client sent CopyDone or CopyFail
};

// What the client gets to see of the replies to an entry.
enum class Disposition : std::uint8_t {
    forward,  // the client's own: everything, as it came
    swallow,  // ours: nothing
    replace,  // a refusal: our ErrorResponse in place of the server's
};

// What an entry is to supervision; see supervise.cpp.
enum class Role : std::uint8_t {
    client,      // nothing: the client's own, or a refusal
    ours,        // injected: nobody sees its replies
    reading,     // injected: its rows are a reading of effects
    identity,    // injected: its rows say who asks; see identity.h
    plan,        // injected: EXPLAIN of a statement that is held
    trial,       // injected: a statement that is held, run to see what it does and taken back
    settle,      // injected: COMMIT or SET CONSTRAINTS, whose notices and errors are the client's
    piece,       // a statement of the client's in a transaction of ours: its completion and its
                 // ReadyForQuery wait
    counted,     // a supervised Execute: its completion is checked, or waits for the reading
    substitute,  // injected to fail, so that the transaction does
    adopts,      // the client's BEGIN in a block of ours, which is the client's from there on: it
                 // is not told that there is one already
};

struct PreparedStatement;
struct Counted;

// What an entry carries besides its kind; most carry nothing.
struct Extra {
    policy::Refusal refusal;  // replace: what the client is told instead
    std::string name;         // parse, bind, close: the statement's or portal's name
    std::shared_ptr<const PreparedStatement>
        previous;                  // parse, close: what stood under the name before
    bool names_portal = false;     // bind, close of a portal
    bool hides_parameter = false;  // describe_statement: the last parameter is not the client's
    // execute: what it may do. A reading's: which statement's it is; null: the first of all.
    std::shared_ptr<const Counted> counted;
};

struct Entry {
    Owed owed = Owed::query;
    Disposition disposition = Disposition::forward;
    Role role = Role::client;
    bool copying_in = false;  // the server has asked for COPY data and not ended the COPY
    bool errored = false;  // query, function_call, sync: the error has come, ReadyForQuery has not
    bool unsure = false;   // sent while the server may have been reading COPY data: it may have
                           // ignored it
    std::uint64_t sequence = 0;
    std::unique_ptr<Extra> extra;
};

// What a server message turned out to be.
struct Reply {
    enum class Kind : std::uint8_t {
        part,         // belongs to the front entry, which still owes more
        done,         // belongs to `entry`, which is now settled and gone from the ledger
        unsolicited,  // nothing was owed: an error before the server ends the connection
        impossible,   // not a reply to what is owed: server and ledger disagree
    };
    Kind kind = Kind::part;
    Disposition disposition = Disposition::forward;
    Role role = Role::client;
    Owed owed = Owed::query;
    bool first_error = false;      // an ErrorResponse that settles or fails the entry
    bool failed = false;           // an error came before this ReadyForQuery, in the same entry
    bool synced = false;           // ReadyForQuery for a query, function_call or sync of the client
    std::uint64_t sequence = 0;    // of the entry that the reply belongs to
    std::unique_ptr<Extra> extra;  // of that entry, for a settled or failed one
};

class Ledger {
public:
    // A client that sends without reading can make the server owe at most this many replies; past
    // it the client is not read until some are settled.
    static constexpr std::size_t entries_max = 65'536;

    Ledger();

    // Called for every entry of the extended protocol that failed, and for every one that an error
    // made the server skip: what they were to do has not been done.
    using Undone = std::function<void(Entry&)>;
    void on_undone(Undone undone) { undone_ = std::move(undone); }

    // Records a message that is being sent to the server. Returns its sequence number. While
    // skipping() only a sync may be added: the server ignores everything else.
    std::uint64_t sent(Owed owed, Disposition disposition = Disposition::forward,
                       std::unique_ptr<Extra> extra = nullptr, Role role = Role::client);

    // Takes the tag of a message from the server that is not a notice, a notification or a
    // ParameterStatus. `protocol_violation`: an ErrorResponse with SQLSTATE 08P01, which a message
    // that does not belong into a COPY makes the server send while it swallows that message.
    Reply received(char tag, bool protocol_violation = false);

    // The disposition of what the next message from the server belongs to.
    Disposition front_disposition() const;
    Role front_role() const;
    std::shared_ptr<const Counted> front_counted() const;
    bool front_hides_parameter() const;
    // The client was told of an error that the server does not know of: it sees nothing more of
    // what is owed now, until the next Sync. Returns the names of statements whose Parse is among
    // it.
    std::vector<std::string> hide_rest();
    // Of what is owed now the client would see something.
    bool owes_client() const;
    // A ReadyForQuery is owed, so the transaction's state is not known yet.
    bool owes_ready() const;
    // The first of the client's that runs something; null: there is none. What stands before it
    // takes no time, or is ours.
    const Entry* running() const;
    // What the Parses and Closes that are still owed have taken this name from: each may yet turn
    // out to have it.
    std::vector<std::shared_ptr<const PreparedStatement>> replaced(std::string_view name) const;
    const Entry* front() const { return entries_.empty() ? nullptr : &entries_.front(); }

    // An error has come in the extended protocol and no Sync is on its way: the server ignores
    // everything until one comes.
    bool skipping() const { return skipping_; }
    // The front entry reads COPY data and the client has not ended them.
    bool copy_in_open() const;
    bool empty() const { return entries_.empty(); }
    bool idle() const;  // nothing is owed that surely comes
    // Nothing is in flight that could change anything: only Parse, Bind, Describe and Close.
    bool nothing_runs() const;
    std::size_t size() const { return entries_.size(); }
    bool full() const { return entries_.size() >= entries_max; }
    std::uint64_t last_sequence() const { return sequence_; }

private:
    Entry& push(Entry entry);
    Entry pop();
    void drop(std::size_t index);
    void pop_markers();
    Reply settle(bool error);
    Reply part(Disposition disposition) const;
    Reply fail_extended();
    Reply failed_in_copy(bool protocol_violation);
    Reply ready_for_query();
    void start_copy_in();
    void finish_copy_in();

    boost::circular_buffer<Entry> entries_;
    Undone undone_;
    std::uint64_t sequence_ = 0;
    bool skipping_ = false;
};

}  // namespace pgchaperone::session
