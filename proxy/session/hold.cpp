// Held statements: what waits until a second person has approved it. See docs/adr/0005 and
// DESIGN.md section 8.
//
//   Query, FunctionCall, Bind -> drained -> identified -> claimed --ticket--> audit -> runs
//                                                            | none
//                                                          tried (plan or trial) -> opened
//                                                                                     |
//     refused <-- denied, expired, waited long enough, cancelled <-- waiting <--------+
//                                                                        | approved
//                                              judged again from the start, claims its ticket
//
// The message stays at the front of what the client sent until then. There is one way only to an
// approved run: a ticket is claimed by a statement that has just been judged, whether its session
// has waited for it or comes back later.

#include "proxy/session/hold.h"

#include "policy/run_by_name.h"
#include "proxy/session/audit_record.h"
#include "proxy/session/binding.h"
#include "proxy/session/plan.h"
#include "proxy/session/refusal.h"
#include "proxy/session/session.h"
#include "proxy/session/supervise_sql.h"
#include "proxy/session/supervision.h"

#include "protocol/codec.h"
#include "protocol/head.h"
#include "protocol/messages.h"
#include "protocol/peek.h"

#include <algorithm>
#include <array>
#include <utility>

namespace pgchaperone::session {

namespace {

using policy::HoldTerms;
using Step = Hold::Step;

bool held(const policy::Decision& decision) {
    return decision.action == policy::Action::hold && !decision.observed && decision.hold;
}

bool held_when_exceeding(const policy::Decision& decision) {
    return decision.action == policy::Action::supervise && !decision.observed &&
           decision.supervise && decision.supervise->hold &&
           decision.supervise->on_exceed == policy::SuperviseLimits::OnExceed::hold;
}

void add_terms(HeldTerms& all, const HoldTerms& terms) {
    const bool first = all.approval.approvers.empty();
    if (std::find(all.approval.approvers.begin(), all.approval.approvers.end(), terms.deciders) ==
        all.approval.approvers.end()) {
        all.approval.approvers.push_back(terms.deciders);
    }
    all.glass_roles.push_back(terms.glass_roles);
    all.glass_needs_reason = all.glass_needs_reason || terms.glass_needs_reason;
    if (first) {
        all.approval.approvals = terms.approvals;
        all.approval.allow_self = terms.allow_self;
        all.approval.ttl = terms.ticket_ttl;
        all.wait = terms.wait;
        all.notify_every = terms.notify_every;
        all.evidence = terms.evidence;
        all.waits_in_transaction = terms.in_transaction == HoldTerms::InTransaction::wait;
        return;
    }
    all.approval.approvals = std::max(all.approval.approvals, terms.approvals);
    all.approval.allow_self = all.approval.allow_self && terms.allow_self;
    all.approval.ttl = std::min(all.approval.ttl, terms.ticket_ttl);
    all.wait = std::min(all.wait, terms.wait);
    all.notify_every = std::min(all.notify_every, terms.notify_every);
    all.evidence = std::max(all.evidence, terms.evidence);
    all.waits_in_transaction = all.waits_in_transaction &&
                               terms.in_transaction == HoldTerms::InTransaction::wait;
}

// "30 minutes", "90 seconds": for people, rounded.
std::string duration_text(std::chrono::milliseconds time) {
    const auto seconds = std::max<long long>(
        1, std::chrono::round<std::chrono::seconds>(time).count());
    const auto unit = [](long long count, std::string_view name) {
        return std::to_string(count) + " " + std::string(name) + (count == 1 ? "" : "s");
    };
    if (seconds < 120) return unit(seconds, "second");
    if (seconds < 120 * 60) return unit((seconds + 30) / 60, "minute");
    return unit((seconds + 1800) / 3600, "hour");
}

std::string names_text(const std::vector<std::vector<std::string>>& lists) {
    std::string out;
    for (const std::vector<std::string>& list : lists) {
        std::string names;
        for (const std::string& name : list) {
            if (!names.empty()) names += ", ";
            names += name;
        }
        if (names.empty()) return {};
        if (!out.empty()) out += " and of ";
        out += names;
    }
    return out;
}

std::string subject_of(const std::string& command) {
    return command.empty() ? "this statement" : command;
}

// A statement whose plan EXPLAIN shows without running it.
bool has_plan(const policy::StatementFacts& facts) {
    static constexpr std::array<std::string_view, 7> commands{
        "CREATE TABLE AS", "DECLARE CURSOR", "DELETE", "INSERT", "MERGE", "SELECT", "UPDATE"};
    return !facts.unparsable.set &&
           std::binary_search(commands.begin(), commands.end(), facts.command);
}

// What a rollback does not take back would be there twice.
bool leaves_something(const policy::StatementFacts& facts) {
    static constexpr std::array<std::string_view, 6> commands{
        "DEALLOCATE", "DEALLOCATE ALL", "DISCARD", "DISCARD ALL", "LOAD", "PREPARE"};
    return std::find(commands.begin(), commands.end(), facts.command) != commands.end();
}

// What is dangerous may reach beyond the transaction (a program, a file, a sequence, another
// session): it would have happened before anybody has approved it.
bool can_be_tried(const policy::StatementFacts& facts) {
    return !leaves_something(facts) && !facts.dangerous.set && !facts.unparsable.set &&
           facts.runs_in_transaction && !facts.controls_transaction &&
           facts.transaction_control == policy::TransactionControl::none && !facts.copies_in &&
           !facts.holds_cursor && !facts.chaperone;
}

bool is_ascii(std::string_view text) {
    return std::all_of(text.begin(), text.end(),
                       [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

constexpr std::string_view explain_prefix = "EXPLAIN (FORMAT JSON) ";
constexpr std::string_view savepoint_sql = "SAVEPOINT pgchaperone_trial";
constexpr std::string_view rollback_to_savepoint_sql = "ROLLBACK TO SAVEPOINT pgchaperone_trial";
constexpr std::string_view release_savepoint_sql = "RELEASE SAVEPOINT pgchaperone_trial";

approval::Evidence evidence_of(const Effects& effects, approval::Evidence::Kind kind) {
    approval::Evidence evidence;
    evidence.kind = kind;
    for (const TableEffect& one : effects.tables) {
        evidence.tables.push_back({one.name(), one.inserted, one.updated, one.deleted});
    }
    evidence.catalog_changes = effects.catalog_changes;
    for (const NamedRelation& one : effects.exclusive_locks) {
        evidence.exclusive_locks.push_back(one.text());
    }
    for (const NamedRelation& one : effects.foreign_writes) {
        evidence.foreign_writes.push_back(one.text());
    }
    return evidence;
}

std::shared_ptr<const policy::ApprovedEffects> approved_effects(const approval::Ticket& ticket) {
    auto approved = std::make_shared<policy::ApprovedEffects>();
    const approval::Evidence& evidence = ticket.request.evidence;
    approved->ticket = ticket.id;
    for (const approval::TableRows& one : evidence.tables) {
        approved->tables.push_back({one.table, one.inserted, one.updated, one.deleted});
    }
    approved->catalog_changes = evidence.catalog_changes;
    approved->exclusive_locks = evidence.exclusive_locks;
    approved->foreign_writes = evidence.foreign_writes;
    return approved;
}

// What a trial is read by, and what the approved run is counted by.
policy::SuperviseLimits limits_of_a_trial() {
    policy::SuperviseLimits limits;
    limits.effects = policy::SuperviseLimits::Effects::total;
    limits.exclusive_locks = policy::Permission::refuse;
    limits.catalog_changes = policy::Permission::refuse;
    return limits;
}

}  // namespace

bool executes_by_name(const policy::StatementFacts& facts) {
    return !facts.prepared_statement.empty() && facts.command != "PREPARE" &&
           facts.command != "DEALLOCATE";
}

bool Session::holds(const policy::Judgement& judgement) {
    return std::any_of(judgement.decisions.begin(), judgement.decisions.end(), held);
}

bool Session::may_be_held(const policy::Judgement& judgement) {
    return std::any_of(judgement.decisions.begin(), judgement.decisions.end(),
                       [](const policy::Decision& one) {
                           return held(one) || held_when_exceeding(one) || one.depends_on_moment;
                       });
}

bool Session::holds_when_exceeding(const policy::Judgement& judgement) {
    return std::any_of(judgement.decisions.begin(), judgement.decisions.end(), held_when_exceeding);
}

// Whether a statement has to wait as it is bound, or may have to.
bool Session::may_wait(const PreparedStatement& statement) {
    const auto& decisions = statement.judgement.decisions;
    return std::any_of(decisions.begin(), decisions.end(), [](const policy::Decision& one) {
        return held(one) || one.depends_on_moment;
    });
}

// A Query was sent: the server forgets its unnamed statement and portal, unless it throws the Query
// away. So one that may have to wait is kept: it is bound in vain then.
void Session::forget_unnamed() {
    const StatementHandle there = names_.statement({});
    if (!there || !may_wait(*there)) names_.set_statement({}, nullptr);
    names_.set_portal({}, nullptr, 0);
}

// Whether a Bind's statement can't be told by its name: in another client_encoding other bytes are
// the same name, and one of those that may have to wait was named in another.
bool Session::mistakable(std::string_view name) const {
    if (is_ascii(name)) return false;
    const auto encoding = settings_.lexical().client_encoding;
    return names_.find_statement([&](std::string_view other, const PreparedStatement& statement) {
        return !is_ascii(other) && may_wait(statement) &&
               (!encoding || statement.name_encoding != encoding);
    }) != nullptr;
}

// The statement that an SQL EXECUTE in a text would run, where that was prepared by a Parse and
// would have to wait as it is bound. Null: there is none.
StatementHandle Session::held_behind(const policy::Analysis* analysis) const {
    if (analysis == nullptr || names_.statements() == 0) return nullptr;
    // Which of them SQL means by such a name depends on encodings.
    const auto certain = [](std::string_view name) { return name.size() < 63 && is_ascii(name); };
    for (const policy::StatementFacts& facts : analysis->statements) {
        if (!executes_by_name(facts)) continue;
        const std::string_view wanted = facts.prepared_statement;
        StatementHandle found = names_.find_statement(
            [&](std::string_view name, const PreparedStatement& statement) {
                if (name != wanted && certain(name) && certain(wanted)) return false;
                return may_wait(statement);
            });
        if (found) return found;
    }
    return nullptr;
}

// By its own text it may be allowed: what it runs is not.
void Session::refuse_execute_of_what_is_held() {
    if (pending_.kind == StatementKind::parse) return;  // it is looked at when it runs
    policy::Judgement& judgement = pending_.judgement;
    const StatementHandle behind = held_behind(judgement.analysis.get());
    if (!behind) return;
    const std::vector<policy::StatementFacts>& statements = judgement.analysis->statements;
    judgement.decisions.resize(statements.size());
    for (std::size_t i = 0; i < statements.size(); ++i) {
        if (!executes_by_name(statements[i])) continue;
        policy::Decision& decision = judgement.decisions[i];
        decision = {};
        decision.action = policy::Action::block;
        for (const policy::Decision& one : behind->judgement.decisions) {
            if (held(one)) decision.rule = one.rule;
        }
        decision.refusal.message = "pgchaperone: EXECUTE of \"" + statements[i].prepared_statement +
                                   "\" is refused: what it runs may need an approval";
        decision.refusal.detail =
            "It was prepared by a message of the protocol, and is asked for as that binds it.";
        decision.refusal.hint = "Nothing was changed. Run it by the protocol, or by its own text.";
    }
}

// What has been judged and let through so far may have to wait. True: it does, or it is refused.
bool Session::must_hold() {
    const bool waiting_for_claim = waits_for_claim();
    if (holds(pending_.judgement)) {
        policy::Refusal refusal;
        if (ledger_.copy_in_open() && pending_.kind != StatementKind::parse) {
            // To a server that takes COPY data any message is a mistake; but the COPY may have
            // failed meanwhile.
            refusal.message =
                "pgchaperone: this statement needs an approval, which can't be asked for while "
                "COPY data is sent";
            refusal.hint = "End the COPY first.";
            refuse(std::move(refusal));
            return true;
        }
        const bool unseen = pending_.kind == StatementKind::bind &&
                            pending_.judgement.analysis->text.empty();
        switch (pending_.kind) {
            case StatementKind::execute: break;
            case StatementKind::parse:
                if (!pending_.too_long) return false;  // its Bind waits
                [[fallthrough]];
            case StatementKind::query:
            case StatementKind::bind:
            case StatementKind::function_call:
                if (unseen && !pending_.too_long) {
                    refusal.message =
                        "pgchaperone: this statement needs an approval, which can't be asked for "
                        "where a Bind runs what SQL has prepared";
                    refusal.hint = "Nothing was changed. Run it by EXECUTE, or by its own text.";
                    refuse(std::move(refusal));
                    return true;
                }
                if (!pending_.too_long) {
                    start_hold(false);
                    return true;
                }
                // Nobody could see all of it, and no approval be bound to it.
                refusal.sqlstate = "54000";
                refusal.message =
                    "pgchaperone: this statement needs an approval, and it is too long for one";
                refusal.hint = "Nothing was changed. Send a shorter text, or shorter parameters.";
                refuse(std::move(refusal));
                return true;
        }
        refusal.message =
            "pgchaperone: this statement needs an approval, which can only be asked "
            "for as it is bound";
        refusal.detail =
            "It was not seen being prepared, or the policy has changed since it was bound.";
        refusal.hint = "Nothing was changed. Prepare or bind it again.";
        refuse(std::move(refusal));
        return true;
    }
    const bool looks = holds_when_exceeding(pending_.judgement) && !pending_.looked &&
                       !pending_.too_long && pending_.kind != StatementKind::parse &&
                       pending_.kind != StatementKind::execute && !ledger_.copy_in_open();
    if (looks && (pending_.may_be_approved || waiting_for_claim)) {
        start_hold(true);
        return true;
    }
    if (waiting_for_claim) {
        // The policy does not ask for it any more.
        say(WithdrawTicket{std::exchange(hold_->reclaim, {}), "no longer needed"});
    }
    return false;
}

// An approved ticket waits to be claimed by the statement that is being judged again.
bool Session::waits_for_claim() const { return hold_ && !hold_->reclaim.empty(); }

// The statement that waits at the front is held, or (`looks_only`) an approval may lie ready for
// it.
void Session::start_hold(bool looks_only) {
    supervision();
    std::string reclaim = hold_ ? std::move(hold_->reclaim) : std::string();
    // It is still the one run that has asked.
    const std::uint64_t this_run = reclaim.empty() ? 0 : hold_->this_run;
    hold_ = std::make_unique<Hold>();
    Hold& h = *hold_;
    h.reclaim = std::move(reclaim);
    h.this_run = this_run;
    h.looks_only = looks_only;
    const policy::Judgement& judgement = pending_.judgement;
    for (std::size_t i = 0; i < judgement.decisions.size(); ++i) {
        const policy::Decision& decision = judgement.decisions[i];
        if (looks_only ? !held_when_exceeding(decision) : !held(decision)) continue;
        add_terms(h.terms, looks_only ? *decision.supervise->hold : *decision.hold);
        if (!h.rule.empty()) continue;
        h.number = number_of(i);
        h.rule = decision.rule;
        h.reason = decision.refusal.reason.empty() ? decision.refusal.message
                                                   : decision.refusal.reason;
        if (const policy::StatementFacts* const facts = judgement.facts(i)) {
            h.command = facts->command;
        }
    }
    for (const Followed& one : followed_) h.numbers.emplace_back(one.index, one.number);
    waiting_ = Waiting::hold;
    if (!ledger_.idle()) send_to_server(protocol::encoded(protocol::Flush{}));
    supervise();
}

// The server has answered everything; what was asked of somebody else comes as an event.
void Session::hold_step() {
    Hold& h = *hold_;
    if (h.step == Step::claimed || h.step == Step::opened || h.step == Step::waiting) return;
    if (!ledger_.idle() && !ledger_.skipping()) return;
    switch (h.step) {
        case Step::drained: return hold_drained();
        case Step::identified: return hold_identified();
        case Step::tried: return hold_tried();
        case Step::retreated: return hold_retreated();
        case Step::claimed:
        case Step::opened:
        case Step::waiting: return;
    }
}

// Asks by messages of the extended protocol, which accept one statement alone and leave the
// client's unnamed one alive; a Sync behind them where no transaction of the client's hangs on it.
void Session::end_asking() {
    if (facts_.replication) return;
    if (hold_->quiet) {
        send_to_server(protocol::encoded(protocol::Sync{}));
        ledger_.sent(Owed::sync, Disposition::swallow, nullptr, Role::ours);
    } else {
        send_to_server(protocol::encoded(protocol::Flush{}));
    }
}

void Session::hold_drained() {
    Hold& h = *hold_;
    if (ledger_.skipping() || group_refused()) return end_hold();
    const char status = predicted_status_;
    if (h.looks_only && status == 'E') {
        pending_.looked = true;
        return end_hold();
    }
    if (status == 'E') {
        const policy::AnalysisPtr& analysis = pending_.judgement.analysis;
        const bool one = analysis && analysis->statements.size() == 1 &&
                         !analysis->statements.front().unparsable.set;
        if (one || pending_.kind == StatementKind::function_call) {
            // The server refuses it in its own words.
            pending_.judgement.decisions.clear();
            return end_hold();
        }
        // The first of several may be a ROLLBACK.
        policy::Refusal refusal;
        refusal.sqlstate = "25P02";
        refusal.message = "pgchaperone: " + subject_of(h.command) +
                          " needs an approval, which can't be asked for in a failed transaction";
        refusal.hint = "Send the ROLLBACK first, by itself.";
        return refuse_held(std::move(refusal));
    }
    const bool alone = pending_.kind != StatementKind::bind
                           ? !pipeline_open_
                           : !pipeline_open_ && !bound_since_sync_ && !group_supervised();
    h.in_block = status == 'T' || !alone;
    h.quiet = status == 'T' || alone;
    supervision_->identity = nobody_yet();
    h.step = Step::identified;
    inject(identity_sql, Role::identity, nullptr);
    end_asking();
}

// Whom the server is about to name: somebody of its own.
Identity Session::nobody_yet() const {
    Identity identity;
    identity.person.upstream = facts_.upstream;
    return identity;
}

void Session::hold_identified() {
    Hold& h = *hold_;
    if (!h.error.empty() || ledger_.skipping()) return fail_held_by_server();
    const Identity& identity = supervision_->identity;
    if (!identity.usable()) {
        policy::Refusal refusal;
        refusal.sqlstate = "XX000";
        refusal.message = "pgchaperone: who asks could not be established, so " +
                          subject_of(h.command) + " is refused";
        refusal.hint = "Log in with a role that still exists.";
        return refuse_held(std::move(refusal));
    }
    const long timeout = h.in_block ? identity.idle_in_transaction_timeout_ms
                                    : identity.idle_timeout_ms;
    h.keep_alive_ms = timeout > 0 && h.quiet ? std::max(50L, timeout / 3) : 0;
    make_request();
    h.step = Step::claimed;
    say(ClaimTicket{{h.binding, identity.person, h.terms.approval, h.reclaim}});
}

void Session::make_request() {
    Hold& h = *hold_;
    const Identity& identity = supervision_->identity;
    approval::Request& request = h.request;
    request = {};
    request.requester = identity.person;
    request.database = facts_.database;
    request.client = facts_.client.text;
    request.application = settings_.application_name();
    request.session = facts_.id;
    request.command = h.command;
    request.rule = h.rule;
    request.reason = h.reason;
    request.terms = h.terms.approval;
    request.settings = readable_settings(identity);

    Binding binding;
    binding.add("pgchaperone 1");
    const policy::AnalysisPtr& analysis = pending_.judgement.analysis;
    if (pending_.kind == StatementKind::bind) {
        binding.add(analysis ? analysis->text : std::string());
        const std::string message = held_bind();
        const auto bind = protocol::decode<protocol::Bind>(
            std::string_view(message).substr(protocol::head_size));
        if (bind) {
            add_parameters(binding, pending_.statement->parameter_types, *bind);
            request.parameters = readable_parameters(pending_.statement->parameter_types, *bind);
        } else {
            binding.add(message);
        }
    } else if (pending_.kind == StatementKind::function_call) {
        const auto bytes = from_client_.peek(std::min(pending_.total, from_client_.available()));
        binding.add("function call").add(bytes->substr(protocol::head_size));
        const auto call = protocol::decode<protocol::FunctionCall>(
            bytes->substr(protocol::head_size));
        if (call) {
            protocol::Bind shown;
            shown.parameter_formats = call->argument_formats;
            shown.parameters = call->arguments;
            request.parameters = readable_parameters({}, shown);
        }
    } else {
        const std::string text = analysis && !analysis->text.empty() ? analysis->text
                                                                     : pending_text();
        binding.add(text).add(std::uint64_t{0});
    }
    binding.add(facts_.database);
    add_identity(binding, identity);
    if (analysis) {
        for (const policy::StatementFacts& facts : analysis->statements) {
            // Its text does not say what runs, which may be prepared anew under the same name: an
            // approval holds for this one run alone.
            if (!executes_by_name(facts)) continue;
            if (h.this_run == 0) h.this_run = ++unique_;
            binding.add("session").add(facts_.id).add(h.this_run);
        }
        for (const policy::NamedTextPtr& run : analysis->runs) {
            binding.add("runs").add(run->name).add(run->text);
            if (run->whole) continue;
            if (h.this_run == 0) h.this_run = ++unique_;
            binding.add("session").add(facts_.id).add(h.this_run);
        }
    }
    h.binding = binding.sha256_hex();
    request.binding = h.binding;
    // Bound to every byte, and kept without its secrets.
    const policy::LexicalSettings& lexical = settings_.lexical();
    const std::size_t all = analysis ? analysis->statements.size() : 0;
    const std::string sent = analysis && !analysis->text.empty() ? std::string() : pending_text();
    policy::Shown text = shown_text(pending_.judgement, all, sent, lexical);
    request.statement = std::move(text.text);
    const bool hides = policy::hide_secrets(secrets_of(pending_.judgement), request.parameters);
    h.statement_masked = text.masked || hides;
    if (analysis) {
        for (const policy::NamedTextPtr& run : analysis->runs) {
            request.statement += "\n\n" + run->name + ": " + run->text;
        }
    }
    if (request.statement.size() > approval::statement_bytes_max) {
        request.statement.resize(approval::statement_bytes_max);
        request.statement_cut = true;
    }
}

void Session::handle(const TicketClaimed& event) {
    const bool ours = stale_claims_ == 0;
    if (!ours) --stale_claims_;
    if (!ours || waiting_ != Waiting::hold || hold_->step != Step::claimed) {
        if (event.answer && *event.answer) {
            say(FinishTicket{(*event.answer)->id, "not run: it was cancelled"});
        }
        return;
    }
    Hold& h = *hold_;
    h.step = Step::tried;  // no answer is awaited any more
    if (event.answer && *event.answer) {
        cleared(**event.answer);
    } else if (h.looks_only) {
        // Its limits are enough of a guard.
        pending_.looked = true;
        end_hold();
    } else if (!event.answer) {
        const approval::Failure& failure = event.answer.error();
        refuse_held(failure.problem == approval::Problem::store_failed
                        ? store_failed_refusal(failure)
                        : claim_failed_refusal(failure));
    } else {
        seek_evidence();
    }
    read_client();
}

policy::Refusal Session::store_failed_refusal(const approval::Failure& failure) const {
    policy::Refusal refusal;
    refusal.sqlstate = approval::sqlstate(approval::Problem::store_failed);
    refusal.message = "pgchaperone: " + subject_of(hold_->command) +
                      " needs an approval, and tickets can't be kept at the moment";
    refusal.detail = failure.text;
    refusal.hint = failure.hint.empty() ? "Nothing was changed. Try again later, or tell whoever "
                                          "runs pgchaperone."
                                        : failure.hint;
    return refusal;
}

policy::Refusal Session::claim_failed_refusal(const approval::Failure& failure) const {
    policy::Refusal refusal;
    refusal.message = "pgchaperone: " + subject_of(hold_->command) +
                      " was approved, but can't run (ticket " + hold_->reclaim + ")";
    refusal.detail = failure.text;
    refusal.hint = "Nothing was changed. Run it again to ask anew.";
    return refusal;
}

// --- Evidence: what it would do

// Whether the statements can be run and taken back without harm to what the client has open.
bool Session::trial_possible() const {
    const Hold& h = *hold_;
    const Supervision& s = *supervision_;
    const policy::AnalysisPtr& analysis = pending_.judgement.analysis;
    if (pending_.kind == StatementKind::function_call || facts_.replication || !analysis) {
        return false;
    }
    if (!h.quiet || s.unjudged || s.transaction_sticky) return false;
    return !analysis->statements.empty() &&
           std::all_of(analysis->statements.begin(), analysis->statements.end(), can_be_tried);
}

void Session::seek_evidence() {
    Hold& h = *hold_;
    const policy::AnalysisPtr& analysis = pending_.judgement.analysis;
    if (h.terms.evidence == HoldTerms::Evidence::trial && trial_possible()) return start_trial();
    const bool one = analysis && analysis->statements.size() == 1 &&
                     pending_.kind != StatementKind::function_call && !facts_.replication;
    if (h.terms.evidence == HoldTerms::Evidence::none || !one ||
        !has_plan(analysis->statements.front())) {
        if (h.terms.evidence != HoldTerms::Evidence::none) {
            h.evidence.text = one ? "EXPLAIN has no plan of it"
                                  : "it can't be looked at without being run";
        }
        return open_ticket();
    }
    h.step = Step::tried;
    h.plan.clear();
    h.moved = characters_before(0) - static_cast<std::ptrdiff_t>(explain_prefix.size());
    run_for_evidence(std::string(explain_prefix) + statement_text(0), Role::plan);
    end_asking();
}

// The text of one statement of the message, without the others and what stands between them.
std::string Session::statement_text(std::size_t index) {
    const policy::StatementFacts& facts = pending_.judgement.analysis->statements[index];
    const std::string text = pending_.kind == StatementKind::bind
                                 ? pending_.judgement.analysis->text
                                 : pending_text();
    return text.substr(std::min<std::size_t>(facts.location, text.size()), facts.length);
}

// Of the client's text, in front of one of its statements.
std::ptrdiff_t Session::characters_before(std::size_t index) {
    const policy::StatementFacts& facts = pending_.judgement.analysis->statements[index];
    const std::string text = pending_.kind == StatementKind::bind
                                 ? pending_.judgement.analysis->text
                                 : pending_text();
    const std::string_view before = std::string_view(text).substr(
        0, std::min<std::size_t>(facts.location, text.size()));
    return static_cast<std::ptrdiff_t>(characters(before, settings_.client_encoding_is_utf8()));
}

// With the parameters of the Bind at the front, where there is one.
void Session::run_for_evidence(const std::string& sql, Role role) {
    if (pending_.kind != StatementKind::bind) return inject_extended(sql, role, nullptr);
    const std::string message = held_bind();
    const auto bind = protocol::decode<protocol::Bind>(
        std::string_view(message).substr(protocol::head_size));
    if (!bind) return inject_extended(sql, role, nullptr);
    const auto send = [this](const auto& part, Owed owed, Role as) {
        send_to_server(protocol::encoded(part));
        ledger_.sent(owed, Disposition::swallow, nullptr, as);
    };
    const std::vector<std::int32_t>& types = pending_.statement->parameter_types;
    send(protocol::Close{'S', injected_name}, Owed::close, Role::ours);
    send(protocol::Parse{injected_name, sql, types}, Owed::parse, role);
    protocol::Bind ours = *bind;
    ours.portal = injected_name;
    ours.statement = injected_name;
    ours.result_formats.clear();
    send(ours, Owed::bind, role);
    send(protocol::Execute{injected_name, 0}, Owed::execute, role);
    send(protocol::Close{'P', injected_name}, Owed::close, Role::ours);
    send(protocol::Close{'S', injected_name}, Owed::close, Role::ours);
}

// Runs it, counts, and takes it back.
void Session::start_trial() {
    Hold& h = *hold_;
    const policy::AnalysisPtr& analysis = pending_.judgement.analysis;
    h.trial_in_block = predicted_status_ == 'T';
    auto terms = std::make_shared<Counted>();
    terms->analysis = analysis;
    terms->facts = &analysis->statements.front();
    terms->limits = std::make_shared<const policy::SuperviseLimits>(limits_of_a_trial());
    terms->rule = h.rule;
    terms->total = true;
    h.trial = terms;
    h.tag.clear();
    h.tried = 0;
    h.step = Step::tried;
    Supervision& s = *supervision_;
    s.fresh = false;
    s.effects.reset();
    s.unusable = false;
    inject_extended(h.trial_in_block ? savepoint_sql : begin_sql, Role::ours, nullptr);
    inject_extended(effects_and_locks_sql, Role::reading, nullptr);
    for (std::size_t i = 0; i < analysis->statements.size(); ++i) {
        run_for_evidence(statement_text(i), Role::trial);
    }
    inject_extended(constraints_sql, Role::ours, nullptr);
    inject_extended(effects_and_locks_sql, Role::reading, h.trial);
    end_asking();
}

void Session::hold_tried() {
    Hold& h = *hold_;
    if (h.trial) {
        own_tables_.failed();
        const std::size_t last = h.trial->analysis->statements.size() - 1;
        h.moved = characters_before(std::min(h.tried, last));
        if (h.error.empty() && supervision_->unusable) {
            h.evidence.text = "what it does could not be counted: the server's track_counts is off";
        }
        if (h.trial_in_block && h.deferred_failed) {
            // Later statements of the client's block may yet mend that.
            h.error.clear();
            h.evidence.text =
                "what it does could not be counted: it leaves a deferred constraint violated";
        }
        if (!h.trial_in_block) return retreat();
        // A savepoint can be gone back to in an aborted block as well; the client's statement would
        // have aborted it.
        return h.error.empty() ? retreat() : fail_held_by_server();
    }
    if (!h.error.empty() || ledger_.skipping()) return fail_held_by_server();
    h.evidence = evidence_of_plan(h.plan);
    // A filter shows constants.
    h.evidence.text = h.statement_masked ? policy::shown_without_strings(h.evidence.text).text
                                         : policy::shown(h.evidence.text).text;
    open_ticket();
}

void Session::retreat() {
    Hold& h = *hold_;
    h.step = Step::retreated;
    if (h.trial_in_block) {
        inject_extended(rollback_to_savepoint_sql, Role::ours, nullptr);
        inject_extended(release_savepoint_sql, Role::ours, nullptr);
    } else {
        // The portal of a statement that failed is there until the rollback.
        send_to_server(protocol::encoded(protocol::Close{'P', injected_name}));
        ledger_.sent(Owed::close, Disposition::swallow, nullptr, Role::ours);
        inject_extended(rollback_sql, Role::ours, nullptr);
    }
    end_asking();
}

void Session::hold_retreated() {
    Hold& h = *hold_;
    Supervision& s = *supervision_;
    if (transaction_status_ != (h.trial_in_block ? 'T' : 'I')) {
        // A cancel request may have met it.
        if (++h.attempts < 100 && !h.trial_in_block) return retreat();
        fatal({"XX000", "pgchaperone: a trial could not be rolled back",
               "The connection is closed, which rolls it back.", ""},
              "a trial could not be rolled back");
        return;
    }
    if (!h.error.empty()) return fail_held_by_server();
    const std::optional<Effects> read = std::exchange(s.effects, std::nullopt);
    s.fresh = false;
    if (!h.trial_in_block) forget_transaction();
    const policy::StatementFacts& facts = *h.trial->facts;
    if (read && !std::exchange(s.unusable, false)) {
        const bool one = h.trial->analysis->statements.size() == 1;
        const Effects effects = one ? at_least(*read, effects_of_tag(h.tag, facts),
                                               s.before ? &*s.before : nullptr)
                                    : *read;
        h.evidence = evidence_of(effects, approval::Evidence::Kind::trial);
    }
    if (!h.trial_in_block) s.before.reset();
    open_ticket();
}

// --- The ticket

void Session::open_ticket() {
    Hold& h = *hold_;
    h.request.evidence = h.evidence;
    h.request.wait = h.in_block && !h.terms.waits_in_transaction ? std::chrono::milliseconds(0)
                                                                 : h.terms.wait;
    const Identity& identity = supervision_->identity;
    approval::Terms glass;
    glass.approvers = h.terms.glass_roles;
    const bool may_break = !glass.approvers.empty() && approval::may_decide(glass, identity.person);
    h.request.glass = may_break && (!h.terms.glass_needs_reason || !identity.reason.empty());
    h.request.glass_reason = h.request.glass ? identity.reason : std::string();
    h.may_break_glass = may_break;
    if (client_closed_ && !h.request.glass) return abandon_hold("its requester has left");
    h.step = Step::opened;
    say(OpenTicket{h.request});
}

void Session::handle(const TicketOpened& event) {
    const bool ours = stale_opens_ == 0;
    if (!ours) --stale_opens_;
    const bool wanted = ours && ((waiting_ == Waiting::hold && hold_->step == Step::opened) ||
                                 exceeded_opens());
    if (!wanted) {
        if (event.answer && event.answer->open()) {
            say(WithdrawTicket{event.answer->id, "cancelled by its requester"});
        } else if (event.answer && event.answer->state == approval::State::used) {
            say(FinishTicket{event.answer->id, "not run: it was cancelled"});
        }
        return;
    }
    if (waiting_ != Waiting::hold) {
        exceeded_opened(event);
        return read_client();
    }
    Hold& h = *hold_;
    if (!event.answer) {
        refuse_held(store_failed_refusal(event.answer.error()));
        return read_client();
    }
    const approval::Ticket& ticket = *event.answer;
    h.ticket = ticket.id;
    if (!ticket.request.glass) record_ticket("opened", ticket, {});
    if (ticket.state == approval::State::used) {
        cleared(ticket);
    } else if (ticket.state == approval::State::approved) {
        h.reclaim = ticket.id;
        judge_held_again();
    } else if (h.request.wait.count() == 0) {
        stop_waiting();
        refuse_held(undecided_refusal(false));
    } else {
        h.step = Step::waiting;
        tell_that_it_waits();
        say(SetDeadline{DeadlineKind::held, h.request.wait});
        if (h.terms.notify_every.count() > 0 && h.terms.notify_every < h.request.wait) {
            say(SetDeadline{DeadlineKind::notice, h.terms.notify_every});
        }
        if (h.keep_alive_ms > 0) {
            say(SetDeadline{DeadlineKind::keep_alive, std::chrono::milliseconds(h.keep_alive_ms)});
        }
        if (client_closed_) abandon_hold("its requester has left");
    }
    read_client();
}

void Session::tell_that_it_waits() {
    const Hold& h = *hold_;
    policy::Refusal notice;
    notice.sqlstate = "00000";
    const std::string subject = subject_of(h.command);
    if (h.waited.count() == 0) {
        notice.message = "pgchaperone: " + subject + " waits for approval (ticket " + h.ticket +
                         ")";
        const std::string summary = h.evidence.summary();
        notice.detail = h.reason;
        if (!summary.empty()) {
            notice.detail += (notice.detail.empty() ? "" : "\n") + ("It would change " + summary) +
                             ".";
        }
        const std::string names = names_text(h.terms.approval.approvers);
        notice.hint = "Ask one of " + (names.empty() ? "the approvers" : names) +
                      " to CALL chaperone.approve('" + h.ticket + "') or chaperone.deny('" +
                      h.ticket + "', 'why'). Cancelling withdraws it.";
        if (h.may_break_glass) {
            notice.hint +=
                " You may go ahead alone: cancel, SET chaperone.reason = '...', and run it again.";
        }
    } else {
        const auto left = std::max(std::chrono::milliseconds(0), h.request.wait - h.waited);
        notice.message = "pgchaperone: " + subject + " still waits for approval (ticket " +
                         h.ticket + "), for " + duration_text(left) + " more";
    }
    send_to_client(notice_response(notice, settings_.client_encoding_is_utf8()));
}

void Session::handle(const TicketDecided& event) {
    if (waiting_ != Waiting::hold || hold_->step != Step::waiting) return;
    Hold& h = *hold_;
    if (event.ticket.id != h.ticket) return;
    clear_hold_deadlines();
    const approval::Ticket& ticket = event.ticket;
    if (ticket.state == approval::State::approved) {
        h.reclaim = h.ticket;
        judge_held_again();
    } else {
        record_ticket(std::string(approval::state_name(ticket.state)), ticket, {});
        refuse_held(decided_refusal(ticket));
    }
    read_client();
}

policy::Refusal Session::decided_refusal(const approval::Ticket& ticket) const {
    const Hold& h = *hold_;
    policy::Refusal refusal;
    const std::string by = ticket.state == approval::State::denied ? ticket.decided_by()
                                                                   : ticket.ended_by;
    refusal.message = "pgchaperone: " + subject_of(h.command) +
                      (ticket.state == approval::State::denied ? " was denied" : " may not run") +
                      (ticket.state == approval::State::denied && !by.empty() ? " by " + by : "") +
                      " (ticket " + ticket.id + ")";
    if (ticket.state == approval::State::denied && !ticket.comment.empty()) {
        refusal.message += ": " + ticket.comment;
    }
    if (ticket.state == approval::State::expired) refusal.message += ": the ticket has expired";
    if (ticket.state == approval::State::withdrawn) {
        refusal.message += ": the ticket was withdrawn";
        if (!by.empty()) refusal.message += " by " + by;
    }
    if (ticket.state == approval::State::used) {
        refusal.message += ": its approval was used by another session";
    }
    refusal.detail = h.reason;
    refusal.hint = "Nothing was changed.";
    if (ticket.state != approval::State::denied) refusal.hint += " Run it again to ask anew.";
    return refusal;
}

// The ticket stays open for a later run, if there can be one.
void Session::stop_waiting() {
    const Hold& h = *hold_;
    if (h.this_run == 0) {
        say(ReleaseTicket{h.ticket});
    } else {
        say(WithdrawTicket{h.ticket, "it could not run later"});
    }
}

// Nobody has decided. `waited`: the session has given them time.
policy::Refusal Session::undecided_refusal(bool waited) const {
    const Hold& h = *hold_;
    policy::Refusal refusal;
    const std::string subject = subject_of(h.command);
    refusal.message = "pgchaperone: " + subject +
                      (waited ? " was not approved in time (ticket "
                              : " needs an approval (ticket ") +
                      h.ticket + ")";
    refusal.detail = h.reason;
    const std::string summary = h.evidence.summary();
    if (!summary.empty()) {
        refusal.detail += (refusal.detail.empty() ? "" : "\n") + ("It would change " + summary) +
                          ".";
    }
    if (h.this_run != 0) {
        refusal.hint =
            "Nothing was changed. What a name stands for can't be approved for later: run "
            "the statement itself.";
        return refusal;
    }
    const auto left = h.terms.approval.ttl -
                      (waited ? h.request.wait : std::chrono::milliseconds(0));
    refusal.hint = "Nothing was changed. The ticket stays open for " +
                   duration_text(std::max(std::chrono::milliseconds(1000), left)) +
                   ": once it is approved, run the same statement again. To decide: CALL "
                   "chaperone.approve('" +
                   h.ticket + "').";
    return refusal;
}

// The statement is approved: from here on it is like one that has just come. The policy may have
// become stricter.
void Session::judge_held_again() {
    waiting_ = Waiting::nothing;
    const std::size_t total = pending_.total;
    switch (pending_.kind) {
        case StatementKind::query: client_statement(StatementKind::query, total); return;
        case StatementKind::bind: {
            if (total > 0) {
                client_bind(total);
                return;
            }
            Judge question;
            question.kind = StatementKind::bind;
            StatementHandle bound = pending_.statement;
            question.analysis = bound->judgement.analysis;
            pending_ = {};
            pending_.kind = StatementKind::bind;
            pending_.statement = std::move(bound);
            ask(std::move(question), 0);
            return;
        }
        case StatementKind::function_call: client_function_call(total); return;
        case StatementKind::parse:
        case StatementKind::execute: return;
    }
}

// The ticket is used: the statement runs as soon as that is on record.
void Session::cleared(const approval::Ticket& ticket) {
    Hold& h = *hold_;
    if (claimed_ && claimed_->sequence == 0) {
        if (claimed_->bound) claimed_->bound->revoked = true;
        finish_claimed("not run");
    }
    claimed_ended('T');  // one of the same pipeline
    finish_claimed("begun, and not over");
    claimed_ = std::make_unique<ClaimedTicket>();
    claimed_->id = ticket.id;
    claimed_->secretive = hold_->statement_masked;
    h.reclaim.clear();
    h.ticket = ticket.id;
    const bool binds = ticket.request.evidence.binds() && !ticket.request.glass;
    for (policy::Decision& decision : pending_.judgement.decisions) {
        const bool was_held = held(decision);
        if (!was_held && !held_when_exceeding(decision)) continue;
        if (!binds) {
            if (was_held) decision.action = policy::Action::allow;
            continue;
        }
        auto limits = std::make_shared<policy::SuperviseLimits>(was_held ? limits_of_a_trial()
                                                                         : *decision.supervise);
        limits->approved = approved_effects(ticket);
        decision.action = policy::Action::supervise;
        decision.supervise = std::move(limits);
    }
    if (ticket.request.glass) {
        policy::Refusal notice;
        notice.sqlstate = "01000";
        notice.message = "pgchaperone: " + subject_of(h.command) +
                         " runs without approval: the glass is broken (ticket " + ticket.id + ")";
        notice.detail = "Reason: " + ticket.request.glass_reason;
        notice.hint = "This is on record. RESET chaperone.reason when you are done.";
        send_to_client(notice_response(notice, settings_.client_encoding_is_utf8()));
    }
    pending_.looked = pending_.cleared = true;
    StoreAudit store;
    store.records.push_back(
        ticket_record(ticket.request.glass ? "glass broken" : "approved", ticket));
    waiting_ = Waiting::audit;
    say(std::move(store));
}

// What became of the run of the claimed ticket's statement.
void Session::finish_claimed(std::string outcome) {
    if (!claimed_) return;
    say(FinishTicket{claimed_->id, std::move(outcome)});
    claimed_.reset();
}

void Session::claimed_said(std::string_view tag) {
    if (!claimed_ || claimed_->failed) return;
    while (!tag.empty() && tag.back() == '\0') tag.remove_suffix(1);
    constexpr std::size_t outcome_bytes_max = 300;
    if (claimed_->outcome.size() > outcome_bytes_max) return;
    if (!claimed_->outcome.empty()) claimed_->outcome += ", ";
    claimed_->outcome += tag;
}

void Session::claimed_failed(std::string_view why) {
    if (!claimed_) return;
    claimed_->failed = true;
    // The server's words may quote what they complain of; its SQLSTATE stands in front of them.
    constexpr std::size_t sqlstate_bytes = 5;
    const bool quotes = claimed_->secretive && why.find(' ') == sqlstate_bytes;
    const std::string words = quotes ? std::string(why.substr(0, sqlstate_bytes))
                                     : policy::shown(why).text;
    claimed_->outcome = "failed: " + words.substr(0, 300);
}

// Its ReadyForQuery has come, or its unit is over.
void Session::claimed_ended(char status) {
    if (!claimed_) return;
    const bool sent = claimed_->sequence != 0 || waiting_ == Waiting::unit;
    if (!sent && status == 'T') return;  // bound, and not run yet
    std::string outcome = std::move(claimed_->outcome);
    if (outcome.empty()) outcome = claimed_->sequence != 0 ? "begun" : "not run";
    if (!claimed_->failed && status == 'T') outcome += " (in a transaction that was not over)";
    finish_claimed(std::move(outcome));
}

// --- Ends of a hold

// It is a hold no longer; the statement goes on as it has been decided meanwhile.
void Session::end_hold() {
    clear_hold_deadlines();
    waiting_ = Waiting::nothing;
    carry_out();
}

// What was claimed is on its way to the server, as the message with this sequence number.
void Session::claimed_runs(std::uint64_t sequence) {
    if (claimed_ && claimed_->sequence == 0) claimed_->sequence = sequence;
}

void Session::clear_hold_deadlines() {
    if (!hold_ || hold_->step != Step::waiting) return;
    say(ClearDeadline{DeadlineKind::held});
    say(ClearDeadline{DeadlineKind::notice});
    say(ClearDeadline{DeadlineKind::keep_alive});
}

void Session::refuse_held(policy::Refusal refusal) {
    pending_.rule = hold_->rule;
    pending_.refusal = std::move(refusal);
    end_hold();
}

// What was approved is not claimed after all; a later run may.
void Session::give_back_approval() {
    if (waits_for_claim()) say(ReleaseTicket{std::exchange(hold_->reclaim, {})});
}

// Its requester does not want it any more.
void Session::withdraw_approval(std::string_view why) {
    if (!waits_for_claim()) return;
    say(WithdrawTicket{std::exchange(hold_->reclaim, {}), std::string(why)});
}

namespace {

// An ErrorResponse for our copy of a Bind, with the names of the client's.
std::string with_clients_names(std::string_view error, std::string_view bind_message) {
    const auto bind = protocol::decode<protocol::Bind>(bind_message.substr(protocol::head_size));
    auto response = protocol::decode<protocol::ErrorResponse>(error.substr(protocol::head_size));
    if (!bind || !response) return std::string(error);
    const std::string ours = "\"" + std::string(injected_name) + "\"";
    std::vector<std::string> texts(response->fields.size());
    for (std::size_t i = 0; i < texts.size(); ++i) {
        std::string& text = texts[i] = response->fields[i].value;
        const auto replace = [&](const std::string& what, const std::string& by) {
            const std::size_t at = text.find(what);
            if (at != std::string::npos) text.replace(at, what.size(), by);
        };
        replace("prepared statement " + ours,
                "prepared statement \"" + std::string(bind->statement) + "\"");
        replace("portal " + ours, bind->portal.empty()
                                      ? "unnamed portal"
                                      : "portal \"" + std::string(bind->portal) + "\"");
        response->fields[i].value = text;
    }
    return protocol::encoded(*response);
}

}  // namespace

// What was tried has failed at the server, and so would the statement itself.
void Session::fail_held_by_server() {
    Hold& h = *hold_;
    std::string error = std::exchange(h.error, {});
    if (error.empty())
        return refuse_held({"XX000", "pgchaperone: the server did not answer", "", ""});
    if (pending_.kind == StatementKind::bind) error = with_clients_names(error, held_bind());
    send_to_client(moved_position(error, h.moved));
    clear_hold_deadlines();
    waiting_ = Waiting::nothing;
    // Who cancels at the instant at which somebody approves has cancelled.
    const auto code = protocol::peek_error_field(
        std::string_view(error).substr(protocol::head_size), 'C');
    if (code && *code && **code == "57014") withdraw_approval("cancelled by its requester");
    give_back_approval();
    const std::size_t total = pending_.total;
    if (pending_.kind == StatementKind::bind) {
        if (!ledger_.skipping()) {
            send_to_server(substitute_parse(refused_execute_name, h.rule));
            ledger_.sent(Owed::parse, Disposition::swallow, nullptr, Role::substitute);
        }
        pass(total, Fate::discard);
    } else {
        forget_unnamed();
        pass(total, Fate::discard);
        char status = transaction_status_;
        if (ledger_.skipping()) {
            // It came behind messages that no Sync has ended: their transaction has failed with it,
            // but to the client a Query ends that by itself.
            send_to_server(protocol::encoded(protocol::Sync{}));
            ledger_.sent(Owed::sync, Disposition::swallow, nullptr, Role::ours);
            pipeline_open_ = false;
            bound_since_sync_ = false;
            status = 'I';
        }
        send_to_client(protocol::encoded(protocol::ReadyForQuery{status}));
    }
    pending_ = {};
}

// Its client has gone, or has said that it sends nothing more: it may still read, and what it has
// sent behind this goes on as behind any refusal.
void Session::abandon_hold(std::string_view why) {
    forget_ticket(why, true);
    withdraw_approval(why);
    policy::Refusal refusal;
    refusal.message = "pgchaperone: " + subject_of(hold_->command) +
                      " needs an approval, and its client has closed the connection";
    refusal.hint = "Nothing was changed. Leave the connection open while it waits.";
    refuse_held(std::move(refusal));
}

// The session ends, or its statement is not wanted any more. `withdraw`: by its requester; else
// others may still decide, and a later run may use it.
void Session::forget_ticket(std::string_view why, bool withdraw) {
    if (!hold_ || waiting_ != Waiting::hold) return;
    switch (hold_->step) {
        case Step::claimed: ++stale_claims_; return;
        case Step::opened: ++stale_opens_; return;
        case Step::waiting:
            if (withdraw) {
                record_own_ticket("withdrawn", std::string(why));
                say(WithdrawTicket{hold_->ticket, std::string(why)});
            } else {
                record_own_ticket("released", std::string(why));
                say(ReleaseTicket{hold_->ticket});
            }
            return;
        case Step::drained:
        case Step::identified:
        case Step::tried:
        case Step::retreated: return;
    }
}

void Session::client_left_hold() {
    // It may only have said that it sends nothing more: what needs no waiting goes on.
    if (hold_->step == Step::waiting) abandon_hold("its requester has left");
}

// The server has closed the connection while a statement waited: nothing was run.
void Session::server_left_hold() {
    policy::Refusal words;
    words.sqlstate = "08006";
    words.message = "pgchaperone: the server closed the connection while " +
                    subject_of(hold_->command) + " waited for an approval";
    if (!hold_->ticket.empty()) {
        words.hint = "Nothing was changed. The ticket " + hold_->ticket +
                     " stays open: once it is approved, connect again and run the same statement.";
    }
    fatal(std::move(words), "the server closed the connection while a statement was held");
}

// A CancelRequest: true where it was for a statement that waits. What runs on the server is the
// server's to cancel.
bool Session::handle(const CancelAsked&) {
    if (waiting_ != Waiting::hold) return false;
    const Step step = hold_->step;
    if (step != Step::waiting && step != Step::opened && step != Step::claimed) return false;
    forget_ticket("cancelled by its requester", true);
    withdraw_approval("cancelled by its requester");
    policy::Refusal refusal;
    refusal.sqlstate = "57014";
    refusal.message = "canceling statement due to user request";
    if (!hold_->ticket.empty()) {
        refusal.detail = "pgchaperone: the ticket " + hold_->ticket + " is withdrawn.";
    }
    refuse_held(std::move(refusal));
    read_client();
    return true;
}

void Session::hold_deadline(DeadlineKind kind) {
    if (waiting_ != Waiting::hold || hold_->step != Step::waiting) return;
    Hold& h = *hold_;
    switch (kind) {
        case DeadlineKind::held:
            record_own_ticket("not decided in time", {});
            stop_waiting();
            refuse_held(undecided_refusal(true));
            read_client();
            return;
        case DeadlineKind::notice:
            h.waited += h.terms.notify_every;
            tell_that_it_waits();
            say(SetDeadline{DeadlineKind::notice, h.terms.notify_every});
            return;
        case DeadlineKind::keep_alive:
            if (ledger_.idle()) {
                inject({}, Role::ours, nullptr);
                end_asking();
            }
            say(SetDeadline{DeadlineKind::keep_alive, std::chrono::milliseconds(h.keep_alive_ms)});
            return;
        case DeadlineKind::login:
        case DeadlineKind::linger:
        case DeadlineKind::idle:
        case DeadlineKind::statement:
        case DeadlineKind::transaction: return;
    }
}

// --- What was found to need an approval only when it had run: on_exceed: hold
//
// Simple protocol, outside of a block, and its results were kept back: all of it is rolled back and
// waits like a held statement; approved, it is run again, by what was counted. Else the client gets
// an error with a ticket, and runs it again itself.

// The Bind that waits at the front, or the one of an Execute that exceeded its limits.
std::string Session::held_bind() {
    if (pending_.statement && !pending_.statement->bind.empty() && pending_.total == 0) {
        return pending_.statement->bind;
    }
    return std::string(*from_client_.peek(std::min(pending_.total, from_client_.available())));
}

void Session::start_exceeded(policy::Refusal refusal, const Effects& effects,
                             const CountedPtr& terms) {
    give_back_approval();
    hold_ = std::make_unique<Hold>();
    Hold& h = *hold_;
    add_terms(h.terms, *terms->limits->hold);
    h.number = terms->number;
    h.rule = terms->rule;
    h.command = terms->facts->command;
    h.evidence = evidence_of(effects, approval::Evidence::Kind::counted);
    h.reason = "it exceeded the limits of the rule \"" + terms->rule + "\"";
    h.exceeded = std::move(refusal);
    supervision_->identity = nobody_yet();
}

policy::Refusal Session::exceeded_refusal(const TicketOpened& event) const {
    policy::Refusal refusal = hold_->exceeded;
    if (!event.answer) {
        refusal.hint = "It needs an approval, and tickets can't be kept at the moment: " +
                       event.answer.error().text;
        return refusal;
    }
    refusal.message += " (ticket " + event.answer->id + ")";
    refusal.hint = "If it is meant, let somebody approve it, CALL chaperone.approve('" +
                   event.answer->id + "'), within " + duration_text(hold_->terms.approval.ttl) +
                   ", and then run the same statement again.";
    return refusal;
}

void Session::exceed_unit(policy::Refusal refusal, const CountedPtr& terms) {
    Supervision::Unit& unit = supervision_->unit;
    const bool function_call = !unit.pieces.empty() && unit.pieces.front().function_call;
    if (supervision_->uncounted || function_call || !terms->limits->hold ||
        terms->limits->on_exceed != policy::SuperviseLimits::OnExceed::hold ||
        (transaction_status_ != 'T')) {
        return fail_unit(std::move(refusal));
    }
    claimed_failed(refusal.message);
    start_exceeded(std::move(refusal), unit.effects, terms);
    for (std::size_t i = 0; i < unit.pieces.size(); ++i) {
        if (unit.pieces[i].number != 0) hold_->numbers.emplace_back(i, unit.pieces[i].number);
    }
    unit.step = Supervision::Step::exceeding;
    inject_query(identity_sql, Role::identity, nullptr);
}

void Session::exceeded_unit_identified() {
    Supervision& s = *supervision_;
    Hold& h = *hold_;
    if (!s.injected_error.empty()) return fail_unit_by_server();
    if (!s.identity.usable()) return fail_unit(std::move(h.exceeded));
    const bool waits = s.unit.keeps && !s.unit.shown && s.unit.ours && !client_closed_;
    pending_ = {};
    pending_.kind = StatementKind::query;
    pending_.judgement.analysis = s.unit_analysis;
    make_request();
    h.request.evidence = h.evidence;
    if (waits) {
        s.unit.step = Supervision::Step::retreated;
        inject_query(rollback_sql, Role::ours, nullptr);
        return;
    }
    pending_ = {};
    s.unit.step = Supervision::Step::ticketed;
    say(OpenTicket{h.request});
}

// All of it is taken back: it is a statement that waits at the front, like one that was held at
// once.
void Session::exceeded_unit_retreated() {
    Supervision& s = *supervision_;
    if (transaction_status_ != 'I') {
        if (++s.unit.attempts < 100) {
            inject_query(rollback_sql, Role::ours, nullptr);
            return;
        }
        return end_failed_unit();
    }
    own_tables_.failed();
    if (claimed_) claimed_ended('I');
    s.injected_error.clear();
    pending_.total = s.unit.message_bytes;
    if (!s.unit.reports.empty()) send_to_client(std::move(s.unit.reports));
    s.unit = {};
    s.unit_analysis.reset();
    waiting_ = Waiting::hold;
    hold_->quiet = true;
    const long timeout = s.identity.idle_timeout_ms;
    hold_->keep_alive_ms = timeout > 0 ? std::max(50L, timeout / 3) : 0;
    open_ticket();
}

void Session::exceed_group(policy::Refusal refusal, const Effects& effects,
                           const CountedPtr& terms) {
    Supervision& s = *supervision_;
    if (s.uncounted || !terms->limits->hold || !terms->bound ||
        terms->limits->on_exceed != policy::SuperviseLimits::OnExceed::hold) {
        return refuse_group(std::move(refusal));
    }
    claimed_failed(refusal.message);
    start_exceeded(std::move(refusal), effects, terms);
    hold_->bound = terms->bound;
    s.group.keeps = s.group.keeps && !s.group.withheld.empty() && !ledger_.owes_client();
    s.group.withheld.clear();
    s.group.refused = true;
    s.group.to_close = ledger_.hide_rest();
    own_tables_.failed();
    s.group.exceeded = Supervision::Group::Exceeded::due;
}

bool Session::group_exceeded() const {
    return supervision_ && supervision_->group.exceeded != Supervision::Group::Exceeded::no;
}

void Session::exceeded_group_step() {
    using Exceeded = Supervision::Group::Exceeded;
    Supervision& s = *supervision_;
    Hold& h = *hold_;
    if (s.group.exceeded == Exceeded::opened) return;
    if (!ledger_.idle() && !ledger_.skipping()) {
        if (s.group.exceeded == Exceeded::due && !std::exchange(h.flushed, true)) {
            send_to_server(protocol::encoded(protocol::Flush{}));
        }
        return;
    }
    if (s.group.exceeded == Exceeded::retreated) return exceeded_group_retreated();
    if (ledger_.skipping()) return end_exceeded_group(std::move(h.exceeded));
    if (s.group.exceeded == Exceeded::due) {
        s.group.exceeded = Exceeded::identified;
        inject_extended(identity_sql, Role::identity, nullptr);
        send_to_server(protocol::encoded(protocol::Flush{}));
        return;
    }
    if (!s.identity.usable()) return end_exceeded_group(std::move(h.exceeded));
    Pending waiting = std::exchange(pending_, {});
    pending_.kind = StatementKind::bind;
    pending_.statement = h.bound;
    pending_.judgement.analysis = h.bound->judgement.analysis;
    make_request();
    pending_ = std::move(waiting);
    h.request.evidence = h.evidence;
    if (exceeded_group_waits()) {
        s.group.exceeded = Exceeded::retreated;
        make_group_fail();
        send_to_server(protocol::encoded(protocol::Sync{}));
        ledger_.sent(Owed::sync, Disposition::swallow, nullptr, Role::ours);
        return;
    }
    s.group.exceeded = Exceeded::opened;
    say(OpenTicket{h.request});
}

// It was the only one of its group, the client has seen nothing of it and has sent its Sync, and
// nothing else between them: it can be taken back and run again.
bool Session::exceeded_group_waits() {
    const Supervision::Group& group = supervision_->group;
    return group.keeps && group.at_gate && supervision_->gate_ends_group &&
           group.to_close.empty() && predicted_status_ == 'I' && !client_closed_;
}

void Session::exceeded_group_retreated() {
    Supervision& s = *supervision_;
    Hold& h = *hold_;
    if (transaction_status_ != 'I') return end_exceeded_group(std::move(h.exceeded));
    if (claimed_) claimed_ended('I');
    s.group = {};
    s.gate = Supervision::Gate::none;
    s.gate_ends_group = false;
    s.fresh = false;
    forget_transaction();
    pipeline_open_ = false;
    bound_since_sync_ = false;
    pending_ = {};
    pending_.kind = StatementKind::bind;
    pending_.statement = h.bound;
    pending_.judgement.analysis = h.bound->judgement.analysis;
    waiting_ = Waiting::hold;
    h.quiet = true;
    const long timeout = s.identity.idle_timeout_ms;
    h.keep_alive_ms = timeout > 0 ? std::max(50L, timeout / 3) : 0;
    open_ticket();
}

// A Bind and Execute that were taken back are sent once more; the client has seen BindComplete.
void Session::replay_bind() {
    const StatementHandle bound = pending_.statement;
    auto approved = std::make_shared<PreparedStatement>(*bound);
    approved->judgement = pending_.judgement;
    approved->approved = pending_.cleared;
    approved->bound_behind = last_ran_;
    planning_may_run(approved->judgement);
    send_to_server(bound->bind);
    const std::string portal = replayed_portal();
    const std::uint64_t sequence = ledger_.sent(Owed::bind, Disposition::swallow, nullptr,
                                                Role::ours);
    names_.set_portal(portal, approved, sequence);
    bound_since_sync_ = true;
    pending_.kind = StatementKind::execute;
    pending_.row_limit = 0;
    pending_.statement = std::move(approved);
    if (hold_ && hold_->number != 0 && !pending_.judgement.plainly_allowed()) {
        followed_ = {follow(0, hold_->number)};
    }
    let_through();
}

std::string Session::replayed_portal() const {
    const auto names = protocol::peek_bind(
        std::string_view(pending_.statement->bind).substr(protocol::head_size));
    return names ? std::string(names->portal) : std::string();
}

// The client is told at last.
void Session::end_exceeded_group(policy::Refusal refusal) {
    Supervision::Group& group = supervision_->group;
    group.exceeded = Supervision::Group::Exceeded::no;
    send_to_client(error_response(refusal, "ERROR", settings_.client_encoding_is_utf8()));
    waiting_ = std::exchange(group.at_gate, false) ? Waiting::gate : Waiting::nothing;
    supervise();  // nothing else may come that makes it go on
}

bool Session::exceeded_opens() const {
    if (waiting_ == Waiting::unit) return supervision_->unit.step == Supervision::Step::ticketed;
    return waiting_ == Waiting::exceeded &&
           supervision_->group.exceeded == Supervision::Group::Exceeded::opened;
}

void Session::exceeded_opened(const TicketOpened& event) {
    policy::Refusal refusal = exceeded_refusal(event);
    if (event.answer) {
        hold_->ticket = event.answer->id;
        record_own_ticket("opened", {});
        say(ReleaseTicket{hold_->ticket});  // it does not wait
    }
    if (waiting_ == Waiting::unit) return fail_unit(std::move(refusal));
    end_exceeded_group(std::move(refusal));
}

// Whether a reply belongs to the statement whose ticket was claimed.
bool Session::claims(const Reply& reply) const {
    if (waiting_ == Waiting::unit) return reply.role == Role::piece;
    return claimed_->sequence != 0 && reply.sequence >= claimed_->sequence &&
           (reply.role == Role::client || reply.role == Role::counted);
}

// --- Records

audit::Record Session::ticket_record(std::string outcome, const approval::Ticket& ticket) {
    policy::Judgement judgement;
    judgement.analysis = pending_.judgement.analysis;
    judgement.decisions.resize(1);
    judgement.decisions.front().action = policy::Action::hold;
    judgement.decisions.front().rule = hold_->rule;
    judgement.decisions.front().refusal.message = hold_->reason;
    audit::Record record = make_record(facts_, settings_.application_name(), pending_.kind,
                                       {hold_->request.statement, hold_->statement_masked},
                                       settings_.lexical(), judgement, 0);
    record.number = hold_->number;
    record.ticket = ticket.id;
    record.outcome = std::move(outcome);
    for (const approval::Vote& vote : ticket.votes) {
        (vote.approve ? record.approved_by : record.denied_by).push_back(vote.role);
    }
    record.comment = ticket.request.glass ? ticket.request.glass_reason : ticket.comment;
    for (const approval::TableRows& one : ticket.request.evidence.tables) {
        record.effects.push_back({one.table, one.inserted, one.updated, one.deleted});
    }
    return record;
}

void Session::record_ticket(std::string outcome, const approval::Ticket& ticket,
                            std::string comment) {
    StoreAudit store;
    store.awaited = false;
    store.records.push_back(ticket_record(std::move(outcome), ticket));
    if (!comment.empty()) store.records.back().comment = std::move(comment);
    say(std::move(store));
}

void Session::record_own_ticket(std::string outcome, std::string comment) {
    approval::Ticket ticket;
    ticket.id = hold_->ticket;
    ticket.request.evidence = hold_->evidence;
    record_ticket(std::move(outcome), ticket, std::move(comment));
}

}  // namespace pgchaperone::session
