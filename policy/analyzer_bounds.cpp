#include "policy/analyzer_bounds.h"

#include "policy/analyzer_constant.h"
#include "policy/functions_table.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <memory>
#include <optional>
#include <utility>

namespace pgchaperone::policy {

namespace {

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
    bool copies_target = false;  // a query of its own over all rows of the target
    std::uint64_t sources = 0;

    bool nothing() const { return !own && !ambiguous && !outside && sources == 0; }
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

Verdict bound() { return {Effect::bound, 0, 0, {}}; }
Verdict never() { return {Effect::never, 0, 0, {}}; }
Verdict open(std::string_view reason, std::uint64_t ties = 0, std::uint64_t restricts = 0) {
    return {Effect::open, ties, restricts, reason};
}

constexpr std::string_view no_where = "has no WHERE";
constexpr std::string_view always_true = "has a WHERE that is always true";
constexpr std::string_view row_independent = "has a WHERE that does not depend on the row";
constexpr std::string_view compares_itself = "has a WHERE that compares the row only with itself";
constexpr std::string_view
    not_null_only = "has a WHERE that only asks for values that are not null";
constexpr std::string_view matches_all = "has a WHERE that matches every value";
constexpr std::string_view whole_again = "has a WHERE that only looks rows up in the same table";
constexpr std::string_view covers_all = "has a WHERE whose alternatives leave no row out";
constexpr std::string_view by_chance = "has a WHERE that compares only with a volatile function";
constexpr std::string_view too_intricate = "has a WHERE that is too intricate to be judged";
constexpr std::string_view not_tied = "has another relation that no condition ties to its rows";

struct Source {
    std::string_view schema;
    std::string_view name;
    std::uint64_t bit = 0;
};

std::string_view last_name(const Items& names) {
    std::string_view name;
    for (const Json part : names) {
        name = string_value(part);
    }
    return name;
}

bool is_comparison(std::string_view op) {
    return op == "=" || op == "<>" || op == "<" || op == ">" || op == "<=" || op == ">=";
}

std::string_view negation_of(std::string_view op) {
    if (op == "=") return "<>";
    if (op == "<>") return "=";
    if (op == "<") return ">=";
    if (op == ">=") return "<";
    if (op == ">") return "<=";
    if (op == "<=") return ">";
    return {};
}

std::string_view mirror_of(std::string_view op) {
    if (op == "<") return ">";
    if (op == ">") return "<";
    if (op == "<=") return ">=";
    if (op == ">=") return "<=";
    if (op == "@>") return "<@";
    if (op == "<@") return "@>";
    return op;
}

// The positive form of an operator that says "not".
std::string_view positive_of(std::string_view op) {
    if (op == "!~~") return "~~";
    if (op == "!~~*") return "~~*";
    if (op == "!~") return "~";
    if (op == "!~*") return "~*";
    return {};
}

bool equals_no_case(std::string_view text, std::string_view lower) {
    return text.size() == lower.size() &&
           std::equal(text.begin(), text.end(), lower.begin(), [](char a, char b) {
               return std::tolower(static_cast<unsigned char>(a)) == b;
           });
}

Verdict of_constant(const std::optional<Constant>& value, bool negated) {
    if (!value) {
        return open(row_independent);
    }
    if (value->is_null()) {
        return never();
    }
    return value->boolean != negated ? open(always_true) : never();
}

// The leaves of a FROM list, and the conditions of the inner joins between them.
struct FromLeaves {
    std::vector<Json> items;
    std::vector<Json> conditions;

    void add(const Json& item) {
        const auto node = as_node(item);
        if (!node) {
            return;
        }
        if (node->type != "JoinExpr") {
            items.push_back(item);
            return;
        }
        for (const std::string_view side : {"larg", "rarg"}) {
            if (const auto child = field(node->body, side)) {
                add(*child);
            }
        }
        if (text_field(node->body, "jointype") == "JOIN_INNER") {
            if (const auto condition = field(node->body, "quals")) {
                conditions.push_back(*condition);
            }
        }
    }
};

FromLeaves leaves_of(const JsonObject& select) {
    FromLeaves leaves;
    for (const Json item : items_field(select, "fromClause")) {
        leaves.add(item);
    }
    return leaves;
}

bool calls_aggregate(const Json& expression) {
    if (const auto node = as_node(expression)) {
        if (node->type == "SubLink") {
            return false;
        }
        if (node->type == "FuncCall") {
            if (!object_field(node->body, "over") &&
                find_function(last_name(items_field(node->body, "funcname"))).aggregate) {
                return true;
            }
        }
    }
    if (const auto object = as_object(expression)) {
        for (const auto& [key, value] : *object) {
            if (calls_aggregate(value)) {
                return true;
            }
        }
        return false;
    }
    JsonArray array;
    if (expression.get(array) == simdjson::SUCCESS) {
        for (const Json item : array) {
            if (calls_aggregate(item)) {
                return true;
            }
        }
    }
    return false;
}

// SELECT max(id) FROM ...: one row, whatever the conditions.
bool is_one_aggregate(const JsonObject& select) {
    if (!items_field(select, "groupClause").empty() || field(select, "havingClause")) {
        return false;
    }
    for (const Json item : items_field(select, "targetList")) {
        if (calls_aggregate(item)) {
            return true;
        }
    }
    return false;
}

class Judge {
public:
    Judge(std::string_view schema, std::string_view relation, std::string_view name,
          const BoundsScope& scope)
        : scope_(scope),
          target_schema_(schema),
          target_relation_(relation),
          own_names_{name},
          visible_queries_(scope.queries != nullptr ? scope.queries->size() : 0),
          being_read_(std::make_shared<std::vector<std::size_t>>()) {
        levels_.emplace_back();
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
        Verdict all = where ? judge(*where, false) : open(no_where);
        for (const Json& join : joins_) {
            all = both(all, judge(join, false));
        }
        return all;
    }

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
    bool query_copies_target(std::size_t index);
    std::optional<Source> source_of(const Json& leaf);
    bool has_sources() const {
        return std::any_of(levels_.begin(), levels_.end(),
                           [](const Level& l) { return !l.empty(); });
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
    std::optional<Constant> pattern(const Json& expression);
    std::optional<Constant> under_casts(const Json& expression,
                                        const std::optional<Constant>& folded);

    Verdict any_of(const std::vector<Term>& terms);
    Verdict judge_term(const Term& term);
    bool covers_everything(const std::vector<Term>& terms);
    void collect_alternatives(const Json& expression, bool negated, std::vector<Term>& out);
    Verdict judge_boolean(const JsonObject& body, bool negated);
    Verdict judge_operator(const JsonObject& body, bool negated);
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
    Verdict judge_exists(const JsonObject& select, bool negated);
    Verdict judge_in_query(const JsonObject& sublink, const JsonObject& select, bool negated);
    Verdict judge_value(const Json& expression);
    Verdict judge_function(const JsonObject& body, bool negated);
    Verdict tie(std::uint64_t sources) const {
        return (sources & ~copies_) != 0 ? bound() : open(whole_again, sources);
    }
    bool matches_all_values(std::string_view op, const Json& left,
                            const std::optional<Constant>& right);
    bool always_empty(const JsonObject& select);
    bool falls_back_to(const Json& expression, const Json& value);

    BoundsScope scope_;
    std::string_view target_schema_;
    std::string_view target_relation_;
    std::vector<std::string_view> own_names_;
    bool aliased_ = false;
    std::vector<Level> levels_;
    std::vector<Json> joins_;
    std::uint64_t copies_ = 0;  // sources that are the whole target once more
    unsigned next_bit_ = 0;
    unsigned depth_ = 0;
    std::size_t visible_queries_ = 0;
    // The common table expressions whose queries are being looked at, further out.
    std::shared_ptr<std::vector<std::size_t>> being_read_;
};

bool is_predicate(const Json& expression) {
    const auto node = as_node(expression);
    if (!node) {
        return false;
    }
    if (node->type == "A_Expr") {
        const auto kind = text_field(node->body, "kind");
        if (kind == "AEXPR_NULLIF") {
            return false;
        }
        if (kind != "AEXPR_OP") {
            return true;
        }
        const auto op = last_name(items_field(node->body, "name"));
        return is_comparison(op) || op == "~~" || op == "~" || !positive_of(op).empty();
    }
    if (node->type == "SubLink") {
        const auto kind = text_field(node->body, "subLinkType");
        return kind == "EXISTS_SUBLINK" || kind == "ANY_SUBLINK" || kind == "ALL_SUBLINK";
    }
    return node->type == "BoolExpr" || node->type == "NullTest" || node->type == "BooleanTest";
}

bool Judge::is_target(const JsonObject& range_var) const {
    if (text_field(range_var, "relname") != target_relation_) {
        return false;
    }
    const auto schema = text_field(range_var, "schemaname");
    return schema.empty() || target_schema_.empty() || schema == target_schema_;
}

bool Judge::item_copies_target(const Json& item) {
    const auto node = as_node(item);
    if (!node) {
        return false;
    }
    if (node->type == "RangeVar") {
        const auto name = text_field(node->body, "relname");
        if (text_field(node->body, "schemaname").empty()) {
            for (std::size_t i = visible_queries_; i-- > 0;) {
                if ((*scope_.queries)[i].name == name) {
                    return query_copies_target(i);
                }
            }
        }
        return is_target(node->body);
    }
    if (node->type == "RangeSubselect") {
        const auto select = node_field(node->body, "subquery");
        return select && select->type == "SelectStmt" && copies_target(select->body);
    }
    if (node->type == "RangeTableSample") {
        const auto relation = node_field(node->body, "relation");
        return relation && relation->type == "RangeVar" && is_target(relation->body);
    }
    if (node->type == "RangeFunction") {
        return dependencies(item).copies_target;
    }
    return false;
}

// A common table expression. Where it refers to itself, its other arms decide.
bool Judge::query_copies_target(std::size_t index) {
    const VisibleQuery& query = (*scope_.queries)[index];
    if (std::find(being_read_->begin(), being_read_->end(), index) != being_read_->end()) {
        return false;
    }
    const auto select = as_node(query.query);
    if (!select || select->type != "SelectStmt") {
        return false;
    }
    const std::size_t visible = visible_queries_;
    if (!query.recursive) {
        visible_queries_ = index;
    }
    being_read_->push_back(index);
    const bool copies = copies_target(select->body);
    being_read_->pop_back();
    visible_queries_ = visible;
    return copies;
}

bool Judge::copies_target(const JsonObject& select) {
    constexpr unsigned deepest = 12;
    if (depth_ > deepest || !spend()) {
        return true;
    }
    if (const auto left = object_field(select, "larg")) {
        const auto right = object_field(select, "rarg");
        const bool in_left = copies_target(*left);
        const auto op = text_field(select, "op");
        if (op == "SETOP_EXCEPT") {
            return in_left;
        }
        const bool in_right = right && copies_target(*right);
        return op == "SETOP_INTERSECT" ? in_left && in_right : in_left || in_right;
    }
    if (const auto limit = field(select, "limitCount")) {
        const auto value = fold(*limit);
        const auto found = dependencies(*limit);
        if (value ? !value->is_null()
                  : found.outside && !found.copies_target && !is_predicate(*limit)) {
            return false;
        }
    }
    const FromLeaves leaves = leaves_of(select);
    for (const Json& item : leaves.items) {
        if (!item_copies_target(item)) {
            continue;
        }
        // Is the copy bounded where it stands? There, it is the target, and so is the row outside.
        const auto node = as_node(item);
        const auto alias = object_field(node->body, "alias");
        const auto name = alias ? text_field(*alias, "aliasname")
                                : text_field(node->body, "relname");
        Judge inner(target_schema_, target_relation_, name, scope_);
        inner.aliased_ = true;
        inner.depth_ = depth_ + 1;
        inner.visible_queries_ = visible_queries_;
        inner.being_read_ = being_read_;
        for (const auto own : own_names_) {
            if (own != name) {
                inner.own_names_.push_back(own);
            }
        }
        for (const Json& other : leaves.items) {
            if (&other != &item) {
                inner.add_source(other);
            }
        }
        inner.joins_ = leaves.conditions;
        if (inner.settled(inner.condition(field(select, "whereClause"))).effect == Effect::open) {
            return true;
        }
    }
    return false;
}

// Looking at a leaf may look at queries in it, and then levels_ grows and shrinks.
std::optional<Source> Judge::source_of(const Json& leaf) {
    const auto node = as_node(leaf);
    if (!node) {
        return std::nullopt;
    }
    Source source;
    if (const auto alias = object_field(node->body, "alias")) {
        source.name = text_field(*alias, "aliasname");
    } else if (node->type == "RangeVar") {
        source.name = text_field(node->body, "relname");
        source.schema = text_field(node->body, "schemaname");
    } else if (node->type == "RangeTableSample") {
        if (const auto relation = node_field(node->body, "relation")) {
            const auto inner = object_field(relation->body, "alias");
            source.name = inner ? text_field(*inner, "aliasname")
                                : text_field(relation->body, "relname");
        }
    } else if (node->type == "RangeFunction") {
        // Without an alias the function's name is the relation's.
        for (const Json function : items_field(node->body, "functions")) {
            for (const Json part : list_items(function)) {
                const auto call = as_node(part);
                if (call && call->type == "FuncCall") {
                    source.name = last_name(items_field(call->body, "funcname"));
                }
                break;
            }
        }
    }
    source.bit = std::uint64_t{1} << std::min(next_bit_++, 63U);
    if (item_copies_target(leaf) && next_bit_ < 63) {
        copies_ |= source.bit;
    }
    return source;
}

std::uint64_t Judge::visible_sources() const {
    std::uint64_t all = 0;
    for (const Level& level : levels_) {
        for (const Source& source : level) {
            all |= source.bit;
        }
    }
    return all;
}

void Judge::depend_on_column(const JsonObject& column, Dependencies& out) {
    std::array<std::string_view, 4> names;
    std::size_t count = 0;
    bool star = false;
    for (const Json part : items_field(column, "fields")) {
        const auto node = as_node(part);
        if (node && node->type == "A_Star") {
            star = true;
        } else if (count < names.size()) {
            names[count++] = string_value(part);
        }
    }
    if (count == 1 && !star) {
        const auto name = names[0];
        if (scope_.variables != nullptr &&
            std::find(scope_.variables->begin(), scope_.variables->end(), name) !=
                scope_.variables->end()) {
            out.outside = true;
        } else if (name == "tableoid") {
            // The same for every row of a table.
        } else if (std::find(own_names_.begin(), own_names_.end(), name) != own_names_.end()) {
            out.own = true;  // the whole row
        } else if (has_sources()) {
            out.ambiguous = true;
        } else {
            out.own = true;
        }
        return;
    }
    if (count == 0) {
        out.ambiguous = true;  // a lone star: count(*) and the like
        return;
    }
    const std::size_t at = star ? count - 1 : count - 2;
    const auto qualifier = names[at];
    const auto schema = at > 0 ? names[at - 1] : std::string_view{};
    for (std::size_t i = levels_.size(); i-- > 0;) {
        for (const Source& source : levels_[i]) {
            if (source.name == qualifier &&
                (schema.empty() || source.schema.empty() || schema == source.schema)) {
                out.sources |= source.bit;
                return;
            }
        }
    }
    if (!star && names[count - 1] == "tableoid") {
        return;
    }
    if (std::find(own_names_.begin(), own_names_.end(), qualifier) != own_names_.end() &&
        (schema.empty() || (!aliased_ && (target_schema_.empty() || schema == target_schema_)))) {
        out.own = true;
    } else {
        out.outside = true;  // NEW, OLD, a variable's field; otherwise the server refuses it
    }
}

void Judge::depend_on_query(const JsonObject& select, Dependencies& out) {
    const FromLeaves leaves = leaves_of(select);
    Level level;
    for (const Json& leaf : leaves.items) {
        if (const auto source = source_of(leaf)) {
            level.push_back(*source);
        }
    }
    std::uint64_t inner = 0;
    for (const Source& source : level) {
        inner |= source.bit;
    }
    const bool from = !level.empty();
    levels_.push_back(std::move(level));
    Dependencies found;
    for (const auto& [key, value] : select) {
        if (key == "larg" || key == "rarg") {
            JsonObject side;
            if (value.get(side) == simdjson::SUCCESS) {
                depend_on_query(side, found);
            }
        } else {
            depend_on(value, found);
        }
    }
    levels_.pop_back();
    out.own |= found.own;
    out.outside |= found.outside || from;
    out.is_volatile |= found.is_volatile;
    out.unknown_function |= found.unknown_function;
    out.ambiguous |= found.ambiguous && !from;
    out.copies_target |= found.copies_target;
    out.sources |= found.sources & ~inner;
}

void Judge::depend_on(const Json& expression, Dependencies& out) {
    if (!spend()) {
        return;
    }
    JsonArray array;
    if (expression.get(array) == simdjson::SUCCESS) {
        for (const Json item : array) {
            depend_on(item, out);
        }
        return;
    }
    const auto object = as_object(expression);
    if (!object) {
        return;
    }
    for (const auto& [key, value] : *object) {
        if (key == "ColumnRef") {
            if (const auto body = as_object(value)) {
                depend_on_column(*body, out);
            }
        } else if (key == "ParamRef") {
            out.outside = true;
        } else if (key == "SelectStmt") {
            if (const auto body = as_object(value)) {
                if (copies_target(*body)) {
                    out.copies_target = true;
                }
                depend_on_query(*body, out);
            }
        } else if (key == "FuncCall") {
            if (const auto body = as_object(value)) {
                const auto name = last_name(items_field(*body, "funcname"));
                if (name == "pg_typeof" || name == "pg_collation_for") {
                    continue;  // the type of a column is the same for all rows
                }
                const auto function = find_function(name);
                out.unknown_function |= !function.known;
                out.is_volatile |= function.known && function.varies_by_chance;
                if (const auto arguments = field(*body, "args")) {
                    depend_on(*arguments, out);
                }
                for (const auto* other : {"agg_filter", "agg_order", "over"}) {
                    if (const auto part = field(*body, other)) {
                        depend_on(*part, out);
                    }
                }
            }
        } else {
            depend_on(value, out);
        }
    }
}

// The expression without positions, its own columns by their bare names: equal texts mean equal
// values.
void Judge::write_canonical(const Json& expression, std::string& out) {
    if (!spend()) {
        return;
    }
    JsonArray array;
    if (expression.get(array) == simdjson::SUCCESS) {
        out += '[';
        for (const Json item : array) {
            write_canonical(item, out);
        }
        out += ']';
        return;
    }
    if (const auto object = as_object(expression)) {
        out += '{';
        for (const auto& [key, value] : *object) {
            if (key == "location") {
                continue;
            }
            out += key;
            out += ':';
            if (key == "ColumnRef") {
                const auto body = as_object(value);
                Dependencies found;
                if (body) {
                    depend_on_column(*body, found);
                }
                if (body && found.own) {
                    out += "own.";
                    out += last_name(items_field(*body, "fields"));
                    continue;
                }
            }
            write_canonical(value, out);
        }
        out += '}';
        return;
    }
    std::string_view text;
    std::int64_t number = 0;
    bool truth = false;
    if (expression.get(text) == simdjson::SUCCESS) {
        out += '"';
        out += text;
        out += '"';
    } else if (expression.get(number) == simdjson::SUCCESS) {
        out += std::to_string(number);
    } else if (expression.get(truth) == simdjson::SUCCESS) {
        out += truth ? '1' : '0';
    }
}

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
    return std::nullopt;
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

bool Judge::matches_all_values(std::string_view op, const Json& left,
                               const std::optional<Constant>& right) {
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
            return text.empty() || equals_no_case(text, "-infinity") || text == "(0,0)";
        }
        if (op == ">") {
            return equals_no_case(text, "-infinity") || text == "(0,0)";
        }
        if (op == "<=" || op == "<") {
            return equals_no_case(text, "infinity");
        }
        if (op == "@>") {
            return text == "{}" || text == "[]" || equals_no_case(text, "empty") || text.empty();
        }
        if (op == "<@") {
            return text.size() == 3 && text[1] == ',';  // the range without ends
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
    const auto node = as_node(left);
    if (node && node->type == "FuncCall") {
        constexpr std::array never_negative = {
            "length", "char_length", "character_length", "octet_length",       "bit_length",
            "abs",    "cardinality", "pg_column_size",   "num_nulls",          "num_nonnulls",
            "strpos", "position",    "textlen",          "jsonb_array_length", "json_array_length"};
        const auto name = last_name(items_field(node->body, "funcname"));
        if (std::find(never_negative.begin(), never_negative.end(), name) != never_negative.end()) {
            return (op == ">=" && right->number <= 0) || (op == ">" && right->number < 0) ||
                   (op == "<>" && right->number < 0);
        }
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

Verdict Judge::judge_term(const Term& term) {
    return term.op.empty() ? judge(term.left, term.negated)
                           : judge_comparison(term.op, term.left, term.right, term.negated);
}

Verdict Judge::any_of(const std::vector<Term>& terms) {
    bool any = false;
    Verdict all = bound();
    all.ties = all.restricts = ~std::uint64_t{0};
    for (const Term& term : terms) {
        const Verdict one = judge_term(term);
        if (one.effect == Effect::never) {
            continue;
        }
        any = true;
        if (one.effect == Effect::open) {
            if (all.effect == Effect::bound) {
                all.effect = Effect::open;
                all.reason = one.reason;
            }
            all.ties &= one.ties;
            all.restricts &= one.restricts;
        }
    }
    if (!any) {
        return never();
    }
    if (all.effect == Effect::bound) {
        return terms.size() > 1 && covers_everything(terms) ? open(covers_all) : bound();
    }
    return all;
}

// Whether alternatives that are each a bound leave no row out: "a OR NOT a", "x < 5 OR x >= 5",
// "x IN (true, false)", "x <> 1 OR x <> 2". Values are tried at and between the constants that are
// named.
bool Judge::covers_everything(const std::vector<Term>& terms) {
    constexpr std::size_t most_terms = 64;
    if (terms.size() > most_terms) {
        return false;
    }
    struct Simple {
        std::string_view op;
        Constant value;
    };
    std::map<std::string, std::vector<Simple>> by_value;
    std::map<std::string, unsigned> by_condition;
    for (const Term& term : terms) {
        std::string_view op = term.op;
        Json left = term.left;
        std::optional<Json> right = term.op.empty() ? std::nullopt : std::optional(term.right);
        if (op.empty()) {
            unsigned& seen = by_condition[canonical(term.left)];
            seen |= term.negated ? 2U : 1U;
            if (seen == 3) {
                return true;
            }
            const auto node = as_node(term.left);
            if (!node) {
                continue;
            }
            if (node->type == "ColumnRef") {
                by_value[canonical(term.left)].push_back({"=", Constant::make(!term.negated)});
                continue;
            }
            if (node->type == "BooleanTest") {
                const auto argument = field(node->body, "arg");
                const auto kind = text_field(node->body, "booltesttype");
                if (argument && (kind == "IS_TRUE" || kind == "IS_FALSE")) {
                    by_value[canonical(*argument)].push_back(
                        {"=", Constant::make((kind == "IS_TRUE") != term.negated)});
                }
                continue;
            }
            if (node->type != "A_Expr" || text_field(node->body, "kind") != "AEXPR_OP") {
                continue;
            }
            op = last_name(items_field(node->body, "name"));
            const auto l = field(node->body, "lexpr");
            right = field(node->body, "rexpr");
            if (!l || !right) {
                continue;
            }
            left = *l;
        }
        if (!is_comparison(op) || !right) {
            continue;
        }
        auto value = fold(*right);
        if (!value) {
            value = fold(left);
            if (!value) {
                continue;
            }
            std::swap(left, *right);
            op = mirror_of(op);
        }
        if (term.negated) {
            op = negation_of(op);
        }
        if (!value->is_null()) {
            by_value[canonical(left)].push_back({op, *value});
        }
    }
    for (const auto& group : by_value) {
        // A name of its own: clang 14 does not let lambdas capture structured bindings.
        const std::vector<Simple>& simple = group.second;
        std::vector<Constant> values;
        for (const Simple& one : simple) {
            const auto same = [&](const Constant& other) { return compare(one.value, other) == 0; };
            if (std::none_of(values.begin(), values.end(), same)) {
                values.push_back(one.value);
            }
        }
        const bool booleans = std::all_of(values.begin(), values.end(), [](const Constant& c) {
            return c.kind == Constant::Kind::boolean ||
                   (c.untyped &&
                    (c.text == "t" || c.text == "f" || c.text == "true" || c.text == "false"));
        });
        std::sort(values.begin(), values.end(), [](const Constant& a, const Constant& b) {
            return compare(a, b).value_or(0) < 0;
        });
        const auto place = [&](const Constant& value) {
            for (std::size_t i = 0; i < values.size(); ++i) {
                if (compare(values[i], value) == 0) {
                    return 2 * i + 1;
                }
            }
            return std::size_t{0};
        };
        const auto covered = [&](std::size_t point) {
            return std::any_of(simple.begin(), simple.end(), [&](const Simple& one) {
                const std::size_t at = place(one.value);
                if (one.op == "=") return point == at;
                if (one.op == "<>") return point != at;
                if (one.op == "<") return point < at;
                if (one.op == "<=") return point <= at;
                if (one.op == ">") return point > at;
                return point >= at;
            });
        };
        bool all = true;
        for (std::size_t point = 0; point <= 2 * values.size() && all; ++point) {
            // Between true and false there is nothing, but both must be covered.
            all = (booleans && point % 2 == 0) || covered(point);
        }
        if (all && (!booleans || values.size() == 2)) {
            return true;
        }
    }
    return false;
}

// The alternatives of a condition, through nested ORs and negated ANDs.
void Judge::collect_alternatives(const Json& expression, bool negated, std::vector<Term>& out) {
    const auto node = as_node(expression);
    if (node && node->type == "BoolExpr") {
        const auto op = text_field(node->body, "boolop");
        if (op == "NOT_EXPR") {
            for (const Json argument : items_field(node->body, "args")) {
                collect_alternatives(argument, !negated, out);
            }
            return;
        }
        if ((op == "OR_EXPR") != negated) {
            for (const Json argument : items_field(node->body, "args")) {
                collect_alternatives(argument, negated, out);
            }
            return;
        }
    }
    out.push_back({expression, negated, {}, {}});
}

Verdict Judge::judge_boolean(const JsonObject& body, bool negated) {
    const auto op = text_field(body, "boolop");
    const Items arguments = items_field(body, "args");
    if (op == "NOT_EXPR") {
        for (const Json argument : arguments) {
            return judge(argument, !negated);
        }
        return open(row_independent);
    }
    if ((op == "AND_EXPR") != negated) {
        std::optional<Verdict> all;
        for (const Json argument : arguments) {
            const Verdict one = judge(argument, negated);
            all = all ? both(*all, one) : one;
        }
        return all.value_or(open(row_independent));
    }
    std::vector<Term> terms;
    for (const Json argument : arguments) {
        collect_alternatives(argument, negated, terms);
    }
    return any_of(terms);
}

Verdict Judge::judge_rows(std::string_view op, const Items& left, const Items& right,
                          bool negated) {
    std::vector<Json> l;
    std::vector<Json> r;
    for (const Json item : left) {
        l.push_back(item);
    }
    for (const Json item : right) {
        r.push_back(item);
    }
    if (l.empty() || l.size() != r.size()) {
        return open(row_independent);
    }
    if (negated) {
        return judge_rows(negation_of(op), left, right, false);
    }
    if (op == "<>") {
        std::vector<Term> terms;
        for (std::size_t i = 0; i < l.size(); ++i) {
            terms.push_back({l[i], false, op, r[i]});
        }
        return any_of(terms);
    }
    if (op == "=") {
        std::optional<Verdict> all;
        for (std::size_t i = 0; i < l.size(); ++i) {
            const Verdict one = judge_comparison(op, l[i], r[i], false);
            all = all ? both(*all, one) : one;
        }
        return *all;
    }
    // The first pair that differs decides.
    for (std::size_t i = 0; i < l.size(); ++i) {
        const auto a = fold(l[i]);
        const auto b = fold(r[i]);
        const bool same = (a && b && compare(*a, *b) == 0) || canonical(l[i]) == canonical(r[i]);
        if (!same || i + 1 == l.size()) {
            return judge_comparison(op, l[i], r[i], false);
        }
    }
    return open(row_independent);
}

Verdict Judge::judge_comparison(std::string_view op, const Json& left, const Json& right,
                                bool negated, bool one_row) {
    if (const auto positive = positive_of(op); !positive.empty()) {
        return judge_comparison(positive, left, right, !negated, one_row);
    }
    const auto left_node = as_node(left);
    const auto right_node = as_node(right);
    if (left_node && right_node && left_node->type == "RowExpr" && right_node->type == "RowExpr" &&
        is_comparison(op)) {
        return judge_rows(op, items_field(left_node->body, "args"),
                          items_field(right_node->body, "args"), negated);
    }
    const auto a = fold(left);
    const auto b = pattern(right);
    if (a && b) {
        const auto value = apply(op, *a, *b);
        return value ? of_constant(to_boolean(*value), negated) : open(row_independent);
    }
    if (is_comparison(op) && ((a && a->is_null()) || (b && b->is_null()))) {
        // transform_null_equals makes IS NULL of "= NULL", so that its negation may be true.
        return negated && op == "=" ? open(not_null_only) : never();
    }
    // A condition compared with true or false is the condition or its contrary.
    if (op == "=" || op == "<>") {
        for (const bool mirrored : {false, true}) {
            const Json& side = mirrored ? right : left;
            const auto& constant = mirrored ? a : b;
            const auto truth = constant ? to_boolean(*constant) : std::nullopt;
            if (truth && !truth->is_null() && is_predicate(side)) {
                return judge(side, negated != (truth->boolean != (op == "=")));
            }
        }
    }
    const Dependencies l = dependencies(left);
    const Dependencies r = dependencies(right);
    if (l.own && r.own) {
        if (const auto sources = l.sources | r.sources) {
            return tie(sources);
        }
        if ((l.outside || r.outside) && !l.copies_target && !r.copies_target) {
            return falls_back_to(left, right) || falls_back_to(right, left) ? open(compares_itself)
                                                                            : bound();
        }
        if (l.copies_target || r.copies_target) {
            return open(whole_again);
        }
        if (!l.is_volatile && !r.is_volatile && canonical(left) == canonical(right)) {
            const bool true_for_all = op != "<>" && op != "<" && op != ">";
            return true_for_all != negated ? open(compares_itself) : never();
        }
        return open(compares_itself);
    }
    if (!l.own && !r.own) {
        if (l.ambiguous || r.ambiguous) {
            if (const auto sources = l.sources | r.sources) {
                return tie(sources);
            }
            if (l.ambiguous && r.ambiguous) {
                return canonical(left) == canonical(right) ? open(compares_itself)
                                                           : tie(visible_sources());
            }
            return open(not_tied, 0, visible_sources());
        }
        const auto sources = l.sources | r.sources;
        if (sources == 0) {
            return open(l.is_volatile || r.is_volatile ? by_chance : row_independent);
        }
        if ((l.sources != 0) != (r.sources != 0)) {
            return open(not_tied, 0, sources);
        }
        // Two sources with each other: whoever is not the target restricts the other.
        return open(not_tied, 0, (sources & ~copies_) != 0 ? sources : 0);
    }
    const bool mirrored = r.own;
    const Json& own = mirrored ? right : left;
    const Dependencies& other = mirrored ? l : r;
    const auto constant = under_casts(mirrored ? left : right, mirrored ? a : b);
    std::string_view relation = mirrored ? mirror_of(op) : op;
    if (other.copies_target) {
        // One row of the target, found by a query of its own, is a bound; everything on one side of
        // it not.
        return one_row && (relation == "=") != negated && relation == "=" &&
                       [&] {
                           const auto node = as_node(mirrored ? left : right);
                           const auto select = node && node->type == "SubLink"
                                                   ? node_field(node->body, "subselect")
                                                   : std::nullopt;
                           return select && select->type == "SelectStmt" && !other.own &&
                                  is_one_aggregate(select->body);
                       }()
                   ? bound()
                   : open(whole_again);
    }
    if (other.sources != 0) {
        return tie(other.sources);
    }
    if (other.ambiguous) {
        return tie(visible_sources());
    }
    if (other.is_volatile && !other.outside) {
        return open(by_chance);
    }
    bool no = negated;
    if (no && !negation_of(relation).empty()) {
        relation = negation_of(relation);
        no = false;
    }
    if (matches_all_values(relation, own, constant)) {
        return no ? never() : open(matches_all);
    }
    if (const auto contrary = negation_of(relation);
        !contrary.empty() && matches_all_values(contrary, own, constant)) {
        return never();
    }
    return bound();
}

Verdict Judge::judge_elements(std::string_view op, const Json& left, const Items& elements,
                              bool any, bool negated) {
    std::vector<Term> terms;
    for (const Json element : elements) {
        terms.push_back({left, negated, op, element});
    }
    if (terms.empty()) {
        return any == negated ? open(always_true) : never();
    }
    // A long list of constants: its first one stands for the rest.
    constexpr std::size_t short_list = 16;
    if (terms.size() > short_list) {
        const bool constants = std::all_of(terms.begin(), terms.end(), [](const Term& term) {
            const auto node = as_node(term.right);
            return node && (node->type == "A_Const" || node->type == "ParamRef");
        });
        if (constants && op == "=") {
            return judge_comparison(op, left, terms.front().right, negated);
        }
    }
    if (any != negated) {
        return any_of(terms);
    }
    std::optional<Verdict> all;
    for (const Term& term : terms) {
        const Verdict one = judge_term(term);
        all = all ? both(*all, one) : one;
    }
    return *all;
}

// left op ANY|ALL (array)
Verdict Judge::judge_array(std::string_view op, const Json& left, const Json& right, bool any,
                           bool negated) {
    auto node = as_node(right);
    if (node && node->type == "TypeCast") {
        if (const auto argument = node_field(node->body, "arg")) {
            node = argument;
        }
    }
    if (node && node->type == "A_ArrayExpr") {
        return judge_elements(op, left, items_field(node->body, "elements"), any, negated);
    }
    if (node && node->type == "A_Const") {
        const auto value = literal(node->body);
        if (value && value->kind == Constant::Kind::text) {
            const std::string_view text = value->text;
            const auto inner = text.find_first_not_of(" {}");
            if (inner == std::string_view::npos) {
                return any == negated ? open(always_true) : never();
            }
            // x <> ANY of two different values: no x is left out.
            const bool differs_from_any = (op == "<>" && any && !negated) ||
                                          (op == "=" && !any && negated);
            if (differs_from_any && text.find(',') != std::string_view::npos) {
                return open(covers_all);
            }
        }
    }
    return judge_comparison(op, left, right, negated, false);
}

Verdict Judge::judge_between(const Json& left, const Json& right, bool symmetric, bool negated) {
    std::vector<Json> limits;
    for (const Json item : list_items(right)) {
        limits.push_back(item);
    }
    if (limits.size() != 2) {
        return open(row_independent);
    }
    if (symmetric) {
        const auto a = fold(limits[0]);
        const auto b = fold(limits[1]);
        if (a && b && compare(*a, *b).value_or(0) > 0) {
            std::swap(limits[0], limits[1]);
        }
    }
    if (!negated) {
        return both(judge_comparison(">=", left, limits[0], false),
                    judge_comparison("<=", left, limits[1], false));
    }
    return any_of({{left, false, "<", limits[0]}, {left, false, ">", limits[1]}});
}

Verdict Judge::judge_operator(const JsonObject& body, bool negated) {
    const auto kind = text_field(body, "kind");
    const auto op = last_name(items_field(body, "name"));
    const auto left = field(body, "lexpr");
    const auto right = field(body, "rexpr");
    if (!left || !right) {
        return open(row_independent);
    }
    if (kind == "AEXPR_OP_ANY" || kind == "AEXPR_OP_ALL") {
        return judge_array(op, *left, *right, kind == "AEXPR_OP_ANY", negated);
    }
    if (kind == "AEXPR_IN") {
        return judge_elements("=", *left, list_items(*right), true, negated != (op == "<>"));
    }
    if (kind == "AEXPR_BETWEEN" || kind == "AEXPR_BETWEEN_SYM") {
        return judge_between(*left, *right, kind == "AEXPR_BETWEEN_SYM", negated);
    }
    if (kind == "AEXPR_NOT_BETWEEN" || kind == "AEXPR_NOT_BETWEEN_SYM") {
        return judge_between(*left, *right, kind == "AEXPR_NOT_BETWEEN_SYM", !negated);
    }
    if (kind == "AEXPR_DISTINCT" || kind == "AEXPR_NOT_DISTINCT") {
        const bool distinct = (kind == "AEXPR_DISTINCT") != negated;
        for (const bool mirrored : {false, true}) {
            const auto value = fold(mirrored ? *left : *right);
            if (value && value->is_null()) {
                return judge_is_null(mirrored ? *right : *left, distinct);
            }
        }
        return judge_comparison(distinct ? "<>" : "=", *left, *right, false);
    }
    if (kind == "AEXPR_NULLIF") {
        return judge(*left, negated);
    }
    if (kind == "AEXPR_SIMILAR") {
        // Its regular expression is made of a pattern like LIKE's.
        return judge_comparison("~~", *left, *right, negated != (op == "!~"));
    }
    return judge_comparison(op, *left, *right, negated);
}

// `argument` IS NULL, or IS NOT NULL.
Verdict Judge::judge_is_null(const Json& argument, bool negated) {
    if (const auto value = fold(argument)) {
        return value->is_null() != negated ? open(always_true) : never();
    }
    const Dependencies found = dependencies(argument);
    if (found.own) {
        return negated ? open(not_null_only) : bound();
    }
    if (found.ambiguous || found.sources != 0) {
        const auto sources = found.ambiguous ? visible_sources() : found.sources;
        return open(not_tied, 0, negated ? 0 : sources);
    }
    return open(row_independent);
}

Verdict Judge::judge_boolean_test(const JsonObject& body, bool negated) {
    const auto argument = field(body, "arg");
    const auto kind = text_field(body, "booltesttype");
    if (!argument) {
        return open(row_independent);
    }
    auto value = fold(*argument);
    if (value) {
        value = to_boolean(*value);
    }
    if (value) {
        const bool truth = kind == "IS_TRUE"        ? value->is_true()
                           : kind == "IS_NOT_TRUE"  ? !value->is_true()
                           : kind == "IS_FALSE"     ? value->is_false()
                           : kind == "IS_NOT_FALSE" ? !value->is_false()
                           : kind == "IS_UNKNOWN"   ? value->is_null()
                                                    : !value->is_null();
        return truth != negated ? open(always_true) : never();
    }
    if (kind == "IS_UNKNOWN" || kind == "IS_NOT_UNKNOWN") {
        return judge_is_null(*argument, (kind == "IS_NOT_UNKNOWN") != negated);
    }
    if (kind == "IS_TRUE" || kind == "IS_NOT_TRUE") {
        return judge(*argument, (kind == "IS_NOT_TRUE") != negated);
    }
    return judge(*argument, (kind == "IS_FALSE") != negated);
}

Verdict Judge::judge_case(const JsonObject& body, bool negated) {
    // One of the branches is taken: each that can come out true must be a bound.
    const auto subject = field(body, "arg");
    bool any = false;
    Verdict all = bound();
    all.ties = all.restricts = ~std::uint64_t{0};
    const auto add = [&](const Verdict& one) {
        if (one.effect == Effect::never) {
            return;
        }
        any = true;
        if (one.effect == Effect::open) {
            if (all.effect == Effect::bound) {
                all.effect = Effect::open;
                all.reason = one.reason;
            }
            all.ties &= one.ties;
            all.restricts &= one.restricts;
        }
    };
    for (const Json item : items_field(body, "args")) {
        const auto when = as_node(item);
        const auto test = when ? field(when->body, "expr") : std::nullopt;
        const auto result = when ? field(when->body, "result") : std::nullopt;
        if (!test || !result) {
            return open(row_independent);
        }
        add(both(subject ? judge_comparison("=", *subject, *test, false) : judge(*test, false),
                 judge(*result, negated)));
    }
    if (const auto otherwise = field(body, "defresult")) {
        add(judge(*otherwise, negated));
    }
    return any ? all : never();
}

Verdict Judge::judge_exists(const JsonObject& select, bool negated) {
    if (always_empty(select)) {
        return negated ? open(always_true) : never();
    }
    if (is_one_aggregate(select) || !items_field(select, "valuesLists").empty()) {
        return negated ? never() : open(always_true);
    }
    if (const auto left = object_field(select, "larg")) {
        const auto right = object_field(select, "rarg");
        const Verdict in_left = judge_exists(*left, negated);
        if (!right || text_field(select, "op") != "SETOP_UNION") {
            return in_left;
        }
        const Verdict in_right = judge_exists(*right, negated);
        if (negated) {
            return both(in_left, in_right);
        }
        return in_left.effect == Effect::open    ? in_left
               : in_right.effect == Effect::open ? in_right
               : in_left.effect == Effect::bound ? in_left
                                                 : in_right;
    }
    const FromLeaves leaves = leaves_of(select);
    const auto where = field(select, "whereClause");
    if (leaves.items.empty()) {
        if (!where) {
            return negated ? never() : open(always_true);
        }
        return judge(*where, negated);
    }
    Level level;
    for (const Json& leaf : leaves.items) {
        if (const auto source = source_of(leaf)) {
            level.push_back(*source);
        }
    }
    levels_.push_back(std::move(level));
    Verdict all = where ? judge(*where, false) : open(row_independent);
    for (const Json& join : leaves.conditions) {
        all = both(all, judge(join, false));
    }
    // A copy of the target inside a query in FROM keeps what it is tied to: settle it while it is
    // known.
    const Verdict settled_here = settled(all);
    levels_.pop_back();
    if (negated) {
        return settled_here.effect == Effect::never                    ? open(always_true)
               : settled_here.effect == Effect::bound || all.ties != 0 ? bound()
                                                                       : open(row_independent);
    }
    if (settled_here.effect != Effect::open) {
        return settled_here;
    }
    return open(all.ties != 0 ? whole_again : row_independent);
}

Verdict Judge::judge_in_query(const JsonObject& sublink, const JsonObject& select, bool negated) {
    const bool any = text_field(sublink, "subLinkType") == "ANY_SUBLINK";
    std::string_view op = last_name(items_field(sublink, "operName"));
    if (op.empty()) {
        op = "=";
    }
    const auto test = field(sublink, "testexpr");
    if (!test) {
        return open(row_independent);
    }
    if (always_empty(select)) {
        return any == negated ? open(always_true) : never();
    }
    const FromLeaves leaves = leaves_of(select);
    const bool values = !items_field(select, "valuesLists").empty();
    std::vector<Json> columns;
    for (const Json item : items_field(select, "targetList")) {
        const auto target = as_node(item);
        const auto value = target ? field(target->body, "val") : std::nullopt;
        if (value) {
            columns.push_back(*value);
        }
    }
    if (leaves.items.empty() && !values && columns.size() == 1 && !object_field(select, "larg")) {
        const Verdict equal = judge_comparison(op, *test, columns.front(), negated);
        const auto where = field(select, "whereClause");
        return where && !negated ? both(equal, judge(*where, false)) : equal;
    }
    const Dependencies left = dependencies(*test);
    // What the query hands out, seen from inside.
    Level level;
    for (const Json& leaf : leaves.items) {
        if (const auto source = source_of(leaf)) {
            level.push_back(*source);
        }
    }
    std::uint64_t inner = 0;
    for (const Source& source : level) {
        inner |= source.bit;
    }
    levels_.push_back(std::move(level));
    Dependencies out;
    for (const Json& column : columns) {
        depend_on(column, out);
    }
    if (const auto lists = field(select, "valuesLists")) {
        depend_on(*lists, out);
    }
    levels_.pop_back();
    if (left.own) {
        if (out.own && (out.sources & inner) == 0 && !out.ambiguous) {
            return open(compares_itself);
        }
        if (copies_target(select)) {
            const bool one = is_one_aggregate(select) && any && !negated && op == "=";
            return one ? bound() : open(whole_again);
        }
        return bound();
    }
    const Verdict correlated = judge_exists(select, negated != !any);
    if (correlated.effect == Effect::bound) {
        return correlated;
    }
    if (left.ambiguous) {
        return copies_target(select) ? open(whole_again) : open(not_tied, 0, visible_sources());
    }
    if (left.sources != 0) {
        return open(not_tied, 0, copies_target(select) ? 0 : left.sources);
    }
    // A constant looked up among the rows' own values: 5 IN (SELECT orders.id FROM ...).
    return out.own && left.nothing() ? bound() : open(row_independent);
}

Verdict Judge::judge_sublink(const JsonObject& body, bool negated) {
    const auto select = node_field(body, "subselect");
    if (!select || select->type != "SelectStmt") {
        return open(row_independent);
    }
    const auto kind = text_field(body, "subLinkType");
    if (kind == "EXISTS_SUBLINK") {
        return judge_exists(select->body, negated);
    }
    if (kind == "ANY_SUBLINK" || kind == "ALL_SUBLINK") {
        return judge_in_query(body, select->body, negated);
    }
    // (SELECT condition): without a FROM it is the condition.
    if (leaves_of(select->body).items.empty() && !field(select->body, "whereClause")) {
        const Items columns = items_field(select->body, "targetList");
        if (columns.size() == 1) {
            for (const Json item : columns) {
                const auto target = as_node(item);
                const auto value = target ? field(target->body, "val") : std::nullopt;
                if (value) {
                    return judge(*value, negated);
                }
            }
        }
    }
    const Dependencies found = dependencies(*field(body, "subselect"));
    if (!found.own) {
        return open(row_independent);
    }
    return found.copies_target ? open(whole_again)
           : found.outside     ? bound()
                               : open(compares_itself);
}

// A value that is a condition by itself: a boolean column.
Verdict Judge::judge_value(const Json& expression) {
    const Dependencies found = dependencies(expression);
    if (found.own) {
        return bound();
    }
    if (found.ambiguous || found.sources != 0) {
        return open(not_tied, 0, found.ambiguous ? visible_sources() : found.sources);
    }
    return open(found.is_volatile ? by_chance : row_independent);
}

Verdict Judge::judge_function(const JsonObject& body, bool negated) {
    const auto name = last_name(items_field(body, "funcname"));
    std::vector<Json> arguments;
    for (const Json argument : items_field(body, "args")) {
        arguments.push_back(argument);
    }
    struct Spelling {
        std::string_view function;
        std::string_view op;
    };
    // Functions that are an operator by another name.
    constexpr std::array spellings = {Spelling{"like", "~~"},
                                      Spelling{"textlike", "~~"},
                                      Spelling{"notlike", "!~~"},
                                      Spelling{"textnlike", "!~~"},
                                      Spelling{"texticlike", "~~*"},
                                      Spelling{"texticnlike", "!~~*"},
                                      Spelling{"textregexeq", "~"},
                                      Spelling{"textregexne", "!~"},
                                      Spelling{"regexp_like", "~"},
                                      Spelling{"starts_with", "^@"},
                                      Spelling{"textregexeq", "~"},
                                      Spelling{"texticregexeq", "~*"},
                                      Spelling{"booleq", "="},
                                      Spelling{"boolne", "<>"},
                                      Spelling{"jsonb_contains", "@>"},
                                      Spelling{"arraycontains", "@>"},
                                      Spelling{"jsonb_path_exists", "@?"},
                                      Spelling{"xideq", "="},
                                      Spelling{"int4eq", "="},
                                      Spelling{"int4ne", "<>"},
                                      Spelling{"int4ge", ">="},
                                      Spelling{"int4gt", ">"},
                                      Spelling{"int4le", "<="},
                                      Spelling{"int4lt", "<"},
                                      Spelling{"int8eq", "="},
                                      Spelling{"int8ne", "<>"},
                                      Spelling{"int8ge", ">="},
                                      Spelling{"int8gt", ">"},
                                      Spelling{"int8le", "<="},
                                      Spelling{"int8lt", "<"},
                                      Spelling{"texteq", "="},
                                      Spelling{"textne", "<>"},
                                      Spelling{"text_ge", ">="},
                                      Spelling{"text_gt", ">"},
                                      Spelling{"text_le", "<="},
                                      Spelling{"text_lt", "<"}};
    for (const Spelling& spelling : spellings) {
        if (spelling.function == name && arguments.size() >= 2) {
            return judge_comparison(spelling.op, arguments[0], arguments[1], negated);
        }
    }
    Dependencies all;
    bool other_than_own = false;
    for (const Json& argument : arguments) {
        const Dependencies one = dependencies(argument);
        depend_on(argument, all);
        other_than_own |= !one.own && !one.ambiguous;
    }
    const FunctionFacts function = find_function(name);
    if (all.own) {
        if (all.sources != 0) {
            return tie(all.sources);
        }
        constexpr std::array predicates = {"isempty", "lower_inf", "upper_inf", "lower_inc",
                                           "upper_inc"};
        const bool asks = std::find(predicates.begin(), predicates.end(), name) != predicates.end();
        return other_than_own || !function.known || asks ? bound() : open(compares_itself);
    }
    if (all.ambiguous) {
        return all.sources != 0 ? tie(all.sources) : open(not_tied, 0, visible_sources());
    }
    if (all.sources != 0) {
        return open(not_tied, 0, all.sources);
    }
    return open(function.known && function.varies_by_chance ? by_chance : row_independent);
}

Verdict Judge::judge(const Json& expression, bool negated) {
    const auto node = as_node(expression);
    if (!spend()) {
        return open(too_intricate);
    }
    if (!node) {
        return open(row_independent);
    }
    const JsonObject& body = node->body;
    const auto type = node->type;
    if (type == "A_Expr") {
        return judge_operator(body, negated);
    }
    if (type == "BoolExpr") {
        return judge_boolean(body, negated);
    }
    if (type == "NullTest") {
        const auto argument = field(body, "arg");
        return argument ? judge_is_null(*argument,
                                        (text_field(body, "nulltesttype") != "IS_NULL") != negated)
                        : open(row_independent);
    }
    if (type == "BooleanTest") {
        return judge_boolean_test(body, negated);
    }
    if (type == "SubLink") {
        return judge_sublink(body, negated);
    }
    if (type == "A_Const") {
        const auto value = literal(body);
        return of_constant(value ? to_boolean(*value) : std::nullopt, negated);
    }
    if (type == "TypeCast" || type == "CollateClause") {
        if (const auto value = fold(expression)) {
            return of_constant(to_boolean(*value), negated);
        }
        const auto argument = field(body, "arg");
        return argument ? judge(*argument, negated) : open(row_independent);
    }
    if (type == "CaseExpr") {
        return judge_case(body, negated);
    }
    if (type == "CoalesceExpr") {
        // Any of them may be the one that decides.
        std::vector<Term> terms;
        for (const Json argument : items_field(body, "args")) {
            terms.push_back({argument, negated, {}, {}});
        }
        return any_of(terms);
    }
    if (type == "FuncCall") {
        return judge_function(body, negated);
    }
    if (type == "CurrentOfExpr") {
        return bound();
    }
    return judge_value(expression);
}

}  // namespace

Flag unbounded_update(const JsonObject& update, const BoundsScope& scope) {
    const auto relation = object_field(update, "relation");
    if (!relation) {
        return {true, "has no target that can be read"};
    }
    Judge judge = Judge::of_relation(*relation, scope);
    for (const Json item : items_field(update, "fromClause")) {
        judge.add_source(item);
    }
    return judge.flag(judge.condition(field(update, "whereClause")));
}

Flag unbounded_delete(const JsonObject& del, const BoundsScope& scope) {
    const auto relation = object_field(del, "relation");
    if (!relation) {
        return {true, "has no target that can be read"};
    }
    Judge judge = Judge::of_relation(*relation, scope);
    for (const Json item : items_field(del, "usingClause")) {
        judge.add_source(item);
    }
    return judge.flag(judge.condition(field(del, "whereClause")));
}

Flag unbounded_merge(const JsonObject& merge, const BoundsScope& scope) {
    const auto relation = object_field(merge, "relation");
    if (!relation) {
        return {true, "has no target that can be read"};
    }
    Judge judge = Judge::of_relation(*relation, scope);
    if (const auto source = field(merge, "sourceRelation")) {
        judge.add_source(*source);
    }
    const Verdict joined = judge.condition(field(merge, "joinCondition"));
    for (const Json item : items_field(merge, "mergeWhenClauses")) {
        const auto when = as_node(item);
        if (!when) {
            continue;
        }
        const auto command = text_field(when->body, "commandType");
        if (command != "CMD_UPDATE" && command != "CMD_DELETE") {
            continue;
        }
        const auto kind = text_field(when->body, "matchKind");
        const bool without_source = kind == "MERGE_WHEN_NOT_MATCHED_BY_SOURCE";
        const auto test = field(when->body, "condition");
        Verdict verdict = test ? judge.judge(*test, false) : open(no_where);
        if (!without_source) {
            verdict = test ? Judge::both(joined, verdict) : joined;
        } else if (!test) {
            verdict.reason = "changes every row that its source does not have";
        }
        Flag found = judge.flag(verdict);
        if (found) {
            return found;
        }
    }
    return {};
}

Flag unbounded_insert(const JsonObject& insert, const BoundsScope& scope) {
    const auto conflict = object_field(insert, "onConflictClause");
    if (!conflict || text_field(*conflict, "action") != "ONCONFLICT_UPDATE") {
        return {};
    }
    const auto relation = object_field(insert, "relation");
    const auto select = node_field(insert, "selectStmt");
    if (!relation || !select || select->type != "SelectStmt") {
        return {};
    }
    Judge judge = Judge::of_relation(*relation, scope);
    if (!judge.copies_target(select->body)) {
        return {};
    }
    const auto where = field(*conflict, "whereClause");
    const Verdict verdict = where ? judge.judge(*where, false) : open(no_where);
    if (!judge.flag(verdict)) {
        return {};
    }
    return {true, "selects all rows of its own target to update them on conflict"};
}

}  // namespace pgchaperone::policy
