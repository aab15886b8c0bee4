#pragma once
// What the model client does: a list of steps, made by chance from a seed or written by hand, and
// printable. Knows no state; what depends on the server's answers is decided when a step is taken.

#include "sim/model_sql.h"
#include "support/random.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::sim {

struct Step {
    enum class Kind {
        send,        // `bytes`: one message
        wait,        // until every reply that is owed has come
        wait_copy,   // until it is known whether a COPY FROM STDIN began
        cancel,      // ask for a cancel on another connection, whatever runs
        terminate,   // Terminate, and close
        half_close,  // send no more, read on
        vanish,      // the connection breaks
    };
    Kind kind = Kind::send;
    std::string bytes;
    std::vector<Statement> statements;  // send: what a Query holds, what an Execute runs
    bool only_while_copying = false;    // send: only if the COPY began
    int unit = 0;                       // steps of the same unit make sense only together
    char tag() const { return bytes.empty() ? '\0' : bytes[0]; }
};

using Script = std::vector<Step>;

// How much of what.
struct Taste {
    int rows_max = 3;   // rows that a statement is asked to change; a few more now and then
    bool wild = false;  // now and then many more
    bool cancels = false;
    bool vanishes = false;  // now and then, anywhere; else every script ends with Terminate
    bool opaque = true;
    bool failures = true;  // statements that fail by themselves
    bool plain = false;    // nothing that only the model knows: comments that do something, OIDs
    int scenes = 6;
};

Script make_script(test::Random& random, const Taste& taste);

// Whether no step waits for replies that the server may keep until a Sync or Flush.
bool flushes_before_waiting(const Script& script);

// One line per step.
std::string to_text(const Script& script);

// The texts of SQL that the script sends.
std::vector<std::string> texts_of(const Script& script);

}  // namespace pgchaperone::sim
