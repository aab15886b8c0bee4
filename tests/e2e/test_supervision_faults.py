"""Supervised transactions when things go wrong at any moment: what was not judged is never committed, no transaction
stays open, and the client hears exactly what it is owed. And real drivers, and what the audit log says."""

import os
import random
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.e2e import main, needs_guard, wire
from support.processes import wait_until
from support.supervision import Supervised, ready
from support.wire import bind, copy_data, execute, flush, parse, query, run, sync

SLOW = "SELECT remove_slowly({}, 0.03)"
# Ways to have it run; each ends with so many ReadyForQuery.
RUNS = {
    "simple": (lambda sql: query(sql), 1), "extended": (lambda sql: run(sql) + sync(), 1),
    "in a block": (lambda sql: query("BEGIN") + query(sql) + query("COMMIT"), 3),
    "in a text": (lambda sql: query(f"INSERT INTO log VALUES (9, 'x'); {sql}; SELECT 1"), 1),
    "in a pipeline": (lambda sql: run("SELECT 1") + run(sql) + run("INSERT INTO log VALUES (9, 'x')") + sync(), 1),
}


@needs_guard
class SupervisionFaults(Supervised):
    def wire(self, name="victim"):
        self.clean = False
        return self.guarded.wire(options="-c search_path=own", application_name=name)

    def cancel(self, connection):
        with wire.Wire(self.guarded.address) as messenger:
            messenger.send(wire.cancel_request(connection.pid, connection.key))
            messenger.until_closed()

    def backend(self) -> int:
        return self.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'victim'")[0][0]

    def assert_gone_and_nothing_changed(self):
        self.cluster.wait_for_backends(0, "application_name = 'victim'")
        self.assert_nothing_changed()

    def assert_alive(self, connection):
        """The next answer is that of the next question. A cancel request may still be on its way."""
        for _ in range(3):
            frames = connection.ask("SELECT 'alive'")
            self.assertEqual(1, wire.tags(frames).count("Z"))
            if wire.tags(frames) == "TDCZ":
                self.assertEqual([b"alive"], [f for f in frames if f.tag == "D"][0].columns())
                return
            self.assertIn(wire.sqlstates(frames), (["57014"], ["25P02"]))
            connection.ask("ROLLBACK")
        self.fail(f"no answer: {frames}")

    def test_a_cancel_at_any_moment(self):
        chance = random.Random(4)
        seen = set()
        for name, (shape, count) in RUNS.items():
            for rows in (30, 20):
                with self.subTest(name, rows=rows), self.wire() as connection:
                    for turn in range(20):
                        self.fill()
                        connection.send(shape(SLOW.format(rows)))
                        time.sleep(chance.random() * 0.05)
                        self.clean = False
                        self.cancel(connection)
                        frames = connection.until_ready(count)
                        errors = wire.sqlstates(frames)
                        seen.update(errors)
                        self.assertLessEqual(set(errors), {"57014", "42501"}, frames)
                        self.assertEqual("I", wire.statuses(frames)[-1])
                        if rows == 30:
                            self.assertEqual(1, len(errors), frames)
                            self.assert_nothing_changed()
                        elif errors:
                            self.assertEqual(50, self.counters(), frames)
                        else:
                            self.assertEqual(30, self.counters(), frames)
                        self.assert_alive(connection)
                    self.assert_nothing_left_open()
        self.assertEqual({"57014", "42501"}, seen, "the moments were early and late ones")

    def test_a_client_that_vanishes_at_any_moment(self):
        chance = random.Random(5)
        for name, (shape, _) in RUNS.items():
            for reset in (True, False):
                for turn in range(6):
                    with self.subTest(name, reset=reset):
                        connection = self.wire()
                        connection.send(shape(SLOW.format(30)))
                        time.sleep(chance.random() * 0.06)
                        if reset:
                            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        connection.close()
                        self.assert_gone_and_nothing_changed()
        self.assert_guard_works()

    def test_a_client_that_vanishes_in_the_middle_of_a_group_or_copy(self):
        for data in (run("DELETE FROM counters WHERE id <= 5") + flush(), query("COPY log FROM STDIN") +
                     copy_data("1\tx\n"),
                     parse("COPY log FROM STDIN") + bind() + execute() + flush() + copy_data("1\tx\n"),
                     query("BEGIN; DELETE FROM counters WHERE id <= 5"), run("SELECT remove(5)")):
            for terminate in (b"", wire.terminate()):
                with self.subTest(data):
                    connection = self.wire()
                    connection.send(data)
                    time.sleep(0.05)
                    if terminate and b"COPY" not in data:
                        connection.send(terminate)
                    connection.close()
                    self.assert_gone_and_nothing_changed()
        self.assert_guard_works()

    def test_a_server_that_is_killed_in_the_middle(self):
        for name in ("simple", "in a pipeline"):
            with self.subTest(name):
                self.fill()
                shape, _ = RUNS[name]
                starts = self.cluster.starts()
                with self.wire() as connection:
                    connection.send(shape("SELECT remove_slowly(20, 20)"))
                    self.cluster.wait_for_backends(1, "application_name = 'victim' AND wait_event = 'PgSleep'")
                    os.kill(self.backend(), signal.SIGKILL)
                    frames = connection.until_closed()
                    self.assertNotIn("Z", wire.tags(frames))
                self.cluster.wait_for_restart(starts)
                self.own.close()
                self.assertEqual(50, self.counters())
                self.assert_nothing_left_open()
                self.assert_guard_works()

    def test_a_session_that_is_terminated(self):
        for name, (shape, _) in RUNS.items():
            with self.subTest(name):
                self.fill()
                with self.wire() as connection:
                    connection.send(shape("SELECT remove_slowly(20, 20)"))
                    self.cluster.wait_for_backends(1, "application_name = 'victim' AND wait_event = 'PgSleep'")
                    self.sql(f"SELECT pg_terminate_backend({self.backend()})")
                    frames = connection.until_closed()
                self.assertEqual(["57P01"], wire.sqlstates(frames))
                self.assert_gone_and_nothing_changed()

    def test_timeouts_are_as_direct(self):
        for setting in ("statement_timeout = '300ms'", "lock_timeout = '60ms'"):
            for name, (shape, count) in RUNS.items():
                with self.subTest(name, setting=setting), self.cluster.connect(autocommit=False) as holder:
                    self.fill()
                    if "lock" in setting:
                        holder.execute("SELECT FROM own.counters WHERE id = 3 FOR UPDATE")
                    sql = "SELECT remove(5)" if "lock" in setting else "SELECT remove_slowly(5, 20)"
                    results = [self.play(target, query("SET " + setting), ready(), shape(sql), ready(count),
                                         query("SELECT 1"),
                                         ready()) for target in (self.direct, self.guarded)]
                    self.assertEqual(*results)
                    self.assertEqual(["55P03" if "lock" in setting else "57014"], wire.sqlstates(results[0]))
                    holder.rollback()
                    self.assert_nothing_changed()

    def test_a_deadlock_hits_one_of_two(self):
        for form in (query, lambda sql: run(sql) + sync()):
            self.fill()
            with self.wire() as one, self.wire() as other:
                for connection in (one, other):
                    connection.ask("SET deadlock_timeout = '80ms'")
                    connection.ask("BEGIN")
                one.ask("UPDATE counters SET n = 1 WHERE id = 1")
                other.ask("UPDATE counters SET n = 2 WHERE id = 2")
                one.send(form("UPDATE counters SET n = 1 WHERE id = 2"))
                other.send(form("UPDATE counters SET n = 2 WHERE id = 1"))
                # The one that lost waits no more; the other one goes on when it has rolled back.
                outcomes = [None, None]

                def work(index, connection):
                    frames = connection.until_ready()
                    outcomes[index] = (wire.sqlstates(frames), wire.statuses(frames))
                    connection.ask("COMMIT")

                threads = [threading.Thread(target=work, args=pair) for pair in ((0, one), (1, other))]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(15)
                self.assertEqual([([], "T"), (["40P01"], "E")], sorted(outcomes))
            self.assertEqual([(2,)], self.sql("SELECT count(*) FROM own.counters WHERE n > 0"))
            self.assert_nothing_left_open()

    # --- drivers -----------------------------------------------------------------------------------------

    def psycopg(self, **options):
        self.clean = False
        return psycopg.connect(self.guarded.dsn(options="-c search_path=own"), **options)

    def test_psycopg_with_many_and_in_a_pipeline(self):
        with self.psycopg() as connection:
            connection.cursor().executemany("UPDATE counters SET n = n + 1 WHERE id = %s", [(i,) for i in range(1, 51)])
        self.assertEqual([(50,)], self.sql("SELECT count(*) FROM own.counters WHERE n = 1"))
        with self.psycopg() as connection:
            with self.assertRaises(psycopg.errors.InsufficientPrivilege) as caught, connection.pipeline():
                for sql in ("INSERT INTO log VALUES (9, 'x')", "DELETE FROM counters WHERE id <= 30", "SELECT 1"):
                    connection.execute(sql)
            self.assertIn("30 rows of own.counters (limit 20)", str(caught.exception))
            self.assertEqual("own.counters: 30 deleted", caught.exception.diag.message_detail)
            connection.rollback()
            self.assertEqual((50,), connection.execute("SELECT count(*) FROM counters").fetchone())
        with self.psycopg(autocommit=True) as connection:
            with connection.pipeline():
                cursors = [connection.execute("SELECT remove(%s)", [i]) for i in range(1, 20)]
                self.assertEqual(list(range(1, 20)), [c.fetchone()[0] for c in cursors])

    def test_psycopg_copies(self):
        with self.psycopg() as connection:
            with connection.cursor().copy("COPY log FROM STDIN") as copy:
                for i in range(50):
                    copy.write_row((i, "copied"))
        self.assertEqual([(55,)], self.sql("SELECT count(*) FROM own.log"))
        with self.psycopg() as connection:
            with self.assertRaises(psycopg.errors.InsufficientPrivilege):
                with connection.cursor().copy("COPY log FROM STDIN") as copy:
                    for i in range(51):
                        copy.write_row((i, "copied"))
        self.assertEqual([(55,)], self.sql("SELECT count(*) FROM own.log"))

    def test_psql_in_one_transaction(self):
        script = "INSERT INTO own.log VALUES (9, 'x');\n{}\nINSERT INTO own.log VALUES (9, 'y');\n"
        done = self.guarded.psql(script.format("DELETE FROM own.counters WHERE id <= 30;"), "-1", "-v",
                                 "ON_ERROR_STOP=1")
        self.assertEqual(3, done.returncode, done.stderr)
        for part in ("ERROR:  pgchaperone: DELETE would have changed 30 rows of own.counters (limit 20); rolled back",
                     "DETAIL:  own.counters: 30 deleted", "HINT:  "):
            self.assertIn(part, done.stderr)
        self.assert_nothing_changed()
        done = self.guarded.psql(script.format("DELETE FROM own.counters WHERE id <= 20;"), "-1", "-v",
                                 "ON_ERROR_STOP=1")
        self.assertEqual((0, "INSERT 0 1\nDELETE 20\nINSERT 0 1\n", ""), (done.returncode, done.stdout, done.stderr))
        self.assertEqual(30, self.counters())

    # --- the audit log -----------------------------------------------------------------------------------

    def test_the_audit_log_has_the_decision_before_and_the_effects_after(self):
        for data in (query("DELETE FROM shops WHERE id = 1"), run("DELETE FROM shops WHERE id = 1") + sync()):
            before = len(self.guard.audit_records())
            with self.wire() as connection:
                connection.send(data)
                connection.until_ready()
                connection.ask("SELECT remove(20)")
                connection.ask("SELECT 1")

            def new():
                return [r for r in self.guard.audit_records()[before:] if r["statement"] != "SELECT 1"]

            # Nobody waits for the record of the effects: the decision was on the disk before.
            wait_until(lambda: sum(r["event"] == "effects" for r in new()) == 2, 5, "the effects of two statements")
            records = new()
            self.assertEqual({("supervise", "count")}, {(r["decision"], r["rule"]) for r in records})
            for statement in ("DELETE FROM shops WHERE id = 1", "SELECT remove(20)"):
                events = [r["event"] for r in records if r["statement"] == statement]
                self.assertEqual(["decision", "effects"], events, "what was decided, before what was done")
            self.assertEqual(["rolled back", "within limits"], [r["outcome"] for r in records if "outcome" in r])
            text = [str(r["effects"]) for r in records if "effects" in r]
            for part in ("own.lines", "20", "own.sales", "10", "own.shops"):
                self.assertIn(part, text[0])
            self.assertIn("own.counters", text[1])
            self.assertLess(records[0]["seq"], records[1]["seq"])
            self.sql("INSERT INTO own.counters SELECT i, 0 FROM generate_series(1, 20) i")


if __name__ == "__main__":
    main()
