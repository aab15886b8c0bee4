#pragma once
// Server-sent events on their way to one page. What comes faster than a page reads it is told as
// one: that something has changed. Lives on one thread; bounded.

#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace pgchaperone::web {

class EventStream {
public:
    // `data` is JSON of ours, without line breaks.
    void push(std::string_view name, std::string_view data) {
        if (over_) return;
        if (pending_.size() > pending_bytes_max) {
            if (squeezed_) return;
            squeezed_ = true;
            name = "tickets";
            data = "{}";
        }
        pending_ += "event: ";
        pending_ += name;
        pending_ += "\ndata: ";
        pending_ += data;
        pending_ += "\n\n";
        if (wake_) wake_();
    }
    // The last word; the host closes the connection behind it.
    void end(std::string_view name, std::string_view data) {
        squeezed_ = false;
        pending_.clear();
        push(name, data);
        over_ = true;
    }
    std::string take() {
        squeezed_ = false;
        return std::exchange(pending_, {});
    }
    bool over() const { return over_; }
    // Called, on this thread, whenever there is something to take. Does not call back.
    void on_wake(std::function<void()> wake) { wake_ = std::move(wake); }

private:
    static constexpr std::size_t pending_bytes_max = 4096;
    std::string pending_;
    bool squeezed_ = false;
    bool over_ = false;
    std::function<void()> wake_;
};

}  // namespace pgchaperone::web
