#include "proxy/net/places.h"

#include <utility>

namespace pgchaperone::net {

namespace {

constexpr const char* too_many = "53300";

std::string sessions(std::size_t count) {
    return std::to_string(count) + (count == 1 ? " session" : " sessions");
}

std::string raise(const char* setting) {
    return std::string(
               "Close sessions that nobody needs, or ask the operator of pgchaperone to "
               "raise ") +
           setting + ".";
}

std::size_t count_of(const std::unordered_map<std::string, std::size_t>& counts,
                     const std::string& key) {
    const auto found = counts.find(key);
    return found == counts.end() ? 0 : found->second;
}

void take_one_off(std::unordered_map<std::string, std::size_t>& counts, const std::string& key) {
    const auto found = counts.find(key);
    if (found != counts.end() && --found->second == 0) counts.erase(found);
}

}  // namespace

Places::Place::Place(Place&& other) noexcept
    : places_(std::exchange(other.places_, nullptr)),
      user_(std::move(other.user_)),
      address_(std::move(other.address_)) {}

Places::Place& Places::Place::operator=(Place&& other) noexcept {
    if (this == &other) return *this;
    give_back();
    places_ = std::exchange(other.places_, nullptr);
    user_ = std::move(other.user_);
    address_ = std::move(other.address_);
    return *this;
}

void Places::Place::give_back() noexcept {
    Places* const places = std::exchange(places_, nullptr);
    if (places == nullptr) return;
    const std::lock_guard lock(places->mutex_);
    --places->taken_;
    take_one_off(places->by_user_, user_);
    if (!address_.empty()) take_one_off(places->by_address_, address_);
}

void Places::set_limits(const ConnectionLimits& limits) {
    const std::lock_guard lock(mutex_);
    limits_ = limits;
}

std::optional<policy::Refusal> Places::refusal(const std::string& user, const std::string& address,
                                               bool privileged) const {
    const ConnectionLimits& most = limits_;
    if (most.total != 0 && taken_ >= most.total) {
        return policy::Refusal{too_many, "pgchaperone: too many connections",
                               "limits.connections allows " + sessions(most.total) + ".",
                               raise("limits.connections")};
    }
    if (most.total != 0 && !privileged && taken_ + most.reserved >= most.total) {
        return policy::Refusal{
            too_many, "pgchaperone: the remaining connections are reserved for operators",
            "limits.connections allows " + sessions(most.total) +
                ", of which limits.reserved keeps " + std::to_string(most.reserved) +
                " for the policy's operators and approvers.",
            raise("limits.connections")};
    }
    if (most.per_user != 0 && count_of(by_user_, user) >= most.per_user) {
        return policy::Refusal{
            too_many, "pgchaperone: too many connections for role \"" + user + "\"",
            "limits.connections_per_user allows " + sessions(most.per_user) + " of one role.",
            raise("limits.connections_per_user")};
    }
    if (most.per_address != 0 && !address.empty() &&
        count_of(by_address_, address) >= most.per_address) {
        return policy::Refusal{too_many, "pgchaperone: too many connections from " + address,
                               "limits.connections_per_address allows " +
                                   sessions(most.per_address) + " from one address.",
                               raise("limits.connections_per_address")};
    }
    return std::nullopt;
}

Places::Taken Places::take(const policy::SessionFacts& facts, bool privileged) {
    std::string address = facts.client.local ? std::string() : facts.client.text;
    const std::lock_guard lock(mutex_);
    if (auto why = refusal(facts.user, address, privileged)) {
        ++refused_;
        return {{}, std::move(why)};
    }
    ++taken_;
    ++by_user_[facts.user];
    if (!address.empty()) ++by_address_[address];
    return {Place(*this, facts.user, std::move(address)), std::nullopt};
}

std::size_t Places::taken() const {
    const std::lock_guard lock(mutex_);
    return taken_;
}

std::uint64_t Places::refused() const {
    const std::lock_guard lock(mutex_);
    return refused_;
}

}  // namespace pgchaperone::net
