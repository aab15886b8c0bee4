#pragma once
// Text for a terminal that was written by somebody else, maybe by somebody who means ill: what is
// shown is what is there. Control characters, marks that hide text or turn its direction, and
// spaces that are none to PostgreSQL come out as <U+202E>, bytes that are not UTF-8 as <0x80>; so
// nothing moves the cursor, changes colours, or lets one statement look like another. Knows no SQL
// and no terminal: pure functions.

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace pgchaperone::cli {

using Time = std::chrono::system_clock::time_point;

// How output is to look. A pipe gets neither colours nor cuts nor times that mean something only
// now.
struct Look {
    bool terminal = false;  // times are told as people do: "2 min ago"
    bool colour = false;
    std::size_t width = 0;  // columns; 0: nothing is cut
    Time now;
};

// The text as it may be shown. On one line, each run of line breaks and tabs with the spaces
// around it becomes a mark: a comment that ends at a line break must not seem to go on.
std::string visible_line(std::string_view text);
// The same with its line breaks kept; tabs become spaces. No line break at the end.
std::string visible_lines(std::string_view text);

// JSON with what visible_line would not show as it is written as \u escapes; control characters are
// escaped in JSON anyway.
std::string visible_json(std::string_view json);

// How many columns of a terminal `text` takes, without escapes in it: wide characters take two,
// combining ones none.
std::size_t columns_of(std::string_view text);
// At most `width` columns of it; where something is left out, the last one is an ellipsis.
std::string cut(std::string_view text, std::size_t width);
std::string padded(std::string text, std::size_t width);

enum class Ink { plain, bold, alarm, faint };
std::string inked(std::string_view text, Ink ink, const Look& look);

// "2026-11-21 08:00:00Z", to the second, or "2 min ago", "in 28 min" where the look is a terminal.
std::string time_text(Time time, const Look& look);
// How standard output is to look: now, in colours and as wide as the terminal, if it is one.
Look look_of_output();
// Reads how servers and RFC 3339 write a time, with an offset or Z: nothing else is one.
std::optional<Time> parse_time(std::string_view text);

}  // namespace pgchaperone::cli
