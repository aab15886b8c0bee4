// Wires the parts, and nothing else.

#include "cli/cli.h"
#include "config/options.h"
#include "proxy/net/log_format.h"
#include "proxy/net/server.h"

#include <boost/asio/ip/host_name.hpp>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

namespace {

using namespace pgchaperone;

net::TlsMode tls_mode(config::TlsMode mode) {
    switch (mode) {
        case config::TlsMode::disable: return net::TlsMode::disable;
        case config::TlsMode::allow: return net::TlsMode::allow;
        case config::TlsMode::prefer: return net::TlsMode::prefer;
        case config::TlsMode::require: return net::TlsMode::require;
        case config::TlsMode::verify_ca: return net::TlsMode::verify_ca;
        case config::TlsMode::verify_full: return net::TlsMode::verify_full;
    }
    return net::TlsMode::disable;
}

session::Authentication authentication(config::AuthenticationMode mode) {
    switch (mode) {
        case config::AuthenticationMode::passthrough: break;
        case config::AuthenticationMode::password: return session::Authentication::password;
        case config::AuthenticationMode::users: return session::Authentication::users;
    }
    return session::Authentication::passthrough;
}

net::TlsSettings tls_settings(const config::Tls& tls) {
    return {tls_mode(tls.mode), tls.certificate, tls.key, tls.ca};
}

// The same after a restart, so that what was waited for before is known to be waited for no more.
std::string name_of_this_replica(const config::Endpoint& listen) {
    boost::system::error_code error;
    const std::string host = boost::asio::ip::host_name(error);
    return (error ? "unknown" : host) + " " + listen.text();
}

std::optional<audit::SyslogTarget> syslog_target(const config::Syslog& syslog) {
    using Kind = audit::SyslogTarget::Kind;
    const std::string port = std::to_string(syslog.endpoint.port);
    switch (syslog.kind) {
        case config::Syslog::Kind::none: break;
        case config::Syslog::Kind::unix_datagram: return {{Kind::unix_datagram, syslog.path, {}}};
        case config::Syslog::Kind::udp: return {{Kind::udp, syslog.endpoint.host, port}};
        case config::Syslog::Kind::tcp: return {{Kind::tcp, syslog.endpoint.host, port}};
    }
    return std::nullopt;
}

// Where links to tickets lead; empty where that can't be known.
std::string page_url(const config::Web& web) {
    if (!web.url.empty() || !web.listen) return web.url;
    const std::string& host = web.listen->host;
    if (web.listen->unix_socket() || host.empty() || host == "*" || host == "0.0.0.0" ||
        host == "::") {
        return {};
    }
    return (web.certificate.empty() ? "http://" : "https://") + web.listen->text();
}

net::Changeable changeable(const config::Options& options) {
    net::Changeable out;
    out.limits = {options.limits.connections, options.limits.connections_per_user,
                  options.limits.connections_per_address, options.limits.reserved};
    out.idle = {options.idle_timeout, options.idle_in_transaction_timeout};
    out.environment = options.environment;
    out.handover_timeout = options.handover_timeout;
    return out;
}

net::ServerOptions server_options(const config::Options& options) {
    net::ServerOptions server;
    server.listen = {options.listen.host, options.listen.port};
    server.upstream = {options.upstream.host, options.upstream.port};
    server.threads = options.threads != 0 ? options.threads
                                          : std::max(1u, std::thread::hardware_concurrency());
    server.load_balancers = options.proxy_protocol;
    server.login_timeout = options.login_timeout;
    server.connect_timeout = options.connect_timeout;
    server.authentication = authentication(options.authentication);
    server.users = {options.users.file, options.users.passwords};
    server.drain_timeout = options.drain_timeout;
    server.changeable = changeable(options);
    server.client_tls = tls_settings(options.client_tls);
    server.upstream_tls = tls_settings(options.upstream_tls);
    server.upstream_negotiation = options.upstream_tls.negotiation == config::TlsNegotiation::direct
                                      ? net::UpstreamNegotiation::direct
                                      : net::UpstreamNegotiation::postgres;
    const config::Audit& audit = options.audit;
    server.audit.file = audit.file;
    server.audit.rotate_bytes = audit.rotate_bytes;
    server.audit.rotate_every = audit.rotate_every;
    server.audit.keep_old = audit.keep;
    server.audit.compress_old = audit.compress;
    server.audit.checkpoint_key = audit.checkpoint_key;
    server.audit.checkpoint_every = audit.checkpoint_every;
    server.audit.allow_on_failure = audit.on_failure == config::OnAuditFailure::allow;
    server.audit.patience = audit.patience;
    server.audit.standard_output = audit.standard_output;
    server.audit.syslog = syslog_target(audit.syslog);
    server.ticket_store = options.approval.store;
    server.tickets_in_postgres = config::is_connection_string(options.approval.store);
    server.page_url = page_url(options.web);
    if (options.web.listen) {
        const config::Web& web = options.web;
        server.web = net::WebOptions{{web.listen->host, web.listen->port},
                                     web.certificate,
                                     web.key,
                                     web.url,
                                     web.trusted_proxies,
                                     web.database,
                                     web.session_idle,
                                     web.session_life,
                                     web.pages};
    }
    if (options.metrics)
        server.metrics = net::Address{options.metrics->host, options.metrics->port};
    server.replica = options.approval.replica.empty() ? name_of_this_replica(options.listen)
                                                      : options.approval.replica;
    server.webhooks = options.webhooks;
    return server;
}

void start_log(const config::Log& log) {
    auto logger = log.file.empty() ? spdlog::stderr_logger_mt("pgchaperone")
                                   : spdlog::basic_logger_mt("pgchaperone", log.file.string());
    logger->set_level(spdlog::level::from_str(log.level));
    logger->flush_on(spdlog::level::info);
    logger->set_formatter(log.format == config::LogFormat::json ? net::json_log_formatter()
                                                                : net::text_log_formatter());
    spdlog::set_default_logger(std::move(logger));
}

int serve(const config::Options& options, std::shared_ptr<policy::RuleBook> rules,
          cli::Reload reload) {
    try {
        start_log(options.log);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "pgchaperone: can't write the log file: %s\n", error.what());
        return cli::exit_trouble;
    }
    const auto reload_all = [reload = std::move(reload)] {
        cli::Reloaded reloaded = reload();
        return net::Reloaded{std::move(reloaded.trouble), std::move(reloaded.options.webhooks),
                             changeable(reloaded.options), std::move(reloaded.restart)};
    };
    return net::serve(server_options(options), std::move(rules), reload_all,
                      [](const std::string& trouble) {
                          std::fprintf(stderr, "pgchaperone: %s\n", trouble.c_str());
                      });
}

}  // namespace

int main(int argc, char** argv) { return pgchaperone::cli::run(argc, argv, serve); }
