// Runs the simulator: see usage(). The exit status is 1 when something was violated.

#include "sim/simulation.h"

#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

using namespace pgchaperone;
using namespace pgchaperone::sim;

namespace {

constexpr unsigned jobs_max = 64;

void usage() {
    std::puts(
        "usage: sim [--seeds N] [--from K] [--jobs J] | --seed K [--trace] [--shrink]\n"
        "\n"
        "--seeds N   run N seeds (default 500), from seed --from K (default 1), on --jobs J "
        "threads\n"
        "--seed K    run one seed and print what it does\n"
        "--trace     with every message (else the last 60 lines)\n"
        "--shrink    drop what a failing seed does not need to fail\n"
        "--policy P  with the policy of that number for every seed\n"
        "--quiet     do not show the first failing seed\n"
        "--keep-going   do not stop at the first failing seed");
}

struct Options {
    std::uint64_t seeds = 500;
    std::uint64_t from = 1;
    unsigned jobs = 1;
    std::uint64_t seed = 0;
    bool one = false;
    bool trace = false;
    bool shrink = false;
    bool keep_going = false;
    bool quiet = false;
    std::optional<std::size_t> policy;

    Plan plan(std::uint64_t number) const {
        Plan made = make_plan(number);
        if (policy) made.policy = *policy;
        return made;
    }
};

bool read_options(int argc, char** argv, Options& options) {
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        const auto number = [&](auto& into) {
            if (++i >= argc) return false;
            const char* const end = argv[i] + std::strlen(argv[i]);
            return std::from_chars(argv[i], end, into).ptr == end;
        };
        bool ok = true;
        if (word == "--seeds") {
            ok = number(options.seeds);
        } else if (word == "--from") {
            ok = number(options.from);
        } else if (word == "--jobs") {
            ok = number(options.jobs) && options.jobs > 0 && options.jobs <= jobs_max;
        } else if (word == "--seed") {
            ok = options.one = number(options.seed);
        } else if (word == "--policy") {
            ok = number(options.policy.emplace()) && *options.policy < policy_cases().size();
        } else if (word == "--trace") {
            options.trace = true;
        } else if (word == "--shrink") {
            options.shrink = true;
        } else if (word == "--keep-going") {
            options.keep_going = true;
        } else if (word == "--quiet") {
            options.quiet = true;
        } else {
            ok = false;
        }
        if (!ok) return false;
    }
    return true;
}

// One engine for each policy; not shared between threads.
class Engines {
public:
    policy::Engine& operator[](std::size_t policy) {
        auto& engine = engines_[policy];
        if (!engine) engine = engine_for(policy_cases().at(policy));
        return *engine;
    }

private:
    std::map<std::size_t, std::unique_ptr<policy::Engine>> engines_;
};

// SIGPROF after so many seconds of the processor's time, and not of the clock's: a busy machine or
// a sanitizer makes a run slow, and not endless. 0: never.
void limit_cpu(int seconds) {
    itimerval limit{};
    limit.it_value.tv_sec = seconds;
    setitimer(ITIMER_PROF, &limit, nullptr);
}

// What a plan's run violates, when it may take the process down or never end: in a process of its
// own.
std::string violation_in_a_child(const Plan& plan, policy::Engine& engine) {
    std::array<int, 2> ends{};
    if (pipe(ends.data()) != 0) return {};
    const pid_t child = fork();
    if (child == 0) {
        for (const int signal : {SIGPROF, SIGABRT, SIGSEGV, SIGBUS}) std::signal(signal, SIG_DFL);
        close(STDERR_FILENO);
        limit_cpu(2);
        const std::string violation = run(plan, engine).violation;
        [[maybe_unused]] const auto written = write(ends[1], violation.data(), violation.size());
        _exit(0);
    }
    close(ends[1]);
    std::string violation;
    std::array<char, 512> buffer;
    for (ssize_t size = 0; (size = read(ends[0], buffer.data(), buffer.size())) > 0;) {
        violation.append(buffer.data(), static_cast<std::size_t>(size));
    }
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {
        return WTERMSIG(status) == SIGPROF ? "the core never returns" : "the process died";
    }
    return violation;
}

int show(Plan plan, bool everything, bool smaller) {
    Engines engines;
    policy::Engine& engine = engines[plan.policy];
    if (smaller) {
        const auto violation_of = [&](const Plan& candidate) {
            return violation_in_a_child(candidate, engine);
        };
        plan = shrink(plan, violation_of);
        const std::string violation = violation_of(plan);
        if (violation.starts_with("the core never") || violation.starts_with("the process died")) {
            std::printf("seed %llu\n%sVIOLATED: %s\n", static_cast<unsigned long long>(plan.seed),
                        to_text(plan).c_str(), violation.c_str());
            return 1;
        }
    }
    const Result result = run(plan, engine, everything ? 1'000'000 : 60);
    std::printf("seed %llu\n%s", static_cast<unsigned long long>(plan.seed), to_text(plan).c_str());
    std::puts(everything ? "trace:" : "the last lines of its trace:");
    for (const std::string& line : result.trace) std::printf("  %s\n", line.c_str());
    std::printf(
        "%s\nsteps %llu, commits %zu, refusals %zu, cancels that hit %zu, %s\n",
        result.violation.empty() ? "everything held" : ("VIOLATED: " + result.violation).c_str(),
        static_cast<unsigned long long>(result.steps), result.commits, result.refusals,
        result.cancels_hit,
        result.compared ? "the same as without a guard" : "not comparable to the end");
    return result.violation.empty() ? 0 : 1;
}

// The seeds that are being run, for the case that one of them takes the process down, or never
// ends.
std::array<std::atomic<std::uint64_t>, jobs_max> running_seeds{};
constexpr int seconds_max = 4;

// Only what a signal handler may do.
extern "C" void say_seed_and_die(int signal) {
    const auto say = [](std::string_view text) {
        [[maybe_unused]] const auto written = write(STDERR_FILENO, text.data(), text.size());
    };
    say(signal == SIGPROF ? "no end: seed" : "died: seed");
    for (const auto& running : running_seeds) {
        std::uint64_t seed = running;
        if (seed == 0) continue;
        std::array<char, 24> digits;
        std::size_t at = digits.size();
        for (; seed > 0; seed /= 10) digits[--at] = static_cast<char>('0' + seed % 10);
        digits[--at] = ' ';
        say(std::string_view(digits.data() + at, digits.size() - at));
    }
    say("\n");
    _exit(1);
}

struct Tally {
    std::mutex mutex;
    std::uint64_t runs = 0;
    std::uint64_t compared = 0;
    std::uint64_t refusals = 0;
    std::uint64_t commits = 0;
    std::uint64_t cancels = 0;
    std::uint64_t cancels_of_guard = 0;
    std::map<std::uint64_t, std::string> failures;
};

void work(const Options& options, unsigned job, std::atomic<std::uint64_t>& next, Tally& tally) {
    Engines engines;
    while (true) {
        const std::uint64_t seed = next.fetch_add(1);
        running_seeds[job] = seed < options.from + options.seeds ? seed : 0;
        if (running_seeds[job] == 0) return;
        limit_cpu(seconds_max);
        const Plan plan = options.plan(seed);
        Result result = run(plan, engines[plan.policy]);
        if (result.violation.empty() && seed % 16 == 0 &&
            run(plan, engines[plan.policy]).digest != result.digest) {
            result.violation = "the same seed gave two different runs";
        }
        const std::lock_guard lock(tally.mutex);
        ++tally.runs;
        tally.compared += result.compared ? 1 : 0;
        tally.refusals += result.refusals;
        tally.commits += result.commits;
        tally.cancels += result.cancels_hit;
        tally.cancels_of_guard += result.cancels_hit_guard;
        if (!result.violation.empty()) {
            tally.failures[seed] = result.violation;
            if (options.quiet) {
                std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed),
                            result.violation.c_str());
                std::fflush(stdout);
            }
            if (!options.keep_going) next = options.from + options.seeds;
        }
    }
}

int run_many(const Options& options) {
    std::atomic<std::uint64_t> next{options.from};
    Tally tally;
    for (const int signal : {SIGPROF, SIGABRT, SIGSEGV, SIGBUS}) {
        std::signal(signal, say_seed_and_die);
    }
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < options.jobs; ++i) {
        threads.emplace_back([&, i] { work(options, i, next, tally); });
    }
    for (std::thread& thread : threads) thread.join();
    limit_cpu(0);
    std::printf(
        "%llu seeds: %llu the same as without a guard, %llu refusals, %llu commits, "
        "%llu cancels that hit (%llu the guard's own statements), %zu failures\n",
        static_cast<unsigned long long>(tally.runs),
        static_cast<unsigned long long>(tally.compared),
        static_cast<unsigned long long>(tally.refusals),
        static_cast<unsigned long long>(tally.commits),
        static_cast<unsigned long long>(tally.cancels),
        static_cast<unsigned long long>(tally.cancels_of_guard), tally.failures.size());
    std::fflush(stdout);
    if (tally.failures.empty()) return 0;
    for (const auto& [seed, what] : tally.failures) {
        if (!options.quiet)
            std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed), what.c_str());
    }
    if (options.quiet) return 1;
    std::puts("");
    return show(options.plan(tally.failures.begin()->first), false, true);
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    if (!read_options(argc, argv, options)) {
        usage();
        return 2;
    }
    if (options.one) return show(options.plan(options.seed), options.trace, options.shrink);
    return run_many(options);
}
