"""Limits on sessions: who is too many is told so before any password is asked, in every kind of encryption; nobody's
place is lost, whatever becomes of their login; and a cancel request is never too many."""

import os
import random
import socket
import struct
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import wire
from support.certificates import Authority
from support.e2e import EndToEnd, Guard, Target, main, needs_guard
from support.processes import wait_until

RULES = """policy:
  default: allow
  unparsable: allow
  operators: [postgres]
  approvers: [person_approver]
  rules: []
"""


def limits(**settings) -> str:
    return "limits:\n" + "".join(f"  {name}: {value}\n" for name, value in settings.items()) + RULES


def refusal(target, user="app", tls=None) -> dict:
    """What the server says first to somebody who comes now."""
    with wire.Wire(target.address) as connection:
        if tls:
            connection.start_tls(tls)
        connection.send(wire.startup({"user": user, "database": "postgres"}))
        frames = connection.until_closed()
    if [f.tag for f in frames] != ["E"]:
        raise AssertionError(f"a refusal was expected, not {frames}")
    return frames[0].fields()


@needs_guard
class Limits(EndToEnd):
    @classmethod
    def setUpClass(cls):
        keys = tempfile.TemporaryDirectory(prefix="pgchaperone-test-keys-")
        cls.addClassCleanup(keys.cleanup)
        os.chmod(keys.name, 0o755)
        pair = Authority(keys.name).issue("server")
        cls.guard_options = ("--client-tls", "prefer", "--client-tls-cert", pair.certificate, "--client-tls-key",
                             pair.key)
        super().setUpClass()

    def guarded_by(self, *options, **settings) -> Target:
        self.own = Guard(self.cluster, *self.guard_options, *options, configuration=limits(**settings))
        self.addCleanup(self.own.erase)
        return Target("guarded", self.own.host, self.own.port)

    def held(self, target, count, user="app", **options):
        connections = [target.wire(user=user, **options) for _ in range(count)]
        for connection in connections:
            self.addCleanup(connection.close)
        return connections

    def assert_free(self, target, count, user="app"):
        """That many can come, and not one more."""
        held = [target.wire(user=user) for _ in range(count)]
        try:
            self.assertEqual("53300", refusal(target, user)["C"])
        finally:
            for connection in held:
                connection.close()

    def test_in_all(self):
        target = self.guarded_by(connections=3, reserved=1)
        first, second = self.held(target, 2)
        told = refusal(target)
        self.assertEqual(("FATAL", "53300", "pgchaperone: the remaining connections are reserved for operators"),
                         (told["S"], told["C"], told["M"]))
        self.assertIn("limits.reserved", told["D"])
        self.held(target, 1, "postgres")
        told = refusal(target, "postgres")
        self.assertEqual(("53300", "pgchaperone: too many connections"), (told["C"], told["M"]))
        self.assertIn("limits.connections", told["H"])
        first.send(wire.terminate())
        first.until_closed()
        self.assertEqual("53300", refusal(target)["C"], "what is free now is what is reserved")
        second.send(wire.terminate())
        second.until_closed()
        # At once: the place was given back before the connection was closed.
        last, = self.held(target, 1)
        stats = dict(last.rows("SHOW chaperone.stats"))
        self.assertEqual(("2", "3"), (stats["connections_taken"], stats["connections_refused"]))

    def test_of_a_role_and_from_an_address(self):
        target = self.guarded_by(connections_per_user=2, connections_per_address=3)
        self.held(target, 2)
        told = refusal(target)
        self.assertEqual('pgchaperone: too many connections for role "app"', told["M"])
        self.assertIn("limits.connections_per_user", told["H"])
        self.held(target, 1, "postgres")
        told = refusal(target, "person_approver")
        self.assertEqual("pgchaperone: too many connections from 127.0.0.1", told["M"])
        self.assertIn("limits.connections_per_address", told["H"])

    def test_psql_shows_it_in_clear_and_over_tls(self):
        target = self.guarded_by(connections=1)
        self.held(target, 1)
        for mode in ("disable", "prefer", "require"):
            with self.subTest(mode):
                done = target.program("psql", "-XAtw", "-U", "app", "-c", "SELECT 1", environment={"PGSSLMODE": mode})
                self.assertEqual(2, done.returncode, done.stderr)
                self.assertIn("FATAL:  pgchaperone: too many connections\n", done.stderr)
                self.assertIn("DETAIL:  limits.connections allows 1 session.\n", done.stderr)
                self.assertIn("HINT:  Close sessions that nobody needs", done.stderr)

    def test_no_password_is_asked_of_who_is_too_many(self):
        target = self.guarded_by(connections_per_user=1)
        with target.wire(user="person_password", password_text="person_password-secret"):
            self.assertEqual("53300", refusal(target, "person_password")["C"])
            self.assertEqual("53300", refusal(target, "person_password", tls=wire.tls_client_context())["C"])

    def test_a_cancel_request_is_never_too_many(self):
        target = self.guarded_by(connections=1, connections_per_address=1)
        only, = self.held(target, 1)
        only.send(wire.query("SELECT pg_sleep(30)"))
        self.cluster.wait_for_backends(1, "usename = 'app' AND wait_event = 'PgSleep'")
        with wire.Wire(target.address) as cancels:
            cancels.send(wire.cancel_request(only.pid, only.key))
            self.assertEqual([], cancels.until_closed())
        self.assertEqual(["57014"], wire.sqlstates(only.until_ready()))
        self.assertEqual("53300", refusal(target)["C"])

    def test_logins_that_die_at_any_stage_give_their_places_back(self):
        target = self.guarded_by("--threads", "3", connections=6, connections_per_user=5, connections_per_address=6)
        start = wire.startup({"user": "app", "database": "postgres"})
        tls = wire.tls_client_context()

        def die(chance: random.Random) -> None:
            stage = chance.randrange(9)
            with wire.Wire(target.address) as c:
                try:
                    if stage == 0:
                        pass  # said nothing
                    elif stage == 1:
                        c.send(start[:chance.randrange(1, len(start))])
                    elif stage == 2:
                        c.send(wire.SSL_REQUEST)
                    elif stage == 3:
                        c.start_tls(tls)
                    elif stage == 4:
                        c.start_tls(tls)
                        c.send(start)
                    elif stage == 5:
                        c.send(start)
                    elif stage == 6:  # asked for a password
                        c.send(wire.startup({"user": "person_scram", "database": "postgres"}))
                        c.frame()
                    elif stage == 7:  # refused by the server
                        c.send(wire.startup({"user": "app", "database": "nowhere"}))
                        c.until_closed()
                    else:  # in the middle of its work
                        c.send(start)
                        c.until("ZE")
                        c.send(wire.query("SELECT pg_sleep(0.01)"))
                    if chance.randrange(2):
                        c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                except (OSError, wire.ClosedByPeer):
                    pass

        def many(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(50):
                die(chance)

        threads = [threading.Thread(target=many, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertTrue(self.own.alive())

        def none_but_this():
            try:
                with target.wire() as connection:
                    return dict(connection.rows("SHOW chaperone.stats"))["connections_taken"] == "1"
            except PermissionError:
                return False

        wait_until(none_but_this, 10, "every place to be given back")
        self.assert_free(target, 5)

    def test_a_reload_changes_them(self):
        target = self.guarded_by(connections=1)
        kept, = self.held(target, 1)
        self.own.configuration_file.write_text(limits(connections=2))
        self.own.hang_up()
        wait_until(lambda: "the policy is in force" in self.own.log_text(), 5, "the reload")
        self.held(target, 1)
        self.assertIn("allows 2 sessions", refusal(target)["D"])
        self.assertEqual([("1",)], kept.rows("SELECT 1"))


if __name__ == "__main__":
    main()
