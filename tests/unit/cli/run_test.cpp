#include "cli/cli.h"
#include "support/catch.h"

#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <unistd.h>
#include <vector>

using namespace pgchaperone;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::EndsWith;
using Catch::Matchers::StartsWith;

namespace {

struct Result {
    int status = 0;
    std::string out, err;
    std::vector<config::Options> served;
    std::vector<std::string> not_served;  // why
    std::vector<std::size_t> rules;       // of each server
};

Result run(std::vector<std::string> words) {
    words.insert(words.begin(), "pgchaperone");
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    std::ostringstream out, err;
    auto* old_out = std::cout.rdbuf(out.rdbuf());
    auto* old_err = std::cerr.rdbuf(err.rdbuf());
    Result result;
    result.status = cli::run(
        static_cast<int>(argv.size()), argv.data(),
        [&](const config::Loaded& loaded, const cli::Reload& reload) {
            result.served.push_back(loaded.options);
            result.rules.push_back(loaded.policy.rules.size());
            const cli::Reloaded again = reload();
            const bool same = again.loaded && config::show(*again.loaded) == config::show(loaded);
            return again.trouble.empty() && same ? 7 : 8;
        },
        [&](const std::string& why) { result.not_served.push_back(why); },
        [](const config::Loaded&) {
            return std::vector<cli::FileProblem>{{"", "audit.file", "it is elsewhere", true}};
        });
    std::cout.rdbuf(old_out);
    std::cerr.rdbuf(old_err);
    result.out = out.str();
    result.err = err.str();
    return result;
}

}  // namespace

TEST_CASE("help and version are no errors, wrong usage is trouble") {
    CHECK(run({"--help"}).status == 0);
    CHECK_THAT(run({"--help"}).out, ContainsSubstring("serve"));
    CHECK(run({"serve", "--help"}).status == 0);
    CHECK_THAT(run({"serve", "--help"}).out, ContainsSubstring("--upstream-tls-negotiation"));
    const Result version = run({"--version"});
    CHECK(version.status == 0);
    for (const char* part : {"pgchaperone ", "grammar: PostgreSQL ", "Boost 1.", "OpenSSL 3"}) {
        CHECK_THAT(version.out, ContainsSubstring(part));
    }
    CHECK(run({}).status == 2);
    CHECK(run({"swerve"}).status == 2);
    CHECK(run({"serve", "--lisen", "x"}).status == 2);
    CHECK(run({"explain"}).status == 2);
}

TEST_CASE(
    "serve hands over its options and a rule book that can be reloaded, and gives back the "
    "status") {
    const Result r = run({"serve", "--listen", "[::1]:7000", "--threads", "3", "--login-timeout",
                          "2s", "--policy", "agent"});
    CHECK(r.status == 7);
    REQUIRE(r.served.size() == 1);
    CHECK(r.served[0].listen.text() == "[::1]:7000");
    CHECK(r.served[0].threads == 3);
    CHECK(r.served[0].login_timeout == std::chrono::seconds(2));
    CHECK(r.rules[0] > 0);
}

TEST_CASE("serve does not start with what is wrong, and tells all of it") {
    const Result r = run({"serve", "--listen", "nowhere:x", "--threads", "-1", "--client-tls",
                          "yes", "--policy", "/nonexistent"});
    CHECK(r.status == 2);
    CHECK(r.served.empty());
    for (const char* part :
         {"--listen: error:", "--threads: error:", "--client-tls: error:", "--policy: error:"}) {
        CHECK_THAT(r.err, ContainsSubstring(part));
    }
    // The first of them, in one line.
    REQUIRE(r.not_served.size() == 1);
    CHECK_THAT(r.not_served[0], StartsWith("--") && ContainsSubstring(": error: ") &&
                                    EndsWith(" more)") && !ContainsSubstring("\n"));
    CHECK(run({"serve", "-c", "/nonexistent.yaml"}).status == 2);
    CHECK(run({"serve", "--listen", ""}).status == 2);
}

TEST_CASE("config prints what is built in") {
    CHECK_THAT(run({"config", "default"}).out, ContainsSubstring("no-unbounded-writes"));
    CHECK_THAT(run({"config", "schema"}).out, ContainsSubstring("json-schema.org"));
    CHECK_THAT(run({"config", "show", "--policy", "agent"}).out,
               ContainsSubstring("default: block"));
    CHECK(
        run({"config", "show", "--policy", "agent", "--only-policy"}).out.starts_with("policy:\n"));
    CHECK(run({"config", "show", "--only-policy", "--upstream", "billing"}).status == 2);
    CHECK(run({"config", "check", "/nonexistent.yaml"}).status == 2);
    CHECK(run({"config", "check"}).status == 2);
    CHECK(run({"config"}).status == 2);
}

TEST_CASE(
    "config check tells what is wrong with files where they are named, unless it is not to look") {
    const std::filesystem::path file = std::filesystem::temp_directory_path() /
                                       ("run_test-" + std::to_string(::getpid()) + ".yaml");
    std::ofstream(file) << "audit:\n  file: audit.jsonl\n";
    const Result r = run({"config", "check", file.string()});
    CHECK(r.status == 0);
    CHECK_THAT(r.err,
               ContainsSubstring(file.string() + ":2:9: warning: audit.file: it is elsewhere"));
    CHECK(run({"config", "check", "--strict", file.string()}).status == 2);
    CHECK(run({"config", "check", "--strict", "--no-files", "-c", file.string()}).status == 0);
    std::filesystem::remove(file);
}

TEST_CASE("explain prints facts, rules and the decision") {
    const Result r = run({"explain", "--user", "clerk", "DELETE FROM orders"});
    CHECK(r.status == 0);
    for (const char* part : {"unbounded", "writes        orders", "APPLIES", "not reached",
                             "Decision: block, by rule", "HINT"}) {
        CHECK_THAT(r.out, ContainsSubstring(part));
    }
    CHECK(run({"explain", "--at", "noon", "SELECT 1"}).status == 2);
    CHECK_THAT(run({"explain", "--policy", "application", "--format", "json", "SELECT 1"}).out,
               ContainsSubstring("\"action\": \"allow\""));
    CHECK_THAT(run({"explain", "-- nothing"}).out, ContainsSubstring("no statement"));
}
