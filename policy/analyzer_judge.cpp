#include "policy/analyzer_judge.h"
#include "policy/functions_table.h"

#include <array>
#include <utility>

namespace pgchaperone::policy::bounds {

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

std::string_view operator_called(std::string_view function) {
    struct Spelling {
        std::string_view function;
        std::string_view op;
    };
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
        if (spelling.function == function) {
            return spelling.op;
        }
    }
    return {};
}

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

namespace {

// A column shifted by something (expires_at + random() * interval '1 minute') still is the column.
bool is_sum(const Json& expression) {
    const auto node = as_node(expression);
    const auto op = node && node->type == "A_Expr" ? last_name(items_field(node->body, "name"))
                                                   : std::string_view{};
    return op == "+" || op == "-";
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

}  // namespace

Verdict Judge::all_of(const std::vector<Json>& conditions) {
    if (conditions.empty()) {
        return open(no_where);
    }
    std::optional<Verdict> all;
    for (const Json& condition : conditions) {
        const Verdict one = judge(condition, false);
        all = all ? both(*all, one) : one;
    }
    if (settled(*all).effect == Effect::bound && every_row_meets(conditions)) {
        const auto first = as_node(conditions.front());
        const auto kind = first ? text_field(first->body, "kind") : std::string_view{};
        const bool alternatives = first && (first->type == "BoolExpr" || kind == "AEXPR_IN" ||
                                            kind == "AEXPR_OP_ANY");
        return open(alternatives ? covers_all : always_met);
    }
    return *all;
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
    return all.effect == Effect::bound ? bound() : all;
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

// One row of the target, found by min() or max(), is a bound; everything on one side of it is not,
// and neither is one row after the other until none is left.
bool Judge::is_one_row(const Json& expression, const Dependencies& found) const {
    if (scope_.repeats) {
        return false;
    }
    if (found.extreme && !found.copies_target) {
        return true;
    }
    const auto node = as_node(expression);
    const auto select = node && node->type == "SubLink" ? node_field(node->body, "subselect")
                                                        : std::nullopt;
    return select && select->type == "SelectStmt" && !found.own && is_one_aggregate(select->body);
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
    for (const bool mirrored : {false, true}) {
        if (const auto counted = judge_count(mirrored ? mirror_of(op) : op, mirrored ? right : left,
                                             mirrored ? left : right, negated)) {
            return *counted;
        }
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
    if (other.copies_target || other.extreme) {
        const bool equal = relation == "=" && !negated;
        return equal && one_row && is_one_row(mirrored ? left : right, other) ? bound()
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
    if ((mirrored ? r : l).is_volatile && !other.outside && !is_sum(own)) {
        return open(by_chance);
    }
    bool no = negated;
    if (no && !negation_of(relation).empty()) {
        relation = negation_of(relation);
        no = false;
    }
    if (matches_all_values(relation, constant)) {
        return no ? never() : open(matches_all);
    }
    if (const auto contrary = negation_of(relation);
        !contrary.empty() && matches_all_values(contrary, constant)) {
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

// (SELECT count(*) FROM ...) > 0 is EXISTS by another name, and "= 0" its contrary.
std::optional<Verdict> Judge::judge_count(std::string_view op, const Json& left, const Json& right,
                                          bool negated) {
    const auto node = as_node(left);
    const auto bound = fold(right);
    if (!node || node->type != "SubLink" || !bound || bound->kind != Constant::Kind::number ||
        text_field(node->body, "subLinkType") != "EXPR_SUBLINK") {
        return std::nullopt;
    }
    const auto select = node_field(node->body, "subselect");
    const Items columns = select ? items_field(select->body, "targetList") : Items{};
    const auto target = columns.size() == 1 ? as_node(*columns.begin()) : std::nullopt;
    const auto call = target ? node_field(target->body, "val") : std::nullopt;
    if (!call || call->type != "FuncCall" || select->type != "SelectStmt" ||
        last_name(items_field(call->body, "funcname")) != "count" ||
        !is_one_aggregate(select->body) || object_field(select->body, "larg")) {
        return std::nullopt;
    }
    const bool zero = bound->number == 0;
    const bool one = bound->number == 1;
    if ((zero && (op == ">" || op == "<>")) || (one && op == ">=")) {
        return judge_exists(select->body, negated, true);
    }
    if ((zero && (op == "=" || op == "<=")) || (one && op == "<")) {
        return judge_exists(select->body, !negated, true);
    }
    return std::nullopt;
}

Verdict Judge::judge_exists(const JsonObject& select, bool negated, bool counted) {
    const Within within(*this, select);
    if (always_empty(select)) {
        return negated ? open(always_true) : never();
    }
    if ((is_one_aggregate(select) && !counted) || !items_field(select, "valuesLists").empty()) {
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
    const Within within(*this, select);
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
            const Verdict found = judge_exists(select, negated != !any);
            return found.effect == Effect::bound ? found : open(compares_itself);
        }
        if (copies_target(select)) {
            const bool one = is_one_aggregate(select) && !gathers_rows(select) && any && !negated &&
                             op == "=" && !scope_.repeats;
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
    if (const auto op = operator_called(name); !op.empty() && arguments.size() >= 2) {
        return judge_comparison(op, arguments[0], arguments[1], negated);
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
        // Questions about a value's form that ordinary values answer with yes.
        constexpr std::array usual = {"is_normalized", "isfinite", "pg_input_is_valid"};
        if (std::find(usual.begin(), usual.end(), name) != usual.end()) {
            return negated ? bound() : open(compares_itself);
        }
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
        // A column whose nulls count as true or false still is that column.
        const Items arguments = items_field(body, "args");
        const auto first = arguments.empty() ? std::nullopt : as_node(*arguments.begin());
        if (first && first->type == "ColumnRef" && dependencies(*arguments.begin()).own) {
            return judge(*arguments.begin(), negated);
        }
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
        Dependencies found;
        depend_on_variable(text_field(body, "cursor_name"), found);
        return found.sources != 0 ? open(whole_again) : bound();
    }
    return judge_value(expression);
}

}  // namespace pgchaperone::policy::bounds
