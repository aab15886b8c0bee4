"""psycopg 3 (libpq) as an application uses it: each test does the same directly and through the guard."""

import sys
import threading
from datetime import date
from pathlib import Path

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.e2e import EndToEnd, main


class Psycopg(EndToEnd):
    def each(self, body, reset=True, **options):
        def play(target):
            with psycopg.connect(target.dsn(), **options) as connection:
                return body(connection)

        return self.same(play, reset=reset)

    def test_parameters_of_many_types(self):
        def body(connection):
            row = connection.execute(
                "SELECT %s::int, %s::text, %s::bytea, %s::date, %s::int[], %s::jsonb, %s::numeric, %s::text",
                [7, "d\u00e9j\u00e0", b"\0\1", date(2024, 2, 29), [1, None, 3], Jsonb({"k": [1]}), 1.5, None]).fetchone()
            with connection.cursor(binary=True) as cursor:
                return row, cursor.execute("SELECT %b::int, %t::text, now() > %s", [3, "t", "2000-01-01"]).fetchone()

        self.assertEqual((3, "t", True), self.each(body)[1])

    def test_prepared_statements(self):
        def body(connection):
            connection.prepare_threshold = 2
            for i in range(12):
                connection.execute("SELECT name FROM items WHERE id = %s", [i])
            prepared = connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
            connection.rollback()
            connection.execute("DEALLOCATE ALL")
            row = connection.execute("SELECT %s::text", ["p"], prepare=True).fetchone()
            return prepared, row, connection.execute("SELECT %s::text", ["q"], prepare=True).fetchone()

        self.assertEqual(((1,), ("p",), ("q",)), self.each(body))

    def test_batches(self):
        def body(connection):
            with connection.cursor() as cursor:
                cursor.executemany("INSERT INTO scratch VALUES (%s, %s)", [(i, f"row {i}") for i in range(500)])
                count = cursor.rowcount
                cursor.executemany("INSERT INTO scratch VALUES (%s, %s) RETURNING id", [(1, "a"), (2, "b")],
                                   returning=True)
                ids = [cursor.fetchone()]
                while cursor.nextset():
                    ids.append(cursor.fetchone())
            return count, ids, connection.execute("SELECT count(*), max(payload) FROM scratch").fetchone()

        self.assertEqual((500, [(1,), (2,)], (502, "row 99")), self.each(body))

    def test_a_batch_that_fails_changes_nothing(self):
        def body(connection):
            try:
                with connection.transaction(), connection.cursor() as cursor:
                    cursor.executemany("INSERT INTO items VALUES (%s, %s, 1)", [(100, "x"), (101, "y"), (1, "z")])
            except psycopg.errors.UniqueViolation as error:
                return error.diag.constraint_name, error.diag.message_detail, connection.execute(
                    "SELECT count(*) FROM items").fetchone()

        self.assertEqual(("items_pkey", "Key (id)=(1) already exists.", (20,)), self.each(body))

    def test_pipeline_mode(self):
        def body(connection):
            with connection.pipeline() as pipeline:
                cursors = [connection.execute("SELECT %s::int * 2", [i]) for i in range(300)]
                pipeline.sync()
                connection.execute("INSERT INTO scratch VALUES (1, 'piped')")
                last = connection.execute("SELECT count(*) FROM scratch")
            return [c.fetchone()[0] for c in cursors] == [2 * i for i in range(300)], last.fetchone()

        self.assertEqual((True, (1,)), self.each(body, autocommit=True))

    def test_pipeline_mode_with_an_error(self):
        """psycopg reads an answer when there is one, so in which call it raises the error is left to chance; that it does,
        and what is left afterwards, is not."""
        def body(connection):
            raised = []
            try:
                with connection.pipeline() as pipeline:
                    connection.execute("INSERT INTO scratch VALUES (1, 'rolls back') RETURNING id")
                    connection.execute("SELECT 1 / %s", [0])
                    connection.execute("SELECT 'never'")
                    pipeline.sync()
            except psycopg.errors.DivisionByZero as error:
                raised.append(str(error))
            with connection.pipeline():
                second = connection.execute("SELECT 'next'")
            return (raised, second.fetchone(), connection.execute("SELECT count(*) FROM scratch").fetchone(),
                    connection.info.transaction_status)

        raised, second, count, _ = self.each(body, autocommit=True)
        self.assertEqual((["division by zero"], ("next",), (0,)), (raised, second, count))

    def test_a_long_pipeline_with_large_rows_does_not_lock_up(self):
        def body(connection):
            with connection.pipeline():
                cursors = [connection.execute("SELECT repeat('r', 100000), %s", ["p" * 20000]) for _ in range(200)]
            return sum(len(c.fetchone()[0]) for c in cursors)

        self.assertEqual(20_000_000, self.each(body, autocommit=True))

    def test_transactions_and_savepoints(self):
        def body(connection):
            with connection.transaction():
                connection.execute("INSERT INTO scratch VALUES (1, 'kept')")
                try:
                    with connection.transaction():
                        connection.execute("INSERT INTO scratch VALUES (2, 'lost')")
                        connection.execute("SELECT 1 / 0")
                except psycopg.errors.DivisionByZero:
                    pass
                inside = connection.info.transaction_status
            return inside, connection.execute("SELECT id FROM scratch").fetchall()

        self.assertEqual([(1,)], self.each(body)[1])

    def test_two_phase_commit(self):
        def body(connection):
            xid = connection.xid(1, "global", "branch")
            connection.tpc_begin(xid)
            connection.execute("INSERT INTO scratch VALUES (1, 'two-phase')")
            connection.tpc_prepare()
            connection.tpc_commit()
            return connection.execute("SELECT count(*) FROM scratch").fetchone()

        self.assertEqual((1,), self.each(body))

    def test_server_side_cursors(self):
        def body(connection):
            with connection.cursor("c", scrollable=True) as cursor:
                cursor.execute("SELECT id FROM items ORDER BY id")
                rows = cursor.fetchmany(5)
                cursor.scroll(3)
                rows += cursor.fetchmany(2)
                cursor.scroll(0, mode="absolute")
                cursor.itersize = 4
                rows += list(cursor)
            with connection.cursor("held", withhold=True) as cursor:
                cursor.execute("SELECT id FROM items ORDER BY id")
                connection.commit()
                return rows, cursor.fetchall()

        self.assertEqual(5 + 2 + 20, len(self.each(body)[0]))

    def test_streamed_rows(self):
        def body(connection):
            with connection.cursor(row_factory=dict_row) as cursor:
                return sum(row["i"] for row in cursor.stream("SELECT i FROM generate_series(1, %s) i", [20000]))

        self.assertEqual(200010000, self.each(body))

    def test_copy(self):
        def body(connection):
            with connection.cursor() as cursor:
                with cursor.copy("COPY scratch FROM STDIN") as copy:
                    for i in range(5000):
                        copy.write_row((i, f"c\t{i}"))
                with cursor.copy("COPY scratch FROM STDIN (FORMAT binary)") as copy:
                    copy.set_types(["int4", "text"])
                    copy.write_row((9999, "binary"))
                with cursor.copy("COPY (SELECT * FROM scratch ORDER BY id) TO STDOUT") as copy:
                    rows = list(copy.rows())
                with cursor.copy("COPY (SELECT * FROM scratch WHERE id = %s) TO STDOUT (FORMAT binary)", [9999]) as copy:
                    return rows[:2], len(rows), b"".join(map(bytes, copy))

        self.assertEqual(5001, self.each(body)[1])

    def test_copies_that_fail(self):
        def body(connection):
            outcomes = []
            for rows in (["1\tx\n", "bad\n"], ["1\tx\n", None]):
                try:
                    with connection.cursor().copy("COPY scratch FROM STDIN") as copy:
                        for row in rows:
                            if row is None:
                                raise KeyError("the application's own error")
                            copy.write(row)
                except (psycopg.Error, KeyError) as error:
                    outcomes.append((type(error).__name__, str(error)))
                connection.rollback()
            return outcomes, connection.execute("SELECT count(*) FROM scratch").fetchone()

        self.assertEqual((0,), self.each(body)[1])

    def test_cancel(self):
        def body(connection):
            def cancel():
                self.cluster.wait_for_backends(1, "wait_event = 'PgSleep'")
                connection.cancel()

            thread = threading.Thread(target=cancel)
            thread.start()
            try:
                connection.execute("SELECT pg_sleep(20)")
            except psycopg.errors.QueryCanceled as error:
                thread.join()
                connection.rollback()
                return str(error), connection.execute("SELECT 'alive'").fetchone()

        self.assertEqual(("alive",), self.each(body)[1])

    def test_notices_and_notifications(self):
        def body(connection):
            notices = []
            connection.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
            connection.execute("DO $$BEGIN RAISE NOTICE 'seen'; END$$")
            connection.execute("LISTEN channel")
            self.cluster.sql("NOTIFY channel, 'one'")
            self.cluster.sql("NOTIFY channel, 'two'")
            payloads = []
            for notification in connection.notifies():
                payloads.append(notification.payload)
                if len(payloads) == 2:
                    break
            return notices, payloads

        self.assertEqual((["seen"], ["one", "two"]), self.each(body, autocommit=True))

    def test_errors_keep_every_field(self):
        def body(connection):
            fields = []
            for sql in ("INSERT INTO items VALUES (1, 'a', 1)", "SELECT * FROM nowhere", "SELECT 'x'::int",
                        "INSERT INTO items VALUES (50, 'a', -1)"):
                try:
                    connection.execute(sql)
                except psycopg.Error as error:
                    d = error.diag
                    fields.append((d.severity, d.sqlstate, d.message_primary, d.message_detail, d.table_name,
                                   d.constraint_name, d.statement_position, d.source_function))
                connection.rollback()
            return fields

        self.assertEqual(["23505", "42P01", "22P02", "23514"], [f[1] for f in self.each(body)])

    def test_a_connection_of_every_protocol_option(self):
        for options in ({"client_encoding": "latin1"}, {"application_name": "\u00fcber"}, {"sslmode": "disable"},
                        {"gssencmode": "disable"}, {"options": "-c geqo=off"}, {"target_session_attrs": "read-write"}):
            with self.subTest(options):
                def play(target):
                    with psycopg.connect(target.dsn(**options)) as connection:
                        return (connection.execute("SHOW client_encoding").fetchone(),
                                connection.execute("SHOW application_name").fetchone(),
                                connection.execute("SHOW geqo").fetchone())

                self.same(play)


if __name__ == "__main__":
    main()
