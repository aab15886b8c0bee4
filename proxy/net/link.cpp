#include "proxy/net/link.h"

#include <sys/poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace pgchaperone::net {

namespace {
// Longer than any message: a cancel key has at most 256 bytes.
constexpr std::size_t message_bytes_max = 1024;
}  // namespace

std::pair<int, int> Link::pair() {
    int ends[2] = {-1, -1};
    (void)::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends);
    return {ends[0], ends[1]};
}

Link::~Link() { ::close(descriptor_); }

bool Link::say(Saying saying, std::string_view body) const {
    std::string bytes(1, static_cast<char>(saying));
    bytes += body;
    return ::send(descriptor_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
}

std::optional<Link::Message> Link::hear() {
    if (over_) return std::nullopt;
    std::array<char, message_bytes_max> bytes;
    ssize_t count = 0;
    do {
        count = ::recv(descriptor_, bytes.data(), bytes.size(), MSG_DONTWAIT);
    } while (count < 0 && errno == EINTR);
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return std::nullopt;
    // No message is empty: this is the other's end.
    if (count <= 0) {
        over_ = true;
        return std::nullopt;
    }
    return Message{static_cast<Saying>(bytes[0]),
                   std::string(bytes.data() + 1, static_cast<std::size_t>(count) - 1)};
}

void Link::wait(std::chrono::milliseconds time) const {
    pollfd one{.fd = descriptor_, .events = POLLIN, .revents = 0};
    ::poll(&one, 1, static_cast<int>(std::max<std::int64_t>(time.count(), 0)));
}

std::string Link::numbered(std::uint64_t number, std::string_view rest) {
    std::string body(sizeof number, '\0');
    std::memcpy(body.data(), &number, sizeof number);
    body += rest;
    return body;
}

std::optional<std::uint64_t> Link::take_number(std::string& body) {
    std::uint64_t number = 0;
    if (body.size() < sizeof number) return std::nullopt;
    std::memcpy(&number, body.data(), sizeof number);
    body.erase(0, sizeof number);
    return number;
}

}  // namespace pgchaperone::net
