#include "bytes.h"

#include "protocol/startup.h"
#include "support/catch.h"
#include "support/messages.h"

namespace pgchaperone::protocol {

using pgchaperone::test::bytes;
using pgchaperone::test::Exact;
using pgchaperone::test::Random;
using Kind = StartupPacket::Kind;

namespace {

std::string packet(std::string_view body) {
    std::string out;
    Writer writer{out};
    writer.int32(static_cast<Int32>(body.size() + 4));
    writer.bytes(body);
    return out;
}

std::string startup_message(std::string_view parameters) {
    return packet(bytes("00030000") + std::string{parameters});
}

// Parses a packet that must be whole. Views in the result point into `input`.
StartupPacket parse(const std::string& input) {
    const Result<std::optional<StartupPacket>> result = parse_startup(input);
    REQUIRE(result.has_value());
    REQUIRE(result->has_value());
    return **result;
}

void check_error(std::string_view input, Error expected) {
    const Exact exact{input};
    const Result<std::optional<StartupPacket>> result = parse_startup(exact.view());
    REQUIRE_FALSE(result.has_value());
    CHECK(result.error() == expected);
}

bool needs_more(std::string_view input) {
    const Exact exact{input};
    const Result<std::optional<StartupPacket>> result = parse_startup(exact.view());
    return result.has_value() && !result->has_value();
}

}  // namespace

TEST_CASE("requests to encrypt are exactly eight bytes") {
    const std::string ssl = bytes("00000008 04d2162f");
    CHECK(parse(ssl).kind == Kind::ssl_request);
    CHECK(parse(bytes("00000008 04d21630")).kind == Kind::gssenc_request);
    check_error(bytes("00000009 04d2162f 00"), Error::invalid_length);
    check_error(bytes("0000000c 04d21630 00000000"), Error::invalid_length);
    // What came behind it too early is for the caller to see.
    CHECK(parse(ssl + "stuffed").size == 8);
}

TEST_CASE("a startup message gives version and parameters in order") {
    const std::string input = packet(
        bytes("00030002 'user' 00 'joe' 00 'options' 00 00 '_pq_.cmp' 00 '1' 00 00"));
    const std::string with_more = input + "Q";
    const StartupPacket found = parse(with_more);
    CHECK(found.kind == Kind::startup_message);
    CHECK(found.size == input.size());
    CHECK(found.startup.major() == 3);
    CHECK(found.startup.minor() == 2);
    CHECK(found.startup.parameters ==
          std::vector<StartupParameter>{{"user", "joe"}, {"options", ""}, {"_pq_.cmp", "1"}});
    CHECK(found.startup.find("user") == "joe");
    CHECK_FALSE(found.startup.find("database").has_value());
}

TEST_CASE("every part of a packet needs more, at every length") {
    const std::string input = startup_message(bytes("'user' 00 'joe' 00 00"));
    for (std::size_t n = 0; n < input.size(); ++n) {
        INFO(n);
        CHECK(needs_more(std::string_view{input}.substr(0, n)));
    }
    CHECK_FALSE(needs_more(input));
}

TEST_CASE("a length is refused as soon as it is there") {
    check_error(bytes("00000000"), Error::invalid_length);
    check_error(bytes("00000007"), Error::invalid_length);
    check_error(bytes("00002715"), Error::invalid_length);  // 10,005
    check_error(bytes("7fffffff"), Error::invalid_length);
    check_error(bytes("ffffffff"), Error::invalid_length);
    CHECK(needs_more(bytes("00002714")));  // 10,004: the server does not count the length word
    CHECK(needs_more(bytes("00000008")));
}

TEST_CASE("strangers are recognised at their first bytes") {
    check_error("G", Error::invalid_length);
    check_error("GET / HTTP/1.1\r\n", Error::invalid_length);
    check_error("SSH-2.0-OpenSSH", Error::invalid_length);
    check_error(bytes("00 01"), Error::invalid_length);
}

TEST_CASE("TLS without asking is told by its first byte") {
    const StartupPacket found = parse(bytes("16"));
    CHECK(found.kind == Kind::direct_tls);
    CHECK(found.size == 0);
}

TEST_CASE("a cancel request has a key of 4 to 256 bytes") {
    for (const std::size_t size : {4U, 5U, 32U, 256U}) {
        const std::string key(size, 'k');
        const std::string input = packet(bytes("04d2162e 000004d2") + key);
        const StartupPacket found = parse(input);
        CHECK(found.kind == Kind::cancel_request);
        CHECK(found.cancel.process_id == 1234);
        CHECK(found.cancel.secret_key == key);
    }
    for (const std::size_t size : {0U, 1U, 3U, 257U, 5000U}) {
        check_error(packet(bytes("04d2162e 000004d2") + std::string(size, 'k')),
                    Error::invalid_key_length);
    }
    check_error(packet(bytes("04d2162e 0004")), Error::truncated);
}

TEST_CASE("a startup message needs its terminator, and nothing behind it") {
    check_error(startup_message(""), Error::missing_terminator);
    check_error(startup_message(bytes("'user' 00 'joe' 00")), Error::missing_terminator);
    check_error(startup_message(bytes("'user' 00 'joe' 00 00 00")), Error::missing_terminator);
    check_error(startup_message(bytes("'user' 00 'joe' 00 00 'database' 00 'x' 00 00")),
                Error::missing_terminator);
    check_error(startup_message(bytes("'user' 00 'joe'")), Error::unterminated_string);
    check_error(startup_message(bytes("'user' 00")), Error::unterminated_string);
    check_error(startup_message(bytes("'user'")), Error::unterminated_string);
    // No parameters at all: well-formed, and the server's to complain about.
    CHECK(parse(startup_message(bytes("00"))).startup.parameters.empty());
}

TEST_CASE("user and database are given once") {
    check_error(startup_message(bytes("'user' 00 'a' 00 'user' 00 'b' 00 00")),
                Error::duplicate_parameter);
    check_error(
        startup_message(bytes("'database' 00 'a' 00 'user' 00 'b' 00 'database' 00 'a' 00 00")),
        Error::duplicate_parameter);
    const std::string twice = startup_message(
        bytes("'DateStyle' 00 'a' 00 'DateStyle' 00 'b' 00 00"));
    CHECK(parse(twice).startup.find("DateStyle") == "b");
}

TEST_CASE("another major version is named, and its layout not guessed") {
    const StartupPacket old = parse(packet(bytes("00020000") + std::string(288, 'x')));
    CHECK(old.kind == Kind::unsupported_version);
    CHECK(old.startup.major() == 2);
    CHECK(parse(packet(bytes("04d21631"))).startup.minor() == 5681);
    CHECK(parse(packet(bytes("ffffffff"))).startup.major() == 0xFFFF);
}

TEST_CASE("corrupted startup packets are refused or read within their bounds") {
    for (std::uint64_t seed = 1; seed <= 2000; ++seed) {
        INFO("seed " << seed);
        Random random{seed};
        std::string input = pgchaperone::test::random_message_of<StartupPackets>(random);
        for (std::size_t n = random.below(4); n > 0; --n) {
            input[random.below(input.size())] = random.bytes(1)[0];
        }
        input.resize(random.one_in(3) ? random.below(input.size() + 1) : input.size());
        const Exact exact{input};
        const Result<std::optional<StartupPacket>> result = parse_startup(exact.view());
        if (!result || !*result) continue;
        CHECK((*result)->size <= input.size());
    }
}

TEST_CASE("replication is recognised in every spelling that the server takes") {
    const auto with = [](std::vector<StartupParameter> parameters) {
        return replication_of(StartupMessage{3 << 16, std::move(parameters)});
    };
    for (const char* on : {"true", "TRUE", "t", "tr", "yes", "Y", "on", "oN", "1"}) {
        INFO(on);
        CHECK(with({{"replication", on}}) == Replication::physical);
    }
    for (const char* off : {"false", "F", "fals", "no", "N", "off", "OF", "0"}) {
        INFO(off);
        CHECK(with({{"replication", off}}) == Replication::no);
    }
    for (const char* bad : {"", "o", "2", "truex", "Database", "database ", " true", "yess"}) {
        INFO(bad);
        CHECK(with({{"replication", bad}}) == Replication::invalid);
    }
    CHECK(with({{"replication", "database"}}) == Replication::logical);
    CHECK(with({{"user", "true"}}) == Replication::no);
    CHECK(with({{"Replication", "true"}}) == Replication::no);
    CHECK(with({{"replication", "database"}, {"replication", "true"}}) == Replication::logical);
    CHECK(with({{"replication", "true"}, {"replication", "off"}}) == Replication::no);
}

}  // namespace pgchaperone::protocol
