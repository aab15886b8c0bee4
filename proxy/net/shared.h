#pragma once
// What all threads of the host share: settings, the rules in force, the audit log, the desk where
// tickets are decided. Read-only or thread-safe.

#include "approval/desk.h"
#include "audit/writer.h"
#include "policy/engine.h"
#include "policy/rule_book.h"
#include "proxy/net/directory.h"
#include "proxy/net/resolver.h"
#include "proxy/net/server_options.h"
#include "proxy/net/tls_context.h"
#include "proxy/net/upstream_sight.h"
#include "proxy/net/virtual_schema.h"
#include "proxy/net/webhook_sender.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

namespace pgchaperone::net {

class JudgePool;

// The TLS contexts in force; replaced as a whole on reload.
struct TlsContexts {
    TlsContextPtr client;    // null: TLS is not offered
    TlsContextPtr upstream;  // null: the upstream connection is in clear
};

struct Shared {
    ServerOptions options;
    std::shared_ptr<policy::RuleBook> rules;
    policy::Capabilities capabilities{.supervise = true, .hold = true};
    std::unique_ptr<audit::Writer> audit;
    std::unique_ptr<WebhookSender> webhooks;  // outlives the desk, which tells it
    std::unique_ptr<approval::Desk> desk;
    std::unique_ptr<VirtualSchema> virtual_schema;
    Directory directory;
    std::unique_ptr<Resolver> resolver;
    std::unique_ptr<JudgePool> judges;
    std::atomic<std::uint64_t> next_session_id{1};
    std::atomic<std::uint64_t> connections{0};
    std::atomic<std::uint64_t> unrecorded{0};          // statements that ran without their record
    std::atomic<std::uint64_t> refused_unrecorded{0};  // that did not run for want of it
    std::atomic<std::uint64_t> overdue_records{0};     // that were waited for too long
    UpstreamSight upstream_sight;

    TlsContexts tls() const {
        const std::lock_guard lock(tls_mutex);
        return tls_contexts;
    }
    void set_tls(TlsContexts contexts) {
        const std::lock_guard lock(tls_mutex);
        tls_contexts = std::move(contexts);
    }

private:
    mutable std::mutex tls_mutex;
    TlsContexts tls_contexts;
};

}  // namespace pgchaperone::net
