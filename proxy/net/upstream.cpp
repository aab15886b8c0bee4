#include "proxy/net/upstream.h"

#include "protocol/codec.h"
#include "proxy/net/io_thread.h"
#include "proxy/net/shared.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <utility>

namespace pgchaperone::net {

namespace asio = boost::asio;
using asio::awaitable;

namespace {

// What the resolver answers with, handed to the waiting coroutine on its own thread.
struct Lookup {
    explicit Lookup(asio::io_context& context) : answered(context) {
        answered.expires_at(asio::steady_timer::time_point::max());
    }
    asio::steady_timer answered;
    bool done = false;
    Resolved resolved;
};

awaitable<Resolved> look_up(IoThread& thread, const Address& address) {
    const auto lookup = std::make_shared<Lookup>(thread.context());
    IoThread* const home = &thread;
    thread.shared().resolver->resolve(address, [lookup, home](Resolved resolved) {
        // Either this thread or the resolver's.
        auto handed = std::make_shared<Resolved>(std::move(resolved));
        home->post([lookup, handed] {
            lookup->resolved = std::move(*handed);
            lookup->done = true;
            lookup->answered.cancel();
        });
    });
    while (!lookup->done) co_await lookup->answered.async_wait(asio::as_tuple(asio::use_awaitable));
    co_return std::move(lookup->resolved);
}

// Closes the socket when time is up, which ends whatever is awaited on it.
class Deadline {
public:
    Deadline(asio::io_context& context, std::chrono::milliseconds time) : timer_(context, time) {}
    void guard(std::shared_ptr<Transport> transport) {
        timer_.async_wait([transport = std::weak_ptr<Transport>(transport),
                           expired = expired_](const boost::system::error_code& error) {
            if (error) return;
            *expired = true;
            if (const auto alive = transport.lock()) alive->close();
        });
    }
    bool expired() const { return *expired_; }

private:
    asio::steady_timer timer_;
    std::shared_ptr<bool> expired_ = std::make_shared<bool>(false);
};

awaitable<std::string> connect_one(Transport& transport,
                                   const asio::generic::stream_protocol::endpoint& endpoint) {
    boost::system::error_code error;
    transport.socket().open(endpoint.protocol(), error);
    if (error) co_return error.message();
    prepare_socket(transport.socket());
    const auto [connected] = co_await transport.socket().async_connect(
        endpoint, asio::as_tuple(asio::use_awaitable));
    if (connected) co_return connected.message();
    // Options of the connected socket: before, its family was not known to all of them.
    prepare_socket(transport.socket());
    co_return std::string();
}

// Waits until what was written has left.
awaitable<void> flushed(Transport& transport) {
    while (transport.pending_bytes() > 0 && transport.is_open()) {
        co_await transport.socket().async_wait(Transport::Socket::wait_write,
                                               asio::as_tuple(asio::use_awaitable));
    }
}

awaitable<std::string> handshake(Transport& transport, const Guarded& upstream,
                                 TlsContextPtr context, bool direct) {
    TlsChannelOptions options;
    options.server_name = upstream.options.address.host;
    options.direct = direct;
    transport.set_tls(std::make_unique<TlsChannel>(std::move(context), options));
    TlsChannel& tls = *transport.tls();
    auto status = tls.start();
    transport.flush_tls();
    // Not the thread's scratch buffer: others use it while this waits.
    std::array<char, 4096> buffer;
    while (status.has_value() && *status == TlsStatus::handshaking) {
        co_await flushed(transport);
        const auto [error, size] = co_await transport.socket().async_read_some(
            asio::buffer(buffer), asio::as_tuple(asio::use_awaitable));
        if (error) co_return "TLS: " + error.message();
        status = tls.feed({buffer.data(), size});
        transport.flush_tls();
    }
    if (status.has_error()) {
        co_await flushed(transport);
        co_return "TLS: " + status.error().text;
    }
    co_return std::string();
}

// SSLRequest and its one-byte answer; not a byte more is read, since it could not be trusted.
awaitable<std::string> negotiate(Transport& transport, const Guarded& upstream,
                                 TlsContextPtr context) {
    const TlsMode mode = context->mode();
    if (upstream.options.negotiation == UpstreamNegotiation::direct) {
        co_return co_await handshake(transport, upstream, std::move(context), true);
    }
    transport.write(protocol::encoded(protocol::SSLRequest{}));
    char answer = 0;
    const auto [error, size] = co_await transport.socket().async_read_some(
        asio::buffer(&answer, 1), asio::as_tuple(asio::use_awaitable));
    if (error) co_return "no answer to the request for TLS: " + error.message();
    if (answer == 'S') co_return co_await handshake(transport, upstream, std::move(context), false);
    if (answer == 'N' && (mode == TlsMode::prefer || mode == TlsMode::allow))
        co_return std::string();
    if (answer == 'N') co_return "the server does not offer TLS, and upstream_tls requires it";
    co_return "the server answered the request for TLS with neither yes nor no";
}

}  // namespace

awaitable<UpstreamConnection> connect_upstream(IoThread& thread, Guarded& upstream,
                                               std::weak_ptr<void> owner) {
    const UpstreamOptions& options = upstream.options;
    ThreadCounts& counts = thread.counts(upstream.index);
    const auto begun = std::chrono::steady_clock::now();
    Deadline deadline(thread.context(), options.connect_timeout);
    const Resolved resolved = co_await look_up(thread, options.address);
    std::string error = resolved.error;
    UpstreamError kind = UpstreamError::resolve;
    const bool tcp = !options.address.unix_socket();
    for (const auto& endpoint : resolved.endpoints) {
        auto transport = std::make_shared<Transport>(Transport::Socket(thread.context()));
        deadline.guard(transport);
        transport->set_owner(owner);
        error = co_await connect_one(*transport, endpoint);
        kind = error.empty() ? UpstreamError::tls : UpstreamError::connect;
        TlsContextPtr context = upstream.tls();
        // As libpq has it, there is no TLS on a Unix-domain socket.
        if (error.empty() && context && tcp)
            error = co_await negotiate(*transport, upstream, std::move(context));
        if (deadline.expired()) {
            error = "no connection within the time limit";
            kind = UpstreamError::timeout;
        }
        if (error.empty()) {
            counts.upstream_connects.add();
            counts.upstream_connect.observe(std::chrono::steady_clock::now() - begun);
            co_return UpstreamConnection{std::move(transport), {}};
        }
        transport->close();
        if (deadline.expired()) break;
    }
    counts.upstream_errors[static_cast<std::size_t>(kind)].add();
    upstream.sight.saw(false, std::chrono::steady_clock::now());
    co_return UpstreamConnection{
        nullptr, "could not connect to the server at " + options.address.text() + ": " + error};
}

}  // namespace pgchaperone::net
