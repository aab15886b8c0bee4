#include "policy/chaperone_call.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <string>
#include <utility>

namespace pgchaperone::policy {

namespace {

using Argument = ChaperoneCall::Argument;

std::size_t argument_count(const ChaperoneName& entry) {
    return static_cast<std::size_t>(
        std::count_if(entry.arguments.begin(), entry.arguments.end(),
                      [](std::string_view name) { return !name.empty(); }));
}

// "pending, ticket_<id>, history"; "approve(ticket, comment), reload()".
std::string all_names(bool call) {
    std::string out;
    for (const ChaperoneName& entry : chaperone_names) {
        if (entry.call != call) continue;
        if (!out.empty()) out += ", ";
        out += entry.name;
        if (entry.name == ticket_prefix) out += "<id>";
        if (!call) continue;
        out += '(';
        for (std::size_t i = 0; i < argument_count(entry); ++i) {
            out += i == 0 ? "" : ", ";
            out += entry.arguments[i];
        }
        out += ')';
    }
    return out;
}

std::string lower(std::string_view text) {
    std::string out(text);
    std::transform(out.begin(), out.end(), out.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return out;
}

// What a constant is as text, as the server would read it for a parameter of the type text.
std::optional<Argument> constant(const JsonObject& body) {
    if (flag_field(body, "isnull")) return Argument{};
    if (const auto text = object_field(body, "sval")) {
        return Argument{std::string(text_field(*text, "sval")), 0};
    }
    if (const auto number = object_field(body, "ival")) {
        return Argument{std::to_string(number_field(*number, "ival")), 0};
    }
    if (const auto number = object_field(body, "fval")) {
        return Argument{std::string(text_field(*number, "fval")), 0};
    }
    return std::nullopt;
}

bool is_text_type(const JsonObject& type) {
    if (!items_field(type, "typmods").empty() || !items_field(type, "arrayBounds").empty()) {
        return false;
    }
    std::string_view schema;
    std::string_view name;
    for (const Json part : items_field(type, "names")) {
        schema = std::exchange(name, string_value(part));
    }
    return (schema.empty() || schema == "pg_catalog") &&
           (name == "text" || name == "varchar" || name == "unknown");
}

std::optional<Argument> argument_of(const Json& json) {
    const auto node = as_node(json);
    if (!node) return std::nullopt;
    if (node->type == "A_Const") return constant(node->body);
    if (node->type == "ParamRef") {
        const auto number = number_field(node->body, "number");
        if (number < 1 || number > 65'535) return std::nullopt;
        return Argument{std::nullopt, static_cast<int>(number)};
    }
    // Drivers that put values into the text write 'K7'::varchar.
    if (node->type == "TypeCast") {
        const auto type = object_field(node->body, "typeName");
        const auto inner = field(node->body, "arg");
        if (type && inner && is_text_type(*type)) return argument_of(*inner);
    }
    return std::nullopt;
}

// Fills the arguments; the answer is what is wrong with them, or empty.
std::string read_arguments(const JsonObject& call, const ChaperoneName& entry, ChaperoneCall& out) {
    const std::string name = "chaperone." + std::string(entry.name);
    const std::size_t count = argument_count(entry);
    for (const char* decoration : {"agg_star", "agg_distinct", "func_variadic"}) {
        if (flag_field(call, decoration)) return name + " takes plain arguments only";
    }
    if (!items_field(call, "agg_order").empty() || field(call, "agg_filter") ||
        field(call, "over")) {
        return name + " takes plain arguments only";
    }
    out.arguments.assign(count, {});
    std::array<bool, 2> given{};
    std::size_t position = 0;
    bool named = false;
    for (const Json item : items_field(call, "args")) {
        const auto node = as_node(item);
        std::size_t at = position++;
        std::optional<Json> value = item;
        if (node && node->type == "NamedArgExpr") {
            named = true;
            const auto wanted = text_field(node->body, "name");
            const auto found = std::find(entry.arguments.begin(), entry.arguments.end(), wanted);
            if (wanted.empty() || found == entry.arguments.end()) {
                return name + " has no argument named " + std::string(wanted);
            }
            at = static_cast<std::size_t>(found - entry.arguments.begin());
            value = field(node->body, "arg");
        } else if (named) {
            return "positional argument cannot follow named argument";
        }
        if (at >= count) return name + " takes fewer arguments";
        if (std::exchange(given[at], true)) {
            return name + " got its argument " + std::string(entry.arguments[at]) + " twice";
        }
        auto argument = value ? argument_of(*value) : std::nullopt;
        if (!argument) {
            return "the argument " + std::string(entry.arguments[at]) + " of " + name +
                   " must be a constant or a parameter";
        }
        out.arguments[at] = std::move(*argument);
    }
    for (std::size_t i = 0; i < entry.required; ++i) {
        const Argument& argument = out.arguments[i];
        if (!given[i] || (!argument.text && argument.parameter == 0)) {
            return name + " needs its argument " + std::string(entry.arguments[i]);
        }
    }
    return {};
}

std::shared_ptr<const ChaperoneCall> show(const JsonObject& body) {
    const std::string_view name = text_field(body, "name");
    if (name.size() <= chaperone_schema.size() || !name.starts_with(chaperone_schema) ||
        name[chaperone_schema.size()] != '.') {
        return nullptr;
    }
    auto out = std::make_shared<ChaperoneCall>();
    // The server does not tell upper from lower case in the names of settings.
    out->name = lower(name.substr(chaperone_schema.size() + 1));
    if (out->name == reason_setting) return nullptr;
    if (find_chaperone_name(out->name, false) == nullptr) {
        out->problem = "there is no chaperone." + out->name +
                       " to show; there are: " + all_names(false);
    }
    return out;
}

std::shared_ptr<const ChaperoneCall> call(const JsonObject& body) {
    const auto function = object_field(body, "funccall");
    if (!function) return nullptr;
    std::string_view schema;
    std::string_view name;
    std::size_t parts = 0;
    for (const Json part : items_field(*function, "funcname")) {
        schema = std::exchange(name, string_value(part));
        ++parts;
    }
    if (parts != 2 || schema != chaperone_schema) return nullptr;
    auto out = std::make_shared<ChaperoneCall>();
    out->call = true;
    out->name = name;
    if (const ChaperoneName* entry = find_chaperone_name(name, true)) {
        out->problem = read_arguments(*function, *entry, *out);
    } else {
        out->problem = "there is no procedure chaperone." + out->name +
                       "; there are: " + all_names(true);
    }
    return out;
}

}  // namespace

const ChaperoneName* find_chaperone_name(std::string_view name, bool call) noexcept {
    const auto found = std::find_if(
        chaperone_names.begin(), chaperone_names.end(), [&](const ChaperoneName& entry) {
            if (entry.call != call) return false;
            if (entry.name != ticket_prefix) return entry.name == name;
            return name.starts_with(ticket_prefix) && name.size() > ticket_prefix.size();
        });
    return found != chaperone_names.end() ? &*found : nullptr;
}

std::shared_ptr<const ChaperoneCall> chaperone_call(const Node& statement) {
    if (statement.type == "VariableShowStmt") return show(statement.body);
    if (statement.type == "CallStmt") return call(statement.body);
    return nullptr;
}

}  // namespace pgchaperone::policy
