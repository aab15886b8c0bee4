"""Guards are killed by SIGKILL at any moment, under load, again and again; several side by side, each with a log of its
own, so that it is hundreds of times. Then their audit logs are held against the server's own: nothing that needs a record
took effect, or was told to a client, without one; and what they say of its end is so.

$PGCHAPERONE_KILLS says how many times (200 without it); a machine that is too slow for them stops at a quarter or more."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import processes
from support.e2e import EndToEnd, main, needs_guard
from support.guard import Guard, binary

POLICY = """policy:
  default: allow
  unparsable: allow
  break_glass: { roles: ["*"], require_reason: false }
  rules:
    - { name: never, match: { command: DELETE, unbounded: true }, action: block }
    - { name: ask, match: { command: DELETE }, action: { hold: { evidence: plan } } }
    - { name: count, match: { command: UPDATE }, action: { supervise: { max_rows: 1000 } } }
    - { name: note, match: { command: INSERT }, action: allow, audit: statement+parameters }
"""
STATEMENTS = (
    "INSERT INTO scratch VALUES ({n}, 'noted') /* mark {n} */",
    "UPDATE items SET quantity = quantity + 1 WHERE id = {client} /* mark {n} */",
    "DELETE FROM scratch WHERE id = {n} - 8 /* mark {n} */",
    "DELETE FROM orders /* mark {n} */",
)
KILLS = int(os.environ.get("PGCHAPERONE_KILLS", "200"))
GUARDS = 4
SECONDS = KILLS * 0.3 * processes.PATIENCE  # and no more; a kill takes half of that where nothing else runs
CLIENTS = 2  # of each
# What the guard asks for itself says nothing of what has run.
RAN = re.compile(r"LOG:  (?:statement|execute [^:]*): (INSERT|UPDATE|DELETE)[^\n]*/\* mark (\d+) \*/")
MARK = re.compile(r"/\* mark (\d+) \*/")


class Client(threading.Thread):
    """Sends statements, connecting again whenever the guard is there, and notes what it was told of."""

    def __init__(self, killer, number: int, ended: threading.Event):
        super().__init__()
        self.guard = killer.guard
        self.there = killer.there
        self.number = number
        self.ended = ended
        self.refused = set()
        self.surprises = []

    def run(self):
        n = self.number * 10_000_000
        extended = self.number % 2 == 1
        while not self.ended.is_set():
            try:
                with psycopg.connect(host=self.guard.host, port=self.guard.port, user="postgres", dbname="postgres",
                                     autocommit=True, connect_timeout=5) as connection:
                    while not self.ended.is_set():
                        n += 1
                        text = STATEMENTS[n % len(STATEMENTS)].format(n=n, client=self.number)
                        try:
                            # Binary results are had by the extended protocol alone.
                            connection.cursor(binary=extended).execute(text)
                        except psycopg.errors.InsufficientPrivilege:
                            self.refused.add(n)
            except psycopg.OperationalError:
                self.there.wait(1)  # killed
            except psycopg.Error as error:
                self.surprises.append(error)
                return


class Killer(threading.Thread):
    """Kills one guard and starts it again. A guard dies with the thread that has started it."""

    def __init__(self, guard, seed: int, kills: int, until: float):
        super().__init__()
        self.guard = guard
        self.chance = random.Random(seed)
        self.wanted = kills
        self.until = until
        self.kills = 0
        self.there = threading.Event()  # not for long
        self.problem = None
        self.killed = threading.Event()
        self.over = threading.Event()

    def run(self):
        try:
            self.start_guard()
            while self.kills < self.wanted and time.monotonic() < self.until:
                time.sleep(self.chance.uniform(0.0, 0.08))
                self.there.clear()
                self.guard.process.send_signal(signal.SIGKILL)
                self.guard.process.wait()
                self.guard.process = None
                self.kills += 1
                self.start_guard()
        except Exception as problem:  # whatever it is, the test is told
            self.problem = problem
        finally:
            self.killed.set()
            self.over.wait()

    def start_guard(self):
        self.guard.start()
        self.there.set()


def lines_of(guard) -> list:
    found = []
    for file in [*guard.audit.parent.glob("audit.jsonl.2*"), guard.audit]:
        lines = subprocess.run(["gzip", "-dc", str(file)] if file.suffix == ".gz" else ["cat", str(file)],
                               capture_output=True, text=True, check=True).stdout
        found += [json.loads(line) for line in lines.splitlines()]
    return sorted(found, key=lambda line: line["seq"])


@needs_guard
class AuditKill(EndToEnd):
    configuration = POLICY
    cluster_options = {"settings": {"log_statement": "all", "max_connections": "200"}}

    def test_nothing_takes_effect_without_its_record(self):
        guards = []
        for _ in range(GUARDS):
            guard = Guard(self.cluster, "--audit-rotate-size", "100kB", configuration=POLICY, start=False)
            self.addCleanup(guard.erase)
            guard.port = 1  # until it has one
            guards.append(guard)
        ended = threading.Event()
        killers = [Killer(guard, 7 + i, KILLS // GUARDS, time.monotonic() + SECONDS) for i, guard in enumerate(guards)]
        clients = [Client(killer, i * CLIENTS + k + 1, ended) for i, killer in enumerate(killers) for k in range(CLIENTS)]
        for thread in [*killers, *clients]:
            thread.start()
        try:
            for killer in killers:
                killer.killed.wait()
            time.sleep(0.5)
        finally:
            ended.set()
            for client in clients:
                client.join()
            for guard in guards:
                if guard.process is not None:
                    guard.stop()
            for killer in killers:
                killer.over.set()
                killer.join()
        self.assertEqual([], [killer.problem for killer in killers if killer.problem])
        self.assertEqual([], [surprise for client in clients for surprise in client.surprises])
        kills = sum(killer.kills for killer in killers)

        recorded, ends = {}, {}
        for guard in guards:
            verified = subprocess.run([binary(), "audit", "verify", str(guard.audit)], capture_output=True, text=True)
            self.assertEqual((0, ""), (verified.returncode, verified.stderr))
            marks = {}  # of a session's statements, by number; a start begins anew
            for record in lines_of(guard):
                mark = MARK.search(record.get("statement", ""))
                if mark:
                    recorded.setdefault(int(mark[1]), []).append(record)
                    marks[record["session"], record["number"]] = int(mark[1])
                elif record["event"] == "done":
                    ends.setdefault(marks[record["session"], record["number"]], []).append(record)
        ran = {int(mark): command for command, mark in RAN.findall(self.cluster.log.read_text(errors="replace"))}
        refused = set().union(*(client.refused for client in clients))

        # The test would see it: all kinds of statements ran, under many kills.
        self.assertGreaterEqual(kills, KILLS / 4)
        for command in ("INSERT", "UPDATE", "DELETE"):
            self.assertGreater(list(ran.values()).count(command), 5, command)
        self.assertGreater(len(refused), 5)

        self.assertEqual({}, {mark: command for mark, command in ran.items() if mark not in recorded})
        self.assertEqual(set(), refused - set(recorded))
        # What needed a second person has the record of what let it run, and not only that it was asked for.
        self.assertEqual([], [mark for mark, command in ran.items() if command == "DELETE"
                              and not any(one.get("outcome") == "glass broken" for one in recorded[mark])])
        self.assertEqual(set(), {mark for mark in refused if mark in ran})
        # What is said of its end is so. (A crash may lose the word of it.)
        inserted = {row[0] for row in self.cluster.sql("SELECT id FROM scratch")}
        said = {how: {mark for mark, lines in ends.items() for one in lines if one.get("ended") == how}
                for how in ("committed", "rolled back")}
        self.assertGreater(len(said["committed"]), 5)
        self.assertEqual(set(), said["committed"] - set(ran))
        self.assertEqual(set(), {mark for mark in said["committed"] - inserted if ran[mark] == "INSERT"})
        self.assertEqual(set(), said["rolled back"] & inserted)
        print(f"{kills} kills, {len(ran)} statements ran, {len(refused)} were refused, "
              f"{sum(map(len, recorded.values()))} records, {len(ends)} of what came of them", file=sys.stderr)


if __name__ == "__main__":
    main()
