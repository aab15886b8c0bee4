#pragma once
// The rules in force, shared by all engines and replaced as a whole on reload. Thread-safe.

#include "policy/rule.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

namespace pgchaperone::policy {

class RuleBook {
public:
    explicit RuleBook(Policy policy) { replace(std::move(policy)); }

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

private:
    mutable std::mutex mutex_;
    std::shared_ptr<const Edition> current_;
    std::atomic<std::uint64_t> version_{0};
};

}  // namespace pgchaperone::policy
