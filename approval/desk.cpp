#include "approval/desk.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <stdexcept>
#include <thread>
#include <unordered_map>
#include <utility>

namespace pgchaperone::approval {
namespace {

using Steady = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds backoff_min{100};
constexpr milliseconds backoff_max{5000};
// Trouble that comes back within this time is the same trouble: it is not told again as long as it
// goes by itself, and waiting for its end does not begin anew.
constexpr std::chrono::seconds same_trouble{30};
// So many that have ended are remembered, so that news of them is not told twice.
constexpr std::size_t remembered_max = 10'000;
constexpr std::size_t deferred_max = 10'000;
// How far back history() looks for what somebody may see.
constexpr std::size_t history_depth = 10'000;
constexpr std::size_t page = 20;  // a statement may have a megabyte

Failure too_much() {
    return {Problem::store_failed, "too many requests wait for the approval store", ""};
}

// What a list has no room for: it shows beginnings only.
void shorten(Ticket& ticket) {
    Request& request = ticket.request;
    if (request.statement.size() > Desk::listed_statement_bytes) {
        request.statement.resize(Desk::listed_statement_bytes);
        request.statement.shrink_to_fit();
        request.statement_cut = true;
    }
    request.parameters = {};
}

// The readiness of whom may_be_approved() asks about.
std::string place(std::string_view role, std::string_view database) {
    std::string text(role);
    text += '\0';
    text += database;
    return text;
}

// A change of ours: what its transaction found, so that what it did can be told from what others
// did before and this process has not heard of yet.
struct Doing {
    std::optional<Sight> before;  // nothing: there was no ticket
    std::size_t size(const Ticket& after) const {
        return happened_since(before ? &*before : nullptr, after).size();
    }
};

}  // namespace

struct Desk::Impl {
    Impl(std::unique_ptr<Store> store_, DeskOptions options_)
        : store(std::move(store_)), options(std::move(options_)) {
        if (!options.now) options.now = std::chrono::system_clock::now;
        wake_descriptor = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (wake_descriptor < 0) throw std::runtime_error("eventfd: no descriptor is left");
    }
    ~Impl() { ::close(wake_descriptor); }
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;

    using Task = std::function<void()>;

    void start();
    void run();
    void wait();
    void wake() const {
        const std::uint64_t one = 1;
        // Full means that it is readable, which is all that is wanted.
        if (::write(wake_descriptor, &one, sizeof one) < 0) return;
    }
    // From any thread. `refuse` is done in its place where too much waits; empty: there is nobody
    // to answer, and it is done all the same.
    void post(Task task, Task refuse);

    template <class Work>
    auto use(const Work& work) -> decltype(work(std::declval<Store&>()));
    void do_or_defer(std::function<bool(Store&)> work);
    void go_down(const Failure& failure);
    void tell_trouble();
    void try_again();
    void learn();
    bool free_abandoned();
    void hear();
    void expire();
    void see(const Ticket& ticket, std::size_t own);
    void remember(const Ticket& ticket);
    void tell(const Ticket& ticket);
    void count(const std::vector<Happened>& all);
    void set_ready(const std::string& id, const Ticket* ticket);
    void watch(const std::string& id, std::function<void(const Ticket&)> decided) {
        unwatch(id);
        watchers[id] = {std::move(decided), since.insert(Steady::now())};
        publish_watched();
    }
    void unwatch(const std::string& id) {
        const auto found = watchers.find(id);
        if (found == watchers.end()) return;
        since.erase(found->second.since);
        watchers.erase(found);
        publish_watched();
    }
    void publish_watched() {
        const std::lock_guard lock(stats_mutex);
        counted.waiting = watchers.size();
        oldest = since.empty() ? std::optional<Steady::time_point>() : *since.begin();
    }
    bool is_mine(const Ticket& ticket) const { return ticket.replica == options.replica; }
    void notice(const std::string& text) const {
        if (options.on_notice) options.on_notice(text);
    }

    void open(Request request, const Then<Ticket>& then,
              std::function<void(const Ticket&)> decided);
    void claim(const Claim& claim, const Then<std::optional<Ticket>>& then);
    void change(const std::string& id, const Store::Change& change, const Then<Ticket>& then);
    struct Listing {
        Person person;
        std::size_t limit = 0;
        bool of_open = true;
        Then<std::vector<Ticket>> then;
        std::vector<Ticket> seen;
        std::optional<Ticket> last;
        std::size_t looked_at = 0;
    };
    void list(const std::shared_ptr<Listing>& listing);

    std::unique_ptr<Store> store;
    DeskOptions options;
    int wake_descriptor = -1;

    std::mutex mutex;  // of the following
    std::vector<Task> queue;
    bool closing = false;

    // The desk's thread only (and start(), before there is one).
    struct Open {
        Sight sight;
        Time expires;
    };
    std::map<std::string, Open> opens;                  // all that are open, of every replica
    std::unordered_map<std::string, Sight> remembered;  // some that have ended
    std::deque<std::string> remembered_order;           // oldest first
    struct Watcher {
        std::function<void(const Ticket&)> decided;
        std::multiset<Steady::time_point>::iterator since;
    };
    std::unordered_map<std::string, Watcher> watchers;
    std::multiset<Steady::time_point> since;           // theirs
    std::deque<std::function<bool(Store&)>> deferred;  // false: to be tried again
    bool learned = false;                              // `opens` is true to the store
    bool down = false;
    Failure trouble;
    Steady::time_point trouble_last{}, try_next{}, hear_next{};
    milliseconds backoff = backoff_min;
    bool trouble_told = false;  // this time

    // Approved and not used, by place().
    mutable std::shared_mutex ready_mutex;
    std::map<std::string, std::string> ready_of;  // by ticket
    std::multiset<std::string, std::less<>> ready_places;
    std::atomic<std::size_t> ready_count{0};

    mutable std::mutex stats_mutex;
    Stats counted;
    std::optional<Steady::time_point> oldest;  // of those who wait

    std::thread thread;
};

void Desk::Impl::start() {
    // Before anybody can ask: what was approved earlier may be waiting to be used.
    learn();
    // Signals are for the host's threads.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread = std::thread([this] { run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_setname_np(thread.native_handle(), "approval");
}

void Desk::Impl::run() {
    for (;;) {
        std::vector<Task> tasks;
        bool ending = false;
        {
            const std::lock_guard lock(mutex);
            tasks.swap(queue);
            ending = closing;
        }
        for (const Task& task : tasks) task();
        if (ending && tasks.empty()) return;
        if (ending) continue;
        if (down && Steady::now() >= try_next) try_again();
        if (!down && Steady::now() >= hear_next) hear();
        if (!down) expire();
        wait();
    }
}

// Until there is something to do: a task, news from the store, or the time for one of them.
void Desk::Impl::wait() {
    const auto steady_now = Steady::now();
    auto left = std::chrono::ceil<milliseconds>((down ? try_next : hear_next) - steady_now);
    if (!down) {
        const Time now = options.now();
        for (const auto& [id, open] : opens)
            if (open.expires - now < left)
                left = std::chrono::ceil<milliseconds>(open.expires - now);
    }
    const int timeout = static_cast<int>(std::clamp(left, milliseconds(0), backoff_max).count());
    if (!down && store->told()) {
        hear_next = Steady::now();
        return;
    }
    const int told_by = down ? -1 : store->descriptor();
    pollfd descriptors[] = {{.fd = wake_descriptor, .events = POLLIN, .revents = 0},
                            {.fd = told_by, .events = POLLIN, .revents = 0}};
    if (::poll(descriptors, told_by < 0 ? 1 : 2, timeout) <= 0) return;
    std::uint64_t ignored = 0;
    if (descriptors[0].revents != 0 && ::read(wake_descriptor, &ignored, sizeof ignored) < 0)
        return;
    if (descriptors[1].revents != 0) hear_next = Steady::now();
}

void Desk::Impl::post(Task task, Task refuse) {
    {
        const std::lock_guard lock(mutex);
        const bool full = queue.size() >= options.queue_max && refuse;
        queue.push_back(full ? std::move(refuse) : std::move(task));
    }
    wake();
}

// --- The store, and what is done when it fails.

template <class Work>
auto Desk::Impl::use(const Work& work) -> decltype(work(std::declval<Store&>())) {
    if (down) return decltype(work(*store))(trouble);
    auto result = work(*store);
    if (!result && result.error().problem == Problem::store_failed) go_down(result.error());
    return result;
}

// For what nobody waits for: `work` says whether it is done.
void Desk::Impl::do_or_defer(std::function<bool(Store&)> work) {
    if (!down && work(*store)) return;
    if (deferred.size() >= deferred_max) {
        notice("the end of a ticket could not be noted: the approval store fails for too long");
        deferred.pop_front();
    }
    deferred.push_back(std::move(work));
}

void Desk::Impl::tell_trouble() {
    notice(trouble.text + "; what needs an approval is refused until it works again");
    trouble_told = true;
}

void Desk::Impl::go_down(const Failure& failure) {
    const auto now = Steady::now();
    const bool same = trouble_last != Steady::time_point{} && now - trouble_last < same_trouble &&
                      failure.text == trouble.text;
    if (!same) backoff = backoff_min;
    trouble = failure;
    trouble_told = false;
    if (!same) tell_trouble();
    trouble_last = now;
    down = true;
    try_next = now + backoff;
    backoff = std::min(backoff * 2, backoff_max);
    const std::lock_guard lock(stats_mutex);
    ++counted.store_failures;
    counted.down = true;
}

void Desk::Impl::try_again() {
    if (auto checked = store->check(); !checked) {
        trouble = checked.error();
        trouble_last = Steady::now();
        try_next = trouble_last + backoff;
        backoff = std::min(backoff * 2, backoff_max);
        // It lasts, so it is worth telling again.
        if (!trouble_told) tell_trouble();
        return;
    }
    down = false;
    {
        const std::lock_guard lock(stats_mutex);
        counted.down = false;
    }
    if (trouble_told) notice("the approval store " + store->where() + " works again");
    learn();
    if (!down) hear();
    for (std::size_t left = deferred.size(); left > 0 && !down; --left) {
        auto work = std::move(deferred.front());
        deferred.pop_front();
        do_or_defer(std::move(work));
    }
}

// Once: which tickets are open. From then on changed() tells.
void Desk::Impl::learn() {
    if (learned) return;
    for (std::optional<Ticket> last;;) {
        auto tickets = use([&](Store& s) { return s.open_tickets(page, last ? &*last : nullptr); });
        if (!tickets) return;
        for (const Ticket& ticket : *tickets) remember(ticket);
        if (tickets->size() < page) break;
        last = std::move(tickets->back());
    }
    learned = free_abandoned();
}

// Whose sessions an earlier run of this replica waited for, and was killed. False: to be tried
// again.
bool Desk::Impl::free_abandoned() {
    if (!options.alone) return true;
    std::vector<std::string> abandoned;
    for (std::optional<Ticket> last;;) {
        auto tickets = use([&](Store& s) { return s.open_tickets(page, last ? &*last : nullptr); });
        if (!tickets) return false;
        for (const Ticket& ticket : *tickets) {
            const bool waits = is_mine(ticket) && ticket.waiting(options.now());
            if (waits && !watchers.contains(ticket.id)) abandoned.push_back(ticket.id);
        }
        if (tickets->size() < page) break;
        last = std::move(tickets->back());
    }
    bool all = true;
    for (const std::string& id : abandoned) {
        change(
            id, [&](const Ticket& ticket) { return released(ticket, options.now()); },
            [&](const Result<Ticket>& done) {
                all = all && (done || done.error().problem != Problem::store_failed);
            });
    }
    return all;
}

void Desk::Impl::hear() {
    hear_next = Steady::now() + options.poll;
    if (!learned) learn();
    auto all = use([](Store& s) { return s.changed(); });
    if (!all) return;
    for (const Store::Changed& changed : *all) {
        const bool known = opens.contains(changed.ticket.id) ||
                           remembered.contains(changed.ticket.id);
        // One that ended before our time: something was added to it.
        if (!known && !changed.is_new)
            remember(changed.ticket);
        else
            see(changed.ticket, 0);
    }
}

void Desk::Impl::expire() {
    const Time now = options.now();
    std::vector<std::string> due;
    for (const auto& [id, open] : opens)
        if (open.expires <= now) due.push_back(id);
    for (const std::string& id : due) {
        if (down) return;
        // Of all replicas one changes it, whoever opened it: the store's transaction decides which.
        Doing doing;
        auto ticket = use([&](Store& s) {
            return s.update(id, [&](const Ticket& before) -> Result<Ticket> {
                doing.before = sight_of(before);
                return expired_by(before, now);
            });
        });
        if (ticket) {
            see(*ticket, doing.size(*ticket));
        } else if (ticket.error().problem == Problem::unknown_ticket) {
            // Somebody has deleted it.
            notice("ticket " + id + " has vanished from the approval store " + store->where());
            opens.erase(id);
            set_ready(id, nullptr);
            unwatch(id);
        }
    }
}

// --- What is known of tickets.

// Every ticket that something was done to, here or elsewhere, passes here: once is enough to know
// what happened, and more often does no harm. So many of the last things that happened are of this
// process's own doing; the others were not heard of before, and are told by who did them.
void Desk::Impl::see(const Ticket& ticket, std::size_t own) {
    const auto open = opens.find(ticket.id);
    const auto old = remembered.find(ticket.id);
    const Sight* before = open != opens.end()       ? &open->second.sight
                          : old != remembered.end() ? &old->second
                                                    : nullptr;
    std::vector<Happened> all = happened_since(before, ticket);
    const std::size_t others = all.size() - std::min(own, all.size());
    for (std::size_t i = others; i < all.size(); ++i) all[i].own = true;
    remember(ticket);
    count(all);
    tell(ticket);
    if (!options.on_happened) return;
    for (const Happened& happened : all) options.on_happened(happened);
}

void Desk::Impl::remember(const Ticket& ticket) {
    set_ready(ticket.id, ticket.state == State::approved ? &ticket : nullptr);
    if (ticket.open()) {
        opens[ticket.id] = {.sight = sight_of(ticket), .expires = ticket.expires};
        return;
    }
    opens.erase(ticket.id);
    const auto [place, is_new] = remembered.insert_or_assign(ticket.id, sight_of(ticket));
    if (!is_new) return;
    remembered_order.push_back(ticket.id);
    if (remembered_order.size() <= remembered_max) return;
    remembered.erase(remembered_order.front());
    remembered_order.pop_front();
}

void Desk::Impl::set_ready(const std::string& id, const Ticket* ticket) {
    const auto old = ready_of.find(id);
    if ((old != ready_of.end()) == (ticket != nullptr)) return;
    const std::unique_lock lock(ready_mutex);
    if (ticket) {
        const std::string where = place(ticket->request.requester.role, ticket->request.database);
        ready_of[id] = where;
        ready_places.insert(where);
    } else {
        ready_places.erase(ready_places.find(old->second));
        ready_of.erase(old);
    }
    ready_count = ready_places.size();
}

// The session that waits for it, if it is ours and there is something to say.
void Desk::Impl::tell(const Ticket& ticket) {
    if (ticket.state == State::pending) return;
    const auto found = watchers.find(ticket.id);
    if (found == watchers.end()) return;
    const auto decided = std::move(found->second.decided);
    unwatch(ticket.id);
    if (decided) decided(ticket);
}

void Desk::Impl::count(const std::vector<Happened>& all) {
    const std::lock_guard lock(stats_mutex);
    for (const Happened& happened : all) {
        if (!happened.own) continue;
        switch (happened.kind) {
            case Happened::Kind::opened: ++counted.opened; break;
            case Happened::Kind::voted: break;
            case Happened::Kind::decided:
                ++(happened.ticket.state == State::denied ? counted.denied : counted.approved);
                break;
            case Happened::Kind::expired: ++counted.expired; break;
            case Happened::Kind::withdrawn: ++counted.withdrawn; break;
            case Happened::Kind::used: ++counted.used; break;
            case Happened::Kind::glass: ++counted.glass; break;
            case Happened::Kind::finished: break;  // counted when it was used
        }
    }
}

// --- What is asked of the desk, on its thread.

void Desk::Impl::open(Request request, const Then<Ticket>& then,
                      std::function<void(const Ticket&)> decided) {
    const Time now = options.now();
    const std::string binding = request.binding;
    Doing doing;
    auto ticket = use([&](Store& s) {
        return s.open(
            binding,
            [&](std::string id) {
                doing.before.reset();
                return opened(request, std::move(id), options.replica, now);
            },
            [&](const Ticket& there) -> std::optional<Ticket> {
                // Its session has not let go of it yet, even if its time is over.
                if (watchers.contains(there.id)) return std::nullopt;
                doing.before = sight_of(there);
                return taken_up(there, request, options.replica, now);
            });
    });
    if (ticket) {
        see(*ticket, doing.size(*ticket));
        if (ticket->state == State::pending) watch(ticket->id, std::move(decided));
    }
    then(std::move(ticket));
}

void Desk::Impl::claim(const Claim& claim, const Then<std::optional<Ticket>>& then) {
    const Time now = options.now();
    Doing doing;
    if (claim.ticket.empty()) {
        auto taken = use([&](Store& s) {
            return s.claim(claim.binding, [&](const Ticket& ticket) {
                doing.before = sight_of(ticket);
                return claimable(ticket, claim, now) ? std::optional(claimed(ticket, now))
                                                     : std::nullopt;
            });
        });
        if (taken && *taken) see(**taken, doing.size(**taken));
        then(std::move(taken));
        return;
    }
    auto taken = use([&](Store& s) {
        return s.update(claim.ticket, [&](const Ticket& ticket) -> Result<Ticket> {
            doing.before = sight_of(ticket);
            if (!claimable(ticket, claim, now)) return why_not_claimable(ticket, claim, now);
            return claimed(ticket, now);
        });
    });
    if (!taken) {
        then(taken.error());
        return;
    }
    see(*taken, doing.size(*taken));
    then(std::optional(std::move(*taken)));
}

void Desk::Impl::change(const std::string& id, const Store::Change& change,
                        const Then<Ticket>& then) {
    Doing doing;
    auto ticket = use([&](Store& s) {
        return s.update(id, [&](Ticket before) {
            doing.before = sight_of(before);
            return change(std::move(before));
        });
    });
    if (ticket) see(*ticket, doing.size(*ticket));
    then(std::move(ticket));
}

// A page at a time, so that who opens, claims or votes meanwhile does not wait for all of it. What
// is long is left out as soon as it was read.
void Desk::Impl::list(const std::shared_ptr<Listing>& listing) {
    {
        const std::lock_guard lock(mutex);
        if (closing) return listing->then(too_much());
    }
    auto tickets = use([&](Store& s) {
        const Ticket* after = listing->last ? &*listing->last : nullptr;
        return listing->of_open ? s.open_tickets(page, after) : s.ended(page, after);
    });
    if (!tickets) return listing->then(tickets.error());
    const bool last_page = tickets->size() < page;
    listing->looked_at += tickets->size();
    for (Ticket& ticket : *tickets) {
        shorten(ticket);
        if (&ticket == &tickets->back()) listing->last = ticket;
        if (listing->seen.size() < listing->limit && may_see(ticket, listing->person))
            listing->seen.push_back(std::move(ticket));
    }
    if (last_page || listing->seen.size() >= listing->limit ||
        listing->looked_at >= history_depth) {
        return listing->then(std::move(listing->seen));
    }
    post([this, listing] { list(listing); }, [listing] { listing->then(too_much()); });
}

// --- From any thread.

Desk::Desk(std::unique_ptr<Store> store, DeskOptions options)
    : impl_(std::make_unique<Impl>(std::move(store), std::move(options))) {
    impl_->start();
}

Desk::~Desk() {
    {
        const std::lock_guard lock(impl_->mutex);
        impl_->closing = true;
    }
    impl_->wake();
    impl_->thread.join();
}

void Desk::open(Request request, Then<Ticket> then, std::function<void(const Ticket&)> decided) {
    auto refuse = [then] { then(too_much()); };
    impl_->post([impl = impl_.get(), request = std::move(request), then = std::move(then),
                 decided = std::move(decided)] { impl->open(request, then, decided); },
                std::move(refuse));
}

void Desk::claim(Claim claim, Then<std::optional<Ticket>> then) {
    auto refuse = [then] { then(too_much()); };
    impl_->post([impl = impl_.get(), claim = std::move(claim),
                 then = std::move(then)] { impl->claim(claim, then); },
                std::move(refuse));
}

void Desk::release(std::string id) {
    impl_->post(
        [impl = impl_.get(), id = std::move(id)] {
            impl->unwatch(id);
            impl->do_or_defer([impl, id](Store&) {
                // A later session of the same person may have taken it up meanwhile.
                if (impl->watchers.contains(id)) return true;
                bool failed = false;
                impl->change(
                    id,
                    [&](const Ticket& ticket) -> Result<Ticket> {
                        return impl->is_mine(ticket) ? released(ticket, impl->options.now())
                                                     : ticket;
                    },
                    [&](const Result<Ticket>& done) {
                        failed = !done && done.error().problem == Problem::store_failed;
                    });
                return !failed;
            });
        },
        {});
}

void Desk::withdraw(std::string id, std::string why) {
    impl_->post(
        [impl = impl_.get(), id = std::move(id), why = std::move(why)] {
            impl->unwatch(id);
            impl->do_or_defer([impl, id, why](Store&) {
                if (impl->watchers.contains(id)) return true;
                bool failed = false;
                impl->change(
                    id,
                    [&](const Ticket& ticket) -> Result<Ticket> {
                        if (!impl->is_mine(ticket)) return ticket;
                        return withdrawn(ticket, nullptr, why, impl->options.now());
                    },
                    [&](const Result<Ticket>& done) {
                        failed = !done && done.error().problem == Problem::store_failed;
                    });
                return !failed;
            });
        },
        {});
}

void Desk::finish(std::string id, std::string outcome) {
    impl_->post(
        [impl = impl_.get(), id = std::move(id), outcome = std::move(outcome)] {
            impl->do_or_defer([impl, id, outcome](Store&) {
                bool failed = false;
                impl->change(
                    id,
                    [&](const Ticket& ticket) -> Result<Ticket> {
                        return finished(ticket, outcome);
                    },
                    [&](const Result<Ticket>& done) {
                        failed = !done && done.error().problem == Problem::store_failed;
                    });
                return !failed;
            });
        },
        {});
}

void Desk::vote(std::string id, Person by, bool approve, std::string comment, Then<Ticket> then,
                Provided provided) {
    auto refuse = [then] { then(too_much()); };
    impl_->post(
        [impl = impl_.get(), id = std::move(id), by = std::move(by), approve,
         comment = std::move(comment), then = std::move(then), provided = std::move(provided)] {
            impl->change(
                id,
                [&](const Ticket& ticket) -> Result<Ticket> {
                    auto done = voted(ticket, by, approve, comment, impl->options.now());
                    if (!done || !provided) return done;
                    if (auto failure = provided(ticket)) return *std::move(failure);
                    return done;
                },
                then);
        },
        std::move(refuse));
}

void Desk::withdraw(std::string id, Person by, std::string comment, Then<Ticket> then) {
    auto refuse = [then] { then(too_much()); };
    impl_->post(
        [impl = impl_.get(), id = std::move(id), by = std::move(by), comment = std::move(comment),
         then = std::move(then)] {
            impl->change(
                id,
                [&](const Ticket& ticket) {
                    return withdrawn(ticket, &by, comment, impl->options.now());
                },
                then);
        },
        std::move(refuse));
}

void Desk::find(std::string id, Person person, Then<Ticket> then) {
    auto refuse = [then] { then(too_much()); };
    impl_->post(
        [impl = impl_.get(), id = std::move(id), person = std::move(person),
         then = std::move(then)] {
            auto ticket = impl->use([&](Store& s) { return s.find(id); });
            if (ticket && !may_see(*ticket, person))
                then(no_such_ticket(id));
            else
                then(std::move(ticket));
        },
        std::move(refuse));
}

void Desk::open_tickets(Person person, std::size_t limit, Then<std::vector<Ticket>> then) {
    const auto listing = std::make_shared<Impl::Listing>();
    listing->person = std::move(person);
    listing->limit = limit;
    listing->of_open = true;
    listing->then = std::move(then);
    impl_->post([impl = impl_.get(), listing] { impl->list(listing); },
                [listing] { listing->then(too_much()); });
}

void Desk::history(Person person, std::size_t limit, Then<std::vector<Ticket>> then) {
    const auto listing = std::make_shared<Impl::Listing>();
    listing->person = std::move(person);
    listing->limit = limit;
    listing->of_open = false;
    listing->then = std::move(then);
    impl_->post([impl = impl_.get(), listing] { impl->list(listing); },
                [listing] { listing->then(too_much()); });
}

void Desk::alone() {
    impl_->post(
        [impl = impl_.get()] {
            impl->options.alone = true;
            impl->do_or_defer([impl](Store&) { return impl->free_abandoned(); });
        },
        {});
}

bool Desk::may_be_approved(std::string_view role, std::string_view database) const noexcept {
    if (impl_->ready_count == 0) return false;
    const std::shared_lock lock(impl_->ready_mutex);
    return impl_->ready_places.contains(place(role, database));
}

Desk::Stats Desk::stats() const {
    const std::lock_guard lock(impl_->stats_mutex);
    Stats stats = impl_->counted;
    if (impl_->oldest) stats.oldest_wait = Steady::now() - *impl_->oldest;
    return stats;
}

}  // namespace pgchaperone::approval
