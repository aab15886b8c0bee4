"""Tables for the end-to-end tests of supervised transactions, with every way in which a statement can change more rows
than its text says; and what must be true behind each of them."""

from support import processes
from support.e2e import EndToEnd, Guard, Target, wire
from support.wire import query, run, sync

# 10 shops, 100 sales (10 for each shop), 200 lines (2 for each sale), 50 counters, 100 rows in two partitions.
FIXTURE = """\
DROP SCHEMA IF EXISTS own CASCADE;
CREATE SCHEMA own;
SET search_path = own;
CREATE TABLE shops (id int PRIMARY KEY, name text);
CREATE TABLE sales (id int PRIMARY KEY, shop int REFERENCES shops ON DELETE CASCADE, amount int CHECK (amount >= 0));
CREATE TABLE lines (id int PRIMARY KEY, sale int REFERENCES sales ON DELETE CASCADE, note text);
CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL);
CREATE TABLE log (id int, note text);
CREATE TABLE later (id int, shop int REFERENCES shops DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE parts (id int, k int) PARTITION BY RANGE (id);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (1) TO (51);
CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (51) TO (1000);

CREATE FUNCTION remove(up_to int) RETURNS int LANGUAGE sql AS
    $$ DELETE FROM own.counters WHERE id <= up_to; SELECT up_to $$;
CREATE FUNCTION remove_dynamically(up_to int) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN EXECUTE 'DELETE FROM own.' || 'counters WHERE id <= ' || up_to; RETURN up_to; END $$;
CREATE FUNCTION remove_as_owner(up_to int) RETURNS int LANGUAGE sql SECURITY DEFINER AS
    $$ DELETE FROM own.counters WHERE id <= up_to; SELECT up_to $$;
CREATE FUNCTION remove_slowly(up_to int, seconds float8) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(seconds / 2); DELETE FROM own.counters WHERE id <= up_to; PERFORM pg_sleep(seconds / 2);
       RETURN up_to; END $$;
CREATE FUNCTION remove_and_take_back(up_to int) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN BEGIN DELETE FROM own.counters WHERE id <= up_to; RAISE EXCEPTION 'no'; EXCEPTION WHEN others THEN END;
       RETURN up_to; END $$;
CREATE PROCEDURE remove_by_procedure(up_to int) LANGUAGE sql AS $$ DELETE FROM own.counters WHERE id <= up_to $$;
CREATE PROCEDURE commits() LANGUAGE plpgsql AS
    $$ BEGIN DELETE FROM own.counters WHERE id <= 30; COMMIT; DELETE FROM own.counters; COMMIT; END $$;

CREATE FUNCTION truncates() RETURNS int LANGUAGE plpgsql AS $$ BEGIN TRUNCATE own.log; RETURN 1; END $$;
CREATE FUNCTION drops() RETURNS int LANGUAGE plpgsql AS $$ BEGIN DROP TABLE own.log; RETURN 1; END $$;
CREATE FUNCTION alters() RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN ALTER TABLE own.log ADD COLUMN extra int; RETURN 1; END $$;
CREATE FUNCTION grants() RETURNS int LANGUAGE plpgsql AS $$ BEGIN GRANT SELECT ON own.log TO app; RETURN 1; END $$;
CREATE FUNCTION defines() RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN CREATE FUNCTION own.fresh() RETURNS int LANGUAGE sql AS 'SELECT 1'; RETURN 1; END $$;
CREATE FUNCTION makes_role() RETURNS int LANGUAGE plpgsql AS $$ BEGIN CREATE ROLE fresh_role; RETURN 1; END $$;
CREATE FUNCTION uses_temporary_tables() RETURNS bigint LANGUAGE plpgsql AS
    $$ DECLARE found bigint;
       BEGIN CREATE TEMP TABLE work AS SELECT i FROM generate_series(1, 500) i; UPDATE work SET i = i + 1;
       DELETE FROM work WHERE i < 400; SELECT count(*) INTO found FROM work; DROP TABLE work; RETURN found; END $$;

CREATE TABLE by_row (id int);
CREATE FUNCTION bump() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN UPDATE own.counters SET n = n + 1 WHERE id <= NEW.id; RETURN NEW; END $$;
CREATE TRIGGER bump AFTER INSERT ON by_row FOR EACH ROW EXECUTE FUNCTION bump();
CREATE TABLE by_statement (id int);
CREATE FUNCTION bump_all() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN UPDATE own.counters SET n = n + 1 WHERE id <= (SELECT max(id) FROM news); RETURN NULL; END $$;
CREATE TRIGGER bump AFTER INSERT ON by_statement REFERENCING NEW TABLE AS news
    FOR EACH STATEMENT EXECUTE FUNCTION bump_all();
CREATE TABLE deferred (id int);
CREATE CONSTRAINT TRIGGER bump AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION bump();
CREATE VIEW simple_view AS SELECT * FROM counters;
CREATE VIEW instead AS SELECT * FROM counters;
CREATE FUNCTION instead_delete() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN DELETE FROM own.counters WHERE id <= OLD.id; RETURN OLD; END $$;
CREATE TRIGGER instead INSTEAD OF DELETE ON instead FOR EACH ROW EXECUTE FUNCTION instead_delete();
CREATE TABLE ruled (id int);
CREATE RULE ruled AS ON INSERT TO ruled DO ALSO DELETE FROM own.counters WHERE id <= NEW.id;
GRANT ALL ON SCHEMA own TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA own TO PUBLIC;
"""

FILL = """\
TRUNCATE own.shops, own.sales, own.lines, own.counters, own.log, own.later, own.parts, own.by_row, own.by_statement,
    own.deferred, own.ruled;
INSERT INTO own.shops SELECT i, 'shop ' || i FROM generate_series(1, 10) i;
INSERT INTO own.sales SELECT i, 1 + (i - 1) / 10, i FROM generate_series(1, 100) i;
INSERT INTO own.lines SELECT i, 1 + (i - 1) / 2, 'line ' || i FROM generate_series(1, 200) i;
INSERT INTO own.counters SELECT i, 0 FROM generate_series(1, 50) i;
INSERT INTO own.log SELECT i, 'entry ' || i FROM generate_series(1, 5) i;
INSERT INTO own.parts SELECT i, 0 FROM generate_series(1, 100) i;
"""

TABLES = ("shops", "sales", "lines", "counters", "log", "later", "parts", "by_row", "by_statement", "deferred", "ruled")

DEFINITIONS = """\
SELECT (SELECT string_agg(c.oid || ' ' || c.relname || ' ' || c.relfilenode || ' ' || coalesce(c.relacl::text, '') || ' '
                          || c.relnatts, ',' ORDER BY c.oid)
        FROM pg_class c WHERE c.relnamespace = 'own'::regnamespace),
       (SELECT count(*) FROM pg_proc WHERE pronamespace = 'own'::regnamespace),
       (SELECT count(*) FROM pg_roles WHERE rolname = 'fresh_role'), (SELECT count(*) FROM pg_prepared_xacts)"""


def supervise(terms: str,
              match: str = "runs_in_transaction: true, controls_transaction: false, unparsable: false") -> str:
    """A configuration with one rule, `count`, that supervises by these terms."""
    return ("policy:\n  default: allow\n  unparsable: allow\n  rules:\n    - name: count\n"
            f"      match: {{ {match} }}\n      action: {{ supervise: {{ {terms} }} }}\n")


USUAL = supervise("max_rows: 20, max_inserted: 50, effects: total, catalog_changes: refuse, exclusive_locks: refuse")


class Supervised(EndToEnd):
    """`self.guard` supervises by USUAL."""

    configuration = USUAL

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.own = cls.cluster.connect(prepare_threshold=None)
        cls.addClassCleanup(cls.own.close)

    def setUp(self):
        self.sql(FIXTURE)
        self.clean = False
        self.fill()

    def sql(self, text: str) -> list:
        """Runs a statement past the guard, by a session that stays."""
        if self.own.closed:
            type(self).own = self.cluster.connect(prepare_threshold=None)
        cursor = self.own.execute(text)
        return cursor.fetchall() if cursor.description else []

    def fill(self):
        """The tables as they are at the beginning."""
        if not self.clean:
            for (name,) in self.sql("SELECT gid FROM pg_prepared_xacts"):
                self.sql(f"ROLLBACK PREPARED '{name}'")
            self.sql(FILL)
            self.before = self.state()
            self.clean = True

    def rows(self):
        """What the tables hold."""
        return self.sql("SELECT " + ", ".join(
            f"(SELECT md5(coalesce(string_agg(t::text, ',' ORDER BY t::text), '')) || count(*) FROM own.{table} t)"
            for table in TABLES))

    def state(self):
        return self.rows(), self.sql(DEFINITIONS)

    def assert_nothing_changed(self):
        self.clean = self.before == self.state()
        self.assertEqual(self.before, self.state())
        self.assert_nothing_left_open()

    def assert_nothing_left_open(self):
        """No session is in a transaction or holds a lock on a relation, but for one that is ending and takes its
        temporary tables with it."""
        left = ("SELECT a.state, l.relation::regclass::text, l.mode FROM pg_stat_activity a LEFT JOIN pg_locks l "
                "ON l.pid = a.pid AND l.locktype = 'relation' "
                "WHERE a.state LIKE 'idle in transaction%' OR (a.state = 'idle' AND l.pid IS NOT NULL)")
        processes.wait_until(lambda: not self.sql(left), 5, f"no transaction left open: {self.sql(left)}")

    def counters(self) -> int:
        return self.sql("SELECT count(*) FROM own.counters")[0][0]

    def guarded_by(self, configuration: str, *options) -> Target:
        """A guard of the test's own."""
        guard = Guard(self.cluster, *options, configuration=configuration)
        self.addCleanup(guard.erase)
        target = Target("guarded by terms of its own", guard.host, guard.port)
        target.guard = guard
        return target

    def by(self, *terms, **more) -> Target:
        return self.guarded_by(supervise(", ".join(terms), **more))

    def assert_refused(self, frames, message=None, detail=None, sqlstate="42501"):
        """One error among the frames, a supervision's refusal. Returns its fields."""
        errors = [f.fields() for f in frames if f.tag == "E"]
        self.assertEqual([sqlstate], [e["C"] for e in errors], errors)
        fields = errors[0]
        self.assertEqual(("ERROR", "ERROR"), (fields["S"], fields["V"]))
        if message:
            self.assertRegex(fields["M"], message)
        if detail is not None:
            self.assertEqual(detail, fields.get("D"))
        self.assertIn('"count"', fields.get("H", "") + fields.get("D", ""), "the refusal names its rule")
        self.assertTrue(fields.get("H"), f"no HINT in {fields}")
        return fields

    def play(self, target, *steps, chunk: int = 0):
        """The frames that these steps read."""
        self.clean = False
        with target.wire(options="-c search_path=own") as connection:
            frames = []
            for step in steps:
                if isinstance(step, bytes):
                    connection.send(step, chunk)
                else:
                    frames += step(connection) or []
            return [self.without_place(f) for f in wire.masked(frames)]

    @staticmethod
    def without_place(frame):
        """The error of a savepoint outside of a block is the guard's own where its own block is open: it can't know the
        place in the server's source."""
        if frame.tag != "E" or b"\0C25P01\0" not in frame.body:
            return frame
        return wire.Frame("E", b"\0".join(p for p in frame.body.split(b"\0") if p[:1] not in (b"F", b"L", b"R")))

    def same_and_kept(self, *steps, what: str = "", target=None):
        """Direct and guarded give the same frames and leave the same rows. Returns the frames."""
        results = []
        for one in (self.direct, target or self.guarded):
            self.fill()
            try:
                frames = self.play(one, *steps)
            except Exception as error:
                error.add_note(f"while running {what} {one.name}")
                raise
            results.append((frames, self.rows()))
        self.assertEqual(results[0][0], results[1][0], f"{what}: direct (first) and guarded (second) differ")
        self.assertEqual(results[0][1], results[1][1], f"{what}: the rows kept differ, direct (first) and guarded")
        self.assert_nothing_left_open()
        return results[1][0]

    def refused(self, *steps, message=None, detail=None, target=None, what=""):
        """Guarded, the steps meet one refusal, and nothing is changed. Returns the frames."""
        self.fill()
        frames = self.play(target or self.guarded, *steps)
        with self.subTest(what or message):
            self.assert_refused(frames, message, detail)
            self.assert_nothing_changed()
        return frames


def ready(count: int = 1):
    return lambda connection: connection.until_ready(count)


# Every way to send one statement: its steps, and the transaction states that follow where it is refused.
SHAPES = {
    "simple": (lambda sql: (query(sql), ready(), query("SELECT 'end'"), ready()), "II"),
    "extended": (lambda sql: (run(sql) + sync(), ready(), query("SELECT 'end'"), ready()), "II"),
    "simple in a block": (lambda sql: (query("BEGIN"), ready(), query("INSERT INTO log VALUES (9, 'kept')"), ready(),
                                       query(sql), ready(), query("COMMIT"), ready()), "TTEI"),
    "extended in a block": (lambda sql: (run("BEGIN") + sync(), ready(), run(sql) + sync(), ready(),
                                         run("COMMIT") + sync(), ready()), "TEI"),
    "in a string of statements": (lambda sql: (query(f"INSERT INTO log VALUES (9, 'kept'); {sql}; SELECT 2"), ready(),
                                               query("SELECT 'end'"), ready()), "II"),
    "in a string with a block of its own": (lambda sql: (query(f"BEGIN; SELECT 1; {sql}; SELECT 2; COMMIT"), ready(),
                                                         query("ROLLBACK"), ready()), "EI"),
    "in a pipeline": (lambda sql: (run("INSERT INTO log VALUES (9, 'kept')") + run(sql) + run("SELECT 2") + sync() +
                                   query("SELECT 'end'"), ready(2)), "II"),
    "sent ahead": (lambda sql: (query("SELECT 1") + run("SELECT 2") + sync() + query(sql) + query("SELECT 3") +
                                run("SELECT 4") + sync(), ready(5)), "IIIII"),
}
