// docs/policy.md against what the program does: each condition's example judges statements, and the
// commands that the page shows run.
#include "cli/cli.h"
#include "cli/verdict.h"
#include "config/policy_loader.h"
#include "support/catch.h"

#include <boost/json.hpp>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <sstream>

using namespace pgchaperone;
using Catch::Matchers::ContainsSubstring;

namespace {

std::string page() {
    std::ifstream in(std::string(PGCHAPERONE_DOCS) + "/policy.md");
    std::string text{std::istreambuf_iterator<char>(in), {}};
    REQUIRE_FALSE(text.empty());
    return text;
}

// The fenced block that begins with `fence` and holds `part`.
std::string block(const std::string& fence, const std::string& part) {
    const std::string text = page();
    const std::string open = "\n" + fence + "\n";
    for (std::size_t at = text.find(open); at != std::string::npos; at = text.find(open, at)) {
        at += open.size();
        const std::string found = text.substr(at, text.find("\n```", at) + 1 - at);
        if (found.find(part) != std::string::npos) return found;
    }
    FAIL("no block " << fence << " with " << part);
    return {};
}

struct Run {
    int status = 0;
    std::string out;
};

Run run(std::vector<std::string> words) {
    words.insert(words.begin(), "pgchaperone");
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    std::ostringstream out;
    auto* before = std::cout.rdbuf(out.rdbuf());
    Run result;
    result.status = cli::run(
        static_cast<int>(argv.size()), argv.data(), [](const auto&, auto) { return 99; },
        [](const auto&) {}, [](const auto&) { return std::vector<cli::FileProblem>(); });
    std::cout.rdbuf(before);
    result.out = out.str();
    return result;
}

class TemporaryFile {
public:
    TemporaryFile(const std::string& suffix, const std::string& text)
        : path_(std::filesystem::temp_directory_path() /
                ("pgchaperone-docs-" + std::to_string(reinterpret_cast<std::uintptr_t>(this)) +
                 suffix)) {
        std::ofstream(path_) << text;
    }
    ~TemporaryFile() { std::filesystem::remove(path_); }
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;
    std::string name() const { return path_.string(); }

private:
    std::filesystem::path path_;
};

policy::Policy one_rule(const std::string& match) {
    config::Problems problems;
    const config::Surroundings nothing;
    config::YamlReader reader("example", problems, nothing);
    config::PolicyLoader loader(problems, nothing);
    policy::Policy policy = loader.load(
        reader, *reader.parse("rules: [ { name: r, match: { " + match + " }, action: block } ]"),
        {});
    INFO(problems.text());
    REQUIRE(problems.empty());
    policy.seal();
    return policy;
}

// A statement in a session: "user=clerk, tls | DELETE FROM t".
bool applies(const policy::Policy& policy, const std::string& scene) {
    cli::SessionWords words;
    words.user = "app";
    words.database = "shop";
    const auto bar = scene.find(" | ");
    std::istringstream session(bar == std::string::npos ? "" : scene.substr(0, bar));
    for (std::string word; session >> word;) {
        const std::string key = word.substr(0, word.find('='));
        const std::string value = word.find('=') == std::string::npos
                                      ? ""
                                      : word.substr(word.find('=') + 1);
        if (key == "user") words.user = value;
        if (key == "database") words.database = value;
        if (key == "client") words.client = value;
        if (key == "application_name") words.application_name = value;
        if (key == "at") words.at = value;
        if (key == "tls") words.tls = true;
        if (key == "replication") words.replication = true;
        if (key == "in_transaction") words.in_transaction = true;
    }
    const auto here = cli::situation(
        words, [](const std::string& name, const std::string& why) { FAIL(name << ": " << why); });
    const std::string sql = bar == std::string::npos ? scene : scene.substr(bar + 3);
    const cli::Verdict verdict = cli::judge(policy, sql, *here);
    REQUIRE(verdict.statements.size() == 1);
    return verdict.statements[0].rule != nullptr;
}

struct Scenes {
    const char* applies;
    const char* does_not;
};

const std::map<std::string_view, Scenes> scenes = {
    {"all", {"user=clerk | INSERT INTO t VALUES (1)", "user=app | INSERT INTO t VALUES (1)"}},
    {"any", {"SELECT f()", "SELECT 1"}},
    {"not", {"user=clerk | SELECT 1", "user=dba_ann | SELECT 1"}},
    {"command", {"DROP TABLE t", "INSERT INTO t VALUES (1)"}},
    {"class", {"CREATE TABLE t (a int)", "SELECT 1"}},
    {"relation", {"SELECT * FROM audit.log", "SELECT * FROM hr.orders"}},
    {"reads", {"SELECT * FROM hr.pay", "DELETE FROM hr.pay WHERE id = 1"}},
    {"writes", {"DELETE FROM billing.a WHERE id = 1", "SELECT * FROM billing.a"}},
    {"function", {"SELECT dblink_exec('x')", "SELECT now()"}},
    {"setting", {"SET LOCAL lock_timeout = 1", "SET datestyle = iso"}},
    {"unbounded", {"DELETE FROM t", "DELETE FROM t WHERE id = 1"}},
    {"destructive", {"ALTER TABLE t DROP COLUMN a", "ALTER TABLE t ADD COLUMN a int"}},
    {"dangerous", {"GRANT ALL ON t TO PUBLIC", "SELECT 1"}},
    {"blocking", {"CREATE INDEX ON t (a)", "CREATE INDEX CONCURRENTLY i ON t (a)"}},
    {"opaque", {"CALL p()", "SELECT 1"}},
    {"unparsable", {"SELEC 1", "SELECT 1"}},
    {"runs_in_transaction", {"VACUUM", "SELECT 1"}},
    {"controls_transaction", {"SAVEPOINT a", "SELECT 1"}},
    {"user", {"user=dba_ann | SELECT 1", "user=app | SELECT 1"}},
    {"database", {"database=shop | SELECT 1", "database=other | SELECT 1"}},
    {"client", {"client=10.1.2.3 | SELECT 1", "client=192.168.0.1 | SELECT 1"}},
    {"application_name",
     {"application_name=DBeaver-23 | SELECT 1", "application_name=psql | SELECT 1"}},
    {"tls", {"SELECT 1", "tls | SELECT 1"}},
    {"replication", {"replication | SELECT 1", "SELECT 1"}},
    {"in_transaction", {"SELECT 1", "in_transaction | SELECT 1"}},
    {"time", {"at=2026-11-21T12:00 | SELECT 1", "at=2026-11-20T12:00 | SELECT 1"}},
    {"text", {"SELECT 1 /* No-Proxy */", "SELECT 1"}},
};

}  // namespace

TEST_CASE("every condition's example applies to what it should, and to nothing else") {
    for (const policy::ConditionType& type : policy::condition_types()) {
        INFO(type.key << ": " << type.example);
        const auto at = scenes.find(type.key);
        REQUIRE(at != scenes.end());
        const policy::Policy policy = one_rule(std::string(type.example));
        CHECK(applies(policy, at->second.applies));
        CHECK_FALSE(applies(policy, at->second.does_not));
    }
}

TEST_CASE("docs/policy.md shows every term of supervise and hold") {
    const Run schema = run({"config", "schema"});
    REQUIRE(schema.status == 0);
    const boost::json::value root = boost::json::parse(schema.out);
    const std::string example = block("```yaml", "ticket_ttl");
    for (const char* action : {"supervise", "hold"}) {
        const auto& terms = root.at("$defs").at(action).at("properties").as_object();
        CHECK(terms.size() > 5);
        for (const auto& term : terms) {
            INFO(action << ": " << term.key());
            CHECK_THAT(example, ContainsSubstring("  " + std::string(term.key()) + ":"));
            if (action == std::string_view("supervise"))
                CHECK_THAT(page(), ContainsSubstring("\n| `" + std::string(term.key()) + "` | "));
        }
    }
}

TEST_CASE("what docs/policy.md shows of explain, test and check is so") {
    const TemporaryFile cases(".yaml", block("```yaml cases", "cases:"));
    const Run test = run({"test", cases.name()});
    INFO(test.out);
    CHECK(test.status == 0);
    const TemporaryFile migration(".sql", block("```", "chaperone: allow"));
    const Run check = run({"check", migration.name()});
    INFO(check.out);
    CHECK(check.status == 0);
    CHECK_THAT(check.out, ContainsSubstring("1 waived"));
    CHECK_THAT(page(), ContainsSubstring("\npgchaperone explain -c guard.yaml --user clerk --at "
                                         "2026-03-01T22:15 \"DELETE FROM orders\"\n"));
    CHECK(run({"explain", "--user", "clerk", "--at", "2026-03-01T22:15", "DELETE FROM orders"})
              .status == 0);
}
