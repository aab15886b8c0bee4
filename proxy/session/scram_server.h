#pragma once
// The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, for who checks passwords in the place
// of PostgreSQL, and the verifiers it checks them against, in PostgreSQL's own form
// (pg_authid.rolpassword). Pure computation: texts in, texts out; chance is given by the caller.
//
//   client                                server
//     | <----- AuthenticationSASL --------- |  mechanisms()
//     | -- SASLInitialResponse(first) ----> |
//     | <----- AuthenticationSASLContinue - |  first(mechanism, client_first)
//     | -- SASLResponse(final) -----------> |
//     | <----- AuthenticationSASLFinal ---- |  final(client_final): the password was right

#include "proxy/session/scram.h"
#include "proxy/session/secret.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::session {

// What is kept of a password: enough to check it and to prove that one knows it, too little to log
// in anywhere.
struct ScramVerifier {
    std::uint32_t iterations = 0;
    std::string salt;
    std::string stored_key;
    std::string server_key;

    // SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>, all three in base64. Nothing where
    // the text is something else, or asks for more than ScramClient::iterations_limit iterations.
    static std::optional<ScramVerifier> parse(std::string_view text);
    // Of a password. `salt`: 16 random bytes. Nothing where OpenSSL can't compute it.
    static std::optional<ScramVerifier> make(std::string_view password, std::string_view salt,
                                             std::uint32_t iterations);
    // For somebody who is not known: an exchange with it takes its course and fails, so that nobody
    // learns who is known. The same for the same name and the same `secret`.
    static ScramVerifier imaginary(std::string_view name, std::string_view secret,
                                   std::uint32_t iterations);
    static constexpr std::uint32_t usual_iterations = 4096;  // PostgreSQL's
    static constexpr std::size_t salt_bytes = 16;

    std::string text() const;
    // As costly as an exchange is for its client.
    bool matches(std::string_view password) const;
};

class ScramServer {
public:
    // `nonce`: as in ScramSetup. `tls_server_end_point`: of the connection with the client; empty
    // where it is not encrypted, or there is nothing to bind to. `known`: an exchange fails
    // otherwise, however it goes.
    ScramServer(ScramVerifier verifier, bool known, std::string nonce,
                std::string tls_server_end_point);

    // What may be offered, the stronger first.
    std::vector<std::string_view> mechanisms() const;
    ScramResult<std::string> first(std::string_view mechanism, std::string_view client_first);
    // ScramFailure::refused: the password is another one.
    ScramResult<std::string> final(std::string_view client_final);

private:
    enum class State : std::uint8_t { started, asked, over };

    ScramVerifier verifier_;
    bool known_ = false;
    std::string nonce_;  // from first() on: both sides'
    std::string tls_server_end_point_;
    std::string gs2_header_;
    bool bound_ = false;
    std::string client_first_bare_;
    std::string server_first_;
    State state_ = State::started;
};

}  // namespace pgchaperone::session
