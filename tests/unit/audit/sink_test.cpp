// Standard output and syslog, with readers that read, that are slow and that go away.

#include "logs.h"

#include "audit/line.h"
#include "audit/sink.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <ctime>
#include <thread>

using namespace pgchaperone::test;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;

namespace {

std::string line_with(const std::string& statement) {
    Record record;
    record.time = *parse_time("2026-11-21T10:00:00.5Z");
    record.statement = statement;
    return make_line(record, {}, 100'000);
}

struct Notices {
    std::mutex mutex;
    std::string text;
    Sink::Options options(std::size_t bytes = 1024 * 1024) {
        Sink::Options made;
        made.queue_limit_bytes = bytes;
        made.stuck_after = 300ms;
        made.farewell = 300ms;
        made.on_notice = [this](std::string_view notice) {
            const std::lock_guard lock(mutex);
            text += std::string(notice) + "\n";
        };
        return made;
    }
    std::size_t count(const std::string& part) {
        const std::lock_guard lock(mutex);
        std::size_t found = 0;
        for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++found;
        return found;
    }
    bool has(const std::string& part) {
        for (int i = 0; i < 500; ++i) {
            {
                const std::lock_guard lock(mutex);
                if (text.find(part) != std::string::npos) return true;
            }
            std::this_thread::sleep_for(10ms);
        }
        return false;
    }
};

std::string receive(int socket) {
    std::string bytes(100'000, '\0');
    pollfd one{socket, POLLIN, 0};
    REQUIRE(::poll(&one, 1, 10'000) == 1);
    const ssize_t count = ::recv(socket, bytes.data(), bytes.size(), 0);
    REQUIRE(count >= 0);
    bytes.resize(static_cast<std::size_t>(count));
    return bytes;
}

// A server's socket on 127.0.0.1; `port` 0: any, which is then put there.
int listener(int type, std::uint16_t& port) {
    const int made = ::socket(AF_INET, type | SOCK_CLOEXEC, 0);
    REQUIRE(made >= 0);
    const int on = 1;
    ::setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::bind(made, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    socklen_t size = sizeof address;
    REQUIRE(::getsockname(made, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port = ntohs(address.sin_port);
    if (type == SOCK_STREAM) REQUIRE(::listen(made, 5) == 0);
    return made;
}

SyslogTarget target(SyslogTarget::Kind kind, std::uint16_t port) {
    return {kind, "127.0.0.1", std::to_string(port)};
}

}  // namespace

TEST_CASE("a line is a message of RFC 5424") {
    const std::string line = line_with("DELETE FROM t");
    CHECK(syslog_message(line, "db1", 42) ==
          "<85>1 2026-11-21T10:00:00.500000Z db1 pgchaperone 42 decision - " + line);
}

TEST_CASE("a line for this machine's own socket is a message of syslog(3)") {
    const std::string line = line_with("DELETE FROM t");
    const char* const zone = std::getenv("TZ");
    const std::string before = zone == nullptr ? "" : zone;
    ::setenv("TZ", "UTC-5", 1);
    ::tzset();
    CHECK(local_syslog_message(line, 42) == "<85>Nov 21 15:00:00 pgchaperone[42]: " + line);
    zone == nullptr ? ::unsetenv("TZ") : ::setenv("TZ", before.c_str(), 1);
    ::tzset();
}

TEST_CASE("the writer hands on each line that is on the disk, and no other") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    FaultyDisk disk;
    std::mutex mutex;
    std::string handed_on;
    {
        Log log(
            [&](WriterOptions options) {
                options.on_lines = [&](std::string_view lines) {
                    const std::lock_guard lock(mutex);
                    handed_on += lines;
                };
                return options;
            },
            file, &disk);
        CHECK(log.store(1).empty());
        disk.sync_error = EIO;
        CHECK_FALSE(log.store(2).empty());
        disk.sync_error = 0;
        CHECK(log.store(3).empty());
    }
    CHECK(handed_on == read_file(file));
}

TEST_CASE("standard output gets whole lines, as far as its reader follows") {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    Notices notices;
    const std::string line = line_with(std::string(30'000, 'x'));
    {
        Sink sink(standard_output(ends[1]), notices.options(10 * line.size()));
        // Nobody reads: two fit into the pipe at most, and ten wait.
        for (int i = 0; i < 20; ++i) sink.offer(line + "\n");
        CHECK(sink.stats().dropped >= 7);
        CHECK(sink.stats().dropped <= 10);
        // It is told while it is so, and not only when it is over.
        CHECK(notices.count("records for standard output are dropped") == 1);
        CHECK(notices.has("standard output has taken nothing for 300 ms; records wait"));
        std::string read;
        const std::size_t expected = 20 - sink.stats().dropped;
        while (read.size() < expected * (line.size() + 1)) {
            std::string chunk(100'000, '\0');
            const ssize_t count = ::read(ends[0], chunk.data(), chunk.size());
            REQUIRE(count > 0);
            read.append(chunk, 0, static_cast<std::size_t>(count));
        }
        for (const std::string& one : lines_of(read)) CHECK(one == line);
        CHECK(notices.has("records can be sent to standard output again"));
        CHECK(notices.has(std::to_string(sink.stats().dropped) +
                          " records were not sent to standard output, which could not follow"));
        CHECK(sink.stats().sent == expected);
        CHECK(notices.count("has taken nothing") == 1);
        // What nobody reads does not keep the sink from ending; but it is said how much that is.
        for (int i = 0; i < 20; ++i) sink.offer(line + "\n");
    }
    CHECK(notices.count("records for standard output are dropped") == 2);
    // Two at most are in the pipe, of which the second may be half there only.
    const std::string text = notices.text;
    const std::string words = " records were not sent to standard output before the end; the file";
    REQUIRE(text.find(words) != std::string::npos);
    const std::size_t begin = text.rfind('\n', text.find(words)) + 1;
    const int left = std::stoi(text.substr(begin));
    std::string rest;
    ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
    for (std::string chunk(100'000, '\0');;) {
        const ssize_t count = ::read(ends[0], chunk.data(), chunk.size());
        if (count <= 0) break;
        rest.append(chunk, 0, static_cast<std::size_t>(count));
    }
    CHECK(left + std::count(rest.begin(), rest.end(), '\n') == 20);
    ::close(ends[0]);
    ::close(ends[1]);
}

TEST_CASE("a reader of standard output that is gone is told of, and harms nobody") {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    ::close(ends[0]);
    Notices notices;
    {
        Sink sink(standard_output(ends[1]), notices.options());
        sink.offer(line_with("DELETE") + "\n");
        CHECK(notices.has("cannot send records to standard output: Broken pipe"));
    }
    ::close(ends[1]);
}

TEST_CASE("syslog over a Unix-domain socket, which may come later") {
    const Folder folder;
    const std::filesystem::path path = folder / "log";
    Notices notices;
    Sink sink(syslog_outlet({SyslogTarget::Kind::unix_datagram, path, {}}), notices.options());
    const std::string line = line_with("DELETE");
    sink.offer(line + "\n");
    CHECK(notices.has("cannot send records to syslog at " + path.string() +
                      ": No such file or directory"));
    const int server = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::copy_n(path.c_str(), path.string().size(), address.sun_path);
    REQUIRE(::bind(server, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    CHECK(receive(server) == local_syslog_message(line, static_cast<std::uint64_t>(::getpid())));
    CHECK(notices.has("can be sent to syslog at " + path.string() + " again"));
    ::close(server);
}

TEST_CASE("syslog over UDP, cut where it does not fit into a datagram") {
    std::uint16_t port = 0;
    const int server = listener(SOCK_DGRAM, port);
    Notices notices;
    Sink sink(syslog_outlet(target(SyslogTarget::Kind::udp, port)), notices.options());
    sink.offer(line_with("one") + "\n" + line_with(std::string(90'000, 'x')) + "\n");
    CHECK_THAT(receive(server), ContainsSubstring(line_with("one")));
    const std::string cut = receive(server);
    CHECK(cut.size() == 60'000);
    ::close(server);
}

TEST_CASE("a syslog server that takes nothing more is told of, over TCP and by a socket") {
    const Folder folder;
    const std::filesystem::path path = folder / "log";
    const bool stream = GENERATE(true, false);
    std::uint16_t port = 0;
    int server = -1;
    if (stream) {
        server = listener(SOCK_STREAM, port);
    } else {
        server = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::copy_n(path.c_str(), path.string().size(), address.sun_path);
        REQUIRE(::bind(server, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    }
    Notices notices;
    {
        Sink sink(syslog_outlet(stream ? target(SyslogTarget::Kind::tcp, port)
                                       : SyslogTarget{SyslogTarget::Kind::unix_datagram, path, {}}),
                  notices.options(64 * 1024 * 1024));
        const std::string line = line_with(std::string(50'000, 'x')) + "\n";
        for (int i = 0; i < 500; ++i) sink.offer(line);
        CHECK(notices.has(" has taken nothing for 300 ms; records wait, and the file has them"));
        CHECK(notices.count("dropped") == 0);
    }
    CHECK(notices.count(" records were not sent to syslog at ") == 1);
    ::close(server);
}

TEST_CASE("syslog over TCP has each message's length before it, and connects again") {
    std::uint16_t port = 0;
    int server = listener(SOCK_STREAM, port);
    Notices notices;
    Sink sink(syslog_outlet(target(SyslogTarget::Kind::tcp, port)), notices.options());
    const auto expect = [&](int connection, const std::string& line) {
        const std::string bytes = receive(connection);
        const std::size_t space = bytes.find(' ');
        REQUIRE(space != std::string::npos);
        CHECK(bytes.substr(0, space) == std::to_string(bytes.size() - space - 1));
        CHECK_THAT(bytes.substr(space + 1), StartsWith("<85>1 ") && ContainsSubstring(line));
    };
    sink.offer(line_with("one") + "\n");
    int connection = ::accept(server, nullptr, nullptr);
    REQUIRE(connection >= 0);
    expect(connection, line_with("one"));
    sink.offer(line_with("two") + "\n");
    expect(connection, line_with("two"));
    ::close(connection);
    ::close(server);
    sink.offer(line_with("three") + "\n");
    CHECK(notices.has("cannot send records to syslog at tcp://127.0.0.1:"));
    server = listener(SOCK_STREAM, port);
    connection = ::accept(server, nullptr, nullptr);
    expect(connection, line_with("three"));
    CHECK(notices.has("again"));
    ::close(connection);
    ::close(server);
}
