#pragma once
// What Liquibase's formatted SQL says of itself in comments, as far as it changes how a file is cut
// into statements and which of them run on PostgreSQL. Rollbacks, preconditions and contexts are
// comments like others; comments that Liquibase strips change nothing.

#include <optional>
#include <string>
#include <string_view>

namespace pgchaperone::cli {

// Whether the script begins with the comment by which Liquibase knows its own.
bool is_liquibase(std::string_view script);

struct Changeset {
    std::string delimiter;        // ends a statement, besides the semicolon; empty: none
    bool alone_on_line = false;   // the delimiter counts only so: "/" is a division elsewhere
    std::string other_databases;  // as `dbms:` names them, where PostgreSQL is not among them
};

// The changeset that a comment (with its dashes) begins; nothing for other comments.
std::optional<Changeset> changeset_of(std::string_view comment);

}  // namespace pgchaperone::cli
