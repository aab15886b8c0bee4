#pragma once
// A record as one line of JSON. The line is valid UTF-8 and shows no control character, whatever
// bytes a client sent: what could confuse a terminal or an editor comes out as \u escapes.
//
// Text that is not UTF-8 is written so that it can be told and read back: a byte that does not
// belong becomes the four characters \xHH, a backslash becomes two; the line's `escaped` names the
// fields that were written so. Names of what was cut stand in `shortened`.

#include "audit/chain.h"
#include "audit/event.h"
#include "audit/record.h"

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace pgchaperone::audit {

// Of what a line holds, as `v`: docs/audit.schema.json. A new member leaves it as it is; one that
// is gone or means something else raises it.
inline constexpr int line_version = 1;

// What one list of a line holds.
inline constexpr std::size_t list_limit = 256;

// The line for a record, without its line feed, standing behind `after`.
std::string make_line(const Record& record, const ChainPoint& after,
                      std::size_t statement_limit_bytes);

// The same for an event.
std::string make_event_line(const Event& event, std::chrono::system_clock::time_point time,
                            const ChainPoint& after);

// Appends a JSON string with its quotes. True where the bytes were not UTF-8 and were escaped as
// described above.
bool append_json_text(std::string& out, std::string_view bytes);

// "2026-11-21T02:03:04.123456Z", and back; digits of a second may be missing.
std::string to_text(std::chrono::system_clock::time_point time);
std::optional<std::chrono::system_clock::time_point> parse_time(std::string_view text);

// When the line was made, without reading all of it; nothing where it does not begin as ours do.
std::optional<std::chrono::system_clock::time_point> line_time(std::string_view line);

}  // namespace pgchaperone::audit
