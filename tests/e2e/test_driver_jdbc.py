"""pgjdbc: DriverJdbc.java prints the same direct and through the guard, in its four query modes."""

import re
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import processes
from support.e2e import EndToEnd, main

HERE = Path(__file__).resolve().parent
JAVA = shutil.which("java")
JAVAC = shutil.which("javac")
DRIVER = Path("/usr/share/java/postgresql.jar")
REASON = "" if JAVA and JAVAC and DRIVER.exists() else "a Java compiler or libpostgresql-jdbc-java is not installed"


@unittest.skipIf(REASON, REASON)
class Jdbc(EndToEnd):
    def test_the_driver_prints_the_same(self):
        built = subprocess.run([JAVAC, "-cp", str(DRIVER), "-d", str(self.directory), str(HERE / "DriverJdbc.java")],
                               capture_output=True, text=True)
        self.assertEqual(0, built.returncode, built.stderr)

        def play(target):
            url = f"jdbc:postgresql://{target.host}:{target.port}/postgres?user=postgres&ApplicationName=jdbc"
            done = subprocess.run([JAVA, "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-cp",
                                   f"{DRIVER}:{self.directory}", "DriverJdbc", url],
                                  capture_output=True, text=True, timeout=120 * processes.PATIENCE, env=target.environment())
            self.assertEqual((0, ""), (done.returncode, done.stderr), done.stdout)
            return re.sub(r"statement \"?S_\d+", "statement (a name)", done.stdout)

        output = self.same(play, reset=True)
        self.assertEqual(8, output.count("failed: 57014"), output)
        self.assertEqual(3, output.count("copy: 20000 20000 true"))


if __name__ == "__main__":
    main()
