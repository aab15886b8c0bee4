#include "policy/redact.h"

#include "policy/lexical.h"

namespace pgchaperone::policy {
namespace {

constexpr std::string_view mark = "?";

bool is_literal(TokenKind kind) {
    switch (kind) {
        case TokenKind::plain_string:
        case TokenKind::escape_string:
        case TokenKind::dollar_string:
        case TokenKind::number: return true;
        case TokenKind::word:
        case TokenKind::quoted_word:
        case TokenKind::parameter:
        case TokenKind::symbol: return false;
    }
    return true;
}

}  // namespace

std::string redacted(std::string_view sql, const LexicalSettings& lexical) {
    const ReadableText readable = make_readable(sql, lexical);
    if (!readable.problem.empty() || readable.converted) return std::string(mark);
    std::string out;
    out.reserve(sql.size());
    Tokens tokens(sql, readable.backslash_escapes);
    Token token;
    std::size_t behind = 0;  // of the token before
    while (tokens.next(token)) {
        const auto begin = static_cast<std::size_t>(token.text.data() - sql.data());
        if (begin > behind && !out.empty()) {
            // White space as it was; a comment may hold anything, and is one space.
            const std::string_view gap = sql.substr(behind, begin - behind);
            const bool space = gap.find_first_not_of(" \t\r\n\f\v") == std::string_view::npos;
            out += space ? gap : std::string_view(" ");
        }
        out += token.unterminated || is_literal(token.kind) ? mark : token.text;
        behind = begin + token.text.size();
    }
    return out;
}

}  // namespace pgchaperone::policy
