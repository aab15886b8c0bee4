// The expected signatures come from Python's hmac and base64.
#include "webhook/signature.h"

#include "support/catch.h"

using namespace pgchaperone::webhook;
using std::chrono::seconds;

namespace {
const std::string plain = "0123456789abcdef";
constexpr const char* by_plain = "v1,51pbgbBk3k/DNeNksUnHz6hX9HARroRrBzrDBubmVyc=";
constexpr const char* by_bytes = "v1,98lRv3DMhsqkNfkBcH5TfOcxo+3oreISytDBJLAo1mM=";
constexpr const char* secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
}  // namespace

TEST_CASE("a message is signed as Standard Webhooks says") {
    CHECK(signature({plain}, "msg_1", seconds(1763712000), R"({"a":1})") == by_plain);
    CHECK(signature({*key_of(secret)}, "msg_1", seconds(1763712000), R"({"a":1})") == by_bytes);
    CHECK(signature({plain}, "msg_1", seconds(1763712000), "") ==
          "v1,pQ5N3TCTLYeSU1OzH/OpdSkwwYwSAVb2IsX3m6odY0w=");
    CHECK(signature({}, "msg_1", seconds(1763712000), "") == "");
}

TEST_CASE("several secrets sign one message, in their order") {
    CHECK(signature({plain, *key_of(secret)}, "msg_1", seconds(1763712000), R"({"a":1})") ==
          std::string(by_plain) + " " + by_bytes);
}

TEST_CASE("a secret is plain text, or whsec_ and Base64 with padding or without") {
    CHECK(key_of(plain) == plain);
    std::string bytes;
    for (char c = 0; c < 32; ++c) bytes += c;
    CHECK(key_of(secret) == bytes);
    CHECK(key_of("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8") == bytes);
    CHECK(key_of("whsec_YWI=") == "ab");
    for (const char* wrong : {"", "whsec_", "whsec_a", "whsec_a b=", "whsec_YW-_", "whsec_===="})
        CHECK(key_of(wrong) == std::nullopt);
}
