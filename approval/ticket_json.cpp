#include "approval/ticket_json.h"

#include <boost/json.hpp>

#include <algorithm>
#include <exception>
#include <stdexcept>
#include <utility>

namespace pgchaperone::approval {
namespace {

namespace json = boost::json;

// Whether a PostgreSQL jsonb and every reader of JSON take it as a string.
bool plain_utf8(std::string_view text) {
    const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
    for (std::size_t at = 0; at < text.size();) {
        const unsigned first = byte(at);
        if (first == 0) return false;
        if (first < 0x80) {
            ++at;
            continue;
        }
        const std::size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
        if (first < 0xC2 || first > 0xF4 || size > text.size() - at) return false;
        std::uint32_t code = first & (0xFFU >> (size + 1));
        for (std::size_t i = 1; i < size; ++i) {
            if ((byte(at + i) & 0xC0) != 0x80) return false;
            code = code << 6 | (byte(at + i) & 0x3FU);
        }
        const bool overlong = (size == 3 && code < 0x800) || (size == 4 && code < 0x10000);
        if (overlong || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return false;
        at += size;
    }
    return true;
}

// --- Writing.

json::value text(std::string_view bytes) {
    if (plain_utf8(bytes)) return json::string(bytes);
    constexpr std::string_view digits = "0123456789abcdef";
    std::string hex;
    hex.reserve(bytes.size() * 2);
    for (const char c : bytes) {
        hex += digits[static_cast<unsigned char>(c) >> 4];
        hex += digits[static_cast<unsigned char>(c) & 15];
    }
    return json::object{{"hex", hex}};
}

json::array texts(const std::vector<std::string>& list) {
    json::array array;
    for (const std::string& item : list) array.push_back(text(item));
    return array;
}

std::int64_t moment(Time time) {
    return std::chrono::floor<std::chrono::microseconds>(time.time_since_epoch()).count();
}

json::object of(const Terms& terms) {
    json::array approvers;
    for (const auto& list : terms.approvers) approvers.push_back(texts(list));
    return {{"approvers", std::move(approvers)},
            {"approvals", terms.approvals},
            {"allow_self", terms.allow_self},
            {"ttl_ms", terms.ttl.count()}};
}

json::object of(const Evidence& evidence) {
    json::array tables;
    for (const TableRows& rows : evidence.tables)
        tables.push_back(json::object{{"table", text(rows.table)},
                                      {"inserted", rows.inserted},
                                      {"updated", rows.updated},
                                      {"deleted", rows.deleted}});
    return {{"kind", evidence_name(evidence.kind)},
            {"tables", std::move(tables)},
            {"catalog_changes", texts(evidence.catalog_changes)},
            {"exclusive_locks", texts(evidence.exclusive_locks)},
            {"foreign_writes", texts(evidence.foreign_writes)},
            {"text", text(evidence.text)}};
}

json::object of(const Person& person) {
    json::object out{
        {"role", text(person.role)}, {"oid", person.oid}, {"member_of", texts(person.member_of)}};
    // Not where it is empty: so what older versions wrote, and can read, stays the same.
    if (!person.upstream.empty()) out["upstream"] = text(person.upstream);
    return out;
}

json::object of(const Request& request) {
    json::array parameters;
    for (const auto& value : request.parameters)
        parameters.push_back(value ? text(*value) : json::value(nullptr));
    return {{"binding", text(request.binding)},
            {"requester", of(request.requester)},
            {"database", text(request.database)},
            {"client", text(request.client)},
            {"application", text(request.application)},
            {"session", request.session},
            {"command", text(request.command)},
            {"statement", text(request.statement)},
            {"statement_cut", request.statement_cut},
            {"parameters", std::move(parameters)},
            {"settings", text(request.settings)},
            {"rule", text(request.rule)},
            {"reason", text(request.reason)},
            {"terms", of(request.terms)},
            {"evidence", of(request.evidence)},
            {"wait_ms", request.wait.count()},
            {"glass", request.glass},
            {"glass_reason", text(request.glass_reason)}};
}

json::object of(const Vote& vote) {
    return {{"role", text(vote.role)},
            {"oid", vote.oid},
            {"approve", vote.approve},
            {"comment", text(vote.comment)},
            {"at", moment(vote.at)}};
}

// --- Reading. What is not as it should be throws, and ticket_of() makes one answer of it.

std::string text_at(const json::value& value) {
    if (const json::string* string = value.if_string()) return std::string(*string);
    const json::string& hex = value.as_object().at("hex").as_string();
    const auto digit = [](char c) -> unsigned {
        if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
        if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
        throw std::invalid_argument("no hexadecimal digit");
    };
    if (hex.size() % 2 != 0) throw std::invalid_argument("half a byte");
    std::string bytes;
    bytes.reserve(hex.size() / 2);
    for (std::size_t at = 0; at < hex.size(); at += 2)
        bytes += static_cast<char>(digit(hex[at]) << 4 | digit(hex[at + 1]));
    return bytes;
}

std::string text_in(const json::object& object, std::string_view key) {
    return text_at(object.at(key));
}

std::vector<std::string> texts_at(const json::value& value) {
    std::vector<std::string> list;
    for (const json::value& item : value.as_array()) list.push_back(text_at(item));
    return list;
}

template <class T>
T number_in(const json::object& object, std::string_view key) {
    return object.at(key).to_number<T>();
}

Time time_at(const json::value& value) {
    return Time(std::chrono::microseconds(value.to_number<std::int64_t>()));
}

Terms terms_of(const json::object& object) {
    Terms terms;
    for (const json::value& list : object.at("approvers").as_array())
        terms.approvers.push_back(texts_at(list));
    terms.approvals = number_in<unsigned>(object, "approvals");
    terms.allow_self = object.at("allow_self").as_bool();
    terms.ttl = std::chrono::milliseconds(number_in<std::int64_t>(object, "ttl_ms"));
    return terms;
}

Evidence evidence_of(const json::object& object) {
    Evidence evidence;
    const json::string& kind = object.at("kind").as_string();
    const auto named = [&](Evidence::Kind candidate) { return evidence_name(candidate) == kind; };
    constexpr Evidence::Kind kinds[] = {Evidence::Kind::none, Evidence::Kind::plan,
                                        Evidence::Kind::trial, Evidence::Kind::counted};
    const auto* found = std::find_if(std::begin(kinds), std::end(kinds), named);
    if (found == std::end(kinds)) throw std::invalid_argument("unknown evidence");
    evidence.kind = *found;
    for (const json::value& item : object.at("tables").as_array()) {
        const json::object& rows = item.as_object();
        evidence.tables.push_back({.table = text_in(rows, "table"),
                                   .inserted = number_in<std::uint64_t>(rows, "inserted"),
                                   .updated = number_in<std::uint64_t>(rows, "updated"),
                                   .deleted = number_in<std::uint64_t>(rows, "deleted")});
    }
    evidence.catalog_changes = texts_at(object.at("catalog_changes"));
    evidence.exclusive_locks = texts_at(object.at("exclusive_locks"));
    evidence.foreign_writes = texts_at(object.at("foreign_writes"));
    evidence.text = text_in(object, "text");
    return evidence;
}

Person person_of(const json::object& object) {
    return {.role = text_in(object, "role"),
            .oid = number_in<std::uint32_t>(object, "oid"),
            .member_of = texts_at(object.at("member_of")),
            .upstream = object.contains("upstream") ? text_in(object, "upstream") : ""};
}

Request request_of(const json::object& object) {
    Request request;
    request.binding = text_in(object, "binding");
    request.requester = person_of(object.at("requester").as_object());
    request.database = text_in(object, "database");
    request.client = text_in(object, "client");
    request.application = text_in(object, "application");
    request.session = number_in<std::uint64_t>(object, "session");
    request.command = text_in(object, "command");
    request.statement = text_in(object, "statement");
    request.statement_cut = object.at("statement_cut").as_bool();
    for (const json::value& value : object.at("parameters").as_array())
        request.parameters.push_back(value.is_null() ? std::nullopt
                                                     : std::optional(text_at(value)));
    request.settings = text_in(object, "settings");
    request.rule = text_in(object, "rule");
    request.reason = text_in(object, "reason");
    request.terms = terms_of(object.at("terms").as_object());
    request.evidence = evidence_of(object.at("evidence").as_object());
    request.wait = std::chrono::milliseconds(number_in<std::int64_t>(object, "wait_ms"));
    request.glass = object.at("glass").as_bool();
    request.glass_reason = text_in(object, "glass_reason");
    return request;
}

Ticket ticket_from(const json::object& object) {
    Ticket ticket;
    ticket.id = text_in(object, "id");
    ticket.state = state_named(object.at("state").as_string()).value();
    ticket.request = request_of(object.at("request").as_object());
    ticket.replica = text_in(object, "replica");
    ticket.opened = time_at(object.at("opened"));
    ticket.expires = time_at(object.at("expires"));
    ticket.held_until = time_at(object.at("held_until"));
    for (const json::value& item : object.at("votes").as_array()) {
        const json::object& vote = item.as_object();
        ticket.votes.push_back({.role = text_in(vote, "role"),
                                .oid = number_in<std::uint32_t>(vote, "oid"),
                                .approve = vote.at("approve").as_bool(),
                                .comment = text_in(vote, "comment"),
                                .at = time_at(vote.at("at"))});
    }
    if (const json::value& ended = object.at("ended"); !ended.is_null())
        ticket.ended = time_at(ended);
    ticket.ended_by = text_in(object, "ended_by");
    ticket.comment = text_in(object, "comment");
    ticket.outcome = text_in(object, "outcome");
    return ticket;
}

}  // namespace

std::string json_of(const Ticket& ticket) {
    json::array votes;
    for (const Vote& vote : ticket.votes) votes.push_back(of(vote));
    return json::serialize(
        json::object{{"id", text(ticket.id)},
                     {"state", state_name(ticket.state)},
                     {"request", of(ticket.request)},
                     {"replica", text(ticket.replica)},
                     {"opened", moment(ticket.opened)},
                     {"expires", moment(ticket.expires)},
                     {"held_until", moment(ticket.held_until)},
                     {"votes", std::move(votes)},
                     {"ended", ticket.ended ? json::value(moment(*ticket.ended)) : json::value()},
                     {"ended_by", text(ticket.ended_by)},
                     {"comment", text(ticket.comment)},
                     {"outcome", text(ticket.outcome)}});
}

std::optional<Ticket> ticket_of(std::string_view json) {
    try {
        return ticket_from(json::parse(json).as_object());
    } catch (const std::exception&) {
        return std::nullopt;
    }
}

}  // namespace pgchaperone::approval
