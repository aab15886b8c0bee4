"""Throw-away PostgreSQL servers. The first test makes a template by initdb, with the roles and tables below; each
server is a copy of it, listens on a free port of 127.0.0.1 and on a Unix-domain socket, and is erased at the end.

Durability is off: nothing here has to survive. Everything else is as a production server has it.
"""

import fcntl
import glob
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg

from support import processes

# What tests find in database `postgres`. Tests that write restore it with Cluster.reset(). Each password is the
# user's name with "-secret" behind it; the method asked of a user is in HBA.
SETUP_SQL = """\
SET password_encryption = 'scram-sha-256';
CREATE ROLE app LOGIN;
CREATE ROLE person_scram LOGIN PASSWORD 'person_scram-secret';
CREATE ROLE person_password LOGIN PASSWORD 'person_password-secret';
CREATE ROLE person_certificate LOGIN;
CREATE ROLE person_rejected LOGIN PASSWORD 'person_rejected-secret';
CREATE ROLE person_limited LOGIN CONNECTION LIMIT 1;
SET password_encryption = 'md5';
CREATE ROLE person_md5 LOGIN PASSWORD 'person_md5-secret';
CREATE TABLE items (id integer PRIMARY KEY, name text NOT NULL UNIQUE, quantity integer CHECK (quantity >= 0));
CREATE TABLE orders (id integer PRIMARY KEY, item integer REFERENCES items DEFERRABLE INITIALLY DEFERRED, note text);
CREATE TABLE scratch (id integer, payload text);
INSERT INTO items SELECT i, 'item ' || i, i * 10 FROM generate_series(1, 20) i;
INSERT INTO orders SELECT i, 1 + i % 20, 'order ' || i FROM generate_series(1, 50) i;
GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC;
GRANT CREATE ON SCHEMA public TO PUBLIC;
"""

RESET_SQL = """\
TRUNCATE scratch, orders, items;
INSERT INTO items SELECT i, 'item ' || i, i * 10 FROM generate_series(1, 20) i;
INSERT INTO orders SELECT i, 1 + i % 20, 'order ' || i FROM generate_series(1, 50) i;
"""

HBA = """\
local   all         all                               trust
local   replication all                               trust
host    all         person_scram         127.0.0.1/32 scram-sha-256
host    all         person_password      127.0.0.1/32 password
host    all         person_md5           127.0.0.1/32 md5
host    all         person_rejected      127.0.0.1/32 reject
hostssl all         person_certificate   127.0.0.1/32 cert
host    all         all                  127.0.0.1/32 trust
host    replication all                  127.0.0.1/32 trust
"""

SETTINGS = {
    "fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off",
    "wal_level": "logical", "max_wal_senders": "8", "max_replication_slots": "8",
    "max_prepared_transactions": "4", "max_connections": "60", "shared_buffers": "32MB",
    "jit": "off", "synchronize_seqscans": "off", "log_min_messages": "warning", "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "timezone": "UTC", "lc_messages": "C", "track_functions": "all",
}


def binaries() -> Path:
    """Where PostgreSQL's server programs are: $PGCHAPERONE_PG_BIN, else the newest that Debian installed."""
    if os.environ.get("PGCHAPERONE_PG_BIN"):
        return Path(os.environ["PGCHAPERONE_PG_BIN"])
    found = glob.glob("/usr/lib/postgresql/*/bin/postgres")
    if not found:
        raise RuntimeError("no PostgreSQL server found in /usr/lib/postgresql; set PGCHAPERONE_PG_BIN")
    return Path(max(found, key=lambda p: float(p.split("/")[4]))).parent


def version() -> int:
    """The server's major version."""
    text = subprocess.run([binaries() / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"\) (\d+)", text).group(1))


def _template() -> Path:
    recipe = hashlib.sha256((SETUP_SQL + str(binaries())).encode()).hexdigest()[:12]
    account = processes.postgres_account()
    uid = account.pw_uid if account else os.getuid()
    root = Path(tempfile.gettempdir()) / f"pgchaperone-test-template-{uid}"
    root.mkdir(mode=0o700, exist_ok=True)
    processes.give_to_postgres(root)
    if root.lstat().st_uid != uid or root.is_symlink():
        raise RuntimeError(f"{root} belongs to somebody else")
    template = root / f"{version()}-{recipe}"
    with open(root / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            fresh = root / f"{template.name}.new"
            shutil.rmtree(fresh, ignore_errors=True)
            as_postgres = {**processes.as_postgres(), "cwd": "/", "capture_output": True, "text": True}
            subprocess.run([binaries() / "initdb", "-D", fresh, "-U", "postgres", "--no-sync", "-A", "trust",
                            "--locale=C", "-E", "UTF8", "--no-instructions"], check=True, **as_postgres)
            single = subprocess.run([binaries() / "postgres", "--single", "-D", fresh, "postgres"],
                                    input=SETUP_SQL, **as_postgres)
            if single.returncode or "ERROR" in single.stderr:
                raise RuntimeError(f"the template's tables could not be made: {single.stderr}")
            fresh.rename(template)
    return template


class Cluster:
    """A running server. `host`, `port` and `socket_directory` say where."""

    host = "127.0.0.1"

    def __init__(self, settings: dict = None, hba: str = HBA, tls=None, hba_extra: str = ""):
        """`tls` is a certificates.Pair for the server; with it come TLS 1.2 and up and the authority for clients'
        certificates. `hba_extra` goes before HBA's lines."""
        self.directory = Path(tempfile.mkdtemp(prefix="pgchaperone-test-"))
        processes.give_to_postgres(self.directory)
        self.data = self.directory / "data"
        self.log = self.directory / "server.log"
        self.socket_directory = str(self.directory)
        self.process = None
        subprocess.run(["cp", "-a", _template(), self.data], check=True)
        self.settings = {**SETTINGS, **(settings or {})}
        if tls:
            self.settings.update(ssl="on", **{
                "ssl_cert_file": self._own_copy(tls.certificate, "server.crt"),
                "ssl_key_file": self._own_copy(tls.key, "server.key"),
                "ssl_ca_file": self._own_copy(tls.authority, "ca.crt")})
        (self.data / "pg_hba.conf").write_text(hba_extra + hba)
        try:
            self.start()
        except BaseException:
            self.erase()
            raise

    def _own_copy(self, source, name: str) -> str:
        target = self.directory / name
        shutil.copy(source, target)
        os.chmod(target, 0o600)
        processes.give_to_postgres(target)
        return str(target)

    def start(self) -> None:
        for _ in range(5):  # another program may take the port between our looking and the server's binding
            self.port = processes.free_port()
            lines = [f"{name} = '{value}'" for name, value in self.settings.items()]
            lines += [f"port = {self.port}", "listen_addresses = '127.0.0.1'",
                      f"unix_socket_directories = '{self.socket_directory}'"]
            (self.data / "postgresql.auto.conf").write_text("\n".join(lines) + "\n")
            with open(self.log, "a") as log:
                self.process = processes.start([binaries() / "postgres", "-D", self.data], cwd="/", stdout=log,
                                               stderr=log, stdin=subprocess.DEVNULL,
                                               death_signal=signal.SIGINT, **processes.as_postgres())
            try:
                processes.wait_until(self._answers, 30, "the server to answer", every_s=0.05)
                return
            except ChildProcessError:
                continue
        raise RuntimeError("the server does not start: " + self.log.read_text()[-2000:])

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise ChildProcessError(self.log.read_text()[-2000:])
        try:
            self.connect().close()
            return True
        except psycopg.OperationalError:
            return False

    def starts(self) -> int:
        """How often the server became ready, also after the crash of a backend."""
        return self.log.read_text(errors="replace").count("database system is ready to accept connections")

    def wait_for_restart(self, starts_before: int) -> None:
        """Waits until a server whose backend was killed has started all of them again."""
        processes.wait_until(lambda: self.starts() > starts_before and self._answers(), 30, "the server to recover")

    def connect(self, **options) -> psycopg.Connection:
        """A connection for the test's own bookkeeping, past the guard."""
        options = {"host": self.socket_directory, "port": self.port, "user": "postgres", "dbname": "postgres",
                   "autocommit": True, **options}
        return psycopg.connect(**options)

    def sql(self, text: str, parameters=None, **options) -> list:
        """Runs a statement past the guard and returns its rows."""
        with self.connect(**options) as connection:
            cursor = connection.execute(text, parameters)
            return cursor.fetchall() if cursor.description else []

    def reset(self) -> None:
        self.sql(RESET_SQL)

    def wait_for_backends(self, count: int, where: str = "true", timeout_s: float = 10.0) -> None:
        """Waits until so many client sessions match the condition on pg_stat_activity."""
        text = ("SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('client backend', 'walsender') "
                f"AND pid <> pg_backend_pid() AND ({where})")

        def connected():
            try:
                return self.connect()
            except psycopg.OperationalError:
                return None  # those who are waited for may take all the places

        with processes.wait_until(connected, timeout_s, "a place for one more session") as connection:
            processes.wait_until(lambda: connection.execute(text).fetchone()[0] == count, timeout_s,
                                 f"{count} sessions where {where}", every_s=0.03)

    def stop(self, by: int = signal.SIGINT) -> None:
        if self.process:
            processes.stop(self.process, by, 20)
            self.process = None

    def erase(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)
