#include "policy/functions_table.h"

#include <algorithm>
#include <array>

namespace pgchaperone::policy {

namespace {

struct Row {
    std::string_view name;
    char volatility;
    bool aggregate;
    bool qualified_only;
};

constexpr Row catalogue[] = {
#define FUNCTION(name, volatility, aggregate, qualified_only) \
    {name, volatility, aggregate, qualified_only},
#define OPERATOR(name)
#include "policy/functions_table.inc"
};

constexpr std::string_view operators[] = {
#define FUNCTION(name, volatility, aggregate, qualified_only)
#define OPERATOR(name) name,
#include "policy/functions_table.inc"
};

using enum FunctionEffect;

struct Reviewed {
    std::string_view name;
    FunctionEffect effect = none;
    std::string_view danger{};
    bool chance = false;
};

constexpr std::string_view removes_objects = "removes or overwrites large objects";
constexpr std::string_view ends_sessions = "ends or cancels the work of other sessions";
constexpr std::string_view server_files = "reads or writes files of the server";
constexpr std::string_view runs_server = "changes how the server runs";
constexpr std::string_view replication = "changes replication";
constexpr std::string_view statistics = "discards the server's statistics";
constexpr std::string_view moves_sequence = "moves a sequence";
constexpr std::string_view internal_use = "is for the server's own use";

// Every volatile function of the catalogue, and those others that do more than read. Sorted by
// name.
constexpr Reviewed reviewed[] = {
    {"RI_FKey_cascade_del"},
    {"RI_FKey_cascade_upd"},
    {"RI_FKey_check_ins"},
    {"RI_FKey_check_upd"},
    {"RI_FKey_noaction_del"},
    {"RI_FKey_noaction_upd"},
    {"RI_FKey_restrict_del"},
    {"RI_FKey_restrict_upd"},
    {"RI_FKey_setdefault_del"},
    {"RI_FKey_setdefault_upd"},
    {"RI_FKey_setnull_del"},
    {"RI_FKey_setnull_upd"},
    {"amvalidate"},
    {"bernoulli"},
    {"binary_upgrade_create_empty_extension", dangerous, internal_use},
    {"binary_upgrade_set_missing_value", dangerous, internal_use},
    {"binary_upgrade_set_next_array_pg_type_oid", dangerous, internal_use},
    {"binary_upgrade_set_next_attribute_versions", dangerous, internal_use},
    {"binary_upgrade_set_next_heap_pg_class_oid", dangerous, internal_use},
    {"binary_upgrade_set_next_heap_relfilenode", dangerous, internal_use},
    {"binary_upgrade_set_next_index_pg_class_oid", dangerous, internal_use},
    {"binary_upgrade_set_next_index_relfilenode", dangerous, internal_use},
    {"binary_upgrade_set_next_multirange_array_pg_type_oid", dangerous, internal_use},
    {"binary_upgrade_set_next_multirange_pg_type_oid", dangerous, internal_use},
    {"binary_upgrade_set_next_pg_authid_oid", dangerous, internal_use},
    {"binary_upgrade_set_next_pg_enum_oid", dangerous, internal_use},
    {"binary_upgrade_set_next_pg_tablespace_oid", dangerous, internal_use},
    {"binary_upgrade_set_next_pg_type_oid", dangerous, internal_use},
    {"binary_upgrade_set_next_toast_pg_class_oid", dangerous, internal_use},
    {"binary_upgrade_set_next_toast_relfilenode", dangerous, internal_use},
    {"binary_upgrade_set_record_init_privs", dangerous, internal_use},
    {"brin_desummarize_range", writes},
    {"brin_summarize_new_values", writes},
    {"brin_summarize_range", writes},
    {"brinhandler"},
    {"bthandler"},
    {"clock_timestamp"},
    {"current_query"},
    {"currtid2"},
    {"currval"},
    {"cursor_to_xml", runs_names},
    {"cursor_to_xmlschema", runs_names},
    {"database_to_xml", runs_names},
    {"database_to_xml_and_xmlschema", runs_names},
    {"database_to_xmlschema"},
    {"dsnowball_init"},
    {"dsnowball_lexize"},
    {"gen_random_uuid", none, {}, true},
    {"gin_clean_pending_list", writes},
    {"ginhandler"},
    {"gisthandler"},
    {"hashhandler"},
    {"heap_tableam_handler"},
    {"lastval"},
    {"lo_close", session},
    {"lo_creat", writes},
    {"lo_create", writes},
    {"lo_export", dangerous, server_files},
    {"lo_from_bytea", writes},
    {"lo_get"},
    {"lo_import", dangerous, server_files},
    {"lo_lseek"},
    {"lo_lseek64"},
    {"lo_open", writes},
    {"lo_put", dangerous, removes_objects},
    {"lo_tell"},
    {"lo_tell64"},
    {"lo_truncate", dangerous, removes_objects},
    {"lo_truncate64", dangerous, removes_objects},
    {"lo_unlink", dangerous, removes_objects},
    {"loread"},
    {"lowrite", dangerous, removes_objects},
    {"nextval", writes},
    {"pg_advisory_lock", session},
    {"pg_advisory_lock_shared", session},
    {"pg_advisory_unlock", session},
    {"pg_advisory_unlock_all", session},
    {"pg_advisory_unlock_shared", session},
    {"pg_advisory_xact_lock", session},
    {"pg_advisory_xact_lock_shared", session},
    {"pg_backup_start", dangerous, runs_server},
    {"pg_backup_stop", dangerous, runs_server},
    {"pg_blocking_pids"},
    {"pg_cancel_backend", dangerous, ends_sessions},
    {"pg_collation_actual_version"},
    {"pg_control_checkpoint"},
    {"pg_control_init"},
    {"pg_control_recovery"},
    {"pg_control_system"},
    {"pg_copy_logical_replication_slot", dangerous, replication},
    {"pg_copy_physical_replication_slot", dangerous, replication},
    {"pg_create_logical_replication_slot", dangerous, replication},
    {"pg_create_physical_replication_slot", dangerous, replication},
    {"pg_create_restore_point", dangerous, runs_server},
    {"pg_current_logfile"},
    {"pg_current_wal_flush_lsn"},
    {"pg_current_wal_insert_lsn"},
    {"pg_current_wal_lsn"},
    {"pg_database_collation_actual_version"},
    {"pg_database_size"},
    {"pg_drop_replication_slot", dangerous, replication},
    {"pg_export_snapshot", session},
    {"pg_extension_config_dump", writes},
    {"pg_file_rename", dangerous, server_files},
    {"pg_file_sync", dangerous, server_files},
    {"pg_file_unlink", dangerous, server_files},
    {"pg_file_write", dangerous, server_files},
    {"pg_get_backend_memory_contexts"},
    {"pg_get_multixact_members"},
    {"pg_get_shmem_allocations"},
    {"pg_get_wal_replay_pause_state"},
    {"pg_get_wal_resource_managers"},
    {"pg_hba_file_rules"},
    {"pg_ident_file_mappings"},
    {"pg_import_system_collations", writes},
    {"pg_indexes_size"},
    {"pg_is_in_recovery"},
    {"pg_is_wal_replay_paused"},
    {"pg_isolation_test_session_is_blocked"},
    {"pg_jit_available"},
    {"pg_last_committed_xact"},
    {"pg_last_wal_receive_lsn"},
    {"pg_last_wal_replay_lsn"},
    {"pg_last_xact_replay_timestamp"},
    {"pg_lock_status"},
    {"pg_log_backend_memory_contexts", dangerous, runs_server},
    {"pg_logfile_rotate", dangerous, runs_server},
    {"pg_logical_emit_message", writes},
    {"pg_logical_slot_get_binary_changes", dangerous, replication},
    {"pg_logical_slot_get_changes", dangerous, replication},
    {"pg_logical_slot_peek_binary_changes"},
    {"pg_logical_slot_peek_changes"},
    {"pg_ls_archive_statusdir", dangerous, server_files},
    {"pg_ls_dir", dangerous, server_files},
    {"pg_ls_logdir", dangerous, server_files},
    {"pg_ls_logicalmapdir", dangerous, server_files},
    {"pg_ls_logicalsnapdir", dangerous, server_files},
    {"pg_ls_replslotdir", dangerous, server_files},
    {"pg_ls_tmpdir", dangerous, server_files},
    {"pg_ls_waldir", dangerous, server_files},
    {"pg_nextoid", dangerous, internal_use},
    {"pg_notification_queue_usage"},
    {"pg_notify", session},
    {"pg_partition_ancestors"},
    {"pg_partition_tree"},
    {"pg_prepared_xact"},
    {"pg_promote", dangerous, runs_server},
    {"pg_read_binary_file", dangerous, server_files},
    {"pg_read_file", dangerous, server_files},
    {"pg_read_file_old", dangerous, server_files},
    {"pg_relation_size"},
    {"pg_reload_conf", dangerous, runs_server},
    {"pg_replication_origin_advance", dangerous, replication},
    {"pg_replication_origin_create", dangerous, replication},
    {"pg_replication_origin_drop", dangerous, replication},
    {"pg_replication_origin_progress"},
    {"pg_replication_origin_session_is_setup"},
    {"pg_replication_origin_session_progress"},
    {"pg_replication_origin_session_reset", dangerous, replication},
    {"pg_replication_origin_session_setup", dangerous, replication},
    {"pg_replication_origin_xact_reset", dangerous, replication},
    {"pg_replication_origin_xact_setup", dangerous, replication},
    {"pg_replication_slot_advance", dangerous, replication},
    {"pg_rotate_logfile", dangerous, runs_server},
    {"pg_rotate_logfile_old", dangerous, runs_server},
    {"pg_safe_snapshot_blocking_pids"},
    {"pg_sequence_last_value"},
    {"pg_show_all_file_settings"},
    {"pg_show_replication_origin_status"},
    {"pg_sleep"},
    {"pg_sleep_for"},
    {"pg_sleep_until"},
    {"pg_stat_clear_snapshot", session},
    {"pg_stat_file", dangerous, server_files},
    {"pg_stat_force_next_flush", session},
    {"pg_stat_get_recovery_prefetch"},
    {"pg_stat_get_xact_blocks_fetched"},
    {"pg_stat_get_xact_blocks_hit"},
    {"pg_stat_get_xact_function_calls"},
    {"pg_stat_get_xact_function_self_time"},
    {"pg_stat_get_xact_function_total_time"},
    {"pg_stat_get_xact_numscans"},
    {"pg_stat_get_xact_tuples_deleted"},
    {"pg_stat_get_xact_tuples_fetched"},
    {"pg_stat_get_xact_tuples_hot_updated"},
    {"pg_stat_get_xact_tuples_inserted"},
    {"pg_stat_get_xact_tuples_returned"},
    {"pg_stat_get_xact_tuples_updated"},
    {"pg_stat_have_stats"},
    {"pg_stat_reset", dangerous, statistics},
    {"pg_stat_reset_replication_slot", dangerous, statistics},
    {"pg_stat_reset_shared", dangerous, statistics},
    {"pg_stat_reset_single_function_counters", dangerous, statistics},
    {"pg_stat_reset_single_table_counters", dangerous, statistics},
    {"pg_stat_reset_slru", dangerous, statistics},
    {"pg_stat_reset_subscription_stats", dangerous, statistics},
    {"pg_stop_making_pinned_objects", dangerous, internal_use},
    {"pg_switch_wal", dangerous, runs_server},
    {"pg_table_size"},
    {"pg_tablespace_size"},
    {"pg_terminate_backend", dangerous, ends_sessions},
    {"pg_total_relation_size"},
    {"pg_try_advisory_lock", session},
    {"pg_try_advisory_lock_shared", session},
    {"pg_try_advisory_xact_lock", session},
    {"pg_try_advisory_xact_lock_shared", session},
    {"pg_wal_replay_pause", dangerous, runs_server},
    {"pg_wal_replay_resume", dangerous, runs_server},
    {"pg_xact_commit_timestamp"},
    {"pg_xact_commit_timestamp_origin"},
    {"pg_xact_status"},
    {"plpgsql_call_handler"},
    {"plpgsql_inline_handler"},
    {"plpgsql_validator"},
    {"query_to_xml", runs_sql},
    {"query_to_xml_and_xmlschema", runs_sql},
    {"query_to_xmlschema", runs_sql},
    {"random", none, {}, true},
    {"schema_to_xml", runs_names},
    {"schema_to_xml_and_xmlschema", runs_names},
    {"schema_to_xmlschema"},
    {"set_config", session},
    {"setseed", session},
    {"setval", dangerous, moves_sequence},
    {"spghandler"},
    {"suppress_redundant_updates_trigger"},
    {"system"},
    {"table_to_xml", runs_names},
    {"table_to_xml_and_xmlschema", runs_names},
    {"table_to_xmlschema"},
    {"timeofday"},
    {"ts_rewrite", runs_sql},
    {"ts_stat", runs_sql},
    {"tsvector_update_trigger"},
    {"tsvector_update_trigger_column"},
    {"txid_status"},
    {"unique_key_recheck"},
};

// Functions of PostgreSQL 16 to 18 that version 15's catalogue does not have, and widely used ones
// of the extensions that come with it. Sorted by name.
constexpr Reviewed newer[] = {
    {"any_value"},
    {"array_reverse"},
    {"array_sample", none, {}, true},
    {"array_shuffle", none, {}, true},
    {"array_sort"},
    {"casefold"},
    {"crc32"},
    {"crc32c"},
    {"date_add"},
    {"date_subtract"},
    {"erf"},
    {"erfc"},
    {"gamma"},
    {"has_largeobject_privilege"},
    {"lgamma"},
    {"pg_available_wal_summaries"},
    {"pg_backend_xid"},
    {"pg_basetype"},
    {"pg_column_toast_chunk_id"},
    {"pg_get_acl"},
    {"pg_get_wal_summarizer_state"},
    {"pg_input_error_info"},
    {"pg_input_is_valid"},
    {"pg_log_standby_snapshot", dangerous, runs_server},
    {"pg_maintain"},
    {"pg_set_attribute_stats", dangerous, statistics},
    {"pg_set_relation_stats", dangerous, statistics},
    {"pg_split_walfile_name"},
    {"pg_stat_get_backend_io"},
    {"pg_stat_get_backend_subxact"},
    {"pg_stat_get_backend_wal"},
    {"pg_stat_get_checkpointer_num_requested"},
    {"pg_stat_get_checkpointer_num_timed"},
    {"pg_stat_get_io"},
    {"pg_stat_get_lastscan"},
    {"pg_stat_reset_backend_stats", dangerous, statistics},
    {"pg_sync_replication_slots", dangerous, replication},
    {"pg_wal_summary_contents"},
    {"random_normal", none, {}, true},
    {"to_bin"},
    {"to_oct"},
    {"to_regtypemod"},
    {"unicode_assigned"},
    {"unicode_version"},
    {"uuid_extract_timestamp"},
    {"uuid_extract_version"},
    {"uuidv4", none, {}, true},
    {"uuidv7", none, {}, true},
    {"xmltext"},
};

// Functions of extensions that run SQL elsewhere or reach the server's files.
constexpr std::string_view
    dblink_danger = "runs SQL on another connection, out of this guard's sight";

template <typename Table>
auto find_in(const Table& table, std::string_view name) {
    const auto found = std::lower_bound(
        std::begin(table), std::end(table), name,
        [](const auto& row, std::string_view wanted) { return row.name < wanted; });
    return found != std::end(table) && found->name == name ? &*found : nullptr;
}

constexpr bool sorted_by_name(const auto& table) {
    for (std::size_t i = 1; i < std::size(table); ++i) {
        if (!(table[i - 1].name < table[i].name)) {
            return false;
        }
    }
    return true;
}
static_assert(sorted_by_name(catalogue));
static_assert(sorted_by_name(reviewed));
static_assert(sorted_by_name(newer));

}  // namespace

FunctionFacts find_function(std::string_view name, std::string_view schema) {
    FunctionFacts facts;
    const bool builtin_schema = schema.empty() || schema == "pg_catalog";
    const Row* row = nullptr;
    if (builtin_schema || schema == "information_schema") {
        row = find_in(catalogue, name);
        if (row != nullptr && row->qualified_only && schema != "information_schema") {
            row = nullptr;
        }
    }
    const Reviewed* review = nullptr;
    if (builtin_schema) {
        review = find_in(reviewed, name);
        if (review == nullptr && row == nullptr) {
            review = find_in(newer, name);
        }
    }
    if (row == nullptr && review == nullptr) {
        if (name.starts_with("dblink")) {
            facts.known = true;
            facts.effect = FunctionEffect::dangerous;
            facts.danger = dblink_danger;
        } else if (name.starts_with("pg_file_")) {
            facts.known = true;
            facts.effect = FunctionEffect::dangerous;
            facts.danger = server_files;
        }
        return facts;
    }
    facts.known = true;
    facts.aggregate = row != nullptr && row->aggregate;
    if (review != nullptr) {
        facts.effect = review->effect;
        facts.danger = review->danger;
        facts.varies_by_chance = review->chance;
    } else if (row->volatility == 'v') {
        facts.effect = FunctionEffect::writes;
        facts.varies_by_chance = true;
    }
    return facts;
}

bool is_builtin_operator(std::string_view name) {
    return std::binary_search(std::begin(operators), std::end(operators), name);
}

std::string_view first_unreviewed_function() {
    for (const Row& row : catalogue) {
        if (row.volatility == 'v' && find_in(reviewed, row.name) == nullptr) {
            return row.name;
        }
    }
    return {};
}

}  // namespace pgchaperone::policy
