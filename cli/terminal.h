#pragma once
// Text for a terminal: how it may be shown (see approval/visible_text.h), how much room it takes,
// colours and times. Knows no SQL and no terminal: pure functions.

#include "approval/visible_text.h"

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

using approval::visible_json;
using approval::visible_line;
using approval::visible_lines;

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
