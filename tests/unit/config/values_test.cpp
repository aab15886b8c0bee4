#include "config/values.h"
#include "config/problems.h"
#include "support/catch.h"

#include <limits>

using namespace pgchaperone::config;

TEST_CASE("endpoints are read and written as people write them") {
    CHECK(*parse_endpoint("db.example.com:6543") == Endpoint{"db.example.com", 6543});
    CHECK(*parse_endpoint("db") == Endpoint{"db", 5432});
    CHECK(*parse_endpoint("[::1]:6432") == Endpoint{"::1", 6432});
    CHECK(*parse_endpoint("[fd00::1]") == Endpoint{"fd00::1", 5432});
    CHECK(*parse_endpoint("/var/run/postgresql:5433") == Endpoint{"/var/run/postgresql", 5433});
    CHECK(parse_endpoint("/tmp")->unix_socket());
    CHECK(Endpoint{"::1", 5432}.text() == "[::1]:5432");
    for (const char* wrong : {"", ":5432", "host:", "host:0", "host:65536", "host:5432x",
                              "::1:5432", "[::1", "a b:1", "[::1]5432", "5432", "5432:5432"}) {
        INFO(wrong);
        CHECK_FALSE(parse_endpoint(wrong).has_value());
    }
    CHECK(parse_endpoint("9187").error().message ==
          "\"9187\" names no host, only a number; write host:port, such as 127.0.0.1:9187");
}

TEST_CASE("durations need a unit and stay within a year") {
    using namespace std::chrono_literals;
    CHECK(*parse_duration("500ms") == 500ms);
    CHECK(*parse_duration("60s") == 60s);
    CHECK(*parse_duration("5m") == 5min);
    CHECK(*parse_duration("2 h") == 2h);
    CHECK(*parse_duration("0s") == 0s);
    for (const char* wrong :
         {"", "5", "s", "-1s", "1.5s", "5 weeks", "99999999999999999999s", "366d", "1s "}) {
        INFO(wrong);
        CHECK_FALSE(parse_duration(wrong).has_value());
    }
    for (const auto duration : {1ms, 1500ms, 60'000ms, 5'400'000ms, 0ms}) {
        CHECK(*parse_duration(duration_text(duration)) == duration);
    }
}

TEST_CASE("counts may be grouped and stay within their range") {
    CHECK(*parse_count("10_000", 0, 100'000) == 10'000);
    CHECK(*parse_count("1,000", 0, 100'000) == 1'000);
    CHECK_FALSE(parse_count("100001", 0, 100'000).has_value());
    CHECK_FALSE(parse_count("-1", 0, 10).has_value());
    CHECK_FALSE(parse_count("_1", 0, 10).has_value());
    CHECK_FALSE(parse_count("", 0, 10).has_value());
    CHECK_FALSE(parse_count("99999999999999999999", 0, std::numeric_limits<std::uint64_t>::max())
                    .has_value());
}

TEST_CASE("a mistyped word is answered by the nearest one, and nonsense by none") {
    const std::vector<std::string> words = {"unbounded", "unparsable", "client", "command"};
    CHECK(nearest("unbonded", words) == "unbounded");
    CHECK(nearest("comand", words) == "command");
    CHECK(nearest("Client", words) == "client");
    CHECK(nearest("xyzzy", words).empty());
    CHECK(nearest("", words).empty());
    CHECK(did_you_mean("clinet", words) == "did you mean \"client\"?");
}

TEST_CASE("sizes have PostgreSQL's units") {
    CHECK(*parse_size("0") == 0);
    CHECK(*parse_size("4096") == 4096);
    CHECK(*parse_size("64kB") == 65536);
    CHECK(*parse_size("100 MB") == 100ULL << 20);
    CHECK(*parse_size("2gb") == 2ULL << 30);
    CHECK(size_text(256ULL << 20) == "256MB");
    CHECK(size_text(1000) == "1000");
    CHECK(size_text(0) == "0");
    for (const char* text : {"", "MB", "1.5GB", "-1", "10 apples", "99999999999TB"})
        CHECK(parse_size(text).has_error());
}
