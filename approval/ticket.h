#pragma once
// A ticket: a statement that waits for a second person, from its opening to its end. Values, and
// the whole of what may happen to one as pure functions: every store carries them out inside one of
// its transactions, so that two approvers at once, or an approval at the instant of expiry, come
// out one way or the other and never both.
//
//   pending ──approve, often enough──> approved ──claim──> used
//      │                                   │
//      ├──deny──> denied <────deny─────────┤
//      ├──ttl───> expired <───ttl──────────┤
//      └──withdraw──> withdrawn <─withdraw─┘
//
// Moments are whole microseconds, so that what a store gives back is what it was given.
//
// Knows no wire, no clock and no store.

#include <boost/system/result.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::approval {

using Time = std::chrono::system_clock::time_point;

enum class State : std::uint8_t { pending, approved, denied, expired, withdrawn, used };
std::string_view state_name(State state);  // "pending", as people and stores see it
std::optional<State> state_named(std::string_view name);

// Somebody as the server knows them: the role that logged in, whatever SET ROLE or SET SESSION
// AUTHORIZATION have said since.
struct Person {
    std::string role;
    std::uint32_t oid = 0;               // pg_authid.oid; 0: not known
    std::vector<std::string> member_of;  // every role it is a member of, directly or not; its own
                                         // name need not be among them
    std::string upstream =
        {};  // the configured name of the server that knows them: a role of the same
             // name elsewhere is somebody else. Empty where only one is guarded
};
// By name or by object id: a role that was renamed is still the same person. For what one person
// may not do twice or alone.
bool same_person(const Person& one, const Person& other);
// By name and by object id: a role that was dropped and made again is somebody else. For what only
// one person may do.
bool surely_same_person(const Person& one, const Person& other);

struct TableRows {
    std::string table;
    std::uint64_t inserted = 0;
    std::uint64_t updated = 0;
    std::uint64_t deleted = 0;
    bool operator==(const TableRows&) const = default;
};

// What the statement would do. `plan`: the planner's estimate; `trial`: the real effects of a run
// that was rolled back; `counted`: likewise, of a supervised run that exceeded its limits.
struct Evidence {
    enum class Kind : std::uint8_t { none, plan, trial, counted };
    Kind kind = Kind::none;
    std::vector<TableRows> tables;             // most rows first
    std::vector<std::string> catalog_changes;  // "pg_proc"
    std::vector<std::string> exclusive_locks;  // "public.orders"
    std::vector<std::string> foreign_writes;
    std::string text;  // plan: EXPLAIN's words; none: why there is none, or empty
    bool operator==(const Evidence&) const = default;
    // It was counted, so it limits what the approved run may do.
    bool binds() const { return kind == Kind::trial || kind == Kind::counted; }
    // "48,210 rows of public.orders and 2 other tables", "about 48,210 rows of orders"; "" where
    // nothing is known.
    std::string summary() const;
};
std::string_view evidence_name(Evidence::Kind kind);

// Who may decide.
struct Terms {
    // Role names with `*` and `?`. Who decides has to be (a member of) one of every list; no list
    // at all: nobody may.
    std::vector<std::vector<std::string>> approvers;
    unsigned approvals = 1;  // so many different people
    bool allow_self = false;
    std::chrono::milliseconds ttl{30 * 60'000};
    bool operator==(const Terms&) const = default;
};
bool may_decide(const Terms& terms, const Person& person);
// Whether an approval under `given` is enough for `wanted`: the policy may have become stricter
// since. So it is when nobody may decide now who might not have decided then, no more people have
// to agree, and nobody agreed alone who may not do so now. The ttl is left to claimable().
bool suffices(const Terms& given, const Terms& wanted);

// What a session asks for. An approval is bound to `binding`: the hash of the statement's bytes,
// parameter values, user, database and of the settings that give the text its meaning.
struct Request {
    std::string binding;  // SHA-256 in hexadecimal
    Person requester;
    std::string database;
    std::string client;  // address
    std::string application;
    std::uint64_t session = 0;
    std::string command;    // "UPDATE"
    std::string statement;  // as sent, without its secrets, up to statement_bytes_max
    bool statement_cut = false;
    std::vector<std::optional<std::string>> parameters;  // likewise, as people can read them
    std::string settings;                                // likewise: "search_path=public role=none"
    std::string rule;
    std::string reason;
    Terms terms;
    Evidence evidence;
    std::chrono::milliseconds wait{0};  // how long its session waits; 0: it does not
    // Not empty: the glass is broken, and this is why. The ticket is made used; nobody is asked.
    bool glass = false;
    std::string glass_reason;
};
inline constexpr std::size_t statement_bytes_max = 1024 * 1024;

struct Vote {
    std::string role;
    std::uint32_t oid = 0;
    bool approve = false;
    std::string comment;
    Time at;
    bool operator==(const Vote&) const = default;
};

struct Ticket {
    std::string id;  // "K7": short, readable, not used again
    State state = State::pending;
    Request request;
    std::string replica;  // of the proxy whose session asked
    Time opened;
    Time expires;
    // Until then its own session waits and nobody else may claim it; no later than `opened` once
    // that has given up. So a proxy that dies leaves its tickets usable.
    Time held_until;
    std::vector<Vote> votes;
    std::optional<Time> ended;  // when it came to denied, expired, withdrawn or used
    std::string ended_by;       // who denied or withdrew it: a role, or "disconnected" and the like
                                // where the proxy did it for its requester
    std::string comment;        // of the decision that ended it, or why it was withdrawn
    std::string outcome;        // of the run, once it is over: "UPDATE 5", "failed: ..."; may stay
                                // empty where the proxy died

    unsigned approvals() const;
    bool open() const { return state == State::pending || state == State::approved; }
    bool waiting(Time now) const { return open() && held_until > now; }
    // "bob", "bob, carol": who approved, or who denied it; "" where nobody has.
    std::string decided_by() const;
    bool operator==(const Ticket&) const;
};

// Ids are a letter and a number, made of the count of tickets that the store has opened: 1 is "B1",
// 2 is "C1"; after a round of 23 letters the number goes up. The letters leave out I, L and O. The
// count never goes back, so no id comes twice. `number` > 0.
std::string id_of(std::uint64_t number);
// The number again; nothing where this is no id. The letter may be small, and blanks around it do
// not count.
std::optional<std::uint64_t> number_of(std::string_view id);

// Why something could not be done, for people and as SQLSTATE.
enum class Problem : std::uint8_t {
    unknown_ticket,   // 42704: there is none of this id, or not for this person's eyes
    not_allowed,      // 42501: who asks is none of those who may
    own_ticket,       // 42501: the requester can't approve
    already_decided,  // 55000: denied, expired, withdrawn or used
    already_voted,    // 55000: this person has approved it before
    changed_since,    // 55000: it is not any more what who decides has looked at
    store_failed,     // 58030: the store can't be read or written
};
struct Failure {
    Problem problem = Problem::store_failed;
    std::string text;  // for people, a whole sentence without the final stop
    std::string hint;
};
std::string_view sqlstate(Problem problem);
// Problem::unknown_ticket, for an id as somebody has written it.
Failure no_such_ticket(std::string_view id);
template <class T>
using Result = boost::system::result<T, Failure>;
[[noreturn]] void throw_exception_from_error(const Failure& failure,
                                             const boost::source_location& location);

// --- What may happen to a ticket. Each takes it as it is, at a moment, and gives it as it becomes;
// a failure leaves it as it was. All of them first let it expire if its time has come.

Ticket opened(Request request, std::string id, std::string replica, Time now);
Ticket expired_by(Ticket ticket, Time now);
// What becomes of `ticket` when `request` is made while it is there: taken up again instead of a
// new one, or nothing. It is taken up when it is open, asked for by the same person with the same
// binding, no other session waits for it, and its terms suffice. What people have voted on stays
// as they saw it, its evidence included: where that limits the run and is another now, a new ticket
// is needed. What nobody has voted on yet is as if opened now.
std::optional<Ticket> taken_up(const Ticket& ticket, const Request& request, std::string replica,
                               Time now);
// An approver may take back what was approved as long as it has not run: a denial of an approved
// ticket counts.
// For somebody whom another server knows there is no such ticket.
Result<Ticket> voted(Ticket ticket, const Person& by, bool approve, std::string comment, Time now);
// By its requester (any session of theirs), or by the proxy for them, `comment` saying why
// ("disconnected"): `by` null.
Result<Ticket> withdrawn(Ticket ticket, const Person* by, std::string comment, Time now);
// Its session waits no longer; the ticket stays open.
Ticket released(Ticket ticket, Time now);
Ticket finished(Ticket ticket, std::string outcome);

// Takes an approval: once.
struct Claim {
    std::string binding;
    Person requester;
    Terms terms;         // those that the policy asks for now
    std::string ticket;  // the one that the claiming session waits for; empty: any that is free
};
// Whether this ticket is what the claim may take now: approved, not expired (by the ttl of now
// either), bound to the same, not held by another session, and under terms that suffice.
bool claimable(const Ticket& ticket, const Claim& claim, Time now);
// Why it is not, for the session that waits for this one.
Failure why_not_claimable(const Ticket& ticket, const Claim& claim, Time now);
Ticket claimed(Ticket ticket, Time now);  // claimable() must hold

// Who may see all of a ticket: its requester, and who may decide on it; both at its own server.
bool may_see(const Ticket& ticket, const Person& person);

}  // namespace pgchaperone::approval
