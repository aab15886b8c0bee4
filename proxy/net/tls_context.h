#pragma once
// One TLS configuration, loaded and checked: certificate, key, certificate authorities, rules of
// verification. A listener or an upstream has one; a reload makes a new one and leaves the old one
// to the channels that were made with it. Knows no socket, no message and no configuration file.
//
// What always holds: TLS 1.2 or newer, no compression, no renegotiation, no session tickets
// (nothing to resume from, so that a certificate is checked every time), ALPN `postgresql`.

#include <boost/system/result.hpp>

#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct ssl_ctx_st;

namespace pgchaperone::net {

// Why TLS did not come about or broke off, so that the host can choose a SQLSTATE and a log level.
enum class TlsFailure : std::uint8_t {
    configuration,      // a file is missing, unreadable or wrong
    not_tls,            // the peer sent something else: plain text, HTTP
    no_shared_version,  // the peer is too old (or too new)
    no_shared_cipher,
    no_shared_alpn,   // the peer speaks something else over TLS, or left ALPN out where it must be
    certificate,      // the peer's certificate is missing or did not pass
    refused_by_peer,  // the peer sent an alert: it does not like what we showed
    truncated,        // the connection ended without close_notify
    overload,         // the peer makes us answer without reading the answers
    protocol,         // anything else that violates TLS
};

// A failure with a text for people: what happened and, where we know it, what to do. ASCII, no line
// breaks.
struct TlsError {
    TlsFailure failure = TlsFailure::protocol;
    std::string text;
};
std::ostream& operator<<(std::ostream& out, const TlsError& error);  // the text

template <class T>
using TlsResult = boost::system::result<T, TlsError>;

// Makes result<T, TlsError>::value() throw std::runtime_error; for use while starting up only.
[[noreturn]] void throw_exception_from_error(const TlsError& error,
                                             const boost::source_location& where);

// For a server the words mean what PgBouncer's client_tls_sslmode says, for a client what libpq's
// sslmode says.
enum class TlsMode : std::uint8_t { disable, allow, prefer, require, verify_ca, verify_full };

struct TlsSettings {
    TlsMode mode = TlsMode::disable;
    std::filesystem::path certificate;  // PEM, leaf first, then its chain
    std::filesystem::path key;          // PEM, not protected by a passphrase
    // PEM bundle. For a client the word "system" stands for the certificate authorities of the
    // system.
    std::filesystem::path ca;
};

enum class TlsRole : std::uint8_t { server, client };

class TlsContext {
public:
    struct Parts;
    explicit TlsContext(Parts parts) noexcept;
    ~TlsContext();
    TlsContext(const TlsContext&) = delete;
    TlsContext& operator=(const TlsContext&) = delete;

    TlsRole role() const noexcept { return role_; }
    TlsMode mode() const noexcept { return mode_; }
    bool verifies_host_name() const noexcept;

    // What the operator should know although it works: a key that others may read. Complete
    // sentences.
    const std::vector<std::string>& warnings() const noexcept { return warnings_; }

    ssl_ctx_st* native() const noexcept { return context_; }

private:
    ssl_ctx_st* context_;
    TlsRole role_;
    TlsMode mode_;
    std::vector<std::string> warnings_;
};

using TlsContextPtr = std::shared_ptr<const TlsContext>;

// For a listener. `allow`, `prefer` and `require` ask for no client certificate; `verify_ca` and
// `verify_full` demand one that the CA file vouches for (both mean the same here, as in PgBouncer).
// `disable` is an error of the caller: there is nothing to load. The error's text names the file
// and what is wrong with it.
TlsResult<TlsContextPtr> make_server_context(const TlsSettings& settings);

// For an upstream, with libpq's rules: with a CA file the server's certificate is checked in every
// mode (so that `require` with one is `verify_ca`), `verify_ca` and `verify_full` need one, and
// `verify_full` also compares the name. A certificate and a key are shown to a server that asks.
// `disable` is an error of the caller.
TlsResult<TlsContextPtr> make_client_context(const TlsSettings& settings);

// What is wrong with the files of such settings, each looked at whatever is wrong with the others;
// `warning`: it works all the same, and the operator should know. For `config check`.
enum class TlsFile : std::uint8_t { certificate, key, ca };
struct TlsFileProblem {
    TlsFile file = TlsFile::certificate;
    std::string text;
    bool warning = false;
};
std::vector<TlsFileProblem> problems_of_tls_files(TlsRole role, const TlsSettings& settings);

// PostgreSQL's rule for private keys: a regular file, 0600 or less where it is ours, 0640 or less
// where it is root's. Returns an empty text or a sentence that says what to change.
std::string check_key_permissions(const std::filesystem::path& key);
// The same for another file with secrets in it; `what` it is: "file".
std::string check_secret_permissions(const std::string& what, const std::filesystem::path& file);

}  // namespace pgchaperone::net
