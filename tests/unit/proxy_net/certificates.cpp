#include "certificates.h"

#include <openssl/buffer.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <stdexcept>

namespace pgchaperone::test {
namespace {

void must(bool worked, const char* what) {
    if (!worked) {
        ERR_print_errors_fp(stderr);
        throw std::runtime_error(std::string("cannot make a test certificate: ") + what);
    }
}

void add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
    must(extension != nullptr, "extension");
    must(X509_add_ext(certificate, extension, -1) == 1, "extension");
    X509_EXTENSION_free(extension);
}

void sign(X509* certificate, EVP_PKEY* key, const std::string& hash, bool pss) {
    EVP_MD_CTX* context = EVP_MD_CTX_new();
    EVP_PKEY_CTX* key_context = nullptr;
    const EVP_MD* function = hash.empty() ? nullptr : EVP_get_digestbyname(hash.c_str());
    must(EVP_DigestSignInit(context, &key_context, function, nullptr, key) == 1, "signature");
    if (pss) {
        must(EVP_PKEY_CTX_set_rsa_padding(key_context, RSA_PKCS1_PSS_PADDING) == 1, "PSS");
        must(EVP_PKEY_CTX_set_rsa_pss_saltlen(key_context, RSA_PSS_SALTLEN_DIGEST) == 1, "PSS");
    }
    must(X509_sign_ctx(certificate, context) > 0, "signature");
    EVP_MD_CTX_free(context);
}

X509Ptr build(const CertificateRequest& request, EVP_PKEY* key, const Identity* issuer,
              bool authority) {
    X509Ptr made(X509_new(), &X509_free);
    X509* certificate = made.get();
    X509_set_version(certificate, 2);
    static long serial = 1;
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(certificate), request.valid_from_s);
    X509_gmtime_adj(X509_getm_notAfter(certificate), request.valid_to_s);
    X509_NAME* name = X509_get_subject_name(certificate);
    must(X509_NAME_add_entry_by_txt(
             name, "CN", MBSTRING_UTF8,
             reinterpret_cast<const unsigned char*>(request.common_name.data()),
             static_cast<int>(request.common_name.size()), -1, 0) == 1,
         "name");
    X509* issuing = issuer ? issuer->certificate.get() : certificate;
    X509_set_issuer_name(certificate, X509_get_subject_name(issuing));
    X509_set_pubkey(certificate, key);
    add_extension(certificate, issuing, NID_basic_constraints,
                  authority ? "critical,CA:TRUE" : "CA:FALSE");
    if (!request.subject_alternatives.empty())
        add_extension(certificate, issuing, NID_subject_alt_name, request.subject_alternatives);
    if (!request.extended_key_usage.empty())
        add_extension(certificate, issuing, NID_ext_key_usage, request.extended_key_usage);
    sign(certificate, issuer ? issuer->key.get() : key, request.hash, request.pss_signature);
    return made;
}

template <class Write>
std::string through_bio(Write write) {
    BIO* bio = BIO_new(BIO_s_mem());
    must(write(bio) == 1, "PEM");
    BUF_MEM* memory = nullptr;
    BIO_get_mem_ptr(bio, &memory);
    std::string text(memory->data, memory->length);
    BIO_free(bio);
    return text;
}

}  // namespace

KeyPtr make_key(const std::string& kind) {
    EVP_PKEY* key = kind == "EC"        ? EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256")
                    : kind == "ED25519" ? EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519")
                    : kind == "RSA" || kind == "RSA-PSS"
                        ? EVP_PKEY_Q_keygen(nullptr, nullptr, kind.c_str(), std::size_t{2048})
                        : nullptr;
    must(key != nullptr, "key");
    return {key, &EVP_PKEY_free};
}

std::string Identity::certificate_pem() const {
    return through_bio([this](BIO* bio) { return PEM_write_bio_X509(bio, certificate.get()); });
}

std::string Identity::certificate_der() const {
    return through_bio([this](BIO* bio) { return i2d_X509_bio(bio, certificate.get()); });
}

std::string Identity::key_pem(const std::string& passphrase) const {
    return through_bio([&](BIO* bio) {
        return passphrase.empty()
                   ? PEM_write_bio_PrivateKey(bio, key.get(), nullptr, nullptr, 0, nullptr, nullptr)
                   : PEM_write_bio_PKCS8PrivateKey(
                         bio, key.get(), EVP_aes_256_cbc(), passphrase.data(),
                         static_cast<int>(passphrase.size()), nullptr, nullptr);
    });
}

Authority::Authority(const std::string& common_name, const std::string& key_kind) {
    CertificateRequest request;
    request.common_name = common_name;
    if (key_kind == "ED25519") request.hash.clear();
    identity_.key = make_key(key_kind);
    identity_.certificate = build(request, identity_.key.get(), nullptr, true);
}

Identity Authority::issue(const CertificateRequest& request) const {
    Identity made;
    made.key = make_key(request.key_kind);
    made.certificate = build(request, made.key.get(), &identity_, false);
    return made;
}

Identity self_signed(const CertificateRequest& request) {
    Identity made;
    made.key = make_key(request.key_kind);
    made.certificate = build(request, made.key.get(), nullptr, false);
    return made;
}

TemporaryDirectory::TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pgchaperone-XXXXXX").string();
    must(mkdtemp(pattern.data()) != nullptr, "directory");
    path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

std::filesystem::path TemporaryDirectory::write(const std::string& name,
                                                const std::string& content) const {
    const auto file = path_ / name;
    std::ofstream(file, std::ios::binary) << content;
    ::chmod(file.c_str(), 0600);
    return file;
}

}  // namespace pgchaperone::test
