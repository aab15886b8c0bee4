"""What is tried before anybody has approved it leaves nothing behind, and what could leave something is not tried."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.e2e import EndToEnd, main, needs_guard

# Every statement of app's is held, tried if it can be, and answered at once with its ticket.
POLICY = """policy:
  approvers: [postgres]
  rules:
    - name: everything
      match: { user: app }
      action: { hold: { wait: 0s, evidence: trial } }
"""

DEFINITIONS = """
CREATE SEQUENCE numbers;
GRANT ALL ON numbers TO app;
GRANT pg_execute_server_program, pg_write_server_files TO app;
"""


@needs_guard
class Trials(EndToEnd):
    configuration = POLICY

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        done = cls.direct.psql(DEFINITIONS, "-v", "ON_ERROR_STOP=1")
        assert done.returncode == 0, done.stderr

    def evidence(self, sql):
        """Asks for it as app, and returns what its ticket says of the evidence."""
        done = self.guarded.program("psql", "-X", "-c", sql, environment={"PGUSER": "app"})
        self.assertIn("needs an approval", done.stderr)
        ticket = done.stderr.split("(ticket ")[1].split(")")[0]
        with self.guarded.wire() as connection:
            return dict(connection.rows(f"SHOW chaperone.ticket_{ticket}"))["evidence"]

    def test_a_program_is_not_run_and_a_file_not_written(self):
        for name, sql in (("program", "COPY items TO PROGRAM 'cat > {}'"), ("file", "COPY items TO '{}'"),
                          ("query", "COPY (SELECT 1) TO PROGRAM 'cat > {}'")):
            with self.subTest(name):
                # The server's own folder: it may write there.
                written = Path(self.cluster.directory) / f"written-{name}"
                self.assertFalse(self.evidence(sql.format(written)).startswith("trial"))
                self.assertFalse(written.exists())

    def test_a_sequence_is_not_set(self):
        for sql in ("SELECT setval('numbers', 1000)", "UPDATE items SET quantity = setval('numbers', 1000)",
                    "SELECT 1; UPDATE items SET quantity = 1; SELECT setval('numbers', 1000)",
                    "DO $$BEGIN PERFORM setval('numbers', 1000); END$$"):
            with self.subTest(sql):
                self.assertFalse(self.evidence(sql).startswith("trial"))
                with self.direct.wire() as connection:
                    self.assertEqual([("1", "f")], connection.rows("SELECT last_value, is_called FROM numbers"))

    def test_what_can_be_taken_back_is_tried_and_taken_back(self):
        with self.direct.wire() as connection:
            before = connection.rows("SELECT * FROM items ORDER BY id")
            self.assertTrue(self.evidence("UPDATE items SET quantity = 1").startswith("trial"))
            self.assertTrue(self.evidence("DELETE FROM orders; DELETE FROM items").startswith("trial"))
            self.assertEqual(before, connection.rows("SELECT * FROM items ORDER BY id"))


if __name__ == "__main__":
    main()
