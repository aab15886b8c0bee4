#include "bytes.h"

#include "protocol/dumper.h"
#include "protocol/head.h"
#include "support/catch.h"
#include "support/messages.h"

#include <algorithm>

namespace pgchaperone::protocol {

using Catch::Matchers::ContainsSubstring;
using pgchaperone::test::bytes;
using pgchaperone::test::Exact;
using pgchaperone::test::Random;
using pgchaperone::test::random_message_of;

namespace {

using Lines = std::vector<std::string>;  // each with its offset in front

struct Recorder {
    Lines lines;
    StreamDumper::Sink sink() {
        return [this](std::uint64_t offset, std::string_view line) {
            lines.push_back(std::to_string(offset) + " " + std::string{line});
        };
    }
};

// Feeds all at once, or in random pieces.
Lines lines_of(Side side, std::string_view stream, Random* random = nullptr) {
    Recorder recorder;
    StreamDumper dumper{side, recorder.sink()};
    if (random == nullptr) {
        dumper.feed(stream);
    } else {
        const bool byte_by_byte = random->one_in(3);
        while (!stream.empty()) {
            const std::size_t n = byte_by_byte ? 1 : std::min(stream.size(), random->below(200));
            const Exact chunk{stream.substr(0, n)};
            dumper.feed(chunk.view());
            stream.remove_prefix(n);
        }
    }
    dumper.finish();
    return recorder.lines;
}

std::string random_stream(Side side, Random& random) {
    std::string stream;
    if (side == Side::frontend) {
        if (random.one_in(2)) stream += bytes("00000008 04d2162f");
        stream += bytes("00000012 00030000 'user' 00 'joe' 00 00");
    } else if (random.one_in(2)) {
        stream += 'N';
        stream += bytes("52 00000008 00000000");
    }
    for (std::size_t n = random.below(12); n > 0; --n) {
        stream += side == Side::frontend ? random_message_of<FrontendMessages>(random)
                                         : random_message_of<BackendMessages>(random);
    }
    return stream;
}

bool is_clean(std::string_view line) {
    return std::none_of(line.begin(), line.end(),
                        [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
}

}  // namespace

TEST_CASE("any chunking of a stream shows the same messages") {
    for (std::uint64_t seed = 1; seed <= 400; ++seed) {
        INFO("seed " << seed);
        Random random{seed};
        const Side side = random.one_in(2) ? Side::frontend : Side::backend;
        std::string stream = random_stream(side, random);
        if (random.one_in(3) && !stream.empty()) {
            stream[random.below(stream.size())] = random.bytes(1)[0];
        }
        const Lines whole = lines_of(side, stream);
        CHECK(lines_of(side, stream, &random) == whole);
    }
}

TEST_CASE("every whole message of a stream is shown at its offset") {
    for (std::uint64_t seed = 1; seed <= 200; ++seed) {
        INFO("seed " << seed);
        Random random{seed};
        std::string stream = bytes("52 00000008 00000000");
        Lines expected{"0 AuthenticationOk"};
        for (std::size_t n = random.below(10); n > 0; --n) {
            const std::string message = random_message_of<BackendMessages>(random);
            expected.push_back(std::to_string(stream.size()) + " " + dump(Side::backend, message));
            stream += message;
        }
        CHECK(lines_of(Side::backend, stream) == expected);
    }
}

TEST_CASE("garbage gives one clean line of bounded length") {
    for (std::uint64_t seed = 1; seed <= 3000; ++seed) {
        INFO("seed " << seed);
        Random random{seed};
        std::string input = random.one_in(2)   ? random.bytes(random.below(40))
                            : random.one_in(2) ? random_message_of<FrontendMessages>(random)
                                               : random_message_of<BackendMessages>(random);
        if (!input.empty()) input[random.below(input.size())] = random.bytes(1)[0];
        const Exact exact{input};
        for (const std::string& line :
             {dump(Side::frontend, exact.view()), dump(Side::backend, exact.view()),
              dump_startup(exact.view())}) {
            CHECK(is_clean(line));
            CHECK_FALSE(line.empty());
            CHECK(line.size() < 100'000);
        }
    }
}

TEST_CASE("what is wrong with a message is said, after what could be read") {
    CHECK(dump(Side::frontend, "") == "malformed: message ends too early");
    CHECK(dump(Side::frontend, "Q") == "malformed: message ends too early");
    CHECK(dump(Side::frontend, bytes("51 00000003 00")) ==
          "Query length=3 malformed: invalid message length");
    CHECK(dump(Side::frontend, bytes("7a 00000004")) == "tag='z' malformed: unknown message type");
    CHECK(dump(Side::frontend, bytes("45 0000000a 'port' 00 00")) ==
          R"(Execute portal="port" malformed: message ends too early)");
    CHECK(dump(Side::frontend, bytes("51 00000006 'ab'")) ==
          "Query malformed: string without its terminating zero byte");
    CHECK(dump(Side::backend, bytes("44 00000010 0002 00000002 '42' 00000009")) ==
          R"(DataRow columns=["42"] malformed: message ends too early)");
    CHECK(dump(Side::frontend, bytes("53 00000004 53")) ==
          "Sync malformed: bytes left over after the last field");
    CHECK(dump(Side::backend, bytes("52 00000008 00000063")) ==
          "Authentication code=99 malformed: unexpected request or authentication code");
    CHECK(dump(Side::frontend, bytes("64 0000000f 'cut'")) ==
          R"(CopyData data="cut" malformed: message ends too early)");
    CHECK(dump_startup(bytes("00000009 04d2162f 00")) ==
          "startup packet length=9 malformed: invalid message length");
    CHECK(dump_startup("GET / HTTP/1.1") == "startup packet malformed: invalid message length");
}

TEST_CASE("long texts and lists are cut and say how long they were") {
    const std::string query(1000, 'x');
    CHECK(dump(Side::frontend, encoded(Query{query})) ==
          "Query query=\"" + std::string(200, 'x') + "\"... (1000 bytes)");
    DataRow row;
    row.columns.assign(100, Value{"v"});
    CHECK_THAT(dump(Side::backend, encoded(row)), ContainsSubstring("\"v\", ... 68 more]"));
    CHECK_THAT(dump(Side::backend, encoded(CopyData{std::string(100, '\0')})),
               ContainsSubstring("00... (100 bytes)"));
}

TEST_CASE("text is shown as text, and nothing in it can command a terminal") {
    const auto shown = [](std::string_view text) {
        return dump(Side::frontend, encoded(Query{text}));
    };
    CHECK(shown("Grüße \xE2\x82\xAC") == "Query query=\"Grüße \xE2\x82\xAC\"");
    CHECK(shown("a\"b\\c\n\t\r") == R"(Query query="a\"b\\c\n\t\r")");
    CHECK(shown("\x1B[31m") == R"(Query query="\x1b[31m")");
    CHECK(shown("\xC2\x9B") == R"(Query query="\xc2\x9b")");          // CSI as a C1 character
    CHECK(shown("\xE2\x80\xAE") == R"(Query query="\xe2\x80\xae")");  // right-to-left override
    CHECK(shown("\xC0\xAF\xED\xA0\x80") ==
          R"(Query query="\xc0\xaf\xed\xa0\x80")");  // overlong, surrogate
}

TEST_CASE("secrets are not shown") {
    const std::string secret = "hunter2";
    std::vector<std::string> lines = {
        dump(Side::frontend, encoded(PasswordMessage{secret})),
        dump(Side::frontend, encoded(SASLResponse{secret})),
        dump(Side::frontend, encoded(GSSResponse{secret})),
        dump(Side::frontend, encoded(SASLInitialResponse{"SCRAM-SHA-256", secret})),
        dump(Side::frontend, bytes("70 0000000d 'hunter2' 00 00")),
        dump(Side::frontend, bytes("70 00000020 'hunter2'")),
        dump(Side::backend, encoded(AuthenticationSASLContinue{secret})),
        dump(Side::backend, encoded(AuthenticationSASLFinal{secret})),
        dump(Side::backend, encoded(AuthenticationGSSContinue{secret})),
        dump(Side::backend, encoded(BackendKeyData{1, secret})),
        dump_startup(encoded(CancelRequest{1, secret})),
    };
    for (const std::string& line : lines) {
        CHECK_THAT(line, !ContainsSubstring(secret));
        CHECK_THAT(line, !ContainsSubstring("68756e74"));
    }
}

TEST_CASE("a stream recorded from some later moment on is understood") {
    CHECK(lines_of(Side::frontend, bytes("53 00000004 58 00000004")) ==
          Lines{"0 Sync", "5 Terminate"});
    CHECK(lines_of(Side::backend, bytes("5a 00000005 'I'")) ==
          Lines{"0 ReadyForQuery transaction_status='I'"});
}

TEST_CASE("the answer to a request to encrypt is told from the message that looks like it") {
    CHECK(lines_of(Side::backend, "N") == Lines{"0 N: no encryption"});
    CHECK(lines_of(Side::backend, "NN" + bytes("52 00000008 00000000")) ==
          Lines{"0 N: no encryption", "1 N: no encryption", "2 AuthenticationOk"});
    CHECK(lines_of(Side::backend, bytes("4e 00000009 'Mhi' 00 00")) ==
          Lines{R"(0 NoticeResponse fields=['M' "hi"])"});
    CHECK(lines_of(Side::backend, bytes("'S' 16 03 03 0000")) ==
          Lines{"0 S: TLS, the rest is encrypted"});
    CHECK(lines_of(Side::backend, bytes("53 0000000a 'a' 00 'bcd' 00")).at(0) ==
          R"(0 ParameterStatus parameter="a" value="bcd")");
    CHECK(lines_of(Side::frontend, bytes("00000008 04d2162f 16 03 01")) ==
          Lines{"0 SSLRequest", "8 TLS handshake: the rest is encrypted"});
}

TEST_CASE("two sides together know what each answer belongs to") {
    Recorder frontend_lines;
    Recorder backend_lines;
    StreamDumper frontend{Side::frontend, frontend_lines.sink()};
    StreamDumper backend{Side::backend, backend_lines.sink()};
    StreamDumper::pair(frontend, backend);
    frontend.feed(bytes("00000008 04d21630"));
    backend.feed("N");
    frontend.feed(bytes("00000008 04d2162f"));
    backend.feed("S");
    frontend.feed("encrypted");
    backend.feed("encrypted too");
    frontend.finish();
    backend.finish();
    CHECK(frontend_lines.lines == Lines{"0 GSSENCRequest", "8 SSLRequest"});
    CHECK(backend_lines.lines == Lines{"0 N: no encryption", "1 S: TLS, the rest is encrypted"});
    CHECK_FALSE(frontend.malformed());
    CHECK_FALSE(backend.malformed());
}

TEST_CASE("a fault in the framing ends the reading and is placed") {
    Recorder recorder;
    StreamDumper dumper{Side::frontend, recorder.sink()};
    dumper.feed(bytes("53 00000004 00 53 00000004"));
    dumper.finish();
    CHECK(dumper.malformed());
    CHECK(dumper.malformed_offset() == 5);
    CHECK(recorder.lines == Lines{"0 Sync", R"(5 tag='\x00' malformed: unknown message type)"});
}

TEST_CASE("a fault inside a message does not hide the next one") {
    Recorder recorder;
    StreamDumper dumper{Side::frontend, recorder.sink()};
    dumper.feed(bytes("51 00000006 'ab' 53 00000004"));
    dumper.finish();
    CHECK(dumper.malformed());
    CHECK(dumper.malformed_offset() == 0);
    CHECK(recorder.lines.back() == "7 Sync");
}

TEST_CASE("a stream that ends inside a message says so") {
    CHECK(lines_of(Side::frontend, bytes("53 00000004 51 0000000d 'SEL'")).back() ==
          "5 end of stream after 8 bytes of Query malformed: message ends too early");
    CHECK(lines_of(Side::frontend, bytes("00000009 0003")).back() ==
          "0 end of stream inside a startup packet malformed: message ends too early");
    CHECK(lines_of(Side::frontend, bytes("53 0000")).back() ==
          "0 end of stream inside a message malformed: message ends too early");
}

TEST_CASE("nothing may follow a CancelRequest") {
    const std::string cancel = bytes("00000010 04d2162e 000004d2 deadbeef");
    CHECK(lines_of(Side::frontend, cancel).size() == 1);
    CHECK_THAT(lines_of(Side::frontend, cancel + "more").back(),
               ContainsSubstring("behind the last packet malformed"));
}

TEST_CASE("a message too long to show is named and skipped") {
    const std::uint32_t length = StreamDumper::max_shown + 100;
    std::string head = "d";
    for (int shift = 24; shift >= 0; shift -= 8) head += static_cast<char>(length >> shift & 0xFF);
    Recorder recorder;
    StreamDumper dumper{Side::frontend, recorder.sink()};
    dumper.feed(head);
    std::uint64_t left = length - 4;
    const std::string chunk(1 << 16, 'x');
    while (left > 0) {
        const std::size_t n = static_cast<std::size_t>(std::min<std::uint64_t>(left, chunk.size()));
        dumper.feed(std::string_view{chunk}.substr(0, n));
        left -= n;
    }
    dumper.feed(bytes("63 00000004"));
    dumper.finish();
    CHECK_FALSE(dumper.malformed());
    CHECK(recorder.lines ==
          Lines{"0 CopyData length=" + std::to_string(length) + " (too long to show)",
                std::to_string(std::uint64_t{length} + 1) + " CopyDone"});
}

}  // namespace pgchaperone::protocol
