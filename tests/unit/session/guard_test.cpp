// What is refused, and how the client and the server see it.
#include "support/catch.h"
#include "support/session_host.h"

#include <algorithm>

using namespace pgchaperone;
using namespace pgchaperone::test;

namespace {

bool contains(std::string_view text, std::string_view part) {
    return text.find(part) != std::string_view::npos;
}

}  // namespace

TEST_CASE("a refused Query never reaches the server and its error is ours") {
    SessionHost host;
    host.log_in();
    host.client(query("DELETE FROM orders"));
    const std::string sent = host.to_server();
    CHECK_FALSE(contains(sent, "DELETE"));
    CHECK(client_tags(sent) == "Q");
    CHECK(contains(sent, "no_delete"));
    host.server(error("42601", "syntax error") + ready());
    const std::string seen = host.to_client();
    CHECK(server_tags(seen) == "EZ");
    CHECK(contains(seen, "refused by no-delete"));
    CHECK(contains(seen, "42501"));
    CHECK_FALSE(contains(seen, "syntax error"));
    CHECK(host.records.size() == 1);
    CHECK(host.records[0].rule == "no-delete");
    CHECK(host.records[0].statement == "DELETE FROM orders");
    host.client(query("SELECT 1"));
    CHECK(host.to_server() == query("SELECT 1"));
}

TEST_CASE("a refused Parse swallows until Sync") {
    SessionHost host;
    host.log_in();
    const std::string allowed = parse("", "SELECT 1") + bind("", "") + execute("");
    host.client(allowed + parse("s", "DELETE FROM orders") + bind("", "s") + execute("") +
                sync_message());
    const std::string sent = host.to_server();
    CHECK(client_tags(sent) == "PBEPBES");
    CHECK_FALSE(contains(sent, "DELETE"));
    host.server(parse_complete() + bind_complete() + complete("SELECT 1") + error("42601") +
                ready());
    const std::string seen = host.to_client();
    CHECK(server_tags(seen) == "12CEZ");
    CHECK(contains(seen, "refused by no-delete"));
    CHECK(host.session.ledger().empty());
    CHECK_FALSE(host.session.names().statement("s"));
}

TEST_CASE(
    "after a refused Parse without Sync the client's messages are dropped as the server would drop "
    "them") {
    SessionHost host;
    host.log_in();
    host.client(parse("", "DELETE FROM orders") + flush());
    host.to_server();
    host.server(error("42601"));
    CHECK(contains(host.to_client(), "no-delete"));
    host.client(bind("", "") + execute("") + query("SELECT 1"));
    CHECK(host.to_server().empty());
    host.client(sync_message());
    CHECK(host.to_server() == sync_message());
    host.server(ready());
    CHECK(host.to_client() == ready());
}

TEST_CASE("a statement judged again at Execute is refused in its place") {
    SessionHost host;
    host.log_in();
    host.client(parse("s", "SELECT f()") + sync_message());
    host.server(parse_complete() + ready());
    host.to_server();
    host.to_client();
    // A new policy: what was judged before is judged again.
    host.session.set_policy_version(7);
    host.policy = [](const session::Judge& question) {
        policy::Judgement judgement = SessionHost::refuse_delete(question);
        policy::Decision decision;
        decision.action = policy::Action::block;
        decision.rule = "later";
        decision.refusal.message = "not any more";
        judgement.decisions.push_back(decision);
        return judgement;
    };
    host.client(bind("", "s") + execute("") + sync_message());
    const std::string sent = host.to_server();
    CHECK(client_tags(sent) == "BPS");
    CHECK(contains(sent, session::Session::text_bytes_max > 0 ? "pgchaperone_refused" : ""));
    host.server(bind_complete() + error("42601") + ready());
    const std::string seen = host.to_client();
    CHECK(server_tags(seen) == "2EZ");
    CHECK(contains(seen, "not any more"));
    CHECK(host.records.at(0).statement == "SELECT f()");
    // The statement itself is still there.
    CHECK(host.session.names().statement("s"));
}

TEST_CASE("a refused FunctionCall becomes a Query that fails") {
    SessionHost host;
    host.log_in();
    host.policy = [](const session::Judge& question) {
        policy::Judgement judgement = SessionHost::refuse_delete(question);
        CHECK(question.function_oid == 964);
        policy::Decision decision;
        decision.action = policy::Action::block;
        decision.refusal.message = "not this function";
        judgement.decisions.push_back(decision);
        return judgement;
    };
    protocol::FunctionCall call;
    call.function_oid = 964;
    host.client(protocol::encoded(call), 3);
    CHECK(client_tags(host.to_server()) == "Q");
    host.server(error("42601") + ready());
    CHECK(contains(host.to_client(), "not this function"));
}

TEST_CASE("a FATAL of the server is not mistaken for the refusal's own error") {
    SessionHost host;
    host.log_in();
    host.client(query("DELETE FROM orders"));
    const std::string shutdown = error("57P01", "terminating connection", "FATAL");
    host.server(shutdown);
    CHECK(host.to_client() == shutdown);
}

TEST_CASE("nothing happens before the record of it is stored") {
    SessionHost host;
    host.log_in();
    host.answer_audit = false;
    host.client(query("DELETE FROM orders") + query("SELECT 1"));
    CHECK(host.to_server().empty());
    host.event(session::AuditStored{true, {}});
    CHECK(client_tags(host.to_server()) == "QQ");
}

TEST_CASE("a statement that needs a record is refused when the record can't be stored") {
    SessionHost host;
    host.log_in();
    host.audit_works = false;
    host.policy = [](const session::Judge& question) {
        policy::Judgement judgement = SessionHost::refuse_delete(question);
        policy::Decision decision;
        decision.audit = true;
        judgement.decisions.push_back(decision);
        return judgement;
    };
    host.client(query("UPDATE t SET a = 1 WHERE id = 1"));
    CHECK_FALSE(contains(host.to_server(), "UPDATE"));
    host.server(error("42601") + ready());
    const std::string seen = host.to_client();
    CHECK(contains(seen, "58030"));
    CHECK(contains(seen, "disk full"));
}

TEST_CASE("what is observed is recorded and let through") {
    SessionHost host;
    host.log_in();
    host.policy = [](const session::Judge& question) {
        policy::Judgement judgement = SessionHost::refuse_delete(question);
        for (policy::Decision& decision : judgement.decisions) decision.observed = true;
        return judgement;
    };
    host.client(query("DELETE FROM orders"));
    CHECK(host.to_server() == query("DELETE FROM orders"));
    CHECK(host.records.at(0).observed);
}

TEST_CASE("while a verdict is awaited nothing goes on and little is taken") {
    SessionHost host;
    host.log_in();
    host.answer_judge = false;
    host.client(query("SELECT 1"));
    CHECK(host.session.wants_client_bytes());
    host.client(query(std::string(session::Session::backlog_bytes_max, 'x')));
    CHECK_FALSE(host.session.wants_client_bytes());
    CHECK(host.to_server().empty());
    CHECK(host.judged.size() == 1);
    host.answer_judge = true;
    session::Judge question = host.judged[0];
    question.sql = host.judged_texts[0];
    host.event(session::Verdict{SessionHost::refuse_delete(question)});
    CHECK(client_tags(host.to_server()) == "QQ");
    CHECK(host.session.wants_client_bytes());
}

TEST_CASE("a text longer than the limit is judged by its size and not kept") {
    for (const bool allowed : {true, false}) {
        SessionHost host;
        host.log_in();
        std::size_t told = 0;
        host.policy = [&](const session::Judge& question) {
            told = std::max(told, question.oversized_bytes);
            CHECK(question.sql.size() < 10'000);
            policy::Judgement judgement = SessionHost::refuse_delete(question);
            if (!allowed && question.oversized_bytes > 0) {
                policy::Decision decision;
                decision.action = policy::Action::block;
                decision.refusal.message = "too long to be read";
                judgement.decisions.push_back(decision);
            }
            return judgement;
        };
        const std::string message = query(std::string(session::Session::text_bytes_max + 10, 'x'));
        host.client(message, 1 << 20);
        CHECK(told == session::Session::text_bytes_max + 11);
        const std::string sent = host.to_server();
        if (allowed) {
            CHECK(sent == message);
        } else {
            CHECK(sent.size() < 200);
            host.server(error("42601") + ready());
            CHECK(contains(host.to_client(), "too long to be read"));
        }
        host.client(query("SELECT 1"));
        CHECK(host.to_server() == query("SELECT 1"));
    }
}

TEST_CASE("settings count as unknown while a statement that could change them is in flight") {
    SessionHost host;
    host.log_in();
    using policy::StandardConformingStrings;
    host.client(query("SELECT 1"));
    CHECK(host.judged.back().lexical.standard_conforming_strings == StandardConformingStrings::on);
    CHECK(host.judged.back().lexical.client_encoding == "UTF8");
    host.server(complete("SELECT 1") + ready());
    host.client(query("SET standard_conforming_strings = off"));
    host.client(query("SELECT 2"));
    CHECK(host.judged.back().lexical.standard_conforming_strings ==
          StandardConformingStrings::unknown);
    CHECK_FALSE(host.judged.back().lexical.client_encoding);
    host.server(complete("SET") +
                protocol::encoded(protocol::ParameterStatus{"standard_conforming_strings", "off"}) +
                ready() + complete("SELECT 1") + ready());
    host.client(query("SELECT 3"));
    CHECK(host.judged.back().lexical.standard_conforming_strings == StandardConformingStrings::off);
}

TEST_CASE("an Execute of a portal that nobody saw being made is judged as unknown") {
    SessionHost host;
    host.log_in();
    host.client(execute("c1"));
    REQUIRE(host.judged.size() == 1);
    CHECK(host.judged[0].kind == session::StatementKind::execute);
    CHECK_FALSE(host.judged[0].analysis);
}

TEST_CASE("how the bytes are cut never matters to the guard") {
    const std::string from_client = query("SELECT 1") + parse("a", "SELECT $1") + bind("p", "a") +
                                    execute("p") + parse("", "DELETE FROM t") + bind("", "") +
                                    execute("") + sync_message() +
                                    query("DELETE FROM t; SELECT 1") + query("");
    const std::string from_server = protocol::encoded(protocol::RowDescription{}) +
                                    complete("SELECT 0") + ready() + parse_complete() +
                                    bind_complete() + complete("SELECT 1") + error("42601") +
                                    ready() + error("42601") + ready() +
                                    protocol::encoded(protocol::EmptyQueryResponse{}) + ready();
    std::string expected_server;
    std::string expected_client;
    for (const std::size_t piece : {0, 1, 2, 3, 5, 7, 11, 64}) {
        SessionHost host;
        host.log_in();
        host.client(from_client, piece);
        host.server(from_server, piece);
        CHECK(host.session.ledger().empty());
        const std::string to_server = host.to_server();
        const std::string to_client = host.to_client();
        if (piece == 0) {
            expected_server = to_server;
            expected_client = to_client;
        }
        CHECK(to_server == expected_server);
        CHECK(to_client == expected_client);
    }
    CHECK(client_tags(expected_server) == "QPBEPBESQQ");
    CHECK(server_tags(expected_client) == "TCZ12CEZEZIZ");
}

TEST_CASE("the session's own tables are told to the policy where nothing can undo them") {
    SessionHost host;
    host.log_in();
    host.policy = [](const session::Judge& question) {
        policy::Judgement judgement = SessionHost::refuse_delete(question);
        auto analysis = std::make_shared<policy::Analysis>(*judgement.analysis);
        policy::StatementFacts& facts = analysis->statements[0];
        facts.command = "SELECT";
        if (question.sql.starts_with("CREATE TEMP")) {
            facts.command = "CREATE TABLE";
            facts.tables_created = {{"", "", "x"}};
            facts.creates_temporary = true;
        }
        facts.commands = {facts.command};
        judgement.analysis = analysis;
        return judgement;
    };
    host.client(query("CREATE TEMP TABLE x (a int)"));
    host.server(complete("CREATE TABLE") + ready());
    host.client(parse("", "TRUNCATE x"));
    REQUIRE(host.last_own_tables.size() == 1);
    CHECK(host.last_own_tables[0].name == "x");
    // Allowed for their sake, so judged again when it runs.
    const std::size_t judged = host.judged.size();
    host.client(bind("", "") + execute(""));
    CHECK(host.judged.size() == judged + 1);
    CHECK(host.last_own_tables.size() == 1);
    // What is in flight may fail and take the table with it.
    host.client(parse("", "TRUNCATE x"));
    CHECK(host.last_own_tables.empty());
    host.server(parse_complete() + bind_complete() + complete("TRUNCATE TABLE") + parse_complete());
    // A named statement can be run by an SQL EXECUTE when the name means another table.
    host.client(parse("s", "TRUNCATE x"));
    CHECK(host.last_own_tables.empty());
}

TEST_CASE("how strings end counts as unknown while anything runs") {
    SessionHost host;
    host.log_in();
    host.client(query("SELECT * FROM v") + query("SELECT 2"));
    CHECK(host.judged.back().lexical.standard_conforming_strings ==
          policy::StandardConformingStrings::unknown);
    host.server(complete("SELECT 1") + ready() + complete("SELECT 1") + ready());
    host.client(query("SELECT 3"));
    CHECK(host.judged.back().lexical.standard_conforming_strings ==
          policy::StandardConformingStrings::on);
}

TEST_CASE("the tail of a statement that was cut in two is told from other nonsense") {
    SessionHost host;
    host.log_in();
    host.policy = [](const session::Judge& question) {
        policy::Judgement judgement = SessionHost::refuse_delete(question);
        auto analysis = std::make_shared<policy::Analysis>(*judgement.analysis);
        analysis->statements[0].command = "UPDATE";
        analysis->statements[0].unbounded.set = question.sql.starts_with("UPDATE");
        judgement.analysis = analysis;
        if (!question.sql.starts_with("SELECT")) {
            policy::Decision decision;
            decision.action = policy::Action::block;
            decision.rule = "no-unbounded-writes";
            decision.refusal.message = "plain refusal";
            judgement.decisions = {decision};
        }
        return judgement;
    };
    const auto answer = [&](std::string_view sql) {
        host.client(query(sql));
        host.to_server();
        host.server(error("42601") + ready());
        return host.to_client();
    };
    CHECK(contains(answer("UPDATE orders SET status = 'x'"), "plain refusal"));
    CHECK_FALSE(contains(answer("WHERE id = 1"), "plain refusal"));
    CHECK(contains(answer("WHERE id = 1"), "plain refusal"));
}
