#include "policy/analyzer.h"

#include "policy/analyzer_walk.h"
#include "policy/deep_text.h"
#include "policy/lexical.h"
#include "policy/parse_tree.h"
#include "policy/run_by_name.h"
#include "policy/secrets.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <exception>
#include <string>
#include <utility>

namespace pgchaperone::policy {

namespace {

// Some ten milliseconds of the scanner's time: far more than what people write in comments takes.
constexpr std::size_t comment_steps_max = 4'000'000;

StatementFacts unreadable(std::string_view sql, std::string reason) {
    const auto [from, to] = without_space(sql);
    StatementFacts facts;
    facts.location = static_cast<std::uint32_t>(from);
    facts.length = static_cast<std::uint32_t>(to - from);
    facts.command = "???";
    facts.commands = {"???"};
    facts.classes = {StatementClass::misc};
    facts.unparsable = {true, std::move(reason)};
    facts.may_change_lexical_settings = true;
    return facts;
}

struct ReplicationCommand {
    std::string_view word;
    std::string_view danger;
};

// The words that a walsender takes for a command of its own when a Query begins with one.
constexpr std::array replication_commands = {
    ReplicationCommand{"IDENTIFY_SYSTEM", ""},
    ReplicationCommand{"READ_REPLICATION_SLOT", ""},
    ReplicationCommand{"TIMELINE_HISTORY", ""},
    ReplicationCommand{"SHOW", ""},
    ReplicationCommand{"BASE_BACKUP", "copies the whole server"},
    ReplicationCommand{"UPLOAD_MANIFEST", "prepares a copy of the whole server"},
    ReplicationCommand{"START_REPLICATION", "streams everybody's changes"},
    ReplicationCommand{"CREATE_REPLICATION_SLOT",
                       "makes the server keep its log until somebody takes it"},
    ReplicationCommand{"ALTER_REPLICATION_SLOT", "changes replication"},
    ReplicationCommand{"DROP_REPLICATION_SLOT", "ends a replication for good"},
};

// The walsender's scanner decides by the first word, and knows no comments.
const ReplicationCommand* replication_command(std::string_view sql) {
    const auto [from, to] = without_space(sql);
    std::size_t end = from;
    while (end < to &&
           (std::isalnum(static_cast<unsigned char>(sql[end])) != 0 || sql[end] == '_')) {
        ++end;
    }
    std::string word(sql.substr(from, end - from));
    std::transform(word.begin(), word.end(), word.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    const auto found = std::find_if(
        replication_commands.begin(), replication_commands.end(),
        [&](const ReplicationCommand& each) { return each.word == word; });
    return found != replication_commands.end() ? &*found : nullptr;
}

StatementFacts facts_of(const ReplicationCommand& command, std::string_view sql) {
    const auto [from, to] = without_space(sql);
    StatementFacts facts;
    facts.location = static_cast<std::uint32_t>(from);
    facts.length = static_cast<std::uint32_t>(to - from);
    facts.command = command.word;
    facts.commands = {facts.command};
    facts.classes = {StatementClass::misc};
    facts.runs_in_transaction = false;
    if (!command.danger.empty()) {
        facts.dangerous = {true, std::string(command.danger)};
    }
    return facts;
}

// The statements of a text that is UTF-8.
void read_statements(std::string_view sql, const ReadableText& readable, Analysis& out) {
    const ParseTree tree(sql, ParseTree::Kind::sql, readable.backslash_escapes);
    if (!tree.ok()) {
        out.statements = {unreadable(out.text, tree.error())};
        return;
    }
    WalkContext context;
    context.backslash_escapes = readable.backslash_escapes;
    constexpr std::uint64_t least_work = 100'000;
    constexpr std::uint64_t work_per_byte = 50;
    context.work = least_work + work_per_byte * sql.size();
    out.fingerprint = fingerprint_of(tree.root());
    const auto root = as_object(tree.root());
    for (const Json item : root ? items_field(*root, "stmts") : Items{}) {
        const auto raw = as_object(item);
        const auto node = raw ? node_field(*raw, "stmt") : std::nullopt;
        if (!node) {
            continue;
        }
        const auto begin = std::min<std::size_t>(
            static_cast<std::size_t>(number_field(*raw, "stmt_location")), sql.size());
        const auto given = static_cast<std::size_t>(number_field(*raw, "stmt_len"));
        std::string_view text = sql.substr(begin, given == 0 ? std::string_view::npos : given);
        const auto [from, to] = without_space(text);
        text = text.substr(from, to - from);
        StatementFacts& facts = out.statements.emplace_back();
        const auto location = static_cast<std::uint32_t>(begin + from);
        const auto end = static_cast<std::uint32_t>(location + text.size());
        facts.location = readable.sent_offset(location);
        facts.length = readable.sent_offset(end) - facts.location;
        gather_facts(*node, text, context, facts);
    }
    join_within(out);
    if (out.statements.empty()) {
        out.fingerprint = 0;
    }
}

void analyze_into(std::string_view sql, const LexicalSettings& lexical, bool replication,
                  const AnalyzerLimits& limits, Analysis& out) {
    if (sql.size() > limits.text_bytes) {
        out.statements = {
            unreadable(sql, "it is larger than " + std::to_string(limits.text_bytes) + " bytes")};
        return;
    }
    out.text = sql;
    if (replication) {
        if (const ReplicationCommand* command = replication_command(sql)) {
            out.statements = {facts_of(*command, sql)};
            return;
        }
    }
    if (comment_steps_bound(sql) > comment_steps_max) {
        out.statements = {unreadable(sql, "its comments are nested too deeply")};
        return;
    }
    const ReadableText readable = make_readable(sql, lexical);
    if (!readable.problem.empty()) {
        out.statements = {unreadable(sql, readable.problem)};
        return;
    }
    const std::string_view text = readable.converted ? std::string_view(readable.utf8) : sql;
    const auto read_it = [&] { read_statements(text, readable, out); };
    if (!with_enough_stack(text, readable.backslash_escapes, 0, read_it)) {
        out.statements = {unreadable(sql, "it is nested too deeply")};
    }
}

// What is told of a text besides the text itself must not tell its secrets.
void hide_secrets(const LexicalSettings& lexical, Analysis& out) {
    const bool parsed = std::none_of(
        out.statements.begin(), out.statements.end(),
        [](const StatementFacts& facts) { return facts.unparsable.set; });
    const Secrets& secrets = out.secrets = secrets_in(out.text, lexical, parsed);
    if (secrets.none()) return;
    if (out.fingerprint != 0 && !secrets.in_comments_alone) {
        out.fingerprint = fingerprint_without(secrets, out.text);
    }
    // The parser's complaint quotes what it stumbled over.
    for (StatementFacts& facts : out.statements) {
        std::string& reason = facts.unparsable.reason;
        reason.resize(std::min(reason.size(), reason.find(" at or near ")));
    }
}

}  // namespace

AnalysisPtr Analyzer::analyze(std::string_view sql, const LexicalSettings& lexical,
                              bool replication) const noexcept {
    // Where there is no memory even for this, the process ends: a dead guard beats a wrong one.
    auto out = std::make_shared<Analysis>();
    try {
        analyze_into(sql, lexical, replication, limits_, *out);
        hide_secrets(lexical, *out);
    } catch (const std::exception& failure) {
        out->statements.assign(1, unreadable(sql, failure.what()));
        out->secrets.spans = {{0, static_cast<std::uint32_t>(out->text.size())}};
    }
    return out;
}

}  // namespace pgchaperone::policy
