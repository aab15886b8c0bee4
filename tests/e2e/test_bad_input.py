"""Bad input at every level: a clear error, and nothing worse. Other sessions never notice."""

import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import processes, sanitizers, wire
from support.e2e import EndToEnd, Guard, main, needs_guard
from support.guard import binary
from support.processes import status_kib, wait_until
from support.watch import Watcher
from support.wire import message, parse, query, startup

START = startup({"user": "app", "database": "postgres"})


def packet(code: int, body: bytes, length: int = None) -> bytes:
    return struct.pack("!ii", 8 + len(body) if length is None else length, code) + body


@needs_guard
class BadClients(EndToEnd):
    guard_options = ("--login-timeout", "2s")

    def setUp(self):
        self.witness = self.guarded.wire(user="app")
        self.witness.ask("BEGIN; CREATE TEMP TABLE mine AS SELECT 42 AS x")

    def tearDown(self):
        """Whatever a test did: the session that was there before it lives on, and a new one comes in."""
        self.assertEqual([("42",)], self.witness.rows("SELECT x FROM mine"))
        self.witness.close()
        self.assert_guard_works()

    def answer(self, data: bytes, half_close=False, timeout_s=8.0) -> bytes:
        """All bytes that come back until the guard closes the connection."""
        with socket.create_connection(self.guarded.address, timeout_s) as connection:
            connection.settimeout(timeout_s)
            received = b""
            try:
                connection.sendall(data)
                if half_close:
                    connection.shutdown(socket.SHUT_WR)
                while chunk := connection.recv(65536):
                    received += chunk
            except ConnectionError:
                pass
            return received

    def test_garbage_before_startup(self):
        chance = random.Random(1)
        for name, data in {"http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "zeros": bytes(64), "ones": b"\xff" * 64,
                           "a newline": b"\n\n\n\n\n\n\n\n", "ssh": b"SSH-2.0-OpenSSH_9.2\r\n", "redis": b"PING\r\n\r\n\r\n",
                           "a query without startup": query("SELECT 1"), "a tls hello cut short": b"\x16\x03\x01\x02\0\x01",
                           **{f"random {i}": chance.randbytes(200) for i in range(20)}}.items():
            with self.subTest(name):
                received = self.answer(data, half_close=True)
                self.assertNotIn(b"Z\0\0\0\5", received)
                self.assertTrue(self.guard.alive())

    def test_startup_packets_of_impossible_lengths(self):
        for length in (-2147483648, -1, 0, 1, 3, 4, 7, 10_005, 65_536, 0x3FFFFFFF, 0x7FFFFFFF):
            with self.subTest(length):
                before = time.monotonic()
                received = self.answer(packet(wire.PROTOCOL_3_0, b"user\0app\0\0", length))
                self.assertLess(time.monotonic() - before, 1.9, "refused at once, not by the login timeout")
                self.assertNotIn(b"R\0\0\0\x08\0\0\0\0", received)
        if not sanitizers.ON:
            self.assertLess(status_kib(self.guard.pid, "VmRSS"), 200 * 1024)

    def test_malformed_startup_packets(self):
        for name, data in {"no terminator": packet(wire.PROTOCOL_3_0, b"user\0app"), "a name alone": packet(wire.PROTOCOL_3_0, b"user\0\0"),
                           "two users": packet(wire.PROTOCOL_3_0, b"user\0app\0user\0postgres\0\0"),
                           "two databases": packet(wire.PROTOCOL_3_0, b"user\0app\0database\0a\0database\0b\0\0"),
                           "bytes behind the end": packet(wire.PROTOCOL_3_0, b"user\0app\0\0more\0"),
                           "no user": packet(wire.PROTOCOL_3_0, b"\0"), "nothing": packet(wire.PROTOCOL_3_0, b""),
                           "an SSLRequest with a body": packet(80877103, b"body"),
                           "an empty user": packet(wire.PROTOCOL_3_0, b"user\0\0\0")}.items():
            with self.subTest(name):
                received = self.answer(data)
                self.assertNotIn(b"Z\0\0\0\5", received)
                if not name.startswith("an SSL"):
                    self.assertEqual(b"E", received[:1], received)
                    self.assertIn(b"FATAL", received)

    def test_a_startup_packet_of_the_largest_size_arrives(self):
        # The server allows 10,000 bytes behind the length itself.
        parameters = {"user": "app", "database": "postgres", "application_name": ""}
        parameters["application_name"] = "x" * (10_004 - len(startup(parameters)))
        packet = startup(parameters)

        def play(target):
            with wire.Wire(target.address) as connection:
                connection.send(packet)
                return wire.masked(connection.until("ZE"))

        self.same(play)

    def test_a_login_that_stops_half_way_times_out(self):
        for name, data in {"nothing": b"", "one byte": b"\0", "half a packet": START[:20], "an SSLRequest": wire.SSL_REQUEST,
                           "half a tls hello": b"\x16\x03\x01\x02\0\x01\0"}.items():
            with self.subTest(name):
                before = time.monotonic()
                received = self.answer(data, timeout_s=10)
                self.assertLess(time.monotonic() - before, 6)
                if name != "half a tls hello":
                    self.assertNotIn(b"Z\0\0\0\5", received)

    def test_a_password_that_never_comes_times_out(self):
        before = time.monotonic()
        received = self.answer(startup({"user": "person_password", "database": "postgres"}), timeout_s=10)
        self.assertTrue(received.startswith(b"R\0\0\0\x08\0\0\0\3"), received)
        self.assertLess(time.monotonic() - before, 6)
        self.cluster.wait_for_backends(0, "usename = 'person_password'")

    def test_the_login_timeout_is_over_once_one_is_in(self):
        with self.guarded.wire(user="app") as connection:
            connection.send(query("SELECT 1")[:3])
            time.sleep(2.6)
            connection.send(query("SELECT 1")[3:])
            self.assertEqual("TDCZ", wire.tags(connection.until_ready()))

    def test_messages_that_no_server_takes_end_the_session_as_direct(self):
        chance = random.Random(2)
        for name, data in {"an unknown tag": b"!" + struct.pack("!i", 4), "a backend's tag": message("Z", b"I"),
                           "a length of 3": b"Q" + struct.pack("!i", 3), "a length of 0": b"Q" + struct.pack("!i", 0),
                           "a negative length": b"Q" + struct.pack("!i", -5), "the largest length": b"Q\x7f\xff\xff\xff",
                           "a Sync of 20,000 bytes": message("S", b"x" * 20_000),
                           "a Terminate of 20,000 bytes": message("X", b"x" * 20_000),
                           "a Bind longer than memory": b"B\x7f\xff\xff\xff", "zeros": bytes(50),
                           "http": b"GET / HTTP/1.1\r\n\r\n", "random": chance.randbytes(300),
                           "a startup packet again": START, "a password nobody asked for": wire.password("x")}.items():
            with self.subTest(name):
                def play(target):
                    with target.wire(user="app") as connection:
                        connection.send(data)
                        connection.half_close()
                        try:
                            frames = connection.until_closed()
                        except wire.ClosedByPeer:
                            frames = []
                        # The severity and the code; the words may be the guard's own.
                        return [(f.fields()["S"], f.fields()["C"]) for f in frames if f.tag == "E"]

                self.same(play, what=name)

    def test_a_message_cut_in_half_and_the_end(self):
        for data in (query("SELECT 1"), parse("SELECT 1"), message("d", b"x" * 100)):
            for cut in (1, 4, 5, len(data) - 1):
                with self.subTest(data[:1], cut=cut), self.guarded.wire(user="app", application_name="cut") as connection:
                    connection.send(data[:cut])
                    connection.half_close()
                    self.assertNotIn("C", wire.tags(connection.until_closed()))
                self.cluster.wait_for_backends(0, "application_name = 'cut'")

    def test_hundreds_of_connections_that_say_nothing(self):
        before = processes.open_sockets(self.guard.pid)
        held = [socket.create_connection(self.guarded.address, 5) for _ in range(400)]
        try:
            self.assert_guard_works()
            self.cluster.wait_for_backends(1)  # the witness alone: nothing was opened for those who said nothing
            wait_until(lambda: processes.open_sockets(self.guard.pid) <= before + 2, 12, "the login timeout to end them")
        finally:
            for connection in held:
                connection.close()


@needs_guard
class BadSurroundings(EndToEnd):
    def run_guard(self, *arguments, timeout_s=8.0):
        try:
            return subprocess.run([binary(), *map(str, arguments)], capture_output=True, text=True, timeout=timeout_s,
                                  cwd=self.directory)
        except subprocess.TimeoutExpired:
            self.fail(f"still running: {arguments}")

    def assert_trouble(self, done, *texts):
        self.assertEqual(2, done.returncode, (done.stdout, done.stderr))
        for text in texts:
            self.assertIn(text, done.stderr)
        self.assertNotIn("terminate called", done.stderr)
        self.assertLess(len(done.stderr.splitlines()), 30)

    def test_unknown_options_and_impossible_values(self):
        for arguments, text in ((["serve", "--lisen", "x"], "--lisen"), (["serve", "--listen", "nowhere"], "nowhere"),
                                (["serve", "--listen", "127.0.0.1:70000"], "70000"), (["serve", "--threads", "many"], "many"),
                                (["serve", "--upstream", "127.0.0.1:x"], "127.0.0.1:x"), (["serve", "--login-timeout", "soon"], "soon"),
                                (["serve", "--authentication", "magic"], "magic"), (["serve", "-c", "missing.yaml"], "missing.yaml"),
                                (["serve", "--log-level", "loud"], "loud"), (["nonsense"], "nonsense"), ([], ""),
                                (["serve", "--audit", "/nonexistent/audit.jsonl", "--listen", f"127.0.0.1:{processes.free_port()}"], "/nonexistent/audit.jsonl"),
                                (["serve", "--listen", "192.0.2.1:5555"], "192.0.2.1")):
            with self.subTest(arguments):
                self.assert_trouble(self.run_guard(*arguments), text)

    def test_help_and_version(self):
        for arguments in (["--help"], ["-h"], ["serve", "--help"], ["--version"]):
            with self.subTest(arguments):
                done = self.run_guard(*arguments)
                self.assertEqual((0, ""), (done.returncode, done.stderr))
                self.assertIn("pgchaperone", done.stdout)
        for part in ("OpenSSL", "Boost", "grammar"):
            self.assertIn(part, self.run_guard("--version").stdout)
        self.assertIn("--upstream", self.run_guard("serve", "--help").stdout)

    def test_a_broken_configuration_names_its_place(self):
        file = self.directory / "broken.yaml"
        for text, expected in (("lisen: 127.0.0.1:1\n", "broken.yaml:1:1"), ("listen: [1\n", "broken.yaml:"),
                               ("policy:\n  rules:\n    - name: x\n      matsch: {}\n      action: block\n", "broken.yaml:4:7"),
                               ("threads: -3\n", "broken.yaml:1:"), ("\x00\x01", "broken.yaml:")):
            with self.subTest(text):
                file.write_text(text)
                self.assert_trouble(self.run_guard("serve", "-c", file, "--listen", "127.0.0.1:0"), expected)

    def test_a_port_in_use(self):
        done = self.run_guard("serve", "--listen", f"127.0.0.1:{self.cluster.port}", "--audit", self.directory / "a")
        self.assert_trouble(done, f"127.0.0.1:{self.cluster.port}")
        self.assertIn("in use", done.stderr.lower())

    def test_an_unreachable_upstream(self):
        class Nowhere:
            host, port = "127.0.0.1", processes.free_port()

        class NoSocket:
            host, port = str(self.directory), 5432

        class NoName:
            host, port = "no-such-host.invalid", 5432

        for upstream in (Nowhere, NoSocket, NoName):
            with self.subTest(upstream.__name__):
                guard = Guard(upstream, "--connect-timeout", "3s")
                self.addCleanup(guard.erase)
                for _ in range(2):
                    with wire.Wire((guard.host, guard.port)) as connection:
                        connection.send(START)
                        error, = connection.until_closed()
                    fields = error.fields()
                    self.assertEqual("FATAL", fields["S"])
                    self.assertIn(fields["C"], ("08006", "57P03", "08001"))
                    self.assertIn(str(upstream.host), fields["M"] + fields.get("D", ""))
                    self.assertIn(str(upstream.port), fields["M"] + fields.get("D", ""))

    def test_an_upstream_that_never_answers(self):
        listener = socket.create_server(("127.0.0.1", 0))

        class Silent:
            host, port = listener.getsockname()

        watcher = Watcher(processes.free_port())
        guard = Guard(Silent, "--login-timeout", "2s", "--connect-timeout", "1s", "--upstream-tls", "prefer",
                      "--metrics-listen", f"127.0.0.1:{watcher.port}")
        self.addCleanup(guard.erase)
        self.addCleanup(listener.close)
        before = time.monotonic()
        with wire.Wire((guard.host, guard.port)) as connection:
            connection.send(START)
            frames = connection.until_closed()
        self.assertEqual("E", wire.tags(frames))
        self.assertIn(str(Silent.port), frames[0].fields()["M"] + frames[0].fields().get("D", ""))
        self.assertLess(time.monotonic() - before, 6)
        timed_out = 'pgchaperone_upstream_connect_errors_total{kind="timeout"}'
        processes.wait_until(lambda: watcher.figures()[timed_out] == 1, 10, "the time-out to be counted")

    def test_a_server_that_comes_back_is_used_again(self):
        self.cluster.stop()
        with wire.Wire(self.guarded.address) as connection:
            connection.send(START)
            self.assertIn("E", wire.tags(connection.until_closed()))
        port = self.cluster.port
        original = processes.free_port
        processes.free_port = lambda: port
        try:
            self.cluster.start()
        finally:
            processes.free_port = original
        self.assert_guard_works()

    def test_it_ends_at_sigterm_and_sigint_with_sessions_open(self):
        for by in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(by):
                guard = Guard(self.cluster)
                self.addCleanup(guard.erase)
                with wire.Wire.log_in((guard.host, guard.port)) as idle:
                    guard.process.send_signal(by)
                    guard.process.wait(10)
                    self.assertEqual(0, guard.process.returncode, guard.log_text())
                    frames = idle.until_closed()
                    self.assertEqual(["57P01"], wire.sqlstates(frames))
                guard.process = None

    def test_a_client_that_closes_its_pipe_does_not_kill_it(self):
        # SIGPIPE: the guard writes to sockets that are gone.
        for _ in range(30):
            connection = self.guarded.wire()
            connection.send(query("SELECT repeat('x', 100000) FROM generate_series(1, 50)") * 3)
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        self.assert_guard_works()
        self.cluster.wait_for_backends(0, timeout_s=20)

    def test_no_more_file_descriptors(self):
        """At the limit new clients wait or are turned away; when there is room again, they come in."""
        guard = Guard(self.cluster)
        self.addCleanup(guard.erase)
        used = len(os.listdir(f"/proc/{guard.pid}/fd"))
        resource.prlimit(guard.pid, resource.RLIMIT_NOFILE, (used + 12, used + 12))
        held = [socket.create_connection((guard.host, guard.port), 5) for _ in range(40)]
        time.sleep(0.3)
        ticks = sum(map(int, Path(f"/proc/{guard.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
        time.sleep(1.0)
        spent = sum(map(int, Path(f"/proc/{guard.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])) - ticks
        self.assertLess(spent, 50, "it spins while it can't accept")
        for connection in held:
            connection.close()
        wait_until(lambda: len(os.listdir(f"/proc/{guard.pid}/fd")) <= used + 2, 10, "room")
        with wire.Wire.log_in((guard.host, guard.port)) as connection:
            self.assertEqual([("1",)], connection.rows("SELECT 1"))


if __name__ == "__main__":
    main()
