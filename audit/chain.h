#pragma once
// What ties the lines of an audit log together: each carries its number and the hash of the line
// before. Shared by the writer, which makes the chain, and by verify, which checks it.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pgchaperone::audit {

// A point in the chain: a line's number and its SHA-256 in hexadecimal digits. Before the first
// line: 0 and zeros.
struct ChainPoint {
    std::uint64_t seq = 0;
    std::string hash = std::string(64, '0');
    bool operator==(const ChainPoint&) const = default;
};

// "17:0a1b..." and back.
std::string to_text(const ChainPoint& point);
std::optional<ChainPoint> parse_chain_point(std::string_view text);

// SHA-256 as 64 hexadecimal digits. Of a line: without its line feed.
std::string sha_256_hex(std::string_view bytes);

// What a line says of its place in the chain; nothing where it is no record of an audit log.
struct LinePlace {
    std::uint64_t seq = 0;
    std::string prev;
};
std::optional<LinePlace> read_place(std::string_view line);

}  // namespace pgchaperone::audit
