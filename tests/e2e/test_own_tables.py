"""What a session made itself it may empty and drop; nothing that only looks like its own it may touch."""

import sys
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.e2e import BUILT_IN_POLICY, EndToEnd, main, needs_guard

DANGER = "TRUNCATE orders"

# Each ends with a statement that would empty the real table `orders`, after something that makes the name look
# like a table of the session's own.
TRICKS = (
    ("EXPLAIN CREATE TEMP TABLE orders AS SELECT 1", DANGER),
    ("CREATE FUNCTION mk() RETURNS void LANGUAGE sql AS 'CREATE TEMP TABLE orders(id int)'", DANGER),
    ("DO $$ BEGIN IF false THEN CREATE TEMP TABLE orders(id int); END IF; END $$", DANGER),
    ("DO $$ BEGIN BEGIN CREATE TEMP TABLE orders(id int); RAISE EXCEPTION 'no'; "
     "EXCEPTION WHEN others THEN NULL; END; END $$", DANGER),
    ("PREPARE p AS SELECT 1 AS a INTO TEMP orders", DANGER),
    ("DO $$ BEGIN CREATE TEMP TABLE orders(id int); EXECUTE 'DISCARD TEMP'; END $$", DANGER),
    ("CREATE SCHEMA s1 CREATE TABLE orders(id int)", DANGER),
    ("DO $$ BEGIN CREATE TEMP TABLE orders(id int); ALTER TABLE pg_temp.orders RENAME TO oo; END $$", DANGER),
    ("CREATE TEMP VIEW orders AS SELECT * FROM public.orders",
     "CREATE TEMP TABLE IF NOT EXISTS orders(id int)", "DELETE FROM orders"),
    ("CREATE TABLE cx(id int)", "CREATE TEMP VIEW cx AS SELECT * FROM public.orders", "DELETE FROM cx"),
    ("CREATE TEMP TABLE own(id int)", "DO $$ BEGIN TRUNCATE own; DROP SCHEMA public CASCADE; END $$"),
    ("CREATE TEMP TABLE orders(id int)", "PREPARE p AS DELETE FROM orders",
     "DROP TABLE pg_temp.orders", "EXECUTE p"),
    ("CREATE TEMP TABLE orders(id int)",
     "CREATE FUNCTION mk() RETURNS void LANGUAGE sql AS 'DELETE FROM orders'",
     "DROP TABLE pg_temp.orders", "SELECT mk()"),
    ("CREATE TEMP TABLE orders(id int)", "DROP TABLE orders", DANGER),
    ("CREATE TEMP TABLE orders(id int)", "DISCARD TEMP", DANGER),
    ("BEGIN", "CREATE TEMP TABLE orders(id int)", "ROLLBACK", DANGER),
    ("BEGIN", "SAVEPOINT a", "CREATE TEMP TABLE orders(id int)", "ROLLBACK TO a", DANGER),
    ("BEGIN", "CREATE TEMP TABLE orders(id int) ON COMMIT DROP", "COMMIT", DANGER),
    ("CREATE TEMP TABLE orders(id int); SELECT 1", "DROP TABLE pg_temp.orders; TRUNCATE orders"),
    ("CREATE SCHEMA s1", "SET search_path = s1", "BEGIN",
     "DECLARE c CURSOR FOR SELECT set_config('search_path', 'public', false)",
     "CREATE TABLE orders(id int)", "FETCH c", DANGER, "COMMIT"),
    ("SET search_path = public, pg_temp", "CREATE TEMP TABLE orders(id int)", DANGER),
    ("SET search_path = public, pg_temp", "CREATE TEMP TABLE orders(id int); " + DANGER),
    ("SELECT set_config('search_path', 'public, pg_' || 'temp', false)", "CREATE TEMP TABLE orders(id int)", DANGER),
    ("CREATE TEMP VIEW cx AS SELECT * FROM public.orders", "CREATE TABLE cx(id int)", "DELETE FROM cx"),
    ("CREATE TEMP VIEW cx AS SELECT * FROM public.orders", "CREATE TABLE cx(id int); DELETE FROM cx"),
    ("CREATE TEMP TABLE a(id int)", "INSERT INTO a VALUES (1)",
     "CREATE VIEW cx AS SELECT * FROM public.orders WHERE EXISTS (SELECT FROM a)", "CREATE TABLE cx(id int)",
     "DELETE FROM cx"),
    ("CREATE TEMP TABLE orders(id int); TRUNCATE orders; DROP TABLE orders; TRUNCATE orders",),
    ("CREATE TEMP TABLE orders(id int) ON COMMIT DROP; COMMIT; TRUNCATE orders",),
    ("CREATE TEMP TABLE a(id int) PARTITION BY LIST (id)", "CREATE TEMP TABLE orders PARTITION OF a DEFAULT",
     "DROP TABLE pg_temp.a", DANGER),
    ("CREATE TEMP TABLE a(id int) PARTITION BY LIST (id); CREATE TEMP TABLE orders PARTITION OF a DEFAULT; "
     "DROP TABLE pg_temp.a; TRUNCATE orders",),
)
HARMLESS = (
    ("CREATE TEMP TABLE tmp(id int)", "INSERT INTO tmp VALUES (1)", "DELETE FROM tmp", "TRUNCATE tmp",
     "DROP TABLE tmp"),
    ("SELECT 1 AS id INTO TEMP tmp", "UPDATE tmp SET id = 2", "DROP TABLE tmp"),
    ("CREATE TABLE hte(id int)", "INSERT INTO hte VALUES (1)", "DELETE FROM hte WHERE id = 1",
     "DROP TABLE hte"),
    ("BEGIN", "CREATE TABLE fresh(id int)", "CREATE INDEX ON fresh(id)", "COMMIT"),
    ("CREATE TEMP TABLE a(id int)", "CREATE TEMP TABLE b(id int)", "DROP TABLE a", "TRUNCATE b", "DROP TABLE b"),
    ("DROP TABLE IF EXISTS pg_temp.tmp", "CREATE TEMP TABLE tmp(id int)"),
)


@needs_guard
class OwnTables(EndToEnd):
    configuration = BUILT_IN_POLICY

    def setUp(self):
        super().setUp()
        self.cluster.sql("DROP SCHEMA IF EXISTS public CASCADE")
        self.cluster.sql("DROP SCHEMA IF EXISTS s1 CASCADE")
        self.cluster.sql("CREATE SCHEMA public")
        self.cluster.sql("CREATE TABLE public.orders AS SELECT i AS id FROM generate_series(1, 5) i")

    def play(self, statements, cursor_factory):
        """Runs the statements one by one, going on after errors, and returns the errors."""
        errors = []
        with psycopg.connect(self.guarded.dsn(), autocommit=True,
                             cursor_factory=cursor_factory, prepare_threshold=None) as connection:
            for statement in statements:
                try:
                    connection.execute(statement)
                except psycopg.Error as error:
                    errors.append((statement, error.sqlstate))
        return errors

    def test_nothing_that_looks_like_an_own_table_is_taken_for_one(self):
        for trick in TRICKS:
            with self.subTest(trick=trick):
                self.setUp()
                self.play(trick, psycopg.ClientCursor)
                self.assertEqual(self.cluster.sql("SELECT count(*) FROM public.orders"), [(5,)])

    def test_own_tables_may_be_emptied_and_dropped(self):
        for cursor_factory in (psycopg.ClientCursor, psycopg.Cursor):
            for statements in HARMLESS:
                with self.subTest(statements=statements):
                    self.setUp()
                    self.assertEqual(self.play(statements, cursor_factory), [])

    def test_tables_of_one_text_are_own_within_it(self):
        text = "CREATE TEMP TABLE tt AS SELECT 1 AS a; TRUNCATE tt; DROP TABLE tt"
        self.assertEqual(self.play((text,), psycopg.ClientCursor), [])


if __name__ == "__main__":
    main()
