#pragma once
// The command line: subcommands, their options, and what they print. Only main and tests call it.
//
// Exit statuses: 0 all is well; 1 findings (check, test, audit verify and the like); 2 trouble:
// wrong usage, a broken configuration, files that can't be read.

#include "config/loader.h"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace pgchaperone::cli {

inline constexpr int exit_ok = 0;
inline constexpr int exit_findings = 1;
inline constexpr int exit_trouble = 2;

// The configuration again from where it came. `trouble`: what is wrong with it, for the log; empty:
// it may take the place of the one that the process was started with. A broken file may not, and
// neither may one by which clients would come to other servers.
struct Reloaded {
    std::string trouble;
    std::optional<config::Loaded> loaded;  // only where there is no trouble; the same servers
    std::vector<std::string> restart;      // keys of settings that have changed, and need one
};
using Reload = std::function<Reloaded()>;

// Runs the proxy and returns the exit status. `reload` puts nothing in force, and may be called
// from any thread, one at a time.
using ServeFunction = std::function<int(const config::Loaded&, Reload reload)>;
// Told in one line why the proxy is not run, besides what standard error shows.
using NotServed = std::function<void(const std::string& why)>;

// Something that is wrong with a file or folder that the configuration names.
struct FileProblem {
    std::string upstream;  // whose setting names it; empty: one of the top level
    std::string key;
    std::string text;
    bool warning = false;
};
// Looks at all of them, as `serve` would find them, and changes nothing.
using CheckFiles = std::function<std::vector<FileProblem>(const config::Loaded&)>;

// What main does. Never throws.
int run(int argc, char** argv, ServeFunction serve, NotServed not_served,
        CheckFiles check_files) noexcept;

}  // namespace pgchaperone::cli
