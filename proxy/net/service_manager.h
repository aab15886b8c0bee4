#pragma once
// What systemd is told of this process, by the datagrams of sd_notify(3): that it serves, reloads,
// ends, and lives. Where nobody listens ($NOTIFY_SOCKET is not set) nothing is done. Thread-safe;
// never waits.

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace pgchaperone::net {

class ServiceManager {
public:
    // Takes what it needs out of the environment, so that no child inherits it. Call it while there
    // is one thread.
    ServiceManager();
    ~ServiceManager();
    ServiceManager(const ServiceManager&) = delete;
    ServiceManager& operator=(const ServiceManager&) = delete;

    void ready(std::string_view status);
    void reloading();
    void stopping(std::string_view status);
    void status(std::string_view status);
    void alive();
    // How often alive() is to be said; nothing: nobody watches.
    std::optional<std::chrono::microseconds> watchdog() const { return watchdog_; }

private:
    void send(const std::string& text) const;

    int socket_ = -1;
    std::string address_;  // as in sockaddr_un
    std::optional<std::chrono::microseconds> watchdog_;
};

}  // namespace pgchaperone::net
