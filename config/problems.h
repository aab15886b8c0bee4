#pragma once
// What is wrong with configuration files: collected while reading, so that people see all of it at
// once, each with its place and a way forward. Printing shows the line and a caret, as compilers
// do.

#include "policy/rule.h"

#include <iosfwd>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::config {

struct Problem {
    enum class Severity : std::uint8_t { error, warning };
    Severity severity = Severity::error;
    policy::Place place;
    std::string message;  // what is wrong
    std::string advice;   // what to do; may be empty
};

class Problems {
public:
    void error(policy::Place place, std::string message, std::string advice = {});
    void warning(policy::Place place, std::string message, std::string advice = {});

    bool has_errors() const { return error_count() > 0; }
    std::size_t error_count() const;
    bool empty() const { return list_.empty(); }
    const std::vector<Problem>& list() const { return list_; }

    // Remembers a file's text, to show lines of it.
    void remember_text(const std::string& file, std::string text) {
        texts_[file] = std::move(text);
    }

    // Keeps this text out of the lines that are shown: it is a secret.
    void hide(std::string text) {
        if (!text.empty()) hidden_.push_back(std::move(text));
    }

    // In the order of files and lines.
    void print(std::ostream& out) const;
    std::string text() const;
    // The first error in one line, and how many more there are; empty: there is none.
    std::string first_error() const;

private:
    std::vector<const Problem*> in_order() const;

    std::vector<Problem> list_;
    std::map<std::string, std::string> texts_;
    std::vector<std::string> hidden_;
};

// `did you mean "x"?` for the candidate that is nearest to a mistyped word; empty where none is
// near.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);
// The candidate itself, or empty.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace pgchaperone::config
