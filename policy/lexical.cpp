#include "policy/lexical.h"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <iconv.h>
#include <optional>
#include <utility>

namespace pgchaperone::policy {

namespace {

bool high(char c) { return (static_cast<unsigned char>(c) & 0x80) != 0; }

bool is_ascii(std::string_view text) { return std::none_of(text.begin(), text.end(), high); }

bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

bool begins_word(char c) {
    return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_' || high(c);
}

bool continues_word(char c) { return begins_word(c) || (c >= '0' && c <= '9') || c == '$'; }

bool is_operator(char c) {
    return std::string_view("~!@#^&|`?+-*/%<>=").find(c) != std::string_view::npos;
}

// --- Encodings
// ------------------------------------------------------------------------------------------

// How the server cuts a text of this encoding into characters.
enum class Cut : std::uint8_t {
    bytes,  // one byte each; an iconv name gives their meaning
    utf8,
    euc,        // two bytes, three after SS3; trail bytes are never ASCII
    euc_tw,     // as above, four bytes after SS2
    sjis,       // trail bytes may be ASCII, from here on
    two_bytes,  // every lead byte takes the next one, whatever it is
    gb18030,
};

struct Encoding {
    std::string_view name;   // as the server reports client_encoding
    std::string_view iconv;  // empty: bytes whose meaning nobody knows
    Cut cut = Cut::bytes;
};

constexpr std::array encodings = {
    Encoding{"UTF8", "UTF-8", Cut::utf8},
    Encoding{"SQL_ASCII", "", Cut::bytes},
    Encoding{"LATIN1", "ISO-8859-1"},
    Encoding{"LATIN2", "ISO-8859-2"},
    Encoding{"LATIN3", "ISO-8859-3"},
    Encoding{"LATIN4", "ISO-8859-4"},
    Encoding{"LATIN5", "ISO-8859-9"},
    Encoding{"LATIN6", "ISO-8859-10"},
    Encoding{"LATIN7", "ISO-8859-13"},
    Encoding{"LATIN8", "ISO-8859-14"},
    Encoding{"LATIN9", "ISO-8859-15"},
    Encoding{"LATIN10", "ISO-8859-16"},
    Encoding{"ISO_8859_5", "ISO-8859-5"},
    Encoding{"ISO_8859_6", "ISO-8859-6"},
    Encoding{"ISO_8859_7", "ISO-8859-7"},
    Encoding{"ISO_8859_8", "ISO-8859-8"},
    Encoding{"WIN866", "CP866"},
    Encoding{"WIN874", "CP874"},
    Encoding{"WIN1250", "CP1250"},
    Encoding{"WIN1251", "CP1251"},
    Encoding{"WIN1252", "CP1252"},
    Encoding{"WIN1253", "CP1253"},
    Encoding{"WIN1254", "CP1254"},
    Encoding{"WIN1255", "CP1255"},
    Encoding{"WIN1256", "CP1256"},
    Encoding{"WIN1257", "CP1257"},
    Encoding{"WIN1258", "CP1258"},
    Encoding{"KOI8R", "KOI8-R"},
    Encoding{"KOI8U", "KOI8-U"},
    Encoding{"EUC_JP", "EUC-JP", Cut::euc},
    Encoding{"EUC_JIS_2004", "EUC-JISX0213", Cut::euc},
    Encoding{"EUC_KR", "EUC-KR", Cut::euc},
    Encoding{"EUC_CN", "EUC-CN", Cut::euc},
    Encoding{"EUC_TW", "EUC-TW", Cut::euc_tw},
    Encoding{"JOHAB", "JOHAB",
             Cut::euc},  // the server cuts it as EUC, and refuses ASCII trail bytes
    Encoding{"SJIS", "CP932", Cut::sjis},
    Encoding{"SHIFT_JIS_2004", "SHIFT_JISX0213", Cut::sjis},
    Encoding{"BIG5", "BIG5", Cut::two_bytes},
    Encoding{"GBK", "GBK", Cut::two_bytes},
    Encoding{"UHC", "UHC", Cut::two_bytes},
    Encoding{"GB18030", "GB18030", Cut::gb18030},
};

const Encoding* find_encoding(std::string_view name) {
    for (const Encoding& each : encodings) {
        const bool same = each.name.size() == name.size() &&
                          std::equal(name.begin(), name.end(), each.name.begin(),
                                     [](char a, char b) {
                                         return std::toupper(static_cast<unsigned char>(a)) == b;
                                     });
        if (same) {
            return &each;
        }
    }
    return nullptr;
}

// The length of the character that begins with a byte that is not ASCII; 0 where the server would
// refuse it.
std::size_t character_length(Cut cut, std::string_view rest) {
    const auto byte = [&](std::size_t i) {
        return i < rest.size() ? static_cast<unsigned char>(rest[i]) : 0U;
    };
    const unsigned first = byte(0);
    std::size_t length = 1;
    bool high_trail = true;
    switch (cut) {
        case Cut::bytes: return 1;
        case Cut::utf8: return 0;  // never cut here
        case Cut::euc: length = first == 0x8F ? 3 : 2; break;
        case Cut::euc_tw: length = first == 0x8E ? 4 : first == 0x8F ? 3 : 2; break;
        case Cut::sjis:
            if (first >= 0xA1 && first <= 0xDF) {
                return 1;
            }
            length = 2;
            high_trail = false;
            if (!(((first >= 0x81 && first <= 0x9F) || (first >= 0xE0 && first <= 0xFC)) &&
                  ((byte(1) >= 0x40 && byte(1) <= 0x7E) || (byte(1) >= 0x80 && byte(1) <= 0xFC)))) {
                return 0;
            }
            break;
        case Cut::two_bytes:
            length = 2;
            high_trail = false;
            break;
        case Cut::gb18030:
            length = byte(1) >= 0x30 && byte(1) <= 0x39 ? 4 : 2;
            high_trail = false;
            break;
    }
    if (length > rest.size()) {
        return 0;
    }
    for (std::size_t i = 1; i < length; ++i) {
        if (byte(i) == 0 || (high_trail && byte(i) < 0x80)) {
            return 0;
        }
    }
    return length;
}

// An iconv descriptor, or none where the C library does not know the encoding.
class Converter {
public:
    explicit Converter(std::string_view encoding)
        : descriptor_(iconv_open("UTF-8", std::string(encoding).c_str())) {}
    ~Converter() {
        if (good()) {
            iconv_close(descriptor_);
        }
    }
    Converter(const Converter&) = delete;
    Converter& operator=(const Converter&) = delete;

    bool good() const { return descriptor_ != reinterpret_cast<iconv_t>(-1); }

    // One character; empty where it has no equivalent that is no ASCII.
    std::string_view convert(std::string_view character) {
        char* from = const_cast<char*>(character.data());
        std::size_t left = character.size();
        char* to = buffer_.data();
        std::size_t room = buffer_.size();
        constexpr auto failed = static_cast<std::size_t>(-1);
        iconv(descriptor_, nullptr, nullptr, nullptr, nullptr);
        // The second call writes what it still keeps back.
        if (iconv(descriptor_, &from, &left, &to, &room) == failed || left != 0 ||
            iconv(descriptor_, nullptr, nullptr, &to, &room) == failed) {
            return {};
        }
        const std::string_view made(buffer_.data(), buffer_.size() - room);
        return std::all_of(made.begin(), made.end(), high) ? made : std::string_view{};
    }

private:
    iconv_t descriptor_;
    std::array<char, 16> buffer_{};
};

// A character that has no equivalent here (the server may know one, or refuse the text): something
// that is no ASCII, and another one for each such character.
void append_unknown(std::string& out, std::string_view character) {
    std::uint32_t code = 0;
    for (const char c : character) {
        code = (code * 31U) ^ static_cast<unsigned char>(c);
    }
    constexpr std::uint32_t private_use = 0xF0000;
    code = private_use + (code & 0xFFFFU);
    out += static_cast<char>(0xF0U | (code >> 18U));
    out += static_cast<char>(0x80U | ((code >> 12U) & 0x3FU));
    out += static_cast<char>(0x80U | ((code >> 6U) & 0x3FU));
    out += static_cast<char>(0x80U | (code & 0x3FU));
}

// The server's own tables make a backslash and a tilde of these two; all other characters stay
// beyond ASCII (tried on PostgreSQL 15 with every pair of bytes in every encoding of this kind).
bool becomes_ascii(const Encoding& encoding, std::string_view character) {
    return encoding.name == "SHIFT_JIS_2004" &&
           (character == "\x81\x5f" || character == "\x81\xb0");
}

// Character by character, so that the borders are the server's: a trail byte that is ASCII never
// comes out as ASCII. False where the server would refuse the bytes.
bool convert(std::string_view sql, const Encoding& encoding, ReadableText& out) {
    std::optional<Converter> converter;
    if (!encoding.iconv.empty()) {
        converter.emplace(encoding.iconv);
        if (!converter->good()) {
            return false;
        }
    }
    out.converted = true;
    out.utf8.reserve(sql.size() + sql.size() / 2);
    for (std::size_t at = 0; at < sql.size();) {
        if (!high(sql[at])) {
            out.utf8 += sql[at++];
            continue;
        }
        const std::size_t length = character_length(encoding.cut, sql.substr(at));
        if (length == 0) {
            return false;
        }
        const std::string_view character = sql.substr(at, length);
        if (becomes_ascii(encoding, character)) {
            return false;
        }
        const auto made = converter ? converter->convert(character) : std::string_view{};
        if (!made.empty()) {
            out.utf8 += made;
        } else {
            append_unknown(out.utf8, character);
        }
        at += length;
        out.offsets.emplace_back(static_cast<std::uint32_t>(out.utf8.size()),
                                 static_cast<std::uint32_t>(at));
    }
    return true;
}

// Whether some character of the text, cut so, has an ASCII byte behind its first.
bool hides_ascii(std::string_view sql, Cut cut) {
    for (std::size_t at = 0; at < sql.size();) {
        if (!high(sql[at])) {
            ++at;
            continue;
        }
        const std::size_t length = character_length(cut, sql.substr(at));
        for (std::size_t i = 1; i < length; ++i) {
            if (!high(sql[at + i])) {
                return true;
            }
        }
        at += std::max<std::size_t>(length, 1);
    }
    return false;
}

// --- Strings
// --------------------------------------------------------------------------------------------

bool equals_no_case(std::string_view text, std::string_view upper) {
    return text.size() == upper.size() &&
           std::equal(text.begin(), text.end(), upper.begin(), [](char a, char b) {
               return std::toupper(static_cast<unsigned char>(a)) == b;
           });
}

bool has_backslash_in_plain_string(std::string_view sql) {
    Tokens tokens(sql, false);
    for (Token token; tokens.next(token);) {
        if (token.kind == TokenKind::plain_string &&
            token.text.find('\\') != std::string_view::npos) {
            return true;
        }
    }
    return false;
}

}  // namespace

std::uint32_t ReadableText::sent_offset(std::uint32_t utf8_offset) const {
    const auto after = std::upper_bound(
        offsets.begin(), offsets.end(), utf8_offset,
        [](std::uint32_t wanted, const auto& pair) { return wanted < pair.first; });
    if (after == offsets.begin()) {
        return utf8_offset;
    }
    const auto& [here, sent] = *(after - 1);
    return sent + (utf8_offset - here);
}

ReadableText make_readable(std::string_view sql, const LexicalSettings& lexical) {
    ReadableText out;
    if (sql.find('\0') != std::string_view::npos) {
        out.problem = "it contains a NUL byte";
        return out;
    }
    if (!is_ascii(sql)) {
        if (!lexical.client_encoding) {
            // It must mean the same whatever encoding is in force when it runs.
            if (hides_ascii(sql, Cut::sjis) || hides_ascii(sql, Cut::two_bytes) ||
                hides_ascii(sql, Cut::gb18030) ||
                !simdjson::validate_utf8(sql.data(), sql.size())) {
                out.problem =
                    "it has characters beyond ASCII while client_encoding may be "
                    "changing";
                return out;
            }
        } else {
            const Encoding* encoding = find_encoding(*lexical.client_encoding);
            if (encoding == nullptr) {
                out.problem = "it has characters beyond ASCII in the encoding " +
                              *lexical.client_encoding + ", which is not known here";
                return out;
            }
            if (encoding->cut == Cut::utf8) {
                if (!simdjson::validate_utf8(sql.data(), sql.size())) {
                    out.problem = "its bytes are not valid UTF-8";
                    return out;
                }
            } else if (!convert(sql, *encoding, out)) {
                out.problem = "its bytes are not valid in the encoding " + *lexical.client_encoding;
                return out;
            }
        }
    }
    const std::string_view text = out.converted ? std::string_view(out.utf8) : sql;
    if (lexical.standard_conforming_strings != StandardConformingStrings::on &&
        text.find('\\') != std::string_view::npos) {
        if (lexical.standard_conforming_strings == StandardConformingStrings::off) {
            out.backslash_escapes = true;
        } else if (has_backslash_in_plain_string(text)) {
            out.problem =
                "it has a backslash in a string while standard_conforming_strings may be changing";
        }
    }
    return out;
}

void Tokens::skip_space_and_comments() {
    while (at_ < sql_.size()) {
        if (is_space(sql_[at_])) {
            ++at_;
        } else if (sql_.substr(at_).starts_with("--")) {
            at_ = std::min(sql_.find_first_of("\n\r", at_), sql_.size());
        } else if (sql_.substr(at_).starts_with("/*")) {
            unsigned depth = 0;
            while (at_ < sql_.size()) {
                if (sql_.substr(at_).starts_with("/*")) {
                    ++depth;
                    at_ += 2;
                } else if (sql_.substr(at_).starts_with("*/")) {
                    at_ += 2;
                    if (--depth == 0) {
                        break;
                    }
                } else {
                    ++at_;
                }
            }
        } else {
            return;
        }
    }
}

// The position behind the closing quote of what is quoted from `from` on.
std::size_t Tokens::end_of_quoted(std::size_t from, char quote, bool escapes,
                                  bool& unterminated) const {
    for (std::size_t i = from; i < sql_.size(); ++i) {
        if (escapes && sql_[i] == '\\') {
            ++i;
        } else if (sql_[i] == quote) {
            if (i + 1 < sql_.size() && sql_[i + 1] == quote) {
                ++i;
                continue;
            }
            if (quote != '\'') {
                return i + 1;
            }
            // A string goes on behind white space that contains a newline.
            std::size_t next = i + 1;
            bool newline = false;
            while (next < sql_.size()) {
                if (is_space(sql_[next])) {
                    newline |= sql_[next] == '\n' || sql_[next] == '\r';
                    ++next;
                } else if (newline && sql_.substr(next).starts_with("--")) {
                    next = std::min(sql_.find_first_of("\n\r", next), sql_.size());
                } else {
                    break;
                }
            }
            if (!newline || next >= sql_.size() || sql_[next] != '\'') {
                return i + 1;
            }
            i = next;
        }
    }
    unterminated = true;
    return sql_.size();
}

bool Tokens::next(Token& token) {
    skip_space_and_comments();
    if (at_ >= sql_.size()) {
        return false;
    }
    const std::size_t start = at_;
    const char c = sql_[at_];
    token.unterminated = false;
    const auto take = [&](TokenKind kind, std::size_t end) {
        at_ = std::min(end, sql_.size());
        token.kind = kind;
        token.text = sql_.substr(start, at_ - start);
        return true;
    };
    const auto follows = [&](std::size_t ahead, char wanted) {
        return start + ahead < sql_.size() && sql_[start + ahead] == wanted;
    };
    if (c == '\'') {
        return take(TokenKind::plain_string,
                    end_of_quoted(start + 1, '\'', escapes_, token.unterminated));
    }
    if (c == '"') {
        return take(TokenKind::quoted_word,
                    end_of_quoted(start + 1, '"', false, token.unterminated));
    }
    if (begins_word(c)) {
        const char letter = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
        if (letter == 'E' && follows(1, '\'')) {
            return take(TokenKind::escape_string,
                        end_of_quoted(start + 2, '\'', true, token.unterminated));
        }
        if ((letter == 'B' || letter == 'X') && follows(1, '\'')) {
            return take(TokenKind::plain_string,
                        end_of_quoted(start + 2, '\'', false, token.unterminated));
        }
        if (letter == 'N' && follows(1, '\'')) {
            return take(TokenKind::plain_string,
                        end_of_quoted(start + 2, '\'', escapes_, token.unterminated));
        }
        if (letter == 'U' && follows(1, '&') && (follows(2, '\'') || follows(2, '"'))) {
            const char quote = sql_[start + 2];
            // With standard_conforming_strings off the server refuses U&'...'.
            return take(quote == '"' ? TokenKind::quoted_word : TokenKind::plain_string,
                        end_of_quoted(start + 3, quote, false, token.unterminated));
        }
        std::size_t end = start + 1;
        while (end < sql_.size() && continues_word(sql_[end])) {
            ++end;
        }
        return take(TokenKind::word, end);
    }
    if (c == '$') {
        std::size_t end = start + 1;
        if (end < sql_.size() && sql_[end] >= '0' && sql_[end] <= '9') {
            while (end < sql_.size() && sql_[end] >= '0' && sql_[end] <= '9') {
                ++end;
            }
            return take(TokenKind::parameter, end);
        }
        if (end < sql_.size() && begins_word(sql_[end])) {
            while (end < sql_.size() && continues_word(sql_[end]) && sql_[end] != '$') {
                ++end;
            }
        }
        if (end < sql_.size() && sql_[end] == '$') {
            const std::string_view delimiter = sql_.substr(start, end - start + 1);
            const std::size_t close = sql_.find(delimiter, end + 1);
            token.unterminated = close == std::string_view::npos;
            return take(TokenKind::dollar_string,
                        token.unterminated ? sql_.size() : close + delimiter.size());
        }
        return take(TokenKind::symbol, start + 1);
    }
    if (c >= '0' && c <= '9') {
        std::size_t end = start + 1;
        while (end < sql_.size() && (std::isalnum(static_cast<unsigned char>(sql_[end])) != 0 ||
                                     sql_[end] == '.' || sql_[end] == '_')) {
            ++end;
        }
        return take(TokenKind::number, end);
    }
    if (is_operator(c)) {
        std::size_t end = start;
        while (end < sql_.size() && is_operator(sql_[end]) && !sql_.substr(end).starts_with("--") &&
               !sql_.substr(end).starts_with("/*")) {
            ++end;
        }
        return take(TokenKind::symbol, std::max(end, start + 1));
    }
    if (c == ':' && follows(1, ':')) {
        return take(TokenKind::symbol, start + 2);
    }
    return take(TokenKind::symbol, start + 1);
}

std::size_t nesting_bound(std::string_view sql, bool backslash_escapes) {
    // Every level of a tree takes a word or an operator of its own. Lists are flat: a comma, AND
    // and OR begin again. What stands in parentheses counts for what stands around it, since it may
    // be its left-most leaf. Set operations and joins are chains that commas and conditions do not
    // end.
    struct Level {
        char opener = 0;
        std::size_t chain = 0;
        std::size_t run = 0;
        std::size_t longest = 0;
        bool between = false;

        void end_run() {
            longest = std::max(longest, run);
            run = 0;
            between = false;
        }
        std::size_t depth() const { return chain + std::max(longest, run) + 2; }
    };
    std::vector<Level> levels(1);
    std::size_t bound = 0;
    const auto close = [&] {
        const std::size_t inner = levels.back().depth();
        levels.pop_back();
        levels.back().run += inner;
    };
    std::string_view before;
    Tokens tokens(sql, backslash_escapes);
    for (Token token; tokens.next(token); before = token.text) {
        Level& level = levels.back();
        if (token.kind == TokenKind::symbol) {
            const char c = token.text[0];
            if (c == '(' || c == '[') {
                level.run += 1;
                levels.push_back({c, 0, 0, 0, false});
            } else if (c == ')' || c == ']') {
                while (levels.size() > 1 && levels.back().opener == 'C') {
                    close();
                }
                if (levels.size() > 1) {
                    close();
                }
            } else if (c == ',') {
                level.end_run();
            } else if (c == ';') {
                while (levels.size() > 1) {
                    close();
                }
                bound = std::max(bound, levels.back().depth());
                levels.back() = Level{};
            } else if (c != '.') {
                level.run += 1;
            }
            continue;
        }
        if (token.kind != TokenKind::word) {
            continue;
        }
        if (before == "." || equals_no_case(before, "AS")) {
            level.run += 1;
        } else if (equals_no_case(token.text, "CASE")) {
            level.run += 1;
            levels.push_back({'C', 0, 0, 0, false});
        } else if (equals_no_case(token.text, "END")) {
            if (level.opener == 'C') {
                close();
            }
        } else if (equals_no_case(token.text, "BETWEEN")) {
            level.run += 1;
            level.between = true;
        } else if (equals_no_case(token.text, "OR") ||
                   (equals_no_case(token.text, "AND") && !level.between)) {
            level.end_run();
        } else if (equals_no_case(token.text, "AND")) {
            level.between = false;
        } else if (equals_no_case(token.text, "UNION") || equals_no_case(token.text, "INTERSECT") ||
                   equals_no_case(token.text, "EXCEPT") || equals_no_case(token.text, "JOIN")) {
            level.chain += 1;
            level.end_run();
        } else {
            level.run += 1;
        }
    }
    while (levels.size() > 1) {
        close();
    }
    return std::max(bound, levels.back().depth());
}

std::size_t comment_steps_bound(std::string_view sql) noexcept {
    constexpr std::string_view operator_characters = "~!@#^&|`?+-*/%<>=";
    std::size_t steps = 0;
    std::size_t at = sql.find("/*");
    while (at != std::string_view::npos) {
        std::size_t begins = 0;
        std::size_t end = at;
        while (end < sql.size() && operator_characters.find(sql[end]) != std::string_view::npos) {
            begins += sql.substr(end, 2) == "/*" ? 1 : 0;
            ++end;
        }
        steps += begins * (end - at);
        at = sql.find("/*", end);
    }
    return steps;
}

std::size_t stack_needed_bytes(std::size_t depth) {
    // Measured: NOT NOT NOT ... takes most, 2.4 KiB a level with optimisation. Without it, and with
    // the sanitizers' shadows, frames are several times larger.
#if defined(__SANITIZE_ADDRESS__) || !defined(__OPTIMIZE__)
    constexpr std::size_t per_level = 32 * 1024;
#else
    constexpr std::size_t per_level = 4 * 1024;
#endif
    constexpr std::size_t base = 256 * 1024;
    return base + depth * per_level;
}

std::pair<std::size_t, std::size_t> without_space(std::string_view sql) {
    std::size_t from = 0;
    std::size_t to = sql.size();
    while (from < to && is_space(sql[from])) {
        ++from;
    }
    while (to > from && is_space(sql[to - 1])) {
        --to;
    }
    return {from, to};
}

}  // namespace pgchaperone::policy
