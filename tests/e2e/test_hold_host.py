"""What the host does for held statements: it notices who leaves, drains, reloads at an operator's command, keeps tickets
over restarts, and shares them with other guards."""

import contextlib
import signal
import socket
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import processes
from support.approval import USUAL, Held, Refused
from support.e2e import Guard, Target, main, needs_guard
from support.wire import Wire, cancel_request, query, sqlstates

UPDATE = "UPDATE jobs SET state = 'done'"


@needs_guard
class Leaving(Held):
    def test_a_client_that_leaves_is_noticed_behind_what_it_has_sent_ahead(self):
        connection = self.wire()
        ticket = self.hold(connection, UPDATE)
        connection.send(query("SELECT '" + "x" * 40_000 + "'"))
        connection.close()
        self.wait_for_state(ticket, "withdrawn")
        self.assertEqual(0, self.count("jobs", "state = 'done'"))
        self.assert_nothing_left_open()

    def test_a_connection_that_breaks_is_noticed_behind_more_than_is_read_ahead(self):
        connection = self.wire()
        ticket = self.hold(connection, UPDATE)
        # Far more than the guard keeps of what comes behind a held statement: it has stopped reading.
        connection.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                connection.socket.sendall(query("SELECT '" + "x" * 60_000 + "'"))
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        self.wait_for_state(ticket, "withdrawn")
        self.assertEqual(0, self.count("jobs", "state = 'done'"))
        self.assert_nothing_left_open()

    def test_a_cancel_reaches_a_held_statement_of_its_own_session_only(self):
        mine, other = self.wire(), self.wire("clara")
        ticket = self.hold(mine, UPDATE)
        with self.guarded.wire(user="clerk") as wrong:
            for packet in (cancel_request(wrong.pid, wrong.key), cancel_request(mine.pid, b"\0" * len(mine.key)),
                           cancel_request(other.pid, other.key)):
                self.cancel(packet)
        self.assertEqual("pending", self.fields(ticket)["state"])
        self.cancel(cancel_request(mine.pid, mine.key))
        self.assertEqual("57014", [f.fields()["C"] for f in mine.until_ready() if f.tag == "E"][0])
        self.wait_for_state(ticket, "withdrawn")
        self.done(mine, "SELECT 1", "SELECT 1")

    def cancel(self, packet: bytes):
        with Wire(self.guarded.address) as connection:
            connection.send(packet)
            self.assertEqual([], connection.until_closed())


@needs_guard
class Sessions(Held):
    def test_sessions_say_who_is_held_by_what_and_how_they_call_themselves_now(self):
        connection = self.wire()
        self.done(connection, "SET application_name = 'night shift'")
        ticket = self.hold(connection, UPDATE)
        held = [r for r in self.ask("bob", "SHOW chaperone.sessions") if r["ticket"] == ticket]
        self.assertEqual([("clerk", "night shift", "held")],
                         [(r["username"], r["application"], r["state"]) for r in held])
        self.decide(ticket)
        self.done(connection)
        self.assertNotIn(ticket, [r["ticket"] for r in self.ask("bob", "SHOW chaperone.sessions")])
        self.assertEqual({"dave"}, {r["username"] for r in self.ask("dave", "SHOW chaperone.sessions")})


@needs_guard
class Processes(Held):
    def guard_of_its_own(self, *options, configuration=USUAL) -> Target:
        return self.guarded_by(configuration, *options)

    def ended(self, target: Target):
        target.guard.process.wait(10)
        target.guard.process = None

    def test_a_shutdown_sends_who_waits_away_and_keeps_the_ticket(self):
        store = self.directory / "released.db"
        target = self.guard_of_its_own("--approval-store", store)
        connection = self.wire(target=target)
        ticket = self.hold(connection, UPDATE)
        # Nobody can come in any more to approve it.
        target.guard.process.send_signal(signal.SIGTERM)
        self.assertEqual(["57P01"], sqlstates(connection.until_closed()))
        self.ended(target)
        again = self.guard_of_its_own("--approval-store", store)
        self.assertEqual("pending", self.fields(ticket, target=again)["state"])
        self.decide(ticket, target=again)
        self.done(self.wire(target=again), UPDATE, "UPDATE 20")

    def test_a_shutdown_waits_for_who_waits_in_a_transaction(self):
        target = self.guard_of_its_own("--approval-store", self.directory / "drained.db")
        connection = self.wire(target=target)
        connection.ask("BEGIN")
        self.hold(connection, UPDATE)
        target.guard.process.send_signal(signal.SIGTERM)
        processes.wait_until(lambda: "shutting down" in target.guard.log_text(), 10, "the guard to shut down")
        self.assertTrue(connection.silent_for(0.3))
        self.assertIsNone(target.guard.process.poll())
        target.guard.process.send_signal(signal.SIGTERM)
        self.assertEqual(["57P01"], sqlstates(connection.until_closed()))
        self.ended(target)

    def test_a_guard_that_is_killed_leaves_its_tickets_usable(self):
        store = self.directory / "killed.db"
        target = self.guard_of_its_own("--approval-store", store)
        ticket = self.given_ticket(self.wire(target=target), "UPDATE later SET state = 'done'")
        self.decide(ticket, target=target)
        target.guard.process.kill()
        self.ended(target)
        again = self.guard_of_its_own("--approval-store", store)
        connection = self.wire(target=again)
        self.done(connection, "UPDATE later SET state = 'done'", "UPDATE 20")
        self.given_ticket(connection, "UPDATE later SET state = 'done'")  # once

    def test_a_store_that_others_can_read_or_change_is_told_of(self):
        store = self.directory / "loose.db"
        for mode, told in ((None, False), (0o640, True), (0o600, False)):
            if mode is not None:
                store.chmod(mode)
            target = self.guard_of_its_own("--approval-store", store)
            self.assertEqual(told, f"{store} can be read or changed by others" in target.guard.log_text())
            target.guard.stop()

    def test_what_one_guard_holds_is_approved_through_another(self):
        self.cluster.sql("CREATE ROLE ticket_keeper LOGIN PASSWORD 'not-for-logs'")
        self.cluster.sql("GRANT CREATE ON DATABASE postgres TO ticket_keeper")
        store = (f"postgresql://ticket_keeper:not-for-logs@{self.cluster.host}:{self.cluster.port}/postgres")
        one = self.guard_of_its_own("--approval-store", store, "--approval-replica", "one")
        two = self.guard_of_its_own("--approval-store", store, "--approval-replica", "two")
        connection = self.wire(target=one)
        ticket = self.hold(connection, UPDATE)
        self.assertEqual("one", self.fields(ticket, target=two)["replica"])
        self.decide(ticket, target=two)
        self.done(connection, tag="UPDATE 20")
        self.wait_for_state(ticket, "used", target=two)
        for target in (one, two):
            self.assertNotIn("not-for-logs", target.guard.log_text())
            self.assertNotIn("not-for-logs", str(self.ask("dave", "SHOW chaperone.version", target=target)))

    def test_a_store_that_can_not_be_opened_is_told_at_the_start(self):
        with self.assertRaisesRegex(RuntimeError, "pgchaperone: .*no-such-place"):
            Guard(self.cluster, "--approval-store", "/proc/no-such-place/tickets.db", configuration=USUAL)

    def test_a_shared_store_that_is_not_there_at_the_start_stops_only_what_is_to_be_held(self):
        store = f"host={self.cluster.host} port={self.cluster.port} user=postgres dbname=tickets"
        target = self.guard_of_its_own("--approval-store", store)
        connection = self.wire(target=target)
        self.done(connection, "SELECT 1", "SELECT 1")
        self.refused(connection, UPDATE, "58030", "pgchaperone: ")
        self.assertEqual(0, self.count("jobs", "state = 'done'"))
        self.sql("CREATE DATABASE tickets")

        def works():
            with contextlib.suppress(Refused):
                return self.ask("bob", "SHOW chaperone.pending", target=target) == []

        processes.wait_until(works, 20, "the guard to find its tickets' place")
        ticket = self.hold(connection, UPDATE)
        self.decide(ticket, target=target)
        self.done(connection, tag="UPDATE 20")

    def test_an_operator_reloads_and_reads_what_is_wrong(self):
        operators = USUAL.replace("approvers: [dba]", "approvers: [dba]\n  operators: [leads]")
        target = self.guard_of_its_own(configuration=operators)
        self.assert_may_not("42501", self.ask, "bob", "CALL chaperone.reload()", target=target)
        result = self.ask("erin", "CALL chaperone.reload()", target=target)[0]["result"]
        self.assertRegex(result, "^version 2 of the policy is in force, from .*pgchaperone.yaml$")
        file = target.guard.configuration_file
        file.write_text(operators.replace("rules:", "ruels:"))
        error = self.assert_may_not("F0000", self.ask, "erin", "CALL chaperone.reload()", target=target)
        self.assertIn("ruels", error.detail)
        self.assertEqual(2, self.ask("dave", "SHOW chaperone.version", target=target)[0]["policy_version"])
        # The rules that are in force go on.
        self.given_ticket(self.wire(target=target), "UPDATE later SET state = 'done'")


if __name__ == "__main__":
    main()
