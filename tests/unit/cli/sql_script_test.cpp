#include "cli/sql_script.h"
#include "support/catch.h"

#include <random>

using namespace pgchaperone::cli;

namespace {

std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> out;
    for (const ScriptStatement& statement : split_script(text).statements) {
        CHECK(statement.span.offset + statement.span.length <= text.size());
        out.push_back(statement.sql);
    }
    return out;
}

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("semicolons end statements outside of quotes, comments and parentheses") {
    CHECK(split("SELECT 1; SELECT 2;\nSELECT 3") == Texts{"SELECT 1", "SELECT 2", "SELECT 3"});
    CHECK(split(";;  ; -- nothing\n/* ; */") == Texts{});
    CHECK(split("SELECT ';', \";\", $$;$$, $a$;$$;$a$, E'\\';', e';' /* ; /* ; */ ; */; x") ==
          Texts{"SELECT ';', \";\", $$;$$, $a$;$$;$a$, E'\\';', e';' /* ; /* ; */ ; */", "x"});
    CHECK(split("SELECT 'it''s;'; SELECT \"a\"\";\"") ==
          Texts{"SELECT 'it''s;'", "SELECT \"a\"\";\""});
    CHECK(split("CREATE RULE r AS ON DELETE TO t DO (SELECT 1; SELECT 2); SELECT 3").size() == 2);
    CHECK(split("SELECT '\\'; SELECT 2") == Texts{"SELECT '\\'", "SELECT 2"});
    CHECK(split("SELECT $1; SELECT a$b$; SELECT c$b$") ==
          Texts{"SELECT $1", "SELECT a$b$", "SELECT c$b$"});
    CHECK(split("SELECT 'unterminated; SELECT 2") == Texts{"SELECT 'unterminated; SELECT 2"});
}

TEST_CASE("the body of a function in SQL holds its semicolons together") {
    const std::string body =
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC "
        "SELECT CASE WHEN true THEN 1 END; SELECT 2; END";
    CHECK(split(body + "; DELETE FROM t") == Texts{body, "DELETE FROM t"});
    CHECK(split("BEGIN; SELECT 1; END; SELECT 2").size() == 4);
}

TEST_CASE("backslash commands are taken out, and those that send the query end it") {
    CHECK(split("\\set x 1\nSELECT 1;\n\\echo it's\nSELECT 2 \\g\nSELECT 3 \\gset p_\nSELECT 4") ==
          Texts{"SELECT 1", "SELECT 2", "SELECT 3", "SELECT 4"});
    CHECK(split("SELECT 1 \\; SELECT 2;") == Texts{"SELECT 1  ; SELECT 2"});
    CHECK(split("DELETE FROM t \\r\nSELECT 1;") == Texts{"SELECT 1"});
    CHECK(split("SELECT \\timing\n1;") == Texts{"SELECT        \n1"});
    CHECK(split("\\pset x \\\\ SELECT 1;") == Texts{"SELECT 1"});
    const Script script = split_script("SELECT 'DROP TABLE x' \\gexec\n\\i other.sql\n\\! rm x\n");
    REQUIRE(script.statements.size() == 1);
    CHECK(script.statements[0].result_is_run);
    CHECK(script.notes.size() == 3);
}

TEST_CASE(
    "\\copy is a COPY from or to the client, and data behind COPY FROM STDIN are no statements") {
    CHECK(split("\\copy t (a, b) from 'file;x' with (format csv)\nSELECT 1;") ==
          Texts{" copy t (a, b) from stdin", "SELECT 1"});
    CHECK(split("\\copy (SELECT 1) to program 'x'\n") == Texts{" copy (SELECT 1) to stdout"});
    CHECK(split("COPY t FROM stdin;\n1\tDELETE FROM x;\n\\.\nSELECT 1;") ==
          Texts{"COPY t FROM stdin", "SELECT 1"});
    CHECK(split("COPY t FROM stdin;\r\n1;\r\n\\.\r\nSELECT 1;\r\n") ==
          Texts{"COPY t FROM stdin", "SELECT 1"});
    CHECK(split("COPY t FROM stdin;") == Texts{"COPY t FROM stdin"});
}

TEST_CASE("variables and placeholders can be filled without moving anything") {
    const Script script = split_script(
        "DELETE FROM :\"t\" WHERE a = :v AND b = :'w' AND c::int = ${x} AND d[1:n] = 1");
    REQUIRE(script.statements.size() == 1);
    const ScriptStatement& s = script.statements[0];
    CHECK(s.filled(false) ==
          "DELETE FROM  \"t\" WHERE a = $1 AND b =  'w' AND c::int = $1   AND d[1$1] = 1");
    CHECK(s.filled(true).size() == s.sql.size());
    CHECK(split_script("SELECT * FROM ${schema}.t").statements[0].filled(true) ==
          "SELECT * FROM    schema.t");
}

TEST_CASE("a placeholder may be a part of a name") {
    const Script script = split_script("DELETE FROM orders_${env} WHERE id = 1");
    REQUIRE(script.statements.at(0).blanks.size() == 1);
    CHECK(script.statements[0].filled(false) == "DELETE FROM orders_$1     WHERE id = 1");
}

TEST_CASE("comments belong to the statement behind them, or to the one before them on its line") {
    const std::string text =
        "-- first\nSELECT 1; -- of the first\n-- second\nSELECT /* inside */ 2;\n-- at the end";
    const Script script = split_script(text);
    REQUIRE(script.statements.size() == 2);
    const auto comments = [&](std::size_t i) {
        Texts out;
        for (const Span& c : script.statements[i].comments)
            out.push_back(text.substr(c.offset, c.length));
        return out;
    };
    CHECK(comments(0) == Texts{"-- first", "-- of the first"});
    CHECK(comments(1) == Texts{"-- second", "/* inside */"});
}

TEST_CASE("a backslash command's arguments end where the next one begins") {
    CHECK(split("SELECT $1 \\bind 'a\\g' \\g\nSELECT 2;") ==
          Texts{"SELECT $1            ", "SELECT 2"});
    CHECK(split("SELECT 1 \\timing \\g\nSELECT 2;").size() == 2);
}

TEST_CASE("Liquibase's delimiters end statements, outside of quotes and where they are meant") {
    const auto with = [](const std::string& attributes, const std::string& sql) {
        return split("--liquibase formatted sql\n-- changeset anna:1 " + attributes + "\n" + sql);
    };
    CHECK(with("endDelimiter:/ splitStatements:true", "SELECT 4 / 2\n/\nSELECT '\n/\n'\n/\n") ==
          Texts{"SELECT 4 / 2", "SELECT '\n/\n'"});
    CHECK(with("endDelimiter:@@", "SELECT 1 @@ SELECT 2@@") == Texts{"SELECT 1", "SELECT 2"});
    CHECK(with("stripComments:false end-delimiter:\"//\" runOnChange:true", "SELECT 1//SELECT 2") ==
          Texts{"SELECT 1", "SELECT 2"});
    CHECK(with("endDelimiter:go", "SELECT go\nGO\nSELECT 2\n go \n") ==
          Texts{"SELECT go", "SELECT 2"});
    CHECK(with("endDelimiter:\\n/\\s*\\n|\\n/\\s*$", "SELECT 4/2\n/\nSELECT 2\n/") ==
          Texts{"SELECT 4/2", "SELECT 2"});
    CHECK(with("endDelimiter:\\$\\$", "SELECT 1$$SELECT 2$$") == Texts{"SELECT 1", "SELECT 2"});
    // Semicolons count all the same: the server takes several statements in one text.
    CHECK(with("endDelimiter:@@", "SELECT 1; SELECT 2@@") == Texts{"SELECT 1", "SELECT 2"});
    CHECK(with("splitStatements:false", "SELECT 1; SELECT $$;$$") ==
          Texts{"SELECT 1", "SELECT $$;$$"});
    CHECK(with("endDelimiter:", "SELECT 1") == Texts{"SELECT 1"});
    // The next changeset ends what has no end, and has the usual delimiter again.
    CHECK(with("endDelimiter:@@", "SELECT 1\n--changeset anna:2\nSELECT 2 @@ 3") ==
          Texts{"SELECT 1", "SELECT 2 @@ 3"});
    // Elsewhere none of this means anything.
    CHECK(split("-- changeset anna:1 endDelimiter:@@\nSELECT 1 @@ SELECT 2").size() == 1);
}

TEST_CASE("changesets for other databases are left out, with a note") {
    const auto statements = [](const std::string& dbms) {
        const Script script = split_script("-- Liquibase formatted SQL\n--changeset a:1 dbms:" +
                                           dbms + "\nDROP TABLE t;\n--changeset a:2\nSELECT 1;");
        CHECK(script.notes.size() == 2 - script.statements.size());
        return script.statements.size();
    };
    for (const char* here :
         {"postgresql", "PostgreSQL", "h2,postgresql", "\"h2, postgresql\"", "!oracle", "all"}) {
        INFO(here);
        CHECK(statements(here) == 2);
    }
    for (const char* elsewhere : {"oracle", "h2,mysql", "!postgresql", "none"}) {
        INFO(elsewhere);
        CHECK(statements(elsewhere) == 1);
    }
}

TEST_CASE("lines and columns count from one, columns in characters") {
    CHECK(line_column("abc", 0).column == 1);
    const LineColumn at = line_column("a\nüü x", 7);
    CHECK(at.line == 2);
    CHECK(at.column == 4);
    CHECK(line_column("a", 100).column == 2);
}

TEST_CASE("no text makes the splitter read beyond its end or lose its way") {
    std::mt19937 random(7);
    const std::string pieces[] = {"'",
                                  "\"",
                                  "$$",
                                  "$a$",
                                  "/*",
                                  "*/",
                                  "--",
                                  "\n",
                                  ";",
                                  "(",
                                  ")",
                                  "\\",
                                  "\\g",
                                  "\\copy ",
                                  ":",
                                  ":'x'",
                                  "${",
                                  "}",
                                  "E'",
                                  "copy t from stdin;",
                                  "\\.",
                                  "begin ",
                                  "end ",
                                  "create function ",
                                  "x",
                                  " ",
                                  "\xff",
                                  "$1",
                                  "\\r",
                                  "\\;",
                                  "@@",
                                  "--liquibase formatted sql\n",
                                  "--changeset a:1 endDelimiter:@@\n",
                                  "--changeset : dbms:h2 \n"};
    for (int i = 0; i < 20'000; ++i) {
        std::string text;
        if (i % 3 == 0) text = "--liquibase formatted sql\n";
        for (std::size_t n = random() % 12; n > 0; --n)
            text += pieces[random() % std::size(pieces)];
        INFO(text);
        std::size_t before = 0;
        for (const ScriptStatement& s : split_script(text).statements) {
            REQUIRE(s.span.offset >= before);
            REQUIRE(s.span.offset + s.span.length <= text.size());
            before = s.span.offset + s.span.length;
            REQUIRE(s.filled(true).size() == s.sql.size());
            REQUIRE(s.filled(false).size() == s.sql.size());
        }
    }
}
