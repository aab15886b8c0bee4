#include "cli/check.h"
#include "config/loader.h"
#include "policy/own_tables.h"
#include "support/catch.h"

#include <boost/json.hpp>

#include <sstream>

using namespace pgchaperone;
using namespace pgchaperone::cli;
using Catch::Matchers::ContainsSubstring;

namespace {

struct Check {
    std::vector<Finding> findings;
    Totals totals;
};

const policy::Policy& migration() {
    static const policy::Policy loaded = [] {
        config::Problems problems;
        config::Request request;
        request.default_preset = "migration";
        auto result = config::load(request, problems, config::real_surroundings());
        REQUIRE(result.has_value());
        result->policy.seal();
        return std::move(result->policy);
    }();
    return loaded;
}

Check check(const std::string& text) {
    Check result;
    const auto here = situation({}, [](const std::string&, const std::string&) {});
    REQUIRE(here.has_value());
    result.findings = check_script(migration(), *here, "m.sql", text, result.totals);
    return result;
}

}  // namespace

TEST_CASE("a finding stands at its statement, with rule and reason") {
    const Check c = check(
        "-- a migration\nALTER TABLE t ADD COLUMN a int;\n\n  DELETE FROM orders;\nDROP INDEX "
        "i;\n");
    REQUIRE(c.findings.size() == 1);
    const Finding& f = c.findings[0];
    CHECK(f.line == 4);
    CHECK(f.column == 3);
    CHECK(f.end_column == 21);
    CHECK(f.rule == "no-unbounded-writes");
    CHECK(f.source_line == "  DELETE FROM orders;");
    CHECK_THAT(f.message, ContainsSubstring("it has no WHERE and would touch every row of orders"));
    CHECK(c.totals.statements == 3);
    CHECK(c.totals.errors == 1);
}

TEST_CASE("a waiver with a reason waives its rule at its statement and is reported") {
    for (const char* text : {"-- chaperone: allow no-unbounded-writes because the table is a "
                             "cache\nDELETE FROM cache;",
                             "DELETE FROM cache; -- chaperone: allow no-unbounded-writes because "
                             "the table is a cache\n",
                             "DELETE /* Chaperone: ALLOW no-unbounded-writes BECAUSE the table is "
                             "a cache */ FROM cache;"}) {
        INFO(text);
        const Check c = check(text);
        REQUIRE(c.findings.size() == 1);
        CHECK(c.findings[0].waived);
        CHECK(c.findings[0].waiver == "the table is a cache");
        CHECK(c.totals.errors == 0);
        CHECK(c.totals.waived == 1);
    }
}

TEST_CASE("a waiver without reason, for another rule, or at another statement does not count") {
    CHECK(check("-- chaperone: allow no-unbounded-writes\nDELETE FROM t;").totals.errors == 2);
    CHECK(check("-- chaperone: allow no-data-loss because x\nDELETE FROM t;").totals.errors == 1);
    CHECK(check("-- chaperone: allow no-data-loss because x\nDELETE FROM t;").totals.warnings == 1);
    CHECK(check("-- chaperone: allow no-unbounded-writes because x\nSELECT 1;\nDELETE FROM t;")
              .totals.errors == 1);
    CHECK(check("-- chaperone: allow because x\nSELECT 1;").totals.warnings == 1);
    CHECK(check("SELECT '-- chaperone: allow no-unbounded-writes because x'; DELETE FROM t;")
              .totals.errors == 1);
}

TEST_CASE("what a text can't be read as is a finding, and variables don't make it one") {
    CHECK(check("SELEC 1;").findings.at(0).rule == "unparsable");
    CHECK(check("UPDATE t SET a = :v WHERE id = :id;").totals.errors == 0);
    CHECK(check("INSERT INTO ${schema}.t VALUES (:'x');").totals.errors == 0);
    CHECK(check("DELETE FROM :tbl;").findings.at(0).rule == "no-unbounded-writes");
    CHECK(check("SELECT a[1:n] FROM t;").totals.errors == 0);
}

TEST_CASE("headers of migration tools and psql's commands are tolerated") {
    CHECK(check("--liquibase formatted sql\n--changeset anna:1 runInTransaction:false\nCREATE "
                "TABLE t (a int);\n--rollback DROP TABLE t;\n")
              .totals.errors == 0);
    CHECK(check("-- flyway:executeInTransaction=false\n\\set ON_ERROR_STOP on\nBEGIN;\nCREATE "
                "TABLE ${t} (a int);\nCOMMIT;\n")
              .totals.errors == 0);
}

TEST_CASE("what only an observing rule minds is a warning") {
    const Check c = check("CREATE INDEX i ON t (a);");
    REQUIRE(c.findings.size() == 1);
    CHECK(c.findings[0].level == Finding::Level::warning);
    CHECK(c.totals.errors == 0);
}

TEST_CASE("the formats say the same in their own ways") {
    const Check c = check("DELETE FROM \"a,b:c%\";\n");
    std::ostringstream text, json, sarif, github;
    print_text(c.findings, c.totals, false, text);
    CHECK_THAT(text.str(), ContainsSubstring("m.sql:1:1: error: this DELETE would be blocked"));
    CHECK_THAT(text.str(),
               ContainsSubstring("  1 | DELETE FROM \"a,b:c%\";\n    | ^~~~~~~~~~~~~~~~~~~~\n"));
    CHECK_THAT(text.str(), ContainsSubstring("1 file, 1 statement: 1 finding\n"));
    print_json(c.findings, c.totals, json);
    CHECK(boost::json::parse(json.str()).at("findings").at(0).at("rule") == "no-unbounded-writes");
    print_sarif(migration(), c.findings, sarif);
    const auto run = boost::json::parse(sarif.str()).at("runs").at(0);
    const auto& result = run.at("results").at(0);
    CHECK(run.at("tool").at("driver").at("rules").at(result.at("ruleIndex").as_int64()).at("id") ==
          result.at("ruleId"));
    print_github(c.findings, c.totals, github);
    CHECK_THAT(github.str(),
               ContainsSubstring(
                   "::error file=m.sql,line=1,col=1,endLine=1,endColumn=21,title=pgchaperone%3A "
                   "no-unbounded-writes::"));
    CHECK_THAT(github.str(), ContainsSubstring("\"a,b:c%25\""));
}

TEST_CASE("text that is not UTF-8 and very long lines are still shown") {
    const Check c = check("SELECT '" + std::string(5000, 'x') + "'; DELETE FROM \"\xff\";");
    std::ostringstream text, json;
    print_text(c.findings, c.totals, false, text);
    CHECK(text.str().size() < 2000);
    print_json(c.findings, c.totals, json);
    CHECK(boost::json::parse(json.str()).at("findings").as_array().size() >= 1);
}

TEST_CASE("tables that the file has just made are its own") {
    CHECK(check("CREATE TEMP TABLE tt AS SELECT 1 a;\nTRUNCATE tt;\nDROP TABLE tt;\n")
              .findings.empty());
    CHECK(check("BEGIN;\nCREATE TABLE tt (a int);\n\\echo filling\nDELETE FROM tt;\nCOMMIT;\n")
              .findings.empty());
    for (const char* text :
         {"TRUNCATE tt;", "CREATE TEMP TABLE tt (a int); DROP TABLE tt; TRUNCATE tt;",
          "CREATE TABLE IF NOT EXISTS tt (a int); TRUNCATE tt;",
          "CREATE TEMP TABLE tt (a int) ON COMMIT DROP; TRUNCATE tt;",
          "CREATE TEMP TABLE tt (a int);\n\\c other\nTRUNCATE tt;",
          "CREATE TEMP TABLE tt (a int);\n\\i more.sql\nTRUNCATE tt;",
          "\\if :x\nCREATE TEMP TABLE tt (a int);\n\\endif\nTRUNCATE tt;",
          "CREATE TEMP TABLE tt (a int);\n\\set ON_ERROR_STOP off\nTRUNCATE tt;",
          "CREATE TEMP TABLE tt (a int);\nSELECT 'x' \\gexec\nTRUNCATE tt;",
          "CREATE VIEW tt AS SELECT * FROM orders;\nCREATE TABLE tt (a int);\nTRUNCATE tt;"}) {
        INFO(text);
        CHECK(check(text).totals.errors == 1);
    }
    // Others may have come to use a permanent table after a while.
    std::string later = "CREATE TABLE tt (a int);\n";
    for (std::uint64_t i = 0; i <= policy::permanent_statements_max; ++i) later += "SELECT 1;\n";
    CHECK(check(later + "TRUNCATE tt;").totals.errors == 1);
}

TEST_CASE("what a changeset made does not count in the next, which may run alone") {
    const std::string
        head = "--liquibase formatted sql\n--changeset a:1\nCREATE TABLE tt (a int);\n";
    CHECK(check(head + "TRUNCATE tt;").findings.empty());
    CHECK(check(head + "--changeset a:2\nTRUNCATE tt;").totals.errors == 1);
}

TEST_CASE("placeholders stand for a value or a name, and what else can't be read is said") {
    CHECK(check("DELETE FROM ${schema}.orders_${env} WHERE day < ${day};").findings.empty());
    CHECK(check("INSERT INTO t VALUES ('${a}', ${b});").findings.empty());
    CHECK(check("DELETE FROM ${schema}.orders;").totals.errors == 1);
    const Check more = check("${statement};");
    REQUIRE(more.findings.size() == 1);
    CHECK(more.findings[0].rule == "unparsable");
}
