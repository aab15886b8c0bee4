// The session core under any bytes from both sides. What must hold whatever comes:
// - how the bytes are cut into chunks does not change what leaves;
// - every Query and Parse that leaves was judged, and was allowed;
// - what is kept stays bounded.
//
// The input is a conversation: segments of a byte for the side (odd: the client), two bytes of
// length, and bytes.

#include "fuzz/driver.h"
#include "support/session_host.h"

#include "protocol/peek.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

using namespace pgchaperone;
using namespace pgchaperone::test;

namespace {

struct Segment {
    bool client = false;
    std::string bytes;
};

std::vector<Segment> segments_of(std::string_view input) {
    std::vector<Segment> segments;
    while (input.size() >= 3) {
        const bool client = (input[0] & 1) != 0;
        const std::size_t length = static_cast<unsigned char>(input[1]) << 8 |
                                   static_cast<unsigned char>(input[2]);
        input.remove_prefix(3);
        const std::size_t size = std::min(length, input.size());
        if (size > 0) segments.push_back({client, std::string(input.substr(0, size))});
        input.remove_prefix(size);
    }
    return segments;
}

void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "violated: %s\n", what);
    std::abort();
}

struct Outcome {
    std::string to_server;
    std::string to_client;
    bool closed = false;
    bool operator==(const Outcome&) const = default;
};

void check_what_left(const SessionHost& host, std::string_view sent) {
    const std::set<std::string> judged(host.judged_texts.begin(), host.judged_texts.end());
    while (sent.size() >= protocol::head_size) {
        const auto head = protocol::read_head(sent, protocol::Side::frontend);
        if (!head || sent.size() < head->total()) return;
        std::string_view body = sent.substr(protocol::head_size, head->body_size());
        if (head->tag == 'P') {
            const std::size_t name = body.find('\0');
            body.remove_prefix(name == std::string_view::npos ? body.size() : name + 1);
        }
        if (head->tag == 'P' || head->tag == 'Q') {
            const std::string text(body.substr(0, body.find('\0')));
            if (!text.starts_with("pgchaperone refused this statement")) {
                require(judged.count(text) == 1, "a statement left that was not judged");
                require(text.find("DELETE") == std::string::npos, "a refused statement left");
            }
        }
        sent.remove_prefix(head->total());
    }
}

Outcome play(const std::vector<Segment>& segments, std::size_t piece, bool logged_in) {
    SessionHost host;
    if (logged_in) host.log_in();
    for (const Segment& segment : segments) {
        if (!logged_in && !host.milestones.empty() && host.milestones.back() == "Connect" &&
            host.session.facts().user == "") {
            host.event(session::Connected{true, {}, false, {}});
        }
        if (segment.client) {
            host.client(segment.bytes, piece);
        } else {
            host.server(segment.bytes, piece);
        }
        require(host.session.ledger().size() <= session::Ledger::entries_max,
                "the ledger is bounded");
    }
    Outcome outcome{host.to_server(), host.to_client(), host.closed};
    if (logged_in) check_what_left(host, outcome.to_server);
    return outcome;
}

void put(std::string& out, bool client, std::string_view bytes) {
    for (std::size_t at = 0; at < bytes.size(); at += 65'535) {
        const std::string_view part = bytes.substr(at, 65'535);
        out += client ? '\1' : '\0';
        out += static_cast<char>(part.size() >> 8);
        out += static_cast<char>(part.size() & 0xFF);
        out += part;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 1) return 0;
    const bool logged_in = data[0] % 8 != 0;
    const std::size_t piece = 1 + data[0] / 8;
    const std::vector<Segment> segments = segments_of(
        {reinterpret_cast<const char*>(data) + 1, size - 1});
    const Outcome whole = play(segments, 0, logged_in);
    const Outcome cut = play(segments, piece, logged_in);
    if (std::getenv("FUZZ_SHOW") != nullptr && !(cut == whole)) {
        std::fprintf(stderr,
                     "whole: server %zu client %zu closed %d; in pieces of %zu: %zu %zu %d\n",
                     whole.to_server.size(), whole.to_client.size(), whole.closed, piece,
                     cut.to_server.size(), cut.to_client.size(), cut.closed);
    }
    require(cut == whole, "chunks do not matter");
    return 0;
}

std::string pgchaperone_fuzz_seed(Random& random) {
    const auto pick = [&](std::size_t n) { return static_cast<std::size_t>(random.below(n)); };
    static const std::vector<std::string> texts = {
        "SELECT 1", "DELETE FROM t", "COPY t FROM stdin", "SET client_encoding = x", "", "BEGIN"};
    static const std::vector<std::string> names = {"", "a", "b"};
    std::string out(1, static_cast<char>(1 + pick(250)));
    const std::size_t rounds = 1 + pick(12);
    for (std::size_t i = 0; i < rounds; ++i) {
        std::string client;
        std::string server;
        const std::size_t messages = pick(8);
        for (std::size_t j = 0; j < messages; ++j) {
            switch (pick(12)) {
                case 0:
                    client += query(texts[pick(texts.size())]);
                    server += complete("SELECT 1") + ready();
                    break;
                case 1:
                    client += parse(names[pick(3)], texts[pick(texts.size())]);
                    server += parse_complete();
                    break;
                case 2:
                    client += pgchaperone::test::bind(names[pick(3)], names[pick(3)]);
                    server += bind_complete();
                    break;
                case 3:
                    client += execute(names[pick(3)]);
                    server += complete("INSERT 0 1");
                    break;
                case 4:
                    client += sync_message();
                    server += ready(pick(2) == 0 ? 'I' : 'T');
                    break;
                case 5: client += pgchaperone::test::flush(); break;
                case 6: client += protocol::encoded(protocol::CopyData{"1\tx\n"}); break;
                case 7: client += protocol::encoded(protocol::CopyDone{}); break;
                case 8: server += pgchaperone::test::error(pick(2) == 0 ? "22012" : "08P01"); break;
                case 9: server += protocol::encoded(protocol::CopyInResponse{}); break;
                case 10: client += protocol::encoded(protocol::Close{'S', names[pick(3)]}); break;
                default:
                    client += query(texts[pick(texts.size())]);
                    server += pgchaperone::test::error("42601") + ready();
                    break;
            }
        }
        put(out, true, client);
        put(out, false, server);
    }
    return out;
}
