#include "proxy/net/listen.h"

#include "proxy/net/passed_sockets.h"

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/socket_base.hpp>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <unistd.h>

namespace pgchaperone::net {

namespace asio = boost::asio;

namespace {

// A socket file that nobody listens on any more stands in the way of the next one.
void remove_stale_socket(const std::string& path) {
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode)) return;
    asio::io_context context;
    asio::local::stream_protocol::socket probe(context);
    boost::system::error_code error;
    probe.connect(asio::local::stream_protocol::endpoint(path), error);
    if (error == asio::error::connection_refused) ::unlink(path.c_str());
}

// As PostgreSQL's own socket: its folder says who may come, and the server who may log in. With the
// umask's mode nobody but our own user could connect.
boost::system::error_code let_everybody_connect(const std::string& path) {
    if (::chmod(path.c_str(), 0777) == 0) return {};
    return {errno, boost::system::system_category()};
}

}  // namespace

Acceptor listen_on(asio::io_context& context, const Address& address,
                   const asio::generic::stream_protocol::endpoint& endpoint,
                   const std::string& where, const std::string& setting, ReadySockets* ready) {
    if (ready) {
        if (auto taken = ready->take(context, endpoint)) return std::move(*taken);
    }
    Acceptor acceptor(context);
    boost::system::error_code error;
    if (address.unix_socket()) remove_stale_socket(address.text());
    acceptor.open(endpoint.protocol(), error);
    if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
    if (!error && endpoint.protocol().family() == AF_INET6) {
        acceptor.set_option(asio::ip::v6_only(true), error);
    }
    if (!error) acceptor.bind(endpoint, error);
    if (!error && address.unix_socket()) error = let_everybody_connect(address.text());
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error) {
        throw std::runtime_error(
            where + error.message() +
            (error == asio::error::address_in_use
                 ? " (does another server use this port? choose one with " + setting + ")"
                 : ""));
    }
    return acceptor;
}

policy::ClientAddress address_of(const asio::generic::stream_protocol::endpoint& endpoint) {
    policy::ClientAddress address;
    const int family = endpoint.protocol().family();
    if (family == AF_INET) {
        asio::ip::tcp::endpoint tcp;
        tcp.resize(endpoint.size());
        std::memcpy(tcp.data(), endpoint.data(), endpoint.size());
        const auto mapped = asio::ip::make_address_v6(asio::ip::v4_mapped, tcp.address().to_v4());
        address.bytes = mapped.to_bytes();
        address.text = tcp.address().to_string();
    } else if (family == AF_INET6) {
        asio::ip::tcp::endpoint tcp;
        tcp.resize(endpoint.size());
        std::memcpy(tcp.data(), endpoint.data(), endpoint.size());
        const asio::ip::address_v6 v6 = tcp.address().to_v6();
        address.bytes = v6.to_bytes();
        address.text = v6.is_v4_mapped()
                           ? asio::ip::make_address_v4(asio::ip::v4_mapped, v6).to_string()
                           : v6.to_string();
    } else {
        address.local = true;
        address.text = "[local]";
    }
    return address;
}

}  // namespace pgchaperone::net
