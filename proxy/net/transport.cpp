#include "proxy/net/transport.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/socket_base.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <utility>

namespace pgchaperone::net {

namespace asio = boost::asio;

namespace {
constexpr std::size_t pending_kept_bytes = 4 * 1024;
}

void prepare_socket(Transport::Socket& socket) {
    boost::system::error_code ignored;
    const auto local = socket.local_endpoint(ignored);
    const int family = ignored ? AF_UNIX : local.protocol().family();
    if (family != AF_UNIX) {
        socket.set_option(asio::ip::tcp::no_delay(true), ignored);
        socket.set_option(asio::socket_base::keep_alive(true), ignored);
    }
    socket.non_blocking(true, ignored);
}

Transport::Transport(Socket socket) : socket_(std::move(socket)) {}

void Transport::write(std::string_view plaintext) {
    if (plaintext.empty() || broken_ || shutdown_wanted_) return;
    if (!tls_) return send(plaintext);
    // A failure is remembered by the channel and comes out of the next read.
    (void)tls_->write(plaintext);
    flush_tls();
}

void Transport::flush_tls() {
    if (!tls_) return;
    while (true) {
        const std::string_view out = tls_->outgoing();
        if (out.empty()) return;
        send(out);
        tls_->consume_outgoing(out.size());
    }
}

void Transport::send(std::string_view bytes) {
    if (broken_ || !socket_.is_open()) return;
    if (!sending_) {
        boost::system::error_code error;
        const std::size_t sent = socket_.write_some(asio::buffer(bytes), error);
        if (error && error != asio::error::would_block && error != asio::error::try_again) {
            broken_ = true;
            return;
        }
        bytes.remove_prefix(error ? 0 : sent);
        if (bytes.empty()) return;
    }
    pending_.append(bytes);
    if (sending_) return;
    const std::shared_ptr<void> owner = owner_.lock();
    if (!owner) return;
    sending_ = true;
    asio::co_spawn(socket_.get_executor(), send_pending(owner), asio::detached);
}

// Never throws: everything awaited answers with a tuple.
asio::awaitable<void> Transport::send_pending(std::shared_ptr<void> owner) {
    while (pending_bytes() > 0 && !broken_ && socket_.is_open()) {
        const auto [waited] = co_await socket_.async_wait(Socket::wait_write,
                                                          asio::as_tuple(asio::use_awaitable));
        if (waited == asio::error::operation_aborted && socket_.is_open()) continue;
        if (waited || !socket_.is_open()) {
            broken_ = true;
            break;
        }
        boost::system::error_code error;
        const std::size_t sent = socket_.write_some(
            asio::buffer(pending_.data() + pending_sent_, pending_bytes()), error);
        if (error == asio::error::would_block || error == asio::error::try_again) continue;
        if (error) {
            broken_ = true;
            break;
        }
        pending_sent_ += sent;
        // Make room before it grows: what was sent must not pile up behind what is still to go.
        if (pending_sent_ > pending_.size() / 2) pending_.erase(0, std::exchange(pending_sent_, 0));
        if (progress_) progress_();
    }
    pending_.clear();
    pending_sent_ = 0;
    if (pending_.capacity() > pending_kept_bytes) std::string().swap(pending_);
    sending_ = false;
    if (shutdown_wanted_) shutdown_now();
    if (progress_) progress_();
    owner.reset();
}

void Transport::shutdown_when_sent() {
    if (shutdown_wanted_) return;
    if (tls_ && tls_->handshake_done()) {
        tls_->close_notify();
        flush_tls();
    }
    shutdown_wanted_ = true;
    if (!sending_) shutdown_now();
}

void Transport::shutdown_now() {
    boost::system::error_code ignored;
    if (socket_.is_open()) socket_.shutdown(Socket::shutdown_send, ignored);
    shutdown_done_ = true;
}

// Asio can only end everything that is awaited on a socket; the writer waits again.
void Transport::stop_reading() {
    boost::system::error_code ignored;
    if (socket_.is_open()) socket_.cancel(ignored);
}

void Transport::close() {
    boost::system::error_code ignored;
    broken_ = true;
    shutdown_done_ = true;
    if (socket_.is_open()) socket_.close(ignored);
}

}  // namespace pgchaperone::net
