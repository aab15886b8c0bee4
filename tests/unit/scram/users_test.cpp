#include "proxy/session/users.h"
#include "support/catch.h"

#include <string>

using namespace pgchaperone::session;
using Catch::Matchers::ContainsSubstring;

namespace {

std::string verifier_text(const std::string& password = "secret") {
    return ScramVerifier::make(password, "0123456789abcdef", 1000).value().text();
}

UsersProblem problem_of(const std::string& text) {
    const auto users = Users::parse_users(text, "chance");
    REQUIRE(users.has_error());
    return users.error();
}

}  // namespace

TEST_CASE("users are found by their names") {
    const auto users = Users::parse_users("# who\n\n  ; and why\n\"alice\" \"" + verifier_text() +
                                              "\"\r\n\t\"O\"\"Brien \"\t \"" + verifier_text("b") +
                                              "\"  ",
                                          "chance");
    REQUIRE(users.has_value());
    CHECK(users->size() == 2);
    CHECK(users->find("alice").second);
    CHECK(users->find("alice").first.matches("secret"));
    CHECK(users->find("O\"Brien ").first.matches("b"));
    for (const char* other : {"Alice", "alice ", "", "O\"\"Brien "}) {
        const auto [verifier, known] = users->find(other);
        CHECK_FALSE(known);
        CHECK_FALSE(verifier.matches("secret"));
        CHECK(verifier.iterations == 1000);
    }
    CHECK(users->password("alice") == nullptr);
}

TEST_CASE("passwords for the server stand in a file of their own") {
    auto users = Users::parse_users("\"alice\" \"" + verifier_text() + "\"", "chance").value();
    REQUIRE(users.parse_passwords("\"alice\" \"a\"\"b\"\n\"bob\" \"c d\"\n").has_value());
    REQUIRE(users.password("alice"));
    CHECK(users.password("alice")->view() == "a\"b");
    CHECK(users.password("bob")->view() == "c d");
    CHECK(users.password("carol") == nullptr);
    CHECK_FALSE(users.find("bob").second);
}

TEST_CASE("a line that says nothing clear is told by its number, without its secret") {
    const std::string good = "\"alice\" \"" + verifier_text() + "\"\n";
    for (const auto& [line, words] : {std::pair("alice", "name in double quotes"),
                                      {"\"bob\"", "secret in double quotes"},
                                      {"\"bob\"\"topsecret\"", "secret in double quotes"},
                                      {"\"bob\" topsecret", "secret in double quotes"},
                                      {"\"bob\" \"topsecret", "secret in double quotes"},
                                      {"\"bob\" \"topsecret\" x", "behind the secret"},
                                      {"\"\" \"topsecret\"", "name is empty"},
                                      {"\"bob\" \"\"", "secret is empty"},
                                      {"\"bob\" \"topsecret\"", "no SCRAM-SHA-256"},
                                      {"\"alice\" \"topsecret\"", "line 1 already"}}) {
        const UsersProblem problem = problem_of(good + "\n" + line + "\n");
        CHECK(problem.line == 3);
        CHECK_THAT(problem.text, ContainsSubstring(words));
        CHECK_THAT(problem.text, !ContainsSubstring("topsecret"));
    }
    CHECK_THAT(problem_of("\"" + std::string(64, 'x') + "\" \"y\"").text,
               ContainsSubstring("63 bytes"));
    CHECK_THAT(problem_of(std::string("\"a\0b\" \"y\"", 9)).text, ContainsSubstring("zero byte"));
    CHECK(Users::parse_users("", "chance").value().size() == 0);
}

TEST_CASE("what is written is read again") {
    for (const std::string& text : {std::string("alice"), std::string("O\"Brien"),
                                    std::string("\"\""), std::string(" # ; \\")}) {
        const auto lines = read_user_lines(user_line(text, text + text));
        REQUIRE(lines.has_value());
        REQUIRE(lines->size() == 1);
        CHECK(lines->front().name == text);
        CHECK(lines->front().secret.view() == text + text);
    }
}
