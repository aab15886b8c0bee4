#pragma once
// The five bytes in front of every message after the startup phase: tag and length.

#include "protocol/catalog.h"
#include "protocol/error.h"

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace pgchaperone::protocol {

inline constexpr std::size_t head_size = 5;

struct Head {
    char tag = 0;
    std::int32_t length = 0;  // counts its own four bytes, but not the tag; at least 4

    // Bytes of the whole message, tag included.
    std::size_t total() const noexcept { return static_cast<std::size_t>(length) + 1; }
    // Bytes after the head.
    std::size_t body_size() const noexcept { return static_cast<std::size_t>(length) - 4; }
};

// Reads the head at the front of `bytes`; what follows it is not looked at. The tag is one of the
// catalog's for that side, and the length is between 4 and the limit that the catalog gives for it.
// Errors: truncated (fewer than head_size bytes: wait for more), unknown_message, invalid_length.
// The last two leave no way to find the next message; they also are what a server shows that fails
// before it knows the protocol ("E" and plain text, as when it can't fork).
inline Result<Head> read_head(std::string_view bytes, Side from) noexcept {
    if (bytes.size() < head_size) return Error::truncated;
    const auto byte = [&](std::size_t i) {
        return static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[i]));
    };
    const MessageKind* kind = find_kind(from, bytes[0]);
    if (kind == nullptr) return Error::unknown_message;
    const auto length = static_cast<std::int32_t>(byte(1) << 24 | byte(2) << 16 | byte(3) << 8 |
                                                  byte(4));
    if (length < 4 || length > kind->max_length) return Error::invalid_length;
    return Head{bytes[0], length};
}

}  // namespace pgchaperone::protocol
