#pragma once
// Command tags and classes of statements, as CommandComplete and pgaudit name them.

#include "policy/facts.h"
#include "policy/parse_node.h"

#include <string_view>

namespace pgchaperone::policy {

struct StatementKind {
    std::string_view tag;
    StatementClass statement_class = StatementClass::misc;
};

// Whether a node's type is a statement's.
bool is_statement(std::string_view node_type);

// A node that is no statement, or one of a newer grammar that is not listed here, is {"???", misc},
// as PostgreSQL itself says it.
StatementKind kind_of_statement(const Node& node);

// "TABLE" for OBJECT_TABLE; empty for what has no name in a command tag.
std::string_view object_type_name(std::string_view object_type);

}  // namespace pgchaperone::policy
