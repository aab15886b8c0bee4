#include "proxy/session/session.h"

#include "proxy/session/hold.h"
#include "proxy/session/login.h"
#include "proxy/session/refusal.h"
#include "proxy/session/supervision.h"
#include "proxy/session/time_limits.h"

#include <boost/assert.hpp>

#include <utility>

namespace pgchaperone::session {

namespace {

// `login`: the server has been asked.
Ending ending_by(std::string_view sqlstate, bool login) {
    if (sqlstate == "53300") return Ending::limit;
    if (sqlstate == "57014") return Ending::timeout;
    if (sqlstate == "57P01" || sqlstate == "57P03") return Ending::ordinary;
    if (sqlstate == "08006") return Ending::upstream;
    return login && sqlstate.starts_with("28") ? Ending::login : Ending::startup;
}

}  // namespace

Session::Session(Setup setup) : setup_(std::move(setup)), login_(std::make_unique<Login>()) {
    facts_.id = setup_.id;
    facts_.client = setup_.client;
    ledger_.on_undone([this](Entry& entry) { undo(entry); });
    say(SetDeadline{DeadlineKind::login});
}

Session::~Session() = default;

std::optional<Command> Session::next() {
    if (!commands_.empty()) {
        Command command = std::move(commands_.front());
        commands_.pop_front();
        return command;
    }
    if (auto bytes = from_client_.take_output()) return SendToServer{std::move(*bytes)};
    if (auto bytes = from_server_.take_output()) return SendToClient{std::move(*bytes)};
    watch_idleness();
    watch_time();
    if (outcomes_ && outcomes_->has_news()) tell_outcomes();
    if (!commands_.empty()) return next();
    from_client_.settle();
    from_server_.settle();
    return std::nullopt;
}

void Session::say(Command command) {
    flush_outputs();
    commands_.push_back(std::move(command));
}

// What was to leave leaves before what is said next. Judge and the like don't care about the order
// and don't come here: their bytes may go on waiting and leave in one piece with what follows.
void Session::flush_outputs() {
    while (auto bytes = from_client_.take_output())
        commands_.push_back(SendToServer{std::move(*bytes)});
    while (auto bytes = from_server_.take_output())
        commands_.push_back(SendToClient{std::move(*bytes)});
}

void Session::close(std::string reason, Ending ending) {
    if (phase_ == Phase::closed) return;
    if (phase_ == Phase::login && server_said_fatal_) ending = Ending::login;
    if (ending == Ending::timeout && login_waits_for_server()) ending = Ending::unanswered;
    phase_ = Phase::closed;
    forget_ticket(reason, client_closed_);
    if (client_closed_) withdraw_approval(reason);
    give_back_approval();
    finish_claimed(claimed_ && claimed_->sequence == 0 && waiting_ != Waiting::unit
                       ? "not run"
                       : "the connection was lost before it was over: it may have run or not");
    follow_no_more();
    if (waiting_ == Waiting::unit) follow_unit_no_more();
    if (outcomes_) {
        outcomes_->lost(ledger_.idle());
        tell_outcomes();
    }
    waiting_ = Waiting::nothing;
    say(Close{std::move(reason), ending});
}

void Session::fatal(policy::Refusal words, std::string reason) {
    if (phase_ == Phase::closed) return;
    // In the middle of a message of the server's, it could only be taken for a part of that.
    const bool in_a_message = server_pass_bytes_ > 0 && server_pass_ == Fate::forward;
    const Ending ending = login_ ? ending_by(words.sqlstate,
                                             phase_ == Phase::login || phase_ == Phase::checking)
                                 : Ending::ordinary;
    if (in_a_message) return close(std::move(reason), ending);
    send_to_client(error_response(words, "FATAL", settings_.client_encoding_is_utf8()));
    close(std::move(reason), ending);
}

bool Session::wants_client_bytes() const {
    if (client_closed_ || phase_ == Phase::closed) return false;
    if (ledger_.full()) return false;
    const bool stuck = (waiting_ != Waiting::nothing && !unit_copying()) ||
                       phase_ == Phase::connecting || phase_ == Phase::client_tls ||
                       phase_ == Phase::finding || phase_ == Phase::cancel ||
                       login_waits_for_server();
    return !stuck || from_client_.available() < backlog_bytes_max;
}

bool Session::login_waits_for_server() const {
    return phase_ == Phase::login && !login_->answer_expected && !login_->asking;
}

bool Session::wants_server_bytes() const { return !server_closed_ && phase_ != Phase::closed; }

void Session::comes_from(policy::ClientAddress client) {
    setup_.client = client;
    facts_.client = std::move(client);
}

void Session::comes_wrongly(const std::string& wrong, std::string hint) {
    say(Log{LogLevel::warning, wrong + ": client=" + setup_.client.text});
    fatal({"08P01", "pgchaperone: " + wrong, "", std::move(hint)}, wrong);
}

void Session::handle(const ClientBytes& event) {
    if (phase_ == Phase::closed) return;
    if (client_poisoned_ || phase_ == Phase::cancel) return;
    client_spoke_ = true;
    from_client_.give(event.bytes);
    read_client();
}

void Session::handle(const ServerBytes& event) {
    if (phase_ == Phase::closed) return;
    from_server_.give(event.bytes);
    read_server();
    // The login may be over, or room has come into the ledger.
    read_client();
}

void Session::handle(const ClientClosed& event) {
    if ((client_closed_ && !event.broken) || phase_ == Phase::closed) return;
    client_closed_ = true;
    // Who cancels need not stay to see it done.
    if (phase_ == Phase::connecting && login_->cancelling && !event.broken) return;
    if (event.broken || phase_ == Phase::startup || phase_ == Phase::client_tls ||
        phase_ == Phase::finding || phase_ == Phase::checking || phase_ == Phase::connecting) {
        close(event.broken ? "the client's connection broke" : "the client left");
        return;
    }
    if (phase_ == Phase::cancel) return;
    read_client();
    if (phase_ == Phase::login) half_close();
}

// The server sees the end-of-file that we saw, behind everything that came before it, and answers
// what it still has to answer. What is left of a message cut in half is dropped: it was not judged.
void Session::half_close() {
    half_closed_ = true;
    from_client_.discard_all();
    say(ShutdownServer{});
}

void Session::handle(const ServerClosed& event) {
    if (server_closed_ || phase_ == Phase::closed) return;
    server_closed_ = true;
    const bool held = waiting_ == Waiting::hold && !server_said_fatal_ && !client_closed_;
    // Of what is said of it, no half message may stand in front.
    if (held && server_pass_bytes_ == 0) from_server_.discard_all();
    // What came of a message cut in half is the client's, unless it was not meant for it.
    if (ledger_.front_disposition() == Disposition::forward) {
        from_server_.forward(from_server_.available());
    }
    if (held) return server_left_hold();
    const bool expected = client_terminated_ || client_closed_ || phase_ == Phase::cancel;
    if (!expected && !event.broken && ledger_.idle() && !server_said_fatal_) {
        say(Log{LogLevel::warning, "the server closed the connection"});
    }
    close(event.broken         ? "the server's connection broke"
          : client_terminated_ ? "the client said good-bye"
          : client_closed_     ? "the client left"
                               : "the server closed the connection");
}

void Session::handle(const Deadline& event) {
    switch (event.kind) {
        case DeadlineKind::login:
            if (phase_ == Phase::relay || phase_ == Phase::closed) return;
            if (phase_ == Phase::startup && !login_->startup_seen) {
                // As PostgreSQL does: who has not even said what it wants is not answered.
                close("login timeout: no startup packet came in time", Ending::timeout);
            } else {
                fatal({"57014", "pgchaperone: canceling authentication due to timeout", "", ""},
                      login_waits_for_server() ? "login timeout: the server did not answer"
                                               : "login timeout");
            }
            return;
        case DeadlineKind::linger:
            close("the other side did not close the connection in time");
            return;
        case DeadlineKind::held:
        case DeadlineKind::notice:
        case DeadlineKind::keep_alive: hold_deadline(event.kind); return;
        case DeadlineKind::idle: idle_for_too_long(); return;
        case DeadlineKind::statement: statement_too_long(); return;
        case DeadlineKind::transaction: transaction_too_long(); return;
    }
}

bool Session::end_if_idle(bool newcomers) {
    if (phase_ == Phase::closed) return true;
    if (login_ && login_->cancelling) return false;  // it is over in a moment
    if (!served_ && !newcomers) return false;
    if (phase_ == Phase::relay) {
        // Its ticket stays, and whoever asked can come back for it.
        const bool held = waiting_ == Waiting::hold && hold_->step == Hold::Step::waiting &&
                          !hold_->in_block;
        const bool idle = ledger_.idle() && waiting_ == Waiting::nothing &&
                          transaction_status_ == 'I' && !pipeline_open_ && client_pass_bytes_ == 0;
        if (!idle && !held) return false;
    }
    end_now();
    return true;
}

void Session::end_now() {
    const bool logging_in = phase_ != Phase::relay;
    fatal({logging_in ? "57P03" : "57P01",
           logging_in ? "pgchaperone: the proxy is shutting down"
                      : "pgchaperone: terminating connection due to administrator command",
           logging_in ? "" : "The proxy is being shut down.", "Connect again."},
          "shut down");
}

}  // namespace pgchaperone::session
