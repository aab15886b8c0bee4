#include "policies.h"

#include "policy/engine.h"

using namespace pgchaperone::policy;
using namespace pgchaperone::policy::testing;
using Catch::Matchers::ContainsSubstring;

namespace {

struct Fixture {
    explicit Fixture(const std::string& yaml, Capabilities can = {})
        : book(std::make_shared<RuleBook>(policy(yaml))), engine(book, can) {
        session.id = 1;
        session.user = "clerk";
    }
    Judgement judge(std::string_view sql) { return engine.judge(sql, lexical, session, moment); }

    std::shared_ptr<RuleBook> book;
    Engine engine;
    LexicalSettings lexical;
    SessionFacts session;
    Moment moment;
};

const char* const
    guard = "rules: [ { name: no-unbounded-writes, match: { unbounded: true }, action: block } ]";

}  // namespace

TEST_CASE("an allowed statement is plainly allowed, at the first time and from the cache") {
    Fixture f(guard);
    for (int i = 0; i < 3; ++i) {
        const Judgement j = f.judge("SELECT 1");
        CHECK(j.plainly_allowed());
        CHECK(j.analysis->statements.size() == 1);
        CHECK(j.policy_version == 1);
    }
    CHECK(f.engine.cache_size().texts == 1);
}

TEST_CASE(
    "a blocked statement is blocked, at the first time and from the cache, each statement by "
    "itself") {
    Fixture f(guard);
    for (int i = 0; i < 3; ++i) {
        const Judgement j = f.judge("SELECT 1; DELETE FROM orders");
        REQUIRE(j.decisions.size() == 2);
        CHECK(j.decisions[0].action == Action::allow);
        CHECK(j.decisions[1].action == Action::block);
        CHECK(j.decisions[1].rule == "no-unbounded-writes");
        CHECK_THAT(j.decisions[1].refusal.detail,
                   ContainsSubstring("Statement 2 of 2: DELETE FROM orders"));
        CHECK_FALSE(j.decisions[1].depends_on_moment);
    }
}

TEST_CASE("sessions that the policy tells apart are judged apart, with one cached analysis") {
    Fixture f("rules: [ { name: clerks, match: { user: clerk, class: WRITE }, action: block } ]");
    const char* sql = "DELETE FROM t WHERE id = 1";
    CHECK(f.judge(sql).decisions.size() == 1);
    SessionFacts other = f.session;
    other.id = 2;
    other.user = "anna";
    CHECK(f.engine.judge(sql, f.lexical, other, f.moment).plainly_allowed());
    CHECK(f.judge(sql).decisions.size() == 1);
    // The same session under a new name of its application, or another user with the same number of
    // session.
    other.revision = 1;
    other.user = "clerk";
    CHECK(f.engine.judge(sql, f.lexical, other, f.moment).decisions.size() == 1);
    CHECK(f.engine.cache_size().texts == 1);
}

TEST_CASE("a new policy holds for the next statement, cached or not") {
    Fixture f(guard);
    CHECK(f.judge("SELECT 1").plainly_allowed());
    CHECK(f.book->replace(policy("default: block")) == 2);
    const Judgement j = f.judge("SELECT 1");
    CHECK(j.policy_version == 2);
    REQUIRE(j.decisions.size() == 1);
    CHECK(j.decisions[0].action == Action::block);
    CHECK(j.decisions[0].rule.empty());
    CHECK(f.engine.policy_version() == 2);
}

TEST_CASE("what depends on the moment is judged anew each time") {
    Fixture f(
        "rules: [ { name: night, match: { class: WRITE, time: { inside: \"22:00-06:00\" } }, "
        "action: block } ]");
    const char* sql = "DELETE FROM t WHERE id = 1";
    f.moment.now = *parse_time("2026-11-20T12:00");
    const Judgement day = f.judge(sql);
    REQUIRE(day.decisions.size() == 1);
    CHECK(day.decisions[0].action == Action::allow);
    CHECK(day.decisions[0].depends_on_moment);
    f.moment.now = *parse_time("2026-11-20T23:00");
    CHECK(f.judge(sql).decisions.at(0).action == Action::block);
    f.moment.now = *parse_time("2026-11-20T21:59");  // a clock that was set back
    CHECK(f.judge(sql).decisions.at(0).action == Action::allow);
    CHECK(f.judge("SELECT 1").plainly_allowed());
    f.moment.now = *parse_time("2026-11-20T23:00");
    CHECK(f.engine.judge_again(day.analysis, f.session, f.moment).decisions.at(0).action ==
          Action::block);
}

TEST_CASE("what is remembered for one search_path or transaction state is not taken for another") {
    Fixture f(
        "rules: [ { name: a, match: { relation: \"archive.*\", in_transaction: false }, action: "
        "block } ]");
    const char* sql = "DELETE FROM orders WHERE id = 1";
    const auto action = [&] { return f.judge(sql).decisions.at(0).action; };
    for (int round = 0; round < 3; ++round) {
        f.moment.search_path.reset();
        f.moment.in_transaction = false;
        CHECK(action() == Action::block);
        f.moment.search_path = std::vector<std::string>{"public"};
        CHECK(action() == Action::allow);
        f.moment.search_path = std::vector<std::string>{"archive"};
        CHECK(action() == Action::block);
        f.moment.in_transaction = true;
        CHECK(action() == Action::allow);
    }
}

TEST_CASE("a session's own tables are judged apart from what is cached") {
    Fixture f(guard);
    CHECK(f.judge("DELETE FROM mine").decisions.size() == 1);
    f.moment.own_tables = {{"", "", "mine"}};
    CHECK(f.judge("DELETE FROM mine").decisions.at(0).action == Action::allow);
    f.moment.own_tables.clear();
    CHECK(f.judge("DELETE FROM mine").decisions.at(0).action == Action::block);
}

TEST_CASE("a text's own tables are its own, statement by statement") {
    const char* const yaml =
        "rules: [ { name: r, match: { any: [ { unbounded: true }, { destructive: true }, "
        "{ blocking: true } ] }, action: block } ]";
    Fixture f(yaml);
    // The number of the first statement that is blocked, from 1; 0: none is.
    const auto blocked = [&](std::string_view sql) {
        // The second time from the cache.
        std::vector<std::size_t> answers;
        for (int i = 0; i < 3; ++i) {
            const Judgement j = f.judge(sql);
            std::size_t at = 0;
            for (std::size_t n = j.decisions.size(); n > 0; --n)
                at = j.decisions[n - 1].action == Action::block ? n : at;
            answers.push_back(at);
        }
        INFO(sql);
        CHECK(std::adjacent_find(answers.begin(), answers.end(), std::not_equal_to<>()) ==
              answers.end());
        return answers.front();
    };
    CHECK(blocked("CREATE TEMP TABLE tt AS SELECT 1 a; TRUNCATE tt; DROP TABLE tt") == 0);
    CHECK(blocked("CREATE TABLE tt (a int); DELETE FROM tt; CREATE INDEX ON tt (a)") == 0);
    CHECK(blocked("CREATE TEMP TABLE a (x int); SELECT 1 AS x INTO TEMP b; DROP TABLE a; "
                  "UPDATE b SET x = 1; DROP TABLE b") == 0);
    CHECK(blocked("CREATE TEMP TABLE tt (a int); DROP TABLE tt; TRUNCATE tt") == 3);
    CHECK(blocked("CREATE TEMP TABLE tt (a int); DROP TABLE pg_temp.tt; TRUNCATE tt") == 3);
    CHECK(blocked("CREATE TEMP TABLE tt (a int); TRUNCATE public.tt") == 2);
    CHECK(blocked("CREATE TEMP TABLE tt (a int); TRUNCATE tt, orders") == 2);
    CHECK(blocked("CREATE TEMP TABLE IF NOT EXISTS tt (a int); TRUNCATE tt") == 2);
    CHECK(blocked("TRUNCATE tt; CREATE TEMP TABLE tt (a int)") == 1);
    CHECK(blocked("CREATE TEMP TABLE tt (a int) ON COMMIT DROP; COMMIT; TRUNCATE tt") == 3);
    CHECK(blocked("CREATE TEMP TABLE tt (a int); ROLLBACK; TRUNCATE tt") == 3);
    CHECK(blocked("CREATE TEMP TABLE tt (a int); SELECT unknown(); TRUNCATE tt") == 3);
    CHECK(blocked("CREATE TEMP TABLE tt (a int); ALTER TABLE tt RENAME TO t2; TRUNCATE tt") == 3);
    CHECK(blocked("SET search_path = public, pg_temp; CREATE TEMP TABLE tt (a int); TRUNCATE tt") ==
          3);
    CHECK(blocked("SELECT set_config('search_path', $1, true); CREATE TEMP TABLE tt (a int); "
                  "TRUNCATE tt") == 3);
    CHECK(blocked("CREATE TEMP VIEW tt AS SELECT * FROM orders; CREATE TABLE tt (a int); "
                  "DELETE FROM tt") == 3);
    CHECK(blocked("CREATE TEMP TABLE p (a int) PARTITION BY LIST (a); CREATE TEMP TABLE tt "
                  "PARTITION OF p DEFAULT; DROP TABLE p; TRUNCATE tt") == 4);
    // What the session did before counts too.
    const char* const scratch = "CREATE TABLE tt (a int); DELETE FROM tt";
    f.moment.name_doubts.names = {"tt"};
    CHECK(blocked(scratch) == 2);
    f.moment.name_doubts = {true, {}};
    CHECK(blocked(scratch) == 2);
    f.moment.name_doubts = {};
    CHECK(blocked(scratch) == 0);
    f.moment.own_tables = {{"", "", "mine"}};
    CHECK(blocked("TRUNCATE mine; DROP TABLE mine") == 0);
    CHECK(blocked("COMMIT; TRUNCATE mine") == 2);
}

TEST_CASE("what the host can't do yet becomes what is safe, in one place") {
    const char* yaml =
        "rules: [ { name: s, match: { command: UPDATE }, action: { supervise: { max_rows: 10 } } "
        "}, "
        "{ name: h, match: { command: DELETE }, action: hold } ]";
    Fixture poor(yaml);
    const Decision supervised = poor.judge("UPDATE t SET a = 1 WHERE id = 1").decisions.at(0);
    CHECK(supervised.action == Action::allow);
    CHECK(supervised.audit);
    CHECK(supervised.rule == "s");
    REQUIRE(supervised.supervise);
    CHECK(*supervised.supervise->max_rows == 10);
    const Decision held = poor.judge("DELETE FROM t WHERE id = 1").decisions.at(0);
    CHECK(held.action == Action::block);
    CHECK_THAT(held.refusal.detail, ContainsSubstring("nobody can be asked here"));
    Fixture rich(yaml, {true, true});
    CHECK(rich.judge("UPDATE t SET a = 1 WHERE id = 1").decisions.at(0).action ==
          Action::supervise);
    CHECK(rich.judge("DELETE FROM t WHERE id = 1").decisions.at(0).action == Action::hold);
}

TEST_CASE("under observe everything passes and is noted") {
    Fixture f(
        "{ mode: observe, rules: [ { name: r, match: { unbounded: true }, action: block } ] }");
    const Decision d = f.judge("DELETE FROM t").decisions.at(0);
    CHECK(d.observed);
    CHECK(d.action == Action::block);
    CHECK(d.rule == "r");
    Fixture one("rules: [ { name: r, match: { unbounded: true }, action: block, mode: observe } ]");
    CHECK(one.judge("DELETE FROM t").decisions.at(0).observed);
    CHECK(one.judge("SELECT 1").plainly_allowed());
}

TEST_CASE("an allowed statement that leaves a record is not plainly allowed") {
    Fixture f("rules: [ { name: r, match: { class: DDL }, action: allow, audit: true } ]");
    const Decision d = f.judge("CREATE TABLE t (a int)").decisions.at(0);
    CHECK(d.action == Action::allow);
    CHECK(d.audit);
    CHECK(d.rule == "r");
}

TEST_CASE("the cache stays within its bytes and keeps what is used") {
    Fixture f(guard);
    const std::string filler(20'000, 'x');
    for (int i = 0; i < 2'000; ++i) {
        f.judge("SELECT 1");
        for (int twice = 0; twice < 2; ++twice)
            f.judge("SELECT '" + filler + std::to_string(i) + "'");
    }
    CHECK(f.engine.cache_size().bytes <= Engine::cache_bytes);
    CHECK(f.engine.cache_size().texts > 100);
    const auto before = f.engine.cache_size().texts;
    f.judge("SELECT 1");
    CHECK(f.engine.cache_size().texts == before);
    // A text that is too long is judged and not kept.
    for (int twice = 0; twice < 2; ++twice)
        f.judge("SELECT '" + std::string(Engine::cached_text_bytes, 'y') + "'");
    CHECK(f.engine.cache_size().texts == before);
}

TEST_CASE("a text that comes once takes no room, and one that is run again by its analysis does") {
    Fixture f("rules: [ { name: r, match: { in_transaction: true }, action: block } ]");
    for (int i = 0; i < 100; ++i) f.judge("SELECT " + std::to_string(i));
    CHECK(f.engine.cache_size().texts == 0);
    const Judgement once = f.judge("SELECT 'prepared'");
    CHECK(f.engine.cache_size().texts == 0);
    for (const bool inside : {true, false, true}) {
        f.moment.in_transaction = inside;
        const Judgement again = f.engine.judge_again(once.analysis, f.session, f.moment);
        CHECK(again.analysis == once.analysis);
        CHECK((again.decisions.at(0).action == Action::block) == inside);
        CHECK(f.engine.cache_size().texts == 1);
    }
    // What is found by its analysis makes room like all others.
    const std::string filler(20'000, 'x');
    for (int i = 0; i < 2'000; ++i) {
        for (int twice = 0; twice < 2; ++twice)
            f.judge("SELECT '" + filler + std::to_string(i) + "'");
    }
    CHECK(f.engine.cache_size().bytes <= Engine::cache_bytes);
    CHECK(f.engine.judge_again(once.analysis, f.session, f.moment).decisions.size() == 1);
}

TEST_CASE("the same bytes under other lexical settings are another text") {
    Fixture f(guard);
    f.judge("SELECT 1");
    f.judge("SELECT 1");
    f.lexical.standard_conforming_strings = StandardConformingStrings::off;
    f.judge("SELECT 1");
    f.lexical.client_encoding = "LATIN1";
    f.judge("SELECT 1");
    CHECK(f.engine.cache_size().texts == 3);
}

TEST_CASE("fast-path calls are known for large objects and opaque for everything else") {
    Fixture f(
        "rules: [ { name: r, match: { command: FUNCTION CALL, opaque: true }, action: block } ]");
    CHECK(f.engine.judge_function_call(952, f.session, f.moment).plainly_allowed());
    const Judgement j = f.engine.judge_function_call(16384, f.session, f.moment);
    REQUIRE(j.decisions.size() == 1);
    CHECK(j.decisions[0].action == Action::block);
    CHECK(f.engine.judge_unknown_statement(f.session, f.moment).analysis->statements.at(0).opaque);
}

TEST_CASE("sessions beyond the table of known ones are still judged by their own facts") {
    Fixture f("rules: [ { name: r, match: { user: bad }, action: block } ]");
    for (std::uint64_t id = 1; id < 6'000; ++id) {
        SessionFacts s;
        s.id = id;
        s.user = id % 3 == 0 ? "bad" : "good";
        REQUIRE(f.engine.judge("SELECT 1", f.lexical, s, f.moment).plainly_allowed() ==
                (id % 3 != 0));
    }
}

TEST_CASE("what is for pgchaperone itself is answered, whatever rules and mode say") {
    for (const char* yaml :
         {"default: block", "{ mode: observe, default: block }", "default: allow",
          "rules: [ { name: all, match: { command: [SHOW, CALL] }, action: block } ]"}) {
        INFO(yaml);
        Fixture f(yaml);
        for (int i = 0; i < 3; ++i) {
            for (const char* sql : {"SHOW chaperone.pending", "CALL chaperone.approve('K7')",
                                    "SHOW chaperone.no_such_thing"}) {
                INFO(sql);
                const Judgement j = f.judge(sql);
                REQUIRE(j.decisions.size() == 1);
                CHECK(j.decisions[0].action == Action::answer);
                CHECK_FALSE(j.decisions[0].observed);
                const Judgement again = f.engine.judge_again(j.analysis, f.session, f.moment);
                REQUIRE(again.decisions.size() == 1);
                CHECK(again.decisions[0].action == Action::answer);
            }
        }
    }
}

TEST_CASE("what stands beside a statement for pgchaperone itself is judged as ever") {
    Fixture f(guard);
    const Judgement j = f.judge("SHOW chaperone.version; DELETE FROM orders; SELECT 1");
    REQUIRE(j.decisions.size() == 3);
    CHECK(j.decisions[0].action == Action::answer);
    CHECK(j.decisions[1].action == Action::block);
    CHECK(j.decisions[2].action == Action::allow);
}

TEST_CASE("an exception from a time limit needs all of the statement") {
    Fixture f(
        "rules:\n"
        "  - { name: reports, match: { reads: \"report.*\" }, statement_timeout: 0s }\n"
        "  - { name: all, statement_timeout: 1s }\n");
    const auto limit = [&f](const char* sql) {
        const Judgement judged = f.judge(sql);
        // None where nothing is to be done.
        return judged.decisions.empty() ? std::chrono::milliseconds(0)
                                        : judged.decisions[0].statement_timeout.after;
    };
    CHECK(limit("SELECT * FROM report.monthly") == std::chrono::seconds(0));
    CHECK(limit("SELECT * FROM report.monthly, report.daily") == std::chrono::seconds(0));
    CHECK(limit("SELECT * FROM orders, report.monthly") == std::chrono::seconds(1));
    CHECK(limit("SELECT * FROM orders") == std::chrono::seconds(1));
}

TEST_CASE("a rule without an action limits the time of what it matches, and the next one decides") {
    Fixture f(
        "rules:\n"
        "  - { name: batch, match: { user: batch }, statement_timeout: 0s }\n"
        "  - { name: people, statement_timeout: 30s, transaction_timeout: 5m }\n"
        "  - { name: reports, match: { class: READ }, action: allow, statement_timeout: 5s, "
        "transaction_timeout: 1m }\n"
        "  - { name: guard, match: { unbounded: true }, action: block }\n");
    for (int i = 0; i < 3; ++i) {
        const Judgement read = f.judge("SELECT 1");
        REQUIRE(read.decisions.size() == 1);
        CHECK(read.decisions[0].action == Action::allow);
        CHECK(read.decisions[0].rule == "reports");
        CHECK(read.decisions[0].statement_timeout.after == std::chrono::seconds(30));
        CHECK(read.decisions[0].statement_timeout.rule == "people");
        CHECK(read.decisions[0].transaction_timeout.after == std::chrono::minutes(5));
        const Judgement removed = f.judge("DELETE FROM orders");
        REQUIRE(removed.decisions.size() == 1);
        CHECK(removed.decisions[0].action == Action::block);
        CHECK(removed.decisions[0].rule == "guard");
    }
    f.session.user = "batch";
    f.session.id = 2;
    const Judgement batch = f.judge("SELECT 1");
    REQUIRE(batch.decisions.size() == 1);
    CHECK_FALSE(batch.decisions[0].statement_timeout);
    CHECK(batch.decisions[0].transaction_timeout);
}

TEST_CASE("what has no limit stays plainly allowed, and who only observes stops nothing") {
    Fixture exempt("rules: [ { name: none, statement_timeout: 0s } ]");
    CHECK(exempt.judge("SELECT 1").plainly_allowed());
    Fixture observing("mode: observe\nrules: [ { name: people, statement_timeout: 30s } ]");
    CHECK(observing.judge("SELECT 1").plainly_allowed());
    Fixture later(
        "rules:\n  - { name: reads, match: { class: READ }, action: allow }\n"
        "  - { name: people, statement_timeout: 30s }\n");
    CHECK(later.judge("SELECT 1").plainly_allowed());
    CHECK(later.judge("INSERT INTO t VALUES (1)").decisions.at(0).statement_timeout.rule ==
          "people");
}
