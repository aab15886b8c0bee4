// Literals and comments go from a text, and nothing else.
#include "policy/redact.h"
#include "support/catch.h"

using namespace pgchaperone::policy;

namespace {

std::string of(std::string_view sql) { return redacted(sql, {}); }

}  // namespace

TEST_CASE("strings and numbers become question marks, the rest stays as it was sent") {
    CHECK(of("SELECT * FROM people WHERE name = 'O''Brien' AND age > 42") ==
          "SELECT * FROM people WHERE name = ? AND age > ?");
    CHECK(of("INSERT INTO \"My Table\" VALUES ($1, E'it\\'s', $tag$secret$tag$, 1.5e3)") ==
          "INSERT INTO \"My Table\" VALUES ($1, ?, ?, ?)");
    CHECK(of("ALTER ROLE clerk PASSWORD 'hunter2';\n") == "ALTER ROLE clerk PASSWORD ?;");
    CHECK(of("DO $$BEGIN PERFORM 'secret'; END$$") == "DO ?");
    CHECK(of("SELECT b'01', x'ff', U&'d\\0061t', n'x'") == "SELECT ?, ?, ?, ?");
    CHECK(of("") == "");
}

TEST_CASE("comments go") {
    CHECK(of("SELECT /* card 4111 */ 1 -- for Anna\n FROM t") == "SELECT ? FROM t");
    CHECK(of("-- only this") == "");
}

TEST_CASE("what can't be told apart with certainty is left out as a whole") {
    CHECK(of("SELECT 'never ended") == "SELECT ?");
    CHECK(of("SELECT \"never ended") == "SELECT ?");
    LexicalSettings unknown;
    unknown.standard_conforming_strings = StandardConformingStrings::unknown;
    CHECK(redacted("SELECT 'a\\' OR 'secret'", unknown) == "?");
    CHECK(redacted("SELECT 'secret'", unknown) == "SELECT ?");
    LexicalSettings off;
    off.standard_conforming_strings = StandardConformingStrings::off;
    CHECK(redacted("SELECT 'a\\' OR secret' || b", off) == "SELECT ? || b");
    LexicalSettings sjis;
    sjis.client_encoding = "SJIS";
    CHECK(redacted("SELECT '\x83\x5c' OR 'secret'", sjis) == "?");
    CHECK(of("SELECT '\xff' || name").find('\xff') == std::string::npos);
}
