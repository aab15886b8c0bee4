#pragma once
// What the entries of `upstreams:` may say, and what only all of them together can show: who would
// never be come to, and who shares a listener with whom. Values and pure functions; the loader
// reads the entries.

#include "config/loader.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::config {

inline constexpr std::size_t upstreams_max = 64;
inline constexpr std::size_t upstream_name_bytes_max = 63;

// Whether this is one word that can stand in a log, a label and on a command line.
bool is_upstream_name(std::string_view name);

// Settings that an entry may have are those that belong to a server, and those that belong to a
// listener where it has one of its own. The others belong to the process.
enum class Scope : std::uint8_t { process, listener, upstream };
Scope scope_of(const Setting& setting);

// Whether clients of both connect to the same address.
bool same_listener(const Upstream& one, const Options& other);

// A mistake, and which entry has it.
struct EntryProblem {
    const Upstream* entry = nullptr;
    std::string_view key;
    std::string message;
    std::string advice;
    bool warning = false;
};
std::vector<EntryProblem> problems_of_upstreams(const Loaded& loaded);

// Keys of what has changed and needs a restart, such as `upstreams.billing.upstream`; `upstreams`
// where there are others, or in another order.
std::vector<std::string> changed_for_restart(const std::vector<Upstream>& running,
                                             const std::vector<Upstream>& wanted);

}  // namespace pgchaperone::config
