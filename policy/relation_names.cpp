#include "policy/relation_names.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace pgchaperone::policy {

namespace {

bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

}  // namespace

std::optional<RelationName> relation_from_text(std::string_view text) {
    std::vector<std::string> parts;
    std::size_t at = 0;
    const auto skip_space = [&] {
        while (at < text.size() && is_space(text[at])) ++at;
    };
    for (;;) {
        skip_space();
        std::string part;
        if (at < text.size() && text[at] == '"') {
            for (++at;; ++at) {
                if (at >= text.size()) return std::nullopt;
                if (text[at] == '"') {
                    if (at + 1 >= text.size() || text[at + 1] != '"') break;
                    ++at;
                }
                part += text[at];
            }
            ++at;
        } else {
            for (; at < text.size() && text[at] != '.' && text[at] != '"' && !is_space(text[at]);
                 ++at) {
                const char c = text[at];
                part += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
            }
        }
        if (part.empty()) return std::nullopt;
        parts.push_back(std::move(part));
        skip_space();
        if (at == text.size()) break;
        if (text[at] != '.' || parts.size() == 3) return std::nullopt;
        ++at;
    }
    const bool digits = std::all_of(text.begin(), text.end(),
                                    [](char c) { return c >= '0' && c <= '9'; });
    if (digits) return std::nullopt;
    RelationName name;
    name.name = std::move(parts.back());
    if (parts.size() > 1) name.schema = std::move(parts[parts.size() - 2]);
    if (parts.size() > 2) name.catalog = std::move(parts.front());
    return name;
}

std::string relation_text(const RelationName& name) {
    std::string out;
    for (const std::string* part : {&name.catalog, &name.schema}) {
        if (!part->empty()) out += *part + ".";
    }
    return out + (name.is_every() ? "*" : name.name);
}

}  // namespace pgchaperone::policy
