// TLS channels talk to each other here, and to OpenSSL used bare where a peer must misbehave.

#include "certificates.h"

#include "proxy/net/tls_channel.h"
#include "support/catch.h"

#include <openssl/ssl.h>

#include <optional>
#include <random>
#include <string>

using namespace pgchaperone::net;
using namespace pgchaperone::test;
using Catch::Matchers::ContainsSubstring;

namespace {

// One authority, a server's and a client's identity, and the files that settings name.
struct World {
    Authority authority;
    Identity server = authority.issue({.common_name = "db.example.com",
                                       .subject_alternatives = "DNS:db.example.com,IP:10.0.0.7"});
    Identity client = authority.issue({.common_name = "clerk"});
    TemporaryDirectory directory;

    TlsSettings server_settings(const Identity& identity, TlsMode mode = TlsMode::prefer) const {
        return {mode, directory.write("server.crt", identity.certificate_pem()),
                directory.write("server.key", identity.key_pem()), ca()};
    }
    TlsSettings server_settings(TlsMode mode = TlsMode::prefer) const {
        return server_settings(server, mode);
    }
    TlsSettings client_settings(TlsMode mode) const {
        return {
            mode,
            {},
            {},
            mode == TlsMode::prefer || mode == TlsMode::require ? std::filesystem::path() : ca()};
    }
    TlsSettings client_settings(TlsMode mode, const Identity& identity) const {
        TlsSettings settings = client_settings(mode);
        settings.certificate = directory.write("client.crt", identity.certificate_pem());
        settings.key = directory.write("client.key", identity.key_pem());
        return settings;
    }
    std::filesystem::path ca() const {
        return directory.write("ca.crt", authority.identity().certificate_pem());
    }
};

TlsContextPtr server_context(const TlsSettings& settings) {
    return make_server_context(settings).value();
}
TlsContextPtr client_context(const TlsSettings& settings) {
    return make_client_context(settings).value();
}

// Two channels and the wire between them. `chunk` bytes travel at a time.
struct Pair {
    TlsChannel client;
    TlsChannel server;
    std::size_t chunk = 1 << 20;
    std::optional<TlsError> client_error;
    std::optional<TlsError> server_error;
    std::string client_got;
    std::string server_got;

    Pair(TlsContextPtr client_side, TlsContextPtr server_side,
         TlsChannelOptions client_options = {}, TlsChannelOptions server_options = {})
        : client(std::move(client_side), std::move(client_options)),
          server(std::move(server_side), std::move(server_options)) {}

    static void drain(TlsChannel& channel, std::string& got, std::optional<TlsError>& error) {
        char buffer[5000];
        for (;;) {
            const auto read = channel.read(buffer, sizeof buffer);
            if (!read) {
                if (!error) error = read.error();
                return;
            }
            if (read->state != TlsRead::State::data) return;
            REQUIRE(read->bytes > 0);
            got.append(buffer, read->bytes);
        }
    }
    bool carry(TlsChannel& from, TlsChannel& to, std::string& got, std::optional<TlsError>& error) {
        const std::string bytes(from.outgoing().substr(0, chunk));
        if (bytes.empty()) return false;
        from.consume_outgoing(bytes.size());
        const auto fed = to.feed(bytes);
        if (!fed && !error) error = fed.error();
        drain(to, got, error);
        return true;
    }
    void pump() {
        for (bool moved = true; moved;) {
            moved = carry(client, server, server_got, server_error);
            moved = carry(server, client, client_got, client_error) || moved;
        }
    }
    Pair& shake_hands() {
        if (const auto started = client.start(); !started) client_error = started.error();
        pump();
        return *this;
    }
    void require_established() {
        INFO((client_error ? client_error->text : "")
             << "|" << (server_error ? server_error->text : ""));
        REQUIRE(client.handshake_done());
        REQUIRE(server.handshake_done());
        REQUIRE_FALSE(client_error);
        REQUIRE_FALSE(server_error);
    }
};

std::string noise(std::size_t size) {
    std::mt19937 random(7);
    std::string out(size, '\0');
    for (char& c : out) c = static_cast<char>(random());
    return out;
}

// A peer made of OpenSSL as it is, for what our own channel would never do.
struct BarePeer {
    SSL_CTX* context;
    SSL* ssl;
    BIO* in = BIO_new(BIO_s_mem());
    BIO* out = BIO_new(BIO_s_mem());

    explicit BarePeer(const SSL_METHOD* method, void (*prepare)(SSL_CTX*) = nullptr)
        : context(SSL_CTX_new(method)) {
        SSL_CTX_set_security_level(context, 0);
        if (prepare) prepare(context);
        ssl = SSL_new(context);
        SSL_set_bio(ssl, in, out);
        SSL_set_connect_state(ssl);
    }
    ~BarePeer() {
        SSL_free(ssl);
        SSL_CTX_free(context);
    }
    std::string take() {
        char* bytes = nullptr;
        const long size = BIO_get_mem_data(out, &bytes);
        std::string got(bytes, static_cast<std::size_t>(size));
        (void)BIO_reset(out);
        return got;
    }
    // Shakes hands with a channel as far as it goes; the channel's error, if any.
    std::optional<TlsError> shake_hands(TlsChannel& channel) {
        for (int round = 0; round < 10; ++round) {
            SSL_do_handshake(ssl);
            const auto fed = channel.feed(take());
            const std::string answer(channel.outgoing());
            channel.consume_outgoing(answer.size());
            BIO_write(in, answer.data(), static_cast<int>(answer.size()));
            if (!fed) return fed.error();
        }
        return std::nullopt;
    }
};

}  // namespace

TEST_CASE("two channels shake hands and carry bytes both ways, in pieces of any size") {
    const World world;
    const std::string question = noise(100'000);
    const std::string answer = noise(70'001);
    for (const std::size_t chunk :
         {std::size_t{1}, std::size_t{7}, std::size_t{1000}, std::size_t{1} << 20}) {
        Pair pair(client_context(world.client_settings(TlsMode::verify_full)),
                  server_context(world.server_settings()), {.server_name = "db.example.com"});
        pair.chunk = chunk;
        pair.shake_hands().require_established();
        CHECK(pair.client.version() == "TLSv1.3");
        CHECK(pair.client.cipher() == pair.server.cipher());
        CHECK_FALSE(pair.client.cipher().empty());
        CHECK(pair.client.negotiated_alpn() == "postgresql");
        CHECK(pair.server.negotiated_alpn() == "postgresql");
        REQUIRE(pair.client.write(question));
        REQUIRE(pair.server.write(answer));
        REQUIRE(pair.server.write(""));
        pair.pump();
        CHECK(pair.server_got == question);
        CHECK(pair.client_got == answer);
        CHECK(pair.server.buffered_input_bytes() == 0);
        CHECK_FALSE(pair.client_error);
        CHECK_FALSE(pair.server_error);
    }
}

TEST_CASE("the end of a stream is told from a connection that broke") {
    const World world;
    Pair pair(client_context(world.client_settings(TlsMode::require)),
              server_context(world.server_settings()));
    pair.shake_hands().require_established();
    REQUIRE(pair.client.write("last words"));
    pair.client.close_notify();
    pair.pump();
    CHECK(pair.server_got == "last words");
    CHECK(pair.server.peer_closed());
    CHECK(pair.server.end_of_input());

    SECTION("half-closed: the other side may still speak") {
        REQUIRE(pair.server.write("good bye"));
        pair.pump();
        CHECK(pair.client_got == "good bye");
    }
    SECTION("without close_notify it is a truncation") {
        REQUIRE_FALSE(pair.client.peer_closed());
        const auto end = pair.client.end_of_input();
        REQUIRE_FALSE(end);
        CHECK(end.error().failure == TlsFailure::truncated);
    }
    SECTION("nothing can be written after the end") { CHECK_FALSE(pair.client.write("more")); }
}

TEST_CASE("a close_notify that was fed but not yet read still counts at the end of input") {
    const World world;
    Pair pair(client_context(world.client_settings(TlsMode::require)),
              server_context(world.server_settings()));
    pair.shake_hands().require_established();
    pair.client.close_notify();
    REQUIRE(pair.server.feed(pair.client.outgoing()).has_value());
    CHECK(pair.server.end_of_input());
}

TEST_CASE("a connection that ends during the handshake is an error") {
    const World world;
    TlsChannel server(server_context(world.server_settings()), {});
    const auto end = server.end_of_input();
    REQUIRE_FALSE(end);
    CHECK(end.error().failure == TlsFailure::truncated);
    CHECK_THAT(end.error().text, ContainsSubstring("during the TLS handshake"));
}

TEST_CASE("plain text in place of TLS is told in words, and the channel stays dead") {
    const World world;
    for (const std::string text :
         {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "Q\0\0\0\x0dSELECT 1;",
          "\x16\x03\x01\x00\x05hello this is not it", "\xff\xff\xff\xff\xff\xff"}) {
        TlsChannel server(server_context(world.server_settings()), {});
        const auto fed = server.feed(text + std::string(100, 'x'));
        REQUIRE(fed.has_error());
        CHECK_FALSE(fed.error().text.empty());
        INFO(fed.error().text);
        if (text.front() != '\x16') CHECK(fed.error().failure == TlsFailure::not_tls);
        CHECK(server.feed("").has_error());
        char byte = 0;
        CHECK(server.read(&byte, 1).has_error());
        CHECK_FALSE(server.write("x"));
        CHECK_FALSE(server.handshake_done());
    }
}

TEST_CASE("a byte changed on the way breaks the connection, wherever it is") {
    const World world;
    Pair pair(client_context(world.client_settings(TlsMode::require)),
              server_context(world.server_settings()));
    pair.shake_hands().require_established();
    REQUIRE(pair.client.write("SELECT 1"));
    std::string bytes(pair.client.outgoing());
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    REQUIRE(pair.server.feed(bytes).has_value());
    char buffer[100];
    CHECK(pair.server.read(buffer, sizeof buffer).has_error());
    CHECK_FALSE(pair.server.outgoing().empty());  // the alert for the peer
}

TEST_CASE("a handshake with any byte changed ends, in an error or in an intact connection") {
    const World world;
    const TlsContextPtr client = client_context(world.client_settings(TlsMode::verify_full));
    const TlsContextPtr server = server_context(world.server_settings());
    std::mt19937 random(5);
    int unharmed = 0;
    for (int round = 0; round < 400; ++round) {
        Pair pair(client, server, {.server_name = "db.example.com"});
        REQUIRE(pair.client.start().has_value());
        const bool first_flight = round % 2 == 0;
        TlsChannel& from = first_flight ? pair.client : pair.server;
        if (!first_flight) pair.carry(pair.client, pair.server, pair.server_got, pair.server_error);
        std::string bytes(from.outgoing());
        REQUIRE_FALSE(bytes.empty());
        from.consume_outgoing(bytes.size());
        char& changed = bytes[random() % bytes.size()];
        changed = static_cast<char>(changed ^ (1 << random() % 8));
        TlsChannel& to = first_flight ? pair.server : pair.client;
        auto& error = first_flight ? pair.server_error : pair.client_error;
        if (const auto fed = to.feed(bytes); !fed) error = fed.error();
        pair.pump();
        if (pair.client_error || pair.server_error || !pair.client.handshake_done() ||
            !pair.server.handshake_done())
            continue;
        // The handshake is signed; only the version in a record's head means nothing to TLS 1.3.
        ++unharmed;
        REQUIRE(pair.client.write("question").has_value());
        pair.pump();
        REQUIRE(pair.server_got == "question");
    }
    CHECK(unharmed < 20);
}

TEST_CASE("random bytes are never taken for TLS, and cost no memory") {
    const World world;
    const TlsContextPtr server = server_context(world.server_settings());
    std::mt19937 random(6);
    for (int round = 0; round < 300; ++round) {
        TlsChannel channel(server, {});
        bool failed = false;
        for (int piece = 0; piece < 20 && !failed; ++piece) {
            std::string bytes = noise(1 + random() % 2000);
            // Now and then a head that promises a record.
            if (piece == 0 && round % 3 == 0) bytes = "\x16\x03\x01\x40" + bytes;
            failed = channel.feed(bytes).has_error();
        }
        CHECK_FALSE(channel.handshake_done());
        CHECK(channel.buffered_input_bytes() < 100'000);
    }
}

TEST_CASE("verify-full compares the name as libpq does") {
    const World world;
    struct Case {
        std::string common_name, alternatives, host;
        bool accepted;
    };
    const Case cases[] = {
        {"x", "DNS:db.example.com", "db.example.com", true},
        {"x", "DNS:db.example.com", "DB.Example.COM", true},
        {"x", "DNS:db.example.com", "other.example.com", false},
        {"x", "DNS:db.example.com", "", false},
        {"x", "DNS:db.example.com", ".example.com", false},
        {"x", "DNS:*.example.com", "db.example.com", true},
        {"x", "DNS:*.example.com", "a.db.example.com", false},
        {"x", "DNS:*.example.com", "example.com", false},
        {"x", "DNS:d*.example.com", "db.example.com", false},
        {"db.example.com", "", "db.example.com", true},
        {"db.example.com", "DNS:other.example.com", "db.example.com", false},
        {"x", "IP:10.0.0.7", "10.0.0.7", true},
        {"x", "IP:10.0.0.7", "10.0.0.8", false},
        {"x", "IP:::1", "::1", true},
        {"x", "IP:::1", "0:0:0:0:0:0:0:1", true},
        {"10.0.0.7", "", "10.0.0.7", true},
        {"10.0.0.7", "IP:10.0.0.8", "10.0.0.7", false},
        {"10.0.0.7", "DNS:db.example.com", "10.0.0.7", true},
        {"*.0.0.7", "", "10.0.0.7", false},
        {"db.example.com", "IP:10.0.0.7", "db.example.com", true},
    };
    for (const Case& c : cases) {
        INFO(c.common_name << " | " << c.alternatives << " | " << c.host);
        const Identity identity = world.authority.issue(
            {.common_name = c.common_name, .subject_alternatives = c.alternatives});
        Pair pair(client_context(world.client_settings(TlsMode::verify_full)),
                  server_context(world.server_settings(identity)), {.server_name = c.host});
        pair.shake_hands();
        CHECK(!pair.client_error == c.accepted);
        if (!c.accepted) {
            REQUIRE(pair.client_error);
            CHECK(pair.client_error->failure == TlsFailure::certificate);
            CHECK_THAT(pair.client_error->text, ContainsSubstring("not to \"" + c.host + "\""));
            CHECK_FALSE(pair.client.write("password"));
            REQUIRE(pair.server_error);  // it was told
            CHECK_FALSE(pair.server.handshake_done());
        }
    }
}

TEST_CASE("verify-ca accepts any name of a known authority, and no other authority") {
    const World world;
    {
        Pair pair(client_context(world.client_settings(TlsMode::verify_ca)),
                  server_context(world.server_settings()), {.server_name = "elsewhere"});
        pair.shake_hands().require_established();
    }
    const Authority stranger("Stranger");
    Pair pair(client_context(world.client_settings(TlsMode::verify_ca)),
              server_context(world.server_settings(stranger.issue())));
    pair.shake_hands();
    REQUIRE(pair.client_error);
    CHECK(pair.client_error->failure == TlsFailure::certificate);
    CHECK_THAT(pair.client_error->text, ContainsSubstring("CA file"));
    REQUIRE(pair.server_error);  // the alert arrived
    CHECK(pair.server_error->failure == TlsFailure::refused_by_peer);
    CHECK_THAT(pair.server_error->text, ContainsSubstring("does not know the authority"));
}

TEST_CASE("require with a CA file verifies as verify-ca, as libpq documents it") {
    const World world;
    const Authority stranger;  // of the same name, with another key
    TlsSettings settings = world.client_settings(TlsMode::require);
    settings.ca = world.ca();
    Pair pair(client_context(settings), server_context(world.server_settings(stranger.issue())));
    pair.shake_hands();
    REQUIRE(pair.client_error);
    CHECK(pair.client_error->failure == TlsFailure::certificate);
}

TEST_CASE("an expired certificate and a future one are named as such") {
    const World world;
    struct Case {
        long from_s, to_s;
        const char* words;
    };
    for (const Case& c : {Case{-7200, -3600, "expired"}, Case{3600, 7200, "not yet valid"}}) {
        const Identity identity = world.authority.issue(
            {.valid_from_s = c.from_s, .valid_to_s = c.to_s});
        const TlsContextPtr context = server_context(world.server_settings(identity));
        CHECK(context->warnings().size() == 1);
        Pair pair(client_context(world.client_settings(TlsMode::verify_ca)), context);
        pair.shake_hands();
        REQUIRE(pair.client_error);
        CHECK_THAT(pair.client_error->text, ContainsSubstring(c.words));
        CHECK_THAT(pair.client_error->text, ContainsSubstring("CN=db.example.com"));
    }
}

TEST_CASE("a server that verifies clients lets in those whom its authority knows") {
    const World world;
    const TlsContextPtr server = server_context(world.server_settings(TlsMode::verify_ca));

    SECTION("with a certificate") {
        Pair pair(client_context(world.client_settings(TlsMode::verify_ca, world.client)), server);
        pair.shake_hands().require_established();
        CHECK(pair.server.peer_common_name() == "clerk");
        CHECK(pair.server.peer_certificate_der() == world.client.certificate_der());
        CHECK(pair.client.peer_certificate_der() == world.server.certificate_der());
    }
    SECTION("without one") {
        Pair pair(client_context(world.client_settings(TlsMode::require)), server);
        pair.shake_hands();
        REQUIRE(pair.server_error);
        CHECK(pair.server_error->failure == TlsFailure::certificate);
        CHECK_THAT(pair.server_error->text, ContainsSubstring("showed no certificate"));
        REQUIRE(pair.client_error);
        CHECK_THAT(pair.client_error->text, ContainsSubstring("demands a client certificate"));
    }
    SECTION("with a stranger's") {
        const Authority stranger("Stranger");
        Pair pair(client_context(world.client_settings(TlsMode::require, stranger.issue())),
                  server);
        pair.shake_hands();
        REQUIRE(pair.server_error);
        CHECK(pair.server_error->failure == TlsFailure::certificate);
        REQUIRE(pair.client_error);
    }
    SECTION("with a certificate that is for servers only") {
        const Identity wrong = world.authority.issue({.extended_key_usage = "serverAuth"});
        Pair pair(client_context(world.client_settings(TlsMode::require, wrong)), server);
        pair.shake_hands();
        REQUIRE(pair.server_error);
        CHECK_THAT(pair.server_error->text, ContainsSubstring("clientAuth"));
    }
    SECTION("a common name that hides a NUL is no name") {
        const Identity nul = world.authority.issue({.common_name = std::string("clerk\0x", 7)});
        Pair pair(client_context(world.client_settings(TlsMode::require, nul)), server);
        pair.shake_hands().require_established();
        CHECK(pair.server.peer_common_name().empty());
    }
}

TEST_CASE("a server that does not verify asks for no certificate") {
    const World world;
    Pair pair(client_context(world.client_settings(TlsMode::require, world.client)),
              server_context(world.server_settings(TlsMode::require)));
    pair.shake_hands().require_established();
    CHECK(pair.server.peer_common_name().empty());
    CHECK(pair.server.peer_certificate_der().empty());
}

TEST_CASE("direct TLS needs ALPN, SSLRequest does not") {
    const World world;
    for (const bool direct : {false, true}) {
        for (const bool alpn : {false, true}) {
            INFO(direct << alpn);
            TlsChannel server(server_context(world.server_settings()), {.direct = direct});
            BarePeer peer(TLS_client_method());
            if (alpn)
                SSL_set_alpn_protos(peer.ssl,
                                    reinterpret_cast<const unsigned char*>("\x0apostgresql"), 11);
            const auto error = peer.shake_hands(server);
            CHECK(error.has_value() == (direct && !alpn));
            if (error) CHECK(error->failure == TlsFailure::no_shared_alpn);
        }
    }
}

TEST_CASE("another protocol's ALPN is refused, with SSLRequest as well") {
    const World world;
    for (const bool direct : {false, true}) {
        TlsChannel server(server_context(world.server_settings()), {.direct = direct});
        BarePeer peer(TLS_client_method());
        SSL_set_alpn_protos(peer.ssl, reinterpret_cast<const unsigned char*>("\x02h2\x08http/1.1"),
                            12);
        const auto error = peer.shake_hands(server);
        REQUIRE(error);
        CHECK(error->failure == TlsFailure::no_shared_alpn);
        CHECK_FALSE(server.handshake_done());
    }
}

TEST_CASE("a client with direct TLS leaves a server that does not confirm ALPN") {
    const World world;
    const TlsContextPtr without_alpn = server_context(world.server_settings());
    SSL_CTX_set_alpn_select_cb(without_alpn->native(), nullptr, nullptr);
    for (const bool direct : {false, true}) {
        Pair pair(client_context(world.client_settings(TlsMode::require)), without_alpn,
                  {.direct = direct});
        pair.shake_hands();
        CHECK(pair.client_error.has_value() == direct);
    }
}

TEST_CASE("TLS 1.1 is refused, TLS 1.2 is not") {
    const World world;
    for (const int version : {TLS1_1_VERSION, TLS1_2_VERSION}) {
        TlsChannel server(server_context(world.server_settings()), {});
        BarePeer peer(TLS_client_method());
        SSL_set_min_proto_version(peer.ssl, version);
        SSL_set_max_proto_version(peer.ssl, version);
        const auto error = peer.shake_hands(server);
        CHECK(error.has_value() == (version == TLS1_1_VERSION));
        if (error) CHECK(error->failure == TlsFailure::no_shared_version);
        if (!error) CHECK(server.version() == "TLSv1.2");
    }
}

TEST_CASE("no cipher in common is told as that") {
    const World world;
    TlsChannel server(server_context(world.server_settings()), {});
    BarePeer peer(TLS_client_method());
    SSL_set_max_proto_version(peer.ssl, TLS1_2_VERSION);
    // The server's key is EC: RSA ciphers do not fit.
    SSL_set_cipher_list(peer.ssl, "AES128-SHA");
    const auto error = peer.shake_hands(server);
    REQUIRE(error);
    CHECK(error->failure == TlsFailure::no_shared_cipher);
}

TEST_CASE("a client may not renegotiate, and gets no session ticket") {
    const World world;
    TlsChannel server(server_context(world.server_settings()), {});
    BarePeer peer(TLS_client_method());
    SSL_set_max_proto_version(peer.ssl, TLS1_2_VERSION);
    REQUIRE_FALSE(peer.shake_hands(server));
    CHECK_FALSE(SSL_SESSION_has_ticket(SSL_get_session(peer.ssl)));
    CHECK(SSL_renegotiate(peer.ssl) == 1);
    SSL_do_handshake(peer.ssl);
    REQUIRE(server.feed(peer.take()).has_value());
    char buffer[100];
    const auto read = server.read(buffer, sizeof buffer);
    // A warning alert answers; the connection's state is as before.
    if (read) CHECK(read->state == TlsRead::State::want_read);
    const std::string answer(server.outgoing());
    BIO_write(peer.in, answer.data(), static_cast<int>(answer.size()));
    CHECK(SSL_do_handshake(peer.ssl) != 1);
}

TEST_CASE("a client that asks for new keys without end and never reads is given up") {
    const World world;
    TlsChannel server(server_context(world.server_settings()), {});
    BarePeer peer(TLS_client_method());
    REQUIRE_FALSE(peer.shake_hands(server));
    std::optional<TlsError> error;
    char buffer[100];
    for (int i = 0; i < 100'000 && !error; ++i) {
        REQUIRE(SSL_key_update(peer.ssl, SSL_KEY_UPDATE_REQUESTED) == 1);
        SSL_write(peer.ssl, "x", 1);
        if (const auto fed = server.feed(peer.take()); !fed) error = fed.error();
        for (;;) {
            const auto read = server.read(buffer, sizeof buffer);
            if (!read) error = read.error();
            if (!read || read->state != TlsRead::State::data) break;
        }
        REQUIRE(server.outgoing().size() <= TlsChannel::provoked_output_limit_bytes);
    }
    REQUIRE(error);
    CHECK(error->failure == TlsFailure::overload);
}

TEST_CASE("what the host writes is not counted as provoked") {
    const World world;
    Pair pair(client_context(world.client_settings(TlsMode::require)),
              server_context(world.server_settings()));
    pair.shake_hands().require_established();
    const std::string much = noise(3 * TlsChannel::provoked_output_limit_bytes);
    REQUIRE(pair.server.write(much));
    REQUIRE(pair.server.outgoing().size() > much.size());
    pair.pump();
    CHECK(pair.client_got == much);
}

TEST_CASE("tls-server-end-point is the same on both sides and follows the signature's hash") {
    const World world;
    const Authority rsa("RSA CA", "RSA");
    struct Case {
        const char* hash;
        bool pss;
        std::size_t bytes;
        const char* function;
    };
    for (const Case& c : {Case{"SHA256", false, 32, "SHA256"}, Case{"SHA384", false, 48, "SHA384"},
                          Case{"SHA512", false, 64, "SHA512"}, Case{"SHA1", false, 32, "SHA256"},
                          Case{"MD5", false, 32, "SHA256"}, Case{"SHA256", true, 32, "SHA256"},
                          Case{"SHA512", true, 64, "SHA512"}}) {
        INFO(c.hash << c.pss);
        const Identity identity = rsa.issue({.hash = c.hash, .pss_signature = c.pss});
        const auto hash = tls_server_end_point_of(identity.certificate_der());
        REQUIRE(hash);
        unsigned char digest[EVP_MAX_MD_SIZE];
        unsigned size = 0;
        const std::string der = identity.certificate_der();
        REQUIRE(EVP_Digest(der.data(), der.size(), digest, &size, EVP_get_digestbyname(c.function),
                           nullptr) == 1);
        CHECK(hash->size() == c.bytes);
        CHECK(*hash == std::string(reinterpret_cast<char*>(digest), size));
    }
    const Authority edwards("Ed25519 CA", "ED25519");
    CHECK_FALSE(tls_server_end_point_of(edwards.issue({.hash = ""}).certificate_der()));
    CHECK_FALSE(tls_server_end_point_of("not a certificate"));

    Pair pair(client_context(world.client_settings(TlsMode::require)),
              server_context(world.server_settings()));
    CHECK_FALSE(pair.client.tls_server_end_point());
    pair.shake_hands().require_established();
    REQUIRE(pair.client.tls_server_end_point());
    CHECK(pair.client.tls_server_end_point() == pair.server.tls_server_end_point());
    CHECK(pair.client.tls_server_end_point() ==
          tls_server_end_point_of(world.server.certificate_der()));
}

TEST_CASE("the server's name is sent for a host name and not for an address") {
    const World world;
    for (const std::string host : {"db.example.com", "10.0.0.7", "::1", "fe80::1%eth0", ""}) {
        TlsChannel client(client_context(world.client_settings(TlsMode::require)),
                          {.server_name = host});
        REQUIRE(client.start().has_value());
        const bool sent = !host.empty() && client.outgoing().find(host) != std::string_view::npos;
        CHECK(sent == (host == "db.example.com"));
    }
}

TEST_CASE("a reload leaves the channels of the old certificate alone") {
    const World world;
    TlsContextPtr in_force = server_context(world.server_settings());
    const TlsContextPtr client = client_context(world.client_settings(TlsMode::verify_ca));
    Pair old(client, in_force);
    old.shake_hands().require_established();
    const Identity renewed = world.authority.issue();
    in_force = server_context(world.server_settings(renewed));
    Pair fresh(client, in_force);
    fresh.shake_hands().require_established();
    CHECK(fresh.client.peer_certificate_der() == renewed.certificate_der());
    CHECK(old.client.peer_certificate_der() == world.server.certificate_der());
    REQUIRE(old.client.write("still here"));
    old.pump();
    CHECK(old.server_got == "still here");
}
