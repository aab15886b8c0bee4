#pragma once
// TLS without I/O: ciphertext from the peer goes in by feed(), plaintext comes out by read(),
// plaintext goes in by write(), and what is to be sent to the peer waits in outgoing(). The host
// keeps its sockets, its buffers and its way of waiting. Knows nothing of the PostgreSQL protocol
// but the name of its ALPN.
//
// How to drive it:
//   start()                       once; a client's hello then waits in outgoing()
//   feed(bytes) ... read() ...    for all that the socket gives: read() until it says want_read
//   end_of_input()                when the socket says end of file
//   outgoing(), consume_outgoing  after *every* call, errors included: an alert may wait there that
//                                 tells the peer why; close the socket after it was sent
// After an error the channel is dead: every further call returns the same error, except outgoing().
//
// Memory: an idle channel keeps no record buffers. Input is bounded by what the host feeds before
// it reads; output that the peer provokes (key updates) is bounded by
// `provoked_output_limit_bytes`; output by write() is the host's, who watches outgoing().size().

#include "proxy/net/tls_context.h"

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace pgchaperone::net {

struct TlsChannelOptions {
    // Client: the host as the configuration names it, for SNI (not sent for an address) and
    // verify_full.
    std::string server_name{};
    // TLS from the first byte, without SSLRequest: then ALPN is mandatory on both sides.
    bool direct = false;
};

enum class TlsStatus : std::uint8_t { handshaking, established };

struct TlsRead {
    enum class State : std::uint8_t {
        data,       // `bytes` > 0 bytes were written to the caller's buffer; there may be more
        want_read,  // nothing more until the peer sends more
        closed,     // the peer ended its side properly (close_notify)
    };
    State state = State::want_read;
    std::size_t bytes = 0;
};

class TlsChannel {
public:
    static constexpr std::size_t provoked_output_limit_bytes = 256 * 1024;

    // `context` decides the role. Throws std::bad_alloc only.
    TlsChannel(TlsContextPtr context, TlsChannelOptions options);
    ~TlsChannel();
    TlsChannel(const TlsChannel&) = delete;
    TlsChannel& operator=(const TlsChannel&) = delete;

    TlsResult<TlsStatus> start();
    TlsResult<TlsStatus> feed(std::string_view ciphertext);
    TlsResult<TlsRead> read(char* out, std::size_t capacity);
    TlsResult<void> write(std::string_view plaintext);

    // The socket said end of file: fine after close_notify, else an error (truncated).
    TlsResult<void> end_of_input();
    // Says to the peer that we send no more. Reading goes on.
    void close_notify();

    std::string_view outgoing() const noexcept;
    void consume_outgoing(std::size_t bytes) noexcept;

    bool handshake_done() const noexcept;
    bool peer_closed() const noexcept;
    // Ciphertext that was fed and not yet read.
    std::size_t buffered_input_bytes() const noexcept;

    // After the handshake. Texts are empty where there is nothing.
    std::string_view negotiated_alpn() const noexcept;
    std::string_view version() const noexcept;  // "TLSv1.3"
    std::string_view cipher() const noexcept;   // "TLS_AES_256_GCM_SHA384"
    std::string peer_certificate_der() const;
    // The subject's common name as UTF-8; empty also where it hides a NUL.
    std::string peer_common_name() const;
    // RFC 5929's tls-server-end-point as PostgreSQL computes it: the hash of the *server's*
    // certificate (our own where we are the server) by its signature's hash function, SHA-256 in
    // place of MD5 and SHA-1. Nothing where the signature has no hash function of its own
    // (Ed25519): PostgreSQL cannot bind to such a certificate.
    std::optional<std::string> tls_server_end_point() const;

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// The same hash for a certificate given as DER.
std::optional<std::string> tls_server_end_point_of(std::string_view certificate_der);

}  // namespace pgchaperone::net
