#pragma once
// All figures of a process as Prometheus reads them: the table in docs/metrics.md. Pure.

#include "approval/desk.h"
#include "metrics/histogram.h"
#include "proxy/net/counts.h"
#include "proxy/net/process_numbers.h"
#include "proxy/net/virtual_schema.h"
#include "proxy/net/webhook_sender.h"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::net {

// How a ticket ended, for how long it was waited for.
inline constexpr std::array<std::string_view, 4> ticket_ends{"approved", "denied", "expired",
                                                             "withdrawn"};

// Of one server that is guarded.
struct UpstreamNumbers {
    std::string name;          // empty: that of the top level; its figures have no label for it
    bool up = false;           // by what was seen of it lately
    std::size_t sessions = 0;  // logged in there
    std::size_t held = 0;      // of these, waiting for somebody
    Traffic traffic;
    std::uint64_t policy_version = 0;
};

struct Numbers {
    bool ready = false;
    bool draining = false;
    std::size_t io_threads = 0;
    std::chrono::nanoseconds io_lag{0};
    std::uint64_t connections = 0;  // now
    std::size_t sessions = 0;       // of these, logged in
    std::vector<UpstreamNumbers> upstreams;
    approval::Desk::Stats desk;
    std::array<metrics::Distribution, ticket_ends.size()> ticket_waits;
    AuditCounts audit;
    metrics::Distribution audit_times;
    WebhookStats webhooks;
    Reloads reloads;
    ProcessNumbers process;
};

std::string metrics_page(const Numbers& numbers);

}  // namespace pgchaperone::net
