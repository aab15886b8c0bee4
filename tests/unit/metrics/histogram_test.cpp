#include "metrics/histogram.h"

#include "support/catch.h"

#include <array>
#include <atomic>
#include <thread>

using namespace pgchaperone::metrics;
using namespace std::chrono_literals;

namespace {
constexpr std::array<Nanoseconds, 3> bounds{1us, 10us, 1ms};
}

TEST_CASE("a time is in the first bucket whose bound it does not pass") {
    Histogram histogram(bounds);
    for (const Nanoseconds took : {0ns, 999ns, 1000ns, 1001ns, 10'000ns, 1'000'000ns, 1'000'001ns})
        histogram.observe(took);
    const Distribution seen = histogram.read();
    CHECK(seen.counts == std::vector<std::uint64_t>{3, 2, 1, 1});
    CHECK(seen.count() == 7);
    CHECK(seen.sum == 2'013'001ns);
}

TEST_CASE("a clock that was set back counts as nothing, and spoils no sum") {
    Histogram histogram(bounds);
    histogram.observe(-5s);
    histogram.observe(7ns);
    CHECK(histogram.read().counts == std::vector<std::uint64_t>{2, 0, 0, 0});
    CHECK(histogram.read().sum == 7ns);
}

TEST_CASE("distributions add up, also from nothing") {
    Histogram one(bounds), two(bounds);
    one.observe(5ns);
    two.observe(5us);
    two.observe(5s);
    Distribution sum;
    sum.add(one.read());
    sum.add(two.read());
    CHECK(sum.counts == std::vector<std::uint64_t>{1, 1, 0, 1});
    CHECK(sum.sum == 5'000'005'005ns);
    CHECK(sum.bounds == std::vector<Nanoseconds>{1us, 10us, 1ms});
}

TEST_CASE("nothing is lost of what one thread counts while another reads") {
    Count count;
    Histogram histogram(bounds);
    std::atomic<bool> over{false};
    std::thread counts([&] {
        for (int i = 0; i < 200'000; ++i) {
            count.add();
            histogram.observe(2us);
        }
        over = true;
    });
    std::uint64_t last = 0;
    bool falls = false;
    while (!over) {
        const std::uint64_t now = count.value();
        falls = falls || now < last || histogram.read().count() > 200'000;
        last = now;
    }
    counts.join();
    CHECK_FALSE(falls);
    CHECK(count.value() == 200'000);
    CHECK(histogram.read().counts == std::vector<std::uint64_t>{0, 200'000, 0, 0});
    CHECK(histogram.read().sum == 400ms);
}
