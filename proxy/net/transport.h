#pragma once
// One side's socket, with or without TLS on it. Writes are tried at once, without waiting; what the
// socket does not take waits in a buffer and goes out as soon as it can. Reads are awaited.
//
// Lives on one thread. Knows no protocol. Invariant: bytes leave in the order of write().

#include "proxy/net/tls_channel.h"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/generic/stream_protocol.hpp>

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace pgchaperone::net {

class Transport {
public:
    using Socket = boost::asio::generic::stream_protocol::socket;

    explicit Transport(Socket socket);
    Transport(const Transport&) = delete;
    Transport& operator=(const Transport&) = delete;

    Socket& socket() { return socket_; }
    TlsChannel* tls() { return tls_.get(); }
    void set_tls(std::unique_ptr<TlsChannel> channel) { tls_ = std::move(channel); }

    // Sends plaintext. Where the socket fails, what was to be sent is dropped; see write_failed().
    void write(std::string_view plaintext);
    // Sends what TLS has to say of itself (handshake, alerts). After every call of the channel.
    void flush_tls();

    // The other side takes nothing any more. What it sent before may still be there to be read.
    bool write_failed() const { return broken_; }

    // Bytes that the socket has not taken yet.
    std::size_t pending_bytes() const { return pending_.size() - pending_sent_; }
    // Called, on this thread, whenever pending_bytes() has shrunk.
    void on_progress(std::function<void()> progress) { progress_ = std::move(progress); }

    // No more writes: half-close once everything has been sent.
    void shutdown_when_sent();
    bool shutdown_done() const { return shutdown_done_; }
    // A read that is being awaited ends with operation_aborted; writes go on.
    void stop_reading();
    // At once, pending bytes and all.
    void close();
    bool is_open() const { return socket_.is_open(); }

    // Keeps the object alive while a write is awaited; set by the owner.
    void set_owner(std::weak_ptr<void> owner) { owner_ = std::move(owner); }

private:
    void send(std::string_view bytes);
    void shutdown_now();
    boost::asio::awaitable<void> send_pending(std::shared_ptr<void> owner);

    Socket socket_;
    std::unique_ptr<TlsChannel> tls_;
    std::string pending_;
    std::size_t pending_sent_ = 0;
    bool sending_ = false;
    bool broken_ = false;
    bool shutdown_wanted_ = false;
    bool shutdown_done_ = false;
    std::function<void()> progress_;
    std::weak_ptr<void> owner_;
};

// What every connection's socket gets: no delay, keepalive, non-blocking.
void prepare_socket(Transport::Socket& socket);

}  // namespace pgchaperone::net
