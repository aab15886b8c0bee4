#pragma once
// A number that one thread counts up and any thread reads. To count costs as much as with a plain
// integer: nothing is locked, and no other thread's cache line is written. Who counts on several
// threads has one of these for each, and adds them up to be read.

#include <atomic>
#include <cstdint>

namespace pgchaperone::metrics {

class Count {
public:
    // On the one thread that counts.
    void add(std::uint64_t more = 1) noexcept {
        value_.store(value_.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
    }
    // On any.
    std::uint64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }

private:
    std::atomic<std::uint64_t> value_{0};
};

}  // namespace pgchaperone::metrics
