#include "cli/ticket_view.h"

#include "cli/table.h"

#include <algorithm>
#include <array>

namespace pgchaperone::cli {
namespace {

using std::string;
using std::string_view;

string when(const Rows& rows, std::size_t row, string_view column, const Look& look) {
    if (const auto time = rows.time(row, column)) return time_text(*time, look);
    return visible_line(rows.text(row, column));
}

// "waiting": its client is there; else it is run again once it is approved. Several approvals are
// told of where more than one is needed or one is there already.
string state_words(const Rows& rows, std::size_t row) {
    string words = visible_line(rows.text(row, "state"));
    if (rows.text(row, "waiting") == "true") words = words == "pending" ? "waiting" : words;
    const string approvals = visible_line(rows.text(row, "approvals"));
    if (!approvals.empty() && approvals != "0 of 1" && approvals != "1 of 1")
        words += ", " + approvals;
    return words;
}

std::vector<Cell> pending_cells(const Rows& rows, std::size_t row, const Look& look) {
    return {{visible_line(rows.text(row, "ticket")), Ink::bold},
            {visible_line(rows.text(row, "effects")), Ink::alarm},
            {visible_line(rows.text(row, "requester")), Ink::plain},
            {visible_line(rows.text(row, "database")), Ink::plain},
            {when(rows, row, "opened", look), Ink::plain},
            {state_words(rows, row), Ink::plain},
            {visible_line(rows.text(row, "statement")), Ink::plain}};
}

// A field's value below its name, or beside it where it is one line.
void add_field(string& out, string_view name, const string& value, std::size_t width, Ink ink,
               const Look& look) {
    out += "  " + inked(padded(string(name), width), Ink::faint, look) + "  ";
    const string margin(width + 4, ' ');
    std::size_t start = 0;
    for (;;) {
        const std::size_t end = std::min(value.find('\n', start), value.size());
        if (start > 0) out += margin;
        out += inked(string_view(value).substr(start, end - start), ink, look) + "\n";
        if (end >= value.size()) return;
        start = end + 1;
    }
}

bool is_time_field(string_view name) {
    constexpr std::array<string_view, 3> times = {"opened", "expires", "ended"};
    return std::find(times.begin(), times.end(), name) != times.end();
}

boost::json::value json_value(const Column& column, const std::optional<string>& value) {
    if (!value) return nullptr;
    if (column.kind == ValueKind::boolean) return *value == "true";
    if (column.kind == ValueKind::number) {
        boost::system::error_code error;
        auto number = boost::json::parse(*value, error);
        if (!error && number.is_number()) return number;
    }
    if (column.kind == ValueKind::time) {
        if (const auto time = parse_time(*value)) {
            string text = time_text(*time, Look{});
            text[10] = 'T';
            return boost::json::string(text);
        }
    }
    return boost::json::string(*value);
}

}  // namespace

string_view Rows::text(std::size_t row, string_view column) const {
    for (std::size_t c = 0; c < columns.size(); ++c) {
        if (columns[c].name == column && values[row][c]) return *values[row][c];
    }
    return {};
}

std::optional<Time> Rows::time(std::size_t row, string_view column) const {
    return parse_time(text(row, column));
}

bool Rows::has(string_view column) const {
    return std::any_of(columns.begin(), columns.end(),
                       [column](const Column& c) { return c.name == column; });
}

string_view Rows::field(string_view name) const {
    for (std::size_t row = 0; row < values.size(); ++row) {
        if (text(row, "field") == name) return text(row, "value");
    }
    return {};
}

string pending_text(const Rows& rows, const Look& look) {
    if (rows.values.empty()) return "No ticket waits for a decision that you could see.\n";
    Table table({"TICKET", "WOULD CHANGE", "WHO", "DATABASE", "OPENED", "STATE", "STATEMENT"});
    for (std::size_t row = 0; row < rows.values.size(); ++row)
        table.add(pending_cells(rows, row, look));
    table.drop_empty();
    return table.text(look);
}

string pending_line(const Rows& rows, std::size_t row, const Look& look) {
    string out;
    for (const Cell& cell : pending_cells(rows, row, look))
        out += (out.empty() ? "" : "\t") + cell.text;
    return out + "\n";
}

string history_text(const Rows& rows, const Look& look) {
    if (rows.values.empty()) return "No ticket has ended that you could see.\n";
    Table table({"TICKET", "STATE", "CHANGES", "WHO", "DATABASE", "DECIDED BY", "ENDED", "OUTCOME",
                 "COMMENT", "STATEMENT"});
    for (std::size_t row = 0; row < rows.values.size(); ++row) {
        table.add({{visible_line(rows.text(row, "ticket")), Ink::bold},
                   {visible_line(rows.text(row, "state")), Ink::plain},
                   {visible_line(rows.text(row, "effects")), Ink::plain},
                   {visible_line(rows.text(row, "requester")), Ink::plain},
                   {visible_line(rows.text(row, "database")), Ink::plain},
                   {visible_line(rows.text(row, "decided_by")), Ink::plain},
                   {when(rows, row, "ended", look), Ink::plain},
                   {visible_line(rows.text(row, "outcome")), Ink::plain},
                   {visible_line(rows.text(row, "comment")), Ink::plain},
                   {visible_line(rows.text(row, "statement")), Ink::plain}});
    }
    table.drop_empty();
    return table.text(look);
}

string ticket_text(const Rows& fields, const Look& look) {
    string out = inked(visible_line(fields.field("ticket")), Ink::bold, look) + "  " +
                 visible_line(fields.field("state"));
    // "no: ..." says how it goes on, and stands with the other fields.
    const string_view waiting = fields.field("waiting");
    if (waiting == "yes") out += ", its client is waiting";
    const string_view effects = fields.field("effects");
    if (!effects.empty()) out += "\n  " + inked(visible_line(effects), Ink::alarm, look);
    out += "\n\n";
    std::size_t width = 0;
    for (std::size_t row = 0; row < fields.values.size(); ++row)
        width = std::max(width, columns_of(visible_line(fields.text(row, "field"))));
    for (std::size_t row = 0; row < fields.values.size(); ++row) {
        const string_view name = fields.text(row, "field");
        const string_view value = fields.text(row, "value");
        // What the head says already, and what stands below in full.
        if (name == "ticket" || name == "state" || name == "effects" || name == "statement" ||
            (name == "waiting" && waiting == "yes") || value.empty())
            continue;
        const auto time = is_time_field(name) ? parse_time(value) : std::nullopt;
        add_field(out, visible_line(name), time ? time_text(*time, look) : visible_lines(value),
                  width, Ink::plain, look);
    }
    if (const string_view statement = fields.field("statement"); !statement.empty()) {
        string shown = visible_lines(statement);
        for (std::size_t at = 0; (at = shown.find('\n', at)) != string::npos; at += 5)
            shown.insert(at + 1, "    ");
        out += "\n    " + shown + "\n";
    }
    return out;
}

boost::json::object row_json(const Rows& rows, std::size_t row) {
    boost::json::object out;
    for (std::size_t c = 0; c < rows.columns.size(); ++c)
        out[rows.columns[c].name] = json_value(rows.columns[c], rows.values[row][c]);
    return out;
}

boost::json::array rows_json(const Rows& rows) {
    boost::json::array out;
    for (std::size_t row = 0; row < rows.values.size(); ++row) out.push_back(row_json(rows, row));
    return out;
}

boost::json::object ticket_json(const Rows& fields) {
    boost::json::object out;
    for (std::size_t row = 0; row < fields.values.size(); ++row)
        out[fields.text(row, "field")] = fields.text(row, "value");
    return out;
}

std::optional<string> ticket_id(string_view text) {
    string out;
    for (const char c : text) {
        const bool digit = c >= '0' && c <= '9', upper = c >= 'A' && c <= 'Z';
        if (!digit && !upper && !(c >= 'a' && c <= 'z')) return std::nullopt;
        out += upper ? static_cast<char>(c - 'A' + 'a') : c;
    }
    if (out.empty() || out.size() > 32) return std::nullopt;
    return out;
}

}  // namespace pgchaperone::cli
