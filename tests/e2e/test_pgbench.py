"""pgbench in its three protocol modes, with pipelines, many clients and a connection for each transaction; thousands of
short connections."""

import os
import re
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import fake_server, sanitizers
from support.e2e import EndToEnd, Guard, Target, main, needs_guard
from support.processes import status_kib, wait_until

ASKS_THE_SERVER = bool(os.environ.get("PGCHAPERONE_E2E_POLICY"))  # by the policy of guard.py
MODES = ("simple", "extended", "prepared")
PIPELINE = r"""
\set aid random(1, 100000)
\startpipeline
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, :aid, 1, CURRENT_TIMESTAMP);
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
\endpipeline
"""
GSET = r"""
SELECT 1 AS one, 2 AS two \gset x_
SELECT :x_one + :x_two AS three \; SELECT 4 AS four \aset
BEGIN;
SELECT :three + :four;
END;
"""


class Pgbench(EndToEnd):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        done = cls.guarded.program("pgbench", "-i", "-s", "1", "-q", "-I", "dtgvp")
        assert done.returncode == 0, done.stderr

    def bench(self, *arguments, transactions, target=None):
        done = (target or self.guarded).program("pgbench", "-n", *arguments, timeout_s=240)
        self.assertEqual(0, done.returncode, done.stderr)
        processed = re.search(r"transactions actually processed: (\d+)/", done.stdout)
        self.assertEqual(transactions, int(processed.group(1)), done.stdout + done.stderr)
        self.assertNotIn("ERROR", done.stderr)
        self.assertRegex(done.stdout, r"number of failed transactions: 0 ")
        return done

    def script(self, name, text):
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def test_initialisation_filled_the_tables(self):
        self.assertEqual([(100000,)], self.cluster.sql("SELECT count(*) FROM pgbench_accounts"))

    def test_the_standard_transaction_in_every_mode(self):
        for mode in MODES:
            with self.subTest(mode):
                before = self.cluster.sql("SELECT count(*) FROM pgbench_history")[0][0]
                self.bench("-M", mode, "-c", "4", "-t", "50", transactions=200)
                self.assertEqual(before + 200, self.cluster.sql("SELECT count(*) FROM pgbench_history")[0][0])

    def test_selects_in_every_mode(self):
        for mode in MODES:
            with self.subTest(mode):
                self.bench("-S", "-M", mode, "-c", "8", "-j", "2", "-t", "400", transactions=3200)

    def test_pipelines(self):
        path = self.script("pipeline.sql", PIPELINE)
        for mode in ("extended", "prepared"):
            with self.subTest(mode):
                self.bench("-M", mode, "-c", "4", "-t", "100", "-f", path, transactions=400)

    def test_long_pipelines(self):
        path = self.script("long.sql", "\\startpipeline\n" + "SELECT repeat('x', 1000);\n" * 400 + "\\endpipeline\n")
        for mode in ("extended", "prepared"):
            with self.subTest(mode):
                self.bench("-M", mode, "-c", "2", "-t", "10", "-f", path, transactions=20)

    def test_results_into_variables(self):
        path = self.script("gset.sql", GSET)
        self.bench("-M", "simple", "-c", "2", "-t", "100", "-f", path, transactions=200)

    def test_a_connection_for_each_transaction(self):
        done = self.bench("-S", "-C", "-c", "8", "-j", "2", "-t", "50", transactions=400)
        self.assertNotIn("could not connect", done.stderr)

    # Of connections that come and go: one statement for all of them, as others would fill the cache of judged
    # statements, which is no leak.
    MANY = ("-C", "-M", "prepared", "-c", "8", "-j", "2")

    @needs_guard
    @unittest.skipIf(sanitizers.ON, "of the memory nothing can be said")
    @unittest.skipIf(ASKS_THE_SERVER, "the guard has questions that only a real server can answer")
    def test_thousands_of_connections_leave_nothing_behind(self):
        # A real server takes ten times as long to begin a session as all others that take part.
        server = fake_server.FakeServer(fake_server.extended)
        self.addCleanup(server.stop)
        guard = Guard(server)
        self.addCleanup(guard.erase)
        target = Target("fake", guard.host, guard.port)
        path = self.script("row.sql", "SELECT c FROM t;\n")

        def connect(count):
            self.bench(*self.MANY, "-f", path, "-t", count // 8, transactions=count, target=target)
            wait_until(lambda: not any(thread.is_alive() for thread in server.threads), 10, "the sessions to end")

        connect(1000)
        before = status_kib(guard.pid, "VmRSS")
        connect(2000)
        self.assertLess(status_kib(guard.pid, "VmRSS") - before, 1000, "KiB grown by 2,000 connections")

    @needs_guard
    @unittest.skipIf(sanitizers.ON, "of the memory nothing can be said")
    @unittest.skipUnless(ASKS_THE_SERVER, "thousands of them are in the test above")
    def test_hundreds_of_connections_leave_nothing_behind(self):
        self.bench("-S", *self.MANY, "-t", "30", transactions=240)
        self.cluster.wait_for_backends(0)
        before = status_kib(self.guard.pid, "VmRSS")
        self.bench("-S", *self.MANY, "-t", "60", transactions=480)
        self.cluster.wait_for_backends(0)
        self.assertLess(status_kib(self.guard.pid, "VmRSS") - before, 500, "KiB grown by 480 connections")


if __name__ == "__main__":
    main()
