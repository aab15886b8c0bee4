#include "proxy/session/inlet.h"

#include "support/catch.h"

using pgchaperone::session::Inlet;

namespace {

std::string taken(Inlet& inlet) {
    std::string out;
    while (auto bytes = inlet.take_output()) out += bytes->bytes();
    return out;
}

}  // namespace

TEST_CASE("what is forwarded leaves as one run without a copy") {
    Inlet inlet;
    const std::string chunk = "abcdef";
    inlet.give(chunk);
    inlet.forward(2);
    inlet.forward(3);
    const auto run = inlet.take_output();
    REQUIRE(run);
    CHECK(run->view.data() == chunk.data());
    CHECK(run->view == "abcde");
    CHECK_FALSE(inlet.take_output());
    inlet.settle();
    CHECK(inlet.available() == 1);
}

TEST_CASE("what is inserted stands where it was inserted") {
    Inlet inlet;
    const std::string chunk = "abcdef";
    inlet.give(chunk);
    inlet.forward(2);
    inlet.insert("--");
    inlet.discard(2);
    inlet.forward(2);
    CHECK(taken(inlet) == "ab--ef");
}

TEST_CASE("a piece that straddles chunks comes in one piece") {
    Inlet inlet;
    {
        const std::string first = "xxab";
        inlet.give(first);
        inlet.forward(2);
        CHECK_FALSE(inlet.peek(4));
        CHECK(taken(inlet) == "xx");
        inlet.settle();
    }
    const std::string second = "cdyy";
    inlet.give(second);
    const auto piece = inlet.peek(4);
    REQUIRE(piece);
    CHECK(*piece == "abcd");
    inlet.forward(4);
    inlet.forward(2);
    CHECK(taken(inlet) == "abcdyy");
}

TEST_CASE("held bytes that are on their way survive a longer peek") {
    Inlet inlet;
    {
        const std::string first = "abc";
        inlet.give(first);
        inlet.settle();
    }
    const std::string second = std::string(100, 'd');
    inlet.give(second);
    inlet.forward(2);
    REQUIRE(inlet.peek(50));  // moves what is held while "ab" has not been taken
    inlet.forward(50);
    CHECK(taken(inlet) == "abc" + std::string(49, 'd'));
}
