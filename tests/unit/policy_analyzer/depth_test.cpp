// Texts that other readers of SQL die of.

#include "policy/deep_text.h"

#include "analyze.h"

#include <sys/resource.h>
#include <thread>
#include <vector>

namespace pgchaperone::policy {

namespace {

std::string repeated(std::string_view text, std::size_t times) {
    std::string out;
    out.reserve(text.size() * times);
    for (std::size_t i = 0; i < times; ++i) {
        out += text;
    }
    return out;
}

}  // namespace

TEST_CASE("no nesting ends the process, and what is too deep is unparsable") {
    for (const std::string& sql : {
             "SELECT " + repeated("1+", 64'000) + "1",
             "SELECT " + repeated("(", 100'000) + "1" + repeated(")", 100'000),
             "SELECT 1" + repeated("::int", 60'000),
             "SELECT 1" + repeated(" IS NULL", 60'000),
             "SELECT " + repeated("NOT ", 60'000) + "true",
             "SELECT " + repeated("- ", 60'000) + "1",
             "SELECT " + repeated("(SELECT ", 9'000) + "1" + repeated(")", 9'000),
             "SELECT * FROM a " + repeated("CROSS JOIN b ", 60'000),
             "SELECT 1, 2 " + repeated("UNION SELECT 1, 2 ", 60'000),
             "SELECT " + repeated("CASE WHEN t.end AND b THEN 1 END + ", 60'000) + "1",
             "SELECT " + repeated("f(a, b AND c) + ", 60'000) + "1",
             "SELECT a" + repeated(" BETWEEN 1 AND 2 IS NULL", 60'000),
         }) {
        INFO(sql.substr(0, 60));
        CHECK(facts_of(sql).unparsable.set);
    }
}

TEST_CASE("long texts that are not deep are read") {
    for (const std::string& sql : {
             "SELECT " + repeated("1+", 3'000) + "1",
             "DELETE FROM t WHERE id = 1" + repeated(" OR id = 2", 20'000),
             "DELETE FROM t WHERE id = 1" + repeated(" AND 1 = 1", 20'000),
             "DELETE FROM t WHERE id IN (" + repeated("1,", 100'000) + "1)",
             "INSERT INTO t VALUES " + repeated("(1, 'a b c', -1.5),", 50'000) + "(1, '', 0)",
             "SELECT " + repeated("'a' || ", 2'000) + "'b'",
             "SELECT 1 " + repeated("UNION ALL SELECT 1 ", 4'000),
             "SELECT " + repeated("CASE WHEN a AND b OR c THEN 1 ELSE 2 END, ", 5'000) + "1",
         }) {
        INFO(sql.substr(0, 60));
        const StatementFacts facts = facts_of(sql);
        CHECK_FALSE(facts.unparsable.set);
        CHECK_FALSE(facts.unbounded.set);
    }
    CHECK(facts_of("DELETE FROM t WHERE 1 = 1" + repeated(" OR id = 2", 20'000)).unbounded.set);
}

TEST_CASE("conditions are judged as deep as the parser goes") {
    for (const std::size_t depth : {300U, 900U, 1'900U}) {
        for (const std::string& condition : {
                 "id % 10 = " + repeated("abs(", depth) + "id" + repeated(")", depth),
                 "id % 10 = " + repeated("coalesce(", depth) + "id" + repeated(", 1)", depth),
                 "id % 10 = " + repeated("CASE WHEN a THEN ", depth) + "id" +
                     repeated(" END", depth),
                 "id % 10 = " + repeated("(SELECT ", depth) + "id" + repeated(")", depth),
                 "id % 10 = 1 OR id" + repeated(" BETWEEN 1 AND 2 IS NULL", depth),
                 "ARRAY[1] @> " + repeated("ARRAY[", depth) + "id" + repeated("]", depth),
                 repeated("NOT ", depth) + "(id % 10 = 1)",
             }) {
            INFO(depth << ": " << condition.substr(0, 60));
            const StatementFacts facts = facts_of("DELETE FROM t WHERE " + condition);
            CHECK((facts.unparsable.set || facts.command == "DELETE"));
        }
    }
}

TEST_CASE("bodies that are nested too deeply are opaque") {
    CHECK(facts_of("DO $$ BEGIN PERFORM " + repeated("1+", 64'000) + "1; END $$").opaque.set);
    CHECK(facts_of("DO $$ BEGIN " + repeated("IF a THEN ", 60'000) + " NULL; " +
                   repeated("END IF; ", 60'000) + "END $$")
              .opaque.set);
    CHECK(facts_of("DO $$ " + repeated("BEGIN ", 60'000) + repeated("END; ", 60'000) + "$$")
              .opaque.set);
    CHECK(facts_of("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT " +
                   repeated("1+", 64'000) + "1 $$")
              .opaque.set);
}

TEST_CASE("a text larger than the limit is unparsable and is not kept") {
    const Analyzer small(AnalyzerLimits{100});
    const std::string sql = "SELECT " + repeated("1,", 100) + "1";
    const AnalysisPtr analysis = small.analyze(sql, {});
    REQUIRE(analysis->statements.size() == 1);
    CHECK(analysis->statements[0].unparsable.set);
    CHECK(analysis->statements[0].length == sql.size());
    CHECK(analysis->text.empty());
}

TEST_CASE("the bound for the depth is never too low") {
    // Each has more than 1000 levels in its tree.
    for (const std::string& sql : {
             "SELECT " + repeated("1+", 1'000) + "1",
             "SELECT " + repeated("(", 500) + repeated("1+", 500) + "1" + repeated(")", 500),
             "SELECT " + repeated("(1+", 1'000) + "1" + repeated(")", 1'000),
             "SELECT " + repeated("(", 1'000) + "1" + repeated("+1)", 1'000),
             "SELECT " + repeated("(a AND ", 1'000) + "b" + repeated(")", 1'000),
             "SELECT " + repeated("f(1, ", 1'000) + "1" + repeated(")", 1'000),
             "SELECT " + repeated("CASE WHEN a OR b THEN ", 1'000) + "1" + repeated(" END", 1'000),
             "SELECT " + repeated("CASE WHEN t.end AND b THEN 1 END + ", 1'000) + "1",
             "SELECT 1, 2 " + repeated("UNION SELECT 1, 2 ", 1'000),
             "SELECT * FROM a " + repeated("JOIN b ON a.x = b.x AND a.y = b.y ", 1'000),
             "SELECT a" + repeated(" COLLATE \"C\"", 1'000),
             "SELECT a" + repeated("::int", 1'000),
             "SELECT a" + repeated(" AT TIME ZONE 'x'", 1'000),
         }) {
        INFO(sql.substr(0, 60));
        CHECK(nesting_bound(sql, false) >= 1'000);
    }
    CHECK(nesting_bound("INSERT INTO t VALUES " + repeated("(1, -2, 'a+b'),", 10'000) + "(1)",
                        false) < 100);
    CHECK(nesting_bound("DELETE FROM t WHERE a = 1" + repeated(" OR a = 2", 10'000), false) < 100);
}

TEST_CASE("a thread with a small stack reads deep texts too") {
    const std::string sql = "SELECT " + repeated("1+", 4'000) + "1";
    bool good = false;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 512 * 1024);
    struct Work {
        const std::string* sql;
        bool* good;
    } work{&sql, &good};
    pthread_t thread;
    const auto run = [](void* argument) -> void* {
        const auto* given = static_cast<Work*>(argument);
        *given->good = !analyze(*given->sql)->statements.at(0).unparsable.set;
        return nullptr;
    };
    REQUIRE(pthread_create(&thread, &attributes, run, &work) == 0);
    pthread_join(thread, nullptr);
    pthread_attr_destroy(&attributes);
    CHECK(good);
}

TEST_CASE("threads may share an analyzer") {
    const Analyzer analyzer;
    std::vector<std::thread> threads;
    std::vector<int> wrong(4);
    for (std::size_t i = 0; i < wrong.size(); ++i) {
        threads.emplace_back([&, i] {
            for (int n = 0; n < 300; ++n) {
                const bool unbounded = n % 2 == 0;
                const AnalysisPtr analysis = analyzer.analyze(
                    unbounded ? "DELETE FROM t" : "DELETE FROM t WHERE id = 1", {});
                wrong[i] += analysis->statements.at(0).unbounded.set != unbounded;
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(wrong == std::vector<int>(4));
}

TEST_CASE("memory does not grow with the number of texts") {
    const std::string sql = "INSERT INTO t VALUES " + repeated("(1, 'abc'),", 20'000) + "(1, 'x')";
    const auto most_kilobytes = [] {
        rusage usage{};
        getrusage(RUSAGE_SELF, &usage);
        return usage.ru_maxrss;
    };
    for (int i = 0; i < 3; ++i) {
        analyze(sql);
    }
    const long before = most_kilobytes();
    for (int i = 0; i < 30; ++i) {
        analyze(sql);
        analyze("SELECT (");
        analyze("DO $$ BEGIN SELECT ( ; END $$");
    }
    CHECK(most_kilobytes() - before < 20'000);
}

}  // namespace pgchaperone::policy
