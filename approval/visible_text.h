#pragma once
// Text that was written by somebody else, maybe by somebody who means ill, as it may be shown: what
// is shown is what is there. Control characters, marks that hide text or turn its direction, and
// spaces that are none to PostgreSQL come out as <U+202E>, bytes that are not UTF-8 as <0x80>; so
// nothing moves a cursor, changes colours, or lets one statement look like another. What comes out
// is UTF-8, whatever went in. Knows no SQL, no terminal and no chat: pure functions.

#include <string>
#include <string_view>

namespace pgchaperone::approval {

// The text as it may be shown. On one line, each run of line breaks and tabs with the spaces
// around it becomes a mark: a comment that ends at a line break must not seem to go on.
std::string visible_line(std::string_view text);
// The same with its line breaks kept; tabs become spaces. No line break at the end.
std::string visible_lines(std::string_view text);

// JSON with what visible_line would not show as it is written as \u escapes; control characters are
// escaped in JSON anyway.
std::string visible_json(std::string_view json);

struct Character {
    std::string_view bytes;
    char32_t code = 0;
    bool good = false;
};
// The character at the front of a text that is not empty, by the strict reading of UTF-8: no
// overlong forms, no surrogates. A byte that begins none is one character that is not good.
Character front_character(std::string_view text);

}  // namespace pgchaperone::approval
