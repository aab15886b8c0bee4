#include "cli/audit_lines.h"

#include "audit/line_reader.h"
#include "audit/log_reader.h"

#include <charconv>
#include <ostream>

namespace pgchaperone::cli {

std::string member_text(const boost::json::object& record, std::string_view name) {
    const auto* const value = record.if_contains({name.data(), name.size()});
    if (value == nullptr || !value->is_string()) return {};
    return {value->get_string().data(), value->get_string().size()};
}

bool member_flag(const boost::json::object& record, std::string_view name) {
    const auto* const value = record.if_contains({name.data(), name.size()});
    return value != nullptr && value->is_bool() && value->get_bool();
}

bool member_lists(const boost::json::object& record, std::string_view name, std::string_view text) {
    const auto* const value = record.if_contains({name.data(), name.size()});
    if (value == nullptr || !value->is_array()) return false;
    for (const boost::json::value& one : value->get_array()) {
        if (one.is_string() && std::string_view(one.get_string()) == text) return true;
    }
    return false;
}

std::string member_bytes(const boost::json::object& record, std::string_view name) {
    const std::string text = member_text(record, name);
    if (!member_lists(record, "escaped", name)) return text;
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        unsigned byte = 0;
        if (text[i] == '\\' && i + 3 < text.size() && text[i + 1] == 'x' &&
            std::from_chars(&text[i + 2], &text[i + 2] + 2, byte, 16).ec == std::errc()) {
            out += static_cast<char>(byte);
            i += 3;
        } else {
            out += text[i];
            if (text[i] == '\\' && i + 1 < text.size() && text[i + 1] == '\\') ++i;
        }
    }
    return out;
}

bool for_each_record(
    const std::vector<std::filesystem::path>& files,
    const std::function<void(const boost::json::object& record, std::string_view line)>& take,
    std::ostream& err) {
    const auto take_line = [&](std::string_view line) {
        boost::system::error_code problem;
        const auto value = boost::json::parse({line.data(), line.size()}, problem);
        if (problem || !value.is_object()) return;
        const boost::json::object& record = value.get_object();
        if (record.contains("session")) take(record, line);
    };
    const auto complain = [&](const std::string& problem) {
        if (!problem.empty()) err << "pgchaperone: can't read " << problem << '\n';
        return problem.empty();
    };
    if (files.size() == 1) {
        audit::LogReader reader(files.front());
        while (const auto line = reader.next()) take_line(*line);
        return complain(reader.problem());
    }
    for (const std::filesystem::path& file : files) {
        audit::LineReader reader(file);
        while (const auto line = reader.next()) take_line(*line);
        if ((reader.state() == audit::LineReader::State::unreadable ||
             reader.state() == audit::LineReader::State::damaged) &&
            !complain(file.string() + ": " + reader.problem()))
            return false;
    }
    return true;
}

}  // namespace pgchaperone::cli
