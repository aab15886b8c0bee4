#pragma once
// How often something may be tried: some attempts are free, then each waits twice as long as the
// one before. Counts attempts and not failures, so that many at once are many; what turned out to
// be none of a guesser's is given back. Bounded; knows no clock.

#include <chrono>
#include <cstddef>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

namespace pgchaperone::web {

class Throttle {
public:
    using Time = std::chrono::steady_clock::time_point;
    struct Terms {
        unsigned free = 5;
        std::chrono::seconds first_wait{1};
        std::chrono::seconds longest_wait{900};
        std::chrono::seconds forgotten_after{900};  // without an attempt
        std::chrono::seconds one_less_every{60};    // that passes without one
        std::size_t keys_max = 10'000;
    };
    explicit Throttle(Terms terms) : terms_(terms) {}

    // An attempt of this key's. Nothing: go on, and it counts. Else it does not, and how long to
    // wait.
    std::optional<std::chrono::seconds> attempt(std::string_view key, Time now);
    // The last attempt that counted was no guess.
    void give_back(std::string_view key);
    // Whoever this is has shown that they are.
    void forget(std::string_view key);
    std::size_t keys() const { return entries_.size(); }

private:
    struct Entry {
        std::string key;
        unsigned attempts = 0;
        Time last;
        Time next;
    };
    using Entries = std::list<Entry>;  // the one that was tried last is the last
    void make_room(Time now);

    Terms terms_;
    Entries entries_;
    std::unordered_map<std::string, Entries::iterator> by_key_;
};

// What an address is throttled by: an IPv6 network of 64 bits belongs to one customer.
std::string network_of(std::string_view address);

}  // namespace pgchaperone::web
