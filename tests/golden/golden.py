#!/usr/bin/env python3
"""Runs golden files: commands with the output that they must print.

    # Lines with a hash are comments.

    $ pgchaperone explain "DELETE FROM orders"
    block by rule "no-unbounded-writes"
    [1]

A command is a line of shell that begins with "$ ", continued on lines that begin with "> ". What follows, up
to an empty line or the next command, is what it prints, standard error included, and at last, in brackets,
its exit status where that is not 0. An empty line of output stands as "\\" alone. A line of expected output
that ends in " (re)" is a regular expression for the whole line; " (any)" alone stands for any number of lines.
Comments stand behind an empty line.

Commands run in the golden file's folder, with pgchaperone in the PATH, TMP naming a folder that is removed
afterwards, and TZ=UTC.

    PGCHAPERONE_BIN=build/test/pgchaperone tests/golden/golden.py [--update] FILE...

--update writes what the commands print now into the files: read the difference before you commit it.
"""

import difflib
import os
import re
import subprocess
import sys
import tempfile

EMPTY = "\\"
ANY = " (any)"
REGULAR = " (re)"


class Step:
    """One command of a file: the lines before it, its own lines, and those that it must print."""

    def __init__(self, before, command_lines):
        self.before = before
        self.command_lines = command_lines
        self.expected = []
        self.after = []

    def shell(self):
        return "\n".join(line[2:] for line in self.command_lines)


def parse(text):
    """Returns the steps of a golden file, and the lines behind the last of them."""
    steps = []
    pending = []  # comments and empty lines, which belong to the next step
    for line in text.splitlines():
        if line.startswith("$ "):
            steps.append(Step(pending, [line]))
            pending = []
        elif line.startswith("> ") and steps and not pending and not steps[-1].expected:
            steps[-1].command_lines.append(line)
        elif not line or not steps or pending:
            pending.append(line)
        else:
            steps[-1].expected.append(line)
    return steps, pending


def run(step, folder, environment):
    """Returns what the command prints, as lines of a golden file."""
    done = subprocess.run(["/bin/sh", "-c", step.shell()], cwd=folder, env=environment, timeout=50,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = done.stdout.decode("utf-8", "backslashreplace")
    lines = [line if line else EMPTY for line in text.splitlines()]
    if done.returncode != 0:
        lines.append(f"[{done.returncode}]")
    return lines


def line_matches(expected, actual):
    if expected.endswith(REGULAR):
        return re.fullmatch(expected[: -len(REGULAR)], actual) is not None
    return expected == actual


def matches(expected, actual):
    """Compares whole outputs; ANY may stand for any number of lines."""
    if not expected:
        return not actual
    if expected[0] == ANY:
        return any(matches(expected[1:], actual[start:]) for start in range(len(actual) + 1))
    return bool(actual) and line_matches(expected[0], actual[0]) and matches(expected[1:], actual[1:])


def check(path, update):
    """Runs one file; returns the number of commands that printed something else than expected."""
    with open(path, encoding="utf-8") as file:
        steps, tail = parse(file.read())
    if not steps:
        print(f"{path}: there is no command in this file")
        return 1
    wrong = 0
    binary = os.path.abspath(os.environ.get("PGCHAPERONE_BIN", "build/test/pgchaperone"))
    with tempfile.TemporaryDirectory(prefix="pgchaperone-golden-") as scratch:
        # The program under its own name, wherever the build has put it.
        os.symlink(binary, os.path.join(scratch, "pgchaperone"))
        work = os.path.join(scratch, "tmp")
        os.mkdir(work)
        environment = dict(os.environ, PATH=scratch + os.pathsep + os.environ["PATH"], TMP=work, TZ="UTC",
                           LC_ALL="C.UTF-8")
        for step in steps:
            actual = run(step, os.path.dirname(os.path.abspath(path)), environment)
            if not matches(step.expected, actual):
                wrong += 1
                if not update:
                    print(f"{path}: {step.shell()}")
                    for line in difflib.unified_diff(step.expected, actual, "expected", "printed", lineterm=""):
                        print("    " + line)
                step.expected = actual
    if update and wrong:
        lines = []
        for step in steps:
            lines += step.before + step.command_lines + step.expected
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(lines + tail) + "\n")
        print(f"{path}: {wrong} of {len(steps)} commands now print something else; the file says so")
        return 0
    return wrong


def main(arguments):
    update = "--update" in arguments
    files = [argument for argument in arguments if argument != "--update"]
    if not files or any(argument.startswith("-") for argument in files):
        print(__doc__)
        return 2
    return 1 if sum(check(path, update) for path in files) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
