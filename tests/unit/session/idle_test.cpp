#include "support/catch.h"
#include "support/session_host.h"

using namespace pgchaperone;
using namespace pgchaperone::test;
using session::DeadlineKind;
using std::chrono::milliseconds;

namespace {

session::Setup limited() {
    session::Setup setup;
    setup.upstream->idle = {milliseconds(600'000), milliseconds(1500)};
    return setup;
}

bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
}

struct Host : SessionHost {
    explicit Host(session::Setup setup = limited()) : SessionHost(std::move(setup)) {}
    // What is waited for; -1: nothing.
    long waits_ms() const {
        const auto at = deadlines.find(DeadlineKind::idle);
        return at == deadlines.end() ? -1 : static_cast<long>(at->second.count());
    }
    Host& times_out() {
        event(session::Deadline{DeadlineKind::idle});
        return *this;
    }
};

}  // namespace

TEST_CASE("a session is idle from the answer to its last statement to the next statement") {
    Host host;
    CHECK(host.waits_ms() == -1);
    host.log_in();
    CHECK(host.waits_ms() == 600'000);
    host.client(query("SELECT 1"));
    CHECK(host.waits_ms() == -1);
    host.server(complete("SELECT 1"));
    CHECK(host.waits_ms() == -1);
    host.server(ready());
    CHECK(host.waits_ms() == 600'000);
    host.to_server();
    host.to_client();
    host.times_out();
    CHECK(host.closed);
    CHECK(client_tags(host.to_server()) == "X");
    const std::string told = host.to_client();
    CHECK(server_tags(told) == "E");
    CHECK(contains(told, "FATAL"));
    CHECK(contains(told, "57P05"));
    CHECK(contains(told, "idle_timeout is 10m."));
    CHECK(host.session.census().too_long(session::TimeLimitKind::idle) == 1);
}

TEST_CASE("inside a transaction block, failed or not, another time counts") {
    for (const char status : {'T', 'E'}) {
        Host host;
        host.log_in();
        host.client(query("BEGIN")).server(complete("BEGIN") + ready(status));
        CHECK(host.waits_ms() == 1500);
        host.to_server();
        host.to_client();
        host.times_out();
        CHECK(host.closed);
        CHECK(client_tags(host.to_server()) == "X");
        const std::string told = host.to_client();
        CHECK(contains(told, "25P03"));
        CHECK(contains(told, "idle_in_transaction_timeout is 1500ms."));
    }
}

TEST_CASE("what is told to a session that listens keeps it no longer") {
    Host host;
    host.log_in();
    host.deadlines[DeadlineKind::idle] = milliseconds(1);  // would be set anew
    host.server(protocol::encoded(protocol::NotificationResponse{7, "channel", "news"}));
    CHECK(host.waits_ms() == 1);
    host.server(protocol::encoded(protocol::ParameterStatus{"TimeZone", "UTC"}));
    CHECK(host.waits_ms() == 1);
}

TEST_CASE("who sends a statement slowly is not idle, and one who sends half of it and no more is") {
    Host host;
    host.log_in();
    const std::string whole = query("SELECT 1");
    host.deadlines[DeadlineKind::idle] = milliseconds(1);
    host.client(whole.substr(0, 7));
    CHECK(host.waits_ms() == 600'000);
    host.to_client();
    host.times_out();
    CHECK(host.closed);
    CHECK(client_tags(host.to_server()) == "X");
    CHECK(contains(host.to_client(), "57P05"));
}

TEST_CASE("a deadline that crosses with a statement ends nothing") {
    Host host;
    host.log_in();
    host.client(query("SELECT 1"));
    host.times_out();
    CHECK_FALSE(host.closed);
    host.server(complete("SELECT 1") + ready());
    CHECK(host.waits_ms() == 600'000);
}

TEST_CASE("a pipeline, a COPY and what waits for a verdict or a record are not idle") {
    Host host;
    host.log_in();
    host.client(parse("", "SELECT 1") + bind("", "") + execute("") + flush());
    host.server(parse_complete() + bind_complete() + complete("SELECT 1"));
    CHECK(host.waits_ms() == -1);
    host.client(sync_message()).server(ready());
    CHECK(host.waits_ms() == 600'000);

    host.client(query("COPY t FROM STDIN"));
    host.server(protocol::encoded(protocol::CopyInResponse{0, {}}));
    CHECK(host.waits_ms() == -1);
    host.client(protocol::encoded(protocol::CopyDone{}));
    host.server(complete("COPY 0") + ready());
    CHECK(host.waits_ms() == 600'000);

    host.answer_judge = false;
    host.client(query("SELECT 2"));
    CHECK(host.waits_ms() == -1);
    host.times_out();
    CHECK_FALSE(host.closed);
}

TEST_CASE("after an error in a pipeline the client owes a Sync, and is not idle") {
    Host host;
    host.log_in();
    host.client(parse("", "SELEC")).server(error("42601"));
    CHECK(host.waits_ms() == -1);
    host.client(sync_message()).server(ready());
    CHECK(host.waits_ms() == 600'000);
}

TEST_CASE("without limits there are no deadlines, and new limits count from where they came") {
    Host host{session::Setup{}};
    host.log_in();
    CHECK(host.waits_ms() == -1);
    host.event(session::IdleLimits{milliseconds(5000), milliseconds(0)});
    CHECK(host.waits_ms() == 5000);
    host.client(query("BEGIN")).server(complete("BEGIN") + ready('T'));
    CHECK(host.waits_ms() == -1);
    host.times_out();
    CHECK_FALSE(host.closed);
    host.event(session::IdleLimits{milliseconds(0), milliseconds(70)});
    CHECK(host.waits_ms() == 70);
    host.event(session::IdleLimits{});
    CHECK(host.waits_ms() == -1);
}

TEST_CASE("a connection for replication is never idle, and is not told where it is") {
    session::Setup setup = limited();
    setup.upstream->environment = "PRODUCTION";
    Host host(setup);
    protocol::StartupMessage startup;
    startup.parameters = {{"user", "clerk"}, {"replication", "database"}, {"database", "shop"}};
    host.client(protocol::encoded(startup));
    host.event(session::Connected{true, {}, false, {}});
    host.server(protocol::encoded(protocol::AuthenticationOk{}) + ready());
    CHECK(host.waits_ms() == -1);
    CHECK(server_tags(host.to_client()) == "RZ");
}

TEST_CASE("the environment is told before the first ReadyForQuery, in what the client can read") {
    const auto [encoding, shown] = GENERATE(
        std::pair(std::string_view("UTF8"), std::string("pgchaperone: environment: K\u00f6ln")),
        std::pair(std::string_view("LATIN1"), std::string("pgchaperone: environment: K?ln")));
    session::Setup setup;
    setup.upstream->environment = "K\u00f6ln";
    Host host(setup);
    protocol::StartupMessage startup;
    startup.parameters = {{"user", "clerk"}, {"database", "shop"}};
    host.client(protocol::encoded(startup));
    host.event(session::Connected{true, {}, false, {}});
    host.server(protocol::encoded(protocol::AuthenticationOk{}) +
                    protocol::encoded(protocol::ParameterStatus{"client_encoding", encoding}) +
                    ready(),
                3);
    const std::string told = host.to_client();
    CHECK(server_tags(told) == "RSNZ");
    CHECK(contains(told, std::string("NOTICE\0", 7)));
    CHECK(contains(told, shown));
    host.client(query("SELECT 1")).server(complete("SELECT 1") + ready());
    CHECK(server_tags(host.to_client()) == "CZ");
}

TEST_CASE("when the process ends, idle sessions go at once and busy ones when they are idle") {
    Host host;
    host.log_in();
    // It may be about to send something.
    CHECK_FALSE(host.session.end_if_idle(false));
    host.client(query("SELECT 1"));
    CHECK_FALSE(host.session.end_if_idle(true));
    host.server(complete("SELECT 1") + ready());
    host.to_client();
    CHECK(host.session.end_if_idle(false));
    host.drain();
    CHECK(contains(host.to_client(), "57P01"));

    Host login;
    login.client(protocol::encoded(protocol::StartupMessage{}));
    CHECK_FALSE(login.session.end_if_idle(false));
    CHECK(login.session.end_if_idle(true));
    login.drain();
    CHECK(contains(login.to_client(), "57P03"));

    Host cancel;
    cancel.answer_cancel = false;
    cancel.client(protocol::encoded(protocol::CancelRequest{1, "1234"}));
    CHECK_FALSE(cancel.session.end_if_idle(true));

    Host busy;
    busy.log_in();
    busy.client(query("SELECT pg_sleep(100)"));
    busy.to_client();
    busy.session.end_now();
    busy.drain();
    CHECK(busy.closed);
    CHECK(contains(busy.to_client(), "57P01"));
}
