#include "sim/injected.h"

#include "proxy/session/identity.h"
#include "proxy/session/supervise_sql.h"

#include <algorithm>
#include <array>

namespace pgchaperone::sim {

bool is_substitute(std::string_view sql) {
    return sql.starts_with("pgchaperone refused this statement");
}

bool is_guard_setting(std::string_view sql) {
    return sql.starts_with("SELECT pg_catalog.set_config('lock_timeout'");
}

namespace {
constexpr std::string_view explain = "EXPLAIN (FORMAT JSON) ";
}

bool is_guard_identity(std::string_view sql) { return sql == session::identity_sql; }

bool is_guard_plan(std::string_view sql) { return sql.starts_with(explain); }

std::string_view planned_text(std::string_view sql) { return sql.substr(explain.size()); }

bool is_guard_reading(std::string_view sql) {
    return is_guard_setting(sql) || is_guard_identity(sql) || is_guard_plan(sql) ||
           sql == session::written_sql || sql == session::effects_sql ||
           sql == session::effects_and_locks_sql;
}

bool is_injected(std::string_view sql) {
    static constexpr std::array<std::string_view, 9> others{
        session::begin_sql,
        session::commit_sql,
        session::rollback_sql,
        session::constraints_sql,
        session::read_only_sql,
        session::read_write_sql,
        "SAVEPOINT pgchaperone_trial",
        "ROLLBACK TO SAVEPOINT pgchaperone_trial",
        "RELEASE SAVEPOINT pgchaperone_trial"};
    // An empty Query is a way to wait.
    return sql.empty() || is_substitute(sql) || is_guard_reading(sql) ||
           std::find(others.begin(), others.end(), sql) != others.end();
}

}  // namespace pgchaperone::sim
