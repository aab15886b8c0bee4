"""Sessions that do nothing are ended as PostgreSQL's own time-outs would, and no others; and everybody who logs in is
told which environment this is, by every kind of client."""

import subprocess
import sys
import time
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import wire
from support.e2e import ALLOW_EVERYTHING, EndToEnd, Guard, Target, main, needs_guard
from support.processes import wait_until
from support.wire import query, run, sync

ENVIRONMENT = "PRODUCTION \u2622"


@needs_guard
class Idle(EndToEnd):
    guard_options = ("--idle-timeout", "600ms", "--idle-in-transaction-timeout", "400ms")

    def test_outside_of_a_transaction(self):
        began = time.monotonic()
        with self.guarded.wire() as connection:
            frames = connection.until_closed()
        self.assertEqual(["57P05"], wire.sqlstates(frames))
        fields = frames[0].fields()
        self.assertEqual(("FATAL", "pgchaperone: terminating connection due to idle-session timeout",
                          "idle_timeout is 600ms."), (fields["S"], fields["M"], fields["D"]))
        self.assertGreater(time.monotonic() - began, 0.5)

    def test_inside_a_transaction_the_server_rolls_back_at_once(self):
        for text in ("BEGIN; INSERT INTO scratch VALUES (4711, 'idle')", "BEGIN; SELECT 1/0"):
            with self.subTest(text), self.guarded.wire(application_name="idler") as connection:
                connection.ask(text)
                frames = connection.until_closed()
                self.assertEqual(["25P03"], wire.sqlstates(frames))
                self.cluster.wait_for_backends(0, "application_name = 'idler'")
        self.assertEqual([(0,)], self.cluster.sql("SELECT count(*) FROM scratch WHERE id = 4711"))
        self.assertNotIn("unexpected EOF", self.cluster.log.read_text(errors="replace"))

    def test_who_works_is_never_idle(self):
        with self.guarded.wire() as connection:
            for _ in range(4):
                connection.ask("SELECT pg_sleep(0.35)")
            connection.ask("SELECT pg_sleep(1)")
            connection.ask("BEGIN")
            for _ in range(4):
                connection.ask("SELECT pg_sleep(0.25)")
            connection.ask("SELECT pg_sleep(1)")
            connection.ask("COMMIT")
            connection.send(run("SELECT pg_sleep(1)") + sync())
            self.assertEqual("12TDCZ", wire.tags(connection.until_ready()))

    def test_a_copy_and_a_pipeline_wait_for_their_client(self):
        with self.guarded.wire() as connection:
            connection.send(query("COPY scratch FROM STDIN"))
            connection.until("G")
            time.sleep(1)
            connection.send(wire.copy_done())
            self.assertEqual("CZ", wire.tags(connection.until_ready()))
            connection.send(run("SELECT 1") + wire.flush())
            connection.until("C")
            time.sleep(1)
            connection.send(sync())
            connection.until_ready()

    def test_notifications_keep_nobody_alive(self):
        began = time.monotonic()
        with self.guarded.wire() as connection, self.cluster.connect() as other:
            connection.ask("LISTEN channel")
            tags = ""
            while "E" not in tags:
                other.execute("NOTIFY channel")
                frame = connection.frame()
                tags += frame.tag
                time.sleep(0.05)
                self.assertLess(time.monotonic() - began, 8, "it is kept alive by what it is told")
        self.assertTrue(tags.startswith("AA"), tags)
        self.assertEqual("57P05", frame.fields()["C"])

    def test_a_reload_sets_and_clears_them(self):
        own = Guard(self.cluster, configuration=ALLOW_EVERYTHING)
        self.addCleanup(own.erase)
        target = Target("guarded", own.host, own.port)
        with target.wire() as connection:
            self.assertTrue(connection.silent_for(0.7))
            own.configuration_file.write_text("idle_timeout: 300ms\n" + ALLOW_EVERYTHING)
            own.hang_up()
            self.assertEqual(["57P05"], wire.sqlstates(connection.until_closed()))
        own.configuration_file.write_text(ALLOW_EVERYTHING)
        own.hang_up()
        wait_until(lambda: own.log_text().count("the policy is in force") == 2, 5, "the second reload")
        with target.wire() as connection:
            self.assertTrue(connection.silent_for(0.7))


@needs_guard
class Environment(EndToEnd):
    guard_options = ("--environment", ENVIRONMENT)

    def test_psql_shows_it_before_anything_else(self):
        done = self.guarded.psql("SELECT 1", "-At")
        self.assertEqual((0, "1\n", f"NOTICE:  pgchaperone: environment: {ENVIRONMENT}\n"),
                         (done.returncode, done.stdout, done.stderr))

    def test_it_comes_right_before_the_first_prompt(self):
        with self.guarded.wire() as connection:
            tags = wire.tags(connection.greeting)
            self.assertTrue(tags.endswith("KNZ"), tags)
            notice = connection.greeting[-2].fields()
            self.assertEqual(("NOTICE", "NOTICE", "00000"), (notice["S"], notice["V"], notice["C"]))
            self.assertEqual("TDCZ", wire.tags(connection.ask("SELECT 1")))
            self.assertEqual(ENVIRONMENT, dict(zip(
                [c.decode() for c in self.names(connection.ask("SHOW chaperone.version"))],
                connection.rows("SHOW chaperone.version")[0]))["environment"])
        with self.guarded.wire(client_encoding="LATIN1") as connection:
            self.assertEqual("pgchaperone: environment: PRODUCTION ?",
                             next(f for f in connection.greeting if f.tag == "N").fields()["M"])

    @staticmethod
    def names(frames):
        body, names = next(f.body for f in frames if f.tag == "T")[2:], []
        while body:
            name, _, rest = body.partition(b"\0")
            names.append(name)
            body = rest[18:]
        return names

    def test_psycopg_goes_on(self):
        with psycopg.connect(self.guarded.dsn()) as connection:
            self.assertEqual((1,), connection.execute("SELECT 1").fetchone())

    def test_replication_is_not_told(self):
        for replication in ("true", "database"):
            with self.guarded.wire(replication=replication) as connection:
                self.assertNotIn("N", wire.tags(connection.greeting))

    def run_driver(self, *command, **environment):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=self.directory,
                              env=self.guarded.environment(**environment))
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        return done.stdout

    def test_node_postgres_hands_it_on(self):
        import test_driver_node as node
        if node.REASON:
            self.skipTest(node.REASON)
        script = self.directory / "notice.js"
        script.write_text("const { Client } = require('pg'); const client = new Client();"
                          "client.on('notice', (n) => console.log(n.message));"
                          "client.connect().then(() => client.query('SELECT 1 AS one'))"
                          ".then((r) => { console.log(r.rows[0].one); return client.end() })")
        out = self.run_driver(node.NODE, str(script), NODE_PATH=node.node_path())
        self.assertEqual(f"pgchaperone: environment: {ENVIRONMENT}\n1\n", out)

    def test_pgjdbc_hands_it_on(self):
        import test_driver_jdbc as jdbc
        if jdbc.REASON:
            self.skipTest(jdbc.REASON)
        source = self.directory / "Notice.java"
        source.write_text("""import java.sql.*;
class Notice {
    public static void main(String[] a) throws Exception {
        String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/postgres";
        try (Connection c = DriverManager.getConnection(url, "postgres", "")) {
            System.out.println(c.getWarnings().getMessage().startsWith("pgchaperone: environment: PRODUCTION"));
            ResultSet rows = c.createStatement().executeQuery("SELECT 1");
            rows.next();
            System.out.println(rows.getInt(1));
        }
    }
}
""")
        out = self.run_driver(jdbc.JAVA, "-XX:TieredStopAtLevel=1", "-cp", str(jdbc.DRIVER), str(source))
        self.assertEqual("true\n1\n", out)


if __name__ == "__main__":
    main()
