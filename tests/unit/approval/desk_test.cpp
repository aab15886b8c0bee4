#include "approval/desk.h"
#include "homes.h"
#include "tickets.h"

#include "support/catch.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <future>
#include <mutex>

using namespace pgchaperone::test;
using namespace pgchaperone::approval;

namespace {

#define EVERY_HOME Home home(GENERATE(HomeKind::sqlite, HomeKind::postgres))

// Long enough that only what never happens takes so long.
constexpr auto patience = 60s;

// What callbacks said, for a test that waits for it.
template <class T>
class Heard {
public:
    void say(T value) {
        const std::lock_guard lock(mutex_);
        all_.push_back(std::move(value));
        said_.notify_all();
    }
    std::vector<T> all() const {
        const std::lock_guard lock(mutex_);
        return all_;
    }
    std::vector<T> wait_for(std::size_t count) const {
        std::unique_lock lock(mutex_);
        said_.wait_for(lock, patience, [&] { return all_.size() >= count; });
        return all_;
    }

private:
    mutable std::mutex mutex_;
    mutable std::condition_variable said_;
    std::vector<T> all_;
};

using Kind = Happened::Kind;

// A desk as one replica has it, with a clock that the test turns.
struct Replica {
    explicit Replica(std::unique_ptr<Store> store, std::string name = "one",
                     std::size_t queue_max = 10'000, std::chrono::milliseconds poll = 20ms,
                     bool alone = true)
        : desk(std::move(store),
               {.replica = std::move(name),
                .alone = alone,
                .on_happened = [this](const Happened& h) { happened.say(h); },
                .on_notice = [this](std::string_view text) { notices.say(std::string(text)); },
                .now = [this] { return Time(std::chrono::microseconds(now_us)); },
                .queue_max = queue_max,
                .poll = poll}) {}

    std::atomic<std::int64_t> now_us{
        std::chrono::duration_cast<std::chrono::microseconds>(start_time.time_since_epoch())
            .count()};
    void pass(std::chrono::microseconds time) { now_us += time.count(); }

    Heard<Happened> happened;
    Heard<std::string> notices;
    Heard<Ticket> decided;
    Desk desk;

    template <class T, class Ask>
    static Result<T> answer_to(const Ask& ask) {
        const auto promise = std::make_shared<std::promise<Result<T>>>();
        auto future = promise->get_future();
        ask([promise](Result<T> result) { promise->set_value(std::move(result)); });
        if (future.wait_for(patience) != std::future_status::ready)
            throw std::runtime_error("the desk does not answer");
        return future.get();
    }

    Result<Ticket> open(Request request = request_of_alice()) {
        return answer_to<Ticket>([&](auto then) {
            desk.open(std::move(request), then, [this](const Ticket& t) { decided.say(t); });
        });
    }
    Result<std::optional<Ticket>> claim(Claim claim) {
        return answer_to<std::optional<Ticket>>(
            [&](auto then) { desk.claim(std::move(claim), then); });
    }
    Result<Ticket> vote(const std::string& id, Person by, bool approve = true,
                        std::string comment = "") {
        return answer_to<Ticket>(
            [&](auto then) { desk.vote(id, std::move(by), approve, std::move(comment), then); });
    }
    Result<Ticket> withdraw(const std::string& id, Person by) {
        return answer_to<Ticket>(
            [&](auto then) { desk.withdraw(id, std::move(by), "changed my mind", then); });
    }
    Result<Ticket> find(const std::string& id, Person by) {
        return answer_to<Ticket>([&](auto then) { desk.find(id, std::move(by), then); });
    }
    std::vector<Ticket> open_tickets(Person by, std::size_t limit = 100) {
        return answer_to<std::vector<Ticket>>(
                   [&](auto then) { desk.open_tickets(std::move(by), limit, then); })
            .value();
    }
    std::vector<Ticket> history(Person by, std::size_t limit = 100) {
        return answer_to<std::vector<Ticket>>(
                   [&](auto then) { desk.history(std::move(by), limit, then); })
            .value();
    }
    std::vector<Kind> kinds(std::size_t at_least) const {
        std::vector<Kind> list;
        for (const Happened& h : happened.wait_for(at_least)) list.push_back(h.kind);
        return list;
    }
    // Those that were told as this replica's own doing.
    std::vector<Kind> own_kinds() const {
        std::vector<Kind> list;
        for (const Happened& h : happened.all())
            if (h.own) list.push_back(h.kind);
        return list;
    }
};

template <class Condition>
bool comes_true(const Condition& condition) {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (std::chrono::steady_clock::now() < end) {
        if (condition()) return true;
        std::this_thread::sleep_for(5ms);
    }
    return false;
}

}  // namespace

TEST_CASE("a held statement is approved by a second person and claimed once") {
    EVERY_HOME;
    Replica one(home.open());
    const Ticket ticket = one.open().value();
    CHECK(ticket.state == State::pending);
    CHECK(ticket.replica == "one");
    CHECK(one.desk.stats().waiting == 1);
    CHECK(one.desk.stats().oldest_wait > 0ns);
    CHECK_FALSE(one.desk.may_be_approved("alice", "shop"));
    CHECK_FALSE(one.claim(claim_of(ticket, true)));
    CHECK_FALSE(one.claim(claim_of(ticket, false)).value());

    CHECK(one.vote("b1", alice()).error().problem == Problem::own_ticket);
    CHECK(one.vote("b1", dave()).error().problem == Problem::not_allowed);
    CHECK(one.vote("b1", bob(), true, "fine")->state == State::approved);
    const auto decided = one.decided.wait_for(1);
    REQUIRE(decided.size() == 1);
    CHECK(decided[0].state == State::approved);
    CHECK(one.desk.may_be_approved("alice", "shop"));
    CHECK_FALSE(one.desk.may_be_approved("alice", "other"));
    CHECK_FALSE(one.desk.may_be_approved("bob", "shop"));
    CHECK(one.desk.stats().waiting == 0);
    CHECK(one.desk.stats().oldest_wait == 0ns);

    const auto used = one.claim(claim_of(ticket, true)).value();
    REQUIRE(used);
    CHECK(used->state == State::used);
    CHECK_FALSE(one.desk.may_be_approved("alice", "shop"));
    CHECK(one.claim(claim_of(ticket, true)).error().problem == Problem::already_decided);
    CHECK_FALSE(one.claim(claim_of(ticket, false)).value());
    one.desk.finish(ticket.id, "UPDATE 5");
    CHECK(one.find("b1", alice())->outcome == "UPDATE 5");
    CHECK(one.kinds(4) == std::vector{Kind::opened, Kind::decided, Kind::used, Kind::finished});
    CHECK(one.decided.all().size() == 1);
    const Desk::Stats stats = one.desk.stats();
    CHECK(stats.opened == 1);
    CHECK(stats.approved == 1);
    CHECK(stats.used == 1);
    CHECK(stats.denied + stats.expired + stats.withdrawn + stats.glass + stats.store_failures == 0);
}

TEST_CASE("a denial is told to the session that waits, with its reason") {
    EVERY_HOME;
    Replica one(home.open());
    const Ticket ticket = one.open().value();
    one.vote(ticket.id, bob(), false, "use the API").value();
    const auto decided = one.decided.wait_for(1);
    REQUIRE(decided.size() == 1);
    CHECK(decided[0].state == State::denied);
    CHECK(decided[0].comment == "use the API");
    CHECK(one.claim(claim_of(ticket, true)).error().problem == Problem::already_decided);
    CHECK(one.desk.stats().denied == 1);
}

TEST_CASE(
    "when nobody decides, the ticket outlives the wait, and the next run takes the approval") {
    EVERY_HOME;
    Replica one(home.open());
    const Ticket ticket = one.open().value();
    one.desk.release(ticket.id);
    one.vote(ticket.id, bob()).value();
    CHECK(one.decided.all().empty());
    CHECK(one.desk.may_be_approved("alice", "shop"));
    const auto used = one.claim(claim_of(ticket, false)).value();
    REQUIRE(used);
    CHECK(used->id == ticket.id);
    CHECK(one.decided.all().empty());
}

TEST_CASE("asking again while a ticket is open takes it up again, unless its session still waits") {
    EVERY_HOME;
    Replica one(home.open());
    const Ticket ticket = one.open().value();
    CHECK(one.open()->id != ticket.id);
    // Its time is over, but its session has not said so yet.
    one.pass(2min);
    const Ticket third = one.open().value();
    CHECK(third.id == id_of(3));
    one.desk.release(ticket.id);
    const Ticket again = one.open().value();
    CHECK(again.id == ticket.id);
    CHECK(again.waiting(start_time + 2min));
    one.vote(again.id, bob()).value();
    CHECK(one.decided.wait_for(1)[0].id == again.id);
    one.desk.release(again.id);
    CHECK(one.open()->state == State::approved);
    CHECK(one.desk.stats().waiting == 2);
    CHECK(one.desk.stats().opened == 3);
}

TEST_CASE("a session that has gone withdraws its ticket, and is not told of it") {
    EVERY_HOME;
    Replica one(home.open());
    const Ticket ticket = one.open().value();
    one.desk.withdraw(ticket.id, "disconnected");
    CHECK(one.vote(ticket.id, bob()).error().problem == Problem::already_decided);
    CHECK(one.find(ticket.id, alice())->ended_by == "disconnected");
    CHECK(one.decided.all().empty());
    CHECK(one.kinds(2) == std::vector{Kind::opened, Kind::withdrawn});
}

TEST_CASE("a requester withdraws their ticket in another session, and the one that waits is told") {
    EVERY_HOME;
    Replica one(home.open());
    const Ticket ticket = one.open().value();
    CHECK(one.withdraw(ticket.id, bob()).error().problem == Problem::not_allowed);
    CHECK(one.withdraw(ticket.id, alice())->state == State::withdrawn);
    CHECK(one.decided.wait_for(1)[0].state == State::withdrawn);
}

TEST_CASE("tickets expire by themselves, and whoever waits is told") {
    EVERY_HOME;
    Replica one(home.open());
    const Ticket pending = one.open().value();
    Request request = request_of_alice("b2");
    request.terms.ttl = 10min;
    const Ticket approved = one.open(request).value();
    one.vote(approved.id, bob()).value();
    one.decided.wait_for(1);
    one.pass(10min);
    CHECK(one.kinds(4) == std::vector{Kind::opened, Kind::opened, Kind::decided, Kind::expired});
    CHECK_FALSE(one.desk.may_be_approved("alice", "shop"));
    one.pass(20min);
    const auto decided = one.decided.wait_for(2);
    REQUIRE(decided.size() == 2);
    CHECK(decided[1].id == pending.id);
    CHECK(decided[1].state == State::expired);
    CHECK(decided[1].ended == pending.expires);
    CHECK(one.desk.stats().expired == 2);
}

TEST_CASE("an approval at the instant of expiry comes too late") {
    EVERY_HOME;
    Replica one(home.open());
    const Ticket ticket = one.open().value();
    one.pass(30min - 1us);
    CHECK(one.vote(ticket.id, bob())->state == State::approved);
    one.pass(1us);
    CHECK(one.claim(claim_of(ticket, true)).error().problem == Problem::already_decided);
    CHECK(one.kinds(3) == std::vector{Kind::opened, Kind::decided, Kind::expired});
}

TEST_CASE("tickets of an earlier run are there again, and expire") {
    EVERY_HOME;
    std::string pending, approved;
    {
        Replica earlier(home.open());
        pending = earlier.open().value().id;
        approved = earlier.open(request_of_alice("b2")).value().id;
        earlier.vote(approved, bob()).value();
    }
    Replica one(home.open());
    CHECK(one.desk.may_be_approved("alice", "shop"));
    CHECK(one.happened.all().empty());
    CHECK(one.open_tickets(alice()).size() == 2);
    one.pass(1min);
    CHECK(one.vote(pending, bob())->state == State::approved);
    const Ticket ticket = one.find(pending, alice()).value();
    CHECK(one.claim(claim_of(ticket, false)).value()->id == pending);
    one.pass(30min);
    CHECK(one.kinds(3) == std::vector{Kind::decided, Kind::used, Kind::expired});
    CHECK_FALSE(one.desk.may_be_approved("alice", "shop"));
}

TEST_CASE("a ticket that is held at one replica is decided at another") {
    EVERY_HOME;
    Replica one(home.open(), "one");
    Replica two(home.open(), "two");
    const Ticket ticket = one.open().value();
    CHECK(two.vote(ticket.id, bob(), true, "fine")->state == State::approved);
    const auto decided = one.decided.wait_for(1);
    REQUIRE(decided.size() == 1);
    CHECK(decided[0].comment == "fine");
    CHECK(comes_true([&] { return one.desk.may_be_approved("alice", "shop"); }));
    CHECK(one.claim(claim_of(ticket, true)).value());
    CHECK(comes_true([&] { return !two.desk.may_be_approved("alice", "shop"); }));
    one.desk.finish(ticket.id, "UPDATE 5");
    // Both tell everything once.
    const std::vector<Kind> all{Kind::opened, Kind::decided, Kind::used, Kind::finished};
    CHECK(one.kinds(4) == all);
    CHECK(two.kinds(4) == all);
    CHECK(two.open(request_of_alice("b9"))->id == id_of(2));
    CHECK(one.kinds(5).size() == 5);
    CHECK(two.kinds(5).size() == 5);
    CHECK(one.desk.stats().approved == 0);
    CHECK(two.desk.stats().approved == 1);
}

TEST_CASE("PostgreSQL tells a replica of what others did, without being asked") {
    Home home(HomeKind::postgres);
    Replica one(home.open(), "one", 100, 1h);
    Replica two(home.open(), "two", 100, 1h);
    const Ticket ticket = one.open().value();
    two.vote(ticket.id, bob()).value();
    CHECK(one.decided.wait_for(1).size() == 1);
    CHECK(one.claim(claim_of(ticket, true)).value());
    CHECK(two.kinds(3) == std::vector{Kind::opened, Kind::decided, Kind::used});
}

TEST_CASE("a replica that has died leaves its tickets usable") {
    EVERY_HOME;
    std::string id;
    {
        Replica one(home.open(), "one");
        id = one.open().value().id;
        // No release: it was killed.
    }
    Replica two(home.open(), "two");
    two.vote(id, bob()).value();
    const Ticket ticket = two.find(id, alice()).value();
    CHECK_FALSE(two.claim(claim_of(ticket, false)).value());
    two.pass(1min);
    CHECK(two.claim(claim_of(ticket, false)).value()->id == id);
}

TEST_CASE("a replica that was killed and comes back waits for none of its tickets any more") {
    EVERY_HOME;
    std::string id, of_another;
    {
        Replica one(home.open(), "one");
        Replica another(home.open(), "another");
        id = one.open().value().id;
        of_another = another.open(request_of_alice("b2")).value().id;
        another.vote(of_another, bob()).value();
    }
    Replica one(home.open(), "one");
    one.vote(id, bob()).value();
    CHECK(one.claim(claim_of(one.find(id, alice()).value(), false)).value()->id == id);
    // That one may be alive.
    CHECK_FALSE(one.claim(claim_of(one.find(of_another, alice()).value(), false)).value());
}

TEST_CASE("who takes over from a process of its name leaves that its tickets while it lives") {
    EVERY_HOME;
    auto earlier = std::make_unique<Replica>(home.open(), "one");
    const Ticket ticket = earlier->open().value();
    Replica later(home.open(), "one", 10'000, 20ms, false);
    later.vote(ticket.id, bob()).value();
    // It is held for the session that waits.
    CHECK_FALSE(later.claim(claim_of(ticket, false)).value());
    CHECK(earlier->decided.wait_for(1).size() == 1);
    CHECK(earlier->claim(claim_of(ticket, true)).value()->id == ticket.id);

    const Ticket second = earlier->open(request_of_alice("b2")).value();
    const Ticket own = later.open(request_of_alice("b3")).value();
    for (const Ticket& one : {second, own}) later.vote(one.id, bob()).value();
    earlier.reset();  // No release: it was killed.
    CHECK_FALSE(later.claim(claim_of(second, false)).value());
    later.desk.alone();
    CHECK(later.claim(claim_of(second, false)).value()->id == second.id);
    // Somebody waits for this one: not who asks here.
    CHECK(later.decided.wait_for(1).size() == 1);
    const Ticket third = later.open(request_of_alice("b4")).value();
    later.desk.alone();
    later.vote(third.id, bob()).value();
    CHECK(later.claim(claim_of(third, true)).value()->id == third.id);
}

TEST_CASE("what a session says late of a ticket that another replica has taken up is not heard") {
    EVERY_HOME;
    Replica one(home.open(), "one");
    Replica two(home.open(), "two");
    const Ticket ticket = one.open().value();
    two.pass(2min);
    CHECK(two.open()->id == ticket.id);
    one.desk.withdraw(ticket.id, "disconnected");
    one.desk.release(ticket.id);
    CHECK(one.find(ticket.id, alice())->state == State::pending);
    CHECK(two.find(ticket.id, alice())->waiting(start_time + 2min));
}

TEST_CASE("two replicas that see the same ticket expire tell it once each") {
    EVERY_HOME;
    Replica one(home.open(), "one");
    Replica two(home.open(), "two");
    one.open().value();
    two.kinds(1);
    one.pass(31min);
    two.pass(31min);
    const std::vector<Kind> all{Kind::opened, Kind::expired};
    CHECK(one.kinds(2) == all);
    CHECK(two.kinds(2) == all);
    // Later news would have come behind this.
    one.open(request_of_alice("b2")).value();
    CHECK(one.kinds(3).size() == 3);
    CHECK(two.kinds(3).size() == 3);
    CHECK(one.desk.stats().expired + two.desk.stats().expired == 1);
}

TEST_CASE("of all that happens each is the doing of exactly one replica") {
    EVERY_HOME;
    // They do not listen: what others did is first seen in the transactions of their own.
    Replica one(home.open(), "one", 100, 1h);
    Replica two(home.open(), "two", 100, 1h);
    const Ticket ticket = one.open(request_of_alice("b1", dba_decides(2))).value();
    two.vote(ticket.id, bob()).value();
    one.vote(ticket.id, carol()).value();
    two.withdraw(ticket.id, alice()).value();
    const std::string again = two.open(request_of_alice("b2")).value().id;
    one.vote(again, bob()).value();
    two.claim(claim_of(two.find(again, alice()).value(), true)).value();
    Request shattered = request_of_alice("b3");
    shattered.glass = true;
    one.open(shattered).value();
    CHECK(one.own_kinds() == std::vector{Kind::opened, Kind::decided, Kind::decided, Kind::glass});
    CHECK(two.own_kinds() == std::vector{Kind::voted, Kind::withdrawn, Kind::opened, Kind::used});
    CHECK(one.desk.stats().approved == 2);
    CHECK(two.desk.stats().approved == 0);
}

TEST_CASE("an expiry is one replica's doing, also where the one that opened the ticket is dead") {
    EVERY_HOME;
    std::string id;
    {
        Replica dead(home.open(), "dead");
        id = dead.open().value().id;
    }
    Replica one(home.open(), "one");
    Replica two(home.open(), "two");
    one.pass(31min);
    two.pass(31min);
    const auto expiries = [](const Replica& replica, bool own_only) {
        const auto all = replica.happened.all();
        return std::count_if(all.begin(), all.end(), [&](const Happened& h) {
            return h.kind == Kind::expired && (h.own || !own_only);
        });
    };
    CHECK(comes_true([&] { return expiries(one, false) == 1 && expiries(two, false) == 1; }));
    CHECK(expiries(one, true) + expiries(two, true) == 1);
    CHECK(one.desk.stats().expired + two.desk.stats().expired == 1);
}

TEST_CASE("of two replicas that claim the same approval one gets it") {
    EVERY_HOME;
    Replica one(home.open(), "one");
    Replica two(home.open(), "two");
    for (int round = 0; round < 20; ++round) {
        const Ticket ticket = one.open().value();
        one.desk.release(ticket.id);
        one.vote(ticket.id, bob()).value();
        auto other = std::async(std::launch::async,
                                [&] { return two.claim(claim_of(ticket, false)).value(); });
        const auto mine = one.claim(claim_of(ticket, false)).value();
        const auto theirs = other.get();
        CHECK(mine.has_value() != theirs.has_value());
    }
}

TEST_CASE("breaking the glass opens a used ticket, and shouts") {
    EVERY_HOME;
    Replica one(home.open());
    Request request = request_of_alice();
    request.glass = true;
    request.glass_reason = "the site is down";
    const Ticket ticket = one.open(request).value();
    CHECK(ticket.state == State::used);
    one.desk.finish(ticket.id, "UPDATE 5");
    const auto found = one.find(ticket.id, bob()).value();
    CHECK(found.request.glass_reason == "the site is down");
    CHECK(found.outcome == "UPDATE 5");
    CHECK(one.kinds(2) == std::vector{Kind::glass, Kind::finished});
    CHECK(one.desk.stats().glass == 1);
    CHECK(one.desk.stats().waiting == 0);
}

TEST_CASE("people see their own tickets and those that they may decide on") {
    EVERY_HOME;
    Replica one(home.open());
    const std::string mine = one.open(request_of(dave(), "b1")).value().id;
    const std::string other = one.open(request_of_alice("b2")).value().id;
    const std::string ended = one.open(request_of_alice("b3")).value().id;
    one.desk.withdraw(ended, "cancelled");
    const auto ids = [](const std::vector<Ticket>& tickets) {
        std::vector<std::string> list;
        for (const Ticket& ticket : tickets) list.push_back(ticket.id);
        return list;
    };
    CHECK(ids(one.open_tickets(bob())) == std::vector{mine, other});
    CHECK(ids(one.open_tickets(bob(), 1)) == std::vector{mine});
    CHECK(ids(one.open_tickets(dave())) == std::vector{mine});
    CHECK(ids(one.open_tickets(alice())) == std::vector{other});
    CHECK(one.open_tickets(person("eve", 105)).empty());
    CHECK(ids(one.history(alice())) == std::vector{ended});
    CHECK(ids(one.history(bob())) == std::vector{ended});
    CHECK(one.history(dave()).empty());
    CHECK(one.find(ended, bob()));
    CHECK(one.find(ended, dave()).error().problem == Problem::unknown_ticket);
    CHECK(one.find("Z99", bob()).error().problem == Problem::unknown_ticket);
    CHECK(one.find("\xff\n", bob()).error().text == "there is no such ticket");
    CHECK(one.find(ended, dave()).error().text == "there is no ticket " + ended);
}

TEST_CASE("what somebody may see is found among much that they may not") {
    Home home(HomeKind::postgres);  // quicker here
    Replica one(home.open());
    const std::string mine = one.open(request_of(dave(), "b1")).value().id;
    one.desk.withdraw(mine, "gone");
    for (int i = 0; i < 450; ++i) {
        const std::string id = one.open(request_of_alice("b2")).value().id;
        one.desk.withdraw(id, "gone");
    }
    CHECK(one.history(dave()).size() == 1);
    CHECK(one.history(bob(), 430).size() == 430);
    CHECK(one.history(bob(), 1000).size() == 451);
}

TEST_CASE("while the store fails everything is refused at once, and it recovers by itself") {
    EVERY_HOME;
    Replica one(home.open());
    const Ticket ticket = one.open().value();
    const Ticket gone = one.open(request_of_alice("b2")).value();
    home.sabotage();
    CHECK(one.vote(ticket.id, bob()).error().problem == Problem::store_failed);
    const auto began = std::chrono::steady_clock::now();
    for (int i = 0; i < 20; ++i)
        CHECK(one.open(request_of_alice("b3")).error().problem == Problem::store_failed);
    CHECK(one.claim(claim_of(ticket, true)).error().problem == Problem::store_failed);
    CHECK(std::chrono::steady_clock::now() - began < 20s);
    one.desk.withdraw(gone.id, "disconnected");
    REQUIRE_FALSE(one.notices.wait_for(1).empty());
    CHECK(one.notices.all()[0].find("refused until it works again") != std::string::npos);
    CHECK(one.desk.stats().store_failures > 0);
    home.mend();
    CHECK(comes_true([&] { return one.vote(ticket.id, bob()).has_value(); }));
    CHECK(one.decided.wait_for(1)[0].state == State::approved);
    CHECK(one.claim(claim_of(ticket, true)).value());
    // What nobody waited for was done too.
    CHECK(comes_true([&] {
        const auto found = one.find(gone.id, alice());
        return found && found->state == State::withdrawn;
    }));
}

TEST_CASE("what happened while the store was away is told afterwards") {
    Home home(HomeKind::postgres);
    Replica one(home.open(), "one");
    const Ticket ticket = one.open().value();
    home.sabotage();
    CHECK_FALSE(one.find(ticket.id, alice()));
    home.mend();
    // Maybe before the first replica is back.
    home.open()
        ->update(ticket.id,
                 [](const Ticket& t) { return voted(t, bob(), false, "no", start_time + 1s); })
        .value();
    const auto decided = one.decided.wait_for(1);
    REQUIRE(decided.size() == 1);
    CHECK(decided[0].state == State::denied);
    CHECK(one.kinds(2) == std::vector{Kind::opened, Kind::decided});
}

TEST_CASE("a ticket that was deleted by hand is let go of") {
    EVERY_HOME;
    // A store of which every row has gone is one from which they were deleted.
    struct Emptied final : Store {
        std::unique_ptr<Store> inner;
        std::atomic<bool>* empty = nullptr;
        Failure none() const { return {Problem::unknown_ticket, "there is none", ""}; }
        Result<Ticket> open(std::string_view b, const Make& m, const Take& t) override {
            return inner->open(b, m, t);
        }
        Result<Ticket> update(std::string_view id, const Change& change) override {
            if (*empty) return none();
            return inner->update(id, change);
        }
        Result<std::optional<Ticket>> claim(std::string_view b, const Take& t) override {
            return inner->claim(b, t);
        }
        Result<Ticket> find(std::string_view id) override { return inner->find(id); }
        Result<std::vector<Ticket>> open_tickets(std::size_t n, const Ticket* after) override {
            return inner->open_tickets(n, after);
        }
        Result<std::vector<Ticket>> ended(std::size_t n, const Ticket* after) override {
            return inner->ended(n, after);
        }
        Result<std::vector<Changed>> changed() override { return inner->changed(); }
        int descriptor() const override { return inner->descriptor(); }
        Result<void> check() override { return inner->check(); }
        std::string where() const override { return inner->where(); }
    };
    std::atomic<bool> empty{false};
    auto store = std::make_unique<Emptied>();
    store->inner = home.open();
    store->empty = &empty;
    Replica one(std::move(store));
    one.open().value();
    empty = true;
    one.pass(31min);
    const auto notices = one.notices.wait_for(1);
    REQUIRE_FALSE(notices.empty());
    CHECK(notices[0].find("vanished") != std::string::npos);
    CHECK(comes_true([&] { return one.desk.stats().waiting == 0; }));
}

TEST_CASE("a desk with too much to do refuses, and one that closes answers first") {
    Home home(HomeKind::sqlite);
    Heard<bool> answers;
    {
        Replica one(home.open(), "one", 10);
        // Its thread is held up here, so that what comes meanwhile has to wait.
        std::promise<void> go_on, reached;
        auto held_up = go_on.get_future().share();
        one.desk.find("B1", alice(), [&reached, held_up](const Result<Ticket>&) {
            reached.set_value();
            held_up.wait();
        });
        reached.get_future().wait();
        for (int i = 0; i < 50; ++i)
            one.desk.open(request_of_alice(),
                          [&](const Result<Ticket>& r) { answers.say(r.has_value()); }, {});
        go_on.set_value();
    }
    const auto all = answers.all();
    CHECK(all.size() == 50);
    const auto opened_count = std::count(all.begin(), all.end(), true);
    CHECK(opened_count == 10);
}

TEST_CASE("a desk whose store fails at its closing comes to its end") {
    Home home(HomeKind::sqlite);
    Heard<bool> answers;
    {
        Replica one(home.open());
        home.sabotage();
        for (int i = 0; i < 50; ++i)
            one.desk.open(request_of_alice(),
                          [&](const Result<Ticket>& r) { answers.say(r.has_value()); }, {});
    }
    home.mend();
    CHECK(answers.all() == std::vector<bool>(50, false));
}
