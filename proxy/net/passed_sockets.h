#pragma once
// Sockets that whoever starts this process has opened and goes on holding: systemd's socket
// activation (sd_listen_fds(3)), and a guard that this one takes over from (proxy/net/hand_over.h).
// While one process ends and the next one starts, who connects waits in the socket's queue, and
// nobody is refused.

#include "proxy/net/listen.h"

#include <boost/asio/io_context.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::net {

struct Passed {
    int descriptor = -1;
    std::string name;  // as $LISTEN_FDNAMES has it; may be empty
};

// The descriptors that $LISTEN_PID and $LISTEN_FDS pass to this process; none: it listens by
// itself. The variables are taken away, so that no child believes they are meant for it: call it
// once, while there is one thread.
std::vector<Passed> take_passed_sockets();

// Those, ready to accept. Throws std::runtime_error where one of them is something else.
std::vector<Acceptor> acceptors_of(boost::asio::io_context& context,
                                   const std::vector<int>& descriptors);

// Whether it listens there. A name is what it is resolved to now.
bool is_at(const Acceptor& acceptor, const Address& address);

// Where such a socket listens, for people.
std::string where_it_listens(const Acceptor& acceptor);

// Listening sockets that are there already, to be taken by whoever is to listen where they do. For
// one thread.
class ReadySockets {
public:
    ReadySockets() = default;
    // Owns the descriptors.
    explicit ReadySockets(std::vector<int> descriptors) : descriptors_(std::move(descriptors)) {}
    ~ReadySockets() { close(); }
    ReadySockets(const ReadySockets&) = delete;
    ReadySockets& operator=(const ReadySockets&) = delete;

    // Nothing: none listens there.
    std::optional<Acceptor> take(boost::asio::io_context& context,
                                 const boost::asio::generic::stream_protocol::endpoint& endpoint);
    // Those that nobody has taken.
    void close();

private:
    std::vector<int> descriptors_;
};

}  // namespace pgchaperone::net
