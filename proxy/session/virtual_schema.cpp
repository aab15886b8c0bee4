#include "proxy/session/virtual_schema.h"

#include "policy/chaperone_call.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <utility>

namespace pgchaperone::session {

namespace {

constexpr std::array pending_columns = {
    Column{"ticket", "text"},    Column{"state", "text"},         Column{"requester", "text"},
    Column{"database", "text"},  Column{"opened", "timestamptz"}, Column{"expires", "timestamptz"},
    Column{"waiting", "bool"},   Column{"command", "text"},       Column{"effects", "text"},
    Column{"rule", "text"},      Column{"reason", "text"},        Column{"approvals", "text"},
    Column{"statement", "text"},
};
constexpr std::array ticket_columns = {Column{"field", "text"}, Column{"value", "text"}};
constexpr std::array history_columns = {
    Column{"ticket", "text"},        Column{"state", "text"},        Column{"requester", "text"},
    Column{"database", "text"},      Column{"command", "text"},      Column{"effects", "text"},
    Column{"opened", "timestamptz"}, Column{"ended", "timestamptz"}, Column{"decided_by", "text"},
    Column{"comment", "text"},       Column{"outcome", "text"},      Column{"statement", "text"},
};
constexpr std::array sessions_columns = {
    Column{"session", "int8"},      Column{"username", "text"},    Column{"database", "text"},
    Column{"client", "text"},       Column{"application", "text"}, Column{"tls", "bool"},
    Column{"since", "timestamptz"}, Column{"state", "text"},       Column{"ticket", "text"},
};
constexpr std::array rules_columns = {
    Column{"position", "int8"},  Column{"rule", "text"},   Column{"action", "text"},
    Column{"condition", "text"}, Column{"origin", "text"},
};
constexpr std::array version_columns = {
    Column{"version", "text"},        Column{"grammar", "text"}, Column{"policy", "text"},
    Column{"policy_version", "int8"}, Column{"store", "text"},   Column{"environment", "text"},
};
constexpr std::array stats_columns = {Column{"name", "text"}, Column{"value", "int8"}};
constexpr std::array decision_columns = {Column{"ticket", "text"}, Column{"state", "text"},
                                         Column{"message", "text"}};
constexpr std::array explain_columns = {
    Column{"statement", "int8"}, Column{"command", "text"}, Column{"action", "text"},
    Column{"rule", "text"},      Column{"reason", "text"},  Column{"sql", "text"},
};
constexpr std::array reload_columns = {Column{"result", "text"}};

struct Table {
    std::string_view name;
    bool call;
    std::span<const Column> columns;
};
constexpr std::array tables = {
    Table{"pending", false, pending_columns}, Table{policy::ticket_prefix, false, ticket_columns},
    Table{"history", false, history_columns}, Table{"sessions", false, sessions_columns},
    Table{"rules", false, rules_columns},     Table{"version", false, version_columns},
    Table{"stats", false, stats_columns},     Table{"approve", true, decision_columns},
    Table{"deny", true, decision_columns},    Table{"withdraw", true, decision_columns},
    Table{"explain", true, explain_columns},  Table{"reload", true, reload_columns},
};

// What the analyzer takes for ours is what can be answered.
constexpr bool same_names() {
    if (tables.size() != policy::chaperone_names.size()) return false;
    for (std::size_t i = 0; i < tables.size(); ++i) {
        if (tables[i].name != policy::chaperone_names[i].name ||
            tables[i].call != policy::chaperone_names[i].call) {
            return false;
        }
    }
    return true;
}
static_assert(same_names());

std::string select_from(const policy::ChaperoneCall& call, std::string_view source) {
    std::string list;
    std::string definition;
    for (const Column& column : columns_of(call.name, call.call)) {
        const std::string name = '"' + std::string(column.name) + '"';
        if (!list.empty()) {
            list += ", ";
            definition += ", ";
        }
        list += name;
        definition += name + " pg_catalog." + std::string(column.type);
    }
    return "SELECT " + list + " FROM pg_catalog.json_to_recordset(" + std::string(source) +
           ") AS chaperone(" + definition + ")";
}

// The character at the front of the text, which is taken off it; none: it is no UTF-8, and one byte
// is taken off.
std::optional<char32_t> take_character(std::string_view& text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char first = byte(0);
    const std::size_t size = first < 0x80   ? 1
                             : first < 0xC2 ? 0
                             : first < 0xE0 ? 2
                             : first < 0xF0 ? 3
                             : first < 0xF5 ? 4
                                            : 0;
    bool good = size != 0 && text.size() >= size;
    char32_t value = size <= 1 ? first : first & (0xFFU >> (size + 1));
    for (std::size_t i = 1; good && i < size; ++i) {
        good = (byte(i) & 0xC0) == 0x80;
        value = value << 6 | (byte(i) & 0x3F);
    }
    good = good && !(size == 3 && (value < 0x800 || (value >= 0xD800 && value <= 0xDFFF))) &&
           !(size == 4 && (value < 0x10000 || value > 0x10FFFF));
    text.remove_prefix(good ? size : 1);
    return good ? std::optional(value) : std::nullopt;
}

void append_escape(std::string& out, std::uint32_t unit) {
    std::array<char, 7> text{};
    std::snprintf(text.data(), text.size(), "\\u%04x", static_cast<unsigned>(unit & 0xFFFF));
    out += text.data();
}

std::optional<std::uint32_t> hexadecimal(std::string_view digits) {
    if (digits.size() != 4) return std::nullopt;
    std::uint32_t value = 0;
    for (const char c : digits) {
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0) return std::nullopt;
        value = value << 4 | static_cast<std::uint32_t>(digit);
    }
    return value;
}

}  // namespace

std::span<const Column> columns_of(std::string_view name, bool call) noexcept {
    const policy::ChaperoneName* const entry = policy::find_chaperone_name(name, call);
    if (entry == nullptr) return {};
    return tables[static_cast<std::size_t>(entry - policy::chaperone_names.data())].columns;
}

std::string select_of_rows(const policy::ChaperoneCall& call, std::string_view json) {
    // An escape string means the same under every setting.
    std::string literal = "E'";
    literal.reserve(json.size() + json.size() / 8 + 32);
    for (const char c : json) {
        if (c == '\'' || c == '\\') literal += c;
        literal += c;
    }
    return select_from(call, literal + "'::pg_catalog.json");
}

std::string select_of_parameter(const policy::ChaperoneCall& call, std::size_t parameter) {
    return select_from(call, '$' + std::to_string(parameter));
}

std::string ascii_json(std::string_view json, bool unicode) {
    if (json.empty()) return "[]";
    std::string out;
    out.reserve(json.size());
    while (!json.empty()) {
        const auto first = static_cast<unsigned char>(json.front());
        if (first == '\\' && json.size() >= 2) {
            const bool by_number = json[1] == 'u';
            const auto unit = by_number ? hexadecimal(json.substr(2, 4)) : std::nullopt;
            const bool lost = unit && (*unit == 0 || (*unit >= 0x80 && !unicode));
            const std::string_view escape = json.substr(0, unit ? 6 : 2);
            out += lost ? std::string_view("?") : escape;
            json.remove_prefix(escape.size());
            continue;
        }
        if (first < 0x80) {
            out += first == 0 ? '?' : static_cast<char>(first);
            json.remove_prefix(1);
            continue;
        }
        const auto character = take_character(json);
        if (!character || !unicode) {
            out += '?';
        } else if (*character < 0x10000) {
            append_escape(out, *character);
        } else {
            append_escape(out, 0xD800 + ((*character - 0x10000) >> 10));
            append_escape(out, 0xDC00 + ((*character - 0x10000) & 0x3FF));
        }
    }
    return out;
}

std::string readable_text(std::string_view bytes, bool utf8) {
    std::string out;
    out.reserve(bytes.size());
    while (!bytes.empty()) {
        const std::string_view before = bytes;
        const auto character = take_character(bytes);
        const bool good = character && *character != 0 && (utf8 || *character < 0x80);
        out += good ? before.substr(0, before.size() - bytes.size()) : std::string_view("?");
    }
    return out;
}

}  // namespace pgchaperone::session
