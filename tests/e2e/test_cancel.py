"""Cancelling: the right session always, in clear and over TLS, however the request comes."""

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.certificates import Authority
from support.e2e import EndToEnd, Guard, Target, binaries, main, needs_guard, wire
from support.wire import flush, query, run, sync

PASS = "SELECT 'passed' FROM pg_advisory_xact_lock_shared(1)"
AT_THE_BARRIER = "wait_event = 'advisory'"


class Cancel(EndToEnd):
    @classmethod
    def setUpClass(cls):
        import tempfile
        cls.keys = tempfile.TemporaryDirectory(prefix="pgchaperone-test-keys-")
        cls.addClassCleanup(cls.keys.cleanup)
        cls.pair = Authority(cls.keys.name).issue("server")
        cls.cluster_options = {"tls": cls.pair}
        super().setUpClass()
        # The same guard with TLS on both sides, for sessions that must not be cancelled in clear.
        cls.tls_guard = Guard(cls.cluster, "--client-tls", "require", "--client-tls-cert", cls.pair.certificate,
                              "--client-tls-key", cls.pair.key, "--upstream-tls", "require")
        cls.addClassCleanup(cls.tls_guard.erase)
        cls.guarded_tls = Target("guarded over TLS", cls.tls_guard.host, cls.tls_guard.port)

    def sleepers(self, name):
        return f"wait_event = 'PgSleep' AND application_name = '{name}'"

    @contextlib.contextmanager
    def barrier(self):
        """Whoever runs PASS waits for as long as the block lasts, however slow the machine is."""
        with self.cluster.connect() as holder:
            holder.execute("SELECT pg_advisory_lock(1)")
            yield

    def send_cancel(self, target, pid, key):
        with wire.Wire(target.address) as connection:
            connection.send(wire.cancel_request(pid, key))
            self.assertEqual([], connection.until_closed())

    def test_a_raw_cancel_request_stops_the_statement(self):
        def play(target):
            with target.wire(application_name="raw") as connection:
                connection.send(query("SELECT 'before'; SELECT pg_sleep(30)"))
                self.cluster.wait_for_backends(1, self.sleepers("raw"))
                self.send_cancel(target, connection.pid, connection.key)
                frames = connection.until_ready()
                return frames, connection.ask("SELECT 'after'")

        self.assertEqual(["57014"], wire.sqlstates(self.same(play)[0]))

    def test_a_cancel_of_one_statement_of_a_pipeline(self):
        def play(target):
            with target.wire(application_name="pipe") as connection:
                connection.send(run("SELECT 1") + run("SELECT pg_sleep(30)") + run("SELECT 2") + sync() +
                                run("SELECT 3") + sync())
                self.cluster.wait_for_backends(1, self.sleepers("pipe"))
                self.send_cancel(target, connection.pid, connection.key)
                return connection.until_ready(2)

        self.assertEqual(["57014"], wire.sqlstates(self.same(play)))

    def test_a_cancel_without_a_statement_does_nothing(self):
        def play(target):
            with target.wire() as connection:
                self.send_cancel(target, connection.pid, connection.key)
                time.sleep(0.1)
                return connection.ask("SELECT 1")

        self.same(play)

    def test_a_cancel_with_a_wrong_key_or_pid_does_nothing(self):
        def play(target):
            with target.wire(application_name="safe") as connection:
                with self.barrier():
                    connection.send(query(PASS))
                    self.cluster.wait_for_backends(1, AT_THE_BARRIER + " AND application_name = 'safe'")
                    self.send_cancel(target, connection.pid, bytes(b ^ 0x55 for b in connection.key))
                    self.send_cancel(target, connection.pid ^ 1, connection.key)
                return connection.until_ready()

        self.assertEqual([], wire.sqlstates(self.same(play)))

    def test_a_cancel_request_byte_by_byte(self):
        def play(target):
            with target.wire(application_name="slow") as connection:
                connection.send(query("SELECT pg_sleep(30)"))
                self.cluster.wait_for_backends(1, self.sleepers("slow"))
                with wire.Wire(target.address) as messenger:
                    messenger.send(wire.cancel_request(connection.pid, connection.key), chunk=1, pause_s=0.002)
                    messenger.until_closed()
                return connection.until_ready()

        self.assertEqual(["57014"], wire.sqlstates(self.same(play)))

    def test_malformed_cancel_requests_hurt_nobody(self):
        import struct
        for data in (struct.pack("!ii", 8, 80877102), struct.pack("!iii", 12, 80877102, 1),
                     struct.pack("!iii", 15, 80877102, 1) + b"abc", struct.pack("!iii", 300, 80877102, 1) + b"k" * 288,
                     struct.pack("!iii", 16, 80877102, 1)):
            with wire.Wire(self.guarded.address) as connection:
                connection.send(data)
                connection.half_close()
                connection.until_closed()
        self.assert_guard_works()

    def test_libpq_cancels_the_right_one_of_many_sessions(self):
        self._cancel_among_many(self.guarded.dsn(sslmode="disable"))

    def test_libpq_cancels_the_right_one_of_many_sessions_over_tls(self):
        self._cancel_among_many(self.guarded_tls.dsn(sslmode="require", channel_binding="disable"))

    def _cancel_among_many(self, dsn):
        count, chosen = 12, random.Random(3).sample(range(12), 6)
        outcomes = [None] * count
        connections = [psycopg.connect(dsn + f" application_name='many{i}'", autocommit=True) for i in range(count)]

        def work(i):
            try:
                connections[i].execute(PASS)
                outcomes[i] = "finished"
            except psycopg.errors.QueryCanceled:
                outcomes[i] = "cancelled"
            except psycopg.Error as error:
                outcomes[i] = repr(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
        with self.barrier():
            for thread in threads:
                thread.start()
            self.cluster.wait_for_backends(count, AT_THE_BARRIER + " AND application_name LIKE 'many%'")
            for i in chosen:
                connections[i].cancel()
            for i in chosen:
                threads[i].join(20)
        for thread in threads:
            thread.join(20)
        self.assertEqual(["cancelled" if i in chosen else "finished" for i in range(count)], outcomes)
        for connection in connections:
            self.assertEqual((1,), connection.execute("SELECT 1").fetchone())
            connection.close()

    def test_psql_is_stopped_by_an_interrupt(self):
        for target, more in ((self.direct, {}), (self.guarded, {"PGSSLMODE": "disable"}),
                             (self.guarded_tls, {"PGSSLMODE": "require"})):
            with self.subTest(target.name):
                process = subprocess.Popen(
                    [str(binaries() / "psql"), "-X", "-At", "-c", "SELECT pg_sleep(30)", "-c", "SELECT 'after'"],
                    env=target.environment(PGAPPNAME="interrupted", **more), stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE, text=True)
                try:
                    self.cluster.wait_for_backends(1, self.sleepers("interrupted"))
                    process.send_signal(signal.SIGINT)
                    out, err = process.communicate(timeout=10)
                finally:
                    process.kill()
                self.assertIn("canceling statement due to user request", err)
                self.cluster.wait_for_backends(0, "application_name = 'interrupted'")

    @needs_guard
    def test_a_cancel_in_clear_is_taken_where_tls_is_required(self):
        # libpq before version 17 sends every cancel in clear, whatever the session uses.
        with self.guarded_tls.wire(tls=wire.tls_client_context(), application_name="clear") as connection:
            connection.send(query("SELECT pg_sleep(30)"))
            self.cluster.wait_for_backends(1, self.sleepers("clear"))
            self.send_cancel(self.guarded_tls, connection.pid, connection.key)
            self.assertEqual(["57014"], wire.sqlstates(connection.until_ready()))

    @needs_guard
    def test_a_cancel_over_tls(self):
        # As libpq 17's PQcancelStart sends it.
        with self.guarded_tls.wire(tls=wire.tls_client_context(), application_name="tls") as connection:
            connection.send(run("SELECT pg_sleep(30)") + flush())
            self.cluster.wait_for_backends(1, self.sleepers("tls"))
            with wire.Wire(self.guarded_tls.address) as messenger:
                messenger.start_tls(wire.tls_client_context())
                messenger.send(wire.cancel_request(connection.pid, connection.key))
                self.assertEqual([], messenger.until_closed())
            self.assertIn("E", wire.tags(connection.until("E")))
            connection.send(sync())
            connection.until_ready()

    def test_a_storm_of_cancels_never_hits_another_session(self):
        """Sessions that run short statements while their neighbours are cancelled without pause."""
        with self.guarded.wire(application_name="bystander") as bystander, \
                self.guarded.wire(application_name="target") as victim:
            done = threading.Event()

            def shoot():
                while not done.is_set():
                    self.send_cancel(self.guarded, victim.pid, victim.key)

            shooter = threading.Thread(target=shoot)
            shooter.start()
            try:
                cancelled = 0
                for _ in range(150):
                    bystander.send(query("SELECT count(*) FROM generate_series(1, 2000)"))
                    victim.send(query("SELECT pg_sleep(0.02)"))
                    self.assertEqual([], wire.sqlstates(bystander.until_ready()))
                    cancelled += wire.sqlstates(victim.until_ready()) == ["57014"]
            finally:
                done.set()
                shooter.join()
            self.assertLess(5, cancelled)


if __name__ == "__main__":
    main()
