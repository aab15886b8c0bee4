#include "proxy/net/tls_channel.h"

#include "proxy/net/tls_words.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <arpa/inet.h>

#include <cstring>
#include <new>
#include <utility>

namespace pgchaperone::net {
namespace {

using CertificatePtr = std::unique_ptr<X509, decltype(&X509_free)>;

// What a channel keeps between two bursts of traffic; more than that is given back when it is
// drained.
constexpr std::size_t kept_capacity_bytes = 1024;
// More than any cipher adds to a record: head, nonce, tag, padding.
constexpr std::size_t record_overhead_bytes = 128;

// Bytes that come in at the end and go out at the front.
class ByteQueue {
public:
    std::string_view view() const noexcept { return std::string_view(bytes_).substr(offset_); }
    std::size_t size() const noexcept { return bytes_.size() - offset_; }

    // Makes room for as many bytes at once, in place of growing by and by.
    void expect(std::size_t count) { bytes_.reserve(bytes_.size() + count); }

    void append(std::string_view bytes) {
        if (offset_ > 0 && offset_ >= bytes_.size() / 2) {
            bytes_.erase(0, offset_);
            offset_ = 0;
        }
        bytes_.append(bytes);
    }
    void consume(std::size_t count) noexcept {
        offset_ += count;
        if (offset_ < bytes_.size()) return;
        offset_ = 0;
        if (bytes_.capacity() > kept_capacity_bytes) {
            std::string().swap(bytes_);
        } else {
            bytes_.clear();
        }
    }

private:
    std::string bytes_;
    std::size_t offset_ = 0;
};

bool is_address(const std::string& host) {
    unsigned char ignored[16];
    // No host name has a colon; an IPv6 address with a zone (fe80::1%eth0) is none for inet_pton.
    return host.find(':') != std::string::npos || inet_pton(AF_INET, host.c_str(), ignored) == 1;
}

bool has_address_name(X509* certificate) {
    std::unique_ptr<GENERAL_NAMES, decltype(&GENERAL_NAMES_free)> names(
        static_cast<GENERAL_NAMES*>(
            X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)),
        &GENERAL_NAMES_free);
    const int count = names ? sk_GENERAL_NAME_num(names.get()) : 0;
    for (int i = 0; i < count; ++i)
        if (sk_GENERAL_NAME_value(names.get(), i)->type == GEN_IPADD) return true;
    return false;
}

// libpq's rules: a host name is looked for among the certificate's DNS names, or in the common name
// where it has none; `*` stands for one whole leftmost label. An address is looked for among its
// addresses; where it has none the DNS names and the common name are compared as text, as
// certificates of older days need it.
bool made_out_to(X509* certificate, const std::string& host) {
    if (host.empty() || host.front() == '.') return false;
    if (!is_address(host))
        return X509_check_host(certificate, host.data(), host.size(),
                               X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, nullptr) == 1;
    if (X509_check_ip_asc(certificate, host.c_str(), 0) == 1) return true;
    return !has_address_name(certificate) &&
           X509_check_host(certificate, host.data(), host.size(),
                           X509_CHECK_FLAG_ALWAYS_CHECK_SUBJECT | X509_CHECK_FLAG_NO_WILDCARDS,
                           nullptr) == 1;
}

std::optional<std::string> end_point_hash(X509* certificate) {
    int hash = NID_undef;
    if (X509_get_signature_info(certificate, &hash, nullptr, nullptr, nullptr) != 1)
        return std::nullopt;
    if (hash == NID_md5 || hash == NID_sha1) hash = NID_sha256;
    const EVP_MD* function = EVP_get_digestbynid(hash);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    if (!function || X509_digest(certificate, function, digest, &size) != 1) {
        ERR_clear_error();
        return std::nullopt;
    }
    return std::string(reinterpret_cast<const char*>(digest), size);
}

}  // namespace

struct TlsChannel::Impl {
    Impl(TlsContextPtr context_, TlsChannelOptions options_);
    ~Impl() { SSL_free(ssl); }
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;

    TlsResult<TlsStatus> shake_hands();
    TlsResult<void> check_established();
    TlsError fail(TlsError error);
    TlsError fail_from_openssl();
    bool server() const noexcept { return context->role() == TlsRole::server; }
    CertificatePtr peer_certificate() const {
        return {established ? SSL_get1_peer_certificate(ssl) : nullptr, &X509_free};
    }

    static const BIO_METHOD* bio_method();
    static int bio_read(BIO* bio, char* out, int capacity);
    static int bio_write(BIO* bio, const char* bytes, int size);
    static long bio_control(BIO* bio, int command, long number, void* pointer);
    static int verified(int passed, X509_STORE_CTX* chain);

    TlsContextPtr context;
    TlsChannelOptions options;
    SSL* ssl = nullptr;
    ByteQueue in;
    ByteQueue out;
    std::size_t provoked_output = 0;  // bytes in `out` that no write() of the host put there
    bool host_writes = false;
    bool overload = false;
    bool established = false;
    bool said_goodbye = false;
    VerifyProblem verify;
    bool name_matches = false;
    std::string made_out_to_others;  // what the certificate says, where the name does not match
    std::optional<TlsError> failure;
};

// OpenSSL talks to the two queues through a BIO of our own: unlike a memory BIO it gives its memory
// back, and outgoing() needs no copy.
const BIO_METHOD* TlsChannel::Impl::bio_method() {
    static const BIO_METHOD* const method = [] {
        BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK,
                                        "pgchaperone channel");
        if (!made) throw std::bad_alloc();
        BIO_meth_set_read(made, &Impl::bio_read);
        BIO_meth_set_write(made, &Impl::bio_write);
        BIO_meth_set_ctrl(made, &Impl::bio_control);
        return made;
    }();
    return method;
}

int TlsChannel::Impl::bio_read(BIO* bio, char* out, int capacity) {
    BIO_clear_retry_flags(bio);
    auto& self = *static_cast<Impl*>(BIO_get_data(bio));
    const std::string_view bytes = self.in.view().substr(0, static_cast<std::size_t>(capacity));
    if (bytes.empty()) {
        BIO_set_retry_read(bio);
        return -1;
    }
    std::memcpy(out, bytes.data(), bytes.size());
    self.in.consume(bytes.size());
    return static_cast<int>(bytes.size());
}

int TlsChannel::Impl::bio_write(BIO* bio, const char* bytes, int size) {
    BIO_clear_retry_flags(bio);
    auto& self = *static_cast<Impl*>(BIO_get_data(bio));
    const auto count = static_cast<std::size_t>(size);
    if (!self.host_writes) {
        self.provoked_output += count;
        if (self.provoked_output > provoked_output_limit_bytes) {
            self.overload = true;
            return -1;
        }
    }
    try {
        self.out.append({bytes, count});
    } catch (const std::bad_alloc&) {  // must not fly through OpenSSL's frames
        return -1;
    }
    return size;
}

long TlsChannel::Impl::bio_control(BIO*, int command, long, void*) {
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

// Called for each certificate of the peer's chain, the peer's own last. A name that does not match
// is found here and not after the handshake: so the server is told, and sees no certificate of
// ours.
int TlsChannel::Impl::verified(int passed, X509_STORE_CTX* chain) {
    const auto* ssl = static_cast<const SSL*>(
        X509_STORE_CTX_get_ex_data(chain, SSL_get_ex_data_X509_STORE_CTX_idx()));
    auto& self = *static_cast<Impl*>(SSL_get_app_data(ssl));
    X509* certificate = X509_STORE_CTX_get_current_cert(chain);
    const int depth = X509_STORE_CTX_get_error_depth(chain);
    if (passed == 1 && depth == 0 && self.context->verifies_host_name()) {
        self.name_matches = certificate && made_out_to(certificate, self.options.server_name);
        if (!self.name_matches) {
            self.made_out_to_others = certificate ? printable_identities(certificate) : "nobody";
            X509_STORE_CTX_set_error(chain, X509_V_ERR_HOSTNAME_MISMATCH);
            return 0;
        }
    }
    if (passed == 1) return 1;
    self.verify.code = X509_STORE_CTX_get_error(chain);
    self.verify.depth = depth;
    self.verify.subject = certificate ? printable_name(X509_get_subject_name(certificate)) : "";
    return 0;
}

TlsChannel::Impl::Impl(TlsContextPtr context_, TlsChannelOptions options_)
    : context(std::move(context_)), options(std::move(options_)) {
    ssl = SSL_new(context->native());
    BIO* bio = ssl ? BIO_new(bio_method()) : nullptr;
    if (!bio) {
        SSL_free(ssl);
        throw std::bad_alloc();
    }
    BIO_set_data(bio, this);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_app_data(ssl, this);
    // Where nothing is verified OpenSSL tries all the same; its complaints are then not ours.
    if (const int mode = SSL_get_verify_mode(ssl); mode != SSL_VERIFY_NONE)
        SSL_set_verify(ssl, mode, &Impl::verified);
    if (server()) {
        SSL_set_accept_state(ssl);
    } else {
        SSL_set_connect_state(ssl);
        if (!options.server_name.empty() && !is_address(options.server_name))
            SSL_set_tlsext_host_name(ssl, options.server_name.c_str());
    }
    ERR_clear_error();
}

TlsError TlsChannel::Impl::fail(TlsError error) {
    failure = std::move(error);
    return *failure;
}

TlsError TlsChannel::Impl::fail_from_openssl() {
    if (overload) {
        ERR_clear_error();
        return fail({TlsFailure::overload,
                     server() ? "the client makes TLS answer without reading the answers"
                              : "the server makes TLS answer without reading the answers"});
    }
    if (!made_out_to_others.empty()) {
        ERR_clear_error();
        return fail({TlsFailure::certificate,
                     "the server's certificate is made out to " + made_out_to_others +
                         ", not to \"" + options.server_name +
                         "\"; connect by a name that it carries, or verify its issuer only "
                         "(verify-ca)"});
    }
    return fail(take_connection_error(context->role(), verify));
}

TlsResult<TlsStatus> TlsChannel::Impl::shake_hands() {
    if (failure) return *failure;
    if (established) return TlsStatus::established;
    ERR_clear_error();
    const int outcome = SSL_do_handshake(ssl);
    if (outcome != 1) {
        if (SSL_get_error(ssl, outcome) == SSL_ERROR_WANT_READ) return TlsStatus::handshaking;
        return fail_from_openssl();
    }
    established = true;
    if (auto checked = check_established(); !checked) return checked.error();
    return TlsStatus::established;
}

// What OpenSSL does not check by itself. Nothing was sent to the peer, or taken from it, over TLS
// yet.
TlsResult<void> TlsChannel::Impl::check_established() {
    if (options.direct) {
        const unsigned char* alpn = nullptr;
        unsigned size = 0;
        SSL_get0_alpn_selected(ssl, &alpn, &size);
        if (size == 0)
            return fail(
                {TlsFailure::no_shared_alpn,
                 server()
                     ? "the client began with TLS at once but did not name the application "
                       "protocol "
                       "\"postgresql\" (ALPN)"
                     : "the server did not confirm the application protocol \"postgresql\" (ALPN): "
                       "it does not know direct TLS; use the negotiation \"postgres\""});
    }
    // Nothing gets here without the check in verified(); if ever it does, it gets no further.
    if (context->verifies_host_name() && !name_matches)
        return fail({TlsFailure::certificate, "the server's certificate was not compared"});
    return {};
}

TlsChannel::TlsChannel(TlsContextPtr context, TlsChannelOptions options)
    : impl_(std::make_unique<Impl>(std::move(context), std::move(options))) {}

TlsChannel::~TlsChannel() = default;

TlsResult<TlsStatus> TlsChannel::start() { return impl_->shake_hands(); }

TlsResult<TlsStatus> TlsChannel::feed(std::string_view ciphertext) {
    if (impl_->failure) return *impl_->failure;
    impl_->in.append(ciphertext);
    return impl_->shake_hands();
}

TlsResult<TlsRead> TlsChannel::read(char* out, std::size_t capacity) {
    if (impl_->failure) return *impl_->failure;
    if (!impl_->established || capacity == 0) return TlsRead{};
    ERR_clear_error();
    std::size_t count = 0;
    const int outcome = SSL_read_ex(impl_->ssl, out, capacity, &count);
    if (outcome == 1) return TlsRead{TlsRead::State::data, count};
    const int error = SSL_get_error(impl_->ssl, outcome);
    if (error == SSL_ERROR_WANT_READ) return TlsRead{};
    if (error == SSL_ERROR_ZERO_RETURN) return TlsRead{TlsRead::State::closed, 0};
    return impl_->fail_from_openssl();
}

TlsResult<void> TlsChannel::write(std::string_view plaintext) {
    if (impl_->failure) return *impl_->failure;
    if (!impl_->established || impl_->said_goodbye)
        return impl_->fail({TlsFailure::protocol, "there is no TLS connection to write to"});
    ERR_clear_error();
    impl_->host_writes = true;
    if (plaintext.size() > kept_capacity_bytes)
        impl_->out.expect(plaintext.size() + record_overhead_bytes *
                                                 (plaintext.size() / SSL3_RT_MAX_PLAIN_LENGTH + 1));
    while (!plaintext.empty()) {
        std::size_t count = 0;
        const int outcome = SSL_write_ex(impl_->ssl, plaintext.data(), plaintext.size(), &count);
        if (outcome != 1) {
            impl_->host_writes = false;
            return impl_->fail_from_openssl();
        }
        plaintext.remove_prefix(count);
    }
    impl_->host_writes = false;
    return {};
}

TlsResult<void> TlsChannel::end_of_input() {
    if (impl_->failure) return *impl_->failure;
    if (impl_->established && !peer_closed()) {
        // The close_notify may be among what was fed but not read yet.
        ERR_clear_error();
        char byte = 0;
        std::size_t count = 0;
        SSL_peek_ex(impl_->ssl, &byte, 1, &count);
        ERR_clear_error();
    }
    if (peer_closed()) return {};
    const std::string peer = impl_->server() ? "the client" : "the server";
    return impl_->fail(
        {TlsFailure::truncated,
         impl_->established
             ? peer + " closed the connection without ending TLS: what it sent last may "
                      "be incomplete"
             : peer + " closed the connection during the TLS handshake"});
}

void TlsChannel::close_notify() {
    if (impl_->failure || !impl_->established || impl_->said_goodbye) return;
    impl_->said_goodbye = true;
    ERR_clear_error();
    impl_->host_writes = true;
    SSL_shutdown(impl_->ssl);
    impl_->host_writes = false;
    ERR_clear_error();
}

std::string_view TlsChannel::outgoing() const noexcept { return impl_->out.view(); }

void TlsChannel::consume_outgoing(std::size_t bytes) noexcept {
    impl_->out.consume(bytes);
    if (impl_->out.size() == 0) impl_->provoked_output = 0;
}

bool TlsChannel::handshake_done() const noexcept { return impl_->established; }

bool TlsChannel::peer_closed() const noexcept {
    return (SSL_get_shutdown(impl_->ssl) & SSL_RECEIVED_SHUTDOWN) != 0 && !impl_->failure;
}

std::size_t TlsChannel::buffered_input_bytes() const noexcept {
    return impl_->in.size() + static_cast<std::size_t>(SSL_pending(impl_->ssl));
}

std::string_view TlsChannel::negotiated_alpn() const noexcept {
    const unsigned char* alpn = nullptr;
    unsigned size = 0;
    SSL_get0_alpn_selected(impl_->ssl, &alpn, &size);
    return {reinterpret_cast<const char*>(alpn), size};
}

std::string_view TlsChannel::version() const noexcept {
    return impl_->established ? SSL_get_version(impl_->ssl) : std::string_view();
}

std::string_view TlsChannel::cipher() const noexcept {
    const SSL_CIPHER* cipher = impl_->established ? SSL_get_current_cipher(impl_->ssl) : nullptr;
    return cipher ? SSL_CIPHER_get_name(cipher) : std::string_view();
}

std::string TlsChannel::peer_certificate_der() const {
    const CertificatePtr certificate = impl_->peer_certificate();
    if (!certificate) return {};
    unsigned char* der = nullptr;
    const int size = i2d_X509(certificate.get(), &der);
    if (size < 0) return {};
    std::string bytes(reinterpret_cast<const char*>(der), static_cast<std::size_t>(size));
    OPENSSL_free(der);
    return bytes;
}

std::string TlsChannel::peer_common_name() const {
    const CertificatePtr certificate = impl_->peer_certificate();
    if (!certificate) return {};
    const X509_NAME* subject = X509_get_subject_name(certificate.get());
    const int index = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (index < 0) return {};
    unsigned char* utf8 = nullptr;
    const int size = ASN1_STRING_to_UTF8(
        &utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, index)));
    if (size < 0) return {};
    std::string name(reinterpret_cast<const char*>(utf8), static_cast<std::size_t>(size));
    OPENSSL_free(utf8);
    if (name.find('\0') != std::string::npos) return {};
    return name;
}

std::optional<std::string> TlsChannel::tls_server_end_point() const {
    if (!impl_->established) return std::nullopt;
    if (impl_->server()) {
        X509* own = SSL_get_certificate(impl_->ssl);
        return own ? end_point_hash(own) : std::nullopt;
    }
    const CertificatePtr certificate = impl_->peer_certificate();
    return certificate ? end_point_hash(certificate.get()) : std::nullopt;
}

std::optional<std::string> tls_server_end_point_of(std::string_view certificate_der) {
    const auto* der = reinterpret_cast<const unsigned char*>(certificate_der.data());
    const CertificatePtr certificate(
        d2i_X509(nullptr, &der, static_cast<long>(certificate_der.size())), &X509_free);
    ERR_clear_error();
    return certificate ? end_point_hash(certificate.get()) : std::nullopt;
}

}  // namespace pgchaperone::net
