#include "protocol/startup.h"

#include <algorithm>
#include <array>
#include <cstdint>

namespace pgchaperone::protocol {
namespace {

using Kind = StartupPacket::Kind;

bool gives_twice(const StartupMessage& startup, std::string_view name) noexcept {
    return std::count_if(startup.parameters.begin(), startup.parameters.end(),
                         [&](const StartupParameter& p) { return p.name == name; }) > 1;
}

Result<StartupPacket> parse_parameters(StartupPacket packet, std::string_view body) noexcept {
    Result<StartupMessage> startup = decode<StartupMessage>(body);
    if (!startup) {
        // Bytes after the empty name: to the server this is the same fault as no empty name at all.
        if (startup.error() == Error::trailing_bytes) return Error::missing_terminator;
        return startup.error();
    }
    if (gives_twice(*startup, "user") || gives_twice(*startup, "database")) {
        return Error::duplicate_parameter;
    }
    packet.startup = std::move(*startup);
    return packet;
}

Result<StartupPacket> parse_whole(std::string_view packet_bytes) noexcept {
    const std::string_view body = packet_bytes.substr(4);
    StartupPacket packet;
    packet.size = packet_bytes.size();
    const Int32 code = Reader{body}.int32();

    if (code == SSLRequest::request_code || code == GSSENCRequest::request_code) {
        if (body.size() != 4) return Error::invalid_length;
        packet.kind = code == SSLRequest::request_code ? Kind::ssl_request : Kind::gssenc_request;
        return packet;
    }
    if (code == CancelRequest::request_code) {
        const Result<CancelRequest> cancel = decode<CancelRequest>(body);
        if (!cancel) return cancel.error();
        packet.kind = Kind::cancel_request;
        packet.cancel = *cancel;
        return packet;
    }
    packet.startup.protocol_version = code;
    if (packet.startup.major() != 3) {
        packet.kind = Kind::unsupported_version;
        return packet;
    }
    return parse_parameters(std::move(packet), body);
}

}  // namespace

Result<std::optional<StartupPacket>> parse_startup(std::string_view bytes) noexcept {
    if (bytes.empty()) return std::optional<StartupPacket>{};
    if (bytes[0] == tls_handshake_byte) {
        StartupPacket packet;
        packet.kind = Kind::direct_tls;
        return std::optional{std::move(packet)};
    }
    // No legal length has anything in its upper half: say so before a stranger's greeting is
    // complete.
    const std::string_view upper_half = bytes.substr(0, 2);
    if (upper_half.find_first_not_of('\0') != std::string_view::npos) return Error::invalid_length;
    if (bytes.size() < 4) return std::optional<StartupPacket>{};

    const Int32 length = Reader{bytes}.int32();
    if (length < min_startup_packet_length || length > max_startup_packet_length) {
        return Error::invalid_length;
    }
    if (bytes.size() < static_cast<std::size_t>(length)) return std::optional<StartupPacket>{};
    Result<StartupPacket> packet = parse_whole(bytes.substr(0, static_cast<std::size_t>(length)));
    if (!packet) return packet.error();
    return std::optional{std::move(*packet)};
}

namespace {

char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// A word, or a start of it that no other word has.
bool abbreviates(std::string_view given, std::string_view word, std::size_t min_size) noexcept {
    return given.size() >= min_size && given.size() <= word.size() &&
           std::equal(given.begin(), given.end(), word.begin(),
                      [](char a, char b) { return lower(a) == b; });
}

std::optional<bool> parse_bool(std::string_view s) noexcept {
    if (s == "1" || abbreviates(s, "true", 1) || abbreviates(s, "yes", 1) ||
        abbreviates(s, "on", 2)) {
        return true;
    }
    if (s == "0" || abbreviates(s, "false", 1) || abbreviates(s, "no", 1) ||
        abbreviates(s, "off", 2)) {
        return false;
    }
    return std::nullopt;
}

}  // namespace

Replication replication_of(const StartupMessage& startup) noexcept {
    // Given more than once, each is applied in turn, and "database" is not forgotten: as in the
    // server.
    bool walsender = false;
    bool database = false;
    for (const StartupParameter& p : startup.parameters) {
        if (p.name != "replication") continue;
        if (p.value == "database") {
            walsender = database = true;
            continue;
        }
        const std::optional<bool> on = parse_bool(p.value);
        if (!on) return Replication::invalid;
        walsender = *on;
    }
    if (!walsender) return Replication::no;
    return database ? Replication::logical : Replication::physical;
}

}  // namespace pgchaperone::protocol
