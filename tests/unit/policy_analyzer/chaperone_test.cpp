// Statements for pgchaperone itself.
#include "analyze.h"
#include "policy/chaperone_call.h"

using namespace pgchaperone::policy;

namespace {

// "SHOW pending", "CALL approve(K7, NULL)", "CALL deny($1, busy)"; "!" and what is wrong; "server".
std::string shown(const StatementFacts& facts) {
    if (!facts.chaperone) return "server";
    const ChaperoneCall& call = *facts.chaperone;
    if (!call.problem.empty()) return "! " + call.problem;
    if (!call.call) return "SHOW " + call.name;
    std::string out = "CALL " + call.name + "(";
    for (std::size_t i = 0; i < call.arguments.size(); ++i) {
        const ChaperoneCall::Argument& argument = call.arguments[i];
        out += i == 0 ? "" : ", ";
        out += argument.parameter > 0 ? "$" + std::to_string(argument.parameter)
                                      : argument.text.value_or("NULL");
    }
    return out + ")";
}

std::string shown(std::string_view sql) { return shown(facts_of(sql)); }

}  // namespace

TEST_CASE("what is for pgchaperone itself is told from what is for the server") {
    const std::pair<const char*, const char*> cases[] = {
        {"SHOW chaperone.pending", "SHOW pending"},
        {"show Chaperone.Pending", "SHOW pending"},
        {"SHOW chaperone.\"Pending\"", "SHOW pending"},
        {"SHOW chaperone . history /* and no more */ ;", "SHOW history"},
        {"SHOW chaperone.ticket_k7", "SHOW ticket_k7"},
        {"SHOW chaperone.TICKET_K7", "SHOW ticket_k7"},
        {"CALL chaperone.approve('K7')", "CALL approve(K7, NULL)"},
        {"CALL chaperone.approve('K7', 'checked with ops')", "CALL approve(K7, checked with ops)"},
        {"CALL chaperone.approve(ticket => 'K7')", "CALL approve(K7, NULL)"},
        {"CALL chaperone.approve(comment => 'ok', ticket := 'K7')", "CALL approve(K7, ok)"},
        {"CALL chaperone.approve('K7', comment => 'ok')", "CALL approve(K7, ok)"},
        {"CALL chaperone.deny($2, $1)", "CALL deny($2, $1)"},
        {"CALL chaperone.deny($1::text, 'no'::pg_catalog.varchar)", "CALL deny($1, no)"},
        {"CALL chaperone.withdraw(E'K\\x37', NULL)", "CALL withdraw(K7, NULL)"},
        {"CALL chaperone.explain('DELETE FROM orders')", "CALL explain(DELETE FROM orders)"},
        {"CALL chaperone.explain($$it's$$)", "CALL explain(it's)"},
        {"CALL chaperone.explain('')", "CALL explain()"},
        {"CALL chaperone.approve(0)", "CALL approve(0, NULL)"},
        {"CALL chaperone.reload()", "CALL reload()"},
        {"SHOW chaperone.reason", "server"},
        {"SHOW chaperone.\"REASON\"", "server"},
        {"SHOW chaperone", "server"},
        {"SHOW \"Chaperone\".pending", "server"},
        {"SHOW chaperones.pending", "server"},
        {"SHOW search_path", "server"},
        {"CALL \"Chaperone\".approve('K7')", "server"},
        {"CALL approve('K7')", "server"},
        {"CALL shop.chaperone.approve('K7')", "server"},
        {"SET chaperone.reason = 'night shift'", "server"},
        {"SELECT chaperone.approve('K7')", "server"},
        {"SELECT current_setting('chaperone.pending')", "server"},
        {"DO $$ BEGIN CALL chaperone.approve('K7'); END $$", "server"},
    };
    for (const auto& [sql, expected] : cases) {
        INFO(sql);
        CHECK(shown(sql) == expected);
    }
}

TEST_CASE("what nobody can answer says what is wrong with it") {
    const std::pair<const char*, const char*> cases[] = {
        {"SHOW chaperone.penidng", "there is no chaperone.penidng to show; there are: pending,"},
        {"SHOW chaperone.approve", "there is no chaperone.approve to show"},
        {"SHOW chaperone.ticket_", "there is no chaperone.ticket_ to show"},
        {"SHOW chaperone.pending.x", "there is no chaperone.pending.x to show"},
        {"CALL chaperone.aprove('K7')",
         "there is no procedure chaperone.aprove; there are: approve(ticket, comment)"},
        {"CALL chaperone.\"Approve\"('K7')", "there is no procedure chaperone.Approve"},
        {"CALL chaperone.approve()", "chaperone.approve needs its argument ticket"},
        {"CALL chaperone.approve(NULL)", "chaperone.approve needs its argument ticket"},
        {"CALL chaperone.approve(comment => 'x')", "chaperone.approve needs its argument ticket"},
        {"CALL chaperone.approve('a', 'b', 'c')", "chaperone.approve takes fewer arguments"},
        {"CALL chaperone.reload(1)", "chaperone.reload takes fewer arguments"},
        {"CALL chaperone.approve('a', ticket => 'b')", "got its argument ticket twice"},
        {"CALL chaperone.approve(ticket => 'a', 'b')", "positional argument cannot follow"},
        {"CALL chaperone.approve(id => 'a')", "has no argument named id"},
        {"CALL chaperone.approve((SELECT 'K7'))", "must be a constant or a parameter"},
        {"CALL chaperone.approve('K' || '7')", "must be a constant or a parameter"},
        {"CALL chaperone.approve($0)", "must be a constant or a parameter"},
        {"CALL chaperone.approve('K7'::varchar(1))", "must be a constant or a parameter"},
        {"CALL chaperone.approve('K7'::my.text)", "must be a constant or a parameter"},
        {"CALL chaperone.approve(VARIADIC '{K7}')", "takes plain arguments only"},
        {"CALL chaperone.approve(DISTINCT 'K7')", "takes plain arguments only"},
        {"CALL chaperone.approve(*)", "takes plain arguments only"},
    };
    for (const auto& [sql, expected] : cases) {
        INFO(sql);
        const std::string got = shown(sql);
        INFO(got);
        CHECK(got.starts_with("! "));
        CHECK(got.find(expected) != std::string::npos);
    }
}

TEST_CASE("a statement for pgchaperone itself does nothing on the server") {
    const StatementFacts call = facts_of("CALL chaperone.approve('K7')");
    CHECK(call.command == "CALL");
    CHECK(call.commands == std::vector<std::string>{"CALL"});
    CHECK_FALSE(call.opaque);
    CHECK(call.functions.empty());
    CHECK_FALSE(call.may_change_lexical_settings);
    CHECK(facts_of("SHOW chaperone.pending").command == "SHOW");
}

TEST_CASE("of several statements each has its own addressee") {
    const AnalysisPtr analysis = analyze(
        "SHOW chaperone.version; SHOW search_path;"
        "CALL chaperone.approve('K7')");
    REQUIRE(analysis->statements.size() == 3);
    CHECK(shown(analysis->statements[0]) == "SHOW version");
    CHECK(shown(analysis->statements[1]) == "server");
    CHECK(shown(analysis->statements[2]) == "CALL approve(K7, NULL)");
}
