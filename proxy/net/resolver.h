#pragma once
// Turns the upstream's address into socket addresses. Names are looked up on a thread of its own,
// since the system's resolver blocks; numeric addresses and Unix-domain sockets take no thread.
// Answers are kept for a few seconds, so that a flood of connections is one look-up.

#include "proxy/net/server_options.h"

#include <boost/asio/generic/stream_protocol.hpp>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace pgchaperone::net {

struct Resolved {
    std::vector<boost::asio::generic::stream_protocol::endpoint> endpoints;
    std::string error;  // why there are none
};

class Resolver {
public:
    using Answer = std::function<void(Resolved)>;

    Resolver();
    ~Resolver();
    Resolver(const Resolver&) = delete;
    Resolver& operator=(const Resolver&) = delete;

    // Calls `answer` once: at once on this thread, or later on the resolver's.
    void resolve(const Address& address, Answer answer);

private:
    struct Question {
        Address address;
        Answer answer;
    };
    void run();

    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<Question> questions_;
    bool stopping_ = false;
    // What names stood for lately, by the address as text: as many as servers are guarded.
    struct Kept {
        Resolved resolved;
        std::chrono::steady_clock::time_point until{};
    };
    const Resolved* kept(const std::string& address) const;  // under the mutex; null: nothing

    std::unordered_map<std::string, Kept> kept_;
    std::thread thread_;
};

// Blocking. Used while starting up, and by the resolver itself.
Resolved resolve_now(const Address& address, bool passive, bool numeric_only);

}  // namespace pgchaperone::net
