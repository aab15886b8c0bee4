#include "proxy/session/scram_server.h"

#include "proxy/session/scram_parts.h"

#include <openssl/crypto.h>

#include <charconv>
#include <utility>

namespace pgchaperone::session {

using namespace scram;

namespace {

constexpr std::string_view bound_header = "p=tls-server-end-point,";
constexpr std::string_view prefix = "SCRAM-SHA-256$";
constexpr std::size_t salt_bytes_max = 1024;

ScramError malformed(std::string text) { return {ScramFailure::malformed, std::move(text)}; }
ScramError refused() { return {ScramFailure::refused, "the password is another one"}; }

bool same_bytes(std::string_view one, std::string_view other) {
    return one.size() == other.size() && CRYPTO_memcmp(one.data(), other.data(), one.size()) == 0;
}

std::optional<std::uint32_t> count_of(std::string_view text) {
    std::uint32_t value = 0;
    const auto [stop, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (problem != std::errc() || stop != text.data() + text.size()) return std::nullopt;
    return value;
}

// Up to `end`, which is taken off, too.
std::optional<std::string_view> take_up_to(std::string_view& text, char end) {
    const std::size_t at = text.find(end);
    if (at == text.npos) return std::nullopt;
    const std::string_view taken = text.substr(0, at);
    text.remove_prefix(at + 1);
    return taken;
}

// StoredKey and ServerKey of a salted password; empty where libcrypto fails.
std::pair<std::string, std::string> keys_of(std::string_view password, std::string_view salt,
                                            std::uint32_t iterations) {
    const Secret prepared = prepare_password(password);
    const Secret salted = salted_password(prepared.view(), salt, iterations);
    if (salted.empty()) return {};
    const Secret client_key = hmac(salted.view(), "Client Key");
    const Secret stored = sha_256(client_key.view());
    const Secret server = hmac(salted.view(), "Server Key");
    if (stored.view().size() != hash_size || server.view().size() != hash_size) return {};
    return {std::string(stored.view()), std::string(server.view())};
}

}  // namespace

std::optional<ScramVerifier> ScramVerifier::parse(std::string_view text) {
    if (!text.starts_with(prefix)) return std::nullopt;
    text.remove_prefix(prefix.size());
    const auto iterations_text = take_up_to(text, ':');
    const auto salt_text = iterations_text ? take_up_to(text, '$') : std::nullopt;
    const auto stored_text = salt_text ? take_up_to(text, ':') : std::nullopt;
    if (!stored_text) return std::nullopt;
    const auto iterations = count_of(*iterations_text);
    auto salt = from_base64(*salt_text);
    auto stored = from_base64(*stored_text);
    auto server = from_base64(text);
    if (!iterations || *iterations < 1 || *iterations > ScramClient::iterations_limit || !salt ||
        salt->size() > salt_bytes_max || !stored || stored->size() != hash_size || !server ||
        server->size() != hash_size)
        return std::nullopt;
    return ScramVerifier{*iterations, std::move(*salt), std::move(*stored), std::move(*server)};
}

std::optional<ScramVerifier> ScramVerifier::make(std::string_view password, std::string_view salt,
                                                 std::uint32_t iterations) {
    auto [stored, server] = keys_of(password, salt, iterations);
    if (stored.empty()) return std::nullopt;
    return ScramVerifier{iterations, std::string(salt), std::move(stored), std::move(server)};
}

ScramVerifier ScramVerifier::imaginary(std::string_view name, std::string_view secret,
                                       std::uint32_t iterations) {
    const auto drawn = [&](std::string_view what) {
        return std::string(hmac(secret, std::string(what) + std::string(name)).view());
    };
    return {iterations, drawn("salt ").substr(0, salt_bytes), drawn("stored "), drawn("server ")};
}

std::string ScramVerifier::text() const {
    return std::string(prefix) + std::to_string(iterations) + ":" + to_base64(salt) + "$" +
           to_base64(stored_key) + ":" + to_base64(server_key);
}

bool ScramVerifier::matches(std::string_view password) const {
    auto [stored, server] = keys_of(password, salt, iterations);
    const bool same = !stored.empty() && same_bytes(stored, stored_key);
    session::wipe(stored);
    session::wipe(server);
    return same;
}

ScramServer::ScramServer(ScramVerifier verifier, bool known, std::string nonce,
                         std::string tls_server_end_point)
    : verifier_(std::move(verifier)),
      known_(known),
      nonce_(std::move(nonce)),
      tls_server_end_point_(std::move(tls_server_end_point)) {}

std::vector<std::string_view> ScramServer::mechanisms() const {
    if (tls_server_end_point_.empty()) return {sha_256_name};
    return {sha_256_plus_name, sha_256_name};
}

ScramResult<std::string> ScramServer::first(std::string_view mechanism,
                                            std::string_view client_first) {
    if (state_ != State::started) return malformed("the SCRAM messages are out of order");
    state_ = State::over;
    const bool able = !tls_server_end_point_.empty();
    if (mechanism != sha_256_name && !(able && mechanism == sha_256_plus_name))
        return malformed("\"" + shown(mechanism) + "\" is no SASL mechanism that was offered");
    bound_ = mechanism == sha_256_plus_name;

    std::string_view left = client_first;
    if (bound_) {
        if (!left.starts_with(bound_header))
            return malformed(
                "SCRAM-SHA-256-PLUS needs channel binding of the type tls-server-end-point");
        left.remove_prefix(bound_header.size());
    } else if (left.starts_with("y,")) {
        // It believes that we can't, and was told that we can: somebody took the offer away.
        if (able)
            return malformed(
                "the client did not hear that channel binding is offered; somebody on the way may "
                "have removed that");
        left.remove_prefix(2);
    } else if (left.starts_with("n,")) {
        left.remove_prefix(2);
    } else {
        return malformed("the client's first SCRAM message has no flag for channel binding");
    }
    if (left.starts_with("a=")) return malformed("an authorization identity is not supported");
    if (!left.starts_with(",")) return malformed("the client's first SCRAM message is malformed");
    left.remove_prefix(1);
    gs2_header_ = client_first.substr(0, client_first.size() - left.size());
    client_first_bare_ = left;

    if (left.starts_with("m="))
        return malformed("the client demands an extension of SCRAM that is not known here");
    // The name that counts stands in the StartupMessage.
    const auto name = take_attribute(left, 'n');
    const auto nonce = take_attribute(left, 'r');
    if (!name || !nonce || nonce->empty() || !printable_without_comma(*nonce))
        return malformed("the client's first SCRAM message is malformed");

    nonce_.insert(0, *nonce);
    server_first_ = "r=" + nonce_ + ",s=" + to_base64(verifier_.salt) +
                    ",i=" + std::to_string(verifier_.iterations);
    state_ = State::asked;
    return server_first_;
}

ScramResult<std::string> ScramServer::final(std::string_view client_final) {
    if (state_ != State::asked) return malformed("the SCRAM messages are out of order");
    state_ = State::over;
    std::string_view left = client_final;
    const auto binding = take_attribute(left, 'c');
    const auto nonce = take_attribute(left, 'r');
    // Between the nonce and the proof there may be extensions, which may be ignored.
    const std::size_t proof_at = client_final.rfind(",p=");
    if (!binding || !nonce || proof_at == client_final.npos)
        return malformed("the client's last SCRAM message is malformed");
    const auto expected = to_base64(gs2_header_ + (bound_ ? tls_server_end_point_ : std::string()));
    if (*binding != expected)
        return ScramError{ScramFailure::impostor,
                          "the client's password check is bound to another connection: somebody "
                          "may be between it and pgchaperone"};
    if (!same_bytes(*nonce, nonce_))
        return malformed("the client's SCRAM nonce is not the one of this exchange");
    const auto proof = from_base64(client_final.substr(proof_at + 3));
    if (!proof || proof->size() != hash_size)
        return malformed("the client's SCRAM proof is malformed");

    const std::string conversation = client_first_bare_ + "," + server_first_ + "," +
                                     std::string(client_final.substr(0, proof_at));
    const Secret signature = hmac(verifier_.stored_key, conversation);
    const Secret answer = hmac(verifier_.server_key, conversation);
    if (signature.view().size() != hash_size || answer.view().size() != hash_size)
        return ScramError{ScramFailure::library,
                          "SCRAM cannot be computed here: OpenSSL's SHA-256 does not work"};
    std::string client_key(hash_size, '\0');
    for (std::size_t i = 0; i < hash_size; ++i)
        client_key[i] = static_cast<char>((*proof)[i] ^ signature.view()[i]);
    const Secret stored = sha_256(client_key);
    session::wipe(client_key);
    const bool right = same_bytes(stored.view(), verifier_.stored_key);
    if (!right || !known_) return refused();
    return "v=" + to_base64(answer.view());
}

}  // namespace pgchaperone::session
