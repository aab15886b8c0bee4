#pragma once
// Listening sockets that whoever starts this process has opened and goes on holding: systemd's
// socket activation (sd_listen_fds(3)). While one process ends and the next one starts, who
// connects waits in the socket's queue, and nobody is refused.

#include "proxy/net/listen.h"

#include <boost/asio/io_context.hpp>

#include <string>
#include <vector>

namespace pgchaperone::net {

// The descriptors that $LISTEN_PID and $LISTEN_FDS pass to this process; none: it listens by
// itself. The variables are taken away, so that no child believes they are meant for it: call it
// once, while there is one thread.
std::vector<int> take_passed_sockets();

// Those, ready to accept. Throws std::runtime_error where one of them is something else.
std::vector<Acceptor> acceptors_of(boost::asio::io_context& context,
                                   const std::vector<int>& descriptors);

// Whether it listens there. A name is what it is resolved to now.
bool is_at(const Acceptor& acceptor, const Address& address);

// Where such a socket listens, for people.
std::string where_it_listens(const Acceptor& acceptor);

}  // namespace pgchaperone::net
