// Passwords go from what people are shown of a statement, and nothing else goes.
#include "policy/secrets.h"
#include "policy/analyzer.h"
#include "support/catch.h"

using namespace pgchaperone::policy;

namespace {

std::string of(std::string_view sql) { return shown(*Analyzer().analyze(sql, {})).text; }

std::vector<int> parameters_of(std::string_view sql) {
    return Analyzer().analyze(sql, {})->secrets.parameters;
}

std::string value(std::string_view text) { return shown(text).text; }

}  // namespace

TEST_CASE("a role's password is a question mark") {
    CHECK(of("ALTER ROLE bob PASSWORD 'hunter2'") == "ALTER ROLE bob PASSWORD ?");
    CHECK(of("create user bob with encrypted password E'hunt\\'er2' valid until '2027-01-01'") ==
          "create user bob with encrypted password ? valid until '2027-01-01'");
    CHECK(of("ALTER ROLE bob PASSWORD $x$hunter2$x$ LOGIN") == "ALTER ROLE bob PASSWORD ? LOGIN");
    CHECK(of("ALTER ROLE bob PASSWORD 'hun'\n  'ter2';") == "ALTER ROLE bob PASSWORD ?;");
    CHECK(of("ALTER ROLE bob PASSWORD U&'hunter\\0032'") == "ALTER ROLE bob PASSWORD ?");
    CHECK(of("ALTER ROLE bob PASSWORD /* new: */ 'hunter2'") ==
          "ALTER ROLE bob PASSWORD /* new: */ ?");
    CHECK(of("ALTER ROLE bob PASSWORD NULL") == "ALTER ROLE bob PASSWORD NULL");
    CHECK(of("ALTER ROLE a PASSWORD 'x'; SELECT 'kept'; ALTER ROLE b PASSWORD 'y'") ==
          "ALTER ROLE a PASSWORD ?; SELECT 'kept'; ALTER ROLE b PASSWORD ?");
}

TEST_CASE("passwords in forms that were missed once") {
    CHECK(of("DO $$BEGIN EXECUTE format('ALTER ROLE bob PASSWORD ''%s''', 'hunter2'); END$$")
              .find("hunter2") == std::string::npos);
    CHECK(value("postgresql://bob:hun?ter2@db/d") == "postgresql://bob:?@db/d");
    CHECK(of("SELECT dblink('postgresql://bob:hun''ter2@db/d', 'SELECT 1')").find("ter2") ==
          std::string::npos);
    CHECK(of("COPY t FROM PROGRAM 'PGPASSWORD=hunter2 psql'").find("hunter2") == std::string::npos);
    CHECK(of("SET app.password TO 'hunter2'") == "SET app.password TO ?");
    CHECK(
        of("CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (pass 'x', privatekey 'y', host 'h')") ==
        "CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (pass ?, privatekey ?, host 'h')");
    // A function that is called stays to be seen.
    CHECK(of("DO $$DECLARE password int; BEGIN password=evil(1); END$$").find("evil(1)") !=
          std::string::npos);
    CHECK(shown_without_strings("Filter: ((password)::text = 'hunter2'::text)").text ==
          "Filter: ((password)::text = ?::text)");
}

TEST_CASE("of many statements each is shown without reading all of them again") {
    constexpr std::size_t count = 20'000;
    std::string sql;
    for (std::size_t i = 0; i < count; ++i) sql += "ALTER ROLE a PASSWORD 'x';";
    const AnalysisPtr analysis = Analyzer().analyze(sql, {});
    REQUIRE(analysis->statements.size() == count);
    REQUIRE(analysis->secrets.spans.size() == count);
    // By the square of their number it would take minutes.
    std::size_t wrong = 0;
    for (const StatementFacts& facts : analysis->statements)
        wrong += shown(*analysis, facts).text == "ALTER ROLE a PASSWORD ?" ? 0 : 1;
    CHECK(wrong == 0);
}

TEST_CASE("one statement of several is shown with its own secrets") {
    const AnalysisPtr analysis = Analyzer().analyze(
        "ALTER ROLE a PASSWORD 'hunter2'; DROP TABLE t; ALTER ROLE b PASSWORD 'x' LOGIN", {});
    REQUIRE(analysis->statements.size() == 3);
    CHECK(shown(*analysis, analysis->statements[0]).text == "ALTER ROLE a PASSWORD ?");
    CHECK(shown(*analysis, analysis->statements[1]).text == "DROP TABLE t");
    CHECK_FALSE(shown(*analysis, analysis->statements[1]).masked);
    CHECK(shown(*analysis, analysis->statements[2]).text == "ALTER ROLE b PASSWORD ? LOGIN");
}

TEST_CASE("what is said of user mappings and servers keeps its secrets") {
    CHECK(of("CREATE USER MAPPING FOR bob SERVER s OPTIONS (user 'remote', password 'hunter2')") ==
          "CREATE USER MAPPING FOR bob SERVER s OPTIONS (user 'remote', password ?)");
    CHECK(of("ALTER USER MAPPING FOR bob SERVER s OPTIONS (SET password 'hunter2', ADD pin "
             "'4711')") ==
          "ALTER USER MAPPING FOR bob SERVER s OPTIONS (SET password ?, ADD pin ?)");
    CHECK(of("CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (host 'db', \"secret_key\" "
             "'hunter2')") ==
          "CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (host 'db', \"secret_key\" ?)");
    CHECK(of("ALTER SERVER s OPTIONS (SET url 'https://me:hunter2@files/', access_token 'x')") ==
          "ALTER SERVER s OPTIONS (SET url 'https://me:?@files/', access_token ?)");
}

TEST_CASE("connection strings lose their passwords, and keep where they lead") {
    CHECK(
        of("CREATE SUBSCRIPTION s CONNECTION 'host=db password=hunter2 dbname=d' PUBLICATION p") ==
        "CREATE SUBSCRIPTION s CONNECTION 'host=db password=? dbname=d' PUBLICATION p");
    CHECK(of("ALTER SUBSCRIPTION s CONNECTION 'password = ''hun ter\\''2'' host=db'") ==
          "ALTER SUBSCRIPTION s CONNECTION 'password = ? host=db'");
    CHECK(of("ALTER SUBSCRIPTION s CONNECTION 'password=hun ter 2'") ==
          "ALTER SUBSCRIPTION s CONNECTION 'password=?'");
    CHECK(of("ALTER SUBSCRIPTION s CONNECTION 'password=hun ter host=db sslpassword=x'") ==
          "ALTER SUBSCRIPTION s CONNECTION 'password=? host=db sslpassword=?'");
    CHECK(of("SELECT dblink_connect('postgresql://bob:hun@ter2@db/d?sslpassword=x&a=b')") ==
          "SELECT dblink_connect('postgresql://bob:?@db/d?sslpassword=?&a=b')");
    CHECK(of("SELECT dblink_exec('host=db password=hunter2', 'DROP TABLE t')") ==
          "SELECT dblink_exec('host=db password=?', 'DROP TABLE t')");
    CHECK(of("ALTER SYSTEM SET primary_conninfo = 'user=r password=hunter2'") ==
          "ALTER SYSTEM SET primary_conninfo = 'user=r password=?'");
    CHECK(of("SELECT dblink_connect('host=db password=' || 'hunter2'); SELECT 'kept'") ==
          "SELECT dblink_connect('host=db password=' || ?); SELECT 'kept'");
    CHECK(of("SELECT dblink_connect('postgresql://bob:' || 'hunter2' || '@db')") ==
          "SELECT dblink_connect('postgresql://bob:' || ? || ?)");
}

TEST_CASE("secrets are found in bodies and in the strings that they run") {
    CHECK(of("DO $$BEGIN ALTER ROLE bob PASSWORD 'hunter2'; DROP TABLE t; END$$") ==
          "DO $$BEGIN ALTER ROLE bob PASSWORD ?; DROP TABLE t; END$$");
    CHECK(of("DO $$BEGIN EXECUTE 'ALTER ROLE bob PASSWORD ''hunter2'''; DELETE FROM t; END$$") ==
          "DO $$BEGIN EXECUTE 'ALTER ROLE bob PASSWORD ?'; DELETE FROM t; END$$");
    CHECK(of("DO 'BEGIN EXECUTE ''ALTER ROLE bob PASSWORD ''''hunter2''''''; END'") ==
          "DO 'BEGIN EXECUTE ''ALTER ROLE bob PASSWORD ?''; END'");
    CHECK(of("DO E'BEGIN ALTER ROLE bob PASSWORD \\'hunter2\\'; END'") ==
          "DO E'BEGIN ALTER ROLE bob PASSWORD ?; END'");
    CHECK(of("SELECT run(format('ALTER ROLE %I PASSWORD %L', 'bob', 'hunter2')); SELECT 'kept'") ==
          "SELECT run(format('ALTER ROLE %I PASSWORD %L', ?, ?)); SELECT 'kept'");
    CHECK(of("SELECT run('ALTER ROLE bob PASSWORD ' || quote_literal('hunter2'))") ==
          "SELECT run('ALTER ROLE bob PASSWORD ' || quote_literal(?))");
    CHECK(of("SELECT run('ALTER ROLE bob PASSWORD ''' || 'hunter2' || '''')") ==
          "SELECT run('ALTER ROLE bob PASSWORD ?' || ? || ?)");
    CHECK(of("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS "
             "$f$ SELECT dblink_connect($q$host=db password=hunter2$q$) $f$") ==
          "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS "
          "$f$ SELECT dblink_connect($q$host=db password=?) $f$");
    CHECK(of("CALL chaperone.explain('ALTER ROLE bob PASSWORD ''hunter2''')") ==
          "CALL chaperone.explain('ALTER ROLE bob PASSWORD ?')");
}

TEST_CASE("what can't be parsed hides more") {
    CHECK(of("ALTER ROLE bob PASSWRD 'hunter2'") == "ALTER ROLE bob PASSWRD ?");
    CHECK(of("ALTER ROLE bob PASSWORD hunter2") == "ALTER ROLE bob PASSWORD ?");
    CHECK(of("ALTER ROLE bob PASSWORD \"hunter2\"; SELECT 'kept'") ==
          "ALTER ROLE bob PASSWORD ?; SELECT 'kept'");
    CHECK(of("ALTER ROLE bob PASSWORD :'hunter2'").find("hunter") == std::string::npos);
    CHECK(of("ALTER ROLE bob PASSWORD = 'hunter2'") == "ALTER ROLE bob PASSWORD = ?");
    CHECK(of("ALTER ROLE bob PASSWORD 'hunter2") == "ALTER ROLE bob PASSWORD ?");
    CHECK(of("CREATE USER MAPPING FOR bob SERVER s OPTIONS user 'me', pass 'hunter2'") ==
          "CREATE USER MAPPING FOR bob SERVER s OPTIONS user 'me', pass ?");
    CHECK(of("CRETE SUBSCRIPTION s CONECTION 'password=hunter2'") ==
          "CRETE SUBSCRIPTION s CONECTION 'password=?'");
    LexicalSettings unknown;
    unknown.standard_conforming_strings = StandardConformingStrings::unknown;
    CHECK(shown(*Analyzer().analyze("ALTER ROLE bob PASSWORD 'hun\\'ter2'", unknown)).text ==
          "ALTER ROLE bob ?");
    LexicalSettings sjis;
    sjis.client_encoding = "SJIS";
    CHECK(shown(*Analyzer().analyze("ALTER ROLE \x83\x5c PASSWORD 'hunter2'", sjis)).text ==
          "ALTER ROLE \x83\x5c PASSWORD ?");
    LexicalSettings latin1;
    latin1.client_encoding = "LATIN1";
    CHECK(shown(*Analyzer().analyze("UPDATE users SET password_hint = 'x', name = 'J\xfcrgen'; "
                                    "DROP TABLE orders",
                                    latin1))
              .text ==
          "UPDATE users SET password_hint = 'x', name = 'J\xfcrgen'; DROP TABLE orders");
    CHECK(shown(*Analyzer().analyze("CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (comment "
                                    "'f\xfcr', token 'hunter2')",
                                    latin1))
              .text ==
          "CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (comment 'f\xfcr', token ?)");
    CHECK(shown("ALTER ROLE bob PASSWORD 'hunter2' and the rest that was cut o", unknown).text ==
          "ALTER ROLE bob PASSWORD ? and the rest that was cut o");
}

TEST_CASE("the parser's complaint does not quote a secret") {
    const AnalysisPtr analysis = Analyzer().analyze("ALTER ROLE bob PASSWORD 'a' 'hunter2'", {});
    REQUIRE(analysis->statements.at(0).unparsable.set);
    CHECK(analysis->statements[0].unparsable.reason == "syntax error");
    CHECK(Analyzer().analyze("SELEC 1", {})->statements.at(0).unparsable.reason ==
          "syntax error at or near \"SELEC\"");
}

TEST_CASE("a fingerprint tells nothing of a secret, and other secrets have the same") {
    const auto fingerprint = [](std::string_view sql) {
        return Analyzer().analyze(sql, {})->fingerprint;
    };
    const auto bob = fingerprint("ALTER ROLE bob PASSWORD 'hunter2'");
    CHECK(bob != 0);
    CHECK(bob == fingerprint("alter role bob  password 'other' -- now"));
    CHECK(bob != fingerprint("ALTER ROLE eve PASSWORD 'hunter2'"));
    CHECK(fingerprint("SELECT 1 /* password */") == fingerprint("SELECT 1"));
    CHECK(fingerprint("UPDATE u SET password = 'x' WHERE id = 1") ==
          fingerprint("UPDATE u SET password = $1 WHERE id = $2"));
}

TEST_CASE("what is no secret stays") {
    for (const std::string_view sql : {
             "SELECT 'your password', 'is not here'",
             "SELECT password, 'x' FROM users",
             "ALTER ROLE password RENAME TO other",
             "ALTER ROLE bob SET search_path = 'a'",
             "CREATE TABLE t (password text NOT NULL DEFAULT 'none')",
             "COPY t TO STDOUT WITH (FORMAT csv, DELIMITER ';')",
             "CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (host 'db', port '5432')",
             "SELECT 'https://example.org/a:b@c', 'postgresql://bob@db:5432/d'",
             "SET password_encryption = 'scram-sha-256'",
             "INSERT INTO notes VALUES ('tell Bob that his password is safe', 'text')",
         }) {
        CHECK(of(sql) == sql);
    }
}

TEST_CASE("a comment that speaks of a password is emptied") {
    CHECK(of("SELECT 1 -- ALTER ROLE bob PASSWORD 'hunter2'\n + 2") == "SELECT 1 --?\n + 2");
    CHECK(of("/* password: hunter2 */ SELECT 1 /* kept */") == "/*?*/ SELECT 1 /* kept */");
}

TEST_CASE("parameters that are secrets are known by their place, and by what they say") {
    CHECK(parameters_of("SELECT dblink_connect($2, $1)") == std::vector<int>{1, 2});
    CHECK(parameters_of("SELECT public.dblink_connect_u(concat('host=', $1)), $2") ==
          std::vector<int>{1});
    CHECK(parameters_of("UPDATE users SET password = $1 WHERE id = $2") == std::vector<int>{1});
    CHECK(parameters_of("SELECT dblink('host=db password=' || $1, $2)") == std::vector<int>{1, 2});
    CHECK(parameters_of("SELECT $1, $2").empty());

    std::vector<std::optional<std::string>> values{
        "host=db password=hunter2", std::nullopt, "ALTER ROLE bob PASSWORD 'x'", "kept", "hunter2"};
    Secrets secrets;
    secrets.parameters = {5};
    CHECK(hide_secrets(secrets, values));
    CHECK(values == std::vector<std::optional<std::string>>{"host=db password=?", std::nullopt,
                                                            "ALTER ROLE bob PASSWORD ?", "kept",
                                                            "?"});
    values = {"42", "a b"};
    CHECK_FALSE(hide_secrets({}, values));
    CHECK(values.front() == "42");
    CHECK(value("could not parse host=db password=hunter2") ==
          "could not parse host=db password=?");
}

TEST_CASE("strings in strings come to an end") {
    std::string sql = "ALTER ROLE bob PASSWORD 'hunter2'";
    for (int i = 0; i < 8; ++i) {
        std::string quoted = "SELECT '";
        for (const char c : sql) quoted += c == '\'' ? std::string("''") : std::string(1, c);
        sql = quoted + "'";
    }
    CHECK(of(sql).find("hunter2") == std::string::npos);
    CHECK(of("SELECT '" + std::string(300'000, 'x') + "PASSWORD ''hunter2''', 'kept'") ==
          "SELECT '" + std::string(300'000, 'x') + "?, 'kept'");
}
