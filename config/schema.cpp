// The JSON Schema of the configuration, made from the tables of settings and conditions.
#include "config/json_text.h"
#include "config/loader.h"
#include "config/upstreams.h"
#include "config/webhook_loader.h"
#include "policy/rule_presets.h"

namespace pgchaperone::config {
namespace {

using boost::json::array;
using boost::json::object;
using boost::json::string;
using boost::json::value;

value reference(std::string_view name) { return object{{"$ref", "#/$defs/" + std::string(name)}}; }

value text(std::string_view description) {
    return object{{"type", "string"}, {"description", string(description)}};
}

value flag(std::string_view description) {
    return object{{"type", "boolean"}, {"description", string(description)}};
}

value one_of_words(const std::vector<std::string>& words, std::string_view description = {}) {
    object out{{"enum", array(words.begin(), words.end())}};
    if (!description.empty()) out["description"] = string(description);
    return out;
}

value mapping(object properties, array required = {}) {
    object out{
        {"type", "object"}, {"additionalProperties", false}, {"properties", std::move(properties)}};
    if (!required.empty()) out["required"] = std::move(required);
    return out;
}

object described(value inner, std::string_view description) {
    return object{{"allOf", array{std::move(inner)}}, {"description", string(description)}};
}

value of_setting(const Setting& setting) {
    object out{{"description", string(setting.summary)},
               {"examples", array{string(setting.example)}}};
    switch (setting.shape) {
        case Setting::Shape::size:
        case Setting::Shape::count: out["type"] = array{"integer", "string"}; break;
        case Setting::Shape::word:
            out["enum"] = array(setting.words.begin(), setting.words.end());
            break;
        case Setting::Shape::list:
            out["anyOf"] = array{
                object{{"type", "string"}},
                object{{"type", "array"}, {"minItems", 1}, {"items", object{{"type", "string"}}}}};
            break;
        case Setting::Shape::endpoint:
        case Setting::Shape::duration:
        case Setting::Shape::path:
        case Setting::Shape::text: out["type"] = "string"; break;
    }
    const std::string by_default = setting.show(Options{});
    if (!by_default.empty()) out["default"] = string(by_default);
    return out;
}

value of_condition(const policy::ConditionType& type) {
    switch (type.shape) {
        case policy::ValueShape::conditions: return described(reference("match"), type.summary);
        case policy::ValueShape::condition_list:
            return object{{"type", "array"},
                          {"minItems", 1},
                          {"items", reference("match")},
                          {"description", string(type.summary)}};
        case policy::ValueShape::flag: return flag(type.summary);
        case policy::ValueShape::regex: return text(type.summary);
        case policy::ValueShape::window: return described(reference("time"), type.summary);
        case policy::ValueShape::classes: return described(reference("classes"), type.summary);
        case policy::ValueShape::globs:
        case policy::ValueShape::names:
        case policy::ValueShape::networks: return described(reference("texts"), type.summary);
    }
    return {};
}

value of_webhook_key(const WebhookKey& key) {
    const auto words = [](std::span<const std::string_view> names) {
        return std::vector<std::string>(names.begin(), names.end());
    };
    const value event_words = one_of_words(words(webhook::event_names()));
    switch (key.shape) {
        case WebhookKey::Shape::text:
        case WebhookKey::Shape::path: return text(key.summary);
        case WebhookKey::Shape::texts: return described(reference("texts"), key.summary);
        case WebhookKey::Shape::format:
            return one_of_words(words(webhook::format_names()), key.summary);
        case WebhookKey::Shape::content:
            return one_of_words(
                {std::string(webhook::json_content), std::string(webhook::plain_content)},
                key.summary);
        case WebhookKey::Shape::events:
            return described(object{{"anyOf", array{event_words, object{{"type", "array"},
                                                                        {"minItems", 1},
                                                                        {"items", event_words}}}}},
                             key.summary);
        case WebhookKey::Shape::headers:
            return object{{"type", "object"},
                          {"additionalProperties", object{{"type", "string"}}},
                          {"description", string(key.summary)}};
        case WebhookKey::Shape::flag: return flag(key.summary);
        case WebhookKey::Shape::duration: return described(reference("duration"), key.summary);
    }
    return {};
}

value of_webhooks() {
    object keys;
    for (const WebhookKey& key : webhook_keys()) keys[key.key] = of_webhook_key(key);
    return object{{"type", "array"},
                  {"maxItems", webhooks_max},
                  {"items", mapping(std::move(keys), {"name", "url"})},
                  {"description", "Who is told of what happens to tickets."}};
}

object definitions() {
    object match;
    for (const policy::ConditionType& type : policy::condition_types())
        match[type.key] = of_condition(type);
    const value class_words = one_of_words(
        {"READ", "WRITE", "FUNCTION", "ROLE", "DDL", "MISC", "MISC_SET"});
    const value rows = object{{"type", "integer"}, {"minimum", 0}};
    object defs;
    defs["texts"] = object{
        {"anyOf",
         array{object{{"type", "string"}},
               object{{"type", "array"}, {"minItems", 1}, {"items", object{{"type", "string"}}}}}}};
    defs["classes"] = object{
        {"anyOf",
         array{class_words, object{{"type", "array"}, {"minItems", 1}, {"items", class_words}}}}};
    defs["duration"] = object{{"type", "string"}, {"pattern", "^[0-9]+ ?(ms|s|m|min|h|d)$"}};
    defs["match"] = object{{"type", "object"},
                           {"additionalProperties", false},
                           {"minProperties", 1},
                           {"properties", match}};
    defs["time"] = object{
        {"anyOf", array{reference("texts"),
                        mapping({{"inside", reference("texts")},
                                 {"outside", reference("texts")},
                                 {"zone", text("A name of the IANA time zone database, such as "
                                               "Europe/Berlin; UTC where none is given.")}})}}};
    defs["hold"] = mapping(
        {{"wait", described(reference("duration"), "How long the client waits for a decision.")},
         {"ticket_ttl", described(reference("duration"), "How long the ticket stays open.")},
         {"notify_every",
          described(reference("duration"), "How often the waiting client is told.")},
         {"evidence",
          one_of_words({"none", "plan", "trial"}, "What the approver sees of the effects.")},
         {"in_transaction",
          one_of_words({"wait", "refuse"}, "What happens inside a transaction block.")},
         {"approvers", described(reference("texts"), "Roles that may approve.")},
         {"approvals", object{{"type", "integer"},
                              {"minimum", 1},
                              {"maximum", 10},
                              {"description", "How many different people must approve."}}},
         {"allow_self", flag("The requester may approve.")}});
    defs["supervise"] = mapping(
        {{"max_rows", rows},
         {"max_rows_per_table",
          object{{"type", "object"}, {"minProperties", 1}, {"additionalProperties", rows}}},
         {"max_fraction", object{{"type", array{"number", "string"}}}},
         {"max_rows_per_transaction", rows},
         {"max_rows_per_session",
          mapping({{"rows", rows}, {"window", reference("duration")}}, {"rows", "window"})},
         {"max_inserted", rows},
         {"catalog_changes", one_of_words({"allow", "refuse"})},
         {"exclusive_locks", one_of_words({"allow", "refuse"})},
         {"effects", one_of_words({"tag", "total"})},
         {"on_exceed", one_of_words({"block", "hold"})},
         {"hold", reference("hold")},
         {"lock_timeout", reference("duration")}});
    defs["action"] = object{
        {"anyOf", array{one_of_words({"allow", "block", "hold"}),
                        mapping({{"supervise", reference("supervise")}}, {"supervise"}),
                        mapping({{"hold", object{{"anyOf", array{reference("hold"),
                                                                 object{{"type", "null"}}}}}}},
                                {"hold"})}}};
    defs["rule"] = object{
        {"anyOf",
         array{
             mapping(
                 {{"name", text("Told in refusals and in the audit log.")},
                  {"match",
                   described(
                       reference("match"),
                       "Conditions that must all hold; without them the rule always applies.")},
                  {"action", reference("action")},
                  {"mode", one_of_words({"enforce", "observe"},
                                        "observe: note what the rule would have done, and go on.")},
                  {"audit",
                   object{{"enum", array{true, false, "none", "decision", "statement",
                                         "statement+parameters"}},
                          {"description",
                           "Whether an allowed statement leaves a record, and what it shows."}}},
                  {"message", text("Replaces the reason in a refusal; may hold placeholders such "
                                   "as {relations}.")},
                  {"hint", text("Replaces the hint of a refusal.")},
                  {"statement_timeout",
                   described(
                       reference("duration"),
                       "How long a statement that matches may run; 0s: as long as it likes.")},
                  {"transaction_timeout",
                   described(reference("duration"),
                             "How long a transaction may take from the first statement in it that "
                             "matches; 0s: as long as it likes.")}},
                 {"name"}),
             mapping({{"include", described(reference("texts"), "Files of rules, put in here.")}},
                     {"include"})}}};
    return defs;
}

template <class Wanted>
void put_settings(object& properties, Wanted wanted) {
    for (const Setting& setting : settings()) {
        if (!wanted(setting)) continue;
        const auto dot = setting.key.find('.');
        if (dot == std::string_view::npos) {
            properties[setting.key] = of_setting(setting);
            continue;
        }
        const auto section = setting.key.substr(0, dot);
        if (!properties.contains(section)) properties[section] = mapping({});
        properties[section]
            .as_object()["properties"]
            .as_object()[setting.key.substr(dot + 1)] = of_setting(setting);
    }
}

value of_policy() {
    std::vector<std::string> presets;
    for (const policy::Preset& preset : policy::presets()) presets.emplace_back(preset.name);
    return mapping(
        {{"preset", one_of_words(presets, "A policy that comes with pgchaperone, to start from.")},
         {"mode", one_of_words({"enforce", "observe"},
                               "observe: judge and log, but let everything through.")},
         {"unparsable",
          described(reference("action"), "What happens to statements that can't be read.")},
         {"default",
          described(reference("action"), "What happens to statements that no rule matches.")},
         {"rules",
          object{{"type", "array"},
                 {"items", reference("rule")},
                 {"description", "Read from top to bottom; the first that matches decides."}}},
         {"disable", described(reference("texts"), "Rules of the preset to leave out.")},
         {"approvers", described(reference("texts"), "Roles that may approve held statements.")},
         {"operators", described(reference("texts"),
                                 "Roles that may reload the policy and see all sessions, through "
                                 "the virtual schema chaperone.")},
         {"break_glass", mapping({{"roles", reference("texts")},
                                  {"require_reason", flag("A reason must be set first.")}},
                                 {"roles"})}});
}

value of_upstreams() {
    object keys;
    keys["name"] = text("What it is called in logs, records, tickets and metrics.");
    put_settings(keys, [](const Setting& setting) { return scope_of(setting) != Scope::process; });
    keys["policy"] = described(reference("policy"), "The rules that hold there.");
    return object{{"type", "array"},
                  {"maxItems", upstreams_max},
                  {"items", mapping(std::move(keys), {"name"})},
                  {"description",
                   "Further servers, or the same with other rules, by listener or database name. "
                   "What one does not say is as at the top level."}};
}

}  // namespace

std::string json_schema() {
    object properties;
    properties["include"] = described(reference("texts"),
                                      "Configuration files that this one builds on and overrides.");
    put_settings(properties, [](const Setting&) { return true; });
    properties["policy"] = reference("policy");
    properties["upstreams"] = of_upstreams();
    properties["webhooks"] = of_webhooks();
    object defs = definitions();
    defs["policy"] = of_policy();
    const value root = object{{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                              {"title", "Configuration of pgchaperone"},
                              {"type", "object"},
                              {"additionalProperties", false},
                              {"properties", std::move(properties)},
                              {"$defs", std::move(defs)}};
    return pretty(root);
}

}  // namespace pgchaperone::config
