#include "cli/subcommands.h"

#include <CLI/CLI.hpp>

#include <iostream>
#include <memory>
#include <set>
#include <utility>

namespace pgchaperone::cli {
namespace {

// Each where the setting is said that names the file, and but once: entries of `upstreams` take
// over what the top level has.
void add_file_problems(const std::string& file, const config::Loaded& loaded,
                       const std::vector<FileProblem>& found, config::Problems& problems) {
    std::set<std::pair<std::string, std::string>> told;
    for (const FileProblem& one : found) {
        if (!told.insert({one.key, one.text}).second) continue;
        policy::Place place{file, 0, 0};
        if (const auto at = loaded.places.find(one.key); at != loaded.places.end())
            place = at->second;
        for (const config::Upstream& entry : loaded.upstreams) {
            if (entry.name != one.upstream) continue;
            if (const auto at = entry.places.find(one.key); at != entry.places.end())
                place = at->second;
        }
        const std::string message = one.key + ": " + one.text;
        if (one.warning)
            problems.warning(place, message);
        else
            problems.error(place, message);
    }
}

}  // namespace

void add_config(CLI::App& app, int& status, CheckFiles check_files) {
    CLI::App* command = app.add_subcommand("config", "Check and show configurations");
    command->require_subcommand(1);

    struct Arguments {
        std::string file;
        std::string policy;
        bool strict = false;
        bool no_files = false;
        bool only_policy = false;
        std::string upstream;
    };
    auto arguments = std::make_shared<Arguments>();

    CLI::App* check = command->add_subcommand(
        "check",
        "Report everything that is wrong with a configuration and the files that it names");
    check->add_option("-c,--config,file", arguments->file, "Configuration file (YAML)")
        ->type_name("FILE")
        ->required();
    check->add_flag("--strict", arguments->strict, "Warnings count as errors");
    check->add_flag("--no-files", arguments->no_files,
                    "Do not look at the files and folders that it names, which are elsewhere or "
                    "another user's");
    check->callback([arguments, &status, check_files = std::move(check_files)] {
        config::Request request;
        request.file = arguments->file;
        config::Problems problems;
        const auto loaded = config::load(request, problems, config::real_surroundings());
        if (loaded && !arguments->no_files)
            add_file_problems(request.file.string(), *loaded, check_files(*loaded), problems);
        problems.print(std::cerr);
        if (problems.has_errors() || (arguments->strict && !problems.empty())) {
            status = exit_trouble;
            return;
        }
        std::cout << arguments->file << ": good (" << loaded->policy.rules.size()
                  << (loaded->policy.rules.size() == 1 ? " rule" : " rules") << " from "
                  << loaded->policy.source << ")\n";
    });

    command->add_subcommand("default", "Print the built-in configuration and policy as YAML")
        ->callback([] { std::cout << config::default_configuration(); });

    CLI::App* show = command->add_subcommand("show", "Print the effective configuration as YAML");
    show->add_option("-c,--config,file", arguments->file, "Configuration file (YAML)")
        ->type_name("FILE");
    show->add_option("--policy", arguments->policy, "Policy file or preset")
        ->type_name("FILE|PRESET");
    show->add_flag("--only-policy", arguments->only_policy,
                   "Only the policy, as the audit log records it when it comes into force");
    show->add_option("--upstream", arguments->upstream,
                     "With --only-policy: that of this server, where several are guarded")
        ->type_name("NAME")
        ->needs("--only-policy");
    show->callback([arguments, &status] {
        config::Request request;
        request.file = arguments->file;
        request.policy = arguments->policy;
        const auto loaded = load_or_complain(request, arguments->upstream);
        if (!loaded) {
            status = exit_trouble;
            return;
        }
        std::cout << (arguments->only_policy ? config::show(loaded->policy)
                                             : config::show(*loaded));
    });

    command->add_subcommand("schema", "Print the JSON Schema of the configuration, for editors")
        ->callback([] { std::cout << config::json_schema(); });
}

}  // namespace pgchaperone::cli
