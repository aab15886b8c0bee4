"""What whoever watches a guard sees: its figures after work that is known, whether it lives and is ready while things
fail around it, its log as JSON, and what systemd is told."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import processes, wire
from support.e2e import EndToEnd, main, needs_guard
from support.guard import Guard, binary
from support.watch import Manager, Stuck, Watcher, port, documented_figures

POLICY = """policy:
  approvers: [bob]
  rules:
    - name: nobody-erases
      match: { command: DELETE, unbounded: true }
      action: block
    - name: two-people
      match: { relation: orders, class: WRITE }
      action: { hold: { wait: 30s, evidence: none } }
    - name: few-rows
      match: { class: WRITE }
      action: { supervise: { max_rows: 5 } }
"""



@needs_guard
class Figures(EndToEnd):
    configuration = POLICY

    @classmethod
    def setUpClass(cls):
        cls.watcher = Watcher(port())
        cls.page_port = port()
        cls.guard_options = ("--metrics-listen", f"127.0.0.1:{cls.watcher.port}",
                             "--web-listen", f"127.0.0.1:{cls.page_port}")
        super().setUpClass()
        cls.cluster.sql("CREATE ROLE bob LOGIN")

    protocol = psycopg.ClientCursor  # the simple one

    def connect(self, user: str = "postgres", **options):
        connection = psycopg.connect(self.guarded.dsn(user=user), autocommit=True, prepare_threshold=None,
                                     cursor_factory=self.protocol, **options)
        self.addCleanup(connection.close)
        return connection

    def rose(self, work, *names) -> dict:
        """What `work()` adds to every counter that it adds to at all, of these families."""
        before = self.watcher.figures()
        work()
        after = self.watcher.figures()
        return {key: after[key] - before[key] for key in after
                if key.startswith(names) and not key.endswith("_created") and after[key] != before[key]}

    # --- what is documented --------------------------------------------------------------------------------

    def test_every_figure_is_documented_and_every_documented_one_is_there(self):
        # Of the only server there is no label.
        documented = {name: (kind, labels - {"upstream"}) for name, (kind, labels) in documented_figures().items()}
        self.assertEqual(documented, self.watcher.kinds())

    def test_a_page_is_consistent(self):
        self.connect().execute("SELECT 1")
        for name, family in self.watcher.families().items():
            if family.type == "counter":
                self.assertTrue(all(sample.value >= 0 for sample in family.samples), name)
            if family.type != "histogram":
                continue
            series = {}
            for sample in family.samples:
                labels = {label: value for label, value in sample.labels.items() if label != "le"}
                series.setdefault(str(labels), {}).setdefault(sample.name[len(name):], []).append(sample.value)
            for parts in series.values():
                self.assertEqual(sorted(parts["_bucket"]), parts["_bucket"], name)
                self.assertEqual(parts["_count"][0], parts["_bucket"][-1], name)

    # --- known work ----------------------------------------------------------------------------------------

    def test_known_work_is_counted_exactly(self):
        self.known_work()

    def test_known_work_counts_the_same_in_the_extended_protocol(self):
        self.protocol = psycopg.Cursor
        self.known_work()

    def known_work(self):
        def outcomes():
            return len([one for one in self.guard.audit_records(outcomes=True) if one["event"] == "done"])

        before = outcomes()

        def work():
            with self.connect() as connection:
                for number in range(3):
                    connection.execute(f"SELECT {number}")
                with self.assertRaises(psycopg.errors.InsufficientPrivilege):
                    connection.execute("DELETE FROM items")
                with self.assertRaises(psycopg.errors.InsufficientPrivilege):
                    connection.execute("UPDATE items SET quantity = 1 WHERE id > 0")
                connection.execute("UPDATE items SET quantity = 1 WHERE id = 1")
                with self.assertRaises(psycopg.errors.CheckViolation):
                    connection.execute("UPDATE items SET quantity = -1 WHERE id = 1")
            with self.assertRaises(psycopg.OperationalError):
                self.connect("person_scram", password="wrong")
            self.hold_and_approve()
            processes.wait_until(lambda: self.watcher.figures()['pgchaperone_sessions{state="open"}'] == 0, 10,
                                 "all to be gone")
            # What came of a statement is written a moment after its client knows.
            processes.wait_until(lambda: outcomes() >= before + 4 and self.stored() == self.lines(), 10,
                                 "what came of four")

        rose = self.rose(work, "pgchaperone_statements_total", "pgchaperone_supervisions", "pgchaperone_logins",
                         "pgchaperone_connections", "pgchaperone_tickets", "pgchaperone_ticket_wait_seconds_count",
                         "pgchaperone_upstream_connect", "pgchaperone_audit_records_total",
                         "pgchaperone_audit_store_seconds_count", "pgchaperone_statements_unrecorded")
        rose = {key: value for key, value in rose.items() if "bucket" not in key and "_sum" not in key}
        self.assertEqual({
            'pgchaperone_statements_total{class="READ",decision="allow"}': 3,
            'pgchaperone_statements_total{class="WRITE",decision="block"}': 1,
            'pgchaperone_statements_total{class="WRITE",decision="supervise"}': 3,
            'pgchaperone_statements_total{class="WRITE",decision="hold"}': 1,
            # SHOW and CALL.
            'pgchaperone_statements_total{class="MISC",decision="answer"}': 1,
            'pgchaperone_statements_total{class="FUNCTION",decision="answer"}': 1,
            'pgchaperone_supervisions_total{outcome="exceeded"}': 1,
            'pgchaperone_supervisions_total{outcome="within_limits"}': 1,
            'pgchaperone_supervisions_total{outcome="failed"}': 1,
            'pgchaperone_logins_total{outcome="accepted"}': 3,
            'pgchaperone_logins_total{outcome="failed"}': 1,
            'pgchaperone_connections_accepted_total': 4,
            'pgchaperone_upstream_connects_total': 4,
            'pgchaperone_upstream_connect_seconds_count': 4,
            'pgchaperone_tickets_opened_total': 1,
            'pgchaperone_tickets_ended_total{outcome="approved"}': 1,
            'pgchaperone_tickets_used_total': 1,
            'pgchaperone_ticket_wait_seconds_count{outcome="approved"}': 1,
            # Three supervised and what became of two; the blocked; the held: opened, approved and run; CALL approve; and
            # what came of four.
            'pgchaperone_audit_records_total{outcome="stored"}': self.records_of(rose),
            'pgchaperone_audit_store_seconds_count': self.records_of(rose),
        }, rose)

    def records_of(self, rose: dict) -> float:
        """As many as the log itself has of this work."""
        stored = rose['pgchaperone_audit_records_total{outcome="stored"}']
        self.assertGreaterEqual(stored, 8)
        self.assertEqual(self.lines(), self.stored())
        return stored

    def stored(self) -> float:
        return self.watcher.figures()['pgchaperone_audit_records_total{outcome="stored"}']

    def lines(self) -> int:
        return len([one for one in self.guard.audit_records(outcomes=True) if "user" in one])

    def hold_and_approve(self):
        clerk = self.connect()
        held = threading.Thread(target=lambda: clerk.execute("UPDATE orders SET note = 'x' WHERE id = 1"))
        held.start()
        processes.wait_until(lambda: self.watcher.figures()["pgchaperone_tickets_waiting"] == 1, 10, "it to be held")
        now = self.watcher.figures()
        self.assertEqual(1, now['pgchaperone_sessions{state="held"}'])
        self.assertLess(0, now["pgchaperone_ticket_oldest_wait_seconds"])
        self.assertLess(now["pgchaperone_ticket_oldest_wait_seconds"], 60)
        with self.connect("bob") as bob:
            ticket = bob.execute("SHOW chaperone.pending").fetchone()[0]
            bob.execute(f"CALL chaperone.approve('{ticket}')")
        held.join(10)
        self.assertFalse(held.is_alive())
        clerk.close()
        now = self.watcher.figures()
        self.assertEqual((0, 0), (now["pgchaperone_tickets_waiting"], now["pgchaperone_ticket_oldest_wait_seconds"]))

    def test_a_prepared_statement_counts_as_often_as_it_runs(self):
        connection = psycopg.connect(self.guarded.dsn(), autocommit=True, prepare_threshold=0)
        self.addCleanup(connection.close)

        def work():
            for number in range(5):
                connection.execute("SELECT %s::int + 1", (number,))

        rose = self.rose(work, "pgchaperone_statements_total", "pgchaperone_judge_seconds_count")
        self.assertEqual({'pgchaperone_statements_total{class="READ",decision="allow"}': 5,
                          "pgchaperone_judge_seconds_count": 1}, rose)

    def test_bytes_are_counted_in_each_direction(self):
        connection = wire.Wire.log_in((self.guard.host, self.guard.port))
        self.addCleanup(connection.close)
        question = wire.query("SELECT repeat('x', 100000)")

        def work():
            self.seen = connection.ask("SELECT repeat('x', 100000)")

        rose = self.rose(work, "pgchaperone_bytes_total")
        answered = sum(len(frame.body) + 5 for frame in self.seen)
        self.assertGreater(answered, 100_000)
        self.assertEqual({'pgchaperone_bytes_total{direction="from_client"}': len(question),
                          'pgchaperone_bytes_total{direction="to_server"}': len(question),
                          'pgchaperone_bytes_total{direction="from_server"}': answered,
                          'pgchaperone_bytes_total{direction="to_client"}': answered}, rose)

    def test_texts_are_found_in_the_cache_or_not(self):
        def work():
            with self.connect() as connection:
                for _ in range(10):
                    connection.execute("SELECT 'cached or not'")

        rose = self.rose(work, "pgchaperone_parse_cache")
        self.assertEqual(10, sum(rose.values()))
        # A text is remembered when it comes again, and an engine is a thread's.
        self.assertGreaterEqual(rose['pgchaperone_parse_cache_lookups_total{result="hit"}'], 5)

    def test_connections_that_come_to_nothing_are_counted_by_why(self):
        def work():
            with socket.create_connection((self.guard.host, self.guard.port), 5) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
                Watcher.rest_of(connection)

        self.assertEqual({'pgchaperone_connections_refused_total{reason="startup"}': 1},
                         self.rose(work, "pgchaperone_connections_refused", "pgchaperone_logins"))

    def test_what_is_counted_is_the_same_in_sql(self):
        with self.connect() as connection:
            connection.execute("SELECT 1")
            stats = dict(connection.execute("SHOW chaperone.stats").fetchall())
            figures = self.watcher.figures()
        for name, figure in {
                "connections": "pgchaperone_connections_accepted_total",
                "logins": 'pgchaperone_logins_total{outcome="accepted"}',
                "logins_failed": 'pgchaperone_logins_total{outcome="failed"}',
                "statements_allow": 'pgchaperone_statements_total{class="READ",decision="allow"}',
                "supervisions_exceeded": 'pgchaperone_supervisions_total{outcome="exceeded"}',
                "parse_cache_hits": 'pgchaperone_parse_cache_lookups_total{result="hit"}',
                "upstream_connects": "pgchaperone_upstream_connects_total",
                "tickets_opened": "pgchaperone_tickets_opened_total",
                "audit_records": 'pgchaperone_audit_records_total{outcome="stored"}',
                "reloads": 'pgchaperone_reloads_total{outcome="success"}'}.items():
            self.assertEqual(stats[name], figures[figure], name)

    def test_reloads_are_counted(self):
        before = self.watcher.figures()
        self.guard.hang_up()
        key = 'pgchaperone_reloads_total{outcome="success"}'
        processes.wait_until(lambda: self.watcher.figures()[key] == before[key] + 1, 10, "the reload")
        after = self.watcher.figures()
        self.assertEqual(before["pgchaperone_policy_version"] + 1, after["pgchaperone_policy_version"])
        self.assertAlmostEqual(time.time(), after["pgchaperone_last_reload_success_timestamp_seconds"], delta=30)
        self.guard.configuration_file.write_text("policy: { rulez: [] }\n")
        self.addCleanup(self.guard.hang_up)
        self.addCleanup(self.guard.configuration_file.write_text, POLICY)
        self.guard.hang_up()
        key = 'pgchaperone_reloads_total{outcome="failure"}'
        processes.wait_until(lambda: self.watcher.figures()[key] == before[key] + 1, 10, "the reload that fails")
        self.assertEqual(after["pgchaperone_last_reload_success_timestamp_seconds"],
                         self.watcher.figures()["pgchaperone_last_reload_success_timestamp_seconds"])

    def test_the_process_is_measured(self):
        figures = self.watcher.figures()
        self.assertEqual(len(list(Path(f"/proc/{self.guard.pid}/task").iterdir())), figures["process_threads"])
        self.assertAlmostEqual(time.time(), figures["process_start_time_seconds"], delta=120)
        self.assertGreater(figures["process_resident_memory_bytes"], 1_000_000)
        self.assertGreater(figures["process_open_fds"], 5)
        self.assertGreater(figures["process_cpu_seconds_total"], 0)

    def test_no_name_and_no_statement_is_told(self):
        with self.connect(application_name="secret_application") as connection:
            connection.execute("SELECT 'secret_text' AS secret_column")
            with self.assertRaises(psycopg.errors.UndefinedTable):
                connection.execute("SELECT * FROM secret_table")
            told = "".join(self.watcher.ask(path).text for path in ("/metrics", "/healthz", "/readyz", "/secret"))
        for name in ("secret", "postgres", "nobody-erases", "few-rows", "items", "127.0.0.1"):
            self.assertNotIn(name, told.replace("pgchaperone", ""))

    # --- HTTP ----------------------------------------------------------------------------------------------

    def test_what_is_asked_by_http(self):
        answer = self.watcher.ask("/metrics")
        self.assertEqual(200, answer.status)
        self.assertEqual("text/plain; version=0.0.4; charset=utf-8", answer.headers["content-type"])
        head = self.watcher.ask("/metrics", "HEAD")
        self.assertEqual((200, b""), (head.status, head.body))
        self.assertEqual(200, self.watcher.ask("/metrics?x=1").status)
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            refused = self.watcher.ask("/metrics", method)
            self.assertEqual((405, "GET, HEAD"), (refused.status, refused.headers["allow"]), method)
        for path in ("/", "/metrics/", "/healthz/x", "/api/v1/tickets", "/../metrics", "/index.html"):
            self.assertEqual(404, self.watcher.ask(path).status, path)

    def test_the_page_serves_none_of_it_and_this_no_page(self):
        page = Watcher(self.page_port)
        for path in ("/metrics", "/healthz", "/readyz"):
            answer = page.ask(path)
            self.assertEqual(404, answer.status, path)
            self.assertNotIn("pgchaperone_", answer.text)

    def test_attacks_end_and_others_are_served_meanwhile(self):
        huge = b"GET /metrics HTTP/1.1\r\nHost: guard\r\nX: " + b"x" * 200_000
        self.assertIn(b" 431 ", self.watcher.send(huge + b"\r\n\r\n").split(b"\r\n")[0])
        self.assertIn(b" 400 ", self.watcher.send(b"\x16\x03\x01\x02\x00" + b"\r\n" * 4).split(b"\r\n")[0])
        # Two that say nothing more, and more connections than there may be of one address.
        slow = [self.watcher.connect() for _ in range(2)]
        slow[0].sendall(b"GET /met")
        many = []
        for _ in range(120):
            many.append(self.watcher.connect())
        for connection in many:
            connection.settimeout(5)

        def shut(connection) -> bool:
            try:
                return connection.recv(1) == b""
            except ConnectionResetError:
                return True
            except socket.timeout:
                return False

        self.assertGreaterEqual(sum(shut(connection) for connection in many[-40:]), 40)
        for connection in many:
            connection.close()
        processes.wait_until(self.is_served, 10, "the next to be served")
        for connection in slow:
            connection.close()

    def is_served(self) -> bool:
        try:
            return self.watcher.ask("/healthz").status == 200
        except (OSError, IndexError):
            return False


@needs_guard
class Health(EndToEnd):
    configuration = POLICY

    def watched(self, *options, **more):
        watcher = Watcher(port())
        guard = Guard(self.cluster, "--metrics-listen", f"127.0.0.1:{watcher.port}", *options,
                      configuration=POLICY, **more)
        self.addCleanup(guard.erase)
        return guard, watcher

    def becomes(self, watcher, path: str, status: int, text: str, timeout_s: float = 12):
        def so():
            answer = watcher.ask(path)
            return answer.status == status and text in answer.text

        processes.wait_until(so, timeout_s, f"{path} to say {status} {text}", every_s=0.1)

    def test_a_server_that_is_stuck_or_gone_is_seen_and_costs_no_restart(self):
        guard, watcher = self.watched()

        def figures_say(value: int):
            figures = watcher.figures()
            return (value, value) == (figures["pgchaperone_ready"], figures["pgchaperone_upstream_up"])

        noisy = len(self.cluster.log.read_text(errors="replace"))
        postmaster = int((Path(self.cluster.data) / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGSTOP)
        try:
            # It still takes connections: the kernel does. Nobody has a session, and nobody asks /readyz.
            processes.wait_until(lambda: figures_say(0), 12, "the figures to say that the server is away", every_s=0.1)
            answer = watcher.ask("/readyz")
            self.assertEqual((503, "the server that is guarded can't be reached\n"), (answer.status, answer.text))
            self.assertEqual((200, "ok\n"), (watcher.ask("/healthz").status, watcher.ask("/healthz").text))
        finally:
            os.kill(postmaster, signal.SIGCONT)
        processes.wait_until(lambda: figures_say(1), 12, "the figures to say that the server is there", every_s=0.1)
        self.assertEqual((200, "ready\n"), (watcher.ask("/readyz").status, watcher.ask("/readyz").text))
        # Nobody who looks leaves a line in its log.
        self.assertEqual("", self.cluster.log.read_text(errors="replace")[noisy:])

    def test_who_reads_figures_waits_for_no_server_and_asks_it_seldom(self):
        with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
            silent.setblocking(False)

            class Silent:
                host, port = silent.getsockname()

            watcher = Watcher(port())
            guard = Guard(Silent, "--metrics-listen", f"127.0.0.1:{watcher.port}", "--login-timeout", "1s",
                          configuration=POLICY)
            self.addCleanup(guard.erase)
            read_s = []
            first = time.monotonic()

            def is_away() -> bool:
                begun = time.monotonic()
                up = watcher.figures()["pgchaperone_upstream_up"]
                read_s.append(time.monotonic() - begun)
                return up == 0

            processes.wait_until(is_away, 12, "the server to be known as away", every_s=0.05)
            asked = 0
            while True:
                try:
                    silent.accept()[0].close()
                except BlockingIOError:
                    break
                asked += 1
            self.assertLessEqual(asked, 1 + (time.monotonic() - first) // 2, f"{len(read_s)} were read")
            self.assertLess(asked, len(read_s))
            # It is given two seconds.
            self.assertLess(max(read_s), 1 * processes.PATIENCE)
            # Who logs in gets no answer either, and whose fault that is is told.
            with wire.Wire((guard.host, guard.port)) as connection:
                connection.send(wire.startup({"user": "postgres", "database": "postgres"}))
                self.assertEqual(["57014"], wire.sqlstates(connection.until_closed()))
            unanswered = 'pgchaperone_upstream_connect_errors_total{kind="login"}'
            processes.wait_until(lambda: watcher.figures()[unanswered] == 1, 10, "the login that was not answered")
            figures = watcher.figures()
            self.assertEqual(1, figures['pgchaperone_connections_refused_total{reason="timeout"}'])
            self.assertEqual(0, figures['pgchaperone_upstream_connect_errors_total{kind="timeout"}'])

    def test_a_server_that_nobody_can_connect_to_is_known_at_once(self):
        class Nowhere:
            host, port = "127.0.0.1", processes.free_port()

        watcher = Watcher(port())
        guard = Guard(Nowhere, "--metrics-listen", f"127.0.0.1:{watcher.port}", configuration=POLICY)
        self.addCleanup(guard.erase)
        with self.assertRaises(psycopg.OperationalError):
            psycopg.connect(host=guard.host, port=guard.port, user="postgres")
        answer = watcher.ask("/readyz")
        self.assertEqual((503, "the server that is guarded can't be reached\n"), (answer.status, answer.text))
        self.assertEqual(503, watcher.ask("/readyz", "HEAD").status)
        figures = watcher.figures()
        self.assertEqual(1, figures['pgchaperone_upstream_connect_errors_total{kind="connect"}'])
        self.assertEqual(1, figures['pgchaperone_connections_refused_total{reason="upstream"}'])
        self.assertEqual(0, figures["pgchaperone_upstream_connects_total"])

    def test_who_drains_is_not_ready_and_lives(self):
        guard, watcher = self.watched()
        busy = psycopg.connect(host=guard.host, port=guard.port, user="postgres", dbname="postgres")
        self.addCleanup(busy.close)
        busy.execute("SELECT 1")  # and its transaction is open
        guard.process.send_signal(signal.SIGTERM)
        self.becomes(watcher, "/readyz", 503, "draining")
        self.assertEqual(200, watcher.ask("/healthz").status)
        self.assertEqual(1, watcher.figures()["pgchaperone_draining"])
        busy.close()
        self.assertEqual(0, guard.process.wait(10))
        guard.process = None

    def test_a_full_disk_is_seen_and_tried_again_without_anybody_asking(self):
        guard, watcher = self.watched("--log-level", "off")
        with psycopg.connect(host=guard.host, port=guard.port, user="postgres", autocommit=True) as connection:
            for number in range(3):
                connection.execute(f"INSERT INTO scratch VALUES ({number}, '{'x' * 60_000}')")
            # Nobody waits for the records of what a statement did and came to.
            processes.wait_until(
                lambda: watcher.figures()['pgchaperone_audit_records_total{outcome="stored"}'] == 9, 10, "the records")
            limit = (guard.audit.stat().st_size + 10, resource.RLIM_INFINITY)
            resource.prlimit(guard.pid, resource.RLIMIT_FSIZE, limit)
            with self.assertRaises(psycopg.errors.IoError):
                connection.execute("INSERT INTO scratch VALUES (100, 'full')")
        answer = watcher.ask("/readyz")
        self.assertEqual((503, "the audit log refuses records\n"), (answer.status, answer.text))
        figures = watcher.figures()
        self.assertEqual(1, figures["pgchaperone_audit_failing"])
        self.assertEqual(1, figures['pgchaperone_audit_records_total{outcome="refused"}'])
        self.assertEqual(1, figures['pgchaperone_statements_unrecorded_total{outcome="refused"}'])
        resource.prlimit(guard.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self.becomes(watcher, "/readyz", 200, "ready", 20)
        refusals = [one for one in guard.audit_records() if one.get("event") == "refused"]
        self.assertEqual([1], [one["records"] for one in refusals])

    def test_a_store_that_is_gone_is_seen(self):
        store = self.directory / "gone"
        store.mkdir()
        guard, watcher = self.watched("--approval-store", store / "tickets.db")
        (store / "tickets.db").unlink()
        (store / "tickets.db").mkdir()
        with psycopg.connect(host=guard.host, port=guard.port, user="postgres", autocommit=True) as connection:
            with self.assertRaises(psycopg.Error):
                connection.execute("UPDATE orders SET note = 'x' WHERE id = 1")
        figures = watcher.figures()
        self.assertEqual(0, figures["pgchaperone_ticket_store_up"])
        # Replicas share the store: all of them would be taken out of service, where what needs no second person goes on.
        self.becomes(watcher, "/readyz", 200, "ready")
        self.assertEqual(1, figures["pgchaperone_ready"])
        with psycopg.connect(host=guard.host, port=guard.port, user="postgres") as connection:
            self.assertEqual((1,), connection.execute("SELECT 1").fetchone())

    def test_a_thread_that_is_stuck_is_told_of(self):
        directory = self.directory / "stuck"
        directory.mkdir()
        manager = Manager(directory)
        self.addCleanup(manager.close)
        os.environ.update(NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="400000")
        try:
            guard, watcher = self.watched("--threads", "2")
        finally:
            del os.environ["NOTIFY_SOCKET"], os.environ["WATCHDOG_USEC"]
        manager.until("WATCHDOG")
        self.assertEqual(200, watcher.ask("/healthz").status)
        try:
            stuck = Stuck(guard.pid, "io-1").__enter__()
        except PermissionError as error:
            raise unittest.SkipTest(f"no thread can be stopped here: {error}")
        try:
            time.sleep(0.4)
            manager.forget()
            self.assertTrue(manager.silent_about("WATCHDOG", 1.0))
            self.becomes(watcher, "/healthz", 503, "I/O thread 1 does not answer")
            self.assertEqual(503, watcher.ask("/readyz").status)
            self.assertGreaterEqual(watcher.figures()["pgchaperone_io_thread_lag_seconds"], 5)
        finally:
            stuck.__exit__()
        self.becomes(watcher, "/healthz", 200, "ok")
        manager.forget()
        manager.until("WATCHDOG")

    def test_a_port_that_is_taken_is_told(self):
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with self.assertRaises(RuntimeError) as raised:
            Guard(self.cluster, "--metrics-listen", where, configuration=POLICY)
        self.assertIn(f"the metrics' server can't listen on {where}: Address already in use", str(raised.exception))
        self.assertIn("metrics.listen", str(raised.exception))


@needs_guard
class Systemd(EndToEnd):
    configuration = POLICY

    def setUp(self):
        self.place = self.directory / self._testMethodName
        self.place.mkdir()
        self.manager = Manager(self.place)
        self.addCleanup(self.manager.close)

    def managed(self, **environment):
        os.environ.update(NOTIFY_SOCKET=self.manager.path, **environment)
        try:
            guard = Guard(self.cluster, configuration=POLICY)
        finally:
            for name in ("NOTIFY_SOCKET", *environment):
                del os.environ[name]
        self.addCleanup(guard.erase)
        return guard

    def test_what_it_is_told_from_beginning_to_end(self):
        guard = self.managed()
        told = self.manager.next()
        self.assertEqual("1", told["READY"])
        self.assertEqual(f"listening on 127.0.0.1:{guard.port}, guarding 127.0.0.1:{self.cluster.port}", told["STATUS"])
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        guard.hang_up()
        told = self.manager.next()
        self.assertEqual("1", told["RELOADING"])
        self.assertTrue(before <= int(told["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
        told = self.manager.next()
        self.assertEqual("1", told["READY"])
        self.assertNotIn("failed", told["STATUS"])
        # What is wrong is in the log; it serves on.
        guard.configuration_file.write_text("policy: { rulez: [] }\n")
        guard.hang_up()
        self.assertIn("RELOADING", self.manager.next())
        told = self.manager.next()
        self.assertEqual("1", told["READY"])
        self.assertIn("the last reload failed", told["STATUS"])
        guard.process.send_signal(signal.SIGTERM)
        told = self.manager.next()
        self.assertEqual("1", told["STOPPING"])
        self.assertIn("draining", told["STATUS"])
        self.assertEqual(0, guard.process.wait(10))
        guard.process = None

    def test_why_it_does_not_start(self):
        # What systemctl status shows of a service that is tried again and again.
        broken = self.place / "broken.yaml"
        taken = f"127.0.0.1:{self.guard.port}"
        for text, why in (("threads: many\nplicy: {}\n", rf"{broken}:1:\d+: error: .* \(and 1 more\)"),
                          (f"listen: {taken}\n", f"{taken}.*in use"),
                          ("log: {file: /dev/null/log}\n", "can't write the log file: /dev/null/log")):
            broken.write_text(text)
            done = subprocess.run([binary(), "serve", "-c", broken], cwd=self.place, capture_output=True, timeout=60,
                                  env={**os.environ, "NOTIFY_SOCKET": self.manager.path})
            self.assertEqual(2, done.returncode, done.stderr)
            told = self.manager.next()
            self.assertEqual(["STATUS"], list(told))
            self.assertRegex(told["STATUS"], "^does not start: .*" + why)

    def test_the_journal_is_told_how_weighty_a_line_is(self):
        guard = Guard(self.cluster, configuration=POLICY, start=False)
        self.addCleanup(guard.erase)
        guard.log.touch()
        log = guard.log.stat()
        for stream, priority in ((f"{log.st_dev}:{log.st_ino}", "<6>"), (f"{log.st_dev}:{log.st_ino + 1}", "")):
            os.environ["JOURNAL_STREAM"] = stream
            try:
                guard.start()
            finally:
                del os.environ["JOURNAL_STREAM"]
            listening = rf"(?m)^{priority}\d{{4}}-[-0-9T:.+]+ info listening on "
            processes.wait_until(lambda: re.search(listening, guard.log_text()), 10, f"'{priority}... info listening on'")
            if priority:
                guard.configuration_file.write_text("plicy: {}\n")
                guard.process.send_signal(signal.SIGHUP)
                processes.wait_until(lambda: re.search(r"(?m)^<3>\d{4}-\S+ error reload: the policy stays", guard.log_text()),
                                     10, "the error to be told as one")
            guard.stop()
            guard.log.write_text("")

    def test_it_is_ready_when_it_listens(self):
        guard = Guard(self.cluster, configuration=POLICY, start=False)
        self.addCleanup(guard.erase)
        environment = {**os.environ, "NOTIFY_SOCKET": self.manager.path}
        with open(guard.log, "a") as log:
            guard.process = processes.start(guard.command(), stdout=log, stderr=log, cwd=guard.directory, env=environment)
        self.manager.until("READY", 20)
        socket.create_connection((guard.host, guard.port), 5).close()

    def test_the_watchdog_is_fed_and_a_stopped_process_feeds_none(self):
        guard = self.managed(WATCHDOG_USEC="200000")
        for _ in range(3):
            self.manager.until("WATCHDOG")
        guard.process.send_signal(signal.SIGSTOP)
        try:
            os.waitid(os.P_PID, guard.pid, os.WSTOPPED)
            self.manager.forget()
            self.assertTrue(self.manager.silent_about("WATCHDOG", 0.6))
        finally:
            guard.process.send_signal(signal.SIGCONT)
        self.manager.until("WATCHDOG")

    def test_a_watchdog_of_another_process_is_not_fed(self):
        self.managed(WATCHDOG_USEC="100000", WATCHDOG_PID="1")
        self.manager.until("READY")
        self.assertTrue(self.manager.silent_about("WATCHDOG", 0.5))

    def test_where_nobody_listens_nothing_is_wrong(self):
        for where in ("/nowhere/at/all", "relative", "@" + "x" * 200):
            os.environ["NOTIFY_SOCKET"] = where
            try:
                guard = Guard(self.cluster, configuration=POLICY)
            finally:
                del os.environ["NOTIFY_SOCKET"]
            self.addCleanup(guard.erase)
            with psycopg.connect(host=guard.host, port=guard.port, user="postgres") as connection:
                self.assertEqual(1, connection.execute("SELECT 1").fetchone()[0])


@needs_guard
class JsonLog(EndToEnd):
    configuration = POLICY
    guard_options = ("--log-format", "json", "--log-level", "debug")

    def lines(self) -> list:
        lines = self.guard.log.read_bytes().split(b"\n")
        self.assertEqual(b"", lines.pop())
        return [json.loads(line.decode()) for line in lines]

    def test_every_line_is_an_object_whatever_clients_are_called(self):
        names = ['quo"ted\\', "two\nlines session 9999: start: forged", "\x01\x1b[31m\x7f", "\u202egnp.exe \u2028"]
        for name in names:
            self.cluster.sql('CREATE ROLE "' + name.replace('"', '""') + '" LOGIN')
            with wire.Wire((self.guard.host, self.guard.port)) as connection:
                connection.send(wire.startup({"user": name.encode(), "database": "postgres"}))
                connection.until_ready()
        def sessions(event):
            return {line["session"] for line in self.lines() if line.get("event") == event}

        # One that only looked whether the guard is there has not logged in.
        processes.wait_until(lambda: len(sessions("logged in") & sessions("end")) >= len(names), 10, "all to have ended")
        lines = self.lines()
        for line in lines:
            self.assertLessEqual({"time", "level", "message"}, line.keys())
            self.assertRegex(line["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")
            self.assertLessEqual(set(line.keys()), {"time", "level", "message", "session", "event", "ticket"})
        logins = [line for line in lines if line.get("event") == "logged in"]
        self.assertEqual(len(names), len(logins))
        self.assertNotIn(9999, {line.get("session") for line in lines})
        starts = [line["session"] for line in lines if line.get("event") == "start"]
        self.assertEqual(len(starts), len(set(starts)))
        for name, login in zip(names, logins):
            self.assertIn(f"user={name} database=postgres", login["message"])
        self.assertIn("listening on", " ".join(line["message"] for line in lines if "session" not in line))


if __name__ == "__main__":
    main()
