#include "web/http.h"
#include "support/catch.h"
#include "web/events.h"

#include <string>
#include <vector>

using namespace pgchaperone::web;

namespace {

struct Outcome {
    std::vector<std::string> requests;  // "GET /x?y [body]"
    unsigned broken = 0;
    bool operator==(const Outcome&) const = default;
};

std::string text_of(const Request& request) {
    const char* const names[] = {"GET", "HEAD", "POST", "DELETE", "other"};
    return std::string(names[static_cast<int>(request.method)]) + " " + request.path +
           (request.query.empty() ? "" : "?" + request.query) +
           (request.body.empty() ? "" : " " + request.body);
}

Outcome read(std::string_view bytes, std::size_t cut) {
    RequestReader reader;
    Outcome outcome;
    for (std::size_t i = 0; i < bytes.size() && !reader.broken(); i += cut) {
        reader.feed(bytes.substr(i, cut));
        while (auto request = reader.next()) outcome.requests.push_back(text_of(*request));
    }
    if (reader.broken()) outcome.broken = reader.broken()->status;
    return outcome;
}

// However it is cut, the same comes out.
Outcome read(const std::string& bytes) {
    const Outcome whole = read(bytes, bytes.size());
    for (const std::size_t cut :
         {std::size_t(1), std::size_t(2), std::size_t(7), std::size_t(4096)}) {
        INFO("cut into " << cut);
        CHECK(read(bytes, cut).requests == whole.requests);
        CHECK(read(bytes, cut).broken == whole.broken);
    }
    return whole;
}

using Requests = std::vector<std::string>;
const std::string host = "Host: x\r\n";

}  // namespace

TEST_CASE("requests are read however they are cut, one after the other") {
    const std::string get = "GET /a%20b?c=%41&d HTTP/1.1\r\n" + host + "\r\n";
    const std::string post = "POST /p HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc";
    CHECK(read(get).requests == Requests{"GET /a b?c=%41&d"});
    CHECK(read(get + post + get).requests ==
          Requests{"GET /a b?c=%41&d", "POST /p abc", "GET /a b?c=%41&d"});
    CHECK(read("PATCH / HTTP/1.1\r\n" + host + "\r\n").requests == Requests{"other /"});
}

TEST_CASE("what is no request ends the connection with a status that says why") {
    const std::string line = "GET / HTTP/1.1\r\n";
    const auto [bytes, status] = GENERATE_REF(values<std::pair<std::string, unsigned>>({
        {"\x16\x03\x01\x02" + std::string(60, '\0'), 400},
        {"hello\r\n\r\n", 400},
        {line + "\r\n", 400},                // no host
        {line + host + host + "\r\n", 400},  // two
        {line + host + "X : y\r\n\r\n", 400},
        {"GET * HTTP/1.1\r\n" + host + "\r\n", 400},
        {"GET /%zz HTTP/1.1\r\n" + host + "\r\n", 400},
        {"GET /%00 HTTP/1.1\r\n" + host + "\r\n", 400},
        {"GET /%c0%af HTTP/1.1\r\n" + host + "\r\n", 400},  // an overlong slash
        {"GET /%ed%a0%80 HTTP/1.1\r\n" + host + "\r\n", 400},
        {"POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
        {"POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
         400},
        {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 411},
        {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: identity\r\n\r\nab", 411},
        {"POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400},
        {line + host + "X: y\r\n folded\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411},
        {"POST / HTTP/1.1\r\n" + host + "Content-Length: 65537\r\n\r\n", 413},
        {line + host + "X: " + std::string(head_bytes_max, 'a') + "\r\n\r\n", 431},
    }));
    INFO(bytes.substr(0, 60));
    const Outcome outcome = read(bytes);
    CHECK(outcome.requests.empty());
    CHECK(outcome.broken == status);
}

TEST_CASE("a head that comes in many small lines is bounded too") {
    RequestReader reader;
    reader.feed("GET / HTTP/1.1\r\n" + host);
    std::size_t fed = 0;
    while (!reader.broken() && fed < 100 * head_bytes_max) {
        reader.feed("X: 1\r\n");
        fed += 6;
        CHECK_FALSE(reader.next());
    }
    REQUIRE(reader.broken());
    CHECK(reader.broken()->status == 431);
    CHECK(fed < 2 * head_bytes_max);
}

TEST_CASE("headers, cookies and parameters are found by their names") {
    RequestReader reader;
    reader.feed(
        "GET /?limit=10&name=a%2Bb&bad=%f HTTP/1.1\r\nHost: x\r\nX-CSRF-Token: t\r\n"
        "Cookie: a=1; pgchaperone=secret; b=2\r\n\r\n");
    const auto request = reader.next();
    REQUIRE(request);
    CHECK(request->header("x-csrf-token") == "t");
    CHECK(request->header("origin").empty());
    CHECK(request->cookie("pgchaperone") == "secret");
    CHECK(request->cookie("chaperone").empty());
    CHECK(request->parameter("limit") == "10");
    CHECK(request->parameter("name") == "a+b");
    CHECK_FALSE(request->parameter("bad"));
    CHECK_FALSE(request->parameter("more"));
}

TEST_CASE("an answer says how long it is, and whether the connection stays") {
    Response response;
    response.content_type = "text/plain";
    response.body = "hello";
    const std::string whole = bytes_of(response, false, true);
    CHECK(whole.starts_with("HTTP/1.1 200 OK\r\n"));
    CHECK(whole.find("Content-Length: 5\r\n") != std::string::npos);
    CHECK(whole.ends_with("\r\n\r\nhello"));
    const std::string head = bytes_of(response, true, false);
    CHECK(head.find("Content-Length: 5\r\n") != std::string::npos);
    CHECK(head.find("Connection: close\r\n") != std::string::npos);
    CHECK(head.ends_with("\r\n\r\n"));
    Response stream;
    stream.content_type = "text/event-stream";
    stream.stream = std::make_shared<EventStream>();
    CHECK(bytes_of(stream, false, true).find("Content-Length") == std::string::npos);
    CHECK(bytes_of(stream, false, true).find("Transfer-Encoding") == std::string::npos);
    Response none;
    none.status = 204;
    CHECK(bytes_of(none, false, true).find("Content-Length") == std::string::npos);
}

TEST_CASE("events that nobody reads become one that says that there were some") {
    EventStream stream;
    int woken = 0;
    stream.on_wake([&] { ++woken; });
    stream.push("tickets", R"({"ticket":"B1"})");
    CHECK(stream.take() == "event: tickets\ndata: {\"ticket\":\"B1\"}\n\n");
    for (int i = 0; i < 10'000; ++i) stream.push("tickets", R"({"ticket":"B1"})");
    const std::string all = stream.take();
    CHECK(all.size() < 5'000);
    CHECK(all.ends_with("event: tickets\ndata: {}\n\n"));
    CHECK(woken > 100);
    stream.end("over", "{}");
    stream.push("tickets", "{}");
    CHECK(stream.over());
    CHECK(stream.take() == "event: over\ndata: {}\n\n");
}
