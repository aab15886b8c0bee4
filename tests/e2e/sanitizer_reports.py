"""A sanitizer's report in a program that a test starts fails that test, although its output and its exit status are
thrown away, and fails Guard.stop(). Run with a program that has faults (tests/support/faulty.cpp) and their names; only
in builds with sanitizers.
"""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PROGRAM, *FAULTS = sys.argv[1:]
SAYS = {"read_freed": "heap-use-after-free", "overflow": "signed integer overflow", "leak": "LeakSanitizer",
        "race": "data race"}
HEAD = f"""
import subprocess, sys, types, unittest
sys.path.insert(0, {str(TESTS)!r})
from support import processes
from support.e2e import Guard, main
start = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""
PLACES = {"in a test": HEAD + """
class Test(unittest.TestCase):
    def test_it(self):
        subprocess.run(COMMAND, **start)
main()
""", "behind the last test": HEAD + """
class Test(unittest.TestCase):
    @classmethod
    def tearDownClass(cls):
        subprocess.run(COMMAND, **start)
    def test_it(self):
        pass
main()
""", "in a guard": HEAD + """
guard = Guard(types.SimpleNamespace(host="127.0.0.1", port=1), start=False)
guard.process = processes.start(COMMAND, **start)
guard.process.wait()
try:
    guard.erase()
except AssertionError as error:
    print(error)
    sys.exit(1 if "the guard has left a sanitizer's report" in str(error) else 0 if FAULT == "none" else 2)
"""}


class Reports(unittest.TestCase):
    def status_and_output(self, text: str, fault: str):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "inner.py"
            file.write_text(f"COMMAND = {[PROGRAM, fault]!r}\nFAULT = {fault!r}\n{text}")
            done = subprocess.run([sys.executable, "-B", str(file)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, timeout=120, env={**os.environ, "PGCHAPERONE_BIN": PROGRAM})
        return done.returncode, done.stdout

    def test_reports_are_noticed(self):
        self.assertTrue(FAULTS)
        for fault in FAULTS:
            for where, text in PLACES.items():
                with self.subTest(fault, where=where):
                    status, output = self.status_and_output(text, fault)
                    self.assertEqual(1, status, output)
                    self.assertIn(SAYS[fault], output)

    def test_where_there_is_none_nothing_fails(self):
        for where, text in PLACES.items():
            with self.subTest(where=where):
                status, output = self.status_and_output(text, "none")
                self.assertEqual(0, status, output)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
