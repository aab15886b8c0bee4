"""The approval page for end-to-end tests: a guard that serves it, and its API as a program uses it."""

import http.client
import json
import socket
import ssl
import urllib.parse

from support import processes
from support.approval import Held
from support.wire import query

PASSWORDS = {name: f"{name}-secret" for name in ("clerk", "clara", "bob", "carol", "erin", "dave", "chief", "chief_dba",
                                                 "oscar", "otto")}
# The database `people` asks for passwords; everything else trusts, as in all tests.
HBA = "host people all 127.0.0.1/32 scram-sha-256\n"
WHERE = "127.0.0.1"


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.body[:300]!r}"


class Api:
    """One person's way to the API: a cookie and a token, as a browser would keep them."""

    def __init__(self, port: int, authority=None, host: str = WHERE):
        self.host, self.port = host, port
        self.tls = ssl.create_default_context(cafile=authority) if authority else None
        self.cookie = self.token = None

    def connect(self, timeout: float = 30) -> http.client.HTTPConnection:
        if self.tls:
            return http.client.HTTPSConnection(self.host, self.port, context=self.tls, timeout=timeout)
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def ask(self, method: str, path: str, body=None, *, headers: dict = None, cookie=True, token=True) -> Answer:
        """Asks over a connection of its own. `body`: bytes as they are, else JSON."""
        all_headers = {}
        if cookie and self.cookie:
            all_headers["Cookie"] = self.cookie
        if token and self.token and method != "GET":
            all_headers["X-CSRF-Token"] = self.token
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            all_headers["Content-Type"] = "application/json"
        connection = self.connect()
        try:
            connection.request(method, path, body, {**all_headers, **(headers or {})})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **options) -> Answer:
        return self.ask("GET", path, **options)

    def login(self, role: str, password: str = None, upstream: str = None, **options) -> Answer:
        body = {"role": role, "password": PASSWORDS[role] if password is None else password}
        if upstream is not None:
            body["upstream"] = upstream
        answer = self.ask("POST", "/api/v1/session", body, **options)
        if answer.status == 200:
            self.cookie = answer.headers["Set-Cookie"].split(";")[0]
            self.token = answer.json["token"]
        return answer

    def decide(self, ticket: str, what: str = "approve", **body) -> Answer:
        return self.ask("POST", f"/api/v1/tickets/{ticket}/{what}", body)

    def tickets(self) -> dict:
        answer = self.get("/api/v1/tickets")
        assert answer.status == 200, answer
        return {ticket["id"]: ticket for ticket in answer.json["tickets"]}

    def ticket(self, ticket: str) -> dict:
        answer = self.get(f"/api/v1/tickets/{urllib.parse.quote(ticket, safe='')}")
        assert answer.status == 200, answer
        return answer.json


class Events:
    """An open stream of server-sent events."""

    def __init__(self, api: Api):
        self.connection = api.connect(timeout=20)
        self.connection.request("GET", "/api/v1/events", headers={"Cookie": api.cookie})
        self.response = self.connection.getresponse()
        self.status = self.response.status

    def next(self) -> tuple:
        """The next event as (name, data); heartbeats are passed over. None at the end of the stream."""
        name = data = None
        while line := self.response.readline():
            line = line.decode().rstrip("\n")
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data = json.loads(line[6:])
            elif not line and name:
                return name, data
        return None

    def close(self):
        self.response.close()
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class WithPage(Held):
    """Held, with the page at `self.web_port`."""

    cluster_options = {"hba_extra": HBA}
    page_options: tuple = ()

    @classmethod
    def setUpClass(cls):
        cls.web_port = processes.free_port()
        cls.guard_options = ("--web-listen", f"{WHERE}:{cls.web_port}", "--web-database", "people", *cls.page_options)
        super().setUpClass()
        cls.cluster.sql("CREATE DATABASE people")
        cls.cluster.sql("".join(f"ALTER ROLE {role} PASSWORD '{password}';" for role, password in PASSWORDS.items()))

    def api(self, role: str = None) -> Api:
        api = Api(self.web_port)
        if role:
            answer = api.login(role)
            self.assertEqual(200, answer.status, answer)
        return api

    def raw(self, data: bytes, port: int = None, timeout: float = 10.0) -> bytes:
        """All that is answered to these bytes, up to the end of the connection or of our patience."""
        answer = b""
        with socket.create_connection((WHERE, port or self.web_port), timeout) as connection:
            connection.sendall(data)
            try:
                while part := connection.recv(65536):
                    answer += part
            except (TimeoutError, ConnectionResetError):
                pass
        return answer

    def given(self, table: str = "later", user: str = "clerk", text: str = None) -> str:
        """A ticket for which no session waits."""
        with self.wire(user) as connection:
            return self.given_ticket(connection, query(text or f"UPDATE {table} SET state = 'done'"))
