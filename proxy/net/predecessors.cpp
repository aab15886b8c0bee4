#include "proxy/net/predecessors.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>

namespace pgchaperone::net {

using Clock = std::chrono::steady_clock;

namespace {
constexpr std::chrono::seconds answer_time{1};
constexpr std::size_t questions_max = 1000;
}  // namespace

struct Predecessors::Impl {
    struct Question {
        std::set<const Link*> asked;  // that have not answered
        std::function<void(bool)> then;
        Clock::time_point until;
    };

    void run();
    std::vector<pollfd> waited_for() const;
    int timeout() const;
    void hear(Link& link);
    void heard(Link& link, Link::Message message);
    void answered(std::uint64_t number, const Link* by, bool yes);
    void give_up_on(const Link* gone);
    void begin();

    Callbacks callbacks;
    int wake = -1;

    mutable std::mutex mutex;  // of the following
    mutable std::condition_variable gone;
    std::vector<std::unique_ptr<Link>> links;
    bool begun = false;  // `yours` was said
    bool stopping = false;
    std::uint64_t questions_asked = 0;
    std::map<std::uint64_t, Question> questions;

    std::thread thread;
};

std::vector<pollfd> Predecessors::Impl::waited_for() const {
    const std::lock_guard lock(mutex);
    std::vector<pollfd> out{{.fd = wake, .events = POLLIN, .revents = 0}};
    for (const auto& link : links) {
        out.push_back({.fd = link->descriptor(), .events = POLLIN, .revents = 0});
        if (!begun) break;
    }
    return out;
}

int Predecessors::Impl::timeout() const {
    const std::lock_guard lock(mutex);
    if (questions.empty()) return -1;
    const auto left = questions.begin()->second.until - Clock::now();
    return static_cast<int>(
        std::max<std::int64_t>(0, std::chrono::ceil<std::chrono::milliseconds>(left).count()));
}

void Predecessors::Impl::run() {
    while (true) {
        std::vector<pollfd> descriptors = waited_for();
        {
            const std::lock_guard lock(mutex);
            if (stopping || links.empty()) break;
        }
        ::poll(descriptors.data(), descriptors.size(), timeout());
        std::uint64_t ignored = 0;
        if (descriptors[0].revents != 0) (void)!::read(wake, &ignored, sizeof ignored);
        // Only this thread takes links away.
        std::vector<Link*> ready;
        {
            const std::lock_guard lock(mutex);
            for (std::size_t i = 1; i < descriptors.size(); ++i)
                if (descriptors[i].revents != 0) ready.push_back(links[i - 1].get());
        }
        for (Link* const link : ready) hear(*link);
        give_up_on(nullptr);
    }
    std::map<std::uint64_t, Question> unanswered;
    bool none_left = false;
    {
        const std::lock_guard lock(mutex);
        unanswered.swap(questions);
        none_left = links.empty() && !stopping;
        gone.notify_all();
    }
    for (const auto& [number, question] : unanswered) question.then(false);
    if (none_left) callbacks.none_left();
}

void Predecessors::Impl::hear(Link& link) {
    while (auto message = link.hear()) heard(link, std::move(*message));
    if (!link.over()) return;
    give_up_on(&link);
    // It has gone before it could say so.
    begin();
    const std::lock_guard lock(mutex);
    std::erase_if(links, [&](const auto& one) { return one.get() == &link; });
}

void Predecessors::Impl::begin() {
    {
        const std::lock_guard lock(mutex);
        if (std::exchange(begun, true)) return;
    }
    callbacks.yours();
}

void Predecessors::Impl::heard(Link& link, Link::Message message) {
    // Another version may say what this one does not know.
    if (message.saying == Saying::yours) begin();
    if (message.saying == Saying::answer) {
        if (const auto number = Link::take_number(message.body))
            answered(*number, &link, message.body == "1");
    }
    if (message.saying == Saying::reload) {
        {
            const std::lock_guard lock(mutex);
            for (const auto& other : links)
                if (other.get() != &link && begun) other->say(Saying::reload);
        }
        callbacks.reload();
    }
}

void Predecessors::Impl::answered(std::uint64_t number, const Link* by, bool yes) {
    std::function<void(bool)> then;
    {
        const std::lock_guard lock(mutex);
        const auto found = questions.find(number);
        if (found == questions.end() || found->second.asked.erase(by) == 0) return;
        if (!yes && !found->second.asked.empty()) return;
        then = std::move(found->second.then);
        questions.erase(found);
    }
    then(yes);
}

// On what was asked of one that has gone, or, of nobody, on what has taken too long.
void Predecessors::Impl::give_up_on(const Link* gone_one) {
    std::vector<std::function<void(bool)>> unanswered;
    {
        const std::lock_guard lock(mutex);
        const auto now = Clock::now();
        for (auto at = questions.begin(); at != questions.end();) {
            Question& question = at->second;
            if (gone_one) question.asked.erase(gone_one);
            if (!question.asked.empty() && question.until > now) {
                ++at;
                continue;
            }
            unanswered.push_back(std::move(question.then));
            at = questions.erase(at);
        }
    }
    for (const auto& then : unanswered) then(false);
}

Predecessors::Predecessors(std::vector<std::unique_ptr<Link>> links, Callbacks callbacks)
    : impl_(std::make_unique<Impl>()) {
    impl_->callbacks = std::move(callbacks);
    impl_->links = std::move(links);
    impl_->wake = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (impl_->wake < 0) throw std::runtime_error("eventfd: no descriptor is left");
    // Signals are for the host's threads.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    impl_->thread = std::thread([impl = impl_.get()] { impl->run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_setname_np(impl_->thread.native_handle(), "predecessors");
}

Predecessors::~Predecessors() {
    let_go();
    ::close(impl_->wake);
}

void Predecessors::let_go() {
    {
        const std::lock_guard lock(impl_->mutex);
        impl_->stopping = true;
    }
    const std::uint64_t one = 1;
    (void)!::write(impl_->wake, &one, sizeof one);
    if (impl_->thread.joinable()) impl_->thread.join();
    const std::lock_guard lock(impl_->mutex);
    impl_->links.clear();
}

void Predecessors::say_serving() {
    const std::lock_guard lock(impl_->mutex);
    if (!impl_->links.empty()) impl_->links.front()->say(Saying::serving);
}

void Predecessors::ask(std::string key, std::function<void(bool)> then) {
    {
        const std::lock_guard lock(impl_->mutex);
        const std::uint64_t number = ++impl_->questions_asked;
        Impl::Question question;
        const std::string body = Link::numbered(number, key);
        for (const auto& link : impl_->links) {
            if (impl_->questions.size() >= questions_max || impl_->stopping) break;
            if (link->say(Saying::cancel, body)) question.asked.insert(link.get());
            if (!impl_->begun) break;
        }
        if (!question.asked.empty()) {
            question.then = std::move(then);
            question.until = Clock::now() + answer_time;
            impl_->questions.emplace(number, std::move(question));
        }
    }
    if (then) return then(false);
    const std::uint64_t one = 1;
    (void)!::write(impl_->wake, &one, sizeof one);
}

void Predecessors::tell(Saying saying) {
    const std::lock_guard lock(impl_->mutex);
    for (const auto& link : impl_->links)
        if (impl_->begun || link == impl_->links.front()) (void)link->say(saying);
}

std::size_t Predecessors::left() const {
    const std::lock_guard lock(impl_->mutex);
    return impl_->links.size();
}

bool Predecessors::wait_until_gone(std::chrono::milliseconds time) const {
    std::unique_lock lock(impl_->mutex);
    return impl_->gone.wait_for(lock, time, [this] { return impl_->links.empty(); });
}

bool Predecessors::begun() const {
    const std::lock_guard lock(impl_->mutex);
    return impl_->begun;
}

std::vector<std::unique_ptr<Link>> Predecessors::copies() const {
    const std::lock_guard lock(impl_->mutex);
    std::vector<std::unique_ptr<Link>> out;
    for (const auto& link : impl_->links) {
        const int copy = ::fcntl(link->descriptor(), F_DUPFD_CLOEXEC, 0);
        if (copy >= 0) out.push_back(std::make_unique<Link>(copy));
    }
    return out;
}

}  // namespace pgchaperone::net
