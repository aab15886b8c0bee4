"""Logging in and TLS: who is let in by which method, over which combinations of TLS on the two sides.

The table of relayed SCRAM (DESIGN.md, "Identity and TLS") is pinned with psql's defaults, which bind the channel where
they can, and not only with clients that never heard of channel binding.
"""

import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import guard as guard_module
from support import wire
from support.certificates import Authority, Pair
from support.cluster import HBA
from support.e2e import Cluster, EndToEnd, Guard, Target, main, needs_guard
from support.processes import wait_until

METHODS = ("person_scram", "person_password", "person_md5", "app")
SSL_OF_SERVER_SIDE = "SELECT ssl, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
LOCAL_PASSWORDS = "local all person_scram scram-sha-256\nlocal all person_md5 md5\n"


class LoginAndTls(EndToEnd):
    @classmethod
    def setUpClass(cls):
        keys = tempfile.TemporaryDirectory(prefix="pgchaperone-test-keys-")
        cls.addClassCleanup(keys.cleanup)
        os.chmod(keys.name, 0o755)
        cls.keys = Path(keys.name)
        cls.authority, cls.foreign = Authority(keys.name), Authority(keys.name, "foreign")
        cls.pair = cls.authority.issue("server")
        cls.other_pair = cls.authority.issue("other")
        cls.misnamed = cls.authority.issue("misnamed", "elsewhere.example", "DNS:elsewhere.example")
        cls.client = cls.authority.issue("client", "person_certificate", "")
        cls.foreign_client = cls.foreign.issue("foreign_client", "person_certificate", "")
        cls.cluster_options = {"tls": cls.pair, "hba_extra": LOCAL_PASSWORDS}
        super().setUpClass()
        cls.clear_server = Cluster(hba=HBA.replace("hostssl all         person_certificate", "#"))
        cls.addClassCleanup(cls.clear_server.erase)

    def guarded_by(self, *options, upstream=None) -> Target:
        """A guard of its own for this test, with these options."""
        if guard_module.direct():
            self.skipTest("there is no guard in a direct run")
        self.own = Guard(upstream or self.cluster, *options)
        self.addCleanup(self.own.erase)
        return Target("guarded", self.own.host, self.own.port)

    def client_side(self, mode, pair=None, *more):
        pair = pair or self.pair
        return ("--client-tls", mode, "--client-tls-cert", pair.certificate, "--client-tls-key", pair.key, *more)

    def try_psql(self, target, user="app", password=None, sql="SELECT current_user", **environment):
        """psql with its defaults and what `environment` says: (status, what it printed, its errors)."""
        done = target.program("psql", "-XAtw", "-U", user, "-c", sql,
                              environment={"PGPASSWORD": password if password is not None else f"{user}-secret",
                                           **environment})
        return done.returncode, done.stdout.strip(), done.stderr

    def assert_in(self, outcome, expected=None):
        self.assertEqual(0, outcome[0], outcome[2])
        if expected is not None:
            self.assertEqual(expected, outcome[1])

    def assert_out(self, outcome, *texts):
        self.assertEqual(2, outcome[0], outcome)
        for text in texts:
            self.assertRegex(outcome[2], text)

    # --- every method, relayed ---------------------------------------------------------------------------

    def test_every_method_in_clear(self):
        for user in METHODS:
            with self.subTest(user):
                self.same_output(None, "-XAtw", "-U", user, "-c", "SELECT current_user", check=True,
                                 environment={"PGPASSWORD": f"{user}-secret", "PGSSLMODE": "disable"})

    def test_wrong_missing_and_empty_passwords_in_clear(self):
        for user in ("person_scram", "person_password", "person_md5", "person_rejected"):
            for password in ("wrong", "", "x" * 900):
                with self.subTest(user, password=password[:9]):
                    result = self.same_output(None, "-XAtw", "-U", user, "-c", "SELECT 1",
                                              environment={"PGPASSWORD": password, "PGSSLMODE": "disable"})
                    self.assertEqual(2, result["status"])

    def test_scram_with_required_binding_in_clear_fails_as_direct(self):
        self.same_output(None, "-XAtw", "-U", "person_scram", "-c", "SELECT 1",
                         environment={"PGPASSWORD": "person_scram-secret", "PGSSLMODE": "disable",
                                      "PGCHANNELBINDING": "require"})

    # --- the table of relayed SCRAM, with psql's defaults ------------------------------------------------

    def test_client_in_clear_and_server_over_tls(self):
        target = self.guarded_by("--upstream-tls", "require")
        for user in METHODS:
            with self.subTest(user):
                self.assert_in(self.try_psql(target, user), user)
        self.assert_out(self.try_psql(target, "person_scram", "wrong"), "password authentication failed")
        self.assert_in(self.try_psql(target, sql=SSL_OF_SERVER_SIDE), "t|")
        # A client that insists on binding the channel in clear is refused, by itself.
        self.assert_out(self.try_psql(target, "person_scram", PGCHANNELBINDING="require"), "channel binding")

    def test_tls_on_both_sides_with_the_servers_certificate(self):
        target = self.guarded_by(*self.client_side("require"), "--upstream-tls", "require")
        for user in METHODS:
            with self.subTest(user):
                self.assert_in(self.try_psql(target, user), user)
        for binding in ("disable", "prefer", "require"):
            with self.subTest(binding=binding):
                self.assert_in(self.try_psql(target, "person_scram", PGCHANNELBINDING=binding), "person_scram")
        self.assert_out(self.try_psql(target, "person_scram", "wrong"), "password authentication failed")
        self.assert_in(self.try_psql(target, "app", PGSSLMODE="verify-full", PGSSLROOTCERT=str(self.authority.certificate)))

    def test_tls_on_both_sides_with_another_certificate(self):
        target = self.guarded_by(*self.client_side("require", self.other_pair), "--upstream-tls", "require")
        # The refusal names the three ways out; a client that requires binding refuses by itself.
        self.assert_out(self.try_psql(target, "person_scram"), "password", "certificate", "channel_binding=disable")
        self.assert_out(self.try_psql(target, "person_scram", PGCHANNELBINDING="require"), "channel binding is required")
        self.assert_in(self.try_psql(target, "person_scram", PGCHANNELBINDING="disable"), "person_scram")
        for user in ("person_password", "person_md5", "app"):
            with self.subTest(user):
                self.assert_in(self.try_psql(target, user), user)

    def test_client_over_tls_and_server_in_clear(self):
        for server, options in ((self.cluster, ("--upstream-tls", "disable")),
                                (self.clear_server, ("--upstream-tls", "disable")),
                                (self.clear_server, ("--upstream-tls", "prefer"))):
            with self.subTest(options):
                target = self.guarded_by(*self.client_side("require"), *options, upstream=server)
                for user in METHODS:
                    self.assert_in(self.try_psql(target, user), user)
                self.assert_in(self.try_psql(target, sql="SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"), "f")

    def test_client_over_tls_and_server_on_a_unix_socket(self):
        class Upstream:
            host, port = self.cluster.socket_directory, self.cluster.port

        for mode in ("prefer", "disable"):
            with self.subTest(mode):
                target = self.guarded_by(*self.client_side("require"), "--upstream-tls", mode, upstream=Upstream)
                self.assert_in(self.try_psql(target, "person_scram"), "person_scram")
                self.assert_in(self.try_psql(target, "person_md5"), "person_md5")
                self.assert_out(self.try_psql(target, "person_scram", "wrong"), "password authentication failed")

    # --- password mode -----------------------------------------------------------------------------------

    def test_password_mode_over_tls(self):
        target = self.guarded_by(*self.client_side("require", self.other_pair), "--upstream-tls", "require",
                                 "--authentication", "password")
        for user in METHODS:
            with self.subTest(user):
                self.assert_in(self.try_psql(target, user), user)
        for user in ("person_scram", "person_md5", "person_password"):
            for password in ("wrong", "person_scram-secre", "x" * 900):
                with self.subTest(user, password=password[:20]):
                    self.assert_out(self.try_psql(target, user, password), "password authentication failed")
        self.assert_out(self.try_psql(target, "person_rejected"), "pg_hba.conf rejects")
        self.assert_out(self.try_psql(target, "app", PGDATABASE="nowhere"), 'database "nowhere" does not exist')
        self.assertNotIn("secret", self.own.log_text())
        with target.wire(user="person_scram", password_text="person_scram-secret", tls=wire.tls_client_context(),
                         application_name="pw") as connection:
            self.assertEqual("pw", connection.parameters["application_name"])
            self.assertEqual([("person_scram",)], connection.rows("SELECT current_user"))

    def test_password_mode_never_asks_in_clear(self):
        for mode in ("disable", "allow", "prefer"):
            with self.subTest(mode), self.assertRaisesRegex(RuntimeError, "client_tls"):
                self.guarded_by(*self.client_side(mode), "--upstream-tls", "require", "--authentication", "password")
        target = self.guarded_by(*self.client_side("require"), "--upstream-tls", "require", "--authentication", "password")
        self.assert_in(self.try_psql(target, "person_scram", PGSSLMODE="require"), "person_scram")
        with wire.Wire(target.address) as connection:
            connection.send(wire.startup({"user": "person_scram", "database": "postgres"}))
            frames = connection.until_closed()
        self.assertEqual("E", wire.tags(frames), frames)

    def test_passwords_of_every_alphabet(self):
        passwords = {"p_unicode": "p\u00e4ss w\u00f6rd \u2167\u00ad", "p_quote": "a'b\"c\\,=n", "p_long": "z" * 900,
                     "p_invisible": "a\u200bb\u00a0c"}
        with self.cluster.connect() as connection:
            for user, password in passwords.items():
                connection.execute(f"CREATE ROLE {user} LOGIN IN ROLE person_scram PASSWORD " +
                                   "'" + password.replace("'", "''") + "'")
        hba = self.cluster.data / "pg_hba.conf"
        lines = "".join(f"host all {user} 127.0.0.1/32 scram-sha-256\n" for user in passwords)
        hba.write_text(lines + hba.read_text())
        # Sessions that begin from then on know the new file.
        loaded = "SELECT pg_conf_load_time()"
        before = self.cluster.sql(loaded)
        self.cluster.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.cluster.sql(loaded) != before, 5, "pg_hba.conf")
        for mode in ((), ("--authentication", "password")):
            target = self.guarded_by(*self.client_side("require"), "--upstream-tls", "require", *mode)
            for user, password in passwords.items():
                with self.subTest(user, mode=mode):
                    self.assert_in(self.try_psql(target, user, password), user)
                    self.assert_out(self.try_psql(target, user, password + "x"), "password authentication failed")

    # --- the client's side -------------------------------------------------------------------------------

    def test_client_side_modes(self):
        over_tls, in_clear = {"PGSSLMODE": "require"}, {"PGSSLMODE": "disable"}
        for mode, tls_works, clear_works in (("disable", False, True), ("allow", True, True), ("prefer", True, True),
                                             ("require", True, False)):
            with self.subTest(mode):
                target = self.guarded_by(*(self.client_side(mode) if mode != "disable" else ("--client-tls", mode)))
                for environment, works in ((over_tls, tls_works), (in_clear, clear_works)):
                    outcome = self.try_psql(target, **environment)
                    self.assert_in(outcome, "app") if works else self.assert_out(outcome)
                    if not works and environment is in_clear:
                        self.assertIn("FATAL", outcome[2])
                self.assert_in(self.try_psql(target), "app")  # psql's default takes either

    def test_client_certificates(self):
        for mode in ("verify-ca", "verify-full"):
            target = self.guarded_by(*self.client_side(mode), "--client-tls-ca", self.authority.certificate)

            def with_pair(pair, user="person_certificate"):
                return self.try_psql(target, user, PGSSLMODE="require", PGSSLCERT=str(pair.certificate),
                                     PGSSLKEY=str(pair.key))

            with self.subTest(mode):
                self.assert_out(self.try_psql(target, PGSSLMODE="disable"), "FATAL")
                self.assert_out(self.try_psql(target, PGSSLMODE="require"))
                self.assert_out(with_pair(self.foreign_client, "app"))
                if mode == "verify-ca":
                    self.assert_in(with_pair(self.client, "app"), "app")
            self.assertTrue(self.own.alive())

    def test_direct_tls_needs_alpn(self):
        target = self.guarded_by(*self.client_side("allow"))
        context = wire.tls_client_context(ca=self.authority.certificate, alpn=["postgresql"])
        with target.wire(user="app", tls=context, direct_tls=True) as connection:
            self.assertEqual("postgresql", connection.socket.selected_alpn_protocol())
            self.assertEqual([("app",)], connection.rows("SELECT current_user"))
        with target.wire(user="app", tls=context) as connection:  # allowed with SSLRequest too
            self.assertEqual("postgresql", connection.socket.selected_alpn_protocol())
        with target.wire(user="app", tls=wire.tls_client_context()) as connection:  # and not needed there
            self.assertEqual([("app",)], connection.rows("SELECT current_user"))
        for alpn, direct in (((), True), (("http/1.1",), True), (("http/1.1",), False)):
            with self.subTest(alpn=alpn, direct=direct):
                with self.assertRaises((ssl.SSLError, wire.ClosedByPeer, ConnectionError)):
                    target.wire(user="app", tls=wire.tls_client_context(alpn=alpn), direct_tls=direct)
        self.assert_in(self.try_psql(target), "app")

    def test_direct_tls_where_tls_is_disabled(self):
        target = self.guarded_by("--client-tls", "disable")
        with self.assertRaises((ssl.SSLError, wire.ClosedByPeer, ConnectionError)):
            target.wire(user="app", tls=wire.tls_client_context(alpn=["postgresql"]), direct_tls=True)
        self.assert_in(self.try_psql(target), "app")

    def test_encryption_requests_in_every_order(self):
        target = self.guarded_by(*self.client_side("allow"))
        start = wire.startup({"user": "app", "database": "postgres"})
        for requests, works in (([wire.GSSENC_REQUEST], True), ([wire.GSSENC_REQUEST] * 2, False)):
            with self.subTest(requests), wire.Wire(target.address) as connection:
                for request in requests[:1]:
                    connection.send(request)
                    self.assertEqual(b"N", connection.exactly(1))
                connection.send(b"".join(requests[1:]) + start)
                frames = connection.until("ZE") if works else connection.until_closed()
                self.assertEqual(works, "Z" in wire.tags(frames))
        with wire.Wire(target.address) as connection:  # first GSS, refused, then TLS
            connection.send(wire.GSSENC_REQUEST)
            self.assertEqual(b"N", connection.exactly(1))
            connection.start_tls(wire.tls_client_context())
            connection.send(start)
            self.assertIn("Z", wire.tags(connection.until_ready()))
        with wire.Wire(target.address) as connection:  # a second SSLRequest inside TLS
            connection.start_tls(wire.tls_client_context())
            connection.send(wire.SSL_REQUEST + start)
            self.assertNotIn("Z", wire.tags(self.rest(connection)))

    def test_bytes_stuffed_behind_an_encryption_request_are_an_attack(self):
        # CVE-2021-23214: what came in clear must never be read as if it had come over TLS.
        target = self.guarded_by(*self.client_side("allow"))
        stuffed = wire.startup({"user": "app", "database": "postgres", "application_name": "stuffed"})
        with wire.Wire(target.address) as connection:
            connection.send(wire.SSL_REQUEST + stuffed)
            try:
                self.assertEqual(b"S", connection.exactly(1))
                connection.socket = wire.tls_client_context().wrap_socket(connection.socket)
                connection.send(wire.startup({"user": "app", "database": "postgres"}))
                answered = connection.until_ready()
            except (wire.ClosedByPeer, ssl.SSLError, OSError, AssertionError):
                answered = []
            self.assertEqual([], answered)
        with wire.Wire(target.address) as connection:
            connection.send(wire.GSSENC_REQUEST + stuffed)
            self.assertNotIn(b"Z", b"".join(f.tag.encode() for f in self.rest_after(connection, 1)))
        self.assert_in(self.try_psql(target), "app")

    @staticmethod
    def rest(connection):
        try:
            return connection.until_closed()
        except (wire.ClosedByPeer, ssl.SSLError, OSError, ValueError):
            return []

    def rest_after(self, connection, count):
        try:
            connection.exactly(count)
        except (wire.ClosedByPeer, OSError):
            return []
        return self.rest(connection)

    # --- the server's side -------------------------------------------------------------------------------

    def test_server_side_modes(self):
        ca, foreign_ca = self.authority.certificate, self.foreign.certificate
        for server, options, expected in (
                (self.cluster, ("disable",), "f|"), (self.cluster, ("prefer",), "t|"), (self.cluster, ("require",), "t|"),
                (self.clear_server, ("prefer",), "f|"), (self.clear_server, ("require",), None),
                (self.clear_server, ("verify-ca", ca), None), (self.cluster, ("verify-ca", ca), "t|"),
                (self.cluster, ("verify-full", ca), "t|"), (self.cluster, ("verify-ca", foreign_ca), None),
                (self.cluster, ("verify-full", foreign_ca), None)):
            with self.subTest(options=options, server="tls" if server is self.cluster else "clear"):
                options = ("--upstream-tls", options[0], *(("--upstream-tls-ca", options[1]) if options[1:] else ()))
                target = self.guarded_by(*options, upstream=server)
                outcome = self.try_psql(target, sql=SSL_OF_SERVER_SIDE)
                if expected:
                    self.assert_in(outcome, expected)
                else:
                    self.assert_out(outcome, "FATAL", str(server.port))

    def test_a_server_with_another_name_is_refused_by_verify_full_alone(self):
        server = Cluster(tls=self.misnamed)
        self.addCleanup(server.erase)
        for mode, works in (("verify-full", False), ("verify-ca", True)):
            with self.subTest(mode):
                target = self.guarded_by("--upstream-tls", mode, "--upstream-tls-ca", self.authority.certificate,
                                         upstream=server)
                outcome = self.try_psql(target)
                self.assert_in(outcome) if works else self.assert_out(outcome, "FATAL", str(server.port))

    def test_a_client_certificate_of_the_guard_itself(self):
        target = self.guarded_by("--upstream-tls", "require", "--upstream-tls-cert", self.client.certificate,
                                 "--upstream-tls-key", self.client.key)
        self.assert_in(self.try_psql(target, "person_certificate", sql=SSL_OF_SERVER_SIDE), "t|/CN=person_certificate")
        self.assert_out(self.try_psql(self.guarded_by("--upstream-tls", "require"), "person_certificate"), "certificate")

    # --- reload ------------------------------------------------------------------------------------------

    def test_certificates_are_loaded_again_without_dropping_sessions(self):
        live = Pair(self.keys / "live.crt", self.keys / "live.key", self.authority.certificate)

        def install(pair):
            for source, destination in ((pair.key, live.key), (pair.certificate, live.certificate)):
                shutil.copy(source, f"{destination}.new")
                os.replace(f"{destination}.new", destination)

        install(self.pair)
        target = self.guarded_by(*self.client_side("require", live))
        certificates = {name: ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())
                        for name, pair in (("first", self.pair), ("second", self.other_pair))}

        def shown():
            with target.wire(user="app", tls=wire.tls_client_context()) as connection:
                return connection.socket.getpeercert(binary_form=True)

        with target.wire(user="app", tls=wire.tls_client_context()) as session:
            session.ask("BEGIN")
            self.assertEqual(certificates["first"], shown())
            install(self.other_pair)
            self.assertEqual(certificates["first"], shown(), "before the signal")
            self.own.hang_up()
            wait_until(lambda: shown() == certificates["second"], 5, "the new certificate")
            self.assertEqual("TDCZ", wire.tags(session.ask("SELECT 1")))
            live.certificate.write_text("broken")
            self.own.hang_up()
            stays = "live.crt.*; the certificates loaded before stay in use"
            wait_until(lambda: re.search(stays, self.own.log_text()), 5, "the broken file to be told")
            self.assertEqual(certificates["second"], shown(), "a broken file leaves the old certificate in force")
            self.assertEqual("CZ", wire.tags(session.ask("COMMIT")))

    # --- at start ----------------------------------------------------------------------------------------

    @needs_guard
    def test_unusable_certificates_are_refused_at_start(self):
        missing, foreign_key = self.keys / "missing.pem", self.foreign.key
        broken = self.keys / "broken.pem"
        broken.write_text("-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n")
        cases = (("missing.pem", self.client_side("require", Pair(missing, self.pair.key, None))),
                 ("missing.pem", self.client_side("require", Pair(self.pair.certificate, missing, None))),
                 ("broken.pem", self.client_side("require", Pair(broken, self.pair.key, None))),
                 ("foreign.key", self.client_side("require", Pair(self.pair.certificate, foreign_key, None))),
                 ("missing.pem", ("--upstream-tls", "verify-ca", "--upstream-tls-ca", missing)),
                 ("upstream", ("--upstream-tls", "verify-full")),
                 ("client", ("--client-tls", "require")),
                 ("nonsense", ("--client-tls", "nonsense")))
        for text, options in cases:
            with self.subTest(options):
                guard = Guard(self.cluster, *options, start=False)
                self.addCleanup(guard.erase)
                try:
                    done = subprocess.run(list(map(str, guard.command())), capture_output=True, text=True, timeout=30)
                except subprocess.TimeoutExpired:
                    self.fail(f"the guard starts with {options}")
                self.assertEqual(2, done.returncode, done.stderr)
                self.assertIn(text, done.stderr + done.stdout)


if __name__ == "__main__":
    main()
