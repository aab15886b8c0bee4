// What `pgchaperone audit verify` says of logs in good and in bad order.

#include "../audit/files.h"

#include "audit/line.h"
#include "cli/audit.h"
#include "cli/audit_lines.h"
#include "cli/audit_search.h"
#include "cli/replay.h"
#include "config/loader.h"
#include "support/catch.h"

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <zlib.h>

#include <atomic>
#include <sstream>
#include <thread>

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
    said.status = verify_logs(files, {after, expected, {}, 0}, out, err);
    said.out = out.str();
    said.err = err.str();
    return said;
}

Said verified_log(const std::filesystem::path& log, const std::optional<ChainPoint>& after = {},
                  const std::optional<ChainPoint>& expected = {}) {
    std::ostringstream out, err;
    Said said;
    said.status = verify_log(log, {after, expected, {}, 0}, out, err);
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
    CHECK_THAT(said.err, StartsWith(file.string() + ":2: line 2 is missing"));
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

TEST_CASE("a log's old files are found by its name, and one that is missing is told") {
    const Folder folder;
    ChainPoint head;
    const auto log = folder / "audit.jsonl";
    const auto first = folder / "audit.jsonl.20261121T100000Z";
    const auto second = folder / "audit.jsonl.20261122T100000Z";
    extend(first, 2, head);
    extend(second, 3, head);
    extend(log, 1, head);
    Said said = verified_log(log, {}, head);
    CHECK(said.status == audit_intact);
    CHECK(lines_of(said.out).size() == 3);
    CHECK_THAT(lines_of(said.out)[0], StartsWith(first.string() + ": intact, 2 lines"));
    CHECK_THAT(lines_of(said.out)[2], StartsWith(log.string() + ": intact, 1 line, seq 6 to 6"));
    CHECK(run({"audit", "verify", log}) == audit_intact);

    std::filesystem::rename(second, folder / "elsewhere");
    said = verified_log(log);
    CHECK(said.status == audit_broken);
    CHECK_THAT(said.err, StartsWith(log.string() + ":1: lines 3 to 5 are missing before it: a file "
                                                   "between it and the one before is not there"));
    std::filesystem::rename(folder / "elsewhere", second);
    std::filesystem::remove(log);
    CHECK(verified_log(log).status == audit_intact);
    CHECK(verified_log(folder / "other.jsonl").status == audit_trouble);
}

TEST_CASE("a log without its beginning is told, unless it may be") {
    const Folder folder;
    ChainPoint head;
    const auto log = folder / "audit.jsonl";
    const auto old = folder / "audit.jsonl.20261121T100000Z";
    extend(old, 2, head);
    const ChainPoint between = head;
    extend(log, 3, head);
    CHECK(run({"audit", "verify", log}) == audit_intact);
    std::filesystem::remove(old);
    std::ostringstream out, err;
    CHECK(verify_log(log, {{}, {}, {}, 0, true}, out, err) == audit_broken);
    CHECK_THAT(err.str(), StartsWith(log.string() + ":1: lines 1 to 2 of the log are not there"));
    CHECK(out.str().empty());
    CHECK(run({"audit", "verify", log}) == audit_broken);
    CHECK(run({"audit", "verify", "--partial", log}) == audit_intact);
    CHECK(run({"audit", "verify", "--after", to_text(between), log}) == audit_intact);
    CHECK(run({"audit", "verify", "--after", to_text(head), log}) == audit_broken);
    const auto config = folder / "pgchaperone.yaml";
    for (const auto& [keep, status] : {std::pair{"0", audit_broken}, {"7", audit_intact}}) {
        write_file(config, "audit: { file: " + log.string() + ", keep: " + keep + " }\n");
        CHECK(run({"audit", "verify", "-c", config}) == status);
    }
}

TEST_CASE("a copy of the log's beginning beside it hides nothing") {
    const Folder folder;
    ChainPoint head;
    const auto log = folder / "audit.jsonl";
    extend(log, 2, head);
    std::filesystem::copy_file(log, folder / "audit.jsonl-20261130");
    extend(log, 3, head);
    const Said said = verified_log(log);
    CHECK(said.status == audit_broken);
    CHECK_THAT(said.err, ContainsSubstring("its seq 1 was there before"));
    std::size_t records = 0;
    std::ostringstream err;
    CHECK(for_each_record(
        {log}, [&](const auto&, std::string_view) { ++records; }, err));
    CHECK(records == 7);
}

TEST_CASE("a chain that forks is told with the place") {
    const Folder folder;
    ChainPoint head;
    const auto log = folder / "audit.jsonl";
    const auto old = folder / "audit.jsonl.20261121T100000Z";
    extend(old, 3, head);
    ChainPoint forked = head;
    extend(old, 2, head);
    // Somebody put an older copy back, and it was written on.
    std::string text;
    Record record;
    record.user = "other";
    for (int i = 0; i < 2; ++i) {
        const std::string line = make_line(record, forked, 100);
        forked = {forked.seq + 1, sha_256_hex(line)};
        text += line + '\n';
    }
    write_file(log, text);
    const Said said = verified_log(log);
    CHECK(said.status == audit_broken);
    CHECK_THAT(said.err, ContainsSubstring(log.string() + ":1: its seq 4 was there before"));
    CHECK_THAT(said.err, ContainsSubstring(log.string() +
                                           ":1: the chain forks: this line follows line 3 of " +
                                           old.string()));
}

TEST_CASE("a file that can't be read is trouble") {
    const Folder folder;
    const Said said = verified({folder / "missing"});
    CHECK(said.status == audit_trouble);
    CHECK_THAT(said.err, ContainsSubstring("No such file"));
}

TEST_CASE("signed checkpoints are checked where a public key is given") {
    const Folder folder;
    const auto log = folder / "audit.jsonl";
    REQUIRE(run({"audit", "key", folder / "key"}) == audit_intact);
    CHECK(run({"audit", "key", folder / "key"}) == audit_trouble);
    const Key key = Key::load_private(folder / "key").value();
    ChainPoint head;
    extend(log, 3, head);
    const std::string line = make_checkpoint_line(key, {}, head, 3);
    head = {4, sha_256_hex(line)};
    write_file(log, read_file(log) + line + '\n');
    extend(log, 1, head);
    const auto told = [&](std::optional<std::uint64_t> unsigned_max) {
        std::ostringstream out, err;
        Said said;
        said.status = verify_log(log, {{}, {}, {key}, unsigned_max}, out, err);
        said.out = out.str();
        said.err = err.str();
        return said;
    };
    CHECK(told({}).status == audit_broken);
    CHECK_THAT(told({}).err, !ContainsSubstring("behind the last"));
    CHECK(told(0).status == audit_broken);
    CHECK_THAT(told(0).err, ContainsSubstring("line 5: behind the last checkpoint"));
    CHECK(told(1).status == audit_broken);
    CHECK_THAT(told(1).err, !ContainsSubstring("behind the last"));
    CHECK_THAT(told(1).err, ContainsSubstring("lines 1 to 2: no checkpoint speaks for this"));
    CHECK(told(2).status == audit_intact);
    CHECK(told(2).err.empty());
    CHECK_THAT(
        told(2).out,
        ContainsSubstring("signed: 1 checkpoint, up to line 4; 1 line behind it is not signed"));
    CHECK(run({"audit", "verify", log}) == audit_intact);
    CHECK(run({"audit", "verify", "--public-key", folder / "key.pub", log}) == audit_broken);
    CHECK(run({"audit", "verify", "--public-key", folder / "key.pub", "--max-unsigned", "2",
               log}) == audit_intact);
    CHECK(run({"audit", "verify", "--public-key", log, log}) == audit_trouble);

    // Nothing is left of it.
    write_file(folder / "emptied.jsonl", "");
    CHECK(run({"audit", "verify", "--public-key", folder / "key.pub", folder / "emptied.jsonl"}) ==
          audit_broken);

    const auto plain = folder / "plain.jsonl";
    ChainPoint other;
    extend(plain, 2, other);
    CHECK(run({"audit", "verify", "--public-key", folder / "key.pub", plain}) == audit_broken);
}

namespace {

struct Told {
    Record record;
    explicit Told(const std::string& statement) {
        record.time = *pgchaperone::audit::parse_time("2026-11-21T10:00:00Z");
        record.user = "clerk";
        record.database = "shop";
        record.client = "10.0.0.7";
        record.decision = "block";
        record.rule = "no-unbounded-writes";
        record.command = "DELETE";
        record.relations = {"public.orders"};
        record.statement = statement;
    }
};

std::filesystem::path log_of(const Folder& folder, const std::vector<Record>& records) {
    const auto log = folder / "audit.jsonl";
    ChainPoint head;
    std::string text;
    for (const Record& record : records) {
        const std::string line = make_line(record, head, 1000);
        head = {head.seq + 1, sha_256_hex(line)};
        text += line + '\n';
    }
    write_file(log, text);
    return log;
}

}  // namespace

namespace {

// A log that is rotated, and of which the old files are compressed, all the time.
class BusyLog {
public:
    static constexpr int rotations = 1000;
    static constexpr int lines_each = 3;

    explicit BusyLog(const Folder& folder) : log_(folder / "audit.jsonl"), next_(folder / "new") {
        write_next();
        thread_ = std::jthread([this] {
            for (int i = 1; i <= rotations; ++i) {
                const std::string old = log_.string() + ".20261121T100000Z-" + std::to_string(i);
                std::filesystem::rename(log_, old);
                write_next();
                if (i % 2 == 0) compress(old);
                // Many times while all files are read once, and for longer than a few readings
                // take.
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
            over_ = true;
        });
    }

    const std::filesystem::path& log() const { return log_; }
    bool over() const { return over_; }
    std::uint64_t lines() const { return lines_; }

private:
    void write_next() {
        std::string text;
        for (int i = 0; i < lines_each; ++i) {
            const std::string line = make_line(Told("DELETE FROM orders").record, head_, 1000);
            head_ = {head_.seq + 1, sha_256_hex(line)};
            text += line + '\n';
        }
        write_file(next_, text);
        std::filesystem::rename(next_, log_);
        lines_ = head_.seq;
    }
    // As the guard does.
    static void compress(const std::string& file) {
        const gzFile out = gzopen((file + ".gz.tmp").c_str(), "wb");
        const std::string text = read_file(file);
        gzwrite(out, text.data(), static_cast<unsigned>(text.size()));
        gzclose(out);
        std::filesystem::rename(file + ".gz.tmp", file + ".gz");
        std::filesystem::remove(file);
    }

    std::filesystem::path log_, next_;
    ChainPoint head_;
    std::atomic<std::uint64_t> lines_{0};
    std::atomic<bool> over_{false};
    std::jthread thread_;
};

}  // namespace

TEST_CASE("a log that is rotated all the time is intact whenever one looks") {
    const Folder folder;
    const BusyLog busy(folder);
    int looked = 0;
    std::string wrong;
    do {
        std::ostringstream out, err;
        ++looked;
        if (verify_log(busy.log(), {}, out, err) != 0) wrong += err.str();
    } while (!busy.over());
    CHECK(wrong == "");
    CHECK(looked > 0);
}

TEST_CASE("search reads each record once of a log that is rotated all the time") {
    const Folder folder;
    const BusyLog busy(folder);
    int looked = 0;
    std::string wrong;
    do {
        const std::uint64_t there = busy.lines();
        std::ostringstream err;
        std::uint64_t seq = 0;
        bool in_order = true;
        const bool read = for_each_record(
            {busy.log()},
            [&](const boost::json::object& record, std::string_view) {
                in_order = in_order && record.at("seq").to_number<std::uint64_t>() == ++seq;
            },
            err);
        ++looked;
        if (!read || !in_order || seq < there)
            wrong += err.str() + "read " + std::to_string(seq) + " of " + std::to_string(there) +
                     (in_order ? "" : ", not in order") + '\n';
    } while (!busy.over());
    CHECK(wrong == "");
    CHECK(looked > 0);
}

TEST_CASE("search finds records by what they tell, in the log and its old files") {
    const Folder folder;
    Told blocked("DELETE FROM orders"), allowed("DELETE FROM items"), effects("SELECT purge()");
    allowed.record.user = "bob";
    allowed.record.decision = "allow";
    allowed.record.rule = "fine";
    allowed.record.relations = {"items"};
    allowed.record.time += std::chrono::hours(24);
    effects.record.outcome = "rolled back";
    effects.record.relations.clear();
    effects.record.effects = {{"public.items", 0, 0, 9}};
    effects.record.decision = "supervise";
    const auto log = log_of(folder, {blocked.record, allowed.record, effects.record});
    std::filesystem::rename(log, folder / "audit.jsonl.20261122T100000Z");
    const auto found = [&](const SearchTerms& terms) {
        std::ostringstream out, err;
        const int status = search_log({log}, terms, true, {}, out, err);
        CHECK(status == (out.str().empty() ? 1 : 0));
        std::string statements;
        for (const std::string& line : lines_of(out.str()))
            statements += std::string(
                              boost::json::parse(line).at("statement").as_string().c_str()) +
                          ";";
        return statements;
    };
    const std::string all = "DELETE FROM orders;DELETE FROM items;SELECT purge();";
    const auto with = [](std::string SearchTerms::*term, const std::string& value) {
        SearchTerms terms;
        terms.*term = value;
        return terms;
    };
    CHECK(found({}) == all);
    CHECK(found(with(&SearchTerms::user, "bob")) == "DELETE FROM items;");
    CHECK(found(with(&SearchTerms::user, "bo")).empty());
    CHECK(found(with(&SearchTerms::database, "shop")) == all);
    CHECK(found(with(&SearchTerms::table, "orders")) == "DELETE FROM orders;");
    CHECK(found(with(&SearchTerms::table, "public.orders")) == "DELETE FROM orders;");
    CHECK(found(with(&SearchTerms::table, "rders")).empty());
    CHECK(found(with(&SearchTerms::table, "items")) == "DELETE FROM items;SELECT purge();");
    // The statement's text names no schema, and so it may be any; of the effects it is known.
    CHECK(found(with(&SearchTerms::table, "public.items")) == "DELETE FROM items;SELECT purge();");
    CHECK(found(with(&SearchTerms::table, "sales.items")) == "DELETE FROM items;");
    CHECK(found(with(&SearchTerms::table, "sales.tems")).empty());
    CHECK(found(with(&SearchTerms::decision, "supervise")) == "SELECT purge();");
    CHECK(found(with(&SearchTerms::rule, "fine")) == "DELETE FROM items;");
    CHECK(found(with(&SearchTerms::text, "PURGE")) == "SELECT purge();");
    CHECK(found(with(&SearchTerms::ticket, "B1")).empty());
    SearchTerms time;
    time.since = pgchaperone::cli::parse_time_or_age("2026-11-22", {});
    CHECK(found(time) == "DELETE FROM items;");
    time.until = pgchaperone::cli::parse_time_or_age("2026-11-22T09:00:00Z", {});
    CHECK(found(time).empty());
    CHECK(pgchaperone::cli::parse_time_or_age("2h", Time{} + std::chrono::hours(3)) ==
          Time{} + std::chrono::hours(1));
    CHECK_FALSE(pgchaperone::cli::parse_time_or_age("yesterday", {}));

    std::ostringstream out, err;
    CHECK(search_log({log}, with(&SearchTerms::decision, "supervise"), false, {}, out, err) == 0);
    CHECK(out.str() ==
          "TIME                 USER   DATABASE  DECISION                RULE                 "
          "STATEMENT\n"
          "2026-11-21T10:00:00  clerk  shop      supervise: rolled back  no-unbounded-writes  "
          "SELECT purge()\n");
    CHECK(search_log({folder / "missing"}, {}, false, {}, out, err) == audit_trouble);
    CHECK(run({"audit", "search", "--user", "nobody", log}) == 1);
    CHECK_THROWS_AS(run({"audit", "search", "--since", "yesterday", log}), CLI::ValidationError);
}

TEST_CASE("search shows with a statement what came of it") {
    const Folder folder;
    std::vector<Record> records;
    const auto decided = [&](std::uint64_t number, const std::string& statement) {
        Told one(statement);
        one.record.session = 4;
        one.record.number = number;
        one.record.decision = "allow";
        records.push_back(one.record);
    };
    const auto done = [&](std::uint64_t number, std::string outcome, pgchaperone::audit::Done what,
                          std::uint64_t transaction = 0) {
        Told one("");
        one.record.session = 4;
        one.record.number = number;
        one.record.decision = "allow";
        one.record.outcome = std::move(outcome);
        one.record.done = std::move(what);
        one.record.transaction = transaction;
        records.push_back(one.record);
    };
    const auto ended = [&](std::uint64_t transaction, std::string outcome) {
        Told one("");
        one.record.session = 4;
        one.record.transaction = transaction;
        one.record.outcome = std::move(outcome);
        records.push_back(one.record);
    };
    using std::chrono::microseconds;
    decided(1, "INSERT orders");
    done(1, "completed", {"", "INSERT 0 1", 1, microseconds(950), "committed"});
    decided(2, "UPDATE orders");
    done(2, "failed", {"23505", "", {}, microseconds(1250), ""});
    decided(3, "MERGE orders");
    done(3, "completed", {"", "MERGE 3", 3, microseconds(12'340'000), ""}, 1);
    decided(4, "DELETE orders");
    done(4, "not run", {});
    ended(1, "rolled back");
    decided(5, "TRUNCATE orders");
    // The same session and number, by another client, and of another process: none of these.
    records.push_back(records[1]);
    records.back().number = 5;
    records.back().client = "10.0.0.8";
    ended(1, "committed");
    const auto log = log_of(folder, records);

    std::ostringstream out, err;
    SearchTerms terms;
    terms.user = "clerk";
    CHECK(search_log({log}, terms, false, {}, out, err) == 0);
    std::string outcomes;
    for (const std::string& line : lines_of(out.str()))
        outcomes += line.substr(line.find("no-unbounded-writes") == std::string::npos
                                    ? line.find("OUTCOME")
                                    : line.find("no-unbounded-writes") + 21) +
                    '\n';
    CHECK(outcomes ==
          "OUTCOME                                 STATEMENT\n"
          "completed, 1 row, 950 us, committed     INSERT orders\n"
          "failed 23505, 1.2 ms                    UPDATE orders\n"
          "completed, 3 rows, 12.3 s, rolled back  MERGE orders\n"
          "not run                                 DELETE orders\n"
          "                                        TRUNCATE orders\n");

    // As lines: with what was looked for by its text come those that tell of it.
    out.str({});
    terms.text = "merge";
    CHECK(search_log({log}, terms, true, {}, out, err) == 0);
    const auto lines = lines_of(out.str());
    REQUIRE(lines.size() == 3);
    CHECK(boost::json::parse(lines[0]).at("event").as_string() == "decision");
    CHECK(boost::json::parse(lines[1]).at("tag").as_string() == "MERGE 3");
    CHECK(boost::json::parse(lines[2]).at("event").as_string() == "transaction");
    terms.text = "nothing";
    CHECK(search_log({log}, terms, false, {}, out, err) == 1);
}

TEST_CASE("replay tells what another policy would have done") {
    const Folder folder;
    Told blocked("DELETE FROM orders"), allowed("DELETE FROM items WHERE id = 1"),
        observed("TRUNCATE orders"), redacted("DELETE FROM orders WHERE id = ?"),
        cut("DELETE FROM orders WHERE note = '" + std::string(2000, 'x') + "'"),
        strange("DELETE FROM \"o\xff\\\" WHERE id = 1"), effects("DELETE FROM orders"),
        elsewhere("SELECT 3");
    allowed.record.decision = strange.record.decision = "allow";
    observed.record.observed = true;
    redacted.record.redacted = true;
    effects.record.outcome = "rolled back";
    elsewhere.record.upstream = "billing";
    const auto log = log_of(
        folder, {blocked.record, allowed.record, observed.record, redacted.record, cut.record,
                 strange.record, effects.record, elsewhere.record});
    const auto replayed = [&](const std::string& rules, bool json) {
        pgchaperone::config::Problems problems;
        write_file(folder / "policy.yaml", rules);
        pgchaperone::config::Request request;
        request.policy = folder / "policy.yaml";
        auto loaded = pgchaperone::config::load(request, problems,
                                                pgchaperone::config::real_surroundings());
        INFO(problems.text());
        REQUIRE(loaded);
        std::ostringstream out, err;
        Said said;
        const auto book = std::make_shared<pgchaperone::policy::RuleBook>(loaded->policy);
        said.status = replay_log(
            {log}, [&](const std::string& upstream) { return upstream.empty() ? book : nullptr; },
            json, {}, out, err);
        said.out = out.str();
        return said;
    };
    const std::string as_before =
        "policy:\n  default: allow\n  unparsable: allow\n  rules:\n"
        "    - { name: stop, match: { command: DELETE, unbounded: true }, "
        "action: block }\n";
    Said said = replayed(as_before, false);
    CHECK(said.status == 0);
    CHECK(said.out ==
          "4 records judged, 0 otherwise than then\n2 records can't be judged: the "
          "statement is not, or not whole, in the log\n1 record can't be judged: the configuration "
          "has no upstream of that name\n");
    said = replayed(
        "policy:\n  default: allow\n  unparsable: allow\n  rules:\n"
        "    - { name: ours, match: { user: clerk, client: 10.0.0.0/8, command: TRUNCATE }, "
        "action: block }\n",
        true);
    CHECK(said.status == 1);
    const auto lines = lines_of(said.out);
    REQUIRE(lines.size() == 2);
    const auto first = boost::json::parse(lines[0]), second = boost::json::parse(lines[1]);
    CHECK(first.at("was") == "block");
    CHECK(first.at("would_be") == "allow");
    CHECK(first.at("statement") == "DELETE FROM orders");
    CHECK(second.at("was") == "allow");
    CHECK(second.at("would_be") == "block");
    CHECK(second.at("rule") == "ours");
    CHECK_THAT(replayed("policy:\n  default: block\n  rules: []\n", false).out,
               ContainsSubstring("4 records judged, 3 otherwise than then\n  3: allow -> block"));
}

TEST_CASE("what was escaped is read back as the bytes that were sent") {
    Record record;
    record.statement = "a\xff\\x41\\\\b";
    const auto object = boost::json::parse(make_line(record, {}, 1000)).as_object();
    CHECK(member_bytes(object, "statement") == record.statement);
    record.statement = "plain \\x41";
    CHECK(member_bytes(boost::json::parse(make_line(record, {}, 1000)).as_object(), "statement") ==
          record.statement);
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
    CHECK_THROWS_AS(run({"audit"}), CLI::RequiredError);
}
