// Turns a condition into a Formula. What a Formula can't look into becomes a variable: of the row
// where it depends on the row, and the same one wherever the same expression stands.

#include "policy/analyzer_formula.h"
#include "policy/analyzer_judge.h"
#include "policy/functions_table.h"

#include <array>
#include <utility>

namespace pgchaperone::policy::bounds {

namespace {

using Op = Formula::Op;
using Index = Formula::Index;

struct OperatorMeaning {
    std::string_view op;
    Op meaning;
};

constexpr std::array operators = {
    OperatorMeaning{"=", Op::equal},          OperatorMeaning{"<>", Op::not_equal},
    OperatorMeaning{"<", Op::less},           OperatorMeaning{"<=", Op::less_or_equal},
    OperatorMeaning{">", Op::greater},        OperatorMeaning{">=", Op::greater_or_equal},
    OperatorMeaning{"+", Op::plus},           OperatorMeaning{"-", Op::minus},
    OperatorMeaning{"*", Op::times},          OperatorMeaning{"%", Op::modulo},
    OperatorMeaning{"^", Op::power},          OperatorMeaning{"&", Op::bit_and},
    OperatorMeaning{"|", Op::bit_or},         OperatorMeaning{"#", Op::bit_xor},
    OperatorMeaning{"<<", Op::shift_left},    OperatorMeaning{">>", Op::shift_right},
    OperatorMeaning{"||", Op::concat},        OperatorMeaning{"~~", Op::like},
    OperatorMeaning{"~~*", Op::like_no_case}, OperatorMeaning{"^@", Op::starts_with},
};

std::optional<Op> meaning_of(std::string_view op) {
    for (const OperatorMeaning& each : operators) {
        if (each.op == op) {
            return each.meaning;
        }
    }
    return std::nullopt;
}

// Functions whose results are known to lie between two numbers, whatever they are given.
struct KnownRange {
    std::string_view function;
    long double low;
    long double high;
};

constexpr long double endless = 1e30L;
constexpr std::array ranges = {KnownRange{"random", 0, 0.9999L},
                               KnownRange{"ascii", 0, endless},
                               KnownRange{"octet_length", 0, endless},
                               KnownRange{"bit_length", 0, endless},
                               KnownRange{"textlen", 0, endless},
                               KnownRange{"length", 0, endless},
                               KnownRange{"char_length", 0, endless},
                               KnownRange{"character_length", 0, endless},
                               KnownRange{"cardinality", 0, endless},
                               KnownRange{"array_length", 1, endless},
                               KnownRange{"array_ndims", 1, endless},
                               KnownRange{"pg_column_size", 1, endless},
                               KnownRange{"num_nulls", 0, endless},
                               KnownRange{"num_nonnulls", 0, endless},
                               KnownRange{"strpos", 0, endless},
                               KnownRange{"position", 0, endless},
                               KnownRange{"jsonb_array_length", 0, endless},
                               KnownRange{"json_array_length", 0, endless},
                               KnownRange{"sin", -1, 1},
                               KnownRange{"cos", -1, 1},
                               KnownRange{"exp", 0, endless},
                               KnownRange{"sqrt", 0, endless},
                               KnownRange{"bit_count", 0, endless},
                               KnownRange{"scale", 0, endless}};

// The fields of a date or time.
constexpr std::array fields = {KnownRange{"month", 1, 12},  KnownRange{"day", 1, 31},
                               KnownRange{"hour", 0, 23},   KnownRange{"minute", 0, 59},
                               KnownRange{"second", 0, 60}, KnownRange{"dow", 0, 6},
                               KnownRange{"isodow", 1, 7},  KnownRange{"quarter", 1, 4},
                               KnownRange{"doy", 1, 366},   KnownRange{"week", 1, 53}};

template <typename List>
const KnownRange* range_of(const List& list, std::string_view name) {
    for (const KnownRange& each : list) {
        if (each.function == name) {
            return &each;
        }
    }
    return nullptr;
}

bool is_zero(const std::optional<Constant>& value) {
    return value && value->kind == Constant::Kind::number && value->number == 0;
}

bool is_empty_text(const std::optional<Constant>& value) {
    return value && value->kind == Constant::Kind::text && value->text.empty();
}

std::vector<Json> list_of(const Items& items) {
    std::vector<Json> out;
    for (const Json item : items) {
        out.push_back(item);
    }
    return out;
}

// The elements of '{1,2,3}' as far as they are plain.
std::optional<std::vector<std::string>> array_elements(std::string_view text) {
    if (text.size() < 2 || text.front() != '{' || text.back() != '}' ||
        text.find_first_of("\"\\{}", 1) != text.size() - 1) {
        return std::nullopt;
    }
    std::vector<std::string> out;
    text = text.substr(1, text.size() - 2);
    while (!text.empty()) {
        const auto comma = text.find(',');
        std::string_view element = text.substr(0, comma);
        while (element.starts_with(' ')) element.remove_prefix(1);
        while (element.ends_with(' ')) element.remove_suffix(1);
        out.emplace_back(element);
        if (comma == std::string_view::npos) {
            break;
        }
        text.remove_prefix(comma + 1);
    }
    return out;
}

}  // namespace

// Writes one condition into one formula.
class FormulaWriter {
public:
    FormulaWriter(Judge& judge, Formula& formula) : judge_(judge), formula_(formula) {}

    Index condition(const Json& expression) { return write(expression); }
    Index all_of(std::vector<Index> parts) {
        return parts.size() == 1 ? parts.front() : formula_.node(Op::all, std::move(parts));
    }

private:
    Index write(const Json& expression);
    Index opaque(const Json& expression, const Formula::Limits& limits, std::string_view prefix);
    Index opaque(const Json& expression) { return opaque(expression, limits_of(expression), {}); }
    Index operation(const Json& expression, const JsonObject& body);
    Index comparison(std::string_view op, const Json& left, const Json& right, const Json& whole);
    Index with_array(std::string_view op, const Json& left, const Json& right, bool any,
                     const Json& whole);
    Index between(const JsonObject& body);
    Index boolean_test(const JsonObject& body);
    Index choice(const JsonObject& body);
    Index cast(const Json& expression, const JsonObject& body);
    Index sublink(const Json& expression, const JsonObject& body);
    Index function(const Json& expression, const JsonObject& body);
    Formula::Limits limits_of(const Json& expression);

    Index constant(bool value) { return formula_.constant(Constant::make(value)); }
    Index negation(Index index) { return formula_.node(Op::negation, {index}); }
    std::vector<Index> all(const Items& items) {
        std::vector<Index> out;
        for (const Json item : items) {
            out.push_back(write(item));
        }
        return out;
    }

    Judge& judge_;
    Formula& formula_;
    unsigned calls_by_chance_ = 0;
};

// A variable for something that is not looked into.
Index FormulaWriter::opaque(const Json& expression, const Formula::Limits& limits,
                            std::string_view prefix) {
    const Dependencies found = judge_.dependencies(expression);
    if (found.nothing() && !found.is_volatile) {
        if (const auto value = judge_.fold(expression)) {
            return formula_.constant(*value);
        }
    }
    std::string key(prefix);
    key += judge_.canonical(expression);
    if (found.is_volatile) {
        key += std::to_string(calls_by_chance_++);  // each call has a result of its own
    }
    const auto origin = found.may_differ_by_row() ? Formula::Origin::row
                        : found.is_volatile       ? Formula::Origin::chance
                                                  : Formula::Origin::outside;
    return formula_.variable(std::move(key), origin, limits);
}

Formula::Limits FormulaWriter::limits_of(const Json& expression) {
    Formula::Limits limits;
    auto node = as_node(expression);
    if (node && node->type == "SubLink" &&
        text_field(node->body, "subLinkType") == "EXPR_SUBLINK") {
        const auto select = node_field(node->body, "subselect");
        for (const Json item : select ? items_field(select->body, "targetList") : Items{}) {
            const auto target = as_node(item);
            node = target ? node_field(target->body, "val") : std::nullopt;
        }
        if (node && node->type == "FuncCall" &&
            last_name(items_field(node->body, "funcname")) == "count") {
            limits.number = true;
            limits.low = 0;
        }
        return limits;
    }
    if (!node || node->type != "FuncCall") {
        return limits;
    }
    const auto name = last_name(items_field(node->body, "funcname"));
    const std::vector<Json> arguments = list_of(items_field(node->body, "args"));
    const KnownRange* range = range_of(ranges, name);
    if ((name == "extract" || name == "date_part") && arguments.size() == 2) {
        const auto field = judge_.fold(arguments[0]);
        range = field ? range_of(fields, field->text) : nullptr;
    }
    if (range != nullptr) {
        limits.number = true;
        limits.low = range->low;
        limits.high = name.starts_with("num_n") ? static_cast<long double>(arguments.size())
                                                : range->high;
    }
    limits.not_empty = judge_.has_same_keys(expression) || name == "md5" ||
                       name == "gen_random_uuid" || name == "sha256";
    return limits;
}

Index FormulaWriter::comparison(std::string_view op, const Json& left, const Json& right,
                                const Json& whole) {
    if (const auto positive = positive_of(op); !positive.empty()) {
        return negation(comparison(positive, left, right, whole));
    }
    // What every value meets by the meaning of a literal: '-infinity', '%'.
    for (const bool mirrored : {false, true}) {
        const Json& own = mirrored ? right : left;
        const Json& other = mirrored ? left : right;
        const auto relation = mirrored ? mirror_of(op) : op;
        const auto value = judge_.under_casts(other, judge_.pattern(other));
        if ((mirrored && relation == op && op != "=") || !value) {
            continue;
        }
        if (judge_.matches_all_values(relation, value)) {
            return formula_.node(Op::holds, {write(own)});
        }
        if (judge_.matches_all_values(negation_of(relation), value)) {
            return negation(formula_.node(Op::holds, {write(own)}));
        }
    }
    const auto list = [](const Json& side) {
        const auto node = as_node(side);
        return node && node->type == "A_ArrayExpr";
    };
    if ((op == "@>" || op == "<@" || op == "&&") && list(left) && list(right)) {
        return op == "<@" ? formula_.node(Op::contains, {write(right), write(left)})
                          : formula_.node(op == "&&" ? Op::overlaps : Op::contains,
                                          {write(left), write(right)});
    }
    const auto meaning = meaning_of(op);
    const bool backslash = (op == "~~" || op == "~~*") && [&] {
        const auto value = judge_.fold(right);
        return !value || value->text.find('\\') != std::string::npos;
    }();
    if (!meaning || backslash) {
        // As a text, so that x ~ 'a' and NOT x !~ 'a' are the same thing.
        const Dependencies found = judge_.dependencies(whole);
        if (found.is_volatile) {
            return opaque(whole);
        }
        const auto key = std::string(op) + judge_.canonical(left) + judge_.canonical(right);
        const bool of_row = found.may_differ_by_row();
        return formula_.variable(key, of_row ? Formula::Origin::row : Formula::Origin::outside,
                                 Formula::Limits{});
    }
    const Index l = write(left);
    const Index r = write(right);
    return formula_.node(*meaning, {l, r});
}

Index FormulaWriter::with_array(std::string_view op, const Json& left, const Json& right, bool any,
                                const Json& whole) {
    auto node = as_node(right);
    if (node && node->type == "TypeCast") {
        if (const auto argument = node_field(node->body, "arg")) {
            node = argument;
        }
    }
    constexpr std::size_t most_elements = 256;
    std::vector<Index> parts;
    if (node && node->type == "A_ArrayExpr") {
        for (const Json element : items_field(node->body, "elements")) {
            if (parts.size() < most_elements) {
                parts.push_back(comparison(op, left, element, whole));
            }
        }
        return formula_.node(any ? Op::any : Op::all, std::move(parts));
    }
    if (node && node->type == "A_Const" && meaning_of(op)) {
        const auto value = literal(node->body);
        const auto elements = value ? array_elements(value->text) : std::nullopt;
        if (elements) {
            const Index own = write(left);
            for (const std::string& element : *elements) {
                if (parts.size() < most_elements) {
                    const Index other = formula_.constant(
                        Constant::make(std::string_view(element), true));
                    parts.push_back(formula_.node(*meaning_of(op), {own, other}));
                }
            }
            return formula_.node(any ? Op::any : Op::all, std::move(parts));
        }
    }
    // x <> ALL (a) is NOT x = ANY (a).
    const bool negated = op == "<>";
    const bool is_any = any != negated;
    const auto positive = negated ? std::string_view("=") : op;
    const Dependencies found = judge_.dependencies(whole);
    if (found.is_volatile) {
        return opaque(whole);
    }
    const auto key = std::string(is_any ? "ANY" : "ALL") + std::string(positive) +
                     judge_.canonical(left) + judge_.canonical(right);
    const bool of_row = found.may_differ_by_row();
    const Index one = formula_.variable(
        key, of_row ? Formula::Origin::row : Formula::Origin::outside, Formula::Limits{});
    return negated ? negation(one) : one;
}

Index FormulaWriter::between(const JsonObject& body) {
    const auto kind = text_field(body, "kind");
    const auto left = field(body, "lexpr");
    const auto right = field(body, "rexpr");
    const std::vector<Json> limits = list_of(right ? list_items(*right) : Items{});
    if (!left || limits.size() != 2) {
        return constant(false);
    }
    const bool negated = kind.starts_with("AEXPR_NOT_");
    Index both = 0;
    if (kind.ends_with("_SYM")) {
        const Index own = write(*left);
        const std::vector<Index> ends = {write(limits[0]), write(limits[1])};
        both = formula_.node(
            Op::all, {formula_.node(Op::greater_or_equal, {own, formula_.node(Op::least, ends)}),
                      formula_.node(Op::less_or_equal, {own, formula_.node(Op::greatest, ends)})});
    } else {
        both = formula_.node(Op::all, {comparison(">=", *left, limits[0], limits[0]),
                                       comparison("<=", *left, limits[1], limits[1])});
    }
    return negated ? negation(both) : both;
}

Index FormulaWriter::operation(const Json& expression, const JsonObject& body) {
    const auto kind = text_field(body, "kind");
    const auto op = last_name(items_field(body, "name"));
    const auto left = field(body, "lexpr");
    const auto right = field(body, "rexpr");
    if (!right) {
        return opaque(expression);
    }
    if (!left) {
        const Index only = write(*right);
        if (op == "-") return formula_.node(Op::negative, {only});
        if (op == "+") return only;
        if (op == "~") return formula_.node(Op::bit_not, {only});
        if (op == "@") return formula_.node(Op::absolute, {only});
        return opaque(expression);
    }
    if (kind == "AEXPR_OP_ANY" || kind == "AEXPR_OP_ALL") {
        return with_array(op, *left, *right, kind == "AEXPR_OP_ANY", expression);
    }
    if (kind == "AEXPR_IN") {
        constexpr std::size_t most_elements = 256;
        std::vector<Index> parts;
        for (const Json element : list_items(*right)) {
            if (parts.size() < most_elements) {
                parts.push_back(comparison("=", *left, element, expression));
            }
        }
        const Index any = formula_.node(Op::any, std::move(parts));
        return op == "<>" ? negation(any) : any;
    }
    if (kind.find("BETWEEN") != std::string_view::npos) {
        return between(body);
    }
    if (kind == "AEXPR_DISTINCT" || kind == "AEXPR_NOT_DISTINCT") {
        const Index distinct = formula_.node(Op::distinct, {write(*left), write(*right)});
        return kind == "AEXPR_DISTINCT" ? distinct : negation(distinct);
    }
    if (kind == "AEXPR_NULLIF") {
        return formula_.node(Op::nullif, {write(*left), write(*right)});
    }
    if (kind == "AEXPR_SIMILAR") {
        const Index similar = comparison("SIMILAR TO", *left, *right, expression);
        return op == "!~" ? negation(similar) : similar;
    }
    if (is_comparison(op) || kind != "AEXPR_OP" || op == "~" || op == "~*" ||
        !positive_of(op).empty() || op == "~~" || op == "~~*" || op == "^@" || op == "@>" ||
        op == "<@" || op == "&&") {
        return comparison(op, *left, *right, expression);
    }
    if (const auto meaning = meaning_of(op)) {
        // Two texts behind one another, a JSON without a key, a range and a range: as they are
        // used.
        return formula_.node(*meaning, {write(*left), write(*right)});
    }
    if (op == "?" || op == "?|" || op == "?&") {
        if (judge_.has_same_keys(*left)) {
            return constant(true);
        }
    }
    if (op == "/") {
        const auto by = judge_.fold(*right);
        if (by && by->kind == Constant::Kind::number && by->number == 1) {
            return write(*left);
        }
    }
    return opaque(expression);
}

Index FormulaWriter::boolean_test(const JsonObject& body) {
    const auto argument = field(body, "arg");
    const auto kind = text_field(body, "booltesttype");
    const Index inner = argument ? write(*argument) : constant(false);
    const Op op = kind.ends_with("TRUE")    ? Op::is_true
                  : kind.ends_with("FALSE") ? Op::is_false
                                            : Op::is_null;
    const Index test = formula_.node(op, {inner});
    return kind.starts_with("IS_NOT_") ? negation(test) : test;
}

Index FormulaWriter::choice(const JsonObject& body) {
    const auto subject = field(body, "arg");
    std::vector<Index> parts;
    for (const Json item : items_field(body, "args")) {
        const auto when = as_node(item);
        const auto test = when ? field(when->body, "expr") : std::nullopt;
        const auto result = when ? field(when->body, "result") : std::nullopt;
        if (!test || !result) {
            continue;
        }
        parts.push_back(subject ? comparison("=", *subject, *test, *test) : write(*test));
        parts.push_back(write(*result));
    }
    const auto otherwise = field(body, "defresult");
    parts.push_back(otherwise ? write(*otherwise) : formula_.constant(Constant::make_null()));
    return formula_.node(Op::choice, std::move(parts));
}

Index FormulaWriter::cast(const Json& expression, const JsonObject& body) {
    const auto argument = field(body, "arg");
    const auto type = object_field(body, "typeName");
    if (!argument || !type || !items_field(*type, "arrayBounds").empty()) {
        return opaque(expression);
    }
    const auto name = last_name(items_field(*type, "names"));
    const bool sized = !items_field(*type, "typmods").empty();
    if (name == "bool") {
        return formula_.node(Op::to_boolean, {write(*argument)});
    }
    if (name == "int2" || name == "int4" || name == "int8" || name == "float4" ||
        name == "float8" || (name == "numeric" && !sized)) {
        return formula_.node(Op::to_number, {write(*argument)});
    }
    if ((name == "text" || name == "varchar") && !sized) {
        // The text of a whole row begins with a bracket, and that of a place in the table too.
        const auto column = as_node(*argument);
        const bool bracket = judge_.is_whole_row(*argument) ||
                             (column && column->type == "ColumnRef" &&
                              last_name(items_field(column->body, "fields")) == "ctid");
        return bracket ? formula_.node(Op::concat, {formula_.constant(Constant::make("(", false)),
                                                    opaque(expression)})
                       : formula_.node(Op::to_text, {write(*argument)});
    }
    return opaque(expression);
}

Index FormulaWriter::sublink(const Json& expression, const JsonObject& body) {
    const auto select = node_field(body, "subselect");
    if (!select || select->type != "SelectStmt") {
        return opaque(expression);
    }
    const auto kind = text_field(body, "subLinkType");
    const bool plain = !object_field(select->body, "larg") &&
                       items_field(select->body, "valuesLists").empty() &&
                       items_field(select->body, "fromClause").empty() &&
                       !field(select->body, "limitCount") && !field(select->body, "havingClause") &&
                       !object_field(select->body, "withClause");
    const auto where = field(select->body, "whereClause");
    if (kind == "EXISTS_SUBLINK") {
        if (judge_.always_empty(select->body)) {
            return constant(false);
        }
        if (is_one_aggregate(select->body) || (plain && !where)) {
            return constant(true);
        }
        return plain ? formula_.node(Op::is_true, {write(*where)}) : opaque(expression);
    }
    if (kind == "EXPR_SUBLINK" && plain) {
        const Items columns = items_field(select->body, "targetList");
        if (columns.size() == 1) {
            const auto target = as_node(*columns.begin());
            const auto value = target ? field(target->body, "val") : std::nullopt;
            if (value && where) {
                return formula_.node(Op::choice, {write(*where), write(*value),
                                                  formula_.constant(Constant::make_null())});
            }
            if (value) {
                return write(*value);
            }
        }
    }
    return opaque(expression);
}

Index FormulaWriter::function(const Json& expression, const JsonObject& body) {
    const auto name = last_name(items_field(body, "funcname"));
    const std::vector<Json> arguments = list_of(items_field(body, "args"));
    const std::size_t count = arguments.size();
    if (const auto op = operator_called(name); !op.empty() && count >= 2) {
        return comparison(op, arguments[0], arguments[1], expression);
    }
    const auto unary = [&](Op op) { return formula_.node(op, {write(arguments[0])}); };
    if (count == 1 && (name == "abs" || name == "int4abs" || name == "int8abs")) {
        return unary(Op::absolute);
    }
    if (count == 1 && name == "sign") {
        return unary(Op::sign);
    }
    if (count == 2 && (name == "mod" || name == "power" || name == "pow")) {
        return formula_.node(name == "mod" ? Op::modulo : Op::power,
                             {write(arguments[0]), write(arguments[1])});
    }
    if (count == 1 && (name == "floor" || name == "ceil" || name == "ceiling" || name == "round" ||
                       name == "trunc")) {
        const Dependencies found = judge_.dependencies(arguments[0]);
        return found.is_volatile ? opaque(expression) : write(arguments[0]);
    }
    const bool to_array = count >= 1 && [&] {
        const auto node = as_node(arguments[0]);
        return node && node->type == "A_ArrayExpr";
    }();
    if ((name == "cardinality" || name == "array_length") && to_array) {
        return unary(Op::count);
    }
    // A length of something that is made up here; that of a column is a number of its own.
    if (count == 1 && (name == "length" || name == "char_length" || name == "character_length" ||
                       name == "octet_length")) {
        const auto node = as_node(arguments[0]);
        if (node && node->type != "ColumnRef" && node->type != "FuncCall" &&
            node->type != "SubLink") {
            return unary(Op::length);
        }
        if (node && node->type == "FuncCall" &&
            last_name(items_field(node->body, "funcname")) == "md5") {
            constexpr long double digits = 32;
            return formula_.node(Op::choice, {formula_.node(Op::is_null, {write(arguments[0])}),
                                              formula_.constant(Constant::make_null()),
                                              formula_.constant(Constant::make(digits))});
        }
    }
    if (count >= 2 && (name == "left" || name == "right" || name == "repeat") &&
        is_zero(judge_.fold(arguments[1]))) {
        return unary(Op::empty);
    }
    if (count == 3 && (name == "substr" || name == "substring") &&
        is_zero(judge_.fold(arguments[2]))) {
        return unary(Op::empty);
    }
    if (count >= 1 &&
        (name == "repeat" || name == "upper" || name == "lower" || name == "btrim" ||
         name == "left" || name == "right" || name == "reverse") &&
        is_empty_text(judge_.fold(arguments[0]))) {
        return formula_.constant(Constant::make("", false));
    }
    if (count == 2 && (name == "strpos" || name == "position") &&
        is_empty_text(judge_.fold(arguments[1]))) {
        return formula_.node(Op::choice, {formula_.node(Op::is_null, {write(arguments[0])}),
                                          formula_.constant(Constant::make_null()),
                                          formula_.constant(Constant::make(1.0L))});
    }
    if (count >= 1 && (name == "concat" || name == "textcat")) {
        Index joined = formula_.constant(Constant::make("", false));
        for (const Json& argument : arguments) {
            const Index one = formula_.node(
                Op::coalesce, {write(argument), formula_.constant(Constant::make("", false))});
            joined = formula_.node(Op::concat, {joined, one});
        }
        return joined;
    }
    if (count == 2 &&
        (name == "jsonb_exists" || name == "jsonb_exists_any" || name == "jsonb_exists_all") &&
        judge_.has_same_keys(arguments[0])) {
        return constant(true);
    }
    return opaque(expression);
}

Index FormulaWriter::write(const Json& expression) {
    const auto node = as_node(expression);
    if (!node || !judge_.spend() || formula_.too_large()) {
        return formula_.constant(Constant::make_null());
    }
    const JsonObject& body = node->body;
    const auto type = node->type;
    const auto argument = field(body, "arg");
    if (type == "A_Const") {
        const auto value = literal(body);
        return value ? formula_.constant(*value) : opaque(expression);
    }
    if (type == "A_Expr") {
        return operation(expression, body);
    }
    if (type == "BoolExpr") {
        const auto op = text_field(body, "boolop");
        return formula_.node(op == "AND_EXPR"  ? Op::all
                             : op == "OR_EXPR" ? Op::any
                                               : Op::negation,
                             all(items_field(body, "args")));
    }
    if (type == "NullTest" && argument) {
        const Index is_null = formula_.node(Op::is_null, {write(*argument)});
        return text_field(body, "nulltesttype") == "IS_NULL" ? is_null : negation(is_null);
    }
    if (type == "BooleanTest") {
        return boolean_test(body);
    }
    if (type == "CaseExpr") {
        return choice(body);
    }
    if (type == "CoalesceExpr") {
        return formula_.node(Op::coalesce, all(items_field(body, "args")));
    }
    if (type == "MinMaxExpr") {
        return formula_.node(text_field(body, "op") == "IS_LEAST" ? Op::least : Op::greatest,
                             all(items_field(body, "args")));
    }
    if (type == "RowExpr") {
        return formula_.node(Op::list, all(items_field(body, "args")));
    }
    if (type == "A_ArrayExpr") {
        return formula_.node(Op::list, all(items_field(body, "elements")));
    }
    if (type == "CollateClause" && argument) {
        return write(*argument);
    }
    if (type == "TypeCast") {
        return cast(expression, body);
    }
    if (type == "CurrentOfExpr") {
        return formula_.variable("CURRENT OF", Formula::Origin::row, {});
    }
    if (type == "SubLink") {
        return sublink(expression, body);
    }
    if (type == "FuncCall" && !object_field(body, "over")) {
        return function(expression, body);
    }
    return opaque(expression);
}

bool Judge::every_row_meets(const std::vector<Json>& conditions) {
    Formula formula;
    FormulaWriter writer(*this, formula);
    std::vector<Index> parts;
    for (const Json& condition : conditions) {
        parts.push_back(writer.condition(condition));
    }
    if (parts.empty() || (scope_.work != nullptr && *scope_.work == 0)) {
        return false;
    }
    return formula.holds_for_every_row(writer.all_of(std::move(parts)), scope_.work);
}

}  // namespace pgchaperone::policy::bounds
