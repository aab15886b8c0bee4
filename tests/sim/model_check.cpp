// Plays scripts against a real PostgreSQL and against the model server, without any guard, and
// compares what the client is told: the same messages in the same order, the same command tags,
// SQLSTATEs and transaction states. So the simulator's idea of a server is not just an idea.
//
// usage: sim_model_check PORT [SEEDS [FROM]]: a server at 127.0.0.1 that trusts the user clerk in
// database shop, with the tables and functions of model_check.py.

#include "sim/model_client.h"
#include "sim/model_server.h"
#include "sim/script.h"

#include "protocol/codec.h"
#include "protocol/dumper.h"
#include "protocol/head.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

using namespace pgchaperone;
using namespace pgchaperone::sim;

namespace {

constexpr int patience_ms = 10'000;

class Socket {
public:
    explicit Socket(std::uint16_t port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        ok_ = connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
        // Otherwise small messages wait for the server's kernel to acknowledge the last ones.
        const int on = 1;
        setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    ~Socket() { close(fd_); }
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;

    bool ok() const { return ok_; }
    void send(std::string_view bytes) {
        while (!bytes.empty()) {
            // A server that has ended the session has closed it, perhaps just now.
            const ssize_t size = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (size <= 0) return;
            bytes.remove_prefix(static_cast<std::size_t>(size));
        }
    }
    void finish() { shutdown(fd_, SHUT_WR); }
    // What has come after some waiting; empty: the end, or nothing came in time.
    std::string receive(int wait_ms) {
        pollfd poller{fd_, POLLIN, 0};
        if (poll(&poller, 1, wait_ms) <= 0) return {};
        std::array<char, 8192> buffer;
        const ssize_t size = read(fd_, buffer.data(), buffer.size());
        return size > 0 ? std::string(buffer.data(), static_cast<std::size_t>(size))
                        : std::string();
    }

private:
    int fd_;
    bool ok_ = false;
};

struct Played {
    std::vector<std::string> messages;
    std::string wrong;
};

Played play_model(const Script& script) {
    ModelDatabase database;
    ModelServer server(database, 1, {});
    ModelClient client(script);
    test::Random random(1);
    Played played;
    bool ended = false;
    while (played.wrong.empty()) {
        if (!server.output.empty()) {
            if (auto wrong = client.receive(std::exchange(server.output, {}))) {
                played.wrong = *wrong;
            }
        } else if (server.can_step()) {
            server.step();
        } else if (!client.out.empty()) {
            server.receive(std::exchange(client.out, {}));
        } else if (client.can_step()) {
            client.step(random);
        } else if (client.ended && !ended) {
            ended = true;
            server.receive_end();
        } else {
            break;
        }
    }
    played.messages = std::move(client.messages);
    return played;
}

Played play_real(const Script& script, std::uint16_t port) {
    Socket socket(port);
    ModelClient client(script);
    test::Random random(1);
    Played played;
    if (!socket.ok()) return {{}, "no connection to the server"};
    while (played.wrong.empty()) {
        if (!client.out.empty()) {
            socket.send(std::exchange(client.out, {}));
        } else if (client.can_step()) {
            client.step(random);
        } else {
            if (client.ended) socket.finish();
            const std::string bytes = socket.receive(patience_ms);
            if (bytes.empty()) {
                if (!client.ended && !client.dialogue.fatal())
                    played.wrong = "the server does not answer";
                break;
            }
            if (auto wrong = client.receive(bytes)) played.wrong = *wrong;
        }
    }
    if (played.wrong.empty() && client.dialogue.ready_owed() > 0 && !client.dialogue.fatal())
        played.wrong = "replies never came";
    played.messages = std::move(client.messages);
    return played;
}

// What must be the same of a message. The order of rows is the server's own.
std::string essence(const std::string& message) {
    switch (message[0]) {
        case 'E':
        case 'N': return message.substr(0, 1) + field_of(message, 'V') + field_of(message, 'C');
        case 'C':
        case 'Z': return message;
        default: return message.substr(0, 1);
    }
}

// A session that sets the server's tables right before each script: one for all, as a server takes
// its time to begin one.
class Preparation {
public:
    explicit Preparation(std::uint16_t port) : socket_(port) {
        protocol::StartupMessage startup;
        startup.parameters = {{"user", "clerk"}, {"database", "shop"}};
        socket_.send(protocol::encoded(startup));
        ++owed_;
    }

    // Whether the server has done it.
    bool prepare(const Script& last) {
        for (const std::string& text : texts_of(last)) {
            constexpr std::string_view prepare = "prepare transaction ";
            if (text.starts_with(prepare))
                query("rollback prepared " + text.substr(prepare.size()));
        }
        query("delete from t1; delete from t2; delete from t3");
        query("insert into t1 select generate_series(1, 40)");
        query("insert into t2 select generate_series(1, 60)");
        return answered();
    }

private:
    // For its effect alone: where there is no such transaction, it fails.
    void query(const std::string& sql) {
        socket_.send(protocol::encoded(protocol::Query{sql}));
        ++owed_;
    }
    // Reads until each is answered by its ReadyForQuery.
    bool answered() {
        while (owed_ > 0) {
            const auto head = protocol::read_head(in_, protocol::Side::backend);
            if (head.has_value() && in_.size() >= head->total()) {
                if (head->tag == 'Z') --owed_;
                in_.erase(0, head->total());
                continue;
            }
            const std::string bytes = socket_.receive(patience_ms);
            if (bytes.empty()) return false;
            in_ += bytes;
        }
        return true;
    }

    Socket socket_;
    std::string in_;
    int owed_ = 0;
};

std::string shown(const std::vector<std::string>& messages, std::size_t i) {
    return i < messages.size() ? protocol::dump(protocol::Side::backend, messages[i]) : "nothing";
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) return 2;
    const auto port = static_cast<std::uint16_t>(std::atoi(argv[1]));
    const std::uint64_t seeds = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 100;
    const std::uint64_t from = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 1;
    Preparation preparation(port);
    Script last;
    std::size_t compared = 0;
    for (std::uint64_t seed = from; seed < from + seeds; ++seed) {
        test::Random random(seed);
        Taste taste;
        taste.plain = true;
        taste.wild = random.one_in(2);
        taste.rows_max = 4;
        const Script script = make_script(random, taste);
        if (!preparation.prepare(last)) {
            std::puts("the server does not set its tables right");
            return 1;
        }
        const Played real = play_real(script, port);
        const Played model = play_model(script);
        last = script;
        const std::size_t count = std::max(real.messages.size(), model.messages.size());
        for (std::size_t i = 0; i <= count; ++i) {
            const bool same = i < real.messages.size() && i < model.messages.size() &&
                              essence(real.messages[i]) == essence(model.messages[i]);
            if (same || (i == count && real.wrong == model.wrong)) continue;
            std::printf(
                "seed %llu, message %zu: the server says %s\n  the model says "
                "%s\n%s\n%s\nscript:\n%s",
                static_cast<unsigned long long>(seed), i, shown(real.messages, i).c_str(),
                shown(model.messages, i).c_str(), real.wrong.c_str(), model.wrong.c_str(),
                to_text(script).c_str());
            return 1;
        }
        compared += count;
    }
    std::printf("%llu scripts, %zu messages: the model server says what PostgreSQL says\n",
                static_cast<unsigned long long>(seeds), compared);
    return 0;
}
