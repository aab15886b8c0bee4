"""An upgrade in place (SIGUSR2): a new process takes over the port, nobody is refused, and no transaction fails."""

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import guard as guard_module
from support import processes
from support import wire
from support.approval import RULES, Held, policy, rule
from support.cluster import binaries
from support.e2e import EndToEnd, Target, main, needs_guard
from support.processes import wait_until
from support.upgrades import GOES_ON, UpgradedGuard, adopt_successors
from support.wire import query

RECORD = "    - name: record\n      match: { command: INSERT }\n      action: allow\n      audit: statement\n"
ALLOW_AND_RECORD = "policy:\n  default: allow\n  unparsable: allow\n  rules:\n" + RECORD


def setUpModule():
    adopt_successors()


def upgraded(case, *options, configuration) -> UpgradedGuard:
    guard = UpgradedGuard(case.cluster, *options, configuration=configuration)
    case.addCleanup(guard.erase)
    return guard


def target_of(guard) -> Target:
    return Target("guarded", guard.host, guard.port)


@needs_guard
class Processes(EndToEnd):
    def setUp(self):
        self.cluster.sql("DROP TABLE IF EXISTS handed, failing")
        self.cluster.sql("CREATE TABLE handed (worker int, number int)")
        self.cluster.sql("CREATE TABLE failing (number int)")
        self.configuration_text = ALLOW_AND_RECORD

    def test_no_connection_is_refused_no_transaction_fails_and_no_record_is_lost(self):
        metrics, page = processes.free_port(), processes.free_port()
        guard = upgraded(self, "--threads", "2", "--metrics-listen", f"127.0.0.1:{metrics}", "--web-listen",
                         f"127.0.0.1:{page}", "--audit-rotate-size", "50kB", configuration=ALLOW_AND_RECORD)
        ports = (f"http://127.0.0.1:{metrics}/healthz", f"http://127.0.0.1:{page}/")
        script = self.directory / "insert.sql"
        script.write_text("\\set number random(1, 1000000)\n"
                          "BEGIN;\nINSERT INTO handed VALUES (:worker, :number);\nEND;\n")
        asked = []
        stop = threading.Event()

        def watch():
            while not stop.wait(0.02):
                for url in ports:
                    try:
                        # A connection that was open may end with the process; none is refused.
                        socket.create_connection(url.split("/")[2].split(":"), 10).close()
                        asked.append("accepted")
                    except OSError as error:
                        asked.append(error)

        watcher = threading.Thread(target=watch)
        watcher.start()
        command = [str(binaries() / "pgbench"), "-n", "-h", "127.0.0.1", "-p", str(guard.port), "-U", "postgres", "-f",
                   str(script), "postgres"]
        # Until it is told that the three upgrades are over.
        command += ["-c", "4", "-T", str(round(30 * processes.PATIENCE))]
        running = [processes.start([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                   for more in (("-D", "worker=1"), ("-D", "worker=2", "-C"))]
        try:
            wait_until(lambda: self.cluster.sql("SELECT count(DISTINCT worker) FROM handed") == [(2,)], 20,
                       "both to be under way")
            old = []
            for _ in range(3):
                old.append(guard.upgrade())
                time.sleep(0.3)
            # Those with lasting connections are in the first process, and it still serves them.
            self.assertIsNone(guard.status(old[0]))
            for r in running:
                r.send_signal(signal.SIGALRM)  # as when its time is over
            said = [r.communicate(timeout=60)[0] for r in running]
        finally:
            for r in running:
                processes.stop(r)
            stop.set()
            watcher.join()
        for r, text in zip(running, said):
            self.assertEqual(0, r.returncode, text)
            self.assertRegex(text, r"number of failed transactions: 0 \(0\.000%\)")
            self.assertNotRegex(text, "error:|aborted|could not")
        done = sum(int(re.search(r"actually processed: (\d+)", text)[1]) for text in said)
        for pid in old:
            self.assertEqual(0, guard.wait_for_end(pid))
        self.assertEqual({"accepted"}, set(asked))
        self.assertGreater(len(asked), 40)
        for url in ports:
            with urllib.request.urlopen(url, timeout=10) as answer:
                self.assertEqual(200, answer.status)
        [(rows,)] = self.cluster.sql("SELECT count(*) FROM handed")
        self.assertEqual(done, int(rows))
        with target_of(guard).wire() as connection:
            connection.rows("INSERT INTO handed VALUES (0, 0)")
        self.assertIn("intact", guard.verify())
        # Of all files, old ones included: no record is missing, and none is there twice.
        found = subprocess.run([guard_module.binary(), "audit", "search", "--rule", "record", "--json", str(guard.audit)],
                               text=True, capture_output=True, timeout=60)
        self.assertEqual((0, ""), (found.returncode, found.stderr))
        records = [one for one in map(json.loads, found.stdout.splitlines()) if one["event"] == "decision"]
        self.assertEqual(done + 1, len(records))
        self.assertEqual(len(records), len({r["seq"] for r in records}))
        self.assertGreater(len(list(guard.directory.glob("audit.jsonl.*"))), 0)
        self.assertNotIn("changed the size", guard.log_text())


    def serves(self, guard, connection):
        self.assertEqual([("1",)], connection.rows("SELECT 1"))
        with target_of(guard).wire() as another:
            another.rows("INSERT INTO failing VALUES (1)")

    def test_a_new_process_that_does_not_come_up_changes_nothing(self):
        guard = upgraded(self, configuration=self.configuration_text)
        lasting = target_of(guard).wire()
        self.addCleanup(lasting.close)
        # A mistake in the configuration.
        guard.configuration_file.write_text("policy: { rulez: [] }\n")
        self.assertIn("the new process ended before it served", guard.failed_upgrade())
        self.assertIn("unknown key", guard.log_text())
        self.serves(guard, lasting)
        # A process that hangs, and is killed; what it was to be is seen by its reading of a pipe.
        guard.configuration_file.unlink()
        os.mkfifo(guard.configuration_file)
        guard.kill(signal.SIGUSR2)
        hanging = wait_until(lambda: self.successor_of(guard), 10, "a new process")
        self.serves(guard, lasting)
        before = len(guard.said(GOES_ON))
        os.kill(hanging, signal.SIGKILL)
        os.waitpid(hanging, 0)
        wait_until(lambda: len(guard.said(GOES_ON)) > before, 10, "the old one to see it")
        self.serves(guard, lasting)
        guard.configuration_file.unlink()
        guard.configuration_file.write_text(self.configuration_text)
        # And in the end it works.
        guard.upgrade()
        self.serves(guard, lasting)
        lasting.close()
        self.assertEqual(0, guard.wait_for_end(guard.pids[0]))
        self.assertIn("intact", guard.verify())
        self.assertEqual(4, len([r for r in guard.audit_records() if r.get("rule") == "record"]))

    def test_every_listener_is_handed_on_and_a_new_file_may_bring_more(self):
        """Several servers behind one guard: what clients come to by each port stays so, and another port comes with the file."""
        ports = [processes.free_port(), processes.free_port()]
        entry = "  - name: e{0}\n    listen: 127.0.0.1:{1}\n    environment: E{0}\n    policy: {{ default: allow, rules: [] }}\n"
        text = ALLOW_AND_RECORD + "upstreams:\n" + entry.format(0, ports[0])
        guard = upgraded(self, configuration=text)

        def environment(port):
            with Target("guarded", guard.host, port).wire() as connection:
                return [f.fields()["M"] for f in connection.greeting if f.tag == "N"]

        def refused(port):
            with self.assertRaises(ConnectionRefusedError):
                socket.create_connection((guard.host, port), 5).close()

        lasting = Target("guarded", guard.host, ports[0]).wire()
        self.addCleanup(lasting.close)
        refused(ports[1])
        guard.configuration_file.write_text(text + entry.format(1, ports[1]))
        guard.upgrade()
        self.assertEqual([["pgchaperone: environment: E0"], ["pgchaperone: environment: E1"], []],
                         [environment(port) for port in (*ports, guard.port)])
        # The old process keeps its sessions and their rules.
        self.assertEqual([("1",)], lasting.rows("SELECT 1"))
        # And the other way: an entry less, and its port is nobody's.
        guard.configuration_file.write_text(ALLOW_AND_RECORD + "upstreams:\n" + entry.format(1, ports[1]))
        guard.upgrade()
        wait_until(lambda: self.is_refused(guard.host, ports[0]), 10, "the port to be given up")
        self.assertEqual(["pgchaperone: environment: E1"], environment(ports[1]))
        self.assertEqual([("1",)], lasting.rows("SELECT 1"))

    @staticmethod
    def is_refused(host, port) -> bool:
        try:
            socket.create_connection((host, port), 5).close()
            return False
        except ConnectionRefusedError:
            return True

    def test_who_is_told_to_end_meanwhile_ends(self):
        guard = upgraded(self, configuration=self.configuration_text)
        guard.configuration_file.unlink()
        os.mkfifo(guard.configuration_file)
        guard.kill(signal.SIGUSR2)
        hanging = wait_until(lambda: self.successor_of(guard), 10, "a new process")
        guard.kill(signal.SIGTERM)
        self.assertEqual(0, guard.wait_for_end(guard.pid))
        self.assertEqual(signal.SIGKILL, os.waitstatus_to_exitcode(os.waitpid(hanging, 0)[1]) * -1)
        self.assertIn("this process is told to end", guard.log_text())

    def successor_of(self, guard):
        """A process that is our child by now, and is running the guard."""
        for task in Path("/proc/self/task").iterdir():
            for child in (task / "children").read_text().split():
                command = Path(f"/proc/{child}/cmdline").read_bytes()
                if int(child) not in guard.pids and str(guard.configuration_file).encode() in command:
                    environment = Path(f"/proc/{child}/environ").read_bytes()
                    if f"LISTEN_PID={child}".encode() in environment:
                        return int(child)
        return None

    def test_a_kill_of_the_new_process_leaves_the_old_ones_sessions_working(self):
        guard = upgraded(self, configuration=self.configuration_text)
        lasting = target_of(guard).wire()
        old = guard.upgrade()
        with target_of(guard).wire() as another:
            another.rows("INSERT INTO failing VALUES (1)")
        new = guard.pid
        guard.kill(signal.SIGKILL)
        guard.wait_for_end(new)
        wait_until(lambda: guard.said(f"process {new}, which had taken over, has ended"), 10, "the old one to see it")
        for _ in range(3):
            lasting.rows("INSERT INTO failing VALUES (2)")
        self.assertIn("intact", guard.verify())
        self.assertEqual(4, len([r for r in guard.audit_records() if r.get("rule") == "record"]))
        lasting.close()
        self.assertEqual(0, guard.wait_for_end(old))

    def test_sockets_of_a_service_manager_are_handed_on(self):
        port = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(port.close)
        guard = UpgradedGuard(self.cluster, configuration=self.configuration_text, start=False)
        self.addCleanup(guard.erase)
        command = guard.command()
        guard.port = port.getsockname()[1]
        # As systemd does it.
        take = ("import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.dup2(int(sys.argv[1]), 3); "
                "os.execv(sys.argv[2], sys.argv[2:])")
        with open(guard.log, "a") as log:
            guard.process = processes.start(
                [sys.executable, "-c", take, port.fileno(), *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                cwd=guard.directory, pass_fds=[port.fileno()],
                env={**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "pgchaperone.socket"})
        guard.pids, guard.statuses = [guard.process.pid], {}
        wait_until(lambda: guard.said("passed to this process"), 20, "the guard to listen")
        lasting = target_of(guard).wire()
        for _ in range(2):
            guard.upgrade()
            self.serves(guard, lasting)
        self.assertEqual(3, len(guard.said(f"listening on 127.0.0.1:{guard.port} \\(passed to this process\\)")))
        lasting.close()
        self.assertEqual(0, guard.wait_for_end(guard.pids[0]))

    def test_nothing_but_what_it_is_to_have_reaches_the_new_process(self):
        guard = upgraded(self, configuration=self.configuration_text)
        lasting = [target_of(guard).wire() for _ in range(20)]
        guard.upgrade()
        # Sessions are the old one's: its descriptors have not come along.
        held = len(list(Path(f"/proc/{guard.pid}/fd").iterdir()))
        self.assertLess(held, 40)
        status = Path(f"/proc/{guard.pid}/status").read_text()
        self.assertNotEqual(guard.pids[0], int(re.search(r"PPid:\s+(\d+)", status)[1]))
        for one in lasting:
            one.close()
        self.assertEqual(0, guard.wait_for_end(guard.pids[0]))
        with target_of(guard).wire() as connection:
            self.serves(guard, connection)


    def test_it_is_told_which_process_is_the_service(self):
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        path = str(self.directory / "notify")
        manager.bind(path)
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        messages = queue.Queue()

        def read():
            """As systemd does, all the time: ten that nobody reads are all that there can be."""
            while True:
                bytes_, ancillary, _, _ = manager.recvmsg(4096, socket.CMSG_SPACE(12))
                if not bytes_:
                    return
                pid = int.from_bytes(ancillary[0][2][:4], "little")
                messages.put((pid, [line for line in bytes_.decode().splitlines() if not line.startswith("STATUS=")]))

        reader = threading.Thread(target=read)
        reader.start()
        self.addCleanup(reader.join)
        self.addCleanup(manager.sendto, b"", path)

        def heard(timeout_s=10 * processes.PATIENCE):
            """Who says what, without what is said for people."""
            return messages.get(timeout=timeout_s)

        os.environ.update(NOTIFY_SOCKET=path, WATCHDOG_USEC="400000")
        try:
            guard = upgraded(self, configuration=ALLOW_AND_RECORD)
        finally:
            del os.environ["NOTIFY_SOCKET"], os.environ["WATCHDOG_USEC"]
        while (said := heard()) != (guard.pid, ["READY=1"]):
            self.assertEqual((guard.pid, ["WATCHDOG=1"]), said)
        lasting = target_of(guard).wire()
        old = guard.upgrade()
        said = []
        while (guard.pid, ["READY=1"]) not in said:
            said.append(heard())
        # Only what the main process says counts for a service manager. The watchdog is fed by both for a while.
        first = said.index((old, [f"MAINPID={guard.pid}"]))
        self.assertEqual([(old, [f"MAINPID={guard.pid}"]), (guard.pid, ["READY=1"])],
                         [one for one in said if one[1] != ["WATCHDOG=1"]])
        while (guard.pid, ["WATCHDOG=1"]) not in said[first + 1:]:
            said.append(heard())
        lasting.close()
        self.assertEqual(0, guard.wait_for_end(old))
        guard.kill(signal.SIGTERM)
        guard.wait_for_end(guard.pid)
        rest = []
        try:
            while True:
                rest.append(heard(0.2))
        except queue.Empty:
            pass
        self.assertEqual({guard.pid}, {pid for pid, _ in said[first + 1:] + rest})
        # It feeds the watchdog while it stops, too.
        self.assertEqual([(guard.pid, ["STOPPING=1"])], [one for one in rest if one != (guard.pid, ["WATCHDOG=1"])])


@needs_guard
class Sessions(Held):
    """What becomes of sessions of the process that is replaced."""

    def upgraded(self, *options, configuration=policy(*RULES)):
        guard = upgraded(self, *options, configuration=configuration)
        self.addCleanup(self.forget, guard)
        return guard, target_of(guard)

    def test_what_waits_in_the_old_process_is_approved_through_the_new_one(self):
        guard, target = self.upgraded()
        clerk = self.wire(target=target)
        ticket = self.hold(clerk, "UPDATE jobs SET state = 'done'")
        old = guard.upgrade()
        second = guard.upgrade()
        # Nobody waits in this one, and it goes at once; the ticket is not taken from whom it is held for.
        self.assertEqual(0, guard.wait_for_end(second))
        self.assertIsNone(guard.status(old))
        self.assertTrue(self.pending(target=target)[ticket]["waiting"])
        self.decide(ticket, target=target)
        self.done(clerk, tag="UPDATE 20")
        self.assertEqual("used", self.wait_for_state(ticket, "used", target=target)["state"])
        clerk.close()
        self.assertEqual(0, guard.wait_for_end(old))
        self.assertIn("intact", guard.verify())

    def test_a_cancel_reaches_what_is_held_in_an_old_process(self):
        guard, target = self.upgraded()
        clerk = self.wire(target=target)
        ticket = self.hold(clerk, "UPDATE jobs SET state = 'done'")
        old = guard.upgrade()
        other = self.wire(target=target)
        guard.upgrade()
        # By way of nobody in between: the one before last is asked as well.
        with wire.Wire(target.address) as messenger:
            messenger.send(wire.cancel_request(clerk.pid, clerk.key))
            messenger.until_closed()
        frames = clerk.until_ready()
        self.assertEqual(["57014"], wire.sqlstates(frames))
        self.wait_for_state(ticket, "withdrawn", target=target)
        # Of a statement that runs it is the server that is asked, whoever has sent it.
        other.send(query("SELECT pg_sleep(20)"))
        self.cluster.wait_for_backends(1, "wait_event = 'PgSleep'")
        with wire.Wire(target.address) as messenger:
            messenger.send(wire.cancel_request(other.pid, other.key))
            messenger.until_closed()
        self.assertEqual(["57014"], wire.sqlstates(other.until_ready()))
        # The end of an old process is its own, and nobody else's.
        guard.kill(signal.SIGTERM, old)
        self.assertEqual(["57P01"], wire.sqlstates(clerk.until_closed()))
        self.assertEqual(0, guard.wait_for_end(old))
        self.done(other, "SELECT 1")
        other.close()

    def test_a_kill_of_the_old_process_frees_what_waited_there(self):
        guard, target = self.upgraded()
        clerk = self.wire(target=target)
        ticket = self.hold(clerk, "UPDATE jobs SET state = 'done'")
        old = guard.upgrade()
        guard.kill(signal.SIGKILL, old)
        guard.wait_for_end(old)
        wait_until(lambda: guard.said("the process before this one has ended"), 10, "the new one to hear of it")
        self.assertFalse(self.pending(target=target)[ticket]["waiting"])
        self.decide(ticket, target=target)
        # Approved, and nobody waits: whoever asks again gets it.
        with self.wire(target=target) as again:
            self.done(again, "UPDATE jobs SET state = 'done'", tag="UPDATE 20")
        self.wait_for_state(ticket, "used", target=target)
        self.assertIn("intact", guard.verify())
        # The log is its own again: the next one takes over as ever.
        guard.upgrade()

    def test_policies_and_reloads_reach_sessions_of_an_old_process(self):
        guard, target = self.upgraded()
        clerk = self.wire(target=target)
        self.done(clerk, "DELETE FROM log WHERE id = 1")
        refuse = policy(rule("no", 'writes: ["held.log"]', "block"), head="approvers: [dba]")
        guard.configuration_file.write_text(refuse)
        old = guard.upgrade()
        wait_until(lambda: guard.said("reload: the policy is in force"), 10, "the old one to take the policy")
        self.refused(clerk, "DELETE FROM log WHERE id = 1")
        guard.configuration_file.write_text(policy(*RULES))
        guard.kill(signal.SIGHUP)
        wait_until(lambda: len(guard.said("reload: the policy is in force")) >= 3, 10, "both to take it")
        self.done(clerk, "DELETE FROM log WHERE id = 1")
        # Who signals the old one is told where to.
        guard.kill(signal.SIGHUP, old)
        wait_until(lambda: guard.said("signals are for that"), 10, "a word")
        self.assertIsNone(guard.status(old))
        self.done(clerk, "SELECT 1")
        # The end of the new one is that of both, and it waits for the other.
        guard.kill(signal.SIGTERM)
        self.assertEqual(["57P01"], wire.sqlstates(clerk.until_closed()))
        self.assertEqual(0, guard.wait_for_end(old))
        self.assertEqual(0, guard.wait_for_end(guard.pid))

    def test_a_reload_goes_on_in_a_new_log_file_of_old_processes_too(self):
        guard = UpgradedGuard(self.cluster, configuration=policy(*RULES), start=False)
        self.addCleanup(guard.erase)
        self.addCleanup(self.forget, guard)
        guard.log = guard.directory / "program.log"
        guard.options += ["--log-file", str(guard.log)]
        guard.start()
        reloaded = "reload: the policy is in force"
        session = self.wire(target=target_of(guard))
        wait_until(lambda: guard.said("logged in"), 10, "who has logged in to be told of")
        before = guard.log.rename(guard.directory / "1")
        guard.kill(signal.SIGHUP)
        wait_until(lambda: guard.log.exists() and reloaded in guard.log.read_text(), 10, "a new file")
        began = before.read_text()
        self.assertIn("listening on", began)
        self.assertNotIn(reloaded, began)
        end = f"session {re.findall('session ([0-9]+): logged in', began)[-1]}: end"
        self.assertNotIn("listening on", guard.log.read_text())
        # Nothing can be written to a folder: the one before is written on, and has what is wrong.
        before = guard.log.rename(guard.directory / "2")
        guard.log.mkdir()
        guard.kill(signal.SIGHUP)
        wait_until(lambda: before.read_text().count(reloaded) == 2, 10, "a reload")
        self.assertRegex(before.read_text(), r"reload: can't open the log file \S+program.log: Is a directory; the one opened before")
        guard.log.rmdir()
        guard.kill(signal.SIGHUP)
        wait_until(lambda: guard.log.is_file() and reloaded in guard.log.read_text(), 10, "a new file")

        old = guard.upgrade()
        # The old process has read the configuration when it was replaced.
        wait_until(lambda: guard.log_text().count(reloaded) == 2, 10, "the old process")
        guard.log.rename(guard.directory / "3")
        guard.kill(signal.SIGHUP)
        wait_until(lambda: guard.log.exists() and guard.log.read_text().count(reloaded) == 2, 10, "both in a new file")
        session.close()
        self.assertEqual(0, guard.wait_for_end(old))
        self.assertIn(end, guard.log.read_text())
        self.assertNotIn(end, (guard.directory / "3").read_text())

    def test_old_sessions_have_their_time_and_no_more(self):
        guard, target = self.upgraded()
        guard.configuration_file.write_text("handover_timeout: 2s\n" + policy(*RULES))
        clerk = self.wire(target=target)
        old = guard.upgrade()
        self.done(clerk, "SELECT 1")
        self.assertEqual(["57P01"], wire.sqlstates(clerk.until_closed()))
        self.assertEqual(0, guard.wait_for_end(old))
        self.done(self.wire(target=target), "SELECT 1")


if __name__ == "__main__":
    main()
