// One log that several writers share, as when one guard takes over from another.

#include "logs.h"

#include "audit/line.h"
#include "audit/log_files.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <thread>

using namespace pgchaperone::audit;
using namespace pgchaperone::test;
using Catch::Matchers::ContainsSubstring;

namespace {

using Change = std::function<WriterOptions(WriterOptions)>;

Change with(std::shared_ptr<Turn> turn, const Change& more = {}) {
    return [turn, more](WriterOptions options) {
        options.turn = Turn::of_descriptor(turn->descriptor()).value();
        options.turn_patience = std::chrono::seconds(10);
        return more ? more(std::move(options)) : options;
    };
}

// All files of the log, in order, are one chain of so many lines.
void check_chain(const std::filesystem::path& log, std::uint64_t lines) {
    std::optional<ChainPoint> after;
    std::uint64_t found = 0;
    for (const auto& file : files_of_log(log)) {
        const Verification result = verify(file, after);
        INFO(file << ":" << result.line << ": " << result.problem);
        REQUIRE(result.outcome == Verification::Outcome::intact);
        found += result.lines;
        if (result.lines > 0) after = result.head;
    }
    CHECK(found == lines);
}

std::string problem_of_opening(const std::filesystem::path& file) {
    WriterOptions options;
    options.file = file;
    const auto opened = Writer::open(options);
    return opened.has_error() ? opened.error().text : std::string();
}

void wait_until_alone(const Writer& writer) {
    for (int i = 0; i < 500 && writer.shared(); ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    CHECK_FALSE(writer.shared());
}

// Dies in the middle of a write of its own.
class DeadlyDisk : public Disk {
public:
    explicit DeadlyDisk(bool whole) : whole_(whole) {}
    ssize_t write(int file, const char* bytes, std::size_t size) override {
        if (!whole_) {
            (void)Disk::write(file, bytes, size / 2);
            ::raise(SIGKILL);
        }
        return Disk::write(file, bytes, size);
    }
    int fdatasync(int) override { return ::raise(SIGKILL); }

private:
    bool whole_;
};

}  // namespace

TEST_CASE("two writers of one log take turns, and there is one chain without a gap") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Log one(file);
    REQUIRE(one.store(1).empty());
    const auto turn = one.writer->share().value();
    CHECK(one.writer->share().value() == turn);
    CHECK(turn->is_for(file));
    CHECK_FALSE(turn->is_for(folder / "other.jsonl"));
    {
        Log two(with(turn), file);
        CHECK(two.store(1).empty());
        CHECK(one.store(2).empty());
        CHECK(two.store(2).empty());
        std::vector<std::thread> threads;
        for (Log* const log : {&one, &two})
            threads.emplace_back([log] {
                for (std::uint64_t i = 100; i < 1100; ++i) {
                    log->submit(i);
                    if (i % 10 == 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
                }
            });
        for (std::thread& thread : threads) thread.join();
        two.writer->close();
        one.outcome(1099);
        CHECK(two.completed.size() == 1002);
        for (const auto& [token, problem] : two.completed) CHECK(problem.empty());
    }
    CHECK(one.completed.size() == 1002);
    check_chain(file, 2004);
    CHECK(one.all_notices().empty());
    // Both had their turn while the other was busy, too.
    CHECK(one.store(3).empty());
    CHECK(one.writer->head().seq == 2005);
}

TEST_CASE("who was not given the turn is refused, whoever of the two is there") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    auto one = std::make_unique<Log>(file);
    CHECK_THAT(problem_of_opening(file), ContainsSubstring("another process is writing it"));
    const auto turn = one->writer->share().value();
    CHECK_THAT(problem_of_opening(file), ContainsSubstring("another process is writing it"));
    Log two(with(turn), file);
    CHECK_THAT(problem_of_opening(file), ContainsSubstring("another process is writing it"));
    one.reset();
    CHECK_THAT(problem_of_opening(file), ContainsSubstring("another process is writing it"));
    CHECK(two.store(1).empty());
}

TEST_CASE("who is left alone has the log for itself again, and no sooner") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    auto one = std::make_unique<Log>(file);
    const auto turn = one->writer->share().value();
    Log two(with(turn), file);
    two.writer->share_no_more();
    CHECK(two.store(1).empty());
    CHECK(one->store(1).empty());
    CHECK(two.store(2).empty());
    CHECK(two.writer->shared());
    one.reset();
    wait_until_alone(*two.writer);
    CHECK(two.store(3).empty());
    CHECK_THAT(problem_of_opening(file), ContainsSubstring("another process is writing it"));
    check_chain(file, 4);
    // And once more, with the next.
    const auto next = two.writer->share().value();
    Log three(with(next), file);
    CHECK(three.store(1).empty());
    CHECK(two.store(4).empty());
    check_chain(file, 6);
}

TEST_CASE("a log whose disk hangs is not shared, and goes on alone when that is over") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    FaultyDisk disk;
    Log log(
        [](WriterOptions options) {
            options.turn_patience = std::chrono::milliseconds(500);
            return options;
        },
        file, &disk);
    disk.hold();
    CHECK(log.submit(1) == Submitted::accepted);
    for (int i = 0; i < 2000 && !disk.hangs; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    const auto none = log.writer->share();
    disk.release();
    REQUIRE(none.has_error());
    CHECK_THAT(none.error().text, ContainsSubstring("the audit log's disk hangs"));
    CHECK(log.outcome(1).empty());
    CHECK(log.store(2).empty());
    CHECK_FALSE(log.writer->shared());
    // The wish is forgotten, and another may be made.
    REQUIRE(log.writer->share().has_value());
    log.writer->share_no_more();
    wait_until_alone(*log.writer);
    check_chain(file, 2);
}

TEST_CASE("a hand-over that comes to nothing leaves the log as it was") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Log one(file);
    {
        const auto turn = one.writer->share().value();
        Log two(with(turn), file);
    }
    one.writer->share_no_more();
    wait_until_alone(*one.writer);
    CHECK(one.store(1).empty());
    check_chain(file, 1);
}

TEST_CASE("only who is in charge rotates, and the other follows into the new file") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    const Change small = [](WriterOptions options) {
        options.rotate_bytes = 4000;
        options.compress_old = true;
        options.keep_old = 0;
        return options;
    };
    Log one(small, file);
    const auto turn = one.writer->share().value();
    one.writer->take_charge(false);
    Log two(with(turn, small), file);
    for (std::uint64_t i = 1; i <= 40; ++i) REQUIRE(two.store(i).empty());
    for (std::uint64_t i = 1; i <= 40; ++i) REQUIRE(one.store(i).empty());
    // Nobody is: it grows.
    CHECK(files_of_log(file).size() == 1);
    two.writer->take_charge(true);
    for (std::uint64_t i = 41; i <= 80; ++i) {
        REQUIRE(one.store(i).empty());
        if (i % 4 == 0) REQUIRE(two.store(i).empty());
    }
    CHECK(files_of_log(file).size() >= 3);
    check_chain(file, 130);
}

TEST_CASE("somebody else's rotation is followed by both, once one of them is told") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Log one(file);
    Log two(with(one.writer->share().value()), file);
    REQUIRE(one.store(1).empty());
    std::filesystem::rename(file, folder / "audit.jsonl.1");
    CHECK(two.store(1).empty());
    CHECK_FALSE(std::filesystem::exists(file));
    two.writer->reopen();
    CHECK(two.store(2).empty());
    CHECK(one.store(2).empty());
    CHECK(lines_of(read_file(file)).size() == 2);
    check_chain(file, 4);
}

TEST_CASE("what somebody else puts into a log that two share is told as ever") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Log one(file);
    Log two(with(one.writer->share().value()), file);
    REQUIRE(one.store(1).empty());
    // A line that would follow, had the other one written it.
    const std::string last = lines_of(read_file(file)).back();
    std::string forged = last;
    forged.replace(forged.find("\"seq\":1"), 7, "\"seq\":2");
    forged.replace(forged.find(std::string(64, '0')), 64, sha_256_hex(last));
    write_file(file, last + '\n' + forged + '\n');
    CHECK(two.store(1).empty());
    CHECK_THAT(two.all_notices(), ContainsSubstring("somebody else changed the size"));
    CHECK(event_of(lines_of(read_file(file))[2]) == "changed");
    CHECK(verify(file).outcome == Verification::Outcome::broken);
}

TEST_CASE("who comes goes on from where the other stands, and not from what is in the file") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Log one(file);
    REQUIRE(one.store(1).empty());
    const std::string forged = make_line(Record{}, one.writer->head(), 100);
    const bool before = GENERATE(false, true);  // it is shared
    const bool with_events = GENERATE(false, true);
    CAPTURE(before, with_events);
    const auto forge = [&] { std::ofstream(file, std::ios::app) << forged << '\n'; };
    if (before) forge();
    const auto turn = one.writer->share().value();
    if (!before) forge();
    Log two(with(turn,
                 [&](WriterOptions options) {
                     if (with_events) options.at_start.push_back({"start", {}});
                     return options;
                 }),
            file);
    CHECK(two.store(1).empty());
    const Verification result = verify(file);
    CHECK(result.outcome == Verification::Outcome::broken);
    CHECK(result.line == 3);
    const auto lines = lines_of(read_file(file));
    REQUIRE(lines.size() == (with_events ? 5 : 4));
    CHECK(event_of(lines[2]) == "changed");
    CHECK(object_of(lines[2]).at("seq").as_int64() == 2);
    CHECK(one.store(2).empty());
    CHECK(object_of(lines_of(read_file(file)).back()).at("seq").as_int64() ==
          (with_events ? 5 : 4));
}

TEST_CASE("another file in a shared log's place is taken for the log by neither") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Log one(file);
    Log two(with(one.writer->share().value()), file);
    REQUIRE(one.store(1).empty());
    REQUIRE(two.store(1).empty());
    const ChainPoint head = one.store(2).empty() ? one.writer->head() : ChainPoint{};
    write_file(folder / "made", read_file(file) + make_line(Record{}, head, 100) + '\n');
    std::filesystem::rename(folder / "made", file);
    CHECK(two.store(2).empty());
    CHECK(one.store(3).empty());
    const auto lines = lines_of(read_file(file));
    REQUIRE(lines.size() == 7);
    CHECK(event_of(lines[4]) == "changed");
    CHECK(object_of(lines[4]).at("prev").as_string() == head.hash);
    CHECK(object_of(lines[6]).at("seq").as_int64() == 6);
    CHECK(verify(file).line == 5);
}

TEST_CASE("what a failed write of one has left is cut off by the other") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    FaultyDisk disk;
    Log one(file, &disk);
    REQUIRE(one.store(1).empty());
    Log two(with(one.writer->share().value()), file);
    disk.sync_error = EIO;
    disk.truncate_error = EIO;
    CHECK_FALSE(one.store(2).empty());
    CHECK(lines_of(read_file(file)).size() == 2);
    CHECK(two.store(1).empty());
    check_chain(file, 2);
    disk.sync_error = 0;
    disk.truncate_error = 0;
    CHECK(one.store(3).empty());
    CHECK(two.store(2).empty());
    // With the line that tells of what was refused.
    check_chain(file, 5);
}

TEST_CASE("a turn that does not come in time is a refusal, and the next one works") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    FaultyDisk disk;
    Log one(file, &disk);
    Log two(with(one.writer->share().value(),
                 [](WriterOptions options) {
                     options.turn_patience = std::chrono::milliseconds(50);
                     return options;
                 }),
            file);
    disk.hold();
    REQUIRE(one.submit(1) == Submitted::accepted);
    std::string problem;
    // The first may come before the other has its turn.
    for (std::uint64_t i = 1; problem.empty() && i < 100; ++i) problem = two.store(i);
    CHECK_THAT(problem, ContainsSubstring("does not let go of it"));
    disk.release();
    CHECK(one.outcome(1).empty());
    CHECK(two.store(1000).empty());
    CHECK(verify(file).outcome == Verification::Outcome::intact);
}

TEST_CASE("checkpoints of two that share a log speak for each line of both") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    REQUIRE(make_key_pair(folder / "key").empty());
    const auto key = std::make_shared<const Key>(Key::load_private(folder / "key").value());
    const Change sign = [key](WriterOptions options) {
        options.checkpoint_key = key;
        options.checkpoint_every = 5;
        return options;
    };
    {
        Log one(sign, file);
        for (std::uint64_t i = 1; i <= 3; ++i) REQUIRE(one.store(i).empty());
        Log two(with(one.writer->share().value(), sign), file);
        for (std::uint64_t i = 4; i <= 30; ++i) {
            REQUIRE(one.store(i).empty());
            if (i % 3 == 0) REQUIRE(two.store(i).empty());
        }
        one.writer->close();
        REQUIRE(two.store(100).empty());
    }
    SignatureCheck check;
    check.keys.push_back(Key::load_public(folder / "key.pub").value());
    const Verification result = verify(file, {}, {}, &check);
    INFO(result.line << ": " << result.problem);
    CHECK(result.outcome == Verification::Outcome::intact);
    CHECK(check.unsigned_lines.empty());
    CHECK(check.checkpoints > 5);
    CHECK(check.looked_at == result.head.seq);
}

TEST_CASE("who is killed in its turn leaves the other working, and a log that verifies") {
    const bool whole = GENERATE(false, true);
    CAPTURE(whole);
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    const auto turn = Turn::make(file).value();
    int go[2];
    REQUIRE(::pipe2(go, O_CLOEXEC) == 0);
    // Before there is a thread: the one that is killed.
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        char byte = 0;
        ::close(go[1]);
        if (::read(go[0], &byte, 1) != 1) ::_exit(1);
        DeadlyDisk disk(whole);
        WriterOptions options;
        options.file = file;
        options.disk = &disk;
        options.turn = turn;
        auto writer = Writer::open(std::move(options));
        if (!writer) ::_exit(2);
        Record record;
        record.statement = "DELETE FROM the_dead";
        (*writer)->submit(std::move(record), 1);
        ::sleep(20);
        ::_exit(3);
    }
    Log log(with(turn), file);
    CHECK(log.store(1).empty());
    REQUIRE(::write(go[1], "x", 1) == 1);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
    ::close(go[0]);
    ::close(go[1]);
    CHECK(log.store(2).empty());
    check_chain(file, 3);
    const auto lines = lines_of(read_file(file));
    if (whole) {
        // All that was to be written is there: as at a start it stays.
        CHECK_THAT(lines[1], ContainsSubstring("the_dead"));
        CHECK(log.all_notices().empty());
    } else {
        CHECK(event_of(lines[1]) == "torn");
        CHECK_THAT(log.all_notices(), ContainsSubstring("was torn"));
        CHECK(std::filesystem::exists(file.string() + ".torn-1"));
    }
    log.writer->share_no_more();
    wait_until_alone(*log.writer);
    CHECK(log.store(3).empty());
}

TEST_CASE("a descriptor of something else is no turn") {
    const Folder folder;
    CHECK(Turn::of_descriptor(-1).has_error());
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    CHECK(Turn::of_descriptor(ends[0]).has_error());
    ::close(ends[0]);
    ::close(ends[1]);
    const auto turn = Turn::make(folder / "audit.jsonl").value();
    // Of another layout.
    const std::uint64_t other = 1;
    void* const page = ::mmap(nullptr, sizeof other, PROT_READ | PROT_WRITE, MAP_SHARED,
                              turn->descriptor(), 0);
    REQUIRE(page != MAP_FAILED);
    *static_cast<std::uint64_t*>(page) = other;
    ::munmap(page, sizeof other);
    const auto opened = Turn::of_descriptor(turn->descriptor());
    REQUIRE(opened.has_error());
    CHECK_THAT(opened.error().text, ContainsSubstring("another version"));
}
