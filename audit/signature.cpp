#include "audit/signature.h"

#include "audit/line.h"

#include <boost/json.hpp>

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cassert>
#include <cerrno>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace pgchaperone::audit {
namespace {

constexpr std::size_t id_digits = 16;
constexpr std::size_t signature_bytes = 64;
constexpr std::size_t signature_characters = 88;  // in base64
constexpr std::string_view signature_member = ",\"signature\":\"";

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;
using Context = std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)>;

std::string words(int error) { return std::generic_category().message(error); }

// A key that needs a passphrase is none that a process can start with by itself.
int no_passphrase(char*, int, int, void*) { return -1; }

File open_file(const std::filesystem::path& path) {
    return {std::fopen(path.c_str(), "re"), &std::fclose};
}

std::shared_ptr<EVP_PKEY> shared(EVP_PKEY* key) { return {key, &EVP_PKEY_free}; }

std::string new_file(const std::filesystem::path& path, mode_t mode,
                     const std::function<bool(std::FILE*)>& write) {
    const int made = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (made < 0) return "cannot make " + path.string() + ": " + words(errno);
    std::FILE* const file = ::fdopen(made, "w");
    const bool written = file != nullptr && write(file);
    const bool closed = file != nullptr && std::fclose(file) == 0;
    if (written && closed) return {};
    const int error = errno;
    ::unlink(path.c_str());
    return "cannot write " + path.string() + ": " + words(error);
}

}  // namespace

void throw_exception_from_error(const KeyError& error, const boost::source_location&) {
    throw std::runtime_error(error.text);
}

Key::Key(std::shared_ptr<evp_pkey_st> key) : key_(std::move(key)) {
    std::array<unsigned char, 32> raw;
    std::size_t size = raw.size();
    const bool read = EVP_PKEY_get_raw_public_key(key_.get(), raw.data(), &size) == 1;
    assert(read && size == raw.size());
    (void)read;
    id_ = sha_256_hex({reinterpret_cast<const char*>(raw.data()), size}).substr(0, id_digits);
}

boost::system::result<Key, KeyError> Key::load_private(const std::filesystem::path& path) {
    const File file = open_file(path);
    if (!file)
        return KeyError{"cannot read the audit log's key " + path.string() + ": " + words(errno)};
    auto key = shared(PEM_read_PrivateKey(file.get(), nullptr, &no_passphrase, nullptr));
    ERR_clear_error();
    if (!key || EVP_PKEY_get_base_id(key.get()) != EVP_PKEY_ED25519)
        return KeyError{path.string() +
                        " is no private Ed25519 key in PEM without a passphrase; make one with "
                        "`pgchaperone audit key FILE`"};
    return Key(std::move(key));
}

boost::system::result<Key, KeyError> Key::load_public(const std::filesystem::path& path) {
    File file = open_file(path);
    if (!file) return KeyError{"cannot read the key " + path.string() + ": " + words(errno)};
    auto key = shared(PEM_read_PUBKEY(file.get(), nullptr, &no_passphrase, nullptr));
    if (!key) {
        std::rewind(file.get());
        key = shared(PEM_read_PrivateKey(file.get(), nullptr, &no_passphrase, nullptr));
    }
    ERR_clear_error();
    if (!key || EVP_PKEY_get_base_id(key.get()) != EVP_PKEY_ED25519)
        return KeyError{path.string() +
                        " is no public Ed25519 key in PEM; it is the file whose name ends in .pub"};
    return Key(std::move(key));
}

std::string Key::sign(std::string_view bytes) const {
    const Context context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
    std::array<unsigned char, signature_bytes> raw;
    std::size_t size = raw.size();
    const bool done = context &&
                      EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key_.get()) ==
                          1 &&
                      EVP_DigestSign(context.get(), raw.data(), &size,
                                     reinterpret_cast<const unsigned char*>(bytes.data()),
                                     bytes.size()) == 1;
    assert(done && size == raw.size());
    (void)done;
    std::array<unsigned char, signature_characters + 1> text;
    const int length = EVP_EncodeBlock(text.data(), raw.data(), static_cast<int>(size));
    return {reinterpret_cast<const char*>(text.data()), static_cast<std::size_t>(length)};
}

bool Key::verifies(std::string_view bytes, std::string_view signature) const {
    if (signature.size() != signature_characters) return false;
    // Decoding fills whole groups of three: two bytes more than there are.
    std::array<unsigned char, signature_bytes + 2> raw;
    if (EVP_DecodeBlock(raw.data(), reinterpret_cast<const unsigned char*>(signature.data()),
                        static_cast<int>(signature.size())) != static_cast<int>(raw.size()))
        return false;
    const Context context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
    const bool good = context &&
                      EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, key_.get()) ==
                          1 &&
                      EVP_DigestVerify(context.get(), raw.data(), signature_bytes,
                                       reinterpret_cast<const unsigned char*>(bytes.data()),
                                       bytes.size()) == 1;
    ERR_clear_error();
    return good;
}

std::string make_key_pair(const std::filesystem::path& file) {
    const auto key = shared(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
    if (!key) return "OpenSSL cannot make an Ed25519 key";
    std::string problem = new_file(file, S_IRUSR | S_IWUSR, [&](std::FILE* out) {
        return PEM_write_PrivateKey(out, key.get(), nullptr, nullptr, 0, nullptr, nullptr) == 1;
    });
    if (!problem.empty()) return problem;
    std::filesystem::path for_others = file;
    for_others += ".pub";
    problem = new_file(for_others, S_IRUSR | S_IWUSR | S_IRGRP | S_IROTH,
                       [&](std::FILE* out) { return PEM_write_PUBKEY(out, key.get()) == 1; });
    // One without the other is of no use.
    if (!problem.empty()) ::unlink(file.c_str());
    return problem;
}

std::string make_checkpoint_line(const Key& key, std::chrono::system_clock::time_point time,
                                 const ChainPoint& after, std::uint64_t from) {
    std::string line = make_event_line(
        {"checkpoint",
         {{.name = "from", .value = std::to_string(from), .number = true},
          {.name = "key", .value = key.id()}}},
        time, after);
    line.pop_back();  // the closing brace
    const std::string signature = key.sign(line);
    line += signature_member;
    line += signature;
    line += "\"}";
    return line;
}

std::optional<Checkpoint> read_checkpoint(std::string_view line) {
    // Most lines are none, and need not be read as JSON once more.
    if (line.find("\"event\":\"checkpoint\"") == std::string_view::npos) return std::nullopt;
    boost::system::error_code problem;
    const boost::json::value value = boost::json::parse({line.data(), line.size()}, problem);
    if (problem || !value.is_object()) return std::nullopt;
    const boost::json::object& object = value.get_object();
    const auto text = [&object](std::string_view name) -> std::string {
        const auto* const member = object.if_contains({name.data(), name.size()});
        return member != nullptr && member->is_string() ? std::string(member->get_string().c_str())
                                                        : std::string();
    };
    if (text("event") != "checkpoint") return std::nullopt;
    Checkpoint checkpoint;
    const auto* const from = object.if_contains("from");
    if (from != nullptr && from->is_int64() && from->get_int64() > 0)
        checkpoint.from = static_cast<std::uint64_t>(from->get_int64());
    checkpoint.key = text("key");
    const std::size_t at = line.rfind(signature_member);
    if (at == std::string_view::npos || !line.ends_with("\"}")) return checkpoint;
    checkpoint.signed_bytes = line.substr(0, at);
    const std::size_t begin = at + signature_member.size();
    if (line.size() >= begin + 2)
        checkpoint.signature = line.substr(begin, line.size() - 2 - begin);
    return checkpoint;
}

}  // namespace pgchaperone::audit
