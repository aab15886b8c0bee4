"""What came of statements, by the audit log, is what came of them by the server: rows, errors, time, and whether it was
committed."""

import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import processes
from support.e2e import EndToEnd, main, needs_guard
from support.guard import Guard, binary

POLICY = """policy:
  default: allow
  rules:
    - { name: bare, match: { relation: items, command: UPDATE }, action: allow, audit: decision }
    - { name: count, match: { command: DELETE }, action: { supervise: { max_rows: 2 } } }
    - { name: never, match: { command: TRUNCATE TABLE }, action: block }
    - { name: note, match: { command: [INSERT, UPDATE, COPY, MERGE, VACUUM] }, action: allow, audit: statement+parameters }
    - { name: slow, match: { function: pg_sleep }, action: allow, audit: statement }
"""


@needs_guard
class AuditOutcomes(EndToEnd):
    configuration = POLICY

    def setUp(self):
        self.cluster.sql("TRUNCATE scratch")
        self.before = len(self.guard.audit_records(outcomes=True))

    def connect(self, guard=None, **options):
        guard = guard or self.guard
        connection = psycopg.connect(host=guard.host, port=guard.port, user="postgres", dbname="postgres",
                                     **{"autocommit": True, **options})
        self.addCleanup(connection.close)
        return connection

    def wait_for(self, count: int, guard=None) -> list:
        """So many lines of outcomes, which come a moment after the client knows; and no more."""
        def found():
            return [one for one in (guard or self.guard).audit_records(outcomes=True)[0 if guard else self.before:]
                    if one["event"] in ("done", "transaction")]
        try:
            processes.wait_until(lambda: len(found()) >= count, 10)
        except TimeoutError:
            pass
        self.assertEqual(count, len(found()), found())
        return found()

    def words(self, count: int) -> list:
        """Of each: what is the same in every run."""
        names = ("outcome", "sqlstate", "tag", "rows", "ended")
        return [tuple(one[name] for name in names if name in one) for one in self.wait_for(count)]

    def test_simple_queries(self):
        connection = self.connect()
        connection.execute("INSERT INTO scratch SELECT i, 'x' FROM generate_series(1, 3) i")
        connection.execute("UPDATE scratch SET payload = 'y' WHERE id < 3; SELECT 1; UPDATE scratch SET payload = 'z'")
        with self.assertRaises(psycopg.errors.DivisionByZero):
            connection.execute("INSERT INTO scratch VALUES (4, 'x'); UPDATE scratch SET id = 1 / 0; UPDATE scratch SET id = 1")
        with self.assertRaises(psycopg.errors.InsufficientPrivilege):
            connection.execute("INSERT INTO scratch VALUES (5, 'x'); TRUNCATE scratch")
        connection.execute("UPDATE items SET quantity = quantity")
        connection.execute("SELECT 1")
        connection.execute("VACUUM scratch")
        self.assertEqual([
            ("completed", "INSERT 0 3", 3, "committed"),
            ("completed", "UPDATE 2", 2, "committed"), ("completed", "UPDATE 3", 3, "committed"),
            ("failed", "22012"), ("not run", "22012"), ("completed", "INSERT 0 1", 1, "rolled back"),
            ("not run",),
            ("completed", "VACUUM", "committed")], self.words(8))
        self.assertEqual([(3,)], self.cluster.sql("SELECT count(*) FROM scratch"))
        # Each is joined to its decision.
        decided = {one["number"]: one for one in self.guard.audit_records()[-10:]}
        for done in self.wait_for(8):
            decision = decided[done["number"]]
            for name in ("session", "client", "user", "rule", "decision", "command", "fingerprint"):
                self.assertEqual(decision[name], done[name])
            self.assertNotIn("statement", done)

    def test_extended_protocol_and_pipelines(self):
        connection = self.connect()
        insert = "INSERT INTO scratch VALUES (%s, 'x')"
        connection.execute(insert, (1,))
        with self.assertRaises(psycopg.errors.DivisionByZero):  # as the server plans it, which is at its Bind
            connection.execute("INSERT INTO scratch VALUES (1 / %s, 'x')", (0,))
        with connection.pipeline():
            connection.execute(insert, (2,))
            connection.execute(insert, (3,))
        with self.assertRaises(psycopg.errors.DivisionByZero):
            connection.cursor().executemany("INSERT INTO scratch SELECT 1 / i FROM generate_series(%s::int, 1) i",
                                            [(1,), (0,), (1,)])
        one = ("completed", "INSERT 0 1", 1)
        # What is skipped has the SQLSTATE only if the server was sent it before it told of the error.
        found = [words[:1] if words[0] == "not run" else words for words in self.words(7)]
        self.assertEqual(sorted([one + ("committed",), ("not run",), one + ("committed",), one + ("committed",),
                                 ("failed", "22012"), ("not run",), one + ("rolled back",)], key=str), sorted(found, key=str))
        self.assertEqual([(1,), (2,), (3,)], self.cluster.sql("SELECT id FROM scratch ORDER BY id"))

    def test_blocks_and_savepoints(self):
        with self.connect(autocommit=False) as connection:
            connection.execute("INSERT INTO scratch VALUES (1, 'x')")
            connection.commit()
            connection.execute("INSERT INTO scratch VALUES (%s, 'x')", (2,))
            connection.rollback()
            connection.execute("INSERT INTO scratch VALUES (3, 'x')")
            with self.assertRaises(psycopg.errors.DivisionByZero):
                connection.execute("SELECT 1 / 0")
            connection.commit()  # which the server answers by ROLLBACK
            connection.execute("INSERT INTO scratch VALUES (4, 'x')")
            connection.execute("SAVEPOINT s; INSERT INTO scratch VALUES (5, 'x'); ROLLBACK TO s")
            connection.commit()
            connection.execute("INSERT INTO scratch VALUES (6, 'x')")
            connection.execute("DELETE FROM scratch WHERE id = 1")
        one = ("completed", "INSERT 0 1", 1)
        self.assertEqual([one, ("committed",), one, ("rolled back",), one, ("rolled back",), one, one,
                          ("committed in part",), one, ("completed", "DELETE 1", 1), ("committed",)], self.words(12))
        found = self.wait_for(12)
        self.assertEqual([1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 5, 5], [line["transaction"] for line in found])
        self.assertEqual([1, 1, 1, 2, 2], [line["statements"] for line in found if line["event"] == "transaction"])
        self.assertEqual([(4,), (6,)], self.cluster.sql("SELECT id FROM scratch ORDER BY id"))

    def test_what_is_supervised(self):
        self.cluster.sql("INSERT INTO scratch SELECT i, 'x' FROM generate_series(1, 9) i")
        for prepared in (False, True):
            connection = self.connect()
            cursor = connection.cursor(binary=prepared)
            cursor.execute(f"DELETE FROM scratch WHERE id = {1 + prepared}")
            with self.assertRaises(psycopg.errors.InsufficientPrivilege):
                cursor.execute("DELETE FROM scratch WHERE id > 3")
        self.assertEqual(2 * [("completed", "DELETE 1", 1, "committed"), ("completed", "DELETE 6", 6, "rolled back")],
                         self.words(4))
        self.assertEqual([(7,)], self.cluster.sql("SELECT count(*) FROM scratch"))
        effects = [one for one in self.guard.audit_records()[-10:] if one["event"] == "effects"]
        self.assertEqual([1, 2, 1, 2], [one["number"] for one in effects])

    def test_copy(self):
        connection = self.connect()
        with connection.cursor().copy("COPY scratch FROM STDIN") as copy:
            copy.write(b"1\tone\n2\ttwo\n")
        with connection.cursor().copy("COPY scratch TO STDOUT") as copy:
            self.assertEqual(2, len(list(copy.rows())))
        with self.assertRaises(psycopg.errors.InvalidTextRepresentation):
            with connection.cursor().copy("COPY scratch FROM STDIN") as copy:
                copy.write(b"x\tone\n")
        self.assertEqual([("completed", "COPY 2", 2, "committed"), ("completed", "COPY 2", 2, "committed"),
                          ("failed", "22P02")], self.words(3))

    def test_what_takes_its_time_and_what_is_cancelled(self):
        connection = self.connect()
        connection.execute("SELECT pg_sleep(0.2)")
        connection.execute("SET statement_timeout = '100ms'")
        with self.assertRaises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(5)")
        slept, cancelled = self.wait_for(2)
        self.assertEqual(("completed", "SELECT 1", "committed"), (slept["outcome"], slept["tag"], slept["ended"]))
        self.assertEqual(("failed", "57014"), (cancelled["outcome"], cancelled["sqlstate"]))
        self.assertGreaterEqual(slept["duration_us"], 200_000)
        self.assertGreaterEqual(cancelled["duration_us"], 100_000)
        self.assertLess(cancelled["duration_us"], 5_000_000)

    def test_sessions_that_are_cut_off(self):
        connection = self.connect(autocommit=False)
        connection.execute("INSERT INTO scratch VALUES (1, 'x')")
        connection.close()
        self.wait_for(2)
        asleep = self.connect()
        pid = asleep.info.backend_pid

        def sleeps():
            with self.assertRaises(psycopg.OperationalError):
                asleep.execute("SELECT pg_sleep(20)")
        thread = threading.Thread(target=sleeps)
        thread.start()
        self.cluster.wait_for_backends(1, f"pid = {pid} AND wait_event = 'PgSleep'")
        self.cluster.sql(f"SELECT pg_terminate_backend({pid})")
        thread.join()
        self.assertEqual([("completed", "INSERT 0 1", 1), ("rolled back",), ("unknown",)], self.words(3))
        self.assertEqual([(0,)], self.cluster.sql("SELECT count(*) FROM scratch"))

    def test_a_server_that_is_killed(self):
        connection = self.connect(autocommit=False)
        connection.execute("INSERT INTO scratch VALUES (1, 'x')")
        asleep = self.connect()
        pid = asleep.info.backend_pid
        starts = self.cluster.starts()
        thread = threading.Thread(target=lambda: self.assertRaises(
            psycopg.OperationalError, asleep.execute, "SELECT pg_sleep(20)"))
        thread.start()
        self.cluster.wait_for_backends(1, f"pid = {pid} AND wait_event = 'PgSleep'")
        subprocess.run(["kill", "-KILL", str(pid)], check=True)
        thread.join()
        self.cluster.wait_for_restart(starts)
        found = self.wait_for(3)
        self.assertEqual([("completed", 1), ("rolled back", 1), ("unknown", None)],
                         sorted((one["outcome"], one.get("transaction")) for one in found))

    def test_every_line_of_pgbench_says_what_the_server_says(self):
        with open(self.directory / "bench.sql", "w") as script:
            script.write("\\set id random(1, 1000000000)\n"
                         "INSERT INTO scratch VALUES (:id, 'auto');\n"
                         "BEGIN;\nINSERT INTO scratch VALUES (:id, 'block');\nEND;\n"
                         "BEGIN;\nINSERT INTO scratch VALUES (:id, 'void');\nROLLBACK;\n")
        for mode in ("prepared", "simple"):
            with self.subTest(mode):
                guard = Guard(self.cluster, configuration=POLICY)
                self.addCleanup(guard.erase)
                self.cluster.sql("TRUNCATE scratch")
                target = type(self.guarded)("guarded", guard.host, guard.port)
                done = target.program("pgbench", "-n", "-M", mode, "-c", "4", "-t", "25", "-f", self.directory / "bench.sql")
                self.assertEqual(0, done.returncode, done.stderr)
                found = self.wait_for(500, guard)
                self.assertEqual(100, len([one for one in found if one.get("ended") == "committed"]))
                ends = [one["outcome"] for one in found if one["event"] == "transaction"]
                self.assertEqual((100, 100), (ends.count("committed"), ends.count("rolled back")))
                self.assertEqual([("auto", 100), ("block", 100)],
                                 self.cluster.sql("SELECT payload, count(*) FROM scratch GROUP BY payload ORDER BY payload"))
                numbers = [(one["session"], one["number"]) for one in found if one["event"] == "done"]
                self.assertEqual(300, len(set(numbers)))
                decided = {(one["session"], one["number"]): one for one in guard.audit_records()}
                for session, number in numbers:
                    self.assertIn("INSERT INTO scratch", decided[session, number]["statement"])
                guard.stop()  # which holds the log against its schema

    def test_search_shows_it(self):
        connection = self.connect()
        connection.execute("INSERT INTO scratch VALUES (1, 'needle')")
        with connection.transaction():
            connection.execute("INSERT INTO scratch VALUES (2, 'needle')")
        self.wait_for(3)
        found = subprocess.run([binary(), "audit", "search", "--text", "'needle'", self.guard.audit],
                               capture_output=True, text=True)
        self.assertEqual(0, found.returncode, found.stderr)
        heading, *lines = found.stdout.splitlines()
        self.assertIn("OUTCOME", heading)
        for line in lines:
            self.assertRegex(line, r"completed, 1 row, [0-9.]+ (us|ms|s), committed +INSERT INTO scratch")
        self.assertEqual(2, len(lines))


if __name__ == "__main__":
    main()
