// The simulator's checks can fail: for each of them something is broken on purpose, and must be
// found. And the model server behaves as PostgreSQL does where the checks rely on it.

#include "sim/dialogue.h"
#include "sim/model_server.h"
#include "sim/simulation.h"

#include "protocol/codec.h"
#include "protocol/head.h"
#include "support/catch.h"

#include <map>
#include <memory>
#include <string>

using namespace pgchaperone;
using namespace pgchaperone::sim;

namespace {

policy::Engine& engine_of(std::size_t policy) {
    static std::map<std::size_t, std::unique_ptr<policy::Engine>> engines;
    auto& engine = engines[policy];
    if (!engine) engine = engine_for(policy_cases().at(policy));
    return *engine;
}

std::size_t policy_named(std::string_view name) {
    const auto& cases = policy_cases();
    for (std::size_t i = 0; i < cases.size(); ++i) {
        if (cases[i].name == name) return i;
    }
    FAIL("no policy named " << name);
    return 0;
}

// The words of the first violation that a sabotage causes within some seeds; empty: none.
std::string found_by(Sabotage sabotage, std::string_view policy, std::string_view words) {
    std::string others;
    for (std::uint64_t seed = 1; seed <= 200; ++seed) {
        Plan plan = make_plan(seed);
        plan.policy = policy_named(policy);
        plan.sabotage = sabotage;
        if (sabotage == Sabotage::hurry_cancel) {
            plan.weather.time_limits = true;
            plan.weather.direct_cancels = false;
        }
        const Result result = run(plan, engine_of(plan.policy));
        if (result.violation.find(words) != std::string::npos) return result.violation;
        if (!result.violation.empty()) others = result.violation;
    }
    return others;
}

// A client directly at a model server.
class Directly {
public:
    Directly() : server(database, 1, {}) {
        protocol::StartupMessage startup;
        startup.parameters = {{"user", "clerk"}};
        say(protocol::encoded(startup));
    }
    // The tags of the replies.
    std::string say(const std::string& bytes) {
        server.receive(bytes);
        while (server.can_step()) {
            server.step();
            taken += std::exchange(server.output, {});
        }
        last = std::exchange(taken, {});
        std::string tags;
        for (std::string_view rest = last; rest.size() >= protocol::head_size;) {
            const auto head = protocol::read_head(rest, protocol::Side::backend);
            REQUIRE(head.has_value());
            tags += head->tag;
            rest.remove_prefix(head->total());
        }
        return tags;
    }
    std::string query(const std::string& sql) {
        return say(protocol::encoded(protocol::Query{sql}));
    }
    std::string group(const std::string& sql, int max_rows = 0) {
        return protocol::encoded(protocol::Parse{"", sql, {}}) +
               protocol::encoded(protocol::Bind{"", "", {}, {}, {}}) +
               protocol::encoded(protocol::Execute{"", max_rows});
    }
    bool said(std::string_view words) const { return last.find(words) != std::string::npos; }
    std::size_t rows(int table) const {
        return database.committed[static_cast<std::size_t>(table)].size();
    }

    ModelDatabase database;
    ModelServer server;
    std::string taken;
    std::string last;
};

const std::string sync_message = protocol::encoded(protocol::Sync{});
const std::string flush_message = protocol::encoded(protocol::Flush{});

}  // namespace

TEST_CASE("a blocked statement that runs is found") {
    CHECK_THAT(found_by(Sabotage::allow_blocked, "block by text", "blocked statement ran"),
               Catch::Matchers::ContainsSubstring("a blocked statement ran"));
}

TEST_CASE("a text that nobody judged is found") {
    CHECK_THAT(found_by(Sabotage::skip_judge, "allow everything", "not allowed"),
               Catch::Matchers::ContainsSubstring("that was not allowed: select 2"));
}

TEST_CASE("a commit beyond the limits is found") {
    // Judged as plainly allowed, nothing is supervised.
    CHECK_THAT(found_by(Sabotage::allow_blocked, "supervise, total effects", "forbids"),
               Catch::Matchers::ContainsSubstring("that the policy forbids was committed"));
    CHECK_THAT(found_by(Sabotage::counters_lie, "supervise, total effects", "forbids"),
               Catch::Matchers::ContainsSubstring("that the policy forbids was committed"));
}

TEST_CASE("a ReadyForQuery too few or too many is found") {
    CHECK_THAT(found_by(Sabotage::swallow_ready, "allow everything", "hang"),
               Catch::Matchers::ContainsSubstring("a hang"));
    CHECK_THAT(found_by(Sabotage::double_ready, "allow everything", "'Z' although"),
               Catch::Matchers::ContainsSubstring("'Z' although nothing is owed"));
}

TEST_CASE("a session that does not go on is found") {
    CHECK_THAT(found_by(Sabotage::lose_verdict, "allow everything", "hang"),
               Catch::Matchers::ContainsSubstring("a hang"));
}

TEST_CASE("a transaction that is left open is found") {
    CHECK_THAT(found_by(Sabotage::keep_server_open, "allow everything", "left open"),
               Catch::Matchers::ContainsSubstring("a transaction is left open"));
}

TEST_CASE("a wrong transaction status is found") {
    CHECK_THAT(found_by(Sabotage::wrong_status, "allow everything", "is due"),
               Catch::Matchers::ContainsSubstring("with transaction status"));
}

TEST_CASE("a reply that differs from the one without a guard is found") {
    CHECK_THAT(found_by(Sabotage::change_tag, "allow everything", "without a guard"),
               Catch::Matchers::ContainsSubstring("without a guard"));
}

TEST_CASE("a cancel that is believed to be over too early hits what comes next, and is found") {
    CHECK_THAT(
        found_by(Sabotage::hurry_cancel, "allow everything", "a cancel for a time limit hit"),
        Catch::Matchers::ContainsSubstring("hit what has none"));
}

TEST_CASE("a client whose bytes are hoarded is found") {
    CHECK_THAT(found_by(Sabotage::hoard, "allow everything", "keeps more"),
               Catch::Matchers::ContainsSubstring("keeps more of a client's bytes"));
}

TEST_CASE("an approval that nobody has given, or that was used before, is found") {
    CHECK_THAT(found_by(Sabotage::claim_unapproved, "hold", "not enough people"),
               Catch::Matchers::ContainsSubstring("not enough people have approved it"));
    CHECK_THAT(found_by(Sabotage::claim_twice, "hold", "used twice"),
               Catch::Matchers::ContainsSubstring("was used twice"));
}

TEST_CASE("a held statement that runs without its ticket is found") {
    // Judged as plainly allowed, nothing waits.
    CHECK_THAT(found_by(Sabotage::allow_blocked, "hold", "without an approval"),
               Catch::Matchers::ContainsSubstring("a held statement ran without an approval"));
}

TEST_CASE("a trial that is not taken back is found") {
    CHECK_THAT(found_by(Sabotage::keep_trials, "hold, with a trial", "a trial was committed"),
               Catch::Matchers::ContainsSubstring("a trial was committed"));
}

TEST_CASE("an approved run that does more than was counted is found") {
    CHECK_THAT(found_by(Sabotage::counters_lie, "hold, with a trial", "more was committed"),
               Catch::Matchers::ContainsSubstring("more was committed than was approved of"));
}

TEST_CASE("a ticket that is left waiting, or whose approval comes to nothing, is found") {
    CHECK_THAT(found_by(Sabotage::forget_release, "hold", "nobody waits"),
               Catch::Matchers::ContainsSubstring("nobody waits for ticket"));
    CHECK_THAT(found_by(Sabotage::forget_decision, "hold", "for nothing"),
               Catch::Matchers::ContainsSubstring("was approved while its session waited"));
}

TEST_CASE("the same plan gives the same run, and chance from elsewhere shows") {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        Plan plan = make_plan(seed);
        const std::uint64_t digest = run(plan, engine_of(plan.policy)).digest;
        CHECK(run(plan, engine_of(plan.policy)).digest == digest);
        plan.sabotage = Sabotage::chance;
        const Result first = run(plan, engine_of(plan.policy));
        if (first.steps > 20) CHECK(run(plan, engine_of(plan.policy)).digest != first.digest);
    }
}

TEST_CASE("a failing script is made smaller and still fails") {
    for (std::uint64_t seed = 1; seed <= 200; ++seed) {
        Plan plan = make_plan(seed);
        plan.policy = policy_named("allow everything");
        plan.sabotage = Sabotage::change_tag;
        if (plan.script.size() < 20 || run(plan, engine_of(plan.policy)).violation.empty()) {
            continue;
        }
        const Plan smaller = shrink(plan, [](const Plan& candidate) {
            return run(candidate, engine_of(candidate.policy)).violation;
        });
        CHECK(smaller.script.size() < plan.script.size());
        CHECK_FALSE(run(smaller, engine_of(plan.policy)).violation.empty());
        return;
    }
    FAIL("no long script failed");
}

TEST_CASE("several statements in one string are one transaction") {
    Directly client;
    CHECK(client.query("delete from t1 where id <= 5; select 1 / 0; select 1") == "CEZ");
    CHECK(client.rows(0) == 40);
    CHECK(client.query("delete from t1 where id <= 5; begin; select 1 / 0") == "CCEZ");
    CHECK(client.last.back() == 'E');
    CHECK(client.query("rollback") == "CZ");
    CHECK(client.rows(0) == 40);
    CHECK(client.query("delete from t1 where id <= 5; commit; select 1 / 0") == "CNCEZ");
    CHECK(client.rows(0) == 35);
}

TEST_CASE("a pipeline is one transaction up to its Sync, and an error skips to there") {
    Directly client;
    CHECK(client.say(client.group("delete from t1 where id <= 5") + client.group("select 1 / 0") +
                     client.group("select 1") + sync_message) == "12C1EZ");
    CHECK(client.rows(0) == 40);
    CHECK(client.say(client.group("delete from t1 where id <= 5") + flush_message) == "12C");
    CHECK(client.rows(0) == 40);
    CHECK(client.say(sync_message) == "Z");
    CHECK(client.rows(0) == 35);
}

TEST_CASE("a deferred constraint fails in the place of CommandComplete, or at Sync") {
    Directly client;
    CHECK(client.query("delete from /* breaks */ t1 where id <= 5") == "EZ");
    CHECK(client.said("23503"));
    CHECK(client.say(client.group("delete from /* breaks */ t1 where id <= 5") + sync_message) ==
          "12CEZ");
    client.query("begin");
    CHECK(client.query("delete from /* breaks */ t1 where id <= 5") == "CZ");
    CHECK(client.query("commit") == "EZ");
    CHECK(client.last.back() == 'I');
    CHECK(client.rows(0) == 40);
}

TEST_CASE(
    "the counters keep what a savepoint took back, and a deferred trigger shows when it fires") {
    Directly client;
    CountsByTable counted{};
    client.database.on_end = [&](const CountsByTable& counts, bool) { counted = counts; };
    std::vector<Effect> committed;
    client.database.on_commit = [&](const std::vector<Effect>& effects) { committed = effects; };
    client.query("begin");
    client.query("savepoint a");
    client.query("delete from t1 where id <= 5");
    client.query("rollback to savepoint a");
    client.query("update /* later 7 */ t1 set a = 1 where id <= 2");
    client.query("commit");
    CHECK(counted[0].deleted == 5);
    CHECK(counted[0].updated == 2);
    CHECK(counted[1].deleted == 7);
    REQUIRE(committed.size() == 2);
    CHECK(committed[0].tagged.updated == 2);
    CHECK(committed[1].deferred);
}

TEST_CASE("a portal is suspended at its limit, and a COPY reads no Sync") {
    Directly client;
    const std::string more = protocol::encoded(protocol::Execute{"", 3});
    CHECK(client.say(client.group("select id from t1 limit 4", 3) + more + sync_message) ==
          "12DDDsDCZ");
    CHECK(client.say(client.group("copy t3 (id) from stdin") + sync_message) == "12G");
    CHECK(client.say(protocol::encoded(protocol::CopyData{"1\n2\n"}) +
                     protocol::encoded(protocol::CopyDone{}) + sync_message) == "CZ");
    CHECK(client.rows(2) == 2);
    CHECK(client.query("copy t3 (id) from stdin") == "G");
    CHECK(client.say(protocol::encoded(protocol::CopyFail{"no"})) == "EZ");
    CHECK(client.say(protocol::encoded(protocol::CopyDone{})) == "");
}

TEST_CASE("a cancel hits what runs, and nothing where nothing does") {
    Directly client;
    client.server.cancel();
    CHECK(client.query("select 1") == "TDCZ");
    // What comes between two messages is forgotten, although the second is there already.
    client.server.receive(protocol::encoded(protocol::Sync{}));
    client.server.cancel();
    CHECK(client.query("select 1") == "ZTDCZ");
    client.server.receive(protocol::encoded(protocol::Query{"copy t3 (id) from stdin"}));
    while (client.server.can_step()) client.server.step();
    client.server.cancel();
    while (client.server.can_step()) client.server.step();
    CHECK(client.server.output.find("57014") != std::string::npos);
    CHECK(client.server.status() == 'I');
}
