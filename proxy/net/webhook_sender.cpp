#include "proxy/net/webhook_sender.h"

#include "approval/visible_text.h"
#include "pgchaperone_version.h"
#include "proxy/net/tls_context.h"
#include "webhook/body.h"
#include "webhook/retry.h"
#include "webhook/signature.h"
#include "webhook/url.h"

#include <curl/curl.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <signal.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <utility>

namespace pgchaperone::net {

using std::chrono::milliseconds;
using webhook::Hook;
using webhook::Outcome;

namespace {

using Steady = std::chrono::steady_clock;

// For all that a hook has left when it ends.
constexpr milliseconds last_attempt{2000};
// No more of an answer is read, and none of it is needed.
constexpr std::size_t answer_bytes_max = 64 * 1024;
constexpr std::size_t answer_kept_bytes = 4096;

struct Message {
    std::string id;
    std::string body;
    Steady::time_point made;
};

struct Attempt {
    Outcome outcome = Outcome::again;
    std::string trouble;  // for the log
    std::optional<std::chrono::seconds> retry_after;
};

std::string new_id() {
    unsigned char bytes[16];
    if (RAND_bytes(bytes, sizeof bytes) != 1)
        throw std::runtime_error("no random numbers from OpenSSL");
    std::string out = "msg_";
    for (const unsigned char byte : bytes) {
        out += "0123456789abcdef"[byte >> 4];
        out += "0123456789abcdef"[byte & 15];
    }
    return out;
}

void start_libcurl() {
    static std::once_flag once;
    std::call_once(once, [] {
        if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
            throw std::runtime_error("webhooks: libcurl can't be used");
    });
}

std::string messages(std::uint64_t count) {
    return std::to_string(count) + (count == 1 ? " message" : " messages");
}

// One connection to a receiver, which libcurl keeps open between messages. Used by one thread.
class Channel {
public:
    // `give_up`: asked now and then while an attempt lasts.
    Channel(const Hook& hook, std::function<bool()> give_up)
        : hook_(hook), give_up_(std::move(give_up)), easy_(curl_easy_init(), &curl_easy_cleanup) {
        if (!easy_) throw std::bad_alloc();
        set(CURLOPT_URL, hook_.url.c_str());
        set(CURLOPT_PROTOCOLS_STR, "http,https");
        set(CURLOPT_FOLLOWLOCATION, 0L);
        set(CURLOPT_NOSIGNAL, 1L);
        set(CURLOPT_QUICK_EXIT, 1L);  // don't wait for a name server that does not answer
        set(CURLOPT_USERAGENT, "pgchaperone/" PGCHAPERONE_VERSION);
        set(CURLOPT_SSL_VERIFYPEER, 1L);
        set(CURLOPT_SSL_VERIFYHOST, 2L);
        if (!hook_.ca.empty()) {
            set(CURLOPT_CAINFO, hook_.ca.c_str());
            // Those alone, and not the system's beside them.
            set(CURLOPT_CAPATH, static_cast<const char*>(nullptr));
        }
        std::string problem;
        const auto url = webhook::url_of(hook_.url, problem);
        if (url && url->loopback) set(CURLOPT_NOPROXY, "*");
        set(CURLOPT_ERRORBUFFER, error_);
        set(CURLOPT_NOPROGRESS, 0L);
        set(CURLOPT_XFERINFODATA, this);
        set(CURLOPT_XFERINFOFUNCTION, &Channel::progress);
        set(CURLOPT_WRITEDATA, this);
        set(CURLOPT_WRITEFUNCTION, &Channel::take_body);
        set(CURLOPT_HEADERDATA, this);
        set(CURLOPT_HEADERFUNCTION, &Channel::take_header);
    }

    Attempt post(const Message& message, milliseconds timeout) {
        answer_.clear();
        answer_bytes_ = 0;
        error_[0] = '\0';
        const Headers headers = headers_of(message);
        set(CURLOPT_HTTPHEADER, headers.get());
        set(CURLOPT_POSTFIELDS, message.body.data());
        set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(message.body.size()));
        set(CURLOPT_TIMEOUT_MS, static_cast<long>(timeout.count()));
        set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(timeout.count()));
        const CURLcode code = curl_easy_perform(easy_.get());
        set(CURLOPT_HTTPHEADER, static_cast<curl_slist*>(nullptr));
        long status = 0;
        curl_easy_getinfo(easy_.get(), CURLINFO_RESPONSE_CODE, &status);
        Attempt attempt;
        // An answer that is too long has been understood well enough.
        const bool cut = code == CURLE_WRITE_ERROR && answer_bytes_ > answer_bytes_max;
        if ((code != CURLE_OK && !cut) || status == 0) {
            const char* words = error_[0] != '\0' ? error_ : curl_easy_strerror(code);
            attempt.trouble = approval::visible_line(words);
            return attempt;
        }
        attempt.outcome = webhook::outcome_of(status);
        if (attempt.outcome == Outcome::delivered) return attempt;
        attempt.trouble = webhook::answer_text(status, answer_);
        curl_off_t seconds = 0;
        if (curl_easy_getinfo(easy_.get(), CURLINFO_RETRY_AFTER, &seconds) == CURLE_OK &&
            seconds > 0)
            attempt.retry_after = std::chrono::seconds(seconds);
        return attempt;
    }

private:
    using Headers = std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)>;

    template <class Value>
    void set(CURLoption option, Value value) {
        if (curl_easy_setopt(easy_.get(), option, value) != CURLE_OK)
            throw std::runtime_error("webhooks: libcurl lacks option " + std::to_string(option));
    }

    Headers headers_of(const Message& message) const {
        Headers list(nullptr, &curl_slist_free_all);
        const auto add = [&](const std::string& line) {
            curl_slist* longer = curl_slist_append(list.get(), line.c_str());
            if (!longer) throw std::bad_alloc();
            if (!list) list.reset(longer);
        };
        const auto now = std::chrono::duration_cast<std::chrono::seconds>(
            std::chrono::system_clock::now().time_since_epoch());
        add("Content-Type: " + hook_.content_type +
            (hook_.content_type == webhook::plain_content ? "; charset=utf-8" : ""));
        add("Expect:");  // no round trip to ask for leave
        add("webhook-id: " + message.id);
        add("webhook-timestamp: " + std::to_string(now.count()));
        if (!hook_.keys.empty())
            add("webhook-signature: " +
                webhook::signature(hook_.keys, message.id, now, message.body));
        // A header without a value is written with a semicolon in place of the colon.
        for (const auto& [name, value] : hook_.headers)
            add(value.empty() ? name + ";" : name + ": " + value);
        return list;
    }

    static int progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
        return static_cast<Channel*>(self)->give_up_() ? 1 : 0;
    }
    static std::size_t take_body(char* bytes, std::size_t, std::size_t size, void* self) {
        auto& channel = *static_cast<Channel*>(self);
        std::string& kept = channel.answer_;
        kept.append(bytes, std::min(size, answer_kept_bytes - kept.size()));
        return channel.count(size);
    }
    static std::size_t take_header(char*, std::size_t, std::size_t size, void* self) {
        return static_cast<Channel*>(self)->count(size);
    }
    // Less than it was given ends the transfer.
    std::size_t count(std::size_t size) {
        answer_bytes_ += size;
        return answer_bytes_ > answer_bytes_max ? 0 : size;
    }

    const Hook& hook_;
    std::function<bool()> give_up_;
    std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> easy_;
    char error_[CURL_ERROR_SIZE] = {};
    std::string answer_;
    std::size_t answer_bytes_ = 0;
};

}  // namespace

class WebhookSender::Runner {
public:
    Runner(Hook hook, Counts& counts)
        : hook_(std::move(hook)),
          name_("webhook " + hook_.name + " (" + webhook::origin_of(hook_.url) + ")"),
          counts_(counts) {}
    ~Runner() {
        end();
        if (thread_.joinable()) thread_.join();
    }
    Runner(const Runner&) = delete;
    Runner& operator=(const Runner&) = delete;

    void start() {
        // Signals are for the main thread.
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        thread_ = std::thread([this] { run(); });
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        pthread_setname_np(thread_.native_handle(), "webhook");
    }

    const Hook& hook() const { return hook_; }

    void add(Message message) {
        bool first_drop = false;
        {
            const std::lock_guard lock(mutex_);
            if (queue_.size() >= queue_max) {
                queue_.pop_front();
                ++counts_.dropped;
                ++lost_;
                first_drop = !std::exchange(drop_told_, true);
            }
            queue_.push_back(std::move(message));
        }
        changed_.notify_all();
        if (first_drop)
            spdlog::error("{}: more than {} messages wait; the oldest are dropped", name_,
                          queue_max);
    }

    // What another one of this name had before.
    void add_first(std::deque<Message> earlier) {
        const std::lock_guard lock(mutex_);
        queue_.insert(queue_.begin(), std::make_move_iterator(earlier.begin()),
                      std::make_move_iterator(earlier.end()));
        while (queue_.size() > queue_max) {
            queue_.pop_front();
            ++counts_.dropped;
        }
    }

    // Returns at once; the thread ends within last_attempt.
    void end() {
        {
            const std::lock_guard lock(mutex_);
            if (ending_) return;
            ending_ = true;
            end_by_ = Steady::now() + last_attempt;
        }
        changed_.notify_all();
    }

    // Stops without sending what waits, and gives it. What is on its way may arrive all the same,
    // and then once more: under the same id.
    std::deque<Message> hand_over() {
        {
            const std::lock_guard lock(mutex_);
            ending_ = true;
            end_by_ = Steady::now();
            handing_over_ = true;
        }
        changed_.notify_all();
        if (thread_.joinable()) thread_.join();
        return std::move(queue_);
    }

    std::size_t queued() const {
        const std::lock_guard lock(mutex_);
        return queue_.size() + (trying_ ? 1 : 0);
    }

private:
    bool must_stop() const {
        const std::lock_guard lock(mutex_);
        return ending_ && Steady::now() >= end_by_;
    }

    void run() {
        try {
            work();
        } catch (const std::exception& error) {
            spdlog::error("{}: {}; nothing is sent there any more", name_, error.what());
        }
    }

    void work() {
        Channel channel(hook_, [this] { return must_stop(); });
        std::unique_lock lock(mutex_);
        for (;;) {
            changed_.wait(lock, [this] { return ending_ || !queue_.empty(); });
            if (queue_.empty() || handing_over_) return;
            if (ending_ && (Steady::now() >= end_by_ || last_failed_)) return give_up_the_rest();
            last_failed_ = ending_;  // unless this one goes well
            Message message = std::move(queue_.front());
            queue_.pop_front();
            trying_ = true;
            const auto left = std::chrono::ceil<milliseconds>(end_by_ - Steady::now());
            const milliseconds timeout = ending_ ? std::clamp(left, milliseconds(1), hook_.timeout)
                                                 : hook_.timeout;
            lock.unlock();
            const Attempt attempt = channel.post(message, timeout);
            lock.lock();
            trying_ = false;
            if (attempt.outcome == Outcome::again)
                put_back(std::move(message), attempt, lock);
            else
                done(attempt);
        }
    }

    void done(const Attempt& attempt) {
        failures_ = 0;
        last_failed_ = false;
        if (attempt.outcome == Outcome::delivered) {
            ++counts_.sent;
            if (queue_.empty()) drop_told_ = false;
            if (!std::exchange(troubled_, false)) return;
            spdlog::info("{}: works again{}", name_,
                         lost_ == 0 ? "" : "; " + messages(lost_) + " did not arrive");
            given_up_told_ = false;
            lost_ = 0;
            return;
        }
        ++counts_.failed;
        ++lost_;
        begin_trouble(attempt.trouble + "; what is refused is not sent again");
    }

    void begin_trouble(const std::string& words) {
        if (std::exchange(troubled_, true)) return;
        spdlog::error("{}: {}", name_, words);
    }

    void put_back(Message message, const Attempt& attempt, std::unique_lock<std::mutex>& lock) {
        if (handing_over_ || queue_.size() < queue_max) {
            queue_.push_front(std::move(message));
        } else {
            // It is the oldest of too many.
            ++counts_.dropped;
            ++lost_;
        }
        if (ending_) return;
        ++failures_;
        const milliseconds delay = webhook::retry_delay(
            failures_, std::uniform_real_distribution<double>(0, 1)(chance_), attempt.retry_after);
        begin_trouble(attempt.trouble + (hook_.retry_for.count() == 0
                                             ? "; messages are not sent again (retry_for)"
                                             : "; it is tried again"));
        give_up_old(delay);
        changed_.wait_for(lock, delay, [this] { return ending_; });
    }

    // Gives up what would be too old by the next attempt. What was not tried yet may be a little
    // older, so that a short time for retries is not one for the first attempt, too.
    void give_up_old(milliseconds delay) {
        const auto next = Steady::now() + delay;
        std::uint64_t given_up = 0;
        for (milliseconds patience = hook_.retry_for;
             !queue_.empty() && next - queue_.front().made > patience;
             patience = std::max(hook_.retry_for, webhook::retry_last)) {
            queue_.pop_front();
            ++given_up;
        }
        counts_.failed += given_up;
        lost_ += given_up;
        if (given_up > 0 && !std::exchange(given_up_told_, true))
            spdlog::error("{}: gives up what could not be sent within its time (retry_for)", name_);
    }

    void give_up_the_rest() {
        if (queue_.empty()) return;
        counts_.failed += queue_.size();
        spdlog::warn("{}: ends with {} unsent", name_, messages(queue_.size()));
        queue_.clear();
    }

    const Hook hook_;
    const std::string name_;
    Counts& counts_;
    std::thread thread_;
    std::minstd_rand chance_{std::random_device{}()};

    mutable std::mutex mutex_;  // of the following
    std::condition_variable changed_;
    std::deque<Message> queue_;
    bool trying_ = false;  // one that was taken out of the queue
    bool ending_ = false, handing_over_ = false, last_failed_ = false;
    Steady::time_point end_by_{};
    unsigned failures_ = 0;
    bool troubled_ = false, drop_told_ = false, given_up_told_ = false;
    std::uint64_t lost_ = 0;  // since the trouble began
};

WebhookSender::WebhookSender(Options options, const std::vector<Hook>& hooks)
    : options_(std::move(options)) {
    replace(hooks);
}

WebhookSender::~WebhookSender() {
    // All of them at the same time.
    for (const auto& runner : runners_) runner->end();
    runners_.clear();
}

void WebhookSender::tell(const approval::Happened& happened) {
    if (!any_.load(std::memory_order_acquire) || !happened.own) return;
    const std::lock_guard lock(mutex_);
    std::optional<webhook::Envelope> envelope;
    for (const auto& runner : runners_) {
        if (!runner->hook().wants(happened.kind)) continue;
        if (!envelope)
            envelope = {new_id(), std::chrono::system_clock::now(), options_.replica,
                        options_.page_url};
        runner->add(
            {envelope->id, webhook::body_of(runner->hook(), happened, *envelope), Steady::now()});
    }
}

void WebhookSender::replace(const std::vector<Hook>& hooks) {
    if (!hooks.empty()) start_libcurl();
    for (const Hook& hook : hooks)
        for (const auto& file : hook.key_files)
            if (const std::string problem = check_key_permissions(file); !problem.empty())
                spdlog::warn("webhook {}: {}", hook.name, problem);
    // Those that stay as they are go on; whoever tells something meanwhile finds the new ones, and
    // waits for none of the old.
    std::vector<std::unique_ptr<Runner>> gone;
    std::vector<std::pair<Runner*, std::unique_ptr<Runner>>> fresh;  // and its predecessor
    {
        const std::lock_guard lock(mutex_);
        gone = std::exchange(runners_, {});
        for (const Hook& hook : hooks) {
            const auto found = std::find_if(gone.begin(), gone.end(), [&](const auto& runner) {
                return runner && runner->hook().name == hook.name;
            });
            std::unique_ptr<Runner> old = found == gone.end() ? nullptr : std::move(*found);
            if (old && old->hook() == hook) {
                runners_.push_back(std::move(old));
                continue;
            }
            runners_.push_back(std::make_unique<Runner>(hook, counts_));
            fresh.emplace_back(runners_.back().get(), std::move(old));
        }
        any_.store(!runners_.empty(), std::memory_order_release);
    }
    for (const auto& runner : gone)
        if (runner) runner->end();
    for (auto& [runner, old] : fresh) {
        if (old) runner->add_first(old->hand_over());
        runner->start();
    }
}

WebhookStats WebhookSender::stats() const {
    WebhookStats stats{counts_.sent, counts_.failed, counts_.dropped, 0};
    const std::lock_guard lock(mutex_);
    for (const auto& runner : runners_) stats.queued += runner->queued();
    return stats;
}

}  // namespace pgchaperone::net
