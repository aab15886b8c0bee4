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
    texts.sent_end("p", 4);
    texts.settled(4, false, nobody);
    CHECK(texts.size() == 3);
    texts.sent_end("p", 5);
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

TEST_CASE("what names stand for is kept within a bound") {
    NamedTexts texts;
    for (std::size_t i = 0; i < NamedTexts::texts_max + 10; ++i) {
        texts.sent(text("p" + std::to_string(i), "SELECT 1"), i + 1, Certainty::alone, true);
        texts.settled(i + 1, true, nobody);
    }
    CHECK(texts.size() == NamedTexts::texts_max);
    // Any name may stand for what is not kept: p0 may have been given anew.
    for (const std::string name : {"p0", "p1009", "never_given"}) {
        const auto meanings = texts.find(name);
        REQUIRE(meanings.size() == (name == "p0" ? 2U : 1U));
        CHECK(meanings.back()->facts.unparsable);
        CHECK_FALSE(meanings.back()->whole);
    }
    texts.transaction_ended(NamedTexts::texts_max + 10);
    texts.forget_all(NamedTexts::texts_max + 10);
    CHECK_FALSE(texts.empty());  // the last may have come behind that
    texts.forget_all(NamedTexts::texts_max + 11);
    CHECK(texts.empty());
    CHECK(found(texts, "p0").empty());
    texts.sent(text("p", std::string(NamedTexts::bytes_max, 'x')), 5000, Certainty::alone, true);
    CHECK(texts.size() == 0);
    CHECK_FALSE(texts.empty());
    texts.sent(text("p", "SELECT 1"), 5001, Certainty::alone, true);
    CHECK(texts.size() == 1);
    CHECK(texts.find("p").size() == 2);
}

TEST_CASE("a cursor that was not kept is gone with its transaction unless it is held") {
    for (const bool stays : {false, true}) {
        NamedTexts texts;
        const std::string sql(NamedTexts::bytes_max, 'x');
        texts.sent(text("c", sql), 2, Certainty::alone, stays);
        texts.transaction_ended(1);
        CHECK(texts.find("c").size() == 1);
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
