#include "bytes.h"

#include "protocol/head.h"
#include "support/catch.h"

namespace pgchaperone::protocol {

using pgchaperone::test::bytes;

namespace {

std::string head_of(char tag, std::uint32_t length) {
    std::string head{tag};
    for (int shift = 24; shift >= 0; shift -= 8) head += static_cast<char>(length >> shift & 0xFF);
    return head;
}

}  // namespace

TEST_CASE("a head is a tag and a length, and what follows is not looked at") {
    const Result<Head> head = read_head(bytes("51 0000000d") + "anything", Side::frontend);
    REQUIRE(head.has_value());
    CHECK(head->tag == 'Q');
    CHECK(head->length == 13);
    CHECK(head->total() == 14);
    CHECK(head->body_size() == 9);
}

TEST_CASE("fewer than five bytes are no head yet") {
    const std::string sync = bytes("53 00000004");
    for (std::size_t n = 0; n < sync.size(); ++n) {
        const pgchaperone::test::Exact exact{std::string_view{sync}.substr(0, n)};
        CHECK(read_head(exact.view(), Side::frontend).error() == Error::truncated);
    }
    CHECK(read_head(sync, Side::frontend).has_value());
}

TEST_CASE("a length is refused below 4, above its kind's limit, and where it is negative") {
    for (const MessageKind& kind : catalog) {
        INFO(kind.name);
        const auto limit = static_cast<std::uint32_t>(kind.max_length);
        for (const std::uint32_t good : {4U, 5U, limit}) {
            const Result<Head> head = read_head(head_of(kind.tag, good), kind.side);
            REQUIRE(head.has_value());
            CHECK(head->total() == good + 1U);
        }
        for (const std::uint32_t bad :
             {0U, 1U, 3U, limit + 1, 0x7FFFFFFFU, 0x80000000U, 0x80000004U, 0xFFFFFFFFU}) {
            CHECK(read_head(head_of(kind.tag, bad), kind.side).error() == Error::invalid_length);
        }
    }
}

TEST_CASE("a tag of the other direction is unknown") {
    CHECK(read_head(head_of('Z', 5), Side::frontend).error() == Error::unknown_message);
    CHECK(read_head(head_of('Q', 5), Side::backend).error() == Error::unknown_message);
}

TEST_CASE("the plain-text error of a server that cannot fork is no message") {
    CHECK(read_head("Ecould not fork new process for connection", Side::backend).error() ==
          Error::invalid_length);
}

}  // namespace pgchaperone::protocol
