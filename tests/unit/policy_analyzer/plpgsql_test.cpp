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
    for (const char* sql :
         {"DO 'x'", "DO ''", "DO $$ BEGIN $$", "DO $$ BEGIN SELECT ( ; END $$",
          "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'x'",
          "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql",
          "CREATE FUNCTION f() RETURNS int AS 'BEGIN END'",
          "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'a', 'b'",
          "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT ('",
          "CREATE FUNCTION f() RETURNS int LANGUAGE sql",
          "CREATE FUNCTION f() RETURNS nothing.at_all LANGUAGE plpgsql AS $$ "
          "DECLARE a x.y%type; BEGIN $$",
          "DO $$ DECLARE a a%rowtype; b b.c%type[]; BEGIN #option END $$", "DO LANGUAGE plpgsql",
          "DO LANGUAGE sql", "DO LANGUAGE plperlu", "DO LANGUAGE plpgsql LANGUAGE plpgsql"}) {
        INFO(sql);
        const StatementFacts facts = facts_of(sql);
        CHECK((facts.opaque.set || facts.unparsable.set));
    }
    CHECK(facts_of("DO LANGUAGE plpgsql").opaque.reason == "runs code that is not here");
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

TEST_CASE("EXECUTE of a variable is judged by the texts that it can hold") {
    all_unbounded({
        "DO $$ DECLARE s text := 'DELETE FROM orders'; BEGIN EXECUTE s; END $$",
        "DO $$ DECLARE s text; BEGIN s := 'DELETE FROM '; s := s || 'orders'; EXECUTE s; END $$",
        "DO $$ DECLARE t text := 'orders'; BEGIN EXECUTE format('DELETE FROM %I', t); END $$",
        "DO $$ DECLARE t text := 'orders'; s text; BEGIN s := format('TRUNCATE %I', t); EXECUTE s; "
        "END $$",
        "DO $$ DECLARE s text; BEGIN IF now() > '2020-01-01' THEN s := 'DELETE FROM orders'; ELSE "
        "s := 'SELECT 1'; END IF; EXECUTE s; END $$",
        "DO $$ DECLARE t text; BEGIN FOREACH t IN ARRAY ARRAY['orders','customers'] LOOP EXECUTE "
        "'DELETE FROM ' || quote_ident(t); END LOOP; END $$",
        "DO $$ DECLARE s text; BEGIN s := 'DELETE FROM orders'; FOR i IN 1..1 LOOP EXECUTE s; END "
        "LOOP; END $$",
        "DO $$ DECLARE s constant text := 'DELETE' || ' FROM orders'; BEGIN PERFORM 1; EXECUTE s; "
        "END $$",
        "DO $$ DECLARE s text; BEGIN SELECT 'DELETE FROM orders' INTO s; EXECUTE s; END $$",
        "DO $$ DECLARE a text := 'DELETE FROM '; b text := 'orders'; BEGIN EXECUTE a || b; END $$",
        "DO $$ DECLARE a text := 'DELETE FROM '; b text := 'orders'; BEGIN EXECUTE concat(a, b); "
        "END $$",
        "CREATE FUNCTION p() RETURNS void LANGUAGE plpgsql AS $$ DECLARE s text := 'DELETE FROM "
        "orders'; BEGIN EXECUTE s; END $$",
    });
    for (const char* sql : {
             "DO $$ DECLARE s text := 'DELETE FROM orders WHERE id = 5'; BEGIN EXECUTE s; END $$",
             "DO $$ DECLARE s text := 'SELECT 1'; BEGIN s := 'SELECT 2'; EXECUTE s; END $$",
         }) {
        INFO(sql);
        const StatementFacts facts = facts_of(sql);
        CHECK_FALSE(facts.opaque.set);
        CHECK_FALSE(facts.unbounded.set);
    }
}

TEST_CASE("EXECUTE of a variable is opaque where anything else may stand in it") {
    for (const char* sql :
         {"DO $$ DECLARE s text := 'SELECT 1'; BEGIN s := f(); EXECUTE s; END $$",
          "DO $$ DECLARE s text := 'SELECT 1'; BEGIN SELECT note INTO s FROM orders; EXECUTE s; "
          "END $$",
          "DO $$ DECLARE s text := 'SELECT 1'; BEGIN EXECUTE 'SELECT 2' INTO s; EXECUTE s; END $$",
          "DO $$ DECLARE s text := 'SELECT 1'; BEGIN GET DIAGNOSTICS s = ROW_COUNT; EXECUTE s; END "
          "$$",
          "DO $$ DECLARE s text := 'SELECT 1'; BEGIN FOR i IN 1..3 LOOP EXECUTE s; s := s || '; ' "
          "|| "
          "s; END LOOP; END $$",
          "DO $$ DECLARE s text := 'SELECT 1'; BEGIN FOR s IN SELECT note FROM orders LOOP EXECUTE "
          "s; "
          "END LOOP; END $$",
          "DO $$ DECLARE s text := 'SELECT 1'; BEGIN IF now() > '2020-01-01' THEN s := $1; END IF; "
          "EXECUTE s; END $$",
          "DO $$ DECLARE s text := 'SELECT 1'; BEGIN BEGIN s := f(); EXCEPTION WHEN OTHERS THEN "
          "NULL; "
          "END; EXECUTE s; END $$",
          "DO $$ DECLARE s text := 'SELECT 1'; BEGIN DECLARE s text := f(); BEGIN EXECUTE s; END; "
          "END "
          "$$",
          "DO $$ DECLARE s text := 'SELECT 1'; BEGIN CASE 1 WHEN 1 THEN s := f(); END CASE; "
          "EXECUTE "
          "s; END $$",
          "DO $$ DECLARE s text := 'SELECT 1'; c refcursor; BEGIN OPEN c FOR SELECT note FROM "
          "orders; "
          "FETCH c INTO s; EXECUTE s; END $$",
          "DO $$ DECLARE s text := 'SELECT 1'; BEGIN CALL p(s); EXECUTE s; END $$",
          "CREATE FUNCTION f(s text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE s; END $$",
          "CREATE FUNCTION f(text) RETURNS SETOF orders LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY "
          "EXECUTE $1; END $$"}) {
        INFO(sql);
        CHECK(facts_of(sql).opaque.set);
    }
}

TEST_CASE("a loop over all rows of a table that writes each of them is unbounded") {
    all_unbounded({
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM orders LOOP DELETE FROM orders WHERE "
        "id = r.id; END LOOP; END $$",
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT id FROM orders ORDER BY id LOOP UPDATE "
        "orders SET note = 'x' WHERE orders.id = r.id; END LOOP; END $$",
        "DO $$ DECLARE n int; BEGIN FOR n IN SELECT id FROM orders LOOP DELETE FROM orders WHERE "
        "id = n; END LOOP; END $$",
        "DO $$ DECLARE n int; ids int[]; BEGIN SELECT array_agg(id) INTO ids FROM orders; FOREACH "
        "n IN ARRAY ids LOOP DELETE FROM orders WHERE id = n; END LOOP; END $$",
        "DO $$ DECLARE n int; ids int[] := ARRAY(SELECT id FROM orders); BEGIN FOREACH n IN ARRAY "
        "ids LOOP DELETE FROM orders WHERE id = n; END LOOP; END $$",
        "DO $$ DECLARE n int; BEGIN FOREACH n IN ARRAY (SELECT array_agg(id) FROM orders) LOOP "
        "DELETE FROM orders WHERE id = n; END LOOP; END $$",
        "DO $$ DECLARE n int; BEGIN FOREACH n IN ARRAY ARRAY(SELECT id FROM orders) LOOP DELETE "
        "FROM orders WHERE id = n; END LOOP; END $$",
        "DO $$ DECLARE ids int[]; BEGIN SELECT array_agg(id) INTO ids FROM orders; DELETE FROM "
        "orders WHERE id = ANY(ids); END $$",
        "DO $$ DECLARE ids int[]; BEGIN ids := ARRAY(SELECT id FROM orders); DELETE FROM orders "
        "WHERE id = ANY(ids); END $$",
        "DO $$ DECLARE c CURSOR FOR SELECT * FROM orders; r record; BEGIN OPEN c; LOOP FETCH c "
        "INTO r; EXIT WHEN NOT FOUND; DELETE FROM orders WHERE CURRENT OF c; END LOOP; END $$",
        "DO $$ DECLARE c CURSOR FOR SELECT * FROM orders; BEGIN FOR r IN c LOOP DELETE FROM orders "
        "WHERE CURRENT OF c; END LOOP; END $$",
        "DO $$ DECLARE c CURSOR FOR SELECT * FROM orders; BEGIN FOR r IN c LOOP DELETE FROM orders "
        "WHERE id = r.id; END LOOP; END $$",
        "DO $$ DECLARE c refcursor; r record; BEGIN OPEN c FOR SELECT * FROM orders; FETCH c INTO "
        "r; WHILE FOUND LOOP DELETE FROM orders WHERE id = r.id; FETCH c INTO r; END LOOP; END $$",
        "DO $$ DECLARE c refcursor; r record; BEGIN OPEN c FOR SELECT * FROM orders; LOOP FETCH c "
        "INTO r; EXIT WHEN r IS NULL; UPDATE orders SET note = 'x' WHERE CURRENT OF c; END LOOP; "
        "END $$",
        "DO $$ DECLARE c refcursor; n int; BEGIN OPEN c FOR EXECUTE 'SELECT id FROM orders'; LOOP "
        "FETCH c INTO n; IF NOT FOUND THEN EXIT; END IF; DELETE FROM orders WHERE id = n; END "
        "LOOP; END $$",
        "DO $$ DECLARE r record; BEGIN FOR r IN EXECUTE 'SELECT * FROM orders' LOOP DELETE FROM "
        "orders WHERE id = r.id; END LOOP; END $$",
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM orders LOOP EXECUTE 'DELETE FROM "
        "orders WHERE id = $1' USING r.id; END LOOP; END $$",
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM orders WHERE id = id LOOP IF r.id IS "
        "NOT NULL THEN DELETE FROM orders WHERE id = r.id; END IF; END LOOP; END $$",
        "DO $$ BEGIN FOR i IN 1..(SELECT max(id) FROM orders) LOOP DELETE FROM orders WHERE id = "
        "i; END LOOP; END $$",
        "DO $$ DECLARE m int; BEGIN SELECT max(id) INTO m FROM orders; FOR i IN 0..m LOOP DELETE "
        "FROM orders WHERE id = i; END LOOP; END $$",
        "DO $$ DECLARE a int; b int; BEGIN SELECT min(id), max(id) INTO a, b FROM orders; DELETE "
        "FROM orders WHERE id BETWEEN a AND b; END $$",
        "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN FOR r IN SELECT * "
        "FROM orders LOOP DELETE FROM orders WHERE id = r.id; END LOOP; END $$",
        "DO $$ DECLARE r orders; BEGIN FOR r IN SELECT * FROM orders LOOP DELETE FROM orders o "
        "WHERE o = r; END LOOP; END $$",
        "DO $$ DECLARE a int; b text; BEGIN FOR a, b IN SELECT id, note FROM orders LOOP DELETE "
        "FROM orders WHERE id = a; END LOOP; END $$",
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT o.id FROM orders o LEFT JOIN customers c ON "
        "c.id = o.customer_id LOOP DELETE FROM orders WHERE id = r.id; END LOOP; END $$",
        "DO $$ DECLARE r record; BEGIN FOR r IN DELETE FROM orders RETURNING id LOOP NULL; END "
        "LOOP; END $$",
        "DO $$ DECLARE r record; x int; BEGIN FOR r IN SELECT * FROM orders LOOP x := r.id; DELETE "
        "FROM orders WHERE id = x; END LOOP; END $$",
    });
    all_bounded({
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM orders WHERE state = 'old' LOOP "
        "DELETE FROM orders WHERE id = r.id; END LOOP; END $$",
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM customers LOOP UPDATE orders SET "
        "total = 0 WHERE customer_id = r.id; END LOOP; END $$",
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM orders LOOP IF r.state = 'old' THEN "
        "DELETE FROM orders WHERE id = r.id; END IF; END LOOP; END $$",
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM orders LOOP CONTINUE WHEN r.state <> "
        "'old'; DELETE FROM orders WHERE id = r.id; END LOOP; END $$",
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM orders LIMIT 10 LOOP DELETE FROM "
        "orders WHERE id = r.id; END LOOP; END $$",
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM orders LOOP DELETE FROM order_lines "
        "WHERE order_id = r.id AND qty = 0; END LOOP; END $$",
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM orders LOOP DELETE FROM orders WHERE "
        "id = r.id AND state = 'x'; END LOOP; END $$",
        "DO $$ DECLARE n int; BEGIN SELECT id INTO n FROM orders WHERE state = 'x' LIMIT 1; DELETE "
        "FROM orders WHERE id = n; END $$",
        "DO $$ DECLARE n int; BEGIN SELECT max(id) INTO n FROM orders; DELETE FROM orders WHERE id "
        "= n; END $$",
        "DO $$ DECLARE n int; BEGIN n := (SELECT max(id) FROM orders); UPDATE orders SET note = "
        "'last' WHERE id = n; END $$",
        "DO $$ DECLARE n int; BEGIN LOOP DELETE FROM orders WHERE id IN (SELECT id FROM orders "
        "WHERE at < now() - interval '90 days' LIMIT 1000); GET DIAGNOSTICS n = ROW_COUNT; EXIT "
        "WHEN n = 0; END LOOP; END $$",
        "DO $$ DECLARE ids int[]; BEGIN SELECT array_agg(id) INTO ids FROM orders WHERE state = "
        "'x'; DELETE FROM orders WHERE id = ANY(ids); END $$",
        "DO $$ DECLARE ids int[] := ARRAY[1,2,3]; n int; BEGIN FOREACH n IN ARRAY ids LOOP DELETE "
        "FROM orders WHERE id = n; END LOOP; END $$",
        "DO $$ BEGIN FOR i IN 1..10 LOOP DELETE FROM orders WHERE id = i; END LOOP; END $$",
        "DO $$ DECLARE c CURSOR FOR SELECT * FROM orders WHERE state = 'x' FOR UPDATE; r record; "
        "BEGIN OPEN c; LOOP FETCH c INTO r; EXIT WHEN NOT FOUND; UPDATE orders SET state = 'y' "
        "WHERE CURRENT OF c; END LOOP; END $$",
        "DO $$ DECLARE c CURSOR FOR SELECT * FROM orders; r record; BEGIN OPEN c; FETCH c INTO r; "
        "DELETE FROM orders WHERE CURRENT OF c; END $$",
        "DO $$ DECLARE s text; BEGIN FOR s IN SELECT table_name FROM information_schema.tables "
        "LOOP RAISE NOTICE '%', s; END LOOP; END $$",
    });
}

TEST_CASE("a loop that skips nothing that exists still sees every row") {
    for (const char* skip : {"CONTINUE WHEN r.id IS NULL", "CONTINUE WHEN false",
                             "IF r.id = r.id THEN NULL; END IF", "EXIT WHEN NOT FOUND"}) {
        const std::string
            sql = "DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM orders LOOP " +
                  std::string(skip) + "; DELETE FROM orders WHERE id = r.id; END LOOP; END $$";
        all_unbounded({sql.c_str()});
    }
    for (const char* skip : {"CONTINUE WHEN r.state = 'new'", "EXIT WHEN r.id > 100",
                             "IF r.state = 'new' THEN CONTINUE; END IF"}) {
        const std::string
            sql = "DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM orders LOOP " +
                  std::string(skip) + "; DELETE FROM orders WHERE id = r.id; END LOOP; END $$";
        all_bounded({sql.c_str()});
    }
}

TEST_CASE("batches that go on until nothing is left are unbounded") {
    all_unbounded({
        "DO $$ DECLARE n int; BEGIN LOOP SELECT id INTO n FROM orders LIMIT 1; EXIT WHEN NOT "
        "FOUND; DELETE FROM orders WHERE id = n; END LOOP; END $$",
        "DO $$ DECLARE n int; BEGIN LOOP SELECT min(id) INTO n FROM orders; EXIT WHEN n IS NULL; "
        "DELETE FROM orders WHERE id = n; END LOOP; END $$",
        "DO $$ BEGIN LOOP DELETE FROM orders WHERE id IN (SELECT id FROM orders LIMIT 100); EXIT "
        "WHEN NOT FOUND; END LOOP; END $$",
        "DO $$ DECLARE n int := 1; BEGIN WHILE n > 0 LOOP DELETE FROM orders WHERE ctid = "
        "ANY(ARRAY(SELECT ctid FROM orders LIMIT 100)); GET DIAGNOSTICS n = ROW_COUNT; END LOOP; "
        "END $$",
        "DO $$ BEGIN WHILE EXISTS (SELECT 1 FROM orders) LOOP DELETE FROM orders WHERE id = "
        "(SELECT min(id) FROM orders); END LOOP; END $$",
    });
    all_bounded({
        "DO $$ BEGIN FOR i IN 1..3 LOOP DELETE FROM orders WHERE id IN (SELECT id FROM orders "
        "LIMIT "
        "10); END LOOP; END $$",
        "DO $$ DECLARE i int := 0; BEGIN WHILE i < 3 LOOP DELETE FROM orders WHERE id IN (SELECT "
        "id "
        "FROM orders LIMIT 10); i := i + 1; END LOOP; END $$",
        "DO $$ DECLARE i int := 0; BEGIN LOOP DELETE FROM orders WHERE id IN (SELECT id FROM "
        "orders "
        "LIMIT 10); i := i + 1; EXIT WHEN i > 3; END LOOP; END $$",
    });
}

TEST_CASE("bodies that could be read in ever more ways are read in bounded time") {
    // Each level runs one of several texts, all of which run one of several texts ...
    std::string sql = "DELETE FROM t WHERE id = 1";
    for (int level = 0; level < 6; ++level) {
        const std::string mark = "$l" + std::to_string(level) + "$";
        sql = "DO " + mark +
              " DECLARE a text; BEGIN FOREACH a IN ARRAY ARRAY['1','2','3','4','5','6'] LOOP " +
              "EXECUTE '/*' || a || '*/' || $q" + mark.substr(1) + sql + "$q" + mark.substr(1) +
              "; END LOOP; END " + mark;
    }
    CHECK(facts_of(sql).opaque.set);

    const auto loops = [](std::size_t levels) {
        std::string body = "DO $$ DECLARE s text := '" + std::string(20'000, 'x') + "'; BEGIN ";
        for (std::size_t level = 0; level < levels; ++level) {
            body += "LOOP EXIT WHEN s = 'a'; IF s = 'b' THEN NULL; END IF; ";
        }
        body += "DELETE FROM t; ";
        for (std::size_t level = 0; level < levels; ++level) {
            body += "END LOOP; ";
        }
        return body + "END $$";
    };
    CHECK(facts_of(loops(90)).unbounded.set);
    for (const std::size_t levels : {200U, 1'000U, 3'000U}) {
        CHECK(facts_of(loops(levels)).opaque.set);
    }
}

TEST_CASE("a name that blocks may have given too often is not known whole") {
    const auto executed = [](std::size_t times) {
        std::string sql;
        for (std::size_t i = 0; i < times; ++i) {
            sql += "DO $$ BEGIN EXECUTE 'PREPARE p AS SELECT " + std::to_string(i) + "'; END $$; ";
        }
        return analyze(sql + "EXECUTE p")->statements.back();
    };
    CHECK_FALSE(executed(8).unparsable);
    CHECK(executed(9).unparsable);
    CHECK(executed(30).unparsable);
}

}  // namespace pgchaperone::policy
