#pragma once
// What the names may stand for that SQL has given: PREPARE's statements, or DECLARE's cursors.
// Those of the protocol are Names'.
//
// More than one meaning of a name is kept where it is not certain which one it has: everything here
// errs on the side of keeping. That a name was given tells that it was free before, so that only
// what was made since then counts; a rollback takes no prepared statement back, and an error behind
// it in the same text does not either. Of what is too much to keep the name is kept alone: it
// stands for something unparsable. Where even the names are too many, every name may stand for
// that.

#include "policy/run_by_name.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::session {

// Whether SQL and the protocol mean the same by these bytes, whatever the encodings.
bool certain_name(std::string_view name);

class NamedTexts {
public:
    // Of what is beyond these the names are kept alone.
    static constexpr std::size_t texts_max = 1000;
    static constexpr std::size_t bytes_max = 4 * 1024 * 1024;
    // That many, of up to 63 bytes each.
    static constexpr std::size_t names_max = 16'000;
    static constexpr std::size_t text_bytes_max = 16 * 1024;  // of one, as people see it

    enum class Certainty : std::uint8_t {
        maybe,   // it stands somewhere in what was sent
        unless,  // it is one of several statements: it is made unless an error comes before it
        alone,   // it is all that was sent
    };

    // Sent as message `sequence`. `stays`: beyond the end of the transaction.
    void sent(policy::NamedTextPtr text, std::uint64_t sequence, Certainty certainty, bool stays);
    // Something that takes the name away (DEALLOCATE, CLOSE) was sent, behind all that was told so
    // far of the same message.
    void sent_end(std::string_view name, std::uint64_t sequence, Certainty certainty);
    // It came to its end, well or not. True: `given` was called for every name that it has
    // certainly given or taken away.
    template <class Given>
    void settled(std::uint64_t sequence, bool ok, Given given) {
        if (waiting_.empty()) return;
        for (const std::string& name : settle(sequence, ok)) given(name);
    }
    // What was sent under that name before this message is gone.
    void forget(std::string_view name, std::uint64_t sequence);
    void forget_all(std::uint64_t sequence);
    void transaction_ended(std::uint64_t sequence);

    bool empty() const { return meanings_.empty() && !lost(); }
    std::size_t size() const { return size_; }
    // Everything that the name may stand for; in the order in which it was sent.
    std::vector<policy::NamedTextPtr> find(std::string_view name) const;

private:
    struct Meaning {
        policy::NamedTextPtr text;
        std::uint64_t sequence = 0;
        std::uint64_t order = 0;  // of all that was sent, within a message, too
        bool stays = true;
    };
    struct Waiting {
        std::string name;
        std::uint64_t sequence = 0;
        std::uint64_t order = 0;  // what the name stood for before this is gone if it succeeds
        Certainty certainty = Certainty::maybe;
    };
    using Meanings = std::map<std::string, std::vector<Meaning>, std::less<>>;

    bool lost() const { return lost_staying_ || lost_passing_; }
    template <class Condition>
    Meanings::iterator forget_if(Meanings::iterator at, Condition condition);
    std::vector<std::string> settle(std::uint64_t sequence, bool ok);

    Meanings meanings_;
    std::vector<Waiting> waiting_;  // for the end of what was sent, in order
    std::size_t size_ = 0;
    std::size_t bytes_ = 0;
    std::size_t names_only_ = 0;
    std::uint64_t order_ = 0;
    // The last message with a name that is not kept, by whether that stays beyond its transaction.
    std::optional<std::uint64_t> lost_staying_;
    std::optional<std::uint64_t> lost_passing_;
};

}  // namespace pgchaperone::session
