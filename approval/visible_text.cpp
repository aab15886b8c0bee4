#include "approval/visible_text.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace pgchaperone::approval {
namespace {

struct Range {
    char32_t first, last;
};

// Control characters; characters that nobody sees; marks that turn the direction of text; and
// spaces that PostgreSQL takes for letters.
constexpr std::array<Range, 24> hidden = {{
    {0x00, 0x1f},       {0x7f, 0xa0},       {0xad, 0xad},       {0x34f, 0x34f},
    {0x61c, 0x61c},     {0x115f, 0x1160},   {0x1680, 0x1680},   {0x17b4, 0x17b5},
    {0x180b, 0x180f},   {0x2000, 0x200f},   {0x2028, 0x202f},   {0x205f, 0x206f},
    {0x2800, 0x2800},   {0x3000, 0x3000},   {0x3164, 0x3164},   {0xe000, 0xf8ff},
    {0xfe00, 0xfe0f},   {0xfeff, 0xfeff},   {0xffa0, 0xffa0},   {0xfff0, 0xfffc},
    {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff}, {0xf0000, 0x10ffff},
}};
bool is_hidden(char32_t c) {
    return std::any_of(hidden.begin(), hidden.end(),
                       [c](const Range& r) { return c >= r.first && c <= r.last; });
}

void append_shown(std::string& out, const Character& c) {
    char buffer[16];
    if (!c.good)
        std::snprintf(buffer, sizeof buffer, "<0x%02X>", static_cast<unsigned>(c.code));
    else if (is_hidden(c.code))
        std::snprintf(buffer, sizeof buffer, "<U+%04X>", static_cast<unsigned>(c.code));
    else {
        out += c.bytes;
        return;
    }
    out += buffer;
}

bool is_break(char c) { return c == '\n' || c == '\r' || c == '\t'; }

}  // namespace

Character front_character(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char lead = byte(0);
    if (lead < 0x80) return {text.substr(0, 1), lead, true};
    const std::size_t size = lead >= 0xc2 && lead < 0xe0   ? 2
                             : lead >= 0xe0 && lead < 0xf0 ? 3
                             : lead >= 0xf0 && lead < 0xf5 ? 4
                                                           : 0;
    if (size == 0 || size > text.size()) return {text.substr(0, 1), lead, false};
    char32_t code = lead & (0xffU >> (size + 1));
    for (std::size_t i = 1; i < size; ++i) {
        if ((byte(i) & 0xc0) != 0x80) return {text.substr(0, 1), lead, false};
        code = (code << 6) | (byte(i) & 0x3fU);
    }
    const bool overlong = (size == 3 && code < 0x800) || (size == 4 && code < 0x10000);
    if (overlong || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff)
        return {text.substr(0, 1), lead, false};
    return {text.substr(0, size), code, true};
}

std::string visible_line(std::string_view text) {
    // Line breaks at either end say nothing.
    while (!text.empty() && (is_break(text.front()) || text.front() == ' ')) text.remove_prefix(1);
    while (!text.empty() && (is_break(text.back()) || text.back() == ' ')) text.remove_suffix(1);
    std::string out;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find_first_not_of(" \t\r\n"), text.size());
        const std::string_view space = text.substr(0, end);
        if (std::any_of(space.begin(), space.end(), is_break)) {
            const bool line = space.find_first_of("\r\n") != std::string_view::npos;
            out += line ? " ⏎ " : " ";
            text.remove_prefix(end);
            continue;
        }
        const Character c = front_character(text);
        append_shown(out, c);
        text.remove_prefix(c.bytes.size());
    }
    return out;
}

std::string visible_lines(std::string_view text) {
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
    std::string out;
    while (!text.empty()) {
        const Character c = front_character(text);
        text.remove_prefix(c.bytes.size());
        if (c.code == '\n' && c.good)
            out += '\n';
        else if (c.code == '\t' && c.good)
            out += "    ";
        else if (c.code == '\r' && c.good && !text.empty() && text.front() == '\n')
            continue;  // Windows' line break
        else
            append_shown(out, c);
    }
    return out;
}

std::string visible_json(std::string_view json) {
    std::string out;
    const auto append_unit = [&out](unsigned unit) {
        char buffer[16];
        std::snprintf(buffer, sizeof buffer, "\\u%04x", unit);
        out += buffer;
    };
    while (!json.empty()) {
        const Character c = front_character(json);
        json.remove_prefix(c.bytes.size());
        if (!c.good)
            append_unit(0xfffd);
        else if (c.code < 0x7f || !is_hidden(c.code))
            out += c.bytes;
        else if (c.code < 0x10000)
            append_unit(static_cast<unsigned>(c.code));
        else {
            append_unit(0xd800 + static_cast<unsigned>((c.code - 0x10000) >> 10));
            append_unit(0xdc00 + static_cast<unsigned>((c.code - 0x10000) & 0x3ff));
        }
    }
    return out;
}

}  // namespace pgchaperone::approval
