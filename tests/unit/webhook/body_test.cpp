#include "webhook/body.h"
#include "webhook/text.h"

#include "support/catch.h"

#include <boost/json.hpp>

#include <algorithm>
#include <functional>
#include <set>

using namespace pgchaperone;
using namespace pgchaperone::webhook;
using namespace std::chrono_literals;
using approval::Happened;
using approval::Ticket;
using Catch::Matchers::ContainsSubstring;

namespace {

const approval::Time noon{std::chrono::microseconds(1'763'712'000'123'456)};
const Envelope envelope{"msg_1", noon, "eu-1", "https://chaperone.example.org"};

approval::Request request() {
    approval::Request request;
    request.binding = "b";
    request.requester = {.role = "clerk", .oid = 1, .member_of = {}};
    request.database = "shop";
    request.client = "10.0.0.7";
    request.application = "psql";
    request.command = "UPDATE";
    request.statement = "UPDATE orders SET status = 'live'";
    request.rule = "no-unbounded-writes";
    request.reason = "it has no WHERE and would touch every row of orders";
    request.terms.approvers = {{"dba"}};
    request.evidence.kind = approval::Evidence::Kind::trial;
    request.evidence.tables = {{"public.orders", 0, 2000, 0}};
    return request;
}

Ticket ticket(approval::Request of = request()) {
    return approval::opened(std::move(of), "B1", "eu-1", noon);
}

Ticket denied(std::string comment) {
    return approval::voted(ticket(), {.role = "bob", .oid = 2, .member_of = {"dba"}}, false,
                           std::move(comment), noon + 1s)
        .value();
}

Hook hook_of(Format format) {
    Hook hook;
    hook.name = "ops";
    hook.format = format;
    return hook;
}

boost::json::value parsed(const std::string& body) {
    boost::system::error_code error;
    boost::json::value value = boost::json::parse(body, error);
    INFO(body);
    REQUIRE_FALSE(error);
    return value;
}

// Every text in it, with what it is called.
void each_text(const boost::json::value& value,
               const std::function<void(const std::string&)>& then) {
    if (value.is_string()) then(std::string(value.get_string()));
    if (value.is_array())
        for (const auto& item : value.get_array()) each_text(item, then);
    if (value.is_object())
        for (const auto& item : value.get_object()) each_text(item.value(), then);
}

// What somebody may write who means ill.
const std::string evil =
    "<!channel> <http://evil|ok> @here `*x*` ```\n&amp; \"\\ \x1b[31m\xff "
    "\xe2\x80\xaetxt.exe";

Ticket evil_ticket() {
    approval::Request all = request();
    all.requester.role = all.database = all.client = all.application = all.rule = evil;
    all.reason = all.statement = all.glass_reason = evil;
    all.command = "UPDATE";
    all.evidence.tables = {{evil, 1, 2, 3}};
    all.evidence.catalog_changes = {evil};
    Ticket made = ticket(all);
    made.votes.push_back({evil, 2, true, evil, noon});
    made.comment = made.outcome = made.replica = evil;
    return made;
}

}  // namespace

TEST_CASE("the JSON of an opened ticket") {
    const std::string body = body_of(hook_of(Format::json), {Event::opened, ticket(), true},
                                     envelope);
    CHECK(body ==
          R"({"version":1,"event":"opened","id":"msg_1","time":"2025-11-21T08:00:00.123456Z",)"
          R"("replica":"eu-1","ticket":{"id":"B1","state":"pending","requester":"clerk",)"
          R"("database":"shop","client":"10.0.0.7","application":"psql","command":"UPDATE",)"
          R"("rule":"no-unbounded-writes",)"
          R"("reason":"it has no WHERE and would touch every row of orders",)"
          R"("effects":{"kind":"trial","summary":"2,000 rows of public.orders","tables":)"
          R"([{"table":"public.orders","inserted":0,"updated":2000,"deleted":0}]},)"
          R"("approvals":{"given":0,"needed":1},"opened":"2025-11-21T08:00:00.123456Z",)"
          R"("expires":"2025-11-21T08:30:00.123456Z","url":"https://chaperone.example.org/#B1"}})");
}

TEST_CASE("the JSON of a denial says who and why") {
    const auto body = parsed(
        body_of(hook_of(Format::json), {Event::decided, denied("id 4 only?"), true}, envelope));
    const auto& about = body.at("ticket");
    CHECK(about.at("state") == "denied");
    CHECK(about.at("decided_by") == "bob");
    CHECK(about.at("ended_by") == "bob");
    CHECK(about.at("comment") == "id 4 only?");
}

TEST_CASE("the statement goes out only where the hook says so, and not all of it") {
    approval::Request long_one = request();
    long_one.statement = "UPDATE t SET a = '" + std::string(5000, 'x') + "'";
    for (const Format format : {Format::json, Format::slack}) {
        Hook hook = hook_of(format);
        CHECK_THAT(body_of(hook, {Event::opened, ticket(long_one), true}, envelope),
                   !ContainsSubstring("xxxx"));
        hook.statement = true;
        const std::string body = body_of(hook, {Event::opened, ticket(long_one), true}, envelope);
        CHECK_THAT(body, ContainsSubstring("UPDATE t SET a = 'xxxx") && ContainsSubstring("x…"));
        CHECK(body.size() < 6000);
    }
}

TEST_CASE("Slack's message of an opened ticket") {
    const auto body = parsed(
        body_of(hook_of(Format::slack), {Event::opened, ticket(), true}, envelope));
    CHECK(body.at("text") ==
          "*UPDATE waits for approval* (ticket B1), asked for by `clerk` on `shop`\n"
          "Would change: `2,000 rows of public.orders`\n"
          "Why: `it has no WHERE and would touch every row of orders`\n"
          "https://chaperone.example.org/#B1");
    const auto& blocks = body.at("blocks").as_array();
    REQUIRE(blocks.size() == 5);
    CHECK(blocks[0].at("type") == "header");
    CHECK(blocks[0].at("text").at("text") == "UPDATE waits for approval");
    CHECK(blocks[1].at("fields").at(0).at("text") == "*Ticket*\n`B1`");
    CHECK(blocks[1].at("fields").as_array().size() <= 10);
    CHECK(blocks[4].at("type") == "actions");
    CHECK(blocks[4].at("elements").at(0).at("url") == "https://chaperone.example.org/#B1");
}

TEST_CASE("without a page there is no link") {
    Envelope no_page = envelope;
    no_page.page_url.clear();
    for (const Format format : {Format::json, Format::slack})
        CHECK_THAT(body_of(hook_of(format), {Event::opened, ticket(), true}, no_page),
                   !ContainsSubstring("url") && !ContainsSubstring("#B1"));
}

TEST_CASE("broken glass shouts") {
    approval::Request glass = request();
    glass.glass = true;
    glass.glass_reason = "the site is down";
    const Happened happened{Event::glass, ticket(glass), true};
    const auto body = parsed(body_of(hook_of(Format::slack), happened, envelope));
    CHECK_THAT(std::string(body.at("text").as_string()),
               ContainsSubstring(":rotating_light: *GLASS BROKEN*: UPDATE runs without") &&
                   ContainsSubstring("Why: `the site is down`"));
    CHECK(body.at("blocks").at(0).at("text").at("text") ==
          ":rotating_light: GLASS BROKEN: UPDATE runs without a second person");
    const auto json = parsed(body_of(hook_of(Format::json), happened, envelope));
    CHECK(json.at("event") == "glass");
    CHECK(json.at("ticket").at("glass_reason") == "the site is down");
}

TEST_CASE("every event has a headline of its own") {
    std::set<std::string> seen;
    for (std::size_t i = 0; i < event_names().size(); ++i) {
        const std::string line = headline({static_cast<Event>(i), ticket(), true});
        CHECK_THAT(line, ContainsSubstring("UPDATE"));
        seen.insert(line);
    }
    CHECK(seen.size() == event_names().size());
    CHECK(headline({Event::decided, denied(""), true}) == "UPDATE was denied");
}

TEST_CASE("whatever people write, a body is JSON that no chat renders as anything else") {
    for (const Format format : {Format::json, Format::slack, Format::text}) {
        Hook hook = hook_of(format);
        hook.statement = true;
        hook.text = R"({"all": "{requester} {reason} {effects} {statement} {comment} {client}"})";
        for (std::size_t i = 0; i < event_names().size(); ++i) {
            const std::string body = body_of(hook, {static_cast<Event>(i), evil_ticket(), true},
                                             {"msg_1", noon, evil, ""});
            each_text(parsed(body), [&](const std::string& text) {
                INFO(text);
                CHECK_THAT(text, !ContainsSubstring("\xe2\x80\xae") && !ContainsSubstring("\x1b") &&
                                     !ContainsSubstring("\xff"));
                if (format != Format::slack) return;
                CHECK_THAT(text, !ContainsSubstring("<"));
                // What somebody wrote stands between backticks, of which each line has its own
                // pair.
                const bool block = text.starts_with("```\n");
                const std::string inside = block ? text.substr(4, text.size() - 8) : text;
                CHECK(std::count(inside.begin(), inside.end(), '`') % 2 == 0);
                if (block) CHECK_THAT(inside, !ContainsSubstring("`"));
                bool code = block;
                for (const char c : inside) {
                    if (c == '`') code = !code;
                    if (c == '@') CHECK(code);
                }
            });
        }
    }
}

TEST_CASE("what is very long stays within Slack's limits") {
    approval::Request all = request();
    const std::string amps(1'000'000, '&');
    all.requester.role = all.database = all.client = all.application = all.rule = amps;
    all.reason = all.statement = amps;
    all.command = std::string(1000, 'X');
    all.evidence.tables.assign(500, {amps.substr(0, 1000), 1, 2, 3});
    Hook hook = hook_of(Format::slack);
    hook.statement = true;
    const auto body = parsed(body_of(hook, {Event::opened, ticket(all), true}, envelope));
    for (const auto& block : body.at("blocks").as_array()) {
        if (block.as_object().contains("fields"))
            for (const auto& field : block.at("fields").as_array())
                CHECK(field.at("text").as_string().size() <= 2000);
        if (block.as_object().contains("text"))
            CHECK(block.at("text").at("text").as_string().size() <=
                  (block.at("type") == "header" ? 150 : 3000));
    }
    hook.format = Format::json;
    const auto json = parsed(body_of(hook, {Event::opened, ticket(all), true}, envelope));
    CHECK(json.at("ticket").at("effects").at("tables").as_array().size() == 100);
}

TEST_CASE("a template knows every word, and plain text is not escaped") {
    Hook hook = hook_of(Format::text);
    hook.statement = true;
    for (const TextWord& word : text_words()) {
        hook.text = "{\"" + std::string(word.word) + "\": \"{" + std::string(word.word) + "}\"}";
        const auto body = parsed(body_of(hook, {Event::opened, ticket(), true}, envelope));
        CHECK(std::string(body.at(word.word).as_string()) != "{" + std::string(word.word) + "}");
    }
    hook.text = "{event} {ticket} by {requester}: {reason} {unknown}";
    hook.content_type = plain_content;
    approval::Request quoting = request();
    quoting.reason = "say \"no\"\nnow";
    CHECK(body_of(hook, {Event::opened, ticket(quoting), true}, envelope) ==
          "opened B1 by clerk: say \"no\" ⏎ now {unknown}");
}
