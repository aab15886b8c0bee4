// What the names may stand for that SQL has given.
#include "proxy/session/named_texts.h"
#include "policy/analyzer.h"
#include "support/catch.h"

#include <memory>
#include <string>

using namespace pgchaperone;
using session::NamedTexts;
using Certainty = session::NamedTexts::Certainty;

namespace {

policy::NamedTextPtr text(std::string name, std::string sql) {
    auto out = std::make_shared<policy::NamedText>();
    out->name = std::move(name);
    out->facts = policy::Analyzer().analyze(sql, {})->statements.front();
    out->text = std::move(sql);
    return out;
}

std::string found(const NamedTexts& texts, std::string_view name) {
    std::string out;
    for (const auto& one : texts.find(name)) out += one->text + ";";
    return out;
}

const auto nobody = [](const std::string&) {};

}  // namespace

TEST_CASE("a name stands for what it was last given, once the server has said so") {
    NamedTexts texts;
    texts.sent(text("p", "SELECT 1"), 1, Certainty::alone, true);
    texts.settled(1, true, nobody);
    texts.sent(text("p", "SELECT 2"), 2, Certainty::alone, true);
    CHECK(found(texts, "p") == "SELECT 1;SELECT 2;");  // it may yet fail
    texts.settled(2, false, nobody);
    CHECK(found(texts, "p") == "SELECT 1;");
    texts.sent(text("p", "SELECT 3"), 3, Certainty::alone, true);
    texts.settled(3, true, nobody);
    CHECK(found(texts, "p") == "SELECT 3;");
    CHECK(texts.size() == 1);
    CHECK(found(texts, "P").empty());
}

TEST_CASE("what may have been made is kept beside what was there") {
    NamedTexts texts;
    texts.sent(text("p", "SELECT 1"), 1, Certainty::alone, true);
    texts.settled(1, true, nobody);
    // An error behind it in the same text does not take it back.
    texts.sent(text("p", "SELECT 2"), 2, Certainty::unless, true);
    texts.settled(2, false, nobody);
    CHECK(found(texts, "p") == "SELECT 1;SELECT 2;");
    // A DO block need not have come to it.
    texts.sent(text("p", "SELECT 3"), 3, Certainty::maybe, true);
    texts.settled(3, true, nobody);
    CHECK(found(texts, "p") == "SELECT 1;SELECT 2;SELECT 3;");
    texts.sent_end("p", 4, Certainty::alone);
    texts.settled(4, false, nobody);
    CHECK(texts.size() == 3);
    texts.sent_end("p", 5, Certainty::alone);
    texts.settled(5, true, nobody);
    CHECK(texts.empty());
}

TEST_CASE("a cursor ends with its transaction unless it is held") {
    NamedTexts texts;
    texts.sent(text("c", "SELECT 1"), 2, Certainty::alone, false);
    texts.sent(text("h", "SELECT 2"), 2, Certainty::alone, true);
    texts.transaction_ended(1);
    CHECK(texts.size() == 2);
    texts.transaction_ended(2);
    CHECK(found(texts, "c").empty());
    CHECK(found(texts, "h") == "SELECT 2;");
    texts.forget_all(3);
    CHECK(texts.empty());
}

TEST_CASE(
    "a name that is taken away in the text that gave it is gone, and what comes behind stays") {
    NamedTexts texts;
    texts.sent(text("p", "SELECT 1"), 1, Certainty::unless, true);
    texts.sent_end("p", 1, Certainty::unless);
    texts.settled(1, true, nobody);
    CHECK(texts.empty());
    // DEALLOCATE p; PREPARE p; in a text that fails, nobody knows which was reached.
    texts.sent(text("p", "SELECT 2"), 2, Certainty::alone, true);
    texts.settled(2, true, nobody);
    texts.sent_end("p", 3, Certainty::unless);
    texts.sent(text("p", "SELECT 3"), 3, Certainty::unless, true);
    texts.settled(3, false, nobody);
    CHECK(found(texts, "p") == "SELECT 2;SELECT 3;");
    texts.sent_end("p", 4, Certainty::unless);
    texts.sent(text("p", "SELECT 4"), 4, Certainty::unless, true);
    texts.settled(4, true, nobody);
    CHECK(found(texts, "p") == "SELECT 4;");
}

namespace {

void prepare(NamedTexts& texts, std::uint64_t number, bool ok = true) {
    texts.sent(text("p" + std::to_string(number), "SELECT 1"), number, Certainty::alone, true);
    texts.settled(number, ok, nobody);
}

}  // namespace

TEST_CASE("of what is too much to keep the name is kept, and runs something unparsable") {
    NamedTexts texts;
    const std::uint64_t some = NamedTexts::texts_max;
    for (std::uint64_t i = 1; i <= some + 10; ++i) prepare(texts, i);
    CHECK(texts.size() == some);
    CHECK(found(texts, "p1") == "SELECT 1;");
    CHECK(texts.find("never_given").empty());
    const auto meanings = texts.find("p1005");
    REQUIRE(meanings.size() == 1);
    CHECK(meanings.front()->facts.unparsable);
    CHECK_FALSE(meanings.front()->whole);
    // It goes as the others do: where it fails, is taken away or given anew, or with all.
    prepare(texts, some + 11, false);
    CHECK(texts.find("p1011").empty());
    texts.sent_end("p1005", some + 12, Certainty::alone);
    texts.sent_end("p1", some + 12, Certainty::alone);
    texts.settled(some + 12, true, nobody);
    CHECK(texts.find("p1005").empty());
    texts.sent(text("p1006", "SELECT 2"), some + 13, Certainty::alone, true);
    texts.settled(some + 13, true, nobody);
    CHECK(found(texts, "p1006") == "SELECT 2;");
    texts.forget_all(some + 14);
    CHECK(texts.empty());
    texts.sent(text("p", std::string(NamedTexts::bytes_max, 'x')), 5000, Certainty::alone, true);
    CHECK(texts.size() == 0);
    CHECK(texts.find("p").size() == 1);
    prepare(texts, 5001);
    CHECK(found(texts, "p5001") == "SELECT 1;");
    texts.forget("p", 5002);
    CHECK(texts.find("p").empty());
}

TEST_CASE("a session that takes back what it gives is never too much") {
    NamedTexts texts;
    for (std::uint64_t i = 1; i <= 2 * NamedTexts::names_max; ++i) {
        prepare(texts, i);
        texts.sent_end("p" + std::to_string(i), i, Certainty::alone);
        texts.settled(i, true, nobody);
    }
    CHECK(texts.empty());
}

TEST_CASE("where even the names are too many any of them may stand for something unparsable") {
    NamedTexts texts;
    const std::uint64_t all = NamedTexts::texts_max + NamedTexts::names_max;
    for (std::uint64_t i = 1; i <= all; ++i) prepare(texts, i);
    CHECK(texts.find("never_given").empty());
    prepare(texts, all + 1);
    for (const std::string name : {"p1", "never_given"}) {
        const auto meanings = texts.find(name);
        REQUIRE(meanings.size() == (name == "p1" ? 2U : 1U));
        CHECK(meanings.back()->facts.unparsable);
    }
    texts.transaction_ended(all + 1);
    texts.forget_all(all + 1);
    CHECK_FALSE(texts.empty());  // the last may have come behind that
    texts.forget_all(all + 2);
    CHECK(texts.empty());
    CHECK(texts.find("p1").empty());
}

TEST_CASE("a cursor that was not kept is gone with its transaction unless it is held") {
    for (const bool stays : {false, true}) {
        NamedTexts texts;
        const std::string sql(NamedTexts::bytes_max, 'x');
        texts.sent(text("c", sql), 2, Certainty::alone, stays);
        texts.sent(text(std::string(200, 'n'), sql), 2, Certainty::alone, stays);
        texts.transaction_ended(1);
        CHECK(texts.find("c").size() == 2);
        CHECK(texts.find("d").size() == 1);
        texts.transaction_ended(2);
        CHECK(texts.empty() != stays);
        texts.forget_all(3);
        CHECK(texts.empty());
    }
}

TEST_CASE("a name that depends on encodings may be any such name") {
    NamedTexts texts;
    texts.sent(text("\xc3\xa9", "SELECT 1"), 1, Certainty::alone, true);
    texts.sent(text("p", "SELECT 2"), 2, Certainty::alone, true);
    CHECK(found(texts, "\xe9") == "SELECT 1;");
    CHECK(found(texts, std::string(63, 'p')) == "SELECT 1;");
    CHECK(found(texts, "p") == "SELECT 2;");
}
