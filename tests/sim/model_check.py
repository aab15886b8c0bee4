"""Compares the simulator's model server with a real PostgreSQL: runs the program given as the first argument
against a throw-away server. Further arguments (how many seeds, from which) are handed on."""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
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


def main() -> int:
    cluster = Cluster({"max_prepared_transactions": "20"})
    try:
        cluster.sql("CREATE ROLE clerk LOGIN SUPERUSER")
        cluster.sql("CREATE DATABASE shop OWNER clerk")
        cluster.sql(TABLES, dbname="shop", user="clerk")
        return subprocess.run([sys.argv[1], str(cluster.port), *sys.argv[2:]], timeout=600).returncode
    finally:
        cluster.erase()


if __name__ == "__main__":
    sys.exit(main())
