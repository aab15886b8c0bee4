#include "proxy/session/identity.h"

#include "protocol/codec.h"
#include "protocol/messages.h"

#include <algorithm>
#include <charconv>

namespace pgchaperone::session {

// Every name is schema-qualified, operators included, as in supervise_sql.h.
const std::string_view identity_sql =
    "WITH RECURSIVE login(oid) AS (SELECT a.usesysid"
    " FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a),"
    " member(oid) AS (SELECT l.oid FROM login l UNION SELECT m.roleid"
    " FROM pg_catalog.pg_auth_members m JOIN member ON m.member OPERATOR(pg_catalog.=) member.oid)"
    " SELECT 'login'::pg_catalog.text, r.rolname::pg_catalog.text, r.oid::pg_catalog.text"
    " FROM pg_catalog.pg_roles r JOIN login l ON r.oid OPERATOR(pg_catalog.=) l.oid"
    " UNION ALL SELECT 'member', r.rolname::pg_catalog.text, r.oid::pg_catalog.text"
    " FROM pg_catalog.pg_roles r JOIN member m ON r.oid OPERATOR(pg_catalog.=) m.oid"
    " UNION ALL SELECT 'setting', s.name, pg_catalog.current_setting(s.name, true)"
    " FROM pg_catalog.unnest('{search_path,role,session_authorization,standard_conforming_strings,"
    "client_encoding,DateStyle,IntervalStyle,TimeZone,transform_null_equals,row_security,"
    "session_replication_role,default_text_search_config,lc_monetary,xmloption,"
    "bytea_output,extra_float_digits,array_nulls}'"
    "::pg_catalog.text[]) s(name)"
    " UNION ALL SELECT 'setting', 'schemas',"
    " pg_catalog.current_schemas(false)::pg_catalog.text"
    " UNION ALL SELECT 'temporary', NULL,"
    " (SELECT pg_catalog.string_agg(c.oid::pg_catalog.text, ',' ORDER BY c.oid)"
    " FROM pg_catalog.pg_class c WHERE c.relnamespace OPERATOR(pg_catalog.=)"
    " pg_catalog.pg_my_temp_schema() AND c.relkind OPERATOR(pg_catalog.<>)"
    " ALL ('{i,I,t}'::pg_catalog.\"char\"[]))"
    " UNION ALL SELECT 'timeout', s.name, s.setting FROM pg_catalog.pg_settings s"
    " WHERE s.name OPERATOR(pg_catalog.=) ANY"
    " ('{idle_session_timeout,idle_in_transaction_session_timeout}'::pg_catalog.text[])"
    " UNION ALL SELECT 'reason', NULL, pg_catalog.current_setting('chaperone.reason', true)";

namespace {

long milliseconds(std::string_view text) {
    long value = 0;
    std::from_chars(text.data(), text.data() + text.size(), value);
    return std::max(0L, value);
}

}  // namespace

bool Identity::add_row(std::string_view body) {
    const auto row = protocol::decode<protocol::DataRow>(body);
    if (!row || row->columns.size() != 3 || !row->columns[0]) return false;
    const std::string_view kind = *row->columns[0];
    const std::string_view name = row->columns[1].value_or(std::string_view());
    const std::string_view value = row->columns[2].value_or(std::string_view());
    return add(kind, name, value);
}

bool Identity::add(std::string_view kind, std::string_view name, std::string_view value) {
    if (kind == "login") {
        person.role = name;
        std::from_chars(value.data(), value.data() + value.size(), person.oid);
    } else if (kind == "member") {
        person.member_of.emplace_back(name);
    } else if (kind == "setting") {
        settings.emplace_back(name, value);
    } else if (kind == "temporary") {
        temporary = value;
    } else if (kind == "timeout") {
        (name == "idle_session_timeout" ? idle_timeout_ms
                                        : idle_in_transaction_timeout_ms) = milliseconds(value);
    } else if (kind == "reason") {
        // Blanks are no reason.
        const std::size_t first = value.find_first_not_of(" \t\r\n");
        if (first != std::string_view::npos) reason = value.substr(first);
    } else {
        return false;
    }
    return true;
}

}  // namespace pgchaperone::session
