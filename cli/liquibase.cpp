#include "cli/liquibase.h"

#include <algorithm>

namespace pgchaperone::cli {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f'; }

std::string lower(std::string_view text) {
    std::string out(text);
    for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    return out;
}

std::string_view without_space(std::string_view text) {
    while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
    while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    return text;
}

// The text behind the dashes and this word; nothing where the comment begins otherwise.
std::optional<std::string_view> behind(std::string_view comment, std::string_view word) {
    if (comment.substr(0, 2) != "--") return std::nullopt;
    comment = without_space(comment.substr(2));
    if (lower(comment.substr(0, word.size())) != word) return std::nullopt;
    comment.remove_prefix(word.size());
    if (!comment.empty() && !is_space(comment.front())) return std::nullopt;
    return without_space(comment);
}

// `name:value`, `name:"value with spaces"`; takes it off `text`. Names come with and without
// dashes, in either case.
struct Attribute {
    std::string name;
    std::string_view value;
};
Attribute next_attribute(std::string_view& text) {
    Attribute result;
    std::size_t end = 0;
    while (end < text.size() && !is_space(text[end]) && text[end] != ':') ++end;
    result.name = lower(text.substr(0, end));
    std::erase(result.name, '-');
    if (end < text.size() && text[end] == ':') {
        const std::size_t begin = ++end;
        const char quote = end < text.size() ? text[end] : ' ';
        const auto close = quote == '"' || quote == '\'' ? text.find(quote, begin + 1)
                                                         : std::string_view::npos;
        if (close != std::string_view::npos) {
            result.value = text.substr(begin + 1, close - begin - 1);
            end = close + 1;
        } else {
            while (end < text.size() && !is_space(text[end])) ++end;
            result.value = text.substr(begin, end - begin);
        }
    }
    text = without_space(text.substr(end));
    return result;
}

// Liquibase takes the delimiter for a regular expression. Of one for a line of its own, and of one
// with escaped characters, this is the text that is meant.
void read_delimiter(std::string_view pattern, Changeset& changeset) {
    std::string& out = changeset.delimiter;
    for (std::size_t i = 0; i < pattern.size() && pattern[i] != '|'; ++i) {
        const char c = pattern[i];
        const char next = i + 1 < pattern.size() ? pattern[i + 1] : ' ';
        if (c == '\\' && (next == 'n' || next == 'r' || next == 's')) {
            changeset.alone_on_line = changeset.alone_on_line || next != 's';
            ++i;
            if (i + 1 < pattern.size() && (pattern[i + 1] == '*' || pattern[i + 1] == '+')) ++i;
        } else if (c == '\\') {
            out += next;
            ++i;
        } else {
            out += c;
        }
    }
    const bool word = !out.empty() && std::all_of(out.begin(), out.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    });
    changeset.alone_on_line = changeset.alone_on_line || word || out == "/";
    if (out == ";") out.clear();
}

bool runs_on_postgresql(std::string_view databases) {
    bool only_others_excluded = true;
    while (!databases.empty()) {
        const auto comma = std::min(databases.find(','), databases.size());
        const std::string name = lower(without_space(databases.substr(0, comma)));
        if (name == "postgresql" || name == "all") return true;
        if (name == "!postgresql" || name == "none") return false;
        only_others_excluded = only_others_excluded && (name.empty() || name.front() == '!');
        databases.remove_prefix(std::min(comma + 1, databases.size()));
    }
    return only_others_excluded;
}

}  // namespace

bool is_liquibase(std::string_view script) {
    if (script.substr(0, 3) == "\xEF\xBB\xBF") script.remove_prefix(3);
    script = without_space(script);
    const auto rest = behind(script.substr(0, script.find('\n')), "liquibase");
    return rest && lower(*rest).starts_with("formatted");
}

std::optional<Changeset> changeset_of(std::string_view comment) {
    auto rest = behind(comment, "changeset");
    if (!rest) return std::nullopt;
    Changeset changeset;
    next_attribute(*rest);  // author:id
    while (!rest->empty()) {
        const std::size_t before = rest->size();
        const Attribute attribute = next_attribute(*rest);
        if (attribute.name == "enddelimiter") read_delimiter(attribute.value, changeset);
        if (attribute.name == "dbms" && !runs_on_postgresql(attribute.value))
            changeset.other_databases = attribute.value;
        if (rest->size() == before) rest->remove_prefix(1);  // ":" alone
    }
    return changeset;
}

}  // namespace pgchaperone::cli
