#include "cli/audit_search.h"

#include "cli/audit_lines.h"
#include "cli/table.h"
#include "config/values.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <ostream>
#include <unordered_map>
#include <utility>

namespace pgchaperone::cli {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool contains_text(std::string_view all, std::string_view part) {
    return std::search(all.begin(), all.end(), part.begin(), part.end(),
                       [](char a, char b) { return lower(a) == lower(b); }) != all.end();
}

bool ends_with_name(std::string_view name, std::string_view last) {
    return name == last || (name.size() > last.size() && name.ends_with(last) &&
                            name[name.size() - last.size() - 1] == '.');
}

// A statement's tables are on record as its text names them: what has no schema may be any of that
// name.
bool is_table(std::string_view name, std::string_view wanted) {
    return ends_with_name(name, wanted) || ends_with_name(wanted, name);
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

// What the log's own event tells: "process=4711 by=signal version=2". A policy's text is long, and
// what ties the line to others is for `verify`.
std::string details(const boost::json::object& event) {
    constexpr std::array left_out = {"seq",  "prev",      "v",        "event",  "time",
                                     "user", "signature", "upstream", "policy", "escaped"};
    std::string out;
    for (const auto& member : event) {
        if (std::find(left_out.begin(), left_out.end(), std::string_view(member.key())) !=
            left_out.end())
            continue;
        if (!out.empty()) out += ' ';
        out += std::string(member.key()) + '=';
        out += member.value().is_string() ? std::string(member.value().get_string())
                                          : boost::json::serialize(member.value());
    }
    return out;
}

// "block", "supervise: rolled back", "hold B1: approved"; of the log's own events their names.
std::string what_happened(const boost::json::object& record) {
    if (!is_of_session(record)) return member_text(record, "event");
    std::string out = member_text(record, "decision");
    if (member_flag(record, "observed")) out += " (observed)";
    if (const std::string ticket = member_text(record, "ticket"); !ticket.empty())
        out += " " + ticket;
    if (const std::string outcome = member_text(record, "outcome"); !outcome.empty())
        out += ": " + outcome;
    return out;
}

std::string duration_text(std::uint64_t us) {
    constexpr std::uint64_t ms = 1000, second = 1'000'000;
    const auto tenths = [](std::uint64_t value, std::uint64_t unit) {
        const std::uint64_t of_ten = value * 10 / unit;
        return std::to_string(of_ten / 10) + "." + std::to_string(of_ten % 10);
    };
    if (us < ms) return std::to_string(us) + " us";
    return us < 10 * second ? tenths(us, ms) + " ms" : tenths(us, second) + " s";
}

// "completed, 3 rows, 2.1 ms, committed", "failed 23505, 310 us", "not run".
std::string outcome_text(const boost::json::object& done) {
    std::string out = member_text(done, "outcome");
    if (const std::string code = member_text(done, "sqlstate"); !code.empty()) out += " " + code;
    if (const auto rows = member_number(done, "rows"))
        out += ", " + std::to_string(*rows) + (*rows == 1 ? " row" : " rows");
    if (const auto us = member_number(done, "duration_us")) out += ", " + duration_text(*us);
    if (const std::string ended = member_text(done, "ended"); !ended.empty()) out += ", " + ended;
    return out;
}

// What was found, and what came of it, which stands in lines behind it that show no statement.
class Found {
public:
    bool empty() const { return rows_.empty(); }

    void add(const boost::json::object& record, bool json) {
        constexpr std::size_t statement_bytes = 1000;
        Row row;
        if (!json) {
            row.time = visible_line(member_text(record, "time").substr(0, 19));
            row.user = visible_line(member_text(record, "user"));
            row.database = visible_line(member_text(record, "database"));
            row.decision = visible_line(what_happened(record));
            row.rule = visible_line(member_text(record, "rule"));
            row.statement = visible_line(
                is_of_session(record) ? member_text(record, "statement").substr(0, statement_bytes)
                                      : details(record));
        }
        // A session's number may come again, after a restart: the last is meant.
        if (member_text(record, "event") == "decision") {
            if (const std::string one = key(record, "number"); !one.empty())
                by_number_[one] = rows_.size();
        }
        rows_.push_back(std::move(row));
    }

    // Whether it is of something that was found.
    bool done(const boost::json::object& record) {
        const auto decided = by_number_.find(key(record, "number"));
        if (decided == by_number_.end()) return false;
        rows_[decided->second].outcome = visible_line(outcome_text(record));
        const std::string block = key(record, "transaction");
        if (!block.empty() && member_text(record, "ended").empty())
            in_block_[block].push_back(decided->second);
        return true;
    }

    bool transaction(const boost::json::object& record) {
        const auto block = in_block_.find(key(record, "transaction"));
        if (block == in_block_.end()) return false;
        for (const std::size_t at : block->second)
            rows_[at].outcome += ", " + visible_line(member_text(record, "outcome"));
        in_block_.erase(block);
        return true;
    }

    std::string table(const Look& look) const {
        Table out({"TIME", "USER", "DATABASE", "DECISION", "RULE", "OUTCOME", "STATEMENT"});
        for (const Row& row : rows_)
            out.add({{row.time, Ink::plain},
                     {row.user, Ink::plain},
                     {row.database, Ink::plain},
                     {row.decision, Ink::bold},
                     {row.rule, Ink::plain},
                     {row.outcome, Ink::plain},
                     {row.statement, Ink::plain}});
        out.drop_empty();
        return out.text(look);
    }

private:
    struct Row {
        std::string time, user, database, decision, rule, outcome, statement;
    };

    // Of a session: two processes that write one log may number theirs alike, and then only the
    // clients tell them apart.
    static std::string key(const boost::json::object& record, std::string_view name) {
        const auto session = member_number(record, "session");
        const auto number = member_number(record, name);
        if (!session || !number) return {};
        return std::to_string(*session) + ' ' + std::to_string(*number) + ' ' +
               member_text(record, "client");
    }

    std::vector<Row> rows_;
    std::unordered_map<std::string, std::size_t> by_number_;
    std::unordered_map<std::string, std::vector<std::size_t>> in_block_;
};

}  // namespace

bool matches(const SearchTerms& terms, const boost::json::object& record) {
    const auto is = [&](const std::string& wanted, std::string_view name) {
        return wanted.empty() || member_text(record, name) == wanted;
    };
    if (terms.event.empty() ? !is_of_session(record) : member_text(record, "event") != terms.event)
        return false;
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
    Found found;
    std::size_t lines = 0;
    const bool read = for_each_record(
        files,
        [&](const boost::json::object& record, std::string_view line) {
            const std::string event = member_text(record, "event");
            const bool of_another = event == "done"          ? found.done(record)
                                    : event == "transaction" ? found.transaction(record)
                                                             : false;
            const bool shown = matches(terms, record);
            const bool has_row = (event != "done" && event != "transaction") ||
                                 event == terms.event;
            if (has_row && shown) found.add(record, json);
            if (!json || (!shown && !of_another)) return;
            ++lines;
            out << line << '\n';
        },
        err);
    if (!json && !found.empty()) out << found.table(look);
    if (!read) return 2;
    if (lines > 0 || !found.empty()) return 0;
    err << "pgchaperone: no record matches\n";
    return 1;
}

std::optional<Time> parse_time_or_age(std::string_view text, Time now) {
    if (const auto age = config::parse_duration(text)) return now - *age;
    constexpr std::size_t date_characters = 10;
    const std::string day = text.size() == date_characters ? std::string(text) + "T00:00:00Z"
                                                           : std::string(text);
    return parse_time(day);
}

}  // namespace pgchaperone::cli
