"""What the end-to-end tests share: a test case with a throw-away server and a guard in front of it, and the
differential runner, which plays the same script directly and through the guard and compares what came back."""

import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from support import guard as guard_module
from support import sanitizers
from support import wire
from support.cluster import Cluster, binaries
from support.guard import ALLOW_EVERYTHING, BUILT_IN_POLICY, Guard
from support.processes import PATIENCE

__all__ = ["ALLOW_EVERYTHING", "BUILT_IN_POLICY", "Cluster", "EndToEnd", "Guard", "Target", "binaries", "main",
           "needs_guard", "wire"]

SKIPPED = 77  # the exit status by which ctest knows that a test was skipped


def needs_guard(test):
    """For tests that say nothing when both sides are the server itself."""
    return unittest.skipIf(guard_module.direct(), "there is no guard in a direct run")(test)


class Target:
    """Where a script connects to: the server itself or the guard in front of it."""

    def __init__(self, name: str, host: str, port: int):
        self.name, self.host, self.port = name, host, port

    @property
    def address(self):
        return (self.host, self.port)

    def wire(self, user="postgres", database="postgres", **options) -> wire.Wire:
        return wire.Wire.log_in(self.address, user=user, database=database, **options)

    def dsn(self, **options) -> str:
        options = {"host": self.host, "port": self.port, "user": "postgres", "dbname": "postgres",
                   "connect_timeout": 20, **options}
        return " ".join(f"{k}='{v}'" for k, v in options.items())

    def environment(self, **more) -> dict:
        """An environment in which PostgreSQL's programs connect here."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PG") or k.startswith("PGCHAPERONE")}
        return {**inherited, "PGHOST": self.host, "PGPORT": str(self.port), "PGUSER": "postgres",
                "PGDATABASE": "postgres", "PGCONNECT_TIMEOUT": "20", "PGAPPNAME": "e2e", "LC_ALL": "C.UTF-8",
                "PSQLRC": "/dev/null", "PSQL_HISTORY": "/dev/null", "TZ": "UTC", "HOME": "/nonexistent", **more}

    def program(self, name: str, *arguments, input=None, timeout_s: float = 60, environment=None, cwd=None):
        """Runs one of PostgreSQL's programs against this target; returns the CompletedProcess."""
        return subprocess.run([str(binaries() / name), *map(str, arguments)], input=input, text=True,
                              capture_output=True, timeout=timeout_s * PATIENCE, cwd=cwd,
                              env=self.environment(**(environment or {})))

    def psql(self, script: str, *arguments, **options):
        return self.program("psql", "-X", *arguments, input=script, **options)


class EndToEnd(unittest.TestCase):
    maxDiff = 6000
    cluster_options: dict = {}
    guard_options: tuple = ()
    configuration = ALLOW_EVERYTHING

    @classmethod
    def setUpClass(cls):
        cls.workspace = tempfile.TemporaryDirectory(prefix="pgchaperone-test-work-")
        cls.addClassCleanup(cls.workspace.cleanup)
        cls.directory = Path(cls.workspace.name)
        cls.cluster = Cluster(**cls.cluster_options)
        cls.addClassCleanup(cls.cluster.erase)
        cls.direct = Target("direct", cls.cluster.host, cls.cluster.port)
        cls.guard = Guard(cls.cluster, *cls.guard_options, configuration=cls.configuration)
        cls.addClassCleanup(cls.guard.erase)
        cls.guarded = Target("guarded", cls.guard.host, cls.guard.port)

    def run(self, result=None):
        """Shows the guard's log below a failure: most failures can't be understood without it."""
        if result is None:
            result = self.defaultTestResult()
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > before and getattr(type(self), "guard", None):
            print(f"--- {self.id()}: the end of the guard's log:\n{self.guard.log_text()[-2500:]}\n"
                  f"--- and of the server's:\n{self.cluster.log.read_text(errors='replace')[-1200:]}\n---",
                  file=sys.stderr)
            if not self.guard.alive():
                print("--- THE GUARD IS DEAD; starting it again", file=sys.stderr)
                self.guard.start()
                self.guarded.port = self.guard.port
        return result

    # --- the differential runner -------------------------------------------------------------------------

    def same(self, script, *, reset: bool = False, what: str = ""):
        """Runs `script(target)` directly and through the guard, from equal states of the tables where `reset`,
        and asserts equal results. Returns the result."""
        results = []
        for target in (self.direct, self.guarded):
            if reset:
                self.cluster.reset()
            try:
                results.append(script(target))
            except Exception as error:
                error.add_note(f"while running {what or script.__name__} {target.name}")
                raise
        self.assertEqual(results[0], results[1], f"{what}: direct (first) and guarded (second) differ")
        return results[0]

    def same_frames(self, *steps, reset: bool = False, chunk: int = 0, user: str = "postgres", what: str = ""):
        """Plays steps over one raw connection and compares every frame. A step is bytes to send, or a call
        `step(wire)` that reads (and may send) and returns frames."""

        def play(target):
            with target.wire(user=user) as connection:
                frames = list(connection.greeting) if not chunk else []
                for step in steps:
                    if isinstance(step, bytes):
                        connection.send(step, chunk)
                    else:
                        frames += step(connection) or []
                return wire.masked(frames)

        return self.same(play, reset=reset, what=what)

    def same_output(self, script, *arguments, reset: bool = False, program: str = "psql", check: bool = False,
                    hide=(), **options):
        """Runs a program of PostgreSQL both ways and compares its status, standard output and standard error.
        Port numbers are made equal, and what matches the regular expressions in `hide`."""

        def play(target):
            done = (target.psql(script, *arguments, **options) if program == "psql" else
                    target.program(program, *arguments, input=script, **options))
            texts = []
            for text in (done.stdout, done.stderr):
                text = text.replace(f"port {target.port}", "port PORT").replace(f'"{target.port}"', '"PORT"')
                for pattern in hide:
                    text = re.sub(pattern, "(hidden)", text)
                texts.append(text)
            return {"status": done.returncode, "stdout": texts[0], "stderr": texts[1]}

        result = self.same(play, reset=reset, what=f"{program} {' '.join(map(str, arguments))}")
        if check:
            self.assertEqual(0, result["status"], result["stderr"])
        return result

    def assert_guard_works(self):
        """The guard lives and serves a new session."""
        self.assertTrue(self.guard.alive(), "the guard is dead")
        with self.guarded.wire() as connection:
            self.assertEqual([("1",)], connection.rows("SELECT 1"))


def ready(count: int = 1):
    """A step that reads up to the `count`th ReadyForQuery."""
    return lambda connection: connection.until_ready(count)


def until(tags: str, count: int = 1):
    """A step that reads up to the `count`th frame with one of these tags."""
    return lambda connection: connection.until(tags, count)


def silence(seconds: float = 0.15):
    """A step that fails where anything arrives within that time."""

    def step(connection):
        if not connection.silent_for(seconds):
            raise AssertionError(f"silence was expected, not {connection.frame()}")

    return step


def closed(connection):
    """A step that reads to the end of the stream."""
    return connection.until_closed()


class _Result(unittest.TextTestResult):
    """Also fails a test during which any program has left a sanitizer's report, whatever else the test has seen."""

    def stopTest(self, test):
        report = sanitizers.new_reports()
        if report:
            try:
                raise AssertionError(f"a program has left a sanitizer's report:\n{report}")
            except AssertionError:
                self.addFailure(test, sys.exc_info())
        super().stopTest(test)


class _Runner(unittest.TextTestRunner):
    resultclass = _Result


def main() -> None:
    """Runs the tests of the calling file; exits with 77 where every one of them was skipped."""
    program = unittest.main(exit=False, verbosity=2, argv=sys.argv, testRunner=_Runner)
    result = program.result
    # What ended behind the last test, with its class.
    report = sanitizers.new_reports()
    if report:
        print(f"FAIL: a program has left a sanitizer's report:\n{report}", file=sys.stderr)
    if report or not result.wasSuccessful():
        sys.exit(1)
    sys.exit(SKIPPED if result.testsRun and len(result.skipped) == result.testsRun else 0)
