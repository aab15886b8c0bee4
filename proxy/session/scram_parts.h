#pragma once
// What both sides of SCRAM-SHA-256 are computed from: base64, hashes and the grammar of its
// messages. Private to the two.

#include "proxy/session/secret.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pgchaperone::session::scram {

constexpr std::string_view sha_256_name = "SCRAM-SHA-256";
constexpr std::string_view sha_256_plus_name = "SCRAM-SHA-256-PLUS";
constexpr std::size_t hash_size = 32;

std::string to_base64(std::string_view bytes);
// Strict: complete groups of four, padding at the end only, no white space, no stray bits.
std::optional<std::string> from_base64(std::string_view text);

// HMAC-SHA-256; empty where libcrypto fails.
Secret hmac(std::string_view key, std::string_view text);
Secret sha_256(std::string_view text);
// RFC 5802's Hi(): PBKDF2 with HMAC-SHA-256. Empty where libcrypto fails.
Secret salted_password(std::string_view password, std::string_view salt, std::uint32_t iterations);

bool printable_without_comma(std::string_view text);
// Takes "x=value" off the front of a message, up to the next comma or the end; nothing where
// another attribute stands there.
std::optional<std::string_view> take_attribute(std::string_view& message, char name);
// For a message: printable ASCII, at most 100 characters of it.
std::string shown(std::string_view text);

}  // namespace pgchaperone::session::scram
