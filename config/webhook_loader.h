#pragma once
// The list `webhooks:` of a configuration file: its keys in one table, which the loader, the JSON
// Schema and the test of docs/webhooks.md read, and from YAML to webhook::Hook with everything
// that is wrong. A URL's path and secrets are kept out of what is printed about problems.

#include "config/yaml_reader.h"
#include "webhook/hook.h"

#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

namespace pgchaperone::config {

inline constexpr std::size_t webhooks_max = 16;

struct WebhookKey {
    enum class Shape : std::uint8_t {
        text,
        texts,
        format,
        content,
        events,
        headers,
        flag,
        path,
        duration
    };
    std::string_view key;
    Shape shape;
    std::string_view by_default;  // "": none
    std::string_view summary;
};
std::span<const WebhookKey> webhook_keys();

// Reports into the reader. What could not be used is left out.
std::vector<webhook::Hook> load_webhooks(YamlReader& reader, const YAML::Node& node,
                                         const std::filesystem::path& base,
                                         const Surroundings& surroundings);

// The hooks as YAML, with secrets, header values and the path of the URL hidden.
YAML::Node shown_webhooks(const std::vector<webhook::Hook>& hooks);

}  // namespace pgchaperone::config
