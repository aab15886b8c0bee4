#pragma once
// A condition as a formula over variables, tried out on rows: does it hold for every row? Knows no
// parse tree and no catalogue. Whoever builds it names the values that it cannot look into
// (columns, parameters, calls) as variables; equal keys mean equal values.
//
// It proves nothing: it looks for a row that the condition does not let through, at and around the
// constants that the condition names. Where none is found, there is none in any table that people
// have. What cannot be computed here (the order of texts in a collation apart) counts as "not every
// row".

#include "policy/analyzer_constant.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace pgchaperone::policy {

class Formula {
public:
    using Index = std::uint32_t;

    // Where a variable's value comes from: the row itself, elsewhere (the same for all rows), or
    // chance (a volatile function, of which the worst is assumed).
    enum class Origin : std::uint8_t { row, outside, chance };

    enum class Op : std::uint8_t {
        constant,
        variable,
        // Conditions. `holds`: true unless its argument is null.
        all,
        any,
        negation,
        is_null,
        is_true,
        is_false,
        holds,
        equal,
        not_equal,
        less,
        less_or_equal,
        greater,
        greater_or_equal,
        distinct,
        like,
        like_no_case,
        starts_with,
        contains,
        overlaps,
        // Numbers.
        plus,
        minus,
        times,
        modulo,
        power,
        bit_and,
        bit_or,
        bit_xor,
        shift_left,
        shift_right,
        negative,
        bit_not,
        absolute,
        sign,
        // Texts. `empty`: '' unless its argument is null.
        concat,
        length,
        empty,
        // Choices. The arguments of `choice`: condition and result in turn, then the other result.
        greatest,
        least,
        coalesce,
        nullif,
        choice,
        list,
        count,
        to_number,
        to_text,
        to_boolean,
    };

    // What is known of a variable's values.
    struct Limits {
        long double low = -1e30L;
        long double high = 1e30L;
        bool number = false;
        bool boolean = false;
        bool not_empty = false;  // neither '' nor '{}'
    };

    Index constant(Constant value);
    Index variable(std::string key, Origin origin, const Limits& limits);
    Index node(Op op, std::vector<Index> arguments);

    Op op_of(Index index) const { return nodes_[index].op; }
    bool too_large() const;

    // True where every row without nulls meets the condition, for some value of what comes from
    // elsewhere and whatever else that is, it makes no difference between rows. `work`: nodes that
    // may still be visited, counted down.
    bool holds_for_every_row(Index condition, std::uint64_t* work);

private:
    enum class Kind : std::uint8_t { unknown, null, boolean, number, text, list };

    struct Value {
        Kind kind = Kind::unknown;
        bool boolean = false;
        long double number = 0;
        std::string text;
        std::vector<Value> items;
    };

    struct Node {
        Op op = Op::constant;
        std::vector<Index> arguments;
        Value value;              // of a constant
        std::uint32_t index = 0;  // of a variable
        bool of_row = false;      // depends on the row, or on chance
    };

    struct Variable {
        Origin origin = Origin::row;
        Limits limits;
        Kind kind = Kind::unknown;
        std::vector<Value> hints;  // what it is compared with
        Value now;
    };

    using Choices = std::vector<Value>;

    static Value of(bool truth);
    static Value of(long double number);
    static Value of(std::string text);
    static Value null();
    static std::optional<int> order(const Value& left, const Value& right);

    Value evaluate(Index index);
    Value compared(Op op, const Value& left, const Value& right) const;
    Value computed(Op op, const Value& left, const Value& right) const;
    Value logical(const Node& node);
    Value of_texts(Op op, const Value& left, const Value& right) const;
    Value of_lists(Op op, const Value& left, const Value& right) const;
    Value converted(Op op, const Value& value) const;
    Value chosen(const Node& node);

    bool never_for_all(Index index) const;
    bool is_point(Index index) const;
    bool compares_variable(const Node& node) const;

    Kind kind_of(Index index) const;
    void suppose(Index index, Kind kind);
    void find_kinds();
    void hint(Index variable, Index value);
    void gather_constants(std::vector<long double>& numbers, std::vector<std::string>& texts) const;
    void fill_pools();
    Choices choices(const Variable& variable) const;

    enum class Outcome : std::uint8_t { all, none, differs };
    Outcome outcome_over_rows(Index condition);
    std::optional<bool> met(Index condition);
    bool set(Origin origin, int round);
    bool holds_whatever_comes_from_outside(Index condition);

    std::vector<Node> nodes_;
    std::vector<Variable> variables_;
    std::unordered_map<std::string, Index> known_;
    std::vector<Value> numbers_;
    std::vector<Value> texts_;
    bool thorough_ = false;
    std::size_t samples_ = 0;
    std::uint64_t steps_ = 0;
};

}  // namespace pgchaperone::policy
