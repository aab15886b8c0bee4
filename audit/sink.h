#pragma once
// Where records go besides the file: standard output, and syslog. A sink gets lines that
// are on the disk already, and never makes anybody wait: it has a thread and a bounded queue of its
// own, and what does not fit into that is dropped and counted. It tells at once that it drops, that
// a line is stuck on its way, and at the end what was left. The file has everything; a sink is for
// those who want to see it elsewhere.

#include <boost/system/result.hpp>

#include <atomic>
#include <chrono>
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
// The same as syslog(3) writes it to this machine's own socket: the journal, and rsyslog behind it,
// take the head of RFC 5424 there for the name of a program.
std::string local_syslog_message(std::string_view line, std::uint64_t process);

// Who waits with an outlet for those who read.
struct Waiting {
    const std::atomic<bool>& stopping;  // true: there is no time any more
    std::chrono::milliseconds stuck_after;
    std::function<void()> stuck;  // called when nothing was taken for so long
};

// The way out of a sink. For one thread.
class Outlet {
public:
    virtual ~Outlet() = default;
    virtual std::string name() const = 0;  // for people; from any thread
    // Sends a line, without its line feed; what is wrong, or nothing. May take its time, but says
    // when it is stuck, and ends soon once it is to stop.
    virtual std::string send(std::string_view line, const Waiting& waiting) = 0;
};
std::unique_ptr<Outlet> standard_output(int file = 1);
std::unique_ptr<Outlet> syslog_outlet(SyslogTarget target);

class Sink {
public:
    struct Options {
        std::size_t queue_limit_bytes = 16 * 1024 * 1024;
        // After so long a reader that takes nothing is told of.
        std::chrono::milliseconds stuck_after{5'000};
        // For what waits at the end.
        std::chrono::milliseconds farewell{2'000};
        // For the operator; called on any thread. May be empty.
        std::function<void(std::string_view)> on_notice;
    };
    struct Stats {
        std::uint64_t sent = 0;
        std::uint64_t dropped = 0;
    };

    Sink(std::unique_ptr<Outlet> outlet, Options options);
    // Sends what waits, for so long at most as its farewell may take.
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
