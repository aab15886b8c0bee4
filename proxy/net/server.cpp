#include "proxy/net/server.h"

#include "proxy/net/connection.h"
#include "proxy/net/io_thread.h"
#include "proxy/net/judge_pool.h"
#include "proxy/net/late_store.h"
#include "proxy/net/listen.h"
#include "proxy/net/shared.h"
#include "proxy/net/ticket_words.h"
#include "proxy/net/web_server.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <pthread.h>
#include <stdexcept>
#include <thread>
#include <unistd.h>
#include <unordered_map>
#include <utility>
#include <vector>

namespace pgchaperone::net {

namespace asio = boost::asio;

namespace {

constexpr std::chrono::milliseconds accept_pause{100};
constexpr std::chrono::milliseconds drain_poll{50};
constexpr int nonce_bytes = 18;

std::string random_nonce() {
    unsigned char bytes[nonce_bytes];
    if (RAND_bytes(bytes, nonce_bytes) != 1)
        throw std::runtime_error("no random numbers from OpenSSL");
    unsigned char text[4 * ((nonce_bytes + 2) / 3) + 1];
    const int size = EVP_EncodeBlock(text, bytes, nonce_bytes);
    return std::string(reinterpret_cast<const char*>(text), static_cast<std::size_t>(size));
}

TlsContexts load_tls(const ServerOptions& options) {
    TlsContexts contexts;
    if (options.client_tls.mode != TlsMode::disable) {
        auto made = make_server_context(options.client_tls);
        if (made.has_error()) throw std::runtime_error("client_tls: " + made.error().text);
        contexts.client = *made;
    }
    if (options.upstream_tls.mode != TlsMode::disable) {
        auto made = make_client_context(options.upstream_tls);
        if (made.has_error()) throw std::runtime_error("upstream_tls: " + made.error().text);
        contexts.upstream = *made;
    }
    for (const TlsContextPtr& context : {contexts.client, contexts.upstream}) {
        if (!context) continue;
        for (const std::string& warning : context->warnings()) spdlog::warn("{}", warning);
    }
    return contexts;
}

// A file that can't be used is a mistake of who starts the process. A database may just be down.
std::unique_ptr<approval::Store> open_store(const ServerOptions& options) {
    const std::string& where = options.ticket_store;
    const OpenStore open = [where, postgres = options.tickets_in_postgres] {
        return postgres ? approval::open_postgres_store(where) : approval::open_sqlite_store(where);
    };
    auto store = open();
    if (store) return std::move(*store);
    if (!options.tickets_in_postgres) throw std::runtime_error(store.error().text);
    return late_store(open, store.error());
}

// Signals are waited for on the main thread; no other gets them.
sigset_t block_signals() {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int one : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, one);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
    return signals;
}

std::string sql_text(const std::string& text) {
    std::string out;
    for (const char c : text) out += c == '\'' ? std::string("''") : std::string(1, c);
    return out;
}

class Server {
public:
    Server(ServerOptions options, std::shared_ptr<policy::RuleBook> rules,
           std::function<Reloaded()> reload_policy)
        : reload_policy_(std::move(reload_policy)) {
        shared_.options = std::move(options);
        shared_.rules = std::move(rules);
        shared_.change(shared_.options.changeable);
        shared_.set_tls(load_tls(shared_.options));
        shared_.resolver = std::make_unique<Resolver>();
        shared_.judges = std::make_unique<JudgePool>(shared_.rules, shared_.capabilities);
        open_audit();
        open_desk();
        for (unsigned i = 0; i < shared_.options.threads; ++i) {
            threads_.push_back(std::make_unique<IoThread>(shared_, i));
        }
        // Before the other port: who can connect there finds the page, too. Its thread works from
        // now on, and uses all of the above.
        open_web();
        try {
            listen();
        } catch (...) {
            if (owned_web_) owned_web_->stop();
            throw;
        }
    }

    ~Server() {
        if (owned_web_) owned_web_->stop();
        for (auto& thread : threads_) thread->stop();
        for (auto& worker : workers_) worker.join();
        // Whoever could still hand something to a thread ends before the threads' contexts do.
        shared_.judges.reset();
        shared_.resolver.reset();
        shared_.desk.reset();
        // What the desk has told at its end goes out, too.
        shared_.webhooks.reset();
        shared_.audit->close();
    }

    void start() {
        for (auto& thread : threads_) {
            workers_.emplace_back([&one = *thread] { one.run(); });
        }
        threads_.front()->post(
            [this] { asio::co_spawn(threads_.front()->context(), accept(), asio::detached); });
        spdlog::info("listening on {}, guarding {}", shared_.options.listen.text(),
                     shared_.options.upstream.text());
    }

    // Takes the configuration anew: on SIGHUP, or at an operator's command. What is wrong, for
    // people; what could be used is in force all the same.
    ReloadOutcome reload() {
        const std::lock_guard lock(reload_mutex_);
        Reloaded reloaded = reload_policy_();
        std::string restart;
        const bool policy_taken = reloaded.trouble.empty();
        std::string trouble = std::move(reloaded.trouble);
        if (trouble.empty()) {
            shared_.webhooks->replace(reloaded.webhooks);
            change(reloaded.changeable);
            spdlog::info("reload: the policy is in force");
            for (const std::string& key : reloaded.restart) {
                restart += (restart.empty() ? "" : ", ") + key;
            }
            if (!restart.empty()) {
                spdlog::warn("reload: changed, and taken only at a restart: {}", restart);
            }
        } else {
            spdlog::error("reload: the policy stays as it was: {}", trouble);
        }
        try {
            shared_.set_tls(load_tls(shared_.options));
        } catch (const std::exception& error) {
            spdlog::error("reload: {}; the certificates loaded before stay in use", error.what());
            trouble += (trouble.empty() ? "" : "\n") + std::string(error.what()) +
                       "; the certificates loaded before stay in use";
        }
        if (owned_web_) {
            if (const std::string wrong = owned_web_->reload(); !wrong.empty()) {
                spdlog::error("reload: {}; the certificate loaded before stays in use", wrong);
                trouble += (trouble.empty() ? "" : "\n") + wrong +
                           "; the certificate loaded before stays in use";
            }
        }
        shared_.audit->reopen();
        return {std::move(trouble), policy_taken, std::move(restart)};
    }

    // No new sessions; idle ones end, busy ones when they are idle, the rest after the drain time.
    void drain(const sigset_t& signals) {
        shared_.draining = true;
        threads_.front()->post([this] { stop_accepting(); });
        const auto until = std::chrono::steady_clock::now() + shared_.options.drain_timeout;
        bool now = false;
        while (shared_.connections.load() > 0) {
            for (auto& thread : threads_) {
                thread->post([&one = *thread, now] {
                    one.for_each([now](Connection& connection) { connection.drain(now); });
                });
            }
            if (now) break;
            const timespec pause{0, std::chrono::nanoseconds(drain_poll).count()};
            const int again = sigtimedwait(&signals, nullptr, &pause);
            now = again == SIGTERM || again == SIGINT || std::chrono::steady_clock::now() >= until;
        }
        // The last ones say good-bye.
        const auto leave = std::chrono::steady_clock::now() + std::chrono::seconds(1);
        while (shared_.connections.load() > 0 && std::chrono::steady_clock::now() < leave) {
            std::this_thread::sleep_for(drain_poll);
        }
    }

private:
    void change(const Changeable& to) {
        shared_.change(to);
        for (auto& thread : threads_) {
            thread->post([&one = *thread, idle = to.idle] {
                one.for_each([idle](Connection& connection) { connection.deliver(idle); });
            });
        }
    }

    void open_audit() {
        audit::WriterOptions options;
        const AuditSettings& audit = shared_.options.audit;
        options.file = audit.file;
        options.rotate_bytes = audit.rotate_bytes;
        options.rotate_every = audit.rotate_every;
        options.keep_old = audit.keep_old;
        options.compress_old = audit.compress_old;
        options.checkpoint_every = audit.checkpoint_every;
        if (audit.allow_on_failure)
            options.when_refused =
                "statements run without a record until this is mended "
                "(audit.on_failure: allow)";
        if (!audit.checkpoint_key.empty()) {
            auto key = audit::Key::load_private(audit.checkpoint_key);
            if (key.has_error()) throw std::runtime_error(key.error().text);
            options.checkpoint_key = std::make_shared<const audit::Key>(std::move(*key));
        }
        options.on_completion = [this](std::span<const audit::Completion> done) {
            audit_completed(done);
        };
        options.on_notice = [](std::string_view notice) { spdlog::warn("audit log: {}", notice); };
        open_sinks();
        if (!sinks_.empty()) {
            options.on_lines = [this](std::string_view lines) {
                for (const auto& sink : sinks_) sink->offer(lines);
            };
        }
        auto writer = audit::Writer::open(std::move(options));
        if (writer.has_error()) throw std::runtime_error(writer.error().text);
        shared_.audit = std::move(*writer);
    }

    void open_sinks() {
        const AuditSettings& audit = shared_.options.audit;
        audit::Sink::Options options;
        options.on_notice = [](std::string_view notice) { spdlog::warn("audit log: {}", notice); };
        if (audit.standard_output)
            sinks_.push_back(std::make_unique<audit::Sink>(audit::standard_output(), options));
        if (audit.syslog)
            sinks_.push_back(
                std::make_unique<audit::Sink>(audit::syslog_outlet(*audit.syslog), options));
    }

    void open_desk() {
        std::unique_ptr<approval::Store> store = open_store(shared_.options);
        shared_.webhooks = std::make_unique<WebhookSender>(
            WebhookSender::Options{shared_.options.replica, shared_.options.page_url},
            shared_.options.webhooks);
        approval::DeskOptions options;
        options.replica = shared_.options.replica;
        options.on_notice = [](std::string_view notice) { spdlog::warn("tickets: {}", notice); };
        options.on_happened = [this](const approval::Happened& happened) {
            shared_.webhooks->tell(happened);
            if (WebServer* const web = web_) web->happened(happened);
            const LogLine line = log_line(happened);
            if (line.loud) {
                spdlog::warn("{}", line.text);
            } else {
                spdlog::info("{}", line.text);
            }
        };
        const std::string store_name = store->where();
        shared_.desk = std::make_unique<approval::Desk>(std::move(store), std::move(options));
        VirtualSchema::Sources sources{
            *shared_.desk, *shared_.rules, shared_.directory, {}, {}, {}, {}};
        sources.aside = [this](JudgePool::Work work) { shared_.judges->work(std::move(work)); };
        sources.reload = [this] { return reload(); };
        sources.webhooks = [this] { return shared_.webhooks->stats(); };
        sources.store = store_name;
        sources.environment = [this] { return shared_.changeable().environment; };
        sources.connections = [this] {
            return ConnectionCounts{shared_.places.taken(), shared_.places.refused()};
        };
        sources.audit = [this] {
            AuditCounts counts{shared_.audit->stats(), shared_.unrecorded.load(),
                               shared_.overdue_records.load(), 0};
            for (const auto& sink : sinks_) counts.dropped += sink->stats().dropped;
            return counts;
        };
        shared_.virtual_schema = std::make_unique<VirtualSchema>(std::move(sources));
    }

    void open_web() {
        const ServerOptions& options = shared_.options;
        if (!options.web) return;
        WebLoginOptions login;
        login.upstream = options.upstream;
        login.upstream_tls = options.upstream_tls;
        login.negotiation = options.upstream_negotiation;
        login.database = options.web->database;
        login.timeout = options.connect_timeout;
        owned_web_ = std::make_unique<WebServer>(
            *options.web, std::move(login), options.upstream.text(), *shared_.desk,
            *shared_.resolver,
            [this](const web::Saying& saying, auto then) { record(saying, std::move(then)); });
        web_ = owned_web_.get();
    }

    // What is said on the page stands in the log as it would were it said in SQL.
    void record(const web::Saying& saying, std::function<void(std::string)> then) {
        audit::Record record;
        record.time = std::chrono::system_clock::now();
        record.user = saying.role;
        record.client = saying.client;
        record.application = "pgchaperone web";
        record.protocol = "web";
        record.command = "CALL";
        record.decision = "answer";
        record.statement = "CALL chaperone." + saying.what + "('" + sql_text(saying.ticket) +
                           (saying.comment.empty() ? "" : "', '" + sql_text(saying.comment)) + "')";
        std::uint64_t token = 0;
        {
            const std::lock_guard lock(page_mutex_);
            token = ++page_records_ << 16 | page_token;
            page_waiting_.emplace(token, std::move(then));
        }
        if (shared_.audit->submit(std::move(record), token) != audit::Submitted::accepted) {
            page_recorded(token, "too much waits for the audit log");
        }
    }

    void page_recorded(std::uint64_t token, const std::string& problem) {
        std::function<void(std::string)> then;
        {
            const std::lock_guard lock(page_mutex_);
            const auto found = page_waiting_.find(token);
            if (found == page_waiting_.end()) return;
            then = std::move(found->second);
            page_waiting_.erase(found);
        }
        if (!problem.empty() && shared_.options.audit.allow_on_failure) {
            ++shared_.unrecorded;
            return then({});
        }
        then(problem);
    }

    // On the writer's thread.
    void audit_completed(std::span<const audit::Completion> done) {
        for (const audit::Completion& completion : done) {
            if (completion.token == 0) continue;
            if ((completion.token & 0xFFFF) == page_token) {
                page_recorded(completion.token, completion.problem);
                continue;
            }
            IoThread& thread = *threads_[completion.token & 0xFFFF];
            thread.post([&thread, id = completion.token >> 16, problem = completion.problem] {
                if (const auto connection = thread.find(id)) {
                    connection->deliver(session::AuditStored{problem.empty(), problem});
                }
            });
        }
    }

    void listen() {
        const Address& address = shared_.options.listen;
        const Resolved resolved = resolve_now(address, true, false);
        if (resolved.endpoints.empty()) {
            throw std::runtime_error("can't listen on " + address.text() + ": " + resolved.error);
        }
        for (const auto& endpoint : resolved.endpoints) {
            acceptors_.push_back(listen_on(threads_.front()->context(), address, endpoint,
                                           "can't listen on " + address.text() + ": ", "--listen"));
        }
    }

    void stop_accepting() {
        boost::system::error_code ignored;
        for (Acceptor& acceptor : acceptors_) acceptor.close(ignored);
    }

    asio::awaitable<void> accept() {
        for (std::size_t i = 1; i < acceptors_.size(); ++i) {
            asio::co_spawn(threads_.front()->context(), accept_on(acceptors_[i]), asio::detached);
        }
        co_await accept_on(acceptors_.front());
    }

    asio::awaitable<void> accept_on(Acceptor& acceptor) {
        asio::steady_timer pause(threads_.front()->context());
        while (acceptor.is_open()) {
            Transport::Socket socket(threads_.front()->context());
            asio::generic::stream_protocol::endpoint peer;
            const auto [error] = co_await acceptor.async_accept(
                socket, peer, asio::as_tuple(asio::use_awaitable));
            if (!acceptor.is_open()) co_return;
            if (error) {
                // Out of descriptors, most likely: what we have goes on, newcomers wait.
                spdlog::error("can't accept a connection: {}", error.message());
                pause.expires_after(accept_pause);
                co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
                continue;
            }
            hand_out(std::move(socket), peer);
        }
    }

    // Connections go to the threads in turn and stay there.
    void hand_out(Transport::Socket socket, const asio::generic::stream_protocol::endpoint& peer) {
        session::Setup setup;
        setup.id = shared_.next_session_id.fetch_add(1);
        setup.client = address_of(peer);
        setup.tls_offered = shared_.options.client_tls.mode != TlsMode::disable;
        setup.tls_required = shared_.options.client_tls.mode == TlsMode::require ||
                             shared_.options.client_tls.mode == TlsMode::verify_ca ||
                             shared_.options.client_tls.mode == TlsMode::verify_full;
        if (shared_.options.ask_for_passwords) {
            setup.authentication = session::Authentication::password;
            setup.scram_nonce = random_nonce();
        }
        Changeable now = shared_.changeable();
        setup.idle = now.idle;
        setup.environment = std::move(now.environment);
        shared_.connections.fetch_add(1);
        IoThread& thread = *threads_[next_thread_++ % threads_.size()];
        if (threads_.size() == 1) return take_in(thread, std::move(socket), std::move(setup));
        const auto protocol = asio::generic::stream_protocol(peer.protocol().family(), 0);
        boost::system::error_code error;
        const int descriptor = socket.release(error);
        thread.post([&thread, descriptor, protocol, setup = std::move(setup)]() mutable {
            take_in(thread, Transport::Socket(thread.context(), protocol, descriptor),
                    std::move(setup));
        });
    }

    static void take_in(IoThread& thread, Transport::Socket socket, session::Setup setup) {
        spdlog::info("session {}: start: client={}", setup.id, setup.client.text);
        const auto connection = std::make_shared<Connection>(thread, std::move(socket),
                                                             std::move(setup));
        thread.add(connection);
        connection->start();
    }

    // Before what hands them lines.
    std::vector<std::unique_ptr<audit::Sink>> sinks_;
    // In place of a thread's number in the tokens of records: these are of the page.
    static constexpr std::uint64_t page_token = 0xFFFF;
    std::mutex page_mutex_;
    std::uint64_t page_records_ = 0;
    std::unordered_map<std::uint64_t, std::function<void(std::string)>> page_waiting_;
    // Outlives the desk, which may call it back until it ends.
    std::unique_ptr<WebServer> owned_web_;
    std::atomic<WebServer*> web_{nullptr};  // for the desk's thread, which was there before it
    Shared shared_;
    std::vector<std::unique_ptr<IoThread>> threads_;
    std::vector<Acceptor> acceptors_;
    std::vector<std::thread> workers_;
    std::size_t next_thread_ = 0;
    std::function<Reloaded()> reload_policy_;
    std::mutex reload_mutex_;
};

}  // namespace

int serve(ServerOptions options, std::shared_ptr<policy::RuleBook> rules,
          std::function<Reloaded()> reload,
          const std::function<void(const std::string&)>& trouble) {
    const sigset_t signals = block_signals();
    std::unique_ptr<Server> server;
    try {
        server = std::make_unique<Server>(std::move(options), std::move(rules), std::move(reload));
    } catch (const std::exception& error) {
        trouble(error.what());
        return 2;
    }
    server->start();
    while (true) {
        int signal = 0;
        if (sigwait(&signals, &signal) != 0) continue;
        if (signal == SIGHUP) {
            (void)server->reload();
            continue;
        }
        spdlog::info("shutting down");
        server->drain(signals);
        return 0;
    }
}

}  // namespace pgchaperone::net
