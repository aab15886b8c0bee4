#include "cli/cli.h"

#include "cli/audit.h"
#include "cli/decode.h"
#include "cli/subcommands.h"
#include "pgchaperone_version.h"
#include "policy/rule_presets.h"

#include <CLI/CLI.hpp>
#include <boost/version.hpp>
#include <openssl/crypto.h>

#include <algorithm>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

namespace pgchaperone::cli {

std::string version_text() {
    std::string openssl = OpenSSL_version(OPENSSL_VERSION);
    // "OpenSSL 3.0.11 19 Sep 2023 (Library: ...)": the date says little.
    openssl = openssl.substr(0, openssl.find(' ', openssl.find(' ') + 1));
    return "pgchaperone " PGCHAPERONE_VERSION
           "\n"
           "grammar: PostgreSQL " PGCHAPERONE_GRAMMAR_VERSION_TEXT
           "\n"
           "Boost " +
           std::to_string(BOOST_VERSION / 100000) + "." +
           std::to_string(BOOST_VERSION / 100 % 1000) + ", " + openssl;
}

std::optional<config::Loaded> load_or_complain(const config::Request& request,
                                               const std::string& upstream) {
    config::Problems problems;
    auto loaded = config::load(request, problems, config::real_surroundings());
    problems.print(std::cerr);
    if (!loaded || upstream.empty()) return loaded;
    std::vector<std::string> names;
    for (config::Upstream& one : loaded->upstreams) {
        names.push_back(one.name);
        if (one.name != upstream) continue;
        loaded->options = std::move(one.options);
        loaded->policy = std::move(one.policy);
        return loaded;
    }
    const std::string hint = config::did_you_mean(upstream, names);
    std::cerr << "--upstream: error: the configuration has no upstream \"" << upstream << "\""
              << (hint.empty() ? "" : "; " + hint) << '\n';
    return std::nullopt;
}

std::string preset_names() {
    std::string out;
    for (const policy::Preset& preset : policy::presets())
        out += (out.empty() ? "" : ", ") + std::string(preset.name);
    return out;
}

void add_policy_options(CLI::App& command, PolicySource& source) {
    command.add_option("-c,--config", source.file, "Configuration file (YAML)")->type_name("FILE");
    command
        .add_option("--policy", source.policy,
                    "Policy file, or one of the presets " + preset_names() +
                        "; wins over the configuration's")
        ->type_name("FILE|PRESET");
    command
        .add_option("--upstream", source.upstream,
                    "Which of the configuration's upstreams; without it the top level")
        ->type_name("NAME")
        ->excludes("--policy");
}

int run(int argc, char** argv, ServeFunction serve, NotServed not_served,
        CheckFiles check_files) noexcept {
    try {
        CLI::App app("A guard proxy for PostgreSQL: it judges statements before they do harm.",
                     "pgchaperone");
        app.set_version_flag("-V,--version", version_text());
        app.require_subcommand(0, 1);
        app.get_formatter()->column_width(34);
        app.footer(
            "Run `pgchaperone COMMAND --help` for the options of a command.\n"
            "Exit status: 0 all is well, 1 findings (check, test) or a refusal, 2 trouble.");
        int status = exit_ok;
        add_serve(app, status, std::move(serve), std::move(not_served));
        add_config(app, status, std::move(check_files));
        add_explain(app, status);
        add_test(app, status);
        add_check(app, status);
        add_tickets(app, status);
        add_audit(app, status);
        add_replay(app, status);
        add_users(app, status);
        add_decode(app, status);
        std::vector<std::string> names;
        for (const CLI::App* command : app.get_subcommands([](CLI::App*) { return true; }))
            names.push_back(command->get_name());
        if (argc > 1 && argv[1][0] != '-' &&
            std::find(names.begin(), names.end(), argv[1]) == names.end()) {
            const std::string hint = config::did_you_mean(argv[1], names);
            std::cerr << "pgchaperone: there is no command \"" << argv[1] << "\""
                      << (hint.empty() ? "" : "; " + hint)
                      << "\nRun `pgchaperone --help` for the list.\n";
            return exit_trouble;
        }
        try {
            app.parse(argc, argv);
        } catch (const CLI::ParseError& e) {
            // Help and version are "errors" with status 0 to the library; all others are wrong
            // usage.
            return app.exit(e) == 0 ? exit_ok : exit_trouble;
        }
        if (app.get_subcommands().empty()) {
            std::cerr << app.help();
            return exit_trouble;
        }
        std::cout.flush();
        if (!std::cout) {
            std::cerr << "pgchaperone: can't write to standard output\n";
            return exit_trouble;
        }
        return status;
    } catch (const std::exception& e) {
        std::cerr << "pgchaperone: " << e.what() << '\n';
        return exit_trouble;
    }
}

}  // namespace pgchaperone::cli
