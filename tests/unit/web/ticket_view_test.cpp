#include "web/ticket_view.h"
#include "support/catch.h"

#include <boost/json.hpp>

using namespace pgchaperone;
using namespace pgchaperone::web;
using namespace std::chrono_literals;

namespace {

const approval::Time start{std::chrono::hours(400'000)};
const approval::Person clerk{"clerk", 101, {"staff"}}, bob{"bob", 102, {"dba"}};

approval::Ticket ticket() {
    approval::Request request;
    request.binding = "b1";
    request.requester = clerk;
    request.command = "DELETE";
    request.statement = "DELETE FROM orders";
    request.terms.approvers = {{"dba"}};
    request.evidence.kind = approval::Evidence::Kind::trial;
    request.evidence.tables = {{"public.orders", 0, 0, 2000}};
    request.parameters = {"7", std::nullopt};
    request.wait = 60s;
    return approval::opened(std::move(request), "B1", "here", start);
}

boost::json::object shown(const approval::Ticket& ticket, const approval::Person& person,
                          Extent extent = Extent::full, approval::Time now = start + 1s) {
    JsonOut out;
    put_ticket(out, ticket, person, now, extent);
    return boost::json::parse(std::move(out).take()).as_object();
}

}  // namespace

TEST_CASE("what somebody may do is what the ticket itself would let them do") {
    const auto to_bob = shown(ticket(), bob), to_clerk = shown(ticket(), clerk);
    CHECK(to_bob.at("may").at("approve").as_bool());
    CHECK_FALSE(to_bob.at("own").as_bool());
    CHECK_FALSE(to_clerk.at("may").at("approve").as_bool());
    CHECK(to_clerk.at("may").at("withdraw").as_bool());
    CHECK(to_clerk.at("own").as_bool());
    CHECK_FALSE(to_clerk.at("may").at("why_not").as_string().empty());
    const auto gone = shown(*approval::withdrawn(ticket(), nullptr, "disconnected", start + 2s),
                            bob);
    CHECK(gone.at("comment").as_string() == "disconnected");
    CHECK(shown(*approval::voted(ticket(), bob, false, "no", start + 2s), bob).at("ended_by") ==
          "bob");
    const auto late = shown(ticket(), bob, Extent::full, start + 31min);
    CHECK_FALSE(late.at("may").at("decide").as_bool());
}

TEST_CASE("a brief ticket has the beginning of its statement, a full one all that is kept of it") {
    approval::Ticket long_one = ticket();
    long_one.request.statement = std::string(5000, 'x');
    CHECK(shown(long_one, bob, Extent::brief).at("statement_cut").as_bool());
    CHECK(shown(long_one, bob, Extent::brief).at("statement").as_string().size() < 1010);
    CHECK_FALSE(shown(long_one, bob).at("statement_cut").as_bool());
    CHECK(shown(long_one, bob).at("statement").as_string().size() == 5000);
    long_one.request.statement_cut = true;
    CHECK(shown(long_one, bob).at("statement_cut").as_bool());
    CHECK_FALSE(shown(long_one, bob, Extent::brief).contains("parameters"));
    CHECK(shown(ticket(), bob).at("parameters").as_array().at(1).is_null());
}

TEST_CASE("whatever bytes a ticket holds, what is shown of it is JSON") {
    for (int byte = 0; byte < 256; ++byte) {
        approval::Ticket odd = ticket();
        const std::string text = std::string("a") + static_cast<char>(byte) + "\"\\</script>";
        odd.request.statement = odd.request.application = odd.request.reason = text;
        odd.request.evidence.tables.front().table = odd.request.requester.role = text;
        odd.votes = {{text, 7, true, text, start}};
        const auto out = shown(odd, bob);
        if (byte >= 0x20 && byte < 0x7F && byte != '\\')
            CHECK(out.at("statement").as_string() == text);
    }
}

TEST_CASE(
    "what was seen stays the same while people vote, and not when what would happen changes") {
    const approval::Ticket before = ticket();
    approval::Ticket after = *approval::voted(before, bob, true, "yes", start + 1s);
    CHECK(seen_of(before) == seen_of(after));
    after.request.evidence.tables.front().deleted = 2001;
    CHECK(seen_of(before) != seen_of(after));
    approval::Ticket weaker = before;
    weaker.request.terms.approvals = 2;
    CHECK(seen_of(before) != seen_of(weaker));
    approval::Ticket other = before;
    other.request.binding = "b2";
    CHECK(seen_of(before) != seen_of(other));
}
