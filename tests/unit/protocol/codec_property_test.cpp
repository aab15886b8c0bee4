// Properties of every message of the table, tried with random messages. A failure names the seed.

#include "bytes.h"

#include "protocol/dumper.h"
#include "protocol/head.h"
#include "support/catch.h"
#include "support/messages.h"

namespace pgchaperone::protocol {

using pgchaperone::test::Exact;
using pgchaperone::test::Random;
using pgchaperone::test::random_message;

namespace {

constexpr std::uint64_t rounds = 60;

// Calls f.operator()<M>(random) some times with every kind, whatever its side.
template <class F>
void for_every_kind(F f) {
    const auto each = [&]<class M>() {
        for (std::uint64_t seed = 1; seed <= rounds; ++seed) {
            INFO(name_of<M>() << ", seed " << seed);
            Random random{seed};
            f.template operator()<M>(random);
        }
    };
    StartupPackets::for_each(each);
    FrontendMessages::for_each(each);
    BackendMessages::for_each(each);
}

template <class M>
std::string_view body_of(std::string_view message) {
    return message.substr(has_tag<M> ? head_size : 4);
}

template <class M>
std::string_view head_of(std::string_view message) {
    return message.substr(0, has_tag<M> ? head_size : 4);
}

// Learns of a kind whether its last field takes whatever is left, so that a shorter body is a
// shorter message.
struct EndProbe {
    bool open = false;
    void byte1(std::string_view, char&) {}
    void int8(std::string_view, Int8&) {}
    void int16(std::string_view, Int16&) {}
    void int32(std::string_view, Int32&) {}
    void version(std::string_view, Int32&) {}
    void string(std::string_view, std::string_view&) {}
    void bytes(std::string_view, std::string_view&) { open = true; }
    void fixed(std::string_view, std::string_view&, std::size_t) {}
    void value(std::string_view, Value&) {}
    void code(Int32) {}
    void secret_string(std::string_view, std::string_view&) {}
    void secret_bytes(std::string_view, std::string_view&) { open = true; }
    void secret_value(std::string_view, Value&) {}
    void key(std::string_view, std::string_view&) { open = true; }
    template <class T>
    void counted16(std::string_view, std::vector<T>&) {}
    template <class T>
    void counted32(std::string_view, std::vector<T>&) {}
    template <class T>
    void until_zero(std::string_view, std::vector<T>&) {}
};

template <class M>
bool has_open_end() {
    M message;
    EndProbe probe;
    M::visit(message, probe);
    return probe.open;
}

// The strongest thing that can be said of any bytes: they are refused, or they are exactly what the
// message that was read from them would be written as.
template <class M>
bool refused_or_exact(std::string_view body) {
    const Exact exact{body};
    const Result<M> message = decode<M>(exact.view());
    if (!message) return true;
    std::string again;
    const Result<void> written = encode(*message, again);
    return written && body_of<M>(again) == body;
}

}  // namespace

TEST_CASE("every message survives being written and read") {
    for_every_kind([]<class M>(Random& random) {
        const std::string message = random_message<M>(random);
        const Exact body{body_of<M>(message)};
        const Result<M> decoded = decode<M>(body.view());
        REQUIRE(decoded.has_value());
        CHECK(encoded(*decoded) == message);
    });
}

TEST_CASE("a message cut anywhere is refused, unless its last field is whatever is left") {
    for_every_kind([]<class M>(Random& random) {
        const std::string message = random_message<M>(random);
        const std::string_view body = body_of<M>(message);
        const std::size_t step = body.size() / 500 + 1;
        for (std::size_t n = 0; n < body.size(); n += step) {
            INFO("cut to " << n << " of " << body.size());
            const Exact cut{body.substr(0, n)};
            if (has_open_end<M>()) {
                CHECK(refused_or_exact<M>(cut.view()));
            } else {
                CHECK_FALSE(decode<M>(cut.view()).has_value());
            }
        }
    });
}

TEST_CASE("bytes behind the last field are refused, unless it is whatever is left") {
    for_every_kind([]<class M>(Random& random) {
        const std::string message = random_message<M>(random);
        const std::string longer = std::string{body_of<M>(message)} +
                                   random.bytes(1 + random.below(5));
        if (has_open_end<M>()) {
            CHECK(refused_or_exact<M>(longer));
        } else {
            CHECK_FALSE(decode<M>(longer).has_value());
        }
    });
}

TEST_CASE("a corrupted body is refused or read for exactly what it is") {
    for_every_kind([]<class M>(Random& random) {
        const std::string message = random_message<M>(random);
        for (int i = 0; i < 30; ++i) {
            std::string body{body_of<M>(message)};
            if (body.empty()) return;
            for (std::size_t n = random.between(1, 4); n > 0; --n) {
                body[random.below(body.size())] = random.bytes(1)[0];
            }
            CHECK(refused_or_exact<M>(body));
        }
    });
}

TEST_CASE("a corrupted length is noticed, at the latest at the end of the stream") {
    const auto check = []<class M>(Random& random, Side side) {
        if (has_open_end<M>()) return;
        const std::string message = random_message<M>(random);
        for (int i = 0; i < 20; ++i) {
            std::string corrupted = message;
            // The low bytes more often: a length that is nearly right is the harder case.
            const std::size_t at = random.one_in(3) ? 1 + random.below(4) : 3 + random.below(2);
            corrupted[at] = random.bytes(1)[0];
            if (corrupted == message) continue;
            std::vector<std::string> lines;
            StreamDumper dumper{
                side, [&](std::uint64_t, std::string_view line) { lines.emplace_back(line); }};
            // Not at the very front, where startup packets and answers to them may stand.
            dumper.feed(side == Side::frontend ? encoded(Flush{}) : encoded(AuthenticationOk{}));
            dumper.feed(corrupted);
            dumper.finish();
            CAPTURE(lines);
            CHECK(dumper.malformed());
        }
    };
    const auto with = [&](Side side) {
        return [&check, side]<class M>() {
            for (std::uint64_t seed = 1; seed <= rounds; ++seed) {
                INFO(name_of<M>() << ", seed " << seed);
                Random random{seed};
                check.template operator()<M>(random, side);
            }
        };
    };
    FrontendMessages::for_each(with(Side::frontend));
    BackendMessages::for_each(with(Side::backend));
}

TEST_CASE("random bytes are refused or read for exactly what they are") {
    for_every_kind([]<class M>(Random& random) {
        for (int i = 0; i < 20; ++i) CHECK(refused_or_exact<M>(random.bytes(random.below(64))));
    });
}

TEST_CASE("the length word is right for every message") {
    for_every_kind([]<class M>(Random& random) {
        const std::string message = random_message<M>(random);
        if constexpr (has_tag<M>) {
            const Result<Head> head = read_head(message, kind_of<M>().side);
            REQUIRE(head.has_value());
            CHECK(head->total() == message.size());
        } else {
            CHECK(static_cast<std::size_t>(Reader{head_of<M>(message)}.int32()) == message.size());
        }
    });
}

}  // namespace pgchaperone::protocol
