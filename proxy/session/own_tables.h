#pragma once
// The tables that this session has certainly made and that are certainly still there: emptying or
// dropping them harms nobody else. Temporary tables count while nothing makes their names doubtful;
// permanent ones, which others can come to use, only for the next few statements.
//
// A table counts from the moment the server said that it was made. Everything here errs on the side
// of forgetting.

#include "policy/own_tables.h"

#include <cstdint>
#include <string_view>
#include <vector>

namespace pgchaperone::session {

class OwnTables {
public:
    const std::vector<policy::RelationName>& names() const { return names_; }
    const policy::NameDoubts& doubts() const { return doubts_; }

    // A parameter of the startup packet, which may set search_path.
    void started_with(std::string_view value);

    // A text was let through to the server as message `sequence` and runs (not a Parse).
    void sent(const policy::Analysis& analysis, std::uint64_t sequence);
    // Something ran of which nothing is known.
    void doubt();
    // It came to its end, well or not.
    void settled(std::uint64_t sequence, bool ok);
    // Something failed: what the transaction has made so far may be gone.
    void failed();
    // ReadyForQuery outside a transaction block: what was made stays, but for ON COMMIT DROP.
    void transaction_ended();

private:
    struct Made {
        policy::RelationName name;
        std::uint64_t sequence = 0;
        std::uint64_t until_statement = 0;  // 0: no end
        bool until_commit = false;
        bool answered = false;   // the server said that it was made
        bool committed = false;  // and no rollback takes it back
    };
    template <class Condition>
    void forget_if(Condition condition);

    std::vector<Made> made_;
    std::vector<policy::RelationName> names_;  // of what was answered
    policy::NameDoubts doubts_;
    std::uint64_t statement_ = 0;
};

}  // namespace pgchaperone::session
