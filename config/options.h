#pragma once
// Everything that a configuration file and the command line can say, as typed values with their
// defaults. Only main and cli read it; they hand each part what it needs. See docs/configuration.md
// for the keys.

#include "policy/rule_pattern.h"
#include "webhook/hook.h"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::config {

// libpq's and PgBouncer's words. For the listener `allow` and `prefer` mean the same: TLS where the
// client asks for it. For the upstream `allow` is not offered: it would try in clear first.
enum class TlsMode : std::uint8_t { disable, allow, prefer, require, verify_ca, verify_full };
enum class TlsNegotiation : std::uint8_t { postgres, direct };
enum class AuthenticationMode : std::uint8_t { passthrough, password, users };

// host:port, [v6]:port, or the directory of a Unix-domain socket with a port:
// /var/run/postgresql:5432.
struct Endpoint {
    std::string host = "127.0.0.1";
    std::uint16_t port = 5432;
    bool unix_socket() const { return !host.empty() && host.front() == '/'; }
    std::string text() const;  // as people write it
    bool operator==(const Endpoint&) const = default;
};

struct Tls {
    TlsMode mode = TlsMode::disable;
    TlsNegotiation negotiation = TlsNegotiation::postgres;  // upstream only
    std::filesystem::path certificate;                      // PEM chain
    std::filesystem::path key;
    std::filesystem::path ca;  // PEM bundle; verify_* need it
};

// Who may log in with AuthenticationMode::users: files as PgBouncer's userlist.
struct Users {
    std::filesystem::path file;       // SCRAM verifiers, of `pgchaperone user add`
    std::filesystem::path passwords;  // what to log in to the server with; empty: nothing is asked
};

// What comes of a statement whose record the disk does not take.
enum class OnAuditFailure : std::uint8_t { refuse, allow };

// Where records go besides the file.
struct Syslog {
    enum class Kind : std::uint8_t { none, unix_datagram, udp, tcp };
    Kind kind = Kind::none;
    std::string path;   // of the Unix-domain socket
    Endpoint endpoint;  // of the others
    std::string text() const;
};

struct Audit {
    std::filesystem::path file = "pgchaperone-audit.jsonl";
    std::uint64_t rotate_bytes = 256ULL << 20;  // 0: never
    std::chrono::milliseconds rotate_every{0};  // 0: never
    std::uint32_t keep = 0;                     // old files; 0: all
    bool compress = true;                       // old files
    std::filesystem::path checkpoint_key;       // PEM, Ed25519; empty: no checkpoints
    std::uint32_t checkpoint_every = 1000;      // lines
    OnAuditFailure on_failure = OnAuditFailure::refuse;
    std::chrono::milliseconds patience{10'000};  // with a slow disk
    bool standard_output = false;
    Syslog syslog;
};

// Where tickets are kept.
struct Approval {
    // The file of a SQLite database, or libpq's connection string or URI of a PostgreSQL one, which
    // several replicas can share.
    std::string store = "pgchaperone-tickets.db";
    std::string replica;  // this one's name among them; empty: the host's name and the address it
                          // listens on
};

// The page on which tickets are decided in a browser.
struct Web {
    std::optional<Endpoint> listen;  // nothing: there is no page, and no port is opened
    std::filesystem::path certificate;
    std::filesystem::path key;
    std::string url;  // where people reach it, without a slash at the end
    std::vector<policy::Network> trusted_proxies;
    std::string database = "postgres";
    std::chrono::milliseconds session_idle{3'600'000};
    std::chrono::milliseconds session_life{43'200'000};
    unsigned pages = 200;
};

enum class LogFormat : std::uint8_t { text, json };
struct Log {
    std::string level = "info";
    LogFormat format = LogFormat::text;
    std::filesystem::path file;  // empty: standard error
};

// How many sessions there may be; 0: any number.
struct Limits {
    std::uint32_t connections = 0;
    std::uint32_t connections_per_user = 0;
    std::uint32_t connections_per_address = 0;
    std::uint32_t reserved = 0;  // of `connections`
};

struct Options {
    Endpoint listen{"127.0.0.1", 6432};
    Endpoint upstream{"127.0.0.1", 5432};
    std::vector<policy::Glob> databases{policy::Glob("*")};  // that clients find there; never empty
    // Load balancers, whose connections begin with a header of PROXY protocol, version 2.
    std::vector<policy::Network> proxy_protocol;
    unsigned threads = 0;  // 0: one per core
    std::chrono::milliseconds login_timeout{60'000};
    std::chrono::milliseconds connect_timeout{10'000};
    std::chrono::milliseconds idle_timeout{0};                 // 0: for ever
    std::chrono::milliseconds idle_in_transaction_timeout{0};  // likewise
    std::chrono::milliseconds drain_timeout{30'000};
    std::chrono::milliseconds handover_timeout{3'600'000};
    std::string environment;  // UTF-8; empty: clients are told nothing
    Limits limits;
    AuthenticationMode authentication = AuthenticationMode::passthrough;
    Users users;
    Tls client_tls;
    Tls upstream_tls;
    Audit audit;
    Approval approval;
    Web web;
    std::optional<Endpoint> metrics;  // nothing: no port is opened for them
    Log log;
    std::vector<webhook::Hook> webhooks;
};

}  // namespace pgchaperone::config
