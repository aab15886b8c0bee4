#pragma once
// Who is at the other end, and under which settings their statements mean what they mean: asked of
// the server itself, in the session, when a second person is to be asked. What the client said when
// it logged in is no proof: names longer than 63 bytes are cut off by the server.

#include "approval/ticket.h"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pgchaperone::session {

// Rows of (kind text, name text, value text):
//   login      name: the role that logged in, whatever SET ROLE and SET SESSION AUTHORIZATION say
//              since; value: its oid
//   member     name: a role that it is a member of, directly or not. Superusers are no members of
//              everything here
//   setting    what gives a statement's text its meaning, and whether triggers and row security
//              apply
//   temporary  value: the temporary relations that are there, which may hide others
//   timeout    name, value: in milliseconds, after which the server ends a session that is idle
//   reason     value: chaperone.reason, if it was set
extern const std::string_view identity_sql;

class Identity {
public:
    // One DataRow's body. False: it is none of these.
    bool add_row(std::string_view body);
    // One row's values; NULL is empty. False: likewise.
    bool add(std::string_view kind, std::string_view name, std::string_view value);
    bool usable() const { return person.oid != 0 && !person.role.empty(); }

    approval::Person person;
    std::vector<std::pair<std::string, std::string>> settings;  // in the order of identity_sql
    std::string temporary;
    std::string reason;
    long idle_timeout_ms = 0;                 // outside of a transaction; 0: none
    long idle_in_transaction_timeout_ms = 0;  // likewise
};

}  // namespace pgchaperone::session
