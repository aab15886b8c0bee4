#pragma once
// Regular expressions on a statement's text, the last resort of a rule. Matching takes time linear
// in the text whatever the expression is: whoever sends statements must not be able to stall the
// guard.

#include "policy/rule_pattern.h"

#include <memory>
#include <string>
#include <string_view>

namespace pgchaperone::policy {

class Regex {
public:
    // RE2's syntax; not anchored; (?i) at its beginning ignores case. Bytes that are not UTF-8 are
    // matched as Latin-1, so that no text is beyond matching.
    static Parsed<Regex> parse(std::string_view pattern);
    bool found_in(std::string_view text) const noexcept;
    const std::string& text() const noexcept { return text_; }

private:
    struct Compiled;  // hides the library
    std::string text_;
    std::shared_ptr<const Compiled> compiled_;
};

}  // namespace pgchaperone::policy
