// What guards say to each other of which one takes over from the other.

#include "proxy/net/predecessors.h"
#include "support/catch.h"

#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

using namespace pgchaperone::net;
using namespace std::chrono_literals;

namespace {

// The later guard, and the other ends of its links.
struct House {
    explicit House(std::size_t earlier) {
        std::vector<std::unique_ptr<Link>> links;
        for (std::size_t i = 0; i < earlier; ++i) {
            const auto [one, other] = Link::pair();
            links.push_back(std::make_unique<Link>(one));
            ends.push_back(std::make_unique<Link>(other));
        }
        Predecessors::Callbacks callbacks;
        callbacks.yours = [this] { note("yours"); };
        callbacks.reload = [this] { note("reload"); };
        callbacks.none_left = [this] { note("none left"); };
        predecessors = std::make_unique<Predecessors>(std::move(links), std::move(callbacks));
    }
    void note(std::string what) {
        const std::lock_guard lock(mutex);
        noted.push_back(std::move(what));
        more.notify_all();
    }
    std::vector<std::string> wait_for(std::size_t count) {
        std::unique_lock lock(mutex);
        more.wait_for(lock, 20s, [&] { return noted.size() >= count; });
        return noted;
    }
    void ask(const std::string& key) {
        predecessors->ask(key, [this](bool taken) { note(taken ? "taken" : "not taken"); });
    }
    // What an earlier guard hears next.
    Link::Message heard(std::size_t which) {
        for (int i = 0; i < 2000; ++i) {
            if (auto message = ends[which]->hear()) return *message;
            ends[which]->wait(10ms);
        }
        throw std::runtime_error("nothing was said");
    }
    void answer(std::size_t which, Link::Message question, bool yes) {
        REQUIRE(question.saying == Saying::cancel);
        const auto number = Link::take_number(question.body).value();
        ends[which]->say(Saying::answer, Link::numbered(number, yes ? "1" : "0"));
    }

    std::mutex mutex;
    std::condition_variable more;
    std::vector<std::string> noted;
    std::vector<std::unique_ptr<Link>> ends;
    std::unique_ptr<Predecessors> predecessors;
};

using Noted = std::vector<std::string>;

}  // namespace

TEST_CASE("messages come whole and in order, and an end is known") {
    const auto [one, other] = Link::pair();
    auto left = std::make_unique<Link>(one);
    Link right(other);
    CHECK_FALSE(right.hear());
    CHECK_FALSE(right.over());
    CHECK(left->say(Saying::serving));
    CHECK(left->say(Saying::cancel, Link::numbered(7, std::string("a\0b", 3))));
    left.reset();
    CHECK(right.hear()->saying == Saying::serving);
    auto second = right.hear().value();
    CHECK(Link::take_number(second.body) == 7);
    CHECK(second.body == std::string("a\0b", 3));
    CHECK_FALSE(right.hear());
    CHECK(right.over());
    CHECK_FALSE(right.say(Saying::drain));
    std::string short_one = "1234567";
    CHECK_FALSE(Link::take_number(short_one));
}

TEST_CASE("an end that nobody reads makes nobody wait") {
    const auto [one, other] = Link::pair();
    const Link left(one), right(other);
    bool full = false;
    for (int i = 0; i < 100'000 && !full; ++i) full = !left.say(Saying::reload, "x");
    CHECK(full);
}

TEST_CASE("the earlier guard is told that the later one serves, and says that it is alone") {
    House house(1);
    house.predecessors->say_serving();
    CHECK(house.heard(0).saying == Saying::serving);
    house.ends[0]->say(Saying::yours);
    CHECK(house.wait_for(1) == Noted{"yours"});
    CHECK(house.predecessors->left() == 1);
    CHECK_FALSE(house.predecessors->wait_until_gone(10ms));
    house.ends[0].reset();
    CHECK(house.wait_for(2) == Noted{"yours", "none left"});
    CHECK(house.predecessors->wait_until_gone(10s));
    CHECK(house.predecessors->left() == 0);
}

TEST_CASE("an earlier guard that goes without a word leaves everything to the later one") {
    House house(1);
    house.ends[0].reset();
    CHECK(house.wait_for(2) == Noted{"yours", "none left"});
    house.ask("key");
    CHECK(house.wait_for(3).back() == "not taken");
}

TEST_CASE("a cancel that nobody here knows is every earlier guard's until one says yes") {
    House house(2);
    // Before it is its own, only the one that it takes over from is asked.
    house.ask("first");
    house.answer(0, house.heard(0), false);
    CHECK(house.wait_for(1) == Noted{"not taken"});
    house.ends[0]->say(Saying::yours);
    house.wait_for(2);

    house.ask("second");
    const auto question = house.heard(0);
    CHECK(question.body.substr(8) == "second");
    house.answer(0, question, false);
    house.answer(1, house.heard(1), true);
    CHECK(house.wait_for(3).back() == "taken");

    house.ask("third");
    house.answer(1, house.heard(1), false);
    house.answer(0, house.heard(0), false);
    CHECK(house.wait_for(4).back() == "not taken");

    // One has gone, and the other does not answer.
    house.ends[1].reset();
    house.ask("fourth");
    CHECK(house.wait_for(5).back() == "not taken");
    // What comes too late, or is no answer to anything, does nothing.
    house.answer(0, house.heard(0), true);
    house.ends[0]->say(Saying::answer, "short");
    house.ends[0]->say(static_cast<Saying>('?'), "from another version");
    house.ask("fifth");
    house.answer(0, house.heard(0), true);
    CHECK(house.wait_for(6).back() == "taken");
}

TEST_CASE("what one is told all are told, but for who said it") {
    House house(2);
    house.ends[0]->say(Saying::yours);
    house.wait_for(1);
    house.ends[0]->say(Saying::reload);
    CHECK(house.wait_for(2).back() == "reload");
    CHECK(house.heard(1).saying == Saying::reload);
    CHECK_FALSE(house.ends[0]->hear());
    house.predecessors->tell(Saying::drain);
    CHECK(house.heard(0).saying == Saying::drain);
    CHECK(house.heard(1).saying == Saying::drain);
}

TEST_CASE("links that were handed on are somebody else's") {
    House house(1);
    house.ends[0]->say(Saying::yours);
    house.wait_for(1);
    CHECK(house.predecessors->begun());
    auto copies = house.predecessors->copies();
    REQUIRE(copies.size() == 1);
    house.predecessors->let_go();
    CHECK(house.predecessors->left() == 0);
    house.ask("key");
    CHECK(house.wait_for(2) == Noted{"yours", "not taken"});
    Link& next = *copies.front();
    CHECK(house.ends[0]->say(Saying::reload));
    next.wait(5s);
    CHECK(next.hear()->saying == Saying::reload);
    CHECK(house.noted.size() == 2);
}
