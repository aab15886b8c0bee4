"""Time limits by rule: what takes too long is cancelled in every way that it can be sent, its client is told by which
rule, and no cancel ever hits what comes next."""

import random
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import wire
from support.e2e import EndToEnd, main, needs_guard
from support.processes import wait_until
from support.wire import bind, describe, execute, flush, parse, query, run, sync

POLICY = """policy:
  default: allow
  unparsable: allow
  rules:
    - { name: free, match: { user: batch }, statement_timeout: 0s }
    - { name: quick, match: { application_name: quick, text: slow }, statement_timeout: 40ms }
    - { name: and-the-next, match: { application_name: quick }, statement_timeout: 0s }
    - { name: long-transactions, match: { application_name: tx }, transaction_timeout: 1s }
    - { name: people, statement_timeout: 700ms }
    - name: counted
      match: { writes: [counted], class: WRITE }
      action: { supervise: { max_rows: 100, effects: total } }
"""
SLEEP = "SELECT pg_sleep(20)"


@needs_guard
class TimeLimits(EndToEnd):
    configuration = POLICY

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster.sql("CREATE ROLE batch LOGIN")
        cls.cluster.sql("CREATE TABLE counted (id int)")
        cls.cluster.sql("CREATE FUNCTION slow_insert(id int, seconds float8) RETURNS int LANGUAGE plpgsql AS "
                        "$$ BEGIN INSERT INTO counted VALUES (id); PERFORM pg_sleep(seconds); RETURN id; END $$")
        cls.cluster.sql("GRANT ALL ON counted TO PUBLIC")

    def assert_told(self, frames, rule="people", limit="700ms"):
        errors = [f.fields() for f in frames if f.tag == "E"]
        self.assertEqual([("ERROR", "57014", "pgchaperone: canceling statement due to statement timeout",
                           f'Rule "{rule}" allows {limit}.')],
                         [(e["S"], e["C"], e["M"], e.get("D")) for e in errors], frames)

    def works(self, connection):
        self.assertEqual([("1",)], connection.rows("SELECT 1"))

    def test_a_simple_query_and_the_record_of_it(self):
        began = time.monotonic()
        with self.guarded.wire(user="app") as connection:
            self.assert_told(connection.ask(SLEEP))
            self.assertLess(0.6, time.monotonic() - began)
            self.assertGreater(5, time.monotonic() - began)
            self.works(connection)
            connection.ask("BEGIN")
            frames = connection.ask(SLEEP)
            self.assert_told(frames)
            self.assertEqual("E", wire.statuses(frames))
            connection.ask("ROLLBACK")
            self.works(connection)
        def records():
            return [r for r in self.guard.audit_records()
                    if r.get("outcome") == "statement timeout" and r["user"] == "app" and r["statement"] == SLEEP]

        wait_until(lambda: len(records()) == 2, 5, "two records")
        self.assertEqual(("effects", "people"), (records()[0]["event"], records()[0]["rule"]))

    def test_psql_shows_it(self):
        done = self.guarded.psql(SLEEP + ";\nSELECT 'goes on';", "-At")
        self.assertEqual("goes on\n", done.stdout)
        self.assertEqual('ERROR:  pgchaperone: canceling statement due to statement timeout\n'
                         'DETAIL:  Rule "people" allows 700ms.\n'
                         'HINT:  Ask whoever runs pgchaperone if it has to take longer.\n', done.stderr)

    def test_a_query_with_several_statements_has_the_time_once(self):
        with self.guarded.wire() as connection:
            frames = connection.ask("; ".join(["SELECT pg_sleep(0.3)"] * 4))
            # How many come to their end before is a matter of the machine; each of them alone has time enough.
            self.assertRegex(wire.tags(frames), "^(TDC){0,3}T?EZ$")
            self.assert_told(frames)
            self.assert_told(connection.ask("SELECT 1; " + SLEEP))

    def test_the_extended_protocol_and_pipelines(self):
        with self.guarded.wire() as connection:
            connection.send(run(SLEEP) + sync())
            frames = connection.until_ready()
            self.assert_told(frames)
            connection.send(run("SELECT 1") + run(SLEEP) + run("SELECT 'never'") + sync() + run("SELECT 3") + sync())
            frames = connection.until_ready(2)
            self.assertEqual("12TDC12TEZ12TDCZ", wire.tags(frames))
            self.assert_told(frames)
            connection.send(b"".join(run(f"SELECT {i}, pg_sleep(0.06)") for i in range(20)) + sync())
            self.assertEqual("12TDC" * 20 + "Z", wire.tags(connection.until_ready()), "each has all of its time")
            connection.send(parse("SELECT pg_sleep(0.3) FROM generate_series(1, 3)", "s") + sync() +
                            bind("p", "s") + execute("p", 1) + execute("p", 1) + execute("p", 1) + sync())
            self.assertEqual("1Z2DsDsDsZ", wire.tags(connection.until_ready(2)))
            self.works(connection)

    def test_a_copy(self):
        with self.guarded.wire() as connection:
            self.assert_told(connection.ask("COPY (SELECT pg_sleep(0.1) FROM generate_series(1, 100)) TO STDOUT"))
            connection.send(query("COPY scratch FROM STDIN"))
            connection.until("G")
            time.sleep(1)
            frames, n = [], 0
            while not any(f.tag == "E" for f in frames):
                n += 1
                connection.send(wire.copy_data(f"{n + 90000}\tslow\n"))
                if not connection.silent_for(0.05):
                    frames.append(connection.frame())
                self.assertLess(n, 100, "the COPY goes on for ever")
            connection.send(wire.copy_done())
            self.assert_told(frames + connection.until_ready())
            self.works(connection)
        self.assertEqual([(0,)], self.cluster.sql("SELECT count(*) FROM scratch WHERE id > 90000"))

    def stats(self) -> dict:
        with self.guarded.wire() as connection:
            return {name: int(value) for name, value in connection.rows("SHOW chaperone.stats")
                    if name.startswith(("time_limits_", "supervisions_"))}

    def test_what_takes_too_long_is_counted_as_that(self):
        before = self.stats()
        with self.guarded.wire() as connection:
            self.assert_told(connection.ask(SLEEP))
            self.assert_told(connection.ask("INSERT INTO counted SELECT slow_insert(1, 20)"))
            connection.send(run("INSERT INTO counted SELECT slow_insert(2, 20)") + sync())
            self.assert_told(connection.until_ready())
            connection.ask("INSERT INTO counted VALUES ('no number')")
        with self.guarded.wire(user="batch", application_name="tx") as connection:
            connection.ask("BEGIN; INSERT INTO scratch VALUES (5152, 'tx')")
            connection.until("E")
        expected = {"time_limits_statement": 3, "time_limits_transaction": 1, "time_limits_idle": 0,
                    "time_limits_idle_in_transaction": 0, "supervisions_timeout": 2, "supervisions_failed": 1}

        def added():
            return {name: value - before[name] for name, value in self.stats().items() if name in expected}

        try:
            wait_until(lambda: added() == expected, 5, "the counters")
        except TimeoutError:
            self.assertEqual(expected, added())

    def test_what_is_supervised_is_taken_back(self):
        with self.guarded.wire() as connection:
            self.assert_told(connection.ask("INSERT INTO counted SELECT slow_insert(1, 20)"))
            connection.send(run("INSERT INTO counted SELECT slow_insert(2, 20)") + sync())
            self.assert_told(connection.until_ready())
            self.assertEqual("CZ", wire.tags(connection.ask("INSERT INTO counted VALUES (3)")))
        self.assertEqual([(3,)], self.cluster.sql("SELECT id FROM counted"))
        self.cluster.sql("TRUNCATE counted")

    def test_who_is_exempt(self):
        with self.guarded.wire(user="batch") as connection:
            self.assertEqual("TDCZ", wire.tags(connection.ask("SELECT pg_sleep(1.2)")))

    def test_a_transaction(self):
        for text in ("SELECT 1", SLEEP):
            with self.subTest(text), self.guarded.wire(user="batch", application_name="tx") as connection:
                connection.ask("BEGIN; INSERT INTO scratch VALUES (5151, 'tx')")
                began = time.monotonic()
                connection.send(query(text))
                frames = connection.until_closed()
                self.assertGreater(4, time.monotonic() - began)
                last = frames[-1].fields()
                self.assertEqual(("FATAL", "25P04", "pgchaperone: terminating connection due to transaction timeout",
                                  'Rule "long-transactions" allows 1s. The transaction is rolled back.'),
                                 (last["S"], last["C"], last["M"], last["D"]))
                self.cluster.wait_for_backends(0, "application_name = 'tx'", timeout_s=3)
        self.assertEqual([(0,)], self.cluster.sql("SELECT count(*) FROM scratch WHERE id = 5151"))
        wait_until(lambda: len([r for r in self.guard.audit_records()
                                if r.get("outcome") == "transaction timeout"]) == 2, 5, "two records")

    def test_a_transaction_in_the_middle_of_its_rows(self):
        with self.guarded.wire(user="batch", application_name="tx") as connection:
            connection.send(query("SELECT repeat('x', 1000000) FROM generate_series(1, 100000)"))
            frames = connection.until_closed()
        self.assertEqual("25P04", frames[-1].fields()["C"])

    def test_short_transactions_in_a_long_session(self):
        with self.guarded.wire(user="batch", application_name="tx") as connection:
            for _ in range(4):
                connection.ask("BEGIN")
                connection.ask("SELECT pg_sleep(0.3)")
                connection.ask("COMMIT")
            self.works(connection)

    def test_no_cancel_hits_what_comes_next(self):
        """Statements that take as long as they may, to the millisecond, and at once behind them one without a limit."""
        wrong, outcomes = [], {"in time": 0, "too late": 0}

        def play(seed: int) -> None:
            chance = random.Random(seed)
            with self.guarded.wire(user="app", application_name="quick") as connection:
                for number in range(60):
                    # A few have time enough on the slowest machine.
                    edge = 0.04 + chance.uniform(-0.004, 0.03) if number % 6 else 0
                    kind = chance.randrange(3)
                    slow, next_one = f"SELECT pg_sleep({edge}) AS slow", f"SELECT {number}, pg_sleep(0.02)"
                    if kind == 0:
                        connection.send(query(slow) + query(next_one))
                        frames = connection.until_ready(2)
                    elif kind == 1:
                        connection.send(run(slow) + sync() + run(next_one) + sync())
                        frames = connection.until_ready(2)
                    else:
                        frames = connection.ask(slow) + connection.ask(next_one)
                    first = next(i for i, f in enumerate(frames) if f.tag == "Z")
                    outcomes["too late" if wire.sqlstates(frames[:first]) else "in time"] += 1
                    if wire.sqlstates(frames[first:]):
                        wrong.append((kind, edge, frames[first:]))

        threads = [threading.Thread(target=play, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([], wrong)
        self.assertEqual(240, sum(outcomes.values()), "every player came to its end")
        self.assertGreater(outcomes["in time"], 10, outcomes)
        self.assertGreater(outcomes["too late"], 10, outcomes)

        def asked():
            return [r for r in self.guard.audit_records()
                    if r.get("outcome") == "statement timeout" and r["rule"] == "quick"]

        wait_until(lambda: len(asked()) > outcomes["too late"], 5, "records of cancels that came when all was over")


if __name__ == "__main__":
    main()
