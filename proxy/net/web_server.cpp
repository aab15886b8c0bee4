#include "proxy/net/web_server.h"

#include "proxy/net/http_host.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <openssl/rand.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <exception>
#include <stdexcept>
#include <thread>
#include <utility>

namespace pgchaperone::net {

namespace asio = boost::asio;
using asio::awaitable;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::chrono::seconds tick_time{5};
constexpr std::chrono::seconds stop_time{1};

std::string random_bytes(std::size_t count) {
    std::string bytes(count, '\0');
    if (RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(count)) != 1) {
        throw std::runtime_error("no random numbers from OpenSSL");
    }
    return bytes;
}

constexpr unsigned char http_alpn[] = "\x08http/1.1";

int choose_alpn(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* in,
                unsigned in_size, void*) {
    unsigned char* chosen = nullptr;
    if (SSL_select_next_proto(&chosen, out_size, http_alpn, sizeof http_alpn - 1, in, in_size) !=
        OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

// Null where the page is served in clear.
HttpHost::Certificate load_certificate(const WebOptions& options) {
    if (options.certificate.empty()) return nullptr;
    TlsSettings settings;
    settings.mode = TlsMode::require;
    settings.certificate = options.certificate;
    settings.key = options.key;
    const auto made = make_server_context(settings);
    if (made.has_error()) throw std::runtime_error("web: " + made.error().text);
    for (const std::string& warning : (*made)->warnings()) spdlog::warn("web: {}", warning);
    SSL_CTX* const native = (*made)->native();
    SSL_CTX_up_ref(native);
    auto context = std::make_shared<asio::ssl::context>(native);
    // It is made by the rules of the other listener, but for what is spoken over it.
    SSL_CTX_set_alpn_select_cb(context->native_handle(), choose_alpn, nullptr);
    return context;
}

void log_failure(std::exception_ptr failure) {
    if (!failure) return;
    try {
        std::rethrow_exception(failure);
    } catch (const std::exception& error) {
        spdlog::error("web: internal error: {}", error.what());
    }
}

}  // namespace

struct WebServer::Impl {
    Impl(const WebOptions& options_, const std::vector<WebLoginOptions>& logins,
         approval::Desk& desk, Resolver& resolver, Record record, ReadySockets* ready)
        : options(options_),
          encrypted(!options_.certificate.empty()),
          ticker(context),
          app(web::App::Sources{
                  desk, web_login(context, resolver, logins),
                  [this](std::function<void()> work) { asio::post(context, std::move(work)); },
                  random_bytes, std::chrono::system_clock::now, Clock::now,
                  [](const std::string& line) { spdlog::info("{}", line); }, std::move(record)},
              app_options(options_, encrypted, logins)),
          host(context, options_.listen, host_options(ready)) {
        asio::co_spawn(context, tick(), log_failure);
        thread = std::thread([this] { run(); });
    }

    ~Impl() { stop(); }
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;

    static web::AppOptions app_options(const WebOptions& options, bool tls,
                                       const std::vector<WebLoginOptions>& logins) {
        web::AppOptions out;
        out.sessions.idle = options.session_idle;
        out.sessions.life = options.session_life;
        out.sessions.streams_max = options.pages_max;
        out.url = options.url;
        out.listen_host = options.listen.host;
        out.tls = tls || options.url.starts_with("https://");
        for (const WebLoginOptions& one : logins)
            out.upstreams.push_back({one.name, one.upstream.text()});
        return out;
    }

    HttpHost::Options host_options(ReadySockets* ready);
    void run();
    void stop();
    awaitable<void> tick();
    bool trusted(const policy::ClientAddress& address) const;
    // On this machine, where that does TLS for the page: everybody comes from its address.
    bool behind_a_proxy(const policy::ClientAddress& peer) const {
        return !encrypted && !options.url.empty() &&
               (peer.local || peer.text == "::1" || peer.text.starts_with("127."));
    }
    std::string real_peer(const web::Request& request, const policy::ClientAddress& peer) const;

    WebOptions options;
    bool encrypted = false;
    asio::io_context context{1};
    asio::steady_timer ticker;
    web::App app;
    HttpHost host;
    std::atomic<bool> stopping{false};
    std::thread thread;
};

HttpHost::Options WebServer::Impl::host_options(ReadySockets* ready) {
    HttpHost::Options out;
    out.ready = ready;
    out.name = "web";
    out.where = "the web page";
    out.setting = "web.listen";
    out.certificate = load_certificate(options);
    // One address may be that of a proxy in front.
    out.stands_for_many = [this](const policy::ClientAddress& peer) {
        return trusted(peer) || behind_a_proxy(peer);
    };
    out.answer = [this](web::Request request, const policy::ClientAddress& peer,
                        HttpHost::Options::Then then) {
        request.peer = real_peer(request, peer);
        app.handle(std::move(request), std::move(then));
    };
    return out;
}

// What goes wrong in one answer ends neither the page nor the guard.
void WebServer::Impl::run() {
    while (true) {
        try {
            context.run();
            return;
        } catch (const std::exception& error) {
            spdlog::error("web: internal error: {}", error.what());
        }
    }
}

void WebServer::Impl::stop() {
    if (stopping.exchange(true)) return;
    asio::post(context, [this] {
        host.stop();
        app.end_all();
        ticker.cancel();
        // Pages hear of it, then all ends.
        auto last = std::make_shared<asio::steady_timer>(context, stop_time);
        last->async_wait([this, last](boost::system::error_code) { context.stop(); });
        if (host.connections() == 0) context.stop();
    });
    if (thread.joinable()) thread.join();
}

awaitable<void> WebServer::Impl::tick() {
    while (!stopping) {
        ticker.expires_after(tick_time);
        co_await ticker.async_wait(asio::as_tuple(asio::use_awaitable));
        app.tick();
    }
}

bool WebServer::Impl::trusted(const policy::ClientAddress& address) const {
    for (const policy::Network& network : options.trusted_proxies) {
        if (network.contains(address)) return true;
    }
    return false;
}

// Behind proxies that are trusted, the nearest address that is none of theirs.
std::string WebServer::Impl::real_peer(const web::Request& request,
                                       const policy::ClientAddress& peer) const {
    if (!trusted(peer)) return peer.text;
    std::string hops;
    for (const auto& [name, value] : request.headers) {
        if (name == "x-forwarded-for") hops += (hops.empty() ? "" : ",") + value;
    }
    std::string nearest = peer.text;
    while (!hops.empty()) {
        const auto comma = hops.rfind(',');
        std::string hop = comma == std::string::npos ? hops : hops.substr(comma + 1);
        hops.erase(comma == std::string::npos ? 0 : comma);
        const auto first = hop.find_first_not_of(" \t");
        hop = first == std::string::npos
                  ? ""
                  : hop.substr(first, hop.find_last_not_of(" \t") - first + 1);
        const auto address = policy::parse_client_address(hop);
        if (!address) break;
        nearest = address->text;
        if (!trusted(*address)) break;
    }
    return nearest;
}

WebServer::WebServer(const WebOptions& options, std::vector<WebLoginOptions> logins,
                     approval::Desk& desk, Resolver& resolver, Record record, ReadySockets* ready)
    : impl_(std::make_unique<Impl>(options, logins, desk, resolver, std::move(record), ready)) {
    spdlog::info("the web page is at {}",
                 options.url.empty() ? (options.certificate.empty() ? "http://" : "https://") +
                                           options.listen.text()
                                     : options.url);
}

WebServer::~WebServer() = default;

void WebServer::happened(const approval::Happened& happened) {
    if (impl_->stopping) return;
    // What is told of a ticket needs neither its statement nor its evidence.
    auto brief = std::make_shared<approval::Happened>(happened);
    brief->ticket.request.statement.clear();
    brief->ticket.request.parameters.clear();
    brief->ticket.request.evidence = {};
    asio::post(impl_->context, [impl = impl_.get(), brief] { impl->app.happened(*brief); });
}

std::string WebServer::reload() {
    try {
        auto loaded = load_certificate(impl_->options);
        asio::post(impl_->context, [impl = impl_.get(), loaded] { impl->host.use(loaded); });
        return {};
    } catch (const std::exception& error) {
        return error.what();
    }
}

std::vector<int> WebServer::descriptors() const { return impl_->host.descriptors(); }

void WebServer::stop() { impl_->stop(); }

}  // namespace pgchaperone::net
