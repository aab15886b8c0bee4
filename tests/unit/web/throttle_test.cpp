#include "web/throttle.h"
#include "support/catch.h"

using namespace pgchaperone::web;
using namespace std::chrono_literals;

namespace {
const Throttle::Time start{std::chrono::hours(1000)};
const Throttle::Terms terms{
    .free = 3, .first_wait = 1s, .longest_wait = 10s, .forgotten_after = 60s, .keys_max = 4};
}  // namespace

TEST_CASE("some attempts are free, then each waits twice as long") {
    Throttle throttle(terms);
    auto now = start;
    for (int i = 0; i < 3; ++i) CHECK_FALSE(throttle.attempt("a", now));
    for (const auto wait : {1s, 2s, 4s, 8s, 10s, 10s}) {
        CHECK(throttle.attempt("a", now) == wait);
        now += wait - 1ms;
        CHECK(throttle.attempt("a", now) == 1s);  // asking too early changes nothing
        now += 1ms;
        CHECK_FALSE(throttle.attempt("a", now));
    }
}

TEST_CASE("what was no guess is given back, and who has shown who they are is forgotten") {
    Throttle throttle(terms);
    for (int i = 0; i < 50; ++i) {
        CHECK_FALSE(throttle.attempt("a", start));
        throttle.give_back("a");
    }
    for (int i = 0; i < 3; ++i) CHECK_FALSE(throttle.attempt("a", start));
    CHECK(throttle.attempt("a", start));
    throttle.forget("a");
    CHECK_FALSE(throttle.attempt("a", start));
    throttle.give_back("nobody");
    throttle.forget("nobody");
}

TEST_CASE("attempts are forgotten in time, and no more are remembered than there is room for") {
    Throttle throttle(terms);
    for (int i = 0; i < 3; ++i) CHECK_FALSE(throttle.attempt("a", start));
    CHECK(throttle.attempt("a", start));
    CHECK_FALSE(throttle.attempt("a", start + 61s));
    CHECK_FALSE(throttle.attempt("a", start + 61s));
    CHECK_FALSE(throttle.attempt("a", start + 61s));
    CHECK(throttle.attempt("a", start + 61s));
    for (int i = 0; i < 100; ++i) {
        CHECK_FALSE(throttle.attempt("key " + std::to_string(i), start + 62s));
        CHECK(throttle.keys() <= 4);
    }
}

TEST_CASE("an IPv6 address stands for its network") {
    CHECK(network_of("192.0.2.7") == "192.0.2.7");
    CHECK(network_of("2001:db8:1:2:3:4:5:6") == network_of("2001:db8:1:2::99"));
    CHECK(network_of("2001:db8:1:2::1") != network_of("2001:db8:1:3::1"));
    CHECK(network_of("::ffff:192.0.2.7") == network_of("192.0.2.7"));
    CHECK(network_of("[local]") == "[local]");
}
