#pragma once
// YAML with places: reads values out of nodes and reports what is wrong with file, line and column.
// Text values may hold ${NAME} and ${NAME:-default} for environment variables; $$ before a brace is
// a dollar sign. Knows no setting and no rule.

#include "config/problems.h"
#include "policy/rule_pattern.h"

#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::config {

// Where files and environment variables come from; tests bring their own.
struct Surroundings {
    // The file's text, or what is wrong ("No such file or directory").
    std::function<policy::Parsed<std::string>(const std::filesystem::path&)> read_file;
    std::function<std::optional<std::string>(const std::string&)> environment;
};
Surroundings real_surroundings();

class YamlReader {
public:
    YamlReader(std::string file, Problems& problems, const Surroundings& surroundings)
        : file_(std::move(file)), problems_(problems), surroundings_(surroundings) {}

    const std::string& file() const { return file_; }

    // The document's root; nothing where the text is not YAML, which is then reported. An empty
    // document is a null node.
    std::optional<YAML::Node> parse(const std::string& text);

    policy::Place place(const YAML::Node& node) const;
    void error(const YAML::Node& node, std::string message, std::string advice = {});
    void warning(const YAML::Node& node, std::string message, std::string advice = {});
    // Keeps this text out of the lines that are shown with problems.
    void hide(std::string text) { problems_.hide(std::move(text)); }

    // Calls `each` for every key of a mapping that is among `keys`; reports the others, and those
    // that stand twice. False where the node is no mapping (reported). `what` names it: "the
    // policy".
    bool mapping(const YAML::Node& node, std::string_view what,
                 const std::vector<std::string>& keys,
                 const std::function<void(const std::string& key, const YAML::Node& key_node,
                                          const YAML::Node& value)>& each);

    // One text, environment variables put in. `key` names it in messages.
    std::optional<std::string> text(const YAML::Node& node, std::string_view key);
    // One text or a list of them; an empty list is reported.
    struct Item {
        std::string text;
        YAML::Node node;
    };
    std::optional<std::vector<Item>> texts(const YAML::Node& node, std::string_view key);

    // A value read by one of config/values.h.
    template <class T>
    std::optional<T> value(const YAML::Node& node, std::string_view key,
                           const std::function<policy::Parsed<T>(std::string_view)>& parse) {
        const auto word = text(node, key);
        if (!word) return std::nullopt;
        auto parsed = parse(*word);
        if (!parsed) {
            error(node, std::string(key) + ": " + parsed.error().message);
            return std::nullopt;
        }
        return *std::move(parsed);
    }

private:
    std::optional<std::string> expand(const YAML::Node& node, const std::string& raw);

    std::string file_;
    Problems& problems_;
    const Surroundings& surroundings_;
};

}  // namespace pgchaperone::config
