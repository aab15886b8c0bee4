#pragma once
// Writes JSON, member by member in the order in which they are put. Whatever bytes a text has, what
// comes out is JSON in UTF-8 (see audit/line.h). The caller closes what it opens.

#include "audit/line.h"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace pgchaperone::web {

class JsonOut {
public:
    JsonOut& open(char bracket) {
        before();
        out_ += bracket;
        first_ = true;
        return *this;
    }
    JsonOut& close(char bracket) {
        out_ += bracket;
        first_ = false;
        return *this;
    }
    // The name of the member whose value comes next: ours, and plain.
    JsonOut& name(std::string_view name) {
        before();
        out_ += '"';
        out_ += name;
        out_ += "\":";
        first_ = true;
        return *this;
    }
    JsonOut& text(std::string_view value) {
        before();
        audit::append_json_text(out_, value);
        return *this;
    }
    JsonOut& number(std::uint64_t value) { return raw(std::to_string(value)); }
    JsonOut& flag(bool value) { return raw(value ? "true" : "false"); }
    JsonOut& null() { return raw("null"); }
    JsonOut& time(std::chrono::system_clock::time_point value) {
        return text(audit::to_text(value));
    }

    JsonOut& text(std::string_view key, std::string_view value) { return name(key).text(value); }
    JsonOut& number(std::string_view key, std::uint64_t value) { return name(key).number(value); }
    JsonOut& flag(std::string_view key, bool value) { return name(key).flag(value); }
    JsonOut& time(std::string_view key, std::chrono::system_clock::time_point value) {
        return name(key).time(value);
    }
    // Left out where it says nothing.
    JsonOut& text_if(std::string_view key, std::string_view value) {
        return value.empty() ? *this : text(key, value);
    }

    std::string take() && { return std::move(out_); }

private:
    JsonOut& raw(std::string_view value) {
        before();
        out_ += value;
        return *this;
    }
    void before() {
        if (!first_) out_ += ',';
        first_ = false;
    }
    std::string out_;
    bool first_ = true;
};

}  // namespace pgchaperone::web
