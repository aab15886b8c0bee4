#include "policy/engine.h"

#include "policy/own_tables.h"

#include "policy/analyzer.h"
#include "policy/rule_book.h"
#include "policy/rule_match.h"
#include "policy/rule_refusal.h"
#include "policy/run_by_name.h"
#include "policy/secrets.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <list>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace pgchaperone::policy {
namespace {

// Sessions for which a policy's session conditions come out alike share their answers, and so their
// decisions: a profile. Profiles are numbered in the order of their appearance.
using ProfileNumber = std::uint32_t;

// What is remembered of a text's judgement for one profile, with what of the moment it holds for.
struct Remembered {
    ProfileNumber profile;
    bool plain;                     // allowed at any moment, without a record
    std::vector<Outcome> outcomes;  // one per statement, unless plain
    MomentUse used;                 // by any of them
    bool in_transaction = false;
    std::optional<std::vector<std::string>> search_path;  // where it was used

    bool holds_for(const Moment& moment) const {
        return (!used.transaction || moment.in_transaction == in_transaction) &&
               (!used.search_path || moment.search_path == search_path) &&
               (!used.time || (moment.now >= used.from && moment.now < used.until));
    }
};

struct Key {
    std::string_view text;  // points into the entry or its analysis
    const LexicalSettings* lexical;
    bool replication;
    bool operator==(const Key& other) const {
        return text == other.text && replication == other.replication && *lexical == *other.lexical;
    }
};
// Only the engine's own thread counts, so it costs no more than with a plain number.
void add_one(std::atomic<std::uint64_t>& count) {
    count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

struct KeyHash {
    std::size_t operator()(const Key& key) const noexcept {
        return std::hash<std::string_view>()(key.text);
    }
};

struct Entry {
    std::string own_text;  // only where the analysis does not hold the same
    LexicalSettings lexical;
    bool replication = false;
    bool by_text = true;  // found by its text; else by its analysis alone
    AnalysisPtr analysis;
    std::size_t bytes = 0;
    std::vector<Remembered> remembered;  // of the edition in force

    Key key() const {
        return {own_text.empty() ? analysis->text : own_text, &lexical, replication};
    }
};

std::size_t estimate(const Analysis& analysis) {
    std::size_t bytes = sizeof(Entry) + sizeof(Analysis) + analysis.text.capacity() + 256;
    bytes += analysis.secrets.spans.capacity() * sizeof(Secrets::Span);
    for (const StatementFacts& facts : analysis.statements) {
        bytes += sizeof(StatementFacts);
        for (const auto& command : facts.commands)
            bytes += sizeof(std::string) + command.capacity();
        bytes += facts.classes.capacity();
        for (const auto* names :
             {&facts.prepares, &facts.declares, &facts.executes, &facts.fetches})
            bytes += names->capacity() * (sizeof(std::string) + 64);
        bytes += (facts.read.capacity() + facts.written.capacity()) * (sizeof(RelationName) + 32);
        bytes += facts.functions.capacity() * (sizeof(FunctionName) + 32);
        for (const Flag* flag : {&facts.unbounded, &facts.opaque, &facts.unparsable,
                                 &facts.destructive, &facts.dangerous, &facts.blocking}) {
            bytes += flag->reason.capacity();
        }
        if (!facts.chaperone) continue;
        bytes += sizeof(ChaperoneCall) + facts.chaperone->problem.capacity();
        for (const auto& argument : facts.chaperone->arguments) {
            bytes += sizeof(argument) + (argument.text ? argument.text->capacity() : 0);
        }
    }
    return bytes;
}

// The texts that were seen of late, by their hashes: most of those that come once never come again,
// and would push out of the cache what does. One that is mistaken for another is only cached early.
class Sightings {
public:
    // True where the text was here before and nothing took its place.
    bool again(std::string_view text) {
        const std::uint64_t hash = std::hash<std::string_view>()(text);
        std::uint64_t& seen = seen_[hash % seen_.size()];
        return std::exchange(seen, hash) == hash;
    }

private:
    std::array<std::uint64_t, 4096> seen_{};
};

// Large-object functions that libpq's lo_... calls reach by the fast path. Their object ids are
// fixed: they are part of PostgreSQL's initial catalogue (src/include/catalog/pg_proc.dat).
struct LargeObjectFunction {
    std::uint32_t oid;
    const char* name;
    StatementClass statement_class;
};
constexpr std::array large_object_functions = {
    LargeObjectFunction{952, "lo_open", StatementClass::read},
    LargeObjectFunction{953, "lo_close", StatementClass::read},
    LargeObjectFunction{954, "loread", StatementClass::read},
    LargeObjectFunction{955, "lowrite", StatementClass::write},
    LargeObjectFunction{956, "lo_lseek", StatementClass::read},
    LargeObjectFunction{957, "lo_creat", StatementClass::write},
    LargeObjectFunction{958, "lo_tell", StatementClass::read},
    LargeObjectFunction{964, "lo_unlink", StatementClass::write},
    LargeObjectFunction{715, "lo_create", StatementClass::write},
    LargeObjectFunction{1004, "lo_truncate", StatementClass::write},
    LargeObjectFunction{3170, "lo_lseek64", StatementClass::read},
    LargeObjectFunction{3171, "lo_tell64", StatementClass::read},
    LargeObjectFunction{3172, "lo_truncate64", StatementClass::write},
};

AnalysisPtr facts_of_function_call(std::uint32_t oid) {
    auto analysis = std::make_shared<Analysis>();
    StatementFacts facts;
    facts.command = "FUNCTION CALL";
    facts.commands = {facts.command};
    for (const LargeObjectFunction& function : large_object_functions) {
        if (function.oid != oid) continue;
        facts.classes = {function.statement_class};
        facts.functions = {{"pg_catalog", function.name}};
    }
    if (facts.functions.empty()) {
        facts.classes = {StatementClass::function};
        facts.opaque = {true,
                        "a fast-path call of the function with object id " + std::to_string(oid)};
        facts.may_change_lexical_settings = true;
    }
    analysis->text = "function call " +
                     (facts.functions.empty() ? std::to_string(oid) : facts.functions.front().name);
    facts.length = static_cast<std::uint32_t>(analysis->text.size());
    analysis->statements.push_back(std::move(facts));
    return analysis;
}

AnalysisPtr facts_of_unknown_statement() {
    auto analysis = std::make_shared<Analysis>();
    analysis->statements.push_back(unknown_statement());
    return analysis;
}

AnalysisPtr facts_of_oversized(std::size_t text_bytes) {
    auto analysis = std::make_shared<Analysis>();
    StatementFacts facts;
    facts.unparsable = {
        true, "its " + std::to_string(text_bytes) + " bytes are more than is read of a statement"};
    facts.may_change_lexical_settings = true;
    analysis->statements.push_back(std::move(facts));
    return analysis;
}

AnalysisPtr unreadable(std::string_view sql) {
    auto analysis = std::make_shared<Analysis>();
    StatementFacts facts;
    facts.length = static_cast<std::uint32_t>(sql.size());
    facts.unparsable = {true, "there was no memory to read it"};
    analysis->statements.push_back(std::move(facts));
    return analysis;
}

}  // namespace

struct Engine::Impl {
    Impl(std::shared_ptr<const RuleBook> book, Capabilities can)
        : rules(std::move(book)), capabilities(can), edition(rules->current()) {
        new_edition();
    }

    // --- the edition in force ---

    void follow_edition() {
        if (rules->version() == edition->version) return;
        edition = rules->current();
        new_edition();
    }

    void new_edition() {
        for (auto& entry : entries) entry.remembered.clear();
        profiles.clear();
        profile_numbers.clear();
        known_sessions.fill({});
        times.assign(edition->policy.time_conditions.size(), {});
    }

    // --- profiles ---

    struct KnownSession {
        std::uint64_t id = 0;
        std::uint32_t revision = 0;
        ProfileNumber profile = 0;
    };

    ProfileNumber profile_of(const SessionFacts& session) {
        KnownSession& known = known_sessions[session.id % known_sessions.size()];
        if (session.id != 0 && known.id == session.id && known.revision == session.revision)
            return known.profile;
        // Bounded: there are only as many profiles as the policy's conditions can tell apart, but
        // those may be many; then all is forgotten.
        if (profiles.size() >= 4096) new_edition();
        auto answers = answer_session_conditions(edition->policy, session);
        auto [at, added] = profile_numbers.try_emplace(answers,
                                                       static_cast<ProfileNumber>(profiles.size()));
        if (added) profiles.push_back(std::move(answers));
        known = {session.id, session.revision, at->second};
        return at->second;
    }

    // --- the cache of texts: least recently used first out ---

    Entry* find(std::string_view sql, const LexicalSettings& lexical, bool replication) {
        const auto at = index.find(Key{sql, &lexical, replication});
        if (at == index.end()) return nullptr;
        if (at->second != entries.begin()) entries.splice(entries.begin(), entries, at->second);
        return &*at->second;
    }

    Entry* remember(std::string_view sql, const LexicalSettings& lexical, bool replication,
                    AnalysisPtr analysis) {
        const std::size_t bytes = estimate(*analysis) + (analysis->text == sql ? 0 : sql.size());
        if (sql.size() > cached_text_bytes || bytes > cache_bytes / 8) return nullptr;
        while (!entries.empty() && bytes_used + bytes > cache_bytes) forget_oldest();
        const bool same = analysis->text == sql;
        Entry& entry = add({same ? "" : std::string(sql),
                            lexical,
                            replication,
                            true,
                            std::move(analysis),
                            bytes,
                            {}});
        index.emplace(entry.key(), entries.begin());
        return &entry;
    }

    // The entry of an analysis that somebody keeps to run it more than once.
    Entry* remember(const AnalysisPtr& analysis) {
        const std::size_t bytes = estimate(*analysis);
        if (analysis->text.size() > cached_text_bytes || bytes > cache_bytes / 8) return nullptr;
        while (!entries.empty() && bytes_used + bytes > cache_bytes) forget_oldest();
        return &add({{}, {}, false, false, analysis, bytes, {}});
    }

    Entry& add(Entry entry) {
        bytes_used += entry.bytes;
        entries.push_front(std::move(entry));
        by_analysis.emplace(entries.front().analysis.get(), entries.begin());
        return entries.front();
    }

    void forget_oldest() {
        const Entry& entry = entries.back();
        if (entry.by_text) index.erase(entry.key());
        by_analysis.erase(entry.analysis.get());
        bytes_used -= entry.bytes;
        entries.pop_back();
    }

    // --- judging ---

    Judgement judge(std::string_view sql, const LexicalSettings& lexical,
                    const SessionFacts& session, const Moment& moment) {
        Entry* entry = find(sql, lexical, session.replication);
        add_one(entry != nullptr ? hits : misses);
        if (entry == nullptr) {
            AnalysisPtr analysis = analyzer.analyze(sql, lexical, session.replication);
            if (sightings.again(sql)) entry = remember(sql, lexical, session.replication, analysis);
            if (entry == nullptr) return decide(analysis, session, moment, nullptr);
        }
        return decide(entry->analysis, session, moment, entry);
    }

    Judgement judge_again(const AnalysisPtr& analysis, const SessionFacts& session,
                          const Moment& moment) {
        const auto at = by_analysis.find(analysis.get());
        return decide(analysis, session, moment,
                      at == by_analysis.end() ? remember(analysis) : &*at->second);
    }

    Judgement decide(const AnalysisPtr& analysis, const SessionFacts& session, const Moment& moment,
                     Entry* entry) {
        const ProfileNumber profile = profile_of(session);
        // Tables of the session's own change what harms whom.
        const bool ordinary = moment.own_tables.empty() && moment.name_doubts.none();
        if (entry != nullptr) {
            for (const Remembered& remembered : entry->remembered) {
                if (remembered.profile != profile) continue;
                if (remembered.plain) return {analysis, edition->version, {}};
                if (!ordinary) break;
                if (!remembered.holds_for(moment)) continue;
                return put_into_words(analysis, remembered.outcomes, session, moment);
            }
        }
        std::vector<Outcome> outcomes;
        outcomes.reserve(analysis->statements.size());
        bool plain = true;
        MomentUse used;
        std::optional<Moments> moments;
        if (analysis->statements.size() > 1) moments.emplace(moment);
        for (const StatementFacts& facts : analysis->statements) {
            const Moment& now = moments ? moments->now() : moment;
            const Subject subject{facts, text_of(*analysis, facts), session, now};
            outcomes.push_back(evaluate(edition->policy, subject, profiles[profile], &times));
            if (moments) moments->ran(facts);
            plain = plain && is_plain(outcomes.back()) && !facts.chaperone;
            used = joined(used, outcomes.back().used);
        }
        if (ordinary && entry != nullptr) {
            remember(*entry,
                     {profile, plain, plain ? std::vector<Outcome>() : outcomes, used,
                      moment.in_transaction, used.search_path ? moment.search_path : std::nullopt});
        }
        if (plain) return {analysis, edition->version, {}};
        return put_into_words(analysis, outcomes, session, moment);
    }

    static void remember(Entry& entry, Remembered news) {
        // What has run out makes room first.
        std::erase_if(entry.remembered, [&](const Remembered& old) {
            return old.profile == news.profile && old.used.time && news.used.from >= old.used.until;
        });
        if (entry.remembered.size() >= 64) entry.remembered.clear();
        entry.remembered.push_back(std::move(news));
    }

    static MomentUse joined(const MomentUse& a, const MomentUse& b) {
        return {a.transaction || b.transaction, a.search_path || b.search_path,
                a.own_tables || b.own_tables,   a.time || b.time,
                std::max(a.from, b.from),       std::min(a.until, b.until)};
    }

    bool is_plain(const Outcome& outcome) const {
        const bool audited = outcome.rule >= 0 &&
                             edition->policy.rules[static_cast<std::size_t>(outcome.rule)].audit;
        return outcome.action(edition->policy).action == Action::allow && !audited &&
               outcome.observed < 0 && !outcome.depends_on_moment() && !statement_limit(outcome) &&
               !transaction_limit(outcome);
    }

    // Who only observes stops nothing.
    TimeLimit limit(int rule, std::optional<std::chrono::milliseconds> TimeLimits::*which) const {
        if (rule < 0 || edition->policy.observe) return {};
        const Rule& by = edition->policy.rules[static_cast<std::size_t>(rule)];
        return {*(by.limits.*which), by.name};
    }
    TimeLimit statement_limit(const Outcome& outcome) const {
        return limit(outcome.statement_limit, &TimeLimits::statement);
    }
    TimeLimit transaction_limit(const Outcome& outcome) const {
        return limit(outcome.transaction_limit, &TimeLimits::transaction);
    }

    Judgement put_into_words(const AnalysisPtr& analysis, const std::vector<Outcome>& outcomes,
                             const SessionFacts& session, const Moment& moment) const {
        Judgement judgement{analysis, edition->version, {}};
        judgement.decisions.reserve(outcomes.size());
        for (std::size_t i = 0; i < outcomes.size(); ++i) {
            const StatementFacts& facts = analysis->statements[i];
            // What is said of it is read by people.
            Shown masked;
            std::string_view text = text_of(*analysis, facts);
            if (!analysis->secrets.spans.empty()) text = (masked = shown(*analysis, facts)).text;
            const Subject subject{facts, text, session, moment};
            judgement.decisions.push_back(
                facts.chaperone ? answer()
                                : decision(outcomes[i], subject, {i + 1, outcomes.size()}));
        }
        return judgement;
    }

    // No rule is asked of what the server never sees; who may what is said where it is answered.
    static Decision answer() {
        Decision result;
        result.action = Action::answer;
        return result;
    }

    Decision decision(const Outcome& outcome, const Subject& subject, Position position) const {
        const Policy& policy = edition->policy;
        const RuleAction* action = &outcome.action(policy);
        Decision result;
        result.depends_on_moment = outcome.depends_on_moment();
        const Rule* rule = outcome.rule >= 0 ? &policy.rules[static_cast<std::size_t>(outcome.rule)]
                                             : nullptr;
        Outcome told = outcome;
        if (action->action == Action::allow && outcome.observed >= 0) {
            rule = &policy.rules[static_cast<std::size_t>(outcome.observed)];
            action = &rule->action;
            told.rule = outcome.observed;
            result.observed = true;
        }
        if (policy.observe && action->action != Action::allow) result.observed = true;
        result.action = action->action;
        if (rule != nullptr) result.rule = rule->name;
        result.audit = rule != nullptr && rule->audit;
        if (rule != nullptr) result.audit_detail = rule->audit_detail;
        result.supervise = action->supervise;
        result.hold = action->hold;
        result.statement_timeout = statement_limit(outcome);
        result.transaction_timeout = transaction_limit(outcome);
        if (result.action == Action::block || result.action == Action::hold) {
            result.refusal = refusal(policy, told, subject, position);
        } else if (result.action == Action::supervise || result.observed || result.audit) {
            result.refusal.message = reason(policy, told, subject);
        }
        apply_capabilities(result);
        return result;
    }

    // The one place where what the host can't do is made into what it can.
    void apply_capabilities(Decision& decision) const {
        if (decision.observed) return;
        if (decision.action == Action::supervise && !capabilities.supervise) {
            decision.action = Action::allow;
            decision.audit = true;
        }
        if (decision.action == Action::hold && !capabilities.hold) {
            decision.action = Action::block;
            say_that_nobody_can_be_asked(decision.refusal);
        }
    }

    static std::string_view text_of(const Analysis& analysis, const StatementFacts& facts) {
        const std::string_view text = analysis.text;
        if (facts.location > text.size()) return text;
        return text.substr(facts.location, facts.length);
    }

    // A bug of ours or no memory: nothing gets through.
    template <class Work>
    Judgement guarded(std::string_view sql, Work work) {
        try {
            follow_edition();
            return work();
        } catch (const std::exception& e) {
            return refuse_all(sql, e.what());
        }
    }

    Judgement refuse_all(std::string_view sql, std::string_view why) const {
        Judgement judgement;
        judgement.analysis = unreadable(sql);
        judgement.policy_version = edition->version;
        Decision decision;
        decision.action = Action::block;
        decision.refusal
            .message = "pgchaperone: this statement could not be judged, so it is refused";
        decision.refusal.detail = std::string(why);
        decision.refusal
            .hint = "This is a defect of pgchaperone or a lack of memory: tell whoever runs it.";
        judgement.decisions.push_back(std::move(decision));
        return judgement;
    }

    std::shared_ptr<const RuleBook> rules;
    Capabilities capabilities;
    std::shared_ptr<const RuleBook::Edition> edition;
    Analyzer analyzer;

    std::list<Entry> entries;
    std::unordered_map<Key, std::list<Entry>::iterator, KeyHash> index;
    std::unordered_map<const Analysis*, std::list<Entry>::iterator> by_analysis;
    std::size_t bytes_used = 0;
    Sightings sightings;
    std::atomic<std::uint64_t> hits{0}, misses{0};

    std::vector<SessionAnswers> profiles;
    std::unordered_map<SessionAnswers, ProfileNumber> profile_numbers;
    std::array<KnownSession, 1024> known_sessions{};
    TimeAnswers times;
};

Engine::Engine(std::shared_ptr<const RuleBook> rules, Capabilities capabilities)
    : impl_(std::make_unique<Impl>(std::move(rules), capabilities)) {}

Engine::~Engine() = default;

Judgement Engine::judge(std::string_view sql, const LexicalSettings& lexical,
                        const SessionFacts& session, const Moment& moment) noexcept {
    return impl_->guarded(sql, [&] { return impl_->judge(sql, lexical, session, moment); });
}

Judgement Engine::judge_again(const AnalysisPtr& analysis, const SessionFacts& session,
                              const Moment& moment) noexcept {
    return impl_->guarded({}, [&] { return impl_->judge_again(analysis, session, moment); });
}

Judgement Engine::judge_once(const AnalysisPtr& analysis, const SessionFacts& session,
                             const Moment& moment) noexcept {
    return impl_->guarded({}, [&] { return impl_->decide(analysis, session, moment, nullptr); });
}

Judgement Engine::judge_function_call(std::uint32_t function_oid, const SessionFacts& session,
                                      const Moment& moment) noexcept {
    return impl_->guarded({}, [&] {
        return impl_->decide(facts_of_function_call(function_oid), session, moment, nullptr);
    });
}

Judgement Engine::judge_unknown_statement(const SessionFacts& session,
                                          const Moment& moment) noexcept {
    return impl_->guarded(
        {}, [&] { return impl_->decide(facts_of_unknown_statement(), session, moment, nullptr); });
}

Judgement Engine::judge_oversized(std::size_t text_bytes, const SessionFacts& session,
                                  const Moment& moment) noexcept {
    return impl_->guarded({}, [&] {
        return impl_->decide(facts_of_oversized(text_bytes), session, moment, nullptr);
    });
}

Engine::CacheSize Engine::cache_size() const noexcept {
    return {impl_->entries.size(), impl_->bytes_used};
}

Engine::CacheUse Engine::cache_use() const noexcept {
    return {impl_->hits.load(std::memory_order_relaxed),
            impl_->misses.load(std::memory_order_relaxed)};
}

std::uint64_t Engine::policy_version() const noexcept { return impl_->rules->version(); }

}  // namespace pgchaperone::policy
