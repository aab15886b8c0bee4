#include "proxy/session/secret.h"

#include <openssl/crypto.h>

namespace pgchaperone::session {

void wipe(std::string& bytes) noexcept {
    // The spare capacity may hold what an earlier, longer value left behind; resizing to the
    // capacity never allocates.
    bytes.resize(bytes.capacity());
    OPENSSL_cleanse(bytes.data(), bytes.size());
    bytes.clear();
}

Secret Secret::take(std::string& bytes) {
    Secret secret{bytes};
    session::wipe(bytes);
    return secret;
}

Secret::Secret(Secret&& other) noexcept : bytes_(std::move(other.bytes_)) { other.wipe(); }

Secret& Secret::operator=(Secret&& other) noexcept {
    if (this != &other) {
        wipe();
        bytes_ = std::move(other.bytes_);
        other.wipe();
    }
    return *this;
}

void Secret::wipe() noexcept { session::wipe(bytes_); }

}  // namespace pgchaperone::session
