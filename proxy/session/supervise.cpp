// Supervised statements: nothing commits unless its effects are within limits. See docs/adr/0004
// and DESIGN.md section 5.
//
// Simple protocol: a Query (or FunctionCall) is a Unit. Nothing else of the client's is looked at
// until it is done.
//
//   start -> [BEGIN] [reading] statement [SET CONSTRAINTS] [reading] -> ran -> next piece ...
//     all within limits -> COMMIT -> completion and ReadyForQuery to the client
//     else              -> ROLLBACK (or, in the client's own block, a statement that fails)
//
// Extended protocol: messages pass as they come, a reading is sent behind each Execute that needs
// one, its completion waits for that, and the group's Sync waits (the gate) until all of it is
// judged.
//
//   Execute -> counted -> within limits -> completion
//                      -> over          -> our error; the rest of the group is hidden
//   Sync    -> idle -> [SET CONSTRAINTS, reading] -> Sync, or a statement that fails and Sync
//
// Everything waits for replies by one means: nothing is owed any more (ledger_.idle()).

#include "proxy/session/audit_record.h"
#include "proxy/session/hold.h"
#include "proxy/session/refusal.h"
#include "proxy/session/session.h"
#include "proxy/session/supervise_sql.h"
#include "proxy/session/supervision.h"

#include "protocol/codec.h"
#include "protocol/head.h"
#include "protocol/messages.h"

#include <algorithm>
#include <array>
#include <utility>

namespace pgchaperone::session {

namespace {

using policy::TransactionControl;
using Step = Supervision::Step;

constexpr std::string_view read_only_violation = "25006";  // read_only_sql_transaction

// A cancel request may meet our ROLLBACK; it is sent again then.
constexpr unsigned undo_attempts_max = 100;
// What is kept back of a unit's results while it may have to be taken back and run again.
constexpr std::size_t kept_bytes_max = 256 * 1024;

bool supervised(const policy::Decision& decision) {
    return decision.action == policy::Action::supervise && !decision.observed &&
           decision.supervise != nullptr;
}

bool opaque(const policy::StatementFacts& facts) { return facts.opaque.set; }

// CALL and DO run procedures that may COMMIT, if they are not inside a block.
bool may_commit(const policy::StatementFacts& facts) {
    return facts.command == "CALL" || facts.command == "DO";
}

// Outside of a block the server refuses these; inside one of ours it would not.
bool needs_clients_block(const policy::StatementFacts& facts) {
    return facts.command == "LOCK TABLE" ||
           (facts.command == "DECLARE CURSOR" && !facts.holds_cursor);
}

// The command tag of a CommandComplete; empty where the message is another one.
std::string_view tag_in(std::string_view message) {
    if (!message.starts_with(static_cast<char>(protocol::BackendTag::CommandComplete))) return {};
    return message.substr(protocol::head_size);
}

// What the server says of it outside of a block.
std::string needs_block(const Supervision::Piece& piece) {
    std::string what = piece.command;
    if (piece.control == TransactionControl::savepoint && what == "ROLLBACK") what += " TO";
    if (piece.control == TransactionControl::savepoint && what != "SAVEPOINT") what += " SAVEPOINT";
    if (piece.chains) what += " AND CHAIN";
    return what + " can only be used in transaction blocks";
}

// By a COMMIT or ROLLBACK of ours.
bool ends_block(std::string_view tag) {
    return tag.starts_with(commit_sql) || tag.starts_with(rollback_sql);
}

policy::Refusal not_supervisable(const policy::Decision& decision, std::string_view command,
                                 std::string_view why) {
    policy::Refusal refusal;
    refusal.message = "pgchaperone: " + std::string(command.empty() ? "this statement" : command) +
                      " " + std::string(why) + ", so it is refused";
    refusal.detail = "The rule \"" + decision.rule +
                     "\" lets it run only in a transaction whose effects are counted before it "
                     "commits.";
    refusal.hint =
        "If it may run without that, an earlier rule has to allow it: ask whoever runs "
        "pgchaperone.";
    return refusal;
}

// What can change no row, nor fire anything: SET TRANSACTION also has to come before any query, and
// so before any reading, and LOCK TABLE before the snapshot of a REPEATABLE READ.
bool changes_nothing(const policy::StatementFacts& facts) {
    static constexpr std::array<std::string_view, 10> commands{
        "CLOSE CURSOR", "DEALLOCATE", "DEALLOCATE ALL", "LISTEN",  "LOCK TABLE", "NOTIFY",
        "RESET",        "SET",        "SHOW",           "UNLISTEN"};
    return facts.commands.size() == 1 && !opaque(facts) &&
           std::binary_search(commands.begin(), commands.end(), facts.command);
}

CountedPtr counted(const policy::Judgement& judgement, std::size_t index,
                   std::uint64_t number = 0) {
    if (index >= judgement.decisions.size() || !judgement.analysis ||
        index >= judgement.analysis->statements.size()) {
        return nullptr;
    }
    const policy::Decision& decision = judgement.decisions[index];
    if (!supervised(decision)) return nullptr;
    const policy::StatementFacts& facts = judgement.analysis->statements[index];
    if (changes_nothing(facts) || facts.controls_transaction) return nullptr;
    auto out = std::make_shared<Counted>();
    out->analysis = judgement.analysis;
    out->facts = &facts;
    out->limits = decision.supervise;
    out->rule = decision.rule;
    out->audit_detail = decision.audit_detail;
    out->number = number;
    const policy::SuperviseLimits& limits = *decision.supervise;
    out->total = limits.effects == policy::SuperviseLimits::Effects::total ||
                 limits.max_fraction.has_value() ||
                 limits.catalog_changes == policy::Permission::refuse ||
                 limits.exclusive_locks == policy::Permission::refuse ||
                 (!tag_tells(*out->facts) && !only_reads(*out->facts));
    out->reads_only = only_reads(*out->facts);
    return out;
}

std::string_view reading_sql(const Counted& terms) {
    return terms.limits->exclusive_locks == policy::Permission::refuse ? effects_and_locks_sql
                                                                       : effects_sql;
}

SupervisionEnd end_of_error(bool timed_out) {
    return timed_out ? SupervisionEnd::timeout : SupervisionEnd::failed;
}

}  // namespace

// What of the policy's wish can't be had is refused before anything runs.
void Session::refuse_what_cannot_be_supervised() {
    policy::Judgement& judgement = pending_.judgement;
    if (!judgement.analysis) return;
    const std::vector<policy::StatementFacts>& statements = judgement.analysis->statements;
    for (std::size_t i = 0; i < judgement.decisions.size() && i < statements.size(); ++i) {
        policy::Decision& decision = judgement.decisions[i];
        if (!supervised(decision)) continue;
        const policy::StatementFacts& facts = statements[i];
        std::string_view why;
        if (facts.unparsable.set) {
            why = "can't be read, and what can't be read can't be supervised";
        } else if (!facts.runs_in_transaction) {
            why = "can't run inside a transaction, so its effects can't be counted in one";
        } else if (facts.holds_cursor && opaque(facts)) {
            why = "runs its query as the transaction commits, when its effects are counted already";
        } else {
            continue;
        }
        decision.action = policy::Action::block;
        decision.refusal = not_supervisable(decision, facts.command, why);
        decision.supervise.reset();
    }
}

// Whether the Execute that waits is to be counted.
bool Session::counts(const policy::Judgement& judgement) {
    return std::any_of(judgement.decisions.begin(), judgement.decisions.end(), supervised) &&
           judgement.analysis && judgement.analysis->statements.size() == 1 &&
           counted(judgement, 0) != nullptr;
}

Supervision& Session::supervision() {
    if (!supervision_) {
        supervision_ = std::make_unique<Supervision>();
        supervision_->now = judged_at_;
    }
    return *supervision_;
}

// --- What is injected

void Session::inject_query(std::string_view sql, Role role, CountedPtr terms) {
    send_to_server(protocol::encoded(protocol::Query{sql}));
    std::unique_ptr<Extra> extra;
    if (terms) {
        extra = std::make_unique<Extra>();
        extra->counted = std::move(terms);
    }
    ledger_.sent(Owed::query, Disposition::swallow, std::move(extra), role);
}

// As messages of the extended protocol, which take their place in whatever is under way: an error
// makes the server skip all that follows until a Sync.
void Session::inject_extended(std::string_view sql, Role role, CountedPtr terms) {
    const auto send = [this](const auto& message, Owed owed, Role as = Role::ours) {
        send_to_server(protocol::encoded(message));
        ledger_.sent(owed, Disposition::swallow, nullptr, as);
    };
    send(protocol::Close{'S', injected_name}, Owed::close);
    send(protocol::Parse{injected_name, sql, {}}, Owed::parse);
    send(protocol::Bind{injected_name, injected_name, {}, {}, {}}, Owed::bind);
    send_to_server(protocol::encoded(protocol::Execute{injected_name, 0}));
    std::unique_ptr<Extra> extra;
    if (terms) {
        extra = std::make_unique<Extra>();
        extra->counted = std::move(terms);
    }
    ledger_.sent(Owed::execute, Disposition::swallow, std::move(extra), role);
    send(protocol::Close{'P', injected_name}, Owed::close);
    send(protocol::Close{'S', injected_name}, Owed::close);
}

void Session::inject(std::string_view sql, Role role, CountedPtr terms) {
    // A walsender knows no extended protocol.
    if (facts_.replication) {
        inject_query(sql, role, std::move(terms));
    } else {
        inject_extended(sql, role, std::move(terms));
    }
}

void Session::limit_lock_waits(const Counted& terms) {
    if (!terms.limits->lock_timeout) return;
    const std::string ms = std::to_string(terms.limits->lock_timeout->count());
    // A shorter one of the session's own stays.
    inject("SELECT pg_catalog.set_config('lock_timeout', '" + ms +
               "', true) FROM pg_catalog.pg_settings s"
               " WHERE s.name OPERATOR(pg_catalog.=) 'lock_timeout'::pg_catalog.text"
               " AND (s.setting::pg_catalog.int8 OPERATOR(pg_catalog.=) 0::pg_catalog.int8"
               " OR s.setting::pg_catalog.int8 OPERATOR(pg_catalog.>) " +
               ms + "::pg_catalog.int8)",
           Role::ours, nullptr);
}

// --- Readings

// Whether what happened since the last reading is nobody's to answer for, so that a new one comes
// first.
bool Session::needs_first_reading() const {
    const Supervision& s = *supervision_;
    return !s.fresh && !s.unjudged && !s.transaction_sticky;
}

// In front of a statement that is read behind.
void Session::read_before(const CountedPtr& terms) {
    if (needs_first_reading()) {
        inject(reading_sql(*terms), Role::reading, nullptr);
    } else if (!supervision_->fresh && terms->facts->command == "TRUNCATE TABLE") {
        // It sets its table's counters back: what is unread is judged first.
        inject(reading_sql(*terms), Role::reading, terms);
    }
}

// A reading has come to its end. `terms`: of the statement that it is behind; null: a first one.
void Session::reading_done(const CountedPtr& terms) {
    Supervision& s = *supervision_;
    Reading reading = std::exchange(s.incoming, {});
    if (!reading.usable()) {
        s.unusable = true;
        s.counters_off = !reading.counters_on();
    }
    if (terms && terms->lite) return lite_reading_done(terms, reading.wrote());
    if (terms) {
        const Effects news = difference(s.before ? &*s.before : nullptr, reading, s.first_oid);
        if (s.effects) {
            s.effects->add(news);
        } else {
            s.effects = news;
        }
    }
    if (s.first_oid == 0 && !terms) s.first_oid = reading.highest_oid;
    s.before = std::move(reading);
    // A statement that waits may be behind a group whose readings are still to come.
    const bool tried = waiting_ == Waiting::hold && terms == hold_->trial;
    if (terms && waiting_ != Waiting::unit && !tried && !s.group.refused) {
        const Effects effects = at_least(std::exchange(s.effects, std::nullopt).value_or(Effects{}),
                                         effects_of_tag(s.group.tag, *terms->facts),
                                         s.before ? &*s.before : nullptr);
        if (auto refusal = verdict(effects, terms, terms->facts)) {
            exceed_group(std::move(*refusal), effects, terms);
        } else if (!s.group.withheld.empty()) {
            send_to_client(std::exchange(s.group.withheld, {}));
        }
    }
}

// A statement that only reads, by its text: did the transaction write anything?
void Session::lite_reading_done(const CountedPtr& terms, bool wrote) {
    Supervision& s = *supervision_;
    if (waiting_ == Waiting::unit && !group_supervised()) {
        s.effects = Effects{};
        s.unit.read_lite = wrote;  // then it has to be read what
        return;
    }
    if (s.group.refused) return;
    if (terms->planning) {
        if (!wrote) return;
        policy::Refusal refusal;
        refusal.message = "pgchaperone: planning this " + terms->facts->command +
                          " changed something; rolled back";
        refusal.detail =
            "A function that is called IMMUTABLE, or a domain's CHECK, ran before the statement "
            "did.";
        refusal.hint = "Ask whoever runs the database what it does.";
        census_.end(SupervisionEnd::exceeded);
        record_effects({}, *terms, &refusal);
        refuse_group(std::move(refusal));
        return;
    }
    if (!wrote && !s.unusable) {
        census_.end(SupervisionEnd::within_limits);
        send_to_client(std::exchange(s.group.withheld, {}));
        return;
    }
    auto all = std::make_shared<Counted>(*terms);
    all->lite = false;
    s.group.total = true;
    s.group.last = all;
    s.transaction_terms = all;
    read_execute(all);
    send_to_server(protocol::encoded(protocol::Flush{}));
}

// Judges what was counted and keeps count.
std::optional<policy::Refusal> Session::verdict(const Effects& effects, const CountedPtr& terms,
                                                const policy::StatementFacts* facts) {
    Supervision& s = *supervision_;
    std::optional<policy::Refusal> refusal;
    const policy::SuperviseLimits& limits = *terms->limits;
    Tally tally;
    tally.transaction = s.transaction_rows;
    if (limits.max_rows_per_session) {
        const auto since = s.now - limits.max_rows_per_session->window;
        while (!s.window.empty() && s.window.front().first < since) s.window.pop_front();
        for (const auto& [when, rows] : s.window) tally.session += rows;
    }
    s.uncounted = std::exchange(s.unusable, false);
    if (s.uncounted) {
        refusal.emplace();
        refusal->message =
            "pgchaperone: what this statement did could not be counted, so it was rolled back";
        refusal
            ->detail = s.counters_off
                           ? "The server's track_counts is off, so it does not count changed rows."
                           : "The server's answer about changed rows could not be read.";
        refusal->hint = "Ask whoever runs the database to switch track_counts on.";
    } else {
        if (limits.approved && s.approved_ticket != limits.approved->ticket) {
            s.approved_ticket = limits.approved->ticket;
            s.approved_effects = {};
        }
        if (limits.approved) s.approved_effects.add(effects);
        refusal = exceeded(limits.approved ? s.approved_effects : effects, limits, tally, facts,
                           terms->rule);
    }
    const std::uint64_t rows = effects.changed();
    // What a cursor did before a savepoint is not undone with what was refused behind it.
    if (s.transaction_sticky && refusal) {
        s.before = s.accepted;
    } else if (s.transaction_sticky) {
        s.accepted = s.before;
    }
    // What a second person has approved of counts for no limit.
    if (!refusal && !limits.approved) {
        s.transaction_rows += rows;
        if (limits.max_rows_per_session && rows > 0) {
            constexpr std::size_t steps_max = 10'000;
            if (s.window.size() >= steps_max) {
                // The oldest two become one, at the later time: on the safe side.
                s.window[1].second += s.window.front().second;
                s.window.pop_front();
            }
            s.window.emplace_back(s.now, rows);
        }
    }
    // At the end of a transaction whatever was within limits has been counted.
    if (refusal || facts != nullptr) {
        census_.end(refusal ? SupervisionEnd::exceeded : SupervisionEnd::within_limits);
    }
    record_effects(effects, *terms, refusal ? &*refusal : nullptr);
    return refusal;
}

void Session::record_effects(const Effects& effects, const Counted& terms,
                             const policy::Refusal* refusal) {
    if (refusal == nullptr && effects.tables.empty()) return;
    policy::Judgement judgement;
    judgement.analysis = terms.analysis;
    const std::size_t index = static_cast<std::size_t>(terms.facts -
                                                       terms.analysis->statements.data());
    judgement.decisions.resize(index + 1);
    policy::Decision& decision = judgement.decisions[index];
    decision.action = policy::Action::supervise;
    decision.rule = terms.rule;
    decision.audit_detail = terms.audit_detail;
    if (refusal != nullptr) decision.refusal = *refusal;
    StoreAudit store;
    store.awaited = false;
    const policy::LexicalSettings& lexical = settings_.lexical();
    audit::Record record = make_record(facts_, settings_.application_name(), StatementKind::query,
                                       shown_text(judgement, index, {}, lexical), lexical,
                                       judgement, index);
    record.number = terms.number;
    record.protocol.clear();
    record.outcome = refusal != nullptr ? "rolled back" : "within limits";
    for (const TableEffect& table : effects.tables) {
        record.effects.push_back({table.name(), table.inserted, table.updated, table.deleted});
    }
    store.records.push_back(std::move(record));
    say(std::move(store));
}

// The client's transaction, or ours, ended with the reply to this message.
void Session::transaction_over(std::uint64_t sequence) {
    if (!supervision_ || supervision_->since > sequence) return;
    forget_transaction();
}

// What comes next belongs to another transaction, and no reading of this one says anything of it.
void Session::forget_transaction() {
    if (!supervision_) return;
    Supervision& s = *supervision_;
    s.transaction_rows = 0;
    s.transaction_terms.reset();
    s.transaction_sticky = false;
    s.before.reset();
    s.accepted.reset();
    s.first_oid = 0;
    s.fresh = false;
    s.unjudged = false;
}

// Something of the client's is sent to the server that is not read behind.
void Session::effects_may_follow() {
    if (supervision_) supervision_->fresh = false;
}

// The client has what was deferred fired itself: that is still to be judged.
void Session::deferred_may_fire(const policy::Analysis* analysis) {
    if (!supervision_ || !supervision_->before || analysis == nullptr) return;
    const bool fires = std::any_of(
        analysis->statements.begin(), analysis->statements.end(),
        [](const policy::StatementFacts& facts) { return facts.command == "SET CONSTRAINTS"; });
    supervision_->unjudged = supervision_->unjudged || fires;
}

// --- Units: the simple protocol

// Whether the Query that waits has to be run as a unit.
bool Session::needs_unit() const {
    const policy::Judgement& judgement = pending_.judgement;
    if (supervision_ && supervision_->folded && judgement.analysis) return true;
    if (asks_chaperone(judgement)) return true;
    for (std::size_t i = 0; i < judgement.decisions.size(); ++i) {
        if (counted(judgement, i)) return true;
    }
    if (!supervision_ || !supervision_->transaction_terms || !judgement.analysis) return false;
    return std::any_of(judgement.analysis->statements.begin(), judgement.analysis->statements.end(),
                       [](const policy::StatementFacts& facts) {
                           return facts.transaction_control == TransactionControl::commit ||
                                  facts.transaction_control == TransactionControl::prepare;
                       });
}

void Session::start_unit() {
    Supervision& s = supervision();
    s.unit = {};
    s.gate = Supervision::Gate::none;
    s.unit.message_bytes = pending_.total;
    s.unit.read_terms = std::exchange(s.folded, nullptr);
    s.unit.read_total = s.unit.read_terms != nullptr;
    if (s.group.folded) s.group = {};  // its block goes on as the unit's
    s.fresh = false;                   // others may have made tables since
    s.injected_error.clear();
    s.effects.reset();
    s.unusable = false;
    s.unit_analysis = pending_.judgement.analysis;
    const auto& statements = s.unit_analysis->statements;
    s.unit.keeps = pending_.kind == StatementKind::query && predicted_status_ == 'I' &&
                   !pipeline_open_ && holds_when_exceeding(pending_.judgement) &&
                   std::none_of(
                       statements.begin(), statements.end(),
                       [](const policy::StatementFacts& facts) { return facts.copies_in; });
    const bool whole = (statements.size() <= 1 && !asks_chaperone(pending_.judgement) &&
                        !s.unit.keeps) ||
                       pending_.kind == StatementKind::function_call;
    const std::string text = whole ? std::string() : pending_text();
    const bool utf8 = settings_.client_encoding_is_utf8();
    std::size_t counted_bytes = 0;
    std::size_t counted_characters = 0;
    for (std::size_t i = 0; i < statements.size(); ++i) {
        const policy::StatementFacts& facts = statements[i];
        Supervision::Piece piece;
        if (s.unit.keeps && statements.size() == 1) {
            piece.text = text;
        } else if (!whole) {
            const std::size_t start = std::min<std::size_t>(facts.location, text.size());
            if (start > counted_bytes) {
                counted_characters += characters(
                    std::string_view(text).substr(counted_bytes, start - counted_bytes), utf8);
                counted_bytes = start;
            }
            piece.text = text.substr(std::min<std::size_t>(facts.location, text.size()),
                                     facts.length);
            piece.offset = counted_characters;
        }
        piece.number = number_of(i);
        piece.counted = counted(pending_.judgement, i, piece.number);
        piece.timed = timed(pending_.judgement, pending_.kind, i);
        piece.call = facts.chaperone;
        for (Followed& one : followed_) {
            if (one.index != i) continue;
            piece.followed = std::move(one);
            piece.followed->index = 0;  // of a Query of its own
            break;
        }
        piece.command = facts.command;
        piece.copies_in = facts.copies_in;
        piece.changes_settings = facts.may_change_lexical_settings;
        piece.function_call = pending_.kind == StatementKind::function_call;
        if (facts.commands.size() <= 1) {
            piece.control = facts.transaction_control;
            piece.chains = facts.chains;
        }
        if (piece.control != TransactionControl::none) piece.counted.reset();
        if (piece.counted) s.latest = piece.counted;
        if (piece.counted && statements.size() == 1 && needs_clients_block(facts) &&
            transaction_status_ == 'I' && ledger_.idle()) {
            piece.counted.reset();  // the server refuses it, in its own words
        }
        s.unit.pieces.push_back(std::move(piece));
    }
    followed_.clear();
    if (s.unit.pieces.empty()) s.unit.pieces.emplace_back();  // an empty Query is answered too
    forget_unnamed();
    if (!whole && !s.unit.keeps) {
        from_client_.discard(pending_.total);
        s.unit.message_bytes = 0;
    }
    waiting_ = Waiting::unit;
    if (!ledger_.idle()) send_to_server(protocol::encoded(protocol::Flush{}));
    supervise();
}

// Goes on with whatever waits for replies, if they have all come.
void Session::supervise() {
    if (phase_ != Phase::relay || client_pass_bytes_ > 0 || server_said_fatal_) return;
    // What we say ourselves must not come in the middle of a message of the server's.
    if (server_pass_bytes_ > 0 && server_pass_ == Fate::forward) return;
    if (waiting_ == Waiting::gate) return gate_step();
    if (waiting_ == Waiting::hold) return hold_step();
    if (waiting_ == Waiting::exceeded) return exceeded_group_step();
    if (waiting_ != Waiting::unit) return;
    // An error in what was injected makes the server skip all that follows.
    if (!ledger_.idle() && !ledger_.skipping()) return;
    unit_step();
}

void Session::unit_step() {
    Supervision& s = *supervision_;
    Supervision::Unit& unit = s.unit;
    // Nothing is sent that a cancel on its way could hit. Its end brings us back here.
    if (clocks_ && clocks_->cancelling) return;
    if (ledger_.skipping()) {
        if (unit.step == Step::start) {
            // An error before it, in the extended protocol: the server would throw it away.
            if (unit.message_bytes > 0) pass(unit.message_bytes, Fate::discard);
            follow_unit_no_more();
            unit = {};
            waiting_ = Waiting::nothing;
            return;
        }
        // The next thing that the server looks at is a Sync.
        unit.step = Step::resynced;
        send_to_server(protocol::encoded(protocol::Sync{}));
        ledger_.sent(Owed::sync, Disposition::swallow, nullptr, Role::ours);
        return;
    }
    switch (unit.step) {
        case Step::start:
            // A BEGIN or COMMIT of the extended protocol before it may not have been followed by a
            // Sync: it was answered, so it did what it says.
            if (!ledger_.empty()) {
                // Only Syncs that the server may have taken for a COPY's: the next answer tells.
                inject_query({}, Role::ours, nullptr);
                return;
            }
            transaction_status_ = predicted_status_;
            return next_piece();
        case Step::opened:
            if (!facts_.replication) {
                unit.ours = std::exchange(unit.opening, false);
                transaction_status_ = 'T';
            }
            return next_piece();
        case Step::resynced:
            if (std::exchange(unit.opening, false)) unit.ours = transaction_status_ != 'I';
            return fail_unit_by_server();
        case Step::identified: return ask_for_piece();
        case Step::asked:
            if (s.answer) piece_answered();
            return;
        case Step::ran: return piece_ran();
        case Step::gate: {
            // A COMMIT that fails ends the block.
            if (!s.injected_error.empty()) {
                unit.ours = true;
                return fail_unit_by_server();
            }
            const Effects effects = std::exchange(s.effects, std::nullopt).value_or(Effects{});
            unit.effects.add(effects);
            if (auto refusal = verdict(effects, unit.gate_terms, nullptr)) {
                unit.ours = true;
                return exceed_unit(std::move(*refusal), unit.gate_terms);
            }
            unit.chained = unit.pieces[unit.at].chains && !(s.before && s.before->read_only);
            return run_control();
        }
        case Step::ended:
            if (!s.injected_error.empty() || transaction_status_ != 'I') {
                return fail_unit_by_server();
            }
            unit.ours = false;
            unit.read_total = false;
            unit.read_terms.reset();
            return run_control();
        case Step::controlled: {
            if (unit.failed) return end_failed_unit();
            if (std::exchange(unit.chained, false)) {
                inject_query(read_write_sql, Role::ours, nullptr);
                return;
            }
            const Supervision::Piece& piece = unit.pieces[unit.at];
            show_kept();  // what is committed can't be run again
            if (piece.control != TransactionControl::savepoint) {
                unit.ours = false;
                if (piece.control != TransactionControl::begin) {
                    transaction_over(ledger_.last_sequence());
                }
            }
            release_completion();
            ++unit.at;
            return next_piece();
        }
        case Step::last_gate: {
            if (!s.injected_error.empty()) return fail_unit_by_server();
            const Effects effects = std::exchange(s.effects, std::nullopt).value_or(Effects{});
            unit.effects.add(effects);
            if (auto refusal = verdict(effects, unit.gate_terms, nullptr)) {
                return exceed_unit(std::move(*refusal), unit.gate_terms);
            }
            return commit_unit();
        }
        case Step::committed:
            if (!s.injected_error.empty() || transaction_status_ != 'I') {
                return fail_unit_by_server();
            }
            unit.ours = false;
            release_completion();
            return end_unit();
        case Step::undone: {
            const char wanted = unit.ours ? 'I' : 'E';
            const std::string error = std::exchange(s.injected_error, {});
            if (!error.empty() && !std::exchange(unit.failed, true)) {
                // Our COMMIT at a Sync: the client thinks that it was done.
                claimed_failed(error_summary(error));
                send_to_client(error);
            }
            if (transaction_status_ != wanted && ++unit.attempts < undo_attempts_max) {
                return undo_unit();
            }
            if (transaction_status_ != wanted) {
                fatal({"XX000", "pgchaperone: a transaction could not be rolled back",
                       "The connection is closed, which rolls it back.", ""},
                      "a transaction could not be rolled back");
                return;
            }
            unit.ours = false;
            return end_unit();
        }
        case Step::exceeding: return exceeded_unit_identified();
        case Step::retreated: return exceeded_unit_retreated();
        case Step::ticketed: return;
    }
}

void Session::next_piece() {
    Supervision& s = *supervision_;
    Supervision::Unit& unit = s.unit;
    if (unit.at == unit.pieces.size()) {
        if (!unit.ours) return end_unit();
        if (unit.read_total && !unit.settled) {
            unit.step = Step::last_gate;
            return read_gate();
        }
        return commit_unit();
    }
    const Supervision::Piece& piece = unit.pieces[unit.at];
    if (piece.control == TransactionControl::none ||
        piece.control == TransactionControl::finish_prepared) {
        return run_piece();
    }
    if (unit.read_terms && !unit.ours && transaction_status_ == 'I') {
        // It ends an implicit transaction of the extended protocol, which our own Queries would end
        // as well: they need a block.
        unit.step = Step::opened;
        unit.opening = true;
        inject_extended(begin_sql, Role::ours, nullptr);
        send_to_server(protocol::encoded(protocol::Flush{}));
        return;
    }
    // Of several statements the server would prepare the implicit transaction, with a warning.
    const bool prepares = piece.control == TransactionControl::prepare && unit.pieces.size() > 1;
    if (unit.ours && (piece.control == TransactionControl::savepoint || piece.chains || prepares)) {
        // To the client there is no block. The server's own words for that.
        policy::Refusal refusal;
        refusal.sqlstate = "25P01";
        refusal.message = needs_block(piece);
        return fail_unit(std::move(refusal));
    }
    const bool read = unit.ours || unit.read_terms != nullptr
                          ? unit.read_total && !unit.settled
                          : s.transaction_terms != nullptr && transaction_status_ == 'T';
    if (piece.commits() && read) {
        unit.step = Step::gate;
        return read_gate();
    }
    return run_control();
}

// Fires what is deferred and reads what that did.
void Session::read_gate() {
    Supervision& s = *supervision_;
    const CountedPtr terms = s.unit.read_terms ? s.unit.read_terms : s.transaction_terms;
    s.unit.gate_terms = terms;
    const std::string_view sql = reading_sql(*terms);
    s.effects.reset();
    if (needs_first_reading()) inject_query(sql, Role::reading, nullptr);
    inject_query(constraints_sql, Role::settle, nullptr);
    inject_query(sql, Role::reading, terms);
    // Our own COMMIT brings it along.
    if (s.unit.step == Step::gate && !s.unit.ours) {
        inject_query(read_only_sql, Role::settle, nullptr);
    }
    s.fresh = true;
    s.unjudged = false;
}

void Session::run_control() {
    Supervision::Unit& unit = supervision_->unit;
    const Supervision::Piece& piece = unit.pieces[unit.at];
    if (unit.ours && (piece.commits() || piece.control == TransactionControl::rollback)) {
        // To the client there is no block: ours is ended first, and the server says the same of its
        // COMMIT as without us, that there is no transaction.
        unit.step = Step::ended;
        const bool commits = piece.commits();
        if (commits && unit.read_total) inject_query(read_only_sql, Role::settle, nullptr);
        inject_query(commits ? commit_sql : rollback_sql, Role::settle, nullptr);
        return;
    }
    unit.step = Step::controlled;
    send_piece();
    supervision_->fresh = false;
}

void Session::send_piece() {
    Supervision& s = *supervision_;
    Supervision::Piece& piece = s.unit.pieces[s.unit.at];
    const std::uint64_t sequence = ledger_.sent(
        piece.function_call ? Owed::function_call : Owed::query, Disposition::forward, nullptr,
        Role::piece);
    limit_time(piece.timed, sequence);
    if (piece.followed) outcomes_->sent(*std::exchange(piece.followed, std::nullopt), sequence);
    if (piece.text.empty()) {
        if (from_client_.available() >= s.unit.message_bytes) {
            from_client_.forward(s.unit.message_bytes);
        } else {
            pass(s.unit.message_bytes, Fate::forward);  // a long FunctionCall
        }
        s.unit.message_bytes = 0;
    } else {
        send_to_server(protocol::encoded(protocol::Query{piece.text}));
    }
    if (s.unit.pieces.size() <= 1) {
        ran(s.unit_analysis.get(), sequence);
        return;
    }
    s.fresh = false;
    if (s.unit.at == 0) own_tables_.sent(*s.unit_analysis, sequence);
    if (piece.changes_settings) settings_.may_change(sequence);
    if (s.unit_analysis) follow_names(*s.unit_analysis, s.unit.at, true, sequence);
}

void Session::run_piece() {
    Supervision& s = *supervision_;
    Supervision::Unit& unit = s.unit;
    Supervision::Piece& piece = unit.pieces[unit.at];
    const Counted* const terms = piece.counted.get();
    unit.read_behind = false;
    unit.read_lite = false;
    unit.settled = false;
    if (piece.call && transaction_status_ != 'E') return identify_for_piece();
    if (std::exchange(piece.call, nullptr)) piece.text = "SELECT";  // the server never sees it
    if (transaction_status_ == 'E') {
        // The server refuses it, and nothing can happen.
        unit.step = Step::ran;
        unit.read_lite = false;
        send_piece();
        return;
    }
    const bool open = transaction_status_ == 'I' && !unit.ours &&
                      (terms != nullptr || unit.pieces.size() > 1 || unit.read_terms != nullptr);
    if (open) {
        if (facts_.replication && unit.step != Step::opened) {
            unit.step = Step::opened;
            unit.opening = true;
            inject_query(begin_sql, Role::ours, nullptr);
            return;
        }
        unit.opening = true;
        inject_extended(begin_sql, Role::ours, nullptr);
    }
    unit.ours = unit.ours || (unit.opening && transaction_status_ == 'T');
    unit.step = Step::ran;
    const bool ours = unit.ours || unit.opening;
    if (terms != nullptr) {
        limit_lock_waits(*terms);
        unit.read_lite = terms->total && terms->reads_only && ours && !s.before &&
                         unit.nothing_else;
        if (terms->total && !unit.read_lite) read_before(piece.counted);
    }
    send_piece();
    s.fresh = false;
    unit.nothing_else = unit.nothing_else && unit.read_lite;
    if (terms == nullptr) return;
    s.transaction_sticky = s.transaction_sticky ||
                           (piece.command == "DECLARE CURSOR" && opaque(*terms->facts));
    if (terms->total && !piece.stands_alone()) read_behind();
}

void Session::read_behind() {
    Supervision& s = *supervision_;
    Supervision::Unit& unit = s.unit;
    const CountedPtr terms = unit.pieces[unit.at].counted;
    unit.read_behind = true;
    s.effects.reset();
    unit.read_at_all = true;
    if (unit.read_lite) {
        auto lite = std::make_shared<Counted>(*terms);
        lite->lite = true;
        inject_query(written_sql, Role::reading, std::move(lite));
        return;
    }
    const bool last = unit.at + 1 == unit.pieces.size();
    if (last && (unit.ours || unit.opening)) {
        inject_query(constraints_sql, Role::settle, nullptr);
        unit.settled = true;
    }
    inject_query(reading_sql(*terms), Role::reading, terms);
    unit.read_total = true;
    unit.read_terms = terms;
    s.transaction_terms = terms;
    s.fresh = true;
    s.unjudged = false;
}

void Session::piece_ran() {
    Supervision& s = *supervision_;
    Supervision::Unit& unit = s.unit;
    const Supervision::Piece& piece = unit.pieces[unit.at];
    if (unit.opening && transaction_status_ != 'I') unit.ours = true;
    unit.opening = false;
    if (unit.failed) return end_failed_unit();
    if (!s.injected_error.empty()) return fail_unit_by_server();
    if (piece.counted && transaction_status_ != 'E') {
        const Counted& terms = *piece.counted;
        if (terms.total && !unit.read_behind) {
            read_behind();
            return;
        }
        if (terms.total && unit.read_lite) {
            // A mere SELECT has written something.
            unit.read_lite = false;
            read_behind();
            return;
        }
        Effects effects = effects_of_tag(unit.tag, *terms.facts);
        if (terms.total) {
            effects = at_least(std::exchange(s.effects, std::nullopt).value_or(Effects{}),
                               std::move(effects), s.before ? &*s.before : nullptr);
        }
        unit.effects.add(effects);
        if (auto refusal = verdict(effects, piece.counted, terms.facts)) {
            return exceed_unit(std::move(*refusal), piece.counted);
        }
    }
    const bool last = unit.at + 1 == unit.pieces.size();
    if (!last || !unit.ours) release_completion();
    ++unit.at;
    return next_piece();
}

void Session::release_completion() {
    Supervision::Unit& unit = supervision_->unit;
    if (!unit.withheld.empty()) show(std::exchange(unit.withheld, {}));
    unit.tag.clear();
}

// What the client sees of a unit, kept back while it may yet have to be run again.
void Session::show(std::string bytes) {
    Supervision::Unit& unit = supervision_->unit;
    if (unit.keeps && !unit.shown && unit.kept.size() + bytes.size() <= kept_bytes_max) {
        unit.kept += bytes;
        return;
    }
    show_kept();
    send_to_client(std::move(bytes));
}

void Session::show_kept() {
    Supervision::Unit& unit = supervision_->unit;
    unit.shown = true;
    if (!unit.kept.empty()) send_to_client(std::exchange(unit.kept, {}));
}

// The same of a supervised Execute.
bool Session::group_keeps(std::size_t total) {
    Supervision::Group& group = supervision_->group;
    if (group.keeps && group.kept.size() + total <= kept_bytes_max) return true;
    group.keeps = false;
    if (!group.kept.empty()) send_to_client(std::exchange(group.kept, {}));
    return false;
}

// Whether a message of so many bytes, which the client sees of a unit, is to be kept back.
bool Session::unit_keeps(std::size_t total) {
    if (waiting_ != Waiting::unit || !supervision_->unit.keeps) return false;
    Supervision::Unit& unit = supervision_->unit;
    if (!unit.shown && unit.kept.size() + total > kept_bytes_max) show_kept();
    return !unit.shown;
}

void Session::commit_unit() {
    Supervision::Unit& unit = supervision_->unit;
    unit.step = Step::committed;
    if (unit.read_total || unit.read_at_all) inject_query(read_only_sql, Role::settle, nullptr);
    inject_query(commit_sql, Role::settle, nullptr);
}

// The client is told what went wrong, in our words or the server's, and everything is taken back.
void Session::fail_unit(policy::Refusal refusal) {
    claimed_failed(refusal.message);
    show_kept();
    send_to_client(error_response(refusal, "ERROR", settings_.client_encoding_is_utf8()));
    return end_failed_unit();
}

void Session::fail_unit_by_server() {
    std::string error = std::exchange(supervision_->injected_error, {});
    if (error.empty()) {
        error = error_response({"XX000", "pgchaperone: the transaction could not be ended", "", ""},
                               "ERROR", settings_.client_encoding_is_utf8());
    }
    claimed_failed("an error of the server");
    show_kept();
    send_to_client(std::move(error));
    return end_failed_unit();
}

void Session::end_failed_unit() {
    Supervision::Unit& unit = supervision_->unit;
    own_tables_.failed();
    Supervision& s = *supervision_;
    if (std::exchange(s.effects, std::nullopt)) {
        // Counted and not judged, since the next reading failed: some of it may stand before a
        // savepoint.
        s.before = s.transaction_sticky ? s.accepted : std::nullopt;
        s.unjudged = true;
        s.fresh = false;
    }
    unit.failed = true;
    unit.withheld.clear();
    supervision_->injected_error.clear();
    if (unit.ours && transaction_status_ != 'I') return undo_unit();
    if (transaction_status_ == 'T') return undo_unit();
    return end_unit();
}

void Session::undo_unit() {
    Supervision::Unit& unit = supervision_->unit;
    unit.step = Step::undone;
    if (unit.ours) {
        inject_query(rollback_sql, Role::ours, nullptr);
    } else {
        inject_query(substitute_sql({}), Role::substitute, nullptr);
    }
}

void Session::end_unit() {
    Supervision& s = *supervision_;
    if (s.unit.message_bytes > 0) pass(s.unit.message_bytes, Fate::discard);  // it was not to run
    show_kept();
    if (!s.unit.reports.empty()) send_to_client(std::move(s.unit.reports));
    follow_unit_no_more();
    s.unit = {};
    s.unit_analysis.reset();
    s.injected_error.clear();
    send_to_client(protocol::encoded(protocol::ReadyForQuery{transaction_status_}));
    claimed_ended(transaction_status_);
    waiting_ = Waiting::nothing;
}

// What of it was not sent will not be.
void Session::follow_unit_no_more() {
    for (Supervision::Piece& piece : supervision_->unit.pieces) {
        if (piece.followed) outcomes_->not_run(*std::exchange(piece.followed, std::nullopt));
    }
}

// The transaction block that is open is there for what is supervised, and ends with it.
bool Session::block_is_ours() const {
    if (!supervision_) return false;
    const Supervision::Unit& unit = supervision_->unit;
    return supervision_->group.our_block ||
           (waiting_ == Waiting::unit && (unit.ours || unit.opening));
}

bool Session::unit_copying() const {
    return waiting_ == Waiting::unit && supervision_->unit.copy_open;
}

// A message of the client's while its COPY data are taken.
bool Session::unit_copy_message(protocol::FrontendTag tag, std::size_t total) {
    using protocol::FrontendTag;
    Supervision::Unit& unit = supervision_->unit;
    switch (tag) {
        case FrontendTag::CopyData: pass(total, Fate::forward); return true;
        case FrontendTag::CopyDone:
        case FrontendTag::CopyFail:
            unit.copy_open = false;
            ledger_.sent(Owed::copy_end);
            pass(total, Fate::forward);
            return true;
        case FrontendTag::Flush:
        case FrontendTag::Sync: pass(total, Fate::discard); return true;  // as the server does
        default:
            // An error of the COPY to the server, whatever the message says: so it says nothing.
            unit.copy_open = false;
            send_to_server(std::string{static_cast<char>(tag), 0, 0, 0, 4});
            pass(total, Fate::discard);
            return true;
    }
}

// --- Groups: the extended protocol

bool Session::group_refused() const { return supervision_ && supervision_->group.refused; }

bool Session::group_supervised() const { return supervision_ && supervision_->group.supervised; }

// The message at the front waits until everything before it is judged; false: that is so, and it
// can be dealt with. `reads`: it ends the transaction, so what is deferred is read too.
bool Session::wait_at_gate(bool reads, bool commits) {
    Supervision& s = supervision();
    if (s.gate == Supervision::Gate::passed || ledger_.copy_in_open()) {
        s.gate = Supervision::Gate::none;
        return false;
    }
    s.gate = Supervision::Gate::waiting;
    s.gate_reads = reads;
    s.gate_ends_group = false;
    s.gate_has_read = false;
    s.gate_commits = commits;
    waiting_ = Waiting::gate;
    if (!ledger_.idle()) send_to_server(protocol::encoded(protocol::Flush{}));
    return true;
}

// Whether the end of the group is the end of a transaction, with effects that are still to be read.
bool Session::group_end_reads() const {
    const Supervision::Group& group = supervision_->group;
    return group.total && !group.settled && predicted_status_ == 'I';
}

void Session::gate_step() {
    Supervision& s = *supervision_;
    if (s.group.exceeded != Supervision::Group::Exceeded::no) {
        s.group.at_gate = true;
        waiting_ = Waiting::exceeded;
        return exceeded_group_step();
    }
    if (!ledger_.copy_in_open()) {
        const bool failed = ledger_.skipping() || s.group.refused || s.group.failed ||
                            predicted_status_ == 'E';
        if (!ledger_.idle() && !ledger_.skipping()) return;
        if (!failed && s.group.planned) {
            read_planning();
            if (s.gate_ends_group) inject_extended(read_only_sql, Role::settle, nullptr);
            send_to_server(protocol::encoded(protocol::Flush{}));
            return;
        }
        const CountedPtr terms = s.group.last ? s.group.last : s.transaction_terms;
        const bool reads = s.gate_reads || (s.gate_ends_group && group_end_reads());
        if (!failed && reads && terms) {
            s.gate_reads = false;
            s.group.settled = true;
            s.gate_has_read = true;
            s.effects.reset();
            const std::string_view sql = reading_sql(*terms);
            if (needs_first_reading()) {
                inject_extended(sql, Role::reading, nullptr);
            }
            settle_and_read(terms);
            send_to_server(protocol::encoded(protocol::Flush{}));
            return;
        }
    }
    s.gate = Supervision::Gate::passed;
    waiting_ = Waiting::nothing;
    s.undo_read_only = std::exchange(s.gate_chains, false) && s.gate_has_read &&
                       !(s.before && s.before->read_only);
    if (std::exchange(s.gate_commits, false) && s.gate_has_read &&
        (ledger_.skipping() || s.group.refused)) {
        // A COMMIT that fails ends the block.
        s.group.supervised = true;
        s.group.our_block = true;
    }
    if (std::exchange(s.execute_waits, false)) {
        s.gate = Supervision::Gate::none;
        if (ledger_.skipping() || s.group.refused || predicted_status_ == 'E') {
            pending_.judgement.decisions.clear();
        }
        carry_out();
    }
}

// An Execute goes its way, whole. Behind a COMMIT AND CHAIN that was made read only, what follows
// is not to be.
void Session::pass_execute(std::size_t total) {
    if (supervision_) supervision_->gate = Supervision::Gate::none;
    send_execute(total);
    if (supervision_ && std::exchange(supervision_->undo_read_only, false)) {
        inject_extended(read_write_sql, Role::ours, nullptr);
    }
}

// The Execute at the front; of no bytes: the one that is run again.
void Session::send_execute(std::size_t total) {
    if (supervision_ && std::exchange(supervision_->group.run_anew, false)) {
        from_client_.discard(total);
        send_to_server(protocol::encoded(protocol::Execute{injected_name, 0}));
        for (const char kind : {'P', 'S'}) {
            send_to_server(protocol::encoded(protocol::Close{kind, injected_name}));
            ledger_.sent(Owed::close, Disposition::swallow, nullptr, Role::ours);
        }
    } else if (total > 0) {
        from_client_.forward(total);
    } else {
        send_to_server(protocol::encoded(protocol::Execute{replayed_portal(), 0}));
    }
}

// Whether an Execute of this would end a block of ours, or be told that there is one.
bool Session::meets_our_block(const policy::Analysis* analysis) const {
    if (!supervision_ || !supervision_->group.our_block || ledger_.copy_in_open()) return false;
    if (analysis == nullptr || analysis->statements.size() != 1) return false;
    const TransactionControl control = analysis->statements.front().transaction_control;
    return control != TransactionControl::none && control != TransactionControl::finish_prepared;
}

// An Execute goes its way next. To the client there is no block where there is one of ours: a BEGIN
// makes it the client's, and for all else it is ended first. What was before it is judged.
std::uint64_t Session::owe_execute(const policy::Analysis* analysis) {
    pipeline_open_ = true;
    if (!meets_our_block(analysis)) return ledger_.sent(Owed::execute);
    Supervision::Group& group = supervision_->group;
    group.our_block = false;
    group.leaving = true;
    const policy::StatementFacts& facts = analysis->statements.front();
    if (facts.transaction_control == TransactionControl::begin) {
        return ledger_.sent(Owed::execute, Disposition::forward, nullptr, Role::adopts);
    }
    const bool commits = facts.transaction_control == TransactionControl::prepare ||
                         (facts.transaction_control == TransactionControl::commit && !facts.chains);
    inject_extended(commits ? commit_sql : rollback_sql, Role::settle, nullptr);
    // The client's portal went with our block. Without one the server says in its own words what it
    // makes of the statement.
    send_to_server(protocol::encoded(protocol::Parse{injected_name, analysis->text, {}}));
    ledger_.sent(Owed::parse, Disposition::swallow, nullptr, Role::ours);
    send_to_server(protocol::encoded(protocol::Bind{injected_name, injected_name, {}, {}, {}}));
    ledger_.sent(Owed::bind, Disposition::swallow, nullptr, Role::ours);
    group.run_anew = true;
    return ledger_.sent(Owed::execute);
}

// Fires what is deferred, and reads.
void Session::settle_and_read(const CountedPtr& terms) {
    inject_extended(constraints_sql, Role::settle, nullptr);
    inject_extended(reading_sql(*terms), Role::reading, terms);
    inject_extended(read_only_sql, Role::settle, nullptr);
    supervision_->fresh = true;
    supervision_->unjudged = false;
}

// The client is told of an error; what is still owed to it of this group it does not see.
void Session::refuse_group(policy::Refusal refusal) {
    Supervision& s = *supervision_;
    claimed_failed(refusal.message);
    send_to_client(error_response(refusal, "ERROR", settings_.client_encoding_is_utf8()));
    s.group.withheld.clear();
    s.group.refused = true;
    s.group.to_close = ledger_.hide_rest();
    own_tables_.failed();
}

// The server is told of the error that the client was told of.
void Session::make_group_fail() {
    for (const std::string& name : supervision_->group.to_close) {
        names_.set_statement(name, nullptr);
        send_to_server(protocol::encoded(protocol::Close{'S', name}));
        ledger_.sent(Owed::close, Disposition::swallow, nullptr, Role::ours);
    }
    send_to_server(protocol::encoded(protocol::Parse{injected_name, substitute_sql({}), {}}));
    ledger_.sent(Owed::parse, Disposition::swallow, nullptr, Role::substitute);
}

// Sync of a supervised group, when it has been judged.
void Session::finish_group(std::size_t total) {
    Supervision& s = *supervision_;
    const bool failed = ledger_.skipping() || s.group.refused || s.group.failed;
    if (s.group.refused && !ledger_.skipping()) make_group_fail();
    // What was to end our block, or to give it to the client, may have failed.
    const bool ours = s.group.our_block || s.group.leaving;
    if (ours && !failed) inject_extended(commit_sql, Role::settle, nullptr);
    if (ours || predicted_status_ == 'I') forget_transaction();
    s.fresh = false;  // others may make tables until the next
    s.group = {};
    if (ours) {
        // Its ReadyForQuery may still be of our block.
        ledger_.sent(Owed::sync, Disposition::swallow, nullptr, Role::ours);
        pass(total, Fate::forward);
        s.unit = {};
        s.unit.step = Step::undone;
        s.unit.ours = true;
        s.unit.failed = failed;
        waiting_ = Waiting::unit;
    } else {
        ledger_.sent(Owed::sync);
        pass(total, Fate::forward);
    }
}

// A Query comes in the middle of a group that was judged: it ends the group's transaction, and what
// that has deferred is read with it. A block of ours stays open for it, as the implicit transaction
// does.
void Session::fold_group_into_query() {
    Supervision& s = *supervision_;
    const bool ours = s.group.our_block;
    if (s.group.total && predicted_status_ == 'I') s.folded = s.group.last;
    s.group = {};
    s.group.supervised = ours;  // a Sync may still come in its place
    s.group.our_block = ours;
    s.group.folded = ours;
    s.fresh = false;
}

bool Session::folded_block() const { return supervision_ && supervision_->group.folded; }

// The Query that waits is not run as a unit. What is still deferred was not read, and must not
// write.
void Session::end_folded_block() {
    if (!folded_block()) return;
    inject_extended(read_only_sql, Role::settle, nullptr);
    inject_extended(commit_sql, Role::settle, nullptr);
    supervision_->group = {};
    supervision_->folded.reset();
}

// By its error all is taken back that the group did before it.
void Session::refuse_in_folded_block(policy::Refusal refusal) {
    Supervision& s = *supervision_;
    forget_unnamed();
    s.group = {};
    s.folded.reset();
    s.unit = {};
    s.unit.message_bytes = pending_.total;
    s.unit.ours = true;
    s.effects.reset();
    transaction_status_ = 'T';
    waiting_ = Waiting::unit;
    fail_unit(std::move(refusal));
}

// An Execute that is to be supervised is at the front, whole.
void Session::execute_counted() {
    Supervision& s = supervision();
    CountedPtr terms = [&] {
        CountedPtr given = counted(pending_.judgement, 0, number_of(0));
        if (given && pending_.statement && !pending_.statement->bind.empty()) {
            auto bound = std::make_shared<Counted>(*given);
            bound->bound = pending_.statement;
            given = std::move(bound);
        }
        if (given && !given->total && pending_.row_limit > 0) {
            // Its tag may never come, though all of it was done.
            auto read = std::make_shared<Counted>(*given);
            read->total = true;
            given = std::move(read);
        }
        return given;
    }();
    s.injected_error.clear();
    s.unit = {};
    s.gate = Supervision::Gate::none;
    s.latest = terms;
    const policy::StatementFacts& facts = *terms->facts;
    if (may_commit(facts) && predicted_status_ == 'I' && !s.group.our_block) {
        inject_extended(begin_sql, Role::ours, nullptr);
        s.group.our_block = true;
    }
    if (!std::exchange(s.group.lock_limited, true)) limit_lock_waits(*terms);
    const bool lite = terms->reads_only && terms->total && predicted_status_ == 'I' && !s.before &&
                      !s.unjudged && !s.group.our_block && sync_follows(pending_.total);
    if (!lite) read_planning();
    if (terms->total && !lite) read_before(terms);
    s.transaction_sticky = s.transaction_sticky ||
                           (facts.command == "DECLARE CURSOR" && opaque(facts));
    if (lite) {
        auto one = std::make_shared<Counted>(*terms);
        one->lite = true;
        terms = std::move(one);
    }
    auto extra = std::make_unique<Extra>();
    extra->counted = terms;
    s.group.keeps = !pipeline_open_ && terms->bound && predicted_status_ == 'I' &&
                    pending_.row_limit == 0 && !facts.copies_in && !s.group.our_block;
    const std::uint64_t sequence = ledger_.sent(Owed::execute, Disposition::forward,
                                                std::move(extra), Role::counted);
    pipeline_open_ = true;
    if (pending_.cleared) claimed_runs(sequence);
    follow_sent(sequence);
    ran(terms->analysis.get(), sequence);
    limit_time(timed(pending_.judgement, pending_.kind), sequence);
    send_execute(pending_.total);
    s.group.supervised = true;
    s.group.settled = false;
    s.fresh = false;
    if (lite) {
        inject_extended(written_sql, Role::reading, terms);
        inject_extended(read_only_sql, Role::settle, nullptr);
        s.group.planned = false;
        return;
    }
    s.group.total = s.group.total || terms->total;
    s.group.last = terms;
    if (!terms->total) return;
    s.transaction_terms = terms;
    s.since = sequence;
    if (facts.copies_in) {
        s.group.copy_due = true;
    } else if (predicted_status_ == 'I' && sync_follows(0)) {
        // It is the last: one reading does for it and for what it has deferred.
        settle_and_read(terms);
        s.group.settled = true;
    } else {
        read_execute(terms);
    }
}

// What was planned in this group, and only reads by its text, must have written nothing.
void Session::read_planning() {
    Supervision& s = *supervision_;
    if (!std::exchange(s.group.planned, false)) return;
    auto planned = std::make_shared<Counted>(*s.group.planned_by);
    planned->lite = true;
    planned->planning = true;
    inject_extended(written_sql, Role::reading, std::move(planned));
}

// Whether the client's message behind the next `bytes_before` bytes has come and is a Sync.
bool Session::sync_follows(std::size_t bytes_before) {
    const auto bytes = from_client_.peek(bytes_before + protocol::head_size);
    return bytes && (*bytes)[bytes_before] == static_cast<char>(protocol::FrontendTag::Sync);
}

void Session::read_execute(const CountedPtr& terms) {
    Supervision& s = *supervision_;
    inject_extended(reading_sql(*terms), Role::reading, terms);
    s.fresh = true;
    s.unjudged = false;
}

// A supervised Execute has come to its end; `message`: its CommandComplete or the like, whole.
void Session::execute_ran(const CountedPtr& terms, std::string_view message) {
    Supervision& s = *supervision_;
    s.group.tag = tag_in(message);
    s.group.withheld = std::exchange(s.group.kept, {});
    s.group.withheld += message;
    if (terms->total) {
        if (!terms->facts->copies_in) return;  // the reading is on its way
        s.group.copy_due = false;
        read_execute(terms);
        send_to_server(protocol::encoded(protocol::Flush{}));
        return;
    }
    const Effects effects = effects_of_tag(tag_in(message), *terms->facts);
    if (auto refusal = verdict(effects, terms, terms->facts)) {
        exceed_group(std::move(*refusal), effects, terms);
    } else {
        send_to_client(std::exchange(s.group.withheld, {}));
    }
}

// A Parse or Bind: planning runs functions that are called immutable, and a domain's checks run as
// its values are read.
void Session::planning_may_run(const policy::Judgement& judgement) { plan(counted(judgement, 0)); }

// A Bind of a statement that nobody saw being made: by the terms of what was counted last.
void Session::planning_unknown() {
    if (supervision_) plan(supervision_->latest);
}

void Session::plan(const CountedPtr& terms) {
    if (!terms || facts_.replication || predicted_status_ == 'E') return;
    Supervision& s = supervision();
    s.latest = terms;
    // It waits for locks, too.
    if (!std::exchange(s.group.lock_limited, true)) limit_lock_waits(*terms);
    if (!terms->total) return;
    s.group.supervised = true;
    if (terms->reads_only && predicted_status_ == 'I' && !s.before && !s.fresh && !s.unjudged) {
        s.group.planned = true;
        s.group.planned_by = terms;
        return;
    }
    if (needs_first_reading()) inject_extended(reading_sql(*terms), Role::reading, nullptr);
    s.unjudged = true;
    s.fresh = false;
    s.group.total = true;
    s.group.last = terms;
    s.group.settled = false;
    s.transaction_terms = terms;
    s.since = ledger_.last_sequence();
}

// --- What the server says to it

// For a COMMIT that would have gone on changing rows.
std::string Session::changes_as_it_commits() const {
    policy::Refusal refusal;
    refusal.message =
        "pgchaperone: this transaction would have changed rows as it commits, after they were "
        "counted; rolled back";
    refusal.detail =
        "A cursor WITH HOLD runs its query at COMMIT, or a deferred trigger put off what it does.";
    refusal.hint = "Fetch all rows of the cursor before COMMIT, or do without WITH HOLD.";
    return error_response(refusal, "ERROR", settings_.client_encoding_is_utf8());
}

// An ErrorResponse for an entry that is not the client's own. `message`: whole.
void Session::supervised_error(const Reply& reply, std::string_view message,
                               std::string_view sqlstate) {
    Supervision& s = *supervision_;
    switch (reply.role) {
        case Role::substitute: return;
        case Role::ours:
        case Role::reading:
        case Role::identity:
        case Role::plan:
        case Role::trial:
        case Role::settle: {
            s.incoming = {};
            if (waiting_ == Waiting::hold && hold_->step != Hold::Step::drained) {
                if (!hold_->error.empty()) return;
                hold_->error = message;
                hold_->deferred_failed = reply.role == Role::ours && sqlstate.starts_with("23") &&
                                         hold_->trial && hold_->step == Hold::Step::tried &&
                                         hold_->tried >= hold_->trial->analysis->statements.size();
                return;
            }
            if (waiting_ == Waiting::unit && s.unit.step != Step::start) {
                if (!s.injected_error.empty()) return;
                // The client's own READ ONLY is for the server to tell of.
                const bool clients = s.before && s.before->read_only;
                s.injected_error = sqlstate == read_only_violation && !clients
                                       ? changes_as_it_commits()
                                       : std::string(message);
                return;
            }
            if (claimed_ && claimed_->sequence != 0) claimed_failed(error_summary(message));
            if (s.group.refused) return;
            if (reply.role == Role::settle) send_to_client(s.group.withheld);
            s.group.withheld.clear();
            send_to_client(std::string(message));
            return;
        }
        case Role::piece: {
            if (sqlstate == read_only_violation && s.unit.step == Step::controlled &&
                s.unit.pieces[s.unit.at].commits() && !(s.before && s.before->read_only)) {
                s.unit.failed = true;
                show_kept();
                send_to_client(changes_as_it_commits());
                return;
            }
            s.unit.copy_open = false;
            s.unit.withheld.clear();
            if (std::exchange(s.unit.failed, true)) return;
            claimed_failed(error_summary(message));
            show_kept();
            const Supervision::Piece& piece = s.unit.pieces[s.unit.at];
            if (piece.counted) census_.end(end_of_error(timed_out(sqlstate)));
            if (sqlstate == "2D000" && piece.counted && (s.unit.ours || s.unit.opening)) {
                policy::Decision decision;
                decision.rule = piece.counted->rule;
                policy::Refusal refusal = not_supervisable(
                    decision, piece.command,
                    "ends transactions by itself, before its effects can be counted");
                refusal.sqlstate = "2D000";
                send_to_client(
                    error_response(refusal, "ERROR", settings_.client_encoding_is_utf8()));
                return;
            }
            send_to_client(moved_position(message, static_cast<std::ptrdiff_t>(piece.offset)));
            return;
        }
        case Role::counted:
            census_.end(end_of_error(timed_out(sqlstate)));
            s.group.failed = true;
            claimed_failed(error_summary(message));
            if (!s.group.kept.empty()) send_to_client(std::exchange(s.group.kept, {}));
            if (sqlstate == "2D000" && s.group.our_block && reply.extra && reply.extra->counted) {
                policy::Decision decision;
                decision.rule = reply.extra->counted->rule;
                policy::Refusal refusal = not_supervisable(
                    decision, reply.extra->counted->facts->command,
                    "ends transactions by itself, before its effects can be counted");
                refusal.sqlstate = "2D000";
                send_to_client(
                    error_response(refusal, "ERROR", settings_.client_encoding_is_utf8()));
                return;
            }
            send_to_client(std::string(message));
            return;
        case Role::adopts: send_to_client(std::string(message)); return;
        case Role::client: return;
    }
}

// Any other message; true: the client sees it.
bool Session::supervised_reply(char tag, const Reply& reply, const CountedPtr& terms,
                               std::string_view message) {
    using protocol::BackendTag;
    Supervision& s = *supervision_;
    const auto kind = static_cast<BackendTag>(tag);
    switch (reply.role) {
        case Role::client: return true;
        case Role::substitute:
        case Role::ours: return false;
        case Role::adopts:
            if (kind == BackendTag::CommandComplete) s.group.leaving = false;
            return true;
        case Role::settle:
            if (kind == BackendTag::CommandComplete && ends_block(tag_in(message))) {
                s.group.leaving = false;
            }
            // It is done: notifications that come with it stand behind the completion.
            if (kind == BackendTag::CommandComplete && waiting_ == Waiting::unit &&
                s.unit.step == Step::committed &&
                message.substr(protocol::head_size).starts_with(commit_sql)) {
                release_completion();
                show_kept();
            }
            return false;
        case Role::reading:
            if (kind == BackendTag::DataRow &&
                !s.incoming.add_row(message.substr(protocol::head_size))) {
                s.unusable = true;
            }
            if (kind == BackendTag::CommandComplete) reading_done(terms);
            return false;
        case Role::plan:
            if (kind == BackendTag::DataRow) {
                const auto row = protocol::decode<protocol::DataRow>(
                    message.substr(protocol::head_size));
                if (row && row->columns.size() == 1 && row->columns[0] && hold_) {
                    hold_->plan += *row->columns[0];
                }
            }
            return false;
        case Role::trial:
            if (kind == BackendTag::CommandComplete && hold_) {
                hold_->tag = tag_in(message);
                ++hold_->tried;
            }
            return false;
        case Role::identity:
            if (kind == BackendTag::DataRow &&
                !s.identity.add_row(message.substr(protocol::head_size))) {
                s.identity = {};
            }
            return false;
        case Role::piece:
            switch (kind) {
                case BackendTag::ReadyForQuery: return false;
                case BackendTag::CommandComplete:
                    s.unit.copy_open = false;
                    s.unit.tag = message.substr(protocol::head_size);
                    [[fallthrough]];
                case BackendTag::EmptyQueryResponse:
                    s.unit.withheld += message;
                    if (s.unit.step == Step::controlled) release_completion();
                    return false;
                case BackendTag::CopyInResponse: s.unit.copy_open = true; return true;
                default: return true;
            }
        case Role::counted:
            if (reply.kind != Reply::Kind::done) {
                if (message.empty()) return true;
                s.group.kept += message;
                return false;
            }
            execute_ran(terms, message);
            return false;
    }
    return true;
}

// What a unit's statements report of the session's settings comes before its ReadyForQuery.
bool Session::keep_report(std::string_view message) {
    // What a trial sets is taken back with it, and reported twice.
    if (waiting_ == Waiting::hold && hold_->trial) return true;
    if (waiting_ != Waiting::unit || supervision_->unit.step == Step::start) return false;
    supervision_->unit.reports += message;
    return true;
}

// Whether a notice of this SQLSTATE is the client's to see.
bool Session::supervised_notice(Role role, std::string_view sqlstate) const {
    switch (role) {
        case Role::ours:
        case Role::reading:
        case Role::identity:
        case Role::plan:
        case Role::trial:
        case Role::substitute: return false;
        case Role::piece: {
            const Supervision::Unit& unit = supervision_->unit;
            const bool begins = unit.at < unit.pieces.size() &&
                                unit.pieces[unit.at].control == TransactionControl::begin;
            // To the client the block that is under way is not there.
            return !(unit.ours && begins && sqlstate == "25001");
        }
        case Role::settle:
            // SET CONSTRAINTS outside of a transaction block. What deferred triggers say is seen.
            return sqlstate != "25P01";
        case Role::adopts: return sqlstate != "25001";
        case Role::client:
        case Role::counted: return true;
    }
    return true;
}

}  // namespace pgchaperone::session
