#include "proxy/net/log_format.h"

#include "support/catch.h"

#include <boost/json.hpp>

#include <algorithm>
#include <string>
#include <utility>

using namespace pgchaperone;
using namespace std::chrono_literals;

namespace {

boost::json::object parsed(std::string_view text) {
    const std::string line = net::json_log_line(std::chrono::system_clock::time_point(1500ms),
                                                "info", text);
    INFO(line);
    for (const char c : line) CHECK(static_cast<unsigned char>(c) >= ' ');
    return boost::json::parse(line).as_object();
}

std::string text(const boost::json::object& line, const char* name) {
    return std::string(line.at(name).as_string());
}

}  // namespace

TEST_CASE("a line of a session tells it, and its event") {
    const auto line = parsed("session 7: start: client=127.0.0.1");
    CHECK(text(line, "time") == "1970-01-01T00:00:01.500000Z");
    CHECK(text(line, "level") == "info");
    CHECK(line.at("session").to_number<int>() == 7);
    CHECK(text(line, "event") == "start");
    CHECK(text(line, "message") == "start: client=127.0.0.1");
}

TEST_CASE("what is no session's has none") {
    for (const char* said : {"listening on 127.0.0.1:1, guarding x", "session x: start: y",
                             "session 7 start", "session : start: ", "session 7", ""}) {
        const auto line = parsed(said);
        CHECK_FALSE(line.contains("session"));
        CHECK_FALSE(line.contains("event"));
        CHECK(text(line, "message") == said);
    }
}

TEST_CASE("a ticket's line tells the ticket") {
    const auto line = parsed("ticket B1: opened: requester=clerk");
    CHECK(text(line, "ticket") == "B1");
    CHECK(text(line, "message") == "opened: requester=clerk");
}

TEST_CASE("whatever a client is called, its line is one line of valid JSON") {
    const auto quoted = parsed(
        "session 1: logged in: user=a\"b\\c\nsession 2: start: x\r\t\x01 end");
    CHECK(quoted.at("session").to_number<int>() == 1);
    CHECK(text(quoted, "event") == "logged in");
    CHECK(text(quoted, "message") == "logged in: user=a\"b\\c\nsession 2: start: x\r\t\x01 end");
    // Not UTF-8: to be told, and read back.
    const auto broken = parsed("session 1: logged in: user=\xff\xc3");
    CHECK(text(broken, "message") == "logged in: user=\\xff\\xc3");
    const auto null = parsed(std::string_view("a\0b", 3));
    CHECK(text(null, "message") == std::string("a\0b", 3));
}

TEST_CASE("whatever a client is called, its line of text is one line") {
    const auto formatter = net::text_log_formatter();
    const std::string
        said = "session 1: logged in: user=a\n2026-11-30 info ticket B1: approved\x1b[2J";
    spdlog::memory_buf_t out;
    formatter->format(spdlog::details::log_msg("pgchaperone", spdlog::level::info, said), out);
    const std::string line(out.data(), out.size());
    CHECK(line.ends_with(
        " info session 1: logged in: user=a ⏎ 2026-11-30 info ticket B1: approved<U+001B>[2J\n"));
    CHECK(std::count(line.begin(), line.end(), '\n') == 1);
}

TEST_CASE("the journal gets each line with its priority") {
    const auto formatter = net::for_the_journal(net::json_log_formatter())->clone();
    for (const auto& [level, priority] :
         {std::pair{spdlog::level::debug, "<7>{"}, std::pair{spdlog::level::info, "<6>{"},
          std::pair{spdlog::level::warn, "<4>{"}, std::pair{spdlog::level::err, "<3>{"},
          std::pair{spdlog::level::critical, "<2>{"}}) {
        spdlog::memory_buf_t out;
        formatter->format(spdlog::details::log_msg("pgchaperone", level, "said"), out);
        CHECK(std::string(out.data(), out.size()).starts_with(priority));
    }
}
