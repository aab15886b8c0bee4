#include "proxy/session/outcomes.h"

#include "proxy/session/audit_record.h"
#include "proxy/session/effects.h"

#include <boost/assert.hpp>

#include <algorithm>
#include <utility>

namespace pgchaperone::session {

namespace {

constexpr std::string_view committed = "committed";
constexpr std::string_view committed_in_part = "committed in part";
constexpr std::string_view rolled_back = "rolled back";
constexpr std::string_view prepared = "prepared";
constexpr std::string_view unknown = "unknown";

// The server's are far shorter.
constexpr std::size_t tag_bytes_max = 64;

audit::Record record_of(const Followed& statement, std::string_view outcome, audit::Done done) {
    audit::Record record;
    record.number = statement.number;
    record.protocol = protocol_name(statement.kind);
    record.decision = policy::action_name(statement.decision);
    record.observed = statement.observed;
    record.rule = statement.rule;
    record.command = statement.command;
    record.fingerprint = statement.fingerprint;
    record.outcome = outcome;
    record.done = std::move(done);
    return record;
}

std::string_view without_terminator(std::string_view tag) { return tag.substr(0, tag.find('\0')); }

}  // namespace

void Outcomes::sent(Followed statement, std::uint64_t sequence) {
    BOOST_ASSERT(sent_.empty() || sent_.back().sequence <= sequence);
    sent_.push_back({std::move(statement), sequence, now_});
}

void Outcomes::not_run(Followed statement, std::string_view sqlstate) {
    audit::Done what;
    what.sqlstate = sqlstate;
    news_.push_back(record_of(statement, "not run", std::move(what)));
}

// A reply to this message has come: what was sent before it and is not answered was skipped.
void Outcomes::see(std::uint64_t sequence) {
    if (answered_ != sequence) {
        answered_ = sequence;
        answered_statements_ = 0;
    }
    while (!sent_.empty() && sent_.front().sequence < sequence) {
        not_run(std::move(sent_.front().statement), last_error_);
        sent_.pop_front();
    }
}

// The statement whose reply has come, if it is followed.
std::optional<Outcomes::Sent> Outcomes::take_next(std::uint64_t sequence) {
    see(sequence);
    const std::size_t index = answered_statements_++;
    if (sent_.empty()) return std::nullopt;
    const Sent& next = sent_.front();
    if (next.sequence != sequence || next.statement.index != index) return std::nullopt;
    Sent out = std::move(sent_.front());
    sent_.pop_front();
    return out;
}

void Outcomes::done(Sent one, std::string_view outcome, audit::Done done) {
    done.duration = std::chrono::duration_cast<std::chrono::microseconds>(now_ - one.at);
    const bool failed = !done.sqlstate.empty();
    audit::Record record = record_of(one.statement, outcome, std::move(done));
    if (failed) {
        news_.push_back(std::move(record));
        return;
    }
    ended_.push_back({std::move(record), one.statement.commits_itself});
    if (ended_.size() > ended_max) tell_of_block();
}

void Outcomes::completed(std::uint64_t sequence, std::string_view tag, bool ours) {
    tag = without_terminator(tag);
    auto one = take_next(sequence);
    // Of one string with the ROLLBACK before it: that has ended its transaction.
    const bool begins = tag == "BEGIN" || tag == "START TRANSACTION";
    if (begins && open() && rollback_ == Rollback::clients) transaction_ended(rolled_back);
    if (one) {
        audit::Done what;
        what.tag = tag.substr(0, tag_bytes_max);
        what.rows = rows_of_tag(tag);
        done(std::move(*one), "completed", std::move(what));
    }
    if (!open()) return;
    if (tag == "COMMIT") {
        const bool in_part = in_part_ || rollback_ == Rollback::clients;
        transaction_ended(in_part ? committed_in_part : committed);
    } else if (tag == "PREPARE TRANSACTION") {
        transaction_ended(prepared);
    } else if (tag == "ROLLBACK") {
        rollback_ = ours ? Rollback::ours : Rollback::clients;
        before_rollback_ = ended_.size();
        error_ = false;
    }
}

void Outcomes::suspended(std::uint64_t sequence) {
    auto one = take_next(sequence);
    if (!one) return;
    audit::Done what;
    what.rows = one->statement.row_limit;
    done(std::move(*one), "suspended", std::move(what));
}

void Outcomes::failed(std::uint64_t sequence, std::string_view sqlstate) {
    auto one = take_next(sequence);
    last_error_ = sqlstate.empty() ? std::string_view("XX000") : sqlstate;
    if (one) {
        audit::Done what;
        what.sqlstate = last_error_;
        done(std::move(*one), "failed", std::move(what));
    }
    while (!sent_.empty() && sent_.front().sequence == sequence) {
        not_run(std::move(sent_.front().statement), last_error_);
        sent_.pop_front();
    }
    error_ = error_ || open();
}

void Outcomes::ready(std::uint64_t sequence, char status, bool held) {
    see(sequence);
    // A FunctionCall has no tag.
    while (!sent_.empty() && sent_.front().sequence == sequence) {
        Sent one = std::move(sent_.front());
        sent_.pop_front();
        done(std::move(one), "completed", {});
    }
    const bool error = std::exchange(error_, false);
    if (!open()) return;
    if (status == 'I') {
        if (rollback_ != Rollback::none) {
            std::vector<Ended> behind(
                std::make_move_iterator(ended_.begin() +
                                        static_cast<std::ptrdiff_t>(before_rollback_)),
                std::make_move_iterator(ended_.end()));
            ended_.resize(before_rollback_);
            transaction_ended(rolled_back);
            ended_ = std::move(behind);
        }
        return transaction_ended(error ? rolled_back : committed);
    }
    in_part_ = in_part_ || rollback_ == Rollback::clients;
    rollback_ = Rollback::none;
    if (!held) tell_of_block();
}

void Outcomes::lost(bool nothing_owed) {
    for (Sent& one : sent_) news_.push_back(record_of(one.statement, unknown, {}));
    sent_.clear();
    if (open()) transaction_ended(nothing_owed ? rolled_back : unknown);
}

void Outcomes::transaction_ended(std::string_view how) {
    for (Ended& one : ended_) {
        // What it did may stand all the same.
        const bool doubtful = one.commits_itself && how == rolled_back;
        one.record.done->ended = doubtful ? unknown : how;
        one.record.transaction = transaction_;
        ++transaction_statements_;
        news_.push_back(std::move(one.record));
    }
    ended_.clear();
    if (transaction_ != 0) {
        audit::Record record;
        record.transaction = transaction_;
        record.transaction_statements = transaction_statements_;
        record.outcome = how;
        news_.push_back(std::move(record));
    }
    transaction_ = 0;
    transaction_statements_ = 0;
    rollback_ = Rollback::none;
    before_rollback_ = 0;
    in_part_ = false;
}

void Outcomes::tell_of_block() {
    if (ended_.empty()) return;
    if (transaction_ == 0) transaction_ = ++last_transaction_;
    for (Ended& one : ended_) {
        one.record.transaction = transaction_;
        ++transaction_statements_;
        news_.push_back(std::move(one.record));
    }
    ended_.clear();
    before_rollback_ = 0;
}

std::vector<audit::Record> Outcomes::take_news() { return std::exchange(news_, {}); }

}  // namespace pgchaperone::session
