"""A receiver of webhooks on this machine: it keeps what it got, and answers as a test tells it to."""

import base64
import hashlib
import hmac
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support import processes


class Delivery:
    def __init__(self, path: str, headers: dict, body: bytes):
        self.path, self.headers, self.body, self.at = path, headers, body, time.monotonic()

    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def signed_by(self, key: bytes) -> bool:
        """As anybody verifies it who follows Standard Webhooks."""
        content = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        wanted = "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
        return wanted in self.headers["webhook-signature"].split(" ")


class Receiver:
    """Answers 200, or with `answers` first: each is a status, a status and headers, or a function that is given the
    request's handler."""

    def __init__(self, *answers, certificate=None, start: bool = True):
        self.answers = list(answers)
        self.deliveries: list[Delivery] = []
        self.lock = threading.Lock()
        self.released = threading.Event()  # lets go of whoever is held by `hold`
        self.certificate = certificate
        self.port = processes.free_port()
        self.server = None
        if start:
            self.start()

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://localhost:{self.port}/hooks/secret-path-0123456789"

    def start(self):
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with receiver.lock:
                    headers = {k.lower(): v for k, v in self.headers.items()}
                    receiver.deliveries.append(Delivery(self.path, headers, body))
                    answer = receiver.answers.pop(0) if receiver.answers else 200
                if callable(answer):
                    return answer(self)
                status, more = answer if isinstance(answer, tuple) else (answer, {})
                text = f"no such thing at {self.path}\n".encode()
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # who hangs up has its reasons

        self.server = Server(("127.0.0.1", self.port), Handler)
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate.certificate, self.certificate.key)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self):
        self.released.set()
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def hold(self, handler):
        """An answer that does not come."""
        self.released.wait(60)
        handler.close_connection = True

    @staticmethod
    def babble(handler):
        """An answer without an end."""
        handler.close_connection = True
        try:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
            while True:
                handler.wfile.write(b"\x1b[31mgarbage" * 1000)
        except OSError:
            pass

    @staticmethod
    def endless_headers(handler):
        handler.close_connection = True
        try:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                handler.wfile.write(b"X-Garbage: " + b"x" * 1000 + b"\r\n")
        except OSError:
            pass

    @staticmethod
    def no_http(handler):
        handler.close_connection = True
        handler.wfile.write(b"\0\xff" * 200)

    def wait_for(self, count: int, timeout_s: float = 15) -> list[Delivery]:
        try:
            processes.wait_until(lambda: len(self.deliveries) >= count, timeout_s, f"{count} messages")
        except TimeoutError as error:
            raise AssertionError(f"{error}; there are {[d.body for d in self.deliveries]}") from None
        return list(self.deliveries)

    def events(self) -> list:
        """(event, ticket) of all that came, in the order in which it came."""
        return [(d.json()["event"], d.json()["ticket"]["id"]) for d in list(self.deliveries)]
