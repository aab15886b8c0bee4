#include "proxy/net/virtual_schema.h"

#include "approval/words.h"
#include "pgchaperone_version.h"
#include "policy/chaperone_call.h"
#include "policy/rule_match.h"
#include "policy/rule_refusal.h"
#include "proxy/net/json_rows.h"
#include "proxy/net/ticket_words.h"
#include "proxy/session/refusal.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>
#include <vector>

namespace pgchaperone::net {

using approval::approvals_text;
using approval::first_characters;
using approval::Person;
using approval::Ticket;
using approval::voted_text;
using policy::Refusal;
using session::AskChaperone;
using session::ChaperoneAnswer;

namespace {

ChaperoneAnswer rows(JsonRows&& rows) { return {std::move(rows).take(), std::nullopt}; }

ChaperoneAnswer refused(std::string sqlstate, const std::string& message, std::string detail,
                        std::string hint) {
    return {{},
            Refusal{std::move(sqlstate), "pgchaperone: " + message, std::move(detail),
                    std::move(hint)}};
}

ChaperoneAnswer refused(const approval::Failure& failure) {
    return refused(std::string(approval::sqlstate(failure.problem)), failure.text, {},
                   failure.hint);
}

// Whether the person is, or is a member of, one of these roles.
bool is_one_of(const Person& person, const std::vector<policy::Glob>& roles) {
    approval::Terms terms;
    terms.approvers.emplace_back();
    for (const policy::Glob& role : roles) terms.approvers.front().push_back(role.text());
    return approval::may_decide(terms, person);
}

std::string trimmed(std::string_view text) {
    const auto first = text.find_first_not_of(" \t\r\n");
    if (first == std::string_view::npos) return {};
    return std::string(text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1));
}

std::string argument(const AskChaperone& question, std::size_t index) {
    return index < question.arguments.size() ? question.arguments[index].value_or("")
                                             : std::string();
}

void put_time(JsonRows& out, std::string_view name, const std::optional<approval::Time>& time) {
    if (time) out.time(name, *time);
}

std::string condition_text(const policy::Condition& match) {
    std::string out;
    for (const policy::Condition& child : match.children) {
        out += (out.empty() ? "" : ", ") + child.summary();
    }
    return out.empty() ? "always" : out;
}

std::string action_text(const policy::RuleAction& action, bool observed) {
    return (observed ? "observe: " : "") + std::string(policy::action_name(action.action));
}

std::string action_text(const policy::Rule& rule, bool observed) {
    std::string out = rule.decides ? action_text(rule.action, rule.observe || observed)
                                   : std::string();
    const auto add = [&](std::string_view name,
                         const std::optional<std::chrono::milliseconds>& limit) {
        if (!limit) return;
        out += (out.empty() ? "" : ", ") + std::string(name) + ' ' + session::limit_text(*limit);
    };
    add("statement_timeout", rule.limits.statement);
    add("transaction_timeout", rule.limits.transaction);
    return out;
}

constexpr std::string_view rule_by_default = "(default)";
constexpr std::string_view rule_unparsable = "(unparsable)";

std::string_view rule_name(const policy::Policy& policy, const policy::Outcome& outcome) {
    if (outcome.rule >= 0) return policy.rules[static_cast<std::size_t>(outcome.rule)].name;
    return outcome.rule == policy::Outcome::unparsable ? rule_unparsable : rule_by_default;
}

}  // namespace

void VirtualSchema::ask(AskChaperone question, const policy::SessionFacts& asker, Then then) {
    const policy::ChaperoneCall& call = *question.call;
    const std::string& name = call.name;
    if (!call.problem.empty()) return then(refused("42601", call.problem, {}, {}));
    Person& person = question.person;
    if (call.call) {
        if (name == "reload") return reload(person, std::move(then));
        const bool explains = name == "explain";
        if (question.arguments.empty() || !question.arguments.front()) {
            return then(refused("22004",
                                "chaperone." + name + " needs " +
                                    (explains ? "a statement" : "a ticket") + ", not NULL",
                                {},
                                explains ? "CALL chaperone.explain('DELETE FROM orders')"
                                         : "CALL chaperone." + name + "('K7')"));
        }
        if (explains) return explain(argument(question, 0), asker, std::move(then));
        if (name == "approve") return vote(std::move(question), true, std::move(then));
        if (name == "deny") return vote(std::move(question), false, std::move(then));
        if (name == "withdraw") return withdraw(std::move(question), std::move(then));
    } else {
        if (name == "pending") return pending(std::move(person), std::move(then));
        if (name == "history") return history(std::move(person), std::move(then));
        if (name == "sessions") return then(sessions(person, asker.id));
        if (name == "rules") return then(rules());
        if (name == "version") return then(version());
        if (name == "stats") return then(stats());
        if (name.starts_with(policy::ticket_prefix)) {
            return ticket(name.substr(policy::ticket_prefix.size()), std::move(person),
                          std::move(then));
        }
    }
    then(refused("42704", "there is nothing of the name chaperone." + name, {},
                 "SHOW chaperone.pending; SHOW chaperone.ticket_k7; CALL chaperone.approve('K7')"));
}

void VirtualSchema::pending(Person person, Then then) {
    sources_.desk.open_tickets(
        std::move(person), rows_max,
        [this, then = std::move(then)](approval::Result<std::vector<Ticket>> tickets) {
            if (!tickets) return then(refused(tickets.error()));
            const approval::Time now = sources_.now();
            JsonRows out;
            for (const Ticket& ticket : *tickets) {
                const approval::Request& request = ticket.request;
                out.row()
                    .text("ticket", ticket.id)
                    .text("state", approval::state_name(ticket.state))
                    .text("requester", request.requester.role)
                    .text("database", request.database)
                    .time("opened", ticket.opened)
                    .time("expires", ticket.expires)
                    .flag("waiting", ticket.waiting(now))
                    .text("command", request.command)
                    .text("effects", request.evidence.summary())
                    .text("rule", request.rule)
                    .text("reason", request.reason)
                    .text("approvals", approvals_text(ticket))
                    .text("statement", first_characters(request.statement, statement_characters));
            }
            then(rows(std::move(out)));
        });
}

void VirtualSchema::ticket(std::string id, Person person, Then then) {
    sources_.desk.find(
        std::move(id), std::move(person),
        [this, then = std::move(then)](approval::Result<Ticket> ticket) {
            if (!ticket) return then(refused(ticket.error()));
            JsonRows out;
            for (const auto& [field, value] : ticket_fields(*ticket, sources_.now())) {
                out.row().text("field", field).text("value", value);
            }
            then(rows(std::move(out)));
        });
}

void VirtualSchema::history(Person person, Then then) {
    sources_.desk.history(
        std::move(person), rows_max,
        [then = std::move(then)](approval::Result<std::vector<Ticket>> tickets) {
            if (!tickets) return then(refused(tickets.error()));
            JsonRows out;
            for (const Ticket& ticket : *tickets) {
                const approval::Request& request = ticket.request;
                out.row()
                    .text("ticket", ticket.id)
                    .text("state", approval::state_name(ticket.state))
                    .text("requester", request.requester.role)
                    .text("database", request.database)
                    .text("command", request.command)
                    .text("effects", request.evidence.summary())
                    .time("opened", ticket.opened);
                put_time(out, "ended", ticket.ended);
                out.text("decided_by", ticket.decided_by())
                    .text("comment", ticket.comment)
                    .text("outcome", ticket.outcome)
                    .text("statement", first_characters(request.statement, statement_characters));
            }
            then(rows(std::move(out)));
        });
}

// Who else is here, and from where, is for those who answer for the place.
ChaperoneAnswer VirtualSchema::sessions(const Person& person, std::uint64_t own) const {
    const auto edition = sources_.rules.current();
    const policy::Policy& policy = edition->policy;
    const bool all = is_one_of(person, policy.approvers) || is_one_of(person, policy.operators);
    JsonRows out;
    std::size_t shown = 0;
    for (const Present& present : sources_.directory.all()) {
        if (present.upstream != sources_.upstream) continue;
        if (!all && present.user != person.role && present.session != own) continue;
        if (shown++ == rows_max) break;
        out.row()
            .number("session", present.session)
            .text("username", present.user)
            .text("database", present.database)
            .text("client", present.client)
            .text("application", present.application)
            .flag("tls", present.tls)
            .time("since", present.since)
            .text("state", present.ticket.empty() ? "open" : "held");
        if (!present.ticket.empty()) out.text("ticket", present.ticket);
    }
    return rows(std::move(out));
}

ChaperoneAnswer VirtualSchema::rules() const {
    const auto edition = sources_.rules.current();
    const policy::Policy& policy = edition->policy;
    JsonRows out;
    std::uint64_t position = 0;
    for (const policy::Rule& rule : policy.rules) {
        out.row()
            .number("position", ++position)
            .text("rule", rule.name)
            .text("action", action_text(rule, policy.observe))
            .text("condition", condition_text(rule.match))
            .text("origin", rule.origin.empty() ? rule.place.text() : rule.origin);
    }
    out.row()
        .number("position", ++position)
        .text("rule", rule_unparsable)
        .text("action", action_text(policy.unparsable, policy.observe))
        .text("condition", "no rule above decides, and the statement can't be read")
        .text("origin", policy.source);
    out.row()
        .number("position", ++position)
        .text("rule", rule_by_default)
        .text("action", action_text(policy.by_default, policy.observe))
        .text("condition", "no rule above decides")
        .text("origin", policy.source);
    return rows(std::move(out));
}

ChaperoneAnswer VirtualSchema::version() const {
    const auto edition = sources_.rules.current();
    JsonRows out;
    out.row()
        .text("version", PGCHAPERONE_VERSION)
        .text("grammar", "PostgreSQL " PGCHAPERONE_GRAMMAR_VERSION_TEXT)
        .text("policy", edition->policy.source)
        .number("policy_version", edition->version)
        .text("store", sources_.store)
        .text("environment", sources_.environment ? sources_.environment() : std::string());
    return rows(std::move(out));
}

ChaperoneAnswer VirtualSchema::stats() const {
    const approval::Desk::Stats desk = sources_.desk.stats();
    JsonRows out;
    const auto add = [&](std::string_view name, std::uint64_t value) {
        out.row().text("name", name).number("value", value);
    };
    add("sessions", sources_.directory.size(sources_.upstream).sessions);
    if (sources_.connections) {
        const ConnectionCounts connections = sources_.connections();
        add("connections_taken", connections.taken);
        add("connections_refused", connections.refused);
    }
    if (sources_.traffic) {
        const Traffic traffic = sources_.traffic();
        add("connections", traffic.connections);
        for (std::size_t i = 0; i < traffic.refused.size(); ++i)
            add("connections_refused_" + std::string(refused_for_names[i]), traffic.refused[i]);
        add("logins", traffic.logins);
        add("logins_failed", traffic.logins_failed);
        for (std::size_t i = 0; i < traffic.bytes.size(); ++i)
            add("bytes_" + std::string(direction_names[i]), traffic.bytes[i]);
        for (std::size_t i = 0; i < session::counted_decisions; ++i) {
            const auto decision = static_cast<session::CountedDecision>(i);
            add("statements_" + std::string(counted_decision_name(decision)),
                traffic.statements_decided(decision));
        }
        for (std::size_t i = 0; i < session::supervision_ends; ++i) {
            const auto end = static_cast<session::SupervisionEnd>(i);
            add("supervisions_" + std::string(supervision_end_name(end)), traffic.supervisions[i]);
        }
        for (std::size_t i = 0; i < session::time_limit_kinds; ++i) {
            const auto kind = static_cast<session::TimeLimitKind>(i);
            add("time_limits_" + std::string(time_limit_name(kind)), traffic.time_limits[i]);
        }
        add("parse_cache_hits", traffic.cache_hits);
        add("parse_cache_misses", traffic.cache_misses);
        add("upstream_connects", traffic.upstream_connects);
        for (std::size_t i = 0; i < traffic.upstream_errors.size(); ++i) {
            add("upstream_errors_" + std::string(upstream_error_names[i]),
                traffic.upstream_errors[i]);
        }
    }
    add("tickets_waiting", desk.waiting);
    add("tickets_opened", desk.opened);
    add("tickets_approved", desk.approved);
    add("tickets_denied", desk.denied);
    add("tickets_expired", desk.expired);
    add("tickets_withdrawn", desk.withdrawn);
    add("tickets_used", desk.used);
    add("glass_broken", desk.glass);
    add("store_failures", desk.store_failures);
    if (sources_.audit) {
        const AuditCounts audit = sources_.audit();
        add("audit_records", audit.log.records);
        add("audit_checkpoints", audit.log.checkpoints);
        add("audit_refused", audit.log.refused);
        add("audit_overdue", audit.overdue);
        add("audit_dropped", audit.dropped);
        add("audit_waiting", audit.log.waiting);
        add("audit_failing", audit.log.failing ? 1 : 0);
        add("statements_unrecorded", audit.unrecorded);
        add("statements_refused_unrecorded", audit.refused_unrecorded);
    }
    const WebhookStats webhooks = sources_.webhooks ? sources_.webhooks() : WebhookStats{};
    add("webhooks_sent", webhooks.sent);
    add("webhooks_failed", webhooks.failed);
    add("webhooks_dropped", webhooks.dropped);
    add("webhooks_queued", webhooks.queued);
    if (sources_.reloads) {
        const Reloads reloads = sources_.reloads();
        add("reloads", reloads.successes);
        add("reloads_failed", reloads.failures);
    }
    return rows(std::move(out));
}

void VirtualSchema::vote(AskChaperone question, bool approve, Then then) {
    sources_.desk.vote(trimmed(argument(question, 0)), std::move(question.person), approve,
                       argument(question, 1),
                       [this, then = std::move(then)](approval::Result<Ticket> ticket) {
                           if (!ticket) return then(refused(ticket.error()));
                           JsonRows out;
                           out.row()
                               .text("ticket", ticket->id)
                               .text("state", approval::state_name(ticket->state))
                               .text("message", voted_text(*ticket, sources_.now()));
                           then(rows(std::move(out)));
                       });
}

void VirtualSchema::withdraw(AskChaperone question, Then then) {
    sources_.desk.withdraw(trimmed(argument(question, 0)), std::move(question.person),
                           argument(question, 1),
                           [then = std::move(then)](approval::Result<Ticket> ticket) {
                               if (!ticket) return then(refused(ticket.error()));
                               JsonRows out;
                               out.row()
                                   .text("ticket", ticket->id)
                                   .text("state", approval::state_name(ticket->state))
                                   .text("message", "withdrawn: nobody can approve it any more");
                               then(rows(std::move(out)));
                           });
}

// What would become of these statements, were they sent by the one who asks, here and now.
void VirtualSchema::explain(std::string sql, policy::SessionFacts asker, Then then) {
    sources_.aside([this, sql = std::move(sql), asker = std::move(asker),
                    then = std::move(then)](policy::Engine& engine) {
        policy::Moment moment;
        moment.now = sources_.now();
        const policy::Judgement judgement = engine.judge(sql, {}, asker, moment);
        const auto edition = sources_.rules.current();
        const policy::SessionAnswers answers = policy::answer_session_conditions(edition->policy,
                                                                                 asker);
        JsonRows out;
        const auto& statements = judgement.analysis->statements;
        for (std::size_t i = 0; i < statements.size(); ++i) {
            const policy::StatementFacts& facts = statements[i];
            const std::string_view text = std::string_view(judgement.analysis->text)
                                              .substr(facts.location, facts.length);
            const policy::Outcome outcome = policy::evaluate(
                edition->policy, {facts, text, asker, moment}, answers, nullptr);
            policy::Decision decision;
            if (!judgement.plainly_allowed()) decision = judgement.decisions[i];
            const bool answered = decision.action == policy::Action::answer;
            const std::string action(policy::action_name(decision.action));
            std::string_view rule = decision.rule;
            if (judgement.plainly_allowed()) {
                rule = rule_name(edition->policy, outcome);
            } else if (rule.empty() && !answered) {
                rule = facts.unparsable ? rule_unparsable : rule_by_default;
            }
            const Refusal& refusal = decision.refusal;
            std::string reason = refusal.reason.empty() ? refusal.message : refusal.reason;
            if (answered) reason = "it is answered by pgchaperone, and the server never sees it";
            if (decision.observed) reason = "only noted (" + action + "): " + reason;
            out.row()
                .number("statement", i + 1)
                .text("command", facts.command)
                .text("action", decision.observed ? "allow" : action)
                .text("rule", rule)
                .text("reason", reason)
                .text("sql", first_characters(text, statement_characters));
        }
        then(rows(std::move(out)));
    });
}

void VirtualSchema::reload(const Person& person, Then then) {
    const auto edition = sources_.rules.current();
    const std::vector<policy::Glob>& operators = edition->policy.operators;
    // What is wrong with the whole configuration is told, too.
    if (!sources_.upstream.empty()) {
        return then(refused("42501", "only an operator of the first server may reload",
                            "The configuration is that of all servers that are guarded here.",
                            "Connect to a database of the server that the top level names, or send "
                            "SIGHUP to pgchaperone."));
    }
    if (!is_one_of(person, operators)) {
        return then(refused(
            "42501", "role \"" + person.role + "\" may not reload the policy",
            operators.empty() ? "The policy lists no operators, so nobody may by this command."
                              : "It is none of the policy's operators.",
            operators.empty()
                ? "Send SIGHUP to pgchaperone, or list roles in the policy: operators: [dba_*]."
                : "Send SIGHUP to pgchaperone, or ask an operator."));
    }
    sources_.aside([this, role = person.role, then = std::move(then)](policy::Engine&) {
        const ReloadOutcome outcome = sources_.reload(role);
        if (!outcome.trouble.empty() && !outcome.policy_taken) {
            return then(refused("F0000", "the policy stays as it was", outcome.trouble,
                                "`pgchaperone config check FILE` shows the same."));
        }
        if (!outcome.trouble.empty()) {
            return then(refused("F0000", "the policy is in force, and not all else is",
                                outcome.trouble, "Mend what the detail names, and reload again."));
        }
        const auto now = sources_.rules.current();
        JsonRows out;
        out.row().text("result",
                       "version " + std::to_string(now->version) +
                           " of the policy is in force, from " + now->policy.source +
                           (outcome.restart.empty()
                                ? ""
                                : "; changed, and taken only at a restart: " + outcome.restart));
        then(rows(std::move(out)));
    });
}

}  // namespace pgchaperone::net
