#include "metrics/page.h"

#include "support/catch.h"

#include <array>

using namespace pgchaperone::metrics;
using namespace std::chrono_literals;

namespace {
constexpr std::array<Nanoseconds, 2> bounds{500ns, 1s};
}

TEST_CASE("counters and gauges stand below their help and type, in their order") {
    Page page;
    page.begin(Page::Type::counter, "a_total", "What it is.")
        .put(3, {{"kind", "one"}})
        .put(0, {{"kind", "two"}, {"of", "x"}});
    page.begin(Page::Type::gauge, "b", "Now.").put(0.5);
    CHECK(page.text() ==
          "# HELP a_total What it is.\n"
          "# TYPE a_total counter\n"
          "a_total{kind=\"one\"} 3\n"
          "a_total{kind=\"two\",of=\"x\"} 0\n"
          "# HELP b Now.\n"
          "# TYPE b gauge\n"
          "b 0.5\n");
}

TEST_CASE("a label's value may hold anything") {
    Page page;
    page.begin(Page::Type::gauge, "b", "Now.").put(1, {{"v", "a\"b\\c\nd"}});
    CHECK(page.text().find("b{v=\"a\\\"b\\\\c\\nd\"} 1\n") != std::string::npos);
}

TEST_CASE("a histogram's buckets hold those below them, and the last all") {
    Histogram histogram(bounds);
    histogram.observe(400ns);
    histogram.observe(1ms);
    histogram.observe(2ms);
    histogram.observe(5s);
    Page page;
    page.begin(Page::Type::histogram, "h_seconds", "How long.")
        .put(histogram.read(), {{"outcome", "x"}});
    const std::string text = page.text();
    for (const char* line : {"# TYPE h_seconds histogram\n", "h_seconds_count{outcome=\"x\"} 4\n",
                             "h_seconds_bucket{outcome=\"x\",le=\"1\"} 3\n",
                             "h_seconds_bucket{outcome=\"x\",le=\"+Inf\"} 4\n"}) {
        INFO(text);
        CHECK(text.find(line) != std::string::npos);
    }
    CHECK(text.find("} 1\n") != std::string::npos);
    CHECK(text.find("h_seconds_sum{outcome=\"x\"} 5.003") != std::string::npos);
}
