#include "proxy/net/server.h"

#include "proxy/net/connection.h"
#include "proxy/net/hand_over.h"
#include "proxy/net/io_thread.h"
#include "proxy/net/judge_pool.h"
#include "proxy/net/late_store.h"
#include "proxy/net/listen.h"
#include "proxy/net/metrics_page.h"
#include "proxy/net/metrics_server.h"
#include "proxy/net/own_events.h"
#include "proxy/net/passed_sockets.h"
#include "proxy/net/pulse.h"
#include "proxy/net/service_manager.h"
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

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <future>
#include <memory>
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
// How long who has only just come may take to send something before that is too late.
constexpr std::chrono::seconds newcomers_time{1};
// How often a process whose sessions go on looks whether they have ended.
constexpr std::chrono::milliseconds leave_poll{50};
// So far ahead of its own a process lets the next one number its sessions.
constexpr std::uint64_t sessions_ahead = 10'000;
// How long a policy's record is waited for where there is no limit for records.
constexpr std::chrono::seconds record_patience{10};
// How long the store of the tickets may take to be closed.
constexpr std::chrono::seconds store_farewell{5};

constexpr const char* too_much_waits = "too much waits for the audit log";
constexpr int nonce_bytes = 18;

std::string random_nonce() {
    unsigned char bytes[nonce_bytes];
    if (RAND_bytes(bytes, nonce_bytes) != 1)
        throw std::runtime_error("no random numbers from OpenSSL");
    unsigned char text[4 * ((nonce_bytes + 2) / 3) + 1];
    const int size = EVP_EncodeBlock(text, bytes, nonce_bytes);
    return std::string(reinterpret_cast<const char*>(text), static_cast<std::size_t>(size));
}

void warn_of(const TlsContextPtr& context) {
    for (const std::string& warning : context->warnings()) spdlog::warn("{}", warning);
}

// "upstream_tls", or "upstreams.billing.upstream_tls".
std::string setting_of(const UpstreamOptions& options, const char* setting) {
    return (options.name.empty() ? std::string() : "upstreams." + options.name + ".") + setting;
}

// Null where there is to be none.
TlsContextPtr load_tls(const ListenerOptions& options) {
    if (options.tls.mode == TlsMode::disable) return nullptr;
    auto made = make_server_context(options.tls);
    if (made.has_error())
        throw std::runtime_error("client_tls of " + options.address.text() + ": " +
                                 made.error().text);
    warn_of(*made);
    return *made;
}

TlsContextPtr load_tls(const UpstreamOptions& options) {
    if (options.tls.mode == TlsMode::disable) return nullptr;
    auto made = make_client_context(options.tls);
    if (made.has_error())
        throw std::runtime_error(setting_of(options, "upstream_tls") + ": " + made.error().text);
    warn_of(*made);
    return *made;
}

// A copy that was put back, most likely: who writes the file can approve, and it holds statements.
void warn_of_loose_mode(const std::string& file) {
    using std::filesystem::perms;
    std::error_code error;
    const perms mode = std::filesystem::status(file, error).permissions();
    if (error || (mode & (perms::group_all | perms::others_all)) == perms::none) return;
    spdlog::warn(
        "the approval store {} can be read or changed by others; who changes it can approve: "
        "chmod it to 0600",
        file);
}

// A file that can't be used is a mistake of who starts the process. A database may just be down.
std::unique_ptr<approval::Store> open_store(const ServerOptions& options) {
    const std::string& where = options.ticket_store;
    const OpenStore open = [where, postgres = options.tickets_in_postgres] {
        return postgres ? approval::open_postgres_store(where) : approval::open_sqlite_store(where);
    };
    auto store = open();
    if (store) {
        if (!options.tickets_in_postgres) warn_of_loose_mode(where);
        return std::move(*store);
    }
    if (!options.tickets_in_postgres) throw std::runtime_error(store.error().text);
    return late_store(open, store.error());
}

struct Signals {
    sigset_t awaited;
    sigset_t mask_before;  // for a process that is started by this one
};

// Signals are waited for on the main thread; no other gets them.
Signals block_signals() {
    Signals signals;
    sigemptyset(&signals.awaited);
    for (const int one : {SIGINT, SIGTERM, SIGHUP, SIGUSR2}) sigaddset(&signals.awaited, one);
    pthread_sigmask(SIG_BLOCK, &signals.awaited, &signals.mask_before);
    std::signal(SIGPIPE, SIG_IGN);
    return signals;
}

bool told_to_end() {
    sigset_t pending;
    return sigpending(&pending) == 0 &&
           (sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1);
}

std::string sql_text(const std::string& text) {
    std::string out;
    for (const char c : text) out += c == '\'' ? std::string("''") : std::string(1, c);
    return out;
}

class Server {
public:
    Server(ServerOptions options, const std::vector<Rules>& rules,
           std::function<Reloaded()> load_again, ServiceManager& service_manager,
           Inheritance inheritance)
        : service_manager_(service_manager),
          ready_sockets_(std::move(inheritance.sockets)),
          earlier_links_(std::move(inheritance.links)),
          load_again_(std::move(load_again)) {
        shared_.next_session_id = inheritance.sessions_from;
        reloads_.last_success = std::chrono::system_clock::now();
        shared_.options = std::move(options);
        for (UpstreamOptions& one : shared_.options.upstreams) {
            const std::size_t index = shared_.upstreams.size();
            shared_.upstreams.push_back(std::make_unique<Guarded>(
                index, std::move(one), std::make_shared<policy::RuleBook>(rules[index].policy),
                shared_.capabilities));
            Guarded& upstream = *shared_.upstreams.back();
            upstream.set_tls(load_tls(upstream.options));
            if (upstream.options.authentication == session::Authentication::users)
                upstream.set_users(
                    load_users(upstream.options.users, users_secret_ + upstream.name()));
        }
        for (ListenerOptions& one : shared_.options.listeners) {
            shared_.listeners.push_back(
                std::make_unique<Listener>(std::move(one), shared_.upstreams));
            shared_.listeners.back()->set_tls(load_tls(shared_.listeners.back()->options));
        }
        shared_.resolver = std::make_unique<Resolver>();
        open_audit(std::move(inheritance.turn), rules);
        open_desk();
        for (unsigned i = 0; i < shared_.options.threads; ++i) {
            threads_.push_back(std::make_unique<IoThread>(shared_, i));
        }
        std::vector<int> passed;
        for (Passed& one : inheritance.passed) {
            passed.push_back(one.descriptor);
            names_of_passed_.push_back(std::move(one.name));
        }
        passed_ = acceptors_of(threads_.front()->context(), passed);
        // Before the other port: who can connect there finds the page, too. Its thread works from
        // now on, and uses all of the above.
        open_web();
        try {
            open_metrics();
            listen();
        } catch (...) {
            if (owned_web_) owned_web_->stop();
            if (metrics_) metrics_->stop();
            throw;
        }
        ready_sockets_.close();
    }

    ~Server() {
        if (shared_.predecessors) shared_.predecessors->let_go();
        if (owned_web_) owned_web_->stop();
        if (metrics_) metrics_->stop();
        pulse_.reset();
        for (auto& thread : threads_) thread->stop();
        for (auto& worker : workers_) worker.join();
        // Whoever could still hand something to a thread ends before the threads' contexts do.
        for (const auto& upstream : shared_.upstreams) upstream->judges.reset();
        shared_.resolver.reset();
        end_desk();
        // What the desk has told at its end goes out, too.
        shared_.webhooks.reset();
        if (!shared_.audit->close_in_time()) give_up();
    }

    void start() {
        const bool succeeds = !earlier_links_.empty();
        if (succeeds) meet_predecessors();
        for (auto& thread : threads_) {
            workers_.emplace_back([&one = *thread] { one.run(); });
            pthread_setname_np(workers_.back().native_handle(),
                               ("io-" + std::to_string(thread->index())).c_str());
        }
        threads_.front()->post(
            [this] { asio::co_spawn(threads_.front()->context(), accept(), asio::detached); });
        spdlog::info("{}", what_it_does());
        service_manager_.ready(what_it_does());
        if (succeeds) shared_.predecessors->say_serving();
    }

    // Takes the configuration anew: on SIGHUP, or at an operator's command. What is wrong, for
    // people; what could be used is in force all the same.
    ReloadOutcome reload(const Cause& cause) {
        // The others know already where one of them has said so.
        if (cause.by != by_another_process().by) {
            if (shared_.predecessors) shared_.predecessors->tell(Saying::reload);
            if (const Link* const heir = heir_) (void)heir->say(Saying::reload);
        }
        const std::lock_guard lock(reload_mutex_);
        if (!shared_.draining) service_manager_.reloading();
        ReloadOutcome outcome = reload_all(cause);
        const bool good = outcome.trouble.empty();
        {
            const std::lock_guard counted(reloads_mutex_);
            ++(good ? reloads_.successes : reloads_.failures);
            if (good) reloads_.last_success = std::chrono::system_clock::now();
        }
        // Why not is in the log, and may hold names.
        if (!shared_.draining) {
            service_manager_.ready(good ? what_it_does()
                                        : what_it_does() + "; the last reload failed");
        }
        return outcome;
    }

    ReloadOutcome reload_all(const Cause& cause) {
        Reloaded reloaded = load_again_();
        std::string restart;
        std::string trouble = std::move(reloaded.trouble);
        if (trouble.empty()) trouble = record(reloaded.rules, cause);
        const bool policy_taken = trouble.empty();
        if (policy_taken) {
            shared_.webhooks->replace(reloaded.webhooks);
            for (const auto& upstream : shared_.upstreams) {
                upstream->rules->replace(std::move(reloaded.rules.at(upstream->index).policy));
                change(*upstream, reloaded.changeable.at(upstream->index));
            }
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
        if (!reloaded.log_trouble.empty()) {
            const std::string wrong = reloaded.log_trouble + "; the one opened before stays in use";
            spdlog::error("reload: {}", wrong);
            trouble += (trouble.empty() ? "" : "\n") + wrong;
        }
        const auto try_to = [&](const char* what_stays, const auto& load) {
            try {
                load();
            } catch (const std::exception& error) {
                const std::string wrong = std::string(error.what()) + "; " + what_stays;
                spdlog::error("reload: {}", wrong);
                trouble += (trouble.empty() ? "" : "\n") + wrong;
            }
        };
        const char* const certificates = "the certificates loaded before stay in use";
        for (const auto& one : shared_.listeners)
            try_to(certificates, [&] { one->set_tls(load_tls(one->options)); });
        for (const auto& one : shared_.upstreams) {
            try_to(certificates, [&] { one->set_tls(load_tls(one->options)); });
            if (!one->users()) continue;
            try_to("the users known before stay in use", [&] {
                one->set_users(load_users(one->options.users, users_secret_ + one->name()));
            });
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
        service_manager_.stopping("draining: waits for sessions to become idle");
        if (shared_.predecessors) shared_.predecessors->tell(Saying::drain);
        // Only then is the number of connections exact: what is still in the queue of a socket that
        // was passed is the next guard's.
        wait_until_nobody_is_accepted();
        const auto begin = std::chrono::steady_clock::now();
        const auto until = begin + shared_.options.drain_timeout;
        bool now = false;
        while (shared_.connections.load() > 0) {
            const bool newcomers = std::chrono::steady_clock::now() - begin >= newcomers_time;
            for (auto& thread : threads_) {
                thread->post([&one = *thread, newcomers, now] {
                    one.for_each([newcomers, now](Connection& connection) {
                        connection.drain(newcomers, now);
                    });
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
        // A service manager that sees this process end kills what is left.
        if (shared_.predecessors) {
            const auto left = until + std::chrono::seconds(1) - std::chrono::steady_clock::now();
            shared_.predecessors->wait_until_gone(
                std::chrono::ceil<std::chrono::milliseconds>(left));
        }
    }

    // Threads are in the hands of a disk that hangs, with all that they would report to.
    [[noreturn]] static void give_up() {
        spdlog::shutdown();
        ::_exit(EXIT_FAILURE);
    }

    // The store of its tickets may be on a disk that hangs; it stands a process that ends any time.
    void end_desk() {
        std::promise<void> done;
        std::thread watch([this, over = done.get_future()] {
            if (over.wait_for(store_farewell) == std::future_status::ready) return;
            spdlog::warn("tickets: the approval store does not let itself be closed; gives up");
            (void)shared_.audit->close_in_time();
            give_up();
        });
        shared_.desk.reset();
        done.set_value();
        watch.join();
    }

    // Starts the process that is to take over from this one. False: it did not come to that, and
    // all is as before.
    bool hand_over(const Signals& signals) {
        spdlog::info("upgrade: starts this program anew");
        handing_over_ = true;
        auto done = start_next(signals);
        handing_over_ = false;
        if (!done) {
            share_log_if_needed();
            const std::string& why = done.error().text;
            spdlog::error("upgrade: {}; this process goes on as before", why);
            service_manager_.status(what_it_does() + "; the last upgrade failed");
            return false;
        }
        owned_heir_ = std::move(done->link);
        heir_process_ = done->process;
        service_manager_.hand_over(heir_process_);
        shared_.audit->take_charge(false);
        wait_until_nobody_is_accepted();
        if (shared_.predecessors) shared_.predecessors->let_go();
        owned_heir_->say(Saying::yours);
        heir_ = owned_heir_.get();
        spdlog::info("upgrade: process {} has taken over; {} sessions go on here", heir_process_,
                     shared_.connections.load());
        if (owned_web_) owned_web_->stop();
        if (metrics_) metrics_->stop();
        return true;
    }

    // Sessions go on as they are until they end, or their time is over; then what is left is
    // drained. They keep the policy, and its changes.
    void leave(const sigset_t& signals) {
        (void)reload(by_another_process());
        const auto until = std::chrono::steady_clock::now() +
                           shared_.upstreams.front()->changeable().handover_timeout;
        bool end = false;
        while (!end && shared_.connections.load() > 0 && std::chrono::steady_clock::now() < until) {
            end = hear_heir();
            const timespec at_once{0, 0};
            const int signal = sigtimedwait(&signals, nullptr, &at_once);
            end = end || signal == SIGTERM || signal == SIGINT;
            if (signal == SIGHUP || signal == SIGUSR2)
                spdlog::warn("process {} has taken over from this one: signals are for that",
                             heir_process_);
        }
        spdlog::info("shutting down");
        drain(signals);
    }

private:
    boost::system::result<Successor, HandOverProblem> start_next(const Signals& signals) {
        std::vector<std::unique_ptr<Link>> earlier;
        if (shared_.predecessors) {
            if (!shared_.predecessors->begun())
                return HandOverProblem{"this process has not yet taken over itself"};
            earlier = shared_.predecessors->copies();
        }
        const auto turn = shared_.audit->share();
        if (!turn) return HandOverProblem{turn.error().text};
        HandOver hand_over;
        for (std::size_t i = 0; i < accepting_.size(); ++i) {
            const bool was_passed = i < names_of_passed_.size();
            hand_over.descriptors.push_back(
                {accepting_[i].acceptor.native_handle(),
                 was_passed ? names_of_passed_[i] : std::string(name_of_socket)});
        }
        const auto add = [&](const std::vector<int>& descriptors, std::string_view name) {
            for (const int one : descriptors)
                hand_over.descriptors.push_back({one, std::string(name)});
        };
        if (owned_web_) add(owned_web_->descriptors(), name_of_socket);
        if (metrics_) add(metrics_->descriptors(), name_of_socket);
        add({(*turn)->descriptor()}, name_of_turn);
        for (const auto& link : earlier) add({link->descriptor()}, name_of_earlier_link);
        hand_over.variables = service_manager_.variables();
        hand_over.signals = signals.mask_before;
        hand_over.sessions_from = shared_.next_session_id.load() + sessions_ahead;
        hand_over.given_up = told_to_end;
        return start_successor(hand_over);
    }

    // What the process says that has taken over from this one. True: to end.
    bool hear_heir() {
        if (owned_heir_->over()) {
            std::this_thread::sleep_for(leave_poll);
            return false;
        }
        owned_heir_->wait(leave_poll);
        bool end = false;
        while (auto message = owned_heir_->hear()) {
            if (message->saying == Saying::drain) end = true;
            if (message->saying == Saying::reload) (void)reload(by_another_process());
            if (message->saying == Saying::cancel) cancel_for_heir(std::move(message->body));
        }
        if (owned_heir_->over())
            spdlog::warn("upgrade: process {}, which had taken over, has ended", heir_process_);
        return end;
    }

    void cancel_for_heir(std::string body) {
        const auto number = Link::take_number(body);
        if (!number) return;
        const auto answer = [this, number](bool taken) {
            (void)owned_heir_->say(Saying::answer, Link::numbered(*number, taken ? "1" : "0"));
        };
        if (!cancel_held(shared_.directory, body, answer)) answer(false);
    }

    void meet_predecessors() {
        Predecessors::Callbacks callbacks;
        callbacks.yours = [this] {
            spdlog::info("upgrade: this process has taken over");
            service_manager_.speak();
            service_manager_.ready(what_it_does());
            shared_.audit->take_charge(true);
        };
        callbacks.reload = [this] {
            shared_.upstreams.front()->judges->work(
                [this](policy::Engine&) { (void)reload(by_another_process()); });
        };
        callbacks.none_left = [this] {
            spdlog::info("upgrade: the process before this one has ended");
            shared_.desk->alone();
            share_log_if_needed();
        };
        shared_.predecessors = std::make_unique<Predecessors>(std::move(earlier_links_),
                                                              std::move(callbacks));
    }

    void share_log_if_needed() {
        const bool others = shared_.predecessors && shared_.predecessors->left() > 0;
        if (!others && !handing_over_) shared_.audit->share_no_more();
    }

    void wait_until_nobody_is_accepted() {
        const auto stopped = std::make_shared<std::promise<void>>();
        threads_.front()->post([this, stopped] {
            stop_accepting();
            // Behind whom an acceptor had taken already.
            asio::post(threads_.front()->context(), [stopped] { stopped->set_value(); });
        });
        stopped->get_future().wait_for(std::chrono::seconds(1));
    }

    void change(Guarded& upstream, const Changeable& to) {
        upstream.change(to);
        for (auto& thread : threads_) {
            thread->post([&one = *thread, &upstream, idle = to.idle] {
                one.for_each([&upstream, idle](Connection& connection) {
                    if (connection.upstream() == &upstream) connection.deliver(idle);
                });
            });
        }
    }

    void open_audit(std::shared_ptr<audit::Turn> turn, const std::vector<Rules>& rules) {
        audit::WriterOptions options;
        const AuditSettings& audit = shared_.options.audit;
        options.at_start = policy_events(rules, at_start());
        std::string listen;
        for (const auto& listener : shared_.listeners)
            listen += (listen.empty() ? "" : ", ") + listener->options.address.text();
        options.at_start.insert(options.at_start.begin(),
                                start_event(shared_.options, std::move(listen)));
        options.at_end = {stop_event()};
        if (turn && turn->is_for(audit.file)) options.turn = std::move(turn);
        options.file = audit.file;
        options.rotate_bytes = audit.rotate_bytes;
        options.rotate_every = audit.rotate_every;
        options.keep_old = audit.keep_old;
        options.compress_old = audit.compress_old;
        options.checkpoint_every = audit.checkpoint_every;
        options.patience = audit.patience;
        if (audit.allow_on_failure)
            options.when_refused =
                "statements run without a record until this is mended "
                "(audit.on_failure: allow)";
        if (!audit.checkpoint_key.empty()) {
            auto key = audit::Key::load_private(audit.checkpoint_key);
            if (key.has_error()) throw std::runtime_error(key.error().text);
            if (const std::string problem = check_key_permissions(audit.checkpoint_key);
                !problem.empty())
                spdlog::warn("audit log: {}", problem);
            options.checkpoint_key = std::make_shared<const audit::Key>(std::move(*key));
        }
        options.on_completion = [this](std::span<const audit::Completion> done) {
            audit_completed(done);
        };
        options.on_notice = [](std::string_view notice) { spdlog::warn("audit log: {}", notice); };
        options.on_stand = [](const audit::ChainPoint& head) {
            spdlog::info("audit log: stands at {}", audit::to_text(head));
        };
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
        options.alone = earlier_links_.empty();
        options.on_notice = [](std::string_view notice) { spdlog::warn("tickets: {}", notice); };
        options.on_happened = [this](const approval::Happened& happened) {
            shared_.webhooks->tell(happened);
            count_wait(happened);
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
        for (const auto& upstream : shared_.upstreams) open_schema(*upstream, store_name);
    }

    // What can be asked of pgchaperone at this server.
    void open_schema(Guarded& upstream, const std::string& store_name) {
        VirtualSchema::Sources sources{
            *shared_.desk, *upstream.rules, shared_.directory, {}, {}, {}, {}};
        sources.upstream = upstream.name();
        sources.aside = [&upstream](JudgePool::Work work) {
            upstream.judges->work(std::move(work));
        };
        sources.reload = [this](const std::string& user) { return reload(by_command(user)); };
        sources.webhooks = [this] { return shared_.webhooks->stats(); };
        sources.store = store_name;
        sources.environment = [&upstream] { return upstream.changeable().environment; };
        sources.connections = [&upstream] {
            return ConnectionCounts{upstream.places.taken(), upstream.places.refused()};
        };
        sources.audit = [this] { return audit_counts(); };
        sources.traffic = [this, &upstream] { return traffic(upstream); };
        sources.reloads = [this] { return reloads(); };
        upstream.virtual_schema = std::make_unique<VirtualSchema>(std::move(sources));
    }

    AuditCounts audit_counts() const {
        AuditCounts counts;
        counts.log = shared_.audit->stats();
        counts.unrecorded = shared_.unrecorded.load();
        counts.overdue = shared_.overdue_records.load();
        for (const auto& sink : sinks_) {
            counts.sent += sink->stats().sent;
            counts.dropped += sink->stats().dropped;
        }
        counts.refused_unrecorded = shared_.refused_unrecorded.load();
        return counts;
    }

    void open_web() {
        const ServerOptions& options = shared_.options;
        if (!options.web) return;
        std::vector<WebLoginOptions> logins;
        for (const auto& upstream : shared_.upstreams) {
            WebLoginOptions login;
            login.name = upstream->name();
            login.upstream = upstream->options.address;
            login.upstream_tls = upstream->options.tls;
            login.negotiation = upstream->options.negotiation;
            login.database = upstream->options.web_database;
            login.timeout = upstream->options.connect_timeout;
            login.users = [&one = *upstream] { return one.users(); };
            logins.push_back(std::move(login));
        }
        owned_web_ = std::make_unique<WebServer>(
            *options.web, std::move(logins), *shared_.desk, *shared_.resolver,
            [this](const web::Saying& saying, auto then) { record(saying, std::move(then)); },
            &ready_sockets_);
        web_ = owned_web_.get();
    }

    // What is said on the page stands in the log as it would were it said in SQL.
    void record(const web::Saying& saying, std::function<void(std::string)> then) {
        audit::Record record;
        record.time = std::chrono::system_clock::now();
        record.user = saying.role;
        record.upstream = saying.upstream;
        record.client = saying.client;
        record.application = "pgchaperone web";
        record.protocol = "web";
        record.command = "CALL";
        record.decision = "answer";
        record.statement = "CALL chaperone." + saying.what + "('" + sql_text(saying.ticket) +
                           (saying.comment.empty() ? "" : "', '" + sql_text(saying.comment)) + "')";
        const std::uint64_t token = remember(
            [this, then = std::move(then)](const std::string& problem) {
                if (!problem.empty() && shared_.options.audit.allow_on_failure) {
                    ++shared_.unrecorded;
                    return then({});
                }
                if (!problem.empty()) ++shared_.refused_unrecorded;
                then(problem);
            });
        if (shared_.audit->submit(std::move(record), token) != audit::Submitted::accepted)
            recorded(token, too_much_waits);
    }

    // Waits until the log has it that these rules are in force, and why; then they may be. What is
    // wrong, where they may not.
    std::string record(const std::vector<Rules>& rules, const Cause& cause) {
        const auto stored = std::make_shared<std::promise<std::string>>();
        std::future<std::string> answer = stored->get_future();
        const std::uint64_t token = remember(
            [stored](const std::string& problem) { stored->set_value(problem); });
        if (shared_.audit->submit(policy_events(rules, cause), token) != audit::Submitted::accepted)
            recorded(token, too_much_waits);
        const auto patience = shared_.options.audit.patience;
        const bool in_time = answer.wait_for(patience.count() > 0 ? patience : record_patience) ==
                             std::future_status::ready;
        const std::string problem = in_time ? answer.get() : "the audit log does not keep up";
        if (problem.empty() || !shared_.options.audit.allow_on_failure)
            return problem.empty() ? problem : "its record can't be written: " + problem;
        spdlog::warn("reload: the audit log does not tell of this policy: {}", problem);
        return {};
    }

    // As the rule books have them once they are replaced by these.
    std::vector<audit::Event> policy_events(const std::vector<Rules>& rules,
                                            const Cause& cause) const {
        const std::uint64_t step = cause.by == at_start().by ? 0 : 1;
        std::vector<audit::Event> events;
        for (const auto& upstream : shared_.upstreams) {
            const Rules& one = rules.at(upstream->index);
            events.push_back(policy_event(upstream->options, one.policy, one.text,
                                          upstream->rules->version() + step, cause));
        }
        return events;
    }

    // For what is recorded and is no session's: `then` gets what is wrong, once, on any thread.
    std::uint64_t remember(std::function<void(const std::string&)> then) {
        const std::lock_guard lock(own_mutex_);
        const std::uint64_t token = ++own_records_ << 16 | own_token;
        own_waiting_.emplace(token, std::move(then));
        return token;
    }

    void recorded(std::uint64_t token, const std::string& problem) {
        std::function<void(const std::string&)> then;
        {
            const std::lock_guard lock(own_mutex_);
            const auto found = own_waiting_.find(token);
            if (found == own_waiting_.end()) return;
            then = std::move(found->second);
            own_waiting_.erase(found);
        }
        then(problem);
    }

    // On the writer's thread.
    void audit_completed(std::span<const audit::Completion> done) {
        for (const audit::Completion& completion : done) {
            if (completion.token == 0) continue;
            if ((completion.token & 0xFFFF) == own_token) {
                recorded(completion.token, completion.problem);
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

    // Where clients connect: sockets that were passed, for the listeners that they are of, and for
    // the others our own.
    struct Accepting {
        Acceptor acceptor;
        Listener& listener;
    };

    void listen() {
        std::vector<const Listener*> served;
        for (Acceptor& acceptor : std::exchange(passed_, {})) {
            Listener& listener = listener_of(acceptor);
            served.push_back(&listener);
            where_passed_ += (where_passed_.empty() ? "" : ", ") + where_it_listens(acceptor);
            accepting_.push_back({std::move(acceptor), listener});
        }
        for (const auto& listener : shared_.listeners) {
            if (std::find(served.begin(), served.end(), listener.get()) == served.end())
                listen(*listener);
        }
    }

    // One listener has all sockets, whatever their addresses.
    Listener& listener_of(const Acceptor& acceptor) {
        if (shared_.listeners.size() == 1) return *shared_.listeners.front();
        for (const auto& listener : shared_.listeners) {
            if (is_at(acceptor, listener->options.address)) return *listener;
        }
        throw std::runtime_error(
            "the socket that was passed to this process listens on " + where_it_listens(acceptor) +
            ", and the configuration has several listeners, none of them there; give `listen` the "
            "address of the socket");
    }

    void listen(Listener& listener) {
        own_listeners_.push_back(&listener);
        const Address& address = listener.options.address;
        const Resolved resolved = resolve_now(address, true, false);
        if (resolved.endpoints.empty()) {
            throw std::runtime_error("can't listen on " + address.text() + ": " + resolved.error);
        }
        for (const auto& endpoint : resolved.endpoints) {
            accepting_.push_back(
                {listen_on(threads_.front()->context(), address, endpoint,
                           "can't listen on " + address.text() + ": ", "--listen", &ready_sockets_),
                 listener});
        }
    }

    void stop_accepting() {
        boost::system::error_code ignored;
        for (Accepting& one : accepting_) one.acceptor.close(ignored);
    }

    asio::awaitable<void> accept() {
        for (std::size_t i = 1; i < accepting_.size(); ++i) {
            asio::co_spawn(threads_.front()->context(), accept_on(accepting_[i]), asio::detached);
        }
        co_await accept_on(accepting_.front());
    }

    asio::awaitable<void> accept_on(Accepting& accepting) {
        Acceptor& acceptor = accepting.acceptor;
        asio::steady_timer pause(threads_.front()->context());
        while (acceptor.is_open()) {
            Transport::Socket socket(threads_.front()->context());
            asio::generic::stream_protocol::endpoint peer;
            const auto [error] = co_await acceptor.async_accept(
                socket, peer, asio::as_tuple(asio::use_awaitable));
            if (error && !acceptor.is_open()) co_return;
            if (error) {
                // Out of descriptors, most likely: what we have goes on, newcomers wait.
                spdlog::error("can't accept a connection: {}", error.message());
                pause.expires_after(accept_pause);
                co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
                continue;
            }
            try {
                hand_out(accepting.listener, std::move(socket), peer);
            } catch (const std::exception& failure) {
                spdlog::error("can't take a connection in: {}", failure.what());
            }
        }
    }

    // Connections go to the threads in turn and stay there.
    void hand_out(Listener& listener, Transport::Socket socket,
                  const asio::generic::stream_protocol::endpoint& peer) {
        session::Setup setup;
        setup.id = shared_.next_session_id.fetch_add(1);
        setup.client = address_of(peer);
        const TlsMode mode = listener.options.tls.mode;
        setup.tls_offered = mode != TlsMode::disable;
        setup.tls_required = mode == TlsMode::require || mode == TlsMode::verify_ca ||
                             mode == TlsMode::verify_full;
        setup.upstream.reset();
        using session::Authentication;
        const auto some = [&](Authentication one) {
            return std::any_of(
                listener.upstreams.begin(), listener.upstreams.end(),
                [&](const Guarded* upstream) { return upstream->options.authentication == one; });
        };
        const bool users = some(Authentication::users);
        if (users || some(Authentication::password)) setup.scram_nonce = random_nonce();
        if (users) setup.exchange_nonce = random_nonce();
        const auto& balancers = listener.options.load_balancers;
        const bool balanced = std::any_of(
            balancers.begin(), balancers.end(),
            [&](const policy::Network& network) { return network.contains(setup.client); });
        shared_.connections.fetch_add(1);
        threads_.front()->counts(0).connections.add();
        IoThread& thread = *threads_[next_thread_++ % threads_.size()];
        if (threads_.size() == 1) {
            return take_in(thread, listener, std::move(socket), std::move(setup), balanced);
        }
        const auto protocol = asio::generic::stream_protocol(peer.protocol().family(), 0);
        boost::system::error_code error;
        const int descriptor = socket.release(error);
        thread.post([&thread, &listener, descriptor, protocol, balanced,
                     setup = std::move(setup)]() mutable {
            take_in(thread, listener, Transport::Socket(thread.context(), protocol, descriptor),
                    std::move(setup), balanced);
        });
    }

    static void take_in(IoThread& thread, Listener& listener, Transport::Socket socket,
                        session::Setup setup, bool behind_load_balancer) {
        spdlog::info("session {}: start: client={}", setup.id, setup.client.text);
        const auto connection = std::make_shared<Connection>(thread, listener, std::move(socket),
                                                             std::move(setup));
        thread.add(connection);
        connection->start(behind_load_balancer);
    }

    // Whoever watches

    void open_metrics() {
        const auto& watchdog = service_manager_.watchdog();
        if (!shared_.options.metrics && !watchdog) return;
        Pulse::Options options;
        if (watchdog) {
            options.beat = std::clamp(std::chrono::floor<std::chrono::milliseconds>(*watchdog / 4),
                                      std::chrono::milliseconds(10), options.beat);
            // In time for the next beat, or systemd hears nothing of this one.
            options.on_beat = [this](bool all_turn) {
                if (all_turn) service_manager_.alive();
            };
        }
        std::vector<Pulse::Post> posts;
        for (const auto& thread : threads_) {
            posts.push_back(
                [&one = *thread](std::function<void()> work) { one.post(std::move(work)); });
        }
        pulse_ = std::make_unique<Pulse>(std::move(posts), std::move(options));
        if (!shared_.options.metrics) return;
        MetricsServer::Sources sources{[this] { return metrics_page(numbers()); },
                                       [this] { return dead(); },
                                       [this] { return unready(); },
                                       *shared_.resolver,
                                       {}};
        for (const auto& upstream : shared_.upstreams) sources.upstreams.push_back(upstream.get());
        metrics_ = std::make_unique<MetricsServer>(*shared_.options.metrics, std::move(sources),
                                                   &ready_sockets_);
    }

    std::string what_it_does() const {
        std::string where = where_passed_.empty() ? ""
                                                  : where_passed_ + " (passed to this process)";
        std::string guarded;
        for (const Listener* const listener : own_listeners_)
            where += (where.empty() ? "" : ", ") + listener->options.address.text();
        for (const auto& upstream : shared_.upstreams) {
            guarded += (guarded.empty() ? "" : ", ") +
                       (upstream->name().empty() ? "" : upstream->name() + "=") +
                       upstream->options.address.text();
        }
        return "listening on " + where + ", guarding " + guarded;
    }

    // On the desk's thread.
    void count_wait(const approval::Happened& happened) {
        using Kind = approval::Happened::Kind;
        if (!happened.own) return;
        std::size_t end = 0;  // as ticket_ends has it
        switch (happened.kind) {
            case Kind::decided:
                end = happened.ticket.state == approval::State::approved ? 0 : 1;
                break;
            case Kind::expired: end = 2; break;
            case Kind::withdrawn: end = 3; break;
            case Kind::opened:
            case Kind::voted:
            case Kind::used:
            case Kind::glass:
            case Kind::finished: return;
        }
        ticket_waits_[end].observe(std::chrono::system_clock::now() - happened.ticket.opened);
    }

    Traffic traffic(const Guarded& upstream) const {
        Traffic traffic;
        policy::Engine::CacheUse cache = upstream.judges->cache_use();
        for (const auto& thread : threads_) {
            traffic.add(thread->counts(upstream.index));
            const policy::Engine::CacheUse one = thread->engine(upstream.index).cache_use();
            cache.hits += one.hits;
            cache.misses += one.misses;
        }
        // Where they want to go is not known when they come.
        traffic.connections = threads_.front()->counts(0).connections.value();
        traffic.cache_hits = cache.hits;
        traffic.cache_misses = cache.misses;
        return traffic;
    }

    Reloads reloads() const {
        const std::lock_guard lock(reloads_mutex_);
        return reloads_;
    }

    std::vector<std::string> dead() const {
        std::vector<std::string> reasons;
        for (const std::size_t index : pulse_->state().stuck)
            reasons.push_back("I/O thread " + std::to_string(index) + " does not answer");
        return reasons;
    }

    std::vector<std::string> unready() const {
        std::vector<std::string> reasons = dead();
        if (shared_.draining) reasons.push_back("draining");
        if (const audit::Writer::Stats log = shared_.audit->stats();
            log.failing && !shared_.options.audit.allow_on_failure)
            reasons.push_back(log.behind ? "the audit log does not keep up"
                                         : "the audit log refuses records");
        return reasons;
    }

    Numbers numbers() const {
        Numbers numbers;
        const auto now = std::chrono::steady_clock::now();
        bool some_works = false;
        for (const auto& upstream : shared_.upstreams) {
            // Whoever reads this has the metrics' server look, for the next time.
            const bool works = upstream->sight.works(now, always).value_or(true);
            some_works = some_works || works;
            const Directory::Size here = shared_.directory.size(upstream->name());
            numbers.sessions += here.sessions;
            numbers.upstreams.push_back({upstream->name(), works, here.sessions, here.held,
                                         traffic(*upstream), upstream->rules->version()});
        }
        numbers.ready = unready().empty() && some_works;
        numbers.draining = shared_.draining;
        numbers.io_threads = threads_.size();
        numbers.io_lag = pulse_->state().lag;
        numbers.connections = shared_.connections.load();
        numbers.desk = shared_.desk->stats();
        for (std::size_t i = 0; i < ticket_waits_.size(); ++i)
            numbers.ticket_waits[i] = ticket_waits_[i].read();
        numbers.audit = audit_counts();
        numbers.audit_times = shared_.audit->times_to_disk();
        numbers.webhooks = shared_.webhooks->stats();
        numbers.reloads = reloads();
        numbers.process = process_numbers();
        return numbers;
    }

    static constexpr std::chrono::hours always{24 * 366 * 100};

    ServiceManager& service_manager_;
    ReadySockets ready_sockets_;  // of the process that this one takes over from
    std::vector<std::unique_ptr<Link>> earlier_links_;
    std::unique_ptr<Link> owned_heir_;  // to the process that has taken over from this one
    std::atomic<const Link*> heir_{nullptr};
    pid_t heir_process_ = -1;
    std::atomic<bool> handing_over_{false};
    mutable std::mutex reloads_mutex_;
    Reloads reloads_;
    std::array<metrics::Histogram, ticket_ends.size()> ticket_waits_{
        metrics::Histogram(ticket_wait_bounds), metrics::Histogram(ticket_wait_bounds),
        metrics::Histogram(ticket_wait_bounds), metrics::Histogram(ticket_wait_bounds)};
    // Outlives the resolver, which may call it back until it ends.
    std::unique_ptr<MetricsServer> metrics_;
    // Before what hands them lines.
    std::vector<std::unique_ptr<audit::Sink>> sinks_;
    // In place of a thread's number in the tokens of records: these are of no session.
    static constexpr std::uint64_t own_token = 0xFFFF;
    std::mutex own_mutex_;
    std::uint64_t own_records_ = 0;
    std::unordered_map<std::uint64_t, std::function<void(const std::string&)>> own_waiting_;
    // Outlives the desk, which may call it back until it ends.
    std::unique_ptr<WebServer> owned_web_;
    std::atomic<WebServer*> web_{nullptr};  // for the desk's thread, which was there before it
    Shared shared_;
    std::vector<std::unique_ptr<IoThread>> threads_;
    std::vector<Acceptor> passed_;
    std::vector<std::string> names_of_passed_;
    std::string where_passed_;  // where those listen, for people; empty: none was passed
    std::vector<const Listener*> own_listeners_;  // whose sockets are our own
    std::unique_ptr<Pulse> pulse_;
    std::vector<Accepting> accepting_;
    std::vector<std::thread> workers_;
    std::size_t next_thread_ = 0;
    std::function<Reloaded()> load_again_;
    std::mutex reload_mutex_;
    const std::string users_secret_ = random_nonce();
};

}  // namespace

int serve(ServerOptions options, const std::vector<Rules>& rules, std::function<Reloaded()> reload,
          const std::function<void(const std::string&)>& trouble) {
    const Signals signals = block_signals();
    ServiceManager service_manager;
    std::unique_ptr<Server> server;
    try {
        Inheritance inheritance = take_inheritance();
        // Until it is told to.
        if (!inheritance.links.empty()) service_manager.be_silent();
        server = std::make_unique<Server>(std::move(options), rules, std::move(reload),
                                          service_manager, std::move(inheritance));
    } catch (const std::exception& error) {
        service_manager.not_started(error.what());
        trouble(error.what());
        return 2;
    }
    server->start();
    while (true) {
        int signal = 0;
        if (sigwait(&signals.awaited, &signal) != 0) continue;
        if (signal == SIGHUP) {
            (void)server->reload(by_signal());
            continue;
        }
        if (signal == SIGUSR2) {
            if (!server->hand_over(signals)) continue;
            server->leave(signals.awaited);
            return 0;
        }
        spdlog::info("shutting down");
        server->drain(signals.awaited);
        return 0;
    }
}

}  // namespace pgchaperone::net
