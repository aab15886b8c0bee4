"""node-postgres: driver_node.js prints the same direct and through the guard."""

import json
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import processes
from support.e2e import EndToEnd, main
from support.node import NODE, node_path, why_not

HERE = Path(__file__).resolve().parent
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
