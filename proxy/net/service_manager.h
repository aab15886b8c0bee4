#pragma once
// What systemd is told of this process, by the datagrams of sd_notify(3): that it serves, reloads,
// ends, and lives. Where nobody listens ($NOTIFY_SOCKET is not set) nothing is done. Of two guards
// of which one takes over from the other only one speaks. Thread-safe; waits for a second at most
// where it has to be heard, and else not at all.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::net {

class ServiceManager {
public:
    // Takes what it needs out of the environment, so that no child inherits it. Call it while there
    // is one thread.
    ServiceManager();
    ~ServiceManager();
    ServiceManager(const ServiceManager&) = delete;
    ServiceManager& operator=(const ServiceManager&) = delete;

    // Nothing is said before speak().
    void be_silent() { silent_ = true; }
    void speak() { silent_ = false; }
    // Another process is the service from now on: this one says nothing any more.
    void hand_over(long process);
    // What that is to find in its environment, as NAME=VALUE.
    std::vector<std::string> variables() const;

    void ready(std::string_view status);
    void reloading();
    void stopping(std::string_view status);
    // It never was ready, and ends.
    void not_started(std::string_view why);
    void status(std::string_view status);
    void alive();
    // How often alive() is to be said; nothing: nobody watches.
    std::optional<std::chrono::microseconds> watchdog() const { return watchdog_; }

private:
    enum class Weight : std::uint8_t {
        passing,  // the next of its kind tells as much
        counts,   // what the manager does goes by it
    };
    void send(const std::string& text, Weight weight) const;

    std::atomic<bool> silent_{false};
    int socket_ = -1;
    std::string address_;  // as in sockaddr_un
    std::optional<std::chrono::microseconds> watchdog_;
};

}  // namespace pgchaperone::net
