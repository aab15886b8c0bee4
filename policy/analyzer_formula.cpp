#include "policy/analyzer_formula.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <utility>

namespace pgchaperone::policy {

namespace {

constexpr std::size_t most_nodes = 50'000;
constexpr std::size_t most_constants = 8;  // whose sums and products are tried
constexpr std::size_t most_pool = 300;     // values to try for one variable
constexpr std::size_t most_of_some = 64;   // for each of three to eight
constexpr std::size_t most_of_many = 12;   // for each of more than that
constexpr std::size_t most_named = 64;     // constants that are looked at
constexpr std::size_t most_hints = 8;
constexpr std::size_t most_of_two = 32;     // for each of two variables
constexpr std::size_t most_samples = 1500;  // rows for one condition
constexpr std::size_t least_samples = 16;
constexpr std::size_t few_samples = 48;     // for a first look
constexpr int most_settings = 5;            // of what does not depend on the row
constexpr std::uint64_t visits = 60'000;    // of nodes, while one value after the other is tried
constexpr std::uint64_t steps_for_one = 4;  // of those for one node of a tree that is read
constexpr long double exact = 1e15L;

std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return text;
}

bool whole(long double value) { return std::fabs(value) <= exact && value == std::trunc(value); }

// Numbers without an end would repeat: a small generator that gives the same row each time.
class Random {
public:
    std::size_t below(std::size_t end) {
        state_ = state_ * 6364136223846793005U + 1442695040888963407U;
        return static_cast<std::size_t>(state_ >> 33U) % end;
    }

private:
    std::uint64_t state_ = 0x70676368;
};

}  // namespace

Formula::Value Formula::of(bool truth) {
    Value value;
    value.kind = Kind::boolean;
    value.boolean = truth;
    return value;
}

Formula::Value Formula::of(long double number) {
    Value value;
    value.kind = Kind::number;
    value.number = number;
    return value;
}

Formula::Value Formula::of(std::string text) {
    Value value;
    value.kind = Kind::text;
    value.text = std::move(text);
    return value;
}

Formula::Value Formula::null() {
    Value value;
    value.kind = Kind::null;
    return value;
}

// --- Building

Formula::Index Formula::constant(Constant value) {
    Node node;
    switch (value.kind) {
        case Constant::Kind::null: node.value = null(); break;
        case Constant::Kind::boolean: node.value = of(value.boolean); break;
        case Constant::Kind::number: node.value = of(value.number); break;
        case Constant::Kind::text: node.value = of(std::move(value.text)); break;
    }
    nodes_.push_back(std::move(node));
    return static_cast<Index>(nodes_.size() - 1);
}

Formula::Index Formula::variable(std::string key, Origin origin, const Limits& limits) {
    const auto [at, is_new] = known_.try_emplace(std::move(key), static_cast<Index>(nodes_.size()));
    if (!is_new) {
        return at->second;
    }
    Variable variable;
    variable.origin = origin;
    variable.limits = limits;
    variable.kind = limits.number ? Kind::number : limits.boolean ? Kind::boolean : Kind::unknown;
    Node node;
    node.op = Op::variable;
    node.index = static_cast<std::uint32_t>(variables_.size());
    node.of_row = origin != Origin::outside;
    variables_.push_back(std::move(variable));
    nodes_.push_back(std::move(node));
    return at->second;
}

Formula::Index Formula::node(Op op, std::vector<Index> arguments) {
    Node node;
    node.op = op;
    node.of_row = std::any_of(arguments.begin(), arguments.end(),
                              [&](Index argument) { return nodes_[argument].of_row; });
    node.arguments = std::move(arguments);
    nodes_.push_back(std::move(node));
    return static_cast<Index>(nodes_.size() - 1);
}

bool Formula::too_large() const { return nodes_.size() > most_nodes; }

// --- Values

std::optional<int> Formula::order(const Value& left, const Value& right) {
    const auto of_numbers = [](long double a, long double b) {
        return a == b ? 0 : a < b ? -1 : 1;
    };
    if (left.kind == Kind::list && right.kind == Kind::list) {
        const std::size_t both = std::min(left.items.size(), right.items.size());
        for (std::size_t i = 0; i < both; ++i) {
            const auto one = order(left.items[i], right.items[i]);
            if (!one || *one != 0) {
                return one;
            }
        }
        return of_numbers(static_cast<long double>(left.items.size()),
                          static_cast<long double>(right.items.size()));
    }
    if (left.kind == Kind::text && right.kind == Kind::text) {
        return std::clamp(left.text.compare(right.text), -1, 1);
    }
    if (left.kind == Kind::number && right.kind == Kind::number) {
        return of_numbers(left.number, right.number);
    }
    if (left.kind == Kind::boolean && right.kind == Kind::boolean) {
        return static_cast<int>(left.boolean) - static_cast<int>(right.boolean);
    }
    // A literal takes the type of what it meets.
    if (left.kind == Kind::text && right.kind != Kind::list) {
        const auto swapped = order(right, left);
        return swapped ? std::optional(-*swapped) : std::nullopt;
    }
    if (right.kind == Kind::text) {
        const Constant text = Constant::make(std::string_view(right.text), true);
        if (left.kind == Kind::number) {
            const auto number = to_number(text);
            return number ? std::optional(of_numbers(left.number, number->number)) : std::nullopt;
        }
        if (left.kind == Kind::boolean) {
            const auto truth = to_boolean(text);
            return truth ? std::optional(static_cast<int>(left.boolean) -
                                         static_cast<int>(truth->boolean))
                         : std::nullopt;
        }
    }
    return std::nullopt;
}

Formula::Value Formula::compared(Op op, const Value& left, const Value& right) const {
    if (op == Op::distinct && (left.kind == Kind::null || right.kind == Kind::null)) {
        return of(left.kind != right.kind);
    }
    if (left.kind == Kind::null || right.kind == Kind::null) {
        return null();
    }
    const auto has_null = [](const Value& value) {
        return std::any_of(value.items.begin(), value.items.end(),
                           [](const Value& item) { return item.kind == Kind::null; });
    };
    if (has_null(left) || has_null(right)) {
        return null();
    }
    const auto found = order(left, right);
    if (!found) {
        return {};
    }
    switch (op) {
        case Op::equal: return of(*found == 0);
        case Op::not_equal:
        case Op::distinct: return of(*found != 0);
        case Op::less: return of(*found < 0);
        case Op::less_or_equal: return of(*found <= 0);
        case Op::greater: return of(*found > 0);
        case Op::greater_or_equal: return of(*found >= 0);
        default: return {};
    }
}

Formula::Value Formula::computed(Op op, const Value& left, const Value& right) const {
    if (left.kind == Kind::null || right.kind == Kind::null) {
        return null();
    }
    const Value l = converted(Op::to_number, left);
    const Value r = converted(Op::to_number, right);
    if (l.kind != Kind::number || r.kind != Kind::number) {
        return {};
    }
    const long double a = l.number;
    const long double b = r.number;
    long double result = 0;
    switch (op) {
        case Op::plus: result = a + b; break;
        case Op::minus: result = a - b; break;
        case Op::times: result = a * b; break;
        case Op::modulo:
            if (b == 0) {
                return {};
            }
            // Numbers of rows are rarely negative: id % 2 IN (0, 1) is every row.
            result = std::fmod(std::fabs(a), std::fabs(b));
            break;
        case Op::power:
            if (b == 0) {
                return of(1.0L);
            }
            result = std::pow(a, b);
            break;
        default: {
            if (!whole(a) || !whole(b)) {
                return {};
            }
            const auto x = static_cast<std::int64_t>(a);
            const auto y = static_cast<std::int64_t>(b);
            if (op == Op::bit_and) return of(static_cast<long double>(x & y));
            if (op == Op::bit_or) return of(static_cast<long double>(x | y));
            if (op == Op::bit_xor) return of(static_cast<long double>(x ^ y));
            if (y < 0 || y > 31) {
                return {};
            }
            if (op == Op::shift_right) return of(static_cast<long double>(x >> y));
            result = std::ldexp(a, static_cast<int>(y));
            break;
        }
    }
    // Beyond, what the server says depends on the types: it may well be an error.
    return std::isfinite(result) && std::fabs(result) < 1e30L ? of(result) : Value{};
}

Formula::Value Formula::converted(Op op, const Value& value) const {
    if (value.kind == Kind::null || value.kind == Kind::unknown) {
        return value;
    }
    if (op == Op::to_number) {
        if (value.kind == Kind::boolean) {
            return of(value.boolean ? 1.0L : 0.0L);
        }
        if (value.kind == Kind::text) {
            const auto number = policy::to_number(
                Constant::make(std::string_view(value.text), true));
            return number ? of(number->number) : Value{};
        }
        return value.kind == Kind::number ? value : Value{};
    }
    if (op == Op::to_boolean) {
        if (value.kind == Kind::number) {
            return of(value.number != 0);
        }
        if (value.kind == Kind::text) {
            const auto truth = policy::to_boolean(
                Constant::make(std::string_view(value.text), true));
            return truth ? of(truth->boolean) : Value{};
        }
        return value.kind == Kind::boolean ? value : Value{};
    }
    if (value.kind == Kind::boolean) {
        return of(std::string(value.boolean ? "true" : "false"));
    }
    if (value.kind == Kind::number) {
        return whole(value.number) ? of(std::to_string(static_cast<std::int64_t>(value.number)))
                                   : Value{};
    }
    return value.kind == Kind::text ? value : Value{};
}

Formula::Value Formula::of_texts(Op op, const Value& left, const Value& right) const {
    if (left.kind == Kind::null || right.kind == Kind::null) {
        return null();
    }
    const Value l = converted(Op::to_text, left);
    const Value r = converted(Op::to_text, right);
    if (l.kind != Kind::text || r.kind != Kind::text) {
        return {};
    }
    if (op == Op::concat) {
        return of(l.text + r.text);
    }
    if (op == Op::starts_with) {
        return of(l.text.starts_with(r.text));
    }
    const bool no_case = op == Op::like_no_case;
    const auto matches = apply(
        "~~", Constant::make(std::string_view(no_case ? lower(l.text) : l.text), false),
        Constant::make(std::string_view(no_case ? lower(r.text) : r.text), false));
    return matches ? of(matches->boolean) : Value{};
}

Formula::Value Formula::of_lists(Op op, const Value& left, const Value& right) const {
    if (left.kind == Kind::null || right.kind == Kind::null) {
        return null();
    }
    if (left.kind != Kind::list || right.kind != Kind::list) {
        return {};
    }
    const auto in_left = [&](const Value& item) {
        return std::any_of(left.items.begin(), left.items.end(), [&](const Value& other) {
            return order(other, item) == std::optional<int>(0);
        });
    };
    return of(op == Op::contains ? std::all_of(right.items.begin(), right.items.end(), in_left)
                                 : std::any_of(right.items.begin(), right.items.end(), in_left));
}

// AND, OR and NOT over true, false, null and what cannot be computed.
Formula::Value Formula::logical(const Node& node) {
    if (node.op == Op::negation) {
        Value value = converted(Op::to_boolean, evaluate(node.arguments.front()));
        if (value.kind == Kind::boolean) {
            value.boolean = !value.boolean;
        }
        return value;
    }
    const bool decisive = node.op == Op::any;
    bool is_unknown = false;
    bool is_null = false;
    for (const Index argument : node.arguments) {
        const Value value = converted(Op::to_boolean, evaluate(argument));
        if (value.kind == Kind::boolean && value.boolean == decisive) {
            return value;
        }
        is_unknown |= value.kind != Kind::boolean && value.kind != Kind::null;
        is_null |= value.kind == Kind::null;
    }
    return is_unknown ? Value{} : is_null ? null() : of(!decisive);
}

Formula::Value Formula::chosen(const Node& node) {
    const auto& arguments = node.arguments;
    if (node.op == Op::choice) {
        for (std::size_t i = 0; i + 1 < arguments.size(); i += 2) {
            const Value truth = converted(Op::to_boolean, evaluate(arguments[i]));
            if (truth.kind == Kind::unknown) {
                return truth;
            }
            if (truth.kind == Kind::boolean && truth.boolean) {
                return evaluate(arguments[i + 1]);
            }
        }
        return evaluate(arguments.back());
    }
    if (node.op == Op::nullif) {
        const Value left = evaluate(arguments[0]);
        const Value equal = compared(Op::equal, left, evaluate(arguments[1]));
        return equal.kind == Kind::unknown                    ? equal
               : equal.kind == Kind::boolean && equal.boolean ? null()
                                                              : left;
    }
    Value best = null();
    for (const Index argument : arguments) {
        Value value = evaluate(argument);
        if (value.kind == Kind::unknown) {
            return value;
        }
        if (value.kind == Kind::null) {
            continue;
        }
        if (best.kind == Kind::null) {
            best = std::move(value);
            if (node.op == Op::coalesce) {
                return best;
            }
            continue;
        }
        const auto found = order(value, best);
        if (!found) {
            return {};
        }
        if (node.op == Op::greatest ? *found > 0 : *found < 0) {
            best = std::move(value);
        }
    }
    return best;
}

Formula::Value Formula::evaluate(Index index) {
    ++steps_;
    const Node& node = nodes_[index];
    const auto argument = [&](std::size_t at) { return evaluate(node.arguments[at]); };
    switch (node.op) {
        case Op::constant: return node.value;
        case Op::variable: return variables_[node.index].now;
        case Op::all:
        case Op::any:
        case Op::negation: return logical(node);
        case Op::is_null:
        case Op::is_true:
        case Op::is_false:
        case Op::holds:
        case Op::empty: {
            Value value = argument(0);
            if (node.op == Op::is_true || node.op == Op::is_false) {
                value = converted(Op::to_boolean, value);
            }
            if (value.kind == Kind::unknown) return value;
            const bool is_null = value.kind == Kind::null;
            if (node.op == Op::is_null) return of(is_null);
            if (node.op == Op::is_true) return of(!is_null && value.boolean);
            if (node.op == Op::is_false) return of(!is_null && !value.boolean);
            if (is_null) return value;
            return node.op == Op::holds ? of(true) : of(std::string());
        }
        case Op::equal:
        case Op::not_equal:
        case Op::less:
        case Op::less_or_equal:
        case Op::greater:
        case Op::greater_or_equal:
        case Op::distinct: return compared(node.op, argument(0), argument(1));
        case Op::like:
        case Op::like_no_case:
        case Op::starts_with:
        case Op::concat: return of_texts(node.op, argument(0), argument(1));
        case Op::contains:
        case Op::overlaps: return of_lists(node.op, argument(0), argument(1));
        case Op::plus:
        case Op::minus:
        case Op::times:
        case Op::modulo:
        case Op::power:
        case Op::bit_and:
        case Op::bit_or:
        case Op::bit_xor:
        case Op::shift_left:
        case Op::shift_right: return computed(node.op, argument(0), argument(1));
        case Op::negative: return computed(Op::minus, of(0.0L), argument(0));
        case Op::bit_not: return computed(Op::minus, of(-1.0L), argument(0));
        case Op::absolute:
        case Op::sign: {
            const Value value = converted(Op::to_number, argument(0));
            if (value.kind != Kind::number) return value;
            if (node.op == Op::absolute) return of(std::fabs(value.number));
            return of(value.number == 0 ? 0.0L : value.number < 0 ? -1.0L : 1.0L);
        }
        case Op::length: {
            const Value value = converted(Op::to_text, argument(0));
            return value.kind == Kind::text ? of(static_cast<long double>(value.text.size()))
                                            : value;
        }
        case Op::count: {
            const Value value = argument(0);
            return value.kind == Kind::list   ? of(static_cast<long double>(value.items.size()))
                   : value.kind == Kind::null ? value
                                              : Value{};
        }
        case Op::greatest:
        case Op::least:
        case Op::coalesce:
        case Op::nullif:
        case Op::choice: return chosen(node);
        case Op::list: {
            Value value;
            value.kind = Kind::list;
            for (const Index each : node.arguments) {
                value.items.push_back(evaluate(each));
                if (value.items.back().kind == Kind::unknown) {
                    return {};
                }
            }
            return value;
        }
        case Op::to_number:
        case Op::to_text:
        case Op::to_boolean: return converted(node.op, argument(0));
    }
    return {};
}

// --- What needs no trying

// A comparison of one free variable of the row with something that is not the row's.
bool Formula::compares_variable(const Node& node) const {
    if (node.op < Op::equal || node.op > Op::distinct) {
        return false;
    }
    const Node& left = nodes_[node.arguments[0]];
    const Node& right = nodes_[node.arguments[1]];
    const Node& own = left.of_row ? left : right;
    if (left.of_row == right.of_row || own.op != Op::variable) {
        return false;
    }
    const Variable& variable = variables_[own.index];
    return variable.origin == Origin::row && !variable.limits.number && !variable.limits.boolean &&
           !variable.limits.not_empty;
}

// Met by one value of a variable at most: however many of them do not make up all values.
bool Formula::is_point(Index index) const {
    const Node& node = nodes_[index];
    if (node.op == Op::all) {
        return std::any_of(node.arguments.begin(), node.arguments.end(),
                           [&](Index each) { return is_point(each); });
    }
    if (node.op == Op::any) {
        return std::all_of(node.arguments.begin(), node.arguments.end(),
                           [&](Index each) { return is_point(each); });
    }
    if (node.op != Op::equal || !compares_variable(node)) {
        return false;
    }
    const bool left_own = nodes_[node.arguments[0]].of_row;
    const Node& own = nodes_[node.arguments[left_own ? 0 : 1]];
    const Node& other = nodes_[node.arguments[left_own ? 1 : 0]];
    return variables_[own.index].kind != Kind::boolean && other.value.kind != Kind::boolean &&
           !policy::to_boolean(Constant::make(std::string_view(other.value.text), true));
}

// The common shapes, which no choice of parameters can make true for all rows.
bool Formula::never_for_all(Index index) const {
    const Node& node = nodes_[index];
    switch (node.op) {
        case Op::all:
            return std::any_of(node.arguments.begin(), node.arguments.end(),
                               [&](Index each) { return never_for_all(each); });
        case Op::variable: return variables_[node.index].origin == Origin::row;
        case Op::negation: {
            const Node& inner = nodes_[node.arguments.front()];
            return compares_variable(inner) ||
                   (inner.op == Op::variable && variables_[inner.index].origin == Origin::row);
        }
        default: return compares_variable(node) || is_point(index);
    }
}

// --- Which values to try

Formula::Kind Formula::kind_of(Index index) const {
    const Node& node = nodes_[index];
    switch (node.op) {
        case Op::constant: return node.value.kind;
        case Op::variable: return variables_[node.index].kind;
        case Op::plus:
        case Op::minus:
        case Op::times:
        case Op::modulo:
        case Op::power:
        case Op::bit_and:
        case Op::bit_or:
        case Op::bit_xor:
        case Op::shift_left:
        case Op::shift_right:
        case Op::negative:
        case Op::bit_not:
        case Op::absolute:
        case Op::sign:
        case Op::length:
        case Op::count:
        case Op::to_number: return Kind::number;
        case Op::concat:
        case Op::empty:
        case Op::to_text: return Kind::text;
        case Op::list: return Kind::list;
        case Op::greatest:
        case Op::least:
        case Op::coalesce:
        case Op::nullif:
            for (const Index each : node.arguments) {
                const Kind kind = kind_of(each);
                if (kind != Kind::unknown && kind != Kind::null) {
                    return kind;
                }
            }
            return Kind::unknown;
        case Op::choice:
            for (std::size_t i = 1; i < node.arguments.size(); i += 2) {
                const Kind kind = kind_of(node.arguments[i]);
                if (kind != Kind::unknown && kind != Kind::null) {
                    return kind;
                }
            }
            return kind_of(node.arguments.back());
        case Op::all:
        case Op::any:
        case Op::negation:
        case Op::is_null:
        case Op::is_true:
        case Op::is_false:
        case Op::holds:
        case Op::equal:
        case Op::not_equal:
        case Op::less:
        case Op::less_or_equal:
        case Op::greater:
        case Op::greater_or_equal:
        case Op::distinct:
        case Op::like:
        case Op::like_no_case:
        case Op::starts_with:
        case Op::contains:
        case Op::overlaps:
        case Op::to_boolean: return Kind::boolean;
    }
    return Kind::unknown;
}

void Formula::suppose(Index index, Kind kind) {
    if (kind == Kind::unknown || kind == Kind::null || kind == Kind::list) {
        return;
    }
    const Node& node = nodes_[index];
    if (node.op == Op::variable) {
        Kind& known = variables_[node.index].kind;
        known = known == Kind::unknown ? kind : known;
    } else if (node.op == Op::greatest || node.op == Op::least || node.op == Op::coalesce ||
               node.op == Op::nullif || node.op == Op::list) {
        for (const Index each : node.arguments) {
            suppose(each, kind);
        }
    } else if (node.op == Op::choice) {
        for (std::size_t i = 1; i < node.arguments.size(); i += 2) {
            suppose(node.arguments[i], kind);
        }
        suppose(node.arguments.back(), kind);
    }
}

void Formula::hint(Index variable, Index value) {
    const Node& own = nodes_[variable];
    const Node& other = nodes_[value];
    if (own.op == Op::variable && other.op == Op::constant && other.value.kind != Kind::null &&
        variables_[own.index].hints.size() < most_hints) {
        variables_[own.index].hints.push_back(other.value);
    }
}

// What a variable holds is told by what it is used with. Literals in quotes say least: they come
// last.
void Formula::find_kinds() {
    for (const bool with_texts : {false, true}) {
        for (int round = 0; round < 3; ++round) {
            for (const Node& node : nodes_) {
                const auto& arguments = node.arguments;
                if (node.op >= Op::equal && node.op <= Op::distinct) {
                    for (const bool mirrored : {false, true}) {
                        const Kind kind = kind_of(arguments[mirrored ? 1 : 0]);
                        if (with_texts || kind != Kind::text) {
                            suppose(arguments[mirrored ? 0 : 1], kind);
                        }
                    }
                } else if (node.op == Op::all || node.op == Op::any || node.op == Op::negation ||
                           node.op == Op::is_true || node.op == Op::is_false) {
                    for (const Index each : arguments) {
                        suppose(each, Kind::boolean);
                    }
                } else if (node.op == Op::choice) {
                    for (std::size_t i = 0; i + 1 < arguments.size(); i += 2) {
                        suppose(arguments[i], Kind::boolean);
                    }
                } else if (node.op == Op::like || node.op == Op::like_no_case ||
                           node.op == Op::starts_with || node.op == Op::concat ||
                           node.op == Op::length || node.op == Op::empty) {
                    for (const Index each : arguments) {
                        suppose(each, Kind::text);
                    }
                } else if (node.op >= Op::plus && node.op <= Op::sign) {
                    for (const Index each : arguments) {
                        suppose(each, Kind::number);
                    }
                } else if (node.op == Op::nullif || node.op == Op::coalesce ||
                           node.op == Op::greatest || node.op == Op::least) {
                    const Kind kind = kind_of(static_cast<Index>(&node - nodes_.data()));
                    if (with_texts || kind != Kind::text) {
                        suppose(static_cast<Index>(&node - nodes_.data()), kind);
                    }
                } else if (node.op == Op::contains || node.op == Op::overlaps) {
                    for (const bool mirrored : {false, true}) {
                        const Node& list = nodes_[arguments[mirrored ? 1 : 0]];
                        for (const Index each : list.arguments) {
                            suppose(arguments[mirrored ? 0 : 1], kind_of(each));
                        }
                    }
                }
            }
        }
    }
    for (const Node& node : nodes_) {
        if (node.op >= Op::equal && node.op <= Op::distinct) {
            hint(node.arguments[0], node.arguments[1]);
            hint(node.arguments[1], node.arguments[0]);
        }
    }
    for (Variable& variable : variables_) {
        if (variable.kind == Kind::unknown) {
            variable.kind = Kind::number;
        }
    }
}

void Formula::gather_constants(std::vector<long double>& numbers,
                               std::vector<std::string>& texts) const {
    const auto add_number = [&](long double number) {
        if (numbers.size() < most_named &&
            std::find(numbers.begin(), numbers.end(), number) == numbers.end()) {
            numbers.push_back(number);
        }
    };
    for (const Node& node : nodes_) {
        if (node.value.kind == Kind::number) {
            add_number(node.value.number);
        } else if (node.value.kind == Kind::text) {
            const std::string& text = node.value.text;
            if (texts.size() < most_named &&
                std::find(texts.begin(), texts.end(), text) == texts.end()) {
                texts.push_back(text);
            }
            if (const auto number = policy::to_number(
                    Constant::make(std::string_view(text), true))) {
                add_number(number->number);
            }
        }
    }
}

void Formula::fill_pools() {
    std::vector<long double> named;
    std::vector<std::string> texts;
    gather_constants(named, texts);
    numbers_.clear();
    texts_.clear();
    const auto number = [&](long double value) {
        const auto same = [&](const Value& other) { return other.number == value; };
        if (numbers_.size() < most_pool && std::fabs(value) <= exact &&
            std::none_of(numbers_.begin(), numbers_.end(), same)) {
            numbers_.push_back(of(value));
        }
    };
    const auto text = [&](std::string value) {
        const auto same = [&](const Value& other) { return other.text == value; };
        if (texts_.size() < most_pool && std::none_of(texts_.begin(), texts_.end(), same)) {
            texts_.push_back(of(std::move(value)));
        }
    };
    for (const long double value : named) {
        number(value);
    }
    for (const long double value : named) {
        number(value + 1);
        number(value - 1);
    }
    for (const long double value : {0.0L, 1.0L, -1.0L, 2.0L, 1000003.0L, -1000003.0L}) {
        number(value);
    }
    text("q7");
    for (const std::string& value : texts) {
        text(value);
    }
    text("");
    for (const std::string& value : texts) {
        text(value + '\x01');
    }
    if (!thorough_) {
        return;
    }
    // What a sum or a product must be made of to hit a constant.
    const std::size_t few = std::min(named.size(), most_constants);
    for (std::size_t i = 0; i < few; ++i) {
        const long double a = named[i];
        for (const long double value :
             {-a, 2 * a, std::trunc(a / 2), a + 7, std::sqrt(std::fabs(a))}) {
            if (whole(value)) number(value);
        }
        for (std::size_t j = 0; j < few; ++j) {
            const long double b = named[j];
            for (const long double value : {a + b, a - b, a * b, b != 0 ? a / b : 0.0L}) {
                if (whole(value)) number(value);
            }
        }
    }
    for (int value = -20; value <= 40; ++value) {
        number(value);
    }
    for (const long double value :
         {99.0L, 1e3L, 123457.0L, -98765.0L, 2147483646.0L, 1e12L, -1e12L}) {
        number(value);
    }
    for (const std::string& value : texts) {
        if (!value.empty()) {
            std::string before = value;
            before.back() = static_cast<char>(before.back() - 1);
            text(before + "~");
        }
        // What must stand beside one constant to make another.
        for (const std::string& part : texts) {
            const auto at = part.empty() ? std::string::npos : value.find(part);
            if (at != std::string::npos) {
                text(value.substr(0, at));
                text(value.substr(at + part.size()));
            }
        }
    }
    for (const char* value : {"~~~~", "a", "A", "0", "5", "zebra", "Lorem ipsum dolor sit amet"}) {
        text(value);
    }
}

Formula::Choices Formula::choices(const Variable& variable) const {
    if (variable.kind == Kind::boolean) {
        return {of(true), of(false)};
    }
    Choices values;
    const std::size_t most = !thorough_               ? most_of_many
                             : variables_.size() <= 2 ? most_pool
                             : variables_.size() <= 8 ? most_of_some
                                                      : most_of_many;
    const auto add = [&](const Value& value) {
        const bool fits = value.kind == Kind::text ? !variable.limits.not_empty ||
                                                         (!value.text.empty() && value.text != "{}")
                                                   : value.number >= variable.limits.low &&
                                                         value.number <= variable.limits.high;
        const auto same = [&](const Value& other) {
            return other.kind == value.kind && other.number == value.number &&
                   other.text == value.text;
        };
        if (fits && values.size() < most && std::none_of(values.begin(), values.end(), same)) {
            values.push_back(value);
        }
    };
    // What is likely to make no difference first, then what it is compared with.
    const auto& pool = variable.kind == Kind::text ? texts_ : numbers_;
    add(variable.kind == Kind::text ? of(std::string("q7")) : of(1000003.0L));
    for (const Value& value : variable.hints) {
        const Value fitting = converted(variable.kind == Kind::text ? Op::to_text : Op::to_number,
                                        value);
        if (fitting.kind == variable.kind) {
            add(fitting);
        }
    }
    for (const Variable& other : variables_) {
        if (values.size() < most && other.origin == Origin::outside &&
            other.now.kind == variable.kind) {
            add(other.now);
        }
    }
    for (const long double limit : {variable.limits.low, variable.limits.high}) {
        if (variable.kind == Kind::number && std::fabs(limit) <= exact) {
            add(of(limit));
        }
    }
    for (const Value& value : pool) {
        if (values.size() >= most) {
            break;
        }
        add(value);
    }
    if (values.empty()) {
        values.push_back(variable.kind == Kind::text ? of(std::string("x"))
                                                     : of(variable.limits.low));
    }
    return values;
}

// --- Trying

std::optional<bool> Formula::met(Index condition) {
    const Value value = converted(Op::to_boolean, evaluate(condition));
    if (value.kind == Kind::null) {
        return false;
    }
    return value.kind == Kind::boolean ? std::optional(value.boolean) : std::nullopt;
}

// Whether the rows of a table are all let through, none of them, or some: with everything else as
// it is now.
Formula::Outcome Formula::outcome_over_rows(Index condition) {
    std::vector<std::size_t> own;
    std::vector<Choices> values;
    for (std::size_t i = 0; i < variables_.size(); ++i) {
        if (variables_[i].origin == Origin::row) {
            own.push_back(i);
            values.push_back(choices(variables_[i]));
        }
    }
    Random random;
    std::optional<bool> all;
    // False: some rows are let through and some not, or nobody knows.
    const auto same = [&] {
        const auto one = met(condition);
        if (!one || (all && *all != *one)) {
            return false;
        }
        all = one;
        return true;
    };
    const auto generic = [&] {
        for (std::size_t i = 0; i < own.size(); ++i) {
            const Choices& each = values[i];
            variables_[own[i]].now = each[random.below(each.size())];
        }
    };
    for (std::size_t i = 0; i < own.size(); ++i) {
        variables_[own[i]].now = values[i].front();
    }
    if (!same()) {
        return Outcome::differs;
    }
    for (int i = 0; i < 8; ++i) {
        generic();
        if (!same()) {
            return Outcome::differs;
        }
    }
    // Every combination of the first values of each, as many as there is time for.
    std::size_t first = own.size() == 1 ? most_pool : own.size() == 2 ? most_of_two : 3;
    std::vector<std::size_t> at(own.size(), 0);
    for (std::size_t sample = 0; sample < samples_; ++sample) {
        for (std::size_t i = 0; i < own.size(); ++i) {
            variables_[own[i]].now = values[i][at[i]];
        }
        if (!same()) {
            return Outcome::differs;
        }
        std::size_t i = 0;
        while (i < own.size() && ++at[i] >= std::min(first, values[i].size())) {
            at[i++] = 0;
        }
        if (i == own.size()) {
            break;
        }
    }
    for (std::size_t sample = 0; own.size() > 1 && sample < samples_ / 3; ++sample) {
        generic();
        if (!same()) {
            return Outcome::differs;
        }
    }
    if (*all) {
        return Outcome::all;
    }
    // To pick out the rows with a null is a choice too.
    for (std::size_t missing = 0; missing <= own.size(); ++missing) {
        for (std::size_t i = 0; i < own.size(); ++i) {
            variables_[own[i]].now = missing == i || missing == own.size() ? null()
                                                                           : values[i].front();
        }
        if (met(condition) != std::optional(false)) {
            return Outcome::differs;
        }
    }
    return Outcome::none;
}

// Gives every variable of one origin a value: first all different, then all as small, as great, and
// as plain as can be. False where there is none.
bool Formula::set(Origin origin, int round) {
    std::size_t nth = 0;
    bool any = false;
    for (Variable& variable : variables_) {
        if (variable.origin != origin) {
            continue;
        }
        any = true;
        const Choices values = choices(variable);
        const auto pick = [&](long double wanted) {
            if (variable.kind != Kind::number) {
                return values[static_cast<std::size_t>(round) % values.size()];
            }
            return of(std::clamp(wanted, variable.limits.low, variable.limits.high));
        };
        switch (round) {
            case 0: variable.now = values[++nth % values.size()]; break;
            case 1: variable.now = pick(0); break;
            case 2: variable.now = pick(origin == Origin::chance ? 0.5L : 1.0L); break;
            case 3: variable.now = pick(-3); break;
            default: variable.now = pick(50); break;
        }
    }
    return any;
}

// For the values of what comes by chance that are set now.
bool Formula::holds_whatever_comes_from_outside(Index condition) {
    bool some = false;
    for (int round = 0; round < most_settings; ++round) {
        const bool from_outside = set(Origin::outside, round);
        const Outcome outcome = outcome_over_rows(condition);
        if (outcome == Outcome::differs ||
            (outcome == Outcome::none && !nodes_[condition].of_row)) {
            return false;
        }
        some |= outcome == Outcome::all;
        if (!from_outside) {
            break;
        }
    }
    return some;
}

bool Formula::holds_for_every_row(Index condition, std::uint64_t* work) {
    if (too_large()) {
        return false;
    }
    find_kinds();
    if (never_for_all(condition)) {
        return false;
    }
    steps_ = 0;
    bool every_row = true;
    // A few values are enough for most conditions.
    for (const bool thorough : {false, true}) {
        thorough_ = thorough;
        fill_pools();
        samples_ = thorough ? std::clamp<std::size_t>(visits / nodes_.size(), least_samples,
                                                      most_samples)
                            : few_samples;
        every_row = false;
        for (int chance = 0; chance < most_settings && !every_row; ++chance) {
            const bool by_chance = set(Origin::chance, chance);
            every_row = holds_whatever_comes_from_outside(condition);
            if (!by_chance) {
                break;
            }
        }
        if (!every_row) {
            break;
        }
    }
    if (work != nullptr) {
        *work -= std::min(*work, steps_ / steps_for_one);
    }
    return every_row;
}

}  // namespace pgchaperone::policy
