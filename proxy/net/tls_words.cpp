#include "proxy/net/tls_words.h"

#include <arpa/inet.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string_view>

namespace pgchaperone::net {
namespace {

using BioPtr = std::unique_ptr<BIO, decltype(&BIO_free_all)>;

std::string verify_text(TlsRole us, const VerifyProblem& verify) {
    const bool client = us == TlsRole::client;
    std::string text = client ? "the server's certificate did not pass: "
                              : "the client's certificate did not pass: ";
    text += X509_verify_cert_error_string(verify.code);
    if (!verify.subject.empty())
        text += " (certificate \"" + verify.subject + "\", depth " + std::to_string(verify.depth) +
                ")";
    switch (verify.code) {
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
        case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
            text += client
                        ? "; the configured CA file does not contain the authority that issued it"
                        : "; it was not issued by an authority in the configured CA file";
            break;
        case X509_V_ERR_CERT_HAS_EXPIRED:
            text += client ? "; renew it on the server" : "; the client needs a new one";
            break;
        case X509_V_ERR_CERT_NOT_YET_VALID: text += "; compare the clocks of both machines"; break;
        case X509_V_ERR_INVALID_PURPOSE:
            text += client ? "; its extended key usage lacks serverAuth"
                           : "; its extended key usage lacks clientAuth";
            break;
        default:  // an open set of OpenSSL's numbers, not ours: its own words must do
            break;
    }
    return text;
}

TlsError from_reason(TlsRole us, int reason, const char* words) {
    const bool client = us == TlsRole::client;
    const std::string peer = client ? "the server" : "the client";
    switch (reason) {
        case SSL_R_HTTP_REQUEST:
            return {TlsFailure::not_tls, peer + " sent an HTTP request where TLS was expected"};
        case SSL_R_WRONG_VERSION_NUMBER:
        case SSL_R_PACKET_LENGTH_TOO_LONG:
        case SSL_R_BAD_RECORD_TYPE:
        case SSL_R_HTTPS_PROXY_REQUEST:
        case SSL_R_RECORD_LENGTH_MISMATCH:
            return {TlsFailure::not_tls, peer + " sent something that is not TLS"};
        case SSL_R_UNSUPPORTED_PROTOCOL:
        case SSL_R_VERSION_TOO_LOW:
        case SSL_R_VERSION_TOO_HIGH:
            return {TlsFailure::no_shared_version,
                    peer + " offers no version of TLS that is allowed here; TLS 1.2 is the least"};
        case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
            return {
                TlsFailure::no_shared_version,
                peer + " refuses every version of TLS that is allowed here; TLS 1.2 is the least"};
        case SSL_R_NO_SHARED_CIPHER:
        case SSL_R_NO_SUITABLE_KEY_SHARE:
        case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
        case SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS:
            return {TlsFailure::no_shared_cipher,
                    "no cipher or signature is known to both sides: " + std::string(words)};
        case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
            return {TlsFailure::refused_by_peer,
                    peer + " refused the TLS handshake: no cipher in common, or it wants " +
                        (client ? "a client certificate" : "another certificate")};
        case SSL_R_NO_APPLICATION_PROTOCOL:
            return {TlsFailure::no_shared_alpn,
                    peer + " does not name \"postgresql\" among its application protocols (ALPN)"};
        case SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL:
            return {TlsFailure::no_shared_alpn,
                    peer + " does not speak \"postgresql\" here (ALPN)"};
        case SSL_R_BAD_EXTENSION:
            return {TlsFailure::protocol, peer + " sent a TLS extension that makes no sense"};
        case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
            return {TlsFailure::certificate,
                    "the client showed no certificate and one is demanded here; with libpq set "
                    "sslcert and sslkey"};
        case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
            return {TlsFailure::refused_by_peer,
                    "the server demands a client certificate; configure a certificate and a key "
                    "for the upstream"};
        case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
            return {TlsFailure::refused_by_peer,
                    peer + " does not know the authority that issued our certificate" +
                        (client ? "" : "; with libpq check sslrootcert")};
        case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
            return {TlsFailure::refused_by_peer, peer + " says that our certificate has expired"};
        case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
            return {TlsFailure::refused_by_peer, peer + " says that our certificate was revoked"};
        case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
        case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
        case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
            return {TlsFailure::refused_by_peer, peer + " does not accept our certificate"};
        case SSL_R_SSLV3_ALERT_NO_CERTIFICATE:
            return {TlsFailure::refused_by_peer, peer + " has no certificate to show"};
        default:  // OpenSSL's reasons are many: alerts are told apart, the rest keeps its words
            break;
    }
    if (reason >= SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256)
        return {TlsFailure::refused_by_peer, peer + " broke off TLS: " + words};
    return {TlsFailure::protocol, "TLS with " + peer + " failed: " + words};
}

}  // namespace

std::string take_openssl_reason() {
    std::string text;
    if (const unsigned long code = ERR_peek_error(); code != 0) {
        const char* words = ERR_reason_error_string(code);
        text = words ? words : "error " + std::to_string(code);
    } else {
        text = "unknown error";
    }
    ERR_clear_error();
    return text;
}

TlsError take_connection_error(TlsRole us, const VerifyProblem& verify) {
    const unsigned long code = ERR_peek_error();
    if (code == 0) return {TlsFailure::protocol, "TLS failed without a reason"};
    const int reason = ERR_GET_REASON(code);
    // A bad signature leaves other entries before this one.
    if (verify.code != X509_V_OK) {
        ERR_clear_error();
        return {TlsFailure::certificate, verify_text(us, verify)};
    }
    const std::string words = take_openssl_reason();
    if (ERR_GET_LIB(code) != ERR_LIB_SSL)
        return {TlsFailure::protocol, "TLS with the " +
                                          std::string(us == TlsRole::client ? "server" : "client") +
                                          " failed: " + words};
    return from_reason(us, reason, words.c_str());
}

std::string printable_name(const X509_NAME* name) {
    if (!name) return {};
    const BioPtr out(BIO_new(BIO_s_mem()), &BIO_free_all);
    if (!out) return {};
    // Without UTF8_CONVERT every byte outside ASCII comes out escaped: it goes into logs and
    // terminals.
    X509_NAME_print_ex(out.get(), name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_UTF8_CONVERT);
    const char* bytes = nullptr;
    const long size = BIO_get_mem_data(out.get(), &bytes);
    std::string text(bytes, size > 0 ? static_cast<std::size_t>(size) : 0);
    if (text.size() > 200) text = text.substr(0, 197) + "...";
    return text;
}

std::string printable_identities(const X509* certificate) {
    constexpr std::size_t limit = 5;
    std::vector<std::string> found;
    const auto add = [&found](std::string_view name) {
        std::string clean;
        for (const char c : name) clean += c > 0x20 && c < 0x7f ? c : '?';
        if (clean.size() > 100) clean = clean.substr(0, 97) + "...";
        found.push_back(std::move(clean));
    };
    std::unique_ptr<GENERAL_NAMES, decltype(&GENERAL_NAMES_free)> names(
        static_cast<GENERAL_NAMES*>(
            X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)),
        &GENERAL_NAMES_free);
    const int count = names ? sk_GENERAL_NAME_num(names.get()) : 0;
    for (int i = 0; i < count; ++i) {
        const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
        if (name->type == GEN_DNS) {
            add({reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.dNSName)),
                 static_cast<std::size_t>(ASN1_STRING_length(name->d.dNSName))});
        } else if (name->type == GEN_IPADD) {
            const ASN1_OCTET_STRING* address = name->d.iPAddress;
            const int size = ASN1_STRING_length(address);
            char text[INET6_ADDRSTRLEN] = "";
            if ((size == 4 || size == 16) &&
                inet_ntop(size == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(address), text,
                          sizeof text))
                add(text);
        }
    }
    if (found.empty()) return printable_name(X509_get_subject_name(certificate));
    std::string text;
    for (std::size_t i = 0; i < found.size() && i < limit; ++i) text += (i ? ", " : "") + found[i];
    if (found.size() > limit) text += " and " + std::to_string(found.size() - limit) + " more";
    return text;
}

}  // namespace pgchaperone::net
