#include "support/catch.h"
#include "support/web_host.h"
#include "web/assets.h"

#include <boost/json.hpp>

using namespace pgchaperone;
using namespace pgchaperone::web;
using namespace std::chrono_literals;
using test::WebHost;

namespace {

Request get(std::string path, const WebHost::Browser& browser = {}) {
    return WebHost::request(Method::get, std::move(path), {}, browser);
}
Request post(std::string path, const WebHost::Browser& browser, std::string body = "{}") {
    return WebHost::request(Method::post, std::move(path), std::move(body), browser);
}
boost::json::object json_of(const Response& response) {
    return boost::json::parse(response.body).as_object();
}
std::string header_of(const Response& response, std::string_view name) {
    for (const auto& [key, value] : response.headers) {
        if (key == name) return value;
    }
    return {};
}

}  // namespace

TEST_CASE("who decides is asked of the server at each decision, who reads now and then") {
    WebHost host;
    const std::string first = host.open("b1"), second = host.open("b2");
    const auto bob = host.browser_of("bob");
    CHECK(host.ask(get("/api/v1/tickets", bob)).status == 200);
    CHECK(host.asked == 0);
    CHECK(host.ask(post("/api/v1/tickets/" + first + "/approve", bob)).status == 200);
    CHECK(host.asked == 1);
    host.people["bob"].member_of.clear();
    CHECK(host.ask(post("/api/v1/tickets/" + second + "/approve", bob)).status == 403);
    CHECK(host.asked == 2);
    CHECK(host.find(second).votes.empty());
    host.pass(11s);
    CHECK(json_of(host.ask(get("/api/v1/tickets", bob))).at("tickets").as_array().empty());
    CHECK(host.asked == 3);
}

TEST_CASE("where the server does not vouch for somebody any more, their session is over") {
    WebHost host;
    const std::string ticket = host.open();
    const auto bob = host.browser_of("bob");
    const Response stream = host.ask(get("/api/v1/events", bob));
    REQUIRE(stream.stream);
    SECTION("it is gone") { host.server_away = true; }
    SECTION("the role was dropped") { host.people.erase("bob"); }
    CHECK(host.ask(post("/api/v1/tickets/" + ticket + "/approve", bob)).status == 401);
    CHECK(host.ask(get("/api/v1/session", bob)).status == 401);
    CHECK(stream.stream->over());
    CHECK(host.find(ticket).votes.empty());
    CHECK(host.app.sessions() == 0);
}

TEST_CASE("nothing changes without the session's own token, or at another site's word") {
    WebHost host;
    const std::string ticket = host.open();
    const auto bob = host.browser_of("bob"), carol = host.browser_of("carol");
    const std::string path = "/api/v1/tickets/" + ticket + "/approve";
    CHECK(host.ask(post(path, {})).status == 401);
    CHECK(host.ask(post(path, {bob.cookie, ""})).status == 403);
    CHECK(host.ask(post(path, {bob.cookie, carol.token})).status == 403);
    CHECK(host.ask(post(path, {bob.cookie + "0", bob.token})).status == 401);
    for (const auto& [name, value] :
         std::vector<std::pair<std::string, std::string>>{{"origin", "https://guard"},
                                                          {"origin", "http://guard.evil"},
                                                          {"origin", "null"},
                                                          {"sec-fetch-site", "cross-site"},
                                                          {"sec-fetch-site", "same-site"}}) {
        Request request = post(path, bob);
        request.headers.emplace_back(name, value);
        INFO(name << ": " << value);
        CHECK(host.ask(request).status == 403);
    }
    CHECK(host.find(ticket).votes.empty());
    Request own = post(path, bob);
    own.headers.emplace_back("origin", "http://guard");
    CHECK(host.ask(own).status == 200);
    CHECK(host.find(ticket).state == approval::State::approved);
}

TEST_CASE("logging in anew ends the session before, and logging out the one that is") {
    WebHost host;
    const auto first = host.browser_of("bob");
    Request again = WebHost::request(Method::post, "/api/v1/session",
                                     R"({"role":"carol","password":"carol"})", {first.cookie, ""});
    CHECK(host.ask(again).status == 200);
    CHECK(host.ask(get("/api/v1/session", first)).status == 401);
    CHECK(host.app.sessions() == 1);
    const auto bob = host.browser_of("bob");
    const Response out = host.ask(WebHost::request(Method::remove, "/api/v1/session", {}, bob));
    CHECK(out.status == 204);
    CHECK(header_of(out, "Set-Cookie").find("Max-Age=0") != std::string::npos);
    CHECK(host.ask(get("/api/v1/session", bob)).status == 401);
}

TEST_CASE("who is logged in at one server is nobody at the other") {
    WebHost host;
    const std::string ticket = host.open();
    WebHost::Browser here, there;
    CHECK(host.log_in("bob", "bob", nullptr, "nowhere").status == 400);
    CHECK(host.log_in("bob", "bob", &here).status == 200);
    const Response login = host.log_in("bob", "bob", &there, "billing");
    CHECK(login.status == 200);
    CHECK(login.body.find(R"("upstream":"billing")") != std::string::npos);
    CHECK(login.body.find("db2:5432") != std::string::npos);
    const auto get = [&](const std::string& path, const WebHost::Browser& browser) {
        return host.ask(WebHost::request(Method::get, path, {}, browser));
    };
    CHECK(get("/api/v1/tickets/" + ticket, here).status == 200);
    CHECK(get("/api/v1/tickets", here).body.find(ticket) != std::string::npos);
    CHECK(get("/api/v1/tickets/" + ticket, there).status == 404);
    CHECK(get("/api/v1/tickets", there).body.find(ticket) == std::string::npos);
    for (const char* what : {"/approve", "/deny", "/withdraw"}) {
        CHECK(host.ask(WebHost::request(Method::post, "/api/v1/tickets/" + ticket + what, "{}",
                                        there))
                  .status == 404);
    }
    // That somebody has logged in at one, under the same name, changes nothing at the other.
    CHECK(get("/api/v1/session", here).body.find("upstream") == std::string::npos);
    CHECK(get("/api/v1/tickets/" + ticket, here).status == 200);
    CHECK(get("/api/v1/upstreams", {}).body == R"({"upstreams":["","billing"]})");
}

TEST_CASE("a server that does not answer costs nobody an attempt, a wrong password does") {
    WebHost host;
    host.server_away = true;
    for (int i = 0; i < 50; ++i) CHECK(host.log_in("bob", "bob", nullptr).status == 503);
    host.server_away = false;
    CHECK(host.log_in("bob", "bob", nullptr).status == 200);
    for (int i = 0; i < 5; ++i) CHECK(host.log_in("bob", "guess", nullptr).status == 401);
    const Response slow = host.log_in("bob", "bob", nullptr);
    CHECK(slow.status == 429);
    CHECK(header_of(slow, "Retry-After") == "1");
    CHECK(host.log_in("carol", "carol", nullptr).status == 200);
    host.pass(2s);
    CHECK(host.log_in("bob", "bob", nullptr).status == 200);
}

TEST_CASE("an address that guesses at many roles is slowed down as well") {
    WebHost host;
    unsigned refused = 0;
    for (int i = 0; i < 50; ++i) {
        refused += host.log_in("role" + std::to_string(i), "x", nullptr).status == 429 ? 1 : 0;
    }
    CHECK(refused == 30);
}

TEST_CASE("who guesses from many places at one role does not keep its owner out") {
    WebHost host;
    const auto from = [&](const std::string& peer, const std::string& password) {
        Request request = WebHost::request(Method::post, "/api/v1/session",
                                           R"({"role":"bob","password":")" + password + R"("})");
        request.peer = peer;
        return host.ask(std::move(request)).status;
    };
    CHECK(from("192.0.2.7", "bob") == 200);
    int counted = 0;
    for (int i = 0; i < 1000; ++i) {
        counted += from("10.0." + std::to_string(i / 250) + "." + std::to_string(i % 250), "x") ==
                           401
                       ? 1
                       : 0;
    }
    CHECK(counted < 60);
    CHECK(from("192.0.2.7", "bob") == 200);   // where they have logged in before
    CHECK(from("192.0.2.99", "bob") == 429);  // elsewhere, as long as it goes on
    host.pass(3s);
    CHECK(from("192.0.2.99", "bob") == 200);
}

TEST_CASE("a clock that is set back prolongs nothing") {
    WebHost host;
    const std::string ticket = host.open();
    const auto bob = host.browser_of("bob");
    host.people["bob"].member_of.clear();
    host.wall_clock_off(-3600s);
    CHECK(host.ask(post("/api/v1/tickets/" + ticket + "/approve", bob)).status == 403);
    CHECK(host.asked == 1);
    host.pass(13h);
    host.wall_clock_off(-14h);
    CHECK(host.ask(get("/api/v1/session", bob)).status == 401);
}

TEST_CASE("what is said is on record before it is done, or is not done") {
    WebHost host;
    const std::string ticket = host.open();
    const auto bob = host.browser_of("bob");
    const std::string path = "/api/v1/tickets/" + ticket + "/deny";
    host.record_problem = "disk full";
    const Response refused = host.ask(post(path, bob));
    CHECK(refused.status == 503);
    CHECK(json_of(refused).at("detail").as_string() == "disk full");
    CHECK(host.find(ticket).votes.empty());
    host.record_problem.clear();
    CHECK(host.ask(post(path, bob)).status == 200);
    CHECK(host.said == std::vector<std::string>{"bob deny " + ticket, "bob deny " + ticket});
}

TEST_CASE("a server that takes too long logs nobody out") {
    WebHost host;
    const std::string ticket = host.open();
    const auto bob = host.browser_of("bob");
    host.server_slow = true;
    CHECK(host.ask(post("/api/v1/tickets/" + ticket + "/approve", bob)).status == 503);
    CHECK(host.find(ticket).votes.empty());
    host.server_slow = false;
    CHECK(host.ask(post("/api/v1/tickets/" + ticket + "/approve", bob)).status == 200);
}

TEST_CASE("the page answers to this machine's names only") {
    WebHost host;
    for (const auto& [name, status] :
         std::vector<std::pair<std::string, unsigned>>{{"guard", 401},
                                                       {"guard:8432", 401},
                                                       {"127.0.0.1:8432", 401},
                                                       {"[::1]:8432", 401},
                                                       {"localhost", 401},
                                                       {"evil.example:8432", 421},
                                                       {"127.0.0.1.evil.example", 421},
                                                       {"", 421}}) {
        Request request = get("/api/v1/tickets");
        request.headers.front().second = name;
        INFO(name);
        CHECK(host.ask(request).status == status);
    }
}

TEST_CASE("nobody writes lines of their own into the log") {
    WebHost host;
    CHECK(host.log_in("x\\nwarn web: logged in: role=chief\\u202e", "x", nullptr).status == 401);
    for (const std::string& line : host.log) {
        CHECK(line.find('\n') == std::string::npos);
        CHECK(line.find("\u202e") == std::string::npos);
    }
    CHECK(host.log.size() == 1);
}

TEST_CASE("a ticket that is not any more what was looked at is not decided on") {
    WebHost host;
    const std::string ticket = host.open();
    const auto bob = host.browser_of("bob");
    const std::string path = "/api/v1/tickets/" + ticket;
    const Response stale = host.ask(post(path + "/approve", bob, R"({"seen":"something else"})"));
    CHECK(stale.status == 409);
    CHECK(host.find(ticket).votes.empty());
    const std::string seen(json_of(host.ask(get(path, bob))).at("seen").as_string());
    CHECK(host.ask(post(path + "/approve", bob, R"({"seen":")" + seen + R"("})")).status == 200);
}

TEST_CASE("pages hear of what happens to tickets that their people may see") {
    WebHost host;
    const auto bob = host.browser_of("bob"), dave = host.browser_of("dave");
    const auto bobs = host.ask(get("/api/v1/events", bob)).stream;
    const auto daves = host.ask(get("/api/v1/events", dave)).stream;
    const approval::Ticket ticket = host.find(host.open());
    host.app.happened({approval::Happened::Kind::opened, ticket});
    CHECK(bobs->take() == "event: tickets\ndata: {\"ticket\":\"B1\",\"what\":\"opened\"}\n\n");
    CHECK(daves->take().empty());
    host.app.end_all();
    CHECK(daves->over());
}

TEST_CASE("the page's files are served to everybody, and not again where they are known") {
    WebHost host;
    for (const Asset& asset : assets()) {
        INFO(asset.path);
        const Response response = host.ask(get(std::string(asset.path)));
        CHECK(response.status == 200);
        CHECK(response.body == asset.text);
        CHECK(header_of(response, "Content-Security-Policy").starts_with("default-src 'none'"));
        Request again = get(std::string(asset.path));
        again.headers.emplace_back("if-none-match", header_of(response, "ETag"));
        CHECK(host.ask(again).status == 304);
    }
}

TEST_CASE("what can't be done is told by the status that HTTP has for it") {
    WebHost host;
    const auto bob = host.browser_of("bob");
    CHECK(host.ask(get("/nowhere")).status == 404);
    const Response wrong = host.ask(WebHost::request(Method::other, "/api/v1/session"));
    CHECK(wrong.status == 405);
    CHECK(header_of(wrong, "Allow") == "POST, GET, DELETE");
    CHECK(host.ask(get("/api/v1/tickets/Z9", bob)).status == 404);
    CHECK(host.ask(get("/api/v1/tickets/", bob)).status == 404);
    CHECK(host.ask(get("/api/v1/tickets/B1/approve", bob)).status == 405);
    CHECK(host.ask(WebHost::request(Method::head, "/api/v1/events", {}, bob)).status == 405);
    CHECK(host.ask(WebHost::request(Method::head, "/api/v1/tickets", {}, bob)).status == 200);
    const auto body = json_of(host.ask(get("/nowhere")));
    CHECK(body.at("status").as_int64() == 404);
    CHECK_FALSE(body.at("title").as_string().empty());
}
