#pragma once
// What all threads of the host share: settings, the servers that are guarded, the audit log, the
// desk where tickets are decided. Read-only or thread-safe.

#include "approval/desk.h"
#include "audit/writer.h"
#include "policy/engine.h"
#include "proxy/net/directory.h"
#include "proxy/net/guarded.h"
#include "proxy/net/predecessors.h"
#include "proxy/net/resolver.h"
#include "proxy/net/server_options.h"
#include "proxy/net/webhook_sender.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace pgchaperone::net {

struct Shared {
    ServerOptions options;
    policy::Capabilities capabilities{.supervise = true, .hold = true};
    std::unique_ptr<audit::Writer> audit;
    std::unique_ptr<WebhookSender> webhooks;  // outlives the desk, which tells it
    std::unique_ptr<approval::Desk> desk;
    std::vector<std::unique_ptr<Guarded>> upstreams;  // the first: that of the top level
    std::vector<std::unique_ptr<Listener>> listeners;
    Directory directory;
    std::unique_ptr<Resolver> resolver;
    std::atomic<std::uint64_t> next_session_id{1};
    std::atomic<std::uint64_t> connections{0};
    std::atomic<bool> draining{false};                 // nobody new is taken in
    std::atomic<std::uint64_t> unrecorded{0};          // statements that ran without their record
    std::atomic<std::uint64_t> refused_unrecorded{0};  // that did not run for want of it
    std::atomic<std::uint64_t> overdue_records{0};     // that were waited for too long
    std::unique_ptr<Predecessors> predecessors;  // null: this process has taken over from nobody
};

}  // namespace pgchaperone::net
