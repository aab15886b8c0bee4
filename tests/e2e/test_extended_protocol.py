"""The extended protocol, byte for byte as direct: matrices over raw messages that no driver would send."""

import itertools
import os
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.e2e import EndToEnd, main, ready, silence, until, wire
from support.wire import bind, close, describe, execute, flush, parse, query, run, sync, tags

GOOD = run("SELECT id, name FROM items ORDER BY id LIMIT 3")
WRITE = run("INSERT INTO scratch VALUES (1, 'one')")

EVERYTHING_IS_HELD = os.environ.get("PGCHAPERONE_E2E_POLICY") == "hold"

# Ways in which a message can go wrong, each answered by one ErrorResponse and then skipping until Sync.
ERRORS = {
    "a Parse with a syntax error": parse("SELEC 1"),
    "a Parse of two statements": parse("SELECT 1; SELECT 2"),
    "a Parse of an unknown relation": parse("SELECT * FROM nowhere"),
    "a Parse of a named statement that exists": parse("SELECT 1", "taken") + parse("SELECT 2", "taken"),
    "a Bind of an unknown statement": bind(statement="unknown"),
    "a Bind with too few parameters": parse("SELECT $1::int, $2::int") + bind(parameters=["1"]),
    "a Bind with a bad value": parse("SELECT $1::int") + bind(parameters=["x"]),
    "a Describe of an unknown statement": describe("S", "unknown"),
    "a Describe of an unknown portal": describe("P", "unknown"),
    "a Describe of neither kind": describe("X", "unknown"),
    "an Execute of an unknown portal": execute("unknown"),
    "an Execute that fails at its first row": run("SELECT 1 / 0"),
    "an Execute that fails after some rows": run("SELECT 100 / (5 - i) FROM generate_series(1, 9) i"),
    "an Execute that breaks a constraint": run("INSERT INTO items VALUES (1, 'again', 0)"),
    "a Close of neither kind": close("X", "unknown"),
}


class ExtendedProtocol(EndToEnd):
    def test_a_statement_runs_in_every_split_of_its_bytes(self):
        data = parse("SELECT $1::text, id FROM items WHERE id = $2", "s", [25, 23]) + describe("S", "s") + \
            bind("p", "s", ["text", "7"]) + describe("P", "p") + execute("p") + close("P", "p") + \
            close("S", "s") + sync()

        def play(target):
            seen = set()
            with target.wire() as connection:
                for at in range(1, len(data)):
                    connection.send_split(data, at, 0.0005)
                    seen.add(tuple(wire.masked(connection.until_ready())))
            return seen

        self.assertEqual(1, len(self.same(play)))

    def test_a_statement_runs_byte_by_byte(self):
        self.same_frames(GOOD + sync() + query("SELECT 'simple'"), ready(2), chunk=1)

    def test_an_error_at_each_position_of_a_pipeline(self):
        for (name, bad), position in itertools.product(ERRORS.items(), range(4)):
            with self.subTest(name, position=position):
                steps = [WRITE, GOOD, run("SELECT $1::text", ["x"])]
                steps.insert(position, bad)
                frames = self.same_frames(b"".join(steps) + sync() + GOOD + sync() +
                                          query("SELECT count(*) FROM scratch"), ready(3), reset=True, what=name)
                self.assertEqual(1, tags(frames).count("E"))
                self.assertEqual(b"0", [f for f in frames if f.tag == "D"][-1].columns()[0],
                                 "what stood before the error rolled back")

    def test_every_error_inside_a_transaction_block(self):
        for name, bad in ERRORS.items():
            with self.subTest(name):
                frames = self.same_frames(query("BEGIN"), ready(), GOOD + bad + GOOD + sync(), ready(),
                                          GOOD + sync(), ready(), query("SELECT 1"), ready(), query("ROLLBACK"),
                                          ready(), reset=True, what=name)
                self.assertEqual("ITEEEI", wire.statuses(frames))

    def test_a_simple_query_while_the_server_skips_is_dropped(self):
        frames = self.same_frames(parse("SELEC") + query("SELECT 'dropped'") + flush() + GOOD + sync() +
                                  query("SELECT 'kept'"), ready(2))
        self.assertNotIn(b"dropped", b"".join(f.body for f in frames))

    def test_named_statements_and_portals_of_all_lives(self):
        self.same_frames(
            parse("SELECT id, name FROM items WHERE id <= $1 ORDER BY id", "s") + sync(), ready(),
            describe("S", "s") + sync(), ready(),
            b"".join(bind(f"p{i}", "s", [str(i)]) + execute(f"p{i}") for i in range(1, 6)) + sync(), ready(),
            execute("p1") + sync(), ready(),  # portals end with their transaction
            query("BEGIN"), ready(), bind("held", "s", ["9"]) + sync(), ready(),
            execute("held", 4) + sync(), ready(), execute("held", 4) + sync(), ready(),
            execute("held", 4) + sync(), ready(), execute("held", 0) + sync(), ready(),
            describe("P", "held") + close("P", "held") + execute("held") + sync(), ready(),
            query("COMMIT"), ready(),
            close("S", "s") + close("S", "never") + sync(), ready(), bind("", "s", ["1"]) + sync(), ready())

    def test_portals_suspended_by_row_limits(self):
        for limit in (1, 2, 3, 19, 20, 21, 0):
            with self.subTest(limit=limit):
                self.same_frames(parse("SELECT * FROM items ORDER BY id") + bind() +
                                 execute("", limit) * 3 + describe("P") + execute("", limit) + sync(), ready())

    def test_results_in_text_binary_and_mixed_formats(self):
        for formats in ([], [0], [1], [0, 1, 0, 1], [1, 0, 1, 0]):
            with self.subTest(formats=formats):
                self.same_frames(parse("SELECT $1::int4, $2::text, now() IS NULL, 12.5::numeric", types=[23, 25]) +
                                 bind(parameters=[b"\0\0\0\7", b"bytes"], formats=[1, 0], result_formats=formats) +
                                 describe("P") + execute() + sync(), ready())

    def test_every_kind_of_statement(self):
        for sql in ("", ";", "-- only a comment", "SET TIME ZONE 'Europe/Berlin'", "SHOW TimeZone", "BEGIN",
                    "VALUES (1), (2)", "CREATE TEMP TABLE t (i int)", "EXPLAIN (COSTS off) SELECT 1",
                    "UPDATE items SET quantity = 1 WHERE id = 1 RETURNING *", "DELETE FROM orders WHERE id = 1",
                    "DECLARE c CURSOR FOR SELECT 1", "LISTEN channel", "VACUUM scratch", "CHECKPOINT",
                    "DO $$BEGIN RAISE NOTICE 'notice %', 1; RAISE WARNING 'warning'; END$$",
                    "PREPARE p AS SELECT 1", "DISCARD ALL", "ROLLBACK", "SAVEPOINT s", "COPY (SELECT 1) TO STDOUT"):
            with self.subTest(sql):
                self.same_frames(run(sql) + sync(), ready(), query("ROLLBACK"), ready(), reset=True, what=sql)

    def test_flush_without_sync_gives_each_answer_at_once(self):
        self.same_frames(
            parse("SELECT generate_series(1, 3)") + flush(), until("1"), silence(),
            bind() + flush(), until("2"), describe("P") + flush(), until("T"), silence(),
            execute("", 2) + flush(), until("s"), flush() + flush(), silence(), execute() + flush(), until("C"),
            silence(), sync(), ready())

    def test_flush_after_an_error_and_sync_later(self):
        self.same_frames(WRITE + run("SELECT 1 / 0") + flush(), until("E"), GOOD + flush(), silence(), sync(), ready(),
                         query("SELECT count(*) FROM scratch"), ready(), reset=True)

    def test_an_execute_whose_answer_nobody_asks_for_waits_for_sync(self):
        # Without Flush or Sync the server may keep its answers; what counts is that all come behind the Sync.
        self.same_frames(GOOD, GOOD, sync(), ready())

    def test_several_syncs_outstanding(self):
        pieces = [GOOD, b"", WRITE, run("SELECT 1 / 0"), GOOD, b"", parse("SELEC"), WRITE]
        for extra in (b"", flush()):
            frames = self.same_frames(b"".join(p + extra + sync() for p in pieces) * 3, ready(len(pieces) * 3),
                                      reset=True)
            self.assertEqual("I" * (3 * len(pieces) + 1), wire.statuses(frames))

    @unittest.skipIf(EVERYTHING_IS_HELD, "what comes behind a ROLLBACK in one string can't be held")
    def test_simple_and_extended_queries_outstanding_together(self):
        data = query("SELECT 1") + GOOD + sync() + query("SELECT 1 / 0; SELECT 2") + sync() + WRITE + sync() + \
            query("BEGIN; SELECT 3") + GOOD + sync() + query("") + run("SELECT 1 / 0") + query("skipped") + sync() + \
            query("ROLLBACK; SELECT 4") + query("SELECT 5")
        self.same_frames(data, ready(10), reset=True)

    def test_a_simple_query_between_parse_and_bind(self):
        # It ends the unnamed statement, not a named one, and commits what the pipeline wrote before it.
        self.same_frames(parse("SELECT 1") + query("SELECT 2") + bind() + execute() + sync(), ready(2))
        self.same_frames(parse("SELECT 1", "s") + query("SELECT 2") + bind("", "s") + execute() + sync(), ready(2))
        self.same_frames(WRITE + query("SELECT 2") + run("SELECT 1 / 0") + sync(), ready(2),
                         query("SELECT count(*) FROM scratch"), ready(), reset=True)
        self.same_frames(parse("SELECT 1") + bind("p") + query("SELECT 2") + execute("p") + sync(), ready(2))

    def test_pipelines_of_hundreds(self):
        for bad_at in (None, 0, 250, 499):
            with self.subTest(bad_at=bad_at):
                pieces = [run("INSERT INTO scratch VALUES ($1, 'p')", [str(i)]) for i in range(500)]
                if bad_at is not None:
                    pieces[bad_at] = run("INSERT INTO scratch VALUES ($1::int, 'p')", ["no number"])
                frames = self.same_frames(b"".join(pieces) + sync() + query("SELECT count(*) FROM scratch"), ready(2),
                                          reset=True)
                self.assertEqual(b"500" if bad_at is None else b"0",
                                 [f for f in frames if f.tag == "D"][-1].columns()[0])

    def test_a_pipeline_with_errors_between_hundreds_of_syncs(self):
        data = b"".join((run("SELECT $1::int", ["x" if i % 7 == 0 else str(i)]) + sync()) for i in range(400))
        self.same_frames(data, ready(400))

    @unittest.skipIf(EVERYTHING_IS_HELD, "what comes behind a ROLLBACK in one string can't be held")
    def test_transactions_inside_a_pipeline(self):
        for verbs in (["BEGIN", "COMMIT"], ["BEGIN", "ROLLBACK"], ["COMMIT"], ["ROLLBACK"], ["BEGIN"],
                      ["SAVEPOINT s"], ["BEGIN", "SAVEPOINT s", "ROLLBACK TO s", "COMMIT"], ["VACUUM scratch"]):
            with self.subTest(verbs):
                data = WRITE + b"".join(run(v) + WRITE for v in verbs)
                self.same_frames(data + sync() + data + run("SELECT 1 / 0") + sync(), ready(2),
                                 query("ROLLBACK; SELECT count(*) FROM scratch"), ready(), reset=True, what=str(verbs))

    def test_a_deferred_constraint_fails_at_sync(self):
        frames = self.same_frames(run("INSERT INTO orders VALUES (900, 900, 'no such item')") + sync(), ready(),
                                  query("SELECT count(*) FROM orders"), ready(), reset=True)
        self.assertEqual(["23503"], wire.sqlstates(frames))

    def test_notices_come_in_their_place(self):
        notice = run("DO $$BEGIN RAISE NOTICE 'one'; RAISE INFO 'two' USING HINT = 'hint'; END$$")
        self.same_frames(notice + GOOD + notice + sync() + notice + sync(), ready(2))

    def test_parameters_of_many_shapes(self):
        many = [str(i) for i in range(3000)]
        self.same_frames(parse("SELECT " + "+".join(f"${i + 1}::int" for i in range(3000))) +
                         bind(parameters=many) + execute() + sync(), ready())
        self.same_frames(parse("SELECT length($1), $2::text IS NULL, $3") +
                         bind(parameters=["x" * 1_000_000, None, ""]) + execute() + sync(), ready())

    def test_wide_names_and_long_texts(self):
        name = "ü" * 500
        self.same_frames(parse("SELECT 1", name) + bind(name, name) + describe("S", name) + describe("P", name) +
                         execute(name) + close("P", name) + close("S", name) + sync(), ready())
        self.same_frames(parse("SELECT 1 /*" + "x" * 3_000_000 + "*/") + bind() + execute() + sync(), ready())

    def test_messages_that_the_server_finds_malformed(self):
        # A protocol violation inside a well-framed message: an ERROR, and the session lives on.
        for name, bad in {
                "a Parse without its end": wire.message("P", b"s\0SELECT 1\0"),
                "a Bind cut in its parameters": wire.message("B", b"\0\0\0\0\0\2\0\0\0\1x"),
                "an Execute that is too long": wire.message("E", b"\0\0\0\0\0more"),
                "a Describe without a name": wire.message("D", b"S"),
                "a Close of nothing": wire.message("C", b""),
                "a Sync with a body": wire.message("S", b"x"),
                "a Flush with a body": wire.message("H", b"x"),
                "a Query without its terminator": wire.message("Q", b"SELECT 1"),
                "a Query with two terminators": wire.message("Q", b"SELECT 1\0\0"),
                "an empty Query": wire.message("Q", b"")}.items():
            with self.subTest(name):
                # Sync and Query answer themselves with a ReadyForQuery after their error; the rest skip.
                self.same_frames(GOOD + sync(), ready(), bad + sync() + query("SELECT 'end'"),
                                 lambda c: self._up_to_end(c), what=name)

    @staticmethod
    def _up_to_end(connection):
        frames = []
        while True:
            frame = connection.frame()
            if frame is None:
                return frames
            frames.append(frame)
            if frame.tag == "D" and b"end" in frame.body:
                return frames + connection.until_ready()


if __name__ == "__main__":
    main()
