#include "approval/ticket_json.h"
#include "tickets.h"

#include "support/catch.h"

#include <boost/json.hpp>

using namespace pgchaperone::test;
using namespace pgchaperone::approval;

namespace {

Ticket full_ticket() {
    Terms terms = dba_decides(2);
    terms.approvers.push_back({"staff", "*"});
    Request request = request_of_alice("b1", terms);
    request.client = "192.0.2.7";
    request.application = "psql";
    request.session = ~0ULL;
    request.statement = "UPDATE \"\xc3\xa4\" SET x = E'\\n'\n\t\x01";
    request.parameters = {"1", std::nullopt, "", std::string("\xff\x00\xfe", 3)};
    request.settings = "search_path=public role=none";
    request.reason = "it would touch every row";
    request.evidence = {.kind = Evidence::Kind::counted,
                        .tables = {{"public.orders", 1, 2, ~0ULL}},
                        .catalog_changes = {"pg_proc"},
                        .exclusive_locks = {"public.orders"},
                        .foreign_writes = {"far"},
                        .text = "Seq Scan"};
    Ticket ticket = opened(request, "K7", "one", start_time);
    ticket = voted(ticket, bob(), true, "ok", start_time + 1s).value();
    ticket = voted(ticket, carol(), true, "\xe2\x82\xac", start_time + 2s).value();
    return finished(claimed(ticket, start_time + 3s), "UPDATE 5");
}

}  // namespace

TEST_CASE("a ticket comes back from JSON as it was") {
    CHECK(ticket_of(json_of(full_ticket())) == full_ticket());
    const Ticket plain = opened(request_of_alice(), "K7", "one", start_time);
    CHECK(ticket_of(json_of(plain)) == plain);
    CHECK_FALSE(plain == full_ticket());
}

TEST_CASE("which server knows the requester is kept, and left out where there is only one") {
    Request request = request_of_alice();
    CHECK(json_of(opened(request, "K7", "here", start_time)).find("upstream") == std::string::npos);
    request.requester.upstream = "billing";
    const Ticket ticket = opened(request, "K7", "here", start_time);
    CHECK(ticket_of(json_of(ticket)) == ticket);
}

TEST_CASE("bytes that are no UTF-8 come back as they were, and the JSON is UTF-8") {
    const std::string cases[] = {std::string("a\0b", 3),
                                 "\xff",
                                 "\x80",
                                 "\xc3",
                                 "\xc0\x80",
                                 "\xe0\x80\x80",
                                 "\xed\xa0\x80",
                                 "\xf0\x80\x80\x80",
                                 "\xf4\x90\x80\x80",
                                 "\xf8\x88\x80\x80\x80",
                                 "\xe2\x82",
                                 "ok\xe2\x82(",
                                 "\xf0\x9f\x98\x80",
                                 "\xed\x9f\xbf",
                                 "\xef\xbf\xbf"};
    for (const std::string& bytes : cases) {
        Request request = request_of_alice();
        request.statement = bytes;
        request.application = bytes;
        const Ticket ticket = opened(request, "K7", "one", start_time);
        const std::string json = json_of(ticket);
        CHECK(json.find('\0') == std::string::npos);
        CHECK(json.find("\\u0000") == std::string::npos);
        // Boost's parser refuses what is no UTF-8.
        CHECK(ticket_of(json) == ticket);
    }
}

TEST_CASE("what is no ticket is not read as one") {
    const std::string json = json_of(full_ticket());
    CHECK_FALSE(ticket_of(""));
    CHECK_FALSE(ticket_of("null"));
    CHECK_FALSE(ticket_of("{}"));
    for (std::size_t size = 0; size < json.size(); size += 7)
        CHECK_FALSE(ticket_of(std::string_view(json).substr(0, size)));
    // Each field in turn is missing, or of another type.
    const boost::json::object whole = boost::json::parse(json).as_object();
    for (const auto& field : whole) {
        boost::json::object less = whole;
        less.erase(field.key());
        CHECK_FALSE(ticket_of(boost::json::serialize(less)));
        less[field.key()] = boost::json::array{true};
        CAPTURE(std::string(field.key()));
        CHECK_FALSE(ticket_of(boost::json::serialize(less)));
    }
    boost::json::object more = whole;
    more["later"] = "what a newer version adds";
    CHECK(ticket_of(boost::json::serialize(more)) == full_ticket());
}
