#pragma once
// What `pgchaperone pending`, `show` and `history` print, as pure functions of the rows that the
// virtual schema answers with and of how it is to look. Columns are found by their names, so that
// an older program can read what a newer guard says. Nothing that a requester wrote reaches the
// terminal as it is: see cli/terminal.h.

#include "cli/terminal.h"

#include <boost/json.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::cli {

enum class ValueKind : std::uint8_t { text, boolean, number, time };

struct Column {
    std::string name;
    ValueKind kind = ValueKind::text;
};

// Values as text: "true" and "false", digits, times as parse_time reads them; nothing where it is
// null.
struct Rows {
    std::vector<Column> columns;
    std::vector<std::vector<std::optional<std::string>>> values;

    // Empty where there is no such column or no value.
    std::string_view text(std::size_t row, std::string_view column) const;
    std::optional<Time> time(std::size_t row, std::string_view column) const;
    bool has(std::string_view column) const;
    // Of rows (field, value), as `SHOW chaperone.ticket_k7` has them.
    std::string_view field(std::string_view name) const;
};

// "2 tickets wait", then a table: what would be lost comes first, the statement last.
std::string pending_text(const Rows& rows, const Look& look);
// One line for each, without a heading: for `pending --watch` in a pipe.
std::string pending_line(const Rows& rows, std::size_t row, const Look& look);
std::string history_text(const Rows& rows, const Look& look);
// One ticket in full, from its rows (field, value).
std::string ticket_text(const Rows& fields, const Look& look);

// An array of objects; a time is written as RFC 3339 has it.
boost::json::array rows_json(const Rows& rows);
boost::json::object row_json(const Rows& rows, std::size_t row);
// The rows (field, value) as one object.
boost::json::object ticket_json(const Rows& fields);

// "K7" as it stands in a name of the virtual schema: letters and digits only. Nothing: it is no
// ticket's id.
std::optional<std::string> ticket_id(std::string_view text);

}  // namespace pgchaperone::cli
