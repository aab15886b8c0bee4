// Wires the parts, and nothing else.

#include "cli/cli.h"
#include "config/loader.h"
#include "proxy/net/hand_over.h"
#include "proxy/net/journal.h"
#include "proxy/net/log_format.h"
#include "proxy/net/named_files.h"
#include "proxy/net/program_log.h"
#include "proxy/net/server.h"
#include "proxy/net/service_manager.h"

#include <boost/asio/ip/host_name.hpp>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

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

net::UpstreamOptions upstream_options(const std::string& name, const config::Options& options) {
    net::UpstreamOptions upstream;
    upstream.name = name;
    upstream.address = {options.upstream.host, options.upstream.port};
    upstream.databases = options.databases;
    upstream.connect_timeout = options.connect_timeout;
    upstream.authentication = authentication(options.authentication);
    upstream.users = {options.users.file, options.users.passwords};
    upstream.tls = tls_settings(options.upstream_tls);
    upstream.negotiation = options.upstream_tls.negotiation == config::TlsNegotiation::direct
                               ? net::UpstreamNegotiation::direct
                               : net::UpstreamNegotiation::postgres;
    upstream.changeable = changeable(options);
    upstream.web_database = options.web.database;
    return upstream;
}

// The server of the top level is the first of all, and the last that is asked for a database.
void add_servers(net::ServerOptions& server, const config::Loaded& loaded) {
    const auto add = [&](const std::string& name, const config::Options& options) {
        const net::Address listen{options.listen.host, options.listen.port};
        auto at = std::find_if(
            server.listeners.begin(), server.listeners.end(),
            [&](const auto& one) { return one.address.text() == listen.text(); });
        if (at == server.listeners.end()) {
            server.listeners.push_back({listen,
                                        options.proxy_protocol,
                                        options.login_timeout,
                                        tls_settings(options.client_tls),
                                        {}});
            at = std::prev(server.listeners.end());
        }
        at->upstreams.push_back(server.upstreams.size());
        server.upstreams.push_back(upstream_options(name, options));
    };
    add({}, loaded.options);
    for (const config::Upstream& one : loaded.upstreams) add(one.name, one.options);
    auto& first = server.listeners.front().upstreams;
    std::rotate(first.begin(), first.begin() + 1, first.end());
}

net::ServerOptions server_options(const config::Loaded& loaded) {
    const config::Options& options = loaded.options;
    net::ServerOptions server;
    add_servers(server, loaded);
    server.threads = options.threads != 0 ? options.threads
                                          : std::max(1u, std::thread::hardware_concurrency());
    server.drain_timeout = options.drain_timeout;
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

// Its file; null: it goes to standard error.
std::shared_ptr<net::ProgramLog> start_log(const config::Log& log) {
    std::shared_ptr<net::ProgramLog> file;
    if (!log.file.empty()) file = std::make_shared<net::ProgramLog>(log.file);
    auto logger = file ? std::make_shared<spdlog::logger>("pgchaperone", file)
                       : spdlog::stderr_logger_mt("pgchaperone");
    logger->set_level(spdlog::level::from_str(log.level));
    logger->flush_on(spdlog::level::info);
    auto formatter = log.format == config::LogFormat::json ? net::json_log_formatter()
                                                           : net::text_log_formatter();
    if (!file && net::journal_reads(STDERR_FILENO))
        formatter = net::for_the_journal(std::move(formatter));
    logger->set_formatter(std::move(formatter));
    spdlog::set_default_logger(std::move(logger));
    return file;
}

// `systemctl status` shows it, where the journal's lines of a service that is to be tried again are
// not shown. Who starts a successor says by itself what became of it.
void not_served(const std::string& why) {
    if (!net::is_successor()) net::ServiceManager().not_started(why);
}

// Of each server, in the order of ServerOptions::upstreams.
std::vector<net::Rules> rules_of(const config::Loaded& loaded) {
    std::vector<net::Rules> rules;
    rules.push_back({loaded.policy, config::show(loaded.policy)});
    for (const config::Upstream& one : loaded.upstreams)
        rules.push_back({one.policy, config::show(one.policy)});
    return rules;
}

int serve(const config::Loaded& loaded, cli::Reload reload) {
    std::shared_ptr<net::ProgramLog> log;
    try {
        log = start_log(loaded.options.log);
    } catch (const std::exception& error) {
        const std::string why = "can't write the log file: " + std::string(error.what());
        std::fprintf(stderr, "pgchaperone: %s\n", why.c_str());
        not_served(why);
        return cli::exit_trouble;
    }
    const auto reload_all = [reload = std::move(reload), log] {
        net::Reloaded out;
        // First, so that the new file tells of all the rest.
        if (log) out.log_trouble = log->reopen();
        cli::Reloaded reloaded = reload();
        out.trouble = std::move(reloaded.trouble);
        out.restart = std::move(reloaded.restart);
        if (!reloaded.loaded) return out;
        const config::Loaded& again = *reloaded.loaded;
        out.webhooks = again.options.webhooks;
        out.rules = rules_of(again);
        out.changeable.push_back(changeable(again.options));
        for (const config::Upstream& one : again.upstreams)
            out.changeable.push_back(changeable(one.options));
        return out;
    };
    return net::serve(server_options(loaded), rules_of(loaded), reload_all,
                      [](const std::string& trouble) {
                          std::fprintf(stderr, "pgchaperone: %s\n", trouble.c_str());
                      });
}

std::vector<cli::FileProblem> check_files(const config::Loaded& loaded) {
    std::vector<cli::FileProblem> out;
    for (net::FileProblem& one :
         net::problems_of_files(server_options(loaded), loaded.options.log.file))
        out.push_back(
            {std::move(one.upstream), std::move(one.key), std::move(one.text), one.warning});
    return out;
}

}  // namespace

int main(int argc, char** argv) {
    return pgchaperone::cli::run(argc, argv, serve, not_served, check_files);
}
