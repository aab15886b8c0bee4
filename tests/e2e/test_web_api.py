"""The approval page's API: who may log in, see and decide; what happens to whom it concerns; and what is tried by people who
mean ill. The page in a browser is in test_web_page.py."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import processes
from support.certificates import Authority
from support.e2e import Guard, main, needs_guard
from support.page import WHERE, Api, Events, WithPage
from support.wire import bind, execute, parse, query, sync

UPDATE = "UPDATE jobs SET state = 'done'"


@needs_guard
class Deciding(WithPage):
    def test_the_requester_waits_and_the_approver_says_yes_on_the_page(self):
        connection, bob = self.wire(), self.api("bob")
        ticket = self.hold(connection, UPDATE)
        shown = bob.tickets()[ticket]
        self.assertEqual(("pending", "clerk", "UPDATE", UPDATE, True, False),
                         tuple(shown[key] for key in ("state", "requester", "command", "statement", "waiting", "own")))
        self.assertEqual({"decide": True, "approve": True, "withdraw": False}, shown["may"])
        with Events(bob) as events:
            answer = bob.decide(ticket, comment="checked with ops", seen=shown["seen"])
            self.assertEqual(200, answer.status, answer)
            self.assertEqual("approved: clerk's UPDATE runs now", answer.json["message"])
            self.done(connection, tag="UPDATE 20")
            # Who looks at an open page learns how it ended.
            self.assertEqual(["decided", "used", "finished"], [events.next()[1]["what"] for _ in range(3)])
        full = bob.ticket(ticket)
        self.assertEqual(("used", "bob", "UPDATE 20"), (full["state"], full["decided_by"], full["outcome"]))
        self.assertEqual([("bob", True, "checked with ops")],
                         [(v["role"], v["approve"], v["comment"]) for v in full["votes"]])
        self.assertNotIn(ticket, bob.tickets())
        self.assertIn(ticket, [t["id"] for t in bob.get("/api/v1/history").json["tickets"]])

    def test_a_no_reaches_the_requester_with_its_words(self):
        connection, bob = self.wire(), self.api("bob")
        ticket = self.hold(connection, UPDATE)
        self.assertEqual("denied", bob.decide(ticket, "deny", comment="id 4 only, surely?").json["state"])
        errors = [f.fields() for f in connection.until_ready() if f.tag == "E"]
        self.assertEqual([f"pgchaperone: UPDATE was denied by bob (ticket {ticket}): id 4 only, surely?"],
                         [e["M"] for e in errors])
        self.assertEqual(0, self.count("jobs", "state = 'done'"))

    def test_effects_and_parameters_are_shown_as_they_were_counted(self):
        connection, bob = self.wire(), self.api("bob")
        ticket = self.hold(connection, "DELETE FROM tried")
        effects = bob.ticket(ticket)["effects"]
        self.assertEqual("trial", effects["kind"])
        self.assertEqual("60 rows of held.receipts and 1 other table", effects["summary"])
        self.assertEqual({("held.tried", 0, 0, 20), ("held.receipts", 0, 0, 40)},
                         {(t["table"], t["inserted"], t["updated"], t["deleted"]) for t in effects["tables"]})
        bob.decide(ticket, "deny")
        connection.until_ready()
        text = "UPDATE jobs SET state = $1 WHERE $2::int IS NULL OR true"
        ticket = self.hold(connection, parse(text) + bind(parameters=["it's", None]) + execute() + sync())
        self.assertEqual(["it's", None], bob.ticket(ticket)["parameters"])
        bob.decide(ticket)
        self.done(connection, tag="UPDATE 20")

    def test_two_people_are_two_people(self):
        ticket = self.given("pair")
        bob, carol = self.api("bob"), self.api("carol")
        first = bob.decide(ticket).json
        self.assertEqual(("pending", {"given": 1, "needed": 2}), (first["state"], first["approvals"]))
        again = bob.decide(ticket)
        self.assertEqual((409, "55000"), (again.status, again.json["sqlstate"]))
        self.assertEqual((True, False), (first["may"]["decide"], first["may"]["approve"]))
        self.assertEqual("approved", carol.decide(ticket).json["state"])

    def test_what_was_looked_at_is_what_is_agreed_to(self):
        ticket, bob = self.given("tried_later", text="DELETE FROM tried_later"), self.api("bob")
        seen = bob.ticket(ticket)["seen"]
        self.sql("INSERT INTO held.tried_later SELECT i, 'more' FROM generate_series(100, 150) i")
        self.assertEqual(ticket, self.given("tried_later", text="DELETE FROM tried_later"))
        changed = bob.decide(ticket, seen=seen)
        self.assertEqual((409, f"ticket {ticket} has changed since you looked at it"),
                         (changed.status, changed.json["title"]))
        self.assertEqual("pending", self.fields(ticket)["state"])
        self.assertEqual(200, bob.decide(ticket, seen=bob.ticket(ticket)["seen"]).status)

    def test_a_page_hears_of_what_its_person_may_see(self):
        bob, dave, clerk = self.api("bob"), self.api("dave"), self.api("clerk")
        with Events(bob) as bobs, Events(clerk) as clerks, Events(dave) as daves:
            ticket = self.given()
            self.assertEqual(("tickets", {"ticket": ticket, "what": "opened"}), bobs.next())
            self.assertEqual(("tickets", {"ticket": ticket, "what": "opened"}), clerks.next())
            bob.decide(ticket, "deny")
            self.assertEqual(("tickets", {"ticket": ticket, "what": "decided"}), bobs.next())
            own = self.given("later", "dave")
            self.assertEqual(("tickets", {"ticket": own, "what": "opened"}), daves.next(), "nothing of the clerk's")

    def test_a_glass_that_is_broken_is_in_the_history(self):
        with self.wire("oscar") as connection:
            self.done(connection, "SET chaperone.reason = 'the shop is down'")
            self.done(connection, UPDATE, "UPDATE 20")
        bob = self.api("bob")
        broken = [t for t in bob.get("/api/v1/history").json["tickets"] if t.get("glass")]
        self.assertEqual("the shop is down", broken[0]["glass_reason"])

    def test_what_is_said_on_the_page_is_in_the_audit_log(self):
        ticket, clerk = self.given(), self.api("clerk")
        self.api("bob").decide(ticket, "deny", comment="it's late")
        own = self.given()
        clerk.decide(own, "withdraw")
        said = [(r["user"], r["client"], r["statement"]) for r in self.guard.audit_records()
                if r.get("protocol") == "web"]
        self.assertEqual([("bob", WHERE, f"CALL chaperone.deny('{ticket}', 'it''s late')"),
                          ("clerk", WHERE, f"CALL chaperone.withdraw('{own}')")], said[-2:])

    def test_large_statements_of_one_hold_nobody_else_up(self):
        with self.wire() as connection:
            for i in range(30):
                self.given_ticket(connection, query(f"UPDATE later SET state = '{i}{chr(1) * 1_000_000}'"))
        bob = self.api("bob")
        threads = [threading.Thread(target=bob.tickets) for _ in range(20)]
        [t.start() for t in threads]
        began = time.monotonic()
        other = self.wire("clara")
        ticket = self.hold(other, UPDATE)
        self.assertLess(time.monotonic() - began, 15 * processes.PATIENCE)
        [t.join() for t in threads]
        bob.decide(ticket, "deny")
        other.until_ready()

    def test_withdrawing_is_the_requesters(self):
        ticket = self.given()
        self.assertEqual(403, self.api("bob").decide(ticket, "withdraw").status)
        answer = self.api("clerk").decide(ticket, "withdraw", comment="not today")
        self.assertEqual((200, "withdrawn"), (answer.status, answer.json["state"]))

    def test_a_store_that_fails_is_told(self):
        bob = self.api("bob")
        ticket = self.given()
        store = self.guard.directory / "pgchaperone-tickets.db"
        store.rename(self.guard.directory / "away")
        for more in ("-wal", "-shm"):
            path = self.guard.directory / f"pgchaperone-tickets.db{more}"
            if path.exists():
                path.rename(self.guard.directory / f"away{more}")
        store.mkdir()
        try:
            processes.wait_until(lambda: bob.get(f"/api/v1/tickets/{ticket}").status == 503, 10,
                                 "the store's failure to be told")
        finally:
            store.rmdir()
            for more in ("", "-wal", "-shm"):
                path = self.guard.directory / f"away{more}"
                if path.exists():
                    path.rename(self.guard.directory / f"pgchaperone-tickets.db{more}")
        processes.wait_until(lambda: bob.get(f"/api/v1/tickets/{ticket}").status == 200, 20, "the store to be back")


@needs_guard
class Rights(WithPage):
    def test_the_requester_never_decides_on_their_own(self):
        ticket = self.given("later", "bob")
        answer = self.api("bob").decide(ticket)
        self.assertEqual((403, "42501"), (answer.status, answer.json["sqlstate"]))
        self.assertIn("why_not", self.api("bob").ticket(ticket)["may"])
        self.assertEqual("pending", self.fields(ticket, "carol")["state"])

    def test_who_is_no_approver_sees_nothing_of_others_and_decides_nothing(self):
        ticket = self.given()
        for role in ("dave", "chief"):
            api = self.api(role)
            self.assertNotIn(ticket, api.tickets())
            self.assertEqual(404, api.get(f"/api/v1/tickets/{ticket}").status)
            answer = api.decide(ticket)
            self.assertIn(answer.status, (403, 404), answer)
            self.assertNotIn(ticket, [t["id"] for t in api.get("/api/v1/history?limit=1000").json["tickets"]])
        self.assertEqual("pending", self.fields(ticket)["state"])

    def test_a_role_that_is_taken_away_counts_at_the_next_decision(self):
        ticket, bob = self.given(), self.api("bob")
        self.assertIn(ticket, bob.tickets())
        self.sql("REVOKE dba FROM bob")
        try:
            self.assertEqual(403, bob.decide(ticket).status)
        finally:
            self.sql("GRANT dba TO bob")
        self.assertEqual(200, bob.decide(ticket).status)

    def test_who_is_ended_on_the_server_is_logged_out(self):
        ticket, bob = self.given(), self.api("bob")
        with Events(bob) as events:
            self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                     "WHERE application_name = 'pgchaperone web' AND usename = 'bob'")
            answer = bob.decide(ticket)
            self.assertEqual((401, "your session is over"), (answer.status, answer.json["title"]))
            self.assertEqual("over", events.next()[0])
            self.assertIsNone(events.next())
        self.assertEqual("pending", self.fields(ticket)["state"])
        self.assertEqual(401, bob.get("/api/v1/tickets").status)

    def test_logging_out_ends_the_connection_to_the_server(self):
        oscar = self.api("oscar")
        where = "application_name = 'pgchaperone web' AND usename = 'oscar'"
        before = self.sql(f"SELECT count(*) FROM pg_stat_activity WHERE {where}")[0][0]
        self.assertGreaterEqual(before, 1)
        self.assertEqual(204, oscar.ask("DELETE", "/api/v1/session").status)
        self.assertEqual(401, oscar.get("/api/v1/session").status)
        processes.wait_until(lambda: self.sql(f"SELECT count(*) FROM pg_stat_activity WHERE {where}")[0][0] < before, 5,
                             "the connection to be closed")

    def test_nothing_is_shown_to_who_is_not_logged_in(self):
        ticket = self.given()
        for method, path in [("GET", "/api/v1/session"), ("GET", "/api/v1/tickets"), ("GET", "/api/v1/history"),
                             ("GET", f"/api/v1/tickets/{ticket}"), ("GET", "/api/v1/events"),
                             ("POST", f"/api/v1/tickets/{ticket}/approve"), ("DELETE", "/api/v1/session")]:
            for cookie in (None, "pgchaperone=", "pgchaperone=" + "0" * 64, "pgchaperone=\xff"):
                headers = {"Cookie": cookie} if cookie else {}
                answer = self.api().ask(method, path, b"{}", headers=headers)
                self.assertEqual(401, answer.status, (method, path, cookie, answer))
                self.assertNotIn(b"UPDATE", answer.body)


@needs_guard
class LoggingIn(WithPage):
    def setUp(self):
        """What one test guesses must not slow down the next."""
        super().setUp()
        self.own_port = type(self).web_port
        self.web_port = processes.free_port()
        guard = Guard(self.cluster, "--web-listen", f"{WHERE}:{self.web_port}", "--web-database", "people")
        self.addCleanup(guard.erase)
        self.page_guard = guard

    def test_the_server_checks_the_password(self):
        for role, password in [("bob", "wrong"), ("nobody", "x"), ("bob", "bob-secret "), ("carol", "bob-secret")]:
            answer = self.api().login(role, password)
            self.assertEqual(401, answer.status, answer)
            self.assertIn("password authentication failed", answer.json["detail"])
            self.assertNotIn("Set-Cookie", answer.headers)
        self.assertNotIn("bob-secret", self.page_guard.log_text())

    def test_what_the_server_did_not_check_proves_nobody(self):
        port = processes.free_port()
        guard = Guard(self.cluster, "--web-listen", f"{WHERE}:{port}", "--web-database", "postgres")
        self.addCleanup(guard.erase)
        answer = Api(port).login("bob")
        self.assertEqual(401, answer.status, answer)
        self.assertIn("did not ask for a password", answer.json["detail"])

    def test_a_server_that_is_away_is_told_as_that_and_costs_nobody_an_attempt(self):
        port, dead = processes.free_port(), processes.free_port()
        guard = Guard(type("Nowhere", (), {"host": WHERE, "port": dead}), "--web-listen", f"{WHERE}:{port}")
        self.addCleanup(guard.erase)
        for _ in range(20):
            answer = Api(port).login("bob")
            self.assertEqual((503, "the server could not be asked who you are"), (answer.status, answer.json["title"]))

    def test_a_server_that_never_answers_is_given_up(self):
        port = processes.free_port()
        with socket.create_server((WHERE, 0)) as mute:
            upstream = type("Mute", (), {"host": WHERE, "port": mute.getsockname()[1]})
            guard = Guard(upstream, "--web-listen", f"{WHERE}:{port}", "--connect-timeout", "1s")
            self.addCleanup(guard.erase)
            began = time.monotonic()
            answers = []
            threads = [threading.Thread(target=lambda: answers.append(Api(port).login("bob"))) for _ in range(20)]
            [t.start() for t in threads]
            [t.join() for t in threads]
            self.assertLess(time.monotonic() - began, 8)
            self.assertEqual({503}, {a.status for a in answers} - {429}, answers)
            self.assertTrue(any("does not answer" in a.json.get("detail", "") for a in answers), answers)
            # Those that were given up take nobody's place.
            self.assertIn(Api(port).login("carol").status, (503,))
            self.assertEqual(200, Api(port).get("/").status)

    def test_guessing_is_slowed_down_and_its_owner_is_let_in_again(self):
        answers = [self.api().login("erin", f"guess {i}").status for i in range(8)]
        self.assertEqual([401] * 5, answers[:5])
        self.assertIn(429, answers)
        refused = self.api().login("erin", "guess")
        self.assertEqual(429, refused.status)
        self.assertLessEqual(1, int(refused.headers["Retry-After"]))
        # Nobody else is kept out by it, and many who log in from one place are no guessers.
        for _ in range(15):
            self.assertEqual(200, self.api().login("carol").status)
        processes.wait_until(lambda: self.api().login("erin").status == 200, 60, "erin to be let in", every_s=1)

    def test_trouble_of_the_server_is_nobody_s_guess(self):
        self.sql("ALTER ROLE dave CONNECTION LIMIT 0")
        try:
            self.assertNotEqual(200, self.api().login("dave").status)
        finally:
            self.sql("ALTER ROLE dave CONNECTION LIMIT -1")
        self.sql("ALTER DATABASE people ALLOW_CONNECTIONS false")
        try:
            for _ in range(10):
                self.assertIn(self.api().login("bob").status, (401, 429, 503))
        finally:
            self.sql("ALTER DATABASE people ALLOW_CONNECTIONS true")

    def test_a_role_that_may_not_log_in_any_more_decides_nothing(self):
        ticket = self.given()
        for taken, given in (("NOLOGIN", "LOGIN"), ("VALID UNTIL '2000-01-01'", "VALID UNTIL 'infinity'")):
            bob = Api(self.own_port)
            self.assertEqual(200, bob.login("bob").status)
            self.sql(f"ALTER ROLE bob {taken}")
            try:
                answer = bob.decide(ticket)
                self.assertEqual((401, "your role may not log in any more"), (answer.status, answer.json["detail"]))
            finally:
                self.sql(f"ALTER ROLE bob {given}")
        self.assertEqual("pending", self.fields(ticket)["state"])

    def test_one_person_takes_one_connection_of_the_server_s(self):
        for _ in range(5):
            self.assertEqual(200, self.api().login("clara").status)
        where = "application_name = 'pgchaperone web' AND usename = 'clara'"
        processes.wait_until(lambda: self.sql(f"SELECT count(*) FROM pg_stat_activity WHERE {where}") == [(1,)], 5,
                             "the older connections to be closed")

    def test_guesses_that_come_at_once_are_counted_all_the_same(self):
        statuses = []
        threads = [threading.Thread(target=lambda i=i: statuses.append(self.api().login("otto", f"g{i}").status))
                   for i in range(30)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        self.assertLessEqual(statuses.count(401), 7, statuses)
        self.assertEqual(set(), set(statuses) - {401, 429, 503})

    def test_the_cookie_is_kept_from_scripts_and_other_sites(self):
        answer = self.api().login("bob")
        attributes = [a.strip() for a in answer.headers["Set-Cookie"].split(";")]
        self.assertTrue({"HttpOnly", "Secure", "SameSite=Strict", "Path=/"} <= set(attributes), attributes)
        self.assertRegex(attributes[0], r"^pgchaperone=[0-9a-f]{64}$")

    def test_a_login_without_sense_is_refused_in_words(self):
        for body, status in [(b"", 400), (b"{", 400), (b"[]", 400), (b'{"role": 1, "password": "x"}', 400),
                             (b'{"role": "bob"}', 400), (b'{"role": "bob", "password": "x", "more": "y"}', 400),
                             (b'{"role": "' + b"x" * 64 + b'", "password": "y"}', 400),
                             (b'{"role": "bob\\u0000", "password": "y"}', 400),
                             (b"[" * 60_000, 400)]:
            answer = self.api().ask("POST", "/api/v1/session", body, headers={"Content-Type": "application/json"})
            self.assertEqual(status, answer.status, (body[:60], answer))
            self.assertTrue(answer.json["title"])
        plain = self.api().ask("POST", "/api/v1/session", json.dumps({"role": "bob", "password": "x"}).encode(),
                               headers={"Content-Type": "text/plain"})
        self.assertEqual(400, plain.status)


@needs_guard
class UnderAttack(WithPage):
    def test_another_site_can_change_nothing(self):
        ticket, bob = self.given(), self.api("bob")
        path = f"/api/v1/tickets/{ticket}/approve"
        for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                        {"Sec-Fetch-Site": "same-site"}, {"Origin": f"http://{WHERE}:{self.web_port + 1}"}):
            self.assertEqual(403, bob.ask("POST", path, {}, headers=headers).status, headers)
        self.assertEqual(403, bob.ask("POST", path, {}, token=False).status)
        self.assertEqual(403, bob.ask("POST", path, {}, headers={"X-CSRF-Token": self.api("carol").token}).status)
        self.assertEqual(403, bob.ask("POST", path, {}, headers={"X-CSRF-Token": ""}).status)
        self.assertEqual("pending", self.fields(ticket)["state"])
        own = {"Origin": f"http://{WHERE}:{self.web_port}", "Sec-Fetch-Site": "same-origin"}
        self.assertEqual(200, bob.ask("POST", path, {}, headers=own).status)

    def test_every_answer_forbids_what_the_page_does_not_need(self):
        for path in ("/", "/app.js", "/api/v1/tickets", "/nowhere", "/api/openapi.yaml"):
            headers = self.api().get(path).headers
            policy = dict(p.strip().split(" ", 1) for p in headers["Content-Security-Policy"].split(";"))
            self.assertEqual(("'none'", "'self'", "'none'"),
                             (policy["default-src"], policy["script-src"], policy["frame-ancestors"]))
            self.assertNotIn("unsafe", headers["Content-Security-Policy"])
            self.assertEqual(("nosniff", "DENY", "no-referrer"), (headers["X-Content-Type-Options"],
                                                                  headers["X-Frame-Options"], headers["Referrer-Policy"]))

    def test_statements_stay_text_whatever_they_hold(self):
        bob = self.api("bob")
        for text in ("UPDATE later SET state = '<script>alert(1)</script>'",
                     "UPDATE later SET state = 'a\u202eb\u2066c\u200d\x1b[31m\x7f'",
                     "UPDATE later SET state = '\u2028</script>\ufeff\U0001f600'"):
            ticket = self.given(text=text)
            answer = bob.get(f"/api/v1/tickets/{ticket}")
            self.assertEqual(text, answer.json["statement"])
            self.assertEqual("application/json", answer.headers["Content-Type"])
            self.assertNotRegex(answer.body.decode(), "[\x00-\x1f\x7f\u2028\u2029\u202e\ufeff]")

    def test_ten_megabytes_of_sql_are_cut_and_say_so(self):
        bob = self.api("bob")
        ticket = self.given(text="UPDATE later SET state = '" + "x" * 10_000_000 + "'")
        shown = bob.tickets()[ticket]
        self.assertTrue(shown["statement_cut"])
        self.assertLess(len(shown["statement"]), 1100)
        full = bob.ticket(ticket)
        self.assertTrue(full["statement_cut"])
        self.assertLessEqual(len(full["statement"]), 1024 * 1024)

    def test_bytes_that_are_no_text_are_shown_as_bytes(self):
        with self.wire(client_encoding="LATIN1") as connection:
            ticket = self.given_ticket(connection, b"Q" + (4 + 1 + len(b"UPDATE later SET state = '\xe9'")).to_bytes(4, "big")
                                       + b"UPDATE later SET state = '\xe9'\0")
        self.assertEqual("UPDATE later SET state = '\\xe9'", self.api("bob").ticket(ticket)["statement"])

    def test_requests_without_sense_are_refused_in_words(self):
        bob = self.api("bob")
        ticket = self.given()
        for method, path, body, status in [
                ("GET", "/nowhere", None, 404), ("PUT", "/api/v1/tickets", None, 405), ("POST", "/", b"", 405),
                ("GET", "/api/v1/tickets/" + "9" * 300, None, 404), ("GET", "/api/v1/tickets/%41%2F1", None, 404),
                ("GET", "/api/v1/tickets/%zz", None, 400), ("GET", "/api/v1/tickets/%00", None, 400),
                ("GET", "/../etc/passwd", None, 404), ("GET", "/api/v1/history?limit=0", None, 400),
                ("GET", "/api/v1/history?limit=x", None, 400), ("GET", "/api/v1/history?limit=1001", None, 400),
                ("POST", f"/api/v1/tickets/{ticket}/approve", {"comment": 7}, 400),
                ("POST", f"/api/v1/tickets/{ticket}/approve", {"comment": "x" * 8001}, 400),
                ("POST", f"/api/v1/tickets/{ticket}/approve", {"sure": "yes"}, 400),
                ("POST", f"/api/v1/tickets/{ticket}/destroy", {}, 404)]:
            answer = bob.ask(method, path, body)
            self.assertEqual(status, answer.status, (method, path, answer))
            self.assertTrue(answer.json["title"], (method, path))
        self.assertEqual("pending", self.fields(ticket)["state"])

    def test_what_is_too_long_is_refused_before_it_is_there(self):
        line = b"GET / HTTP/1.1\r\nHost: x\r\n"
        for data, status in [(b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"431"),
                             (line + b"X: " + b"a" * 20_000, b"431"),
                             (line + b"X: 1\r\n" * 5_000, b"431"),
                             (b"POST /api/v1/session HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", b"413"),
                             (b"POST /api/v1/session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" +
                              b"ffff\r\n" + b"a" * 65_535 + b"\r\nffff\r\n" + b"a" * 65_535, b"411")]:
            self.assertEqual(status, self.raw(data).split(b" ", 2)[1], data[:60])

    def test_what_is_no_request_is_refused_and_ends_the_connection(self):
        for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100, b"Q\0\0\0\x0dSELECT 1\0\r\n\r\n",
                     b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
                     b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
                     b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                     b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
                     b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n"):
            answer = self.raw(data)
            self.assertRegex(answer.split(b"\r\n")[0], rb"^HTTP/1.1 (4\d\d|505) ", data)
            self.assertEqual(1, answer.count(b"HTTP/1.1 "), data)
        self.assertEqual(200, self.api().get("/").status)

    def test_requests_that_come_in_pieces_or_together_are_answered_in_order(self):
        bob = self.api("bob")
        one = f"GET /api/v1/session HTTP/1.1\r\nHost: localhost\r\nCookie: {bob.cookie}\r\n\r\n".encode()
        two = b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        together = self.raw(one + one + two)
        self.assertEqual([b"200", b"200", b"404"], re.findall(rb"HTTP/1.1 (\d+) ", together))
        with socket.create_connection((WHERE, self.web_port), 10) as connection:
            for byte in one + two:
                connection.sendall(bytes([byte]))
            answer = b""
            while part := connection.recv(65536):
                answer += part
        self.assertEqual([b"200", b"404"], re.findall(rb"HTTP/1.1 (\d+) ", answer))

    def test_a_request_that_never_ends_is_given_up(self):
        began = time.monotonic()
        with socket.create_connection((WHERE, self.web_port), 30) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
            with self.assertRaises((ConnectionError, StopIteration)):
                while True:  # a byte now and then does not make it last longer
                    slow.sendall(b"X")
                    slow.settimeout(0.5)
                    try:
                        if not slow.recv(10):
                            raise StopIteration
                    except TimeoutError:
                        pass
        self.assertLess(time.monotonic() - began, 25)

    def test_one_address_can_not_take_all_connections(self):
        taken = []
        try:
            for _ in range(130):
                taken.append(socket.create_connection((WHERE, self.web_port), 10))
            time.sleep(0.3)
            taken[-1].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            taken[-1].settimeout(5)
            try:
                self.assertEqual(b"", taken[-1].recv(100))
            except ConnectionError:
                pass
            with self.guarded.wire() as connection:  # no query is touched by it
                self.assertEqual([("1",)], connection.rows("SELECT 1"))
        finally:
            for connection in taken:
                connection.close()
        processes.wait_until(lambda: self.works(), 10, "the page to be served again")

    def works(self):
        try:
            return self.api().get("/").status == 200
        except OSError:
            return False

    def test_too_many_open_pages_are_told_to_ask_instead(self):
        bob = self.api("bob")
        streams = [Events(bob) for _ in range(11)]
        try:
            self.assertEqual([200] * 10, [s.status for s in streams[:10]])
            self.assertEqual((503, "15"), (streams[10].status, streams[10].response.headers["Retry-After"]))
            streams[0].close()
            processes.wait_until(lambda: self.opens(bob), 5, "room for a page once another is closed")
        finally:
            for stream in streams:
                stream.close()

    def opens(self, api):
        with Events(api) as stream:
            return stream.status == 200


@needs_guard
class Serving(WithPage):
    page_options = ("--web-session-life", "3s")

    def test_no_port_is_opened_unless_it_is_asked_for(self):
        guard = Guard(self.cluster)
        self.addCleanup(guard.erase)
        own = {Path(f"/proc/{guard.pid}/fd/{fd}").resolve().name for fd in
               [p.name for p in Path(f"/proc/{guard.pid}/fd").iterdir()]}
        lines = [line for table in ("tcp", "tcp6") for line in
                 Path(f"/proc/{guard.pid}/net/{table}").read_text().splitlines()[1:]]
        sockets = [line.split()[1] for line in lines
                   if line.split()[3] == "0A" and f"socket:[{line.split()[9]}]" in own]
        self.assertEqual([guard.port], [int(s.split(":")[1], 16) for s in sockets])

    def test_a_session_ends_when_its_time_is_over(self):
        bob = self.api("bob")
        with Events(bob) as events:
            name, data = events.next()
            self.assertEqual(("over", {"why": "its time is over"}), (name, data))
        self.assertEqual(401, bob.get("/api/v1/tickets").status)

    def test_tls_with_a_certificate_that_is_replaced_on_reload(self):
        authority = Authority(self.directory)
        pair = authority.issue("page")
        port = processes.free_port()
        guard = Guard(self.cluster, "--web-listen", f"{WHERE}:{port}", "--web-database", "people", "--web-cert",
                      pair.certificate, "--web-key", pair.key)
        self.addCleanup(guard.erase)
        bob = Api(port, authority.certificate, host="localhost")
        answer = bob.login("bob")
        self.assertEqual(200, answer.status)
        self.assertRegex(answer.headers["Set-Cookie"], "^__Host-pgchaperone=.*Secure")
        self.assertIn("max-age", answer.headers["Strict-Transport-Security"])
        self.assertEqual("bob", bob.get("/api/v1/session").json["role"])

        def serial():
            with bob.tls.wrap_socket(socket.create_connection((WHERE, port)), server_hostname="localhost") as tls:
                return tls.getpeercert()["serialNumber"]

        before = serial()
        fresh = authority.issue("fresh")
        pair.key.write_bytes(fresh.key.read_bytes())
        pair.certificate.write_bytes(fresh.certificate.read_bytes())
        guard.hang_up()
        processes.wait_until(lambda: serial() != before, 10, "the new certificate")
        pair.certificate.write_text("nothing")
        guard.hang_up()
        processes.wait_until(lambda: "stays in use" in guard.log_text(), 10, "a word about the broken certificate")
        serial()
        self.assertRegex(self.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", port), rb"^(\x15|$)")

    def test_behind_a_proxy_its_word_on_who_comes_counts(self):
        port = processes.free_port()
        guard = Guard(self.cluster, "--web-listen", f"{WHERE}:{port}", "--web-database", "people", "--web-url",
                      "https://guard.example.org", "--web-trusted-proxies", "127.0.0.1, 10.0.0.0/8")
        self.addCleanup(guard.erase)
        bob = Api(port)
        headers = {"X-Forwarded-For": "6.6.6.6, 192.0.2.7, 10.1.2.3", "Origin": "https://guard.example.org"}
        self.assertEqual(200, bob.login("bob", headers=headers).status)
        processes.wait_until(lambda: "role=bob client=192.0.2.7" in guard.log_text(), 5, "the address in the log")
        self.assertEqual(403, bob.login("bob", headers={"Origin": f"http://{WHERE}:{port}"}).status)
        # Guesses from one place do not slow down others behind the same proxy.
        for i in range(24):
            Api(port).login("nobody" + str(i), "x", headers={"X-Forwarded-For": "192.0.2.66"})
        self.assertEqual(429, Api(port).login("dave", headers={"X-Forwarded-For": "192.0.2.66"}).status)
        self.assertEqual(200, Api(port).login("dave", headers={"X-Forwarded-For": "192.0.2.67"}).status)

    def test_the_guard_ends_with_pages_open(self):
        port = processes.free_port()
        guard = Guard(self.cluster, "--web-listen", f"{WHERE}:{port}", "--web-database", "people")
        self.addCleanup(guard.erase)
        bob = Api(port)
        bob.login("bob")
        with Events(bob) as events:
            began = time.monotonic()
            guard.stop()
            self.assertLess(time.monotonic() - began, 5 * processes.PATIENCE)
            self.assertEqual(("over", {"why": "pgchaperone stops"}), events.next())

    def test_a_port_that_is_taken_is_told_and_nothing_starts(self):
        done = subprocess.run([*map(str, Guard(self.cluster, "--web-listen", f"{WHERE}:{self.web_port}",
                                               start=False).command())], capture_output=True, text=True, timeout=20,
                              cwd=self.directory)
        self.assertEqual(2, done.returncode)
        self.assertRegex(done.stderr, rf"the web page can't listen on {WHERE}:{self.web_port}: .*web\.listen")


if __name__ == "__main__":
    main()
