"""What docker/ holds, where no container engine is at hand: every file is read as what it is, and held against the
program (configurations, command lines, health), against the others (ports, names, users, passwords) and against
docs/metrics.md. The Dockerfile's own steps are looked at; running them takes an image of Debian."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from support import processes
from support.e2e import Cluster, main
from support.guard import binary

DOCKER = ROOT / "docker"
KUBERNETES = DOCKER / "kubernetes"
DRAIN_S = int(re.search(r"drain_timeout\{([0-9']+)\}", (ROOT / "proxy/net/server_options.h").read_text())[1]
              .replace("'", "")) / 1000
# Variables that the configurations take from what surrounds them.
SURROUNDINGS = {"PGCHAPERONE_UPSTREAM": "db.example.org:5432", "POD_NAME": "pgchaperone-0",
                "PGCHAPERONE_STORE": "postgresql://x@tickets.example.org/chaperone"}


def run(*command, **options):
    return subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=60, **options)


def needs(program):
    return unittest.skipUnless(shutil.which(program), f"{program} is not installed")


def promtool():
    """The one of the machine, or the one that tools/deps took out of its package; None."""
    return shutil.which("promtool") or shutil.which(ROOT / "build" / "deps" / "promtool" / "promtool")


def documents(path):
    return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


def container_configuration():
    """What the image runs by where no variable says otherwise."""
    return yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (DOCKER / "pgchaperone.yaml").read_text()))


def port_of(address):
    return int(address.rsplit(":", 1)[1])


class Files(unittest.TestCase):
    @needs("yamllint")
    def test_yamllint_finds_no_fault(self):
        done = run("yamllint", "-s", "-c", DOCKER / ".yamllint", DOCKER, ROOT / "packaging" / "pgchaperone.yaml")
        self.assertEqual((0, ""), (done.returncode, done.stdout))

    def test_every_configuration_in_it_has_no_fault(self):
        files = [path for path in DOCKER.rglob("pgchaperone.yaml") if "provisioning" not in path.parts]
        self.assertEqual(3, len(files))
        for path in files:
            done = run(binary(), "config", "check", "--strict", "--no-files", path, env={**os.environ, **SURROUNDINGS})
            self.assertEqual(0, done.returncode, done.stdout)

    def test_scripts_have_no_fault_of_syntax(self):
        for name in ("healthcheck", "secrets"):
            self.assertEqual("", run("bash", "-n", DOCKER / name).stdout)
            self.assertTrue(os.access(DOCKER / name, os.X_OK), name)

    def test_the_rehearsal_knows_every_instruction_that_the_dockerfile_uses(self):
        text = (DOCKER / "Dockerfile").read_text()
        used = set(re.findall(r"^([A-Z]+) ", text, re.M))
        told = {"CMD", "ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "LABEL", "STOPSIGNAL", "USER", "VOLUME"}
        done = set(re.findall(r'word == "([A-Z]+)"', (DOCKER / "rehearse").read_text()))
        self.assertLessEqual(used - told, done)
        self.assertIn("docker/rehearse BASE WORK", run(sys.executable, "-B", DOCKER / "rehearse", "--help").stdout)

    def test_passwords_are_made_once_and_kept_from_others(self):
        with tempfile.TemporaryDirectory() as folder:
            script = shutil.copy(DOCKER / "secrets", folder)
            self.assertEqual(0, run(script).returncode)
            made = Path(folder, "secrets.d")
            self.assertEqual(0o700, made.stat().st_mode & 0o777)
            first = {path.name: path.read_text() for path in made.iterdir()}
            self.assertEqual(["grafana_password", "postgres_password"], sorted(first))
            self.assertTrue(all(re.fullmatch(r"[\w-]{32}", text) for text in first.values()), "long, and good in a URL")
            self.assertEqual(2, len(set(first.values())))
            self.assertEqual((0, ""), (lambda done: (done.returncode, done.stdout))(run(script)))
            self.assertEqual(first, {path.name: path.read_text() for path in made.iterdir()})
        self.assertIn("docker/secrets.d", (ROOT / ".dockerignore").read_text())
        self.assertIn("docker/secrets.d", (ROOT / ".gitignore").read_text())


class Dockerfile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        text = (DOCKER / "Dockerfile").read_text()
        text = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ")
        cls.steps = [tuple(line.strip().split(None, 1)) for line in text.splitlines() if line.strip()]
        cls.stages = []
        for word, rest in cls.steps:
            if word == "FROM":
                cls.stages.append([])
            if cls.stages:
                cls.stages[-1].append((word, rest))

    def of(self, word, stage=-1):
        return [rest for one, rest in self.stages[stage] if one == word]

    def test_both_stages_are_of_debian_13(self):
        self.assertIn(("ARG", "DEBIAN=trixie"), self.steps)
        self.assertEqual(["debian:${DEBIAN}-slim AS build"], self.of("FROM", 0))
        self.assertEqual(["debian:${DEBIAN}-slim"], self.of("FROM"))

    def test_it_runs_as_a_user_by_number_who_owns_nothing_but_its_folders(self):
        (user,) = self.of("USER")
        uid, gid = user.split(":")
        self.assertGreaterEqual(int(uid), 10000)
        made = " ".join(self.of("RUN"))
        self.assertIn(f"--uid {uid} --gid {gid}", made)
        self.assertIn(f"install -d -o {uid} -g {gid} -m 0750 /var/lib/pgchaperone /var/log/pgchaperone", made)
        self.assertEqual(["/var/lib/pgchaperone", "/var/log/pgchaperone"], json.loads(self.of("VOLUME")[0]))
        words = [word for word, _ in self.stages[-1]]
        self.assertLess(max(i for i, word in enumerate(words) if word in ("RUN", "COPY")), words.index("USER"),
                        "what is in the image is root's")

    def test_what_it_copies_is_there_and_reaches_the_builder(self):
        ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
        for stage in range(len(self.stages)):
            for rest in self.of("COPY", stage):
                words = [word for word in rest.split() if not word.startswith("--")]
                for source in words[:-1]:
                    self.assertTrue((ROOT / source).exists(), source)
                    for pattern in ignored:
                        self.assertFalse(fnmatch.fnmatch(source, pattern) or source.startswith(pattern + "/"), source)
        # The release build needs these folders.
        for folder in re.findall(r"^add_subdirectory\((\w+)\)", (ROOT / "CMakeLists.txt").read_text(), re.M):
            self.assertNotIn(folder, ignored)
        self.assertIn(".git", ignored)

    def test_it_builds_by_the_tools_and_these_know_what_they_are_asked_for(self):
        commands = [word for rest in self.of("RUN", 0) for word in re.split(r"&&|;", rest)]
        deps = next(shlex.split(command) for command in commands if "tools/deps" in command)
        sets = re.findall(r"^  (\w+) ", run(ROOT / "tools" / "deps", "--help").stdout, re.M)
        self.assertEqual(["tools/deps", "build", "package"], deps)
        self.assertLessEqual(set(deps[1:]), set(sets))
        self.assertTrue(any(shlex.split(command) == ["tools/package"] for command in commands))
        self.assertIn("build/package", run(ROOT / "tools" / "package", "--help").stdout)
        self.assertIn("source=/src/build/package", " ".join(self.of("RUN")))

    def test_a_bare_image_gets_what_packing_calls(self):
        with tempfile.TemporaryDirectory() as folder:
            # Nothing is installed.
            none = Path(folder) / "dpkg-query"
            none.write_text("#!/bin/sh\nexit 1\n")
            none.chmod(0o755)
            done = run(ROOT / "tools" / "deps", "--check", "package", env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"})
        self.assertEqual(1, done.returncode, done.stdout)
        # cpack asks `file` for what is a program before dpkg-shlibdeps is asked for its libraries.
        self.assertLessEqual({"python3", "dpkg-dev", "file"}, set(done.stdout.split()))

    def test_its_steps_are_shell(self):
        for stage in range(len(self.stages)):
            for rest in self.of("RUN", stage):
                command = re.sub(r"^(--\S+ +)+", "", rest)
                done = run("sh", "-n", "-c", command)
                self.assertEqual((0, ""), (done.returncode, done.stdout), command)

    def test_it_is_described_stopped_and_asked_for_its_health(self):
        labels = " ".join(self.of("LABEL"))
        for label in ("title", "description", "licenses", "version", "revision"):
            self.assertIn(f"org.opencontainers.image.{label}=", labels)
        self.assertEqual(["SIGTERM"], self.of("STOPSIGNAL"))
        (health,) = self.of("HEALTHCHECK")
        command = json.loads(health.split("CMD ")[1])
        self.assertIn(f"docker/healthcheck {command[0]}", " ".join(self.of("COPY")))
        ports = {port_of(container_configuration()["listen"]), port_of(container_configuration()["metrics"]["listen"])}
        self.assertEqual(ports, set(map(int, self.of("EXPOSE")[0].split())))

    def test_its_command_line_runs_and_the_health_check_sees_it(self):
        entry, command = json.loads(self.of("ENTRYPOINT")[0]), json.loads(self.of("CMD")[0])
        self.assertEqual(["/usr/bin/pgchaperone"], entry)
        copied = [rest for rest in self.of("COPY") if command[-1] in rest]
        self.assertEqual([f"docker/pgchaperone.yaml {command[-1]}"], copied)
        cluster = Cluster()
        self.addCleanup(cluster.erase)
        port, metrics = processes.free_port(), processes.free_port()
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "log"), "w") as log:
                guard = processes.start(
                    [binary(), *command[:-1], DOCKER / "pgchaperone.yaml", "--listen", f"127.0.0.1:{port}", "--audit",
                     f"{folder}/audit", "--approval-store", f"{folder}/tickets", "--metrics-listen", f"127.0.0.1:{metrics}"],
                    stdout=log, stderr=log, env={**os.environ, "PGCHAPERONE_UPSTREAM": f"{cluster.host}:{cluster.port}"})
            self.addCleanup(processes.stop, guard)
            check = DOCKER / "healthcheck"
            try:
                processes.wait_until(lambda: run(check, metrics).returncode == 0, 20, "the guard to be healthy")
            except Exception:
                self.fail(Path(folder, "log").read_text())
            self.assertEqual(0, run(check, metrics, "/readyz").returncode)
            self.assertEqual(0, run(check, env={**os.environ, "PGCHAPERONE_METRICS_PORT": str(metrics)}).returncode)
            self.assertNotEqual(0, run(check, metrics, "/no-such-page").returncode)
            self.compare_metrics(run("bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{metrics}; printf 'GET /metrics HTTP/1.1\\r\\n"
                                     "Host: x\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3").stdout)
            processes.stop(guard)
            self.assertNotEqual(0, run(check, metrics).returncode)

    def test_the_health_check_asks_at_the_port_that_is_listened_on(self):
        for port in (9187, 9988):
            done = run(binary(), "config", "show", DOCKER / "pgchaperone.yaml", env={**os.environ, "PGCHAPERONE_METRICS_PORT": str(port)})
            self.assertEqual(f"0.0.0.0:{port}", yaml.safe_load(done.stdout)["metrics"]["listen"], done.stdout)
        # Whoever listens there is not asked where the command line names another port.
        env = {**os.environ, "PGCHAPERONE_METRICS_PORT": str(processes.free_port())}
        self.assertIn(env["PGCHAPERONE_METRICS_PORT"], run(DOCKER / "healthcheck", env=env).stdout)
        other = str(processes.free_port())
        self.assertIn(other, run(DOCKER / "healthcheck", other, env=env).stdout)
        default = re.search(r"PGCHAPERONE_METRICS_PORT:-(\d+)", (DOCKER / "healthcheck").read_text())[1]
        self.assertEqual(port_of(container_configuration()["metrics"]["listen"]), int(default))

    def compare_metrics(self, page):
        """What the dashboard and the alerts ask for, and what these are tried with, is what a running guard tells, with these values of its labels."""
        told = {}
        for name, labels in re.findall(r"^([a-z_]+)(?:\{(.*?)\})? \S+$", page, re.M):
            told.setdefault(name, []).append(dict(re.findall(r'(\w+)="([^"]*)"', labels)))
        for where, expression in all_expressions() + [("alerts_test.yml", series) for series in alert_series()]:
            for name, matchers in uses_of(expression):
                if name == "up":
                    continue
                self.assertIn(name, told, where)
                for label, operator, value in matchers:
                    if label in ("job", "instance", "upstream") or operator not in ("=", "=~"):
                        continue
                    values = {labels.get(label) for labels in told[name]}
                    for word in value.split("|"):
                        self.assertIn(word, values, f"{where}: {name}")

    def test_the_health_check_believes_200_alone(self):
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(int(self.path[1:]))
                self.end_headers()

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        results = [run(DOCKER / "healthcheck", server.server_port, f"/{status}").returncode for status in (200, 204, 404, 503)]
        self.assertEqual([0, 1, 1, 1], results)
        self.assertNotEqual(0, run(DOCKER / "healthcheck", processes.free_port()).returncode)


class Compose(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
        cls.services = cls.compose["services"]

    def test_no_service_may_do_more_than_it_needs(self):
        self.assertEqual({"postgres", "guard", "prometheus", "grafana"}, set(self.services))
        for name, service in self.services.items():
            with self.subTest(name):
                self.assertTrue(service["read_only"])
                self.assertEqual(["ALL"], service["cap_drop"])
                self.assertNotIn("cap_add", service)
                self.assertIn("no-new-privileges:true", service["security_opt"])
                self.assertNotIn("privileged", service)
                self.assertGreater(int(service["user"].split(":")[0]), 0)
                self.assertIn("test", service["healthcheck"])
                if "build" not in service:
                    self.assertRegex(service["image"], r":v?\d", "a version of one's choice")

    def test_passwords_come_from_files(self):
        for name, service in self.services.items():
            for key, value in service.get("environment", {}).items():
                if re.search("PASSWORD|SECRET|TOKEN", key):
                    self.assertRegex(key, r"_FILE$", name)
                    secret = value.removeprefix("/run/secrets/")
                    self.assertIn(secret, service["secrets"])
                    self.assertEqual(f"secrets.d/{secret}", self.compose["secrets"][secret]["file"])
                    self.assertIn(secret, (DOCKER / "secrets").read_text())

    def test_the_only_way_to_the_server_is_through_the_guard(self):
        self.assertNotIn("ports", self.services["postgres"])
        (network,) = self.services["postgres"]["networks"]
        self.assertTrue(self.compose["networks"][network]["internal"])
        self.assertEqual(["guard", "postgres"], sorted(name for name, service in self.services.items()
                                                       if network in service["networks"]))
        for service in self.services.values():
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:"), "others than this machine would get in: " + port)

    def test_who_waits_waits_for_somebody_who_can_tell(self):
        for service in self.services.values():
            for other, how in service.get("depends_on", {}).items():
                self.assertEqual("service_healthy", how["condition"])
                self.assertIn("healthcheck", self.services[other])
        self.assertIn("postgres", self.services["guard"]["depends_on"])
        self.assertGreater(seconds(self.services["guard"]["stop_grace_period"]), DRAIN_S + 2)

    def test_what_is_mounted_is_there_and_what_is_written_has_a_place(self):
        for service in self.services.values():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    self.assertTrue((DOCKER / source).exists(), source)
                    self.assertTrue(volume.endswith(":ro"), volume)
                else:
                    self.assertIn(source, self.compose["volumes"])
        for key in ("audit", "approval"):
            written = container_configuration()[key]["file" if key == "audit" else "store"]
            self.assertTrue(any(volume.endswith(":" + str(Path(written).parent)) for volume in self.services["guard"]["volumes"]))
        self.assertEqual((DOCKER / "Dockerfile").resolve(),
                         (DOCKER / self.services["guard"]["build"]["context"] / self.services["guard"]["build"]["dockerfile"]).resolve())

    def test_names_and_ports_are_the_same_everywhere(self):
        configuration = container_configuration()
        (published,) = self.services["guard"]["ports"]
        self.assertEqual(port_of(configuration["listen"]), port_of(published))
        prometheus = yaml.safe_load((DOCKER / "prometheus/prometheus.yml").read_text())
        (job,) = prometheus["scrape_configs"]
        self.assertEqual([f"guard:{port_of(configuration['metrics']['listen'])}"], job["static_configs"][0]["targets"])
        for name in prometheus["rule_files"]:
            self.assertTrue((DOCKER / "prometheus" / name).exists())
        (source,) = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
        self.assertEqual("http://prometheus:9090", source["url"])
        (provider,) = yaml.safe_load((DOCKER / "grafana/provisioning/dashboards/pgchaperone.yaml").read_text())["providers"]
        mounts = {volume.split(":")[1]: volume.split(":")[0] for volume in self.services["grafana"]["volumes"]}
        self.assertEqual("./grafana/dashboards", mounts[provider["options"]["path"]])
        home = self.services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        self.assertTrue((DOCKER / "grafana/dashboards" / Path(home).name).exists())
        # Who has to reach whom shares a network.
        for one, other in (("guard", "postgres"), ("prometheus", "guard"), ("grafana", "prometheus")):
            self.assertTrue(set(self.services[one]["networks"]) & set(self.services[other]["networks"]), (one, other))
        self.assertEqual("postgres:5432", self.services["guard"]["environment"]["PGCHAPERONE_UPSTREAM"])
        command = json.loads(re.search(r"HEALTHCHECK .*CMD (\[.*\])", (DOCKER / "Dockerfile").read_text())[1])
        self.assertEqual(["CMD", *command], self.services["guard"]["healthcheck"]["test"])


# --- figures ---


def rules():
    return [rule for group in yaml.safe_load((DOCKER / "prometheus/alerts.yml").read_text())["groups"]
            for rule in group["rules"]]


def alert_cases():
    """{alert: {whether it goes off}}, by the cases of alerts_test.yml."""
    out = {}
    for test in yaml.safe_load((DOCKER / "prometheus/alerts_test.yml").read_text())["tests"]:
        for case in test["alert_rule_test"]:
            out.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    return out


def alert_series():
    return [one["series"] for test in yaml.safe_load((DOCKER / "prometheus/alerts_test.yml").read_text())["tests"]
            for one in test["input_series"]]


def dashboard():
    return json.loads((DOCKER / "grafana/dashboards/pgchaperone.json").read_text())


def all_expressions():
    """(where, PromQL) of the dashboard and of the alerts."""
    out = [(rule["alert"], rule["expr"]) for rule in rules()]
    page = dashboard()
    for panel in page["panels"]:
        out += [(panel["title"], target["expr"]) for target in panel.get("targets", [])]
    out += [(one["name"], one["expr"]) for one in page["annotations"]["list"]]
    for variable in page["templating"]["list"]:
        out.append((variable["name"], re.fullmatch(r"label_values\((.*), \w+\)", variable["definition"])[1]))
    return out


def uses_of(expression):
    """(metric, [(label, operator, value)]) of each metric in an expression."""
    out = []
    for name, labels in re.findall(r"\b((?:pgchaperone|process)_[a-z_]+|up)\b(?:\{([^}]*)\})?", expression):
        out.append((name, re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', labels)))
    return out


def documented():
    """{metric: (type, labels)}, by docs/metrics.md; of a histogram by the names that it has on the page."""
    out = {}
    for line in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" |")]
        match = re.fullmatch(r"\|? ?`([a-z_]+)`", cells[0])
        if not match or len(cells) < 4:
            continue
        kind, labels = cells[1], set(re.findall(r"`(\w+)`", cells[2]))
        names = [match[1]] if kind != "histogram" else [match[1] + end for end in ("_bucket", "_sum", "_count")]
        for name in names:
            out[name] = (kind, labels | ({"le"} if name.endswith("_bucket") else set()))
    return out


class Figures(unittest.TestCase):
    def test_they_ask_for_what_is_counted_and_by_the_labels_that_it_has(self):
        known = documented()
        self.assertGreater(len(known), 40)
        known["up"] = ("gauge", set())
        for where, expression in all_expressions():
            with self.subTest(where):
                uses = uses_of(expression)
                self.assertTrue(uses, expression)
                for name, matchers in uses:
                    self.assertIn(name, known)
                    labels = known[name][1] | {"job", "instance"}
                    for label, _, _ in matchers:
                        self.assertIn(label, labels, name)
                for word in re.findall(r"\bby \(([^)]*)\)", expression):
                    everything = {"job", "instance"}.union(*(known[name][1] for name, _ in uses))
                    self.assertLessEqual(set(word.replace(" ", "").split(",")), everything)
                # Counters are asked for their growth, gauges for what they are.
                for name, _ in uses:
                    if known[name][0] in ("counter", "histogram"):
                        self.assertRegex(expression, rf"(rate|increase)\({name}\b")
                    elif not name.endswith("policy_version"):
                        self.assertNotRegex(expression, rf"(rate|increase)\({name}\b")

    def test_alerts_say_who_what_and_why(self):
        self.assertEqual(len(rules()), len({rule["alert"] for rule in rules()}))
        for rule in rules():
            self.assertRegex(rule["alert"], r"^Pgchaperone[A-Z]\w+$")
            self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
            if not rule["expr"].startswith("absent("):
                self.assertIn("{{ $labels.instance }}", rule["annotations"]["summary"])
            for name in re.findall(r"\bpgchaperone_\w+", rule["annotations"]["description"]):
                self.assertIn(name, documented(), rule["alert"])
            self.assertGreater(len(rule["annotations"]["description"]), 20)
            if re.search(r"\bsum\b(?! by \(instance)", rule["expr"]):
                self.fail(f"{rule['alert']}: the sum has no instance any more")

    def test_every_alert_is_tried_both_ways(self):
        # promtool says nothing of an alert without a case, nor of a case of an alert that there is not.
        tried = alert_cases()
        self.assertEqual({rule["alert"] for rule in rules()}, set(tried))
        for name, ways in tried.items():
            self.assertEqual({True, False}, ways, f"{name}: is there a case in which it goes off, and one in which it does not?")

    @unittest.skipIf(shutil.which("promtool"), "this machine has a promtool of its own")
    def test_a_machine_without_promtool_is_told_so_and_gets_no_server_with_it(self):
        with tempfile.TemporaryDirectory() as folder:
            tools = Path(folder) / "tools"
            tools.mkdir()
            for name in ("deps", "lib.sh"):
                shutil.copy(ROOT / "tools" / name, tools)
            needed = run(tools / "deps", "--check", "test").stdout.split()
        self.assertIn("promtool", needed)
        self.assertNotIn("prometheus", needed, "the package would start one")

    @unittest.skipUnless(promtool(), "promtool is not installed")
    def test_promtool_finds_no_fault(self):
        folder = DOCKER / "prometheus"
        for command in (("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")):
            done = run(promtool(), *command, cwd=folder)
            self.assertEqual(0, done.returncode, done.stdout)

    @unittest.skipUnless(promtool(), "promtool is not installed")
    def test_promtool_can_read_what_the_dashboard_asks(self):
        asked = [re.sub(r"\$\w+", "1m", expression) for _, expression in all_expressions()]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "asked.yml")
            path.write_text(json.dumps({"groups": [{"name": "asked", "rules": [
                {"record": f"asked:{i}", "expr": expression} for i, expression in enumerate(asked)]}]}))
            done = run(promtool(), "check", "rules", path)
        self.assertEqual(0, done.returncode, done.stdout)
        self.assertIn(f"{len(asked)} rules found", done.stdout)

    def test_the_dashboard_is_one(self):
        page = dashboard()
        self.assertEqual("pgchaperone", page["uid"])
        ids = [panel["id"] for panel in page["panels"]]
        self.assertEqual(len(ids), len(set(ids)))
        (source,) = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
        taken = set()
        for panel in page["panels"]:
            at = panel["gridPos"]
            self.assertLessEqual(at["x"] + at["w"], 24, panel["title"])
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            self.assertFalse(cells & taken, f"{panel['title']} lies on another panel")
            taken |= cells
            if panel["type"] == "row":
                continue
            self.assertTrue(panel["description"].strip(), panel["title"])
            for target in panel["targets"]:
                self.assertEqual(source["uid"], target["datasource"]["uid"])
                self.assertTrue("$instance" in target["expr"] and "$job" in target["expr"], target["expr"])

    def test_the_dashboard_shows_the_server_that_was_chosen(self):
        (variable,) = [one for one in dashboard()["templating"]["list"] if one["name"] == "upstream"]
        # The server of the top level has no label, which is what this matches, too.
        self.assertEqual(".*", variable["allValue"])
        known, narrowed = documented(), set()
        for panel in dashboard()["panels"]:
            for target in panel.get("targets", []):
                for name, matchers in uses_of(target["expr"]):
                    chosen = ("upstream", "=~", "$upstream") in matchers
                    self.assertEqual("upstream" in known[name][1], chosen, f"{panel['title']}: {name}")
                    narrowed |= {name} if chosen else set()
        self.assertIn("pgchaperone_statements_total", narrowed)


class Kubernetes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.objects, cls.kustomizations = {}, {}
        for folder in ("sidecar", "shared"):
            kustomization = yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text())
            cls.kustomizations[folder] = kustomization
            cls.objects[folder] = [one for name in kustomization["resources"] for one in documents(KUBERNETES / folder / name)]

    def only(self, folder, kind):
        (one,) = [one for one in self.objects[folder] if one["kind"] == kind]
        return one

    def pod(self, folder):
        return self.workload(folder)["template"]["spec"]

    def workload(self, folder):
        return self.only(folder, {"sidecar": "Deployment", "shared": "StatefulSet"}[folder])["spec"]

    def volumes(self, folder):
        """By name; a claim is one for each replica."""
        claims = self.workload(folder).get("volumeClaimTemplates", [])
        return {**{one["name"]: one for one in self.pod(folder)["volumes"]},
                **{one["metadata"]["name"]: {"claim": one["spec"]} for one in claims}}

    def guard(self, folder):
        pod = self.pod(folder)
        (guard,) = [one for one in pod["containers"] + pod.get("initContainers", []) if one["name"] == "pgchaperone"]
        return guard

    def configuration(self, folder):
        return yaml.safe_load((KUBERNETES / folder / "pgchaperone.yaml").read_text())

    def test_a_kustomization_names_every_file_beside_it(self):
        for folder, kustomization in self.kustomizations.items():
            named = set(kustomization["resources"]) | {"kustomization.yaml"}
            named |= {name for one in kustomization["configMapGenerator"] for name in one["files"]}
            self.assertEqual({path.name for path in (KUBERNETES / folder).iterdir()}, named)

    def test_every_container_is_as_restricted_as_it_can_be(self):
        for folder in self.objects:
            pod = self.pod(folder)
            self.assertTrue(pod["securityContext"]["runAsNonRoot"])
            self.assertEqual("RuntimeDefault", pod["securityContext"]["seccompProfile"]["type"])
            self.assertFalse(pod["automountServiceAccountToken"])
            for container in pod["containers"] + pod.get("initContainers", []):
                context = {**pod["securityContext"], **container["securityContext"]}
                self.assertGreaterEqual(context["runAsUser"], 10000)
                self.assertFalse(context["allowPrivilegeEscalation"])
                self.assertTrue(context["readOnlyRootFilesystem"])
                self.assertEqual({"drop": ["ALL"]}, context["capabilities"])
                self.assertIn("memory", container["resources"]["limits"])
                self.assertIn("requests", container["resources"])
            (image,) = [one for one in self.kustomizations[folder]["images"] if one["name"] == "pgchaperone"]
            self.assertEqual("pgchaperone", self.guard(folder)["image"])
            self.assertEqual(run(binary(), "--version").stdout.split()[1], image["newTag"])

    def test_the_guard_is_the_images_user_and_runs_the_images_program(self):
        dockerfile = (DOCKER / "Dockerfile").read_text()
        uid = int(re.search(r"^USER (\d+):", dockerfile, re.M)[1])
        command = json.loads(re.search(r"^CMD (\[.*\])", dockerfile, re.M)[1])
        for folder in self.objects:
            guard = self.guard(folder)
            self.assertNotIn("command", guard)
            self.assertEqual(command, guard["args"])
            context = {**self.pod(folder)["securityContext"], **guard["securityContext"]}
            self.assertEqual((uid, uid, uid), (context["runAsUser"], context["runAsGroup"], context["fsGroup"]))

    def test_the_configuration_finds_what_it_names(self):
        for folder in self.objects:
            text = (KUBERNETES / folder / "pgchaperone.yaml").read_text()
            guard, configuration = self.guard(folder), self.configuration(folder)
            self.assertEqual(set(re.findall(r"\$\{(\w+)", text)), {one["name"] for one in guard["env"]})
            mounts = {one["mountPath"]: one for one in guard["volumeMounts"]}
            volumes = self.volumes(folder)
            self.assertEqual(set(volumes), {one["name"] for one in mounts.values()})
            written = [configuration["audit"]["file"], configuration["approval"]["store"], "/tmp/x"]
            for path in [path for path in written if path.startswith("/")]:
                mount = mounts[str(Path(path).parent)]
                self.assertTrue({"emptyDir", "claim"} & set(volumes[mount["name"]]))
                self.assertFalse(mount.get("readOnly", False))
            for key in ("certificate", "key"):
                path = configuration.get("client_tls", {}).get(key)
                if path:
                    self.assertIn("secret", volumes[mounts[str(Path(path).parent)]["name"]])
            (generated,) = self.kustomizations[folder]["configMapGenerator"]
            self.assertEqual(generated["name"], volumes["configuration"]["configMap"]["name"])
            self.assertEqual(guard["args"][-1], "/etc/pgchaperone/" + generated["files"][0])
            self.assertTrue(mounts["/etc/pgchaperone"]["readOnly"])

    def test_the_audit_log_never_becomes_larger_than_its_volume(self):
        for folder in self.objects:
            audit = self.configuration(folder)["audit"]
            volume = self.volumes(folder)["audit"]
            room = volume["claim"]["resources"]["requests"]["storage"] if "claim" in volume else volume["emptyDir"]["sizeLimit"]
            room_mb = int(re.fullmatch(r"(\d+)Gi", room)[1]) * 1024
            size_mb = int(re.fullmatch(r"(\d+)MB", audit["rotate_size"])[1])
            # What is written, and one that is both there and being compressed.
            self.assertGreater(audit["keep"], 0)
            self.assertLess(size_mb * (audit["keep"] + 2), room_mb, folder)

    def test_a_changed_rule_is_no_new_pod(self):
        for folder, kustomization in self.kustomizations.items():
            (generated,) = kustomization["configMapGenerator"]
            self.assertIs(True, generated["options"]["disableNameSuffixHash"], folder)
            mounts = {one["mountPath"]: one for one in self.guard(folder)["volumeMounts"]}
            self.assertNotIn("subPath", mounts["/etc/pgchaperone"], "what is mounted so is never brought up to date")

    def test_the_page_says_how_each_guard_is_told_of_a_changed_rule(self):
        page = (ROOT / "docs" / "install.md").read_text()
        self.assertIn("kill -HUP 1", page)
        # The image's own program is the container's first process: it has a shell, and shares no processes with others.
        self.assertIn('ENTRYPOINT ["/usr/bin/pgchaperone"]', (DOCKER / "Dockerfile").read_text())
        for folder, kustomization in self.kustomizations.items():
            self.assertNotIn("shareProcessNamespace", self.pod(folder))
            namespace = kustomization.get("namespace", "default")
            label = self.workload(folder)["template"]["metadata"]["labels"]["app.kubernetes.io/name"]
            self.assertIn(f"\nreload {namespace} {label} ", page)
            self.assertIn(f"-c {self.guard(folder)['name']} ", page)
            workload = self.only(folder, {"sidecar": "Deployment", "shared": "StatefulSet"}[folder])
            self.assertIn(f"kubectl -n {namespace} rollout restart {workload['kind'].lower()}/{workload['metadata']['name']}`", page)
            self.assertIn(f"config check -c {self.guard(folder)['args'][-1]} &&", page)

    def test_ports_and_probes_are_those_of_the_configuration(self):
        for folder in self.objects:
            guard, configuration = self.guard(folder), self.configuration(folder)
            ports = {one["name"]: one["containerPort"] for one in guard["ports"]}
            self.assertEqual(port_of(configuration["metrics"]["listen"]), ports["metrics"])
            self.assertFalse(configuration["metrics"]["listen"].startswith("127."), "the kubelet is not in the pod")
            for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
                self.assertEqual({"path": path, "port": "metrics"}, guard[probe]["httpGet"])
        sidecar = self.configuration("sidecar")
        self.assertTrue(sidecar["listen"].startswith("127.0.0.1:"))
        (application,) = self.pod("sidecar")["containers"]
        values = {one["name"]: one["value"] for one in application["env"]}
        self.assertEqual(sidecar["listen"], f"{values['PGHOST']}:{values['PGPORT']}")
        self.assertEqual("Always", self.guard("sidecar")["restartPolicy"])
        self.assertEqual(port_of(self.configuration("shared")["listen"]),
                         {one["name"]: one["containerPort"] for one in self.guard("shared")["ports"]}["postgres"])

    def test_the_pod_lives_longer_than_sessions_may_take_to_end(self):
        for folder in self.objects:
            hook = self.guard(folder).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["", "0"])
            self.assertGreater(self.pod(folder)["terminationGracePeriodSeconds"], int(hook[1]) + DRAIN_S + 2)
        self.assertIn("preStop", self.guard("shared")["lifecycle"])

    def test_everything_shared_selects_the_guards_pods(self):
        labels = self.workload("shared")["template"]["metadata"]["labels"]
        for one in self.objects["shared"]:
            spec = one.get("spec", {})
            selector = spec.get("podSelector", spec.get("selector"))
            if selector is not None:
                self.assertEqual(labels, selector.get("matchLabels", selector), one["kind"])
        for folder in self.objects:
            workload = self.workload(folder)
            self.assertEqual(workload["template"]["metadata"]["labels"], workload["selector"]["matchLabels"])
        kinds = {one["kind"] for one in self.objects["shared"]}
        self.assertLessEqual({"StatefulSet", "Service", "PodDisruptionBudget", "NetworkPolicy", "Secret", "Namespace"}, kinds)
        ports = {one["name"] for one in self.guard("shared")["ports"]}
        for one in self.objects["shared"]:
            if one["kind"] == "Service":
                self.assertLessEqual({port["targetPort"] for port in one["spec"]["ports"]}, ports)
        policy = self.only("shared", "NetworkPolicy")["spec"]
        self.assertEqual(ports, {port["port"] for rule in policy["ingress"] for port in rule["ports"]})
        self.assertEqual(["Ingress", "Egress"], policy["policyTypes"])

    def test_several_replicas_share_their_tickets_and_survive_one_another(self):
        workload = self.workload("shared")
        self.assertGreaterEqual(workload["replicas"], 2)
        # One at a time, each with the name and the audit log that it had.
        self.assertEqual({"type": "RollingUpdate"}, workload["updateStrategy"])
        self.assertLess(self.only("shared", "PodDisruptionBudget")["spec"]["maxUnavailable"], workload["replicas"])
        (audit,) = workload["volumeClaimTemplates"]
        self.assertEqual(["ReadWriteOnce"], audit["spec"]["accessModes"])
        services = {one["metadata"]["name"]: one["spec"] for one in self.objects["shared"] if one["kind"] == "Service"}
        self.assertEqual("None", services[workload["serviceName"]]["clusterIP"])
        self.assertEqual("${PGCHAPERONE_STORE}", self.configuration("shared")["approval"]["store"])
        self.assertEqual("${POD_NAME}", self.configuration("shared")["approval"]["replica"])
        env = {one["name"]: one for one in self.guard("shared")["env"]}
        reference = env["PGCHAPERONE_STORE"]["valueFrom"]["secretKeyRef"]
        secrets = {one["metadata"]["name"]: one for one in self.objects["shared"] if one["kind"] == "Secret"}
        store = secrets[reference["name"]]["stringData"][reference["key"]]
        self.assertTrue(store.startswith("postgresql://"))
        for secret in secrets.values():
            for value in secret["stringData"].values():
                self.assertIn("CHANGE-ME", value, "a template holds no secret")


if __name__ == "__main__":
    main()
