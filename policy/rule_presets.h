#pragma once
// The policies that come with the program, as the text of their YAML files (policy/presets/*.yaml).

#include <span>
#include <string_view>

namespace pgchaperone::policy {

struct Preset {
    std::string_view name;
    std::string_view yaml;
};
std::span<const Preset> presets();

// What guards when nothing is configured.
inline constexpr std::string_view built_in_preset = "interactive";

}  // namespace pgchaperone::policy
