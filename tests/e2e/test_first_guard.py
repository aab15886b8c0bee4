"""The first guard: what the built-in policy stops, how the client hears of it, and that nothing happened."""

import os
import sys
import time
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.e2e import BUILT_IN_POLICY, EndToEnd, main, needs_guard, ready, until, wire
from support.guard import direct
from support.wire import bind, close, describe, execute, flush, function_call, parse, query, run, sync

# Statements that lose data at one stroke. All of them would succeed without the guard.
ACCIDENTS = (
    "UPDATE items SET quantity = 0",
    "DELETE FROM orders",
    "MERGE INTO orders o USING items i ON true WHEN MATCHED THEN DELETE",
    "TRUNCATE orders",
    "TRUNCATE TABLE scratch, orders",
    "DROP TABLE orders",
    "DROP SCHEMA private CASCADE",
    "DROP DATABASE victim",
    "delete\nfrom only public.orders -- where id = 1",
    "UPDATE items SET quantity = 0 WHERE true",
    "DELETE FROM orders WHERE 1 = 1",
    "DELETE FROM orders WHERE id = id",
    "DELETE FROM orders WHERE id > 0 OR true",
    "WITH gone AS (DELETE FROM orders RETURNING *) SELECT count(*) FROM gone",
    "EXPLAIN ANALYZE DELETE FROM orders",
    "EXPLAIN (COSTS off, ANALYZE) UPDATE items SET quantity = 0",
    "PREPARE danger AS DELETE FROM orders",
    "DO $$BEGIN DELETE FROM orders; END$$",
    "DO $$BEGIN EXECUTE 'TRUNCATE orders'; END$$",
    "COPY (DELETE FROM orders RETURNING *) TO STDOUT",
)
HARMLESS = (
    "SELECT * FROM items WHERE name = 'DELETE FROM items'",
    "UPDATE items SET quantity = quantity + 1 WHERE id = 3",
    "DELETE FROM orders WHERE id = 7",
    "DELETE FROM orders o USING items i WHERE o.item = i.id AND i.name = 'item 3'",
    "MERGE INTO items i USING (VALUES (3, 5)) v(id, q) ON i.id = v.id WHEN MATCHED THEN UPDATE SET quantity = v.q",
    "INSERT INTO scratch VALUES (1, 'TRUNCATE orders; DROP TABLE orders')",
    "INSERT INTO items VALUES (1, 'item 1', 1) ON CONFLICT (id) DO UPDATE SET quantity = 2",
    "CREATE TABLE fresh (i int)", "ALTER TABLE scratch ADD COLUMN extra int",
    "EXPLAIN DELETE FROM orders", "SELECT 1 -- DELETE FROM orders", "VACUUM scratch", "BEGIN; COMMIT",
)


@needs_guard
class FirstGuard(EndToEnd):
    configuration = BUILT_IN_POLICY

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster.sql("CREATE DATABASE victim")
        cls.cluster.sql("CREATE SCHEMA private CREATE TABLE secrets (s integer)")

    def setUp(self):
        self.cluster.sql("DROP TABLE IF EXISTS fresh")
        self.cluster.reset()
        self.before = self.state()
        self.audited = len(self.guard.audit_records()) if not direct() else 0

    def state(self):
        return self.cluster.sql("""
            SELECT (SELECT md5(string_agg(i::text, ',' ORDER BY id)) FROM items i),
                   (SELECT md5(string_agg(o::text, ',' ORDER BY id)) FROM orders o),
                   (SELECT md5(string_agg(s::text, ',' ORDER BY id)) FROM scratch s),
                   to_regclass('private.secrets'), (SELECT count(*) FROM pg_database WHERE datname = 'victim')""")

    def assert_nothing_changed(self):
        self.assertEqual(self.before, self.state())

    def new_records(self):
        return self.guard.audit_records()[self.audited:]

    def refusals(self, records):
        """Those of the records that tell of something refused: what is counted leaves records as well."""
        return [r for r in records if r["event"] == "decision" and r["decision"] == "block"]

    def assert_refusal(self, frames, reason=None, count=1):
        """The frames hold so many refusals as a person should get them; returns the fields of the first."""
        errors = [f.fields() for f in frames if f.tag == "E"]
        self.assertEqual(["42501"] * count, [e["C"] for e in errors], errors)
        for fields in errors:
            self.assertEqual(("ERROR", "ERROR"), (fields["S"], fields["V"]))
            self.assertRegex(fields["M"], r'rule "[a-z-]+"|unparsable', "the message names the rule")
            self.assertTrue(fields.get("D"), f"no DETAIL in {fields}")
            self.assertTrue(fields.get("H"), f"no HINT in {fields}")
            text = " ".join(fields.values())
            self.assertNotRegex(text, r'near "pgchaperone"', "the server's own words about our substitute shine through")
            if reason:
                self.assertRegex(text, reason)
        return errors[0]

    # --- what is stopped and what is not -----------------------------------------------------------------

    def test_accidents_by_simple_query(self):
        with self.guarded.wire() as connection:
            for sql in ACCIDENTS:
                with self.subTest(sql):
                    frames = connection.ask(sql)
                    self.assertEqual("EZ", wire.tags(frames), frames)
                    self.assert_refusal(frames)
                    self.assertEqual("I", wire.statuses(frames))
                    self.assertEqual([("1",)], connection.rows("SELECT 1"))
        self.assert_nothing_changed()

    def test_accidents_by_the_extended_protocol(self):
        with self.guarded.wire() as connection:
            for sql in ACCIDENTS:
                for named in ("", "s"):
                    with self.subTest(sql, named=named):
                        connection.send(parse(sql, named) + describe("S", named) + bind("", named) + describe("P") +
                                        execute() + sync())
                        frames = connection.until_ready()
                        self.assertEqual("EZ", wire.tags(frames), frames)
                        self.assert_refusal(frames)
                        connection.send(bind("", named) + sync())  # the refused Parse left no statement
                        self.assertEqual(["26000"], wire.sqlstates(connection.until_ready()))
        self.assert_nothing_changed()

    def test_accidents_by_a_driver(self):
        for sql in ACCIDENTS:
            with self.subTest(sql), psycopg.connect(self.guarded.dsn()) as connection:
                with self.assertRaises(psycopg.errors.InsufficientPrivilege) as caught:
                    connection.execute(sql)
                self.assertTrue(caught.exception.diag.message_detail and caught.exception.diag.message_hint)
                connection.rollback()
                self.assertEqual((1,), connection.execute("SELECT 1").fetchone())
        self.assert_nothing_changed()

    def test_statements_with_parameters(self):
        with self.guarded.wire() as connection:
            for sql, parameters, refused in (("DELETE FROM orders WHERE id = $1", ["1"], False),
                                             ("UPDATE items SET quantity = $1", ["0"], True),
                                             ("DELETE FROM orders WHERE $1", ["t"], True),
                                             ("DELETE FROM orders WHERE $1 = $2", ["1", "1"], True)):
                with self.subTest(sql):
                    self.cluster.reset()
                    connection.send(run(sql, parameters) + sync())
                    frames = connection.until_ready()
                    self.assert_refusal(frames) if refused else self.assertEqual([], wire.sqlstates(frames))

    def test_harmless_statements_pass_as_direct(self):
        for sql in HARMLESS:
            for data in (query(sql), run(sql) + sync()):
                with self.subTest(sql):
                    self.cluster.sql("ALTER TABLE scratch DROP COLUMN IF EXISTS extra; DROP TABLE IF EXISTS fresh")

                    def play(target):
                        self.cluster.sql("ALTER TABLE scratch DROP COLUMN IF EXISTS extra")
                        self.cluster.sql("DROP TABLE IF EXISTS fresh")
                        with target.wire() as connection:
                            connection.send(data)
                            return wire.masked(connection.until_ready())

                    frames = self.same(play, reset=True, what=sql)
                    self.assertNotIn("42501", wire.sqlstates(frames))
        self.cluster.sql("ALTER TABLE scratch DROP COLUMN IF EXISTS extra")

    # --- how a refusal behaves ---------------------------------------------------------------------------

    def test_anywhere_in_a_string_of_statements(self):
        for position in range(3):
            with self.subTest(position):
                parts = ["INSERT INTO scratch VALUES (1, 'x')", "SELECT 1"]
                parts.insert(position, "DELETE FROM orders")
                with self.guarded.wire() as connection:
                    frames = connection.ask("; ".join(parts))
                    self.assert_refusal(frames)
                    self.assertEqual("I", wire.statuses(frames))
                self.assert_nothing_changed()

    def test_an_open_transaction_is_aborted(self):
        with self.guarded.wire() as connection:
            connection.ask("BEGIN")
            connection.ask("INSERT INTO scratch VALUES (1, 'rolls back')")
            frames = connection.ask("DELETE FROM orders")
            self.assert_refusal(frames)
            self.assertEqual("E", wire.statuses(frames))
            self.assertEqual(["25P02"], wire.sqlstates(connection.ask("SELECT 1")))
            self.assertEqual("ROLLBACK", connection.ask("COMMIT")[0].body[:-1].decode())
        self.assert_nothing_changed()

    def test_a_savepoint_saves_what_came_before_it(self):
        with self.guarded.wire() as connection:
            connection.ask("BEGIN; INSERT INTO scratch VALUES (1, 'kept'); SAVEPOINT s")
            self.assert_refusal(connection.ask("TRUNCATE orders"))
            self.assertEqual("CZ", wire.tags(connection.ask("ROLLBACK TO s")))
            connection.ask("COMMIT")
            self.assertEqual([("1",)], connection.rows("SELECT id FROM scratch"))

    def test_anywhere_in_a_pipeline(self):
        good = run("INSERT INTO scratch VALUES (1, 'x')")
        for position in range(4):
            with self.subTest(position):
                parts = [good, run("SELECT 1"), good]
                parts.insert(position, run("DELETE FROM orders"))
                with self.guarded.wire() as connection:
                    connection.send(b"".join(parts) + query("SELECT 'dropped while skipping'") + sync() +
                                    run("SELECT 'behind'") + sync())
                    frames = connection.until_ready(2)
                self.assert_refusal(frames)
                self.assertEqual("II", wire.statuses(frames))
                after = wire.tags(frames)[wire.tags(frames).index("E"):]
                self.assertEqual("EZ12TDCZ", after, "what follows is skipped up to the Sync, and no further")
                self.assert_nothing_changed()

    def test_many_refusals_in_a_long_pipeline(self):
        with self.guarded.wire() as connection:
            connection.send(b"".join(run("DELETE FROM orders" if i % 3 == 0 else "SELECT $1::int",
                                         [] if i % 3 == 0 else [str(i)]) + sync() for i in range(300)))
            frames = connection.until_ready(300)
        self.assert_refusal(frames, count=100)
        self.assertEqual([b"%d" % i for i in range(300) if i % 3], [f.columns()[0] for f in frames if f.tag == "D"])
        records = self.new_records()
        self.assertEqual(100, len(self.refusals(records)))
        self.assertEqual({"block", "supervise"}, {r["decision"] for r in records if r["event"] == "decision"})
        self.assert_nothing_changed()

    def test_simple_queries_sent_ahead(self):
        with self.guarded.wire() as connection:
            connection.send(b"".join(query("TRUNCATE orders" if i % 2 else f"SELECT {i}") for i in range(100)))
            frames = connection.until_ready(100)
        self.assertEqual("TDCZEZ" * 50, wire.tags(frames))
        self.assert_refusal(frames, count=50)
        self.assert_nothing_changed()

    def test_a_refused_statement_asked_for_by_flush(self):
        with self.guarded.wire() as connection:
            connection.send(run("SELECT 1") + flush())
            connection.until("C")
            connection.send(parse("DROP TABLE orders") + flush())
            self.assert_refusal(connection.until("E"))
            connection.send(run("SELECT 2") + sync())
            self.assertEqual("Z", wire.tags(connection.until_ready()))

    def test_in_every_split_of_its_bytes(self):
        data = query("DELETE FROM orders") + parse("TRUNCATE orders") + sync()
        with self.guarded.wire() as connection:
            for at in range(1, len(data)):
                connection.send_split(data, at, 0.0005)
                self.assertEqual("EZEZ", wire.tags(connection.until_ready(2)))
        self.assert_nothing_changed()

    def test_a_prepared_statement_of_the_same_name_survives_a_refusal(self):
        with self.guarded.wire() as connection:
            connection.send(parse("SELECT 'kept'", "s") + sync() + close("S", "t") + parse("DELETE FROM orders", "t") +
                            sync() + bind("", "s") + execute() + sync())
            frames = connection.until_ready(3)
        self.assert_refusal(frames)
        self.assertEqual("2DCZ", wire.tags(frames)[-4:])

    def test_a_refusal_inside_an_aborted_transaction_is_the_servers_error_or_ours(self):
        with self.guarded.wire() as connection:
            connection.ask("BEGIN; SELECT 1 / 0")
            frames = connection.ask("DELETE FROM orders")
            self.assertEqual("EZ", wire.tags(frames))
            self.assertEqual("E", wire.statuses(frames))
        self.assert_nothing_changed()

    def test_psql_shows_a_person_what_to_do(self):
        done = self.guarded.psql("DELETE FROM orders;\nSELECT 'alive';\n", "-At")
        self.assertIn("ERROR:", done.stderr)
        self.assertIn("DETAIL:", done.stderr)
        self.assertIn("HINT:", done.stderr)
        self.assertIn("alive", done.stdout)
        self.assertRegex(done.stderr, "(?i)WHERE")

    def test_in_every_transaction_of_pgbench_nothing_is_refused(self):
        done = self.direct.program("pgbench", "-i", "-q")
        self.assertEqual(0, done.returncode, done.stderr)
        done = self.guarded.program("pgbench", "-n", "-M", "prepared", "-c", "2", "-t", "50")
        self.assertIn("actually processed: 100/100", done.stdout, done.stderr)
        records = self.new_records()
        self.assertEqual([], self.refusals(records))
        self.assertEqual({"within limits"}, {r["outcome"] for r in records if r["event"] == "effects"})

    # --- what can't be read ------------------------------------------------------------------------------

    def test_what_cannot_be_read_is_refused_for_its_own_reason(self):
        with self.guarded.wire() as connection:
            for sql in ("SELEC 1", "DELETE FROM orders WHERE", "SELECT 'open", "}{", "SELECT 1; SELEC",
                        b"SELECT '\xff\xfe'"):
                for data in (query(sql), parse(sql) + sync()):
                    with self.subTest(sql):
                        connection.send(data)
                        frames = connection.until_ready()
                        self.assert_refusal(frames, reason="(?i)parse|read|unparsable|syntax|understand|encoding|byte")
                        self.assertEqual([("1",)], connection.rows("SELECT 1"))
        self.assert_nothing_changed()

    def test_the_parser_survives_what_is_too_deep(self):
        monsters = {"1+1+...": "SELECT " + "1+" * 64_000 + "1", "parentheses": "SELECT " + "(" * 100_000 + "1" + ")" * 100_000,
                    "open parentheses": "SELECT " + "(" * 100_000, "NOT": "SELECT " + "NOT " * 100_000 + "true",
                    "nested selects": "SELECT " + "(SELECT " * 20_000 + "1" + ")" * 20_000,
                    "nested CASE": "SELECT " + "CASE WHEN true THEN " * 30_000 + "1" + " END" * 30_000,
                    "arrays": "SELECT " + "ARRAY[" * 50_000 + "1" + "]" * 50_000,
                    "casts": "SELECT 1" + "::int" * 60_000, "AND": "SELECT " + "true AND " * 60_000 + "true",
                    "UNION": "SELECT 1" + " UNION SELECT 1" * 30_000,
                    "minus": "SELECT " + "- " * 100_000 + "1", "joins": "SELECT 1 FROM items" + " NATURAL JOIN items" * 20_000,
                    "statements": "SELECT 1;" * 50_000, "a delete below it all": "SELECT " + "(" * 2_000 + "1" + ")" * 2_000 +
                    "; DELETE FROM orders"}
        with self.guarded.wire(timeout_s=30) as witness:
            for name, sql in monsters.items():
                for data in (query(sql), parse(sql) + sync()):
                    with self.subTest(name), self.guarded.wire(timeout_s=30) as connection:
                        connection.send(data)
                        frames = connection.until_ready()
                        self.assertIn("Z", wire.tags(frames))
                        self.assertEqual([("1",)], connection.rows("SELECT 1"))
                        self.assertEqual([("1",)], witness.rows("SELECT 1"))
                        self.assertTrue(self.guard.alive())
        self.assert_nothing_changed()

    def test_an_enormous_statement_is_refused_or_runs_and_hides_nothing(self):
        for size in (1 << 20, 15 << 20, 17 << 20, 40 << 20):
            with self.subTest(size), self.guarded.wire(timeout_s=60) as connection:
                frames = connection.ask("SELECT 1 /* " + "x" * size + " */; DELETE FROM orders")
                self.assertEqual(["42501"], wire.sqlstates(frames))
        self.assert_nothing_changed()

    # --- what is not text --------------------------------------------------------------------------------

    def test_settings_that_change_what_text_means(self):
        # With standard_conforming_strings off, \' does not end a string: read otherwise, the DELETE hides in it.
        hidden = r"SELECT 'a\'; DELETE FROM orders; --'"
        shown = r"SELECT 'a\\'; DELETE FROM orders; --'"
        with self.guarded.wire() as connection:
            connection.ask("SET standard_conforming_strings = off")
            for sql in (hidden, shown):
                connection.ask(sql)
            connection.ask("SET standard_conforming_strings = on")
            for sql in (hidden, shown):
                connection.ask(sql)
        self.assert_nothing_changed()
        with self.guarded.wire() as connection:  # sent ahead, so that the answer to SET is not there yet
            connection.send(query("SET standard_conforming_strings = off; SET escape_string_warning = off") + query(shown) +
                            query(hidden) + query("RESET ALL") + query(shown) + query(hidden))
            connection.until_ready(6)
        self.assert_nothing_changed()

    def test_function_calls_are_not_a_way_around(self):
        self.cluster.sql("CREATE OR REPLACE FUNCTION purge() RETURNS int LANGUAGE sql AS 'DELETE FROM orders; SELECT 1'")
        (oid,), = self.cluster.sql("SELECT 'purge'::regproc::oid::int")
        with self.guarded.wire() as connection:
            connection.send(function_call(1397, [b"\xff\xff\xff\xf9"]))  # pg_catalog.abs(-7)
            self.assertEqual("Z", wire.tags(connection.until_ready())[-1])
            connection.send(function_call(oid, []))
            self.assertEqual("Z", wire.tags(connection.until_ready())[-1])

    # --- the audit log -----------------------------------------------------------------------------------

    def test_each_refusal_is_one_line_of_the_audit_log(self):
        with self.guarded.wire(user="app", application_name="audited by a test") as connection:
            connection.ask("DELETE FROM orders -- caf\u00e9")
            connection.ask("SELECT 1")
            connection.send(run("UPDATE items SET quantity = 0") + sync())
            connection.until_ready()
            fields = self.assert_refusal(connection.ask("SELECT 1; DROP TABLE orders"))
            connection.ask("SELEC")
        records = self.refusals(self.new_records())
        self.assertEqual(4, len(records), records)
        text = [str(r) for r in records]
        for record, statement in zip(text, ("DELETE FROM orders -- caf\u00e9", "UPDATE items SET quantity = 0",
                                            "DROP TABLE orders", "SELEC")):
            self.assertIn(statement, record)
            for expected in ("app", "postgres", "audited by a test", "127.0.0.1", "block"):
                self.assertIn(expected, record)
        rule = records[2]["rule"]
        self.assertTrue(rule)
        self.assertIn(rule, fields["M"])
        self.assertEqual(["simple", "extended", "simple", "simple"], [r["protocol"] for r in records])
        for record in records:
            self.assertRegex(record["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.*(Z|\+00:00)$")

    def test_the_log_holds_no_statement_at_its_usual_level(self):
        with self.guarded.wire() as connection:
            connection.ask("SELECT 'a secret in a statement'")
            connection.ask("DELETE FROM orders /* another secret */")
        self.assertNotIn("secret", self.guard.log_text())

    def test_the_audit_log_is_for_its_owner_alone(self):
        with self.guarded.wire() as connection:
            connection.ask("DELETE FROM orders")
        self.assertEqual(0o600, os.stat(self.guard.audit).st_mode & 0o777)

    # --- time --------------------------------------------------------------------------------------------

    def test_a_statement_that_is_slow_to_read_stalls_nobody(self):
        """The scanner takes time with the square of the depth of comments: a bound has to come before it."""
        with self.guarded.wire() as slow, self.guarded.wire() as other:
            slow.send(query("/*" * 150_000))
            before = time.monotonic()
            other.ask("SELECT 1 /* " + "x" * 100_000 + " */")
            slow.until_ready()
            self.assertLess(time.monotonic() - before, 5.0)


if __name__ == "__main__":
    main()
