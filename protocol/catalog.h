#pragma once
// The one table of all messages that have a tag: direction, tag, name, how deeply the proxy looks,
// and how long the message may be. Everything else that knows a tag has it from here. Packets of
// the startup phase have no tag: see startup.h.

#include <array>
#include <cstdint>
#include <string_view>

namespace pgchaperone::protocol {

// Who sent it.
enum class Side : std::uint8_t { frontend, backend };

// The tags, for switches that the compiler checks. A tag that read_head() has accepted is one of
// these.
enum class FrontendTag : char {
    Bind = 'B',
    Close = 'C',
    CopyData = 'd',
    CopyDone = 'c',
    CopyFail = 'f',
    Describe = 'D',
    Execute = 'E',
    Flush = 'H',
    FunctionCall = 'F',
    Parse = 'P',
    PasswordMessage = 'p',  // and GSSResponse, SASLInitialResponse, SASLResponse: only the dialogue
                            // tells
    Query = 'Q',
    Sync = 'S',
    Terminate = 'X',
};

enum class BackendTag : char {
    Authentication = 'R',  // all AuthenticationXXX: the Int32 that follows tells
    BackendKeyData = 'K',
    BindComplete = '2',
    CloseComplete = '3',
    CommandComplete = 'C',
    CopyBothResponse = 'W',
    CopyData = 'd',
    CopyDone = 'c',
    CopyInResponse = 'G',
    CopyOutResponse = 'H',
    DataRow = 'D',
    EmptyQueryResponse = 'I',
    ErrorResponse = 'E',
    FunctionCallResponse = 'V',
    NegotiateProtocolVersion = 'v',
    NoData = 'n',
    NoticeResponse = 'N',
    NotificationResponse = 'A',
    ParameterDescription = 't',
    ParameterStatus = 'S',
    ParseComplete = '1',
    PortalSuspended = 's',
    ReadyForQuery = 'Z',
    RowDescription = 'T',
};

// How deeply the proxy must look.
enum class Depth : std::uint8_t {
    relay,   // the head is enough: the body streams through
    peek,    // the first fields, whatever follows streams through
    decode,  // the whole message
};

struct MessageKind {
    Side side;
    char tag;
    std::string_view name;
    Depth depth;
    // The largest legal value of the length word, which counts itself but not the tag.
    std::int32_t max_length;
};

namespace limits {

// What the server accepts: SocketBackend() in tcop/postgres.c with pq_getmessage() in
// libpq/pqcomm.c. The length is compared with its own four bytes included. The server knows
// MaxAllocSize - 1 as the large limit.
inline constexpr std::int32_t frontend_small = 10'000;
inline constexpr std::int32_t frontend_large = 0x3FFFFFFE;
// PG_MAX_AUTH_TOKEN_LENGTH in libpq/auth.h.
inline constexpr std::int32_t frontend_password = 65'535;

// What a server can send. It collects a message in a StringInfo of at most 0x3FFFFFFE bytes and
// puts the length in front, so the largest length word is four more than that.
inline constexpr std::int32_t backend_large = 0x3FFFFFFE + 4;
// Anything that libpq (VALID_LONG_MESSAGE_TYPE in fe-protocol3.c) does not accept as long is at
// most this.
inline constexpr std::int32_t backend_small = 30'000;
// libpq is too strict here: a statement may have 65,535 parameters, and other clients describe it.
inline constexpr std::int32_t backend_parameter_description = 4 + 2 + 4 * 65'535;
// libpq is too strict here as well: search_path is reported since PostgreSQL 18, and can be long.
inline constexpr std::int32_t backend_parameter_status = 1 << 20;
// The tokens of GSSAPI and SSPI are as long in this direction as in the other.
inline constexpr std::int32_t backend_authentication = 65'535 + 8;

}  // namespace limits

inline constexpr std::array catalog = [] {
    using enum Depth;
    using F = FrontendTag;
    using B = BackendTag;
    constexpr auto f = [](F tag, std::string_view name, Depth depth, std::int32_t max_length) {
        return MessageKind{Side::frontend, static_cast<char>(tag), name, depth, max_length};
    };
    constexpr auto b = [](B tag, std::string_view name, Depth depth,
                          std::int32_t max_length = limits::backend_small) {
        return MessageKind{Side::backend, static_cast<char>(tag), name, depth, max_length};
    };
    return std::array{
        f(F::Bind, "Bind", peek, limits::frontend_large),
        f(F::Close, "Close", decode, limits::frontend_small),
        f(F::CopyData, "CopyData", relay, limits::frontend_large),
        f(F::CopyDone, "CopyDone", relay, limits::frontend_small),
        f(F::CopyFail, "CopyFail", relay, limits::frontend_small),
        f(F::Describe, "Describe", decode, limits::frontend_small),
        f(F::Execute, "Execute", decode, limits::frontend_small),
        f(F::Flush, "Flush", relay, limits::frontend_small),
        f(F::FunctionCall, "FunctionCall", peek, limits::frontend_large),
        f(F::Parse, "Parse", decode, limits::frontend_large),
        f(F::PasswordMessage, "PasswordMessage", decode, limits::frontend_password),
        f(F::Query, "Query", decode, limits::frontend_large),
        f(F::Sync, "Sync", relay, limits::frontend_small),
        f(F::Terminate, "Terminate", relay, limits::frontend_small),

        b(B::Authentication, "Authentication", decode, limits::backend_authentication),
        b(B::BackendKeyData, "BackendKeyData", decode),
        b(B::BindComplete, "BindComplete", relay),
        b(B::CloseComplete, "CloseComplete", relay),
        b(B::CommandComplete, "CommandComplete", decode),
        b(B::CopyBothResponse, "CopyBothResponse", relay),
        b(B::CopyData, "CopyData", relay, limits::backend_large),
        b(B::CopyDone, "CopyDone", relay),
        b(B::CopyInResponse, "CopyInResponse", relay),
        b(B::CopyOutResponse, "CopyOutResponse", relay),
        b(B::DataRow, "DataRow", relay, limits::backend_large),
        b(B::EmptyQueryResponse, "EmptyQueryResponse", relay),
        b(B::ErrorResponse, "ErrorResponse", peek, limits::backend_large),
        b(B::FunctionCallResponse, "FunctionCallResponse", relay, limits::backend_large),
        b(B::NegotiateProtocolVersion, "NegotiateProtocolVersion", decode),
        b(B::NoData, "NoData", relay),
        b(B::NoticeResponse, "NoticeResponse", relay, limits::backend_large),
        b(B::NotificationResponse, "NotificationResponse", relay, limits::backend_large),
        b(B::ParameterDescription, "ParameterDescription", relay,
          limits::backend_parameter_description),
        b(B::ParameterStatus, "ParameterStatus", decode, limits::backend_parameter_status),
        b(B::ParseComplete, "ParseComplete", relay),
        b(B::PortalSuspended, "PortalSuspended", relay),
        b(B::ReadyForQuery, "ReadyForQuery", decode),
        b(B::RowDescription, "RowDescription", relay, limits::backend_large),
    };
}();

namespace detail {

// Positions in the catalog by tag, counted from 1; 0: no such message.
constexpr std::array<std::uint8_t, 256> index_of(Side side) {
    std::array<std::uint8_t, 256> index{};
    for (std::size_t i = 0; i < catalog.size(); ++i) {
        if (catalog[i].side == side) {
            index[static_cast<unsigned char>(catalog[i].tag)] = static_cast<std::uint8_t>(i + 1);
        }
    }
    return index;
}

inline constexpr std::array<std::array<std::uint8_t, 256>, 2> catalog_index{
    index_of(Side::frontend), index_of(Side::backend)};

constexpr std::size_t position_of(Side side, char tag) noexcept {
    return catalog_index[static_cast<std::size_t>(side)][static_cast<unsigned char>(tag)];
}

}  // namespace detail

// The table's row, or null where no message of this direction has the tag. One array access.
constexpr const MessageKind* find_kind(Side side, char tag) noexcept {
    const std::size_t position = detail::position_of(side, tag);
    return position == 0 ? nullptr : &catalog[position - 1];
}

}  // namespace pgchaperone::protocol
