// What a client sends, message by message. Heads are looked at and bodies streamed; only Query and
// Parse are needed whole, since they are judged.
//
//   Query, Parse, unknown Execute, FunctionCall
//     -> Judge -> Verdict -> [StoreAudit -> AuditStored ->] let_through() or refuse()
//   everything else -> let through as it comes

#include "policy/rule_refusal.h"
#include "policy/run_by_name.h"
#include "proxy/session/audit_record.h"
#include "proxy/session/binding.h"
#include "proxy/session/hold.h"
#include "proxy/session/refusal.h"
#include "proxy/session/session.h"
#include "proxy/session/supervision.h"
#include "proxy/session/time_limits.h"

#include "protocol/codec.h"
#include "protocol/head.h"
#include "protocol/peek.h"

#include <boost/assert.hpp>

#include <algorithm>
#include <utility>

namespace pgchaperone::session {

namespace {

// "$1 = 'K7', $2 = NULL": a CALL's text alone does not tell which ticket it decides. Empty where
// this is no Bind.
std::string bound_text(std::string_view body, const PreparedStatement& statement) {
    const auto bind = protocol::decode<protocol::Bind>(body);
    if (!bind) return {};
    std::string out;
    std::size_t number = 0;
    auto values = readable_parameters(statement.parameter_types, *bind);
    policy::hide_secrets(secrets_of(statement.judgement), values);
    for (const std::optional<std::string>& value : values) {
        out += (out.empty() ? "$" : ", $") + std::to_string(++number) + " = ";
        out += value ? "'" + *value + "'" : "NULL";
    }
    return out;
}

using protocol::FrontendTag;
using protocol::Side;

// As much of a Bind as is looked at for its two names.
constexpr std::size_t bind_head_bytes_max = 16 * 1024;
// As long a Bind is kept for a statement that may turn out to need an approval.
constexpr std::size_t bind_kept_bytes_max = 1024 * 1024;
// As much of a text that is too long to be judged as its audit record shows.
constexpr std::size_t oversized_prefix_bytes = 8 * 1024;

bool may_change_settings(const policy::Analysis* analysis) {
    if (analysis == nullptr) return true;
    return std::any_of(
        analysis->statements.begin(), analysis->statements.end(),
        [](const policy::StatementFacts& facts) { return facts.may_change_lexical_settings; });
}

bool commits(const policy::Analysis* analysis) {
    using policy::TransactionControl;
    if (analysis == nullptr || analysis->statements.size() != 1) return false;
    const policy::StatementFacts& facts = analysis->statements.front();
    return facts.transaction_control == TransactionControl::commit ||
           facts.transaction_control == TransactionControl::prepare;
}

bool sets_savepoint(const policy::Analysis* analysis) {
    return analysis != nullptr && analysis->statements.size() == 1 &&
           analysis->statements.front().transaction_control ==
               policy::TransactionControl::savepoint;
}

// The text of a Query or Parse up to its terminator. What follows it is for the server to complain
// about: it refuses such a message before it looks at the SQL.
std::string_view up_to_zero(std::string_view bytes) { return bytes.substr(0, bytes.find('\0')); }

}  // namespace

void Session::read_client() {
    while (true) {
        if (client_pass_bytes_ > 0) {
            const std::size_t count = std::min<std::uint64_t>(from_client_.available(),
                                                              client_pass_bytes_);
            if (count == 0) break;
            if (client_pass_ == Fate::forward) {
                from_client_.forward(count);
            } else {
                from_client_.discard(count);
            }
            client_pass_bytes_ -= count;
            continue;
        }
        if (waiting_ == Waiting::nothing && group_exceeded()) waiting_ = Waiting::exceeded;
        if (waiting_ == Waiting::unit || waiting_ == Waiting::gate || waiting_ == Waiting::hold ||
            waiting_ == Waiting::exceeded) {
            supervise();
        }
        if (waiting_ == Waiting::answer) answer_step();
        if (waiting_ == Waiting::clock) clock_step();
        if (waiting_ != Waiting::nothing && !unit_copying()) break;
        bool progress = false;
        switch (phase_) {
            case Phase::startup: progress = read_startup(); break;
            case Phase::checking: progress = exchange_from_client(); break;
            case Phase::login: progress = login_from_client(); break;
            case Phase::relay:
                progress = client_pass_bytes_ > 0 || (!ledger_.full() && client_message());
                break;
            case Phase::client_tls:
            case Phase::finding:
            case Phase::connecting:
            case Phase::cancel:
            case Phase::closed: break;
        }
        if (!progress) break;
    }
    if (client_closed_ && waiting_ == Waiting::hold) {
        client_left_hold();
        if (waiting_ != Waiting::hold) return read_client();  // what it has sent behind that
    }
    // A statement that runs is brought to its end, unless it waits for the client's data.
    if (client_closed_ && (waiting_ == Waiting::nothing || unit_copying()) &&
        phase_ == Phase::relay && !half_closed_ && !ledger_.full()) {
        half_close();
    }
}

// Deals with the message at the front. False: more bytes are needed, or nothing can be done now.
bool Session::client_message() {
    if (client_poisoned_ || client_terminated_) {
        from_client_.discard_all();
        return false;
    }
    const auto first = from_client_.peek(1);
    if (!first) return false;
    if (protocol::find_kind(Side::frontend, (*first)[0]) == nullptr ||
        (*first)[0] == static_cast<char>(FrontendTag::PasswordMessage)) {
        client_gone_wrong(1, "sent a message of an unknown type");
        return false;
    }
    const auto bytes = from_client_.peek(protocol::head_size);
    if (!bytes) return false;
    const auto head = protocol::read_head(*bytes, Side::frontend);
    if (head.has_error()) {
        client_gone_wrong(protocol::head_size, "sent a message of an impossible length");
        return false;
    }
    const std::size_t total = head->total();
    const auto tag = static_cast<FrontendTag>(head->tag);
    if (waiting_ == Waiting::unit) return unit_copy_message(tag, total);
    if ((ledger_.skipping() || group_refused()) && tag != FrontendTag::Sync &&
        tag != FrontendTag::Terminate) {
        // The server would throw it away.
        if (supervision_) {
            supervision_->gate = Supervision::Gate::none;
            supervision_->group.keeps = false;  // it would have to be run again with the rest
        }
        pass(total, Fate::discard);
        return true;
    }
    const bool copies = tag == FrontendTag::CopyData || tag == FrontendTag::CopyDone ||
                        tag == FrontendTag::CopyFail || tag == FrontendTag::Flush;
    if (supervision_ && supervision_->group.copy_due && !copies && tag != FrontendTag::Sync &&
        wait_at_gate(false)) {
        return true;
    }
    // By an error it may yet stand for what it stood for before.
    const bool by_name = tag == FrontendTag::Query || tag == FrontendTag::Parse ||
                         tag == FrontendTag::Bind || tag == FrontendTag::Close;
    if (by_name && ledger_.front() != nullptr && ledger_.front()->sequence <= renamed_held_ &&
        wait_at_gate(false)) {
        return true;
    }
    if (!copies && tag != FrontendTag::Sync && tag != FrontendTag::Terminate && wait_for_clock()) {
        return true;
    }
    switch (tag) {
        case FrontendTag::Query: return client_statement(StatementKind::query, total);
        case FrontendTag::Parse: return client_statement(StatementKind::parse, total);
        case FrontendTag::Bind: return client_bind(total);
        case FrontendTag::Execute: return client_execute(total);
        case FrontendTag::Describe: return client_describe(total);
        case FrontendTag::Close: return client_close(total);
        case FrontendTag::FunctionCall: return client_function_call(total);
        case FrontendTag::Sync: return client_sync(total);
        case FrontendTag::CopyDone:
        case FrontendTag::CopyFail:
            ledger_.sent(Owed::copy_end);
            pass(total, Fate::forward);
            return true;
        case FrontendTag::CopyData:
        case FrontendTag::Flush: pass(total, Fate::forward); return true;
        case FrontendTag::Terminate:
            client_terminated_ = true;
            pass(total, Fate::forward);
            return true;
        case FrontendTag::PasswordMessage: break;
    }
    return false;
}

// The message at the front goes its way, as much of it as is there and the rest as it comes.
void Session::pass(std::size_t total, Fate fate) {
    if (supervision_) supervision_->gate = Supervision::Gate::none;
    client_pass_ = fate;
    client_pass_bytes_ = total;
}

// The client's bytes can't be told apart any more. The server gets what it needs to see that too:
// it ends the connection with an error of its own.
void Session::client_gone_wrong(std::size_t bytes_seen, std::string why) {
    from_client_.forward(bytes_seen);
    from_client_.discard_all();
    client_poisoned_ = true;
    say(Log{LogLevel::warning, "the client " + std::move(why)});
}

bool Session::client_sync(std::size_t total) {
    if ((group_supervised() || group_refused()) && !ledger_.copy_in_open()) {
        if (wait_at_gate(false)) {
            supervision_->gate_ends_group = true;
            return true;
        }
        pipeline_open_ = false;
        bound_since_sync_ = false;
        finish_group(total);
        return true;
    }
    ledger_.sent(Owed::sync);
    pipeline_open_ = false;
    bound_since_sync_ = false;
    pass(total, Fate::forward);
    return true;
}

bool Session::client_bind(std::size_t total) {
    const std::size_t count = std::min({total, from_client_.available(), bind_head_bytes_max});
    const auto bytes = from_client_.peek(count);
    const auto names = protocol::peek_bind(bytes->substr(protocol::head_size));
    if (names.has_error() && count < total) {
        if (count < bind_head_bytes_max) return false;
        client_gone_wrong(0, "sent a Bind whose names are too long");
        fatal({"08P01",
               "pgchaperone: the names in a Bind are longer than " +
                   std::to_string(bind_head_bytes_max) + " bytes",
               "", ""},
              "names in a Bind too long");
        return false;
    }
    if (names && mistakable(names->statement)) {
        pending_ = {};
        pending_.kind = StatementKind::bind;
        pending_.total = total;
        refuse({"42501",
                "pgchaperone: which statement this is can't be told, since client_encoding has "
                "changed and its name is not ASCII",
                "One of those that were prepared needs an approval.", "Prepare it again."});
        pending_ = {};
        return true;
    }
    const StatementHandle handle = names ? made_by_sql(names->statement,
                                                       names_.statement(names->statement))
                                         : nullptr;
    if (handle && handle->answered) return client_answered_bind(total, handle);
    const bool may_hold = handle && (handle->runs_by_name || may_be_held(handle->judgement) ||
                                     handle->judgement.policy_version != policy_version_);
    if (may_hold && !ledger_.copy_in_open()) return judge_bind(total, handle);
    const std::string portal(names ? names->portal : std::string_view());
    StatementHandle bound = handle;
    if (names && handle && records_parameters(handle->judgement)) {
        if (total <= bind_kept_bytes_max && !from_client_.peek(total)) return false;
        auto with_values = std::make_shared<PreparedStatement>(*handle);
        with_values->parameters = bound_parameters(total, *handle);
        bound = std::move(with_values);
    }
    if (!handle) {
        planning_unknown();
    } else if (!handle->judgement.plainly_allowed()) {
        planning_may_run(handle->judgement);
    }
    pass_bind(total, portal, bound, !names.has_error());
    return true;
}

// The values of the Bind at the front, for its records. A very long one is not kept.
std::optional<std::vector<std::optional<std::string>>> Session::bound_parameters(
    std::size_t total, const PreparedStatement& statement) {
    if (total > bind_kept_bytes_max)
        return std::vector<std::optional<std::string>>{"(a Bind of " + std::to_string(total) +
                                                       " bytes, which is not kept)"};
    const std::string message(*from_client_.peek(total));
    const auto bind = protocol::decode<protocol::Bind>(
        std::string_view(message).substr(protocol::head_size));
    if (!bind) return std::nullopt;
    return readable_parameters(statement.parameter_types, *bind);
}

// A Bind of a statement that may have to wait for an approval: that has to come before the server
// plans it.
bool Session::judge_bind(std::size_t total, const StatementHandle& handle) {
    const bool too_long = total > text_bytes_max;
    if (!too_long && !from_client_.peek(total)) return false;
    Judge question;
    question.kind = StatementKind::bind;
    question.analysis = handle->judgement.analysis;
    pending_ = {};
    pending_.kind = StatementKind::bind;
    pending_.statement = handle;
    pending_.too_long = too_long;
    ask(std::move(question), total);
    return true;
}

// `handle`: what the portal stands for from here on.
void Session::pass_bind(std::size_t total, std::string_view portal, const StatementHandle& handle,
                        bool readable) {
    std::unique_ptr<Extra> extra;
    if (!portal.empty()) {
        extra = std::make_unique<Extra>();
        extra->name = portal;
        extra->names_portal = true;
    }
    const std::uint64_t sequence = ledger_.sent(Owed::bind, Disposition::forward, std::move(extra));
    if (readable) names_.set_portal(portal, handle, sequence);
    bound_since_sync_ = true;
    pass(total, Fate::forward);
}

// The Bind that waits has been judged, and nothing holds it (any more).
void Session::let_bind_through() {
    StatementHandle handle = pending_.statement;
    const bool approved = pending_.cleared && claimed_;
    const bool may_exceed = holds_when_exceeding(pending_.judgement) &&
                            pending_.total <= bind_kept_bytes_max;
    const bool recorded = records_parameters(pending_.judgement);
    if (approved || may_exceed || recorded) {
        auto bound = std::make_shared<PreparedStatement>(*handle);
        if (approved) bound->judgement = pending_.judgement;
        bound->approved = approved;
        if (approved && !followed_.empty()) {
            bound->followed = std::move(followed_.front());
            bound->followed->kind = StatementKind::execute;
        }
        bound->bound_behind = last_ran_;
        if (may_exceed) bound->bind = *from_client_.peek(pending_.total);
        if (recorded) bound->parameters = bound_parameters(pending_.total, *handle);
        handle = std::move(bound);
        if (approved) claimed_->bound = handle;
    }
    if (!handle->judgement.plainly_allowed()) planning_may_run(handle->judgement);
    const std::size_t count = std::min(
        {pending_.total, from_client_.available(), bind_head_bytes_max});
    const std::string head(*from_client_.peek(count));
    const auto names = protocol::peek_bind(std::string_view(head).substr(protocol::head_size));
    pass_bind(pending_.total, names ? names->portal : std::string_view(), handle,
              !names.has_error());
}

bool Session::client_describe(std::size_t total) {
    const auto bytes = from_client_.peek(total);
    if (!bytes) return false;
    const bool portal = total > protocol::head_size && (*bytes)[protocol::head_size] == 'P';
    std::unique_ptr<Extra> extra;
    if (const auto message = protocol::decode<protocol::Describe>(
            bytes->substr(protocol::head_size));
        message && !portal) {
        const StatementHandle handle = names_.statement(message->name);
        if (handle && handle->answered) {
            extra = std::make_unique<Extra>();
            extra->hides_parameter = true;
        }
    }
    ledger_.sent(portal ? Owed::describe_portal : Owed::describe_statement, Disposition::forward,
                 std::move(extra));
    pass(total, Fate::forward);
    return true;
}

bool Session::client_close(std::size_t total) {
    const auto bytes = from_client_.peek(total);
    if (!bytes) return false;
    const auto message = protocol::decode<protocol::Close>(bytes->substr(protocol::head_size));
    std::unique_ptr<Extra> extra;
    if (message && message->kind == 'P') {
        names_.set_portal(message->name, nullptr, 0);
    } else if (message && message->kind == 'S') {
        extra = std::make_unique<Extra>();
        extra->name = message->name;
        extra->previous = names_.set_statement(message->name, nullptr);
    }
    const bool renames_held = extra && extra->previous && may_wait(*extra->previous);
    const std::uint64_t sequence = ledger_.sent(Owed::close, Disposition::forward,
                                                std::move(extra));
    if (renames_held) renamed_held_ = sequence;
    pass(total, Fate::forward);
    return true;
}

bool Session::client_statement(StatementKind kind, std::size_t total) {
    if (kind == StatementKind::query && group_supervised() && !ledger_.copy_in_open()) {
        if (wait_at_gate(false)) return true;
        fold_group_into_query();
    }
    Judge question;
    question.kind = kind;
    std::string_view body;
    if (total <= text_bytes_max) {
        const auto bytes = from_client_.peek(total);
        if (!bytes) return false;
        body = bytes->substr(protocol::head_size);
    } else {
        const auto bytes = from_client_.peek(protocol::head_size + oversized_prefix_bytes);
        if (!bytes) return false;
        body = bytes->substr(protocol::head_size);
        question.oversized_bytes = total - protocol::head_size;
    }
    const bool too_long = question.oversized_bytes > 0;
    std::string_view name;
    if (kind == StatementKind::parse) {
        name = up_to_zero(body);
        body.remove_prefix(std::min(name.size() + 1, body.size()));
    }
    question.sql = up_to_zero(body);
    pending_ = {};
    pending_.kind = kind;
    pending_.name = name;
    pending_.too_long = too_long;
    ask(std::move(question), total);
    return true;
}

bool Session::client_execute(std::size_t total) {
    const auto bytes = from_client_.peek(total);
    if (!bytes) return false;
    const auto message = protocol::decode<protocol::Execute>(bytes->substr(protocol::head_size));
    const StatementHandle handle = message ? names_.portal(message->portal) : nullptr;
    const policy::Analysis* const analysis = handle ? handle->judgement.analysis.get() : nullptr;
    const bool in_our_block = meets_our_block(analysis);
    if (supervision_ && commits(analysis) && predicted_status_ != 'E' &&
        (supervision_->group.supervised || supervision_->transaction_terms)) {
        const bool chains = analysis->statements.front().chains;
        // To the client there is nothing that could be chained to: that fails, and commits nothing.
        const bool reads = (supervision_->group.total || supervision_->transaction_terms) &&
                           !(in_our_block && chains);
        if (wait_at_gate(reads, predicted_status_ == 'T')) {
            supervision_->gate_chains = chains && !in_our_block;
            return true;
        }
    } else if ((in_our_block ||
                (sets_savepoint(analysis) && (group_supervised() || ledger_.owes_ready()))) &&
               wait_at_gate(false)) {
        // What it makes of the block's state depends on that, which is not known before it is told.
        // Behind a savepoint that the server has made, what is refused before it would stand; and
        // what ends our block, or makes it the client's, has to know that it is still there.
        return true;
    }
    // What ran since its Bind may have given its functions another meaning.
    const bool undisturbed = handle && !handle->revoked &&
                             (handle->started || last_ran_ <= handle->bound_behind);
    if (handle && handle->approved && undisturbed &&
        handle->judgement.policy_version == policy_version_ &&
        !held_behind(handle->judgement.analysis.get())) {
        handle->started = true;
        // As it was judged when its Bind was approved.
        pending_ = {};
        pending_.kind = StatementKind::execute;
        pending_.total = total;
        pending_.row_limit = message ? message->max_rows : 0;
        pending_.judgement = handle->judgement;
        pending_.statement = handle;
        pending_.looked = true;
        pending_.cleared = claimed_ && claimed_->bound == handle;
        followed_.clear();
        if (handle->followed) followed_.push_back(*handle->followed);
        carry_out();
        return true;
    }
    // What is for pgchaperone itself was answered at Bind.
    if (handle &&
        (handle->answered || (!handle->judge_again && handle->judgement.plainly_allowed() &&
                              handle->judgement.policy_version == policy_version_))) {
        if (!handle->answered) census_.allowed(handle->judgement.analysis.get());
        const std::uint64_t sequence = owe_execute(analysis);
        ran(analysis, sequence);
        pass_execute(total);
        return true;
    }
    Judge question;
    question.kind = StatementKind::execute;
    if (handle) question.analysis = handle->judgement.analysis;
    pending_ = {};
    pending_.kind = StatementKind::execute;
    pending_.statement = handle;
    pending_.row_limit = message ? message->max_rows : 0;
    ask(std::move(question), total);
    return true;
}

bool Session::client_function_call(std::size_t total) {
    if (group_supervised() && !ledger_.copy_in_open()) {
        if (wait_at_gate(false)) return true;
        fold_group_into_query();
    }
    // An approval would be bound to all of it.
    const bool too_long = total > text_bytes_max;
    const auto bytes = from_client_.peek(too_long ? protocol::head_size + 4 : total);
    if (!bytes) return false;
    Judge question;
    question.kind = StatementKind::function_call;
    const auto oid = protocol::peek_function_oid(bytes->substr(protocol::head_size));
    if (oid) question.function_oid = static_cast<std::uint32_t>(*oid);
    pending_ = {};
    pending_.kind = StatementKind::function_call;
    pending_.too_long = too_long;
    ask(std::move(question), total);
    return true;
}

void Session::ask(Judge question, std::size_t total) {
    pending_.total = total;
    if (question.analysis && question.kind != StatementKind::query &&
        question.kind != StatementKind::parse) {
        // By now the names may stand for something else.
        if (question.analysis->alone) question.analysis = question.analysis->alone;
        question.once = pending_.statement && pending_.statement->runs_by_name;
        if (policy::AnalysisPtr joined = with_what_it_runs(question.analysis)) {
            question.analysis = std::move(joined);
            question.once = true;
        }
    }
    question.lexical = settings_.lexical();
    question.in_transaction = transaction_status_ != 'I';
    question.in_implicit_block = pipeline_open_;
    const bool nothing_runs = ledger_.nothing_runs();
    // A view or a trigger can change this setting, and no text in flight need show it. (The
    // encoding would have to be changed to one that no text in flight was written in.)
    if (!nothing_runs) {
        question.lexical.standard_conforming_strings = policy::StandardConformingStrings::unknown;
    }
    // What is in flight may yet roll back what made a table. And a named statement can be run by an
    // SQL EXECUTE at a time when the name means another table.
    static const std::vector<policy::RelationName> none;
    const bool may_run_later = question.kind == StatementKind::parse && !pending_.name.empty();
    question.own_tables = nothing_runs && !may_run_later ? &own_tables_.names() : &none;
    question.name_doubts = &own_tables_.doubts();
    question.search_path = &settings_.search_path();
    waiting_ = Waiting::verdict;
    commands_.push_back(std::move(question));
}

void Session::handle(const Verdict& event) {
    if (waiting_ != Waiting::verdict) return;
    if (supervision_) supervision_->now = event.at;
    judged_at_ = event.at;
    pending_.may_be_approved = event.may_be_approved;
    if (judge_what_it_runs(event.judgement)) return;
    judged(event.judgement);
    read_client();
}

// What is counted is counted once: not at a Parse or Bind what its Execute will tell of, and not
// again what was held.
void Session::count(std::size_t index) {
    const policy::Decision& decision = pending_.judgement.decisions[index];
    const bool known_already = hold_ && waits_for_claim();
    const bool now = pending_.kind == StatementKind::parse ? refuses(decision)
                     : pending_.kind == StatementKind::bind
                         ? refuses(decision) || decision.action == policy::Action::hold ||
                               decision.action == policy::Action::answer
                         : true;
    if (now && !known_already) census_.decided(pending_.judgement, index);
}

void Session::judged(policy::Judgement judgement) {
    pending_.judgement = std::move(judgement);
    followed_.clear();
    refuse_execute_of_what_is_held();
    if (pending_.judgement.plainly_allowed()) {
        const bool runs = pending_.kind != StatementKind::parse &&
                          pending_.kind != StatementKind::bind;
        if (runs && !(hold_ && waits_for_claim()))
            census_.allowed(pending_.judgement.analysis.get());
        refused_unbounded_.reset();
        return carry_out();
    }
    if (pending_.kind == StatementKind::bind && pending_.statement &&
        !pending_.statement->answered && !holds(pending_.judgement)) {
        // What else is to be said of it is said at its Execute.
        return carry_out();
    }
    refuse_what_cannot_be_supervised();
    StoreAudit store;
    const bool approved = hold_ && waits_for_claim();
    const std::vector<policy::Decision>& decisions = pending_.judgement.decisions;
    for (std::size_t i = 0; i < decisions.size(); ++i) {
        const policy::Decision& decision = decisions[i];
        count(i);
        if (refuses(decision) && !pending_.refusal) {
            pending_.refusal = decision.refusal;
            pending_.rule = decision.rule;
        }
        // What is counted leaves its record when it runs, and what is answered when it is asked.
        const bool later = pending_.kind == StatementKind::parse &&
                           (decision.action == policy::Action::supervise ||
                            decision.action == policy::Action::hold ||
                            decision.action == policy::Action::answer) &&
                           !decision.observed;
        if (later || !needs_record(decision, pending_.judgement.facts(i))) continue;
        // What was held is on record already.
        const bool again = decision.action == policy::Action::hold && approved;
        const std::uint64_t before = approved ? hold_->number_of(i) : 0;
        const std::uint64_t number = before != 0 ? before : ++statements_;
        if (needs_outcome(decision) && pending_.kind != StatementKind::parse) {
            if (!outcomes_) outcomes_ = std::make_unique<Outcomes>();
            followed_.push_back(follow(i, number));
        }
        if (!again) {
            const policy::LexicalSettings& lexical = settings_.lexical();
            audit::Record& record = store.records.emplace_back(
                make_record(facts_, settings_.application_name(), pending_.kind,
                            shown_text(pending_.judgement, i, pending_text(i), lexical), lexical,
                            pending_.judgement, i));
            record.number = number;
            if (decision.audit_detail == policy::AuditDetail::parameters && pending_.statement) {
                record.parameters = pending_.statement->parameters;
                if (record.parameters &&
                    policy::hide_secrets(secrets_of(pending_.judgement), *record.parameters)) {
                    record.redacted = true;
                }
            }
            if (pending_.kind == StatementKind::bind && decision.action == policy::Action::answer) {
                const auto bytes = from_client_.peek(
                    std::min(pending_.total, from_client_.available()));
                if (bytes) {
                    record.reason = bound_text(bytes->substr(protocol::head_size),
                                               *pending_.statement);
                }
            }
        }
    }
    explain_cut_off_tail();
    refuse_what_cannot_be_answered();
    if (store.records.empty()) return carry_out();
    waiting_ = Waiting::audit;
    say(std::move(store));
}

// Clients that end a statement at a blank line send its WHERE as the next one: say what happened.
void Session::explain_cut_off_tail() {
    const auto before = std::exchange(refused_unbounded_, std::nullopt);
    if (!pending_.refusal || !pending_.judgement.analysis) return;
    const std::vector<policy::StatementFacts>& statements = pending_.judgement.analysis->statements;
    const std::string text = pending_text();
    if (before && policy::begins_like_a_cut_off_tail(text)) {
        pending_.refusal = policy::cut_off_refusal(policy::shown(text, settings_.lexical()).text,
                                                   before->first, before->second);
        return;
    }
    for (std::size_t i = 0; i < statements.size() && i < pending_.judgement.decisions.size(); ++i) {
        if (!refuses(pending_.judgement.decisions[i]) || !statements[i].unbounded) continue;
        refused_unbounded_.emplace(statements[i].command, pending_.rule);
        return;
    }
}

void Session::handle(const AuditStored& event) {
    if (waiting_ != Waiting::audit) return;
    if (!event.ok && !pending_.refusal) {
        followed_.clear();  // nothing tells of it
        pending_.rule = "audit";
        pending_.refusal = policy::Refusal{
            "58030",
            "pgchaperone: this statement needs a record in the audit log, which can't be written",
            event.error, "Ask the operator of pgchaperone to look at the audit log's disk."};
    }
    if (pending_.refusal && pending_.cleared)
        finish_claimed("not run: " + pending_.refusal->message);
    carry_out();
    read_client();
}

void Session::carry_out() {
    waiting_ = Waiting::nothing;
    const bool ignored = ledger_.skipping() || group_refused();
    if (ignored || pending_.refusal) {
        give_back_approval();
        follow_no_more();
    }
    if (ignored) {
        // An error came while this waited: the server ignores it now, refused or not.
        pass(pending_.total, Fate::discard);
    } else if (pending_.refusal) {
        refuse(std::move(*pending_.refusal));
    } else {
        let_through();
    }
    if (waiting_ == Waiting::nothing || waiting_ == Waiting::unit) {
        pending_ = {};
        followed_.clear();
    }
}

void Session::let_through() {
    if (must_hold()) return;
    const bool runs_at_once = pending_.kind == StatementKind::query ||
                              pending_.kind == StatementKind::function_call;
    if (runs_at_once && needs_unit()) return start_unit();
    if (runs_at_once) end_folded_block();
    if (pending_.kind == StatementKind::execute && predicted_status_ != 'E' &&
        counts(pending_.judgement)) {
        if (!ledger_.owes_ready() || ledger_.copy_in_open()) return execute_counted();
        // How it is supervised depends on whether there is a transaction block.
        wait_at_gate(false);
        supervision_->execute_waits = true;
        return;
    }
    if (pending_.kind == StatementKind::bind) {
        if (pending_.statement->answered) return answer_bind();
        return pending_.total > 0 ? let_bind_through() : replay_bind();
    }
    if (pending_.kind == StatementKind::parse) planning_may_run(pending_.judgement);
    const policy::Analysis* const analysis = pending_.judgement.analysis.get();
    std::uint64_t sequence = 0;
    bool runs = true;
    std::string in_its_place;
    switch (pending_.kind) {
        case StatementKind::query:
            // The server forgets the unnamed statement before it reads the text, and its portal
            // with it.
            forget_unnamed();
            sequence = ledger_.sent(Owed::query);
            break;
        case StatementKind::parse: {
            auto handle = std::make_shared<PreparedStatement>();
            handle->parsed_behind = ledger_.last_sequence();
            handle->judgement = pending_.judgement;
            handle->runs_by_name = analysis != nullptr && policy::runs_by_name(*analysis);
            handle->judge_again = !own_tables_.names().empty() || handle->runs_by_name ||
                                  (analysis != nullptr &&
                                   std::any_of(analysis->statements.begin(),
                                               analysis->statements.end(), executes_by_name));
            if (asks_chaperone(pending_.judgement)) in_its_place = answered_parse(*handle);
            if (records_parameters(pending_.judgement)) handle->parameter_types = parsed_types();
            if (may_be_held(pending_.judgement)) {
                handle->parameter_types = parsed_types();
                handle->name_encoding = settings_.lexical().client_encoding;
            }
            StatementHandle previous = names_.set_statement(pending_.name, std::move(handle));
            const bool renames_held = previous && may_wait(*previous);
            std::unique_ptr<Extra> extra;
            if (!pending_.name.empty() || renames_held) {
                extra = std::make_unique<Extra>();
                extra->name = std::move(pending_.name);
                extra->previous = std::move(previous);
            }
            const bool unnamed = extra == nullptr;
            sequence = ledger_.sent(Owed::parse, Disposition::forward, std::move(extra));
            if (unnamed) names_.unnamed_sent(sequence);
            if (renames_held) renamed_held_ = sequence;
            runs = false;
            break;
        }
        case StatementKind::bind: break;
        case StatementKind::execute: sequence = owe_execute(analysis); break;
        case StatementKind::function_call: sequence = ledger_.sent(Owed::function_call); break;
    }
    if (runs) {
        if (pending_.cleared) claimed_runs(sequence);
        follow_sent(sequence);
        ran(analysis, sequence);
        limit_time(timed(pending_.judgement, pending_.kind), sequence);
    }
    if (pending_.kind == StatementKind::execute) {
        pass_execute(pending_.total);
    } else if (!in_its_place.empty()) {
        send_to_server(std::move(in_its_place));
        pass(pending_.total, Fate::discard);
    } else {
        pass(pending_.total, Fate::forward);
    }
}

// The parameter types that the Parse at the front declares; 0: it leaves one open.
std::vector<std::int32_t> Session::parsed_types() {
    const std::string message(
        *from_client_.peek(std::min(pending_.total, from_client_.available())));
    const auto parse = protocol::decode<protocol::Parse>(
        std::string_view(message).substr(protocol::head_size));
    return parse ? parse->parameter_types : std::vector<std::int32_t>();
}

// A text that runs was sent.
void Session::ran(const policy::Analysis* analysis, std::uint64_t sequence) {
    last_ran_ = sequence;
    effects_may_follow();
    deferred_may_fire(analysis);
    predict(analysis, sequence);
    if (may_change_settings(analysis)) settings_.may_change(sequence);
    if (analysis != nullptr) {
        follow_names(*analysis, sequence);
        own_tables_.sent(*analysis, sequence);
    } else {
        own_tables_.doubt();
    }
}

// A COMMIT and the like was sent: what it makes of the transaction's state.
void Session::predict(const policy::Analysis* analysis, std::uint64_t sequence) {
    using policy::TransactionControl;
    // Behind a ROLLBACK TO SAVEPOINT that succeeds the block goes on, and behind one that fails
    // nothing runs before the state is told.
    const auto may_go_on = [&] {
        if (predicted_status_ == 'E') predicted_status_ = 'T';
    };
    if (analysis == nullptr) {
        predicted_at_ = sequence;
        return may_go_on();
    }
    if (analysis->statements.size() != 1) return;
    const policy::StatementFacts& facts = analysis->statements.front();
    if (!facts.controls_transaction) return;
    predicted_at_ = sequence;
    switch (facts.transaction_control) {
        case TransactionControl::begin: predicted_status_ = 'T'; return;
        case TransactionControl::commit:
        case TransactionControl::rollback:
            predicted_status_ = facts.chains ? 'T' : 'I';
            forget_transaction();
            return;
        case TransactionControl::prepare:
            predicted_status_ = 'I';
            forget_transaction();
            return;
        case TransactionControl::savepoint: return may_go_on();
        case TransactionControl::none:
        case TransactionControl::finish_prepared: return;
    }
}

void Session::refuse(policy::Refusal refusal) {
    const bool runs_at_once = pending_.kind == StatementKind::query ||
                              pending_.kind == StatementKind::function_call;
    if (runs_at_once && folded_block()) return refuse_in_folded_block(std::move(refusal));
    auto extra = std::make_unique<Extra>();
    extra->refusal = std::move(refusal);
    switch (pending_.kind) {
        case StatementKind::query:
            forget_unnamed();
            send_to_server(substitute_query(pending_.rule));
            ledger_.sent(Owed::query, Disposition::replace, std::move(extra));
            break;
        case StatementKind::function_call:
            forget_unnamed();
            send_to_server(substitute_query(pending_.rule));
            ledger_.sent(Owed::query, Disposition::replace, std::move(extra));
            break;
        case StatementKind::parse:
            if (pending_.name.empty()) forget_unnamed();
            send_to_server(substitute_parse(pending_.name, pending_.rule));
            ledger_.sent(Owed::parse, Disposition::replace, std::move(extra));
            break;
        case StatementKind::bind:
        case StatementKind::execute:
            send_to_server(substitute_parse(refused_execute_name, pending_.rule));
            ledger_.sent(Owed::parse, Disposition::replace, std::move(extra));
            break;
    }
    pass(pending_.total, Fate::discard);
}

// What is to be told of statement `index` of the message that waits, when it is done.
Followed Session::follow(std::size_t index, std::uint64_t number) const {
    const policy::Decision& decision = pending_.judgement.decisions[index];
    const policy::StatementFacts* const facts = pending_.judgement.facts(index);
    Followed out;
    out.number = number;
    out.index = index;
    out.kind = pending_.kind;
    out.decision = decision.action;
    out.observed = decision.observed;
    out.commits_itself = facts == nullptr || !facts->runs_in_transaction ||
                         facts->command == "CALL" || facts->command == "DO";
    out.row_limit = pending_.row_limit > 0 ? static_cast<std::uint32_t>(pending_.row_limit) : 0;
    out.rule = decision.rule;
    if (pending_.judgement.analysis) out.fingerprint = pending_.judgement.analysis->fingerprint;
    if (facts != nullptr) out.command = facts->command;
    return out;
}

// 0: it leaves no record, or nobody asks what came of it.
std::uint64_t Session::number_of(std::size_t index) const {
    for (const Followed& one : followed_) {
        if (one.index == index) return one.number;
    }
    return 0;
}

void Session::follow_sent(std::uint64_t sequence) {
    if (followed_.empty()) return;
    for (Followed& one : followed_) outcomes_->sent(std::move(one), sequence);
    followed_.clear();
}

// The message that waits will not be sent. Of what was not approved its ticket tells.
void Session::follow_no_more() {
    for (Followed& one : followed_) {
        const bool waited = one.decision == policy::Action::hold && !one.observed;
        if (!waited || pending_.cleared) outcomes_->not_run(std::move(one));
    }
    followed_.clear();
}

void Session::tell_outcomes() {
    StoreAudit store;
    store.awaited = false;
    store.records = outcomes_->take_news();
    if (store.records.empty()) return;
    for (audit::Record& record : store.records) {
        record.session = facts_.id;
        record.user = facts_.user;
        record.database = facts_.database;
        record.upstream = facts_.upstream;
        record.client = facts_.client.text;
        record.application = settings_.application_name();
    }
    commands_.push_back(std::move(store));
}

// The text of a statement that waits, for its audit record: of one of several, its own.
std::string Session::pending_text(std::size_t index) {
    const policy::StatementFacts* const facts = pending_.judgement.facts(index);
    if (facts != nullptr && pending_.judgement.analysis->statements.size() > 1) {
        const std::string_view text = pending_.judgement.analysis->text;
        return std::string(
            text.substr(std::min<std::size_t>(facts->location, text.size()), facts->length));
    }
    return pending_text();
}

// All of it, as it was sent.
std::string Session::pending_text() {
    if (pending_.kind == StatementKind::bind || pending_.kind == StatementKind::execute ||
        pending_.kind == StatementKind::function_call) {
        return {};
    }
    const auto bytes = from_client_.peek(std::min(pending_.total, from_client_.available()));
    std::string_view body = bytes->substr(protocol::head_size);
    if (pending_.kind == StatementKind::parse) {
        body.remove_prefix(std::min(up_to_zero(body).size() + 1, body.size()));
    }
    return std::string(up_to_zero(body));
}

// What a skipped or failed message was to do to the names is undone. A portal of an aborted
// transaction can't be run; its name counts as unknown.
void Session::undo(Entry& entry) {
    switch (entry.owed) {
        case Owed::bind:
            names_.undo_portal(
                entry.extra ? std::string_view(entry.extra->name) : std::string_view(),
                entry.sequence);
            break;
        case Owed::parse:
            if (!entry.extra) {
                names_.undo_unnamed(entry.sequence);
            } else if (entry.disposition == Disposition::forward) {
                names_.set_statement(entry.extra->name, std::move(entry.extra->previous));
            }
            break;
        case Owed::close:
            if (entry.extra)
                names_.set_statement(entry.extra->name, std::move(entry.extra->previous));
            break;
        case Owed::execute: settle_names(entry.sequence, false); break;
        case Owed::query:
        case Owed::function_call:
        case Owed::describe_statement:
        case Owed::describe_portal:
        case Owed::sync:
        case Owed::copy_end: break;
    }
}

}  // namespace pgchaperone::session
