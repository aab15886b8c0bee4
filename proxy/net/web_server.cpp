#include "proxy/net/web_server.h"

#include "proxy/net/listen.h"
#include "proxy/net/transport.h"
#include "web/events.h"
#include "web/http.h"
#include "web/problem.h"
#include "web/throttle.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <openssl/rand.h>
#include <spdlog/spdlog.h>

#include <array>
#include <atomic>
#include <exception>
#include <map>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <utility>

namespace pgchaperone::net {

namespace asio = boost::asio;
namespace beast = boost::beast;
using asio::awaitable;
using Clock = std::chrono::steady_clock;

namespace {

using Plain = beast::basic_stream<asio::generic::stream_protocol>;
using Tls = asio::ssl::stream<Plain>;
using TlsContextOfPage = std::shared_ptr<asio::ssl::context>;

constexpr std::size_t connections_max = 1000;
// Of one address, unless it is that of a proxy in front.
constexpr std::size_t connections_of_a_peer_max = 100;
constexpr std::chrono::seconds request_time{15};  // for a handshake, and for one request to come
constexpr std::chrono::seconds idle_time{60};     // between two requests
constexpr std::chrono::seconds answer_time{60};   // for one answer to go
constexpr std::chrono::seconds good_bye_time{2};
constexpr std::chrono::seconds tick_time{5};
constexpr std::chrono::seconds stop_time{1};
constexpr std::chrono::milliseconds accept_pause{100};
// How long a page hears nothing before it is told that the connection still stands.
constexpr std::chrono::seconds heartbeat_time{25};
constexpr std::string_view heartbeat = ":\n\n";
constexpr std::size_t read_bytes = 8 * 1024;
constexpr std::size_t answering_bytes_max = 64 * 1024 * 1024;
constexpr std::size_t heard_out_bytes_max = 1024 * 1024;

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
TlsContextOfPage load_certificate(const WebOptions& options) {
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
    Impl(const WebOptions& options_, WebLoginOptions login, std::string environment,
         approval::Desk& desk, Resolver& resolver, Record record)
        : options(options_),
          certificate(load_certificate(options_)),
          ticker(context),
          app(web::App::Sources{
                  desk, web_login(context, resolver, std::move(login)),
                  [this](std::function<void()> work) { asio::post(context, std::move(work)); },
                  random_bytes, std::chrono::system_clock::now, Clock::now,
                  [](const std::string& line) { spdlog::info("{}", line); }, std::move(record)},
              app_options(options_, !options_.certificate.empty(), std::move(environment))) {
        listen();
        for (Acceptor& acceptor : acceptors) {
            asio::co_spawn(context, accept(acceptor), log_failure);
        }
        asio::co_spawn(context, tick(), log_failure);
        thread = std::thread([this] { run(); });
    }

    ~Impl() { stop(); }
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;

    static web::AppOptions app_options(const WebOptions& options, bool tls,
                                       std::string environment) {
        web::AppOptions out;
        out.sessions.idle = options.session_idle;
        out.sessions.life = options.session_life;
        out.sessions.streams_max = options.pages_max;
        out.url = options.url;
        out.listen_host = options.listen.host;
        out.tls = tls || options.url.starts_with("https://");
        out.environment = std::move(environment);
        return out;
    }

    void listen();
    void run();
    void stop();
    awaitable<void> accept(Acceptor& acceptor);
    awaitable<void> tick();
    awaitable<void> take_in(asio::generic::stream_protocol::socket socket,
                            policy::ClientAddress peer);
    template <class Stream>
    awaitable<void> talk(Stream& stream, const policy::ClientAddress& peer);
    template <class Stream>
    awaitable<bool> read(Stream& stream, web::RequestReader& reader);
    template <class Stream>
    static awaitable<void> hear_out(Stream& stream);
    template <class Stream>
    awaitable<void> tell(Stream& stream, std::shared_ptr<web::EventStream> events);
    template <class Stream>
    static awaitable<bool> write(Stream& stream, std::string bytes);
    awaitable<web::Response> answer(web::Request request);
    bool trusted(const policy::ClientAddress& address) const;
    // On this machine, where that does TLS for the page: everybody comes from its address.
    bool behind_a_proxy(const policy::ClientAddress& peer) const {
        return !certificate && !options.url.empty() &&
               (peer.local || peer.text == "::1" || peer.text.starts_with("127."));
    }
    std::string real_peer(const web::Request& request, const policy::ClientAddress& peer) const;

    // An answer on its way: who does not read what was asked for holds memory.
    struct Answering {
        Impl& impl;
        std::size_t bytes;
        Answering(Impl& of, std::size_t size) : impl(of), bytes(size) {
            impl.answering_bytes += bytes;
        }
        ~Answering() { impl.answering_bytes -= bytes; }
        Answering(const Answering&) = delete;
        Answering& operator=(const Answering&) = delete;
    };

    WebOptions options;
    std::size_t answering_bytes = 0;
    // What connections count themselves in outlives the context, and so the last of them.
    std::size_t connections = 0;
    std::map<std::string, std::size_t> connections_of;  // by address
    asio::io_context context{1};
    TlsContextOfPage certificate;  // on the thread
    asio::steady_timer ticker;
    web::App app;
    std::vector<Acceptor> acceptors;
    std::atomic<bool> stopping{false};
    std::thread thread;
};

void WebServer::Impl::listen() {
    const Resolved resolved = resolve_now(options.listen, true, false);
    const std::string where = "the web page can't listen on " + options.listen.text() + ": ";
    if (resolved.endpoints.empty()) throw std::runtime_error(where + resolved.error);
    for (const auto& endpoint : resolved.endpoints) {
        acceptors.push_back(listen_on(context, options.listen, endpoint, where, "web.listen"));
    }
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
        boost::system::error_code ignored;
        for (Acceptor& acceptor : acceptors) acceptor.close(ignored);
        app.end_all();
        ticker.cancel();
        // Pages hear of it, then all ends.
        auto last = std::make_shared<asio::steady_timer>(context, stop_time);
        last->async_wait([this, last](boost::system::error_code) { context.stop(); });
        if (connections == 0) context.stop();
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

awaitable<void> WebServer::Impl::accept(Acceptor& acceptor) {
    asio::steady_timer pause(context);
    while (acceptor.is_open()) {
        asio::generic::stream_protocol::socket socket(context);
        asio::generic::stream_protocol::endpoint endpoint;
        const auto [error] = co_await acceptor.async_accept(socket, endpoint,
                                                            asio::as_tuple(asio::use_awaitable));
        if (!acceptor.is_open()) co_return;
        if (error) {
            spdlog::error("web: can't accept a connection: {}", error.message());
            pause.expires_after(accept_pause);
            co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
            continue;
        }
        policy::ClientAddress peer = address_of(endpoint);
        // What is too much is closed without a word: to answer would cost what is to be spared.
        const auto of_peer = connections_of.find(web::network_of(peer.text));
        if (connections >= connections_max ||
            (of_peer != connections_of.end() && of_peer->second >= connections_of_a_peer_max &&
             !trusted(peer) && !behind_a_proxy(peer))) {
            continue;
        }
        asio::co_spawn(context, take_in(std::move(socket), std::move(peer)), log_failure);
    }
}

awaitable<void> WebServer::Impl::take_in(asio::generic::stream_protocol::socket socket,
                                         policy::ClientAddress peer) {
    struct Counted {
        Impl& impl;
        std::string key;
        Counted(Impl& of, std::string peer_text) : impl(of), key(std::move(peer_text)) {
            ++impl.connections;
            ++impl.connections_of[key];
        }
        ~Counted() {
            --impl.connections;
            if (--impl.connections_of[key] == 0) impl.connections_of.erase(key);
        }
        Counted(const Counted&) = delete;
        Counted& operator=(const Counted&) = delete;
    };
    const Counted counted(*this, web::network_of(peer.text));
    prepare_socket(socket);
    Plain plain(std::move(socket));
    if (!certificate) {
        co_await talk(plain, peer);
        boost::system::error_code ignored;
        plain.socket().shutdown(asio::socket_base::shutdown_send, ignored);
        co_return;
    }
    const TlsContextOfPage keep = certificate;
    Tls tls(std::move(plain), *keep);
    tls.next_layer().expires_after(request_time);
    const auto [failed] = co_await tls.async_handshake(asio::ssl::stream_base::server,
                                                       asio::as_tuple(asio::use_awaitable));
    if (failed) co_return;
    co_await talk(tls, peer);
    tls.next_layer().expires_after(good_bye_time);
    co_await tls.async_shutdown(asio::as_tuple(asio::use_awaitable));
}

namespace {
Plain& plain_of(Plain& stream) { return stream; }
Plain& plain_of(Tls& stream) { return stream.next_layer(); }
}  // namespace

template <class Stream>
awaitable<bool> WebServer::Impl::write(Stream& stream, std::string bytes) {
    plain_of(stream).expires_after(answer_time);
    const auto [error, count] = co_await asio::async_write(stream, asio::buffer(bytes),
                                                           asio::as_tuple(asio::use_awaitable));
    co_return !error;
}

// More bytes for the reader. False: there will be none, or not in time.
template <class Stream>
awaitable<bool> WebServer::Impl::read(Stream& stream, web::RequestReader& reader) {
    auto buffer = std::make_unique<std::array<char, read_bytes>>();
    const auto [error, count] = co_await stream.async_read_some(
        asio::buffer(*buffer), asio::as_tuple(asio::use_awaitable));
    if (error) co_return false;
    reader.feed({buffer->data(), count});
    co_return true;
}

// Who is still sending would lose the answer to a reset, were the connection closed on what they
// send.
template <class Stream>
awaitable<void> WebServer::Impl::hear_out(Stream& stream) {
    boost::system::error_code ignored;
    if constexpr (std::is_same_v<Stream, Plain>) {
        stream.socket().shutdown(asio::socket_base::shutdown_send, ignored);
    }
    plain_of(stream).expires_after(good_bye_time);
    auto buffer = std::make_unique<std::array<char, read_bytes>>();
    for (std::size_t heard = 0; heard < heard_out_bytes_max;) {
        const auto [error, count] = co_await stream.async_read_some(
            asio::buffer(*buffer), asio::as_tuple(asio::use_awaitable));
        if (error) break;
        heard += count;
    }
}

template <class Stream>
awaitable<void> WebServer::Impl::talk(Stream& stream, const policy::ClientAddress& peer) {
    web::RequestReader reader;
    while (!stopping) {
        const bool begun = reader.begun();
        Clock::time_point until = Clock::now() + (begun ? request_time : idle_time);
        bool first = !begun;
        std::optional<web::Request> request;
        while (!(request = reader.next())) {
            if (reader.broken()) {
                co_await write(stream, web::bytes_of(*reader.broken(), false, false));
                co_await hear_out(stream);
                co_return;
            }
            // However slowly it comes: the whole of a request has this time.
            if (first && reader.begun()) {
                until = Clock::now() + request_time;
                first = false;
            }
            plain_of(stream).expires_at(until);
            if (!co_await read(stream, reader)) co_return;
        }
        request->peer = real_peer(*request, peer);
        const bool head_only = request->method == web::Method::head;
        const bool keep_alive = request->keep_alive && !stopping;
        web::Response response = co_await answer(*std::move(request));
        if (answering_bytes + response.body.size() > answering_bytes_max) {
            response = web::problem(503, "too much is being answered", {},
                                    "Try again in a moment.");
        }
        const Answering answering(*this, response.body.size());
        std::string bytes = web::bytes_of(response, head_only, keep_alive);
        std::string().swap(response.body);
        const bool written = co_await write(stream, std::move(bytes));
        if (!written) co_return;
        if (response.stream) {
            co_await tell(stream, std::move(response.stream));
            co_return;
        }
        if (!keep_alive) co_return;
    }
}

// Waits for App's answer, which may come at once.
awaitable<web::Response> WebServer::Impl::answer(web::Request request) {
    co_return co_await asio::async_initiate<decltype(asio::use_awaitable), void(web::Response)>(
        [this](auto handler, web::Request asked) {
            const auto shared = std::make_shared<decltype(handler)>(std::move(handler));
            app.handle(std::move(asked), [this, shared](web::Response response) {
                asio::post(context, [shared, response = std::move(response)]() mutable {
                    (*shared)(std::move(response));
                });
            });
        },
        asio::use_awaitable, std::move(request));
}

// Tells a page what happens until it goes. What it says meanwhile is not heard.
template <class Stream>
awaitable<void> WebServer::Impl::tell(Stream& stream, std::shared_ptr<web::EventStream> events) {
    const auto timer = std::make_shared<asio::steady_timer>(context);
    const auto gone = std::make_shared<bool>(false);
    events->on_wake([timer] { timer->cancel(); });
    plain_of(stream).expires_never();
    const auto listener = [](Stream& of, std::shared_ptr<asio::steady_timer> wake,
                             std::shared_ptr<bool> left) -> awaitable<void> {
        std::array<char, 64> unheard{};
        while (true) {
            const auto [error, count] = co_await of.async_read_some(
                asio::buffer(unheard), asio::as_tuple(asio::use_awaitable));
            if (error) break;
        }
        *left = true;
        wake->cancel();
    };
    asio::co_spawn(context, listener(stream, timer, gone), asio::detached);
    bool stands = true;
    while (stands && !*gone) {
        std::string bytes = events->take();
        if (bytes.empty()) {
            if (events->over()) break;
            timer->expires_after(heartbeat_time);
            const auto [woken] = co_await timer->async_wait(asio::as_tuple(asio::use_awaitable));
            if (*gone) break;
            bytes = woken ? events->take() : std::string(heartbeat);
        }
        if (!bytes.empty()) stands = co_await write(stream, std::move(bytes));
    }
    events->on_wake({});
    // The listener reads from this stream: it ends first.
    plain_of(stream).cancel();
    while (!*gone) {
        timer->expires_after(heartbeat_time);
        co_await timer->async_wait(asio::as_tuple(asio::use_awaitable));
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

WebServer::WebServer(const WebOptions& options, WebLoginOptions login, std::string environment,
                     approval::Desk& desk, Resolver& resolver, Record record)
    : impl_(std::make_unique<Impl>(options, std::move(login), std::move(environment), desk,
                                   resolver, std::move(record))) {
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
        TlsContextOfPage loaded = load_certificate(impl_->options);
        asio::post(impl_->context, [impl = impl_.get(), loaded] { impl->certificate = loaded; });
        return {};
    } catch (const std::exception& error) {
        return error.what();
    }
}

void WebServer::stop() { impl_->stop(); }

}  // namespace pgchaperone::net
