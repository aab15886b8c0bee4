// What an operator is told about wrong files.

#include "certificates.h"

#include "proxy/net/tls_context.h"
#include "support/catch.h"

#include <sys/stat.h>

using namespace pgchaperone::net;
using namespace pgchaperone::test;
using Catch::Matchers::ContainsSubstring;

namespace {

std::string server_problem(const TlsSettings& settings) {
    const auto made = make_server_context(settings);
    REQUIRE_FALSE(made);
    CHECK(made.error().failure == TlsFailure::configuration);
    return made.error().text;
}

std::string client_problem(const TlsSettings& settings) {
    const auto made = make_client_context(settings);
    REQUIRE_FALSE(made);
    CHECK(made.error().failure == TlsFailure::configuration);
    return made.error().text;
}

}  // namespace

TEST_CASE("each wrong file of a server is named with what is wrong with it") {
    const Authority authority;
    const Identity identity = authority.issue();
    const TemporaryDirectory directory;
    const auto certificate = directory.write("a.crt", identity.certificate_pem());
    const auto key = directory.write("a.key", identity.key_pem());
    const auto garbage = directory.write("garbage", "not PEM at all\n");
    const auto empty = directory.write("empty", "");
    const auto missing = directory.path() / "missing";

    CHECK(make_server_context({TlsMode::require, certificate, key, {}}));
    CHECK_THAT(server_problem({TlsMode::require, missing, key, {}}),
               ContainsSubstring(missing.string()) && ContainsSubstring("No such file"));
    CHECK_THAT(server_problem({TlsMode::require, certificate, missing, {}}),
               ContainsSubstring("the key " + missing.string()));
    CHECK_THAT(server_problem({TlsMode::require, garbage, key, {}}),
               ContainsSubstring(garbage.string()) && ContainsSubstring("PEM"));
    CHECK_THAT(server_problem({TlsMode::require, certificate, garbage, {}}),
               ContainsSubstring(garbage.string()) && ContainsSubstring("PEM"));
    CHECK_THAT(server_problem({TlsMode::require, empty, key, {}}), ContainsSubstring("is empty"));
    CHECK_THAT(server_problem({TlsMode::require, directory.path(), key, {}}),
               ContainsSubstring("directory"));
    CHECK_THAT(server_problem({TlsMode::require,
                               certificate,
                               directory.write("other.key", authority.issue().key_pem()),
                               {}}),
               ContainsSubstring("does not belong to the certificate"));
    CHECK_THAT(server_problem({TlsMode::require,
                               certificate,
                               directory.write("other-rsa.key",
                                               authority.issue({.key_kind = "RSA"}).key_pem()),
                               {}}),
               ContainsSubstring("does not belong to the certificate"));
    CHECK_THAT(server_problem({TlsMode::require,
                               certificate,
                               directory.write("locked.key", identity.key_pem("secret")),
                               {}}),
               ContainsSubstring("passphrase"));
    CHECK_THAT(server_problem({TlsMode::require, {}, {}, {}}),
               ContainsSubstring("needs a certificate and a key"));
    CHECK_THAT(server_problem({TlsMode::verify_ca, certificate, key, {}}),
               ContainsSubstring("CA file"));
    CHECK_THAT(server_problem({TlsMode::verify_full, certificate, key, garbage}),
               ContainsSubstring("the CA file " + garbage.string()));
    CHECK_FALSE(make_server_context({TlsMode::disable, certificate, key, {}}));
}

TEST_CASE("a client needs a CA file to verify with, and a key to its certificate") {
    const Authority authority;
    const Identity identity = authority.issue();
    const TemporaryDirectory directory;
    const auto certificate = directory.write("a.crt", identity.certificate_pem());
    const auto key = directory.write("a.key", identity.key_pem());
    CHECK(make_client_context({TlsMode::require, {}, {}, {}}));
    CHECK(make_client_context({TlsMode::prefer, certificate, key, {}}));
    CHECK(make_client_context({TlsMode::verify_full, {}, {}, "system"}));
    CHECK_THAT(client_problem({TlsMode::verify_ca, {}, {}, "system"}),
               ContainsSubstring("verify-full"));
    CHECK_THAT(client_problem({TlsMode::verify_full, {}, {}, {}}), ContainsSubstring("CA file"));
    CHECK_THAT(client_problem({TlsMode::require, certificate, {}, {}}),
               ContainsSubstring("without its key"));
    CHECK_THAT(client_problem({TlsMode::require, {}, key, {}}),
               ContainsSubstring("without its certificate"));
    CHECK_FALSE(make_client_context({TlsMode::disable, {}, {}, {}}));
}

TEST_CASE("a key that others can read is used, with a warning that says what to do") {
    const Authority authority;
    const Identity identity = authority.issue();
    const TemporaryDirectory directory;
    const auto certificate = directory.write("a.crt", identity.certificate_pem());
    const auto key = directory.write("a.key", identity.key_pem());
    CHECK(check_key_permissions(key).empty());
    CHECK(
        make_server_context({TlsMode::require, certificate, key, {}}).value()->warnings().empty());
    for (const mode_t mode : {0640, 0604, 0660, 0610}) {
        REQUIRE(::chmod(key.c_str(), mode) == 0);
        CHECK_THAT(check_key_permissions(key), ContainsSubstring("0600"));
        const auto made = make_server_context({TlsMode::require, certificate, key, {}});
        REQUIRE(made);
        REQUIRE((*made)->warnings().size() == 1);
        CHECK_THAT((*made)->warnings().front(), ContainsSubstring(key.string()));
    }
    REQUIRE(::chmod(key.c_str(), 0400) == 0);
    CHECK(check_key_permissions(key).empty());
    CHECK_THAT(check_key_permissions(directory.path()), ContainsSubstring("not a regular file"));
}

TEST_CASE("a failure can be thrown while starting up") {
    CHECK_THROWS_WITH(make_client_context({TlsMode::verify_ca, {}, {}, {}}).value(),
                      ContainsSubstring("CA file"));
}
