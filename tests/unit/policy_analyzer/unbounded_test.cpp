#include "analyze.h"

namespace pgchaperone::policy {

TEST_CASE("a write without a WHERE is unbounded, however it is spelled") {
    all_unbounded({
        "UPDATE t SET a = 1",
        "DELETE FROM t",
        "DELETE FROM ONLY t",
        "delete/**/from public.t as x returning *",
        "UPDATE t SET a = (id = 42)",
        "UPDATE t SET a = (SELECT 1 WHERE false)",
        "DELETE FROM t RETURNING (SELECT 1 WHERE false)",
        "TRUNCATE t",
        "TRUNCATE a, b CASCADE",
        "TRUNCATE ONLY a RESTART IDENTITY",
    });
}

TEST_CASE("a WHERE that is constant once folded is no bound") {
    all_unbounded({
        "DELETE FROM t WHERE true",
        "DELETE FROM t WHERE 1 = 1",
        "DELETE FROM t WHERE 'a' = 'a'",
        "DELETE FROM t WHERE NOT false",
        "DELETE FROM t WHERE NOT NOT true",
        "DELETE FROM t WHERE 't'",
        "DELETE FROM t WHERE 'yes'::boolean",
        "DELETE FROM t WHERE CAST('on' AS bool)",
        "DELETE FROM t WHERE 1::bool",
        "DELETE FROM t WHERE 1 IN (1, 2)",
        "DELETE FROM t WHERE 3 NOT IN (1, 2)",
        "DELETE FROM t WHERE 5 BETWEEN 1 AND 10",
        "DELETE FROM t WHERE 5 BETWEEN SYMMETRIC 10 AND 1",
        "DELETE FROM t WHERE 5 NOT BETWEEN 10 AND 20",
        "DELETE FROM t WHERE NULL IS NULL",
        "DELETE FROM t WHERE 1 IS NOT NULL",
        "DELETE FROM t WHERE true IS TRUE",
        "DELETE FROM t WHERE false IS NOT TRUE",
        "DELETE FROM t WHERE NULL::boolean IS NOT TRUE",
        "DELETE FROM t WHERE NULL::boolean IS UNKNOWN",
        "DELETE FROM t WHERE COALESCE(NULL, true)",
        "DELETE FROM t WHERE COALESCE(NULL::int, 1) = 1",
        "DELETE FROM t WHERE CASE WHEN true THEN true ELSE false END",
        "DELETE FROM t WHERE CASE 1 WHEN 2 THEN false ELSE true END",
        "DELETE FROM t WHERE NULLIF(1, 2) = 1",
        "DELETE FROM t WHERE 1 IS DISTINCT FROM 2",
        "DELETE FROM t WHERE 1 IS DISTINCT FROM NULL",
        "DELETE FROM t WHERE NULL IS NOT DISTINCT FROM NULL",
        "DELETE FROM t WHERE 1 = ANY (ARRAY[1])",
        "DELETE FROM t WHERE 1 <> ALL ('{2,3}')",
        "DELETE FROM t WHERE 'abc' LIKE 'a%'",
        "DELETE FROM t WHERE 'abc' ~ '.*'",
        "DELETE FROM t WHERE '{\"a\":1}'::jsonb ? 'a'",
        "DELETE FROM t WHERE date '2024-01-01' + 1 > date '2024-01-01'",
        "DELETE FROM t WHERE (1, 2) = (1, 2)",
        "DELETE FROM t WHERE (1, 2) < (2, 0)",
        "DELETE FROM t WHERE 1 + 1 = 2",
        "DELETE FROM t WHERE U&'\\0061' = 'a'",
        "DELETE FROM t WHERE current_user = current_user",
        "DELETE FROM t WHERE pg_backend_pid() > 0",
        "DELETE FROM t WHERE now() > '2000-01-01'",
        "DELETE FROM t WHERE random() < 2",
        "DELETE FROM t WHERE xmlelement(name a) IS DOCUMENT OR true",
        "DELETE FROM t WHERE EXISTS (SELECT 1)",
        "DELETE FROM t WHERE EXISTS (SELECT)",
        "DELETE FROM t WHERE EXISTS (VALUES (1))",
        "DELETE FROM t WHERE NOT EXISTS (SELECT 1 WHERE false)",
        "DELETE FROM t WHERE (SELECT true)",
        "DELETE FROM t WHERE (VALUES (true))",
        "DELETE FROM t WHERE 1 = (SELECT 1)",
        "DELETE FROM t WHERE $1",
        "DELETE FROM t WHERE $1 = $2",
        "DELETE FROM t WHERE $1 = 1 AND $2",
        "DELETE FROM t WHERE true COLLATE \"C\"",
    });
}

TEST_CASE("a WHERE that is false or null touches nothing") {
    all_bounded({
        "DELETE FROM t WHERE false",
        "DELETE FROM t WHERE 1 = 0",
        "DELETE FROM t WHERE NULL",
        "DELETE FROM t WHERE NOT true",
        "DELETE FROM t WHERE id <> id",
        "DELETE FROM t WHERE id = NULL",
        "DELETE FROM t WHERE 1 = 2 AND true",
        "DELETE FROM t WHERE EXISTS (SELECT 1 WHERE false)",
        "DELETE FROM t WHERE id IN (SELECT 1 WHERE false)",
        "DELETE FROM t WHERE NOT (id = id)",
        "DELETE FROM t WHERE name NOT LIKE '%'",
    });
}

TEST_CASE("a WHERE that compares the row only with itself is no bound") {
    all_unbounded({
        "DELETE FROM t WHERE id = id",
        "DELETE FROM t WHERE id = t.id",
        "DELETE FROM t x WHERE id = x.id",
        "DELETE FROM public.t WHERE public.t.id = id",
        "DELETE FROM t WHERE id >= id",
        "DELETE FROM t WHERE NOT (id <> id)",
        "DELETE FROM t WHERE NOT (id < id)",
        "DELETE FROM t WHERE id IS NOT DISTINCT FROM id",
        "DELETE FROM t WHERE (id, total) = (id, total)",
        "DELETE FROM t WHERE ROW(id) = ROW(id)",
        "DELETE FROM t WHERE id BETWEEN id AND id",
        "DELETE FROM t WHERE id IN (id, 5)",
        "DELETE FROM t WHERE id = ANY (ARRAY[id, 5])",
        "DELETE FROM t WHERE (id = 1) = (id = 1)",
        "DELETE FROM t WHERE (id = id) IS TRUE",
        "DELETE FROM t WHERE (id = id)::int = 1",
        "DELETE FROM t WHERE (id = id) = true",
        "DELETE FROM t WHERE (id <> id) IS NOT TRUE",
        "DELETE FROM t WHERE greatest(id, 0) = greatest(0, id)",
        "DELETE FROM t WHERE id - id = 0",
        "DELETE FROM t WHERE id * 0 = 0",
        "DELETE FROM t WHERE id % 1 = 0",
        "DELETE FROM t WHERE id = id + 0",
        "DELETE FROM t WHERE created_at <= updated_at",
        "DELETE FROM t WHERE id = (SELECT id)",
        "DELETE FROM t WHERE id IN (SELECT t.id FROM s)",
        "DELETE FROM t WHERE COALESCE(id = id, true)",
        "DELETE FROM t WHERE id = COALESCE($1, id)",
        "DELETE FROM t WHERE id = CASE WHEN $1 THEN $2 ELSE id END",
        "DELETE FROM t WHERE int4eq(id, id)",
        "DELETE FROM t WHERE t = t",
        "DELETE FROM t WHERE CASE WHEN id > 0 THEN 1 ELSE 1 END = 1",
        "DELETE FROM t WHERE CASE id WHEN 1 THEN 'a' ELSE 'a' END = 'a'",
        "DELETE FROM t WHERE tags && tags",
    });
}

TEST_CASE("to ask only for values that are not null is no bound, to ask for null is one") {
    all_unbounded({
        "DELETE FROM t WHERE id IS NOT NULL",
        "DELETE FROM t WHERE id NOTNULL",
        "DELETE FROM t WHERE NOT id IS NULL",
        "DELETE FROM t WHERE (id IS NULL) = false",
        "DELETE FROM t WHERE id IS DISTINCT FROM NULL",
        "DELETE FROM t WHERE t.* IS NOT NULL",
        "DELETE FROM t WHERE t IS NOT NULL",
        "DELETE FROM t WHERE ctid IS NOT NULL",
        "DELETE FROM t WHERE (id = 1) IS NOT NULL",
        "DELETE FROM t WHERE (id > 0) IS NOT UNKNOWN",
        "DELETE FROM t WHERE NOT (id = NULL)",
    });
    all_bounded({
        "DELETE FROM t WHERE note IS NULL",
        "DELETE FROM t WHERE note ISNULL",
        "DELETE FROM t WHERE note IS NOT DISTINCT FROM NULL",
    });
}

TEST_CASE("conditions that every value meets are no bound") {
    all_unbounded({
        "DELETE FROM t WHERE name LIKE '%'",
        "DELETE FROM t WHERE name ILIKE '%%'",
        "DELETE FROM t WHERE name ~~ '%'",
        "DELETE FROM t WHERE name LIKE '%' ESCAPE 'x'",
        "DELETE FROM t WHERE NOT (name NOT LIKE '%')",
        "DELETE FROM t WHERE name SIMILAR TO '%'",
        "DELETE FROM t WHERE name ~ ''",
        "DELETE FROM t WHERE name ~* '^.*$'",
        "DELETE FROM t WHERE name ~ '.*'",
        "DELETE FROM t WHERE starts_with(name, '')",
        "DELETE FROM t WHERE name ^@ ''",
        "DELETE FROM t WHERE name >= ''",
        "DELETE FROM t WHERE at >= '-infinity'",
        "DELETE FROM t WHERE at < 'infinity'::timestamptz OR false",
        "DELETE FROM t WHERE tags @> '{}'",
        "DELETE FROM t WHERE '{}' <@ tags",
        "DELETE FROM t WHERE id >= -2147483648",
        "DELETE FROM t WHERE id <= 9223372036854775807",
        "DELETE FROM t WHERE length(name) >= 0",
        "DELETE FROM t WHERE abs(id) > -1",
        "DELETE FROM t WHERE 0 <= octet_length(name)",
        "DELETE FROM t WHERE id <> ALL (ARRAY[]::int[])",
        "DELETE FROM t WHERE id <> ALL ('{}')",
        "DELETE FROM t WHERE id::text ~ '\\d*'",
        "DELETE FROM t WHERE ctid >= '(0,0)'",
        "DELETE FROM t WHERE id <@ '(,)'::int4range",
        "DELETE FROM t WHERE is_deleted >= false",
        "DELETE FROM t WHERE true >= is_deleted",
        "DELETE FROM t WHERE pg_typeof(id)::text = 'integer'",
        "DELETE FROM t WHERE tableoid = 't'::regclass",
    });
}

TEST_CASE("alternatives that leave no row out are no bound") {
    all_unbounded({
        "DELETE FROM t WHERE id = 5 OR true",
        "DELETE FROM t WHERE id > 0 OR 1 = 1",
        "DELETE FROM t WHERE id = 5 OR id = id",
        "DELETE FROM t WHERE is_deleted OR NOT is_deleted",
        "DELETE FROM t WHERE is_deleted IN (true, false)",
        "DELETE FROM t WHERE is_deleted = true OR is_deleted = false",
        "DELETE FROM t WHERE is_deleted IS TRUE OR is_deleted IS FALSE",
        "DELETE FROM t WHERE id < 5 OR id >= 5",
        "DELETE FROM t WHERE id <> 1 OR id <> 2",
        "DELETE FROM t WHERE id = 1 OR id <> 1",
        "DELETE FROM t WHERE NOT (id < 5 AND id > 7)",
        "DELETE FROM t WHERE id <= 5 OR (id > 3 OR id = 9)",
        "DELETE FROM t WHERE 5 > id OR id > 4",
        "DELETE FROM t WHERE name LIKE 'a%' OR NOT name LIKE 'a%'",
        "DELETE FROM t WHERE id <> ANY ('{1,2}')",
        "DELETE FROM t WHERE id = 1 OR $1 IS NULL",
        "DELETE FROM t WHERE COALESCE(id = $1, true)",
        "DELETE FROM t WHERE CASE WHEN id = 1 THEN true ELSE true END",
        "DELETE FROM t WHERE note IS NULL OR note IS NOT NULL",
    });
    all_bounded({
        "DELETE FROM t WHERE id = 5 OR id = 6",
        "DELETE FROM t WHERE id < 5 OR id > 5",
        "DELETE FROM t WHERE id = 5 OR false",
        "DELETE FROM t WHERE (id = 5 OR 1 = 1) AND id < 9",
        "DELETE FROM t WHERE state IN ('a', 'b')",
        "DELETE FROM t WHERE CASE WHEN id = 1 THEN true END",
        "DELETE FROM t WHERE COALESCE(id = $1, false)",
        "DELETE FROM t WHERE NOT (id < 5 OR id > 7)",
    });
}

TEST_CASE("a column compared with something that is not the row is a bound") {
    all_bounded({
        "DELETE FROM t WHERE id = 42",
        "DELETE FROM t WHERE 42 = id",
        "DELETE FROM t WHERE t.id = $1",
        "DELETE FROM t x WHERE x.id = $1 AND 1 = 1",
        "UPDATE t SET a = 1 WHERE (1 = 1) AND id = 5",
        "DELETE FROM t WHERE id IN (1, 2, 3)",
        "DELETE FROM t WHERE id NOT IN (1, 2, 3)",
        "DELETE FROM t WHERE id = ANY ($1)",
        "DELETE FROM t WHERE id = ANY ('{1,2}'::int[])",
        "DELETE FROM t WHERE id BETWEEN 1 AND 5",
        "DELETE FROM t WHERE (a, b) = (1, 2)",
        "DELETE FROM t WHERE (a, b) IN ((1, 2), (3, 4))",
        "DELETE FROM t WHERE (a, b) > ($1, $2)",
        "DELETE FROM t WHERE name LIKE 'a%'",
        "DELETE FROM t WHERE name ~ '^a'",
        "DELETE FROM t WHERE at < now() - interval '90 days'",
        "DELETE FROM t WHERE at < clock_timestamp() - interval '90 days'",
        "DELETE FROM t WHERE owner = current_user",
        "DELETE FROM t WHERE id = currval('t_id_seq')",
        "DELETE FROM t WHERE is_deleted",
        "DELETE FROM t WHERE NOT is_deleted",
        "DELETE FROM t WHERE is_deleted IS TRUE",
        "DELETE FROM t WHERE tags @> '{vip}'",
        "DELETE FROM t WHERE details->>'a' = 'b'",
        "DELETE FROM t WHERE ctid = '(0,1)'",
        "DELETE FROM t WHERE CURRENT OF c",
        "DELETE FROM t WHERE lower(name) = lower($1)",
        "DELETE FROM t WHERE id = COALESCE($1, id) AND id < 10",
        "DELETE FROM t WHERE isempty(valid)",
        "DELETE FROM t WHERE CASE WHEN id > 0 THEN 1 ELSE 2 END = 1",
        "DELETE FROM t WHERE is_deleted >= true",
        "UPDATE t SET a = a + 1 WHERE id = $1 AND version = $2",
    });
}

TEST_CASE("volatile functions never count as a bound") {
    all_unbounded({
        "DELETE FROM t WHERE id > random()",
        "DELETE FROM t WHERE random() > id",
        "DELETE FROM t WHERE id::text <> gen_random_uuid()::text",
    });
}

TEST_CASE("a subquery bounds by what ties the row to it") {
    all_unbounded({
        "DELETE FROM t WHERE id IN (SELECT id FROM t)",
        "DELETE FROM public.t WHERE id IN (SELECT id FROM t)",
        "DELETE FROM t WHERE id IN (SELECT id FROM t x WHERE x.id = x.id)",
        "DELETE FROM t WHERE id = ANY (SELECT id FROM t)",
        "DELETE FROM t WHERE id = ANY (ARRAY(SELECT id FROM t))",
        "DELETE FROM t WHERE id IN (SELECT id FROM (SELECT id FROM t) x)",
        "DELETE FROM t WHERE id IN (SELECT id FROM t UNION SELECT 5)",
        "DELETE FROM t WHERE id IN (SELECT id FROM t LIMIT ALL)",
        "DELETE FROM t WHERE id IN (SELECT id FROM t OFFSET 1)",
        "DELETE FROM t WHERE id IN (SELECT id FROM t LIMIT (SELECT count(*) FROM t))",
        "DELETE FROM t WHERE id IN (SELECT x.id FROM t x JOIN s ON true)",
        "DELETE FROM t WHERE EXISTS (SELECT 1 FROM t x WHERE x.id = t.id)",
        "DELETE FROM t WHERE EXISTS (SELECT 1 FROM t x WHERE x.id = 1)",
        "DELETE FROM t WHERE EXISTS (SELECT 1 FROM s WHERE s.city = 'Oslo')",
        "DELETE FROM t WHERE EXISTS (SELECT 1 FROM s WHERE city = 'Oslo')",
        "DELETE FROM t WHERE EXISTS (SELECT count(*) FROM s WHERE s.t = t.id)",
        "DELETE FROM t WHERE NOT EXISTS (SELECT 1 FROM s WHERE false AND s.id = t.id)",
        "DELETE FROM t WHERE id >= (SELECT min(id) FROM t)",
        "DELETE FROM t WHERE id <= ALL (SELECT id FROM t)",
        "DELETE FROM t WHERE 1 IN (SELECT 1 FROM s)",
        "WITH r AS (SELECT id FROM t) DELETE FROM t WHERE id IN (SELECT id FROM r)",
        "WITH t AS (SELECT id FROM t) DELETE FROM t WHERE id IN (SELECT id FROM t)",
    });
    all_bounded({
        "DELETE FROM t WHERE id IN (SELECT t_id FROM s)",
        "DELETE FROM t WHERE id IN (SELECT id FROM t WHERE state = 'old')",
        "DELETE FROM t WHERE id IN (SELECT id FROM t ORDER BY id LIMIT 10)",
        "DELETE FROM t WHERE id IN (SELECT id FROM t LIMIT $1)",
        "DELETE FROM t WHERE ctid = ANY (ARRAY(SELECT ctid FROM t WHERE at < now() LIMIT 10))",
        "DELETE FROM t WHERE id = (SELECT max(id) FROM t)",
        "DELETE FROM t WHERE id = (SELECT id FROM t WHERE state = 'ready' LIMIT 1 FOR UPDATE SKIP "
        "LOCKED)",
        "DELETE FROM t WHERE EXISTS (SELECT 1 FROM s WHERE s.t_id = t.id)",
        "DELETE FROM t WHERE EXISTS (SELECT 1 FROM s WHERE s.t_id = id AND s.x = 5)",
        "DELETE FROM t WHERE NOT EXISTS (SELECT 1 FROM s WHERE s.t_id = t.id)",
        "DELETE FROM t WHERE EXISTS (SELECT 1 WHERE id = 5)",
        "DELETE FROM t j1 WHERE j1.id IN (SELECT j2.id FROM t j2 WHERE j2.queue = $1)",
        "WITH RECURSIVE r AS (SELECT id FROM t WHERE id = 1 UNION ALL SELECT t.id FROM t JOIN r ON "
        "t.parent = r.id) DELETE FROM t WHERE id IN (SELECT id FROM r)",
        "DELETE FROM archive.t WHERE id IN (SELECT id FROM public.t)",
    });
}

TEST_CASE("another relation bounds when a condition ties it to the target") {
    all_unbounded({
        "UPDATE t SET a = 1 FROM s",
        "DELETE FROM t USING s",
        "DELETE FROM t USING s WHERE s.id = 5",
        "UPDATE t SET a = 1 FROM s WHERE s.id = s.id",
        "UPDATE t SET a = 1 FROM s WHERE code = 'x'",
        "DELETE FROM t USING t x WHERE x.id = 42",
        "DELETE FROM t USING t x WHERE x.id = t.id",
        "DELETE FROM t a USING t b WHERE a.id < b.id AND a.name = b.name",
        "DELETE FROM t USING (SELECT id FROM t) x WHERE t.id = x.id",
        "UPDATE t SET a = 1 FROM (SELECT 1 LIMIT 1) one",
        "UPDATE t SET a = 1 FROM (VALUES (1)) v(id)",
        "UPDATE t SET a = 1 FROM s JOIN u ON s.id = u.id WHERE s.x = 5",
        "UPDATE t SET a = 1 FROM s WHERE t.id = s.id OR s.x = 5",
        "DELETE FROM t USING unnest(ARRAY(SELECT id FROM t)) u(id) WHERE t.id = u.id",
    });
    all_bounded({
        "UPDATE t SET a = s.a FROM s WHERE t.id = s.id",
        "UPDATE t SET a = v.a FROM (VALUES (1, 'a'), (2, 'b')) v(id, a) WHERE t.id = v.id",
        "UPDATE t SET a = 1 FROM s WHERE t.id = s.t_id AND s.order_id = 12",
        "DELETE FROM t USING s WHERE id = s_id",
        "DELETE FROM t USING t x WHERE x.id = t.id AND x.state = 'old'",
        "DELETE FROM t USING s WHERE t.id = 5",
        "WITH n AS (SELECT id FROM t WHERE q = $1 LIMIT $2) UPDATE t SET a = 1 FROM n WHERE t.id = "
        "n.id",
        "UPDATE t SET a = 1 FROM s JOIN u ON s.id = u.id WHERE t.id = s.id",
        "DELETE FROM t USING unnest($1::int[]) u(id) WHERE t.id = u.id",
    });
}

TEST_CASE("MERGE is judged by its join and by the conditions of its actions") {
    all_unbounded({
        "MERGE INTO t USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
        "MERGE INTO t USING s ON s.id = 5 WHEN MATCHED THEN UPDATE SET a = 1",
        "MERGE INTO t USING s ON true WHEN MATCHED AND s.x = 1 THEN UPDATE SET a = 1",
        "MERGE INTO t USING t s ON t.id = s.id WHEN MATCHED THEN DELETE",
        "MERGE INTO t USING s ON t.id = $1 OR $1 IS NULL WHEN MATCHED THEN DELETE",
        "MERGE INTO t USING s ON t.id = s.id WHEN NOT MATCHED BY SOURCE THEN DELETE",
        "MERGE INTO t USING (SELECT id FROM t) s ON t.id = s.id WHEN MATCHED THEN UPDATE SET a = 1",
    });
    all_bounded({
        "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET a = s.a WHEN NOT MATCHED "
        "THEN "
        "INSERT VALUES (s.id)",
        "MERGE INTO t USING s ON true WHEN MATCHED AND t.id = 5 THEN DELETE",
        "MERGE INTO t USING s ON true WHEN NOT MATCHED THEN INSERT VALUES (1)",
        "MERGE INTO t USING s ON true WHEN MATCHED THEN DO NOTHING",
        "MERGE INTO t USING s ON t.id = s.id WHEN NOT MATCHED BY SOURCE AND t.region = 5 THEN "
        "DELETE",
    });
}

TEST_CASE("an upsert is unbounded only when it selects its own target") {
    all_unbounded({
        "INSERT INTO t SELECT key, '' FROM t ON CONFLICT (key) DO UPDATE SET value = ''",
        "WITH s AS (SELECT * FROM t) INSERT INTO t SELECT * FROM s ON CONFLICT (id) DO UPDATE SET "
        "a = 1",
    });
    all_bounded({
        "INSERT INTO t VALUES (1, 'a') ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        "INSERT INTO t SELECT * FROM s ON CONFLICT (id) DO UPDATE SET a = excluded.a",
        "INSERT INTO t SELECT * FROM t WHERE id = 5 ON CONFLICT (id) DO UPDATE SET a = 1",
        "INSERT INTO t SELECT * FROM t ON CONFLICT DO NOTHING",
        "INSERT INTO t SELECT * FROM t",
    });
}

TEST_CASE("an unbounded write is found wherever it stands") {
    all_unbounded({
        "WITH d AS (DELETE FROM t RETURNING *) SELECT count(*) FROM d",
        "WITH a AS (WITH b AS (DELETE FROM t RETURNING 1) SELECT 1) SELECT 1",
        "WITH d AS (DELETE FROM t RETURNING 1) DELETE FROM s WHERE id = 1",
        "EXPLAIN ANALYZE DELETE FROM t",
        "EXPLAIN (ANALYZE, BUFFERS off) DELETE FROM t",
        "EXPLAIN (ANALYZE 1) DELETE FROM t",
        "EXPLAIN (ANALYSE 'on') DELETE FROM t",
        "EXPLAIN (ANALYZE off, ANALYZE) DELETE FROM t",
        "EXPLAIN ANALYZE CREATE TABLE x AS WITH d AS (DELETE FROM t RETURNING 1) SELECT 1",
        "COPY (DELETE FROM t RETURNING *) TO STDOUT",
        "PREPARE p AS DELETE FROM t",
        "CREATE TABLE x AS WITH d AS (DELETE FROM t RETURNING 1) SELECT * FROM d",
        "WITH d AS (DELETE FROM t RETURNING *) SELECT * INTO x FROM d",
        "CREATE RULE r AS ON INSERT TO x DO ALSO DELETE FROM t",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'DELETE FROM t'",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql BEGIN ATOMIC DELETE FROM t; END",
        "DO $$ BEGIN DELETE FROM t; END $$",
        "SELECT query_to_xml('DELETE FROM t', true, true, '')",
    });
    all_bounded({
        "EXPLAIN DELETE FROM t",
        "EXPLAIN (ANALYZE off) DELETE FROM t",
        "EXPLAIN (ANALYZE, ANALYZE false) DELETE FROM t",
        "EXPLAIN (VERBOSE, COSTS off) UPDATE t SET a = 1",
        "CREATE RULE r AS ON INSERT TO x DO ALSO DELETE FROM t WHERE id = NEW.id",
        "CREATE FUNCTION f(k int) RETURNS void LANGUAGE sql AS 'DELETE FROM t WHERE id = k'",
    });
}

TEST_CASE("conditions of queries in queries are judged in bounded time") {
    std::string sql = "DELETE FROM t WHERE ";
    for (int i = 0; i < 200; ++i) {
        sql += "id IN (SELECT x" + std::to_string(i) + ".id FROM t x" + std::to_string(i) +
               ", t y, t z WHERE ";
    }
    sql += "true" + std::string(200, ')');
    CHECK(facts_of(sql).unbounded.set);
    sql = "WITH a0 AS (SELECT * FROM t)";
    for (int i = 1; i < 60; ++i) {
        const std::string before = "a" + std::to_string(i - 1);
        sql += ", a" + std::to_string(i) + " AS (SELECT * FROM " + before + ", " + before + " x, " +
               before + " y)";
    }
    CHECK(facts_of(sql + " DELETE FROM t USING a59 WHERE t.id = a59.id").unbounded.set);
}

}  // namespace pgchaperone::policy
