#include "policies.h"

#include "policy/rule_refusal.h"

using namespace pgchaperone::policy;
using namespace pgchaperone::policy::testing;
using Catch::Matchers::ContainsSubstring;

namespace {

Refusal refused(const Policy& p, const Scene& scene, Position position = {}) {
    return refusal(p, scene.outcome(p), {scene.facts, scene.text, scene.session, scene.moment},
                   position);
}

}  // namespace

TEST_CASE("a refusal names the rule, what would happen and the way forward") {
    Scene scene = delete_from({"", "public", "orders"});
    scene.facts.unbounded = {true, "has no WHERE"};
    const Refusal r = refused(
        policy(
            "rules: [ { name: no-unbounded-writes, match: { unbounded: true }, action: block } ]"),
        scene);
    CHECK(r.sqlstate == "42501");
    CHECK(r.message ==
          "pgchaperone: blocked by rule \"no-unbounded-writes\": DELETE on public.orders "
          "without a WHERE");
    CHECK(r.detail ==
          "Statement: DELETE FROM orders\n"
          "It has no WHERE and would touch every row of public.orders.");
    CHECK(r.reason == "it has no WHERE and would touch every row of public.orders");
    CHECK_THAT(r.hint, ContainsSubstring("Add a WHERE"));
    CHECK_THAT(r.hint, ContainsSubstring("Nothing was changed"));
}

TEST_CASE(
    "the message says in one line what it was, the detail why, and neither repeats the other") {
    const auto message = [](const Scene& scene, const std::string& match) {
        const Refusal r = refused(policy(one_rule(match)), scene);
        CHECK(r.message.find('\n') == std::string::npos);
        CHECK_THAT(r.detail, !ContainsSubstring("blocked by"));
        constexpr std::string_view head = "pgchaperone: blocked by rule \"r\": ";
        REQUIRE(r.message.starts_with(head));
        return r.message.substr(head.size());
    };
    Scene scene = delete_from({"", "hr", "pay"});
    CHECK(message(scene, "{ writes: hr.pay }") == "DELETE on hr.pay");
    CHECK(message(scene, "{ command: DELETE }") == "DELETE on hr.pay");
    CHECK(message(scene, "{ time: { outside: \"Mon 00:00-00:01\" } }") ==
          "DELETE on hr.pay at this time");
    scene.facts.unbounded = {true, "has a WHERE that every row meets"};
    CHECK(message(scene, "{ unbounded: true }") ==
          "DELETE on hr.pay without a WHERE that bounds it");
    scene.facts.command = "MERGE";
    CHECK(message(scene, "{ unbounded: true }") == "MERGE on hr.pay that can reach every row");
    scene.facts.command = "DROP TABLE";
    scene.facts.destructive = {true, "drops table hr.pay"};
    CHECK(message(scene, "{ destructive: true }") ==
          "DROP TABLE on hr.pay that takes away what can't be brought back");
    scene.facts.command = "SELECT";
    scene.facts.functions = {{"", "pg_sleep"}};
    CHECK(message(scene, "{ function: pg_sleep }") == "SELECT on hr.pay that calls pg_sleep()");
    scene.facts.command = "SET";
    scene.facts.settings = {"role"};
    const Refusal set = refused(policy(one_rule("{ setting: role }")), scene);
    CHECK_THAT(set.message, ContainsSubstring("of the setting role"));
    CHECK_THAT(set.detail, ContainsSubstring("It changes the setting role."));
    Scene none = select_from({});
    none.text = "SELECT 1";
    CHECK(message(none, "{ class: READ }") == "SELECT");
    const Refusal by_default = refused(policy("{ default: block, rules: [] }"), none);
    CHECK(by_default.message == "pgchaperone: blocked by the policy's default: SELECT");
    CHECK_THAT(by_default.detail, ContainsSubstring("No rule of the policy allows it."));
}

TEST_CASE("who drops a table by its bare name is told how a temporary one is named") {
    Scene scene = delete_from({"", "", "Tmp"});
    scene.facts.command = "DROP TABLE";
    scene.facts.commands = {"DROP TABLE"};
    scene.facts.destructive = {true, "drops table Tmp"};
    const Policy p = policy(one_rule("{ destructive: true }"));
    CHECK_THAT(refused(p, scene).hint, ContainsSubstring("pg_temp.\"Tmp\" can only be that"));
    scene.facts.written[0].schema = "public";
    CHECK_THAT(refused(p, scene).hint, !ContainsSubstring("pg_temp"));
}

TEST_CASE("in a text of several statements the detail says which one it was") {
    Scene scene = delete_from({"", "", "orders"});
    const Refusal r = refused(policy(one_rule("{ command: DELETE }")), scene, {2, 3});
    CHECK_THAT(r.detail, ContainsSubstring("Statement 2 of 3: DELETE FROM orders\n"));
}

TEST_CASE("a rule's own words replace the reason, with placeholders filled in") {
    Scene scene = delete_from({"", "", "Orders"});
    scene.session.user = "clerk";
    scene.session.database = "shop";
    scene.session.client.text = "10.0.0.1";
    const Refusal r = refused(policy("rules: [ { name: r, action: block, "
                                     "message: \"{user}@{database} from {client}: {command} on "
                                     "{relations} {not a placeholder}\", "
                                     "hint: \"ask about {rule}\" } ]"),
                              scene);
    CHECK(r.message ==
          "pgchaperone: blocked by rule \"r\": clerk@shop from 10.0.0.1: DELETE on "
          "\"Orders\" "
          "{not a placeholder}");
    CHECK(r.hint == "ask about r Nothing was changed.");
}

TEST_CASE("what can't be read is refused with the parser's reason") {
    Scene scene;
    scene.facts.unparsable = {true, "syntax error at or near \"TABEL\""};
    const Refusal r = refused(policy("{ rules: [] }"), scene);
    CHECK_THAT(r.message, ContainsSubstring("can't be read the way the server would read it"));
    CHECK_THAT(r.detail, ContainsSubstring("TABEL"));
}

TEST_CASE("the first words are one line of good text, cut at a word") {
    CHECK(first_words("  -- x\n SELECT   1\n  FROM t  ") == "SELECT 1 FROM t");
    CHECK(first_words("SELECT a, b, c FROM a_rather_long_table WHERE id = 1", 20) ==
          "SELECT a, b, c FROM ...");
    CHECK(first_words("SELECT '\xff\x01'") ==
          "SELECT '?"
          "?'");
    CHECK(first_words("SELECT 'ü'") == "SELECT 'ü'");
    CHECK(first_words("") == "");
    CHECK(first_words(std::string(100, 'x'), 10) == "xxxxxxxxxx ...");
}

TEST_CASE("the tail of a statement that was cut in two is recognised by its first word") {
    for (const char* tail : {"WHERE id = 42", "  where id=42;", "\n-- x\nAND a = 1",
                             "/* /* nested */ */ or true", "AND", "where(id=1)"}) {
        INFO(tail);
        CHECK(begins_like_a_cut_off_tail(tail));
    }
    for (const char* other : {"", "SELECT 1", "ORDER BY x", "wherever", "and_then", "\"where\"",
                              "-- WHERE", "/* WHERE"}) {
        INFO(other);
        CHECK_FALSE(begins_like_a_cut_off_tail(other));
    }
}

TEST_CASE("the refusal of a tail says what happened and what to look for") {
    const Refusal r = cut_off_refusal("  where id = 42;", "UPDATE", "no-unbounded-writes");
    CHECK_THAT(r.message, ContainsSubstring("the rest of the UPDATE"));
    CHECK_THAT(r.message, ContainsSubstring("before WHERE"));
    CHECK_THAT(r.detail, ContainsSubstring("where id = 42"));
    CHECK_THAT(r.hint, ContainsSubstring("blank line"));
}
