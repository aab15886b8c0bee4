"""Compares the simulator's model server with a real PostgreSQL: runs the program given as the first argument
against a throw-away server. Further arguments (how many seeds, from which) are handed on."""

import socket
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import wire
from support.cluster import Cluster

# The model's tables and functions, as model_database.cpp has them.
TABLES = """\
CREATE TABLE t1 (id integer PRIMARY KEY, a integer DEFAULT 0);
CREATE TABLE t2 (id integer PRIMARY KEY, a integer DEFAULT 0);
CREATE TABLE t3 (id integer PRIMARY KEY, a integer DEFAULT 0);
CREATE FUNCTION purge(n integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE gone integer[];
BEGIN
    WITH d AS (DELETE FROM t2 WHERE id IN (SELECT id FROM t2 ORDER BY id LIMIT n) RETURNING id)
    SELECT array_agg(id) INTO gone FROM d;
    DELETE FROM t1 WHERE id = ANY (gone);
    RETURN coalesce(cardinality(gone), 0);
END $$;
CREATE PROCEDURE sweep(n integer) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM purge(n);
    COMMIT;
    PERFORM purge(n);
END $$;
CREATE SEQUENCE made;
CREATE FUNCTION make_function() RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'CREATE FUNCTION made_' || nextval('made') || '() RETURNS integer LANGUAGE sql AS ''SELECT 1''';
    RETURN 1;
END $$;
CREATE FUNCTION wipe() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN TRUNCATE t3; RETURN 1; END $$;
"""


def cancels_are_forgotten_between_messages(cluster) -> bool:
    """A cancel that comes while the server works on a Sync hits nothing that follows, although that is there already."""
    syncs = 20_000
    for _ in range(10):
        with wire.Wire.log_in((cluster.host, cluster.port)) as session:
            sending = threading.Thread(target=session.send, args=(wire.sync() * syncs + wire.query("SELECT 1"),))
            sending.start()
            ready = len(session.until_ready())
            with socket.create_connection((cluster.host, cluster.port)) as other:
                other.sendall(wire.cancel_request(session.pid, session.key))
                other.recv(1)  # its end: the signal has been sent
            # Each answer is sent at once, so this is how far the server had come by then.
            session.socket.setblocking(False)
            try:
                while data := session.socket.recv(1 << 18):
                    session.buffer += data
            except BlockingIOError:
                pass
            session.socket.settimeout(60)
            in_between = ready + session.buffer.count(wire.message("Z", b"I")) < syncs
            tags = "".join(frame.tag for frame in session.until_ready(syncs))
            sending.join()
            if tags.strip("Z") != "TDC":
                print(f"a cancel hit what came later: {tags.strip('Z')}")
                return False
            if in_between:
                return True
    print("no cancel came before all was done")
    return False


def main() -> int:
    cluster = Cluster({"max_prepared_transactions": "20"})
    try:
        cluster.sql("CREATE ROLE clerk LOGIN SUPERUSER")
        cluster.sql("CREATE DATABASE shop OWNER clerk")
        cluster.sql(TABLES, dbname="shop", user="clerk")
        if not cancels_are_forgotten_between_messages(cluster):
            return 1
        return subprocess.run([sys.argv[1], str(cluster.port), *sys.argv[2:]], timeout=600).returncode
    finally:
        cluster.erase()


if __name__ == "__main__":
    sys.exit(main())
