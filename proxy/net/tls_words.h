#pragma once
// OpenSSL's errors as sentences for people: what happened, and what to do where we know it. Used by
// tls_context.cpp and tls_channel.cpp only.

#include "proxy/net/tls_context.h"

#include <openssl/ssl.h>

#include <string>

namespace pgchaperone::net {

// What the verification of the peer's chain complained about, caught while it ran: afterwards
// OpenSSL only knows the number of the error.
struct VerifyProblem {
    long code = X509_V_OK;
    int depth = 0;
    std::string subject;
};

// Empties this thread's error queue into the reason of its first (deepest) entry, e.g. "no start
// line".
std::string take_openssl_reason();

// Empties this thread's error queue into a failure of the TLS connection with a peer. `us`: our
// role.
TlsError take_connection_error(TlsRole us, const VerifyProblem& verify);

// A distinguished name as printable ASCII, in RFC 2253's form.
std::string printable_name(const X509_NAME* name);

// The names that a certificate is made out to, for a message: "db.example.com, 10.0.0.1". At most a
// few of them.
std::string printable_identities(const X509* certificate);

}  // namespace pgchaperone::net
