// The server's side of SCRAM, against our own client's side (which the other file holds against the
// RFC and against verifiers of a real server), and against clients that lie.

#include "proxy/session/scram_server.h"
#include "support/catch.h"

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

using namespace pgchaperone::session;
using Catch::Matchers::ContainsSubstring;

namespace {

struct RealVerifier {
    const char* password;
    const char* verifier;
};
#include "real_verifiers.inc"

const std::string salt = "0123456789abcdef";

ScramVerifier verifier(const std::string& password = "secret") {
    return ScramVerifier::make(password, salt, 4096).value();
}

ScramClient client_of(const std::string& password, const std::string& end_point = {},
                      ChannelBinding binding = ChannelBinding::prefer) {
    ScramSetup setup;
    setup.password = Secret(password);
    setup.nonce = "fyko+d2lbbFgONRv9qkxdawL";
    setup.channel_binding = binding;
    setup.tls_server_end_point = end_point;
    return ScramClient::start({.scram_sha_256 = true, .scram_sha_256_plus = !end_point.empty()},
                              std::move(setup))
        .value();
}

// How an exchange ends for the client: nothing where it was let in.
std::optional<ScramFailure> exchange(ScramServer& server, ScramClient& client) {
    const auto first = server.first(client.mechanism(), client.client_first());
    if (!first) return first.error().failure;
    const auto final = server.final(client.client_final(*first).value());
    if (!final) return final.error().failure;
    CHECK(client.verify(*final).has_value());
    return std::nullopt;
}

std::optional<ScramFailure> log_in(const ScramVerifier& verifier, const std::string& password,
                                   bool known = true) {
    ScramServer server(verifier, known, "3rfcNHYJY1ZVvWVs7j", "");
    ScramClient client = client_of(password);
    return exchange(server, client);
}

}  // namespace

TEST_CASE("who knows the password is let in, and nobody else") {
    CHECK_FALSE(log_in(verifier(), "secret"));
    CHECK(log_in(verifier(), "Secret") == ScramFailure::refused);
    CHECK(log_in(verifier(), "") == ScramFailure::refused);
    // Somebody who is not known fails with whatever password, and just as late.
    CHECK(log_in(verifier(), "secret", false) == ScramFailure::refused);
    CHECK_FALSE(log_in(verifier("p\xC3\xA4ss\xC2\xA0wort"), "p\xC3\xA4ss wort"));
}

TEST_CASE("verifiers that a real server has made work here") {
    for (const RealVerifier& one : real_verifiers) {
        const auto parsed = ScramVerifier::parse(one.verifier);
        REQUIRE(parsed);
        CHECK(parsed->text() == one.verifier);
        CHECK(parsed->matches(one.password));
        CHECK_FALSE(parsed->matches(std::string(one.password) + "x"));
        CHECK_FALSE(log_in(*parsed, one.password));
        CHECK(log_in(*parsed, std::string(one.password) + "x") == ScramFailure::refused);
    }
}

TEST_CASE("what is no verifier is none") {
    const std::string good = verifier().text();
    REQUIRE(ScramVerifier::parse(good));
    for (std::size_t at = 0; at < good.size(); ++at) {
        CHECK_FALSE(ScramVerifier::parse(good.substr(0, at)));
        std::string other = good;
        other[at] = '!';
        CHECK_FALSE(ScramVerifier::parse(other));
    }
    CHECK_FALSE(ScramVerifier::parse(good + "A"));
    const std::string keys = good.substr(good.find(':'));
    for (const char* iterations : {"0", "-1", "", "10000001", "99999999999999999999", "4096 "})
        CHECK_FALSE(ScramVerifier::parse("SCRAM-SHA-256$" + std::string(iterations) + keys));
    CHECK_FALSE(ScramVerifier::parse("md5" + std::string(32, 'a')));
}

TEST_CASE("of who is not known nothing is learned") {
    const ScramVerifier one = ScramVerifier::imaginary("alice", "chance", 4096);
    CHECK(one.text() == ScramVerifier::imaginary("alice", "chance", 4096).text());
    CHECK(one.salt != ScramVerifier::imaginary("bob", "chance", 4096).salt);
    CHECK(one.salt != ScramVerifier::imaginary("alice", "other", 4096).salt);
    CHECK(one.salt.size() == ScramVerifier::salt_bytes);
    REQUIRE(ScramVerifier::parse(one.text()));
    CHECK(log_in(one, "secret", false) == ScramFailure::refused);
}

TEST_CASE("an exchange over TLS is bound to it") {
    const std::string ours(32, 'o'), theirs(32, 't');
    ScramServer server(verifier(), true, "nonce-of-ours", ours);
    CHECK(server.mechanisms() ==
          std::vector<std::string_view>{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"});
    ScramClient client = client_of("secret", ours);
    CHECK(client.mechanism() == "SCRAM-SHA-256-PLUS");
    CHECK_FALSE(exchange(server, client));

    // Somebody between the two shows the client another certificate.
    ScramServer cheated(verifier(), true, "nonce-of-ours", ours);
    ScramClient victim = client_of("secret", theirs);
    CHECK(exchange(cheated, victim) == ScramFailure::impostor);

    // Or takes the offer away: the client says that it could have.
    ScramServer robbed(verifier(), true, "nonce-of-ours", ours);
    CHECK(robbed.first("SCRAM-SHA-256", "y,,n=,r=abc").error().failure == ScramFailure::malformed);
    // One that can't bind is let in without.
    ScramServer plain(verifier(), true, "nonce-of-ours", ours);
    ScramClient old = client_of("secret", "", ChannelBinding::disable);
    CHECK_FALSE(exchange(plain, old));
    // There is nothing to bind to without TLS.
    ScramServer clear(verifier(), true, "nonce-of-ours", "");
    CHECK(clear.mechanisms() == std::vector<std::string_view>{"SCRAM-SHA-256"});
    CHECK(clear.first("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=,r=abc").error().failure ==
          ScramFailure::malformed);
}

TEST_CASE("malformed first messages are refused") {
    for (const char* text : {"", "n", "n,", "n,,", "n,,n=", "n,,n=,", "n,,n=,r=", "n,,n=,r=\x01",
                             "n,,r=abc", "n,a=root,n=,r=abc", "p=tls-unique,,n=,r=abc",
                             "z,,n=,r=abc", "n,,m=ext,n=,r=abc", "n,,n=,x=1,r=abc"}) {
        ScramServer server(verifier(), true, "nonce-of-ours", "");
        INFO(text);
        CHECK(server.first("SCRAM-SHA-256", text).error().failure == ScramFailure::malformed);
        CHECK(server.final("c=biws,r=abc,p=").has_error());
    }
    ScramServer server(verifier(), true, "nonce-of-ours", "");
    CHECK(server.first("GSSAPI", "n,,n=,r=abc").has_error());
    // What follows the nonce are extensions, which may be ignored.
    ScramServer other(verifier(), true, "nonce-of-ours", "");
    CHECK_THAT(other.first("SCRAM-SHA-256", "n,,n=,r=abc,x=1").value(),
               Catch::Matchers::StartsWith("r=abcnonce-of-ours,s="));
}

TEST_CASE("a last message that was changed on the way lets nobody in") {
    const auto begin = [](ScramServer& server, ScramClient& client) {
        return client.client_final(server.first(client.mechanism(), client.client_first()).value())
            .value();
    };
    std::string good;
    {
        ScramServer server(verifier(), true, "nonce-of-ours", "");
        ScramClient client = client_of("secret");
        good = begin(server, client);
        REQUIRE(server.final(good).has_value());
        // Once.
        CHECK(server.final(good).has_error());
    }
    for (std::size_t at = 0; at < good.size(); ++at) {
        ScramServer server(verifier(), true, "nonce-of-ours", "");
        ScramClient client = client_of("secret");
        begin(server, client);
        std::string other = good;
        other[at] = other[at] == 'A' ? 'B' : 'A';
        CHECK(server.final(other).has_error());
        ScramServer cut(verifier(), true, "nonce-of-ours", "");
        ScramClient again = client_of("secret");
        begin(cut, again);
        CHECK(cut.final(good.substr(0, at)).has_error());
    }
    ScramServer early(verifier(), true, "nonce-of-ours", "");
    CHECK(early.final(good).has_error());
}
