#include "proxy/session/effects.h"

#include "protocol/codec.h"
#include "protocol/messages.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>
#include <map>
#include <utility>

namespace pgchaperone::session {

namespace {

template <class Number>
std::optional<Number> number(std::string_view text) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

// Catalogs whose rows come and go with relations. What happens to relations that were there shows
// as an exclusive lock as well; what is made new harms nobody.
bool describes_relations(std::string_view catalog) {
    static constexpr std::array<std::string_view, 13> names{
        "pg_attrdef",     "pg_attribute", "pg_class",    "pg_constraint", "pg_depend",
        "pg_description", "pg_index",     "pg_inherits", "pg_namespace",  "pg_sequence",
        "pg_shdepend",    "pg_trigger",   "pg_type",
    };
    return std::binary_search(names.begin(), names.end(), catalog);
}

// What ANALYZE writes.
bool is_statistics(std::string_view catalog) {
    return catalog == "pg_statistic" || catalog == "pg_statistic_ext_data";
}

const TableEffect* find(const std::vector<TableEffect>& tables, std::uint32_t oid) {
    const auto at = std::find_if(tables.begin(), tables.end(),
                                 [oid](const TableEffect& one) { return one.oid == oid; });
    return at == tables.end() ? nullptr : &*at;
}

// A TRUNCATE sets a table's counters back; it shows as a lock.
std::uint64_t grown(std::uint64_t before, std::uint64_t after) {
    return after > before ? after - before : 0;
}

std::vector<TableEffect> grown(const std::vector<TableEffect>* before,
                               const std::vector<TableEffect>& after) {
    std::vector<TableEffect> out;
    for (const TableEffect& now : after) {
        TableEffect one = now;
        if (const TableEffect* const then = before ? find(*before, now.oid) : nullptr) {
            one.inserted = grown(then->inserted, now.inserted);
            one.updated = grown(then->updated, now.updated);
            one.deleted = grown(then->deleted, now.deleted);
        }
        if (one.inserted > 0 || one.changed() > 0) out.push_back(std::move(one));
    }
    return out;
}

// Of a table that came into being in this transaction, or while it ran: rows that others may have
// put there.
std::uint64_t changed_of_others(const TableEffect* table) {
    return table == nullptr ? 0 : grown(table->inserted, table->changed());
}

void sort_by_rows(std::vector<TableEffect>& tables) {
    std::stable_sort(tables.begin(), tables.end(), [](const TableEffect& a, const TableEffect& b) {
        return std::pair(a.changed(), a.inserted) > std::pair(b.changed(), b.inserted);
    });
}

void merge(std::vector<TableEffect>& into, const TableEffect& one) {
    const auto same = std::find_if(into.begin(), into.end(), [&](const TableEffect& other) {
        return other.schema == one.schema && other.table == one.table;
    });
    if (same == into.end()) {
        into.push_back(one);
        return;
    }
    same->inserted += one.inserted;
    same->updated += one.updated;
    same->deleted += one.deleted;
    same->estimate = std::max(same->estimate, one.estimate);
}

// `new_toasts`: TOAST tables that came into being, each of which is written into its table's row of
// pg_class.
std::vector<std::string> catalog_changes(const std::vector<TableEffect>& catalogs,
                                         std::uint64_t new_toasts) {
    std::vector<std::string> out;
    const auto deleted_of = [&](std::string_view name) {
        const auto at = std::find_if(catalogs.begin(), catalogs.end(),
                                     [&](const TableEffect& one) { return one.table == name; });
        return at == catalogs.end() ? 0 : at->deleted;
    };
    for (const TableEffect& catalog : catalogs) {
        if (is_statistics(catalog.table)) continue;
        if (describes_relations(catalog.table)) {
            // A relation takes two types with it at most; more were dropped by themselves.
            const bool types = catalog.table == "pg_type" &&
                               catalog.deleted > 2 * deleted_of("pg_class");
            // No relation is dropped, so this was a trigger, constraint, default, schema ...
            const bool parts = catalog.deleted > 0 && deleted_of("pg_class") == 0 &&
                               catalog.table != "pg_depend" && catalog.table != "pg_shdepend";
            // Triggers are made on relations that others use, and run for them.
            const bool triggers = catalog.table == "pg_trigger" && catalog.inserted > 0;
            // A table that was dropped with its TOAST table may have been made again.
            const std::uint64_t of_new = catalog.table == "pg_class"
                                             ? new_toasts + deleted_of("pg_class") / 3
                                             : 0;
            const bool updated = catalog.updated > of_new && catalog.table != "pg_depend" &&
                                 catalog.table != "pg_shdepend";
            if (!types && !parts && !updated && !triggers) continue;
        }
        out.push_back(catalog.table);
    }
    return out;
}

std::string counts(const TableEffect& table) {
    std::string out = table.name() + ":";
    const char* before = " ";
    const auto add = [&](std::uint64_t rows, const char* word) {
        if (rows == 0) return;
        out += before + with_separators(rows) + " " + word;
        before = ", ";
    };
    add(table.deleted, "deleted");
    add(table.updated, "updated");
    add(table.inserted, "inserted");
    return out;
}

std::string rows_text(std::uint64_t rows) {
    return with_separators(rows) + (rows == 1 ? " row" : " rows");
}

// "public.orders", "public.orders and 3 other tables"; which tables `of` picks.
template <class Rows>
std::string tables_text(const std::vector<TableEffect>& tables, Rows rows) {
    const TableEffect* most = nullptr;
    std::size_t others = 0;
    for (const TableEffect& table : tables) {
        if (rows(table) == 0) continue;
        if (most == nullptr) {
            most = &table;
        } else {
            ++others;
        }
    }
    if (most == nullptr) return "no table";
    std::string out = most->name();
    if (others > 0) {
        out += " and " + std::to_string(others) + (others == 1 ? " other table" : " other tables");
    }
    return out;
}

std::string detail(const Effects& effects) {
    constexpr std::size_t listed_max = 20;
    std::string out;
    const auto line = [&](const std::string& text) {
        if (!out.empty()) out += '\n';
        out += text;
    };
    for (std::size_t i = 0; i < effects.tables.size() && i < listed_max; ++i) {
        line(counts(effects.tables[i]));
    }
    if (effects.tables.size() > listed_max) {
        line("and " + std::to_string(effects.tables.size() - listed_max) + " more tables");
    }
    for (const std::string& catalog : effects.catalog_changes) {
        line("the system catalog pg_catalog." + catalog + " was changed");
    }
    for (std::size_t i = 0; i < effects.exclusive_locks.size() && i < listed_max; ++i) {
        const NamedRelation& lock = effects.exclusive_locks[i];
        line(lock.name.empty()
                 ? "a relation that is gone now (oid " + std::to_string(lock.oid) + ")"
                 : lock.schema + "." + lock.name + " was locked exclusively");
    }
    return out;
}

bool same_relation(const NamedRelation& lock, const policy::RelationName& named) {
    return lock.name == named.name && (named.schema.empty() || named.schema == lock.schema);
}

// What DDL shows in its own text is not hidden: the catalog's change, and the locks on what it
// names.
struct Hidden {
    std::vector<std::string> catalog_changes;
    std::vector<NamedRelation> exclusive_locks;
};

Hidden hidden(const Effects& effects, const policy::StatementFacts* facts) {
    Hidden out{effects.catalog_changes, effects.exclusive_locks};
    if (facts == nullptr) return out;
    const bool defines = std::any_of(
        facts->classes.begin(), facts->classes.end(), [](policy::StatementClass one) {
            return one == policy::StatementClass::ddl || one == policy::StatementClass::role;
        });
    const bool locks_by_its_word = facts->command == "LOCK TABLE" ||
                                   facts->command == "TRUNCATE TABLE";
    if (!defines && !locks_by_its_word) return out;
    const auto named = [&](const NamedRelation& lock) {
        return std::any_of(
            facts->written.begin(), facts->written.end(),
            [&](const policy::RelationName& one) { return same_relation(lock, one); });
    };
    // These run a query, which may read a view, which may do anything.
    static constexpr std::array<std::string_view, 4> run_queries{
        "CREATE MATERIALIZED VIEW", "CREATE TABLE AS", "REFRESH MATERIALIZED VIEW", "SELECT INTO"};
    const bool runs_query = std::find(run_queries.begin(), run_queries.end(), facts->command) !=
                            run_queries.end();
    const bool tells_all = !facts->opaque.set && !facts->unparsable.set;
    if (tells_all && !runs_query) {
        // Defaults, checks and casts of a table that is written anew may run functions all the
        // same.
        out.catalog_changes.clear();
        std::erase_if(out.exclusive_locks,
                      [&](const NamedRelation& lock) { return lock.name.empty() || named(lock); });
        return out;
    }
    // What these make is new rows of the catalog alone; the others say what they alter.
    const bool makes = facts->command.starts_with("CREATE") || facts->command == "SELECT INTO";
    if (!makes) out.catalog_changes.clear();
    std::erase_if(out.exclusive_locks, named);
    if (facts->command == "REFRESH MATERIALIZED VIEW") {
        // What it held before is dropped.
        std::erase_if(out.exclusive_locks,
                      [](const NamedRelation& lock) { return lock.name.empty(); });
    }
    return out;
}

policy::Refusal words(const Effects& effects, const policy::StatementFacts* facts,
                      std::string_view rule, std::string_view what, std::string_view limit,
                      std::string_view hint) {
    policy::Refusal refusal;
    const std::string subject = facts == nullptr         ? "this transaction"
                                : facts->command.empty() ? "this statement"
                                                         : facts->command;
    refusal.message = "pgchaperone: " + subject + " would have " + std::string(what) + " (" +
                      std::string(limit) + "); rolled back";
    refusal.detail = detail(effects);
    refusal.hint = std::string(hint) + " The limit is set by the rule \"" + std::string(rule) +
                   "\".";
    return refusal;
}

constexpr std::string_view narrow_hint =
    "Check the condition: run it as a SELECT count(*) first. If it is meant, do it in smaller "
    "portions or ask whoever runs pgchaperone.";

}  // namespace

std::string with_separators(std::uint64_t number) {
    std::string out = std::to_string(number);
    for (std::size_t at = out.size(); at > 3; at -= 3) out.insert(at - 3, ",");
    return out;
}

bool Reading::add_row(std::string_view body) {
    if (++rows_ > rows_max) return false;
    const auto row = protocol::decode<protocol::DataRow>(body);
    if (!row || row->columns.size() != 8) return false;
    const auto text = [&](std::size_t i) -> std::string_view {
        return row->columns[i] ? *row->columns[i] : std::string_view();
    };
    const std::string_view kind = text(0);
    const auto oid = number<std::uint32_t>(text(1));
    if (!oid) return false;
    if (kind == "session") {
        session_row_ = true;
        highest_oid = *oid;
        counters_on_ = text(2) == "on";
        wrote_ = row->columns[3].has_value();
        read_only = text(4) == "1";
        toast_tables = number<std::uint64_t>(text(5)).value_or(0);
        return true;
    }
    if (kind == "lock") {
        locks.push_back({*oid, std::string(text(2)), std::string(text(3))});
        return true;
    }
    if (kind == "temporary") {
        temporary.push_back({*oid, {}, std::string(text(3))});
        return true;
    }
    if (kind == "foreign write") {
        foreign_writes.push_back({*oid, std::string(text(2)), std::string(text(3))});
        return true;
    }
    if (kind == "foreign") {
        has_foreign_tables = true;
        return true;
    }
    if (kind != "table" && kind != "catalog") return false;
    TableEffect effect;
    effect.oid = *oid;
    effect.schema = text(2);
    effect.table = text(3);
    const auto inserted = number<std::uint64_t>(text(4));
    const auto updated = number<std::uint64_t>(text(5));
    const auto deleted = number<std::uint64_t>(text(6));
    if (!inserted || !updated || !deleted) return false;
    effect.inserted = *inserted;
    effect.updated = *updated;
    effect.deleted = *deleted;
    effect.estimate = number<double>(text(7)).value_or(0);
    (kind == "table" ? tables : catalogs).push_back(std::move(effect));
    return true;
}

std::uint64_t Effects::changed() const {
    std::uint64_t sum = 0;
    for (const TableEffect& table : tables) sum += table.changed();
    return sum;
}

std::uint64_t Effects::inserted() const {
    std::uint64_t sum = 0;
    for (const TableEffect& table : tables) sum += table.inserted;
    return sum;
}

void Effects::add(const Effects& more) {
    for (const TableEffect& table : more.tables) merge(tables, table);
    sort_by_rows(tables);
    catalog_changes.insert(catalog_changes.end(), more.catalog_changes.begin(),
                           more.catalog_changes.end());
    exclusive_locks.insert(exclusive_locks.end(), more.exclusive_locks.begin(),
                           more.exclusive_locks.end());
    foreign_writes.insert(foreign_writes.end(), more.foreign_writes.begin(),
                          more.foreign_writes.end());
}

Effects difference(const Reading* before, const Reading& after, std::uint32_t first_oid) {
    Effects effects;
    const std::vector<TableEffect>* const then = before ? &before->tables : nullptr;
    for (TableEffect& one : grown(then, after.tables)) {
        if (first_oid != 0 && one.oid > first_oid) {
            const std::uint64_t foreign = grown(
                changed_of_others(then ? find(*then, one.oid) : nullptr),
                changed_of_others(find(after.tables, one.oid)));
            one.inserted = 0;
            one.deleted = std::min(one.deleted, foreign);
            one.updated = std::min(one.updated, foreign - one.deleted);
            if (one.changed() == 0) continue;
        }
        merge(effects.tables, one);
    }
    sort_by_rows(effects.tables);
    effects.catalog_changes = catalog_changes(
        grown(before ? &before->catalogs : nullptr, after.catalogs),
        before ? grown(before->toast_tables, after.toast_tables) : 0);
    for (const NamedRelation& lock : after.locks) {
        if (before != nullptr) {
            // Object ids are handed out upwards. After they have wrapped around, a new relation
            // counts as an old one: on the safe side.
            if (lock.oid > before->highest_oid) continue;
            const bool held = std::any_of(
                before->locks.begin(), before->locks.end(),
                [&](const NamedRelation& old) { return old.oid == lock.oid; });
            if (held) continue;
            const bool temporary = std::any_of(
                before->temporary.begin(), before->temporary.end(),
                [&](const NamedRelation& own) { return own.oid == lock.oid; });
            if (temporary) continue;
        }
        if (lock.schema.starts_with("pg_toast")) continue;  // its table is there as well
        effects.exclusive_locks.push_back(lock);
    }
    for (const NamedRelation& written : after.foreign_writes) {
        const bool before_it = before != nullptr && std::any_of(before->foreign_writes.begin(),
                                                                before->foreign_writes.end(),
                                                                [&](const NamedRelation& old) {
                                                                    return old.oid == written.oid;
                                                                });
        if (!before_it) effects.foreign_writes.push_back(written);
    }
    return effects;
}

std::optional<std::uint64_t> rows_of_tag(std::string_view tag) {
    while (!tag.empty() && tag.back() == '\0') tag.remove_suffix(1);
    const std::size_t space = tag.rfind(' ');
    if (space == std::string_view::npos) return std::nullopt;
    return number<std::uint64_t>(tag.substr(space + 1));
}

Effects at_least(Effects read, Effects told, const Reading* reading) {
    if (reading == nullptr || !reading->has_foreign_tables || told.tables.empty()) return read;
    const bool temporary = std::any_of(
        reading->temporary.begin(), reading->temporary.end(),
        [&](const NamedRelation& own) { return own.name == told.tables.front().table; });
    if (temporary) return read;
    if (told.changed() > read.changed() || told.inserted() > read.inserted()) read.add(told);
    return read;
}

bool only_reads(const policy::StatementFacts& facts) {
    // These give the transaction an id, as if it had written: so does SELECT ... FOR UPDATE.
    static constexpr std::array<std::string_view, 4> take_an_id{"nextval", "pg_current_xact_id",
                                                                "setval", "txid_current"};
    const bool takes_an_id = std::any_of(
        facts.functions.begin(), facts.functions.end(), [](const policy::FunctionName& one) {
            return std::find(take_an_id.begin(), take_an_id.end(), one.name) != take_an_id.end();
        });
    const bool locks_rows = std::find(facts.classes.begin(), facts.classes.end(),
                                      policy::StatementClass::write) != facts.classes.end();
    if (takes_an_id || locks_rows) return false;
    return facts.written.empty() && !facts.opaque.set && !facts.unparsable.set &&
           facts.command == "SELECT" && facts.commands.size() == 1;
}

bool tag_tells(const policy::StatementFacts& facts) {
    if (facts.opaque.set || facts.unparsable.set) return false;
    if (facts.commands.size() != 1) return false;
    const std::string& command = facts.commands.front();
    return command == "INSERT" || command == "UPDATE" || command == "DELETE" ||
           command == "MERGE" || (command == "COPY" && facts.copies_in);
}

Effects effects_of_tag(std::string_view tag, const policy::StatementFacts& facts) {
    Effects effects;
    const auto rows = tag_tells(facts) ? rows_of_tag(tag) : std::nullopt;
    if (!rows || *rows == 0 || facts.written.empty()) return effects;
    TableEffect one;
    one.schema = facts.written.front().schema;
    one.table = facts.written.front().name;
    if (tag.starts_with("DELETE")) {
        one.deleted = *rows;
    } else if (tag.starts_with("UPDATE") || tag.starts_with("MERGE")) {
        one.updated = *rows;
    } else if (facts.updates_on_conflict) {
        one.updated = *rows;  // as far as the tag tells, all of them were there before
    } else {
        one.inserted = *rows;
    }
    effects.tables.push_back(std::move(one));
    return effects;
}

namespace {

constexpr std::string_view ask_again_hint =
    "Something has changed since. Run it again, so that it can be approved as it is now.";

template <class Over>
std::optional<policy::Refusal> more_than_approved(const Effects& effects,
                                                  const policy::ApprovedEffects& approved,
                                                  const Over& over) {
    const std::string by = "approved in ticket " + approved.ticket + ": ";
    for (const TableEffect& table : effects.tables) {
        const auto given = std::find_if(
            approved.tables.begin(), approved.tables.end(),
            [&](const policy::ApprovedEffects::Table& one) { return one.table == table.name(); });
        const policy::ApprovedEffects::Table none;
        const policy::ApprovedEffects::Table& limit = given == approved.tables.end() ? none
                                                                                     : *given;
        const auto beyond = [&](std::string_view what, std::uint64_t rows, std::uint64_t most) {
            return over(std::string(what) + " " + rows_text(rows) + " of " + table.name(),
                        by + with_separators(most), ask_again_hint);
        };
        if (table.deleted > limit.deleted) return beyond("deleted", table.deleted, limit.deleted);
        if (table.updated > limit.updated) return beyond("updated", table.updated, limit.updated);
        if (table.inserted > limit.inserted) {
            return beyond("inserted", table.inserted, limit.inserted);
        }
    }
    const auto lacks = [](const std::vector<std::string>& names, const std::string& name) {
        return std::find(names.begin(), names.end(), name) == names.end();
    };
    const auto relation = [&](const std::vector<NamedRelation>& relations,
                              const std::vector<std::string>& names,
                              std::string_view what) -> std::optional<policy::Refusal> {
        for (const NamedRelation& one : relations) {
            if (lacks(names, one.text())) {
                return over(std::string(what) + " " + one.text(), by + "nothing of that kind",
                            ask_again_hint);
            }
        }
        return std::nullopt;
    };
    if (auto refusal = relation(effects.exclusive_locks, approved.exclusive_locks,
                                "emptied, altered, dropped or locked all of")) {
        return refusal;
    }
    if (auto refusal = relation(effects.foreign_writes, approved.foreign_writes,
                                "changed the foreign table")) {
        return refusal;
    }
    for (const std::string& catalog : effects.catalog_changes) {
        if (lacks(approved.catalog_changes, catalog)) {
            return over("changed the system catalog pg_catalog." + catalog,
                        by + "nothing of that kind", ask_again_hint);
        }
    }
    return std::nullopt;
}

}  // namespace

std::optional<policy::Refusal> exceeded(const Effects& effects,
                                        const policy::SuperviseLimits& limits, const Tally& tally,
                                        const policy::StatementFacts* facts,
                                        std::string_view rule) {
    const auto over = [&](const std::string& what, const std::string& limit,
                          std::string_view hint = narrow_hint) {
        return words(effects, facts, rule, what, limit, hint);
    };
    const auto changed_of = [](const TableEffect& table) { return table.changed(); };
    const auto inserted_of = [](const TableEffect& table) { return table.inserted; };
    if (limits.approved) return more_than_approved(effects, *limits.approved, over);
    const std::uint64_t changed = effects.changed();
    if (limits.max_rows && changed > *limits.max_rows) {
        return over(
            "changed " + rows_text(changed) + " of " + tables_text(effects.tables, changed_of),
            "limit " + with_separators(*limits.max_rows));
    }
    for (const TableEffect& table : effects.tables) {
        const auto limit = std::find_if(limits.max_rows_per_table.begin(),
                                        limits.max_rows_per_table.end(),
                                        [&](const policy::SuperviseLimits::TableLimit& one) {
                                            return one.table.matches({}, table.schema, table.table,
                                                                     nullptr) != policy::Truth::no;
                                        });
        if (limit != limits.max_rows_per_table.end() && table.changed() > limit->rows) {
            return over("changed " + rows_text(table.changed()) + " of " + table.name(),
                        "limit for this table " + with_separators(limit->rows));
        }
        if (limits.max_fraction && table.estimate > 0 &&
            static_cast<double>(table.changed()) > table.estimate * *limits.max_fraction) {
            const auto percent = [](double fraction) {
                return std::to_string(static_cast<int>(fraction * 100 + 0.5)) + "%";
            };
            return over("changed " + rows_text(table.changed()) + " of about " +
                            with_separators(static_cast<std::uint64_t>(table.estimate)) + " of " +
                            table.name(),
                        "limit " + percent(*limits.max_fraction));
        }
    }
    if (limits.max_inserted && effects.inserted() > *limits.max_inserted) {
        return over("inserted " + rows_text(effects.inserted()) + " into " +
                        tables_text(effects.tables, inserted_of),
                    "limit " + with_separators(*limits.max_inserted),
                    "If it is meant, do it in smaller portions or ask whoever runs pgchaperone.");
    }
    if (limits.max_rows_per_transaction &&
        tally.transaction + changed > *limits.max_rows_per_transaction && changed > 0) {
        return over("changed " + rows_text(changed) + " of " +
                        tables_text(effects.tables, changed_of) + ", and with those before it " +
                        with_separators(tally.transaction + changed) + " in this transaction",
                    "limit " + with_separators(*limits.max_rows_per_transaction));
    }
    if (limits.max_rows_per_session && changed > 0 &&
        tally.session + changed > limits.max_rows_per_session->rows) {
        const auto minutes = std::chrono::duration_cast<std::chrono::seconds>(
            limits.max_rows_per_session->window);
        return over("changed " + rows_text(changed) + " of " +
                        tables_text(effects.tables, changed_of) + ", and with those before it " +
                        with_separators(tally.session + changed) + " by this session",
                    "limit " + with_separators(limits.max_rows_per_session->rows) + " in " +
                        std::to_string(minutes.count()) + " s",
                    "Many small steps add up. Wait, or ask whoever runs pgchaperone.");
    }
    for (const NamedRelation& written : effects.foreign_writes) {
        const bool told = facts != nullptr && tag_tells(*facts) &&
                          std::any_of(facts->written.begin(), facts->written.end(),
                                      [&](const policy::RelationName& one) {
                                          return same_relation(written, one);
                                      });
        if (told) continue;
        return over("changed the foreign table " + written.schema + "." + written.name +
                        ", whose rows are not counted here",
                    "no limit can be held", "Write to it by its own name.");
    }
    const Hidden secret = hidden(effects, facts);
    if (limits.exclusive_locks == policy::Permission::refuse && !secret.exclusive_locks.empty()) {
        const NamedRelation& lock = secret.exclusive_locks.front();
        const std::string what = lock.name.empty() ? "dropped a relation"
                                                   : "emptied, altered or locked all of " +
                                                         lock.schema + "." + lock.name;
        return over(what + ", which its text does not say", "exclusive_locks: refuse",
                    "Write the TRUNCATE, DROP or ALTER itself, so that it can be judged, not the "
                    "function that does it.");
    }
    if (limits.catalog_changes == policy::Permission::refuse && !secret.catalog_changes.empty()) {
        return over("changed the system catalog pg_catalog." + secret.catalog_changes.front() +
                        ", which its text does not say",
                    "catalog_changes: refuse",
                    "Write the change itself, so that it can be judged, not the function that does "
                    "it.");
    }
    return std::nullopt;
}

}  // namespace pgchaperone::session
