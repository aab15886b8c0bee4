#pragma once
// One line of the audit log as a value. Filled by the session core, which has no clock and no file;
// written by audit::Writer. Field names are those of the JSON (see docs/audit.md).

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace pgchaperone::audit {

// Rows of one table that a supervised statement changed.
struct TableRows {
    std::string table;
    std::uint64_t inserted = 0;
    std::uint64_t updated = 0;
    std::uint64_t deleted = 0;
};

// What came of a statement that was sent to the server, or was to be.
struct Done {
    std::string sqlstate;  // of the error that it failed by
    std::string tag;       // the server's word: "INSERT 0 5"
    std::optional<std::uint64_t> rows;
    std::optional<std::chrono::microseconds> duration;  // since it was sent
    std::string ended;  // its transaction: "committed", "rolled back", ...; empty: it is open
};

struct Record {
    std::chrono::system_clock::time_point time;
    std::uint64_t session = 0;
    // Of the statement, in its session: the same in all records that tell of it; 0: none.
    std::uint64_t number = 0;
    std::string user;
    std::string database;
    std::string upstream;  // the configured name of its server; empty where only one is guarded
    std::string client;
    std::string application;
    std::string protocol;   // "simple", "extended", "function call"
    std::string statement;  // as sent, without secrets, cut at the writer's limit; may be no UTF-8
    bool redacted = false;  // secrets, literals or all of it are left out
    // Values of a Bind, where the policy asks for them; none: NULL.
    std::optional<std::vector<std::optional<std::string>>> parameters;
    std::uint64_t fingerprint = 0;
    std::string command;  // command tag
    std::vector<std::string> classes;
    std::vector<std::string> relations;
    std::string decision;  // "allow", "block", ...
    bool observed = false;
    std::string rule;
    std::string reason;  // the refusal's message or the flag's reason
    // Of the record that tells what a supervised statement did: "within limits", "rolled back".
    // What else has one is below; empty in that of a decision.
    std::string outcome;
    std::vector<TableRows> effects;
    // Of the record that tells what became of a ticket: its id, and `outcome` is "opened",
    // "approved" (it was, and its statement is about to run), "denied", "expired", "withdrawn",
    // "not decided in time", "released" or "glass broken"; empty in all others.
    std::string ticket;
    std::vector<std::string> approved_by;
    std::vector<std::string> denied_by;
    std::string comment;  // of who decided, or the reason given for breaking the glass
    // Of the record that tells what came of a statement; `outcome` is then "completed", "failed",
    // "suspended", "not run" or "unknown". It shows no text.
    std::optional<Done> done;
    // A transaction block of the session's, by number, that a done statement is in, and how it
    // ended. Without `done` it is the record of that end, and `outcome` is what `ended` would be.
    std::uint64_t transaction = 0;
    std::uint64_t transaction_statements = 0;  // done in it
};

}  // namespace pgchaperone::audit
