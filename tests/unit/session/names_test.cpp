#include "proxy/session/names.h"

#include "support/catch.h"

using namespace pgchaperone::session;

namespace {
StatementHandle handle() { return std::make_shared<PreparedStatement>(); }
}  // namespace

TEST_CASE("names are the same when their first 63 bytes are, as in the server") {
    Names names;
    const auto one = handle();
    names.set_statement(std::string(63, 'a') + "x", one);
    CHECK(names.statement(std::string(63, 'a') + "y") == one);
    CHECK_FALSE(names.statement(std::string(62, 'a')));
}

TEST_CASE("statements and portals are separate name spaces") {
    Names names;
    names.set_statement("s", handle());
    CHECK_FALSE(names.portal("s"));
    names.set_portal("s", handle(), 1);
    CHECK(names.portal("s") != names.statement("s"));
}

TEST_CASE("the end of a transaction takes the portals made before it and no other") {
    Names names;
    names.set_portal("", handle(), 3);
    names.set_portal("early", handle(), 4);
    names.set_portal("late", handle(), 8);
    names.set_statement("s", handle());
    names.transaction_ended(5);
    CHECK_FALSE(names.portal(""));
    CHECK_FALSE(names.portal("early"));
    CHECK(names.portal("late"));
    CHECK(names.statement("s"));
}

TEST_CASE("setting a statement gives back what stood there") {
    Names names;
    const auto one = handle();
    CHECK_FALSE(names.set_statement("s", one));
    CHECK(names.set_statement("s", nullptr) == one);
    CHECK(names.statements() == 0);
}

TEST_CASE("DEALLOCATE ALL leaves the unnamed statement") {
    Names names;
    names.set_statement("", handle());
    names.set_statement("s", handle());
    names.forget_statements(1);
    CHECK(names.statement(""));
    CHECK_FALSE(names.statement("s"));
}

TEST_CASE("DEALLOCATE ALL leaves what was prepared behind it") {
    Names names;
    const auto behind = std::make_shared<PreparedStatement>();
    behind->parsed_behind = 7;
    names.set_statement("before", handle());
    names.set_statement("behind", behind);
    names.forget_statements(7);
    CHECK_FALSE(names.statement("before"));
    CHECK(names.statement("behind"));
}
