#include "cli/subcommands.h"
#include "policy/rule_presets.h"

#include <CLI/CLI.hpp>

#include <iostream>
#include <map>
#include <memory>

namespace pgchaperone::cli {

void add_serve(CLI::App& app, int& status, ServeFunction serve) {
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
    command->callback([command, arguments, &status, serve = std::move(serve)] {
        config::Request request;
        request.file = arguments->source.file;
        request.policy = arguments->source.policy;
        for (const config::Setting& setting : config::settings()) {
            // Given, even if empty: an empty value is a mistake to be told.
            if (command->count(std::string(setting.option)) > 0) {
                request.overrides.emplace_back(&setting, arguments->values[&setting]);
            }
        }
        auto loaded = load_or_complain(request);
        if (!loaded) {
            status = exit_trouble;
            return;
        }
        const auto options = std::make_shared<config::Options>();
        const auto rules = std::make_shared<policy::RuleBook>(
            std::move(loaded->policy),
            [request, options]() -> boost::system::result<policy::Policy, policy::PatternError> {
                config::Problems problems;
                auto again = config::load(request, problems, config::real_surroundings());
                if (!again) return policy::PatternError{problems.text()};
                *options = std::move(again->options);
                return std::move(again->policy);
            });
        status = serve(loaded->options, rules, [rules, options, running = loaded->options] {
            std::string trouble = rules->reload();
            return Reloaded{std::move(trouble), *options,
                            config::changed_for_restart(running, *options)};
        });
    });
}

}  // namespace pgchaperone::cli
