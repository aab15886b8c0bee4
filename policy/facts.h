#pragma once
// What a statement is: the facts that the analyzer reads out of the parse tree. Values only; knows
// no wire, no session and no rule. Names follow PostgreSQL's and pgaudit's terms.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace pgchaperone::policy {

// pgaudit's classes. misc_set: SET and RESET.
enum class StatementClass : std::uint8_t { read, write, function, role, ddl, misc, misc_set };
inline constexpr int statement_classes = 7;

// A relation as the statement names it, folded as PostgreSQL folds it (unquoted: lower case;
// quoted: as it stands). `schema` and `catalog` are empty where the text does not give them. Where
// a statement means every relation of a schema, or every one at all, `name` is empty, which no
// relation's is.
struct RelationName {
    std::string catalog;
    std::string schema;
    std::string name;
    bool is_every() const { return name.empty(); }
    bool operator==(const RelationName&) const = default;
};

struct FunctionName {
    std::string schema;
    std::string name;
    bool operator==(const FunctionName&) const = default;
};

// Why a flag is set: `set` with a reason for people to read, e.g. "no WHERE", "WHERE is always
// true".
struct Flag {
    bool set = false;
    std::string reason;
    explicit operator bool() const { return set; }
    bool operator==(const Flag&) const = default;
};

// What a TransactionStmt does. `savepoint`: SAVEPOINT, RELEASE and ROLLBACK TO, which stay inside
// the block; `prepare`: PREPARE TRANSACTION; `finish_prepared`: COMMIT and ROLLBACK PREPARED.
enum class TransactionControl : std::uint8_t {
    none,
    begin,
    commit,
    rollback,
    savepoint,
    prepare,
    finish_prepared,
};

// A question or an order to pgchaperone itself: SHOW chaperone.<name> or CALL
// chaperone.<name>(...), with a name that the virtual schema has (virtual_schema.h). It never
// reaches the server.
struct ChaperoneCall {
    struct Argument {
        std::optional<std::string> text;  // a constant; none: NULL, or a parameter
        int parameter = 0;                // $1 ...; 0: a constant
    };
    bool call = false;  // CALL; else SHOW
    std::string name;   // folded: "pending", "ticket_k7", "approve"
    std::vector<Argument> arguments;
    std::string problem;  // what is wrong with the call, for people: arguments that are no
                          // constants, too many ...
};

// The facts of one statement of a Query string (or of the only one of a Parse). Everything inside
// it (CTEs, subqueries, the statement under EXPLAIN ANALYZE, PREPARE, COPY, DO ...) is folded in:
// `commands` lists the outer command first and then every inner one that the statement can run.
struct StatementFacts {
    // Where the statement stands in the analysed text, in bytes, without surrounding white space.
    std::uint32_t location = 0;
    std::uint32_t length = 0;

    // The command tag, as in CommandComplete, without counts: "DROP TABLE". Then it and the tags of
    // all inner statements, and the classes of all of them: no duplicates, the outer one's first.
    std::string command;
    std::vector<std::string> commands;
    std::vector<StatementClass> classes;

    std::vector<RelationName> read;
    std::vector<RelationName> written;  // targets of DML, DDL and TRUNCATE
    std::vector<FunctionName> functions;
    // Settings that it changes for the session or the transaction, by SET, RESET or set_config(),
    // in lower case; RESET ALL is "all", one that only the server knows is empty.
    std::vector<std::string> settings;

    Flag unbounded;
    Flag opaque;
    Flag unparsable;
    // Takes away, for good, something that was there before: DROP, TRUNCATE, a column dropped or
    // retyped, a partition detached, a constraint, trigger or policy dropped or disabled ...
    // Objects that are certainly temporary do not count. The reason names what is lost: "drops
    // column meta of orders".
    Flag destructive;
    // Reaches beyond the rows of tables: privileges and roles, system catalogs, other sessions, the
    // server's files, programs and settings, locks that stop others, code that runs for others.
    Flag dangerous;
    // Takes a lock on whole tables that makes others wait: CREATE INDEX without CONCURRENTLY, LOCK,
    // REINDEX ...
    Flag blocking;
    // Names that give the session something to keep track of, folded as PostgreSQL folds them.
    // Tables that certainly did not exist before: CREATE TABLE, SELECT INTO ... A temporary view is
    // none: what is written to it goes to the tables below it.
    std::vector<RelationName> tables_created;
    bool creates_temporary = false;  // they are temporary tables
    bool creates_child = false;      // of another table: what happens to that happens to them too
    bool drops_on_commit = false;    // they go when the transaction ends
    // Puts pg_temp into the search_path, or what only the server knows: from then on the name of a
    // temporary table may mean a permanent one.
    bool moves_pg_temp = false;
    // Of PREPARE, EXECUTE and DEALLOCATE; empty: none, or ALL.
    std::string prepared_statement;
    // Names that it gives to statements (PREPARE) and to cursors (DECLARE), and those by which it
    // runs such (EXECUTE; FETCH and MOVE), folded likewise. See run_by_name.h.
    std::vector<std::string> prepares;
    std::vector<std::string> declares;
    std::vector<std::string> executes;
    std::vector<std::string> fetches;
    std::string closes_cursor;          // CLOSE; empty: none, or ALL
    bool runs_in_transaction = true;    // false: VACUUM, CREATE DATABASE, ... CONCURRENTLY
    bool controls_transaction = false;  // BEGIN, COMMIT, SAVEPOINT, PREPARE TRANSACTION ...
    TransactionControl transaction_control = TransactionControl::none;  // of the statement itself
    bool chains = false;               // COMMIT or ROLLBACK AND CHAIN
    bool copies_in = false;            // COPY FROM STDIN: the client sends data in the middle of it
    bool updates_on_conflict = false;  // INSERT ... ON CONFLICT DO UPDATE
    bool holds_cursor = false;         // DECLARE CURSOR WITH HOLD: its query runs at COMMIT
    // SET client_encoding, the end of a transaction that may have had one, an opaque call ...
    bool may_change_lexical_settings = false;
    bool changes_search_path = false;
    std::shared_ptr<const ChaperoneCall> chaperone;  // null: it is for the server
};

// What of a text nobody is to read (policy/secrets.h).
struct Secrets {
    struct Span {
        std::uint32_t from = 0;  // bytes as sent
        std::uint32_t length = 0;
        bool operator==(const Span&) const = default;
    };
    std::vector<Span> spans;        // in order, apart from each other
    std::vector<int> parameters;    // $1 ...: those whose values are secret
    bool in_comments_alone = true;  // and none in what runs
    bool none() const { return spans.empty() && parameters.empty(); }
};

struct NamedText;  // policy/run_by_name.h

// The facts of a whole Query or Parse text. An empty text has no statements. A text that cannot be
// read has exactly one statement, with `unparsable` set and spanning the whole text.
struct Analysis {
    std::string text;  // the bytes that were analysed, as sent
    std::vector<StatementFacts> statements;
    std::uint64_t fingerprint = 0;  // of the parse tree without constants; 0 where there is none
    Secrets secrets;
    // Where the facts hold those of what its statements run by name in a session: what that is,
    // and the analysis of the text alone.
    std::vector<std::shared_ptr<const NamedText>> runs;
    std::shared_ptr<const Analysis> alone;
};

using AnalysisPtr = std::shared_ptr<const Analysis>;

}  // namespace pgchaperone::policy
