"""Starting, watching and stopping the programs that a test needs. What is started here is stopped here, by its
own process id; should the test itself be killed, the kernel ends its children."""

import os
import pwd
import signal
import socket
import subprocess
import time

# How many times as long as in an ordinary build one waits for what has to happen: programs with sanitizers are slow
# (tests/CMakeLists.txt). What a test measures is never stretched by it.
PATIENCE = float(os.environ.get("PGCHAPERONE_TEST_PATIENCE", "1"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def postgres_account():
    """The account to run PostgreSQL's server as: it refuses to run as root."""
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else None


def give_to_postgres(path) -> None:
    account = postgres_account()
    if account:
        os.chown(path, account.pw_uid, account.pw_gid)


def as_postgres() -> dict:
    """Arguments for subprocess that make a program run as the account that owns the test servers."""
    account = postgres_account()
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}


def start(command, *, death_signal=signal.SIGKILL, **options) -> subprocess.Popen:
    # A function of ours between fork and exec would do as well, but then all memory of this process is copied first.
    tied = ["setpriv", "--pdeathsig", signal.Signals(death_signal).name.removeprefix("SIG")]
    return subprocess.Popen([*tied, *map(str, command)], **options)


def stop(process: subprocess.Popen, by: int = signal.SIGTERM, patience_s: float = 10.0) -> bool:
    """Ends a process; True when it went by itself within its time, False when it had to be killed."""
    if process.poll() is not None:
        return True
    process.send_signal(by)
    try:
        process.wait(patience_s * PATIENCE)
        return True
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


def wait_until(condition, timeout_s: float = 15.0, what: str = "a condition", every_s: float = 0.02):
    """Waits until `condition()` is true and returns its value."""
    end = time.monotonic() + timeout_s * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout_s * PATIENCE:g} s for {what}")
        time.sleep(every_s)


def status_kib(pid: int, field: str) -> int:
    """A memory figure of /proc/PID/status (VmHWM, VmRSS ...) in KiB."""
    with open(f"/proc/{pid}/status") as lines:
        for line in lines:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise KeyError(field)


def reset_peak_memory(pid: int) -> None:
    """Makes VmHWM start again from what is used now (see proc(5), clear_refs)."""
    with open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")


def open_sockets(pid: int) -> int:
    directory = f"/proc/{pid}/fd"
    count = 0
    for fd in os.listdir(directory):
        try:
            count += os.readlink(f"{directory}/{fd}").startswith("socket:")
        except FileNotFoundError:
            pass
    return count
