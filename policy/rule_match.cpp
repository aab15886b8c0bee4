#include "policy/rule_match.h"

#include "policy/own_tables.h"
#include "policy/relation_names.h"

#include <algorithm>

namespace pgchaperone::policy {
namespace {

Truth truth(bool value) { return value ? Truth::yes : Truth::no; }

bool any_matches(const std::vector<Glob>& globs, std::string_view text) {
    return std::any_of(globs.begin(), globs.end(),
                       [&](const Glob& glob) { return glob.matches(text); });
}

// Some of several, all of them, or none.
class Tally {
public:
    void add(Truth t) {
        lowest_ = std::min(lowest_, t);
        highest_ = std::max(highest_, t);
    }
    Truth result() const {
        if (highest_ == Truth::no) return Truth::no;
        return lowest_ == Truth::yes ? Truth::yes : Truth::maybe;
    }

private:
    Truth lowest_ = Truth::yes;
    Truth highest_ = Truth::no;
};

Truth session_condition(const Condition& condition, const SessionFacts& session) {
    switch (condition.kind) {
        case ConditionKind::user: return truth(any_matches(condition.globs, session.user));
        case ConditionKind::database: return truth(any_matches(condition.globs, session.database));
        case ConditionKind::application_name:
            return truth(any_matches(condition.globs, session.application_name));
        case ConditionKind::client:
            return truth(std::any_of(condition.networks.begin(), condition.networks.end(),
                                     [&](const Network& n) { return n.contains(session.client); }));
        case ConditionKind::tls: return truth(session.tls == condition.expected);
        case ConditionKind::replication: return truth(session.replication == condition.expected);
        default: return Truth::maybe;
    }
}

class Evaluation {
public:
    Evaluation(const Subject& subject, const SessionAnswers& session_answers, TimeAnswers* times)
        : subject_(subject), session_answers_(session_answers), times_(times) {}

    const MomentUse& used() const { return used_; }

    bool applies(const Rule& rule) {
        const Truth t = evaluate(rule.match);
        const bool needs_certainty = rule.lets_through() || subject_.facts.unparsable;
        return needs_certainty ? t == Truth::yes : t != Truth::no;
    }

    Truth evaluate(const Condition& condition) {
        switch (condition.kind) {
            case ConditionKind::all: {
                Truth result = Truth::yes;
                for (const Condition& child : condition.children) {
                    result = std::min(result, evaluate(child));
                    if (result == Truth::no) break;
                }
                return result;
            }
            case ConditionKind::any: {
                Truth result = Truth::no;
                for (const Condition& child : condition.children) {
                    result = std::max(result, evaluate(child));
                    if (result == Truth::yes) break;
                }
                return result;
            }
            case ConditionKind::negation: return negation(evaluate(condition.children.front()));
            case ConditionKind::user:
            case ConditionKind::database:
            case ConditionKind::client:
            case ConditionKind::application_name:
            case ConditionKind::tls:
            case ConditionKind::replication: return truth(session_answers_[condition.number]);
            case ConditionKind::in_transaction:
                used_.transaction = true;
                return truth(subject_.moment.in_transaction == condition.expected);
            case ConditionKind::time: return time(condition);
            case ConditionKind::text: return truth(condition.regex->found_in(subject_.text));
            case ConditionKind::unparsable:
                return truth(subject_.facts.unparsable.set == condition.expected);
            default: break;
        }
        if (subject_.facts.unparsable) return Truth::maybe;
        return statement_condition(condition);
    }

private:
    Truth time(const Condition& condition) {
        used_.time = true;
        if (times_ == nullptr) {
            used_.from = used_.until = subject_.moment.now;
            return truth(condition.window->contains(subject_.moment.now) != condition.outside);
        }
        TimeWindow::Answer& answer = (*times_)[condition.number];
        // The clock may be set back: an answer is only good while time goes forward from where it
        // was given.
        if (subject_.moment.now >= answer.until || subject_.moment.now < answer.from) {
            answer = condition.window->at(subject_.moment.now);
        }
        used_.from = std::max(used_.from, answer.from);
        used_.until = std::min(used_.until, answer.until);
        return truth(answer.inside != condition.outside);
    }

    Truth statement_condition(const Condition& condition) {
        const StatementFacts& facts = subject_.facts;
        switch (condition.kind) {
            case ConditionKind::command: return command(condition);
            case ConditionKind::statement_class: return classes(condition);
            case ConditionKind::relation: {
                Tally tally;
                for (const auto& relation : facts.read) tally.add(name(condition, relation));
                for (const auto& relation : facts.written) tally.add(name(condition, relation));
                return tally.result();
            }
            case ConditionKind::reads: {
                Tally tally;
                for (const auto& relation : facts.read) tally.add(name(condition, relation));
                return tally.result();
            }
            case ConditionKind::writes: {
                Tally tally;
                for (const auto& relation : facts.written) tally.add(name(condition, relation));
                return tally.result();
            }
            case ConditionKind::function: {
                Tally tally;
                for (const auto& function : facts.functions) {
                    tally.add(name(condition, RelationName{{}, function.schema, function.name}));
                }
                return tally.result();
            }
            case ConditionKind::setting: {
                Tally tally;
                for (const std::string& setting : facts.settings) {
                    const bool matches = any_matches(condition.globs, setting);
                    // Which one it is only the server knows.
                    tally.add(setting.empty() && !matches ? Truth::maybe : truth(matches));
                }
                return tally.result();
            }
            case ConditionKind::unbounded:
                return truth(harms(facts.unbounded) == condition.expected);
            case ConditionKind::destructive:
                return truth(harms(facts.destructive) == condition.expected);
            case ConditionKind::blocking: return truth(harms(facts.blocking) == condition.expected);
            case ConditionKind::dangerous: return truth(facts.dangerous.set == condition.expected);
            case ConditionKind::opaque: return truth(facts.opaque.set == condition.expected);
            case ConditionKind::runs_in_transaction:
                return truth(facts.runs_in_transaction == condition.expected);
            case ConditionKind::controls_transaction:
                return truth(facts.controls_transaction == condition.expected);
            default: return Truth::maybe;
        }
    }

    // What happens to tables that the session itself has made harms nobody else.
    bool harms(const Flag& flag) {
        const auto& own = subject_.moment.own_tables;
        if (!flag || own.empty()) return flag.set;
        used_.own_tables = true;
        return !harms_own_tables_only(subject_.facts, own);
    }

    // A SELECT inside of another command is only its source of rows: allowing the command allows
    // it.
    Truth command(const Condition& condition) {
        const StatementFacts& facts = subject_.facts;
        Tally tally;
        tally.add(truth(any_matches(condition.globs, facts.command)));
        for (std::size_t i = 0; i < facts.commands.size(); ++i) {
            const std::string& tag = facts.commands[i];
            if (tag == facts.command || short_for(tag, facts.command)) continue;
            const bool matches = any_matches(condition.globs, tag);
            if (matches || tag != "SELECT") tally.add(truth(matches));
        }
        return tally.result();
    }

    // The analyzer lists "TRUNCATE" beside the tag "TRUNCATE TABLE": another word for it, not
    // another command.
    static bool short_for(std::string_view word, std::string_view tag) {
        return tag.size() > word.size() && tag.starts_with(word) && tag[word.size()] == ' ';
    }

    // In the same way a write may read what it needs.
    Truth classes(const Condition& condition) {
        Tally tally;
        const auto& classes = subject_.facts.classes;
        for (const StatementClass c : classes) {
            const bool matches = condition.classes & (1U << static_cast<unsigned>(c));
            if (matches || c != StatementClass::read || classes.size() == 1)
                tally.add(truth(matches));
        }
        return tally.result();
    }

    Truth name(const Condition& condition, const RelationName& relation) {
        Truth result = Truth::no;
        for (const NamePattern& pattern : condition.names) {
            Truth t = pattern.matches(relation.catalog, relation.schema, relation.name, nullptr);
            if (t == Truth::maybe) {
                // What an unqualified name means depends on the search_path of the moment.
                used_.search_path = true;
                if (const auto* schemas = search_path()) {
                    t = pattern.matches(relation.catalog, relation.schema, relation.name, schemas);
                }
            }
            result = std::max(result, t);
            if (result == Truth::yes) break;
        }
        return result;
    }

    const std::vector<std::string>* search_path() {
        if (!subject_.moment.search_path) return nullptr;
        const auto& given = *subject_.moment.search_path;
        if (std::find(given.begin(), given.end(), "$user") == given.end()) return &given;
        if (resolved_path_.empty()) {
            resolved_path_ = given;
            std::replace(resolved_path_.begin(), resolved_path_.end(), std::string("$user"),
                         subject_.session.user);
        }
        return &resolved_path_;
    }

    const Subject& subject_;
    const SessionAnswers& session_answers_;
    TimeAnswers* times_;
    MomentUse used_;
    std::vector<std::string> resolved_path_;
};

std::string join(const std::vector<std::string>& items) {
    std::string out;
    for (const std::string& item : items) out += (out.empty() ? "" : ", ") + item;
    return out.empty() ? "none" : out;
}

std::string names(const std::vector<RelationName>& a, const std::vector<RelationName>& b = {}) {
    std::vector<std::string> out;
    for (const auto& name : a) out.push_back(relation_text(name));
    for (const auto& name : b) out.push_back(relation_text(name));
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return join(out);
}

std::string flag(const Flag& flag) {
    return flag ? "true" + (flag.reason.empty() ? "" : " (" + flag.reason + ")") : "false";
}

// What a condition looked at, as it is: "user is clerk".
std::string found(const Condition& condition, const Subject& subject) {
    const StatementFacts& facts = subject.facts;
    const bool unread = facts.unparsable &&
                        condition_type(condition.kind).depends_on == DependsOn::statement &&
                        condition.kind != ConditionKind::unparsable &&
                        condition.kind != ConditionKind::text;
    if (unread) return "not known: the statement could not be read";
    switch (condition.kind) {
        case ConditionKind::all:
        case ConditionKind::any:
        case ConditionKind::negation: return "";
        case ConditionKind::command:
            return join(facts.commands.empty() ? std::vector{facts.command} : facts.commands);
        case ConditionKind::statement_class: {
            std::vector<std::string> out;
            for (const auto c : facts.classes) out.emplace_back(class_name(c));
            return join(out);
        }
        case ConditionKind::relation: return names(facts.read, facts.written);
        case ConditionKind::reads: return names(facts.read);
        case ConditionKind::writes: return names(facts.written);
        case ConditionKind::function: {
            std::vector<RelationName> out;
            for (const auto& f : facts.functions) out.push_back({{}, f.schema, f.name});
            return names(out);
        }
        case ConditionKind::setting: {
            std::vector<std::string> out = facts.settings;
            std::replace(out.begin(), out.end(), std::string(), std::string("unknown"));
            return join(out);
        }
        case ConditionKind::unbounded: return flag(facts.unbounded);
        case ConditionKind::destructive: return flag(facts.destructive);
        case ConditionKind::dangerous: return flag(facts.dangerous);
        case ConditionKind::blocking: return flag(facts.blocking);
        case ConditionKind::opaque: return flag(facts.opaque);
        case ConditionKind::unparsable: return flag(facts.unparsable);
        case ConditionKind::runs_in_transaction:
            return facts.runs_in_transaction ? "true" : "false";
        case ConditionKind::controls_transaction:
            return facts.controls_transaction ? "true" : "false";
        case ConditionKind::user: return subject.session.user;
        case ConditionKind::database: return subject.session.database;
        case ConditionKind::client: return subject.session.client.text;
        case ConditionKind::application_name: return subject.session.application_name;
        case ConditionKind::tls: return subject.session.tls ? "true" : "false";
        case ConditionKind::replication: return subject.session.replication ? "true" : "false";
        case ConditionKind::in_transaction: return subject.moment.in_transaction ? "true" : "false";
        case ConditionKind::time: return condition.window->local_time(subject.moment.now);
        case ConditionKind::text: return "the statement's text";
    }
    return "";
}

// The innermost condition that keeps a rule from applying.
const Condition* obstacle(const Condition& condition, Evaluation& evaluation, Truth needed) {
    if (evaluation.evaluate(condition) >= needed) return nullptr;
    if (condition.kind == ConditionKind::all) {
        for (const Condition& child : condition.children) {
            if (const Condition* inner = obstacle(child, evaluation, needed)) return inner;
        }
    }
    return &condition;
}

std::string describe(const Condition& condition, const Subject& subject) {
    const std::string seen = found(condition, subject);
    if (!seen.empty()) return condition.summary() + "  [is " + seen + "]";
    std::string out = condition.summary();
    for (const Condition& child : condition.children) {
        const std::string inner = found(child, subject);
        if (!inner.empty()) {
            out += "  [" + std::string(condition_type(child.kind).key) + " is " + inner + "]";
        }
        for (const Condition& below : child.children) {
            const std::string deeper = found(below, subject);
            if (!deeper.empty())
                out += "  [" + std::string(condition_type(below.kind).key) + " is " + deeper + "]";
        }
    }
    return out;
}

}  // namespace

const RuleAction& Outcome::action(const Policy& policy) const {
    if (rule == by_default) return policy.by_default;
    if (rule == unparsable) return policy.unparsable;
    return policy.rules[static_cast<std::size_t>(rule)].action;
}

SessionAnswers answer_session_conditions(const Policy& policy, const SessionFacts& session) {
    SessionAnswers answers;
    answers.reserve(policy.session_conditions.size());
    for (const Condition* condition : policy.session_conditions) {
        answers.push_back(session_condition(*condition, session) == Truth::yes);
    }
    return answers;
}

Outcome evaluate(const Policy& policy, const Subject& subject,
                 const SessionAnswers& session_answers, TimeAnswers* times) {
    Evaluation evaluation(subject, session_answers, times);
    Outcome outcome;
    outcome.rule = subject.facts.unparsable ? Outcome::unparsable : Outcome::by_default;
    for (std::size_t i = 0; i < policy.rules.size(); ++i) {
        const Rule& rule = policy.rules[i];
        if (rule.observe && outcome.observed >= 0) continue;
        if (!evaluation.applies(rule)) continue;
        if (!rule.observe && rule.limits.statement && outcome.statement_limit < 0) {
            outcome.statement_limit = static_cast<int>(i);
        }
        if (!rule.observe && rule.limits.transaction && outcome.transaction_limit < 0) {
            outcome.transaction_limit = static_cast<int>(i);
        }
        if (!rule.decides) continue;
        if (!rule.observe) {
            outcome.rule = static_cast<int>(i);
            break;
        }
        if (rule.action.action != Action::allow || rule.audit)
            outcome.observed = static_cast<int>(i);
    }
    outcome.used = evaluation.used();
    return outcome;
}

std::vector<RuleTrace> explain(const Policy& policy, const Subject& subject) {
    const SessionAnswers session_answers = answer_session_conditions(policy, subject.session);
    std::vector<RuleTrace> traces;
    bool decided = false;
    for (const Rule& rule : policy.rules) {
        Evaluation evaluation(subject, session_answers, nullptr);
        RuleTrace trace;
        trace.rule = &rule;
        trace.reached = !decided;
        trace.applies = evaluation.applies(rule);
        if (trace.applies) {
            for (const Condition& child : rule.match.children) {
                trace.because += (trace.because.empty() ? "" : "; ") + describe(child, subject);
            }
            if (rule.match.children.empty()) trace.because = "it has no conditions";
            decided = decided || (rule.decides && !rule.observe);
        } else {
            const bool certain = rule.lets_through() || subject.facts.unparsable;
            const Condition* condition = obstacle(rule.match, evaluation,
                                                  certain ? Truth::yes : Truth::maybe);
            trace.because = describe(condition == nullptr ? rule.match : *condition, subject);
            if (condition != nullptr && evaluation.evaluate(*condition) == Truth::maybe &&
                !subject.facts.unparsable) {
                trace.because +=
                    " (of a part only, or not for certain; an allowing rule needs all of it)";
            }
        }
        traces.push_back(std::move(trace));
    }
    return traces;
}

}  // namespace pgchaperone::policy
