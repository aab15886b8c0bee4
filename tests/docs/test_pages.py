"""The pages against what they speak of:

- every relative link and anchor leads somewhere;
- every ```yaml block is a whole configuration that `pgchaperone config check` has nothing against, and every key is in one;
- every command line of pgchaperone's uses a command and options that there are;
- docs/troubleshooting.md quotes nothing that the program does not say, and leaves out nothing that clients are told
  or whoever runs it, at the start and in the log.

    PGCHAPERONE_BIN=build/test/pgchaperone /usr/bin/python3 -B tests/docs/test_pages.py
"""

import concurrent.futures
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import sources  # noqa: E402

ROOT = sources.ROOT
GAP = sources.GAP
PROGRAM = os.path.abspath(os.environ.get("PGCHAPERONE_BIN", ROOT / "build" / "test" / "pgchaperone"))
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
# What begins with these in a block is the program, wherever it stands.
NAMES = ("pgchaperone", "build/release/pgchaperone", "NEW/pgchaperone")
# Codes that are compared with what a server says, and told to nobody.
ONLY_COMPARED = {"25001", "25006", "10000"}

# Of calls that no caller makes.
NEVER_TOLD = {"TLS is disabled: there is nothing to load"}


def pages() -> list:
    files = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=ROOT,
                           capture_output=True, text=True).stdout.splitlines()
    if not files:  # an unpacked archive
        files = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*.md") if p.relative_to(ROOT).parts[0] != "build"]
    return [ROOT / name for name in sorted(files) if (ROOT / name).exists()]


class Page:
    """A page cut into fenced blocks (with what stands behind the opening fence) and the text around them."""

    def __init__(self, path: Path):
        self.path = path
        self.blocks = []  # (what it is of, its number of line, its text)
        prose, block, fence = [], [], None
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found = re.match(r"\s*(```+|~~~+)\s*(.*)$", line)
            if fence is None and found:
                fence, kind, start, block = found.group(1), found.group(2).strip(), number, []
                prose.append("")
            elif fence is not None and found and found.group(1).startswith(fence) and not found.group(2):
                self.blocks.append((kind, start, "\n".join(block) + "\n"))
                fence = None
                prose.append("")
            elif fence is not None:
                block.append(line)
                prose.append("")
            else:
                prose.append(line)
        assert fence is None, f"{path}: a block without an end"
        self.lines = prose

    def where(self, number: int) -> str:
        return f"{self.path.relative_to(ROOT)}:{number}"

    def anchors(self) -> set:
        """As GitHub names them."""
        found, seen = set(), {}
        for line in self.lines:
            heading = re.match(r"#{1,6} (.*?)\s*#*$", line)
            if heading:
                text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading.group(1)).lower()
                slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
                count = seen[slug] = seen.get(slug, -1) + 1
                found.add(f"{slug}-{count}" if count else slug)
            found.update(re.findall(r'<a (?:id|name)="([^"]+)"', line))
        return found


PAGES = {path: Page(path) for path in pages()}


class Links(unittest.TestCase):
    def test_each_leads_somewhere(self):
        wrong, count = [], 0
        for page in PAGES.values():
            for number, line in enumerate(page.lines, 1):
                line = re.sub(r"`[^`]*`", "", line)
                for target in re.findall(r"\]\(([^)\s]+)\)", line) + re.findall(r'(?:src|href)="([^"]+)"', line):
                    if re.match(r"[a-z]+:", target):
                        continue
                    count += 1
                    name, _, anchor = target.partition("#")
                    file = (page.path.parent / name).resolve() if name else page.path
                    if not file.exists():
                        wrong.append(f"{page.where(number)}: there is no {target}")
                    elif anchor and file in PAGES and anchor not in PAGES[file].anchors():
                        wrong.append(f"{page.where(number)}: {name or 'this page'} has no heading #{anchor}")
        self.assertEqual([], wrong, "\n" + "\n".join(wrong))
        self.assertGreater(count, 50)

    def test_each_page_is_in_the_index(self):
        index = PAGES[ROOT / "docs" / "README.md"].path.read_text()
        for page in PAGES:
            if page.parent == ROOT / "docs" and page.name != "README.md":
                self.assertIn(f"]({page.name})", index, f"docs/README.md does not list {page.name}")

    def test_the_readme_is_one_screen(self):
        """Two commands, one example and links; all else is a page of its own."""
        page = PAGES[ROOT / "README.md"]
        self.assertLessEqual(len(page.path.read_text().splitlines()), 48)
        self.assertEqual(["sh", ""], [kind for kind, _, _ in page.blocks])


class Configurations(unittest.TestCase):
    def test_each_passes_config_check(self):
        blocks = [(page.where(number), text) for page in PAGES.values() for kind, number, text in page.blocks
                  if kind == "yaml"]
        self.assertGreater(len(blocks), 30)
        with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor() as workers:
            secret = Path(folder) / "pager.secret"  # of the page on webhooks
            secret.write_text("a secret of the documentation\n")
            secret.chmod(0o600)

            def problems(number_and_block):
                number, (where, text) = number_and_block
                file = Path(folder) / f"{number}.yaml"
                file.write_text(text)
                checked = subprocess.run([PROGRAM, "config", "check", "--strict", "--no-files", file], capture_output=True, text=True)
                return f"{where}:\n{checked.stdout}{checked.stderr}" if checked.returncode else ""

            wrong = [one for one in workers.map(problems, enumerate(blocks)) if one]
        self.assertEqual([], wrong, "\n" + "\n".join(wrong))

    def test_each_key_is_in_one(self):
        """Of what is no setting, and so has no example in the reference's table. What a policy matches by has a table, too."""
        schema = json.loads(subprocess.run([PROGRAM, "config", "schema"], capture_output=True, text=True, check=True).stdout)
        kinds = {name: set(schema["$defs"][name]["properties"]) for name in ("policy", "hold", "supervise")}
        kinds["rule"] = {key for form in schema["$defs"]["rule"]["anyOf"] for key in form["properties"]}
        kinds["rule"].remove("include")  # it would be of a file that the page does not have
        kinds["webhooks"] = set(schema["properties"]["webhooks"]["items"]["properties"])
        shown = "\n".join(text for page in PAGES.values() for kind, _, text in page.blocks if kind == "yaml")
        wrong = [f"{kind}: {key}" for kind, keys in kinds.items() for key in sorted(keys)
                 if not re.search(rf"(?:^|[\s{{,-]){key}:", shown, re.MULTILINE)]
        self.assertEqual([], wrong, "no configuration of the pages shows these")
        self.assertGreater(sum(map(len, kinds.values())), 40)


class Commands(unittest.TestCase):
    """Of a command line it is checked that there are such commands and options. Nothing is run but --help."""

    @classmethod
    def setUpClass(cls):
        cls.options = {}  # ("audit", "verify") -> {"--expect", ...}
        cls.under = {}  # ("audit",) -> {"verify", ...}
        cls._ask(())

    @classmethod
    def _ask(cls, words: tuple) -> None:
        text = subprocess.run([PROGRAM, *words, "--help"], capture_output=True, text=True, check=True).stdout
        head, _, below = text.partition("\nSubcommands:\n")
        cls.options[words] = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", head))
        listed = below.split("\n\n")[0] if below else ""
        cls.under[words] = set(re.findall(r"^  ([a-z-]+)", listed, re.MULTILINE))
        for word in cls.under[words]:
            cls._ask(words + (word,))

    def problem(self, line: str) -> str:
        try:
            words = shlex.split(line, comments=True)[1:]
        except ValueError as error:
            return str(error)
        for end in ("|", "||", "&&", ";", ">", "2>", "<", "&"):
            words = words[:words.index(end)] if end in words else words
        command = ()
        for word in words:
            word = word.strip("[]").rstrip(",.;:").partition("=")[0]
            if word.startswith("-") and len(word) > 1:
                if word not in self.options[command] | self.options[()] and not word[1:].isdigit():
                    return f"{' '.join(('pgchaperone',) + command)} has no option {word}"
            elif self.under[command]:
                if not re.fullmatch(r"[a-z-]+", word):
                    return ""  # COMMAND, or an ellipsis
                if word not in self.under[command]:
                    return f"{' '.join(('pgchaperone',) + command)} has no command {word}"
                command += (word,)
        return ""

    def lines(self):
        for page in PAGES.values():
            for kind, number, text in page.blocks:
                if kind not in ("", "sh", "bash", "console"):
                    continue
                joined = re.sub(r"\\\n\s*", " ", text)
                for line in joined.splitlines():
                    # What stands in a second column, behind a prompt, counts too; a timer's or a pipe's, too.
                    for part in re.split(r"(?:^|\s)\$ |\s\|\s|&&", line):
                        part = re.sub(r"^(?:sudo |nice -n \d+ |[A-Z_]+=\S+ )*", "", part.strip())
                        if part.split(" ")[0] in NAMES:
                            yield page.where(number), part
            for number, line in enumerate(page.lines, 1):
                for span in re.findall(r"`((?:build/release/)?pgchaperone [a-z-][^`]*)`", line):
                    if span != "pgchaperone web":  # that is what the page's sessions call themselves
                        yield page.where(number), span

    def test_there_are_such_commands_and_options(self):
        found = list(self.lines())
        self.assertGreater(len(found), 60)
        wrong = [f"{where}: {line}: {problem}" for where, line in found if (problem := self.problem(line))]
        self.assertEqual([], wrong, "\n" + "\n".join(wrong))

    def test_what_there_is_not_is_noticed(self):
        self.assertIn("no option", self.problem("pgchaperone audit verify --nonsense x.jsonl"))
        self.assertIn("no command", self.problem("pgchaperone audit verfy x.jsonl"))
        self.assertEqual("", self.problem("pgchaperone audit verify --expect 1:ab audit.jsonl | logger"))


def fragments(message: str) -> list:
    """What of a message is written down, between what is not."""
    pieces = [re.sub(r"^[\W_]+|[\W_]+$", "", piece) for piece in message.split(GAP)]
    return [piece for piece in pieces if len(piece) > 3]


def covers(quoted: str, message: str) -> bool:
    """Whether what is quoted on the page is this message, or one that it may become."""
    if quoted == message:
        return True
    if sum(map(len, fragments(quoted.removeprefix("pgchaperone:")))) < 6:
        return False  # it would be any message
    pattern = ".*".join(re.escape(piece) for piece in quoted.split(GAP))
    return re.fullmatch(pattern + r"\W*", message, re.DOTALL) is not None or quoted.startswith(message + " ")


def names(quoted: str, message: str) -> bool:
    """Whether what is quoted has the words by which this message is known among others: its longest piece, or most of it."""
    own = max(fragments(message), key=len)
    return any(own in piece or (piece in own and len(piece) * 2 >= len(own)) for piece in fragments(quoted))


class Troubleshooting(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.page = PAGES[TROUBLESHOOTING]
        cls.quoted = []  # (line, what is quoted) in the first column of tables of the program's own messages
        cls.codes = set()
        section = ""
        for number, line in enumerate(cls.page.lines, 1):
            section = line[3:] if line.startswith("## ") else section
            cells = line.split("|")
            if not line.startswith("| ") or len(cells) < 3:
                continue
            spans = [a or b for a, b in re.findall(r"``\s?(.+?)\s?``|`([^`]+)`", cells[1])]
            if section == "By SQLSTATE":
                cls.codes.update(re.findall(r"\b[0-9A-Z]{5}\b", cells[1]))
            elif section != "What drivers and the server say":
                cls.quoted += [(number, span) for span in spans]

    def test_what_is_quoted_is_said(self):
        literals = sources.literals() + list(sources.messages())
        self.assertGreater(len(self.quoted), 180)
        wrong = []
        for number, quoted in self.quoted:
            pieces = fragments(quoted)
            if not pieces:
                wrong.append(f"{self.page.where(number)}: {quoted}: says nothing")
            for piece in pieces:
                if not any(piece in literal for literal in literals):
                    wrong.append(f"{self.page.where(number)}: {quoted}: nothing in the sources says \"{piece}\"")
        self.assertEqual([], wrong, "\n" + "\n".join(wrong))

    def test_what_clients_are_told_is_there(self):
        told = {message: file for message, file in sources.messages().items()
                if fragments(message.removeprefix("pgchaperone:")) and file != "proxy/main.cpp"}
        self.assertGreater(len(told), 50)
        self.assertIn("pgchaperone: no header of PROXY protocol came", told)
        quoted = [text for _, text in self.quoted]
        wrong = [f"{file}: {message}" for message, file in told.items()
                 if not any(covers(one, message) for one in quoted)]
        self.assertEqual([], wrong, "docs/troubleshooting.md does not have:\n" + "\n".join(wrong))

    def test_what_operators_are_told_is_there(self):
        """At the start and in the log. What has no words of its own passes on what others say."""
        told = {message: file for message, file in sources.notes().items()
                if sum(map(len, fragments(message))) >= 12 and message not in NEVER_TOLD}
        self.assertGreater(len(told), 100)
        self.assertEqual(set(), NEVER_TOLD - set(sources.notes()))
        quoted = [text for _, text in self.quoted]
        wrong = [f"{file}: {message}" for message, file in told.items()
                 if not any(names(one, message) for one in quoted)]
        self.assertEqual([], wrong, "docs/troubleshooting.md does not have:\n" + "\n".join(wrong))

    def test_what_pages_show_of_errors_is_said(self):
        """On all pages: what stands behind ERROR, NOTICE and the like, lines broken as they may be."""
        said = [".*?".join(re.escape(piece) for piece in message.split(GAP)) for message in sources.messages()
                if fragments(message.removeprefix("pgchaperone:")) or message.startswith("pgchaperone: " + GAP + " (")]
        said += [r"pgchaperone: (?:" + pattern + ")" for pattern in said if not pattern.startswith("pgchaperone:")]
        unreachable = "could not connect to the server at "  # its beginning is put before it elsewhere
        self.assertTrue(any(unreachable in literal for literal in sources.literals()))
        said.append("pgchaperone: " + unreachable)
        wrong, count = [], 0
        for page in PAGES.values():
            for _, number, text in page.blocks:
                for found in re.finditer(r"(?:ERROR|FATAL|NOTICE|WARNING):\s+(?=pgchaperone: )", text):
                    count += 1
                    shown = re.sub(r"\s+", " ", text[found.end():])[:250]
                    if not any(re.match(pattern.replace(r"\ ", " "), shown) for pattern in said):
                        wrong.append(f"{page.where(number)}: {shown[:120]}")
        self.assertEqual([], wrong, "\n" + "\n".join(wrong))
        self.assertGreater(count, 10)

    def test_each_sqlstate_is_there(self):
        told = set(sources.sqlstates()) - ONLY_COMPARED
        self.assertGreater(len(told), 15)
        self.assertEqual(set(), told - self.codes, "the guard gives these, and the page does not have them")
        self.assertEqual(set(), self.codes - told, "the page has these, and nothing in the sources gives them")

    def test_what_is_not_said_is_noticed(self):
        self.assertTrue(covers("pgchaperone: … was denied", "pgchaperone: … was denied"))
        self.assertFalse(covers("pgchaperone: …", "pgchaperone: … was denied"))
        self.assertFalse(covers("pgchaperone: the server did not", "pgchaperone: the server did not answer"))
        self.assertTrue(names("cannot open …: it is no file", "it is no file"))
        self.assertFalse(names("cannot open …: …", "cannot open …: it goes on from …, whose end is not there"))
        self.assertEqual(["the log of", "is full"], fragments("the log of … is full"))


if __name__ == "__main__":
    unittest.main()
