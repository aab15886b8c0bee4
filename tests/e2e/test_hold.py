"""A statement that waits for a second person: from the first notice to the run, what an approval is bound to, who may
give one, and who may not."""

import random
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import processes
from support.approval import FILL_SQL, RULES, Held, Psql, policy, rule
from support.e2e import main, needs_guard, wire
from support.wire import bind, describe, execute, function_call, parse, query, run, sync

ALL = "UPDATE {} SET state = 'live'"


@needs_guard
class Psqls(Held):
    """Two people, two terminals."""

    def test_who_asks_is_told_at_once_and_who_decides_sees_it_all(self):
        with Psql(self.guarded, "clerk") as clerk, Psql(self.guarded, "bob") as bob:
            clerk.type("UPDATE jobs SET state = 'live';")
            ticket = clerk.ticket()
            clerk.wait_for(r"HINT:  .*\bdba\b.*CALL chaperone.approve\('%s'" % ticket)
            self.assertEqual(0, self.count("jobs", "state = 'live'"))
            bob.type("\\x on")
            bob.type("SHOW chaperone.pending;")
            bob.wait_for(rf"ticket\s+\| {ticket}\n(.*\n)*requester\s+\| clerk\n(.*\n)*waiting\s+\| t\n(.*\n)*"
                         r"statement\s+\| UPDATE jobs SET state = 'live'")
            bob.type("\\x off")
            bob.type(f"SHOW chaperone.ticket_{ticket.lower()};")
            bob.wait_for(r"approvers\s+\| dba\n(.*\n)*.*statement\s+\| UPDATE jobs SET state = 'live'")
            bob.type(f"CALL chaperone.approve('{ticket}', 'ops know');")
            bob.wait_for(rf"{ticket}\s+\| approved")
            clerk.type("\\echo rows :ROW_COUNT")
            clerk.wait_for("rows 20")
            self.assertNotIn("ERROR", clerk.end() + bob.end())
        self.assertEqual(20, self.count("jobs", "state = 'live'"))
        fields = self.wait_for_state(ticket, "used")
        self.assertEqual("UPDATE 20", fields["outcome"])
        self.assertIn("bob approved: ops know", fields["votes"])
        self.assertEqual({}, self.pending())
        (row,) = [r for r in self.ask("bob", "SHOW chaperone.history") if r["ticket"] == ticket]
        self.assertEqual(("used", "clerk", "bob", "UPDATE 20"),
                         (row["state"], row["requester"], row["decided_by"], row["outcome"]))

    def test_a_denial_says_who_and_why(self):
        with Psql(self.guarded, "clerk") as clerk:
            clerk.type("DELETE FROM jobs;")
            ticket = clerk.ticket()
            self.decide(ticket, "deny", "use the API")
            clerk.wait_for(rf"ERROR:  pgchaperone: DELETE was denied by bob \(ticket {ticket}\): use the API")
            clerk.type("SELECT 'and ' || 'on';")
            clerk.wait_for("and on")
        self.assertEqual(20, self.count("jobs"))
        self.assertEqual("denied", self.fields(ticket)["state"])
        self.assert_may_not("55000", self.decide, ticket)

    def test_a_client_that_waits_is_told_now_and_again(self):
        with Psql(self.guarded, "clerk") as clerk:
            clerk.type("DELETE FROM told;")
            ticket = clerk.ticket()
            clerk.wait_for(rf"(DELETE still waits for approval \(ticket {ticket}\), for \d+ \w+ more(.*\n)*.*){{2}}")
            self.decide(ticket)
            clerk.type("\\echo rows :ROW_COUNT")
            clerk.wait_for("rows 20")

    def test_a_cancel_withdraws(self):
        with Psql(self.guarded, "clerk", "-c", "DELETE FROM jobs") as clerk:
            ticket = clerk.ticket()
            clerk.process.send_signal(signal.SIGINT)
            clerk.wait_for(r"ERROR:  canceling statement due to user request")
        self.assertEqual(20, self.count("jobs"))
        self.wait_for_state(ticket, "withdrawn")
        self.assert_may_not("55000", self.decide, ticket)

    def test_a_script_gives_the_same_as_direct_once_approved(self):
        script = ("SELECT count(*) FROM jobs;\nUPDATE jobs SET state = 'live';\nBEGIN;\n"
                  "UPDATE jobs SET state = state || '!' RETURNING id;\nSAVEPOINT s;\nDELETE FROM jobs;\n"
                  "ROLLBACK TO s;\nCOMMIT;\nSELECT state, count(*) FROM jobs GROUP BY 1;\n"
                  "SELECT 1 \\; DELETE FROM jobs \\; SELECT 2;\nINSERT INTO jobs VALUES (1, 'x');\n"
                  "INSERT INTO jobs VALUES (1, 'x');\nSELECT * FROM jobs;\n")
        direct = self.direct.psql(script, "-a", environment={"PGUSER": "clerk", "PGOPTIONS": "-c search_path=held"})
        self.sql(FILL_SQL)
        with Psql(self.guarded, "clerk", "-a", "-v", "QUIET=0") as clerk:
            clerk.process.stdin.write(script.encode())
            clerk.process.stdin.close()
            approved = set()
            while clerk.process.poll() is None:
                for ticket in set(self.pending()) - approved:
                    self.decide(ticket)
                    approved.add(ticket)
            clerk.reader.join(5)
        self.assertEqual(4, len(approved))
        def without_notices(text):
            return sorted(line for line in text.splitlines()
                          if not line.startswith(("NOTICE:  pgchaperone", "DETAIL:  ", "HINT:  ")))

        theirs = direct.stdout + direct.stderr
        self.assertEqual(without_notices(theirs), without_notices(clerk.text))
        self.assertIn("duplicate key", theirs)


@needs_guard
class Life(Held):
    cluster_options = {"settings": {"max_connections": "80"}}

    def test_nobody_decides_in_time_and_the_statement_passes_later_but_only_once(self):
        for form in (query, lambda sql: run(sql) + sync()):
            self.setUp()
            with self.wire() as clerk:
                text = form(ALL.format("soon") + " RETURNING 1")
                ticket = self.hold(clerk, text)
                frames = clerk.until_ready()
                self.assertEqual(["42501"], wire.sqlstates(frames))
                fields = [f for f in frames if f.tag == "E"][0].fields()
                self.assertIn("not approved in time", fields["M"])
                self.assertEqual(ticket, self.ticket_of(fields))
                self.assertIn("run the same statement again", fields["H"])
                self.assertIn("30 minutes", fields["H"])
                row = self.pending()[ticket]
                self.assertEqual((False, "pending"), (row["waiting"], row["state"]))
                self.decide(ticket)
                self.assertEqual(0, self.count("soon", "state = 'live'"))
                self.done(clerk, text, "UPDATE 20")
                self.assertEqual(20, self.count("soon", "state = 'live'"))
                self.assertEqual("UPDATE 20", self.wait_for_state(ticket, "used")["outcome"])
                again = self.ticket_of(self.refused(clerk, text, message="not approved in time"))
                self.assertNotEqual(ticket, again)

    def test_it_passes_in_another_session_of_the_same_person(self):
        with self.wire() as clerk:
            ticket = self.given_ticket(clerk, ALL.format("later"))
        self.decide(ticket)
        with self.wire() as clerk:
            self.done(clerk, ALL.format("later"), "UPDATE 20")
            self.given_ticket(clerk, ALL.format("later"))

    def test_the_same_statement_takes_up_its_open_ticket(self):
        with self.wire() as one, self.wire() as other:
            ticket = self.given_ticket(one, ALL.format("later"))
            self.assertEqual(ticket, self.given_ticket(other, ALL.format("later")))
            self.assertEqual(ticket, self.given_ticket(one, ALL.format("later")))
            self.decide(ticket)
            self.done(other, ALL.format("later"), "UPDATE 20")
            self.assertNotEqual(ticket, self.given_ticket(one, ALL.format("later")))

    def test_two_that_wait_for_the_same_have_a_ticket_each(self):
        with self.wire() as one, self.wire() as other:
            tickets = [self.hold(one, ALL.format("jobs")), self.hold(other, ALL.format("jobs"))]
            self.assertNotEqual(*tickets)
            self.decide(tickets[1])
            self.done(other, tag="UPDATE 20")
            self.assertEqual("pending", self.fields(tickets[0])["state"])
            self.decide(tickets[0], "deny")
            self.assertEqual(["42501"], wire.sqlstates(one.until_ready()))

    def test_a_ticket_expires_approved_or_not(self):
        with self.wire() as clerk:
            for approved in (False, True):
                ticket = self.given_ticket(clerk, ALL.format("brief"))
                if approved:
                    self.decide(ticket)
                self.wait_for_state(ticket, "expired")
                error = self.assert_may_not("55000", self.decide, ticket)
                self.assertIn("expired", error.message)
                self.assertNotEqual(ticket, self.given_ticket(clerk, ALL.format("brief")))
            self.assertEqual(0, self.count("brief", "state = 'live'"))

    def test_who_asks_may_withdraw(self):
        with self.wire() as clerk:
            ticket = self.hold(clerk, ALL.format("jobs"))
            self.assert_may_not("42501", self.decide, ticket, "withdraw", user="bob")
            self.assertEqual("withdrawn", self.decide(ticket, "withdraw", "a mistake", user="clerk")["state"])
            frames = clerk.until_ready()
            self.assertEqual(["42501"], wire.sqlstates(frames))
            self.assertIn("withdrawn", [f for f in frames if f.tag == "E"][0].fields()["M"])
            self.assertEqual("withdrawn", self.fields(ticket)["state"])

    def test_a_denial_takes_an_unused_approval_back(self):
        with self.wire() as clerk:
            ticket = self.given_ticket(clerk, ALL.format("later"))
            self.assertEqual("approved", self.decide(ticket)["state"])
            self.assertEqual("denied", self.decide(ticket, "deny", "second thoughts", user="carol")["state"])
            self.assertNotEqual(ticket, self.given_ticket(clerk, ALL.format("later")))

    def test_fifty_wait_at_once_and_are_approved_in_any_order(self):
        count = 50
        waiting = []
        for i in range(count):
            connection = self.wire()
            text = f"UPDATE jobs SET state = 'by {i}' WHERE id > 0 OR true"
            waiting.append((connection, self.hold(connection, text)))
        self.assertEqual(count, len({ticket for _, ticket in waiting}))
        self.assertEqual({ticket for _, ticket in waiting}, set(self.pending()))
        (row,) = [r for r in self.ask("bob", "SHOW chaperone.stats") if r["name"] == "tickets_waiting"]
        self.assertEqual(count, row["value"])
        random.Random(7).shuffle(waiting)
        for number, (connection, ticket) in enumerate(waiting):
            if number % 5 == 4:
                self.decide(ticket, "deny")
                self.assertEqual(["42501"], wire.sqlstates(connection.until_ready()))
            else:
                self.decide(ticket, user=("bob", "carol")[number % 2])
                self.done(connection, tag="UPDATE 20")
        self.assertEqual({}, self.pending())
        for connection, ticket in waiting:
            connection.close()

    def test_a_stricter_policy_wins_over_an_approval(self):
        target = self.guarded_by(policy(*RULES))
        with self.wire(target=target) as clerk:
            ticket = self.hold(clerk, ALL.format("jobs"))
            with self.wire(target=target) as other:
                later = self.given_ticket(other, ALL.format("later"))
            self.decide(later, target=target)
            version = self.ask("bob", "SHOW chaperone.version", target=target)[0]["policy_version"]
            target.guard.configuration_file.write_text(policy(rule(
                "nothing-live", "text: live", "block")))
            target.guard.hang_up()
            processes.wait_until(lambda: self.ask("dave", "SHOW chaperone.version",
                                                  target=target)[0]["policy_version"] > version, 10, "the new policy")
            self.decide(ticket, target=target)
            frames = clerk.until_ready()
            self.assertEqual(["42501"], wire.sqlstates(frames))
            self.assertIn("nothing-live", str([f for f in frames if f.tag == "E"][0].fields()))
            self.refused(clerk, ALL.format("later"), message="live")
        self.assertEqual(0, self.count("jobs", "state = 'live'") + self.count("later", "state = 'live'"))

    def test_an_approval_under_terms_that_became_stricter_is_not_enough(self):
        target = self.guarded_by(policy(*RULES))
        with self.wire(target=target) as clerk:
            ticket = self.given_ticket(clerk, ALL.format("later"))
            self.decide(ticket, target=target)
            version = self.ask("bob", "SHOW chaperone.version", target=target)[0]["policy_version"]
            target.guard.configuration_file.write_text(policy(rule(
                "two", 'writes: ["held.later"]', "{ hold: { wait: 0s, approvals: 2, evidence: none } }")))
            target.guard.hang_up()
            processes.wait_until(lambda: self.ask("dave", "SHOW chaperone.version",
                                                  target=target)[0]["policy_version"] > version, 10, "the new policy")
            other = self.given_ticket(clerk, ALL.format("later"))
            self.assertNotEqual(ticket, other)
            self.assertEqual("0 of 2", self.fields(other, target=target)["approvals"])
        self.assertEqual(0, self.count("later", "state = 'live'"))


@needs_guard
class Bound(Held):
    """An approval is for one thing. Everything here has `wait: 0s`: the client gets the ticket at once."""

    def assert_does_not_pass(self, ticket, connection, data):
        other = self.given_ticket(connection, data)
        self.assertNotEqual(ticket, other)
        self.assertEqual("approved", self.fields(ticket)["state"])

    def test_to_the_bytes_of_its_text(self):
        with self.wire() as clerk:
            ticket = self.given_ticket(clerk, ALL.format("later"))
            self.decide(ticket)
            for text in (ALL.format("later") + " ", ALL.format("later") + ";", ALL.format("later").lower(),
                         "UPDATE later SET state = 'Live'", "/* */" + ALL.format("later")):
                with self.subTest(text):
                    self.assert_does_not_pass(ticket, clerk, text)
            self.done(clerk, ALL.format("later"), "UPDATE 20")

    def test_to_its_parameters(self):
        def update(value, types=(), formats=()):
            return (parse("UPDATE later SET state = $1", types=types) + bind(parameters=[value], formats=formats) +
                    describe("P") + execute() + sync())

        with self.wire() as clerk:
            ticket = self.given_ticket(clerk, update("live"))
            self.assertEqual("$1 = 'live'", self.fields(ticket)["parameters"])
            self.decide(ticket)
            for other in (update("dead"), update(None), update(""), update("live "), update("live", types=[25]),
                          update("live", formats=[1])):
                self.assert_does_not_pass(ticket, clerk, other)
            self.done(clerk, update("live"), "UPDATE 20")
            self.assertNotEqual(ticket, self.given_ticket(clerk, update("live")))

    def test_to_the_person_and_the_database(self):
        with self.wire() as clerk, self.wire("clara") as clara:
            ticket = self.given_ticket(clerk, ALL.format("later"))
            self.decide(ticket)
            self.assert_does_not_pass(ticket, clara, ALL.format("later"))
        self.cluster.sql("CREATE SCHEMA IF NOT EXISTS held;"
                         "CREATE TABLE IF NOT EXISTS held.later (id int, state text);"
                         "GRANT ALL ON SCHEMA held TO PUBLIC; GRANT ALL ON held.later TO PUBLIC", dbname="other")
        with self.wire(database="other") as clerk:
            self.assert_does_not_pass(ticket, clerk, ALL.format("later"))

    def test_to_the_settings_that_give_it_its_meaning(self):
        self.sql("CREATE SCHEMA IF NOT EXISTS aside; CREATE TABLE IF NOT EXISTS aside.later (id int, state text);"
                 "GRANT ALL ON SCHEMA aside TO PUBLIC; GRANT ALL ON aside.later TO PUBLIC")
        with self.wire() as clerk:
            ticket = self.given_ticket(clerk, ALL.format("later"))
            self.decide(ticket)
            for setting, back in (("SET search_path = aside, held", "RESET search_path"),
                                  ("SET search_path = held, aside", "RESET search_path"),
                                  ("SET ROLE readers", "RESET ROLE"), ("SET TimeZone = 'Asia/Tokyo'", "RESET TimeZone"),
                                  ("SET DateStyle = 'German'", "RESET DateStyle"),
                                  ("SET standard_conforming_strings = off", "RESET standard_conforming_strings"),
                                  ("SET client_encoding = 'LATIN1'", "RESET client_encoding")):
                with self.subTest(setting):
                    self.done(clerk, setting)
                    self.assert_does_not_pass(ticket, clerk, ALL.format("later"))
                    self.done(clerk, back)
            self.done(clerk, "SET work_mem = '8MB'")
            self.done(clerk, ALL.format("later"), "UPDATE 20")
        self.sql("DROP SCHEMA aside CASCADE")

    def test_not_to_another_table_of_the_same_name(self):
        with self.wire() as clerk:
            ticket = self.given_ticket(clerk, ALL.format("later"))
            self.decide(ticket)
            # In a function, or the guard would know that it is the session's own.
            self.done(clerk, "DO $$ BEGIN CREATE TEMP TABLE later (id int, state text); END $$")
            self.assert_does_not_pass(ticket, clerk, ALL.format("later"))
            self.done(clerk, "DROP TABLE pg_temp.later")
            self.done(clerk, ALL.format("later"), "UPDATE 20")

    def test_an_execute_is_approved_for_the_run_that_asks_alone(self):
        target = self.guarded_by(policy(rule("hold-executes", "command: EXECUTE, opaque: true",
                                             "{ hold: { wait: 60s, evidence: none } }")))
        with self.wire(target=target) as clerk:
            self.done(clerk, "PREPARE p AS UPDATE later SET state = 'live' WHERE id <= 3")
            before = len(self.ask("bob", "SHOW chaperone.history", target=target))
            clerk.send(query("EXECUTE p"))
            frames = clerk.until("NZ")
            if frames[-1].tag == "Z":  # what it runs is known: nothing is opaque
                self.assertEqual([], wire.sqlstates(frames))
                return
            ticket = list(self.pending(target=target))[-1]
            self.decide(ticket, target=target)
            self.done(clerk, tag="UPDATE 3")
            self.assertEqual(before + 1, len(self.ask("bob", "SHOW chaperone.history", target=target)))


@needs_guard
class Deciders(Held):
    def test_nobody_approves_what_they_asked_for(self):
        for user in ("bob", "chief_dba", "chief", "clerk", "otto"):
            with self.subTest(user), self.wire(user) as asker:
                ticket = self.hold(asker, ALL.format("jobs"))
                error = self.assert_may_not("42501", self.decide, ticket, user=user)
                self.assertNotIn("unknown", error.message)
                for trick in ("SET ROLE dba", "SET SESSION AUTHORIZATION carol"):
                    if user == "chief_dba" or (user == "bob" and "ROLE" in trick):
                        self.ask(user, trick)
                        self.assert_may_not("42501", self.decide, ticket, user=user)
                        self.ask(user, "RESET SESSION AUTHORIZATION")
                        self.ask(user, "RESET ROLE")
                self.assertEqual("pending", self.fields(ticket, user="carol")["state"])
                self.decide(ticket, user="carol")
                self.done(asker, tag="UPDATE 20")

    def test_who_asks_is_who_logged_in_whoever_they_say_they_are(self):
        for trick in ("SET SESSION AUTHORIZATION clerk", "SET ROLE clerk",
                      "SELECT pg_catalog.set_config('session_authorization', 'clerk', false)"):
            with self.subTest(trick), self.wire("chief_dba") as asker:
                asker.ask(trick)
                self.assertEqual([("clerk",)], asker.rows("SELECT current_user"))
                ticket = self.given_ticket(asker, ALL.format("later"))
                self.assertEqual("chief_dba", self.fields(ticket)["requester"])
                self.assert_may_not("42501", self.decide, ticket, user="chief_dba")
                with self.wire() as clerk:
                    other = self.given_ticket(clerk, ALL.format("later"))
                    self.assertNotEqual(ticket, other)
                    self.decide(other, user="chief_dba")  # that one is the real clerk's
                    self.assertEqual(ticket, self.given_ticket(asker, ALL.format("later")))
                    self.done(clerk, ALL.format("later"), "UPDATE 20")

    def test_who_is_no_approver_sees_nothing_and_decides_nothing(self):
        with self.wire() as clerk:
            ticket = self.hold(clerk, ALL.format("jobs"))
            for user in ("dave", "chief", "clara"):
                with self.subTest(user):
                    self.assertEqual({}, self.pending(user))
                    self.assert_may_not("42704", self.fields, ticket, user)
                    for what in ("approve", "deny", "withdraw"):
                        error = self.assert_may_not("42501", self.decide, ticket, what, user=user)
                        self.assertNotIn("jobs", str(error))
            self.assertEqual([ticket], list(self.pending("clerk")))
            self.decide(ticket)
            self.done(clerk, tag="UPDATE 20")

    def test_membership_counts_however_far_and_as_it_is_now(self):
        self.sql("DROP ROLE IF EXISTS fresh; CREATE ROLE fresh LOGIN")
        with self.wire() as clerk:
            for user, able in (("erin", True), ("chief_dba", True), ("fresh", False), ("fresh", True)):
                with self.subTest(user, able=able):
                    ticket = self.hold(clerk, ALL.format("jobs"))
                    if not able:
                        self.assert_may_not("42501", self.decide, ticket, user=user)
                        self.sql("GRANT leads TO fresh")
                    self.decide(ticket, user=user)
                    self.done(clerk, tag="UPDATE 20")
            self.sql("REVOKE leads FROM fresh")
            ticket = self.hold(clerk, ALL.format("jobs"))
            self.assert_may_not("42501", self.decide, ticket, user="fresh")
            self.decide(ticket, "deny")
            clerk.until_ready()

    def test_two_approvals_are_those_of_two_people(self):
        with self.wire() as clerk:
            ticket = self.given_ticket(clerk, ALL.format("pair"))
            self.assertEqual("pending", self.decide(ticket)["state"])
            self.assertEqual("1 of 2", self.pending()[ticket]["approvals"])
            self.assert_may_not("55000", self.decide, ticket)
            self.assertEqual(ticket, self.given_ticket(clerk, ALL.format("pair")), "one is not enough")
            self.assertEqual("approved", self.decide(ticket, user="carol")["state"])
            self.done(clerk, ALL.format("pair"), "UPDATE 20")
            ticket = self.given_ticket(clerk, ALL.format("pair"))
            self.decide(ticket)
            self.assertEqual("denied", self.decide(ticket, "deny", "no", user="carol")["state"])

    def test_where_the_rule_allows_it_an_approver_approves_alone(self):
        with self.wire("bob") as bob, self.wire() as clerk:
            ticket = self.given_ticket(bob, ALL.format("selfish"))
            self.decide(ticket, user="bob")
            self.done(bob, ALL.format("selfish"), "UPDATE 20")
            ticket = self.given_ticket(clerk, ALL.format("selfish"))
            self.assert_may_not("42501", self.decide, ticket, user="clerk")

    def test_a_role_that_was_renamed_is_still_the_same_person(self):
        self.sql("DROP ROLE IF EXISTS before_name, after_name; CREATE ROLE before_name LOGIN IN ROLE dba")
        with self.wire("before_name") as asker:
            ticket = self.given_ticket(asker, ALL.format("later"))
        self.sql("ALTER ROLE before_name RENAME TO after_name")
        self.assert_may_not("42501", self.decide, ticket, user="after_name")
        self.decide(ticket)
        with self.wire("after_name") as asker:
            self.assertNotEqual(ticket, self.given_ticket(asker, ALL.format("later")),
                                "who is asked again is told who asks")
        self.people.pop(("after_name", self.guarded.port)).close()
        # Another role that takes the name is somebody else.
        self.sql("CREATE ROLE before_name LOGIN")
        with self.wire("before_name") as other:
            self.assertNotEqual(ticket, self.given_ticket(other, ALL.format("later")))
        self.assertEqual("approved", self.fields(ticket)["state"])

    def test_a_name_that_the_server_cuts_is_the_same_person(self):
        name = "long" + "g" * 59
        self.sql(f'DROP ROLE IF EXISTS "{name}"; CREATE ROLE "{name}" LOGIN IN ROLE dba')
        with self.wire(name + "and_more") as asker:
            ticket = self.given_ticket(asker, ALL.format("later"))
            self.assertEqual(name, self.fields(ticket)["requester"])
            self.assert_may_not("42501", self.decide, ticket, user=name)
            self.assert_may_not("42501", self.decide, ticket, user=name + "or_so")
            self.decide(ticket)
        with self.wire(name) as asker:
            self.done(asker, ALL.format("later"), "UPDATE 20")

    def test_who_breaks_the_glass_says_why_and_goes_ahead_alone(self):
        with self.wire("oscar") as oscar:
            ticket = self.hold(oscar, ALL.format("jobs"))
            self.assert_may_not("42704", self.decide, "Z99", user="oscar")
            self.decide(ticket, "deny", "wake me")
            self.assertEqual(["42501"], wire.sqlstates(oscar.until_ready()))
            self.done(oscar, "SET chaperone.reason = 'the queue is stuck, INC-4711'")
            frames = self.done(oscar, ALL.format("jobs"), "UPDATE 20")
            notices = [f.fields()["M"] for f in frames if f.tag == "N"]
            self.assertEqual(1, len(notices), notices)
            self.assertIn("the glass is broken", notices[0])
            ticket = self.ticket_of({"M": notices[0]})
            fields = self.wait_for_state(ticket, "used")
            self.assertEqual(("the queue is stuck, INC-4711", "UPDATE 20"), (fields["glass_reason"], fields["outcome"]))
            self.done(oscar, "RESET chaperone.reason")
            ticket = self.hold(oscar, ALL.format("jobs"))
            self.decide(ticket)
            self.done(oscar, tag="UPDATE 20")
        with self.wire() as clerk:
            self.done(clerk, "SET chaperone.reason = 'me too'")
            ticket = self.hold(clerk, ALL.format("jobs"))
            self.decide(ticket, "deny")
            clerk.until_ready()
        records = [r for r in self.guard.audit_records() if r.get("outcome") == "glass broken"]
        self.assertEqual(["the queue is stuck, INC-4711"], [r["comment"] for r in records])
        self.assertIn("THE GLASS WAS BROKEN", self.guard.log_text())

    def test_the_glass_without_a_reason_where_none_is_required(self):
        never = rule("never", 'writes: ["held.log"]', "block")
        target = self.guarded_by(policy(never, *RULES, head="approvers: [dba]\n  break_glass: { roles: [on_call], "
                                                            "require_reason: false }"))
        with self.wire("oscar", target=target) as oscar:
            frames = self.done(oscar, ALL.format("jobs"), "UPDATE 20")
            self.assertIn("the glass is broken", str([f.fields() for f in frames if f.tag == "N"]))
            self.refused(oscar, "DELETE FROM log", message="never|DELETE")  # what is blocked stays so

    def test_the_audit_log_says_who_asked_who_decided_and_when(self):
        with self.wire() as clerk:
            text = "UPDATE jobs SET state = 'on record'"
            ticket = self.hold(clerk, text)
            self.decide(ticket, comment="go on")
            self.done(clerk, tag="UPDATE 20")
        records = [r for r in self.guard.audit_records() if r["statement"] == text and r.get("ticket") == ticket]
        self.assertEqual(["opened", "approved"], [r["outcome"] for r in records][:2])
        self.assertEqual(["bob"], records[1]["approved_by"])
        self.assertEqual({"clerk"}, {r["user"] for r in records})


@needs_guard
class Shapes(Held):
    """Where in the protocol a held statement may stand."""

    def test_in_a_string_of_statements(self):
        with self.wire() as clerk:
            ticket = self.hold(clerk, "SELECT 'before'; UPDATE jobs SET state = 'live'; SELECT 'after'")
            self.assertEqual(0, self.count("jobs", "state = 'live'"))
            self.decide(ticket)
            frames = self.done(clerk, tag=["SELECT 1", "UPDATE 20", "SELECT 1"])
            self.assertEqual([[b"before"], [b"after"]], [f.columns() for f in frames if f.tag == "D"])
            ticket = self.hold(clerk, "INSERT INTO log VALUES (1, 'x'); UPDATE jobs SET state = 'dead'; SELECT 1")
            self.decide(ticket, "deny")
            self.assertEqual("EZ", wire.tags(clerk.until_ready()))
        self.assertEqual(0, self.count("log"), "nothing of the string was run")

    def test_in_the_middle_of_a_pipeline(self):
        pipeline = run("INSERT INTO log VALUES (1, 'before')") + run("UPDATE jobs SET state = 'live' RETURNING id") + \
            run("INSERT INTO log VALUES (2, 'behind')") + sync() + query("SELECT 'end'")
        for verdict in ("approve", "deny"):
            self.sql(FILL_SQL)
            with self.subTest(verdict), self.wire() as clerk:
                ticket = self.hold(clerk, pipeline)
                self.assertEqual("12nC12"[:len(wire.tags(clerk.before))], wire.tags(clerk.before))
                self.assertIn("C", wire.tags(clerk.before), "what stands before it is answered")
                self.decide(ticket, verdict)
                frames = clerk.before + clerk.until_ready(2)
                if verdict == "approve":
                    self.assertEqual("12nC" + "12T" + "D" * 20 + "C" + "12nC" + "Z" + "TDCZ", wire.tags(frames))
                else:
                    self.assertEqual(["42501"], wire.sqlstates(frames))
                    self.assertTrue(wire.tags(frames).endswith("EZTDCZ"), wire.tags(frames))
                self.assertEqual((2, 20) if verdict == "approve" else (0, 0),
                                 (self.count("log"), self.count("jobs", "state = 'live'")))
        self.assert_nothing_left_open()

    def test_several_groups_sent_ahead(self):
        with self.wire() as clerk:
            clerk.send(query("SELECT 1") + query(ALL.format("jobs")) + run("SELECT 2") + sync() +
                       query("DELETE FROM jobs") + query("SELECT 3"))
            ticket = self.told(clerk)
            self.assertEqual("TDCZ", wire.tags(clerk.before))
            self.decide(ticket)
            ticket = self.told(clerk)
            self.assertEqual("CZ" + "12TDCZ", wire.tags(clerk.before))
            self.decide(ticket, "deny")
            self.assertEqual("EZTDCZ", wire.tags(clerk.until_ready(2)))
        self.assertEqual(20, self.count("jobs", "state = 'live'"))

    def test_inside_a_block_it_waits_with_what_the_block_has_done(self):
        for form in (query, lambda sql: run(sql) + sync()):
            for verdict in ("approve", "deny"):
                self.sql(FILL_SQL)
                with self.subTest(verdict), self.wire() as clerk:
                    self.done(clerk, "BEGIN")
                    self.done(clerk, "INSERT INTO log VALUES (1, 'kept')")
                    ticket = self.hold(clerk, form(ALL.format("jobs")))
                    self.decide(ticket, verdict)
                    frames = clerk.until_ready()
                    self.assertEqual("T" if verdict == "approve" else "E", wire.statuses(frames))
                    frames = self.done(clerk, "COMMIT", "COMMIT" if verdict == "approve" else "ROLLBACK")
                    self.assertEqual("I", wire.statuses(frames))
                    self.assertEqual((1, 20) if verdict == "approve" else (0, 0),
                                     (self.count("log"), self.count("jobs", "state = 'live'")))
        self.assert_nothing_left_open()

    def test_inside_a_block_it_is_refused_at_once_where_the_rule_says_so(self):
        with self.wire() as clerk:
            self.done(clerk, "BEGIN")
            ticket = self.given_ticket(clerk, ALL.format("inside"))
            self.done(clerk, "ROLLBACK")
            self.decide(ticket)
            self.done(clerk, "BEGIN")
            self.done(clerk, ALL.format("inside"), "UPDATE 20")
            self.done(clerk, "COMMIT", "COMMIT")
            ticket = self.hold(clerk, "DELETE FROM inside")  # outside of a block it waits
            self.decide(ticket)
            self.done(clerk, tag="DELETE 20")

    def test_a_named_statement_is_held_at_each_bind(self):
        with self.wire() as clerk:
            self.done(clerk, parse("UPDATE jobs SET state = $1", "u") + describe("S", "u") + sync())
            for value in ("a", "b"):
                ticket = self.hold(clerk, bind("", "u", [value]) + describe("P") + execute() + sync())
                self.assertEqual(f"$1 = '{value}'", self.fields(ticket)["parameters"])
                self.decide(ticket)
                frames = self.done(clerk, tag="UPDATE 20")
                self.assertEqual("2nCZ", wire.tags(clerk.before + frames))
                self.assertEqual(20, self.count("jobs", f"state = '{value}'"))

    def test_a_portal_read_in_portions(self):
        with self.wire() as clerk:
            self.done(clerk, "BEGIN")
            ticket = self.hold(clerk, parse("UPDATE jobs SET state = 'live' RETURNING id") + bind("p") +
                               execute("p", 7) + execute("p", 7) + execute("p", 0) + sync())
            self.decide(ticket)
            frames = self.done(clerk)
            self.assertEqual("12" + "D" * 7 + "s" + "D" * 7 + "s" + "D" * 6 + "CZ", wire.tags(clerk.before + frames))
            self.done(clerk, "COMMIT")

    def test_a_copy_from_a_client_waits_before_its_data(self):
        target = self.guarded_by(policy(rule("copies", 'command: COPY, class: WRITE',
                                             "{ hold: { wait: 60s, evidence: trial } }")))
        with self.wire(target=target) as clerk:
            ticket = self.hold(clerk, "COPY log FROM STDIN")
            self.decide(ticket, target=target)
            frames = clerk.until("GE")
            self.assertEqual("G", frames[-1].tag, frames)
            clerk.send(wire.copy_data("1\tcopied\n") + wire.copy_done())
            self.done(clerk, tag="COPY 1")
        self.assertEqual(1, self.count("log"))

    def test_a_function_call_message_is_held_like_any_other(self):
        target = self.guarded_by(policy(rule("calls", "command: FUNCTION CALL",
                                             "{ hold: { wait: 60s } }")))
        oid = self.sql("SELECT oid FROM pg_proc WHERE proname = 'int4abs'")[0][0]
        with self.wire(target=target) as clerk:
            ticket = self.hold(clerk, function_call(oid, [b"\xff\xff\xff\xf9"]))
            self.decide(ticket, target=target)
            frames = self.done(clerk)
            self.assertEqual("VZ", wire.tags(frames))
            self.assertTrue(frames[0].body.endswith(b"\0\0\0\7"))

    def test_notifications_flow_while_it_waits(self):
        with self.wire() as clerk:
            self.done(clerk, "LISTEN channel")
            ticket = self.hold(clerk, ALL.format("jobs"))
            self.sql("NOTIFY channel, 'hello'")
            self.assertEqual("A", clerk.frame().tag)
            self.decide(ticket)
            self.done(clerk, tag="UPDATE 20")


if __name__ == "__main__":
    main()
