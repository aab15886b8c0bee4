#pragma once
// The Asio host of one session: two sockets, the core between them, and the carrying out of its
// commands.
//
//   client_.read -> Session -> server_.write        and the other way round; full duplex, each
//   direction
//                                                   stops reading while the other side can't take
//                                                   more
//
// Lives on one IoThread. The coroutines hold it alive; it removes itself from the thread when both
// are done.

#include "policy/engine.h"
#include "proxy/net/places.h"
#include "proxy/net/transport.h"
#include "proxy/session/session.h"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::net {

class Directory;
class Guarded;
class IoThread;
class Listener;
struct ThreadCounts;

class Connection : public std::enable_shared_from_this<Connection> {
public:
    // What may wait for a side that does not take it; past it the other side is not read.
    static constexpr std::size_t pending_bytes_max = 256 * 1024;

    Connection(IoThread& thread, Listener& listener, Transport::Socket client,
               session::Setup setup);
    ~Connection();
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    std::uint64_t id() const { return id_; }
    // Null until it is known where the client wants to go.
    const Guarded* upstream() const { return upstream_; }
    // `behind_load_balancer`: the first bytes are a header of PROXY protocol.
    void start(bool behind_load_balancer);

    // Answers that come from other threads, handed over by IoThread::post.
    void deliver(session::Verdict verdict);
    void deliver(const session::AuditStored& stored);
    void deliver(const session::ChaperoneAnswer& answer);
    void deliver(const session::CancelTaken& taken);
    void deliver(const session::IdleLimits& limits);
    void deliver(const session::TicketDecided& decided);
    // False: it is closing, and can't use the ticket any more.
    bool deliver(const session::TicketClaimed& claimed);
    bool deliver(const session::TicketOpened& opened);
    // A CancelRequest has come with this session's key. Whether something held was cancelled by it.
    bool cancel();

    // The process ends: idle sessions at once, busy ones when they are idle, those that have not
    // been answered anything yet when `newcomers` is true, all of them when `now` is.
    void drain(bool newcomers, bool now);

private:
    // A place to wait until something has changed.
    struct Gate {
        explicit Gate(boost::asio::io_context& context) : timer(context) {}
        boost::asio::steady_timer timer;
        bool waiting = false;
        void open() {
            if (waiting) timer.cancel();
        }
    };
    // Made when it is set for the first time, since most sessions need none for long.
    struct Timer {
        explicit Timer(boost::asio::io_context& context) : timer(context) {}
        boost::asio::steady_timer timer;
        std::uint64_t round = 0;
        std::chrono::steady_clock::time_point due{};  // of one that is set often
        bool wanted = false;                          // likewise
        bool running = false;
    };
    struct Side {
        std::shared_ptr<Transport> transport;
        Gate gate;
        bool ended = false;    // its reader is done
        bool read_on = false;  // the socket may hold more than the last read took
    };

    boost::asio::awaitable<void> pump(bool from_client);
    boost::asio::awaitable<void> open_upstream();
    boost::asio::awaitable<void> cancel_upstream(std::string key);
    boost::asio::awaitable<void> send_cancel(Guarded& upstream, std::string key);
    void cancel_everywhere_else();
    boost::asio::awaitable<void> wait(Gate& gate, bool watch = false);
    boost::asio::awaitable<void> say_good_bye(std::shared_ptr<Transport> transport, Gate& gate,
                                              bool linger);
    std::uint64_t audit_token() const;
    void wait_for_disk();
    session::AuditStored outcome_of_record(bool on_disk, const std::string& problem);
    bool may_read(bool from_client) const;
    // Takes the load balancer's header off what was read. False: the side has ended.
    bool received_header(std::string_view bytes);
    // Hands what was read to the core, through TLS where there is some. False: the side has ended.
    bool received(bool from_client, std::string_view bytes);
    void side_ended(bool from_client, bool broken);

    template <class Event>
    void tell(const Event& event);
    void carry_out();
    void carry_out(session::SendToClient& command);
    void carry_out(session::SendToServer& command);
    void carry_out(session::FindUpstream& command);
    void carry_out(session::Connect& command);
    void carry_out(session::StartTls& command);
    void carry_out(session::Judge& command);
    void carry_out(session::StoreAudit& command);
    void carry_out(session::SetDeadline& command);
    void carry_out(session::ClearDeadline& command);
    void carry_out(session::CancelServer& command);
    void carry_out(session::ShutdownServer& command);
    void carry_out(session::Close& command);
    void carry_out(session::Log& command);
    void carry_out(session::ClaimTicket& command);
    void carry_out(session::OpenTicket& command);
    void carry_out(session::ReleaseTicket& command);
    void carry_out(session::WithdrawTicket& command);
    void carry_out(session::FinishTicket& command);
    void carry_out(session::AskChaperone& command);
    void carry_out(session::FindCancelled& command);
    void carry_out(session::KnowCancelKey& command);

    policy::Judgement judge_text(const session::Judge& command, const policy::Moment& moment);
    void judged(policy::Judgement judgement, std::chrono::system_clock::time_point at);
    void holds(std::string ticket);
    void claimed(std::string ticket);
    void set_often(session::DeadlineKind kind, std::chrono::milliseconds after);
    void run_until_due(session::DeadlineKind kind);
    bool privileged() const;
    ThreadCounts& counts();
    policy::Engine& engine();
    void present();
    void leave(bool shutting_down);
    void came_to_nothing(session::Ending ending);
    bool client_hung_up_unread();

    void tls_progress();
    void open_gates();
    void finished();

    IoThread& thread_;
    Listener& listener_;
    Guarded* upstream_ = nullptr;
    std::string cancel_key_;  // of a CancelRequest that came here
    std::uint64_t id_;
    session::Session session_;
    std::optional<std::string> header_;  // what has come of PROXY protocol's, while it is awaited
    Side client_;
    Side server_;
    std::array<std::unique_ptr<Timer>, session::deadline_kinds> timers_;  // by DeadlineKind
    std::uint64_t timer_round_ = 0;
    std::unique_ptr<Timer> disk_timer_;  // while a record is waited for
    unsigned overdue_records_ = 0;       // that are waited for no more, and will yet be reported
    std::string held_ticket_;            // what this session waits for
    std::vector<std::string> claimed_tickets_;  // used by it, and not finished
    std::uint32_t presented_revision_ = 0;
    bool logged_in_ = false;
    std::chrono::system_clock::time_point logged_in_at_;
    bool carrying_out_ = false;
    bool client_tls_announced_ = false;
    bool client_lost_ = false;
    bool closing_ = false;
    bool draining_ = false;
    bool newcomers_ = false;  // are ended, too: see Session::end_if_idle
    unsigned coroutines_ = 0;
    std::string close_reason_;
    Places::Place place_;
};

// A CancelRequest has come with this key. False: it is no session's of this process. `then` is
// called on that session's thread, with whether something held was cancelled.
bool cancel_held(const Directory& directory, std::string_view key,
                 std::function<void(bool taken)> then);

}  // namespace pgchaperone::net
