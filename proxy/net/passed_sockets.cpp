#include "proxy/net/passed_sockets.h"

#include "proxy/net/resolver.h"

#include <boost/asio/ip/tcp.hpp>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string_view>

namespace pgchaperone::net {

namespace asio = boost::asio;

namespace {

constexpr int first_passed = 3;
constexpr long passed_max = 1000;

long number_of(const char* variable) {
    const char* const text = std::getenv(variable);
    if (text == nullptr) return -1;
    const std::string_view view(text);
    long value = -1;
    const auto [end, problem] = std::from_chars(view.data(), view.data() + view.size(), value);
    return problem == std::errc() && end == view.data() + view.size() ? value : -1;
}

int option_of(int descriptor, int option) {
    int value = -1;
    socklen_t size = sizeof value;
    if (::getsockopt(descriptor, SOL_SOCKET, option, &value, &size) != 0) return -1;
    return value;
}

Acceptor acceptor_of(asio::io_context& context, int descriptor) {
    const std::string where = "LISTEN_FDS: descriptor " + std::to_string(descriptor);
    const int family = option_of(descriptor, SO_DOMAIN);
    const bool known = family == AF_INET || family == AF_INET6 || family == AF_UNIX;
    if (!known || option_of(descriptor, SO_TYPE) != SOCK_STREAM ||
        option_of(descriptor, SO_ACCEPTCONN) != 1) {
        throw std::runtime_error(where +
                                 " is no stream socket that listens (in the .socket unit: "
                                 "ListenStream=, and Accept=no)");
    }
    Acceptor acceptor(context);
    boost::system::error_code error;
    if (::fcntl(descriptor, F_SETFD, FD_CLOEXEC) != 0) {
        error = {errno, boost::system::system_category()};
    } else {
        acceptor.assign(asio::generic::stream_protocol(family, 0), descriptor, error);
    }
    if (error) throw std::runtime_error(where + " can't be used: " + error.message());
    return acceptor;
}

}  // namespace

std::vector<Passed> take_passed_sockets() {
    const long process = number_of("LISTEN_PID"), count = number_of("LISTEN_FDS");
    const char* const all_names = std::getenv("LISTEN_FDNAMES");
    std::string names = all_names ? all_names : "";
    for (const char* const variable : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"})
        ::unsetenv(variable);
    std::vector<Passed> passed;
    if (process != ::getpid()) return passed;
    for (int i = 0; i < std::min(count, passed_max); ++i) {
        const std::size_t colon = std::min(names.find(':'), names.size());
        passed.push_back({first_passed + i, names.substr(0, colon)});
        names.erase(0, colon + 1);
    }
    return passed;
}

std::vector<Acceptor> acceptors_of(asio::io_context& context, const std::vector<int>& descriptors) {
    std::vector<Acceptor> acceptors;
    for (const int descriptor : descriptors) acceptors.push_back(acceptor_of(context, descriptor));
    return acceptors;
}

bool is_at(const Acceptor& acceptor, const Address& address) {
    boost::system::error_code error;
    const auto own = acceptor.local_endpoint(error);
    const std::vector<asio::generic::stream_protocol::endpoint>
        wanted = resolve_now(address, true, false).endpoints;
    return !error && std::find(wanted.begin(), wanted.end(), own) != wanted.end();
}

namespace {

std::string text_of(const asio::generic::stream_protocol::endpoint& endpoint) {
    const int family = endpoint.protocol().family();
    if (family == AF_UNIX) {
        const auto* const address = reinterpret_cast<const sockaddr_un*>(endpoint.data());
        return address->sun_path;
    }
    asio::ip::tcp::endpoint tcp;
    tcp.resize(endpoint.size());
    std::memcpy(tcp.data(), endpoint.data(), endpoint.size());
    return Address{tcp.address().to_string(), tcp.port()}.text();
}

}  // namespace

std::string where_it_listens(const Acceptor& acceptor) {
    boost::system::error_code error;
    const auto endpoint = acceptor.local_endpoint(error);
    return error ? "a socket that was passed" : text_of(endpoint);
}

std::optional<Acceptor> ReadySockets::take(
    asio::io_context& context, const asio::generic::stream_protocol::endpoint& endpoint) {
    for (int& descriptor : descriptors_) {
        asio::generic::stream_protocol::endpoint local;
        socklen_t size = static_cast<socklen_t>(local.capacity());
        if (::getsockname(descriptor, local.data(), &size) != 0) continue;
        local.resize(size);
        if (text_of(local) != text_of(endpoint)) continue;
        Acceptor acceptor = acceptor_of(context, descriptor);
        std::swap(descriptor, descriptors_.back());
        descriptors_.pop_back();
        return acceptor;
    }
    return std::nullopt;
}

void ReadySockets::close() {
    for (const int descriptor : descriptors_) ::close(descriptor);
    descriptors_.clear();
}

}  // namespace pgchaperone::net
