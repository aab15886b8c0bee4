#pragma once
// Opens a connection to the upstream server: addresses one after the other, then TLS as configured,
// by SSLRequest or directly. What comes out speaks PostgreSQL from its next byte on.

#include "proxy/net/server_options.h"
#include "proxy/net/tls_channel.h"
#include "proxy/net/transport.h"

#include <boost/asio/awaitable.hpp>

#include <memory>
#include <string>

namespace pgchaperone::net {

class Guarded;
class IoThread;

struct UpstreamConnection {
    std::shared_ptr<Transport> transport;  // null: `error` says which address failed and why
    std::string error;
};

// Never throws. Gives up after UpstreamOptions::connect_timeout.
boost::asio::awaitable<UpstreamConnection> connect_upstream(IoThread& thread, Guarded& upstream,
                                                            std::weak_ptr<void> owner);

}  // namespace pgchaperone::net
