"""What PostgreSQL's own programs do with a server: base backups, streaming of write-ahead log, logical decoding, dumps
and restores."""

import itertools
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.e2e import EndToEnd, binaries, main, wire
from support.processes import start, stop, wait_until
from support.wire import message, query


class Replication(EndToEnd):
    cluster_options = {"settings": {"max_wal_senders": "10"}}

    def test_every_spelling_of_a_replication_connection(self):
        for value in ("true", "on", "yes", "1", "t", "tr", "YES", "database", "false", "off", "0", "f", "no", "maybe",
                      "o", "DATABASE", ""):
            with self.subTest(value):
                def play(target):
                    try:
                        with target.wire(replication=value) as connection:
                            frames = connection.ask("IDENTIFY_SYSTEM") + connection.ask("SHOW port")
                            return [f.tag for f in frames], wire.sqlstates(frames)
                    except PermissionError as refusal:
                        return str(refusal)

                self.same(play)

    def test_a_base_backup_is_whole(self):
        for target, method in itertools.product((self.direct, self.guarded), ("fetch", "stream")):
            with self.subTest(target.name, method=method):
                where = self.directory / f"backup-{target.name}-{method}"
                done = target.program("pg_basebackup", "-D", where, "-X", method, "-c", "fast", "--no-sync",
                                      timeout_s=60)
                self.assertEqual(0, done.returncode, done.stderr)
                verified = subprocess.run([binaries() / "pg_verifybackup", where], capture_output=True, text=True)
                self.assertEqual(0, verified.returncode, verified.stderr)
                shutil.rmtree(where)

    def test_a_base_backup_as_a_compressed_stream(self):
        done = subprocess.run([binaries() / "pg_basebackup", "-D", "-", "-F", "tar", "-X", "fetch", "-c", "fast",
                               "--compress=server-gzip", "--no-manifest"],
                              env=self.guarded.environment(), capture_output=True, timeout=60)
        self.assertEqual(0, done.returncode, done.stderr)
        listing = subprocess.run(["tar", "-tz"], input=done.stdout, capture_output=True)
        self.assertIn(b"PG_VERSION", listing.stdout)

    def test_write_ahead_log_is_received(self):
        for target in (self.direct, self.guarded):
            with self.subTest(target.name):
                where = self.directory / f"wal-{target.name}"
                where.mkdir()
                slot = f"wal_{target.name}"
                environment = target.environment(PGAPPNAME="receiver")
                made = subprocess.run([binaries() / "pg_receivewal", "--create-slot", "-S", slot], env=environment,
                                      capture_output=True, text=True, timeout=20)
                self.assertEqual(0, made.returncode, made.stderr)
                receiver = start([binaries() / "pg_receivewal", "-D", where, "-S", slot, "--synchronous", "-s", "1"],
                                 env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                try:
                    self.cluster.wait_for_backends(1, "application_name = 'receiver' AND wait_event = 'WalSenderMain'")
                    self.cluster.sql("INSERT INTO scratch SELECT i, repeat('w', 200) FROM generate_series(1, 20000) i")
                    self.cluster.sql("SELECT pg_switch_wal()")
                    wait_until(lambda: any(len(f.name) == 24 for f in where.iterdir()), 15, "a whole segment")
                finally:
                    stop(receiver, signal.SIGINT)
                self.wait_for_free_slots()
                subprocess.run([binaries() / "pg_receivewal", "--drop-slot", "-S", slot], env=environment, check=True)

    def wait_for_free_slots(self):
        """The server hears of a receiver's end when it has written all that it had for it."""
        wait_until(lambda: self.cluster.sql("SELECT count(*) FROM pg_replication_slots WHERE active") == [(0,)], 15,
                   "the slot to be free")

    def test_logical_changes_are_received(self):
        def play(target):
            self.cluster.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
            environment = target.environment(PGAPPNAME="decoder")
            decoder = [str(binaries() / "pg_recvlogical"), "-d", "postgres", "--slot", "decoder"]
            subprocess.run(decoder + ["--create-slot", "-P", "test_decoding"], env=environment, check=True, timeout=20)
            output = self.directory / f"changes-{target.name}"
            output.touch()
            receiver = start(decoder + ["--start", "-o", "include-xids=0", "-F", "0", "-s", "1", "-f", str(output)],
                             env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                self.cluster.wait_for_backends(1, "application_name = 'decoder' AND wait_event ~ '^WalSender(Main|WaitForWAL)$'")
                with target.wire() as connection:
                    connection.ask("INSERT INTO scratch SELECT i, 'decoded' FROM generate_series(1, 500) i")
                    connection.ask("UPDATE items SET quantity = 5 WHERE id = 1")
                wait_until(lambda: output.read_text().count("COMMIT") == 2, 15, "two transactions")
            finally:
                stop(receiver, signal.SIGINT)
            self.wait_for_free_slots()
            subprocess.run(decoder + ["--drop-slot"], env=environment, check=True, timeout=20)
            return output.read_text()

        self.assertIn("table public.items: UPDATE", self.same(play, reset=True))

    def test_copy_both_is_ended_by_the_client(self):
        """START_REPLICATION, a status update, CopyDone from the client, and ordinary queries afterwards."""
        def play(target):
            with target.wire(replication="database") as connection:
                connection.ask("CREATE_REPLICATION_SLOT ended TEMPORARY LOGICAL test_decoding")
                connection.send(query("START_REPLICATION SLOT ended LOGICAL 0/0 (\"include-xids\" '0')"))
                first = connection.until("W")
                connection.send(message("d", b"r" + struct.pack("!qqqqB", 0, 0, 0, 0, 1)))
                keepalive = connection.until("d")[-1]
                self.cluster.sql("INSERT INTO scratch VALUES (1, 'streamed')")
                seen = []
                while b"COMMIT" not in (seen[-1] if seen else b""):
                    frame = connection.frame()
                    if frame.body[:1] == b"w":
                        seen.append(frame.body[25:])
                connection.send(message("c"))
                ended = [f for f in connection.until_ready() if f.tag != "d"]
                result = first, keepalive.body[:1], seen, ended, connection.ask("SELECT 1")
            # With the session goes the slot, whose name is used again.
            self.cluster.wait_for_backends(0, "backend_type = 'walsender'")
            return result

        self.same(play, reset=True)


class Dump(EndToEnd):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster.sql("""
            CREATE SCHEMA shop;
            CREATE TYPE shop.state AS ENUM ('open', 'paid');
            CREATE TABLE shop.invoice (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, state shop.state,
                amount numeric(10,2), body text, extra jsonb, raw bytea) ;
            CREATE TABLE shop.log (at date, line text) PARTITION BY RANGE (at);
            CREATE TABLE shop.log_1 PARTITION OF shop.log FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
            CREATE INDEX ON shop.invoice (state) WHERE amount > 10;
            CREATE VIEW shop.open AS SELECT * FROM shop.invoice WHERE state = 'open';
            CREATE FUNCTION shop.f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN DELETE FROM items WHERE false; RETURN NEW; END$$;
            CREATE TRIGGER t AFTER INSERT ON shop.invoice FOR EACH ROW EXECUTE FUNCTION shop.f();
            INSERT INTO shop.invoice (state, amount, body, extra, raw)
                SELECT 'open', i, E'line\\n\\t\\\\' || i, jsonb_build_object('i', i), decode(md5(i::text), 'hex')
                FROM generate_series(1, 5000) i;
            INSERT INTO shop.log SELECT '2020-03-01', 'l' || i FROM generate_series(1, 3000) i;
            SELECT lo_from_bytea(55555, 'a large object');
            COMMENT ON TABLE shop.invoice IS 'it''s ü';
        """)

    def test_plain_dumps_are_equal(self):
        for arguments in ([], ["--inserts", "--rows-per-insert=100"], ["-s"], ["-a", "--column-inserts", "-n", "shop"],
                          ["--serializable-deferrable"], ["-C", "-c", "--if-exists"]):
            with self.subTest(arguments):
                # pg_dump of some minor versions writes a random \restrict key.
                self.same_output(None, *arguments, program="pg_dump", check=True, hide=(r"\\(un)?restrict \w+",))
        self.same_output(None, program="pg_dumpall", check=True, hide=(r"\\(un)?restrict \w+", r"SCRAM-[^']*"))

    def test_a_parallel_dump_restores_in_parallel(self):
        def contents(database):
            return self.cluster.sql("SELECT (SELECT md5(string_agg(i::text, ',' ORDER BY id)) FROM shop.invoice i), "
                                    "(SELECT count(*) FROM shop.log), lo_get(55555)", dbname=database)

        expected = contents("postgres")
        for target, form in itertools.product((self.direct, self.guarded), ("-Fd", "-Fc")):
            with self.subTest(target.name, form=form):
                dump, copy = self.directory / f"dump{form}-{target.name}", "restored"
                jobs = ["-j", "3"] if form == "-Fd" else []
                done = target.program("pg_dump", form, *jobs, "-f", dump)
                self.assertEqual(0, done.returncode, done.stderr)
                self.assertEqual(0, target.program("createdb", copy).returncode)
                done = target.program("pg_restore", "-j", "3", "-d", copy, dump)
                self.assertEqual((0, ""), (done.returncode, done.stderr))
                self.assertEqual(expected, contents(copy))
                done = target.program("dropdb", copy)
                self.assertEqual(0, done.returncode, done.stderr)

    def test_other_programs(self):
        steps = (("vacuumdb", "-z", "-j", "2"), ("reindexdb", "-t", "items"), ("clusterdb",), ("createuser", "made"),
                 ("createuser", "made"), ("dropuser", "made"), ("vacuumlo", "-n", "postgres"),
                 ("pg_amcheck", "--install-missing", "postgres"), ("psql", "-c", "DROP EXTENSION amcheck"),
                 ("createdb", "-T", "template0", "made"), ("dropdb", "-f", "made"), ("dropdb", "made"))

        def play(target):
            return [(step, *self.outcome(target.program(*step))) for step in steps]

        for step, status, _, err in self.same(play):
            failing = step in (("createuser", "made"), ("dropdb", "made")) and "exist" in err
            self.assertEqual(int(failing), status, (step, err))
        self.assertEqual(0, self.guarded.program("pg_isready").returncode)

    @staticmethod
    def outcome(done):
        return done.returncode, done.stdout, done.stderr


if __name__ == "__main__":
    main()
