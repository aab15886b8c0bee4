"""The frontend/backend protocol as a test sees it: builders for every frontend message, and a connection that
sends bytes in chosen chunks and reads whole frames.

It knows nothing of drivers, so a test can say things that no driver would. All strings are encoded as UTF-8.
Message formats: "Message Formats" in PostgreSQL's documentation.
"""

import errno
import os
import hashlib
import re
import socket
import ssl
import struct
import time
from typing import Iterable, NamedTuple, Optional, Sequence

from support.processes import PATIENCE

PROTOCOL_3_0 = 3 << 16
PROTOCOL_3_2 = (3 << 16) | 2
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
GSSENC_REQUEST = struct.pack("!ii", 8, 80877104)
# Where every statement is held for the comparison's sake (guard.py), the client is told so.
HIDES_NOTICES = os.environ.get("PGCHAPERONE_E2E_POLICY") in ("hold", "trial")
DEFAULT_TIMEOUT_S = 15.0


def cstring(text) -> bytes:
    return (text if isinstance(text, bytes) else text.encode()) + b"\0"


def message(tag: str, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return tag.encode("latin-1") + struct.pack("!i", len(body) + 4) + body


def _as_bytes(value) -> Optional[bytes]:
    return value.encode() if isinstance(value, str) else value


def startup(parameters: dict, version: int = PROTOCOL_3_0) -> bytes:
    body = b"".join(cstring(k) + cstring(v) for k, v in parameters.items()) + b"\0"
    return struct.pack("!ii", len(body) + 8, version) + body


def cancel_request(pid: int, key: bytes) -> bytes:
    return struct.pack("!iii", 12 + len(key), 80877102, pid) + key


def query(sql) -> bytes:
    return message("Q", cstring(sql))


def parse(sql, name="", types: Sequence[int] = ()) -> bytes:
    return message("P", cstring(name), cstring(sql), struct.pack("!h", len(types)),
                   *(struct.pack("!I", oid) for oid in types))


def bind(portal="", statement="", parameters: Iterable = (), formats: Sequence[int] = (),
         result_formats: Sequence[int] = ()) -> bytes:
    parameters = [_as_bytes(p) for p in parameters]
    parts = [cstring(portal), cstring(statement), struct.pack("!h", len(formats)),
             *(struct.pack("!h", f) for f in formats), struct.pack("!h", len(parameters))]
    for value in parameters:
        parts.append(struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value)
    parts.append(struct.pack("!h", len(result_formats)))
    parts.extend(struct.pack("!h", f) for f in result_formats)
    return message("B", *parts)


def describe(kind: str, name="") -> bytes:
    return message("D", kind.encode(), cstring(name))


def execute(portal="", max_rows: int = 0) -> bytes:
    return message("E", cstring(portal), struct.pack("!i", max_rows))


def close(kind: str, name="") -> bytes:
    return message("C", kind.encode(), cstring(name))


def sync() -> bytes:
    return message("S")


def flush() -> bytes:
    return message("H")


def terminate() -> bytes:
    return message("X")


def copy_data(data) -> bytes:
    return message("d", _as_bytes(data))


def copy_done() -> bytes:
    return message("c")


def copy_fail(reason="stopped by the test") -> bytes:
    return message("f", cstring(reason))


def password(text) -> bytes:
    return message("p", cstring(text))


def function_call(oid: int, arguments: Iterable = (), formats: Sequence[int] = (1,), result_format: int = 1) -> bytes:
    arguments = [_as_bytes(a) for a in arguments]
    parts = [struct.pack("!I", oid), struct.pack("!h", len(formats)),
             *(struct.pack("!h", f) for f in formats), struct.pack("!h", len(arguments))]
    for value in arguments:
        parts.append(struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value)
    parts.append(struct.pack("!h", result_format))
    return message("F", *parts)


def run(sql, parameters=(), **how) -> bytes:
    """Parse, Bind, Describe and Execute of an unnamed statement, without a Sync."""
    return parse(sql) + bind(parameters=parameters, **how) + describe("P") + execute()


class Frame(NamedTuple):
    tag: str
    body: bytes

    def fields(self) -> dict:
        """The fields of an ErrorResponse or NoticeResponse by their code."""
        return {part[:1].decode(): part[1:].decode("utf-8", "replace") for part in self.body.split(b"\0") if part}

    def columns(self) -> list:
        """The values of a DataRow."""
        (count,) = struct.unpack_from("!h", self.body)
        values, at = [], 2
        for _ in range(count):
            (length,) = struct.unpack_from("!i", self.body, at)
            at += 4
            values.append(None if length < 0 else self.body[at:at + length])
            at += max(length, 0)
        return values

    def __repr__(self):
        body = self.body if len(self.body) <= 160 else self.body[:150] + b"...%d bytes" % len(self.body)
        return f"<{self.tag} {body!r}>"


class ClosedByPeer(Exception):
    """The peer closed the connection where a frame was awaited."""


def tls_client_context(ca=None, certificate=None, key=None, alpn: Sequence[str] = ()) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if ca else ssl.CERT_NONE
    if ca:
        context.load_verify_locations(ca)
    if certificate:
        context.load_cert_chain(certificate, key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


class Wire:
    """A connection to a server (or to what stands in front of it). Nothing is sent before it is asked for."""

    def __init__(self, address, timeout_s: float = DEFAULT_TIMEOUT_S):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout_s * PATIENCE)
        self.socket.connect(address)
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.parameters: dict = {}
        self.pid = 0
        self.key = b""
        self.greeting: list = []

    @classmethod
    def log_in(cls, address, user="postgres", database="postgres", password_text=None, tls=None, direct_tls=False,
               timeout_s: float = DEFAULT_TIMEOUT_S, version=PROTOCOL_3_0, **parameters) -> "Wire":
        wire = cls(address, timeout_s)
        try:
            if tls is not None:
                wire.start_tls(tls, direct=direct_tls)
            wire.send(startup({"user": user, "database": database, **parameters}, version))
            wire.finish_login(user, password_text)
        except BaseException:
            wire.close()
            raise
        return wire

    # --- sending -----------------------------------------------------------------------------------------

    def send(self, data: bytes, chunk: int = 0, pause_s: float = 0.0) -> None:
        """Sends `data`, in pieces of `chunk` bytes (0: at once) with a pause behind each piece."""
        if not chunk:
            self.socket.sendall(data)
            return
        for at in range(0, len(data), chunk):
            self.socket.sendall(data[at:at + chunk])
            if pause_s:
                time.sleep(pause_s)

    def send_split(self, data: bytes, at: int, pause_s: float = 0.001) -> None:
        self.socket.sendall(data[:at])
        time.sleep(pause_s)
        self.socket.sendall(data[at:])

    def start_tls(self, context: ssl.SSLContext, direct: bool = False) -> None:
        if not direct:
            self.send(SSL_REQUEST)
            answer = self.exactly(1)
            if answer != b"S":
                raise ConnectionError(f"SSLRequest was answered by {answer!r}")
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    def half_close(self) -> None:
        """Sends no more. A peer that has reset the connection by then is no news."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EPIPE, errno.ECONNRESET):
                raise

    def close(self) -> None:
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # --- reading -----------------------------------------------------------------------------------------

    def _fill(self) -> bool:
        try:
            data = self.socket.recv(1 << 18)
        except (ConnectionResetError, ssl.SSLEOFError, BrokenPipeError):
            return False
        self.buffer += data
        return bool(data)

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            if not self._fill():
                raise ClosedByPeer(f"{len(self.buffer)} of {count} bytes: {bytes(self.buffer)!r}")
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def frame(self) -> Optional[Frame]:
        """The next frame; None at the end of the stream. A frame cut off by the end raises ClosedByPeer."""
        while len(self.buffer) < 5:
            if not self._fill():
                if self.buffer:
                    raise ClosedByPeer(f"in the middle of a head: {bytes(self.buffer)!r}")
                return None
        tag, length = chr(self.buffer[0]), struct.unpack_from("!i", self.buffer, 1)[0]
        if length < 4:
            raise ValueError(f"the peer sent a {tag!r} of length {length}")
        self.exactly(5)
        frame = Frame(tag, self.exactly(length - 4))
        if tag == "N" and b"\0Mpgchaperone: " in frame.body and HIDES_NOTICES:
            return self.frame()
        return frame

    def until(self, tags: str, count: int = 1) -> list:
        """Frames up to and with the `count`th whose tag is one of `tags`."""
        frames = []
        while count:
            frame = self.frame()
            if frame is None:
                raise ClosedByPeer(f"waiting for {tags!r}, after {frames[-5:]}")
            frames.append(frame)
            if frame.tag in tags:
                count -= 1
        return frames

    def until_ready(self, count: int = 1) -> list:
        return self.until("Z", count)

    def until_closed(self) -> list:
        frames = []
        while (frame := self.frame()) is not None:
            frames.append(frame)
        return frames

    def silent_for(self, seconds: float) -> bool:
        """True when no byte arrives for that long."""
        if self.buffer:
            return False
        before = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            self._fill()
            return False
        except (TimeoutError, socket.timeout):
            return True
        finally:
            self.socket.settimeout(before)

    def ask(self, sql) -> list:
        self.send(query(sql))
        return self.until_ready()

    def rows(self, sql) -> list:
        return [tuple(c if c is None else c.decode() for c in f.columns()) for f in self.ask(sql) if f.tag == "D"]

    # --- log-in ------------------------------------------------------------------------------------------

    def finish_login(self, user: str, password_text: Optional[str]) -> None:
        """Answers what the server asks until ReadyForQuery. Raises PermissionError with the server's words."""
        while True:
            frame = self.frame()
            if frame is None:
                raise ClosedByPeer(f"while logging in, after {self.greeting}")
            self.greeting.append(frame)
            if frame.tag == "E":
                fields = frame.fields()
                raise PermissionError(f"{fields.get('C')}: {fields.get('M')}")
            if frame.tag == "R":
                (kind,) = struct.unpack_from("!i", frame.body)
                if kind == 3:
                    self.send(password(password_text or ""))
                elif kind == 5:
                    inner = hashlib.md5(((password_text or "") + user).encode()).hexdigest().encode()
                    self.send(password("md5" + hashlib.md5(inner + frame.body[4:8]).hexdigest()))
                elif kind != 0:
                    raise NotImplementedError(f"authentication request {kind}")
            elif frame.tag == "S":
                name, value = frame.body.split(b"\0")[:2]
                self.parameters[name.decode()] = value.decode()
            elif frame.tag == "K":
                self.pid, self.key = struct.unpack_from("!i", frame.body)[0], frame.body[4:]
            elif frame.tag == "Z":
                return


def masked(frames: Iterable[Frame]) -> list:
    """Frames with the little in them that must differ from one session to the next made equal: the cancel key,
    the process id of a notification, and the object ids (16384 and up, those of users' tables) in a
    RowDescription, which become their order of appearance; and the line of the server's source that complains of
    a transaction that is not there, which depends on how it ended."""
    seen: dict = {}
    result = []
    for frame in frames:
        if frame.tag == "K":
            frame = Frame("K", b"(cancel key, %d bytes)" % (len(frame.body) - 4))
        elif frame.tag == "A":
            frame = Frame("A", b"(pid)" + frame.body[4:])
        elif frame.tag == "T":
            frame = Frame("T", _mask_row_description(frame.body, seen))
        elif frame.tag == "N" and b"\0C25P01\0" in frame.body:
            frame = Frame("N", re.sub(rb"\0L\d+\0", b"\0L(line)\0", frame.body))
        result.append(frame)
    return result


def _mask_row_description(body: bytes, seen: dict) -> bytes:
    (count,) = struct.unpack_from("!h", body)
    at, parts = 2, [body[:2]]
    for _ in range(count):
        end = body.index(b"\0", at) + 1
        table, rest = struct.unpack_from("!I", body, end)[0], body[end + 4:end + 18]
        if table >= 16384:
            table = 16384 + seen.setdefault(table, len(seen))
        parts += [body[at:end], struct.pack("!I", table), rest]
        at = end + 18
    return b"".join(parts) + body[at:]


def tags(frames: Iterable[Frame]) -> str:
    return "".join(f.tag for f in frames)


def sqlstates(frames: Iterable[Frame]) -> list:
    return [f.fields()["C"] for f in frames if f.tag == "E"]


def statuses(frames: Iterable[Frame]) -> str:
    """The transaction states of the ReadyForQuery messages, in order."""
    return "".join(f.body.decode() for f in frames if f.tag == "Z")
