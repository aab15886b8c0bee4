#!/usr/bin/env python3
"""Makes the manual pages, the completion for shells and the JSON Schema out of what the program says of itself.

usage: packaging/manual.py PROGRAM OUTPUT_DIR [--date DATE]

Asks PROGRAM for its help, command by command, and for its schema and its built-in configuration, so that no page
can name an option or a key that is not there, or miss one. What no help tells stands in packaging/man/*.in. Writes

  pgchaperone.1  pgchaperone.yaml.5  pgchaperone.bash  pgchaperone.zsh  pgchaperone.fish  pgchaperone.schema.json

A line of help that is not understood is an error: better no page than one that leaves something out.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

# What options take, by the word that their help shows: a file, or words that the program itself tells.
FILES = {"FILE", "LOG"}


class Option:
    """One option: its names, what it takes (empty: nothing), the words that it may be, and what it means."""

    def __init__(self, names, takes, words, summary):
        self.names = names
        self.takes = takes
        self.words = words
        self.summary = summary
        self.repeated = takes.endswith(" ...")


class Command:
    """One command with all below it. `path` is () for the program itself."""

    def __init__(self, path):
        self.path = path
        self.summary = ""
        self.usage = ""
        self.positionals = []  # (name, summary)
        self.groups = []  # (title or "", [Option])
        self.commands = []  # Command
        self.notes = []  # lines at the end

    def name(self):
        return " ".join(("pgchaperone",) + self.path)

    def options(self):
        return [option for _, options in self.groups for option in options]

    def walk(self):
        yield self
        for command in self.commands:
            yield from command.walk()


def ask(program, *arguments):
    done = subprocess.run([program, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          timeout=60, check=False)
    if done.returncode != 0:
        raise SystemExit(f"manual.py: {program} {' '.join(arguments)} ended with status {done.returncode}")
    return done.stdout.decode("utf-8")


def read_option(head, summary):
    match = re.fullmatch(r"(-[-\w]+(?:,\s*-[-\w]+)*)\s*(.*)", head)
    if not match:
        return None
    names = re.split(r",\s*", match[1])
    takes, words = match[2], []
    chosen = re.fullmatch(r"(\S+):\{([^}]*)\}(.*)", takes)
    if chosen:
        takes, words = chosen[1] + chosen[3], chosen[2].split(",")
    return Option(names, takes, words, summary)


def entries(lines):
    """The entries of a section: (head, text), the text joined from the lines that go on with it."""
    out = []
    for line in lines:
        first = re.fullmatch(r" {2}(\S.*?)(?:\s{2,}(\S.*))?", line)
        further = re.fullmatch(r" {10,}(\S.*)", line)
        if further and out:
            out[-1][1] = (out[-1][1] + " " + further[1]).strip()
        elif first:
            out.append([first[1], first[2] or ""])
        else:
            raise SystemExit(f"manual.py: can't read this line of help: {line!r}")
    return out


def read_help(program, path=()):
    command = Command(path)
    text = ask(program, *path, "--help")
    head, _, rest = text.partition("Usage: ")
    command.summary = " ".join(head.split())
    lines = rest.splitlines()
    command.usage = lines.pop(0).strip()
    sections, title = {}, None
    for line in lines:
        heading = re.fullmatch(r"(\S[^:]*):", line)
        if heading:
            title = heading[1].capitalize()
            sections[title] = []
        elif line and not line.startswith(" "):
            title = None
            command.notes.append(line)
        elif line.strip():
            if title is None:
                raise SystemExit(f"manual.py: {command.name()}: a line of no section: {line!r}")
            sections[title].append(line)
    for title, body in sections.items():
        if title == "Positionals":
            for head, summary in entries(body):
                command.positionals.append((re.sub(r"( TEXT| REQUIRED)", "", head), summary))
        elif title == "Subcommands":
            for name, summary in entries(body):
                below = read_help(program, path + (name,))
                below.summary = below.summary or summary
                command.commands.append(below)
        else:
            options = [(head, read_option(head, summary)) for head, summary in entries(body)]
            for head, option in options:
                if option is None:
                    raise SystemExit(f"manual.py: {command.name()}: can't read this option: {head!r}")
            command.groups.append(("" if title == "Options" else title, [option for _, option in options]))
    return command


# --- what the schema knows ---


def resolve(schema, node):
    """A node of the schema with its references followed and one-element allOf taken apart."""
    out = {}
    for part in node.get("allOf", []):
        out.update(resolve(schema, part))
    if "$ref" in node:
        out.update(resolve(schema, schema["$defs"][node["$ref"].rsplit("/", 1)[1]]))
    out.update({key: value for key, value in node.items() if key not in ("allOf", "$ref")})
    return out


def words_of(schema, node):
    node = resolve(schema, node)
    words = list(node.get("enum", []))
    for part in node.get("anyOf", []):
        words += [word for word in words_of(schema, part) if word not in words]
    return [str(word) for word in words]


def settings(schema):
    """(key with dots, node) of everything that is a setting of the process: no policy, no lists."""
    for key, node in schema["properties"].items():
        if key in ("policy", "webhooks", "upstreams"):
            continue
        node = resolve(schema, node)
        if node.get("type") == "object":
            for inner, below in node["properties"].items():
                yield f"{key}.{inner}", resolve(schema, below)
        else:
            yield key, node


def add_words(program_command, schema, presets):
    """Options of `serve` take what the settings of the same words take; a policy is a preset or a file."""
    by_summary = {node.get("description", ""): node for _, node in settings(schema)}
    for command in program_command.walk():
        for option in command.options():
            if option.takes == "FILE|PRESET":
                option.words = presets
            elif command.path == ("serve",):
                node = by_summary.get(re.sub(r" Default: .*\.$", "", option.summary))
                if node is not None:
                    option.words = words_of(schema, node)
                    if not option.words and re.search(r"\bon or off\b", node.get("description", "")):
                        option.words = ["on", "off"]


# --- manual pages ---


def roff(text):
    """Text of a line in roff: nothing in it means anything to the formatter."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha")
    text = text.replace("'", "\\(aq").replace("`", "\\(ga").replace('"', "\\(dq")
    return text if not text.startswith(".") else "\\&" + text


def literal(lines):
    return [".PP", ".RS 4", ".nf", *(roff(line) if line else ".sp 1" for line in lines), ".fi", ".RE"]


def option_lines(option):
    takes = f" \\fI{roff(option.takes)}\\fR" if option.takes else ""
    names = ", ".join(f"\\fB{roff(name)}\\fR" for name in option.names)
    return [".TP", names + takes, roff(option.summary or "No more is to be said.")]


def command_lines(command):
    out = []
    for group, options in command.groups:
        options = [option for option in options if "--help" not in option.names]
        if options and group:
            out += [".PP", f"{roff(group)}:"]
        for option in options:
            out += option_lines(option)
    return out


def page_1(program):
    out = []
    for command in program.walk():
        if not command.path or command.commands:
            continue
        out += [f".SS {' '.join(command.path)}", f"\\fB{roff(command.usage)}\\fR", ".PP",
                roff(command.summary.rstrip(".") + ".")]
        for name, summary in command.positionals:
            out += [".TP", f"\\fI{roff(name)}\\fR", roff(summary)]
        out += command_lines(command)
        notes = [line for line in command.notes if line not in program.notes]
        if notes:
            out += [".PP"]
            for number, line in enumerate(notes):
                out += ([".br"] if number else []) + [roff(line)]
    return out


def kind_of(schema, node):
    words = words_of(schema, node)
    if words:
        return "one of " + ", ".join(words)
    node = resolve(schema, node)
    kinds = node.get("type")
    if not kinds:
        kinds = [resolve(schema, part).get("type", "") for part in node.get("anyOf", [])]
    kinds = kinds if isinstance(kinds, list) else [kinds]
    names = {"string": "text", "boolean": "true or false", "integer": "a whole number", "number": "a number",
             "object": "a mapping", "array": "a list"}
    return " or ".join(dict.fromkeys(names[kind] for kind in kinds if kind in names))


def key_lines(schema, key, node):
    node = resolve(schema, node)
    kind = kind_of(schema, node)
    text = node.get("description", "")
    words = node.get("enum")
    # A description that lists the words itself need not be followed by them.
    if not words or not all(str(word) in text for word in words):
        text = (text + (" " if text else "") + f"({kind})") if kind and kind != "text" or not text else text
    if "default" in node and node["default"] not in ("", None):
        text += f" Default: {node['default']}."
    if "examples" in node:
        text += f" Example: {', '.join(map(str, node['examples']))}."
    return [".TP", f"\\fB{roff(key)}\\fR", roff(text)]


def keys_of(schema, node):
    """The keys of a mapping, of which there may be other forms: of an item, where it is a list."""
    node = resolve(schema, node)
    if node.get("type") == "array":
        return keys_of(schema, node["items"])
    forms = [node] if "properties" in node else [resolve(schema, form) for form in node.get("anyOf", [])]
    return [line for form in forms for key, below in form.get("properties", {}).items()
            for line in key_lines(schema, key, below)]


def upstreams_of(schema):
    """The keys of an entry that are its own, and the names of the settings that it may have besides."""
    keys = resolve(schema, schema["properties"]["upstreams"]["items"])["properties"]
    own = [line for key in ("name", "policy") for line in key_lines(schema, key, keys[key])]
    known = dict(settings(schema))
    shared = [key for name, node in keys.items() for key in ([f"{name}.{below}" for below in node.get("properties", {})] or [name])
              if key in known]
    return [*own, ".PP", "Besides, it may have these settings: " + ", ".join(f"\\fB{roff(key)}\\fR" for key in shared) + "."]


def page_5(schema):
    parts = {"SETTINGS": [line for key, node in settings(schema) for line in key_lines(schema, key, node)]}
    for name in ("rule", "match", "hold"):
        parts[name.upper()] = keys_of(schema, schema["$defs"][name])
    for key in ("policy", "webhooks"):
        parts[key.upper()] = keys_of(schema, schema["properties"][key])
    parts["UPSTREAMS"] = upstreams_of(schema)
    return parts


def fill(template, parts):
    """The template with each line "@NAME@" replaced by lines, and @NAME@ within lines by text."""
    with open(os.path.join(HERE, "man", template), encoding="utf-8") as file:
        lines = file.read().splitlines()
    out = []
    for line in lines:
        whole = re.fullmatch(r"@([A-Z]+)@", line)
        if whole:
            out += parts[whole[1]]
        else:
            out.append(re.sub(r"@([A-Z]+)@", lambda match: parts[match[1]], line))
    return "\n".join(out) + "\n"


# --- completion ---


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def bash(program):
    """For each command the words that may come next, and for each option that takes something, what."""
    words, values, walk = [], [], []
    for command in program.walk():
        key = " ".join(command.path)
        names = [name for option in command.options() for name in option.names]
        below = [inner.path[-1] for inner in command.commands]
        words.append(f"        {quoted(key)}) echo {quoted(' '.join(below + names))} ;;")
        if below:
            pattern = " | ".join(quoted((key + " " + name).strip()) for name in below)
            walk.append(f"            {pattern}) path=$next ;;")
        for option in command.options():
            if not option.takes:
                continue
            what = ("words:" + " ".join(option.words)) if option.words else ""
            if option.takes.split()[0].split("|")[0] in FILES:
                what = "file:" + " ".join(option.words)
            for name in option.names:
                values.append(f"        {quoted((key + ' ' + name).strip())}) echo {quoted(what or 'nothing')} ;;")
    with open(os.path.join(HERE, "completion.bash.in"), encoding="utf-8") as file:
        text = file.read()
    return text.replace("@WORDS@\n", "\n".join(words) + "\n").replace("@VALUES@\n", "\n".join(values) + "\n") \
        .replace("@WALK@\n", "\n".join(walk) + "\n")


def zsh_text(text):
    for mark in "\\[]:'`$\"":
        text = text.replace(mark, "\\" + mark if mark in "\\[]:" else "")
    return text


def zsh_value(option):
    if not option.takes:
        return ""
    name = zsh_text(option.takes.replace(" ...", ""))
    files = option.takes.split()[0].split("|")[0] in FILES
    if files and option.words:
        return f":{name}:_alternative \"words:preset:({' '.join(option.words)})\" \"files:file:_files\""
    if files:
        return f":{name}:_files"
    return f":{name}:({' '.join(option.words)})" if option.words else f":{name}: "


def zsh(program):
    out = ["#compdef pgchaperone", "# Made by packaging/manual.py from the program's own help.", ""]
    for command in program.walk():
        function = "_".join(("_pgchaperone",) + command.path)
        out += [f"{function}() {{"]
        arguments = []
        for option in command.options():
            for name in option.names:
                others = "" if option.repeated else "(" + " ".join(option.names) + ")"
                equals = "=" if name.startswith("--") and option.takes else ""
                arguments.append(quoted(f"{others}{name}{equals}[{zsh_text(option.summary)}]{zsh_value(option)}"))
        if command.commands:
            out += ["    local context state state_descr line", "    typeset -A opt_args",
                    "    _arguments -C \\"]
            out += [f"        {argument} \\" for argument in arguments]
            out += ["        '1: :->command' '*:: :->rest'", "    case $state in", "        command)",
                    "            local -a commands=("]
            out += ["                " + quoted(f"{inner.path[-1]}:{zsh_text(inner.summary)}") for inner in command.commands]
            out += ["            )", "            _describe command commands ;;", "        rest)",
                    "            case $words[1] in"]
            out += [f"                {inner.path[-1]}) {'_'.join((function, inner.path[-1]))} ;;" for inner in command.commands]
            out += ["            esac ;;", "    esac"]
        else:
            out += ["    _arguments \\"] + [f"        {argument} \\" for argument in arguments]
            out += ["        '*:file:_files'" if command.positionals else "        ':: :'"]
        out += ["}", ""]
    out += ['_pgchaperone "$@"', ""]
    return "\n".join(out)


def fish_text(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


FISH = """\
# Made by packaging/manual.py from the program's own help.

# Whether the words before the cursor lead to this command, and to none below it.
function __pgchaperone_at
    set -l path
    for word in (commandline -opc)[2..]
        switch (string join ' ' $path $word)
            case @PATHS@
                set path $path $word
        end
    end
    test "$path" = "$argv"
end

complete -c pgchaperone -f
"""


def fish(program):
    paths = " ".join(quoted(" ".join(command.path)) for command in program.walk() if command.path)
    out = [FISH.replace("@PATHS@", paths)]
    for command in program.walk():
        condition = " ".join(("__pgchaperone_at", *command.path))
        for inner in command.commands:
            out.append(f"complete -c pgchaperone -n {fish_text(condition)} -a {inner.path[-1]} -d {fish_text(inner.summary)}")
        for option in command.options():
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            takes = ""
            if option.takes:
                files = option.takes.split()[0].split("|")[0] in FILES
                takes = " -r" + (" -F" if files else "")
                takes += f" -a {fish_text(' '.join(option.words))}" if option.words else ""
            out.append(f"complete -c pgchaperone -n {fish_text(condition)} {names}{takes} -d {fish_text(option.summary)}")
        if any(name.split()[0].strip('[].').upper().startswith(("FILE", "LOG")) for name, _ in command.positionals):
            out.append(f"complete -c pgchaperone -n {fish_text(condition)} -F")
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description="Makes manual pages, completion and the schema.")
    parser.add_argument("program")
    parser.add_argument("output")
    parser.add_argument("--date", help="the pages' date, YYYY-MM-DD (default: SOURCE_DATE_EPOCH, else today)")
    arguments = parser.parse_args()
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc) if epoch else \
        datetime.datetime.now(datetime.timezone.utc)
    date = arguments.date or now.strftime("%Y-%m-%d")

    program = read_help(arguments.program)
    schema_text = ask(arguments.program, "config", "schema")
    schema = json.loads(schema_text)
    policy = resolve(schema, schema["properties"]["policy"])
    presets = words_of(schema, policy["properties"]["preset"])
    add_words(program, schema, presets)
    common = {"DATE": date, "VERSION": ask(arguments.program, "--version").split()[1],
              "BUILTIN": literal(ask(arguments.program, "config", "default").splitlines())}
    pages = {
        "pgchaperone.1": fill("pgchaperone.1.in", {**common, "COMMANDS": page_1(program)}),
        "pgchaperone.yaml.5": fill("pgchaperone.yaml.5.in", {**common, **page_5(schema)}),
        "pgchaperone.bash": bash(program),
        "pgchaperone.zsh": zsh(program),
        "pgchaperone.fish": fish(program),
        "pgchaperone.schema.json": schema_text,
    }
    os.makedirs(arguments.output, exist_ok=True)
    for name, text in pages.items():
        with open(os.path.join(arguments.output, name), "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    sys.exit(main())
