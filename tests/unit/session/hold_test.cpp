// Statements that wait for a second person, step by step, before a server that answers by a few
// rules.
#include "support/catch.h"
#include "support/session_host.h"

#include "approval/ticket.h"
#include "policy/analyzer.h"
#include "policy/rule.h"
#include "proxy/session/identity.h"
#include "proxy/session/supervise_sql.h"

#include <algorithm>
#include <map>

using namespace pgchaperone;
using namespace pgchaperone::test;
using approval::State;

namespace {

using namespace std::chrono_literals;

bool contains(std::string_view text, std::string_view part) {
    return text.find(part) != std::string_view::npos;
}

std::string row(std::initializer_list<std::string_view> values) {
    protocol::DataRow message;
    for (const std::string_view value : values) message.columns.emplace_back(value);
    return protocol::encoded(message);
}

// Answers whatever it is sent, and remembers what ran.
class Server {
public:
    char status = 'I';
    std::vector<std::string> ran;
    std::map<std::string, std::string> fails;  // what begins so fails, with this SQLSTATE
    std::string plan = R"([{"Plan":{"Node Type":"ModifyTable","Operation":"Delete",
        "Relation Name":"t","Schema":"public","Plans":[
            {"Node Type":"Seq Scan","Parent Relationship":"Outer","Plan Rows":40}]}}])";
    unsigned deleted_by_delete = 3;
    std::string reason;
    std::string idle_timeout = "0";
    bool suspends = false;  // every portal with a limit

    std::string answer(std::string_view bytes) {
        std::string out;
        while (!bytes.empty()) {
            const auto head = protocol::read_head(bytes, protocol::Side::frontend);
            REQUIRE(head.has_value());
            REQUIRE(bytes.size() >= head->total());
            out += message(head->tag,
                           bytes.substr(protocol::head_size, head->total() - protocol::head_size));
            bytes.remove_prefix(head->total());
        }
        return out;
    }
    std::size_t runs_of(std::string_view text) const {
        return static_cast<std::size_t>(std::count(ran.begin(), ran.end(), text));
    }
    bool skipping() const { return skipping_; }

private:
    std::string failure(std::string_view sqlstate, bool extended) {
        if (status == 'T') status = 'E';
        if (implicit_ && status == 'I') deleted_ = 0;
        skipping_ = extended;
        return error(sqlstate, "the server's words");
    }
    std::string message(char tag, std::string_view body) {
        if (skipping_ && tag != 'S' && tag != 'X') return {};
        switch (tag) {
            case 'Q': {
                const std::string sql(protocol::decode<protocol::Query>(body)->query);
                implicit_ = false;
                const std::string replies = run(sql, false);
                return replies + ready(status);
            }
            case 'P': {
                const auto parse = *protocol::decode<protocol::Parse>(body);
                const std::string sql(parse.query);
                if (sql.starts_with("pgchaperone refused") || sql == "SELEC") {
                    return failure("42601", true);
                }
                if (!parse.statement.empty() && prepared_.contains(std::string(parse.statement))) {
                    return failure("42P05", true);
                }
                prepared_[std::string(parse.statement)] = sql;
                return parse_complete();
            }
            case 'B': {
                const auto bound = *protocol::decode<protocol::Bind>(body);
                portals_[std::string(bound.portal)] = prepared_[std::string(bound.statement)];
                return bind_complete();
            }
            case 'E': {
                const auto execute = *protocol::decode<protocol::Execute>(body);
                implicit_ = true;
                const std::string replies = run(portals_[std::string(execute.portal)], true);
                return suspends && execute.max_rows > 0
                           ? protocol::encoded(protocol::PortalSuspended{})
                           : replies;
            }
            case 'F':
                ran.push_back("function call of " + std::to_string(body.size()) + " bytes");
                return protocol::encoded(protocol::FunctionCallResponse{}) + ready(status);
            case 'C': {
                const auto close = *protocol::decode<protocol::Close>(body);
                (close.kind == 'S' ? prepared_ : portals_).erase(std::string(close.name));
                return protocol::encoded(protocol::CloseComplete{});
            }
            case 'X': return protocol::encoded(protocol::CloseComplete{});
            case 'D': return protocol::encoded(protocol::NoData{});
            case 'S': skipping_ = implicit_ = false; return ready(status);
            default: return {};
        }
    }
    std::string run(const std::string& sql, bool extended) {
        if (sql.starts_with("pgchaperone refused")) return failure("42601", extended);
        for (const auto& [begin, sqlstate] : fails) {
            if (sql.starts_with(begin)) return failure(sqlstate, extended);
        }
        if (status == 'E' && !sql.starts_with("ROLLBACK")) return failure("25P02", extended);
        if (sql.empty()) return protocol::encoded(protocol::EmptyQueryResponse{});
        ran.push_back(sql);
        const std::string described = extended ? std::string()
                                               : protocol::encoded(protocol::RowDescription{});
        if (sql == session::identity_sql) {
            return described + row({"login", "clerk", "16384"}) +
                   row({"member", "clerk", "16384"}) + row({"setting", "search_path", "public"}) +
                   row({"timeout", "idle_session_timeout", idle_timeout}) +
                   row({"reason", "", reason}) + complete("SELECT 5");
        }
        if (sql.starts_with("EXPLAIN")) return described + row({plan}) + complete("EXPLAIN");
        if (sql == session::effects_sql || sql == session::effects_and_locks_sql) {
            std::string out = described + row({"session", "20000", "on", "7", "0", "0", "0", "0"});
            if (deleted_ > 0) {
                out += row(
                    {"table", "16400", "public", "t", "0", "0", std::to_string(deleted_), "1000"});
            }
            return out + complete("SELECT 2");
        }
        if (sql.starts_with("BEGIN")) status = 'T';
        if (sql.starts_with("COMMIT") || sql == "ROLLBACK") {
            status = 'I';
            deleted_ = 0;
        }
        if (sql.starts_with("ROLLBACK TO")) status = 'T';
        if (sql == "DEALLOCATE ALL") return complete(sql);
        const std::string command = sql.substr(0, sql.find(' '));
        if (command == "DELETE") {
            deleted_ += deleted_by_delete;
            return complete("DELETE " + std::to_string(deleted_by_delete));
        }
        return complete(command);
    }

    bool skipping_ = false;
    bool implicit_ = false;
    unsigned deleted_ = 0;
    std::map<std::string, std::string> prepared_;
    std::map<std::string, std::string> portals_;
};

policy::HoldTerms usual_terms() {
    policy::HoldTerms terms;
    terms.evidence = policy::HoldTerms::Evidence::none;
    terms.deciders = {"boss"};
    return terms;
}

// A guard whose policy holds every DELETE and every FunctionCall.
struct Guard : SessionHost {
    explicit Guard(policy::HoldTerms given = usual_terms())
        : terms(std::make_shared<const policy::HoldTerms>(std::move(given))) {
        policy = [this](const session::Judge& question) { return judge(question); };
        log_in();
        claim = [this](const session::ClaimTicket& command) { return claim_now(command); };
        open = [this](const session::OpenTicket& command) -> std::optional<session::TicketOpened> {
            ticket = approval::opened(command.request, "K" + std::to_string(++opened_count), "",
                                      {});
            if (!opens_answered) return std::nullopt;
            return session::TicketOpened{*ticket};
        };
    }

    policy::Judgement judge(const session::Judge& question) {
        policy::Judgement judgement;
        judgement.analysis = question.analysis;
        if (!judgement.analysis) {
            judgement.analysis = policy::Analyzer().analyze(question.sql, question.lexical);
        }
        if (question.kind == session::StatementKind::function_call) {
            auto analysis = std::make_shared<policy::Analysis>();
            analysis->text = "function 7";
            analysis->statements.resize(1);
            judgement.analysis = std::move(analysis);
        }
        bool plain = true;
        for (const policy::StatementFacts& facts : judgement.analysis->statements) {
            policy::Decision& decision = judgement.decisions.emplace_back();
            if (facts.command != held_command &&
                question.kind != session::StatementKind::function_call) {
                continue;
            }
            plain = plain && action == policy::Action::allow;
            decision.action = action;
            decision.rule = "careful";
            decision.refusal.message = "no DELETE";
            decision.refusal.reason = "it is unbounded";
            if (action == policy::Action::hold) decision.hold = terms;
            if (action == policy::Action::supervise) decision.supervise = limits;
        }
        if (plain) judgement.decisions.clear();
        return judgement;
    }

    std::optional<session::TicketClaimed> claim_now(const session::ClaimTicket& command) {
        if (!claims_answered) return std::nullopt;
        if (store_fails) {
            return session::TicketClaimed{
                approval::Failure{approval::Problem::store_failed, "the disk is full", ""}};
        }
        if (!ticket) return session::TicketClaimed{};
        if (approval::claimable(*ticket, command.claim, {})) {
            ticket = approval::claimed(*ticket, {});
            return session::TicketClaimed{std::optional(*ticket)};
        }
        if (command.claim.ticket.empty()) return session::TicketClaimed{};
        return session::TicketClaimed{approval::why_not_claimable(*ticket, command.claim, {})};
    }

    // What the guard sends is answered, until it sends nothing more.
    Guard& pump() {
        for (std::string bytes = to_server(); !bytes.empty(); bytes = to_server()) {
            const std::string replies = postgres.answer(bytes);
            if (!replies.empty()) server(replies);
        }
        return *this;
    }
    Guard& send(std::string_view bytes) {
        client(bytes);
        return pump();
    }
    void vote(bool approve, std::string comment = {}) {
        approval::Person boss;
        boss.role = "boss";
        boss.oid = 99;
        ticket = *approval::voted(*ticket, boss, approve, std::move(comment), {});
    }
    Guard& decide(bool approve, std::string comment = {}) {
        vote(approve, std::move(comment));
        event(session::TicketDecided{*ticket});
        return pump();
    }
    Guard& decided(State state) {
        ticket->state = state;
        event(session::TicketDecided{*ticket});
        return pump();
    }
    bool cancel() {
        const bool taken = session.handle(session::CancelAsked{});
        drain();
        pump();
        return taken;
    }
    std::vector<std::string> outcomes() const {
        std::vector<std::string> out;
        for (const audit::Record& record : records) {
            if (!record.ticket.empty()) out.push_back(record.ticket + " " + record.outcome);
        }
        return out;
    }
    bool has_word(std::string_view word) const {
        return std::any_of(ticket_words.begin(), ticket_words.end(),
                           [&](const std::string& one) { return one.starts_with(word); });
    }

    Server postgres;
    std::shared_ptr<const policy::HoldTerms> terms;
    std::shared_ptr<const policy::SuperviseLimits> limits;
    policy::Action action = policy::Action::hold;
    std::string held_command = "DELETE";
    std::optional<approval::Ticket> ticket;
    unsigned opened_count = 0;
    bool claims_answered = true;
    bool opens_answered = true;
    bool store_fails = false;
};

const std::string erase = "DELETE FROM t";
std::string group(const std::string& sql) { return parse("", sql) + bind("", "") + execute(""); }

std::string function_call(std::string_view argument) {
    protocol::FunctionCall call;
    call.function_oid = 7;
    call.arguments = {argument};
    return protocol::encoded(call);
}

using Words = std::vector<std::string>;

}  // namespace

TEST_CASE("a held Query waits, is approved, and runs once") {
    Guard host;
    host.send(query(erase));
    CHECK(host.postgres.runs_of(erase) == 0);
    REQUIRE(host.opens.size() == 1);
    CHECK(host.opens[0].request.requester.role == "clerk");
    CHECK(host.opens[0].request.requester.oid == 16384);
    CHECK(host.opens[0].request.statement == erase);
    CHECK(host.opens[0].request.wait == 60s);
    const std::string notice = host.to_client();
    CHECK(server_tags(notice) == "N");
    CHECK(contains(notice, "waits for approval (ticket K1)"));
    CHECK(host.deadlines.at(session::DeadlineKind::held) == 60s);
    host.decide(true, "go ahead");
    CHECK(host.postgres.runs_of(erase) == 1);
    CHECK(host.to_client() == complete("DELETE 3") + ready());
    CHECK(host.deadlines.count(session::DeadlineKind::held) == 0);
    CHECK(host.deadlines.count(session::DeadlineKind::notice) == 0);
    CHECK(host.outcomes() == Words{"K1 opened", "K1 approved"});
    CHECK(host.ticket_words == Words{"finish K1: DELETE 3"});
    REQUIRE(host.claims.size() == 2);
    CHECK(host.claims[0].claim.ticket.empty());
    CHECK(host.claims[1].claim.ticket == "K1");
    CHECK(host.claims[1].claim.binding == host.opens[0].request.binding);
    // It was for this one run.
    host.send(query(erase));
    CHECK(host.postgres.runs_of(erase) == 1);
    CHECK(host.opens.size() == 2);
}

TEST_CASE("a held password is told to nobody, runs as it was sent, and is approved alone") {
    Guard host;
    host.held_command = "ALTER ROLE";
    const std::string change = "ALTER ROLE bob PASSWORD 'hunter2'";
    host.send(query(change));
    REQUIRE(host.opens.size() == 1);
    CHECK(host.opens[0].request.statement == "ALTER ROLE bob PASSWORD ?");
    // An approval is of this one password.
    const std::string binding = host.opens[0].request.binding;
    host.decide(true);
    CHECK(host.postgres.runs_of(change) == 1);
    CHECK(host.outcomes() == Words{"K1 opened", "K1 approved"});
    host.ticket.reset();
    host.send(query("ALTER ROLE bob PASSWORD 'hunter3'"));
    REQUIRE(host.opens.size() == 2);
    CHECK(host.opens[1].request.binding != binding);
    for (const audit::Record& record : host.records) {
        if (record.done) continue;  // it shows no text
        CHECK(record.statement == "ALTER ROLE bob PASSWORD ?");
        CHECK(record.redacted);
    }
}

TEST_CASE("the server's words on a held password are not kept") {
    Guard host;
    host.held_command = "ALTER ROLE";
    host.postgres.fails["ALTER"] = "42704";
    host.send(query("ALTER ROLE bob PASSWORD 'hunter2'"));
    host.decide(true);
    CHECK(host.ticket_words == Words{"finish K1: failed: 42704"});
}

TEST_CASE("secret parameters of what is held are told to nobody") {
    Guard host;
    host.held_command = "SELECT";
    protocol::Bind values;
    values.parameters = {"host=db password=hunter2", "DROP TABLE t"};
    host.send(parse("", "SELECT dblink_exec($1, $2)") + protocol::encoded(values) + execute("") +
              sync_message());
    REQUIRE(host.opens.size() == 1);
    using Values = std::vector<std::optional<std::string>>;
    CHECK(host.opens[0].request.parameters == Values{"host=db password=?", "DROP TABLE t"});
    CHECK(host.opens[0].request.statement == "SELECT dblink_exec($1, $2)");
}

TEST_CASE("a held Bind waits, is approved, and its Execute runs once") {
    Guard host;
    host.send(group(erase) + sync_message());
    CHECK(host.postgres.runs_of(erase) == 0);
    const std::string seen = host.to_client();
    CHECK(server_tags(seen) == "1N");
    host.decide(true);
    CHECK(host.postgres.runs_of(erase) == 1);
    CHECK(host.to_client() == bind_complete() + complete("DELETE 3") + ready());
    CHECK(host.ticket_words == Words{"finish K1: DELETE 3"});
}

TEST_CASE("an SQL EXECUTE of what a Parse has made is no way around its approval") {
    const std::string made = parse("s", erase) + sync_message();
    for (const std::string& sql :
         {std::string("EXECUTE s"), std::string("EXECUTE \"s\""),
          std::string("SELECT 1; EXECUTE s"), std::string("EXPLAIN ANALYZE EXECUTE s"),
          std::string("CREATE TABLE x AS EXECUTE s"), "EXECUTE " + std::string(63, 's')}) {
        for (const bool extended : {false, true}) {
            if (extended && contains(sql, ";")) continue;
            CAPTURE(sql, extended);
            Guard host;
            const std::string run = extended ? group(sql) + sync_message() : query(sql);
            host.send(made + run);
            CHECK(host.postgres.runs_of(sql) == 0);
            CHECK(contains(host.to_client(), "may need an approval"));
            // Of what needs none it is the server's affair.
            host.send(protocol::encoded(protocol::Close{'S', "s"}) + parse("s", "SELECT 1") +
                      sync_message() + run);
            CHECK(host.postgres.runs_of(sql) == 1);
        }
    }
    // By the time it runs, the name stands for something else than when it was parsed or bound.
    Guard host;
    host.send(parse("u", "EXECUTE s") + bind("", "u") + made + execute("") + sync_message());
    host.send(parse("u", "EXECUTE s") + parse("s", erase) + bind("", "u") + execute("") +
              sync_message());
    CHECK(host.postgres.runs_of("EXECUTE s") == 0);
    CHECK(contains(host.to_client(), "may need an approval"));
}

TEST_CASE("what an error undoes of a name does not bring what is held past the approval") {
    const std::string bound = bind("", "s") + execute("") + sync_message();
    const std::string bound_unnamed = bind("", "") + execute("") + sync_message();
    const std::string fails = parse("x", "SELEC");
    const std::string no_more = protocol::encoded(protocol::Close{'S', "s"});
    const std::string other = parse("s", "SELECT 1");
    const std::string unnamed = parse("", "SELECT 1");
    const std::vector<std::pair<std::string, std::string>> ways{
        {other + sync_message(), bound},
        {other + parse("s", "SELECT 2") + sync_message(), bound},
        {fails + no_more + sync_message(), bound},
        {fails + no_more + other + sync_message(), bound},
        {fails + unnamed + sync_message(), bound_unnamed},
        {fails + query("SELECT 1") + sync_message(), bound_unnamed},
    };
    for (const auto& [undone, runs] : ways) {
        for (const bool at_once : {true, false}) {
            CAPTURE(undone, at_once);
            Guard host;
            host.send(parse(runs == bound ? "s" : "", erase) + sync_message());
            if (at_once) {
                host.send(undone + runs);
            } else {
                host.send(undone);
                host.send(runs);
            }
            CHECK(host.postgres.runs_of(erase) == 0);
            CHECK(host.opens.size() == 1);
            host.decide(true);
            CHECK(host.postgres.runs_of(erase) == 1);
        }
    }
}

TEST_CASE("DEALLOCATE ALL forgets nothing that was prepared behind it") {
    Guard host;
    host.send(query("DEALLOCATE ALL") + parse("s", erase) + sync_message());
    host.send(bind("", "s") + execute("") + sync_message());
    CHECK(host.postgres.runs_of(erase) == 0);
    CHECK(host.opens.size() == 1);
}

TEST_CASE("in another client_encoding a name that is not ASCII is no way around an approval") {
    const auto report = [](std::string_view encoding) {
        return protocol::encoded(protocol::ParameterStatus{"client_encoding", encoding});
    };
    const std::string run = execute("") + sync_message();
    Guard host;
    host.server(report("LATIN1"));
    host.send(parse("\xe9", erase) + parse("a", "SELECT 1") + sync_message());
    host.send(bind("", "\xe9") + run);
    CHECK(host.opens.size() == 1);  // as long as nothing has changed it waits
    host.decide(false);
    host.server(report("UTF8"));
    host.to_client();
    host.send(bind("", "\xc3\xa9") + run);
    CHECK(contains(host.to_client(), "client_encoding has changed"));
    host.send(bind("", "a") + run);
    CHECK(host.postgres.runs_of("SELECT 1") == 1);
    CHECK(host.postgres.runs_of(erase) == 0);
}

TEST_CASE("an approval of what a name stands for is for this one run alone") {
    for (const std::string text : {"EXECUTE p", "EXPLAIN ANALYZE EXECUTE p"}) {
        Guard host;
        host.held_command = text.substr(0, text.find(' '));
        host.send(query(text));
        host.cancel();
        host.send(query(text));
        REQUIRE(host.opens.size() == 2);
        CHECK(host.opens[0].request.binding != host.opens[1].request.binding);
        host.decide(true);
        CHECK(host.postgres.runs_of(text) == 1);
    }
}

TEST_CASE("a held FunctionCall waits and is bound to all of its bytes") {
    const std::string call = function_call("12345");
    Guard host;
    host.send(call.substr(0, 12));
    CHECK(host.opens.empty());
    host.send(call.substr(12));
    REQUIRE(host.opens.size() == 1);
    REQUIRE(host.opens[0].request.parameters.size() == 1);
    CHECK(host.opens[0].request.parameters[0] == "12345");
    Guard other;
    other.send(function_call("54321"));
    REQUIRE(other.opens.size() == 1);
    CHECK(host.opens[0].request.binding != other.opens[0].request.binding);
    Guard whole;
    whole.send(call);
    CHECK(whole.opens[0].request.binding == host.opens[0].request.binding);
    host.decide(true);
    CHECK(host.postgres.ran.back() ==
          "function call of " + std::to_string(call.size() - 5) + " bytes");
    CHECK(server_tags(host.to_client()) == "NVZ");
    CHECK(host.session.ledger().empty());
}

TEST_CASE("a session that has held something forgets it when it goes on") {
    Guard host;
    host.send(query(erase));
    CHECK(host.session.remembers_a_hold());
    host.decide(true);
    CHECK(host.postgres.runs_of(erase) == 1);
    host.send(query("SELECT 1"));
    CHECK_FALSE(host.session.remembers_a_hold());
    host.send(group(erase) + sync_message());
    CHECK(host.session.remembers_a_hold());
    host.decide(false);
    CHECK_FALSE(host.session.remembers_a_hold());
}

TEST_CASE("a text that is too long to be seen whole is not held but refused") {
    const std::string long_text = erase + std::string(session::Session::text_bytes_max, ' ');
    Guard host;
    host.send(query(long_text));
    CHECK(host.opens.empty());
    CHECK(host.postgres.runs_of(long_text) == 0);
    CHECK(server_tags(host.to_client()) == "EZ");
    host.send(group(long_text) + sync_message());
    CHECK(host.opens.empty());
    CHECK(host.postgres.runs_of(long_text) == 0);
    const std::string seen = host.to_client();
    CHECK(server_tags(seen) == "EZ");
    CHECK(contains(seen, "C54000"));
}

TEST_CASE("a denied statement is refused with the approver's words, and the session goes on") {
    for (const bool extended : {false, true}) {
        Guard host;
        host.send(extended ? group(erase) + sync_message() : query(erase));
        host.to_client();
        host.decide(false, "use the API");
        const std::string seen = host.to_client();
        CHECK(server_tags(seen) == "EZ");
        CHECK(contains(seen, "was denied by boss (ticket K1): use the API"));
        CHECK(contains(seen, "42501"));
        CHECK(host.postgres.runs_of(erase) == 0);
        CHECK(host.outcomes() == Words{"K1 opened", "K1 denied"});
        host.send(query("SELECT 1"));
        CHECK(server_tags(host.to_client()) == "CZ");
    }
}

TEST_CASE("an expired or withdrawn ticket ends the wait") {
    for (const State state : {State::expired, State::withdrawn}) {
        Guard host;
        host.send(query(erase));
        host.to_client();
        host.decided(state);
        const std::string seen = host.to_client();
        CHECK(server_tags(seen) == "EZ");
        CHECK(contains(seen, state == State::expired ? "has expired" : "was withdrawn"));
        CHECK(host.postgres.runs_of(erase) == 0);
    }
}

TEST_CASE("nobody decides in time: the error names the ticket, which stays open") {
    Guard host;
    host.send(query(erase));
    host.to_client();
    host.event(session::Deadline{session::DeadlineKind::notice}).drain();
    CHECK(contains(host.to_client(), "still waits for approval (ticket K1), for 45 seconds more"));
    host.event(session::Deadline{session::DeadlineKind::held});
    host.pump();
    const std::string seen = host.to_client();
    CHECK(server_tags(seen) == "EZ");
    CHECK(contains(seen, "was not approved in time (ticket K1)"));
    CHECK(host.ticket_words == Words{"release K1"});
    // Approved now, the next run of it passes, once.
    host.vote(true);
    host.ticket = approval::released(*host.ticket, {});
    host.send(query(erase));
    CHECK(host.opens.size() == 1);
    CHECK(host.postgres.runs_of(erase) == 1);
    CHECK(server_tags(host.to_client()) == "CZ");
    CHECK(host.has_word("finish K1: DELETE 3"));
}

TEST_CASE("other bytes, parameters or settings find no approval") {
    Guard host;
    host.send(query(erase));
    host.event(session::Deadline{session::DeadlineKind::held});
    host.pump();
    host.vote(true);
    host.ticket = approval::released(*host.ticket, {});
    host.send(query(erase + " "));
    CHECK(host.postgres.ran.back() == session::identity_sql);
    CHECK(host.opens.size() == 2);
    CHECK(host.opens[0].request.binding != host.opens[1].request.binding);
}

TEST_CASE("a cancel withdraws the ticket and answers 57014, whatever step the hold is in") {
    SECTION("while the claim is looked for, which may find one") {
        Guard host;
        host.claims_answered = false;
        host.send(query(erase));
        CHECK(host.cancel());
        CHECK(contains(host.to_client(), "57014"));
        host.claims_answered = true;
        host.send(query("SELECT 1"));
        CHECK(server_tags(host.to_client()) == "CZ");
        approval::Ticket late;
        late.id = "B1";
        host.event(session::TicketClaimed{std::optional(late)});
        CHECK(host.ticket_words == Words{"finish B1: not run: it was cancelled"});
        CHECK(host.postgres.runs_of(erase) == 0);
    }
    SECTION("while the ticket is being opened") {
        Guard host;
        host.opens_answered = false;
        host.send(query(erase));
        CHECK(host.cancel());
        CHECK(contains(host.to_client(), "57014"));
        host.event(session::TicketOpened{*host.ticket});
        host.pump();
        CHECK(host.ticket_words == Words{"withdraw K1: cancelled by its requester"});
        CHECK(host.to_client().empty());
    }
    SECTION("while it waits") {
        for (const bool extended : {false, true}) {
            Guard host;
            host.send(extended ? group(erase) + sync_message() : query(erase));
            host.to_client();
            CHECK(host.cancel());
            const std::string seen = host.to_client();
            CHECK(server_tags(seen) == "EZ");
            CHECK(contains(seen, "57014"));
            CHECK(contains(seen, "the ticket K1 is withdrawn"));
            CHECK(host.has_word("withdraw K1: cancelled by its requester"));
            CHECK(host.deadlines.count(session::DeadlineKind::held) == 0);
            // An approval that comes too late changes nothing.
            host.decided(State::approved);
            CHECK(host.postgres.runs_of(erase) == 0);
            CHECK(host.to_client().empty());
        }
    }
    SECTION("not where nothing is held") {
        Guard host;
        CHECK_FALSE(host.cancel());
        host.client(query(erase));
        CHECK_FALSE(host.cancel());
    }
}

TEST_CASE("a client that leaves takes its ticket back, and nothing runs") {
    SECTION("while it waits") {
        for (const bool broken : {false, true}) {
            Guard host;
            host.send(query(erase));
            host.event(session::ClientClosed{broken});
            host.pump();
            CHECK(host.has_word("withdraw K1"));
            CHECK(host.postgres.runs_of(erase) == 0);
            host.decided(State::approved);
            CHECK(host.postgres.runs_of(erase) == 0);
        }
    }
    SECTION("while the ticket is being opened") {
        Guard host;
        host.opens_answered = false;
        host.send(query(erase));
        host.event(session::ClientClosed{});
        host.event(session::TicketOpened{*host.ticket});
        CHECK(host.has_word("withdraw K1"));
    }
    SECTION("while the server says who it is") {
        Guard host;
        host.client(query(erase));
        host.event(session::ClientClosed{});
        host.pump();
        CHECK(host.opens.empty());
        CHECK(host.postgres.runs_of(erase) == 0);
    }
    SECTION("between the approval and the claim") {
        Guard host;
        host.send(query(erase));
        host.vote(true);
        host.event(session::TicketDecided{*host.ticket});
        host.event(session::ClientClosed{true});
        CHECK((host.has_word("withdraw K1") || host.has_word("release K1")));
    }
}

TEST_CASE("a client that sends no more is told what it can't wait for, and the rest goes on") {
    for (const bool waits : {false, true}) {
        Guard host;
        host.client(query(erase) + query("SELECT 1") + group("DELETE FROM u"));
        if (waits) host.pump();
        host.event(session::ClientClosed{});
        host.pump();
        CHECK(server_tags(host.to_client()) == (waits ? "NEZCZ1E" : "EZCZ1E"));
        CHECK(host.postgres.runs_of("SELECT 1") == 1);
        CHECK(host.postgres.runs_of(erase) == 0);
        CHECK(host.opens.size() == (waits ? 1 : 0));
        CHECK(host.milestones.back() == "ShutdownServer");
    }
}

TEST_CASE("a server that goes while a statement waits is told of, and the ticket stays open") {
    Guard host;
    host.send(query(erase));
    host.to_client();
    host.event(session::ServerClosed{});
    const std::string seen = host.to_client();
    CHECK(contains(seen, "the server closed the connection while DELETE waited"));
    CHECK(contains(seen, "08006"));
    CHECK(host.ticket_words == Words{"release K1"});
    CHECK(host.closed);
}

TEST_CASE("what cannot be recorded does not run, though it was approved") {
    Guard host;
    host.send(query(erase));
    host.to_client();
    host.answer_audit = false;
    host.decide(true);
    CHECK(host.ticket->state == State::used);
    host.event(session::AuditStored{false, "disk full"});
    host.pump();
    CHECK(host.postgres.runs_of(erase) == 0);
    CHECK(contains(host.to_client(), "58030"));
    CHECK(host.has_word("finish K1: not run"));
}

TEST_CASE("a policy that has become stricter wins, and the next statement asks for itself") {
    Guard host;
    host.send(query(erase));
    host.to_client();
    host.action = policy::Action::block;
    host.decide(true);
    CHECK(host.postgres.runs_of(erase) == 0);
    CHECK(contains(host.to_client(), "no DELETE"));
    CHECK((host.has_word("withdraw K1") || host.has_word("release K1")));
    host.action = policy::Action::hold;
    host.send(query("DELETE FROM u"));
    REQUIRE(host.claims.size() == 2);
    CHECK(host.claims[1].claim.ticket.empty());
    CHECK(host.opens.size() == 2);
    CHECK(contains(host.to_client(), "ticket K2"));
}

TEST_CASE("a policy that does not ask any more lets it run, and takes the ticket back") {
    for (const bool extended : {false, true}) {
        Guard host;
        host.send(extended ? group(erase) + sync_message() : query(erase));
        host.to_client();
        host.action = policy::Action::allow;
        host.decide(true);
        CHECK(host.postgres.runs_of(erase) == 1);
        CHECK(server_tags(host.to_client()) == (extended ? "2CZ" : "CZ"));
        CHECK(host.has_word("withdraw K1: no longer needed"));
        CHECK(host.ticket->state == State::approved);
    }
}

TEST_CASE("several statements in one string wait together, and none runs before") {
    Guard host;
    const std::string text = "INSERT INTO t VALUES (1); DELETE FROM t; DELETE FROM u";
    host.send(query(text));
    CHECK(host.postgres.ran == Words{std::string(session::identity_sql)});
    REQUIRE(host.opens.size() == 1);
    host.decide(true);
    CHECK(host.postgres.runs_of(text) == 1);
    CHECK(host.claims.size() == 2);
}

TEST_CASE("in a block a statement waits, or is refused at once with its ticket") {
    policy::HoldTerms terms = usual_terms();
    SECTION("waits") {
        Guard host(terms);
        host.send(query("BEGIN"));
        host.to_client();
        host.send(query(erase));
        CHECK(server_tags(host.to_client()) == "N");
        host.decide(true);
        CHECK(host.to_client() == complete("DELETE 3") + ready('T'));
        CHECK(host.has_word("finish K1: DELETE 3 (in a transaction that was not over)"));
    }
    SECTION("is refused") {
        terms.in_transaction = policy::HoldTerms::InTransaction::refuse;
        Guard host(terms);
        host.send(query("BEGIN"));
        host.to_client();
        host.send(query(erase));
        const std::string seen = host.to_client();
        CHECK(server_tags(seen) == "EZ");
        CHECK(contains(seen, "needs an approval (ticket K1)"));
        CHECK(seen.ends_with(ready('E')));
        CHECK(host.opens[0].request.wait == 0s);
        CHECK(host.ticket_words == Words{"release K1"});
    }
}

TEST_CASE("a held Bind in a pipeline waits behind the Executes before it") {
    for (const bool approve : {true, false}) {
        Guard host;
        host.send(group("INSERT INTO t VALUES (1)") + group(erase) + group("SELECT 1") +
                  sync_message());
        CHECK(host.postgres.runs_of("INSERT INTO t VALUES (1)") == 1);
        CHECK(host.postgres.runs_of(erase) == 0);
        CHECK(server_tags(host.to_client()) == "12C1N");
        host.decide(approve);
        CHECK(host.postgres.runs_of(erase) == (approve ? 1 : 0));
        CHECK(host.postgres.runs_of("SELECT 1") == (approve ? 1 : 0));
        CHECK(server_tags(host.to_client()) == (approve ? "2C12CZ" : "EZ"));
        CHECK(host.session.ledger().empty());
    }
}

TEST_CASE("a plan is shown to the approvers, and its errors are the statement's") {
    policy::HoldTerms terms = usual_terms();
    terms.evidence = policy::HoldTerms::Evidence::plan;
    SECTION("shown") {
        Guard host(terms);
        host.send(query(erase));
        REQUIRE(host.opens.size() == 1);
        const approval::Evidence& evidence = host.opens[0].request.evidence;
        CHECK(evidence.kind == approval::Evidence::Kind::plan);
        REQUIRE(evidence.tables.size() == 1);
        CHECK(evidence.tables[0].deleted == 40);
        CHECK(host.postgres.runs_of(erase) == 0);
    }
    SECTION("an error, and the session goes on") {
        for (const bool extended : {false, true}) {
            Guard host(terms);
            host.postgres.fails["EXPLAIN"] = "42P01";
            host.send(extended ? group(erase) + sync_message() : query(erase));
            CHECK(host.opens.empty());
            const std::string seen = host.to_client();
            CHECK(server_tags(seen) == (extended ? "1EZ" : "EZ"));
            CHECK(contains(seen, "42P01"));
            host.send(query("SELECT 1"));
            CHECK(server_tags(host.to_client()) == "CZ");
        }
    }
    SECTION("an error in a Query behind an Execute that no Sync has ended") {
        Guard host(terms);
        host.postgres.fails["EXPLAIN"] = "42P01";
        host.send(group("SELECT 1") + query(erase));
        CHECK(server_tags(host.to_client()) == "12CEZ");
        host.send(query("SELECT 2"));
        CHECK(server_tags(host.to_client()) == "CZ");
    }
    SECTION("who asks cannot be said") {
        Guard host(terms);
        host.postgres.fails[std::string(session::identity_sql)] = "57014";
        host.send(query(erase));
        CHECK(server_tags(host.to_client()) == "EZ");
        CHECK(host.claims.empty());
    }
}

TEST_CASE("a trial is run, counted and taken back, and limits what is approved") {
    policy::HoldTerms terms = usual_terms();
    terms.evidence = policy::HoldTerms::Evidence::trial;
    for (const bool extended : {false, true}) {
        const std::string bytes = extended ? group(erase) + sync_message() : query(erase);
        for (const bool in_block : {false, true}) {
            Guard host(terms);
            if (in_block) host.send(query("BEGIN"));
            host.send(bytes);
            host.to_client();
            REQUIRE(host.opens.size() == 1);
            const approval::Evidence& evidence = host.opens[0].request.evidence;
            CHECK(evidence.kind == approval::Evidence::Kind::trial);
            REQUIRE(evidence.tables.size() == 1);
            CHECK(evidence.tables[0].table == "public.t");
            CHECK(evidence.tables[0].deleted == 3);
            CHECK(host.postgres.status == (in_block ? 'T' : 'I'));
            CHECK(host.postgres.runs_of(in_block ? "ROLLBACK TO SAVEPOINT pgchaperone_trial"
                                                 : "ROLLBACK") == 1);
            const std::size_t before = host.postgres.runs_of(erase);
            CHECK(before == 1);
            SECTION("as many rows as were approved") {
                host.decide(true);
                CHECK(host.postgres.runs_of(erase) == 2);
                CHECK(server_tags(host.to_client()) == (extended ? "2CZ" : "CZ"));
                CHECK(host.postgres.status == (in_block ? 'T' : 'I'));
            }
            SECTION("more of them") {
                host.postgres.deleted_by_delete = 4;
                host.decide(true);
                const std::string seen = host.to_client();
                CHECK(contains(server_tags(seen), "EZ"));
                CHECK(contains(seen, "42501"));
                CHECK(host.postgres.status == (in_block ? 'E' : 'I'));
                CHECK(host.has_word("finish K1: failed: "));
            }
        }
    }
}

TEST_CASE("a trial that fails is the statement's failure, and is taken back") {
    policy::HoldTerms terms = usual_terms();
    terms.evidence = policy::HoldTerms::Evidence::trial;
    for (const bool extended : {false, true}) {
        for (const bool in_block : {false, true}) {
            Guard host(terms);
            if (in_block) host.send(query("BEGIN"));
            host.to_client();
            host.postgres.fails[erase] = "23503";
            host.send(extended ? group(erase) + sync_message() : query(erase));
            const std::string seen = host.to_client();
            CHECK(server_tags(seen) == (extended ? "1EZ" : "EZ"));
            CHECK(contains(seen, "23503"));
            CHECK(host.opens.empty());
            CHECK(host.postgres.status == (in_block ? 'E' : 'I'));
            CHECK(seen.ends_with(ready(in_block ? 'E' : 'I')));
        }
    }
}

TEST_CASE("a deferred constraint that a trial violates in a block may yet be mended there") {
    policy::HoldTerms terms = usual_terms();
    terms.evidence = policy::HoldTerms::Evidence::trial;
    for (const bool in_block : {false, true}) {
        Guard host(terms);
        if (in_block) host.send(query("BEGIN"));
        host.to_client();
        host.postgres.fails["SET CONSTRAINTS"] = "23503";
        host.send(query(erase));
        const std::string seen = host.to_client();
        CHECK(server_tags(seen) == (in_block ? "N" : "EZ"));
        if (!in_block) continue;
        CHECK(host.opens[0].request.evidence.kind == approval::Evidence::Kind::none);
        CHECK(contains(host.opens[0].request.evidence.text, "deferred constraint"));
        CHECK(host.postgres.status == 'T');
        host.decide(true);
        CHECK(host.to_client() == complete("DELETE 3") + ready('T'));
    }
}

TEST_CASE("a store that fails refuses, and the session goes on") {
    SECTION("when an approval is looked for") {
        Guard host;
        host.store_fails = true;
        host.send(query(erase));
        const std::string seen = host.to_client();
        CHECK(server_tags(seen) == "EZ");
        CHECK(contains(seen, "58030"));
        CHECK(host.postgres.runs_of(erase) == 0);
    }
    SECTION("when the ticket is opened") {
        Guard host;
        host.open = [](const session::OpenTicket&) {
            return session::TicketOpened{
                approval::Failure{approval::Problem::store_failed, "the disk is full", ""}};
        };
        host.send(query(erase));
        const std::string seen = host.to_client();
        CHECK(server_tags(seen) == "EZ");
        CHECK(contains(seen, "tickets can't be kept at the moment"));
        CHECK(host.postgres.runs_of(erase) == 0);
        host.send(query("SELECT 1"));
        CHECK(server_tags(host.to_client()) == "CZ");
    }
    SECTION("when it is approved: others may use it, as nobody waits for it any more") {
        Guard host;
        host.send(query(erase));
        host.to_client();
        host.store_fails = true;
        host.decide(true);
        CHECK(contains(host.to_client(), "58030"));
        CHECK(host.postgres.runs_of(erase) == 0);
        CHECK(host.has_word("release K1"));
    }
}

TEST_CASE("blanks are no reason to break the glass") {
    policy::HoldTerms terms = usual_terms();
    terms.glass_roles = {"clerk"};
    Guard host(terms);
    host.postgres.reason = " \t\n ";
    host.send(query(erase));
    CHECK(host.postgres.runs_of(erase) == 0);
    CHECK(contains(host.to_client(), "SET chaperone.reason"));
}

TEST_CASE("who may break the glass goes ahead alone, with a reason and a record") {
    policy::HoldTerms terms = usual_terms();
    terms.glass_roles = {"clerk"};
    Guard without(terms);
    without.send(query(erase));
    CHECK(without.postgres.runs_of(erase) == 0);
    CHECK(contains(without.to_client(), "You may go ahead alone"));
    Guard host(terms);
    host.postgres.reason = "the shop is on fire";
    host.send(query(erase));
    CHECK(host.postgres.runs_of(erase) == 1);
    const std::string seen = host.to_client();
    CHECK(server_tags(seen) == "NCZ");
    CHECK(contains(seen, "the glass is broken"));
    REQUIRE_FALSE(host.outcomes().empty());
    CHECK(host.outcomes().front() == "K1 glass broken");
    CHECK(host.has_word("finish K1: DELETE 3"));
}

TEST_CASE("an approved portal runs by its one approval, however often it is executed") {
    Guard host;
    host.send(parse("", "DELETE FROM t RETURNING id") + bind("", "") + execute("", 1) +
              execute("", 1) + sync_message());
    host.to_client();
    host.decide(true);
    CHECK(server_tags(host.to_client()) == "2CCZ");
    CHECK(host.claims.size() == 2);
    // Bound again, it is asked for again.
    host.send(bind("", "") + execute("") + sync_message());
    CHECK(host.opens.size() == 2);
}

TEST_CASE("an approved portal that is not run to its end has begun all the same") {
    Guard host;
    host.postgres.suspends = true;
    host.send(parse("", "DELETE FROM t RETURNING id") + bind("", "") + execute("", 1) +
              sync_message());
    host.to_client();
    host.decide(true);
    CHECK(host.ticket_words == Words{"finish K1: begun"});
}

TEST_CASE("a connection that would be closed for being idle is used now and then") {
    Guard host;
    host.postgres.idle_timeout = "3000";
    host.send(query(erase));
    host.to_client();
    CHECK(host.deadlines.at(session::DeadlineKind::keep_alive) == 1000ms);
    host.deadlines.clear();
    host.event(session::Deadline{session::DeadlineKind::keep_alive});
    CHECK_FALSE(host.sent_to_server.empty());
    host.pump();
    CHECK(host.to_client().empty());
    CHECK(host.deadlines.at(session::DeadlineKind::keep_alive) == 1000ms);
    host.decide(true);
    CHECK(host.to_client() == complete("DELETE 3") + ready());
}

TEST_CASE("what exceeds its limits is taken back whole and waits, and is run by what was counted") {
    policy::SuperviseLimits limits;
    limits.max_rows = 2;
    limits.on_exceed = policy::SuperviseLimits::OnExceed::hold;
    limits.hold = std::make_shared<const policy::HoldTerms>(usual_terms());
    Guard host;
    host.action = policy::Action::supervise;
    host.limits = std::make_shared<const policy::SuperviseLimits>(limits);
    host.send(query(erase));
    CHECK(host.postgres.status == 'I');
    const std::string notice = host.to_client();
    CHECK(server_tags(notice) == "N");
    REQUIRE(host.opens.size() == 1);
    CHECK(host.opens[0].request.evidence.kind == approval::Evidence::Kind::counted);
    SECTION("approved") {
        host.decide(true);
        CHECK(server_tags(host.to_client()) == "CZ");
        CHECK(host.postgres.ran.back() == "COMMIT");
        CHECK(host.has_word("finish K1: "));
    }
    SECTION("approved, and now there are more") {
        host.postgres.deleted_by_delete = 5;
        host.decide(true);
        const std::string seen = host.to_client();
        CHECK(server_tags(seen) != "CZ");
        CHECK(host.postgres.ran.back() == "ROLLBACK");
    }
    SECTION("denied") {
        host.decide(false);
        CHECK(server_tags(host.to_client()) == "EZ");
        CHECK(host.postgres.runs_of(erase) == 1);
    }
    SECTION("not any more since its client left") {
        host.event(session::ClientClosed{});
        host.pump();
        CHECK(host.has_word("withdraw K1"));
    }
}

TEST_CASE("an Execute that exceeds its limits waits too where it is alone in its group") {
    policy::SuperviseLimits limits;
    limits.max_rows = 2;
    limits.on_exceed = policy::SuperviseLimits::OnExceed::hold;
    limits.hold = std::make_shared<const policy::HoldTerms>(usual_terms());
    Guard host;
    host.action = policy::Action::supervise;
    host.limits = std::make_shared<const policy::SuperviseLimits>(limits);
    SECTION("alone") {
        host.send(group(erase) + sync_message());
        REQUIRE(host.opens.size() == 1);
        CHECK(host.opens[0].request.wait == 60s);
        CHECK(server_tags(host.to_client()) == "12N");
        host.decide(true);
        CHECK(server_tags(host.to_client()) == "CZ");
        CHECK(host.postgres.runs_of(erase) == 2);
        CHECK(host.ticket->state == State::used);
        CHECK(host.has_word("finish K1: DELETE 3"));
        CHECK(host.session.ledger().empty());
    }
    SECTION("denied") {
        host.send(group(erase) + sync_message());
        host.to_client();
        host.decide(false);
        CHECK(server_tags(host.to_client()) == "EZ");
        CHECK(host.postgres.runs_of(erase) == 1);
        host.send(query("SELECT 1"));
        CHECK(server_tags(host.to_client()) == "CZ");
    }
}

TEST_CASE("what was approved is judged by its counts before the next one of its pipeline waits") {
    policy::HoldTerms terms = usual_terms();
    terms.evidence = policy::HoldTerms::Evidence::trial;
    for (const bool more : {false, true}) {
        Guard host(terms);
        host.send(group(erase));
        host.to_client();
        if (more) host.postgres.deleted_by_delete = 4;
        host.vote(true);
        host.client(group("DELETE FROM u") + sync_message());
        host.event(session::TicketDecided{*host.ticket});
        host.pump();
        CHECK(server_tags(host.to_client()) == (more ? "2EZ" : "2C1N"));
        CHECK(host.opens.size() == (more ? 1 : 2));
    }
}

TEST_CASE("two tickets in one pipeline each tell what became of their own statement") {
    Guard host;
    host.send(group(erase) + group("DELETE FROM u") + sync_message());
    host.decide(true);
    host.decide(true);
    CHECK(host.postgres.runs_of(erase) == 1);
    CHECK(host.postgres.runs_of("DELETE FROM u") == 1);
    CHECK(host.ticket_words ==
          Words{"finish K1: DELETE 3 (in a transaction that was not over)", "finish K2: DELETE 3"});
}

TEST_CASE("what is refused behind an approved Execute says nothing of its ticket") {
    Guard host;
    host.send(group(erase));
    host.to_client();
    host.decide(true);
    CHECK(host.postgres.runs_of(erase) == 1);
    host.audit_works = false;
    host.send(group("DELETE FROM u") + sync_message());
    CHECK_FALSE(host.has_word("finish K1: not run"));
    CHECK(host.has_word("finish K1: "));
}

TEST_CASE("a notice never comes in the middle of a message of the server's") {
    const std::string late = protocol::encoded(
        protocol::NotificationResponse{7, "news", "of something"});
    for (std::size_t cut = 1; cut < late.size(); ++cut) {
        Guard host;
        host.send(query(erase));
        host.to_client();
        host.server(late.substr(0, cut));
        host.event(session::Deadline{session::DeadlineKind::notice});
        host.server(late.substr(cut));
        CHECK_THAT(server_tags(host.to_client()),
                   Catch::Matchers::Equals("AN") || Catch::Matchers::Equals("NA"));
    }
}

TEST_CASE("an Execute that is not alone in its group is not taken back behind its client's back") {
    policy::SuperviseLimits limits;
    limits.max_rows = 2;
    limits.on_exceed = policy::SuperviseLimits::OnExceed::hold;
    limits.hold = std::make_shared<const policy::HoldTerms>(usual_terms());
    Guard host;
    host.action = policy::Action::supervise;
    host.limits = std::make_shared<const policy::SuperviseLimits>(limits);
    const std::string insert = "INSERT INTO t VALUES (1)";
    SECTION("behind another one") {
        host.send(group(insert) + group(erase) + sync_message());
        CHECK(server_tags(host.to_client()) == "12C12EZ");
    }
    SECTION("before another one") {
        host.client(group(erase) + group(insert) + sync_message());
        host.pump();
        CHECK(server_tags(host.to_client()) == "12EZ");
    }
    REQUIRE(host.opens.size() == 1);
    CHECK(host.opens[0].request.wait == 0s);
    CHECK(host.ticket_words == Words{"release K1"});
    host.vote(true);
    // The same again, and an approval may lie ready.
    host.answer_judge = false;
    host.client(group(erase) + sync_message());
    while (!host.judged.empty()) {
        session::Judge question = host.judged.back();
        question.sql = host.judged_texts.back();
        host.judged.clear();
        session::Verdict verdict{host.judge(question), host.now};
        verdict.may_be_approved = true;
        host.event(verdict);
        host.pump();
    }
    CHECK(server_tags(host.to_client()) == "12CZ");
    CHECK(host.ticket->state == State::used);
    CHECK(host.has_word("finish K1: DELETE 3"));
}
