#include "proxy/net/io_thread.h"

#include "proxy/net/connection.h"
#include "proxy/net/shared.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <exception>
#include <system_error>
#include <utility>

namespace pgchaperone::net {

namespace asio = boost::asio;

IoThread::IoThread(Shared& shared, unsigned index)
    : shared_(shared),
      index_(index),
      context_(BOOST_ASIO_CONCURRENCY_HINT_UNSAFE),
      scratch_(std::make_unique<std::array<char, scratch_bytes>>()),
      plain_scratch_(std::make_unique<std::array<char, scratch_bytes>>()),
      wake_(context_) {
    wake_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
    wake_.assign(wake_fd_);
    for (const auto& upstream : shared.upstreams) {
        engines_.emplace_back(upstream->rules, shared.capabilities);
        counts_.emplace_back();
    }
}

IoThread::~IoThread() = default;

void IoThread::run() {
    asio::co_spawn(context_, read_mailbox(), [](std::exception_ptr failure) {
        if (failure) std::rethrow_exception(failure);
    });
    context_.run();
}

void IoThread::post(std::function<void()> work) {
    bool first = false;
    {
        const std::lock_guard lock(mailbox_mutex_);
        first = mailbox_.empty();
        mailbox_.push_back(std::move(work));
    }
    if (!first) return;
    const std::uint64_t one = 1;
    // Fails only when the counter is full, and then the thread wakes anyway.
    [[maybe_unused]] const auto written = ::write(wake_fd_, &one, sizeof one);
}

asio::awaitable<void> IoThread::read_mailbox() {
    std::uint64_t count = 0;
    while (true) {
        const auto [error, size] = co_await wake_.async_read_some(
            asio::buffer(&count, sizeof count), asio::as_tuple(asio::use_awaitable));
        if (error) co_return;
        std::vector<std::function<void()>> work;
        {
            const std::lock_guard lock(mailbox_mutex_);
            work.swap(mailbox_);
        }
        for (const auto& item : work) item();
    }
}

void IoThread::stop() {
    post([this] { context_.stop(); });
}

void IoThread::add(std::shared_ptr<Connection> connection) {
    const std::uint64_t id = connection->id();
    connections_.emplace(id, std::move(connection));
}

void IoThread::remove(std::uint64_t id) {
    connections_.erase(id);
    shared_.connections.fetch_sub(1, std::memory_order_relaxed);
}

std::shared_ptr<Connection> IoThread::find(std::uint64_t id) const {
    const auto found = connections_.find(id);
    return found == connections_.end() ? nullptr : found->second;
}

void IoThread::for_each(const std::function<void(Connection&)>& visit) {
    std::vector<std::shared_ptr<Connection>> all;
    all.reserve(connections_.size());
    for (const auto& [id, connection] : connections_) all.push_back(connection);
    for (const auto& connection : all) visit(*connection);
}

}  // namespace pgchaperone::net
