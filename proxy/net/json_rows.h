#pragma once
// Rows for a client, written as a JSON array of objects. Whatever bytes a text has, what comes out
// is JSON in UTF-8. Members come in the order in which they are put.

#include "audit/line.h"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace pgchaperone::net {

class JsonRows {
public:
    JsonRows& row() {
        out_ += in_row_ ? "},{" : "{";
        in_row_ = true;
        first_ = true;
        return *this;
    }
    JsonRows& text(std::string_view name, std::string_view value) {
        member(name);
        audit::append_json_text(out_, value);
        return *this;
    }
    JsonRows& number(std::string_view name, std::uint64_t value) {
        member(name);
        out_ += std::to_string(value);
        return *this;
    }
    JsonRows& flag(std::string_view name, bool value) {
        member(name);
        out_ += value ? "true" : "false";
        return *this;
    }
    JsonRows& time(std::string_view name, std::chrono::system_clock::time_point value) {
        return text(name, audit::to_text(value));
    }
    std::string take() && {
        out_ += in_row_ ? "}]" : "]";
        return std::move(out_);
    }

private:
    void member(std::string_view name) {
        if (!first_) out_ += ',';
        first_ = false;
        out_ += '"';
        out_ += name;  // ours, and plain
        out_ += "\":";
    }
    std::string out_ = "[";
    bool in_row_ = false;
    bool first_ = true;
};

}  // namespace pgchaperone::net
