#pragma once
// An audit log's lines as values, for `audit search` and `replay`. What is none of its lines is
// passed over: whether the log is whole is for `audit verify`.

#include <boost/json.hpp>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::cli {

// The text of a member; empty where there is none.
std::string member_text(const boost::json::object& record, std::string_view name);
// Nothing where it is no number, or none that is whole and at least 0.
std::optional<std::uint64_t> member_number(const boost::json::object& record,
                                           std::string_view name);
bool member_flag(const boost::json::object& record, std::string_view name);
// Whether the list of that name has the text: a field in `escaped`, a table in `relations`.
bool member_lists(const boost::json::object& record, std::string_view name, std::string_view text);
// The bytes that a client has sent, where the field was escaped.
std::string member_bytes(const boost::json::object& record, std::string_view name);

// Whether it is of a session, and no event of the log's own.
bool is_of_session(const boost::json::object& record);

// One file stands for the log of that name with all its old files. Calls `take` for each record and
// event, in their order, with the line as it stands there. False where a file can't be read, which
// is told to `err`.
bool for_each_record(
    const std::vector<std::filesystem::path>& files,
    const std::function<void(const boost::json::object& record, std::string_view line)>& take,
    std::ostream& err);

}  // namespace pgchaperone::cli
