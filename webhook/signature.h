#pragma once
// Signatures by the convention of Standard Webhooks (standardwebhooks.com): who knows the secret
// can tell that a message comes from us, is whole, and is not an old one sent again. Pure.

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::webhook {

// The key in a secret as people keep it: whsec_ and Base64, or plain text. Nothing: what stands
// behind whsec_ is no Base64, or there is no key at all.
std::optional<std::string> key_of(std::string_view secret);
// Shorter keys can be guessed.
inline constexpr std::size_t key_bytes_min = 16;

// The header webhook-signature: one signature for each key, separated by blanks; "" without keys.
// `seconds`: the header webhook-timestamp, when this attempt is made.
std::string signature(const std::vector<std::string>& keys, std::string_view id,
                      std::chrono::seconds seconds, std::string_view body);

}  // namespace pgchaperone::webhook
