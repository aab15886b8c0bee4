#!/usr/bin/env python3
"""Compares the analyzer with a real server over PostgreSQL's own regression tests.

Every statement is run in a READ ONLY transaction. Where the server refuses it because it writes (SQLSTATE 25006),
the analyzer must not call it a mere READ: that would be unsafe, and there must be none. Where the server runs it
and the analyzer sees more than a READ, the reason is counted by kind; each kind must be explained in
tests/golden/analyzer/read_only_differences.txt. Then the statement is run in earnest, as the files build on
each other.

    regression_read_only.py --facts PATH/analyzer_facts --sql build/regression [--dsn DSN] [--files select,insert]

The SQL comes from tools/regression_sql. Without --dsn a throw-away server is made. Exit status 77: nothing to do
(no SQL, no server).
"""
import argparse
import collections
import json
import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

HERE = Path(__file__).resolve().parent
EXPLAINED = HERE.parent / "golden" / "analyzer" / "read_only_differences.txt"

# Files that need C code which is built beside the server, other encodings, or time and privileges of their own.
LEFT_OUT = {"tablespace", "largeobject", "sysviews", "stats_ext_big", "compression", "database"}

STRING = re.compile(
    r"""(?P<skip>--[^\n]*|/\*.*?\*/)
      | (?P<quoted>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
      | (?P<open>[(\[]) | (?P<close>[)\]])
      | (?P<atomic>\bBEGIN\s+ATOMIC\b)
      | (?P<case>\bCASE\b) | (?P<end>\bEND\b)
      | (?P<semicolon>;)""", re.X | re.S | re.I)


def statements(text, variables):
    """Cuts a file as psql does, leaves its own commands out, and fills in \\set variables. Yields (sql, copy data)."""
    position = 0
    while position < len(text):
        line_start = re.compile(r"\s*").match(text, position).end()
        if text.startswith("\\", line_start):
            end = text.find("\n", line_start)
            end = len(text) if end < 0 else end
            command = text[line_start:end]
            position = end + 1
            words = re.match(r"\\set\s+(\w+)\s+(.*)", command)
            if words:
                value = ""
                for part in re.findall(r":'?(\w+)'?|'([^']*)'|(\S+)", words.group(2)):
                    value += variables.get(part[0], "") if part[0] else part[1] or part[2]
                variables[words.group(1)] = value
            continue
        depth, atomic, end, scan, meta = 0, 0, None, line_start, None
        while True:
            found = STRING.search(text, scan)
            backslash = re.compile(r"\\(?:g\w*|crosstabview|watch|parse|bind)\b[^\n]*").search(
                text, scan, found.start() if found else len(text))
            if backslash and depth == 0:
                end, meta = backslash.start(), backslash.end()
                break
            if not found:
                break
            scan = found.end()
            if found.group("open"):
                depth += 1
            elif found.group("close"):
                depth -= 1
            elif found.group("atomic"):
                atomic += 1
            elif found.group("case") and atomic:
                atomic += 1
            elif found.group("end") and atomic:
                atomic -= 1
            elif found.group("semicolon") and depth <= 0 and not atomic:
                end, meta = found.start(), found.end()
                break
        if end is None:
            return
        sql = text[line_start:end].strip()
        position = meta
        data = None
        if re.match(r"(?is)^copy\b.*\bfrom\s+stdin\b", sql):
            newline = text.find("\n", position)
            close = re.compile(r"^\\\.$", re.M).search(text, newline)
            if close:
                data = text[newline + 1:close.start()]
                position = close.end()
        # Comments before a statement do not matter to anybody.
        sql = re.sub(r":'(\w+)'", lambda m: "'" + variables[m.group(1)] + "'" if m.group(1) in variables else m.group(0), sql)
        if sql and not re.search(r"(?<![:\w]):[a-z]\w*\b", re.sub(r"'[^']*'", "", sql)):
            yield sql, data


def kind_of(facts):
    """What the analyzer saw more than a READ in a text that the server ran read-only, in a word or two."""
    tags = []
    for one in facts:
        if one.get("unparsable"):
            tags.append("unparsable")
        elif one["classes"] != ["READ"] or one.get("opaque"):
            why = "opaque" if one.get("opaque") else "+".join(c for c in one["classes"] if c != "READ")
            tags.append(f"{one['command']}: {why}")
    return "; ".join(sorted(set(tags)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--facts", required=True, help="the program analyzer_facts")
    parser.add_argument("--sql", required=True, help="folder with sql/, data/ and parallel_schedule")
    parser.add_argument("--dsn", help="a server that may be filled with rubbish, as superuser")
    parser.add_argument("--files", help="only these, with a comma between")
    parser.add_argument("--verbose", action="store_true", help="print every difference")
    arguments = parser.parse_args()
    try:
        import psycopg
        import psycopg.sql
    except ImportError:
        print("psycopg is not here")
        return 77
    folder = Path(arguments.sql)
    if not (folder / "parallel_schedule").exists():
        print(f"no regression SQL in {folder}: tools/regression_sql gets it")
        return 77
    schedule = [name for line in (folder / "parallel_schedule").read_text().splitlines()
                if line.startswith("test:") for name in line[5:].split()]
    if arguments.files:
        schedule = ["test_setup"] + arguments.files.split(",")

    cluster = None
    if arguments.dsn:
        dsn = arguments.dsn
    else:
        from support.cluster import Cluster
        cluster = Cluster()
        dsn = f"host=127.0.0.1 port={cluster.port} user=postgres dbname=postgres"
    try:
        return compare(psycopg, dsn, folder, schedule, arguments)
    finally:
        if cluster:
            cluster.erase()


def compare(psycopg, dsn, folder, schedule, arguments):
    with psycopg.connect(dsn, autocommit=True) as admin:
        left = admin.execute("SELECT gid FROM pg_prepared_xacts WHERE database = 'regression'").fetchall()
        if left:
            with psycopg.connect(re.sub(r"dbname=\S+", "", dsn) + " dbname=regression", autocommit=True) as former:
                for (gid,) in left:
                    former.execute("ROLLBACK PREPARED " + psycopg.sql.Literal(gid).as_string(former))
        admin.execute("DROP DATABASE IF EXISTS regression")
        admin.execute("CREATE DATABASE regression TEMPLATE template0")
        admin.execute("ALTER DATABASE regression SET statement_timeout = '3s'")
        admin.execute("ALTER DATABASE regression SET timezone = 'PST8PDT'")
        admin.execute("ALTER DATABASE regression SET lock_timeout = '1s'")
    dsn = re.sub(r"dbname=\S+", "", dsn) + " dbname=regression"
    counts = collections.Counter()
    differences = collections.Counter()
    samples = {}
    unsafe = []
    for name in schedule:
        file = folder / "sql" / f"{name}.sql"
        if name in LEFT_OUT or not file.exists():
            continue
        variables = {"abs_srcdir": str(folder), "libdir": "/nonexistent", "dlsuffix": ".so"}
        texts = list(statements(file.read_text(encoding="utf-8", errors="replace"), variables))
        lines = subprocess.run([arguments.facts], check=True, capture_output=True,
                               input=b"".join(sql.replace("\0", "").encode() + b"\0" for sql, _ in texts)).stdout
        facts = [json.loads(line) for line in lines.decode().splitlines()]
        assert len(facts) == len(texts), (name, len(facts), len(texts))
        probe = psycopg.connect(dsn, autocommit=True)
        real = psycopg.connect(dsn, autocommit=True)
        for (sql, data), seen in zip(texts, facts):
            if any(one["command"] in ("DROP DATABASE", "CREATE DATABASE", "ALTER SYSTEM") for one in seen):
                continue
            bare = re.sub(r"(?s)\A(\s|--[^\n]*\n?|/\*.*?\*/)*", "", sql)
            controls = re.match(r"(?is)(begin|start|commit|end\b|rollback|abort|savepoint|release|prepare\s+tra|"
                                r"set\s+transaction|set\s+session\s+characteristics|set\s+local|declare|fetch|move|close)", bare)
            verdict = None
            if not controls:
                verdict = server_says(psycopg, probe, sql, dsn)
                if probe.closed:
                    probe = psycopg.connect(dsn, autocommit=True)
                only_read = all(one["classes"] == ["READ"] and not one.get("opaque") and not one.get("unparsable")
                                for one in seen)
                counts[verdict] += 1
                if verdict == "writes" and only_read:
                    unsafe.append((name, sql))
                elif verdict == "reads" and not only_read:
                    kind = kind_of(seen)
                    differences[kind] += 1
                    samples.setdefault(kind, (name, sql))
                elif verdict == "writes":
                    counts["both say it writes"] += 1
                elif verdict == "reads":
                    counts["both say it reads"] += 1
            run_in_earnest(psycopg, real, sql, data)
            if real.closed:
                real = psycopg.connect(dsn, autocommit=True)
            # Settings that statements depend on are the same for the probe.
            if re.match(r"(?is)(set|reset)\s+(?!transaction|local|session\s+char)", bare) and not probe.closed:
                try:
                    probe.execute(sql.encode())
                except psycopg.Error:
                    pass
        probe.close()
        real.close()
    for what, count in sorted(counts.items()):
        print(f"{count:7d}  {what}")
    explained = explanations()
    unexplained = []
    for kind, count in differences.most_common():
        known = any(re.fullmatch(pattern, kind) for pattern in explained)
        if not known:
            unexplained.append(kind)
        if arguments.verbose or not known:
            name, sql = samples[kind]
            print(f"{count:7d}  {'' if known else 'NOT EXPLAINED '}{kind}   e.g. {name}: {sql[:150]!r}")
    print(f"{sum(differences.values()):7d}  the server reads, the analyzer sees more, in {len(differences)} kinds")
    for name, sql in unsafe:
        print(f"UNSAFE {name}: {sql[:300]!r}")
    if unsafe or unexplained:
        print(f"{len(unsafe)} unsafe, {len(unexplained)} kinds not explained")
        return 1
    print("none unsafe, all differences explained")
    return 0


def explanations():
    if not EXPLAINED.exists():
        return []
    return [line.split(" = ", 1)[0].strip() for line in EXPLAINED.read_text().splitlines()
            if line.strip() and not line.startswith("#")]


def server_says(psycopg, connection, sql, dsn):
    try:
        connection.execute("BEGIN READ ONLY")
        try:
            connection.execute(sql.encode())
            return "reads"
        except psycopg.errors.ReadOnlySqlTransaction:
            return "writes"
        except psycopg.Error as error:
            return "other error" if error.sqlstate != "25001" else "cannot run in a transaction"
    except psycopg.Error:
        return "other error"
    finally:
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()


def run_in_earnest(psycopg, connection, sql, data):
    try:
        if data is not None:
            with connection.cursor() as cursor, cursor.copy(sql.encode()) as copy:
                copy.write(data.encode())
        else:
            connection.execute(sql.encode())
    except (psycopg.Error, UnicodeEncodeError):
        pass


if __name__ == "__main__":
    sys.exit(main())
