// Statements of tests/golden/analyzer/statements.txt: each with the facts that a person has read
// once.

#include "analyze.h"
#include "policy/relation_names.h"

#include <cstdlib>
#include <fstream>
#include <vector>

namespace pgchaperone::policy {

namespace {

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

std::string one_line(std::string text) {
    std::replace(text.begin(), text.end(), '\n', ' ');
    return text;
}

std::string_view class_name(StatementClass value) {
    switch (value) {
        case StatementClass::read: return "READ";
        case StatementClass::write: return "WRITE";
        case StatementClass::function: return "FUNCTION";
        case StatementClass::role: return "ROLE";
        case StatementClass::ddl: return "DDL";
        case StatementClass::misc: return "MISC";
        case StatementClass::misc_set: return "MISC_SET";
    }
    return {};
}

std::string shown(const Analysis& analysis) {
    std::string out;
    for (const StatementFacts& facts : analysis.statements) {
        out += out.empty() ? "" : " | ";
        for (std::size_t i = 0; i < facts.commands.size(); ++i) {
            out += (i == 0 ? "" : ", ") + facts.commands[i];
        }
        out += " (";
        for (std::size_t i = 0; i < facts.classes.size(); ++i) {
            out += (i == 0 ? "" : ", ") + std::string(class_name(facts.classes[i]));
        }
        out += ")";
        const auto relations = [&](std::string_view what, const std::vector<RelationName>& list) {
            for (std::size_t i = 0; i < list.size(); ++i) {
                out += i == 0 ? std::string(what) : ", ";
                out += relation_text(list[i]);
            }
        };
        relations(" reads ", facts.read);
        relations(" writes ", facts.written);
        const auto flag = [&](std::string_view name, const Flag& value) {
            if (value) {
                out += "; " + std::string(name) + ": " + one_line(value.reason);
            }
        };
        flag("unbounded", facts.unbounded);
        flag("opaque", facts.opaque);
        flag("unparsable", facts.unparsable);
        flag("destructive", facts.destructive);
        flag("dangerous", facts.dangerous);
        flag("blocking", facts.blocking);
    }
    return out;
}

}  // namespace

TEST_CASE("statements have the facts that were agreed on") {
    std::ifstream file(GOLDEN_STATEMENTS);
    REQUIRE(file.good());
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) {
        lines.push_back(line);
    }
    file.close();
    const bool update = std::getenv("PGCHAPERONE_UPDATE_GOLDEN") != nullptr;
    std::size_t statements = 0;
    for (std::size_t i = 0; i + 1 < lines.size(); ++i) {
        if (lines[i].empty() || lines[i][0] == '#' || lines[i][0] == '\t') {
            continue;
        }
        const auto tab = lines[i].find('\t');
        REQUIRE(tab != std::string::npos);
        const std::string sql = unescaped(std::string_view(lines[i]).substr(tab + 1));
        const bool stop = lines[i].substr(0, tab) == "stop";
        const AnalysisPtr analysis = analyze(sql);
        const std::string facts = "\t" + shown(*analysis);
        INFO(sql);
        bool stopped = false;
        for (const StatementFacts& each : analysis->statements) {
            stopped |= each.unbounded.set || each.destructive.set || each.dangerous.set ||
                       each.unparsable.set;
        }
        CHECK(stopped == stop);
        if (update) {
            lines[i + 1] = facts;
        } else {
            CHECK(lines[i + 1] == facts);
        }
        ++statements;
    }
    CHECK(statements > 400);
    if (update) {
        std::ofstream out(GOLDEN_STATEMENTS);
        for (const std::string& line : lines) {
            out << line << '\n';
        }
    }
}

}  // namespace pgchaperone::policy
