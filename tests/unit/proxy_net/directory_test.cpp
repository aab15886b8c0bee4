#include "proxy/net/directory.h"
#include "support/catch.h"

using namespace pgchaperone::net;

namespace {

std::string key(char process, const std::string& secret) {
    return std::string("\0\0\0", 3) + process + secret;
}

}  // namespace

TEST_CASE("a cancel key is found as a whole, and only while its session is there") {
    Directory directory;
    directory.know_key(key(7, "secret"), {1, nullptr});
    directory.know_key(key(7, "SECRET"), {2, nullptr});  // of another server
    directory.know_key(key(8, std::string(256, 'x')), {3, nullptr});
    REQUIRE(directory.find_key(key(7, "secret")));
    CHECK(directory.find_key(key(7, "secret"))->session == 1);
    CHECK(directory.find_key(key(7, "SECRET"))->session == 2);
    CHECK(directory.find_key(key(8, std::string(256, 'x')))->session == 3);
    for (const std::string& wrong : {key(7, "secre"), key(7, "secrets"), key(7, ""),
                                     key(9, "secret"), std::string("\0\0", 2), std::string()}) {
        CHECK_FALSE(directory.find_key(wrong));
    }
    directory.left(1);
    CHECK_FALSE(directory.find_key(key(7, "secret")));
    CHECK(directory.find_key(key(7, "SECRET")));
    directory.left(1);
    directory.left(4);
}

TEST_CASE("a session has one cancel key, the first") {
    Directory directory;
    directory.know_key(key(7, "first"), {1, nullptr});
    directory.know_key(key(7, "second"), {1, nullptr});
    CHECK(directory.find_key(key(7, "first")));
    CHECK_FALSE(directory.find_key(key(7, "second")));
    directory.know_key(key(9, ""), {2, nullptr});  // without a secret anybody could guess it
    CHECK_FALSE(directory.find_key(key(9, "")));
}

TEST_CASE("what is put for a session takes the place of what was there") {
    Directory directory;
    directory.put({2, "bob", "shop", "::1", "psql", false, {}, ""});
    directory.put({1, "clerk", "shop", "::1", "psql", false, {}, ""});
    directory.put({1, "clerk", "shop", "::1", "psql", false, {}, "K7"});
    const auto all = directory.all();
    REQUIRE(all.size() == 2);
    CHECK(all[0].ticket == "K7");
    CHECK(all[1].user == "bob");
}

TEST_CASE("sessions are counted for each server") {
    Directory directory;
    directory.put({1, "clerk", "shop", "::1", "psql", false, {}, "K7"});
    directory.put({2, "clerk", "shop", "::1", "psql", false, {}, "", "billing"});
    directory.put({3, "bob", "shop", "::1", "psql", false, {}, "B1", "billing"});
    CHECK(directory.size("").sessions == 1);
    CHECK(directory.size("").held == 1);
    CHECK(directory.size("billing").sessions == 2);
    CHECK(directory.size("billing").held == 1);
    CHECK(directory.size("agents").sessions == 0);
}
