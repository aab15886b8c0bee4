#include "proxy/session/scram.h"

#include "protocol/codec.h"
#include "protocol/head.h"
#include "protocol/messages.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
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
namespace {

constexpr std::string_view scram_sha_256 = "SCRAM-SHA-256";
constexpr std::string_view scram_sha_256_plus = "SCRAM-SHA-256-PLUS";
constexpr std::string_view plus_suffix = "-PLUS";
constexpr std::size_t hash_size = 32;

ScramError malformed(std::string text) { return {ScramFailure::malformed, std::move(text)}; }
ScramError unsupported(std::string text) { return {ScramFailure::unsupported, std::move(text)}; }
ScramError library(std::string text) { return {ScramFailure::library, std::move(text)}; }

const unsigned char* bytes_of(std::string_view text) {
    return reinterpret_cast<const unsigned char*>(text.data());
}

std::string to_base64(std::string_view bytes) {
    std::string out(4 * ((bytes.size() + 2) / 3) + 1, '\0');
    const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes_of(bytes),
                                     static_cast<int>(bytes.size()));
    out.resize(static_cast<std::size_t>(size));
    return out;
}

// Strict: complete groups of four, padding at the end only, no white space, no stray bits.
std::optional<std::string> from_base64(std::string_view text) {
    if (text.empty() || text.size() % 4 != 0) return std::nullopt;
    // OpenSSL skips surrounding white space and does not look at the bits that padding leaves over;
    // what does not come out again as it went in was not base64 as RFC 4648 has it.
    std::string out(text.size() / 4 * 3, '\0');
    const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes_of(text),
                                     static_cast<int>(text.size()));
    if (size < 0) {
        ERR_clear_error();
        return std::nullopt;
    }
    std::size_t padding = 0;
    while (padding < 2 && text[text.size() - 1 - padding] == '=') ++padding;
    out.resize(static_cast<std::size_t>(size) - padding);
    if (to_base64(out) != text) return std::nullopt;
    return out;
}

// HMAC-SHA-256; empty where libcrypto fails.
Secret hmac(std::string_view key, std::string_view text) {
    std::array<unsigned char, hash_size> out;
    unsigned size = 0;
    if (!HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), bytes_of(text), text.size(),
              out.data(), &size))
        size = 0;
    Secret result{{reinterpret_cast<const char*>(out.data()), size}};
    OPENSSL_cleanse(out.data(), out.size());
    return result;
}

Secret sha_256(std::string_view text) {
    std::array<unsigned char, hash_size> out;
    unsigned size = 0;
    if (EVP_Digest(text.data(), text.size(), out.data(), &size, EVP_sha256(), nullptr) != 1)
        size = 0;
    Secret result{{reinterpret_cast<const char*>(out.data()), size}};
    OPENSSL_cleanse(out.data(), out.size());
    return result;
}

// RFC 5802's Hi(): PBKDF2 with HMAC-SHA-256. Empty where libcrypto fails.
Secret salted_password(std::string_view password, std::string_view salt, std::uint32_t iterations) {
    std::array<unsigned char, hash_size> out;
    const bool done = PKCS5_PBKDF2_HMAC(password.data(), static_cast<int>(password.size()),
                                        bytes_of(salt), static_cast<int>(salt.size()),
                                        static_cast<int>(iterations), EVP_sha256(),
                                        static_cast<int>(out.size()), out.data()) == 1;
    Secret result{{reinterpret_cast<const char*>(out.data()), done ? out.size() : 0}};
    OPENSSL_cleanse(out.data(), out.size());
    return result;
}

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

bool printable_without_comma(std::string_view text) {
    for (const char c : text)
        if (c < 0x21 || c > 0x7e || c == ',') return false;
    return true;
}

// Takes "x=value" off the front of a message, up to the next comma or the end; nothing where
// another attribute stands there.
std::optional<std::string_view> take_attribute(std::string_view& message, char name) {
    if (message.size() < 2 || message[0] != name || message[1] != '=') return std::nullopt;
    const std::size_t end = message.find(',');
    const std::string_view value = message.substr(2, end == message.npos ? end : end - 2);
    message.remove_prefix(end == message.npos ? message.size() : end + 1);
    return value;
}

// For a message: printable ASCII, at most 100 characters of it.
std::string shown(std::string_view text) {
    std::string out;
    for (const char c : text.substr(0, 100)) out += c >= 0x20 && c < 0x7f ? c : '?';
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
        offer.scram_sha_256 |= name == scram_sha_256;
        offer.scram_sha_256_plus |= name == scram_sha_256_plus;
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
    client.mechanism_ = bound ? scram_sha_256_plus : scram_sha_256;
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
