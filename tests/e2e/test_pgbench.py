"""pgbench in its three protocol modes, with pipelines, many clients and a connection for each transaction; thousands of
short connections."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.e2e import EndToEnd, main, needs_guard
from support.processes import status_kib

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

    def bench(self, *arguments, transactions):
        done = self.guarded.program("pgbench", "-n", *arguments, timeout_s=240)
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
        done = self.bench("-S", "-C", "-c", "8", "-j", "2", "-t", "250", transactions=2000)
        self.assertNotIn("could not connect", done.stderr)

    @needs_guard
    def test_thousands_of_connections_leave_nothing_behind(self):
        # One statement for all of them: others would fill the cache of judged statements, which is no leak.
        same_text = ("-S", "-C", "-M", "prepared", "-c", "8", "-j", "2")
        self.bench(*same_text, "-t", "125", transactions=1000)
        self.cluster.wait_for_backends(0)
        before = status_kib(self.guard.pid, "VmRSS")
        self.bench(*same_text, "-t", "250", transactions=2000)
        self.cluster.wait_for_backends(0)
        self.assertLess(status_kib(self.guard.pid, "VmRSS") - before, 1000,
                        "KiB grown by 2,000 connections")


if __name__ == "__main__":
    main()
