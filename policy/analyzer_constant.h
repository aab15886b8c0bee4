#pragma once
// Constants of SQL as far as folding needs them: null, boolean, number and text. What can't be
// folded without knowing the server's types or collations isn't.

#include "policy/parse_node.h"

#include <optional>
#include <string>
#include <string_view>

namespace pgchaperone::policy {

struct Constant {
    enum class Kind : std::uint8_t { null, boolean, number, text };
    Kind kind = Kind::null;
    bool boolean = false;
    long double number = 0;
    std::string text;
    bool untyped = false;  // a literal in quotes takes the type of what it meets

    static Constant make_null() { return {}; }
    static Constant make(bool value) { return {Kind::boolean, value, 0, {}, false}; }
    static Constant make(long double value) { return {Kind::number, false, value, {}, false}; }
    static Constant make(std::string_view value, bool is_untyped) {
        return {Kind::text, false, 0, std::string(value), is_untyped};
    }
    bool is_null() const { return kind == Kind::null; }
    bool is_true() const { return kind == Kind::boolean && boolean; }
    bool is_false() const { return kind == Kind::boolean && !boolean; }
};

// The value of an A_Const node's body.
std::optional<Constant> literal(const JsonObject& a_const);

// As the server reads a boolean ("t", "yes", "1" ...) or a number; nothing where it would refuse.
std::optional<Constant> to_boolean(const Constant& value);
std::optional<Constant> to_number(const Constant& value);

// CAST to the type named by the body of a TypeName; nothing for types that are not known here.
std::optional<Constant> cast(const Constant& value, const JsonObject& type_name);

// `op` is an operator's name: comparison, arithmetic, LIKE (~~). NULL in, NULL out.
std::optional<Constant> apply(std::string_view op, const Constant& left, const Constant& right);

// -1, 0, 1; nothing where the two can't be compared here.
std::optional<int> compare(const Constant& left, const Constant& right);

// True for patterns that match every text.
bool matches_everything_like(std::string_view pattern);
bool matches_everything_regex(std::string_view pattern);

}  // namespace pgchaperone::policy
