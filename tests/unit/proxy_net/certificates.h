#pragma once
// Certificates made while the test runs, so that none ever expires in the repository.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <openssl/evp.h>
#include <openssl/x509.h>

namespace pgchaperone::test {

using KeyPtr = std::shared_ptr<EVP_PKEY>;
using X509Ptr = std::shared_ptr<X509>;

// "EC", "RSA", "RSA-PSS" or "ED25519".
KeyPtr make_key(const std::string& kind = "EC");

struct CertificateRequest {
    std::string common_name = "db.example.com";
    std::string subject_alternatives{};  // as openssl.cnf writes it: "DNS:a.example,IP:10.0.0.1"
    std::string extended_key_usage{};    // "serverAuth", "clientAuth"; empty: no such extension
    std::string hash = "SHA256";  // of the issuer's signature; empty: the key's own (Ed25519)
    std::string key_kind = "EC";
    bool pss_signature = false;  // sign with RSA-PSS by an RSA key of the issuer
    long valid_from_s = -3600;   // from now
    long valid_to_s = 3600;
};

struct Identity {
    X509Ptr certificate;
    KeyPtr key;
    std::string certificate_pem() const;
    std::string certificate_der() const;
    std::string key_pem(const std::string& passphrase = {}) const;
};

// A certificate authority that signs what it is asked to.
class Authority {
public:
    explicit Authority(const std::string& common_name = "Test CA",
                       const std::string& key_kind = "EC");
    Identity issue(const CertificateRequest& request = {}) const;
    const Identity& identity() const { return identity_; }

private:
    Identity identity_;
};

Identity self_signed(const CertificateRequest& request);

// A directory that is removed with everything in it.
class TemporaryDirectory {
public:
    TemporaryDirectory();
    ~TemporaryDirectory();
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

    // Writes a file (mode 0600) and returns its path.
    std::filesystem::path write(const std::string& name, const std::string& content) const;
    const std::filesystem::path& path() const { return path_; }

private:
    std::filesystem::path path_;
};

}  // namespace pgchaperone::test
