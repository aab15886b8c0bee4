#pragma once
// What a session needs only until its first ReadyForQuery. Private to the session core.

#include "proxy/session/scram.h"
#include "proxy/session/scram_server.h"

#include <optional>
#include <string>

namespace pgchaperone::session {

struct Login {
    bool startup_seen = false;  // anything that reads as a startup packet has come
    bool ssl_asked = false;
    bool gss_asked = false;
    bool client_tls = false;
    bool server_tls = false;
    bool cancelling = false;
    std::string packet;  // StartupMessage or CancelRequest, as it came
    std::string user;    // as the client gave it, for md5
    std::string own_endpoint_hash;
    std::string server_endpoint_hash;

    // The server waits for a message of the client's ('p').
    bool answer_expected = false;
    // The client was offered SASL mechanisms without those that bind to the channel, which is not
    // the server's.
    bool stripped_for_other_certificate = false;
    bool sasl_initial = false;  // the client's next 'p' is a SASLInitialResponse

    // Authentication::password
    bool asking = false;    // the client was asked for its password; `asked_for` is what the server
                            // wants
    std::string asked_for;  // the server's Authentication message, whole
    std::optional<ScramClient> scram;
    bool authenticated = false;

    // Authentication::users
    std::optional<ScramServer> exchange;  // with the client
    bool exchange_begun = false;          // the next 'p' is its proof
};

}  // namespace pgchaperone::session
