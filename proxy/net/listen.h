#pragma once
// What every listener does: takes an address, tells in words why it can't have it, and knows who
// comes.

#include "policy/session_facts.h"
#include "proxy/net/server_options.h"

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>

#include <string>

namespace pgchaperone::net {

using Acceptor = boost::asio::basic_socket_acceptor<boost::asio::generic::stream_protocol>;

class ReadySockets;

// Listens on one of the endpoints that `address` stands for; with one of the `ready` sockets, where
// there is one for it. Throws std::runtime_error: `where` ("can't listen on 127.0.0.1:6432: ") and
// why; `setting` is what to change.
Acceptor listen_on(boost::asio::io_context& context, const Address& address,
                   const boost::asio::generic::stream_protocol::endpoint& endpoint,
                   const std::string& where, const std::string& setting,
                   ReadySockets* ready = nullptr);

policy::ClientAddress address_of(const boost::asio::generic::stream_protocol::endpoint& endpoint);

}  // namespace pgchaperone::net
