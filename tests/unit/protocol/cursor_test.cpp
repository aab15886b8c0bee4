#include "bytes.h"

#include "protocol/cursor.h"
#include "support/catch.h"

namespace pgchaperone::protocol {

using pgchaperone::test::bytes;
using pgchaperone::test::Exact;

TEST_CASE("integers are big-endian and signed") {
    const std::string data = bytes("80 fffe 80000001 ffff");
    Reader in{data};
    CHECK(in.int8() == -128);
    CHECK(in.int16() == -2);
    CHECK(in.int32() == -2147483647);
    CHECK(in.count16() == 65535);
    CHECK(in.ok());
    CHECK(in.remaining() == 0);
}

TEST_CASE("a reader fails once, keeps the first reason, and reads nothing after") {
    const Exact data{bytes("01 02 03")};
    Reader in{data.view()};
    CHECK(in.int32() == 0);
    CHECK_FALSE(in.ok());
    CHECK(in.error() == Error::truncated);
    CHECK(in.remaining() == 0);
    CHECK(in.int8() == 0);
    CHECK(in.string().empty());
    CHECK(in.rest().empty());
    CHECK_FALSE(in.value().has_value());
    CHECK(in.error() == Error::truncated);
}

TEST_CASE("a string needs its zero byte") {
    const Exact data{"abc"};
    Reader in{data.view()};
    CHECK(in.string().empty());
    CHECK(in.error() == Error::unterminated_string);
}

TEST_CASE("a value of length -1 is NULL, of 0 is empty, and of anything below -1 is an error") {
    CHECK(Reader{bytes("ffffffff")}.value() == std::nullopt);
    const std::string empty_value = bytes("00000000");
    CHECK(Reader{empty_value}.value() == std::string_view{});
    for (const char* bad : {"fffffffe 00", "80000000 00", "80000004 00000000"}) {
        const Exact data{bytes(bad)};
        Reader in{data.view()};
        in.value();
        CHECK(in.error() == Error::invalid_value_length);
    }
    const Exact data{bytes("7fffffff 00")};
    Reader in{data.view()};
    in.value();
    CHECK(in.error() == Error::truncated);
}

TEST_CASE("a byte count near the largest number does not wrap") {
    const Exact data{"abc"};
    Reader in{data.view()};
    in.byte1();
    CHECK(in.bytes(SIZE_MAX).empty());
    CHECK(in.error() == Error::truncated);
}

TEST_CASE("a writer refuses what a reader would read otherwise") {
    std::string out;
    Writer zero{out};
    zero.string(std::string_view{"a\0b", 3});
    CHECK(zero.error() == Error::embedded_zero);

    Writer many{out};
    many.count16(65'536);
    CHECK(many.error() == Error::too_many_elements);
}

}  // namespace pgchaperone::protocol
