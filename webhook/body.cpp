#include "webhook/body.h"

#include "approval/visible_text.h"
#include "approval/words.h"
#include "audit/line.h"
#include "webhook/text.h"

#include <boost/json.hpp>

#include <algorithm>

namespace pgchaperone::webhook {
namespace {

using approval::Happened;
using approval::State;
using approval::Ticket;
using boost::json::array;
using boost::json::object;

constexpr std::size_t name_characters = 200;
constexpr std::size_t words_characters = 1000;  // of a reason, a comment
constexpr std::size_t tables_max = 100;
// Below Slack's limits: 150 of a header, 2,000 of a field, 3,000 of a section.
constexpr std::size_t header_characters = 140;
constexpr std::size_t field_bytes = 1800;
constexpr std::size_t section_bytes = 2800;

// As it may be shown, on one line.
std::string shown(std::string_view text, std::size_t characters = name_characters) {
    // A character has four bytes at most; so nothing is looked at that can't be shown.
    return approval::visible_line(
        approval::first_characters(text.substr(0, 4 * characters + 4), characters));
}

std::string shown_statement(const Hook& hook, const Ticket& ticket) {
    if (!hook.statement) return {};
    const std::string_view text = ticket.request.statement;
    return approval::visible_lines(approval::first_characters(
        text.substr(0, 4 * statement_characters + 4), statement_characters));
}

std::string reason_of(const Ticket& ticket) {
    const approval::Request& request = ticket.request;
    return shown(
        request.glass && !request.glass_reason.empty() ? request.glass_reason : request.reason,
        words_characters);
}

std::string effects_of(const Ticket& ticket) {
    return shown(ticket.request.evidence.summary(), words_characters);
}

std::string approvals_of(const Ticket& ticket) {
    return ticket.request.glass ? std::string() : approval::approvals_text(ticket);
}

std::string url_of(const Ticket& ticket, const Envelope& envelope) {
    if (envelope.page_url.empty()) return {};
    const bool slash = envelope.page_url.back() == '/';
    return envelope.page_url + (slash ? "#" : "/#") + ticket.id;
}

// --- The documented object.

object effects_object(const approval::Evidence& evidence) {
    array tables;
    for (const approval::TableRows& rows : evidence.tables) {
        if (tables.size() == tables_max) break;
        tables.push_back(object{{"table", shown(rows.table)},
                                {"inserted", rows.inserted},
                                {"updated", rows.updated},
                                {"deleted", rows.deleted}});
    }
    return {{"kind", approval::evidence_name(evidence.kind)},
            {"summary", shown(evidence.summary(), words_characters)},
            {"tables", std::move(tables)}};
}

std::string json_body(const Hook& hook, const Happened& happened, const Envelope& envelope) {
    const Ticket& ticket = happened.ticket;
    const approval::Request& request = ticket.request;
    object about{
        {"id", ticket.id},
        {"state", approval::state_name(ticket.state)},
        {"requester", shown(request.requester.role)},
        {"database", shown(request.database)},
        {"client", shown(request.client)},
        {"application", shown(request.application)},
        {"command", shown(request.command)},
        {"rule", shown(request.rule)},
        {"reason", shown(request.reason, words_characters)},
        {"effects", effects_object(request.evidence)},
        {"approvals", {{"given", ticket.approvals()}, {"needed", request.terms.approvals}}},
        {"opened", audit::to_text(ticket.opened)},
        {"expires", audit::to_text(ticket.expires)}};
    const auto add = [&](const char* key, std::string value) {
        if (!value.empty()) about[key] = std::move(value);
    };
    add("upstream", shown(request.requester.upstream));
    add("glass_reason", shown(request.glass_reason, words_characters));
    add("decided_by", shown(ticket.decided_by()));
    add("ended_by", shown(ticket.ended_by));
    add("comment", shown(ticket.comment, words_characters));
    add("outcome", shown(ticket.outcome, words_characters));
    add("url", url_of(ticket, envelope));
    add("statement", shown_statement(hook, ticket));
    return boost::json::serialize(object{{"version", body_version},
                                         {"event", event_name(happened.kind)},
                                         {"id", envelope.id},
                                         {"time", audit::to_text(envelope.time)},
                                         {"replica", shown(envelope.replica)},
                                         {"ticket", std::move(about)}});
}

// --- Slack's, which Mattermost takes too (it shows the text alone, as Markdown).

// For mrkdwn, at most so many bytes. What stands in it is put between backticks, where no sign is a
// mark, a mention or a link; so it must have none of its own.
std::string escaped(std::string_view text, std::size_t bytes_max) {
    constexpr std::string_view ellipsis = "…";
    std::string out;
    while (!text.empty()) {
        const std::string_view c = approval::front_character(text).bytes;
        const std::string_view piece = c == "&"   ? "&amp;"
                                       : c == "<" ? "&lt;"
                                       : c == ">" ? "&gt;"
                                       : c == "`" ? "ˋ"
                                                  : c;
        if (out.size() + piece.size() + ellipsis.size() > bytes_max)
            return out + std::string(ellipsis);
        out += piece;
        text.remove_prefix(c.size());
    }
    return out;
}

std::string code(const std::string& text) { return "`" + escaped(text, field_bytes) + "`"; }

object mrkdwn(std::string text) { return {{"type", "mrkdwn"}, {"text", std::move(text)}}; }

object section(std::string text) {
    return {{"type", "section"}, {"text", mrkdwn(std::move(text))}};
}

std::string fallback_text(const Happened& happened, const std::string& url) {
    const Ticket& ticket = happened.ticket;
    const std::string what = headline(happened);
    std::string text = happened.kind == Event::glass
                           ? ":rotating_light: *GLASS BROKEN*" +
                                 what.substr(std::string_view("GLASS BROKEN").size())
                           : "*" + what + "*";
    text += " (ticket " + ticket.id + "), asked for by " +
            code(shown(ticket.request.requester.role)) + " on " +
            code(shown(ticket.request.database));
    if (const std::string& upstream = ticket.request.requester.upstream; !upstream.empty())
        text += " at " + code(shown(upstream));
    const auto add = [&](const char* name, const std::string& value) {
        if (!value.empty()) text += std::string("\n") + name + ": " + code(value);
    };
    add("Would change", effects_of(ticket));
    if (happened.kind == Event::opened || happened.kind == Event::glass)
        add("Why", reason_of(ticket));
    add("By", shown(ticket.decided_by()));
    add("Comment", shown(ticket.comment, words_characters));
    if (!url.empty()) text += "\n" + url;
    return text;
}

std::string slack_body(const Hook& hook, const Happened& happened, const Envelope& envelope) {
    const Ticket& ticket = happened.ticket;
    const approval::Request& request = ticket.request;
    const std::string url = url_of(ticket, envelope);
    array fields;
    const auto field = [&](const char* name, const std::string& value) {
        if (!value.empty() && fields.size() < 10)
            fields.push_back(mrkdwn("*" + std::string(name) + "*\n" + code(value)));
    };
    field("Ticket", ticket.id);
    field("Requester", shown(request.requester.role));
    field("Database", shown(request.database));
    field("Server", shown(request.requester.upstream));
    field("Would change", effects_of(ticket));
    field("Came to", shown(ticket.outcome, words_characters));
    field("Approvals", approvals_of(ticket));
    field("Decided by", shown(ticket.decided_by()));
    field("Rule", shown(request.rule));
    field("Client", shown(request.client));
    field("Application", shown(request.application));
    std::string title = headline(happened);
    if (happened.kind == Event::glass) title = ":rotating_light: " + title;
    array blocks;
    blocks.push_back(
        object{{"type", "header"},
               {"text", object{{"type", "plain_text"},
                               {"text", approval::first_characters(title, header_characters)},
                               {"emoji", true}}}});
    blocks.push_back(object{{"type", "section"}, {"fields", std::move(fields)}});
    if (const std::string reason = reason_of(ticket); !reason.empty())
        blocks.push_back(section("*Why*\n" + code(reason)));
    if (const std::string comment = shown(ticket.comment, words_characters); !comment.empty())
        blocks.push_back(section("*Comment*\n" + code(comment)));
    if (const std::string statement = shown_statement(hook, ticket); !statement.empty())
        blocks.push_back(section("```\n" + escaped(statement, section_bytes) + "\n```"));
    std::string context = "opened " + audit::to_text(ticket.opened);
    if (ticket.open()) context += ", expires " + audit::to_text(ticket.expires);
    context += ", told by " + code(shown(envelope.replica));
    blocks.push_back(object{{"type", "context"}, {"elements", array{mrkdwn(std::move(context))}}});
    if (!url.empty()) {
        const object button{{"type", "button"},
                            {"text", object{{"type", "plain_text"}, {"text", "Open the ticket"}}},
                            {"url", url}};
        blocks.push_back(object{{"type", "actions"}, {"elements", array{button}}});
    }
    return boost::json::serialize(
        object{{"text", fallback_text(happened, url)}, {"blocks", std::move(blocks)}});
}

// --- Templates.

std::optional<std::string> value_of(std::string_view word, const Hook& hook,
                                    const Happened& happened, const Envelope& envelope) {
    const Ticket& ticket = happened.ticket;
    const approval::Request& request = ticket.request;
    if (word == "headline") return headline(happened);
    if (word == "event") return std::string(event_name(happened.kind));
    if (word == "id") return envelope.id;
    if (word == "time") return audit::to_text(envelope.time);
    if (word == "ticket") return ticket.id;
    if (word == "state") return std::string(approval::state_name(ticket.state));
    if (word == "requester") return shown(request.requester.role);
    if (word == "database") return shown(request.database);
    if (word == "upstream") return shown(request.requester.upstream);
    if (word == "client") return shown(request.client);
    if (word == "application") return shown(request.application);
    if (word == "command") return shown(request.command);
    if (word == "rule") return shown(request.rule);
    if (word == "reason") return reason_of(ticket);
    if (word == "effects") return effects_of(ticket);
    if (word == "approvals") return approvals_of(ticket);
    if (word == "decided_by") return shown(ticket.decided_by());
    if (word == "comment") return shown(ticket.comment, words_characters);
    if (word == "outcome") return shown(ticket.outcome, words_characters);
    if (word == "opened") return audit::to_text(ticket.opened);
    if (word == "expires") return audit::to_text(ticket.expires);
    if (word == "replica") return shown(envelope.replica);
    if (word == "url") return url_of(ticket, envelope);
    if (word == "statement") return shown_statement(hook, ticket);
    return std::nullopt;
}

}  // namespace

std::string headline(const Happened& happened) {
    const Ticket& ticket = happened.ticket;
    const std::string command = shown(ticket.request.command, 60);
    const std::string what = command.empty() ? "a statement" : command;
    switch (happened.kind) {
        case Event::opened: return what + " waits for approval";
        case Event::voted: return what + " is approved by " + approval::approvals_text(ticket);
        case Event::decided:
            return what + (ticket.state == State::denied ? " was denied" : " was approved");
        case Event::expired:
            return what + (ticket.approvals() >= ticket.request.terms.approvals
                               ? " was approved, but not run in time"
                               : " has expired: nobody decided in time");
        case Event::withdrawn: return what + " was withdrawn";
        case Event::used: return what + " runs, as it was approved";
        case Event::finished: return what + " is over";
        case Event::glass: return "GLASS BROKEN: " + what + " runs without a second person";
    }
    return {};
}

std::string body_of(const Hook& hook, const Happened& happened, const Envelope& envelope) {
    switch (hook.format) {
        case Format::json: return json_body(hook, happened, envelope);
        case Format::slack: return slack_body(hook, happened, envelope);
        case Format::text:
            return filled(hook.text, hook.content_type == json_content, [&](std::string_view word) {
                return value_of(word, hook, happened, envelope);
            });
    }
    return {};
}

}  // namespace pgchaperone::webhook
