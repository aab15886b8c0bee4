#include "proxy/net/pulse.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

namespace pgchaperone::net {

namespace {
using Clock = std::chrono::steady_clock;
}

struct Pulse::Impl {
    struct Asked {
        Post post;
        bool waiting = false;  // its answer is owed
        Clock::time_point at;
        std::chrono::nanoseconds took{0};  // the last time
    };

    explicit Impl(Options options_) : options(std::move(options_)) {}
    static void run(const std::shared_ptr<Impl>& self);
    void answered(std::size_t index);

    Options options;
    mutable std::mutex mutex;
    std::condition_variable wake;
    std::vector<Asked> asked;
    bool stopping = false;
    std::thread thread;
};

void Pulse::Impl::answered(std::size_t index) {
    const std::lock_guard lock(mutex);
    asked[index].waiting = false;
    asked[index].took = Clock::now() - asked[index].at;
}

void Pulse::Impl::run(const std::shared_ptr<Impl>& self) {
    std::unique_lock lock(self->mutex);
    while (!self->stopping) {
        std::vector<std::size_t> ask;
        bool all_turn = true;
        for (std::size_t i = 0; i < self->asked.size(); ++i) {
            Asked& one = self->asked[i];
            all_turn = all_turn && !one.waiting;
            if (one.waiting) continue;
            one.waiting = true;
            one.at = Clock::now();
            ask.push_back(i);
        }
        lock.unlock();
        if (self->options.on_beat) self->options.on_beat(all_turn);
        for (const std::size_t i : ask) self->asked[i].post([self, i] { self->answered(i); });
        lock.lock();
        self->wake.wait_for(lock, self->options.beat, [&] { return self->stopping; });
    }
}

Pulse::Pulse(std::vector<Post> threads, Options options)
    : impl_(std::make_shared<Impl>(std::move(options))) {
    for (Post& post : threads) impl_->asked.push_back({std::move(post), false, {}, {}});
    impl_->thread = std::thread([self = impl_] { Impl::run(self); });
}

Pulse::~Pulse() {
    {
        const std::lock_guard lock(impl_->mutex);
        impl_->stopping = true;
    }
    impl_->wake.notify_one();
    impl_->thread.join();
}

Pulse::State Pulse::state() const {
    const std::lock_guard lock(impl_->mutex);
    State state;
    for (std::size_t i = 0; i < impl_->asked.size(); ++i) {
        const Impl::Asked& one = impl_->asked[i];
        const auto lag = one.waiting ? std::max(Clock::now() - one.at, one.took) : one.took;
        state.lag = std::max<std::chrono::nanoseconds>(state.lag, lag);
        if (one.waiting && Clock::now() - one.at >= impl_->options.stuck_after)
            state.stuck.push_back(i);
    }
    return state;
}

}  // namespace pgchaperone::net
