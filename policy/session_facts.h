#pragma once
// What the policy may know of the session that sent a statement, and of the moment at which it is
// to run. Plain values: the session core fills them from the startup packet and from what the
// server reports; the policy only reads them and keeps no reference.

#include "policy/facts.h"

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace pgchaperone::policy {

// Where the client comes from. IPv4 addresses are kept as IPv4-mapped IPv6 addresses
// (::ffff:a.b.c.d), so that one comparison serves both families; `local` means a Unix-domain socket
// and has no address.
struct ClientAddress {
    bool local = false;
    std::array<std::uint8_t, 16> bytes{};
    std::string text;  // as people write it, for logs and messages
};

// What stays the same for the life of a session. `id` never repeats within a process: caches may
// key on it. A change of `application_name` (reported by the server) makes the core give the
// session a new `revision`.
struct SessionFacts {
    std::uint64_t id = 0;
    std::uint32_t revision = 0;
    std::string user;
    std::string database;
    std::string upstream;          // the configured name of the server it is at; may be empty
    std::string application_name;  // a label that the client chose, not an identity
    ClientAddress client;
    bool tls = false;
    bool replication = false;  // a walsender connection: replication commands are understood
                               // besides SQL
};

enum class StandardConformingStrings : std::uint8_t { on, off, unknown };

// The settings that give a statement's bytes their meaning. Unknown while a statement that could
// change them is still in flight.
struct LexicalSettings {
    StandardConformingStrings standard_conforming_strings = StandardConformingStrings::on;
    std::optional<std::string>
        client_encoding = "UTF8";  // as the server reports it; empty: unknown
    bool operator==(const LexicalSettings&) const = default;
};

// Names that may mean another relation than the table of one's own that was made under them last.
// A doubt once raised stays for the session's life.
struct NameDoubts {
    bool all = false;
    std::vector<std::string> names;  // without schema: a temporary view hides a permanent table
    bool none() const { return !all && names.empty(); }
};

// What may differ from one run of a statement to the next.
struct Moment {
    std::chrono::system_clock::time_point now;
    bool in_transaction = false;  // inside a transaction block that the client opened
    // The session's search_path as schema names in order; empty optional: not known, unqualified
    // names then match with and without any schema.
    std::optional<std::vector<std::string>> search_path;
    // Tables that this session has certainly made itself, temporary or not, and that are still
    // there: as they were named when they were made. Emptying, locking or dropping them harms
    // nobody else. What makes a name doubtful (a rollback, DROP, a changed search_path, a rename,
    // an opaque statement) takes it off this list.
    std::vector<RelationName> own_tables;
    NameDoubts name_doubts;
    // True when the statement is one of several in a Query string or a pipeline's implicit
    // transaction.
    bool in_implicit_block = false;
};

}  // namespace pgchaperone::policy
