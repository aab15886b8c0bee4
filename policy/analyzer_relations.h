#pragma once
// Which relations the utility statements touch: those that define, rename, grant, comment, publish,
// maintain. Queries and writes, with everything inside them, are analyzer_walk's.
//
// What only the catalogue knows is not seen: the table of an index that is dropped, the tables that
// a CASCADE takes along, the views over a table, what belongs to an extension.

#include "policy/facts.h"
#include "policy/parse_node.h"

#include <vector>

namespace pgchaperone::policy {

struct TouchedRelations {
    std::vector<RelationName> read;
    std::vector<RelationName> written;
};

// Besides the relation that the statement names first (`relation`), which the walker knows.
// Empty for most.
TouchedRelations other_relations(const Node& statement);

// What one of PostgreSQL's own functions touches by a name in its arguments, where that is a
// constant: nextval('orders_id_seq'). `name` is the function's.
TouchedRelations relations_of_call(std::string_view name, const Items& arguments);

// Adds all relations that are named anywhere in `json`.
void collect_relations(const Json& json, std::vector<RelationName>& out);

}  // namespace pgchaperone::policy
