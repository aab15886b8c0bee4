#pragma once
// Tells hooks what happened to tickets: one bounded queue and one thread a hook, so that a dead
// receiver is in nobody's way. What a message says, how it is signed and when it is tried again is
// webhook/'s. Thread-safe; nobody ever waits in it but who ends or replaces it, and they not long.
//
// Within a hook order is kept: nothing is sent before what came earlier has arrived, was refused or
// given up. What is queued is in memory only. The log gets a hook's name and its host, never its
// path, which may be a secret, and trouble once when it begins and once when it ends.
//
// Where there is no hook there is no thread, and libcurl is not touched.

#include "approval/happened.h"
#include "webhook/hook.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace pgchaperone::net {

struct WebhookStats {
    std::uint64_t sent = 0;     // arrived
    std::uint64_t failed = 0;   // refused by their receiver, or given up
    std::uint64_t dropped = 0;  // too many were waiting, or the hook is gone
    std::size_t queued = 0;     // wait now
};

class WebhookSender {
public:
    struct Options {
        std::string replica;
        std::string page_url;  // of the page on tickets; empty: messages hold no link
    };
    static constexpr std::size_t queue_max = 1000;  // of a hook

    WebhookSender(Options options, const std::vector<webhook::Hook>& hooks);
    // Each hook gets one last short attempt to send what it has.
    ~WebhookSender();
    WebhookSender(const WebhookSender&) = delete;
    WebhookSender& operator=(const WebhookSender&) = delete;

    // Queues a message for every hook that wants it. Only what this process did itself: who else
    // did something tells of it.
    void tell(const approval::Happened& happened);
    // What waits for a hook goes on to the new one of the same name; what is gone gets its last
    // attempt. One at a time; it may take some seconds.
    void replace(const std::vector<webhook::Hook>& hooks);
    WebhookStats stats() const;

private:
    class Runner;
    struct Counts {
        std::atomic<std::uint64_t> sent{0}, failed{0}, dropped{0};
    };

    Options options_;
    Counts counts_;
    std::atomic<bool> any_{false};
    mutable std::mutex mutex_;
    std::vector<std::unique_ptr<Runner>> runners_;
};

}  // namespace pgchaperone::net
