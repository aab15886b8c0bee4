"""Held statements when things go wrong, at any moment: nothing runs that was not approved, nothing runs twice, nobody
waits for ever, and what was approved is not lost."""

import os
import random
import resource
import signal
import socket
import sqlite3
import struct
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import processes
from support.approval import FILL_SQL, USUAL, Held, Psql, Refused
from support.e2e import main, needs_guard, wire
from support.wire import query, run, sync

ALL = "UPDATE {} SET state = state || '!'"  # how often it ran can be read
FORMS = {"simple": query, "extended": lambda sql: run(sql) + sync()}


class Faults(Held):
    def victim(self, user: str = "clerk", target=None, **options):
        return self.wire(user, target, application_name="victim", **options)

    def backend(self) -> int:
        self.cluster.wait_for_backends(1, "application_name = 'victim'")
        return self.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'victim'")[0][0]

    def cancel(self, connection, target=None):
        with wire.Wire((target or self.guarded).address) as messenger:
            messenger.send(wire.cancel_request(connection.pid, connection.key))
            messenger.until_closed()

    def times_run(self, table: str) -> int:
        """How often ALL ran; it did for every row or for none."""
        rows = self.sql(f"SELECT DISTINCT length(state) - 3 FROM held.{table}")
        self.assertEqual(1, len(rows), rows)
        return rows[0][0]

    def vanish(self, connection, reset: bool):
        if reset:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


@needs_guard
class Leaving(Faults):
    def test_a_cancel_is_answered_at_once_and_the_session_goes_on(self):
        for name, form in FORMS.items():
            for block in (False, True):
                for table in ("jobs", "tried"):
                    with self.subTest(name, block=block, table=table), self.victim() as clerk:
                        if block:
                            clerk.ask("BEGIN")
                        ticket = self.hold(clerk, form(ALL.format(table)))
                        self.cancel(clerk)
                        frames = clerk.until_ready()
                        self.assertEqual((["57014"], "E" if block else "I"),
                                         (wire.sqlstates(frames), wire.statuses(frames)))
                        fields = [f for f in frames if f.tag == "E"][0].fields()
                        self.assertEqual("canceling statement due to user request", fields["M"])
                        self.assertIn(ticket, fields["D"])
                        self.wait_for_state(ticket, "withdrawn")
                        self.assert_may_not("55000", self.decide, ticket)
                        clerk.ask("ROLLBACK")
                        self.done(clerk, "SELECT 1", "SELECT 1")
                        self.assertEqual(0, self.times_run(table))
        self.assert_nothing_left_open()

    def test_a_client_that_goes_away_withdraws(self):
        for name, form in FORMS.items():
            for block in (False, True):
                for reset in (False, True):
                    with self.subTest(name, block=block, reset=reset):
                        clerk = self.victim()
                        if block:
                            clerk.ask("BEGIN")
                            clerk.ask("INSERT INTO log VALUES (1, 'x')")
                        ticket = self.hold(clerk, form(ALL.format("jobs")))
                        self.vanish(clerk, reset)
                        fields = self.wait_for_state(ticket, "withdrawn")
                        self.assertTrue(fields.get("comment") or fields.get("ended_by"), fields)
                        self.cluster.wait_for_backends(0, "application_name = 'victim'")
        self.assertEqual((0, 0), (self.times_run("jobs"), self.count("log")))
        self.assert_nothing_left_open()

    def test_a_client_that_is_killed_withdraws(self):
        with Psql(self.guarded, "clerk", "-c", "DELETE FROM jobs") as clerk:
            ticket = clerk.ticket()
            clerk.process.kill()
            self.wait_for_state(ticket, "withdrawn")
        self.assertEqual(20, self.count("jobs"))

    def test_a_client_that_says_goodbye_while_it_waits_withdraws(self):
        clerk = self.victim()
        ticket = self.hold(clerk, query(ALL.format("jobs")) + wire.terminate())
        clerk.half_close()
        self.wait_for_state(ticket, "withdrawn")
        self.cluster.wait_for_backends(0, "application_name = 'victim'")
        self.assertEqual(0, self.times_run("jobs"))


@needs_guard
class Moments(Faults):
    """Two things at the same instant come out one way or the other."""

    def at_once(self, *calls):
        """Runs the calls together, each by its own thread; returns what they return or raise."""
        results = [None] * len(calls)
        barrier = threading.Barrier(len(calls))

        def work(index):
            barrier.wait()
            try:
                results[index] = calls[index]()
            except Refused as error:
                results[index] = error

        threads = [threading.Thread(target=work, args=[i]) for i in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        return results

    def test_an_approval_and_a_cancel(self):
        chance = random.Random(1)
        self.person("bob")
        with self.victim() as clerk:
            for turn in range(25):
                self.sql("UPDATE held.jobs SET state = 'new'")
                ticket = self.hold(clerk, list(FORMS.values())[turn % 2](ALL.format("jobs")))
                late = chance.random() * 0.004
                decision, _ = self.at_once(lambda: self.decide(ticket),
                                           lambda: (time.sleep(late), self.cancel(clerk)))
                frames = clerk.until_ready()
                errors = wire.sqlstates(frames)
                self.assertEqual("I", wire.statuses(frames))
                if errors:
                    self.assertEqual(["57014"], errors)
                    self.assertEqual(0, self.times_run("jobs"))
                    processes.wait_until(lambda: self.fields(ticket)["state"] in ("withdrawn", "used"), 5, "an end")
                else:
                    self.assertEqual(1, self.times_run("jobs"))
                    self.assertEqual("used", self.wait_for_state(ticket, "used")["state"])
                # A cancel that came late may hit what comes next.
                for _ in range(3):
                    if not wire.sqlstates(clerk.ask("SELECT 1")):
                        break
        self.assertEqual({}, self.pending())

    def test_an_approval_and_the_end_of_the_wait(self):
        chance = random.Random(2)
        self.person("bob")
        with self.victim() as clerk:
            for turn in range(8):
                self.sql("UPDATE held.soon SET state = 'new'")
                form = list(FORMS.values())[turn % 2]
                start = time.monotonic()
                ticket = self.hold(clerk, form(ALL.format("soon")))
                time.sleep(max(0, 0.28 + chance.random() * 0.04 - (time.monotonic() - start)))
                self.assertEqual("approved", self.decide(ticket)["state"])
                frames = clerk.until_ready()
                if wire.sqlstates(frames):
                    self.assertEqual((["42501"], 0), (wire.sqlstates(frames), self.times_run("soon")))
                    self.done(clerk, form(ALL.format("soon")), "UPDATE 20")
                self.assertEqual(1, self.times_run("soon"))
                self.wait_for_state(ticket, "used")

    def test_an_approval_and_a_client_that_leaves(self):
        chance = random.Random(3)
        self.person("bob")
        for turn in range(15):
            self.sql("UPDATE held.jobs SET state = 'new'")
            clerk = self.victim()
            ticket = self.hold(clerk, ALL.format("jobs"))
            late = chance.random() * 0.004
            self.at_once(lambda: self.decide(ticket), lambda: (time.sleep(late), self.vanish(clerk, turn % 2 == 0)))
            self.cluster.wait_for_backends(0, "application_name = 'victim'")
            processes.wait_until(lambda: self.fields(ticket)["state"] not in ("pending", "approved"), 5, "an end")
            state = self.fields(ticket)["state"]
            self.assertIn(state, ("withdrawn", "used"))
            self.assertLessEqual(self.times_run("jobs"), 1)
            if state == "withdrawn":
                self.assertEqual(0, self.times_run("jobs"))
        self.assert_nothing_left_open()

    def test_two_approvers_and_a_denier(self):
        for user in ("bob", "carol", "erin"):
            self.person(user)
        with self.victim() as clerk:
            for turn in range(12):
                self.sql("UPDATE held.jobs SET state = 'new'")
                ticket = self.hold(clerk, ALL.format("jobs"))
                results = self.at_once(lambda: self.decide(ticket, user="bob"),
                                       lambda: self.decide(ticket, user="carol"),
                                       lambda: self.decide(ticket, "deny", user="erin"))
                frames = clerk.until_ready()
                state = self.wait_for_state(ticket, "denied" if wire.sqlstates(frames) else "used")["state"]
                self.assertEqual(0 if state == "denied" else 1, self.times_run("jobs"))
                self.assertLessEqual(sum(not isinstance(r, Refused) for r in results[:2]), 1, results)

    def test_one_approval_and_many_who_run_it(self):
        with self.victim() as clerk:
            ticket = self.given_ticket(clerk, ALL.format("later"))
        self.decide(ticket)
        runners = [self.victim() for _ in range(8)]
        for runner in runners:
            runner.send(query(ALL.format("later")))
        outcomes = [wire.sqlstates(runner.until_ready()) for runner in runners]
        self.assertEqual(1, outcomes.count([]), outcomes)
        self.assertEqual(7, outcomes.count(["42501"]), outcomes)
        self.assertEqual(1, self.times_run("later"))


@needs_guard
class Servers(Faults):
    def test_a_session_that_is_terminated_while_it_waits_is_told_and_its_ticket_stays(self):
        for name, form in FORMS.items():
            for block in (False, True):
                with self.subTest(name, block=block):
                    self.sql(FILL_SQL)
                    clerk = self.victim()
                    if block:
                        clerk.ask("BEGIN")
                    ticket = self.hold(clerk, form(ALL.format("jobs")))
                    self.sql(f"SELECT pg_terminate_backend({self.backend()})")
                    frames = clerk.until_closed()
                    self.assertNotIn("Z", wire.tags(frames))
                    errors = [f.fields() for f in frames if f.tag == "E"]
                    self.assertTrue(errors, "it is told")
                    self.assertEqual(["57P01"], [e["C"] for e in errors], "the server's own words")
                    row = self.pending()[ticket]
                    self.assertEqual(("pending", False), (row["state"], row["waiting"]))
                    self.decide(ticket)
                    self.assertEqual(0, self.times_run("jobs"))
                    with self.victim() as again:
                        if block:
                            again.ask("BEGIN")
                        self.done(again, form(ALL.format("jobs")), "UPDATE 20")
                        if block:
                            again.ask("COMMIT")
                    self.assertEqual(1, self.times_run("jobs"))
                    self.wait_for_state(ticket, "used")

    def test_a_server_that_crashes_while_it_waits(self):
        starts = self.cluster.starts()
        clerk = self.victim()
        ticket = self.hold(clerk, ALL.format("jobs"))
        os.kill(self.backend(), signal.SIGKILL)
        frames = clerk.until_closed()
        self.assertNotIn("Z", wire.tags(frames))
        errors = [f.fields() for f in frames if f.tag == "E"]
        self.assertEqual(["08006"], [e["C"] for e in errors], "the server has said nothing")
        self.assertIn(ticket, errors[0]["H"])
        self.cluster.wait_for_restart(starts)
        self.own.close()
        while self.people:
            self.people.popitem()[1].close()
        self.decide(ticket)
        with self.victim() as again:
            self.done(again, ALL.format("jobs"), "UPDATE 20")
        self.assertEqual(1, self.times_run("jobs"))

    def test_the_servers_timeouts_do_not_meet_who_waits(self):
        """Far longer than all of them together."""
        waiting = []
        for name, form in FORMS.items():
            for block in (False, True):
                for table in ("jobs", "tried"):
                    clerk = self.victim(user="clerk" if table == "jobs" else "clara")
                    for setting in ("idle_in_transaction_session_timeout", "idle_session_timeout", "statement_timeout"):
                        clerk.ask(f"SET {setting} = '1s'")
                    if block:
                        clerk.ask("BEGIN")
                        clerk.ask("INSERT INTO log VALUES (1, 'kept')")
                    waiting.append((clerk, self.hold(clerk, form(ALL.format(table)))))
        time.sleep(2.2)
        for clerk, ticket in waiting:
            self.decide(ticket)
            self.done(clerk, tag="UPDATE 20")
            if wire.statuses(clerk.ask("SELECT 1")) == "T":
                self.done(clerk, "COMMIT", "COMMIT")
            clerk.close()
        self.assertEqual((4, 4, 4), (self.times_run("jobs"), self.times_run("tried"), self.count("log")))


@needs_guard
class Processes(Faults):
    def test_a_guard_that_is_killed_with_open_and_approved_tickets(self):
        target = self.guarded_by(USUAL)
        clerk = self.victim(target=target)
        approved = self.given_ticket(clerk, ALL.format("later"))
        self.decide(approved, target=target)
        open_ticket = self.given_ticket(clerk, ALL.format("tried_later"))
        waited_for = self.hold(clerk, ALL.format("jobs"))
        used = None
        with self.victim("clara", target=target) as clara:
            used = self.hold(clara, ALL.format("told"))
            self.decide(used, target=target)
            self.done(clara, tag="UPDATE 20")
        target.guard.process.kill()
        target.guard.process.wait()
        clerk.until_closed()
        target.guard.start()
        target.port = target.guard.port
        states = {t: r["state"] for t, r in self.pending(target=target).items()}
        self.assertEqual({approved: "approved", open_ticket: "pending", waited_for: "pending"}, states)
        self.assertEqual("used", self.fields(used, target=target)["state"])
        self.decide(open_ticket, target=target)
        self.decide(waited_for, target=target)
        with self.victim(target=target) as clerk:
            for table in ("later", "tried_later"):
                self.done(clerk, ALL.format(table), "UPDATE 20")
                self.assertNotIn(self.given_ticket(clerk, ALL.format(table)), (approved, open_ticket))
            # The dead guard's session can't wait any more, but the store does not know at once.
            clerk.send(query(ALL.format("jobs")))
            frames = clerk.until("NZ")
            if frames[-1].tag == "N":
                self.assertIn("waits for approval", frames[-1].fields()["M"])
                self.cancel(clerk, target)
                self.assertEqual(["57014"], wire.sqlstates(clerk.until_ready()))
        self.assertEqual((1, 1), (self.times_run("later"), self.times_run("tried_later")))
        self.assertLessEqual(self.times_run("jobs"), 1)



@needs_guard
class Stores(Faults):
    def refused_by_the_store(self, connection, data) -> dict:
        fields = self.refused(connection, data, "58030", "tickets can't be kept")
        self.assertTrue(fields.get("D") and fields.get("H"), fields)
        return fields

    def test_a_store_that_is_locked_refuses_and_recovers(self):
        target = self.guarded_by(USUAL)
        file = target.guard.directory / "pgchaperone-tickets.db"
        with self.victim(target=target) as clerk:
            ticket = self.given_ticket(clerk, ALL.format("later"))
            other = sqlite3.connect(file, isolation_level=None)
            self.addCleanup(other.close)
            other.execute("BEGIN EXCLUSIVE")
            self.refused_by_the_store(clerk, ALL.format("later"))
            self.done(clerk, "SELECT 1", "SELECT 1")
            self.done(clerk, "UPDATE later SET state = 'x' WHERE id = 1", "UPDATE 1")
            self.assert_may_not("58030", self.decide, ticket, target=target)
            other.execute("ROLLBACK")
            processes.wait_until(lambda: self.works(target), 10, "the store to be used again")
            self.decide(ticket, target=target)
            self.sql("UPDATE held.later SET state = 'new'")
            self.done(clerk, ALL.format("later"), "UPDATE 20")

    def works(self, target) -> bool:
        try:
            self.pending(target=target)
            return True
        except Refused as error:
            self.assertEqual("58030", error.sqlstate)
            return False

    def test_a_store_whose_file_is_gone_or_broken_refuses_and_recovers(self):
        """What is there is not replaced by an empty one: ids would come twice, and decisions be lost."""
        for damage in ("gone", "a directory", "not a database"):
            with self.subTest(damage):
                self.sql(FILL_SQL)
                target = self.guarded_by(USUAL)
                file = target.guard.directory / "pgchaperone-tickets.db"
                aside = target.guard.directory / "aside"
                aside.mkdir()
                with self.victim(target=target) as clerk:
                    ticket = self.given_ticket(clerk, ALL.format("later"))
                    self.decide(ticket, target=target)
                    waiting = self.hold(clerk, ALL.format("jobs"))
                    for one in target.guard.directory.glob("pgchaperone-tickets.db*"):
                        one.rename(aside / one.name)
                    if damage == "a directory":
                        file.mkdir()
                    elif damage == "not a database":
                        file.write_bytes(b"x" * 8192)
                    with self.victim(target=target) as other:
                        self.refused_by_the_store(other, ALL.format("later"))
                        self.done(other, "SELECT 1", "SELECT 1")
                    self.assert_may_not("58030", self.decide, waiting, target=target)
                    self.assertTrue(damage == "not a database" or not file.is_file())
                    if damage == "a directory":
                        file.rmdir()
                    for one in aside.iterdir():
                        one.rename(target.guard.directory / one.name)
                    processes.wait_until(lambda: self.works(target), 10, "the store to be used again")
                    self.assertEqual(0, self.times_run("later") + self.times_run("jobs"))
                    self.decide(waiting, target=target)
                    self.done(clerk, tag="UPDATE 20")
                    self.done(clerk, ALL.format("later"), "UPDATE 20")
                    self.assertEqual((1, 1), (self.times_run("later"), self.times_run("jobs")))

    def test_a_full_disk_refuses_and_recovers(self):
        target = self.guarded_by(USUAL)
        with self.victim(target=target) as clerk:
            for _ in range(3):
                ticket = self.given_ticket(clerk, ALL.format("later"))
                self.decide(ticket, target=target)
                self.done(clerk, ALL.format("later"), "UPDATE 20")
            audit = target.guard.audit.stat().st_size
            largest = max(f.stat().st_size for f in target.guard.directory.glob("pgchaperone-tickets.db*"))
            self.assertGreater(largest, audit + 4096, "the limit below hits the store, not the audit log")
            before = resource.prlimit(target.guard.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(target.guard.pid, resource.RLIMIT_FSIZE, (audit + 4096, before[1]))
            clerk.send(query(ALL.format("later")))
            frames = clerk.until_ready()
            self.assertEqual(["58030"], wire.sqlstates(frames), frames)
            self.assertTrue(target.guard.alive())
            self.done(clerk, "SELECT 1", "SELECT 1")
            resource.prlimit(target.guard.pid, resource.RLIMIT_FSIZE, before)
            processes.wait_until(lambda: self.works(target), 10, "the store to be used again")
            ticket = self.given_ticket(clerk, ALL.format("later"))
            self.decide(ticket, target=target)
            self.done(clerk, ALL.format("later"), "UPDATE 20")
        self.assertEqual(4, self.times_run("later"))

    def test_replicas_share_tickets_and_one_that_dies_leaves_them(self):
        self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'tickets'")
        self.sql("DROP DATABASE IF EXISTS tickets")
        self.sql("CREATE DATABASE tickets")
        store = f"postgresql://postgres@{self.cluster.host}:{self.cluster.port}/tickets"
        one = self.guarded_by(USUAL, "--approval-store", store, "--approval-replica", "one")
        two = self.guarded_by(USUAL, "--approval-store", store, "--approval-replica", "two")
        with self.victim(target=one) as clerk:
            ticket = self.hold(clerk, ALL.format("jobs"))
            self.assertTrue(self.pending(target=two)[ticket]["waiting"])
            start = time.monotonic()
            self.decide(ticket, target=two)
            self.done(clerk, tag="UPDATE 20")
            self.assertLess(time.monotonic() - start, 5)
            denied = self.hold(clerk, ALL.format("jobs"))
            self.decide(denied, "deny", "no", target=two)
            self.assertEqual(["42501"], wire.sqlstates(clerk.until_ready()))
            # Of the same statement at both, with one approval, one runs.
            ticket = self.given_ticket(clerk, ALL.format("later"))
            self.decide(ticket, target=two)
            with self.victim(target=two) as other:
                for connection in (clerk, other):
                    connection.send(query(ALL.format("later")))
                outcomes = [wire.sqlstates(c.until_ready()) for c in (clerk, other)]
                self.assertEqual([[], ["42501"]], sorted(outcomes))
            self.assertEqual((1, 1), (self.times_run("jobs"), self.times_run("later")))
            self.sql(FILL_SQL)
            approved = self.given_ticket(clerk, ALL.format("tried_later"))
            self.decide(approved, target=one)
            pending = self.given_ticket(clerk, ALL.format("pair"))
        one.guard.process.kill()
        one.guard.process.wait()
        one.guard.process = None
        with self.victim(target=two) as clerk:
            self.done(clerk, ALL.format("tried_later"), "UPDATE 20")
            self.decide(pending, target=two)
            self.decide(pending, target=two, user="carol")
            self.done(clerk, ALL.format("pair"), "UPDATE 20")

            # The store goes away, and comes back.
            own = self.hold(clerk, ALL.format("jobs"))
            self.sql("ALTER DATABASE tickets ALLOW_CONNECTIONS false")
            self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'tickets'")
            with self.victim("clara", target=two) as clara:
                processes.wait_until(lambda: not self.works(two), 10, "the loss to be noticed")
                self.refused_by_the_store(clara, ALL.format("later"))
                self.done(clara, "SELECT 1", "SELECT 1")
                self.sql("ALTER DATABASE tickets ALLOW_CONNECTIONS true")
                processes.wait_until(lambda: self.works(two), 10, "the store to be used again")
                self.given_ticket(clara, ALL.format("later"))
            self.decide(own, target=two)
            self.done(clerk, tag="UPDATE 20")
        self.assertEqual(1, self.times_run("jobs"))
        two.guard.erase()
        self.sql("DROP DATABASE tickets (FORCE)")


if __name__ == "__main__":
    main()
