"""What the sanitizers say of the programs that a test starts (tools/test --sanitize).

Each process writes its report to a file of its own, so none is lost with an output that nobody reads, with a process that
the test kills, or with one whose failure the test expects. `new_reports()` says what has come since it was asked last.
Knows nothing of guards or servers. Importing it is enough: programs that are started later inherit what it sets.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# Whether the programs have sanitizers, of which the allocators keep what is freed: their memory says nothing then.
ON = bool(os.environ.get("PGCHAPERONE_SANITIZED"))

_directory = Path(tempfile.mkdtemp(prefix="pgchaperone-test-reports-"))
_owner = os.getpid()
_seen: dict = {}  # how much of each file has been told

for _name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS"):
    # What comes last wins. A file for each kind, as each would begin it anew.
    os.environ[_name] = ":".join(filter(None, (os.environ.get(_name), f"log_path={_directory}/{_name[0]}")))


@atexit.register
def _erase() -> None:
    if os.getpid() == _owner:
        shutil.rmtree(_directory, ignore_errors=True)


def new_reports(pid: int = 0) -> str:
    """The text of all reports, or of those of one process, that have not been told yet; empty: there are none."""
    texts = []
    for file in sorted(_directory.glob(f"*.{pid or '*'}")):
        data = file.read_bytes()
        if len(data) > _seen.get(file, 0):
            texts.append(data[_seen.get(file, 0):].decode(errors="replace"))
            _seen[file] = len(data)
    return "\n".join(texts)
