#pragma once
// How long things took, in buckets: counted on one thread, read on any, as a Count is. What is read
// while it counts may miss the last few, and never has more in its buckets than it says in all.

#include "metrics/count.h"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pgchaperone::metrics {

using Nanoseconds = std::chrono::nanoseconds;

// What a histogram shows: of each bucket its upper bound (inclusive) and how many were in it alone.
// The last has no bound.
struct Distribution {
    std::vector<Nanoseconds> bounds;
    std::vector<std::uint64_t> counts;  // one more than bounds
    Nanoseconds sum{0};
    std::uint64_t count() const;
    // Of the same bounds, or into an empty one.
    void add(const Distribution& other);
};

class Histogram {
public:
    static constexpr std::size_t bounds_max = 16;

    // Rising, at most bounds_max, and there for as long as this.
    explicit Histogram(std::span<const Nanoseconds> bounds);

    // What is less than nothing, since a clock was set back, counts as nothing.
    void observe(Nanoseconds took) noexcept {
        if (took.count() < 0) took = {};
        std::size_t bucket = 0;
        while (bucket < bounds_.size() && took > bounds_[bucket]) ++bucket;
        sum_.add(static_cast<std::uint64_t>(took.count()));
        counts_[bucket].add();
    }
    Distribution read() const;

private:
    std::span<const Nanoseconds> bounds_;
    std::array<Count, bounds_max + 1> counts_;
    Count sum_;
};

}  // namespace pgchaperone::metrics
