#include "cli/terminal.h"
#include "support/catch.h"

using namespace pgchaperone;
using namespace std::chrono_literals;

namespace {

const cli::Time noon = *cli::parse_time("2026-11-21 12:00:00Z");

}  // namespace

TEST_CASE("nothing that a requester wrote moves the cursor, hides text or turns it around") {
    struct Case {
        std::string text, shown;
    };
    for (const Case& c : {
             Case{"DELETE FROM t", "DELETE FROM t"},
             Case{"\033[2K\rSELECT 1", "<U+001B>[2K ⏎ SELECT 1"},
             Case{"\b\a\x7f", "<U+0008><U+0007><U+007F>"},
             Case{"\xc2\x9b"
                  "2J",
                  "<U+009B>2J"},
             Case{"a\xe2\x80\xae z", "a<U+202E> z"},
             Case{"a\xe2\x81\xa6z", "a<U+2066>z"},
             Case{"or\xe2\x80\x8b"
                  "ders",
                  "or<U+200B>ders"},
             Case{"or\xc2\xad"
                  "ders",
                  "or<U+00AD>ders"},
             Case{"t\xc2\xa0WHERE", "t<U+00A0>WHERE"},
             Case{"\xf3\xa0\x81\x81", "<U+E0041>"},
             Case{"\xef\xbb\xbf"
                  "a",
                  "<U+FEFF>a"},
             Case{"\xff\xc0\x80", "<0xFF><0xC0><0x80>"},
             Case{"\xed\xa0\x80", "<0xED><0xA0><0x80>"},
             Case{"\xf4\x90\x80\x80", "<0xF4><0x90><0x80><0x80>"},
             Case{std::string("a\0b", 3), "a<U+0000>b"},
             Case{"Größe = 'x' AND 名 = '\xf0\x9f\x98\x80'",
                  "Größe = 'x' AND 名 = '\xf0\x9f\x98\x80'"},
         }) {
        INFO(c.shown);
        CHECK(cli::visible_line(c.text) == c.shown);
    }
}

TEST_CASE("a comment that ends at a line break does not seem to go on behind it") {
    CHECK(cli::visible_line("\n  DELETE FROM t -- only one\n\t WHERE id = 1;\n") ==
          "DELETE FROM t -- only one ⏎ WHERE id = 1;");
    CHECK(cli::visible_line("a\t b") == "a b");
    CHECK(cli::visible_line("a  b") == "a  b");
    CHECK(cli::visible_line("") == "");
    CHECK(cli::visible_line(" \n ") == "");
}

TEST_CASE("texts of several lines keep them, and nothing else that moves the cursor") {
    CHECK(cli::visible_lines("a\n\tb\r\nc\n\n") == "a\n    b\nc");
    CHECK(cli::visible_lines("a\rb") == "a<U+000D>b");
    CHECK(cli::visible_lines("a\033[1mb") == "a<U+001B>[1mb");
}

TEST_CASE("JSON shows no hidden mark and stays JSON") {
    CHECK(cli::visible_json("{\"a\":\"x\xe2\x80\xae\"}") == "{\"a\":\"x\\u202e\"}");
    CHECK(cli::visible_json("\"\xf3\xa0\x81\x81\xf0\x9f\x98\x80\"") ==
          "\"\\udb40\\udc41\xf0\x9f\x98\x80\"");
    CHECK(cli::visible_json("\"\xff\"") == "\"\\ufffd\"");
    CHECK(cli::visible_json("{\n  \"a\": 1\n}\n") == "{\n  \"a\": 1\n}\n");
}

TEST_CASE("texts are cut by the columns that they take, wide characters never in half") {
    CHECK(cli::cut("abcdef", 6) == "abcdef");
    CHECK(cli::cut("abcdef", 5) == "abcd…");
    CHECK(cli::cut("abcdef", 1) == "…");
    CHECK(cli::cut("abcdef", 0) == "");
    CHECK(cli::cut("", 0) == "");
    CHECK(cli::columns_of("名前") == 4);
    CHECK(cli::columns_of("e\xcc\x81") == 1);
    CHECK(cli::cut("名前x", 5) == "名前x");
    CHECK(cli::cut("名前x", 4) == "名…");
    CHECK(cli::columns_of(cli::cut("名前x", 4)) <= 4);
    CHECK(cli::padded("名", 4) == "名  ");
}

TEST_CASE("a terminal is told times as people tell them, a pipe as machines read them") {
    cli::Look people;
    people.terminal = true;
    people.now = noon;
    const cli::Look machines;
    CHECK(cli::time_text(noon - 5s, people) == "5 s ago");
    CHECK(cli::time_text(noon - 119s, people) == "1 min ago");
    CHECK(cli::time_text(noon + 28min + 30s, people) == "in 28 min");
    CHECK(cli::time_text(noon - 47h, people) == "47 h ago");
    CHECK(cli::time_text(noon - 49h, people) == "2 days ago");
    CHECK(cli::time_text(noon, people) == "0 s ago");
    CHECK(cli::time_text(noon - 1s, machines) == "2026-11-21 11:59:59Z");
}

TEST_CASE("times are read with their offset, and nothing else is a time") {
    CHECK(cli::parse_time("2026-11-21 13:00:00+01") == noon);
    CHECK(cli::parse_time("2026-11-21T17:30:00+05:30") == noon);
    CHECK(cli::parse_time("2026-11-21 08:30:00.000000-0330") == noon);
    CHECK(cli::parse_time("2026-11-21 12:00:00.25Z") == noon + 250ms);
    CHECK(cli::parse_time("2000-02-29 00:00:00Z").has_value());
    for (const char* text :
         {"", "now", "2026-11-21 12:00:00", "2026-11-21", "2026-13-21 12:00:00Z",
          "2026-02-30 12:00:00Z", "2026-11-21 24:00:00Z", "2026-11-21 12:00:00.Z",
          "2026-11-21 12:00:00+1", "2026-11-21 12:00:00Zx", "2026-11-21 12:00:00+01:0",
          "2026-11-21 -1:00:00Z", "21.11.2026 12:00:00Z", "2026-11-21 12:00:00."}) {
        INFO(text);
        CHECK_FALSE(cli::parse_time(text).has_value());
    }
}
