#pragma once
// A file of SQL cut into statements as psql cuts it: semicolons count outside quotes, comments,
// parentheses and BEGIN ATOMIC bodies; backslash commands are taken out; data behind COPY ... FROM
// STDIN is skipped. In Liquibase's formatted SQL the changesets and their delimiters count too.
// Knows no grammar beyond that and never fails: what makes no sense goes on as it is, to be judged
// so.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::cli {

struct Span {
    std::size_t offset = 0;  // in bytes
    std::size_t length = 0;
};

// Something that only a run can fill in: a psql variable (:name, :'name', :"name") or a placeholder
// of a migration tool (${name}).
struct Blank {
    enum class Kind : unsigned char {
        value,
        literal,
        identifier
    };          // what :name, :'name', :"name" stand for
    Span span;  // in the script
    Kind kind = Kind::value;
};

struct ScriptStatement {
    Span span;        // in the script, from its first token to before its semicolon
    std::string sql;  // as long as the span: same offsets; backslash commands are blanked out
    std::vector<Blank> blanks;
    std::vector<Span> comments;  // in front of it, inside it, and behind it on its last line
    bool result_is_run = false;  // \gexec: what it gives is run as SQL
    // Before it began a changeset of Liquibase, or stood a backslash command, behind which the
    // session may be another or what came before may not have run: \connect, \i, \if ...
    bool after_unknown = false;

    // The statement with its blanks filled so that it can be parsed, keeping all offsets: values as
    // parameters ($1) or, where `as_names`, as names.
    std::string filled(bool as_names) const;
};

// A remark on what is in the script and is not judged.
struct ScriptNote {
    std::size_t offset = 0;
    std::string text;
};

struct Script {
    std::vector<ScriptStatement> statements;
    std::vector<ScriptNote> notes;
};

Script split_script(std::string_view text);

// Line and column of an offset, both from 1; columns count characters of UTF-8.
struct LineColumn {
    std::size_t line = 1;
    std::size_t column = 1;
};
LineColumn line_column(std::string_view text, std::size_t offset);

}  // namespace pgchaperone::cli
