#pragma once
// Where records go besides the file: standard output, and syslog (RFC 5424). A sink gets lines that
// are on the disk already, and never makes anybody wait: it has a thread and a bounded queue of its
// own, and what does not fit into that is dropped, counted and told. The file has everything; a
// sink is for those who want to see it elsewhere.

#include <boost/system/result.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace pgchaperone::audit {

struct SyslogTarget {
    enum class Kind : std::uint8_t { unix_datagram, udp, tcp };
    Kind kind = Kind::unix_datagram;
    std::string host;  // or the path of the socket
    std::string port;
    std::string text() const;
};

// One line, without its line feed, as a message of RFC 5424; the line itself is its MSG.
std::string syslog_message(std::string_view line, std::string_view host, std::uint64_t process);

// The way out of a sink. For one thread.
class Outlet {
public:
    virtual ~Outlet() = default;
    virtual std::string name() const = 0;  // for people
    // Sends a line, without its line feed; what is wrong, or nothing. May take its time, but ends
    // soon once `stopping` is true.
    virtual std::string send(std::string_view line, const std::atomic<bool>& stopping) = 0;
};
std::unique_ptr<Outlet> standard_output(int file = 1);
std::unique_ptr<Outlet> syslog_outlet(SyslogTarget target);

class Sink {
public:
    struct Options {
        std::size_t queue_limit_bytes = 16 * 1024 * 1024;
        // For the operator; called on any thread. May be empty.
        std::function<void(std::string_view)> on_notice;
    };
    struct Stats {
        std::uint64_t sent = 0;
        std::uint64_t dropped = 0;
    };

    Sink(std::unique_ptr<Outlet> outlet, Options options);
    // Sends what waits, for two seconds at most.
    ~Sink();
    Sink(const Sink&) = delete;
    Sink& operator=(const Sink&) = delete;

    // Whole lines with their line feeds. From any thread; does not wait.
    void offer(std::string_view lines);
    Stats stats() const;

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace pgchaperone::audit
