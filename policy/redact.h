#pragma once
// A statement's text without what may be confidential in it: each string and number becomes a
// question mark, and comments go. For records of statements that nobody had a reason to look at.
// Works on tokens, so that what can't be parsed is redacted as well.

#include "policy/session_facts.h"

#include <string>
#include <string_view>

namespace pgchaperone::policy {

// Where it can't be told with certainty which bytes are a string's (an encoding other than UTF-8,
// backslashes while standard_conforming_strings is unknown), all of it is one question mark.
std::string redacted(std::string_view sql, const LexicalSettings& lexical);

}  // namespace pgchaperone::policy
