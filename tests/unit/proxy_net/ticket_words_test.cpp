#include "proxy/net/ticket_words.h"
#include "support/catch.h"

using namespace pgchaperone;
using approval::Happened;
using approval::State;
using approval::Ticket;

namespace {

Ticket ticket() {
    Ticket ticket;
    ticket.id = "K7";
    ticket.request.requester.role = "clerk";
    ticket.request.database = "shop";
    ticket.request.client = "::1";
    ticket.request.command = "UPDATE";
    ticket.request.rule = "no-unbounded-writes";
    ticket.request.statement = "UPDATE secret SET a = 1";
    return ticket;
}

}  // namespace

TEST_CASE("the log tells of a ticket on one line, without its statement") {
    using Kind = Happened::Kind;
    for (const Kind kind : {Kind::opened, Kind::voted, Kind::decided, Kind::expired,
                            Kind::withdrawn, Kind::used, Kind::glass, Kind::finished}) {
        Ticket told = ticket();
        told.request.requester.role = "cle\nrk\x1b[31m";
        told.request.glass_reason = "fire\nticket Z9: approved by bob";
        const net::LogLine line = net::log_line({kind, told});
        CHECK(line.text.starts_with("ticket K7: "));
        CHECK(line.text.find('\n') == std::string::npos);
        CHECK(line.text.find('\x1b') == std::string::npos);
        CHECK(line.text.find("secret") == std::string::npos);
        CHECK(line.loud == (kind == Kind::glass));
    }
    Ticket approved = ticket();
    approved.state = State::approved;
    approved.votes = {{"bob", 1, true, "", {}}};
    CHECK(net::log_line({Kind::decided, approved}).text ==
          "ticket K7: approved by bob: requester=clerk database=shop client=::1 command=UPDATE "
          "rule=no-unbounded-writes");
}

TEST_CASE("a glass that was broken says so, and why, in place of who may approve") {
    Ticket broken = ticket();
    broken.state = State::used;
    broken.request.glass = true;
    broken.request.glass_reason = "the shop is down";
    std::string fields;
    for (const auto& [field, value] : net::ticket_fields(broken, {})) fields += field + ";";
    CHECK(fields.find("glass;glass_reason;") != std::string::npos);
    CHECK(fields.find("approvers") == std::string::npos);
    CHECK(fields.find("waiting") == std::string::npos);
}

TEST_CASE("who decides on the beginning of a statement is told that there is more") {
    Ticket cut = ticket();
    cut.request.statement_cut = true;
    cut.request.evidence.kind = approval::Evidence::Kind::trial;
    cut.request.evidence.text = "It also moved a sequence.";
    std::string note;
    for (const auto& [field, value] : net::ticket_fields(cut, {})) {
        if (field == "note") note = value;
    }
    CHECK(note ==
          "It also moved a sequence.\n"
          "Only the beginning of the statement is kept; all of it would run.");
}

TEST_CASE("a plan's numbers are told as the estimates that they are") {
    Ticket planned = ticket();
    planned.request.evidence.kind = approval::Evidence::Kind::plan;
    planned.request.evidence.tables = {{"orders", 0, 0, 1'234'567}};
    planned.request.evidence.text = "Delete on orders";
    std::string tables, plan;
    for (const auto& [field, value] : net::ticket_fields(planned, {})) {
        if (field == "tables") tables = value;
        if (field == "plan") plan = value;
    }
    CHECK(tables == "orders: about 1,234,567 deleted");
    CHECK(plan == "Delete on orders");
}
