#pragma once
// Listening sockets that whoever starts this process has opened and goes on holding: systemd's
// socket activation (sd_listen_fds(3)). While one process ends and the next one starts, who
// connects waits in the socket's queue, and nobody is refused.

#include "proxy/net/listen.h"

#include <boost/asio/io_context.hpp>

#include <string>
#include <vector>

namespace pgchaperone::net {

// The sockets that $LISTEN_PID and $LISTEN_FDS pass to this process, ready to accept; none: it
// listens by itself. The variables are taken away, so that no child believes they are meant for it:
// call it once, before there are threads. Throws std::runtime_error where something else was
// passed.
std::vector<Acceptor> take_passed_sockets(boost::asio::io_context& context);

// Where such a socket listens, for people.
std::string where_it_listens(const Acceptor& acceptor);

}  // namespace pgchaperone::net
