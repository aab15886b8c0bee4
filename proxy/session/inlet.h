#pragma once
// One direction of a session: bytes come in as the host receives them, are looked at as far as
// needed, and leave as contiguous runs, as they came. Nothing is copied while the host's chunk
// lives, save a message that straddles two chunks and must be seen whole.
//
// Knows no messages. Invariant: bytes leave in the order in which they came, with inserted bytes at
// the place where they were inserted.

#include "proxy/session/command.h"

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::session {

class Inlet {
public:
    // Adds what the host received. The bytes must stay in place until settle().
    void give(std::string_view bytes);

    // The next `count` bytes in one piece, or nothing while fewer have come. Valid until the next
    // call of peek, give or settle.
    std::optional<std::string_view> peek(std::size_t count);
    // What is there in one piece, perhaps less than has come in all.
    std::string_view front_piece() const;
    std::size_t available() const { return held_.size() - held_position_ + chunk_.size(); }

    // Takes the next `count` bytes (which must be there): to leave as they are, or to go nowhere.
    void forward(std::size_t count);
    void discard(std::size_t count);
    // As discard, and overwrites what was copied of them here.
    void discard_wiped(std::size_t count);
    // Puts bytes of our own after all that was forwarded.
    void insert(std::string bytes);
    // Forgets what has come and was not forwarded yet.
    void discard_all();

    // What leaves, in order; nothing when all was taken. Views are valid until the next call here.
    std::optional<Bytes> take_output();
    bool has_output() const { return !run_.empty() || taken_ < outputs_.size(); }

    // Everything that was to leave has been taken: keep a copy of what the host's chunk still
    // holds.
    void settle();

private:
    void flush_run();
    void consume(std::size_t count);

    std::string held_;        // copied bytes, before the chunk
    std::size_t wanted_ = 0;  // what a peek asked for in vain: room to make once, not by doubling
    std::size_t held_position_ = 0;
    std::string_view chunk_;
    std::string_view run_;
    std::vector<Bytes> outputs_;
    std::size_t taken_ = 0;
};

}  // namespace pgchaperone::session
