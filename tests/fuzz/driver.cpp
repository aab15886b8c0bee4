// Runs a fuzz target without libFuzzer: every file and folder given, then seeded random inputs, of
// which each is an input that makes sense with a few bytes changed, cut or doubled. It learns
// nothing from coverage; it finds what is near the surface, in every test run. An input that fails,
// or takes longer than a minute, is told by its seed.
//
//   NAME [--runs N | --seconds N] [--seed S|random] [--write FOLDER] [FILE|FOLDER]...
//
// --seed random tries other inputs in each run: those of S, S+1 and so on, of an S that is told.
// With --write it tries nothing: it writes N inputs that make sense into the folder, from which a
// fuzzer that learns from coverage begins.

#include "fuzz/driver.h"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

namespace {

using pgchaperone::test::Random;

constexpr unsigned longest_run_s = 60;

std::uint64_t running_seed = 0;

// Ends the program as it would have ended without.
void tell_seed(int signal) {
    char text[100];
    const int size = std::snprintf(text, sizeof text, "%srun it again with --runs 1 --seed %llu\n",
                                   signal == SIGALRM ? "it takes too long; " : "",
                                   static_cast<unsigned long long>(running_seed));
    if (::write(STDERR_FILENO, text, static_cast<std::size_t>(size)) < 0) return;
    ::raise(signal);
}

// Sanitizers abort too where they are told to (abort_on_error=1); a handler that they have of their
// own says more than ours. A stack that has overflowed is no place to tell anything from.
void tell_seed_at_the_end() {
    static char stack[64 * 1024];
    const stack_t other{stack, 0, sizeof stack};
    ::sigaltstack(&other, nullptr);
    for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM}) {
        struct sigaction before {
        }, ours{};
        ::sigaction(signal, nullptr, &before);
        if (before.sa_handler != SIG_DFL) continue;
        ours.sa_handler = tell_seed;
        ours.sa_flags = static_cast<int>(SA_ONSTACK | SA_RESETHAND);
        ::sigaction(signal, &ours, nullptr);
    }
}

std::uint64_t seed_of(std::string_view text) {
    if (text != "random") return std::strtoull(std::string(text).c_str(), nullptr, 10);
    std::random_device device;
    return device();
}

// Runs it from a block of exactly its size, so that the address sanitizer sees the first byte read
// behind it.
void run(const std::string& input) {
    const std::vector<std::uint8_t> exact{input.begin(), input.end()};
    LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

std::string read_file(const std::filesystem::path& path) {
    std::ifstream in{path, std::ios::binary};
    if (!in) {
        std::cerr << path << " can't be read\n";
        std::exit(2);
    }
    return {std::istreambuf_iterator<char>{in}, {}};
}

std::size_t run_files(const std::filesystem::path& path) {
    if (!std::filesystem::is_directory(path)) {
        run(read_file(path));
        return 1;
    }
    std::size_t files = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator{path}) {
        if (!entry.is_regular_file()) continue;
        run(read_file(entry.path()));
        ++files;
    }
    return files;
}

void corrupt(std::string& input, Random& random) {
    if (input.empty()) return;
    const std::size_t at = random.below(input.size());
    switch (random.below(5)) {
        case 0: input[at] = random.bytes(1)[0]; break;
        case 1: input[at] = static_cast<char>(input[at] ^ (1 << random.below(8))); break;
        case 2: input.resize(at); break;
        case 3: input.insert(at, random.bytes(random.between(1, 4))); break;
        case 4: input.insert(at, input.substr(random.below(input.size()), 64)); break;
    }
}

std::string input_of(std::uint64_t seed) {
    Random random{seed};
    std::string input = random.one_in(8) ? random.bytes(random.below(100))
                                         : pgchaperone_fuzz_seed(random);
    for (std::size_t n = random.below(6); n > 0; --n) corrupt(input, random);
    return input;
}

void write_seeds(const std::filesystem::path& folder, std::uint64_t first, std::uint64_t count) {
    std::filesystem::create_directories(folder);
    for (std::uint64_t i = first; i < first + count; ++i) {
        Random random{i};
        std::ofstream out{folder / ("seed_" + std::to_string(i)), std::ios::binary};
        out << pgchaperone_fuzz_seed(random);
        if (!out.flush()) {
            std::cerr << folder << " can't be written to\n";
            std::exit(2);
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    using Clock = std::chrono::steady_clock;
    std::uint64_t runs = 10'000;
    std::uint64_t seed = 1;
    std::optional<std::chrono::seconds> time;
    std::string folder;
    std::size_t files = 0;
    for (int i = 1; i < argc; ++i) {
        const std::string_view argument = argv[i];
        const bool has_value = i + 1 < argc;
        if (argument == "--runs" && has_value) {
            runs = std::strtoull(argv[++i], nullptr, 10);
        } else if (argument == "--seconds" && has_value) {
            time = std::chrono::seconds(std::strtoull(argv[++i], nullptr, 10));
        } else if (argument == "--seed" && has_value) {
            seed = seed_of(argv[++i]);
        } else if (argument == "--write" && has_value) {
            folder = argv[++i];
        } else if (argument.substr(0, 2) == "--") {
            std::cerr << "usage: " << argv[0]
                      << " [--runs N | --seconds N] [--seed S|random] [--write FOLDER] "
                         "[FILE|FOLDER]...\n";
            return 2;
        } else {
            files += run_files(argument);
        }
    }
    if (!folder.empty()) {
        write_seeds(folder, seed, runs);
        return 0;
    }
    tell_seed_at_the_end();
    const Clock::time_point begin = Clock::now();
    std::uint64_t done = 0;
    for (; time ? Clock::now() - begin < *time : done < runs; ++done) {
        running_seed = seed + done;
        ::alarm(longest_run_s);
        run(input_of(running_seed));
    }
    ::alarm(0);
    std::cout << files << " files and " << done << " random inputs from seed " << seed << " on\n";
    return 0;
}
