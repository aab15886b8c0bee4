// What may run for so long and no longer.
//
//   statement    nothing that runs is owed before it           -> SetDeadline{statement}
//     answered in time                                           -> ClearDeadline{statement}
//     Deadline{statement} -> CancelServer -> 57014, in our words -> ServerCancelled
//   transaction  its first statement with a limit is sent        -> SetDeadline{transaction}
//     ReadyForQuery, no transaction is open                      -> ClearDeadline{transaction}
//     Deadline{transaction} -> FATAL 25P04, CancelServer, Terminate, Close
//
// A cancel that comes late would hit what runs next. So nothing that runs anything is sent behind a
// statement with a limit before that is answered, nor before the server has closed the connection
// on which it was asked to cancel, which it does after it has sent its signal. (A signal that finds
// the server waiting for a message is forgotten there.) A pipeline of such statements is
// answered one by one for that, by a Flush.

#include "proxy/session/time_limits.h"

#include "proxy/session/audit_record.h"
#include "proxy/session/refusal.h"
#include "proxy/session/session.h"

#include "protocol/codec.h"

#include <utility>

namespace pgchaperone::session {

namespace {

// When a statement that should have been cancelled still runs, it is tried again: a server that
// waits for a client's COPY data looks at no signal before some come.
constexpr std::chrono::milliseconds again_after{2000};

void take_stricter(policy::TimeLimit& limit, const policy::TimeLimit& other) {
    if (other && (!limit || other.after < limit.after)) limit = other;
}

}  // namespace

TimedPtr timed(const policy::Judgement& judgement, StatementKind kind, std::size_t index) {
    if (index >= judgement.decisions.size()) return nullptr;
    const policy::Decision& decision = judgement.decisions[index];
    if (!decision.statement_timeout && !decision.transaction_timeout) return nullptr;
    auto out = std::make_shared<Timed>();
    out->statement = decision.statement_timeout;
    out->transaction = decision.transaction_timeout;
    out->analysis = judgement.analysis;
    out->index = index;
    out->kind = kind;
    out->audit_detail = decision.audit_detail;
    return out;
}

TimedPtr timed(const policy::Judgement& judgement, StatementKind kind) {
    std::shared_ptr<Timed> out;
    for (std::size_t i = 0; i < judgement.decisions.size(); ++i) {
        const TimedPtr one = timed(judgement, kind, i);
        if (!one) continue;
        if (!out) {
            out = std::make_shared<Timed>(*one);
            continue;
        }
        if (one->statement && (!out->statement || one->statement.after < out->statement.after)) {
            out->index = i;
            out->audit_detail = one->audit_detail;
        }
        take_stricter(out->statement, one->statement);
        take_stricter(out->transaction, one->transaction);
    }
    return out;
}

// This message is being sent, and is the last of those with a limit. The server keeps the answers
// of the extended protocol to itself until it is asked for them, or has nothing else to do: what
// runs before it is asked for, since its own time begins there.
void Session::limit_time(const TimedPtr& timed, std::uint64_t sequence) {
    if (!timed) return;
    if (!clocks_) clocks_ = std::make_unique<Clocks>();
    Clocks& c = *clocks_;
    watch_time();
    if (timed->statement) {
        const Entry* const before = ledger_.running();
        if (before != nullptr && before->sequence < sequence) {
            send_to_server(protocol::encoded(protocol::Flush{}));
        }
        c.statement = timed;
        c.statement_sequence = sequence;
        // Of several statements in one Query the next may be hit, and what is over was too slow.
        if (!c.cancelling) c.expired.reset();
    }
    if (!timed->transaction) return;
    c.transaction_sequence = sequence;
    if (c.transaction && c.transaction->transaction.after <= timed->transaction.after) return;
    c.transaction = timed;
    commands_.push_back(SetDeadline{DeadlineKind::transaction, timed->transaction.after});
}

// After every event: sets or clears the deadline of the statement where that has changed anything.
void Session::watch_time() {
    if (!clocks_ || phase_ == Phase::closed) return;
    Clocks& c = *clocks_;
    if (c.statement) {
        const Entry* const now = ledger_.running();
        const bool over = now == nullptr || now->sequence > c.statement_sequence ||
                          (now->sequence == c.statement_sequence && now->errored);
        if (over) {
            c.statement.reset();
            if (std::exchange(c.running, false)) {
                commands_.push_back(ClearDeadline{DeadlineKind::statement});
            }
        } else if (now->sequence == c.statement_sequence && !c.running) {
            c.running = true;
            commands_.push_back(SetDeadline{DeadlineKind::statement, c.statement->statement.after});
        }
    }
    const bool settled = !c.statement && !c.cancelling && ledger_.idle();
    if (settled && waiting_ != Waiting::unit) c.expired.reset();
}

// Whether what runs something has to wait: see above.
bool Session::time_limited() const {
    return clocks_ && (clocks_->statement || clocks_->cancelling);
}

// The message at the front waits for that; false: there is nothing to wait for.
bool Session::wait_for_clock() {
    if (!clocks_) return false;
    watch_time();
    if (!time_limited() || ledger_.copy_in_open()) return false;
    waiting_ = Waiting::clock;
    if (!ledger_.idle()) send_to_server(protocol::encoded(protocol::Flush{}));
    return true;
}

void Session::clock_step() {
    watch_time();
    if (!time_limited()) waiting_ = Waiting::nothing;
}

void Session::statement_too_long() {
    watch_time();
    if (!clocks_ || !clocks_->running || clocks_->cancelling || phase_ != Phase::relay) return;
    Clocks& c = *clocks_;
    if (!c.expired) record_timeout(*c.statement, "statement timeout");
    c.expired = c.statement;
    if (cancel_key_.empty()) {
        return fatal({"57014", "pgchaperone: terminating connection due to statement timeout",
                      "Rule \"" + c.statement->statement.rule + "\" allows " +
                          limit_text(c.statement->statement.after) +
                          ", and the server gave no key by which a statement can be cancelled.",
                      ""},
                     "statement timeout");
    }
    c.cancelling = true;
    say(CancelServer{cancel_key_});
}

void Session::handle(const ServerCancelled&) {
    if (!clocks_ || !clocks_->cancelling || phase_ == Phase::closed) return;
    clocks_->cancelling = false;
    watch_time();
    if (clocks_->running) commands_.push_back(SetDeadline{DeadlineKind::statement, again_after});
    read_client();
}

bool Session::timed_out(std::string_view sqlstate) const {
    return clocks_ && clocks_->expired && sqlstate == "57014";
}

std::string Session::timeout_error() const {
    const policy::TimeLimit& limit = clocks_->expired->statement;
    return error_response({"57014", "pgchaperone: canceling statement due to statement timeout",
                           "Rule \"" + limit.rule + "\" allows " + limit_text(limit.after) + ".",
                           "Ask whoever runs pgchaperone if it has to take longer."},
                          "ERROR", settings_.client_encoding_is_utf8());
}

// ReadyForQuery, for this message, said that no transaction is open.
void Session::transaction_time_over(std::uint64_t sequence) {
    if (!clocks_ || !clocks_->transaction) return;
    if (sequence >= clocks_->transaction_sequence) {
        clocks_->transaction.reset();
        commands_.push_back(ClearDeadline{DeadlineKind::transaction});
    } else {
        // The next transaction has been begun already.
        commands_.push_back(
            SetDeadline{DeadlineKind::transaction, clocks_->transaction->transaction.after});
    }
}

void Session::transaction_too_long() {
    if (!clocks_ || !clocks_->transaction || phase_ != Phase::relay) return;
    Clocks& c = *clocks_;
    // Not in the middle of a message of the server's.
    const bool in_a_message = server_pass_bytes_ > 0 && server_pass_ == Fate::forward;
    if (!std::exchange(c.transaction_due, true)) {
        record_timeout(*c.transaction, "transaction timeout");
        // The server would go on with what it does until it has something to say.
        if (!ledger_.idle() && !cancel_key_.empty()) say(CancelServer{cancel_key_});
    }
    if (in_a_message) return;
    say_good_bye_to_server();
    fatal({"25P04", "pgchaperone: terminating connection due to transaction timeout",
           "Rule \"" + c.transaction->transaction.rule + "\" allows " +
               limit_text(c.transaction->transaction.after) + ". The transaction is rolled back.",
           "Connect again, and keep transactions short."},
          "transaction timeout");
}

// So that the server rolls back at once, and has nothing to complain of. Where it is in the middle
// of a message, the end of the connection has to do.
void Session::say_good_bye_to_server() {
    if (client_pass_bytes_ > 0 && client_pass_ == Fate::forward) return;
    send_to_server(protocol::encoded(protocol::Terminate{}));
}

void Session::record_timeout(const Timed& timed, std::string_view outcome) {
    const bool of_statement = outcome == "statement timeout";
    const policy::TimeLimit& limit = of_statement ? timed.statement : timed.transaction;
    census_.took_too_long(of_statement ? TimeLimitKind::statement : TimeLimitKind::transaction);
    policy::Judgement judgement;
    judgement.analysis = timed.analysis;
    judgement.decisions.resize(timed.index + 1);
    policy::Decision& decision = judgement.decisions[timed.index];
    decision.action = policy::Action::block;
    decision.rule = limit.rule;
    decision.audit_detail = timed.audit_detail;
    decision.refusal.message = std::string(outcome) + ": the rule allows " +
                               limit_text(limit.after);
    StoreAudit store;
    store.awaited = false;
    const policy::LexicalSettings& lexical = settings_.lexical();
    audit::Record record = make_record(facts_, settings_.application_name(), timed.kind,
                                       shown_text(judgement, timed.index, {}, lexical), lexical,
                                       judgement, timed.index);
    record.outcome = outcome;
    store.records.push_back(std::move(record));
    say(std::move(store));
    say(Log{LogLevel::warning,
            std::string(outcome) + " by rule \"" + limit.rule + "\": " + limit_text(limit.after)});
}

}  // namespace pgchaperone::session
