// Everything before the first ReadyForQuery.
//
//   client                      pgchaperone                     server
//     | -- SSLRequest, GSSENCRequest ->|                            |
//     | <--------- S or N, N --------- |                            |
//     | ------- StartupMessage ------> |                            |
//     | <===== SCRAM, with users ====> | == connection, TLS ======> |
//     |                                | ---- StartupMessage -----> |
//     | <===== Authentication ... relayed, or spoken for ========> |
//     | <------- AuthenticationOk, ParameterStatus, ... Z --------- |

#include "proxy/session/login.h"
#include "proxy/session/refusal.h"
#include "proxy/session/session.h"
#include "proxy/session/users.h"

#include "protocol/codec.h"
#include "protocol/head.h"
#include "protocol/peek.h"
#include "protocol/startup.h"

#include <utility>

namespace pgchaperone::session {

namespace {

using protocol::AuthenticationCode;
using protocol::Side;

constexpr std::string_view not_the_same_certificate =
    "The connection to pgchaperone and the one to the server are encrypted with different "
    "certificates, and "
    "the server's password check (SCRAM) is bound to the connection.";
constexpr std::string_view three_ways_out =
    "Connect with channel_binding=disable, or give pgchaperone the server's own certificate and "
    "key, or set "
    "authentication: password in its configuration.";

// A longer name is cut off there: who is let in by it is whoever has the rest of it as their name.
std::string_view as_the_server_reads(std::string_view name) {
    constexpr std::size_t name_bytes_max = 63;  // NAMEDATALEN - 1
    return name.substr(0, name_bytes_max);
}

// Where the key begins in a CancelRequest: behind its length and its code.
constexpr std::size_t cancel_key_at = 8;

// The body of a whole message.
std::string_view body_of(std::string_view message) { return message.substr(protocol::head_size); }

std::string authentication_message(std::string_view body) {
    std::string out = "R";
    const auto length = static_cast<std::uint32_t>(body.size() + 4);
    for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(length >> shift & 0xFF);
    out += body;
    return out;
}

// Whether the client-first-message says `y`: the client can bind to the channel, but believes that
// the server can't.
bool says_it_could_bind(std::string_view client_first) { return client_first.starts_with("y,"); }

}  // namespace

bool Session::read_startup() {
    const std::string_view piece = from_client_.front_piece();
    if (piece.empty()) return false;
    const auto whole = from_client_.peek(from_client_.available());
    const auto parsed = protocol::parse_startup(*whole);
    if (parsed.has_error()) {
        say(Log{LogLevel::warning, "invalid startup packet: " + parsed.error().message()});
        fatal({"08P01", "pgchaperone: invalid startup packet: " + parsed.error().message(), "",
               "Is this a PostgreSQL client?"},
              "invalid startup packet");
        return false;
    }
    if (!*parsed) return false;
    const protocol::StartupPacket& packet = **parsed;
    login_->startup_seen = true;
    using Kind = protocol::StartupPacket::Kind;
    switch (packet.kind) {
        case Kind::direct_tls: return direct_tls();
        case Kind::ssl_request:
            return encryption_request(packet.size, login_->ssl_asked,
                                      setup_.tls_offered ? 'S' : 'N');
        case Kind::gssenc_request: return encryption_request(packet.size, login_->gss_asked, 'N');
        case Kind::cancel_request:
            login_->cancelling = true;
            login_->packet.assign(whole->substr(0, packet.size));
            from_client_.discard_all();
            phase_ = Phase::connecting;
            // What is held has not reached the server, which could not cancel it.
            say(FindCancelled{login_->packet.substr(cancel_key_at)});
            return true;
        case Kind::startup_message:
            startup_message(packet.startup, whole->substr(0, packet.size));
            return true;
        case Kind::unsupported_version:
            fatal({"0A000",
                   "pgchaperone: unsupported frontend protocol " +
                       std::to_string(packet.startup.major()) + "." +
                       std::to_string(packet.startup.minor()) + ": the server supports 3.0 to 3.2",
                   "", ""},
                  "unsupported protocol version");
            return false;
    }
    return false;
}

bool Session::direct_tls() {
    if (login_->client_tls || login_->ssl_asked) {
        fatal(
            {"08P01", "pgchaperone: received a TLS handshake inside or behind another one", "", ""},
            "TLS handshake out of place");
        return false;
    }
    if (!setup_.tls_offered) {
        close("the client began a TLS handshake, but TLS is not configured", Ending::startup);
        return false;
    }
    const auto bytes = from_client_.peek(from_client_.available());
    StartTls start{true, std::string(*bytes)};
    from_client_.discard_all();
    phase_ = Phase::client_tls;
    say(std::move(start));
    return true;
}

bool Session::encryption_request(std::size_t size, bool& asked, char answer) {
    if (asked || login_->client_tls) {
        fatal({"08P01", "pgchaperone: a second request for encryption on the same connection", "",
               ""},
              "repeated encryption request");
        return false;
    }
    if (from_client_.available() > size) {
        // It came before there was anything to protect it, and may be somebody else's
        // (CVE-2021-23214).
        fatal({"08P01", "pgchaperone: received unencrypted data after a request for encryption",
               "This could be either a client-software bug or evidence of an attempted "
               "man-in-the-middle "
               "attack.",
               ""},
              "unencrypted data after a request for encryption");
        return false;
    }
    asked = true;
    from_client_.discard(size);
    send_to_client(std::string(1, answer));
    if (answer == 'S') {
        phase_ = Phase::client_tls;
        say(StartTls{});
    }
    return true;
}

void Session::handle(const ClientTlsReady& event) {
    if (phase_ != Phase::client_tls) return;
    login_->client_tls = true;
    login_->own_endpoint_hash = event.own_endpoint_hash;
    facts_.tls = true;
    phase_ = Phase::startup;
    read_client();
}

void Session::startup_message(const protocol::StartupMessage& startup, std::string_view packet) {
    facts_.user = as_the_server_reads(startup.find("user").value_or(""));
    login_->user = facts_.user;
    facts_.database = as_the_server_reads(startup.find("database").value_or(facts_.user));
    if (facts_.database.empty()) facts_.database = facts_.user;
    facts_.application_name = startup.find("application_name").value_or("");
    for (const auto& parameter : startup.parameters) own_tables_.started_with(parameter.value);
    const protocol::Replication replication = protocol::replication_of(startup);
    facts_.replication = replication == protocol::Replication::physical ||
                         replication == protocol::Replication::logical;
    if (setup_.tls_required && !login_->client_tls && !setup_.client.local) {
        fatal({"28000", "pgchaperone: this connection must be encrypted",
               "The configuration requires TLS.", "Connect with sslmode=require or stricter."},
              "TLS required");
        return;
    }
    login_->packet.assign(packet);
    from_client_.discard(packet.size());
    if (setup_.upstream) return come_to(*std::exchange(setup_.upstream, std::nullopt));
    phase_ = Phase::finding;
    say(FindUpstream{});
}

void Session::handle(const UpstreamFound& event) {
    if (phase_ != Phase::finding) return;
    if (event.upstream) {
        come_to(*event.upstream);
        // What has come meanwhile.
        return read_client();
    }
    say(Log{LogLevel::warning, "no server here has database=" + facts_.database +
                                   ", asked for by user=" + facts_.user});
    fatal(
        {"3D000", "pgchaperone: database \"" + facts_.database + "\" is not served here",
         "None of the servers that are guarded at this address has a database of that name, by the "
         "configuration.",
         "Look for a slip in the name, or ask who runs pgchaperone: databases, upstreams."},
        "the database is not served here");
}

// The rest depends on which server it is.
void Session::come_to(Upstream upstream) {
    upstream_ = std::move(upstream);
    facts_.upstream = upstream_.name;
    idle_limits_ = upstream_.idle;
    if (upstream_.authentication == Authentication::password && !login_->client_tls &&
        !setup_.client.local) {
        fatal({"28000", "pgchaperone: passwords are only taken over an encrypted connection",
               "The configuration says authentication: password.",
               "Connect with sslmode=require or stricter."},
              "TLS required for authentication: password");
        return;
    }
    if (upstream_.authentication == Authentication::users) return begin_exchange();
    phase_ = Phase::connecting;
    say(Connect{});
}

// Authentication::users: who it is is known before the server hears of it.
void Session::begin_exchange() {
    auto [verifier, known] = upstream_.users->find(login_->user);
    login_->exchange.emplace(std::move(verifier), known, setup_.exchange_nonce,
                             login_->client_tls ? login_->own_endpoint_hash : std::string());
    phase_ = Phase::checking;
    send_to_client(protocol::encoded(protocol::AuthenticationSASL{login_->exchange->mechanisms()}));
}

bool Session::exchange_from_client() {
    const auto bytes = from_client_.peek(protocol::head_size);
    if (!bytes) return false;
    const bool password_message = bytes->front() ==
                                  static_cast<char>(protocol::FrontendTag::PasswordMessage);
    const auto head = password_message
                          ? protocol::read_head(*bytes, Side::frontend)
                          : protocol::Result<protocol::Head>(protocol::Error::unknown_message);
    if (head.has_error()) {
        fatal({"08P01", "pgchaperone: expected a SASL response", "", ""}, "protocol violation");
        return false;
    }
    const auto message = from_client_.peek(head->total());
    if (!message) return false;
    const std::string body(body_of(*message));
    from_client_.discard(head->total());
    if (std::exchange(login_->exchange_begun, true)) return end_exchange(body);

    const auto initial = protocol::decode<protocol::SASLInitialResponse>(body);
    if (initial.has_error() || !initial->data) {
        fatal({"08P01", "pgchaperone: invalid SASL initial response", "", ""},
              "protocol violation");
        return false;
    }
    const auto first = login_->exchange->first(initial->mechanism, *initial->data);
    if (first.has_error()) {
        fatal({"08P01", "pgchaperone: the login failed", first.error().text, ""}, "SCRAM failed");
        return false;
    }
    send_to_client(protocol::encoded(protocol::AuthenticationSASLContinue{*first}));
    return true;
}

bool Session::end_exchange(std::string_view body) {
    const auto response = protocol::decode<protocol::SASLResponse>(body);
    if (response.has_error()) {
        fatal({"08P01", "pgchaperone: invalid SASL response", "", ""}, "protocol violation");
        return false;
    }
    const auto final = login_->exchange->final(response->data);
    if (final.has_error()) {
        say(Log{LogLevel::warning,
                "login refused: user=" + login_->user + ": " + final.error().text});
        if (final.error().failure == ScramFailure::refused) {
            fatal({"28P01",
                   "pgchaperone: password authentication failed for user \"" + login_->user + "\"",
                   "The password is checked by pgchaperone (authentication: users), not by the "
                   "server.",
                   ""},
                  "wrong password, or no such user");
        } else {
            fatal({"28000", "pgchaperone: the login failed", final.error().text, ""},
                  "SCRAM failed");
        }
        return false;
    }
    send_to_client(protocol::encoded(protocol::AuthenticationSASLFinal{*final}));
    login_->exchange.reset();
    phase_ = Phase::connecting;
    say(Connect{});
    return true;
}

void Session::handle(const CancelTaken& event) {
    if (phase_ != Phase::connecting || !login_->cancelling) return;
    // Who asks is answered as by PostgreSQL: by an end-of-file, whatever came of it.
    if (event.taken) return close("a held statement was cancelled");
    say(Connect{true});
}

void Session::handle(const Connected& event) {
    if (phase_ != Phase::connecting) return;
    if (event.denied) return fatal(*event.denied, event.denied->message);
    if (!event.ok) {
        if (login_->cancelling) {
            close("a cancel request could not be sent on: " + event.error);
            return;
        }
        say(Log{LogLevel::warning, event.error});
        fatal({"08006", "pgchaperone: " + event.error, "",
               "Is the server running there, and may pgchaperone connect to it?"},
              "no upstream connection");
        return;
    }
    login_->server_tls = event.tls;
    login_->server_endpoint_hash = event.peer_endpoint_hash;
    send_to_server(std::exchange(login_->packet, {}));
    phase_ = login_->cancelling ? Phase::cancel : Phase::login;
    if (login_->cancelling) {
        say(SetDeadline{DeadlineKind::linger});
        return;
    }
    read_client();
}

// During the login the client has something to say only when it is asked ('p'). What it sends ahead
// of time waits: the first statement must be judged, and what the server thinks of anything else it
// says itself.
bool Session::login_from_client() {
    if (!login_->answer_expected && !login_->asking) return false;
    const auto first = from_client_.peek(1);
    if (!first) return false;
    const bool password_message = (*first)[0] ==
                                  static_cast<char>(protocol::FrontendTag::PasswordMessage);
    const auto bytes = from_client_.peek(protocol::head_size);
    if (password_message && !bytes) return false;
    const auto head = password_message
                          ? protocol::read_head(*bytes, Side::frontend)
                          : protocol::Result<protocol::Head>(protocol::Error::unknown_message);
    if (head.has_error()) {
        if (login_->asking) {
            fatal({"08P01", "pgchaperone: expected a password message", "", ""},
                  "protocol violation");
            return false;
        }
        client_gone_wrong(password_message ? protocol::head_size : 1,
                          "sent something else than a password message during the login");
        return false;
    }
    const auto message = from_client_.peek(head->total());
    if (!message) return false;
    if (login_->asking) {
        login_->asking = false;
        const auto password = protocol::decode<protocol::PasswordMessage>(body_of(*message));
        if (password.has_error()) {
            fatal({"08P01", "pgchaperone: invalid password message", "", ""}, "protocol violation");
            return false;
        }
        login_upstream_with_password(password->password);
        from_client_.discard_wiped(head->total());
        return true;
    }
    if (login_->sasl_initial && login_->stripped_for_other_certificate) {
        login_->sasl_initial = false;
        const auto initial = protocol::decode<protocol::SASLInitialResponse>(body_of(*message));
        if (initial && initial->data && says_it_could_bind(*initial->data)) {
            fatal({"28000", "pgchaperone: this login can't pass through",
                   std::string(not_the_same_certificate), std::string(three_ways_out)},
                  "SCRAM with channel binding between two different certificates");
            return false;
        }
    }
    login_->answer_expected = false;
    from_client_.forward(head->total());
    return true;
}

// Returns whether the message was dealt with; false: it is an ordinary one, to be forwarded.
bool Session::login_from_server(std::string_view message) {
    const auto code = protocol::peek_authentication(body_of(message));
    if (code.has_error()) return false;
    if (upstream_.authentication != Authentication::passthrough)
        return password_exchange(message, *code);
    switch (*code) {
        case AuthenticationCode::SASL:
            login_->answer_expected = true;
            login_->sasl_initial = true;
            return offer_mechanisms(message);
        case AuthenticationCode::CleartextPassword:
        case AuthenticationCode::MD5Password:
        case AuthenticationCode::SCMCredential:
        case AuthenticationCode::GSS:
        case AuthenticationCode::GSSContinue:
        case AuthenticationCode::SSPI:
        case AuthenticationCode::SASLContinue: login_->answer_expected = true; return false;
        case AuthenticationCode::Ok:
        case AuthenticationCode::KerberosV5:
        case AuthenticationCode::SASLFinal: return false;
    }
    login_->answer_expected = true;  // a method of a later PostgreSQL: the two will know
    return false;
}

// SCRAM bound to the channel works end to end only where client and server see the same
// certificate. Elsewhere the bound mechanisms are not offered to the client: one that is not
// encrypted would refuse them.
bool Session::offer_mechanisms(std::string_view message) {
    const auto offer = read_mechanisms(body_of(message));
    if (offer.has_error() || !offer->scram_sha_256_plus) return false;
    const bool same_certificate = login_->client_tls && login_->server_tls &&
                                  !login_->own_endpoint_hash.empty() &&
                                  login_->own_endpoint_hash == login_->server_endpoint_hash;
    if (same_certificate) return false;
    const auto stripped = without_channel_binding(body_of(message));
    if (stripped.has_error()) {
        fatal({"28000", "pgchaperone: this login can't pass through",
               login_->client_tls
                   ? std::string(not_the_same_certificate)
                   : "The server demands a password check that is bound to an encrypted "
                     "connection, and this one is not encrypted.",
               std::string(three_ways_out)},
              "only mechanisms with channel binding are offered");
        return true;
    }
    login_->stripped_for_other_certificate = login_->client_tls;
    send_to_client(authentication_message(*stripped));
    return true;
}

// Authentication::password: the client hears only of a cleartext password, asked for when the
// server asks for one. Authentication::users: it hears of nothing; it was asked before.
bool Session::password_exchange(std::string_view message, AuthenticationCode code) {
    const std::string_view body = body_of(message);
    switch (code) {
        case AuthenticationCode::Ok:
            if (login_->scram && !login_->authenticated) {
                fatal(
                    {"28000",
                     "pgchaperone: the server ended the password check without proving itself", "",
                     "Something between pgchaperone and the server may be pretending to be the "
                     "server."},
                    "SCRAM cut short by the server");
                return true;
            }
            login_->scram.reset();
            return false;
        case AuthenticationCode::CleartextPassword:
        case AuthenticationCode::MD5Password:
        case AuthenticationCode::SASL:
            if (login_->asking || !login_->asked_for.empty()) break;
            login_->asked_for.assign(message);
            if (upstream_.authentication == Authentication::users) {
                login_upstream_as_user();
                return true;
            }
            login_->asking = true;
            send_to_client(protocol::encoded(protocol::AuthenticationCleartextPassword{}));
            return true;
        case AuthenticationCode::SASLContinue: {
            const auto challenge = protocol::decode<protocol::AuthenticationSASLContinue>(body);
            if (!login_->scram || challenge.has_error()) break;
            const auto answer = login_->scram->client_final(challenge->data);
            if (answer.has_error()) {
                fatal({"28000", "pgchaperone: the login failed", answer.error().text, ""},
                      "SCRAM failed");
                return true;
            }
            send_to_server(protocol::encoded(protocol::SASLResponse{*answer}));
            return true;
        }
        case AuthenticationCode::SASLFinal: {
            const auto final = protocol::decode<protocol::AuthenticationSASLFinal>(body);
            if (!login_->scram || final.has_error()) break;
            const auto verified = login_->scram->verify(final->data);
            if (verified.has_error()) {
                fatal(
                    {"28000", "pgchaperone: the server could not prove that it knows the password",
                     verified.error().text,
                     "Something between pgchaperone and the server may be pretending."},
                    "the server failed SCRAM");
                return true;
            }
            login_->authenticated = true;
            return true;
        }
        default: break;
    }
    fatal({"28000", "pgchaperone: the server asks for a login method that pgchaperone can't serve",
           upstream_.authentication == Authentication::users
               ? "The configuration says authentication: users."
               : "The configuration says authentication: password.",
           "Use a password method (scram-sha-256) for pgchaperone's address in pg_hba.conf."},
          "unsupported authentication method");
    return true;
}

void Session::login_upstream_as_user() {
    const Secret* const password = upstream_.users->password(login_->user);
    if (password) return login_upstream_with_password(password->view());
    say(Log{LogLevel::warning, "the server asks for the password of \"" + login_->user +
                                   "\", which users.passwords does not have"});
    fatal({"28000",
           "pgchaperone: the server asks for a password of \"" + login_->user +
               "\" that pgchaperone does not have",
           "Your own password was right.",
           "Ask who runs pgchaperone to add it to the file that users.passwords names."},
          "no password for the server");
}

void Session::login_upstream_with_password(std::string_view password) {
    const std::string asked = std::exchange(login_->asked_for, {});
    const std::string_view body = body_of(asked);
    const auto code = protocol::peek_authentication(body);
    login_->asked_for = "answered";
    if (*code == AuthenticationCode::SASL) {
        const auto offer = read_mechanisms(body);
        if (offer.has_error()) {
            fatal({"28000", "pgchaperone: the login failed", offer.error().text, ""},
                  "SCRAM failed");
            return;
        }
        ScramSetup setup;
        setup.password = Secret(password);
        setup.nonce = setup_.scram_nonce;
        setup.tls_server_end_point = login_->server_tls ? login_->server_endpoint_hash
                                                        : std::string();
        setup.user = login_->user;
        auto scram = ScramClient::start(*offer, std::move(setup));
        if (scram.has_error()) {
            fatal({"28000", "pgchaperone: the login failed", scram.error().text, ""},
                  "SCRAM failed");
            return;
        }
        login_->scram.emplace(std::move(*scram));
        const std::string first = login_->scram->client_first();
        send_to_server(protocol::encoded(
            protocol::SASLInitialResponse{login_->scram->mechanism(), std::string_view(first)}));
        return;
    }
    if (!login_->server_tls) {
        // Anybody on the way could read it, or use its md5 hash.
        fatal({"28000",
               "pgchaperone: the server asks for a password in a form that must not travel "
               "unencrypted",
               "The upstream connection has no TLS, and the server does not use SCRAM.",
               "Use scram-sha-256 in pg_hba.conf, or set upstream_tls."},
              "unsafe authentication method");
        return;
    }
    if (*code == AuthenticationCode::MD5Password) {
        const auto request = protocol::decode<protocol::AuthenticationMD5Password>(body);
        const auto hashed = request ? md5_password(login_->user, password, request->salt)
                                    : ScramResult<std::string>(
                                          ScramError{ScramFailure::malformed, "malformed request"});
        if (hashed.has_error()) {
            fatal({"28000", "pgchaperone: the login failed", hashed.error().text, ""},
                  "md5 failed");
            return;
        }
        send_to_server(protocol::encoded(protocol::PasswordMessage{*hashed}));
        return;
    }
    send_to_server(protocol::encoded(protocol::PasswordMessage{password}));
}

// So that nobody takes production for something else. A client that replicates has nobody to read
// it.
void Session::announce_environment() {
    if (upstream_.environment.empty() || facts_.replication) return;
    policy::Refusal notice;
    notice.sqlstate = "00000";
    notice.message = "pgchaperone: environment: " + upstream_.environment;
    send_to_client(notice_response(notice, settings_.client_encoding_is_utf8()));
}

void Session::logged_in() {
    phase_ = Phase::relay;
    login_ = nullptr;
    say(ClearDeadline{DeadlineKind::login});
    say(Log{LogLevel::info, "logged in"});
}

}  // namespace pgchaperone::session
