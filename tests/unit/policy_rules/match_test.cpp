#include "policies.h"

#include "policy/rule_presets.h"

using namespace pgchaperone::policy;
using namespace pgchaperone::policy::testing;

TEST_CASE("the table of conditions stands in the order of its enumeration") {
    std::size_t i = 0;
    for (const ConditionType& type : condition_types()) {
        CHECK(static_cast<std::size_t>(type.kind) == i++);
        CHECK(&condition_type(type.kind) == &type);
    }
}

TEST_CASE("every condition's example can be loaded") {
    for (const ConditionType& type : condition_types()) {
        INFO(type.key);
        const Policy p = policy(one_rule("{ " + std::string(type.example) + " }"));
        REQUIRE(p.rules.size() == 1);
        REQUIRE(p.rules[0].match.children.size() == 1);
        CHECK(p.rules[0].match.children[0].kind == type.kind);
    }
}

TEST_CASE("a restricting rule applies where a part of the statement matches") {
    const Scene mixed = select_with_delete({"", "", "orders"});
    CHECK(mixed.decides("{ command: DELETE }"));
    CHECK(mixed.decides("{ class: WRITE }"));
    CHECK(mixed.decides("{ command: SELECT }"));
}

TEST_CASE("an allowing rule applies only where all of the statement matches") {
    const Scene mixed = select_with_delete({"", "", "orders"});
    CHECK_FALSE(mixed.decides("{ command: SELECT }", "allow"));
    CHECK_FALSE(mixed.decides("{ class: READ }", "allow"));
    CHECK(mixed.decides("{ command: [SELECT, DELETE] }", "allow"));
    CHECK(select_from({}).decides("{ class: READ }", "allow"));
}

TEST_CASE("allowing a write allows the reading that it needs") {
    Scene insert = select_from({{"", "", "source"}});
    insert.facts.command = "INSERT";
    insert.facts.commands = {"INSERT", "SELECT"};
    insert.facts.classes = {StatementClass::write, StatementClass::read};
    CHECK(insert.decides("{ class: WRITE }", "allow"));
    CHECK(insert.decides("{ command: INSERT }", "allow"));
    CHECK_FALSE(insert.decides("{ command: SELECT }", "allow"));
}

TEST_CASE("another word for the same command is not another command") {
    Scene truncate = delete_from({"", "", "t"});
    truncate.facts.command = "TRUNCATE TABLE";
    truncate.facts.commands = {"TRUNCATE TABLE", "TRUNCATE"};
    CHECK(truncate.decides("{ command: TRUNCATE }", "allow"));
    CHECK(truncate.decides("{ command: TRUNCATE TABLE }", "allow"));
    CHECK(truncate.decides("{ command: TRUNCATE }"));
    CHECK_FALSE(truncate.decides("{ command: DELETE }"));
}

TEST_CASE("allowing some relations does not allow a statement that touches others too") {
    Scene scene = delete_from({"", "scratch", "t"});
    CHECK(scene.decides("{ relation: \"scratch.*\" }", "allow"));
    scene.facts.read = {{"", "public", "orders"}};
    CHECK_FALSE(scene.decides("{ relation: \"scratch.*\" }", "allow"));
    CHECK(scene.decides("{ not: { relation: \"scratch.*\" } }"));
    CHECK(scene.decides("{ writes: \"scratch.*\" }", "allow"));
    CHECK(scene.decides("{ reads: public.orders }"));
}

TEST_CASE("a name whose schema is open is restricted and not allowed") {
    Scene scene = delete_from({"", "", "orders"});
    CHECK(scene.decides("{ relation: public.orders }"));
    CHECK_FALSE(scene.decides("{ relation: public.orders }", "allow"));
    CHECK(scene.outcome(policy(one_rule("{ relation: public.orders }"))).depends_on_moment());
    scene.moment.search_path = std::vector<std::string>{"$user"};
    scene.session.user = "public";
    CHECK(scene.decides("{ relation: public.orders }", "allow"));
    scene.session.user = "anna";
    CHECK_FALSE(scene.decides("{ relation: public.orders }"));
    CHECK_FALSE(scene.outcome(policy(one_rule("{ relation: orders }"))).depends_on_moment());
}

TEST_CASE("conditions on the session, alone and together") {
    Scene scene = delete_from({"", "", "t"});
    scene.session.user = "dba_anna";
    scene.session.database = "shop";
    scene.session.application_name = "DBeaver 23";
    scene.session.tls = true;
    scene.session.client = *parse_client_address("10.1.2.3");
    CHECK(scene.decides("{ user: [clerk, \"dba_*\"] }"));
    CHECK_FALSE(scene.decides("{ user: [clerk] }"));
    CHECK(scene.decides(
        "{ database: shop, application_name: \"DBeaver*\", tls: true, client: 10.0.0.0/8 }"));
    CHECK_FALSE(scene.decides("{ database: shop, tls: false }"));
    CHECK(scene.decides("{ not: { user: clerk } }"));
    CHECK_FALSE(scene.decides("{ not: { user: \"dba_*\", database: shop } }"));
    CHECK(scene.decides("{ not: { user: \"dba_*\", database: other } }"));
    CHECK(scene.decides("{ any: [ { user: clerk }, { tls: true } ] }"));
    CHECK_FALSE(scene.decides("{ any: [ { user: clerk }, { tls: false } ] }"));
    CHECK(scene.decides("{ all: [ { user: \"dba_*\" }, { user: \"*_anna\" } ] }"));
}

TEST_CASE("conditions on the moment make the decision depend on it") {
    Scene scene = delete_from({"", "", "t"});
    scene.moment.now = *parse_time("2026-11-21T12:00");
    const Policy p = policy(one_rule("{ time: { outside: \"Mon-Fri\" } }"));
    CHECK(scene.decides(p));
    CHECK(scene.outcome(p).depends_on_moment());
    scene.moment.now = *parse_time("2026-11-20T12:00");
    CHECK_FALSE(scene.decides(p));
    CHECK(scene.outcome(p).depends_on_moment());
    CHECK_FALSE(scene.decides("{ in_transaction: true }"));
    scene.moment.in_transaction = true;
    CHECK(scene.decides("{ in_transaction: true }"));
    // A condition that already fails by the statement itself is never asked about the moment.
    CHECK_FALSE(scene.outcome(policy(one_rule("{ time: { inside: \"Mon\" }, command: INSERT }")))
                    .depends_on_moment());
}

TEST_CASE("of what could not be read nothing is known, and only what holds anyhow applies") {
    Scene scene;
    scene.facts.unparsable = {true, "syntax error"};
    scene.session.user = "clerk";
    scene.text = "DROP TABEL x";
    for (const char* match :
         {"{ command: \"DROP *\" }", "{ not: { command: SELECT } }", "{ class: READ }",
          "{ opaque: true }", "{ opaque: false }", "{ relation: \"*\" }"}) {
        INFO(match);
        CHECK_FALSE(scene.decides(match));
        CHECK_FALSE(scene.decides(match, "allow"));
        CHECK(scene.outcome(policy(one_rule(match))).rule == Outcome::unparsable);
    }
    CHECK(scene.decides("{ unparsable: true }", "allow"));
    CHECK(scene.decides("{ user: clerk }", "allow"));
    CHECK(scene.decides("{ text: \"(?i)drop\" }"));
    CHECK_FALSE(scene.decides("{ unparsable: false }"));
}

TEST_CASE("the first rule that applies decides, and without one the default does") {
    const Policy p = policy(
        "rules: [ { name: a, match: { user: x }, action: block }, "
        "{ name: b, match: { command: DELETE }, action: allow }, { name: c, action: block } ]");
    Scene scene = delete_from({"", "", "t"});
    CHECK(scene.outcome(p).rule == 1);
    scene.session.user = "x";
    CHECK(scene.outcome(p).rule == 0);
    CHECK(select_from({}).outcome(policy("{ default: block }")).rule == Outcome::by_default);
}

TEST_CASE("an observed rule is noted and changes nothing") {
    const Policy p = policy(
        "rules: [ { name: a, match: { command: DELETE }, action: block, mode: observe }, "
        "{ name: b, match: { user: x }, action: block } ]");
    Scene scene = delete_from({"", "", "t"});
    CHECK(scene.outcome(p).rule == Outcome::by_default);
    CHECK(scene.outcome(p).observed == 0);
    scene.session.user = "x";
    CHECK(scene.outcome(p).rule == 1);
}

TEST_CASE("what a session does to its own tables is no harm, to others' it is") {
    Scene scene = delete_from({"", "", "mine"});
    scene.facts.unbounded = {true, "has no WHERE"};
    CHECK(scene.decides("{ unbounded: true }"));
    scene.moment.own_tables = {{"", "", "mine"}};
    CHECK_FALSE(scene.decides("{ unbounded: true }"));
    scene.facts.written.push_back({"", "", "theirs"});
    CHECK(scene.decides("{ unbounded: true }"));
    scene.facts.written = {{"", "public", "mine"}};
    CHECK(scene.decides("{ unbounded: true }"));
    scene.facts.written.clear();
    CHECK(scene.decides("{ unbounded: true }"));
}

TEST_CASE("an explanation agrees with the evaluation, and names what kept a rule from applying") {
    const Policy p = policy(
        "rules: [ { name: a, match: { user: x, class: WRITE }, action: block }, "
        "{ name: b, match: { class: READ }, action: allow }, "
        "{ name: c, match: { any: [ { class: WRITE }, { opaque: true } ] }, action: hold }, "
        "{ name: d, action: block } ]");
    const Scene scene = select_with_delete({"", "", "orders"});
    const auto traces = explain(p, {scene.facts, scene.text, scene.session, scene.moment});
    REQUIRE(traces.size() == 4);
    CHECK_FALSE(traces[0].applies);
    CHECK_THAT(traces[0].because, Catch::Matchers::ContainsSubstring("user: x"));
    CHECK_FALSE(traces[1].applies);
    CHECK_THAT(traces[1].because,
               Catch::Matchers::ContainsSubstring("an allowing rule needs all of it"));
    CHECK(traces[2].applies);
    CHECK(traces[2].reached);
    CHECK(traces[3].applies);
    CHECK_FALSE(traces[3].reached);
    CHECK(scene.outcome(p).rule == 2);
}
