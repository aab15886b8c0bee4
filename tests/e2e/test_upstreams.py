"""Several servers behind one guard: who comes to which by listener or database name, that each is judged by its own
policy, and that nothing of one is anybody's business at the other: tickets, approvers, sessions, limits, figures."""

import sys
import threading
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import processes, wire
from support.e2e import Cluster, EndToEnd, Guard, Target, main, needs_guard
from support.page import HBA, Api
from support.watch import Watcher, documented_figures
from support.wire import query

SERVERS_SQL = """
CREATE ROLE clerk LOGIN PASSWORD 'clerk';
CREATE ROLE dba NOLOGIN;
CREATE ROLE bob LOGIN PASSWORD 'bob' IN ROLE dba;
CREATE TABLE bills (id int);
INSERT INTO bills SELECT generate_series(1, 5);
GRANT ALL ON bills TO clerk;
"""

CONFIGURATION = """\
environment: STAGING
databases: [ postgres, shared, "stage_*" ]
metrics: { listen: "127.0.0.1:{metrics}" }
web: { listen: "127.0.0.1:{web}", database: people }
approval: { store: tickets.db }
policy:
  default: allow
  unparsable: allow
  approvers: [ dba ]
  operators: [ bob ]
  rules:
    - { name: ask-here, match: { command: DELETE }, action: { hold: { wait: 60s, evidence: none, approvers: [ dba ] } } }
upstreams:
  - name: billing
    databases: billing
    upstream: 127.0.0.1:{other}
    environment: PRODUCTION
    policy:
      default: allow
      unparsable: allow
      approvers: [ dba ]
      operators: [ bob ]
      rules:
        - { name: no-truncate, match: { command: TRUNCATE* }, action: block }
        - { name: ask-there, match: { command: DELETE }, audit: statement,
            action: { hold: { wait: 60s, evidence: none, approvers: [ dba ] } } }
        - { name: told, match: { command: INSERT }, action: allow, audit: statement }
  - name: agents
    listen: 127.0.0.1:{agents}
    upstream: 127.0.0.1:{other}
    policy:
      default: block
      rules:
        - { name: reads, match: { class: READ }, action: allow }
        - { name: settings, match: { class: MISC }, action: allow }
"""


def fatal(address, **parameters) -> dict:
    with wire.Wire(address) as connection:
        connection.send(wire.startup(parameters))
        frames = connection.until_closed()
    assert [f.tag for f in frames] == ["E"], frames
    return frames[0].fields()


@needs_guard
class Upstreams(EndToEnd):
    cluster_options = {"hba_extra": HBA}

    @classmethod
    def setUpClass(cls):
        cls.other = Cluster(hba_extra=HBA)
        cls.addClassCleanup(cls.other.erase)
        cls.ports = {name: processes.free_port() for name in ("metrics", "web", "agents")}
        cls.ports["other"] = cls.other.port
        cls.configuration = cls.text()
        super().setUpClass()
        for cluster in (cls.cluster, cls.other):
            cluster.sql("CREATE DATABASE billing")
            cluster.sql("CREATE DATABASE people")
            cluster.sql(SERVERS_SQL)
            cluster.sql(SERVERS_SQL[SERVERS_SQL.index("CREATE TABLE"):], dbname="billing")
        cls.cluster.sql("CREATE DATABASE stage_two")
        cls.agents = Target("agents", "127.0.0.1", cls.ports["agents"])
        cls.watcher = Watcher(cls.ports["metrics"])

    @classmethod
    def text(cls) -> str:
        text = CONFIGURATION
        for name, port in cls.ports.items():
            text = text.replace("{" + name + "}", str(port))
        return text

    def connect(self, target=None, **options) -> psycopg.Connection:
        connection = psycopg.connect((target or self.guarded).dsn(**options), autocommit=True)
        self.addCleanup(connection.close)
        return connection

    @staticmethod
    def server_port(connection) -> int:
        return int(connection.execute("SHOW port").fetchone()[0])

    def held(self, statement="DELETE FROM bills", **options):
        """A session whose statement waits, and its ticket."""
        notices = []
        connection = self.connect(user="clerk", **options)
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        outcome = []

        def run():
            try:
                outcome.append(connection.execute(statement).statusmessage)
            except psycopg.Error as error:
                outcome.append(str(error))

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join, 20)
        processes.wait_until(lambda: any("ticket" in n for n in notices), 20, "the ticket's notice")
        (notice,) = [n for n in notices if "ticket" in n]
        return notice.split("ticket ")[1].split(")")[0].split(" ")[0].rstrip(".,:;"), thread, outcome

    # --- who comes where

    def test_by_database_name_and_by_listener(self):
        here, there = self.cluster.port, self.other.port
        self.assertNotEqual(here, there)
        for options, target, port in (({"dbname": "postgres"}, self.guarded, here),
                                      ({"dbname": "stage_two"}, self.guarded, here),
                                      ({"dbname": "billing"}, self.guarded, there),
                                      ({"dbname": "postgres"}, self.agents, there),
                                      ({"dbname": "billing"}, self.agents, there)):
            with self.subTest(target=target.name, **options):
                self.assertEqual(port, self.server_port(self.connect(target, **options)))

    def test_a_database_that_nobody_has_is_told_so_and_no_server_hears_of_it(self):
        before = self.cluster.log.read_text(errors="replace") + self.other.log.read_text(errors="replace")
        told = fatal(self.guarded.address, user="clerk", database="nowhere")
        self.assertEqual(("FATAL", "3D000", 'pgchaperone: database "nowhere" is not served here'),
                         (told["S"], told["C"], told["M"]))
        # Without a database the user's name is one.
        self.assertEqual('pgchaperone: database "clerk" is not served here',
                         fatal(self.guarded.address, user="clerk")["M"])
        after = self.cluster.log.read_text(errors="replace") + self.other.log.read_text(errors="replace")
        self.assertEqual(before, after)

    def test_each_says_which_environment_it_is(self):
        for database, expected in (("postgres", "STAGING"), ("billing", "PRODUCTION")):
            with self.guarded.wire(user="clerk", database=database) as connection:
                notices = [f.fields()["M"] for f in connection.greeting if f.tag == "N"]
            self.assertEqual([f"pgchaperone: environment: {expected}"], notices)

    def test_each_is_judged_by_its_own_policy(self):
        self.connect(dbname="postgres").execute("CREATE TABLE emptied (id int); TRUNCATE emptied; DROP TABLE emptied")
        billing = self.connect(dbname="billing")
        with self.assertRaises(psycopg.Error) as refused:
            billing.execute("TRUNCATE bills")
        self.assertIn("no-truncate", str(refused.exception.diag.message_detail) + str(refused.exception))
        agents = self.connect(self.agents, dbname="billing")
        self.assertEqual((5,), agents.execute("SELECT count(*) FROM bills").fetchone())
        with self.assertRaises(psycopg.Error):
            agents.execute("INSERT INTO bills VALUES (9)")
        # The same text, judged and remembered at one server, is judged anew at the other.
        for _ in range(3):
            self.connect(dbname="stage_two").execute("CREATE TABLE IF NOT EXISTS bills (id int); TRUNCATE bills")
            with self.assertRaises(psycopg.Error):
                billing.execute("CREATE TABLE IF NOT EXISTS bills (id int); TRUNCATE bills")

    # --- tickets

    def test_tickets_of_one_server_are_nobodys_at_the_other(self):
        ticket, thread, outcome = self.held(dbname="billing")
        staging = self.connect(user="bob", dbname="postgres")
        billing = self.connect(user="bob", dbname="billing")
        # A role of the same name and membership, and so on: it is somebody else.
        self.assertEqual([], staging.execute("SHOW chaperone.pending").fetchall())
        for word in ("approve", "deny", "withdraw"):
            with self.assertRaises(psycopg.errors.UndefinedObject):
                staging.execute(f"CALL chaperone.{word}('{ticket}')")
        with self.assertRaises(psycopg.errors.UndefinedObject):
            staging.execute(f"SHOW chaperone.ticket_{ticket.lower()}")
        self.assertEqual(1, len(billing.execute("SHOW chaperone.pending").fetchall()))
        fields = dict(billing.execute(f"SHOW chaperone.ticket_{ticket.lower()}").fetchall())
        self.assertEqual(("billing", "billing"), (fields["upstream"], fields["database"]))
        billing.execute(f"CALL chaperone.approve('{ticket}')")
        thread.join(20)
        self.assertEqual(["DELETE 5"], outcome)
        self.assertEqual([(0,)], self.other.sql("SELECT count(*) FROM bills", dbname="billing"))
        self.other.sql("INSERT INTO bills SELECT generate_series(1, 5)", dbname="billing")

    def test_an_approval_for_one_server_runs_nothing_at_the_other(self):
        """The same person, database, text and settings; the ticket lies approved."""
        text = self.configuration.replace("wait: 60s", "wait: 0s").replace("databases: billing", "databases: shared")
        for cluster in (self.cluster, self.other):
            cluster.sql("CREATE DATABASE shared")
            cluster.sql("CREATE TABLE bills (id int); INSERT INTO bills VALUES (1); GRANT ALL ON bills TO clerk",
                        dbname="shared")
        text = self.renumbered(text)
        # One guard for which `shared` is at billing, and one for which it is at the first; one store.
        guards = []
        for databases in ("shared", "elsewhere"):
            guard = Guard(self.cluster, configuration=text.replace("databases: shared", f"databases: {databases}")
                          .replace("store: tickets.db", f"store: {self.directory}/both.db"))
            self.addCleanup(guard.erase)
            guards.append(Target(databases, guard.host, guard.port))
            text = self.renumbered(text)
        first, second = guards
        clerk = self.connect(first, user="clerk", dbname="shared")
        self.assertEqual(self.other.port, self.server_port(clerk))
        with self.assertRaises(psycopg.Error) as waits:
            clerk.execute("DELETE FROM bills")
        ticket = str(waits.exception).split("ticket ")[1].split(")")[0].split(" ")[0].rstrip(".,:;")
        self.connect(first, user="bob", dbname="shared").execute(f"CALL chaperone.approve('{ticket}')")
        elsewhere = self.connect(second, user="clerk", dbname="shared")
        self.assertEqual(self.cluster.port, self.server_port(elsewhere))
        with self.assertRaises(psycopg.Error):
            elsewhere.execute("DELETE FROM bills")
        self.assertEqual([(1,)], self.cluster.sql("SELECT count(*) FROM bills", dbname="shared"))
        self.assertEqual("DELETE 1", clerk.execute("DELETE FROM bills").statusmessage)

    def renumbered(self, text: str) -> str:
        lines = []
        for line in text.splitlines():
            if line.strip().startswith("listen: 127.0.0.1:"):
                line = line[:line.index("127.")] + f"127.0.0.1:{processes.free_port()}"
            elif line.startswith(("metrics:", "web:")):
                line = line[:line.index('"')] + f'"127.0.0.1:{processes.free_port()}" }}'
            lines.append(line)
        return "\n".join(lines) + "\n"

    def test_the_page_is_logged_in_to_at_one_server(self):
        ticket, thread, outcome = self.held(dbname="billing")
        page = Api(self.ports["web"])
        self.assertEqual(["", "billing", "agents"], page.get("/api/v1/upstreams").json["upstreams"])
        self.assertEqual(400, page.login("bob", "bob", upstream="nowhere").status)
        staging, billing = Api(self.ports["web"]), Api(self.ports["web"])
        self.assertEqual(200, staging.login("bob", "bob").status)
        self.assertEqual(200, billing.login("bob", "bob", upstream="billing").status)
        self.assertIn("billing, 127.0.0.1:", billing.get("/api/v1/session").json["environment"])
        self.assertEqual([], list(staging.tickets()))
        self.assertEqual(404, staging.get(f"/api/v1/tickets/{ticket}").status)
        self.assertEqual(404, staging.decide(ticket).status)
        (shown,) = billing.tickets().values()
        self.assertEqual("billing", shown["upstream"])
        self.assertEqual(200, billing.decide(ticket, "deny", comment="no").status)
        thread.join(20)
        self.assertIn("denied by bob", outcome[0])
        records = [r for r in self.guard.audit_records() if r.get("protocol") == "web"]
        self.assertEqual([("bob", "billing")], [(r["user"], r["upstream"]) for r in records if "deny" in r["statement"]])

    # --- the rest

    def test_records_and_sessions_name_the_server(self):
        billing = self.connect(user="clerk", dbname="billing")
        billing.execute("INSERT INTO bills SELECT 1 WHERE false")
        processes.wait_until(lambda: any(r["event"] == "done" and r.get("rule") == "told"
                                         for r in self.guard.audit_records(outcomes=True)), 10, "its end")
        records = [r for r in self.guard.audit_records(outcomes=True) if r.get("rule") == "told"]
        self.assertEqual({"billing"}, {r["upstream"] for r in records})
        self.assertEqual({"decision", "done"}, {r["event"] for r in records})
        self.guard.check_schema()
        bob_there, bob_here = self.connect(user="bob", dbname="billing"), self.connect(user="bob", dbname="postgres")
        names = lambda rows: {row[2] for row in rows}
        self.assertEqual({"billing"}, names(bob_there.execute("SHOW chaperone.sessions").fetchall()))
        self.assertEqual({"postgres"}, names(bob_here.execute("SHOW chaperone.sessions").fetchall()))
        self.assertIn("upstream=billing", self.guard.log_text())

    def test_figures_have_the_server_as_a_label(self):
        before = self.watcher.figures()
        self.connect(user="clerk", dbname="billing").execute("SELECT 1")
        self.connect(user="clerk", dbname="billing").execute("SELECT 1")
        self.connect(user="clerk", dbname="postgres").execute("SELECT 1")

        def grown(labels: str, by: int) -> bool:
            name = "pgchaperone_logins_total" + labels
            return self.watcher.figures().get(name, 0) - before.get(name, 0) == by

        for labels, by in (('{outcome="accepted"}', 1), ('{outcome="accepted",upstream="billing"}', 2),
                           ('{outcome="accepted",upstream="agents"}', 0)):
            processes.wait_until(lambda: grown(labels, by), 10, f"{by} more of {labels}")
        figures = self.watcher.figures()
        self.assertEqual(1, figures['pgchaperone_upstream_up{upstream="billing"}'])
        self.assertEqual(1, figures['pgchaperone_policy_version{upstream="agents"}'])

    def test_every_figure_has_the_labels_that_are_documented(self):
        self.assertEqual(documented_figures(), self.watcher.kinds())

    def test_a_cancel_reaches_the_server_that_gave_the_key(self):
        for target, database, cluster in ((self.guarded, "postgres", self.cluster), (self.guarded, "billing", self.other),
                                          (self.agents, "billing", self.other)):
            with self.subTest(target=target.name, database=database):
                connection = self.connect(target, dbname=database)

                def cancel():
                    cluster.wait_for_backends(1, "wait_event = 'PgSleep'")
                    connection.cancel()

                thread = threading.Thread(target=cancel)
                thread.start()
                with self.assertRaises(psycopg.errors.QueryCanceled):
                    connection.execute("SELECT pg_sleep(30)")
                thread.join()

    def test_a_cancel_of_another_replicas_session_is_tried_at_every_server(self):
        for cluster, database in ((self.cluster, "postgres"), (self.other, "billing")):
            direct = Target("direct", cluster.host, cluster.port)
            with self.subTest(database=database), direct.wire(database=database) as sleeper:
                sleeper.send(query("SELECT pg_sleep(30)"))
                cluster.wait_for_backends(1, "query LIKE 'SELECT pg_sleep%' AND state = 'active'")
                with wire.Wire(self.guarded.address) as asking:
                    asking.send(wire.cancel_request(sleeper.pid, sleeper.key))
                    self.assertEqual([], asking.until_closed())
                self.assertEqual(["57014"], wire.sqlstates(sleeper.until_ready()))

    def test_a_server_that_is_down_does_not_make_the_others_unready(self):
        self.assertEqual(200, self.watcher.ask("/readyz").status)
        third = Cluster()
        self.addCleanup(third.erase)
        text = self.renumbered(self.configuration).replace(str(self.other.port), str(third.port))
        guard = Guard(self.cluster, configuration=text)
        self.addCleanup(guard.erase)
        watcher = Watcher(int(text.split('metrics: { listen: "127.0.0.1:')[1].split('"')[0]))
        third.stop()
        target = Target("guarded", guard.host, guard.port)
        told = fatal(target.address, user="clerk", database="billing")
        self.assertEqual("08006", told["C"])
        self.assertEqual(200, watcher.ask("/readyz").status)
        self.assertEqual(0, watcher.figures()['pgchaperone_upstream_up{upstream="billing"}'])
        self.assertEqual(1, self.connect(target, dbname="postgres").execute("SELECT 1").fetchone()[0])

    def test_a_reload_gives_each_its_policy_and_tells_what_needs_a_restart(self):
        text = self.renumbered(self.configuration)
        guard = Guard(self.cluster, configuration=text)
        self.addCleanup(guard.erase)
        target = Target("guarded", guard.host, guard.port)
        billing = self.connect(target, dbname="billing")
        postgres = self.connect(target, dbname="postgres")
        changed = text.replace("command: TRUNCATE*", "command: COMMENT").replace("PRODUCTION", "LIVE")
        guard.configuration_file.write_text(changed.replace("    policy:\n      default: block",
                                                            "    connect_timeout: 7s\n    policy:\n      default: block"))
        guard.hang_up()
        processes.wait_until(lambda: "the policy is in force" in guard.log_text(), 10, "the reload")
        self.assertIn("taken only at a restart: upstreams.agents.connect_timeout", guard.log_text())
        billing.execute("CREATE TABLE emptied (id int)")
        billing.execute("TRUNCATE emptied")
        with self.assertRaises(psycopg.Error):
            billing.execute("COMMENT ON TABLE emptied IS 'x'")
        billing.execute("DROP TABLE emptied")
        postgres.execute("COMMENT ON TABLE bills IS 'x'")
        with target.wire(user="clerk", database="billing") as connection:
            self.assertIn("pgchaperone: environment: LIVE",
                          [f.fields()["M"] for f in connection.greeting if f.tag == "N"])
        # Broken in one entry: nothing changes anywhere.
        guard.configuration_file.write_text(changed.replace("default: block", "default: blok"))
        before = guard.log_text().count("stays as it was")
        guard.hang_up()
        processes.wait_until(lambda: guard.log_text().count("stays as it was") > before, 10, "the failed reload")
        with self.assertRaises(psycopg.Error):
            self.connect(target, dbname="billing").execute("COMMENT ON TABLE bills IS 'x'")

    def test_rules_never_go_over_to_another_servers_databases(self):
        """The file as it would be right after a restart: `billing` and the first have swapped what they are for."""
        text = self.renumbered(self.configuration)
        guard = Guard(self.cluster, configuration=text)
        self.addCleanup(guard.erase)
        target = Target("guarded", guard.host, guard.port)
        billing = self.connect(target, dbname="billing")
        for swapped in (text.replace("databases: billing", 'databases: "stage_*"').replace("no-truncate", "other"),
                        text.replace("- name: billing", "- name: bills"),
                        text[:text.index("  - name: agents")]):
            guard.configuration_file.write_text(swapped)
            before = guard.log_text().count("clients would come to other servers than now")
            guard.hang_up()
            processes.wait_until(
                lambda: guard.log_text().count("clients would come to other servers than now") > before, 10, "the reload")
            with self.assertRaises(psycopg.Error) as refused:
                billing.execute("TRUNCATE bills")
            self.assertIn("no-truncate", str(refused.exception.diag.message_detail) + str(refused.exception))
        self.assertIn("upstreams.billing.databases", guard.log_text())

    def test_who_operates_one_server_does_not_reload_them_all(self):
        with self.assertRaises(psycopg.errors.InsufficientPrivilege):
            self.connect(user="bob", dbname="billing").execute("CALL chaperone.reload()")
        self.connect(user="bob", dbname="postgres").execute("CALL chaperone.reload()")

    def test_cancel_requests_for_nobody_are_bounded(self):
        """Servers that take a connection and say nothing: what is open for strangers has an end, and the guard serves on."""
        import socket
        silent = socket.socket()
        self.addCleanup(silent.close)
        silent.bind(("127.0.0.1", 0))
        silent.listen(1000)
        text = self.renumbered(self.configuration).replace(str(self.other.port), str(silent.getsockname()[1]))
        guard = Guard(self.cluster, configuration=text)
        self.addCleanup(guard.erase)
        target = Target("guarded", guard.host, guard.port)
        descriptors = lambda: len(list(Path(f"/proc/{guard.pid}/fd").iterdir()))
        before = descriptors()
        for number in range(300):
            with wire.Wire(target.address) as asking:
                asking.send(wire.cancel_request(number + 1, b"none"))
        processes.wait_until(lambda: "too many cancel requests" in guard.log_text(), 10, "the bound")
        # Without a bound there were three for each request.
        self.assertLess(descriptors() - before, 500)
        self.assertEqual(1, self.connect(target, dbname="postgres").execute("SELECT 1").fetchone()[0])

    def test_limits_are_each_servers_own(self):
        text = self.renumbered(self.configuration).replace("    environment: PRODUCTION",
                                                           "    limits: { connections: 1 }")
        guard = Guard(self.cluster, configuration=text)
        self.addCleanup(guard.erase)
        target = Target("guarded", guard.host, guard.port)
        with target.wire(user="clerk", database="billing"):
            self.assertEqual("53300", fatal(target.address, user="clerk", database="billing")["C"])
            for _ in range(3):
                self.connect(target, user="clerk", dbname="postgres")


if __name__ == "__main__":
    main()
