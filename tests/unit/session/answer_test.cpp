// Statements for pgchaperone itself, message by message.
#include "support/catch.h"
#include "support/session_host.h"

#include "policy/analyzer.h"
#include "proxy/session/identity.h"

using namespace pgchaperone;
using namespace pgchaperone::test;

namespace {

bool contains(std::string_view text, std::string_view part) {
    return text.find(part) != std::string_view::npos;
}

// As the engine judges: what is for pgchaperone itself is answered, "DELETE" refused, the rest
// allowed.
policy::Judgement judge(const session::Judge& question) {
    policy::Judgement judgement;
    judgement.analysis = question.analysis
                             ? question.analysis
                             : policy::Analyzer().analyze(question.sql, question.lexical);
    bool plain = true;
    for (const policy::StatementFacts& facts : judgement.analysis->statements) {
        policy::Decision& decision = judgement.decisions.emplace_back();
        if (facts.chaperone) decision.action = policy::Action::answer;
        if (facts.command == "DELETE") {
            decision.action = policy::Action::block;
            decision.refusal.message = "no DELETE";
        }
        plain = plain && decision.action == policy::Action::allow;
    }
    if (plain) judgement.decisions.clear();
    return judgement;
}

struct Host : SessionHost {
    Host() {
        policy = judge;
        log_in();
        server(protocol::encoded(protocol::ParameterStatus{"server_encoding", "UTF8"}));
        to_client();
    }
    void answer(std::string rows) {
        chaperone = [rows = std::move(rows)](const session::AskChaperone&) {
            return session::ChaperoneAnswer{rows, std::nullopt};
        };
    }
    void refuse(std::string sqlstate, std::string message) {
        chaperone = [=](const session::AskChaperone&) {
            session::ChaperoneAnswer answer;
            answer.refusal = policy::Refusal{sqlstate, message, "", "", ""};
            return answer;
        };
    }
    void take_time() {
        chaperone = [](const session::AskChaperone&) { return std::nullopt; };
    }
};

std::string row(std::initializer_list<std::string_view> values) {
    protocol::DataRow message;
    for (const std::string_view value : values) message.columns.emplace_back(value);
    return protocol::encoded(message);
}

const std::string identity_rows = row({"login", "anna", "16384"}) +
                                  row({"member", "anna", "16384"}) +
                                  row({"member", "dba", "16385"});
const std::string identity_reply = protocol::encoded(protocol::RowDescription{}) + identity_rows +
                                   complete("SELECT 3");
const std::string close_complete = protocol::encoded(protocol::CloseComplete{});
const std::string extended_identity = close_complete + parse_complete() + bind_complete() +
                                      identity_rows + complete("SELECT 3") + close_complete +
                                      close_complete;
const std::string extended_begin = close_complete + parse_complete() + bind_complete() +
                                   complete("BEGIN") + close_complete + close_complete;
const std::string rows_reply = protocol::encoded(protocol::RowDescription{}) + row({"K7"}) +
                               complete("SELECT 1");

std::string identity_query() { return query(session::identity_sql); }

// The first message of a stream of bytes, decoded.
template <class Message>
Message first(std::string_view bytes) {
    const auto head = protocol::read_head(bytes, protocol::Side::frontend);
    REQUIRE(head.has_value());
    REQUIRE(head->tag == static_cast<char>(Message::tag));
    const auto message = protocol::decode<Message>(
        bytes.substr(protocol::head_size, head->total() - protocol::head_size));
    REQUIRE(message.has_value());
    return *message;
}

std::string bind_values(std::string_view statement, std::vector<protocol::Value> values,
                        std::vector<std::int16_t> formats = {},
                        std::vector<std::int16_t> results = {}) {
    return protocol::encoded(
        protocol::Bind{"", statement, std::move(formats), std::move(values), std::move(results)});
}
std::string describe(char kind, std::string_view name) {
    return protocol::encoded(protocol::Describe{kind, name});
}

}  // namespace

TEST_CASE("SHOW is answered by a SELECT of the host's rows, after the server said who asks") {
    Host host;
    host.answer(R"([{"ticket":"K7","statement":"it's é"}])");
    host.client(query("SHOW chaperone.pending"));
    CHECK(host.to_server() == identity_query());
    CHECK(host.asked.empty());
    host.server(identity_reply + ready());
    REQUIRE(host.asked.size() == 1);
    CHECK(host.asked[0].call->name == "pending");
    CHECK(host.asked[0].person.role == "anna");
    CHECK(host.asked[0].person.oid == 16384);
    CHECK(host.asked[0].person.member_of == std::vector<std::string>{"anna", "dba"});
    const std::string sent = host.to_server();
    CHECK(client_tags(sent) == "Q");
    CHECK(contains(sent, "SELECT \"ticket\", "));
    CHECK(contains(sent, "it''s \\\\u00e9"));
    CHECK(host.to_client().empty());
    host.server(rows_reply + ready());
    CHECK(host.to_client() == rows_reply + ready());
    CHECK(host.session.ledger().empty());
    CHECK(host.records.empty());
}

TEST_CASE("however the bytes are cut, the answer is the same") {
    for (const std::size_t piece : {1, 2, 7}) {
        Host host;
        host.client(query("SHOW chaperone.pending") + query("SELECT 1"), piece);
        host.server(identity_reply + ready(), piece);
        host.server(rows_reply + ready(), piece);
        CHECK(host.to_client() == rows_reply + ready());
        CHECK(host.to_server().ends_with(query("SELECT 1")));
    }
}

TEST_CASE("CALL gives its arguments, and leaves a record before it is asked") {
    Host host;
    host.answer_audit = false;
    host.client(query("CALL chaperone.approve('K7', comment => 'fine')"));
    CHECK(host.to_server().empty());
    REQUIRE(host.records.size() == 1);
    CHECK(host.records[0].decision == "answer");
    CHECK(host.records[0].command == "CALL");
    host.event(session::AuditStored{true, {}});
    host.server(identity_reply + ready());
    REQUIRE(host.asked.size() == 1);
    CHECK(host.asked[0].call->name == "approve");
    CHECK(host.asked[0].arguments == std::vector<std::optional<std::string>>{"K7", "fine"});
}

TEST_CASE("a CALL that leaves no record is refused and not asked") {
    Host host;
    host.audit_works = false;
    host.client(query("CALL chaperone.approve('K7')"));
    CHECK(contains(host.to_server(), "pgchaperone refused this statement"));
    CHECK(host.asked.empty());
}

TEST_CASE("a refusal is an error in its place") {
    Host host;
    host.refuse("42704", "there is no ticket K9");
    host.client(query("CALL chaperone.approve('K9')"));
    host.server(identity_reply + ready());
    const std::string seen = host.to_client();
    CHECK(server_tags(seen) == "EZ");
    CHECK(contains(seen, "there is no ticket K9"));
    CHECK(contains(seen, "42704"));
    CHECK(host.to_server() == identity_query());
    CHECK(host.session.ledger().empty());
}

TEST_CASE("what can't be answered is an error, and nothing is asked") {
    for (const auto& [sql, sqlstate, words] :
         {std::tuple{"SHOW chaperone.penidng", "42704", "no chaperone.penidng to show"},
          std::tuple{"CALL chaperone.aprove('K7')", "42883", "no procedure chaperone.aprove"},
          std::tuple{"CALL chaperone.approve($1)", "42P02", "there is no parameter $1"}}) {
        INFO(sql);
        Host host;
        host.client(query(sql));
        host.server(identity_reply + ready());
        const std::string seen = host.to_client();
        CHECK(server_tags(seen) == "EZ");
        CHECK(contains(seen, sqlstate));
        CHECK(contains(seen, words));
        CHECK(host.asked.empty());
        CHECK_FALSE(contains(host.to_server(), "chaperone.a"));
    }
}

TEST_CASE("nobody is asked for somebody whom the server does not name") {
    Host host;
    host.client(query("CALL chaperone.approve('K7')"));
    host.server(protocol::encoded(protocol::RowDescription{}) + complete("SELECT 0") + ready());
    CHECK(contains(host.to_client(), "did not say who is logged in"));
    CHECK(host.asked.empty());
}

TEST_CASE("an error of the reading of who asks is the client's, and nothing is asked") {
    Host host;
    host.client(query("CALL chaperone.approve('K7')"));
    host.server(error("57014", "canceling statement") + ready());
    CHECK(host.to_client() == error("57014", "canceling statement") + ready());
    CHECK(host.asked.empty());
}

TEST_CASE("in the client's block a refusal makes the transaction fail") {
    Host host;
    host.refuse("42501", "own ticket");
    host.client(query("BEGIN"));
    host.server(complete("BEGIN") + ready('T'));
    host.to_server();
    host.to_client();
    host.client(query("CALL chaperone.approve('K7')"));
    CHECK(host.to_server() == identity_query());
    host.server(identity_reply + ready('T'));
    CHECK(contains(host.to_server(), "pgchaperone refused"));
    host.server(error("42601") + ready('E'));
    const std::string seen = host.to_client();
    CHECK(server_tags(seen) == "EZ");
    CHECK(seen.ends_with(ready('E')));
    // Now the server refuses whatever comes, and nothing is asked.
    host.client(query("CALL chaperone.approve('K7')"));
    CHECK(host.to_server() == query("SELECT"));
    const std::string aborted = error("25P02", "current transaction is aborted");
    host.server(aborted + ready('E'));
    CHECK(host.to_client() == aborted + ready('E'));
    CHECK(host.asked.size() == 1);
}

TEST_CASE("in a string of several statements each is answered in its turn") {
    Host host;
    host.answer("[]");
    host.client(query("SELECT 1; SHOW chaperone.version; SELECT 2"));
    CHECK(client_tags(host.to_server()) == "CPBECCQ");
    host.server(extended_begin + complete("SELECT 1") + ready('T'));
    CHECK(host.asked.empty());
    CHECK(host.to_server() == identity_query());
    host.server(identity_reply + ready('T'));
    CHECK(host.asked.size() == 1);
    CHECK(contains(host.to_server(), "policy_version"));
    host.server(rows_reply + ready('T'));
    CHECK(host.to_server() == query("SELECT 2"));
    host.server(complete("SELECT 2") + ready('T'));
    CHECK(host.to_server() == query("COMMIT"));
    host.server(complete("COMMIT") + ready());
    CHECK(host.to_client() == complete("SELECT 1") + rows_reply + complete("SELECT 2") + ready());
}

TEST_CASE("in a string of several statements a refusal takes back what came before") {
    Host host;
    host.refuse("42501", "not yours");
    host.client(query("INSERT INTO t VALUES (1); CALL chaperone.approve('K7'); SELECT 2"));
    host.server(extended_begin + complete("INSERT 0 1") + ready('T'));
    host.to_server();
    host.server(identity_reply + ready('T'));
    CHECK(host.to_server() == query("ROLLBACK"));
    host.server(complete("ROLLBACK") + ready());
    CHECK(server_tags(host.to_client()) == "CEZ");
}

TEST_CASE("the first of several statements opens their transaction") {
    Host host;
    host.client(query("SHOW chaperone.version; SELECT 2"));
    const std::string sent = host.to_server();
    CHECK(client_tags(sent) == "CPBECCQ");
    CHECK(sent.ends_with(identity_query()));
    host.server(extended_begin + identity_reply + ready('T'));
    CHECK(contains(host.to_server(), "policy_version"));
    host.server(rows_reply + ready('T'));
    CHECK(host.to_server() == query("SELECT 2"));
    host.server(complete("SELECT 2") + ready('T'));
    host.server(complete("COMMIT") + ready());
    CHECK(host.to_client() == rows_reply + complete("SELECT 2") + ready());
}

TEST_CASE("what a pipeline without Sync has begun goes on, and ends with the Query") {
    Host host;
    host.client(parse("", "INSERT INTO t VALUES (1)") + bind("", "") + execute("") + flush());
    host.server(parse_complete() + bind_complete() + complete("INSERT 0 1"));
    host.to_server();
    host.to_client();
    host.client(query("SHOW chaperone.version"));
    const std::string sent = host.to_server();
    CHECK(client_tags(sent) == "CPBECCQ");
    host.server(extended_begin + identity_reply + ready('T'));
    host.to_server();
    host.server(rows_reply + ready('T'));
    CHECK(host.to_server() == query("COMMIT"));
    host.server(complete("COMMIT") + ready());
    CHECK(host.to_client() == rows_reply + ready());
}

TEST_CASE("a client that leaves while it is answered leaves the session whole") {
    Host host;
    host.take_time();
    host.client(query("SHOW chaperone.pending"));
    host.server(identity_reply + ready());
    REQUIRE(host.asked.size() == 1);
    host.to_server();
    host.event(session::ClientClosed{});
    host.event(session::ChaperoneAnswer{"[]", std::nullopt});
    CHECK(client_tags(host.to_server()) == "Q");
    host.server(rows_reply + ready());
    CHECK(host.milestones.back() == "ShutdownServer");
}

TEST_CASE("an answer that comes too late, or that nobody asked for, changes nothing") {
    for (const bool extended : {false, true}) {
        Host host;
        host.take_time();
        if (extended) {
            host.client(parse("", "SHOW chaperone.pending") + bind("", "") + sync_message());
            host.server(parse_complete());
            host.server(extended_identity);
        } else {
            host.client(query("SHOW chaperone.pending"));
            host.server(identity_reply + ready());
        }
        REQUIRE(host.asked.size() == 1);
        host.event(session::ServerClosed{true});
        CHECK(host.closed);
        host.to_server();
        host.event(session::ChaperoneAnswer{"[]", std::nullopt});
        CHECK(host.to_server().empty());
    }
    Host host;
    host.event(session::ChaperoneAnswer{"[]", std::nullopt});
    CHECK(host.to_server().empty());
    CHECK(host.to_client().empty());
}

TEST_CASE("Parse has a SELECT in its place, with one parameter more") {
    Host host;
    host.client(
        protocol::encoded(protocol::Parse{"s", "CALL chaperone.deny($1, comment => $3)", {0, 23}}));
    const std::string sent = host.to_server();
    const auto message = first<protocol::Parse>(sent);
    CHECK(message.statement == "s");
    CHECK(message.parameter_types == std::vector<std::int32_t>{25, 23, 25, 114});
    CHECK(
        message.query.starts_with("SELECT \"ticket\", \"state\", \"message\" FROM "
                                  "pg_catalog.json_to_recordset($4) AS"));
    CHECK(host.records.empty());
}

TEST_CASE("Describe shows the parameters that the client knows of") {
    Host host;
    host.client(parse("s", "CALL chaperone.approve($1)") + describe('S', "s") + sync_message());
    CHECK(client_tags(host.to_server()) == "PDS");
    const std::string columns = protocol::encoded(protocol::RowDescription{});
    host.server(parse_complete() + protocol::encoded(protocol::ParameterDescription{{25, 114}}) +
                    columns + ready(),
                3);
    CHECK(host.to_client() == parse_complete() +
                                  protocol::encoded(protocol::ParameterDescription{{25}}) +
                                  columns + ready());
    // Another statement's are shown as they come.
    host.client(parse("t", "SELECT $1::json") + describe('S', "t") + sync_message());
    const std::string other = protocol::encoded(protocol::ParameterDescription{{114}});
    host.server(parse_complete() + other + columns + ready());
    CHECK(host.to_client() == parse_complete() + other + columns + ready());
}

TEST_CASE("Bind asks, and goes with the rows; Execute follows as it came") {
    Host host;
    host.answer(R"([{"ticket":"K7"}])");
    host.client(parse("", "CALL chaperone.approve($2, $1)") +
                bind_values("", {"fine", "K7"}, {0, 1}, {1}) + describe('P', "") + execute("") +
                sync_message());
    // Everything before it is answered first, and then the server says who asks.
    CHECK(client_tags(host.to_server()) == "PH");
    CHECK(host.asked.empty());
    host.server(parse_complete());
    CHECK(client_tags(host.to_server()) == "CPBECCH");
    host.server(extended_identity);
    REQUIRE(host.asked.size() == 1);
    CHECK(host.asked[0].arguments == std::vector<std::optional<std::string>>{"K7", "fine"});
    CHECK(host.asked[0].person.role == "anna");
    REQUIRE(host.records.size() == 1);
    CHECK(host.records[0].statement == "CALL chaperone.approve($2, $1)");
    const std::string sent = host.to_server();
    CHECK(client_tags(sent) == "BDES");
    const auto message = first<protocol::Bind>(sent);
    CHECK(message.parameter_formats == std::vector<std::int16_t>{0, 1, 0});
    REQUIRE(message.parameters.size() == 3);
    CHECK(message.parameters[0] == "fine");
    CHECK(message.parameters[2] == R"([{"ticket":"K7"}])");
    CHECK(message.result_formats == std::vector<std::int16_t>{1});
    const std::string reply = bind_complete() + protocol::encoded(protocol::RowDescription{}) +
                              row({"K7"}) + complete("SELECT 1") + ready();
    host.server(reply);
    CHECK(host.to_client() == parse_complete() + reply);
    CHECK(host.session.ledger().empty());
    CHECK(host.asked.size() == 1);
}

TEST_CASE("a prepared statement asks anew at each Bind") {
    Host host;
    host.client(parse("s", "SHOW chaperone.pending") + sync_message());
    host.server(parse_complete() + ready());
    for (int i = 1; i <= 3; ++i) {
        host.answer("[" + std::to_string(i) + "]");
        host.to_server();
        host.client(bind_values("s", {}, {1}) + execute("") + sync_message());
        CHECK(client_tags(host.to_server()) == "CPBECCH");
        host.server(extended_identity);
        CHECK(host.asked.size() == static_cast<std::size_t>(i));
        const std::string sent = host.to_server();
        CHECK(client_tags(sent) == "BES");
        const auto message = first<protocol::Bind>(sent);
        CHECK(message.parameters.back() == "[" + std::to_string(i) + "]");
        CHECK(message.parameter_formats == std::vector<std::int16_t>{0});
        host.server(bind_complete() + complete("SELECT 0") + ready());
    }
    CHECK(host.session.ledger().empty());
}

TEST_CASE("one format for all parameters is not that of the rows") {
    Host host;
    host.client(parse("", "CALL chaperone.approve($1, $2)") + bind_values("", {"K7", "fine"}, {1}) +
                sync_message());
    host.server(parse_complete());
    host.to_server();
    host.server(extended_identity);
    CHECK(first<protocol::Bind>(host.to_server()).parameter_formats ==
          std::vector<std::int16_t>{1, 1, 0});
}

TEST_CASE("a refusal at Bind is an error in its place, and the server skips to Sync") {
    Host host;
    host.refuse("55000", "it was denied already");
    host.client(parse("", "CALL chaperone.approve('K7')") + bind("", "") + execute("") +
                sync_message() + query("SELECT 1"));
    host.server(parse_complete());
    host.to_server();
    host.server(extended_identity);
    const std::string sent = host.to_server();
    CHECK(client_tags(sent) == "PESQ");
    CHECK(contains(sent, "pgchaperone_refused"));
    host.server(error("42601") + ready());
    const std::string seen = host.to_client();
    CHECK(server_tags(seen) == "1EZ");
    CHECK(contains(seen, "it was denied already"));
    CHECK_FALSE(host.session.names().portal(""));
}

TEST_CASE("a Bind that does not fit its statement is refused in the server's words") {
    for (const auto& [message, words] :
         {std::pair{bind_values("", {}),
                    "bind message supplies 0 parameters, but prepared "
                    "statement \"\" requires 1"},
          std::pair{bind_values("", {"K7", "x"}), "bind message supplies 2 parameters"},
          std::pair{bind_values("", {"K7"}, {0, 0}), "2 parameter formats but 1 parameters"}}) {
        Host host;
        host.client(parse("", "CALL chaperone.approve($1)") + message + sync_message());
        host.server(parse_complete());
        host.server(extended_identity);
        host.server(error("42601") + ready());
        const std::string seen = host.to_client();
        CHECK(server_tags(seen) == "1EZ");
        CHECK(contains(seen, words));
        CHECK(contains(seen, "08P01"));
        CHECK(host.asked.empty());
    }
}

TEST_CASE("values that are no text, or NULL where one is needed, are refused") {
    const std::string number(4, '\x07');
    for (const auto& [value, format, words] :
         {std::tuple{protocol::Value(number), std::int16_t{1}, "$1 of chaperone.approve is binary"},
          std::tuple{protocol::Value(), std::int16_t{0}, "needs its argument ticket"}}) {
        Host host;
        host.client(protocol::encoded(protocol::Parse{"", "CALL chaperone.approve($1)", {23}}) +
                    bind_values("", {value}, {format}) + sync_message());
        host.server(parse_complete());
        host.server(extended_identity);
        host.server(error("42601") + ready());
        CHECK(contains(host.to_client(), words));
        CHECK(host.asked.empty());
    }
}

TEST_CASE("a Parse of what can't be answered is refused there") {
    Host host;
    host.client(parse("s", "SHOW chaperone.nothing") + bind("", "s") + execute("") +
                sync_message());
    const std::string sent = host.to_server();
    CHECK_FALSE(contains(sent, "nothing"));
    host.server(error("42601") + ready());
    const std::string seen = host.to_client();
    CHECK(server_tags(seen) == "EZ");
    CHECK(contains(seen, "there is no chaperone.nothing to show"));
    CHECK(host.asked.empty());
}

TEST_CASE("no Parse of what is for pgchaperone itself reaches the server as it is") {
    const std::string plain = parse("", "CALL chaperone.approve('K7')");
    std::string trailing = plain + "x";
    trailing[4] = static_cast<char>(trailing[4] + 1);
    for (const auto& [message, words] : {std::pair{parse("", "SHOW chaperone.version; SELECT 1"),
                                                   "cannot insert multiple commands"},
                                         std::pair{parse("", "SELECT 1; SHOW chaperone.version"),
                                                   "cannot insert multiple commands"},
                                         std::pair{trailing, "invalid message format"}}) {
        Host host;
        host.client(message + sync_message());
        const std::string sent = host.to_server();
        CHECK_FALSE(contains(sent, "chaperone."));
        CHECK(client_tags(sent) == "PS");
        host.server(error("42601") + ready());
        CHECK(contains(host.to_client(), words));
    }
}

TEST_CASE("an answer that comes in the middle of a notification waits for its end") {
    for (const bool extended : {false, true}) {
        Host host;
        host.take_time();
        if (extended) {
            host.client(parse("", "SHOW chaperone.pending") + bind("", "") + sync_message());
            host.server(parse_complete());
            host.server(extended_identity);
        } else {
            host.client(query("SHOW chaperone.pending"));
            host.server(identity_reply + ready());
        }
        REQUIRE(host.asked.size() == 1);
        host.to_server();
        host.to_client();
        const std::string news = protocol::encoded(
            protocol::NotificationResponse{7, "orders", "a long payload"});
        host.server(news.substr(0, 9));
        session::ChaperoneAnswer answer;
        answer.refusal = policy::Refusal{"42501", "not for you", "", "", ""};
        host.event(answer);
        CHECK(host.to_client() == news.substr(0, 9));
        host.server(news.substr(9));
        if (extended) host.server(error("42601") + ready());
        const std::string seen = host.to_client();
        CHECK(seen.starts_with(news.substr(9)));
        CHECK(server_tags(seen.substr(news.size() - 9)) == "EZ");
        CHECK(contains(seen, "not for you"));
    }
}

TEST_CASE("in a failed transaction a Bind asks nothing") {
    Host host;
    host.client(parse("s", "CALL chaperone.approve('K7')") + sync_message() + query("BEGIN"));
    host.server(parse_complete() + ready() + complete("BEGIN") + ready('T'));
    host.client(query("SELECT 1/0"));
    host.server(error("22012") + ready('E'));
    host.to_server();
    host.to_client();
    host.client(bind("", "s") + execute("") + sync_message());
    const std::string sent = host.to_server();
    CHECK(client_tags(sent) == "BES");
    CHECK(first<protocol::Bind>(sent).parameters ==
          std::vector<protocol::Value>{protocol::Value()});
    const std::string aborted = error("25P02", "current transaction is aborted");
    host.server(aborted + ready('E'));
    CHECK(host.to_client() == aborted + ready('E'));
    CHECK(host.asked.empty());
}

TEST_CASE("an error before the Bind in its pipeline lets it ask nothing") {
    Host host;
    host.client(parse("s", "CALL chaperone.approve('K7')") + parse("", "SELECT 1/0") +
                bind("", "") + execute("") + bind("", "s") + execute("") + sync_message());
    CHECK(client_tags(host.to_server()) == "PPBEH");
    host.server(parse_complete() + parse_complete() + bind_complete() + error("22012"));
    CHECK(host.to_server() == sync_message());
    host.server(ready());
    CHECK(server_tags(host.to_client()) == "112EZ");
    CHECK(host.asked.empty());
    CHECK(host.session.ledger().empty());
}

TEST_CASE("an error of the reading of who asks fails the Bind") {
    Host host;
    host.client(parse("", "CALL chaperone.approve('K7')") + bind("", "") + execute("") +
                sync_message());
    host.server(parse_complete());
    host.to_server();
    host.server(close_complete + parse_complete() + bind_complete() + error("57014", "canceled"));
    CHECK(host.to_server() == sync_message());
    host.server(ready());
    CHECK(host.to_client() == parse_complete() + error("57014", "canceled") + ready());
    CHECK(host.asked.empty());
}

TEST_CASE("in a pipeline statements of both kinds keep their order") {
    Host host;
    host.client(parse("", "SELECT 1") + bind("", "") + execute("") +
                    parse("", "SHOW chaperone.version") + bind("", "") + execute("") +
                    parse("", "SELECT 2") + bind("", "") + execute("") + sync_message(),
                5);
    CHECK(client_tags(host.to_server()) == "PBEPH");
    host.server(parse_complete() + bind_complete() + complete("SELECT 1") + parse_complete());
    CHECK(client_tags(host.to_server()) == "CPBECCH");
    host.server(extended_identity);
    const std::string sent = host.to_server();
    CHECK(client_tags(sent) == "BEPBES");
    host.server(bind_complete() + complete("SELECT 1") + parse_complete() + bind_complete() +
                complete("SELECT 1") + ready());
    CHECK(server_tags(host.to_client()) == "12C12C12CZ");
    CHECK(host.session.ledger().empty());
}

TEST_CASE("where not all speak UTF-8 the rows have question marks") {
    Host host;
    host.server(protocol::encoded(protocol::ParameterStatus{"client_encoding", "LATIN1"}));
    host.answer("[\"\xC3\xA9\"]");
    host.client(parse("", "CALL chaperone.approve($1)") + bind_values("", {"K\xE9"}) +
                sync_message());
    host.server(parse_complete());
    host.to_server();
    host.server(extended_identity);
    CHECK(host.asked.at(0).arguments.at(0) == "K?");
    CHECK(first<protocol::Bind>(host.to_server()).parameters.back() == "[\"?\"]");
}

TEST_CASE("a Bind too large to be looked at is refused, and nothing is asked") {
    Host host;
    host.client(parse("", "CALL chaperone.approve($1)"));
    host.server(parse_complete());
    host.to_server();
    const std::string large(session::Session::text_bytes_max + 1, 'x');
    host.client(bind_values("", {large}) + execute("") + sync_message(), 1 << 20);
    CHECK(client_tags(host.to_server()) == "PES");
    host.server(error("42601") + ready());
    CHECK(contains(host.to_client(), "the parameters are too long"));
    CHECK(host.asked.empty());
}

TEST_CASE("what is refused beside a statement for pgchaperone itself is refused with it") {
    Host host;
    host.client(query("SHOW chaperone.version; DELETE FROM t"));
    CHECK(contains(host.to_server(), "pgchaperone refused"));
    host.server(error("42601") + ready());
    CHECK(contains(host.to_client(), "no DELETE"));
    CHECK(host.asked.empty());
}
