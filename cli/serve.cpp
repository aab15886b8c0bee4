#include "cli/subcommands.h"
#include "config/upstreams.h"
#include "policy/rule_presets.h"

#include <CLI/CLI.hpp>

#include <iostream>
#include <map>
#include <memory>
#include <utility>

namespace pgchaperone::cli {
namespace {

// `running`: what the process was started with.
Reloaded load_again(const config::Request& request, const config::Loaded& running) {
    config::Problems problems;
    auto again = config::load(request, problems, config::real_surroundings());
    Reloaded out;
    if (!again) {
        out.trouble = problems.text();
        return out;
    }
    out.restart = config::changed_for_restart(running.options, again->options);
    const auto more = config::changed_for_restart(running.upstreams, again->upstreams);
    out.restart.insert(out.restart.end(), more.begin(), more.end());
    if (config::comes_elsewhere(running, *again)) {
        for (const std::string& key : out.restart)
            out.trouble += (out.trouble.empty() ? "" : ", ") + key;
        out.trouble = "clients would come to other servers than now (" + out.trouble +
                      "), which takes a restart; until then each server keeps its rules";
        return out;
    }
    out.loaded = std::move(again);
    return out;
}

}  // namespace

void add_serve(CLI::App& app, int& status, ServeFunction serve, NotServed not_served) {
    struct Arguments {
        PolicySource source;
        std::map<const config::Setting*, std::string> values;
    };
    CLI::App* command = app.add_subcommand("serve", "Run the proxy");
    auto arguments = std::make_shared<Arguments>();
    command
        ->add_option("-c,--config", arguments->source.file,
                     "Configuration file (YAML); the options below win over it")
        ->type_name("FILE");
    for (const config::Setting& setting : config::settings()) {
        const std::string by_default = setting.show(config::Options{});
        command
            ->add_option(std::string(setting.option), arguments->values[&setting],
                         std::string(setting.summary) +
                             (by_default.empty() ? "" : " Default: " + by_default + "."))
            ->type_name(std::string(setting.metavar));
    }
    command
        ->add_option("--policy", arguments->source.policy,
                     "Policy file, or one of the presets " + preset_names() +
                         ". Default: " + std::string(policy::built_in_preset) + ".")
        ->type_name("FILE|PRESET");
    command->callback([command, arguments, &status, serve = std::move(serve),
                       not_served = std::move(not_served)] {
        config::Request request;
        request.file = arguments->source.file;
        request.policy = arguments->source.policy;
        for (const config::Setting& setting : config::settings()) {
            // Given, even if empty: an empty value is a mistake to be told.
            if (command->count(std::string(setting.option)) > 0) {
                request.overrides.emplace_back(&setting, arguments->values[&setting]);
            }
        }
        config::Problems problems;
        auto loaded = config::load(request, problems, config::real_surroundings());
        problems.print(std::cerr);
        if (!loaded) {
            not_served(problems.first_error());
            status = exit_trouble;
            return;
        }
        status = serve(*loaded,
                       [request, running = *loaded] { return load_again(request, running); });
    });
}

}  // namespace pgchaperone::cli
