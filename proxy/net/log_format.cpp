#include "proxy/net/log_format.h"

#include "approval/visible_text.h"
#include "audit/line.h"

#include <spdlog/pattern_formatter.h>

#include <algorithm>
#include <array>
#include <utility>

namespace pgchaperone::net {

namespace {

constexpr std::array<std::string_view, 3> session_events{"start", "logged in", "end"};

// "session 7: rest": takes it off, and gives "7"; empty where the text does not begin so.
template <class Belongs>
std::string_view taken_off(std::string_view& text, std::string_view word, Belongs belongs) {
    if (!text.starts_with(word)) return {};
    const std::string_view behind = text.substr(word.size());
    const auto end = static_cast<std::size_t>(
        std::find_if_not(behind.begin(), behind.end(), belongs) - behind.begin());
    if (end == 0 || behind.substr(end, 2) != ": ") return {};
    text = behind.substr(end + 2);
    return behind.substr(0, end);
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_of_a_ticket(char c) { return is_digit(c) || (c >= 'A' && c <= 'Z'); }

class JsonFormatter : public spdlog::formatter {
public:
    void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
        const auto level = spdlog::level::to_string_view(message.level);
        std::string line = json_log_line(message.time, {level.data(), level.size()},
                                         {message.payload.data(), message.payload.size()});
        line += '\n';
        out.append(line.data(), line.data() + line.size());
    }
    std::unique_ptr<spdlog::formatter> clone() const override {
        return std::make_unique<JsonFormatter>();
    }
};

class VisibleMessage : public spdlog::custom_flag_formatter {
public:
    void format(const spdlog::details::log_msg& message, const std::tm&,
                spdlog::memory_buf_t& out) override {
        const std::string text = approval::visible_line(
            {message.payload.data(), message.payload.size()});
        out.append(text.data(), text.data() + text.size());
    }
    std::unique_ptr<spdlog::custom_flag_formatter> clone() const override {
        return std::make_unique<VisibleMessage>();
    }
};

// As syslog numbers them.
char priority(spdlog::level::level_enum level) {
    switch (level) {
        case spdlog::level::trace:
        case spdlog::level::debug: return '7';
        case spdlog::level::info: return '6';
        case spdlog::level::warn: return '4';
        case spdlog::level::err: return '3';
        case spdlog::level::critical: return '2';
        case spdlog::level::off:
        case spdlog::level::n_levels: break;
    }
    return '6';
}

class JournalFormatter : public spdlog::formatter {
public:
    explicit JournalFormatter(std::unique_ptr<spdlog::formatter> line) : line_(std::move(line)) {}
    void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
        for (const char c : {'<', priority(message.level), '>'}) out.push_back(c);
        line_->format(message, out);
    }
    std::unique_ptr<spdlog::formatter> clone() const override {
        return std::make_unique<JournalFormatter>(line_->clone());
    }

private:
    const std::unique_ptr<spdlog::formatter> line_;
};

void add_text(std::string& line, std::string_view name, std::string_view text) {
    line += ",\"" + std::string(name) + "\":";
    audit::append_json_text(line, text);
}

}  // namespace

std::string json_log_line(std::chrono::system_clock::time_point time, std::string_view level,
                          std::string_view text) {
    std::string line = "{\"time\":\"" + audit::to_text(time) + '"';
    add_text(line, "level", level);
    std::string_view rest = text;
    const std::string_view session = taken_off(rest, "session ", is_digit);
    const std::string_view ticket = taken_off(rest, "ticket ", is_of_a_ticket);
    if (!session.empty()) line += ",\"session\":" + std::string(session);
    if (!ticket.empty()) add_text(line, "ticket", ticket);
    for (const std::string_view event : session_events) {
        if (session.empty() || !rest.starts_with(event) || rest.substr(event.size(), 2) != ": ")
            continue;
        add_text(line, "event", event);
        break;
    }
    add_text(line, "message", rest);
    return line + '}';
}

std::unique_ptr<spdlog::formatter> json_log_formatter() {
    return std::make_unique<JsonFormatter>();
}

std::unique_ptr<spdlog::formatter> text_log_formatter() {
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<VisibleMessage>('*').set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %*");
    return formatter;
}

std::unique_ptr<spdlog::formatter> for_the_journal(std::unique_ptr<spdlog::formatter> formatter) {
    return std::make_unique<JournalFormatter>(std::move(formatter));
}

}  // namespace pgchaperone::net
