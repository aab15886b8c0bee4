#pragma once
// `pgchaperone audit search`: which records of an audit log are about somebody, a table, a rule, a
// ticket, a time.

#include "cli/terminal.h"

#include <boost/json.hpp>

#include <filesystem>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::cli {

// All that are given must hold; empty: any.
struct SearchTerms {
    std::string event;  // empty: any record of a session
    std::string user, database, upstream, decision, rule, ticket;
    std::string table;  // as it stands in the record, or without its schema
    std::string text;   // a part of the statement, upper and lower case alike
    std::optional<Time> since, until;
};

bool matches(const SearchTerms& terms, const boost::json::object& record);

// Prints the records that match, as a table or, with `json`, as they stand in the log; with each
// decision what came of it, whose record need not match by itself. Returns the exit
// status: 0 there are some, 1 there are none, 2 a file can't be read.
int search_log(const std::vector<std::filesystem::path>& files, const SearchTerms& terms, bool json,
               const Look& look, std::ostream& out, std::ostream& err);

// "2026-11-21", "2026-11-21T10:00:00Z", or how long ago: "2h".
std::optional<Time> parse_time_or_age(std::string_view text, Time now);

}  // namespace pgchaperone::cli
