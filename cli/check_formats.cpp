// What `pgchaperone check` prints: for people, for programs, for GitHub's annotations, and as
// SARIF.
#include "cli/check.h"
#include "config/json_text.h"
#include "pgchaperone_version.h"

#include <boost/json.hpp>

#include <algorithm>
#include <ostream>

namespace pgchaperone::cli {
namespace {

const char* level_name(Finding::Level level) {
    switch (level) {
        case Finding::Level::error: return "error";
        case Finding::Level::warning: return "warning";
        case Finding::Level::note: return "note";
    }
    return "";
}

// Text of a file may be anything; JSON must be UTF-8.
std::string utf8(const std::string& text) {
    std::string out;
    for (std::size_t i = 0; i < text.size();) {
        const auto byte = static_cast<unsigned char>(text[i]);
        const std::size_t length = byte < 0x80    ? 1
                                   : byte >= 0xf0 ? 4
                                   : byte >= 0xe0 ? 3
                                   : byte >= 0xc2 ? 2
                                                  : 0;
        bool good = length > 0 && i + length <= text.size() && byte <= 0xf4;
        for (std::size_t j = 1; good && j < length; ++j)
            good = (static_cast<unsigned char>(text[i + j]) & 0xc0U) == 0x80;
        out += good ? text.substr(i, length) : std::string("\xEF\xBF\xBD");
        i += good ? length : 1;
    }
    return out;
}

std::size_t characters(std::string_view text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xc0U) != 0x80;
    }));
}

// The line, and a caret with a line under the rest of the statement on it.
void print_caret(const Finding& finding, bool colors, std::ostream& out) {
    constexpr std::size_t longest = 200;
    std::string line = finding.source_line;
    std::size_t column = finding.column - 1;
    if (line.size() > longest) {
        // A very long line is shown from shortly before the place.
        std::size_t byte = 0, seen = 0;
        while (byte < line.size() && seen + 20 < column) {
            ++byte;
            while (byte < line.size() && (static_cast<unsigned char>(line[byte]) & 0xc0U) == 0x80)
                ++byte;
            ++seen;
        }
        line = line.substr(byte);
        column -= seen;
        if (line.size() > longest) {
            std::size_t cut = longest;
            while (cut > 0 && (static_cast<unsigned char>(line[cut]) & 0xc0U) == 0x80) --cut;
            line = line.substr(0, cut) + " ...";
        }
    }
    for (char& c : line) c = c != '\t' && static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    const std::string number = std::to_string(finding.line);
    const std::size_t width = characters(line);
    std::size_t length = finding.end_line > finding.line ? width - std::min(width, column)
                                                         : finding.end_column - finding.column;
    length = std::max<std::size_t>(1, std::min(length, width > column ? width - column : 1));
    out << "  " << number << " | " << line << '\n';
    out << "  " << std::string(number.size(), ' ') << " | ";
    std::size_t at = 0;
    for (std::size_t seen = 0; seen < column && at < line.size(); ++seen) {
        out << (line[at] == '\t' ? '\t' : ' ');
        ++at;
        while (at < line.size() && (static_cast<unsigned char>(line[at]) & 0xc0U) == 0x80) ++at;
    }
    out << (colors ? "\x1b[1;31m" : "") << '^' << std::string(length - 1, '~')
        << (colors ? "\x1b[0m" : "") << '\n';
}

std::string counted(std::size_t count, const char* one, const char* many) {
    return std::to_string(count) + " " + (count == 1 ? one : many);
}

std::string escaped(std::string_view text, bool property) {
    std::string out;
    for (const char c : text) {
        if (c == '%')
            out += "%25";
        else if (c == '\r')
            out += "%0D";
        else if (c == '\n')
            out += "%0A";
        else if (property && c == ':')
            out += "%3A";
        else if (property && c == ',')
            out += "%2C";
        else
            out += c;
    }
    return out;
}

// A file's name as a relative URI reference.
std::string uri(const std::string& file) {
    static constexpr char digits[] = "0123456789ABCDEF";
    std::string out;
    for (const char c : file) {
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                           (c >= '0' && c <= '9') ||
                           std::string_view("/._-~").find(c) != std::string_view::npos;
        if (plain) {
            out += c;
        } else {
            const auto byte = static_cast<unsigned char>(c);
            out += {'%', digits[byte / 16], digits[byte % 16]};
        }
    }
    return out;
}

}  // namespace

void print_text(const std::vector<Finding>& findings, const Totals& totals, bool colors,
                std::ostream& out) {
    const auto paint = [&](const char* code) { return colors ? code : ""; };
    for (const Finding& finding : findings) {
        const char* color = finding.level == Finding::Level::error     ? "\x1b[1;31m"
                            : finding.level == Finding::Level::warning ? "\x1b[1;33m"
                                                                       : "\x1b[1;36m";
        out << paint("\x1b[1m") << finding.file << ':' << finding.line << ':' << finding.column
            << ": " << paint(color) << (finding.waived ? "waived" : level_name(finding.level))
            << ": " << paint("\x1b[0m") << finding.message;
        if (!finding.rule.empty()) out << "  [" << finding.rule << ']';
        out << '\n';
        print_caret(finding, colors, out);
        if (finding.waived)
            out << "    because: " << finding.waiver << '\n';
        else if (!finding.hint.empty())
            out << "    " << finding.hint << '\n';
        out << '\n';
    }
    out << counted(totals.files, "file", "files") << ", "
        << counted(totals.statements, "statement", "statements") << ": "
        << (totals.errors == 0 ? "no findings" : counted(totals.errors, "finding", "findings"));
    if (totals.warnings > 0) out << ", " << counted(totals.warnings, "warning", "warnings");
    if (totals.waived > 0) out << ", " << totals.waived << " waived";
    out << '\n';
}

void print_json(const std::vector<Finding>& findings, const Totals& totals, std::ostream& out) {
    boost::json::array list;
    for (const Finding& finding : findings) {
        boost::json::object item{
            {"file", utf8(finding.file)},       {"line", finding.line},
            {"column", finding.column},         {"end_line", finding.end_line},
            {"end_column", finding.end_column}, {"level", level_name(finding.level)},
            {"rule", utf8(finding.rule)},       {"message", utf8(finding.message)}};
        if (!finding.action.empty()) item["action"] = finding.action;
        if (!finding.hint.empty()) item["hint"] = utf8(finding.hint);
        if (finding.waived) item["waived_because"] = utf8(finding.waiver);
        list.push_back(std::move(item));
    }
    out << config::pretty(boost::json::object{{"findings", std::move(list)},
                                              {"files", totals.files},
                                              {"statements", totals.statements},
                                              {"errors", totals.errors},
                                              {"warnings", totals.warnings},
                                              {"waived", totals.waived}});
}

void print_github(const std::vector<Finding>& findings, const Totals& totals, std::ostream& out) {
    for (const Finding& finding : findings) {
        const char* level = finding.level == Finding::Level::error     ? "error"
                            : finding.level == Finding::Level::warning ? "warning"
                                                                       : "notice";
        out << "::" << level << " file=" << escaped(finding.file, true) << ",line=" << finding.line
            << ",col=" << finding.column << ",endLine=" << finding.end_line;
        if (finding.end_line == finding.line) out << ",endColumn=" << finding.end_column;
        out << ",title=" << escaped("pgchaperone: " + finding.rule, true) << "::"
            << escaped((finding.waived ? "Waived (" + finding.waiver + "): " : "") +
                           finding.message +
                           (finding.hint.empty() || finding.waived ? "" : "\n" + finding.hint),
                       false)
            << '\n';
    }
    out << totals.statements << " statements, " << totals.errors << " findings, " << totals.waived
        << " waived\n";
}

void print_sarif(const policy::Policy& policy, const std::vector<Finding>& findings,
                 std::ostream& out) {
    using boost::json::array;
    using boost::json::object;
    std::vector<std::string> names;
    array rules;
    const auto describe = [&](const std::string& name, const std::string& text) {
        if (std::find(names.begin(), names.end(), name) != names.end()) return;
        names.push_back(name);
        rules.push_back(
            object{{"id", utf8(name)}, {"shortDescription", object{{"text", utf8(text)}}}});
    };
    for (const policy::Rule& rule : policy.rules) {
        const std::string when = rule.match.children.empty() ? "always" : [&] {
            std::string text;
            for (const auto& condition : rule.match.children)
                text += (text.empty() ? "" : ", ") + condition.summary();
            return text;
        }();
        describe(rule.name, std::string(action_word(rule)) + " when " + when);
    }
    describe("unparsable", "The statement can't be read the way the server would read it.");
    describe("default", "No rule of the policy allows the statement.");
    describe("waiver", "A waiver that does not do what it seems to.");
    describe("script", "Something in the script is not checked.");
    array results;
    for (const Finding& finding : findings) {
        const auto index = std::find(names.begin(), names.end(), finding.rule) - names.begin();
        object region{{"startLine", finding.line},
                      {"startColumn", finding.column},
                      {"endLine", finding.end_line},
                      {"endColumn", finding.end_column}};
        object result{
            {"ruleId", utf8(finding.rule)},
            {"ruleIndex", index},
            {"level", finding.waived ? "error" : level_name(finding.level)},
            {"message", object{{"text", utf8(finding.message +
                                             (finding.hint.empty() ? "" : "\n" + finding.hint))}}},
            {"locations",
             array{object{{"physicalLocation",
                           object{{"artifactLocation", object{{"uri", uri(finding.file)}}},
                                  {"region", std::move(region)}}}}}}};
        if (finding.waived) {
            result["suppressions"] = array{
                object{{"kind", "inSource"}, {"justification", utf8(finding.waiver)}}};
        }
        results.push_back(std::move(result));
    }
    object driver{{"name", "pgchaperone"},
                  {"semanticVersion", PGCHAPERONE_VERSION},
                  {"rules", std::move(rules)}};
    out << config::pretty(
        object{{"version", "2.1.0"},
               {"$schema", "https://json.schemastore.org/sarif-2.1.0.json"},
               {"runs", array{object{{"tool", object{{"driver", std::move(driver)}}},
                                     {"columnKind", "unicodeCodePoints"},
                                     {"results", std::move(results)}}}}});
}

}  // namespace pgchaperone::cli
