// Three readers go over a text, each of which may find secrets in it:
//
//   tokens             PASSWORD 'x', password = 'x', OPTIONS (secret 'x'), dblink_connect($1)
//   connection string  host=db password=x            all of a string, or of a value
//   URL                scheme://user:x@host          anywhere in one
//
// A string that is no secret itself is unquoted and read by all of them in turn: it may be a
// function's body, the text of an EXECUTE or a connection string. Where one ends in front of a
// secret ('... PASSWORD ' || quote_literal('x')), what follows up to the next semicolon is secret.

#include "policy/secrets.h"

#include "policy/lexical.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

namespace pgchaperone::policy {
namespace {

constexpr char mark = '?';
// As deep as strings are looked for in strings; one that is deeper and speaks of a password is one.
constexpr unsigned depth_max = 6;
// As long a string is unquoted; of a longer one all is secret from where it speaks of a password.
constexpr std::size_t unquoted_bytes_max = 256 * 1024;
constexpr std::size_t password_name_bytes_max = 16;

using Spans = std::vector<Secrets::Span>;

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::string lower(std::string_view text) {
    std::string out(text);
    std::transform(out.begin(), out.end(), out.begin(), [](char c) { return lower(c); });
    return out;
}

bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }
bool is_name(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

std::size_t skip_spaces(std::string_view text, std::size_t at) {
    while (at < text.size() && is_space(text[at])) ++at;
    return at;
}

std::size_t skip_name(std::string_view text, std::size_t at) {
    while (at < text.size() && is_name(text[at])) ++at;
    return at;
}

// Where the first of these words, which are in lower case, stands in the text in whatever case.
template <std::size_t N>
std::size_t find_any(std::string_view text, const std::array<std::string_view, N>& words) {
    for (std::size_t at = 0; at < text.size(); ++at) {
        for (const std::string_view word : words) {
            if (lower(text[at]) != word.front() || text.size() - at < word.size()) continue;
            if (std::equal(word.begin(), word.end(), text.begin() + static_cast<std::ptrdiff_t>(at),
                           [](char a, char b) { return a == lower(b); })) {
                return at;
            }
        }
    }
    return std::string_view::npos;
}

// A text without any of them has no secret that is found.
constexpr std::array<std::string_view, 6> hints{"passw",          "://",   "options", "mapping",
                                                "dblink_connect", "scram_"};
// What announces one, in a text that can't be cut into tokens and in a comment.
constexpr std::array<std::string_view, 4> announcements{"passw", "://", "mapping", "secret"};
constexpr std::array<std::string_view, 6> unread_announcements{"passw",  "://",     "mapping",
                                                               "secret", "options", "scram_"};
constexpr std::array<std::string_view, 1> password_word{"passw"};
// What can't be parsed may have the word misspelt.
constexpr std::array<std::string_view, 3> role_words{"role", "user", "group"};

template <std::size_t N>
bool has_any(std::string_view text, const std::array<std::string_view, N>& words) {
    return find_any(text, words) != std::string_view::npos;
}

// Names that stand for a secret wherever they stand.
bool names_password(std::string_view name) {
    static constexpr std::array<std::string_view, 6> names{
        "passwd", "password", "pgpassword", "scram_client_key", "scram_server_key", "sslpassword"};
    return std::binary_search(names.begin(), names.end(), name);
}

// Among the options of foreign servers, whose names their wrappers make up.
bool names_secret_option(std::string_view name) {
    static constexpr std::array<std::string_view, 6> parts{"credential", "passphrase", "passw",
                                                           "pwd",        "secret",     "token"};
    return name == "pass" || name.ends_with("key") ||
           std::any_of(parts.begin(), parts.end(), [&](std::string_view part) {
               return name.find(part) != std::string_view::npos;
           });
}

bool names_user(std::string_view name) {
    return name == "user" || name == "username" || name == "user_name";
}

// --- Places

// From places in a text that was unquoted to those in the text that was sent.
struct Origin {
    const std::vector<std::uint32_t>* map = nullptr;  // of each byte and of the end; null: the same
    std::size_t shift = 0;
    std::size_t of(std::size_t at) const {
        return map != nullptr ? (*map)[at + shift] : at + shift;
    }
    Origin behind(std::size_t bytes) const { return {map, shift + bytes}; }
};

struct Unquoted {
    std::string text;
    std::vector<std::uint32_t> map;
};

// What the quotes of a '...' enclose. Of escapes, a character without its backslash is good enough
// to find words and quotes by.
Unquoted unquoted(std::string_view token, bool escapes, const Origin& origin) {
    Unquoted out;
    std::size_t at = token.find('\'') + 1;
    std::size_t end = token.size();
    while (at < token.size()) {
        const std::size_t here = at;
        char c = token[at++];
        if (escapes && c == '\\' && at < token.size()) {
            c = token[at++];
            if (c == 'n' || c == 'r' || c == 't') c = ' ';
        } else if (c == '\'') {
            if (at < token.size() && token[at] == '\'') {
                ++at;
            } else {
                end = here;
                at = token.find('\'', at);  // it may go on in the next line
                if (at == std::string_view::npos) break;
                ++at;
                continue;
            }
        }
        end = token.size();
        out.text += c;
        out.map.push_back(static_cast<std::uint32_t>(origin.of(here)));
    }
    out.map.push_back(static_cast<std::uint32_t>(origin.of(end)));
    return out;
}

// --- Connection strings

bool begins_like_a_connection_string(std::string_view text) {
    const std::size_t name = skip_spaces(text, 0);
    const std::size_t behind = skip_name(text, name);
    if (behind == name) return false;
    const std::size_t at = skip_spaces(text, behind);
    return at < text.size() && text[at] == '=';
}

// Of `all` a connection string: values there should have no blanks, and one that does goes on up to
// the next name. Elsewhere, such as in a URL's query, a value ends at the first that ends any.
std::size_t end_of_value(std::string_view text, std::size_t from, bool all) {
    std::size_t at = from;
    if (at < text.size() && text[at] == '\'') {
        for (++at; at < text.size() && text[at] != '\''; ++at) {
            if (text[at] == '\\') ++at;
        }
        return std::min(at + 1, text.size());
    }
    const auto ends = [&](char c) {
        return is_space(c) || (!all && std::string_view("&;,)'").find(c) != std::string_view::npos);
    };
    while (true) {
        while (at < text.size() && !ends(text[at])) at += text[at] == '\\' ? 2 : 1;
        at = std::min(at, text.size());
        const std::size_t next = skip_spaces(text, at);
        if (!all || next == text.size()) return at;
        constexpr std::size_t name_bytes_max = 64;
        if (begins_like_a_connection_string(text.substr(next, name_bytes_max))) return at;
        at = next;
    }
}

// --- Reading

// What the tokens up to here say of the next one.
struct State {
    std::string before;       // the word in front of it, in lower case; empty: that was none
    bool secret_due = false;  // behind PASSWORD, or PASSWORD =
    bool role = false;        // CREATE or ALTER ROLE, USER or GROUP
    bool sets = false;        // such a one that sets a parameter
    bool mapping = false;     // CREATE or ALTER USER MAPPING
    bool open = false;        // all strings and parameters are secret
    bool rest = false;        // all is
    int parentheses = 0;
    int options = 0;  // their number inside OPTIONS ( ... ); 0: outside
    int dblink = 0;   // likewise inside dblink_connect( ... )
};

class Finder {
public:
    Finder(bool backslash_escapes, bool parsed) : escapes_(backslash_escapes), parsed_(parsed) {}

    // True where the text ends in front of a secret. `depth`: 0: of the statement itself.
    bool read(std::string_view text, const Origin& origin, unsigned depth) {
        if (!has_any(text, hints) && !(guesses(depth) && has_any(text, role_words))) return false;
        if (depth > depth_max) {
            hide_from_password(text, origin);
            return false;
        }
        const bool url = depth > 0 && read_urls(text, origin);
        const bool connection = depth > 0 && read_connection_string(text, origin);
        const bool tokens = read_tokens(text, origin, depth);
        return url || connection || tokens;
    }

    void hide(const Origin& origin, std::size_t from, std::size_t to) {
        const auto begin = static_cast<std::uint32_t>(origin.of(from));
        const auto end = static_cast<std::uint32_t>(origin.of(to));
        if (end <= begin) return;
        found_.spans.push_back({begin, end - begin});
        found_.in_comments_alone = false;
    }

    Secrets take() {
        std::sort(found_.spans.begin(), found_.spans.end(),
                  [](const auto& a, const auto& b) { return a.from < b.from; });
        Spans apart;
        for (const Secrets::Span& span : found_.spans) {
            if (apart.empty() || span.from > apart.back().from + apart.back().length) {
                apart.push_back(span);
                continue;
            }
            Secrets::Span& last = apart.back();
            last.length = std::max(last.length, span.from + span.length - last.from);
        }
        found_.spans = std::move(apart);
        std::vector<int>& parameters = found_.parameters;
        std::sort(parameters.begin(), parameters.end());
        parameters.erase(std::unique(parameters.begin(), parameters.end()), parameters.end());
        return std::move(found_);
    }

private:
    // What can't be parsed may be meant in other ways than it is written.
    bool guesses(unsigned depth) const { return !parsed_ && depth == 0; }

    void hide_from_password(std::string_view text, const Origin& origin) {
        const std::size_t from = find_any(text, password_word);
        if (from != std::string_view::npos) hide(origin, from, text.size());
    }

    bool read_urls(std::string_view text, const Origin& origin) {
        std::size_t at = 0;
        while ((at = text.find("://", at)) != std::string_view::npos) {
            at += 3;
            std::size_t end = at;
            // As libpq reads it: a password may have a question mark.
            while (end < text.size() && !is_space(text[end]) && text[end] != '/') ++end;
            const std::string_view authority = text.substr(at, end - at);
            const std::size_t host = authority.rfind('@');
            const std::size_t colon = authority.find(':');
            if (host != std::string_view::npos && colon < host) {
                hide(origin, at + colon + 1, at + host);
            } else if (end == text.size() && authority.ends_with(':')) {
                return true;
            }
            at = end;
        }
        return false;
    }

    bool read_connection_string(std::string_view text, const Origin& origin) {
        const bool all = begins_like_a_connection_string(text);
        bool open = false;
        std::size_t at = 0;
        while (at < text.size()) {
            if (!is_name(text[at])) {
                ++at;
                continue;
            }
            const std::size_t name = at;
            at = skip_name(text, at);
            if (at - name > password_name_bytes_max ||
                !names_password(lower(text.substr(name, at - name)))) {
                continue;
            }
            std::size_t value = all ? skip_spaces(text, at) : at;
            if (value >= text.size() || text[value] != '=') continue;
            value = all ? skip_spaces(text, value + 1) : value + 1;
            const std::size_t end = end_of_value(text, value, all);
            const bool unfinished = value == end || text[value] == '%' ||
                                    (text[value] == '\'' && text.find('\'', value + 1) >= end);
            // A function's value that a variable gets, and no password.
            const bool called = !all &&
                                text.substr(value, end - value).find('(') != std::string_view::npos;
            if (called) {
                at = end;
                continue;
            }
            open = end == text.size() && unfinished;
            hide(origin, value, end);
            at = end;
        }
        return open;
    }

    // A comment may hold the statement as it was before.
    void read_gap(std::string_view gap, const Origin& origin, unsigned depth) {
        const std::size_t begin = gap.find_first_of("-/");
        if (begin == std::string_view::npos || !has_any(gap, announcements)) return;
        std::size_t end = gap.size();
        while (end > begin && is_space(gap[end - 1])) --end;
        // Its own marks stay, so that what is shown can still be cut into tokens.
        const std::size_t marks = 2;
        if (gap.substr(begin, end - begin).ends_with("*/")) end -= marks;
        if (end <= begin + marks) return;
        const bool alone = found_.in_comments_alone && depth == 0;
        hide(origin, begin + marks, end);
        found_.in_comments_alone = alone;
    }

    bool read_tokens(std::string_view text, const Origin& origin, unsigned depth) {
        Tokens tokens(text, escapes_);
        State state;
        Token token;
        std::size_t behind = 0;
        while (tokens.next(token)) {
            const auto begin = static_cast<std::size_t>(token.text.data() - text.data());
            read_gap(text.substr(behind, begin - behind), origin.behind(behind), depth);
            behind = begin + token.text.size();
            read_token(state, token, origin.behind(begin), depth);
        }
        read_gap(text.substr(behind), origin.behind(behind), depth);
        // 'ALTER ROLE r PASSWORD ' || quote_literal('x'). A label that says password is none.
        const bool goes_on = state.role || (!text.empty() && is_space(text.back()));
        return state.open || (state.secret_due && goes_on);
    }

    void read_token(State& state, const Token& token, const Origin& origin, unsigned depth) {
        switch (token.kind) {
            case TokenKind::symbol:
                if (token.text == ";") {
                    state = {};
                    return;
                }
                return read_symbol(state, token, origin, depth);
            case TokenKind::word:
            case TokenKind::quoted_word: return read_word(state, token, origin, depth);
            case TokenKind::plain_string:
            case TokenKind::escape_string:
            case TokenKind::dollar_string: read_string(state, token, origin, depth); break;
            case TokenKind::parameter: read_parameter(state, token, origin, depth); break;
            case TokenKind::number: ends_secret(state, token, origin, depth); break;
        }
        state.before.clear();
        state.secret_due = false;
    }

    // Something that is no string stands where a secret was due: the server does not take it, and
    // it may have been meant as one.
    void ends_secret(State& state, const Token& token, const Origin& origin, unsigned depth) {
        const bool due = std::exchange(state.secret_due, false);
        if (guesses(depth) && due && state.role && lower(token.text) != "null") state.rest = true;
        if (state.rest) hide(origin, 0, token.text.size());
    }

    void read_symbol(State& state, const Token& token, const Origin& origin, unsigned depth) {
        if (token.text == "(") {
            ++state.parentheses;
            if (state.before == "options") state.options = state.parentheses;
            if (state.before.starts_with("dblink_connect")) state.dblink = state.parentheses;
        } else if (token.text == ")") {
            if (state.options == state.parentheses) state.options = 0;
            if (state.dblink == state.parentheses) state.dblink = 0;
            if (state.parentheses > 0) --state.parentheses;
        }
        state.before.clear();
        // PASSWORD = 'x', password := 'x', password => 'x'
        const std::size_t assigned = token.text.find_first_not_of(":=>");
        if (state.secret_due && assigned == std::string_view::npos) {
            if (state.rest) hide(origin, 0, token.text.size());
            return;
        }
        // PASSWORD %L: what is put there
        if (state.secret_due && depth > 0 && token.text[assigned] == '%') state.open = true;
        ends_secret(state, token, origin, depth);
    }

    void read_word(State& state, const Token& token, const Origin& origin, unsigned depth) {
        std::string word = lower(token.text);
        // SET app.password TO 'x'
        if (word == "to" && state.sets && state.secret_due) return;
        ends_secret(state, token, origin, depth);
        if (token.kind == TokenKind::quoted_word) {
            word.erase(0, word.find('"') + 1);
            if (word.ends_with('"')) word.pop_back();
        } else {
            const bool of_role = std::find(role_words.begin(), role_words.end(), word) !=
                                 role_words.end();
            if (of_role && (state.before == "create" || state.before == "alter")) {
                state.role = true;
            }
            if (state.role && state.before == "user" && word == "mapping") {
                state.role = false;
                state.mapping = true;
            }
            if (word == "set") state.sets = true;
        }
        state.secret_due = names_password(word);
        state.before = std::move(word);
    }

    void read_parameter(State& state, const Token& token, const Origin& origin, unsigned depth) {
        if (state.rest) hide(origin, 0, token.text.size());
        // In a body it is the function's, not the client's.
        if (depth > 0) {
            if (state.secret_due) state.open = true;
            return;
        }
        if (!state.secret_due && !state.open && state.dblink == 0) return;
        int number = 0;
        for (const char c : token.text.substr(1)) number = std::min(number * 10 + (c - '0'), 65536);
        found_.parameters.push_back(number);
        found_.in_comments_alone = false;
    }

    void read_string(State& state, const Token& token, const Origin& origin, unsigned depth) {
        const bool of_role = guesses(depth) && state.role && !state.sets && state.before != "until";
        const bool secret = state.secret_due || state.open || state.rest || of_role ||
                            (state.options > 0 && names_secret_option(state.before)) ||
                            (state.mapping && !names_user(state.before));
        if (secret) {
            hide(origin, 0, token.text.size());
            // 'PASSWORD ''' || 'x', and format('PASSWORD ''%s''', 'x')
            if (depth > 0 &&
                (token.unterminated || token.text.find('%') != std::string_view::npos)) {
                state.open = true;
            }
            return;
        }
        if (read_content(token, origin, depth + 1)) state.open = true;
    }

    bool read_content(const Token& token, const Origin& origin, unsigned depth) {
        const std::string_view text = token.text;
        if (!has_any(text, hints)) return false;
        if (token.kind == TokenKind::dollar_string) {
            const std::size_t tag = text.find('$', 1) + 1;
            const std::size_t behind = token.unterminated ? 0 : tag;
            if (text.size() < tag + behind) return false;
            return read(text.substr(tag, text.size() - tag - behind), origin.behind(tag), depth);
        }
        if (text.size() > unquoted_bytes_max) {
            hide_from_password(text, origin);
            return false;
        }
        const bool escapes = token.kind == TokenKind::escape_string || escapes_;
        const Unquoted content = unquoted(text, escapes, origin);
        return read(content.text, {&content.map, 0}, depth);
    }

    bool escapes_;
    bool parsed_;
    Secrets found_;
};

Shown masked(std::string_view text, const Spans& spans, std::size_t from, std::size_t length) {
    Shown out;
    const std::size_t end = std::min(from + length, text.size());
    std::size_t at = std::min(from, end);
    auto span = std::partition_point(spans.begin(), spans.end(), [&](const Secrets::Span& one) {
        return std::size_t{one.from} + one.length <= at;
    });
    for (; span != spans.end() && span->from < end; ++span) {
        const std::size_t hidden_end = std::min<std::size_t>(span->from + span->length, end);
        if (span->from > at) out.text += text.substr(at, span->from - at);
        out.text += mark;
        out.masked = true;
        at = hidden_end;
    }
    out.text += text.substr(at, end - at);
    return out;
}

}  // namespace

Secrets secrets_in(std::string_view sql, const LexicalSettings& lexical, bool parsed) {
    if (parsed && !has_any(sql, hints)) return {};
    const ReadableText readable = make_readable(sql, lexical);
    Finder finder(readable.backslash_escapes, parsed);
    if (readable.problem.empty() && !readable.converted) {
        finder.read(sql, {}, 0);
        return finder.take();
    }
    if (readable.problem.empty()) {
        std::vector<std::uint32_t> map(readable.utf8.size() + 1);
        for (std::uint32_t i = 0; i < map.size(); ++i) map[i] = readable.sent_offset(i);
        finder.read(readable.utf8, {&map, 0}, 0);
        return finder.take();
    }
    const std::size_t from = find_any(sql, unread_announcements);
    if (from != std::string_view::npos) finder.hide({}, from, sql.size());
    return finder.take();
}

std::uint64_t fingerprint_without(const Secrets& secrets, std::string_view sql) {
    // FNV-1a
    std::uint64_t hash = 0xcbf29ce484222325U;
    const auto mix = [&](std::string_view text) {
        for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
    };
    const std::string text = masked(sql, secrets.spans, 0, sql.size()).text;
    Tokens tokens(text, false);
    for (Token token; tokens.next(token); mix(" ")) {
        switch (token.kind) {
            case TokenKind::word: mix(lower(token.text)); break;
            case TokenKind::quoted_word: mix(token.text); break;
            case TokenKind::symbol:
                if (token.text != ";") mix(token.text);
                break;
            case TokenKind::plain_string:
            case TokenKind::escape_string:
            case TokenKind::dollar_string:
            case TokenKind::number:
            case TokenKind::parameter: mix("?"); break;
        }
    }
    return hash;
}

Shown shown(const Analysis& analysis) {
    return masked(analysis.text, analysis.secrets.spans, 0, analysis.text.size());
}

Shown shown(const Analysis& analysis, const StatementFacts& facts) {
    return masked(analysis.text, analysis.secrets.spans, facts.location, facts.length);
}

Shown shown(std::string_view sql, const LexicalSettings& lexical) {
    return masked(sql, secrets_in(sql, lexical, false).spans, 0, sql.size());
}

Shown shown(std::string_view text) {
    Finder finder(false, true);
    finder.read(text, {}, 1);
    return masked(text, finder.take().spans, 0, text.size());
}

Shown shown_without_strings(std::string_view text) {
    Shown out;
    Tokens tokens(text, false);
    std::size_t at = 0;
    for (Token token; tokens.next(token);) {
        if (token.kind != TokenKind::plain_string && token.kind != TokenKind::escape_string &&
            token.kind != TokenKind::dollar_string) {
            continue;
        }
        const auto begin = static_cast<std::size_t>(token.text.data() - text.data());
        out.text += text.substr(at, begin - at);
        out.text += mark;
        out.masked = true;
        at = begin + token.text.size();
    }
    out.text += text.substr(at);
    return out;
}

bool hide_secrets(const Secrets& secrets, std::vector<std::optional<std::string>>& values) {
    bool hidden = false;
    bool open = false;
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (!values[i]) continue;
        const bool named = std::find(secrets.parameters.begin(), secrets.parameters.end(),
                                     static_cast<int>(i + 1)) != secrets.parameters.end();
        if (named || open) {
            values[i] = std::string(1, mark);
            hidden = true;
            continue;
        }
        Finder finder(false, true);
        open = finder.read(*values[i], {}, 1);
        Shown value = masked(*values[i], finder.take().spans, 0, values[i]->size());
        hidden = hidden || value.masked;
        values[i] = std::move(value.text);
    }
    return hidden;
}

}  // namespace pgchaperone::policy
