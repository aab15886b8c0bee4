#include "approval/store.h"
#include "homes.h"
#include "tickets.h"

#include "support/catch.h"
#include "support/random.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <sstream>

using namespace pgchaperone::test;
using namespace pgchaperone::approval;

namespace {

// How far a ticket has come, by the word of the process that was killed.
enum class Step : std::uint8_t { opened, approved, used, withdrawn };

const Time claim_time = start_time + 2min;

void report(int pipe, char step, const std::string& id) {
    const std::string line = step + id + '\n';
    if (::write(pipe, line.data(), line.size()) != static_cast<ssize_t>(line.size())) ::_exit(1);
}

// Works on tickets until it is killed, and reports each step once the store has answered.
[[noreturn]] void work_for_ever(const Home& home, std::uint64_t seed, int pipe) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    Random random(seed);
    try {
        const auto store = home.open();
        for (;;) {
            const std::string binding = "b" + std::to_string(random.next() % 5);
            const Request request = request_of_alice(binding);
            const std::string id = store
                                       ->open(
                                           binding,
                                           [&](std::string name) {
                                               return opened(request, std::move(name), "one",
                                                             start_time);
                                           },
                                           [](const Ticket&) { return std::nullopt; })
                                       .value()
                                       .id;
            report(pipe, 'o', id);
            if (random.next() % 4 == 0) {
                store
                    ->update(id,
                             [](const Ticket& ticket) {
                                 return withdrawn(ticket, nullptr, "cancelled", start_time);
                             })
                    .value();
                report(pipe, 'w', id);
                continue;
            }
            store
                ->update(id,
                         [](const Ticket& ticket) {
                             return voted(ticket, bob(), true, "", start_time + 1s);
                         })
                .value();
            report(pipe, 'a', id);
            if (random.next() % 3 == 0) continue;
            const auto used = store
                                  ->claim(binding,
                                          [&](const Ticket& ticket) -> std::optional<Ticket> {
                                              if (!claimable(ticket, claim_of(ticket, false),
                                                             claim_time))
                                                  return std::nullopt;
                                              return claimed(ticket, claim_time);
                                          })
                                  .value();
            if (used) report(pipe, 'u', used->id);
        }
    } catch (const std::exception&) {
        ::_exit(1);
    }
}

// What the process said before it was killed, after so many reports at the least.
std::vector<std::string> kill_after(const Home& home, std::uint64_t seed, std::size_t reports) {
    int pipe[2];
    REQUIRE(::pipe(pipe) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        ::close(pipe[0]);
        work_for_ever(home, seed, pipe[1]);
    }
    ::close(pipe[1]);
    std::string said;
    std::size_t lines = 0;
    char buffer[4096];
    for (;;) {
        const ssize_t size = ::read(pipe[0], buffer, sizeof buffer);
        if (size <= 0) break;
        said.append(buffer, static_cast<std::size_t>(size));
        lines = static_cast<std::size_t>(std::count(said.begin(), said.end(), '\n'));
        if (lines >= reports) ::kill(child, SIGKILL);
    }
    ::close(pipe[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    REQUIRE(lines >= reports);
    REQUIRE(WIFSIGNALED(status));
    std::vector<std::string> all;
    std::istringstream in(said);
    for (std::string line; std::getline(in, line);) all.push_back(line);
    return all;
}

}  // namespace

TEST_CASE(
    "a process that is killed in the middle loses no ticket, leaves none half, uses none twice") {
    Home home(GENERATE(HomeKind::sqlite, HomeKind::postgres));
    home.open();
    Random random(20251121);
    std::map<std::string, Step> last;
    std::map<std::string, int> uses;
    for (std::uint64_t round = 0; round < 6; ++round) {
        for (const std::string& line : kill_after(home, round, 60 + random.next() % 60)) {
            const std::string id = line.substr(1);
            if (line[0] == 'o') CHECK(last.emplace(id, Step::opened).second);
            if (line[0] == 'a') last.at(id) = Step::approved;
            if (line[0] == 'w') last.at(id) = Step::withdrawn;
            if (line[0] == 'u') {
                last.at(id) = Step::used;
                ++uses[id];
            }
        }
        const auto store = home.open();
        // At most the step that was under way is not reported, or reported and a step further.
        std::size_t ahead = 0;
        for (const auto& [id, step] : last) {
            const auto ticket = store->find(id);
            REQUIRE(ticket);
            CAPTURE(id, state_name(ticket->state));
            switch (step) {
                case Step::opened: ahead += ticket->state == State::pending ? 0 : 1; break;
                case Step::approved: ahead += ticket->state == State::approved ? 0 : 1; break;
                case Step::used: CHECK(ticket->state == State::used); break;
                case Step::withdrawn: CHECK(ticket->state == State::withdrawn); break;
            }
        }
        // One for each process that was killed.
        CHECK(ahead <= round + 1);
    }
    const auto store = home.open();
    const auto all_open = store->open_tickets(100'000).value();
    const auto all_ended = store->ended(100'000).value();
    CHECK(all_open.size() + all_ended.size() >= last.size());
    CHECK(all_open.size() + all_ended.size() <= last.size() + 6);
    // What is still approved is used up now: each once, and none that was used before.
    for (int binding = 0; binding < 5; ++binding)
        while (const auto used = store
                                     ->claim("b" + std::to_string(binding),
                                             [](const Ticket& ticket) -> std::optional<Ticket> {
                                                 if (!claimable(ticket, claim_of(ticket, false),
                                                                claim_time))
                                                     return std::nullopt;
                                                 return claimed(ticket, claim_time);
                                             })
                                     .value())
            ++uses[used->id];
    for (const auto& [id, count] : uses) {
        CAPTURE(id);
        CHECK(count == 1);
    }
    CHECK_FALSE(uses.empty());
}

TEST_CASE("of processes that claim the same approvals at once each is taken by one") {
    Home home(GENERATE(HomeKind::sqlite, HomeKind::postgres));
    constexpr int tickets = 40, processes = 3;
    {
        const auto store = home.open();
        for (int i = 0; i < tickets; ++i) {
            const std::string id = store
                                       ->open(
                                           "b1",
                                           [](std::string name) {
                                               return opened(request_of_alice(), std::move(name),
                                                             "one", start_time);
                                           },
                                           [](const Ticket&) { return std::nullopt; })
                                       .value()
                                       .id;
            store
                ->update(id,
                         [](const Ticket& ticket) {
                             return voted(ticket, bob(), true, "", start_time + 1s);
                         })
                .value();
        }
    }
    int pipe[2];
    REQUIRE(::pipe(pipe) == 0);
    std::vector<pid_t> children;
    for (int i = 0; i < processes; ++i) {
        children.push_back(::fork());
        REQUIRE(children.back() >= 0);
        if (children.back() != 0) continue;
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        try {
            const auto store = home.open();
            while (const auto used = store
                                         ->claim("b1",
                                                 [](const Ticket& ticket) -> std::optional<Ticket> {
                                                     if (!claimable(ticket, claim_of(ticket, false),
                                                                    claim_time))
                                                         return std::nullopt;
                                                     return claimed(ticket, claim_time);
                                                 })
                                         .value())
                report(pipe[1], 'u', used->id);
        } catch (const std::exception&) {
            ::_exit(1);
        }
        ::_exit(0);
    }
    ::close(pipe[1]);
    std::string said;
    char buffer[4096];
    for (ssize_t size = 0; (size = ::read(pipe[0], buffer, sizeof buffer)) > 0;)
        said.append(buffer, static_cast<std::size_t>(size));
    ::close(pipe[0]);
    for (const pid_t child : children) {
        int status = 0;
        ::waitpid(child, &status, 0);
        CHECK(status == 0);
    }
    std::map<std::string, int> uses;
    std::istringstream in(said);
    for (std::string line; std::getline(in, line);) ++uses[line];
    CHECK(uses.size() == tickets);
    for (const auto& [id, count] : uses) CHECK(count == 1);
}
