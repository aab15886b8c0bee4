#pragma once
// The rules in force, shared by all engines and replaced as a whole on reload. Thread-safe.

#include "policy/rule.h"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

namespace pgchaperone::policy {

class RuleBook {
public:
    // Loads the policy anew and gives it or, where it can't be used, says why in words for the log.
    using Loader = std::function<boost::system::result<Policy, PatternError>()>;

    explicit RuleBook(Policy policy, Loader loader = {});

    struct Edition {
        std::uint64_t version = 0;  // from 1, never repeats
        Policy policy;              // sealed
    };
    // Whoever holds an edition may go on using it after a newer one came.
    std::shared_ptr<const Edition> current() const;

    // Cheap enough to be asked for every statement.
    std::uint64_t version() const noexcept { return version_.load(std::memory_order_acquire); }

    // Puts a new policy in force for statements judged from now on and returns its version. A
    // policy that could not be loaded never comes here: the old one simply stays.
    std::uint64_t replace(Policy policy);

    // Replaces the policy by what the loader gives now. Returns what is wrong, for people; empty:
    // the new policy is in force. Where something is wrong the old one stays. One reload at a time.
    std::string reload();

private:
    mutable std::mutex mutex_;
    std::shared_ptr<const Edition> current_;
    std::atomic<std::uint64_t> version_{0};
    Loader loader_;
};

}  // namespace pgchaperone::policy
