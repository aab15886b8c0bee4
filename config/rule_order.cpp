// Finds rules that can never be reached. It may miss some; what it reports is certain.
#include "config/policy_loader.h"

#include <algorithm>

namespace pgchaperone::config {
namespace {

using policy::Condition;
using policy::ConditionKind;
using policy::Rule;

bool always(const Condition& condition);

// True where `wide` holds whenever `narrow` does.
bool implied(const Condition& narrow, const Condition& wide);

bool all_of_wide(const std::vector<Condition>& narrow, const std::vector<Condition>& wide) {
    return std::all_of(wide.begin(), wide.end(), [&](const Condition& w) {
        return always(w) || std::any_of(narrow.begin(), narrow.end(),
                                        [&](const Condition& n) { return implied(n, w); });
    });
}

// True where the condition holds for every statement of every session.
bool always(const Condition& condition) {
    switch (condition.kind) {
        case ConditionKind::user:
        case ConditionKind::database:
        case ConditionKind::application_name:
            return std::any_of(condition.globs.begin(), condition.globs.end(),
                               [](const policy::Glob& glob) { return glob.matches_everything(); });
        case ConditionKind::all:
            return std::all_of(condition.children.begin(), condition.children.end(), always);
        case ConditionKind::any:
            return std::any_of(condition.children.begin(), condition.children.end(), always);
        default: return false;
    }
}

bool implied(const Condition& narrow, const Condition& wide) {
    if (always(wide)) return true;
    if (wide.kind == ConditionKind::any) {
        if (std::any_of(wide.children.begin(), wide.children.end(),
                        [&](const Condition& w) { return implied(narrow, w); })) {
            return true;
        }
        return narrow.kind == ConditionKind::any &&
               std::all_of(narrow.children.begin(), narrow.children.end(), [&](const Condition& n) {
                   return std::any_of(wide.children.begin(), wide.children.end(),
                                      [&](const Condition& w) { return implied(n, w); });
               });
    }
    if (wide.kind == ConditionKind::all) {
        if (narrow.kind == ConditionKind::all) return all_of_wide(narrow.children, wide.children);
        return std::all_of(wide.children.begin(), wide.children.end(),
                           [&](const Condition& w) { return implied(narrow, w); });
    }
    if (narrow.kind == ConditionKind::all) {
        return std::any_of(narrow.children.begin(), narrow.children.end(),
                           [&](const Condition& n) { return implied(n, wide); });
    }
    if (narrow.kind != wide.kind) return false;
    const auto covered = [](const auto& some, const auto& by) {
        return std::all_of(some.begin(), some.end(), [&](const auto& s) {
            return std::any_of(by.begin(), by.end(), [&](const auto& b) { return b.covers(s); });
        });
    };
    switch (policy::condition_type(wide.kind).shape) {
        case policy::ValueShape::globs: return covered(narrow.globs, wide.globs);
        case policy::ValueShape::networks: return covered(narrow.networks, wide.networks);
        case policy::ValueShape::classes: return (narrow.classes & ~wide.classes) == 0;
        case policy::ValueShape::names:
            return std::all_of(narrow.names.begin(), narrow.names.end(), [&](const auto& n) {
                return std::find(wide.names.begin(), wide.names.end(), n) != wide.names.end();
            });
        case policy::ValueShape::flag:
        case policy::ValueShape::window:
        case policy::ValueShape::regex: return narrow.summary() == wide.summary();
        case policy::ValueShape::conditions:
            return implied(wide.children.front(), narrow.children.front());
        case policy::ValueShape::condition_list: return false;
    }
    return false;
}

// Of a statement in several parts an allowing rule must match all of them; one that matches some is
// passed by. So it shadows another only where its conditions are about the whole.
bool about_the_whole(const Condition& condition) {
    switch (condition.kind) {
        case ConditionKind::command:
        case ConditionKind::statement_class:
        case ConditionKind::relation:
        case ConditionKind::reads:
        case ConditionKind::writes:
        case ConditionKind::function: return false;
        default: break;
    }
    return std::all_of(condition.children.begin(), condition.children.end(), about_the_whole);
}

int strictness(policy::Action action) {
    switch (action) {
        case policy::Action::allow: return 0;
        case policy::Action::supervise: return 1;
        case policy::Action::hold: return 2;
        case policy::Action::block: return 3;
    }
    return 0;
}

}  // namespace

void report_unreachable_rules(const policy::Policy& policy, Problems& problems) {
    for (std::size_t later = 0; later < policy.rules.size(); ++later) {
        const Rule& hidden = policy.rules[later];
        for (std::size_t earlier = 0; earlier < later; ++earlier) {
            const Rule& cover = policy.rules[earlier];
            if (cover.observe) continue;
            // Overriding a preset is what rules of one's own are for.
            if (!hidden.origin.empty() && cover.origin.empty()) continue;
            if (cover.action.action == policy::Action::allow && !about_the_whole(cover.match))
                continue;
            if (!implied(hidden.match, cover.match)) continue;
            const std::string message = "rule \"" + hidden.name + "\" can never be reached: " +
                                        (always(cover.match)
                                             ? "rule \"" + cover.name +
                                                   "\" before it always applies"
                                             : "everything it matches is taken by rule \"" +
                                                   cover.name + "\" before it") +
                                        " (" + cover.place.text() + ")";
            const std::string advice = "move it before \"" + cover.name + "\", or remove it";
            if (strictness(hidden.action.action) > strictness(cover.action.action)) {
                problems.error(hidden.place, message, advice);
            } else {
                problems.warning(hidden.place, message, advice);
            }
            break;
        }
    }
}

}  // namespace pgchaperone::config
