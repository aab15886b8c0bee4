"""Soak: many kinds of clients, faults, reloads and rotation against one guard for as long as one likes. What must hold:
it lives, its memory and its descriptors stay flat, no committed row is lost or doubled, and its audit log verifies.

Run by tools/soak, and for some seconds by ctest.
"""

import argparse
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import psycopg
from support import guard as guard_module
from support import processes
from support import sanitizers
from support.cluster import Cluster, binaries
from support.guard import Guard

POLICY = """policy:
  preset: interactive
  default: allow
  approvers: [bob]
  operators: [postgres]
  rules:
    - name: held
      match: { command: DELETE, relation: held }
      action: { hold: { wait: 20s, evidence: trial } }
limits: { connections: 200, reserved: 3 }
audit: { rotate_size: 1MB, keep: 5 }
environment: SOAK
"""
SCHEMA = """
CREATE ROLE alice LOGIN SUPERUSER; CREATE ROLE bob LOGIN SUPERUSER;
CREATE TABLE counted (worker int, number int, UNIQUE (worker, number));
CREATE TABLE accounts AS SELECT i AS id, 100 AS amount FROM generate_series(1, 50) i;
CREATE TABLE held (id int);
CREATE TABLE wide AS SELECT i AS id, repeat('x', 200) AS text FROM generate_series(1, 2000) i;
"""
# What a client may be told here without anything being wrong: the guard's own words, a server that was restarted, a
# backend that was terminated, a deadlock.
EXPECTED = ("pgchaperone", "terminating connection", "the database system is", "server closed the connection",
            "connection is closed", "the connection is lost", "canceling statement", "deadlock detected", "consuming input",
            "could not receive data", "could not send data", "Connection refused", "in failed sql transaction",
            "current transaction is aborted", "connection failed", "SSL SYSCALL", "closed the connection", "57P")


class Soak:
    def __init__(self, seconds: float, seed: int):
        self.end = time.monotonic() + seconds
        self.seconds = seconds
        self.seed = seed
        self.done = Counter()
        self.unexpected = []
        self.committed = set()
        self.in_doubt = set()
        self.lock = threading.Lock()
        self.cluster = Cluster(settings={"max_connections": 120})
        self.cluster.sql(SCHEMA)
        self.guard = Guard(self.cluster, "--threads", "2", configuration=POLICY)

    def over(self) -> bool:
        return time.monotonic() >= self.end

    def connect(self, user: str = "alice", **options):
        return psycopg.connect(host=self.guard.host, port=self.guard.port, user=user, dbname="postgres",
                               autocommit=True, connect_timeout=20, **options)

    def worker(self, number: int, work):
        chance = random.Random(self.seed * 1000 + number)
        while not self.over():
            try:
                work(chance, number)
                with self.lock:
                    self.done[work.__name__] += 1
            except (psycopg.Error, OSError) as error:
                text = str(error)
                with self.lock:
                    self.done[f"{work.__name__}: refused or cut off"] += 1
                    if not any(word in text for word in EXPECTED):
                        self.unexpected.append(f"{work.__name__}: {text}")
                time.sleep(0.1)

    # --- clients -----------------------------------------------------------------------------------------

    def reads(self, chance, _):
        with self.connect() as connection:
            for _ in range(chance.randrange(1, 30)):
                assert connection.execute("SELECT sum(id) FROM wide WHERE id > %s", (chance.randrange(2000),),
                                          prepare=chance.random() < 0.5).fetchone()
            rows = connection.execute("SELECT id, text FROM wide").fetchall()
            assert len(rows) == 2000, len(rows)

    def counts(self, chance, worker):
        """Every row that was said to be committed is there once; one whose answer was lost is there or not."""
        with self.connect() as connection:
            for _ in range(20):
                key = (worker, chance.getrandbits(31))
                with self.lock:
                    self.in_doubt.add(key)
                with connection.transaction():
                    connection.execute("INSERT INTO counted VALUES (%s, %s)", key)
                with self.lock:
                    self.in_doubt.discard(key)
                    self.committed.add(key)

    def moves(self, chance, _):
        with self.connect() as connection, connection.transaction():
            one, other = chance.sample(range(1, 51), 2)
            connection.execute("UPDATE accounts SET amount = amount - 1 WHERE id = %s", (one,))
            with connection.transaction():
                connection.execute("UPDATE accounts SET amount = amount + 1 WHERE id = %s", (other,))

    def is_refused(self, chance, _):
        with self.connect() as connection:
            try:
                connection.execute(chance.choice(["DELETE FROM accounts", "TRUNCATE accounts", "DROP TABLE wide",
                                                  "UPDATE wide SET text = ''"]))
            except psycopg.Error as error:
                if "pgchaperone" not in str(error):
                    raise
                return
            raise OSError("what destroys was let through")

    def copies(self, chance, _):
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE mine (id int, text text)")
            with cursor.copy("COPY mine FROM STDIN") as copy:
                for number in range(chance.randrange(2000)):
                    copy.write_row((number, "y" * 100))
            with cursor.copy("COPY mine TO STDOUT") as copy:
                for _ in copy:
                    pass

    def asks_a_second_person(self, _, __):
        with self.connect() as connection, self.connect("bob") as bob:
            tickets = []
            connection.add_notice_handler(lambda notice: tickets.append(notice.message_primary))
            asking = threading.Thread(target=lambda: self._held(connection))
            asking.start()
            try:
                for _ in range(100):
                    pending = bob.execute("SHOW chaperone.pending").fetchall()
                    if pending:
                        try:
                            bob.execute(f"CALL chaperone.approve('{pending[0][0]}')")
                        except psycopg.Error as error:
                            if "pgchaperone" not in str(error):
                                raise
                    if not asking.is_alive():
                        break
                    time.sleep(0.1)
            finally:
                asking.join(30)

    def _held(self, connection):
        try:
            connection.execute("DELETE FROM held")
        except psycopg.Error:
            pass

    def cancels(self, chance, _):
        with self.connect() as connection:
            threading.Timer(chance.random() * 0.2, connection.cancel).start()
            try:
                connection.execute("SELECT pg_sleep(0.15)")
            except psycopg.errors.QueryCanceled:
                pass
            time.sleep(0.2)
            connection.execute("SELECT 1")

    def leaves_half_way(self, chance, _):
        with socket.create_connection((self.guard.host, self.guard.port), 10) as raw:
            startup = b"\0\3\0\0user\0alice\0database\0postgres\0\0"
            whole = (len(startup) + 4).to_bytes(4, "big") + startup
            raw.sendall(whole[:chance.randrange(len(whole) + 1)])
            if chance.random() < 0.3:
                raw.sendall(os.urandom(chance.randrange(200)))
            if chance.random() < 0.5:
                raw.settimeout(0.05)
                try:
                    raw.recv(1000)
                except OSError:
                    pass
        time.sleep(0.02)

    def bench(self, chance, _):
        subprocess.run([binaries() / "pgbench", "-n", *chance.choice([["-C"], ["-M", "extended"], ["-M", "prepared"]]), "-c",
                        "3", "-t", "20", "-f", Path(__file__).with_name("select.sql"), "-h", self.guard.host, "-p",
                        str(self.guard.port), "-U", "alice", "postgres"],
                       capture_output=True, timeout=120, check=False)

    # --- faults ------------------------------------------------------------------------------------------

    def faults(self):
        chance = random.Random(self.seed)
        restart = time.monotonic() + 60
        while not self.over():
            time.sleep(0.5 + chance.random())
            try:
                what = chance.randrange(3)
                if what == 0:
                    self.guard.hang_up()
                    self.done["reloads"] += 1
                elif what == 1:
                    ended = self.cluster.sql(
                        "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
                        " WHERE usename IN ('alice', 'bob') ORDER BY random() LIMIT 2) chosen")
                    self.done["backends ended"] += len(ended)
                if time.monotonic() > restart:
                    restart = time.monotonic() + 60
                    self.cluster.process.send_signal(signal.SIGINT)
                    self.cluster.process.wait(60)
                    port, self.cluster.port = self.cluster.port, None
                    free, processes.free_port = processes.free_port, lambda: port
                    try:
                        self.cluster.start()
                    finally:
                        processes.free_port = free
                    self.done["server restarts"] += 1
            except psycopg.Error:
                pass

    # --- all of it ---------------------------------------------------------------------------------------

    def run(self) -> list:
        works = [self.reads, self.counts, self.counts, self.moves, self.is_refused, self.copies, self.asks_a_second_person,
                 self.cancels, self.leaves_half_way, self.leaves_half_way, self.bench]
        threads = [threading.Thread(target=self.worker, args=(i, work), name=work.__name__) for i, work in enumerate(works)]
        threads.append(threading.Thread(target=self.faults, name="faults"))
        descriptors = len(os.listdir(f"/proc/{self.guard.pid}/fd"))
        for thread in threads:
            thread.start()
        memory = []
        told = time.monotonic()
        while not self.over():
            time.sleep(min(1.0, max(0.0, self.end - time.monotonic())))
            if not self.guard.alive():
                self.end = 0
                break
            memory.append(processes.status_kib(self.guard.pid, "VmRSS"))
            if time.monotonic() - told > 60:
                told = time.monotonic()
                print(f"{int(self.end - told)} s left, {memory[-1] // 1024} MiB, {sum(self.done.values())} rounds", flush=True)
        for thread in threads:
            thread.join(90)
        return self.wrong(threads, descriptors, memory)

    def wrong(self, threads, descriptors, memory) -> list:
        wrong = [f"{t.name} hangs" for t in threads if t.is_alive()]
        wrong += [f"a client was told: {text}" for text in self.unexpected[:5]]
        if not self.guard.alive():
            return wrong + ["the guard has ended: " + self.guard.log_text()[-2000:]]
        if "internal error" in self.guard.log_text():
            wrong.append("the guard's log tells of an internal error")
        rows = self.cluster.sql("SELECT worker, number FROM counted")
        found = set(rows)
        if len(found) != len(rows) or not self.committed <= found or not found <= self.committed | self.in_doubt:
            wrong.append(f"of {len(self.committed)} committed rows {len(self.committed - found)} are missing, and "
                         f"{len(found - self.committed - self.in_doubt)} are there that nobody committed")
        total = self.cluster.sql("SELECT sum(amount) FROM accounts")[0][0]
        if total != 5000:
            wrong.append(f"the accounts add up to {total} and not to 5000")
        try:
            processes.wait_until(lambda: len(os.listdir(f"/proc/{self.guard.pid}/fd")) <= descriptors + 8, 15, "descriptors")
        except TimeoutError:
            wrong.append(f"it holds {len(os.listdir(f'/proc/{self.guard.pid}/fd'))} descriptors, and began with {descriptors}")
        # The first half is for warming up: caches fill, and the allocator keeps what it had once.
        if len(memory) >= 60:
            quarter = len(memory) // 4
            middle, last = statistics.median(memory[2 * quarter:3 * quarter]), statistics.median(memory[3 * quarter:])
            if last > middle * 1.1 and last - middle > 4096:
                wrong.append(f"its memory grows: {int(middle)} KiB in the third quarter, {int(last)} KiB in the last")
        self.guard.stop()
        verified = subprocess.run([guard_module.binary(), "audit", "verify", "--partial", self.guard.audit],
                                  capture_output=True, text=True)
        if verified.returncode != 0:
            wrong.append("the audit log: " + verified.stdout + verified.stderr)
        print(f"memory in MiB: {memory[0] // 1024 if memory else '?'} at first, {max(memory, default=0) // 1024} at most, "
              f"{memory[-1] // 1024 if memory else '?'} at last")
        for what, count in sorted(self.done.items()):
            print(f"  {count:8} {what}")
        return wrong

    def close(self):
        self.guard.erase()
        self.cluster.erase()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.seconds:g} s")
    soak = Soak(arguments.seconds, arguments.seed)
    try:
        wrong = soak.run()
    finally:
        soak.close()
    report = sanitizers.new_reports()
    if report:
        wrong.append(f"a program has left a sanitizer's report: {report}")
    for one in wrong:
        print("WRONG: " + one)
    print("1 passed, 0 failed" if not wrong else "0 passed, 1 failed")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
