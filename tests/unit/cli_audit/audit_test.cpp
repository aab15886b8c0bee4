// What `pgchaperone audit verify` says of logs in good and in bad order.

#include "../audit/files.h"

#include "audit/line.h"
#include "cli/audit.h"
#include "support/catch.h"

#include <CLI/CLI.hpp>

#include <sstream>

using namespace pgchaperone::audit;
using namespace pgchaperone::cli;
using namespace pgchaperone::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;

namespace {

// Appends lines to a log on disk; the chain's head moves on.
void extend(const std::filesystem::path& file, std::size_t count, ChainPoint& head) {
    std::string text = std::filesystem::exists(file) ? read_file(file) : "";
    for (std::size_t i = 0; i < count; ++i) {
        const std::string line = make_line(Record{}, head, 100);
        head = {head.seq + 1, sha_256_hex(line)};
        text += line + '\n';
    }
    write_file(file, text);
}

struct Said {
    int status = -1;
    std::string out, err;
};

Said verified(const std::vector<std::filesystem::path>& files,
              const std::optional<ChainPoint>& after = {},
              const std::optional<ChainPoint>& expected = {}) {
    std::ostringstream out, err;
    Said said;
    said.status = verify_logs(files, after, expected, out, err);
    said.out = out.str();
    said.err = err.str();
    return said;
}

int run(std::vector<std::string> arguments) {
    CLI::App app;
    int status = -1;
    add_audit(app, status);
    std::reverse(arguments.begin(), arguments.end());
    app.parse(std::move(arguments));
    return status;
}

}  // namespace

TEST_CASE("an intact log is told with its head") {
    const Folder folder;
    const auto file = folder / "a.jsonl";
    ChainPoint head;
    extend(file, 3, head);
    const Said said = verified({file});
    CHECK(said.status == audit_intact);
    CHECK(said.out == file.string() + ": intact, 3 lines, seq 1 to 3, head 3:" + head.hash + "\n");
    CHECK(said.err.empty());
}

TEST_CASE("a broken log is told with file and line, as a compiler does") {
    const Folder folder;
    const auto file = folder / "a.jsonl";
    ChainPoint head;
    extend(file, 3, head);
    std::string text = read_file(file);
    text.erase(text.find('\n') + 1, text.find('\n', text.find('\n') + 1) - text.find('\n'));
    write_file(file, text);
    const Said said = verified({file});
    CHECK(said.status == audit_broken);
    CHECK_THAT(said.err, StartsWith(file.string() + ":2: lines are missing"));
    CHECK_THAT(said.err, ContainsSubstring("1 line before that is in order"));
    CHECK(said.out.empty());
}

TEST_CASE("files of a rotation are one chain, in their order") {
    const Folder folder;
    ChainPoint head;
    const auto first = folder / "a.1", empty = folder / "a.2", last = folder / "a.3";
    extend(first, 2, head);
    const ChainPoint between = head;
    extend(empty, 0, head);
    extend(last, 2, head);
    CHECK(verified({first, empty, last}).status == audit_intact);
    CHECK_THAT(verified({last}).out, ContainsSubstring("follows " + to_text(between)));
    CHECK(verified({last}, between).status == audit_intact);
    CHECK(verified({last, first}).status == audit_broken);
    CHECK(verified({empty, last}).status == audit_intact);
    CHECK(verified({first}, {}, head).status == audit_broken);
    CHECK(verified({first, last}, {}, head).status == audit_intact);
    CHECK(verified({first, last}, {}, between).status == audit_intact);
    CHECK_THAT(verified({first}, {}, head).err, ContainsSubstring("line 4 is not there"));
}

TEST_CASE("a file that can't be read is trouble") {
    const Folder folder;
    const Said said = verified({folder / "missing"});
    CHECK(said.status == audit_trouble);
    CHECK_THAT(said.err, ContainsSubstring("No such file"));
}

TEST_CASE("the subcommand takes files and points") {
    const Folder folder;
    const auto file = folder / "a.jsonl";
    ChainPoint head;
    extend(file, 3, head);
    CHECK(run({"audit", "verify", file}) == audit_intact);
    CHECK(run({"audit", "verify", "--expect", to_text(head), file}) == audit_intact);
    CHECK(run({"audit", "verify", file, "--expect", "3:" + std::string(64, 'a')}) == audit_broken);
    CHECK_THROWS_AS(run({"audit", "verify", "--expect", "nonsense", file}), CLI::ValidationError);
    CHECK_THROWS_AS(run({"audit", "verify"}), CLI::RequiredError);
    CHECK_THROWS_AS(run({"audit"}), CLI::RequiredError);
}
