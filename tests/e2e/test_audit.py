"""The audit log in operation: rotated and compressed under load, killed at any moment, and verified as a whole."""

import gzip
import hashlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import processes
from support.e2e import EndToEnd, main, needs_guard
from support.guard import Guard, binary, schema_validator
from support.watch import Watcher, port

RECORD_EVERYTHING = """policy:
  default: allow
  unparsable: allow
  rules:
    - name: note
      match: { command: INSERT }
      action: allow
      audit: statement+parameters
    - name: no-unbounded-writes
      match: { command: [UPDATE, DELETE], unbounded: true }
      action: block
"""


def audit(*arguments, **options):
    return subprocess.run([binary(), "audit", *map(str, arguments)], capture_output=True, text=True,
                          timeout=60 * processes.PATIENCE, **options)


def old_files(log: Path) -> list:
    return sorted(one for one in log.parent.iterdir() if one.name.startswith(log.name + ".2"))


def lines_of(file: Path) -> list:
    with (gzip.open if file.suffix == ".gz" else open)(file, "rt") as lines:
        return [json.loads(line) for line in lines]


def records(log: Path) -> list:
    files = [one for one in old_files(log) if one.suffix != ".tmp"]
    plain = {str(one) for one in files}
    files = [one for one in files if one.suffix != ".gz" or str(one)[:-3] not in plain]
    found = [record for file in [*files, log] if file.exists() for record in lines_of(file)]
    return sorted(found, key=lambda record: record["seq"])


class Load:
    """Clients that insert numbers one by one, each of which leaves a record, until they are told to stop."""

    def __init__(self, guard, clients: int = 4):
        self.guard = guard
        self.done = []
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(i,)) for i in range(clients)]
        for thread in self.threads:
            thread.start()

    def _run(self, client: int) -> None:
        number = client * 1_000_000
        try:
            with psycopg.connect(host=self.guard.host, port=self.guard.port, user="postgres", dbname="postgres",
                                 autocommit=True) as connection:
                while not self.ended.is_set():
                    number += 1
                    connection.execute(f"INSERT INTO scratch VALUES ({number}, 'load')")
                    self.done.append(number)
        except psycopg.OperationalError:
            pass  # the guard was killed

    def end(self) -> list:
        self.ended.set()
        for thread in self.threads:
            thread.join()
        return self.done


@needs_guard
class Audit(EndToEnd):
    configuration = RECORD_EVERYTHING

    def setUp(self):
        self.cluster.sql("TRUNCATE scratch")

    def guard_with(self, *options, configuration=RECORD_EVERYTHING) -> Guard:
        guard = Guard(self.cluster, *options, configuration=configuration)
        self.addCleanup(guard.erase)
        return guard

    def assert_intact(self, guard, *options) -> str:
        result = audit("verify", *options, guard.audit)
        self.assertEqual((0, ""), (result.returncode, result.stderr))
        return result.stdout

    def test_a_log_is_rotated_and_compressed_under_load(self):
        guard = self.guard_with("--audit-rotate-size", "20kB")
        load = Load(guard)
        # While files are rotated and compressed, the whole can be verified.
        for _ in range(5):
            self.assert_intact(guard)
        processes.wait_until(lambda: len(old_files(guard.audit)) > 10, 30, "ten old files")
        done = load.end()

        def outcomes() -> int:
            try:
                return len({record["seq"] for record in records(guard.audit) if record["event"] == "done"})
            except (OSError, EOFError, ValueError):
                return 0  # a line is being written, or a file compressed

        # The last of them may fill a file once more.
        processes.wait_until(lambda: outcomes() >= len(done), 20, "what came of all to be recorded")
        processes.wait_until(lambda: all(one.suffix == ".gz" for one in old_files(guard.audit)), 20,
                             "the old files to be compressed")
        told = self.assert_intact(guard)
        self.assertEqual(len(old_files(guard.audit)) + 1, len(told.splitlines()))
        statements = {record["statement"] for record in records(guard.audit) if record["event"] == "decision"}
        self.assertEqual(set(), {f"INSERT INTO scratch VALUES ({n}, 'load')" for n in done} - statements)

        with self.subTest("a file that is taken away is missed"):
            taken = sorted(old_files(guard.audit), key=lambda one: lines_of(one)[0]["seq"])[3]
            taken.rename(guard.directory / "elsewhere")
            result = audit("verify", guard.audit)
            self.assertEqual(1, result.returncode)
            self.assertIn("are missing before it: a file between it and the one before is not there", result.stderr)
            (guard.directory / "elsewhere").rename(taken)
            self.assert_intact(guard)

    def test_only_so_many_old_files_are_kept(self):
        guard = self.guard_with("--audit-rotate-size", "4kB", "--audit-keep", "3")
        load = Load(guard, clients=2)
        processes.wait_until(lambda: len(load.done) > 300, 30, "some statements")
        load.end()
        processes.wait_until(lambda: len(old_files(guard.audit)) == 3, 20, "three old files")
        self.assertIn("follows", self.assert_intact(guard, "--partial"))
        result = audit("verify", guard.audit)
        self.assertEqual(1, result.returncode)
        self.assertIn("its oldest files were removed", result.stderr)

    def test_a_kill_under_load_while_files_are_rotated_loses_nothing(self):
        guard = self.guard_with("--audit-rotate-size", "8kB")
        done = []
        for turn in range(8):
            load = Load(guard)
            processes.wait_until(lambda: len(load.done) > 20 + 7 * turn, 30, "some statements")
            guard.process.send_signal(signal.SIGKILL)
            guard.process.wait()
            done += load.end()
            guard.process = None
            guard.start()
        guard.stop()
        self.assert_intact(guard)
        self.assertGreater(len(old_files(guard.audit)), 5)
        statements = {record.get("statement") for record in records(guard.audit)}
        self.assertEqual(set(), {f"INSERT INTO scratch VALUES ({n}, 'load')" for n in done} - statements)

    def test_checkpoints_catch_a_past_that_was_written_anew(self):
        key = self.directory / "audit.key"
        self.assertEqual(0, audit("key", key).returncode)
        guard = self.guard_with("--audit-checkpoint-key", key, "--audit-checkpoint-every", "10",
                                "--audit-rotate-size", "20kB")
        load = Load(guard, clients=2)
        processes.wait_until(lambda: len(load.done) > 100, 30, "some statements")
        load.end()
        guard.stop()
        verified = audit("verify", "--public-key", f"{key}.pub", guard.audit)
        self.assertEqual((0, ""), (verified.returncode, verified.stderr))
        self.assertIn("signed: ", verified.stdout)
        self.assertNotIn("not signed", verified.stdout)
        # Its end stands in the program's log, too, and the ends of its old files.
        heads = re.findall(r"audit log: stands at (\d+:\w+)", guard.log_text())
        self.assertGreater(len(heads), len(old_files(guard.audit)))
        self.assertEqual(0, audit("verify", "--expect", heads[-1], guard.audit).returncode)

        # Somebody who may write the files, but has no key.
        found = records(guard.audit)
        for file in old_files(guard.audit):
            file.unlink()
        lines, before = [], "0" * 64
        for record in found:
            if record["event"] == "checkpoint":
                continue
            record["prev"], record["seq"] = before, len(lines) + 1
            record["statement"] = "SELECT 1"
            lines.append(json.dumps(record))
            before = hashlib.sha256(lines[-1].encode()).hexdigest()
        guard.audit.write_text("".join(line + "\n" for line in lines))
        self.assertEqual(0, audit("verify", guard.audit).returncode)
        self.assertEqual(1, audit("verify", "--expect", heads[-1], guard.audit).returncode)
        verified = audit("verify", "--public-key", f"{key}.pub", guard.audit)
        self.assertEqual(1, verified.returncode)
        self.assertIn("no line of the log is a signed checkpoint", verified.stderr)
        # Nor does it help to wait until pgchaperone signs it.
        words = f"audit log: the key {key} can be read or changed by others; chmod it to 0600 or less"
        self.assertNotIn(words, guard.log_text())
        key.chmod(0o640)
        guard.start()
        self.assertIn(words, guard.log_text())
        with psycopg.connect(host=guard.host, port=guard.port, user="postgres", dbname="postgres", autocommit=True) as one:
            one.execute("INSERT INTO scratch VALUES (1, 'after')")
        guard.stop()
        verified = audit("verify", "--public-key", f"{key}.pub", guard.audit)
        self.assertEqual(1, verified.returncode)
        self.assertIn(f"lines 1 to {len(lines)}: no checkpoint speaks for this", verified.stderr)

    def test_a_key_that_cannot_be_used_keeps_the_guard_from_starting(self):
        with self.assertRaisesRegex(RuntimeError, "no private Ed25519 key in PEM"):
            self.guard_with("--audit-checkpoint-key", __file__)

    def test_records_go_to_standard_output_and_syslog_too(self):
        path = self.directory / "log"
        server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(server.close)
        server.bind(str(path))
        server.settimeout(10)
        guard = self.guard_with("--audit-stdout", "on", "--audit-syslog", path)
        self.connect(guard).execute("INSERT INTO scratch VALUES (1, 'everywhere')")
        for event, line in zip(("start", "policy", "decision"), guard.audit.read_text().splitlines(), strict=False):
            message = server.recv(100_000).decode()
            self.assertRegex(message, r"^<85>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d pgchaperone\[\d+\]: \{")
            self.assertIn(f'"event":"{event}"', message)
            self.assertTrue(message.endswith(line))
            processes.wait_until(lambda: line in guard.log_text().splitlines(), 10, "the line on standard output")

    def test_the_schema_tells_records_from_what_is_none(self):
        validator = schema_validator()
        self.assertIsNotNone(validator, "install python3-jsonschema, as tools/deps test does")
        guard = self.guard_with()
        connection = self.connect(guard)
        connection.execute("INSERT INTO scratch VALUES (1, 'one')")
        with self.assertRaises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM scratch")
        for record in guard.audit_records():
            self.assertTrue(validator.is_valid(record))
            # A decision on the approval page is of no statement's number.
            for name in record.keys() - {"number"}:
                self.assertFalse(validator.is_valid({key: value for key, value in record.items() if key != name}), name)
            for change in ({"event": "other"}, {"event": "effects"}, {"event": "ticket"}, {"event": "checkpoint"}, {"v": 2},
                           {"seq": "1"}, {"prev": "0"}, {"classes": ["OTHER"]}, {"decision": "maybe"},
                           {"fingerprint": "x"}, {"time": "yesterday"}, {"outcome": "within limits"}):
                self.assertFalse(validator.is_valid({**record, **change}), change)

    def test_each_policy_that_comes_into_force_stands_in_the_log(self):
        strict = RECORD_EVERYTHING.replace("policy:\n", "policy:\n  operators: ['*']\n")
        loose = strict.replace("policy:\n", "policy:\n  mode: observe\n")
        guard = self.guard_with(configuration=strict)

        def shown():
            shown = subprocess.run([binary(), "config", "show", "--only-policy", guard.configuration_file],
                                   capture_output=True, timeout=60, check=True).stdout
            return {"sha256": hashlib.sha256(shown).hexdigest(), "policy": shown.decode()}

        def own():
            return [one for one in guard.audit_records(own=True) if one["event"] in ("start", "policy", "stop")]

        start, first = own()
        self.assertEqual(("start", guard.pid, f"127.0.0.1:{guard.port}", "refuse"),
                         tuple(start[name] for name in ("event", "process", "listen", "on_failure")))
        expected = {"event": "policy", "process": guard.pid, "by": "start", "version": 1, "mode": "enforce",
                    "server": f"{self.cluster.host}:{self.cluster.port}", "source": str(guard.configuration_file), **shown()}
        self.assertEqual(expected, {name: first.get(name) for name in expected})

        guard.configuration_file.write_text(loose)
        guard.hang_up()
        # When the log of the program tells of it, the audit log has it.
        processes.wait_until(lambda: "reload: the policy is in force" in guard.log_text(), 10, "the reload")
        expected.update(by="signal", version=2, mode="observe", **shown())
        self.assertEqual(expected, {name: own()[-1].get(name) for name in expected})
        self.assertNotEqual(first["sha256"], expected["sha256"])
        self.assertNotIn("user", own()[-1])

        guard.configuration_file.write_text(strict)
        self.connect(guard).execute("CALL chaperone.reload()")
        last = own()[-1]
        self.assertEqual(("command", "postgres", 3, first["sha256"]),
                         tuple(last[name] for name in ("by", "user", "version", "sha256")))

        # A mistake puts nothing in force.
        guard.configuration_file.write_text("policy: 5\n")
        guard.hang_up()
        processes.wait_until(lambda: "reload: the policy stays as it was" in guard.log_text(), 10, "the mistake to be told")
        self.assertEqual(last, own()[-1])

        found = audit("search", "--event", "policy", guard.audit)
        self.assertEqual(0, found.returncode, found.stderr)
        self.assertEqual(["start", "signal", "command"],
                         [line.split(" by=")[1].split(" ")[0] for line in found.stdout.splitlines()[1:]])
        guard.stop()
        self.assertEqual("stop", own()[-1]["event"])
        self.assert_intact(guard)

    # --- what a rule wants recorded ---------------------------------------------------------------------

    def test_a_rule_says_what_its_records_show(self):
        guard = self.guard_with(configuration="""policy:
  default: allow
  rules:
    - { name: full, match: { command: INSERT }, action: allow, audit: statement+parameters }
    - { name: text, match: { command: UPDATE, unbounded: false }, action: allow, audit: statement }
    - { name: counted, match: { command: UPDATE }, action: { supervise: { max_rows: 10 } }, audit: decision }
    - { name: bare, match: { relation: orders }, action: allow, audit: decision }
    - { name: stop, match: { command: DELETE }, action: block, audit: none }
    - { name: quiet, match: { command: SELECT }, action: allow, audit: none }
""")
        connection = self.connect(guard)

        def new_records(statement, *parameters, **options):
            before = len(guard.audit_records())
            try:
                cursor = connection.cursor(binary=options.pop("binary", False))
                cursor.execute(statement, parameters or None, **options)
            except psycopg.DatabaseError:
                pass  # the records say what came of it
            return guard.audit_records()[before:]

        (record,) = new_records("INSERT INTO scratch VALUES (1, 'secret') -- why")
        self.assertEqual("INSERT INTO scratch VALUES (1, 'secret') -- why", record["statement"])
        self.assertNotIn("redacted", record)
        self.assertNotIn("parameters", record)
        # In the extended protocol the Execute's record has the values.
        long = "x" * 100_000
        for sent, expected in ((("one",), ["one"]), ((None,), [None]), ((long,), None)):
            parsed, executed = new_records("INSERT INTO scratch VALUES (2, %s)", *sent, prepare=False)
            self.assertNotIn("parameters", parsed)
            self.assertEqual("INSERT INTO scratch VALUES (2, $1)", executed["statement"])
            if expected is None:
                self.assertEqual("x" * 8192, executed["parameters"][0])
                self.assertEqual(["parameters"], executed["shortened"])
            else:
                self.assertEqual(expected, executed["parameters"])
        *_, executed = new_records("INSERT INTO scratch VALUES (%b, 'binary')", 77)
        self.assertEqual(1, len(executed["parameters"]))
        self.assertRegex(executed["parameters"][0], r"^(77|\\x.*4d)$")

        (record,) = new_records("UPDATE items SET name = 'secret' WHERE id = 5 /* for Anna */")
        self.assertEqual(("UPDATE items SET name = ? WHERE id = ?", True), (record["statement"], record["redacted"]))
        self.assertEqual("items", record["relations"][0].split(".")[-1])
        *_, executed = new_records("UPDATE items SET name = %s WHERE id = 5", "secret")
        self.assertNotIn("parameters", executed)
        self.assertNotIn("secret", json.dumps(executed))

        (record,) = new_records("SELECT count(*) FROM orders WHERE id = 4711")
        self.assertEqual(("", True, "SELECT"), (record["statement"], record["redacted"], record["command"]))
        # What it did is told without the text, too.
        before = len(guard.audit_records())
        decided = new_records("UPDATE items SET quantity = quantity + 0 /* secret */")
        self.assertEqual("decision", decided[0]["event"])
        # Nobody waits for the line of its effects.
        processes.wait_until(lambda: len(guard.audit_records()) == before + 2, 5, "what it did on record")
        records_of_it = guard.audit_records()[before:]
        self.assertEqual(["decision", "effects"], [one["event"] for one in records_of_it])
        self.assertNotIn("secret", json.dumps(records_of_it))
        # What is blocked has its record in any case.
        (record,) = new_records("DELETE FROM scratch WHERE id = 1")
        self.assertEqual(("block", "DELETE FROM scratch WHERE id = 1"), (record["decision"], record["statement"]))
        self.assertEqual([], new_records("SELECT 'secret'"))
        self.assert_intact(guard)

    def test_passwords_are_nowhere(self):
        guard = self.guard_with(configuration="""policy:
  default: allow
  unparsable: block
  rules:
    - { name: stop, match: { text: stopped }, action: block }
    - { name: count, match: { text: counted }, action: { supervise: { max_rows: 10 } } }
    - { name: text, match: { text: noted }, action: allow, audit: statement }
    - { name: full, match: { text: shown }, action: allow, audit: statement+parameters }
""")
        connection = self.connect(guard)
        told = []
        for statement, *parameters in (
                ("ALTER ROLE stopped PASSWORD 'hunter2'",), ("ALTER ROLE counted PASSWORD 'hunter2'",),
                ("ALTER ROLE noted PASSWORD 'hunter2'",), ("ALTER ROLE shown PASSWORD 'hunter2'",),
                ("ALTER ROLE bob PASSWRD 'hunter2'",), ("ALTER ROLE bob PASSWORD 'a' 'hunter2'",),
                ("DO $$BEGIN EXECUTE 'ALTER ROLE shown PASSWORD ''hunter2'''; END$$",),
                ("SELECT 'shown', length(%s)", "host=db password=hunter2"),
                ("SELECT dblink_exec('host=stopped password=hunter2', 'DELETE FROM t')",)):
            try:
                cursor = psycopg.Cursor(connection) if parameters else psycopg.ClientCursor(connection)
                cursor.execute(statement, parameters or None, prepare=False)
            except psycopg.DatabaseError as error:
                told.append(f"{error} {error.diag.message_detail}")
        records = [one for one in guard.audit_records() if one["event"] == "decision"]
        self.assertEqual(
            ["ALTER ROLE stopped PASSWORD ?", "ALTER ROLE counted PASSWORD ?", "ALTER ROLE noted PASSWORD ?",
             "ALTER ROLE shown PASSWORD ?", "ALTER ROLE bob PASSWRD ?", "ALTER ROLE bob PASSWORD ? ?",
             "DO $$BEGIN EXECUTE 'ALTER ROLE shown PASSWORD ?'; END$$", "SELECT 'shown', length($1)",
             "SELECT 'shown', length($1)", "SELECT dblink_exec('host=stopped password=?', 'DELETE FROM t')"],
            [one["statement"] for one in records])
        self.assertEqual([True] * 7 + [None, True, True], [one.get("redacted") for one in records])
        self.assertEqual(["host=db password=?"], records[8]["parameters"])
        self.assertNotIn("hunter2", guard.audit.read_text())
        self.assertNotIn("hunter2", guard.log_text())
        # The server's own words are not ours to change.
        ours = [one for one in told if "pgchaperone" in one]
        self.assertEqual(4, len(ours), told)
        self.assertNotIn("hunter2", "".join(ours))

    def test_records_are_found_and_replayed(self):
        guard = self.guard_with()
        connection = self.connect(guard)
        connection.execute("INSERT INTO scratch VALUES (1, 'needle')")
        with self.assertRaises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM scratch")
        found = audit("search", "--table", "scratch", "--decision", "block", "--since", "1h", guard.audit)
        self.assertEqual(0, found.returncode, found.stderr)
        self.assertEqual(2, len(found.stdout.splitlines()))
        self.assertIn("DELETE FROM scratch", found.stdout)
        self.assertEqual(1, audit("search", "--text", "haystack", guard.audit).returncode)
        policy = self.directory / "new.yaml"
        for text, status, said in (("default: allow", 1, "1: block -> allow"), ("default: block", 1, "1: allow -> block")):
            policy.write_text(f"policy:\n  {text}\n  rules: []\n")
            replayed = subprocess.run([binary(), "replay", "--policy", policy, guard.audit], capture_output=True, text=True)
            self.assertEqual(status, replayed.returncode, replayed.stderr)
            self.assertIn("2 records judged, 1 otherwise than then", replayed.stdout)
            self.assertIn(said, replayed.stdout)
        policy.write_text(RECORD_EVERYTHING)
        replayed = subprocess.run([binary(), "replay", "--policy", policy, guard.audit], capture_output=True, text=True)
        self.assertEqual(0, replayed.returncode, replayed.stderr)

    # --- a disk that refuses -----------------------------------------------------------------------------

    def connect(self, guard):
        connection = psycopg.connect(host=guard.host, port=guard.port, user="postgres", dbname="postgres", autocommit=True)
        self.addCleanup(connection.close)
        return connection

    def stats(self, connection) -> dict:
        return dict(connection.execute("SHOW chaperone.stats").fetchall())

    def policy_version(self, connection) -> int:
        cursor = connection.execute("SHOW chaperone.version")
        return dict(zip([column.name for column in cursor.description], cursor.fetchone()))["policy_version"]

    def full(self, guard) -> None:
        """From now on no file of the guard's may be longer than the audit log is, which is the longest."""
        size = guard.audit.stat().st_size
        self.assertGreater(size, guard.log.stat().st_size + 100_000)
        resource.prlimit(guard.pid, resource.RLIMIT_FSIZE, (size + 10, resource.RLIM_INFINITY))

    def not_full(self, guard) -> None:
        resource.prlimit(guard.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def test_what_a_full_disk_does(self):
        for what in ("refuse", "allow"):
            with self.subTest(what):
                guard = self.guard_with("--audit-on-failure", what)
                connection = self.connect(guard)
                for number in range(3):
                    connection.execute(f"INSERT INTO scratch VALUES ({number}, '{'x' * 60_000}')")
                processes.wait_until(lambda: len(guard.audit_records(outcomes=True)) == 6, 10, "what came of them")
                self.full(guard)
                if what == "refuse":
                    with self.assertRaises(psycopg.errors.IoError) as raised:
                        connection.execute("INSERT INTO scratch VALUES (100, 'full')")
                    self.assertIn("needs a record in the audit log", str(raised.exception))
                    self.assertIn("File too large", raised.exception.diag.message_detail)
                    self.assertIn("audit log's disk", raised.exception.diag.message_hint)
                else:
                    connection.execute("INSERT INTO scratch VALUES (100, 'full')")
                # What is blocked stays blocked; what needs no record runs.
                with self.assertRaises(psycopg.errors.InsufficientPrivilege):
                    connection.execute("DELETE FROM scratch")
                ran = connection.execute("SELECT count(*) FROM scratch WHERE id = 100").fetchone()
                self.assertEqual(0 if what == "refuse" else 1, ran[0])
                # A policy comes into force with its record, too.
                guard.hang_up()
                told = ("the policy stays as it was: its record can't be written: " if what == "refuse" else
                        "the audit log does not tell of this policy: ") + f"cannot write {guard.audit}: File too large"
                processes.wait_until(lambda: f"reload: {told}" in guard.log_text(), 10, "the reload")
                processes.wait_until(lambda: self.policy_version(connection) == (1 if what == "refuse" else 2), 10, "its end")
                # What ran without its record has none of what came of it, either.
                refused = 2 if what == "refuse" else 3
                processes.wait_until(lambda: self.stats(connection)["audit_refused"] == refused, 10, "all to be refused")
                counted = self.stats(connection)
                self.assertEqual((6, 1), (counted["audit_records"], counted["audit_failing"]))
                self.assertEqual(0 if what == "refuse" else 2, counted["statements_unrecorded"])
                self.not_full(guard)
                connection.execute("INSERT INTO scratch VALUES (101, 'again')")
                self.assertEqual(0, self.stats(connection)["audit_failing"])
                self.assertIn("the audit log fails", guard.log_text())
                self.assertIn(f"can be written again; {refused} records were refused", guard.log_text())
                self.assertEqual(what == "allow", "goes on without a record" in guard.log_text())
                self.assert_intact(guard)
                self.assertEqual([refused], [one["records"] for one in records(guard.audit) if one["event"] == "refused"])
                self.cluster.sql("TRUNCATE scratch")

    def test_what_a_slow_disk_does(self):
        slow = self.directory / "slow"
        os.environ.update(LD_PRELOAD=os.environ["PGCHAPERONE_SLOW_DISK"], SLOW_DISK=str(slow))
        try:
            watchers = [Watcher(port()), Watcher(port())]
            options = [("--audit-patience", "1s", "--metrics-listen", f"127.0.0.1:{one.port}") for one in watchers]
            refusing = self.guard_with(*options[0])
            allowing = self.guard_with(*options[1], "--audit-on-failure", "allow")
        finally:
            for name in ("LD_PRELOAD", "SLOW_DISK"):
                os.environ.pop(name)
        one, other = self.connect(refusing), self.connect(allowing)
        slow.touch()
        try:
            with self.assertRaises(psycopg.errors.IoError) as raised:
                one.execute("INSERT INTO scratch VALUES (200, 'slow')")
            self.assertIn("within 1000 ms", raised.exception.diag.message_detail)
            other.execute("INSERT INTO scratch VALUES (201, 'slow')")
            # While it hangs, whoever watches sees it.
            delays = [f"the audit log does not keep up: a record waits for the disk for longer than 1000 ms; {what}" for what in
                      ("statements that need a record can't run until this is mended",
                       "statements run without a record until this is mended (audit.on_failure: allow)")]
            for guard, watcher, delay in zip((refusing, allowing), watchers, delays):
                processes.wait_until(lambda: delay in guard.log_text(), 10, "the log to tell of it")
                self.assertEqual(1, watcher.figures()["pgchaperone_audit_failing"])
                self.assertGreater(watcher.figures()["pgchaperone_audit_lag_seconds"], 1.0)
            answer = watchers[0].ask("/readyz")
            self.assertEqual((503, "the audit log does not keep up\n"), (answer.status, answer.text))
            self.assertEqual(200, watchers[1].ask("/readyz").status)
            # The answer to the first record comes while the second is waited for, and is not taken for its.
            release = threading.Timer(0.1, slow.unlink)
            release.start()
            one.execute("INSERT INTO scratch VALUES (202, 'slow')")
            release.join()
        finally:
            slow.unlink(missing_ok=True)
        other.execute("INSERT INTO scratch VALUES (203, 'fast')")
        ids = [row[0] for row in self.cluster.sql("SELECT id FROM scratch WHERE id BETWEEN 200 AND 203 ORDER BY id")]
        self.assertEqual([201, 202, 203], ids)
        self.assertEqual((1, 0), tuple(self.stats(one)[name] for name in ("audit_overdue", "statements_unrecorded")))
        self.assertEqual((1, 1), tuple(self.stats(other)[name] for name in ("audit_overdue", "statements_unrecorded")))
        self.assert_intact(refusing)
        for guard, watcher, delay in zip((refusing, allowing), watchers, delays):
            processes.wait_until(lambda: "the audit log keeps up again: " in guard.log_text(), 10, "the log to say that it is over")
            self.assertEqual(1, guard.log_text().count(delay))
            self.assertEqual(200, watcher.ask("/readyz").status)
            self.assertEqual(0, watcher.figures()["pgchaperone_audit_failing"])


if __name__ == "__main__":
    main()
