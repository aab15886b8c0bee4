#pragma once
// The client's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, 7677, 5929) and of
// PostgreSQL's md5 passwords, as pure computation: texts in, texts out. Knows no socket and no
// message framing; chance (the nonce) is given by the caller.
//
//   client                                server
//     | <----- AuthenticationSASL --------- |  read_mechanisms, ScramClient::start
//     | -- SASLInitialResponse(first) ----> |  mechanism(), client_first()
//     | <----- AuthenticationSASLContinue - |  client_final(server_first)
//     | -- SASLResponse(final) -----------> |
//     | <----- AuthenticationSASLFinal ---- |  verify(server_final): the server knew it, too
//
// The password's preparation follows PostgreSQL: SASLprep where it applies, the bytes as they are
// where not.

#include "proxy/session/secret.h"

#include <boost/system/result.hpp>

#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>

namespace pgchaperone::session {

enum class ScramFailure : std::uint8_t {
    unsupported,  // no mechanism in common, or channel binding is required and can't be had
    malformed,    // the server's message is not what RFC 5802 says
    refused,      // the server refuses us: a wrong password, most of the time
    impostor,     // the server does not know the password
    library,      // OpenSSL cannot compute it (FIPS and MD5)
};

// What went wrong, with a text for people that never holds the password.
struct ScramError {
    ScramFailure failure = ScramFailure::malformed;
    std::string text;
};
std::ostream& operator<<(std::ostream& out, const ScramError& error);  // the text

template <class T>
using ScramResult = boost::system::result<T, ScramError>;

[[noreturn]] void throw_exception_from_error(const ScramError& error,
                                             const boost::source_location& where);

// The SASL mechanisms of an AuthenticationSASL that we know.
struct MechanismOffer {
    bool scram_sha_256 = false;
    bool scram_sha_256_plus = false;
};

// `body`: that of AuthenticationSASL after the length: Int32(10), then strings, then a NUL.
ScramResult<MechanismOffer> read_mechanisms(std::string_view body);

// The same body without the mechanisms that bind to the channel (all whose names end in "-PLUS"),
// for a client that is not on the channel on which they were offered. An error where nothing would
// be left or the body is malformed.
ScramResult<std::string> without_channel_binding(std::string_view body);

// libpq's channel_binding.
enum class ChannelBinding : std::uint8_t { disable, prefer, require };

struct ScramSetup {
    Secret password;
    // At least 18 random bytes, in base64 (or any printable ASCII without a comma).
    std::string nonce;
    ChannelBinding channel_binding = ChannelBinding::prefer;
    // net::TlsChannel::tls_server_end_point() of the connection to the server; empty where there is
    // no TLS or nothing to bind to.
    std::string tls_server_end_point;
    // PostgreSQL ignores the name in the exchange and libpq sends none: it stands in the
    // StartupMessage.
    std::string user;
};

class ScramClient {
public:
    static constexpr std::uint32_t iterations_limit = 10'000'000;

    // Chooses the mechanism: bound to the channel where both can; else, `y` tells the server that
    // we could have (so that somebody who removed the offer on the way is found out), `n` that we
    // can't.
    static ScramResult<ScramClient> start(MechanismOffer offer, ScramSetup setup);

    std::string_view mechanism() const noexcept { return mechanism_; }
    std::string client_first() const;
    // Costs as many HMACs as the server asks for (4096 by PostgreSQL's default: about 1 ms); the
    // password and what was derived from it are wiped when it returns.
    ScramResult<std::string> client_final(std::string_view server_first);
    ScramResult<void> verify(std::string_view server_final);

private:
    enum class State : std::uint8_t { started, answered, verified, failed };

    ScramClient() = default;

    std::string_view mechanism_;
    std::string gs2_header_;
    std::string channel_binding_data_;
    std::string client_first_bare_;
    std::string nonce_;
    Secret password_;
    Secret server_signature_;
    State state_ = State::started;
};

// The answer to AuthenticationMD5Password: "md5" and 32 hexadecimal digits. `salt`: its 4 bytes.
ScramResult<std::string> md5_password(std::string_view user, std::string_view password,
                                      std::string_view salt);

// SASLprep (RFC 4013) as PostgreSQL applies it to passwords: text that is not UTF-8 or that it
// prohibits stays as it is.
Secret prepare_password(std::string_view password);

}  // namespace pgchaperone::session
