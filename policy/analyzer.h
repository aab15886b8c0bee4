#pragma once
// Reads SQL as the server will: the bytes of a Query or Parse text in, the facts of its statements
// out. It knows PostgreSQL's grammar, and neither the wire, nor the catalogue, nor any rule.
//
// Invariants: it never throws, never crashes and never lets through as harmless what it could not
// read (that is one statement with `unparsable` set). The same input gives the same facts: no
// clock, no session.

#include "policy/facts.h"
#include "policy/session_facts.h"

#include <cstddef>
#include <memory>
#include <string_view>

namespace pgchaperone::policy {

// What the analyzer refuses to read at all, as `unparsable`.
struct AnalyzerLimits {
    std::size_t text_bytes = 16 * 1024 * 1024;
};

// One instance may be shared by all threads: it holds nothing but its limits. What it needs to be
// fast (the JSON reader and its buffers) is kept per thread.
//
// Stack: texts that could make PostgreSQL's parser recurse deeply are read on a helper thread with
// a large stack, and analyze() waits for it; everything else needs no more than `stack_bytes` of
// the calling thread's stack. analyze() looks at how much is left, so a smaller stack costs time,
// not safety.
class Analyzer {
public:
    static constexpr std::size_t stack_bytes = 4 * 1024 * 1024;

    explicit Analyzer(AnalyzerLimits limits = {}) : limits_(limits) {}

    // `sql` is what stands in the message, without its terminating NUL, in the session's
    // client_encoding. `replication`: on a walsender connection its own commands are understood
    // besides SQL. Never null. An empty text (or only comments and semicolons) has no statements.
    AnalysisPtr analyze(std::string_view sql, const LexicalSettings& lexical,
                        bool replication = false) const noexcept;

private:
    AnalyzerLimits limits_;
};

// PostgreSQL's version whose grammar is linked in, e.g. "17.4" and 17.
std::string_view grammar_version();
int grammar_major_version();

}  // namespace pgchaperone::policy
