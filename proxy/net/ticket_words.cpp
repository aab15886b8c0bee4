#include "proxy/net/ticket_words.h"

#include "approval/words.h"
#include "audit/line.h"
#include "policy/rule_refusal.h"

#include <algorithm>

namespace pgchaperone::net {

using approval::approvals_text;
using approval::approvers_text;
using approval::Evidence;
using approval::State;
using approval::Terms;
using approval::Ticket;
using approval::Time;

namespace {

constexpr std::size_t log_line_bytes = 1000;

std::string lines(const std::vector<std::string>& items) {
    std::string out;
    for (const std::string& item : items) out += (out.empty() ? "" : "\n") + item;
    return out;
}

// 48,210
std::string number_text(std::uint64_t number) {
    std::string digits = std::to_string(number);
    for (std::size_t at = digits.size(); at > 3;) digits.insert(at -= 3, 1, ',');
    return digits;
}

std::string rows_text(const approval::TableRows& rows, bool about) {
    std::string out;
    const auto add = [&](std::uint64_t count, const char* done) {
        if (count == 0) return;
        out += (out.empty() ? "" : ", ") + number_text(count) + ' ' + done;
    };
    add(rows.deleted, "deleted");
    add(rows.updated, "updated");
    add(rows.inserted, "inserted");
    return rows.table + ": " + (out.empty() ? "nothing" : (about ? "about " : "") + out);
}

std::string tables_text(const Evidence& evidence) {
    std::vector<std::string> items;
    for (const approval::TableRows& rows : evidence.tables) {
        items.push_back(rows_text(rows, evidence.kind == Evidence::Kind::plan));
    }
    return lines(items);
}

std::string evidence_text(const Evidence& evidence) {
    switch (evidence.kind) {
        case Evidence::Kind::none: return evidence.text.empty() ? "none" : "none: " + evidence.text;
        case Evidence::Kind::plan: return "plan: what the planner expects";
        case Evidence::Kind::trial: return "trial: counted in a run that was rolled back";
        case Evidence::Kind::counted:
            return "counted: a run that went over its limits and was rolled back";
    }
    return {};
}

std::string votes_text(const Ticket& ticket) {
    std::vector<std::string> items;
    for (const approval::Vote& vote : ticket.votes) {
        items.push_back(audit::to_text(vote.at) + " " + vote.role +
                        (vote.approve ? " approved" : " denied") +
                        (vote.comment.empty() ? "" : ": " + vote.comment));
    }
    return lines(items);
}

std::string parameters_text(const approval::Request& request) {
    std::vector<std::string> items;
    for (std::size_t i = 0; i < request.parameters.size(); ++i) {
        const auto& value = request.parameters[i];
        items.push_back("$" + std::to_string(i + 1) + " = " +
                        (value ? "'" + *value + "'" : std::string("NULL")));
    }
    return lines(items);
}

std::string note_text(const approval::Request& request) {
    std::vector<std::string> items;
    const Evidence& evidence = request.evidence;
    const bool told = evidence.kind == Evidence::Kind::none ||  // with the evidence's kind
                      evidence.kind == Evidence::Kind::plan;    // as the plan
    if (!told && !evidence.text.empty()) items.push_back(evidence.text);
    if (request.statement_cut) {
        items.push_back("Only the beginning of the statement is kept; all of it would run.");
    }
    return lines(items);
}

std::string waiting_text(const Ticket& ticket, Time now) {
    if (!ticket.open()) return {};
    return ticket.waiting(now) ? "yes" : "no: its requester has to run the statement again";
}

}  // namespace

std::vector<std::pair<std::string, std::string>> ticket_fields(const Ticket& ticket, Time now) {
    std::vector<std::pair<std::string, std::string>> out;
    const auto add = [&](const char* field, std::string value) {
        if (!value.empty()) out.emplace_back(field, std::move(value));
    };
    const approval::Request& request = ticket.request;
    add("ticket", ticket.id);
    add("state", std::string(approval::state_name(ticket.state)));
    add("requester", request.requester.role);
    add("database", request.database);
    add("upstream", request.requester.upstream);
    add("client", request.client);
    add("application", request.application);
    add("replica", ticket.replica);
    add("opened", audit::to_text(ticket.opened));
    if (ticket.open()) add("expires", audit::to_text(ticket.expires));
    add("waiting", waiting_text(ticket, now));
    add("command", request.command);
    add("rule", request.rule);
    add("reason", request.reason);
    if (request.glass) {
        add("glass", "broken: it ran without a second person");
        add("glass_reason", request.glass_reason);
    } else {
        add("approvers", approvers_text(request.terms));
        add("approvals", approvals_text(ticket));
    }
    add("votes", votes_text(ticket));
    add("comment", ticket.comment);
    add("evidence", evidence_text(request.evidence));
    add("effects", request.evidence.summary());
    add("tables", tables_text(request.evidence));
    add("catalog_changes", lines(request.evidence.catalog_changes));
    add("exclusive_locks", lines(request.evidence.exclusive_locks));
    add("foreign_writes", lines(request.evidence.foreign_writes));
    if (request.evidence.kind == Evidence::Kind::plan) {
        add("plan", request.evidence.text);
    }
    add("note", note_text(request));
    if (ticket.ended) add("ended", audit::to_text(*ticket.ended));
    add("ended_by", ticket.ended_by);
    add("outcome", ticket.outcome);
    add("settings", request.settings);
    add("parameters", parameters_text(request));
    add("statement", request.statement);
    return out;
}

LogLine log_line(const approval::Happened& happened) {
    using Kind = approval::Happened::Kind;
    const Ticket& ticket = happened.ticket;
    const approval::Request& request = ticket.request;
    std::string text = "ticket " + ticket.id + ": ";
    switch (happened.kind) {
        case Kind::opened: text += "opened"; break;
        case Kind::voted:
            text += "approved by " + ticket.decided_by() + " (" + approvals_text(ticket) + ")";
            break;
        case Kind::decided:
            text += std::string(approval::state_name(ticket.state)) + " by " + ticket.decided_by();
            break;
        case Kind::expired: text += "expired"; break;
        case Kind::withdrawn:
            text += "withdrawn" + (ticket.ended_by.empty() ? "" : " (" + ticket.ended_by + ")");
            break;
        case Kind::used: text += "used"; break;
        case Kind::glass: text += "THE GLASS WAS BROKEN: it runs without a second person"; break;
        case Kind::finished: text += "finished (" + ticket.outcome + ")"; break;
    }
    const std::string& upstream = request.requester.upstream;
    text += ": requester=" + request.requester.role + " database=" + request.database +
            (upstream.empty() ? "" : " upstream=" + upstream) + " client=" + request.client +
            " command=" + request.command + " rule=" + request.rule;
    if (happened.kind == Kind::opened) {
        if (const std::string effects = request.evidence.summary(); !effects.empty()) {
            text += " effects=" + effects;
        }
    }
    if (happened.kind == Kind::glass) text += " reason=" + request.glass_reason;
    // Names and reasons are whatever people make them; a line of the log stays one line.
    return {policy::first_words(text, log_line_bytes), happened.kind == Kind::glass};
}

}  // namespace pgchaperone::net
