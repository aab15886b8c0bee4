#include "policy/analyzer_tags.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

namespace pgchaperone::policy {

namespace {

using enum StatementClass;

struct ObjectType {
    std::string_view type;
    std::string_view name;
    std::string_view create, alter, drop;  // whole tags
};

#define TAGS(name) name, "CREATE " name, "ALTER " name, "DROP " name
constexpr std::array object_types = {
    ObjectType{"OBJECT_ACCESS_METHOD", TAGS("ACCESS METHOD")},
    ObjectType{"OBJECT_AGGREGATE", TAGS("AGGREGATE")},
    ObjectType{"OBJECT_ATTRIBUTE", TAGS("TYPE")},
    ObjectType{"OBJECT_CAST", TAGS("CAST")},
    ObjectType{"OBJECT_COLUMN", TAGS("TABLE")},
    ObjectType{"OBJECT_COLLATION", TAGS("COLLATION")},
    ObjectType{"OBJECT_CONVERSION", TAGS("CONVERSION")},
    ObjectType{"OBJECT_DATABASE", TAGS("DATABASE")},
    ObjectType{"OBJECT_DOMAIN", TAGS("DOMAIN")},
    ObjectType{"OBJECT_DOMCONSTRAINT", TAGS("DOMAIN")},
    ObjectType{"OBJECT_EVENT_TRIGGER", TAGS("EVENT TRIGGER")},
    ObjectType{"OBJECT_EXTENSION", TAGS("EXTENSION")},
    ObjectType{"OBJECT_FDW", TAGS("FOREIGN DATA WRAPPER")},
    ObjectType{"OBJECT_FOREIGN_SERVER", TAGS("SERVER")},
    ObjectType{"OBJECT_FOREIGN_TABLE", TAGS("FOREIGN TABLE")},
    ObjectType{"OBJECT_FUNCTION", TAGS("FUNCTION")},
    ObjectType{"OBJECT_INDEX", TAGS("INDEX")},
    ObjectType{"OBJECT_LANGUAGE", TAGS("LANGUAGE")},
    ObjectType{"OBJECT_LARGEOBJECT", TAGS("LARGE OBJECT")},
    ObjectType{"OBJECT_MATVIEW", TAGS("MATERIALIZED VIEW")},
    ObjectType{"OBJECT_OPCLASS", TAGS("OPERATOR CLASS")},
    ObjectType{"OBJECT_OPERATOR", TAGS("OPERATOR")},
    ObjectType{"OBJECT_OPFAMILY", TAGS("OPERATOR FAMILY")},
    ObjectType{"OBJECT_POLICY", TAGS("POLICY")},
    ObjectType{"OBJECT_PROCEDURE", TAGS("PROCEDURE")},
    ObjectType{"OBJECT_PUBLICATION", TAGS("PUBLICATION")},
    ObjectType{"OBJECT_ROLE", TAGS("ROLE")},
    ObjectType{"OBJECT_ROUTINE", TAGS("ROUTINE")},
    ObjectType{"OBJECT_RULE", TAGS("RULE")},
    ObjectType{"OBJECT_SCHEMA", TAGS("SCHEMA")},
    ObjectType{"OBJECT_SEQUENCE", TAGS("SEQUENCE")},
    ObjectType{"OBJECT_STATISTIC_EXT", TAGS("STATISTICS")},
    ObjectType{"OBJECT_SUBSCRIPTION", TAGS("SUBSCRIPTION")},
    ObjectType{"OBJECT_TABCONSTRAINT", TAGS("TABLE")},
    ObjectType{"OBJECT_TABLE", TAGS("TABLE")},
    ObjectType{"OBJECT_TABLESPACE", TAGS("TABLESPACE")},
    ObjectType{"OBJECT_TRANSFORM", TAGS("TRANSFORM")},
    ObjectType{"OBJECT_TRIGGER", TAGS("TRIGGER")},
    ObjectType{"OBJECT_TSCONFIGURATION", TAGS("TEXT SEARCH CONFIGURATION")},
    ObjectType{"OBJECT_TSDICTIONARY", TAGS("TEXT SEARCH DICTIONARY")},
    ObjectType{"OBJECT_TSPARSER", TAGS("TEXT SEARCH PARSER")},
    ObjectType{"OBJECT_TSTEMPLATE", TAGS("TEXT SEARCH TEMPLATE")},
    ObjectType{"OBJECT_TYPE", TAGS("TYPE")},
    ObjectType{"OBJECT_USER_MAPPING", TAGS("USER MAPPING")},
    ObjectType{"OBJECT_VIEW", TAGS("VIEW")},
};
#undef TAGS

const ObjectType* object_type(std::string_view type) {
    const auto found = std::find_if(object_types.begin(), object_types.end(),
                                    [&](const ObjectType& each) { return each.type == type; });
    return found != object_types.end() ? &*found : nullptr;
}

struct Fixed {
    std::string_view type;
    StatementKind kind;
};

// Statements whose tag does not depend on what stands in them. Sorted by type.
constexpr std::array fixed = {
    Fixed{"AlterCollationStmt", {"ALTER COLLATION", ddl}},
    Fixed{"AlterDatabaseRefreshCollStmt", {"ALTER DATABASE", ddl}},
    Fixed{"AlterDatabaseSetStmt", {"ALTER DATABASE", ddl}},
    Fixed{"AlterDatabaseStmt", {"ALTER DATABASE", ddl}},
    Fixed{"AlterDefaultPrivilegesStmt", {"ALTER DEFAULT PRIVILEGES", role}},
    Fixed{"AlterDomainStmt", {"ALTER DOMAIN", ddl}},
    Fixed{"AlterEnumStmt", {"ALTER TYPE", ddl}},
    Fixed{"AlterEventTrigStmt", {"ALTER EVENT TRIGGER", ddl}},
    Fixed{"AlterExtensionContentsStmt", {"ALTER EXTENSION", ddl}},
    Fixed{"AlterExtensionStmt", {"ALTER EXTENSION", ddl}},
    Fixed{"AlterFdwStmt", {"ALTER FOREIGN DATA WRAPPER", ddl}},
    Fixed{"AlterForeignServerStmt", {"ALTER SERVER", ddl}},
    Fixed{"AlterOpFamilyStmt", {"ALTER OPERATOR FAMILY", ddl}},
    Fixed{"AlterOperatorStmt", {"ALTER OPERATOR", ddl}},
    Fixed{"AlterPolicyStmt", {"ALTER POLICY", ddl}},
    Fixed{"AlterPublicationStmt", {"ALTER PUBLICATION", ddl}},
    Fixed{"AlterRoleSetStmt", {"ALTER ROLE", role}},
    Fixed{"AlterRoleStmt", {"ALTER ROLE", role}},
    Fixed{"AlterSeqStmt", {"ALTER SEQUENCE", ddl}},
    Fixed{"AlterStatsStmt", {"ALTER STATISTICS", ddl}},
    Fixed{"AlterSubscriptionStmt", {"ALTER SUBSCRIPTION", ddl}},
    Fixed{"AlterSystemStmt", {"ALTER SYSTEM", misc}},
    Fixed{"AlterTSConfigurationStmt", {"ALTER TEXT SEARCH CONFIGURATION", ddl}},
    Fixed{"AlterTSDictionaryStmt", {"ALTER TEXT SEARCH DICTIONARY", ddl}},
    Fixed{"AlterTableMoveAllStmt", {"ALTER TABLE", ddl}},
    Fixed{"AlterTableSpaceOptionsStmt", {"ALTER TABLESPACE", ddl}},
    Fixed{"AlterTypeStmt", {"ALTER TYPE", ddl}},
    Fixed{"AlterUserMappingStmt", {"ALTER USER MAPPING", ddl}},
    Fixed{"CallStmt", {"CALL", function}},
    Fixed{"CheckPointStmt", {"CHECKPOINT", misc}},
    Fixed{"ClosePortalStmt", {"CLOSE CURSOR", misc}},
    Fixed{"ClusterStmt", {"CLUSTER", misc}},
    Fixed{"CommentStmt", {"COMMENT", ddl}},
    Fixed{"CompositeTypeStmt", {"CREATE TYPE", ddl}},
    Fixed{"ConstraintsSetStmt", {"SET CONSTRAINTS", misc}},
    Fixed{"CreateAmStmt", {"CREATE ACCESS METHOD", ddl}},
    Fixed{"CreateCastStmt", {"CREATE CAST", ddl}},
    Fixed{"CreateConversionStmt", {"CREATE CONVERSION", ddl}},
    Fixed{"CreateDomainStmt", {"CREATE DOMAIN", ddl}},
    Fixed{"CreateEnumStmt", {"CREATE TYPE", ddl}},
    Fixed{"CreateEventTrigStmt", {"CREATE EVENT TRIGGER", ddl}},
    Fixed{"CreateExtensionStmt", {"CREATE EXTENSION", ddl}},
    Fixed{"CreateFdwStmt", {"CREATE FOREIGN DATA WRAPPER", ddl}},
    Fixed{"CreateForeignServerStmt", {"CREATE SERVER", ddl}},
    Fixed{"CreateForeignTableStmt", {"CREATE FOREIGN TABLE", ddl}},
    Fixed{"CreateOpClassStmt", {"CREATE OPERATOR CLASS", ddl}},
    Fixed{"CreateOpFamilyStmt", {"CREATE OPERATOR FAMILY", ddl}},
    Fixed{"CreatePLangStmt", {"CREATE LANGUAGE", ddl}},
    Fixed{"CreatePolicyStmt", {"CREATE POLICY", ddl}},
    Fixed{"CreatePublicationStmt", {"CREATE PUBLICATION", ddl}},
    Fixed{"CreateRangeStmt", {"CREATE TYPE", ddl}},
    Fixed{"CreateRoleStmt", {"CREATE ROLE", role}},
    Fixed{"CreateSchemaStmt", {"CREATE SCHEMA", ddl}},
    Fixed{"CreateSeqStmt", {"CREATE SEQUENCE", ddl}},
    Fixed{"CreateStatsStmt", {"CREATE STATISTICS", ddl}},
    Fixed{"CreateStmt", {"CREATE TABLE", ddl}},
    Fixed{"CreateSubscriptionStmt", {"CREATE SUBSCRIPTION", ddl}},
    Fixed{"CreateTableSpaceStmt", {"CREATE TABLESPACE", ddl}},
    Fixed{"CreateTransformStmt", {"CREATE TRANSFORM", ddl}},
    Fixed{"CreateTrigStmt", {"CREATE TRIGGER", ddl}},
    Fixed{"CreateUserMappingStmt", {"CREATE USER MAPPING", ddl}},
    Fixed{"CreatedbStmt", {"CREATE DATABASE", ddl}},
    Fixed{"DeclareCursorStmt", {"DECLARE CURSOR", read}},
    Fixed{"DeleteStmt", {"DELETE", write}},
    Fixed{"DoStmt", {"DO", function}},
    Fixed{"DropOwnedStmt", {"DROP OWNED", ddl}},
    Fixed{"DropRoleStmt", {"DROP ROLE", role}},
    Fixed{"DropSubscriptionStmt", {"DROP SUBSCRIPTION", ddl}},
    Fixed{"DropTableSpaceStmt", {"DROP TABLESPACE", ddl}},
    Fixed{"DropUserMappingStmt", {"DROP USER MAPPING", ddl}},
    Fixed{"DropdbStmt", {"DROP DATABASE", ddl}},
    Fixed{"ExecuteStmt", {"EXECUTE", misc}},
    Fixed{"ExplainStmt", {"EXPLAIN", read}},
    Fixed{"ImportForeignSchemaStmt", {"IMPORT FOREIGN SCHEMA", ddl}},
    Fixed{"IndexStmt", {"CREATE INDEX", ddl}},
    Fixed{"InsertStmt", {"INSERT", write}},
    Fixed{"ListenStmt", {"LISTEN", misc}},
    Fixed{"LoadStmt", {"LOAD", misc}},
    Fixed{"LockStmt", {"LOCK TABLE", misc}},
    Fixed{"MergeStmt", {"MERGE", write}},
    Fixed{"NotifyStmt", {"NOTIFY", misc}},
    Fixed{"PLAssignStmt", {"SELECT", read}},
    Fixed{"PrepareStmt", {"PREPARE", misc}},
    Fixed{"ReassignOwnedStmt", {"REASSIGN OWNED", ddl}},
    Fixed{"RefreshMatViewStmt", {"REFRESH MATERIALIZED VIEW", ddl}},
    Fixed{"ReindexStmt", {"REINDEX", misc}},
    Fixed{"ReturnStmt", {"SELECT", read}},
    Fixed{"RuleStmt", {"CREATE RULE", ddl}},
    Fixed{"SecLabelStmt", {"SECURITY LABEL", ddl}},
    Fixed{"TruncateStmt", {"TRUNCATE TABLE", write}},
    Fixed{"UnlistenStmt", {"UNLISTEN", misc}},
    Fixed{"UpdateStmt", {"UPDATE", write}},
    Fixed{"VariableShowStmt", {"SHOW", misc}},
    Fixed{"ViewStmt", {"CREATE VIEW", ddl}},
};

constexpr bool is_sorted_by_type() {
    for (std::size_t i = 1; i < fixed.size(); ++i) {
        if (!(fixed[i - 1].type < fixed[i].type)) {
            return false;
        }
    }
    return true;
}
static_assert(is_sorted_by_type());

std::string_view transaction_tag(std::string_view kind) {
    if (kind == "TRANS_STMT_START") return "START TRANSACTION";
    if (kind == "TRANS_STMT_COMMIT") return "COMMIT";
    if (kind == "TRANS_STMT_ROLLBACK" || kind == "TRANS_STMT_ROLLBACK_TO") return "ROLLBACK";
    if (kind == "TRANS_STMT_SAVEPOINT") return "SAVEPOINT";
    if (kind == "TRANS_STMT_RELEASE") return "RELEASE";
    if (kind == "TRANS_STMT_PREPARE") return "PREPARE TRANSACTION";
    if (kind == "TRANS_STMT_COMMIT_PREPARED") return "COMMIT PREPARED";
    if (kind == "TRANS_STMT_ROLLBACK_PREPARED") return "ROLLBACK PREPARED";
    return "BEGIN";
}

StatementKind by_object(std::string_view type, std::string_view ObjectType::*verb) {
    const ObjectType* object = object_type(type);
    return {object != nullptr ? object->*verb : std::string_view("???"), ddl};
}

}  // namespace

std::string_view object_type_name(std::string_view type) {
    const ObjectType* object = object_type(type);
    return object != nullptr ? object->name : std::string_view{};
}

bool is_statement(std::string_view type) {
    // PartitionSpec and the like end otherwise; these two end so and are parts of a SELECT.
    return type.size() > 4 && type.substr(type.size() - 4) == "Stmt" && type != "RawStmt" &&
           type != "SetOperationStmt";
}

StatementKind kind_of_statement(const Node& node) {
    const JsonObject& body = node.body;
    const auto type = node.type;
    if (type == "SelectStmt") {
        if (object_field(body, "intoClause")) {
            return {"SELECT INTO", ddl};
        }
        return {"SELECT", read};
    }
    const auto found = std::lower_bound(
        fixed.begin(), fixed.end(), type,
        [](const Fixed& each, std::string_view wanted) { return each.type < wanted; });
    if (found != fixed.end() && found->type == type) {
        return found->kind;
    }
    if (type == "TransactionStmt") {
        return {transaction_tag(text_field(body, "kind")), misc};
    }
    if (type == "VariableSetStmt") {
        const auto kind = text_field(body, "kind");
        return {kind == "VAR_RESET" || kind == "VAR_RESET_ALL" ? "RESET" : "SET",
                StatementClass::misc_set};
    }
    if (type == "VacuumStmt") {
        return {flag_field(body, "is_vacuumcmd") ? "VACUUM" : "ANALYZE", misc};
    }
    if (type == "CopyStmt") {
        return {"COPY", flag_field(body, "is_from") ? write : read};
    }
    if (type == "FetchStmt") {
        return {flag_field(body, "ismove") ? "MOVE" : "FETCH", read};
    }
    if (type == "DropStmt") {
        return by_object(text_field(body, "removeType"), &ObjectType::drop);
    }
    if (type == "AlterTableStmt") {
        return by_object(text_field(body, "objtype"), &ObjectType::alter);
    }
    if (type == "RenameStmt") {
        const auto renamed = text_field(body, "renameType");
        // A column belongs to what the relation is, a view for example.
        const bool part = renamed == "OBJECT_COLUMN" || renamed == "OBJECT_ATTRIBUTE" ||
                          renamed == "OBJECT_TABCONSTRAINT";
        StatementKind kind = by_object(part ? text_field(body, "relationType") : renamed,
                                       &ObjectType::alter);
        if (renamed == "OBJECT_ROLE") {
            kind.statement_class = role;
        }
        return kind;
    }
    if (type == "AlterObjectSchemaStmt" || type == "AlterOwnerStmt" ||
        type == "AlterObjectDependsStmt") {
        return by_object(text_field(body, "objectType"), &ObjectType::alter);
    }
    if (type == "AlterFunctionStmt") {
        return by_object(text_field(body, "objtype"), &ObjectType::alter);
    }
    if (type == "DefineStmt") {
        return by_object(text_field(body, "kind"), &ObjectType::create);
    }
    if (type == "CreateFunctionStmt") {
        return {flag_field(body, "is_procedure") ? "CREATE PROCEDURE" : "CREATE FUNCTION", ddl};
    }
    if (type == "CreateTableAsStmt") {
        return {text_field(body, "objtype") == "OBJECT_MATVIEW" ? "CREATE MATERIALIZED VIEW"
                                                                : "CREATE TABLE AS",
                ddl};
    }
    if (type == "GrantStmt") {
        return {flag_field(body, "is_grant") ? "GRANT" : "REVOKE", role};
    }
    if (type == "GrantRoleStmt") {
        return {flag_field(body, "is_grant") ? "GRANT ROLE" : "REVOKE ROLE", role};
    }
    if (type == "DiscardStmt") {
        const auto target = text_field(body, "target");
        return {target == "DISCARD_TEMP"        ? "DISCARD TEMP"
                : target == "DISCARD_PLANS"     ? "DISCARD PLANS"
                : target == "DISCARD_SEQUENCES" ? "DISCARD SEQUENCES"
                                                : "DISCARD ALL",
                misc};
    }
    if (type == "DeallocateStmt") {
        return {flag_field(body, "isall") ? "DEALLOCATE ALL" : "DEALLOCATE", misc};
    }
    return {"???", misc};
}

}  // namespace pgchaperone::policy
