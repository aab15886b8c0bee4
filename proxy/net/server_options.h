#pragma once
// What main tells the host: plain values, already checked.

#include "audit/sink.h"
#include "policy/rule_pattern.h"
#include "proxy/net/tls_context.h"
#include "proxy/net/users_file.h"
#include "proxy/session/event.h"
#include "proxy/session/session.h"
#include "webhook/hook.h"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace pgchaperone::net {

// A host and a port, or the directory of a Unix-domain socket (it begins with a slash) and a port.
struct Address {
    std::string host;
    std::uint16_t port = 0;
    bool unix_socket() const { return !host.empty() && host.front() == '/'; }
    std::string text() const {
        if (unix_socket()) return host + "/.s.PGSQL." + std::to_string(port);
        const bool v6 = host.find(':') != std::string::npos;
        return (v6 ? '[' + host + ']' : host) + ':' + std::to_string(port);
    }
};

enum class UpstreamNegotiation : std::uint8_t { postgres, direct };

struct AuditSettings {
    std::filesystem::path file;
    std::uint64_t rotate_bytes = 0;             // 0: never
    std::chrono::milliseconds rotate_every{0};  // 0: never
    std::size_t keep_old = 0;                   // 0: all
    bool compress_old = true;
    std::filesystem::path checkpoint_key;  // empty: no checkpoints
    std::uint64_t checkpoint_every = 1000;
    bool allow_on_failure = false;  // what can't be recorded runs all the same
    std::chrono::milliseconds patience{10'000};
    bool standard_output = false;
    std::optional<audit::SyslogTarget> syslog;
};

// The approval page.
struct WebOptions {
    Address listen;
    std::filesystem::path certificate;  // empty: plain HTTP
    std::filesystem::path key;
    std::string url;                               // where people reach it; empty: where it listens
    std::vector<policy::Network> trusted_proxies;  // their X-Forwarded-For is believed
    std::chrono::milliseconds session_idle{3'600'000};
    std::chrono::milliseconds session_life{43'200'000};
    std::size_t pages_max = 200;  // that wait for events
};

// How many sessions there may be; 0: any number.
struct ConnectionLimits {
    std::size_t total = 0;
    std::size_t per_user = 0;
    std::size_t per_address = 0;
    std::size_t reserved = 0;  // of the total, for operators and approvers
    bool operator==(const ConnectionLimits&) const = default;
};

// What may change while the process serves: see Server::reload.
struct Changeable {
    ConnectionLimits limits;
    session::IdleLimits idle;
    std::string environment;  // that clients are told of when they log in; empty: nothing
    // How long sessions go on in a process that another one has taken over from.
    std::chrono::milliseconds handover_timeout{3'600'000};
};

// A server that is guarded.
struct UpstreamOptions {
    std::string name;  // empty: that of the top level
    Address address;
    std::vector<policy::Glob> databases;  // that clients find there
    std::chrono::milliseconds connect_timeout{10'000};
    session::Authentication authentication = session::Authentication::passthrough;
    UsersSettings users;  // authentication: users
    TlsSettings tls;
    UpstreamNegotiation negotiation = UpstreamNegotiation::postgres;
    Changeable changeable;
    std::string web_database;  // that people log in to on the page
};

// Where clients connect.
struct ListenerOptions {
    Address address;
    // Load balancers: who connects from there begins with a header of PROXY protocol.
    std::vector<policy::Network> load_balancers;
    std::chrono::milliseconds login_timeout{60'000};
    TlsSettings tls;
    // Indexes of the servers that they can come to, in the order in which these are asked whether
    // they have the database. Never empty.
    std::vector<std::size_t> upstreams;
};

struct ServerOptions {
    std::vector<ListenerOptions> listeners;
    std::vector<UpstreamOptions> upstreams;  // the first: that of the top level
    unsigned threads = 1;
    std::chrono::milliseconds drain_timeout{30'000};
    AuditSettings audit;
    std::string ticket_store;  // a file's name, or a connection string of libpq's
    bool tickets_in_postgres = false;
    std::optional<WebOptions> web;   // nothing: no port is opened
    std::optional<Address> metrics;  // likewise
    std::string replica;             // this process among those that share the store
    std::vector<webhook::Hook> webhooks;
    std::string page_url;  // of the page on tickets, for links; empty: there is none
};

}  // namespace pgchaperone::net
