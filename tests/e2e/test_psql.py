"""psql as people use it: the same script direct and through the guard gives the same output, errors included."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.e2e import EndToEnd, binaries, main


class Psql(EndToEnd):
    def test_statements_errors_and_transactions(self):
        self.same_output(r"""
SELECT 1 AS one \; SELECT 2 AS two;
SELECT 'a' \; SELECT 1/0 \; SELECT 'never';
BEGIN;
INSERT INTO scratch VALUES (1, 'x');
SELECT * FROM nowhere;
SELECT 'refused until rollback';
\echo :ERROR :SQLSTATE :LAST_ERROR_MESSAGE
ROLLBACK;
SELECT count(*) FROM scratch;
BEGIN; SAVEPOINT s; SELECT 1/0; ROLLBACK TO s; INSERT INTO scratch VALUES (2, 'y'); COMMIT;
SELECT * FROM scratch;
\set VERBOSITY verbose
INSERT INTO items VALUES (1, 'again', 1);
\errverbose
DO $$ BEGIN RAISE NOTICE 'a notice'; RAISE WARNING 'a warning' USING DETAIL = 'd', HINT = 'h'; END $$;
SET client_min_messages = debug1;
SELECT 1;
""", "-a", reset=True)

    def test_meta_commands(self):
        self.same_output(r"""
\d
\d items
\d+ orders
\dt
\df abs
\du
\dn+
\l postgres
\conninfo
\encoding
\sf pg_catalog.abs(int)
\pset null '(null)'
SELECT id, name FROM items ORDER BY id LIMIT 3 \gset row_
\echo :row_id
SELECT id AS x, name AS y FROM items WHERE id = 4 \gset
\echo :x :y :ROW_COUNT
SELECT 'SELECT ' || i || ' AS "generated"' FROM generate_series(1, 3) i \gexec
SELECT id, name, 1 FROM items WHERE id < 4 ORDER BY id \crosstabview
SELECT name FROM items WHERE id = 1 \gx
SELECT 1 AS a, 'x' AS b \gdesc
SELECT 1/0 \gdesc
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT 1/0;
SELECT 'still alive';
COMMIT;
\set FETCH_COUNT 7
SELECT * FROM items ORDER BY id;
SELECT 10 / (15 - id) FROM items ORDER BY id;
\set SINGLELINE on
\timing off
""", hide=(r"[0-9]+ kB|[0-9]+ bytes",))

    def test_watch_repeats_until_it_is_interrupted(self):
        for target in (self.direct, self.guarded):
            process = subprocess.Popen([str(binaries() / "psql"), "-X", "-At"], env=target.environment(), text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            try:
                process.stdin.write("SELECT 'watched' \\watch 0.05\n")
                process.stdin.flush()
                seen = 0
                while seen < 3:
                    line = process.stdout.readline()
                    self.assertTrue(line, process.poll())
                    seen += "watched" in line
            finally:
                process.terminate()
                process.communicate(timeout=10)

    def test_copy_in_and_out(self):
        here = self.directory
        (here / "rows.csv").write_text("".join(f'{i},"row ""{i}"""\n' for i in range(2000)))
        (here / "bad.csv").write_text("1,a\nx,b\n3,c\n")
        self.same_output(rf"""
\copy scratch FROM '{here}/rows.csv' (FORMAT csv)
SELECT count(*), min(payload) FROM scratch;
\copy (SELECT * FROM scratch ORDER BY id LIMIT 3) TO STDOUT (FORMAT csv, HEADER)
\copy scratch FROM '{here}/bad.csv' (FORMAT csv)
\copy nowhere FROM '{here}/rows.csv'
\copy scratch FROM '{here}/missing.csv'
\copy scratch FROM STDIN
7	typed
\.
COPY scratch FROM STDIN;
8	in line
x	wrong
\.
COPY scratch (id) FROM STDIN;
9
\.
SELECT count(*) FROM scratch;
COPY items TO STDOUT (FORMAT csv);
COPY (SELECT 10 / (id - 5) FROM items ORDER BY id) TO STDOUT;
COPY items TO STDOUT \; SELECT 'behind a copy' \; COPY (SELECT 1) TO STDOUT;
BEGIN;
\copy scratch FROM PROGRAM 'echo 10'
COMMIT;
SELECT 'end';
""", reset=True)

    def test_command_line_options(self):
        for arguments in (["-c", "SELECT 1; SELECT 2", "-c", "SELECT 3"], ["-1", "-c", "SELECT 1", "-c", "SELEC"],
                          ["-v", "ON_ERROR_STOP=1", "-c", "SELECT 1/0", "-c", "SELECT 2"], ["-l", "-At"],
                          ["-d", "nowhere", "-c", "SELECT 1"], ["-U", "nobody", "-c", "SELECT 1"],
                          ["-d", "dbname=postgres options='-c search_path=pg_catalog'", "-Atc", "SHOW search_path"],
                          ["--csv", "-c", "TABLE items"], ["-z0At", "-c", "SELECT 1, 2"]):
            with self.subTest(arguments):
                self.same_output(None, *arguments)

    def test_large_objects(self):
        source = self.directory / "object.bin"
        source.write_bytes(bytes(range(256)) * 4000)
        for target in (self.direct, self.guarded):
            copy = self.directory / f"{target.name}.bin"
            done = target.psql(rf"""
\lo_import {source} 'a comment'
\lo_export :LASTOID {copy}
\lo_list
\lo_unlink :LASTOID
\lo_unlink 999999
""")
            self.assertEqual(source.read_bytes(), copy.read_bytes(), done.stderr)
            self.assertIn("a comment", done.stdout)
            self.assertIn("large object 999999 does not exist", done.stderr)

    def test_notifications_in_psql(self):
        self.same_output("LISTEN c;\nNOTIFY c, 'payload';\nSELECT 1;\n", hide=(r"PID \d+",))

    def test_reconnecting(self):
        self.same_output("\\c postgres app\nSELECT current_user;\n\\c nowhere\nSELECT current_user;\n"
                         "\\c -reuse-previous=on user=postgres\nSELECT current_user;\n")

    def test_a_session_ended_by_the_server_is_opened_again(self):
        self.same_output("SELECT pg_terminate_backend(pg_backend_pid());\nSELECT 'back';\n")

    def test_an_interactive_session_on_a_terminal(self):
        """Typed on a terminal, with Ctrl-C in the middle of a query: the session lives on."""
        for target in (self.direct, self.guarded):
            with self.subTest(target.name):
                self._type_on_a_terminal(target)

    def _type_on_a_terminal(self, target):
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ.clear()
            os.environ.update(target.environment(TERM="dumb", PAGER="cat"))
            os.execv(str(binaries() / "psql"), ["psql", "-X", "-n"])
        screen = b""

        def wait_for(text: bytes, seconds=15):
            nonlocal screen
            end = time.monotonic() + seconds
            while text not in screen:
                if not select.select([terminal], [], [], max(0.0, end - time.monotonic()))[0]:
                    self.fail(f"{text!r} did not appear on the screen: {screen!r}")
                screen += os.read(terminal, 65536)

        try:
            wait_for(b"postgres=# ")
            os.write(terminal, b"BEGIN;\n")
            wait_for(b"postgres=*# ")
            os.write(terminal, b"SELECT pg_sleep(30);\n")
            self.cluster.wait_for_backends(1, "wait_event = 'PgSleep'")
            os.write(terminal, b"\x03")
            wait_for(b"canceling statement due to user request")
            wait_for(b"postgres=!# ")
            os.write(terminal, b"ROLLBACK;\nSELECT 'alive' || 'and well';\n")
            wait_for(b"aliveand well")
            os.write(terminal, b"\\q\n")
        finally:
            try:
                os.kill(pid, signal.SIGHUP)
            except ProcessLookupError:
                pass
            os.waitpid(pid, 0)
            os.close(terminal)


if __name__ == "__main__":
    main()
