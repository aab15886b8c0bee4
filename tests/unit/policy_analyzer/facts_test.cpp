#include "analyze.h"

#include <vector>

namespace pgchaperone::policy {

namespace {

RelationName named(std::string schema, std::string name) {
    return {{}, std::move(schema), std::move(name)};
}

}  // namespace

TEST_CASE("the command tag is the one that the server answers with") {
    struct Case {
        const char* sql;
        const char* tag;
        StatementClass statement_class;
    };
    using enum StatementClass;
    for (const Case& each : {
             Case{"SELECT 1", "SELECT", read},
             Case{"TABLE t", "SELECT", read},
             Case{"VALUES (1)", "SELECT", read},
             Case{"SELECT 1 INTO x", "SELECT INTO", ddl},
             Case{"INSERT INTO t VALUES (1)", "INSERT", write},
             Case{"MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DO NOTHING", "MERGE", write},
             Case{"TRUNCATE t", "TRUNCATE TABLE", write},
             Case{"COPY t FROM STDIN", "COPY", write},
             Case{"COPY t TO STDOUT", "COPY", read},
             Case{"BEGIN", "BEGIN", misc},
             Case{"START TRANSACTION", "START TRANSACTION", misc},
             Case{"END", "COMMIT", misc},
             Case{"ABORT", "ROLLBACK", misc},
             Case{"ROLLBACK TO s", "ROLLBACK", misc},
             Case{"PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION", misc},
             Case{"SET a.b = 1", "SET", StatementClass::misc_set},
             Case{"RESET ALL", "RESET", StatementClass::misc_set},
             Case{"SHOW ALL", "SHOW", misc},
             Case{"DROP TABLE t", "DROP TABLE", ddl},
             Case{"DROP MATERIALIZED VIEW v", "DROP MATERIALIZED VIEW", ddl},
             Case{"DROP ROLE r", "DROP ROLE", role},
             Case{"DROP DATABASE d", "DROP DATABASE", ddl},
             Case{"DROP OWNED BY r", "DROP OWNED", ddl},
             Case{"ALTER TABLE t ADD COLUMN a int", "ALTER TABLE", ddl},
             Case{"ALTER VIEW v RENAME COLUMN a TO b", "ALTER VIEW", ddl},
             Case{"ALTER FUNCTION f() OWNER TO r", "ALTER FUNCTION", ddl},
             Case{"ALTER FUNCTION f() STABLE", "ALTER FUNCTION", ddl},
             Case{"ALTER ROLE r SUPERUSER", "ALTER ROLE", role},
             Case{"ALTER SYSTEM SET a = 1", "ALTER SYSTEM", misc},
             Case{"CREATE PROCEDURE p() LANGUAGE sql AS ''", "CREATE PROCEDURE", ddl},
             Case{"CREATE AGGREGATE a(int) (SFUNC = f, STYPE = int)", "CREATE AGGREGATE", ddl},
             Case{"CREATE MATERIALIZED VIEW v AS SELECT 1", "CREATE MATERIALIZED VIEW", ddl},
             Case{"CREATE TABLE x AS SELECT 1", "CREATE TABLE AS", ddl},
             Case{"GRANT SELECT ON t TO r", "GRANT", role},
             Case{"REVOKE SELECT ON t FROM r", "REVOKE", role},
             Case{"GRANT a TO b", "GRANT ROLE", role},
             Case{"DO $$ BEGIN END $$", "DO", function},
             Case{"CALL p()", "CALL", function},
             Case{"VACUUM t", "VACUUM", misc},
             Case{"ANALYZE t", "ANALYZE", misc},
             Case{"DISCARD TEMP", "DISCARD TEMP", misc},
             Case{"DEALLOCATE ALL", "DEALLOCATE ALL", misc},
             Case{"MOVE 5 IN c", "MOVE", read},
             Case{"COMMENT ON TABLE t IS 'x'", "COMMENT", ddl},
         }) {
        const StatementFacts facts = facts_of(each.sql);
        INFO(each.sql << ": " << facts.unparsable.reason);
        CHECK(facts.command == each.tag);
        REQUIRE_FALSE(facts.commands.empty());
        CHECK(facts.commands.front() == each.tag);
        REQUIRE_FALSE(facts.classes.empty());
        CHECK(facts.classes.front() == each.statement_class);
    }
}

TEST_CASE("inner statements are listed behind the outer one") {
    const StatementFacts facts = facts_of(
        "EXPLAIN ANALYZE WITH d AS (DELETE FROM a WHERE id = 1 RETURNING *) INSERT INTO b SELECT * "
        "FROM d");
    CHECK(facts.commands == std::vector<std::string>{"EXPLAIN", "INSERT", "DELETE"});
    CHECK(contains(facts.classes, StatementClass::write));
    CHECK(facts.written == std::vector<RelationName>{named("", "b"), named("", "a")});
    CHECK(facts.read.empty());
}

TEST_CASE("relations are folded as PostgreSQL folds them, and queries of the statement are none") {
    const StatementFacts facts = facts_of(
        "WITH cte AS (SELECT * FROM Public.Orders) SELECT * FROM cte, \"OrderItems\" JOIN db.s.t "
        "ON true, "
        "(SELECT 1 FROM inner_one) x WHERE EXISTS (TABLE deep)");
    CHECK(contains(facts.read, named("public", "orders")));
    CHECK(contains(facts.read, named("", "OrderItems")));
    CHECK(contains(facts.read, RelationName{"db", "s", "t"}));
    CHECK(contains(facts.read, named("", "inner_one")));
    CHECK(contains(facts.read, named("", "deep")));
    CHECK_FALSE(contains(facts.read, named("", "cte")));
    CHECK(facts.written.empty());
}

TEST_CASE("a query's name hides a table only where the query is visible") {
    CHECK(contains(facts_of("WITH t AS (SELECT * FROM t) SELECT * FROM t").read, named("", "t")));
    CHECK_FALSE(contains(
        facts_of("WITH RECURSIVE t AS (SELECT 1 UNION SELECT * FROM t) SELECT * FROM t").read,
        named("", "t")));
    CHECK(contains(facts_of("(WITH t AS (SELECT 1) SELECT * FROM t) UNION SELECT * FROM t").read,
                   named("", "t")));
    CHECK(contains(facts_of("WITH t AS (SELECT 1) SELECT * FROM public.t").read,
                   named("public", "t")));
}

TEST_CASE("a READ is only what cannot write") {
    const auto only_reads = [](const char* sql) {
        const StatementFacts facts = facts_of(sql);
        return facts.classes == std::vector{StatementClass::read} && !facts.opaque;
    };
    CHECK(only_reads("SELECT count(*), max(a), lower(b), now() FROM t GROUP BY c"));
    CHECK(only_reads("SELECT pg_catalog.format_type(1, 2)"));
    CHECK(only_reads("EXPLAIN UPDATE t SET a = 1"));
    CHECK(only_reads("SELECT random(), pg_size_pretty(pg_relation_size('t'))"));
    CHECK(only_reads("SELECT information_schema._pg_expandarray(ARRAY[1])"));
    CHECK_FALSE(only_reads("SELECT nextval('s')"));
    CHECK_FALSE(only_reads("SELECT my_function()"));
    CHECK_FALSE(only_reads("SELECT public.lower('A')"));
    CHECK_FALSE(only_reads("SELECT * FROM t FOR UPDATE"));
    CHECK_FALSE(only_reads("SELECT 1 WHERE false AND erase(t.*)"));
    CHECK_FALSE(only_reads("SELECT a OPERATOR(ops.<~) b"));
    CHECK_FALSE(only_reads("SELECT a <~ b"));
    CHECK_FALSE(only_reads("SELECT 1 INTO x"));
    CHECK_FALSE(only_reads("SELECT set_config('a.b', 'c', false)"));
    CHECK_FALSE(only_reads("WITH d AS (DELETE FROM t WHERE id = 1 RETURNING 1) SELECT * FROM d"));
    CHECK_FALSE(only_reads("COPY t TO '/tmp/x'"));
    CHECK_FALSE(only_reads("EXPLAIN SELECT my_function()"));
}

TEST_CASE("functions with effects of their own are named") {
    for (const char* sql : {
             "SELECT pg_terminate_backend(1)",
             "SELECT lo_unlink(5)",
             "SELECT setval('s', 1)",
             "SELECT lo_export(1, '/x')",
             "SELECT pg_read_file('x')",
             "SELECT pg_reload_conf()",
             "SELECT dblink_exec('x', 'DROP TABLE t')",
             "SELECT public.dblink('x', 'y')",
             "SELECT pg_catalog.pg_ls_dir('x')",
             "SELECT 1 WHERE pg_cancel_backend(5)",
             "SELECT pg_drop_replication_slot('x')",
             "SELECT pg_switch_wal()",
             "UPDATE t SET a = lo_truncate(1, 0) WHERE id = 5",
             "CREATE TABLE x AS SELECT pg_read_binary_file('x')",
             "DO $$ BEGIN PERFORM pg_terminate_backend(5); END $$",
         }) {
        INFO(sql);
        CHECK(facts_of(sql).dangerous.set);
    }
}

TEST_CASE("functions that run SQL are judged by the SQL, where it is known") {
    CHECK(facts_of("SELECT query_to_xml('DROP TABLE t', true, true, '')").destructive.set);
    CHECK(facts_of("SELECT query_to_xml('SELECT 1', true, true, '')").opaque.set == false);
    CHECK(facts_of("SELECT query_to_xml('SEL' || 'ECT 1', true, true, '')").opaque.set == false);
    CHECK(facts_of("SELECT query_to_xml($1, true, true, '')").opaque.set);
    CHECK(facts_of("SELECT * FROM ts_stat('SELECT f()')").opaque.set);
    CHECK_FALSE(facts_of("SELECT ts_rewrite('a'::tsquery, 'b', 'c')").opaque.set);
    CHECK(facts_of("SELECT table_to_xml('v', true, true, '')").opaque.set);
    CHECK(facts_of("SELECT query_to_xml('SELECT (', true, true, '')").opaque.set);
}

TEST_CASE("what is lost for good is destructive") {
    for (const char* sql : {
             "DROP TABLE t",
             "DROP TABLE IF EXISTS a, b CASCADE",
             "DROP SCHEMA s CASCADE",
             "DROP DATABASE d",
             "DROP INDEX CONCURRENTLY i",
             "DROP FUNCTION f(int)",
             "DROP TRIGGER g ON t",
             "DROP OWNED BY r",
             "DROP EXTENSION e",
             "DROP CAST (int AS text)",
             "DROP OPERATOR s.<~ (int, int)",
             "DROP ROLE r",
             "DROP TABLESPACE x",
             "TRUNCATE t",
             "ALTER TABLE t DROP COLUMN a",
             "ALTER TABLE t DROP a",
             "ALTER TABLE t ALTER a TYPE text",
             "ALTER TABLE t ALTER a SET DATA TYPE text USING NULL",
             "ALTER TABLE t DROP CONSTRAINT c",
             "ALTER TABLE t DETACH PARTITION p",
             "ALTER TABLE t DISABLE TRIGGER ALL",
             "ALTER TABLE t DISABLE ROW LEVEL SECURITY",
             "ALTER TABLE t SET UNLOGGED",
             "ALTER TABLE t ALTER a DROP IDENTITY",
             "ALTER TABLE t ALTER a DROP DEFAULT",
             "ALTER TABLE t NO INHERIT p",
             "REFRESH MATERIALIZED VIEW v WITH NO DATA",
             "ALTER DOMAIN d DROP CONSTRAINT c",
             "ALTER TABLE t ADD COLUMN x int, DROP COLUMN y",
             "ALTER TABLE t ALTER a DROP NOT NULL",
         }) {
        const StatementFacts facts = facts_of(sql);
        INFO(sql);
        CHECK(facts.destructive.set);
        CHECK_FALSE(facts.destructive.reason.empty());
    }
    for (const char* sql : {
             "CREATE TABLE t (a int)",
             "ALTER TABLE t ADD COLUMN a int",
             "CREATE INDEX i ON t (a)",
             "ALTER TABLE t ALTER a SET DEFAULT 5",
             "DROP TABLE pg_temp.t",
             "TRUNCATE pg_temp.t",
             "ALTER TABLE t VALIDATE CONSTRAINT c",
             "ALTER TABLE t ADD PRIMARY KEY (a)",
             "REFRESH MATERIALIZED VIEW v",
             "CREATE OR REPLACE VIEW v AS SELECT 1",
             "ALTER TYPE t ADD VALUE 'x'",
             "EXPLAIN ANALYZE SELECT 1",
         }) {
        const StatementFacts facts = facts_of(sql);
        INFO(sql << ": " << facts.destructive.reason << facts.dangerous.reason);
        CHECK_FALSE(facts.destructive.set);
        CHECK_FALSE(facts.dangerous.set);
    }
    CHECK(facts_of("ALTER TABLE s.t DROP COLUMN a").destructive.reason == "drops column a of s.t");
    CHECK(facts_of("DROP TRIGGER g ON s.t").written == std::vector<RelationName>{named("s", "t")});
}

TEST_CASE("what reaches beyond the rows is dangerous") {
    for (const char* sql : {
             "COPY t TO PROGRAM 'x'",
             "COPY t FROM PROGRAM 'x'",
             "COPY (SELECT 1) TO '/x'",
             "COPY t FROM '/x'",
             "LOAD 'x'",
             "ALTER SYSTEM SET a = 1",
             "ALTER SYSTEM RESET ALL",
             "CREATE EXTENSION x",
             "CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'x', 'y'",
             "SECURITY LABEL ON TABLE t IS 'x'",
             "REASSIGN OWNED BY a TO b",
             "GRANT ALL ON t TO PUBLIC",
             "REVOKE a FROM b",
             "ALTER ROLE r SUPERUSER",
             "CREATE ROLE r",
             "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO r",
             "ALTER TABLE t OWNER TO r",
             "ALTER TABLE t SET SCHEMA s",
             "ALTER TABLE t RENAME TO u",
             "ALTER SCHEMA a RENAME TO b",
             "ALTER FUNCTION f() SECURITY DEFINER",
             "CREATE RULE r AS ON INSERT TO t DO INSTEAD NOTHING",
             "CREATE TRIGGER g AFTER INSERT ON t EXECUTE FUNCTION f()",
             "CREATE POLICY p ON t",
             "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION f()",
             "CREATE PUBLICATION p",
             "CREATE SERVER s FOREIGN DATA WRAPPER w",
             "LOCK TABLE t",
             "LOCK t IN SHARE MODE",
             "VACUUM FULL t",
             "VACUUM (FULL 1) t",
             "CLUSTER t",
             "REINDEX TABLE t",
             "DELETE FROM pg_class WHERE oid = 5",
             "UPDATE pg_catalog.pg_proc SET prosrc = '' WHERE oid = 5",
             "SET session_replication_role = replica",
             "SELECT set_config('session_replication_role', 'replica', false)",
             "SET allow_system_table_mods = on",
             "ALTER DATABASE d SET a = 1",
             "ALTER SEQUENCE s RESTART",
             "ALTER TABLE t ALTER id RESTART WITH 1",
             "ALTER DOMAIN d ADD CHECK (VALUE > 0)",
             "ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0) NOT VALID",
             "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
             "ALTER TYPE t RENAME VALUE 'a' TO 'b'",
             "ALTER EXTENSION e UPDATE",
         }) {
        const StatementFacts facts = facts_of(sql);
        INFO(sql);
        CHECK_FALSE(facts.unparsable);
        CHECK(facts.dangerous.set);
        CHECK_FALSE(facts.dangerous.reason.empty());
    }
    for (const char* sql : {
             "LOCK TABLE t IN ACCESS SHARE MODE",
             "VACUUM t",
             "VACUUM (FULL off) t",
             "SET ROLE r",
             "SET search_path = a",
             "RESET session_replication_role",
             "SELECT pg_advisory_lock(1)",
             "LISTEN x",
             "REINDEX (CONCURRENTLY) TABLE t",
             "ALTER SEQUENCE s OWNED BY t.a",
             "COPY t TO STDOUT",
             "SELECT * FROM pg_class",
         }) {
        const StatementFacts facts = facts_of(sql);
        INFO(sql << ": " << facts.dangerous.reason);
        CHECK_FALSE(facts.dangerous.set);
    }
}

TEST_CASE(
    "an index blocks writers unless it is built concurrently or on a table of the same text") {
    CHECK(facts_of("CREATE INDEX i ON t (a)").blocking.set);
    CHECK_FALSE(facts_of("CREATE INDEX CONCURRENTLY i ON t (a)").blocking.set);
    CHECK_FALSE(
        analyze("CREATE TABLE t (a int); CREATE INDEX i ON t (a)")->statements.at(1).blocking.set);
}

TEST_CASE("what cannot run in a transaction says so") {
    for (const char* sql :
         {"VACUUM", "CREATE DATABASE d", "DROP DATABASE d", "CREATE INDEX CONCURRENTLY i ON t (a)",
          "DROP INDEX CONCURRENTLY i", "REINDEX (CONCURRENTLY) INDEX i", "REINDEX SCHEMA s",
          "ALTER SYSTEM SET a = 1", "CREATE TABLESPACE x LOCATION '/x'", "CLUSTER",
          "COMMIT PREPARED 'x'", "DISCARD ALL", "ALTER TABLE t DETACH PARTITION p CONCURRENTLY"}) {
        INFO(sql);
        CHECK_FALSE(facts_of(sql).runs_in_transaction);
    }
    for (const char* sql : {"ANALYZE", "CREATE INDEX i ON t (a)", "DROP INDEX i", "CLUSTER t",
                            "TRUNCATE t", "ALTER TABLE t DETACH PARTITION p"}) {
        INFO(sql);
        CHECK(facts_of(sql).runs_in_transaction);
    }
}

TEST_CASE("what changes how later bytes are read says so") {
    for (const char* sql :
         {"SET client_encoding = 'SJIS'", "SET NAMES 'x'",
          "SET LOCAL standard_conforming_strings = off", "RESET client_encoding", "RESET ALL",
          "DISCARD ALL", "ROLLBACK", "ROLLBACK TO s", "COMMIT",
          "SELECT set_config('client_encoding', 'SJIS', false)", "SELECT set_config($1, $2, false)",
          "SELECT set_config('standard_' || 'conforming_strings', 'off', false)", "CALL p()",
          "SELECT f()",
          "UPDATE pg_settings SET setting = 'off' WHERE name = 'standard_conforming_strings'",
          "EXECUTE p"}) {
        INFO(sql);
        CHECK(facts_of(sql).may_change_lexical_settings);
    }
    for (const char* sql :
         {"SELECT 1", "SET work_mem = '1MB'", "BEGIN", "SELECT set_config('work_mem', '1MB', true)",
          "UPDATE t SET a = 1 WHERE id = 1"}) {
        INFO(sql);
        CHECK_FALSE(facts_of(sql).may_change_lexical_settings);
    }
    CHECK(facts_of("SET search_path TO a, b").changes_search_path);
    CHECK(facts_of("SELECT pg_catalog.set_config('search_path', '', false)").changes_search_path);
    CHECK_FALSE(facts_of("SET work_mem = 1").changes_search_path);
}

TEST_CASE("sessions learn names that they have to keep track of") {
    CHECK(facts_of("CREATE TEMP TABLE x (a int)").tables_created ==
          std::vector<RelationName>{named("", "x")});
    CHECK(facts_of("SELECT 1 INTO TEMP x").tables_created ==
          std::vector<RelationName>{named("", "x")});
    CHECK(facts_of("CREATE TABLE pg_temp.x AS SELECT 1").tables_created.size() == 1);
    CHECK(facts_of("CREATE TABLE x (a int)").tables_created.size() == 1);
    CHECK(facts_of("CREATE TABLE IF NOT EXISTS x (a int)").tables_created.empty());
    CHECK(facts_of("CREATE TEMP TABLE IF NOT EXISTS x (a int)").tables_created.empty());
    CHECK(facts_of("EXPLAIN CREATE TEMP TABLE x AS SELECT 1").tables_created.empty());
    CHECK(facts_of("CREATE SCHEMA s CREATE TABLE x (a int)").tables_created.empty());
    CHECK(facts_of("DO 'begin create temp table x (a int); end'").tables_created.empty());
    CHECK(facts_of("PREPARE p AS SELECT 1 INTO TEMP x").tables_created.empty());
    CHECK(facts_of("CREATE TEMP VIEW x AS SELECT 1").tables_created.empty());
    CHECK(facts_of("PREPARE \"P\" AS SELECT 1").prepared_statement == "P");
    CHECK(facts_of("EXECUTE p(1)").prepared_statement == "p");
    CHECK(facts_of("EXECUTE p(1)").opaque.set);
    using Names = std::vector<std::string>;
    CHECK(facts_of("PREPARE \"P\" AS SELECT 1").prepares == Names{"P"});
    CHECK(facts_of("EXPLAIN ANALYZE EXECUTE P(1)").executes == Names{"p"});
    CHECK(facts_of("CREATE TABLE x AS EXECUTE p").executes == Names{"p"});
    CHECK(facts_of("EXPLAIN EXECUTE p").executes.empty());
    CHECK(facts_of("DECLARE c CURSOR FOR SELECT 1").declares == Names{"c"});
    CHECK(facts_of("FETCH 3 FROM C").fetches == Names{"c"});
    CHECK(facts_of("MOVE ALL IN c").fetches == Names{"c"});
    CHECK(facts_of("CLOSE c").closes_cursor == "c");
    CHECK(facts_of("CLOSE ALL").closes_cursor.empty());
    CHECK(facts_of("BEGIN").controls_transaction);
    CHECK_FALSE(facts_of("SELECT 1").controls_transaction);
}

TEST_CASE("each statement of a text has its place in it") {
    const std::string sql = "  SELECT 1 ;\n\n UPDATE t SET a = ';' WHERE id = 1;;\tDROP TABLE x  ";
    const AnalysisPtr analysis = analyze(sql);
    REQUIRE(analysis->statements.size() == 3);
    std::vector<std::string> found;
    for (const StatementFacts& facts : analysis->statements) {
        found.push_back(sql.substr(facts.location, facts.length));
    }
    CHECK(found == std::vector<std::string>{"SELECT 1", "UPDATE t SET a = ';' WHERE id = 1",
                                            "DROP TABLE x"});
    CHECK(analysis->text == sql);
}

TEST_CASE("an empty text has no statements, and a broken one has one that is unparsable") {
    for (const char* sql : {"", "  ", ";", ";;;", "-- x", "/* x */ ;"}) {
        CHECK(analyze(sql)->statements.empty());
    }
    for (const char* sql :
         {"SELEC 1", "WHERE id = 1", "SELECT 1; DELETE FROM", "SELECT 'x", "/* x", "SELECT $$x"}) {
        const StatementFacts facts = facts_of(sql);
        CHECK(facts.unparsable.set);
        CHECK(facts.location == 0);
        CHECK(facts.length == std::string_view(sql).size());
    }
}

TEST_CASE("the fingerprint is the same for statements that differ in constants only") {
    const auto fingerprint = [](std::string_view sql) { return analyze(sql)->fingerprint; };
    const std::uint64_t one = fingerprint("SELECT a FROM t WHERE id = 1 AND b IN (1, 2, 3)");
    CHECK(one != 0);
    CHECK(one == fingerprint("select  a from t where id = 42 and b in (7, 8, 9, 10)"));
    CHECK(one == fingerprint("SELECT a FROM t WHERE id = $1 AND b IN ($2)"));
    CHECK(one == fingerprint("SELECT a FROM t WHERE id = 'x' AND b IN (NULL)"));
    CHECK(one != fingerprint("SELECT a FROM u WHERE id = 1 AND b IN (1, 2, 3)"));
    CHECK(one != fingerprint("SELECT a FROM t WHERE id = 1 OR b IN (1, 2, 3)"));
    CHECK(one != fingerprint("SELECT a FROM t WHERE id <> 1 AND b IN (1, 2, 3)"));
    CHECK(fingerprint("INSERT INTO t VALUES (1, 2)") ==
          fingerprint("INSERT INTO t VALUES (1, 2), (3, 4)"));
    CHECK(fingerprint("") == 0);
    CHECK(fingerprint("SELEC") == 0);
}

TEST_CASE("a walsender's own commands are known by their first word") {
    const Analyzer analyzer;
    const auto facts = [&](std::string_view sql) {
        return analyzer.analyze(sql, {}, true)->statements.at(0);
    };
    CHECK(facts("IDENTIFY_SYSTEM").command == "IDENTIFY_SYSTEM");
    CHECK_FALSE(facts(" IDENTIFY_SYSTEM;").dangerous.set);
    CHECK(facts("CREATE_REPLICATION_SLOT x PHYSICAL RESERVE_WAL").dangerous.set);
    CHECK(facts("DROP_REPLICATION_SLOT x").dangerous.set);
    CHECK(facts("BASE_BACKUP (LABEL 'x')").dangerous.set);
    CHECK_FALSE(facts("SHOW data_directory").dangerous.set);
    CHECK(facts("DELETE FROM t").unbounded.set);
    CHECK(facts("/* IDENTIFY_SYSTEM */ DELETE FROM t").unbounded.set);
    // On an ordinary connection they are no SQL.
    CHECK(facts_of("IDENTIFY_SYSTEM").unparsable.set);
}

TEST_CASE("what a text has named and runs by that name counts as what it runs") {
    const auto last = [](std::string_view sql) {
        return Analyzer().analyze(sql, {})->statements.back();
    };
    const StatementFacts run = last("PREPARE p AS DELETE FROM a; EXECUTE p");
    CHECK(run.command == "EXECUTE");
    CHECK(run.commands == std::vector<std::string>{"EXECUTE", "DELETE"});
    CHECK(run.written == std::vector<RelationName>{{"", "", "a"}});
    CHECK(run.unbounded.set);
    CHECK(run.opaque.set);
    CHECK(last("DECLARE c CURSOR FOR SELECT FROM a; FETCH c").read ==
          std::vector<RelationName>{{"", "", "a"}});
    // The last that was made is what runs; one that is made later, or under another name, is not.
    CHECK(last("PREPARE p AS DELETE FROM a; DEALLOCATE p; PREPARE p AS SELECT 1; EXECUTE p")
              .written.empty());
    CHECK(last("PREPARE p AS DELETE FROM a; EXECUTE q").written.empty());
    CHECK(Analyzer()
              .analyze("EXECUTE p; PREPARE p AS DELETE FROM a", {})
              ->statements.front()
              .written.empty());
    // A text can't make of a few bytes more than is read: past the bound nothing is known of it.
    std::string many = "PREPARE p AS SELECT FROM a0";
    for (int i = 1; i < 3000; ++i) many += ", a" + std::to_string(i);
    for (int i = 0; i < 100; ++i) many += "; EXECUTE p";
    CHECK(last(many).unparsable.set);
}

}  // namespace pgchaperone::policy
