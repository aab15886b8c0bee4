#pragma once
// What the host tells the session core. See Session::handle.

#include "approval/ticket.h"
#include "policy/decision.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::session {

class Users;

// Bytes received. They must stay where they are until next() has returned nothing. Not empty.
struct ClientBytes {
    std::string_view bytes;
};
struct ServerBytes {
    std::string_view bytes;
};

// The upstream connection stands, or not: then `error` says which address failed and why, for the
// client.
struct Connected {
    bool ok = false;
    std::string error;
    bool tls = false;
    std::string peer_endpoint_hash;  // RFC 5929 tls-server-end-point of the server's certificate
    // There are too many sessions for this one: what the client is told. Then there is no
    // connection.
    std::optional<policy::Refusal> denied = std::nullopt;
};

// The handshake that StartTls asked for is done (its failure closes the connection without the
// core).
struct ClientTlsReady {
    std::string
        own_endpoint_hash;  // tls-server-end-point of our certificate, as the client computes it
    std::string peer_common_name;  // of the client's certificate, if it sent one
};

struct Verdict {
    policy::Judgement judgement;
    std::chrono::system_clock::time_point at{};  // when it was made
    // An approved ticket may lie ready for something that this role wants to run here: see
    // approval::Desk::may_be_approved.
    bool may_be_approved = false;
};

struct AuditStored {
    bool ok = false;
    std::string error;  // why not, for people
};

// Answers ClaimTicket.
struct TicketClaimed {
    approval::Result<std::optional<approval::Ticket>> answer{std::nullopt};
};

// Answers OpenTicket.
struct TicketOpened {
    approval::Result<approval::Ticket> answer{approval::Failure{}};
};

// The ticket that this session waits for was approved, denied, withdrawn by others or expired.
struct TicketDecided {
    approval::Ticket ticket;
};

// How long a client may do nothing, outside of a transaction block and in one; 0: for ever. As
// Upstream has it at the beginning, and where that changes.
struct IdleLimits {
    std::chrono::milliseconds outside{0};
    std::chrono::milliseconds in_transaction{0};
    bool operator==(const IdleLimits&) const = default;
};

enum class Authentication : std::uint8_t { passthrough, password, users };

// A server that is guarded, as far as a session with it needs to know.
struct Upstream {
    std::string name;  // as it is configured; empty: it has none
    Authentication authentication = Authentication::passthrough;
    std::shared_ptr<const Users> users;  // Authentication::users; null elsewhere
    IdleLimits idle;
    std::string environment;  // what a client is told that this is; UTF-8; empty: nothing
};

// Answers FindUpstream. Nothing: the database is none of those that are served.
struct UpstreamFound {
    std::optional<Upstream> upstream;
};

// Answers AskChaperone: rows for the columns of that question (virtual_schema.h), as a JSON array
// of objects in UTF-8; or why not.
struct ChaperoneAnswer {
    std::string rows;
    std::optional<policy::Refusal> refusal;
};

// A CancelRequest with this session's key has come. See Session::handle.
struct CancelAsked {};

// Answers CancelServer: the server has seen it, or can't be reached any more. What is sent to it
// from now on is not hit.
struct ServerCancelled {};

// Answers FindCancelled.
struct CancelTaken {
    bool taken = false;  // the session was held, and has been told: the server need not know
};

// The other side sent end-of-file, or its connection broke.
struct ClientClosed {
    bool broken = false;
};
struct ServerClosed {
    bool broken = false;
};

// Time is the host's: it is told what to measure (SetDeadline) and says when it has passed.
enum class DeadlineKind : std::uint8_t {
    login,        // from the connection to the first ReadyForQuery
    linger,       // the other side should have closed the connection by now
    held,         // a held statement waits no longer
    notice,       // its client is told again that it waits
    keep_alive,   // its server's connection is used, so that no timeout for idle ones ends it
    idle,         // the client has done nothing for as long as it may
    statement,    // what runs has run for as long as it may
    transaction,  // its transaction has been open for as long as it may
};
inline constexpr std::size_t deadline_kinds = 8;
struct Deadline {
    DeadlineKind kind = DeadlineKind::login;
};

}  // namespace pgchaperone::session
