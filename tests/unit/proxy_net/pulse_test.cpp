#include "proxy/net/pulse.h"

#include "support/catch.h"

#include <atomic>
#include <mutex>
#include <thread>

using namespace pgchaperone::net;
using namespace std::chrono_literals;

namespace {

// A thread that answers, or not.
class Asked {
public:
    Pulse::Post post() {
        return [this](std::function<void()> work) {
            const std::lock_guard lock(mutex_);
            if (stuck_) {
                owed_.push_back(std::move(work));
            } else {
                work();
            }
        };
    }
    void stick() {
        const std::lock_guard lock(mutex_);
        stuck_ = true;
    }
    void turn_again() {
        const std::lock_guard lock(mutex_);
        stuck_ = false;
        for (const auto& work : std::exchange(owed_, {})) work();
    }

private:
    std::mutex mutex_;
    bool stuck_ = false;
    std::vector<std::function<void()>> owed_;
};

template <class Condition>
bool soon(Condition condition) {
    for (int i = 0; i < 500; ++i) {
        if (condition()) return true;
        std::this_thread::sleep_for(10ms);
    }
    return false;
}

}  // namespace

TEST_CASE("a thread that does not answer is stuck, and no more once it does") {
    Asked one, two;
    std::atomic<unsigned> well{0}, ill{0};
    Pulse::Options options;
    options.beat = 5ms;
    options.stuck_after = 500ms;
    options.on_beat = [&](bool all_turn) { ++(all_turn ? well : ill); };
    Pulse pulse({one.post(), two.post()}, options);
    CHECK(soon([&] { return well > 3; }));
    CHECK(ill == 0);
    CHECK(pulse.state().stuck.empty());
    two.stick();
    CHECK(soon([&] { return pulse.state().stuck == std::vector<std::size_t>{1}; }));
    CHECK(pulse.state().lag >= 500ms);
    // Nobody is told that all is well meanwhile.
    const unsigned before = well;
    const unsigned told = ill;
    CHECK(soon([&] { return ill > told + 3; }));
    CHECK(well == before);
    two.turn_again();
    CHECK(soon([&] { return pulse.state().stuck.empty() && well > before + 3; }));
}

TEST_CASE("who answers when all is over answers nobody") {
    Asked late;
    late.stick();
    {
        Pulse::Options options;
        options.beat = 5ms;
        options.stuck_after = 10ms;
        const Pulse pulse({late.post()}, options);
        CHECK(soon([&] { return !pulse.state().stuck.empty(); }));
    }
    late.turn_again();
}
