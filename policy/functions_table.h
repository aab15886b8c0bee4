#pragma once
// What PostgreSQL's own functions and operators do, by name. The names and their volatility come
// from the catalogue of a live server (functions_table.inc, made by tools/functions_table.py); what
// the volatile ones do was reviewed by hand. A name stands for all its overloads: the worst of them
// counts.

#include <cstdint>
#include <string_view>

namespace pgchaperone::policy {

enum class FunctionEffect : std::uint8_t {
    none,        // only reads
    session,     // changes something that ends with the session: a setting, an advisory lock
    writes,      // changes data: a sequence, a large object
    runs_sql,    // runs SQL that is given to it as text
    runs_names,  // runs or reads whatever a name given to it stands for, a view with functions in
                 // it too
    dangerous,   // reaches beyond the database's rows, or takes away what was there
};

struct FunctionFacts {
    bool known = false;
    bool aggregate = false;
    bool varies_by_chance = false;  // not the same for all rows of one statement
    FunctionEffect effect = FunctionEffect::none;
    std::string_view danger{};  // for `dangerous`, in words: "ends other sessions"
};

// `schema` is empty for a name without one: it is taken for the built-in although a search_path
// could put another function before it.
FunctionFacts find_function(std::string_view name, std::string_view schema = {});

// Whether pg_catalog has an operator of that name.
bool is_builtin_operator(std::string_view name);

// The volatile functions of the catalogue that nobody has reviewed yet; a unit test wants none.
std::string_view first_unreviewed_function();

}  // namespace pgchaperone::policy
