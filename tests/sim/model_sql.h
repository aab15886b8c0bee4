#pragma once
// The SQL that the model server understands: a few statements whose effects can be counted by hand,
// every one of them also valid PostgreSQL, so that the real policy can judge the same text. What
// shall go wrong stands in comments inside the statement, so that it goes wrong in the same way
// however the statement is sent:
//   /* fail 40P01 */   fails with this SQLSTATE
//   /* notice */       raises a notice before it completes
//   /* breaks */       leaves a deferred constraint violated; /* heals */ repairs that
//   /* later 12 */     queues a deferred trigger that will delete 12 rows of t2
//   /* cascade */      a DELETE takes with it the rows of t2 that hang on the deleted ones
// Knows no protocol and no state.

#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::sim {

enum class Verb {
    empty,
    syntax_error,
    select_rows,      // SELECT id FROM t1 [WHERE id <= n] [LIMIT n]
    select_constant,  // SELECT 1
    insert,           // INSERT INTO t1 SELECT generate_series(a, b) [RETURNING id]
    update,           // UPDATE t1 SET a = n [WHERE id <= n] [RETURNING id]
    remove,           // DELETE FROM t1 [WHERE id <= n] [RETURNING id]
    purge,            // SELECT purge(n): deletes n rows of t2 and cascades to t1
    do_purge,         // DO $$ begin perform purge(n); end $$
    make_function,    // SELECT make_function(): DDL inside a function
    wipe,             // SELECT wipe(): TRUNCATE t3 inside a function
    with_remove,      // WITH d AS (DELETE FROM t1 WHERE id <= n RETURNING id) SELECT 1
    explain_remove,   // EXPLAIN ANALYZE DELETE FROM t1 WHERE id <= n
    call_sweep,       // CALL sweep(n): twice the work of purge(n), with a COMMIT in between
    truncate,         // TRUNCATE t1
    copy_in,          // COPY t1 (id) FROM STDIN
    copy_out,         // COPY t1 (id) TO STDOUT
    begin,
    commit,
    rollback,
    savepoint,
    release,
    rollback_to,
    prepare_transaction,
    commit_prepared,
    rollback_prepared,
    set_application_name,
    set_constraints,  // SET CONSTRAINTS ALL IMMEDIATE | DEFERRED
    set_transaction,  // SET TRANSACTION READ ONLY | READ WRITE
    prepare,          // PREPARE q AS UPDATE ... | DELETE ...
    execute,          // EXECUTE q
    deallocate,       // DEALLOCATE q
    declare_cursor,   // DECLARE c CURSOR FOR SELECT id ... | SELECT purge(n)
    fetch,            // FETCH n FROM c
    close_cursor,     // CLOSE c
    vacuum,           // VACUUM t1: not inside a transaction block
    guard,            // SQL of pgchaperone's own that reads: see injected.h
};

// A number in the text, or a parameter: $1.
struct Number {
    int value = 0;
    int parameter = 0;  // counted from 1; 0: none
    int of(const std::vector<int>& parameters) const;
};

struct Statement {
    Verb verb = Verb::empty;
    Verb inner = Verb::empty;  // prepare, declare_cursor: what will run; its fields are these here
    std::string text;
    int table = 0;  // 0: t1, 1: t2, 2: t3
    Number low;     // insert: first id
    Number high;    // the bound: id <= high; insert: last id; purge, fetch: how many
    Number value;   // update
    bool bounded = false;
    bool returning = false;
    int limit = -1;          // LIMIT; -1: none
    bool chain = false;      // AND CHAIN
    bool immediate = false;  // set_constraints; set_transaction: READ ONLY
    std::string
        name;  // savepoint, cursor, prepared statement, global transaction, application_name
    std::string fails;
    bool notice = false;
    bool breaks = false;
    bool heals = false;
    bool cascade = false;
    int later = 0;
    int parameters = 0;  // how many $n

    bool returns_rows() const;
    bool controls_transaction() const;
    // COMMIT, ROLLBACK, ROLLBACK TO, PREPARE TRANSACTION: what a failed block still accepts.
    bool ends_failed_block() const;
    // Its command tag does not tell what it changes.
    bool opaque() const;
};

// The statements of a Query string. A text that does not parse is one statement,
// Verb::syntax_error.
std::vector<Statement> parse_sql(std::string_view sql);

}  // namespace pgchaperone::sim
