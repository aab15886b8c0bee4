"""The guard between a raw client and a server that does what a test says: later protocol versions, long cancel keys,
direct TLS, odd chunks, and servers that misbehave."""

import struct
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import fake_server as fake
from support import guard as guard_module
from support import wire
from support.certificates import Authority
from support.e2e import Guard, Target, main
from support.fake_server import FakeServer
from support.processes import wait_until
from support.wire import PROTOCOL_3_0, PROTOCOL_3_2, message, query

ROW = "TDCZ"


class Scripted(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        keys = tempfile.TemporaryDirectory(prefix="pgchaperone-test-keys-")
        cls.addClassCleanup(keys.cleanup)
        cls.authority = Authority(keys.name)
        cls.pair = cls.authority.issue("server")

    def between(self, script, *options, needs_guard=False, **more):
        """Starts a fake server with this script and a guard in front of it; returns the address for a client."""
        if needs_guard and guard_module.direct():
            self.skipTest("there is no guard in a direct run")
        self.server = FakeServer(script)
        self.addCleanup(self.server.stop)
        self.guard = Guard(self.server, *options, **more)
        self.addCleanup(self.guard.erase)
        return (self.guard.host, self.guard.port)

    def log_in(self, address, **options):
        connection = wire.Wire.log_in(address, timeout_s=10, **options)
        self.addCleanup(connection.close)
        return connection

    def open(self, address, data=b""):
        connection = wire.Wire(address, timeout_s=10)
        self.addCleanup(connection.close)
        connection.send(data)
        return connection

    def start(self, address, version=PROTOCOL_3_0, **parameters):
        return self.open(address, wire.startup({"user": "u", "database": "d", **parameters}, version))

    def assert_fatal(self, frames, *sqlstates):
        errors = [f.fields() for f in frames if f.tag == "E"]
        self.assertTrue(errors, f"no ErrorResponse in {frames}")
        self.assertEqual("FATAL", errors[0]["S"])
        self.assertIn(errors[0]["C"], sqlstates, errors[0])
        return errors[0]["M"] + " " + errors[0].get("D", "") + " " + errors[0].get("H", "")

    def test_psql_talks_to_a_fake_server(self):
        # So the fake server is held to what libpq expects of a real one.
        address = self.between(fake.ordinary)
        done = Target("fake", *address).program("psql", "-XAt", "-c", "SELECT 1", "-c", "SELECT 2")
        self.assertEqual((0, "row\nrow\n", ""), (done.returncode, done.stdout, done.stderr))

    # --- versions and keys -------------------------------------------------------------------------------

    def test_cancel_keys_of_4_to_256_bytes_are_relayed_and_come_back(self):
        cancels = []

        def script(peer):
            code, body = peer.read_startup()
            if code == fake.CANCEL:
                cancels.append(body)
                return
            peer.greet(99, bytes(i % 256 for i in range(int(peer.startup["application_name"]))))
            peer.serve_queries()

        address = self.between(script)
        for length in (4, 5, 16, 32, 33, 255, 256):
            with self.subTest(length):
                connection = self.log_in(address, version=PROTOCOL_3_2, application_name=str(length))
                self.assertEqual((99, bytes(i % 256 for i in range(length))), (connection.pid, connection.key))
                self.assertEqual(ROW, wire.tags(connection.ask("SELECT 1")))
                with wire.Wire(address) as messenger:
                    messenger.send(wire.cancel_request(connection.pid, connection.key), chunk=max(1, length // 3))
                    self.assertEqual([], messenger.until_closed())
                wait_until(lambda: cancels, 5, "the CancelRequest to reach the server")
                self.assertEqual(struct.pack("!i", 99) + connection.key, cancels.pop())

    def test_the_startup_packet_reaches_the_server_as_it_was_sent(self):
        seen = []

        def script(peer):
            seen.append(peer.read_startup())
            peer.greet()
            peer.serve_queries()

        address = self.between(script)
        for version, parameters in ((PROTOCOL_3_0, {"user": "u"}), (PROTOCOL_3_2, {"user": "u", "database": "d"}),
                                    (PROTOCOL_3_0, {"options": "-c a=b", "user": "\u00fc", "x.y": "", "database": "d"}),
                                    (PROTOCOL_3_0, {"user": "u" * 200, "application_name": "a" * 4000})):
            with self.subTest(parameters):
                packet = wire.startup(parameters, version)
                connection = self.open(address, packet)
                connection.finish_login("u", None)
                self.assertEqual((version, packet[8:]), seen.pop())

    def test_the_servers_negotiation_is_relayed_once(self):
        def script(peer):
            peer.read_startup()
            options = [name for name in peer.startup if name.startswith("_pq_.")]
            peer.send(fake.negotiate_protocol_version(0, options))
            peer.greet()
            peer.serve_queries()

        address = self.between(script)
        for version, extra in ((PROTOCOL_3_2, {}), ((3 << 16) | 9999, {}), (PROTOCOL_3_0, {"_pq_.made_up": "1"}),
                               ((3 << 16) | 9999, {"_pq_.a": "1", "_pq_.b": "2"})):
            with self.subTest(version=version, extra=extra):
                connection = self.start(address, version, **extra)
                connection.finish_login("u", None)
                self.assertEqual("vRSSSSSKZ", wire.tags(connection.greeting))
                self.assertEqual(fake.negotiate_protocol_version(0, list(extra))[5:], connection.greeting[0].body)
                self.assertEqual(ROW, wire.tags(connection.ask("SELECT 1")))

    def test_protocol_2_and_4_are_refused(self):
        address = self.between(fake.ordinary, needs_guard=True)
        for version in (2 << 16, 4 << 16, 1 << 16, 0, -1 & 0x7FFFFFFF):
            with self.subTest(version):
                self.assert_fatal(self.start(address, version).until_closed(), "0A000", "08P01")

    def test_fatal_errors_at_log_in_are_the_servers_own(self):
        def script(peer):
            peer.read_startup()
            peer.send(fake.error_response("57P03", "the database system is starting up"))

        address = self.between(script)
        self.assertEqual([("E", fake.error_response("57P03", "the database system is starting up")[5:])],
                         self.start(address).until_closed())

    # --- chunks ------------------------------------------------------------------------------------------

    def test_a_server_that_answers_byte_by_byte(self):
        def script(peer):
            peer.read_startup()
            peer.send(fake.GREETING + fake.backend_key_data(1, b"abcd") + fake.ready_for_query(), chunk=1)
            while (frame := peer.frame()) is not None and frame.tag == "Q":
                peer.send(fake.ONE_ROW * 5 + fake.ready_for_query(), chunk=1)

        connection = self.log_in(self.between(script))
        self.assertEqual("TDC" * 5 + "Z", wire.tags(connection.ask("SELECT 1")))

    def test_notices_and_parameters_may_come_at_any_time(self):
        interlude = (fake.parameter_status("TimeZone", "UTC") + message("N", b"SNOTICE\0C00000\0Mhello\0\0") +
                     message("A", struct.pack("!i", 7), b"channel\0payload\0"))

        def script(peer):
            peer.read_startup()
            peer.greet()
            peer.send(interlude)
            while (frame := peer.frame()) is not None and frame.tag == "Q":
                row, end = fake.ONE_ROW[:-14], fake.ONE_ROW[-14:]  # CommandComplete is 14 bytes
                peer.send(row + interlude + end + fake.ready_for_query() + interlude)

        connection = self.log_in(self.between(script))
        self.assertEqual("SNA", wire.tags(connection.until("A")))
        frames = connection.ask("SELECT 1")
        self.assertEqual("TDSNACZ", wire.tags(frames))
        self.assertEqual("SNA", wire.tags(connection.until("A")))

    # --- TLS to the server -------------------------------------------------------------------------------

    def test_direct_tls_to_the_server_with_alpn(self):
        seen = []

        def script(peer):
            peer.socket = fake.server_tls_context(self.pair).wrap_socket(peer.socket, server_side=True)
            seen.append(peer.socket.selected_alpn_protocol())
            fake.ordinary(peer)

        address = self.between(script, "--upstream-tls", "require", "--upstream-tls-negotiation", "direct",
                               needs_guard=True)
        self.assertEqual(ROW, wire.tags(self.log_in(address).ask("SELECT 1")))
        self.assertEqual(["postgresql"], seen)

    def test_direct_tls_to_a_server_without_alpn_is_refused(self):
        def script(peer):
            peer.socket = fake.server_tls_context(self.pair, alpn=()).wrap_socket(peer.socket, server_side=True)
            fake.ordinary(peer)

        address = self.between(script, "--upstream-tls", "require", "--upstream-tls-negotiation", "direct",
                               needs_guard=True)
        self.assert_fatal(self.start(address).until_closed(), "08006", "08001", "57P03")

    def test_tls_asked_of_the_server_by_ssl_request(self):
        def script(peer):
            peer.read_startup(tls=fake.server_tls_context(self.pair))
            peer.greet()
            peer.serve_queries()

        address = self.between(script, "--upstream-tls", "require", needs_guard=True)
        self.assertEqual(ROW, wire.tags(self.log_in(address).ask("SELECT 1")))

    def test_servers_that_answer_ssl_request_wrongly(self):
        answers = {"nothing": b"", "garbage": b"?", "an error": fake.error_response("0A000", "no TLS here"),
                   "clear text behind its yes": b"S" + fake.GREETING, "a refusal": b"N"}
        for name, answer in answers.items():
            with self.subTest(name):
                def script(peer):
                    peer.read_packet()
                    peer.send(answer)
                    peer.until_closed()

                address = self.between(script, "--upstream-tls", "require", "--connect-timeout", "1500ms",
                                       "--login-timeout", "3s", needs_guard=True)
                text = self.assert_fatal(self.start(address).until_closed(), "08006", "08001", "57P03", "08P01")
                self.assertIn(f":{self.server.port}", text)

    # --- servers that misbehave --------------------------------------------------------------------------

    def test_a_server_that_closes_or_keeps_silent_at_log_in(self):
        def closes(peer):
            peer.read_startup()

        def silent(peer):
            peer.read_startup()
            peer.until_closed()

        for name, script in (("closes", closes), ("silent", silent)):
            with self.subTest(name):
                address = self.between(script, "--login-timeout", "2s", needs_guard=True)
                connection = self.start(address)
                before = time.monotonic()
                frames = connection.until_closed()
                if frames or name == "silent":  # a server that closes in silence may be relayed as it is
                    self.assert_fatal(frames, "08006", "57P03", "57014")
                self.assertLess(time.monotonic() - before, 6)

    def test_garbage_from_the_server_ends_that_session_alone(self):
        garbage = {"an unknown tag": b"\xff\0\0\0\4", "a length of 3": b"D\0\0\0\3", "a negative length": b"D\xff\xff\xff\xff",
                   "a huge ReadyForQuery": b"Z\x7f\xff\xff\xff", "a ReadyForQuery of no state": message("Z", b""),
                   "http": b"HTTP/1.1 400 Bad Request\r\n\r\n", "a ReadyForQuery nobody asked for": fake.ready_for_query() * 3,
                   "an answer to a Parse that never was": message("1") + fake.ready_for_query(),
                   "a half message and the end": b"D\0\0\1\0half"}
        for name, data in garbage.items():
            with self.subTest(name):
                def script(peer):
                    peer.read_startup()
                    peer.greet()
                    while (frame := peer.frame()) is not None and frame.tag == "Q":
                        if b"garbage" in frame.body:
                            peer.send(data)
                            if name.endswith("end"):
                                return
                            peer.until_closed()
                            return
                        peer.send(fake.ONE_ROW + fake.ready_for_query())

                address = self.between(script, needs_guard=True)
                witness, victim = self.log_in(address), self.log_in(address)
                victim.send(query("garbage"))
                victim.socket.settimeout(5)
                frames = []
                try:
                    while (frame := victim.frame()) is not None:
                        frames.append(frame)
                    self.assertNotIn("C", wire.tags(frames))
                except (wire.ClosedByPeer, ValueError):
                    pass
                except TimeoutError:
                    self.fail(f"the session was left open, after {frames}")
                self.assertEqual(ROW, wire.tags(witness.ask("SELECT 1")))
                self.assertTrue(self.guard.alive())

    def test_a_server_that_never_reads_stops_the_client_and_not_the_guard(self):
        """The client's bytes must not pile up in the guard."""
        release = threading.Event()

        def script(peer):
            peer.read_startup()
            peer.greet()
            release.wait(20)

        address = self.between(script, needs_guard=True)
        connection = self.log_in(address)
        connection.socket.settimeout(1.5)
        sent = 0
        piece = message("d", b"x" * 65536)
        try:
            with self.assertRaises(TimeoutError):
                connection.send(query("COPY t FROM STDIN"))
                while sent < 256 << 20:
                    connection.send(piece)
                    sent += len(piece)
        finally:
            release.set()
        self.assertLess(sent, 64 << 20)


if __name__ == "__main__":
    main()
