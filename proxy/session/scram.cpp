#include "proxy/session/scram.h"

#include "proxy/session/scram_parts.h"

#include "protocol/codec.h"
#include "protocol/head.h"
#include "protocol/messages.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stringprep.h>

#include <array>
#include <cassert>
#include <charconv>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <utility>
#include <vector>

namespace pgchaperone::session {

using namespace scram;

namespace {

constexpr std::string_view plus_suffix = "-PLUS";

ScramError malformed(std::string text) { return {ScramFailure::malformed, std::move(text)}; }
ScramError unsupported(std::string text) { return {ScramFailure::unsupported, std::move(text)}; }
ScramError library(std::string text) { return {ScramFailure::library, std::move(text)}; }

// RFC 5802's saslname: the two characters that the message's own grammar uses.
std::string saslname(std::string_view name) {
    std::string out;
    for (const char c : name) {
        if (c == '=') {
            out += "=3D";
        } else if (c == ',') {
            out += "=2C";
        } else {
            out += c;
        }
    }
    return out;
}

struct ServerFirst {
    std::string_view nonce;
    std::string salt;
    std::uint32_t iterations = 0;
};

ScramResult<ServerFirst> read_server_first(std::string_view message, std::string_view our_nonce) {
    if (message.starts_with("m="))
        return unsupported("the server demands an extension of SCRAM that is not known here");
    const auto nonce = take_attribute(message, 'r');
    const auto salt_text = take_attribute(message, 's');
    const auto iterations_text = take_attribute(message, 'i');
    // What follows are extensions that the server may send and we may ignore.
    if (!nonce || !salt_text || !iterations_text)
        return malformed("the server's first SCRAM message is malformed");
    if (!nonce->starts_with(our_nonce) || nonce->size() == our_nonce.size() ||
        !printable_without_comma(*nonce))
        return malformed(
            "the server's SCRAM nonce does not continue ours: somebody may be replaying");
    auto salt = from_base64(*salt_text);
    if (!salt) return malformed("the server's SCRAM salt is malformed");
    std::uint32_t iterations = 0;
    const char* const end = iterations_text->data() + iterations_text->size();
    const auto [stop, problem] = std::from_chars(iterations_text->data(), end, iterations);
    if (problem != std::errc() || stop != end)
        return malformed("the server's SCRAM iteration count is malformed");
    if (iterations < 1 || iterations > ScramClient::iterations_limit)
        return malformed("the server asks for " + shown(*iterations_text) +
                         " SCRAM iterations; 1 to " +
                         std::to_string(ScramClient::iterations_limit) + " are accepted");
    return ServerFirst{*nonce, std::move(*salt), iterations};
}

std::string hexadecimal(std::string_view bytes) {
    constexpr char digits[] = "0123456789abcdef";
    std::string out;
    for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        out += digits[byte >> 4];
        out += digits[byte & 15];
    }
    return out;
}

std::optional<std::string> md5_hexadecimal(std::string_view bytes) {
    std::array<unsigned char, 16> out;
    unsigned size = 0;
    if (EVP_Digest(bytes.data(), bytes.size(), out.data(), &size, EVP_md5(), nullptr) != 1) {
        ERR_clear_error();
        return std::nullopt;
    }
    return hexadecimal({reinterpret_cast<const char*>(out.data()), size});
}

}  // namespace

void throw_exception_from_error(const ScramError& problem, const boost::source_location&) {
    throw std::runtime_error(problem.text);
}

std::ostream& operator<<(std::ostream& out, const ScramError& problem) {
    return out << problem.text;
}

ScramResult<MechanismOffer> read_mechanisms(std::string_view body) {
    const auto message = protocol::decode<protocol::AuthenticationSASL>(body);
    if (!message) return malformed("the server's list of SASL mechanisms is malformed");
    MechanismOffer offer;
    for (const std::string_view name : message->mechanisms) {
        offer.scram_sha_256 |= name == sha_256_name;
        offer.scram_sha_256_plus |= name == sha_256_plus_name;
    }
    return offer;
}

ScramResult<std::string> without_channel_binding(std::string_view body) {
    auto message = protocol::decode<protocol::AuthenticationSASL>(body);
    if (!message) return malformed("the server's list of SASL mechanisms is malformed");
    std::erase_if(message->mechanisms,
                  [](std::string_view name) { return name.ends_with(plus_suffix); });
    if (message->mechanisms.empty())
        return unsupported(
            "the server offers no SASL mechanism without channel binding, and the "
            "client is on another channel");
    std::string whole;
    if (!protocol::encode(*message, whole))
        return malformed("the server's list of SASL mechanisms is too long");
    return whole.substr(protocol::head_size);
}

ScramResult<ScramClient> ScramClient::start(MechanismOffer offer, ScramSetup setup) {
    assert(!setup.nonce.empty() && printable_without_comma(setup.nonce));
    const bool wanted = setup.channel_binding != ChannelBinding::disable;
    const bool able = wanted && !setup.tls_server_end_point.empty();
    const bool bound = able && offer.scram_sha_256_plus;
    if (setup.channel_binding == ChannelBinding::require && !bound)
        return unsupported(
            able ? "channel binding is required and the server does not offer it"
                 : "channel binding is required and this connection has nothing to bind to");
    if (!bound && !offer.scram_sha_256)
        return unsupported("the server offers no SASL mechanism that is known here");

    ScramClient client;
    client.mechanism_ = bound ? sha_256_plus_name : sha_256_name;
    client.gs2_header_ = bound ? "p=tls-server-end-point,," : able ? "y,," : "n,,";
    if (bound) client.channel_binding_data_ = std::move(setup.tls_server_end_point);
    client.client_first_bare_ = "n=" + saslname(setup.user) + ",r=" + setup.nonce;
    client.nonce_ = std::move(setup.nonce);
    client.password_ = std::move(setup.password);
    return client;
}

std::string ScramClient::client_first() const { return gs2_header_ + client_first_bare_; }

ScramResult<std::string> ScramClient::client_final(std::string_view server_first) {
    if (state_ != State::started) return malformed("the server's SCRAM messages are out of order");
    state_ = State::failed;
    const Secret password = std::move(password_);
    const auto server = read_server_first(server_first, nonce_);
    if (!server) return server.error();

    const std::string without_proof = "c=" + to_base64(gs2_header_ + channel_binding_data_) +
                                      ",r=" + std::string(server->nonce);
    const std::string conversation = client_first_bare_ + "," + std::string(server_first) + "," +
                                     without_proof;
    const Secret prepared = prepare_password(password.view());
    const Secret salted = salted_password(prepared.view(), server->salt, server->iterations);
    const Secret client_key = hmac(salted.view(), "Client Key");
    const Secret stored_key = sha_256(client_key.view());
    const Secret client_signature = hmac(stored_key.view(), conversation);
    const Secret server_key = hmac(salted.view(), "Server Key");
    server_signature_ = hmac(server_key.view(), conversation);
    for (const Secret* part : {&salted, &client_key, &stored_key, &client_signature, &server_key,
                               static_cast<const Secret*>(&server_signature_)})
        if (part->view().size() != hash_size) {
            ERR_clear_error();
            return library("SCRAM cannot be computed here: OpenSSL's SHA-256 does not work");
        }

    std::string proof(hash_size, '\0');
    for (std::size_t i = 0; i < hash_size; ++i)
        proof[i] = static_cast<char>(client_key.view()[i] ^ client_signature.view()[i]);
    state_ = State::answered;
    return without_proof + ",p=" + to_base64(proof);
}

ScramResult<void> ScramClient::verify(std::string_view server_final) {
    if (state_ != State::answered) return malformed("the server's SCRAM messages are out of order");
    state_ = State::failed;
    const Secret expected = std::move(server_signature_);
    if (const auto refusal = take_attribute(server_final, 'e'))
        return ScramError{ScramFailure::refused,
                          "the server refused the SCRAM exchange: " + shown(*refusal)};
    const auto text = take_attribute(server_final, 'v');
    const auto signature = text ? from_base64(*text) : std::nullopt;
    if (!signature || signature->size() != hash_size)
        return malformed("the server's last SCRAM message is malformed");
    if (CRYPTO_memcmp(signature->data(), expected.view().data(), hash_size) != 0)
        return ScramError{ScramFailure::impostor,
                          "the server could not prove that it knows the password: it may be an "
                          "impostor"};
    state_ = State::verified;
    return {};
}

ScramResult<std::string> md5_password(std::string_view user, std::string_view password,
                                      std::string_view salt) {
    if (salt.size() != 4) return malformed("the server's md5 salt is malformed");
    std::string text = std::string(password) + std::string(user);
    auto inner = md5_hexadecimal(text);
    wipe(text);
    if (inner) {
        *inner += salt;
        auto outer = md5_hexadecimal(*inner);
        wipe(*inner);
        if (outer) return "md5" + *outer;
    }
    return library(
        "the server asks for an md5 password and this system's OpenSSL forbids MD5; set "
        "the role's password anew with password_encryption = scram-sha-256");
}

Secret prepare_password(std::string_view password) {
    bool ascii = true;
    for (const char c : password) ascii = ascii && static_cast<unsigned char>(c) < 0x80;
    // As PostgreSQL does it, plain ASCII is not looked at any closer.
    if (ascii) return Secret(password);
    // No character grows more than eighteenfold under NFKC (U+FDFA does).
    std::string buffer(password);
    buffer.resize(password.size() * 18 + 1);
    const int outcome = stringprep(buffer.data(), buffer.size(), STRINGPREP_NO_UNASSIGNED,
                                   stringprep_saslprep);
    Secret prepared(outcome == STRINGPREP_OK && buffer.front() != '\0'
                        ? std::string_view(buffer.c_str())
                        : password);
    wipe(buffer);
    return prepared;
}

}  // namespace pgchaperone::session
