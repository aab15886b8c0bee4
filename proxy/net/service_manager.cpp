#include "proxy/net/service_manager.h"

#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>

namespace pgchaperone::net {

namespace {

// Nothing where it is not set; it is not set any more then.
std::string taken(const char* name) {
    const char* const value = std::getenv(name);
    std::string out = value != nullptr ? value : "";
    ::unsetenv(name);
    return out;
}

std::optional<std::uint64_t> number(const std::string& text) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value == 0) return std::nullopt;
    return value;
}

// One line of it: what follows a line break would be another assignment.
std::string one_line(std::string_view text) {
    std::string out(text);
    for (char& c : out) {
        if (static_cast<unsigned char>(c) < ' ') c = ' ';
    }
    return out;
}

}  // namespace

ServiceManager::ServiceManager() {
    address_ = taken("NOTIFY_SOCKET");
    const std::string interval = taken("WATCHDOG_USEC");
    const std::string process = taken("WATCHDOG_PID");
    // A path, or a name of the abstract namespace.
    const bool usable = (address_.starts_with('/') || address_.starts_with('@')) &&
                        address_.size() > 1 && address_.size() < sizeof(sockaddr_un::sun_path);
    if (!usable) return;
    if (address_.front() == '@') address_.front() = '\0';
    socket_ = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const auto microseconds = number(interval);
    const auto watched = number(process);
    if (microseconds &&
        (process.empty() || (watched && *watched == static_cast<std::uint64_t>(::getpid())))) {
        watchdog_ = std::chrono::microseconds(*microseconds);
    }
}

ServiceManager::~ServiceManager() {
    if (socket_ >= 0) ::close(socket_);
}

// Whoever does not read is not waited for, or not for long: a manager that comes to it late (its
// queue may be ten datagrams long) would take a guard that was replaced for one that has died.
void ServiceManager::send(const std::string& text, Weight weight) const {
    if (socket_ < 0 || silent_) return;
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    std::memcpy(to.sun_path, address_.data(), address_.size());
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address_.size());
    constexpr std::chrono::seconds patience{1};
    constexpr std::chrono::milliseconds pause{5};
    const auto until = std::chrono::steady_clock::now() + patience;
    while (::sendto(socket_, text.data(), text.size(), MSG_NOSIGNAL,
                    reinterpret_cast<const sockaddr*>(&to), size) < 0) {
        if (errno == EINTR) continue;
        const bool full = errno == EAGAIN || errno == ENOBUFS;
        if (!full || weight == Weight::passing || std::chrono::steady_clock::now() >= until) return;
        std::this_thread::sleep_for(pause);
    }
}

// systemd takes messages of the main process only (NotifyAccess=main): this is the last of them.
void ServiceManager::hand_over(long process) {
    send("MAINPID=" + std::to_string(process), Weight::counts);
    be_silent();
}

std::vector<std::string> ServiceManager::variables() const {
    if (socket_ < 0) return {};
    std::string address = address_;
    if (address.front() == '\0') address.front() = '@';
    std::vector<std::string> out{"NOTIFY_SOCKET=" + address};
    if (watchdog_) out.push_back("WATCHDOG_USEC=" + std::to_string(watchdog_->count()));
    return out;
}

void ServiceManager::ready(std::string_view status) {
    send("READY=1\nSTATUS=" + one_line(status), Weight::counts);
}

// With the time by which systemd tells this reload from an earlier one (Type=notify-reload).
void ServiceManager::reloading() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    const auto usec = static_cast<std::uint64_t>(now.tv_sec) * 1'000'000 +
                      static_cast<std::uint64_t>(now.tv_nsec) / 1000;
    send("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(usec) + "\nSTATUS=reloading",
         Weight::counts);
}

void ServiceManager::stopping(std::string_view status) {
    send("STOPPING=1\nSTATUS=" + one_line(status), Weight::counts);
}

void ServiceManager::not_started(std::string_view why) {
    send("STATUS=does not start: " + one_line(why), Weight::counts);
}

void ServiceManager::status(std::string_view status) {
    send("STATUS=" + one_line(status), Weight::passing);
}

void ServiceManager::alive() { send("WATCHDOG=1", Weight::passing); }

}  // namespace pgchaperone::net
