#include "proxy/net/places.h"
#include "support/catch.h"

#include <atomic>
#include <random>
#include <thread>
#include <vector>

using namespace pgchaperone;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;
using net::Places;

namespace {

policy::SessionFacts from(std::string user, std::string address = "10.0.0.1") {
    policy::SessionFacts facts;
    facts.user = std::move(user);
    facts.client.local = address.empty();
    facts.client.text = address.empty() ? "[local]" : std::move(address);
    return facts;
}

}  // namespace

TEST_CASE("without limits everybody has a place") {
    Places places;
    std::vector<Places::Place> held;
    for (int i = 0; i < 1000; ++i) {
        auto taken = places.take(from("app"), false);
        REQUIRE_FALSE(taken.refusal);
        held.push_back(std::move(taken.place));
    }
    CHECK(places.taken() == 1000);
    held.clear();
    CHECK(places.taken() == 0);
}

TEST_CASE(
    "a limit refuses the one beyond it, names its setting, and takes the next when one left") {
    Places places;
    const auto [limits, setting] = GENERATE(
        std::pair(net::ConnectionLimits{2, 0, 0, 0}, std::string("limits.connections allows 2")),
        std::pair(net::ConnectionLimits{0, 2, 0, 0}, std::string("limits.connections_per_user")),
        std::pair(net::ConnectionLimits{0, 0, 2, 0},
                  std::string("limits.connections_per_address")));
    places.set_limits(limits);
    auto first = places.take(from("app"), false);
    auto second = places.take(from("app"), true);
    auto third = places.take(from("app"), true);
    CHECK_FALSE(first.refusal);
    CHECK_FALSE(second.refusal);
    REQUIRE(third.refusal);
    CHECK(third.refusal->sqlstate == "53300");
    CHECK_THAT(third.refusal->message, StartsWith("pgchaperone: too many connections"));
    CHECK_THAT(third.refusal->detail, ContainsSubstring(setting));
    CHECK_THAT(third.refusal->hint, ContainsSubstring("limits.connections"));
    CHECK(places.taken() == 2);
    CHECK(places.refused() == 1);
    first.place.give_back();
    first.place.give_back();  // once is enough
    CHECK(places.taken() == 1);
    CHECK_FALSE(places.take(from("app"), false).refusal);
    CHECK(places.taken() == 1);  // that one was not kept
}

TEST_CASE("another role and another address have limits of their own, a Unix socket has none") {
    Places places;
    places.set_limits({0, 1, 2, 0});
    auto app = places.take(from("app"), false);
    CHECK(places.take(from("app", "10.0.0.2"), false).refusal);
    auto clerk = places.take(from("clerk"), false);
    CHECK_FALSE(clerk.refusal);
    CHECK_THAT(places.take(from("third"), false).refusal->message, ContainsSubstring("10.0.0.1"));
    CHECK_FALSE(places.take(from("third", "10.0.0.2"), false).refusal);
    auto local = places.take(from("a", ""), false);
    auto too = places.take(from("b", ""), false);
    auto three = places.take(from("c", ""), false);
    CHECK_FALSE(three.refusal);
}

TEST_CASE("what is reserved is for the privileged alone, and they have no more than all") {
    Places places;
    places.set_limits({3, 0, 0, 1});
    auto one = places.take(from("a"), false);
    auto two = places.take(from("b"), false);
    const auto refused = places.take(from("c"), false);
    REQUIRE(refused.refusal);
    CHECK_THAT(refused.refusal->message, ContainsSubstring("reserved for operators"));
    CHECK_THAT(refused.refusal->detail, ContainsSubstring("limits.reserved keeps 1"));
    auto operators = places.take(from("dba"), true);
    CHECK_FALSE(operators.refusal);
    CHECK(places.take(from("dba"), true).refusal);
    // An operator who came early took none of what is reserved away: what is left counts.
    two.place.give_back();
    CHECK(places.take(from("c"), false).refusal);
    one.place.give_back();
    CHECK_FALSE(places.take(from("c"), false).refusal);
}

TEST_CASE("new limits hold for who comes next") {
    Places places;
    auto one = places.take(from("a"), false);
    auto two = places.take(from("a"), false);
    places.set_limits({1, 0, 0, 0});
    CHECK(places.take(from("b"), false).refusal);
    CHECK(places.taken() == 2);
    two.place.give_back();
    CHECK(places.take(from("b"), false).refusal);
    one.place.give_back();
    CHECK_FALSE(places.take(from("b"), false).refusal);
}

TEST_CASE(
    "whatever several threads take and give back, the count is right and no limit is passed") {
    Places places;
    places.set_limits({20, 12, 0, 0});
    std::atomic<bool> exceeded = false;
    std::vector<std::thread> threads;
    for (unsigned seed = 0; seed < 4; ++seed) {
        threads.emplace_back([&places, &exceeded, seed] {
            std::mt19937 random(seed);
            std::vector<Places::Place> held;
            for (int i = 0; i < 5000; ++i) {
                if (!held.empty() && random() % 2 == 0) {
                    std::swap(held[random() % held.size()], held.back());
                    held.pop_back();
                } else {
                    auto taken = places.take(from(random() % 2 == 0 ? "a" : "b"), false);
                    if (!taken.refusal) held.push_back(std::move(taken.place));
                }
                if (places.taken() > 20) exceeded = true;
            }
        });
    }
    for (auto& thread : threads) thread.join();
    CHECK_FALSE(exceeded);
    CHECK(places.taken() == 0);
    CHECK(places.refused() > 0);
    // Nothing is left under any name: all of a limit can be taken again.
    std::vector<Places::Place> held;
    for (int i = 0; i < 12; ++i) held.push_back(places.take(from("a"), false).place);
    CHECK(places.taken() == 12);
    CHECK(places.take(from("a"), false).refusal);
}
