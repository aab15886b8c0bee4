#include "cli/audit.h"

#include "audit/log_files.h"
#include "audit/verify.h"
#include "cli/subcommands.h"

#include <CLI/CLI.hpp>

#include <iostream>
#include <memory>
#include <sstream>
#include <string>

namespace pgchaperone::cli {
namespace {

std::string counted(std::uint64_t count, const std::string& thing) {
    return std::to_string(count) + " " + thing + (count == 1 ? "" : "s");
}

void print_intact(const std::filesystem::path& file, const audit::Verification& result,
                  std::ostream& out) {
    out << file.string() << ": intact, " << counted(result.lines, "line");
    if (result.lines > 0) {
        out << ", seq " << result.begin.seq + 1 << " to " << result.head.seq << ", head "
            << to_text(result.head);
        if (result.begin.seq > 0) out << ", follows " << to_text(result.begin);
    }
    out << '\n';
}

// Two lines that follow the same one: a copy that was written on, or a past written anew.
void tell_fork(const std::vector<std::filesystem::path>& files, const std::filesystem::path& file,
               const audit::Verification& result, std::ostream& err) {
    const auto where = audit::find_line(files, result.claimed->hash);
    if (!where || (where->file == file && where->line >= result.line)) return;
    err << file.string() << ":" << result.line << ": the chain forks: this line follows line "
        << where->line << " of " << where->file.string()
        << ", behind which another one stands already\n";
}

}  // namespace

int verify_log(const std::filesystem::path& log, const std::optional<audit::ChainPoint>& after,
               const std::optional<audit::ChainPoint>& expected, std::ostream& out,
               std::ostream& err) {
    // While it is read, the log may be rotated and its old files compressed.
    constexpr int attempts = 5;
    for (int attempt = 1;; ++attempt) {
        std::vector<std::filesystem::path> files = audit::files_of_log(log);
        if (files.empty()) files.push_back(log);
        std::ostringstream said, complained;
        const int status = verify_logs(files, after, expected, said, complained);
        if (status != audit_intact && attempt < attempts && audit::files_of_log(log) != files)
            continue;
        out << said.str();
        err << complained.str();
        return status;
    }
}

int verify_logs(const std::vector<std::filesystem::path>& files,
                const std::optional<audit::ChainPoint>& after,
                const std::optional<audit::ChainPoint>& expected, std::ostream& out,
                std::ostream& err) {
    std::optional<audit::ChainPoint> before = after;
    bool found = false;
    for (const std::filesystem::path& file : files) {
        const audit::Verification result = audit::verify(file, before, expected);
        switch (result.outcome) {
            case audit::Verification::Outcome::unreadable:
                err << "pgchaperone: can't read " << file.string() << ": " << result.problem
                    << '\n';
                return audit_trouble;
            case audit::Verification::Outcome::broken:
                err << file.string() << ":" << result.line << ": " << result.problem << '\n';
                if (result.claimed) tell_fork(files, file, result, err);
                err << file.string() << ": the chain is broken; " << counted(result.lines, "line")
                    << " before that " << (result.lines == 1 ? "is" : "are") << " in order\n";
                return audit_broken;
            case audit::Verification::Outcome::intact: print_intact(file, result, out); break;
        }
        found = found || result.contains_expected;
        // An empty first file says nothing of where the chain stands.
        if (before || result.lines > 0) before = result.head;
    }
    if (expected && !found) {
        err << "pgchaperone: line " << expected->seq
            << " is not there as it was noted: the end of the log was cut off, or it was written "
               "anew\n";
        return audit_broken;
    }
    return audit_intact;
}

std::optional<std::filesystem::path> configured_log(const std::string& config) {
    config::Request request;
    if (!config.empty()) request.file = config;
    const auto loaded = load_or_complain(request);
    if (!loaded) return std::nullopt;
    return loaded->options.audit.file;
}

void add_audit(CLI::App& app, int& status) {
    struct Arguments {
        std::vector<std::filesystem::path> files;
        std::string config;
        std::string after;
        std::string expected;
    };
    // Lives as long as the callback, that is, as the app.
    const auto arguments = std::make_shared<Arguments>();
    CLI::App* command = app.add_subcommand("audit", "Check audit logs");
    command->require_subcommand(1);
    CLI::App* verify = command->add_subcommand(
        "verify", "Find a line of an audit log that was edited, removed or put in");
    verify->add_option("FILE", arguments->files,
                       "The audit log, with all old files that it was rotated into; or several "
                       "files of it, the oldest first. Without it, the log of the configuration");
    verify->add_option("-c,--config", arguments->config, "Configuration file (YAML)")
        ->type_name("FILE");
    const auto is_point = [](const std::string& text) {
        return audit::parse_chain_point(text)
                   ? std::string()
                   : "expected SEQ:HASH as an earlier verify printed it, not \"" + text + "\"";
    };
    verify
        ->add_option("--expect", arguments->expected,
                     "A head that was noted earlier and must be in the log: only this finds a cut "
                     "tail, or a log that was written anew")
        ->type_name("SEQ:HASH")
        ->check(is_point);
    verify
        ->add_option("--after", arguments->after,
                     "The head of the file before the first one, which it must follow")
        ->type_name("SEQ:HASH")
        ->check(is_point);
    verify->footer(
        "Note the head that it prints where the log's writer can't reach it, and give it to\n"
        "--expect the next time.\n"
        "Exit status: 0 intact, 1 broken, 2 trouble.");
    verify->callback([arguments, &status] {
        const auto point = [](const std::string& text) {
            return text.empty() ? std::nullopt : audit::parse_chain_point(text);
        };
        const auto after = point(arguments->after), expected = point(arguments->expected);
        if (arguments->files.size() > 1) {
            status = verify_logs(arguments->files, after, expected, std::cout, std::cerr);
            return;
        }
        const auto log = arguments->files.empty() ? configured_log(arguments->config)
                                                  : std::optional(arguments->files.front());
        status = log ? verify_log(*log, after, expected, std::cout, std::cerr) : audit_trouble;
    });
}

}  // namespace pgchaperone::cli
