"""Where node and node-postgres are, if they are."""

import os
import shutil
import subprocess
from pathlib import Path

NODE = shutil.which("node") or shutil.which("nodejs")


def node_path() -> str:
    """Where node-postgres may be: what tools/deps installed, Debian's packages, what the caller names."""
    deps = os.environ.get("PGCHAPERONE_DEPS", str(Path(__file__).resolve().parents[2] / "build" / "deps"))
    return ":".join(filter(None, [os.environ.get("NODE_PATH"), f"{deps}/node/node_modules", f"{deps}/node_modules",
                                  "/usr/share/nodejs", "/usr/lib/nodejs"]))


def why_not() -> str:
    if not NODE:
        return "node is not installed"
    found = subprocess.run([NODE, "-e", "require('pg')"], env={**os.environ, "NODE_PATH": node_path()},
                           capture_output=True)
    return "" if found.returncode == 0 else "node-postgres (the package pg) is not installed"
