#include "proxy/net/upstream_sight.h"

#include "support/catch.h"

using namespace pgchaperone::net;
using namespace std::chrono_literals;

TEST_CASE("what was seen last counts, for its time") {
    UpstreamSight sight;
    const UpstreamSight::Time begin(1h);
    CHECK_FALSE(sight.works(begin, 5s).has_value());
    sight.saw(true, begin);
    CHECK(sight.works(begin + 5s, 5s) == true);
    CHECK_FALSE(sight.works(begin + 6s, 5s).has_value());
    sight.saw(false, begin + 7s);
    CHECK(sight.works(begin + 8s, 5s) == false);
    sight.saw(true, begin + 9s);
    CHECK(sight.works(begin + 9s, 5s) == true);
    // A failure and a success at the same time: rather once too often not ready.
    sight.saw(false, begin + 9s);
    CHECK(sight.works(begin + 9s, 5s) == false);
}
