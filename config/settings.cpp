#include "config/settings.h"

#include "config/connection_string.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

namespace pgchaperone::config {
namespace {

using Shape = Setting::Shape;
using Wrong = std::optional<std::string>;
using Base = const std::filesystem::path&;

const std::vector<std::string>& client_tls_modes() {
    static const std::vector<std::string> words = {"disable", "allow",     "prefer",
                                                   "require", "verify-ca", "verify-full"};
    return words;
}
const std::vector<std::string>& negotiations() {
    static const std::vector<std::string> words = {"postgres", "direct"};
    return words;
}
const std::vector<std::string>& authentications() {
    static const std::vector<std::string> words = {"passthrough", "password", "users"};
    return words;
}
const std::vector<std::string>& audit_failures() {
    static const std::vector<std::string> words = {"refuse", "allow"};
    return words;
}
const std::vector<std::string>& on_off() {
    static const std::vector<std::string> words = {"on", "off"};
    return words;
}
const std::vector<std::string>& log_levels() {
    static const std::vector<std::string> words = {"trace", "debug",    "info", "warn",
                                                   "error", "critical", "off"};
    return words;
}

const std::vector<std::string>& log_formats() {
    static const std::vector<std::string> words = {"text", "json"};
    return words;
}

// The value goes where it belongs, or the error says why not.
template <class Value, class Target>
Wrong put(const Parsed<Value>& value, Target& target) {
    if (!value) return value.error().message;
    target = static_cast<Target>(*value);
    return std::nullopt;
}

Wrong put_path(std::string_view text, Base base, std::filesystem::path& target) {
    if (text.empty()) return "a file name is missing";
    target = base.empty() ? std::filesystem::path(text) : base / std::filesystem::path(text);
    target = target.lexically_normal();
    return std::nullopt;
}

constexpr std::size_t replica_bytes_max = 200;
constexpr std::size_t database_bytes_max = 63;

Wrong put_store(std::string_view text, Base base, std::string& target) {
    if (is_connection_string(text)) {
        if (auto problem = problem_of_connection_string(text)) return problem;
        target = text;
        return std::nullopt;
    }
    std::filesystem::path file;
    if (const Wrong wrong = put_path(text, base, file)) return wrong;
    target = file.string();
    return std::nullopt;
}

constexpr std::size_t url_bytes_max = 500;
constexpr std::size_t environment_bytes_max = 100;
constexpr std::uint32_t connections_max = 1'000'000;

// An origin, as browsers name it: a scheme and a host, maybe a port, and no path.
Wrong put_origin(std::string_view text, std::string& target) {
    std::string_view host = text;
    while (host.ends_with('/')) host.remove_suffix(1);
    const std::string_view origin = host;
    for (const std::string_view scheme : {"https://", "http://"}) {
        if (!host.starts_with(scheme)) continue;
        host.remove_prefix(scheme.size());
        const bool plain = std::none_of(host.begin(), host.end(), [](char c) {
            return c <= ' ' || c == '/' || c == '?' || c == '#' || c == '@' || c == '"' ||
                   c == '\\' || c == 0x7F || (c >= 'A' && c <= 'Z');
        });
        if (host.empty() || !plain || text.size() > url_bytes_max) break;
        target = origin;
        return std::nullopt;
    }
    return "\"" + std::string(text) +
           "\" is no address of a page: https://guard.example.org, in small letters, without a "
           "path";
}

std::string networks_text(const std::vector<policy::Network>& networks) {
    std::string out;
    for (const policy::Network& network : networks)
        out += (out.empty() ? "" : ", ") + network.text();
    return out;
}

// The parts between commas, without the blanks around them.
std::vector<std::string_view> split(std::string_view text) {
    std::vector<std::string_view> parts;
    for (std::string_view rest = text; !rest.empty();) {
        const auto comma = std::min(rest.find(','), rest.size());
        std::string_view one = rest.substr(0, comma);
        rest.remove_prefix(std::min(comma + 1, rest.size()));
        while (one.starts_with(' ')) one.remove_prefix(1);
        while (one.ends_with(' ')) one.remove_suffix(1);
        parts.push_back(one);
    }
    return parts;
}

Wrong put_networks(std::string_view text, std::vector<policy::Network>& target) {
    std::vector<policy::Network> networks;
    for (const std::string_view one : split(text)) {
        auto network = policy::Network::parse(one);
        if (!network) return network.error().message;
        networks.push_back(*std::move(network));
    }
    if (networks.empty()) return "a network or an address is missing";
    target = std::move(networks);
    return std::nullopt;
}

std::string databases_text(const std::vector<policy::Glob>& databases) {
    std::string out;
    for (const policy::Glob& database : databases)
        out += (out.empty() ? "" : ", ") + database.text();
    return out;
}

Wrong put_databases(std::string_view text, std::vector<policy::Glob>& target) {
    std::vector<policy::Glob> databases;
    for (const std::string_view one : split(text)) {
        // The server cuts longer ones off, so that none would match.
        if (one.empty() || one.size() > database_bytes_max)
            return "a database's name has 1 to " + std::to_string(database_bytes_max) + " bytes";
        databases.emplace_back(one);
    }
    if (databases.empty()) return "a database's name is missing; \"*\" is all of them";
    target = std::move(databases);
    return std::nullopt;
}

// What is shown to people who can't be asked back: one line of text.
Wrong put_environment(std::string_view text, std::string& target) {
    std::size_t continues = 0;  // bytes of a character of UTF-8 that are still to come
    bool good = !text.empty() && text.size() <= environment_bytes_max;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        const bool continuation = (byte & 0xC0) == 0x80;
        good = good && byte >= 0x20 && byte != 0x7F && continuation == (continues > 0);
        if (continuation && continues > 0) {
            --continues;
        } else {
            continues = byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : byte >= 0xC0 ? 1 : 0;
        }
    }
    if (!good || continues > 0) {
        return "an environment's name is one line of 1 to " +
               std::to_string(environment_bytes_max) + " bytes of UTF-8";
    }
    target = text;
    return std::nullopt;
}

// Of an address that can be read.
bool names_port(std::string_view address) {
    return address.rfind(':') != std::string_view::npos && !address.ends_with(']');
}

// PostgreSQL's, which is the usual one, would be none of an HTTP server's.
std::string no_port(std::string_view address) {
    return "\"" + std::string(address) + "\" names no port; write host:port, such as " +
           std::string(address) + ":8080";
}

Wrong put_syslog(std::string_view text, Syslog& target) {
    using Kind = Syslog::Kind;
    if (text.starts_with('/')) {
        target = {Kind::unix_datagram, std::string(text), {}};
        return std::nullopt;
    }
    for (const auto& [scheme, kind] : {std::pair{std::string_view("udp://"), Kind::udp},
                                       std::pair{std::string_view("tcp://"), Kind::tcp}}) {
        if (!text.starts_with(scheme)) continue;
        const std::string_view address = text.substr(scheme.size());
        const auto endpoint = parse_endpoint(address);
        if (!endpoint) return endpoint.error().message;
        if (endpoint->unix_socket() || !names_port(address))
            return "a syslog server has a host and a port, such as udp://127.0.0.1:514";
        target = {kind, {}, *endpoint};
        return std::nullopt;
    }
    return "it must be the path of a socket, such as /dev/log, or udp://HOST:PORT, or "
           "tcp://HOST:PORT";
}

Wrong put_mode(std::string_view text, TlsMode& target) {
    std::string word(text);
    for (char& c : word) c = c == '_' ? '-' : c;
    return put(parse_word(word, client_tls_modes()), target);
}

std::string mode_text(TlsMode mode) { return client_tls_modes()[static_cast<std::size_t>(mode)]; }

}  // namespace

std::string Endpoint::text() const {
    if (host.find(':') != std::string::npos) return "[" + host + "]:" + std::to_string(port);
    return host + ":" + std::to_string(port);
}

std::string Syslog::text() const {
    switch (kind) {
        case Kind::none: return {};
        case Kind::unix_datagram: return path;
        case Kind::udp: return "udp://" + endpoint.text();
        case Kind::tcp: return "tcp://" + endpoint.text();
    }
    return {};
}

std::span<const Setting> settings() {
    using O = Options;
    using S = std::string_view;
    static const std::vector<std::string> upstream_modes = {"disable", "prefer", "require",
                                                            "verify-ca", "verify-full"};
    static const std::array table = {
        Setting{"listen",
                "--listen",
                "HOST:PORT",
                Shape::endpoint,
                {},
                "Where clients connect: an address and a port, or a directory for a Unix-domain "
                "socket.",
                "0.0.0.0:6432",
                [](O& o, S t, Base) { return put(parse_endpoint(t), o.listen); },
                [](const O& o) { return o.listen.text(); }},
        Setting{"upstream",
                "--upstream",
                "HOST:PORT",
                Shape::endpoint,
                {},
                "The PostgreSQL server to guard: an address and a port, or the directory of its "
                "Unix-domain socket.",
                "db.internal:5432",
                [](O& o, S t, Base) { return put(parse_endpoint(t), o.upstream); },
                [](const O& o) { return o.upstream.text(); }},
        Setting{"databases",
                "--databases",
                "NAMES",
                Shape::list,
                {},
                "Which databases clients find there: names, with * and ? and commas between them.",
                "shop, crm_*",
                [](O& o, S t, Base) { return put_databases(t, o.databases); },
                [](const O& o) { return databases_text(o.databases); }},
        Setting{
            "proxy_protocol",
            "--proxy-protocol",
            "NETWORKS",
            Shape::list,
            {},
            "Load balancers, whose connections begin with a header of PROXY protocol v2 that says "
            "who the client is: addresses and networks, with commas between them.",
            "10.0.0.0/24, 10.0.1.7",
            [](O& o, S t, Base) { return put_networks(t, o.proxy_protocol); },
            [](const O& o) { return networks_text(o.proxy_protocol); }},
        Setting{"threads",
                "--threads",
                "N",
                Shape::count,
                {},
                "Threads that serve connections; 0 means one for each processor core.",
                "4",
                [](O& o, S t, Base) { return put(parse_count(t, 0, 1024), o.threads); },
                [](const O& o) { return std::to_string(o.threads); }},
        Setting{"login_timeout",
                "--login-timeout",
                "TIME",
                Shape::duration,
                {},
                "How long a client may take from connecting to being logged in.",
                "30s",
                [](O& o, S t, Base) { return put(parse_duration(t), o.login_timeout); },
                [](const O& o) { return duration_text(o.login_timeout); }},
        Setting{"connect_timeout",
                "--connect-timeout",
                "TIME",
                Shape::duration,
                {},
                "How long connecting to the server may take.",
                "3s",
                [](O& o, S t, Base) { return put(parse_duration(t), o.connect_timeout); },
                [](const O& o) { return duration_text(o.connect_timeout); }},
        Setting{"idle_timeout",
                "--idle-timeout",
                "TIME",
                Shape::duration,
                {},
                "How long a session may do nothing outside of a transaction before it is ended; "
                "0s: for ever.",
                "8h",
                [](O& o, S t, Base) { return put(parse_duration(t), o.idle_timeout); },
                [](const O& o) { return duration_text(o.idle_timeout); }},
        Setting{
            "idle_in_transaction_timeout",
            "--idle-in-transaction-timeout",
            "TIME",
            Shape::duration,
            {},
            "How long a session may do nothing inside a transaction before it is ended and the "
            "transaction rolled back; 0s: for ever.",
            "10m",
            [](O& o, S t, Base) { return put(parse_duration(t), o.idle_in_transaction_timeout); },
            [](const O& o) { return duration_text(o.idle_in_transaction_timeout); }},
        Setting{"drain_timeout",
                "--drain-timeout",
                "TIME",
                Shape::duration,
                {},
                "How long sessions may finish what they do when pgchaperone is told to end; 0s: "
                "not at all.",
                "2m",
                [](O& o, S t, Base) { return put(parse_duration(t), o.drain_timeout); },
                [](const O& o) { return duration_text(o.drain_timeout); }},
        Setting{"handover_timeout",
                "--handover-timeout",
                "TIME",
                Shape::duration,
                {},
                "How long sessions may go on in a process that another one has taken over from, "
                "at an upgrade by SIGUSR2; 0s: not at all.",
                "12h",
                [](O& o, S t, Base) { return put(parse_duration(t), o.handover_timeout); },
                [](const O& o) { return duration_text(o.handover_timeout); }},
        Setting{"environment",
                "--environment",
                "NAME",
                Shape::text,
                {},
                "The name of what is guarded, such as PRODUCTION, which clients are told when they "
                "log in; without it they are told nothing.",
                "PRODUCTION",
                [](O& o, S t, Base) { return put_environment(t, o.environment); },
                [](const O& o) { return o.environment; }},
        Setting{"limits.connections",
                "--max-connections",
                "N",
                Shape::count,
                {},
                "How many sessions there may be at the same time; 0: as many as the server takes.",
                "200",
                [](O& o, S t, Base) {
                    return put(parse_count(t, 0, connections_max), o.limits.connections);
                },
                [](const O& o) { return std::to_string(o.limits.connections); }},
        Setting{"limits.connections_per_user",
                "--max-connections-per-user",
                "N",
                Shape::count,
                {},
                "How many of them one role may have; 0: any number.",
                "20",
                [](O& o, S t, Base) {
                    return put(parse_count(t, 0, connections_max), o.limits.connections_per_user);
                },
                [](const O& o) { return std::to_string(o.limits.connections_per_user); }},
        Setting{"limits.connections_per_address",
                "--max-connections-per-address",
                "N",
                Shape::count,
                {},
                "How many of them may come from one address; 0: any number. Sessions by a "
                "Unix-domain socket have none.",
                "50",
                [](O& o, S t, Base) {
                    return put(parse_count(t, 0, connections_max),
                               o.limits.connections_per_address);
                },
                [](const O& o) { return std::to_string(o.limits.connections_per_address); }},
        Setting{"limits.reserved",
                "--reserved-connections",
                "N",
                Shape::count,
                {},
                "How many of limits.connections are kept for the policy's operators and approvers.",
                "5",
                [](O& o, S t, Base) {
                    return put(parse_count(t, 0, connections_max), o.limits.reserved);
                },
                [](const O& o) { return std::to_string(o.limits.reserved); }},
        Setting{
            "authentication", "--authentication", "HOW", Shape::word, authentications(),
            "Who checks the password: passthrough leaves it to the server; password asks for it "
            "over TLS and "
            "logs in to the server with it; users checks it here, by users.file.",
            "users",
            [](O& o, S t, Base) { return put(parse_word(t, authentications()), o.authentication); },
            [](const O& o) {
                return authentications()[static_cast<std::size_t>(o.authentication)];
            }},
        Setting{"users.file",
                "--users",
                "FILE",
                Shape::path,
                {},
                "Who may log in, with authentication: users: names and SCRAM verifiers, as "
                "`pgchaperone user add` writes them.",
                "/etc/pgchaperone/users",
                [](O& o, S t, Base b) { return put_path(t, b, o.users.file); },
                [](const O& o) { return o.users.file.string(); }},
        Setting{"users.passwords",
                "--users-passwords",
                "FILE",
                Shape::path,
                {},
                "Names and passwords with which pgchaperone logs in to the server in their place; "
                "without it the server must ask for none (certificate).",
                "/etc/pgchaperone/passwords",
                [](O& o, S t, Base b) { return put_path(t, b, o.users.passwords); },
                [](const O& o) { return o.users.passwords.string(); }},
        Setting{"client_tls.mode", "--client-tls", "MODE", Shape::word, client_tls_modes(),
                "TLS with clients: disable, allow and prefer (where the client asks for it), "
                "require, verify-ca and "
                "verify-full (with a client certificate).",
                "require", [](O& o, S t, Base) { return put_mode(t, o.client_tls.mode); },
                [](const O& o) { return mode_text(o.client_tls.mode); }},
        Setting{"client_tls.certificate",
                "--client-tls-cert",
                "FILE",
                Shape::path,
                {},
                "The certificate chain that clients see (PEM).",
                "/etc/pgchaperone/server.crt",
                [](O& o, S t, Base b) { return put_path(t, b, o.client_tls.certificate); },
                [](const O& o) { return o.client_tls.certificate.string(); }},
        Setting{"client_tls.key",
                "--client-tls-key",
                "FILE",
                Shape::path,
                {},
                "The key of that certificate (PEM).",
                "/etc/pgchaperone/server.key",
                [](O& o, S t, Base b) { return put_path(t, b, o.client_tls.key); },
                [](const O& o) { return o.client_tls.key.string(); }},
        Setting{"client_tls.ca",
                "--client-tls-ca",
                "FILE",
                Shape::path,
                {},
                "Authorities that may sign clients' certificates (PEM).",
                "/etc/pgchaperone/clients.crt",
                [](O& o, S t, Base b) { return put_path(t, b, o.client_tls.ca); },
                [](const O& o) { return o.client_tls.ca.string(); }},
        Setting{"upstream_tls.mode", "--upstream-tls", "MODE", Shape::word, upstream_modes,
                "TLS with the server, as libpq's sslmode: disable, prefer, require, verify-ca or "
                "verify-full.",
                "verify-full",
                [](O& o, S t, Base) -> Wrong {
                    if (t == "allow") {
                        return "\"allow\" is not offered towards the server: it would try in clear "
                               "first; write "
                               "prefer or require";
                    }
                    return put_mode(t, o.upstream_tls.mode);
                },
                [](const O& o) { return mode_text(o.upstream_tls.mode); }},
        Setting{"upstream_tls.negotiation", "--upstream-tls-negotiation", "HOW", Shape::word,
                negotiations(),
                "How TLS with the server begins: postgres sends SSLRequest first; direct begins at "
                "once (server 17 "
                "or newer).",
                "direct",
                [](O& o, S t, Base) {
                    return put(parse_word(t, negotiations()), o.upstream_tls.negotiation);
                },
                [](const O& o) {
                    return negotiations()[static_cast<std::size_t>(o.upstream_tls.negotiation)];
                }},
        Setting{"upstream_tls.ca",
                "--upstream-tls-ca",
                "FILE",
                Shape::path,
                {},
                "Authorities that may sign the server's certificate (PEM); or system: those of "
                "this machine, with "
                "verify-full only.",
                // A word and no file's name; net::make_client_context knows it, too.
                "/etc/pgchaperone/root.crt",
                [](O& o, S t, Base b) {
                    return put_path(t, t == "system" ? std::filesystem::path() : b,
                                    o.upstream_tls.ca);
                },
                [](const O& o) { return o.upstream_tls.ca.string(); }},
        Setting{"upstream_tls.certificate",
                "--upstream-tls-cert",
                "FILE",
                Shape::path,
                {},
                "The certificate to show to the server (PEM).",
                "/etc/pgchaperone/client.crt",
                [](O& o, S t, Base b) { return put_path(t, b, o.upstream_tls.certificate); },
                [](const O& o) { return o.upstream_tls.certificate.string(); }},
        Setting{"upstream_tls.key",
                "--upstream-tls-key",
                "FILE",
                Shape::path,
                {},
                "The key of that certificate (PEM).",
                "/etc/pgchaperone/client.key",
                [](O& o, S t, Base b) { return put_path(t, b, o.upstream_tls.key); },
                [](const O& o) { return o.upstream_tls.key.string(); }},
        Setting{"audit.file",
                "--audit",
                "FILE",
                Shape::path,
                {},
                "The audit log: one JSON object a line for every statement that was not simply "
                "allowed.",
                "/var/log/pgchaperone/audit.jsonl",
                [](O& o, S t, Base b) { return put_path(t, b, o.audit.file); },
                [](const O& o) { return o.audit.file.string(); }},
        Setting{"audit.rotate_size",
                "--audit-rotate-size",
                "SIZE",
                Shape::size,
                {},
                "The audit log goes on in a new file when it is so large; 0: never.",
                "1GB",
                [](O& o, S t, Base) { return put(parse_size(t), o.audit.rotate_bytes); },
                [](const O& o) { return size_text(o.audit.rotate_bytes); }},
        Setting{"audit.rotate_every",
                "--audit-rotate-every",
                "TIME",
                Shape::duration,
                {},
                "The audit log goes on in a new file each time that a multiple of this has passed "
                "(1d: at midnight UTC); 0s: never.",
                "1d",
                [](O& o, S t, Base) { return put(parse_duration(t), o.audit.rotate_every); },
                [](const O& o) { return duration_text(o.audit.rotate_every); }},
        Setting{"audit.keep",
                "--audit-keep",
                "N",
                Shape::count,
                {},
                "How many old files of the audit log are kept; 0: all of them.",
                "400",
                [](O& o, S t, Base) { return put(parse_count(t, 0, 1'000'000), o.audit.keep); },
                [](const O& o) { return std::to_string(o.audit.keep); }},
        Setting{"audit.compress", "--audit-compress", "WHETHER", Shape::word, on_off(),
                "Whether old files of the audit log are compressed (gzip): on or off.", "off",
                [](O& o, S t, Base) { return put(parse_flag(t), o.audit.compress); },
                [](const O& o) { return std::string(o.audit.compress ? "on" : "off"); }},
        Setting{"audit.checkpoint_key",
                "--audit-checkpoint-key",
                "FILE",
                Shape::path,
                {},
                "The private Ed25519 key (PEM) that signs checkpoints of the audit log; without it "
                "there are none.",
                "/etc/pgchaperone/audit.key",
                [](O& o, S t, Base b) { return put_path(t, b, o.audit.checkpoint_key); },
                [](const O& o) { return o.audit.checkpoint_key.string(); }},
        Setting{"audit.checkpoint_every",
                "--audit-checkpoint-every",
                "N",
                Shape::count,
                {},
                "After how many lines of the audit log a checkpoint is signed; it is after a "
                "minute in any case.",
                "100",
                [](O& o, S t, Base) {
                    return put(parse_count(t, 1, 1'000'000), o.audit.checkpoint_every);
                },
                [](const O& o) { return std::to_string(o.audit.checkpoint_every); }},
        Setting{
            "audit.on_failure", "--audit-on-failure", "WHAT", Shape::word, audit_failures(),
            "What comes of a statement whose record can't be written: refuse, or allow (it runs "
            "without one, and the log tells).",
            "allow",
            [](O& o, S t, Base) {
                return put(parse_word(t, audit_failures()), o.audit.on_failure);
            },
            [](const O& o) {
                return audit_failures()[static_cast<std::size_t>(o.audit.on_failure)];
            }},
        Setting{
            "audit.patience",
            "--audit-patience",
            "TIME",
            Shape::duration,
            {},
            "How long a statement waits for its record to be on the disk before that counts as "
            "a failure.",
            "2s",
            [](O& o, S t, Base) -> Wrong {
                const auto time = parse_duration(t);
                if (time && time->count() == 0)
                    return "no disk is that fast; write how long a statement waits, such as 10s";
                return put(time, o.audit.patience);
            },
            [](const O& o) { return duration_text(o.audit.patience); }},
        Setting{"audit.stdout", "--audit-stdout", "WHETHER", Shape::word, on_off(),
                "Whether records go to standard output, too: on or off.", "on",
                [](O& o, S t, Base) { return put(parse_flag(t), o.audit.standard_output); },
                [](const O& o) { return std::string(o.audit.standard_output ? "on" : "off"); }},
        Setting{"audit.syslog",
                "--audit-syslog",
                "WHERE",
                Shape::text,
                {},
                "Where syslog takes the records, too: the path of a Unix-domain socket, such as "
                "/dev/log, or a server (RFC 5424), udp://HOST:PORT or tcp://HOST:PORT.",
                "tcp://logs.internal:601",
                [](O& o, S t, Base) { return put_syslog(t, o.audit.syslog); },
                [](const O& o) { return o.audit.syslog.text(); }},
        Setting{"approval.store",
                "--approval-store",
                "STORE",
                Shape::text,
                {},
                "Where tickets are kept: a file (SQLite), or a PostgreSQL database that several "
                "replicas share, as a connection string of libpq's (postgresql://... or host=... "
                "dbname=...).",
                "postgresql://guard@db.internal/tickets",
                [](O& o, S t, Base b) { return put_store(t, b, o.approval.store); },
                [](const O& o) { return without_password(o.approval.store); }},
        Setting{"approval.replica",
                "--approval-replica",
                "NAME",
                Shape::text,
                {},
                "The name of this proxy among those that share the store; without it the host's "
                "name and the address it listens on.",
                "guard-1",
                [](O& o, S t, Base) -> Wrong {
                    if (t.empty() || t.size() > replica_bytes_max) {
                        return "a replica's name has 1 to " + std::to_string(replica_bytes_max) +
                               " bytes";
                    }
                    o.approval.replica = t;
                    return std::nullopt;
                },
                [](const O& o) { return o.approval.replica; }},
        Setting{"web.listen",
                "--web-listen",
                "HOST:PORT",
                Shape::endpoint,
                {},
                "Where the approval page is served; without it there is none, and no port is "
                "opened.",
                "0.0.0.0:8443",
                [](O& o, S t, Base) -> Wrong {
                    auto parsed = parse_endpoint(t);
                    if (!parsed) return parsed.error().message;
                    if (!names_port(t)) return no_port(t);
                    o.web.listen = *std::move(parsed);
                    return std::nullopt;
                },
                [](const O& o) { return o.web.listen ? o.web.listen->text() : std::string(); }},
        Setting{"web.certificate",
                "--web-cert",
                "FILE",
                Shape::path,
                {},
                "The certificate chain of the page (PEM); without it the page speaks plain HTTP.",
                "/etc/pgchaperone/page.crt",
                [](O& o, S t, Base b) { return put_path(t, b, o.web.certificate); },
                [](const O& o) { return o.web.certificate.string(); }},
        Setting{"web.key",
                "--web-key",
                "FILE",
                Shape::path,
                {},
                "The key of that certificate (PEM).",
                "/etc/pgchaperone/page.key",
                [](O& o, S t, Base b) { return put_path(t, b, o.web.key); },
                [](const O& o) { return o.web.key.string(); }},
        Setting{"web.url",
                "--web-url",
                "URL",
                Shape::text,
                {},
                "Where people reach the page, if a proxy stands in front of it: "
                "https://guard.example.org.",
                "https://guard.example.org",
                [](O& o, S t, Base) { return put_origin(t, o.web.url); },
                [](const O& o) { return o.web.url; }},
        Setting{"web.trusted_proxies",
                "--web-trusted-proxies",
                "NETWORKS",
                Shape::list,
                {},
                "Proxies in front of the page whose X-Forwarded-For is believed: addresses and "
                "networks, with commas between them.",
                "10.0.0.0/24",
                [](O& o, S t, Base) { return put_networks(t, o.web.trusted_proxies); },
                [](const O& o) { return networks_text(o.web.trusted_proxies); }},
        Setting{"web.database",
                "--web-database",
                "NAME",
                Shape::text,
                {},
                "The database that people log in to on the page; it is only asked who they are.",
                "shop",
                [](O& o, S t, Base) -> Wrong {
                    if (t.empty() || t.size() > database_bytes_max) {
                        return "the name of a database has 1 to 63 bytes";
                    }
                    o.web.database = t;
                    return std::nullopt;
                },
                [](const O& o) { return o.web.database; }},
        Setting{"web.session_idle",
                "--web-session-idle",
                "TIME",
                Shape::duration,
                {},
                "How long after somebody's last page was closed they are logged out.",
                "15m",
                [](O& o, S t, Base) { return put(parse_duration(t), o.web.session_idle); },
                [](const O& o) { return duration_text(o.web.session_idle); }},
        Setting{"web.session_life",
                "--web-session-life",
                "TIME",
                Shape::duration,
                {},
                "How long after logging in they are logged out, whatever they do.",
                "8h",
                [](O& o, S t, Base) { return put(parse_duration(t), o.web.session_life); },
                [](const O& o) { return duration_text(o.web.session_life); }},
        Setting{"web.pages",
                "--web-pages",
                "N",
                Shape::count,
                {},
                "How many pages may wait for news at the same time; more than these ask now and "
                "then.",
                "50",
                [](O& o, S t, Base) { return put(parse_count(t, 0, 500), o.web.pages); },
                [](const O& o) { return std::to_string(o.web.pages); }},
        Setting{"metrics.listen",
                "--metrics-listen",
                "HOST:PORT",
                Shape::endpoint,
                {},
                "Where /metrics (for Prometheus), /healthz and /readyz are served; without it no "
                "port is opened for them.",
                "0.0.0.0:9187",
                [](O& o, S t, Base) -> Wrong {
                    auto parsed = parse_endpoint(t);
                    if (!parsed) return parsed.error().message;
                    if (!names_port(t)) return no_port(t);
                    o.metrics = *std::move(parsed);
                    return std::nullopt;
                },
                [](const O& o) { return o.metrics ? o.metrics->text() : std::string(); }},
        Setting{"log.level", "--log-level", "LEVEL", Shape::word, log_levels(),
                "How much the log tells: trace, debug, info, warn, error, critical or off.", "warn",
                [](O& o, S t, Base) -> Wrong {
                    const auto word = parse_word(t == "warning" ? S("warn") : t, log_levels());
                    if (!word) return word.error().message;
                    o.log.level = log_levels()[*word];
                    return std::nullopt;
                },
                [](const O& o) { return o.log.level; }},
        Setting{"log.format", "--log-format", "FORMAT", Shape::word, log_formats(),
                "How the log is written: text, or json (one object a line).", "json",
                [](O& o, S t, Base) { return put(parse_word(t, log_formats()), o.log.format); },
                [](const O& o) { return log_formats()[static_cast<std::size_t>(o.log.format)]; }},
        Setting{"log.file",
                "--log-file",
                "FILE",
                Shape::path,
                {},
                "Where the log goes; without it to standard error.",
                "/var/log/pgchaperone/pgchaperone.log",
                [](O& o, S t, Base b) { return put_path(t, b, o.log.file); },
                [](const O& o) { return o.log.file.string(); }},
    };
    return table;
}

const Setting* find_setting(std::string_view key) {
    for (const Setting& setting : settings()) {
        if (setting.key == key) return &setting;
    }
    return nullptr;
}

namespace {

// What a process takes while it serves: net::Changeable.
bool changes_on_reload(std::string_view key) {
    return key.starts_with("limits.") || key == "idle_timeout" ||
           key == "idle_in_transaction_timeout" || key == "handover_timeout" ||
           key == "environment";
}

}  // namespace

std::vector<std::string> changed_for_restart(const Options& running, const Options& wanted) {
    std::vector<std::string> keys;
    for (const Setting& setting : settings()) {
        if (changes_on_reload(setting.key)) continue;
        if (setting.show(running) != setting.show(wanted)) keys.emplace_back(setting.key);
    }
    return keys;
}

namespace {

// Only the machine itself reaches such an address.
bool loopback(const Endpoint& endpoint) {
    const bool four = endpoint.host.starts_with("127.") &&
                      endpoint.host.find_first_not_of("0123456789.") == std::string::npos;
    return endpoint.unix_socket() || endpoint.host == "localhost" || endpoint.host == "::1" || four;
}

void web_inconsistencies(const Options& options, std::vector<Inconsistency>& out) {
    const Web& web = options.web;
    if (web.certificate.empty() != web.key.empty()) {
        out.push_back({web.key.empty() ? "web.certificate" : "web.key",
                       "a certificate and its key belong together",
                       "set web.certificate and web.key"});
    }
    if (!web.listen) return;
    if (!loopback(*web.listen) && web.certificate.empty() && !web.url.starts_with("https://")) {
        out.push_back(
            {"web.listen",
             "passwords would cross the network in clear: " + web.listen->text() +
                 " is not this machine alone",
             "set web.certificate and web.key; or listen on 127.0.0.1; or, behind a proxy "
             "that speaks TLS, say so: web.url: https://..."});
    }
    if (!web.certificate.empty() && web.url.starts_with("http://")) {
        out.push_back(
            {"web.url", "the page speaks TLS, and this address does not", "write https://"});
    }
    for (const auto& [other, key] :
         {std::pair(options.listen, "listen"), std::pair(options.upstream, "upstream")}) {
        if (*web.listen == other) {
            out.push_back(
                {"web.listen",
                 std::string("the page can't be where ") + key + " is, at " + other.text(),
                 "give it a port of its own"});
        }
    }
}

void metrics_inconsistencies(const Options& options, std::vector<Inconsistency>& out) {
    if (!options.metrics) return;
    const std::pair<const Endpoint*, const char*> others[] = {
        {&options.listen, "listen"},
        {&options.upstream, "upstream"},
        {options.web.listen ? &*options.web.listen : nullptr, "web.listen"}};
    for (const auto& [other, key] : others) {
        if (other == nullptr || !(*options.metrics == *other)) continue;
        out.push_back(
            {"metrics.listen",
             std::string("metrics can't be served where ") + key + " is, at " + other->text(),
             "give them a port of their own"});
    }
}

}  // namespace

std::vector<Inconsistency> inconsistencies(const Options& options) {
    std::vector<Inconsistency> out;
    const Tls& client = options.client_tls;
    const Tls& upstream = options.upstream_tls;
    if (client.mode != TlsMode::disable && client.certificate.empty()) {
        out.push_back(
            {"client_tls.mode", "TLS with clients needs a certificate",
             "set client_tls.certificate and client_tls.key, or client_tls.mode: disable"});
    }
    if (client.certificate.empty() != client.key.empty()) {
        out.push_back({client.key.empty() ? "client_tls.certificate" : "client_tls.key",
                       "a certificate and its key belong together",
                       "set client_tls.certificate and client_tls.key"});
    }
    if ((client.mode == TlsMode::verify_ca || client.mode == TlsMode::verify_full) &&
        client.ca.empty()) {
        out.push_back({"client_tls.mode", "verifying clients' certificates needs an authority",
                       "set client_tls.ca"});
    }
    if (upstream.certificate.empty() != upstream.key.empty()) {
        out.push_back({upstream.key.empty() ? "upstream_tls.certificate" : "upstream_tls.key",
                       "a certificate and its key belong together",
                       "set upstream_tls.certificate and upstream_tls.key"});
    }
    if ((upstream.mode == TlsMode::verify_ca || upstream.mode == TlsMode::verify_full) &&
        upstream.ca.empty()) {
        out.push_back({"upstream_tls.mode", "verifying the server's certificate needs an authority",
                       "set upstream_tls.ca"});
    }
    if (upstream.negotiation == TlsNegotiation::direct &&
        (upstream.mode == TlsMode::disable || upstream.mode == TlsMode::prefer)) {
        out.push_back({"upstream_tls.negotiation", "direct TLS has nothing to fall back to",
                       "set upstream_tls.mode to require, verify-ca or verify-full"});
    }
    if (options.authentication == AuthenticationMode::password &&
        (client.mode == TlsMode::disable || client.mode == TlsMode::allow ||
         client.mode == TlsMode::prefer)) {
        out.push_back(
            {"authentication",
             "password authentication asks for the password in clear, so clients must use TLS",
             "set client_tls.mode: require"});
    }
    if (options.authentication == AuthenticationMode::users && options.users.file.empty()) {
        out.push_back({"authentication", "nobody could log in: there is no file of users",
                       "set users.file, and fill it by `pgchaperone user add NAME`"});
    }
    if (options.authentication != AuthenticationMode::users &&
        !(options.users.file.empty() && options.users.passwords.empty())) {
        out.push_back({options.users.file.empty() ? "users.passwords" : "users.file",
                       "this is read with authentication: users only",
                       "set authentication: users, or leave it out"});
    }
    if (options.limits.reserved > 0 && options.limits.reserved >= options.limits.connections) {
        out.push_back({"limits.reserved",
                       options.limits.connections == 0
                           ? "nothing can be reserved where limits.connections sets no limit"
                           : "nobody else could connect: limits.connections is no larger",
                       "set limits.connections to more than limits.reserved"});
    }
    web_inconsistencies(options, out);
    metrics_inconsistencies(options, out);
    if (options.listen == options.upstream) {
        out.push_back({"listen",
                       "the proxy would connect to itself: listen and upstream are both " +
                           options.listen.text(),
                       "give one of them another port"});
    }
    return out;
}

}  // namespace pgchaperone::config
