#pragma once
// A host for the session core that has no sockets: what a test (or a fuzzer) feeds goes in, what
// would be sent is collected. It answers Judge and StoreAudit at once, or keeps them until told.

#include "protocol/codec.h"
#include "protocol/head.h"
#include "protocol/messages.h"
#include "proxy/session/session.h"

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace pgchaperone::test {

class SessionHost {
public:
    // What the policy says of a text; the default refuses every text that contains "DELETE".
    using Policy = std::function<policy::Judgement(const session::Judge&)>;

    explicit SessionHost(session::Setup setup = {})
        : session(std::move(setup)), policy(refuse_delete) {
        drain();
    }

    static policy::Judgement refuse_delete(const session::Judge& question) {
        policy::Judgement judgement;
        auto analysis = std::make_shared<policy::Analysis>();
        analysis->text = question.analysis ? question.analysis->text : std::string(question.sql);
        policy::StatementFacts facts;
        facts.may_change_lexical_settings = analysis->text.find("SET ") != std::string::npos;
        analysis->statements.push_back(std::move(facts));
        if (analysis->text.find("DELETE") != std::string::npos) {
            policy::Decision decision;
            decision.action = policy::Action::block;
            decision.rule = "no-delete";
            decision.refusal.message = "refused by no-delete";
            judgement.decisions.push_back(std::move(decision));
        }
        judgement.analysis = std::move(analysis);
        return judgement;
    }

    // Bytes from one side, in pieces of at most `piece` bytes (0: all at once).
    SessionHost& client(std::string_view bytes, std::size_t piece = 0) {
        feed<session::ClientBytes>(bytes, piece);
        return *this;
    }
    SessionHost& server(std::string_view bytes, std::size_t piece = 0) {
        feed<session::ServerBytes>(bytes, piece);
        return *this;
    }
    template <class Event>
    SessionHost& event(const Event& event) {
        tell_time();
        session.handle(event);
        drain();
        return *this;
    }

    // What was sent since the last call.
    std::string to_server() { return std::exchange(sent_to_server, {}); }
    std::string to_client() { return std::exchange(sent_to_client, {}); }

    // A session that has logged in and sent nothing else.
    SessionHost& log_in(std::string_view user = "clerk") {
        protocol::StartupMessage startup;
        startup.parameters = {{"user", user}, {"database", "shop"}};
        client(protocol::encoded(startup));
        event(session::Connected{true, {}, false, {}});
        server(protocol::encoded(protocol::AuthenticationOk{}) +
               protocol::encoded(protocol::ParameterStatus{"standard_conforming_strings", "on"}) +
               protocol::encoded(protocol::ParameterStatus{"client_encoding", "UTF8"}) +
               protocol::encoded(protocol::ReadyForQuery{'I'}));
        to_server();
        to_client();
        return *this;
    }

    session::Session session;
    Policy policy;
    std::chrono::system_clock::time_point now;
    std::chrono::steady_clock::time_point steady_now;
    bool answer_judge = true;
    bool answer_audit = true;
    bool audit_works = true;
    // Where Setup names none: which server it is; nothing: it takes its time.
    std::optional<session::UpstreamFound> find_upstream;
    // What pgchaperone itself answers; nothing: it takes its time.
    std::function<std::optional<session::ChaperoneAnswer>(const session::AskChaperone&)> chaperone =
        [](const session::AskChaperone&) {
            return session::ChaperoneAnswer{"[]", std::nullopt};
        };
    std::vector<session::AskChaperone> asked;
    bool answer_cancel = true;
    bool connects_to_cancel = false;  // the last Connect was for a CancelRequest
    bool cancel_taken = false;        // by another session, for which something was held
    std::vector<std::string> cancel_keys_asked;
    std::string cancel_key;                   // of this session, by the server's word
    std::vector<std::string> cancelled_keys;  // what the server was asked to cancel
    bool answer_server_cancel = false;        // at once
    // The store of tickets; nothing: it takes its time.
    std::function<std::optional<session::TicketClaimed>(const session::ClaimTicket&)> claim =
        [](const session::ClaimTicket&) { return session::TicketClaimed{}; };
    std::function<std::optional<session::TicketOpened>(const session::OpenTicket&)> open =
        [](const session::OpenTicket&) { return std::nullopt; };
    std::vector<session::ClaimTicket> claims;
    std::vector<session::OpenTicket> opens;
    std::vector<std::string>
        ticket_words;  // "release K7", "withdraw K7: why", "finish K7: outcome"
    std::map<session::DeadlineKind, std::chrono::milliseconds> deadlines;
    std::vector<session::Judge> judged;  // `sql` points into `judged_texts`
    std::vector<std::string> judged_texts;
    std::vector<policy::RelationName> last_own_tables;
    std::vector<audit::Record> records;
    std::vector<std::string> milestones;  // Connect, StartTls, ShutdownServer, Close: ...
    std::string sent_to_server;
    std::string sent_to_client;
    bool closed = false;
    session::Ending ending = session::Ending::ordinary;

    void drain() {
        while (auto command = session.next()) {
            std::visit([this](auto& one) { carry_out(one); }, *command);
        }
    }

private:
    void tell_time() {
        if (session.wants_time()) session.tell_time(steady_now);
    }
    template <class Event>
    void feed(std::string_view bytes, std::size_t piece) {
        if (piece == 0) piece = bytes.size();
        while (!bytes.empty()) {
            // A buffer of its own that is gone afterwards: a view kept too long shows under a
            // sanitizer.
            const std::string chunk(bytes.substr(0, piece));
            tell_time();
            session.handle(Event{chunk});
            drain();
            bytes.remove_prefix(chunk.size());
        }
    }

    void carry_out(session::SendToClient& command) { sent_to_client += command.data.bytes(); }
    void carry_out(session::SendToServer& command) { sent_to_server += command.data.bytes(); }
    void carry_out(session::Judge& command) {
        judged_texts.emplace_back(command.sql);
        judged.push_back(command);
        last_own_tables = *command.own_tables;
        if (answer_judge) session.handle(session::Verdict{policy(command), now});
    }
    void carry_out(session::StoreAudit& command) {
        for (audit::Record& record : command.records) records.push_back(std::move(record));
        tell_time();
        if (answer_audit && command.awaited)
            session.handle(session::AuditStored{audit_works, audit_works ? "" : "disk full"});
    }
    void carry_out(session::FindUpstream&) {
        milestones.emplace_back("FindUpstream: " + session.facts().database);
        if (find_upstream) session.handle(*find_upstream);
    }
    void carry_out(session::Connect& command) {
        milestones.emplace_back("Connect");
        connects_to_cancel = command.cancels;
    }
    void carry_out(session::StartTls& command) {
        milestones.emplace_back(command.direct ? "StartTls direct" : "StartTls");
    }
    void carry_out(session::SetDeadline& command) { deadlines[command.kind] = command.after; }
    void carry_out(session::ClearDeadline& command) { deadlines.erase(command.kind); }
    void carry_out(session::ShutdownServer&) { milestones.emplace_back("ShutdownServer"); }
    void carry_out(session::Close& command) {
        milestones.push_back("Close: " + command.reason);
        closed = true;
        ending = command.ending;
    }
    void carry_out(session::Log&) {}
    void carry_out(session::ClaimTicket& command) {
        claims.push_back(command);
        if (auto answer = claim(command)) session.handle(*answer);
    }
    void carry_out(session::OpenTicket& command) {
        opens.push_back(command);
        if (auto answer = open(command)) session.handle(*answer);
    }
    void carry_out(session::ReleaseTicket& command) {
        ticket_words.push_back("release " + command.id);
    }
    void carry_out(session::WithdrawTicket& command) {
        ticket_words.push_back("withdraw " + command.id + ": " + command.why);
    }
    void carry_out(session::FinishTicket& command) {
        ticket_words.push_back("finish " + command.id + ": " + command.outcome);
    }
    void carry_out(session::AskChaperone& command) {
        asked.push_back(command);
        if (auto answer = chaperone(command)) session.handle(*answer);
    }
    void carry_out(session::FindCancelled& command) {
        cancel_keys_asked.push_back(command.key);
        if (answer_cancel) session.handle(session::CancelTaken{cancel_taken});
    }
    void carry_out(session::CancelServer& command) {
        cancelled_keys.push_back(command.key);
        if (answer_server_cancel) session.handle(session::ServerCancelled{});
    }
    void carry_out(session::KnowCancelKey& command) { cancel_key = command.key; }
};

// Messages as bytes, in the words of the protocol.
inline std::string query(std::string_view sql) { return protocol::encoded(protocol::Query{sql}); }
inline std::string parse(std::string_view name, std::string_view sql) {
    return protocol::encoded(protocol::Parse{name, sql, {}});
}
inline std::string bind(std::string_view portal, std::string_view statement) {
    return protocol::encoded(protocol::Bind{portal, statement, {}, {}, {}});
}
inline std::string execute(std::string_view portal, int rows = 0) {
    return protocol::encoded(protocol::Execute{portal, rows});
}
inline std::string sync_message() { return protocol::encoded(protocol::Sync{}); }
inline std::string flush() { return protocol::encoded(protocol::Flush{}); }
inline std::string complete(std::string_view tag) {
    return protocol::encoded(protocol::CommandComplete{tag});
}
inline std::string ready(char status = 'I') {
    return protocol::encoded(protocol::ReadyForQuery{status});
}
inline std::string parse_complete() { return protocol::encoded(protocol::ParseComplete{}); }
inline std::string bind_complete() { return protocol::encoded(protocol::BindComplete{}); }
inline std::string error(std::string_view sqlstate, std::string_view message = "no",
                         std::string_view severity = "ERROR") {
    protocol::ErrorResponse response;
    response.fields = {{'S', severity}, {'V', severity}, {'C', sqlstate}, {'M', message}};
    return protocol::encoded(response);
}

// The tags of the messages in a byte stream, as one string.
inline std::string tags(std::string_view bytes, protocol::Side side) {
    std::string out;
    while (bytes.size() >= protocol::head_size) {
        const auto head = protocol::read_head(bytes, side);
        if (!head || bytes.size() < head->total()) return out + "?";
        out += head->tag;
        bytes.remove_prefix(head->total());
    }
    return bytes.empty() ? out : out + "?";
}
inline std::string client_tags(std::string_view bytes) {
    return tags(bytes, protocol::Side::frontend);
}
inline std::string server_tags(std::string_view bytes) {
    return tags(bytes, protocol::Side::backend);
}

}  // namespace pgchaperone::test
