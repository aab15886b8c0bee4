#include "metrics/histogram.h"

#include <cassert>
#include <numeric>

namespace pgchaperone::metrics {

std::uint64_t Distribution::count() const {
    return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
}

void Distribution::add(const Distribution& other) {
    if (counts.empty()) {
        *this = other;
        return;
    }
    assert(bounds == other.bounds);
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += other.counts[i];
    sum += other.sum;
}

Histogram::Histogram(std::span<const Nanoseconds> bounds) : bounds_(bounds) {
    assert(bounds.size() <= bounds_max);
}

Distribution Histogram::read() const {
    Distribution out;
    out.bounds.assign(bounds_.begin(), bounds_.end());
    for (std::size_t i = 0; i <= bounds_.size(); ++i) out.counts.push_back(counts_[i].value());
    out.sum = Nanoseconds(sum_.value());
    return out;
}

}  // namespace pgchaperone::metrics
