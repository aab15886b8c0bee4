// Whatever somebody does to a log, the chain shows it, or the head that was noted elsewhere does.

#include "files.h"

#include "audit/line.h"
#include "audit/verify.h"
#include "support/catch.h"

#include <algorithm>

using namespace pgchaperone::audit;
using namespace pgchaperone::test;
using Catch::Matchers::ContainsSubstring;
using Outcome = Verification::Outcome;

namespace {

struct Made {
    std::vector<std::string> lines;
    ChainPoint head;
    std::string text() const {
        std::string out;
        for (const std::string& line : lines) out += line + '\n';
        return out;
    }
};

Made make_log(std::size_t count, ChainPoint head = {}) {
    Made made{{}, head};
    for (std::size_t i = 0; i < count; ++i) {
        Record record;
        record.user = "clerk";
        record.statement = "DELETE FROM t" + std::to_string(i);
        made.lines.push_back(make_line(record, made.head, 1000));
        made.head = {made.head.seq + 1, sha_256_hex(made.lines.back())};
    }
    return made;
}

struct LogOnDisk {
    Folder folder;
    std::filesystem::path file = folder / "audit.jsonl";
    Verification verified(const std::string& text, const std::optional<ChainPoint>& after = {},
                          const std::optional<ChainPoint>& expected = {}) const {
        write_file(file, text);
        return verify(file, after, expected);
    }
};

}  // namespace

TEST_CASE("a log as it was written is intact") {
    const LogOnDisk disk;
    const Made made = make_log(20);
    const Verification result = disk.verified(made.text());
    CHECK(result.outcome == Outcome::intact);
    CHECK(result.lines == 20);
    CHECK(result.head == made.head);
    CHECK(result.begin == ChainPoint{});

    const Verification empty = disk.verified("");
    CHECK(empty.outcome == Outcome::intact);
    CHECK(empty.lines == 0);
    CHECK(verify(disk.folder / "missing").outcome == Outcome::unreadable);
    CHECK(verify(disk.folder / "").outcome == Outcome::unreadable);
}

TEST_CASE("any byte changed before the last line breaks the chain where it was changed") {
    const LogOnDisk disk;
    const Made made = make_log(3);
    const std::string text = made.text();
    const std::size_t end = made.lines[0].size() + 1 + made.lines[1].size() + 1;
    for (std::size_t i = 0; i < end; ++i) {
        std::string edited = text;
        edited[i] = static_cast<char>(edited[i] ^ 1);
        const Verification result = disk.verified(edited);
        INFO("byte " << i << ": " << result.line << " " << result.problem);
        REQUIRE(result.outcome == Outcome::broken);
        const std::size_t changed = i <= made.lines[0].size() ? 1 : 2;
        REQUIRE((result.line == changed || result.line == changed + 1));
    }
}

TEST_CASE("lines removed, copied, swapped or put in between are found") {
    const LogOnDisk disk;
    const Made made = make_log(6);
    for (std::size_t i = 1; i + 1 < made.lines.size(); ++i) {
        Made edited = made;
        edited.lines.erase(edited.lines.begin() + static_cast<std::ptrdiff_t>(i));
        Verification result = disk.verified(edited.text());
        CHECK(result.outcome == Outcome::broken);
        CHECK(result.line == i + 1);
        CHECK_THAT(result.problem, ContainsSubstring("missing"));

        edited = made;
        std::swap(edited.lines[i], edited.lines[i + 1]);
        CHECK(disk.verified(edited.text()).line == i + 1);

        edited = made;
        edited.lines.insert(edited.lines.begin() + static_cast<std::ptrdiff_t>(i), edited.lines[i]);
        CHECK(disk.verified(edited.text()).line == i + 2);

        edited = made;
        edited.lines.insert(edited.lines.begin() + static_cast<std::ptrdiff_t>(i), "");
        CHECK(disk.verified(edited.text()).line == i + 1);
    }
}

TEST_CASE("a torn last line is found") {
    const LogOnDisk disk;
    const std::string text = make_log(3).text();
    const Verification result = disk.verified(text.substr(0, text.size() - 1));
    CHECK(result.outcome == Outcome::broken);
    CHECK(result.line == 3);
    CHECK_THAT(result.problem, ContainsSubstring("cut off"));
}

TEST_CASE("a head that was noted finds a cut tail, a changed last line and a log written anew") {
    const LogOnDisk disk;
    const Made made = make_log(4);
    const ChainPoint noted = made.head;
    CHECK(disk.verified(made.text(), {}, noted).contains_expected);
    CHECK(disk.verified(made.text() + make_log(2, made.head).text(), {}, noted).contains_expected);

    Made cut = made;
    cut.lines.pop_back();
    const Verification shorter = disk.verified(cut.text(), {}, noted);
    CHECK(shorter.outcome == Outcome::intact);
    CHECK_FALSE(shorter.contains_expected);

    std::string edited = made.text();
    edited.replace(edited.rfind("clerk"), 5, "other");
    CHECK_FALSE(disk.verified(edited, {}, noted).contains_expected);
    CHECK_FALSE(disk.verified(make_log(5).text().substr(10), {}, noted).contains_expected);
}

TEST_CASE("files of a rotation follow each other") {
    const LogOnDisk disk;
    const Made first = make_log(3);
    const Made second = make_log(2, first.head);
    CHECK(disk.verified(second.text()).outcome == Outcome::intact);
    CHECK(disk.verified(second.text()).begin == first.head);
    CHECK(disk.verified(second.text(), first.head).outcome == Outcome::intact);
    const Verification wrong = disk.verified(second.text(), make_log(2).head);
    CHECK(wrong.outcome == Outcome::broken);
    CHECK(wrong.line == 1);
    CHECK(disk.verified(make_log(1).text(), first.head).outcome == Outcome::broken);
    // An empty file follows anything.
    CHECK(disk.verified("", first.head).head == first.head);
}

TEST_CASE("only a log's very first line has nothing before it") {
    const LogOnDisk disk;
    CHECK(disk.verified(make_log(1, {5, std::string(64, '0')}).text()).outcome == Outcome::broken);
    CHECK(disk.verified(make_log(1, {0, std::string(64, '1')}).text()).outcome == Outcome::broken);
}

TEST_CASE("what the log admits of itself is repeated, and printable") {
    const LogOnDisk disk;
    Made made = make_log(2);
    Record quoting;
    quoting.statement = R"(SELECT '"event":"torn"')";
    made.lines.push_back(make_line(quoting, made.head, 1000));
    made.head = {3, sha_256_hex(made.lines.back())};
    const auto add = [&](const Event& event) {
        made.lines.push_back(make_event_line(event, {}, made.head));
        made.head = {made.head.seq + 1, sha_256_hex(made.lines.back())};
    };
    add({"start", {}});
    add({"torn",
         {{.name = "bytes", .value = "7", .number = true},
          {.name = "sha256", .value = "0"},
          {.name = "kept_in", .value = "a\x1b[2J.torn-1"}}});
    add({"refused",
         {{.name = "records", .value = "5", .number = true},
          {.name = "problem", .value = "No space left on device"}}});
    add({"changed",
         {{.name = "expected_bytes", .value = "10", .number = true},
          {.name = "found_bytes", .value = "20", .number = true}}});
    const Verification result = disk.verified(made.text());
    CHECK(result.outcome == Outcome::intact);
    REQUIRE(result.admissions.size() == 3);
    CHECK(result.admissions[0].line == 5);
    CHECK(result.admissions[0].words ==
          "7 bytes that were no whole line were taken out before it, and put into "
          "\"a\\u001b[2J.torn-1\"");
    CHECK(result.admissions[1].line == 6);
    CHECK(result.admissions[1].words ==
          "5 records are missing before it: \"No space left on device\"");
    CHECK(result.admissions[2].words == "somebody else had changed the file, from 10 to 20 bytes");
    CHECK(result.more_admissions == 0);
    for (std::size_t i = 0; i < Verification::admissions_max; ++i) {
        add({"refused", {{.name = "records", .value = "1", .number = true}}});
    }
    const Verification many = disk.verified(made.text());
    CHECK(many.admissions.size() == Verification::admissions_max);
    CHECK(many.more_admissions == 3);
}
