#pragma once
// Judges the condition of one write: does it let every row of the target through? Internal to the
// analyzer of bounds (analyzer_bounds.h says what a bound is). A Judge knows one target, the other
// relations that are visible beside it, and nothing of the statement that it stands in.
//
// Its parts, one file each: analyzer_judge.cpp goes through conditions, analyzer_judge_row.cpp
// tells what an expression depends on, analyzer_judge_fold.cpp folds constants,
// analyzer_judge_formula.cpp turns a condition into a Formula that is tried out on rows.

#include "policy/analyzer_bounds.h"
#include "policy/analyzer_constant.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace pgchaperone::policy::bounds {

// What an expression depends on. `own` is the target's own row. A name without a qualifier that may
// belong either to the target or to another relation is `ambiguous`. `outside` is what comes from
// neither: a parameter, a variable, a query of its own. `sources` are the other relations of the
// same query, by bit.
struct Dependencies {
    bool own = false;
    bool ambiguous = false;
    bool outside = false;
    bool is_volatile = false;
    bool unknown_function = false;
    bool maybe_own = false;      // a name in a query that may belong to the row outside it
    bool extreme = false;        // the least or the greatest value of all rows of the target
    bool copies_target = false;  // a query of its own over all rows of the target
    std::uint64_t sources = 0;

    bool nothing() const { return !own && !ambiguous && !outside && sources == 0; }
    bool may_differ_by_row() const { return own || ambiguous || maybe_own; }
};

// What a condition does to the rows of the target. `never`: it lets none through.
enum class Effect : std::uint8_t { never, open, bound };

struct Verdict {
    Effect effect = Effect::open;
    // While the effect is open: the sources to which the target's row is tied although they are the
    // whole target once more (which bounds nothing unless they are restricted), and the sources
    // restricted here.
    std::uint64_t ties = 0;
    std::uint64_t restricts = 0;
    std::string_view reason;
};

inline Verdict bound() { return {Effect::bound, 0, 0, {}}; }
inline Verdict never() { return {Effect::never, 0, 0, {}}; }
inline Verdict open(std::string_view reason, std::uint64_t ties = 0, std::uint64_t restricts = 0) {
    return {Effect::open, ties, restricts, reason};
}

inline constexpr std::string_view no_where = "has no WHERE";
inline constexpr std::string_view always_true = "has a WHERE that is always true";
inline constexpr std::string_view row_independent = "has a WHERE that does not depend on the row";
inline constexpr std::string_view
    compares_itself = "has a WHERE that compares the row only with itself";
inline constexpr std::string_view
    not_null_only = "has a WHERE that only asks for values that are not null";
inline constexpr std::string_view matches_all = "has a WHERE that matches every value";
inline constexpr std::string_view
    whole_again = "has a WHERE that only looks rows up in the same table";
inline constexpr std::string_view covers_all = "has a WHERE whose alternatives leave no row out";
inline constexpr std::string_view always_met = "has a WHERE that every row meets";
inline constexpr std::string_view
    by_chance = "has a WHERE that compares only with a volatile function";
inline constexpr std::string_view too_intricate = "has a WHERE that is too intricate to be judged";
inline constexpr std::string_view
    not_tied = "has another relation that no condition ties to its rows";

struct Source {
    std::string_view schema;
    std::string_view name;
    std::uint64_t bit = 0;
    bool own = false;  // made of the target's row alone: FROM (SELECT orders.id) o,
                       // unnest(ARRAY[id])
};

std::string_view last_name(const Items& names);
bool is_comparison(std::string_view op);
// The operator that is true where `op` is false, and the one that means the same with its sides
// exchanged.
std::string_view negation_of(std::string_view op);
std::string_view mirror_of(std::string_view op);
// The positive form of an operator that says "not".
std::string_view positive_of(std::string_view op);
// The operator that a function of the catalogue stands for: int4eq is "="; else empty.
std::string_view operator_called(std::string_view function);
// Whether the expression is a condition by its form.
bool is_predicate(const Json& expression);

// The leaves of a FROM list, and the conditions of the inner joins between them.
struct FromLeaves {
    std::vector<Json> items;
    std::vector<Json> conditions;

    void add(const Json& item);
};

FromLeaves leaves_of(const JsonObject& select);

// SELECT max(id) FROM ...: one row, whatever the conditions.
bool is_one_aggregate(const JsonObject& select);
// array_agg() and the like: all rows in one value.
bool is_gathering(std::string_view function);
bool gathers_rows(const JsonObject& select);

// The common table expressions that are visible at some place, the nearest first.
struct QueryScope {
    VisibleQuery query;
    std::shared_ptr<const QueryScope> outer;
};

class Judge {
public:
    Judge(std::string_view schema, std::string_view relation, std::string_view name,
          const BoundsScope& scope)
        : scope_(scope),
          target_schema_(schema),
          target_relation_(relation),
          own_names_{name},
          visible_origins_(scope.origins != nullptr ? scope.origins->size() : 0),
          being_read_(std::make_shared<std::vector<const QueryScope*>>()) {
        levels_.emplace_back();
        if (scope.queries != nullptr) {
            for (const VisibleQuery& query : *scope.queries) {
                queries_ = std::make_shared<const QueryScope>(QueryScope{query, queries_});
            }
        }
    }

    // Of rows that every name belongs to.
    static Judge of_any_row(const BoundsScope& scope) {
        Judge judge({}, {}, {}, scope);
        judge.owns_every_name_ = true;
        return judge;
    }

    static Judge of_relation(const JsonObject& range_var, const BoundsScope& scope) {
        const auto relation = text_field(range_var, "relname");
        const auto alias = object_field(range_var, "alias");
        Judge judge(text_field(range_var, "schemaname"), relation,
                    alias ? text_field(*alias, "aliasname") : relation, scope);
        judge.aliased_ = alias.has_value();
        return judge;
    }

    void add_source(const Json& item) {
        FromLeaves leaves;
        leaves.add(item);
        for (const Json& leaf : leaves.items) {
            if (const auto source = source_of(leaf)) {
                levels_.front().push_back(*source);
            }
        }
        joins_.insert(joins_.end(), leaves.conditions.begin(), leaves.conditions.end());
    }

    Verdict judge(const Json& expression, bool negated);

    // The whole condition of a statement: its own, and those of the joins.
    Verdict condition(const std::optional<Json>& where) {
        return with_joins(where ? std::vector<Json>{*where} : std::vector<Json>{});
    }
    Verdict with_joins(std::vector<Json> conditions) {
        conditions.insert(conditions.end(), joins_.begin(), joins_.end());
        return all_of(conditions);
    }

    // Conditions that all must be met. What looks like a bound is tried out on rows.
    Verdict all_of(const std::vector<Json>& conditions);

    static Verdict both(const Verdict& left, const Verdict& right) {
        if (left.effect == Effect::never || right.effect == Effect::never) {
            return never();
        }
        if (left.effect == Effect::bound || right.effect == Effect::bound) {
            return bound();
        }
        const bool right_says_more = left.reason == always_true || left.reason == no_where ||
                                     (left.reason == row_independent &&
                                      right.reason != always_true);
        return open(right_says_more && !right.reason.empty() ? right.reason : left.reason,
                    left.ties | right.ties, left.restricts | right.restricts);
    }

    Flag flag(const Verdict& verdict) const {
        if (scope_.work != nullptr && *scope_.work == 0) {
            return {true, std::string(too_intricate)};
        }
        if (settled(verdict).effect != Effect::open) {
            return {};
        }
        return {true, std::string(verdict.reason)};
    }

    // Whether a query runs over all rows of the target.
    bool copies_target(const JsonObject& select);

private:
    friend class FormulaWriter;

    using Level = std::vector<Source>;

    // One alternative of a disjunction: a condition, or a comparison that stands in none (id IN (1,
    // 2)).
    struct Term {
        Json left;
        bool negated = false;
        std::string_view op;  // empty: `left` is the whole condition
        Json right{};
    };

    Verdict settled(const Verdict& verdict) const {
        if (verdict.effect == Effect::open &&
            (verdict.ties & (verdict.restricts | ~copies_)) != 0) {
            return bound();
        }
        return verdict;
    }

    bool is_target(const JsonObject& range_var) const;
    bool item_copies_target(const Json& item);
    bool query_copies_target(const QueryScope& found);
    // Makes the queries of its WITH visible while a query is looked at.
    class Within {
    public:
        Within(Judge& judge, const JsonObject& select);
        ~Within() { judge_.queries_ = std::move(before_); }
        Within(const Within&) = delete;
        Within& operator=(const Within&) = delete;

    private:
        Judge& judge_;
        std::shared_ptr<const QueryScope> before_;
    };
    std::optional<Source> source_of(const Json& leaf);
    static bool has_others(const Level& level) {
        return std::any_of(level.begin(), level.end(),
                           [](const Source& each) { return !each.own; });
    }
    bool has_sources() const {
        return std::any_of(levels_.begin(), levels_.end(),
                           [](const Level& level) { return has_others(level); });
    }
    std::uint64_t visible_sources() const;

    // False when no more nodes may be visited.
    bool spend() const {
        if (scope_.work == nullptr) {
            return true;
        }
        if (*scope_.work == 0) {
            return false;
        }
        --*scope_.work;
        return true;
    }

    void depend_on_variable(std::string_view name, Dependencies& out);
    void depend_on_column(const JsonObject& column, Dependencies& out);
    void depend_on_query(const JsonObject& select, Dependencies& out);
    void depend_on(const Json& expression, Dependencies& out);
    Dependencies dependencies(const Json& expression) {
        Dependencies out;
        depend_on(expression, out);
        return out;
    }

    void write_canonical(const Json& expression, std::string& out);
    std::string canonical(const Json& expression) {
        std::string out;
        write_canonical(expression, out);
        return out;
    }

    std::optional<Constant> fold(const Json& expression);
    std::optional<Constant> fold_operator(const JsonObject& body);
    std::optional<Constant> fold_case(const JsonObject& body);
    std::optional<Constant> fold_range(const JsonObject& body);
    std::optional<Constant> pattern(const Json& expression);
    std::optional<Constant> under_casts(const Json& expression,
                                        const std::optional<Constant>& folded);

    Verdict any_of(const std::vector<Term>& terms);
    Verdict judge_term(const Term& term);
    void collect_alternatives(const Json& expression, bool negated, std::vector<Term>& out);
    Verdict judge_boolean(const JsonObject& body, bool negated);
    Verdict judge_operator(const JsonObject& body, bool negated);
    bool is_one_row(const Json& expression, const Dependencies& found) const;
    Verdict judge_comparison(std::string_view op, const Json& left, const Json& right, bool negated,
                             bool one_row = true);
    Verdict judge_rows(std::string_view op, const Items& left, const Items& right, bool negated);
    Verdict judge_elements(std::string_view op, const Json& left, const Items& elements, bool any,
                           bool negated);
    Verdict judge_array(std::string_view op, const Json& left, const Json& right, bool any,
                        bool negated);
    Verdict judge_between(const Json& left, const Json& right, bool symmetric, bool negated);
    Verdict judge_is_null(const Json& argument, bool negated);
    Verdict judge_boolean_test(const JsonObject& body, bool negated);
    Verdict judge_case(const JsonObject& body, bool negated);
    Verdict judge_sublink(const JsonObject& body, bool negated);
    Verdict judge_exists(const JsonObject& select, bool negated, bool counted = false);
    std::optional<Verdict> judge_count(std::string_view op, const Json& left, const Json& right,
                                       bool negated);
    Verdict judge_in_query(const JsonObject& sublink, const JsonObject& select, bool negated);
    Verdict judge_value(const Json& expression);
    Verdict judge_function(const JsonObject& body, bool negated);
    Verdict tie(std::uint64_t sources) const {
        return (sources & ~copies_) != 0 ? bound() : open(whole_again, sources);
    }
    // Whether every value stands in the relation `op` to this literal: '-infinity', '%'.
    static bool matches_all_values(std::string_view op, const std::optional<Constant>& right);
    bool always_empty(const JsonObject& select);
    bool every_row_meets(const std::vector<Json>& conditions);
    // A row of the target as a whole; a JSON object with the same keys for each row.
    bool is_whole_row(const Json& expression) const;
    bool has_same_keys(const Json& expression) const;
    bool falls_back_to(const Json& expression, const Json& value);

    BoundsScope scope_;
    std::string_view target_schema_;
    std::string_view target_relation_;
    std::vector<std::string_view> own_names_;
    bool aliased_ = false;
    bool owns_every_name_ = false;
    std::vector<Level> levels_;
    std::vector<Json> joins_;
    std::uint64_t copies_ = 0;  // sources that are the whole target once more
    unsigned next_bit_ = 0;
    unsigned depth_ = 0;
    std::shared_ptr<const QueryScope> queries_;
    std::size_t visible_origins_ = 0;
    std::vector<std::optional<std::uint64_t>> origin_bits_;
    // The common table expressions whose queries are being looked at, further out.
    std::shared_ptr<std::vector<const QueryScope*>> being_read_;
};

}  // namespace pgchaperone::policy::bounds
