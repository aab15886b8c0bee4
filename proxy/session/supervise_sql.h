#pragma once
// The SQL that supervision sends of its own. Every name in it is schema-qualified, operators
// included: whatever search_path says, it means PostgreSQL's own. It is sent as it stands here, so
// that a model server can know it.
//
// A reading of effects has the columns
//   kind text, object oid, schema text, name text, inserted int8, updated int8, deleted int8,
//   estimate float8
// and one row of the kind `session` (object: the highest oid of pg_class, schema: the setting
// track_counts, name: the transaction's id or null while it has none, inserted: 1 where the
// transaction is READ ONLY, updated: how many TOAST tables there are), then, the longer ones,
// rows of the kinds
//   table, catalog   rows changed by this transaction and, where the server has not flushed its
//                    counters yet, by earlier ones of the session; a partition has the name and
//                    estimate of its root; temporary tables are left out
//   lock             an ACCESS EXCLUSIVE lock that the session holds on a relation that is neither
//                    temporary nor an index; without a name where the relation is gone
//   foreign write    a foreign table that the transaction has written to
//   temporary        a temporary relation of the session's own
//   foreign          a foreign table: its rows are counted on another server
//
// A cancel request that meets one of these makes it fail, and the client is told that its statement
// was cancelled, as if the request had come a moment earlier: docs/adr/0004.

#include <string_view>

namespace pgchaperone::session {

inline constexpr std::string_view begin_sql = "BEGIN";
inline constexpr std::string_view commit_sql = "COMMIT";
inline constexpr std::string_view rollback_sql = "ROLLBACK";
// Fires what is deferred, so that its effects can be read before COMMIT.
inline constexpr std::string_view constraints_sql = "SET CONSTRAINTS ALL IMMEDIATE";

// What is counted is all that may happen: a cursor WITH HOLD runs its query at COMMIT, and a
// deferred trigger may have put off more. Whatever of that writes makes the COMMIT fail (SQLSTATE
// 25006).
inline constexpr std::string_view read_only_sql = "SET TRANSACTION READ ONLY";
// Behind COMMIT AND CHAIN, which hands that on.
inline constexpr std::string_view read_write_sql = "SET TRANSACTION READ WRITE";

// Statement and portal name of what is injected where the client's unnamed ones are alive.
inline constexpr std::string_view injected_name = "pgchaperone_injected";

// Only the row `session`: has the transaction written anything?
inline constexpr std::string_view written_sql =
    "SELECT 'session'::pg_catalog.text, pg_catalog.max(c.oid),"
    " pg_catalog.current_setting('track_counts'),"
    " pg_catalog.txid_current_if_assigned()::pg_catalog.text,"
    " pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool::pg_catalog.int4,"
    " 0::pg_catalog.int8, 0::pg_catalog.int8, 0::pg_catalog.float8"
    " FROM pg_catalog.pg_class c";

// And what.
#define PGCHAPERONE_EFFECTS_SQL                                                                   \
    "SELECT 'session'::pg_catalog.text, c.o, pg_catalog.current_setting('track_counts'),"         \
    " pg_catalog.txid_current_if_assigned()::pg_catalog.text,"                                    \
    " pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool::pg_catalog.int4,"     \
    " c.toasts, 0::pg_catalog.int8, 0::pg_catalog.float8"                                         \
    " FROM (SELECT pg_catalog.max(oid) AS o, pg_catalog.count(*) FILTER (WHERE relkind"           \
    " OPERATOR(pg_catalog.=) 't'::pg_catalog.\"char\") AS toasts FROM pg_catalog.pg_class) c"     \
    " UNION ALL "                                                                                 \
    "SELECT CASE WHEN t.relnamespace OPERATOR(pg_catalog.=) 11::pg_catalog.oid"                   \
    " AND t.oid OPERATOR(pg_catalog.<>) ALL ('{2613,2995}'::pg_catalog.oid[])"                    \
    " THEN 'catalog' ELSE 'table' END,"                                                           \
    " t.oid, (SELECT n.nspname::pg_catalog.text FROM pg_catalog.pg_namespace n"                   \
    " WHERE n.oid OPERATOR(pg_catalog.=) r.relnamespace), r.relname::pg_catalog.text,"            \
    " t.ins, t.upd, t.del,"                                                                       \
    " CASE WHEN t.relispartition THEN (SELECT pg_catalog.sum(GREATEST(p.reltuples, 0))"           \
    " FROM pg_catalog.pg_partition_tree(r.oid) x JOIN pg_catalog.pg_class p"                      \
    " ON p.oid OPERATOR(pg_catalog.=) x.relid WHERE x.isleaf)"                                    \
    " WHEN t.reltuples OPERATOR(pg_catalog.>) 0::pg_catalog.float4 THEN t.reltuples"              \
    " ELSE pg_catalog.pg_stat_get_live_tuples(t.oid) END"                                         \
    " FROM (SELECT c.oid, c.relnamespace, c.relispartition, c.reltuples,"                         \
    " pg_catalog.pg_stat_get_xact_tuples_inserted(c.oid) AS ins,"                                 \
    " pg_catalog.pg_stat_get_xact_tuples_updated(c.oid) AS upd,"                                  \
    " pg_catalog.pg_stat_get_xact_tuples_deleted(c.oid) AS del FROM pg_catalog.pg_class c"        \
    " WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,m}'::pg_catalog.\"char\"[])"                \
    " AND c.relpersistence OPERATOR(pg_catalog.<>) 't'::pg_catalog.\"char\" OFFSET 0) t"          \
    " JOIN pg_catalog.pg_class r ON r.oid OPERATOR(pg_catalog.=) CASE WHEN t.relispartition"      \
    " THEN pg_catalog.pg_partition_root(t.oid)::pg_catalog.oid ELSE t.oid END"                    \
    " WHERE t.ins OPERATOR(pg_catalog.>) 0::pg_catalog.int8"                                      \
    " OR t.upd OPERATOR(pg_catalog.>) 0::pg_catalog.int8"                                         \
    " OR t.del OPERATOR(pg_catalog.>) 0::pg_catalog.int8"                                         \
    " UNION ALL "                                                                                 \
    "SELECT CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'f'::pg_catalog.\"char\" THEN 'foreign'"   \
    " ELSE 'temporary' END, c.oid, NULL, c.relname::pg_catalog.text,"                             \
    " 0::pg_catalog.int8, 0::pg_catalog.int8, 0::pg_catalog.int8, 0::pg_catalog.float8"           \
    " FROM pg_catalog.pg_class c WHERE c.relkind OPERATOR(pg_catalog.=) 'f'::pg_catalog.\"char\"" \
    " OR c.relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()"
inline constexpr std::string_view effects_sql = PGCHAPERONE_EFFECTS_SQL;

// And which relations nobody else can use until this transaction ends: TRUNCATE, DROP and most of
// ALTER TABLE show nowhere else.
inline constexpr std::string_view effects_and_locks_sql = PGCHAPERONE_EFFECTS_SQL
    " UNION ALL "
    "SELECT 'lock', l.relation, (SELECT n.nspname::pg_catalog.text FROM pg_catalog.pg_namespace n"
    " WHERE n.oid OPERATOR(pg_catalog.=) r.relnamespace), r.relname::pg_catalog.text,"
    " 0::pg_catalog.int8, 0::pg_catalog.int8, 0::pg_catalog.int8, 0::pg_catalog.float8"
    " FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_class c"
    " ON c.oid OPERATOR(pg_catalog.=) l.relation"
    " LEFT JOIN pg_catalog.pg_class r ON r.oid OPERATOR(pg_catalog.=) CASE WHEN c.relispartition"
    " THEN pg_catalog.pg_partition_root(c.oid)::pg_catalog.oid ELSE c.oid END"
    " WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()"
    " AND l.locktype OPERATOR(pg_catalog.=) 'relation'::pg_catalog.text"
    " AND l.mode OPERATOR(pg_catalog.=) 'AccessExclusiveLock'::pg_catalog.text AND l.granted"
    " AND (c.oid IS NULL OR (c.relpersistence OPERATOR(pg_catalog.<>) 't'::pg_catalog.\"char\""
    " AND c.relkind OPERATOR(pg_catalog.<>) ALL ('{i,I,t}'::pg_catalog.\"char\"[])))"
    " UNION ALL "
    "SELECT 'foreign write', l.relation, (SELECT n.nspname::pg_catalog.text"
    " FROM pg_catalog.pg_namespace n WHERE n.oid OPERATOR(pg_catalog.=) c.relnamespace),"
    " c.relname::pg_catalog.text,"
    " 0::pg_catalog.int8, 0::pg_catalog.int8, 0::pg_catalog.int8, 0::pg_catalog.float8"
    " FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c"
    " ON c.oid OPERATOR(pg_catalog.=) l.relation"
    " WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()"
    " AND l.locktype OPERATOR(pg_catalog.=) 'relation'::pg_catalog.text"
    " AND l.mode OPERATOR(pg_catalog.=) 'RowExclusiveLock'::pg_catalog.text AND l.granted"
    " AND c.relkind OPERATOR(pg_catalog.=) 'f'::pg_catalog.\"char\"";
#undef PGCHAPERONE_EFFECTS_SQL

}  // namespace pgchaperone::session
