// Signed checkpoints: when they are written, and that a past that was written anew is caught.

#include "logs.h"

#include "audit/line.h"
#include "audit/log_files.h"
#include "audit/signature.h"

#include <sys/stat.h>

#include <thread>

using namespace pgchaperone::test;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using Outcome = Verification::Outcome;

namespace {

Key make_key(const std::filesystem::path& file) {
    REQUIRE(make_key_pair(file).empty());
    return Key::load_private(file).value();
}

// A log with a checkpoint after each third line.
std::function<WriterOptions(WriterOptions)> signing(const Key& key, std::uint64_t every = 3) {
    return [key, every](WriterOptions options) {
        options.checkpoint_key = std::make_shared<const Key>(key);
        options.checkpoint_every = every;
        return options;
    };
}

Verification verified(const std::filesystem::path& file, SignatureCheck& check) {
    return verify(file, {}, {}, &check);
}

std::size_t count_checkpoints(const std::filesystem::path& file) {
    std::size_t count = 0;
    for (const std::string& line : lines_of(read_file(file)))
        count += event_of(line) == "checkpoint" ? 1 : 0;
    return count;
}

// The same lines with one changed, and a chain that fits.
std::string written_anew(const std::vector<std::string>& lines, bool with_checkpoints) {
    ChainPoint head;
    std::string text;
    for (const std::string& line : lines) {
        auto object = object_of(line);
        if (!with_checkpoints && object.at("event") == "checkpoint") continue;
        if (object.contains("statement") && head.seq == 0) object["statement"] = "SELECT 1";
        object["seq"] = head.seq + 1;
        object["prev"] = head.hash;
        const std::string made = boost::json::serialize(object);
        head = {head.seq + 1, sha_256_hex(made)};
        text += made + '\n';
    }
    return text;
}

}  // namespace

TEST_CASE("a checkpoint is written after so many lines and at close, and speaks for all of them") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    const Key key = make_key(folder / "key");
    {
        Log log(signing(key), file);
        for (std::uint64_t i = 1; i <= 7; ++i) CHECK(log.store(i).empty());
    }
    CHECK(count_checkpoints(file) == 3);
    SignatureCheck check;
    check.keys = {Key::load_public(folder / "key.pub").value()};
    const Verification result = verified(file, check);
    INFO(result.problem);
    CHECK(result.outcome == Outcome::intact);
    CHECK(check.checkpoints == 3);
    CHECK(check.unsigned_lines.empty());
    CHECK(check.looked_at == 10);
    // Nothing new: nothing to sign.
    { Log log(signing(key), file); }
    CHECK(count_checkpoints(file) == 3);
}

TEST_CASE("with every line signed a kill leaves none unsigned") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    const Key key = make_key(folder / "key");
    Log log(signing(key, 1), file);
    for (std::uint64_t i = 1; i <= 5; ++i) {
        CHECK(log.store(i).empty());
        SignatureCheck check;
        check.keys = {key};
        CHECK(verified(file, check).outcome == Outcome::intact);
        CHECK(check.looked_at == 2 * i);
        CHECK(check.unsigned_lines.empty());
    }
}

TEST_CASE("a checkpoint is written when a line has waited for a minute") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    const Key key = make_key(folder / "key");
    std::atomic<std::chrono::system_clock::time_point> now = *parse_time("2026-11-21T10:00:00Z");
    Log log(
        [&](WriterOptions options) {
            options.clock = [&now] { return now.load(); };
            return signing(key, 1000)(std::move(options));
        },
        file);
    CHECK(log.store(1).empty());
    now = now.load() + 59s;
    log.writer->reopen();  // wakes the thread
    CHECK(log.store(2).empty());
    CHECK(count_checkpoints(file) == 0);
    now = now.load() + 2s;
    log.writer->reopen();
    for (int i = 0; i < 500 && count_checkpoints(file) == 0; ++i) std::this_thread::sleep_for(10ms);
    CHECK(count_checkpoints(file) == 1);
}

TEST_CASE("an old file ends with a checkpoint") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    const Key key = make_key(folder / "key");
    Log log(
        [&](WriterOptions options) {
            options.rotate_bytes = 2000;
            return signing(key, 1000)(std::move(options));
        },
        file);
    for (std::uint64_t i = 1; i <= 20; ++i) CHECK(log.store(i).empty());
    const auto old = old_files(file);
    REQUIRE(old.size() > 2);
    for (const auto& one : old) {
        CHECK(event_of(lines_of(read_file(one)).back()) == "checkpoint");
        CHECK(count_checkpoints(one) == 1);
    }
}

TEST_CASE("a past that was written anew is caught") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    const Key key = make_key(folder / "key");
    {
        Log log(signing(key), file);
        for (std::uint64_t i = 1; i <= 8; ++i) CHECK(log.store(i).empty());
    }
    const auto lines = lines_of(read_file(file));
    SignatureCheck check;
    check.keys = {key};

    SECTION("with the old checkpoints") {
        write_file(file, written_anew(lines, true));
        CHECK(verify(file).outcome == Outcome::intact);  // the chain alone says nothing
        const Verification result = verified(file, check);
        CHECK(result.outcome == Outcome::broken);
        CHECK(result.line == 4);
        CHECK_THAT(result.problem, ContainsSubstring("signature of this checkpoint"));
    }
    SECTION("with checkpoints of another key") {
        std::filesystem::remove(file);
        const Key other = make_key(folder / "other");
        {
            Log log(signing(other), file);
            for (std::uint64_t i = 1; i <= 8; ++i) CHECK(log.store(i).empty());
        }
        const Verification result = verified(file, check);
        CHECK(result.outcome == Outcome::broken);
        CHECK_THAT(result.problem, ContainsSubstring("another key, whose id is \"" + other.id()));
        // And where it claims to be ours.
        std::string text = read_file(file);
        for (std::size_t at = 0; (at = text.find(other.id(), at)) != std::string::npos;)
            text.replace(at, key.id().size(), key.id());
        write_file(file, text);
        SignatureCheck again;
        again.keys = {key};
        CHECK(verified(file, again).outcome == Outcome::broken);
    }
    SECTION("without checkpoints, and the process itself went on") {
        write_file(file, written_anew(lines, false));
        {
            Log log(signing(key), file);
            for (std::uint64_t i = 1; i <= 4; ++i) CHECK(log.store(i).empty());
        }
        CHECK(verified(file, check).outcome == Outcome::intact);
        REQUIRE(check.unsigned_lines.size() == 1);
        CHECK(check.unsigned_lines[0].first == 1);
        CHECK(check.unsigned_lines[0].last == 8);
    }
    SECTION("without checkpoints") {
        write_file(file, written_anew(lines, false));
        CHECK(verified(file, check).outcome == Outcome::intact);
        CHECK(check.checkpoints == 0);
    }
    SECTION("each byte of a checkpoint") {
        const std::string& line = lines[3];
        REQUIRE(event_of(line) == "checkpoint");
        for (std::size_t i = 0; i < line.size(); ++i) {
            std::string changed = line;
            changed[i] = static_cast<char>(changed[i] ^ 1);
            const auto read = read_checkpoint(changed);
            INFO(i << " " << changed);
            CHECK_FALSE((read && read->key == key.id() &&
                         key.verifies(read->signed_bytes, read->signature)));
        }
        const auto read = read_checkpoint(line);
        REQUIRE(read);
        CHECK(key.verifies(read->signed_bytes, read->signature));
        CHECK_FALSE(key.verifies(read->signed_bytes, read->signature + "A"));
        CHECK_FALSE(key.verifies(read->signed_bytes, std::string(88, '!')));
        CHECK_FALSE(key.verifies(read->signed_bytes, ""));
    }
}

TEST_CASE("a line waits a minute for its checkpoint, also where the log is never idle") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    const Key key = make_key(folder / "key");
    std::atomic<std::chrono::system_clock::time_point> now{
        std::chrono::sys_days(std::chrono::days(20'778))};
    Log log(
        [&](WriterOptions options) {
            options = signing(key, 1000)(std::move(options));
            options.clock = [&now] { return now.load(); };
            return options;
        },
        file);
    auto store_after = [&, token = std::uint64_t{0}](std::chrono::seconds time) mutable {
        now = now.load() + time;
        CHECK(log.store(++token).empty());
        // What comes with the record, and not what comes when nothing does.
        return event_of(lines_of(read_file(file)).back()) == "checkpoint";
    };
    CHECK_FALSE(store_after(0s));
    CHECK_FALSE(store_after(59s));
    CHECK(store_after(1s));
    CHECK_FALSE(store_after(200s));
    // A clock that is set back puts it off by a minute, and not by more.
    CHECK_FALSE(store_after(-86400s));
    CHECK_FALSE(store_after(59s));
    CHECK(store_after(1s));
    SignatureCheck check;
    check.keys.push_back(key);
    CHECK(verified(file, check).outcome == Outcome::intact);
    CHECK(check.checkpoints == 2);
}

TEST_CASE("lines that a killed process could not sign are named") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    const Key key = make_key(folder / "key");
    std::string killed;
    {
        Log log(signing(key), file);
        for (std::uint64_t i = 1; i <= 5; ++i) CHECK(log.store(i).empty());
        killed = read_file(file);  // three lines, a checkpoint, two lines
    }
    write_file(file, killed);
    {
        Log log(signing(key), file);
        CHECK(log.store(6).empty());
    }
    SignatureCheck check;
    check.keys = {key};
    CHECK(verified(file, check).outcome == Outcome::intact);
    REQUIRE(check.unsigned_lines.size() == 1);
    CHECK(check.unsigned_lines[0].first == 5);
    CHECK(check.unsigned_lines[0].last == 6);
}

TEST_CASE("a checkpoint that the disk refuses is made up for") {
    const Folder folder;
    const auto file = folder / "audit.jsonl";
    const Key key = make_key(folder / "key");
    FaultyDisk disk;
    {
        Log log(signing(key, 1), file, &disk);
        CHECK(log.store(1).empty());
        disk.sync_error = EIO;
        CHECK_FALSE(log.store(2).empty());
        disk.sync_error = 0;
        CHECK(log.store(3).empty());
    }
    SignatureCheck check;
    check.keys = {key};
    CHECK(verified(file, check).outcome == Outcome::intact);
    CHECK(check.unsigned_lines.empty());
    CHECK(check.looked_at == 5);  // 1, its checkpoint, refused, 3, their checkpoint
}

TEST_CASE("keys are made once, for their owner, and others are refused with words") {
    const Folder folder;
    const auto file = folder / "key";
    REQUIRE(make_key_pair(file).empty());
    struct stat status {};
    REQUIRE(::stat(file.c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0600);
    CHECK_THAT(make_key_pair(file), ContainsSubstring("File exists"));
    std::filesystem::remove(file);
    CHECK_THAT(make_key_pair(file), ContainsSubstring("key.pub: File exists"));
    CHECK_FALSE(std::filesystem::exists(file));
    CHECK_THAT(make_key_pair(folder / "no/key"), ContainsSubstring("No such file"));

    write_file(file, "-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n");
    CHECK_THAT(Key::load_private(file).error().text,
               ContainsSubstring("no private Ed25519 key") && ContainsSubstring("audit key FILE"));
    CHECK_THAT(Key::load_private(folder / "missing").error().text,
               ContainsSubstring("No such file"));
    CHECK_THAT(Key::load_public(file).error().text, ContainsSubstring(".pub"));
    CHECK(Key::load_private(folder / "key.pub").has_error());
}
