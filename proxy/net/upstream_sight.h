#pragma once
// When the server was last seen to work, and when not: by logins that succeeded, connections
// that could not be made, and whoever looked. Thread-safe, without a lock.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>

namespace pgchaperone::net {

class UpstreamSight {
public:
    using Time = std::chrono::steady_clock::time_point;

    void saw(bool works, Time now) {
        (works ? worked_ : failed_)
            .store(now.time_since_epoch().count(), std::memory_order_relaxed);
    }
    // What was seen last, not longer ago than this; nothing: nothing was.
    std::optional<bool> works(Time now, std::chrono::steady_clock::duration not_before) const {
        const auto worked = worked_.load(std::memory_order_relaxed);
        const auto failed = failed_.load(std::memory_order_relaxed);
        const auto latest = std::max(worked, failed);
        if (latest == never || latest < (now - not_before).time_since_epoch().count())
            return std::nullopt;
        return worked > failed;
    }

private:
    using Ticks = std::chrono::steady_clock::rep;
    static constexpr Ticks never = INT64_MIN;
    std::atomic<Ticks> worked_{never};
    std::atomic<Ticks> failed_{never};
};

}  // namespace pgchaperone::net
