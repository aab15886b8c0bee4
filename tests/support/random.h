#pragma once
// A small seeded source of chance for property tests: the same seed gives the same run on every
// machine and with every standard library, which the distributions of <random> do not promise.

#include <cstddef>
#include <cstdint>
#include <string>

namespace pgchaperone::test {

// SplitMix64 (Steele, Lea, Flood 2014).
class Random {
public:
    explicit Random(std::uint64_t seed) : state_(seed) {}

    std::uint64_t next() {
        state_ += 0x9E3779B97F4A7C15U;
        std::uint64_t z = state_;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
        return z ^ (z >> 31);
    }

    // From 0 to n - 1; n > 0.
    std::size_t below(std::size_t n) { return static_cast<std::size_t>(next() % n); }
    // From low to high, both included.
    std::size_t between(std::size_t low, std::size_t high) { return low + below(high - low + 1); }
    // True once in n times.
    bool one_in(std::size_t n) { return below(n) == 0; }

    // Mostly short, now and then long: the sizes at which code tends to be wrong.
    std::size_t size() {
        if (one_in(20)) return below(3000);
        return one_in(4) ? 0 : below(20);
    }

    std::string bytes(std::size_t n) {
        std::string result(n, '\0');
        for (char& c : result) c = static_cast<char>(next());
        return result;
    }

private:
    std::uint64_t state_;
};

}  // namespace pgchaperone::test
