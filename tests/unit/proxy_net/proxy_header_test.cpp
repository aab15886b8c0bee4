#include "proxy/net/proxy_header.h"
#include "support/catch.h"

#include <string>

using namespace pgchaperone;
using Catch::Matchers::ContainsSubstring;
using net::ProxyHeader;
using net::read_proxy_header;

namespace {

const std::string signature("\r\n\r\n\0\r\nQUIT\n", 12);

std::string header(char version_and_command, char family, const std::string& rest) {
    return signature + version_and_command + family + static_cast<char>(rest.size() >> 8) +
           static_cast<char>(rest.size() & 0xFF) + rest;
}

// 192.0.2.7:50000 to 198.51.100.1:5432
const std::string four("\xC0\x00\x02\x07\xC6\x33\x64\x01\xC3\x50\x15\x38", 12);
// 2001:db8::7 to 2001:db8::1
const std::string six = std::string("\x20\x01\x0D\xB8", 4) + std::string(11, '\0') + "\x07" +
                        std::string("\x20\x01\x0D\xB8", 4) + std::string(11, '\0') + "\x01" +
                        "\xC3\x50\x15\x38";

}  // namespace

TEST_CASE("a header says who the client is, and the rest is the client's") {
    const std::string bytes = header('\x21', '\x11', four) + "what follows";
    const ProxyHeader read = read_proxy_header(bytes);
    REQUIRE(read.complete);
    CHECK(bytes.substr(read.size) == "what follows");
    REQUIRE(read.source);
    CHECK(read.source->text == "192.0.2.7");
    CHECK_FALSE(read.source->local);
    // As an address that has come by itself.
    CHECK(read.source->bytes ==
          std::array<std::uint8_t, 16>{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, 7});
    const ProxyHeader v6 = read_proxy_header(header('\x21', '\x21', six));
    REQUIRE(v6.source);
    CHECK(v6.source->text == "2001:db8::7");
    // What else it says (TLS, names) is passed over.
    const ProxyHeader more = read_proxy_header(header('\x21', '\x11', four + "\x04" + "123456"));
    REQUIRE(more.source);
    CHECK(more.size == 16 + 12 + 7);
}

TEST_CASE("a load balancer that looks whether we are alive speaks for itself") {
    for (const std::string& bytes :
         {header('\x20', '\x00', ""), header('\x20', '\x11', four), header('\x21', '\x00', ""),
          header('\x21', '\x31', std::string(216, 'x'))}) {
        const ProxyHeader read = read_proxy_header(bytes);
        CHECK(read.complete);
        CHECK(read.size == bytes.size());
        CHECK_FALSE(read.source);
    }
}

TEST_CASE("a header that comes in pieces is waited for, and never taken for a whole one") {
    for (const std::string& bytes :
         {header('\x21', '\x11', four), header('\x21', '\x21', six + "more")}) {
        for (std::size_t size = 0; size < bytes.size(); ++size) {
            const ProxyHeader read = read_proxy_header(bytes.substr(0, size));
            CHECK_FALSE(read.complete);
            CHECK(read.wrong.empty());
        }
        CHECK(read_proxy_header(bytes).complete);
    }
}

TEST_CASE("version 1 is told as such, however it is cut") {
    const std::string line = "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n";
    for (std::size_t size = 1; size < 6; ++size) {
        const ProxyHeader read = read_proxy_header(line.substr(0, size));
        CHECK_FALSE(read.complete);
        CHECK(read.wrong.empty());
    }
    CHECK_THAT(read_proxy_header(line.substr(0, 6)).wrong, ContainsSubstring("version 1"));
    CHECK_THAT(read_proxy_header("PROXI").wrong, ContainsSubstring("no header"));
}

TEST_CASE("what is no header is told at once") {
    for (const auto& [bytes, words] :
         {std::pair(std::string("\0\0\0\x08\x04\xD2\x16\x2F", 8), "no header"),
          {std::string("\r\n\r\n\0\r\nQUIZ", 11), "no header"},
          {std::string("\x16\x03\x01"), "no header"},
          {std::string("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), "version 1"},
          {header('\x11', '\x11', four), "unknown version"},
          {header('\x22', '\x11', four), "unknown version"},
          {header('\x21', '\x12', four), "something else than TCP"},
          {header('\x21', '\x11', four.substr(0, 11)), "too short"},
          {header('\x21', '\x21', six.substr(0, 35)), "too short"},
          {header('\x21', '\x11', std::string(5000, 'x')).substr(0, 16), "5000 bytes"}}) {
        const ProxyHeader read = read_proxy_header(bytes);
        CHECK_FALSE(read.complete);
        CHECK_FALSE(read.source);
        CHECK_THAT(read.wrong, ContainsSubstring(words));
    }
}
