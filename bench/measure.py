#!/usr/bin/env python3
"""Measures a direct connection to PostgreSQL and proxies before it, interleaved in one run.

Run by bench/run, which builds, starts a throw-away server and cleans up. What is measured, and how, stands in
bench/README.md. Everything happens on 127.0.0.1.
"""

import argparse
import ctypes
import datetime
import fnmatch
import glob
import http.client
import json
import math
import os
import platform
import re
import resource
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATABASE = "bench"
USER = "postgres"
CONNECT_CLIENTS = 8
DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG


def say(text):
    print(text, file=sys.stderr, flush=True)


# Proxies


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def die_with_parent():
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)


class Target:
    """What clients connect to: the server itself, or a proxy that is started here in front of it."""

    name = ""
    note = ""

    def __init__(self, options):
        self.options = options
        self.process = None
        self.port = options.server_port

    def command(self):
        """The proxy's command line; nothing: there is no proxy."""
        return None

    def run_as_other_user(self):
        return False

    def missing(self):
        """Why the target can't be measured here, or nothing."""
        return None

    def version(self):
        return ""

    def start(self):
        self.port = free_port()
        command = self.command()
        if command is None:
            self.port = self.options.server_port
            return
        other = {}
        if self.run_as_other_user() and os.geteuid() == 0:
            other = {"user": USER, "group": USER, "extra_groups": []}
        log_name = os.path.join(self.options.work, self.name + ".log")
        with open(log_name, "ab") as log:
            self.process = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            preexec_fn=die_with_parent, **other)
        deadline = time.monotonic() + 15
        while True:
            try:
                Session(self.port).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    with open(log_name, errors="replace") as log:
                        tail = log.read()[-2000:]
                    self.stop()
                    raise RuntimeError(f"{self.name} does not answer; it said:\n{tail}")
                time.sleep(0.05)

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def processes(self):
        """The ids of the proxy's processes: its own and its children's."""
        if self.process is None:
            return []
        found = [self.process.pid]
        for parent in found:
            for children in glob.glob(f"/proc/{parent}/task/*/children"):
                try:
                    with open(children) as file:
                        found += [int(pid) for pid in file.read().split()]
                except OSError:
                    pass
        return found

    def cpu_seconds(self):
        """User and system time of all the proxy's threads so far."""
        total = 0.0
        for pid in self.processes():
            try:
                # The same sum as utime + stime in /proc/PID/stat, in nanoseconds instead of ticks.
                total += time.clock_gettime(((~pid) << 3) | 2)
            except OSError:
                with open(f"/proc/{pid}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
                total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return total

    def memory_kib(self, field):
        """The sum of a field of /proc/PID/status, VmRSS or VmHWM, over the proxy's processes."""
        total = 0
        for pid in self.processes():
            with open(f"/proc/{pid}/status") as file:
                match = re.search(rf"^{field}:\s+(\d+) kB", file.read(), re.MULTILINE)
                total += int(match.group(1)) if match else 0
        return total

    def forget_peak(self):
        for pid in self.processes():
            try:
                with open(f"/proc/{pid}/clear_refs", "w") as file:
                    file.write("5")
            except OSError:
                pass  # the peak then is that since the start


class Direct(Target):
    name = "direct"


class Forwarder(Target):
    name = "forwarder"
    note = "bench/forwarder.c: bytes from one socket to the other and nothing else, one thread"

    def command(self):
        return [self.options.forwarder, str(self.port), str(self.options.server_port)]

    def missing(self):
        return None if os.path.exists(self.options.forwarder or "") else "it is not built"


def first_line(command):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10)
        return done.stdout.decode(errors="replace").splitlines()[0].strip()
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return ""


def sbin(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class HAProxy(Target):
    name = "haproxy"

    def command(self):
        path = os.path.join(self.options.work, "haproxy.cfg")
        with open(path, "w") as file:
            file.write(f"""global
    maxconn 4000
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen postgresql
    bind 127.0.0.1:{self.port}
    server postgresql 127.0.0.1:{self.options.server_port}
""")
        return [sbin("haproxy"), "-db", "-q", "-f", path]

    def missing(self):
        return None if sbin("haproxy") else "it is not installed"

    def version(self):
        return re.sub(r"^HAProxy version ([^ ]+).*", r"\1", first_line([sbin("haproxy"), "-v"]))

    note = "TCP mode, its default number of threads"


class PgBouncer(Target):
    name = "pgbouncer"
    note = "session mode, one thread; it keeps server connections for the next client, so -C is not like for like"

    def command(self):
        path = os.path.join(self.options.work, "pgbouncer.ini")
        users = os.path.join(self.options.work, "pgbouncer.users")
        with open(users, "w") as file:
            file.write(f'"{USER}" ""\n')
        with open(path, "w") as file:
            file.write(f"""[databases]
{DATABASE} = host=127.0.0.1 port={self.options.server_port} dbname={DATABASE}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = session
max_client_conn = 2000
default_pool_size = 1100
log_connections = 0
log_disconnections = 0
""")
        return [sbin("pgbouncer"), path]

    def run_as_other_user(self):
        return True  # it refuses to be root

    def missing(self):
        return None if sbin("pgbouncer") else "it is not installed"

    def version(self):
        return first_line([sbin("pgbouncer"), "--version"]).replace("PgBouncer ", "")


class Pgchaperone(Target):
    name = "pgchaperone"
    # The built-in policy would measure supervision, which no other proxy does.
    policy = "application"
    note = "the preset `application` (every statement is judged by its text), audit on"

    def command(self):
        # Each process wants a log of its own.
        audit = os.path.join(self.audit_folder(), f"audit-{self.port}.jsonl")
        options = self.options.pgchaperone_options
        own = any(one.split("=")[0] in ("-c", "--config", "--policy") for one in options)
        return [self.options.pgchaperone, "serve", "--listen", f"127.0.0.1:{self.port}",
                "--upstream", f"127.0.0.1:{self.options.server_port}", "--audit", audit,
                *([] if own else ["--policy", self.policy_name()]), *options]

    def audit_folder(self):
        return self.options.work

    def policy_name(self):
        """A preset, or the file that the policy's text is written to."""
        if "\n" not in self.policy:
            return self.policy
        path = os.path.join(self.options.work, self.name + ".yaml")
        with open(path, "w") as file:
            file.write(self.policy)
        return path

    def missing(self):
        return None if os.path.exists(self.options.pgchaperone or "") else "it is not built"

    def version(self):
        return first_line([self.options.pgchaperone, "--version"]).replace("pgchaperone ", "")


TARGETS = [Direct, Forwarder, HAProxy, PgBouncer, Pgchaperone]


# The same guard by several policies, for what supervision costs


class Application(Pgchaperone):
    name = "application"
    note = "pgchaperone, the preset `application`: nothing is supervised"

    def audit_folder(self):
        return self.options.memory


class Recorded(Pgchaperone):
    name = "recorded"
    policy = """policy:
  rules:
    - name: note-writes
      match: { class: WRITE }
      action: allow
      audit: true
"""
    note = "pgchaperone, writes are allowed and leave a record, on this machine's disk"


COUNTING = """policy:
  rules:
    - name: count-writes
      match: {{ class: WRITE }}
      action: {{ supervise: {{ max_rows: 1000, effects: {} }} }}
"""


class Tag(Application):
    name = "tag"
    policy = COUNTING.format("tag")
    note = "pgchaperone, writes are supervised with `max_rows: 1000, effects: tag`"


class Total(Application):
    name = "total"
    policy = COUNTING.format("total")
    note = "pgchaperone, writes are supervised with `max_rows: 1000, effects: total`"


class BuiltIn(Application):
    name = "built-in"
    policy = "interactive"
    note = "pgchaperone, the built-in policy: reads and writes are supervised, with all limits"


# The same guard with and without pages that people have open


class NoPages(Application):
    name = "no-pages"
    note = "pgchaperone, the preset `application`, without the approval page"


class OpenPages(Application):
    """The pages are event streams, which is what an open page is to the guard; they are opened before the first run."""

    name = "open-pages"
    pages = 100
    pages_of_a_session = 10
    note = f"the same, and {pages} approval pages are open and wait for news"
    PASSWORD = "bench"

    def command(self):
        self.web_port = free_port()
        return super().command() + ["--web-listen", f"127.0.0.1:{self.web_port}", "--web-database", "people"]

    def start(self):
        super().start()
        self.streams = []
        for _ in range(self.pages // self.pages_of_a_session):
            cookie = self.log_in()
            self.streams += [self.open(cookie) for _ in range(self.pages_of_a_session)]

    def stop(self):
        for connection in getattr(self, "streams", []):
            connection.close()
        super().stop()

    def ask(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.web_port, timeout=30)
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{method} {path}: {response.status} {response.read()[:300]}")
        return connection, response

    def log_in(self):
        connection, response = self.ask("POST", "/api/v1/session", json.dumps({"role": USER, "password": self.PASSWORD}),
                                        {"Content-Type": "application/json"})
        cookie = response.headers["Set-Cookie"].split(";")[0]
        connection.close()
        return cookie

    def open(self, cookie):
        # The connection stays open as long as the response does.
        return self.ask("GET", "/api/v1/events", headers={"Cookie": cookie})[1]


PAGES_TARGETS = [Direct, NoPages, OpenPages]


SUPERVISION_TARGETS = [Direct, Application, Recorded, Tag, Total, BuiltIn]


class Counter:
    """A relay that counts round trips: how often a client speaks after the server has spoken.

    What the server says is held back for a moment, so that what is sent without waiting for it counts as one.
    """

    HOLD_SECONDS = 0.002

    def __init__(self, server_port):
        self.server_port = server_port
        self.trips = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.listener.close()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.relay, args=(client,), daemon=True).start()

    def relay(self, client):
        server = socket.create_connection(("127.0.0.1", self.server_port))
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server_spoke = True
        with client, server:
            try:
                while True:
                    ready, _, _ = select.select([client, server], [], [])
                    if client not in ready:
                        time.sleep(self.HOLD_SECONDS)
                        ready, _, _ = select.select([client, server], [], [])
                    if client in ready:
                        data = client.recv(65536)
                        if not data:
                            return
                        self.trips += server_spoke
                        server_spoke = False
                        server.sendall(data)
                    else:
                        data = server.recv(65536)
                        if not data:
                            return
                        server_spoke = True
                        client.sendall(data)
            except OSError:
                return


# A client that speaks as little of the protocol as bulk needs


class Session:
    """A connection, logged in. Sends whole messages and counts the bytes that come back."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            body = struct.pack("!I", 196608) + f"user\0{USER}\0database\0{DATABASE}\0\0".encode()
            self.socket.sendall(struct.pack("!I", len(body) + 4) + body)
            self.until_ready()
        except BaseException:
            self.socket.close()
            raise

    def close(self):
        try:
            self.socket.sendall(b"X\0\0\0\4")
        finally:
            self.socket.close()

    def send_query(self, sql):
        body = sql.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!I", len(body) + 4) + body)

    def until(self, ending):
        """Reads until what came ends in `ending`; returns the number of bytes."""
        chunk = bytearray(1 << 20)
        tail = b""
        total = 0
        while True:
            got = self.socket.recv_into(chunk)
            if got == 0:
                raise ConnectionError("the connection was closed: " + repr(tail))
            total += got
            tail = (tail + bytes(chunk[max(0, got - 256):got]))[-256:]
            if tail.endswith(ending):
                return total
            # A reply in bulk begins with something else, and an error in the middle of one ends it early.
            if total == got and chunk[:3] == b"E\0\0":
                raise ConnectionError("the server refuses: " + repr(bytes(chunk[:got])))

    def until_ready(self):
        return self.until(b"Z\0\0\0\5I")

    def query(self, sql):
        self.send_query(sql)
        return self.until_ready()


# Workloads


class Result:
    """What one run of a workload at a target came to."""

    def __init__(self, **values):
        self.__dict__.update(values)


def percentile(ordered, part):
    return ordered[min(len(ordered) - 1, max(0, math.ceil(part * len(ordered)) - 1))] if ordered else math.nan


class Pgbench:
    """pgbench -S in one of its protocol modes."""

    kind = "transactions"

    def __init__(self, options, mode, clients, reconnect=False):
        self.options = options
        self.mode = mode
        self.clients = clients
        self.reconnect = reconnect
        self.name = f"connect-{clients}" if reconnect else f"{mode}-{clients}"

    def prepare(self):
        pass

    def measured_at(self, target):
        return True

    def script(self):
        return ["-S"]

    def run(self, target):
        work = os.path.join(self.options.work, "pgbench")
        shutil.rmtree(work, ignore_errors=True)
        os.mkdir(work)
        # Every transaction's time is logged at few clients; a sample is enough where there are many.
        command = [os.path.join(self.options.bindir, "pgbench"), "-n", *self.script(), "-M", self.mode, "-h", "127.0.0.1",
                   "-p", str(target.port), "-U", USER, "-c", str(self.clients), "-j", str(min(self.clients, 2)),
                   "-T", str(self.options.seconds), "-l", "--log-prefix", "times"]
        if self.clients > 1 and not self.reconnect:
            command += ["--sampling-rate", "0.1"]
        if self.reconnect:
            command += ["-C"]
        cpu_before = target.cpu_seconds()
        done = subprocess.run(command + [DATABASE], cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              preexec_fn=die_with_parent, timeout=self.options.seconds + 60)
        cpu = target.cpu_seconds() - cpu_before
        output = done.stdout.decode()
        count = re.search(r"number of transactions actually processed: (\d+)", output)
        tps = re.search(r"^tps = ([0-9.]+)", output, re.MULTILINE)
        if done.returncode != 0 or not count or not tps or int(count.group(1)) == 0:
            raise RuntimeError(f"pgbench failed at {target.name}: {done.stderr.decode()[-1000:]}")
        times = []
        for name in glob.glob(os.path.join(work, "times.*")):
            with open(name) as file:
                times += [int(line.split(" ", 3)[2]) for line in file]
        times.sort()
        transactions = int(count.group(1))
        return Result(rate=float(tps.group(1)), p50_us=percentile(times, 0.5), p99_us=percentile(times, 0.99),
                      cpu_us=cpu / transactions * 1e6)


class Statement(Pgbench):
    """One statement again and again, by one client."""

    SCRIPTS = {
        "select": "SELECT abalance FROM pgbench_accounts WHERE aid = :aid;",
        "update": "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;",
    }
    TRIPS_OF = 100  # transactions

    def __init__(self, options, kind, mode):
        super().__init__(options, mode, 1)
        self.statement = kind
        self.name = f"{kind}-{mode}"

    def measured_at(self, target):
        # These have nothing to say about reads.
        return self.statement != "select" or target.name not in ("recorded", "tag", "total")

    def script(self):
        path = os.path.join(self.options.work, self.statement + ".sql")
        with open(path, "w") as file:
            file.write(f"\\set aid random(1, 100000 * :scale)\n{self.SCRIPTS[self.statement]}\n")
        return ["-f", path, "-D", f"scale={self.options.scale}"]

    def trips(self, target):
        """Round trips to the server for each statement, at a guard of its own."""
        counter = Counter(self.options.server_port)
        other = type(target)(argparse.Namespace(**{**vars(self.options), "server_port": counter.port}))
        counts = []
        try:
            other.start()
            for transactions in (1, 1 + self.TRIPS_OF):
                before = counter.trips
                done = subprocess.run([os.path.join(self.options.bindir, "pgbench"), "-n", *self.script(), "-M",
                                       self.mode, "-h", "127.0.0.1", "-p", str(other.port), "-U", USER, "-t",
                                       str(transactions), DATABASE], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                      preexec_fn=die_with_parent, timeout=60)
                if done.returncode != 0:
                    raise RuntimeError(f"pgbench failed at {target.name}: {done.stderr.decode()[-1000:]}")
                counts.append(counter.trips - before)
        finally:
            other.stop()
            counter.close()
        return (counts[1] - counts[0]) / self.TRIPS_OF


class Bulk:
    """Many bytes through one session, in one statement."""

    kind = "bulk"

    def __init__(self, options):
        self.options = options

    def prepare(self):
        pass

    def before(self, session):
        pass

    def run(self, target):
        direct = Session(self.options.server_port)
        self.before(direct)
        direct.close()
        session = Session(target.port)
        cpu_before = target.cpu_seconds()
        start = time.monotonic()
        count = self.transfer(session)
        seconds = time.monotonic() - start
        cpu = target.cpu_seconds() - cpu_before
        session.close()
        return Result(rate=count / 1e6 / seconds, cpu_ms=cpu * 1e3 / (count / 1e9))


class CopyOut(Bulk):
    name = "copy-out"

    def prepare(self):
        rows = self.options.size * 1000  # of 1,000 bytes
        session = Session(self.options.server_port)
        session.query("CREATE TABLE IF NOT EXISTS bulk (line text)")
        session.query("INSERT INTO bulk SELECT rpad(n::text, 994, 'pgchaperone ') FROM generate_series(1, "
                      f"{rows}) AS n WHERE NOT EXISTS (SELECT FROM bulk)")
        session.query("VACUUM bulk")
        session.query("SELECT sum(length(line)) FROM bulk")
        session.close()

    def transfer(self, session):
        total = session.query("COPY bulk TO STDOUT")
        if total < self.options.size * 990_000:
            raise RuntimeError(f"COPY TO gave {total} bytes only")
        return total


class CopyIn(Bulk):
    name = "copy-in"

    def prepare(self):
        session = Session(self.options.server_port)
        session.query("CREATE UNLOGGED TABLE IF NOT EXISTS sink (line text)")
        session.close()

    def before(self, session):
        session.query("TRUNCATE sink")

    def transfer(self, session):
        row = (b"pgchaperone " * 90)[:999] + b"\n"
        message = b"d" + struct.pack("!I", 8 * len(row) + 4) + 8 * row  # as large as psql's
        chunk = message * 125  # 1 MB
        session.send_query("COPY sink FROM STDIN")
        session.until(b"G\0\0\0\x09\0\0\1\0\0")
        for _ in range(self.options.size):
            session.socket.sendall(chunk)
        session.socket.sendall(b"c\0\0\0\4")
        session.until_ready()
        return self.options.size * len(chunk)


class Rows(Bulk):
    name = "rows"

    def transfer(self, session):
        total = session.query(f"SELECT * FROM pgbench_accounts LIMIT {self.options.rows}")
        if total < self.options.rows * 100:
            raise RuntimeError(f"SELECT gave {total} bytes only")
        return total


class Idle:
    """Sessions that have run one query and now wait; measured at a process of its own."""

    kind = "idle"
    name = "idle"

    def __init__(self, options):
        self.options = options

    def prepare(self):
        pass

    @staticmethod
    def backends(session):
        session.send_query("SELECT 'there are ' || count(*) FROM pg_stat_activity")
        reply = b""
        while not reply.endswith(b"Z\0\0\0\5I"):
            reply += session.socket.recv(65536)
        return int(re.search(rb"there are (\d+)", reply).group(1))

    def run(self, target):
        if target.process is None:
            return None
        direct = Session(self.options.server_port)
        backends_before = self.backends(direct)
        fresh = type(target)(self.options)
        fresh.start()
        sessions = []
        try:
            before = fresh.memory_kib("VmRSS")
            for _ in range(self.options.sessions):
                session = Session(fresh.port)
                sessions.append(session)
                session.query("SELECT 1")
            time.sleep(0.5)
            kib = (fresh.memory_kib("VmRSS") - before) / self.options.sessions
        finally:
            for session in sessions:
                session.socket.close()
            fresh.stop()
        # The server needs a moment to end as many processes, and the next measurement all of the machine.
        deadline = time.monotonic() + 30
        while self.backends(direct) > backends_before and time.monotonic() < deadline:
            time.sleep(0.2)
        direct.close()
        return Result(kib=kib)


def workloads(options):
    if options.what == "supervision":
        return [Statement(options, kind, mode)
                for kind in Statement.SCRIPTS for mode in ("simple", "extended", "prepared")]
    if options.what == "pages":
        return [Pgbench(options, "prepared", clients) for clients in (1, 8)]
    every = [Pgbench(options, mode, clients)
             for mode in ("simple", "extended", "prepared") for clients in (1, 8, 64)]
    every.append(Pgbench(options, "simple", CONNECT_CLIENTS, reconnect=True))
    every += [CopyOut(options), CopyIn(options), Rows(options), Idle(options)]
    return every


def targets_of(what):
    return {"supervision": SUPERVISION_TARGETS, "pages": PAGES_TARGETS}.get(what, TARGETS)


def selected(every, patterns):
    if not patterns:
        return every
    return [one for one in every if any(fnmatch.fnmatch(one.name, pattern) for pattern in patterns)]


# The report


def median(results, field):
    values = [getattr(result, field) for result in results]
    return statistics.median(values) if values else math.nan


def number(value, digits=0):
    return "–" if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def with_ratio(value, base, digits=0):
    if value is None or base is None or math.isnan(value) or math.isnan(base) or base == 0:
        return number(value, digits)
    return f"{number(value, digits)} ({value / base:.2f})"


def table(title, head, rows):
    lines = ["", f"### {title}", "", "| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return lines


class Report:
    """Results by workload and target, and the tables made of their medians."""

    def __init__(self, options, targets, jobs):
        self.options = options
        self.targets = targets
        self.jobs = jobs
        self.results = {(job.name, target.name): [] for job in jobs for target in targets}
        self.peaks = {target.name: {} for target in targets}
        self.trips = {}

    def get(self, job, name, field):
        results = self.results.get((job.name, name), [])
        return median(results, field) if results else math.nan

    def value_table(self, title, jobs, field, base, digits=0, names=None):
        names = names or [target.name for target in self.targets]
        rows = []
        for job in jobs:
            reference = self.get(job, base, field) if base in names else math.nan
            rows.append([job.name] + [
                number(self.get(job, name, field), digits) if name == base
                else with_ratio(self.get(job, name, field), reference, digits) for name in names])
        return table(title, [""] + names, rows)

    def supervision_lines(self):
        names = [target.name for target in self.targets]
        base = "application" if "application" in names else names[0]
        out = self.heading()
        out += [f"- medians of {self.options.rounds} interleaved round{'s' * (self.options.rounds > 1)} of "
                f"{self.options.seconds} s, one client, one row of pgbench_accounts by its key for each statement",
                "- but for `recorded`, the audit log is in memory, where flushing costs nothing: a supervised write leaves a "
                "record that is flushed before it runs, so add the difference between `recorded` and `application`"]
        out += self.sources()
        out += self.value_table(f"Median latency of one statement, µs (ratio to {base})", self.jobs, "p50_us", base, 0)
        rows = []
        for job in self.jobs:
            reference = self.get(job, base, "p50_us")
            rows.append([job.name] + [number(self.get(job, name, "p50_us") - reference) for name in names
                                      if name not in ("direct", base)])
        out += table(f"What is added to it, µs (against {base})", [""] + [name for name in names if name not in ("direct", base)],
                     rows)
        out += table("Round trips to the server for each statement", [""] + names,
                     [[job.name] + [number(self.trips.get((job.name, name)), 1) for name in names]
                      for job in self.jobs])
        out += self.value_table(f"CPU of the guard for each statement, µs (ratio to {base})", self.jobs, "cpu_us", base,
                                1, [name for name in names if name != "direct"])
        out += self.value_table(f"Statements per second (ratio to {base})", self.jobs, "rate", base)
        return out

    def pages_lines(self):
        base = "no-pages"
        out = self.heading()
        out += [f"- medians of {self.options.rounds} interleaved round{'s' * (self.options.rounds > 1)} of "
                f"{self.options.seconds} s of `pgbench -S -M prepared`"]
        out += self.sources()
        for title, field, digits in (("Transactions per second", "rate", 0), ("Median latency, µs", "p50_us", 0),
                                     ("99th percentile, µs", "p99_us", 0)):
            out += self.value_table(f"{title} (ratio to {base})", self.jobs, field, base, digits)
        out += self.value_table(f"CPU of the guard per transaction, µs (ratio to {base})", self.jobs, "cpu_us", base, 1,
                                [target.name for target in self.targets if target.name != "direct"])
        return out

    def heading(self):
        return [f"## pgchaperone's benchmarks, {datetime.date.today().isoformat()}", "",
                f"- {cpu_model()}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}; clients, proxy and "
                "server share them"]

    def sources(self):
        out = [f"- {first_line([os.path.join(self.options.bindir, 'postgres'), '--version'])}"]
        for target in self.targets:
            if target.name != "direct":
                words = " ".join(word for word in (target.name, target.version()) if word)
                out += [f"- {words}: {target.note}"]
        return out

    def latency_table(self, jobs):
        names = [target.name for target in self.targets]
        rows = [[job.name] + [f"{number(self.get(job, name, 'p50_us'))} / {number(self.get(job, name, 'p99_us'))}"
                              for name in names] for job in jobs]
        return table("Latency, µs: median / 99th percentile", [""] + names, rows)

    def verdict(self, jobs):
        ratios = {}
        for base in ("pgbouncer", "forwarder"):
            values = [self.get(job, "pgchaperone", "cpu_us") / self.get(job, base, "cpu_us") for job in jobs
                      if self.results.get((job.name, base)) and self.results.get((job.name, "pgchaperone"))
                      and not job.reconnect]
            if values:
                ratios[base] = statistics.median(values)
        aims = {"pgbouncer": 1.0, "forwarder": 1.15}
        return [f"CPU of pgchaperone per transaction against {base}: {ratio:.2f} (median over the workloads "
                f"without -C; the aim is {aims[base]:.2f} or less)." for base, ratio in ratios.items()]

    def lines(self):
        if self.options.what == "supervision":
            return self.supervision_lines()
        if self.options.what == "pages":
            return self.pages_lines()
        names = [target.name for target in self.targets]
        proxies = [name for name in names if name != "direct"]
        base = "direct" if "direct" in names else names[0]
        transactions = [job for job in self.jobs if job.kind == "transactions"]
        bulk = [job for job in self.jobs if job.kind == "bulk"]
        out = self.heading()
        out += [f"- medians of {self.options.rounds} interleaved round{'s' * (self.options.rounds > 1)}, {self.options.seconds} s for each pgbench run; "
                f"COPY of {self.options.size} MB, SELECT of {self.options.rows:,} rows"]
        out += self.sources()
        if transactions:
            out += self.value_table("Transactions per second (ratio to direct)", transactions, "rate", base)
            out += self.latency_table(transactions)
            if proxies:
                cpu_base = "pgbouncer" if "pgbouncer" in names else proxies[0]
                out += self.value_table(f"CPU of the proxy per transaction, µs (ratio to {cpu_base})", transactions,
                                        "cpu_us", cpu_base, 1, proxies)
                out += [""] + self.verdict(transactions)
        if bulk:
            out += self.value_table("Bulk, MB/s (ratio to direct)", bulk, "rate", base)
            if proxies:
                cpu_base = "pgbouncer" if "pgbouncer" in names else proxies[0]
                out += self.value_table(f"CPU of the proxy for bulk, ms per GB (ratio to {cpu_base})", bulk, "cpu_ms",
                                        cpu_base, 0, proxies)
        if proxies:
            rows = []
            for group in ("transactions", "bulk"):
                if any(group in self.peaks[name] for name in proxies):
                    rows.append([f"peak, {group}, MiB"] +
                                [number(self.peaks[name].get(group, math.nan) / 1024, 1) for name in proxies])
            for job in self.jobs:
                if job.kind == "idle":
                    rows.append([f"per idle session, {self.options.sessions:,} sessions, KiB"] +
                                [number(self.get(job, name, "kib"), 1) for name in proxies])
            if rows:
                out += table("Memory", [""] + proxies, rows)
        return out


def cpu_model():
    with open("/proc/cpuinfo") as file:
        match = re.search(r"^model name\s*:\s*(.+)$", file.read(), re.MULTILINE)
    return match.group(1).strip() if match else platform.machine()


def measure(options, targets, jobs):
    report = Report(options, targets, jobs)
    for number_of_round in range(options.rounds):
        for job in jobs:
            # The order turns from round to round, so that nobody always runs on the warmer machine.
            turn = number_of_round % len(targets)
            for target in targets[turn:] + targets[:turn]:
                if hasattr(job, "measured_at") and not job.measured_at(target):
                    continue
                target.forget_peak()
                try:
                    result = job.run(target)
                except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
                    say(f"round {number_of_round + 1}: {job.name} at {target.name} failed: {error}")
                    options.failed = True
                    if target.process is not None and target.process.poll() is not None:
                        raise RuntimeError(f"{target.name} has ended with status {target.process.returncode}")
                    continue
                if result is None:
                    continue
                report.results[job.name, target.name].append(result)
                peaks = report.peaks[target.name]
                peaks[job.kind] = max(peaks.get(job.kind, 0), target.memory_kib("VmHWM"))
                shown = f"{result.rate:10,.0f}" if hasattr(result, "rate") else f"{result.kib:10.1f} KiB"
                cpu = ""
                if target.process is not None and job.kind != "idle":
                    cpu = f"{result.cpu_us:10.1f} µs" if job.kind == "transactions" else f"{result.cpu_ms:10.0f} ms/GB"
                say(f"round {number_of_round + 1} of {options.rounds}: {job.name:15} {target.name:12}{shown}{cpu}")
    for job in jobs:
        for target in targets:
            if isinstance(job, Statement) and job.measured_at(target):
                report.trips[job.name, target.name] = job.trips(target)
    return report


def parse_options():
    parser = argparse.ArgumentParser(prog="bench/run", formatter_class=argparse.RawDescriptionHelpFormatter,
                                     description="Measures pgchaperone side by side with a direct connection, a bare "
                                     "forwarder, HAProxy and PgBouncer,\nor what supervision costs, and prints tables "
                                     "in Markdown.",
                                     epilog="proxies:\n"
                                     "  workloads: simple-1 simple-8 simple-64 extended-... prepared-... "
                                     "connect-8 copy-out copy-in rows idle\n"
                                     "  targets: " + " ".join(target.name for target in TARGETS) + "\n"
                                     "supervision:\n"
                                     "  workloads: select-simple select-extended select-prepared update-...\n"
                                     "  targets: " + " ".join(target.name for target in SUPERVISION_TARGETS) + "\n"
                                     "pages:\n"
                                     "  workloads: prepared-1 prepared-8\n"
                                     "  targets: " + " ".join(target.name for target in PAGES_TARGETS))
    parser.add_argument("what", nargs="?", choices=("proxies", "supervision", "pages"), default="proxies",
                        help="what is measured: pgchaperone beside other proxies (the default), or what it costs to "
                        "count a statement's effects before it commits, or to have a hundred approval pages open")
    parser.add_argument("--quick", action="store_true", help="one short round with small bulk: does it work?")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds (default: 3)")
    parser.add_argument("--seconds", type=int, metavar="S", help="length of each pgbench run (default: 5; "
                        "supervision: 2)")
    parser.add_argument("--size", type=int, metavar="MB", help="size of the COPYs (default: 500)")
    parser.add_argument("--rows", type=int, metavar="N", help="rows of the SELECT (default: 1,000,000)")
    parser.add_argument("--sessions", type=int, metavar="N", help="idle sessions (default: 1,000)")
    parser.add_argument("--only", metavar="NAME,...", help="only these workloads; * and ? as in file names")
    parser.add_argument("--targets", metavar="NAME,...", help="only these targets")
    parser.add_argument("--save", metavar="NAME", help="write the tables to bench/results/NAME.md too")
    parser.add_argument("--pgchaperone-options", metavar="OPTIONS", default="",
                        help="further options for pgchaperone serve, separated by blanks")
    for name in ("--work", "--bindir", "--pgchaperone", "--forwarder"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--server-port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--check-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    supervision = options.what == "supervision"
    small = supervision or options.what == "pages"
    defaults = {"rounds": (3, 1), "seconds": (2 if supervision else 5, 1), "size": (500, 50),
                "rows": (100_000 if small else 1_000_000, 100_000),
                "sessions": (1000, 100)}
    for name, (normal, quick) in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else normal)
        elif getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if options.rows > 1_000_000:
        parser.error("--rows can be 1,000,000 at most")
    if options.sessions > 1000:
        parser.error("--sessions can be 1,000 at most")
    options.pgchaperone_options = options.pgchaperone_options.split()
    options.only = options.only.split(",") if options.only else []
    options.targets = options.targets.split(",") if options.targets else []
    options.scale = max(1, math.ceil(options.rows / 100_000))
    names = [target.name for target in targets_of(options.what)]
    for name in options.targets:
        if name not in names:
            parser.error(f"there is no target {name!r}; there are {', '.join(names)}")
    for pattern in options.only:
        if not selected(workloads(options), [pattern]):
            parser.error(f"there is no workload {pattern!r}; see --help")
    if options.save and not re.fullmatch(r"[A-Za-z0-9._-]+", options.save):
        parser.error("--save takes a plain name")
    options.failed = False
    options.memory = options.work
    return options


def prepare_server(options):
    def client(program, *arguments):
        done = subprocess.run([os.path.join(options.bindir, program), "-h", "127.0.0.1", "-p",
                               str(options.server_port), "-U", USER, *arguments],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stdout.decode()[-1000:]}")

    client("createdb", DATABASE)
    if options.what == "pages":
        client("psql", "-q", "-d", DATABASE, "-c", f"ALTER ROLE {USER} PASSWORD '{OpenPages.PASSWORD}'")
    client("pgbench", "-i", "-q", "-I", "dtGvp", "-s", str(options.scale), DATABASE)


def main():
    options = parse_options()
    if options.check_only:
        return 0
    # Each session through a proxy takes a descriptor here and two there.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(hard, 8192)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    jobs = selected(workloads(options), options.only)
    targets = []
    if options.what != "proxies" and os.access("/dev/shm", os.W_OK):
        options.memory = tempfile.mkdtemp(prefix="pgchaperone-bench.", dir="/dev/shm")
    try:
        for kind in targets_of(options.what):
            if options.targets and kind.name not in options.targets:
                continue
            target = kind(options)
            why = target.missing()
            if why:
                say(f"{target.name} is left out: {why}")
                options.failed = True
                continue
            targets.append(target)
        say("Filling the database...")
        prepare_server(options)
        for job in jobs:
            job.prepare()
        for target in targets:
            target.start()
            warm_up = Pgbench(argparse.Namespace(**{**vars(options), "seconds": 1}), "simple", 2)
            warm_up.run(target)
        report = measure(options, targets, jobs)
    finally:
        for target in targets:
            target.stop()
        if options.memory != options.work:
            shutil.rmtree(options.memory, ignore_errors=True)
    text = "\n".join(report.lines()) + "\n"
    print(text, end="", flush=True)
    if options.save:
        folder = os.path.join(ROOT, "bench", "results")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, options.save + ".md")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        say(f"The tables are in {os.path.relpath(path, ROOT)}.")
    return 1 if options.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, RuntimeError) as error:
        say(f"bench/run: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
