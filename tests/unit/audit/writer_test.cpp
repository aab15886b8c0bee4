// The audit log under good and bad circumstances, on real files.

#include "logs.h"

#include "audit/line.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

using namespace pgchaperone::audit;
using namespace pgchaperone::test;
using Catch::Matchers::ContainsSubstring;

namespace {

std::string open_problem(const std::filesystem::path& file) {
    WriterOptions options;
    options.file = file;
    const auto opened = Writer::open(options);
    REQUIRE(opened.has_error());
    return opened.error().text;
}

}  // namespace

TEST_CASE("records are in the file, in order and chained, once they are reported") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Log log(file);
    for (std::uint64_t i = 1; i <= 100; ++i)
        REQUIRE(log.submit(i, "DELETE " + std::to_string(i)) == Submitted::accepted);
    CHECK(log.outcome(100).empty());
    const auto lines = lines_of(read_file(file));
    REQUIRE(lines.size() == 100);
    for (std::size_t i = 0; i < lines.size(); ++i) {
        CHECK(object_of(lines[i]).at("seq").as_int64() == static_cast<std::int64_t>(i) + 1);
        CHECK(object_of(lines[i]).at("statement").as_string() == "DELETE " + std::to_string(i + 1));
        CHECK(log.order[i] == i + 1);
    }
    check_intact(file, 100);
    CHECK(log.writer->head() == verify(file).head);
    struct stat status {};
    REQUIRE(::stat(file.c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0600);
    CHECK(log.all_notices().empty());
}

TEST_CASE("records that come while the disk is busy share one flush") {
    const Folder folder;
    FaultyDisk disk;
    Log log(folder / "audit.jsonl", &disk);
    REQUIRE(log.store(0).empty());
    disk.hold();
    const int before = disk.syncs;
    for (std::uint64_t i = 1; i <= 500; ++i) REQUIRE(log.submit(i) == Submitted::accepted);
    disk.release();
    CHECK(log.outcome(500).empty());
    // The first of them may have been on its way already.
    CHECK(disk.syncs - before <= 2);
    check_intact(folder / "audit.jsonl", 501);
}

TEST_CASE("many threads submit and each record is reported once") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Log log(file);
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < 4; ++t)
        threads.emplace_back([&log, t] {
            for (std::uint64_t i = 0; i < 500; ++i) log.submit(t * 1000 + i);
        });
    for (std::thread& thread : threads) thread.join();
    log.writer->close();
    CHECK(log.completed.size() == 2000);
    CHECK(log.reported_twice == 0);
    check_intact(file, 2000);
    CHECK(log.submit(9999) == Submitted::closed);
}

TEST_CASE("the chain goes on after a restart") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    for (std::uint64_t run = 0; run < 3; ++run) {
        Log log(file);
        CHECK(log.store(1).empty());
        CHECK(log.store(2, std::string(400'000, 'x')).empty());
    }
    check_intact(file, 6);
}

TEST_CASE("a torn last line is set aside, told in the log, and the chain goes on") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    {
        Log log(file);
        log.store(1);
        log.store(2);
    }
    const std::string whole = read_file(file);
    const auto lines = lines_of(whole);
    std::vector<std::string> torn = {
        std::string(1, '{'),     lines[1].substr(0, 50),       lines[1],
        std::string(4096, '\0'), std::string(10, '\0') + "\n", "{\"seq\":3,\"prev\"\n{\"seq\":4"};
    int kept = 0;
    for (const std::string& tail : torn) {
        INFO(tail);
        const bool damaged = tail.find('\n') != std::string::npos;
        write_file(file, whole + tail);
        {
            Log log(file);
            CHECK_THAT(log.all_notices(),
                       ContainsSubstring(damaged ? "damaged lines" : "was torn"));
            CHECK(log.store(3).empty());
        }
        check_intact(file, 4);
        const auto event = object_of(lines_of(read_file(file))[2]);
        CHECK(event.contains("lines") == damaged);
        CHECK(event.at("event").as_string() == "torn");
        CHECK(event.at("bytes").as_int64() == static_cast<std::int64_t>(tail.size()));
        CHECK(event.at("sha256").as_string() == sha_256_hex(tail).c_str());
        const std::string where = file.string() + ".torn-" + std::to_string(++kept);
        CHECK(event.at("kept_in").as_string() == where.c_str());
        CHECK(read_file(where) == tail);
    }
}

TEST_CASE("a file in which only the first line was begun is an empty log") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    write_file(file, "{\"seq\":1,\"prev\":\"000");
    {
        Log log(file);
        CHECK(log.store(1).empty());
    }
    check_intact(file, 2);
    CHECK(event_of(lines_of(read_file(file))[0]) == "torn");
}

TEST_CASE("a file that is something else is not touched") {
    const Folder folder;
    for (const std::string content : {"root:x:0:0:root:/root:/bin/bash\n", "no line feed",
                                      "{\"some\":\"json\"}\n", "{\"seq\":1}\n\n\n"}) {
        const auto file = folder / "other";
        write_file(file, content);
        if (content.starts_with("{\"seq\":1")) {
            // Begins as ours do: taken for torn, and kept.
            Log log(file);
            CHECK(read_file(folder / "other.torn-1") == content);
            continue;
        }
        CHECK_THAT(open_problem(file), ContainsSubstring("not an audit log"));
        CHECK(read_file(file) == content);
    }
    CHECK_THAT(open_problem("/dev/full"), ContainsSubstring("not a regular file"));
    CHECK_THAT(open_problem(folder / "no/such/folder/a.jsonl"), ContainsSubstring("No such file"));
    CHECK_THAT(open_problem(folder / ""), ContainsSubstring("directory"));
}

TEST_CASE("two writers never share a file") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    {
        Log log(file);
        CHECK_THAT(open_problem(file), ContainsSubstring("another process is writing it"));
    }
    Log log(file);
    CHECK(log.store(1).empty());
}

TEST_CASE("others who could read the log are an operator's concern") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    write_file(file, "");
    REQUIRE(::chmod(file.c_str(), 0644) == 0);
    Log log(file);
    CHECK_THAT(log.all_notices(), ContainsSubstring("0600"));
}

TEST_CASE("when the disk refuses, the record is refused, nothing is left behind, and it recovers") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    FaultyDisk disk;
    Log log(file, &disk);
    REQUIRE(log.store(1).empty());
    const std::string before = read_file(file);

    const std::string words = GENERATE("write", "half a line", "flush", "flush and cut");
    INFO(words);
    if (words == "write") disk.write_error = ENOSPC;
    if (words == "half a line") {
        disk.write_at_most = 40;
        disk.write_error = ENOSPC;
    }
    if (words == "flush" || words == "flush and cut") disk.sync_error = EIO;
    if (words == "flush and cut") disk.truncate_error = EIO;

    CHECK_THAT(log.store(2), ContainsSubstring(file.string()) &&
                                 ContainsSubstring(words.starts_with("flush") ? "Input/output error"
                                                                              : "No space left"));
    CHECK_FALSE(log.store(3).empty());
    if (words != "flush and cut") CHECK(read_file(file) == before);
    CHECK_THAT(log.all_notices(), ContainsSubstring("the audit log fails"));

    disk.write_error = 0;
    disk.sync_error = 0;
    disk.truncate_error = 0;
    disk.write_at_most = SIZE_MAX;
    CHECK(log.store(4).empty());
    CHECK(log.store(5).empty());
    CHECK_THAT(log.all_notices(), ContainsSubstring("2 records were refused"));
    check_intact(file, 4);
    const auto lines = lines_of(read_file(file));
    CHECK(object_of(lines[1]).at("event").as_string() == "refused");
    CHECK(object_of(lines[1]).at("records").as_int64() == 2);
    CHECK(object_of(lines[2]).at("session").as_int64() == 4);
    CHECK(object_of(lines[3]).at("session").as_int64() == 5);
    CHECK(log.writer->head() == verify(file).head);
}

TEST_CASE("records that are submitted together are stored or refused together") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    FaultyDisk disk;
    Log log(file, &disk);
    const auto submit = [&log](std::uint64_t token, std::size_t count) {
        return log.writer->submit(std::vector<Record>(count), token);
    };
    REQUIRE(submit(1, 3) == Submitted::accepted);
    CHECK(log.outcome(1).empty());
    check_intact(file, 3);
    disk.sync_error = EIO;
    REQUIRE(submit(2, 2) == Submitted::accepted);
    CHECK_FALSE(log.outcome(2).empty());
    check_intact(file, 3);
    disk.sync_error = 0;
    REQUIRE(submit(3, 2) == Submitted::accepted);
    CHECK(log.outcome(3).empty());
    check_intact(file, 6);
    CHECK_THAT(log.all_notices(), ContainsSubstring("2 records were refused"));
    REQUIRE(submit(4, 0) == Submitted::accepted);
    CHECK(log.outcome(4).empty());
    check_intact(file, 6);
}

TEST_CASE("events stand in the chain, are reported, and count as no records") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    FaultyDisk disk;
    Log log(
        [](WriterOptions options) {
            options.at_start = {{"start", {{"process", "4711", true}}}};
            return options;
        },
        file, &disk);
    REQUIRE(log.store(1).empty());
    const std::vector<Event> two = {{"policy", {{"sha256", "ab"}}},
                                    {"policy", {{"text", "rules: many", false, 5}}}};
    REQUIRE(log.writer->submit(two, 2) == Submitted::accepted);
    CHECK(log.outcome(2).empty());
    disk.write_error = ENOSPC;
    REQUIRE(log.writer->submit(two, 3) == Submitted::accepted);
    CHECK_THAT(log.outcome(3), ContainsSubstring("No space left"));
    disk.write_error = 0;
    REQUIRE(log.store(4).empty());

    check_intact(file, 6);
    const auto lines = lines_of(read_file(file));
    std::vector<std::string> events;
    for (const std::string& line : lines)
        events.emplace_back(object_of(line).at("event").as_string());
    CHECK(events ==
          std::vector<std::string>{"start", "decision", "policy", "policy", "refused", "decision"});
    CHECK(object_of(lines[0]).at("process").as_int64() == 4711);
    CHECK(object_of(lines[2]).at("sha256").as_string() == "ab");
    CHECK(object_of(lines[3]).at("text").as_string() == "rules");
    CHECK(object_of(lines[3]).at("shortened").as_array().at(0).as_string() == "text");
    CHECK(object_of(lines[4]).at("records").as_int64() == 0);
    CHECK(log.writer->stats().records == 2);
    CHECK(log.writer->stats().refused == 0);
    log.writer->close();
    CHECK(log.writer->submit(two, 5) == Submitted::closed);
}

TEST_CASE("events of the start that the disk refuses are written when it takes something") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    FaultyDisk disk;
    disk.write_error = ENOSPC;
    Log log(
        [](WriterOptions options) {
            options.at_start = {{"start", {{"process", "4711", true}}}};
            return options;
        },
        file, &disk);
    CHECK_THAT(log.all_notices(), ContainsSubstring("the audit log fails"));
    CHECK(log.writer->stats().failing);
    CHECK_FALSE(log.store(1).empty());
    disk.write_error = 0;
    REQUIRE(log.store(2).empty());
    check_intact(file, 3);
    const auto lines = lines_of(read_file(file));
    CHECK(object_of(lines[0]).at("event").as_string() == "refused");
    CHECK(object_of(lines[1]).at("event").as_string() == "start");
    CHECK(object_of(lines[2]).at("session").as_int64() == 2);
}

TEST_CASE("short writes are continued") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    FaultyDisk disk;
    disk.write_at_most = 7;
    Log log(file, &disk);
    CHECK(log.store(1).empty());
    CHECK(log.store(2).empty());
    check_intact(file, 2);
}

TEST_CASE("a limit on the size of files is an error like any other, and kills nobody") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Log log(file);
    REQUIRE(log.store(1).empty());
    struct rlimit before {};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    struct rlimit small = before;
    small.rlim_cur = read_file(file).size() + 100;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
    const std::string problem = log.store(2);
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
    CHECK_THAT(problem, ContainsSubstring("File too large"));
    check_intact(file, 1);
    CHECK(log.store(3).empty());
    check_intact(file, 3);
}

TEST_CASE("a full queue says so and takes records again when the disk has caught up") {
    const Folder folder;
    FaultyDisk disk;
    Log log(
        [](WriterOptions options) {
            options.queue_limit_records = 10;
            options.queue_limit_bytes = 100'000;
            return options;
        },
        folder / "audit.jsonl", &disk);
    disk.hold();
    std::uint64_t token = 0;
    while (log.submit(token) == Submitted::accepted) ++token;
    CHECK(token == 10);
    CHECK(log.submit(token) == Submitted::full);
    CHECK(log.writer->stats().failing);
    CHECK(log.writer->stats().behind);
    CHECK(log.has_notice("the audit log does not keep up: too many records wait for the disk"));
    disk.release();
    CHECK(log.outcome(9).empty());
    // The log itself says how many are missing, where they would be.
    CHECK(log.has_notice("the audit log keeps up again: 2 records were refused since too many"));
    CHECK_FALSE(log.writer->stats().failing);

    // One that is larger than the whole queue is taken where nothing waits; then nothing else is.
    disk.hold();
    CHECK(log.submit(100, std::string(200'000, 'x')) == Submitted::accepted);
    CHECK(log.submit(101) == Submitted::full);
    disk.release();
    CHECK(log.outcome(100).empty());
    CHECK(log.store(102).empty());
    log.writer->close();
    CHECK_FALSE(log.completed.contains(101));
    CHECK(log.writer->stats().refused == 3);
    std::int64_t missing = 0;
    std::uint64_t events = 0;
    for (const std::string& line : lines_of(read_file(folder / "audit.jsonl"))) {
        if (event_of(line) != "refused") continue;
        ++events;
        missing += object_of(line).at("records").as_int64();
        CHECK(object_of(line).at("problem").as_string() == "too many records waited for the disk");
    }
    CHECK(missing == 3);
    check_intact(folder / "audit.jsonl", 12 + events);
}

TEST_CASE("records that are refused for want of room by a disk that fails are told together") {
    const Folder folder;
    FaultyDisk disk;
    {
        Log log(
            [](WriterOptions options) {
                options.queue_limit_records = 2;
                return options;
            },
            folder / "audit.jsonl", &disk);
        disk.write_error = ENOSPC;
        disk.hold();
        for (std::uint64_t token = 1; token <= 5; ++token) log.submit(token);
        disk.release();
        CHECK_FALSE(log.outcome(2).empty());
        disk.write_error = 0;
        // At the end it is tried once more.
    }
    const auto lines = lines_of(read_file(folder / "audit.jsonl"));
    REQUIRE(lines.size() == 1);
    CHECK(event_of(lines[0]) == "refused");
    CHECK(object_of(lines[0]).at("records").as_int64() == 5);
}

TEST_CASE("a disk that hangs is told while it does, and so is its end, once each") {
    const Folder folder;
    FaultyDisk disk;
    Log log(
        [](WriterOptions options) {
            options.patience = std::chrono::milliseconds(50);
            return options;
        },
        folder / "audit.jsonl", &disk);
    CHECK(log.store(1).empty());
    CHECK(log.writer->stats().oldest_waits.count() == 0);
    disk.hold();
    const auto before = std::chrono::steady_clock::now();
    CHECK(log.submit(2) == Submitted::accepted);
    CHECK_FALSE(log.writer->stats().behind);
    const std::string begin =
        "the audit log does not keep up: a record waits for the disk for longer than 50 ms; "
        "statements that need a record can't run until this is mended";
    REQUIRE(log.has_notice(begin));
    CHECK(std::chrono::steady_clock::now() - before >= std::chrono::milliseconds(50));
    const Writer::Stats stats = log.writer->stats();
    CHECK(stats.failing);
    CHECK(stats.behind);
    CHECK(stats.oldest_waits >= std::chrono::milliseconds(50));
    CHECK(log.submit(3) == Submitted::accepted);
    CHECK(log.writer->stats().oldest_waits >= stats.oldest_waits);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    disk.release();
    CHECK(log.outcome(3).empty());
    CHECK(
        log.has_notice("the audit log keeps up again: 2 records waited for the disk for longer "
                       "than 50 ms, the longest of them for "));
    CHECK_FALSE(log.writer->stats().failing);
    CHECK(log.writer->stats().oldest_waits.count() == 0);
    CHECK(log.notices.size() == 2);
    // And a second time, for the second.
    disk.hold();
    CHECK(log.submit(4) == Submitted::accepted);
    CHECK(log.has_notices(begin, 2));
    disk.release();
    CHECK(log.outcome(4).empty());
    CHECK(log.has_notices("keeps up again: 1 record waited", 1));
}

TEST_CASE("after a rotation the chain goes on in the new file") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    const auto old = folder / "audit.jsonl.1";
    Log log(file);
    log.store(1);
    std::filesystem::rename(file, old);
    CHECK(log.store(2).empty());  // until it is told, the writer goes on where it was
    log.writer->reopen();
    CHECK(log.store(3).empty());
    check_intact(old, 2);
    check_intact(file, 1);
    const Verification first = verify(old);
    const Verification second = verify(file, first.head);
    CHECK(second.outcome == Verification::Outcome::intact);
    CHECK(second.head.seq == 3);
    CHECK(verify(file).begin == first.head);

    log.writer->reopen();  // nothing was renamed: nothing changes
    CHECK(log.store(4).empty());
    check_intact(file, 2);
}

TEST_CASE("where the new file cannot be opened the old one stays in use") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    const auto old = folder / "audit.jsonl.1";
    Log log(file);
    log.store(1);
    std::filesystem::rename(file, old);
    std::filesystem::create_directory(file);
    log.writer->reopen();
    CHECK(log.store(2).empty());
    CHECK_THAT(log.all_notices(), ContainsSubstring("go to the old file"));
    check_intact(old, 2);
    std::filesystem::remove(file);
    log.writer->reopen();
    CHECK(log.store(3).empty());
    check_intact(file, 1);
}

TEST_CASE("what stands where the file was is not taken for the log, and breaks the chain") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Log log(file);
    for (std::uint64_t i = 1; i <= 4; ++i) CHECK(log.store(i).empty());
    const ChainPoint head = log.writer->head();
    std::vector<std::string> lines = lines_of(read_file(file));
    const bool signal = GENERATE(false, true);
    const bool kept = GENERATE(false, true);  // the old file has a name
    const std::string how = GENERATE("added", "taken out", "torn", "untouched");
    CAPTURE(signal, kept, how);
    if (how == "added")
        lines.push_back(make_line(Record{}, head, 100));
    else if (how == "taken out")
        lines.resize(2);
    std::string content;
    for (const std::string& line : lines) content += line + '\n';
    if (how == "torn") content += "{\"seq\":5,\"pr";
    write_file(folder / "made", content);
    if (kept) std::filesystem::rename(file, folder / "kept");
    std::filesystem::rename(folder / "made", file);
    if (signal) log.writer->reopen();
    if (signal) CHECK(log.has_notice("the audit log goes on in"));
    CHECK(log.store(5).empty());
    const Verification result = verify(file);
    if (!signal && kept) {  // it goes on where it was
        check_intact(folder / "kept", 5);
        return;
    }
    if (how == "untouched") {
        check_intact(file, 5);
        return;
    }
    CHECK(result.outcome == Verification::Outcome::broken);
    const auto after = lines_of(read_file(file));
    const std::string& told = after[after.size() - 2];
    CHECK(event_of(told) == "changed");
    CHECK(object_of(told).at("seq").as_int64() == 5);
    CHECK(object_of(told).at("prev").as_string() == head.hash);
    CHECK_THAT(object_of(told).at("problem").as_string().c_str(),
               ContainsSubstring("another file"));
    CHECK_FALSE(std::filesystem::exists(file.string() + ".torn-1"));
    CHECK(log.has_notice("does not end where the log stands"));
}

TEST_CASE("what somebody puts where a rotated file was breaks the chain") {
    // Between the rename and the making of the new file.
    class Intruder : public Disk {
    public:
        int rename(const char* from, const char* to) override {
            const int result = Disk::rename(from, to);
            if (!content.empty()) write_file(from, content);
            return result;
        }
        std::string content;
    };
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Intruder disk;
    Log log(
        [](WriterOptions options) {
            options.rotate_bytes = 1;
            return options;
        },
        file, &disk);
    CHECK(log.store(1).empty());
    disk.content = make_line(Record{}, log.writer->head(), 100) + '\n';
    const ChainPoint head = log.writer->head();
    CHECK(log.store(2).empty());
    CHECK(verify(file).outcome == Verification::Outcome::broken);
    const auto lines = lines_of(read_file(file));
    REQUIRE(lines.size() == 3);
    CHECK(event_of(lines[1]) == "changed");
    CHECK(object_of(lines[1]).at("prev").as_string() == head.hash);
}

TEST_CASE("a deleted file is made anew and the gap shows") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Log log(file);
    log.store(1);
    std::filesystem::remove(file);
    CHECK(log.store(2).empty());
    check_intact(file, 1);
    CHECK(verify(file).begin.seq == 1);
    CHECK_THAT(log.all_notices(), ContainsSubstring("deleted"));
}

TEST_CASE("where a deleted file cannot be made anew, nothing is reported as stored") {
    const Folder folder;
    const auto inner = folder / "inner";
    const auto file = inner / "audit.jsonl";
    std::filesystem::create_directory(inner);
    Log log(file);
    CHECK(log.store(1).empty());
    std::filesystem::remove_all(inner);
    CHECK_THAT(log.store(2), ContainsSubstring("deleted"));
    CHECK_FALSE(log.store(3).empty());
    std::filesystem::create_directory(inner);
    CHECK(log.store(4).empty());
    const auto lines = lines_of(read_file(file));
    REQUIRE(lines.size() == 2);
    CHECK(event_of(lines[0]) == "refused");
    CHECK(object_of(lines[1]).at("session").as_int64() == 4);
}

TEST_CASE("somebody who empties or shortens the file, or writes to it, is found out") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    Log log(file);
    log.store(1);
    log.store(2);

    SECTION("emptied (as copytruncate does): the rest begins where it stood") {
        std::filesystem::resize_file(file, 0);
        CHECK(log.store(3).empty());
        check_intact(file, 2);
        CHECK(verify(file).begin.seq == 2);
        CHECK(event_of(lines_of(read_file(file))[0]) == "changed");
    }
    SECTION("shortened by half a line") {
        std::filesystem::resize_file(file, std::filesystem::file_size(file) - 10);
        CHECK(log.store(3).empty());
        const Verification result = verify(file);
        CHECK(result.outcome == Verification::Outcome::broken);
        CHECK(result.line == 2);
        CHECK(event_of(lines_of(read_file(file))[2]) == "changed");
    }
    SECTION("written to") {
        std::ofstream(file, std::ios::app) << "I was here";
        CHECK(log.store(3).empty());
        const Verification result = verify(file);
        CHECK(result.outcome == Verification::Outcome::broken);
        CHECK(result.line == 3);
        const auto lines = lines_of(read_file(file));
        REQUIRE(lines.size() == 5);
        CHECK(event_of(lines[3]) == "changed");
        CHECK(object_of(lines[3]).at("seq").as_int64() == 3);
    }
    CHECK_THAT(log.all_notices(), ContainsSubstring("somebody else changed"));
}

TEST_CASE("a disk that hangs at the end is waited for, and not for ever") {
    const Folder folder;
    FaultyDisk disk;
    Log log(
        [](WriterOptions options) {
            options.farewell = std::chrono::milliseconds(50);
            return options;
        },
        folder / "audit.jsonl", &disk);
    disk.hold();
    for (std::uint64_t i = 0; i < 3; ++i) log.submit(i);
    CHECK_FALSE(log.writer->close_in_time());
    CHECK(log.completed.empty());
    CHECK(log.submit(3) == Submitted::closed);
    CHECK(log.has_notices("waits for the disk; 3 records", 1));
    CHECK(log.has_notices("gives up 3 records", 1));
    disk.release();
    CHECK(log.outcome(2).empty());
    CHECK(log.writer->close_in_time());
    CHECK(log.notices.size() == 2);
    check_intact(folder / "audit.jsonl", 3);
}

TEST_CASE("closing writes what waits") {
    const Folder folder;
    FaultyDisk disk;
    Log log(folder / "audit.jsonl", &disk);
    disk.hold();
    for (std::uint64_t i = 0; i < 50; ++i) log.submit(i);
    std::thread release([&disk] { disk.release(); });
    log.writer->close();
    release.join();
    CHECK(log.completed.size() == 50);
    CHECK(log.reported_twice == 0);
    check_intact(folder / "audit.jsonl", 50);
}
