#include "policy/analyzer_relations.h"

#include "policy/analyzer_literal.h"
#include "policy/relation_names.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

namespace pgchaperone::policy {

namespace {

using Names = std::vector<RelationName>;

RelationName every_relation_of(std::string_view schema) { return {{}, std::string(schema), {}}; }
RelationName every_relation() { return {}; }

RelationName name_of(const JsonObject& range_var) {
    return {std::string(text_field(range_var, "catalogname")),
            std::string(text_field(range_var, "schemaname")),
            std::string(text_field(range_var, "relname"))};
}

void add_field(const JsonObject& body, std::string_view field_name, Names& out) {
    if (const auto relation = object_field(body, field_name)) out.push_back(name_of(*relation));
}

void add_items(const JsonObject& body, std::string_view field_name, Names& out) {
    for (const Json item : items_field(body, field_name)) {
        const auto node = as_node(item);
        if (node && node->type == "RangeVar") out.push_back(name_of(node->body));
    }
}

// A list of strings without its last `dropped` ones, read as a relation's name.
std::optional<RelationName> qualified(const Items& names, std::size_t dropped) {
    std::vector<std::string> parts;
    for (const Json part : names) parts.emplace_back(string_value(part));
    if (parts.size() <= dropped) return std::nullopt;
    parts.resize(parts.size() - dropped);
    RelationName name;
    for (std::string& part : parts) {
        name.catalog = std::move(name.schema);
        name.schema = std::move(name.name);
        name.name = std::move(part);
    }
    if (name.is_every()) return std::nullopt;
    return name;
}

bool is_relation_type(std::string_view type) {
    return type == "OBJECT_TABLE" || type == "OBJECT_VIEW" || type == "OBJECT_MATVIEW" ||
           type == "OBJECT_FOREIGN_TABLE" || type == "OBJECT_SEQUENCE" || type == "OBJECT_INDEX";
}

// The relation that an object, as COMMENT ON and ALTER EXTENSION name it, is or belongs to.
void add_object(const JsonObject& body, Names& out) {
    const auto type = text_field(body, "objtype");
    const auto object = field(body, "object");
    if (!object) return;
    if (type == "OBJECT_SCHEMA") {
        if (const auto schema = string_value(*object); !schema.empty())
            out.push_back(every_relation_of(schema));
        return;
    }
    const bool part = type == "OBJECT_COLUMN" || type == "OBJECT_TRIGGER" ||
                      type == "OBJECT_RULE" || type == "OBJECT_POLICY" ||
                      type == "OBJECT_TABCONSTRAINT";
    if (!part && !is_relation_type(type)) return;
    if (auto name = qualified(list_items(*object), part ? 1 : 0)) out.push_back(*std::move(name));
}

// GRANT and REVOKE; tables that are named one by one are the walker's.
void add_grant(const JsonObject& body, Names& out) {
    const auto type = text_field(body, "objtype");
    const bool on_schemas = type == "OBJECT_SCHEMA" ||
                            (text_field(body, "targtype") == "ACL_TARGET_ALL_IN_SCHEMA" &&
                             (type == "OBJECT_TABLE" || type == "OBJECT_SEQUENCE"));
    if (!on_schemas) return;
    for (const Json schema : items_field(body, "objects"))
        out.push_back(every_relation_of(string_value(schema)));
}

// The relations to come are meant; a rule on them is a rule on their schema.
void add_default_privileges(const JsonObject& body, Names& out) {
    const auto action = object_field(body, "action");
    const auto type = action ? text_field(*action, "objtype") : std::string_view{};
    if (type != "OBJECT_TABLE" && type != "OBJECT_SEQUENCE") return;
    const std::size_t before = out.size();
    for (const Json item : items_field(body, "options")) {
        const auto option = as_node(item);
        const auto schemas = option && text_field(option->body, "defname") == "schemas"
                                 ? field(option->body, "arg")
                                 : std::nullopt;
        if (!schemas) continue;
        for (const Json schema : list_items(*schemas))
            out.push_back(every_relation_of(string_value(schema)));
    }
    if (out.size() == before) out.push_back(every_relation());
}

void add_publication(const JsonObject& body, Names& out) {
    if (flag_field(body, "for_all_tables")) out.push_back(every_relation());
    for (const Json item : items_field(body, "pubobjects")) {
        const auto object = as_node(item);
        if (!object) continue;
        const auto kind = text_field(object->body, "pubobjtype");
        if (kind == "PUBLICATIONOBJ_TABLES_IN_SCHEMA") {
            out.push_back(every_relation_of(text_field(object->body, "name")));
        } else if (kind == "PUBLICATIONOBJ_TABLES_IN_CUR_SCHEMA") {
            out.push_back(every_relation());
        } else if (const auto table = object_field(object->body, "pubtable")) {
            add_field(*table, "relation", out);
        }
    }
    add_items(body, "tables", out);  // as grammars before 15 wrote it
}

void add_foreign_keys_of_column(const JsonObject& column, Names& out) {
    for (const Json item : items_field(column, "constraints")) {
        if (const auto constraint = as_node(item)) add_field(constraint->body, "pktable", out);
    }
}

// A foreign key puts triggers on the table that it refers to.
void add_table_parts(const JsonObject& body, TouchedRelations& out) {
    const auto base = object_field(body, "base");  // of a foreign table
    const JsonObject& table = base ? *base : body;
    for (const Json item : items_field(table, "tableElts")) {
        const auto element = as_node(item);
        if (!element) continue;
        if (element->type == "TableLikeClause") add_field(element->body, "relation", out.read);
        if (element->type == "ColumnDef") add_foreign_keys_of_column(element->body, out.written);
        if (element->type == "Constraint") add_field(element->body, "pktable", out.written);
    }
    add_items(table, "inhRelations", out.written);
}

void add_alter_table_parts(const JsonObject& body, Names& out) {
    for (const Json item : items_field(body, "cmds")) {
        const auto command = as_node(item);
        const auto definition = command ? node_field(command->body, "def") : std::nullopt;
        if (!definition) continue;
        if (definition->type == "RangeVar") out.push_back(name_of(definition->body));
        if (definition->type == "PartitionCmd") add_field(definition->body, "name", out);
        if (definition->type == "Constraint") add_field(definition->body, "pktable", out);
        if (definition->type == "ColumnDef") add_foreign_keys_of_column(definition->body, out);
    }
}

// OWNED BY: the column's table decides when the sequence goes.
void add_owner_of_sequence(const JsonObject& body, Names& out) {
    for (const Json item : items_field(body, "options")) {
        const auto option = as_node(item);
        if (!option || text_field(option->body, "defname") != "owned_by") continue;
        const auto column = field(option->body, "arg");
        if (auto name = column ? qualified(list_items(*column), 1) : std::nullopt)
            out.push_back(*std::move(name));
    }
}

// The name that the relation will have.
void add_new_name(const JsonObject& body, Names& out) {
    const auto type = text_field(body, "renameType");
    if (type == "OBJECT_SCHEMA") {
        out.push_back(every_relation_of(text_field(body, "subname")));
        out.push_back(every_relation_of(text_field(body, "newname")));
    }
    const auto relation = object_field(body, "relation");
    if (!relation || !is_relation_type(type)) return;
    RelationName name = name_of(*relation);
    name.name = text_field(body, "newname");
    out.push_back(std::move(name));
}

void add_new_schema(const JsonObject& body, Names& out) {
    const auto relation = object_field(body, "relation");
    if (!relation) return;
    RelationName name = name_of(*relation);
    name.schema = text_field(body, "newschema");
    out.push_back(std::move(name));
}

void add_import(const JsonObject& body, Names& out) {
    const auto schema = text_field(body, "local_schema");
    if (text_field(body, "list_type") != "FDW_IMPORT_SCHEMA_LIMIT_TO") {
        out.push_back(every_relation_of(schema));
        return;
    }
    Names tables;
    add_items(body, "table_list", tables);
    for (RelationName& table : tables) {
        table.schema = schema;
        out.push_back(std::move(table));
    }
}

// Nothing goes with a schema that must be empty.
void add_dropped_schemas(const JsonObject& body, Names& out) {
    if (text_field(body, "removeType") != "OBJECT_SCHEMA" ||
        text_field(body, "behavior") != "DROP_CASCADE") {
        return;
    }
    for (const Json schema : items_field(body, "objects"))
        out.push_back(every_relation_of(string_value(schema)));
}

void add_reindexed(const JsonObject& body, Names& out) {
    const auto kind = text_field(body, "kind");
    if (kind == "REINDEX_OBJECT_SCHEMA") {
        out.push_back(every_relation_of(text_field(body, "name")));
    } else if (kind == "REINDEX_OBJECT_DATABASE" || kind == "REINDEX_OBJECT_SYSTEM") {
        out.push_back(every_relation());
    }
}

struct Call {
    std::string_view name;
    enum class Does : std::uint8_t { reads, writes, reads_schema, reads_all } does;
};

// Functions that take a relation's name first. Those that only tell its size, its privileges or its
// definition are not among them.
constexpr Call calls[] = {
    {"brin_desummarize_range", Call::Does::writes},
    {"brin_summarize_new_values", Call::Does::writes},
    {"brin_summarize_range", Call::Does::writes},
    {"currtid2", Call::Does::reads},
    {"currval", Call::Does::reads},
    {"database_to_xml", Call::Does::reads_all},
    {"database_to_xml_and_xmlschema", Call::Does::reads_all},
    {"gin_clean_pending_list", Call::Does::writes},
    {"nextval", Call::Does::writes},
    {"pg_sequence_last_value", Call::Does::reads},
    {"schema_to_xml", Call::Does::reads_schema},
    {"schema_to_xml_and_xmlschema", Call::Does::reads_schema},
    {"setval", Call::Does::writes},
    {"table_to_xml", Call::Does::reads},
    {"table_to_xml_and_xmlschema", Call::Does::reads},
};

constexpr bool is_sorted_by_name() {
    for (std::size_t i = 1; i < std::size(calls); ++i) {
        if (!(calls[i - 1].name < calls[i].name)) return false;
    }
    return true;
}
static_assert(is_sorted_by_name());

}  // namespace

TouchedRelations other_relations(const Node& statement) {
    TouchedRelations out;
    const auto type = statement.type;
    const JsonObject& body = statement.body;
    Names& written = out.written;
    if (type == "CreateStmt" || type == "CreateForeignTableStmt") {
        add_table_parts(body, out);
    } else if (type == "AlterTableStmt") {
        add_alter_table_parts(body, written);
    } else if (type == "RenameStmt") {
        add_new_name(body, written);
    } else if (type == "AlterObjectSchemaStmt") {
        add_new_schema(body, written);
    } else if (type == "DropStmt") {
        add_dropped_schemas(body, written);
    } else if (type == "GrantStmt") {
        add_grant(body, written);
    } else if (type == "AlterDefaultPrivilegesStmt") {
        add_default_privileges(body, written);
    } else if (type == "CommentStmt" || type == "SecLabelStmt" ||
               type == "AlterExtensionContentsStmt") {
        add_object(body, written);
    } else if (type == "AlterOwnerStmt") {
        const auto object = field(body, "object");
        if (object && text_field(body, "objectType") == "OBJECT_SCHEMA")
            written.push_back(every_relation_of(string_value(*object)));
    } else if (type == "AlterObjectDependsStmt") {
        add_field(body, "relation", written);
    } else if (type == "CreatePublicationStmt" || type == "AlterPublicationStmt") {
        add_publication(body, written);
    } else if (type == "CreateStatsStmt") {
        add_items(body, "relations", written);
    } else if (type == "CreateTrigStmt") {
        add_field(body, "constrrel", written);
    } else if (type == "CreatePolicyStmt" || type == "AlterPolicyStmt") {
        for (const std::string_view part : {"qual", "with_check"}) {
            if (const auto condition = field(body, part)) collect_relations(*condition, out.read);
        }
    } else if (type == "RuleStmt") {
        if (const auto condition = field(body, "whereClause"))
            collect_relations(*condition, out.read);
    } else if (type == "AlterSeqStmt" || type == "CreateSeqStmt") {
        add_owner_of_sequence(body, written);
    } else if (type == "ImportForeignSchemaStmt") {
        add_import(body, written);
    } else if (type == "ReindexStmt") {
        add_reindexed(body, written);
    } else if (type == "VacuumStmt") {
        if (items_field(body, "rels").empty()) written.push_back(every_relation());
    } else if (type == "ClusterStmt") {
        if (!object_field(body, "relation")) written.push_back(every_relation());
    } else if (type == "AlterTableMoveAllStmt" || type == "DropOwnedStmt" ||
               type == "ReassignOwnedStmt") {
        written.push_back(every_relation());
    }
    return out;
}

TouchedRelations relations_of_call(std::string_view name, const Items& arguments) {
    TouchedRelations out;
    const auto* call = std::lower_bound(
        std::begin(calls), std::end(calls), name,
        [](const Call& each, std::string_view wanted) { return each.name < wanted; });
    if (call == std::end(calls) || call->name != name) return out;
    if (call->does == Call::Does::reads_all) {
        out.read.push_back(every_relation());
        return out;
    }
    if (arguments.empty()) return out;
    const auto text = literal_text(*arguments.begin());
    if (!text) return out;
    if (call->does == Call::Does::reads_schema) {
        out.read.push_back(every_relation_of(*text));
        return out;
    }
    if (auto relation = relation_from_text(*text)) {
        (call->does == Call::Does::reads ? out.read : out.written).push_back(*std::move(relation));
    }
    return out;
}

void collect_relations(const Json& json, std::vector<RelationName>& out) {
    JsonArray array;
    if (json.get(array) == simdjson::SUCCESS) {
        for (const Json item : array) collect_relations(item, out);
        return;
    }
    JsonObject object;
    if (json.get(object) != simdjson::SUCCESS) return;
    for (const auto& [key, value] : object) {
        JsonObject body;
        if (key == "RangeVar" && value.get(body) == simdjson::SUCCESS) {
            out.push_back(name_of(body));
        } else {
            collect_relations(value, out);
        }
    }
}

}  // namespace pgchaperone::policy
