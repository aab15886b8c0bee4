"""`pgchaperone pending`, `show`, `approve`, `deny`, `withdraw` and `history` against a guard that holds statements: what
they print, what they ask, what they do, and with which status they end. What the output looks like in detail is the
unit tests' (tests/unit/cli/ticket_view_test.cpp)."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import processes
from support.cluster import binaries
from support.e2e import EndToEnd, main, needs_guard
from support.guard import binary

POLICY = """policy:
  preset: approval
  approvers: [approvers]
  rules:
    - name: every-row
      match: { unbounded: true, destructive: false }
      action: { hold: { wait: 100s, ticket_ttl: 5m, evidence: trial } }
    - name: without-waiting
      match: { command: COMMENT }
      action: { hold: { wait: 0s, ticket_ttl: 5m, evidence: none } }
"""

ROLES = """
CREATE ROLE approvers NOLOGIN;
CREATE ROLE clerk LOGIN;
CREATE ROLE bob LOGIN IN ROLE approvers;
CREATE ROLE carol LOGIN IN ROLE approvers;
CREATE ROLE eve LOGIN;
CREATE TABLE stock (id integer PRIMARY KEY, n integer);
INSERT INTO stock SELECT i, 0 FROM generate_series(1, 30) i;
ALTER TABLE stock OWNER TO clerk;
"""


class Waiting:
    """A psql whose statement waits for a second person."""

    def __init__(self, test, sql, user):
        command = [str(binaries() / "psql"), "-X", "-c", sql]
        self.process = processes.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                       stdin=subprocess.DEVNULL, env=test.guarded.environment(PGUSER=user))
        test.addCleanup(self.end)
        self.heard = b""
        while not re.search(rb"\(ticket (\w+)\)", self.heard):
            test.assertTrue(select.select([self.process.stderr], [], [], 30)[0], f"no NOTICE: {self.heard}")
            more = os.read(self.process.stderr.fileno(), 65536)
            test.assertTrue(more, f"psql ended: {self.heard}")
            self.heard += more
        self.ticket = re.search(rb"\(ticket (\w+)\)", self.heard)[1].decode()

    def result(self):
        """Status, standard output, and all of standard error, once it has ended."""
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out.decode(), (self.heard + err).decode()

    def end(self):
        processes.stop(self.process)
        for pipe in (self.process.stdout, self.process.stderr):
            pipe.close()


class Terminal:
    """The program in a terminal of its own."""

    def __init__(self, test, arguments, **environment):
        self.test = test
        self.master, slave = pty.openpty()
        self.process = processes.start([binary(), *arguments], stdin=slave, stdout=slave, stderr=slave,
                                       start_new_session=True,
                                       env=test.guarded.environment(**{"PGUSER": "bob", "TERM": "xterm", **environment}))
        os.close(slave)
        test.addCleanup(os.close, self.master)
        test.addCleanup(processes.stop, self.process)
        self.seen = ""

    def until(self, text, count=1):
        end = time.monotonic() + 30
        while self.seen.count(text) < count:
            ready = select.select([self.master], [], [], max(0, end - time.monotonic()))[0]
            self.test.assertTrue(ready, f"waited for {text!r}, saw {self.seen!r}")
            try:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
            except OSError:  # the program has closed its end
                break
        self.test.assertIn(text, self.seen)
        return self.seen

    def type(self, text):
        os.write(self.master, text.encode())

    def status(self):
        return self.process.wait(30)


@needs_guard
class CommandLine(EndToEnd):
    configuration = POLICY

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        done = cls.direct.psql(ROLES, "-v", "ON_ERROR_STOP=1")
        assert done.returncode == 0, done.stderr

    def run_as(self, user, *arguments, stdin=subprocess.DEVNULL, **environment):
        return subprocess.run([binary(), *arguments], stdin=stdin, capture_output=True, text=True, timeout=60,
                              env=self.guarded.environment(**{"PGUSER": user, **environment}))

    def succeeds(self, user, *arguments, **options):
        done = self.run_as(user, *arguments, **options)
        self.assertEqual(0, done.returncode, done)
        return done.stdout

    def pending(self, user="bob"):
        return {ticket["ticket"]: ticket for ticket in json.loads(self.succeeds(user, "pending", "--json"))}

    def asks_in_vain(self, user="clerk", text="noted"):
        """Opens a ticket for which no client waits; returns it."""
        done = self.guarded.psql(f"COMMENT ON TABLE stock IS '{text}'", environment={"PGUSER": user})
        return re.search(r"\(ticket (\w+)\)", done.stderr)[1]

    def stock(self):
        with self.direct.wire() as connection:
            return connection.rows("SELECT sum(n) FROM stock")[0][0]

    # --- The whole way

    def test_an_approved_statement_runs_and_a_denied_one_does_not(self):
        before = int(self.stock())
        waiting = Waiting(self, "UPDATE stock SET n = n + 1", "clerk")
        ticket = self.pending()[waiting.ticket]
        self.assertEqual(("clerk", "postgres", "pending", True, "UPDATE", "every-row", "UPDATE stock SET n = n + 1"),
                         tuple(ticket[name] for name in ("requester", "database", "state", "waiting", "command",
                                                         "rule", "statement")))
        self.assertIn("30 rows of public.stock", ticket["effects"])
        self.assertRegex(ticket["opened"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertEqual(before, int(self.stock()), "a trial must leave nothing")
        said = self.succeeds("bob", "approve", waiting.ticket, "-y", "-m", "looks right")
        self.assertIn(waiting.ticket, said)
        status, out, err = waiting.result()
        self.assertEqual((0, "UPDATE 30\n"), (status, out), err)
        self.assertEqual(before + 30, int(self.stock()))
        self.assertNotIn(waiting.ticket, self.pending())
        ended = {t["ticket"]: t for t in json.loads(self.succeeds("bob", "history", "--json"))}[waiting.ticket]
        self.assertEqual(("used", "bob", "looks right"),
                         tuple(ended[name] for name in ("state", "decided_by", "comment")))

        waiting = Waiting(self, "UPDATE stock SET n = n + 1", "clerk")
        self.succeeds("carol", "deny", waiting.ticket.lower(), "--comment", "not on a \"Friday\"; it's 5")
        status, out, err = waiting.result()
        self.assertEqual((1, ""), (status, out))
        self.assertIn("denied by carol", err)
        self.assertIn("not on a \"Friday\"; it's 5", err)
        self.assertEqual(before + 30, int(self.stock()))

    def test_what_is_approved_after_its_client_has_gone_runs_once_when_it_is_sent_again(self):
        ticket = self.asks_in_vain(text="one")
        self.assertFalse(self.pending()[ticket]["waiting"])
        self.succeeds("bob", "approve", ticket, "-y")
        again = self.guarded.psql("COMMENT ON TABLE stock IS 'one'", environment={"PGUSER": "clerk"})
        self.assertEqual("COMMENT\n", again.stdout, again.stderr)
        once_more = self.guarded.psql("COMMENT ON TABLE stock IS 'one'", environment={"PGUSER": "clerk"})
        self.assertIn("needs an approval", once_more.stderr)

    # --- What is shown

    def test_show_has_the_ticket_in_full(self):
        waiting = Waiting(self, "UPDATE stock SET n = 3", "clerk")
        fields = json.loads(self.succeeds("bob", "show", waiting.ticket, "--json"))
        self.assertEqual((waiting.ticket, "clerk", "UPDATE stock SET n = 3"),
                         (fields["ticket"], fields["requester"], fields["statement"]))
        text = self.succeeds("bob", "show", waiting.ticket)
        self.assertTrue(text.startswith(f"{waiting.ticket}  pending, its client is waiting\n"), text)
        self.assertTrue(text.endswith("\n    UPDATE stock SET n = 3\n"), text)
        self.assertIn("30 rows of public.stock", text)
        self.assertNotIn("\033", text)
        self.succeeds("bob", "deny", waiting.ticket)

    def test_a_statement_can_not_fool_the_terminal(self):
        waiting = Waiting(self, "UPDATE stock SET n = 3 -- \033[2K\u202e nur eine\n", "clerk")
        for arguments in (["pending"], ["show", waiting.ticket], ["show", waiting.ticket, "--json"]):
            terminal = Terminal(self, arguments, COLUMNS="200", NO_COLOR="1")
            seen = terminal.until("nur eine") if arguments != ["pending"] else terminal.until("UPDATE stock")
            self.assertEqual(0, terminal.status())
            self.assertNotIn("\033[2K", seen)
            self.assertNotIn("\u202e", seen)
            self.assertNotIn("\033", seen, "NO_COLOR was given")
        self.succeeds("bob", "deny", waiting.ticket)

    def test_nobody_else_sees_it(self):
        ticket = self.asks_in_vain(text="secret")
        self.assertNotIn(ticket, self.pending("eve"))
        self.assertIn(ticket, self.pending("clerk"))
        shown = self.run_as("eve", "show", ticket)
        self.assertEqual((1, ""), (shown.returncode, shown.stdout))
        self.assertTrue(shown.stderr.startswith("ERROR:  "), shown.stderr)
        self.assertNotIn("secret", shown.stderr)

    # --- Refusals

    def test_the_guard_has_the_last_word(self):
        ticket = self.asks_in_vain(text="refusals")
        for user, arguments, words in (
                ("clerk", ["approve", ticket, "-y"], "second person"),
                ("eve", ["approve", ticket, "-y"], ticket),
                ("eve", ["deny", ticket], ticket),
                ("bob", ["withdraw", ticket], "not yours"),
                ("bob", ["approve", "Z99999", "-y"], "Z99999"),
                ("bob", ["show", "Z99999"], "Z99999")):
            with self.subTest(user=user, arguments=arguments):
                done = self.run_as(user, *arguments)
                self.assertEqual((1, ""), (done.returncode, done.stdout), done.stderr)
                self.assertTrue(done.stderr.startswith("ERROR:  "), done.stderr)
                self.assertIn(words.lower(), done.stderr.lower())
        self.assertEqual("pending", self.pending()[ticket]["state"])
        said = self.succeeds("clerk", "withdraw", ticket, "-m", "typo")
        self.assertIn(ticket, said)
        done = self.run_as("bob", "approve", ticket, "-y")
        self.assertEqual(1, done.returncode)
        self.assertIn("withdrawn", done.stderr)

    def test_wrong_usage_and_no_connection_are_trouble(self):
        nobody = str(processes.free_port())
        for arguments, words in ((["approve", "K7; DROP TABLE stock", "-y"], "letters and digits"),
                                 (["approve"], "TICKET"),
                                 (["pending", "--watch", "soon"], "--watch"),
                                 (["pending", "-h", "127.0.0.1", "-p", nobody], "refused"),
                                 (["pending", "-p", str(self.cluster.port)], "without pgchaperone"),
                                 (["show", "K7", "-p", str(self.cluster.port)], "without pgchaperone"),
                                 (["approve", "K7", "-y", "-p", str(self.cluster.port)], "without pgchaperone")):
            with self.subTest(arguments=arguments):
                done = self.run_as("bob", *arguments)
                self.assertEqual(2, done.returncode, done)
                self.assertIn(words, done.stdout + done.stderr)

    def test_it_does_not_approve_what_nobody_could_look_at(self):
        ticket = self.asks_in_vain(text="unseen")
        for arguments in (["approve", ticket], ["approve", ticket, "--json"]):
            done = self.run_as("bob", *arguments)
            self.assertEqual(2, done.returncode, done)
            self.assertIn("--yes", done.stderr)
        self.assertEqual("pending", self.pending()[ticket]["state"])

    # --- In a terminal

    def test_approve_shows_the_ticket_and_asks(self):
        waiting = Waiting(self, "UPDATE stock SET n = 5", "clerk")
        for answer in ("n\n", "\n", "\x04"):
            terminal = Terminal(self, ["approve", waiting.ticket])
            seen = terminal.until("[y/N] ")
            self.assertIn("UPDATE stock SET n = 5", seen)
            self.assertIn("\033[1;31m30 rows of public.stock", seen)
            terminal.type(answer)
            terminal.until("Not approved")
            self.assertEqual(1, terminal.status())
        terminal = Terminal(self, ["approve", waiting.ticket])
        terminal.until("[y/N] ")
        terminal.type("y\n")
        self.assertEqual(0, terminal.status())
        self.assertEqual((0, "UPDATE 30\n"), waiting.result()[:2])

    def test_a_watch_in_a_terminal_draws_again_until_it_is_interrupted(self):
        terminal = Terminal(self, ["pending", "--watch", "0.1"])
        terminal.until("\033[J", count=2)
        ticket = self.asks_in_vain(text="watched")
        terminal.until(ticket)
        terminal.process.send_signal(signal.SIGINT)
        self.assertEqual(0, terminal.status())

    def test_a_password_is_asked_for_and_not_shown(self):
        terminal = Terminal(self, ["pending"], PGUSER="person_scram", PGPASSFILE="/nonexistent")
        terminal.until("Password: ")
        terminal.type("person_scram-secret\n")
        terminal.until("No ticket waits")
        self.assertEqual(0, terminal.status())
        self.assertNotIn("secret", terminal.seen)

    # --- In a pipe

    def test_a_watch_in_a_pipe_prints_each_ticket_once(self):
        first = self.asks_in_vain(text="first")
        watch = processes.start([binary(), "pending", "--watch", "0.1", "--json"], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, env=self.guarded.environment(PGUSER="bob"))
        self.addCleanup(watch.stdout.close)
        self.addCleanup(processes.stop, watch)
        seen = []
        while first not in seen:
            seen.append(json.loads(watch.stdout.readline())["ticket"])
        second = self.asks_in_vain(text="second")
        while second not in seen:
            seen.append(json.loads(watch.stdout.readline())["ticket"])
        watch.send_signal(signal.SIGINT)
        self.assertEqual(b"", watch.stdout.read())
        self.assertEqual(0, watch.wait(30))
        self.assertEqual(len(seen), len(set(seen)))

    def test_connections_are_given_as_to_psql(self):
        ticket = self.asks_in_vain(text="connections")
        bare = {"PGHOST": "", "PGPORT": "", "PGUSER": "", "PGDATABASE": ""}
        host, port = self.guarded.host, str(self.guarded.port)
        for arguments in (["-h", host, "-p", port, "-U", "bob", "-d", "postgres"],
                          ["--host", host, "--port", port, "--user", "bob", "--dbname", "postgres"],
                          [f"--host={host}", f"--port={port}", "--username=bob", "--dbname=postgres"],
                          ["-d", f"postgresql://bob@{host}:{port}/postgres"],
                          ["-d", f"host={host} port={port} user=bob dbname=postgres"]):
            with self.subTest(arguments=arguments):
                out = self.succeeds("", "pending", "--json", *arguments, **bare)
                self.assertIn(ticket, [t["ticket"] for t in json.loads(out)])

    def test_a_password_comes_from_the_file_of_passwords(self):
        home = self.directory / "home"
        home.mkdir()
        passwords = home / ".pgpass"
        passwords.write_text(f"{self.guarded.host}:{self.guarded.port}:*:person_scram:person_scram-secret\n")
        passwords.chmod(0o600)
        self.succeeds("person_scram", "pending", PGPASSFILE=str(passwords))
        done = self.run_as("person_scram", "pending", PGPASSFILE="/nonexistent")
        self.assertEqual(2, done.returncode)
        self.assertIn("password", done.stderr)


if __name__ == "__main__":
    main()
