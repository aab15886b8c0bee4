#include "config/upstreams.h"

#include <algorithm>
#include <array>
#include <set>

namespace pgchaperone::config {
namespace {

constexpr std::array<std::string_view, 4> of_listeners = {"listen", "proxy_protocol",
                                                          "login_timeout", "client_tls."};
constexpr std::array<std::string_view, 11> of_upstreams = {
    "upstream",    "databases", "connect_timeout", "idle_timeout", "idle_in_transaction_timeout",
    "environment", "limits.",   "authentication",  "users.",       "upstream_tls.",
    "web.database"};

// A section ends in a dot.
bool is_one_of(std::string_view key, std::span<const std::string_view> keys) {
    return std::any_of(keys.begin(), keys.end(), [&](std::string_view one) {
        return one.ends_with('.') ? key.starts_with(one) : key == one;
    });
}

// Whether nobody comes to `later`, since `earlier` stands before it and takes all of its databases.
bool covers(const Options& earlier, const Options& later) {
    return std::all_of(later.databases.begin(), later.databases.end(), [&](const auto& database) {
        return std::any_of(earlier.databases.begin(), earlier.databases.end(),
                           [&](const auto& one) { return one.covers(database); });
    });
}

// The first setting of a listener that two who share one want otherwise; null: none.
const Setting* disagreement(const Options& one, const Options& other) {
    for (const Setting& setting : settings()) {
        if (scope_of(setting) == Scope::listener && setting.show(one) != setting.show(other))
            return &setting;
    }
    return nullptr;
}

std::string quoted(const std::string& name) { return '"' + name + '"'; }

}  // namespace

bool is_upstream_name(std::string_view name) {
    return !name.empty() && name.size() <= upstream_name_bytes_max &&
           std::all_of(name.begin(), name.end(), [](char c) {
               return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '_' || c == '-' || c == '.';
           });
}

Scope scope_of(const Setting& setting) {
    if (is_one_of(setting.key, of_listeners)) return Scope::listener;
    return is_one_of(setting.key, of_upstreams) ? Scope::upstream : Scope::process;
}

bool same_listener(const Upstream& one, const Options& other) {
    return one.options.listen == other.listen;
}

std::vector<EntryProblem> problems_of_upstreams(const Loaded& loaded) {
    std::vector<EntryProblem> out;
    const auto& entries = loaded.upstreams;
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const Upstream& entry = entries[i];
        // Who shares a listener with it and stands before it, or is the top level.
        for (std::size_t j = 0; j <= i; ++j) {
            const bool top = j == i;
            const Options& other = top ? loaded.options : entries[j].options;
            if (!same_listener(entry, other)) continue;
            if (const Setting* const setting = disagreement(entry.options, other)) {
                out.push_back({&entry, setting->key,
                               std::string(setting->key) + ": " +
                                   (top ? "the top level" : quoted(entries[j].name)) +
                                   " wants another, and both listen at " +
                                   entry.options.listen.text(),
                               "set it alike, or give this one a `listen` of its own"});
            }
            if (top || !covers(other, entry.options)) continue;
            out.push_back({&entry, "databases",
                           "no client comes to " + quoted(entry.name) + ": " +
                               quoted(entries[j].name) + " before it takes all of its databases",
                           "put it before " + quoted(entries[j].name) +
                               ", or give it a `listen` of its own"});
            break;
        }
        const bool shadows = same_listener(entry, loaded.options) &&
                             covers(entry.options, loaded.options);
        if (!shadows) continue;
        out.push_back({&entry, "databases",
                       "no client comes to the server of the top level: " + quoted(entry.name) +
                           " takes all of its databases",
                       "let the top level name this server, or give one of them a `listen` of its "
                       "own",
                       true});
    }
    return out;
}

std::vector<std::string> changed_for_restart(const std::vector<Upstream>& running,
                                             const std::vector<Upstream>& wanted) {
    const bool same = std::equal(
        running.begin(), running.end(), wanted.begin(), wanted.end(),
        [](const Upstream& one, const Upstream& other) { return one.name == other.name; });
    if (!same) return {"upstreams"};
    std::vector<std::string> keys;
    for (std::size_t i = 0; i < running.size(); ++i) {
        for (const std::string& key : changed_for_restart(running[i].options, wanted[i].options)) {
            if (scope_of(*find_setting(key)) != Scope::process)
                keys.push_back("upstreams." + running[i].name + '.' + key);
        }
    }
    return keys;
}

}  // namespace pgchaperone::config
