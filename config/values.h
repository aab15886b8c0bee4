#pragma once
// Values as people write them in a configuration file or on the command line: endpoints, durations,
// counts, words of a list. Each reader gives the value or what is wrong with it, in words, without
// the place.

#include "config/options.h"
#include "policy/rule_pattern.h"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::config {

using policy::Parsed;
using policy::PatternError;

// 127.0.0.1:5432, db.example.com:5432, [::1]:5432, /var/run/postgresql:5432; a missing port is
// 5432.
Parsed<Endpoint> parse_endpoint(std::string_view text);

// 500ms, 60s, 5m, 2h, 1d. A number alone is refused: its unit would be a guess.
Parsed<std::chrono::milliseconds> parse_duration(std::string_view text);
std::string duration_text(std::chrono::milliseconds duration);

// 0, 4096, 64kB, 100MB, 2GB; as in PostgreSQL's settings, a kB is 1024 bytes.
Parsed<std::uint64_t> parse_size(std::string_view text);
std::string size_text(std::uint64_t bytes);

// A whole number; underscores and commas between digits are allowed: 10_000.
Parsed<std::uint64_t> parse_count(std::string_view text, std::uint64_t lowest,
                                  std::uint64_t highest);

Parsed<bool> parse_flag(std::string_view text);  // true, false, yes, no, on, off

// The number of the word among `words`.
Parsed<std::size_t> parse_word(std::string_view text, const std::vector<std::string>& words);

// "a, b or c"
std::string one_of(const std::vector<std::string>& words);

}  // namespace pgchaperone::config
