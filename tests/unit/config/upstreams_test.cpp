// The list `upstreams:`.
#include "config/upstreams.h"
#include "config/loader.h"
#include "support/catch.h"

#include <algorithm>

using namespace pgchaperone::config;
using Catch::Matchers::ContainsSubstring;

namespace {

struct Outcome {
    std::optional<Loaded> loaded;
    std::string problems;
};

Outcome load(const std::string& text,
             std::vector<std::pair<const Setting*, std::string>> overrides = {}) {
    Surroundings surroundings;
    surroundings.read_file = [&](const std::filesystem::path&) -> Parsed<std::string> {
        return {boost::system::in_place_value, text};
    };
    surroundings.environment = [](const std::string&) { return std::nullopt; };
    Request request;
    request.file = "a.yaml";
    request.overrides = std::move(overrides);
    Problems problems;
    Outcome out;
    out.loaded = pgchaperone::config::load(request, problems, surroundings);
    out.problems = problems.text();
    return out;
}

const std::string two = R"(listen: 127.0.0.1:7000
upstream: db1:5432
environment: STAGING
idle_timeout: 10m
upstream_tls:
  mode: verify-full
  ca: ca.pem
policy: { preset: interactive }
upstreams:
  - name: billing
    databases: [ billing, "billing_*" ]
    upstream: db2:5433
    environment: PRODUCTION
    upstream_tls: { ca: billing.pem }
    policy:
      default: block
      rules: []
  - name: agents
    listen: 127.0.0.1:7001
    policy: { preset: agent }
)";

}  // namespace

TEST_CASE("an upstream has what it says, and the rest from the top level") {
    const auto [loaded, problems] = load(two);
    INFO(problems);
    REQUIRE(loaded);
    CHECK(problems.empty());
    REQUIRE(loaded->upstreams.size() == 2);
    CHECK(loaded->options.environment == "STAGING");
    CHECK(loaded->options.databases.front().text() == "*");

    const Upstream& billing = loaded->upstreams[0];
    CHECK(billing.name == "billing");
    CHECK(billing.options.listen.text() == "127.0.0.1:7000");
    CHECK(billing.options.upstream.text() == "db2:5433");
    CHECK(billing.options.environment == "PRODUCTION");
    CHECK(billing.options.idle_timeout == std::chrono::minutes(10));
    CHECK(billing.options.upstream_tls.mode == TlsMode::verify_full);
    CHECK(billing.options.upstream_tls.ca == "billing.pem");
    REQUIRE(billing.options.databases.size() == 2);
    CHECK(billing.options.databases[1].matches("billing_2"));
    CHECK(billing.policy.by_default.action == pgchaperone::policy::Action::block);
    CHECK(same_listener(billing, loaded->options));

    const Upstream& agents = loaded->upstreams[1];
    CHECK(agents.options.upstream.text() == "db1:5432");
    CHECK(agents.options.environment == "STAGING");
    CHECK(agents.options.databases.front().text() == "*");
    CHECK_FALSE(same_listener(agents, loaded->options));
    CHECK_FALSE(agents.policy.rules.empty());
}

TEST_CASE("what is said behind the upstreams, or on the command line, is taken over, too") {
    const auto [loaded, problems] = load(
        "upstreams: [ { name: b, databases: b } ]\nconnect_timeout: 3s\n",
        {{find_setting("environment"), "TEST"}});
    INFO(problems);
    REQUIRE(loaded);
    CHECK(loaded->upstreams[0].options.connect_timeout == std::chrono::seconds(3));
    CHECK(loaded->upstreams[0].options.environment == "TEST");
    CHECK(loaded->upstreams[0].policy.source == loaded->policy.source);
}

TEST_CASE("mistakes in upstreams are told at their place") {
    const struct {
        const char* text;
        const char* place;
        const char* message;
    } mistakes[] = {
        {"upstreams: db2", "1:12", "upstreams must be a list"},
        {"upstreams:\n  - databases: b\n", "2:5", "has no name"},
        {"upstreams:\n  - { name: b c, databases: b }\n", "2:13", "is one word"},
        {"upstreams:\n  - { name: b, databases: b }\n  - { name: b, databases: c }\n", "3:13",
         "a second upstream of the name \"b\""},
        {"upstreams:\n  - { name: b }\n", "2:5", "nobody would come to this one"},
        {"upstreams:\n  - { name: b, databases: b, login_timeout: 3s }\n", "2:45",
         "login_timeout belongs to the listener"},
        {"upstreams:\n  - { name: b, databases: b, threads: 3 }\n", "2:30",
         "unknown key \"threads\""},
        {"upstreams:\n  - { name: b, databases: b, web: { listen: '127.0.0.1:1' } }\n", "2:37",
         "unknown key \"listen\""},
        {"upstreams:\n  - { name: b, databases: b, connect_timeout: soon }\n", "2:47",
         "connect_timeout"},
        {"upstreams:\n  - { name: b, databases: [] }\n", "2:27", "databases"},
        {"upstreams:\n  - { name: b, databases: b, policy: { default: blok } }\n", "2:49",
         "did you mean \"block\"?"},
        {"upstreams:\n  - { name: b, databases: b, authentication: users }\n", "2:46",
         "nobody could log in"},
        {"upstreams:\n  - { name: a, databases: '*' }\n  - { name: b, databases: b }\n", "3:27",
         "no client comes to \"b\": \"a\" before it takes all of its databases"},
        {"upstreams:\n  - { name: a, listen: '127.0.0.1:7', databases: a }\n"
         "  - { name: b, listen: '127.0.0.1:7', databases: b, login_timeout: 5s }\n",
         "3:68", "\"a\" wants another, and both listen at 127.0.0.1:7"},
        {"upstreams:\n  - { name: b, listen: '127.0.0.1:6432', databases: b, login_timeout: 5s }\n",
         "2:71", "the top level wants another"},
        {"upstreams:\n  - { name: b, listen: '127.0.0.1:5432' }\n", "2:24",
         "the proxy would connect to itself"},
    };
    for (const auto& mistake : mistakes) {
        const auto [loaded, problems] = load(mistake.text);
        INFO(mistake.text << problems);
        CHECK_FALSE(loaded);
        CHECK_THAT(problems, ContainsSubstring(std::string("a.yaml:") + mistake.place + ": error"));
        CHECK_THAT(problems, ContainsSubstring(mistake.message));
    }
}

TEST_CASE("a server of the top level that nobody comes to is worth a warning") {
    const auto [loaded, problems] = load("upstreams: [ { name: b, databases: '*' } ]\n");
    CHECK(loaded);
    CHECK_THAT(problems,
               ContainsSubstring("warning: no client comes to the server of the top level"));
    const auto narrow = load("databases: [ shop ]\nupstreams: [ { name: b, databases: 'b*' } ]\n");
    CHECK(narrow.loaded);
    CHECK(narrow.problems.empty());
}

TEST_CASE("a mistake that the top level has is told once") {
    const std::string
        problems = load("authentication: users\nupstreams: [ { name: b, databases: b } ]\n")
                       .problems;
    const auto first = problems.find("nobody could log in");
    REQUIRE(first != std::string::npos);
    CHECK(problems.find("nobody could log in", first + 1) == std::string::npos);
}

TEST_CASE("what show prints of upstreams loads to the same") {
    const auto first = load(two);
    REQUIRE(first.loaded);
    const std::string text = show(*first.loaded);
    const auto again = load(text);
    INFO(text << again.problems);
    REQUIRE(again.loaded);
    CHECK(show(*again.loaded) == text);
    REQUIRE(again.loaded->upstreams.size() == 2);
    for (std::size_t i = 0; i < 2; ++i) {
        CHECK(changed_for_restart(first.loaded->upstreams[i].options,
                                  again.loaded->upstreams[i].options)
                  .empty());
        CHECK(first.loaded->upstreams[i].policy.rules.size() ==
              again.loaded->upstreams[i].policy.rules.size());
    }
}

TEST_CASE("what of upstreams needs a restart is known") {
    const auto changed = [&](const std::string& from, const std::string& to) {
        std::string text = two;
        text.replace(text.find(from), from.size(), to);
        const auto was = load(two), is = load(text);
        REQUIRE(is.loaded);
        return changed_for_restart(was.loaded->upstreams, is.loaded->upstreams);
    };
    using Keys = std::vector<std::string>;
    CHECK(changed("PRODUCTION", "LIVE") == Keys{});
    CHECK(changed("db2:5433", "db3:5433") == Keys{"upstreams.billing.upstream"});
    CHECK(changed("billing.pem", "other.pem") == Keys{"upstreams.billing.upstream_tls.ca"});
    CHECK(changed("127.0.0.1:7001", "127.0.0.1:7002") == Keys{"upstreams.agents.listen"});
    CHECK(changed("name: agents", "name: robots") == Keys{"upstreams"});
}
