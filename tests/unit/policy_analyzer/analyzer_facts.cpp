// Prints the facts of statements, one line of JSON for each text, for tests that are not written in
// C++. Input: texts, each followed by a NUL byte, in UTF-8.

#include "policy/analyzer.h"

#include <iostream>
#include <iterator>
#include <string>
#include <string_view>

using namespace pgchaperone::policy;

namespace {

std::string quoted(std::string_view text) {
    std::string out = "\"";
    constexpr std::string_view digits = "0123456789abcdef";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            out += "\\u00";
            out += digits[static_cast<unsigned char>(c) >> 4U];
            out += digits[static_cast<unsigned char>(c) & 15U];
        } else {
            out += c;
        }
    }
    return out + "\"";
}

std::string_view name_of(StatementClass value) {
    switch (value) {
        case StatementClass::read: return "READ";
        case StatementClass::write: return "WRITE";
        case StatementClass::function: return "FUNCTION";
        case StatementClass::role: return "ROLE";
        case StatementClass::ddl: return "DDL";
        case StatementClass::misc: return "MISC";
        case StatementClass::misc_set: return "MISC_SET";
    }
    return "";
}

std::string json_of(const StatementFacts& facts) {
    std::string out = "{\"command\":" + quoted(facts.command) + ",\"classes\":[";
    for (const StatementClass value : facts.classes) {
        out += out.back() == '[' ? "" : ",";
        out += quoted(name_of(value));
    }
    out += "]";
    const auto flag = [&](std::string_view name, const Flag& value) {
        if (value) {
            out += "," + quoted(name) + ":" + quoted(value.reason);
        }
    };
    flag("unbounded", facts.unbounded);
    flag("opaque", facts.opaque);
    flag("unparsable", facts.unparsable);
    flag("destructive", facts.destructive);
    flag("dangerous", facts.dangerous);
    flag("blocking", facts.blocking);
    return out + "}";
}

}  // namespace

int main() {
    std::ios::sync_with_stdio(false);
    const Analyzer analyzer;
    for (std::string text; std::getline(std::cin, text, '\0');) {
        std::string line = "[";
        const AnalysisPtr analysis = analyzer.analyze(text, {});
        for (const StatementFacts& facts : analysis->statements) {
            line += (line.size() > 1 ? "," : "") + json_of(facts);
        }
        std::cout << line << "]\n";
    }
    return 0;
}
