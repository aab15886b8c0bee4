#pragma once
// `pgchaperone check`: files of SQL judged by a policy before they are run. Here are the findings
// as values and their formats; cli/check.cpp reads files and options.

#include "cli/verdict.h"

#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::cli {

struct Finding {
    enum class Level : unsigned char { error, warning, note };  // only errors make the check fail
    Level level = Level::error;
    std::string file;
    std::size_t line = 1, column = 1, end_line = 1,
                end_column = 1;  // from 1; the end is behind the last character
    std::string rule;            // the rule, or "unparsable", "default", "waiver", "script"
    std::string action;          // "block", "hold"; empty for what is not a decision
    std::string message;
    std::string hint;
    bool waived = false;
    std::string waiver;       // the reason that was given
    std::string source_line;  // the text of the line, for the caret
};

struct Totals {
    std::size_t files = 0, statements = 0, errors = 0, warnings = 0, waived = 0;
};

// Judges one script. Findings come in the order of the text.
std::vector<Finding> check_script(const policy::Policy& policy, const Situation& situation,
                                  const std::string& file, std::string_view text, Totals& totals);

void print_text(const std::vector<Finding>& findings, const Totals& totals, bool colors,
                std::ostream& out);
void print_json(const std::vector<Finding>& findings, const Totals& totals, std::ostream& out);
void print_github(const std::vector<Finding>& findings, const Totals& totals, std::ostream& out);
// SARIF 2.1.0. The rules of the policy are its reporting descriptors.
void print_sarif(const policy::Policy& policy, const std::vector<Finding>& findings,
                 std::ostream& out);

}  // namespace pgchaperone::cli
