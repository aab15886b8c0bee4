#pragma once
// Looks at the first fields of a body, without allocating and without needing the whole of it.
// Where a decode would allocate (lists) or wait for what streams through (large parameters), this
// is what the hot path uses.
//
// All take as much of the body as there is. Error::truncated or unterminated_string means: these
// fields are not all there yet. With the whole body at hand it means: malformed.

#include "protocol/cursor.h"
#include "protocol/messages.h"

#include <cstdint>
#include <optional>
#include <string_view>

namespace pgchaperone::protocol {

struct BindHead {
    std::string_view portal;
    std::string_view statement;
    std::size_t size;  // bytes of the two Strings
};

Result<BindHead> peek_bind(std::string_view body) noexcept;

// The whole of a Parse but for the list, which is checked to be complete and exact.
struct ParseHead {
    std::string_view statement;
    std::string_view query;
    std::string_view parameter_types;  // Int16 count and Int32 each, as they came
};

// Needs the whole body; as strict as decode<Parse>.
Result<ParseHead> peek_parse(std::string_view body) noexcept;

// The OID of a FunctionCall's function.
Result<Int32> peek_function_oid(std::string_view body) noexcept;

// Which of the Authentication messages it is. A code that we don't know comes back as it is.
Result<AuthenticationCode> peek_authentication(std::string_view body) noexcept;

// A field of an ErrorResponse or NoticeResponse; none where it ends without. Fields before it must
// be there.
Result<Value> peek_error_field(std::string_view body, char code) noexcept;

// The number at the end of a CommandComplete's tag: rows affected ("INSERT 0 5", "UPDATE 17", "COPY
// 3"). None where the tag has none, or one that no counter can hold.
std::optional<std::uint64_t> rows_of(std::string_view command_tag) noexcept;

// The part of a statement's or portal's name by which the server knows it: it keeps them in tables
// with keys of NAMEDATALEN - 1 bytes, so two longer names that begin alike are the same name.
constexpr std::string_view name_key(std::string_view name) noexcept { return name.substr(0, 63); }

}  // namespace pgchaperone::protocol
