#pragma once
// What two guards say to each other of which one takes over from the other: whole messages, over a
// pair of sockets that nobody else has. Who does not read is not waited for; who is gone is known
// by that. Thread-safe for sending; one thread receives.

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace pgchaperone::net {

enum class Saying : char {
    // The earlier guard says: to number sessions from here on, in digits.
    sessions_from = 'n',
    // That it accepts nobody any more.
    yours = 'y',
    // To `cancel`: the number of the question, then 1 or 0.
    answer = 'a',
    // The later one: its process id, in digits; not yet from the new program.
    started = 'p',
    // Likewise: errno of exec, in digits.
    no_program = 'x',
    // That it accepts.
    serving = 's',
    // Whether what is held over there is meant by a CancelRequest: the number of the question, in 8
    // bytes, then what follows the code in the request.
    cancel = 'c',
    // To end.
    drain = 'd',
    // Either: that the configuration is to be read again.
    reload = 'r',
};

class Link {
public:
    struct Message {
        Saying saying;
        std::string body;
    };

    // Owns the descriptor.
    explicit Link(int descriptor) : descriptor_(descriptor) {}
    ~Link();
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;
    // Both ends, closed on exec; -1 and errno.
    static std::pair<int, int> pair();

    // False where it can't be said now.
    bool say(Saying saying, std::string_view body = {}) const;
    // What has come, without waiting; nothing: nothing yet, or it is over().
    std::optional<Message> hear();
    // Waits at most so long for something to hear.
    void wait(std::chrono::milliseconds time) const;
    bool over() const { return over_; }
    int descriptor() const { return descriptor_; }

    // Numbers in front of a body.
    static std::string numbered(std::uint64_t number, std::string_view rest);
    static std::optional<std::uint64_t> take_number(std::string& body);

private:
    int descriptor_;
    bool over_ = false;
};

}  // namespace pgchaperone::net
