#include "approval/happened.h"
#include "tickets.h"

#include "support/catch.h"

using namespace pgchaperone::test;
using namespace pgchaperone::approval;

namespace {

using Kind = Happened::Kind;

std::vector<Kind> kinds(const std::vector<Happened>& all) {
    std::vector<Kind> list;
    for (const Happened& happened : all) list.push_back(happened.kind);
    return list;
}

// The life of a ticket that two people approve, step by step.
std::vector<Ticket> a_life() {
    std::vector<Ticket> steps{
        opened(request_of_alice("b1", dba_decides(2)), "K7", "one", start_time)};
    steps.push_back(voted(steps.back(), bob(), true, "one", start_time + 1s).value());
    steps.push_back(voted(steps.back(), carol(), true, "two", start_time + 2s).value());
    steps.push_back(claimed(steps.back(), start_time + 3s));
    steps.push_back(finished(steps.back(), "UPDATE 5"));
    return steps;
}

}  // namespace

TEST_CASE("who sees every step is told every step once") {
    const std::vector<Ticket> steps = a_life();
    CHECK(kinds(happened_since(nullptr, steps[0])) == std::vector{Kind::opened});
    const std::vector<std::vector<Kind>> expected{
        {Kind::voted}, {Kind::decided}, {Kind::used}, {Kind::finished}};
    for (std::size_t i = 0; i + 1 < steps.size(); ++i) {
        const Sight before = sight_of(steps[i]);
        CHECK(kinds(happened_since(&before, steps[i + 1])) == expected[i]);
        const Sight same = sight_of(steps[i + 1]);
        CHECK(happened_since(&same, steps[i + 1]).empty());
    }
}

TEST_CASE("who sees only the end is told everything, in order and as it was then") {
    const std::vector<Ticket> steps = a_life();
    const auto all = happened_since(nullptr, steps.back());
    REQUIRE(kinds(all) ==
            std::vector{Kind::opened, Kind::voted, Kind::decided, Kind::used, Kind::finished});
    CHECK(all[0].ticket.state == State::pending);
    CHECK(all[0].ticket.votes.empty());
    CHECK(all[1].ticket.state == State::pending);
    CHECK(all[1].ticket.votes.size() == 1);
    CHECK(all[2].ticket.state == State::approved);
    CHECK(all[2].ticket.comment == "two");
    CHECK_FALSE(all[2].ticket.ended);
    CHECK(all[3].ticket == steps[3]);
    CHECK(all[4].ticket == steps.back());
}

TEST_CASE("an approval that was taken back is two decisions") {
    Ticket ticket = opened(request_of_alice(), "K7", "one", start_time);
    const Sight before = sight_of(ticket);
    ticket = voted(ticket, bob(), true, "ok", start_time + 1s).value();
    ticket = voted(ticket, carol(), false, "no", start_time + 2s).value();
    const auto all = happened_since(&before, ticket);
    REQUIRE(kinds(all) == std::vector{Kind::decided, Kind::decided});
    CHECK(all[0].ticket.state == State::approved);
    CHECK(all[0].ticket.ended_by.empty());
    CHECK(all[1].ticket == ticket);
}

TEST_CASE("expiry, withdrawal and glass are told as such") {
    const Ticket ticket = opened(request_of_alice(), "K7", "one", start_time);
    const Sight before = sight_of(ticket);
    CHECK(kinds(happened_since(&before, expired_by(ticket, start_time + 1h))) ==
          std::vector{Kind::expired});
    CHECK(kinds(happened_since(&before, withdrawn(ticket, nullptr, "gone", start_time).value())) ==
          std::vector{Kind::withdrawn});
    Request request = request_of_alice();
    request.glass = true;
    const Ticket glass = opened(request, "K7", "one", start_time);
    CHECK(kinds(happened_since(nullptr, glass)) == std::vector{Kind::glass});
    const Sight broken = sight_of(glass);
    CHECK(kinds(happened_since(&broken, finished(glass, "DELETE 3"))) ==
          std::vector{Kind::finished});
    CHECK(kinds(happened_since(nullptr, finished(glass, "DELETE 3"))) ==
          std::vector{Kind::glass, Kind::finished});
}
