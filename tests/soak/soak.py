"""Soak: many kinds of clients, faults, reloads, upgrades and rotation against one guard for as long as one likes. What must
hold: it lives, its memory and its descriptors stay flat, no committed row is lost or doubled, a reload is in force when it
says so, the scripts of drivers come to their ends, and its audit log verifies.

Run by tools/soak, and for some seconds by ctest.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import psycopg
from support import guard as guard_module
from support import processes
from support import sanitizers
from support import node
from support.certificates import Authority
from support.cluster import RESET_SQL, Cluster, binaries
from support.upgrades import UpgradedGuard, adopt_successors

try:
    import asyncpg
except ImportError:
    asyncpg = None

E2E = Path(__file__).resolve().parents[1] / "e2e"
JDBC = Path("/usr/share/java/postgresql.jar")
# What drivers do by their scripts is counted, and far from any limit; not their batches of INSERTs, which would take
# most of the time.
CONFIGURATION = """policy:
  preset: interactive
  default: allow
  approvers: [bob]
  operators: [postgres]
  rules:
    - name: held
      match: {{ command: DELETE, relation: held }}
      action: {{ hold: {{ wait: 20s, evidence: trial }} }}
    - name: {policy}
      match: {{ command: UPDATE, relation: toggled }}
      action: block
    - name: drivers-counted
      match: {{ database: "soak_*", command: [UPDATE, DELETE, SELECT], runs_in_transaction: true, unparsable: false }}
      action: {{ supervise: {{ max_rows: 100000000, effects: total, exclusive_locks: allow }} }}
    - name: drivers
      match: {{ database: "soak_*" }}
      action: allow
limits: {{ connections: 200, reserved: 3 }}
client_tls: {{ mode: allow, certificate: {certificate}, key: {key} }}
audit: {{ rotate_size: 1MB, keep: 5 }}
environment: SOAK
"""
POLICIES = ("by-day", "by-night")
SCHEMA = """
CREATE ROLE alice LOGIN SUPERUSER; CREATE ROLE bob LOGIN SUPERUSER; CREATE ROLE driver LOGIN SUPERUSER;
CREATE TABLE toggled (id int);
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
            "current transaction is aborted", "connection failed", "SSL SYSCALL", "closed the connection", "57P",
            "connection was closed in the middle", "SSL connection has been closed", "unexpected eof",
            "connection reset by peer", "Connection reset by peer", "Connect call failed", "connection_lost",
            # asyncpg says so of itself where its backend was terminated between two of its statements, and does without
            # a guard.
            "cannot switch to state 15; another operation (2) is in progress")
ERRORS = (psycopg.Error, OSError) + ((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) if asyncpg else ())
# Between two upgrades at least a quarter of all time passes, so that the memory of one process can be judged.
UPGRADE_PAUSES_S = (4, 1800)
# How long a driver's script may take: some of its steps wait on purpose.
SCRIPT_S = 300
RESTART_PAUSE_S = 120


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
        self.directory = Path(tempfile.mkdtemp(prefix="pgchaperone-test-soak-"))
        self.missing = []  # drivers that are not installed here
        self.memory = {}  # KiB at each second, of each process that served
        self.policy = POLICIES[0]
        self.restarting = False
        self.cluster = Cluster(settings={"max_connections": 120})
        for name in ("soak_jdbc", "soak_node"):
            self.cluster.sql(f"CREATE DATABASE {name} TEMPLATE postgres", dbname="template1")
        self.cluster.sql(SCHEMA)
        self.pair = Authority(self.directory).issue("guard")
        self.guard = UpgradedGuard(self.cluster, "--threads", "2", configuration=self.configuration())

    def configuration(self) -> str:
        return CONFIGURATION.format(policy=self.policy, certificate=self.pair.certificate, key=self.pair.key)

    def over(self) -> bool:
        return time.monotonic() >= self.end

    def connect(self, user: str = "alice", chance=random, **options):
        return psycopg.connect(host=self.guard.host, port=self.guard.port, user=user, dbname="postgres", autocommit=True,
                               connect_timeout=20, sslmode=chance.choice(["disable", "require"]), **options)

    def worker(self, number: int, work):
        chance = random.Random(self.seed * 1000 + number)
        while not self.over():
            try:
                whole = work(chance, number) is not False
                with self.lock:
                    self.done[work.__name__ if whole else f"{work.__name__}: unfinished at the end"] += 1
            except ERRORS as error:
                text = f"{type(error).__name__}: {error}"
                with self.lock:
                    self.done[f"{work.__name__}: refused or cut off"] += 1
                    if not any(word in text for word in EXPECTED):
                        self.unexpected.append(f"{work.__name__}: {text}")
                time.sleep(0.1)
            except Exception as error:  # a thread that ends would go unnoticed
                with self.lock:
                    self.unexpected.append(f"{work.__name__}: {type(error).__name__}: {error}")
                return

    # --- clients -----------------------------------------------------------------------------------------

    def reads(self, chance, _):
        with self.connect(chance=chance) as connection:
            for _ in range(chance.randrange(1, 30)):
                assert connection.execute("SELECT sum(id) FROM wide WHERE id > %s", (chance.randrange(2000),),
                                          prepare=chance.random() < 0.5).fetchone()
            rows = connection.execute("SELECT id, text FROM wide").fetchall()
            assert len(rows) == 2000, len(rows)

    def counts(self, chance, worker):
        """Every row that was said to be committed is there once; one whose answer was lost is there or not."""
        with self.connect(chance=chance) as connection:
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
        with self.connect(chance=chance) as connection, connection.transaction():
            one, other = chance.sample(range(1, 51), 2)
            connection.execute("UPDATE accounts SET amount = amount - 1 WHERE id = %s", (one,))
            with connection.transaction():
                connection.execute("UPDATE accounts SET amount = amount + 1 WHERE id = %s", (other,))

    def is_refused(self, chance, _):
        with self.connect(chance=chance) as connection:
            try:
                connection.execute(chance.choice(["DELETE FROM accounts", "TRUNCATE accounts", "DROP TABLE wide",
                                                  "UPDATE wide SET text = ''"]))
            except psycopg.Error as error:
                if "pgchaperone" not in str(error):
                    raise
                return
            raise OSError("what destroys was let through")

    def copies(self, chance, _):
        with self.connect(chance=chance) as connection, connection.cursor() as cursor:
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
        with self.connect(chance=chance) as connection:
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

    def asyncpg_counts(self, chance, worker):
        """As counts(), by a driver that speaks the protocol by itself: binary, prepared, in batches and by cursors."""
        asyncio.run(self._asyncpg(chance, worker))

    async def _asyncpg(self, chance, worker):
        tls = ssl.create_default_context(cafile=str(self.pair.authority)) if chance.random() < 0.5 else False
        connection = await asyncpg.connect(host=self.guard.host, port=self.guard.port, user="alice", database="postgres",
                                           timeout=20, ssl=tls)
        try:
            for _ in range(10):
                keys = [(worker, chance.getrandbits(31)) for _ in range(5)]
                with self.lock:
                    self.in_doubt.update(keys)
                await connection.executemany("INSERT INTO counted VALUES ($1, $2)", keys)
                with self.lock:
                    self.in_doubt.difference_update(keys)
                    self.committed.update(keys)
                async with connection.transaction():
                    rows = [row async for row in connection.cursor("SELECT id FROM wide ORDER BY id LIMIT $1", 100, prefetch=30)]
                assert len(rows) == 100, len(rows)
            if chance.random() < 0.3:
                try:
                    await connection.execute("SELECT pg_sleep(20)", timeout=0.1)
                except asyncio.TimeoutError:
                    pass
                assert await connection.fetchval("SELECT 1") == 1
        finally:
            if chance.random() < 0.2:
                connection.terminate()
            else:
                await connection.close(timeout=20)

    def jdbc_script(self, chance, _):
        if not (self.directory / "DriverJdbc.class").exists():
            built, said = self._run(["javac", "-cp", JDBC, "-d", self.directory, E2E / "DriverJdbc.java"])
            if built != 0 and self.over():
                return False
            assert built == 0, said
        tls = chance.choice(["disable", "require"])
        url = f"jdbc:postgresql://{self.guard.host}:{self.guard.port}/soak_jdbc?user=driver&sslmode={tls}"
        return self._script("soak_jdbc", ["java", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-cp",
                                          f"{JDBC}:{self.directory}", "DriverJdbc", url])

    def node_script(self, chance, _):
        return self._script("soak_node", [self.node, "--no-deprecation", E2E / "driver_node.js"], NODE_PATH=self.node_path,
                            PGHOST=self.guard.host, PGPORT=str(self.guard.port), PGUSER="driver", PGDATABASE="soak_node",
                            PGSSLMODE=chance.choice(["disable", "no-verify"]))

    def _script(self, database: str, command: list, **environment) -> bool:
        """A driver's whole script comes to its end, through reloads and upgrades, unless its server was restarted meanwhile."""
        before = self.done["server restarts"]
        try:
            self.cluster.sql(RESET_SQL, dbname=database)
        except psycopg.OperationalError as error:
            raise ConnectionError("the server is being restarted: 57P") from error
        status, said = self._run(command, **environment)
        if status != 0 and not self.over():
            if self.restarting or self.done["server restarts"] > before:
                raise ConnectionError("the server was restarted: 57P")
            raise RuntimeError(f"the script {'hangs' if status is None else f'ended with status {status}'}: {said[-1500:]}")
        return status == 0

    def _run(self, command: list, **environment):
        """A program's exit status and what it said; None where it was still running when all is over, or for too long."""
        with open(self.directory / f"{threading.current_thread().name}.out", "w+", errors="replace") as out:
            process = processes.start(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                      env={**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC", **environment})
            until = time.monotonic() + SCRIPT_S * processes.PATIENCE
            while process.poll() is None and not self.over() and time.monotonic() < until:
                time.sleep(0.05)
            status = process.poll()
            if status is None:
                process.kill()
                process.wait()
            out.seek(0)
            return status, out.read()

    def drivers(self) -> list:
        """What is installed here of drivers that are not libpq's."""
        works = []
        if asyncpg:
            works.append(self.asyncpg_counts)
        else:
            self.missing.append("asyncpg")
        if shutil.which("java") and shutil.which("javac") and JDBC.exists():
            works.append(self.jdbc_script)
        else:
            self.missing.append("pgjdbc")
        self.node, self.node_path = node.NODE, node.node_path()
        if node.why_not():
            self.missing.append("node-postgres")
        else:
            works.append(self.node_script)
        return works

    def bench(self, chance, _):
        subprocess.run([binaries() / "pgbench", "-n", *chance.choice([["-C"], ["-M", "extended"], ["-M", "prepared"]]), "-c",
                        "3", "-t", "20", "-f", Path(__file__).with_name("select.sql"), "-h", self.guard.host, "-p",
                        str(self.guard.port), "-U", "alice", "postgres"],
                       capture_output=True, timeout=120, check=False)

    # --- faults ------------------------------------------------------------------------------------------

    def faults(self):
        try:
            self._faults()
        except (AssertionError, OSError) as error:  # of an upgrade, of a server that does not start
            self.unexpected.append(f"faults: {type(error).__name__}: {error}")
            self.end = 0

    def _faults(self):
        chance = random.Random(self.seed)
        upgrade_pause = min(max(UPGRADE_PAUSES_S[0], self.seconds / 4), UPGRADE_PAUSES_S[1])
        restart, upgrade = time.monotonic() + RESTART_PAUSE_S, time.monotonic() + upgrade_pause
        while not self.over():
            time.sleep(0.5 + chance.random())
            try:
                if time.monotonic() > upgrade:
                    self.guard.upgrade()
                    self.done["upgrades"] += 1
                    upgrade = time.monotonic() + upgrade_pause
                what = chance.randrange(3)
                if what == 0:
                    self.reload()
                elif what == 1:
                    ended = self.cluster.sql(
                        "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
                        " WHERE usename IN ('alice', 'bob') ORDER BY random() LIMIT 2) chosen")
                    self.done["backends ended"] += len(ended)
                if time.monotonic() > restart:
                    restart = time.monotonic() + RESTART_PAUSE_S
                    self.restart_server()
            except psycopg.Error:
                pass

    def reload(self):
        """Another policy, which whoever is refused by it sees."""
        self.policy = POLICIES[1 - POLICIES.index(self.policy)]
        written = self.guard.configuration_file.with_suffix(".new")
        written.write_text(self.configuration())
        written.rename(self.guard.configuration_file)
        self.guard.hang_up()
        try:
            processes.wait_until(lambda: self.policy in self.refusal(), 10, f"the policy {self.policy}", every_s=0.1)
        except TimeoutError:
            self.unexpected.append(f"after a reload the policy is not {self.policy}: {self.refusal()}")
        self.done["reloads that were seen"] += 1

    def refusal(self) -> str:
        try:
            with self.connect("postgres") as connection:
                connection.execute("UPDATE toggled SET id = 1 WHERE id = 2")
        except psycopg.Error as error:
            return str(error)
        return "not refused"

    def restart_server(self):
        self.restarting = True
        self.cluster.process.send_signal(signal.SIGINT)
        self.cluster.process.wait(60)
        port, self.cluster.port = self.cluster.port, None
        free, processes.free_port = processes.free_port, lambda: port
        try:
            self.cluster.start()
        finally:
            processes.free_port = free
        self.done["server restarts"] += 1
        self.restarting = False

    # --- all of it ---------------------------------------------------------------------------------------

    def watch(self):
        """Who serves, and how much memory it has, each second."""
        told = time.monotonic()
        while not self.over():
            time.sleep(min(1.0, max(0.0, self.end - time.monotonic())))
            if not self.guard.alive():
                self.end = 0
                return
            serving = self.guard.pid
            values = self.memory.setdefault(serving, [])
            values.append(processes.status_kib(serving, "VmRSS"))
            if time.monotonic() - told > 60:
                told = time.monotonic()
                print(f"{int(self.end - told)} s left, {values[-1] // 1024} MiB, {sum(self.done.values())} rounds", flush=True)

    def run(self) -> list:
        works = [self.reads, self.counts, self.counts, self.moves, self.is_refused, self.copies, self.asks_a_second_person,
                 self.cancels, self.leaves_half_way, self.leaves_half_way, self.bench, *self.drivers()]
        for name in self.missing:
            print(f"without {name}, which is not installed")
        threads = [threading.Thread(target=self.worker, args=(i, work), name=work.__name__) for i, work in enumerate(works)]
        threads.append(threading.Thread(target=self.watch, name="watch"))
        descriptors = len(os.listdir(f"/proc/{self.guard.pid}/fd"))
        for thread in threads:
            thread.start()
        # A server that is started again ends with the thread that did it: so this is done here.
        self.faults()
        for thread in threads:
            thread.join(90)
        return self.wrong(threads, descriptors, self.memory)

    def wrong(self, threads, descriptors, memory) -> list:
        wrong = [f"{t.name} hangs" for t in threads if t.is_alive()]
        wrong += [f"a client was told: {text}" for text in self.unexpected[:5]]
        if not self.guard.alive():
            return wrong + ["the guard has ended: " + self.guard.log_text()[-2000:]]
        if "internal error" in self.guard.log_text():
            wrong.append("the guard's log tells of an internal error")
        # What the scripts that were cut off at the end left running would have to be waited for.
        self.cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'driver'")
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
        for pid, values in memory.items():
            if len(values) < 60:
                continue
            quarter = len(values) // 4
            middle, last = statistics.median(values[2 * quarter:3 * quarter]), statistics.median(values[3 * quarter:])
            if last > middle * 1.1 and last - middle > 4096:
                wrong.append(f"the memory of process {pid} grows: {int(middle)} KiB in the third quarter of its time, "
                             f"{int(last)} KiB in the last")
        self.guard.stop()
        verified = subprocess.run([guard_module.binary(), "audit", "verify", "--partial", self.guard.audit],
                                  capture_output=True, text=True)
        if verified.returncode != 0:
            wrong.append("the audit log: " + verified.stdout + verified.stderr)
        for pid, values in memory.items():
            print(f"memory of process {pid} in MiB: {values[0] // 1024} at first, {max(values) // 1024} at most, "
                  f"{values[-1] // 1024} at last, of {len(values)} s")
        for what, count in sorted(self.done.items()):
            print(f"  {count:8} {what}")
        return wrong

    def close(self):
        self.guard.erase()
        self.cluster.erase()
        shutil.rmtree(self.directory, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.seconds:g} s")
    adopt_successors()
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
