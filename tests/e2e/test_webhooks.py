"""Webhooks, before a receiver on this machine: what arrives, in which order, signed by whom; and that no receiver,
however bad, is in the way of a session or of the guard's end."""

import base64
import hashlib
import hmac
import re
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import processes, sanitizers
from support.approval import USUAL, Held, policy, rule
from support.certificates import Authority
from support.e2e import main, needs_guard
from support.receiver import Receiver

UPDATE = "UPDATE jobs SET state = 'done'"
LATER = "UPDATE later SET state = 'done'"
PLAIN = "a-secret-of-the-tests"
ENCODED = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def hook(receiver: Receiver, name: str = "ops", **keys) -> str:
    keys = {"name": name, "url": receiver.url, **keys}
    first, *rest = [f"{key}: {value}" for key, value in keys.items()]
    return f"  - {first}\n" + "".join(f"    {line}\n" for line in rest)


ALL = "[opened, voted, decided, expired, withdrawn, used, glass, finished]"


@needs_guard
class Webhooks(Held):
    def verified_as_documented(self, secret: str, delivery) -> bool:
        """By the program that docs/webhooks.md shows."""
        page = (Path(__file__).resolve().parents[2] / "docs" / "webhooks.md").read_text()
        program = {}
        exec(page.split("```python\n")[1].split("```")[0], program)
        return program["verified"](secret, delivery.headers, delivery.body)

    def receiver(self, *answers, **options) -> Receiver:
        receiver = Receiver(*answers, **options)
        self.addCleanup(receiver.stop)
        return receiver

    def telling(self, *hooks, options=()):
        return self.guarded_by("webhooks:\n" + "".join(hooks) + USUAL, *options)

    def stats(self, target) -> dict:
        return {r["name"]: r["value"] for r in self.ask("bob", "SHOW chaperone.stats", target=target)
                if r["name"].startswith("webhooks")}

    def wait_for_log(self, target, text: str, timeout_s: float = 15) -> str:
        try:
            processes.wait_until(lambda: text in target.guard.log_text(), timeout_s, f"the log to say {text}")
        except TimeoutError as error:
            raise AssertionError(f"{error}:\n{target.guard.log_text()[-3000:]}") from None
        return target.guard.log_text()

    def assert_keeps_the_path(self, target):
        self.assertNotIn("secret-path", target.guard.log_text())

    # --- what arrives ------------------------------------------------------------------------------------

    def test_what_happens_to_a_ticket_arrives_in_order_and_signed(self):
        receiver = self.receiver()
        target = self.telling(hook(receiver, events=ALL, secret=f"[{ENCODED}, {PLAIN}]", statement="true",
                                   headers="{ X-Team: ops }"))
        connection = self.wire(target=target)
        ticket = self.hold(connection, UPDATE)
        self.decide(ticket, comment="checked with ops", target=target)
        self.done(connection, tag="UPDATE 20")
        refused = self.given_ticket(self.wire(target=target), LATER)
        self.decide(refused, "deny", comment="use the API", target=target)
        brief = self.given_ticket(self.wire(target=target), "UPDATE brief SET state = 'done'")
        deliveries = receiver.wait_for(8)
        self.assertEqual([("opened", ticket), ("decided", ticket), ("used", ticket), ("finished", ticket),
                          ("opened", refused), ("decided", refused), ("opened", brief), ("expired", brief)], receiver.events())
        for delivery in deliveries:
            self.assertTrue(delivery.signed_by(PLAIN.encode()))
            self.assertTrue(delivery.signed_by(bytes(range(32))))
            self.assertFalse(delivery.signed_by(b"another"))
            self.assertTrue(self.verified_as_documented(ENCODED, delivery))
            self.assertTrue(self.verified_as_documented(PLAIN, delivery))
            self.assertFalse(self.verified_as_documented("another", delivery))
            self.assertLess(abs(int(delivery.headers["webhook-timestamp"]) - time.time()), 60)
            self.assertEqual(delivery.id, delivery.json()["id"])
            self.assertEqual("application/json", delivery.headers["content-type"])
            self.assertEqual("ops", delivery.headers["x-team"])
            self.assertEqual(1, delivery.json()["version"])
        self.assertEqual(8, len({d.id for d in deliveries}))
        opened, approved, denied = (deliveries[i].json()["ticket"] for i in (0, 1, 5))
        self.assertEqual(("pending", "clerk", "postgres", "UPDATE", UPDATE, "hold-jobs"),
                         tuple(opened[k] for k in ("state", "requester", "database", "command", "statement", "rule")))
        self.assertEqual(("approved", "bob", "checked with ops"),
                         tuple(approved[k] for k in ("state", "decided_by", "comment")))
        self.assertEqual(("denied", "bob", "use the API"), tuple(denied[k] for k in ("state", "decided_by", "comment")))
        processes.wait_until(lambda: self.stats(target)["webhooks_sent"] == 8, 5, "the counter")
        self.assertEqual({"webhooks_sent": 8, "webhooks_failed": 0, "webhooks_dropped": 0, "webhooks_queued": 0},
                         self.stats(target))

    def test_a_held_password_is_told_to_nobody_and_set_as_it_was_sent(self):
        receiver = self.receiver()
        target = self.guarded_by("webhooks:\n" + hook(receiver, events=ALL, statement="true") +
                                 policy(rule("roles", "class: ROLE", "{ hold: { wait: 60s, evidence: none } }")))
        connection = self.wire(target=target)
        ticket = self.hold(connection, "ALTER ROLE clerk PASSWORD 'hunter2'")
        shown = "ALTER ROLE clerk PASSWORD ?"
        self.assertEqual(shown, self.pending(target=target)[ticket]["statement"])
        self.assertEqual(shown, self.fields(ticket, target=target)["statement"])
        self.decide(ticket, target=target)
        self.done(connection, tag="ALTER ROLE")
        self.assertEqual([shown] * 4, [one.json()["ticket"]["statement"] for one in receiver.wait_for(4)])
        [(verifier,)] = self.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'clerk'")
        rounds, salt, stored = re.fullmatch(r"SCRAM-SHA-256\$(\d+):(.*)\$(.*):.*", verifier).groups()
        salted = hashlib.pbkdf2_hmac("sha256", b"hunter2", base64.b64decode(salt), int(rounds))
        key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
        self.assertEqual(stored, base64.b64encode(key).decode())
        self.sql("ALTER ROLE clerk PASSWORD NULL")
        for file in target.guard.directory.rglob("*"):  # log, audit log, store of tickets
            if file.is_file():
                self.assertNotIn(b"hunter2", file.read_bytes(), file)

    def test_each_hook_gets_what_it_wants_as_it_wants_it(self):
        chat, plain, standard = self.receiver(), self.receiver(), self.receiver()
        target = self.telling(
            hook(chat, "chat", format="slack"),
            hook(plain, "plain", format="template", events="[decided]", content_type="text/plain",
                 template="'{ticket}: {headline} by {decided_by}'"),
            hook(standard, "standard"))
        ticket = self.given_ticket(self.wire(target=target), LATER)
        self.decide(ticket, target=target)
        self.assertEqual([f"{ticket}: UPDATE was approved by bob".encode()], [d.body for d in plain.wait_for(1)])
        self.assertEqual("text/plain; charset=utf-8", plain.deliveries[0].headers["content-type"])
        opened, decided = (d.json() for d in chat.wait_for(2))
        self.assertIn("*UPDATE waits for approval*", opened["text"])
        self.assertEqual("UPDATE was approved", decided["blocks"][0]["text"]["text"])
        self.assertNotIn("statement", standard.wait_for(2)[0].json()["ticket"])
        self.assertNotIn("webhook-signature", standard.deliveries[0].headers)
        # The same event has the same id, wherever it is sent.
        self.assertEqual(chat.deliveries[1].id, plain.deliveries[0].id)

    def test_a_secret_may_be_in_a_file_which_others_should_not_read(self):
        receiver = self.receiver()
        for mode, told in ((0o600, False), (0o644, True)):
            file = self.directory / f"hook-{mode:o}.secret"
            file.write_text(PLAIN + "\n")
            file.chmod(mode)
            target = self.telling(hook(receiver, secret_file=file))
            self.given_ticket(self.wire(target=target), LATER)
            self.assertEqual(told, f"{file} can be read or changed by others" in target.guard.log_text())
        for delivery in receiver.wait_for(2):
            self.assertTrue(delivery.signed_by(PLAIN.encode()))

    def test_broken_glass_shouts(self):
        chat, receiver = self.receiver(), self.receiver()
        target = self.telling(hook(chat, "chat", format="slack"), hook(receiver))
        connection = self.wire("oscar", target=target)
        self.done(connection, "SET chaperone.reason = 'the <site> is down'")
        self.done(connection, UPDATE, "UPDATE 20")
        body = receiver.wait_for(1)[0].json()
        self.assertEqual(("glass", "oscar", "the <site> is down"),
                         (body["event"], body["ticket"]["requester"], body["ticket"]["glass_reason"]))
        text = chat.wait_for(1)[0].json()["text"]
        self.assertIn(":rotating_light: *GLASS BROKEN*", text)
        self.assertIn("`the &lt;site&gt; is down`", text)

    # --- receivers that fail -----------------------------------------------------------------------------

    def test_a_receiver_that_is_down_gets_all_of_it_later_in_order(self):
        receiver = self.receiver(start=False)
        target = self.telling(hook(receiver))
        tickets = [self.given_ticket(self.wire(target=target), f"{LATER} WHERE true OR id = {i}") for i in range(5)]
        log = self.wait_for_log(target, "webhook ops (http://localhost:")
        processes.wait_until(lambda: self.stats(target)["webhooks_queued"] == 5, 5, "five to wait")
        receiver.start()
        receiver.wait_for(5, 20)
        self.assertEqual([("opened", t) for t in tickets], receiver.events())
        log = self.wait_for_log(target, "works again")
        self.assertEqual(1, log.count("it is tried again"))
        self.assert_keeps_the_path(target)

    def test_an_error_of_the_receiver_is_tried_again_under_the_same_id(self):
        receiver = self.receiver(500, 503)
        target = self.telling(hook(receiver, secret=PLAIN))
        self.given_ticket(self.wire(target=target), LATER)
        deliveries = receiver.wait_for(3)
        self.assertEqual(1, len({d.id for d in deliveries}))
        self.assertEqual(1, len({d.body for d in deliveries}))
        self.assertTrue(all(d.signed_by(PLAIN.encode()) for d in deliveries))
        self.assertGreater(deliveries[1].at - deliveries[0].at, 0.4)
        self.wait_for_log(target, "works again")
        self.assertEqual(1, self.stats(target)["webhooks_sent"])

    def test_what_is_refused_is_not_tried_again(self):
        receiver = self.receiver(400, 404)
        target = self.telling(hook(receiver))
        connection = self.wire(target=target)
        tickets = [self.given_ticket(connection, f"{LATER} WHERE true OR id = {i}") for i in range(3)]
        receiver.wait_for(3)
        time.sleep(1.2)
        self.assertEqual([("opened", t) for t in tickets], receiver.events())
        log = self.wait_for_log(target, "works again; 2 messages did not arrive")
        self.assertIn("answered 400", log)
        self.assertNotIn("no such thing", log)
        self.assertNotIn("answered 404", log)  # the same trouble
        self.assert_keeps_the_path(target)
        self.assertEqual((1, 2), tuple(self.stats(target)[f"webhooks_{k}"] for k in ("sent", "failed")))

    def test_a_receiver_may_ask_for_patience(self):
        receiver = self.receiver((429, {"Retry-After": "3"}))
        target = self.telling(hook(receiver))
        self.given_ticket(self.wire(target=target), LATER)
        first, second = receiver.wait_for(2)
        self.assertGreater(second.at - first.at, 2.8)

    def test_what_is_too_old_is_given_up(self):
        receiver = self.receiver(*[500] * 2)
        target = self.telling(hook(receiver, retry_for="0s"))
        self.given_ticket(self.wire(target=target), LATER)
        self.wait_for_log(target, "gives up what could not be sent")
        self.assertEqual(1, len(receiver.deliveries))
        self.assertEqual(1, self.stats(target)["webhooks_failed"])

    def test_a_redirection_is_not_followed(self):
        elsewhere = self.receiver()
        for status in (302, 307):
            receiver = self.receiver((status, {"Location": elsewhere.url}))
            target = self.telling(hook(receiver))
            self.given_ticket(self.wire(target=target), f"{LATER} WHERE true OR id = {status}")
            self.wait_for_log(target, f"answered {status}: redirections are not followed")
            self.assertEqual(1, len(receiver.deliveries))
            self.assert_keeps_the_path(target)
        self.assertEqual([], elsewhere.deliveries)

    def test_garbage_without_an_end_is_read_to_a_bound(self):
        receiver = self.receiver(Receiver.babble, Receiver.endless_headers, Receiver.no_http)
        target = self.telling(hook(receiver))
        connection = self.wire(target=target)
        tickets = [self.given_ticket(connection, f"{LATER} WHERE true OR id = {i}") for i in range(3)]
        # The first was answered 200; the headers of the second say so too, at too great a length; what is no HTTP is
        # no answer, so the third is sent again.
        receiver.wait_for(4, 20)
        processes.wait_until(lambda: self.stats(target)["webhooks_sent"] == 3, 20, "all to arrive")
        if not sanitizers.ON:
            self.assertLess(processes.status_kib(target.guard.pid, "VmRSS"), 200_000)
        self.assertEqual({"opened"}, {event for event, _ in receiver.events()})
        self.assertEqual(set(tickets), {ticket for _, ticket in receiver.events()})
        self.assertNotIn("\x1b", target.guard.log_text())

    def test_a_receiver_that_holds_the_request_holds_nobody_else(self):
        slow, quick = self.receiver(), self.receiver()
        slow.answers = [slow.hold] * 100
        target = self.telling(hook(slow, "slow", timeout="60s"), hook(quick, "quick"))
        connection = self.wire(target=target)
        began = time.monotonic()
        for i in range(20):
            self.given_ticket(connection, f"{LATER} WHERE true OR id = {i}")
        self.done(connection, "SELECT 1", "SELECT 1")
        self.assertLess(time.monotonic() - began, 10)
        quick.wait_for(20)
        self.assertEqual(1, len(slow.wait_for(1)))
        connection.close()
        self.forget(target.guard)
        began = time.monotonic()
        target.guard.process.send_signal(signal.SIGTERM)
        self.assertEqual(0, target.guard.process.wait(10))
        self.assertLess(time.monotonic() - began, 6)
        target.guard.process = None
        self.assertIn("webhook slow (http://localhost:%d): ends with 20 messages unsent" % slow.port,
                      target.guard.log_text())

    def test_at_its_end_the_guard_sends_what_it_has(self):
        receiver = self.receiver(start=False)
        target = self.telling(hook(receiver))
        connection = self.wire(target=target)
        tickets = [self.given_ticket(connection, f"{LATER} WHERE true OR id = {i}") for i in range(3)]
        connection.close()
        self.wait_for_log(target, "it is tried again")
        self.forget(target.guard)
        receiver.start()
        target.guard.process.send_signal(signal.SIGTERM)
        self.assertEqual(0, target.guard.process.wait(10))
        target.guard.process = None
        self.assertEqual([("opened", t) for t in tickets], receiver.events())

    # --- TLS ---------------------------------------------------------------------------------------------

    def test_a_receiver_is_known_by_its_certificate(self):
        ours, theirs = Authority(self.directory, "ours"), Authority(self.directory, "theirs")
        receiver = self.receiver(certificate=ours.issue("receiver"))
        target = self.telling(hook(receiver, ca=ours.certificate))
        self.given_ticket(self.wire(target=target), LATER)
        receiver.wait_for(1)
        misnamed = self.receiver(certificate=ours.issue("misnamed", names="DNS:example.org"))
        for wrong, authority in ((receiver, {"ca": theirs.certificate}), (receiver, {}),
                                 (misnamed, {"ca": ours.certificate})):
            before = len(wrong.deliveries)
            target = self.telling(hook(wrong, **authority))
            self.given_ticket(self.wire(target=target), LATER + " WHERE true")
            self.assertRegex(self.wait_for_log(target, "it is tried again"), "webhook ops .*(certificate|SSL)")
            self.assertEqual(before, len(wrong.deliveries))

    # --- several guards, and other configurations --------------------------------------------------------

    def test_of_two_guards_that_share_a_store_one_sends(self):
        store = f"host={self.cluster.host} port={self.cluster.port} user=postgres dbname=postgres"
        receiver = self.receiver()
        one, two = (self.telling(hook(receiver, events=ALL), options=(
            "--approval-store", store, "--approval-replica", name)) for name in ("one", "two"))
        connection = self.wire(target=one)
        ticket = self.hold(connection, UPDATE)
        self.decide(ticket, target=two)
        self.done(connection, tag="UPDATE 20")
        brief = self.given_ticket(connection, "UPDATE brief SET state = 'done'")
        # Its guard dies; the other one says that the ticket has expired.
        receiver.wait_for(5)
        self.forget(one.guard)
        one.guard.process.kill()
        one.guard.process.wait(10)
        one.guard.process = None
        receiver.wait_for(6)
        time.sleep(1)
        # Each of the two sends its own in order; which of them comes first is nobody's to say.
        told = list(zip((d.json()["replica"] for d in receiver.deliveries), receiver.events()))
        self.assertEqual([("opened", ticket), ("used", ticket), ("finished", ticket), ("opened", brief)],
                         [event for replica, event in told if replica == "one"])
        self.assertEqual([("decided", ticket), ("expired", brief)],
                         [event for replica, event in told if replica == "two"])
        self.assertEqual(6, len(told))

    def test_a_reload_takes_other_hooks_and_keeps_what_waits(self):
        down, other = self.receiver(start=False), self.receiver()
        target = self.telling(hook(down))
        first = self.given_ticket(self.wire(target=target), LATER)
        self.wait_for_log(target, "it is tried again")
        file = target.guard.configuration_file
        good = "webhooks:\n" + hook(other) + hook(other, "second", events="[decided]") + USUAL
        file.write_text(good.replace("events", "evnets"))
        target.guard.process.send_signal(signal.SIGHUP)
        log = self.wait_for_log(target, "the policy stays as it was")
        self.assertIn('did you mean "events"?', log)
        self.assertEqual([], other.deliveries)
        file.write_text(good)
        target.guard.process.send_signal(signal.SIGHUP)
        other.wait_for(1)
        self.decide(first, target=target)
        other.wait_for(3)
        self.assertEqual([("opened", first), ("decided", first), ("decided", first)], other.events())
        file.write_text(USUAL)
        target.guard.process.send_signal(signal.SIGHUP)
        processes.wait_until(lambda: target.guard.log_text().count("the policy is in force") == 2, 10, "a reload")
        self.given_ticket(self.wire(target=target), LATER + " WHERE true")
        time.sleep(0.5)
        self.assertEqual(3, len(other.deliveries))
        self.assert_keeps_the_path(target)

    def test_where_nobody_is_to_be_told_there_is_no_thread_for_it(self):
        def threads(target):
            return [Path(f"/proc/{target.guard.pid}/task/{t.name}/comm").read_text().strip()
                    for t in Path(f"/proc/{target.guard.pid}/task").iterdir()]

        self.assertNotIn("webhook", threads(self.guarded_by(USUAL)))
        self.assertIn("webhook", threads(self.telling(hook(self.receiver()))))


if __name__ == "__main__":
    main()
