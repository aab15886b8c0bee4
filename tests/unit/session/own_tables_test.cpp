#include "proxy/session/own_tables.h"

#include "support/catch.h"

#include <utility>

using namespace pgchaperone;
using session::OwnTables;

namespace {

policy::Analysis text(std::string_view sql, std::vector<std::string> commands,
                      std::string made = {}, bool temporary = true) {
    policy::Analysis analysis;
    analysis.text = sql;
    policy::StatementFacts facts;
    facts.command = commands.front();
    facts.commands = std::move(commands);
    if (!made.empty()) facts.tables_created.push_back({"", "", std::move(made)});
    facts.creates_temporary = temporary;
    facts.drops_on_commit = sql.find("ON COMMIT DROP") != std::string_view::npos;
    analysis.statements.push_back(std::move(facts));
    return analysis;
}

const policy::Analysis create = text("CREATE TEMP TABLE x (a int)", {"CREATE TABLE"}, "x");

}  // namespace

TEST_CASE("a temporary table is the session's own from the moment the server made it") {
    OwnTables own;
    own.sent(create, 1);
    CHECK(own.names().empty());
    own.settled(1, true);
    REQUIRE(own.names().size() == 1);
    CHECK(own.names()[0].name == "x");
    own.transaction_ended();
    CHECK(own.names().size() == 1);
}

TEST_CASE("a table that was not made does not count") {
    OwnTables own;
    own.sent(create, 1);
    own.settled(1, false);
    CHECK(own.names().empty());
    own.sent(create, 2);
    own.settled(3, true);
    CHECK(own.names().empty());
}

TEST_CASE("an error takes what the open transaction made and leaves what was committed") {
    OwnTables own;
    own.sent(create, 1);
    own.settled(1, true);
    own.transaction_ended();
    own.sent(text("create temp table y (a int)", {"CREATE TABLE"}, "y"), 2);
    own.settled(2, true);
    CHECK(own.names().size() == 2);
    own.failed();
    REQUIRE(own.names().size() == 1);
    CHECK(own.names()[0].name == "x");
}

TEST_CASE("a table that goes with the commit is own until then only") {
    OwnTables own;
    own.sent(text("CREATE TEMP TABLE x (a int) ON COMMIT DROP", {"CREATE TABLE"}, "x"), 1);
    own.settled(1, true);
    CHECK(own.names().size() == 1);
    own.transaction_ended();
    CHECK(own.names().empty());
}

TEST_CASE("a permanent table counts for the next few statements only") {
    OwnTables own;
    own.sent(text("CREATE TABLE p (a int)", {"CREATE TABLE"}, "p", false), 1);
    own.settled(1, true);
    own.transaction_ended();
    const policy::Analysis select = text("SELECT 1", {"SELECT"});
    for (std::uint64_t i = 0; i < policy::permanent_statements_max; ++i) {
        CHECK(own.names().size() == 1);
        own.sent(select, 2 + i);
    }
    own.sent(select, 100);
    CHECK(own.names().empty());
}

TEST_CASE("whatever is not on the short list of plain commands ends every name's time") {
    for (const char* command :
         {"DROP SCHEMA", "ALTER TABLE", "ROLLBACK", "DISCARD ALL", "EXECUTE", "CREATE VIEW",
          "CREATE SCHEMA", "CREATE FUNCTION", "DO", "SET", "FETCH", "SAVEPOINT", "CALL"}) {
        OwnTables own;
        own.sent(create, 1);
        own.settled(1, true);
        own.transaction_ended();
        own.sent(text("...", {command}), 2);
        CHECK(own.names().empty());
    }
    OwnTables own;
    own.sent(create, 1);
    own.settled(1, true);
    own.sent(text("SELECT 1", {"SELECT"}), 2);
    CHECK(own.names().size() == 1);
    own.doubt();
    CHECK(own.names().empty());
}

TEST_CASE("a dropped table's name goes, and the others stay") {
    OwnTables own;
    own.sent(create, 1);
    own.settled(1, true);
    own.sent(text("CREATE TEMP TABLE y (a int)", {"CREATE TABLE"}, "y"), 2);
    own.settled(2, true);
    policy::Analysis drop = text("DROP TABLE y", {"DROP TABLE"});
    drop.statements[0].written = {{"", "pg_temp", "y"}};
    own.sent(drop, 3);
    REQUIRE(own.names().size() == 1);
    CHECK(own.names()[0].name == "x");
}

TEST_CASE("a table that goes along with another is not the session's own") {
    policy::Analysis child = create;
    child.statements[0].creates_child = true;
    OwnTables own;
    own.sent(child, 1);
    own.settled(1, true);
    CHECK(own.names().empty());
}

TEST_CASE("what makes names doubtful does so for the session's life") {
    policy::Analysis path = text("SET search_path = public, pg_temp", {"SET"});
    path.statements[0].moves_pg_temp = true;
    policy::Analysis view = text("CREATE VIEW x AS ...", {"CREATE VIEW"});
    view.statements[0].written = {{"", "", "x"}};
    policy::Analysis renamed = text("ALTER TABLE v RENAME TO x", {"ALTER TABLE"});
    renamed.statements[0].written = {{"", "", "v"}, {"", "", "x"}};
    for (const policy::Analysis& before : {path, view, renamed}) {
        INFO(before.text);
        OwnTables own;
        own.sent(before, 1);
        own.settled(1, true);
        own.transaction_ended();
        own.sent(create, 2);
        own.settled(2, true);
        CHECK(own.names().empty());
        CHECK_FALSE(own.doubts().none());
    }
    for (const char* option : {"-c search_path=public,pg_temp", "public, PG_Temp"}) {
        OwnTables own;
        own.started_with(option);
        own.sent(create, 1);
        own.settled(1, true);
        CHECK(own.names().empty());
    }
}

TEST_CASE("only a text that is a single making of a table makes one") {
    policy::Analysis two = create;
    two.statements.push_back(text("SELECT 1", {"SELECT"}).statements[0]);
    for (const policy::Analysis& analysis :
         {two, text("EXPLAIN ...", {"EXPLAIN", "CREATE TABLE AS"}, "x"),
          text("DO ...", {"DO", "CREATE TABLE"}, "x"),
          text("CREATE SCHEMA ...", {"CREATE SCHEMA", "CREATE TABLE"}, "x"),
          text("PREPARE ...", {"PREPARE", "SELECT INTO"}, "x")}) {
        OwnTables own;
        own.sent(analysis, 1);
        own.settled(1, true);
        CHECK(own.names().empty());
    }
}
