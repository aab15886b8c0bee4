#include "audit/line.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <vector>

namespace pgchaperone::audit {
namespace {

constexpr char hex_digits[] = "0123456789abcdef";

bool is_continuation(unsigned char byte) { return (byte & 0xc0) == 0x80; }

struct CodePoint {
    std::uint32_t value = 0;
    std::size_t bytes = 0;  // 0: not UTF-8
};

// Strictly as RFC 3629 has it: nothing overlong, no surrogates, nothing above U+10FFFF.
CodePoint decode_utf8(std::string_view text) {
    const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char first = at(0);
    if (first < 0x80) return {first, 1};
    const std::size_t size = first >= 0xc2 && first <= 0xdf   ? 2
                             : first >= 0xe0 && first <= 0xef ? 3
                             : first >= 0xf0 && first <= 0xf4 ? 4
                                                              : 0;
    if (size == 0 || text.size() < size) return {};
    std::uint32_t value = first & (0xffu >> (size + 1));
    for (std::size_t i = 1; i < size; ++i) {
        if (!is_continuation(at(i))) return {};
        value = (value << 6) | (at(i) & 0x3fu);
    }
    const bool overlong = (size == 3 && value < 0x800) || (size == 4 && value < 0x10000);
    const bool surrogate = value >= 0xd800 && value <= 0xdfff;
    if (overlong || surrogate || value > 0x10ffff) return {};
    return {value, size};
}

// What is not shown as it is: control characters, line separators that are none for JSON, and the
// marks that turn the direction of text, with which a statement can look like another one.
bool hides_or_confuses(std::uint32_t c) {
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x61c || (c >= 0x200b && c <= 0x200f) ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff;
}

void append_u_escape(std::string& out, std::uint32_t c) {
    out += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) out += hex_digits[(c >> shift) & 15];
}

bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        const CodePoint c = decode_utf8(text);
        if (c.bytes == 0) return false;
        text.remove_prefix(c.bytes);
    }
    return true;
}

// The longest prefix within the limit that does not end within a character.
std::string_view cut(std::string_view text, std::size_t limit_bytes) {
    if (text.size() <= limit_bytes) return text;
    std::size_t end = limit_bytes;
    while (end > 0 && limit_bytes - end < 4 &&
           is_continuation(static_cast<unsigned char>(text[end])))
        --end;
    // Not UTF-8 at all: any place is as good.
    if (is_continuation(static_cast<unsigned char>(text[end]))) end = limit_bytes;
    return text.substr(0, end);
}

// Builds one line, remembering which fields are not shown as they were.
class LineBuilder {
public:
    explicit LineBuilder(const ChainPoint& after) {
        out_ = "{\"seq\":" + std::to_string(after.seq + 1) + ",\"prev\":\"" + after.hash +
               "\",\"v\":" + std::to_string(line_version);
    }

    void number(std::string_view name, std::string_view digits) {
        member(name);
        out_ += digits;
    }
    void boolean(std::string_view name, bool value) { number(name, value ? "true" : "false"); }

    void text(std::string_view name, std::string_view value,
              std::size_t limit_bytes = text_limit_bytes) {
        member(name);
        if (append_value(value, limit_bytes)) escaped_.push_back(name);
        if (value.size() > limit_bytes) shortened_.push_back(name);
    }

    void list(std::string_view name, const std::vector<std::string>& values) {
        member(name);
        out_ += '[';
        bool escaped = false;
        bool shortened = values.size() > list_limit;
        const std::size_t count = std::min(values.size(), list_limit);
        for (std::size_t i = 0; i < count; ++i) {
            if (i > 0) out_ += ',';
            escaped |= append_value(values[i], text_limit_bytes);
            shortened |= values[i].size() > text_limit_bytes;
        }
        out_ += ']';
        if (escaped) escaped_.push_back(name);
        if (shortened) shortened_.push_back(name);
    }

    void values(std::string_view name, const std::vector<std::optional<std::string>>& values) {
        member(name);
        out_ += '[';
        bool escaped = false;
        bool shortened = values.size() > list_limit;
        for (std::size_t i = 0; i < std::min(values.size(), list_limit); ++i) {
            if (i > 0) out_ += ',';
            if (!values[i]) {
                out_ += "null";
                continue;
            }
            escaped |= append_value(*values[i], text_limit_bytes);
            shortened |= values[i]->size() > text_limit_bytes;
        }
        out_ += ']';
        if (escaped) escaped_.push_back(name);
        if (shortened) shortened_.push_back(name);
    }

    void rows(std::string_view name, const std::vector<TableRows>& tables) {
        member(name);
        out_ += '[';
        const std::size_t count = std::min(tables.size(), list_limit);
        for (std::size_t i = 0; i < count; ++i) {
            out_ += i > 0 ? ",{\"table\":" : "{\"table\":";
            append_value(tables[i].table, text_limit_bytes);
            out_ += ",\"inserted\":" + std::to_string(tables[i].inserted);
            out_ += ",\"updated\":" + std::to_string(tables[i].updated);
            out_ += ",\"deleted\":" + std::to_string(tables[i].deleted) + '}';
        }
        out_ += ']';
        if (tables.size() > list_limit) shortened_.push_back(name);
    }

    std::string finish() && {
        names("shortened", shortened_);
        names("escaped", escaped_);
        out_ += '}';
        return std::move(out_);
    }

private:
    void member(std::string_view name) {
        out_ += ",\"";
        out_ += name;  // ours: needs no escaping
        out_ += "\":";
    }
    bool append_value(std::string_view value, std::size_t limit_bytes) {
        return append_json_text(out_, cut(value, limit_bytes));
    }
    void names(std::string_view name, const std::vector<std::string_view>& fields) {
        if (fields.empty()) return;
        member(name);
        char before = '[';
        for (const std::string_view field : fields) {
            out_ += before;
            out_ += '"';
            out_ += field;
            out_ += '"';
            before = ',';
        }
        out_ += ']';
    }

    std::string out_;
    std::vector<std::string_view> escaped_;
    std::vector<std::string_view> shortened_;
};

std::string fingerprint_text(std::uint64_t fingerprint) {
    std::string out;
    for (int shift = 60; shift >= 0; shift -= 4) out += hex_digits[(fingerprint >> shift) & 15];
    return out;
}

}  // namespace

bool append_json_text(std::string& out, std::string_view bytes) {
    const bool escaped = !is_utf8(bytes);
    out += '"';
    while (!bytes.empty()) {
        const CodePoint c = decode_utf8(bytes);
        const std::size_t size = std::max<std::size_t>(c.bytes, 1);
        if (c.bytes == 0) {
            const auto byte = static_cast<unsigned char>(bytes.front());
            out += "\\\\x";
            out += hex_digits[byte >> 4];
            out += hex_digits[byte & 15];
        } else if (c.value == '"') {
            out += "\\\"";
        } else if (c.value == '\\') {
            out += escaped ? "\\\\\\\\" : "\\\\";
        } else if (c.value == '\n') {
            out += "\\n";
        } else if (c.value == '\t') {
            out += "\\t";
        } else if (hides_or_confuses(c.value)) {
            append_u_escape(out, c.value);
        } else {
            out += bytes.substr(0, size);
        }
        bytes.remove_prefix(size);
    }
    out += '"';
    return escaped;
}

std::string to_text(std::chrono::system_clock::time_point time) {
    using namespace std::chrono;
    const auto second = floor<seconds>(time);
    const auto us = duration_cast<microseconds>(time - second).count();
    const std::time_t unix_time = system_clock::to_time_t(second);
    std::tm utc{};
    gmtime_r(&unix_time, &utc);
    std::array<char, 64> text;
    const int size = std::snprintf(text.data(), text.size(), "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ",
                                   utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour,
                                   utc.tm_min, utc.tm_sec, static_cast<int>(us));
    return std::string(text.data(), static_cast<std::size_t>(size));
}

std::optional<std::chrono::system_clock::time_point> parse_time(std::string_view text) {
    std::tm utc{};
    int used = 0;
    const std::string whole(text.substr(0, 40));
    if (std::sscanf(whole.c_str(), "%4d-%2d-%2dT%2d:%2d:%2d%n", &utc.tm_year, &utc.tm_mon,
                    &utc.tm_mday, &utc.tm_hour, &utc.tm_min, &utc.tm_sec, &used) != 6)
        return std::nullopt;
    utc.tm_year -= 1900;
    utc.tm_mon -= 1;
    std::tm same = utc;
    const std::time_t seconds = timegm(&same);
    // What is no date, such as February 30, becomes another day there.
    if (same.tm_mday != utc.tm_mday || same.tm_mon != utc.tm_mon || same.tm_hour != utc.tm_hour ||
        same.tm_min != utc.tm_min || same.tm_sec != utc.tm_sec)
        return std::nullopt;
    std::string_view rest = text.substr(static_cast<std::size_t>(used));
    std::int64_t us = 0;
    if (rest.starts_with('.')) {
        rest.remove_prefix(1);
        for (std::int64_t unit = 100'000;
             !rest.empty() && rest.front() >= '0' && rest.front() <= '9'; unit /= 10) {
            us += unit * (rest.front() - '0');
            rest.remove_prefix(1);
        }
    }
    if (rest != "Z") return std::nullopt;
    return std::chrono::system_clock::from_time_t(seconds) + std::chrono::microseconds(us);
}

std::optional<std::chrono::system_clock::time_point> line_time(std::string_view line) {
    constexpr std::string_view name = "\"time\":\"";
    // Before it stand the number, a hash and the event's name, and nothing that a client has sent.
    constexpr std::size_t head_bytes = 250;
    const std::size_t begin = line.substr(0, head_bytes).find(name);
    if (begin == std::string_view::npos) return std::nullopt;
    const std::string_view rest = line.substr(begin + name.size());
    return parse_time(rest.substr(0, rest.find('"')));
}

namespace {

std::string_view event_of(const Record& record) {
    if (!record.ticket.empty()) return "ticket";
    if (record.done) return "done";
    if (record.transaction != 0) return "transaction";
    return record.outcome.empty() ? "decision" : "effects";
}

void add_session(const Record& record, LineBuilder& line) {
    line.text("event", event_of(record));
    line.text("time", to_text(record.time));
    line.number("session", std::to_string(record.session));
    if (record.number != 0) line.number("number", std::to_string(record.number));
    line.text("user", record.user);
    line.text("database", record.database);
    if (!record.upstream.empty()) line.text("upstream", record.upstream);
    line.text("client", record.client);
    line.text("application", record.application);
}

void add_done(const Record& record, LineBuilder& line) {
    line.text("protocol", record.protocol);
    line.text("decision", record.decision);
    line.boolean("observed", record.observed);
    line.text("rule", record.rule);
    line.text("outcome", record.outcome);
    const Done& done = *record.done;
    if (!done.sqlstate.empty()) line.text("sqlstate", done.sqlstate);
    if (!done.tag.empty()) line.text("tag", done.tag);
    if (done.rows) line.number("rows", std::to_string(*done.rows));
    if (done.duration) line.number("duration_us", std::to_string(done.duration->count()));
    if (!done.ended.empty()) line.text("ended", done.ended);
    if (record.transaction != 0) line.number("transaction", std::to_string(record.transaction));
    line.text("command", record.command);
    line.text("fingerprint", fingerprint_text(record.fingerprint));
}

}  // namespace

std::string make_line(const Record& record, const ChainPoint& after,
                      std::size_t statement_limit_bytes) {
    LineBuilder line(after);
    add_session(record, line);
    if (record.done) {
        add_done(record, line);
        return std::move(line).finish();
    }
    if (record.transaction != 0) {
        line.text("outcome", record.outcome);
        line.number("transaction", std::to_string(record.transaction));
        line.number("statements", std::to_string(record.transaction_statements));
        return std::move(line).finish();
    }
    line.text("protocol", record.protocol);
    line.text("decision", record.decision);
    line.boolean("observed", record.observed);
    line.text("rule", record.rule);
    line.text("reason", record.reason);
    if (!record.outcome.empty()) {
        line.text("outcome", record.outcome);
        line.rows("effects", record.effects);
    }
    if (!record.ticket.empty()) {
        line.text("ticket", record.ticket);
        line.list("approved_by", record.approved_by);
        line.list("denied_by", record.denied_by);
        line.text("comment", record.comment);
    }
    line.text("command", record.command);
    line.list("classes", record.classes);
    line.list("relations", record.relations);
    line.text("fingerprint", fingerprint_text(record.fingerprint));
    line.text("statement", record.statement, statement_limit_bytes);
    if (record.statement.size() > statement_limit_bytes) {
        line.number("statement_bytes", std::to_string(record.statement.size()));
        line.text("statement_sha256", sha_256_hex(record.statement));
    }
    if (record.redacted) line.boolean("redacted", true);
    if (record.parameters) line.values("parameters", *record.parameters);
    return std::move(line).finish();
}

std::string make_event_line(const Event& event, std::chrono::system_clock::time_point time,
                            const ChainPoint& after) {
    LineBuilder line(after);
    line.text("event", event.name);
    line.text("time", to_text(time));
    for (const EventMember& member : event.members) {
        if (member.number) {
            line.number(member.name, member.value);
        } else {
            line.text(member.name, member.value, member.limit_bytes);
        }
    }
    return std::move(line).finish();
}

}  // namespace pgchaperone::audit
