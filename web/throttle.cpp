#include "web/throttle.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <utility>

namespace pgchaperone::web {

std::optional<std::chrono::seconds> Throttle::attempt(std::string_view key, Time now) {
    make_room(now);
    const std::string name(key);
    auto found = by_key_.find(name);
    if (found == by_key_.end()) {
        entries_.push_back({name, 0, now, now});
        found = by_key_.emplace(name, std::prev(entries_.end())).first;
    }
    Entry& entry = *found->second;
    if (entry.next > now) {
        return std::max(std::chrono::seconds(1),
                        std::chrono::ceil<std::chrono::seconds>(entry.next - now));
    }
    const auto rested = static_cast<unsigned>((now - entry.last) / terms_.one_less_every);
    entry.attempts -= std::min(entry.attempts, rested);
    ++entry.attempts;
    entry.last = now;
    if (entry.attempts >= terms_.free) {
        const unsigned doublings = std::min(entry.attempts - terms_.free, 30u);
        entry.next = now + std::min<std::chrono::seconds>(terms_.first_wait * (1LL << doublings),
                                                          terms_.longest_wait);
    }
    entries_.splice(entries_.end(), entries_, found->second);
    return std::nullopt;
}

void Throttle::give_back(std::string_view key) {
    const auto found = by_key_.find(std::string(key));
    if (found == by_key_.end()) return;
    Entry& entry = *found->second;
    if (entry.attempts > 0) --entry.attempts;
    if (entry.attempts < terms_.free) entry.next = entry.last;
}

void Throttle::forget(std::string_view key) {
    const auto found = by_key_.find(std::string(key));
    if (found == by_key_.end()) return;
    entries_.erase(found->second);
    by_key_.erase(found);
}

void Throttle::make_room(Time now) {
    while (!entries_.empty() && (entries_.size() >= terms_.keys_max ||
                                 (entries_.front().last + terms_.forgotten_after < now &&
                                  entries_.front().next <= now))) {
        by_key_.erase(entries_.front().key);
        entries_.pop_front();
    }
}

std::string network_of(std::string_view address) {
    std::string text(address.substr(0, address.find('%')));
    std::array<unsigned char, 16> bytes{};
    if (::inet_pton(AF_INET6, text.c_str(), bytes.data()) != 1) return text;
    const bool mapped = std::all_of(bytes.begin(), bytes.begin() + 10,
                                    [](unsigned char byte) { return byte == 0; }) &&
                        bytes[10] == 0xFF && bytes[11] == 0xFF;
    if (mapped) return text.substr(text.rfind(':') + 1);
    std::fill(bytes.begin() + 8, bytes.end(), static_cast<unsigned char>(0));
    std::array<char, INET6_ADDRSTRLEN> out{};
    ::inet_ntop(AF_INET6, bytes.data(), out.data(), out.size());
    return std::string(out.data()) + "/64";
}

}  // namespace pgchaperone::web
