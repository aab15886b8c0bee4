// Any bytes, as what a browser sends to the approval page. What must hold:
// - cutting the bytes into other pieces changes nothing in the requests that are read;
// - every request is answered once, with a head that no text can break out of, and JSON where it
//   says so;
// - nothing of a ticket leaves without a session, and nothing is decided without its token.

#include "fuzz/driver.h"
#include "support/web_host.h"

#include <boost/json.hpp>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone {
namespace {

using test::WebHost;
using web::Request;
using web::RequestReader;
using web::Response;

void require(bool holds, std::string_view what) {
    if (holds) return;
    std::fprintf(stderr, "does not hold: %.*s\n", static_cast<int>(what.size()), what.data());
    std::abort();
}

struct Read {
    std::vector<Request> requests;
    unsigned broken = 0;
};

Read read(std::string_view bytes, std::size_t cut) {
    RequestReader reader;
    Read out;
    while (!bytes.empty() && !reader.broken()) {
        reader.feed(bytes.substr(0, cut));
        bytes.remove_prefix(std::min(cut, bytes.size()));
        while (auto request = reader.next()) out.requests.push_back(*std::move(request));
    }
    if (reader.broken()) out.broken = reader.broken()->status;
    return out;
}

bool same(const Read& one, const Read& other) {
    if (one.broken != other.broken || one.requests.size() != other.requests.size()) return false;
    for (std::size_t i = 0; i < one.requests.size(); ++i) {
        const Request& a = one.requests[i];
        const Request& b = other.requests[i];
        if (a.method != b.method || a.path != b.path || a.query != b.query || a.body != b.body ||
            a.headers != b.headers || a.keep_alive != b.keep_alive) {
            return false;
        }
    }
    return true;
}

// One page for all inputs, with bob logged in and a ticket of the clerk's.
struct Page {
    WebHost host;
    std::string ticket = host.open();
    WebHost::Browser bob = host.browser_of("bob");
    int bindings = 1;   // each ticket has its own, or it would be taken up again
    bool over = false;  // bob is logged out: what follows would know no session

    void check(const Request& request);
};

void check_answer(const Response& response, bool head_only) {
    require(response.status >= 200 && response.status < 600 && response.status != 500,
            "a status that was meant");
    for (const auto& [name, value] : response.headers) {
        require((name + value).find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos,
                "a head that nothing breaks out of");
    }
    if (response.content_type.ends_with("json")) {
        boost::system::error_code error;
        (void)boost::json::parse(response.body, error);
        require(!error, "JSON where it says so");
    }
    const std::string bytes = web::bytes_of(response, head_only, true);
    require(bytes.starts_with("HTTP/1.1 "), "an answer is HTTP");
}

void Page::check(const Request& request) {
    const bool has_session = request.cookie("pgchaperone") == bob.cookie.substr(12);
    const bool has_token = request.header("x-csrf-token") == bob.token;
    const Response response = host.ask(request);
    check_answer(response, request.method == web::Method::head);
    if (!has_session) {
        require(response.body.find("FROM orders") == std::string::npos,
                "nothing of a ticket without a session");
    }
    // Turning the clock undoes the throttle, so that logins are tried and not only refused.
    host.pass(std::chrono::seconds(1));
    const approval::Ticket now = host.find(ticket);
    const bool decided = now.state != approval::State::expired &&
                         (now.state != approval::State::pending || !now.votes.empty());
    if (decided) {
        require(has_session && has_token, "nothing is decided without the session and its token");
    }
    if (decided || !now.open()) ticket = host.open("b" + std::to_string(++bindings));
    const Request who = WebHost::request(web::Method::get, "/api/v1/session", {}, bob);
    over = host.ask(who).status == 401;
}

void check_all(std::string_view input) {
    const Read whole = read(input, std::max<std::size_t>(input.size(), 1));
    for (const std::size_t cut : {std::size_t{1}, std::size_t{13}}) {
        require(same(read(input, cut), whole), "chunking does not matter");
    }
    static std::unique_ptr<Page> page;
    for (const Request& request : whole.requests) {
        if (!page || page->over) page = std::make_unique<Page>();
        page->check(request);
    }
}

std::string seed(test::Random& random) {
    const char* const methods[] = {"GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS"};
    const char* const paths[] = {"/",
                                 "/app.js",
                                 "/api/openapi.yaml",
                                 "/api/v1/session",
                                 "/api/v1/tickets",
                                 "/api/v1/tickets/B1",
                                 "/api/v1/tickets/B1/approve",
                                 "/api/v1/tickets/C1/deny",
                                 "/api/v1/tickets/B1/withdraw",
                                 "/api/v1/history?limit=7",
                                 "/api/v1/events",
                                 "/%2e%2e/x?a=%41"};
    const char* const bodies[] = {"{}",
                                  R"({"comment":"yes"})",
                                  R"({"seen":"x","comment":"\u0000"})",
                                  R"({"role":"bob","password":"bob"})",
                                  R"({"role":"carol","password":"wrong"})",
                                  "[[[[",
                                  ""};
    static const WebHost::Browser bob = WebHost().browser_of("bob");  // as every page's first
    std::string out;
    for (std::size_t n = random.between(1, 3); n > 0; --n) {
        const std::string body = bodies[random.below(std::size(bodies))];
        out += std::string(methods[random.below(std::size(methods))]) + " " +
               paths[random.below(std::size(paths))] + " HTTP/1.1\r\nHost: guard\r\n";
        if (!random.one_in(3)) out += "Cookie: " + bob.cookie + "\r\n";
        if (!random.one_in(3)) out += "X-CSRF-Token: " + bob.token + "\r\n";
        if (random.one_in(4)) out += "Origin: http://guard\r\nSec-Fetch-Site: same-origin\r\n";
        if (random.one_in(12)) out += random.one_in(2) ? "X: a\r\n b\r\n" : "Content-Length: 2\r\n";
        if (random.one_in(6)) {
            const char* const encodings[] = {"chunked", "xchunked", "identity", "gzip, chunked"};
            out += "Transfer-Encoding: " + std::string(encodings[random.below(4)]);
            out += "\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        } else {
            out += "Content-Type: application/json\r\nContent-Length: " +
                   std::to_string(body.size()) + "\r\n\r\n" + body;
        }
    }
    return out;
}

}  // namespace
}  // namespace pgchaperone

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    pgchaperone::check_all({reinterpret_cast<const char*>(data), size});
    return 0;
}

std::string pgchaperone_fuzz_seed(pgchaperone::test::Random& random) {
    return pgchaperone::seed(random);
}
