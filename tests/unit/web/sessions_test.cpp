#include "web/sessions.h"
#include "support/catch.h"

using namespace pgchaperone;
using namespace pgchaperone::web;
using namespace std::chrono_literals;

namespace {

const SessionTime start{std::chrono::hours(400)};
const SessionTerms terms{.idle = 60s,
                         .life = 600s,
                         .sessions_max = 4,
                         .sessions_of_a_role_max = 2,
                         .streams_max = 3,
                         .streams_of_a_session_max = 2};

struct Nobody : Proof {
    void ask(std::function<void(Known)> then) override { then({}); }
};

std::shared_ptr<Session> open(Sessions& sessions, const std::string& cookie,
                              const std::string& role = "bob", SessionTime now = start) {
    Admission admission{std::make_shared<Nobody>(), {approval::Person{role, 1, {}}, {}, false}};
    return sessions.open(cookie, "token", role, std::move(admission), now, {});
}

}  // namespace

TEST_CASE("a session is found by its cookie until its time is over") {
    Sessions sessions(terms);
    const auto session = open(sessions, "c1");
    CHECK(sessions.find("c1", start + 59s) == session);
    CHECK(sessions.find("c1", start + 118s) == session);  // each use prolongs it
    CHECK_FALSE(sessions.find("c2", start));
    CHECK_FALSE(sessions.find("", start));
    CHECK_FALSE(sessions.find("c1", start + 178s));
    CHECK_FALSE(session->proof);
    CHECK_FALSE(sessions.find("c1", start));
}

TEST_CASE("no use prolongs a session beyond its life") {
    Sessions sessions(terms);
    open(sessions, "c1");
    for (auto now = start; now < start + 600s; now += 50s) CHECK(sessions.find("c1", now));
    CHECK_FALSE(sessions.find("c1", start + 600s));
}

TEST_CASE("an open page is a use, and hears when the session is over") {
    Sessions sessions(terms);
    const auto session = open(sessions, "c1");
    const auto stream = sessions.open_stream(*session);
    REQUIRE(stream);
    for (auto now = start; now < start + 600s; now += 100s) {
        sessions.sweep(now);
        CHECK(sessions.size() == 1);
    }
    sessions.sweep(start + 600s);
    CHECK(sessions.size() == 0);
    CHECK(stream->over());
    CHECK(stream->take() == "event: over\ndata: {\"why\":\"its time is over\"}\n\n");
}

TEST_CASE("where there are too many, the one used longest ago ends") {
    Sessions sessions(terms);
    const auto first = open(sessions, "b1", "bob", start);
    open(sessions, "b2", "bob", start + 1s);
    CHECK(sessions.find("b1", start + 2s));
    open(sessions, "b3", "bob", start + 3s);
    CHECK(sessions.find("b1", start + 3s));
    CHECK_FALSE(sessions.find("b2", start + 3s));
    open(sessions, "c1", "carol", start + 4s);
    open(sessions, "d1", "dave", start + 5s);
    CHECK(sessions.size() == 4);
    open(sessions, "e1", "erin", start + 6s);
    CHECK(sessions.size() == 4);
    CHECK(sessions.find("e1", start + 6s));
}

TEST_CASE("all sessions of a role share the newest connection, others do not") {
    Sessions sessions(terms);
    const auto one = open(sessions, "b1"), carol = open(sessions, "c1", "carol");
    const auto before = one->proof;
    const auto two = open(sessions, "b2");
    CHECK(one->proof == two->proof);
    CHECK(one->proof != before);
    CHECK(carol->proof != two->proof);
    sessions.end(two, "");
    CHECK(one->proof);
}

TEST_CASE("streams are bounded for each and for all, and make room when they are gone") {
    Sessions sessions(terms);
    const auto bob = open(sessions, "b1"), carol = open(sessions, "c1", "carol");
    auto one = sessions.open_stream(*bob), two = sessions.open_stream(*bob);
    CHECK_FALSE(sessions.open_stream(*bob));
    const auto three = sessions.open_stream(*carol);
    CHECK(three);
    CHECK_FALSE(sessions.open_stream(*carol));
    one.reset();
    CHECK(sessions.open_stream(*bob));
}
