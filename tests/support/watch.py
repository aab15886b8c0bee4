"""Whoever watches a guard, as its tests see it: the port of metrics.listen over plain sockets, Prometheus' own reader of
its text, and a socket in place of systemd's."""

import ctypes
import os
import re
import socket
import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from support import processes

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long
_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_WALL = 0x40000000


DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def documented_figures() -> dict:
    """What docs/metrics.md says of each: its type and its labels, as Watcher.kinds()."""
    found = {}
    for line in DOCUMENTATION.read_text().splitlines():
        row = re.match(r"\| `([a-z_]+)` \| (counter|gauge|histogram) \|([^|]*)\|", line)
        if row:
            found[row[1]] = (row[2], frozenset(re.findall(r"`([a-z]+)`", row[3])))
    return found


class Answer:
    def __init__(self, data: bytes):
        head, _, self.body = data.partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        self.text = self.body.decode()


class Watcher:
    def __init__(self, port: int):
        self.port = port

    def connect(self, timeout_s: float = 10) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout_s * processes.PATIENCE)

    def send(self, data: bytes, timeout_s: float = 10) -> bytes:
        """Everything that comes back until the other side closes."""
        with self.connect(timeout_s) as connection:
            connection.sendall(data)
            return self.rest_of(connection)

    @staticmethod
    def rest_of(connection) -> bytes:
        received = b""
        while True:
            try:
                more = connection.recv(65536)
            except ConnectionResetError:
                return received
            if not more:
                return received
            received += more

    def ask(self, path: str, method: str = "GET", timeout_s: float = 10) -> Answer:
        request = f"{method} {path} HTTP/1.1\r\nHost: guard\r\nConnection: close\r\n\r\n"
        return Answer(self.send(request.encode(), timeout_s))

    def families(self) -> dict:
        """By the names that docs/metrics.md has: a counter's ends in _total."""
        found = {}
        for family in text_string_to_metric_families(self.ask("/metrics").text):
            name = family.name + ("_total" if family.type == "counter" else "")
            assert name not in found, name
            found[name] = family
        return found

    def kinds(self) -> dict:
        """Of each family its type and the labels of its samples, but for those of Prometheus' own."""
        found = {}
        for name, family in self.families().items():
            labels = {label for sample in family.samples for label in sample.labels}
            found[name] = (family.type, frozenset(labels - {"le"}))
            assert family.documentation, name
        return found

    def figures(self) -> dict:
        """Every value by its name and its labels as they stand in a query: 'a_total{kind="one"}'."""
        figures = {}
        for family in self.families().values():
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                key = sample.name + (f"{{{labels}}}" if labels else "")
                assert key not in figures, key
                figures[key] = sample.value
        return figures


class Manager:
    """systemd's end of NOTIFY_SOCKET."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)

    def next(self, timeout_s: float = 10) -> dict:
        self.socket.settimeout(timeout_s * processes.PATIENCE)
        return dict(line.split("=", 1) for line in self.socket.recv(65536).decode().splitlines())

    def until(self, name: str, timeout_s: float = 10) -> dict:
        end = time.monotonic() + timeout_s * processes.PATIENCE
        while True:
            told = self.next(max(0.01, end - time.monotonic()) / processes.PATIENCE)
            if name in told:
                return told

    def forget(self) -> None:
        """What has been told by now is not looked at."""
        self.socket.settimeout(0)
        try:
            while True:
                self.socket.recv(65536)
        except BlockingIOError:
            pass

    def silent_about(self, name: str, seconds: float) -> bool:
        end = time.monotonic() + seconds
        try:
            while True:
                if name in self.next(max(0.01, end - time.monotonic()) / processes.PATIENCE):
                    return False
        except (socket.timeout, BlockingIOError):
            return True

    def close(self) -> None:
        self.socket.close()


class Stuck:
    """One thread of a process stands still, and all others go on. May raise PermissionError."""

    def __init__(self, pid: int, name: str):
        def named():  # a thread runs before it is given its name
            return [int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()
                    if (thread / "comm").read_text().strip() == name]

        self.thread = processes.wait_until(named, 5, f"a thread {name}")[0]

    def _ptrace(self, request: int) -> None:
        if _libc.ptrace(request, self.thread, None, None) != 0:
            raise PermissionError(ctypes.get_errno(), "ptrace")

    def __enter__(self):
        self._ptrace(_SEIZE)
        self._ptrace(_INTERRUPT)
        os.waitpid(self.thread, _WALL)
        return self

    def __exit__(self, *_):
        self._ptrace(_DETACH)


def port() -> int:
    return processes.free_port()
