"""The life of sessions, as direct: notifications, function calls, closed and half-closed sockets, and the ways in
which a server ends a session."""

import os
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.e2e import EndToEnd, closed, main, ready, silence, until, wire
from support.processes import open_sockets, wait_until
from support.wire import flush, function_call, parse, query, run, sync, terminate

LO_CREATE, LO_OPEN, LO_CLOSE, LO_READ, LO_WRITE, LO_LSEEK, LO_UNLINK = 715, 952, 953, 954, 955, 956, 964


def int4(value: int) -> bytes:
    return struct.pack("!i", value)


class Notifications(EndToEnd):
    def notify(self, payload):
        self.cluster.sql("SELECT pg_notify('channel', %s)", [payload])

    def test_they_reach_an_idle_session(self):
        self.same_frames(query("LISTEN channel"), ready(), lambda c: self.notify("hello \u00fc"), until("A"),
                         lambda c: self.notify("x" * 7000), until("A"), query("UNLISTEN *"), ready(),
                         lambda c: self.notify("unheard"), silence())

    def test_they_come_after_a_query_and_not_inside_a_transaction(self):
        self.same_frames(query("LISTEN channel"), ready(), query("BEGIN"), ready(), lambda c: self.notify("waits"),
                         silence(), query("SELECT 1"), ready(), query("COMMIT"), until("A"))

    def test_a_session_hears_itself(self):
        self.same_frames(query("LISTEN channel"), ready(), query("NOTIFY channel, 'a'; SELECT 1; NOTIFY channel, 'b'"),
                         ready(), run("SELECT pg_notify('channel', 'c')") + flush() + sync() + run("SELECT 2") + sync(),
                         ready(2))

    def test_they_come_between_the_parts_of_a_pipeline(self):
        self.same_frames(query("LISTEN channel"), ready(), b"".join(
            run(f"SELECT pg_notify('channel', 'n{i}')") + sync() for i in range(50)), ready(50))


class FunctionCalls(EndToEnd):
    def test_large_objects(self):
        data = bytes(range(256)) * 5000

        def play(target):
            with target.wire() as c:
                def call(oid, *arguments):
                    c.send(function_call(oid, arguments))
                    frames = c.until_ready()
                    return frames[0].body[4:] if frames[0].tag == "V" else frames

                c.ask("BEGIN")
                oid = call(LO_CREATE, int4(41000))
                fd = call(LO_OPEN, oid, int4(0x60000))
                written = call(LO_WRITE, fd, data)
                at = call(LO_LSEEK, fd, int4(1000), int4(0))
                read = call(LO_READ, fd, int4(600_000))
                ended = call(LO_CLOSE, fd)
                c.ask("COMMIT")
                failed = call(LO_UNLINK, int4(41999))  # outside a block: an error and ready, no skipping
                gone = call(LO_UNLINK, oid)
                return oid, fd, written, at, read == data[1000:601_000], ended, failed, gone, c.ask("SELECT 1")

        result = self.same(play)
        self.assertEqual((int4(41000), int4(len(data)), True), (result[0], result[2], result[4]))

    def test_errors_and_order(self):
        good, bad = function_call(1, [int4(1)]), function_call(99999, [])
        abs_call = function_call(1397, [int4(-7)])  # pg_catalog.abs(int4)
        self.same_frames(abs_call, ready(), good, ready(), bad, ready(), abs_call + bad + query("SELECT 1") + abs_call,
                         ready(4), function_call(1397, ["-9"], [0], 0), ready(), function_call(1397, [None]), ready())
        self.same_frames(query("BEGIN"), ready(), bad, ready(), abs_call, ready(), query("ROLLBACK"), ready())
        self.same_frames(parse("SELEC") + abs_call + sync() + abs_call, ready(2))
        self.same_frames(run("SELECT 1") + abs_call + run("SELECT 2") + sync(), ready(2))


class Endings(EndToEnd):
    cluster_options = {"settings": {"max_connections": "12", "superuser_reserved_connections": "2"}}

    def assert_all_gone(self):
        try:
            self.cluster.wait_for_backends(0, "application_name = 'ending'", timeout_s=5)
        except TimeoutError:
            self.cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ending'")
            raise

    def test_terminate_ends_the_servers_session(self):
        self.same_frames(terminate(), closed)
        self.same_frames(query("SELECT 1") + terminate(), closed)
        self.same_frames(run("INSERT INTO scratch VALUES (77, 'no Sync')") + terminate(), closed)
        self.assertEqual([(0,)], self.cluster.sql("SELECT count(*) FROM scratch WHERE id = 77"))

    def test_a_closed_client_ends_the_servers_session(self):
        with self.guarded.wire(application_name="ending") as connection:
            connection.ask("BEGIN")
        self.assert_all_gone()

    def test_a_reset_client_ends_the_servers_session(self):
        connection = self.guarded.wire(application_name="ending")
        connection.ask("BEGIN; INSERT INTO scratch VALUES (78, 'open transaction')")
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        self.assert_all_gone()
        self.assertEqual([(0,)], self.cluster.sql("SELECT count(*) FROM scratch WHERE id = 78"))

    def test_a_half_closed_client_still_gets_its_answers(self):
        def play(target):
            with target.wire(application_name="ending") as connection:
                connection.send(query("SELECT 1, pg_sleep(0.2)") + run("SELECT id FROM items ORDER BY id") + sync())
                connection.half_close()
                return connection.until_closed()

        self.assertEqual("TDCZ12T" + "D" * 20 + "CZ", wire.tags(self.same(play)))
        self.assert_all_gone()

    def test_a_half_closed_client_gets_a_large_result_whole(self):
        def play(target):
            with target.wire() as connection:
                connection.send(query("SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i"))
                connection.half_close()
                return len(connection.until_closed())

        self.assertEqual(20003, self.same(play))

    def test_a_client_that_leaves_in_the_middle_of_a_result(self):
        with self.guarded.wire(application_name="ending") as connection:
            connection.send(query("SELECT generate_series(1, 1000000000), repeat('x', 1000)"))
            connection.until("D", 10)
        # The server must hear of it at once, not when it has told all its rows to nobody.
        self.assert_all_gone()

    def test_a_client_that_leaves_in_the_middle_of_a_message(self):
        for cut in (1, 3, 5, 9):
            with self.guarded.wire(application_name="ending") as connection:
                connection.send(query("SELECT 'never'")[:cut])
            self.assert_all_gone()

    def test_a_session_terminated_by_the_administrator(self):
        def play(target):
            with target.wire(application_name="ending") as connection:
                self.cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ending'")
                idle = connection.until_closed()
            with target.wire(application_name="ending") as connection:
                connection.send(query("SELECT 'first'; SELECT pg_sleep(20)"))
                self.cluster.wait_for_backends(1, "application_name = 'ending' AND wait_event = 'PgSleep'")
                self.cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ending'")
                return idle, connection.until_closed()

        idle, busy = self.same(play)
        self.assertEqual((["57P01"], ["57P01"]), (wire.sqlstates(idle), wire.sqlstates(busy)))

    def test_a_session_that_times_out_while_idle(self):
        frames = self.same_frames(query("SET idle_session_timeout = 200"), ready(), closed)
        self.assertEqual(["57P05"], wire.sqlstates(frames))

    def test_too_many_connections(self):
        def play(target):
            first = target.wire(user="person_limited")
            with first:
                with wire.Wire(target.address) as second:
                    second.send(wire.startup({"user": "person_limited", "database": "postgres"}))
                    own_limit = second.until_closed()
            self.cluster.wait_for_backends(0, "usename = 'person_limited'")
            held = []
            try:
                while True:
                    try:
                        held.append(target.wire(user="app"))
                    except PermissionError:
                        # A session that is over may keep its place for a moment.
                        time.sleep(0.2)
                        held.append(target.wire(user="app"))
            except PermissionError as refusal:
                return own_limit, len(held), str(refusal)
            finally:
                for connection in held:
                    connection.close()
                self.cluster.wait_for_backends(0, "usename = 'app'")

        own_limit, count, refusal = self.same(play)
        self.assertEqual(["53300"], wire.sqlstates(own_limit))
        self.assertTrue(refusal.startswith("53300"), refusal)
        self.assertGreaterEqual(count, 8)

    def test_refused_log_ins(self):
        for parameters in ({"user": "postgres", "database": "nowhere"}, {"user": "nobody", "database": "postgres"},
                           {"user": "person_rejected", "database": "postgres"}, {"user": "nobody_either"},
                           {"user": "postgres", "database": "postgres", "no_such_setting": "1"},
                           {"user": "postgres", "options": "--no-such-option=1"},
                           {"user": "postgres", "DateStyle": "nonsense"}):
            with self.subTest(parameters):
                def play(target):
                    with wire.Wire(target.address) as connection:
                        connection.send(wire.startup(parameters))
                        return wire.masked(connection.until_closed())

                self.assertIn("E", wire.tags(self.same(play)))

    def test_a_wrong_password(self):
        for user in ("person_password", "person_md5"):
            for given, good in ((f"{user}-secret", True), ("wrong", False), ("", False)):
                with self.subTest(user, given=given):
                    def play(target):
                        try:
                            with target.wire(user=user, password_text=given) as connection:
                                return connection.ask("SELECT current_user")
                        except PermissionError as refusal:
                            return str(refusal)

                    self.assertEqual(good, not isinstance(self.same(play), str))

    def test_many_sessions_come_and_go_and_leave_no_socket(self):
        def one_round():
            for _ in range(100):
                with self.guarded.wire() as connection:
                    connection.ask("SELECT 1")

        def storm():
            for _ in range(150):
                with wire.Wire(self.guarded.address) as connection:
                    connection.send(wire.startup({"user": "app", "database": "postgres"}))

        one_round()
        self.cluster.wait_for_backends(0)
        before = open_sockets(self.guard.pid) if self.guard.process else 0
        threads = [threading.Thread(target=storm) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.cluster.wait_for_backends(0, timeout_s=20)
        one_round()
        self.cluster.wait_for_backends(0)
        if self.guard.process:
            wait_until(lambda: open_sockets(self.guard.pid) <= before, 5, f"not more than {before} open sockets")


class DyingServer(EndToEnd):
    ROWS = "SELECT i, repeat('x', 500) FROM generate_series(1, 3000) i"

    def kill_the_victim(self):
        (pid,), = self.cluster.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'victim'")
        os.kill(pid, signal.SIGKILL)

    def test_a_server_killed_in_the_middle_of_a_result(self):
        # The rows are in one order, so that what came of them can be compared to what was to come. How many came
        # depends on the server: it flushes by the buffer, and also where something behind a statement asks for it.
        with self.direct.wire() as connection:
            whole = [f for f in connection.ask(self.ROWS) if f.tag in "TD"]

        def play(target):
            starts = self.cluster.starts()
            with target.wire(application_name="victim") as connection:
                connection.send(query(self.ROWS + "; SELECT pg_sleep(30)"))
                frames = connection.until("D", 2900)
                self.cluster.wait_for_backends(1, "application_name = 'victim' AND wait_event = 'PgSleep'")
                self.kill_the_victim()
                # The last message may be cut.
                try:
                    while (frame := connection.frame()) is not None:
                        frames.append(frame)
                except wire.ClosedByPeer:
                    pass
            self.cluster.wait_for_restart(starts)
            self.assertLess(2900, len(frames))
            rows = [f for f in frames if f.tag in "TD"]
            self.assertEqual(whole[:len(rows)], rows[:len(whole)], f"{target.name}: no row is missing or changed")
            return [f for f in frames if f.tag not in "TDC"]

        self.assertEqual([], self.same(play), "nothing but rows and their end: the server said no word")
        self.assert_guard_works()

    def test_other_sessions_hear_why_when_the_server_crashes(self):
        def play(target):
            starts = self.cluster.starts()
            with target.wire() as witness, target.wire(application_name="victim") as victim:
                self.kill_the_victim()
                frames = [wire.tags(victim.until_closed()), wire.sqlstates(witness.until_closed())]
            self.cluster.wait_for_restart(starts)
            return frames

        self.same(play)

    def test_a_fast_shutdown_reaches_the_client_as_the_server_says_it(self):
        def play(target):
            with target.wire() as connection:
                self.cluster.stop()
                frames = connection.until_closed()
            return wire.masked(frames)

        first = play(self.direct)
        self.cluster.start()
        self.direct.port = self.cluster.port
        self._move_guard()
        self.assertEqual(first, play(self.guarded))
        self.assertEqual(["57P01"], wire.sqlstates(first))
        self.cluster.start()
        self.direct.port = self.cluster.port
        self._move_guard()

    def _move_guard(self):
        # The server took another free port; the guard is started again to follow it.
        self.guard.stop()
        self.guard.start()
        self.guarded.port = self.guard.port if self.guard.process else self.cluster.port


if __name__ == "__main__":
    main()
