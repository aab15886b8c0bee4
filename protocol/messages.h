#pragma once
// One struct per message, its fields named and typed as PostgreSQL's documentation has them
// ("Message Formats"), and one field visitor each, from which decoder, encoder and dumper all come
// (codec.h, dumper.h).
//
// Strings and byte arrays are views: into the body that was decoded, or into whatever the caller
// encodes. A visitor is called with every field in wire order:
//   byte1 int8 int16 int32       the integer types
//   string                       String: zero-terminated
//   bytes                        Byte[n] that reaches to the end of the message
//   fixed(n)                     Byte[n] of a known n
//   value                        Int32 length and bytes, -1 for NULL
//   code                         an Int32 that must be a certain number
//   version                      an Int32 with a protocol version: major and minor number, 16 bits
//   each counted16, counted32         Int16 or Int32 count, and that many elements until_zero
//   elements up to a zero byte secret_string, secret_bytes, secret_value  as string, bytes and
//   value, but never shown key                          a cancel key of 4 to 256 bytes, never shown
//   either
// Elements are visited through `visit` as messages are, single values through `element`.

#include "protocol/catalog.h"

#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>
#include <vector>

namespace pgchaperone::protocol {

using Int8 = std::int8_t;
using Int16 = std::int16_t;
using Int32 = std::int32_t;
using Value = std::optional<std::string_view>;

// The place of the tag in packets of the startup phase, which have none.
struct NoTag {};

// Calls visitor methods for element types that are no structs.
template <class V, class T>
void element(V& v, T& x) {
    if constexpr (requires { x.visit(x, v); }) {
        x.visit(x, v);
    } else if constexpr (std::is_same_v<std::remove_const_t<T>, Int16>) {
        v.int16("", x);
    } else if constexpr (std::is_same_v<std::remove_const_t<T>, Int32>) {
        v.int32("", x);
    } else if constexpr (std::is_same_v<std::remove_const_t<T>, std::string_view>) {
        v.string("", x);
    } else {
        static_assert(std::is_same_v<std::remove_const_t<T>, Value>);
        v.value("", x);
    }
}

// A message without fields.
struct EmptyBody {
    template <class M, class V>
    static void visit(M&, V&) {}
};

// Messages of the frontend

struct Bind {
    static constexpr auto tag = FrontendTag::Bind;
    std::string_view portal;
    std::string_view statement;
    std::vector<Int16> parameter_formats;
    std::vector<Value> parameters;
    std::vector<Int16> result_formats;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.string("portal", m.portal);
        v.string("statement", m.statement);
        v.counted16("parameter_formats", m.parameter_formats);
        v.counted16("parameters", m.parameters);
        v.counted16("result_formats", m.result_formats);
    }
};

struct Close {
    static constexpr auto tag = FrontendTag::Close;
    char kind = 'S';  // 'S' statement, 'P' portal; the server has its own error for anything else
    std::string_view name;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.byte1("kind", m.kind);
        v.string("name", m.name);
    }
};

// In both directions.
struct CopyData {
    static constexpr auto tag = FrontendTag::CopyData;
    static constexpr auto backend_tag = BackendTag::CopyData;
    std::string_view data;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.bytes("data", m.data);
    }
};

// In both directions.
struct CopyDone : EmptyBody {
    static constexpr auto tag = FrontendTag::CopyDone;
    static constexpr auto backend_tag = BackendTag::CopyDone;
};

struct CopyFail {
    static constexpr auto tag = FrontendTag::CopyFail;
    std::string_view message;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.string("message", m.message);
    }
};

struct Describe {
    static constexpr auto tag = FrontendTag::Describe;
    char kind = 'S';  // 'S' statement, 'P' portal; the server has its own error for anything else
    std::string_view name;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.byte1("kind", m.kind);
        v.string("name", m.name);
    }
};

struct Execute {
    static constexpr auto tag = FrontendTag::Execute;
    std::string_view portal;
    Int32 max_rows = 0;  // 0 (and, for the server, anything below): no limit

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.string("portal", m.portal);
        v.int32("max_rows", m.max_rows);
    }
};

struct Flush : EmptyBody {
    static constexpr auto tag = FrontendTag::Flush;
};

struct FunctionCall {
    static constexpr auto tag = FrontendTag::FunctionCall;
    Int32 function_oid = 0;
    std::vector<Int16> argument_formats;
    std::vector<Value> arguments;
    Int16 result_format = 0;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.int32("function_oid", m.function_oid);
        v.counted16("argument_formats", m.argument_formats);
        v.counted16("arguments", m.arguments);
        v.int16("result_format", m.result_format);
    }
};

struct GSSResponse {
    static constexpr auto tag = FrontendTag::PasswordMessage;
    static constexpr std::string_view message_name = "GSSResponse";
    std::string_view data;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.secret_bytes("data", m.data);
    }
};

struct Parse {
    static constexpr auto tag = FrontendTag::Parse;
    std::string_view statement;
    std::string_view query;
    std::vector<Int32> parameter_types;  // OIDs; 0: unspecified

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.string("statement", m.statement);
        v.string("query", m.query);
        v.counted16("parameter_types", m.parameter_types);
    }
};

struct PasswordMessage {
    static constexpr auto tag = FrontendTag::PasswordMessage;
    std::string_view password;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.secret_string("password", m.password);
    }
};

struct Query {
    static constexpr auto tag = FrontendTag::Query;
    std::string_view query;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.string("query", m.query);
    }
};

struct SASLInitialResponse {
    static constexpr auto tag = FrontendTag::PasswordMessage;
    static constexpr std::string_view message_name = "SASLInitialResponse";
    std::string_view mechanism;
    Value data;  // none: no initial response

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.string("mechanism", m.mechanism);
        v.secret_value("data", m.data);
    }
};

struct SASLResponse {
    static constexpr auto tag = FrontendTag::PasswordMessage;
    static constexpr std::string_view message_name = "SASLResponse";
    std::string_view data;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.secret_bytes("data", m.data);
    }
};

struct Sync : EmptyBody {
    static constexpr auto tag = FrontendTag::Sync;
};

struct Terminate : EmptyBody {
    static constexpr auto tag = FrontendTag::Terminate;
};

// Packets of the startup phase: Int32 length, and no tag. Request codes are built like versions: a
// major number that no protocol will have, in the upper half.

struct CancelRequest {
    static constexpr NoTag tag{};
    static constexpr std::string_view message_name = "CancelRequest";
    static constexpr Int32 request_code = 1234 << 16 | 5678;
    Int32 process_id = 0;
    std::string_view secret_key;  // 4 bytes up to protocol 3.0, up to 256 from 3.2

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.code(request_code);
        v.int32("process_id", m.process_id);
        v.key("secret_key", m.secret_key);
    }
};

struct SSLRequest {
    static constexpr NoTag tag{};
    static constexpr std::string_view message_name = "SSLRequest";
    static constexpr Int32 request_code = 1234 << 16 | 5679;

    template <class M, class V>
    static void visit(M&, V& v) {
        v.code(request_code);
    }
};

struct GSSENCRequest {
    static constexpr NoTag tag{};
    static constexpr std::string_view message_name = "GSSENCRequest";
    static constexpr Int32 request_code = 1234 << 16 | 5680;

    template <class M, class V>
    static void visit(M&, V& v) {
        v.code(request_code);
    }
};

struct StartupParameter {
    std::string_view name;  // `_pq_.…`: a protocol option, not a run-time parameter
    std::string_view value;

    bool operator==(const StartupParameter&) const = default;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.string("", m.name);
        v.string("", m.value);
    }
};

struct StartupMessage {
    static constexpr NoTag tag{};
    static constexpr std::string_view message_name = "StartupMessage";
    Int32 protocol_version = 3 << 16;          // major in the upper 16 bits, minor in the lower
    std::vector<StartupParameter> parameters;  // in the client's order

    std::uint16_t major() const noexcept {
        return static_cast<std::uint16_t>(static_cast<std::uint32_t>(protocol_version) >> 16);
    }
    std::uint16_t minor() const noexcept {
        return static_cast<std::uint16_t>(static_cast<std::uint32_t>(protocol_version) & 0xFFFF);
    }
    // The value of the last parameter of that name, as the server takes it.
    Value find(std::string_view parameter) const noexcept {
        for (auto p = parameters.rbegin(); p != parameters.rend(); ++p) {
            if (p->name == parameter) return p->value;
        }
        return std::nullopt;
    }

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.version("protocol_version", m.protocol_version);
        v.until_zero("parameters", m.parameters);
    }
};

// Messages of the backend

// The Int32 behind the head of every Authentication message.
enum class AuthenticationCode : Int32 {
    Ok = 0,
    KerberosV5 = 2,
    CleartextPassword = 3,
    MD5Password = 5,
    SCMCredential = 6,
    GSS = 7,
    GSSContinue = 8,
    SSPI = 9,
    SASL = 10,
    SASLContinue = 11,
    SASLFinal = 12,
};

// Authentication messages that are nothing but their code.
template <AuthenticationCode Code>
struct PlainAuthentication {
    static constexpr auto tag = BackendTag::Authentication;
    static constexpr auto authentication_code = Code;

    template <class M, class V>
    static void visit(M&, V& v) {
        v.code(static_cast<Int32>(Code));
    }
};

struct AuthenticationOk : PlainAuthentication<AuthenticationCode::Ok> {
    static constexpr std::string_view message_name = "AuthenticationOk";
};

struct AuthenticationKerberosV5 : PlainAuthentication<AuthenticationCode::KerberosV5> {
    static constexpr std::string_view message_name = "AuthenticationKerberosV5";
};

struct AuthenticationCleartextPassword
    : PlainAuthentication<AuthenticationCode::CleartextPassword> {
    static constexpr std::string_view message_name = "AuthenticationCleartextPassword";
};

struct AuthenticationMD5Password {
    static constexpr auto tag = BackendTag::Authentication;
    static constexpr auto authentication_code = AuthenticationCode::MD5Password;
    static constexpr std::string_view message_name = "AuthenticationMD5Password";
    std::string_view salt;  // 4 bytes

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.code(static_cast<Int32>(authentication_code));
        v.fixed("salt", m.salt, 4);
    }
};

struct AuthenticationSCMCredential : PlainAuthentication<AuthenticationCode::SCMCredential> {
    static constexpr std::string_view message_name = "AuthenticationSCMCredential";
};

struct AuthenticationGSS : PlainAuthentication<AuthenticationCode::GSS> {
    static constexpr std::string_view message_name = "AuthenticationGSS";
};

struct AuthenticationGSSContinue {
    static constexpr auto tag = BackendTag::Authentication;
    static constexpr auto authentication_code = AuthenticationCode::GSSContinue;
    static constexpr std::string_view message_name = "AuthenticationGSSContinue";
    std::string_view data;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.code(static_cast<Int32>(authentication_code));
        v.secret_bytes("data", m.data);
    }
};

struct AuthenticationSSPI : PlainAuthentication<AuthenticationCode::SSPI> {
    static constexpr std::string_view message_name = "AuthenticationSSPI";
};

struct AuthenticationSASL {
    static constexpr auto tag = BackendTag::Authentication;
    static constexpr auto authentication_code = AuthenticationCode::SASL;
    static constexpr std::string_view message_name = "AuthenticationSASL";
    std::vector<std::string_view> mechanisms;  // the server's preference first

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.code(static_cast<Int32>(authentication_code));
        v.until_zero("mechanisms", m.mechanisms);
    }
};

struct AuthenticationSASLContinue {
    static constexpr auto tag = BackendTag::Authentication;
    static constexpr auto authentication_code = AuthenticationCode::SASLContinue;
    static constexpr std::string_view message_name = "AuthenticationSASLContinue";
    std::string_view data;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.code(static_cast<Int32>(authentication_code));
        v.secret_bytes("data", m.data);
    }
};

struct AuthenticationSASLFinal {
    static constexpr auto tag = BackendTag::Authentication;
    static constexpr auto authentication_code = AuthenticationCode::SASLFinal;
    static constexpr std::string_view message_name = "AuthenticationSASLFinal";
    std::string_view data;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.code(static_cast<Int32>(authentication_code));
        v.secret_bytes("data", m.data);
    }
};

struct BackendKeyData {
    static constexpr auto tag = BackendTag::BackendKeyData;
    Int32 process_id = 0;
    std::string_view secret_key;  // 4 bytes up to protocol 3.0, up to 256 from 3.2

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.int32("process_id", m.process_id);
        v.key("secret_key", m.secret_key);
    }
};

struct BindComplete : EmptyBody {
    static constexpr auto tag = BackendTag::BindComplete;
};

struct CloseComplete : EmptyBody {
    static constexpr auto tag = BackendTag::CloseComplete;
};

struct CommandComplete {
    static constexpr auto tag = BackendTag::CommandComplete;
    std::string_view command_tag;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.string("command_tag", m.command_tag);
    }
};

// What the three CopyXXXResponses have in common.
template <BackendTag Tag>
struct CopyResponse {
    static constexpr auto tag = Tag;
    Int8 overall_format = 0;  // 0 text, 1 binary
    std::vector<Int16> column_formats;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.int8("overall_format", m.overall_format);
        v.counted16("column_formats", m.column_formats);
    }
};

struct CopyInResponse : CopyResponse<BackendTag::CopyInResponse> {};
struct CopyOutResponse : CopyResponse<BackendTag::CopyOutResponse> {};
struct CopyBothResponse : CopyResponse<BackendTag::CopyBothResponse> {};

struct DataRow {
    static constexpr auto tag = BackendTag::DataRow;
    std::vector<Value> columns;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.counted16("columns", m.columns);
    }
};

struct EmptyQueryResponse : EmptyBody {
    static constexpr auto tag = BackendTag::EmptyQueryResponse;
};

// A field of an ErrorResponse or NoticeResponse. The codes are those of "Error and Notice Message
// Fields".
struct ErrorField {
    char code = 'M';
    std::string_view value;

    bool operator==(const ErrorField&) const = default;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.byte1("", m.code);
        v.string("", m.value);
    }
};

// What ErrorResponse and NoticeResponse have in common.
template <BackendTag Tag>
struct ErrorFields {
    static constexpr auto tag = Tag;
    std::vector<ErrorField> fields;

    // The value of the first field with that code: 'S' severity, 'V' severity in English, 'C'
    // SQLSTATE, 'M' message, 'D' detail, 'H' hint.
    Value find(char code) const noexcept {
        for (const ErrorField& f : fields) {
            if (f.code == code) return f.value;
        }
        return std::nullopt;
    }

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.until_zero("fields", m.fields);
    }
};

struct ErrorResponse : ErrorFields<BackendTag::ErrorResponse> {};
struct NoticeResponse : ErrorFields<BackendTag::NoticeResponse> {};

struct FunctionCallResponse {
    static constexpr auto tag = BackendTag::FunctionCallResponse;
    Value result;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.value("result", m.result);
    }
};

struct NegotiateProtocolVersion {
    static constexpr auto tag = BackendTag::NegotiateProtocolVersion;
    // The documentation calls this the newest minor version; servers send the whole version number.
    Int32 newest_version = 0;
    std::vector<std::string_view> unrecognized_options;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.version("newest_version", m.newest_version);
        v.counted32("unrecognized_options", m.unrecognized_options);
    }
};

struct NoData : EmptyBody {
    static constexpr auto tag = BackendTag::NoData;
};

struct NotificationResponse {
    static constexpr auto tag = BackendTag::NotificationResponse;
    Int32 process_id = 0;
    std::string_view channel;
    std::string_view payload;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.int32("process_id", m.process_id);
        v.string("channel", m.channel);
        v.string("payload", m.payload);
    }
};

struct ParameterDescription {
    static constexpr auto tag = BackendTag::ParameterDescription;
    std::vector<Int32> parameter_types;  // OIDs

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.counted16("parameter_types", m.parameter_types);
    }
};

struct ParameterStatus {
    static constexpr auto tag = BackendTag::ParameterStatus;
    std::string_view parameter;
    std::string_view value;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.string("parameter", m.parameter);
        v.string("value", m.value);
    }
};

struct ParseComplete : EmptyBody {
    static constexpr auto tag = BackendTag::ParseComplete;
};

struct PortalSuspended : EmptyBody {
    static constexpr auto tag = BackendTag::PortalSuspended;
};

struct ReadyForQuery {
    static constexpr auto tag = BackendTag::ReadyForQuery;
    char transaction_status = 'I';  // 'I' idle, 'T' in a transaction block, 'E' in a failed one

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.byte1("transaction_status", m.transaction_status);
    }
};

struct ColumnDescription {
    std::string_view name;
    Int32 table_oid = 0;
    Int16 column_number = 0;
    Int32 type_oid = 0;
    Int16 type_size = 0;
    Int32 type_modifier = -1;
    Int16 format = 0;

    bool operator==(const ColumnDescription&) const = default;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.string("name", m.name);
        v.int32("table_oid", m.table_oid);
        v.int16("column_number", m.column_number);
        v.int32("type_oid", m.type_oid);
        v.int16("type_size", m.type_size);
        v.int32("type_modifier", m.type_modifier);
        v.int16("format", m.format);
    }
};

struct RowDescription {
    static constexpr auto tag = BackendTag::RowDescription;
    std::vector<ColumnDescription> columns;

    template <class M, class V>
    static void visit(M& m, V& v) {
        v.counted16("columns", m.columns);
    }
};

// All of them, for whoever must not forget one: the dumper, the tests, the fuzzer. Where several
// share a tag, all are here.
template <class... Ms>
struct MessageList {
    // Calls f.template operator()<M>() for every M.
    template <class F>
    static void for_each(F&& f) {
        (f.template operator()<Ms>(), ...);
    }
};

using StartupPackets = MessageList<CancelRequest, GSSENCRequest, SSLRequest, StartupMessage>;

using FrontendMessages = MessageList<Bind, Close, CopyData, CopyDone, CopyFail, Describe, Execute,
                                     Flush, FunctionCall, GSSResponse, Parse, PasswordMessage,
                                     Query, SASLInitialResponse, SASLResponse, Sync, Terminate>;

using BackendMessages = MessageList<
    AuthenticationOk, AuthenticationKerberosV5, AuthenticationCleartextPassword,
    AuthenticationMD5Password, AuthenticationSCMCredential, AuthenticationGSS,
    AuthenticationGSSContinue, AuthenticationSSPI, AuthenticationSASL, AuthenticationSASLContinue,
    AuthenticationSASLFinal, BackendKeyData, BindComplete, CloseComplete, CommandComplete,
    CopyBothResponse, CopyData, CopyDone, CopyInResponse, CopyOutResponse, DataRow,
    EmptyQueryResponse, ErrorResponse, FunctionCallResponse, NegotiateProtocolVersion, NoData,
    NoticeResponse, NotificationResponse, ParameterDescription, ParameterStatus, ParseComplete,
    PortalSuspended, ReadyForQuery, RowDescription>;

namespace detail {

constexpr Side side_of(FrontendTag) { return Side::frontend; }
constexpr Side side_of(BackendTag) { return Side::backend; }

}  // namespace detail

template <class M>
inline constexpr bool has_tag = !std::is_same_v<std::remove_cv_t<decltype(M::tag)>, NoTag>;

// The catalog's row of a message that has a tag; for one of both directions, the frontend's.
template <class M>
constexpr const MessageKind& kind_of() {
    static_assert(has_tag<M>);
    // By position: g++ with -fsanitize=undefined takes no comparison of pointers as constant.
    constexpr std::size_t position = detail::position_of(detail::side_of(M::tag),
                                                         static_cast<char>(M::tag));
    static_assert(position != 0, "every tag is in the catalog");
    return catalog[position - 1];
}

// The message's name in the documentation.
template <class M>
constexpr std::string_view name_of() {
    if constexpr (requires { M::message_name; }) {
        return M::message_name;
    } else {
        return kind_of<M>().name;
    }
}

}  // namespace pgchaperone::protocol
