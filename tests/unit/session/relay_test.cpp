// What is not refused goes its way untouched, whatever it is.
#include "support/catch.h"
#include "support/session_host.h"

using namespace pgchaperone;
using namespace pgchaperone::test;

TEST_CASE("a large row streams through as it comes") {
    SessionHost host;
    host.log_in();
    host.client(query("SELECT big"));
    protocol::DataRow row;
    const std::string big(1 << 20, 'x');
    row.columns = {std::string_view(big)};
    const std::string message = protocol::encoded(row);
    host.server(std::string_view(message).substr(0, 1000));
    CHECK(host.to_client() == message.substr(0, 1000));
    host.server(std::string_view(message).substr(1000), 4096);
    CHECK(host.to_client() == message.substr(1000));
}

TEST_CASE("a large Bind streams through as soon as its names are known") {
    SessionHost host;
    host.log_in();
    host.client(parse("", "SELECT $1"));
    host.to_server();
    const std::string big(1 << 20, 'x');
    protocol::Bind message;
    message.parameters = {std::string_view(big)};
    const std::string bytes = protocol::encoded(message);
    host.client(std::string_view(bytes).substr(0, 100));
    CHECK(host.to_server() == bytes.substr(0, 100));
    host.client(std::string_view(bytes).substr(100), 5000);
    CHECK(host.to_server() == bytes.substr(100));
}

TEST_CASE(
    "a message of an unknown type goes to the server, which ends the connection, and nothing after "
    "it") {
    SessionHost host;
    host.log_in();
    host.client(query("SELECT 1") + "@" + query("DELETE FROM t"));
    CHECK(host.to_server() == query("SELECT 1") + "@");
    host.client(query("SELECT 2"));
    CHECK(host.to_server().empty());
}

TEST_CASE("a message of an impossible length goes no further than its head") {
    SessionHost host;
    host.log_in();
    const std::string head = std::string("Q\x7f\xff\xff\xff", 5);
    host.client(head + "DELETE FROM t");
    CHECK(host.to_server() == head);
}

TEST_CASE("a client that half-closes still gets its answer") {
    SessionHost host;
    host.log_in();
    host.client(query("SELECT 1"));
    host.event(session::ClientClosed{});
    CHECK(host.milestones.back() == "ShutdownServer");
    CHECK_FALSE(host.closed);
    host.to_client();
    host.server(complete("SELECT 1") + ready());
    CHECK(host.to_client() == complete("SELECT 1") + ready());
    host.event(session::ServerClosed{});
    CHECK(host.closed);
}

TEST_CASE("half a statement in front of an end-of-file is dropped") {
    SessionHost host;
    host.log_in();
    const std::string whole = query("DELETE FROM t WHERE id = 1");
    host.client(std::string_view(whole).substr(0, 20));
    host.event(session::ClientClosed{});
    CHECK(host.to_server().empty());
    CHECK(host.milestones.back() == "ShutdownServer");
}

TEST_CASE(
    "a statement that waits for its verdict is carried out before the end-of-file is passed on") {
    SessionHost host;
    host.log_in();
    host.answer_judge = false;
    host.client(query("SELECT 1"));
    host.event(session::ClientClosed{});
    CHECK(host.milestones.back() == "Connect");
    session::Judge question = host.judged[0];
    question.sql = host.judged_texts[0];
    host.event(session::Verdict{SessionHost::refuse_delete(question)});
    CHECK(host.to_server() == query("SELECT 1"));
    CHECK(host.milestones.back() == "ShutdownServer");
}

TEST_CASE("a server that leaves in the middle of a row leaves what it sent") {
    SessionHost host;
    host.log_in();
    host.client(query("SELECT 1"));
    host.server(std::string_view("D\0\0", 3));
    CHECK(host.to_client().empty());
    host.event(session::ServerClosed{});
    CHECK(host.to_client() == std::string("D\0\0", 3));
    CHECK(host.closed);
}

TEST_CASE("a server whose answers make no sense is not believed") {
    SessionHost host;
    host.log_in();
    host.server(parse_complete());
    CHECK(host.closed);
    CHECK(server_tags(host.to_client()) == "E");
}

TEST_CASE("a client that never reads is not read for ever") {
    SessionHost host;
    host.log_in();
    std::string many;
    for (std::size_t i = 0; i < session::Ledger::entries_max + 10; ++i) many += sync_message();
    host.client(many);
    CHECK_FALSE(host.session.wants_client_bytes());
    CHECK(host.session.ledger().full());
    host.to_server();
    host.server(ready() + ready());
    CHECK(host.to_server() == sync_message() + sync_message());
}

TEST_CASE("a ReadyForQuery that says nothing of the transaction is not believed") {
    for (const std::string& body : {std::string(), std::string("X")}) {
        SessionHost host;
        host.log_in();
        host.client(query("SELECT 1"));
        std::string message = std::string("Z\0\0\0", 4) + static_cast<char>(4 + body.size()) + body;
        host.server(message);
        CHECK(host.closed);
    }
}

TEST_CASE("a client that half-closed and then vanished ends the session") {
    SessionHost host;
    host.log_in();
    host.client(query("SELECT 1"));
    host.event(session::ClientClosed{});
    CHECK_FALSE(host.closed);
    host.event(session::ClientClosed{true});
    CHECK(host.closed);
}

TEST_CASE("nothing goes on behind a Terminate, however it is cut") {
    const std::string terminate = std::string("X\0\0\0\x06hi", 7);
    for (const std::size_t piece : {0, 1, 3, 6, 8}) {
        SessionHost host;
        host.log_in();
        host.client(terminate + query("SELECT 1"), piece);
        CHECK(host.to_server() == terminate);
    }
}
