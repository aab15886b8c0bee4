// Which server a client comes to.
#include "proxy/net/guarded.h"
#include "support/catch.h"

using namespace pgchaperone;
using namespace pgchaperone::net;

namespace {

std::unique_ptr<Guarded> guarded(std::size_t index, std::string name,
                                 std::vector<std::string> databases) {
    UpstreamOptions options;
    options.name = std::move(name);
    for (const std::string& one : databases) options.databases.emplace_back(one);
    options.changeable.environment = options.name + "!";
    return std::make_unique<Guarded>(index, std::move(options),
                                     std::make_shared<policy::RuleBook>(policy::Policy{}),
                                     policy::Capabilities{});
}

}  // namespace

TEST_CASE("the first server of a listener that has the database is the one") {
    std::vector<std::unique_ptr<Guarded>> all;
    all.push_back(guarded(0, "", {"*"}));
    all.push_back(guarded(1, "billing", {"billing", "bill_?"}));
    all.push_back(guarded(2, "bills", {"bill*"}));
    ListenerOptions options;
    options.upstreams = {1, 2, 0};
    const Listener listener(options, all);
    CHECK(listener.find("billing")->name() == "billing");
    CHECK(listener.find("bill_1")->name() == "billing");
    CHECK(listener.find("bill_12")->name() == "bills");
    CHECK(listener.find("Billing")->name() == "");
    CHECK(&listener.last() == all[0].get());

    options.upstreams = {1};
    const Listener alone(options, all);
    CHECK(alone.find("shop") == nullptr);
    CHECK(alone.find("") == nullptr);
}

TEST_CASE("a session is told what holds at its server as it comes") {
    const auto billing = guarded(1, "billing", {"*"});
    CHECK(billing->for_session().name == "billing");
    CHECK(billing->for_session().environment == "billing!");
    Changeable changed;
    changed.environment = "LIVE";
    changed.idle.outside = std::chrono::seconds(3);
    billing->change(changed);
    CHECK(billing->for_session().environment == "LIVE");
    CHECK(billing->for_session().idle.outside == std::chrono::seconds(3));
    CHECK(billing->for_session().users == nullptr);
}
