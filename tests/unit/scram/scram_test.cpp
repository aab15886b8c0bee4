// SCRAM against the RFC's own example, against a verifier that a real server made, and against
// servers that lie.

#include "proxy/session/scram.h"
#include "support/catch.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <string>

using namespace pgchaperone::session;
using Catch::Matchers::ContainsSubstring;

namespace {

std::string base64(std::string_view bytes) {
    std::string out(bytes.size() * 2 + 8, '\0');
    const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                     reinterpret_cast<const unsigned char*>(bytes.data()),
                                     static_cast<int>(bytes.size()));
    out.resize(static_cast<std::size_t>(size));
    return out;
}

std::string unbase64(const std::string& text) {
    std::string out(text.size(), '\0');
    const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                     reinterpret_cast<const unsigned char*>(text.data()),
                                     static_cast<int>(text.size()));
    REQUIRE(size >= 0);
    std::size_t padding = 0;
    while (padding < 2 && text[text.size() - 1 - padding] == '=') ++padding;
    out.resize(static_cast<std::size_t>(size) - padding);
    return out;
}

std::string hmac(std::string_view key, std::string_view text) {
    unsigned char out[32];
    unsigned size = 0;
    HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
         reinterpret_cast<const unsigned char*>(text.data()), text.size(), out, &size);
    return {reinterpret_cast<char*>(out), size};
}

std::string sha256(std::string_view text) {
    unsigned char out[32];
    unsigned size = 0;
    EVP_Digest(text.data(), text.size(), out, &size, EVP_sha256(), nullptr);
    return {reinterpret_cast<char*>(out), size};
}

// The server's side, as far as it knows the verifier in pg_authid.rolpassword only:
// SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey
class Server {
public:
    explicit Server(const std::string& verifier) {
        const auto iterations = verifier.find('$') + 1;
        const auto salt = verifier.find(':', iterations) + 1;
        const auto stored = verifier.find('$', salt) + 1;
        const auto server = verifier.find(':', stored) + 1;
        iterations_ = verifier.substr(iterations, salt - 1 - iterations);
        salt_ = verifier.substr(salt, stored - 1 - salt);
        stored_key_ = unbase64(verifier.substr(stored, server - 1 - stored));
        server_key_ = unbase64(verifier.substr(server));
    }
    std::string first(const std::string& client_first) {
        const auto bare = client_first.find("n=", client_first.find(',') + 1);
        gs2_ = client_first.substr(0, bare);
        bare_ = client_first.substr(bare);
        nonce_ = bare_.substr(bare_.find("r=") + 2) + "serverpart";
        first_ = "r=" + nonce_ + ",s=" + salt_ + ",i=" + iterations_;
        return first_;
    }
    // The server's last message; nothing where the client's proof is wrong.
    std::string final(const std::string& client_final, const std::string& binding = {}) const {
        const auto at = client_final.find(",p=");
        const std::string without_proof = client_final.substr(0, at);
        if (without_proof != "c=" + base64(gs2_ + binding) + ",r=" + nonce_) return {};
        const std::string conversation = bare_ + "," + first_ + "," + without_proof;
        const std::string signature = hmac(stored_key_, conversation);
        std::string key = unbase64(client_final.substr(at + 3));
        for (std::size_t i = 0; i < key.size(); ++i)
            key[i] = static_cast<char>(key[i] ^ signature[i]);
        if (sha256(key) != stored_key_) return {};
        return "v=" + base64(hmac(server_key_, conversation));
    }

private:
    std::string iterations_, salt_, stored_key_, server_key_;
    std::string gs2_, bare_, nonce_, first_;
};

ScramSetup setup(std::string_view password, std::string binding = {},
                 ChannelBinding mode = ChannelBinding::prefer) {
    ScramSetup made;
    made.password = Secret(password);
    made.nonce = "abcdefghijklmnopqrstuvwx";
    made.channel_binding = mode;
    made.tls_server_end_point = std::move(binding);
    return made;
}

constexpr MechanismOffer both{true, true};
constexpr MechanismOffer plain{true, false};

// A server's first message that fits the nonce of setup().
std::string server_first(const std::string& rest) {
    return "r=abcdefghijklmnopqrstuvwxyz,s=" + rest;
}

std::string body(std::initializer_list<std::string> mechanisms) {
    std::string out("\0\0\0\x0a", 4);
    for (const std::string& name : mechanisms) out += name + '\0';
    return out + '\0';
}

// A password and what a real server stored for it.
struct RealVerifier {
    const char* password;
    const char* verifier;
};
#include "real_verifiers.inc"

}  // namespace

TEST_CASE("the example of RFC 7677 comes out as it stands there") {
    ScramSetup example = setup("pencil");
    example.user = "user";
    example.nonce = "rOprNGfwEbeRWgbNEkqO";
    ScramClient client = ScramClient::start(plain, std::move(example)).value();
    CHECK(client.mechanism() == "SCRAM-SHA-256");
    CHECK(client.client_first() == "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    CHECK(client
              .client_final("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                            "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
              .value() ==
          "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
          "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    CHECK(client.verify("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").has_value());
}

TEST_CASE("a server that holds a real verifier takes the proof, and proves itself") {
    for (const RealVerifier& real : real_verifiers) {
        INFO(real.password);
        Server server(real.verifier);
        ScramClient client = ScramClient::start(plain, setup(real.password)).value();
        const std::string final = client.client_final(server.first(client.client_first())).value();
        const std::string last = server.final(final);
        REQUIRE_FALSE(last.empty());
        CHECK(client.verify(last).has_value());

        Server again(real.verifier);
        ScramClient wrong = ScramClient::start(plain, setup(std::string(real.password) + "x"))
                                .value();
        CHECK(again.final(wrong.client_final(again.first(wrong.client_first())).value()).empty());
    }
}

TEST_CASE("the mechanism and the header follow what both sides can") {
    struct Case {
        MechanismOffer offer;
        const char* binding;
        ChannelBinding mode;
        const char* mechanism;
        const char* header;
    };
    const Case cases[] = {
        {both, "hash", ChannelBinding::prefer, "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,"},
        {both, "hash", ChannelBinding::require, "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,"},
        {both, "hash", ChannelBinding::disable, "SCRAM-SHA-256", "n,,"},
        {plain, "hash", ChannelBinding::prefer, "SCRAM-SHA-256", "y,,"},
        {plain, "hash", ChannelBinding::disable, "SCRAM-SHA-256", "n,,"},
        {both, "", ChannelBinding::prefer, "SCRAM-SHA-256", "n,,"},
        {plain, "", ChannelBinding::prefer, "SCRAM-SHA-256", "n,,"},
        {{false, true},
         "hash",
         ChannelBinding::prefer,
         "SCRAM-SHA-256-PLUS",
         "p=tls-server-end-point,,"},
        {plain, "hash", ChannelBinding::require, nullptr, nullptr},
        {both, "", ChannelBinding::require, nullptr, nullptr},
        {{false, true}, "", ChannelBinding::prefer, nullptr, nullptr},
        {{false, true}, "hash", ChannelBinding::disable, nullptr, nullptr},
        {{false, false}, "hash", ChannelBinding::prefer, nullptr, nullptr},
    };
    for (const Case& c : cases) {
        INFO((c.mechanism ? c.mechanism : "refused") << " " << (c.header ? c.header : ""));
        auto client = ScramClient::start(c.offer, setup("secret", c.binding, c.mode));
        REQUIRE(client.has_value() == (c.mechanism != nullptr));
        if (!c.mechanism) {
            CHECK(client.error().failure == ScramFailure::unsupported);
            continue;
        }
        CHECK(client->mechanism() == c.mechanism);
        CHECK(client->client_first() == std::string(c.header) + "n=,r=abcdefghijklmnopqrstuvwx");
        const std::string bound = client->mechanism() == "SCRAM-SHA-256-PLUS" ? c.binding : "";
        const auto final = client->client_final(server_first("W22ZaJ0SNY7soEsUEjb6gQ==,i=1"));
        REQUIRE(final.has_value());
        CHECK(final->starts_with("c=" + base64(c.header + bound) + ",r="));
    }
}

TEST_CASE("a proof that is bound to the channel is taken on that channel only") {
    const RealVerifier& real = real_verifiers[0];
    const std::string certificate_hash = sha256("certificate");
    for (const bool same : {true, false}) {
        Server server(real.verifier);
        ScramClient client = ScramClient::start(both, setup(real.password, certificate_hash))
                                 .value();
        const std::string final = client.client_final(server.first(client.client_first())).value();
        CHECK(server.final(final, same ? certificate_hash : sha256("impostor")).empty() != same);
    }
}

TEST_CASE("a name with commas and equals signs is written as RFC 5802 says") {
    ScramSetup odd = setup("x");
    odd.user = "a=b,c";
    CHECK(ScramClient::start(plain, std::move(odd)).value().client_first() ==
          "n,,n=a=3Db=2Cc,r=abcdefghijklmnopqrstuvwx");
}

TEST_CASE("a server's first message that is malformed is refused in words") {
    for (const std::string& message :
         {std::string(),
          std::string("r=abcdefghijklmnopqrstuvwxyz"),
          server_first(""),
          server_first("W22ZaJ0SNY7soEsUEjb6gQ=="),
          server_first("W22ZaJ0SNY7soEsUEjb6gQ==,i="),
          server_first("W22ZaJ0SNY7soEsUEjb6gQ==,i=0"),
          server_first("W22ZaJ0SNY7soEsUEjb6gQ==,i=-1"),
          server_first("W22ZaJ0SNY7soEsUEjb6gQ==,i=+5"),
          server_first("W22ZaJ0SNY7soEsUEjb6gQ==,i=5x"),
          server_first("W22ZaJ0SNY7soEsUEjb6gQ==,i=10000001"),
          server_first("W22ZaJ0SNY7soEsUEjb6gQ==,i=99999999999999999999"),
          server_first(",i=4096"),
          server_first("!!!!,i=4096"),
          server_first("AAA,i=4096"),
          server_first("W22ZaJ0SNY7soEsUEjb6gR==,i=4096"),  // stray bits behind the padding
          server_first(" W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
          std::string("r=abcdefghijklmnopqrstuvwx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
          std::string("r=zzzz,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
          std::string("r=abcdefghijklmnopqrstuvwx\x01,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
          std::string("s=W22ZaJ0SNY7soEsUEjb6gQ==,r=abcdefghijklmnopqrstuvwxyz,i=4096"),
          "m=ext," + server_first("W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")}) {
        INFO(message);
        ScramClient client = ScramClient::start(plain, setup("secret")).value();
        const auto final = client.client_final(message);
        REQUIRE(final.has_error());
        CHECK_FALSE(final.error().text.empty());
        CHECK(final.error().text.find("secret") == std::string::npos);
        // Nothing more comes out of this exchange.
        CHECK(client.client_final(server_first("W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")).has_error());
        CHECK(client.verify("v=AAAA").has_error());
    }
}

TEST_CASE("extensions that may be ignored are part of what is signed") {
    const RealVerifier& real = real_verifiers[0];
    Server server(real.verifier);
    ScramClient client = ScramClient::start(plain, setup(real.password)).value();
    // The server does not count the extension in: its check must fail, so ours did count it.
    const std::string first = server.first(client.client_first()) + ",x=new";
    CHECK(server.final(client.client_final(first).value()).empty());
}

TEST_CASE("an impostor, a refusal and nonsense at the end are told apart") {
    struct Case {
        std::string last;
        ScramFailure failure;
    };
    for (const Case& c : {Case{"v=" + base64(std::string(32, 'x')), ScramFailure::impostor},
                          Case{"e=invalid-proof", ScramFailure::refused},
                          Case{"e=other-error\x1b[2J", ScramFailure::refused},
                          Case{"v=" + base64("short"), ScramFailure::malformed},
                          Case{"v=", ScramFailure::malformed}, Case{"", ScramFailure::malformed},
                          Case{"x=y", ScramFailure::malformed}}) {
        ScramClient client = ScramClient::start(plain, setup("secret")).value();
        REQUIRE(client.client_final(server_first("W22ZaJ0SNY7soEsUEjb6gQ==,i=1")).has_value());
        const auto verified = client.verify(c.last);
        REQUIRE(verified.has_error());
        CHECK(verified.error().failure == c.failure);
        CHECK(verified.error().text.find('\x1b') == std::string::npos);
        CHECK(client.verify(c.last).has_error());
    }
    // Before the proof was sent nobody can have verified it.
    ScramClient client = ScramClient::start(plain, setup("secret")).value();
    CHECK(client.verify("v=" + base64(std::string(32, 'x'))).has_error());
}

TEST_CASE("offered mechanisms are read and those bound to the channel can be taken out") {
    const auto offer = read_mechanisms(body({"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"})).value();
    CHECK(offer.scram_sha_256);
    CHECK(offer.scram_sha_256_plus);
    CHECK(without_channel_binding(body({"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"})).value() ==
          body({"SCRAM-SHA-256"}));
    CHECK(without_channel_binding(body({"OAUTHBEARER", "SCRAM-SHA-512-PLUS", "SCRAM-SHA-256"}))
              .value() == body({"OAUTHBEARER", "SCRAM-SHA-256"}));
    CHECK_FALSE(read_mechanisms(body({"OAUTHBEARER"})).value().scram_sha_256);
    CHECK(without_channel_binding(body({"SCRAM-SHA-256-PLUS"})).error().failure ==
          ScramFailure::unsupported);
    const std::string good = body({"SCRAM-SHA-256"});
    for (std::size_t size = 0; size < good.size(); ++size) {
        CHECK(read_mechanisms(good.substr(0, size)).has_error());
        CHECK(without_channel_binding(good.substr(0, size)).has_error());
    }
    CHECK(read_mechanisms(good + "x").has_error());
    CHECK(read_mechanisms(std::string("\0\0\0\x05", 4)).has_error());
}

TEST_CASE("passwords are prepared as PostgreSQL prepares them") {
    const auto prepared = [](const char* password) {
        return std::string(prepare_password(password).view());
    };
    CHECK(prepared("plain") == "plain");
    CHECK(prepared("with\ttab") == "with\ttab");
    CHECK(prepared("I\xc2\xadX") == "IX");        // SOFT HYPHEN goes away
    CHECK(prepared("\xc2\xaa") == "a");           // FEMININE ORDINAL: NFKC
    CHECK(prepared("\xe2\x85\xa8") == "IX");      // ROMAN NUMERAL NINE
    CHECK(prepared("a\xc2\xa0z") == "a z");       // NO-BREAK SPACE
    CHECK(prepared("e\xcc\x81") == "\xc3\xa9");   // composed
    CHECK(prepared("\xef\xb7\xba").size() > 18);  // one character, eighteen of them
    // What SASLprep prohibits, or what is not UTF-8, stays as it is.
    CHECK(prepared("\xc3\xa9\x07") == "\xc3\xa9\x07");  // a control character
    CHECK(prepared("\xd8\xa7\x31") == "\xd8\xa7\x31");  // text of both directions
    CHECK(prepared("caf\xe9") == "caf\xe9");
    CHECK(prepared("\xc0\xaf") == "\xc0\xaf");
    CHECK(prepared("\xf0\x9f\x90\x98") == "\xf0\x9f\x90\x98");  // not in Unicode 3.2
    CHECK(prepared("\xc2\xad") == "\xc2\xad");                  // nothing would be left
    CHECK(prepared("") == "");
}

TEST_CASE("md5 passwords are hashed as PostgreSQL does") {
    CHECK(md5_password("clerk", "secret", "salt").value() == md5_from_server);
    CHECK(md5_password("clerk", "secret", "sal").has_error());
}

TEST_CASE("a secret is gone when it was moved or wiped") {
    Secret one("a password that is long enough not to be stored in place");
    Secret two = std::move(one);
    CHECK(one.empty());
    CHECK(two.view().size() == 56);
    two.wipe();
    CHECK(two.empty());
    std::string typed = "short";
    const char* bytes = typed.data();
    const Secret taken = Secret::take(typed);
    CHECK(taken.view() == "short");
    CHECK(typed.empty());
    CHECK(std::string(bytes, 5) == std::string(5, '\0'));
}
