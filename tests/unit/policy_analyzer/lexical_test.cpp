#include "policy/lexical.h"

#include "analyze.h"

#include <vector>

namespace pgchaperone::policy {

namespace {

LexicalSettings in_encoding(const char* name) {
    LexicalSettings settings;
    settings.client_encoding = name;
    return settings;
}

LexicalSettings with_strings(StandardConformingStrings value) {
    LexicalSettings settings;
    settings.standard_conforming_strings = value;
    return settings;
}

bool deletes_orders(const Analysis& analysis) {
    for (const StatementFacts& facts : analysis.statements) {
        if (facts.unbounded.set && contains(facts.written, RelationName{{}, {}, "orders"})) {
            return true;
        }
    }
    return false;
}

}  // namespace

TEST_CASE("standard_conforming_strings decides where a string ends") {
    const std::string sql = "SELECT '\\' , '; DELETE FROM orders; --'";
    CHECK_FALSE(deletes_orders(*analyze(sql)));
    CHECK(deletes_orders(*analyze(sql, with_strings(StandardConformingStrings::off))));
    CHECK(facts_of(sql, with_strings(StandardConformingStrings::unknown)).unparsable.set);
    // The other way round: harmless with it off, a DELETE with it on.
    const std::string other = "SELECT '\\'; DELETE FROM orders; --'";
    CHECK(deletes_orders(*analyze(other)));
    CHECK_FALSE(deletes_orders(*analyze(other, with_strings(StandardConformingStrings::off))));
    CHECK(facts_of(other, with_strings(StandardConformingStrings::unknown)).unparsable.set);
}

TEST_CASE("while standard_conforming_strings is unknown, what means the same either way is read") {
    const auto unknown = with_strings(StandardConformingStrings::unknown);
    for (const char* sql : {"SELECT 'a'", "SELECT E'\\n'", "SELECT $$\\$$", "SELECT 1 -- \\",
                            "SELECT /* \\' */ 1", "SELECT \"a\\b\" FROM t"}) {
        INFO(sql);
        CHECK_FALSE(facts_of(sql, unknown).unparsable.set);
    }
    for (const char* sql :
         {"SELECT 'a\\b'", "SELECT N'\\'", "SELECT 'a'\n'\\b'", "SELECT U&'\\0061'"}) {
        INFO(sql);
        CHECK(facts_of(sql, unknown).unparsable.set);
    }
}

TEST_CASE("trail bytes that look like ASCII stay inside their characters") {
    // 0x95 0x5C is one character of SJIS; cut into bytes, the backslash would eat the quote behind
    // it.
    const std::string sjis = "SELECT E'\x95\x5c'; DELETE FROM orders; --'";
    CHECK(deletes_orders(*analyze(sjis, in_encoding("SJIS"))));
    CHECK(deletes_orders(
        *analyze("SELECT E'\xd5\x5c'; DELETE FROM orders; --'", in_encoding("GBK"))));
    CHECK(deletes_orders(
        *analyze("SELECT E'\xb3\x5c'; DELETE FROM orders; --'", in_encoding("BIG5"))));
    CHECK(deletes_orders(
        *analyze("SELECT E'\x81\x30\x81\x30'; DELETE FROM orders; --'", in_encoding("GB18030"))));
    CHECK(deletes_orders(
        *analyze("SELECT \"\x83\x5c\" FROM (SELECT 1) x(\"\x83\x5c\"); DELETE FROM orders",
                 in_encoding("SJIS"))));
    // The name of the encoding is compared without case, as the server does.
    CHECK(deletes_orders(*analyze(sjis, in_encoding("sjis"))));
}

TEST_CASE("bytes that are not valid in their encoding are unparsable") {
    CHECK(facts_of("SELECT '\xff'").unparsable.set);
    CHECK(facts_of("SELECT '\xc3'").unparsable.set);
    CHECK(facts_of("SELECT '\xed\xa0\x80'").unparsable.set);
    CHECK(facts_of("SELECT '\xc0\x80'").unparsable.set);
    CHECK(facts_of("SELECT '\x95", in_encoding("SJIS")).unparsable.set);
    CHECK(facts_of("SELECT '\x80'", in_encoding("SJIS")).unparsable.set);
    CHECK(facts_of("SELECT '\xd9\x41'", in_encoding("JOHAB")).unparsable.set);
    CHECK(facts_of("SELECT '\xa4'", in_encoding("EUC_JP")).unparsable.set);
    CHECK(facts_of("SELECT '\xe9'", in_encoding("NO_SUCH_ENCODING")).unparsable.set);
    CHECK(facts_of(std::string_view("SELECT 1\0; DELETE FROM t", 24)).unparsable.set);
}

TEST_CASE("a character that the server turns into a backslash is not read as another one") {
    CHECK(facts_of("SELECT E'\x81\x5f'; DELETE FROM t; --'", in_encoding("SHIFT_JIS_2004"))
              .unparsable.set);
    CHECK(facts_of("SELECT '\x81\xb0'", in_encoding("SHIFT_JIS_2004")).unparsable.set);
    CHECK_FALSE(facts_of("SELECT '\x81\x5f'", in_encoding("SJIS")).unparsable.set);
}

TEST_CASE("characters that only the server knows do not make a text unreadable") {
    CHECK_FALSE(facts_of("SELECT '\xad\xa1'", in_encoding("EUC_JP")).unparsable.set);
    const StatementFacts one = facts_of("SELECT * FROM \xad\xa1", in_encoding("EUC_JP"));
    CHECK_FALSE(one.read == facts_of("SELECT * FROM \xad\xa2", in_encoding("EUC_JP")).read);
}

TEST_CASE("single-byte encodings are read, and names come out in UTF-8") {
    const StatementFacts facts = facts_of("SELECT * FROM caf\xe9", in_encoding("LATIN1"));
    CHECK_FALSE(facts.unparsable.set);
    CHECK(facts.read.at(0).name == "caf\xc3\xa9");
    CHECK(facts_of("SELECT * FROM \xc0", in_encoding("WIN1251")).read.at(0).name == "\xd0\x90");
    CHECK_FALSE(facts_of("SELECT '\xff'", in_encoding("SQL_ASCII")).unparsable.set);
    CHECK(facts_of("SELECT * FROM \xa4\xa2", in_encoding("EUC_JP")).read.at(0).name ==
          "\xe3\x81\x82");
}

TEST_CASE("places of statements are in the bytes that were sent") {
    const std::string sql = "SELECT '\x95\x5c\x95\x5c'; DELETE FROM t ; SELECT '\x95\x5c'";
    const AnalysisPtr analysis = analyze(sql, in_encoding("SJIS"));
    REQUIRE(analysis->statements.size() == 3);
    const StatementFacts& second = analysis->statements[1];
    CHECK(sql.substr(second.location, second.length) == "DELETE FROM t");
    const StatementFacts& third = analysis->statements[2];
    CHECK(sql.substr(third.location, third.length) == "SELECT '\x95\x5c'");
}

TEST_CASE(
    "while client_encoding is unknown, ASCII and text that no encoding cuts otherwise is read") {
    LexicalSettings unknown;
    unknown.client_encoding.reset();
    CHECK_FALSE(facts_of("SELECT 'a'", unknown).unparsable.set);
    CHECK_FALSE(facts_of("SELECT 'M\xc3\xbcller'", unknown).unparsable.set);
    CHECK(facts_of("SELECT '\xe3\x81\x82'", unknown)
              .unparsable.set);  // BIG5 takes the quote into a character
    CHECK(facts_of("SELECT E'\x95\x5c'", unknown).unparsable.set);
}

TEST_CASE("tokens end where the server's scanner ends them") {
    const auto tokens_of = [](std::string_view sql, bool escapes = false) {
        std::vector<std::string> out;
        Tokens tokens(sql, escapes);
        for (Token token; tokens.next(token);) {
            out.emplace_back(token.text);
        }
        return out;
    };
    using Words = std::vector<std::string>;
    CHECK(tokens_of("a/* /* x */ ' */b -- c\nd") == Words{"a", "b", "d"});
    CHECK(tokens_of("'it''s' E'\\'' \"q\"\"q\"") == Words{"'it''s'", "E'\\''", "\"q\"\"q\""});
    CHECK(tokens_of("'a'\n 'b' 'c' 'd'") == Words{"'a'\n 'b'", "'c'", "'d'"});
    CHECK(tokens_of("$$a'b$$ $x$ $$ $x$ $1 a$b$c") ==
          Words{"$$a'b$$", "$x$ $$ $x$", "$1", "a$b$c"});
    CHECK(tokens_of("'\\'';") == Words{"'\\'';"});
    CHECK(tokens_of("'\\'';", true) == Words{"'\\''", ";"});
    CHECK(tokens_of("a::int+-1--x") == Words{"a", "::", "int", "+-", "1"});
    CHECK(tokens_of("/* never ends") == Words{});
    CHECK(tokens_of("'never ends") == Words{"'never ends"});
}

TEST_CASE("comments that would take the scanner quadratic time are found out by counting") {
    std::string nested;
    for (int i = 0; i < 3000; ++i) nested += "/*";
    CHECK(comment_steps_bound(nested) > 4'000'000);
    const std::string line = "/" + std::string(20'000, '*') + "/ SELECT 1";
    CHECK(comment_steps_bound(line) < 30'000);
    std::string many;
    for (int i = 0; i < 10'000; ++i) many += "/* one */ ";
    CHECK(comment_steps_bound(many) < 100'000);
    CHECK(comment_steps_bound("SELECT 1 /") == 0);
}

}  // namespace pgchaperone::policy
