#include "policy/analyzer_judge.h"
#include "policy/functions_table.h"

#include <array>

namespace pgchaperone::policy::bounds {

std::string_view last_name(const Items& names) {
    std::string_view name;
    for (const Json part : names) {
        name = string_value(part);
    }
    return name;
}

void FromLeaves::add(const Json& item) {
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

FromLeaves leaves_of(const JsonObject& select) {
    FromLeaves leaves;
    for (const Json item : items_field(select, "fromClause")) {
        leaves.add(item);
    }
    return leaves;
}

namespace {

// Whether an expression calls a function that `is_it` says yes to, subqueries apart.
template <typename Predicate>
bool calls(const Json& expression, const Predicate& is_it) {
    if (const auto node = as_node(expression)) {
        if (node->type == "SubLink") {
            return false;
        }
        if (node->type == "FuncCall" && !object_field(node->body, "over") &&
            is_it(last_name(items_field(node->body, "funcname")))) {
            return true;
        }
    }
    if (const auto object = as_object(expression)) {
        for (const auto& [key, value] : *object) {
            if (calls(value, is_it)) {
                return true;
            }
        }
        return false;
    }
    JsonArray array;
    if (expression.get(array) == simdjson::SUCCESS) {
        for (const Json item : array) {
            if (calls(item, is_it)) {
                return true;
            }
        }
    }
    return false;
}

}  // namespace

bool is_one_aggregate(const JsonObject& select) {
    if (!items_field(select, "groupClause").empty() || field(select, "havingClause")) {
        return false;
    }
    for (const Json item : items_field(select, "targetList")) {
        if (calls(item, [](std::string_view name) { return find_function(name).aggregate; })) {
            return true;
        }
    }
    return false;
}

bool is_gathering(std::string_view function) {
    return function == "array_agg" || function == "string_agg" || function == "json_agg" ||
           function == "jsonb_agg";
}

bool gathers_rows(const JsonObject& select) {
    for (const Json item : items_field(select, "targetList")) {
        if (calls(item, is_gathering)) {
            return true;
        }
    }
    return false;
}

bool Judge::is_whole_row(const Json& expression) const {
    const auto node = as_node(expression);
    if (!node || node->type != "ColumnRef") {
        return false;
    }
    const Items fields = items_field(node->body, "fields");
    if (fields.size() == 2) {
        const Json second = *++fields.begin();
        const auto star = as_node(second);
        if (!star || star->type != "A_Star") {
            return false;
        }
    } else if (fields.size() != 1) {
        return false;
    }
    return std::find(own_names_.begin(), own_names_.end(), string_value(*fields.begin())) !=
           own_names_.end();
}

bool Judge::has_same_keys(const Json& expression) const {
    const auto node = as_node(expression);
    if (!node) {
        return false;
    }
    if (node->type == "TypeCast") {
        const auto argument = field(node->body, "arg");
        return argument && has_same_keys(*argument);
    }
    if (node->type != "FuncCall") {
        return false;
    }
    const auto name = last_name(items_field(node->body, "funcname"));
    if (name == "jsonb_build_object" || name == "json_build_object") {
        return true;
    }
    const Items arguments = items_field(node->body, "args");
    return (name == "to_jsonb" || name == "to_json" || name == "row_to_json" || name == "hstore") &&
           !arguments.empty() && is_whole_row(*arguments.begin());
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
            for (auto at = queries_; at; at = at->outer) {
                if (at->query.name == name) {
                    return query_copies_target(*at);
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
bool Judge::query_copies_target(const QueryScope& found) {
    if (std::find(being_read_->begin(), being_read_->end(), &found) != being_read_->end()) {
        return false;
    }
    const auto select = as_node(found.query.query);
    if (!select || select->type != "SelectStmt") {
        return false;
    }
    const auto visible = queries_;
    if (!found.query.recursive) {
        queries_ = found.outer;
    }
    being_read_->push_back(&found);
    const bool copies = copies_target(select->body);
    being_read_->pop_back();
    queries_ = visible;
    return copies;
}

Judge::Within::Within(Judge& judge, const JsonObject& select)
    : judge_(judge), before_(judge.queries_) {
    const auto with = object_field(select, "withClause");
    for (const Json item : with ? items_field(*with, "ctes") : Items{}) {
        const auto cte = as_node(item);
        const auto query = cte ? field(cte->body, "ctequery") : std::nullopt;
        if (query) {
            const VisibleQuery one{text_field(cte->body, "ctename"), *query,
                                   flag_field(*with, "recursive")};
            judge_.queries_ = std::make_shared<const QueryScope>(QueryScope{one, judge_.queries_});
        }
    }
}

bool Judge::copies_target(const JsonObject& select) {
    const Within within(*this, select);
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
    if (const auto limit = field(select, "limitCount"); limit && !scope_.repeats) {
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
        inner.queries_ = queries_;
        inner.visible_origins_ = visible_origins_;
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
    if (node->type == "RangeSubselect" || node->type == "RangeFunction") {
        const Dependencies found = dependencies(leaf);
        source.own = found.own && !found.outside && !found.ambiguous && found.sources == 0;
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
            all |= source.own ? 0 : source.bit;
        }
    }
    return all;
}

// A variable or a parameter. Those that hold rows of the target are the target once more.
void Judge::depend_on_variable(std::string_view name, Dependencies& out) {
    for (std::size_t i = visible_origins_; i-- > 0;) {
        const VariableOrigin& origin = (*scope_.origins)[i];
        if (origin.name != name) {
            continue;
        }
        if (!origin.query) {
            break;
        }
        origin_bits_.resize(scope_.origins->size());
        if (!origin_bits_[i]) {
            // Its query sees what variables held before it ran.
            const std::size_t visible = visible_origins_;
            visible_origins_ = i;
            const bool copies = copies_target(*origin.query);
            visible_origins_ = visible;
            origin_bits_[i] = copies && next_bit_ < 62 ? std::uint64_t{1} << next_bit_++ : 0;
            copies_ |= *origin_bits_[i];
        }
        if (*origin_bits_[i] == 0) {
            break;
        }
        if (origin.extreme) {
            out.extreme = true;
            break;
        }
        out.sources |= *origin_bits_[i];
        return;
    }
    out.outside = true;
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
            depend_on_variable(name, out);
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
                if (source.own) {
                    out.own = true;
                } else {
                    out.sources |= source.bit;
                }
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
    } else if (owns_every_name_) {
        out.own = true;
    } else {
        depend_on_variable(qualifier,
                           out);  // NEW, OLD, a variable's field; otherwise the server refuses it
    }
}

void Judge::depend_on_query(const JsonObject& select, Dependencies& out) {
    const Within within(*this, select);
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
    const bool from = has_others(level);
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
    out.maybe_own |= found.maybe_own || (found.ambiguous && from);
    out.extreme |= found.extreme;
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
            const auto body = as_object(value);
            if (visible_origins_ == 0 || !body) {
                out.outside = true;
            } else {
                depend_on_variable("$" + std::to_string(number_field(*body, "number")), out);
            }
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

}  // namespace pgchaperone::policy::bounds
