// A log that becomes old files: by size, by time, while it is written and while nobody writes.

#include "logs.h"

#include "audit/line.h"
#include "audit/log_files.h"

#include <zlib.h>

#include <cerrno>
#include <set>
#include <thread>

using namespace pgchaperone::test;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;

namespace {

using Time = std::chrono::system_clock::time_point;

// The time that a test sets; read on the writer's thread.
struct Clock {
    std::atomic<Time> now = *parse_time("2026-11-21T10:00:00Z");
    std::function<WriterOptions(WriterOptions)> with(
        const std::function<void(WriterOptions&)>& change) {
        return [this, change](WriterOptions options) {
            options.clock = [this] { return now.load(); };
            change(options);
            return options;
        };
    }
    void pass(std::chrono::milliseconds time) { now = now.load() + time; }
};

// All files in their order are one chain, of so many lines.
void check_chain(const std::filesystem::path& log, std::uint64_t lines) {
    std::optional<ChainPoint> head = ChainPoint{};
    std::uint64_t count = 0;
    for (const auto& file : files_of_log(log)) {
        const Verification result = verify(file, head);
        INFO(file << ":" << result.line << ": " << result.problem);
        REQUIRE(result.outcome == Verification::Outcome::intact);
        head = result.head;
        count += result.lines;
    }
    CHECK(count == lines);
}

void compress(const std::filesystem::path& file) {
    const std::string content = read_file(file);
    const gzFile out = gzopen((file.string() + ".gz").c_str(), "wb");
    REQUIRE(out != nullptr);
    REQUIRE(gzwrite(out, content.data(), static_cast<unsigned>(content.size())) ==
            static_cast<int>(content.size()));
    REQUIRE(gzclose(out) == Z_OK);
    std::filesystem::remove(file);
}

}  // namespace

TEST_CASE("a log that is large enough goes on in a new file, and the chain with it") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Clock clock;
    Log log(clock.with([](WriterOptions& options) { options.rotate_bytes = 2000; }), file);
    for (std::uint64_t i = 1; i <= 40; ++i) CHECK(log.store(i).empty());
    const auto old = old_files(file);
    CHECK(old.size() > 5);
    std::set<std::string> names;
    for (const auto& one : old) {
        CHECK(is_own_old_name(file, one));
        CHECK(std::filesystem::file_size(one) >= 2000);
        CHECK(std::filesystem::file_size(one) < 3000);
        names.insert(one.filename().string());
    }
    // Within the same second, too.
    CHECK(names.contains("audit.jsonl.20261121T100000Z"));
    CHECK(names.contains("audit.jsonl.20261121T100000Z-2"));
    check_chain(file, 40);
    CHECK(log.all_notices().empty());
}

TEST_CASE("where the log stands is told outside it whenever a file is opened, left or closed") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Clock clock;
    std::mutex mutex;
    std::vector<std::uint64_t> told;
    const auto change = [&](WriterOptions options) {
        options.rotate_bytes = 2000;
        options.on_stand = [&](const ChainPoint& head) {
            const std::lock_guard lock(mutex);
            told.push_back(head.seq);
            // It is there at that time, and stays.
            const auto files = files_of_log(file);
            const auto holds = [&](const auto& one) {
                return verify(one, {}, head).contains_expected;
            };
            if (std::none_of(files.begin(), files.end(), holds)) told.push_back(0);
        };
        return options;
    };
    {
        Log log(change, file);
        for (std::uint64_t i = 1; i <= 3; ++i) CHECK(log.store(i).empty());
    }
    CHECK(told == std::vector<std::uint64_t>{3});  // nothing at the start, for nothing is there
    {
        Log log(change, file);
        for (std::uint64_t i = 4; old_files(file).empty(); ++i) CHECK(log.store(i).empty());
    }
    REQUIRE(told.size() == 4);
    CHECK(told[1] == 3);
    CHECK(told[2] == verify(old_files(file).front()).head.seq);
    CHECK(told[3] == verify(file).head.seq);
}

TEST_CASE("a log goes on in a new file when its time has come") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Clock clock;
    const auto daily = clock.with([](WriterOptions& options) { options.rotate_every = 24h; });
    {
        Log log(daily, file);
        const auto store = [&](std::uint64_t token) {
            log.time = clock.now;
            return log.store(token);
        };
        CHECK(store(1).empty());
        clock.pass(13h);
        CHECK(store(2).empty());
        CHECK(old_files(file).empty());  // 23:00
        clock.pass(90min);
        CHECK(store(3).empty());
        REQUIRE(old_files(file).size() == 1);
        check_intact(old_files(file)[0], 2);
        clock.pass(-48h);  // a clock that is set back rotates nothing
        CHECK(store(4).empty());
        CHECK(old_files(file).size() == 1);
        clock.pass(48h);
    }
    // What counts is when the first line was made, also after a restart.
    Log log(daily, file);
    log.time = clock.now;
    CHECK(log.store(5).empty());
    CHECK(old_files(file).size() == 1);
    clock.pass(24h);
    CHECK(log.store(6).empty());
    CHECK(old_files(file).size() == 2);
    check_chain(file, 6);
}

TEST_CASE("the day's file is put away though nothing is written the next day") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Log log(
        [](WriterOptions options) {
            options.rotate_every = 50ms;
            return options;
        },
        file);
    CHECK(log.store(1).empty());
    for (int i = 0; i < 200 && old_files(file).empty(); ++i) std::this_thread::sleep_for(10ms);
    CHECK(old_files(file).size() == 1);
    std::this_thread::sleep_for(200ms);
    CHECK(old_files(file).size() == 1);  // an empty file is not rotated
    CHECK(log.store(2).empty());
    log.writer->close();
    check_chain(file, 2);
}

TEST_CASE("a file that can't be rotated goes on, which is told once, and is rotated later") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Clock clock;
    FaultyDisk disk;
    disk.rename_error = EACCES;
    Log log(clock.with([](WriterOptions& options) { options.rotate_bytes = 1; }), file, &disk);
    for (std::uint64_t i = 1; i <= 4; ++i) {
        CHECK(log.store(i).empty());
        clock.pass(2min);
    }
    CHECK(old_files(file).empty());
    CHECK(log.notices.size() == 1);
    CHECK_THAT(log.all_notices(), ContainsSubstring("Permission denied; it goes on as it is"));
    disk.rename_error = 0;
    CHECK(log.store(5).empty());
    CHECK_THAT(log.all_notices(), ContainsSubstring("can be rotated again"));
    REQUIRE(old_files(file).size() == 1);
    check_intact(old_files(file)[0], 4);
    check_chain(file, 5);
}

TEST_CASE("nothing is rotated while the disk refuses") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Clock clock;
    FaultyDisk disk;
    Log log(clock.with([](WriterOptions& options) { options.rotate_bytes = 1; }), file, &disk);
    CHECK(log.store(1).empty());
    disk.sync_error = EIO;
    CHECK_FALSE(log.store(2).empty());  // rotated before it was written
    CHECK_FALSE(log.store(3).empty());
    CHECK(old_files(file).size() == 1);
    disk.sync_error = 0;
    CHECK(log.store(4).empty());
    check_chain(file, 3);
}

TEST_CASE("a chain goes on after a crash between two files") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    ChainPoint head;
    {
        Log log(file);
        for (std::uint64_t i = 1; i <= 5; ++i) CHECK(log.store(i).empty());
        head = log.writer->head();
    }
    const std::string where = GENERATE("renamed", "and a new one made", "renamed by logrotate",
                                       "with a date", "compressed");
    INFO(where);
    const auto old = where == "renamed by logrotate" ? folder / "audit.jsonl.1"
                     : where == "with a date"        ? folder / "audit.jsonl-20261121"
                                                     : unused_old_name(file, Time{});
    std::filesystem::rename(file, old);
    if (where == "and a new one made") write_file(file, "");
    if (where == "compressed") compress(old);
    Log log(file);
    CHECK(log.writer->head() == head);
    CHECK(log.store(6).empty());
    check_chain(file, 6);
}

TEST_CASE("where the end of the old files can't be read, no second chain is begun") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    {
        Log log(file);
        for (std::uint64_t i = 1; i <= 50; ++i) CHECK(log.store(i).empty());
    }
    const auto old = folder / "audit.jsonl.20261121T100000Z";
    std::filesystem::rename(file, old);
    compress(old);
    const auto compressed = folder / "audit.jsonl.20261121T100000Z.gz";
    const std::string whole = read_file(compressed);
    write_file(compressed, whole.substr(0, whole.size() / 2));
    WriterOptions options;
    options.file = file;
    const auto opened = Writer::open(options);
    REQUIRE(opened.has_error());
    CHECK_THAT(opened.error().text, ContainsSubstring(compressed.string()) &&
                                        ContainsSubstring("compressed bytes are cut off") &&
                                        ContainsSubstring("move it away"));
}

TEST_CASE("the files of a log are found by its name, in the order of their lines") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    const auto put = [&](const std::string& name, std::uint64_t seq) {
        write_file(folder / name, make_line(Record{}, {seq - 1, std::string(64, 'a')}, 100) + "\n");
    };
    put("audit.jsonl", 90);
    put("audit.jsonl.20261121T100000Z", 30);
    put("audit.jsonl.20251121T100000Z-2", 40);  // the clock was set back
    put("audit.jsonl.2", 20);
    put("audit.jsonl-20261121", 10);
    put("audit.jsonl.1", 50);
    put("audit.jsonl.20261121T110000Z", 60);
    put("audit.jsonl.20261121T110000Z.gz", 60);  // half done: the plain one counts
    put("audit.jsonl.20261121T120000Z", 70);
    compress(folder / "audit.jsonl.20261121T120000Z");
    for (const std::string other : {"audit.jsonl.bak", "audit.jsonl.torn-1", "audit.jsonl.gz",
                                    "audit.jsonl.20261121T100000Z.gz.tmp", "audit.jsonl2",
                                    "other.jsonl.1", "audit.jsonl.20261121T100000Z-"})
        put(other, 1);
    write_file(folder / "audit.jsonl.3", "");
    std::vector<std::string> names;
    for (const auto& one : files_of_log(file)) names.push_back(one.filename().string());
    CHECK(names == std::vector<std::string>{"audit.jsonl-20261121", "audit.jsonl.2",
                                            "audit.jsonl.20261121T100000Z",
                                            "audit.jsonl.20251121T100000Z-2", "audit.jsonl.1",
                                            "audit.jsonl.20261121T110000Z",
                                            "audit.jsonl.20261121T120000Z.gz", "audit.jsonl"});
    CHECK_FALSE(is_own_old_name(file, folder / "audit.jsonl.1"));
    CHECK(is_own_old_name(file, folder / "audit.jsonl.20261121T120000Z.gz"));
    CHECK(files_of_log(folder / "no/such/folder.jsonl").empty());
}

TEST_CASE("times are read back as they were written") {
    for (const std::string text : {"2026-11-21T02:03:04.123456Z", "1999-12-31T23:59:59.000000Z"})
        CHECK(to_text(*parse_time(text)) == text);
    CHECK(to_text(*parse_time("2026-02-28T00:00:00Z")) == "2026-02-28T00:00:00.000000Z");
    CHECK(to_text(*parse_time("2026-02-28T00:00:00.5Z")) == "2026-02-28T00:00:00.500000Z");
    for (const std::string text : {"", "2026-02-30T00:00:00Z", "2026-02-28", "2026-02-28T25:00:00Z",
                                   "2026-02-28T00:00:00", "2026-02-28T00:00:00Zx"})
        CHECK_FALSE(parse_time(text));
    CHECK(line_time(make_line(Record{}, {}, 100)) == Time{});
    CHECK_FALSE(line_time("{\"seq\":1}"));
}
