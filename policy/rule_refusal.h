#pragma once
// The words for a statement that is not simply allowed: what a person at a keyboard reads. Pure
// functions.

#include "policy/rule_match.h"

#include <cstddef>
#include <string>
#include <string_view>

namespace pgchaperone::policy {

// Where a statement stands among those of its text.
struct Position {
    std::size_t number = 1;
    std::size_t count = 1;
};

// The refusal for a statement that `outcome` blocks or holds. A message is one line; UTF-8 as far
// as the statement is.
Refusal refusal(const Policy& policy, const Outcome& outcome, const Subject& subject,
                Position position);

// The reason alone, without "rule ... blocked this": for records and for observed rules.
std::string reason(const Policy& policy, const Outcome& outcome, const Subject& subject);

// The way forward, without the sentence that says that nothing was changed.
std::string hint(const Policy& policy, const Outcome& outcome, const Subject& subject);

// The same refusal, where the policy says `hold` and the host can't.
void say_that_nobody_can_be_asked(Refusal& refusal);

// True where a text begins, behind white space and comments, with WHERE, AND or OR: what a client
// sends when it has cut a statement in two at a blank line or a semicolon.
bool begins_like_a_cut_off_tail(std::string_view sql) noexcept;

// What to say of such a tail on a session where an unbounded statement was refused or held just
// before. `refused_command` is that statement's command tag, `rule` what refused it.
Refusal cut_off_refusal(std::string_view tail, std::string_view refused_command,
                        std::string_view rule);

// The beginning of a statement for people: one line, cut at a word, never longer than `limit` bytes
// and an ellipsis; control characters and broken UTF-8 are replaced.
std::string first_words(std::string_view sql, std::size_t limit = 60);

}  // namespace pgchaperone::policy
