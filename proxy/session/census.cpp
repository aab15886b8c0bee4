#include "proxy/session/census.h"

#include <algorithm>

namespace pgchaperone::session {

namespace {

CountedClass counted_as(policy::StatementClass one) {
    switch (one) {
        case policy::StatementClass::read: return CountedClass::read;
        case policy::StatementClass::write: return CountedClass::write;
        case policy::StatementClass::function: return CountedClass::function;
        case policy::StatementClass::role: return CountedClass::role;
        case policy::StatementClass::ddl: return CountedClass::ddl;
        case policy::StatementClass::misc: return CountedClass::misc;
        case policy::StatementClass::misc_set: return CountedClass::misc_set;
    }
    return CountedClass::unknown;
}

CountedDecision counted_as(const policy::Decision& decision) {
    if (decision.action == policy::Action::allow) return CountedDecision::allow;
    if (decision.observed) return CountedDecision::observe;
    switch (decision.action) {
        case policy::Action::allow: break;
        case policy::Action::block: return CountedDecision::block;
        case policy::Action::supervise: return CountedDecision::supervise;
        case policy::Action::hold: return CountedDecision::hold;
        case policy::Action::answer: return CountedDecision::answer;
    }
    return CountedDecision::allow;
}

}  // namespace

std::string_view counted_class_name(CountedClass one) {
    switch (one) {
        case CountedClass::read: return "READ";
        case CountedClass::misc_set: return "MISC_SET";
        case CountedClass::misc: return "MISC";
        case CountedClass::function: return "FUNCTION";
        case CountedClass::write: return "WRITE";
        case CountedClass::ddl: return "DDL";
        case CountedClass::role: return "ROLE";
        case CountedClass::unknown: return "UNKNOWN";
    }
    return "";
}

CountedClass counted_class(const policy::StatementFacts* facts) {
    if (facts == nullptr || facts->unparsable || facts->classes.empty())
        return CountedClass::unknown;
    CountedClass most = CountedClass::read;
    for (const policy::StatementClass one : facts->classes) most = std::max(most, counted_as(one));
    return most;
}

std::string_view counted_decision_name(CountedDecision one) {
    switch (one) {
        case CountedDecision::allow: return "allow";
        case CountedDecision::observe: return "observe";
        case CountedDecision::block: return "block";
        case CountedDecision::supervise: return "supervise";
        case CountedDecision::hold: return "hold";
        case CountedDecision::answer: return "answer";
    }
    return "";
}

std::string_view supervision_end_name(SupervisionEnd one) {
    switch (one) {
        case SupervisionEnd::within_limits: return "within_limits";
        case SupervisionEnd::exceeded: return "exceeded";
        case SupervisionEnd::failed: return "failed";
        case SupervisionEnd::timeout: return "timeout";
    }
    return "";
}

std::string_view time_limit_name(TimeLimitKind one) {
    switch (one) {
        case TimeLimitKind::statement: return "statement";
        case TimeLimitKind::transaction: return "transaction";
        case TimeLimitKind::idle: return "idle";
        case TimeLimitKind::idle_in_transaction: return "idle_in_transaction";
    }
    return "";
}

void Census::add(CountedClass one, CountedDecision decision) {
    for (Statement& statement : statements_) {
        if (statement.one != one || statement.decision != decision) continue;
        ++statement.times;
        return;
    }
    statements_.push_back({one, decision, 1});
}

void Census::decided(const policy::Judgement& judgement, std::size_t index) {
    add(counted_class(judgement.facts(index)), index < judgement.decisions.size()
                                                   ? counted_as(judgement.decisions[index])
                                                   : CountedDecision::allow);
}

void Census::allowed(const policy::Analysis* analysis) {
    if (analysis == nullptr) return;
    for (const policy::StatementFacts& facts : analysis->statements)
        add(counted_class(&facts), CountedDecision::allow);
}

void Census::forget() {
    statements_.clear();
    ends_ = {};
    too_long_ = {};
    others_ = false;
}

}  // namespace pgchaperone::session
