// What came of statements that leave a record, message by message.
#include "support/catch.h"
#include "support/session_host.h"

#include "policy/rule.h"

using namespace pgchaperone;
using namespace pgchaperone::test;
using namespace std::chrono_literals;

namespace {

// Wants a record of every statement but SELECT, BEGIN and the like; refuses DELETE.
policy::Judgement recorded(const session::Judge& question, policy::AuditDetail detail) {
    static constexpr std::string_view plain[] = {"SELECT", "BEGIN", "COMMIT", "ROLLBACK"};
    policy::Judgement judgement;
    auto analysis = std::make_shared<policy::Analysis>();
    analysis->text = question.analysis ? question.analysis->text : std::string(question.sql);
    analysis->fingerprint = 7;
    std::size_t at = 0;
    bool any = false;
    while (at < analysis->text.size()) {
        const std::size_t end = std::min(analysis->text.find(';', at), analysis->text.size());
        policy::StatementFacts facts;
        facts.location = static_cast<std::uint32_t>(at);
        facts.length = static_cast<std::uint32_t>(end - at);
        facts.command = analysis->text.substr(at, std::min(analysis->text.find(' ', at), end) - at);
        facts.commands = {facts.command};
        facts.copies_in = facts.command == "COPY";
        facts.runs_in_transaction = facts.command != "VACUUM";
        policy::Decision decision;
        decision.rule = "note";
        decision.audit = std::find(std::begin(plain), std::end(plain), facts.command) ==
                         std::end(plain);
        decision.audit_detail = detail;
        if (facts.command == "DELETE") {
            decision.action = policy::Action::block;
            decision.refusal.message = "no DELETE";
        }
        any = any || decision.audit;
        judgement.decisions.push_back(std::move(decision));
        analysis->statements.push_back(std::move(facts));
        at = end + 1;
    }
    judgement.analysis = std::move(analysis);
    if (!any) judgement.decisions.clear();
    return judgement;
}

SessionHost::Policy note(policy::AuditDetail detail = policy::AuditDetail::statement) {
    return [detail](const session::Judge& question) { return recorded(question, detail); };
}

// "1 INSERT: completed INSERT 0 5 (5 rows, 3 us), committed" and
// "transaction 1: committed, 2 statements"; decisions are left out.
std::string words(const audit::Record& record) {
    if (!record.done && record.transaction != 0)
        return "transaction " + std::to_string(record.transaction) + ": " + record.outcome + ", " +
               std::to_string(record.transaction_statements) + " statements";
    if (!record.done) return {};
    const audit::Done& done = *record.done;
    std::string out = std::to_string(record.number) + " " + record.command + ": " + record.outcome;
    if (!done.tag.empty()) out += " " + done.tag;
    if (!done.sqlstate.empty()) out += " " + done.sqlstate;
    if (done.rows || done.duration) out += " (";
    if (done.rows) out += std::to_string(*done.rows) + " rows";
    if (done.rows && done.duration) out += ", ";
    if (done.duration) out += std::to_string(done.duration->count()) + " us";
    if (done.rows || done.duration) out += ")";
    if (!done.ended.empty()) out += ", " + done.ended;
    if (record.transaction != 0) out += ", in " + std::to_string(record.transaction);
    return out;
}

struct Script : SessionHost {
    explicit Script(policy::AuditDetail detail = policy::AuditDetail::statement) {
        policy = note(detail);
        log_in();
    }
    // What was told since the last call.
    std::vector<std::string> told() {
        std::vector<std::string> out;
        for (const audit::Record& record : std::exchange(records, {})) {
            if (std::string text = words(record); !text.empty()) out.push_back(std::move(text));
        }
        return out;
    }
};

using Told = std::vector<std::string>;

std::string execution(std::string_view sql, int rows = 0) {
    return parse("", sql) + bind("", "") + execute("", rows);
}
std::string executed(std::string_view tag) {
    return parse_complete() + bind_complete() + complete(tag);
}

}  // namespace

TEST_CASE("a statement that was simply allowed is told of when its transaction is over") {
    Script host;
    host.client(query("INSERT INTO t"));
    REQUIRE(host.records.size() == 1);
    CHECK(host.records[0].number == 1);
    CHECK(host.records[0].statement == "INSERT INTO t");
    host.steady_now += 5ms;
    host.server(complete("INSERT 0 3"));
    CHECK(host.told() == Told{});
    host.server(ready());
    REQUIRE(host.records.size() == 1);
    const audit::Record& done = host.records[0];
    CHECK(done.user == "clerk");
    CHECK(done.database == "shop");
    CHECK(done.protocol == "simple");
    CHECK(done.decision == "allow");
    CHECK(done.rule == "note");
    CHECK(done.fingerprint == 7);
    CHECK(done.statement.empty());
    CHECK(host.told() == Told{"1 INSERT: completed INSERT 0 3 (3 rows, 5000 us), committed"});
    CHECK(host.to_client() == complete("INSERT 0 3") + ready());
}

TEST_CASE("what leaves no record, or only that of its decision, is not told of") {
    Script plain;
    plain.client(query("SELECT 1")).server(complete("SELECT 1") + ready());
    CHECK(plain.records.empty());
    CHECK_FALSE(plain.session.wants_time());
    Script bare(policy::AuditDetail::decision);
    bare.client(query("INSERT INTO t"));
    CHECK(bare.records.size() == 1);
    bare.server(complete("INSERT 0 1") + ready());
    CHECK(bare.told() == Told{});
}

TEST_CASE("a refusal is told by its decision alone, and what stood beside it did not run") {
    Script host;
    host.client(query("INSERT INTO t;DELETE FROM t"));
    CHECK(host.told() == Told{"1 INSERT: not run"});
    host.server(error("42601") + ready());
    CHECK(host.told() == Told{});
}

TEST_CASE("a statement without a record in the log is not told of") {
    Script host;
    host.audit_works = false;
    host.client(query("INSERT INTO t")).server(error("42601") + ready());
    CHECK(host.told() == Told{});
    CHECK_FALSE(host.session.wants_time());
}

TEST_CASE("each statement of a string is told of, and those behind an error did not run") {
    Script host;
    host.client(query("INSERT a;SELECT 1;UPDATE b;SELECT 2;MERGE c"));
    host.server(complete("INSERT 0 1") + complete("SELECT 1") + complete("UPDATE 4") +
                complete("SELECT 1") + complete("MERGE 2") + ready());
    CHECK(host.told() == Told{"1 INSERT: completed INSERT 0 1 (1 rows, 0 us), committed",
                              "2 UPDATE: completed UPDATE 4 (4 rows, 0 us), committed",
                              "3 MERGE: completed MERGE 2 (2 rows, 0 us), committed"});
    host.client(query("INSERT a;SELECT 1;UPDATE b;SELECT 2;MERGE c"));
    host.server(complete("INSERT 0 1") + complete("SELECT 1") + error("22012") + ready());
    CHECK(host.told() == Told{"5 UPDATE: failed 22012 (0 us)", "6 MERGE: not run 22012",
                              "4 INSERT: completed INSERT 0 1 (1 rows, 0 us), rolled back"});
    // An error of the whole text, and one of a statement without a record.
    host.client(query("SELECT 1;INSERT a")).server(error("42601") + ready());
    CHECK(host.told() == Told{"7 INSERT: not run 42601"});
}

TEST_CASE("in a transaction block it is told of at once, and the block's end by itself") {
    Script host;
    const auto run = [&](std::string_view sql, std::string_view tag, char status) {
        host.client(query(sql)).server(complete(tag) + ready(status));
        return host.told();
    };
    CHECK(run("BEGIN", "BEGIN", 'T') == Told{});
    CHECK(run("INSERT a", "INSERT 0 1", 'T') ==
          Told{"1 INSERT: completed INSERT 0 1 (1 rows, 0 us), in 1"});
    CHECK(run("UPDATE a", "UPDATE 2", 'T') ==
          Told{"2 UPDATE: completed UPDATE 2 (2 rows, 0 us), in 1"});
    CHECK(run("COMMIT", "COMMIT", 'I') == Told{"transaction 1: committed, 2 statements"});
    CHECK_FALSE(host.session.wants_time());

    run("BEGIN", "BEGIN", 'T');
    run("INSERT a", "INSERT 0 1", 'T');
    SECTION("by ROLLBACK") {
        CHECK(run("ROLLBACK", "ROLLBACK", 'I') == Told{"transaction 2: rolled back, 1 statements"});
    }
    SECTION("by a COMMIT after an error, which the server takes for a ROLLBACK") {
        host.client(query("SELECT 1/0")).server(error("22012") + ready('E'));
        CHECK(host.told() == Told{});
        CHECK(run("COMMIT", "ROLLBACK", 'I') == Told{"transaction 2: rolled back, 1 statements"});
    }
    SECTION("by a COMMIT that fails") {
        host.client(query("COMMIT")).server(error("23503") + ready('I'));
        CHECK(host.told() == Told{"transaction 2: rolled back, 1 statements"});
    }
    SECTION("by COMMIT, when it had gone back to a savepoint") {
        run("ROLLBACK TO s", "ROLLBACK", 'T');
        CHECK(run("COMMIT", "COMMIT", 'I') ==
              Told{"transaction 2: committed in part, 1 statements"});
    }
    SECTION("by PREPARE TRANSACTION") {
        CHECK(run("PREPARE", "PREPARE TRANSACTION", 'I') ==
              Told{"4 PREPARE: completed PREPARE TRANSACTION (0 us), prepared, in 2",
                   "transaction 2: prepared, 2 statements"});
    }
    SECTION("by COMMIT AND CHAIN") {
        CHECK(run("COMMIT AND CHAIN", "COMMIT", 'T') ==
              Told{"transaction 2: committed, 1 statements"});
        CHECK(run("INSERT b", "INSERT 0 1", 'T') ==
              Told{"4 INSERT: completed INSERT 0 1 (1 rows, 0 us), in 3"});
    }
    SECTION("by the end of the connection") {
        host.client(protocol::encoded(protocol::Terminate{}));
        host.event(session::ServerClosed{});
        CHECK(host.told() == Told{"transaction 2: rolled back, 1 statements"});
    }
    SECTION("by nobody knows what: the connection broke as it was committed") {
        host.client(query("COMMIT"));
        host.event(session::ServerClosed{true});
        CHECK(host.told() == Told{"transaction 2: unknown, 1 statements"});
    }
}

TEST_CASE("transactions that end within a string are told apart") {
    Script host;
    host.client(query("BEGIN;INSERT a;COMMIT;INSERT b;SELECT 1"));
    host.server(complete("BEGIN") + complete("INSERT 0 1") + complete("COMMIT") +
                complete("INSERT 0 1") + error("22012") + ready());
    CHECK(host.told() == Told{"1 INSERT: completed INSERT 0 1 (1 rows, 0 us), committed",
                              "2 INSERT: completed INSERT 0 1 (1 rows, 0 us), rolled back"});
    host.client(query("BEGIN;INSERT a;ROLLBACK;INSERT b"));
    host.server(complete("BEGIN") + complete("INSERT 0 1") + complete("ROLLBACK") +
                complete("INSERT 0 1") + ready());
    CHECK(host.told() == Told{"3 INSERT: completed INSERT 0 1 (1 rows, 0 us), rolled back",
                              "4 INSERT: completed INSERT 0 1 (1 rows, 0 us), committed"});
    host.client(query("BEGIN;INSERT a;ROLLBACK;BEGIN;INSERT b"));
    host.server(complete("BEGIN") + complete("INSERT 0 1") + complete("ROLLBACK") +
                complete("BEGIN") + complete("INSERT 0 1") + ready('T'));
    CHECK(host.told() == Told{"5 INSERT: completed INSERT 0 1 (1 rows, 0 us), rolled back",
                              "6 INSERT: completed INSERT 0 1 (1 rows, 0 us), in 1"});
}

TEST_CASE("in the extended protocol what came of an Execute is known at its Sync") {
    Script host;
    host.client(execution("INSERT a") + sync_message());
    // One number for what was parsed, and one for what was run.
    REQUIRE(host.records.size() == 2);
    CHECK(host.records[0].number == 1);
    CHECK(host.records[1].number == 2);
    host.steady_now += 1ms;
    host.server(executed("INSERT 0 1"));
    CHECK(host.told() == Told{});
    host.steady_now += 1ms;
    host.server(ready());
    CHECK(host.told() == Told{"2 INSERT: completed INSERT 0 1 (1 rows, 1000 us), committed"});
}

TEST_CASE("a pipeline's statements share its fate, and those behind an error did not run") {
    Script host;
    host.client(execution("INSERT a") + execution("UPDATE b") + execution("MERGE c") +
                sync_message() + execution("INSERT d") + sync_message());
    host.server(executed("INSERT 0 1") + parse_complete() + bind_complete() + error("23505") +
                ready() + executed("INSERT 0 2") + ready());
    CHECK(host.told() == Told{"4 UPDATE: failed 23505 (0 us)", "6 MERGE: not run 23505",
                              "2 INSERT: completed INSERT 0 1 (1 rows, 0 us), rolled back",
                              "8 INSERT: completed INSERT 0 2 (2 rows, 0 us), committed"});
    // A deferred constraint fails as the group commits.
    host.client(execution("INSERT a") + sync_message());
    host.server(executed("INSERT 0 1") + error("23503") + ready());
    CHECK(host.told() == Told{"10 INSERT: completed INSERT 0 1 (1 rows, 0 us), rolled back"});
}

TEST_CASE("a Parse that fails, and an Execute that the server skips, have nothing that ran") {
    Script host;
    host.client(execution("INSERT a") + sync_message());
    host.server(error("42P01") + ready());
    CHECK(host.told() == Told{"2 INSERT: not run 42P01"});
}

TEST_CASE("what stood in a pipeline with a refusal is told of with the refusal's SQLSTATE") {
    Script host;
    host.client(execution("INSERT a") + parse("", "DELETE b") + execution("UPDATE c") +
                sync_message());
    CHECK(host.told() == Told{});
    host.server(executed("INSERT 0 1") + error("42601") + ready());
    CHECK(host.told() == Told{"5 UPDATE: not run 42501",
                              "2 INSERT: completed INSERT 0 1 (1 rows, 0 us), rolled back"});
}

TEST_CASE("a portal that is fetched in portions is told of for each") {
    Script host;
    host.client(execution("FETCH a", 2) + execute("", 2) + sync_message());
    host.server(parse_complete() + bind_complete() +
                protocol::encoded(protocol::PortalSuspended{}) + complete("SELECT 1") + ready());
    CHECK(host.told() == Told{"2 FETCH: suspended (2 rows, 0 us), committed",
                              "3 FETCH: completed SELECT 1 (1 rows, 0 us), committed"});
}

TEST_CASE("COPY is told of when it has ended, by the server's word") {
    Script host;
    host.client(query("COPY t"));
    host.server(protocol::encoded(protocol::CopyInResponse{}));
    host.client(protocol::encoded(protocol::CopyData{"1\n"}) +
                protocol::encoded(protocol::CopyDone{}));
    CHECK(host.told() == Told{});
    host.server(complete("COPY 1") + ready());
    CHECK(host.told() == Told{"1 COPY: completed COPY 1 (1 rows, 0 us), committed"});
    host.client(query("COPY t"));
    host.server(protocol::encoded(protocol::CopyInResponse{}));
    host.client(protocol::encoded(protocol::CopyFail{"no"}));
    host.server(error("57014") + ready());
    CHECK(host.told() == Told{"2 COPY: failed 57014 (0 us)"});
}

TEST_CASE("a FunctionCall has no tag") {
    Script host;
    host.policy = [](const session::Judge& question) {
        session::Judge named = question;
        named.sql = "CALL f";
        return recorded(named, policy::AuditDetail::statement);
    };
    const std::string call = protocol::encoded(protocol::FunctionCall{1598, {}, {}, 0});
    host.client(call).server(protocol::encoded(protocol::FunctionCallResponse{}) + ready());
    CHECK(host.told() == Told{"1 CALL: completed (0 us), committed"});
    host.client(call).server(error("42883") + ready());
    CHECK(host.told() == Told{"2 CALL: failed 42883 (0 us)"});
}

TEST_CASE("what commits by itself is not said to be rolled back with what came behind it") {
    Script host;
    host.client(execution("VACUUM a") + execution("INSERT a") + sync_message());
    host.server(executed("VACUUM") + parse_complete() + bind_complete() + error("23505") + ready());
    CHECK(host.told() ==
          Told{"4 INSERT: failed 23505 (0 us)", "2 VACUUM: completed VACUUM (0 us), unknown"});
}

TEST_CASE(
    "of what runs as the connection is lost nothing is known, and of what waits, that it does") {
    Script host;
    host.client(query("INSERT a"));
    host.told();
    host.event(session::ServerClosed{true});
    CHECK(host.told() == Told{"1 INSERT: unknown"});
    CHECK(host.milestones.back() == "Close: the server's connection broke");

    Script waits;
    waits.answer_audit = false;
    waits.client(query("INSERT a"));
    waits.event(session::ClientClosed{true});
    CHECK(waits.told() == Told{"1 INSERT: not run"});
    CHECK(waits.milestones.back() == "Close: the client's connection broke");
}

TEST_CASE("a long pipeline is told of before it ends, so that little waits") {
    Script host;
    std::string sent;
    for (int i = 0; i < 100; ++i) sent += execution("INSERT a");
    host.client(sent + sync_message());
    host.told();
    std::string answers;
    for (int i = 0; i < 100; ++i) answers += executed("INSERT 0 1");
    host.server(answers);
    const Told before = host.told();
    REQUIRE(before.size() == session::Outcomes::ended_max + 1);
    CHECK(before.front() == "2 INSERT: completed INSERT 0 1 (1 rows, 0 us), in 1");
    host.server(ready());
    const Told behind = host.told();
    REQUIRE(behind.size() == 100 - before.size() + 1);
    CHECK(behind.front() == "132 INSERT: completed INSERT 0 1 (1 rows, 0 us), committed, in 1");
    CHECK(behind.back() == "transaction 1: committed, 100 statements");
}

TEST_CASE("time runs from when the statement is sent, not from when its record is written") {
    Script host;
    host.answer_audit = false;
    host.client(query("INSERT a"));
    host.steady_now += 7s;
    host.event(session::AuditStored{true, {}});
    host.steady_now += 2us;
    host.server(complete("INSERT 0 1") + ready());
    CHECK(host.told() == Told{"1 INSERT: completed INSERT 0 1 (1 rows, 2 us), committed"});
}

TEST_CASE("what is supervised is told of with our transaction around it, as with none") {
    policy::SuperviseLimits limits;
    limits.max_rows = 10;
    const auto shared = std::make_shared<const policy::SuperviseLimits>(limits);
    Script host;
    host.policy = [&](const session::Judge& question) {
        policy::Judgement judgement = recorded(question, policy::AuditDetail::statement);
        auto analysis = std::make_shared<policy::Analysis>(*judgement.analysis);
        for (policy::StatementFacts& facts : analysis->statements)
            facts.written = {{"", "public", "t"}};
        judgement.analysis = std::move(analysis);
        for (policy::Decision& decision : judgement.decisions) {
            decision.action = policy::Action::supervise;
            decision.supervise = shared;
        }
        return judgement;
    };
    const std::string begun = protocol::encoded(protocol::CloseComplete{}) + parse_complete() +
                              bind_complete() + complete("BEGIN") +
                              protocol::encoded(protocol::CloseComplete{}) +
                              protocol::encoded(protocol::CloseComplete{});
    host.client(query("UPDATE t"));
    CHECK(client_tags(host.to_server()) == "CPBECCQ");
    host.server(begun + complete("UPDATE 4") + ready('T'));
    REQUIRE(host.records.size() == 2);
    CHECK(host.records[1].outcome == "within limits");
    CHECK(host.records[1].number == 1);
    CHECK(host.told() == Told{});
    host.server(complete("COMMIT") + ready());
    REQUIRE(host.records.size() == 1);
    CHECK(host.records[0].decision == "supervise");
    CHECK(host.told() == Told{"1 UPDATE: completed UPDATE 4 (4 rows, 0 us), committed"});

    host.client(query("UPDATE t;UPDATE t")).server(begun + complete("UPDATE 40") + ready('T'));
    REQUIRE(host.records.size() == 3);
    CHECK(host.records[2].outcome == "rolled back");
    CHECK(host.records[2].number == 2);
    host.server(complete("ROLLBACK") + ready());
    CHECK(host.told() ==
          Told{"2 UPDATE: completed UPDATE 40 (40 rows, 0 us), rolled back", "3 UPDATE: not run"});
}

TEST_CASE("how the bytes are cut does not matter to what is told") {
    const auto run = [](std::size_t piece) {
        Script host;
        host.client(query("BEGIN;INSERT a") + query("UPDATE b") + execution("MERGE c") +
                        sync_message() + query("COMMIT"),
                    piece);
        host.server(complete("BEGIN") + complete("INSERT 0 1") + ready('T') + complete("UPDATE 2") +
                        ready('T') + executed("MERGE 3") + ready('T') + complete("COMMIT") +
                        ready(),
                    piece);
        return host.told();
    };
    const Told whole = run(0);
    CHECK(whole.size() == 4);
    CHECK(whole.back() == "transaction 1: committed, 3 statements");
    CHECK(run(1) == whole);
    CHECK(run(7) == whole);
}
