// Rules that are said to be out of reach, against statements of every kind: none may reach them.
#include "policies.h"
#include "support/random.h"

namespace config = pgchaperone::config;
using namespace pgchaperone::policy;
using namespace pgchaperone::policy::testing;

namespace {

class Maker {
public:
    explicit Maker(std::uint64_t seed) : random_(seed) {}

    template <class T>
    T one_of(std::initializer_list<T> items) {
        return *(items.begin() + random_.below(items.size()));
    }
    bool rarely() { return random_.below(4) == 0; }

    std::string leaf() {
        switch (random_.below(10)) {
            case 0:
                return one_of({"command: DROP TABLE", "command: [\"DROP *\", DELETE]",
                               "command: \"*\"", "command: SELECT"});
            case 1:
                return one_of({"class: WRITE", "class: [WRITE, DDL]",
                               "class: [READ, WRITE, FUNCTION, ROLE, DDL, MISC]"});
            case 2: return one_of({"user: anna", "user: \"a*\"", "user: \"*\""});
            case 3: return one_of({"tls: true", "tls: false"});
            case 4: return one_of({"unbounded: true", "unbounded: false"});
            case 5: return one_of({"unparsable: true", "unparsable: false"});
            case 6: return one_of({"writes: hr.pay", "writes: \"hr.*\"", "writes: pay"});
            case 7: return one_of({"relation: hr.pay", "relation: \"*\""});
            case 8: return one_of({"in_transaction: true", "in_transaction: false"});
            default: return one_of({"opaque: true", "opaque: false"});
        }
    }
    std::string conditions(int depth) {
        const std::size_t kind = depth == 0 ? 9 : random_.below(6);
        if (kind == 0) return "not: { " + conditions(depth - 1) + " }";
        if (kind == 1 || kind == 2) {
            return std::string(kind == 1 ? "any" : "all") + ": [ { " + conditions(depth - 1) +
                   " }, { " + conditions(depth - 1) + " } ]";
        }
        return leaf();
    }
    std::string yaml() {
        const auto rule = [&](const char* name) {
            return std::string("  - { name: ") + name + ", match: { " + conditions(2) +
                   " }, action: " + one_of({"allow", "block"}) + " }\n";
        };
        return "rules:\n" + rule("first") + rule("second");
    }

    Scene scene() {
        Scene out;
        StatementFacts& facts = out.facts;
        facts.command = one_of<std::string>({"SELECT", "DELETE", "DROP TABLE", "DO"});
        facts.commands = {facts.command};
        if (rarely()) facts.commands.push_back(one_of<std::string>({"DELETE", "DROP TABLE"}));
        facts.classes = {one_of({StatementClass::read, StatementClass::write, StatementClass::ddl,
                                 StatementClass::misc})};
        if (rarely()) facts.classes.push_back(StatementClass::function);
        for (std::size_t n = random_.below(3); n > 0; --n) facts.written.push_back(relation());
        for (std::size_t n = random_.below(2); n > 0; --n) facts.read.push_back(relation());
        facts.unbounded.set = rarely();
        facts.opaque.set = rarely();
        facts.unparsable.set = rarely();
        out.session.user = one_of<std::string>({"anna", "albert", "bert"});
        out.session.tls = rarely();
        out.moment.in_transaction = rarely();
        if (rarely()) out.moment.search_path = std::vector<std::string>{"hr", "public"};
        return out;
    }

private:
    RelationName relation() {
        return {"", one_of<std::string>({"", "hr", "sales"}),
                one_of<std::string>({"pay", "t", ""})};
    }

    pgchaperone::test::Random random_;
};

}  // namespace

TEST_CASE("no statement reaches a rule that is said to be out of reach") {
    Maker maker(20261121);
    std::size_t reported = 0;
    std::vector<Scene> scenes;
    for (int i = 0; i < 400; ++i) scenes.push_back(maker.scene());
    for (int i = 0; i < 4000; ++i) {
        const std::string yaml = maker.yaml();
        const Policy p = policy(yaml);
        config::Problems problems;
        config::report_unreachable_rules(p, problems);
        for (std::size_t rule = 0; rule < p.rules.size(); ++rule) {
            const std::string name = "rule \"" + p.rules[rule].name + "\" can never";
            const std::string text = problems.text();
            if (text.find(name) == std::string::npos) continue;
            ++reported;
            for (const Scene& scene : scenes) {
                if (scene.outcome(p).rule != static_cast<int>(rule)) continue;
                FAIL(yaml << text << "reached by " << scene.facts.command << " "
                          << scene.facts.unparsable.set);
            }
        }
    }
    CHECK(reported > 300);
}
