// Runs the simulator: see usage(). The exit status is 1 when something was violated.

#include "sim/simulation.h"

#include <algorithm>
#include <atomic>
#include <charconv>
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
            ok = number(options.jobs) && options.jobs > 0;
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

int show(Plan plan, bool everything, bool smaller) {
    Engines engines;
    policy::Engine& engine = engines[plan.policy];
    if (smaller) plan = shrink(plan, engine);
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

struct Tally {
    std::mutex mutex;
    std::uint64_t runs = 0;
    std::uint64_t compared = 0;
    std::uint64_t refusals = 0;
    std::uint64_t commits = 0;
    std::uint64_t cancels = 0;
    std::map<std::uint64_t, std::string> failures;
};

void work(const Options& options, std::atomic<std::uint64_t>& next, Tally& tally) {
    Engines engines;
    while (true) {
        const std::uint64_t seed = next.fetch_add(1);
        if (seed >= options.from + options.seeds) return;
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
        if (!result.violation.empty()) {
            tally.failures[seed] = result.violation;
            if (!options.keep_going) next = options.from + options.seeds;
        }
    }
}

int run_many(const Options& options) {
    std::atomic<std::uint64_t> next{options.from};
    Tally tally;
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < options.jobs; ++i) {
        threads.emplace_back([&] { work(options, next, tally); });
    }
    for (std::thread& thread : threads) thread.join();
    std::printf(
        "%llu seeds: %llu the same as without a guard, %llu refusals, %llu commits, "
        "%llu cancels that hit, %zu failures\n",
        static_cast<unsigned long long>(tally.runs),
        static_cast<unsigned long long>(tally.compared),
        static_cast<unsigned long long>(tally.refusals),
        static_cast<unsigned long long>(tally.commits),
        static_cast<unsigned long long>(tally.cancels), tally.failures.size());
    if (tally.failures.empty()) return 0;
    for (const auto& [seed, what] : tally.failures) {
        std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed), what.c_str());
    }
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
