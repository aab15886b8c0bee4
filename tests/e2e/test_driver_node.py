"""node-postgres: driver_node.js prints the same direct and through the guard."""

import json
import os
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import processes
from support.e2e import EndToEnd, main

HERE = Path(__file__).resolve().parent
NODE = shutil.which("node") or shutil.which("nodejs")


def node_path() -> str:
    """Where node-postgres may be: what tools/deps installed, Debian's packages, what the caller names."""
    deps = os.environ.get("PGCHAPERONE_DEPS", str(HERE.parents[1] / "build" / "deps"))
    return ":".join(filter(None, [os.environ.get("NODE_PATH"), f"{deps}/node/node_modules", f"{deps}/node_modules",
                                  "/usr/share/nodejs", "/usr/lib/nodejs"]))


def why_not() -> str:
    if not NODE:
        return "node is not installed"
    found = subprocess.run([NODE, "-e", "require('pg')"], env={**os.environ, "NODE_PATH": node_path()},
                           capture_output=True)
    return "" if found.returncode == 0 else "node-postgres (the package pg) is not installed"


REASON = why_not()


@unittest.skipIf(REASON, REASON)
class Node(EndToEnd):
    def test_the_driver_prints_the_same(self):
        def play(target):
            done = subprocess.run([NODE, "--no-deprecation", str(HERE / "driver_node.js")], capture_output=True, text=True,
                                  timeout=60 * processes.PATIENCE,
                                  env=target.environment(NODE_PATH=node_path()))
            self.assertEqual((0, ""), (done.returncode, done.stderr), done.stdout)
            return [json.loads(line) for line in done.stdout.splitlines()]

        steps = dict(self.same(play, reset=True))
        self.assertEqual(["large", [[2000000, 3000000]]], ["large", steps["large"]])
        self.assertEqual("57014", steps["cancelled"][0])
        self.assertEqual("42601", steps["errors"][0][0])
        self.assertEqual(["COPY", 2, ""], steps["copy in"])


if __name__ == "__main__":
    main()
