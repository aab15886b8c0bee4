// What a session's names stand for as SQL runs them: EXECUTE, FETCH and MOVE are judged as
// themselves and as what they run. A text is judged by itself first; where it runs something by a
// name that is known here, it is judged once more with the facts of that.

#include "policy/run_by_name.h"

#include "policy/secrets.h"
#include "proxy/session/session.h"

#include "protocol/head.h"

#include <algorithm>
#include <string>
#include <utility>

namespace pgchaperone::session {

namespace {

// A statement that runs one that runs one ...: with more names than these it is unparsable.
constexpr std::size_t names_max = 64;

policy::NamedTextPtr named(std::string_view name, const policy::Analysis& analysis,
                           std::size_t index) {
    auto out = std::make_shared<policy::NamedText>();
    out->name = name;
    out->facts = analysis.statements[index];
    policy::Shown shown = analysis.statements.size() == 1
                              ? policy::shown(analysis)
                              : policy::shown(analysis, analysis.statements[index]);
    out->whole = !shown.masked && shown.text.size() <= NamedTexts::text_bytes_max;
    out->text = shown.text.substr(0, NamedTexts::text_bytes_max);
    return out;
}

struct Run {
    std::string name;
    bool cursor = false;
    bool operator==(const Run&) const = default;
};

// False: there are too many.
bool add_runs(const policy::StatementFacts& facts, std::vector<Run>& runs) {
    const auto add = [&](Run run) {
        if (std::find(runs.begin(), runs.end(), run) != runs.end()) return true;
        if (runs.size() >= names_max) return false;
        runs.push_back(std::move(run));
        return true;
    };
    bool all = true;
    for (const std::string& name : facts.executes) all = add({name, false}) && all;
    for (const std::string& name : facts.fetches) all = add({name, true}) && all;
    return all;
}

}  // namespace

// Null: nothing is known of what it runs by name.
policy::AnalysisPtr Session::with_what_it_runs(const policy::AnalysisPtr& analysis) const {
    if (!analysis || !policy::runs_by_name(*analysis)) return nullptr;
    if (prepared_.empty() && cursors_.empty() && names_.statements() == 0 &&
        names_.portals() == 0 && ledger_.empty()) {
        return nullptr;
    }
    std::vector<policy::NamedTextPtr> found;
    std::vector<Run> runs;
    const auto add_handle = [&](std::string_view name, const StatementHandle& handle) {
        if (!handle || handle->answered || !handle->judgement.analysis) return;
        const policy::AnalysisPtr& of = handle->judgement.analysis->alone
                                            ? handle->judgement.analysis->alone
                                            : handle->judgement.analysis;
        for (std::size_t i = 0; i < of->statements.size(); ++i) {
            found.push_back(named(name, *of, i));
        }
    };
    const auto find = [&](const Run& run) {
        for (policy::NamedTextPtr& text : (run.cursor ? cursors_ : prepared_).find(run.name)) {
            found.push_back(std::move(text));
        }
        if (run.cursor) return add_handle(run.name, names_.portal(run.name));
        for (const StatementHandle& one : ledger_.replaced(run.name)) add_handle(run.name, one);
        if (certain_name(run.name)) return add_handle(run.name, names_.statement(run.name));
        names_.find_statement([&](std::string_view name, const PreparedStatement& statement) {
            if (!certain_name(name)) {
                add_handle(run.name, std::make_shared<PreparedStatement>(statement));
            }
            return false;
        });
    };
    auto joined = std::make_shared<policy::Analysis>(*analysis);
    policy::Joiner joiner(analysis->text.size());
    bool changed = false;
    for (policy::StatementFacts& facts : joined->statements) {
        if (!policy::runs_by_name(facts)) continue;
        runs.clear();
        bool all = add_runs(facts, runs);
        for (std::size_t i = 0; i < runs.size(); ++i) {
            found.clear();
            const Run run = runs[i];
            if (!run.name.empty()) find(run);
            for (policy::NamedTextPtr& text : found) {
                joiner.join(text->facts, facts);
                all = add_runs(text->facts, runs) && all;
                changed = true;
                const bool there = std::any_of(
                    joined->runs.begin(), joined->runs.end(), [&](const auto& one) {
                        return one->name == text->name && one->text == text->text;
                    });
                if (!there && joined->runs.size() < names_max) {
                    joined->runs.push_back(std::move(text));
                }
            }
        }
        if (all) continue;
        changed = true;
        if (facts.unparsable) continue;
        facts.unparsable = {true,
                            "it runs more than " + std::to_string(names_max) + " others by name"};
    }
    if (!changed) return nullptr;
    joined->alone = analysis;
    return joined;
}

// True: the text that waits is to be judged once more, with what it runs by name.
bool Session::judge_what_it_runs(const policy::Judgement& judgement) {
    if (pending_.kind != StatementKind::query && pending_.kind != StatementKind::parse) {
        return false;
    }
    if (!judgement.analysis || judgement.analysis->alone) return false;
    policy::AnalysisPtr joined = with_what_it_runs(judgement.analysis);
    if (!joined) return false;
    Judge question;
    question.kind = pending_.kind;
    question.sql = joined->alone->text;
    question.analysis = std::move(joined);
    question.once = true;
    ask(std::move(question), pending_.total);
    return true;
}

// A statement that the protocol is to bind, and SQL may have made or made anew. Where it may have,
// it is known by what the name may stand for and judged each time.
StatementHandle Session::made_by_sql(std::string_view name, const StatementHandle& handle) const {
    if (name.empty() || prepared_.empty() || (handle && handle->answered)) return handle;
    const std::vector<policy::NamedTextPtr> found = prepared_.find(name);
    if (found.empty()) return handle;
    auto analysis = std::make_shared<policy::Analysis>();
    if (handle && handle->judgement.analysis) {
        *analysis = *handle->judgement.analysis;
    }
    if (analysis->statements.empty()) analysis->statements = {policy::unknown_statement()};
    policy::Joiner joiner(analysis->text.size());
    policy::StatementFacts& facts = analysis->statements.front();
    for (const policy::NamedTextPtr& text : found) {
        // As an EXECUTE does: it runs what has that name.
        joiner.join(text->facts, facts);
        analysis->runs.push_back(text);
    }
    auto made = handle ? std::make_shared<PreparedStatement>(*handle)
                       : std::make_shared<PreparedStatement>();
    made->judgement.analysis = std::move(analysis);
    made->judgement.decisions.clear();
    made->judge_again = true;
    made->runs_by_name = true;
    return made;
}

// A text that runs was sent: the names that it gives and takes away.
void Session::follow_names(const policy::Analysis& analysis, std::uint64_t sequence) {
    const bool single = analysis.statements.size() == 1;
    for (std::size_t i = 0; i < analysis.statements.size(); ++i) {
        follow_names(analysis, i, single, sequence);
    }
}

void Session::follow_names(const policy::Analysis& analysis, std::size_t index, bool single,
                           std::uint64_t sequence) {
    using Certainty = NamedTexts::Certainty;
    if (index >= analysis.statements.size()) return;
    const policy::StatementFacts& facts = analysis.statements[index];
    const auto certainty = [&](std::string_view command) {
        if (facts.command != command) return Certainty::maybe;
        return single ? Certainty::alone : Certainty::unless;
    };
    for (const std::string& name : facts.prepares) {
        prepared_.sent(named(name, analysis, index), sequence, certainty("PREPARE"), true);
    }
    for (const std::string& name : facts.declares) {
        cursors_.sent(named(name, analysis, index), sequence, certainty("DECLARE CURSOR"),
                      facts.holds_cursor);
    }
    if (facts.command == "DEALLOCATE" && !facts.prepared_statement.empty()) {
        prepared_.sent_end(facts.prepared_statement, sequence, certainty(facts.command));
    }
    if (facts.command == "CLOSE CURSOR" && !facts.closes_cursor.empty()) {
        cursors_.sent_end(facts.closes_cursor, sequence, certainty(facts.command));
    }
}

void Session::settle_names(std::uint64_t sequence, bool ok) {
    prepared_.settled(sequence, ok, [&](const std::string& name) {
        // What a Parse had made under that name is gone as well.
        const StatementHandle there = names_.statement(name);
        if (there && certain_name(name) && there->parsed_behind < sequence) {
            names_.set_statement(name, nullptr);
        }
    });
    cursors_.settled(sequence, ok, [](const std::string&) {});
}

// DEALLOCATE ALL, CLOSE ALL or DISCARD ALL has succeeded.
void Session::forget_names(std::uint64_t sequence, std::string_view tag) {
    if (tag.starts_with("CLOSE")) return cursors_.forget_all(sequence);
    names_.forget_statements(sequence);
    prepared_.forget_all(sequence);
    if (tag.starts_with("DISCARD")) cursors_.forget_all(sequence);
}

}  // namespace pgchaperone::session
