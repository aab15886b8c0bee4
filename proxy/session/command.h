#pragma once
// What the session core wants its host to do. The core has no socket, clock, thread or file:
// everything that reaches the world is one of these values, taken with Session::next() in order,
// and carried out before the session is called again.

#include "approval/ticket.h"
#include "audit/record.h"
#include "policy/session_facts.h"
#include "proxy/session/event.h"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace pgchaperone::session {

// Bytes for one side. Either `owned` holds them, or `view` points into the chunk that the host gave
// with the last event of that direction, and is valid until the session is called again.
struct Bytes {
    std::string owned;
    std::string_view view;
    std::string_view bytes() const { return owned.empty() ? view : std::string_view(owned); }
};

struct SendToClient {
    Bytes data;
};
struct SendToServer {
    Bytes data;
};

// Which server has the database that facts() name? Answered by UpstreamFound.
struct FindUpstream {};

// Open the connection to the upstream, TLS included where it is configured. Answered by Event
// Connected.
struct Connect {
    bool cancels = false;  // for a CancelRequest, which no limit stops
};

// Start TLS with the client as its server. `direct`: the client's first byte was a TLS handshake's,
// so ALPN is mandatory, and the bytes received so far are given back as `received`. Otherwise
// nothing may have been received yet. Everything sent before this command goes out in clear.
// Answered by ClientTlsReady.
struct StartTls {
    bool direct = false;
    std::string received;
};

// `bind`: a Bind of a statement that is held, judged before it is carried out, since planning it
// runs functions.
enum class StatementKind : std::uint8_t { query, parse, bind, execute, function_call };

// Ask the policy. Answered by Verdict, at once or later; meanwhile no further client message is
// looked at. `sql` is valid until the session's next event: a host that answers later copies it.
struct Judge {
    StatementKind kind = StatementKind::query;
    std::string_view sql;  // query, parse: the text, without its terminating NUL
    std::size_t
        oversized_bytes = 0;  // not 0: the text is longer than the core keeps, `sql` its beginning
    // bind, execute: what was analysed at Parse; null: not known. query, parse: null, or what was
    // analysed a moment ago, joined by what its statements run by name.
    policy::AnalysisPtr analysis;
    bool once = false;               // nobody keeps the analysis: it need not be remembered
    std::uint32_t function_oid = 0;  // function_call
    policy::LexicalSettings lexical;
    const std::vector<policy::RelationName>* own_tables = nullptr;  // see Moment; never null, ours
    const policy::NameDoubts* name_doubts = nullptr;                // likewise
    const std::optional<std::vector<std::string>>* search_path = nullptr;  // likewise
    bool in_transaction = false;
    bool in_implicit_block = false;  // an extended-protocol pipeline has run something before this
};

// Put these on disk, then answer with AuditStored. The host fills `time`.
struct StoreAudit {
    std::vector<audit::Record> records;
    bool awaited = true;  // false: no answer is wanted
};

// Answer with Event Deadline when this much time has passed. One of each kind at a time; a new one
// replaces it.
struct SetDeadline {
    DeadlineKind kind = DeadlineKind::login;
    std::chrono::milliseconds after{0};  // login, linger: the host's own settings count instead
};
struct ClearDeadline {
    DeadlineKind kind = DeadlineKind::login;
};

// Look for an approved ticket and take it. Answered by TicketClaimed.
struct ClaimTicket {
    approval::Claim claim;
};

// Open a ticket and watch it. Answered by TicketOpened; then, unless the session releases or
// withdraws it first, by TicketDecided once.
struct OpenTicket {
    approval::Request request;
};

// The session waits for it no longer; it stays open. Not answered.
struct ReleaseTicket {
    std::string id;
};

// The requester does not want it any more. Not answered.
struct WithdrawTicket {
    std::string id;
    std::string why;
};

// What became of the run of a ticket that this session has claimed. Not answered.
struct FinishTicket {
    std::string id;
    std::string outcome;
};

// A question or an order to pgchaperone itself (SHOW chaperone.…, CALL chaperone.…). Answered by
// ChaperoneAnswer.
struct AskChaperone {
    std::shared_ptr<const policy::ChaperoneCall> call;
    std::vector<std::optional<std::string>> arguments;  // values, parameters filled in; UTF-8 as
                                                        // far as the client speaks it
    approval::Person person;
};

// A CancelRequest came with this key (the whole of what follows the code: process id and secret).
// Is it that of a session which is held here? Answered by CancelTaken.
struct FindCancelled {
    std::string key;
};

// The server gave this session a cancel key, as above.
struct KnowCancelKey {
    std::string key;
};

// Send a CancelRequest with this key to the server. Answered by ServerCancelled once the server has
// closed that connection, as it does when it has seen to it, or when nothing comes of it. Carried
// out even where the session is closed meanwhile.
struct CancelServer {
    std::string key;
};

// The client will send nothing more: tell the server so (half-close) once everything is sent.
struct ShutdownServer {};

// Of a connection that was never logged in: why it came to nothing, for the host to count.
enum class Ending : std::uint8_t {
    ordinary,  // it was logged in, or its client left by itself, or asked to cancel something
    startup,   // what came was no acceptable beginning
    timeout,
    unanswered,  // likewise, and it was the server that was waited for
    upstream,    // there is no connection to the server
    limit,       // there are too many
    login,       // the server refused it, or it can't pass through
};

// Send what is waiting for the client and the server, then close both connections. Nothing comes
// after it.
struct Close {
    std::string reason;  // for the log
    Ending ending = Ending::ordinary;
};

// A session's milestones and troubles, for the host's log; no statement text.
enum class LogLevel : std::uint8_t { debug, info, warning };
struct Log {
    LogLevel level = LogLevel::info;
    std::string text;
};

using Command = std::variant<
    SendToClient, SendToServer, FindUpstream, Connect, StartTls, Judge, StoreAudit, SetDeadline,
    ClearDeadline, ClaimTicket, OpenTicket, ReleaseTicket, WithdrawTicket, FinishTicket,
    AskChaperone, FindCancelled, KnowCancelKey, CancelServer, ShutdownServer, Close, Log>;

}  // namespace pgchaperone::session
