"""The manual pages, the completion for shells and the JSON Schema, as packaging/manual.py makes them of the program: that
they say all that the program says, and that what reads them understands them."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from support.e2e import main
from support.guard import binary

MANUAL = ROOT / "packaging" / "manual.py"


def output(*command, **options):
    return subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=60, **options)


def needs(program):
    return unittest.skipUnless(shutil.which(program), f"{program} is not installed")


class Manual(unittest.TestCase):
    maxDiff = 4000

    @classmethod
    def setUpClass(cls):
        workspace = tempfile.TemporaryDirectory(prefix="pgchaperone-test-manual-")
        cls.addClassCleanup(workspace.cleanup)
        cls.folder = Path(workspace.name)
        done = output(sys.executable, "-B", MANUAL, binary(), cls.folder, "--date", "2026-01-02")
        assert done.returncode == 0, done.stdout
        cls.helps = {}
        cls.read_helps(())
        cls.schema = json.loads(output(binary(), "config", "schema").stdout)

    @classmethod
    def read_helps(cls, path):
        """Another reading of the same help than the one that is tested: words by patterns, no structure."""
        text = output(binary(), *path, "--help").stdout
        cls.helps[path] = text
        below = re.search(r"^subcommands:\n((?: .*\n)+)", text, re.M | re.I)
        for name in re.findall(r"^ {2}(\w+)", below[1], re.M) if below else []:
            cls.read_helps(path + (name,))

    def options(self, path):
        """The long options of a command, from the beginnings of its help's lines."""
        return sorted(set(re.findall(r"(?<![\w-])(--[a-z][\w-]*)",
                                     "\n".join(re.findall(r"^ {2}(-.*?)(?: {2}|$)", self.helps[path], re.M)))))

    def commands(self, path):
        return [known[-1] for known in self.helps if known[:-1] == path and known]

    def text_of(self, page):
        """A page as people read it, in lines that are not broken."""
        done = output("mandoc", "-T", "utf8", "-O", "indent=7,width=1000", self.folder / page)
        return re.sub(r".\x08", "", done.stdout)

    def test_there_are_commands_to_speak_of(self):
        self.assertIn(("serve",), self.helps)
        self.assertIn(("config", "check"), self.helps)
        self.assertIn("--upstream", self.options(("serve",)))

    # --- the pages ---

    @needs("mandoc")
    def test_mandoc_finds_no_fault_in_the_pages(self):
        done = output("mandoc", "-T", "lint", "-W", "warning", self.folder / "pgchaperone.1",
                      self.folder / "pgchaperone.yaml.5")
        self.assertEqual("", done.stdout)

    @needs("man")
    def test_man_finds_no_fault_in_the_pages(self):
        for page in ("pgchaperone.1", "pgchaperone.yaml.5"):
            done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(self.folder / page)],
                                  capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80"})
            self.assertEqual("", done.stderr)
            self.assertEqual(0, done.returncode)

    @needs("mandoc")
    def test_the_first_page_tells_every_command_and_option_with_its_meaning(self):
        page = self.text_of("pgchaperone.1")
        for path, text in self.helps.items():
            if not path or self.commands(path):
                continue
            at = re.search(rf"^ +{' '.join(path)}$(.*?)(?=^ {{1,3}}\w|\Z)", page, re.M | re.S)
            self.assertTrue(at, f"no section about {path}")
            for option in self.options(path):
                if option != "--help":
                    self.assertRegex(at[1], rf"(?m)(^|\s){option}\b", path)
            for meaning in re.findall(r"^ {2}-\S.*? {2,}(\S.*)$", text, re.M):
                if not meaning.startswith("Print this help"):
                    self.assertIn(meaning, at[1].replace("‐", "-"), path)

    def test_whatever_tells_of_a_reload_names_all_that_it_takes(self):
        source = (ROOT / "config" / "settings.cpp").read_text()
        (rule,) = re.findall(r"bool changes_on_reload\(.*?\n}", source, re.S)
        keys = [key.rstrip(".") for key in re.findall(r'"(\w+\.?)"', rule)]
        self.assertGreater(len(keys), 4)
        text = (ROOT / "packaging" / "man" / "pgchaperone.1.in").read_text()
        told = [text.partition(".B SIGHUP")[2].partition(".TP")[0],
                (ROOT / "packaging" / "pgchaperone.yaml").read_text().partition("\nlisten:")[0],
                (ROOT / "docs" / "operations.md").read_text().partition("**SIGHUP, or")[2].partition("```")[0]]
        for words in told:
            words = words.replace("idle time-outs", "idle_timeout idle_in_transaction_timeout")
            for key in [*keys, "policy", "webhooks", "users", "ertificates"]:
                self.assertIn(key, words)

    @needs("mandoc")
    def test_the_second_page_tells_every_key_of_the_configuration(self):
        page = self.text_of("pgchaperone.yaml.5")
        sections = dict(re.findall(r"^ {0,3}(\S.*?)$\n(.*?)(?=^ {0,3}\S|\Z)", page, re.M | re.S))

        def keys(section):
            # The text of a short key stands on its line.
            terms = re.findall(r"^ {7}([\w.]+(?:, [\w.]+)*)", sections[section], re.M)
            return {key for term in terms for key in term.split(", ")}

        settings = []
        for key, node in self.schema["properties"].items():
            inner = node.get("properties")
            if key not in ("policy", "webhooks", "upstreams"):
                settings += [f"{key}.{below}" for below in inner] if inner else [key]
        self.assertGreater(len(settings), 30)
        self.assertLessEqual(set(settings), keys("SETTINGS"))
        words = " ".join(sections["SETTINGS"].replace("‐", "-").split())
        nodes = [below for key, node in self.schema["properties"].items() if key not in ("policy", "webhooks", "upstreams")
                 for below in node.get("properties", {key: node}).values()]
        examples = [node["examples"][0] for node in nodes if "examples" in node]
        self.assertGreater(len(examples), 45)
        for example in examples:
            self.assertIn(f"Example: {example}.", words)
        self.assertLessEqual(set(self.schema["$defs"]["policy"]["properties"]), keys("POLICY"))
        self.assertLessEqual(set(self.schema["$defs"]["match"]["properties"]), keys("Conditions"))
        self.assertLessEqual(set(self.schema["$defs"]["hold"]["properties"]), keys("Held statements"))
        # `hold` within `supervise` is told there in words.
        self.assertLessEqual(set(self.schema["$defs"]["supervise"]["properties"]) - {"hold"}, keys("Supervised statements"))
        rule = {key for form in self.schema["$defs"]["rule"]["anyOf"] for key in form["properties"]}
        self.assertLessEqual(rule, keys("Rules"))
        self.assertLessEqual(set(self.schema["properties"]["webhooks"]["items"]["properties"]), keys("WEBHOOKS"))
        self.assertLessEqual({"name", "policy"}, keys("UPSTREAMS"))
        # The built-in configuration can be taken from it as it stands.
        built_in = output(binary(), "config", "default").stdout
        for line in built_in.splitlines():
            self.assertIn(line.strip(), page.replace("‐", "-"))

    def test_the_schema_is_the_programs(self):
        self.assertEqual(self.schema, json.loads((self.folder / "pgchaperone.schema.json").read_text()))

    def test_a_help_that_it_does_not_understand_is_an_error(self):
        program = self.folder / "strange"
        program.write_text("#!/bin/sh\nprintf 'Does things\\nUsage: strange\\n\\nOptions:\\n *?*\\n'\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        done = output(sys.executable, "-B", MANUAL, program, self.folder / "nothing")
        self.assertNotEqual(0, done.returncode)
        self.assertIn("can't read this line of help", done.stdout)
        self.assertFalse((self.folder / "nothing").exists())

    # --- completion ---

    def complete_all(self, lines):
        """What bash offers for the last word of each line, in a folder of two files."""
        place = self.folder / "place"
        place.mkdir(exist_ok=True)
        (place / "one.yaml").touch()
        (place / "two words.sql").touch()
        script = ["source " + str(self.folder / "pgchaperone.bash"),
                  'complete -p pgchaperone >/dev/null || exit 3']
        for words in lines:
            quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
            script += [f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; COMPREPLY=(); _pgchaperone",
                       "printf '%s\\n' \"${COMPREPLY[@]}\"; echo ===="]
        done = output("bash", "--norc", "-c", "\n".join(script), cwd=place)
        self.assertEqual(0, done.returncode, done.stdout)
        return [sorted(line for line in part.splitlines() if line) for part in done.stdout.split("====\n")[:-1]]

    def test_bash_offers_every_command_and_option(self):
        lines, expected = [], []
        for path in self.helps:
            commands = self.commands(path)
            if commands:
                lines.append(("pgchaperone", *path, ""))
                expected.append(sorted(commands))
            lines.append(("pgchaperone", *path, "--"))
            expected.append(self.options(path))
        for words, offered, wanted in zip(lines, self.complete_all(lines), expected):
            self.assertEqual(wanted, offered, words)

    def test_bash_offers_what_an_option_takes(self):
        files = ["one.yaml", "two words.sql"]
        presets = self.schema["$defs"]["policy"]["properties"]["preset"]["enum"]
        modes = self.schema["properties"]["client_tls"]["properties"]["mode"]["enum"]
        cases = {
            ("serve", "--client-tls", ""): modes,
            ("serve", "--client-tls", "=", ""): modes,
            ("serve", "--client-tls", "=", "verify-f"): ["verify-full"],
            ("serve", "--client-tls", "="): modes,
            ("serve", "--audit-on-failure", ""): ["allow", "refuse"],
            ("serve", "--audit-stdout", ""): ["off", "on"],
            ("serve", "-c", ""): files,
            ("serve", "--policy", ""): presets + files,
            ("serve", "--policy", "appl"): ["application"],
            ("serve", "--listen", ""): [],
            ("serve", "--listen", "127.0.0.1:1", "--log-level", "w"): ["warn"],
            ("config", "check", ""): files,
            ("check", "--format", "sa"): ["sarif"],
            ("check", "tw"): ["two words.sql"],
            ("ser",): ["serve"],
            ("audit", "verify", "--expe"): ["--expect"],
            ("nonsense", "--clie"): [],
        }
        offered = self.complete_all([("pgchaperone", *words) for words in cases])
        for (words, wanted), got in zip(cases.items(), offered):
            self.assertEqual(sorted(wanted), got, words)

    @needs("zsh")
    def test_zsh_reads_its_completion(self):
        done = output("zsh", "-n", self.folder / "pgchaperone.zsh")
        self.assertEqual((0, ""), (done.returncode, done.stdout))

    @needs("fish")
    def test_fish_offers_every_command_and_option(self):
        script = f"source {self.folder}/pgchaperone.fish\n"
        for path in self.helps:
            script += f"complete -C '{' '.join(('pgchaperone', *path))} --'; echo ====\n"
        done = output("fish", "--no-config", "-c", script)
        for path, part in zip(self.helps, done.stdout.split("====\n")):
            offered = sorted({line.split("\t")[0] for line in part.splitlines() if line.startswith("--")})
            self.assertEqual(self.options(path), offered, path)


if __name__ == "__main__":
    main()
