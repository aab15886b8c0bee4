#include "policy/functions_table.h"

#include "support/catch.h"

namespace pgchaperone::policy {

TEST_CASE("every volatile function of the catalogue has been reviewed") {
    CHECK(first_unreviewed_function() == "");
}

TEST_CASE("functions are known by name and schema") {
    CHECK(find_function("lower").known);
    CHECK(find_function("lower", "pg_catalog").known);
    CHECK_FALSE(find_function("lower", "public").known);
    CHECK_FALSE(find_function("purge_orders").known);
    CHECK(find_function("count").aggregate);
    CHECK_FALSE(find_function("lower").aggregate);
    CHECK(find_function("random").varies_by_chance);
    CHECK_FALSE(find_function("now").varies_by_chance);
    CHECK_FALSE(find_function("clock_timestamp").varies_by_chance);
    CHECK(find_function("uuidv7").known);
    CHECK(find_function("nextval").effect == FunctionEffect::writes);
    CHECK(find_function("pg_terminate_backend").effect == FunctionEffect::dangerous);
    CHECK(find_function("dblink_exec", "public").effect == FunctionEffect::dangerous);
    CHECK(find_function("query_to_xml").effect == FunctionEffect::runs_sql);
    CHECK(find_function("_pg_expandarray", "information_schema").known);
    CHECK_FALSE(find_function("_pg_expandarray").known);
}

TEST_CASE("operators are known by name") {
    for (const char* name : {"=", "<>", "<@", "@>", "||", "~~", "->>", "?|", "#>>", "&&", "!~*"}) {
        INFO(name);
        CHECK(is_builtin_operator(name));
    }
    CHECK_FALSE(is_builtin_operator("<~"));
}

}  // namespace pgchaperone::policy
