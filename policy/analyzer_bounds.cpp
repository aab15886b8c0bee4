#include "policy/analyzer_bounds.h"

#include "policy/analyzer_judge.h"

namespace pgchaperone::policy {

using bounds::Judge;
using bounds::no_where;
using bounds::open;
using bounds::Verdict;

namespace {

// A column of the target, where nothing else has columns.
bool is_plain_column(const JsonObject& column, std::string_view target, const BoundsScope& scope) {
    std::string_view name;
    std::string_view qualifier;
    std::size_t count = 0;
    for (const Json part : items_field(column, "fields")) {
        qualifier = name;
        name = string_value(part);
        ++count;
    }
    return !name.empty() && name != target && name != "tableoid" &&
           (count == 1 || (count == 2 && qualifier == target)) &&
           (scope.variables == nullptr || scope.variables->empty());
}

// What most statements have: column = constant, column IN (constants), perhaps with more
// conditions. Such a condition lets some rows through or none, whatever stands beside it.
bool is_plainly_bound(const Json& where, std::string_view target, const BoundsScope& scope) {
    const auto node = as_node(where);
    if (!node) {
        return false;
    }
    if (node->type == "BoolExpr") {
        if (text_field(node->body, "boolop") == "AND_EXPR") {
            for (const Json argument : items_field(node->body, "args")) {
                if (is_plainly_bound(argument, target, scope)) {
                    return true;
                }
            }
        }
        return false;
    }
    if (node->type != "A_Expr" || bounds::last_name(items_field(node->body, "name")) != "=") {
        return false;
    }
    const auto left = node_field(node->body, "lexpr");
    const auto right = node_field(node->body, "rexpr");
    if (!left || !right || left->type != "ColumnRef" ||
        !is_plain_column(left->body, target, scope)) {
        return false;
    }
    const auto kind = text_field(node->body, "kind");
    if (kind == "AEXPR_OP_ANY") {
        return right->type == "ParamRef";
    }
    if (kind == "AEXPR_IN") {
        // Numbers and parameters: (true, false) is every row.
        for (const Json item : items_field(right->body, "items")) {
            const auto element = as_node(item);
            if (!element || (element->type != "ParamRef" &&
                             !(element->type == "A_Const" && field(element->body, "ival")))) {
                return false;
            }
        }
        return true;
    }
    return kind == "AEXPR_OP" && (right->type == "A_Const" || right->type == "ParamRef");
}

// Whether a statement with one target and no other relation need not be looked at any further.
bool is_plainly_bound(const JsonObject& statement, const JsonObject& relation,
                      std::string_view sources, const BoundsScope& scope) {
    const auto where = field(statement, "whereClause");
    if (!where || field(statement, sources)) {
        return false;
    }
    const auto alias = object_field(relation, "alias");
    return is_plainly_bound(
        *where, alias ? text_field(*alias, "aliasname") : text_field(relation, "relname"), scope);
}

}  // namespace

bool picks_rows(const Json& condition, bool negated) {
    const std::vector<std::string> not_of_the_row = {"found"};
    std::uint64_t work = 10'000;
    BoundsScope scope;
    scope.variables = &not_of_the_row;
    scope.work = &work;
    Judge judge = Judge::of_any_row(scope);
    return !judge.flag(negated ? judge.judge(condition, true) : judge.all_of({condition}));
}

Flag unbounded_update(const JsonObject& update, const BoundsScope& scope) {
    const auto relation = object_field(update, "relation");
    if (!relation) {
        return {true, "has no target that can be read"};
    }
    if (is_plainly_bound(update, *relation, "fromClause", scope)) {
        return {};
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
    if (is_plainly_bound(del, *relation, "usingClause", scope)) {
        return {};
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
    const auto join = field(merge, "joinCondition");
    for (const Json item : items_field(merge, "mergeWhenClauses")) {
        const auto when = as_node(item);
        if (!when) {
            continue;
        }
        const auto command = text_field(when->body, "commandType");
        if (command != "CMD_UPDATE" && command != "CMD_DELETE") {
            continue;
        }
        const bool without_source = text_field(when->body, "matchKind") ==
                                    "MERGE_WHEN_NOT_MATCHED_BY_SOURCE";
        const auto test = field(when->body, "condition");
        std::vector<Json> conditions;
        if (join && !without_source) {
            conditions.push_back(*join);
        }
        if (test) {
            conditions.push_back(*test);
        }
        Verdict verdict = without_source ? judge.all_of(conditions)
                                         : judge.with_joins(std::move(conditions));
        if (without_source && !test) {
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
    const Verdict verdict = where ? judge.all_of({*where}) : open(no_where);
    if (!judge.flag(verdict)) {
        return {};
    }
    return {true, "selects all rows of its own target to update them on conflict"};
}

}  // namespace pgchaperone::policy
