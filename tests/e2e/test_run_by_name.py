"""What a session runs by a name it has given (EXECUTE, FETCH) is judged as what that is: limits, records, tickets and time
limits hold as if its text had been sent, whichever protocol gave the name."""

import sys
import threading
import time
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.e2e import EndToEnd, main, needs_guard
from support.processes import wait_until

POLICY = """policy:
  default: allow
  approvers: [approver]
  rules:
    - { name: ask, match: { writes: big }, action: { hold: { wait: 10s } } }
    - { name: counted, match: { command: [UPDATE, DELETE] }, action: { supervise: { max_rows: 5 } } }
    - name: noted
      match: { relation: scratch }
      action: allow
      audit: statement+parameters
      statement_timeout: 700ms
"""
ROWS = 20


@needs_guard
class RunByName(EndToEnd):
    configuration = POLICY

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster.sql("CREATE ROLE approver LOGIN")
        cls.cluster.sql("CREATE TABLE big AS SELECT generate_series(1, 20) AS id")

    def setUp(self):
        self.cluster.sql(f"TRUNCATE scratch; INSERT INTO scratch SELECT g, 'a' FROM generate_series(1, {ROWS}) g")

    def connect(self, user: str = "postgres"):
        connection = psycopg.connect(host=self.guarded.host, port=self.guarded.port, user=user, dbname="postgres",
                                     autocommit=True)
        self.addCleanup(connection.close)
        return connection

    def rows(self) -> int:
        return self.cluster.sql("SELECT count(*) FROM scratch")[0][0]

    def test_limits_hold_for_execute(self):
        connection = self.connect()
        connection.execute("PREPARE gone(int) AS DELETE FROM scratch WHERE id <= $1")
        self.assertEqual("DELETE 3", connection.execute("EXECUTE gone(3)").statusmessage)
        for how in ("EXECUTE gone(15)", 'EXECUTE "gone"(15)', "EXPLAIN ANALYZE EXECUTE gone(15)", "SELECT 1; EXECUTE gone(15)",
                    "PREPARE other AS DELETE FROM scratch; EXECUTE other"):
            with self.subTest(how), self.assertRaisesRegex(psycopg.Error, r"\(limit 5\); rolled back"):
                connection.execute(how)
            self.assertEqual(ROWS - 3, self.rows())
        # The name stands for what was given last.
        connection.execute("DEALLOCATE gone")
        connection.execute("PREPARE gone(int) AS SELECT count(*) FROM scratch WHERE id > $1")
        self.assertEqual((ROWS - 3,), connection.execute("EXECUTE gone(0)").fetchone())

    def test_execute_of_what_the_protocol_prepared(self):
        connection = self.connect()
        connection.pgconn.prepare(b"by_parse", b"DELETE FROM scratch WHERE id > $1")
        with self.assertRaisesRegex(psycopg.Error, r"\(limit 5\); rolled back"):
            connection.execute("EXECUTE by_parse(0)")
        self.assertEqual(ROWS, self.rows())

    def test_each_execute_has_its_record(self):
        connection = self.connect()
        connection.execute("PREPARE one AS INSERT INTO scratch VALUES (100, 'x')")
        before = len(self.guard.audit_records())
        for _ in range(3):
            connection.execute("EXECUTE one")
        new = self.guard.audit_records()[before:]
        self.assertEqual([("noted", "EXECUTE", "EXECUTE one")] * 3,
                         [(one["rule"], one["command"], one["statement"]) for one in new])

    def test_each_execute_asks_anew(self):
        connection, approver = self.connect(), self.connect(user="approver")
        answers = []

        def ask(statement):
            try:
                answers.append(connection.execute(statement).statusmessage)
            except psycopg.Error as error:
                answers.append(str(error))

        for statement, decision, answer in (("PREPARE empty AS DELETE FROM big", "approve", "PREPARE"),
                                            ("EXECUTE empty", "deny", "denied"), ("EXECUTE empty", "approve", "DELETE 20")):
            with self.subTest(statement, decision=decision):
                thread = threading.Thread(target=ask, args=(statement,))
                thread.start()
                wait_until(lambda: approver.execute("SHOW chaperone.pending").fetchall(), 8, "a ticket")
                ticket = approver.execute("SHOW chaperone.pending").fetchone()[0]
                shown = str(approver.execute(f"SHOW chaperone.ticket_{ticket}").fetchall())
                self.assertIn("DELETE FROM big", shown)
                approver.execute(f"CALL chaperone.{decision}('{ticket}', 'seen')")
                thread.join()
                self.assertIn(answer, answers[-1])
        self.assertEqual([(0,)], self.cluster.sql("SELECT count(*) FROM big"))
        # A Bind of it has no text that could be shown.
        self.assertIn(b"can't be asked for where a Bind runs what SQL has prepared",
                      connection.pgconn.exec_prepared(b"empty", []).error_message)
        self.cluster.sql("INSERT INTO big SELECT generate_series(1, 20)")

    def test_time_limits_hold_for_execute_and_fetch(self):
        connection = self.connect()
        connection.execute("PREPARE slow AS SELECT pg_sleep(0.2) FROM scratch")
        began = time.monotonic()
        with self.assertRaises(psycopg.errors.QueryCanceled):
            connection.execute("EXECUTE slow")
        with connection.transaction(force_rollback=True):
            connection.execute("DECLARE c CURSOR FOR SELECT pg_sleep(0.2) FROM scratch")
            with self.assertRaises(psycopg.errors.QueryCanceled):
                connection.execute("FETCH ALL FROM c")
        self.assertLess(time.monotonic() - began, 3.9)

    def test_beyond_what_is_kept_a_name_may_be_anything(self):
        connection = self.connect()
        with connection.pipeline():
            for number in range(1001):
                connection.execute(f"PREPARE p{number} AS SELECT {number}")
        with self.assertRaisesRegex(psycopg.Error, "more in this session than pgchaperone keeps"):
            connection.execute("EXECUTE p1000")
        # That holds for this name alone, and for as long as it stands for that.
        self.assertEqual((0,), connection.execute("EXECUTE p0").fetchone())
        for taken_back in ("DEALLOCATE p1000", "DEALLOCATE p0; DEALLOCATE p1", "PREPARE b AS SELECT 7; EXECUTE b; DEALLOCATE b",
                           "PREPARE p1000 AS SELECT 8"):
            connection.execute(taken_back)
        self.assertEqual((8,), connection.execute("EXECUTE p1000").fetchone())
        for number in range(2):
            connection.execute(f"DECLARE c{number} CURSOR WITH HOLD FOR SELECT 9 + {number}")
        connection.execute("CLOSE ALL")
        # Nor is a statement read that runs more of them than can be followed.
        connection.execute("DISCARD ALL")
        connection.execute("PREPARE gone AS DELETE FROM scratch")
        many = " ".join(f"EXECUTE 'EXECUTE n{number}';" for number in range(64))
        with self.assertRaisesRegex(psycopg.Error, "runs more than 64 others by name"):
            connection.execute(f"DO $$ BEGIN {many} EXECUTE 'EXECUTE gone'; END $$")
        self.assertEqual(ROWS, self.rows())
        with self.assertRaisesRegex(psycopg.Error, r"\(limit 5\); rolled back"):
            connection.execute("EXECUTE gone")

    def test_what_is_not_known_here_runs_as_before(self):
        connection = self.connect()
        with self.assertRaises(psycopg.errors.InvalidSqlStatementName):
            connection.execute("EXECUTE never_given")
        connection.execute("PREPARE read AS SELECT id FROM big ORDER BY id")
        self.assertEqual([(number,) for number in range(1, 21)], connection.execute("EXECUTE read").fetchall())


if __name__ == "__main__":
    main()
