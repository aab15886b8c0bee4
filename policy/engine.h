#pragma once
// The policy as the session's host uses it: bytes of a statement in, a judgement out. It joins the
// analyzer, the cache and the rules in force. Knows no wire and no socket.
//
// One Engine per thread that judges (its cache has no lock); all of them share one RuleBook, whose
// rules are swapped as a whole on reload. A statement larger than `off_thread_bytes` should be
// judged on a thread with a large stack (see policy/parser_thread.h) rather than on an I/O thread.

#include "policy/decision.h"
#include "policy/session_facts.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

namespace pgchaperone::policy {

class RuleBook;  // policy/rule_book.h: the rules in force, atomically replaceable

// What the host can carry out of what a policy can ask for. What it can't is judged as close to the
// policy as is safe: an action `supervise` becomes "allow, with a record", `hold` becomes a refusal
// that says why.
struct Capabilities {
    bool supervise = false;
    bool hold = false;
};

class Engine {
public:
    static constexpr std::size_t off_thread_bytes = 64 * 1024;
    static constexpr std::size_t cache_bytes = 8 * 1024 * 1024;  // per engine, an estimate
    static constexpr std::size_t cached_text_bytes = 64 * 1024;  // a longer text is not remembered

    explicit Engine(std::shared_ptr<const RuleBook> rules, Capabilities capabilities = {});
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    // Judges a whole Query or Parse text, without its terminating NUL. Never throws: what cannot be
    // read is one statement with `unparsable` set, judged by the rules.
    Judgement judge(std::string_view sql, const LexicalSettings& lexical,
                    const SessionFacts& session, const Moment& moment) noexcept;

    // Judges what was analysed before, at another moment (an Execute of a prepared statement).
    Judgement judge_again(const AnalysisPtr& analysis, const SessionFacts& session,
                          const Moment& moment) noexcept;

    // The same of an analysis that nobody keeps: nothing of it is remembered.
    Judgement judge_once(const AnalysisPtr& analysis, const SessionFacts& session,
                         const Moment& moment) noexcept;

    // Judges what has no text: a fast-path FunctionCall of the function with this object id.
    Judgement judge_function_call(std::uint32_t function_oid, const SessionFacts& session,
                                  const Moment& moment) noexcept;

    // Judges an Execute of a portal or statement that the session never saw being made: opaque.
    Judgement judge_unknown_statement(const SessionFacts& session, const Moment& moment) noexcept;

    // Judges a text of this size, which is longer than anything that is read: unparsable.
    Judgement judge_oversized(std::size_t text_bytes, const SessionFacts& session,
                              const Moment& moment) noexcept;

    // For tests and benchmarks.
    struct CacheSize {
        std::size_t texts = 0;
        std::size_t bytes = 0;
    };
    CacheSize cache_size() const noexcept;

    // How often the text of a Query or Parse was found in the cache, or was not. From any thread.
    struct CacheUse {
        std::uint64_t hits = 0;
        std::uint64_t misses = 0;
    };
    CacheUse cache_use() const noexcept;

    // The version of the rules in force: a judgement with an older one must be made again.
    std::uint64_t policy_version() const noexcept;

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace pgchaperone::policy
