#pragma once
// The virtual schema `chaperone` as clients see it: the columns of every answer, and the SELECT
// that is sent to the server in the place of SHOW chaperone.… or CALL chaperone.…(…), so that
// Describe, formats and errors are the server's own. Pure text; the names and arguments are in
// policy/chaperone_call.h, the rows come from the host.
//
// Rows are a JSON array of objects with the columns' names, in the order in which they are to be
// shown: numbers and booleans as such, times as "2026-11-21T08:00:00.5Z", null or left out: NULL.
// What reaches the server of them is ASCII, so that no encoding can matter.

#include "policy/facts.h"

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace pgchaperone::session {

struct Column {
    std::string_view name;
    std::string_view type;  // in pg_catalog
};

// Of SHOW chaperone.`name` or CALL chaperone.`name`; empty for a name that does not exist.
std::span<const Column> columns_of(std::string_view name, bool call) noexcept;

// The SELECT with the rows in it, right whatever standard_conforming_strings is. `json`: ASCII.
std::string select_of_rows(const policy::ChaperoneCall& call, std::string_view json);
// The SELECT of the rows in parameter $`parameter`, which is of the type json.
std::string select_of_parameter(const policy::ChaperoneCall& call, std::size_t parameter);

// JSON in UTF-8 as JSON in ASCII. `unicode`: client and server both use UTF-8; otherwise there are
// characters that can't be converted, and a question mark stands for each that is not ASCII. So it
// does for what is no UTF-8, and for NUL, which no text of PostgreSQL's can hold.
std::string ascii_json(std::string_view json, bool unicode);

// A client's bytes as UTF-8: a question mark for what is none, and, where its encoding is not
// UTF-8, for all that is not ASCII.
std::string readable_text(std::string_view bytes, bool utf8);

}  // namespace pgchaperone::session
