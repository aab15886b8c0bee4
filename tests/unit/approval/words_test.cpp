#include "approval/words.h"
#include "support/catch.h"

using namespace pgchaperone;
using namespace std::chrono_literals;

TEST_CASE("spans of time are rounded to what people say") {
    CHECK(approval::span_text(1ms) == "1 second");
    CHECK(approval::span_text(90s) == "90 seconds");
    CHECK(approval::span_text(29min) == "29 minutes");
    CHECK(approval::span_text(2h) == "2 hours");
    CHECK(approval::span_text(50h) == "2 days");
    CHECK(approval::span_text(-5s) == "0 seconds");
}

TEST_CASE("a text is cut between characters, and shows that it was") {
    CHECK(approval::first_characters("abc", 3) == "abc");
    CHECK(approval::first_characters("abcd", 3) == "abc…");
    CHECK(approval::first_characters("äöüß", 3) == "äöü…");
    CHECK(approval::first_characters("", 3).empty());
    CHECK(approval::first_characters("abc", 0) == "…");
}

TEST_CASE("approvers are told as one of every list, and whether the requester may be one") {
    approval::Terms terms;
    CHECK(approval::approvers_text(terms) == "nobody");
    terms.approvers = {{"dba_*", "lead"}};
    CHECK(approval::approvers_text(terms) == "dba_*, lead");
    terms.approvers.push_back({"auditors"});
    CHECK(approval::approvers_text(terms) == "dba_*, lead; and one of: auditors");
    terms.allow_self = true;
    CHECK(approval::approvers_text(terms).ends_with("; the requester may be one of them"));
}
