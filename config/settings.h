#pragma once
// Every setting of the process in one table: its key in YAML, its option on the command line, what
// it takes, what it means, how it is set and shown. The loader, `serve --help`, `config show`, the
// JSON Schema and the test of docs/configuration.md all read this table.

#include "config/options.h"
#include "config/values.h"

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::config {

struct Setting {
    enum class Shape : std::uint8_t { endpoint, count, size, duration, word, path, text, list };
    std::string_view key;      // "client_tls.mode": at most one dot
    std::string_view option;   // "--client-tls"
    std::string_view metavar;  // "HOST:PORT"
    Shape shape;
    std::vector<std::string> words;  // of Shape::word
    std::string_view summary;
    std::string_view example;  // as people would set it: another value than the default

    // Reads `text` into `options` (of a list: with commas between); paths are relative to `base`.
    // Gives what is wrong, or nothing.
    std::optional<std::string> (*set)(Options& options, std::string_view text,
                                      const std::filesystem::path& base);
    std::string (*show)(const Options& options);
};

std::span<const Setting> settings();
const Setting* find_setting(std::string_view key);

// Keys of the settings that differ and that a process takes only when it starts.
std::vector<std::string> changed_for_restart(const Options& running, const Options& wanted);

// What only the whole can show: a certificate without its key, verification without a CA. Each text
// says what to do; the key says where.
struct Inconsistency {
    std::string_view key;
    std::string message;
    std::string advice;
};
std::vector<Inconsistency> inconsistencies(const Options& options);

}  // namespace pgchaperone::config
