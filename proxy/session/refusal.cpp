#include "proxy/session/refusal.h"

#include "protocol/codec.h"
#include "protocol/head.h"
#include "protocol/messages.h"
#include "protocol/peek.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace pgchaperone::session {

namespace {

constexpr std::size_t rule_bytes_max = 64;
// An ErrorResponse must stay below what every libpq accepts (30,000 bytes).
constexpr std::size_t field_bytes_max = 6'000;

std::string presentable(std::string_view text, bool utf8) {
    const bool cut = text.size() > field_bytes_max;
    if (cut) {
        text = text.substr(0, field_bytes_max);
        // Not in the middle of a UTF-8 sequence.
        while (!text.empty() && (static_cast<unsigned char>(text.back()) & 0xC0) == 0x80) {
            text.remove_suffix(1);
        }
        if (!text.empty() && static_cast<unsigned char>(text.back()) >= 0xC0) text.remove_suffix(1);
    }
    std::string out;
    out.reserve(text.size() + 3);
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte == 0) {
            out += '?';
        } else if (byte < 0x80 || utf8) {
            out += c;
        } else if (byte >= 0xC0) {
            out += '?';  // one for the whole sequence
        }
    }
    if (cut) out += "...";
    return out;
}

template <class Message>
std::string response(const policy::Refusal& refusal, std::string_view severity, bool utf8) {
    const std::string message = presentable(refusal.message, utf8);
    const std::string detail = presentable(refusal.detail, utf8);
    const std::string hint = presentable(refusal.hint, utf8);
    Message response;
    response.fields.push_back({'S', severity});
    response.fields.push_back({'V', severity});
    response.fields.push_back({'C', refusal.sqlstate});
    response.fields.push_back({'M', message});
    if (!detail.empty()) response.fields.push_back({'D', detail});
    if (!hint.empty()) response.fields.push_back({'H', hint});
    return protocol::encoded(response);
}

}  // namespace

std::string substitute_sql(std::string_view rule) {
    std::string sql = "pgchaperone refused this statement";
    if (rule.empty()) return sql;
    sql += " by rule ";
    for (const char c : rule.substr(0, rule_bytes_max)) {
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                           (c >= '0' && c <= '9');
        sql += plain ? c : '_';
    }
    return sql;
}

std::string substitute_query(std::string_view rule) {
    const std::string sql = substitute_sql(rule);
    return protocol::encoded(protocol::Query{sql});
}

std::string substitute_parse(std::string_view statement_name, std::string_view rule) {
    const std::string sql = substitute_sql(rule);
    return protocol::encoded(protocol::Parse{statement_name, sql, {}});
}

std::string error_response(const policy::Refusal& refusal, std::string_view severity, bool utf8) {
    return response<protocol::ErrorResponse>(refusal, severity, utf8);
}

std::size_t characters(std::string_view text, bool utf8) {
    if (!utf8) return text.size();
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    }));
}

std::string moved_position(std::string_view message, std::ptrdiff_t offset) {
    auto response = protocol::decode<protocol::ErrorResponse>(message.substr(protocol::head_size));
    if (!response || offset == 0) return std::string(message);
    std::string moved;
    for (auto& field : response->fields) {
        if (field.code != 'P') continue;
        std::ptrdiff_t position = 0;
        std::from_chars(field.value.data(), field.value.data() + field.value.size(), position);
        moved = std::to_string(std::max<std::ptrdiff_t>(1, position + offset));
        field.value = moved;
    }
    return protocol::encoded(*response);
}

std::string limit_text(std::chrono::milliseconds limit) {
    const auto count = limit.count();
    if (count != 0 && count % 3'600'000 == 0) return std::to_string(count / 3'600'000) + "h";
    if (count != 0 && count % 60'000 == 0) return std::to_string(count / 60'000) + "m";
    if (count != 0 && count % 1000 == 0) return std::to_string(count / 1000) + "s";
    return std::to_string(count) + "ms";
}

std::string error_summary(std::string_view message) {
    const std::string_view body = message.substr(std::min(message.size(), protocol::head_size));
    std::string out;
    for (const char code : {'C', 'M'}) {
        const auto field = protocol::peek_error_field(body, code);
        if (!field || !*field) continue;
        if (!out.empty()) out += ' ';
        out += **field;
    }
    return out;
}

std::string notice_response(const policy::Refusal& notice, bool utf8) {
    return response<protocol::NoticeResponse>(notice, "NOTICE", utf8);
}

}  // namespace pgchaperone::session
