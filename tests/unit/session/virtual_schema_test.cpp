// The SELECTs that stand in the place of statements for pgchaperone itself.
#include "proxy/session/virtual_schema.h"

#include "policy/analyzer.h"
#include "policy/chaperone_call.h"
#include "support/catch.h"

using namespace pgchaperone;
using namespace pgchaperone::session;

namespace {

policy::ChaperoneCall show(std::string name) {
    policy::ChaperoneCall call;
    call.name = std::move(name);
    return call;
}

}  // namespace

TEST_CASE("every name of the virtual schema has columns, and no other name has") {
    for (const policy::ChaperoneName& entry : policy::chaperone_names) {
        INFO(entry.name);
        const std::string name = entry.name == policy::ticket_prefix ? "ticket_k7"
                                                                     : std::string(entry.name);
        CHECK_FALSE(columns_of(name, entry.call).empty());
        CHECK(columns_of(name, !entry.call).empty());
    }
    CHECK(columns_of("ticket_", false).empty());
    CHECK(columns_of("reason", false).empty());
}

TEST_CASE("rows stand in a literal that means the same under every setting") {
    const std::string sql = select_of_rows(show("stats"), R"([{"name":"it's","value":"\u00e9"}])");
    CHECK(sql ==
          "SELECT \"name\", \"value\" FROM pg_catalog.json_to_recordset("
          "E'[{\"name\":\"it''s\",\"value\":\"\\\\u00e9\"}]'::pg_catalog.json) AS chaperone("
          "\"name\" pg_catalog.text, \"value\" pg_catalog.int8)");
    CHECK(select_of_parameter(show("ticket_k7"), 3) ==
          "SELECT \"field\", \"value\" FROM pg_catalog.json_to_recordset($3) AS chaperone("
          "\"field\" pg_catalog.text, \"value\" pg_catalog.text)");
}

TEST_CASE("every SELECT is one statement that only reads, under both settings for strings") {
    for (const policy::ChaperoneName& entry : policy::chaperone_names) {
        policy::ChaperoneCall call = show(
            entry.name == policy::ticket_prefix ? "ticket_k7" : std::string(entry.name));
        call.call = entry.call;
        for (const auto strings :
             {policy::StandardConformingStrings::on, policy::StandardConformingStrings::off}) {
            const std::string sql = select_of_rows(call, R"([{"a":"x\\'; DROP TABLE t; --"}])");
            INFO(sql);
            const auto analysis = policy::Analyzer().analyze(sql, {strings, "UTF8"});
            REQUIRE(analysis->statements.size() == 1);
            CHECK(analysis->statements[0].command == "SELECT");
            CHECK_FALSE(analysis->statements[0].unparsable);
            CHECK_FALSE(analysis->statements[0].opaque);
        }
    }
}

TEST_CASE("JSON becomes ASCII and stays the same, or has question marks where it can't") {
    struct Case {
        std::string_view json, unicode, other;
    };
    using namespace std::string_view_literals;
    const Case cases[] = {
        {"", "[]", "[]"},
        {"[]", "[]", "[]"},
        {R"({"a":"b\n\"c\\"})", R"({"a":"b\n\"c\\"})", R"({"a":"b\n\"c\\"})"},
        {"\"\xC3\xA9\"", R"("\u00e9")", "\"?\""},
        {"\"\xE2\x82\xAC\"", R"("\u20ac")", "\"?\""},
        {"\"\xF0\x9F\x98\x80\"", R"("\ud83d\ude00")", "\"?\""},
        {R"("\u00e9\u0041")", R"("\u00e9\u0041")", R"("?\u0041")"},
        {R"("\u0000")", "\"?\"", "\"?\""},
        {R"("\\u0000")", R"("\\u0000")", R"("\\u0000")"},
        {"\"\0\""sv, "\"?\"", "\"?\""},
        {"\"\xC3\"", "\"?\"", "\"?\""},                    // cut off
        {"\"\xED\xA0\x80\"", "\"???\"", "\"???\""},        // a surrogate
        {"\"\xC0\xAF\"", "\"??\"", "\"??\""},              // overlong
        {"\"\xE0\x80\xAF\"", "\"???\"", "\"???\""},        // likewise
        {"\"\xF4\x90\x80\x80\"", "\"????\"", "\"????\""},  // beyond Unicode
        {"\\", "\\", "\\"},
    };
    for (const Case& each : cases) {
        INFO(each.json);
        CHECK(ascii_json(each.json, true) == each.unicode);
        CHECK(ascii_json(each.json, false) == each.other);
    }
}

TEST_CASE("a client's text is UTF-8 afterwards, whatever it was") {
    using namespace std::string_view_literals;
    CHECK(readable_text("K7", true) == "K7");
    CHECK(readable_text("gepr\xC3\xBC"
                        "ft",
                        true) ==
          "gepr\xC3\xBC"
          "ft");
    CHECK(readable_text("gepr\xFC"
                        "ft",
                        true) == "gepr?ft");
    CHECK(readable_text("gepr\xFC"
                        "ft",
                        false) == "gepr?ft");
    CHECK(readable_text("a\0b"sv, true) == "a?b");
}
