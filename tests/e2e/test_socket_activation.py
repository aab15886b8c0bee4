"""Sockets that somebody else holds (systemd's socket activation): one guard ends, the next one starts, and nobody is
refused meanwhile."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import guard as guard_module
from support import processes
from support.cluster import binaries
from support.e2e import EndToEnd, Target, main, needs_guard
from support.processes import wait_until

# As systemd does it: the sockets are descriptors from 3 on, and the process is named that they are meant for.
PASS = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.argv[1], sys.argv[1:])"


@needs_guard
class SocketActivation(EndToEnd):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="pgchaperone-test-activation-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.log = self.folder / "guard.log"

    def listening(self, family=socket.AF_INET, address=("127.0.0.1", 0)) -> socket.socket:
        made = socket.socket(family)
        made.bind(address)
        made.listen(1000)
        self.addCleanup(made.close)
        return made

    def begin(self, *sockets, expect: int = None, environment=None):
        """A guard with these sockets; the process, or what it printed where it is to end with `expect`."""
        command = [sys.executable, "-c", PASS, guard_module.binary(), "serve", "--policy", "application", "--upstream",
                   f"{self.cluster.host}:{self.cluster.port}", "--audit", str(self.folder / "audit.jsonl")]
        passed = {3 + i: s for i, s in enumerate(sockets)}

        def renumber():
            numbers = {number: os.dup(s.fileno()) for number, s in passed.items()}
            high = {number: os.dup2(fd, 100 + number) for number, fd in numbers.items()}
            for number, fd in high.items():
                os.dup2(fd, number)

        started = len(self.log.read_text().splitlines()) if self.log.exists() else 0
        with open(self.log, "a") as log:
            process = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       preexec_fn=renumber, close_fds=False,
                                       env={**os.environ, "LISTEN_FDS": str(len(sockets)), **(environment or {})})
        self.addCleanup(self.end, process)
        if expect is not None:
            self.assertEqual(expect, process.wait(20))
            return self.log.read_text()
        wait_until(lambda: "listening on" in "\n".join(self.log.read_text().splitlines()[started:]) or
                   process.poll() is not None, 20, "the guard to listen")
        self.assertIsNone(process.poll(), self.log.read_text())
        return process

    def end(self, process):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(20)

    def query(self, host, port, sql="SELECT 1") -> str:
        done = Target("guarded", host, port).program("psql", "-XAtw", "-U", "postgres", "-d", "postgres", "-c", sql)
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stdout.strip()

    def test_it_takes_what_it_is_passed_and_nothing_else(self):
        one = self.listening()
        path = str(self.folder / ".s.PGSQL.7777")
        local = self.listening(socket.AF_UNIX, path)
        self.begin(one, local)
        self.assertEqual("1", self.query(*one.getsockname()))
        self.assertEqual("1", self.query(str(self.folder), 7777))
        said = self.log.read_text()
        self.assertIn(f"listening on 127.0.0.1:{one.getsockname()[1]}, {path} (passed to this process)", said)

    def test_who_connects_between_two_guards_is_served_by_the_next(self):
        port = self.listening()
        first = self.begin(port)
        made = Target("direct", self.cluster.host, self.cluster.port).program(
            "pgbench", "-i", "-q", "-U", "postgres", "postgres")
        self.assertEqual(0, made.returncode, made.stderr)
        running = processes.start(
            [str(binaries() / "pgbench"), "-n", "-C", "-c", "4", "-T", "8", "-S", "-h", "127.0.0.1", "-p",
             str(port.getsockname()[1]), "-U", "postgres", "postgres"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            for _ in range(3):
                time.sleep(1)
                first.send_signal(signal.SIGTERM)
                self.assertEqual(0, first.wait(30))
                first = self.begin(port)
            said = running.communicate(timeout=60)[0]
        finally:
            processes.stop(running)
        self.assertEqual(0, running.returncode, said)
        self.assertRegex(said, r"number of failed transactions: 0 \(0\.000%\)")
        # Who is told of the end was answered before: libpq prints that, and pgbench goes on.
        self.assertNotRegex(said, "error:|aborted|could not")
        self.assertEqual(3, self.log.read_text().count("shutting down"))

    def test_who_connects_as_an_idle_guard_ends_waits_for_the_next(self):
        port = self.listening()
        for _ in range(6):
            guard = self.begin(port)
            guard.send_signal(signal.SIGTERM)
            waiting = []
            while guard.poll() is None and len(waiting) < 100:
                one = socket.create_connection(port.getsockname(), 10)
                one.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")  # SSLRequest
                waiting.append(one)
                time.sleep(0.0005)
            self.assertEqual(0, guard.wait(20))
            next_guard = self.begin(port)
            for one in waiting:
                with one:
                    one.settimeout(10)
                    # Whom the first had taken in already is told that it ends.
                    self.assertIn(one.recv(1), (b"N", b"E"))
            self.end(next_guard)

    def test_something_else_than_a_listening_socket_is_refused(self):
        deaf = socket.socket()
        deaf.bind(("127.0.0.1", 0))
        self.addCleanup(deaf.close)
        datagrams = socket.socket(type=socket.SOCK_DGRAM)
        self.addCleanup(datagrams.close)
        for wrong in (deaf, datagrams):
            said = self.begin(wrong, expect=2)
            self.assertIn("LISTEN_FDS: descriptor 3 is no stream socket that listens", said)

    def test_sockets_for_another_process_are_left_alone(self):
        port = processes.free_port()
        other = self.listening()
        log = open(self.log, "a")
        self.addCleanup(log.close)
        process = processes.start(
            [guard_module.binary(), "serve", "--policy", "application", "--listen", f"127.0.0.1:{port}", "--upstream",
             f"{self.cluster.host}:{self.cluster.port}", "--audit", str(self.folder / "audit.jsonl")],
            cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            env={**os.environ, "LISTEN_PID": "1", "LISTEN_FDS": "1"})
        self.addCleanup(processes.stop, process)
        wait_until(lambda: "listening on" in self.log.read_text(), 20, "the guard to listen")
        self.assertEqual("1", self.query("127.0.0.1", port))
        self.assertNotIn("passed", self.log.read_text())


if __name__ == "__main__":
    main()
