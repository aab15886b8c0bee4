#pragma once
// One thread with one io_context, on which connections live from accept to close. Everything a
// connection touches on the way of a query belongs to its thread, so nothing is locked: the
// io_context runs without its own locks (BOOST_ASIO_CONCURRENCY_HINT_UNSAFE), and other threads
// reach it only through post().

#include "policy/engine.h"
#include "proxy/net/counts.h"
#include "proxy/net/tls_context.h"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace pgchaperone::net {

class Connection;
struct Shared;

class IoThread {
public:
    IoThread(Shared& shared, unsigned index);
    ~IoThread();
    IoThread(const IoThread&) = delete;
    IoThread& operator=(const IoThread&) = delete;

    // Works until stop(). Called on the thread itself.
    void run();

    // From any thread: runs `work` on this one, soon, in order.
    void post(std::function<void()> work);

    // The rest is for this thread alone.
    boost::asio::io_context& context() { return context_; }
    Shared& shared() { return shared_; }
    // By the index of the server that is guarded: each has rules of its own.
    policy::Engine& engine(std::size_t upstream) { return engines_[upstream]; }
    unsigned index() const { return index_; }
    // Counted on this thread, and read on any.
    ThreadCounts& counts(std::size_t upstream) { return counts_[upstream]; }

    // A scratch buffer: what a read brings, until the next suspension.
    static constexpr std::size_t scratch_bytes = 64 * 1024;
    std::array<char, scratch_bytes>& scratch() { return *scratch_; }
    std::array<char, scratch_bytes>& plain_scratch() { return *plain_scratch_; }

    void add(std::shared_ptr<Connection> connection);
    void remove(std::uint64_t id);
    std::shared_ptr<Connection> find(std::uint64_t id) const;
    std::size_t connections() const { return connections_.size(); }
    void for_each(const std::function<void(Connection&)>& visit);

    // Ends run() once everything posted has been done.
    void stop();

private:
    boost::asio::awaitable<void> read_mailbox();

    Shared& shared_;
    unsigned index_;
    boost::asio::io_context context_;
    std::deque<policy::Engine> engines_;
    std::deque<ThreadCounts> counts_;
    std::unique_ptr<std::array<char, scratch_bytes>> scratch_;
    std::unique_ptr<std::array<char, scratch_bytes>> plain_scratch_;
    std::unordered_map<std::uint64_t, std::shared_ptr<Connection>> connections_;

    std::mutex mailbox_mutex_;
    std::vector<std::function<void()>> mailbox_;
    boost::asio::posix::stream_descriptor wake_;
    int wake_fd_ = -1;
};

}  // namespace pgchaperone::net
