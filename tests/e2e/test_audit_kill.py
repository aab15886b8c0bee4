"""The guard is killed by SIGKILL at any moment, under load, again and again. Then its audit log is held against the
server's own: nothing that needs a record took effect, or was told to a client, without one.

$PGCHAPERONE_KILLS says for how many seconds (20 without it)."""

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
SECONDS = float(os.environ.get("PGCHAPERONE_KILLS", "20"))
CLIENTS = 4
# What the guard asks for itself says nothing of what has run.
RAN = re.compile(r"LOG:  (?:statement|execute [^:]*): (INSERT|UPDATE|DELETE)[^\n]*/\* mark (\d+) \*/")
MARK = re.compile(r"/\* mark (\d+) \*/")


class Client(threading.Thread):
    """Sends statements, connecting again whenever the guard is there, and notes what it was told of."""

    def __init__(self, guard, number: int, ended: threading.Event):
        super().__init__()
        self.guard = guard
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
                time.sleep(0.002)  # killed, or not there yet
            except psycopg.Error as error:
                self.surprises.append(error)
                return


@needs_guard
class AuditKill(EndToEnd):
    configuration = POLICY
    cluster_options = {"settings": {"log_statement": "all", "max_connections": "200"}}

    def test_nothing_takes_effect_without_its_record(self):
        chance = random.Random(7)
        guard = Guard(self.cluster, "--audit-rotate-size", "100kB", configuration=POLICY)
        self.addCleanup(guard.erase)
        ended = threading.Event()
        clients = [Client(guard, i, ended) for i in range(1, CLIENTS + 1)]
        for client in clients:
            client.start()
        kills = 0
        until = time.monotonic() + SECONDS
        try:
            while time.monotonic() < until:
                time.sleep(chance.uniform(0.0, 0.08))
                guard.process.send_signal(signal.SIGKILL)
                guard.process.wait()
                guard.process = None
                kills += 1
                guard.start()
            time.sleep(0.5)
        finally:
            ended.set()
            for client in clients:
                client.join()
        guard.stop()
        self.assertEqual([], [surprise for client in clients for surprise in client.surprises])

        verified = subprocess.run([binary(), "audit", "verify", str(guard.audit)], capture_output=True, text=True)
        self.assertEqual((0, ""), (verified.returncode, verified.stderr))
        recorded = {}
        for file in [*guard.audit.parent.glob("audit.jsonl.2*"), guard.audit]:
            lines = subprocess.run(["gzip", "-dc", str(file)] if file.suffix == ".gz" else ["cat", str(file)],
                                   capture_output=True, text=True, check=True).stdout
            for line in lines.splitlines():
                record = json.loads(line)
                mark = MARK.search(record.get("statement", ""))
                if mark:
                    recorded.setdefault(int(mark[1]), []).append(record)
        ran = {int(mark): command for command, mark in RAN.findall(self.cluster.log.read_text(errors="replace"))}
        refused = set().union(*(client.refused for client in clients))

        # The test would see it: all kinds of statements ran, under many kills.
        self.assertGreater(kills, SECONDS / 2)
        for command in ("INSERT", "UPDATE", "DELETE"):
            self.assertGreater(list(ran.values()).count(command), 5, command)
        self.assertGreater(len(refused), 5)

        self.assertEqual({}, {mark: command for mark, command in ran.items() if mark not in recorded})
        self.assertEqual(set(), refused - set(recorded))
        # What needed a second person has the record of what let it run, and not only that it was asked for.
        self.assertEqual([], [mark for mark, command in ran.items() if command == "DELETE"
                              and not any(one.get("outcome") == "glass broken" for one in recorded[mark])])
        self.assertEqual(set(), {mark for mark in refused if mark in ran})
        print(f"{kills} kills, {len(ran)} statements ran, {len(refused)} were refused, "
              f"{sum(map(len, recorded.values()))} records", file=sys.stderr)


if __name__ == "__main__":
    main()
