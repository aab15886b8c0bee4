#pragma once
// A server that is guarded, with everything that holds there and nowhere else: the rules, who may
// log in, how many there may be, what has been seen of it; and a listener, by which clients come to
// one or several of them. Thread-safe.

#include "policy/engine.h"
#include "policy/rule_book.h"
#include "proxy/net/judge_pool.h"
#include "proxy/net/places.h"
#include "proxy/net/server_options.h"
#include "proxy/net/tls_context.h"
#include "proxy/net/upstream_sight.h"
#include "proxy/net/virtual_schema.h"
#include "proxy/session/event.h"
#include "proxy/session/users.h"

#include <cstddef>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

namespace pgchaperone::net {

class Guarded {
public:
    Guarded(std::size_t index_, UpstreamOptions options_, std::shared_ptr<policy::RuleBook> rules_,
            policy::Capabilities capabilities);
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;

    const std::size_t index;  // among all of the process; 0: that of the top level
    const UpstreamOptions options;
    const std::shared_ptr<policy::RuleBook> rules;
    std::unique_ptr<JudgePool> judges;
    std::unique_ptr<VirtualSchema> virtual_schema;
    Places places;
    UpstreamSight sight;

    const std::string& name() const { return options.name; }
    bool has(std::string_view database) const;
    // What a session that comes now is told.
    session::Upstream for_session() const;

    // Null: connections to it are in clear.
    TlsContextPtr tls() const { return get(tls_); }
    void set_tls(TlsContextPtr context) { set(tls_, std::move(context)); }
    // Null unless authentication: users.
    std::shared_ptr<const session::Users> users() const { return get(users_); }
    void set_users(std::shared_ptr<const session::Users> users) { set(users_, std::move(users)); }
    Changeable changeable() const { return get(changeable_); }
    void change(Changeable to) {
        places.set_limits(to.limits);
        set(changeable_, std::move(to));
    }

private:
    template <class Value>
    Value get(const Value& value) const {
        const std::lock_guard lock(mutex_);
        return value;
    }
    template <class Value>
    void set(Value& value, Value to) {
        const std::lock_guard lock(mutex_);
        value = std::move(to);
    }

    mutable std::mutex mutex_;
    TlsContextPtr tls_;
    std::shared_ptr<const session::Users> users_;
    Changeable changeable_;
};

class Listener {
public:
    // `all`: those that options.upstreams are the indexes of.
    Listener(ListenerOptions options_, const std::vector<std::unique_ptr<Guarded>>& all);
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;

    const ListenerOptions options;
    std::vector<Guarded*> upstreams;  // in the order in which they are asked; never empty

    // The first that has this database; null: none.
    Guarded* find(std::string_view database) const;
    // To which everything counts until it is known where a client wants to go.
    Guarded& last() const { return *upstreams.back(); }

    // Null: TLS is not offered.
    TlsContextPtr tls() const {
        const std::lock_guard lock(mutex_);
        return tls_;
    }
    void set_tls(TlsContextPtr context) {
        const std::lock_guard lock(mutex_);
        tls_ = std::move(context);
    }

private:
    mutable std::mutex mutex_;
    TlsContextPtr tls_;
};

}  // namespace pgchaperone::net
