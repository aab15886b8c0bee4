#pragma once
// Refusal by substitution: in place of a refused message goes one of the same kind whose SQL can
// never parse, and the server's error for it is replaced by ours. So order, pipelines, implicit
// transactions, aborted states and ReadyForQuery are the server's own. The substitute carries the
// rule's name, so that the server's log shows it.

#include "policy/decision.h"

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

namespace pgchaperone::session {

// SQL that fails in the raw parser, in every state of the session and under every setting: no
// statement begins with a plain identifier. Holds only letters, digits and a few harmless signs.
std::string substitute_sql(std::string_view rule);

// A Query, or a Parse of a statement of this name, with the substitute.
std::string substitute_query(std::string_view rule);
std::string substitute_parse(std::string_view statement_name, std::string_view rule);
// The statement name under which an Execute's substitute is parsed: it never comes to exist, and
// unlike the unnamed one it leaves the client's unnamed statement alive.
inline constexpr std::string_view refused_execute_name = "pgchaperone_refused";

// An ErrorResponse with the refusal's words. `severity`: ERROR or FATAL. Where the client does not
// speak UTF-8, characters beyond ASCII become question marks.
std::string error_response(const policy::Refusal& refusal, std::string_view severity, bool utf8);
std::string notice_response(const policy::Refusal& notice, bool utf8);

// A limit as people write it in a setting: "10m", "1500ms".
std::string limit_text(std::chrono::milliseconds limit);

// "23505 duplicate key value ...": of an ErrorResponse, or as much of one as is there.
std::string error_summary(std::string_view message);

// As the server counts positions in a text of this encoding, nearly: bytes where it is not UTF-8.
std::size_t characters(std::string_view text, bool utf8);

// The same ErrorResponse with its position moved by so many characters; whole messages.
std::string moved_position(std::string_view message, std::ptrdiff_t offset);

}  // namespace pgchaperone::session
