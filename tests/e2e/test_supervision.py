"""Supervised transactions: what changes more rows than it may is undone, whichever way it was written, and the client
reads how many rows of which tables it would have been. What stays within its limits is as without a guard."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.cluster import version
from support.e2e import main, needs_guard, wire
from support.supervision import DEFINITIONS, SHAPES, Supervised, ready, supervise
from support.wire import parse, query, run, sync

COUNTERS = "30 rows of own.counters"

# Each statement with a number of rows in it, what the refusal of 30 says, and its DETAIL. Up to 20 may pass.
WAYS = {
    "a WHERE that matches too much": (
        "UPDATE counters SET n = 7 WHERE id <= {}", f"UPDATE would have changed {COUNTERS}",
        "own.counters: 30 updated"),
    "a DELETE": ("DELETE FROM own.counters WHERE id <= {}", f"DELETE would have changed {COUNTERS}",
                 "own.counters: 30 deleted"),
    "a function": ("SELECT remove({})", f"SELECT would have changed {COUNTERS}", "own.counters: 30 deleted"),
    "a function with dynamic SQL": ("SELECT remove_dynamically({})", COUNTERS, "own.counters: 30 deleted"),
    "a function as its owner": ("SELECT remove_as_owner({})", COUNTERS, "own.counters: 30 deleted"),
    "a function in the condition of a read": (
        "SELECT 1 FROM shops WHERE id = 1 AND remove({}) > 0", COUNTERS, "own.counters: 30 deleted"),
    "a function that takes back itself": ("SELECT remove_and_take_back({})", COUNTERS, "own.counters: 30 deleted"),
    "a procedure": ("CALL remove_by_procedure({})", f"CALL would have changed {COUNTERS}", "own.counters: 30 deleted"),
    "DO with dynamic SQL": ("DO $$BEGIN EXECUTE 'DELETE FROM ' || 'own.counters WHERE id <= {}'; END$$",
                            f"DO would have changed {COUNTERS}", "own.counters: 30 deleted"),
    "a trigger for each row": ("INSERT INTO by_row VALUES ({})", f"INSERT would have changed {COUNTERS}",
                               "own.counters: 30 updated\nown.by_row: 1 inserted"),
    "a trigger for each statement": ("INSERT INTO by_statement VALUES ({})", COUNTERS,
                                     "own.counters: 30 updated\nown.by_statement: 1 inserted"),
    "a view": ("DELETE FROM simple_view WHERE id <= {}", COUNTERS, "own.counters: 30 deleted"),
    "a view with a trigger in its place": ("DELETE FROM instead WHERE id = {}", COUNTERS, "own.counters: 30 deleted"),
    "a rule": ("INSERT INTO ruled VALUES ({})", COUNTERS, "own.counters: 30 deleted\nown.ruled: 1 inserted"),
    "partitions": ("UPDATE parts SET k = 7 WHERE id > 45 AND id <= 45 + {}", "30 rows of own.parts",
                   "own.parts: 30 updated"),
    "a WITH": ("WITH gone AS (DELETE FROM counters WHERE id <= {} RETURNING *) SELECT count(*) FROM gone", COUNTERS,
               "own.counters: 30 deleted"),
    "RETURNING": ("UPDATE counters SET n = id WHERE id <= {} RETURNING id", COUNTERS, "own.counters: 30 updated"),
    "ON CONFLICT DO UPDATE": (
        "INSERT INTO counters SELECT i, 1 FROM generate_series(1, {}) i ON CONFLICT (id) DO UPDATE SET n = 2", COUNTERS,
        "own.counters: 30 updated"),
    "EXPLAIN ANALYZE": ("EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) DELETE FROM log WHERE remove({}) = 0 OR id > 99",
                        "rows of own.counters", None),
    "a table made from a query": ("CREATE TEMP TABLE made AS SELECT remove({})", COUNTERS, "own.counters: 30 deleted"),
}
if version() >= 15:
    WAYS["MERGE"] = ("MERGE INTO counters c USING (SELECT i FROM generate_series(1, {}) i) v ON c.id = v.i "
                     "WHEN MATCHED THEN UPDATE SET n = 3", f"MERGE would have changed {COUNTERS}",
                     "own.counters: 30 updated")

# Functions that do what their call does not say.
HIDDEN = {
    "truncates": "own.log was locked exclusively", "drops": "a relation that is gone now",
    "alters": "own.log was locked exclusively", "grants": "pg_catalog.pg_class was changed",
    "defines": "pg_catalog.pg_proc was changed", "makes_role": "pg_catalog.pg_authid was changed",
}


@needs_guard
class Supervision(Supervised):
    def test_every_way_to_change_too_much_is_undone_in_every_shape(self):
        for way, (sql, message, detail) in WAYS.items():
            for shape, (steps, states) in SHAPES.items():
                with self.subTest(way, shape=shape):
                    frames = self.refused(*steps(sql.format(30)), message=message + r".* \(limit 20\); rolled back",
                                          detail=detail)
                    self.assertEqual(states, wire.statuses(frames))

    def test_what_stays_within_the_limit_is_as_direct_in_every_shape(self):
        for way, (sql, _, _) in WAYS.items():
            for shape, (steps, _) in SHAPES.items():
                with self.subTest(way, shape=shape):
                    frames = self.same_and_kept(*steps(sql.format(20)), what=f"{way}, {shape}")
                    self.assertEqual([], wire.sqlstates(frames))

    def test_a_cascade_counts_in_every_table(self):
        for shape, (steps, states) in SHAPES.items():
            with self.subTest(shape):
                frames = self.refused(*steps("DELETE FROM shops WHERE id = 1"),
                                      message=r"DELETE would have changed 31 rows of own.lines and 2 other tables",
                                      detail="own.lines: 20 deleted\nown.sales: 10 deleted\nown.shops: 1 deleted")
                self.assertEqual(states, wire.statuses(frames))
                self.same_and_kept(*steps("DELETE FROM sales WHERE shop = 1 AND id <= 6"), what=shape)  # 6 and 12

    def test_statements_prepared_by_sql(self):
        made = query("PREPARE p AS DELETE FROM counters WHERE id <= $1")
        for shape, (steps, states) in SHAPES.items():
            with self.subTest(shape):
                frames = self.refused(made, ready(), *steps("EXECUTE p(30)"), message=COUNTERS,
                                      detail="own.counters: 30 deleted")
                self.assertEqual("I" + states, wire.statuses(frames))
                self.same_and_kept(made, ready(), *steps("EXECUTE p(20)"), what=shape)

    def test_deferred_triggers_count_before_the_commit(self):
        over, under = "INSERT INTO deferred VALUES (30)", "INSERT INTO deferred VALUES (20)"
        for shape in ("simple", "extended", "in a string of statements", "in a pipeline"):
            with self.subTest(shape):
                steps, states = SHAPES[shape]
                frames = self.refused(*steps(over), message=COUNTERS)
                self.assertEqual(states, wire.statuses(frames))
                self.same_and_kept(*steps(under), what=shape)
        for end in ("COMMIT", "COMMIT AND NO CHAIN", "END", "COMMIT AND CHAIN", "PREPARE TRANSACTION 'p'"):
            for data in (query(end), run(end) + sync()):
                with self.subTest(end):
                    frames = self.refused(query("BEGIN"), ready(), query(over), ready(), data, ready(),
                                          query("SELECT 1"), ready(), message=COUNTERS)
                    self.assertEqual("TTII", wire.statuses(frames))
        for end in ("COMMIT", "COMMIT AND CHAIN", "SET CONSTRAINTS ALL IMMEDIATE"):
            for data in (query(end), run(end) + sync()):
                with self.subTest(end):
                    self.same_and_kept(query("BEGIN"), ready(), query(under), ready(), data, ready(),
                                       query("ROLLBACK"), ready(), what=end)

    def test_what_a_function_hides_is_refused(self):
        for name, what in HIDDEN.items():
            for shape, (steps, states) in SHAPES.items():
                with self.subTest(name, shape=shape):
                    frames = self.refused(*steps(f"SELECT {name}()"),
                                          message=r"SELECT would have .*, which its text does not say \(.*: refuse\)")
                    self.assertIn(what, [f.fields()["D"] for f in frames if f.tag == "E"][0])
                    self.assertEqual(states, wire.statuses(frames))

    def test_what_a_function_hides_is_allowed_where_the_policy_allows_it(self):
        target = self.by("max_rows: 20", "effects: total", "catalog_changes: allow", "exclusive_locks: allow")
        for name in HIDDEN:
            with self.subTest(name):
                self.setUp()
                frames = self.play(target, query(f"SELECT {name}()"), ready())
                self.assertEqual([], wire.sqlstates(frames))
                self.assertNotEqual(self.before[1], self.sql(DEFINITIONS), "it did what it says")
                self.sql("DROP ROLE IF EXISTS fresh_role")
                self.assert_nothing_left_open()

    def test_only_the_one_that_is_refused(self):
        catalog = self.by("effects: total", "catalog_changes: refuse")
        locks = self.by("effects: total", "exclusive_locks: refuse")
        self.refused(query("SELECT grants()"), ready(), target=catalog, message="catalog_changes")
        self.refused(query("SELECT truncates()"), ready(), target=locks, message="exclusive_locks")
        self.assertEqual([], wire.sqlstates(self.play(locks, query("SELECT defines()"), ready())))

    def test_definitions_that_their_text_shows_pass(self):
        for sql in ("CREATE TABLE fresh (i int)", "ALTER TABLE log ADD COLUMN extra int", "DROP TABLE log",
                    "CREATE FUNCTION fresh() RETURNS int LANGUAGE sql AS 'SELECT 1'", "GRANT SELECT ON log TO app",
                    "TRUNCATE log", "CREATE INDEX ON log (id)", "CREATE VIEW v AS SELECT * FROM log", "ANALYZE log",
                    "CREATE TABLE child (i int REFERENCES shops)", "COMMENT ON TABLE log IS 'x'",
                    "CREATE TEMP TABLE t AS SELECT 1", "SELECT * INTO TEMP t FROM log",
                    "CREATE TABLE copied AS SELECT * FROM log", "REFRESH MATERIALIZED VIEW mv"):
            for shape in ("simple", "extended", "simple in a block", "in a pipeline"):
                with self.subTest(sql, shape=shape):
                    results = []
                    for target in (self.direct, self.guarded):
                        self.sql("DROP MATERIALIZED VIEW IF EXISTS own.mv; DROP VIEW IF EXISTS own.v")
                        self.setUp()
                        self.sql("CREATE MATERIALIZED VIEW own.mv AS SELECT * FROM own.log")
                        results.append(self.play(target, *SHAPES[shape][0](sql)))
                    self.assertEqual(*results)

    def test_temporary_tables_are_nobodys_rows(self):
        for shape, (steps, _) in SHAPES.items():
            for sql in ("SELECT uses_temporary_tables()", "CREATE TEMP TABLE t AS SELECT generate_series(1, 400)"):
                with self.subTest(sql, shape=shape):
                    self.same_and_kept(*steps(sql), what=shape)
        self.same_and_kept(query("CREATE TEMP TABLE t (i int)"), ready(),
                           query("INSERT INTO t SELECT generate_series(1, 400)"), ready(), query("UPDATE t SET i = 0"),
                           ready(), run("DELETE FROM t") + sync(), ready(), query("TRUNCATE t"), ready(),
                           query("DROP TABLE t"), ready())

    # --- the limits --------------------------------------------------------------------------------------

    def test_many_small_statements_of_one_transaction_add_up(self):
        target = self.by("max_rows_per_transaction: 20", "effects: total")
        small = [f"UPDATE counters SET n = n + 1 WHERE id = {i % 50 + 1}" for i in range(100)]
        message = (r"changed 1 row of own.counters, and with those before it 21 in this transaction \(limit 20\)")
        for name, steps, done in (
                ("one after the other",
                 [s for sql in ["BEGIN", *small[:21], "ROLLBACK"] for s in (query(sql), ready())],
                 21),
                ("in one string", [query("BEGIN;" + ";".join(small) + "; COMMIT"), ready(), query("ROLLBACK"),
                                   ready()], 21),
                ("in one string without a block", [query(";".join(small)), ready()], 20),
                ("in a pipeline", [b"".join(run(sql) for sql in small) + sync(), ready()], 20),
                ("in a block by pipelines", [run("BEGIN") + sync() + b"".join(run(sql) + sync() for sql in small[:21]) +
                                             run("ROLLBACK") + sync(), ready(23)], 21)):
            with self.subTest(name):
                frames = self.refused(*steps, target=target, message=message)
                before_error = wire.tags(frames).partition("E")[0]
                self.assertEqual(done, before_error.count("C"))
                self.same_and_kept(query("BEGIN;" + ";".join(small[:20]) + "; COMMIT"), ready(), target=target)

    def test_a_transaction_that_ended_does_not_count_for_the_next(self):
        target = self.by("max_rows_per_transaction: 20", "effects: total")
        one = "UPDATE counters SET n = n + 1 WHERE id <= 15"
        for steps in ([query(one), ready()] * 5, [run(one) + sync(), ready()] * 5,
                      [query(f"BEGIN; {one}; COMMIT"), ready()] * 5,
                      [query(f"BEGIN; {one}; ROLLBACK"), ready()] * 5,
                      [query("BEGIN"), ready()] + [query(one), ready(), query("COMMIT AND CHAIN"), ready()] * 3,
                      [b"".join(run(one) + sync() for _ in range(5)), ready(5)]):
            self.same_and_kept(*steps, target=target)

    def test_a_loop_of_small_commits_adds_up(self):
        terms = "max_rows_per_session: { rows: 20, window: 2s }"
        for name, one in (("simple", lambda sql: query(sql)), ("extended", lambda sql: run(sql) + sync())):
            with self.subTest(name):
                target = self.by(terms, "effects: total")
                self.fill()
                with target.wire(options="-c search_path=own") as connection, \
                        target.wire(options="-c search_path=own") as other:
                    sent, started = 0, time.monotonic()
                    while True:
                        connection.send(one(f"UPDATE counters SET n = 1 WHERE id = {sent % 50 + 1}"))
                        frames = connection.until_ready()
                        if "E" in wire.tags(frames):
                            break
                        sent += 1
                        if sent > 40:
                            break
                    if time.monotonic() - started < 1.5:
                        self.assertEqual(20, sent)
                        self.assert_refused(frames, r"and with those before it 21 by this session \(limit 20 in 2 s\)")
                    self.assertEqual([], wire.sqlstates(other.ask("UPDATE counters SET n = 2 WHERE id = 50")))
                    time.sleep(2.1)
                    self.assertEqual([], wire.sqlstates(connection.ask("UPDATE counters SET n = 2 WHERE id = 49")))
                self.assertGreaterEqual(sent, 20)
                self.assertEqual([(sent, 2)], self.sql(
                    "SELECT count(*) FILTER (WHERE n = 1), count(*) FILTER (WHERE n = 2) FROM own.counters"))

    def test_tables_with_limits_of_their_own(self):
        target = self.by("max_rows: 20", 'max_rows_per_table: { own.counters: 5, "sal*": 0, "own.line?": 12 }',
                         "effects: total")
        for sql, message in (("UPDATE counters SET n = 1 WHERE id <= 6",
                              r"6 rows of own.counters \(limit for this table 5\)"),
                             ("SELECT remove(6)", r"6 rows of own.counters \(limit for this table 5\)"),
                             ("UPDATE sales SET amount = 1 WHERE id = 1",
                              r"1 row of own.sales \(limit for this table 0\)"),
                             ("DELETE FROM sales WHERE id = 1", r"own.sales \(limit for this table 0\)"),
                             ("UPDATE lines SET note = '' WHERE id <= 13",
                              r"13 rows of own.lines \(limit for this table 12\)"),
                             ("UPDATE parts SET k = 1 WHERE id <= 21", r"21 rows of own.parts \(limit 20\)")):
            for shape in ("simple", "extended"):
                with self.subTest(sql, shape=shape):
                    self.refused(*SHAPES[shape][0](sql), target=target, message=message)
        for sql in ("UPDATE counters SET n = 1 WHERE id <= 5", "UPDATE lines SET note = '' WHERE id <= 12",
                    "INSERT INTO sales VALUES (900, 1, 1)", "UPDATE parts SET k = 1 WHERE id <= 20"):
            self.same_and_kept(query(sql), ready(), target=target)

    def test_a_fraction_of_a_table(self):
        target = self.by("max_fraction: 10%", "effects: total")
        for table, rows in (("counters", 50), ("parts", 100)):
            sql = f"DELETE FROM {table} WHERE id <= {{}}"
            limit = rows // 10
            for shape in ("simple", "extended"):
                with self.subTest(table, shape=shape):
                    self.fill()
                    self.sql(f"ANALYZE own.{table}")
                    frames = self.play(target, *SHAPES[shape][0](sql.format(limit + 1)))
                    self.assert_refused(frames, rf"changed {limit + 1} rows of about {rows} of own.{table} \(limit 10%\)")
                    frames = self.play(target, *SHAPES[shape][0](sql.format(limit)))
                    self.assertEqual([], wire.sqlstates(frames))
                    self.assertEqual([(rows - limit,)], self.sql(f"SELECT count(*) FROM own.{table}"))

    def test_rows_that_are_put_in_have_a_limit_of_their_own(self):
        sql = "INSERT INTO log SELECT i, 'x' FROM generate_series(1, {}) i"
        for shape, (steps, states) in SHAPES.items():
            if "block" in shape or "string" in shape or "pipeline" in shape:
                continue  # they insert a row themselves
            with self.subTest(shape):
                frames = self.refused(*steps(sql.format(51)), message=r"inserted 51 rows into own.log \(limit 50\)",
                                      detail="own.log: 51 inserted")
                self.assertEqual(states, wire.statuses(frames))
                self.same_and_kept(*steps(sql.format(50)), what=shape)

    def test_tag_counts_what_the_command_says_and_total_what_was_done(self):
        tag, total = self.by("max_rows: 20", "effects: tag"), self.by("max_rows: 20", "effects: total")
        for shape in ("simple", "extended", "simple in a block", "in a pipeline"):
            steps = SHAPES[shape][0]
            with self.subTest(shape):
                cascade = "DELETE FROM shops WHERE id = 1"
                self.same_and_kept(*steps(cascade), target=tag, what="tag sees one row")
                self.refused(*steps(cascade), target=total, message="31 rows")
                self.refused(*steps("DELETE FROM counters WHERE id <= 21"), target=tag,
                             message="DELETE would have changed 21 rows of .*counters")
                self.refused(*steps("SELECT remove(21)"), target=tag, message="21 rows of own.counters",
                             what="what is opaque is read in any case")
                self.same_and_kept(*steps("DELETE FROM counters WHERE id <= 20"), target=tag, what=shape)

    def test_only_the_rules_statements_are_counted(self):
        target = self.by("max_rows: 20", "effects: total", match="command: DELETE")
        self.same_and_kept(query("UPDATE counters SET n = 1 WHERE id <= 30"), ready(), target=target)
        self.refused(query("DELETE FROM counters WHERE id <= 30"), ready(), target=target, message=COUNTERS)

    def test_counters_that_are_off_are_no_zero(self):
        for one in ("UPDATE counters SET n = 1 WHERE id = 1", "SELECT remove(1)",
                    "SELECT set_config('track_counts', 'off', false), remove(30)"):
            for data in (query(one), run(one) + sync()):
                with self.subTest(one), self.guarded.wire(options="-c search_path=own") as connection:
                    if "set_config" not in one:
                        connection.ask("SET track_counts = off")
                    connection.send(data)
                    frames = connection.until_ready()
                    self.assertEqual(["42501"], wire.sqlstates(frames), frames)
                    self.assertIn("could not be counted", [f for f in frames if f.tag == "E"][0].fields()["M"])
                    self.assertEqual([], wire.sqlstates(connection.ask("SET track_counts = on")))
                self.assert_nothing_changed()

    def test_waiting_for_a_lock_has_an_end(self):
        target = self.by("max_rows: 20", "effects: total", "lock_timeout: 300ms")
        with self.cluster.connect(autocommit=False) as holder:
            holder.execute("SELECT FROM own.counters FOR UPDATE")
            for shape in ("simple", "extended", "simple in a block", "in a pipeline"):
                with self.subTest(shape):
                    before = time.monotonic()
                    frames = self.play(target, *SHAPES[shape][0]("UPDATE counters SET n = 1 WHERE id = 1"))
                    self.assertEqual(["55P03"], wire.sqlstates(frames))
                    self.assertLess(time.monotonic() - before, 10)
            patient = self.by("max_rows: 20", "effects: total", "lock_timeout: 10s")
            with patient.wire() as connection:  # a shorter one of the session's own stays, and comes back
                connection.ask("SET lock_timeout = '50ms'")
                before = time.monotonic()
                self.assertEqual(["55P03"], wire.sqlstates(connection.ask("UPDATE own.counters SET n = 1 WHERE id = 1")))
                self.assertLess(time.monotonic() - before, 8)
                self.assertEqual([("50ms",)], connection.rows("SHOW lock_timeout"))
        self.same_and_kept(query("UPDATE counters SET n = 1 WHERE id = 1"), ready(), query("SHOW lock_timeout"),
                           ready(),
                           target=target)

    def test_what_can_not_be_counted_is_refused(self):
        everything = self.guarded_by(supervise("max_rows: 20, effects: total", match="controls_transaction: false"))
        for sql in ("VACUUM log", "CREATE DATABASE fresh", "CREATE INDEX CONCURRENTLY fresh_index ON log (id)",
                    "REINDEX TABLE CONCURRENTLY log", "ALTER SYSTEM SET work_mem = '5MB'", "DROP DATABASE fresh"):
            for data in (query(sql), query("SELECT 1; " + sql), run(sql) + sync()):
                with self.subTest(sql):
                    self.refused(data, ready(), query("SELECT 1"), ready(), target=everything, message="transaction")

    def test_procedures_that_commit_are_refused(self):
        for sql in ("CALL commits()", "DO $$BEGIN DELETE FROM own.counters WHERE id <= 3; COMMIT; END$$"):
            for data in (query(sql), run(sql) + sync()):
                with self.subTest(sql):
                    self.fill()
                    frames = self.play(self.guarded, data, ready(), query("SELECT 1"), ready())
                    self.assert_refused(frames, "ends transactions by itself", sqlstate="2D000")
                    self.assertEqual("II", wire.statuses(frames))
                    self.assert_nothing_changed()

    def test_nobody_needs_privileges_for_being_counted(self):
        with self.guarded.wire(user="app", options="-c search_path=own") as connection:
            self.assert_refused(connection.ask("SELECT remove(30)"), COUNTERS)
            self.assertEqual([], wire.sqlstates(connection.ask("SELECT remove(20)")))
        self.assertEqual(30, self.counters())

    def test_names_of_the_users_own_do_not_lead_astray(self):
        self.sql("""
            CREATE FUNCTION own.pg_stat_get_xact_tuples_deleted(oid) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint';
            CREATE FUNCTION own.no(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT false';
            CREATE OPERATOR own.> (FUNCTION = own.no, LEFTARG = bigint, RIGHTARG = bigint);
            CREATE VIEW own.pg_class AS SELECT 1::oid AS oid WHERE false""")
        for data in (query("SELECT remove(30)"), run("SELECT remove(30)") + sync()):
            with self.guarded.wire() as connection:
                connection.ask("SET search_path = own, pg_catalog")
                connection.send(data)
                self.assert_refused(connection.until_ready(), COUNTERS)
        self.assertEqual(50, self.counters())

    def test_a_text_of_many_statements_passes_as_direct(self):
        self.same_and_kept(query("".join(f"UPDATE counters SET n = n + 1 WHERE id = {i % 50 + 1};" for i in range(600))),
                           ready())


if __name__ == "__main__":
    main()
