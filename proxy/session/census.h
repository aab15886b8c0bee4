#pragma once
// What a host may count of what the core has done since it was last asked: the decisions on
// statements, and the ends of supervised ones. Numbers alone, so nothing of a statement is in it.
// The core adds, the host takes and has it forgotten. It never holds more than one entry for each
// class and decision.

#include "policy/decision.h"
#include "policy/facts.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace pgchaperone::session {

// pgaudit's classes in the order of how much they do, the least first; a statement counts as the
// last of its own. `unknown`: it could not be read.
enum class CountedClass : std::uint8_t {
    read,
    misc_set,
    misc,
    function,
    write,
    ddl,
    role,
    unknown
};
inline constexpr std::size_t counted_classes = 8;
std::string_view counted_class_name(CountedClass one);
// `facts` null: nothing is known of it.
CountedClass counted_class(const policy::StatementFacts* facts);

// policy::Action, but that what is only observed is told apart.
enum class CountedDecision : std::uint8_t { allow, observe, block, supervise, hold, answer };
inline constexpr std::size_t counted_decisions = 6;
std::string_view counted_decision_name(CountedDecision one);

// `failed`: the server refused it itself; `timeout`: it was cancelled for taking too long.
enum class SupervisionEnd : std::uint8_t { within_limits, exceeded, failed, timeout };
inline constexpr std::size_t supervision_ends = 4;
std::string_view supervision_end_name(SupervisionEnd one);

// What took too long: by the word of a rule, or as an idle session.
enum class TimeLimitKind : std::uint8_t { statement, transaction, idle, idle_in_transaction };
inline constexpr std::size_t time_limit_kinds = 4;
std::string_view time_limit_name(TimeLimitKind one);

class Census {
public:
    struct Statement {
        CountedClass one;
        CountedDecision decision;
        std::uint64_t times;
    };
    bool empty() const { return statements_.empty() && !others_; }
    const std::vector<Statement>& statements() const { return statements_; }
    std::uint32_t ended(SupervisionEnd end) const { return ends_[static_cast<std::size_t>(end)]; }

    // Statement `index` of it; one that is plainly allowed is `allow`.
    void decided(const policy::Judgement& judgement, std::size_t index);
    // All of its statements, which are plainly allowed.
    void allowed(const policy::Analysis* analysis);
    void end(SupervisionEnd end) {
        ++ends_[static_cast<std::size_t>(end)];
        others_ = true;
    }
    std::uint32_t too_long(TimeLimitKind kind) const {
        return too_long_[static_cast<std::size_t>(kind)];
    }
    void took_too_long(TimeLimitKind kind) {
        ++too_long_[static_cast<std::size_t>(kind)];
        others_ = true;
    }
    void forget();

private:
    void add(CountedClass one, CountedDecision decision);

    std::vector<Statement> statements_;
    std::array<std::uint32_t, supervision_ends> ends_{};
    std::array<std::uint32_t, time_limit_kinds> too_long_{};
    bool others_ = false;  // than statements
};

}  // namespace pgchaperone::session
