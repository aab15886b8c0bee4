#pragma once
// How many sessions there may be: in all, of one role, from one address. A session takes a place
// once its startup packet has named who it is for, before the server is asked anything, and gives
// it back when it ends, however it ends. CancelRequests need none. Thread-safe; knows no socket.
//
// Invariant: what is counted is what is held by a Place, no more and no less.

#include "policy/decision.h"
#include "policy/session_facts.h"
#include "proxy/net/server_options.h"

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

namespace pgchaperone::net {

class Places {
public:
    // Held by a session. Must not outlive the Places that it is one of.
    class Place {
    public:
        Place() = default;
        Place(Place&& other) noexcept;
        Place& operator=(Place&& other) noexcept;
        ~Place() { give_back(); }
        void give_back() noexcept;

    private:
        friend class Places;
        Place(Places& places, std::string user, std::string address)
            : places_(&places), user_(std::move(user)), address_(std::move(address)) {}
        Places* places_ = nullptr;
        std::string user_;
        std::string address_;  // empty: a Unix-domain socket, which has none
    };

    // Counts for those who come from now on; nobody who is here is sent away.
    void set_limits(const ConnectionLimits& limits);

    struct Taken {
        Place place;
        std::optional<policy::Refusal> refusal;  // then there is no place
    };
    // `privileged`: for whom `reserved` places are kept.
    Taken take(const policy::SessionFacts& facts, bool privileged);

    std::size_t taken() const;
    std::uint64_t refused() const;

private:
    using Counts = std::unordered_map<std::string, std::size_t>;

    std::optional<policy::Refusal> refusal(const std::string& user, const std::string& address,
                                           bool privileged) const;

    mutable std::mutex mutex_;
    ConnectionLimits limits_;
    std::size_t taken_ = 0;
    std::uint64_t refused_ = 0;
    Counts by_user_;
    Counts by_address_;
};

}  // namespace pgchaperone::net
