#!/usr/bin/env python3
"""Writes policy/functions_table.inc from the catalogue of a live PostgreSQL server.

    tools/functions_table.py --psql "psql -h 127.0.0.1 -U postgres" > policy/functions_table.inc

One line per function name of pg_catalog and information_schema: the most volatile of its overloads
(i = immutable, s = stable, v = volatile) and whether any of them is an aggregate; and one line per operator
name. What volatile functions do is reviewed by hand in policy/functions_table.cpp; a unit test fails for
each that is not listed there. A name from information_schema counts only with its schema.
"""
import argparse
import shlex
import subprocess

FUNCTIONS = """
SELECT format('FUNCTION("%s", ''%s'', %s, %s)', proname,
              CASE max(CASE provolatile WHEN 'i' THEN 1 WHEN 's' THEN 2 ELSE 3 END)
                  WHEN 1 THEN 'i' WHEN 2 THEN 's' ELSE 'v' END,
              bool_or(prokind = 'a'), bool_and(n.nspname <> 'pg_catalog'))
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname IN ('pg_catalog', 'information_schema')
GROUP BY proname ORDER BY proname COLLATE "C"
"""

OPERATORS = """
SELECT format('OPERATOR("%s")', replace(oprname, '\\', '\\\\'))
FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace
GROUP BY oprname ORDER BY oprname COLLATE "C"
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--psql", default="psql", help="how to call psql, with its options")
    arguments = parser.parse_args()
    psql = shlex.split(arguments.psql) + ["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c"]

    def lines(query):
        return subprocess.run(psql + [query], check=True, capture_output=True, text=True).stdout.strip()

    version = lines("SHOW server_version").split()[0]
    print(f"// From the catalogue of PostgreSQL {version} by tools/functions_table.py. Do not edit.")
    print("#ifndef FUNCTION\n#define FUNCTION(name, volatility, aggregate, qualified_only)\n#endif")
    print("#ifndef OPERATOR\n#define OPERATOR(name)\n#endif")
    print(lines(FUNCTIONS).replace(", t", ", true").replace(", f", ", false"))
    print(lines(OPERATORS))
    print("#undef FUNCTION\n#undef OPERATOR")


if __name__ == "__main__":
    main()
