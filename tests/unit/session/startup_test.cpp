// Everything before the first ReadyForQuery.
#include "support/catch.h"
#include "support/session_host.h"

#include "protocol/peek.h"

using namespace pgchaperone;
using namespace pgchaperone::test;
using protocol::encoded;

namespace {

std::string startup_message(std::string_view user = "clerk") {
    protocol::StartupMessage startup;
    startup.parameters = {{"user", user}, {"database", "shop"}};
    return encoded(startup);
}

std::string sasl(std::vector<std::string_view> mechanisms) {
    protocol::AuthenticationSASL offer;
    offer.mechanisms = std::move(mechanisms);
    return encoded(offer);
}

bool contains(std::string_view text, std::string_view part) {
    return text.find(part) != std::string_view::npos;
}

session::Setup with_tls() {
    session::Setup setup;
    setup.tls_offered = true;
    return setup;
}

// A client on TLS and a server on TLS, at the point where the server asks for SASL.
SessionHost& tls_both_sides(SessionHost& host, std::string_view client_hash,
                            std::string_view server_hash) {
    host.client(encoded(protocol::SSLRequest{}));
    host.event(session::ClientTlsReady{std::string(client_hash), {}});
    host.client(startup_message());
    host.event(session::Connected{true, {}, true, std::string(server_hash)});
    host.to_client();
    host.to_server();
    return host;
}

}  // namespace

TEST_CASE("requests for encryption are answered in either order, each once") {
    SessionHost host(with_tls());
    host.client(encoded(protocol::GSSENCRequest{}));
    CHECK(host.to_client() == "N");
    host.client(encoded(protocol::SSLRequest{}), 3);
    CHECK(host.to_client() == "S");
    CHECK(host.milestones.back() == "StartTls");

    SessionHost clear;
    clear.client(encoded(protocol::SSLRequest{}));
    CHECK(clear.to_client() == "N");
    clear.client(encoded(protocol::SSLRequest{}));
    CHECK(clear.closed);
}

TEST_CASE("bytes behind a request for encryption end the connection") {
    for (auto setup : {session::Setup{}, with_tls()}) {
        SessionHost host(setup);
        host.client(encoded(protocol::SSLRequest{}) + startup_message());
        CHECK(host.closed);
        const std::string seen = host.to_client();
        CHECK(seen[0] == 'E');
        CHECK(contains(seen, "unencrypted data"));
    }
}

TEST_CASE("a StartupMessage goes to the server as it came") {
    SessionHost host;
    host.client(startup_message(), 1);
    CHECK(host.milestones.back() == "Connect");
    CHECK(host.to_server().empty());
    host.event(session::Connected{true, {}, false, {}});
    CHECK(host.to_server() == startup_message());
    CHECK(host.session.facts().user == "clerk");
    CHECK(host.session.facts().database == "shop");
}

TEST_CASE("the first statement may come before the login is over, and is judged when it is") {
    SessionHost host;
    host.client(startup_message() + query("DELETE FROM t"));
    host.event(session::Connected{true, {}, false, {}});
    CHECK(host.to_server() == startup_message());
    host.server(encoded(protocol::AuthenticationOk{}) + ready());
    CHECK(host.judged.size() == 1);
    CHECK_FALSE(contains(host.to_server(), "DELETE"));
}

TEST_CASE("a CancelRequest is passed on, in clear even where TLS is required") {
    session::Setup setup = with_tls();
    setup.tls_required = true;
    SessionHost host(setup);
    const std::string key(32, 'k');
    const std::string cancel = encoded(protocol::CancelRequest{7, key});
    host.client(cancel);
    CHECK(host.milestones.back() == "Connect");
    host.event(session::Connected{true, {}, false, {}});
    CHECK(host.to_server() == cancel);
    CHECK_FALSE(host.closed);
    host.event(session::ServerClosed{});
    CHECK(host.closed);
}

TEST_CASE("a cancel that ended something held does not reach the server") {
    SessionHost host;
    host.cancel_taken = true;
    host.client(encoded(protocol::CancelRequest{7, "1234"}));
    CHECK(host.cancel_keys_asked ==
          std::vector<std::string>{std::string("\0\0\0\x07", 4) + "1234"});
    CHECK(host.closed);
    CHECK(host.to_client().empty());
    CHECK(host.to_server().empty());
    CHECK_FALSE(contains(host.milestones.front(), "Connect"));
}

TEST_CASE("a cancel whose client has left already is passed on all the same") {
    SessionHost host;
    host.answer_cancel = false;
    const std::string cancel = encoded(protocol::CancelRequest{7, "1234"});
    host.client(cancel);
    host.event(session::ClientClosed{});
    CHECK(host.milestones.empty());
    host.event(session::CancelTaken{false});
    host.event(session::Connected{true, {}, false, {}});
    CHECK(host.to_server() == cancel);
    CHECK_FALSE(host.closed);
}

TEST_CASE("the key by which a session can be cancelled is told, and reaches the client") {
    SessionHost host;
    host.client(startup_message());
    host.event(session::Connected{true, {}, false, {}});
    const std::string key(32, 'k');
    const std::string message = encoded(protocol::BackendKeyData{7, key});
    host.server(encoded(protocol::AuthenticationOk{}) + message, 3);
    CHECK(host.cancel_key == std::string("\0\0\0\x07", 4) + key);
    CHECK(contains(host.to_client(), message));
}

TEST_CASE("a client without TLS is refused where TLS is required") {
    session::Setup setup = with_tls();
    setup.tls_required = true;
    SessionHost host(setup);
    host.client(startup_message());
    CHECK(host.closed);
    const std::string seen = host.to_client();
    CHECK(contains(seen, "28000"));
    CHECK(contains(seen, "sslmode=require"));
}

TEST_CASE("an upstream that can't be reached is told to the client as FATAL") {
    SessionHost host;
    host.client(startup_message());
    host.event(session::Connected{
        false, "could not connect to the server at 127.0.0.1:1: refused", false, {}});
    const std::string seen = host.to_client();
    CHECK(contains(seen, "08006"));
    CHECK(contains(seen, "127.0.0.1:1"));
    CHECK(host.closed);
}

TEST_CASE("a client in clear is not offered mechanisms that bind to TLS") {
    SessionHost host;
    host.client(startup_message());
    host.event(session::Connected{true, {}, true, "server-hash"});
    host.server(sasl({"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"}));
    CHECK(host.to_client() == sasl({"SCRAM-SHA-256"}));
}

TEST_CASE("with the same certificate on both sides SCRAM binds end to end") {
    SessionHost host(with_tls());
    tls_both_sides(host, "same", "same");
    const std::string offer = sasl({"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"});
    host.server(offer);
    CHECK(host.to_client() == offer);
}

TEST_CASE("with another certificate a client that could bind is told the three ways out") {
    for (const std::string_view flag : {"y", "n"}) {
        SessionHost host(with_tls());
        tls_both_sides(host, "ours", "theirs");
        host.server(sasl({"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"}));
        CHECK(host.to_client() == sasl({"SCRAM-SHA-256"}));
        const std::string first = std::string(flag) + ",,n=,r=abc";
        const std::string initial = encoded(
            protocol::SASLInitialResponse{"SCRAM-SHA-256", std::string_view(first)});
        host.client(initial);
        if (flag == "n") {
            CHECK(host.to_server() == initial);
            CHECK_FALSE(host.closed);
        } else {
            CHECK(host.closed);
            const std::string seen = host.to_client();
            CHECK(contains(seen, "channel_binding=disable"));
            CHECK(contains(seen, "authentication: password"));
        }
    }
}

TEST_CASE("which server it is can depend on the database") {
    session::Setup setup = with_tls();
    setup.upstream.reset();
    SECTION("one that has it: what holds there holds") {
        SessionHost host(setup);
        session::Upstream upstream;
        upstream.name = "billing";
        upstream.environment = "BILLING";
        host.find_upstream = session::UpstreamFound{upstream};
        host.client(startup_message());
        CHECK(host.milestones == std::vector<std::string>{"FindUpstream: shop", "Connect"});
        CHECK(host.session.facts().upstream == "billing");
        host.event(session::Connected{true, {}, false, {}});
        CHECK(host.to_server() == startup_message());
        host.server(encoded(protocol::AuthenticationOk{}) + encoded(protocol::ReadyForQuery{'I'}));
        CHECK(contains(host.to_client(), "environment: BILLING"));
    }
    SECTION("without a database in the packet it is the user's name that counts") {
        SessionHost host(setup);
        protocol::StartupMessage startup;
        startup.parameters = {{"user", "clerk"}};
        host.client(encoded(startup));
        CHECK(host.milestones.back() == "FindUpstream: clerk");
        // Whatever is sent meanwhile waits.
        host.client(encoded(protocol::Query{"SELECT 1"}));
        CHECK(host.to_server().empty());
        host.event(session::UpstreamFound{session::Upstream{}});
        CHECK(host.milestones.back() == "Connect");
        host.event(session::UpstreamFound{session::Upstream{}});
        CHECK(host.milestones.size() == 2);
    }
    SECTION("none that has it") {
        SessionHost host(setup);
        host.find_upstream = session::UpstreamFound{};
        host.client(startup_message());
        const std::string seen = host.to_client();
        CHECK(contains(seen, "3D000"));
        CHECK(contains(seen, "database \"shop\" is not served here"));
        CHECK(host.closed);
        CHECK(host.to_server().empty());
    }
    SECTION("one that wants passwords over TLS only") {
        SessionHost host(setup);
        session::Upstream upstream;
        upstream.authentication = session::Authentication::password;
        host.find_upstream = session::UpstreamFound{upstream};
        host.client(startup_message());
        CHECK(contains(host.to_client(), "encrypted"));
        CHECK(host.closed);
    }
    SECTION("a client that leaves meanwhile") {
        SessionHost host(setup);
        host.client(startup_message());
        host.event(session::ClientClosed{});
        CHECK(host.closed);
    }
}

TEST_CASE("a name that the server cuts off is judged as what is left of it") {
    session::Setup setup;
    setup.upstream.reset();
    SessionHost host(setup);
    const std::string name(63, 'b'), longer = name + "and more";
    protocol::StartupMessage startup;
    startup.parameters = {{"user", longer}, {"database", longer}};
    host.client(encoded(startup));
    CHECK(host.milestones.back() == "FindUpstream: " + name);
    CHECK(host.session.facts().user == name);
    CHECK(host.session.facts().database == name);
    // The server gets it as it came.
    host.event(session::UpstreamFound{session::Upstream{}});
    host.event(session::Connected{true, {}, false, {}});
    CHECK(host.to_server() == encoded(startup));
}

TEST_CASE("authentication: password asks over TLS only") {
    session::Setup setup = with_tls();
    setup.upstream->authentication = session::Authentication::password;
    SessionHost host(setup);
    host.client(startup_message());
    CHECK(host.closed);
    CHECK(contains(host.to_client(), "encrypted"));
}

TEST_CASE("authentication: password answers the server's SCRAM itself") {
    session::Setup setup = with_tls();
    setup.upstream->authentication = session::Authentication::password;
    setup.scram_nonce = "rOprNGfwEbeRWgbNEkqO12345";
    SessionHost host(setup);
    tls_both_sides(host, "ours", "theirs");
    host.server(sasl({"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"}));
    CHECK(host.to_client() == encoded(protocol::AuthenticationCleartextPassword{}));
    CHECK(host.to_server().empty());
    host.client(encoded(protocol::PasswordMessage{"secret"}));
    const std::string sent = host.to_server();
    CHECK(client_tags(sent) == "p");
    CHECK(contains(sent, "SCRAM-SHA-256-PLUS"));
    CHECK(contains(sent, "p=tls-server-end-point"));
    CHECK_FALSE(contains(sent, "secret"));
    // A server that says yes without having proved itself is not believed.
    host.server(encoded(protocol::AuthenticationOk{}));
    CHECK(host.closed);
}

TEST_CASE("who is not logged in makes nothing pile up while the server is silent") {
    SessionHost host;
    host.client(startup_message());
    host.event(session::Connected{true, {}, false, {}});
    host.to_server();
    CHECK(host.session.wants_client_bytes());
    const std::string ahead(session::Session::backlog_bytes_max, 'x');
    host.client(ahead);
    CHECK_FALSE(host.session.wants_client_bytes());
    CHECK(host.to_server().empty());
}

TEST_CASE("a load balancer that says something else than for whom it connects is told so") {
    SessionHost host;
    host.session.comes_wrongly("no header of PROXY protocol came", "Send one.");
    host.drain();
    CHECK(host.closed);
    const std::string told = host.to_client();
    CHECK(server_tags(told) == "E");
    CHECK(contains(told, "08P01"));
    CHECK(contains(told, "pgchaperone: no header of PROXY protocol came"));
    CHECK(contains(told, "Send one."));
}

TEST_CASE("garbage before the startup packet gets an answer and the end") {
    SessionHost host;
    host.client("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    CHECK(host.closed);
    CHECK(server_tags(host.to_client()) == "E");
}

TEST_CASE("a server that fails before it speaks the protocol is heard") {
    SessionHost host;
    host.client(startup_message());
    host.event(session::Connected{true, {}, false, {}});
    const std::string text = "Ecould not fork new process for connection: no\n";
    host.server(text);
    CHECK(host.to_client() == text + std::string(0, '\0'));
}

TEST_CASE("the login timeout ends a login that does not come to its end") {
    SessionHost silent;
    silent.event(session::Deadline{session::DeadlineKind::login});
    CHECK(silent.closed);
    CHECK(silent.to_client().empty());
    CHECK(silent.ending == session::Ending::timeout);

    SessionHost host;
    host.client(startup_message());
    host.event(session::Connected{true, {}, false, {}});
    host.event(session::Deadline{session::DeadlineKind::login});
    CHECK(host.closed);
    CHECK(contains(host.to_client(), "timeout"));
}

TEST_CASE("a login that takes too long is the server's only while the server is waited for") {
    using session::Ending;
    const session::Deadline late{session::DeadlineKind::login};
    const auto greet = [](SessionHost& host) -> SessionHost& {
        host.client(encoded(protocol::SSLRequest{}));
        host.event(session::ClientTlsReady{"hash", {}});
        return host.client(startup_message());
    };
    for (const auto authentication :
         {session::Authentication::passthrough, session::Authentication::password}) {
        CAPTURE(static_cast<int>(authentication));
        session::Setup setup = with_tls();
        setup.upstream->authentication = authentication;
        SessionHost connecting(setup);
        greet(connecting).event(late);
        CHECK(connecting.ending == Ending::timeout);

        SessionHost unanswered(setup);
        greet(unanswered).event(session::Connected{true, {}, true, {}});
        unanswered.event(late);
        CHECK(unanswered.ending == Ending::unanswered);

        // Half an answer is none; nor is half a password.
        SessionHost asked(setup);
        greet(asked).event(session::Connected{true, {}, true, {}});
        asked.server(encoded(protocol::AuthenticationCleartextPassword{}));
        asked.client(encoded(protocol::PasswordMessage{"secret"}).substr(0, 7));
        asked.event(late);
        CHECK(asked.ending == Ending::timeout);

        SessionHost told(setup);
        greet(told).event(session::Connected{true, {}, true, {}});
        told.server(encoded(protocol::AuthenticationCleartextPassword{}));
        told.client(encoded(protocol::PasswordMessage{"secret"}));
        told.event(late);
        CHECK(told.ending == Ending::unanswered);
    }
}

TEST_CASE("who is too many is told so before anything is asked, and a cancel request never is") {
    SessionHost host;
    host.client(startup_message());
    CHECK_FALSE(host.connects_to_cancel);
    session::Connected none;
    none.denied = policy::Refusal{"53300", "pgchaperone: too many connections", "", "Wait."};
    host.event(none);
    CHECK(host.closed);
    CHECK(host.to_server().empty());
    const std::string told = host.to_client();
    CHECK(server_tags(told) == "E");
    CHECK(contains(told, "FATAL"));
    CHECK(contains(told, "53300"));
    CHECK(contains(told, "Wait."));

    SessionHost cancels;
    cancels.client(protocol::encoded(protocol::CancelRequest{1, "1234"}));
    CHECK(cancels.milestones.back() == "Connect");
    CHECK(cancels.connects_to_cancel);
}

TEST_CASE("something else than a password goes no further than its first byte, however it is cut") {
    for (const std::size_t piece : {0, 1, 2}) {
        SessionHost host;
        host.client(startup_message());
        host.event(session::Connected{true, {}, false, {}});
        host.to_server();
        host.server(encoded(protocol::AuthenticationCleartextPassword{}));
        host.client(query("DELETE FROM t"), piece);
        CHECK(host.to_server() == "Q");
    }
}
