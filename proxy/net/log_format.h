#pragma once
// The log's lines, as text and as JSON. As JSON they are one object a line: time, level, message,
// and where it is known the session and the event. Whatever clients send into a message (quotes,
// line breaks, what is not UTF-8) stays one valid line. Pure.

#include <spdlog/formatter.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

namespace pgchaperone::net {

// Without its line feed. `text`: as it stands behind the level in the log's text form. One that
// begins with "session 7: " is of that session, and one that goes on with "start: ", "end: " or
// "logged in: " of that event; "ticket B1: " likewise is of that ticket. No client can write the
// beginning of a line.
std::string json_log_line(std::chrono::system_clock::time_point time, std::string_view level,
                          std::string_view text);

std::unique_ptr<spdlog::formatter> json_log_formatter();

// The log's lines as text: time, level, message. What would not show as it is written, line breaks
// first of all, is made visible (approval/visible_text.h).
std::unique_ptr<spdlog::formatter> text_log_formatter();

// The same lines with the priority before them by which the journal files them ("<4>" for a
// warning, sd-daemon(3)); it takes that off.
std::unique_ptr<spdlog::formatter> for_the_journal(std::unique_ptr<spdlog::formatter> formatter);

}  // namespace pgchaperone::net
