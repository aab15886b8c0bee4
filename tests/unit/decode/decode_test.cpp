#include "cli/decode.h"
#include "support/catch.h"

#include <sstream>
#include <string>

namespace pgchaperone {

namespace {

struct Outcome {
    int status;
    std::string out;
    std::string err;
};

Outcome run(std::string input, std::optional<protocol::Side> side = std::nullopt) {
    std::istringstream in{std::move(input)};
    std::ostringstream out;
    std::ostringstream err;
    const int status = cli::decode(in, "FILE", side, out, err);
    return {status, out.str(), err.str()};
}

}  // namespace

TEST_CASE("both sides are shown in the order of the recording") {
    const Outcome outcome = run(R"(# a session
> 00000008 04d2162f
< 4e
> 00000012 00030000 "user" 00 "joe" 00 00
< 52 00000008 00000000 5a 00000005 "I"
> 51 0000000d "SELECT 1" 00

< 43 0000000d "SELECT 1"
< 00 5a0000000549
> 5800000004
)");
    CHECK(outcome.err.empty());
    CHECK(outcome.status == cli::decode_ok);
    CHECK(outcome.out == R"(>        0  SSLRequest
<        0  N: no encryption
>        8  StartupMessage protocol_version=3.0 parameters=["user" "joe"]
<        1  AuthenticationOk
<       10  ReadyForQuery transaction_status='I'
>       26  Query query="SELECT 1"
<       16  CommandComplete command_tag="SELECT 1"
<       30  ReadyForQuery transaction_status='I'
>       40  Terminate
)");
}

TEST_CASE("raw bytes of one side are shown with their offsets") {
    const Outcome outcome = run(std::string{"S\0\0\0\4X\0\0\0\4", 10}, protocol::Side::frontend);
    CHECK(outcome.status == cli::decode_ok);
    CHECK(outcome.out == "       0  Sync\n       5  Terminate\n");
}

TEST_CASE("raw bytes that begin with a startup packet need no side") {
    const Outcome outcome = run(std::string{"\0\0\0\10\4\xD2\x16\x2F", 8});
    CHECK(outcome.status == cli::decode_ok);
    CHECK(outcome.out == "       0  SSLRequest\n");
}

TEST_CASE("a malformed stream is shown up to the fault, which is named with its offset") {
    const Outcome outcome = run("> 53 00000004 2a 00000004\n");
    CHECK(outcome.status == cli::decode_malformed);
    CHECK(outcome.out == ">        0  Sync\n>        5  tag='*' malformed: unknown message type\n");
    CHECK(outcome.err == "pgchaperone decode: FILE: malformed at byte 5 of what the client sent\n");
}

TEST_CASE("a recording that ends inside a message is malformed") {
    const Outcome outcome = run("Z", protocol::Side::backend);
    CHECK(outcome.status == cli::decode_malformed);
    CHECK(outcome.err == "pgchaperone decode: FILE: malformed at byte 0 of what the server sent\n");
}

TEST_CASE("what is no recording is named with line and column") {
    CHECK(run("> 53 0g\n").err ==
          "pgchaperone decode: FILE:1:6: half a byte: two hex digits belong together\n");
    CHECK(run("> 53\n> zz\n").err ==
          "pgchaperone decode: FILE:2:3: neither a hex digit nor text in double quotes\n");
    CHECK(run("> 5\n").err ==
          "pgchaperone decode: FILE:1:3: half a byte: two hex digits belong together\n");
    CHECK(run("> \"abc\n").err == "pgchaperone decode: FILE:1:3: text without its closing quote\n");
    CHECK(run("# ok\nhello\n").err ==
          "pgchaperone decode: FILE:2:1: a line begins with '>', '<' or '#'\n");
    CHECK(run("> zz\n").status == cli::decode_trouble);
}

TEST_CASE("raw bytes of nobody knows whom are refused with the way out") {
    const Outcome outcome = run("Zzz");
    CHECK(outcome.status == cli::decode_trouble);
    CHECK_THAT(outcome.err, Catch::Matchers::ContainsSubstring("--side backend"));
}

TEST_CASE("an empty recording is shown as nothing") {
    CHECK(run("").status == cli::decode_ok);
    CHECK(run("", protocol::Side::backend).status == cli::decode_ok);
    CHECK(run("\n# nothing\n").out.empty());
}

}  // namespace pgchaperone
