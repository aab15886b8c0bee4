#include "cli/audit.h"

#include "audit/log_walk.h"
#include "audit/verify.h"
#include "cli/audit_search.h"
#include "cli/subcommands.h"

#include <CLI/CLI.hpp>

#include <chrono>
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

// The chain is in order, and yet the log says that it is not all there.
void print_admissions(const std::filesystem::path& file, const audit::Verification& result,
                      std::ostream& out) {
    for (const audit::Verification::Admission& one : result.admissions) {
        out << file.string() << ":" << one.line << ": the log tells that " << one.words << '\n';
    }
    if (result.more_admissions > 0) {
        out << file.string() << ": and " << counted(result.more_admissions, "line")
            << " more that tell such things: see audit search --event torn, refused or changed\n";
    }
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

std::string lines_text(const audit::SignatureCheck::Stretch& stretch) {
    if (stretch.first == stretch.last) return "line " + std::to_string(stretch.first);
    return "lines " + std::to_string(stretch.first) + " to " + std::to_string(stretch.last);
}

// What the checkpoints amount to, once the chain is in order and each of them was made by its key.
int tell_signatures(const audit::SignatureCheck& check, std::uint64_t last,
                    std::optional<std::uint64_t> allowed, std::ostream& out, std::ostream& err) {
    if (check.checkpoints == 0) {
        err << "pgchaperone: no line of the log is a signed checkpoint: it was written without a "
               "key, or anew by somebody who has none\n";
        return audit_broken;
    }
    int status = audit_intact;
    for (const auto& stretch : check.unsigned_lines) {
        const bool too_many = stretch.last - stretch.first + 1 > allowed.value_or(0);
        (too_many ? err : out) << "pgchaperone: " << lines_text(stretch)
                               << ": no checkpoint speaks for this; it was written by a process "
                                  "that was killed, or that had no key, or anew by somebody\n";
        if (too_many) status = audit_broken;
    }
    out << "signed: " << counted(check.checkpoints, "checkpoint") << ", up to line "
        << check.looked_at;
    if (last > check.looked_at)
        out << "; " << counted(last - check.looked_at, "line") << " behind it "
            << (last == check.looked_at + 1 ? "is" : "are") << " not signed";
    out << '\n';
    if (allowed && last > check.looked_at + *allowed) {
        err << "pgchaperone: "
            << lines_text(audit::SignatureCheck::Stretch{check.looked_at + 1, last})
            << ": behind the last checkpoint, and more than --max-unsigned allows: the guard was "
               "killed, or goes on without its key, or somebody wrote them\n";
        status = audit_broken;
    }
    return status;
}

// Verifies file after file as one chain.
class Verifier {
public:
    Verifier(const VerifyTerms& terms, std::ostream& out, std::ostream& err)
        : terms_(terms), out_(out), err_(err), before_(terms.after) {
        signatures_.keys = terms.keys;
    }

    // Anything but audit_intact ends it, and was told.
    int file(const std::filesystem::path& file, audit::LineReader& reader) {
        files_.push_back(file);
        const audit::Verification result = audit::verify(
            reader, before_, terms_.expected, terms_.keys.empty() ? nullptr : &signatures_);
        switch (result.outcome) {
            case audit::Verification::Outcome::unreadable:
                err_ << "pgchaperone: can't read " << file.string() << ": " << result.problem
                     << '\n';
                return audit_trouble;
            case audit::Verification::Outcome::broken:
                err_ << file.string() << ":" << result.line << ": " << result.problem << '\n';
                if (result.claimed) tell_fork(files_, file, result, err_);
                err_ << file.string() << ": the chain is broken; " << counted(result.lines, "line")
                     << " before that " << (result.lines == 1 ? "is" : "are") << " in order\n";
                return audit_broken;
            case audit::Verification::Outcome::intact: break;
        }
        if (terms_.whole && !before_ && result.begin.seq > 0) {
            err_ << file.string() << ":1: lines 1 to " << result.begin.seq
                 << " of the log are not there: its oldest files were removed; where that is as it "
                    "should be, say --partial, or --after with the point that this one follows\n";
            return audit_broken;
        }
        print_intact(file, result, out_);
        print_admissions(file, result, out_);
        found_ = found_ || result.contains_expected;
        // An empty first file says nothing of where the chain stands.
        if (before_ || result.lines > 0) before_ = result.head;
        return audit_intact;
    }

    int end() {
        if (terms_.expected && !found_) {
            err_ << "pgchaperone: line " << terms_.expected->seq
                 << " is not there as it was noted: the end of the log was cut off, or it was "
                    "written anew\n";
            return audit_broken;
        }
        if (terms_.keys.empty()) return audit_intact;
        return tell_signatures(signatures_, before_ ? before_->seq : 0, terms_.unsigned_max, out_,
                               err_);
    }

    std::optional<std::uint64_t> last_seq() const {
        return before_ ? std::optional(before_->seq) : std::nullopt;
    }

private:
    const VerifyTerms& terms_;
    std::ostream& out_;
    std::ostream& err_;
    std::vector<std::filesystem::path> files_;
    std::optional<audit::ChainPoint> before_;
    audit::SignatureCheck signatures_;
    bool found_ = false;
};

int verify_once(const std::filesystem::path& log, const VerifyTerms& terms, std::ostream& out,
                std::ostream& err) {
    Verifier verifier(terms, out, err);
    audit::LogWalk walk(log);
    while (audit::LineReader* const reader = walk.next(verifier.last_seq())) {
        if (const int status = verifier.file(walk.path(), *reader); status != audit_intact)
            return status;
    }
    return verifier.end();
}

}  // namespace

int verify_log(const std::filesystem::path& log, const VerifyTerms& terms, std::ostream& out,
               std::ostream& err) {
    // While it is read, its last line may be half written, or its oldest file be removed as `keep`
    // says: what is wrong counts when it is found so twice.
    constexpr std::chrono::seconds patience{30};
    const auto until = std::chrono::steady_clock::now() + patience;
    std::optional<std::string> before;
    while (true) {
        std::ostringstream said, complained;
        const int status = verify_once(log, terms, said, complained);
        const std::string complaint = complained.str();
        if (status != audit_intact && before != complaint &&
            std::chrono::steady_clock::now() < until) {
            before = complaint;
            continue;
        }
        out << said.str();
        err << complaint;
        return status;
    }
}

int verify_logs(const std::vector<std::filesystem::path>& files, const VerifyTerms& terms,
                std::ostream& out, std::ostream& err) {
    Verifier verifier(terms, out, err);
    for (const std::filesystem::path& file : files) {
        audit::LineReader reader(file);
        if (const int status = verifier.file(file, reader); status != audit_intact) return status;
    }
    return verifier.end();
}

std::optional<config::Audit> configured_audit(const std::string& config) {
    config::Request request;
    if (!config.empty()) request.file = config;
    const auto loaded = load_or_complain(request);
    if (!loaded) return std::nullopt;
    return loaded->options.audit;
}

namespace {

void add_search(CLI::App& command, int& status) {
    struct Arguments {
        std::vector<std::filesystem::path> files;
        std::string config, since, until;
        SearchTerms terms;
        bool json = false;
    };
    const auto arguments = std::make_shared<Arguments>();
    CLI::App* search = command.add_subcommand(
        "search", "Find the records of an audit log that are about somebody or something");
    search->add_option("FILE", arguments->files,
                       "The audit log, with all its old files; or several files of it. Without "
                       "it, the log of the configuration");
    search->add_option("-c,--config", arguments->config, "Configuration file (YAML)")
        ->type_name("FILE");
    SearchTerms& terms = arguments->terms;
    const auto word = [search](const char* name, std::string& target, const char* what) {
        search->add_option(name, target, what)->type_name("TEXT");
    };
    word("--event", terms.event,
         "Lines of this kind, the log's own among them: policy, start, stop, refused, ...");
    word("--user", terms.user, "Who");
    word("--database", terms.database, "In which database");
    word("--upstream", terms.upstream, "At which server, where several are guarded");
    word("--table", terms.table, "A table that it names or changed, with or without its schema");
    word("--decision", terms.decision, "allow, block, supervise, hold or answer");
    word("--rule", terms.rule, "The rule that decided");
    word("--ticket", terms.ticket, "The ticket");
    word("--text", terms.text, "A part of the statement");
    const auto is_time = [](const std::string& text) {
        return parse_time_or_age(text, Time{})
                   ? std::string()
                   : "expected 2026-11-21, 2026-11-21T10:00:00Z, or how long ago: 2h";
    };
    search->add_option("--since", arguments->since, "From then on")
        ->type_name("TIME")
        ->check(is_time);
    search->add_option("--until", arguments->until, "Before then")
        ->type_name("TIME")
        ->check(is_time);
    search->add_flag("--json", arguments->json, "The records as they stand in the log");
    search->footer("Exit status: 0 there are some, 1 there are none, 2 trouble.");
    search->callback([arguments, &status] {
        const Time now = std::chrono::system_clock::now();
        if (!arguments->since.empty())
            arguments->terms.since = parse_time_or_age(arguments->since, now);
        if (!arguments->until.empty())
            arguments->terms.until = parse_time_or_age(arguments->until, now);
        if (arguments->files.empty()) {
            const auto audit = configured_audit(arguments->config);
            if (!audit) {
                status = audit_trouble;
                return;
            }
            arguments->files.push_back(audit->file);
        }
        status = search_log(arguments->files, arguments->terms, arguments->json, look_of_output(),
                            std::cout, std::cerr);
    });
}

}  // namespace

void add_audit(CLI::App& app, int& status) {
    struct Arguments {
        std::vector<std::filesystem::path> files;
        std::string config;
        std::string after;
        std::string expected;
        std::vector<std::string> keys;
        std::optional<std::uint64_t> unsigned_max;
        bool partial = false;
        std::string key;
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
    verify->add_flag("--partial", arguments->partial,
                     "The oldest files of the log may be missing: they were archived, or removed "
                     "as audit.keep says. With a configuration that says so it is understood");
    verify
        ->add_option(
            "--public-key", arguments->keys,
            "The public key of audit.checkpoint_key: checkpoints must be signed by it, and "
            "speak for all lines before the last of them; may be given several times")
        ->type_name("FILE")
        ->allow_extra_args(false);
    verify
        ->add_option("--max-unsigned", arguments->unsigned_max,
                     "How many lines in a row may be without a checkpoint that speaks for them, as "
                     "a kill leaves them; where it is given it counts behind the last one, too")
        ->type_name("N");
    verify->footer(
        "Note the head that it prints where the log's writer can't reach it, and give it to\n"
        "--expect the next time.\n"
        "Exit status: 0 intact, 1 broken, 2 trouble.");
    verify->callback([arguments, &status] {
        const auto point = [](const std::string& text) {
            return text.empty() ? std::nullopt : audit::parse_chain_point(text);
        };
        VerifyTerms terms;
        terms.after = point(arguments->after);
        terms.expected = point(arguments->expected);
        terms.unsigned_max = arguments->unsigned_max;
        for (const std::string& file : arguments->keys) {
            auto key = audit::Key::load_public(file);
            if (!key) {
                std::cerr << "pgchaperone: " << key.error().text << '\n';
                status = audit_trouble;
                return;
            }
            terms.keys.push_back(std::move(*key));
        }
        if (arguments->files.size() > 1) {
            status = verify_logs(arguments->files, terms, std::cout, std::cerr);
            return;
        }
        terms.whole = !arguments->partial;
        std::filesystem::path log;
        if (arguments->files.empty()) {
            const auto audit = configured_audit(arguments->config);
            if (!audit) {
                status = audit_trouble;
                return;
            }
            log = audit->file;
            // Then it is the guard that removes old files.
            if (audit->keep > 0) terms.whole = false;
        } else {
            log = arguments->files.front();
        }
        status = verify_log(log, terms, std::cout, std::cerr);
    });

    add_search(*command, status);
    CLI::App* key = command->add_subcommand(
        "key", "Make a pair of Ed25519 keys for signed checkpoints: FILE and FILE.pub");
    key->add_option("FILE", arguments->key,
                    "The private key, for audit.checkpoint_key; keep FILE.pub where the log's "
                    "writer can't change it")
        ->required();
    key->callback([arguments, &status] {
        const std::string problem = audit::make_key_pair(arguments->key);
        if (!problem.empty()) std::cerr << "pgchaperone: " << problem << '\n';
        status = problem.empty() ? audit_intact : audit_trouble;
    });
}

}  // namespace pgchaperone::cli
