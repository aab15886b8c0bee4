// One line: JSON that any reader takes, whatever bytes a client sent.

#include "audit/line.h"
#include "support/catch.h"

#include <boost/json.hpp>

#include <random>

using namespace pgchaperone::audit;
using Catch::Matchers::ContainsSubstring;

namespace {

std::string json_text(std::string_view bytes) {
    std::string out;
    append_json_text(out, bytes);
    return out;
}

std::string parsed(const std::string& json) {
    const boost::json::value value = boost::json::parse(json);
    return std::string(value.as_string().data(), value.as_string().size());
}

// Undoes the escaping of text that was not UTF-8.
std::string unescaped(const std::string& text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '\\') {
            out += text[i];
        } else if (text.at(i + 1) == '\\') {
            out += text[++i];
        } else {
            REQUIRE(text.at(i + 1) == 'x');
            out += static_cast<char>(std::stoi(text.substr(i + 2, 2), nullptr, 16));
            i += 3;
        }
    }
    return out;
}

bool shows_only_printable(const std::string& json) {
    for (const char c : json)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return false;
    return true;
}

}  // namespace

TEST_CASE("UTF-8 text comes out of JSON as it went in") {
    for (const std::string text :
         {"", "plain", "quote \" backslash \\ slash /", "line\nfeed\ttab\rreturn", "\x01\x1f\x7f",
          "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\x98", "\xc2\x80\xc2\x9f",
          "\xe2\x80\xa8\xe2\x80\xa9", "\xef\xbf\xbf\xf4\x8f\xbf\xbf",
          "\\x41 is not an escape here"}) {
        std::string json;
        CHECK_FALSE(append_json_text(json, text));
        INFO(json);
        CHECK(parsed(json) == text);
        CHECK(shows_only_printable(json));
    }
}

TEST_CASE("marks that hide or turn text around are shown as escapes") {
    // RIGHT-TO-LEFT OVERRIDE, ZERO WIDTH SPACE, NEXT LINE, BYTE ORDER MARK
    CHECK(json_text("\xe2\x80\xae") == "\"\\u202e\"");
    CHECK(json_text("\xe2\x80\x8b") == "\"\\u200b\"");
    CHECK(json_text("\xc2\x85") == "\"\\u0085\"");
    CHECK(json_text("\xef\xbb\xbf") == "\"\\ufeff\"");
    CHECK(json_text("\x1b[2J") == "\"\\u001b[2J\"");
}

TEST_CASE("bytes that are not UTF-8 are shown, told and can be read back") {
    for (const std::string text : {"\xff", "caf\xe9", "\xc3", "\xc3(", "\xc0\xaf", "\xe0\x80\xaf",
                                   "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80",
                                   "\x80", "back\\slash \xfe \\xfe", "\xe2\x82", "\xf0\x9f\x90"}) {
        std::string json;
        CHECK(append_json_text(json, text));
        INFO(json);
        CHECK(shows_only_printable(json));
        CHECK(unescaped(parsed(json)) == text);
    }
    CHECK(json_text("caf\xe9 \\") == R"("caf\\xe9 \\\\")");
}

TEST_CASE("random bytes never make a line that is not JSON, and never get lost") {
    std::mt19937 random(11);
    const std::string_view pieces[] = {"\xc3\xa9", "\\", "\"",   "\xe2\x80", "a",
                                       "\xf0\x9f", "\n", "\xff", "\xed\xa0"};
    for (int i = 0; i < 5'000; ++i) {
        std::string text;
        for (auto size = random() % 12; size > 0; --size)
            text += random() % 2 ? std::string(1, static_cast<char>(random()))
                                 : std::string(pieces[random() % std::size(pieces)]);
        std::string json;
        const bool escaped = append_json_text(json, text);
        const std::string back = parsed(json);
        REQUIRE((escaped ? unescaped(back) : back) == text);
        REQUIRE(shows_only_printable(json));
    }
}

TEST_CASE("a line tells all of a record") {
    Record record;
    record.time = std::chrono::sys_days(std::chrono::year(2026) / 2 / 3) +
                  std::chrono::microseconds(3'723'000'004);
    record.session = 17;
    record.number = 3;
    record.user = "clerk";
    record.database = "shop";
    record.client = "10.0.0.7:5123";
    record.application = "psql";
    record.protocol = "simple";
    record.statement = "DELETE FROM \"orders\";\n-- \xe2\x82\xac";
    record.fingerprint = 0xfedcba9876543210;
    record.command = "DELETE";
    record.classes = {"WRITE", "FUNCTION"};
    record.relations = {"public.orders"};
    record.decision = "block";
    record.rule = "no-unbounded-writes";
    record.reason = "no WHERE";
    const ChainPoint after{41, std::string(64, 'a')};
    const std::string line = make_line(record, after, 1000);
    const boost::json::object object = boost::json::parse(line).as_object();
    CHECK(object.at("seq").as_int64() == 42);
    CHECK(object.at("prev").as_string() == after.hash);
    CHECK(object.at("event").as_string() == "decision");
    CHECK(object.at("time").as_string() == "2026-02-03T01:02:03.000004Z");
    CHECK(object.at("session").as_int64() == 17);
    CHECK(object.at("number").as_int64() == 3);
    CHECK(object.at("user").as_string() == "clerk");
    CHECK(object.at("database").as_string() == "shop");
    CHECK(object.at("client").as_string() == "10.0.0.7:5123");
    CHECK(object.at("application").as_string() == "psql");
    CHECK(object.at("protocol").as_string() == "simple");
    CHECK(object.at("statement").as_string() == record.statement);
    CHECK(object.at("fingerprint").as_string() == "fedcba9876543210");
    CHECK(object.at("command").as_string() == "DELETE");
    CHECK(object.at("classes") == boost::json::value{"WRITE", "FUNCTION"});
    CHECK(object.at("relations").as_array().size() == 1);
    CHECK(object.at("decision").as_string() == "block");
    CHECK(object.at("observed").as_bool() == false);
    CHECK(object.at("rule").as_string() == "no-unbounded-writes");
    CHECK(object.at("reason").as_string() == "no WHERE");
    CHECK_FALSE(object.contains("escaped"));
    CHECK_FALSE(object.contains("shortened"));
    CHECK_FALSE(object.contains("statement_bytes"));
    const auto place = read_place(line);
    REQUIRE(place);
    CHECK(place->seq == 42);
    CHECK(place->prev == after.hash);
}

TEST_CASE("a line tells what came of a statement, and shows no text of it") {
    Record record;
    record.session = 17;
    record.number = 3;
    record.user = "clerk";
    record.protocol = "simple";
    record.statement = "secret";
    record.relations = {"secret"};
    record.decision = "allow";
    record.rule = "note";
    record.command = "INSERT";
    record.fingerprint = 7;
    record.outcome = "completed";
    record.done.emplace();
    const auto object = [&] {
        const std::string line = make_line(record, {}, 1000);
        CHECK_THAT(line, !ContainsSubstring("secret"));
        return boost::json::parse(line).as_object();
    };
    boost::json::object bare = object();
    CHECK(bare.at("event").as_string() == "done");
    CHECK(bare.at("number").as_int64() == 3);
    CHECK(bare.at("outcome").as_string() == "completed");
    for (const char* name : {"sqlstate", "tag", "rows", "duration_us", "ended", "transaction"}) {
        INFO(name);
        CHECK_FALSE(bare.contains(name));
    }
    record.done = {"23505", "INSERT 0 5", 5, std::chrono::microseconds(1234), "committed"};
    record.transaction = 2;
    const boost::json::object full = object();
    CHECK(full.at("sqlstate").as_string() == "23505");
    CHECK(full.at("tag").as_string() == "INSERT 0 5");
    CHECK(full.at("rows").as_int64() == 5);
    CHECK(full.at("duration_us").as_int64() == 1234);
    CHECK(full.at("ended").as_string() == "committed");
    CHECK(full.at("transaction").as_int64() == 2);
    CHECK(full.at("decision").as_string() == "allow");
    CHECK(full.at("rule").as_string() == "note");
    CHECK(full.at("command").as_string() == "INSERT");
    CHECK(full.at("fingerprint").as_string() == "0000000000000007");
}

TEST_CASE("a line tells how a transaction block ended") {
    Record record;
    record.session = 17;
    record.transaction = 2;
    record.transaction_statements = 4;
    record.outcome = "committed";
    const auto object = boost::json::parse(make_line(record, {}, 1000)).as_object();
    CHECK(object.at("event").as_string() == "transaction");
    CHECK(object.at("transaction").as_int64() == 2);
    CHECK(object.at("statements").as_int64() == 4);
    CHECK(object.at("outcome").as_string() == "committed");
    CHECK_FALSE(object.contains("decision"));
    CHECK_FALSE(object.contains("number"));
}

TEST_CASE("a long statement is cut between characters, and its length and hash are told") {
    Record record;
    record.statement = "0123456789\xe2\x82\xac and more";
    for (const std::size_t limit : {10, 11, 12}) {
        const auto object = boost::json::parse(make_line(record, {}, limit)).as_object();
        CHECK(object.at("statement").as_string() == "0123456789");
        CHECK(object.at("statement_bytes").as_int64() == 22);
        CHECK(object.at("statement_sha256").as_string() == sha_256_hex(record.statement).c_str());
        CHECK(object.at("shortened").as_array().at(0).as_string() == "statement");
        CHECK_FALSE(object.contains("escaped"));
    }
    const auto object = boost::json::parse(make_line(record, {}, 13)).as_object();
    CHECK(object.at("statement").as_string() == "0123456789\xe2\x82\xac");
    CHECK_FALSE(boost::json::parse(make_line(record, {}, 22)).as_object().contains("shortened"));

    record.statement = std::string(50, '\x80');
    const auto garbage = boost::json::parse(make_line(record, {}, 20)).as_object();
    CHECK(garbage.at("statement").as_string().size() == 20 * 4);
    CHECK(garbage.at("escaped").as_array().at(0).as_string() == "statement");
}

TEST_CASE("no field of a record makes a line without bounds") {
    Record record;
    record.user = std::string(100'000, 'u');
    record.relations.assign(10'000, "r");
    record.classes = {std::string(100'000, 'c')};
    const std::string line = make_line(record, {}, 1000);
    CHECK(line.size() < 40'000);
    const auto shortened = boost::json::parse(line).as_object().at("shortened").as_array();
    CHECK(shortened.size() == 3);
}

TEST_CASE("what is no line of an audit log has no place in the chain") {
    const std::string hash(64, '0');
    CHECK(read_place("{\"seq\":1,\"prev\":\"" + hash + "\"}"));
    for (const std::string& line :
         {std::string(), std::string("{}"), "{\"seq\":0,\"prev\":\"" + hash + "\"}",
          "{\"seq\":-1,\"prev\":\"" + hash + "\"}", "{\"seq\":\"1\",\"prev\":\"" + hash + "\"}",
          "{\"seq\":1.5,\"prev\":\"" + hash + "\"}", "{\"seq\":1,\"prev\":\"" + hash + "0\"}",
          "{\"seq\":1,\"prev\":\"" + hash.substr(1) + "G\"}", std::string("{\"seq\":1,\"prev\":7}"),
          "{\"seq\":1,\"prev\":\"" + hash + "\"} x", "[1]" + hash, std::string(5, '\0'),
          std::string(100'000, '[')}) {
        INFO(line.substr(0, 100));
        CHECK_FALSE(read_place(line));
    }
}

TEST_CASE("a point of the chain can be written down and read back") {
    const ChainPoint point{7, sha_256_hex("x")};
    CHECK(parse_chain_point(to_text(point)) == point);
    for (const char* text : {"", "7", "7:", ":", "7:00", "x:0", "-1:0"})
        CHECK_FALSE(parse_chain_point(text));
    CHECK(sha_256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
