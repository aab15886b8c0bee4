"""authentication: users: pgchaperone checks the password, and nobody holds the server's. And PROXY protocol, by which a
load balancer says who it is that logs in."""

import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import guard as guard_module
from support.certificates import Authority
from support.e2e import EndToEnd, Guard, Target, main, needs_guard
from support.page import Api
from support.processes import free_port, wait_until

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def proxy_header(source: str, command: int = 0x21) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton("127.0.0.1") + struct.pack("!HH", 50000, 5432)
    return SIGNATURE + bytes([command, 0x11]) + struct.pack("!H", len(addresses)) + addresses


@needs_guard
class Users(EndToEnd):
    @classmethod
    def setUpClass(cls):
        keys = tempfile.TemporaryDirectory(prefix="pgchaperone-test-users-")
        cls.addClassCleanup(keys.cleanup)
        os.chmod(keys.name, 0o755)
        cls.keys = Path(keys.name)
        cls.authority = Authority(keys.name)
        cls.pair = cls.authority.issue("server")
        # The certificate of pgchaperone, with which it may log in as anybody whom the map names.
        cls.own = cls.authority.issue("guard", "guard", "")
        cls.cluster_options = {
            "tls": cls.pair,
            "hba_extra": "hostssl all carol 127.0.0.1/32 cert map=guard\n"
                         "host all alice,bob,dora 127.0.0.1/32 scram-sha-256\n"}
        super().setUpClass()
        with open(cls.cluster.data / "pg_ident.conf", "a") as ident:
            ident.write("guard guard carol\n")
        cls.cluster.sql("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE carol LOGIN; CREATE ROLE dora LOGIN;"
                        "CREATE TABLE kept AS SELECT generate_series(1, 5) AS id; GRANT ALL ON kept TO alice;"
                        "SELECT pg_reload_conf()")
        cls.users, cls.passwords = cls.keys / "users.txt", cls.keys / "passwords.txt"
        for name in ("alice", "bob", "carol"):
            cls.user("add", name, password=f"{name} at the guard",
                     passwords=None if name == "carol" else cls.passwords, run_sql=True)
        cls.user("add", "dora", password="dora at the guard")
        cls.guard = Guard(cls.cluster, "--authentication", "users", "--users", cls.users, "--users-passwords",
                          cls.passwords, "--client-tls", "allow", "--client-tls-cert", cls.pair.certificate,
                          "--client-tls-key", cls.pair.key, "--upstream-tls", "require", "--upstream-tls-cert",
                          cls.own.certificate, "--upstream-tls-key", cls.own.key, "--proxy-protocol", "127.0.0.2",
                          configuration="")
        cls.addClassCleanup(cls.guard.erase)

    @classmethod
    def user(cls, *arguments, password=None, passwords=None, run_sql=False, status=0):
        """`pgchaperone user ...` with these files; runs the SQL that it prints at the server. What it printed."""
        command = [guard_module.binary(), "user", *arguments, "--users", cls.users]
        if passwords:
            command += ["--passwords", passwords]
        done = subprocess.run([str(c) for c in command], input=None if password is None else password + "\n",
                              capture_output=True, text=True, timeout=30)
        if done.returncode != status:
            raise AssertionError(f"{command}: {done}")
        if run_sql and "ALTER ROLE" in done.stdout:
            cls.cluster.sql(done.stdout)
        return done.stdout if status == 0 else done.stderr

    @property
    def target(self) -> Target:
        return Target("guarded", self.guard.host, self.guard.port)

    def psql(self, user, password=None, sql="SELECT current_user", port=None, **environment):
        done = Target("guarded", self.guard.host, port or self.guard.port).program(
            "psql", "-XAtw", "-U", user, "-d", "postgres", "-c", sql,
            environment={"PGPASSWORD": f"{user} at the guard" if password is None else password, **environment})
        return done.returncode, done.stdout.strip(), done.stderr

    def assert_in(self, outcome, expected):
        self.assertEqual((0, expected), outcome[:2], outcome[2])

    def assert_out(self, outcome, *texts):
        self.assertEqual(2, outcome[0], outcome)
        for text in texts:
            self.assertRegex(outcome[2], text)

    # --- logging in --------------------------------------------------------------------------------------

    def test_the_password_is_checked_here_and_the_server_never_hears_it(self):
        for mode in ("disable", "require"):
            with self.subTest(mode):
                self.assert_in(self.psql("alice", PGSSLMODE=mode), "alice")
                self.assert_in(self.psql("bob", PGSSLMODE=mode, PGCHANNELBINDING="prefer"), "bob")
        self.assert_in(self.psql("alice", PGSSLMODE="require", PGCHANNELBINDING="require"), "alice")
        # What alice knows is nothing to the server, and what the server knows her by is nothing here.
        done = Target("direct", self.cluster.host, self.cluster.port).program(
            "psql", "-XAtw", "-U", "alice", "-d", "postgres", "-c", "SELECT 1",
            environment={"PGPASSWORD": "alice at the guard"})
        self.assertIn("password authentication failed", done.stderr)
        secret = re.search(r'"alice" "([^"]+)"', self.passwords.read_text()).group(1)
        self.assert_out(self.psql("alice", secret), "password authentication failed")
        self.assertNotIn(secret, self.guard.log_text())

    def test_the_server_may_know_the_guard_by_its_certificate(self):
        self.assert_in(self.psql("carol"), "carol")

    def test_who_is_wrong_or_unknown_is_told_the_same(self):
        words = {}
        for user, password in (("alice", "wrong"), ("alice", " "), ("nobody", "wrong"), ("postgres", "x"), ("Alice", "x")):
            status, _, stderr = self.psql(user, password)
            self.assertEqual(2, status)
            self.assertIn(f'pgchaperone: password authentication failed for user "{user}"', stderr)
            words[user] = re.sub(user, "X", stderr)
        self.assertEqual(words["alice"], words["nobody"])
        self.assertIn("login refused: user=nobody", self.guard.log_text())

    def test_a_user_without_a_password_for_the_server_learns_why(self):
        self.assert_out(self.psql("dora"), "password of \"dora\" that pgchaperone does not have", "users.passwords")

    def test_drivers(self):
        import psycopg
        with psycopg.connect(host=self.guard.host, port=self.guard.port, user="alice", dbname="postgres",
                             password="alice at the guard") as connection:
            self.assertEqual(("alice",), connection.execute("SELECT current_user").fetchone())
        with self.assertRaisesRegex(psycopg.OperationalError, "password authentication failed"):
            psycopg.connect(host=self.guard.host, port=self.guard.port, user="alice", dbname="postgres", password="no")

    def test_the_policy_knows_who_it_is(self):
        status, _, stderr = self.psql("alice", sql="DELETE FROM kept")
        self.assertEqual(1, status)
        self.assertIn("pgchaperone", stderr)
        last = self.guard.audit_records()[-1]
        self.assertEqual(("alice", "block", "DELETE FROM kept"), tuple(last[k] for k in ("user", "decision", "statement")))
        self.assertNotIn("at the guard", self.guard.audit.read_text())

    def test_garbage_in_place_of_a_proof(self):
        for first in (b"p\0\0\0\x04", b"p\0\0\0\x08SCRA", b"Q\0\0\0\x0dSELECT 1\0", b"p\x7f\xff\xff\xff",
                      b"p" + struct.pack("!I", 4 + 14 + 4 + 3) + b"SCRAM-SHA-256\0" + struct.pack("!i", 3) + b"n,,",
                      b"p" + struct.pack("!I", 4 + 14 + 4) + b"SCRAM-SHA-256\0" + struct.pack("!i", -1)):
            with self.subTest(first):
                with socket.create_connection((self.guard.host, self.guard.port), 10) as raw:
                    body = struct.pack("!I", 0x30000) + b"user\0alice\0\0"
                    raw.sendall(struct.pack("!I", len(body) + 4) + body)
                    self.assertEqual(b"R", raw.recv(1))
                    raw.sendall(first)
                    answer = b""
                    while data := raw.recv(4096):
                        answer += data
                    self.assertIn(b"SFATAL\0", answer)
        self.assert_in(self.psql("alice"), "alice")
        # The server has not heard of any of them; the session of psql may end a moment later.
        wait_until(lambda: "alice" not in str(self.cluster.sql("SELECT usename FROM pg_stat_activity")), 10,
                   "nobody to be logged in as alice")

    def test_who_goes_away_half_way_leaves_nothing_behind(self):
        for _ in range(20):
            with socket.create_connection((self.guard.host, self.guard.port), 10) as raw:
                body = struct.pack("!I", 0x30000) + b"user\0alice\0\0"
                raw.sendall(struct.pack("!I", len(body) + 4) + body)
                raw.recv(1)
        wait_until(lambda: self.guard.log_text().count(": end:") == self.guard.log_text().count(": start:"), 10,
                   "every session to end")

    # --- the files ---------------------------------------------------------------------------------------

    def test_users_come_and_go_with_a_reload(self):
        self.cluster.sql("CREATE ROLE erin LOGIN")
        self.addCleanup(self.cluster.sql, "DROP ROLE erin")
        self.assert_out(self.psql("erin", "e"), "authentication failed")
        self.user("add", "erin", password="e", passwords=self.passwords, run_sql=True)
        self.assert_out(self.psql("erin", "e"), "authentication failed")
        self.guard.hang_up()
        wait_until(lambda: self.psql("erin", "e")[0] == 0, 10, "erin to be let in", every_s=0.3)
        self.user("password", "erin", password="other")
        self.guard.hang_up()
        wait_until(lambda: self.psql("erin", "other")[0] == 0, 10, "the other password to be in force", every_s=0.3)
        self.assert_out(self.psql("erin", "e"), "authentication failed")
        # A broken file changes nothing, and is told.
        good = self.users.read_text()
        self.users.write_text(good + '"frank" "topsecret"\n')
        self.guard.hang_up()
        wait_until(lambda: "the users known before stay in use" in self.guard.log_text(), 10, "the log")
        self.assertRegex(self.guard.log_text(), r'users.txt:\d+: the secret of "frank" is no SCRAM-SHA-256 verifier')
        self.assertNotIn("topsecret", self.guard.log_text())
        self.assert_in(self.psql("erin", "other"), "erin")
        self.users.write_text(good)
        self.user("remove", "erin", passwords=self.passwords)
        self.guard.hang_up()
        wait_until(lambda: self.psql("erin", "other")[0] != 0, 10, "erin to be let in no more", every_s=0.3)
        self.assertNotIn("erin", self.users.read_text() + self.passwords.read_text())

    def test_the_command_line(self):
        self.assertEqual(["alice", "bob", "carol", "dora"], self.user("list").split())
        self.assertEqual(0o600, self.users.stat().st_mode & 0o777)
        before = self.users.read_text()
        self.assertIn("already", self.user("add", "alice", password="x", status=1))
        self.assertIn("not in", self.user("password", "zoe", password="x", status=1))
        self.assertIn("not in", self.user("remove", "zoe", status=1))
        self.assertIn("empty", self.user("add", "zoe", password="", status=2))
        self.assertIn("63 bytes", self.user("add", "z" * 64, password="x", status=2))
        self.assertIn("control", self.user("add", "z\nz", password="x", status=2))
        self.assertEqual(before, self.users.read_text())
        generated = self.user("add", 'z"oe', "--generate").strip()
        self.assertGreaterEqual(len(generated), 20)
        self.assertIn('"z""oe" "SCRAM-SHA-256$4096:', self.users.read_text())
        self.assertNotIn(generated, self.users.read_text())
        self.user("remove", 'z"oe')
        self.assertEqual(before, self.users.read_text())
        missing = self.keys / "missing" / "users.txt"
        done = subprocess.run([guard_module.binary(), "user", "add", "x", "--users", missing], input="x\n",
                              capture_output=True, text=True, timeout=30)
        self.assertEqual(2, done.returncode)
        self.assertIn(str(missing), done.stderr)

    def test_many_at_once_lose_nobody(self):
        file = self.keys / "many.txt"
        file.write_text("# ours\n")
        running = [subprocess.Popen([guard_module.binary(), "user", "add", f"user{i}", "--users", file, "--generate"],
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for i in range(12)]
        self.assertEqual([0] * 12, [p.wait(60) for p in running])
        text = file.read_text()
        self.assertTrue(text.startswith("# ours\n"))
        self.assertEqual({f"user{i}" for i in range(12)}, set(re.findall(r'^"(\w+)" ', text, re.M)))

    def test_a_file_that_others_may_read_keeps_the_guard_from_starting(self):
        for mode, text, words in ((0o644, self.users.read_text(), "can be read or changed by others"),
                                  (0o600, '"alice" "nonsense"', ":1: the secret of"),
                                  (0o600, None, "No such file")):
            file = self.keys / "other.txt"
            file.unlink(missing_ok=True)
            if text is not None:
                file.write_text(text)
                file.chmod(mode)
            done = subprocess.run([guard_module.binary(), "serve", "--listen", f"127.0.0.1:{free_port()}",
                                   "--authentication", "users", "--users", file, "--audit", self.keys / "audit.jsonl"],
                                  capture_output=True, text=True, timeout=30, cwd=self.keys)
            self.assertEqual(2, done.returncode, done)
            self.assertIn(words, done.stderr)
            self.assertIn(str(file), done.stderr)

    # --- the page ----------------------------------------------------------------------------------------

    def test_the_page_asks_for_the_same_password(self):
        port = free_port()
        guard = Guard(self.cluster, "--authentication", "users", "--users", self.users, "--users-passwords",
                      self.passwords, "--upstream-tls", "require", "--upstream-tls-cert", self.own.certificate,
                      "--upstream-tls-key", self.own.key, "--web-listen", f"127.0.0.1:{port}")
        self.addCleanup(guard.erase)
        for user in ("alice", "carol"):
            api = Api(port)
            self.assertEqual(200, api.login(user, f"{user} at the guard").status)
            self.assertEqual(user, api.get("/api/v1/session").json["role"])
        # Who was removed since, or has another password, is out.
        self.cluster.sql("CREATE ROLE frank LOGIN")
        self.addCleanup(self.cluster.sql, "DROP ROLE frank")
        self.user("add", "frank", password="f", passwords=self.passwords, run_sql=True)
        guard.hang_up()
        api = Api(port)
        wait_until(lambda: api.login("frank", "f").status == 200, 10, "frank to be let in", every_s=0.3)
        self.assertEqual(200, api.get("/api/v1/tickets").status)
        self.user("remove", "frank", passwords=self.passwords)
        guard.hang_up()
        wait_until(lambda: api.get("/api/v1/tickets").status == 401, 10, "frank to be out", every_s=0.3)
        secret = re.search(r'"alice" "([^"]+)"', self.passwords.read_text()).group(1)
        for user, password in (("alice", secret), ("alice", "x"), ("nobody", "x")):
            answer = Api(port).login(user, password)
            self.assertEqual(401, answer.status, answer)

    # --- behind a load balancer --------------------------------------------------------------------------

    def through_balancer(self, header: bytes, source: str = "127.0.0.2"):
        raw = socket.socket()
        raw.settimeout(10)
        raw.bind((source, 0))
        raw.connect((self.guard.host, self.guard.port))
        self.addCleanup(raw.close)
        for byte in header:  # however it is cut
            raw.sendall(bytes([byte]))
        return raw

    def begin(self, raw) -> bytes:
        body = struct.pack("!I", 0x30000) + b"user\0alice\0\0"
        raw.sendall(struct.pack("!I", len(body) + 4) + body)
        return raw.recv(4096)

    def test_a_load_balancer_says_for_whom_it_connects(self):
        raw = self.through_balancer(proxy_header("192.0.2.77"))
        self.assertEqual(b"R", self.begin(raw)[:1])
        wait_until(lambda: "for client=192.0.2.77" in self.guard.log_text(), 5, "the log")
        # All of it in one piece, with what the client says behind it.
        with socket.socket() as whole:
            whole.settimeout(10)
            whole.bind(("127.0.0.2", 0))
            whole.connect((self.guard.host, self.guard.port))
            body = struct.pack("!I", 0x30000) + b"user\0alice\0\0"
            whole.sendall(proxy_header("192.0.2.78") + struct.pack("!I", len(body) + 4) + body)
            self.assertEqual(b"R", whole.recv(1))
        # Its own question whether we are alive.
        raw = self.through_balancer(proxy_header("192.0.2.79", command=0x20))
        self.assertEqual(b"R", self.begin(raw)[:1])
        self.assertNotIn("192.0.2.79", self.guard.log_text())

    def test_without_its_header_nobody_comes_in_from_there(self):
        raw = self.through_balancer(b"")
        answer = self.begin(raw)
        self.assertIn(b"no header of PROXY protocol came", answer)
        self.assertIn(b"proxy_protocol", answer)
        raw = self.through_balancer(b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n")
        self.assertIn(b"version 1", raw.recv(4096))

    def test_nobody_else_can_say_who_they_are(self):
        raw = self.through_balancer(proxy_header("192.0.2.80"), source="127.0.0.1")
        answer = raw.recv(4096)
        self.assertNotEqual(b"R", answer[:1])
        self.assertNotIn("192.0.2.80", self.guard.log_text())


if __name__ == "__main__":
    main()
