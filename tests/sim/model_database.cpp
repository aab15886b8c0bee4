#include "sim/model_database.h"

#include <algorithm>
#include <utility>

namespace pgchaperone::sim {

namespace {

constexpr int t1 = 0;
constexpr int t2 = 1;

std::vector<int> ids_of(const Rows& rows, const Statement& s, int bound) {
    std::vector<int> ids;
    for (const auto& [id, value] : rows) {
        if (s.bounded && id > bound) break;
        if (s.limit >= 0 && ids.size() >= static_cast<std::size_t>(s.limit)) break;
        ids.push_back(id);
    }
    return ids;
}

}  // namespace

std::uint64_t Effect::rows() const {
    std::uint64_t rows = 0;
    for (int table = 0; table < tables_count; ++table) {
        rows += counts[static_cast<std::size_t>(table)].changed();
    }
    return rows;
}

Failure read_only_failure() { return {"25006", "cannot execute this in a read-only transaction"}; }

std::uint64_t Effect::inserted() const {
    std::uint64_t rows = 0;
    for (int table = 0; table < tables_count; ++table) {
        rows += counts[static_cast<std::size_t>(table)].inserted;
    }
    return rows;
}

bool Effect::changes() const {
    return truncated ||
           std::any_of(counts.begin(), counts.end(), [](const Counts& one) { return one.any(); });
}

ModelDatabase::ModelDatabase() {
    for (int id = 1; id <= 40; ++id) committed[t1][id] = 0;
    for (int id = 1; id <= 60; ++id) committed[t2][id] = 0;
}

void ModelTransaction::begin(bool read_only) {
    forget();
    open_ = true;
    read_only_ = read_only;
    tables_ = database_.committed;
}

void ModelTransaction::forget() {
    if (open_ && database_.on_end) database_.on_end(counted_, touched_);
    open_ = false;
    counted_ = {};
    touched_ = {};
    wrote_ = false;
    immediate_ = false;
    read_only_ = false;
    queried_ = false;
    effects_.clear();
    savepoints_.clear();
    exclusive_ = {};
    broken_ = 0;
    later_.clear();
}

Outcome ModelTransaction::reading(bool effects, bool locks) const {
    using Row = std::vector<std::optional<std::string>>;
    const auto row = [](const char* kind, int oid, std::optional<std::string> schema,
                        std::optional<std::string> name, const Counts& counts = {}) {
        return Row{kind,
                   std::to_string(oid),
                   std::move(schema),
                   std::move(name),
                   std::to_string(counts.inserted),
                   std::to_string(counts.updated),
                   std::to_string(counts.deleted),
                   "50"};
    };
    Outcome outcome;
    if (database_.counters_lie) effects = locks = false;
    outcome.reading.push_back(row("session", database_.highest_oid,
                                  database_.counters_on ? "on" : "off",
                                  wrote_ ? std::optional<std::string>("777") : std::nullopt,
                                  {read_only_ ? std::uint64_t{1} : 0, 0, 0}));
    for (int table = 0; effects && table <= catalog_table; ++table) {
        const Counts& counts = counters_[static_cast<std::size_t>(table)];
        if (!counts.any() || !database_.counters_on) continue;
        if (table == catalog_table) {
            outcome.reading.push_back(row("catalog", 1255, "pg_catalog", "pg_proc", counts));
        } else {
            outcome.reading.push_back(
                row("table", 16'384 + table, "public", "t" + std::to_string(table + 1), counts));
        }
    }
    for (int table = 0; locks && table < tables_count; ++table) {
        if (!exclusive_[static_cast<std::size_t>(table)]) continue;
        outcome.reading.push_back(
            row("lock", 16'384 + table, "public", "t" + std::to_string(table + 1)));
    }
    outcome.tag = "SELECT " + std::to_string(outcome.reading.size());
    return outcome;
}

std::optional<Failure> ModelTransaction::commit() {
    if (auto failure = fire_deferred()) {
        roll_back();
        return failure;
    }
    database_.committed = tables_;
    if (database_.on_commit) database_.on_commit(effects_);
    forget();
    return std::nullopt;
}

std::optional<Failure> ModelTransaction::prepare(const std::string& name) {
    if (auto failure = fire_deferred()) {
        roll_back();
        return failure;
    }
    if (database_.prepared.contains(name)) {
        roll_back();
        return Failure{"42710", "transaction identifier \"" + name + "\" is already in use"};
    }
    if (database_.on_commit) database_.on_commit(effects_);
    database_.prepared[name] = effects_;
    database_.prepared_tables[name] = tables_;
    forget();
    return std::nullopt;
}

// The counters stay: rows counted in a transaction that is rolled back were counted.
void ModelTransaction::roll_back() { forget(); }

void ModelTransaction::idle() {
    if (random_.one_in(3)) counters_ = {};
}

void ModelTransaction::savepoint(const std::string& name) {
    savepoints_.push_back(
        {name, tables_, effects_.size(), broken_, read_only_, immediate_, later_, exclusive_});
}

bool ModelTransaction::has_savepoint(const std::string& name) const {
    return std::any_of(savepoints_.begin(), savepoints_.end(),
                       [&](const Savepoint& savepoint) { return savepoint.name == name; });
}

std::optional<Failure> ModelTransaction::release(const std::string& name) {
    if (!has_savepoint(name)) return Failure{"3B001", "savepoint does not exist"};
    while (savepoints_.back().name != name) savepoints_.pop_back();
    savepoints_.pop_back();
    return std::nullopt;
}

std::optional<Failure> ModelTransaction::roll_back_to(const std::string& name) {
    if (!has_savepoint(name)) return Failure{"3B001", "savepoint does not exist"};
    while (savepoints_.back().name != name) savepoints_.pop_back();
    const Savepoint& savepoint = savepoints_.back();
    tables_ = savepoint.tables;
    effects_.resize(savepoint.effects);
    broken_ = savepoint.broken;
    read_only_ = savepoint.read_only;
    immediate_ = savepoint.immediate;
    later_ = savepoint.later;
    exclusive_ = savepoint.exclusive;
    return std::nullopt;
}

void ModelTransaction::count(std::size_t table, std::uint64_t Counts::*what, std::uint64_t rows) {
    if (rows == 0) return;
    wrote_ = true;
    counters_[table].*what += rows;
    counted_[table].*what += rows;
    effects_.back().counts[table].*what += rows;
}

// Rows of t2 hang on those of t1 with the same id, so the other way round nothing cascades.
void ModelTransaction::remove_rows(int table, int up_to, int at_most, bool cascade,
                                   std::vector<int>& removed) {
    Rows& rows = tables_[static_cast<std::size_t>(table)];
    for (auto row = rows.begin(); row != rows.end() && row->first <= up_to;) {
        if (static_cast<int>(removed.size()) >= at_most) break;
        removed.push_back(row->first);
        row = rows.erase(row);
    }
    count(static_cast<std::size_t>(table), &Counts::deleted, removed.size());
    if (!cascade) return;
    const int other = table == t1 ? t2 : t1;
    std::uint64_t taken = 0;
    for (const int id : removed) taken += tables_[static_cast<std::size_t>(other)].erase(id);
    count(static_cast<std::size_t>(other), &Counts::deleted, taken);
}

std::optional<Failure> ModelTransaction::change(const Statement& s, const std::vector<int>& p,
                                                Outcome& outcome) {
    constexpr int all = 1'000'000;
    const auto table = static_cast<std::size_t>(s.table);
    Rows& rows = tables_[table];
    switch (s.verb) {
        case Verb::insert: {
            const int low = s.low.of(p);
            const int high = std::min(s.high.of(p), low + 200);
            for (int id = low; id <= high; ++id) {
                if (!rows.emplace(id, 0).second) {
                    // What was counted by then stays counted.
                    count(table, &Counts::inserted, outcome.rows.size());
                    return Failure{"23505", "duplicate key value violates unique constraint"};
                }
                outcome.rows.push_back(id);
            }
            count(table, &Counts::inserted, outcome.rows.size());
            outcome.tag = "INSERT 0 " + std::to_string(outcome.rows.size());
            break;
        }
        case Verb::update:
            outcome.rows = ids_of(rows, s, s.high.of(p));
            for (const int id : outcome.rows) rows[id] = s.value.of(p);
            count(table, &Counts::updated, outcome.rows.size());
            outcome.tag = "UPDATE " + std::to_string(outcome.rows.size());
            break;
        case Verb::remove:
            remove_rows(s.table, s.bounded ? s.high.of(p) : all, all, s.cascade, outcome.rows);
            outcome.tag = "DELETE " + std::to_string(outcome.rows.size());
            break;
        case Verb::with_remove:
        case Verb::explain_remove: {
            std::vector<int> removed;
            remove_rows(s.table, s.bounded ? s.high.of(p) : all, all, s.cascade, removed);
            outcome = s.verb == Verb::with_remove ? Outcome{"SELECT 1", {1}}
                                                  : Outcome{"EXPLAIN", {}};
            break;
        }
        case Verb::purge:
        case Verb::do_purge:
        case Verb::call_sweep: {
            std::vector<int> removed;
            remove_rows(t2, all, s.high.of(p), true, removed);
            outcome.rows = {static_cast<int>(removed.size())};
            outcome.tag = s.verb == Verb::purge      ? "SELECT 1"
                          : s.verb == Verb::do_purge ? "DO"
                                                     : "CALL";
            break;
        }
        case Verb::make_function:
            count(catalog_table, &Counts::inserted, 1);
            outcome = {"SELECT 1", {1}};
            break;
        case Verb::wipe:
        case Verb::truncate: {
            const auto which = s.verb == Verb::wipe ? std::size_t{wiped_table} : table;
            tables_[which].clear();
            wrote_ = true;
            touched_ = true;
            effects_.back().truncated = !std::exchange(exclusive_[which], true);
            // As PostgreSQL does: what this transaction counted before is forgotten.
            counters_[which] = {};
            outcome = s.verb == Verb::wipe ? Outcome{"SELECT 1", {1}}
                                           : Outcome{"TRUNCATE TABLE", {}};
            break;
        }
        default: break;
    }
    const bool dml = s.verb == Verb::insert || s.verb == Verb::update || s.verb == Verb::remove;
    if (dml) {
        Counts& tagged = effects_.back().tagged;
        (s.verb == Verb::insert   ? tagged.inserted
         : s.verb == Verb::update ? tagged.updated
                                  : tagged.deleted) = outcome.rows.size();
    }
    if (dml && !s.returning) outcome.rows.clear();
    return std::nullopt;
}

std::optional<Failure> ModelTransaction::run(const Statement& s, const std::vector<int>& parameters,
                                             Outcome& outcome) {
    queried_ = true;
    switch (s.verb) {
        case Verb::select_constant: outcome = {"SELECT 1", {1}}; return std::nullopt;
        case Verb::select_rows:
        case Verb::copy_out:
            outcome.rows = ids_of(tables_[static_cast<std::size_t>(s.table)], s,
                                  s.high.of(parameters));
            outcome.tag = (s.verb == Verb::copy_out ? "COPY " : "SELECT ") +
                          std::to_string(outcome.rows.size());
            return std::nullopt;
        default: break;
    }
    if (read_only_) return read_only_failure();
    Effect effect;
    effect.text = s.text;
    effect.opaque = s.opaque();
    effect.trial = trial;
    effect.ticket = ticket;
    effects_.push_back(std::move(effect));
    if (auto failure = change(s, parameters, outcome)) return failure;
    if (s.heals) broken_ = 0;
    if (s.breaks) ++broken_;
    if (s.later > 0) later_.push_back(s.later);
    return immediate_ ? fire_deferred() : std::nullopt;
}

std::optional<Failure> ModelTransaction::fire_deferred() {
    if (broken_ > 0) {
        return Failure{"23503", "update or delete violates foreign key constraint"};
    }
    for (const int rows : std::exchange(later_, {})) {
        std::uint64_t taken = 0;
        Rows& hit = tables_[static_cast<std::size_t>(t2)];
        if (read_only_) return read_only_failure();
        while (taken < static_cast<std::uint64_t>(rows) && !hit.empty()) {
            hit.erase(hit.begin());
            ++taken;
        }
        // Nobody's statement: it is counted for itself.
        Effect effect;
        effect.text = "a deferred trigger";
        effect.deferred = true;
        effect.trial = trial;
        effects_.push_back(std::move(effect));
        count(static_cast<std::size_t>(t2), &Counts::deleted, taken);
    }
    return std::nullopt;
}

std::optional<Failure> ModelTransaction::set_read_only(bool read_only) {
    if (!read_only && read_only_ && (queried_ || !savepoints_.empty())) {
        return Failure{"25001", "transaction read-write mode must be set before any query"};
    }
    read_only_ = read_only;
    return std::nullopt;
}

std::optional<Failure> ModelTransaction::constraints_immediate() {
    if (auto failure = fire_deferred()) return failure;
    immediate_ = true;
    return std::nullopt;
}

void ModelTransaction::copy_begin(const Statement& statement) {
    queried_ = true;
    Effect effect;
    effect.text = statement.text;
    effect.trial = trial;
    effect.ticket = ticket;
    effects_.push_back(std::move(effect));
}

std::optional<Failure> ModelTransaction::copy_row(const Statement& statement, int id) {
    const auto table = static_cast<std::size_t>(statement.table);
    if (!tables_[table].emplace(id, 0).second) {
        return Failure{"23505", "duplicate key value violates unique constraint"};
    }
    count(table, &Counts::inserted, 1);
    return std::nullopt;
}

std::optional<Failure> ModelTransaction::copy_end(const Statement& statement, std::string& tag) {
    Effect& effect = effects_.back();
    effect.tagged.inserted = effect.counts[static_cast<std::size_t>(statement.table)].inserted;
    tag = "COPY " + std::to_string(effect.tagged.inserted);
    return immediate_ ? fire_deferred() : std::nullopt;
}

}  // namespace pgchaperone::sim
