#include "policy/analyzer_judge.h"

#include <array>
#include <cctype>
#include <iterator>

namespace pgchaperone::policy::bounds {

namespace {

bool equals_no_case(std::string_view text, std::string_view lower) {
    return text.size() == lower.size() &&
           std::equal(text.begin(), text.end(), lower.begin(), [](char a, char b) {
               return std::tolower(static_cast<unsigned char>(a)) == b;
           });
}

// "(,)", also with spaces, square brackets, and as the only one of a multirange.
bool is_endless_range(std::string_view text) {
    std::string plain;
    std::copy_if(text.begin(), text.end(), std::back_inserter(plain),
                 [](char c) { return c != ' ' && c != '{' && c != '}'; });
    return plain.size() == 3 && plain[1] == ',';
}

}  // namespace

std::optional<Constant> Judge::fold_operator(const JsonObject& body) {
    const auto kind = text_field(body, "kind");
    const auto left = field(body, "lexpr");
    const auto right = field(body, "rexpr");
    if (!right) {
        return std::nullopt;
    }
    const auto op = last_name(items_field(body, "name"));
    if (!left) {
        const auto value = fold(*right);
        if (value && value->kind == Constant::Kind::number && (op == "-" || op == "+")) {
            return Constant::make(op == "-" ? -value->number : value->number);
        }
        return std::nullopt;
    }
    if (kind != "AEXPR_OP" && kind != "AEXPR_LIKE" && kind != "AEXPR_DISTINCT" &&
        kind != "AEXPR_NOT_DISTINCT" && kind != "AEXPR_NULLIF") {
        return std::nullopt;
    }
    const auto a = fold(*left);
    const auto b = fold(*right);
    if (kind == "AEXPR_DISTINCT" || kind == "AEXPR_NOT_DISTINCT") {
        if (a && b) {
            if (a->is_null() || b->is_null()) {
                return Constant::make((a->is_null() != b->is_null()) == (kind == "AEXPR_DISTINCT"));
            }
            const auto order = compare(*a, *b);
            return order
                       ? std::optional(Constant::make((*order != 0) == (kind == "AEXPR_DISTINCT")))
                       : std::nullopt;
        }
    } else if (kind == "AEXPR_NULLIF") {
        if (a && b && !a->is_null() && !b->is_null()) {
            const auto order = compare(*a, *b);
            return !order ? std::nullopt : *order == 0 ? std::optional(Constant::make_null()) : a;
        }
        return a && (a->is_null() || (b && b->is_null())) ? a : std::nullopt;
    } else {
        if (a && b) {
            return apply(op, *a, *b);
        }
        if ((a && a->is_null()) || (b && b->is_null())) {
            return apply(op, a ? *a : Constant::make_null(), b ? *b : Constant::make_null());
        }
        const auto zero = [](const std::optional<Constant>& value) {
            return value && value->kind == Constant::Kind::number && value->number == 0;
        };
        if ((op == "*" || op == "&") && (zero(a) || zero(b))) {
            return Constant::make(0.0L);
        }
        if (op == "%" && b && b->kind == Constant::Kind::number &&
            (b->number == 1 || b->number == -1)) {
            return Constant::make(0.0L);
        }
    }
    // The same value on both sides (a null apart).
    if (!a && !b) {
        const bool says_equal = op == "=" || op == "<=" || op == ">=";
        const bool says_other = op == "<>" || op == "<" || op == ">";
        const bool difference = op == "-" || op == "#";
        if ((says_equal || says_other || difference || op == "/") && kind != "AEXPR_LIKE") {
            const auto found = dependencies(*left);
            if (!found.nothing() && !found.is_volatile && canonical(*left) == canonical(*right)) {
                if (kind == "AEXPR_DISTINCT" || kind == "AEXPR_NOT_DISTINCT") {
                    return Constant::make(kind == "AEXPR_NOT_DISTINCT");
                }
                return difference  ? Constant::make(0.0L)
                       : op == "/" ? Constant::make(1.0L)
                                   : Constant::make(says_equal);
            }
        }
    }
    return std::nullopt;
}

std::optional<Constant> Judge::fold(const Json& expression) {
    const auto node = as_node(expression);
    if (!node || !spend()) {
        return std::nullopt;
    }
    const JsonObject& body = node->body;
    if (node->type == "A_Const") {
        return literal(body);
    }
    if (node->type == "A_Expr") {
        return fold_operator(body);
    }
    if (node->type == "TypeCast") {
        const auto argument = field(body, "arg");
        const auto type = object_field(body, "typeName");
        const auto value = argument ? fold(*argument) : std::nullopt;
        return value && type ? cast(*value, *type) : std::nullopt;
    }
    if (node->type == "BoolExpr") {
        const auto op = text_field(body, "boolop");
        bool unknown = false;
        bool has_null = false;
        for (const Json argument : items_field(body, "args")) {
            auto value = fold(argument);
            if (value) {
                value = to_boolean(*value);
            }
            if (!value) {
                unknown = true;
            } else if (value->is_null()) {
                has_null = true;
            } else if (op == "NOT_EXPR") {
                return Constant::make(!value->boolean);
            } else if (value->boolean == (op == "OR_EXPR")) {
                return value;  // decides, whatever the others say
            }
        }
        if (unknown) {
            return std::nullopt;
        }
        return has_null ? Constant::make_null() : Constant::make(op == "AND_EXPR");
    }
    if (node->type == "NullTest") {
        const auto argument = field(body, "arg");
        const auto value = argument ? fold(*argument) : std::nullopt;
        if (!value) {
            return std::nullopt;
        }
        return Constant::make(value->is_null() == (text_field(body, "nulltesttype") == "IS_NULL"));
    }
    if (node->type == "CoalesceExpr") {
        for (const Json argument : items_field(body, "args")) {
            const auto value = fold(argument);
            if (!value || !value->is_null()) {
                return value;
            }
        }
        return Constant::make_null();
    }
    if (node->type == "CaseExpr") {
        return fold_case(body);
    }
    if (node->type == "FuncCall") {
        return fold_range(body);
    }
    return std::nullopt;
}

// int4range(NULL, NULL) and the like: '(,)', the range that contains everything.
std::optional<Constant> Judge::fold_range(const JsonObject& body) {
    constexpr std::array makers = {"int4range", "int8range", "numrange",
                                   "daterange", "tsrange",   "tstzrange"};
    const auto name = last_name(items_field(body, "funcname"));
    if (std::find(makers.begin(), makers.end(), name) == makers.end()) {
        return std::nullopt;
    }
    std::size_t at = 0;
    for (const Json argument : items_field(body, "args")) {
        const auto value = under_casts(argument, fold(argument));
        const bool endless = value &&
                             (value->is_null() ||
                              equals_no_case(value->text, at == 0 ? "-infinity" : "infinity"));
        if (at < 2 && !endless) {
            return std::nullopt;
        }
        ++at;
    }
    return at >= 2 ? std::optional(Constant::make(std::string_view("(,)"), true)) : std::nullopt;
}

std::optional<Constant> Judge::fold_case(const JsonObject& body) {
    // The branch that is known to be taken; or else what all branches have in common.
    const bool searched = !field(body, "arg");
    bool undecided = !searched;
    std::optional<Constant> common;
    const auto joins = [&](const std::optional<Constant>& value) {
        if (!value || value->is_null() || (common && compare(*common, *value) != 0)) {
            return false;
        }
        common = value;
        return true;
    };
    for (const Json item : items_field(body, "args")) {
        const auto when = as_node(item);
        const auto test = when ? field(when->body, "expr") : std::nullopt;
        const auto result = when ? field(when->body, "result") : std::nullopt;
        auto truth = test && searched ? fold(*test) : std::nullopt;
        if (truth) {
            truth = to_boolean(*truth);
        }
        if (truth && !truth->is_true()) {
            continue;
        }
        const auto value = result ? fold(*result) : std::nullopt;
        if (truth && !undecided) {
            return value;
        }
        undecided = true;
        if (!joins(value)) {
            return std::nullopt;
        }
        if (truth) {
            return common;
        }
    }
    const auto otherwise = field(body, "defresult");
    const auto value = otherwise ? fold(*otherwise) : Constant::make_null();
    if (!undecided) {
        return value;
    }
    return joins(value) ? common : std::nullopt;
}

// The pattern of LIKE, SIMILAR TO or a regular expression, also behind an ESCAPE.
std::optional<Constant> Judge::pattern(const Json& expression) {
    const auto node = as_node(expression);
    if (node && node->type == "FuncCall") {
        const auto name = last_name(items_field(node->body, "funcname"));
        if (name == "similar_to_escape" || name == "like_escape" || name == "similar_escape") {
            for (const Json argument : items_field(node->body, "args")) {
                return fold(argument);
            }
        }
    }
    return fold(expression);
}

// 'infinity'::timestamptz: the type is not known here, but what the literal means in it may be.
std::optional<Constant> Judge::under_casts(const Json& expression,
                                           const std::optional<Constant>& folded) {
    if (folded) {
        return folded;
    }
    const auto node = as_node(expression);
    const auto argument = node && node->type == "TypeCast" ? field(node->body, "arg")
                                                           : std::nullopt;
    return argument ? under_casts(*argument, fold(*argument)) : std::nullopt;
}

// COALESCE($1, id) compared with id: the alternative is the row itself.
bool Judge::falls_back_to(const Json& expression, const Json& value) {
    const auto node = as_node(expression);
    if (!node) {
        return false;
    }
    const std::string wanted = canonical(value);
    if (node->type == "CoalesceExpr" || node->type == "MinMaxExpr") {
        for (const Json argument : items_field(node->body, "args")) {
            if (canonical(argument) == wanted || falls_back_to(argument, value)) {
                return true;
            }
        }
    }
    if (node->type == "CaseExpr") {
        for (const Json item : items_field(node->body, "args")) {
            const auto when = as_node(item);
            const auto result = when ? field(when->body, "result") : std::nullopt;
            if (result && canonical(*result) == wanted) {
                return true;
            }
        }
        const auto otherwise = field(node->body, "defresult");
        return otherwise && canonical(*otherwise) == wanted;
    }
    if (node->type == "TypeCast") {
        const auto argument = field(node->body, "arg");
        return argument && falls_back_to(*argument, value);
    }
    return false;
}

bool Judge::matches_all_values(std::string_view op, const std::optional<Constant>& right) {
    if (!right) {
        return false;
    }
    if (right->kind == Constant::Kind::text) {
        const std::string_view text = right->text;
        if (op == "~~" || op == "~~*") {
            return matches_everything_like(text);
        }
        if (op == "~" || op == "~*") {
            return matches_everything_regex(text);
        }
        if (op == "^@") {
            return text.empty();
        }
        if (op == ">=") {
            return text.empty() || equals_no_case(text, "-infinity") || text == "(0,0)" ||
                   text.ends_with(" BC");
        }
        if (op == ">") {
            return equals_no_case(text, "-infinity") || text == "(0,0)" || text.ends_with(" BC");
        }
        if (op == "<=" || op == "<") {
            return equals_no_case(text, "infinity");
        }
        if (op == "@>") {
            return text == "{}" || text == "[]" || equals_no_case(text, "empty") || text.empty();
        }
        if (op == "<@") {
            return is_endless_range(text);
        }
        if (op == "@?") {
            return text == "$";
        }
        return false;
    }
    if (right->kind == Constant::Kind::boolean) {
        return (op == ">=" && !right->boolean) || (op == "<=" && right->boolean);
    }
    if (right->kind != Constant::Kind::number) {
        return false;
    }
    constexpr long double int4_min = -2147483648.0L;
    constexpr long double int4_max = 2147483647.0L;
    if ((op == ">=" || op == ">") && right->number <= int4_min) {
        return true;
    }
    if ((op == "<=" || op == "<") && right->number >= int4_max) {
        return true;
    }
    return false;
}

bool Judge::always_empty(const JsonObject& select) {
    if (const auto left = object_field(select, "larg")) {
        const auto right = object_field(select, "rarg");
        const auto op = text_field(select, "op");
        if (op == "SETOP_UNION") {
            return always_empty(*left) && right && always_empty(*right);
        }
        return always_empty(*left) || (op == "SETOP_INTERSECT" && right && always_empty(*right));
    }
    if (const auto limit = field(select, "limitCount")) {
        const auto value = fold(*limit);
        if (value && value->kind == Constant::Kind::number && value->number == 0) {
            return true;
        }
    }
    if (is_one_aggregate(select)) {
        return false;
    }
    const auto where = field(select, "whereClause");
    auto value = where ? fold(*where) : std::nullopt;
    if (value) {
        value = to_boolean(*value);
    }
    return value && (value->is_null() || value->is_false());
}

}  // namespace pgchaperone::policy::bounds
