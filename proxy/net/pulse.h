#pragma once
// Whether threads turn: a thread of its own asks each of them, at every beat, to say that it does.
// Thread-safe. Knows no sockets; what a beat is good for (the watchdog of systemd) is handed in.

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace pgchaperone::net {

class Pulse {
public:
    // Runs what it is given on its thread, soon.
    using Post = std::function<void(std::function<void()>)>;
    struct Options {
        std::chrono::milliseconds beat{500};
        // A thread that owes an answer for so long is stuck.
        std::chrono::milliseconds stuck_after{5000};
        // At every beat, on the pulse's own thread: whether all threads have answered since the
        // beat before. May be empty.
        std::function<void(bool all_turn)> on_beat;
    };

    Pulse(std::vector<Post> threads, Options options);
    // Whoever still owes an answer may give it later, to nobody.
    ~Pulse();
    Pulse(const Pulse&) = delete;
    Pulse& operator=(const Pulse&) = delete;

    struct State {
        std::chrono::nanoseconds lag{0};  // of the slowest: what it took, or has by now taken
        std::vector<std::size_t> stuck;
    };
    State state() const;

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;
};

}  // namespace pgchaperone::net
