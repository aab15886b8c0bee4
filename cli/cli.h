#pragma once
// The command line: subcommands, their options, and what they print. Only main and tests call it.
//
// Exit statuses: 0 all is well; 1 findings (check, test, audit verify and the like); 2 trouble:
// wrong usage, a broken configuration, files that can't be read.

#include "config/loader.h"
#include "policy/rule_book.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace pgchaperone::cli {

inline constexpr int exit_ok = 0;
inline constexpr int exit_findings = 1;
inline constexpr int exit_trouble = 2;

// The rules of each server: that of the top level, then of each of Loaded::upstreams.
using RuleBooks = std::vector<std::shared_ptr<policy::RuleBook>>;

// The configuration again from where it came. `trouble`: what is wrong, for the log; empty: the
// rule books have the new rules, and these are the options, in the same order. A broken file leaves
// the old in force, and so does one by which clients would come to other servers.
struct Reloaded {
    std::string trouble;
    std::vector<config::Options> options;
    std::vector<webhook::Hook> webhooks;
    std::vector<std::string> restart;  // keys of settings that have changed, and need one
};
using Reload = std::function<Reloaded()>;

// Runs the proxy and returns the exit status. `reload` may be called from any thread, one at a
// time.
using ServeFunction = std::function<int(const config::Loaded&, RuleBooks, Reload reload)>;
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
