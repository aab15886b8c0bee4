#include "config/connection_string.h"

#include <libpq-fe.h>

#include <algorithm>
#include <memory>
#include <vector>

namespace pgchaperone::config {
namespace {

constexpr std::string_view hidden = "********";

bool is_uri(std::string_view text) {
    return text.starts_with("postgresql://") || text.starts_with("postgres://");
}

// libpq's reading of `name = 'value'`: where the value that begins at `at` ends.
std::size_t end_of_value(std::string_view text, std::size_t at) {
    const bool quoted = at < text.size() && text[at] == '\'';
    for (std::size_t i = at + (quoted ? 1 : 0); i < text.size(); ++i) {
        if (text[i] == '\\') {
            ++i;
        } else if (quoted ? text[i] == '\'' : text[i] == ' ') {
            return quoted ? i + 1 : i;
        }
    }
    return text.size();
}

// What libpq makes of it; null: it can't be read.
using Parts = std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)>;
Parts parse(std::string_view text) {
    char* error = nullptr;
    Parts parts(PQconninfoParse(std::string(text).c_str(), &error), &PQconninfoFree);
    // It quotes what it does not understand.
    PQfreemem(error);
    return parts;
}

// Of all options that have this name or end with it.
std::vector<std::string> values(const Parts& parts, std::string_view name) {
    std::vector<std::string> out;
    for (const PQconninfoOption* one = parts.get(); one != nullptr && one->keyword != nullptr;
         ++one) {
        if (one->val != nullptr && std::string_view(one->keyword).ends_with(name))
            out.emplace_back(one->val);
    }
    return out;
}

bool is_list_of_numbers(const std::string& text) {
    return text.find_first_not_of("0123456789, ") == std::string::npos;
}

// The same text with its passwords covered, as far as they are where one looks for them.
std::string covered(std::string_view store) {
    std::string out(store);
    if (const auto scheme = out.find("://"); scheme != std::string::npos) {
        // postgresql://user:password@host/database?password=...
        const auto authority = scheme + 3;
        const auto end = std::min(out.find_first_of("/?", authority), out.size());
        const auto at = out.rfind('@', end);
        const auto colon = out.find(':', authority);
        if (at != std::string::npos && at > authority && colon < at) {
            out.replace(colon + 1, at - colon - 1, hidden);
        }
    }
    for (std::size_t at = 0; (at = out.find("password", at)) != std::string::npos;) {
        at += std::string_view("password").size();
        std::size_t value = out.find_first_not_of(' ', at);
        if (value == std::string::npos || out[value] != '=') continue;
        value = out.find_first_not_of(' ', value + 1);
        if (value == std::string::npos) break;
        const bool uri = out.find("://") != std::string::npos;
        const auto end = uri ? std::min(out.find('&', value), out.size())
                             : end_of_value(out, value);
        out.replace(value, end - value, hidden);
        at = value + hidden.size();
    }
    return out;
}

}  // namespace

bool is_connection_string(std::string_view store) {
    return store.starts_with("postgresql://") || store.starts_with("postgres://") ||
           store.find('=') != std::string_view::npos;
}

std::optional<std::string> problem_of_connection_string(std::string_view text) {
    const Parts parts = parse(text);
    if (!parts)
        return is_uri(text)
                   ? "libpq can't read this URI; a password is to be percent-encoded: %40 for "
                     "an @, %2F for a slash, %25 for a percent sign"
                   : "libpq can't read this connection string; a value with spaces or "
                     "quotes is to stand in single quotes: password='two words'";
    for (const std::string& ports : values(parts, "port")) {
        if (!is_list_of_numbers(ports))
            return "the port is no number; a password with a colon, a slash or an @ is to be "
                   "percent-encoded: %3A, %2F, %40";
    }
    for (const char* const name : {"host", "hostaddr", "dbname"}) {
        for (const std::string& value : values(parts, name)) {
            if (is_uri(text) && value.find('@') != std::string::npos)
                return std::string(name) +
                       " has an @; where it belongs to the password it is to be percent-encoded: "
                       "%40";
        }
    }
    return std::nullopt;
}

std::string without_password(std::string_view store) {
    if (!is_connection_string(store)) return std::string(store);
    std::string out = covered(store);
    const Parts parts = parse(store);
    if (!parts) return std::string(is_uri(store) ? "postgresql://" : "") + std::string(hidden);
    for (const std::string& password : values(parts, "password")) {
        if (!password.empty() && out.find(password) != std::string::npos)
            return std::string(hidden);
    }
    return out;
}

}  // namespace pgchaperone::config
