// Any text as SQL. What must hold:
// - the same text gives the same facts, and every statement lies in the text;
// - comments and blanks around a text change nothing in what is said of it;
// - a statement that writes, before or behind any text, is never judged a mere read.
//
// The input is a byte that chooses the settings that give the text its meaning, then the text.

#include "fuzz/driver.h"

#include "policy/analyzer.h"
#include "policy/relation_names.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

using namespace pgchaperone::policy;
using pgchaperone::test::Random;

namespace {

void require(bool holds, std::string_view what, std::string_view sql) {
    if (holds) return;
    std::fprintf(stderr, "violated: %.*s\n%.*s\n", static_cast<int>(what.size()), what.data(),
                 static_cast<int>(sql.size()), sql.data());
    std::abort();
}

LexicalSettings settings_of(std::uint8_t byte) {
    static const char* const encodings[] = {"UTF8",      "UTF8",   "UTF8", "UTF8",
                                            "SQL_ASCII", "LATIN1", "SJIS", "GB18030"};
    LexicalSettings settings;
    if (byte % 32 == 31) {
        settings.client_encoding.reset();
    } else {
        settings.client_encoding = encodings[byte % 8];
    }
    switch (byte / 8 % 4) {
        case 0: settings.standard_conforming_strings = StandardConformingStrings::off; break;
        case 1: settings.standard_conforming_strings = StandardConformingStrings::unknown; break;
        default: break;
    }
    return settings;
}

// All that is said of a statement but for where it stands.
std::string said_of(const StatementFacts& facts) {
    std::string out = facts.command + ":";
    for (const std::string& command : facts.commands) out += " " + command + ",";
    for (const StatementClass one : facts.classes)
        out += " " + std::to_string(static_cast<int>(one));
    for (const RelationName& name : facts.read) out += " reads " + relation_text(name);
    for (const RelationName& name : facts.written) out += " writes " + relation_text(name);
    for (const RelationName& name : facts.tables_created) out += " makes " + relation_text(name);
    for (const FunctionName& name : facts.functions)
        out += " calls " + name.schema + "." + name.name;
    for (const std::string& name : facts.settings) out += " sets " + name;
    for (const Flag* flag : {&facts.unbounded, &facts.opaque, &facts.unparsable, &facts.destructive,
                             &facts.dangerous, &facts.blocking})
        out += flag->set ? "; " + flag->reason : ";";
    for (const auto* names : {&facts.prepares, &facts.declares, &facts.executes, &facts.fetches}) {
        out += ";";
        for (const std::string& name : *names) out += " " + name;
    }
    out += " " + facts.prepared_statement + " " +
           std::to_string(static_cast<int>(facts.transaction_control)) + " ";
    for (const bool flag :
         {facts.creates_temporary, facts.creates_child, facts.drops_on_commit, facts.moves_pg_temp,
          facts.runs_in_transaction, facts.controls_transaction, facts.chains, facts.copies_in,
          facts.updates_on_conflict, facts.holds_cursor, facts.may_change_lexical_settings,
          facts.changes_search_path})
        out += flag ? '1' : '0';
    if (facts.chaperone) out += " " + facts.chaperone->name + ": " + facts.chaperone->problem;
    return out;
}

std::string said_of(const Analysis& analysis) {
    std::string out;
    for (const StatementFacts& facts : analysis.statements) out += said_of(facts) + "\n";
    return out;
}

bool unparsable(const Analysis& analysis) {
    return std::any_of(analysis.statements.begin(), analysis.statements.end(),
                       [](const StatementFacts& facts) { return facts.unparsable.set; });
}

bool mere_read(const Analysis& analysis) {
    return std::all_of(analysis.statements.begin(), analysis.statements.end(),
                       [](const StatementFacts& facts) {
                           return !facts.unparsable && !facts.opaque &&
                                  facts.classes == std::vector{StatementClass::read};
                       });
}

void check_places(const Analysis& analysis, std::string_view sql) {
    require(analysis.text == sql, "the text is the one that was given", sql);
    std::size_t end = 0;
    for (const StatementFacts& facts : analysis.statements) {
        require(facts.location >= end, "statements stand one behind the other", sql);
        end = std::size_t{facts.location} + facts.length;
        require(end <= sql.size(), "statements stand in the text", sql);
        require(!facts.unparsable || analysis.statements.size() == 1,
                "what can't be read is one statement", sql);
    }
}

void check(std::string_view sql, const LexicalSettings& settings) {
    const Analyzer analyzer;
    const AnalysisPtr bare = analyzer.analyze(sql, settings);
    check_places(*bare, sql);
    check_places(*analyzer.analyze(sql, settings, true), sql);
    const AnalysisPtr again = analyzer.analyze(sql, settings);
    const std::string said = said_of(*bare);
    require(said_of(*again) == said && again->fingerprint == bare->fingerprint,
            "the same text gives the same facts", sql);

    // Whatever a text ends in, a comment to the end of the line or half an operator: a new line
    // ends it. Half a character would take that for its other half, and the server refuses the
    // whole.
    const bool half_a_character = settings.client_encoding == "SJIS" ||
                                  settings.client_encoding == "GB18030";
    const std::string text(sql);
    for (const std::string& wrapped : {"/* SELECT 1 */ " + text, text + "\n-- WHERE id = 1",
                                       "\t\r\n -- '\n" + text + "\n/* $$ */ "}) {
        const AnalysisPtr around = analyzer.analyze(wrapped, settings);
        check_places(*around, wrapped);
        if (unparsable(*bare) && half_a_character) continue;
        if (unparsable(*bare) || unparsable(*around)) {
            require(unparsable(*bare) == unparsable(*around),
                    "blanks and comments make nothing readable, nor unreadable", wrapped);
            continue;
        }
        require(said_of(*around) == said && around->fingerprint == bare->fingerprint,
                "blanks and comments around it change nothing", wrapped);
    }
    for (const std::string& writing : {text + "\n;DELETE FROM orders WHERE id = 1",
                                       "UPDATE orders SET total = 0 WHERE id = 1;\n" + text}) {
        if (unparsable(*bare) && half_a_character) continue;
        require(!mere_read(*analyzer.analyze(writing, settings)), "what writes is no mere read",
                writing);
    }
}

// --- Inputs that make sense: the statements of which a person has said what they are.

std::string unescaped(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '\\' || i + 1 == text.size()) {
            out += text[i];
            continue;
        }
        const char c = text[++i];
        out += c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c;
    }
    return out;
}

std::vector<std::string> read_statements() {
    std::ifstream in(GOLDEN_STATEMENTS);
    std::vector<std::string> statements;
    for (std::string line; std::getline(in, line);) {
        for (const std::string_view kind : {"stop\t", "pass\t"}) {
            if (line.starts_with(kind)) statements.push_back(unescaped(line.substr(kind.size())));
        }
    }
    if (statements.empty()) {
        std::fprintf(stderr, "%s has no statements\n", GOLDEN_STATEMENTS);
        std::exit(2);
    }
    return statements;
}

}  // namespace

// libpg_query 17-6.1.0 forgets an empty text (its stderr_buffer) for every body in PL/pgSQL that it
// can't read. The leak sanitizer asks for this.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:pg_query_raw_parse\n"; }

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 1) return 0;
    check({reinterpret_cast<const char*>(data) + 1, size - 1}, settings_of(data[0]));
    return 0;
}

std::string pgchaperone_fuzz_seed(Random& random) {
    static const std::vector<std::string> statements = read_statements();
    std::string out = random.one_in(3) ? random.bytes(1) : std::string(1, '\x10');
    out += statements[random.below(statements.size())];
    // Two of them, or a part of one within the other.
    if (random.one_in(4)) {
        const std::string& other = statements[random.below(statements.size())];
        const std::size_t at = 1 + random.below(out.size());
        out.insert(
            at, random.one_in(2) ? ";" + other : other.substr(random.below(other.size() + 1), 40));
    }
    return out;
}
