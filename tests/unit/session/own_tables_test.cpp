#include "proxy/session/own_tables.h"

#include "support/catch.h"

using namespace pgchaperone;
using session::OwnTables;

namespace {

policy::Analysis text(std::string_view sql, std::vector<std::string> commands,
                      std::vector<std::string> made = {}) {
    policy::Analysis analysis;
    analysis.text = sql;
    policy::StatementFacts facts;
    facts.command = commands.front();
    facts.commands = std::move(commands);
    for (std::string& name : made) facts.tables_created.push_back({"", "", std::move(name)});
    analysis.statements.push_back(std::move(facts));
    return analysis;
}

const policy::Analysis create = text("CREATE TEMP TABLE x (a int)", {"CREATE TABLE"}, {"x"});

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

TEST_CASE("a temporary table that was not made does not count") {
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
    own.sent(text("create temp table y (a int)", {"CREATE TABLE"}, {"y"}), 2);
    own.settled(2, true);
    CHECK(own.names().size() == 2);
    own.failed();
    REQUIRE(own.names().size() == 1);
    CHECK(own.names()[0].name == "x");
}

TEST_CASE("a table that goes with the commit is own until then only") {
    OwnTables own;
    own.sent(text("CREATE TEMP TABLE x (a int) ON COMMIT DROP", {"CREATE TABLE"}, {"x"}), 1);
    own.settled(1, true);
    CHECK(own.names().size() == 1);
    own.transaction_ended();
    CHECK(own.names().empty());
}

TEST_CASE("whatever makes a name doubtful ends its time as soon as it is sent") {
    for (const char* command :
         {"DROP TABLE", "ALTER TABLE", "ROLLBACK", "DISCARD ALL", "EXECUTE"}) {
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
