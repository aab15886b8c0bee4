#include "policy/rule_pattern.h"
#include "policy/rule_regex.h"
#include "support/catch.h"

using namespace pgchaperone::policy;

namespace {

Truth match(const char* pattern, const char* schema, const char* name,
            const std::vector<std::string>* path = nullptr) {
    const auto parsed = NamePattern::parse(pattern);
    INFO(pattern);
    REQUIRE(parsed.has_value());
    return parsed->matches("", schema, name, path);
}

bool contains(const char* network, const char* address) {
    return Network::parse(network)->contains(*parse_client_address(address));
}

}  // namespace

TEST_CASE("a glob matches whole texts, and its wildcards stand for anything") {
    CHECK(Glob("abc").matches("abc"));
    CHECK_FALSE(Glob("abc").matches("abcd"));
    CHECK_FALSE(Glob("abc").matches("ABC"));
    CHECK(Glob("*").matches(""));
    CHECK(Glob("dba_*").matches("dba_"));
    CHECK(Glob("dba_*").matches("dba_anna"));
    CHECK_FALSE(Glob("dba_*").matches("xdba_anna"));
    CHECK(Glob("a*b*c").matches("aXbYbZc"));
    CHECK_FALSE(Glob("a*b*c").matches("aXbYbZ"));
    CHECK(Glob("?x").matches("ax"));
    CHECK_FALSE(Glob("?x").matches("x"));
    CHECK(Glob("*a").matches("*a"));
    CHECK(Glob("DROP *", Glob::Case::folded).matches("Drop table"));
}

TEST_CASE("a glob with many stars stays fast on a long text that almost matches") {
    const std::string text(20'000, 'a');
    CHECK_FALSE(Glob("*a*a*a*a*a*a*a*a*b").matches(text));
}

TEST_CASE("a name that stands for a whole schema may stand for each relation in it") {
    const std::vector<std::string> path{"public"};
    CHECK(match("hr.*", "hr", "") == Truth::yes);
    CHECK(match("hr.*", "sales", "") == Truth::no);
    CHECK(match("hr.pay", "hr", "") == Truth::maybe);
    CHECK(match("hr.pay", "sales", "") == Truth::no);
    CHECK(match("pay", "hr", "") == Truth::maybe);
    CHECK(match("*", "hr", "") == Truth::yes);
    CHECK(match("*.pay", "hr", "") == Truth::maybe);
    CHECK(match("hr.*", "", "", &path) == Truth::maybe);
    CHECK(match("pay", "", "", &path) == Truth::maybe);
    CHECK(match("*", "", "", &path) == Truth::yes);
    CHECK(match("*.*", "", "", &path) == Truth::yes);
}

TEST_CASE("one glob covers another only where it surely matches all that the other does") {
    CHECK(Glob("*").covers(Glob("dba_*")));
    CHECK(Glob("dba_*").covers(Glob("dba_anna")));
    CHECK(Glob("dba_*").covers(Glob("dba_a*")));
    CHECK_FALSE(Glob("dba_a*").covers(Glob("dba_*")));
    CHECK_FALSE(Glob("?").covers(Glob("*")));
    CHECK_FALSE(Glob("a").covers(Glob("?")));
}

TEST_CASE("names fold as PostgreSQL folds them, and quotes keep them as they are") {
    CHECK(match("Orders", "", "orders") == Truth::yes);
    CHECK(match("Orders", "", "Orders") == Truth::no);
    CHECK(match("\"Orders\"", "", "Orders") == Truth::yes);
    CHECK(match("\"Orders\"", "", "orders") == Truth::no);
    CHECK(match("\"a*\"", "", "abc") == Truth::no);
    CHECK(match("\"a*\"", "", "a*") == Truth::yes);
    CHECK(match("\"Order\"*", "", "OrderItems") == Truth::yes);
    CHECK(match("\"we\"\"ird\"", "", "we\"ird") == Truth::yes);
}

TEST_CASE("a pattern without schema matches in every schema, one with a schema only there") {
    CHECK(match("orders", "archive", "orders") == Truth::yes);
    CHECK(match("public.orders", "public", "orders") == Truth::yes);
    CHECK(match("public.orders", "archive", "orders") == Truth::no);
    CHECK(match("*.orders", "archive", "orders") == Truth::yes);
    CHECK(match("*.orders", "", "orders") == Truth::yes);
    CHECK(match("shop.public.orders", "public", "orders") == Truth::yes);
}

TEST_CASE(
    "what an unqualified name means comes from the search_path where it is known, and is open "
    "where not") {
    const std::vector<std::string> one = {"public"}, other = {"archive"},
                                   both = {"archive", "public"};
    CHECK(match("public.orders", "", "orders") == Truth::maybe);
    CHECK(match("public.orders", "", "orders", &one) == Truth::yes);
    CHECK(match("public.orders", "", "orders", &other) == Truth::no);
    CHECK(match("public.orders", "", "orders", &both) == Truth::maybe);
    CHECK(match("public.orders", "", "customers") == Truth::no);
}

TEST_CASE("names that can't be meant are refused with a reason") {
    for (const char* wrong : {"a.b.c.d", "a..b", "\"open", "a b", "a,b", "f()", "", "."}) {
        INFO(wrong);
        CHECK_FALSE(NamePattern::parse(wrong).has_value());
    }
}

TEST_CASE("networks contain addresses of their own family and IPv4 written as IPv6") {
    CHECK(contains("10.0.0.0/8", "10.255.1.2"));
    CHECK_FALSE(contains("10.0.0.0/8", "11.0.0.1"));
    CHECK(contains("10.1.2.3", "10.1.2.3"));
    CHECK_FALSE(contains("10.1.2.3", "10.1.2.4"));
    CHECK(contains("0.0.0.0/0", "1.2.3.4"));
    CHECK_FALSE(contains("0.0.0.0/0", "fd00::1"));
    CHECK(contains("10.0.0.0/8", "::ffff:10.1.1.1"));
    CHECK(contains("fd00::/8", "fd12::1"));
    CHECK_FALSE(contains("fd00::/8", "fe80::1"));
    CHECK(contains("local", "local"));
    CHECK_FALSE(contains("local", "127.0.0.1"));
    CHECK_FALSE(contains("::/0", "local"));
    CHECK(contains("192.168.4.0/22", "192.168.7.255"));
    CHECK_FALSE(contains("192.168.4.0/22", "192.168.8.0"));
}

TEST_CASE("networks that can't be meant are refused with a reason") {
    for (const char* wrong : {"10.0.0.1/8", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/", "fd00::/129",
                              "example.com", "", "10.0.0.0/-1"}) {
        INFO(wrong);
        CHECK_FALSE(Network::parse(wrong).has_value());
    }
}

TEST_CASE("a regular expression finds its text anywhere, also behind bytes that are not UTF-8") {
    const auto regex = Regex::parse("(?i)drop\\s+table");
    REQUIRE(regex.has_value());
    CHECK(regex->found_in("please DROP   TABLE x"));
    CHECK(regex->found_in("\xff\xfe drop table x"));
    CHECK_FALSE(regex->found_in("drop the table"));
    CHECK_FALSE(Regex::parse("(unclosed").has_value());
    CHECK_FALSE(Regex::parse("(a)\\1").has_value());
}

TEST_CASE("a regular expression that would explode elsewhere stays linear") {
    const auto regex = Regex::parse("(a+)+$");
    REQUIRE(regex.has_value());
    CHECK_FALSE(regex->found_in(std::string(200'000, 'a') + "b"));
}
