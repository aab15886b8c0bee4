#pragma once
// What the session's prepared statements and portals stand for, as they will be when everything
// already sent to the server has succeeded. A message that the server skipped or failed is undone
// through its ledger entry. Statements and portals are separate name spaces, as in PostgreSQL;
// names are compared in their first 63 bytes, as the server does (NAMEDATALEN - 1).
//
// An unknown name is not an error: it may have been made by SQL (PREPARE, DECLARE). It is judged as
// unknown.

#include "policy/decision.h"
#include "proxy/session/outcomes.h"

#include <boost/unordered/unordered_flat_map.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::session {

// A statement as it was judged at Parse.
struct PreparedStatement {
    policy::Judgement judgement;
    // Allowed for the sake of the session's own tables, which may be gone when it runs, or an SQL
    // EXECUTE, whose name may mean another statement then.
    bool judge_again = false;
    bool runs_by_name = false;        // an SQL EXECUTE or FETCH, or made by an SQL PREPARE itself
    std::uint64_t parsed_behind = 0;  // the last message that was sent before its Parse
    std::optional<std::string> name_encoding;  // client_encoding at its Parse; none: not known
    // For pgchaperone itself: the server has a SELECT in its place, with one parameter more.
    bool answered = false;
    // Its Bind was approved by a second person, and this is how its Execute is to run.
    bool approved = false;
    std::uint64_t bound_behind = 0;  // of such a portal: the last message that ran before
    mutable bool started = false;    // it was executed
    mutable bool revoked = false;    // its ticket was given up before
    std::string bind;  // a portal's: the Bind message, where a ticket for it would need that
    // A portal's: the values of its Bind, where its records show them.
    std::optional<std::vector<std::optional<std::string>>> parameters;
    std::optional<Followed> followed;  // of an approved portal: what is told of its Execute
    std::vector<std::int32_t> parameter_types;  // of one that is: those that the client knows of
};
using StatementHandle = std::shared_ptr<const PreparedStatement>;

class Names {
public:
    // Null: not known.
    StatementHandle statement(std::string_view name) const;
    StatementHandle portal(std::string_view name) const;

    // The Parse of an unnamed statement with this sequence number was sent, or was undone: then
    // what it made is gone, if it still stands there.
    void unnamed_sent(std::uint64_t sequence) { unnamed_sequence_ = sequence; }
    void undo_unnamed(std::uint64_t sequence) {
        if (unnamed_sequence_ == sequence) unnamed_statement_.reset();
    }

    // The first named statement for which `matches(name, handle)`; null: there is none.
    template <class Predicate>
    StatementHandle find_statement(Predicate matches) const {
        for (const auto& [name, handle] : statements_) {
            if (matches(std::string_view(name), *handle)) return handle;
        }
        return nullptr;
    }

    // Null forgets the name. Returns what stood there before.
    StatementHandle set_statement(std::string_view name, StatementHandle handle);
    // `sequence`: of the Bind; see transaction_ended.
    void set_portal(std::string_view name, StatementHandle handle, std::uint64_t sequence);

    // The Bind with this sequence number was undone: what it made is gone, if it still stands
    // there.
    void undo_portal(std::string_view name, std::uint64_t sequence);

    // A transaction ended with the reply to this message: portals made before it are gone.
    void transaction_ended(std::uint64_t sequence);
    // DEALLOCATE ALL, DISCARD ALL, sent as the message with this sequence number: what was parsed
    // behind it stays.
    void forget_statements(std::uint64_t sequence);

    std::size_t statements() const { return statements_.size() + (unnamed_statement_ ? 1 : 0); }
    std::size_t portals() const { return portals_.size() + (unnamed_portal_.handle ? 1 : 0); }

private:
    struct Portal {
        StatementHandle handle;
        std::uint64_t sequence = 0;
    };
    struct Hash {
        using is_transparent = void;
        std::size_t operator()(std::string_view text) const {
            return std::hash<std::string_view>{}(text);
        }
    };
    template <class Value>
    using Map = boost::unordered_flat_map<std::string, Value, Hash, std::equal_to<>>;

    // The unnamed ones are used all the time and have a place of their own.
    StatementHandle unnamed_statement_;
    std::uint64_t unnamed_sequence_ = 0;
    Portal unnamed_portal_;
    Map<StatementHandle> statements_;
    Map<Portal> portals_;
};

}  // namespace pgchaperone::session
