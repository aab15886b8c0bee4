#include "cli/check.h"

#include "cli/sql_script.h"
#include "cli/subcommands.h"
#include "policy/own_tables.h"

#include <CLI/CLI.hpp>

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <memory>

namespace pgchaperone::cli {
namespace {

struct Waiver {
    std::vector<std::string> rules;
    std::string because;  // empty: none was given
    Span span;
    bool used = false;
};

std::string trimmed(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t' || text.front() == '"'))
        text.remove_prefix(1);
    while (!text.empty() &&
           (text.back() == ' ' || text.back() == '\t' || text.back() == '\r' || text.back() == '"'))
        text.remove_suffix(1);
    return std::string(text);
}

std::string lower(std::string_view text) {
    std::string out(text);
    for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    return out;
}

// Reads `chaperone: allow RULE[, RULE] because REASON` out of a comment, one to a line.
void read_waivers(std::string_view text, Span comment, std::vector<Waiver>& waivers) {
    std::string_view body = text.substr(comment.offset, comment.length);
    if (body.substr(0, 2) == "/*" && body.size() >= 4) body = body.substr(0, body.size() - 2);
    std::size_t offset = comment.offset;
    while (!body.empty()) {
        const auto end = std::min(body.find('\n'), body.size());
        const std::string_view line = body.substr(0, end);
        const std::string folded = lower(line);
        const auto mark = folded.find("chaperone:");
        const auto allow = mark == std::string::npos ? mark : folded.find("allow", mark + 10);
        if (allow != std::string::npos &&
            trimmed(line.substr(mark + 10, allow - mark - 10)).empty()) {
            Waiver waiver;
            waiver.span = {offset + mark, line.size() - mark};
            auto because = folded.find(" because", allow);
            std::string_view names = line.substr(
                allow + 5, because == std::string::npos ? because : because - allow - 5);
            if (because != std::string::npos) waiver.because = trimmed(line.substr(because + 8));
            while (!names.empty()) {
                const auto comma = std::min(names.find(','), names.size());
                if (const auto name = trimmed(names.substr(0, comma)); !name.empty())
                    waiver.rules.push_back(name);
                names.remove_prefix(std::min(comma + 1, names.size()));
            }
            waivers.push_back(std::move(waiver));
        }
        offset += std::min(end + 1, body.size());
        body.remove_prefix(std::min(end + 1, body.size()));
    }
}

class Checker {
public:
    Checker(const policy::Policy& policy, Situation here, const std::string& file,
            std::string_view text, Totals& totals)
        : policy_(policy),
          situation_(std::move(here)),
          own_tables_(situation_.moment, policy::OwnTablesInOrder::Scope::file),
          file_(file),
          text_(text),
          totals_(totals) {}

    std::vector<Finding> run() {
        const Script script = split_script(text_);
        for (const ScriptStatement& statement : script.statements) check(statement);
        for (const ScriptNote& note : script.notes) {
            Finding finding = at(note.offset, 1, Finding::Level::note);
            finding.rule = "script";
            finding.message = note.text;
            findings_.push_back(std::move(finding));
        }
        std::stable_sort(findings_.begin(), findings_.end(),
                         [](const Finding& a, const Finding& b) {
                             return std::tie(a.line, a.column) < std::tie(b.line, b.column);
                         });
        for (const Finding& finding : findings_) {
            if (finding.waived)
                ++totals_.waived;
            else if (finding.level == Finding::Level::error)
                ++totals_.errors;
            else if (finding.level == Finding::Level::warning)
                ++totals_.warnings;
        }
        return std::move(findings_);
    }

private:
    Verdict judge_filled(const ScriptStatement& statement) {
        Verdict verdict = judge(policy_, statement.sql, situation_);
        const auto unparsable = [&] {
            return std::any_of(verdict.statements.begin(), verdict.statements.end(),
                               [](const StatementVerdict& s) { return s.facts->unparsable.set; });
        };
        // Only what can't be read as it stands is read with its variables filled: a[1:n] is no
        // variable.
        for (const bool as_names : {false, true}) {
            if (statement.blanks.empty() || !unparsable()) break;
            verdict = judge(policy_, statement.filled(as_names), situation_);
        }
        return verdict;
    }

    void check(const ScriptStatement& statement) {
        std::vector<Waiver> waivers;
        for (const Span& comment : statement.comments) read_waivers(text_, comment, waivers);
        if (statement.after_unknown) own_tables_.doubt();
        situation_.moment.own_tables = own_tables_.names();
        situation_.moment.name_doubts = own_tables_.doubts();
        const Verdict verdict = judge_filled(statement);
        for (const StatementVerdict& one : verdict.statements) {
            ++totals_.statements;
            report(statement, one, waivers);
            follow_transaction(one.facts->command);
            own_tables_.ran(*one.facts);
        }
        if (statement.result_is_run) own_tables_.doubt();
        for (const Waiver& waiver : waivers) complain(waiver);
    }

    void report(const ScriptStatement& statement, const StatementVerdict& one,
                std::vector<Waiver>& waivers) {
        if (one.action == policy::Action::allow || one.action == policy::Action::supervise) return;
        const std::size_t offset = std::min<std::size_t>(one.facts->location,
                                                         statement.span.length);
        const std::size_t length = std::min<std::size_t>(one.facts->length,
                                                         statement.span.length - offset);
        Finding finding = at(statement.span.offset + offset, length,
                             one.observed ? Finding::Level::warning : Finding::Level::error);
        finding.rule = one.rule != nullptr                               ? one.rule->name
                       : one.outcome.rule == policy::Outcome::unparsable ? "unparsable"
                                                                         : "default";
        finding.action = policy::action_name(one.action);
        const std::string command = one.facts->unparsable || one.facts->command.empty()
                                        ? "statement"
                                        : one.facts->command;
        finding.message = "this " + command +
                          (one.observed ? " would pass and be noted: "
                           : one.action == policy::Action::hold
                               ? " would wait for a second person: "
                               : " would be blocked: ") +
                          one.reason;
        finding.hint = one.hint;
        for (Waiver& waiver : waivers) {
            if (std::find(waiver.rules.begin(), waiver.rules.end(), finding.rule) ==
                waiver.rules.end())
                continue;
            waiver.used = true;
            if (waiver.because.empty()) continue;
            finding.waived = true;
            finding.waiver = waiver.because;
            finding.level = Finding::Level::note;
        }
        findings_.push_back(std::move(finding));
    }

    void complain(const Waiver& waiver) {
        std::string names;
        for (const std::string& rule : waiver.rules) names += (names.empty() ? "" : ", ") + rule;
        Finding finding = at(waiver.span.offset, waiver.span.length, Finding::Level::warning);
        finding.rule = "waiver";
        if (waiver.rules.empty()) {
            finding.message = "this waiver names no rule";
        } else if (waiver.because.empty()) {
            finding.level = Finding::Level::error;
            finding.message = "this waiver gives no reason, so it does not count";
        } else if (!waiver.used) {
            finding.message = "this waiver waives nothing: " + names +
                              " does not stop this statement";
            finding.hint = "Remove it, lest it hide something later.";
        } else {
            return;
        }
        if (finding.hint.empty()) finding.hint = "Write: -- chaperone: allow RULE because REASON";
        findings_.push_back(std::move(finding));
    }

    void follow_transaction(const std::string& command) {
        if (command == "BEGIN" || command == "START TRANSACTION")
            situation_.moment.in_transaction = true;
        if (command == "COMMIT" || command == "ROLLBACK" || command == "PREPARE TRANSACTION")
            situation_.moment.in_transaction = false;
    }

    Finding at(std::size_t offset, std::size_t length, Finding::Level level) const {
        Finding finding;
        finding.level = level;
        finding.file = file_;
        const LineColumn begin = line_column(text_, offset);
        const LineColumn end = line_column(text_, offset + length);
        finding.line = begin.line;
        finding.column = begin.column;
        finding.end_line = end.line;
        finding.end_column = end.column;
        const auto line_begin = offset == 0 ? 0
                                            : text_.rfind('\n', offset - 1) + 1;  // npos + 1 is 0
        const auto line_end = std::min(text_.find('\n', offset), text_.size());
        finding.source_line = text_.substr(line_begin, line_end - line_begin);
        if (!finding.source_line.empty() && finding.source_line.back() == '\r')
            finding.source_line.pop_back();
        return finding;
    }

    const policy::Policy& policy_;
    Situation situation_;
    policy::OwnTablesInOrder own_tables_;
    const std::string& file_;
    std::string_view text_;
    Totals& totals_;
    std::vector<Finding> findings_;
};

// Files as they are named; of a folder all *.sql below it, in the order of their names.
bool expand(const std::string& name, std::vector<std::string>& files) {
    std::error_code error;
    if (name == "-" || !std::filesystem::is_directory(name, error)) {
        files.push_back(name);
        return true;
    }
    std::vector<std::string> found;
    for (auto it = std::filesystem::recursive_directory_iterator(name, error);
         !error && it != std::filesystem::recursive_directory_iterator(); it.increment(error)) {
        if (it->is_regular_file() && it->path().extension() == ".sql")
            found.push_back(it->path().string());
    }
    if (error) {
        std::cerr << name << ": error: " << error.message() << '\n';
        return false;
    }
    if (found.empty()) std::cerr << name << ": warning: no file *.sql is in this folder\n";
    std::sort(found.begin(), found.end());
    files.insert(files.end(), found.begin(), found.end());
    return true;
}

}  // namespace

std::vector<Finding> check_script(const policy::Policy& policy, const Situation& situation,
                                  const std::string& file, std::string_view text, Totals& totals) {
    ++totals.files;
    return Checker(policy, situation, file, text, totals).run();
}

void add_check(CLI::App& app, int& status) {
    struct Arguments {
        PolicySource source;
        SessionWords session;
        std::vector<std::string> files;
        std::string format = "text";
    };
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = app.add_subcommand(
        "check", "Judge files of SQL, such as migrations, before they are run");
    command
        ->add_option("files", arguments->files,
                     "Files, folders (all *.sql below them), or - for standard input")
        ->type_name("FILE")
        ->required();
    command
        ->add_option("--format", arguments->format, "text, json, sarif or github (default: text)")
        ->check(CLI::IsMember({"text", "json", "sarif", "github"}))
        ->type_name("FORMAT");
    add_policy_options(*command, arguments->source);
    add_session_options(*command, arguments->session);
    command->footer(
        "Without a policy the preset `migration` is used.\n"
        "A comment at a statement waives a rule: -- chaperone: allow RULE because REASON");
    command->callback([arguments, &status] {
        config::Request request = arguments->source.request();
        request.default_preset = "migration";
        auto loaded = load_or_complain(request, arguments->source.upstream);
        const auto here = situation(arguments->session,
                                    [](const std::string& name, const std::string& message) {
                                        std::cerr << "--" << name << ": error: " << message << '\n';
                                    });
        if (!loaded || !here) {
            status = exit_trouble;
            return;
        }
        loaded->policy.seal();
        std::vector<std::string> files;
        bool trouble = false;
        for (const std::string& name : arguments->files) trouble = !expand(name, files) || trouble;
        const auto surroundings = config::real_surroundings();
        std::vector<Finding> findings;
        Totals totals;
        for (const std::string& name : files) {
            std::string text;
            if (name == "-") {
                text.assign(std::istreambuf_iterator<char>(std::cin), {});
            } else {
                auto read = surroundings.read_file(name);
                if (!read) {
                    std::cerr << name << ": error: can't read it: " << read.error().message << '\n';
                    trouble = true;
                    continue;
                }
                text = *std::move(read);
            }
            auto found = check_script(loaded->policy, *here, name == "-" ? "<stdin>" : name, text,
                                      totals);
            findings.insert(findings.end(), std::make_move_iterator(found.begin()),
                            std::make_move_iterator(found.end()));
        }
        if (arguments->format == "json")
            print_json(findings, totals, std::cout);
        else if (arguments->format == "sarif")
            print_sarif(loaded->policy, findings, std::cout);
        else if (arguments->format == "github")
            print_github(findings, totals, std::cout);
        else
            print_text(findings, totals,
                       isatty(STDOUT_FILENO) != 0 && std::getenv("NO_COLOR") == nullptr, std::cout);
        if (trouble)
            status = exit_trouble;
        else if (totals.errors > 0)
            status = exit_findings;
    });
}

}  // namespace pgchaperone::cli
