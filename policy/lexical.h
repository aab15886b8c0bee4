#pragma once
// The bytes of a statement before anything is parsed: which encoding they are in, where strings
// begin and end, how deeply the text can nest at most. Follows PostgreSQL's scan.l and wchar.c;
// knows no grammar.

#include "policy/session_facts.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::policy {

// A text as the parser can take it, or the reason why it can't be read with certainty.
struct ReadableText {
    std::string problem;             // not empty: unparsable, and why
    bool backslash_escapes = false;  // standard_conforming_strings is off and it matters
    bool converted = false;  // `utf8` holds the text; otherwise the given bytes are UTF-8 already
    std::string utf8;
    // For a converted text: the pairs (offset in utf8, offset as sent) after each converted
    // character.
    std::vector<std::pair<std::uint32_t, std::uint32_t>> offsets;

    std::uint32_t sent_offset(std::uint32_t utf8_offset) const;
};

ReadableText make_readable(std::string_view sql, const LexicalSettings& lexical);

// What one token is to those who look at a text before it is parsed.
enum class TokenKind : std::uint8_t {
    word,           // identifier or keyword without quotes
    quoted_word,    // "..." and U&"..."
    plain_string,   // '...', and N'...', B'...', X'...': where standard_conforming_strings matters
    escape_string,  // E'...'
    dollar_string,  // $$...$$
    number,
    parameter,  // $1
    symbol,     // an operator or a punctuation character
};

struct Token {
    TokenKind kind = TokenKind::symbol;
    std::string_view text;
    bool unterminated = false;
};

// Skips white space and comments, and takes one token. Lenient: every text comes to its end.
class Tokens {
public:
    Tokens(std::string_view sql, bool backslash_escapes) : sql_(sql), escapes_(backslash_escapes) {}
    // False at the end.
    bool next(Token& token);
    std::size_t position() const { return at_; }

private:
    void skip_space_and_comments();
    std::size_t end_of_quoted(std::size_t from, char quote, bool escapes, bool& unterminated) const;

    std::string_view sql_;
    std::size_t at_ = 0;
    bool escapes_;
};

// An upper bound for the depth of the parse tree, in nodes.
std::size_t nesting_bound(std::string_view sql, bool backslash_escapes);

// How many steps PostgreSQL's scanner takes at most to get over the comments: inside a comment it
// reads an unbroken run of operator characters anew for each comment that begins in it, so that a
// run of slashes and asterisks takes time by the square of its length.
std::size_t comment_steps_bound(std::string_view sql) noexcept;

// How much stack reading a text of that depth takes at most, in bytes.
std::size_t stack_needed_bytes(std::size_t depth);

// Position of the first byte that is no white space, and of the end without white space behind it.
std::pair<std::size_t, std::size_t> without_space(std::string_view sql);

}  // namespace pgchaperone::policy
