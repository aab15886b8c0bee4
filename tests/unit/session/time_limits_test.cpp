#include "support/catch.h"
#include "support/session_host.h"

using namespace pgchaperone;
using namespace pgchaperone::test;
using session::DeadlineKind;
using std::chrono::milliseconds;

namespace {

bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
}

// A text that says "slow" may take 30 s; one that says "tx", its transaction five minutes.
policy::Judgement limit_slow(const session::Judge& question) {
    policy::Judgement judgement = SessionHost::refuse_delete(question);
    const std::string& text = judgement.analysis->text;
    policy::Decision decision;
    if (contains(text, "slow")) decision.statement_timeout = {milliseconds(30'000), "people"};
    if (contains(text, "slower")) decision.statement_timeout = {milliseconds(90'000), "people"};
    if (contains(text, "tx")) decision.transaction_timeout = {milliseconds(300'000), "short"};
    if (contains(text, "quick tx")) decision.transaction_timeout = {milliseconds(1000), "quick"};
    if (decision.statement_timeout || decision.transaction_timeout) {
        judgement.decisions.push_back(std::move(decision));
    }
    return judgement;
}

const std::string user_request = error("57014", "canceling statement due to user request");

// Has logged in, and has a key.
struct Host : SessionHost {
    Host() {
        policy = limit_slow;
        protocol::StartupMessage startup;
        startup.parameters = {{"user", "clerk"}, {"database", "shop"}};
        client(protocol::encoded(startup));
        event(session::Connected{true, {}, false, {}});
        server(protocol::encoded(protocol::AuthenticationOk{}) +
               protocol::encoded(protocol::ParameterStatus{"standard_conforming_strings", "on"}) +
               protocol::encoded(protocol::ParameterStatus{"client_encoding", "UTF8"}) +
               protocol::encoded(protocol::BackendKeyData{7, "abcd"}) + ready());
        to_server();
        to_client();
    }
    long waits_ms(DeadlineKind kind = DeadlineKind::statement) const {
        const auto at = deadlines.find(kind);
        return at == deadlines.end() ? -1 : static_cast<long>(at->second.count());
    }
    Host& times_out(DeadlineKind kind = DeadlineKind::statement) {
        event(session::Deadline{kind});
        return *this;
    }
};

}  // namespace

TEST_CASE("a statement that takes too long is cancelled, and its client is told by which rule") {
    Host host;
    host.client(query("SELECT slow"));
    CHECK(host.waits_ms() == 30'000);
    CHECK(host.cancelled_keys.empty());
    host.times_out();
    REQUIRE(host.cancelled_keys.size() == 1);
    CHECK(host.cancelled_keys[0] == std::string("\0\0\0\7abcd", 8));
    host.server(user_request, 5);
    std::string told = host.to_client();
    CHECK(server_tags(told) == "E");
    CHECK(contains(told, "57014"));
    CHECK(contains(told, "pgchaperone: canceling statement due to statement timeout"));
    CHECK(contains(told, "Rule \"people\" allows 30s."));
    CHECK_FALSE(contains(told, "user request"));
    host.server(ready());
    CHECK(host.to_client() == ready());
    CHECK(host.waits_ms() == -1);

    REQUIRE(host.records.size() == 1);
    CHECK(host.records[0].rule == "people");
    CHECK(host.records[0].outcome == "statement timeout");
    CHECK(host.records[0].statement == "SELECT slow");
    CHECK(host.session.census().too_long(session::TimeLimitKind::statement) == 1);
    CHECK(host.session.census().too_long(session::TimeLimitKind::transaction) == 0);
}

TEST_CASE("nothing is sent behind it before the server has closed the cancel's connection") {
    Host host;
    host.client(query("SELECT slow"));
    host.times_out();
    host.to_server();
    // It was done a moment before.
    host.server(complete("SELECT 1") + ready());
    CHECK(server_tags(host.to_client()) == "CZ");
    host.client(query("SELECT 2"));
    CHECK(host.to_server().empty());
    host.event(session::ServerCancelled{});
    CHECK(host.to_server() == query("SELECT 2"));
    // And is not mistaken for one that was to be cancelled.
    host.server(user_request + ready());
    CHECK(contains(host.to_client(), "user request"));
}

TEST_CASE("a statement without a limit waits for none, and one in time leaves no trace") {
    Host host;
    host.client(query("SELECT 1") + query("SELECT 2"));
    CHECK(host.to_server() == query("SELECT 1") + query("SELECT 2"));
    CHECK(host.waits_ms() == -1);
    host.server(complete("SELECT 1") + ready() + complete("SELECT 1") + ready());
    host.client(query("SELECT slow"));
    CHECK(host.waits_ms() == 30'000);
    host.server(complete("SELECT 1"));
    host.server(ready());
    CHECK(host.waits_ms() == -1);
    host.times_out();  // it crossed with the answer
    CHECK(host.cancelled_keys.empty());
    CHECK(host.records.empty());
}

TEST_CASE("what a client sends behind it waits for its answer, which is asked for by a Flush") {
    Host host;
    const std::string first = parse("", "SELECT slow") + bind("", "") + execute("");
    const std::string second = parse("", "SELECT 2") + bind("", "") + execute("");
    host.client(first + second + sync_message());
    CHECK(host.to_server() == first + flush());
    CHECK(host.waits_ms() == 30'000);  // the server says nothing before it is done
    host.server(parse_complete() + bind_complete());
    host.server(complete("SELECT 1"));
    CHECK(host.waits_ms() == -1);
    CHECK(host.to_server() == second + sync_message());
    host.server(parse_complete() + bind_complete() + complete("SELECT 1") + ready());
    CHECK(server_tags(host.to_client()) == "12C12CZ");
}

TEST_CASE("in a pipeline the error makes the server skip to the Sync, as ever") {
    Host host;
    const std::string first = parse("", "SELECT slow") + bind("", "") + execute("");
    host.client(first + parse("", "SELECT 2") + bind("", "") + execute("") + sync_message());
    host.server(parse_complete() + bind_complete());
    host.times_out();
    host.to_server();
    host.server(user_request);
    CHECK(host.to_server().empty());
    CHECK(contains(host.to_client(), "Rule \"people\" allows 30s."));
    host.event(session::ServerCancelled{});
    CHECK(host.to_server() == sync_message());
    host.server(ready());
    CHECK(host.to_client() == ready());
}

TEST_CASE("what runs before it is asked for, and its time begins behind that") {
    Host host;
    const std::string first = parse("", "SELECT 1") + bind("", "") + execute("");
    const std::string second = parse("", "SELECT slow") + bind("", "");
    host.client(first + second + execute("") + sync_message());
    CHECK(host.to_server() == first + second + flush() + execute("") + sync_message());
    CHECK(host.waits_ms() == -1);
    host.server(parse_complete() + bind_complete() + complete("SELECT 1"));
    CHECK(host.waits_ms() == 30'000);
    host.server(parse_complete() + bind_complete() + complete("SELECT 1") + ready());
    CHECK(host.waits_ms() == -1);
    CHECK(server_tags(host.to_client()) == "12C12CZ");
}

TEST_CASE("a Query with several statements has the shortest time that any of them has") {
    Host host;
    host.policy = [](const session::Judge& question) {
        policy::Judgement judgement;
        auto analysis = std::make_shared<policy::Analysis>();
        analysis->text = std::string(question.sql);
        analysis->statements.resize(2);
        judgement.analysis = std::move(analysis);
        judgement.decisions.resize(2);
        judgement.decisions[0].statement_timeout = {milliseconds(5000), "a"};
        judgement.decisions[1].statement_timeout = {milliseconds(3000), "b"};
        return judgement;
    };
    host.client(query("SELECT 1; SELECT 2"));
    CHECK(host.waits_ms() == 3000);
    host.server(complete("SELECT 1"));
    host.times_out();
    host.server(user_request + ready());
    CHECK(contains(host.to_client(), "Rule \"b\" allows 3s."));
}

TEST_CASE("a server that takes no notice is asked again") {
    Host host;
    host.client(query("SELECT slow"));
    host.times_out();
    host.times_out();  // not twice at the same time
    CHECK(host.cancelled_keys.size() == 1);
    host.event(session::ServerCancelled{});
    CHECK(host.waits_ms() == 2000);
    host.times_out();
    CHECK(host.cancelled_keys.size() == 2);
    CHECK(host.records.size() == 1);
}

TEST_CASE("without a key to cancel by, the session is ended") {
    SessionHost host;
    host.policy = limit_slow;
    host.log_in();
    host.client(query("SELECT slow"));
    host.event(session::Deadline{DeadlineKind::statement});
    CHECK(host.closed);
    CHECK(contains(host.to_client(), "no key by which a statement can be cancelled"));
}

TEST_CASE("a transaction that takes too long is ended, and the server rolls back") {
    Host host;
    host.client(query("BEGIN tx")).server(complete("BEGIN") + ready('T'));
    CHECK(host.waits_ms(DeadlineKind::transaction) == 300'000);
    host.client(query("SELECT 1")).server(complete("SELECT 1") + ready('T'));
    CHECK(host.waits_ms(DeadlineKind::transaction) == 300'000);
    host.to_server();
    host.to_client();
    host.times_out(DeadlineKind::transaction);
    CHECK(host.closed);
    CHECK(client_tags(host.to_server()) == "X");
    CHECK(host.cancelled_keys.empty());  // nothing runs
    const std::string told = host.to_client();
    CHECK(contains(told, "FATAL"));
    CHECK(contains(told, "25P04"));
    CHECK(contains(told, "Rule \"short\" allows 5m. The transaction is rolled back."));
    REQUIRE(host.records.size() == 1);
    CHECK(host.records[0].outcome == "transaction timeout");
}

TEST_CASE("what runs in it then is cancelled, and a row is not cut in half") {
    Host host;
    host.client(query("SELECT tx"));
    const std::string row = protocol::encoded(protocol::DataRow{{std::string_view("value")}});
    host.server(row.substr(0, 8));
    host.to_client();
    host.times_out(DeadlineKind::transaction);
    CHECK(host.cancelled_keys.size() == 1);
    CHECK_FALSE(host.closed);
    host.server(row.substr(8) + row);
    CHECK(host.closed);
    const std::string told = host.to_client();
    CHECK(told.starts_with(row.substr(8)));
    CHECK(server_tags(told.substr(row.size() - 8)) == "E");
    CHECK(contains(told, "25P04"));
}

TEST_CASE("a transaction that ends in time is forgotten, and a stricter limit takes over") {
    Host host;
    host.client(query("BEGIN tx")).server(complete("BEGIN") + ready('T'));
    host.deadlines.erase(DeadlineKind::transaction);
    host.client(query("SELECT tx")).server(complete("SELECT 1") + ready('T'));
    CHECK(host.waits_ms(DeadlineKind::transaction) == -1);  // goes on as it was
    host.client(query("SELECT quick tx")).server(complete("SELECT 1") + ready('T'));
    CHECK(host.waits_ms(DeadlineKind::transaction) == 1000);
    host.client(query("COMMIT")).server(complete("COMMIT") + ready());
    CHECK(host.waits_ms(DeadlineKind::transaction) == -1);
    host.times_out(DeadlineKind::transaction);
    CHECK_FALSE(host.closed);
}

TEST_CASE("a transaction that was begun before the last one was answered has its time") {
    Host host;
    host.client(query("SELECT tx") + query("BEGIN tx"));
    host.deadlines.erase(DeadlineKind::transaction);
    host.server(complete("SELECT 1") + ready());
    CHECK(host.waits_ms(DeadlineKind::transaction) == 300'000);
    host.server(complete("BEGIN") + ready('T'));
    CHECK(host.waits_ms(DeadlineKind::transaction) == 300'000);
}
