"""What an approver is shown of a held statement: nothing, the plan, or the effects of a trial that leaves nothing
behind; and what was counted by a supervised run that went over its limits."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.approval import FILL_SQL, FIXTURE_SQL, Held, policy, rule
from support.e2e import main, needs_guard, wire
from support.wire import bind, describe, execute, flush, parse, query, run, sync

FORMS = {"simple": query, "extended": lambda sql: run(sql) + sync()}


@needs_guard
class Evidence(Held):
    def shown(self, connection, data) -> dict:
        ticket = self.hold(connection, data)
        fields = self.fields(ticket)
        self.decide(ticket, "deny")
        self.assertEqual(["42501"], wire.sqlstates(connection.until_ready()))
        return fields

    def test_what_the_ticket_shows(self):
        self.sql("ANALYZE held.planned")
        for name, form in FORMS.items():
            with self.subTest(name), self.wire() as clerk:
                fields = self.shown(clerk, form("UPDATE jobs SET state = 'live'"))
                self.assertEqual("none", fields["evidence"])
                self.assertNotIn("effects", fields)
                fields = self.shown(clerk, form("UPDATE planned SET state = 'live'"))
                self.assertIn("plan", fields["evidence"])
                self.assertEqual("about 20 rows of planned", fields["effects"])
                self.assertIn("Seq Scan", fields["plan"])
                fields = self.shown(clerk, form("DELETE FROM tried"))
                self.assertIn("rolled back", fields["evidence"])
                self.assertEqual("60 rows of held.receipts and 1 other table", fields["effects"])
                self.assertEqual("held.receipts: 40 deleted\nheld.tried: 20 deleted", fields["tables"])
        self.assertEqual((20, 40), (self.count("tried"), self.count("receipts")))

    def test_parameters_are_used_for_the_plan_and_the_trial(self):
        def update(table, value, formats=()):
            return (parse(f"UPDATE {table} SET state = 'live' WHERE $1::int > 0 AND (id <= $1 OR true)") +
                    bind(parameters=[value], formats=formats) + describe("P") + execute() + sync())

        target = self.guarded_by(policy(
            rule("plans", 'writes: ["held.planned"]', "{ hold: { evidence: plan } }"),
            rule("trials", 'writes: ["held.tried"]', "{ hold: { evidence: trial } }")))
        with self.wire(target=target) as clerk:
            for value, formats, rows in (("5", (), "20"), (b"\0\0\0\7", [1], "20"), ("0", (), None)):
                ticket = self.hold(clerk, update("tried", value, formats))
                fields = self.fields(ticket, target=target)
                self.assertEqual(f"held.tried: {rows} updated" if rows else None, fields.get("tables"))
                self.assertEqual("no rows" if not rows else "20 rows of held.tried", fields["effects"])
                self.decide(ticket, target=target)
                self.done(clerk, tag=f"UPDATE {rows or 0}")
            ticket = self.hold(clerk, update("planned", "5"))
            self.assertIn("rows of planned", self.fields(ticket, target=target)["effects"])
            self.decide(ticket, target=target)
            self.done(clerk, tag="UPDATE 20")

    def test_a_trial_leaves_nothing_behind(self):
        for name, form in FORMS.items():
            for block in (False, True):
                with self.subTest(name, block=block), self.wire(application_name="asker") as clerk:
                    self.sql(FILL_SQL)
                    clerk.ask("PREPARE mine AS SELECT 1")
                    if block:
                        clerk.ask("BEGIN")
                        clerk.ask("DECLARE c CURSOR FOR SELECT 1")
                    before = clerk.rows("SELECT name, statement FROM pg_prepared_statements") + \
                        clerk.rows("SELECT name FROM pg_cursors")
                    ticket = self.hold(clerk, form("WITH gone AS (DELETE FROM tried RETURNING id) "
                                                   "INSERT INTO log SELECT id, 'gone' FROM gone"))
                    self.assertEqual((20, 40, 0), (self.count("tried"), self.count("receipts"), self.count("log")))
                    state = self.sql("SELECT state FROM pg_stat_activity WHERE application_name = 'asker'")
                    self.assertEqual([("idle in transaction" if block else "idle",)], state)
                    locks = self.sql("SELECT l.relation::regclass::text, l.mode FROM pg_locks l "
                                     "JOIN pg_stat_activity a USING (pid) WHERE a.application_name = 'asker' AND l.locktype = 'relation' "
                                     "AND l.relation::regclass::text LIKE 'held.%'")
                    # (A Parse of the client's in a block locks what it names, as without a guard.)
                    if not (block and name == "extended"):
                        self.assertEqual([], locks, "others can go on while it waits")
                    self.sql("UPDATE held.tried SET state = 'by another'")
                    fields = self.fields(ticket)
                    self.assertIn("held.log: 20 inserted", fields["tables"].split("\n"))
                    self.decide(ticket, "deny")
                    clerk.until_ready()
                    if block:
                        clerk.ask("ROLLBACK")
                        clerk.ask("BEGIN")
                        clerk.ask("DECLARE c CURSOR FOR SELECT 1")
                    after = clerk.rows("SELECT name, statement FROM pg_prepared_statements") + \
                        clerk.rows("SELECT name FROM pg_cursors")
                    self.assertEqual(before, after)
                    clerk.ask("ROLLBACK")
                self.cluster.wait_for_backends(0, "application_name = 'asker'")
                self.assert_nothing_left_open()

    def test_a_trial_takes_no_unnamed_statement_or_portal_away(self):
        with self.wire() as clerk:
            self.done(clerk, parse("UPDATE tried SET state = $1") + sync())
            for value in ("a", "b"):
                ticket = self.hold(clerk, bind(parameters=[value]) + execute() + sync())
                self.decide(ticket)
                frames = self.done(clerk, tag="UPDATE 20")
                self.assertEqual("2CZ", wire.tags(clerk.before + frames))
            self.done(clerk, "BEGIN")
            self.done(clerk, parse("SELECT generate_series(1, 5)") + bind() + execute("", 2) + flush() + sync())
            self.done(clerk, "COMMIT")

    def test_what_the_server_refuses_is_refused_in_its_own_words(self):
        tickets = len(self.pending())
        for text in ("UPDATE {} SET nowhere = 1", "/* ü */ UPDATE {} SET id = 'x' || 1",
                     "UPDATE {} SET id = 1 RETURNING y", "DELETE FROM {} t USING nowhere",
                     "SELECT 1; UPDATE {} SET nowhere = 1",
                     "UPDATE {} SET state = 1 / 0", "DELETE FROM {} WHERE (1 = 'a')::bool OR true"):
            for table in ("tried", "planned"):
                sql = text.format(table)
                for name, form in FORMS.items():
                    if name == "extended" and ";" in sql:
                        continue
                    if ";" in sql and table == "planned":
                        continue  # EXPLAIN takes one statement
                    for block in (False, True):
                        with self.subTest(sql, form=name, block=block):
                            frames = []
                            for target in (self.direct, self.guarded):
                                with self.wire(target=target) as clerk:
                                    if block:
                                        clerk.ask("BEGIN")
                                    clerk.send(form(sql) + query("SELECT 'end'"))
                                    frames.append([f for f in clerk.until_ready(2)])
                            if ";" in sql:  # nothing of the string is shown that was not run for good
                                frames[0] = [f for f in frames[0] if f.tag not in "TDC"]
                                frames[1] = [f for f in frames[1] if f.tag not in "TDC"]
                            self.assertEqual(*frames)
        self.assertEqual(tickets, len(self.pending()))
        self.assert_nothing_left_open()

    def test_what_only_a_trial_finds_is_refused_by_it(self):
        self.addCleanup(self.sql, FIXTURE_SQL)
        self.sql("ALTER TABLE held.receipts DROP CONSTRAINT receipts_tried_fkey, ADD CONSTRAINT receipts_tried_fkey "
                 "FOREIGN KEY (tried) REFERENCES held.tried DEFERRABLE INITIALLY DEFERRED")
        for sql in ("UPDATE tried SET id = 1", "DELETE FROM tried"):
            for name, form in FORMS.items():
                with self.subTest(sql, form=name):
                    errors = []
                    for target in (self.direct, self.guarded):
                        with self.wire(target=target) as clerk:
                            clerk.send(form(sql))
                            frames = clerk.until_ready()
                            errors.append([f for f in frames if f.tag in "EZ"])
                    self.assertEqual(*errors)
        self.assertEqual({}, self.pending())
        self.assert_nothing_left_open()

    def test_a_cancel_during_a_trial_is_the_servers(self):
        with self.wire(application_name="asker") as clerk:
            clerk.send(query("UPDATE tried SET state = pg_sleep(20)::text"))
            self.cluster.wait_for_backends(1, "application_name = 'asker' AND wait_event = 'PgSleep'")
            with wire.Wire(self.guarded.address) as messenger:
                messenger.send(wire.cancel_request(clerk.pid, clerk.key))
                messenger.until_closed()
            frames = clerk.until_ready()
            self.assertEqual((["57014"], "I"), (wire.sqlstates(frames), wire.statuses(frames)))
            self.done(clerk, "SELECT 1")
        self.assertEqual({}, self.pending())
        self.assert_nothing_left_open()

    def test_a_client_that_leaves_during_a_trial_opens_no_ticket(self):
        before = self.stat("tickets_opened")
        clerk = self.wire(application_name="asker")
        clerk.send(query("UPDATE tried SET state = pg_sleep(0.2)::text"))
        self.cluster.wait_for_backends(1, "application_name = 'asker' AND wait_event = 'PgSleep'")
        clerk.close()
        self.cluster.wait_for_backends(0, "application_name = 'asker'")
        self.assertEqual({}, self.pending())
        self.assertEqual(before, self.stat("tickets_opened"))
        self.assert_nothing_left_open()

    def stat(self, name: str) -> int:
        return {r["name"]: r["value"] for r in self.ask("bob", "SHOW chaperone.stats")}[name]

    def test_an_approved_run_may_do_no_more_than_its_trial(self):
        for name, form in FORMS.items():
            for block in (False, True):
                with self.subTest(name, block=block), self.wire() as clerk:
                    self.sql(FILL_SQL)
                    if block:
                        clerk.ask("BEGIN")
                    ticket = self.hold(clerk, form("UPDATE tried SET state = 'live'"))
                    self.sql("INSERT INTO held.tried VALUES (21, 'new')")
                    self.decide(ticket)
                    frames = clerk.until_ready()
                    self.assertEqual((["42501"], "E" if block else "I"),
                                     (wire.sqlstates(frames), wire.statuses(frames)))
                    fields = [f for f in frames if f.tag == "E"][0].fields()
                    self.assertIn("21", fields["M"] + fields["D"])
                    self.assertIn("20", fields["M"])
                    clerk.ask("ROLLBACK")
                    self.assertEqual(0, self.count("tried", "state = 'live'"))
                    self.assertRegex(self.wait_for_state(ticket, "used")["outcome"], "^failed: ")
                    # With as many or fewer rows than that it runs.
                    ticket = self.hold(clerk, form("UPDATE tried SET state = 'live'"))
                    self.sql("DELETE FROM held.tried WHERE id IN (20, 21)")
                    self.decide(ticket)
                    self.done(clerk, tag="UPDATE 19")
        self.assert_nothing_left_open()

    def test_another_table_than_in_the_trial_is_more(self):
        with self.wire() as clerk:
            self.sql("TRUNCATE held.receipts")
            ticket = self.hold(clerk, "DELETE FROM tried")
            self.sql("INSERT INTO held.receipts VALUES (1, 1)")
            self.decide(ticket)
            frames = clerk.until_ready()
            self.assertEqual(["42501"], wire.sqlstates(frames))
            self.assertIn("receipts", str([f for f in frames if f.tag == "E"][0].fields()))
        self.assertEqual((20, 1), (self.count("tried"), self.count("receipts")))

    def test_an_approval_by_a_trial_serves_a_later_run_within_what_was_counted(self):
        for name, form in FORMS.items():
            with self.subTest(name), self.wire() as clerk:
                self.sql(FILL_SQL)
                ticket = self.given_ticket(clerk, form("UPDATE tried_later SET state = 'live'"))
                self.decide(ticket)
                self.sql("INSERT INTO held.tried_later VALUES (21, 'new')")
                self.refused(clerk, form("UPDATE tried_later SET state = 'live'"), message="21|approved")
                self.assertEqual(0, self.count("tried_later", "state = 'live'"))
                again = self.given_ticket(clerk, form("UPDATE tried_later SET state = 'live'"))
                self.assertNotEqual(ticket, again)
                self.decide(again)
                self.done(clerk, form("UPDATE tried_later SET state = 'live'"), "UPDATE 21")

    def test_several_statements_are_tried_together(self):
        with self.wire() as clerk:
            ticket = self.hold(clerk, "INSERT INTO log VALUES (1, 'x'), (2, 'y'); UPDATE tried SET state = 'live'; "
                                      "DELETE FROM log WHERE id = 1; SELECT 'end'")
            fields = self.fields(ticket)
            self.assertIn("held.tried: 20 updated", fields["tables"])
            self.assertIn("2 inserted", fields["tables"])
            self.assertEqual(0, self.count("log"))
            self.decide(ticket)
            self.done(clerk, tag=["INSERT 0 2", "UPDATE 20", "DELETE 1", "SELECT 1"])
        self.assertEqual((1, 20), (self.count("log"), self.count("tried", "state = 'live'")))

    def test_a_trial_in_a_block_keeps_what_the_block_has_done(self):
        with self.wire() as clerk:
            clerk.ask("BEGIN")
            clerk.ask("INSERT INTO tried VALUES (21, 'mine')")
            clerk.ask("SAVEPOINT pgchaperone_trial")
            clerk.ask("INSERT INTO log VALUES (1, 'mine')")
            ticket = self.hold(clerk, "UPDATE tried SET state = 'live'")
            self.assertEqual("held.tried: 21 updated", self.fields(ticket)["tables"])
            self.decide(ticket)
            self.done(clerk, tag="UPDATE 21")
            self.done(clerk, "ROLLBACK TO pgchaperone_trial")
            self.done(clerk, "COMMIT", "COMMIT")
        self.assertEqual((21, 0, 0), (self.count("tried"), self.count("log"), self.count("tried", "state = 'live'")))


@needs_guard
class Exceeding(Held):
    """`on_exceed: hold`: the limit is 5 rows."""

    def test_by_itself_it_waits_and_then_runs_and_its_rows_are_shown_once(self):
        for name, form in FORMS.items():
            self.sql(FILL_SQL)
            with self.subTest(name), self.wire() as clerk:
                ticket = self.hold(clerk, form("UPDATE counted SET state = 'live' WHERE id <= 12 RETURNING id"))
                self.assertEqual("12T" if name == "extended" else "", wire.tags(clerk.before), "no rows yet")
                fields = self.fields(ticket)
                self.assertIn("counted", fields["evidence"])
                self.assertEqual("held.counted: 12 updated", fields["tables"])
                self.assertEqual(0, self.count("counted", "state = 'live'"))
                self.assert_nothing_left_open()
                self.decide(ticket)
                frames = clerk.before + self.done(clerk, tag="UPDATE 12")
                self.assertEqual(("12" if name == "extended" else "") + "T" + "D" * 12 + "CZ", wire.tags(frames))
                self.assertEqual("UPDATE 12", self.wait_for_state(ticket, "used")["outcome"])
                self.done(clerk, form("UPDATE counted SET state = 'dead' WHERE id <= 5"), "UPDATE 5")
                self.assertEqual((7, 5), (self.count("counted", "state = 'live'"),
                                          self.count("counted", "state = 'dead'")))

    def test_denied_cancelled_or_left_it_was_never_there(self):
        for end in ("deny", "cancel", "leave"):
            with self.subTest(end):
                clerk = self.wire()
                ticket = self.hold(clerk, "DELETE FROM counted WHERE id <= 12")
                if end == "deny":
                    self.decide(ticket, "deny", "too many")
                    frames = clerk.until_ready()
                    self.assertEqual(["42501"], wire.sqlstates(frames))
                    self.assertIn("too many", str([f for f in frames if f.tag == "E"][0].fields()))
                elif end == "cancel":
                    with wire.Wire(self.guarded.address) as messenger:
                        messenger.send(wire.cancel_request(clerk.pid, clerk.key))
                    self.assertEqual(["57014"], wire.sqlstates(clerk.until_ready()))
                if end != "leave":
                    self.done(clerk, "SELECT 1")
                clerk.close()
                self.wait_for_state(ticket, "denied" if end == "deny" else "withdrawn")
                self.assertEqual(20, self.count("counted"))
        self.assert_nothing_left_open()

    def test_it_may_do_no_more_than_was_counted(self):
        with self.wire() as clerk:
            ticket = self.hold(clerk, "DELETE FROM counted WHERE id <= 12 OR id > 20")
            self.sql("INSERT INTO held.counted VALUES (21, 'new')")
            self.decide(ticket)
            # What it does now is asked about anew.
            frames = clerk.until("NE")
            self.assertRegex(frames[-1].fields()["M"], "13|waits for approval")
            if frames[-1].tag == "E":
                clerk.until_ready()
            else:
                (other,) = self.pending()
                self.assertNotEqual(ticket, other)
                self.decide(other, "deny")
                self.assertEqual(["42501"], wire.sqlstates(clerk.until_ready()))
        self.assertEqual(21, self.count("counted"))
        self.assertRegex(self.wait_for_state(ticket, "used")["outcome"], "^failed: ")

    def test_cascades_and_functions_count(self):
        with self.wire() as clerk:
            ticket = self.hold(clerk, "DELETE FROM shops WHERE id <= 3")
            self.assertEqual("held.sales: 30 deleted\nheld.shops: 3 deleted", self.fields(ticket)["tables"])
            self.decide(ticket)
            self.done(clerk, tag="DELETE 3")
            ticket = self.hold(clerk, "SELECT held.remove(12)")
            self.assertEqual("held.counted: 12 deleted", self.fields(ticket)["tables"])
            self.decide(ticket)
            self.assertEqual("TDCZ", wire.tags(self.done(clerk)))
        self.assertEqual((70, 8), (self.count("sales"), self.count("counted")))

    def test_where_its_client_has_seen_results_it_gets_an_error_and_runs_it_again(self):
        text = "UPDATE counted SET state = 'live' WHERE id <= 12 RETURNING id"
        shapes = {
            "simple in a block": (query(text), "E", "BEGIN"),
            "extended in a block": (run(text) + sync(), "E", "BEGIN"),
            "in a pipeline": (run("SELECT 1") + run(text) + run("SELECT 2") + sync(), "I", None),
        }
        for name, (data, status, before) in shapes.items():
            with self.subTest(name), self.wire() as clerk:
                self.sql(FILL_SQL)
                if before:
                    clerk.ask(before)
                clerk.send(data)
                frames = clerk.until_ready()
                self.assertEqual((["42501"], status), (wire.sqlstates(frames), wire.statuses(frames)), frames)
                fields = [f for f in frames if f.tag == "E"][0].fields()
                ticket = self.ticket_of(fields)
                self.assertIn("run the same statement again", fields["H"])
                if before:
                    clerk.ask("ROLLBACK")
                self.assertEqual(0, self.count("counted", "state = 'live'"))
                self.assertEqual("held.counted: 12 updated", self.fields(ticket)["tables"])
                self.decide(ticket)
                if before:
                    clerk.ask(before)
                frames = self.done(clerk, data)
                self.assertEqual(12 + 2 * (name == "in a pipeline"), wire.tags(frames).count("D"))
                if before:
                    self.done(clerk, "COMMIT", "COMMIT")
                self.assertEqual(12, self.count("counted", "state = 'live'"))
                self.wait_for_state(ticket, "used")
                if before:
                    clerk.ask(before)
                clerk.send(data)
                self.assertEqual(["42501"], wire.sqlstates(clerk.until_ready()), "it passes once")
                clerk.ask("ROLLBACK")
        self.assert_nothing_left_open()

    def test_run_again_it_may_do_no_more_than_was_approved(self):
        with self.wire() as clerk:
            data = query("UPDATE counted SET state = 'live' WHERE id <= 12 OR id > 20")
            clerk.ask("BEGIN")
            ticket = self.given_ticket(clerk, data)
            clerk.ask("ROLLBACK")
            self.decide(ticket)
            self.sql("INSERT INTO held.counted VALUES (21, 'new')")
            clerk.ask("BEGIN")
            fields = self.refused(clerk, data)
            clerk.ask("ROLLBACK")
            self.assertEqual(0, self.count("counted", "state = 'live'"))
            other = self.ticket_of(fields)
            self.assertNotEqual(ticket, other)
            self.assertEqual("held.counted: 13 updated", self.fields(other)["tables"])
            self.decide(other)
            self.done(clerk, data, "UPDATE 13")

    def test_a_string_of_statements_waits_as_a_whole(self):
        with self.wire() as clerk:
            ticket = self.hold(clerk, "INSERT INTO log VALUES (1, 'x'); DELETE FROM counted WHERE id <= 12; "
                                      "SELECT 'end'")
            self.assertEqual((20, 0), (self.count("counted"), self.count("log")))
            self.decide(ticket)
            frames = self.done(clerk, tag=["INSERT 0 1", "DELETE 12", "SELECT 1"])
            self.assertEqual("CCTDCZ", wire.tags(frames))
        self.assertEqual((8, 1), (self.count("counted"), self.count("log")))

    def test_within_the_limits_nobody_is_asked(self):
        before = len(self.ask("bob", "SHOW chaperone.history"))
        with self.wire() as clerk:
            self.done(clerk, "DELETE FROM counted WHERE id <= 5", "DELETE 5")
            self.done(clerk, run("DELETE FROM counted WHERE id <= 10") + sync(), "DELETE 5")
        self.assertEqual(({}, before), (self.pending(), len(self.ask("bob", "SHOW chaperone.history"))))


if __name__ == "__main__":
    main()
