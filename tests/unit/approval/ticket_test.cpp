#include "tickets.h"

#include "support/catch.h"

#include <set>

using namespace pgchaperone::test;
using namespace pgchaperone::approval;

namespace {

Ticket pending(Terms terms = dba_decides()) {
    return opened(request_of_alice("b1", std::move(terms)), "K7", "one", start_time);
}
Ticket approved_ticket() { return voted(pending(), bob(), true, "fine", start_time + 1s).value(); }
Ticket used_ticket() { return claimed(approved_ticket(), start_time + 2s); }

template <class T>
Problem problem_of(const Result<T>& result) {
    REQUIRE_FALSE(result);
    CHECK_FALSE(result.error().text.empty());
    CHECK(result.error().text.back() != '.');
    return result.error().problem;
}

Claim claim_now(const Terms& terms = dba_decides()) {
    return {.binding = "b1", .requester = alice(), .terms = terms, .ticket = ""};
}

// One in every state, with a moment at which it is still in it.
std::vector<Ticket> one_in_every_state() {
    return {pending(),
            approved_ticket(),
            voted(pending(), bob(), false, "no", start_time + 1s).value(),
            expired_by(pending(), start_time + 1h),
            withdrawn(pending(), nullptr, "disconnected", start_time + 1s).value(),
            used_ticket()};
}

}  // namespace

TEST_CASE("a new ticket is pending, and says until when its session waits") {
    const Ticket ticket = pending();
    CHECK(ticket.state == State::pending);
    CHECK(ticket.expires == start_time + 30min);
    CHECK(ticket.waiting(start_time + 59s));
    CHECK_FALSE(ticket.waiting(start_time + 60s));
    CHECK_FALSE(ticket.ended);
}

TEST_CASE("moments are cut to whole microseconds") {
    const Ticket ticket = opened(request_of_alice(), "K7", "one", start_time + 999ns);
    CHECK(ticket.opened == start_time);
    CHECK(voted(ticket, bob(), false, "", start_time + 1999ns)->ended == start_time + 1us);
}

TEST_CASE("a ticket that lives longer than the clock can count lives to its end") {
    Request request = request_of_alice();
    request.terms.ttl = std::chrono::milliseconds::max();
    request.wait = std::chrono::milliseconds::max();
    const Ticket ticket = opened(request, "K7", "one", start_time);
    CHECK(ticket.expires > start_time + 24h * 365 * 100);
    CHECK(ticket.held_until == ticket.expires);
    request.terms.ttl = std::chrono::milliseconds::min();
    CHECK(opened(request, "K7", "one", start_time).expires == start_time);
}

TEST_CASE("nobody waits longer than the ticket lives") {
    Request request = request_of_alice();
    request.terms.ttl = 10s;
    CHECK(opened(request, "K7", "one", start_time).held_until == start_time + 10s);
}

TEST_CASE("a long statement is cut at a character") {
    Request request = request_of_alice();
    request.statement = std::string(statement_bytes_max - 1, 'x') + "\xc3\xa9";
    const Ticket ticket = opened(request, "K7", "one", start_time);
    CHECK(ticket.request.statement == std::string(statement_bytes_max - 1, 'x'));
    CHECK(ticket.request.statement_cut);
    CHECK_FALSE(pending().request.statement_cut);
}

TEST_CASE("what needs no approvals needs one") {
    Request request = request_of_alice("b1", dba_decides(0));
    CHECK(opened(request, "K7", "one", start_time).request.terms.approvals == 1);
}

TEST_CASE("an approver approves, and the statement may run once") {
    const Ticket ticket = approved_ticket();
    CHECK(ticket.state == State::approved);
    CHECK(ticket.decided_by() == "bob");
    CHECK(ticket.comment == "fine");
    CHECK_FALSE(ticket.ended);
    REQUIRE(claimable(ticket, claim_of(ticket, true), start_time + 2s));
    const Ticket used = claimed(ticket, start_time + 2s);
    CHECK(used.state == State::used);
    CHECK(used.ended == start_time + 2s);
    CHECK_FALSE(claimable(used, claim_of(used, true), start_time + 2s));
    CHECK_FALSE(claimable(used, claim_of(used, false), start_time + 2s));
    CHECK(finished(used, "UPDATE 5").outcome == "UPDATE 5");
}

TEST_CASE("an approver denies, and says why") {
    const Ticket ticket = voted(pending(), bob(), false, "use the API", start_time + 1s).value();
    CHECK(ticket.state == State::denied);
    CHECK(ticket.ended == start_time + 1s);
    CHECK(ticket.ended_by == "bob");
    CHECK(ticket.decided_by() == "bob");
    const Failure why = why_not_claimable(ticket, claim_of(ticket, true), start_time + 2s);
    CHECK(why.text == "ticket K7 was denied by bob: use the API");
}

TEST_CASE("an approval can be taken back until the statement runs") {
    const Ticket denied = voted(approved_ticket(), carol(), false, "wait", start_time + 2s).value();
    CHECK(denied.state == State::denied);
    CHECK(denied.decided_by() == "carol");
    CHECK_FALSE(claimable(denied, claim_of(denied, true), start_time + 2s));
    CHECK(voted(approved_ticket(), bob(), false, "oops", start_time + 2s)->state == State::denied);
    CHECK(problem_of(voted(used_ticket(), bob(), false, "", start_time + 3s)) ==
          Problem::already_decided);
}

TEST_CASE("what is decided is not decided again") {
    for (const Ticket& ticket : one_in_every_state()) {
        if (ticket.state == State::pending) continue;
        CAPTURE(state_name(ticket.state));
        CHECK(problem_of(voted(ticket, carol(), true, "", start_time + 3s)) ==
              Problem::already_decided);
        if (ticket.state == State::approved) continue;
        CHECK(problem_of(voted(ticket, carol(), false, "", start_time + 3s)) ==
              Problem::already_decided);
        CHECK(problem_of(withdrawn(ticket, nullptr, "", start_time + 3s)) ==
              Problem::already_decided);
        CHECK_FALSE(claimable(ticket, claim_of(ticket, true), start_time + 3s));
    }
}

TEST_CASE("at the instant of expiry it is too late, one microsecond earlier it is not") {
    const Time end = pending().expires;
    CHECK(voted(pending(), bob(), true, "", end - 1us)->state == State::approved);
    CHECK(problem_of(voted(pending(), bob(), true, "", end)) == Problem::already_decided);
    const Ticket ticket = approved_ticket();
    CHECK(claimable(ticket, claim_of(ticket, true), end - 1us));
    CHECK_FALSE(claimable(ticket, claim_of(ticket, true), end));
    CHECK(expired_by(ticket, end - 1us).state == State::approved);
    CHECK(expired_by(ticket, end).state == State::expired);
    CHECK(expired_by(ticket, end + 1h).ended == end);
    CHECK(problem_of(withdrawn(ticket, nullptr, "", end)) == Problem::already_decided);
}

TEST_CASE("only what is open expires") {
    for (const Ticket& ticket : one_in_every_state())
        CHECK(expired_by(ticket, start_time + 24h).state ==
              (ticket.open() ? State::expired : ticket.state));
}

TEST_CASE("two different people have to agree where two are asked for") {
    const Ticket one = voted(pending(dba_decides(2)), bob(), true, "ok", start_time + 1s).value();
    CHECK(one.state == State::pending);
    CHECK(one.approvals() == 1);
    CHECK_FALSE(claimable(one, claim_of(one, true), start_time + 1s));
    SECTION("the same person counts once") {
        CHECK(problem_of(voted(one, bob(), true, "", start_time + 2s)) == Problem::already_voted);
    }
    SECTION("a role that was renamed meanwhile is the same person") {
        CHECK(problem_of(voted(one, person("robert", 102, {"dba"}), true, "", start_time + 2s)) ==
              Problem::already_voted);
    }
    SECTION("a role made again under the same name is the same person") {
        CHECK(problem_of(voted(one, person("bob", 999, {"dba"}), true, "", start_time + 2s)) ==
              Problem::already_voted);
    }
    SECTION("another person is the second") {
        const Ticket two = voted(one, carol(), true, "me too", start_time + 2s).value();
        CHECK(two.state == State::approved);
        CHECK(two.decided_by() == "bob, carol");
        CHECK(two.votes.size() == 2);
    }
    SECTION("one denial is enough, also of who has agreed before") {
        CHECK(voted(one, carol(), false, "", start_time + 2s)->state == State::denied);
        CHECK(voted(one, bob(), false, "", start_time + 2s)->state == State::denied);
    }
}

TEST_CASE("the requester does not decide, whatever they are") {
    Terms terms = dba_decides();
    terms.approvers = {{"*"}};
    const Ticket ticket = pending(terms);
    CHECK(problem_of(voted(ticket, alice(), true, "", start_time)) == Problem::own_ticket);
    CHECK(problem_of(voted(ticket, alice(), false, "", start_time)) == Problem::own_ticket);
    // By either of name and object id.
    CHECK(problem_of(voted(ticket, person("alicia", 101), true, "", start_time)) ==
          Problem::own_ticket);
    CHECK(problem_of(voted(ticket, person("alice", 999), true, "", start_time)) ==
          Problem::own_ticket);
    SECTION("a superuser is no exception") {
        Request request = request_of(person("postgres", 10, {"dba", "pg_monitor"}), "b1", terms);
        const Ticket own = opened(request, "K7", "one", start_time);
        CHECK(problem_of(voted(own, request.requester, true, "", start_time)) ==
              Problem::own_ticket);
    }
    SECTION("unless the policy says so, and they are an approver") {
        terms.allow_self = true;
        CHECK(voted(pending(terms), alice(), true, "", start_time)->state == State::approved);
        terms.approvers = {{"dba"}};
        CHECK(problem_of(voted(pending(terms), alice(), true, "", start_time)) ==
              Problem::not_allowed);
    }
}

TEST_CASE("a superuser who is not listed does not decide") {
    CHECK(problem_of(voted(pending(), person("postgres", 10), true, "", start_time)) ==
          Problem::not_allowed);
}

TEST_CASE("who may decide is one of every list, by name or by membership") {
    const auto may = [](std::vector<std::vector<std::string>> lists, const Person& who) {
        Terms terms;
        terms.approvers = std::move(lists);
        return may_decide(terms, who);
    };
    CHECK(may({{"bob"}}, bob()));
    CHECK(may({{"dba"}}, bob()));
    CHECK(may({{"nobody", "d?a"}}, bob()));
    CHECK(may({{"b*b"}}, bob()));
    CHECK(may({{"*"}}, dave()));
    CHECK(may({{"*b*"}}, person("aabaa", 1)));
    CHECK(may({{"a*b*c"}}, person("abbbc", 1)));
    CHECK_FALSE(may({{"a*b*c"}}, person("abbb", 1)));
    CHECK_FALSE(may({{"b"}}, bob()));
    CHECK_FALSE(may({{"BOB"}}, bob()));
    CHECK_FALSE(may({{"bob?"}}, bob()));
    CHECK_FALSE(may({{""}}, bob()));
    CHECK_FALSE(may({{"dba"}}, dave()));
    CHECK(may({{"dba"}, {"staff"}}, bob()));
    CHECK_FALSE(may({{"dba"}, {"staff"}}, carol()));
    CHECK_FALSE(may({{"dba"}, {}}, bob()));
    CHECK_FALSE(may({}, bob()));
    CHECK_FALSE(may({{"*"}}, person("", 0)));
}

TEST_CASE("the requester takes back what they asked for, and nobody else does") {
    const Ticket ticket = withdrawn(pending(), nullptr, "disconnected", start_time + 1s).value();
    CHECK(ticket.state == State::withdrawn);
    CHECK(ticket.ended_by == "disconnected");
    CHECK(ticket.comment == "disconnected");
    const Person me = alice();
    const Ticket mine = withdrawn(approved_ticket(), &me, "not needed", start_time + 2s).value();
    CHECK(mine.state == State::withdrawn);
    CHECK(mine.ended_by == "alice");
    CHECK(mine.comment == "not needed");
    CHECK_FALSE(claimable(mine, claim_of(mine, true), start_time + 2s));
    for (const Person& other : {bob(), person("alicia", 101), person("alice", 999)})
        CHECK(problem_of(withdrawn(pending(), &other, "", start_time)) == Problem::not_allowed);
}

TEST_CASE("while its session waits, an approval is for that session") {
    const Ticket ticket = approved_ticket();
    CHECK(claimable(ticket, claim_of(ticket, true), start_time + 2s));
    CHECK_FALSE(claimable(ticket, claim_of(ticket, false), start_time + 2s));
    CHECK(claimable(ticket, claim_of(ticket, false), start_time + 60s));
    const Ticket free = released(ticket, start_time + 2s);
    CHECK(claimable(free, claim_of(free, false), start_time + 2s));
    Claim other = claim_of(free, true);
    other.ticket = "M42";
    CHECK_FALSE(claimable(free, other, start_time + 2s));
}

TEST_CASE("an approval is for the same person with the same statement") {
    const Ticket ticket = released(approved_ticket(), start_time + 2s);
    const auto with = [&](auto change) {
        Claim claim = claim_of(ticket, false);
        change(claim);
        return claimable(ticket, claim, start_time + 2s);
    };
    CHECK(with([](Claim&) {}));
    CHECK_FALSE(with([](Claim& claim) { claim.binding = "b2"; }));
    CHECK_FALSE(with([](Claim& claim) { claim.requester = bob(); }));
    CHECK_FALSE(with([](Claim& claim) { claim.requester.oid = 999; }));
    CHECK_FALSE(with([](Claim& claim) { claim.requester.role = "alicia"; }));
    Ticket unbound = ticket;
    unbound.request.binding.clear();
    CHECK_FALSE(claimable(unbound, claim_of(unbound, false), start_time + 2s));
}

TEST_CASE("an approval under laxer terms than those of now is not enough") {
    Terms given = dba_decides(2);
    given.approvers = {{"dba", "ops"}, {"staff"}};
    const auto enough = [&](auto change) {
        Terms wanted = given;
        change(wanted);
        return suffices(given, wanted);
    };
    CHECK(enough([](Terms&) {}));
    CHECK(enough([](Terms& t) { t.approvals = 1; }));
    CHECK(enough([](Terms& t) { t.approvers = {{"staff"}}; }));
    CHECK(enough([](Terms& t) { t.approvers = {{"ops", "dba", "more"}}; }));
    CHECK(enough([](Terms& t) { t.allow_self = true; }));
    CHECK_FALSE(enough([](Terms& t) { t.approvals = 3; }));
    CHECK_FALSE(enough([](Terms& t) { t.approvers = {{"dba"}, {"staff"}}; }));
    CHECK_FALSE(enough([](Terms& t) { t.approvers.push_back({"security"}); }));
    CHECK_FALSE(enough([](Terms& t) { t.approvers.clear(); }));
    given.allow_self = true;
    CHECK_FALSE(enough([](Terms& t) { t.allow_self = false; }));
    given.approvers.clear();
    CHECK_FALSE(enough([](Terms&) {}));
}

TEST_CASE("a policy that has become stricter wins over an approval") {
    const Ticket ticket = released(approved_ticket(), start_time + 2s);
    CHECK(claimable(ticket, claim_now(), start_time + 10min));
    CHECK_FALSE(claimable(ticket, claim_now(dba_decides(2)), start_time + 10min));
    Terms sooner = dba_decides();
    sooner.ttl = 10min;
    CHECK(claimable(ticket, claim_now(sooner), start_time + 10min - 1us));
    CHECK_FALSE(claimable(ticket, claim_now(sooner), start_time + 10min));
    Terms others = dba_decides();
    others.approvers = {{"security"}};
    CHECK_FALSE(claimable(ticket, claim_now(others), start_time + 2s));
    CHECK(why_not_claimable(ticket, claim_now(others), start_time + 2s).text ==
          "ticket K7 was approved before the policy became stricter");
}

TEST_CASE("breaking the glass makes a ticket that is used at once") {
    Request request = request_of_alice();
    request.glass = true;
    request.glass_reason = "the site is down";
    const Ticket ticket = opened(request, "K7", "one", start_time);
    CHECK(ticket.state == State::used);
    CHECK(ticket.ended == start_time);
    CHECK_FALSE(ticket.waiting(start_time));
    CHECK(ticket.approvals() == 0);
    CHECK_FALSE(claimable(ticket, claim_of(ticket, true), start_time));
    CHECK_FALSE(taken_up(ticket, request_of_alice(), "one", start_time));
    CHECK_FALSE(taken_up(pending(), request, "one", start_time + 1h));
}

TEST_CASE("the same request again takes up the ticket that nobody waits for") {
    const Time later = start_time + 5min;
    Request again = request_of_alice();
    again.session = 9;
    again.evidence.kind = Evidence::Kind::counted;
    again.evidence.tables = {{.table = "orders", .updated = 5}};
    SECTION("one that nobody has voted on is as new") {
        const auto taken = taken_up(pending(), again, "two", later);
        REQUIRE(taken);
        CHECK(*taken == opened(again, "K7", "two", later));
    }
    SECTION("not while its session waits") {
        CHECK_FALSE(taken_up(pending(), again, "two", start_time + 59s));
        CHECK(taken_up(released(pending(), start_time), again, "two", start_time + 1s));
    }
    SECTION("not that of another person, and not for another statement") {
        Request other = again;
        other.requester = dave();
        CHECK_FALSE(taken_up(pending(), other, "two", later));
        CHECK_FALSE(taken_up(pending(), request_of_alice("b2"), "two", later));
    }
    SECTION("not one that has ended") {
        for (const Ticket& ticket : one_in_every_state())
            if (!ticket.open()) CHECK_FALSE(taken_up(ticket, request_of_alice(), "two", later));
        CHECK_FALSE(taken_up(pending(), again, "two", start_time + 30min));
    }
    SECTION("one that is approved stays as it was approved") {
        const auto taken = taken_up(approved_ticket(), request_of_alice(), "two", later);
        REQUIRE(taken);
        CHECK(taken->state == State::approved);
        CHECK(taken->expires == approved_ticket().expires);
        CHECK(taken->waiting(later));
        CHECK(taken->replica == "two");
    }
    SECTION("not where people have voted on other counts than those of now") {
        CHECK_FALSE(taken_up(approved_ticket(), again, "two", later));
        Ticket counted = approved_ticket();
        counted.request.evidence = again.evidence;
        CHECK(taken_up(counted, again, "two", later));
        CHECK_FALSE(taken_up(counted, request_of_alice(), "two", later));
    }
    SECTION("not where people have voted under laxer terms than those of now") {
        Request strict = request_of_alice("b1", dba_decides(2));
        CHECK_FALSE(taken_up(approved_ticket(), strict, "two", later));
        strict.terms = dba_decides();
        strict.terms.ttl = 5min;
        CHECK_FALSE(taken_up(approved_ticket(), strict, "two", later));
    }
}

TEST_CASE("its requester and those who may decide see a ticket") {
    CHECK(may_see(pending(), alice()));
    CHECK(may_see(pending(), bob()));
    CHECK_FALSE(may_see(pending(), dave()));
    CHECK_FALSE(may_see(pending(), person("alice", 999)));
    CHECK_FALSE(may_see(pending(), person("postgres", 10)));
}

TEST_CASE("a role of another server is somebody else, whatever its name and number") {
    Request request = request_of_alice();
    request.requester.upstream = "billing";
    const Ticket ticket = opened(request, "K7", "here", start_time);
    Person there = bob();
    there.upstream = "billing";
    CHECK(may_see(ticket, there));
    REQUIRE(voted(ticket, there, true, "", start_time));

    // Where roles are cheap somebody can be called what they like, and be a member of anything.
    for (const char* const elsewhere : {"", "staging"}) {
        Person stranger = bob();
        stranger.upstream = elsewhere;
        CHECK_FALSE(may_see(ticket, stranger));
        for (const bool approve : {true, false}) {
            const auto vote = voted(ticket, stranger, approve, "", start_time);
            REQUIRE_FALSE(vote);
            CHECK(vote.error().problem == Problem::unknown_ticket);
        }
        Person self = alice();
        self.upstream = elsewhere;
        CHECK_FALSE(may_see(ticket, self));
        CHECK_FALSE(withdrawn(ticket, &self, "", start_time));
        CHECK_FALSE(same_person(ticket.request.requester, self));
        CHECK_FALSE(surely_same_person(ticket.request.requester, self));

        const Ticket approved = *voted(ticket, there, true, "", start_time);
        Claim claim = claim_of(approved, true);
        CHECK(claimable(approved, claim, start_time));
        claim.requester = self;
        CHECK_FALSE(claimable(approved, claim, start_time));
        Request again = request;
        again.requester = self;
        CHECK_FALSE(taken_up(released(ticket, start_time), again, "here", start_time));
    }
}

TEST_CASE("two people of one server are told apart where they vote") {
    Request request = request_of_alice("b1", dba_decides(2));
    request.requester.upstream = "billing";
    Person there = bob();
    there.upstream = "billing";
    const auto first = voted(opened(request, "K7", "here", start_time), there, true, "",
                             start_time);
    REQUIRE(first);
    const auto second = voted(*first, there, true, "", start_time);
    REQUIRE_FALSE(second);
    CHECK(second.error().problem == Problem::already_voted);
}

TEST_CASE("an outcome is written to what has run, and to nothing else") {
    for (const Ticket& ticket : one_in_every_state())
        CHECK(finished(ticket, "UPDATE 5").outcome ==
              (ticket.state == State::used ? "UPDATE 5" : ""));
}

TEST_CASE("ids are short, readable and never come twice") {
    CHECK(id_of(1) == "B1");
    CHECK(id_of(22) == "Z1");
    CHECK(id_of(23) == "A2");
    std::set<std::string> seen;
    for (std::uint64_t number = 1; number <= 5000; ++number) {
        const std::string id = id_of(number);
        CHECK(seen.insert(id).second);
        CHECK(id.size() <= 4);
        CHECK(id.find_first_of("ILO") == std::string::npos);
        CHECK(number_of(id) == number);
    }
    CHECK(number_of(id_of(1'000'000'000'000)) == 1'000'000'000'000);
}

TEST_CASE("ids are read with letters of either case and blanks around them") {
    CHECK(number_of(" k7\n") == number_of("K7"));
    REQUIRE(number_of("K7"));
    for (const char* wrong :
         {"", " ", "K", "7", "K0", "K07", "K-1", "K+1", "K7x", "KK7", "I7", "l7", "A1", "K 7",
          "K99999999999999", "K99999999999999999999999", "\xc3\xa9"})
        CHECK_FALSE(number_of(wrong));
}

TEST_CASE("evidence is summed up in a few words") {
    Evidence evidence;
    CHECK(evidence.summary().empty());
    evidence.kind = Evidence::Kind::counted;
    CHECK(evidence.summary() == "no rows");
    evidence.tables = {{.table = "public.orders", .updated = 1}};
    CHECK(evidence.summary() == "1 row of public.orders");
    evidence.tables = {{.table = "public.orders", .updated = 48'000, .deleted = 200},
                       {.table = "a", .inserted = 10}};
    CHECK(evidence.summary() == "48,210 rows of public.orders and 1 other table");
    evidence.tables.push_back({.table = "b"});
    CHECK(evidence.summary() == "48,210 rows of public.orders and 2 other tables");
    evidence.kind = Evidence::Kind::plan;
    evidence.tables = {{.table = "orders", .deleted = 1'234'567}};
    CHECK(evidence.summary() == "about 1,234,567 rows of orders");
    evidence.tables = {{.table = "orders", .inserted = ~0ULL, .deleted = 5}};
    CHECK(evidence.summary() == "about 18,446,744,073,709,551,615 rows of orders");
    evidence.tables.clear();
    evidence.catalog_changes = {"pg_proc"};
    evidence.exclusive_locks = {"public.a", "public.b"};
    evidence.foreign_writes = {"x", "y", "z"};
    CHECK(evidence.summary() ==
          "changes of pg_proc; an exclusive lock on public.a and public.b; "
          "writes to x and 2 others");
}

TEST_CASE("every state, kind of evidence and problem has a name") {
    for (const State state : {State::pending, State::approved, State::denied, State::expired,
                              State::withdrawn, State::used})
        CHECK(state_named(state_name(state)) == state);
    CHECK_FALSE(state_named("Pending"));
    CHECK(sqlstate(Problem::unknown_ticket) == "42704");
    CHECK(sqlstate(Problem::not_allowed) == "42501");
    CHECK(sqlstate(Problem::own_ticket) == "42501");
    CHECK(sqlstate(Problem::already_decided) == "55000");
    CHECK(sqlstate(Problem::already_voted) == "55000");
    CHECK(sqlstate(Problem::store_failed) == "58030");
}
