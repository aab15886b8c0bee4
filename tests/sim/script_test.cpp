// Scripts in which something was once wrong, written by hand: each is played under every policy, in
// many kinds of weather, and everything must hold.

#include "sim/simulation.h"

#include "protocol/codec.h"
#include "support/catch.h"

#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>

using namespace pgchaperone;
using namespace pgchaperone::sim;

namespace {

template <class Message>
Step send(const Message& message, std::vector<Statement> statements = {}) {
    Step step;
    step.bytes = protocol::encoded(message);
    step.statements = std::move(statements);
    return step;
}

Step step_of(Step::Kind kind) {
    Step step;
    step.kind = kind;
    return step;
}

Script query(std::string_view sql) { return {send(protocol::Query{sql}, parse_sql(sql))}; }

// Parse, Bind, Execute of the unnamed statement and portal.
Script group(std::string_view sql, int max_rows = 0) {
    return {send(protocol::Parse{"", sql, {}}), send(protocol::Bind{"", "", {}, {}, {}}),
            send(protocol::Execute{"", max_rows}, parse_sql(sql))};
}

Script execute_unknown_portal() {
    return {send(protocol::Execute{"nowhere", 0}, parse_sql("select 1"))};
}

const Script sync_ = {send(protocol::Sync{})};
const Script flush_ = {send(protocol::Flush{})};
const Script wait_ = {step_of(Step::Kind::wait)};
const Script wait_copy_ = {step_of(Step::Kind::wait_copy)};
const Script copy_fail_ = {send(protocol::CopyFail{"changed my mind"})};
const Script copy_done_ = {send(protocol::CopyDone{})};
const Script cancel_ = {step_of(Step::Kind::cancel)};

// Data that count only where the COPY began, as clients send them that wait for it.
Script copy_rows(int first, int last, bool if_it_began = true) {
    std::string data;
    for (int id = first; id <= last; ++id) data += std::to_string(id) + "\n";
    Script script = {send(protocol::CopyData{data})};
    script.front().only_while_copying = if_it_began;
    return script;
}
Script if_it_began(Script script) {
    for (Step& step : script) step.only_while_copying = true;
    return script;
}

Script one_after_the_other(std::initializer_list<Script> parts) {
    Script script;
    for (const Script& part : parts) script.insert(script.end(), part.begin(), part.end());
    return script;
}

// Plays a script to its end by Terminate and, cut off anywhere, by a client that goes away.
void play(std::initializer_list<Script> parts) {
    static std::map<std::size_t, std::unique_ptr<policy::Engine>> engines;
    for (std::size_t policy = 0; policy < policy_cases().size(); ++policy) {
        auto& engine = engines[policy];
        if (!engine) engine = engine_for(policy_cases()[policy]);
        for (std::uint64_t seed = 1; seed <= 32; ++seed) {
            Plan plan = make_plan(seed);
            plan.policy = policy;
            plan.script = one_after_the_other(parts);
            const bool leaves = seed % 4 == 0;
            if (leaves) {
                test::Random random(seed);
                plan.script.resize(1 + random.below(plan.script.size()));
            }
            plan.script.push_back(step_of(!leaves         ? Step::Kind::terminate
                                          : seed % 8 == 0 ? Step::Kind::vanish
                                                          : Step::Kind::half_close));
            if (run(plan, *engine).violation.empty()) continue;
            // The same again, with the lines that take time to keep.
            const Result result = run(plan, *engine, 60);
            std::string trace;
            for (const std::string& line : result.trace) trace += line + "\n";
            FAIL_CHECK(to_text(plan) << trace << "seed " << seed << ": " << result.violation);
            return;
        }
    }
}

}  // namespace

TEST_CASE("a COPY with libpq's early Sync is counted") {
    play({group("copy t3 (id) from stdin"), sync_, wait_copy_, copy_rows(1000, 1030),
          if_it_began(copy_done_), sync_});
    play({group("copy t3 (id) from stdin"), sync_, wait_copy_, copy_rows(1000, 1001),
          if_it_began(copy_done_), sync_, query("select 1")});
}

TEST_CASE("a COPY that the client gives up ends, and what follows it goes on") {
    play({group("copy t3 (id) from stdin"), copy_rows(1000, 1001, false), copy_fail_, sync_, wait_,
          query("select 1")});
    play({group("copy t3 (id) from stdin"), sync_, wait_copy_, copy_rows(1000, 1001),
          if_it_began(copy_fail_), sync_, execute_unknown_portal(), sync_, wait_});
    play({query("copy t3 (id) from stdin; update t1 set a = 1 where id <= 2"), wait_copy_,
          if_it_began(copy_fail_), query("select 1"), wait_});
}

TEST_CASE("a COPY that is cancelled ends") {
    play({query("copy t3 (id) from stdin"), wait_copy_, copy_rows(1000, 1003), cancel_, cancel_,
          cancel_, if_it_began(copy_done_), wait_, query("select 1"), wait_});
}

TEST_CASE("a block that has failed is ended by its COMMIT in either protocol") {
    play({group("begin"), group("select purge(2)"), group("fetch 3 from c"), sync_, group("end"),
          sync_, wait_});
    play({query("begin"), query("select purge(2)"), group("release a"), sync_,
          group("commit and chain"), sync_, query("rollback"), wait_});
    play({group("begin"), sync_, query("update t1 set a = 1 where id <= 1"), group("release a"),
          sync_, group("rollback"), sync_, wait_});
}

TEST_CASE("a deferred constraint fails the COMMIT and nothing else") {
    play({query("begin"), query("insert into /* breaks */ t3 select generate_series(1, 2)"),
          query("commit"), wait_, query("select 1")});
    play({query("begin"), query("insert into /* breaks */ t3 select generate_series(1, 2)"),
          query("update /* heals */ t1 set a = 1 where id <= 1"), query("commit"), wait_});
    play({group("begin"), sync_,
          query("insert into /* breaks */ t1 select generate_series(1000, 1000) returning id"),
          group("commit and chain"), sync_, wait_, query("rollback")});
    play({group("insert into /* breaks */ t3 select generate_series(1, 2)"), sync_, wait_});
}

TEST_CASE("a block that was begun without a Sync is the client's") {
    play({group("begin"), query("delete from t1 where id <= 1"), wait_, query("rollback")});
    play({group("begin"), group("delete from t1 where id <= 1"), query("rollback"), wait_});
}

TEST_CASE("what a failed block's end begins is counted") {
    for (const char* const end : {"prepare transaction 'g'", "commit", "rollback",
                                  "commit and chain", "rollback and chain"}) {
        play({query("begin"), query("select 1 / 0"), wait_, group(end),
              group("insert into t3 select generate_series(1, 25)"), group("commit")});
        play({query("begin"), query("select 1 / 0"), wait_, group(end),
              group("insert into t3 select generate_series(1, 25)"), group("select 1"), sync_});
    }
    play({query("begin"), query("select 1 / 0; rollback; select purge(25)"), wait_});
}

TEST_CASE("a transaction's end in the middle of a string is followed by a new one that counts") {
    play({query("insert into t1 select generate_series(1009, 1011); commit; select purge(20)")});
    play(
        {query("update t1 set a = 7 where id <= 0; truncate t1; rollback; rollback;"
               "insert into t3 select generate_series(1, 30)")});
    play({query("begin; select purge(3); commit; select purge(3); rollback; select purge(9)")});
}

TEST_CASE("what was read of one transaction is no baseline for another") {
    play({query("prepare q as delete from t1 where id <= 30"), group("execute q"), sync_,
          group("execute q"), sync_, group("execute q"), sync_});
    play({group("update /* breaks */ t1 set a = 1 where id <= 3"), sync_,
          group("update t1 set a = 1 where id <= 3"), sync_, wait_});
    play({query("begin"), query("select purge(3)"), query("rollback"), wait_,
          query("select purge(3)"), wait_});
}

TEST_CASE("what a FETCH or SET CONSTRAINTS sets off is counted") {
    play({query("begin"), query("declare c cursor for select purge(30)"), query("fetch 3 from c"),
          query("with d as (delete from t1 where id <= 1 returning id) select 1"),
          query("commit")});
    play({group("begin"), group("declare c cursor for select purge(30)"), group("fetch 1 from c"),
          group("do $$ begin perform purge(1); end $$"), group("commit"), sync_, wait_});
    play({query("begin"), query("update /* later 30 */ t1 set a = 1 where id <= 1"),
          query("set constraints all immediate"), query("commit"), wait_});
    play({query("begin"), group("update /* later 30 */ t1 set a = 1 where id <= 1"), sync_,
          group("set constraints all immediate"), group("commit"), sync_, wait_});
}

TEST_CASE("what was refused stays refused behind a savepoint") {
    play({query("begin"), query("declare c cursor for select purge(30)"), query("fetch 3 from c"),
          query("savepoint a"), query("truncate t2"), query("rollback to savepoint a"),
          query("commit"), wait_});
    play({query("begin"), query("update /* later 30 */ t1 set a = 1 where id <= 1"),
          query("savepoint a"), query("set constraints all immediate"), query("select purge(1)"),
          query("rollback to savepoint a"), query("commit"), wait_});
    play({query("begin"), query("savepoint a"), query("select purge(30)"),
          query("rollback to savepoint a"), query("update t1 set a = 1 where id <= 1"),
          query("commit"), wait_});
    play({group("begin"), group("select purge(30)"), group("savepoint a"), sync_,
          group("rollback to savepoint a"), sync_, group("commit"), sync_, wait_});
    play({query("begin"), group("select purge(30)"), group("savepoint a"), sync_,
          query("rollback to savepoint a"), query("commit"), wait_});
}

TEST_CASE("an unnamed portal that is bound again while the last Bind fails is known") {
    play({group("begin"), group("release a"), sync_, group("set constraints all immediate"), sync_,
          group("prepare transaction 'g'"), sync_, group("rollback prepared 'g'"), sync_, wait_});
}

TEST_CASE("what only the effects show is counted, whichever way it is sent") {
    for (const char* const sql :
         {"select purge(30)", "do $$ begin perform purge(30); end $$", "select make_function()",
          "select wipe()", "delete from /* cascade */ t1 where id <= 8",
          "update /* later 30 */ t1 set a = 1 where id <= 1", "delete from t1 returning id",
          "with d as (delete from t1 returning id) select 1", "call sweep(30)",
          "explain analyze delete from t1 where id <= 30"}) {
        const std::string text(sql);
        play({query(text)});
        play({query("select 1; " + text + "; select 1")});
        play({group(text), sync_});
        play({group("select 1"), group(text), group("select 1"), sync_});
        play({query("begin"), query(text), query("commit")});
        play({query("begin"), query("savepoint a"), query(text), query("rollback to savepoint a"),
              query("commit"), wait_});
        play({group("begin"), group(text), group("commit"), sync_});
        play({query("begin"), query(text), query("prepare transaction 'g'"), wait_});
        play(
            {query("begin"), query(text), query("commit and chain"), query(text), query("commit")});
        play({group(text, 2), flush_, sync_});
        play({cancel_, query(text), cancel_, query(text), cancel_});
    }
}

TEST_CASE("what begins or ends a transaction behind a DO in its group meets no block of ours") {
    for (const char* const sql : {"do $$ begin perform purge(1); end $$",
                                  "do /* later 30 */ $$ begin perform purge(1); end $$"}) {
        for (const char* const verb :
             {"begin", "commit", "rollback", "commit and chain", "rollback and chain",
              "savepoint a", "release a", "rollback to savepoint a", "prepare transaction 'g'"}) {
            play({group(sql), group(verb),
                  group("insert into /* later 30 */ t1 select "
                        "generate_series(1001, 1001)"),
                  sync_, wait_, query("rollback"), query("rollback prepared 'g'")});
            play({group(sql), query(verb), wait_, query("rollback")});
        }
        play({group(sql), group("commit"), group("call sweep(30)"), sync_});
        play({group(sql), group("rollback"), group("call sweep(30)"), sync_});
        play({group(sql), query("select 1"), group(sql), sync_});
        play({cancel_, group(sql), cancel_, group("rollback"), cancel_, sync_, cancel_});
        play({cancel_, group(sql), cancel_, query("begin"), cancel_, query("commit"), cancel_});
    }
}

TEST_CASE("a failed block that goes on from a savepoint is one again before its Sync") {
    for (const char* const sql :
         {"select purge(30)", "delete from t1", "do $$ begin perform purge(30); end $$"}) {
        const Script failed = query("begin; savepoint a; release b");
        play({failed, group("rollback to savepoint a"), group(sql), group("commit"), sync_});
        play({failed, group("rollback to savepoint a"), query(sql), query("commit")});
        play({failed, group("rollback to savepoint b"), group(sql), sync_, query("rollback")});
    }
}

TEST_CASE("a block that fails while its next group is on its way says so once") {
    play({query("begin"), query("release a"), group("delete from /* later 1 */ t1 where id <= 2"),
          sync_, wait_, query("rollback")});
    play({group("begin"), sync_, group("release a"), sync_,
          group("insert into t1 select generate_series(1009, 1012)"), sync_, query("select 1"),
          wait_});
}

TEST_CASE("a string stops at its first error, whatever went before it") {
    play({group("copy t3 (id) from stdin"), sync_, wait_copy_, copy_rows(0, 1),
          if_it_began(copy_done_), sync_,
          query("commit and chain; insert into t1 select generate_series(1001, 1002)"), wait_});
    play({group("select 1 / 0"), sync_,
          query("savepoint a; insert into t1 select generate_series(1001, 1002)"), wait_});
}

TEST_CASE("small steps add up") {
    for (const char* const end : {"commit", "rollback", "prepare transaction 'g'"}) {
        play({query("begin"), query("update t1 set a = 1 where id <= 7"),
              query("update t1 set a = 2 where id <= 7"), query("select purge(4)"), query(end),
              wait_});
    }
    play({group("update t1 set a = 1 where id <= 9"), group("update t1 set a = 2 where id <= 9"),
          group("update t1 set a = 3 where id <= 9"), sync_});
}
