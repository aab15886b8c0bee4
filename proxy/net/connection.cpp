#include "proxy/net/connection.h"

#include "proxy/net/io_thread.h"
#include "proxy/net/judge_pool.h"
#include "proxy/net/shared.h"
#include "proxy/net/upstream.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <spdlog/spdlog.h>

#include <exception>
#include <utility>
#include <variant>

namespace pgchaperone::net {

namespace asio = boost::asio;
using asio::awaitable;

namespace {

// What is read while nothing else is known: small, since it stands by for every idle session.
constexpr std::size_t idle_buffer_bytes = 4 * 1024;
// Reads in a row before the other sessions of the thread get their turn.
constexpr int reads_in_a_row = 16;
// How long a closed connection may take what is still to be sent, and how long its end is awaited.
constexpr std::chrono::seconds flush_time{60};
constexpr std::chrono::seconds good_bye_time{2};
constexpr std::chrono::seconds cancel_time{10};

void log_failure(std::uint64_t session, std::exception_ptr failure) {
    if (!failure) return;
    try {
        std::rethrow_exception(failure);
    } catch (const std::exception& error) {
        spdlog::error("session {}: internal error: {}", session, error.what());
    }
}

}  // namespace

Connection::Connection(IoThread& thread, Transport::Socket client, session::Setup setup)
    : thread_(thread),
      id_(setup.id),
      session_(std::move(setup)),
      client_{std::make_shared<Transport>(std::move(client)), Gate(thread.context())},
      server_{nullptr, Gate(thread.context())},
      deadline_(thread.context()) {}

Connection::~Connection() = default;

void Connection::start() {
    client_.transport->set_owner(weak_from_this());
    client_.transport->on_progress([this] { open_gates(); });
    prepare_socket(client_.transport->socket());
    carry_out();
    ++coroutines_;
    asio::co_spawn(thread_.context(), pump(true),
                   [self = shared_from_this()](std::exception_ptr failure) {
                       log_failure(self->id_, failure);
                       self->finished();
                   });
}

void Connection::finished() {
    if (--coroutines_ > 0) return;
    client_.transport->close();
    if (server_.transport) server_.transport->close();
    deadline_.cancel();
    spdlog::info("session {}: end: {}", id_, close_reason_);
    thread_.remove(id_);
}

// Readers

bool Connection::may_read(bool from_client) const {
    if (closing_) return true;  // to be told that it is over
    const Transport* const other = from_client ? server_.transport.get() : client_.transport.get();
    const Transport* const own = from_client ? client_.transport.get() : server_.transport.get();
    if (other != nullptr && other->pending_bytes() > pending_bytes_max) return false;
    // What we say ourselves to a side that does not read: errors, TLS.
    if (own != nullptr && own->pending_bytes() > 4 * pending_bytes_max) return false;
    return from_client ? session_.wants_client_bytes() : session_.wants_server_bytes();
}

awaitable<void> Connection::wait(Gate& gate) {
    gate.waiting = true;
    gate.timer.expires_at(asio::steady_timer::time_point::max());
    co_await gate.timer.async_wait(asio::as_tuple(asio::use_awaitable));
    gate.waiting = false;
}

awaitable<void> Connection::pump(bool from_client) {
    Side& side = from_client ? client_ : server_;
    const std::shared_ptr<Transport> transport = side.transport;
    std::array<char, idle_buffer_bytes> buffer;
    int in_a_row = 0;
    while (!closing_) {
        if (!may_read(from_client)) {
            co_await wait(side.gate);
            continue;
        }
        boost::system::error_code error;
        std::size_t size = 0;
        char* data = buffer.data();
        if (side.read_on && ++in_a_row < reads_in_a_row) {
            data = thread_.scratch().data();
            size = transport->socket().read_some(asio::buffer(data, IoThread::scratch_bytes),
                                                 error);
            side.read_on = !error && size == IoThread::scratch_bytes;
            if (error == asio::error::would_block || error == asio::error::try_again) continue;
        } else if (side.read_on) {
            // The socket stays readable, so the reactor will not tell of it again: come back by
            // ourselves.
            in_a_row = 0;
            co_await asio::post(thread_.context(), asio::as_tuple(asio::use_awaitable));
            continue;
        } else {
            in_a_row = 0;
            const auto [failed, count] = co_await transport->socket().async_read_some(
                asio::buffer(buffer), asio::as_tuple(asio::use_awaitable));
            error = failed;
            size = count;
            side.read_on = !error && size == buffer.size();
        }
        if (closing_) break;
        if (error == asio::error::operation_aborted) continue;
        if (error) {
            side_ended(from_client, error != asio::error::eof || transport->write_failed());
            break;
        }
        if (!received(from_client, {data, size})) break;
    }
    // A side that sends no more is still sent to, until the core closes the session.
    while (!closing_) co_await wait(side.gate);
    co_await say_good_bye(transport, side.gate, from_client);
}

// After the last word: let it arrive. A socket that is closed with unread bytes in it takes back
// what it sent last, so what a client still sends is read and dropped until it closes its side, for
// a moment.
awaitable<void> Connection::say_good_bye(std::shared_ptr<Transport> transport, Gate& gate,
                                         bool linger) {
    transport->shutdown_when_sent();
    asio::steady_timer limit(thread_.context(), flush_time);
    const auto close_when_over = [transport](const boost::system::error_code& error) {
        if (!error) transport->close();
    };
    limit.async_wait(close_when_over);
    while (transport->is_open() && !transport->shutdown_done()) co_await wait(gate);
    if (!linger) transport->close();
    limit.expires_after(good_bye_time);
    limit.async_wait(close_when_over);
    std::array<char, 1024> buffer;
    while (transport->is_open()) {
        const auto [error, size] = co_await transport->socket().async_read_some(
            asio::buffer(buffer), asio::as_tuple(asio::use_awaitable));
        if (error) break;
    }
    transport->close();
}

bool Connection::received(bool from_client, std::string_view bytes) {
    Side& side = from_client ? client_ : server_;
    const std::shared_ptr<Transport> transport = side.transport;
    if (transport->tls() == nullptr) {
        if (from_client) {
            tell(session::ClientBytes{bytes});
        } else {
            tell(session::ServerBytes{bytes});
        }
        return true;
    }
    TlsChannel& tls = *transport->tls();
    const auto fed = tls.feed(bytes);
    transport->flush_tls();
    if (fed.has_error()) {
        spdlog::warn("session {}: TLS with the {}: {}", id_, from_client ? "client" : "server",
                     fed.error().text);
        side_ended(from_client, true);
        return false;
    }
    if (from_client && !client_tls_announced_ && tls.handshake_done()) tls_progress();
    auto& plain = thread_.plain_scratch();
    while (!closing_) {
        const auto read = tls.read(plain.data(), plain.size());
        transport->flush_tls();
        if (read.has_error()) {
            spdlog::warn("session {}: TLS with the {}: {}", id_, from_client ? "client" : "server",
                         read.error().text);
            side_ended(from_client, true);
            return false;
        }
        if (read->state == TlsRead::State::want_read) return true;
        if (read->state == TlsRead::State::closed) {
            side_ended(from_client, false);
            return false;
        }
        if (from_client) {
            tell(session::ClientBytes{{plain.data(), read->bytes}});
        } else {
            tell(session::ServerBytes{{plain.data(), read->bytes}});
        }
    }
    return true;
}

void Connection::tls_progress() {
    client_tls_announced_ = true;
    TlsChannel& tls = *client_.transport->tls();
    session::ClientTlsReady ready;
    ready.own_endpoint_hash = tls.tls_server_end_point().value_or("");
    ready.peer_common_name = tls.peer_common_name();
    spdlog::debug("session {}: {} {} with the client", id_, tls.version(), tls.cipher());
    tell(ready);
}

void Connection::side_ended(bool from_client, bool broken) {
    Side& side = from_client ? client_ : server_;
    if (side.ended) return;
    side.ended = true;
    if (from_client) {
        tell(session::ClientClosed{broken});
    } else {
        tell(session::ServerClosed{broken});
    }
}

// The core

template <class Event>
void Connection::tell(const Event& event) {
    session_.set_policy_version(thread_.engine().policy_version());
    session_.handle(event);
    carry_out();
}

// Not entered twice: a command whose answer is known at once feeds it to the core and lets the loop
// go on.
void Connection::carry_out() {
    if (carrying_out_) return;
    carrying_out_ = true;
    while (auto command = session_.next()) {
        std::visit([this](auto& one) { carry_out(one); }, *command);
    }
    carrying_out_ = false;
    if (draining_ && !closing_ && session_.end_if_idle()) return carry_out();
    // A client that has gone shows first in what we can't send it. (A server may have left a last
    // word: it is read.)
    if (!closing_ && !client_lost_ && client_.transport->write_failed()) {
        client_lost_ = true;
        client_.ended = true;
        return tell(session::ClientClosed{true});
    }
    open_gates();
}

void Connection::open_gates() {
    if (client_.gate.waiting && may_read(true)) client_.gate.open();
    if (server_.gate.waiting && may_read(false)) server_.gate.open();
}

void Connection::carry_out(session::SendToClient& command) {
    client_.transport->write(command.data.bytes());
}

void Connection::carry_out(session::SendToServer& command) {
    if (server_.transport) server_.transport->write(command.data.bytes());
}

void Connection::carry_out(session::Connect&) {
    ++coroutines_;
    asio::co_spawn(thread_.context(), open_upstream(),
                   [self = shared_from_this()](std::exception_ptr failure) {
                       log_failure(self->id_, failure);
                       self->finished();
                   });
}

awaitable<void> Connection::open_upstream() {
    UpstreamConnection upstream = co_await connect_upstream(thread_, weak_from_this());
    session::Connected connected;
    connected.ok = upstream.transport != nullptr;
    connected.error = upstream.error;
    if (closing_) {
        if (upstream.transport) upstream.transport->close();
        co_return;
    }
    if (upstream.transport) {
        server_.transport = std::move(upstream.transport);
        server_.transport->on_progress([this] { open_gates(); });
        if (TlsChannel* const tls = server_.transport->tls()) {
            connected.tls = true;
            connected.peer_endpoint_hash = tls->tls_server_end_point().value_or("");
        }
    }
    tell(connected);
    if (server_.transport) co_await pump(false);
}

void Connection::carry_out(session::StartTls& command) {
    TlsChannelOptions options;
    options.direct = command.direct;
    client_.transport->set_tls(
        std::make_unique<TlsChannel>(thread_.shared().tls().client, options));
    (void)client_.transport->tls()->start();
    if (command.received.empty()) return;
    // The bytes came before anybody knew that they were TLS. Fed after the core has been asked for
    // everything else, so on a turn of its own.
    asio::post(thread_.context(), [self = shared_from_this(), bytes = std::move(command.received)] {
        if (!self->closing_) self->received(true, bytes);
    });
}

void Connection::carry_out(session::Judge& command) {
    policy::Moment moment;
    moment.now = std::chrono::system_clock::now();
    moment.in_transaction = command.in_transaction;
    moment.in_implicit_block = command.in_implicit_block;
    moment.own_tables = *command.own_tables;
    moment.name_doubts = *command.name_doubts;
    moment.search_path = *command.search_path;
    policy::Engine& engine = thread_.engine();
    const policy::SessionFacts& facts = session_.facts();
    if (command.oversized_bytes > 0) {
        session_.handle(session::Verdict{
            engine.judge_oversized(command.oversized_bytes, facts, moment), moment.now});
        return;
    }
    switch (command.kind) {
        case session::StatementKind::query:
        case session::StatementKind::parse:
            if (command.sql.size() > policy::Engine::off_thread_bytes) {
                thread_.shared().judges->judge(
                    {thread_, id_, std::string(command.sql), command.lexical, facts, moment});
                return;
            }
            session_.handle(session::Verdict{
                engine.judge(command.sql, command.lexical, facts, moment), moment.now});
            return;
        case session::StatementKind::bind:
        case session::StatementKind::execute:
            session_.handle(session::Verdict{
                command.analysis ? engine.judge_again(command.analysis, facts, moment)
                                 : engine.judge_unknown_statement(facts, moment),
                moment.now});
            return;
        case session::StatementKind::function_call:
            session_.handle(session::Verdict{
                engine.judge_function_call(command.function_oid, facts, moment), moment.now});
            return;
    }
}

void Connection::deliver(const session::Verdict& verdict) {
    if (!closing_) tell(verdict);
}

void Connection::deliver(const session::AuditStored& stored) {
    if (!closing_) tell(stored);
}

void Connection::carry_out(session::StoreAudit& command) {
    const auto now = std::chrono::system_clock::now();
    for (audit::Record& record : command.records) record.time = now;
    const audit::Submitted submitted = thread_.shared().audit->submit(
        std::move(command.records), command.awaited ? audit_token() : 0);
    if (submitted != audit::Submitted::accepted) {
        if (!command.awaited) {
            spdlog::warn("session {}: a record of a statement's effects was lost", id_);
            return;
        }
        session_.handle(session::AuditStored{false, "too many records wait for the disk"});
    }
}

// The session and, in the low bits, the thread that it lives on: see Server::audit_completed.
std::uint64_t Connection::audit_token() const { return id_ << 16 | thread_.index(); }

void Connection::carry_out(session::SetDeadline& command) {
    const ServerOptions& options = thread_.shared().options;
    const bool login = command.kind == session::DeadlineKind::login;
    deadline_.expires_after(
        login ? options.login_timeout
              : std::chrono::duration_cast<std::chrono::milliseconds>(cancel_time));
    const session::Deadline event{command.kind};
    deadline_.async_wait([self = weak_from_this(), event,
                          round = ++deadline_round_](const boost::system::error_code& error) {
        const auto connection = self.lock();
        if (error || !connection || connection->deadline_round_ != round) return;
        connection->tell(event);
    });
}

void Connection::carry_out(session::ClearDeadline&) {
    ++deadline_round_;
    deadline_.cancel();
}

void Connection::carry_out(session::ShutdownServer&) {
    if (server_.transport) server_.transport->shutdown_when_sent();
}

void Connection::carry_out(session::Close& command) {
    closing_ = true;
    close_reason_ = std::move(command.reason);
    ++deadline_round_;
    deadline_.cancel();
    // The readers wake up and say good-bye. What waits for the socket's room is not a reader and
    // goes on.
    for (Side* const side : {&client_, &server_}) {
        if (!side->transport) continue;
        side->transport->shutdown_when_sent();
        side->transport->stop_reading();
    }
    open_gates();
}

void Connection::carry_out(session::Log& command) {
    const policy::SessionFacts& facts = session_.facts();
    switch (command.level) {
        case session::LogLevel::debug: spdlog::debug("session {}: {}", id_, command.text); return;
        case session::LogLevel::info:
            spdlog::info("session {}: {}: user={} database={} client={} application={} tls={}", id_,
                         command.text, facts.user, facts.database, facts.client.text,
                         facts.application_name, facts.tls ? "yes" : "no");
            return;
        case session::LogLevel::warning: spdlog::warn("session {}: {}", id_, command.text); return;
    }
}

void Connection::drain(bool now) {
    if (closing_) return;
    draining_ = true;
    if (session_.end_if_idle()) return carry_out();
    if (!now) return;
    closing_ = true;
    close_reason_ = "shut down before it was idle";
    client_.transport->close();
    if (server_.transport) server_.transport->close();
    open_gates();
}

}  // namespace pgchaperone::net
