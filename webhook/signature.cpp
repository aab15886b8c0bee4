#include "webhook/signature.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <stdexcept>

namespace pgchaperone::webhook {
namespace {

constexpr std::string_view secret_prefix = "whsec_";

const unsigned char* bytes_of(std::string_view text) {
    return reinterpret_cast<const unsigned char*>(text.data());
}

std::string base64(std::string_view bytes) {
    std::string out(4 * ((bytes.size() + 2) / 3) + 1, '\0');
    const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes_of(bytes),
                                     static_cast<int>(bytes.size()));
    out.resize(static_cast<std::size_t>(size));
    return out;
}

std::optional<std::string> from_base64(std::string_view text) {
    // Padding may be left out.
    std::string whole(text);
    while (!whole.empty() && whole.back() == '=') whole.pop_back();
    const std::size_t padding = (4 - whole.size() % 4) % 4;
    const bool good = std::all_of(whole.begin(), whole.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '+' || c == '/';
    });
    if (whole.empty() || !good || padding == 3 || whole.size() > 4096) return std::nullopt;
    whole.append(padding, '=');
    std::string out(whole.size() / 4 * 3, '\0');
    const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes_of(whole),
                                     static_cast<int>(whole.size()));
    if (size < 0) return std::nullopt;
    out.resize(static_cast<std::size_t>(size) - padding);
    return out;
}

}  // namespace

std::optional<std::string> key_of(std::string_view secret) {
    if (secret.starts_with(secret_prefix)) return from_base64(secret.substr(secret_prefix.size()));
    if (secret.empty()) return std::nullopt;
    return std::string(secret);
}

std::string signature(const std::vector<std::string>& keys, std::string_view id,
                      std::chrono::seconds seconds, std::string_view body) {
    std::string content(id);
    content += '.' + std::to_string(seconds.count()) + '.';
    content += body;
    std::string out;
    for (const std::string& key : keys) {
        unsigned char digest[EVP_MAX_MD_SIZE];
        unsigned size = 0;
        if (!HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), bytes_of(content),
                  content.size(), digest, &size))
            throw std::runtime_error("no HMAC from OpenSSL");
        out += (out.empty() ? "v1," : " v1,") +
               base64({reinterpret_cast<const char*>(digest), size});
    }
    return out;
}

}  // namespace pgchaperone::webhook
