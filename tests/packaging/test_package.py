"""The Debian package: tools/package makes it of this build, it is unpacked into a folder, and what is in it is looked at
and run from there. The maintainer scripts run in a folder of their own, before programs that only write down how they
were called."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from support.e2e import Cluster, Guard, Target, main

BUILD = Path(os.environ.get("PGCHAPERONE_BUILD", ROOT / "build" / "test"))
NOBODY = 65534
SCRIPTS = ROOT / "packaging" / "debian"
# What it must hold, and how that may be used.
CONTENTS = {
    "usr/bin/pgchaperone": "-rwxr-xr-x",
    "usr/lib/systemd/system/pgchaperone.service": "-rw-r--r--",
    "usr/lib/systemd/system/pgchaperone.socket": "-rw-r--r--",
    "usr/lib/sysusers.d/pgchaperone.conf": "-rw-r--r--",
    "etc/pgchaperone/pgchaperone.yaml": "-rw-r--r--",
    "usr/share/man/man1/pgchaperone.1.gz": "-rw-r--r--",
    "usr/share/man/man5/pgchaperone.yaml.5.gz": "-rw-r--r--",
    "usr/share/bash-completion/completions/pgchaperone": "-rw-r--r--",
    "usr/share/zsh/vendor-completions/_pgchaperone": "-rw-r--r--",
    "usr/share/fish/vendor_completions.d/pgchaperone.fish": "-rw-r--r--",
    "usr/share/pgchaperone/pgchaperone.schema.json": "-rw-r--r--",
    "usr/share/doc/pgchaperone/copyright": "-rw-r--r--",
    "usr/share/doc/pgchaperone/changelog.gz": "-rw-r--r--",
    "usr/share/doc/pgchaperone/changelog.Debian.gz": "-rw-r--r--",
    "usr/share/doc/pgchaperone/pgchaperone.cdx.json": "-rw-r--r--",
    "usr/share/doc/pgchaperone/docs/configuration.md": "-rw-r--r--",
}


def run(*command, check=True, **options):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=240, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))} ended with status {done.returncode}:\n{done.stdout}")
    return done.stdout


def needs(program):
    return unittest.skipUnless(shutil.which(program), f"{program} is not installed")


def without_ansi(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


class UnprivilegedGuard(Guard):
    """A guard as the service runs it: where the test is root's, as nobody, with no capability and no way to one."""

    def command(self):
        command = super().command()
        if os.geteuid() != 0:
            return command
        os.chown(self.directory, NOBODY, NOBODY)
        return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs",
                "--bounding-set=-all", "--inh-caps=-all", *command]


class Package(unittest.TestCase):
    maxDiff = 4000

    @classmethod
    def setUpClass(cls):
        cls.workspace = tempfile.TemporaryDirectory(prefix="pgchaperone-test-package-")
        cls.addClassCleanup(cls.workspace.cleanup)
        work = Path(cls.workspace.name)
        work.chmod(0o755)
        cls.made = work / "made"
        run(ROOT / "tools" / "package", "--build-dir", BUILD, "--output", cls.made, "--quick")
        cls.deb = next(cls.made.glob("*.deb"))
        cls.tree = work / "tree"
        run("dpkg-deb", "-x", cls.deb, cls.tree)
        cls.control = work / "control"
        run("dpkg-deb", "-e", cls.deb, cls.control)
        cls.program = cls.tree / "usr" / "bin" / "pgchaperone"
        cls.configuration = cls.tree / "etc" / "pgchaperone" / "pgchaperone.yaml"
        cls.unit = cls.tree / "usr" / "lib" / "systemd" / "system" / "pgchaperone.service"

    def unit_values(self, key):
        return re.findall(rf"^{key}=(.*)$", self.unit.read_text(), re.M)

    def test_what_is_in_it_stands_in_its_place_and_belongs_to_root(self):
        listed = {}
        for line in run("dpkg-deb", "-c", self.deb).splitlines():
            mode, owner, _, _, _, path = line.split(None, 5)
            self.assertEqual("root/root", owner, path)
            self.assertNotIn("w", mode[5:], f"{path} may be written by others")
            if mode.startswith("d"):
                self.assertEqual("drwxr-xr-x", mode, path)
            listed[path.removeprefix("./").rstrip("/")] = mode
        for path, mode in CONTENTS.items():
            self.assertEqual(mode, listed.get(path), path)
        stray = [path for path in listed if not re.match(r"^(usr(/|$)|etc(/pgchaperone.*)?$|\.?$)", path)]
        self.assertEqual([], stray)

    def test_its_control_file_says_what_it_needs(self):
        fields = {key: run("dpkg-deb", "-f", self.deb, key).strip()
                  for key in ("Package", "Depends", "Architecture", "Version", "Section", "Description")}
        self.assertEqual("pgchaperone", fields["Package"])
        version = run(self.program, "--version").split()[1]
        self.assertTrue(fields["Version"].startswith(version + "-1"), fields["Version"])
        depends = re.findall(r"(?:^|, )([^ ,|]+)", fields["Depends"])
        for library in ("libpq5", "libsqlite3-0", "libc6", "tzdata"):
            self.assertIn(library, depends)
        self.assertTrue(any(name.startswith("libssl3") for name in depends), depends)
        self.assertIn("systemd-standalone-sysusers", fields["Depends"])
        # Each library that it names itself is there by one of them.
        needed = re.findall(r"\(NEEDED\).*\[(\S+?)\.so", run("readelf", "-d", self.program))
        self.assertGreater(len(needed), 8)
        self.assertGreaterEqual(len(depends), len(set(needed)) - 3)

    def test_the_program_in_it_is_stripped_and_hardened(self):
        self.assertNotIn(".symtab", run("readelf", "-SW", self.program))
        self.assertIn("DYN", run("readelf", "-hW", self.program))
        self.assertRegex(run("readelf", "-dW", self.program), r"BIND_NOW|FLAGS.*NOW")
        self.assertIn("GNU_RELRO", run("readelf", "-lW", self.program))
        self.assertIn("__stack_chk_fail", run("readelf", "--dyn-syms", "-W", self.program))

    def test_the_parser_in_it_is_hardened_too(self):
        archives = list((ROOT / "build" / "deps").glob("libpg_query-*/lib/libpg_query.a"))
        if not archives:
            self.skipTest("libpg_query is the distribution's own here")
        for archive in archives:
            symbols = run("nm", "--undefined-only", archive)
            self.assertIn("__stack_chk_fail", symbols)
            self.assertRegex(symbols, r"__\w+_chk\b")

    def test_configuration_files_are_known_to_dpkg(self):
        conffiles = (self.control / "conffiles").read_text().split()
        in_etc = ["/" + str(path.relative_to(self.tree)) for path in (self.tree / "etc").rglob("*") if path.is_file()]
        self.assertEqual(sorted(in_etc), sorted(conffiles))

    def test_the_default_configuration_has_no_fault_and_its_commented_parts_neither(self):
        # The folders that it names are made by systemd.
        self.assertIn("good", run(self.program, "config", "check", "--strict", "--no-files", self.configuration))
        # What is commented out is meant to be used: keys that are there, with values that can be.
        text = self.configuration.read_text()
        switched_on = re.sub(r"^# (\w+:( \S+)?$|  )", r"\1", text, flags=re.M)
        tried = self.made / "switched_on.yaml"
        tried.write_text(switched_on)
        self.assertIn("good", run(self.program, "config", "check", "--strict", "--no-files", tried))
        shown = run(self.program, "config", "show", "-c", tried)
        for line in ("mode: require", "mode: verify-full", "environment: PRODUCTION", "idle_timeout: 8h", "connections: 90",
                     "reserved: 5", "listen: 127.0.0.1:9187"):
            self.assertIn(line, shown)

    def test_it_guards_a_server_with_its_default_configuration_and_no_privileges(self):
        cluster = Cluster()
        self.addCleanup(cluster.erase)
        before = os.environ["PGCHAPERONE_BIN"]
        os.environ["PGCHAPERONE_BIN"] = str(self.program)
        self.addCleanup(os.environ.__setitem__, "PGCHAPERONE_BIN", before)
        guard = UnprivilegedGuard(cluster, "-c", self.configuration, start=False, configuration="")
        self.addCleanup(guard.erase)
        guard.options += ["--approval-store", str(guard.directory / "tickets.db")]
        # Type=notify: systemd waits until it is told.
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        manager.bind(str(guard.directory / "notify"))
        (guard.directory / "notify").chmod(0o777)
        manager.settimeout(20)
        os.environ["NOTIFY_SOCKET"] = str(guard.directory / "notify")
        self.addCleanup(os.environ.pop, "NOTIFY_SOCKET")
        guard.start()
        self.assertIn(b"READY=1", manager.recv(4096).split(b"\n"))
        if os.geteuid() == 0:
            status = Path(f"/proc/{guard.pid}/status").read_text()
            self.assertEqual(["0" * 16] * 3, re.findall(r"^Cap(?:Prm|Eff|Bnd):\s+(\w+)$", status, re.M))
        self.assertEqual(str(self.program), os.readlink(f"/proc/{guard.pid}/exe"))
        guarded = Target("guarded", guard.host, guard.port)
        done = guarded.psql("SELECT count(*) FROM items;\nDELETE FROM items;\nSELECT count(*) FROM items;", "-At")
        self.assertEqual(["20", "20"], done.stdout.split())
        self.assertIn("pgchaperone: blocked by rule", done.stderr)
        self.assertEqual(["block"], [record.get("decision") for record in guard.audit_records() if "decision" in record])

    @needs("systemd-analyze")
    def test_systemd_finds_no_fault_in_the_unit(self):
        unit = self.made / "pgchaperone.service"
        unit.write_text(self.unit.read_text().replace("/usr/bin/pgchaperone", str(self.program)))
        listening = self.made / "pgchaperone.socket"
        listening.write_text(self.unit.with_suffix(".socket").read_text())
        # Where the configuration listens, for who enables it and changes nothing else.
        self.assertIn("ListenStream=127.0.0.1:6432\n", listening.read_text())
        self.assertIn("\nlisten: 127.0.0.1:6432\n", self.configuration.read_text())
        output = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit, listening)
        # What it says about other units of this machine is not about ours.
        self.assertEqual([], [line for line in output.splitlines() if "pgchaperone" in line])

    @needs("systemd-analyze")
    def test_the_unit_is_hardened(self):
        output = without_ansi(run("systemd-analyze", "security", "--offline=yes", "--no-pager", self.unit))
        exposure = re.search(r"Overall exposure level for pgchaperone.service: ([0-9.]+)", output)
        self.assertTrue(exposure, output)
        self.assertLessEqual(float(exposure[1]), 1.6, output)

    def test_the_unit_runs_what_the_program_takes_and_waits_for_it_to_drain(self):
        (start,) = self.unit_values("ExecStart")
        words = start.split()
        self.assertEqual(["/usr/bin/pgchaperone", "serve", "-c", "/etc/pgchaperone/pgchaperone.yaml"], words)
        header = (ROOT / "proxy" / "net" / "server_options.h").read_text()
        drain_s = int(re.search(r"drain_timeout\{([0-9']+)\}", header)[1].replace("'", "")) / 1000
        (stop,) = self.unit_values("TimeoutStopSec")
        self.assertGreater(int(stop.removesuffix("s")), drain_s + 2)
        self.assertEqual(["notify"], self.unit_values("Type"))
        # systemd runs them in this order, and stops at one that fails: a mistake is told to who reloads.
        check, signal = self.unit_values("ExecReload")
        # Not by /bin/kill: that is in a package (procps) that a small system need not have.
        self.assertEqual("/bin/sh -c 'kill -HUP $$MAINPID'", signal)
        program, *words = check.split()
        self.assertEqual(start.split()[0], program)
        self.assertEqual(start.split()[-1], words[-1])
        broken = self.made / "broken.yaml"
        for text, status in (("audit:\n  file: audit.jsonl\napproval:\n  store: tickets.db\n", 0), ("rles: []\n", 2),
                             ("audit:\n  file: nowhere/audit.jsonl\n", 2)):
            broken.write_text(text)
            done = subprocess.run([self.program, *words[:-1], broken], capture_output=True)
            self.assertEqual((status, text), (done.returncode, text))
        # What it writes by its default configuration is what the unit lets it write.
        for path in re.findall(r"(/var/\S+)", self.configuration.read_text()):
            folder = Path(path).parent
            key = {"/var/log": "LogsDirectory", "/var/lib": "StateDirectory"}[str(folder.parent)]
            self.assertEqual([folder.name], self.unit_values(key))

    @needs("systemd-sysusers")
    def test_its_user_is_made_as_systemd_wants_it(self):
        root = self.made / "sysusers-root"
        (root / "etc").mkdir(parents=True)
        run("systemd-sysusers", f"--root={root}", self.tree / "usr" / "lib" / "sysusers.d" / "pgchaperone.conf")
        entry = next(line for line in (root / "etc" / "passwd").read_text().splitlines() if line.startswith("pgchaperone:"))
        self.assertEqual("/var/lib/pgchaperone", entry.split(":")[5])
        self.assertTrue(entry.endswith("nologin"), entry)
        self.assertEqual(["pgchaperone"], self.unit_values("User"))

    def test_the_bill_of_materials_is_the_one_of_the_program(self):
        bill = json.loads((self.tree / "usr/share/doc/pgchaperone/pgchaperone.cdx.json").read_text())
        beside = json.loads(next(self.made.glob("*.cdx.json")).read_text())
        self.assertEqual(bill, beside)
        self.assertEqual("CycloneDX", bill["bomFormat"])
        self.assertEqual("1.5", bill["specVersion"])
        self.assertRegex(bill["serialNumber"], r"^urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
        self.assertRegex(bill["metadata"]["timestamp"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        own = bill["metadata"]["component"]
        self.assertEqual(run(self.program, "--version").split()[1], own["version"])
        digest = run("sha256sum", BUILD / "pgchaperone").split()[0]
        self.assertEqual([{"alg": "SHA-256", "content": digest}], own["hashes"])
        references = [own["bom-ref"]]
        for component in bill["components"] + [part for whole in bill["components"] for part in whole.get("components", [])]:
            self.assertEqual("library", component["type"])
            self.assertTrue(component["name"] and component["version"], component)
            self.assertIn(component["properties"][0]["value"], ("shared", "static", "headers"))
            for licence in component.get("licenses", []):
                self.assertEqual(1, len(licence["license"]))
            if "purl" in component:
                self.assertRegex(component["purl"], r"^pkg:(deb/[a-z]+|github/pganalyze)/[a-z0-9.+_-]+@[^/ ]+$")
            references.append(component["bom-ref"])
        self.assertEqual(len(references), len(set(references)), "each reference once")
        (dependencies,) = bill["dependencies"]
        self.assertEqual(own["bom-ref"], dependencies["ref"])
        self.assertLessEqual(set(dependencies["dependsOn"]), set(references))

        # Nothing that the program loads is left out, with the version that dpkg has of it.
        names = {component["name"]: component for component in bill["components"]}
        files = {prop["value"] for component in bill["components"] for prop in component["properties"]
                 if prop["name"] == "pgchaperone:file"}
        loaded = set(re.findall(r"(\S+\.so\S*) => /", run("ldd", self.program)))
        self.assertTrue(loaded)
        self.assertEqual(set(), {name for name in loaded if name not in files})
        self.assertEqual(run("dpkg-query", "-W", "-f", "${Version}", "libpq5"), names["libpq5"]["version"])
        parser = names.get("libpg_query") or names.get("libpg-query-dev")
        self.assertEqual("static", parser["properties"][0]["value"])
        self.assertIn(parser["bom-ref"], dependencies["dependsOn"])
        self.assertIn("libcli11-dev", names)

    def test_a_bill_of_what_is_not_built_is_trouble(self):
        done = subprocess.run([str(ROOT / "tools" / "sbom"), str(self.made)], capture_output=True, text=True)
        self.assertEqual(2, done.returncode)
        self.assertIn("build it first", done.stderr)

    def test_the_packages_changelog_is_of_its_version(self):
        text = run("gzip", "-dc", self.tree / "usr/share/doc/pgchaperone/changelog.Debian.gz")
        version = run("dpkg-deb", "-f", self.deb, "Version").strip()
        self.assertTrue(text.startswith(f"pgchaperone ({version}) "), text)
        self.assertIn(run("dpkg-deb", "-f", self.deb, "Maintainer").strip(), text)

    def test_installed_below_a_prefix_nothing_is_outside_of_it(self):
        prefix = self.made / "prefix"
        output = run("cmake", "--install", BUILD, "--prefix", prefix)
        places = re.findall(r"^-- (?:Installing|Up-to-date): (.*)$", output, re.M)
        self.assertGreater(len(places), 10)
        self.assertEqual([], [place for place in places if not place.startswith(str(prefix))])
        unit = (prefix / "lib/systemd/system/pgchaperone.service").read_text()
        self.assertIn(f"ExecStart={prefix}/bin/pgchaperone serve -c {prefix}/etc/pgchaperone/pgchaperone.yaml\n", unit)
        self.assertTrue((prefix / "bin/pgchaperone").exists() and (prefix / "etc/pgchaperone/pgchaperone.yaml").exists())

    def test_the_same_sources_give_the_same_package(self):
        again = self.made.parent / "again"
        run(ROOT / "tools" / "package", "--build-dir", BUILD, "--output", again, "--quick")
        first, second = ((folder / "SHA256SUMS").read_text() for folder in (self.made, again))
        self.assertEqual(first, second)

    def test_the_rehearsal_says_what_it_takes(self):
        rehearse = ROOT / "packaging" / "rehearse"
        self.assertIn("packaging/rehearse BASE WORK DEB", run(sys.executable, "-B", rehearse, "--help"))
        self.assertEqual(2, subprocess.run([sys.executable, "-B", rehearse], stdout=subprocess.DEVNULL).returncode)
        # What is rehearsed is what is installed.
        self.assertIn("etc/pgchaperone/pgchaperone.yaml", re.findall(r'^CONFIGURATION = "(.*)"$', rehearse.read_text(), re.M))

    def test_checksums_hold(self):
        self.assertEqual(2, run("sha256sum", "-c", "SHA256SUMS", cwd=self.made).count(": OK"))


class MaintainerScripts(unittest.TestCase):
    """postinst, prerm and postrm in a folder that stands for the machine, with systemd running or not."""

    def setUp(self):
        workspace = tempfile.TemporaryDirectory(prefix="pgchaperone-test-scripts-")
        self.addCleanup(workspace.cleanup)
        self.root = Path(workspace.name)
        self.log = self.root / "calls"
        bin_folder = self.root / "usr" / "bin"
        bin_folder.mkdir(parents=True)
        for name in ("systemd-sysusers", "deb-systemd-helper", "deb-systemd-invoke"):
            self.stub(f"bin/{name}", "")
        # Of a service that does not run.
        self.stub("bin/systemctl", 'case "$*" in *is-active*) exit 3 ;; esac')
        (self.root / "run/systemd/system").mkdir(parents=True)
        for folder in ("var/lib/pgchaperone", "var/log/pgchaperone"):
            (self.root / folder).mkdir(parents=True)
            (self.root / folder / "file").touch()

    def stub(self, name, text):
        program = self.root / "usr" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "{program.name} $*" >>"{self.log}"\n{text}\n')
        program.chmod(0o755)

    def running(self, takes_over=True, old_systemd=False, configuration_is_good=True):
        """A service that runs; the signal makes another process of it, or nothing. Nobody waits in earnest."""
        process = self.root / "process"
        process.write_text("100")
        self.stub("bin/systemctl", f'''
            case "$*" in
                *--kill-whom*) [ {int(old_systemd)} = 0 ] || exit 1 ;;
            esac
            case "$*" in
                *is-active*) exit 0 ;;
                *reload\ pgchaperone.service) exit {int(not configuration_is_good)} ;;
                *show*) cat "{process}" ;;
                *kill*) echo $(($(cat "{process}") + {int(takes_over)})) >"{process}" ;;
            esac''')
        self.stub("bin/sleep", "")

    def call_once(self, script, *arguments):
        text = re.sub(r"(?<![\w/])/(etc|var|run|usr/s?bin)/", rf"{self.root}/\1/", (SCRIPTS / script).read_text())
        copy = self.root / script
        copy.write_text(text)
        self.log.write_text("")
        self.said = run("/bin/sh", copy, *arguments, env={"PATH": f"{self.root}/usr/bin:/usr/bin:/bin"})
        return self.log.read_text().splitlines()

    def call(self, script, *arguments):
        """Runs a script twice, since dpkg may do so; returns what the first and the second run called."""
        runs = [self.call_once(script, *arguments) for _ in range(2)]
        self.assertEqual(runs[0], runs[1], f"{script} {arguments}: the second run does something else")
        return runs[0]

    def state_is_there(self):
        return [(self.root / folder / "file").exists() for folder in ("var/lib/pgchaperone", "var/log/pgchaperone")]

    def test_an_installation_makes_the_user_and_starts_the_service(self):
        calls = self.call("postinst", "configure", "")
        self.assertEqual("systemd-sysusers pgchaperone.conf", calls[0])
        self.assertIn("deb-systemd-helper enable pgchaperone.service", calls)
        self.assertEqual([], [call for call in calls if "socket" in call], "who wants it enables it")
        self.assertEqual("deb-systemd-invoke start pgchaperone.service", calls[-1])

    def test_an_upgrade_starts_nothing_that_is_stopped(self):
        self.assertEqual([], self.call("prerm", "upgrade", "0.2.0"))
        calls = self.call("postinst", "configure", "0.0.9")
        self.assertEqual("deb-systemd-invoke try-restart pgchaperone.service", calls[-1])
        self.assertNotIn("deb-systemd-invoke start pgchaperone.service", calls)
        self.assertEqual([], [call for call in calls if " kill " in call])
        self.call("postrm", "upgrade", "0.2.0")
        self.assertEqual([True, True], self.state_is_there())

    def test_an_upgrade_lets_the_new_program_take_over_from_what_runs(self):
        for old_systemd, option in ((False, "--kill-whom=main"), (True, "--kill-who=main")):
            self.running(old_systemd=old_systemd)
            calls = self.call("postinst", "configure", "0.0.9")
            self.assertIn(f"systemctl --system kill -s USR2 {option} pgchaperone.service", calls)
            self.assertEqual([], [call for call in calls if "deb-systemd-invoke" in call])
            self.assertLess(calls.index("systemctl --system daemon-reload"), len(calls) - 3)

    def test_an_upgrade_whose_program_finds_fault_with_the_configuration_leaves_the_old_one_running(self):
        self.running(configuration_is_good=False)
        calls = self.call("postinst", "configure", "0.0.9")
        self.assertIn("systemctl --system reload pgchaperone.service", calls)
        self.assertEqual([], [call for call in calls if " kill " in call or "deb-systemd-invoke" in call])
        self.assertIn("finds fault with the configuration", self.said)

    def test_what_comes_back_after_a_removal_starts_as_what_is_new(self):
        unit = self.root / "etc/systemd/system/pgchaperone.service"
        unit.parent.mkdir(parents=True)
        for unmasks, last in ((f'[ "$1" != unmask ] || rm -f "{unit}"', "start"), ("", "try-restart")):
            # As dpkg's helper does with what it masked itself; what the administrator has masked stays so.
            self.stub("bin/deb-systemd-helper", unmasks)
            unit.symlink_to("/dev/null")
            calls = self.call_once("postinst", "configure", "0.1.0")
            self.assertIn("deb-systemd-helper unmask pgchaperone.service", calls)
            self.assertEqual(f"deb-systemd-invoke {last} pgchaperone.service", calls[-1])

    def test_what_does_not_take_over_in_time_is_restarted(self):
        self.running(takes_over=False)
        calls = self.call("postinst", "configure", "0.0.9")
        self.assertEqual(30, calls.count("sleep 1"))
        self.assertEqual("deb-systemd-invoke try-restart pgchaperone.service", calls[-1])

    def test_a_policy_that_forbids_a_restart_forbids_taking_over(self):
        self.running()
        self.stub("sbin/policy-rc.d", "exit 101")
        calls = self.call("postinst", "configure", "0.0.9")
        self.assertIn("policy-rc.d pgchaperone.service try-restart", calls)
        self.assertEqual([], [call for call in calls if " kill " in call])
        # Which asks it as well, and then does nothing.
        self.assertEqual("deb-systemd-invoke try-restart pgchaperone.service", calls[-1])
        self.stub("sbin/policy-rc.d", "exit 104")
        self.assertEqual(1, len([call for call in self.call("postinst", "configure", "0.0.9") if " kill " in call]))

    def test_a_removal_stops_the_service_and_keeps_what_it_wrote(self):
        self.assertEqual(["deb-systemd-invoke stop pgchaperone.socket pgchaperone.service"], self.call("prerm", "remove"))
        self.assertIn("deb-systemd-helper mask pgchaperone.service", self.call("postrm", "remove"))
        self.assertEqual([True, True], self.state_is_there())

    def test_only_purging_takes_away_what_it_wrote(self):
        calls = self.call("postrm", "purge")
        self.assertIn("deb-systemd-helper purge pgchaperone.service pgchaperone.socket", calls)
        self.assertEqual([False, False], self.state_is_there())

    def test_without_systemd_running_nothing_is_started(self):
        shutil.rmtree(self.root / "run")
        for script, argument in (("postinst", "configure"), ("prerm", "remove"), ("postrm", "remove")):
            for call in self.call(script, argument):
                self.assertNotIn("invoke", call)
                self.assertNotIn("daemon-reload", call)


if __name__ == "__main__":
    main()
