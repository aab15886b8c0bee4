#pragma once
// The guards that came before this one and still have sessions, the one that started it first among
// them. They are asked for what this one does not know, told what it is told, and missed when they
// have gone. Owns a thread, which ends with the last of them. Thread-safe.

#include "proxy/net/link.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace pgchaperone::net {

class Predecessors {
public:
    // Called on the thread; must not wait.
    struct Callbacks {
        std::function<void()> yours;      // once: nobody else accepts any more
        std::function<void()> reload;     // one of them was told to
        std::function<void()> none_left;  // once, after `yours`
    };
    // The first is the one that this process takes over from; the others are its own predecessors,
    // and nothing is said to them before `yours`.
    Predecessors(std::vector<std::unique_ptr<Link>> links, Callbacks callbacks);
    ~Predecessors();
    Predecessors(const Predecessors&) = delete;
    Predecessors& operator=(const Predecessors&) = delete;

    // That this process serves. Then `yours` comes.
    void say_serving();
    // Whether a CancelRequest with this key was for something that is held by one of them, and
    // cancelled. `then` is called once, on any thread: with false where nobody knows within a
    // second.
    void ask(std::string key, std::function<void(bool)> then);
    void tell(Saying saying);

    std::size_t left() const;
    // Waits until all have gone; false: not in time.
    bool wait_until_gone(std::chrono::milliseconds time) const;
    // Whether `yours` was said.
    bool begun() const;
    // To hand on: links to all that are left, which stay open here, too, until let_go().
    std::vector<std::unique_ptr<Link>> copies() const;
    // Somebody else has them now. Nothing is called from then on, but what was asked is answered.
    void let_go();

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace pgchaperone::net
