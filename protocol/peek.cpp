#include "protocol/peek.h"

#include <charconv>

namespace pgchaperone::protocol {

Result<BindHead> peek_bind(std::string_view body) noexcept {
    Reader in{body};
    BindHead head{};
    head.portal = in.string();
    head.statement = in.string();
    head.size = in.position();
    if (!in.ok()) return in.error();
    return head;
}

Result<ParseHead> peek_parse(std::string_view body) noexcept {
    Reader in{body};
    ParseHead head{};
    head.statement = in.string();
    head.query = in.string();
    const std::size_t list_at = in.position();
    const std::size_t count = in.count16();
    in.bytes(count * 4);
    if (!in.ok()) return in.error();
    if (in.remaining() != 0) return Error::trailing_bytes;
    head.parameter_types = body.substr(list_at);
    return head;
}

Result<Int32> peek_function_oid(std::string_view body) noexcept {
    Reader in{body};
    const Int32 oid = in.int32();
    if (!in.ok()) return in.error();
    return oid;
}

Result<AuthenticationCode> peek_authentication(std::string_view body) noexcept {
    Reader in{body};
    const Int32 code = in.int32();
    if (!in.ok()) return in.error();
    return static_cast<AuthenticationCode>(code);
}

Result<Value> peek_error_field(std::string_view body, char code) noexcept {
    Reader in{body};
    while (true) {
        const char this_code = in.byte1();
        if (in.ok() && this_code == '\0') return Value{};
        const std::string_view value = in.string();
        if (!in.ok()) return in.error();
        if (this_code == code) return Value{value};
    }
}

std::optional<std::uint64_t> rows_of(std::string_view command_tag) noexcept {
    const std::size_t space = command_tag.rfind(' ');
    if (space == std::string_view::npos) return std::nullopt;
    const char* first = command_tag.data() + space + 1;
    const char* last = command_tag.data() + command_tag.size();
    std::uint64_t rows = 0;
    const auto [end, error] = std::from_chars(first, last, rows);
    if (error != std::errc{} || end != last) return std::nullopt;
    return rows;
}

}  // namespace pgchaperone::protocol
