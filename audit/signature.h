#pragma once
// Signed checkpoints: a line of the log whose signature (Ed25519) says that everything before it is
// as the process wrote it that held the private key. Who may write the file, but has no key, can't
// write the past anew. Knows keys and one line; what the lines between checkpoints amount to is
// audit/verify.h's.

#include "audit/chain.h"

#include <boost/system/result.hpp>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

struct evp_pkey_st;

namespace pgchaperone::audit {

// Why a key can't be used, as a sentence that names the file.
struct KeyError {
    std::string text;
};
[[noreturn]] void throw_exception_from_error(const KeyError& error,
                                             const boost::source_location& where);

class Key {
public:
    // A PEM file with a private key in clear.
    static boost::system::result<Key, KeyError> load_private(const std::filesystem::path& file);
    // A PEM file with a public key; that of a private one will do.
    static boost::system::result<Key, KeyError> load_public(const std::filesystem::path& file);

    // Which key it is: the first 16 hexadecimal digits of the public key's SHA-256.
    const std::string& id() const { return id_; }

    std::string sign(std::string_view bytes) const;  // base64; of a private key only
    bool verifies(std::string_view bytes, std::string_view signature) const;

private:
    explicit Key(std::shared_ptr<evp_pkey_st> key);
    std::shared_ptr<evp_pkey_st> key_;
    std::string id_;
};

// Makes a pair of keys: `file` (mode 0600) and `file`.pub, neither of which may exist. Gives what
// is wrong, or nothing.
std::string make_key_pair(const std::filesystem::path& file);

// The checkpoint that stands behind `after` and speaks for the lines from number `from` up to
// itself.
std::string make_checkpoint_line(const Key& key, std::chrono::system_clock::time_point time,
                                 const ChainPoint& after, std::uint64_t from);

// What a line says of itself where it is a checkpoint. The signature is over the line's own bytes
// up to where `,"signature":` begins.
struct Checkpoint {
    std::uint64_t from = 0;
    std::string key;
    std::string signature;
    std::string_view signed_bytes;  // of the line
};
std::optional<Checkpoint> read_checkpoint(std::string_view line);

}  // namespace pgchaperone::audit
