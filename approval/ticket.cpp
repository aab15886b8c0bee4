#include "approval/ticket.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <stdexcept>
#include <tuple>
#include <utility>

namespace pgchaperone::approval {
namespace {

// What people write into a ticket is kept up to here.
constexpr std::size_t comment_bytes_max = 4096;

// Cut at a character's beginning where the text is UTF-8.
void cut(std::string& text, std::size_t bytes_max) {
    if (text.size() <= bytes_max) return;
    std::size_t end = bytes_max;
    while (end > bytes_max - 4 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    text.resize(end);
}

Time whole(Time time) { return std::chrono::floor<std::chrono::microseconds>(time); }

// A span from a policy may be longer than the clock can count.
Time later(Time from, std::chrono::milliseconds span) {
    using std::chrono::milliseconds;
    const auto room = std::chrono::floor<milliseconds>(whole(Time::max()) - from);
    if (span > room) return whole(Time::max());
    return from + std::max(span, milliseconds(0));
}

// `*` stands for any run of bytes and `?` for one, as in the policy's conditions.
bool matches(std::string_view pattern, std::string_view text) {
    std::size_t p = 0, t = 0;
    std::size_t star = std::string_view::npos, resume = 0;
    while (t < text.size()) {
        if (p < pattern.size() && pattern[p] == '*') {
            star = p++;
            resume = t;
        } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
            ++p;
            ++t;
        } else if (star != std::string_view::npos) {
            p = star + 1;
            t = ++resume;
        } else {
            return false;
        }
    }
    while (p < pattern.size() && pattern[p] == '*') ++p;
    return p == pattern.size();
}

bool matches_one(const std::vector<std::string>& patterns, const Person& person) {
    return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
        return matches(pattern, person.role) ||
               std::any_of(person.member_of.begin(), person.member_of.end(),
                           [&](const std::string& role) { return matches(pattern, role); });
    });
}

std::uint64_t sum(std::uint64_t a, std::uint64_t b) {
    return b > std::numeric_limits<std::uint64_t>::max() - a
               ? std::numeric_limits<std::uint64_t>::max()
               : a + b;
}

std::string grouped(std::uint64_t number) {
    std::string digits = std::to_string(number);
    for (std::size_t at = digits.size(); at > 3;) digits.insert(at -= 3, 1, ',');
    return digits;
}

std::string listed(const std::vector<std::string>& words) {
    std::string text = words.front();
    if (words.size() == 2) text += " and " + words.back();
    if (words.size() > 2) text += " and " + std::to_string(words.size() - 1) + " others";
    return text;
}

// Who votes is at the ticket's own server.
Person voter(const Vote& vote, const Ticket& ticket) {
    return {.role = vote.role,
            .oid = vote.oid,
            .member_of = {},
            .upstream = ticket.request.requester.upstream};
}

bool elsewhere(const Ticket& ticket, const Person& person) {
    return ticket.request.requester.upstream != person.upstream;
}

Failure own_ticket(const Ticket& ticket, bool approve) {
    return {Problem::own_ticket,
            approve
                ? "ticket " + ticket.id + " is your own, and it takes a second person to approve it"
                : "ticket " + ticket.id + " is your own",
            approve ? "Ask one of its approvers."
                    : "CALL chaperone.withdraw('" + ticket.id + "') takes it back."};
}

Failure already(const Ticket& ticket) {
    std::string text = "ticket " + ticket.id;
    switch (ticket.state) {
        case State::pending: text += " is still pending"; break;
        case State::approved: text += " is approved already"; break;
        case State::denied: text += " was denied"; break;
        case State::expired: text += " has expired"; break;
        case State::withdrawn: text += " was withdrawn"; break;
        case State::used: text += " was used already"; break;
    }
    std::string by;
    if (ticket.state == State::approved || ticket.state == State::denied) by = ticket.decided_by();
    if (!by.empty()) text += " by " + by;
    if (ticket.state == State::denied && !ticket.comment.empty()) text += ": " + ticket.comment;
    std::string hint;
    if (ticket.state == State::expired || ticket.state == State::used)
        hint = "Running the statement again opens a new ticket.";
    return {Problem::already_decided, std::move(text), std::move(hint)};
}

Ticket ended(Ticket ticket, State state, Time now) {
    ticket.state = state;
    ticket.ended = now;
    ticket.held_until = ticket.opened;
    return ticket;
}

}  // namespace

std::string_view state_name(State state) {
    switch (state) {
        case State::pending: return "pending";
        case State::approved: return "approved";
        case State::denied: return "denied";
        case State::expired: return "expired";
        case State::withdrawn: return "withdrawn";
        case State::used: return "used";
    }
    return {};
}

std::optional<State> state_named(std::string_view name) {
    for (const State state : {State::pending, State::approved, State::denied, State::expired,
                              State::withdrawn, State::used})
        if (state_name(state) == name) return state;
    return std::nullopt;
}

std::string_view evidence_name(Evidence::Kind kind) {
    switch (kind) {
        case Evidence::Kind::none: return "none";
        case Evidence::Kind::plan: return "plan";
        case Evidence::Kind::trial: return "trial";
        case Evidence::Kind::counted: return "counted";
    }
    return {};
}

std::string_view sqlstate(Problem problem) {
    switch (problem) {
        case Problem::unknown_ticket: return "42704";   // undefined_object
        case Problem::not_allowed: return "42501";      // insufficient_privilege
        case Problem::own_ticket: return "42501";       // likewise
        case Problem::already_decided: return "55000";  // object_not_in_prerequisite_state
        case Problem::already_voted: return "55000";    // likewise
        case Problem::changed_since: return "55000";    // likewise
        case Problem::store_failed: return "58030";     // io_error
    }
    return {};
}

Failure no_such_ticket(std::string_view id) {
    const auto readable = [](char c) { return c >= ' ' && c <= '~'; };
    const bool quotable = !id.empty() && id.size() <= 40 &&
                          std::all_of(id.begin(), id.end(), readable);
    return {Problem::unknown_ticket,
            quotable ? "there is no ticket " + std::string(id) : "there is no such ticket",
            "SHOW chaperone.pending lists those that are open."};
}

void throw_exception_from_error(const Failure& failure, const boost::source_location&) {
    throw std::runtime_error(failure.text);
}

bool same_person(const Person& one, const Person& other) {
    return one.upstream == other.upstream &&
           (one.role == other.role || (one.oid != 0 && one.oid == other.oid));
}

bool surely_same_person(const Person& one, const Person& other) {
    return one.upstream == other.upstream && one.role == other.role && one.oid == other.oid &&
           !one.role.empty();
}

bool may_decide(const Terms& terms, const Person& person) {
    if (person.role.empty()) return false;
    return !terms.approvers.empty() &&
           std::all_of(terms.approvers.begin(), terms.approvers.end(),
                       [&](const auto& list) { return matches_one(list, person); });
}

bool suffices(const Terms& given, const Terms& wanted) {
    if (wanted.approvers.empty() || given.approvers.empty()) return false;
    if (wanted.approvals > given.approvals) return false;
    if (given.allow_self && !wanted.allow_self) return false;
    // Who had to match one of a shorter list matches one of the longer list too.
    return std::all_of(wanted.approvers.begin(), wanted.approvers.end(), [&](const auto& asked) {
        return std::any_of(given.approvers.begin(), given.approvers.end(), [&](const auto& had) {
            return std::all_of(had.begin(), had.end(), [&](const std::string& pattern) {
                return std::find(asked.begin(), asked.end(), pattern) != asked.end();
            });
        });
    });
}

std::string Evidence::summary() const {
    std::vector<std::string> parts;
    std::uint64_t rows = 0;
    for (const TableRows& table : tables)
        rows = sum(rows, sum(table.inserted, sum(table.updated, table.deleted)));
    if (!tables.empty()) {
        std::string counted = kind == Kind::plan ? "about " : "";
        counted += grouped(rows) + (rows == 1 ? " row of " : " rows of ") + tables.front().table;
        if (tables.size() == 2) counted += " and 1 other table";
        if (tables.size() > 2)
            counted += " and " + std::to_string(tables.size() - 1) + " other tables";
        parts.push_back(std::move(counted));
    }
    if (!catalog_changes.empty()) parts.push_back("changes of " + listed(catalog_changes));
    if (!exclusive_locks.empty())
        parts.push_back("an exclusive lock on " + listed(exclusive_locks));
    if (!foreign_writes.empty()) parts.push_back("writes to " + listed(foreign_writes));
    if (parts.empty()) return binds() ? "no rows" : "";
    std::string all;
    for (const std::string& part : parts) all += (all.empty() ? "" : "; ") + part;
    return all;
}

unsigned Ticket::approvals() const {
    return static_cast<unsigned>(
        std::count_if(votes.begin(), votes.end(), [](const Vote& vote) { return vote.approve; }));
}

std::string Ticket::decided_by() const {
    std::string text;
    for (const Vote& vote : votes)
        if (vote.approve == (state != State::denied))
            text += (text.empty() ? "" : ", ") + vote.role;
    return text;
}

bool Ticket::operator==(const Ticket& other) const {
    const Request& a = request;
    const Request& b = other.request;
    const auto person = [](const Person& p) {
        return std::tie(p.role, p.oid, p.member_of, p.upstream);
    };
    const auto asked = [](const Request& r) {
        return std::tie(r.binding, r.database, r.client, r.application, r.session, r.command,
                        r.statement, r.statement_cut, r.parameters, r.settings, r.rule, r.reason,
                        r.terms, r.evidence, r.wait, r.glass, r.glass_reason);
    };
    const auto rest = [](const Ticket& t) {
        return std::tie(t.id, t.state, t.replica, t.opened, t.expires, t.held_until, t.votes,
                        t.ended, t.ended_by, t.comment, t.outcome);
    };
    return rest(*this) == rest(other) && asked(a) == asked(b) &&
           person(a.requester) == person(b.requester);
}

namespace {
constexpr std::string_view id_letters = "ABCDEFGHJKMNPQRSTUVWXYZ";
}

std::string id_of(std::uint64_t number) {
    return id_letters[number % id_letters.size()] + std::to_string(number / id_letters.size() + 1);
}

std::optional<std::uint64_t> number_of(std::string_view id) {
    const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; };
    while (!id.empty() && blank(id.front())) id.remove_prefix(1);
    while (!id.empty() && blank(id.back())) id.remove_suffix(1);
    if (id.size() < 2 || id[1] == '0') return std::nullopt;
    const char small = id.front();
    const char letter = small >= 'a' && small <= 'z' ? static_cast<char>(small - 'a' + 'A') : small;
    const std::size_t index = id_letters.find(letter);
    if (index == std::string_view::npos) return std::nullopt;
    std::uint64_t round = 0;
    const char* end = id.data() + id.size();
    const auto [read, error] = std::from_chars(id.data() + 1, end, round);
    // So many tickets there can't be; it also keeps the product in range.
    if (error != std::errc() || read != end || round > 1'000'000'000'000) return std::nullopt;
    const std::uint64_t number = (round - 1) * id_letters.size() + index;
    if (number == 0) return std::nullopt;
    return number;
}

Ticket opened(Request request, std::string id, std::string replica, Time now) {
    now = whole(now);
    if (request.statement.size() > statement_bytes_max) {
        cut(request.statement, statement_bytes_max);
        request.statement_cut = true;
    }
    // One approval at least, whatever the policy says.
    request.terms.approvals = std::max(request.terms.approvals, 1U);
    Ticket ticket;
    ticket.id = std::move(id);
    ticket.replica = std::move(replica);
    ticket.opened = now;
    ticket.expires = later(now, request.terms.ttl);
    ticket.held_until = std::min(later(now, request.wait), ticket.expires);
    ticket.request = std::move(request);
    if (!ticket.request.glass) return ticket;
    cut(ticket.request.glass_reason, comment_bytes_max);
    return ended(std::move(ticket), State::used, now);
}

Ticket expired_by(Ticket ticket, Time now) {
    if (!ticket.open() || now < ticket.expires) return ticket;
    const Time when = ticket.expires;
    return ended(std::move(ticket), State::expired, when);
}

std::optional<Ticket> taken_up(const Ticket& ticket, const Request& request, std::string replica,
                               Time now) {
    now = whole(now);
    const Request& before = ticket.request;
    if (request.glass || before.glass || before.binding != request.binding ||
        !surely_same_person(before.requester, request.requester))
        return std::nullopt;
    if (!expired_by(ticket, now).open() || ticket.waiting(now)) return std::nullopt;
    if (ticket.votes.empty()) return opened(request, ticket.id, std::move(replica), now);
    if (!suffices(before.terms, request.terms) || later(ticket.opened, request.terms.ttl) <= now)
        return std::nullopt;
    if ((before.evidence.binds() || request.evidence.binds()) &&
        before.evidence != request.evidence)
        return std::nullopt;
    Ticket again = ticket;
    again.replica = std::move(replica);
    again.request.client = request.client;
    again.request.application = request.application;
    again.request.session = request.session;
    again.request.wait = request.wait;
    again.held_until = std::min(later(now, request.wait), ticket.expires);
    return again;
}

Result<Ticket> voted(Ticket ticket, const Person& by, bool approve, std::string comment, Time now) {
    now = whole(now);
    ticket = expired_by(std::move(ticket), now);
    if (elsewhere(ticket, by)) return no_such_ticket(ticket.id);
    const Terms& terms = ticket.request.terms;
    if (same_person(ticket.request.requester, by) && !terms.allow_self)
        return own_ticket(ticket, approve);
    if (!may_decide(terms, by))
        return Failure{Problem::not_allowed,
                       "role \"" + by.role + "\" may not decide on ticket " + ticket.id,
                       terms.approvers.empty() ? "The policy names nobody who may: see approvers."
                                               : "The policy says who may: SHOW chaperone.ticket_" +
                                                     ticket.id + " names them to its requester."};
    if (!ticket.open() || (approve && ticket.state == State::approved)) return already(ticket);
    if (approve && std::any_of(ticket.votes.begin(), ticket.votes.end(), [&](const Vote& vote) {
            return vote.approve && same_person(voter(vote, ticket), by);
        }))
        return Failure{Problem::already_voted, "you have approved ticket " + ticket.id + " before",
                       "It takes " + std::to_string(terms.approvals) + " different people."};
    cut(comment, comment_bytes_max);
    ticket.votes.push_back(
        {.role = by.role, .oid = by.oid, .approve = approve, .comment = comment, .at = now});
    if (!approve) {
        ticket.ended_by = by.role;
        ticket.comment = std::move(comment);
        return ended(std::move(ticket), State::denied, now);
    }
    if (ticket.approvals() >= terms.approvals) {
        ticket.state = State::approved;
        ticket.comment = std::move(comment);
    }
    return ticket;
}

Result<Ticket> withdrawn(Ticket ticket, const Person* by, std::string comment, Time now) {
    now = whole(now);
    ticket = expired_by(std::move(ticket), now);
    if (by && elsewhere(ticket, *by)) return no_such_ticket(ticket.id);
    if (by && !surely_same_person(ticket.request.requester, *by))
        return Failure{Problem::not_allowed,
                       "ticket " + ticket.id + " is not yours: only its requester withdraws it",
                       may_decide(ticket.request.terms, *by)
                           ? "CALL chaperone.deny('" + ticket.id + "') refuses it."
                           : ""};
    if (!ticket.open()) return already(ticket);
    cut(comment, comment_bytes_max);
    ticket.ended_by = by ? by->role : comment;
    ticket.comment = std::move(comment);
    return ended(std::move(ticket), State::withdrawn, now);
}

Ticket released(Ticket ticket, Time now) {
    ticket = expired_by(std::move(ticket), whole(now));
    ticket.held_until = ticket.opened;
    return ticket;
}

Ticket finished(Ticket ticket, std::string outcome) {
    if (ticket.state != State::used) return ticket;
    cut(outcome, comment_bytes_max);
    ticket.outcome = std::move(outcome);
    return ticket;
}

bool claimable(const Ticket& ticket, const Claim& claim, Time now) {
    now = whole(now);
    const Request& request = ticket.request;
    if (ticket.state != State::approved || now >= ticket.expires) return false;
    // The time that the policy gives now, if that is less.
    if (later(ticket.opened, claim.terms.ttl) <= now) return false;
    if (request.binding.empty() || request.binding != claim.binding) return false;
    if (!surely_same_person(request.requester, claim.requester)) return false;
    if (claim.ticket.empty() ? ticket.waiting(now) : claim.ticket != ticket.id) return false;
    return suffices(request.terms, claim.terms) && ticket.approvals() >= claim.terms.approvals;
}

Failure why_not_claimable(const Ticket& ticket, const Claim& claim, Time now) {
    const Ticket current = expired_by(ticket, whole(now));
    if (current.state != State::approved) return already(current);
    const bool bound = current.request.binding == claim.binding &&
                       surely_same_person(current.request.requester, claim.requester);
    if (!bound)
        return {
            Problem::not_allowed,
            "ticket " + ticket.id + " was approved for another statement, or for other settings",
            "Run the statement again; it opens a new ticket."};
    return {Problem::not_allowed,
            "ticket " + ticket.id + " was approved before the policy became stricter",
            "Run the statement again; it opens a new ticket."};
}

Ticket claimed(Ticket ticket, Time now) {
    return ended(std::move(ticket), State::used, whole(now));
}

bool may_see(const Ticket& ticket, const Person& person) {
    if (elsewhere(ticket, person)) return false;
    return surely_same_person(ticket.request.requester, person) ||
           may_decide(ticket.request.terms, person);
}

}  // namespace pgchaperone::approval
