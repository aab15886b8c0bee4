#pragma once
// What of a statement nobody is to read: the password of a role, of a user mapping, in a connection
// string. It is found in the tokens, so that what can't be parsed hides its secrets as well, and in
// the strings and bodies that hold SQL of their own. What is shown, written down or told of a
// statement goes through here; what runs, and what an approval is bound to, does not.
//
// It is for people who do not hide from it: a password that is put together of pieces, or that
// nothing calls one, is not known as one.

#include "policy/facts.h"
#include "policy/session_facts.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::policy {

// `parsed`: the text is SQL as the server reads it; in any other more is taken for a secret. Where
// it can't be told with certainty which bytes are a string's, all behind the first word that
// announces a secret is one.
Secrets secrets_in(std::string_view sql, const LexicalSettings& lexical, bool parsed);

// A text as people may see it: a question mark stands for each secret.
struct Shown {
    std::string text;
    bool masked = false;
};
Shown shown(const Analysis& analysis);                               // all of it
Shown shown(const Analysis& analysis, const StatementFacts& facts);  // one of its statements
Shown shown(std::string_view sql, const LexicalSettings& lexical);   // one that was not analysed
// What stands for itself, such as a server's message: it may be a connection string or hold SQL.
Shown shown(std::string_view text);
// The same, where it tells of a statement that holds secrets: a plan has its constants in forms of
// the server's own.
Shown shown_without_strings(std::string_view text);

// Of a text with these secrets: the same whatever they and its constants are, so that nobody can
// try passwords against it.
std::uint64_t fingerprint_without(const Secrets& secrets, std::string_view sql);

// The values of a Bind of that statement, in place. True: something was left out.
bool hide_secrets(const Secrets& secrets, std::vector<std::optional<std::string>>& values);

}  // namespace pgchaperone::policy
