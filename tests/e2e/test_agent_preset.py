"""The preset `agent` before a real server: reading works as ever, and nothing that a read does stays."""

import sys
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.e2e import EndToEnd, main, needs_guard


@needs_guard
class AgentPreset(EndToEnd):
    configuration = "policy: { preset: agent }\n"

    def setUp(self):
        super().setUp()
        self.cluster.sql("DROP TABLE IF EXISTS t CASCADE")
        self.cluster.sql("CREATE TABLE t AS SELECT i AS id FROM generate_series(1, 5) i")
        self.cluster.sql("CREATE OR REPLACE FUNCTION eraser(t) RETURNS int LANGUAGE plpgsql AS "
                         "$$ BEGIN DELETE FROM t; RETURN 1; END $$")
        self.cluster.sql("CREATE OR REPLACE VIEW harmless AS SELECT eraser(t) FROM t LIMIT 1")

    def connect(self, **options):
        return psycopg.connect(self.guarded.dsn(), prepare_threshold=None, **options)

    def test_reading_works(self):
        for cursor_factory in (psycopg.ClientCursor, psycopg.Cursor):
            for autocommit in (True, False):
                with self.subTest(cursor=cursor_factory, autocommit=autocommit):
                    with self.connect(cursor_factory=cursor_factory, autocommit=autocommit) as connection:
                        self.assertEqual(connection.execute("SELECT count(*) FROM t").fetchone(), (5,))
                        self.assertTrue(connection.execute("EXPLAIN ANALYZE SELECT * FROM t").fetchall())
                        connection.execute("SET extra_float_digits = 3")
                        with connection.cursor().copy("COPY (SELECT id FROM t) TO STDOUT") as copy:
                            self.assertEqual(len(list(copy.rows())), 5)
                        with connection.transaction():
                            connection.execute("DECLARE c CURSOR FOR SELECT id FROM t ORDER BY id")
                            self.assertEqual(connection.execute("FETCH 2 FROM c").fetchall(), [(1,), (2,)])

    def test_nothing_that_a_read_does_stays(self):
        for cursor_factory in (psycopg.ClientCursor, psycopg.Cursor):
            for autocommit in (True, False):
                for sql in ("SELECT t.eraser FROM t LIMIT 1", "SELECT (t).eraser FROM t LIMIT 1",
                            "SELECT * FROM harmless", "COPY (SELECT * FROM harmless) TO STDOUT",
                            "DELETE FROM t WHERE id = 1", "SELECT eraser(t) FROM t",
                            "SET ROLE pg_monitor", "SELECT set_config('role', 'pg_monitor', false)"):
                    with self.subTest(cursor=cursor_factory, autocommit=autocommit, sql=sql):
                        with self.assertRaises(psycopg.errors.InsufficientPrivilege):
                            with self.connect(cursor_factory=cursor_factory, autocommit=autocommit) as connection:
                                if sql.startswith("COPY"):
                                    with connection.cursor().copy(sql) as copy:
                                        list(copy.rows())
                                else:
                                    connection.execute(sql)
                        self.assertEqual(self.cluster.sql("SELECT count(*) FROM t"), [(5,)])


if __name__ == "__main__":
    main()
