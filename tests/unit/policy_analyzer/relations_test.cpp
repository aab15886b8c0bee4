// Which relations a statement touches, for rules with `relation`, `reads` and `writes`.

#include "analyze.h"
#include "policy/relation_names.h"

#include <algorithm>

namespace pgchaperone::policy {

namespace {

// "reads a, b writes c": in the order of the alphabet.
std::string touched(std::string_view sql) {
    const StatementFacts facts = facts_of(sql);
    if (facts.unparsable) return facts.unparsable.reason;
    std::string out;
    for (const auto& [what, list] :
         {std::pair("reads", &facts.read), std::pair("writes", &facts.written)}) {
        std::vector<std::string> names;
        for (const RelationName& name : *list) names.push_back(relation_text(name));
        std::sort(names.begin(), names.end());
        for (std::size_t i = 0; i < names.size(); ++i) {
            out += i > 0 ? ", " : (out.empty() ? "" : " ") + std::string(what) + " ";
            out += names[i];
        }
    }
    return out;
}

struct Case {
    const char* sql;
    const char* touches;
};

void check(std::initializer_list<Case> cases) {
    for (const Case& each : cases) {
        INFO(each.sql);
        CHECK(touched(each.sql) == each.touches);
    }
}

}  // namespace

TEST_CASE("what maintains or locks a table writes it") {
    check({
        {"LOCK TABLE orders, ONLY hr.pay IN SHARE MODE", "writes hr.pay, orders"},
        {"CLUSTER orders USING i", "writes orders"},
        {"CLUSTER", "writes *"},
        {"REINDEX TABLE hr.pay", "writes hr.pay"},
        {"REINDEX INDEX CONCURRENTLY pay_i", "writes pay_i"},
        {"REINDEX SCHEMA hr", "writes hr.*"},
        {"REINDEX DATABASE shop", "writes *"},
        {"REINDEX SYSTEM shop", "writes *"},
        {"VACUUM (FULL, ANALYZE) orders, hr.pay", "writes hr.pay, orders"},
        {"VACUUM", "writes *"},
        {"ANALYZE orders (a)", "writes orders"},
        {"ANALYZE", "writes *"},
        {"REFRESH MATERIALIZED VIEW CONCURRENTLY hr.mv", "writes hr.mv"},
        {"CREATE STATISTICS s (ndistinct) ON a, b FROM hr.pay", "writes hr.pay"},
        {"COMMENT ON TABLE hr.pay IS 'x'", "writes hr.pay"},
        {"COMMENT ON COLUMN hr.pay.a IS 'x'", "writes hr.pay"},
        {"COMMENT ON COLUMN pay.a IS 'x'", "writes pay"},
        {"COMMENT ON TRIGGER t ON hr.pay IS 'x'", "writes hr.pay"},
        {"COMMENT ON POLICY p ON pay IS 'x'", "writes pay"},
        {"COMMENT ON RULE r ON pay IS 'x'", "writes pay"},
        {"COMMENT ON CONSTRAINT c ON hr.pay IS 'x'", "writes hr.pay"},
        {"COMMENT ON INDEX i IS 'x'", "writes i"},
        {"COMMENT ON SCHEMA hr IS 'x'", "writes hr.*"},
        {"COMMENT ON FUNCTION f() IS 'x'", ""},
        {"COMMENT ON CONSTRAINT c ON DOMAIN d IS 'x'", ""},
        {"SECURITY LABEL ON TABLE hr.pay IS 'x'", "writes hr.pay"},
        {"SECURITY LABEL ON COLUMN hr.pay.a IS 'x'", "writes hr.pay"},
    });
}

TEST_CASE("what grants, publishes or hands over a table writes it") {
    check({
        {"GRANT SELECT (a) ON hr.pay TO bob", "writes hr.pay"},
        {"REVOKE ALL ON orders, pay FROM PUBLIC", "writes orders, pay"},
        {"GRANT USAGE ON SEQUENCE hr.s TO bob", "writes hr.s"},
        {"GRANT SELECT ON ALL TABLES IN SCHEMA hr, sales TO bob", "writes hr.*, sales.*"},
        {"REVOKE USAGE ON ALL SEQUENCES IN SCHEMA hr FROM bob", "writes hr.*"},
        {"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA hr TO bob", ""},
        {"GRANT USAGE ON SCHEMA hr TO bob", "writes hr.*"},
        {"GRANT CONNECT ON DATABASE shop TO bob", ""},
        {"ALTER DEFAULT PRIVILEGES IN SCHEMA hr GRANT SELECT ON TABLES TO bob", "writes hr.*"},
        {"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO bob", "writes *"},
        {"ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO bob", ""},
        {"CREATE PUBLICATION p FOR TABLE orders, hr.pay (a) WHERE (a = 1)",
         "writes hr.pay, orders"},
        {"CREATE PUBLICATION p FOR TABLE orders, TABLES IN SCHEMA hr", "writes hr.*, orders"},
        {"CREATE PUBLICATION p FOR TABLES IN SCHEMA CURRENT_SCHEMA", "writes *"},
        {"CREATE PUBLICATION p FOR ALL TABLES", "writes *"},
        {"CREATE PUBLICATION p", ""},
        {"ALTER PUBLICATION p DROP TABLE hr.pay", "writes hr.pay"},
        {"DROP OWNED BY bob", "writes *"},
        {"REASSIGN OWNED BY bob TO ann", "writes *"},
        {"ALTER SCHEMA hr OWNER TO ann", "writes hr.*"},
        {"ALTER TABLE hr.pay OWNER TO ann", "writes hr.pay"},
        {"ALTER TABLE ALL IN TABLESPACE a SET TABLESPACE b", "writes *"},
        {"ALTER EXTENSION e ADD TABLE hr.pay", "writes hr.pay"},
        {"ALTER TRIGGER t ON hr.pay DEPENDS ON EXTENSION e", "writes hr.pay"},
    });
}

TEST_CASE("a change of name is about the old name and the new one") {
    check({
        {"ALTER TABLE orders RENAME TO old_orders", "writes old_orders, orders"},
        {"ALTER VIEW hr.v RENAME TO w", "writes hr.v, hr.w"},
        {"ALTER SEQUENCE s RENAME TO t", "writes s, t"},
        {"ALTER INDEX hr.i RENAME TO j", "writes hr.i, hr.j"},
        {"ALTER TABLE orders RENAME COLUMN a TO b", "writes orders"},
        {"ALTER TABLE orders RENAME CONSTRAINT a TO b", "writes orders"},
        {"ALTER TRIGGER t ON hr.pay RENAME TO u", "writes hr.pay"},
        {"ALTER POLICY p ON hr.pay RENAME TO u", "writes hr.pay"},
        {"ALTER TABLE hr.pay SET SCHEMA archive", "writes archive.pay, hr.pay"},
        {"ALTER SEQUENCE pay SET SCHEMA archive", "writes archive.pay, pay"},
        {"ALTER SCHEMA hr RENAME TO people", "writes hr.*, people.*"},
        {"ALTER FUNCTION f() RENAME TO g", ""},
        {"ALTER FUNCTION f() SET SCHEMA hr", ""},
    });
}

TEST_CASE("a definition is about all the tables that it ties together") {
    check({
        {"CREATE TABLE x (a int REFERENCES hr.pay, LIKE orders)", "reads orders writes hr.pay, x"},
        {"CREATE TABLE x (a int, FOREIGN KEY (a) REFERENCES hr.pay)", "writes hr.pay, x"},
        {"CREATE TABLE x () INHERITS (orders, hr.pay)", "writes hr.pay, orders, x"},
        {"CREATE TABLE x PARTITION OF hr.pay FOR VALUES IN (1)", "writes hr.pay, x"},
        {"CREATE FOREIGN TABLE x PARTITION OF hr.pay FOR VALUES IN (1) SERVER s",
         "writes hr.pay, x"},
        {"ALTER TABLE orders ADD FOREIGN KEY (a) REFERENCES hr.pay", "writes hr.pay, orders"},
        {"ALTER TABLE orders ADD COLUMN a int REFERENCES hr.pay", "writes hr.pay, orders"},
        {"ALTER TABLE orders ATTACH PARTITION hr.p FOR VALUES IN (1)", "writes hr.p, orders"},
        {"ALTER TABLE orders DETACH PARTITION hr.p CONCURRENTLY", "writes hr.p, orders"},
        {"ALTER INDEX i ATTACH PARTITION j", "writes i, j"},
        {"ALTER TABLE orders INHERIT hr.pay", "writes hr.pay, orders"},
        {"ALTER TABLE orders NO INHERIT hr.pay", "writes hr.pay, orders"},
        {"CREATE TRIGGER t BEFORE INSERT ON hr.pay FOR EACH ROW EXECUTE FUNCTION f()",
         "writes hr.pay"},
        {"CREATE CONSTRAINT TRIGGER t AFTER INSERT ON orders FROM hr.pay FOR EACH ROW EXECUTE "
         "FUNCTION f()",
         "writes hr.pay, orders"},
        {"CREATE RULE r AS ON INSERT TO orders WHERE EXISTS (SELECT FROM hr.pay) DO ALSO INSERT "
         "INTO log SELECT 1 FROM x",
         "reads hr.pay, x writes log, orders"},
        {"CREATE POLICY p ON orders USING (a IN (SELECT b FROM hr.pay))",
         "reads hr.pay writes orders"},
        {"ALTER POLICY p ON orders WITH CHECK (a IN (SELECT b FROM hr.pay))",
         "reads hr.pay writes orders"},
        {"CREATE VIEW v AS SELECT * FROM hr.pay", "reads hr.pay writes v"},
        {"CREATE SEQUENCE s OWNED BY hr.pay.id", "writes hr.pay, s"},
        {"ALTER SEQUENCE s OWNED BY pay.id", "writes pay, s"},
        {"ALTER SEQUENCE s OWNED BY NONE", "writes s"},
        {"IMPORT FOREIGN SCHEMA f LIMIT TO (a, b) FROM SERVER s INTO hr", "writes hr.a, hr.b"},
        {"IMPORT FOREIGN SCHEMA f EXCEPT (a) FROM SERVER s INTO hr", "writes hr.*"},
        {"CREATE SCHEMA hr CREATE TABLE t (a int) CREATE VIEW v AS SELECT * FROM t",
         "reads t writes hr.t, hr.v"},
        {"DROP INDEX hr.i", "writes hr.i"},
        {"DROP TRIGGER t ON hr.pay", "writes hr.pay"},
        {"DROP SCHEMA hr, sales CASCADE", "writes hr.*, sales.*"},
        {"DROP SCHEMA hr", ""},
    });
}

TEST_CASE("a name in a constant argument is read as the server reads it") {
    check({
        {"SELECT nextval('hr.s'), setval('\"S\"', 3), currval('c')", "reads c writes S, hr.s"},
        {"SELECT nextval('Orders_ID'::regclass)", "writes orders_id"},
        {"SELECT pg_catalog.nextval('s'::text)", "writes s"},
        {"SELECT nextval($1)", ""},
        {"SELECT nextval('16384')", ""},
        {"EXPLAIN SELECT nextval('s')", "reads s"},
        {"SELECT table_to_xml('hr.pay', true, false, '')", "reads hr.pay"},
        {"SELECT schema_to_xml('hr', true, false, '')", "reads hr.*"},
        {"SELECT database_to_xml(true, false, '')", "reads *"},
        {"SELECT brin_summarize_new_values('i')", "writes i"},
        {"SELECT pg_relation_size('orders')", ""},
        {"DECLARE c CURSOR FOR SELECT * FROM hr.pay FOR UPDATE", "reads hr.pay"},
    });
    const auto is = [](std::string_view text, std::string_view name) {
        const auto relation = relation_from_text(text);
        return relation && relation_text(*relation) == name;
    };
    CHECK(is(" Public . \"Order \"\"Items\" ", "public.Order \"Items"));
    CHECK(is("d.s.t", "d.s.t"));
    CHECK(is("a1", "a1"));
    for (const char* none :
         {"", " ", "a.", ".a", "a..b", "\"a", "a b", "a\"b\"", "\"\"", "1234", "a.b.c.d"}) {
        INFO(none);
        CHECK_FALSE(relation_from_text(none).has_value());
    }
}

TEST_CASE("locking rows is a write, as the privilege that it needs") {
    using enum StatementClass;
    for (const char* sql : {"SELECT * FROM t FOR UPDATE", "SELECT * FROM t FOR NO KEY UPDATE",
                            "SELECT * FROM t FOR SHARE NOWAIT", "SELECT * FROM t FOR KEY SHARE",
                            "SELECT * FROM (SELECT * FROM t FOR UPDATE) x",
                            "EXPLAIN ANALYZE SELECT * FROM t FOR UPDATE"}) {
        INFO(sql);
        const StatementFacts facts = facts_of(sql);
        CHECK(facts.classes == std::vector{read, write});
        CHECK(facts.read == std::vector<RelationName>{{"", "", "t"}});
        CHECK(facts.written.empty());
        CHECK_FALSE(facts.unbounded);
    }
    CHECK(facts_of("EXPLAIN SELECT * FROM t FOR UPDATE").classes == std::vector{read});
}

}  // namespace pgchaperone::policy
