"""The virtual schema before a real server, as clients see it: psql and psycopg, in the simple and the extended
protocol, with Describe, binary results, pipelines, transactions and other encodings."""

import json
import sys
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.e2e import EndToEnd, main, needs_guard

POLICY = """policy:
  approvers: [carol]
  rules:
    - name: nobody-erases
      match: { command: DELETE, unbounded: true }
      action: block
"""
PENDING = ["ticket", "state", "requester", "database", "opened", "expires", "waiting", "command", "effects", "rule",
           "reason", "approvals", "statement"]
TEXT, INT8 = 25, 20
PROTOCOLS = {"simple": psycopg.ClientCursor, "extended": psycopg.Cursor}


@needs_guard
class VirtualSchema(EndToEnd):
    configuration = POLICY

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster.sql("CREATE ROLE carol LOGIN")
        # What the virtual schema hides.
        cls.cluster.sql("CREATE SCHEMA chaperone")
        cls.cluster.sql("CREATE TABLE done (what text)")
        cls.cluster.sql("CREATE PROCEDURE chaperone.approve(text) LANGUAGE sql AS "
                        "$$ INSERT INTO public.done VALUES ($1) $$")

    def connect(self, **options):
        factory = options.pop("cursor_factory", psycopg.Cursor)
        options.setdefault("autocommit", True)
        return psycopg.connect(self.guarded.dsn(), prepare_threshold=None, cursor_factory=factory, **options)

    def test_psql_shows_and_calls(self):
        result = self.guarded.psql(r"""
\pset format unaligned
SHOW chaperone.pending;
SHOW chaperone.version \gdesc
SELECT 1 \; SHOW chaperone.stats \; SELECT 2;
CALL chaperone.explain('DELETE FROM done');
\set VERBOSITY verbose
CALL chaperone.approve('K7');
SHOW chaperone.penidng;
CALL chaperone.aprove('K7');
SELECT 'still here';
""")
        self.assertEqual(result.stdout.splitlines()[1], "|".join(PENDING), result.stdout + result.stderr)
        self.assertIn("policy_version|bigint", result.stdout)
        self.assertIn("tickets_opened|0", result.stdout)
        self.assertIn("1|DELETE|block|nobody-erases|", result.stdout)
        self.assertIn("still here", result.stdout)
        self.assertRegex(result.stderr, r"ERROR: +42704: pgchaperone: .*K7")
        self.assertIn("42704: pgchaperone: there is no chaperone.penidng to show; there are: pending, ticket_<id>,",
                      result.stderr)
        self.assertIn("42883: pgchaperone: there is no procedure chaperone.aprove", result.stderr)
        self.assertEqual(self.cluster.sql("SELECT count(*) FROM done"), [(0,)])

    def test_answers_have_columns_and_types(self):
        for protocol, factory in PROTOCOLS.items():
            with self.subTest(protocol), self.connect(cursor_factory=factory) as connection:
                cursor = connection.execute("SHOW chaperone.pending")
                self.assertEqual([column.name for column in cursor.description], PENDING)
                self.assertEqual(cursor.fetchall(), [])
                row = connection.execute("SHOW chaperone.version").fetchone()
                self.assertIsInstance(row[3], int)
                cursor = connection.execute("SHOW chaperone.sessions")
                self.assertEqual(cursor.description[0].type_code, INT8)
                mine = [session for session in cursor.fetchall() if session[1] == "postgres"]
                self.assertTrue(mine)
                self.assertIs(mine[0][5], False)
                self.assertIsNotNone(mine[0][6].tzinfo)

    def test_parameters_and_binary_results(self):
        with self.connect() as connection:
            cursor = connection.cursor(binary=True)
            cursor.execute("CALL chaperone.explain(%b)", ["DELETE FROM done; SELECT 'é€😀'"])
            rows = cursor.fetchall()
            self.assertEqual([row[:3] for row in rows], [(1, "DELETE", "block"), (2, "SELECT", "allow")])
            self.assertEqual(rows[1][5], "SELECT 'é€😀'")
            with self.assertRaises(psycopg.errors.NullValueNotAllowed):
                connection.execute("CALL chaperone.explain(%s)", [None])
            with self.assertRaises(psycopg.errors.FeatureNotSupported):
                connection.execute("CALL chaperone.explain(%b)", [7])
            self.assertEqual(connection.execute("SELECT 1").fetchone(), (1,))

    def test_describe_of_a_prepared_statement(self):
        with self.connect() as connection:
            raw = connection.pgconn
            raw.prepare(b"s", b"CALL chaperone.deny($1, comment => $2)")
            described = raw.describe_prepared(b"s")
            self.assertEqual(described.nparams, 2)
            self.assertEqual([described.param_type(i) for i in range(2)], [TEXT, TEXT])
            self.assertEqual([described.fname(i) for i in range(described.nfields)], [b"ticket", b"state", b"message"])
            for _ in range(3):
                result = raw.exec_prepared(b"s", [b"K7", b"no"])
                self.assertEqual(result.error_field(psycopg.pq.DiagnosticField.SQLSTATE), b"42704")
            result = raw.exec_prepared(b"s", [b"K7"])
            self.assertIn(b"bind message supplies 1 parameters, but prepared statement \"s\" requires 2",
                          result.error_message)

    def test_a_pipeline_keeps_its_order(self):
        with self.connect() as connection, connection.pipeline():
            cursors = [connection.execute(sql) for sql in
                       ("SELECT 1", "SHOW chaperone.stats", "SELECT 2", "CALL chaperone.explain('SELECT 1')",
                        "SHOW chaperone.rules", "SELECT 3")]
            rows = [cursor.fetchall() for cursor in cursors]
            self.assertEqual([rows[0], rows[2], rows[5]], [[(1,)], [(2,)], [(3,)]])
            self.assertEqual(rows[3][0][2], "allow")
            self.assertEqual(rows[4][0][1], "nobody-erases")

    def test_an_error_fails_the_transaction(self):
        for protocol, factory in PROTOCOLS.items():
            with self.subTest(protocol), self.connect(cursor_factory=factory, autocommit=False) as connection:
                connection.execute("CREATE TEMP TABLE IF NOT EXISTS t (i int)")
                connection.execute("SHOW chaperone.version")
                with self.assertRaises(psycopg.errors.UndefinedObject):
                    connection.execute("CALL chaperone.approve('K7')")
                for sql in ("SHOW chaperone.version", "CALL chaperone.explain('SELECT 1')", "SELECT 1"):
                    with self.assertRaises(psycopg.errors.InFailedSqlTransaction):
                        connection.execute(sql)
                connection.rollback()
                self.assertEqual(connection.execute("SELECT 1").fetchone(), (1,))

    def test_a_string_of_several_statements_is_one_transaction(self):
        with self.connect(cursor_factory=psycopg.ClientCursor) as connection:
            connection.execute("CREATE TEMP TABLE t (i int)")
            with self.assertRaises(psycopg.errors.UndefinedObject):
                connection.execute("INSERT INTO t VALUES (1); CALL chaperone.approve('K7'); INSERT INTO t VALUES (2)")
            self.assertEqual(connection.execute("SELECT count(*) FROM t").fetchone(), (0,))
            connection.execute("INSERT INTO t VALUES (1); SHOW chaperone.version; INSERT INTO t VALUES (2)")
            self.assertEqual(connection.execute("SELECT count(*) FROM t").fetchone(), (2,))

    def test_other_encodings(self):
        for protocol, factory in PROTOCOLS.items():
            with self.subTest(protocol), self.connect(cursor_factory=factory) as connection:
                connection.execute("SET client_encoding = 'LATIN1'")
                row = connection.execute("CALL chaperone.explain('SELECT ''x''')").fetchone()
                self.assertEqual(row[5], "SELECT 'x'")
                connection.execute("SET standard_conforming_strings = off")
                row = connection.execute("CALL chaperone.explain('SELECT 1')").fetchone()
                self.assertEqual(row[5], "SELECT 1")

    def test_the_setting_of_the_reason_is_the_servers(self):
        with self.connect() as connection:
            connection.execute("SET chaperone.reason = 'night shift'")
            self.assertEqual(connection.execute("SHOW chaperone.reason").fetchone(), ("night shift",))

    def test_calls_leave_records_and_questions_do_not(self):
        with self.connect() as connection:
            before = len(self.guard.audit_records())
            connection.execute("SHOW chaperone.version")
            connection.execute("CALL chaperone.explain(%s)", ["SELECT 7"])
            records = self.guard.audit_records()[before:]
        self.assertEqual([(record["decision"], record["statement"]) for record in records],
                         [("answer", "CALL chaperone.explain($1)")], json.dumps(records))

    def test_only_operators_reload(self):
        with self.connect() as connection, self.assertRaises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CALL chaperone.reload()")


if __name__ == "__main__":
    main()
