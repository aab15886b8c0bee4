// Old files become compressed ones, and at no moment is a line of them missing.

#include "logs.h"

#include "audit/log_files.h"
#include "audit/packer.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

using namespace pgchaperone::test;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;

namespace {

// A log of several old files with so many lines in each.
void make_old_files(const std::filesystem::path& log, int files, std::uint64_t lines) {
    for (int i = 0; i < files; ++i) {
        Log writer(log);
        for (std::uint64_t n = 0; n + 1 < lines; ++n) writer.submit(n, std::string(300, 'x'));
        CHECK(writer.store(lines).empty());
        writer.writer->close();
        std::filesystem::rename(log, unused_old_name(log, std::chrono::system_clock::time_point()));
    }
}

template <class Condition>
bool comes(Condition condition) {
    for (int i = 0; i < 1000; ++i) {
        if (condition()) return true;
        std::this_thread::sleep_for(10ms);
    }
    return false;
}

std::size_t count_names(const std::filesystem::path& log, const std::string& ending) {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(log.parent_path()))
        count += entry.path().string().ends_with(ending) ? 1 : 0;
    return count;
}

std::uint64_t lines_in_order(const std::filesystem::path& log) {
    ChainPoint head;
    for (const auto& file : files_of_log(log)) {
        const Verification result = verify(file, head);
        INFO(file << ":" << result.line << ": " << result.problem);
        REQUIRE(result.outcome == Verification::Outcome::intact);
        head = result.head;
    }
    return head.seq;
}

}  // namespace

TEST_CASE("old files are compressed and read as before") {
    const Folder folder;
    const auto log = folder / "audit.jsonl";
    make_old_files(log, 3, 100);
    write_file(folder / "audit.jsonl.1", "somebody else's");
    {
        Packer packer({log, true, 0, {}});
        CHECK(comes([&] { return count_names(log, ".gz") == 3 && old_files(log).size() == 3; }));
    }
    CHECK(count_names(log, "Z") == 0);
    CHECK(read_file(folder / "audit.jsonl.1") == "somebody else's");
    CHECK(lines_in_order(log) == 300);
    struct stat status {};
    REQUIRE(::stat(old_files(log)[0].c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0600);
    CHECK(static_cast<std::size_t>(status.st_size) < 100 * 300);
}

TEST_CASE("what an earlier run has left half done is done again") {
    const Folder folder;
    const auto log = folder / "audit.jsonl";
    make_old_files(log, 2, 10);
    const auto files = old_files(log);
    write_file(files[0].string() + ".gz", "half of a compressed file");
    write_file(files[1].string() + ".gz.tmp", "half of another");
    CHECK(lines_in_order(log) == 20);
    Packer packer({log, true, 0, {}});
    CHECK(comes([&] { return count_names(log, "Z") == 0 && count_names(log, "-2") == 0; }));
    CHECK(comes([&] { return count_names(log, ".tmp") == 0; }));
    CHECK(lines_in_order(log) == 20);
}

TEST_CASE("only so many old files are kept, compressed or not") {
    const Folder folder;
    const auto log = folder / "audit.jsonl";
    const bool compress = GENERATE(true, false);
    make_old_files(log, 5, 3);
    write_file(folder / "audit.jsonl.1", "somebody else's");
    Packer packer({log, compress, 2, {}});
    CHECK(comes([&] { return old_files(log).size() == 2; }));
    CHECK(read_file(folder / "audit.jsonl.1") == "somebody else's");
    const auto files = old_files(log);
    CHECK(verify(files[0]).begin.seq == 9);
    make_old_files(log, 1, 3);
    CHECK(old_files(log).size() == 3);
    packer.look();
    CHECK(comes([&] { return old_files(log).size() == 2; }));
    CHECK(verify(old_files(log)[0]).begin.seq == 12);
}

TEST_CASE("a file that can't be compressed stays, and that is told once") {
    const Folder folder;
    const auto log = folder / "audit.jsonl";
    make_old_files(log, 1, 3);
    // Nobody, not even root, opens a directory for writing.
    std::filesystem::create_directory(old_files(log)[0].string() + ".gz.tmp");
    std::mutex mutex;
    std::vector<std::string> notices;
    const auto told = [&] {
        const std::lock_guard lock(mutex);
        return notices;
    };
    {
        Packer packer({log, true, 0, [&](std::string_view text) {
                           const std::lock_guard lock(mutex);
                           notices.emplace_back(text);
                       }});
        CHECK(comes([&] { return !told().empty(); }));
        packer.look();
        std::this_thread::sleep_for(50ms);
    }
    REQUIRE(told().size() == 1);
    CHECK_THAT(told()[0], ContainsSubstring("cannot compress") && ContainsSubstring("directory") &&
                              ContainsSubstring("it stays as it is"));
    CHECK(lines_in_order(log) == 3);
}

TEST_CASE("a kill while files are compressed loses nothing") {
    const Folder folder;
    const auto log = folder / "audit.jsonl";
    make_old_files(log, 4, 4000);
    for (int round = 0; round < 40 && count_names(log, ".gz") < 4; ++round) {
        const pid_t child = ::fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            Packer packer({log, true, 0, {}});
            for (;;) ::pause();
        }
        std::this_thread::sleep_for(std::chrono::microseconds(1000 + 701 * (round % 13)));
        ::kill(child, SIGKILL);
        ::waitpid(child, nullptr, 0);
        REQUIRE(lines_in_order(log) == 16'000);
    }
}

TEST_CASE("ending does not wait for what is being compressed, and leaves it whole") {
    const Folder folder;
    const auto log = folder / "audit.jsonl";
    make_old_files(log, 1, 20'000);
    { Packer packer({log, true, 0, {}}); }
    CHECK(count_names(log, ".tmp") == 0);
    CHECK(lines_in_order(log) == 20'000);
}
