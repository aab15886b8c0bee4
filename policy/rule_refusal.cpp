#include "policy/rule_refusal.h"

#include <algorithm>
#include <optional>

namespace pgchaperone::policy {
namespace {

bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '$' || static_cast<unsigned char>(c) >= 0x80;
}

// Behind white space and comments, as PostgreSQL's scanner sees them (block comments nest).
std::string_view skip_blank(std::string_view sql) {
    std::size_t i = 0;
    while (i < sql.size()) {
        if (is_space(sql[i])) {
            ++i;
        } else if (sql.substr(i, 2) == "--") {
            while (i < sql.size() && sql[i] != '\n' && sql[i] != '\r') ++i;
        } else if (sql.substr(i, 2) == "/*") {
            int depth = 1;
            for (i += 2; i < sql.size() && depth > 0;) {
                if (sql.substr(i, 2) == "/*") {
                    ++depth;
                    i += 2;
                } else if (sql.substr(i, 2) == "*/") {
                    --depth;
                    i += 2;
                } else {
                    ++i;
                }
            }
        } else {
            break;
        }
    }
    return sql.substr(i);
}

std::string upper(std::string_view text) {
    std::string out(text);
    for (char& c : out) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    return out;
}

std::string first_word(std::string_view sql) {
    const auto rest = skip_blank(sql);
    const auto end = std::find_if_not(rest.begin(), rest.end(), is_word);
    return upper(rest.substr(0, static_cast<std::size_t>(end - rest.begin())));
}

// Bytes that form one UTF-8 character at the beginning of `text`; 0 where they don't.
std::size_t utf8_length(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char first = byte(0);
    if (first < 0x80) return 1;
    const std::size_t length = first >= 0xf0 && first <= 0xf4  ? 4
                               : first >= 0xe0                 ? 3
                               : first >= 0xc2 && first < 0xe0 ? 2
                                                               : 0;
    if (first > 0xf4 || length == 0 || text.size() < length) return 0;
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xc0U) != 0x80) return 0;
    }
    if ((first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) > 0x9f) ||
        (first == 0xf0 && byte(1) < 0x90) || (first == 0xf4 && byte(1) > 0x8f)) {
        return 0;
    }
    return length;
}

std::string identifier(std::string_view name) {
    const bool plain = !name.empty() && !(name.front() >= '0' && name.front() <= '9') &&
                       std::all_of(name.begin(), name.end(), [](char c) {
                           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' ||
                                  c == '$';
                       });
    if (plain) return std::string(name);
    std::string out = "\"";
    for (const char c : name) out += c == '"' ? "\"\"" : std::string(1, c);
    return out + "\"";
}

template <class Names, class Text>
std::string list(const Names& names, Text text) {
    constexpr std::size_t most = 5;
    std::vector<std::string> items;
    for (const auto& name : names) {
        std::string item = text(name);
        if (std::find(items.begin(), items.end(), item) == items.end())
            items.push_back(std::move(item));
    }
    std::string out;
    for (std::size_t i = 0; i < items.size() && i < most; ++i) {
        if (i > 0) out += i + 1 == items.size() ? " and " : ", ";
        out += items[i];
    }
    if (items.size() > most) out += " and " + std::to_string(items.size() - most) + " more";
    return out;
}

std::string relations(const std::vector<RelationName>& names) {
    return list(names, [](const RelationName& n) {
        if (n.is_every()) {
            return "every relation" +
                   (n.schema.empty() ? "" : " of schema " + identifier(n.schema));
        }
        return (n.catalog.empty() ? "" : identifier(n.catalog) + ".") +
               (n.schema.empty() ? "" : identifier(n.schema) + ".") + identifier(n.name);
    });
}

std::string functions(const std::vector<FunctionName>& names) {
    return list(names, [](const FunctionName& n) {
        return (n.schema.empty() ? "" : identifier(n.schema) + ".") + identifier(n.name) + "()";
    });
}

std::string settings(const std::vector<std::string>& names) {
    return list(names, [](const std::string& name) {
        return name.empty()    ? std::string("a setting that only the server knows")
               : name == "all" ? std::string("all settings")
                               : "the setting " + name;
    });
}

std::string targets(const StatementFacts& facts) {
    return relations(facts.written.empty() ? facts.read : facts.written);
}

// "UPDATE": what the message calls the statement.
std::string noun(const Subject& subject) {
    if (subject.facts.unparsable || subject.facts.command.empty()) return "statement";
    return subject.facts.command;
}

bool mentions(const Condition& condition, ConditionKind kind) {
    if (condition.kind == kind) return condition.expected;
    if (condition.kind == ConditionKind::negation) return false;
    return std::any_of(condition.children.begin(), condition.children.end(),
                       [&](const Condition& child) { return mentions(child, kind); });
}

const Condition* find(const Condition& condition, ConditionKind kind) {
    if (condition.kind == kind) return &condition;
    for (const Condition& child : condition.children) {
        if (const Condition* found = find(child, kind)) return found;
    }
    return nullptr;
}

std::string unbounded_reason(const StatementFacts& facts) {
    const std::string& why = facts.unbounded.reason;
    const std::string what = facts.written.empty() ? "every row of its target"
                                                   : "every row of " + targets(facts);
    if (why.empty()) return "nothing in it limits which rows it touches: it could reach " + what;
    const bool surely = why == "has no WHERE" || why == "is a TRUNCATE";
    return "it " + why + (surely ? " and would touch " : " and could touch ") + what;
}

// The facts that the rule asked for, in words; the first that says most.
std::string facts_reason(const Rule& rule, const Subject& subject) {
    const StatementFacts& facts = subject.facts;
    if (facts.unbounded && mentions(rule.match, ConditionKind::unbounded))
        return unbounded_reason(facts);
    if (facts.destructive && mentions(rule.match, ConditionKind::destructive)) {
        return "it " + (facts.destructive.reason.empty()
                            ? "would take away what can't be brought back"
                            : facts.destructive.reason);
    }
    if (facts.dangerous && mentions(rule.match, ConditionKind::dangerous)) {
        return "it " + (facts.dangerous.reason.empty() ? "reaches beyond the rows of tables"
                                                       : facts.dangerous.reason);
    }
    if (facts.blocking && mentions(rule.match, ConditionKind::blocking)) {
        return "it " + (facts.blocking.reason.empty() ? "makes others wait for whole tables"
                                                      : facts.blocking.reason);
    }
    if (facts.opaque && mentions(rule.match, ConditionKind::opaque)) {
        return "its text does not show what it does" +
               (facts.opaque.reason.empty() ? std::string() : " (" + facts.opaque.reason + ")");
    }
    if (const Condition* time = find(rule.match, ConditionKind::time)) {
        return "it may not run now: it is " + time->window->local_time(subject.moment.now) +
               ", and the rule holds " + (time->outside ? "outside " : "inside ") +
               time->window->text();
    }
    if (mentions(rule.match, ConditionKind::setting) && !facts.settings.empty()) {
        return "it changes the setting " + list(facts.settings, [](const std::string& setting) {
                   return setting.empty() ? std::string("that it names at run time") : setting;
               });
    }
    if (mentions(rule.match, ConditionKind::function) && !facts.functions.empty()) {
        return "it calls " + functions(facts.functions);
    }
    if (!facts.written.empty() && (mentions(rule.match, ConditionKind::writes) ||
                                   mentions(rule.match, ConditionKind::relation))) {
        return "it would change " + relations(facts.written);
    }
    if (!facts.read.empty() && (mentions(rule.match, ConditionKind::reads) ||
                                mentions(rule.match, ConditionKind::relation))) {
        return "it would read " + relations(facts.read);
    }
    if (facts.destructive && !facts.destructive.reason.empty())
        return "it " + facts.destructive.reason;
    if (facts.unbounded) return unbounded_reason(facts);
    const std::string on = targets(facts);
    switch (rule.action.action) {
        case Action::allow: return "the rule notes what it allows";
        case Action::supervise: return "what it does is counted before it may commit";
        case Action::block:
        case Action::hold:
        case Action::answer: break;
    }
    if (rule.match.children.empty()) return "nothing before this rule allows it";
    return "this command is not allowed here" + (on.empty() ? "" : " (on " + on + ")");
}

// What the rule has against the statement, in a few words that follow on it: "without a WHERE". The
// reason in full is the detail's.
std::string complaint(const Rule& rule, const Subject& subject) {
    const StatementFacts& facts = subject.facts;
    const auto asks_for = [&](ConditionKind kind) { return mentions(rule.match, kind); };
    if (facts.unbounded && asks_for(ConditionKind::unbounded)) {
        if (facts.unbounded.reason == "has no WHERE") return " without a WHERE";
        if (facts.command == "UPDATE" || facts.command == "DELETE")
            return " without a WHERE that bounds it";
        return " that can reach every row";
    }
    if (facts.destructive && asks_for(ConditionKind::destructive))
        return " that takes away what can't be brought back";
    if (facts.dangerous && asks_for(ConditionKind::dangerous))
        return " that reaches beyond the rows of tables";
    if (facts.blocking && asks_for(ConditionKind::blocking)) return " that locks others out";
    if (facts.opaque && asks_for(ConditionKind::opaque))
        return " that does what its text does not show";
    if (find(rule.match, ConditionKind::time) != nullptr) return " at this time";
    if (!facts.settings.empty() && asks_for(ConditionKind::setting))
        return " of " + settings(facts.settings);
    if (!facts.functions.empty() && asks_for(ConditionKind::function))
        return " that calls " + functions(facts.functions);
    return {};
}

std::string unparsable_reason(const StatementFacts& facts) {
    return "it can't be read the way the server would read it" +
           (facts.unparsable.reason.empty() ? std::string() : " (" + facts.unparsable.reason + ")");
}

const Rule* rule_of(const Policy& policy, const Outcome& outcome) {
    return outcome.rule >= 0 ? &policy.rules[static_cast<std::size_t>(outcome.rule)] : nullptr;
}

std::string plain_reason(const Rule* rule, const Subject& subject) {
    if (subject.facts.unparsable) return unparsable_reason(subject.facts);
    if (rule != nullptr) return facts_reason(*rule, subject);
    return "no rule of the policy allows it";
}

std::string expand(std::string_view text, const Rule& rule, const Subject& subject) {
    std::string out;
    while (!text.empty()) {
        const auto open = text.find('{');
        out += text.substr(0, open);
        if (open == std::string_view::npos) break;
        const auto close = text.find('}', open);
        if (close == std::string_view::npos) {
            out += text.substr(open);
            break;
        }
        const auto key = text.substr(open + 1, close - open - 1);
        if (key == "command")
            out += noun(subject);
        else if (key == "relations")
            out += targets(subject.facts);
        else if (key == "functions")
            out += functions(subject.facts.functions);
        else if (key == "reason")
            out += plain_reason(&rule, subject);
        else if (key == "statement")
            out += first_words(subject.text);
        else if (key == "user")
            out += subject.session.user;
        else if (key == "database")
            out += subject.session.database;
        else if (key == "client")
            out += subject.session.client.text;
        else if (key == "rule")
            out += rule.name;
        else
            out += text.substr(open, close - open + 1);
        text.remove_prefix(close + 1);
    }
    return out;
}

std::string default_hint(const Rule* rule, const Subject& subject) {
    const StatementFacts& facts = subject.facts;
    if (facts.unparsable) {
        return "Look for a typing error, or for text cut off in the middle. If the server does "
               "understand it, ask "
               "whoever runs pgchaperone to look at the policy (`unparsable`).";
    }
    if (rule != nullptr && facts.unbounded && mentions(rule->match, ConditionKind::unbounded)) {
        return "Add a WHERE that says which rows you mean, compared with something outside the "
               "row, and run it again.";
    }
    if (rule != nullptr && facts.blocking && mentions(rule->match, ConditionKind::blocking)) {
        return "Use the form that lets others go on (such as CREATE INDEX CONCURRENTLY), or run it "
               "when nobody is "
               "working.";
    }
    if (rule != nullptr && find(rule->match, ConditionKind::time) != nullptr) {
        return "Run it again at another time, or ask whoever runs pgchaperone for an exception.";
    }
    return "If this must be done, ask whoever runs pgchaperone, or do it in the way that your team "
           "has agreed on.";
}

// Whether a name without schema, which any table may have, is all that stands against it.
bool could_be_temporary(const StatementFacts& facts) {
    return facts.destructive && !facts.dangerous &&
           (facts.command == "DROP TABLE" || facts.command == "TRUNCATE TABLE") &&
           facts.written.size() == 1 && facts.written.front().schema.empty();
}

// As much of the statement as a person needs to know which one it was.
constexpr std::size_t statement_shown = 120;

std::string as_sentence(std::string words) {
    if (!words.empty() && words.front() >= 'a' && words.front() <= 'z') {
        words.front() = static_cast<char>(words.front() - 'a' + 'A');
    }
    return words + ".";
}

}  // namespace

std::string first_words(std::string_view sql, std::size_t limit) {
    std::string out;
    bool space = false, cut = false;
    sql = skip_blank(sql);
    while (!sql.empty()) {
        const char c = sql.front();
        if (is_space(c)) {
            space = true;
            sql.remove_prefix(1);
            continue;
        }
        const std::size_t length = utf8_length(sql);
        const std::string piece = length == 0 || static_cast<unsigned char>(c) < 0x20 || c == 0x7f
                                      ? std::string("?")
                                      : std::string(sql.substr(0, length));
        if (out.size() + piece.size() + (space && !out.empty() ? 1 : 0) > limit) {
            cut = true;
            break;
        }
        if (space && !out.empty()) out += ' ';
        space = false;
        out += piece;
        sql.remove_prefix(std::max<std::size_t>(length, 1));
    }
    if (!cut) return out;
    const auto last = out.find_last_of(' ');
    if (!space && last != std::string::npos && last > limit / 2) out.resize(last);
    return out + " ...";
}

std::string reason(const Policy& policy, const Outcome& outcome, const Subject& subject) {
    const int number = outcome.rule >= 0 ? outcome.rule : outcome.observed;
    const Rule* rule = number >= 0 ? &policy.rules[static_cast<std::size_t>(number)] : nullptr;
    if (rule != nullptr && !rule->message.empty()) return expand(rule->message, *rule, subject);
    return plain_reason(rule, subject);
}

Refusal refusal(const Policy& policy, const Outcome& outcome, const Subject& subject,
                Position position) {
    const Rule* rule = rule_of(policy, outcome);
    Refusal result;
    const std::string who = rule != nullptr            ? "rule \"" + rule->name + "\""
                            : subject.facts.unparsable ? "the policy's `unparsable: block`"
                                                       : "the policy's default";
    const bool own_words = rule != nullptr && !rule->message.empty();
    result.message = "pgchaperone: blocked by " + who + ": ";
    if (own_words) {
        result.message += expand(rule->message, *rule, subject);
    } else if (subject.facts.unparsable) {
        result.message += "a statement that can't be read the way the server would read it";
    } else {
        const std::string on = targets(subject.facts);
        result.message += noun(subject) + (on.empty() ? "" : " on " + on) +
                          (rule != nullptr ? complaint(*rule, subject) : "");
    }
    result.reason = reason(policy, outcome, subject);
    result.detail = "Statement" +
                    (position.count > 1 ? " " + std::to_string(position.number) + " of " +
                                              std::to_string(position.count)
                                        : "") +
                    ": " + first_words(subject.text, statement_shown) + "\n" +
                    as_sentence(plain_reason(rule, subject));
    result.hint = hint(policy, outcome, subject) + " Nothing was changed.";
    return result;
}

std::string hint(const Policy& policy, const Outcome& outcome, const Subject& subject) {
    const Rule* rule = rule_of(policy, outcome);
    const bool own_words = rule != nullptr && !rule->hint.empty();
    std::string text = own_words ? expand(rule->hint, *rule, subject) : default_hint(rule, subject);
    const bool of_an_operator = own_words && rule->origin.empty();
    if (!of_an_operator && could_be_temporary(subject.facts)) {
        text += " (If it is a temporary table of your own: pg_temp." +
                identifier(subject.facts.written.front().name) + " can only be that.)";
    }
    return text;
}

void say_that_nobody_can_be_asked(Refusal& refusal) {
    refusal.message += " (a second person would have to approve it)";
    refusal.detail +=
        "\nThe policy says that this statement is held until a second person approves; nobody can "
        "be "
        "asked here, so it is refused.";
}

bool begins_like_a_cut_off_tail(std::string_view sql) noexcept {
    const auto rest = skip_blank(sql);
    const auto starts = [&](std::string_view word) {
        if (rest.size() < word.size() || (rest.size() > word.size() && is_word(rest[word.size()])))
            return false;
        for (std::size_t i = 0; i < word.size(); ++i) {
            if ((rest[i] & ~0x20) != word[i]) return false;
        }
        return true;
    };
    return starts("WHERE") || starts("AND") || starts("OR");
}

Refusal cut_off_refusal(std::string_view tail, std::string_view refused_command,
                        std::string_view rule) {
    Refusal result;
    const std::string word = first_word(tail);
    const std::string command(refused_command.empty() ? "statement" : refused_command);
    result.message = "pgchaperone: this looks like the rest of the " + command +
                     " that was stopped just before; your client cut the statement in two before " +
                     word;
    result.detail = "The " + command + " arrived without its condition" +
                    (rule.empty() ? std::string()
                                  : " and was stopped by rule \"" + std::string(rule) + "\"") +
                    "; then this arrived as a statement of its own: " + first_words(tail);
    result.hint = "Nothing was changed. Look for a blank line or a semicolon before " + word +
                  " (some clients end a statement at a blank line), select the whole statement and "
                  "run it again.";
    return result;
}

}  // namespace pgchaperone::policy
