#include "proxy/session/scram_parts.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <array>

namespace pgchaperone::session::scram {
namespace {

const unsigned char* bytes_of(std::string_view text) {
    return reinterpret_cast<const unsigned char*>(text.data());
}

}  // namespace

std::string to_base64(std::string_view bytes) {
    std::string out(4 * ((bytes.size() + 2) / 3) + 1, '\0');
    const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes_of(bytes),
                                     static_cast<int>(bytes.size()));
    out.resize(static_cast<std::size_t>(size));
    return out;
}

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

bool printable_without_comma(std::string_view text) {
    for (const char c : text)
        if (c < 0x21 || c > 0x7e || c == ',') return false;
    return true;
}

std::optional<std::string_view> take_attribute(std::string_view& message, char name) {
    if (message.size() < 2 || message[0] != name || message[1] != '=') return std::nullopt;
    const std::size_t end = message.find(',');
    const std::string_view value = message.substr(2, end == message.npos ? end : end - 2);
    message.remove_prefix(end == message.npos ? message.size() : end + 1);
    return value;
}

std::string shown(std::string_view text) {
    std::string out;
    for (const char c : text.substr(0, 100)) out += c >= 0x20 && c < 0x7f ? c : '?';
    return out;
}

}  // namespace pgchaperone::session::scram
