#pragma once
// A line of the audit log that is about no statement: of the log itself, or of the process that
// writes it, such as a policy that comes into force. Field names are those of the JSON (see
// docs/audit.md).

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::audit {

// What one text of a line holds besides the statement.
inline constexpr std::size_t text_limit_bytes = 8 * 1024;

struct EventMember {
    std::string_view name;  // outlives the event, and needs no escaping
    std::string value;      // a number's: its digits
    bool number = false;
    std::size_t limit_bytes = text_limit_bytes;  // longer text is cut
};

struct Event {
    std::string_view name;  // outlives the event, and needs no escaping
    std::vector<EventMember> members;
};

}  // namespace pgchaperone::audit
