// What a server answers, message by message. The ledger says to what each message belongs and
// whether the client sees it; everything it sees leaves as it came.

#include "proxy/session/hold.h"
#include "proxy/session/login.h"
#include "proxy/session/refusal.h"
#include "proxy/session/session.h"
#include "proxy/session/supervision.h"
#include "proxy/session/time_limits.h"

#include "protocol/codec.h"
#include "protocol/head.h"
#include "protocol/peek.h"

#include <algorithm>
#include <utility>

namespace pgchaperone::session {

namespace {

using protocol::BackendTag;
using protocol::Side;

// As much of an ErrorResponse as is looked at for its severity and SQLSTATE, which come first.
constexpr std::size_t error_head_bytes_max = 1024;

std::string_view body_of(std::string_view message) { return message.substr(protocol::head_size); }

bool takes_all_names(std::string_view command_tag) {
    return command_tag.starts_with("DEALLOCATE ALL") || command_tag.starts_with("DISCARD ALL") ||
           command_tag.starts_with("CLOSE CURSOR ALL");
}

bool known_status(char status) { return status == 'I' || status == 'T' || status == 'E'; }

}  // namespace

void Session::read_server() {
    while (phase_ == Phase::login || phase_ == Phase::relay || phase_ == Phase::cancel) {
        if (server_raw_ || phase_ == Phase::cancel) {
            from_server_.forward(from_server_.available());
            return;
        }
        if (server_pass_bytes_ > 0) {
            const std::size_t count = std::min<std::uint64_t>(from_server_.available(),
                                                              server_pass_bytes_);
            if (count == 0) return;
            if (server_pass_ == Fate::forward) {
                from_server_.forward(count);
            } else {
                from_server_.discard(count);
            }
            server_pass_bytes_ -= count;
            if (server_pass_bytes_ == 0 && clocks_ && clocks_->transaction_due) {
                transaction_too_long();
                return;
            }
            if (server_pass_bytes_ == 0 && !behind_server_message_.empty()) {
                from_server_.insert(std::exchange(behind_server_message_, {}));
            }
            continue;
        }
        if (!server_message()) return;
    }
}

// Never in the middle of a message of the server's, nor behind its last word.
void Session::send_to_client(std::string bytes) {
    if (server_said_fatal_) return;
    if (server_pass_bytes_ > 0 && server_pass_ == Fate::forward) {
        behind_server_message_ += bytes;
    } else {
        from_server_.insert(std::move(bytes));
    }
}

// Deals with the message at the front. False: more bytes are needed.
bool Session::server_message() {
    const auto bytes = from_server_.peek(protocol::head_size);
    if (!bytes) return false;
    const auto head = protocol::read_head(*bytes, Side::backend);
    if (head.has_error()) {
        if (phase_ == Phase::login) {
            // A server that fails before it knows the protocol says so in plain text.
            server_raw_ = true;
            return true;
        }
        server_gone_wrong(head.error().message());
        return false;
    }
    const std::size_t total = head->total();
    switch (static_cast<BackendTag>(head->tag)) {
        case BackendTag::NoticeResponse: return server_notice(total);
        case BackendTag::NotificationResponse: pass_reply(total, Disposition::forward); return true;
        case BackendTag::ParameterStatus: {
            const auto message = from_server_.peek(total);
            if (!message) return false;
            const auto status = protocol::decode<protocol::ParameterStatus>(body_of(*message));
            if (status && settings_.reported(status->parameter, status->value)) {
                facts_.application_name = settings_.application_name();
                ++facts_.revision;
            }
            pass_reply(total, keep_report(*message) ? Disposition::swallow : Disposition::forward);
            return true;
        }
        case BackendTag::ErrorResponse: return server_error(total);
        default:
            return phase_ == Phase::login ? server_login_message(head->tag, total)
                                          : server_reply(head->tag, total);
    }
}

bool Session::server_notice(std::size_t total) {
    if (phase_ != Phase::relay) {
        pass_reply(total, Disposition::forward);
        return true;
    }
    const Role role = ledger_.front_role();
    if (role == Role::client) {
        pass_reply(total, ledger_.front_disposition());
        return true;
    }
    const std::size_t count = std::min({total, from_server_.available(), error_head_bytes_max});
    const auto bytes = from_server_.peek(count);
    const auto sqlstate = protocol::peek_error_field(body_of(*bytes), 'C');
    if (sqlstate.has_error() && count < std::min(total, error_head_bytes_max)) return false;
    const std::string_view code = sqlstate && *sqlstate ? **sqlstate : std::string_view();
    const bool seen = supervised_notice(role, code);
    const bool unit = role == Role::piece && unit_keeps(total);
    if (seen && (unit || (role == Role::counted && group_keeps(total)))) {
        const auto whole = from_server_.peek(total);
        if (!whole) return false;
        if (unit) {
            show(std::string(*whole));
        } else {
            supervision_->group.kept += *whole;
        }
        pass_reply(total, Disposition::swallow);
        return true;
    }
    pass_reply(total, seen ? Disposition::forward : Disposition::swallow);
    return true;
}

bool Session::server_login_message(char tag, std::size_t total) {
    switch (static_cast<BackendTag>(tag)) {
        case BackendTag::Authentication: {
            const auto message = from_server_.peek(total);
            if (!message) return false;
            const bool dealt_with = login_from_server(*message);
            if (phase_ == Phase::closed) return false;
            // login_from_server put its own message in the place of this one.
            pass_reply(total, dealt_with ? Disposition::swallow : Disposition::forward);
            return true;
        }
        case BackendTag::ReadyForQuery: {
            const auto message = from_server_.peek(total);
            if (!message) return false;
            const auto ready = protocol::decode<protocol::ReadyForQuery>(body_of(*message));
            if (!ready || !known_status(ready->transaction_status)) {
                server_gone_wrong("a ReadyForQuery without a transaction status");
                return false;
            }
            transaction_status_ = ready->transaction_status;
            announce_environment();
            from_server_.forward(total);
            logged_in();
            return true;
        }
        case BackendTag::BackendKeyData: {
            const auto message = from_server_.peek(total);
            if (!message) return false;
            cancel_key_ = body_of(*message);
            commands_.push_back(KnowCancelKey{cancel_key_});
            pass_reply(total, Disposition::forward);
            return true;
        }
        default:
            // NegotiateProtocolVersion, and what later versions may add here.
            pass_reply(total, Disposition::forward);
            return true;
    }
}

bool Session::server_error(std::size_t total) {
    const std::size_t count = std::min({total, from_server_.available(), error_head_bytes_max});
    const auto bytes = from_server_.peek(count);
    const auto sqlstate = protocol::peek_error_field(body_of(*bytes), 'C');
    if (sqlstate.has_error() && count < std::min(total, error_head_bytes_max)) return false;
    const std::string_view code = sqlstate && *sqlstate ? **sqlstate : std::string_view();
    const auto severity = protocol::peek_error_field(body_of(*bytes), 'V');
    const bool fatal = severity && *severity && (**severity == "FATAL" || **severity == "PANIC");
    server_said_fatal_ = server_said_fatal_ || fatal;
    if (phase_ == Phase::login || fatal) {
        // The server ends the connection, whatever it still owed.
        pass_reply(total, Disposition::forward);
        return true;
    }
    const bool supervised = ledger_.front_role() != Role::client;
    // It may have to be kept, or changed.
    if (supervised && !from_server_.peek(total)) return false;
    Reply reply = ledger_.received('E', code == "08P01");
    own_tables_.failed();
    effects_may_follow();  // a reading that was skipped has told nothing
    if (outcomes_ && !outcomes_->idle()) {
        const bool refused = reply.disposition == Disposition::replace && reply.extra;
        outcomes_->failed(reply.sequence, refused ? reply.extra->refusal.sqlstate : code);
    }
    if (reply.kind == Reply::Kind::impossible) {
        server_gone_wrong("an ErrorResponse out of place");
        return false;
    }
    if (supervised) {
        const std::string message = timed_out(code) ? timeout_error()
                                                    : std::string(*from_server_.peek(total));
        const auto kept = protocol::peek_error_field(body_of(message), 'C');
        supervised_error(reply, message, kept && *kept ? **kept : std::string_view());
        pass_reply(total, Disposition::swallow);
        return true;
    }
    if (claimed_ && claims(reply)) {
        claimed_failed(error_summary(*from_server_.peek(count)));
    }
    if (reply.disposition == Disposition::replace && reply.extra) {
        send_to_client(
            error_response(reply.extra->refusal, "ERROR", settings_.client_encoding_is_utf8()));
        pass_reply(total, Disposition::swallow);
        return true;
    }
    if (timed_out(code) && reply.disposition == Disposition::forward) {
        send_to_client(timeout_error());
        pass_reply(total, Disposition::swallow);
        return true;
    }
    pass_reply(total, reply.disposition);
    return true;
}

bool Session::server_reply(char tag, std::size_t total) {
    const Role role = ledger_.front_role();
    const auto kind = static_cast<BackendTag>(tag);
    const bool keeps = role == Role::piece && kind != BackendTag::ReadyForQuery &&
                       unit_keeps(total);
    const bool whole = kind == BackendTag::ReadyForQuery || kind == BackendTag::CommandComplete ||
                       kind == BackendTag::PortalSuspended ||
                       kind == BackendTag::EmptyQueryResponse || keeps ||
                       (role == Role::counted && group_keeps(total)) ||
                       (kind == BackendTag::ParameterDescription &&
                        ledger_.front_hides_parameter()) ||
                       (kind == BackendTag::DataRow &&
                        (role == Role::reading || role == Role::identity || role == Role::plan));
    std::string_view body;
    if (whole) {
        const auto message = from_server_.peek(total);
        if (!message) return false;
        body = body_of(*message);
    }
    const bool hides_parameter = kind == BackendTag::ParameterDescription && whole;
    const CountedPtr terms = role == Role::client ? nullptr : ledger_.front_counted();
    const Reply reply = ledger_.received(tag);
    if (reply.kind == Reply::Kind::impossible || reply.kind == Reply::Kind::unsolicited) {
        server_gone_wrong(std::string("a message '") + tag + "' that answers nothing");
        return false;
    }
    if (outcomes_ && !outcomes_->idle()) {
        if (kind == BackendTag::CommandComplete || kind == BackendTag::EmptyQueryResponse) {
            outcomes_->completed(reply.sequence, body,
                                 reply.role == Role::ours || reply.role == Role::settle);
        } else if (kind == BackendTag::PortalSuspended) {
            outcomes_->suspended(reply.sequence);
        }
    }
    if (kind == BackendTag::CommandComplete && claimed_ && claims(reply)) claimed_said(body);
    if (reply.kind == Reply::Kind::done) {
        own_tables_.settled(reply.sequence, !reply.failed);
        settle_names(reply.sequence, !reply.failed);
        // A name that a Parse was given was free, and one that was closed is.
        const bool named = reply.owed == Owed::parse || reply.owed == Owed::close;
        if (named && reply.extra && reply.role == Role::client) {
            prepared_.forget(reply.extra->name, reply.sequence);
        }
    }
    if (tag == static_cast<char>(BackendTag::ReadyForQuery)) {
        const auto ready = protocol::decode<protocol::ReadyForQuery>(body);
        if (!ready || !known_status(ready->transaction_status)) {
            server_gone_wrong("a ReadyForQuery without a transaction status");
            return false;
        }
        server_ready(ready->transaction_status, reply);
        // A unit tells the client itself when it is done.
        if (reply.role != Role::client) {
            pass_reply(total, Disposition::swallow);
            return true;
        }
    } else if (reply.role != Role::client) {
        const std::string message = whole ? std::string(*from_server_.peek(total)) : std::string();
        const bool seen = supervised_reply(tag, reply, terms, message);
        if (whole && takes_all_names(body)) {
            forget_names(reply.sequence, body);
        }
        if (seen && keeps) {
            show(message);
            pass_reply(total, Disposition::swallow);
            return true;
        }
        pass_reply(total, seen ? Disposition::forward : Disposition::swallow);
        return true;
    } else if (hides_parameter && reply.disposition == Disposition::forward) {
        auto description = protocol::decode<protocol::ParameterDescription>(body);
        if (!description || description->parameter_types.empty()) {
            server_gone_wrong("a ParameterDescription that can't be read");
            return false;
        }
        description->parameter_types.pop_back();
        send_to_client(protocol::encoded(*description));
        pass_reply(total, Disposition::swallow);
        return true;
    } else if (reply.disposition == Disposition::replace) {
        server_gone_wrong("a success for a statement that can only fail");
        return false;
    } else if (whole && takes_all_names(body)) {
        forget_names(reply.sequence, body);
    }
    pass_reply(total, reply.disposition);
    return true;
}

void Session::server_ready(char status, const Reply& reply) {
    transaction_status_ = status;
    served_ = true;
    if (reply.sequence >= predicted_at_) predicted_status_ = status;
    settings_.ready(reply.sequence);
    if (outcomes_ && !outcomes_->idle()) {
        outcomes_->ready(reply.sequence, status, block_is_ours());
    }
    if (claimed_ && waiting_ != Waiting::unit && reply.synced && claims(reply)) {
        claimed_ended(status);
    }
    // A held statement may be long, and so may what is known of it.
    if (hold_ && waiting_ == Waiting::nothing && !waits_for_claim() && !group_exceeded()) {
        hold_.reset();
    }
    if (status == 'I') {
        transaction_time_over(reply.sequence);
        transaction_over(reply.sequence);
        names_.transaction_ended(reply.sequence);
        cursors_.transaction_ended(reply.sequence);
        own_tables_.transaction_ended();
    }
}

void Session::pass_reply(std::size_t total, Disposition disposition) {
    server_pass_ = disposition == Disposition::swallow ? Fate::discard : Fate::forward;
    server_pass_bytes_ = total;
}

void Session::server_gone_wrong(const std::string& why) {
    say(Log{LogLevel::warning, "the server and pgchaperone disagree: " + why});
    fatal({"08P01", "pgchaperone: the server's answers can't be followed any more",
           "Received " + why + ".", "Connect again, and please report this."},
          "protocol violation by the server");
}

}  // namespace pgchaperone::session
