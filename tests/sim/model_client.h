#pragma once
// The model client: takes the steps of its script, collects what comes back and checks every
// message of it by a Dialogue. Knows no guard; what it is connected to is for the caller to say.

#include "sim/dialogue.h"
#include "sim/script.h"
#include "support/random.h"

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::sim {

// What a connection takes before its writer has to wait.
inline constexpr std::size_t socket_bytes_max = 4 * 1024;

// A field of an ErrorResponse or NoticeResponse; empty where it has none.
std::string field_of(std::string_view message, char code);

class ModelClient {
public:
    explicit ModelClient(const Script& script);

    std::string out;       // bytes on their way out
    bool ended = false;    // it will send no more
    bool broken = false;   // and neither reads
    bool cut_off = false;  // the other side closed
    // What came behind the login, whole messages, but for those that have no fixed place:
    // notifications, ParameterStatus, the server's LOG.
    std::vector<std::string> messages;
    Dialogue dialogue;

    bool done() const { return ended || cut_off; }
    std::size_t position() const { return at_; }
    // Half a message has come.
    bool in_the_middle() const { return !in_.empty(); }

    bool can_step() const;
    // Takes a step; true: a cancel is to be asked for.
    bool step(test::Random& random);
    // Returns what is wrong with what came, if anything is.
    std::optional<std::string> receive(std::string_view bytes);

private:
    const Script& script_;
    std::size_t at_ = 0;
    std::string in_;
};

}  // namespace pgchaperone::sim
