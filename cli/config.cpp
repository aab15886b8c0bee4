#include "cli/subcommands.h"

#include <CLI/CLI.hpp>

#include <iostream>
#include <memory>

namespace pgchaperone::cli {

void add_config(CLI::App& app, int& status) {
    CLI::App* command = app.add_subcommand("config", "Check and show configurations");
    command->require_subcommand(1);

    struct Arguments {
        std::string file;
        std::string policy;
        bool strict = false;
    };
    auto arguments = std::make_shared<Arguments>();

    CLI::App* check = command->add_subcommand(
        "check", "Report everything that is wrong with a configuration");
    check->add_option("file", arguments->file, "Configuration file (YAML)")
        ->type_name("FILE")
        ->required();
    check->add_flag("--strict", arguments->strict, "Warnings count as errors");
    check->callback([arguments, &status] {
        config::Request request;
        request.file = arguments->file;
        config::Problems problems;
        const auto loaded = config::load(request, problems, config::real_surroundings());
        problems.print(std::cerr);
        if (!loaded || (arguments->strict && !problems.empty())) {
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
    show->callback([arguments, &status] {
        config::Request request;
        request.file = arguments->file;
        request.policy = arguments->policy;
        const auto loaded = load_or_complain(request);
        if (!loaded) {
            status = exit_trouble;
            return;
        }
        std::cout << config::show(*loaded);
    });

    command->add_subcommand("schema", "Print the JSON Schema of the configuration, for editors")
        ->callback([] { std::cout << config::json_schema(); });
}

}  // namespace pgchaperone::cli
