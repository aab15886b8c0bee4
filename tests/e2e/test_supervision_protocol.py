"""Supervised transactions in every shape that the protocol allows: within the limits each is as direct, frame by frame;
beyond them the error stands where it belongs, and what was committed before it by the client's own word stays."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.e2e import main, needs_guard, silence, until, wire
from support.supervision import Supervised, ready
from support.wire import (bind, close, copy_data, copy_done, copy_fail, describe, execute, flush, function_call, parse,
                          query, run, sync)

FIVE, TWENTY, THIRTY = (f"DELETE FROM counters WHERE id <= {n}" for n in (5, 20, 30))
ADD = "INSERT INTO log VALUES (9, 'added')"
COUNTERS = r"30 rows of own.counters \(limit 20\)"


def one_by_one(*statements):
    """Each by a simple Query, and then each by the extended protocol."""
    return [[step for sql in statements for step in (query(sql), ready())],
            [step for sql in statements for step in (run(sql) + sync(), ready())]]


@needs_guard
class SupervisedProtocol(Supervised):
    # --- several statements in one text ------------------------------------------------------------------

    def test_texts_of_several_statements(self):
        for sql in (f"{ADD}; {FIVE}", f"BEGIN; {FIVE}; COMMIT", f"BEGIN; {FIVE}; ROLLBACK", f"{FIVE}; COMMIT; {ADD}",
                    f"{FIVE}; ROLLBACK; {ADD}", f"BEGIN; {FIVE}; SAVEPOINT s; {TWENTY}; ROLLBACK TO s; {ADD}; COMMIT",
                    f"{FIVE}; SAVEPOINT s; {ADD}", f"{ADD}; BEGIN; {FIVE}; COMMIT; {ADD}",
                    f"{FIVE}; SELECT 1 / 0; {ADD}",
                    f"BEGIN; {FIVE}; SELECT 1 / 0; COMMIT", f"{FIVE}; BEGIN", f"{FIVE}; BEGIN; {ADD}",
                    f";; {FIVE};;{ADD};",
                    f"{FIVE}; COMMIT AND CHAIN; {ADD}", f"BEGIN; {FIVE}; COMMIT AND CHAIN; {ADD}; COMMIT",
                    f"BEGIN; {FIVE}; ROLLBACK AND CHAIN; {ADD}; COMMIT", f"BEGIN; BEGIN; {FIVE}; COMMIT; COMMIT",
                    f"{FIVE}; COMMIT; COMMIT; {ADD}", f"{FIVE}; ROLLBACK; ROLLBACK",
                    f"SET work_mem = '5MB'; {FIVE}; SHOW work_mem",
                    f"SET LOCAL work_mem = '5MB'; {FIVE}; SHOW work_mem",
                    f"BEGIN ISOLATION LEVEL SERIALIZABLE; {FIVE}; "
                    "SHOW transaction_isolation; COMMIT", f"{FIVE}; START TRANSACTION; {ADD}; END",
                    f"BEGIN READ ONLY; {FIVE}; COMMIT", f"{FIVE}; SELEC", f"{FIVE}; SELECT * FROM nowhere; {ADD}",
                    f"INSERT INTO later VALUES (1, 99); {ADD}",
                    f"BEGIN; INSERT INTO later VALUES (1, 99); COMMIT; {ADD}",
                    f"INSERT INTO later VALUES (1, 99); SET CONSTRAINTS ALL IMMEDIATE; {ADD}", "", ";", "-- nothing",
                    f"DECLARE c CURSOR FOR SELECT * FROM log; FETCH 2 FROM c; {ADD}",
                    f"LISTEN channel; NOTIFY channel, 'x'; {ADD}",
                    f"CREATE TABLE fresh (i int); INSERT INTO fresh VALUES (1); DROP TABLE fresh; {ADD}",
                    f"PREPARE s AS {FIVE}; EXECUTE s; DEALLOCATE s", f"LOCK TABLE log IN SHARE MODE; {ADD}",
                    f"DO $$BEGIN RAISE NOTICE 'one'; END$$; {ADD}; DO $$BEGIN RAISE WARNING 'two'; END$$"):
            with self.subTest(sql):
                self.same_and_kept(query(sql), ready(), query("SELECT 'end'"), ready(), query("ROLLBACK"), ready(),
                                   what=sql)
                self.same_and_kept(query("BEGIN"), ready(), query(ADD), ready(), query(sql), ready(),
                                   query("SELECT 'end'"),
                                   ready(), query("COMMIT"), ready(), what="in a block: " + sql)

    def test_what_the_text_committed_before_stays(self):
        for sql, kept, states in ((f"BEGIN; {FIVE}; COMMIT; {THIRTY}", 45, "I"), (f"{FIVE}; COMMIT; {THIRTY}", 45, "I"),
                                  (f"BEGIN; {FIVE}; COMMIT AND CHAIN; {THIRTY}; COMMIT", 45, "E"),
                                  (f"{FIVE}; {THIRTY}; COMMIT", 50, "I"), (f"BEGIN; {FIVE}; {THIRTY}; COMMIT", 50, "E"),
                                  (f"BEGIN; {THIRTY}; ROLLBACK", 50, "E"), (f"{FIVE}; ROLLBACK; {THIRTY}", 50, "I")):
            with self.subTest(sql):
                self.fill()
                frames = self.play(self.guarded, query(sql), ready(), query("ROLLBACK"), ready())
                self.assert_refused(frames, r"would have changed (30|25) rows of own.counters")
                self.assertEqual(states + "I", wire.statuses(frames))
                self.assertEqual(kept, self.counters())
                self.assert_nothing_left_open()

    def test_a_position_is_counted_in_the_whole_text(self):
        for sql in ("SELECT 'ü'; INSERT INTO log VALUES (1); SELECT nonsense", "UPDATE log SET id = 1; SELECT 1 +",
                    "SELECT 1;\n\n  UPDATE log SET nonsense = 1"):
            self.same_and_kept(query(sql), ready(), what=sql)

    # --- blocks and savepoints ---------------------------------------------------------------------------

    def test_a_savepoint_saves_what_came_before_it(self):
        for steps in one_by_one("BEGIN", FIVE, "SAVEPOINT s", THIRTY, "ROLLBACK TO s", ADD, "COMMIT"):
            self.fill()
            frames = self.play(self.guarded, *steps)
            self.assert_refused(frames, "25 rows of own.counters")
            self.assertEqual("TTTETTI", wire.statuses(frames))
            self.assertEqual((45, 6), (self.counters(), self.sql("SELECT count(*) FROM own.log")[0][0]))
            self.assert_nothing_left_open()
        for steps in one_by_one("BEGIN", FIVE, "SAVEPOINT s", TWENTY, "ROLLBACK TO s", ADD, "RELEASE s", "COMMIT"):
            self.same_and_kept(*steps)

    def test_a_block_that_goes_on_from_a_savepoint_is_counted(self):
        failed = [query("BEGIN; SAVEPOINT s; SELECT 1 / 0"), ready()]
        for sql in (THIRTY, "SELECT remove(30)", "INSERT INTO deferred VALUES (30)"):
            for steps in ([run("ROLLBACK TO s") + run(sql) + run("COMMIT") + sync()],
                          [run("ROLLBACK TO s") + flush(), until("C"), run(sql) + run("COMMIT") + sync()],
                          [run("ROLLBACK TO s") + query(sql) + run("COMMIT") + sync(), ready()]):
                self.fill()
                frames = self.play(self.guarded, *failed, *steps, ready(), query("ROLLBACK"), ready())
                self.assertEqual("22012", wire.sqlstates(frames)[0])
                self.assert_refused([f for f in frames if f.tag != "E" or f.fields()["C"] != "22012"])
                self.assert_nothing_changed()
        for sql in (TWENTY, "SELECT 1", "SELECT 1 / 0", "ROLLBACK TO t"):
            self.same_and_kept(*failed, run("ROLLBACK TO s") + run(sql) + run("COMMIT") + sync(), ready(),
                               query("ROLLBACK"), ready(), what=sql)
        self.same_and_kept(*failed, run("ROLLBACK TO t") + run(FIVE) + sync() + query("ROLLBACK TO t") + run(FIVE) +
                           sync(), ready(3), query("ROLLBACK"), ready())

    def test_a_refused_transaction_can_only_be_ended(self):
        for end in ("COMMIT", "ROLLBACK", "END", "ABORT", "PREPARE TRANSACTION 'p'", "COMMIT AND CHAIN"):
            for steps in one_by_one("BEGIN", THIRTY, end, "ROLLBACK"):
                self.fill()
                frames = self.play(self.guarded, *steps)
                self.assertEqual("42501", wire.sqlstates(frames)[0])
                self.assertEqual("TE" + ("T" if "CHAIN" in end else "I") + "I", wire.statuses(frames))
                self.assert_nothing_changed()
        for steps in one_by_one("BEGIN", THIRTY, ADD, "COMMIT"):
            self.assertEqual(["42501", "25P02"], wire.sqlstates(self.play(self.guarded, *steps)))
            self.fill()

    def test_transactions_prepared_in_two_phases(self):
        for steps in one_by_one("BEGIN", TWENTY, "PREPARE TRANSACTION 'p'", "SELECT 1", "COMMIT PREPARED 'p'"):
            self.same_and_kept(*steps)
        for steps in one_by_one("BEGIN", TWENTY, "PREPARE TRANSACTION 'p'", "ROLLBACK PREPARED 'p'"):
            self.same_and_kept(*steps)

    def test_chained_transactions(self):
        for steps in one_by_one("BEGIN", TWENTY, "COMMIT AND CHAIN", ADD, "ROLLBACK AND CHAIN", ADD, "COMMIT"):
            self.same_and_kept(*steps)

    def test_deferred_constraints_fail_where_they_do_without_a_guard(self):
        bad = "INSERT INTO later VALUES (1, 99)"
        shapes = [*one_by_one(bad, ADD), *one_by_one("BEGIN", bad, ADD, "COMMIT", "SELECT 1"),
                  *one_by_one("BEGIN", bad, "SET CONSTRAINTS ALL IMMEDIATE", "COMMIT"),
                  *one_by_one("BEGIN", bad, "PREPARE TRANSACTION 'p'", "SELECT 1"),
                  *one_by_one("BEGIN", bad, "COMMIT AND CHAIN", "SELECT 1", "ROLLBACK"),
                  *one_by_one("BEGIN", bad, "DELETE FROM later", "COMMIT"),
                  [query(f"{bad}; {ADD}"), ready()],
                  [query(f"BEGIN; {bad}; COMMIT"), ready(), query("ROLLBACK"), ready()],
                  [run(bad) + run(ADD) + sync() + run(ADD) + sync(), ready(2)],
                  [run(ADD) + run(bad) + run("DELETE FROM later") + sync(), ready()],
                  [run("BEGIN") + run(bad) + run("COMMIT") + run(ADD) + sync(), ready(), query("ROLLBACK"), ready()],
                  [run(bad) + flush(), until("C"), sync(), ready()],
                  [run("BEGIN") + run(bad) + run(ADD) + flush(), until("C", 3), run("COMMIT") + sync(), ready()]]
        for number, steps in enumerate(shapes):
            with self.subTest(number):
                self.same_and_kept(*steps, what=str(number))

    # --- the extended protocol ---------------------------------------------------------------------------

    def test_batches_of_thousands_before_one_sync(self):
        batch = parse("UPDATE counters SET n = n + $1 WHERE id = $2", "s", [23, 23]) + b"".join(
            bind("", "s", ["1", str(i % 50 + 1)]) + describe("P") + execute() for i in range(1500)) + sync()
        frames = self.same_and_kept(batch, ready(), query("SELECT sum(n) FROM counters"), ready())
        self.assertEqual(1500 + 1, wire.tags(frames).count("C"))
        target = self.by("max_rows_per_transaction: 1000", "effects: tag")
        frames = self.refused(batch, ready(), query("SELECT 1"), ready(), target=target,
                              message=r"with those before it 1,001 in this transaction \(limit 1,000\)")
        self.assertEqual(1000, wire.tags(frames).partition("E")[0].count("C"))
        self.assertEqual("ZTDCZ", wire.tags(frames).partition("E")[2], "what follows is skipped up to the Sync")

    def test_the_error_stands_where_the_statement_stood(self):
        for position in range(4):
            with self.subTest(position):
                parts = [run(ADD), run("SELECT 1"), run(ADD)]
                parts.insert(position, run(THIRTY))
                frames = self.refused(b"".join(parts) + query("SELECT 'dropped'") + sync() + run("SELECT 'behind'") +
                                      sync(),
                                      ready(2), message=COUNTERS)
                self.assertEqual(position, wire.tags(frames).partition("E")[0].count("C"))
                self.assertEqual("Z12TDCZ", wire.tags(frames).partition("E")[2])

    def test_row_limits_of_a_returning(self):
        one = parse("DELETE FROM counters WHERE id <= $1 RETURNING id", "", [23])
        for limit in (1, 7, 19, 20, 21, 0):
            with self.subTest(limit):
                self.same_and_kept(one + bind(parameters=["20"]) + describe("P") + execute("", limit) + sync(), ready())
                self.same_and_kept(one + bind(parameters=["20"]) + execute("", limit) * 3 + sync(), ready())
                self.same_and_kept(query("BEGIN"), ready(), one + bind("p", "", ["20"]) + execute("p", limit) + sync(),
                                   ready(),
                                   execute("p", limit) + sync(), ready(), execute("p") + sync(), ready(),
                                   query("COMMIT"),
                                   ready())
                for more in (b"", execute("", limit)):
                    self.refused(one + bind(parameters=["30"]) + describe("P") + execute("", limit) + more + sync(),
                                 ready(),
                                 query("SELECT 1"), ready(), message=COUNTERS)

    def test_row_limits_of_a_read_that_writes(self):
        one = parse("SELECT id, remove($1) FROM shops ORDER BY id LIMIT 3", "", [23])
        self.same_and_kept(one + bind(parameters=["20"]) + execute("", 1) + execute("", 1) + sync(), ready())
        self.refused(one + bind(parameters=["30"]) + execute("", 1) + sync(), ready(), message=COUNTERS)
        self.refused(one + bind(parameters=["30"]) + execute("", 1) + execute("", 1) + sync(), ready(),
                     message=COUNTERS)

    def test_flush_gives_each_answer_when_it_is_judged(self):
        self.same_and_kept(parse(FIVE) + flush(), until("1"), bind() + flush(), until("2"), execute() + flush(),
                           until("C"),
                           silence(), run(ADD) + flush(), until("C"), sync(), ready())
        self.refused(run(ADD) + flush(), until("C"), run(THIRTY) + flush(), until("E"), silence(), run(ADD) + flush(),
                     silence(),
                     sync(), ready(), query("SELECT 1"), ready(), message=COUNTERS)

    def test_many_syncs_outstanding(self):
        pieces = [run(ADD), b"", run(FIVE), run("SELECT 1 / 0"), run("SELECT remove(15)"), parse("SELEC"),
                  run(ADD)] * 20
        self.same_and_kept(b"".join(p + sync() for p in pieces), ready(len(pieces)))
        pieces = [run(ADD), run(THIRTY), run(FIVE), run("SELECT remove(35)")] * 10
        self.fill()
        frames = self.play(self.guarded, b"".join(p + sync() for p in pieces), ready(len(pieces)))
        self.assertEqual("I" * 40, wire.statuses(frames))
        self.assertEqual(10, wire.sqlstates(frames).count("42501") - 10, "each that changes too much is refused")
        self.assertEqual((45, 15), (self.counters(), self.sql("SELECT count(*) FROM own.log")[0][0]))

    def test_a_query_in_the_middle_of_a_group(self):
        for middle in ("SELECT 1", ADD, FIVE, "BEGIN", "COMMIT", "SELECT 1 / 0", ""):
            with self.subTest(middle):
                self.same_and_kept(run(ADD) + query(middle) + run(ADD) + sync(), ready(2), query("ROLLBACK"), ready(),
                                   what=middle)
        self.refused(run(ADD) + run(THIRTY) + query(ADD) + run(ADD) + sync(), ready(), message=COUNTERS)

    def test_transactions_begun_and_ended_in_a_group(self):
        for verbs in (["BEGIN", "COMMIT"], ["BEGIN", "ROLLBACK"], ["COMMIT"], ["ROLLBACK"], ["BEGIN"], ["SAVEPOINT s"],
                      ["BEGIN", "SAVEPOINT s", "ROLLBACK TO s", "COMMIT"], ["BEGIN", "COMMIT AND CHAIN", "COMMIT"]):
            with self.subTest(verbs):
                data = run(ADD) + b"".join(run(v) + run("DELETE FROM counters WHERE id = (SELECT min(id) FROM counters)")
                                           for v in verbs)
                self.same_and_kept(data + sync() + data + run("SELECT 1 / 0") + sync(), ready(2), query("ROLLBACK"),
                                   ready(),
                                   what=str(verbs))
        self.fill()
        frames = self.play(self.guarded, run("BEGIN") + run(FIVE) + run("COMMIT") + run(THIRTY) + sync(), ready())
        self.assert_refused(frames, "25 rows")
        self.assertEqual((45, "I"), (self.counters(), wire.statuses(frames)))

    # DO and CALL get a block of the guard's own, which the client must not notice.

    DO = "DO $$BEGIN DELETE FROM own.counters WHERE id <= 5; END$$"
    CONTROL = ("BEGIN", "START TRANSACTION READ ONLY", "BEGIN ISOLATION LEVEL SERIALIZABLE", "COMMIT", "END", "ROLLBACK",
               "ABORT", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "SAVEPOINT s", "RELEASE s", "ROLLBACK TO s",
               "PREPARE TRANSACTION 'p'")

    def test_transactions_begun_and_ended_behind_a_do_in_its_group(self):
        for verb in self.CONTROL:
            with self.subTest(verb):
                self.same_and_kept(run(self.DO) + run(verb) + run(ADD) + sync(), ready(), query("SELECT 'end'"),
                                   ready(), query("ROLLBACK"), ready(), what=verb)
        bad = "INSERT INTO later VALUES (1, 99)"
        for verbs in (["COMMIT", self.DO, "COMMIT", ADD], ["ROLLBACK", self.DO, "BEGIN", ADD, "COMMIT", ADD],
                      ["BEGIN", "SAVEPOINT s", ADD, "ROLLBACK TO s", "COMMIT AND CHAIN", ADD, "ROLLBACK"],
                      ["BEGIN", "SELECT 1 / 0"], ["COMMIT", "BEGIN", "SELECT 1 / 0"], ["SELECT 1 / 0", "COMMIT"],
                      [bad, "BEGIN", "DELETE FROM later", "COMMIT"], ["BEGIN", "BEGIN", ADD]):
            with self.subTest(verbs):
                data = b"".join(run(v) for v in (self.DO, *verbs)) + sync()
                self.same_and_kept(data, ready(), query("ROLLBACK"), ready(), data, ready(), query("ROLLBACK"), ready(),
                                   what=str(verbs))
        # By named portals, which end with the transaction, and each answer asked for by itself.
        self.same_and_kept(run(self.DO) + parse("COMMIT", "c") + bind("p", "c") + bind("", "c") + describe("P", "p") +
                           execute("p") + flush(), until("C", 2), execute("") + sync(), ready(),
                           bind("p", "c") + execute("p") + sync(), ready())

    def test_a_query_behind_a_do_in_its_group(self):
        for middle in ("SELECT 1", FIVE, "", "SELECT 1 / 0", "SELEC", f"{ADD}; COMMIT; {ADD}", f"ROLLBACK; {ADD}",
                       *self.CONTROL):
            with self.subTest(middle):
                self.same_and_kept(run(self.DO) + query(middle) + run(ADD) + sync(), ready(2), query("ROLLBACK"),
                                   ready(), what=middle)

    def test_nothing_passes_uncounted_behind_a_do_in_its_group(self):
        late, kept = "INSERT INTO deferred VALUES (30)", "DELETE FROM counters WHERE id = 50"
        for verbs in (["BEGIN", late, "COMMIT"], ["COMMIT", late], ["ROLLBACK", late],
                      ["COMMIT", "CALL own.commits()"], ["ROLLBACK", "CALL own.commits()"],
                      ["COMMIT", self.DO, "COMMIT", "CALL own.commits()"],
                      ["DO $$BEGIN INSERT INTO own.deferred VALUES (30); END$$", "COMMIT"]):
            with self.subTest(verbs):
                self.fill()
                data = b"".join(run(v) for v in ("DO $$BEGIN END$$", *verbs)) + sync()
                frames = self.play(self.guarded, data, ready(), query("ROLLBACK"), ready())
                self.assertEqual(1, len(wire.sqlstates(frames)), frames)
                ((rows, changed, left),) = self.sql("SELECT count(*), count(*) FILTER (WHERE n > 0), "
                                                    "(SELECT count(*) FROM own.deferred) FROM own.counters")
                self.assertEqual((45 if self.DO in verbs else 50, 0, 0), (rows, changed, left))
                self.assert_nothing_left_open()
        for sql in ("SELECT 1", "COMMIT", "BEGIN; COMMIT", kept):
            self.refused(run("DO $$BEGIN INSERT INTO own.deferred VALUES (30); END$$") + query(sql), ready(),
                         query("ROLLBACK"), ready(), message=COUNTERS.replace("30 rows", r"3\d rows"), what=sql)

    def test_a_do_whose_commit_fails_is_told_of(self):
        self.sql("""CREATE FUNCTION own.again() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN
                   IF NEW.id = 1 THEN SET CONSTRAINTS ALL DEFERRED; INSERT INTO own.twice VALUES (2);
                   ELSE INSERT INTO own.log VALUES (NEW.id); END IF;
                   RETURN NULL; END $$;
            CREATE TABLE own.twice (id int);
            CREATE CONSTRAINT TRIGGER again AFTER INSERT ON own.twice DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION own.again()""")
        self.clean = False
        for end in (sync(), run("COMMIT") + sync(), query("SELECT 1")):
            self.fill()
            frames = self.play(self.guarded, run("DO $$BEGIN INSERT INTO own.twice VALUES (1); END$$") + end, ready())
            self.assertEqual((1, "I"), (len(wire.sqlstates(frames)), wire.statuses(frames)))
            self.assertEqual(0, self.sql("SELECT count(*) FROM own.twice")[0][0])
            self.assert_nothing_changed()

    def test_prepared_statements_live_on_behind_a_refusal(self):
        frames = self.refused(
            parse("DELETE FROM counters WHERE id <= $1", "s", [23]) + sync(), ready(),
            bind("", "s", ["30"]) + execute() + sync(), ready(), bind("", "s", ["0"]) + execute() + sync(), ready(),
            describe("S", "s") + close("S", "s") + sync(), ready(), message=COUNTERS)
        self.assertEqual("1Z2EZ2CZtn3Z", wire.tags(frames))

    def test_a_statement_parsed_behind_a_refusal_in_its_group_is_not_there(self):
        frames = self.play(self.guarded, run(THIRTY) + parse("SELECT 1", "t") + sync(), ready(), bind("", "t") +
                           sync(), ready(),
                           parse("SELECT 2", "t") + bind("", "t") + execute() + sync(), ready())
        self.assertEqual(["42501", "26000"], wire.sqlstates(frames))
        self.assertEqual("12DCZ", wire.tags(frames)[-5:])

    # --- COPY --------------------------------------------------------------------------------------------

    @staticmethod
    def lines(count):
        return [copy_data(f"{i}\tcopied\n") for i in range(count)]

    def test_copy_within_and_beyond_the_limit(self):
        sql = "COPY log FROM STDIN"
        for name, begin, end in (
                ("simple", [query(sql), until("G")], b""), ("sent ahead", [query(sql)], b""),
                ("extended", [parse(sql) + bind() + execute() + sync(), until("G")], sync()),
                ("extended by flush", [parse(sql) + bind() + execute() + flush(), until("G")], sync()),
                ("in a block", [query("BEGIN"), ready(), query(sql), until("G")], b"")):
            with self.subTest(name):
                for data in (b"".join(self.lines(50)) + copy_done(), copy_done(), b"".join(self.lines(9)) + copy_fail(),
                             copy_data("nonsense\t\t\t\n") + copy_done()):
                    self.same_and_kept(*begin, data + end, ready(), query("SELECT count(*) FROM log"), ready(),
                                       query("ROLLBACK"), ready(), what=name)
                frames = self.refused(*begin, b"".join(self.lines(51)) + copy_done() + end, ready(), query("ROLLBACK"),
                                      ready(),
                                      message=r"COPY would have inserted 51 rows into own.log \(limit 50\)",
                                      detail="own.log: 51 inserted")
                self.assertEqual("TEI" if "block" in name else "II", wire.statuses(frames))

    def test_copy_among_other_statements(self):
        data = b"".join(self.lines(10)) + copy_done()
        self.same_and_kept(query(f"{ADD}; COPY log FROM STDIN; {FIVE}; COPY log FROM STDIN"), until("G"), data,
                           until("G"), data,
                           ready())
        self.same_and_kept(query("COPY log FROM STDIN; SELECT 1 / 0"), until("G"), data, ready())
        self.same_and_kept(query("COPY (DELETE FROM counters WHERE id <= 20 RETURNING id) TO STDOUT"), ready())
        self.refused(query("COPY (DELETE FROM counters WHERE id <= 30 RETURNING id) TO STDOUT"), ready(),
                     message=COUNTERS)
        self.refused(query(f"{ADD}; COPY by_row FROM STDIN; SELECT 1"), until("G"), copy_data("30\n") + copy_done(),
                     ready(),
                     message=COUNTERS)

    # --- cursors, function calls -------------------------------------------------------------------------

    def test_cursors(self):
        for declare in ("DECLARE c CURSOR FOR SELECT * FROM counters ORDER BY id",
                        "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM counters ORDER BY id",
                        "DECLARE c SCROLL CURSOR FOR SELECT id FROM counters ORDER BY id FOR UPDATE"):
            for steps in one_by_one("BEGIN", declare, "FETCH 2 FROM c", "MOVE 3 IN c", FIVE, "FETCH c", ADD, "COMMIT",
                                    "FETCH 2 FROM c", "CLOSE c"):
                self.same_and_kept(*steps, what=declare)
            for steps in one_by_one(declare, "FETCH c"):
                self.same_and_kept(*steps, what="outside of a block: " + declare)
        for steps in one_by_one("BEGIN", "DECLARE c CURSOR FOR SELECT id FROM counters ORDER BY id FOR UPDATE",
                                "FETCH 2 FROM c",
                                "UPDATE counters SET n = 5 WHERE CURRENT OF c", "COMMIT"):
            self.same_and_kept(*steps)

    def test_a_cursor_that_writes(self):
        declare = "DECLARE c CURSOR FOR SELECT remove({}) FROM shops WHERE id = 1"
        for last in ("FETCH c", "FETCH ALL FROM c", "MOVE ALL IN c"):
            for steps in one_by_one("BEGIN", declare.format(30), last, "COMMIT"):
                frames = self.refused(*steps, message=COUNTERS)
                self.assertEqual("TTEI", wire.statuses(frames))
            for steps in one_by_one("BEGIN", declare.format(20), last, "COMMIT"):
                self.same_and_kept(*steps)
        for steps in one_by_one("BEGIN", declare.format(30).replace("CURSOR", "CURSOR WITH HOLD"), "COMMIT"):
            self.refused(*steps, message="as the transaction commits")

    def test_function_calls(self):
        ((oid,),) = self.sql("SELECT 'own.remove'::regproc::oid::int")

        def call(rows):
            return function_call(oid, [rows.to_bytes(4, "big")])

        for before, after, states in (([], [], "I"), ([query("BEGIN"), ready()], [query("COMMIT"), ready()], "TEI")):
            frames = self.refused(*before, call(30), ready(), *after, message=COUNTERS)
            self.assertEqual(states, wire.statuses(frames))
            self.same_and_kept(*before, call(20), ready(), *after)
        self.same_and_kept(call(5) + query("SELECT 1") + call(7) + run(ADD) + sync() + call(9), ready(5))

    # --- what a supervised session must not show ---------------------------------------------------------

    def test_settings_reports_and_notifications_come_in_their_place(self):
        for sql in ("SET application_name = 'new'; " + ADD, ADD + "; SET client_encoding = 'LATIN1'; SELECT 'x'",
                    f"LISTEN c; {ADD}; NOTIFY c, 'p'; {FIVE}", "SELECT set_config('application_name', 'other', false)",
                    "BEGIN; SET TimeZone = 'Asia/Tokyo'; " + ADD + "; COMMIT"):
            self.same_and_kept(query(sql), ready(), query("SHOW application_name"), ready(), query("ROLLBACK"),
                               ready(), what=sql)
        self.same_and_kept(run("LISTEN c") + sync(), ready(), run(ADD) + run("NOTIFY c, 'x'") + sync(), ready(),
                           query("SELECT 1"), ready())

    def test_what_a_session_sees_of_itself(self):
        for sql in ("SELECT count(*) FROM pg_prepared_statements", "SELECT count(*) FROM pg_cursors",
                    "SELECT txid_current_if_assigned() IS NULL", "SHOW lock_timeout", "SELECT lastval() IS NULL"):
            for steps in one_by_one(ADD, sql, "BEGIN", FIVE, sql, "ROLLBACK", sql):
                self.same_and_kept(*steps, what=sql)

    def test_isolation_levels_and_read_only_transactions(self):
        for level in ("SERIALIZABLE", "REPEATABLE READ", "READ ONLY", "SERIALIZABLE READ ONLY DEFERRABLE"):
            for steps in one_by_one("BEGIN ISOLATION LEVEL " + level if "READ ONLY" != level else "BEGIN READ ONLY",
                                    FIVE,
                                    "SELECT count(*) FROM counters", "COMMIT"):
                self.same_and_kept(*steps, what=level)
            for steps in one_by_one("BEGIN", "SET TRANSACTION " +
                                    (level if level == "READ ONLY" else "ISOLATION LEVEL " + level),
                                    FIVE, "COMMIT"):
                self.same_and_kept(*steps, what=level)
        for steps in one_by_one("SET default_transaction_read_only = on", FIVE, "SELECT remove(5)", "SELECT 1"):
            self.same_and_kept(*steps)

    def test_in_every_split_of_its_bytes(self):
        data = query("SELECT remove(20)") + run("UPDATE counters SET n = 1 WHERE id = 21") + sync() + query(f"BEGIN; {ADD}; COMMIT")
        self.same_and_kept(lambda c: c.send(data, chunk=1), ready(3))
        self.fill()
        over = query(THIRTY) + run("SELECT remove(30)") + sync()
        with self.guarded.wire(options="-c search_path=own") as connection:
            for at in range(1, len(over), 3):
                connection.send_split(over, at, 0.0005)
                self.assertEqual(["42501"] * 2, wire.sqlstates(connection.until_ready(2)))
        self.assert_nothing_changed()


if __name__ == "__main__":
    main()
