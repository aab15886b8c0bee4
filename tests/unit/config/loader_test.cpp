#include "config/loader.h"
#include "config/connection_string.h"
#include "config/json_text.h"
#include "support/catch.h"

#include <boost/json.hpp>

#include <map>

using namespace pgchaperone::config;
using Catch::Matchers::ContainsSubstring;

namespace {

struct Files {
    std::map<std::string, std::string> files;
    std::map<std::string, std::string> variables;
    Problems problems;

    Surroundings surroundings() {
        Surroundings s;
        s.read_file = [this](const std::filesystem::path& path) -> Parsed<std::string> {
            const auto at = files.find(path.string());
            if (at == files.end()) return PatternError{"No such file or directory"};
            return {boost::system::in_place_value, at->second};
        };
        s.environment = [this](const std::string& name) -> std::optional<std::string> {
            const auto at = variables.find(name);
            if (at == variables.end()) return std::nullopt;
            return at->second;
        };
        return s;
    }
    std::optional<Loaded> load(Request request = {}) {
        if (request.file.empty() && files.count("a.yaml") != 0) request.file = "a.yaml";
        problems = Problems();
        return pgchaperone::config::load(request, problems, surroundings());
    }
    std::optional<Loaded> load(const std::string& text) {
        files["a.yaml"] = text;
        return load();
    }
    bool complains(std::string_view what) const {
        return problems.text().find(what) != std::string::npos;
    }
};

}  // namespace

TEST_CASE("without a file the defaults hold and the built-in policy guards") {
    Files f;
    const auto loaded = f.load();
    REQUIRE(loaded.has_value());
    CHECK(loaded->options.listen.text() == "127.0.0.1:6432");
    CHECK(loaded->options.login_timeout == std::chrono::seconds(60));
    CHECK(loaded->policy.source == "preset interactive");
    CHECK(loaded->policy.rules.size() > 2);
    CHECK(f.problems.empty());
    CHECK(built_in_policy().rules.size() == loaded->policy.rules.size());
}

TEST_CASE("what a running process can't take is known") {
    Options running;
    Options wanted;
    CHECK(changed_for_restart(running, wanted).empty());
    wanted.limits.connections = 7;
    wanted.idle_timeout = std::chrono::minutes(10);
    wanted.idle_in_transaction_timeout = std::chrono::minutes(1);
    wanted.environment = "PRODUCTION";
    wanted.handover_timeout = std::chrono::minutes(5);
    CHECK(changed_for_restart(running, wanted).empty());
    wanted.threads = 3;
    wanted.drain_timeout = std::chrono::seconds(5);
    CHECK(changed_for_restart(running, wanted) ==
          std::vector<std::string>{"threads", "drain_timeout"});
}

TEST_CASE("every setting can be given in a file and on the command line, which wins") {
    Files f;
    const std::map<std::string, std::pair<std::string, std::string>> values = {
        {"listen", {"0.0.0.0:1", "0.0.0.0:2"}},
        {"upstream", {"db:1", "db:2"}},
        {"databases", {"shop", "*"}},
        {"proxy_protocol", {"10.0.0.0/8", "127.0.0.1, ::1"}},
        {"threads", {"3", "4"}},
        {"login_timeout", {"7s", "8s"}},
        {"connect_timeout", {"7s", "8s"}},
        // Another one would not go with users.file.
        {"authentication", {"users", "users"}},
        {"users.file", {"u.txt", "v.txt"}},
        {"users.passwords", {"p.txt", "q.txt"}},
        {"idle_timeout", {"7m", "8m"}},
        {"idle_in_transaction_timeout", {"7s", "8s"}},
        {"drain_timeout", {"7s", "8s"}},
        {"handover_timeout", {"7m", "8m"}},
        {"environment", {"PRODUCTION", "Produktion Köln"}},
        {"limits.connections", {"70", "80"}},
        {"limits.connections_per_user", {"7", "8"}},
        {"limits.connections_per_address", {"5", "6"}},
        {"limits.reserved", {"3", "4"}},
        {"client_tls.mode", {"require", "verify-ca"}},
        {"client_tls.certificate", {"c.pem", "d.pem"}},
        {"client_tls.key", {"k.pem", "l.pem"}},
        {"client_tls.ca", {"ca.pem", "cb.pem"}},
        {"upstream_tls.mode", {"require", "verify-full"}},
        {"upstream_tls.negotiation", {"direct", "postgres"}},
        {"upstream_tls.ca", {"ca.pem", "cb.pem"}},
        {"upstream_tls.certificate", {"c.pem", "d.pem"}},
        {"upstream_tls.key", {"k.pem", "l.pem"}},
        {"audit.file", {"a.jsonl", "b.jsonl"}},
        {"audit.rotate_size", {"1MB", "1GB"}},
        {"audit.rotate_every", {"1h", "24h"}},
        {"audit.keep", {"3", "4"}},
        {"audit.compress", {"off", "on"}},
        {"audit.checkpoint_key", {"a.pem", "b.pem"}},
        {"audit.checkpoint_every", {"10", "20"}},
        {"audit.on_failure", {"allow", "refuse"}},
        {"audit.patience", {"7s", "8s"}},
        {"audit.stdout", {"on", "off"}},
        {"audit.syslog", {"/dev/log", "tcp://logs:601"}},
        {"approval.store", {"a.db", "host=db dbname=tickets"}},
        {"approval.replica", {"one", "two"}},
        {"web.listen", {"127.0.0.1:3", "0.0.0.0:4"}},
        {"web.certificate", {"c.pem", "d.pem"}},
        {"web.key", {"k.pem", "l.pem"}},
        {"web.url", {"https://a.example", "https://b.example:8443"}},
        {"web.trusted_proxies", {"10.0.0.0/8", "127.0.0.1, ::1"}},
        {"web.database", {"people", "staff"}},
        {"web.session_idle", {"7s", "8s"}},
        {"web.session_life", {"7s", "8s"}},
        {"web.pages", {"3", "4"}},
        {"metrics.listen", {"127.0.0.1:5", "0.0.0.0:6"}},
        {"log.level", {"debug", "warn"}},
        {"log.format", {"json", "text"}},
        {"log.file", {"a.log", "b.log"}},
    };
    REQUIRE(values.size() == settings().size());
    std::string text = "policy: { preset: application }\n";
    std::string section;
    Request request;
    for (const Setting& setting : settings()) {
        const std::string key(setting.key);
        const auto dot = key.find('.');
        if (dot == std::string::npos) {
            text += key + ": \"" + values.at(key).first + "\"\n";
        } else {
            if (key.substr(0, dot) != section) text += key.substr(0, dot) + ":\n";
            section = key.substr(0, dot);
            text += "  " + key.substr(dot + 1) + ": \"" + values.at(key).first + "\"\n";
        }
        request.overrides.emplace_back(&setting, values.at(key).second);
    }
    const auto from_file = f.load(text);
    INFO(f.problems.text());
    REQUIRE(from_file.has_value());
    for (const Setting& setting : settings()) {
        CHECK(setting.show(from_file->options) == values.at(std::string(setting.key)).first);
    }
    request.policy = "agent";
    const auto overridden = f.load(request);
    INFO(f.problems.text());
    REQUIRE(overridden.has_value());
    for (const Setting& setting : settings()) {
        CHECK(setting.show(overridden->options) == values.at(std::string(setting.key)).second);
    }
    CHECK(overridden->policy.source == "preset agent");
}

TEST_CASE("a store is a file beside the configuration, or a connection string as it stands") {
    Files f;
    f.files["/etc/guard/a.yaml"] = "approval: { store: tickets.db }\n";
    Request request;
    request.file = "/etc/guard/a.yaml";
    auto loaded = f.load(request);
    REQUIRE(loaded.has_value());
    CHECK(loaded->options.approval.store == "/etc/guard/tickets.db");
    f.files["/etc/guard/a.yaml"] = "approval: { store: 'postgresql://db/tickets' }\n";
    loaded = f.load(request);
    REQUIRE(loaded.has_value());
    CHECK(loaded->options.approval.store == "postgresql://db/tickets");
    f.files["/etc/guard/a.yaml"] = "approval: { store: '', replica: '' }\n";
    CHECK_FALSE(f.load(request).has_value());
    CHECK_THAT(f.problems.text(), ContainsSubstring("1:20: error: approval.store: a file name"));
    CHECK_THAT(f.problems.text(), ContainsSubstring("approval.replica: a replica's name has 1 to"));
}

TEST_CASE("a store's password is used and never shown") {
    CHECK(without_password("tickets.db") == "tickets.db");
    CHECK(without_password("postgresql://guard@db/tickets") == "postgresql://guard@db/tickets");
    CHECK(without_password("postgresql://db:5433/tickets") == "postgresql://db:5433/tickets");
    CHECK(without_password("postgresql://guard:s3cret@db:5433/t") ==
          "postgresql://guard:********@db:5433/t");
    CHECK(without_password("postgresql://g:p%40ss@db/t") == "postgresql://g:********@db/t");
    CHECK(without_password("postgresql://db/t?user=g&password=s3cret&sslmode=require") ==
          "postgresql://db/t?user=g&password=********&sslmode=require");
    CHECK(without_password("postgresql://db/t?password=s3cret") ==
          "postgresql://db/t?password=********");
    CHECK(without_password("host=db password=s3cret dbname=t") ==
          "host=db password=******** dbname=t");
    CHECK(without_password("host=db password = 's3 c\\'ret' dbname=t") ==
          "host=db password = ******** dbname=t");
    CHECK(without_password("password='s3") == "********");
    CHECK(without_password("password=my s3cret") == "********");
    CHECK(without_password("passwrd=s3cret host=db") == "********");
    CHECK(without_password("postgresql://u:s3cr%ZZet@db") == "postgresql://********");
    CHECK(without_password("sslpassword=s3cret host=db") == "sslpassword=******** host=db");

    Files f;
    Request request;
    request.overrides.emplace_back(find_setting("approval.store"),
                                   "host=db password=s3cret dbname=t");
    const auto loaded = f.load(request);
    REQUIRE(loaded.has_value());
    CHECK(loaded->options.approval.store == "host=db password=s3cret dbname=t");
    CHECK_THAT(show(*loaded), !ContainsSubstring("s3cret"));
}

TEST_CASE("a store that libpq would take for another one is refused, and no part of it is quoted") {
    Files f;
    Request request;
    request.file = "/etc/guard/a.yaml";
    for (const char* const store :
         {"password=my s3cret", "passwrd=s3cret host=db", "password='s3cret",
          "postgresql://u:s3cr/s3cret@db/t", "postgresql://u:s3cret%ZZet@db/t",
          "postgresql://u:s3cret@s3cret@db/t", "postgresql://u:12/s3cret@db"}) {
        INFO(store);
        f.files["/etc/guard/a.yaml"] = std::string("approval: { store: \"") + store + "\" }\n";
        CHECK_FALSE(f.load(request).has_value());
        CHECK_THAT(f.problems.text(), ContainsSubstring("1:20: error: approval.store: "));
        CHECK_THAT(f.problems.text(), !ContainsSubstring("s3c"));
        // Nor where it is the key that is wrong.
        f.files["/etc/guard/a.yaml"] = std::string("aproval: { store: \"") + store + "\" }\n";
        CHECK_FALSE(f.load(request).has_value());
        CHECK_THAT(f.problems.text(), !ContainsSubstring("s3c"));
    }
    f.files["/etc/guard/a.yaml"] = "approval: { store: 'host=db port=tickets' }\n";
    CHECK_FALSE(f.load(request).has_value());
    CHECK_THAT(f.problems.text(), ContainsSubstring("the port is no number"));
    for (const char* const good :
         {"postgresql://g:p%40ss@db/t", "host=db,other port=5432,5433 dbname=t", "service=tickets",
          "postgresql://[::1]:5432,other:5433/t", "postgresql:///t?host=/run/postgresql",
          "host=@abstract dbname=t"}) {
        INFO(good);
        Request of_option;
        of_option.overrides.emplace_back(find_setting("approval.store"), good);
        CHECK(f.load(of_option).has_value());
    }
}

TEST_CASE("all mistakes are told at once, each at its place, with a way forward") {
    Files f;
    CHECK_FALSE(
        f.load("listn: 1.2.3.4:5\n"
               "threads: many\n"
               "client_tls:\n"
               "  mode: requre\n"
               "  mode: allow\n"
               "audit: audit.jsonl\n"
               "upstream_tls: { mode: allow }\n"
               "log: { level: }\n"));
    const std::string text = f.problems.text();
    CHECK_THAT(text,
               ContainsSubstring("a.yaml:1:1: error: unknown key \"listn\" in the configuration"));
    CHECK_THAT(text, ContainsSubstring("did you mean \"listen\"?"));
    CHECK_THAT(text,
               ContainsSubstring("a.yaml:2:10: error: threads: \"many\" must be a whole number"));
    CHECK_THAT(text, ContainsSubstring("a.yaml:4:9: error: client_tls.mode: \"requre\" must be"));
    CHECK_THAT(text, ContainsSubstring("a.yaml:5:3: error: \"mode\" stands twice in client_tls"));
    CHECK_THAT(text, ContainsSubstring("a.yaml:6:8: error: audit must be a mapping"));
    CHECK_THAT(text, ContainsSubstring("it would try in clear first"));
    CHECK_THAT(text, ContainsSubstring("log.level has no value"));
    CHECK_THAT(text, ContainsSubstring("  2 | threads: many\n    |          ^\n"));
}

TEST_CASE("text that is no YAML is told with its place") {
    Files f;
    CHECK_FALSE(f.load("listen: [1, 2\npolicy: {").has_value());
    CHECK(f.complains("a.yaml:"));
    CHECK(f.complains("not valid YAML"));
    CHECK_FALSE(f.load("listen: a:1\n---\nlisten: b:1\n").has_value());
    CHECK(f.complains("more than one YAML document"));
    CHECK_FALSE(f.load("- a list\n").has_value());
    CHECK(f.complains("must be a mapping"));
    CHECK(f.load("").has_value());
}

TEST_CASE("a file in which YAML finds documents without end is refused at once") {
    Files f;
    for (const char* text : {",", ", a: b", "threads: 2\n---\n,"}) {
        CHECK_FALSE(f.load(text).has_value());
        CHECK(f.problems.list().size() == 1);
    }
}

TEST_CASE("a file that is not UTF-8 is refused where it begins to be none") {
    Files f;
    // What YAML itself would make of it is another text, and `config show` would not load again.
    for (const std::string& bytes :
         {std::string("\xE9"), std::string("\xC0\xAF"), std::string("\xED\xA0\x80"),
          std::string("\xF5\x80\x80\x80"), std::string("\xE2\x82")}) {
        CHECK_FALSE(f.load("threads: 2\nlog: { file: \"\xC3\xA4" + bytes + "\" }\n"));
        REQUIRE(f.problems.list().size() == 1);
        CHECK(f.problems.list().front().place.text() == "a.yaml:2:16");
        CHECK(f.complains("not UTF-8"));
    }
    CHECK(f.load("log: { file: \"\xC3\xA4 \xE2\x82\xAC \xF0\x9F\x90\x98\" }\n"));
}

TEST_CASE("settings that don't go together are told at their place") {
    Files f;
    CHECK_FALSE(f.load("client_tls: { mode: require }\n").has_value());
    CHECK(f.complains("a.yaml:1:21: error: client_tls.mode: TLS with clients needs a certificate"));
    CHECK_FALSE(f.load("authentication: password\n").has_value());
    CHECK(f.complains("clients must use TLS"));
    CHECK_FALSE(f.load("authentication: users\n").has_value());
    CHECK(f.complains("users.file"));
    CHECK_FALSE(f.load("users: { file: u.txt }\n").has_value());
    CHECK(f.complains("authentication: users only"));
    CHECK(f.load("authentication: users\nusers: { file: u.txt }\n").has_value());
    CHECK_FALSE(f.load("listen: 127.0.0.1:5432\nupstream: 127.0.0.1:5432\n").has_value());
    CHECK(f.complains("connect to itself"));
    CHECK_FALSE(f.load("upstream_tls: { mode: verify-full }\n").has_value());
    CHECK(f.complains("set upstream_tls.ca"));
    CHECK_FALSE(f.load("upstream_tls: { mode: prefer, negotiation: direct }\n").has_value());
    CHECK(f.complains("nothing to fall back to"));
}

TEST_CASE("the page opens no port by itself, and takes no password in clear over a network") {
    const auto problem_of = [](const std::string& web) {
        Files f;
        const auto loaded = f.load("web: { " + web + " }\n");
        CHECK(loaded.has_value() == f.problems.empty());
        return f.problems.text();
    };
    CHECK_FALSE(Files().load()->options.web.listen);
    for (const char* fine :
         {"listen: \"127.0.0.1:8432\"", "listen: \"[::1]:8432\"", "listen: \"localhost:8432\"",
          "listen: \"/run/guard:8432\"", "listen: \"0.0.0.0:8443\", certificate: c, key: k",
          "listen: \"0.0.0.0:8432\", url: \"https://guard.example.org/\""}) {
        INFO(fine);
        CHECK(problem_of(fine) == "");
    }
    for (const auto& [wrong, why] : std::vector<std::pair<std::string, std::string>>{
             {"listen: \"0.0.0.0:8432\"", "would cross the network in clear"},
             {"listen: \"192.0.2.1:8432\", url: \"http://guard\"", "would cross the network"},
             {"listen: \"127.evil.example:8432\"", "would cross the network"},
             {"listen: \"127.0.0.1:8432\", certificate: c", "belong together"},
             {"listen: \"127.0.0.1:8432\", certificate: c, key: k, url: \"http://guard\"",
              "write https://"},
             {"listen: \"127.0.0.1:6432\"", "can't be where listen is"},
             {"listen: \"127.0.0.1:5432\"", "can't be where upstream is"},
             {"listen: 8432",
              "\"8432\" names no host, only a number; write host:port, such as "
              "127.0.0.1:8432"},
             {"listen: \"127.0.0.1\"", "\"127.0.0.1\" names no port; write host:port"},
             {"listen: \"[::1]\"", "names no port"},
             {"url: \"guard.example.org\"", "no address of a page"},
             {"url: \"https://guard/path\"", "no address of a page"},
             {"url: \"https://bob@guard\"", "no address of a page"},
             {"trusted_proxies: \"10.0.0.0/99\"", "10.0.0.0/99"},
             {"trusted_proxies: \"\"", "is missing"},
             {"pages: 100000", "500"},
             {"lisen: \"127.0.0.1:1\"", "listen"}}) {
        INFO(wrong);
        CHECK(problem_of(wrong).find(why) != std::string::npos);
    }
}

TEST_CASE("the metrics have a port of their own, which is said") {
    Files f;
    CHECK(f.load("metrics: { listen: \"127.0.0.1:9187\" }\n").has_value());
    CHECK_FALSE(f.load("metrics: { listen: 9187 }\n").has_value());
    CHECK(f.complains("\"9187\" names no host"));
    CHECK_FALSE(f.load("metrics: { listen: \"127.0.0.1\" }\n").has_value());
    CHECK(f.complains("\"127.0.0.1\" names no port"));
    CHECK_FALSE(f.load("listen: 6432\n").has_value());
    CHECK(f.complains("\"6432\" names no host"));
}

TEST_CASE("environment variables stand in for texts, with a default if wanted") {
    Files f;
    f.variables["DB"] = "db.example.com:7";
    CHECK(
        f.load("upstream: ${DB}\nlog: { level: \"${LEVEL:-debug}\" }\n")->options.upstream.text() ==
        "db.example.com:7");
    CHECK(f.load("upstream: ${DB}\nlog: { level: \"${LEVEL:-debug}\" }\n")->options.log.level ==
          "debug");
    CHECK_FALSE(f.load("upstream: ${NOT_THERE}\n").has_value());
    CHECK(f.complains("a.yaml:1:11: error: the environment variable NOT_THERE is not set"));
    CHECK_FALSE(f.load("upstream: \"${DB\"\n").has_value());
    const auto loaded = f.load(
        "policy: { rules: [ { name: r, match: { text: \"a$${b}\" }, action: block } ] }\n");
    REQUIRE(loaded.has_value());
    CHECK(loaded->policy.rules[0].match.children[0].regex->text() == "a${b}");
}

TEST_CASE("paths are relative to the file that names them") {
    Files f;
    f.files
        ["/etc/guard/a.yaml"] = "audit: { file: log/audit.jsonl }\nlog: { file: /var/log/guard }\n";
    Request request;
    request.file = "/etc/guard/a.yaml";
    const auto loaded = f.load(request);
    REQUIRE(loaded.has_value());
    CHECK(loaded->options.audit.file == "/etc/guard/log/audit.jsonl");
    CHECK(loaded->options.log.file == "/var/log/guard");
}

TEST_CASE("an including file overrides what it includes") {
    Files f;
    f.files["base.yaml"] = "threads: 2\nlisten: 1.1.1.1:1\npolicy: { preset: agent }\n";
    const auto loaded = f.load("include: base.yaml\nthreads: 5\n");
    REQUIRE(loaded.has_value());
    CHECK(loaded->options.threads == 5);
    CHECK(loaded->options.listen.text() == "1.1.1.1:1");
    CHECK(loaded->policy.by_default.action == pgchaperone::policy::Action::block);
    CHECK(loaded->files.size() == 2);
}

TEST_CASE(
    "includes that are missing, circular or bring a second policy are told where they stand") {
    Files f;
    CHECK_FALSE(f.load("threads: 1\ninclude: [ nowhere.yaml ]\n").has_value());
    CHECK(f.complains("a.yaml:2:12: error: can't read the configuration nowhere.yaml"));
    CHECK_FALSE(f.load("include: a.yaml\n").has_value());
    CHECK(f.complains("includes itself"));
    f.files["base.yaml"] = "policy: { preset: agent }\n";
    CHECK_FALSE(f.load("include: base.yaml\npolicy: { preset: application }\n").has_value());
    CHECK(f.complains("a.yaml:2:1: error: a second policy: there is one at base.yaml:1:1"));
}

TEST_CASE("--policy names a preset, a file with a policy, or a file that is one") {
    Files f;
    f.files["whole.yaml"] = "threads: 3\npolicy: { default: block }\n";
    f.files["bare.yaml"] = "default: hold\n";
    Request request;
    request.policy = "whole.yaml";
    CHECK(f.load(request)->policy.by_default.action == pgchaperone::policy::Action::block);
    request.policy = "bare.yaml";
    CHECK(f.load(request)->policy.by_default.action == pgchaperone::policy::Action::hold);
    request.policy = "interactiv";
    CHECK_FALSE(f.load(request).has_value());
    CHECK(f.complains("did you mean \"interactive\"?"));
}

TEST_CASE("what show prints loads to the same, and shows the same again") {
    Files f;
    const auto loaded = f.load(
        "listen: \"[::1]:7\"\n"
        "policy:\n"
        "  preset: migration\n"
        "  mode: observe\n"
        "  default: { hold: { wait: 10s, approvals: 2, approvers: [lead] } }\n"
        "  approvers: [dba_*]\n"
        "  break_glass: { roles: [chief], require_reason: false }\n"
        "  rules:\n"
        "    - name: \"a: ${x:-b} $${c}\"\n"
        "      match: { command: \"drop *\", not: { user: [x, y], tls: true }, any: [ { time: { "
        "outside: [\"Mon-Fri 08:00-18:00\"], zone: Europe/Berlin } }, { client: [10.0.0.0/8, "
        "local] } ] }\n"
        "      action: { supervise: { max_rows: 5, max_fraction: 10%, max_rows_per_table: { "
        "\"public.*\": 3 }, max_rows_per_session: { rows: 9, window: 5m }, effects: total, "
        "catalog_changes: refuse, on_exceed: hold, lock_timeout: 2s } }\n"
        "      message: \"no {relations}: \\\"really\\\"\"\n"
        "      mode: observe\n");
    INFO(f.problems.text());
    REQUIRE(loaded.has_value());
    const std::string once = show(*loaded);
    const auto again = f.load(once);
    INFO(once << f.problems.text());
    REQUIRE(again.has_value());
    CHECK(show(*again) == once);
    CHECK(again->policy.rules.size() == loaded->policy.rules.size());
    CHECK_THAT(once, ContainsSubstring("zone: Europe/Berlin"));
    CHECK_THAT(once, ContainsSubstring("max_fraction: 0.1"));
}

TEST_CASE("the default configuration that is printed loads to the defaults") {
    Files f;
    const auto built_in = f.load();
    REQUIRE(built_in.has_value());
    const auto printed = f.load(default_configuration());
    INFO(f.problems.text());
    REQUIRE(printed.has_value());
    CHECK(show(*printed) == show(*built_in));
}

TEST_CASE("the JSON Schema is JSON and knows every setting and every condition") {
    const auto schema = boost::json::parse(json_schema());
    const auto& properties = schema.at("properties").as_object();
    for (const Setting& setting : settings()) {
        const std::string key(setting.key);
        const auto dot = key.find('.');
        INFO(key);
        if (dot == std::string::npos)
            CHECK(properties.contains(key));
        else
            CHECK(properties.at(key.substr(0, dot))
                      .at("properties")
                      .as_object()
                      .contains(key.substr(dot + 1)));
    }
    const auto& match = schema.at("$defs").at("match").at("properties").as_object();
    for (const auto& type : pgchaperone::policy::condition_types()) CHECK(match.contains(type.key));
    CHECK(pretty(boost::json::parse(pretty(schema))) == pretty(schema));
}
