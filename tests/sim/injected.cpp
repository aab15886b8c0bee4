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

bool is_guard_reading(std::string_view sql) {
    return is_guard_setting(sql) || sql == session::written_sql || sql == session::effects_sql ||
           sql == session::effects_and_locks_sql;
}

bool is_injected(std::string_view sql) {
    static constexpr std::array others{session::begin_sql,     session::commit_sql,
                                       session::rollback_sql,  session::constraints_sql,
                                       session::read_only_sql, session::read_write_sql};
    // An empty Query is a way to wait.
    return sql.empty() || sql == session::identity_sql || is_substitute(sql) || is_guard_reading(sql) ||
           std::find(others.begin(), others.end(), sql) != others.end();
}

}  // namespace pgchaperone::sim
