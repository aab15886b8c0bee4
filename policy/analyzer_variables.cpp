#include "policy/analyzer_variables.h"

#include "policy/analyzer_judge.h"
#include "policy/analyzer_literal.h"
#include "policy/deep_text.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace pgchaperone::policy {

namespace {

constexpr std::size_t most_texts = 16;
constexpr std::size_t most_bytes = 64 * 1024;  // loops in loops keep copies
constexpr std::size_t most_trees = 256;

std::size_t size_of(const BodyVariables::Texts& texts) {
    std::size_t bytes = 0;
    for (const std::string& text : texts) {
        bytes += text.size();
    }
    return bytes;
}

std::string_view expression_text(const JsonObject& object, std::string_view name) {
    const auto wrapper = node_field(object, name);
    return wrapper && wrapper->type == "PLpgSQL_expr" ? text_field(wrapper->body, "query")
                                                      : std::string_view{};
}

// Calls `visit` with every statement in a part of a body, however deep.
template <typename Visit>
void for_each_statement(const Json& json, const Visit& visit) {
    JsonArray array;
    if (json.get(array) == simdjson::SUCCESS) {
        for (const Json item : array) {
            for_each_statement(item, visit);
        }
        return;
    }
    const auto object = as_object(json);
    if (!object) {
        return;
    }
    for (const auto& [key, value] : *object) {
        JsonObject body;
        if (key.starts_with("PLpgSQL_stmt_") && value.get(body) == simdjson::SUCCESS) {
            visit(key.substr(std::string_view("PLpgSQL_stmt_").size()), body);
        }
        for_each_statement(value, visit);
    }
}

bool gathers_rows(const Json& value) {
    const auto node = as_node(value);
    return node && node->type == "FuncCall" &&
           bounds::is_gathering(bounds::last_name(items_field(node->body, "funcname")));
}

// min(id), max(id)
bool is_extreme(const Json& value) {
    const auto node = as_node(value);
    if (!node || node->type != "FuncCall") {
        return false;
    }
    const auto name = bounds::last_name(items_field(node->body, "funcname"));
    return name == "min" || name == "max";
}

std::vector<Json> values_of(const JsonObject& select) {
    std::vector<Json> values;
    for (const Json item : items_field(select, "targetList")) {
        const auto target = as_node(item);
        const auto value = target ? field(target->body, "val") : std::nullopt;
        if (value) {
            values.push_back(*value);
        }
    }
    return values;
}

}  // namespace

// --- Names

void BodyVariables::declare(const JsonObject& function) {
    for (const Json datum : items_field(function, "datums")) {
        const auto variable = as_node(datum);
        std::string name;
        if (variable && variable->type != "PLpgSQL_row" && variable->type != "PLpgSQL_recfield") {
            name = text_field(variable->body, "refname");
        }
        const bool twice = !name.empty() &&
                           std::find(names_.begin(), names_.end(), name) != names_.end();
        if (twice) {
            std::replace(names_.begin(), names_.end(), name, std::string());
            state_.erase(name);
            cursors_.erase(name);
        }
        names_.push_back(twice ? std::string() : name);
        if (twice || name.empty()) {
            continue;
        }
        if (const auto value = expression_text(variable->body, "default_val"); !value.empty()) {
            set(name, texts_of(value));
            if (const auto origin = origin_of_expression(value, false)) {
                come_from({name}, *origin);
            }
        }
        const auto query = expression_text(variable->body, "cursor_explicit_expr");
        if (!query.empty()) {
            open(name, query);
        }
    }
}

std::string_view BodyVariables::name_of(std::int64_t number) const {
    return number >= 0 && static_cast<std::size_t>(number) < names_.size()
               ? std::string_view(names_[static_cast<std::size_t>(number)])
               : std::string_view{};
}

std::vector<std::string> BodyVariables::names_in(const Json& target) const {
    std::vector<std::string> names;
    const auto node = as_node(target);
    if (!node) {
        return names;
    }
    if (node->type == "PLpgSQL_row") {
        for (const Json item : items_field(node->body, "fields")) {
            if (const auto one = as_object(item)) {
                names.emplace_back(text_field(*one, "name"));
            }
        }
    } else {
        names.emplace_back(text_field(node->body, "refname"));
    }
    return names;
}

// --- Trees

std::optional<Json> BodyVariables::read(std::string_view sql, int mode) {
    // Trees must be given back on the thread that made them.
    if (trees_.size() >= most_trees || reads_left_ == 0 ||
        place_for(sql, backslash_escapes_, 0) != ReadingPlace::here) {
        return std::nullopt;
    }
    --reads_left_;
    auto tree = std::make_unique<ParseTree>(sql, ParseTree::Kind::sql, backslash_escapes_, mode);
    const auto root = tree->ok() ? as_object(tree->root()) : std::nullopt;
    for (const Json item : root ? items_field(*root, "stmts") : Items{}) {
        const auto raw = as_object(item);
        const auto statement = raw ? field(*raw, "stmt") : std::nullopt;
        if (statement) {
            trees_.push_back(std::move(tree));
            return statement;
        }
    }
    return std::nullopt;
}

std::optional<Json> BodyVariables::value_of(std::string_view expression, int mode) {
    const auto statement = read(expression, mode);
    const auto node = statement ? as_node(*statement) : std::nullopt;
    std::optional<JsonObject> select;
    if (node && node->type == "SelectStmt") {
        select = node->body;
    } else if (node && node->type == "PLAssignStmt") {
        select = object_field(node->body, "val");
    }
    if (!select || field(*select, "fromClause")) {
        return std::nullopt;
    }
    const std::vector<Json> values = values_of(*select);
    return values.size() == 1 ? std::optional(values.front()) : std::nullopt;
}

// --- Texts

BodyVariables::Texts BodyVariables::texts_of(std::string_view expression) {
    const std::size_t trees = trees_.size();
    const bool assignment = expression.find(":=") != std::string_view::npos;
    auto value = value_of(expression);
    if (!value && assignment) {
        constexpr int assignment_mode = 3;
        value = value_of(expression, assignment_mode);
    }
    Texts texts = value ? literal_texts(*value, state_) : Texts{};
    trees_.resize(trees);
    return texts;
}

BodyVariables::Texts BodyVariables::elements_of(std::string_view array_expression) {
    Texts texts;
    const std::size_t trees = trees_.size();
    const auto value = value_of(array_expression);
    auto node = value ? as_node(*value) : std::nullopt;
    if (node && node->type == "TypeCast") {
        node = node_field(node->body, "arg");
    }
    if (!node || node->type != "A_ArrayExpr") {
        return texts;
    }
    for (const Json element : items_field(node->body, "elements")) {
        Texts one = literal_texts(element, state_);
        if (one.empty() || texts.size() + one.size() > most_texts) {
            texts.clear();
            break;
        }
        std::move(one.begin(), one.end(), std::back_inserter(texts));
    }
    trees_.resize(trees);
    return texts;
}

void BodyVariables::set(std::string_view name, Texts texts) {
    if (name.empty()) {
        return;
    }
    // A name that stands for two variables is never known: it is in none of the numbers.
    state_.erase(std::string(name));
    std::size_t bytes = 0;
    for (const auto& [other, known] : state_) {
        bytes += size_of(known);
    }
    if (!texts.empty() && bytes + size_of(texts) <= most_bytes &&
        std::find(names_.begin(), names_.end(), name) != names_.end()) {
        state_.emplace(name, std::move(texts));
    }
}

void BodyVariables::forget(const std::vector<std::string>& names) {
    for (const std::string& name : names) {
        state_.erase(name);
        if (origin_named(name)) {
            origins_.push_back({name, std::nullopt, false});
        }
    }
}

void BodyVariables::forget_assigned_by(std::string_view statement, const JsonObject& body) {
    if (statement == "call") {
        state_.clear();  // may have INOUT parameters
    }
    if (statement == "assign" || statement == "foreach_a") {
        state_.erase(std::string(name_of(number_field(body, "varno"))));
    }
    for (const std::string_view target : {"target", "var"}) {
        const auto found = field(body, target);
        const auto origin = found && statement == "fetch"
                                ? origin_named(name_of(number_field(body, "curvar")))
                                : std::nullopt;
        if (found) {
            forget(names_in(*found));
        }
        if (origin) {
            come_from(names_in(*found), *origin);  // the next row in a loop over the cursor
        }
    }
    for (const Json item : items_field(body, "diag_items")) {
        if (const auto one = as_node(item)) {
            state_.erase(std::string(name_of(number_field(one->body, "target"))));
        }
    }
}

void BodyVariables::forget_assigned_in(const JsonObject& body) {
    for (const auto& [name, part] : body) {
        for_each_statement(part, [&](std::string_view kind, const JsonObject& statement) {
            forget_assigned_by(kind, statement);
        });
    }
}

void BodyVariables::join(const State& other) {
    for (auto at = state_.begin(); at != state_.end();) {
        const auto found = other.find(at->first);
        if (found == other.end() || found->second.empty() || at->second.empty()) {
            at = state_.erase(at);
            continue;
        }
        for (const std::string& text : found->second) {
            if (std::find(at->second.begin(), at->second.end(), text) == at->second.end()) {
                at->second.push_back(text);
            }
        }
        at = at->second.size() > most_texts ? state_.erase(at) : std::next(at);
    }
}

// --- Rows

void BodyVariables::come_from(const std::vector<std::string>& names, const VariableOrigin& origin) {
    for (const std::string& name : names) {
        if (!name.empty()) {
            origins_.push_back({name, origin.query, origin.extreme});
        }
    }
}

std::optional<VariableOrigin> BodyVariables::origin_named(std::string_view name) const {
    for (auto at = origins_.rbegin(); at != origins_.rend(); ++at) {
        if (at->name == name) {
            return at->query ? std::optional(*at) : std::nullopt;
        }
    }
    return std::nullopt;
}

std::optional<VariableOrigin> BodyVariables::origin_of_query(std::string_view sql) {
    const auto statement = read(sql, 0);
    const auto node = statement ? as_node(*statement) : std::nullopt;
    return node && node->type == "SelectStmt" ? std::optional(VariableOrigin{{}, node->body, false})
                                              : std::nullopt;
}

std::optional<VariableOrigin> BodyVariables::origin_of_value(const Json& value,
                                                             bool repeated) const {
    const auto node = as_node(value);
    if (!node) {
        return std::nullopt;
    }
    if (node->type == "TypeCast") {
        const auto argument = field(node->body, "arg");
        return argument ? origin_of_value(*argument, repeated) : std::nullopt;
    }
    if (node->type == "ColumnRef") {
        // n, or r.id
        const Items fields = items_field(node->body, "fields");
        return fields.empty() ? std::nullopt : origin_named(string_value(*fields.begin()));
    }
    if (node->type != "SubLink") {
        return std::nullopt;
    }
    const auto select = node_field(node->body, "subselect");
    if (!select || select->type != "SelectStmt") {
        return std::nullopt;
    }
    if (text_field(node->body, "subLinkType") == "ARRAY_SUBLINK") {
        return VariableOrigin{{}, select->body, false};
    }
    const std::vector<Json> values = values_of(select->body);
    if (values.size() != 1 || text_field(node->body, "subLinkType") != "EXPR_SUBLINK") {
        return std::nullopt;
    }
    if (gathers_rows(values.front()) || repeated) {
        return VariableOrigin{{}, select->body, false};
    }
    return is_extreme(values.front()) ? std::optional(VariableOrigin{{}, select->body, true})
                                      : std::nullopt;
}

std::optional<VariableOrigin> BodyVariables::origin_of_expression(std::string_view expression,
                                                                  bool repeated) {
    const std::size_t trees = trees_.size();
    constexpr int assignment_mode = 3;
    auto value = value_of(expression);
    if (!value) {
        value = value_of(expression, assignment_mode);
    }
    auto origin = value ? origin_of_value(*value, repeated) : std::nullopt;
    if (!origin) {
        trees_.resize(trees);
    }
    return origin;
}

void BodyVariables::select_into(const std::vector<std::string>& names, std::string_view sql,
                                bool repeated) {
    const auto origin = origin_of_query(sql);
    const std::vector<Json> values = origin ? values_of(*origin->query) : std::vector<Json>{};
    forget(names);
    for (std::size_t i = 0; i < names.size(); ++i) {
        VariableOrigin one{};
        if (origin && (repeated || (i < values.size() && gathers_rows(values[i])))) {
            one = *origin;
        } else if (origin && i < values.size() && is_extreme(values[i])) {
            one = *origin;
            one.extreme = true;
        }
        come_from({names[i]}, one);
        if (origin && values.size() == names.size() && !field(*origin->query, "fromClause") &&
            !field(*origin->query, "whereClause")) {
            set(names[i], literal_texts(values[i], state_));
        }
    }
}

void BodyVariables::open(std::string_view cursor, std::string_view sql) {
    const auto origin = origin_of_query(sql);
    cursors_.erase(std::string(cursor));
    if (origin && !cursor.empty()) {
        cursors_.emplace(cursor, *origin->query);
    }
}

std::optional<VariableOrigin> BodyVariables::origin_of_cursor(std::string_view cursor) const {
    const auto found = cursors_.find(cursor);
    return found != cursors_.end() ? std::optional(VariableOrigin{{}, found->second, false})
                                   : std::nullopt;
}

void BodyVariables::fetch_in(const Json& statements) {
    for_each_statement(statements, [&](std::string_view kind, const JsonObject& body) {
        if (kind != "fetch") {
            return;
        }
        const auto cursor = name_of(number_field(body, "curvar"));
        const auto origin = origin_of_cursor(cursor);
        const auto target = field(body, "target");
        if (origin) {
            come_from({std::string(cursor)}, *origin);
            if (target) {
                come_from(names_in(*target), *origin);
            }
        }
    });
}

// --- Conditions of loops

bool BodyVariables::chooses(std::string_view condition) {
    const std::size_t trees = trees_.size();
    const auto value = value_of(condition);
    const bool picks = !value || picks_rows(*value);
    trees_.resize(trees);
    return picks;
}

// NOT FOUND, n IS NULL, n = 0: what a loop is left for when nothing is left to do.
bool BodyVariables::asks_for_the_end(const Json& condition, bool negated) const {
    const auto node = as_node(condition);
    if (!node) {
        return false;
    }
    if (node->type == "BoolExpr") {
        const bool is_not = text_field(node->body, "boolop") == "NOT_EXPR";
        for (const Json argument : items_field(node->body, "args")) {
            if (!asks_for_the_end(argument, negated != is_not)) {
                return false;
            }
        }
        return true;
    }
    if (node->type == "NullTest") {
        return (text_field(node->body, "nulltesttype") == "IS_NULL") != negated;
    }
    if (node->type == "ColumnRef") {
        const Items fields = items_field(node->body, "fields");
        return !fields.empty() && string_value(*fields.begin()) == "found";
    }
    if (node->type == "A_Expr") {
        const auto op = bounds::last_name(items_field(node->body, "name"));
        const auto right = node_field(node->body, "rexpr");
        const auto value = right && right->type == "A_Const" ? literal(right->body) : std::nullopt;
        const bool small = value && value->kind == Constant::Kind::number && value->number <= 1;
        const bool end = op == "=" || op == "<" || op == "<=";
        return small && end != negated;
    }
    return false;
}

bool BodyVariables::ends_by_counting(std::string_view condition) {
    const std::size_t trees = trees_.size();
    const auto value = value_of(condition);
    const bool counts = !value || (picks_rows(*value) && !asks_for_the_end(*value, true));
    trees_.resize(trees);
    return counts;
}

bool BodyVariables::leaves_early(const Json& statements) {
    const std::size_t trees = trees_.size();
    const bool early = may_leave(statements, false);
    trees_.resize(trees);
    return early;
}

bool BodyVariables::may_leave(const Json& statements, bool chosen) {
    JsonArray array;
    if (statements.get(array) == simdjson::SUCCESS) {
        for (const Json item : array) {
            if (may_leave(item, chosen)) {
                return true;
            }
        }
        return false;
    }
    const auto object = as_object(statements);
    if (!object) {
        return false;
    }
    for (const auto& [key, value] : *object) {
        JsonObject body;
        if (value.get(body) != simdjson::SUCCESS) {
            if (may_leave(value, chosen)) {
                return true;
            }
            continue;
        }
        bool inner = chosen;
        if (key == "PLpgSQL_stmt_exit" || key == "PLpgSQL_stmt_return") {
            const auto condition = expression_text(body, "cond");
            const bool exits = flag_field(body, "is_exit") || key == "PLpgSQL_stmt_return";
            const auto test = condition.empty() ? std::nullopt : value_of(condition);
            const bool at_the_end = exits && test && asks_for_the_end(*test, false);
            if (chosen || (test && !at_the_end && picks_rows(*test, true))) {
                return true;
            }
            continue;
        }
        if (key == "PLpgSQL_stmt_if" || key == "PLpgSQL_if_elsif") {
            const auto test = value_of(expression_text(body, "cond"));
            inner = chosen || !test || (picks_rows(*test) && !asks_for_the_end(*test, false));
        }
        if (key == "PLpgSQL_stmt_case") {
            inner = true;
        }
        if (may_leave(value, inner)) {
            return true;
        }
    }
    return false;
}

}  // namespace pgchaperone::policy
