"""Held statements under real drivers, which know nothing of it: what they get is what they get from the server, only
later; and a client with a time limit of its own learns of its ticket before."""

import asyncio
import json
import subprocess
import sys
import threading
import unittest
from pathlib import Path

import asyncpg
import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import test_driver_jdbc
import test_driver_node
from support import processes
from support.approval import FILL_SQL, Held
from support.e2e import main, needs_guard

HERE = Path(__file__).resolve().parent


class Approver:
    """Somebody who says yes to all that waits."""

    def __init__(self, target):
        self.dsn = target.dsn(user="bob")
        self.tickets = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)

    def work(self):
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            while not self.over.wait(0.01):
                for row in connection.execute("SHOW chaperone.pending").fetchall():
                    try:
                        connection.execute("CALL chaperone.approve(%s)", [row[0]])
                        self.tickets.append(row[0])
                    except psycopg.errors.ObjectNotInPrerequisiteState:
                        pass

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join(10)


@needs_guard
class Drivers(Held):
    def same_approved(self, play):
        """Runs `play(target)` directly, and through the guard with somebody who approves all."""
        direct = play(self.direct)
        self.sql(FILL_SQL)
        with Approver(self.guarded) as approver:
            guarded = play(self.guarded)
        self.assertEqual(direct, guarded, "direct (first) and guarded (second) differ")
        self.approved = approver.tickets
        return guarded

    # --- psycopg -----------------------------------------------------------------------------------------

    def connect(self, target=None, **options):
        return psycopg.connect((target or self.guarded).dsn(user="clerk", options="-c search_path=held"), **options)

    def test_psycopg_in_its_ways_to_run_a_statement(self):
        def play(target):
            results = []
            for autocommit in (True, False):
                for cursor in (psycopg.Cursor, psycopg.ClientCursor):
                    with self.connect(target, autocommit=autocommit, cursor_factory=cursor) as c:
                        results.append(c.execute("UPDATE jobs SET state = 'a'").rowcount)
                        results.append(c.execute("UPDATE jobs SET state = %s RETURNING id, state", ["ü"]).fetchall())
                        if cursor is psycopg.Cursor:
                            results.append(c.execute("UPDATE jobs SET state = %s RETURNING id", ["b"],
                                                     binary=True).fetchall())
                            for i in range(3):
                                results.append(c.execute("UPDATE jobs SET state = %s WHERE true", [str(i)],
                                                         prepare=True).rowcount)
                        cursor_of_many = c.cursor()
                        cursor_of_many.executemany("UPDATE jobs SET state = %s", [("x",), ("y",)])
                        results.append(cursor_of_many.rowcount)
                        with c.transaction():
                            results.append(c.execute("DELETE FROM jobs WHERE true").rowcount)
                            raise psycopg.Rollback()
                        results.append(c.execute("SELECT state, count(*) FROM jobs GROUP BY 1").fetchall())
            return results

        self.same_approved(play)
        self.assertGreater(len(self.approved), 20)

    def test_psycopg_in_a_pipeline(self):
        def play(target):
            results = []
            for autocommit in (True, False):
                with self.connect(target, autocommit=autocommit) as c:
                    with c.pipeline() as pipeline:
                        cursors = [c.execute(sql) for sql in (
                            "INSERT INTO log VALUES (1, 'x')", "UPDATE jobs SET state = 'p' RETURNING id", "SELECT 1")]
                        pipeline.sync()
                        cursors.append(c.execute("DELETE FROM jobs WHERE %s", [True]))
                        results += [(k.rowcount, k.fetchall() if k.description else None) for k in cursors]
                    if not autocommit:
                        c.rollback()
            return results

        self.same_approved(play)
        self.assertEqual(4, len(self.approved))

    def test_psycopg_reads_the_words_and_the_notice_at_once(self):
        notices = []
        with self.connect(autocommit=True) as c:
            told = threading.Event()
            c.add_notice_handler(lambda n: (notices.append(n.message_primary), told.set()))
            errors = []

            def work():
                try:
                    c.execute("UPDATE jobs SET state = %s", ["live"])
                except psycopg.Error as error:
                    errors.append(error)

            thread = threading.Thread(target=work)
            thread.start()
            self.assertTrue(told.wait(10))
            (ticket,) = self.pending()
            self.assertIn(ticket, notices[0])
            self.decide(ticket, "deny", "nö")
            thread.join(10)
            self.assertIsInstance(errors[0], psycopg.errors.InsufficientPrivilege)
            self.assertTrue(errors[0].diag.message_primary.endswith(f"was denied by bob (ticket {ticket}): nö"))
            told.clear()
            thread = threading.Thread(target=work)
            thread.start()
            self.assertTrue(told.wait(10))
            c.cancel()
            thread.join(10)
            self.assertIsInstance(errors[1], psycopg.errors.QueryCanceled)
            self.assertEqual((1,), c.execute("SELECT 1").fetchone())
        self.assertEqual({}, self.pending())

    def test_psycopg_runs_again_what_was_not_approved_in_time(self):
        with self.connect() as c:
            with self.assertRaisesRegex(psycopg.errors.InsufficientPrivilege, "not approved in time"):
                c.execute("UPDATE soon SET state = %s", ["live"])
            c.rollback()
            (ticket,) = self.pending()
            self.decide(ticket)
            self.assertEqual(20, c.execute("UPDATE soon SET state = %s", ["live"]).rowcount)
            c.commit()
            with self.assertRaisesRegex(psycopg.errors.InsufficientPrivilege, "not approved in time"):
                c.execute("UPDATE soon SET state = %s", ["live"])

    # --- asyncpg -----------------------------------------------------------------------------------------

    async def asyncpg(self, target, **options):
        return await asyncpg.connect(host=target.host, port=target.port, user="clerk", database="postgres",
                                     server_settings={"search_path": "held"}, timeout=15, **options)

    def test_asyncpg(self):
        async def go(target):
            c = await self.asyncpg(target)
            try:
                results = [await c.execute("UPDATE jobs SET state = 'a'"),
                           [tuple(r) for r in await c.fetch("UPDATE jobs SET state = $1 RETURNING id", "b")]]
                statement = await c.prepare("UPDATE jobs SET state = $1 WHERE $2::int > 0 OR true RETURNING id")
                for i in range(3):
                    results.append(len(await statement.fetch(str(i), i)))
                async with c.transaction():
                    await c.execute("INSERT INTO log VALUES ($1, 'x')", 1)
                    results.append(await c.execute("DELETE FROM jobs"))
                await c.executemany("INSERT INTO jobs VALUES ($1, 'm')", [(i,) for i in range(5)])
                results.append(await c.execute("SELECT 1; UPDATE jobs SET state = 's'; SELECT 2"))
                results.append([tuple(r) for r in await c.fetch("SELECT * FROM jobs ORDER BY 1")])
                return results
            finally:
                await c.close()

        self.same_approved(lambda target: asyncio.run(asyncio.wait_for(go(target), 60)))
        self.assertEqual(7, len(self.approved))

    def test_asyncpg_with_a_time_limit_of_its_own(self):
        async def go():
            c = await self.asyncpg(self.guarded)
            try:
                with self.assertRaisesRegex(asyncpg.InsufficientPrivilegeError, "not approved in time"):
                    await c.execute("UPDATE soon SET state = $1", "live", timeout=20)
                with self.assertRaises(asyncio.TimeoutError):
                    await c.execute("UPDATE jobs SET state = $1", "live", timeout=1.5)
                return await c.fetchval("SELECT 'alive'")
            finally:
                await c.close()

        self.assertEqual("alive", asyncio.run(asyncio.wait_for(go(), 60)))

        def state():
            history = self.ask("bob", "SHOW chaperone.history")
            return {r["statement"]: r["state"] for r in history}["UPDATE jobs SET state = $1"]

        processes.wait_until(lambda: state() == "withdrawn", 10, "what nobody waits for to be withdrawn")

    # --- node-postgres -----------------------------------------------------------------------------------

    @unittest.skipIf(test_driver_node.REASON, test_driver_node.REASON)
    def test_node(self):
        def play(target):
            done = subprocess.run([test_driver_node.NODE, "--no-deprecation", str(HERE / "driver_hold_node.js")],
                                  capture_output=True, text=True, timeout=60 * processes.PATIENCE,
                                  env=target.environment(PGUSER="clerk", NODE_PATH=test_driver_node.node_path()))
            self.assertEqual((0, ""), (done.returncode, done.stderr), done.stdout)
            return [json.loads(line) for line in done.stdout.splitlines()]

        steps = dict(self.same_approved(play))
        self.assertEqual(["UPDATE", 20, []], steps["parameters"])
        self.assertEqual([20] * 8, steps["pool"])
        self.assertGreater(len(self.approved), 15)

    # --- pgjdbc ------------------------------------------------------------------------------------------

    def java(self, *arguments, target):
        if not (self.directory / "DriverHoldJdbc.class").exists():
            built = subprocess.run([test_driver_jdbc.JAVAC, "-cp", str(test_driver_jdbc.DRIVER), "-d",
                                    str(self.directory), str(HERE / "DriverHoldJdbc.java")],
                                   capture_output=True, text=True)
            self.assertEqual(0, built.returncode, built.stderr)
        done = subprocess.run([test_driver_jdbc.JAVA, "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-cp",
                               f"{test_driver_jdbc.DRIVER}:{self.directory}", "DriverHoldJdbc", *arguments],
                              capture_output=True, text=True, timeout=120 * processes.PATIENCE, env=target.environment())
        self.assertEqual((0, ""), (done.returncode, done.stderr), done.stdout)
        return done.stdout

    @staticmethod
    def url(target, user):
        return (f"jdbc:postgresql://{target.host}:{target.port}/postgres?user={user}&ApplicationName=jdbc"
                "&currentSchema=held")

    @unittest.skipIf(test_driver_jdbc.REASON, test_driver_jdbc.REASON)
    def test_jdbc_asks(self):
        output = self.same_approved(lambda target: self.java("asks", self.url(target, "clerk"), target=target))
        self.assertEqual(6, output.count("update: 20"), output)
        self.assertEqual(6, output.count("several in one: 1;updated 20;2,3;"), output)
        self.assertGreater(len(self.approved), 50)

    @unittest.skipIf(test_driver_jdbc.REASON, test_driver_jdbc.REASON)
    def test_jdbc_decides(self):
        output = self.java("decides", self.url(self.guarded, "clerk"), self.url(self.guarded, "bob"),
                           target=self.guarded)
        self.assertEqual(3, output.count("updated 20"), output)
        self.assertEqual(3, output.count("a limit that is longer than the wait: 42501 true"), output)
        self.assertEqual(3, output.count("a shorter one: 57014"), output)
        self.assertEqual(3, output.count("again: 55000"), output)
        self.assertEqual(12, output.count("true true true"), output)
        self.assertEqual(12, output.count("waiting 1\n"), output)
        self.assertEqual(6, output.count("alive"), output)
        for column in ("ticket text 12 String", "opened timestamptz 93 Timestamp", "waiting bool -7 Boolean"):
            self.assertEqual(3, output.count(column), output)
        self.assertIn("CALL gives rows: true ID,approved,", output)


if __name__ == "__main__":
    main()
