#include "config/values.h"

#include "config/problems.h"

#include <algorithm>
#include <charconv>
#include <limits>

namespace pgchaperone::config {
namespace {

std::string quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }

template <class T>
bool whole(std::string_view digits, T& value) {
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return error == std::errc() && end == digits.data() + digits.size() && !digits.empty();
}

std::string lower(std::string_view text) {
    std::string out(text);
    for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    return out;
}

struct Unit {
    std::string_view name;
    std::int64_t milliseconds;
};
constexpr Unit units[] = {{"ms", 1},       {"s", 1000},      {"m", 60'000},
                          {"min", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}};

// The largest first.
struct SizeUnit {
    std::string_view name;
    std::uint64_t bytes;
};
constexpr SizeUnit size_units[] = {
    {"TB", 1ULL << 40}, {"GB", 1ULL << 30}, {"MB", 1ULL << 20}, {"kB", 1ULL << 10}};

}  // namespace

Parsed<Endpoint> parse_endpoint(std::string_view text) {
    const PatternError wrong{
        quoted(text) +
        " is not an address; write host:port, [IPv6]:port or /directory/of/the/socket:port"};
    Endpoint endpoint;
    std::string_view host = text;
    std::string_view port;
    bool has_port = false;
    if (!text.empty() && text.front() == '[') {
        const auto close = text.find(']');
        if (close == std::string_view::npos) return wrong;
        host = text.substr(1, close - 1);
        const auto rest = text.substr(close + 1);
        if (!rest.empty()) {
            if (rest.front() != ':') return wrong;
            port = rest.substr(1);
            has_port = true;
        }
    } else if (const auto colon = text.rfind(':'); colon != std::string_view::npos) {
        host = text.substr(0, colon);
        port = text.substr(colon + 1);
        has_port = true;
        if (host.find(':') != std::string_view::npos) {
            return PatternError{
                quoted(text) +
                " is not clear: write an IPv6 address in brackets, such as [::1]:5432"};
        }
    }
    if (host.empty() || host.find_first_of(" \t\n") != std::string_view::npos) return wrong;
    if (host.find_first_not_of("0123456789") == std::string_view::npos) {
        return PatternError{quoted(text) +
                            " names no host, only a number; write host:port, such as 127.0.0.1:" +
                            std::string(has_port ? port : host)};
    }
    endpoint.host = host;
    endpoint.port = 5432;
    if (has_port) {
        unsigned number = 0;
        if (!whole(port, number) || number == 0 || number > 65535) {
            return PatternError{"the port in " + quoted(text) +
                                " must be a number from 1 to 65535"};
        }
        endpoint.port = static_cast<std::uint16_t>(number);
    }
    return endpoint;
}

Parsed<std::chrono::milliseconds> parse_duration(std::string_view text) {
    const auto end = std::find_if_not(text.begin(), text.end(),
                                      [](char c) { return c >= '0' && c <= '9'; });
    const auto digits = text.substr(0, static_cast<std::size_t>(end - text.begin()));
    auto unit = text.substr(digits.size());
    while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
    std::int64_t number = 0;
    if (whole(digits, number)) {
        for (const Unit& known : units) {
            if (unit != known.name) continue;
            // A year is more than anything here waits for, and far from any overflow.
            if (number > 365 * 86'400'000LL / known.milliseconds) {
                return PatternError{quoted(text) + " is longer than a year"};
            }
            return std::chrono::milliseconds(number * known.milliseconds);
        }
    }
    return PatternError{quoted(text) +
                        " is not a duration; write a number with its unit: 500ms, 60s, 5m, 2h"};
}

std::string duration_text(std::chrono::milliseconds duration) {
    const std::int64_t count = duration.count();
    for (const Unit& unit : {Unit{"h", 3'600'000}, Unit{"m", 60'000}, Unit{"s", 1000}}) {
        if (count != 0 && count % unit.milliseconds == 0) {
            return std::to_string(count / unit.milliseconds) + std::string(unit.name);
        }
    }
    return std::to_string(count) + "ms";
}

Parsed<std::uint64_t> parse_size(std::string_view text) {
    const auto end = std::find_if_not(text.begin(), text.end(),
                                      [](char c) { return c >= '0' && c <= '9'; });
    const auto digits = text.substr(0, static_cast<std::size_t>(end - text.begin()));
    auto unit = text.substr(digits.size());
    while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
    std::uint64_t number = 0;
    if (whole(digits, number)) {
        if (unit.empty()) return number;
        for (const SizeUnit& known : size_units) {
            if (lower(unit) != lower(known.name)) continue;
            if (number > std::numeric_limits<std::int64_t>::max() / known.bytes)
                return PatternError{quoted(text) + " is more than any disk holds"};
            return number * known.bytes;
        }
    }
    return PatternError{quoted(text) +
                        " is not a size; write a number of bytes, or one with a unit: 64kB, "
                        "100MB, 2GB"};
}

std::string size_text(std::uint64_t bytes) {
    for (const SizeUnit& unit : size_units) {
        if (bytes != 0 && bytes % unit.bytes == 0)
            return std::to_string(bytes / unit.bytes) + std::string(unit.name);
    }
    return std::to_string(bytes);
}

Parsed<std::uint64_t> parse_count(std::string_view text, std::uint64_t lowest,
                                  std::uint64_t highest) {
    std::string digits;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool between = i > 0 && i + 1 < text.size();
        if (!(between && (text[i] == '_' || text[i] == ','))) digits += text[i];
    }
    std::uint64_t value = 0;
    if (!whole(std::string_view(digits), value) || value < lowest || value > highest) {
        const std::string range = highest == std::numeric_limits<std::uint64_t>::max()
                                      ? std::to_string(lowest) + " or more"
                                      : "from " + std::to_string(lowest) + " to " +
                                            std::to_string(highest);
        return PatternError{quoted(text) + " must be a whole number, " + range};
    }
    return value;
}

Parsed<bool> parse_flag(std::string_view text) {
    const std::string word = lower(text);
    if (word == "true" || word == "yes" || word == "on") return true;
    if (word == "false" || word == "no" || word == "off") return false;
    return PatternError{quoted(text) + " must be true or false"};
}

std::string one_of(const std::vector<std::string>& words) {
    std::string out;
    for (std::size_t i = 0; i < words.size(); ++i) {
        if (i > 0) out += i + 1 == words.size() ? " or " : ", ";
        out += words[i];
    }
    return out;
}

Parsed<std::size_t> parse_word(std::string_view text, const std::vector<std::string>& words) {
    const auto at = std::find(words.begin(), words.end(), text);
    if (at != words.end()) return static_cast<std::size_t>(at - words.begin());
    std::string message = quoted(text) + " must be " + one_of(words);
    const std::string hint = did_you_mean(text, words);
    return PatternError{hint.empty() ? message : message + "; " + hint};
}

}  // namespace pgchaperone::config
