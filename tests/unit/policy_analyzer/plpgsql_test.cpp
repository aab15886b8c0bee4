#include "analyze.h"

namespace pgchaperone::policy {

TEST_CASE("static SQL in a DO block is judged like any other") {
    CHECK(facts_of("DO $$ BEGIN DELETE FROM t; END $$").unbounded.set);
    CHECK(facts_of("DO LANGUAGE plpgsql 'BEGIN UPDATE t SET a = 0; END'").unbounded.set);
    CHECK(facts_of("DO E'BEGIN \\x44ELETE FROM t; END'").unbounded.set);
    CHECK(facts_of("DO $$ DECLARE n int; BEGIN WITH d AS (DELETE FROM t RETURNING 1) SELECT "
                   "count(*) INTO n FROM d; "
                   "END $$")
              .unbounded.set);
    CHECK(facts_of("DO $$ BEGIN IF true THEN LOOP DROP TABLE t; END LOOP; END IF; END $$")
              .destructive.set);
    CHECK(facts_of("DO $$ BEGIN PERFORM 1; EXCEPTION WHEN OTHERS THEN TRUNCATE t; END $$")
              .unbounded.set);
    const StatementFacts harmless = facts_of(
        "DO $$ BEGIN DELETE FROM t WHERE id = 1; RAISE NOTICE 'x'; END $$");
    CHECK_FALSE(harmless.unbounded.set);
    CHECK_FALSE(harmless.opaque.set);
    CHECK(contains(harmless.commands, "DELETE"));
    CHECK(contains(harmless.written, RelationName{{}, {}, "t"}));
}

TEST_CASE("variables of a body are not columns") {
    CHECK_FALSE(facts_of("DO $$ DECLARE v int := 5; BEGIN DELETE FROM t WHERE id = v; END $$")
                    .unbounded.set);
    CHECK_FALSE(facts_of("DO $$ DECLARE r record; BEGIN FOR r IN SELECT id FROM s LOOP DELETE FROM "
                         "t WHERE id = r.id; "
                         "END LOOP; END $$")
                    .unbounded.set);
    CHECK_FALSE(facts_of("CREATE FUNCTION f(k int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN "
                         "DELETE FROM t WHERE id = k; "
                         "END $$")
                    .unbounded.set);
    CHECK_FALSE(facts_of("CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE "
                         "FROM t WHERE id = "
                         "OLD.id; RETURN NULL; END $$")
                    .unbounded.set);
    CHECK(
        facts_of("DO $$ DECLARE id int; BEGIN DELETE FROM t WHERE id = id; END $$").unbounded.set);
}

TEST_CASE("dynamic SQL is judged where its text is known and opaque where it isn't") {
    CHECK(facts_of("DO $$ BEGIN EXECUTE 'DROP TABLE t'; END $$").destructive.set);
    CHECK(facts_of("DO $$ BEGIN EXECUTE 'DEL' || 'ETE FR' || 'OM t'; END $$").unbounded.set);
    CHECK(facts_of("DO $$ BEGIN EXECUTE format('%s %s %I', 'TRUNCATE', 'TABLE', 't'); END $$")
              .unbounded.set);
    CHECK(facts_of("DO $$ BEGIN EXECUTE format('DELETE FROM %I WHERE id = %L', 't', 5); END $$")
              .unbounded.set == false);
    const StatementFacts known = facts_of("DO $$ BEGIN EXECUTE 'SELECT 1'; END $$");
    CHECK_FALSE(known.opaque.set);
    CHECK(facts_of("DO $$ DECLARE s text; BEGIN EXECUTE s; END $$").opaque.set);
    CHECK(facts_of("DO $$ BEGIN EXECUTE format('DROP TABLE %I', (SELECT 'x')); END $$").opaque.set);
    CHECK(facts_of("DO $$ DECLARE r record; BEGIN FOR r IN EXECUTE 'DELETE FROM t RETURNING 1' "
                   "LOOP END LOOP; END $$")
              .unbounded.set);
    CHECK(facts_of("DO $$ DECLARE c refcursor; BEGIN OPEN c FOR EXECUTE 'SELECT f()'; END $$")
              .opaque.set);
    CHECK(facts_of("DO $$ BEGIN EXECUTE 'SELECT ('; END $$").opaque.set);
}

TEST_CASE("calls in a body make it opaque") {
    CHECK(facts_of("DO $$ BEGIN PERFORM purge(); END $$").opaque.set);
    CHECK(facts_of("DO $$ DECLARE v int := purge(); BEGIN END $$").opaque.set);
    CHECK(facts_of("DO $$ DECLARE v int; BEGIN v := purge(); END $$").opaque.set);
    CHECK(facts_of("DO $$ BEGIN IF purge() THEN NULL; END IF; END $$").opaque.set);
    CHECK(facts_of("DO $$ BEGIN CALL p(); END $$").opaque.set);
    CHECK(facts_of("DO $$ DECLARE c CURSOR FOR SELECT purge(); BEGIN OPEN c; END $$").opaque.set);
    CHECK(facts_of("DO LANGUAGE plpython3u 'x'").opaque.set);
    CHECK(facts_of("DO LANGUAGE plpython3u 'x'").dangerous.set);
}

TEST_CASE("a body that cannot be read is opaque, and never the end of the process") {
    for (const char* sql : {"DO 'x'", "DO ''", "DO $$ BEGIN $$", "DO $$ BEGIN SELECT ( ; END $$",
                            "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'x'",
                            "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql",
                            "CREATE FUNCTION f() RETURNS int AS 'BEGIN END'",
                            "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'a', 'b'",
                            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT ('",
                            "CREATE FUNCTION f() RETURNS int LANGUAGE sql",
                            "CREATE FUNCTION f() RETURNS nothing.at_all LANGUAGE plpgsql AS $$ "
                            "DECLARE a x.y%type; BEGIN $$",
                            "DO $$ DECLARE a a%rowtype; b b.c%type[]; BEGIN #option END $$"}) {
        INFO(sql);
        const StatementFacts facts = facts_of(sql);
        CHECK((facts.opaque.set || facts.unparsable.set));
    }
}

TEST_CASE("a body with backslashes is not guessed at while standard_conforming_strings is off") {
    LexicalSettings off;
    off.standard_conforming_strings = StandardConformingStrings::off;
    const std::string sql = "DO $$ BEGIN PERFORM '\\'; DELETE FROM t; --'\n END $$";
    CHECK(facts_of(sql).unbounded.set);
    CHECK(facts_of(sql, off).opaque.set);
    CHECK_FALSE(facts_of("DO $$ BEGIN PERFORM 'a'; END $$", off).opaque.set);
    CHECK(facts_of("DO 'BEGIN DELETE FROM t WHERE a = \\'x\\'; END'", off).unbounded.set == false);
}

TEST_CASE("SQL in literals is followed only so deep") {
    std::string sql = "SELECT 1";
    for (int i = 0; i < 12; ++i) {
        std::string quoted;
        for (const char c : sql) {
            quoted += c == '\'' ? "''" : std::string(1, c);
        }
        if (quoted.size() > 100'000) {
            break;
        }
        sql = "SELECT query_to_xml('" + quoted + "', true, true, '')";
    }
    CHECK(facts_of(sql).opaque.set);
}

}  // namespace pgchaperone::policy
