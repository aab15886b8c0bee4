#include "proxy/net/tls_context.h"

#include "proxy/net/tls_words.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ostream>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace pgchaperone::net {
namespace {

using ContextPtr = std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)>;

// ALPN's form on the wire: a length byte before each name.
constexpr unsigned char alpn_postgresql[] = "\x0apostgresql";
constexpr unsigned alpn_postgresql_size = sizeof alpn_postgresql - 1;

TlsError wrong(std::string text) { return {TlsFailure::configuration, std::move(text)}; }

// OpenSSL would ask on the terminal, where nobody sits. Notes that it wanted to.
int no_passphrase(char*, int, int, void* asked) {
    *static_cast<bool*>(asked) = true;
    return -1;
}

std::string unreadable(const char* what, const std::filesystem::path& file) {
    std::FILE* opened = std::fopen(file.c_str(), "re");
    if (!opened) {
        const int error = errno;
        return std::string("cannot read the ") + what + " " + file.string() + ": " +
               std::generic_category().message(error);
    }
    // A directory opens but does not read.
    char byte = 0;
    const bool readable = std::fread(&byte, 1, 1, opened) == 1;
    const int error = errno;
    const bool failed = std::ferror(opened) != 0;
    std::fclose(opened);
    if (failed)
        return std::string("cannot read the ") + what + " " + file.string() + ": " +
               std::generic_category().message(error);
    if (!readable) return std::string("the ") + what + " " + file.string() + " is empty";
    return {};
}

int select_alpn(SSL*, const unsigned char** chosen, unsigned char* chosen_size,
                const unsigned char* offered, unsigned offered_size, void*) {
    unsigned char* match = nullptr;
    const int outcome = SSL_select_next_proto(&match, chosen_size, alpn_postgresql,
                                              alpn_postgresql_size, offered, offered_size);
    if (outcome != OPENSSL_NPN_NEGOTIATED) return SSL_TLSEXT_ERR_ALERT_FATAL;
    *chosen = match;
    return SSL_TLSEXT_ERR_OK;
}

// Adds what the operator should know to `warnings`, as the next one does.
TlsResult<void> load_certificate(SSL_CTX* context, const TlsSettings& settings,
                                 std::vector<std::string>& warnings) {
    const std::string certificate = settings.certificate.string();
    if (std::string problem = unreadable("certificate", settings.certificate); !problem.empty())
        return wrong(std::move(problem));
    if (SSL_CTX_use_certificate_chain_file(context, certificate.c_str()) != 1)
        return wrong("the certificate " + certificate +
                     " cannot be used: " + take_openssl_reason() +
                     "; a PEM file with the certificate first, then "
                     "those of its issuers, is expected");
    const X509* own = SSL_CTX_get0_certificate(context);
    if (X509_cmp_current_time(X509_get0_notAfter(own)) < 0)
        warnings.push_back("the certificate " + certificate +
                           " has expired: peers that check it will refuse it");
    if (X509_cmp_current_time(X509_get0_notBefore(own)) > 0)
        warnings.push_back("the certificate " + certificate +
                           " is not valid yet: peers that check it will refuse it");
    return {};
}

// Whether it belongs to the certificate is only asked where one was loaded.
TlsResult<void> load_key(SSL_CTX* context, const TlsSettings& settings,
                         std::vector<std::string>& warnings) {
    const std::string certificate = settings.certificate.string();
    const std::string key = settings.key.string();
    if (std::string problem = unreadable("key", settings.key); !problem.empty())
        return wrong(std::move(problem));
    // Asked before: a key of another kind takes the certificate's place.
    const bool has_certificate = SSL_CTX_get0_certificate(context) != nullptr;
    bool passphrase_asked = false;
    SSL_CTX_set_default_passwd_cb(context, &no_passphrase);
    SSL_CTX_set_default_passwd_cb_userdata(context, &passphrase_asked);
    const bool key_taken = SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM) == 1;
    SSL_CTX_set_default_passwd_cb(context, nullptr);
    SSL_CTX_set_default_passwd_cb_userdata(context, nullptr);
    if (!key_taken) {
        const unsigned long code = ERR_peek_error();
        const std::string words = take_openssl_reason();
        if (ERR_GET_LIB(code) == ERR_LIB_X509 && ERR_GET_REASON(code) == X509_R_KEY_VALUES_MISMATCH)
            return wrong("the key " + key + " does not belong to the certificate " + certificate);
        if (passphrase_asked)
            return wrong("the key " + key +
                         " is protected by a passphrase and nobody is there to type it; store it "
                         "without (openssl pkey -in OLD -out NEW), readable for its owner only");
        return wrong("the key " + key + " cannot be used: " + words +
                     "; a private key in PEM is expected");
    }
    if (has_certificate && SSL_CTX_check_private_key(context) != 1) {
        ERR_clear_error();
        return wrong("the key " + key + " does not belong to the certificate " + certificate);
    }
    if (std::string problem = check_key_permissions(settings.key); !problem.empty())
        warnings.push_back(std::move(problem));
    return {};
}

// The certificate chain and its key.
TlsResult<void> load_identity(SSL_CTX* context, const TlsSettings& settings,
                              std::vector<std::string>& warnings) {
    if (auto done = load_certificate(context, settings, warnings); !done) return done;
    return load_key(context, settings, warnings);
}

TlsResult<void> load_authorities(SSL_CTX* context, const std::filesystem::path& ca) {
    if (std::string problem = unreadable("CA file", ca); !problem.empty())
        return wrong(std::move(problem));
    if (SSL_CTX_load_verify_file(context, ca.c_str()) != 1)
        return wrong("the CA file " + ca.string() + " cannot be used: " + take_openssl_reason() +
                     "; one or more certificates in PEM are expected");
    return {};
}

// What holds for every context, whatever its role.
TlsResult<void> set_ground_rules(SSL_CTX* context) {
    // The system's own policy may ask for more; it never gets less.
    const long least = SSL_CTX_get_min_proto_version(context);
    if (least < TLS1_2_VERSION && SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1)
        return wrong("TLS 1.2 is not available: " + take_openssl_reason());
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                     SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return {};
}

bool needs_authorities(TlsMode mode) {
    return mode == TlsMode::verify_ca || mode == TlsMode::verify_full;
}

}  // namespace

struct TlsContext::Parts {
    ContextPtr context;
    TlsRole role;
    TlsMode mode;
    std::vector<std::string> warnings;
};

void throw_exception_from_error(const TlsError& error, const boost::source_location&) {
    throw std::runtime_error(error.text);
}

std::ostream& operator<<(std::ostream& out, const TlsError& error) { return out << error.text; }

TlsContext::TlsContext(Parts parts) noexcept
    : context_(parts.context.release()),
      role_(parts.role),
      mode_(parts.mode),
      warnings_(std::move(parts.warnings)) {}

TlsContext::~TlsContext() { SSL_CTX_free(context_); }

bool TlsContext::verifies_host_name() const noexcept {
    return role_ == TlsRole::client && mode_ == TlsMode::verify_full;
}

TlsResult<TlsContextPtr> make_server_context(const TlsSettings& settings) {
    if (settings.mode == TlsMode::disable)
        return wrong("TLS is disabled: there is nothing to load");
    if (settings.certificate.empty() || settings.key.empty())
        return wrong(
            "TLS for clients needs a certificate and a key, and one of them is not configured");
    if (needs_authorities(settings.mode) && settings.ca.empty())
        return wrong("verifying clients needs a CA file, and none is configured");

    ERR_clear_error();
    TlsContext::Parts parts{
        {SSL_CTX_new(TLS_server_method()), &SSL_CTX_free}, TlsRole::server, settings.mode, {}};
    SSL_CTX* context = parts.context.get();
    if (!context) return wrong("OpenSSL cannot be used: " + take_openssl_reason());
    if (auto done = set_ground_rules(context); !done) return done.error();
    if (auto done = load_identity(context, settings, parts.warnings); !done) return done.error();
    SSL_CTX_set_dh_auto(context, 1);
    SSL_CTX_set_alpn_select_cb(context, &select_alpn, nullptr);
    if (needs_authorities(settings.mode)) {
        if (auto done = load_authorities(context, settings.ca); !done) return done.error();
        STACK_OF(X509_NAME)* names = SSL_load_client_CA_file(settings.ca.c_str());
        if (!names)
            return wrong("the CA file " + settings.ca.string() +
                         " cannot be used: " + take_openssl_reason());
        SSL_CTX_set_client_CA_list(context, names);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    }
    return TlsContextPtr(std::make_shared<const TlsContext>(std::move(parts)));
}

TlsResult<TlsContextPtr> make_client_context(const TlsSettings& settings) {
    if (settings.mode == TlsMode::disable)
        return wrong("TLS is disabled: there is nothing to load");
    if (needs_authorities(settings.mode) && settings.ca.empty())
        return wrong(
            "verifying the server needs a CA file, and none is configured; \"system\" stands for "
            "the "
            "certificate authorities of this system");
    if (settings.certificate.empty() != settings.key.empty())
        return wrong(settings.key.empty() ? "a client certificate is configured without its key"
                                          : "a client key is configured without its certificate");
    const bool system_ca = settings.ca == "system";
    if (system_ca && settings.mode != TlsMode::verify_full)
        // Anybody can have a certificate from a public authority; only the name makes it the right
        // one.
        return wrong(
            "the certificate authorities of the system can only be used with mode verify-full");

    ERR_clear_error();
    TlsContext::Parts parts{
        {SSL_CTX_new(TLS_client_method()), &SSL_CTX_free}, TlsRole::client, settings.mode, {}};
    SSL_CTX* context = parts.context.get();
    if (!context) return wrong("OpenSSL cannot be used: " + take_openssl_reason());
    if (auto done = set_ground_rules(context); !done) return done.error();
    if (!settings.certificate.empty())
        if (auto done = load_identity(context, settings, parts.warnings); !done)
            return done.error();
    if (system_ca) {
        if (SSL_CTX_set_default_verify_paths(context) != 1)
            return wrong("the certificate authorities of the system cannot be used: " +
                         take_openssl_reason());
    } else if (!settings.ca.empty()) {
        if (auto done = load_authorities(context, settings.ca); !done) return done.error();
    }
    SSL_CTX_set_verify(context, settings.ca.empty() ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, nullptr);
    // Zero is success here.
    if (SSL_CTX_set_alpn_protos(context, alpn_postgresql, alpn_postgresql_size) != 0)
        return wrong("ALPN cannot be used: " + take_openssl_reason());
    return TlsContextPtr(std::make_shared<const TlsContext>(std::move(parts)));
}

std::vector<TlsFileProblem> problems_of_tls_files(TlsRole role, const TlsSettings& settings) {
    std::vector<TlsFileProblem> out;
    if (settings.mode == TlsMode::disable) return out;
    ERR_clear_error();
    const ContextPtr context(SSL_CTX_new(TLS_method()), &SSL_CTX_free);
    const ContextPtr context_of_key(SSL_CTX_new(TLS_method()), &SSL_CTX_free);
    const auto note = [&](TlsFile file, const TlsResult<void>& done,
                          std::vector<std::string>& warnings) {
        if (!done) out.push_back({file, done.error().text, false});
        for (std::string& one : warnings) out.push_back({file, std::move(one), true});
        warnings.clear();
    };
    if (context && context_of_key) {
        std::vector<std::string> warnings;
        if (!settings.certificate.empty()) {
            const auto done = load_certificate(context.get(), settings, warnings);
            note(TlsFile::certificate, done, warnings);
            SSL_CTX* const with = done ? context.get() : context_of_key.get();
            const auto key_done = load_key(with, settings, warnings);
            note(TlsFile::key, key_done, warnings);
        }
        const bool needed = role == TlsRole::client || needs_authorities(settings.mode);
        const bool of_system = role == TlsRole::client && settings.ca == "system";
        if (needed && !of_system && !settings.ca.empty())
            note(TlsFile::ca, load_authorities(context.get(), settings.ca), warnings);
    }
    for (const TlsFileProblem& one : out)
        if (!one.warning) return out;
    // What can be said of no file alone.
    const auto made = role == TlsRole::server ? make_server_context(settings)
                                              : make_client_context(settings);
    if (!made) out.push_back({TlsFile::certificate, made.error().text, false});
    return out;
}

std::string check_key_permissions(const std::filesystem::path& key) {
    return check_secret_permissions("key", key);
}

std::string check_secret_permissions(const std::string& what, const std::filesystem::path& file) {
    const std::string name = "the " + what + " " + file.string();
    struct stat status {};
    if (::stat(file.c_str(), &status) != 0)
        return "cannot look at " + name + ": " + std::generic_category().message(errno);
    if (!S_ISREG(status.st_mode)) return name + " is not a regular file";
    if (status.st_uid != ::geteuid() && status.st_uid != 0)
        return name + " must belong to the user who runs this, or to root";
    const mode_t forbidden = status.st_uid == 0 && ::geteuid() != 0 ? (S_IWGRP | S_IXGRP | S_IRWXO)
                                                                    : (S_IRWXG | S_IRWXO);
    if ((status.st_mode & forbidden) != 0) {
        const bool root = status.st_uid == 0 && ::geteuid() != 0;
        return name + " can be read or changed by others; chmod it to " +
               (root ? "0640 or less" : "0600 or less");
    }
    return {};
}

}  // namespace pgchaperone::net
