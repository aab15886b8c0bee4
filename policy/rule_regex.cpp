#include "policy/rule_regex.h"

// The library's header warns about itself under -Wpedantic.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#include <re2/re2.h>
#pragma GCC diagnostic pop

namespace pgchaperone::policy {
namespace {

RE2::Options options(RE2::Options::Encoding encoding) {
    RE2::Options result;
    result.set_encoding(encoding);
    result.set_log_errors(false);
    result.set_max_mem(4 << 20);
    return result;
}

}  // namespace

// In UTF-8 mode the library never matches across a byte that is not UTF-8, in Latin-1 mode a letter
// beyond ASCII is several bytes: a text is searched in both.
struct Regex::Compiled {
    RE2 utf8;
    RE2 latin1;
};

Parsed<Regex> Regex::parse(std::string_view pattern) {
    Regex regex;
    regex.text_ = pattern;
    const re2::StringPiece piece(pattern.data(), pattern.size());
    auto compiled = std::shared_ptr<const Compiled>(
        new Compiled{RE2(piece, options(RE2::Options::EncodingUTF8)),
                     RE2(piece, options(RE2::Options::EncodingLatin1))});
    if (!compiled->utf8.ok() || !compiled->latin1.ok()) {
        const RE2& broken = compiled->utf8.ok() ? compiled->latin1 : compiled->utf8;
        return PatternError{"this regular expression can't be used: " + broken.error() +
                            " (the syntax is RE2's; it has no backreferences and no look-around)"};
    }
    regex.compiled_ = std::move(compiled);
    return regex;
}

bool Regex::found_in(std::string_view text) const noexcept {
    const re2::StringPiece piece(text.data(), text.size());
    return RE2::PartialMatch(piece, compiled_->utf8) || RE2::PartialMatch(piece, compiled_->latin1);
}

}  // namespace pgchaperone::policy
