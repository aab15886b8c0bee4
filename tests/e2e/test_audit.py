"""The audit log in operation: rotated and compressed under load, killed at any moment, and verified as a whole."""

import gzip
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import processes
from support.e2e import EndToEnd, main, needs_guard
from support.guard import Guard, binary

RECORD_EVERYTHING = """policy:
  default: allow
  unparsable: allow
  rules:
    - name: note
      match: { command: INSERT }
      action: allow
      audit: true
    - name: no-unbounded-writes
      match: { command: [UPDATE, DELETE], unbounded: true }
      action: block
"""


def audit(*arguments, **options):
    return subprocess.run([binary(), "audit", *map(str, arguments)], capture_output=True, text=True, timeout=60, **options)


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

    def guard_with(self, *options, configuration=RECORD_EVERYTHING) -> Guard:
        guard = Guard(self.cluster, *options, configuration=configuration)
        self.addCleanup(guard.erase)
        return guard

    def assert_intact(self, guard) -> str:
        result = audit("verify", guard.audit)
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
        processes.wait_until(lambda: all(one.suffix == ".gz" for one in old_files(guard.audit)), 20,
                             "the old files to be compressed")
        told = self.assert_intact(guard)
        self.assertEqual(len(old_files(guard.audit)) + 1, len(told.splitlines()))
        statements = {record["statement"] for record in records(guard.audit) if record["event"] == "decision"}
        self.assertEqual(set(), {f"INSERT INTO scratch VALUES ({n}, 'load')" for n in done} - statements)

        with self.subTest("a file that is taken away is missed"):
            taken = old_files(guard.audit)[3]
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
        self.assertIn("follows", self.assert_intact(guard))

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


if __name__ == "__main__":
    main()
