#include "proxy/net/http_host.h"

#include "proxy/net/resolver.h"
#include "proxy/net/transport.h"
#include "web/events.h"
#include "web/problem.h"
#include "web/throttle.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <spdlog/spdlog.h>

#include <array>
#include <exception>
#include <map>
#include <optional>
#include <stdexcept>
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

constexpr std::chrono::seconds request_time{15};  // for a handshake, and for one request to come
constexpr std::chrono::seconds idle_time{60};     // between two requests
constexpr std::chrono::seconds answer_time{60};   // for one answer to go
constexpr std::chrono::seconds good_bye_time{2};
constexpr std::chrono::milliseconds accept_pause{100};
// How long a page hears nothing before it is told that the connection still stands.
constexpr std::chrono::seconds heartbeat_time{25};
constexpr std::string_view heartbeat = ":\n\n";
constexpr std::size_t read_bytes = 8 * 1024;
constexpr std::size_t answering_bytes_max = 64 * 1024 * 1024;
constexpr std::size_t heard_out_bytes_max = 1024 * 1024;

Plain& plain_of(Plain& stream) { return stream; }
Plain& plain_of(Tls& stream) { return stream.next_layer(); }

}  // namespace

struct HttpHost::Impl : std::enable_shared_from_this<HttpHost::Impl> {
    Impl(asio::io_context& context_, Options options_)
        : context(context_), options(std::move(options_)) {}

    void listen(const Address& address);
    // What goes wrong in one connection ends no other. Whatever is awaited keeps this alive.
    auto logged() {
        return
            [self = shared_from_this()](std::exception_ptr failure) { self->log_failure(failure); };
    }
    void log_failure(std::exception_ptr failure) const;
    awaitable<void> accept(Acceptor& acceptor);
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
    awaitable<web::Response> answer(web::Request request, const policy::ClientAddress& peer);

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

    asio::io_context& context;
    Options options;
    bool stopping = false;
    std::size_t answering_bytes = 0;
    std::size_t connections = 0;
    std::map<std::string, std::size_t> connections_of;  // by address
    std::vector<Acceptor> acceptors;
};

void HttpHost::Impl::listen(const Address& address) {
    const Resolved resolved = resolve_now(address, true, false);
    const std::string where = options.where + " can't listen on " + address.text() + ": ";
    if (resolved.endpoints.empty()) throw std::runtime_error(where + resolved.error);
    for (const auto& endpoint : resolved.endpoints) {
        acceptors.push_back(
            listen_on(context, address, endpoint, where, options.setting, options.ready));
    }
    options.ready = nullptr;
}

void HttpHost::Impl::log_failure(std::exception_ptr failure) const {
    if (!failure) return;
    try {
        std::rethrow_exception(failure);
    } catch (const std::exception& error) {
        spdlog::error("{}: internal error: {}", options.name, error.what());
    }
}

awaitable<void> HttpHost::Impl::accept(Acceptor& acceptor) {
    asio::steady_timer pause(context);
    while (acceptor.is_open()) {
        asio::generic::stream_protocol::socket socket(context);
        asio::generic::stream_protocol::endpoint endpoint;
        const auto [error] = co_await acceptor.async_accept(socket, endpoint,
                                                            asio::as_tuple(asio::use_awaitable));
        if (!acceptor.is_open()) co_return;
        if (error) {
            spdlog::error("{}: can't accept a connection: {}", options.name, error.message());
            pause.expires_after(accept_pause);
            co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
            continue;
        }
        policy::ClientAddress peer = address_of(endpoint);
        // What is too much is closed without a word: to answer would cost what is to be spared.
        const auto of_peer = connections_of.find(web::network_of(peer.text));
        if (connections >= options.connections_max ||
            (of_peer != connections_of.end() &&
             of_peer->second >= options.connections_of_a_peer_max &&
             !(options.stands_for_many && options.stands_for_many(peer)))) {
            continue;
        }
        asio::co_spawn(context, take_in(std::move(socket), std::move(peer)), logged());
    }
}

awaitable<void> HttpHost::Impl::take_in(asio::generic::stream_protocol::socket socket,
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
    if (!options.certificate) {
        co_await talk(plain, peer);
        boost::system::error_code ignored;
        plain.socket().shutdown(asio::socket_base::shutdown_send, ignored);
        co_return;
    }
    const Certificate keep = options.certificate;
    Tls tls(std::move(plain), *keep);
    tls.next_layer().expires_after(request_time);
    const auto [failed] = co_await tls.async_handshake(asio::ssl::stream_base::server,
                                                       asio::as_tuple(asio::use_awaitable));
    if (failed) co_return;
    co_await talk(tls, peer);
    tls.next_layer().expires_after(good_bye_time);
    co_await tls.async_shutdown(asio::as_tuple(asio::use_awaitable));
}

template <class Stream>
awaitable<bool> HttpHost::Impl::write(Stream& stream, std::string bytes) {
    plain_of(stream).expires_after(answer_time);
    const auto [error, count] = co_await asio::async_write(stream, asio::buffer(bytes),
                                                           asio::as_tuple(asio::use_awaitable));
    co_return !error;
}

// More bytes for the reader. False: there will be none, or not in time.
template <class Stream>
awaitable<bool> HttpHost::Impl::read(Stream& stream, web::RequestReader& reader) {
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
awaitable<void> HttpHost::Impl::hear_out(Stream& stream) {
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
awaitable<void> HttpHost::Impl::talk(Stream& stream, const policy::ClientAddress& peer) {
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
        const bool head_only = request->method == web::Method::head;
        const bool keep_alive = request->keep_alive && !stopping;
        web::Response response = co_await answer(*std::move(request), peer);
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

// Waits for the answer, which may come at once.
awaitable<web::Response> HttpHost::Impl::answer(web::Request request,
                                                const policy::ClientAddress& peer) {
    co_return co_await asio::async_initiate<decltype(asio::use_awaitable), void(web::Response)>(
        [this, &peer](auto handler, web::Request asked) {
            const auto shared = std::make_shared<decltype(handler)>(std::move(handler));
            options.answer(std::move(asked), peer, [&to = context, shared](web::Response response) {
                asio::post(to, [shared, response = std::move(response)]() mutable {
                    (*shared)(std::move(response));
                });
            });
        },
        asio::use_awaitable, std::move(request));
}

// Tells a page what happens until it goes. What it says meanwhile is not heard.
template <class Stream>
awaitable<void> HttpHost::Impl::tell(Stream& stream, std::shared_ptr<web::EventStream> events) {
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

HttpHost::HttpHost(asio::io_context& context, const Address& address, Options options)
    : impl_(std::make_shared<Impl>(context, std::move(options))) {
    impl_->listen(address);
    for (Acceptor& acceptor : impl_->acceptors) {
        asio::co_spawn(context, impl_->accept(acceptor), impl_->logged());
    }
}

// What still waits in the context is never called again, and ends with it.
HttpHost::~HttpHost() { impl_->acceptors.clear(); }

void HttpHost::use(Certificate certificate) { impl_->options.certificate = std::move(certificate); }

std::vector<int> HttpHost::descriptors() {
    std::vector<int> out;
    for (Acceptor& acceptor : impl_->acceptors) out.push_back(acceptor.native_handle());
    return out;
}

void HttpHost::stop() {
    impl_->stopping = true;
    boost::system::error_code ignored;
    for (Acceptor& acceptor : impl_->acceptors) acceptor.close(ignored);
}

std::size_t HttpHost::connections() const { return impl_->connections; }

}  // namespace pgchaperone::net
