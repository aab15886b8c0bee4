#pragma once
// One run of a script: a model client, the real session core under a host made of queues, a model
// server, and a scheduler that decides by chance who goes on next and how many bytes travel. The
// clock is virtual. The same script, seed and settings give the same run, to the byte.
//
// What must hold is checked as it happens; the first violation ends the run with words.

#include "policy/engine.h"
#include "sim/policies.h"
#include "sim/script.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace pgchaperone::sim {

// What the world does beside the script.
struct Weather {
    std::size_t chunk_max = 64;  // bytes that travel in one step, at most
    bool late_verdicts = false;
    bool late_audit = false;
    bool audit_fails = false;      // now and then
    bool server_dies = false;      // at some moment
    bool server_talks = false;     // notices, notifications, ParameterStatus out of the blue
    bool early_deadlines = false;  // deadlines fire although something else could still happen
    bool connect_fails = false;
    bool counters_off = false;    // the server's track_counts
    bool guard_fails = false;     // what the guard sends of its own fails now and then
    bool late_store = false;      // tickets are kept, and decisions told, at some later time
    bool store_fails = false;     // now and then
    bool killed = false;          // the guard, at some moment, and its client with it
    bool direct_cancels = false;  // now and then a cancel reaches the server without the guard
    bool idle_timeout = false;    // of the server's
    bool glass = false;           // chaperone.reason is set
    bool time_limits = false;     // writes may only take so long
    // Who decides on tickets.
    enum class Approvers : std::uint8_t { willing, mixed, strict, absent };
    Approvers approvers = Approvers::willing;
    // Then the same client comes again with the same script, by a new session.
    bool again = false;
};

// Deliberate faults of the host or the server, to show that the checks can fail.
enum class Sabotage : std::uint8_t {
    none,
    allow_blocked,     // the host tells the core that a blocked statement is allowed
    skip_judge,        // the host sends a client's Query past the core
    swallow_ready,     // one ReadyForQuery on the way to the client is lost
    double_ready,      // or comes twice
    lose_verdict,      // the host never answers a Judge
    keep_server_open,  // the host never tells the server that the session has ended
    counters_lie,      // the server's counters show nothing
    wrong_status,      // ReadyForQuery says T for I and I for T
    change_tag,        // CommandComplete is changed on the way to the client
    hoard,             // the host gives the core more than it wants to take, again and again
    claim_unapproved,  // the store gives a ticket that nobody has approved
    claim_twice,       // or one that was used
    keep_trials,       // the server does not take back what was only tried
    forget_decision,   // an approval is never told
    forget_release,    // the store does not learn that nobody waits any more
    hurry_cancel,      // the core is told that a cancel is over before the server has seen it
    chance,            // something draws numbers that no seed governs
};

struct Plan {
    std::uint64_t seed = 0;
    std::size_t policy = 0;  // of policy_cases()
    Script script;
    Weather weather;
    Taste taste;
    Sabotage sabotage = Sabotage::none;
};

// Everything by chance from a seed.
Plan make_plan(std::uint64_t seed);
std::string to_text(const Plan& plan);

struct Result {
    std::string violation;  // empty: everything held
    std::uint64_t digest = 0;
    std::uint64_t steps = 0;
    std::size_t refusals = 0;
    std::size_t commits = 0;            // of transactions that changed something
    std::size_t cancels_hit = 0;        // cancels that made something fail
    std::size_t cancels_hit_guard = 0;  // and of these, something of the guard's own
    std::size_t tickets = 0;            // opened
    std::size_t approved_runs = 0;      // statements that ran by one
    bool compared = false;              // with the run without a guard, to the end
    std::vector<std::string> trace;
};

// `engine`: of the plan's policy; may be used for many runs. `trace_lines`: how many of the last
// lines to keep; 0: none, which is faster.
Result run(const Plan& plan, policy::Engine& engine, std::size_t trace_lines = 0);

// Drops steps and weather for as long as the run still fails in the same way, and returns what is
// left. `violation_of` runs a plan and says in words what was violated.
Plan shrink(const Plan& plan, const std::function<std::string(const Plan&)>& violation_of);

}  // namespace pgchaperone::sim
