// Finds rules that can never be reached, or whose conditions can never hold. It may miss some; what
// it reports is certain.
#include "config/policy_loader.h"

#include <algorithm>

namespace pgchaperone::config {
namespace {

using policy::Condition;
using policy::ConditionKind;
using policy::Rule;

// What is known of the statements that a question is about.
struct Given {
    // They could be read: of others nothing is known, and no condition on what they are holds.
    bool readable = false;
    // The condition must hold of every part of them, not only of some; see policy/rule_match.h.
    bool surely = false;
};

bool is_fact(ConditionKind kind) {
    return policy::condition_type(kind).depends_on == policy::DependsOn::statement &&
           kind != ConditionKind::unparsable && kind != ConditionKind::text;
}

// A condition that only wraps another one says the same.
const Condition& unwrapped(const Condition& condition) {
    const bool wraps = (condition.kind == ConditionKind::all ||
                        condition.kind == ConditionKind::any) &&
                       condition.children.size() == 1;
    if (wraps) return unwrapped(condition.children.front());
    if (condition.kind != ConditionKind::negation) return condition;
    const Condition& inner = unwrapped(condition.children.front());
    return inner.kind == ConditionKind::negation ? unwrapped(inner.children.front()) : condition;
}

// Never holds of a statement that could not be read.
bool needs_readable(const Condition& given);

bool never_fails_unread(const Condition& given) {
    const Condition& condition = unwrapped(given);
    switch (condition.kind) {
        case ConditionKind::all:
            return std::all_of(condition.children.begin(), condition.children.end(),
                               never_fails_unread);
        case ConditionKind::any:
            return std::any_of(condition.children.begin(), condition.children.end(),
                               never_fails_unread);
        case ConditionKind::negation: return needs_readable(condition.children.front());
        case ConditionKind::unparsable: return condition.expected;
        default: return is_fact(condition.kind);
    }
}

bool needs_readable(const Condition& given) {
    const Condition& condition = unwrapped(given);
    switch (condition.kind) {
        case ConditionKind::all:
            return std::any_of(condition.children.begin(), condition.children.end(),
                               needs_readable);
        case ConditionKind::any:
            return !condition.children.empty() &&
                   std::all_of(condition.children.begin(), condition.children.end(),
                               needs_readable);
        case ConditionKind::negation: return never_fails_unread(condition.children.front());
        case ConditionKind::unparsable: return !condition.expected;
        default: return is_fact(condition.kind);
    }
}

// One holds exactly where the other does not.
bool opposite(const Condition& one, const Condition& other) {
    const Condition& a = unwrapped(one);
    const Condition& b = unwrapped(other);
    if (a.kind == ConditionKind::negation)
        return unwrapped(a.children.front()).summary() == b.summary();
    if (b.kind == ConditionKind::negation)
        return a.summary() == unwrapped(b.children.front()).summary();
    return a.kind == b.kind && a.expected != b.expected &&
           policy::condition_type(a.kind).shape == policy::ValueShape::flag;
}

// Of some statements a part matches and another does not: then both a condition and its opposite
// may hold, and neither surely.
bool may_hold_in_part(const Condition& given) {
    const Condition& condition = unwrapped(given);
    switch (condition.kind) {
        case ConditionKind::command:
        case ConditionKind::statement_class:
        case ConditionKind::relation:
        case ConditionKind::reads:
        case ConditionKind::writes:
        case ConditionKind::function:
        case ConditionKind::setting: return true;
        default:
            return std::any_of(condition.children.begin(), condition.children.end(),
                               may_hold_in_part);
    }
}

bool asks_for_facts(const Condition& condition) {
    return is_fact(condition.kind) ||
           std::any_of(condition.children.begin(), condition.children.end(), asks_for_facts);
}

// `in_part`: those count, too, of which neither holds surely.
bool has_opposites(const Condition& condition, const Given& given, bool in_part) {
    const auto& children = condition.children;
    for (std::size_t i = 0; i < children.size(); ++i) {
        for (std::size_t j = 0; j < i; ++j) {
            if (!opposite(children[i], children[j])) continue;
            if (!given.readable && asks_for_facts(children[i])) continue;
            if (in_part || !may_hold_in_part(children[i])) return true;
        }
    }
    return false;
}

// Where a condition must hold surely, it is enough that what it denies may hold, and the other way
// round.
Given denied(Given given) {
    given.surely = !given.surely;
    return given;
}

bool never(const Condition& condition, const Given& given);

// True where the condition holds for every statement of every session.
bool always(const Condition& wrapped, const Given& given) {
    const Condition& condition = unwrapped(wrapped);
    const auto anything = [](const policy::Glob& glob) { return glob.matches_everything(); };
    constexpr std::uint8_t all_classes = (1U << policy::statement_classes) - 1;
    switch (condition.kind) {
        case ConditionKind::user:
        case ConditionKind::database:
        case ConditionKind::application_name:
            return std::any_of(condition.globs.begin(), condition.globs.end(), anything);
        case ConditionKind::command:
            return given.readable &&
                   std::any_of(condition.globs.begin(), condition.globs.end(), anything);
        case ConditionKind::statement_class:
            return given.readable && condition.classes == all_classes;
        case ConditionKind::unparsable: return given.readable && !condition.expected;
        case ConditionKind::negation: return never(condition.children.front(), denied(given));
        case ConditionKind::all:
            return std::all_of(condition.children.begin(), condition.children.end(),
                               [&](const Condition& c) { return always(c, given); });
        case ConditionKind::any:
            return std::any_of(condition.children.begin(), condition.children.end(),
                               [&](const Condition& c) { return always(c, given); }) ||
                   has_opposites(condition, given, !given.surely);
        default: return false;
    }
}

// True where it holds for none.
bool never(const Condition& wrapped, const Given& given) {
    const Condition& condition = unwrapped(wrapped);
    switch (condition.kind) {
        case ConditionKind::unparsable: return given.readable && condition.expected;
        case ConditionKind::negation: return always(condition.children.front(), denied(given));
        case ConditionKind::all:
            return std::any_of(condition.children.begin(), condition.children.end(),
                               [&](const Condition& c) { return never(c, given); }) ||
                   has_opposites(condition, given, given.surely);
        case ConditionKind::any:
            return !condition.children.empty() &&
                   std::all_of(condition.children.begin(), condition.children.end(),
                               [&](const Condition& c) { return never(c, given); });
        default: return false;
    }
}

// True where `wide` holds at least as surely as `narrow`, whatever the statement.
bool implied(const Condition& wrapped_narrow, const Condition& wrapped_wide, const Given& given) {
    const Condition& narrow = unwrapped(wrapped_narrow);
    const Condition& wide = unwrapped(wrapped_wide);
    if (always(wide, {given.readable, true}) || never(narrow, {given.readable, false})) return true;
    if (narrow.kind == ConditionKind::negation && wide.kind == ConditionKind::negation)
        return implied(wide.children.front(), narrow.children.front(), given);
    const auto wider = [&](const Condition& n) { return implied(n, wide, given); };
    const auto narrower = [&](const Condition& w) { return implied(narrow, w, given); };
    if (wide.kind == ConditionKind::all)
        return std::all_of(wide.children.begin(), wide.children.end(), narrower);
    if (narrow.kind == ConditionKind::any)
        return std::all_of(narrow.children.begin(), narrow.children.end(), wider);
    if (wide.kind == ConditionKind::any &&
        std::any_of(wide.children.begin(), wide.children.end(), narrower)) {
        return true;
    }
    if (narrow.kind == ConditionKind::all)
        return std::any_of(narrow.children.begin(), narrow.children.end(), wider);
    if (narrow.kind != wide.kind) return false;
    const auto covered = [](const auto& some, const auto& by) {
        return std::all_of(some.begin(), some.end(), [&](const auto& s) {
            return std::any_of(by.begin(), by.end(), [&](const auto& b) { return b.covers(s); });
        });
    };
    switch (policy::condition_type(wide.kind).shape) {
        case policy::ValueShape::globs: return covered(narrow.globs, wide.globs);
        case policy::ValueShape::networks: return covered(narrow.networks, wide.networks);
        case policy::ValueShape::names: return covered(narrow.names, wide.names);
        case policy::ValueShape::classes: return (narrow.classes & ~wide.classes) == 0;
        case policy::ValueShape::flag:
        case policy::ValueShape::window:
        case policy::ValueShape::regex: return narrow.summary() == wide.summary();
        case policy::ValueShape::conditions:
        case policy::ValueShape::condition_list: return false;
    }
    return false;
}

// Holds of a statement or does not; never of a part of it only.
bool about_the_whole(const Condition& condition) {
    return !may_hold_in_part(condition) || always(condition, {true, true}) ||
           (!condition.children.empty() &&
            std::all_of(condition.children.begin(), condition.children.end(), about_the_whole));
}

// True where `cover` takes every statement that `hidden` would.
bool takes_all(const Rule& cover, const Rule& hidden) {
    const bool allows = cover.action.action == policy::Action::allow;
    const Given given{needs_readable(hidden.match), allows};
    if (always(cover.match, given)) return true;
    // An allowing rule passes by what it matches in part, and a restricting one does not.
    const bool hidden_allows = hidden.lets_through();
    if (allows && !hidden_allows && !about_the_whole(cover.match)) return false;
    return implied(hidden.match, cover.match, given);
}

int strictness(policy::Action action) {
    switch (action) {
        case policy::Action::answer:
        case policy::Action::allow: return 0;
        case policy::Action::supervise: return 1;
        case policy::Action::hold: return 2;
        case policy::Action::block: return 3;
    }
    return 0;
}

void report_hidden(const Rule& hidden, const Rule& cover, Problems& problems) {
    const bool always_applies = always(cover.match,
                                       {true, cover.action.action == policy::Action::allow});
    const std::string message = "rule \"" + hidden.name + "\" can never be reached: " +
                                (always_applies
                                     ? "rule \"" + cover.name + "\" before it always applies"
                                     : "everything it matches is taken by rule \"" + cover.name +
                                           "\" before it") +
                                " (" + cover.place.text() + ")";
    const std::string advice = "move it before \"" + cover.name + "\", or remove it";
    if (strictness(hidden.action.action) > strictness(cover.action.action)) {
        problems.error(hidden.place, message, advice);
    } else {
        problems.warning(hidden.place, message, advice);
    }
}

}  // namespace

void report_unreachable_rules(const policy::Policy& policy, Problems& problems) {
    for (std::size_t later = 0; later < policy.rules.size(); ++later) {
        const Rule& hidden = policy.rules[later];
        if (never(hidden.match, {needs_readable(hidden.match), hidden.lets_through()})) {
            problems.warning(hidden.place,
                             "rule \"" + hidden.name +
                                 "\" can never apply: its conditions "
                                 "contradict each other",
                             "remove one of them, or the rule");
            continue;
        }
        for (std::size_t earlier = 0; earlier < later; ++earlier) {
            const Rule& cover = policy.rules[earlier];
            if (cover.observe || !cover.decides) continue;
            // Overriding a preset is what rules of one's own are for.
            if (!hidden.origin.empty() && cover.origin.empty()) continue;
            if (!takes_all(cover, hidden)) continue;
            report_hidden(hidden, cover, problems);
            break;
        }
    }
}

}  // namespace pgchaperone::config
