"""People, tables and a policy for the end-to-end tests of held statements: who asks, who decides, and what they say.

Every table of the fixture has its own terms: what is held there is told by the table's name. Whoever decides does so as
people do, over a connection through the guard."""

import re
import subprocess
import threading

import psycopg
from psycopg.rows import dict_row

from support import processes
from support.e2e import EndToEnd, Guard, Target, binaries, wire
from support.wire import query

# Who asks: clerk, clara. Who may decide: members of dba: bob, carol, erin (by another role), a superuser. Who may not:
# dave, and another superuser. Who may go ahead alone: oscar.
PEOPLE_SQL = """\
CREATE ROLE dba NOLOGIN;
CREATE ROLE leads NOLOGIN IN ROLE dba;
CREATE ROLE clerk LOGIN;
CREATE ROLE clara LOGIN;
CREATE ROLE bob LOGIN IN ROLE dba;
CREATE ROLE carol LOGIN IN ROLE dba;
CREATE ROLE erin LOGIN NOINHERIT IN ROLE leads;
CREATE ROLE dave LOGIN;
CREATE ROLE chief LOGIN SUPERUSER;
CREATE ROLE chief_dba LOGIN SUPERUSER IN ROLE dba;
CREATE ROLE on_call NOLOGIN;
CREATE ROLE oscar LOGIN IN ROLE on_call;
CREATE ROLE otto LOGIN IN ROLE on_call, dba;
CREATE ROLE readers NOLOGIN;
GRANT readers TO clerk;
CREATE DATABASE other;
"""

TERMS = {
    "jobs": "wait: 60s, evidence: none",  # somebody decides while the client waits
    "later": "wait: 0s, evidence: none",  # the client gets the ticket at once
    "soon": "wait: 300ms, evidence: none",
    "pair": "wait: 0s, evidence: none, approvals: 2",
    "selfish": "wait: 0s, evidence: none, allow_self: true",
    "brief": "wait: 0s, evidence: none, ticket_ttl: 2s",
    "inside": "wait: 60s, evidence: none, in_transaction: refuse",
    "told": "wait: 60s, evidence: none, notify_every: 1s",
    "planned": "wait: 60s, evidence: plan",
    "tried": "wait: 60s, evidence: trial",
    "tried_later": "wait: 0s, evidence: trial",
}

FIXTURE_SQL = ("DROP SCHEMA IF EXISTS held CASCADE; CREATE SCHEMA held; SET search_path = held;\n" +
               "".join(f"CREATE TABLE {table} (id int PRIMARY KEY, state text);\n"
                       for table in [*TERMS, "counted"]) + """\
CREATE TABLE shops (id int PRIMARY KEY, name text);
CREATE TABLE sales (id int PRIMARY KEY, shop int REFERENCES shops ON DELETE CASCADE);
CREATE TABLE log (id int, note text);
CREATE TABLE receipts (id int PRIMARY KEY, tried int REFERENCES tried ON DELETE CASCADE);
CREATE SEQUENCE numbers;
CREATE FUNCTION remove(up_to int) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN DELETE FROM held.counted WHERE id <= up_to; RETURN up_to; END $$;
GRANT ALL ON ALL SEQUENCES IN SCHEMA held TO PUBLIC;
GRANT ALL ON SCHEMA held TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA held TO PUBLIC;
RESET search_path;
""")

FILL_SQL = ("TRUNCATE " + ", ".join(f"held.{table}" for table in [*TERMS, "counted", "shops", "log"]) + " CASCADE;\n" +
            "".join(f"INSERT INTO held.{table} SELECT i, 'new' FROM generate_series(1, 20) i;\n"
                    for table in [*TERMS, "counted"]) + """\
INSERT INTO held.shops SELECT i, 'shop ' || i FROM generate_series(1, 10) i;
INSERT INTO held.sales SELECT i, 1 + (i - 1) / 10 FROM generate_series(1, 100) i;
INSERT INTO held.receipts SELECT i, 1 + (i - 1) / 2 FROM generate_series(1, 40) i;
""")


def rule(name: str, match: str, action: str) -> str:
    return f"    - name: {name}\n      match: {{ {match} }}\n      action: {action}\n"


HEAD = "approvers: [dba]\n  break_glass: { roles: [on_call], require_reason: true }"


def policy(*rules: str, head: str = HEAD) -> str:
    return f"policy:\n  default: allow\n  unparsable: allow\n  {head}\n  rules:\n" + "".join(rules)


RULES = tuple(rule(f"hold-{table}", f'writes: ["held.{table}"], unbounded: true', f"{{ hold: {{ {terms} }} }}")
              for table, terms in TERMS.items())
COUNTED = rule("count", 'any: [ { writes: ["held.counted", "held.shops"] }, { opaque: true } ]',
               "{ supervise: { max_rows: 5, effects: total, on_exceed: hold, hold: { wait: 60s } } }")
USUAL = policy(*RULES, COUNTED)


class Refused(Exception):
    """An error that the guard or the server answered with."""

    def __init__(self, error: psycopg.Error):
        self.sqlstate, diagnosis = error.sqlstate, error.diag
        self.message, self.detail, self.hint = (diagnosis.message_primary, diagnosis.message_detail,
                                                diagnosis.message_hint)
        super().__init__(f"{self.sqlstate} {self.message} | {self.detail} | {self.hint}")


class Psql:
    """psql with a person in front of it, who types and reads."""

    def __init__(self, target: Target, user: str, *arguments, options: str = "-c search_path=held"):
        environment = target.environment(PGUSER=user, PGOPTIONS=options)
        self.process = processes.start([binaries() / "psql", "-X", "-q", "-v", "SHOW_CONTEXT=never", *arguments],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                       env=environment)
        self.text = ""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        while data := self.process.stdout.read1(65536):
            self.text += data.decode(errors="replace")

    def type(self, line: str):
        self.process.stdin.write((line + "\n").encode())
        self.process.stdin.flush()

    def wait_for(self, pattern: str, timeout_s: float = 15.0) -> re.Match:
        try:
            return processes.wait_until(lambda: re.search(pattern, self.text), timeout_s, f"psql to print {pattern}")
        except TimeoutError as error:
            raise AssertionError(f"{error}; it printed: {self.text}") from None

    def ticket(self) -> str:
        return self.wait_for(r"NOTICE:  pgchaperone: .*? waits for approval \(ticket (\w+)\)").group(1)

    def end(self) -> str:
        """What it printed, when there is no more to type."""
        self.process.stdin.close()
        self.process.wait(20)
        self.reader.join(5)
        self.process.stdout.close()
        return self.text

    def __enter__(self):
        return self

    def __exit__(self, *_):
        processes.stop(self.process, patience_s=2)
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except OSError:
                pass


class Held(EndToEnd):
    """`self.guard` holds by USUAL."""

    configuration = USUAL

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster.sql(PEOPLE_SQL.replace("CREATE DATABASE other;", ""))
        cls.cluster.sql("CREATE DATABASE other")
        cls.own = cls.cluster.connect(prepare_threshold=None)
        cls.addClassCleanup(cls.own.close)
        cls.own.execute(FIXTURE_SQL)
        cls.people = {}
        cls.addClassCleanup(lambda: [c.close() for c in cls.people.values()])

    def setUp(self):
        self.sql(FILL_SQL)
        for ticket, row in self.pending().items():  # what a test before left behind
            self.decide(ticket, "deny", user="carol" if row["requester"] == "bob" else "bob")

    # --- past the guard ----------------------------------------------------------------------------------

    def sql(self, text: str, parameters=None) -> list:
        if self.own.closed:
            type(self).own = self.cluster.connect(prepare_threshold=None)
        cursor = self.own.execute(text, parameters)
        return cursor.fetchall() if cursor.description else []

    def count(self, table: str, where: str = "true") -> int:
        return self.sql(f"SELECT count(*) FROM held.{table} WHERE {where}")[0][0]

    def assert_nothing_left_open(self):
        """No session is in a transaction or holds a lock on a relation, but for one that is ending."""
        left = ("SELECT a.usename, a.state, l.relation::regclass::text, l.mode FROM pg_stat_activity a LEFT JOIN "
                "pg_locks l ON l.pid = a.pid AND l.locktype = 'relation' "
                "WHERE a.state LIKE 'idle in transaction%' OR (a.state = 'idle' AND l.pid IS NOT NULL)")
        processes.wait_until(lambda: not self.sql(left), 5, f"no transaction left open: {self.sql(left)}")

    # --- who asks ----------------------------------------------------------------------------------------

    def wire(self, user: str = "clerk", target=None, database: str = "postgres", **options) -> wire.Wire:
        """A connection that the test closes itself, or its end does."""
        options = {"options": "-c search_path=held", **options}
        connection = (target or self.guarded).wire(user=user, database=database, **options)
        self.addCleanup(connection.close)
        return connection

    def hold(self, connection, data) -> str:
        """Sends, and reads until the client is told that it waits. Returns the ticket."""
        connection.send(data if isinstance(data, bytes) else query(data))
        return self.told(connection)

    def told(self, connection) -> str:
        """Reads until the client is told that it waits; what came before is in `connection.before`."""
        connection.before = []
        while True:
            connection.before += connection.until("NE")
            last = connection.before[-1]
            if last.tag == "E":
                self.fail(f"not held, but refused: {last.fields()}")
            found = re.search(r"waits for approval \(ticket (\w+)\)", last.fields()["M"])
            if found:
                del connection.before[-1]
                return found.group(1)

    def refused(self, connection, data, sqlstate: str = "42501", message: str = "") -> dict:
        """Sends, reads to one ReadyForQuery, and expects one error. Returns its fields."""
        connection.send(data if isinstance(data, bytes) else query(data))
        frames = connection.until_ready()
        self.assertEqual([sqlstate], wire.sqlstates(frames), frames)
        fields = [f for f in frames if f.tag == "E"][0].fields()
        self.assertRegex(fields["M"], message or "^pgchaperone: ")
        return fields

    def ticket_of(self, fields: dict) -> str:
        """The ticket that an error names."""
        found = re.search(r"\(ticket (\w+)\)", fields["M"])
        self.assertTrue(found, fields)
        return found.group(1)

    def given_ticket(self, connection, data) -> str:
        """Sends what is to be refused at once, with a ticket."""
        fields = self.refused(connection, data, message="ticket")
        self.assertTrue(fields.get("H"), fields)
        return self.ticket_of(fields)

    def done(self, connection, data=None, tag=None) -> list:
        """Sends, reads to one ReadyForQuery, and expects no error. Returns the frames."""
        if data is not None:
            connection.send(data if isinstance(data, bytes) else query(data))
        frames = connection.until_ready()
        self.assertEqual([], [f.fields() for f in frames if f.tag == "E"])
        if tag is not None:
            tags = [f.body.rstrip(b"\0").decode() for f in frames if f.tag == "C"]
            self.assertEqual([tag] if isinstance(tag, str) else tag, tags)
        return frames

    # --- who decides -------------------------------------------------------------------------------------

    def person(self, user: str, target=None) -> psycopg.Connection:
        """A connection of somebody's through the guard, which stays."""
        key = (user, (target or self.guarded).port)
        connection = self.people.get(key)
        if connection is None or connection.closed:
            connection = psycopg.connect((target or self.guarded).dsn(user=user), autocommit=True,
                                         row_factory=dict_row, prepare_threshold=None)
            self.people[key] = connection
        return connection

    def ask(self, user: str, sql: str, parameters=None, target=None) -> list:
        """Rows by their column names; raises Refused."""
        connection = self.person(user, target)
        try:
            cursor = connection.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            if error.sqlstate is None:
                connection.close()
                raise
            raise Refused(error) from None

    def decide(self, ticket: str, what: str = "approve", comment: str = None, user: str = "bob", target=None) -> dict:
        if comment is None:
            return self.ask(user, f"CALL chaperone.{what}(%s)", [ticket], target)[0]
        return self.ask(user, f"CALL chaperone.{what}(%s, %s)", [ticket, comment], target)[0]

    def assert_may_not(self, sqlstate: str, call, *arguments, **named) -> Refused:
        with self.assertRaises(Refused) as caught:
            call(*arguments, **named)
        self.assertEqual(sqlstate, caught.exception.sqlstate, caught.exception)
        return caught.exception

    def fields(self, ticket: str, user: str = "bob", target=None) -> dict:
        """All that a ticket says of itself."""
        return {r["field"]: r["value"] for r in self.ask(user, f"SHOW chaperone.ticket_{ticket}", target=target)}

    def pending(self, user: str = "bob", target=None) -> dict:
        return {r["ticket"]: r for r in self.ask(user, "SHOW chaperone.pending", target=target)}

    def wait_for_state(self, ticket: str, state: str, target=None, timeout_s: float = 10) -> dict:
        """What has no answer (a withdrawal, the outcome of a run) may come a moment later."""
        found = {}

        def there():
            found.update(self.fields(ticket, target=target))
            return found["state"] == state and (state != "used" or "outcome" in found)

        try:
            processes.wait_until(there, timeout_s, f"ticket {ticket} to be {state}")
        except TimeoutError as error:
            raise AssertionError(f"{error}: {found}") from None
        return self.fields(ticket, target=target)

    # --- another guard -----------------------------------------------------------------------------------

    def guarded_by(self, configuration: str, *options) -> Target:
        guard = Guard(self.cluster, *options, configuration=configuration)
        self.addCleanup(guard.erase)
        self.addCleanup(self.forget, guard)
        target = Target("guarded by terms of its own", guard.host, guard.port)
        target.guard = guard
        return target

    def forget(self, guard: Guard):
        """Closes what people have open there: a guard that ends waits for them."""
        for user, port in [key for key in self.people if key[1] == guard.port]:
            self.people.pop((user, port)).close()
