"""Simple Query and COPY in all its ways, byte for byte as direct."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.e2e import EndToEnd, main, ready, silence, until, wire
from support.wire import bind, copy_data, copy_done, copy_fail, describe, execute, flush, parse, query, run, sync

COPY_IN = "COPY scratch FROM STDIN"
COUNT = query("SELECT count(*), min(payload), max(payload) FROM scratch")
AWAY = query("ROLLBACK") + COUNT


class SimpleQuery(EndToEnd):
    def test_strings_of_several_statements(self):
        for sql in ("SELECT 1; SELECT 'two', 3; SELECT", "SELECT 1;;; ;SELECT 2;", "", "   ", ";", "-- nothing",
                    "INSERT INTO scratch VALUES (1, 'a'); SELECT 1 / 0; INSERT INTO scratch VALUES (2, 'b')",
                    "INSERT INTO scratch VALUES (1, 'a'); COMMIT; SELECT 1 / 0",
                    "BEGIN; INSERT INTO scratch VALUES (1, 'a'); SELECT 1 / 0; COMMIT",
                    "BEGIN; SELECT 1; SAVEPOINT s; SELECT 1 / 0", "SELECT 1; SELEC 2", "BEGIN; BEGIN; COMMIT; COMMIT",
                    "SELECT 1; VACUUM scratch", "CREATE TEMP TABLE t AS SELECT 1 AS x; SELECT * FROM t; DROP TABLE t",
                    "SELECT 'ü', E'\\n', $$;$$, $x$ $$;$$ $x$ /* ; */; SELECT 2",
                    "DO $$BEGIN RAISE NOTICE 'n'; END$$; SELECT 1", "ROLLBACK; ABORT; SELECT 1"):
            with self.subTest(sql):
                self.same_frames(query(sql), ready(), COUNT, ready(), query("ROLLBACK"), ready(), COUNT, ready(),
                                 reset=True, what=sql)

    def test_transaction_states(self):
        frames = self.same_frames(query("BEGIN"), ready(), query("SELECT 1"), ready(), query("SELECT 1 / 0"), ready(),
                                  query("SELECT 1"), ready(), query("COMMIT"), ready(), query("SELECT 1"), ready())
        self.assertEqual("ITTEEII", wire.statuses(frames))

    def test_queries_sent_ahead(self):
        self.same_frames(b"".join(query(f"SELECT {i} / ({i} % 9)") for i in range(300)), ready(300))

    def test_byte_by_byte_and_in_every_split(self):
        data = query("SELECT name FROM items WHERE id = 3; SELECT 1 / 0")
        self.same_frames(data, ready(), chunk=1)

        def play(target):
            seen = set()
            with target.wire() as connection:
                for at in range(1, len(data)):
                    connection.send_split(data, at, 0.0005)
                    seen.add(tuple(connection.until_ready()))
            return seen

        self.assertEqual(1, len(self.same(play)))

    def test_a_query_of_many_megabytes(self):
        self.same_frames(query("SELECT length('" + "x" * 8_000_000 + "')"), ready())

    def test_rows_wider_and_longer_than_any_buffer(self):
        self.same_frames(query("SELECT repeat('x', 3000000), i FROM generate_series(1, 3) i"), ready())
        self.same_frames(query("SELECT i, repeat('x', i % 700) FROM generate_series(1, 20000) i"), ready())
        self.same_frames(query("SELECT " + ", ".join(f"{i} AS c{i}" for i in range(1600))), ready())

    def test_errors_with_all_their_fields(self):
        for sql in ("SELECT * FROM nowhere", "SELECT 1 +", "INSERT INTO items VALUES (1, 'x', 1)",
                    "INSERT INTO items VALUES (NULL, 'x', 1)", "INSERT INTO items VALUES (99, 'x', -1)",
                    "DELETE FROM items WHERE id = 2; SELECT 1", "SELECT 'x'::int", "SELECT missing FROM items",
                    "DO $$BEGIN RAISE EXCEPTION 'm' USING DETAIL='d', HINT='h', ERRCODE='P0042'; END$$"):
            with self.subTest(sql):
                self.same_frames(query(sql), ready(), reset=True, what=sql)

    def test_parameter_status_follows_settings(self):
        frames = self.same_frames(
            query("SET client_encoding = 'LATIN1'"), ready(), query("SELECT 'caf\u00e9'".encode("latin-1")), ready(),
            query("SET DateStyle = 'German'; SET TimeZone = 'Asia/Tokyo'"), ready(),
            query("SET application_name = 'renamed'"), ready(), query("SET standard_conforming_strings = off"),
            ready(), query(r"SELECT 'a\'b'"), ready(), query("BEGIN; SET IntervalStyle = 'iso_8601'"), ready(),
            query("ROLLBACK"), ready(), query("RESET ALL"), ready())
        self.assertLessEqual(9, sum(f.tag == "S" for f in frames))

    def test_startup_parameters_arrive(self):
        def play(target):
            with target.wire(user="app", application_name="a name with \u00fc", DateStyle="German",
                             options="-c statement_timeout=12345 -c search_path=pg_catalog",
                             client_encoding="UTF8") as c:
                return wire.masked(c.greeting), [c.rows(f"SHOW {s}") for s in
                                                 ("statement_timeout", "search_path", "DateStyle",
                                                  "application_name", "session_authorization")]

        self.assertEqual([("12345ms",)], self.same(play)[1][0])


class Copy(EndToEnd):
    def test_copy_out(self):
        for sql in ("COPY items TO STDOUT", "COPY items TO STDOUT (FORMAT csv, HEADER)",
                    "COPY items TO STDOUT (FORMAT binary)", "COPY (SELECT 1 WHERE false) TO STDOUT",
                    "COPY (SELECT 10 / (3 - i) FROM generate_series(1, 5) i) TO STDOUT",
                    "COPY items TO STDOUT; SELECT 1; COPY orders TO STDOUT", "COPY nowhere TO STDOUT",
                    "COPY (SELECT i, repeat('y', 500) FROM generate_series(1, 9000) i) TO STDOUT"):
            with self.subTest(sql):
                self.same_frames(query(sql), ready())

    def test_copy_in_is_stored(self):
        frames = self.same_frames(query(COPY_IN), until("G"), copy_data("1\tone\n") + copy_data("2\ttw") +
                                  copy_data("o\n3\tthree\n") + copy_done(), ready(), COUNT, ready(), reset=True)
        self.assertIn([b"3", b"one", b"two"], [f.columns() for f in frames if f.tag == "D"])

    def test_copy_in_byte_by_byte(self):
        self.same_frames(query(COPY_IN), until("G"), copy_data("1\tone\n") + copy_done() + COUNT, ready(2),
                         reset=True, chunk=1)

    def test_copy_in_sent_ahead_of_the_servers_answer(self):
        self.same_frames(query(COPY_IN) + b"".join(copy_data(f"{i}\tx{i}\n") for i in range(3000)) + copy_done() +
                         COUNT, ready(2), reset=True)

    def test_copy_in_fails_on_its_first_middle_and_last_row(self):
        for bad in (0, 500, 999):
            with self.subTest(bad):
                rows = b"".join(copy_data("x\tbad\n" if i == bad else f"{i}\tx\n") for i in range(1000))
                frames = self.same_frames(query(COPY_IN), until("G"), rows + copy_done() + COUNT, ready(2), reset=True)
                self.assertEqual(["22P02"], wire.sqlstates(frames))

    def test_copy_fail(self):
        frames = self.same_frames(query(COPY_IN), until("G"), copy_data("1\tone\n") + copy_fail("no more, ü"),
                                  ready(), COUNT, ready(), reset=True)
        self.assertEqual(["57014"], wire.sqlstates(frames))

    def test_copy_in_without_data(self):
        self.same_frames(query(COPY_IN) + copy_done() + COUNT, ready(2), reset=True)

    def test_sync_and_flush_during_copy_are_ignored(self):
        self.same_frames(query(COPY_IN), until("G"), copy_data("1\tone\n") + sync() + flush() + copy_data("2\ttwo\n") +
                         sync() + copy_done(), ready(), silence(), COUNT, ready(), reset=True)

    def test_another_message_during_copy_ends_the_session(self):
        # Servers of some versions take it for an error of the COPY, others for lost synchronization: as they do.
        for name, data in {"Query": query("SELECT 1"), "Parse": parse("SELECT 1"), "Bind": bind(),
                           "Execute": execute(), "Describe": describe("P")}.items():
            with self.subTest(name):
                frames = self.same_frames(query(COPY_IN), until("G"), copy_data("1\tone\n") + data, until("EZ", 2),
                                          reset=True, what=name)
                self.assertIn("08P01", wire.sqlstates(frames))
                self.assertEqual([(0,)], self.cluster.sql("SELECT count(*) FROM scratch"))

    def test_copy_data_and_done_outside_copy_are_ignored(self):
        self.same_frames(copy_data("x") + copy_done() + copy_fail() + COUNT, ready(), silence(), reset=True)

    def test_copies_in_one_string(self):
        self.same_frames(query(f"{COPY_IN}; SELECT 1; COPY scratch TO STDOUT; {COPY_IN}; SELECT 2"), until("G"),
                         copy_data("1\tone\n") + copy_done(), until("G"), copy_data("2\ttwo\n") + copy_done(),
                         ready(), COUNT, ready(), reset=True)
        self.same_frames(query(f"{COPY_IN}; {COPY_IN}; SELECT 2"), until("G"), copy_fail(), ready(), COUNT, ready(),
                         reset=True)

    def test_copy_inside_a_transaction_block(self):
        frames = self.same_frames(query("BEGIN"), ready(), query(COPY_IN), until("G"), copy_data("x\n") + copy_done(),
                                  ready(), query("COMMIT") + COUNT, ready(2), reset=True)
        self.assertEqual("ITEII", wire.statuses(frames))

    def test_copy_in_by_the_extended_protocol(self):
        for data in ([], ["1\tone\n"], ["1\tone\n", "2\ttwo\n"], ["x\n"]):
            with self.subTest(data):
                self.same_frames(run(COPY_IN), flush(), until("G"), b"".join(map(copy_data, data)) + copy_done() +
                                 sync(), ready(), COUNT, ready(), reset=True)

    def test_copy_in_by_the_extended_protocol_with_sync_sent_ahead(self):
        # As libpq does: the Sync behind Execute is ignored by the copy, a second one ends the exchange.
        self.same_frames(run(COPY_IN) + sync(), until("G"), copy_data("1\tone\n") + copy_done() + sync(), ready(),
                         silence(), COUNT, ready(), reset=True)
        self.same_frames(run(COPY_IN) + sync(), until("G"), copy_data("1\tone\n") + copy_fail() + sync(), ready(),
                         COUNT, ready(), reset=True)

    def test_copy_in_by_the_extended_protocol_with_errors(self):
        self.same_frames(run(COPY_IN) + flush(), until("G"), copy_data("x\n") + copy_done() + run("SELECT 1") + sync(),
                         ready(), AWAY, ready(2), reset=True)
        self.same_frames(run(COPY_IN) + flush(), until("G"), copy_fail() + run("SELECT 1") + sync(), ready(), COUNT,
                         ready(), reset=True)

    def test_copies_in_a_pipeline(self):
        self.same_frames(run("INSERT INTO scratch VALUES (0, 'before')") + run("COPY scratch TO STDOUT") +
                         run(COPY_IN) + flush(), until("G"), copy_data("1\tone\n") + copy_done() +
                         run("COPY scratch TO STDOUT") + run("SELECT 1 / 0") + sync() + COUNT, ready(2), reset=True)
        self.same_frames(run(COPY_IN) + flush(), until("G"), copy_data("1\tone\n") + copy_done() +
                         run("COPY scratch TO STDOUT") + run("SELECT 1") + sync() + COUNT, ready(2), reset=True)

    def test_copy_out_by_the_extended_protocol(self):
        self.same_frames(run("COPY items TO STDOUT") + run("SELECT 1") + sync(), ready())
        self.same_frames(run("COPY (SELECT 10 / (3 - i) FROM generate_series(1, 5) i) TO STDOUT") + run("SELECT 1") +
                         sync() + COUNT, ready(2))
        self.same_frames(run("COPY items TO STDOUT") + flush(), until("C"), silence(), sync(), ready())

    def test_a_connection_that_ends_in_the_middle_of_a_copy_stores_nothing(self):
        def play(target):
            with target.wire(application_name="gone") as connection:
                connection.send(query(COPY_IN))
                connection.until("G")
                connection.send(copy_data("1\tone\n") + copy_data("2\ttwo\n")[:6])
            self.cluster.wait_for_backends(0, "application_name = 'gone'")
            return self.cluster.sql("SELECT count(*) FROM scratch")

        self.assertEqual([(0,)], self.same(play, reset=True))

    def test_large_copies_arrive_whole(self):
        rows = b"".join(b"%d\t%s\n" % (i, b"z" * (i % 300)) for i in range(60000))
        data = b"".join(copy_data(rows[at:at + 8191]) for at in range(0, len(rows), 8191))

        def play(target):
            with target.wire() as connection:
                connection.send(query(COPY_IN))
                connection.until("G")
                connection.send(data + copy_done())
                tags = wire.tags(connection.until_ready())
                frames = connection.ask("COPY (SELECT * FROM scratch ORDER BY id) TO STDOUT")
                return tags, b"".join(f.body for f in frames if f.tag == "d") == rows

        self.assertEqual(("CZ", True), self.same(play, reset=True))


if __name__ == "__main__":
    main()
