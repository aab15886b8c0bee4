"""A server that says what a test tells it to: for what the installed PostgreSQL can't do (later protocol versions, long
cancel keys, direct TLS) and for what no PostgreSQL would do.

A script is a function of one connection (a Peer); it runs on a thread of its own for each connection. What it raises is
kept and raised again by `FakeServer.stop()`.
"""

import socket
import ssl
import struct
import threading

from support import wire
from support.processes import PATIENCE
from support.wire import message

CANCEL, SSL, GSSENC = 80877102, 80877103, 80877104


def authentication_ok() -> bytes:
    return message("R", struct.pack("!i", 0))


def parameter_status(name: str, value: str) -> bytes:
    return message("S", wire.cstring(name), wire.cstring(value))


def backend_key_data(pid: int, key: bytes) -> bytes:
    return message("K", struct.pack("!i", pid), key)


def ready_for_query(status: str = "I") -> bytes:
    return message("Z", status.encode())


def error_response(sqlstate: str, text: str, severity: str = "FATAL") -> bytes:
    return message("E", *(code.encode() + wire.cstring(value) for code, value in
                          (("S", severity), ("V", severity), ("C", sqlstate), ("M", text))), b"\0")


def negotiate_protocol_version(newest_minor: int, options=()) -> bytes:
    return message("v", struct.pack("!ii", newest_minor, len(options)), *map(wire.cstring, options))


GREETING = b"".join((authentication_ok(), parameter_status("server_version", "18.0"),
                     parameter_status("server_encoding", "UTF8"), parameter_status("client_encoding", "UTF8"),
                     parameter_status("standard_conforming_strings", "on"), parameter_status("is_superuser", "on")))
ROW_DESCRIPTION = message("T", struct.pack("!h", 1), b"c\0", struct.pack("!ihihih", 0, 0, 25, -1, -1, 0))
ROW = message("D", struct.pack("!hi", 1, 3), b"row") + message("C", b"SELECT 1\0")
ONE_ROW = ROW_DESCRIPTION + ROW


class Peer(wire.Wire):
    """The server's end of a connection. `startup` is filled by `read_startup`."""

    def __init__(self, connection, timeout_s: float = 10.0):
        self.socket = connection
        self.socket.settimeout(timeout_s * PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.version = 0
        self.startup: dict = {}
        self.duplicates = False

    def read_packet(self):
        """One startup-phase packet as (code, body)."""
        length, code = struct.unpack("!ii", self.exactly(8))
        return code, self.exactly(length - 8)

    def read_startup(self, tls: ssl.SSLContext = None):
        """Reads up to the StartupMessage or CancelRequest; refuses or grants SSLRequest by the way."""
        while True:
            code, body = self.read_packet()
            if code == SSL and tls:
                self.send(b"S")
                self.socket = tls.wrap_socket(self.socket, server_side=True)
            elif code in (SSL, GSSENC):
                self.send(b"N")
            else:
                self.version, parts = code, body.split(b"\0")[:-2]
                if code != CANCEL:
                    self.startup = dict(zip((p.decode() for p in parts[::2]), (p.decode() for p in parts[1::2])))
                return code, body

    def greet(self, pid: int = 4711, key: bytes = b"\1\2\3\4") -> None:
        self.send(GREETING + backend_key_data(pid, key) + ready_for_query())

    def serve_queries(self) -> None:
        """Answers every Query by one row and every Sync by ReadyForQuery until the connection ends."""
        while (frame := self.frame()) is not None and frame.tag != "X":
            if frame.tag == "Q":
                self.send(ONE_ROW + ready_for_query())
            elif frame.tag == "S":
                self.send(ready_for_query())


class FakeServer:
    host = "127.0.0.1"

    def __init__(self, script):
        self.script = script
        self.errors: list = []
        self.threads: list = []
        self.listener = socket.create_server((self.host, 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _serve(self, connection):
        peer = Peer(connection)
        try:
            self.script(peer)
        except (wire.ClosedByPeer, ConnectionError, BrokenPipeError):
            pass  # the test decides by what the client saw
        except Exception as error:  # noqa: BLE001, raised again by stop()
            self.errors.append(error)
        finally:
            peer.close()

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(10)
        if self.errors:
            raise self.errors[0]


def ordinary(peer: Peer) -> None:
    """The script of a server without surprises."""
    code, _ = peer.read_startup()
    if code != CANCEL:
        peer.greet()
        peer.serve_queries()


def extended(peer: Peer) -> None:
    """The script of a server that also answers the messages of the extended protocol, each in the one way it knows."""
    answers = {"Q": ONE_ROW + ready_for_query(), "P": message("1"), "B": message("2"), "D": ROW_DESCRIPTION, "E": ROW,
               "S": ready_for_query(), "C": message("3")}
    code, _ = peer.read_startup()
    if code == CANCEL:
        return
    peer.greet()
    waiting = b""
    while (frame := peer.frame()) is not None and frame.tag != "X":
        waiting += answers.get(frame.tag, b"")
        if frame.tag in "QSH":
            peer.send(waiting)
            waiting = b""


def server_tls_context(pair, alpn=("postgresql",)) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context
