"""A guard that is upgraded in place: its process starts another one, which takes over, and so on."""

import ctypes
import os
import re
import signal
import subprocess

from support import sanitizers
from support.guard import Guard, binary
from support.processes import wait_until

PR_SET_CHILD_SUBREAPER = 36
TAKEN_OVER = r"upgrade: process (\d+) has taken over"
GOES_ON = "this process goes on as before"


def adopt_successors() -> None:
    """A successor is nobody's child any more: so it becomes ours, and its exit status is to be had."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class UpgradedGuard(Guard):
    """A guard and those that took over from it, on one port."""

    def start(self):
        super().start()
        self.pids = [self.process.pid]
        self.statuses = {}

    @property
    def pid(self) -> int:
        return self.pids[-1]

    def status(self, pid: int):
        """The exit status, or minus the signal; None while it lives."""
        if pid not in self.statuses:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended == 0:
                return None
            self.statuses[pid] = os.waitstatus_to_exitcode(status)
            if pid == self.process.pid:
                self.process.returncode = self.statuses[pid]
        return self.statuses[pid]

    def wait_for_end(self, pid: int, timeout_s: float = 15) -> int:
        wait_until(lambda: self.status(pid) is not None, timeout_s, f"process {pid} to end")
        return self.status(pid)

    def said(self, pattern: str) -> list:
        return re.findall(pattern, self.log_text())

    def hang_up(self) -> None:
        self.kill(signal.SIGHUP)

    def kill(self, number: int, pid: int = None):
        os.kill(pid or self.pid, number)

    def upgrade(self) -> int:
        """Returns the process that was replaced."""
        before, failed = len(self.said(TAKEN_OVER)), len(self.said(GOES_ON))
        self.kill(signal.SIGUSR2)
        wait_until(lambda: len(self.said(TAKEN_OVER)) > before or len(self.said(GOES_ON)) > failed, 40, "an upgrade")
        taken_over = self.said(TAKEN_OVER)
        if len(taken_over) == before:
            raise AssertionError(f"no upgrade:\n{self.log_text()[-3000:]}")
        self.pids.append(int(taken_over[-1]))
        wait_until(lambda: len(self.said("upgrade: this process has taken over")) > before, 10, "the new one to know")
        return self.pids[-2]

    def failed_upgrade(self) -> str:
        before = len(self.said(GOES_ON))
        self.kill(signal.SIGUSR2)
        wait_until(lambda: len(self.said(GOES_ON)) > before, 20, "an upgrade to fail")
        return self.said(f".*{GOES_ON}")[-1]

    def alive(self) -> bool:
        return self.status(self.pid) is None

    def stop(self):
        if self.process is None:
            return
        living = [pid for pid in self.pids if self.status(pid) is None]
        if self.pid in living:
            self.kill(signal.SIGTERM)
        late = []
        for pid in living:
            try:
                self.wait_for_end(pid, 10)
            except TimeoutError:
                late.append(pid)
                os.kill(pid, signal.SIGKILL)
                self.wait_for_end(pid)
        self.process = None
        log = self.log_text()
        bad = {pid: status for pid, status in self.statuses.items() if status not in (0, -signal.SIGKILL)}
        reports = "".join(sanitizers.new_reports(pid) or "" for pid in self.pids)
        if reports:
            raise AssertionError(f"the guard has left a sanitizer's report:\n{reports[:12000]}")
        if late or bad:
            raise AssertionError(f"did not end in time: {late}; statuses: {bad}\n{log[-6000:]}")
        self.check_schema()

    def verify(self, *files) -> str:
        done = subprocess.run([binary(), "audit", "verify", *map(str, files or [self.audit])], text=True,
                              capture_output=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
