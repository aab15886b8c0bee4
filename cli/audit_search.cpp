#include "cli/audit_search.h"

#include "cli/audit_lines.h"
#include "cli/table.h"
#include "config/values.h"

#include <algorithm>
#include <ostream>

namespace pgchaperone::cli {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool contains_text(std::string_view all, std::string_view part) {
    return std::search(all.begin(), all.end(), part.begin(), part.end(),
                       [](char a, char b) { return lower(a) == lower(b); }) != all.end();
}

bool is_table(std::string_view name, std::string_view wanted) {
    if (name == wanted) return true;
    return name.size() > wanted.size() && name.ends_with(wanted) &&
           name[name.size() - wanted.size() - 1] == '.';
}

bool has_table(const boost::json::object& record, std::string_view wanted) {
    if (const auto* const relations = record.if_contains("relations");
        relations != nullptr && relations->is_array()) {
        for (const boost::json::value& one : relations->get_array()) {
            if (one.is_string() && is_table(std::string_view(one.get_string()), wanted))
                return true;
        }
    }
    const auto* const effects = record.if_contains("effects");
    if (effects == nullptr || !effects->is_array()) return false;
    return std::any_of(effects->get_array().begin(), effects->get_array().end(),
                       [&](const boost::json::value& one) {
                           return one.is_object() &&
                                  is_table(member_text(one.get_object(), "table"), wanted);
                       });
}

// "block", "supervise: rolled back", "hold B1: approved".
std::string what_happened(const boost::json::object& record) {
    std::string out = member_text(record, "decision");
    if (member_flag(record, "observed")) out += " (observed)";
    if (const std::string ticket = member_text(record, "ticket"); !ticket.empty())
        out += " " + ticket;
    if (const std::string outcome = member_text(record, "outcome"); !outcome.empty())
        out += ": " + outcome;
    return out;
}

}  // namespace

bool matches(const SearchTerms& terms, const boost::json::object& record) {
    const auto is = [&](const std::string& wanted, std::string_view name) {
        return wanted.empty() || member_text(record, name) == wanted;
    };
    if (!is(terms.user, "user") || !is(terms.database, "database") ||
        !is(terms.upstream, "upstream") || !is(terms.decision, "decision") ||
        !is(terms.rule, "rule") || !is(terms.ticket, "ticket"))
        return false;
    if (!terms.table.empty() && !has_table(record, terms.table)) return false;
    if (!terms.text.empty() && !contains_text(member_text(record, "statement"), terms.text))
        return false;
    if (!terms.since && !terms.until) return true;
    const auto time = parse_time(member_text(record, "time"));
    return time && (!terms.since || *time >= *terms.since) &&
           (!terms.until || *time < *terms.until);
}

int search_log(const std::vector<std::filesystem::path>& files, const SearchTerms& terms, bool json,
               const Look& look, std::ostream& out, std::ostream& err) {
    constexpr std::size_t statement_bytes = 1000;  // of it, in a table
    Table table({"TIME", "USER", "DATABASE", "DECISION", "RULE", "STATEMENT"});
    std::size_t found = 0;
    const bool read = for_each_record(
        files,
        [&](const boost::json::object& record, std::string_view line) {
            if (!matches(terms, record)) return;
            ++found;
            if (json) {
                out << line << '\n';
                return;
            }
            table.add({{visible_line(member_text(record, "time").substr(0, 19)), Ink::plain},
                       {visible_line(member_text(record, "user")), Ink::plain},
                       {visible_line(member_text(record, "database")), Ink::plain},
                       {visible_line(what_happened(record)), Ink::bold},
                       {visible_line(member_text(record, "rule")), Ink::plain},
                       {visible_line(member_text(record, "statement").substr(0, statement_bytes)),
                        Ink::plain}});
        },
        err);
    if (found > 0 && !json) out << table.text(look);
    if (!read) return 2;
    if (found == 0) err << "pgchaperone: no record matches\n";
    return found > 0 ? 0 : 1;
}

std::optional<Time> parse_time_or_age(std::string_view text, Time now) {
    if (const auto age = config::parse_duration(text)) return now - *age;
    constexpr std::size_t date_characters = 10;
    const std::string day = text.size() == date_characters ? std::string(text) + "T00:00:00Z"
                                                           : std::string(text);
    return parse_time(day);
}

}  // namespace pgchaperone::cli
