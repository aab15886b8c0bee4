#pragma once
// The model server's tables and transactions: what PostgreSQL would do with rows, savepoints,
// deferred triggers, statistics counters and locks, small enough to be checked by reading. Knows no
// protocol. One connection writes at a time; nothing here waits.

#include "sim/model_sql.h"
#include "support/random.h"

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace pgchaperone::sim {

inline constexpr int tables_count = 3;
inline constexpr int wiped_table = 2;  // that of SELECT wipe()
// Where DDL shows: the counters' row for pg_proc.
inline constexpr int catalog_table = tables_count;

using Rows = std::map<int, int>;  // id -> a
using Tables = std::array<Rows, tables_count>;

struct Counts {
    std::uint64_t inserted = 0;
    std::uint64_t updated = 0;
    std::uint64_t deleted = 0;
    // What limits count as changed rows; rows inserted are counted for themselves.
    std::uint64_t changed() const { return updated + deleted; }
    bool any() const { return inserted + updated + deleted > 0; }
};
using CountsByTable = std::array<Counts, tables_count + 1>;

// What one statement did that a transaction still holds (a savepoint rolled back takes it away).
struct Effect {
    std::string text;
    bool opaque = false;
    bool deferred = false;   // a deferred trigger's, not a statement's
    CountsByTable counts;    // all of it: cascades and triggers included
    Counts tagged;           // as CommandComplete tells them
    bool trial = false;      // of a statement that was only to be tried
    std::string ticket;      // by which it ran
    bool truncated = false;  // took an ACCESS EXCLUSIVE lock that was not held before
    std::uint64_t rows() const;
    std::uint64_t inserted() const;
    bool changes() const;
};

struct Failure {
    std::string sqlstate;
    std::string message;
};

Failure read_only_failure();

struct Outcome {
    std::string tag = {};
    std::vector<int> rows = {};  // one column, for what returns rows
    std::vector<std::vector<std::optional<std::string>>> reading =
        {};  // of the guard's own queries
};

struct ModelDatabase {
    ModelDatabase();
    Tables committed;
    std::map<std::string, std::vector<Effect>> prepared;  // by global transaction name
    std::map<std::string, Tables> prepared_tables;
    int highest_oid = 16'500;
    bool counters_on = true;    // track_counts
    bool counters_lie = false;  // to break it on purpose: nothing shows
    // Told of every transaction that takes effect, or is prepared to.
    std::function<void(const std::vector<Effect>&)> on_commit;
    // Told of every transaction that ends, well or not: all that was counted in it, and whether it
    // took an ACCESS EXCLUSIVE lock.
    std::function<void(const CountsByTable&, bool)> on_end;
};

// A session's transactions. `begin` to `commit` or `roll_back` is one; savepoints nest within.
class ModelTransaction {
public:
    ModelTransaction(ModelDatabase& database, std::uint64_t seed)
        : database_(database), random_(seed) {}

    bool open() const { return open_; }
    // What runs now is the guard's trial of a statement.
    bool trial = false;
    std::string ticket;  // by which it runs
    // `read_only`: as AND CHAIN hands it on.
    void begin(bool read_only = false);
    // Fails where deferred constraints do; the transaction is rolled back then.
    std::optional<Failure> commit();
    std::optional<Failure> prepare(const std::string& name);
    void roll_back();
    void savepoint(const std::string& name);
    std::optional<Failure> release(const std::string& name);
    std::optional<Failure> roll_back_to(const std::string& name);
    bool has_savepoint(const std::string& name) const;

    // Runs a statement that reads or changes rows. COPY's rows come through copy_row.
    std::optional<Failure> run(const Statement& statement, const std::vector<int>& parameters,
                               Outcome& outcome);
    std::optional<Failure> constraints_immediate();
    std::optional<Failure> set_read_only(bool read_only);
    bool read_only() const { return read_only_; }
    // An error came: settings are again what they were before the transaction, or the savepoint.
    void fail() { read_only_ = !savepoints_.empty() && savepoints_.back().read_only; }
    void constraints_deferred() { immediate_ = false; }
    void copy_begin(const Statement& statement);
    std::optional<Failure> copy_row(const Statement& statement, int id);
    std::optional<Failure> copy_end(const Statement& statement, std::string& tag);

    // What the guard's own queries show of this transaction: see proxy/session/supervise_sql.h.
    Outcome reading(bool effects, bool locks) const;

    // The session is idle: the counters of its past may be sent to the collector now.
    void idle();

private:
    struct Savepoint {
        std::string name;
        Tables tables;
        std::size_t effects = 0;
        int broken = 0;
        bool read_only = false;
        bool immediate = false;
        std::vector<int> later;
        std::array<bool, tables_count> exclusive{};
    };
    void forget();
    void count(std::size_t table, std::uint64_t Counts::*what, std::uint64_t rows);
    std::optional<Failure> fire_deferred();
    void remove_rows(int table, int up_to, int at_most, bool cascade, std::vector<int>& removed);
    std::optional<Failure> change(const Statement& s, const std::vector<int>& p, Outcome& outcome);

    ModelDatabase& database_;
    test::Random random_;
    bool open_ = false;
    bool wrote_ = false;
    bool immediate_ = false;
    bool read_only_ = false;
    bool queried_ = false;  // it has a snapshot
    Tables tables_;
    std::vector<Effect> effects_;
    std::vector<Savepoint> savepoints_;
    CountsByTable counters_{};  // of this transaction and of earlier ones not yet sent away
    std::array<bool, tables_count> exclusive_{};
    CountsByTable counted_{};  // of this transaction alone, what a savepoint took back included
    bool touched_ = false;     // it took an ACCESS EXCLUSIVE lock
    int broken_ = 0;           // deferred constraints that do not hold now
    std::vector<int> later_;   // of each deferred trigger: rows of t2 to delete
};

}  // namespace pgchaperone::sim
