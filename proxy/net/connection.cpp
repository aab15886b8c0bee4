#include "proxy/net/connection.h"

#include "proxy/net/io_thread.h"
#include "proxy/net/judge_pool.h"
#include "proxy/net/proxy_header.h"
#include "proxy/net/shared.h"
#include "proxy/net/upstream.h"

#include "protocol/codec.h"
#include "protocol/messages.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <poll.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <exception>
#include <utility>
#include <variant>

namespace pgchaperone::net {

namespace asio = boost::asio;
using asio::awaitable;

namespace {

// Why a ticket ends with its session, and what is said of one that it could not use any more.
constexpr const char* gone = "its session has ended";
constexpr const char* not_run = "not run: its session had ended";
// What is read while nothing else is known: small, since it stands by for every idle session.
constexpr std::size_t idle_buffer_bytes = 4 * 1024;
// Reads in a row before the other sessions of the thread get their turn.
constexpr int reads_in_a_row = 16;
// How long a closed connection may take what is still to be sent, and how long its end is awaited.
constexpr std::chrono::seconds flush_time{60};
constexpr std::chrono::seconds good_bye_time{2};
constexpr std::chrono::seconds cancel_time{10};
// Connections to servers, at the same time, for CancelRequests of sessions that are not here.
constexpr unsigned strange_cancels_max = 200;
// How often a client that waits, and has sent more than is read ahead, is looked at.
constexpr std::chrono::seconds unread_look_time{1};

// The key as BackendKeyData holds it: a process id, and the secret.
std::string cancel_packet(std::string_view key) {
    std::int32_t process_id = 0;
    for (const char c : key.substr(0, Directory::process_id_bytes)) {
        process_id = static_cast<std::int32_t>(static_cast<std::uint32_t>(process_id) << 8 |
                                               static_cast<unsigned char>(c));
    }
    key.remove_prefix(std::min(key.size(), Directory::process_id_bytes));
    return protocol::encoded(protocol::CancelRequest{process_id, key});
}

void log_failure(std::uint64_t session, std::exception_ptr failure) {
    if (!failure) return;
    try {
        std::rethrow_exception(failure);
    } catch (const std::exception& error) {
        spdlog::error("session {}: internal error: {}", session, error.what());
    }
}

}  // namespace

Connection::Connection(IoThread& thread, Listener& listener, Transport::Socket client,
                       session::Setup setup)
    : thread_(thread),
      listener_(listener),
      id_(setup.id),
      session_(std::move(setup)),
      client_{std::make_shared<Transport>(std::move(client)), Gate(thread.context())},
      server_{nullptr, Gate(thread.context())} {}

Connection::~Connection() {
    if (strange_cancels_ > 0) thread_.shared().strange_cancels.fetch_sub(strange_cancels_);
}

void Connection::start(bool behind_load_balancer) {
    if (behind_load_balancer) header_.emplace();
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
    closing_ = true;  // what still comes from other threads comes too late
    client_.transport->close();
    if (server_.transport) server_.transport->close();
    timers_ = {};
    disk_timer_.reset();
    leave(false);
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

// `watch`: not for longer than until the next look at a client that can't be read.
awaitable<void> Connection::wait(Gate& gate, bool watch) {
    gate.waiting = true;
    if (watch) {
        gate.timer.expires_after(unread_look_time);
    } else {
        gate.timer.expires_at(asio::steady_timer::time_point::max());
    }
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
            const bool watch = from_client && !held_ticket_.empty();
            co_await wait(side.gate, watch);
            if (closing_ || !watch || !client_hung_up_unread()) continue;
            side_ended(true, true);
            break;
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

// Whoever waits for an approval may leave, and then nobody must decide on it. Usually that shows in
// what is read; here so much of theirs waits that the end behind it is out of sight.
bool Connection::client_hung_up_unread() {
    if (held_ticket_.empty() || !client_.transport->is_open()) return false;
    pollfd look{client_.transport->socket().native_handle(), POLLRDHUP, 0};
    return ::poll(&look, 1, 0) > 0 && (look.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
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

bool Connection::received_header(std::string_view bytes) {
    *header_ += bytes;
    const ProxyHeader header = read_proxy_header(*header_);
    if (!header.wrong.empty()) {
        header_.reset();
        session_.comes_wrongly(header.wrong,
                               "proxy_protocol names this address as a load balancer's: let it "
                               "send one, or connect from elsewhere.");
        carry_out();
        return false;
    }
    if (!header.complete) return true;
    if (header.source) {
        session_.comes_from(*header.source);
        spdlog::info("session {}: for client={}", id_, header.source->text);
    }
    const std::string whole = *std::exchange(header_, std::nullopt);
    if (whole.size() == header.size) return true;
    return received(true, std::string_view(whole).substr(header.size));
}

bool Connection::received(bool from_client, std::string_view bytes) {
    if (from_client && header_) return received_header(bytes);
    Side& side = from_client ? client_ : server_;
    const std::shared_ptr<Transport> transport = side.transport;
    const Direction direction = from_client ? Direction::from_client : Direction::from_server;
    if (transport->tls() == nullptr) {
        counts().add(direction, bytes.size());
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
        if (from_client && !client_tls_announced_)
            counts().refused[static_cast<std::size_t>(RefusedFor::tls)].add();
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
        counts().add(direction, read->bytes);
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
    if (upstream_) session_.set_policy_version(engine().policy_version());
    tell_time();
    session_.handle(event);
    carry_out();
    const bool renamed = session_.facts().revision != presented_revision_;
    if (logged_in_ && renamed && !closing_) present();
}

void Connection::tell_time() {
    if (session_.wants_time()) session_.tell_time(std::chrono::steady_clock::now());
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
    if (!session_.census().empty()) {
        counts().add(session_.census());
        session_.forget_census();
    }
    if (draining_ && !closing_ && session_.end_if_idle(newcomers_)) return carry_out();
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
    const std::string_view bytes = command.data.bytes();
    counts().add(Direction::to_client, bytes.size());
    client_.transport->write(bytes);
}

void Connection::carry_out(session::SendToServer& command) {
    if (!server_.transport) return;
    const std::string_view bytes = command.data.bytes();
    counts().add(Direction::to_server, bytes.size());
    server_.transport->write(bytes);
}

ThreadCounts& Connection::counts() {
    return thread_.counts((upstream_ ? *upstream_ : listener_.last()).index);
}

policy::Engine& Connection::engine() { return thread_.engine(upstream_->index); }

void Connection::carry_out(session::FindUpstream&) {
    upstream_ = listener_.find(session_.facts().database);
    session::UpstreamFound found;
    // Here and not before: from now on the session hears of every reload.
    if (upstream_) found.upstream = upstream_->for_session();
    session_.handle(found);
}

void Connection::carry_out(session::Connect& command) {
    if (command.cancels && !upstream_) {
        if (!may_cancel_strangers()) {
            return session_.handle(session::Connected{
                false, "too many cancel requests for sessions that are not here", false, {}, {}});
        }
        cancel_everywhere_else();
        upstream_ = &listener_.last();
    }
    if (!command.cancels) {
        Places::Taken taken = upstream_->places.take(session_.facts(), privileged());
        if (taken.refusal) {
            return session_.handle(
                session::Connected{false, {}, false, {}, std::move(taken.refusal)});
        }
        place_ = std::move(taken.place);
    }
    ++coroutines_;
    asio::co_spawn(thread_.context(), open_upstream(),
                   [self = shared_from_this()](std::exception_ptr failure) {
                       log_failure(self->id_, failure);
                       self->finished();
                   });
}

// By the name that the client gives, which nobody has checked yet: a login that fails gives its
// place back.
bool Connection::privileged() const {
    const auto edition = upstream_->rules->current();
    const std::string& user = session_.facts().user;
    for (const auto* const roles : {&edition->policy.operators, &edition->policy.approvers}) {
        for (const policy::Glob& role : *roles) {
            if (role.matches(user)) return true;
        }
    }
    return false;
}

awaitable<void> Connection::open_upstream() {
    UpstreamConnection upstream = co_await connect_upstream(thread_, *upstream_, weak_from_this());
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
    client_.transport->set_tls(std::make_unique<TlsChannel>(listener_.tls(), options));
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
    policy::Engine& engine = this->engine();
    const policy::SessionFacts& facts = session_.facts();
    if (command.oversized_bytes > 0) {
        return judged(engine.judge_oversized(command.oversized_bytes, facts, moment), moment.now);
    }
    if (command.analysis && command.once) {
        return judged(engine.judge_once(command.analysis, facts, moment), moment.now);
    }
    switch (command.kind) {
        case session::StatementKind::query:
        case session::StatementKind::parse:
            if (command.sql.size() > policy::Engine::off_thread_bytes) {
                upstream_->judges->judge(
                    {thread_, id_, std::string(command.sql), command.lexical, facts, moment});
                return;
            }
            return judged(judge_text(command, moment), moment.now);
        case session::StatementKind::bind:
        case session::StatementKind::execute:
            return judged(command.analysis ? engine.judge_again(command.analysis, facts, moment)
                                           : engine.judge_unknown_statement(facts, moment),
                          moment.now);
        case session::StatementKind::function_call:
            return judged(engine.judge_function_call(command.function_oid, facts, moment),
                          moment.now);
    }
}

// What is in the cache takes less time than to ask for the time. `moment` has it of the beginning,
// by a clock that the rules have asked for anyway; one that is set meanwhile is one wrong figure
// among many.
policy::Judgement Connection::judge_text(const session::Judge& command,
                                         const policy::Moment& moment) {
    policy::Engine& engine = this->engine();
    const std::uint64_t misses = engine.cache_use().misses;
    policy::Judgement judgement = engine.judge(command.sql, command.lexical, session_.facts(),
                                               moment);
    if (engine.cache_use().misses != misses)
        counts().judge.observe(std::chrono::system_clock::now() - moment.now);
    return judgement;
}

void Connection::judged(policy::Judgement judgement, std::chrono::system_clock::time_point at) {
    const policy::SessionFacts& facts = session_.facts();
    session_.handle(
        session::Verdict{std::move(judgement), at,
                         thread_.shared().desk->may_be_approved(facts.user, facts.database)});
}

void Connection::deliver(session::Verdict verdict) {
    counts().judge.observe(std::chrono::system_clock::now() - verdict.at);
    if (closing_) return;
    const policy::SessionFacts& facts = session_.facts();
    verdict.may_be_approved = thread_.shared().desk->may_be_approved(facts.user, facts.database);
    tell(verdict);
}

void Connection::deliver(const session::AuditStored& stored) {
    if (closing_) return;
    // Records of one session are reported in their order.
    if (overdue_records_ > 0) {
        --overdue_records_;
        return;
    }
    if (disk_timer_) disk_timer_->timer.cancel();
    disk_timer_.reset();
    tell(outcome_of_record(stored.ok, stored.error));
}

// Who may run without a record is told that there is one, and everybody else that it is not so.
session::AuditStored Connection::outcome_of_record(bool on_disk, const std::string& problem) {
    if (on_disk) return {true, problem};
    if (!thread_.shared().options.audit.allow_on_failure) {
        thread_.shared().refused_unrecorded.fetch_add(1);
        return {false, problem};
    }
    thread_.shared().unrecorded.fetch_add(1);
    spdlog::warn("session {}: goes on without a record in the audit log: {}", id_, problem);
    return {true, {}};
}

// A disk that takes too long is one that refuses. The record may yet come to be in the log.
void Connection::wait_for_disk() {
    disk_timer_ = std::make_unique<Timer>(thread_.context());
    disk_timer_->round = ++timer_round_;
    disk_timer_->timer.expires_after(thread_.shared().options.audit.patience);
    disk_timer_->timer.async_wait([self = weak_from_this(),
                                   round = timer_round_](const boost::system::error_code& error) {
        const auto connection = self.lock();
        if (error || !connection || connection->closing_) return;
        if (!connection->disk_timer_ || connection->disk_timer_->round != round) return;
        connection->disk_timer_.reset();
        ++connection->overdue_records_;
        connection->thread_.shared().overdue_records.fetch_add(1);
        connection->tell(connection->outcome_of_record(
            false, "the disk has not taken the record within " +
                       std::to_string(connection->thread_.shared().options.audit.patience.count()) +
                       " ms"));
    });
}

void Connection::carry_out(session::StoreAudit& command) {
    const auto now = std::chrono::system_clock::now();
    for (audit::Record& record : command.records) record.time = now;
    const bool awaited = command.awaited;
    const audit::Submitted submitted = thread_.shared().audit->submit(std::move(command.records),
                                                                      awaited ? audit_token() : 0);
    if (submitted != audit::Submitted::accepted) {
        if (!awaited) {
            spdlog::warn("session {}: a record of what came of a statement was lost", id_);
            return;
        }
        tell_time();
        session_.handle(outcome_of_record(false, "too many records wait for the disk"));
        return;
    }
    if (awaited) wait_for_disk();
}

// The session and, in the low bits, the thread that it lives on: see Server::audit_completed.
std::uint64_t Connection::audit_token() const { return id_ << 16 | thread_.index(); }

void Connection::carry_out(session::SetDeadline& command) {
    std::chrono::milliseconds after = command.after;
    switch (command.kind) {
        case session::DeadlineKind::login: after = listener_.options.login_timeout; break;
        case session::DeadlineKind::linger: after = cancel_time; break;
        case session::DeadlineKind::held:
        case session::DeadlineKind::notice:
        case session::DeadlineKind::keep_alive: break;
        case session::DeadlineKind::idle:
        case session::DeadlineKind::statement:
        case session::DeadlineKind::transaction: return set_often(command.kind, after);
    }
    const auto index = static_cast<std::size_t>(command.kind);
    if (!timers_[index]) timers_[index] = std::make_unique<Timer>(thread_.context());
    Timer& set = *timers_[index];
    set.round = ++timer_round_;
    set.timer.expires_after(after);
    // The round: one that was due already when it was set anew or cleared is none any more.
    set.timer.async_wait([self = weak_from_this(), kind = command.kind,
                          round = set.round](const boost::system::error_code& error) {
        const auto connection = self.lock();
        if (error || !connection || connection->closing_) return;
        const auto& timer = connection->timers_[static_cast<std::size_t>(kind)];
        if (timer && timer->round == round) connection->tell(session::Deadline{kind});
    });
}

// One that is set and cleared with every statement: its timer is left to run, and looks whether
// anything is due only when it ends.
void Connection::set_often(session::DeadlineKind kind, std::chrono::milliseconds after) {
    auto& timer = timers_[static_cast<std::size_t>(kind)];
    if (!timer) timer = std::make_unique<Timer>(thread_.context());
    timer->due = std::chrono::steady_clock::now() + after;
    timer->wanted = true;
    if (!timer->running || timer->timer.expiry() > timer->due) run_until_due(kind);
}

void Connection::run_until_due(session::DeadlineKind kind) {
    Timer& timer = *timers_[static_cast<std::size_t>(kind)];
    timer.running = true;
    timer.timer.expires_at(timer.due);
    timer.timer.async_wait([self = weak_from_this(), kind](const boost::system::error_code& error) {
        const auto connection = self.lock();
        if (error || !connection || connection->closing_) return;
        const auto& ended = connection->timers_[static_cast<std::size_t>(kind)];
        if (!ended || ended->timer.expiry() > std::chrono::steady_clock::now()) return;
        ended->running = false;
        if (!ended->wanted) return;
        if (ended->due > std::chrono::steady_clock::now()) return connection->run_until_due(kind);
        ended->wanted = false;
        connection->tell(session::Deadline{kind});
    });
}

// Only to who has come to a server already: the others are told when they do.
void Connection::deliver(const session::IdleLimits& limits) {
    if (!closing_) tell(limits);
}

void Connection::carry_out(session::ClearDeadline& command) {
    const bool often = command.kind == session::DeadlineKind::idle ||
                       command.kind == session::DeadlineKind::statement ||
                       command.kind == session::DeadlineKind::transaction;
    if (often) {
        if (const auto& timer = timers_[static_cast<std::size_t>(command.kind)]) {
            timer->wanted = false;
        }
        return;
    }
    timers_[static_cast<std::size_t>(command.kind)].reset();
    if (command.kind != session::DeadlineKind::login || logged_in_) return;
    logged_in_ = true;
    logged_in_at_ = std::chrono::system_clock::now();
    counts().logins.add();
    upstream_->sight.saw(true, std::chrono::steady_clock::now());
    present();
}

// Tickets: the desk answers on its own thread, and may find nobody here any more.

void Connection::carry_out(session::ClaimTicket& command) {
    approval::Desk& desk = *thread_.shared().desk;
    desk.claim(
        std::move(command.claim), [&desk, &thread = thread_, id = id_](
                                      approval::Result<std::optional<approval::Ticket>> answer) {
            thread.post([&desk, &thread, id, claimed = session::TicketClaimed{std::move(answer)}] {
                const auto connection = thread.find(id);
                if (connection && connection->deliver(claimed)) return;
                if (!claimed.answer || !*claimed.answer) return;
                desk.finish((**claimed.answer).id, not_run);
            });
        });
}

bool Connection::deliver(const session::TicketClaimed& answer) {
    if (closing_) return false;
    if (answer.answer && *answer.answer) claimed((**answer.answer).id);
    tell(answer);
    return true;
}

void Connection::carry_out(session::OpenTicket& command) {
    approval::Desk& desk = *thread_.shared().desk;
    IoThread& thread = thread_;
    desk.open(
        std::move(command.request),
        [&desk, &thread, id = id_](approval::Result<approval::Ticket> answer) {
            thread.post([&desk, &thread, id, opened = session::TicketOpened{std::move(answer)}] {
                const auto connection = thread.find(id);
                if ((connection && connection->deliver(opened)) || !opened.answer) return;
                if (opened.answer->open()) {
                    desk.withdraw(opened.answer->id, gone);
                } else {
                    desk.finish(opened.answer->id, not_run);
                }
            });
        },
        [&thread, id = id_](const approval::Ticket& ticket) {
            thread.post([&thread, id, decided = session::TicketDecided{ticket}] {
                if (const auto connection = thread.find(id)) connection->deliver(decided);
            });
        });
}

bool Connection::deliver(const session::TicketOpened& opened) {
    if (closing_) return false;
    if (opened.answer && opened.answer->open()) holds(opened.answer->id);
    // By glass it is used from the beginning.
    if (opened.answer && opened.answer->state == approval::State::used) {
        claimed(opened.answer->id);
    }
    tell(opened);
    return true;
}

void Connection::deliver(const session::TicketDecided& decided) {
    if (closing_) return;
    // What was approved is held until it is claimed.
    if (decided.ticket.state != approval::State::approved && held_ticket_ == decided.ticket.id) {
        holds({});
    }
    tell(decided);
}

void Connection::carry_out(session::ReleaseTicket& command) {
    if (held_ticket_ == command.id) holds({});
    thread_.shared().desk->release(std::move(command.id));
}

void Connection::carry_out(session::WithdrawTicket& command) {
    if (held_ticket_ == command.id) holds({});
    thread_.shared().desk->withdraw(std::move(command.id), std::move(command.why));
}

void Connection::carry_out(session::FinishTicket& command) {
    std::erase(claimed_tickets_, command.id);
    thread_.shared().desk->finish(std::move(command.id), std::move(command.outcome));
}

void Connection::holds(std::string ticket) {
    held_ticket_ = std::move(ticket);
    present();
    // It may have stopped reading before it was held: from now on it looks.
    client_.gate.open();
}

void Connection::claimed(std::string ticket) {
    if (!held_ticket_.empty()) holds({});
    claimed_tickets_.push_back(std::move(ticket));
}

// Whatever becomes of a session, its tickets do not stay as if it were still there. The core has
// said so before where it could.
void Connection::leave(bool shutting_down) {
    thread_.shared().directory.left(id_);
    place_.give_back();
    approval::Desk& desk = *thread_.shared().desk;
    if (!held_ticket_.empty()) {
        // Who is sent away by a restart can come back and find it approved.
        if (shutting_down) {
            desk.release(std::exchange(held_ticket_, {}));
        } else {
            desk.withdraw(std::exchange(held_ticket_, {}), gone);
        }
    }
    for (std::string& ticket : claimed_tickets_) {
        desk.finish(std::move(ticket), "not known: the session ended before the server answered");
    }
    claimed_tickets_.clear();
}

void Connection::carry_out(session::AskChaperone& command) {
    upstream_->virtual_schema->ask(std::move(command), session_.facts(),
                                   [&thread = thread_, id = id_](session::ChaperoneAnswer answer) {
                                       thread.post([&thread, id, answer = std::move(answer)] {
                                           if (const auto connection = thread.find(id))
                                               connection->deliver(answer);
                                       });
                                   });
}

void Connection::deliver(const session::ChaperoneAnswer& answer) {
    if (!closing_) tell(answer);
}

// Who is here

void Connection::present() {
    const policy::SessionFacts& facts = session_.facts();
    presented_revision_ = facts.revision;
    thread_.shared().directory.put({id_, facts.user, facts.database, facts.client.text,
                                    facts.application_name, facts.tls, logged_in_at_, held_ticket_,
                                    facts.upstream});
}

void Connection::carry_out(session::KnowCancelKey& command) {
    thread_.shared().directory.know_key(std::move(command.key), {id_, &thread_, upstream_});
}

void Connection::carry_out(session::FindCancelled& command) {
    cancel_key_ = command.key;
    if (const auto where = thread_.shared().directory.find_key(command.key))
        upstream_ = where->upstream;
    const auto answer = [&own = thread_, id = id_](bool taken) {
        own.post([&own, id, taken] {
            if (const auto asking = own.find(id)) asking->deliver(session::CancelTaken{taken});
        });
    };
    if (cancel_held(thread_.shared().directory, command.key, answer)) return;
    // It may be held by a process that this one has taken over from.
    Predecessors* const predecessors = thread_.shared().predecessors.get();
    if (!predecessors || predecessors->left() == 0)
        return session_.handle(session::CancelTaken{false});
    predecessors->ask(std::move(command.key), answer);
}

bool cancel_held(const Directory& directory, std::string_view key,
                 std::function<void(bool taken)> then) {
    const auto where = directory.find_key(key);
    if (!where) return false;
    IoThread& theirs = *where->thread;
    theirs.post([&theirs, session = where->session, then = std::move(then)] {
        const auto cancelled = theirs.find(session);
        then(cancelled && cancelled->cancel());
    });
    return true;
}

bool Connection::cancel() {
    if (closing_) return false;
    session_.set_policy_version(engine().policy_version());
    const bool taken = session_.handle(session::CancelAsked{});
    carry_out();
    return taken;
}

void Connection::deliver(const session::CancelTaken& taken) {
    if (!closing_) tell(taken);
}

void Connection::carry_out(session::CancelServer& command) {
    asio::co_spawn(thread_.context(), cancel_upstream(std::move(command.key)),
                   [self = shared_from_this()](std::exception_ptr failure) {
                       log_failure(self->id_, failure);
                   });
}

awaitable<void> Connection::cancel_upstream(std::string key) {
    const auto self = shared_from_this();
    co_await send_cancel(*upstream_, std::move(key));
    if (!closing_) tell(session::ServerCancelled{});
}

// The server closes such a connection when it has seen to it, and says nothing.
awaitable<void> Connection::send_cancel(Guarded& to, std::string key) {
    const auto self = shared_from_this();
    UpstreamConnection upstream = co_await connect_upstream(thread_, to, self);
    if (!upstream.transport) {
        spdlog::warn("session {}: what should be cancelled could not be: {}", id_, upstream.error);
        co_return;
    }
    const std::shared_ptr<Transport> transport = upstream.transport;
    asio::steady_timer limit(thread_.context(), cancel_time);
    limit.async_wait([transport](const boost::system::error_code& error) {
        if (!error) transport->close();
    });
    transport->write(cancel_packet(key));
    std::array<char, 64> buffer;
    while (transport->is_open()) {
        const auto [error, size] = co_await transport->socket().async_read_some(
            asio::buffer(buffer), asio::as_tuple(asio::use_awaitable));
        if (error) break;
    }
    transport->close();
}

// Anybody can send such a request, and need not wait for what comes of it.
bool Connection::may_cancel_strangers() {
    const auto more = static_cast<unsigned>(listener_.upstreams.size());
    std::atomic<unsigned>& all = thread_.shared().strange_cancels;
    if (all.fetch_add(more) + more > strange_cancels_max) {
        all.fetch_sub(more);
        return false;
    }
    strange_cancels_ = more;
    return true;
}

// Another replica's session: the key does not say which server gave it. Who did not knows no such
// session and does nothing; the last of the listener's servers is left to the session.
void Connection::cancel_everywhere_else() {
    for (Guarded* const upstream : listener_.upstreams) {
        if (upstream == &listener_.last()) break;
        asio::co_spawn(thread_.context(), send_cancel(*upstream, cancel_key_),
                       [self = shared_from_this()](std::exception_ptr failure) {
                           log_failure(self->id_, failure);
                       });
    }
}

void Connection::carry_out(session::ShutdownServer&) {
    if (server_.transport) server_.transport->shutdown_when_sent();
}

void Connection::carry_out(session::Close& command) {
    closing_ = true;
    close_reason_ = std::move(command.reason);
    came_to_nothing(command.ending);
    timers_ = {};
    leave(false);
    // The readers wake up and say good-bye. What waits for the socket's room is not a reader and
    // goes on.
    for (Side* const side : {&client_, &server_}) {
        if (!side->transport) continue;
        side->transport->shutdown_when_sent();
        side->transport->stop_reading();
    }
    open_gates();
}

void Connection::came_to_nothing(session::Ending ending) {
    ThreadCounts& counts = this->counts();
    const auto refused = [&](RefusedFor why) {
        counts.refused[static_cast<std::size_t>(why)].add();
    };
    switch (ending) {
        case session::Ending::ordinary: return;
        case session::Ending::startup: return refused(RefusedFor::startup);
        case session::Ending::timeout: return refused(RefusedFor::timeout);
        case session::Ending::unanswered:
            counts.upstream_errors[static_cast<std::size_t>(UpstreamError::login)].add();
            return refused(RefusedFor::timeout);
        case session::Ending::upstream: return refused(RefusedFor::upstream);
        case session::Ending::limit: return refused(RefusedFor::limit);
        case session::Ending::login: return counts.logins_failed.add();
    }
}

void Connection::carry_out(session::Log& command) {
    const policy::SessionFacts& facts = session_.facts();
    switch (command.level) {
        case session::LogLevel::debug: spdlog::debug("session {}: {}", id_, command.text); return;
        case session::LogLevel::info:
            spdlog::info("session {}: {}: user={} database={}{}{} client={} application={} tls={}",
                         id_, command.text, facts.user, facts.database,
                         facts.upstream.empty() ? "" : " upstream=", facts.upstream,
                         facts.client.text, facts.application_name, facts.tls ? "yes" : "no");
            return;
        case session::LogLevel::warning: spdlog::warn("session {}: {}", id_, command.text); return;
    }
}

void Connection::drain(bool newcomers, bool now) {
    if (closing_) return;
    draining_ = true;
    newcomers_ = newcomers || now;
    if (session_.end_if_idle(newcomers_)) return carry_out();
    if (!now) return;
    spdlog::warn("session {}: was not idle in time, and is ended", id_);
    leave(true);
    session_.end_now();
    carry_out();
}

}  // namespace pgchaperone::net
