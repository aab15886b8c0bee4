#pragma once
// A store of tickets in memory, for tests of what stands on top of a desk. It is used by the desk's
// thread alone, and read when that is known to be idle.

#include "approval/store.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::test {

class MemoryStore : public approval::Store {
public:
    using Ticket = approval::Ticket;
    template <class T>
    using Result = approval::Result<T>;

    Result<Ticket> open(std::string_view binding, const Make& make, const Take& reuse) override {
        for (Ticket& ticket : tickets_) {
            if (!ticket.open() || ticket.request.binding != binding) continue;
            if (auto taken = reuse(ticket)) return ticket = *std::move(taken);
        }
        tickets_.push_back(make(approval::id_of(tickets_.size() + 1)));
        return tickets_.back();
    }
    Result<Ticket> update(std::string_view id, const Change& change) override {
        const auto found = at(id);
        if (found == tickets_.end()) return approval::no_such_ticket(id);
        Result<Ticket> changed = change(*found);
        if (changed) *found = *changed;
        return changed;
    }
    Result<std::optional<Ticket>> claim(std::string_view binding, const Take& take) override {
        for (Ticket& ticket : tickets_) {
            if (!ticket.open() || ticket.request.binding != binding) continue;
            if (auto taken = take(ticket)) return std::optional(ticket = *std::move(taken));
        }
        return std::optional<Ticket>();
    }
    Result<Ticket> find(std::string_view id) override {
        const auto found = at(id);
        if (found == tickets_.end()) return approval::no_such_ticket(id);
        return *found;
    }
    Result<std::vector<Ticket>> open_tickets(std::size_t limit, const Ticket* after) override {
        return after != nullptr ? Result<std::vector<Ticket>>(std::vector<Ticket>())
                                : list(limit, true);
    }
    Result<std::vector<Ticket>> ended(std::size_t limit, const Ticket* after) override {
        return after != nullptr ? Result<std::vector<Ticket>>(std::vector<Ticket>())
                                : list(limit, false);
    }
    Result<std::vector<Changed>> changed() override { return std::vector<Changed>(); }
    int descriptor() const override { return -1; }
    Result<void> check() override { return {}; }
    std::string where() const override { return "memory"; }

private:
    std::vector<Ticket>::iterator at(std::string_view id) {
        const auto number = approval::number_of(id);
        if (!number) return tickets_.end();
        return std::find_if(tickets_.begin(), tickets_.end(), [&](const Ticket& ticket) {
            return ticket.id == approval::id_of(*number);
        });
    }
    std::vector<Ticket> list(std::size_t limit, bool open) const {
        std::vector<Ticket> out;
        for (const Ticket& ticket : tickets_) {
            if (ticket.open() == open && out.size() < limit) out.push_back(ticket);
        }
        return out;
    }

    std::vector<Ticket> tickets_;
};

}  // namespace pgchaperone::test
