#include "policy/analyzer_literal.h"

#include "policy/analyzer_constant.h"

#include <algorithm>
#include <cctype>
#include <string_view>
#include <utility>
#include <vector>

namespace pgchaperone::policy {

namespace {

constexpr std::size_t most_bytes = 1024 * 1024;

std::string quoted_literal(std::string_view text) {
    std::string out;
    const bool escapes = text.find('\\') != std::string_view::npos;
    out += escapes ? " E'" : "'";
    for (const char c : text) {
        if (c == '\'' || c == '\\') {
            out += c;
        }
        out += c;
    }
    return out + "'";
}

// Quoted always: the server leaves quotes out where they are not needed, which means the same.
std::string quoted_identifier(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"') {
            out += c;
        }
        out += c;
    }
    return out + "\"";
}

// format() with plain %s, %I, %L and %%; nothing for positions and widths.
std::optional<std::string> formatted(const std::vector<std::string>& arguments) {
    std::string out;
    std::size_t next = 1;
    const std::string& pattern = arguments.front();
    for (std::size_t i = 0; i < pattern.size(); ++i) {
        if (pattern[i] != '%') {
            out += pattern[i];
            continue;
        }
        if (++i >= pattern.size()) {
            return std::nullopt;
        }
        if (pattern[i] == '%') {
            out += '%';
            continue;
        }
        if (next >= arguments.size()) {
            return std::nullopt;
        }
        const std::string& argument = arguments[next++];
        switch (pattern[i]) {
            case 's': out += argument; break;
            case 'I': out += quoted_identifier(argument); break;
            case 'L': out += quoted_literal(argument); break;
            default: return std::nullopt;
        }
        if (out.size() > most_bytes) {
            return std::nullopt;
        }
    }
    return out;
}

std::string_view last_name(const Items& names) {
    std::string_view name;
    for (const Json part : names) {
        name = string_value(part);
    }
    return name;
}

// One choice of a text for each variable.
using Chosen = std::map<std::string_view, std::string_view>;

std::optional<std::string> text_of(const Json& expression, const Chosen& variables) {
    const auto node = as_node(expression);
    if (!node) {
        return std::nullopt;
    }
    const JsonObject& body = node->body;
    if (node->type == "A_Const") {
        const auto value = literal(body);
        if (value && value->kind == Constant::Kind::text) {
            return value->text;
        }
        if (const auto number = object_field(body, "ival")) {
            return std::to_string(number_field(*number, "ival"));
        }
        return std::nullopt;
    }
    if (node->type == "ColumnRef") {
        const Items fields = items_field(body, "fields");
        const auto found = fields.size() == 1 ? variables.find(last_name(fields)) : variables.end();
        return found != variables.end() ? std::optional<std::string>(found->second) : std::nullopt;
    }
    if (node->type == "TypeCast") {
        const auto type = object_field(body, "typeName");
        const auto name = type ? last_name(items_field(*type, "names")) : std::string_view{};
        const auto argument = field(body, "arg");
        const bool keeps_text = name == "text" || name == "varchar" || name == "name" ||
                                name == "regclass" || name == "unknown";
        return argument && keeps_text ? text_of(*argument, variables) : std::nullopt;
    }
    if (node->type == "CollateClause") {
        const auto argument = field(body, "arg");
        return argument ? text_of(*argument, variables) : std::nullopt;
    }
    if (node->type == "A_Expr") {
        const auto left = field(body, "lexpr");
        const auto right = field(body, "rexpr");
        if (text_field(body, "kind") != "AEXPR_OP" ||
            last_name(items_field(body, "name")) != "||" || !left || !right) {
            return std::nullopt;
        }
        auto a = text_of(*left, variables);
        const auto b = a ? text_of(*right, variables) : std::nullopt;
        if (!a || !b || a->size() + b->size() > most_bytes) {
            return std::nullopt;
        }
        *a += *b;
        return a;
    }
    if (node->type == "FuncCall") {
        std::vector<std::string> arguments;
        for (const Json item : items_field(body, "args")) {
            auto argument = text_of(item, variables);
            if (!argument) {
                return std::nullopt;
            }
            arguments.push_back(std::move(*argument));
        }
        if (arguments.empty()) {
            return std::nullopt;
        }
        const auto name = last_name(items_field(body, "funcname"));
        if (name == "format") {
            return formatted(arguments);
        }
        if (name == "concat") {
            std::string out;
            for (const std::string& argument : arguments) {
                out += argument;
            }
            return out;
        }
        if (name == "quote_ident" && arguments.size() == 1) {
            return quoted_identifier(arguments[0]);
        }
        if (name == "quote_literal" && arguments.size() == 1) {
            return quoted_literal(arguments[0]);
        }
        if ((name == "lower" || name == "upper") && arguments.size() == 1) {
            std::string out = arguments[0];
            std::transform(out.begin(), out.end(), out.begin(), [&](unsigned char c) {
                return static_cast<char>(name == "lower" ? std::tolower(c) : std::toupper(c));
            });
            return out;
        }
    }
    return std::nullopt;
}

// The variables that an expression names.
void gather_names(const Json& expression, const KnownTexts& variables,
                  std::vector<KnownTexts::const_iterator>& names) {
    JsonArray array;
    if (expression.get(array) == simdjson::SUCCESS) {
        for (const Json item : array) {
            gather_names(item, variables, names);
        }
        return;
    }
    const auto object = as_object(expression);
    if (!object) {
        return;
    }
    for (const auto& [key, value] : *object) {
        JsonObject body;
        if (key == "ColumnRef" && value.get(body) == simdjson::SUCCESS) {
            const auto found = variables.find(last_name(items_field(body, "fields")));
            if (found != variables.end() && !found->second.empty() &&
                std::find(names.begin(), names.end(), found) == names.end()) {
                names.push_back(found);
            }
        } else {
            gather_names(value, variables, names);
        }
    }
}

}  // namespace

std::optional<std::string> literal_text(const Json& expression) { return text_of(expression, {}); }

std::vector<std::string> literal_texts(const Json& expression, const KnownTexts& variables) {
    constexpr std::size_t most_texts = 16;
    std::vector<KnownTexts::const_iterator> names;
    gather_names(expression, variables, names);
    std::size_t choices = 1;
    for (const auto& name : names) {
        choices *= name->second.size();
        if (choices > most_texts) {
            return {};
        }
    }
    std::vector<std::string> texts;
    for (std::size_t choice = 0; choice < choices; ++choice) {
        Chosen chosen;
        std::size_t rest = choice;
        for (const auto& name : names) {
            chosen[name->first] = name->second[rest % name->second.size()];
            rest /= name->second.size();
        }
        auto text = text_of(expression, chosen);
        if (!text) {
            return {};
        }
        texts.push_back(std::move(*text));
    }
    return texts;
}

}  // namespace pgchaperone::policy
