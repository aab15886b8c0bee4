#include "webhook/text.h"

#include "support/catch.h"

using namespace pgchaperone::webhook;

namespace {
std::optional<std::string> value(std::string_view word) {
    if (word == "who") return "a \"b\"\n";
    if (word == "empty") return "";
    return std::nullopt;
}
}  // namespace

TEST_CASE("words in braces are replaced, and other braces are left alone") {
    CHECK(filled("{who}", false, value) == "a \"b\"\n");
    CHECK(filled(R"({"t": "{who}{empty}"})", true, value) == R"({"t": "a \"b\"\n"})");
    CHECK(filled("{} { who } {other} {who", false, value) == "{} { who } {other} {who");
    CHECK(filled("{{who}}", true, value) == R"({a \"b\"\n})");
    CHECK(filled("", true, value) == "");
}

TEST_CASE("words are found whether they are known or not") {
    CHECK(words_in(R"({"a": "{who} {x_y}", "b": {}} {1} {)") ==
          std::vector<std::string>{"who", "x_y"});
}

TEST_CASE("a template that is to be JSON is JSON whatever is put in") {
    CHECK_FALSE(why_no_json(R"({"text": "{event}: {reason}", "n": [1, {"x": null}]})"));
    for (const char* wrong : {R"({"text": {event}})", R"({"text": "{event}")", "{event}", "", "{}x",
                              R"({'text': '{event}'})"}) {
        INFO(wrong);
        CHECK(why_no_json(wrong));
    }
}
