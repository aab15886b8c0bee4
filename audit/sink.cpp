#include "audit/sink.h"

#include "audit/line.h"

#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <ctime>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace pgchaperone::audit {
namespace {

using namespace std::chrono_literals;

constexpr auto look_time = 200ms;  // so often a blocked outlet looks whether it shall stop
constexpr auto connect_time = 5s;  // and so long it may take to connect
constexpr auto retry_pause = 1s;   // after a failure
// Facility authpriv, severity notice.
constexpr int priority = 10 * 8 + 5;
// What fits into a UDP datagram, and into what most systems take by a Unix-domain one.
constexpr std::size_t datagram_bytes = 60'000;

std::string words(int error) { return std::generic_category().message(error); }

// "1 record was", "2 records were".
std::string records(std::uint64_t count) {
    return std::to_string(count) + (count == 1 ? " record was" : " records were");
}

// Until the file takes bytes; false: it is to stop.
bool wait_for_room(int file, const Waiting& waiting) {
    const auto begun = std::chrono::steady_clock::now();
    bool told = false;
    while (!waiting.stopping) {
        pollfd one{file, POLLOUT, 0};
        const int found = ::poll(&one, 1, static_cast<int>(look_time.count()));
        if (found > 0) return true;
        if (found < 0 && errno != EINTR) return false;
        if (told || std::chrono::steady_clock::now() - begun < waiting.stuck_after) continue;
        told = true;
        waiting.stuck();
    }
    return false;
}

// Until a connection is made or is not to be had; false: it is to stop, or too late.
bool wait_for_connection(int socket, const Waiting& waiting) {
    const auto end = std::chrono::steady_clock::now() + connect_time;
    while (!waiting.stopping && std::chrono::steady_clock::now() < end) {
        pollfd one{socket, POLLOUT, 0};
        const int found = ::poll(&one, 1, static_cast<int>(look_time.count()));
        if (found > 0) return true;
        if (found < 0 && errno != EINTR) return false;
    }
    return false;
}

class StandardOutput : public Outlet {
public:
    explicit StandardOutput(int file) : file_(file) {}
    std::string name() const override { return "standard output"; }
    std::string send(std::string_view line, const Waiting& waiting) override {
        // What an earlier failure has left of a line is not gone on with.
        std::string whole(line);
        whole += '\n';
        std::string_view rest = whole;
        while (!rest.empty()) {
            if (!wait_for_room(file_, waiting)) return "pgchaperone ends";
            // So much a pipe that can be written to takes without blocking.
            const ssize_t count = ::write(file_, rest.data(),
                                          std::min<std::size_t>(rest.size(), PIPE_BUF));
            if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
            if (count < 0) return words(errno);
            rest.remove_prefix(static_cast<std::size_t>(count));
        }
        return {};
    }

private:
    int file_;
};

class Syslog : public Outlet {
public:
    explicit Syslog(SyslogTarget target) : target_(std::move(target)) {
        std::array<char, 256> host{};
        if (::gethostname(host.data(), host.size() - 1) == 0) host_ = host.data();
    }
    ~Syslog() override { disconnect(); }

    std::string name() const override { return "syslog at " + target_.text(); }

    std::string send(std::string_view line, const Waiting& waiting) override {
        const auto process = static_cast<std::uint64_t>(::getpid());
        std::string message = target_.kind == SyslogTarget::Kind::unix_datagram
                                  ? local_syslog_message(line, process)
                                  : syslog_message(line, host_, process);
        const bool stream = target_.kind == SyslogTarget::Kind::tcp;
        if (stream) {
            // RFC 6587, octet counting.
            message = std::to_string(message.size()) + " " + message;
        } else if (message.size() > datagram_bytes) {
            message.resize(datagram_bytes);
            while ((static_cast<unsigned char>(message.back()) & 0xc0) == 0x80) message.pop_back();
            if (static_cast<unsigned char>(message.back()) >= 0xc0) message.pop_back();
        }
        std::string problem;
        if (socket_ >= 0 && stream && hung_up()) disconnect();
        if (socket_ < 0) problem = connect(waiting);
        if (problem.empty()) problem = send_all(message, waiting);
        // Half a message can't be gone on with.
        if (!problem.empty()) disconnect();
        return problem;
    }

private:
    void disconnect() {
        if (socket_ >= 0) ::close(socket_);
        socket_ = -1;
    }

    // A syslog server has nothing to say; where there is something to read, it is the end.
    bool hung_up() const {
        pollfd one{socket_, POLLIN, 0};
        return ::poll(&one, 1, 0) > 0;
    }

    std::string connect(const Waiting& waiting) {
        if (target_.kind == SyslogTarget::Kind::unix_datagram) return connect_unix(waiting);
        addrinfo wanted{};
        wanted.ai_socktype = target_.kind == SyslogTarget::Kind::tcp ? SOCK_STREAM : SOCK_DGRAM;
        addrinfo* found = nullptr;
        const int error = ::getaddrinfo(target_.host.c_str(), target_.port.c_str(), &wanted,
                                        &found);
        if (error != 0) return ::gai_strerror(error);
        const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, &::freeaddrinfo);
        std::string problem = "it has no address";
        for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
            problem = connect_to(one->ai_family, one->ai_socktype, one->ai_addr, one->ai_addrlen,
                                 waiting);
            if (problem.empty()) break;
        }
        return problem;
    }

    std::string connect_unix(const Waiting& waiting) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (target_.host.size() >= sizeof address.sun_path) return words(ENAMETOOLONG);
        std::copy(target_.host.begin(), target_.host.end(), address.sun_path);
        return connect_to(AF_UNIX, SOCK_DGRAM, reinterpret_cast<const sockaddr*>(&address),
                          sizeof address, waiting);
    }

    std::string connect_to(int family, int type, const sockaddr* address, socklen_t size,
                           const Waiting& waiting) {
        socket_ = ::socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (socket_ < 0) return words(errno);
        int error = ::connect(socket_, address, size) == 0 ? 0 : errno;
        if (error == EINPROGRESS) {
            socklen_t length = sizeof error;
            if (!wait_for_connection(socket_, waiting))
                error = ETIMEDOUT;
            else if (::getsockopt(socket_, SOL_SOCKET, SO_ERROR, &error, &length) != 0)
                error = errno;
        }
        if (error == 0) return {};
        disconnect();
        return words(error);
    }

    std::string send_all(std::string_view rest, const Waiting& waiting) {
        while (!rest.empty()) {
            const ssize_t count = ::send(socket_, rest.data(), rest.size(), MSG_NOSIGNAL);
            if (count < 0 && errno == EINTR) continue;
            if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
                if (!wait_for_room(socket_, waiting)) return "pgchaperone ends";
                continue;
            }
            if (count < 0) return words(errno);
            rest.remove_prefix(static_cast<std::size_t>(count));
        }
        return {};
    }

    SyslogTarget target_;
    std::string host_ = "-";
    int socket_ = -1;
};

// The text of a member whose name and value are ours, up to its closing quote.
std::string_view plain_member(std::string_view line, std::string_view name) {
    constexpr std::size_t head_bytes = 250;
    const std::string begin = "\"" + std::string(name) + "\":\"";
    const std::size_t at = line.substr(0, head_bytes).find(begin);
    if (at == std::string_view::npos) return "-";
    const std::string_view rest = line.substr(at + begin.size());
    return rest.substr(0, rest.find('"'));
}

}  // namespace

std::string SyslogTarget::text() const {
    switch (kind) {
        case Kind::unix_datagram: return host;
        case Kind::udp: return "udp://" + host + ":" + port;
        case Kind::tcp: return "tcp://" + host + ":" + port;
    }
    return host;
}

std::string syslog_message(std::string_view line, std::string_view host, std::uint64_t process) {
    std::string out = "<" + std::to_string(priority) + ">1 ";
    out += plain_member(line, "time");
    out += ' ';
    out += host;
    out += " pgchaperone " + std::to_string(process) + " ";
    out += plain_member(line, "event");
    out += " - ";
    out += line;
    return out;
}

std::string local_syslog_message(std::string_view line, std::uint64_t process) {
    std::string out = "<" + std::to_string(priority) + ">";
    const auto time = parse_time(plain_member(line, "time"));
    if (time) {
        const std::time_t seconds = std::chrono::system_clock::to_time_t(*time);
        std::tm local{};
        std::array<char, 32> text{};
        // No locale is set, so the month is English.
        if (::localtime_r(&seconds, &local) != nullptr &&
            std::strftime(text.data(), text.size(), "%b %e %H:%M:%S ", &local) > 0)
            out += text.data();
    }
    return out + "pgchaperone[" + std::to_string(process) + "]: " + std::string(line);
}

std::unique_ptr<Outlet> standard_output(int file) { return std::make_unique<StandardOutput>(file); }

std::unique_ptr<Outlet> syslog_outlet(SyslogTarget target) {
    return std::make_unique<Syslog>(std::move(target));
}

struct Sink::Impl {
    Impl(std::unique_ptr<Outlet> outlet_, Options options_)
        : outlet(std::move(outlet_)), options(std::move(options_)) {}

    void run();
    bool deliver(const std::string& line);
    void note_stuck();
    void notice(const std::string& text) const {
        if (options.on_notice) options.on_notice(text);
    }

    std::unique_ptr<Outlet> outlet;
    Options options;
    std::string trouble;  // of the outlet, told already; the thread's own

    mutable std::mutex mutex;
    std::condition_variable wake;
    std::deque<std::string> waiting;
    std::size_t waiting_bytes = 0;
    std::uint64_t lost = 0;  // since dropping began
    Stats stats;
    bool closing = false;
    bool ended = false;
    std::condition_variable done;
    std::atomic<bool> stopping = false;  // at once
    std::thread thread;
};

void Sink::Impl::run() {
    std::unique_lock lock(mutex);
    for (;;) {
        wake.wait(lock, [this] { return !waiting.empty() || closing; });
        if (waiting.empty() || stopping) break;
        std::string line = std::move(waiting.front());
        waiting.pop_front();
        waiting_bytes -= line.size();
        const std::uint64_t missing = waiting.empty() ? std::exchange(lost, 0) : 0;
        lock.unlock();
        const bool delivered = deliver(line);
        if (delivered && missing > 0)
            notice(records(missing) + " not sent to " + outlet->name() +
                   ", which could not follow; the file has them");
        lock.lock();
        if (!delivered) lost += missing + 1;
    }
    ended = true;
    done.notify_one();
}

// Who takes nothing is told of like who fails.
void Sink::Impl::note_stuck() {
    const std::string problem = outlet->name() + " has taken nothing for " +
                                std::to_string(options.stuck_after.count()) + " ms";
    if (problem != trouble) notice(problem + "; records wait, and the file has them");
    trouble = problem;
}

// Tries until it is sent, or all is over; whether it was.
bool Sink::Impl::deliver(const std::string& line) {
    const Waiting waits{stopping, options.stuck_after, [this] { note_stuck(); }};
    for (;;) {
        const std::string problem = outlet->send(line, waits);
        if (problem.empty()) break;
        if (stopping) return false;
        if (problem != trouble)
            notice("cannot send records to " + outlet->name() + ": " + problem +
                   "; they wait, and the file has them");
        trouble = problem;
        std::unique_lock lock(mutex);
        // At the end nobody waits for a server to come back.
        if (closing) stopping = true;
        wake.wait_for(lock, retry_pause, [this] { return closing; });
    }
    if (!trouble.empty()) notice("records can be sent to " + outlet->name() + " again");
    trouble.clear();
    const std::lock_guard lock(mutex);
    ++stats.sent;
    return true;
}

Sink::Sink(std::unique_ptr<Outlet> outlet, Options options)
    : impl_(std::make_unique<Impl>(std::move(outlet), std::move(options))) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    impl_->thread = std::thread([impl = impl_.get()] { impl->run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_setname_np(impl_->thread.native_handle(), "audit-sink");
}

Sink::~Sink() {
    {
        std::unique_lock lock(impl_->mutex);
        impl_->closing = true;
        impl_->wake.notify_one();
        impl_->done.wait_for(lock, impl_->options.farewell, [this] { return impl_->ended; });
        impl_->stopping = true;
        impl_->wake.notify_one();
    }
    impl_->thread.join();
    const std::uint64_t left = impl_->lost + impl_->waiting.size();
    if (left > 0)
        impl_->notice(records(left) + " not sent to " + impl_->outlet->name() +
                      " before the end; the file has them");
}

void Sink::offer(std::string_view lines) {
    bool begins = false;
    std::unique_lock lock(impl_->mutex);
    while (!lines.empty()) {
        const std::string_view line = lines.substr(0, lines.find('\n'));
        lines.remove_prefix(std::min(line.size() + 1, lines.size()));
        if (impl_->waiting_bytes + line.size() > impl_->options.queue_limit_bytes) {
            ++impl_->stats.dropped;
            begins = begins || impl_->lost == 0;
            ++impl_->lost;
            continue;
        }
        impl_->waiting_bytes += line.size();
        impl_->waiting.emplace_back(line);
    }
    impl_->wake.notify_one();
    lock.unlock();
    if (begins)
        impl_->notice("records for " + impl_->outlet->name() +
                      " are dropped: too many wait for it; the file has them");
}

Sink::Stats Sink::stats() const {
    const std::lock_guard lock(impl_->mutex);
    return impl_->stats;
}

}  // namespace pgchaperone::audit
