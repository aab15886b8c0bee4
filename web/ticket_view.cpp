#include "web/ticket_view.h"

#include "approval/ticket_json.h"
#include "approval/words.h"
#include "web/sessions.h"

#include <utility>

namespace pgchaperone::web {

using approval::Evidence;
using approval::Person;
using approval::Ticket;

namespace {

constexpr std::size_t seen_characters = 32;

// Without what is long and says nothing of who may do what.
Ticket without_texts(const Ticket& ticket) {
    Ticket out;
    out.id = ticket.id;
    out.state = ticket.state;
    out.replica = ticket.replica;
    out.opened = ticket.opened;
    out.expires = ticket.expires;
    out.held_until = ticket.held_until;
    out.votes = ticket.votes;
    out.ended = ticket.ended;
    out.ended_by = ticket.ended_by;
    out.request.requester = ticket.request.requester;
    out.request.command = ticket.request.command;
    out.request.terms = ticket.request.terms;
    return out;
}

void put_texts(JsonOut& out, const char* name, const std::vector<std::string>& texts) {
    out.name(name).open('[');
    for (const std::string& text : texts) out.text(text);
    out.close(']');
}

void put_evidence(JsonOut& out, const Evidence& evidence) {
    out.name("effects").open('{').text("kind", approval::evidence_name(evidence.kind));
    out.text("summary", evidence.summary()).name("tables").open('[');
    for (const approval::TableRows& rows : evidence.tables) {
        out.open('{').text("table", rows.table).number("inserted", rows.inserted);
        out.number("updated", rows.updated).number("deleted", rows.deleted).close('}');
    }
    out.close(']');
    put_texts(out, "catalog_changes", evidence.catalog_changes);
    put_texts(out, "exclusive_locks", evidence.exclusive_locks);
    put_texts(out, "foreign_writes", evidence.foreign_writes);
    out.text_if("text", evidence.text).close('}');
}

// What the ticket itself would say to it, were it tried now.
void put_may(JsonOut& out, const Ticket& ticket, const Person& person, approval::Time now) {
    const Ticket bare = without_texts(ticket);
    const auto vote = approval::voted(bare, person, true, {}, now);
    // Who has said yes may still say no.
    const bool decide = vote.has_value() ||
                        approval::voted(bare, person, false, {}, now).has_value();
    out.name("may").open('{').flag("decide", decide).flag("approve", vote.has_value());
    if (!vote) out.text("why_not", vote.error().text);
    out.flag("withdraw", approval::withdrawn(bare, &person, {}, now).has_value()).close('}');
}

void put_rest(JsonOut& out, const Ticket& ticket) {
    const approval::Request& request = ticket.request;
    out.name("parameters").open('[');
    for (const auto& value : request.parameters) {
        if (value) {
            out.text(*value);
        } else {
            out.null();
        }
    }
    out.close(']').text("settings", request.settings);
    out.text("approvers", approval::approvers_text(request.terms)).text("replica", ticket.replica);
    out.number("session", request.session).name("votes").open('[');
    for (const approval::Vote& vote : ticket.votes) {
        out.open('{').text("role", vote.role).flag("approve", vote.approve);
        out.text("comment", vote.comment).time("at", vote.at).close('}');
    }
    out.close(']');
}

}  // namespace

std::string seen_of(const Ticket& ticket) {
    Ticket seen;
    seen.id = ticket.id;
    const approval::Request& request = ticket.request;
    seen.request.binding = request.binding;  // stands for the statement and its parameters
    seen.request.evidence = request.evidence;
    seen.request.terms = request.terms;
    seen.request.rule = request.rule;
    seen.request.reason = request.reason;
    return sha256(approval::json_of(seen)).substr(0, seen_characters);
}

void put_ticket(JsonOut& out, const Ticket& ticket, const Person& person, approval::Time now,
                Extent extent, const std::string& message) {
    const approval::Request& request = ticket.request;
    out.open('{').text("id", ticket.id).text("state", approval::state_name(ticket.state));
    out.text("command", request.command).text("requester", request.requester.role);
    out.text("database", request.database).text_if("upstream", request.requester.upstream);
    out.text("client", request.client);
    out.text("application", request.application).text("rule", request.rule);
    out.text("reason", request.reason).time("opened", ticket.opened);
    out.time("expires", ticket.expires);
    const bool waiting = ticket.waiting(now);
    if (waiting) out.time("held_until", ticket.held_until);
    out.flag("waiting", waiting);
    if (request.glass) out.flag("glass", true).text("glass_reason", request.glass_reason);
    out.name("approvals").open('{').number("given", ticket.approvals());
    out.number("needed", request.terms.approvals).close('}');
    put_evidence(out, request.evidence);
    const std::string statement = extent == Extent::full
                                      ? request.statement
                                      : approval::first_characters(request.statement,
                                                                   statement_characters);
    out.text("statement", statement);
    out.flag("statement_cut", request.statement_cut || statement != request.statement);
    out.flag("own", approval::same_person(request.requester, person));
    put_may(out, ticket, person, now);
    out.text("seen", seen_of(ticket)).text_if("decided_by", ticket.decided_by());
    if (ticket.ended) out.time("ended", *ticket.ended).text_if("ended_by", ticket.ended_by);
    out.text_if("comment", ticket.comment).text_if("outcome", ticket.outcome);
    if (extent == Extent::full) put_rest(out, ticket);
    out.text_if("message", message).close('}');
}

}  // namespace pgchaperone::web
