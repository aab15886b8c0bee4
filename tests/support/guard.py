"""The program under test as a test sees it: started with options, waited for, watched, stopped, its log kept.

$PGCHAPERONE_BIN names the program. With PGCHAPERONE_E2E=direct no program is started and every address is that of
the server itself: so the tests of invisibility are proved against the real thing before they judge the guard.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

try:
    import jsonschema
except ImportError:
    jsonschema = None

from support import processes
from support import sanitizers

_validator = None

# $PGCHAPERONE_E2E_POLICY=supervise runs the tests of invisibility with everything counted and nothing over a limit:
# a client must not be able to tell.
_SUPERVISE_EVERYTHING = """policy:
  default: allow
  unparsable: allow
  rules:
    - name: count-everything
      match: { runs_in_transaction: true, controls_transaction: false, unparsable: false }
      action: { supervise: { max_rows: 100000000, effects: total, exclusive_locks: allow } }
"""
# `hold` and `trial`: with every statement held, looked at by EXPLAIN or tried out, and let go on at once, since
# everybody may break the glass. What a client is told of that (notices that begin with "pgchaperone:") is left out of
# the comparison.
_HOLD_EVERYTHING = """policy:
  default: allow
  unparsable: allow
  break_glass: {{ roles: ["*"], require_reason: false }}
  rules:
    - name: hold-everything
      match: {{ controls_transaction: false, unparsable: false, not: {{ command: EXECUTE }} }}
      action: {{ hold: {{ evidence: {evidence} }} }}
"""
_POLICIES = {
    "supervise": _SUPERVISE_EVERYTHING,
    "hold": _HOLD_EVERYTHING.format(evidence="plan"),
    "trial": _HOLD_EVERYTHING.format(evidence="trial"),
}
ALLOW_EVERYTHING = _POLICIES.get(os.environ.get("PGCHAPERONE_E2E_POLICY", ""),
                                 "policy:\n  default: allow\n  unparsable: allow\n  rules: []\n")
BUILT_IN_POLICY = ""
_ASSERTION = re.compile(r"Assertion .* failed")


def direct() -> bool:
    return os.environ.get("PGCHAPERONE_E2E") == "direct"


def binary() -> str:
    path = os.environ.get("PGCHAPERONE_BIN")
    if not path:
        raise RuntimeError("set PGCHAPERONE_BIN to the program, or PGCHAPERONE_E2E=direct")
    return os.path.abspath(path)


def schema_validator():
    """Of lines of the audit log; None where python3-jsonschema is not installed."""
    global _validator
    if _validator is None and jsonschema:
        schema = json.loads((Path(__file__).resolve().parents[2] / "docs" / "audit.schema.json").read_text())
        jsonschema.Draft7Validator.check_schema(schema)
        _validator = jsonschema.Draft7Validator(schema)
    return _validator


class Guard:
    host = "127.0.0.1"

    def __init__(self, upstream, *options, configuration: str = ALLOW_EVERYTHING, start: bool = True,
                 upstream_port: int = 0):
        """`upstream` is a Cluster or anything with host and port. `configuration` is the text of a configuration
        file; empty: none, so that the built-in policy is in force."""
        self.upstream = upstream
        self.options = [str(o) for o in options]
        self.configuration = configuration
        self.directory = Path(tempfile.mkdtemp(prefix="pgchaperone-test-guard-"))
        self.log = self.directory / "guard.log"
        self.audit = self.directory / "audit.jsonl"
        self.configuration_file = self.directory / "pgchaperone.yaml"
        self.process = None
        self.port = upstream.port
        if start:
            try:
                self.start()
            except BaseException:
                if self.process:
                    processes.stop(self.process, patience_s=2)
                    self.process = None
                self.erase()
                raise

    @property
    def pid(self) -> int:
        return self.process.pid

    def command(self) -> list:
        self.port = processes.free_port()
        command = [binary(), "serve", "--listen", f"127.0.0.1:{self.port}",
                   "--upstream", f"{self.upstream.host}:{self.upstream.port}", "--audit", self.audit,
                   *self.options]
        if self.configuration:
            self.configuration_file.write_text(self.configuration)
            command += ["-c", self.configuration_file]
        return command

    def start(self) -> None:
        if direct():
            return
        for turn in range(5):  # another program may take the port between our looking and the guard's binding
            told = len(self.log_text())
            with open(self.log, "a") as log:
                self.process = processes.start(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                               cwd=self.directory)
            try:
                processes.wait_until(self._listens, 20, "the guard to listen")
                return
            except RuntimeError:
                taken = f"can't listen on 127.0.0.1:{self.port}: " in self.log_text()[told:]
                if not taken or turn == 4:
                    raise

    def _listens(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the guard ended with status {self.process.returncode}: {self.log_text()}"
                               f"{sanitizers.new_reports(self.pid)}")
        try:
            socket.create_connection((self.host, self.port), 1).close()
            return True
        except OSError:
            return False

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def audit_records(self, outcomes: bool = False, own: bool = False) -> list:
        """What the audit log has. What came of statements is in it a moment after their clients know, and left out
        where it is not asked for; likewise what it tells of the guard itself."""
        if not self.audit.exists():
            return []
        # The last line may be on its way.
        lines = self.audit.read_text().split("\n")[:-1]
        records = [json.loads(line) for line in lines]
        left_out = [] if outcomes else ["done", "transaction"]
        left_out += [] if own else ["start", "policy", "stop"]
        return [one for one in records if one["event"] not in left_out]

    def alive(self) -> bool:
        return direct() or self.process.poll() is None

    def hang_up(self) -> None:
        """Sends SIGHUP: load certificates and policy again."""
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Stops the guard and raises AssertionError where it died before or leaves a sanitizer's report."""
        if direct() or self.process is None:
            return
        process, self.process = self.process, None
        before = process.poll()
        in_time = processes.stop(process, signal.SIGTERM, 10)
        log = self.log_text()
        report = sanitizers.new_reports(process.pid)
        if report:
            raise AssertionError(f"the guard has left a sanitizer's report:\n{report[:12000]}")
        if before is not None:
            raise AssertionError(f"the guard ended by itself with status {before}:\n{log[-6000:]}")
        if _ASSERTION.search(log):
            raise AssertionError(f"the guard's log has an assertion that failed:\n{log[-12000:]}")
        if not in_time:
            raise AssertionError(f"the guard did not end in time after SIGTERM:\n{log[-3000:]}")
        if process.returncode not in (0, -signal.SIGTERM):
            raise AssertionError(f"the guard ended with status {process.returncode}:\n{log[-6000:]}")
        self.check_schema()

    def check_schema(self, lines_max: int = 300) -> None:
        """Whatever a test made the guard write is as docs/audit.schema.json has it: the first and the last lines."""
        if not self.audit.exists():
            return
        lines = self.audit.read_text(errors="replace").splitlines()
        validator = schema_validator()
        for line in lines if len(lines) <= lines_max else lines[:lines_max // 2] + lines[-lines_max // 2:]:
            try:
                record = json.loads(line)
            except ValueError:
                continue  # a test has broken it
            problem = validator and next(validator.iter_errors(record), None)
            if problem:
                raise AssertionError(f"not as docs/audit.schema.json has it: {problem}\n{line[:2000]}")

    def erase(self) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
