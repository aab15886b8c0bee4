// What is counted of statements, and that each is counted once.
#include "support/catch.h"
#include "support/session_host.h"

using namespace pgchaperone;
using namespace pgchaperone::test;
using session::CountedClass;
using session::CountedDecision;

namespace {

policy::StatementFacts facts(std::initializer_list<policy::StatementClass> classes) {
    policy::StatementFacts made;
    made.classes = classes;
    return made;
}

std::uint64_t times(const session::Census& census, CountedDecision decision) {
    std::uint64_t sum = 0;
    for (const auto& one : census.statements()) sum += one.decision == decision ? one.times : 0;
    return sum;
}

std::uint64_t all(const session::Census& census) {
    std::uint64_t sum = 0;
    for (const auto& one : census.statements()) sum += one.times;
    return sum;
}

}  // namespace

TEST_CASE("a statement counts as the class that does the most") {
    using policy::StatementClass;
    const auto read = facts({StatementClass::read});
    const auto writes = facts(
        {StatementClass::function, StatementClass::write, StatementClass::read});
    const auto makes = facts({StatementClass::ddl, StatementClass::write});
    const auto roles = facts({StatementClass::role, StatementClass::ddl});
    CHECK(session::counted_class(&read) == CountedClass::read);
    CHECK(session::counted_class(&writes) == CountedClass::write);
    CHECK(session::counted_class(&makes) == CountedClass::ddl);
    CHECK(session::counted_class(&roles) == CountedClass::role);
    const auto sets = facts({StatementClass::misc_set});
    CHECK(session::counted_class(&sets) == CountedClass::misc_set);
    auto unread = read;
    unread.unparsable.set = true;
    CHECK(session::counted_class(&unread) == CountedClass::unknown);
    CHECK(session::counted_class(nullptr) == CountedClass::unknown);
}

TEST_CASE("each statement of a Query counts by its own decision") {
    SessionHost host;
    host.log_in();
    host.client(query("SELECT 1"));
    CHECK(times(host.session.census(), CountedDecision::allow) == 1);
    host.server(complete("SELECT 1") + ready());
    host.client(query("DELETE FROM orders"));
    CHECK(times(host.session.census(), CountedDecision::block) == 1);
    CHECK(all(host.session.census()) == 2);
    host.session.forget_census();
    CHECK(host.session.census().empty());
}

TEST_CASE("a prepared statement counts as often as it is run, and not when it is parsed") {
    SessionHost host;
    host.log_in();
    host.client(parse("s", "SELECT 1") + sync_message());
    CHECK(host.session.census().empty());
    host.server(parse_complete() + ready());
    for (int i = 0; i < 3; ++i) {
        host.client(bind("", "s") + execute("") + sync_message());
        host.server(bind_complete() + complete("SELECT 1") + ready());
    }
    CHECK(times(host.session.census(), CountedDecision::allow) == 3);
    CHECK(all(host.session.census()) == 3);
}

TEST_CASE("a Parse that is refused counts, and what is dropped behind it does not") {
    SessionHost host;
    host.log_in();
    host.client(parse("s", "DELETE FROM orders") + bind("", "s") + execute("") + sync_message());
    host.server(error("42601") + ready());
    CHECK(times(host.session.census(), CountedDecision::block) == 1);
}

TEST_CASE("what nobody forgets does not grow with what is done") {
    SessionHost host;
    host.log_in();
    for (int i = 0; i < 1000; ++i) {
        host.client(query("SELECT 1"));
        host.server(complete("SELECT 1") + ready());
    }
    CHECK(host.session.census().statements().size() == 1);
    CHECK(all(host.session.census()) == 1000);
}
