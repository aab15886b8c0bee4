#include "config/yaml_reader.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/parser.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <utility>
#include <vector>

namespace pgchaperone::config {

Surroundings real_surroundings() {
    Surroundings real;
    real.read_file = [](const std::filesystem::path& path) -> policy::Parsed<std::string> {
        std::error_code ignored;
        if (std::filesystem::is_directory(path, ignored))
            return policy::PatternError{"it is a directory"};
        std::ifstream in(path, std::ios::binary);
        if (!in) return policy::PatternError{std::strerror(errno)};
        std::string text{std::istreambuf_iterator<char>(in), {}};
        if (in.bad()) return policy::PatternError{"it can't be read"};
        return {boost::system::in_place_value, std::move(text)};
    };
    real.environment = [](const std::string& name) -> std::optional<std::string> {
        const char* value = std::getenv(name.c_str());
        if (value == nullptr) return std::nullopt;
        return std::string(value);
    };
    return real;
}

namespace {

// Bytes of the character at the front, which is not ASCII; 0: it is no UTF-8.
std::size_t character_bytes(std::string_view text) {
    const auto byte = [&](std::size_t at) -> unsigned {
        return at < text.size() ? static_cast<unsigned char>(text[at]) : 0U;
    };
    const unsigned first = byte(0), second = byte(1);
    const std::size_t bytes = first >= 0xC2 && first <= 0xDF   ? 2
                              : first >= 0xE0 && first <= 0xEF ? 3
                              : first >= 0xF0 && first <= 0xF4 ? 4
                                                               : 0;
    for (std::size_t at = 1; at < bytes; ++at) {
        if ((byte(at) & 0xC0U) != 0x80) return 0;
    }
    // Longer than it need be, half of a pair of UTF-16, or beyond what there is.
    if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) ||
        (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F))
        return 0;
    return bytes;
}

// Where a text stops being UTF-8, as YAML counts lines and columns (of characters); nothing where
// all of it is.
std::optional<std::pair<int, int>> not_utf8_at(std::string_view text) {
    int line = 1, column = 1;
    while (!text.empty()) {
        const bool ascii = static_cast<unsigned char>(text.front()) < 0x80;
        const std::size_t bytes = ascii ? 1 : character_bytes(text);
        if (bytes == 0) return std::pair(line, column);
        ++column;
        if (text.front() == '\n') {
            ++line;
            column = 1;
        }
        text.remove_prefix(bytes);
    }
    return std::nullopt;
}

// Where documents begin.
class Beginnings : public YAML::EventHandler {
public:
    std::vector<YAML::Mark> marks;

    void OnDocumentStart(const YAML::Mark& mark) override { marks.push_back(mark); }
    void OnDocumentEnd() override {}
    void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
    void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
    void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  const std::string&) override {}
    void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                         YAML::EmitterStyle::value) override {}
    void OnSequenceEnd() override {}
    void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                    YAML::EmitterStyle::value) override {}
    void OnMapEnd() override {}
};

// Two at most: there are texts (a comma will do) in which the library finds the same empty document
// again and again.
std::vector<YAML::Mark> first_documents(const std::string& text) {
    std::istringstream in(text);
    YAML::Parser parser(in);
    Beginnings beginnings;
    for (int i = 0; i < 2 && parser.HandleNextDocument(beginnings); ++i) continue;
    return beginnings.marks;
}

}  // namespace

std::optional<YAML::Node> YamlReader::parse(const std::string& text) {
    problems_.remember_text(file_, text);
    // The library would put something else in the place of such bytes, without a word.
    if (const auto at = not_utf8_at(text)) {
        problems_.error({file_, at->first, at->second}, "this file is not UTF-8",
                        "save it as UTF-8");
        return std::nullopt;
    }
    try {
        const std::vector<YAML::Mark> documents = first_documents(text);
        if (documents.size() > 1) {
            const YAML::Mark& second = documents[1];
            const policy::Place where{file_, second.line + 1, second.column + 1};
            if (second.pos == documents[0].pos) {
                problems_.error(where, "this is not valid YAML",
                                "write keys and values: listen: 127.0.0.1:6432");
            } else {
                problems_.error(where, "this file holds more than one YAML document",
                                "remove the line ---");
            }
            return std::nullopt;
        }
        return documents.empty() ? YAML::Node() : YAML::Load(text);
    } catch (const YAML::Exception& e) {
        const bool known = !e.mark.is_null();
        std::string message = e.msg;
        const bool tab = text.find('\t') != std::string::npos;
        problems_.error(
            {file_, known ? e.mark.line + 1 : 0, known ? e.mark.column + 1 : 0},
            "this is not valid YAML: " + message,
            tab ? "look for tabs (YAML is indented by spaces), a missing quote or a missing bracket"
                : "look for a missing quote, a missing bracket or wrong indentation");
        return std::nullopt;
    }
}

policy::Place YamlReader::place(const YAML::Node& node) const {
    const YAML::Mark mark = node.Mark();
    if (mark.is_null()) return {file_, 0, 0};
    return {file_, mark.line + 1, mark.column + 1};
}

void YamlReader::error(const YAML::Node& node, std::string message, std::string advice) {
    problems_.error(place(node), std::move(message), std::move(advice));
}

void YamlReader::warning(const YAML::Node& node, std::string message, std::string advice) {
    problems_.warning(place(node), std::move(message), std::move(advice));
}

bool YamlReader::mapping(
    const YAML::Node& node, std::string_view what, const std::vector<std::string>& keys,
    const std::function<void(const std::string&, const YAML::Node&, const YAML::Node&)>& each) {
    if (!node.IsMap()) {
        std::string known;
        for (const std::string& key : keys) known += (known.empty() ? "" : ", ") + key;
        error(node, std::string(what) + " must be a mapping of keys to values",
              "known keys: " + known);
        return false;
    }
    std::set<std::string> seen;
    for (const auto& pair : node) {
        if (!pair.first.IsScalar()) {
            error(pair.first, "a key must be a plain word");
            continue;
        }
        const std::string key = pair.first.Scalar();
        if (!seen.insert(key).second) {
            error(pair.first, "\"" + key + "\" stands twice in " + std::string(what),
                  "keep one of them");
            continue;
        }
        bool known = false;
        for (const std::string& candidate : keys) known = known || candidate == key;
        if (known) {
            each(key, pair.first, pair.second);
            continue;
        }
        std::string advice = did_you_mean(key, keys);
        if (advice.empty()) {
            advice = "known keys: ";
            for (std::size_t i = 0; i < keys.size(); ++i) advice += (i > 0 ? ", " : "") + keys[i];
        }
        error(pair.first, "unknown key \"" + key + "\" in " + std::string(what), advice);
    }
    return true;
}

std::optional<std::string> YamlReader::text(const YAML::Node& node, std::string_view key) {
    if (node.IsScalar()) return expand(node, node.Scalar());
    if (node.IsNull()) {
        error(node, std::string(key) + " has no value",
              "write one behind the colon, or remove the key");
    } else {
        error(node, std::string(key) + " must be a single value, not a " +
                        (node.IsMap() ? "mapping" : "list"));
    }
    return std::nullopt;
}

std::optional<std::vector<YamlReader::Item>> YamlReader::texts(const YAML::Node& node,
                                                               std::string_view key) {
    std::vector<Item> items;
    if (!node.IsSequence()) {
        auto one = text(node, key);
        if (!one) return std::nullopt;
        items.push_back({*std::move(one), node});
        return items;
    }
    if (node.size() == 0) {
        error(node, std::string(key) + " is an empty list, which nothing can match",
              "name something, or remove the key");
        return std::nullopt;
    }
    bool good = true;
    for (const auto& child : node) {
        auto one = text(child, std::string("each item of ") + std::string(key));
        if (one)
            items.push_back({*std::move(one), child});
        else
            good = false;
    }
    if (!good) return std::nullopt;
    return items;
}

std::optional<std::string> YamlReader::expand(const YAML::Node& node, const std::string& raw) {
    std::string out;
    for (std::size_t i = 0; i < raw.size();) {
        if (raw.compare(i, 3, "$${") == 0) {
            out += "${";
            i += 3;
        } else if (raw.compare(i, 2, "${") == 0) {
            const auto close = raw.find('}', i);
            if (close == std::string::npos) {
                error(node, "the environment variable behind ${ is never closed by }",
                      "close it, or write $${ for the characters themselves");
                return std::nullopt;
            }
            const std::string inside = raw.substr(i + 2, close - i - 2);
            const auto bar = inside.find(":-");
            const std::string name = inside.substr(0, bar);
            auto value = surroundings_.environment(name);
            if (!value || (value->empty() && bar != std::string::npos)) {
                if (bar != std::string::npos) {
                    value = inside.substr(bar + 2);
                } else {
                    error(node, "the environment variable " + name + " is not set",
                          "set it, or give a default: ${" + name + ":-value}");
                    return std::nullopt;
                }
            }
            out += *value;
            i = close + 1;
        } else {
            out += raw[i++];
        }
    }
    return out;
}

}  // namespace pgchaperone::config
