#pragma once
// The tables that this session has certainly made and that are certainly still there:
// what is done to them harms nobody else. A table counts from the moment the server said that it
// was made; the first thing that makes a name doubtful ends its time here, however harmless it was.

#include "policy/facts.h"

#include <cstdint>
#include <vector>

namespace pgchaperone::session {

class OwnTables {
public:
    const std::vector<policy::RelationName>& names() const { return names_; }

    // A text was let through to the server as message `sequence` and runs (not a Parse).
    void sent(const policy::Analysis& analysis, std::uint64_t sequence);
    // Something ran of which nothing is known.
    void doubt() { forget(); }
    // It came to its end, well or not.
    void settled(std::uint64_t sequence, bool ok);
    // Something failed: what the transaction has made so far may be gone.
    void failed();
    // ReadyForQuery outside a transaction block: what was made stays, but for ON COMMIT DROP.
    void transaction_ended();

private:
    struct Made {
        std::uint64_t sequence = 0;
        std::vector<policy::RelationName> names;
        bool until_commit = false;
    };
    void forget();
    void list();

    std::vector<Made> awaited_;  // sent, not answered
    std::vector<Made> made_;     // made by the transaction that is open
    std::vector<Made> committed_;
    std::vector<policy::RelationName> names_;  // of made_ and committed_
};

}  // namespace pgchaperone::session
