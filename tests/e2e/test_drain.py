"""SIGTERM under load: nobody new is taken in, the idle go at once, and no transaction that had begun fails."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import wire
from support.e2e import EndToEnd, Guard, Target, binaries, main, needs_guard
from support.processes import PATIENCE, wait_until
from support.wire import query


@needs_guard
class Drain(EndToEnd):
    def guarded_by(self, *options) -> Target:
        self.own = Guard(self.cluster, *options)
        self.addCleanup(self.own.erase)
        return Target("guarded", self.own.host, self.own.port)

    def terminate(self):
        self.own.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "shutting down" in self.own.log_text(), 5, "the guard to hear it")

    def ended(self, within_s: float):
        process, self.own.process = self.own.process, None
        self.assertEqual(0, process.wait(within_s * PATIENCE))

    def test_no_transaction_that_had_begun_fails(self):
        target = self.guarded_by("--threads", "2", "--drain-timeout", "20s")
        self.cluster.sql("CREATE TABLE IF NOT EXISTS drained (worker int, number int)")
        self.cluster.sql("TRUNCATE drained")
        self.cluster.sql("GRANT ALL ON drained TO PUBLIC")
        committed, broken, ends = [], [], []

        def work(worker: int) -> None:
            number = 0
            connection = target.wire(user="app")
            with connection:
                while True:
                    number += 1
                    step = "before it began"
                    try:
                        for text in ("BEGIN", f"INSERT INTO drained VALUES ({worker}, {number})",
                                     f"SELECT pg_sleep({0.01 * (worker % 7)})", "COMMIT"):
                            connection.send(query(text))
                            frames = connection.until("ZE")
                            if frames[-1].tag == "E":
                                fields = frames[-1].fields()
                                (ends if step == "before it began" else broken).append((fields["C"], text, step))
                                return
                            step = text
                        committed.append((worker, number))
                    except (OSError, wire.ClosedByPeer) as error:
                        # What was sent when the guard had said good-bye may reset the connection.
                        (ends if step == "before it began" else broken).append((str(error), step))
                        return

        workers = [threading.Thread(target=work, args=(i,)) for i in range(12)]
        for worker in workers:
            worker.start()
        wait_until(lambda: len(committed) > 50, 20, "work to be under way")
        self.terminate()
        for worker in workers:
            worker.join(20)
        self.assertEqual([], broken)
        self.assertEqual(12, len(ends))
        self.assertEqual(sorted(committed), sorted(self.cluster.sql("SELECT worker, number FROM drained")))
        self.ended(5)

    def test_pgbench_loses_no_transaction_that_was_under_way(self):
        target = self.guarded_by()
        self.assertEqual(0, self.direct.program("pgbench", "-i", "-s", "1", "-q").returncode)
        self.cluster.sql("TRUNCATE pgbench_history")
        bench = subprocess.Popen([str(binaries() / "pgbench"), "-n", "-c", "8", "-j", "2", "-T", "30", "-C"],
                                 env=target.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(bench.kill)
        try:
            wait_until(lambda: self.cluster.sql("SELECT count(*) FROM pgbench_history")[0][0] > 60, 20, "pgbench to work")
        except TimeoutError:
            bench.kill()
            self.fail(bench.communicate()[1])
        self.terminate()
        out, errors = bench.communicate(timeout=20)
        self.ended(5)
        # Each transaction has a connection of its own: those that were refused did not begin.
        self.assertNotIn("57P01", errors)
        done = int(out.split("number of transactions actually processed: ")[1].split()[0].split("/")[0])
        self.assertEqual(done, self.cluster.sql("SELECT count(*) FROM pgbench_history")[0][0], errors[-2000:])
        balances = self.cluster.sql("SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM "
                                    "pgbench_history), (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT "
                                    "sum(delta) FROM pgbench_history)")
        self.assertEqual([(True, True)], balances)

    def test_who_is_idle_goes_at_once_and_nobody_comes(self):
        target = self.guarded_by()
        idle, busy = target.wire(), target.wire()
        login = wire.Wire(target.address)
        for connection in (idle, busy, login):
            self.addCleanup(connection.close)
        login.send(wire.startup({"user": "person_scram", "database": "postgres"}))
        login.until("R")
        busy.ask("BEGIN")
        self.terminate()
        frames = idle.until_closed()
        self.assertEqual(["57P01"], wire.sqlstates(frames))
        self.assertEqual("Connect again.", frames[0].fields()["H"])
        self.assertEqual(["57P03"], wire.sqlstates(login.until_closed()))
        with self.assertRaises(OSError):
            target.wire()
        self.assertEqual([("1",)], busy.rows("SELECT 1"))
        busy.send(query("COMMIT"))
        self.assertEqual(["57P01"], wire.sqlstates(busy.until_closed()))
        self.ended(5)

    def test_who_is_busy_for_too_long_is_told_so(self):
        target = self.guarded_by("--drain-timeout", "500ms")
        with target.wire() as busy:
            busy.ask("BEGIN; CREATE TABLE never (a int)")
            busy.send(query("SELECT pg_sleep(30)"))
            self.cluster.wait_for_backends(1, "wait_event = 'PgSleep'")
            began = time.monotonic()
            self.terminate()
            self.assertEqual(["57P01"], wire.sqlstates(busy.until_closed()))
            self.assertGreater(time.monotonic() - began, 0.4)
        self.ended(5)
        self.assertEqual([(None,)], self.cluster.sql("SELECT to_regclass('never')::text"))

    def test_a_second_signal_ends_it_at_once(self):
        target = self.guarded_by()
        with target.wire() as busy:
            busy.ask("BEGIN")
            self.terminate()
            self.assertTrue(busy.silent_for(0.2))
            self.own.process.send_signal(signal.SIGTERM)
            self.assertEqual(["57P01"], wire.sqlstates(busy.until_closed()))
        self.ended(10)


if __name__ == "__main__":
    main()
