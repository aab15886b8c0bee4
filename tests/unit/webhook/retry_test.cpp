#include "webhook/retry.h"
#include "webhook/url.h"

#include "support/catch.h"

using namespace pgchaperone::webhook;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;

TEST_CASE("what may go well later is tried again, what was refused is not") {
    for (const long status : {200L, 201L, 204L, 299L})
        CHECK(outcome_of(status) == Outcome::delivered);
    for (const long status : {408L, 425L, 429L, 500L, 502L, 503L, 599L})
        CHECK(outcome_of(status) == Outcome::again);
    for (const long status : {100L, 301L, 302L, 307L, 400L, 401L, 403L, 404L, 410L})
        CHECK(outcome_of(status) == Outcome::never);
}

TEST_CASE("the time between attempts doubles, from one second to five minutes") {
    CHECK(retry_delay(1, 0, {}) == 1s);
    CHECK(retry_delay(2, 0, {}) == 2s);
    CHECK(retry_delay(5, 0, {}) == 16s);
    CHECK(retry_delay(9, 0, {}) == 256s);
    CHECK(retry_delay(10, 0, {}) == 5min);
    CHECK(retry_delay(4'000'000'000U, 0, {}) == 5min);
}

TEST_CASE("chance takes away up to half of it") {
    CHECK(retry_delay(3, 1, {}) == 2s);
    CHECK(retry_delay(3, 0.5, {}) == 3s);
    CHECK(retry_delay(3, 7, {}) == 2s);
    CHECK(retry_delay(3, -7, {}) == 4s);
}

TEST_CASE("a receiver may ask for more time, within bounds") {
    CHECK(retry_delay(1, 0, 20s) == 20s);
    CHECK(retry_delay(6, 0, 20s) == 32s);
    CHECK(retry_delay(1, 0, 10min) == 10min);
    CHECK(retry_delay(1, 0, std::chrono::seconds::max()) == 1h);
    CHECK(retry_delay(1, 0, -5s) == 1s);
}

TEST_CASE("of an answer the name of an error is told, and nothing that may be a secret") {
    CHECK(answer_text(400, "invalid_payload") == "answered 400: invalid_payload");
    CHECK(answer_text(400, "invalid_payload\r\n") == "answered 400: invalid_payload");
    for (const char* answer :
         {"", "no /services/T0/B0/abcdefghijkl", "key abc1234", "Bearer", "a\nb\x1b[31m\xff",
          "{\"statement\":\"DELETE\"}", "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"}) {
        INFO(answer);
        CHECK(answer_text(401, answer) == "answered 401");
    }
    CHECK_THAT(answer_text(302, "go to /services/T0"), ContainsSubstring("not followed"));
}

TEST_CASE("a URL is read as the library reads it that connects") {
    std::string problem;
    const auto url = url_of("https://hooks.slack.com/services/x", problem);
    REQUIRE(url);
    CHECK(url->host == "hooks.slack.com");
    CHECK(url->tls);
    CHECK_FALSE(url->loopback);
    for (const char* here : {"http://localhost:81/a", "http://127.0.0.1/", "http://[::1]:8080/x"})
        CHECK(url_of(here, problem)->loopback);
    for (const char* there : {"http://localhost.example.org/", "http://10.0.0.1"})
        CHECK_FALSE(url_of(there, problem)->loopback);
    CHECK(origin_of("http://10.0.0.1:81/secret?x#y") == "http://10.0.0.1:81");
}

TEST_CASE("what is no address of a receiver is refused, and nothing of it is told") {
    for (const char* wrong : {"", "hooks", "/x", "https://", "ftp://h/secret", "file:///etc/secret",
                              "https://u:secret@h/", "https://u@h/secret", "https://h/a b",
                              "https://h:99999/secret", "https://h/\n", "javascript:secret"}) {
        INFO(wrong);
        std::string problem;
        CHECK_FALSE(url_of(wrong, problem));
        CHECK_FALSE(problem.empty());
        CHECK_THAT(problem, !ContainsSubstring("secret"));
    }
    std::string problem;
    CHECK_FALSE(url_of("https://h/" + std::string(5000, 'x'), problem));
    CHECK_FALSE(url_of(std::string("https://h/\0x", 12), problem));
}
