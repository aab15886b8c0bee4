#include "bytes.h"

#include "protocol/head.h"
#include "protocol/peek.h"
#include "support/catch.h"
#include "support/messages.h"

namespace pgchaperone::protocol {

using pgchaperone::test::bytes;
using pgchaperone::test::Exact;
using pgchaperone::test::Random;
using pgchaperone::test::random_message;

TEST_CASE("the head of a Bind is read as soon as its two strings are there") {
    const std::string body = bytes("'port' 00 'stmt' 00 0000 0001");
    for (std::size_t n = 0; n < body.size(); ++n) {
        const Exact part{std::string_view{body}.substr(0, n)};
        const Result<BindHead> head = peek_bind(part.view());
        INFO(n);
        REQUIRE(head.has_value() == (n >= 10));
        if (!head) continue;
        CHECK(head->portal == "port");
        CHECK(head->statement == "stmt");
        CHECK(head->size == 10);
    }
}

TEST_CASE("a peek at a Parse accepts exactly what a decode accepts") {
    for (std::uint64_t seed = 1; seed <= 300; ++seed) {
        INFO("seed " << seed);
        Random random{seed};
        std::string body = random_message<Parse>(random).substr(head_size);
        if (random.one_in(2)) body[random.below(body.size())] = random.bytes(1)[0];
        if (random.one_in(3)) body.resize(random.below(body.size() + 4));
        const Exact exact{body};
        const Result<Parse> whole = decode<Parse>(exact.view());
        const Result<ParseHead> head = peek_parse(exact.view());
        REQUIRE(head.has_value() == whole.has_value());
        if (!head) continue;
        CHECK(head->statement == whole->statement);
        CHECK(head->query == whole->query);
        CHECK(head->parameter_types.size() == 2 + 4 * whole->parameter_types.size());
    }
}

TEST_CASE("the SQLSTATE of an error is found without the fields behind it") {
    const std::string body = bytes("'SERROR' 00 'C42501' 00 'Mno'");
    CHECK(peek_error_field(body, 'C').value() == Value{"42501"});
    CHECK(peek_error_field(body, 'M').error() == Error::unterminated_string);
    const std::string whole = body + std::string(2, '\0');
    CHECK(peek_error_field(whole, 'M').value() == Value{"no"});
    CHECK(peek_error_field(whole, 'H').value() == Value{});
    CHECK(peek_error_field("", 'C').error() == Error::truncated);
    CHECK(peek_error_field("C", 'C').error() == Error::unterminated_string);
}

TEST_CASE("which authentication message it is") {
    CHECK(peek_authentication(bytes("0000000a 'x'")).value() == AuthenticationCode::SASL);
    CHECK(peek_authentication(bytes("00000063")).value() == AuthenticationCode{99});
    CHECK(peek_authentication(bytes("000000")).error() == Error::truncated);
}

TEST_CASE("the function of a FunctionCall") {
    CHECK(peek_function_oid(bytes("000003b9 0000")).value() == 953);
    CHECK(peek_function_oid(bytes("0003b9")).error() == Error::truncated);
}

TEST_CASE("the rows of a command tag are the number at its end") {
    CHECK(rows_of("INSERT 0 5") == 5U);
    CHECK(rows_of("UPDATE 0") == 0U);
    CHECK(rows_of("SELECT 18446744073709551615") == 18446744073709551615U);
    CHECK_FALSE(rows_of("SELECT 18446744073709551616").has_value());
    CHECK_FALSE(rows_of("CREATE TABLE").has_value());
    CHECK_FALSE(rows_of("BEGIN").has_value());
    CHECK_FALSE(rows_of("").has_value());
    CHECK_FALSE(rows_of("UPDATE ").has_value());
    CHECK_FALSE(rows_of("UPDATE -1").has_value());
    CHECK_FALSE(rows_of("UPDATE 1x").has_value());
}

TEST_CASE("the server knows a name by its first 63 bytes") {
    const std::string begin(63, 'n');
    CHECK(name_key(begin + "one") == name_key(begin + "two"));
    CHECK(name_key("short") == "short");
}

}  // namespace pgchaperone::protocol
