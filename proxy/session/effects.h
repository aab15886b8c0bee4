#pragma once
// What a supervised statement did: readings of the server's own counters (supervise_sql.h), the
// difference of two of them, and whether it is within the limits. Values and pure functions.

#include "policy/decision.h"
#include "policy/facts.h"
#include "policy/rule.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::session {

// Rows of one table. A partition has its root's name.
struct TableEffect {
    std::uint32_t oid = 0;
    std::string schema;
    std::string table;
    std::uint64_t inserted = 0;
    std::uint64_t updated = 0;
    std::uint64_t deleted = 0;
    double estimate = 0;  // rows of the table, as the catalogue estimates them; 0: not known

    std::uint64_t changed() const { return updated + deleted; }  // of the rows that were there
    std::string name() const { return schema.empty() ? table : schema + "." + table; }
};

struct NamedRelation {
    std::uint32_t oid = 0;
    std::string schema;
    std::string name;  // empty: it is gone
    std::string text() const {
        return name.empty() ? "a relation that is gone now" : schema + "." + name;
    }
};

// One reading, as it came.
class Reading {
public:
    // One DataRow's body. False: it is not a row of a reading.
    bool add_row(std::string_view body);
    // Whole and to be relied on: the session's row was there, and the counters are on.
    bool usable() const { return session_row_ && counters_on_; }
    bool counters_on() const { return counters_on_; }
    bool wrote() const { return wrote_; }  // the transaction has an id

    std::vector<TableEffect> tables;
    std::vector<TableEffect> catalogs;
    std::vector<NamedRelation> locks;
    std::vector<NamedRelation> temporary;  // not locked, just there
    std::vector<NamedRelation> foreign_writes;
    std::uint64_t toast_tables = 0;
    bool has_foreign_tables = false;
    bool read_only = false;  // the transaction was declared so
    std::uint32_t highest_oid = 0;

private:
    static constexpr std::size_t rows_max = 1'000'000;
    std::size_t rows_ = 0;
    bool session_row_ = false;
    bool counters_on_ = false;
    bool wrote_ = false;
};

struct Effects {
    std::vector<TableEffect> tables;           // partitions of one root together; most rows first
    std::vector<std::string> catalog_changes;  // "pg_proc", "privileges or properties of relations"
    std::vector<NamedRelation> exclusive_locks;  // on relations that were there before
    std::vector<NamedRelation> foreign_writes;   // tables whose rows are counted elsewhere

    std::uint64_t changed() const;
    std::uint64_t inserted() const;
    void add(const Effects& more);
};

// What happened between two readings of the same transaction. `before` may be one of an earlier
// moment of the session's without harm to correctness only within the same transaction; null:
// everything that `after` shows counts.
// `first_oid`: the highest oid at the transaction's first reading, 0 where that is not known.
// Tables beyond it are new: of those, as many changed rows are the transaction's own as it has put
// there.
Effects difference(const Reading* before, const Reading& after, std::uint32_t first_oid);

// The rows of a plain statement as its command tag tells them ("UPDATE 5", "INSERT 0 5"); nothing
// where the tag has no count.
std::optional<std::uint64_t> rows_of_tag(std::string_view tag);
Effects effects_of_tag(std::string_view tag, const policy::StatementFacts& facts);

// What was read, or what the tag told where that is more and may be true: rows of foreign tables
// have no counters here.
Effects at_least(Effects read, Effects told, const Reading* reading);

// Whether it writes nothing by its text. (Views, and what else the text does not show, can.)
bool only_reads(const policy::StatementFacts& facts);

// Whether the command tag alone tells what the statement did, triggers and cascades apart.
bool tag_tells(const policy::StatementFacts& facts);

// What was changed before, in the same transaction and by the session within the rule's window,
// this statement not included.
struct Tally {
    std::uint64_t transaction = 0;
    std::uint64_t session = 0;
};

// The words for a statement that did more than its limits allow; nothing: it did not. `facts` null:
// the end of a transaction, whose deferred triggers did it.
std::optional<policy::Refusal> exceeded(const Effects& effects,
                                        const policy::SuperviseLimits& limits, const Tally& tally,
                                        const policy::StatementFacts* facts, std::string_view rule);

// "48,210"
std::string with_separators(std::uint64_t number);

}  // namespace pgchaperone::session
