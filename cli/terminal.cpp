#include "cli/terminal.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <sys/ioctl.h>
#include <unistd.h>

namespace pgchaperone::cli {
namespace {

struct Range {
    char32_t first, last;
};
template <std::size_t N>
bool among(char32_t c, const std::array<Range, N>& ranges) {
    return std::any_of(ranges.begin(), ranges.end(),
                       [c](const Range& r) { return c >= r.first && c <= r.last; });
}

constexpr std::array<Range, 14> combining = {{
    {0x300, 0x36f},
    {0x483, 0x489},
    {0x591, 0x5bd},
    {0x610, 0x61a},
    {0x64b, 0x65f},
    {0x6d6, 0x6dc},
    {0x900, 0x902},
    {0x93c, 0x93c},
    {0xe31, 0xe31},
    {0xe34, 0xe3a},
    {0x1ab0, 0x1aff},
    {0x1dc0, 0x1dff},
    {0x20d0, 0x20ff},
    {0xfe20, 0xfe2f},
}};
constexpr std::array<Range, 9> wide = {{
    {0x1100, 0x115e},
    {0x2e80, 0x303e},
    {0x3041, 0xa4cf},
    {0xac00, 0xd7a3},
    {0xf900, 0xfaff},
    {0xfe30, 0xfe6f},
    {0xff01, 0xff60},
    {0xffe0, 0xffe6},
    {0x1f300, 0x3fffd},
}};

std::size_t width_of(char32_t c) { return among(c, combining) ? 0 : among(c, wide) ? 2 : 1; }

std::string counted(long long count, const char* unit) {
    return std::to_string(count) + " " + unit;
}

std::string duration(std::chrono::seconds span) {
    const long long s = span.count();
    if (s < 60) return counted(s, "s");
    if (s < 60 * 60) return counted(s / 60, "min");
    if (s < 48 * 60 * 60) return counted(s / 3600, "h");
    return counted(s / 86400, "days");
}

// So many digits and nothing else.
std::optional<int> number(std::string_view text, std::size_t at, std::size_t digits) {
    if (at + digits > text.size()) return std::nullopt;
    int value = 0;
    const char* end = text.data() + at + digits;
    const auto [stop, error] = std::from_chars(text.data() + at, end, value);
    if (error != std::errc() || stop != end || text[at] == '-') return std::nullopt;
    return value;
}

}  // namespace

std::size_t columns_of(std::string_view text) {
    std::size_t width = 0;
    while (!text.empty()) {
        const approval::Character c = approval::front_character(text);
        width += width_of(c.code);
        text.remove_prefix(c.bytes.size());
    }
    return width;
}

std::string cut(std::string_view text, std::size_t width) {
    std::size_t taken = 0;
    std::string_view rest = text;
    std::size_t kept = 0;  // bytes that leave a column for the ellipsis
    while (!rest.empty()) {
        const approval::Character c = approval::front_character(rest);
        taken += width_of(c.code);
        if (taken > width)
            return width == 0 ? std::string() : std::string(text.substr(0, kept)) + "…";
        rest.remove_prefix(c.bytes.size());
        if (taken < width) kept = text.size() - rest.size();
    }
    return std::string(text);
}

std::string padded(std::string text, std::size_t width) {
    const std::size_t taken = columns_of(text);
    if (taken < width) text.append(width - taken, ' ');
    return text;
}

std::string inked(std::string_view text, Ink ink, const Look& look) {
    if (!look.colour || ink == Ink::plain || text.empty()) return std::string(text);
    const char* code = ink == Ink::bold ? "\033[1m" : ink == Ink::alarm ? "\033[1;31m" : "\033[2m";
    return code + std::string(text) + "\033[0m";
}

std::string time_text(Time time, const Look& look) {
    const auto second = std::chrono::floor<std::chrono::seconds>(time);
    if (look.terminal) {
        const auto now = std::chrono::floor<std::chrono::seconds>(look.now);
        return second > now ? "in " + duration(second - now) : duration(now - second) + " ago";
    }
    const auto day = std::chrono::floor<std::chrono::days>(second);
    const std::chrono::year_month_day date(day);
    const std::chrono::hh_mm_ss clock(second - day);
    char buffer[64];
    std::snprintf(buffer, sizeof buffer, "%04d-%02u-%02u %02d:%02d:%02dZ",
                  static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                  static_cast<unsigned>(date.day()), static_cast<int>(clock.hours().count()),
                  static_cast<int>(clock.minutes().count()),
                  static_cast<int>(clock.seconds().count()));
    return buffer;
}

std::optional<Time> parse_time(std::string_view text) {
    if (text.size() < 20 || text[4] != '-' || text[7] != '-' ||
        (text[10] != ' ' && text[10] != 'T') || text[13] != ':' || text[16] != ':')
        return std::nullopt;
    const auto year = number(text, 0, 4), month = number(text, 5, 2), day = number(text, 8, 2);
    const auto hour = number(text, 11, 2), minute = number(text, 14, 2);
    const auto second = number(text, 17, 2);
    if (!year || !month || !day || !hour || !minute || !second) return std::nullopt;
    const std::chrono::year_month_day date{std::chrono::year(*year),
                                           std::chrono::month(static_cast<unsigned>(*month)),
                                           std::chrono::day(static_cast<unsigned>(*day))};
    if (!date.ok() || *hour > 23 || *minute > 59 || *second > 60) return std::nullopt;
    std::string_view rest = text.substr(19);
    auto fraction = std::chrono::microseconds(0);
    if (rest.front() == '.') {
        rest.remove_prefix(1);
        std::chrono::microseconds unit = std::chrono::milliseconds(100);
        if (rest.empty() || rest.front() < '0' || rest.front() > '9') return std::nullopt;
        while (!rest.empty() && rest.front() >= '0' && rest.front() <= '9') {
            fraction += unit * (rest.front() - '0');
            unit /= 10;
            rest.remove_prefix(1);
        }
    }
    std::chrono::minutes offset(0);
    if (rest != "Z") {
        if (rest.size() < 3 || (rest[0] != '+' && rest[0] != '-')) return std::nullopt;
        const auto hours = number(rest, 1, 2);
        if (!hours) return std::nullopt;
        offset = std::chrono::hours(*hours);
        if (rest.size() > 3) {
            const auto minutes = number(rest, rest[3] == ':' ? 4 : 3, 2);
            if (!minutes || rest.size() != (rest[3] == ':' ? 6U : 5U)) return std::nullopt;
            offset += std::chrono::minutes(*minutes);
        }
        if (rest[0] == '-') offset = -offset;
    }
    return std::chrono::sys_days(date) + std::chrono::hours(*hour) + std::chrono::minutes(*minute) +
           std::chrono::seconds(*second) + fraction - offset;
}

Look look_of_output() {
    Look look;
    look.now = std::chrono::system_clock::now();
    look.terminal = isatty(STDOUT_FILENO) != 0;
    if (!look.terminal) return look;
    const auto variable = [](const char* name) {
        const char* value = std::getenv(name);
        return value == nullptr ? std::string_view() : std::string_view(value);
    };
    look.colour = variable("NO_COLOR").empty() && variable("TERM") != "dumb";
    winsize size{};
    look.width = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0
                     ? std::size_t{size.ws_col}
                     : 80;
    return look;
}

}  // namespace pgchaperone::cli
