#pragma once
// What is counted on the way of a connection: one of these for each I/O thread, counted there
// without a lock and read anywhere. How they are told is metrics_page's.

#include "metrics/count.h"
#include "metrics/histogram.h"
#include "proxy/session/census.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace pgchaperone::net {

// Of a connection that pgchaperone ended before it was logged in.
enum class RefusedFor : std::uint8_t { startup, tls, timeout, upstream, limit };
inline constexpr std::array<std::string_view, 5> refused_for_names{"startup", "tls", "timeout",
                                                                   "upstream", "limit"};

enum class Direction : std::uint8_t { from_client, to_client, from_server, to_server };
inline constexpr std::array<std::string_view, 4> direction_names{"from_client", "to_client",
                                                                 "from_server", "to_server"};

// Of a connection to the server that could not be made, or over which nobody could log in since the
// server did not answer.
enum class UpstreamError : std::uint8_t { resolve, connect, timeout, tls, login };
inline constexpr std::array<std::string_view, 5> upstream_error_names{"resolve", "connect",
                                                                      "timeout", "tls", "login"};

inline constexpr std::array<metrics::Nanoseconds, 14> judge_bounds{
    std::chrono::nanoseconds(500),  std::chrono::microseconds(1),   std::chrono::microseconds(2),
    std::chrono::microseconds(5),   std::chrono::microseconds(10),  std::chrono::microseconds(20),
    std::chrono::microseconds(50),  std::chrono::microseconds(100), std::chrono::microseconds(250),
    std::chrono::milliseconds(1),   std::chrono::milliseconds(5),   std::chrono::milliseconds(25),
    std::chrono::milliseconds(100), std::chrono::seconds(1)};
inline constexpr std::array<metrics::Nanoseconds, 10> connect_bounds{
    std::chrono::microseconds(250), std::chrono::milliseconds(1),   std::chrono::microseconds(2500),
    std::chrono::milliseconds(5),   std::chrono::milliseconds(10),  std::chrono::milliseconds(25),
    std::chrono::milliseconds(100), std::chrono::milliseconds(500), std::chrono::seconds(2),
    std::chrono::seconds(10)};
inline constexpr std::array<metrics::Nanoseconds, 10> ticket_wait_bounds{
    std::chrono::seconds(1),  std::chrono::seconds(5),  std::chrono::seconds(15),
    std::chrono::seconds(30), std::chrono::minutes(1),  std::chrono::minutes(2),
    std::chrono::minutes(5),  std::chrono::minutes(15), std::chrono::minutes(30),
    std::chrono::hours(2)};

struct ThreadCounts {
    metrics::Count connections;  // accepted: all on the thread that listens
    std::array<metrics::Count, refused_for_names.size()> refused;
    metrics::Count logins;
    metrics::Count logins_failed;
    std::array<metrics::Count, direction_names.size()> bytes;
    std::array<std::array<metrics::Count, session::counted_decisions>, session::counted_classes>
        statements;
    std::array<metrics::Count, session::supervision_ends> supervisions;
    std::array<metrics::Count, session::time_limit_kinds> time_limits;
    metrics::Histogram judge{judge_bounds};
    metrics::Count upstream_connects;
    std::array<metrics::Count, upstream_error_names.size()> upstream_errors;
    metrics::Histogram upstream_connect{connect_bounds};

    void add(Direction direction, std::size_t more) {
        bytes[static_cast<std::size_t>(direction)].add(more);
    }
    void add(const session::Census& census) {
        for (const session::Census::Statement& one : census.statements()) {
            statements[static_cast<std::size_t>(one.one)][static_cast<std::size_t>(one.decision)]
                .add(one.times);
        }
        for (std::size_t i = 0; i < supervisions.size(); ++i) {
            const std::uint32_t more = census.ended(static_cast<session::SupervisionEnd>(i));
            if (more > 0) supervisions[i].add(more);
        }
        for (std::size_t i = 0; i < time_limits.size(); ++i) {
            const std::uint32_t more = census.too_long(static_cast<session::TimeLimitKind>(i));
            if (more > 0) time_limits[i].add(more);
        }
    }
};

// All threads' together, as they were when it was read.
struct Traffic {
    std::uint64_t connections = 0;
    std::array<std::uint64_t, refused_for_names.size()> refused{};
    std::uint64_t logins = 0, logins_failed = 0;
    std::array<std::uint64_t, direction_names.size()> bytes{};
    std::array<std::array<std::uint64_t, session::counted_decisions>, session::counted_classes>
        statements{};
    std::array<std::uint64_t, session::supervision_ends> supervisions{};
    std::array<std::uint64_t, session::time_limit_kinds> time_limits{};
    metrics::Distribution judge;
    std::uint64_t cache_hits = 0, cache_misses = 0;
    std::uint64_t upstream_connects = 0;
    std::array<std::uint64_t, upstream_error_names.size()> upstream_errors{};
    metrics::Distribution upstream_connect;

    void add(const ThreadCounts& thread);
    std::uint64_t statements_decided(session::CountedDecision decision) const;
};

}  // namespace pgchaperone::net
