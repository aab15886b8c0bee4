#pragma once
// The subcommands: each adds itself to the application; where it is the one called, it sets the
// exit status.

#include "cli/cli.h"
#include "config/loader.h"

#include <string>

namespace CLI {
class App;
}

namespace pgchaperone::cli {

void add_serve(CLI::App& app, int& status, ServeFunction serve, NotServed not_served);
void add_config(CLI::App& app, int& status, CheckFiles check_files);
void add_explain(CLI::App& app, int& status);
void add_test(CLI::App& app, int& status);
void add_check(CLI::App& app, int& status);
void add_tickets(CLI::App& app, int& status);
void add_replay(CLI::App& app, int& status);
void add_users(CLI::App& app, int& status);

// What `-c` and `--policy` say, for subcommands that judge.
struct PolicySource {
    std::string file;
    std::string policy;
    std::string upstream;  // whose policy it is; empty: that of the top level

    config::Request request() const {
        config::Request out;
        out.file = file;
        out.policy = policy;
        return out;
    }
};
void add_policy_options(CLI::App& command, PolicySource& source);

// Loads; prints what is wrong to standard error. Nothing where it can't be used.
// `upstream`: the options and the policy of this one take the place of the top level's.
std::optional<config::Loaded> load_or_complain(const config::Request& request,
                                               const std::string& upstream = {});

std::string version_text();
std::string preset_names();  // "interactive, approval, ..."

}  // namespace pgchaperone::cli
