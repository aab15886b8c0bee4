#include "approval/store.h"
#include "homes.h"
#include "postgres_server.h"
#include "tickets.h"

#include "support/catch.h"

#include <libpq-fe.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/poll.h>
#include <sys/stat.h>

#include <fstream>
#include <future>
#include <set>
#include <sstream>

using namespace pgchaperone::test;
using namespace pgchaperone::approval;

namespace {

#define EVERY_HOME Home home(GENERATE(HomeKind::sqlite, HomeKind::postgres))

Store::Make make(Request request, Time now = start_time) {
    return [request = std::move(request), now](std::string id) {
        return opened(request, std::move(id), "one", now);
    };
}
const Store::Take take_none = [](const Ticket&) { return std::nullopt; };

Ticket open_one(Store& store, const Request& request = request_of_alice(), Time now = start_time) {
    return store.open(request.binding, make(request, now), take_none).value();
}

Store::Change approve_by(Person person, Time now = start_time + 1s) {
    return [person = std::move(person), now](const Ticket& ticket) {
        return voted(ticket, person, true, "fine", now);
    };
}
Store::Take take_for(Person requester, Time now = start_time + 2min) {
    return [requester = std::move(requester), now](const Ticket& ticket) -> std::optional<Ticket> {
        Claim claim = claim_of(ticket, false);
        claim.requester = requester;
        if (!claimable(ticket, claim, now)) return std::nullopt;
        return claimed(ticket, now);
    };
}

std::vector<std::string> ids(const std::vector<Ticket>& tickets) {
    std::vector<std::string> list;
    for (const Ticket& ticket : tickets) list.push_back(ticket.id);
    return list;
}

// Statements on the side, as somebody else would run them.
void run_sqlite(const std::filesystem::path& file, const std::string& sql) {
    sqlite3* handle = nullptr;
    REQUIRE(sqlite3_open(file.c_str(), &handle) == SQLITE_OK);
    const int code = sqlite3_exec(handle, sql.c_str(), nullptr, nullptr, nullptr);
    sqlite3_close(handle);
    REQUIRE(code == SQLITE_OK);
}
std::string run_postgres(const std::string& connection, const std::string& sql) {
    PGconn* handle = PQconnectdb(connection.c_str());
    PQsetNoticeReceiver(
        handle, [](void*, const PGresult*) {}, nullptr);
    PGresult* result = PQexec(handle, sql.c_str());
    const ExecStatusType status = PQresultStatus(result);
    const std::string value = PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "";
    const std::string error = PQresultErrorMessage(result);
    PQclear(result);
    PQfinish(handle);
    CAPTURE(sql, error);
    REQUIRE((status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK));
    return value;
}
void run_in(const Home& home, const std::string& sqlite, const std::string& postgres) {
    if (home.kind() == HomeKind::sqlite)
        run_sqlite(home.file(), sqlite);
    else
        run_postgres(home.connection(), postgres);
}

std::string content_of(const std::filesystem::path& file) {
    std::ifstream in(file, std::ios::binary);
    std::ostringstream out;
    out << in.rdbuf();
    return out.str();
}

}  // namespace

TEST_CASE("a ticket is kept as it was opened, byte for byte, also for who comes later") {
    EVERY_HOME;
    Request request = request_of_alice();
    request.statement = std::string("UPDATE x SET y = '\xff\xfe\0\xe2\x82'", 23);
    request.parameters = {std::nullopt, "", "\x80"};
    request.session = ~0ULL;
    request.terms.ttl = std::chrono::milliseconds::max();
    Ticket ticket;
    {
        const auto store = home.open();
        ticket = open_one(*store, request);
        CHECK(ticket.id == id_of(1));
        CHECK(store->find(ticket.id).value() == ticket);
    }
    CHECK(home.open()->find(ticket.id).value() == ticket);
}

TEST_CASE("a ticket is found whatever case its id is written in, and no other") {
    EVERY_HOME;
    const auto store = home.open();
    const Ticket ticket = open_one(*store);
    CHECK(store->find("b1").value() == ticket);
    CHECK(store->find(" B1 ").value() == ticket);
    for (const char* id : {"C1", "", "B1'; --", "\xff", "B99999999999"}) {
        CHECK(store->find(id).error().problem == Problem::unknown_ticket);
        CHECK(store->update(id, approve_by(bob())).error().problem == Problem::unknown_ticket);
    }
}

TEST_CASE("no id comes twice, whatever becomes of tickets and processes") {
    EVERY_HOME;
    std::set<std::string> seen;
    for (int run = 0; run < 3; ++run) {
        const auto store = home.open();
        for (int i = 0; i < 10; ++i) {
            const Ticket ticket = open_one(*store);
            CHECK(seen.insert(ticket.id).second);
            store
                ->update(ticket.id,
                         [](const Ticket& t) { return withdrawn(t, nullptr, "gone", start_time); })
                .value();
        }
        // Even what was deleted by hand does not come back.
        run_in(home, "DELETE FROM tickets", "DELETE FROM pgchaperone.tickets");
    }
    CHECK(seen.size() == 30);
}

TEST_CASE("a change is kept, a refused one changes nothing") {
    EVERY_HOME;
    const auto store = home.open();
    const Ticket ticket = open_one(*store);
    CHECK(store->update(ticket.id, approve_by(alice())).error().problem == Problem::own_ticket);
    CHECK(store->find(ticket.id).value() == ticket);
    const Ticket approved = store->update(ticket.id, approve_by(bob())).value();
    CHECK(approved.state == State::approved);
    CHECK(store->find(ticket.id).value() == approved);
    CHECK(home.open()->find(ticket.id).value() == approved);
}

TEST_CASE("an approval is claimed once, the oldest first") {
    EVERY_HOME;
    const auto store = home.open();
    const Ticket first = open_one(*store);
    const Ticket second = open_one(*store);
    const Ticket other = open_one(*store, request_of_alice("b2"));
    for (const Ticket& ticket : {second, first, other})
        store->update(ticket.id, approve_by(bob())).value();
    CHECK_FALSE(store->claim("b1", take_for(dave())).value());
    CHECK(store->claim("b1", take_for(alice())).value()->id == first.id);
    CHECK(store->claim("b1", take_for(alice())).value()->id == second.id);
    CHECK_FALSE(store->claim("b1", take_for(alice())).value());
    CHECK(store->find(first.id)->state == State::used);
    CHECK(store->find(other.id)->state == State::approved);
    CHECK_FALSE(store->claim("", take_for(alice())).value());
}

TEST_CASE("opening takes up what the caller accepts, and only tickets that are open") {
    EVERY_HOME;
    const auto store = home.open();
    const Ticket ended = open_one(*store);
    store
        ->update(ended.id,
                 [](const Ticket& t) { return withdrawn(t, nullptr, "gone", start_time); })
        .value();
    const Ticket there = open_one(*store);
    open_one(*store, request_of_alice("b2"));
    std::vector<std::string> asked;
    const Ticket again = store
                             ->open("b1", make(request_of_alice()),
                                    [&](const Ticket& ticket) {
                                        asked.push_back(ticket.id);
                                        return taken_up(ticket, request_of_alice(), "two",
                                                        start_time + 5min);
                                    })
                             .value();
    CHECK(asked == std::vector{there.id});
    CHECK(again.id == there.id);
    CHECK(again.replica == "two");
    CHECK(store->find(there.id).value() == again);
    CHECK(open_one(*store).id == id_of(4));
}

TEST_CASE("open tickets come oldest first and ended ones latest first, page by page") {
    EVERY_HOME;
    const auto store = home.open();
    std::vector<std::string> open_ids, ended_ids;
    for (int i = 0; i < 10; ++i) {
        const Ticket ticket = open_one(*store);
        if (i % 2 == 0) {
            open_ids.push_back(ticket.id);
            continue;
        }
        // Two at a time end at the same moment.
        const Time when = start_time + std::chrono::seconds(i / 4);
        store
            ->update(ticket.id,
                     [&](const Ticket& t) { return withdrawn(t, nullptr, "gone", when); })
            .value();
        ended_ids.insert(ended_ids.begin(), ticket.id);
    }
    store->update(open_ids.back(), approve_by(bob())).value();
    CHECK(ids(store->open_tickets(100).value()) == open_ids);
    CHECK(ids(store->ended(100).value()) == ended_ids);
    for (const bool of_open : {true, false}) {
        std::vector<std::string> paged;
        std::optional<Ticket> last;
        for (;;) {
            const Ticket* after = last ? &*last : nullptr;
            const auto tickets = (of_open ? store->open_tickets(2, after) : store->ended(2, after))
                                     .value();
            if (tickets.empty()) break;
            for (const Ticket& ticket : tickets) paged.push_back(ticket.id);
            last = tickets.back();
        }
        CHECK(paged == (of_open ? open_ids : ended_ids));
    }
}

TEST_CASE("a store hears of what others did once, and what was before it is no news") {
    EVERY_HOME;
    const auto one = home.open();
    const Ticket old = open_one(*one);
    const auto two = home.open();
    CHECK(two->changed().value().empty());

    const Ticket fresh = open_one(*one);
    one->update(old.id, approve_by(bob())).value();
    one->update(old.id, approve_by(carol()));  // refused: approved already
    const auto news = two->changed().value();
    REQUIRE(news.size() == 2);
    CHECK(news[0].ticket == fresh);
    CHECK(news[0].is_new);
    CHECK(news[1].ticket.id == old.id);
    CHECK(news[1].ticket.state == State::approved);
    CHECK_FALSE(news[1].is_new);
    CHECK(two->changed().value().empty());

    // What it did itself it knows.
    two->update(fresh.id, approve_by(bob())).value();
    CHECK(two->changed().value().empty());
    CHECK(one->changed().value().size() == 1);
    // A change that changes nothing is none.
    two->update(fresh.id, [](const Ticket& ticket) { return Result<Ticket>(ticket); }).value();
    CHECK(one->changed().value().empty());
}

TEST_CASE("PostgreSQL tells at once that there is news") {
    Home home(HomeKind::postgres);
    const auto one = home.open();
    const auto two = home.open();
    REQUIRE(two->changed().value().empty());
    open_one(*one);
    pollfd readable{.fd = two->descriptor(), .events = POLLIN, .revents = 0};
    REQUIRE(::poll(&readable, 1, 20'000) == 1);
    CHECK(two->changed().value().size() == 1);
    readable.revents = 0;
    CHECK(::poll(&readable, 1, 0) == 0);
}

TEST_CASE("news that comes along with the answer to another question is known, too") {
    Home home(HomeKind::postgres);
    const auto one = home.open();
    const auto two = home.open();
    REQUIRE(two->changed().value().empty());
    CHECK_FALSE(two->told());
    const Ticket ticket = open_one(*one);
    pollfd readable{.fd = two->descriptor(), .events = POLLIN, .revents = 0};
    REQUIRE(::poll(&readable, 1, 20'000) == 1);
    // Its answer brings the notification, and the socket is empty again.
    CHECK(two->find(ticket.id));
    readable.revents = 0;
    CHECK(::poll(&readable, 1, 0) == 0);
    CHECK(two->told());
    CHECK(two->changed().value().size() == 1);
    CHECK_FALSE(two->told());
    // What it did itself is no news.
    open_one(*two);
    CHECK_FALSE(two->told());
}

TEST_CASE("several stores that work at once lose nothing and miss nothing") {
    EVERY_HOME;
    const auto listener = home.open();
    constexpr int threads = 4, each = 25;
    std::vector<std::future<void>> work;
    for (int thread = 0; thread < threads; ++thread)
        work.push_back(std::async(std::launch::async, [&] {
            const auto store = home.open();
            for (int i = 0; i < each; ++i) {
                const Ticket ticket = open_one(*store);
                store->update(ticket.id, approve_by(bob())).value();
            }
        }));
    std::set<std::string> heard;
    const auto listen = [&] {
        for (const auto& changed : listener->changed().value()) heard.insert(changed.ticket.id);
    };
    for (auto& one : work) {
        while (one.wait_for(1ms) != std::future_status::ready) listen();
        one.get();
    }
    listen();
    CHECK(heard.size() == threads * each);
    const auto all = listener->open_tickets(1000).value();
    CHECK(all.size() == threads * each);
    for (const Ticket& ticket : all) CHECK(ticket.state == State::approved);
}

TEST_CASE("of several who claim the same approvals at once each is taken by one") {
    EVERY_HOME;
    const auto store = home.open();
    constexpr std::size_t tickets = 30;
    for (std::size_t i = 0; i < tickets; ++i)
        store->update(open_one(*store).id, approve_by(bob())).value();
    std::vector<std::future<std::vector<std::string>>> claimers;
    for (int i = 0; i < 4; ++i)
        claimers.push_back(std::async(std::launch::async, [&home] {
            const auto own = home.open();
            std::vector<std::string> taken;
            while (auto ticket = own->claim("b1", take_for(alice())).value())
                taken.push_back(ticket->id);
            return taken;
        }));
    std::multiset<std::string> taken;
    for (auto& claimer : claimers)
        for (std::string& id : claimer.get()) taken.insert(std::move(id));
    CHECK(taken.size() == tickets);
    CHECK(std::set(taken.begin(), taken.end()).size() == tickets);
}

TEST_CASE("of two who decide at once, one is told that it is decided already") {
    EVERY_HOME;
    const auto store = home.open();
    for (int round = 0; round < 10; ++round) {
        const std::string id = open_one(*store).id;
        const auto vote = [&home, &id](const Person& by, bool approve) {
            return std::async(std::launch::async, [&home, &id, by, approve] {
                return home.open()->update(id, [&](const Ticket& ticket) {
                    return voted(ticket, by, approve, "", start_time + 1s);
                });
            });
        };
        auto one = vote(bob(), true);
        auto two = vote(carol(), true);
        const auto first = one.get(), second = two.get();
        CHECK(first.has_value() != second.has_value());
        CHECK((first ? second : first).error().problem == Problem::already_decided);
        CHECK(store->find(id)->votes.size() == 1);
    }
}

TEST_CASE("several processes may open an empty store at once") {
    const HomeKind kind = GENERATE(HomeKind::sqlite, HomeKind::postgres);
    for (int round = 0; round < 8; ++round) {
        Home home(kind);
        std::promise<void> go;
        const auto gone = go.get_future().share();
        std::vector<std::future<std::string>> starts;
        for (int i = 0; i < 4; ++i)
            starts.push_back(std::async(std::launch::async, [&home, gone] {
                gone.wait();
                return open_one(*home.open()).id;
            }));
        go.set_value();
        std::set<std::string> seen;
        for (auto& start : starts) seen.insert(start.get());
        CHECK(seen.size() == 4);
    }
}

TEST_CASE("a store of a newer version is refused, in words") {
    EVERY_HOME;
    open_one(*home.open());
    run_in(home, "PRAGMA user_version = 77",
           "INSERT INTO pgchaperone.migrations (version) VALUES (77)");
    const auto store = home.try_open();
    REQUIRE_FALSE(store);
    CHECK(store.error().text.find("newer version of pgchaperone") != std::string::npos);
    CHECK(store.error().text.find("77") != std::string::npos);
}

TEST_CASE("a ticket that can't be read is a failure, not a ticket") {
    EVERY_HOME;
    const auto store = home.open();
    const Ticket ticket = open_one(*store);
    run_in(home, "UPDATE tickets SET body = '{}'", "UPDATE pgchaperone.tickets SET body = '{}'");
    CHECK(store->find(ticket.id).error().problem == Problem::store_failed);
    CHECK(store->claim("b1", take_for(alice())).error().problem == Problem::store_failed);
    CHECK(store->open_tickets(10).error().problem == Problem::store_failed);
}

TEST_CASE("a store that fails says so, changes nothing, and works again by itself") {
    EVERY_HOME;
    const auto store = home.open();
    const Ticket ticket = open_one(*store);
    home.sabotage();
    CHECK(store->update(ticket.id, approve_by(bob())).error().problem == Problem::store_failed);
    CHECK_FALSE(store->check());
    home.mend();
    CHECK(store->check());
    CHECK(store->find(ticket.id).value() == ticket);
    CHECK(store->update(ticket.id, approve_by(bob()))->state == State::approved);
}

TEST_CASE("a connection that was lost while nobody used it is no failure") {
    Home home(HomeKind::postgres);
    const auto store = home.open();
    const Ticket ticket = open_one(*store);
    run_postgres(home.connection(),
                 "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                 " WHERE application_name = 'pgchaperone approvals'"
                 " AND datname = current_database()");
    CHECK(store->update(ticket.id, approve_by(bob()))->state == State::approved);
}

TEST_CASE("a server that stands still is a failure after some seconds") {
    Home home(HomeKind::postgres);
    const auto store = home.open();
    const Ticket ticket = open_one(*store);
    const std::string backend = run_postgres(
        home.connection(),
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'pgchaperone approvals'");
    const int pid = std::stoi(backend);
    REQUIRE(::kill(pid, SIGSTOP) == 0);
    const auto answer = store->update(ticket.id, approve_by(bob()));
    ::kill(pid, SIGCONT);
    REQUIRE_FALSE(answer);
    CHECK(answer.error().problem == Problem::store_failed);
    CHECK(store->update(ticket.id, approve_by(carol())).has_value());
}

TEST_CASE("a store in PostgreSQL that has lost its tables says so") {
    Home home(HomeKind::postgres);
    const auto store = home.open();
    run_postgres(home.connection(), "DROP SCHEMA pgchaperone CASCADE");
    CHECK(store->find("B1").error().problem == Problem::store_failed);
    CHECK(open_one(*home.open()).id == id_of(1));
}

TEST_CASE("a database of another encoding is refused, in words") {
    auto& server = PostgresServer::instance();
    server.run("DROP DATABASE IF EXISTS latin");
    server.run("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    const auto store = open_postgres_store(server.connection_to("latin"));
    REQUIRE_FALSE(store);
    CHECK(store.error().text.find("LATIN1") != std::string::npos);
}

TEST_CASE("a server that can't be reached is a failure, in words") {
    const auto store = open_postgres_store("host=/nonexistent user=nobody dbname=nothing");
    REQUIRE_FALSE(store);
    CHECK(store.error().problem == Problem::store_failed);
    CHECK(store.error().text.find('\n') == std::string::npos);
    CHECK_FALSE(open_postgres_store("no such = connection string"));
}

TEST_CASE("the file of a store is for its owner alone, and its directory is made") {
    Home home(HomeKind::sqlite);
    const auto store = home.open();
    open_one(*store);
    struct stat status {};
    for (const char* suffix : {"", "-wal", "-shm"}) {
        REQUIRE(::stat((home.file().string() + suffix).c_str(), &status) == 0);
        CHECK((status.st_mode & 0777) == 0600);
    }
    REQUIRE(::stat(home.file().parent_path().c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0700);
}

TEST_CASE("a damaged file is refused, in words, and left as it is") {
    Home home(HomeKind::sqlite);
    std::string content;
    SECTION("that never was a database") {
        std::filesystem::create_directories(home.file().parent_path());
        content = std::string(5000, 'x');
    }
    SECTION("that was overwritten in the middle") {
        {
            const auto store = home.open();
            for (int i = 0; i < 100; ++i) open_one(*store);
        }
        content = content_of(home.file());
        REQUIRE(content.size() > 20'000);
        content.replace(4096, content.size() - 4096, content.size() - 4096, '\x5a');
    }
    SECTION("that was cut off") {
        {
            const auto store = home.open();
            for (int i = 0; i < 100; ++i) open_one(*store);
        }
        content = content_of(home.file()).substr(0, 10'000);
    }
    std::ofstream(home.file(), std::ios::binary) << content;
    const auto store = open_sqlite_store(home.file().string());
    REQUIRE_FALSE(store);
    CHECK(store.error().problem == Problem::store_failed);
    CHECK(store.error().text.find("damaged") != std::string::npos);
    CHECK(store.error().hint.find("left as it is") != std::string::npos);
    CHECK(content_of(home.file()) == content);
}

TEST_CASE("another program's database is refused and left as it is") {
    Home home(HomeKind::sqlite);
    std::filesystem::create_directories(home.file().parent_path());
    run_sqlite(home.file(), "CREATE TABLE theirs (x)");
    const std::string content = content_of(home.file());
    const auto store = open_sqlite_store(home.file().string());
    REQUIRE_FALSE(store);
    CHECK(store.error().text.find("another program") != std::string::npos);
    CHECK(content_of(home.file()) == content);
}

TEST_CASE("what can't be a file is a failure, in words") {
    CHECK_FALSE(open_sqlite_store("/proc/nothing/store.db"));
    CHECK_FALSE(open_sqlite_store(std::filesystem::temp_directory_path().string()));
    CHECK_FALSE(open_sqlite_store(""));
}

TEST_CASE("a file that was taken away is missed, not made again") {
    Home home(HomeKind::sqlite);
    const auto store = home.open();
    const Ticket ticket = open_one(*store);
    const auto away = home.file().parent_path() / "away";
    std::filesystem::create_directory(away);
    const auto move = [&](const auto& from, const auto& to) {
        for (const char* suffix : {"", "-wal", "-shm"})
            if (std::filesystem::exists(from.string() + suffix))
                std::filesystem::rename(from.string() + suffix, to.string() + suffix);
    };
    move(home.file(), away / "store.db");
    CHECK(store->find(ticket.id).error().problem == Problem::store_failed);
    CHECK_FALSE(store->check());
    CHECK_FALSE(std::filesystem::exists(home.file()));
    move(away / "store.db", home.file());
    CHECK(store->find(ticket.id).value() == ticket);
}
