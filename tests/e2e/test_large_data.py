"""Large results and parameters, slow clients: whole on arrival, and the guard's memory stays bounded."""

import hashlib
import os
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import sanitizers
from support.e2e import EndToEnd, main, needs_guard, wire
from support.processes import reset_peak_memory, status_kib
from support.wire import bind, copy_data, copy_done, execute, parse, query, sync

MIB = 1 << 20
LIMIT_KIB = 32 * 1024


class LargeData(EndToEnd):
    cluster_options = {"settings": {"shared_buffers": "64MB", "work_mem": "64MB"}}

    def setUp(self):
        if self.guard.process:
            self.assert_guard_works()
            reset_peak_memory(self.guard.pid)
            self.before_kib = status_kib(self.guard.pid, "VmRSS")

    def assert_memory_was_bounded(self):
        if self.guard.process and not sanitizers.ON:
            grown = status_kib(self.guard.pid, "VmHWM") - self.before_kib
            self.assertLess(grown, LIMIT_KIB, "KiB that the guard's memory grew by at its peak")

    @staticmethod
    def count_rows(connection, pause_every_bytes=0, pause_s=0.0):
        """Reads a result to its ReadyForQuery, as a slow client where asked to; bytes of its DataRows."""
        total = since = 0
        while True:
            frame = connection.frame()
            if frame.tag == "D":
                total += len(frame.body)
                since += len(frame.body)
                if pause_every_bytes and since > pause_every_bytes:
                    since = 0
                    time.sleep(pause_s)
            elif frame.tag == "E":
                raise AssertionError(frame)
            elif frame.tag == "Z":
                return total

    def test_256_mib_of_rows_to_a_slow_client(self):
        with self.guarded.wire(timeout_s=60) as connection:
            connection.send(query("SELECT repeat('0123456789abcdef', 16384) FROM generate_series(1, 1024)"))
            time.sleep(1.0)  # nothing is read: the guard has to stop the server
            self.assertEqual(1024 * (256 * 1024 + 6), self.count_rows(connection, 16 * MIB, 0.05))
        self.assert_memory_was_bounded()

    def test_a_single_row_of_64_mib(self):
        with self.guarded.wire(timeout_s=60) as connection:
            connection.send(query("SELECT repeat('y', 64 << 20)"))
            time.sleep(0.5)
            self.assertEqual(64 * MIB + 6, self.count_rows(connection))
        self.assert_memory_was_bounded()

    def test_a_parameter_of_64_mib(self):
        value = os.urandom(MIB) * 64
        with self.guarded.wire(timeout_s=60) as connection:
            connection.send(parse("SELECT md5($1::bytea), length($1::bytea)"))
            connection.send(bind(parameters=[value], formats=[1]))
            connection.send(execute() + sync())
            row = [f for f in connection.until_ready() if f.tag == "D"][0].columns()
        self.assertEqual([hashlib.md5(value).hexdigest().encode(), b"%d" % len(value)], row)
        self.assert_memory_was_bounded()

    def test_parameters_sent_ahead_of_a_slow_server(self):
        """The server sleeps while the client sends: the guard has to stop the client, not store its bytes."""
        value = b"z" * (8 * MIB)
        piece = parse("SELECT length($1)") + bind(parameters=[value]) + execute()
        with self.guarded.wire(timeout_s=60) as connection:
            connection.send(query("SELECT pg_sleep(1.5)"))
            sender = threading.Thread(target=lambda: [connection.socket.sendall(piece) for _ in range(8)] +
                                      [connection.socket.sendall(sync())])
            sender.start()
            frames = connection.until_ready(2)
            sender.join()
        self.assertEqual([[b""]] + [[b"%d" % len(value)]] * 8, [f.columns() for f in frames if f.tag == "D"])
        self.assert_memory_was_bounded()

    def test_copy_of_100_mib_in_and_out(self):
        row = b"1\t" + b"q" * 1021 + b"\n"
        chunk = copy_data(row * 256)
        self.cluster.sql("ALTER TABLE scratch SET UNLOGGED")
        with self.guarded.wire(timeout_s=60) as connection:
            connection.send(query("COPY scratch FROM STDIN"))
            connection.until("G")
            for _ in range(100 * 4):
                connection.send(chunk)
            connection.send(copy_done())
            self.assertEqual(b"COPY 102400\0", connection.until_ready()[0].body)
            connection.send(query("COPY scratch TO STDOUT"))
            total = 0
            while (frame := connection.frame()).tag != "Z":
                total += len(frame.body) if frame.tag == "d" else 0
            self.assertEqual(102400 * len(row), total)
        self.assert_memory_was_bounded()
        self.cluster.reset()

    @needs_guard
    def test_memory_is_given_back_and_sessions_are_small(self):
        """50 idle sessions, each of which had a result of a few hundred kilobytes before."""
        connections = []
        try:
            before = status_kib(self.guard.pid, "VmRSS")
            for _ in range(50):
                connection = self.guarded.wire()
                connections.append(connection)
                connection.ask("SELECT repeat('m', 400000)")
            grown = status_kib(self.guard.pid, "VmRSS") - before
        finally:
            for connection in connections:
                connection.close()
        if not sanitizers.ON:
            self.assertLess(grown, 50 * 64, "KiB for 50 idle sessions")


if __name__ == "__main__":
    main()
