#include "cli/audit_lines.h"

#include "audit/log_walk.h"

#include <algorithm>
#include <charconv>
#include <ostream>

namespace pgchaperone::cli {

std::string member_text(const boost::json::object& record, std::string_view name) {
    const auto* const value = record.if_contains({name.data(), name.size()});
    if (value == nullptr || !value->is_string()) return {};
    return {value->get_string().data(), value->get_string().size()};
}

std::optional<std::uint64_t> member_number(const boost::json::object& record,
                                           std::string_view name) {
    const auto* const value = record.if_contains({name.data(), name.size()});
    if (value == nullptr || !value->is_number()) return std::nullopt;
    boost::system::error_code problem;
    const auto number = value->to_number<std::uint64_t>(problem);
    return problem ? std::nullopt : std::optional(number);
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

bool is_of_session(const boost::json::object& record) { return record.contains("session"); }

bool for_each_record(
    const std::vector<std::filesystem::path>& files,
    const std::function<void(const boost::json::object& record, std::string_view line)>& take,
    std::ostream& err) {
    std::optional<std::uint64_t> last_seq;
    const auto take_file = [&](audit::LineReader& reader, const std::filesystem::path& file) {
        last_seq.reset();
        while (const auto line = reader.next()) {
            boost::system::error_code problem;
            const auto value = boost::json::parse({line->data(), line->size()}, problem);
            if (problem || !value.is_object()) continue;
            const boost::json::object& record = value.get_object();
            last_seq = member_number(record, "seq");
            if (record.contains("event")) take(record, *line);
        }
        if (reader.state() != audit::LineReader::State::unreadable &&
            reader.state() != audit::LineReader::State::damaged)
            return true;
        err << "pgchaperone: can't read " << file.string() << ": " << reader.problem() << '\n';
        return false;
    };
    if (files.size() == 1) {
        audit::LogWalk walk(files.front());
        while (audit::LineReader* const reader = walk.next(last_seq)) {
            if (!take_file(*reader, walk.path())) return false;
        }
        return true;
    }
    return std::all_of(files.begin(), files.end(), [&](const std::filesystem::path& file) {
        audit::LineReader reader(file);
        return take_file(reader, file);
    });
}

}  // namespace pgchaperone::cli
