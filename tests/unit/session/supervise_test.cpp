// Supervised statements, message by message.
#include "support/catch.h"
#include "support/session_host.h"

#include "policy/rule.h"
#include "proxy/session/supervise_sql.h"

using namespace pgchaperone;
using namespace pgchaperone::test;

namespace {

bool contains(std::string_view text, std::string_view part) {
    return text.find(part) != std::string_view::npos;
}

// Supervises whatever is no transaction control, by these limits.
SessionHost::Policy supervise(policy::SuperviseLimits limits) {
    auto shared = std::make_shared<const policy::SuperviseLimits>(std::move(limits));
    return [shared](const session::Judge& question) {
        policy::Judgement judgement;
        auto analysis = std::make_shared<policy::Analysis>();
        analysis->text = question.analysis ? question.analysis->text : std::string(question.sql);
        policy::StatementFacts facts;
        facts.length = static_cast<std::uint32_t>(analysis->text.size());
        facts.command = analysis->text.substr(0, analysis->text.find(' '));
        facts.commands = {facts.command};
        facts.copies_in = facts.command == "COPY";
        if (facts.command == "BEGIN") facts.transaction_control = policy::TransactionControl::begin;
        if (facts.command == "COMMIT") {
            facts.transaction_control = policy::TransactionControl::commit;
        }
        if (facts.command == "ROLLBACK") {
            facts.transaction_control = policy::TransactionControl::rollback;
        }
        if (facts.command == "SAVEPOINT") {
            facts.transaction_control = policy::TransactionControl::savepoint;
        }
        facts.chains = analysis->text.ends_with("AND CHAIN");
        facts.controls_transaction = facts.transaction_control != policy::TransactionControl::none;
        if (facts.command != "SELECT") facts.written = {{"", "public", "t"}};
        policy::Decision decision;
        if (!facts.controls_transaction) {
            decision.action = policy::Action::supervise;
            decision.supervise = shared;
        }
        decision.rule = "count";
        judgement.decisions.push_back(decision);
        analysis->statements.push_back(std::move(facts));
        judgement.analysis = std::move(analysis);
        return judgement;
    };
}

policy::SuperviseLimits by_tag(std::uint64_t rows) {
    policy::SuperviseLimits limits;
    limits.max_rows = rows;
    return limits;
}

policy::SuperviseLimits in_total(std::uint64_t rows) {
    policy::SuperviseLimits limits = by_tag(rows);
    limits.effects = policy::SuperviseLimits::Effects::total;
    return limits;
}

using Row = std::vector<std::string>;

// The DataRows of a reading: changed rows of public.t.
std::string reading_rows(unsigned deleted, bool wrote = true) {
    const auto row = [](const Row& values) {
        protocol::DataRow message;
        for (const std::string& value : values) {
            message.columns.push_back(value == "NULL" ? protocol::Value()
                                                      : protocol::Value(std::string_view(value)));
        }
        return protocol::encoded(message);
    };
    std::string out = row({"session", "20000", "on", wrote ? "7" : "NULL", "0", "0", "0", "0"});
    if (deleted > 0) {
        out += row({"table", "16400", "public", "t", "0", "0", std::to_string(deleted), "1000"});
    }
    return out;
}

// What the server answers to a reading sent as messages of the extended protocol, and as a Query.
const std::string close_complete = protocol::encoded(protocol::CloseComplete{});
std::string extended_reading(unsigned deleted) {
    return close_complete + parse_complete() + bind_complete() + reading_rows(deleted) +
           complete("SELECT 1") + close_complete + close_complete;
}
std::string extended_command(std::string_view tag) {
    return close_complete + parse_complete() + bind_complete() + complete(tag) + close_complete +
           close_complete;
}
std::string warning(std::string_view sqlstate) {
    protocol::NoticeResponse message;
    message.fields = {{'S', "WARNING"}, {'C', sqlstate}, {'M', "by the server"}};
    return protocol::encoded(message);
}
// What the gate before a COMMIT asks for: what is deferred, a reading, and no more writing.
std::string extended_gate(unsigned deleted) {
    return extended_command("SET CONSTRAINTS") + extended_reading(deleted) +
           extended_command("SET");
}
std::string run(std::string_view sql) { return parse("", sql) + bind("", "") + execute(""); }
const std::string ran_do = parse_complete() + bind_complete() + complete("DO");
std::string simple_reading(unsigned deleted, char status = 'T') {
    return protocol::encoded(protocol::RowDescription{}) + reading_rows(deleted) +
           complete("SELECT 1") + ready(status);
}

}  // namespace

TEST_CASE("a supervised Query runs in a transaction that the client does not see") {
    SessionHost host;
    host.policy = supervise(by_tag(10));
    host.log_in();
    host.client(query("DELETE FROM t WHERE id < 5"));
    const std::string sent = host.to_server();
    CHECK(client_tags(sent) == "CPBECCQ");
    host.server(extended_command("BEGIN") + complete("DELETE 4") + ready('T'));
    CHECK(host.to_client().empty());
    CHECK(host.to_server() == query("COMMIT"));
    host.server(complete("COMMIT") + ready());
    CHECK(host.to_client() == complete("DELETE 4") + ready());
    CHECK(host.session.ledger().empty());
}

TEST_CASE("a supervised Query that changes too much is rolled back with its numbers") {
    SessionHost host;
    host.policy = supervise(by_tag(10));
    host.log_in();
    host.client(query("DELETE FROM t WHERE id > 5"));
    host.to_server();
    host.server(extended_command("BEGIN") + complete("DELETE 48210") + ready('T'));
    CHECK(host.to_server() == query("ROLLBACK"));
    host.server(complete("ROLLBACK") + ready());
    const std::string seen = host.to_client();
    CHECK(server_tags(seen) == "EZ");
    CHECK(contains(seen,
                   "DELETE would have changed 48,210 rows of public.t (limit 10); rolled back"));
    CHECK(contains(seen, "42501"));
    CHECK(seen.ends_with(ready('I')));
}

TEST_CASE("a BEGIN that fails lets nothing run") {
    SessionHost host;
    host.policy = supervise(by_tag(10));
    host.log_in();
    host.client(query("DELETE FROM t WHERE id > 5"));
    host.to_server();
    host.server(close_complete + parse_complete() + bind_complete() + error("57014"));
    CHECK(host.to_server() == sync_message());
    host.server(ready());
    CHECK(server_tags(host.to_client()) == "EZ");
    CHECK(host.session.transaction_status() == 'I');
    host.client(query("DELETE FROM t WHERE id > 5"));
    CHECK(client_tags(host.to_server()) == "CPBECCQ");
}

TEST_CASE("a COMMIT that fails is the statement's error") {
    SessionHost host;
    host.policy = supervise(by_tag(10));
    host.log_in();
    host.client(query("INSERT INTO t VALUES (1)"));
    host.server(extended_command("BEGIN") + complete("INSERT 0 1") + ready('T'));
    host.server(error("23503", "violates") + ready());
    const std::string seen = host.to_client();
    CHECK(server_tags(seen) == "EZ");
    CHECK(contains(seen, "23503"));
}

TEST_CASE("a cancel that meets our ROLLBACK does not leave the transaction open") {
    SessionHost host;
    host.policy = supervise(by_tag(10));
    host.log_in();
    host.client(query("DELETE FROM t WHERE id > 5"));
    host.server(extended_command("BEGIN") + complete("DELETE 11") + ready('T'));
    CHECK(client_tags(host.to_server()) == "CPBECCQQ");
    host.server(error("57014") + ready('E'));
    CHECK(host.to_server() == query("ROLLBACK"));
    CHECK(server_tags(host.to_client()) == "E");
    host.server(complete("ROLLBACK") + ready());
    CHECK(server_tags(host.to_client()) == "Z");
}

TEST_CASE("total effects are the difference of two readings in the same transaction") {
    for (const unsigned deleted : {10u, 11u}) {
        SessionHost host;
        host.policy = supervise(in_total(10));
        host.log_in();
        host.client(query("SELECTED purge()"));
        CHECK(client_tags(host.to_server()) == "CPBECCCPBECCQQQ");
        // Earlier transactions have left 100 rows in the counters.
        host.server(extended_command("BEGIN") + extended_reading(100) + complete("SELECT 1") +
                    ready('T') + complete("SET CONSTRAINTS") + ready('T') +
                    simple_reading(100 + deleted));
        if (deleted > 10) {
            CHECK(host.to_server() == query("ROLLBACK"));
            host.server(complete("ROLLBACK") + ready());
        } else {
            CHECK(host.to_server() == query("SET TRANSACTION READ ONLY") + query("COMMIT"));
            host.server(complete("SET") + ready('T') + complete("COMMIT") + ready());
        }
        CHECK(server_tags(host.to_client()) == (deleted > 10 ? "EZ" : "CZ"));
    }
}

TEST_CASE("a reading by a server that does not count refuses the statement") {
    SessionHost host;
    host.policy = supervise(in_total(10));
    host.log_in();
    host.client(query("DELETE FROM t WHERE id = 5"));
    std::string reading = simple_reading(0);
    reading.replace(reading.find("on"), 2, "of");
    host.server(extended_command("BEGIN") + extended_reading(0) + complete("DELETE 1") +
                ready('T') + complete("SET CONSTRAINTS") + ready('T') + reading);
    host.server(complete("ROLLBACK") + ready());
    CHECK(contains(host.to_client(), "track_counts"));
}

TEST_CASE("in the client's own block what is over the limit makes the block fail") {
    SessionHost host;
    host.policy = supervise(by_tag(10));
    host.log_in();
    host.client(query("BEGIN"));
    host.server(complete("BEGIN") + ready('T'));
    host.client(query("DELETE FROM t WHERE id > 5"));
    host.to_server();
    host.to_client();
    host.server(complete("DELETE 11") + ready('T'));
    const std::string sent = host.to_server();
    CHECK(client_tags(sent) == "Q");
    CHECK(contains(sent, "pgchaperone refused"));
    host.server(error("42601") + ready('E'));
    CHECK(server_tags(host.to_client()) == "EZ");
    CHECK(host.session.transaction_status() == 'E');
}

TEST_CASE("the Sync of a supervised group waits until the group is judged") {
    for (const unsigned rows : {10u, 11u}) {
        SessionHost host;
        host.policy = supervise(by_tag(10));
        host.log_in();
        host.client(parse("", "DELETE FROM t") + bind("", "") + execute("") + sync_message());
        CHECK(client_tags(host.to_server()) == "PBEH");
        host.server(parse_complete() + bind_complete() +
                    complete("DELETE " + std::to_string(rows)));
        if (rows == 10) {
            CHECK(host.to_server() == sync_message());
            host.server(ready());
            CHECK(server_tags(host.to_client()) == "12CZ");
        } else {
            CHECK(client_tags(host.to_server()) == "PS");
            host.server(error("42601") + ready());
            CHECK(server_tags(host.to_client()) == "12EZ");
        }
        CHECK(host.session.ledger().empty());
    }
}

namespace {

// A session with a DO of 3 rows behind it, in the block that it got, and what the client sends next
// in its group.
struct BehindDo {
    SessionHost host;
    explicit BehindDo(std::string_view next) {
        host.policy = supervise(in_total(10));
        host.log_in();
        host.client(parse("", "DO $$purge$$") + bind("", "") + execute(""));
        REQUIRE(client_tags(host.to_server()) == "CPBECCPBCPBECCECPBECC");
        host.client(next);
        host.server(extended_reading(0) + parse_complete() + bind_complete() +
                    extended_command("BEGIN") + complete("DO") + extended_reading(3));
        REQUIRE(host.to_client() == ran_do);
    }
};

}  // namespace

TEST_CASE("to a COMMIT behind a DO in its group there is no block") {
    BehindDo one(run("COMMIT") + sync_message());
    SessionHost& host = one.host;
    CHECK(client_tags(host.to_server()) == "PBH");
    host.server(parse_complete() + bind_complete());
    CHECK(client_tags(host.to_server()) == "CPBECCCPBECCCPBECCH");
    host.server(extended_gate(3));
    const std::string sent = host.to_server();
    CHECK(client_tags(sent) == "CPBECCPBECCH");
    host.server(extended_command("COMMIT") + parse_complete() + bind_complete() + warning("25P01") +
                complete("COMMIT") + close_complete + close_complete);
    const std::string more = host.to_server();
    CHECK(more == sync_message());
    host.server(ready());
    CHECK(host.session.ledger().empty());
    CHECK(host.to_client() ==
          parse_complete() + bind_complete() + warning("25P01") + complete("COMMIT") + ready());
}

TEST_CASE("what is not possible without a block fails behind a DO in its group") {
    for (const std::string_view sql : {"COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "SAVEPOINT s"}) {
        BehindDo one(run(sql) + sync_message());
        SessionHost& host = one.host;
        CHECK(client_tags(host.to_server()) == "PBH");
        host.server(parse_complete() + bind_complete());
        const std::string sent = host.to_server();
        CHECK(client_tags(sent) == "CPBECCPBECCH");
        CHECK(contains(sent, "ROLLBACK"));
        host.server(extended_command("ROLLBACK") + parse_complete() + bind_complete() +
                    error("25P01"));
        CHECK(host.to_server() == sync_message());
        host.server(ready());
        CHECK(host.to_client() == parse_complete() + bind_complete() + error("25P01") + ready());
        CHECK(host.session.ledger().empty());
    }
}

TEST_CASE("a BEGIN behind a DO in its group makes our block the client's") {
    BehindDo one(run("BEGIN") + sync_message());
    SessionHost& host = one.host;
    CHECK(client_tags(host.to_server()) == "PBH");
    host.server(parse_complete() + bind_complete());
    CHECK(client_tags(host.to_server()) == "EH");
    SECTION("which is there already, but not to the client") {
        host.server(warning("25001") + complete("BEGIN"));
        CHECK(host.to_server() == sync_message());
        host.server(ready('T'));
        CHECK(host.to_client() ==
              parse_complete() + bind_complete() + complete("BEGIN") + ready('T'));
        CHECK(host.session.transaction_status() == 'T');
    }
    SECTION("and where it fails there is none") {
        host.server(warning("25001") + error("25001"));
        CHECK(host.to_server() == sync_message());
        host.server(ready('E'));
        CHECK(host.to_server() == query("ROLLBACK"));
        host.server(complete("ROLLBACK") + ready());
        CHECK(host.to_client() == parse_complete() + bind_complete() + error("25001") + ready());
    }
}

TEST_CASE("a ROLLBACK of our block that a cancel meets behind a DO is sent again") {
    BehindDo one(run("ROLLBACK") + sync_message());
    SessionHost& host = one.host;
    host.to_server();
    host.server(parse_complete() + bind_complete());
    CHECK(client_tags(host.to_server()) == "CPBECCPBECCH");
    host.server(close_complete + error("57014"));
    CHECK(host.to_server() == sync_message());
    host.server(ready('E'));
    CHECK(host.to_server() == query("ROLLBACK"));
    host.server(complete("ROLLBACK") + ready());
    CHECK(server_tags(host.to_client()) == "12EZ");
}

TEST_CASE("the client is told of a COMMIT at the Sync behind a DO that fails") {
    BehindDo one(sync_message());
    SessionHost& host = one.host;
    CHECK(client_tags(host.to_server()) == "HCPBECCCPBECCCPBECCH");
    host.server(extended_gate(3));
    CHECK(client_tags(host.to_server()) == "CPBECCS");
    host.server(close_complete + parse_complete() + bind_complete() + error("40001") + ready());
    CHECK(host.to_client() == error("40001") + ready());
    CHECK(host.session.ledger().empty());
}

TEST_CASE("a CALL behind a COMMIT in its group gets a block of its own") {
    BehindDo one(run("COMMIT") + run("CALL sweep()") + sync_message());
    SessionHost& host = one.host;
    host.server(parse_complete() + bind_complete());
    host.to_server();
    host.server(extended_gate(3));
    // COMMIT, a reading, the Parse and Bind of the CALL, BEGIN, its Execute, and what is behind the
    // last one of a group.
    const std::string sent = host.to_server();
    CHECK(client_tags(sent) == "CPBECCPBECCCPBECCPBCPBECCECPBECCCPBECCCPBECCH");
    CHECK(sent.find("BEGIN") > sent.find("sweep"));
    CHECK(sent.find("BEGIN") != std::string::npos);
}

TEST_CASE("a Query in the middle of a group with a DO is counted with it") {
    for (const unsigned deleted : {10u, 11u}) {
        BehindDo one(query("SELECT 1"));
        SessionHost& host = one.host;
        // The DO's block is there: to a second BEGIN the server says so, and nobody hears of it.
        const std::string sent = host.to_server();
        CHECK(!contains(sent, "COMMIT"));
        CHECK(client_tags(sent) == "HCPBECCCPBECCQQQ");
        host.server(close_complete + parse_complete() + bind_complete() + warning("25001") +
                    complete("BEGIN") + close_complete + close_complete + extended_reading(3));
        host.server(complete("SELECT 1") + ready('T') + complete("SET CONSTRAINTS") + ready('T') +
                    simple_reading(3 + deleted));
        const std::string end = host.to_server();
        if (deleted > 10) {
            CHECK(end == query("ROLLBACK"));
            host.server(complete("ROLLBACK") + ready());
        } else {
            CHECK(end == query("SET TRANSACTION READ ONLY") + query("COMMIT"));
            host.server(complete("SET") + ready('T') + complete("COMMIT") + ready());
        }
        CHECK(server_tags(host.to_client()) == (deleted > 10 ? "EZ" : "CZ"));
    }
}

TEST_CASE("a Query that is refused takes back the DO before it in its group") {
    BehindDo one("");
    SessionHost& host = one.host;
    host.policy = [](const session::Judge&) {
        policy::Judgement judgement;
        policy::Decision decision;
        decision.action = policy::Action::block;
        decision.refusal.message = "no";
        judgement.decisions.push_back(decision);
        return judgement;
    };
    host.client(query("DELETE FROM t"));
    CHECK(host.to_server().ends_with(query("ROLLBACK")));
    host.server(error("57014") + ready('E'));
    CHECK(host.to_server() == query("ROLLBACK"));
    host.server(complete("ROLLBACK") + ready());
    CHECK(server_tags(host.to_client()) == "EZ");
    CHECK(host.session.transaction_status() == 'I');
}

TEST_CASE("behind a savepoint that a failed block goes on from statements are counted") {
    SessionHost host;
    host.policy = supervise(by_tag(10));
    host.log_in();
    host.client(query("BEGIN"));
    host.server(complete("BEGIN") + ready('T'));
    host.client(query("DELETE FROM nowhere"));
    host.server(error("42601") + ready('E'));
    host.to_client();
    host.to_server();
    host.client(run("SAVEPOINT s") + run("DELETE FROM t") + sync_message());
    CHECK(client_tags(host.to_server()) == "PBEPBEH");
    host.server(parse_complete() + bind_complete() + complete("ROLLBACK") + parse_complete() +
                bind_complete() + complete("DELETE 11"));
    CHECK(client_tags(host.to_server()) == "PS");
    host.server(error("42601") + ready('E'));
    const std::string seen = host.to_client();
    CHECK(server_tags(seen) == "12C12EZ");
    CHECK(contains(seen, "would have changed 11 rows"));
}

TEST_CASE("after a COPY that failed behind an ignored Sync the session goes on") {
    SessionHost host;
    host.policy = supervise(in_total(10));
    host.log_in();
    host.client(parse("", "COPY t FROM STDIN") + bind("", "") + execute("") + sync_message());
    host.server(extended_reading(0) + parse_complete() + bind_complete() +
                protocol::encoded(protocol::CopyInResponse{}));
    host.client(protocol::encoded(protocol::CopyData{"1\n"}) +
                protocol::encoded(protocol::CopyFail{"no"}) + sync_message());
    host.to_server();
    host.server(error("57014"));
    CHECK(client_tags(host.to_server()) == "S");
    host.server(ready());
    CHECK(host.session.ledger().idle());
    host.client(query("DELETE FROM t"));
    // Whether the first Sync is still to be answered only the next answer tells.
    CHECK(host.to_server() == query(""));
    host.server(protocol::encoded(protocol::EmptyQueryResponse{}) + ready());
    CHECK(client_tags(host.to_server()) == "CPBECCCPBECCQQQ");
    CHECK(server_tags(host.to_client()) == "12GEZ");
}

TEST_CASE("what an earlier Query reports of the settings comes before its own ReadyForQuery") {
    SessionHost host;
    host.policy = supervise(by_tag(10));
    host.log_in();
    host.client(query("BEGIN") + query("DELETE FROM t"));
    const std::string report = protocol::encoded(protocol::ParameterStatus{"TimeZone", "UTC"});
    host.server(complete("BEGIN") + report + ready('T'));
    CHECK(host.to_client() == complete("BEGIN") + report + ready('T'));
}
