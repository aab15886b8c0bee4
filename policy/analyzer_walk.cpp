#include "policy/analyzer_walk.h"

#include "policy/analyzer_bounds.h"
#include "policy/analyzer_constant.h"
#include "policy/analyzer_literal.h"
#include "policy/analyzer_relations.h"
#include "policy/analyzer_tags.h"
#include "policy/analyzer_variables.h"
#include "policy/chaperone_call.h"
#include "policy/deep_text.h"
#include "policy/functions_table.h"
#include "policy/parse_tree.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>
#include <utility>

namespace pgchaperone::policy {

namespace {

// SQL in a literal in SQL in a literal ...: what is deeper is opaque.
constexpr unsigned most_nesting = 8;

// Loops and branches in loops and branches ...: each level of a body takes some kilobytes of stack,
// and three or four levels of its tree.
constexpr unsigned most_body_levels = 400;

template <typename T>
void add_unique(std::vector<T>& list, T value) {
    if (std::find(list.begin(), list.end(), value) == list.end()) {
        list.push_back(std::move(value));
    }
}

bool is_deeper(const Json& json, unsigned levels) {
    if (levels == 0) {
        return true;
    }
    JsonArray array;
    if (json.get(array) == simdjson::SUCCESS) {
        for (const Json item : array) {
            if (is_deeper(item, levels - 1)) {
                return true;
            }
        }
    }
    JsonObject object;
    if (json.get(object) == simdjson::SUCCESS) {
        for (const auto& [key, value] : object) {
            if (is_deeper(value, levels - 1)) {
                return true;
            }
        }
    }
    return false;
}

void raise(Flag& flag, std::string_view reason) {
    if (!flag.set) {
        flag.set = true;
        flag.reason = reason;
    }
}

std::string lower(std::string_view text) {
    std::string out(text);
    std::transform(out.begin(), out.end(), out.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return out;
}

// DefElem's boolean, as the server's defGetBoolean reads it; what it would refuse counts as true.
bool option_is_on(const JsonObject& option) {
    const auto argument = node_field(option, "arg");
    if (!argument) {
        return true;
    }
    if (argument->type == "Integer") {
        return number_field(argument->body, "ival") != 0;
    }
    if (argument->type == "Boolean") {
        return flag_field(argument->body, "boolval");
    }
    const std::string word = lower(text_field(argument->body, "sval"));
    return word != "false" && word != "off";
}

// The value of the last option of that name in a list of DefElems; nothing where there is none.
std::optional<bool> option(const Items& options, std::string_view name) {
    std::optional<bool> value;
    for (const Json item : options) {
        const auto element = as_node(item);
        if (element && element->type == "DefElem" && text_field(element->body, "defname") == name) {
            value = option_is_on(element->body);
        }
    }
    return value;
}

RelationName relation_name(const JsonObject& range_var) {
    return {std::string(text_field(range_var, "catalogname")),
            std::string(text_field(range_var, "schemaname")),
            std::string(text_field(range_var, "relname"))};
}

// A name given as a list of strings, the last one being the object's.
RelationName qualified_name(const Items& names) {
    RelationName name;
    for (const Json part : names) {
        name.catalog = std::move(name.schema);
        name.schema = std::move(name.name);
        name.name = string_value(part);
    }
    return name;
}

std::string written_name(const RelationName& name) {
    return name.schema.empty() ? name.name : name.schema + "." + name.name;
}

bool is_temporary(const JsonObject& range_var) {
    return text_field(range_var, "relpersistence") == "t" ||
           text_field(range_var, "schemaname") == "pg_temp";
}

bool is_catalog(const RelationName& name) {
    return name.schema == "pg_catalog" || name.schema == "information_schema" ||
           name.schema == "pg_toast" || (name.schema.empty() && name.name.starts_with("pg_"));
}

class Walker {
public:
    Walker(WalkContext& context, StatementFacts& facts) : context_(context), facts_(facts) {}

    void statement(const Node& node, std::string_view text);
    void sql_text(std::string_view sql, std::string_view what);
    void expression_text(std::string_view sql, int mode);
    void walk(const Json& json);

private:
    // Statements.
    void dispatch(const Node& node, std::string_view text);
    void write_statement(const Node& node);
    void select(const JsonObject& body);
    void explain(const JsonObject& body);
    void copy(const JsonObject& body);
    void create_table(const JsonObject& body);
    void create_table_as(const JsonObject& body);
    void create_function(const JsonObject& body, std::string_view text);
    void do_block(const JsonObject& body, std::string_view text);
    void drop(const JsonObject& body);
    void truncate(const JsonObject& body);
    void alter_table(const JsonObject& body);
    void alter_table_command(const JsonObject& command, const std::string& table, bool fresh);
    void rename(const JsonObject& body);
    void index(const JsonObject& body);
    void transaction(const JsonObject& body);
    void set(const JsonObject& body);
    void setting(std::string_view name);
    void names_schemas(const std::optional<std::string>& value);
    void sequence(const JsonObject& body);
    void role(const JsonObject& body, std::string_view verb);
    void discard(const JsonObject& body);
    void maintain(const Node& node);

    // Parts.
    void walk_fields(const JsonObject& object);
    void node(std::string_view type, const JsonObject& body);
    std::size_t enter_queries(const JsonObject& statement);
    void leave_queries(std::size_t depth) { queries_.resize(depth); }
    void read_relation(const JsonObject& range_var);
    void write_relation(const JsonObject& range_var);
    void add_relations(TouchedRelations relations);
    void function_call(const JsonObject& body);
    void operator_name(const Items& names);
    void plpgsql(std::string_view text, std::string_view source);
    void read_plpgsql(std::string_view text);
    void read_sql_text(std::string_view sql, std::string_view what);
    void read_expression_text(std::string_view sql, int mode);
    void plpgsql_json(const Json& json);
    bool plpgsql_statement(std::string_view kind, const JsonObject& body);
    void plpgsql_parts(const JsonObject& body, std::string_view without = {});
    void plpgsql_branch(const std::optional<Json>& statements, bool chosen);
    void plpgsql_if(const JsonObject& body);
    void plpgsql_case(const JsonObject& body);
    void plpgsql_loop(std::string_view kind, const JsonObject& body);
    BodyVariables::Texts dynamic_sql(const Json& expression, const JsonObject& statement);

    // Made by an earlier statement of the same text.
    bool is_fresh(const RelationName& name) const {
        return std::find(context_.created.begin(), context_.created.end(), name) !=
               context_.created.end();
    }

    // A table that certainly was not there before and certainly is when this statement has
    // succeeded: nothing under EXPLAIN, in a body that may not run or may undo it, or behind IF NOT
    // EXISTS, which may find something else of that name.
    void makes_table(const JsonObject& range_var, bool may_exist) {
        if (!executes_ || may_exist || facts_.commands.size() != 1) {
            return;
        }
        context_.created.push_back(relation_name(range_var));
        add_unique(facts_.tables_created, relation_name(range_var));
        facts_.creates_temporary = is_temporary(range_var);
    }

    void command(std::string_view tag) { add_unique(facts_.commands, std::string(tag)); }
    void add_class(StatementClass value) { add_unique(facts_.classes, value); }
    void destroys(std::string reason) {
        if (executes_) {
            raise(facts_.destructive, reason);
        }
    }
    void endangers(std::string_view reason) {
        if (executes_) {
            raise(facts_.dangerous, reason);
        }
    }
    void hides(std::string_view reason) {
        raise(facts_.opaque, reason);
        add_class(StatementClass::function);
        facts_.may_change_lexical_settings = true;
    }

    WalkContext& context_;
    StatementFacts& facts_;
    std::vector<VisibleQuery> queries_;
    std::vector<std::string> variables_;
    BodyVariables* body_ = nullptr;  // of the PL/pgSQL that is being read
    bool repeats_ = false;           // in a loop that goes on until nothing is left
    bool executes_ = true;           // false under an EXPLAIN that only plans
};

// --- Relations, functions, expressions
// ------------------------------------------------------------------

void Walker::read_relation(const JsonObject& range_var) {
    const auto name = text_field(range_var, "relname");
    if (text_field(range_var, "schemaname").empty()) {
        const auto is_query = [&](const VisibleQuery& query) { return query.name == name; };
        if (std::any_of(queries_.begin(), queries_.end(), is_query)) {
            return;
        }
    }
    add_unique(facts_.read, relation_name(range_var));
}

void Walker::write_relation(const JsonObject& range_var) {
    if (executes_) {
        add_unique(facts_.written, relation_name(range_var));
    } else {
        add_unique(facts_.read, relation_name(range_var));
    }
}

void Walker::add_relations(TouchedRelations relations) {
    for (RelationName& name : relations.read) {
        add_unique(facts_.read, std::move(name));
    }
    for (RelationName& name : relations.written) {
        add_unique(executes_ ? facts_.written : facts_.read, std::move(name));
    }
}

void Walker::function_call(const JsonObject& body) {
    const RelationName name = qualified_name(items_field(body, "funcname"));
    add_unique(facts_.functions, FunctionName{name.schema, name.name});
    const FunctionFacts function = find_function(name.name, name.schema);
    const Items arguments = items_field(body, "args");
    const auto argument = [&](std::size_t wanted) -> std::optional<Json> {
        std::size_t at = 0;
        for (const Json each : arguments) {
            if (at++ == wanted) {
                return each;
            }
        }
        return std::nullopt;
    };
    if (!function.known) {
        hides("calls " + written_name(name) + "(), which may do anything");
        return;
    }
    add_relations(relations_of_call(name.name, arguments));
    switch (function.effect) {
        case FunctionEffect::none: return;
        case FunctionEffect::session:
            if (name.name == "set_config") {
                const auto wanted = argument(0);
                const auto setting_name = wanted ? literal_text(*wanted) : std::nullopt;
                if (!executes_) {
                    return;
                }
                add_class(StatementClass::misc);
                setting(setting_name ? *setting_name : std::string_view{});
                if (!setting_name || lower(*setting_name) == "search_path") {
                    const auto value = argument(1);
                    names_schemas(setting_name && value ? literal_text(*value) : std::nullopt);
                }
            } else {
                add_class(StatementClass::misc);
            }
            return;
        case FunctionEffect::writes:
            if (executes_) {
                add_class(StatementClass::write);
            }
            return;
        case FunctionEffect::runs_sql: {
            // ts_rewrite(query, target, substitute) runs nothing.
            if (name.name == "ts_rewrite" && arguments.size() != 2) {
                return;
            }
            const auto sql = argument(name.name == "ts_rewrite" ? 1 : 0);
            const auto known = sql ? literal_text(*sql) : std::nullopt;
            if (known) {
                sql_text(*known, "the query given to " + name.name + "()");
            } else {
                hides("runs SQL that is put together at run time, by " + name.name + "()");
            }
            return;
        }
        case FunctionEffect::runs_names:
            hides("reads whatever a name stands for, by " + name.name + "()");
            return;
        case FunctionEffect::dangerous:
            add_class(StatementClass::function);
            if (executes_) {
                add_class(StatementClass::write);
                endangers(std::string(function.danger) + ", by " + name.name + "()");
            }
            return;
    }
}

void Walker::operator_name(const Items& names) {
    const RelationName name = qualified_name(names);
    if ((!name.schema.empty() && name.schema != "pg_catalog") ||
        (!name.name.empty() && !std::isalpha(static_cast<unsigned char>(name.name[0])) &&
         !is_builtin_operator(name.name) && name.name != "!=" && name.name != "!~~")) {
        hides("uses the operator " + written_name(name) + ", which may do anything");
    }
}

std::size_t Walker::enter_queries(const JsonObject& body) {
    const std::size_t depth = queries_.size();
    const auto with = object_field(body, "withClause");
    if (!with) {
        return depth;
    }
    const bool recursive = flag_field(*with, "recursive");
    std::vector<VisibleQuery> found;
    for (const Json item : items_field(*with, "ctes")) {
        const auto cte = as_node(item);
        const auto query = cte ? field(cte->body, "ctequery") : std::nullopt;
        if (query) {
            found.push_back({text_field(cte->body, "ctename"), *query, recursive});
        }
    }
    if (recursive) {
        queries_.insert(queries_.end(), found.begin(), found.end());
    }
    for (const VisibleQuery& query : found) {
        const auto inner = as_node(query.query);
        if (inner && inner->type == "SelectStmt") {
            select(inner->body);
        } else if (inner) {
            statement(*inner, {});
        }
        if (!recursive) {
            queries_.push_back(query);
        }
    }
    return depth;
}

void Walker::node(std::string_view type, const JsonObject& body) {
    if (type == "A_Const" || type == "ColumnRef" || type == "ParamRef" || type == "String" ||
        type == "TypeName") {
        return;
    }
    if (type == "RangeVar") {
        read_relation(body);
        return;
    }
    if (type == "SelectStmt") {
        select(body);
        return;
    }
    if (type == "FuncCall") {
        function_call(body);
    } else if (type == "A_Expr") {
        operator_name(items_field(body, "name"));
    } else if (type == "SubLink" || type == "SortBy") {
        operator_name(items_field(body, type == "SortBy" ? "useOp" : "operName"));
    } else if (is_statement(type)) {
        statement({type, body}, {});
        return;
    }
    walk_fields(body);
}

void Walker::walk_fields(const JsonObject& object) {
    for (const auto& [key, value] : object) {
        if (!value.is_object() && !value.is_array()) {
            continue;
        }
        if (key[0] >= 'A' && key[0] <= 'Z') {
            node(key, value.get_object().value_unsafe());
        } else {
            walk(value);
        }
    }
}

void Walker::walk(const Json& json) {
    JsonArray array;
    if (json.get(array) == simdjson::SUCCESS) {
        for (const Json item : array) {
            walk(item);
        }
        return;
    }
    JsonObject object;
    if (json.get(object) == simdjson::SUCCESS) {
        walk_fields(object);
    }
}

// --- Queries and writes
// ---------------------------------------------------------------------------------

void Walker::select(const JsonObject& body) {
    const std::size_t depth = enter_queries(body);
    for (const auto& [key, value] : body) {
        if (key == "withClause") {
            continue;
        }
        JsonObject object;
        if (key == "larg" || key == "rarg") {
            if (value.get(object) == simdjson::SUCCESS) {
                select(object);
            }
        } else if (key == "intoClause") {
            if (value.get(object) == simdjson::SUCCESS) {
                if (const auto relation = object_field(object, "rel")) {
                    write_relation(*relation);
                    makes_table(*relation, false);
                }
                add_class(StatementClass::ddl);
            }
        } else if (key == "lockingClause") {
            // Needs the privilege to UPDATE, and is logged by pgaudit as one.
            if (executes_) {
                add_class(StatementClass::write);
            }
        } else {
            walk(value);
        }
    }
    leave_queries(depth);
}

void Walker::write_statement(const Node& node) {
    const JsonObject& body = node.body;
    if (const auto relation = object_field(body, "relation")) {
        write_relation(*relation);
        const RelationName name = relation_name(*relation);
        if (is_catalog(name)) {
            endangers("writes to the system catalog " + written_name(name));
            facts_.may_change_lexical_settings |= executes_ && name.name == "pg_settings";
        }
    }
    if (const auto conflict = object_field(body, "onConflictClause")) {
        facts_.updates_on_conflict |= text_field(*conflict, "action") == "ONCONFLICT_UPDATE";
    }
    const std::size_t depth = enter_queries(body);
    for (const auto& [key, value] : body) {
        if (key == "relation" || key == "withClause") {
            continue;
        }
        walk(value);
    }
    if (executes_) {
        BoundsScope scope{&queries_, &variables_, &context_.work};
        if (body_ != nullptr) {
            scope.origins = &body_->origins();
            scope.repeats = repeats_;
        }
        Flag unbounded = node.type == "UpdateStmt"   ? unbounded_update(body, scope)
                         : node.type == "DeleteStmt" ? unbounded_delete(body, scope)
                         : node.type == "MergeStmt"  ? unbounded_merge(body, scope)
                                                     : unbounded_insert(body, scope);
        if (unbounded) {
            raise(facts_.unbounded, unbounded.reason);
        }
    }
    leave_queries(depth);
}

void Walker::explain(const JsonObject& body) {
    const bool runs = option(items_field(body, "options"), "analyze").value_or(false);
    const auto query = node_field(body, "query");
    if (!query) {
        return;
    }
    const bool before = executes_;
    executes_ = executes_ && runs;
    statement(*query, {});
    executes_ = before;
}

void Walker::copy(const JsonObject& body) {
    const bool from = flag_field(body, "is_from");
    const auto file = text_field(body, "filename");
    if (const auto relation = object_field(body, "relation")) {
        if (from) {
            write_relation(*relation);
            const RelationName name = relation_name(*relation);
            if (is_catalog(name)) {
                endangers("writes to the system catalog " + written_name(name));
            }
        } else {
            read_relation(*relation);
        }
    }
    if (flag_field(body, "is_program")) {
        endangers("runs a program on the server");
    } else if (!file.empty()) {
        endangers(from ? "reads a file of the server" : "writes a file of the server");
    } else if (from) {
        facts_.copies_in = true;
    }
    if (!file.empty()) {
        add_class(StatementClass::write);
    }
    if (const auto query = node_field(body, "query")) {
        statement(*query, {});
    }
    if (const auto where = field(body, "whereClause")) {
        walk(*where);
    }
}

// --- Definitions
// ----------------------------------------------------------------------------------------

void Walker::create_table(const JsonObject& body) {
    const auto base = object_field(body, "base");  // of a foreign table
    const JsonObject& table = base ? *base : body;
    if (const auto relation = object_field(table, "relation")) {
        write_relation(*relation);
        makes_table(*relation, flag_field(table, "if_not_exists"));
        facts_.creates_child = !items_field(table, "inhRelations").empty();
        facts_.drops_on_commit = text_field(table, "oncommit") == "ONCOMMIT_DROP";
    }
    // Defaults and checks are only written down here; they run when rows come.
}

void Walker::create_table_as(const JsonObject& body) {
    if (const auto into = object_field(body, "into")) {
        if (const auto relation = object_field(*into, "rel")) {
            write_relation(*relation);
            makes_table(*relation, flag_field(body, "if_not_exists"));
            facts_.drops_on_commit = text_field(*into, "onCommit") == "ONCOMMIT_DROP";
        }
    }
    if (const auto query = node_field(body, "query")) {
        statement(*query, {});
    }
}

void Walker::create_function(const JsonObject& body, std::string_view text) {
    const RelationName name = qualified_name(items_field(body, "funcname"));
    std::string_view language;
    std::optional<std::string> source;
    bool link_symbol = false;
    for (const Json item : items_field(body, "options")) {
        const auto element = as_node(item);
        if (!element || element->type != "DefElem") {
            continue;
        }
        const auto option_name = text_field(element->body, "defname");
        if (option_name == "language") {
            if (const auto argument = field(element->body, "arg")) {
                language = string_value(*argument);
            }
        } else if (option_name == "as") {
            if (const auto argument = field(element->body, "arg")) {
                for (const Json part : list_items(*argument)) {
                    link_symbol = source.has_value();
                    source = string_value(part);
                }
            }
        } else if (option_name == "security" && option_is_on(element->body)) {
            endangers("makes a function that runs with its owner's rights");
        }
    }
    const std::size_t known = variables_.size();
    for (const Json item : items_field(body, "parameters")) {
        const auto parameter = as_node(item);
        const auto parameter_name = parameter ? text_field(parameter->body, "name")
                                              : std::string_view{};
        if (!parameter_name.empty()) {
            variables_.emplace_back(parameter_name);
        }
    }
    if (const auto sql_body = field(body, "sql_body")) {
        walk(*sql_body);
    } else if (!source) {
        raise(facts_.opaque, "makes a function whose body is not here");
    } else if (language == "sql") {
        sql_text(*source, "the function's body");
    } else if (language == "plpgsql") {
        plpgsql(text, *source);
    } else {
        if (language == "c" || language == "internal" || link_symbol || language.ends_with("u")) {
            endangers("makes a function in a language that is not confined to the database");
        }
        raise(facts_.opaque, "makes a function in a language that is not read here");
    }
    variables_.resize(known);
}

void Walker::do_block(const JsonObject& body, std::string_view text) {
    std::string_view language = "plpgsql";
    std::optional<std::string_view> source;
    for (const Json item : items_field(body, "args")) {
        const auto element = as_node(item);
        const auto argument = element ? field(element->body, "arg") : std::nullopt;
        if (!argument) continue;
        if (text_field(element->body, "defname") == "language")
            language = string_value(*argument);
        else
            source = string_value(*argument);
    }
    // The grammar takes it, the server does not, and PL/pgSQL's parser in libpg_query ends the
    // process.
    if (!source) {
        hides("runs code that is not here");
        return;
    }
    if (language == "plpgsql") {
        plpgsql(text, *source);
        return;
    }
    hides("runs code in a language that is not read here");
    if (language.ends_with("u")) {
        endangers("runs code in a language that is not confined to the database");
    }
}

void Walker::drop(const JsonObject& body) {
    const auto type = text_field(body, "removeType");
    const auto what = object_type_name(type);
    const bool on_relation = type == "OBJECT_TRIGGER" || type == "OBJECT_RULE" ||
                             type == "OBJECT_POLICY";
    const bool relations = type == "OBJECT_TABLE" || type == "OBJECT_VIEW" ||
                           type == "OBJECT_MATVIEW" || type == "OBJECT_FOREIGN_TABLE" ||
                           type == "OBJECT_SEQUENCE" || type == "OBJECT_INDEX";
    std::string names;
    bool all_temporary = true;
    for (const Json item : items_field(body, "objects")) {
        RelationName name;
        if (const auto object = as_node(item); object && object->type == "ObjectWithArgs") {
            name = qualified_name(items_field(object->body, "objname"));
        } else if (object && object->type == "String") {
            name.name = text_field(object->body, "sval");
        } else if (object && object->type == "TypeName") {
            name = qualified_name(items_field(object->body, "names"));
        } else {
            name = qualified_name(list_items(item));
        }
        std::string shown = written_name(name);
        if (on_relation) {
            shown = name.name + " on " + (name.catalog.empty() ? "" : name.catalog + ".") +
                    name.schema;
            name = RelationName{{}, std::move(name.catalog), std::move(name.schema)};
        }
        all_temporary &= (relations || type == "OBJECT_FUNCTION") && name.schema == "pg_temp";
        if (relations || on_relation) {
            add_unique(facts_.written, name);
        }
        constexpr std::size_t most_shown = 120;
        if (names.size() < most_shown) {
            names += (names.empty() ? "" : ", ") + shown;
        } else if (!names.ends_with("...")) {
            names += ", ...";
        }
    }
    if (!all_temporary || !(relations || type == "OBJECT_FUNCTION")) {
        std::string lowered = lower(what.empty() ? "object" : what);
        destroys(
            "drops " + lowered + (names.empty() ? "" : " " + names) +
            (text_field(body, "behavior") == "DROP_CASCADE" ? " and all that depends on it" : ""));
    }
    if (flag_field(body, "concurrent")) {
        facts_.runs_in_transaction = false;
    }
}

void Walker::truncate(const JsonObject& body) {
    command("TRUNCATE");
    std::string names;
    bool all_temporary = true;
    for (const Json item : items_field(body, "relations")) {
        const auto relation = as_node(item);
        if (!relation) {
            continue;
        }
        write_relation(relation->body);
        const RelationName name = relation_name(relation->body);
        all_temporary &= name.schema == "pg_temp";
        names += (names.empty() ? "" : ", ") + written_name(name);
    }
    if (!all_temporary) {
        raise(facts_.unbounded, "is a TRUNCATE");
        destroys(
            "empties " + names +
            (text_field(body, "behavior") == "DROP_CASCADE" ? " and all that refers to it" : ""));
    }
}

// `fresh`: the same text has made the table, and nobody else can be using it.
void Walker::alter_table_command(const JsonObject& cmd, const std::string& table, bool fresh) {
    const auto type = text_field(cmd, "subtype");
    const std::string name(text_field(cmd, "name"));
    if (type == "AT_DropColumn") {
        destroys("drops column " + name + " of " + table);
    } else if (type == "AT_AlterColumnType") {
        destroys("changes the type of column " + name + " of " + table);
    } else if (type == "AT_DropNotNull") {
        destroys("lets column " + name + " of " + table + " be null");
    } else if (type == "AT_AddConstraint") {
        const auto constraint = node_field(cmd, "def");
        const auto kind = constraint ? text_field(constraint->body, "contype") : std::string_view{};
        if (fresh) {
            return;
        }
        if (kind == "CONSTR_CHECK" || kind == "CONSTR_FOREIGN" || kind == "CONSTR_EXCLUSION") {
            endangers("adds a constraint to " + table + " that other people's writes may fail");
        }
    } else if (type == "AT_EnableRowSecurity" || type == "AT_ForceRowSecurity") {
        endangers("hides the rows of " + table +
                  " from everybody whom no policy allows to see them");
    } else if (type == "AT_DropConstraint") {
        destroys("drops constraint " + name + " of " + table);
    } else if (type == "AT_DetachPartition" || type == "AT_DetachPartitionFinalize") {
        destroys("detaches a partition from " + table);
        if (const auto partition = object_field(cmd, "def")) {
            if (flag_field(*partition, "concurrent")) {
                facts_.runs_in_transaction = false;
            }
            if (const auto partition_cmd = node_field(cmd, "def");
                partition_cmd && partition_cmd->type == "PartitionCmd") {
                if (flag_field(partition_cmd->body, "concurrent")) {
                    facts_.runs_in_transaction = false;
                }
            }
        }
    } else if (type == "AT_DropExpression" || type == "AT_SetExpression") {
        destroys("changes how column " + name + " of " + table + " is computed");
    } else if (type == "AT_DropIdentity") {
        destroys("takes the identity from column " + name + " of " + table);
    } else if (type == "AT_ColumnDefault" && !field(cmd, "def")) {
        destroys("drops the default of column " + name + " of " + table);
    } else if (type == "AT_DropInherit" || type == "AT_DropOf") {
        destroys("takes " + table + " out of its hierarchy");
    } else if (type == "AT_DisableTrig" || type == "AT_DisableTrigAll" ||
               type == "AT_DisableTrigUser") {
        destroys("disables triggers of " + table);
    } else if (type == "AT_DisableRule") {
        destroys("disables a rule of " + table);
    } else if (type == "AT_DisableRowSecurity" || type == "AT_NoForceRowSecurity") {
        destroys("disables the row security of " + table);
    } else if (type == "AT_SetUnLogged") {
        destroys("makes " + table + " unlogged: a crash empties it");
    } else if (type == "AT_ChangeOwner") {
        endangers("gives " + table + " to another owner");
    } else if (type == "AT_SetTableSpace" || type == "AT_SetAccessMethod" ||
               type == "AT_SetLogged") {
        endangers("rewrites " + table + " and locks it meanwhile");
    } else if (type == "AT_ReplicaIdentity") {
        endangers("changes what replication knows of " + table);
    } else if (type == "AT_EnableReplicaTrig" || type == "AT_EnableAlwaysTrig" ||
               type == "AT_EnableReplicaRule" || type == "AT_EnableAlwaysRule") {
        endangers("changes when triggers or rules of " + table + " run");
    } else if (type == "AT_SetIdentity") {
        const auto definition = field(cmd, "def");
        JsonArray options;
        if (definition && list_items(*definition).size() > 0 &&
            (option(list_items(*definition), "restart") ||
             option(list_items(*definition), "minvalue") ||
             option(list_items(*definition), "maxvalue") ||
             option(list_items(*definition), "increment"))) {
            endangers("moves the sequence of " + table);
        }
    } else if (type == "AT_GenericOptions" || type == "AT_AlterColumnGenericOptions") {
        endangers("changes where the foreign table " + table + " gets its rows from");
    }
}

void Walker::alter_table(const JsonObject& body) {
    std::string table;
    bool temporary = false;
    bool fresh = false;
    if (const auto relation = object_field(body, "relation")) {
        write_relation(*relation);
        const RelationName name = relation_name(*relation);
        table = written_name(name);
        fresh = is_fresh(name);
        temporary = name.schema == "pg_temp";
        if (is_catalog(name)) {
            endangers("changes the system catalog " + table);
        }
    }
    for (const Json item : items_field(body, "cmds")) {
        const auto cmd = as_node(item);
        if (cmd && !temporary) {
            alter_table_command(cmd->body, table, fresh);
        }
    }
}

void Walker::rename(const JsonObject& body) {
    const auto type = text_field(body, "renameType");
    std::string what = lower(object_type_name(type));
    if (type == "OBJECT_COLUMN") {
        what = "column " + std::string(text_field(body, "subname"));
    }
    if (const auto relation = object_field(body, "relation")) {
        write_relation(*relation);
        if (text_field(*relation, "schemaname") == "pg_temp") {
            return;
        }
        what += type == "OBJECT_COLUMN" ? " of " : " ";
        what += written_name(relation_name(*relation));
    }
    endangers("renames " + (what.empty() ? "an object" : what) + ": who uses the old name fails");
}

void Walker::index(const JsonObject& body) {
    const auto relation = object_field(body, "relation");
    if (relation) {
        write_relation(*relation);
    }
    if (flag_field(body, "concurrent")) {
        facts_.runs_in_transaction = false;
    } else if (relation) {
        const RelationName name = relation_name(*relation);
        if (!is_fresh(name) && name.schema != "pg_temp") {
            raise(facts_.blocking, "stops all writes to " + written_name(name) +
                                       " while the index is built (CONCURRENTLY would not)");
        }
    }
    // Expressions and conditions run while the index is built.
    for (const std::string_view part : {"indexParams", "indexIncludingParams", "whereClause"}) {
        if (const auto value = field(body, part)) {
            walk(*value);
        }
    }
}

// --- Sessions, transactions, settings
// -------------------------------------------------------------------

namespace {

TransactionControl control_of(std::string_view kind) {
    if (kind == "TRANS_STMT_BEGIN" || kind == "TRANS_STMT_START") return TransactionControl::begin;
    if (kind == "TRANS_STMT_COMMIT") return TransactionControl::commit;
    if (kind == "TRANS_STMT_ROLLBACK") return TransactionControl::rollback;
    if (kind == "TRANS_STMT_PREPARE") return TransactionControl::prepare;
    if (kind == "TRANS_STMT_COMMIT_PREPARED" || kind == "TRANS_STMT_ROLLBACK_PREPARED") {
        return TransactionControl::finish_prepared;
    }
    return TransactionControl::savepoint;
}

}  // namespace

void Walker::transaction(const JsonObject& body) {
    const auto kind = text_field(body, "kind");
    facts_.controls_transaction = true;
    // What SET LOCAL changed, or what was changed and is rolled back, comes back.
    facts_.may_change_lexical_settings |= kind == "TRANS_STMT_COMMIT" ||
                                          kind == "TRANS_STMT_ROLLBACK" ||
                                          kind == "TRANS_STMT_ROLLBACK_TO" ||
                                          kind == "TRANS_STMT_PREPARE";
    facts_.changes_search_path |= facts_.may_change_lexical_settings;
    if (kind == "TRANS_STMT_COMMIT_PREPARED" || kind == "TRANS_STMT_ROLLBACK_PREPARED") {
        facts_.runs_in_transaction = false;
    }
    facts_.transaction_control = control_of(kind);
    facts_.chains = flag_field(body, "chain");
}

// A change of the setting `name`; empty: of one that only the server knows, or of all.
void Walker::setting(std::string_view given) {
    const std::string name = lower(given);
    const bool any = name.empty();
    if (executes_) {
        add_unique(facts_.settings, name);
    }
    if (any || name == "client_encoding" || name == "standard_conforming_strings") {
        facts_.may_change_lexical_settings = true;
    }
    if (any || name == "search_path" || name == "role" || name == "session_authorization") {
        facts_.changes_search_path = true;  // "$user" is a part of the usual one
    }
    if (name == "session_replication_role") {
        endangers("switches triggers and foreign keys off");
    } else if (name == "allow_system_table_mods" || name == "zero_damaged_pages" ||
               name == "ignore_system_indexes" || name == "ignore_checksum_failure" ||
               name == "ignore_invalid_pages" || name == "lo_compat_privileges") {
        endangers("lets the session damage the database (" + name + ")");
    } else if (name == "track_counts") {
        endangers("stops the server from counting changed rows");
    } else if (name == "local_preload_libraries" || name == "session_preload_libraries" ||
               name == "dynamic_library_path" || name == "jit_provider") {
        endangers("makes the server load other code (" + name + ")");
    }
}

// The new search_path; nothing: not known.
void Walker::names_schemas(const std::optional<std::string>& value) {
    facts_.moves_pg_temp |= !value || lower(*value).find("pg_temp") != std::string::npos;
}

void Walker::set(const JsonObject& body) {
    const auto kind = text_field(body, "kind");
    if (kind == "VAR_RESET_ALL") {
        auto settings = facts_.settings;
        setting({});
        facts_.settings = std::move(settings);
        add_unique(facts_.settings, std::string("all"));
        return;
    }
    const auto name = text_field(body, "name");
    if (kind == "VAR_SET_MULTI") {
        const std::string_view prefix = name == "SESSION CHARACTERISTICS" ? "default_" : "";
        for (const Json item : items_field(body, "args")) {
            const auto mode = as_node(item);
            if (mode && mode->type == "DefElem") {
                add_unique(facts_.settings,
                           std::string(prefix) + std::string(text_field(mode->body, "defname")));
            }
        }
    } else {
        // RESET brings back what the session started with, and that is harmless for most.
        if (kind == "VAR_RESET" || kind == "VAR_SET_DEFAULT") {
            const bool was = facts_.dangerous.set;
            Flag before = facts_.dangerous;
            setting(name);
            if (!was) {
                facts_.dangerous = before;
            }
        } else {
            setting(name);
        }
    }
    if (lower(name) == "search_path") {
        for (const Json schema : items_field(body, "args")) {
            names_schemas(literal_text(schema));
        }
    }
}

void Walker::discard(const JsonObject& body) {
    if (text_field(body, "target") == "DISCARD_ALL") {
        facts_.runs_in_transaction = false;
        auto settings = facts_.settings;
        setting({});
        facts_.settings = std::move(settings);
    }
}

void Walker::sequence(const JsonObject& body) {
    if (const auto relation = object_field(body, "sequence")) {
        write_relation(*relation);
        const Items options = items_field(body, "options");
        for (const std::string_view moved :
             {"restart", "minvalue", "maxvalue", "increment", "cycle", "start"}) {
            if (option(options, moved)) {
                endangers("moves the sequence " + written_name(relation_name(*relation)));
            }
        }
    }
}

void Walker::role(const JsonObject& body, std::string_view verb) {
    std::string reason(verb);
    for (const std::string_view name : {"role", "rolename"}) {
        const auto text = text_field(body, name);
        if (!text.empty()) {
            reason += " ";
            reason += text;
        }
    }
    if (const auto spec = object_field(body, "role")) {
        const auto text = text_field(*spec, "rolename");
        if (!text.empty()) {
            reason += " ";
            reason += text;
        }
    }
    endangers(reason);
}

void Walker::maintain(const Node& node) {
    const JsonObject& body = node.body;
    if (node.type == "VacuumStmt") {
        const Items options = items_field(body, "options");
        if (flag_field(body, "is_vacuumcmd")) {
            facts_.runs_in_transaction = false;
        }
        if (option(options, "full").value_or(false)) {
            raise(facts_.blocking, "locks out everybody while it rewrites the tables");
            endangers("locks out everybody while it rewrites the tables");
        }
        for (const Json item : items_field(body, "rels")) {
            const auto vacuumed = as_node(item);
            const auto relation = vacuumed ? object_field(vacuumed->body, "relation")
                                           : std::nullopt;
            if (relation) {
                write_relation(*relation);
            }
        }
        return;
    }
    if (const auto relation = object_field(body, "relation")) {
        write_relation(*relation);
    }
    if (node.type == "ClusterStmt") {
        if (!object_field(body, "relation")) {
            facts_.runs_in_transaction = false;
        }
        raise(facts_.blocking, "locks out everybody while it rewrites the table");
        endangers("locks out everybody while it rewrites the table");
        return;
    }
    // REINDEX
    const auto kind = text_field(body, "kind");
    const bool concurrently = option(items_field(body, "params"), "concurrently").value_or(false) ||
                              flag_field(body, "concurrent");
    if (concurrently || (kind != "REINDEX_OBJECT_INDEX" && kind != "REINDEX_OBJECT_TABLE")) {
        facts_.runs_in_transaction = false;
    }
    if (!concurrently) {
        raise(facts_.blocking, "locks the tables while their indexes are built");
        endangers("locks the tables while their indexes are built (CONCURRENTLY would not)");
    }
}

// --- Code
// -----------------------------------------------------------------------------------------------

// Statements that stand in a literal and are run, or will be.
void Walker::sql_text(std::string_view sql, std::string_view what) {
    const auto read_it = [&] { read_sql_text(sql, what); };
    if (context_.nesting >= most_nesting ||
        !with_enough_stack(sql, context_.backslash_escapes, 0, read_it)) {
        hides("runs SQL that is nested too deeply to be read");
    }
}

void Walker::read_sql_text(std::string_view sql, std::string_view what) {
    const ParseTree tree(sql, ParseTree::Kind::sql, context_.backslash_escapes);
    if (!tree.ok()) {
        hides("cannot be judged: " + std::string(what) + " cannot be read: " + tree.error());
        return;
    }
    ++context_.nesting;
    const auto root = as_object(tree.root());
    for (const Json item : root ? items_field(*root, "stmts") : Items{}) {
        const auto raw = as_object(item);
        const auto inner = raw ? node_field(*raw, "stmt") : std::nullopt;
        if (!inner) {
            continue;
        }
        const auto from = static_cast<std::size_t>(number_field(*raw, "stmt_location"));
        const auto length = static_cast<std::size_t>(number_field(*raw, "stmt_len"));
        // A tree of its own: names of the outer statement's queries are not visible in it.
        std::vector<VisibleQuery> outer;
        outer.swap(queries_);
        statement(*inner, sql.substr(std::min(from, sql.size()),
                                     length == 0 ? std::string_view::npos : length));
        queries_.swap(outer);
    }
    --context_.nesting;
}

// An expression of PL/pgSQL, in one of the parser's modes.
void Walker::expression_text(std::string_view sql, int mode) {
    const auto read_it = [&] { read_expression_text(sql, mode); };
    if (context_.nesting >= most_nesting ||
        !with_enough_stack(sql, context_.backslash_escapes, 0, read_it)) {
        hides("has an expression that is nested too deeply to be read");
    }
}

void Walker::read_expression_text(std::string_view sql, int mode) {
    const ParseTree tree(sql, ParseTree::Kind::sql, context_.backslash_escapes, mode);
    if (!tree.ok()) {
        hides("has an expression that cannot be read: " + tree.error());
        return;
    }
    ++context_.nesting;
    std::vector<VisibleQuery> outer;
    outer.swap(queries_);
    const auto root = as_object(tree.root());
    for (const Json item : root ? items_field(*root, "stmts") : Items{}) {
        walk(item);
    }
    queries_.swap(outer);
    --context_.nesting;
}

// EXECUTE's argument: judged where its text is known. `statement` may hand over parameters.
BodyVariables::Texts Walker::dynamic_sql(const Json& expression, const JsonObject& statement) {
    const auto object = as_object(expression);
    const auto expr = object ? object_field(*object, "PLpgSQL_expr") : std::nullopt;
    if (!expr || body_ == nullptr) {
        hides("runs SQL that is not read here (EXECUTE)");
        return {};
    }
    const auto text = text_field(*expr, "query");
    expression_text(text, static_cast<int>(number_field(*expr, "parseMode")));
    BodyVariables::Texts known = body_->texts_of(text);
    if (known.empty()) {
        hides("runs SQL that is put together at run time (EXECUTE)");
    }
    const std::size_t mark = body_->mark();
    std::size_t number = 0;
    for (const Json item : items_field(statement, "params")) {
        const auto parameter = as_node(item);
        const auto origin = parameter ? body_->origin_of_expression(
                                            text_field(parameter->body, "query"), repeats_)
                                      : std::nullopt;
        body_->come_from({"$" + std::to_string(++number)}, origin.value_or(VariableOrigin{}));
    }
    for (const std::string& sql : known) {
        // Texts with EXECUTE in them, each of which may be one of several.
        constexpr std::uint64_t for_each_text = 200;
        const std::uint64_t cost = for_each_text + sql.size();
        if (context_.work < cost) {
            hides("runs more SQL than can be read here (EXECUTE)");
            break;
        }
        context_.work -= cost;
        sql_text(sql, "the text given to EXECUTE");
    }
    body_->release(mark);
    return known;
}

// All expressions and statements in a statement but those of one part.
void Walker::plpgsql_parts(const JsonObject& body, std::string_view without) {
    for (const auto& [name, part] : body) {
        if (name != without) {
            plpgsql_json(part);
        }
    }
}

// Statements that only run when a condition holds. Where that picks out rows of a loop, nothing
// runs for all of them.
void Walker::plpgsql_branch(const std::optional<Json>& statements, bool chosen) {
    if (!statements) {
        return;
    }
    const bool repeats = repeats_;
    std::vector<VariableOrigin> outside;
    if (chosen) {
        outside = body_->exchange_origins({});
        repeats_ = false;
    }
    plpgsql_json(*statements);
    if (chosen) {
        body_->exchange_origins(std::move(outside));
        repeats_ = repeats;
    }
}

void Walker::plpgsql_if(const JsonObject& body) {
    const auto chooses = [&](const JsonObject& branch) {
        const auto condition = field(branch, "cond");
        if (condition) {
            plpgsql_json(*condition);
        }
        const auto expr = condition ? as_node(*condition) : std::nullopt;
        return expr && body_->chooses(text_field(expr->body, "query"));
    };
    const BodyVariables::State before = body_->state();
    bool chosen = chooses(body);
    plpgsql_branch(field(body, "then_body"), chosen);
    BodyVariables::State after = body_->state();
    for (const Json item : items_field(body, "elsif_list")) {
        const auto branch = as_node(item);
        if (branch) {
            body_->restore(before);
            chosen |= chooses(branch->body);
            plpgsql_branch(field(branch->body, "stmts"), chosen);
            body_->join(after);
            after = body_->state();
        }
    }
    body_->restore(before);
    plpgsql_branch(field(body, "else_body"), chosen);
    body_->join(after);
}

void Walker::plpgsql_case(const JsonObject& body) {
    const BodyVariables::State before = body_->state();
    for (const auto& [name, part] : body) {
        body_->restore(before);
        plpgsql_branch(part, name != "t_expr");
    }
    body_->restore(before);
    body_->forget_assigned_in(body);
}

void Walker::plpgsql_loop(std::string_view kind, const JsonObject& body) {
    const auto statements = field(body, "body");
    const auto text_of = [&](std::string_view name) {
        const auto expr = node_field(body, name);
        return expr ? text_field(expr->body, "query") : std::string_view{};
    };
    BodyVariables::Texts known;
    for (const auto& [name, part] : body) {
        if (name == "query" && kind == "dynfors") {
            known = dynamic_sql(part, body);
        } else if (name != "body" && name != "var") {
            plpgsql_json(part);
        }
    }
    const auto variable = field(body, "var");
    std::vector<std::string> names = variable ? body_->names_in(*variable)
                                              : std::vector<std::string>{};
    BodyVariables::Texts elements;
    std::optional<VariableOrigin> origin;
    if (kind == "fors") {
        origin = body_->origin_of_query(text_of("query"));
    } else if (kind == "dynfors") {
        origin = known.size() == 1 ? body_->origin_of_query(known.front()) : std::nullopt;
    } else if (kind == "forc") {
        const auto cursor = body_->name_of(number_field(body, "curvar"));
        origin = body_->origin_of_cursor(cursor);
        names.emplace_back(cursor);
    } else if (kind == "foreach_a") {
        names.emplace_back(body_->name_of(number_field(body, "varno")));
        elements = body_->elements_of(text_of("expr"));
        origin = body_->origin_of_expression(text_of("expr"), repeats_);
    } else if (kind == "fori") {
        // From the least to the greatest: each in turn.
        origin = body_->origin_of_expression(text_of("upper"), repeats_);
        if (origin) {
            origin->extreme = false;
        }
    }
    const bool counted = (kind == "while" && body_->ends_by_counting(text_of("cond"))) ||
                         (statements && body_->leaves_early(*statements));
    const std::size_t mark = body_->mark();
    const bool repeats = repeats_;
    body_->forget_assigned_in(body);
    body_->forget(names);
    const BodyVariables::State before = body_->state();
    if (!elements.empty()) {
        body_->set(names.back(), elements);
    }
    body_->come_from(names, origin && !counted ? *origin : VariableOrigin{});
    if (!counted && statements) {
        body_->fetch_in(*statements);
    }
    if (kind == "loop" || kind == "while") {
        repeats_ = !counted;
    }
    if (statements) {
        plpgsql_json(*statements);
    }
    repeats_ = repeats;
    body_->release(mark);
    body_->restore(before);
}

// True where the statement has been read; the others have no parts but expressions and statements.
bool Walker::plpgsql_statement(std::string_view kind, const JsonObject& body) {
    if (kind == "if") {
        plpgsql_if(body);
    } else if (kind == "case") {
        plpgsql_case(body);
    } else if (kind == "loop" || kind == "while" || kind == "fori" || kind == "fors" ||
               kind == "forc" || kind == "foreach_a" || kind == "dynfors") {
        plpgsql_loop(kind, body);
    } else if (kind == "assign") {
        plpgsql_parts(body);
        const auto expr = node_field(body, "expr");
        const auto text = expr ? text_field(expr->body, "query") : std::string_view{};
        const std::string name(body_->name_of(number_field(body, "varno")));
        body_->set(name, body_->texts_of(text));
        body_->come_from({name},
                         body_->origin_of_expression(text, repeats_).value_or(VariableOrigin{}));
    } else if (kind == "execsql") {
        plpgsql_parts(body);
        const auto target = field(body, "target");
        const auto sql = node_field(body, "sqlstmt");
        if (target && sql) {
            body_->select_into(body_->names_in(*target), text_field(sql->body, "query"), repeats_);
        }
    } else if (kind == "dynexecute") {
        plpgsql_parts(body, "query");
        if (const auto query = field(body, "query")) {
            dynamic_sql(*query, body);
        }
        body_->forget_assigned_by(kind, body);
    } else if (kind == "open") {
        const auto cursor = body_->name_of(number_field(body, "curvar"));
        for (const auto& [name, part] : body) {
            if (name == "dynquery") {
                const BodyVariables::Texts known = dynamic_sql(part, body);
                body_->open(cursor, known.size() == 1 ? known.front() : std::string());
                continue;
            }
            plpgsql_json(part);
            const auto expr = name == "query" ? as_node(part) : std::nullopt;
            if (expr) {
                body_->open(cursor, text_field(expr->body, "query"));
            }
        }
    } else if (kind == "block" && field(body, "exceptions")) {
        // What had been done when something failed is not known.
        const auto exceptions = field(body, "exceptions");
        plpgsql_parts(body, "exceptions");
        body_->forget_assigned_in(body);
        plpgsql_json(*exceptions);
        body_->forget_assigned_in(body);
    } else if (kind == "fetch" || kind == "getdiag" || kind == "call") {
        plpgsql_parts(body);
        body_->forget_assigned_by(kind, body);
    } else {
        return false;
    }
    return true;
}

void Walker::plpgsql_json(const Json& json) {
    JsonArray array;
    if (json.get(array) == simdjson::SUCCESS) {
        for (const Json item : array) {
            plpgsql_json(item);
        }
        return;
    }
    const auto object = as_object(json);
    if (!object) {
        return;
    }
    constexpr std::string_view statement_prefix = "PLpgSQL_stmt_";
    for (const auto& [key, value] : *object) {
        JsonObject body;
        if (value.get(body) != simdjson::SUCCESS) {
            plpgsql_json(value);
        } else if (key == "dynquery") {
            dynamic_sql(value, *object);
        } else if (key == "PLpgSQL_expr") {
            const std::string text(text_field(body, "query"));
            const auto mode = static_cast<int>(number_field(body, "parseMode"));
            if (mode == 0) {
                sql_text(text, "a statement of the body");
            } else {
                expression_text(text, mode);
            }
        } else if (!key.starts_with(statement_prefix) || body_ == nullptr ||
                   !plpgsql_statement(key.substr(statement_prefix.size()), body)) {
            plpgsql_json(value);
        }
    }
}

// The PL/pgSQL of a whole CREATE FUNCTION, CREATE PROCEDURE or DO statement. `source` is its body.
void Walker::plpgsql(std::string_view text, std::string_view source) {
    if (text.empty()) {
        hides("has a body that is not read here");
        return;
    }
    // PL/pgSQL's parser in libpg_query only knows standard_conforming_strings on.
    if (context_.backslash_escapes && source.find('\\') != std::string_view::npos) {
        hides("has a body with backslashes while standard_conforming_strings is off");
        return;
    }
    // Blocks in blocks need stack too; PL/pgSQL's parser ends at some thousands.
    constexpr std::size_t for_blocks = 3 * 1024 * 1024;
    const auto read_it = [&] { read_plpgsql(text); };
    if (context_.nesting >= most_nesting ||
        !with_enough_stack(source, context_.backslash_escapes, for_blocks, read_it)) {
        hides("has a body that is nested too deeply to be read");
    }
}

void Walker::read_plpgsql(std::string_view text) {
    const ParseTree tree(text, ParseTree::Kind::plpgsql, context_.backslash_escapes);
    if (!tree.ok()) {
        hides("has a body that cannot be read: " + tree.error());
        return;
    }
    if (is_deeper(tree.root(), most_body_levels)) {
        hides("has a body that is nested too deeply to be read");
        return;
    }
    ++context_.nesting;
    const std::size_t known = variables_.size();
    JsonArray functions;
    if (tree.root().get(functions) == simdjson::SUCCESS) {
        for (const Json item : functions) {
            const auto wrapper = as_object(item);
            const auto function = wrapper ? object_field(*wrapper, "PLpgSQL_function")
                                          : std::nullopt;
            if (!function) {
                continue;
            }
            for (const Json datum : items_field(*function, "datums")) {
                const auto variable = as_node(datum);
                const auto name = variable ? text_field(variable->body, "refname")
                                           : std::string_view{};
                if (!name.empty()) {
                    variables_.emplace_back(name);
                }
            }
            BodyVariables body(context_.backslash_escapes);
            body.declare(*function);
            BodyVariables* const outer = std::exchange(body_, &body);
            const bool repeats = std::exchange(repeats_, false);
            plpgsql_json(item);
            body_ = outer;
            repeats_ = repeats;
        }
    }
    variables_.resize(known);
    --context_.nesting;
}

// --- Every kind of statement
// ----------------------------------------------------------------------------

void Walker::dispatch(const Node& node, std::string_view text) {
    const auto type = node.type;
    const JsonObject& body = node.body;
    const auto relation = [&](std::string_view name = "relation") {
        if (const auto range_var = object_field(body, name)) {
            write_relation(*range_var);
            return written_name(relation_name(*range_var));
        }
        return std::string{};
    };
    if (type == "SelectStmt") return select(body);
    if (type == "UpdateStmt" || type == "DeleteStmt" || type == "MergeStmt" ||
        type == "InsertStmt") {
        return write_statement(node);
    }
    if (type == "TransactionStmt") return transaction(body);
    if (type == "VariableSetStmt") return set(body);
    if (type == "ClosePortalStmt") facts_.closes_cursor = text_field(body, "portalname");
    if (type == "VariableShowStmt" || type == "ClosePortalStmt" || type == "ListenStmt" ||
        type == "UnlistenStmt" || type == "NotifyStmt" || type == "ConstraintsSetStmt" ||
        type == "CheckPointStmt") {
        return;
    }
    if (type == "ExplainStmt") return explain(body);
    if (type == "CopyStmt") return copy(body);
    if (type == "TruncateStmt") return truncate(body);
    if (type == "DropStmt") return drop(body);
    if (type == "CreateStmt" || type == "CreateForeignTableStmt") {
        if (type == "CreateForeignTableStmt") {
            endangers("makes a table whose rows live on another server");
        }
        return create_table(body);
    }
    if (type == "CreateTableAsStmt") return create_table_as(body);
    if (type == "AlterTableStmt") return alter_table(body);
    if (type == "RenameStmt") return rename(body);
    if (type == "IndexStmt") return index(body);
    if (type == "CreateFunctionStmt") return create_function(body, text);
    if (type == "DoStmt") return do_block(body, text);
    if (type == "AlterSeqStmt") return sequence(body);
    if (type == "VacuumStmt" || type == "ClusterStmt" || type == "ReindexStmt")
        return maintain(node);
    if (type == "DiscardStmt") return discard(body);
    if (type == "CallStmt") {
        if (const auto call = object_field(body, "funccall")) {
            const RelationName name = qualified_name(items_field(*call, "funcname"));
            add_unique(facts_.functions, FunctionName{name.schema, name.name});
            hides("calls the procedure " + written_name(name) + "(), which may do anything");
            if (const auto arguments = field(*call, "args")) {
                walk(*arguments);
            }
        }
        return;
    }
    if (type == "PrepareStmt" || type == "ExecuteStmt" || type == "DeallocateStmt") {
        facts_.prepared_statement = text_field(body, "name");
        if (executes_ && type != "DeallocateStmt") {
            add_unique(type == "PrepareStmt" ? facts_.prepares : facts_.executes,
                       facts_.prepared_statement);
        }
        if (type == "ExecuteStmt") {
            hides("runs a prepared statement whose text is not here");
            if (const auto parameters = field(body, "params")) {
                walk(*parameters);
            }
        }
        if (const auto query = node_field(body, "query")) {
            statement(*query, {});
        }
        return;
    }
    if (type == "DeclareCursorStmt") {
        constexpr std::int64_t cursor_opt_hold = 0x20;  // nodes/parsenodes.h, PostgreSQL 14 and on
        facts_.holds_cursor = (number_field(body, "options") & cursor_opt_hold) != 0;
        if (executes_) add_unique(facts_.declares, std::string(text_field(body, "portalname")));
        if (const auto query = field(body, "query")) {
            walk(*query);
        }
        return;
    }
    if (type == "FetchStmt") {
        // Runs what the cursor was declared for, set_config() in it as well.
        facts_.may_change_lexical_settings |= executes_;
        facts_.changes_search_path |= executes_;
        if (executes_) add_unique(facts_.fetches, std::string(text_field(body, "portalname")));
        return;
    }
    if (type == "ViewStmt") {
        relation("view");
        if (const auto query = field(body, "query")) {
            walk(*query);
        }
        return;
    }
    if (type == "RuleStmt") {
        endangers("makes a rule that changes what statements on " + relation() + " do");
        for (const Json action : items_field(body, "actions")) {
            walk(action);
        }
        return;
    }
    if (type == "RefreshMatViewStmt") {
        const auto name = relation();
        if (flag_field(body, "skipData")) {
            destroys("empties the materialized view " + name);
        }
        if (!flag_field(body, "concurrent")) {
            raise(facts_.blocking, "locks out who reads " + name + " while it is filled");
        }
        return;
    }
    if (type == "CreateTrigStmt") {
        const auto name = relation();
        if (!name.starts_with("pg_temp.")) {
            endangers("makes a trigger that runs code whenever " + name + " is written");
        }
        return;
    }
    if (type == "LockStmt") {
        // ACCESS SHARE, ROW SHARE and ROW EXCLUSIVE are what every SELECT and UPDATE takes.
        constexpr std::int64_t row_exclusive = 3;
        for (const Json item : items_field(body, "relations")) {
            if (const auto locked = as_node(item)) {
                write_relation(locked->body);
            }
        }
        const auto mode = number_field(body, "mode");
        if (mode == 0 || mode > row_exclusive) {
            raise(facts_.blocking, "locks whole tables until the transaction ends");
            endangers("locks whole tables until the transaction ends");
        }
        return;
    }
    if (type == "DropOwnedStmt") {
        destroys("drops everything that a role owns");
        return endangers("drops everything that a role owns");
    }
    if (type == "ReassignOwnedStmt")
        return endangers("gives everything that a role owns to another");
    if (type == "DropdbStmt") {
        facts_.runs_in_transaction = false;
        return destroys("drops database " + std::string(text_field(body, "dbname")));
    }
    if (type == "CreatedbStmt") {
        facts_.runs_in_transaction = false;
        return;
    }
    if (type == "DropTableSpaceStmt") {
        facts_.runs_in_transaction = false;
        return destroys("drops tablespace " + std::string(text_field(body, "tablespacename")));
    }
    if (type == "CreateTableSpaceStmt") {
        facts_.runs_in_transaction = false;
        return endangers("makes the server use another directory");
    }
    if (type == "AlterDatabaseStmt" || type == "AlterDatabaseSetStmt" ||
        type == "AlterDatabaseRefreshCollStmt") {
        for (const Json item : items_field(body, "options")) {
            const auto element = as_node(item);
            if (element && text_field(element->body, "defname") == "tablespace") {
                facts_.runs_in_transaction = false;
            }
        }
        return endangers("changes database " + std::string(text_field(body, "dbname")) +
                         " for everybody");
    }
    if (type == "AlterSystemStmt") {
        facts_.runs_in_transaction = false;
        return endangers("changes the settings of the server");
    }
    if (type == "LoadStmt") return endangers("makes the server load a library");
    if (type == "DropRoleStmt") {
        destroys("drops a role");
        return endangers("drops a role");
    }
    if (type == "CreateRoleStmt") return role(body, "makes role");
    if (type == "AlterRoleStmt") return role(body, "changes role");
    if (type == "AlterRoleSetStmt") return role(body, "changes the settings of role");
    if (type == "GrantStmt" || type == "GrantRoleStmt" || type == "AlterDefaultPrivilegesStmt") {
        for (const Json item : items_field(body, "objects")) {
            const auto object = as_node(item);
            if (object && object->type == "RangeVar") {
                write_relation(object->body);
            }
        }
        return endangers("changes privileges");
    }
    if (type == "SecLabelStmt") return endangers("changes a security label");
    if (type == "AlterOwnerStmt") return endangers("gives an object to another owner");
    if (type == "AlterObjectSchemaStmt") {
        relation();
        return endangers("moves an object to schema " + std::string(text_field(body, "newschema")));
    }
    if (type == "AlterFunctionStmt") return endangers("changes a function that others use");
    if (type == "AlterDomainStmt") {
        const auto kind = text_field(body, "subtype");
        if (kind == "X") return destroys("drops a constraint of a domain");
        if (kind != "V") endangers("changes a domain that others use");
        return;
    }
    if (type == "AlterEnumStmt") {
        if (!text_field(body, "oldVal").empty()) {
            endangers("renames a value of a type that others use");
        }
        return;
    }
    if (type == "CreateSchemaStmt") {
        const std::size_t before = facts_.written.size();
        for (const Json item : items_field(body, "schemaElts")) {
            walk(item);
        }
        // What it makes stands in it.
        for (std::size_t i = before; i < facts_.written.size(); ++i) {
            if (facts_.written[i].schema.empty() && !facts_.written[i].is_every()) {
                facts_.written[i].schema = text_field(body, "schemaname");
            }
        }
        return;
    }
    if (type == "CreateSeqStmt") {
        relation("sequence");
        return;
    }
    if (type == "CreatePolicyStmt" || type == "AlterPolicyStmt") {
        return endangers("changes which rows of " + relation("table") + " others can see");
    }
    if (type == "CreateEventTrigStmt" || type == "AlterEventTrigStmt") {
        return endangers("changes what runs at everybody's DDL");
    }
    if (type == "CreatePublicationStmt" || type == "AlterPublicationStmt" ||
        type == "CreateSubscriptionStmt" || type == "AlterSubscriptionStmt") {
        if (type == "CreateSubscriptionStmt") {
            facts_.runs_in_transaction = false;
        }
        return endangers("changes replication");
    }
    if (type == "DropSubscriptionStmt") {
        facts_.runs_in_transaction = false;
        destroys("drops a subscription");
        return endangers("changes replication");
    }
    if (type == "CreateFdwStmt" || type == "AlterFdwStmt" || type == "CreateForeignServerStmt" ||
        type == "AlterForeignServerStmt" || type == "CreateUserMappingStmt" ||
        type == "AlterUserMappingStmt" || type == "ImportForeignSchemaStmt") {
        return endangers("connects the database to another server");
    }
    if (type == "DropUserMappingStmt") return destroys("drops a user mapping");
    if (type == "CreateExtensionStmt" || type == "AlterExtensionStmt" ||
        type == "AlterExtensionContentsStmt" || type == "CreatePLangStmt" ||
        type == "CreateAmStmt") {
        return endangers("brings other code into the database");
    }
    if (type == "CreateCastStmt" || type == "CreateOpClassStmt" || type == "AlterOpFamilyStmt" ||
        type == "AlterOperatorStmt" || type == "CreateTransformStmt" || type == "AlterTypeStmt" ||
        type == "CreateConversionStmt") {
        return endangers("changes how values are converted or compared");
    }
    if (type == "DefineStmt") {
        if (text_field(body, "kind") == "OBJECT_OPERATOR") {
            endangers("makes an operator, which may hide another");
        }
        return;
    }
    if (type == "AlterTableMoveAllStmt") return endangers("moves tables to another tablespace");
    if (type == "AlterTableSpaceOptionsStmt") return endangers("changes how the server runs");
    if (type == "CreateDomainStmt" || type == "CommentStmt" || type == "CompositeTypeStmt" ||
        type == "CreateEnumStmt" || type == "CreateRangeStmt" || type == "CreateStatsStmt" ||
        type == "AlterStatsStmt" || type == "CreateOpFamilyStmt" || type == "AlterCollationStmt" ||
        type == "AlterTSDictionaryStmt" || type == "AlterTSConfigurationStmt" ||
        type == "AlterObjectDependsStmt") {
        return;
    }
    if (type == "ReturnStmt" || type == "PLAssignStmt") {
        return walk_fields(body);
    }
    // A statement of a grammar that is newer than this list.
    hides("is a statement that is not known here");
    walk_fields(body);
}

void Walker::statement(const Node& node, std::string_view text) {
    const StatementKind kind = kind_of_statement(node);
    if (executes_) {
        command(kind.tag);
        add_class(kind.statement_class);
    }
    dispatch(node, text);
    add_relations(other_relations(node));
}

}  // namespace

void gather_facts(const Node& statement, std::string_view text, WalkContext& context,
                  StatementFacts& facts) {
    const StatementKind kind = kind_of_statement(statement);
    facts.command = kind.tag;
    facts.chaperone = chaperone_call(statement);
    if (facts.chaperone) {
        // The server never sees it, so nothing else is to be said of it.
        facts.commands = {facts.command};
        facts.classes = {kind.statement_class};
        return;
    }
    Walker(context, facts).statement(statement, text);
}

}  // namespace pgchaperone::policy
