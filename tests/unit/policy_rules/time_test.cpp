#include "policy/rule_time.h"
#include "support/catch.h"

using namespace pgchaperone::policy;

namespace {

TimeWindow window(std::vector<std::string> spans, const char* zone = "UTC") {
    auto parsed = TimeWindow::parse(spans, zone);
    INFO(spans.front());
    REQUIRE(parsed.has_value());
    return *parsed;
}

bool inside(const TimeWindow& w, const char* time) {
    const auto parsed = parse_time(time);
    INFO(time);
    REQUIRE(parsed.has_value());
    return w.contains(*parsed);
}

}  // namespace

TEST_CASE("a window of days and hours has its beginning in and its end out") {
    const auto w = window({"Mon-Fri 08:00-18:00"});
    CHECK(inside(w, "2026-11-20T08:00"));  // a Friday
    CHECK(inside(w, "2026-11-20T17:59"));
    CHECK_FALSE(inside(w, "2026-11-20T18:00"));
    CHECK_FALSE(inside(w, "2026-11-20T07:59"));
    CHECK_FALSE(inside(w, "2026-11-21T12:00"));
}

TEST_CASE("days may be listed, run over the weekend, and stand without hours") {
    CHECK(inside(window({"Sat,Sun"}), "2026-11-21T00:00"));
    CHECK_FALSE(inside(window({"Sat,Sun"}), "2026-11-20T23:59"));
    const auto w = window({"Fri-Mon"});
    CHECK(inside(w, "2026-11-22T12:00"));
    CHECK(inside(w, "2026-11-23T12:00"));
    CHECK_FALSE(inside(w, "2026-11-24T12:00"));
    CHECK(inside(window({"monday,Friday 06:00-07:00"}), "2026-11-20T06:30"));
}

TEST_CASE("hours that end before they begin run into the next day") {
    const auto w = window({"Fri 22:00-06:00"});
    CHECK(inside(w, "2026-11-20T23:00"));
    CHECK(inside(w, "2026-11-21T05:59"));
    CHECK_FALSE(inside(w, "2026-11-21T06:00"));
    CHECK_FALSE(inside(w, "2026-11-20T05:00"));
    CHECK(inside(window({"00:00-24:00"}), "2026-11-21T23:59"));
    CHECK(inside(window({"22:00-24:00"}), "2026-11-21T23:59"));
}

TEST_CASE("several spans are joined") {
    const auto w = window({"Mon-Fri 08:00-12:00,13:00-18:00", "Sat 10:00-14:00"});
    CHECK(inside(w, "2026-11-20T11:59"));
    CHECK_FALSE(inside(w, "2026-11-20T12:30"));
    CHECK(inside(w, "2026-11-20T13:00"));
    CHECK(inside(w, "2026-11-21T10:00"));
}

TEST_CASE("a zone shifts the window, in summer by more than in winter") {
    const auto w = window({"08:00-18:00"}, "Europe/Berlin");
    CHECK(inside(w, "2026-01-15T07:00Z"));
    CHECK_FALSE(inside(w, "2026-01-15T06:59Z"));
    CHECK(inside(w, "2026-07-15T06:00Z"));
    CHECK_FALSE(inside(w, "2026-07-15T05:59Z"));
    CHECK(inside(w, "2026-07-15T08:00+02:00"));
}

TEST_CASE("the answer holds until the time that it names, and no longer") {
    for (const char* zone : {"UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"}) {
        const auto w = window({"Mon-Fri 08:00-18:00", "Fri 22:00-06:00", "Sun 00:00-24:00"}, zone);
        auto time = *parse_time("2026-03-27T00:00Z");
        const auto end = *parse_time("2026-04-05T00:00Z");
        while (time < end) {
            const auto answer = w.at(time);
            INFO(zone << " " << w.local_time(time));
            REQUIRE(answer.until > time);
            REQUIRE(answer.from <= time);
            // Look at every quarter of an hour up to there.
            for (auto probe = time; probe < answer.until; probe += std::chrono::minutes(15)) {
                REQUIRE(w.contains(probe) == answer.inside);
            }
            time = answer.until;
        }
    }
}

TEST_CASE("windows and times that can't be meant are refused") {
    for (const char* wrong :
         {"", "Mo", "Mon-", "08:00", "8:00-18:00", "25:00-26:00", "08:00-08:00", "08:60-09:00",
          "24:00-06:00", "Mon-Fri-Sun", "08:00-18:00 Mon", "Monday Funday"}) {
        INFO(wrong);
        CHECK_FALSE(TimeWindow::parse({wrong}, "UTC").has_value());
    }
    CHECK_FALSE(TimeWindow::parse({}, "UTC").has_value());
    CHECK_FALSE(TimeWindow::parse({"Mon"}, "Europe/Nowhere").has_value());
    for (const char* wrong :
         {"", "yesterday", "2026-13-01", "2026-01-01T25:00", "2026-01-01T10:00 or so"}) {
        INFO(wrong);
        CHECK_FALSE(parse_time(wrong).has_value());
    }
}
