#pragma once
// What all threads of the host share: settings, the rules in force, the audit log, the desk where
// tickets are decided. Read-only or thread-safe.

#include "approval/desk.h"
#include "audit/writer.h"
#include "policy/engine.h"
#include "policy/rule_book.h"
#include "proxy/net/directory.h"
#include "proxy/net/places.h"
#include "proxy/net/predecessors.h"
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
#include <utility>

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
    Places places;
    std::unique_ptr<Resolver> resolver;
    std::unique_ptr<JudgePool> judges;
    std::atomic<std::uint64_t> next_session_id{1};
    std::atomic<std::uint64_t> connections{0};
    std::atomic<bool> draining{false};                 // nobody new is taken in
    std::atomic<std::uint64_t> unrecorded{0};          // statements that ran without their record
    std::atomic<std::uint64_t> refused_unrecorded{0};  // that did not run for want of it
    std::atomic<std::uint64_t> overdue_records{0};     // that were waited for too long
    UpstreamSight upstream_sight;
    std::unique_ptr<Predecessors> predecessors;  // null: this process has taken over from nobody

    TlsContexts tls() const {
        const std::lock_guard lock(mutex);
        return tls_contexts;
    }
    Changeable changeable() const {
        const std::lock_guard lock(mutex);
        return changeable_now;
    }
    void change(Changeable to) {
        places.set_limits(to.limits);
        const std::lock_guard lock(mutex);
        changeable_now = std::move(to);
    }
    void set_tls(TlsContexts contexts) {
        const std::lock_guard lock(mutex);
        tls_contexts = std::move(contexts);
    }

    // Null unless authentication: users.
    std::shared_ptr<const session::Users> users() const {
        const std::lock_guard lock(users_mutex);
        return users_in_force;
    }
    void set_users(std::shared_ptr<const session::Users> users) {
        const std::lock_guard lock(users_mutex);
        users_in_force = std::move(users);
    }

private:
    mutable std::mutex mutex;
    TlsContexts tls_contexts;
    mutable std::mutex users_mutex;
    std::shared_ptr<const session::Users> users_in_force;
    Changeable changeable_now;
};

}  // namespace pgchaperone::net
