#include "proxy/session/ledger.h"

#include "support/catch.h"

using namespace pgchaperone::session;

namespace {

// Feeds tags of server messages; '!' stands for an ErrorResponse with SQLSTATE 08P01.
// Answers with one letter each: p part, d done, u unsolicited, i impossible.
std::string receive(Ledger& ledger, std::string_view tags) {
    std::string out;
    for (const char tag : tags) {
        const Reply reply = ledger.received(tag == '!' ? 'E' : tag, tag == '!');
        switch (reply.kind) {
            case Reply::Kind::part: out += 'p'; break;
            case Reply::Kind::done: out += 'd'; break;
            case Reply::Kind::unsolicited: out += 'u'; break;
            case Reply::Kind::impossible: out += 'i'; break;
        }
    }
    return out;
}

void send(Ledger& ledger, std::initializer_list<Owed> all) {
    for (const Owed owed : all) ledger.sent(owed);
}

}  // namespace

TEST_CASE("a simple Query is settled by its ReadyForQuery alone") {
    Ledger ledger;
    send(ledger, {Owed::query});
    CHECK(receive(ledger, "TDDCEZ") == "pppppd");
    CHECK(ledger.empty());
}

TEST_CASE("the extended protocol is settled message by message") {
    Ledger ledger;
    send(ledger, {Owed::parse, Owed::bind, Owed::describe_statement, Owed::describe_portal,
                  Owed::execute, Owed::execute, Owed::close, Owed::sync});
    CHECK(receive(ledger, "12tTTDDsDC3Z") == "ddpddppdpddd");
    CHECK(ledger.empty());
}

TEST_CASE(
    "an error in the extended protocol drops everything up to Sync, a simple Query included") {
    Ledger ledger;
    std::string undone;
    ledger.on_undone(
        [&](Entry& entry) { undone += static_cast<char>('0' + static_cast<int>(entry.owed)); });
    send(ledger, {Owed::parse, Owed::bind, Owed::query, Owed::execute, Owed::sync, Owed::query});
    CHECK(receive(ledger, "1EZTCZ") == "dddppd");
    CHECK(undone == "306");  // bind, query, execute
    CHECK(ledger.empty());
    CHECK_FALSE(ledger.skipping());
}

TEST_CASE("an error with no Sync in sight makes the server skip until one comes") {
    Ledger ledger;
    send(ledger, {Owed::parse, Owed::bind});
    receive(ledger, "E");
    CHECK(ledger.empty());
    CHECK(ledger.skipping());
    ledger.sent(Owed::sync);
    CHECK_FALSE(ledger.skipping());
    CHECK(receive(ledger, "Z") == "d");
}

TEST_CASE("an error in a simple Query or FunctionCall starts no skipping") {
    Ledger ledger;
    send(ledger, {Owed::query, Owed::function_call, Owed::query});
    CHECK(receive(ledger, "EZEZCZ") == "pdpdpd");
    CHECK_FALSE(ledger.skipping());
}

TEST_CASE("a Sync that fails to commit still gives its ReadyForQuery") {
    Ledger ledger;
    send(ledger, {Owed::sync, Owed::parse});
    CHECK(receive(ledger, "EZ1") == "pdd");
}

TEST_CASE("a Sync sent before the COPY data is ignored when the COPY succeeds") {
    Ledger ledger;
    send(ledger, {Owed::execute, Owed::sync});
    receive(ledger, "G");
    send(ledger, {Owed::copy_end, Owed::sync, Owed::query});
    CHECK(receive(ledger, "C") == "d");
    CHECK(ledger.size() == 2);
    CHECK(receive(ledger, "ZCZ") == "dpd");
    CHECK(ledger.empty());
}

TEST_CASE("a Sync sent among the data of a simple COPY is ignored when the COPY succeeds") {
    Ledger ledger;
    send(ledger, {Owed::query});
    receive(ledger, "G");
    send(ledger, {Owed::sync, Owed::copy_end});
    CHECK(receive(ledger, "CZ") == "pd");
    CHECK(ledger.empty());
}

TEST_CASE(
    "a failed COPY in the extended protocol: the Sync after CopyDone is answered, the one before "
    "perhaps") {
    for (const bool first_sync_was_read_as_copy_data : {true, false}) {
        Ledger ledger;
        send(ledger, {Owed::execute, Owed::sync});
        receive(ledger, "G");
        send(ledger, {Owed::copy_end, Owed::sync});
        CHECK(receive(ledger, "E") == "d");
        CHECK(receive(ledger, first_sync_was_read_as_copy_data ? "Z" : "ZZ") ==
              (first_sync_was_read_as_copy_data ? "d" : "dd"));
        CHECK(ledger.idle());
        ledger.sent(Owed::query);
        CHECK(receive(ledger, "TCZ") == "ppd");
        CHECK(ledger.empty());
    }
}

TEST_CASE("a Sync sent after such an error is answered once or together with the one before") {
    for (const std::string_view answers : {"Z", "ZZ"}) {
        Ledger ledger;
        send(ledger, {Owed::execute, Owed::sync});
        receive(ledger, "G");
        ledger.sent(Owed::copy_end);
        CHECK(receive(ledger, "E") == "d");
        ledger.sent(Owed::sync);
        CHECK(receive(ledger, answers) == std::string(answers.size(), 'd'));
        CHECK(ledger.idle());
        ledger.sent(Owed::query);
        CHECK(receive(ledger, "TCZ") == "ppd");
        CHECK(ledger.empty());
    }
}

TEST_CASE("a Query sent into a COPY is swallowed by the server's protocol violation") {
    Ledger ledger;
    send(ledger, {Owed::query});
    receive(ledger, "G");
    ledger.sent(Owed::query);
    CHECK(receive(ledger, "!Z") == "pd");
    CHECK(ledger.empty());
}

TEST_CASE("several COPYs in one Query string each end with their own CopyDone") {
    Ledger ledger;
    send(ledger, {Owed::query});
    receive(ledger, "G");
    ledger.sent(Owed::copy_end);
    CHECK(receive(ledger, "C") == "p");
    CHECK(receive(ledger, "G") == "p");
    CHECK(ledger.copy_in_open());
    ledger.sent(Owed::copy_end);
    CHECK_FALSE(ledger.copy_in_open());
    CHECK(receive(ledger, "CZ") == "pd");
    CHECK(ledger.empty());
}

TEST_CASE("CopyDone and CopyFail outside a COPY owe nothing") {
    Ledger ledger;
    ledger.sent(Owed::copy_end);
    CHECK(ledger.empty());
    send(ledger, {Owed::query, Owed::copy_end, Owed::query});
    CHECK(receive(ledger, "CZCZ") == "pdpd");
    CHECK(ledger.empty());
}

TEST_CASE("a reply to nothing is told apart from an error that announces the end") {
    Ledger ledger;
    CHECK(receive(ledger, "E") == "u");
    CHECK(receive(ledger, "C") == "i");
    ledger.sent(Owed::parse);
    CHECK(receive(ledger, "2") == "i");
}

TEST_CASE("a refused entry keeps its words for the error that answers it") {
    Ledger ledger;
    auto extra = std::make_unique<Extra>();
    extra->refusal.message = "no";
    ledger.sent(Owed::query, Disposition::replace, std::move(extra));
    Reply reply = ledger.received('E');
    CHECK(reply.disposition == Disposition::replace);
    REQUIRE(reply.extra);
    CHECK(reply.extra->refusal.message == "no");
    reply = ledger.received('Z');
    CHECK(reply.kind == Reply::Kind::done);
}
