#include "policy/rule_book.h"

#include <utility>

namespace pgchaperone::policy {

std::shared_ptr<const RuleBook::Edition> RuleBook::current() const {
    const std::lock_guard lock(mutex_);
    return current_;
}

std::uint64_t RuleBook::replace(Policy policy) {
    auto edition = std::make_shared<Edition>();
    edition->policy = std::move(policy);
    edition->policy.seal();
    const std::lock_guard lock(mutex_);
    edition->version = version_.load(std::memory_order_relaxed) + 1;
    const std::uint64_t version = edition->version;
    current_ = std::move(edition);
    version_.store(version, std::memory_order_release);
    return version;
}

}  // namespace pgchaperone::policy
