#pragma once
// Threads with stacks large enough for the deepest text that the analyzer agrees to read. The stack
// is address space, not memory: pages are taken as they are touched and given back when the thread
// ends.

#include <cstddef>
#include <functional>
#include <pthread.h>

namespace pgchaperone::policy {

// How much of its stack the calling thread has left, in bytes.
std::size_t stack_left_bytes() noexcept;

// A joining thread. What `work` throws ends the process, as with std::thread.
class ParserThread {
public:
    static constexpr std::size_t stack_bytes = 256 * 1024 * 1024;

    // Throws std::system_error when no thread can be made.
    explicit ParserThread(std::function<void()> work);
    ~ParserThread() { join(); }
    ParserThread(const ParserThread&) = delete;
    ParserThread& operator=(const ParserThread&) = delete;

    void join() noexcept;

private:
    static void* main(void* self);

    std::function<void()> work_;
    void* stack_ = nullptr;
    pthread_t thread_{};
    bool joined_ = false;
};

}  // namespace pgchaperone::policy
