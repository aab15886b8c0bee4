#include "policy/analyzer_constant.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>

namespace pgchaperone::policy {

namespace {

std::string lower(std::string_view text) {
    std::string out(text);
    std::transform(out.begin(), out.end(), out.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return out;
}

std::string_view trimmed(std::string_view text) {
    constexpr std::string_view space = " \t\n\r\f\v";
    const auto first = text.find_first_not_of(space);
    if (first == std::string_view::npos) {
        return {};
    }
    return text.substr(first, text.find_last_not_of(space) - first + 1);
}

std::optional<long double> parse_number(std::string_view text) {
    const std::string copy(trimmed(text));
    if (copy.empty()) {
        return std::nullopt;
    }
    char* end = nullptr;
    const long double value = std::strtold(copy.c_str(), &end);
    if (*end != '\0') {
        return std::nullopt;
    }
    return value;
}

// LIKE with its default escape, on bytes: a `_` beside a non-ASCII text is left alone.
std::optional<bool> like(std::string_view text, std::string_view pattern) {
    if (pattern.find('\\') != std::string_view::npos ||
        std::any_of(text.begin(), text.end(), [](char c) { return (c & 0x80) != 0; })) {
        return std::nullopt;
    }
    std::size_t at = 0;
    std::size_t p = 0;
    std::size_t star = std::string_view::npos;
    std::size_t mark = 0;
    while (at < text.size()) {
        if (p < pattern.size() && pattern[p] == '%') {
            star = p++;
            mark = at;
        } else if (p < pattern.size() && (pattern[p] == '_' || pattern[p] == text[at])) {
            ++p;
            ++at;
        } else if (star != std::string_view::npos) {
            p = star + 1;
            at = ++mark;
        } else {
            return false;
        }
    }
    while (p < pattern.size() && pattern[p] == '%') {
        ++p;
    }
    return p == pattern.size();
}

std::optional<Constant> arithmetic(std::string_view op, long double left, long double right) {
    constexpr long double exact = 9.0e15L;  // beyond, the server's types matter
    long double result = 0;
    if (op == "+") {
        result = left + right;
    } else if (op == "-") {
        result = left - right;
    } else if (op == "*") {
        result = left * right;
    } else if (op == "%" && right != 0) {
        result = std::fmod(left, right);
    } else {
        return std::nullopt;  // division depends on the types
    }
    if (!std::isfinite(result) || std::fabs(result) > exact) {
        return std::nullopt;
    }
    return Constant::make(result);
}

}  // namespace

std::optional<Constant> literal(const JsonObject& a_const) {
    if (flag_field(a_const, "isnull")) {
        return Constant::make_null();
    }
    if (const auto value = object_field(a_const, "boolval")) {
        return Constant::make(flag_field(*value, "boolval"));
    }
    if (const auto value = object_field(a_const, "ival")) {
        return Constant::make(static_cast<long double>(number_field(*value, "ival")));
    }
    if (const auto value = object_field(a_const, "fval")) {
        const auto number = parse_number(text_field(*value, "fval"));
        return number ? std::optional(Constant::make(*number)) : std::nullopt;
    }
    if (const auto value = object_field(a_const, "sval")) {
        return Constant::make(text_field(*value, "sval"), true);
    }
    return std::nullopt;
}

std::optional<Constant> to_boolean(const Constant& value) {
    switch (value.kind) {
        case Constant::Kind::null:
        case Constant::Kind::boolean: return value;
        case Constant::Kind::number: return Constant::make(value.number != 0);
        case Constant::Kind::text: break;
    }
    // The server takes any unambiguous beginning of true, false, yes, no, on, off, and 1 and 0.
    const std::string word = lower(trimmed(value.text));
    const auto begins = [&](std::string_view whole, std::size_t least) {
        return word.size() >= least && whole.substr(0, word.size()) == word;
    };
    if (begins("true", 1) || begins("yes", 1) || begins("on", 2) || word == "1") {
        return Constant::make(true);
    }
    if (begins("false", 1) || begins("no", 1) || begins("off", 2) || word == "0") {
        return Constant::make(false);
    }
    return std::nullopt;
}

std::optional<Constant> to_number(const Constant& value) {
    switch (value.kind) {
        case Constant::Kind::null:
        case Constant::Kind::number: return value;
        case Constant::Kind::boolean: return Constant::make(value.boolean ? 1.0L : 0.0L);
        case Constant::Kind::text: break;
    }
    const auto number = parse_number(value.text);
    return number ? std::optional(Constant::make(*number)) : std::nullopt;
}

std::optional<Constant> cast(const Constant& value, const JsonObject& type_name) {
    std::string_view name;
    std::string_view schema = "pg_catalog";
    std::size_t parts = 0;
    for (const Json part : items_field(type_name, "names")) {
        if (parts++ > 0) {
            schema = name;
        }
        name = string_value(part);
    }
    if (schema != "pg_catalog" || !items_field(type_name, "arrayBounds").empty()) {
        return std::nullopt;
    }
    if (value.is_null()) {
        return value;
    }
    if (name == "bool") {
        return to_boolean(value);
    }
    const bool integer = name == "int2" || name == "int4" || name == "int8";
    if (integer || ((name == "numeric" || name == "float4" || name == "float8") &&
                    items_field(type_name, "typmods").empty())) {
        auto number = to_number(value);
        if (number && integer) {
            number->number = std::nearbyint(number->number);
        }
        return number;
    }
    if ((name == "text" || name == "varchar") && items_field(type_name, "typmods").empty() &&
        value.kind == Constant::Kind::text) {
        return Constant::make(value.text, false);
    }
    return std::nullopt;
}

std::optional<int> compare(const Constant& left, const Constant& right) {
    using Kind = Constant::Kind;
    if (left.kind == Kind::text && right.kind == Kind::text) {
        return left.text == right.text ? 0 : left.text < right.text ? -1 : 1;
    }
    if (left.kind == Kind::boolean || right.kind == Kind::boolean) {
        if ((left.kind == Kind::number) || (right.kind == Kind::number)) {
            return std::nullopt;  // the server has no such comparison
        }
        const auto a = to_boolean(left);
        const auto b = to_boolean(right);
        if (!a || !b) {
            return std::nullopt;
        }
        return static_cast<int>(a->boolean) - static_cast<int>(b->boolean);
    }
    const auto a = to_number(left);
    const auto b = to_number(right);
    if (!a || !b || std::isnan(a->number) || std::isnan(b->number)) {
        return std::nullopt;
    }
    return a->number == b->number ? 0 : a->number < b->number ? -1 : 1;
}

std::optional<Constant> apply(std::string_view op, const Constant& left, const Constant& right) {
    if (left.is_null() || right.is_null()) {
        // Not for || and the operators of JSON and arrays, which do not all pass a NULL on.
        constexpr std::array strict = {
            "=", "<>", "!=", "<", ">", "<=", ">=", "+", "-", "*", "/", "%"};
        return std::find(strict.begin(), strict.end(), op) != strict.end()
                   ? std::optional(Constant::make_null())
                   : std::nullopt;
    }
    if (op == "=" || op == "<>" || op == "!=") {
        const auto order = compare(left, right);
        if (!order) {
            return std::nullopt;
        }
        return Constant::make((*order == 0) == (op == "="));
    }
    if (op == "<" || op == ">" || op == "<=" || op == ">=") {
        const auto order = compare(left, right);
        // The order of texts is the collation's business.
        if (!order || (left.kind == Constant::Kind::text && right.kind == Constant::Kind::text &&
                       *order != 0)) {
            return std::nullopt;
        }
        return Constant::make(*order == 0 ? op.size() == 2 : (*order < 0) == (op[0] == '<'));
    }
    if (left.kind == Constant::Kind::text && right.kind == Constant::Kind::text) {
        if (op == "||") {
            return Constant::make(left.text + right.text, false);
        }
        if (op == "~~" || op == "!~~") {
            const auto matches = like(left.text, right.text);
            return matches ? std::optional(Constant::make(*matches == (op == "~~"))) : std::nullopt;
        }
        return std::nullopt;
    }
    const auto a = to_number(left);
    const auto b = to_number(right);
    if (!a || !b || left.kind == Constant::Kind::boolean || right.kind == Constant::Kind::boolean) {
        return std::nullopt;
    }
    return arithmetic(op, a->number, b->number);
}

bool matches_everything_like(std::string_view pattern) {
    return !pattern.empty() && pattern.find_first_not_of('%') == std::string_view::npos;
}

bool matches_everything_regex(std::string_view pattern) {
    // Anchors, dots, quantifiers and groups alone ask nothing of the text; "|x" has an empty
    // branch.
    std::string rest(pattern);
    constexpr std::array<std::string_view, 7> any = {"[\\s\\S]", "[\\S\\s]", "[\\d\\D]", "[\\D\\d]",
                                                     "[\\w\\W]", "[\\W\\w]", "***:"};
    for (const auto part : any) {
        for (auto at = rest.find(part); at != std::string::npos; at = rest.find(part)) {
            rest.replace(at, part.size(), ".");
        }
    }
    if (rest.starts_with("(?") && rest.find(')') != std::string::npos) {
        rest.erase(0, rest.find(')') + 1);  // embedded options
    }
    if (rest.find_first_not_of("^$.*+?()|{}0,") == std::string::npos) {
        return rest != "^$" && rest != "$^";
    }
    if (rest.front() == '|' || rest.back() == '|' || rest.find("||") != std::string::npos) {
        return true;
    }
    // One atom and a quantifier that allows none of it: "x*", "[a-z]?", "\\d*".
    if (rest.size() == 3 && rest[0] == '\\' && (rest[2] == '*' || rest[2] == '?')) {
        return true;
    }
    if (rest.size() == 2 && (rest[1] == '*' || rest[1] == '?')) {
        return true;
    }
    const auto close = rest.find(']');
    return rest.front() == '[' && close != std::string::npos && close + 2 == rest.size() &&
           (rest.back() == '*' || rest.back() == '?');
}

}  // namespace pgchaperone::policy
