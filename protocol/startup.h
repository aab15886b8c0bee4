#pragma once
// The packets before the first message: length without tag. Reads them as ProcessStartupPacket() of
// the server (tcop/backend_startup.c) does. Knows no dialogue: which request may follow which is
// for the session to say.

#include "protocol/codec.h"
#include "protocol/error.h"
#include "protocol/messages.h"

#include <cstddef>
#include <optional>
#include <string_view>

namespace pgchaperone::protocol {

// The first byte of a TLS handshake record, and of no startup packet of a legal length.
inline constexpr char tls_handshake_byte = 0x16;

struct StartupPacket {
    enum class Kind : std::uint8_t {
        ssl_request,
        gssenc_request,
        cancel_request,
        startup_message,
        direct_tls,           // TLS without SSLRequest: nothing is consumed
        unsupported_version,  // a StartupMessage of another major version, whose layout is not
                              // known
    };
    Kind kind = Kind::startup_message;
    // Bytes of the packet at the front of the input; after ssl_request and gssenc_request not one
    // more may have come before TLS starts (CVE-2021-23214).
    std::size_t size = 0;
    CancelRequest cancel;    // of cancel_request; the key points into the input
    StartupMessage startup;  // of startup_message (views into the input) and, the version only,
                             // unsupported_version
};

// Reads the packet at the front of `bytes`; none: it needs more bytes. Never asks for more than
// max_startup_packet_length, and finds a bad length as soon as its bytes are there.
// Errors: invalid_length (8 for SSLRequest and GSSENCRequest, 8 to 10,004 for the others),
// invalid_key_length, missing_terminator, unterminated_string, duplicate_parameter.
// A missing `user` is left for the server to complain about.
Result<std::optional<StartupPacket>> parse_startup(std::string_view bytes) noexcept;

// Whether and how a StartupMessage asks for a replication connection, in every spelling that the
// server takes: "database", and what parse_bool() of utils/adt/bool.c reads.
enum class Replication : std::uint8_t {
    no,
    physical,
    logical,  // "database": a walsender that also runs SQL
    invalid,  // the server will refuse it
};

Replication replication_of(const StartupMessage& startup) noexcept;

}  // namespace pgchaperone::protocol
