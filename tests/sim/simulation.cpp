#include "sim/simulation.h"

#include "protocol/codec.h"
#include "protocol/dumper.h"
#include "protocol/head.h"
#include "proxy/session/session.h"
#include "proxy/session/supervise_sql.h"
#include "sim/dialogue.h"
#include "sim/injected.h"
#include "sim/model_client.h"
#include "sim/model_server.h"
#include "sim/model_store.h"
#include "support/random.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <variant>

namespace pgchaperone::sim {

namespace {

using test::Random;

// What the host lets wait for a socket before it stops reading the other side.
constexpr std::size_t pending_bytes_max = 8 * 1024;
constexpr std::uint64_t steps_max = 1'500'000;

std::optional<std::size_t> message_size(std::string_view bytes) {
    const auto head = protocol::read_head(bytes, protocol::Side::backend);
    if (head.has_error() || bytes.size() < head->total()) return std::nullopt;
    return head->total();
}

// What the client sent. A ticket shows behind it what it runs by name, after an empty line, of
// which no script has one.
std::string sent(const approval::Request& request) {
    return request.statement.substr(0, request.statement.find("\n\n"));
}

bool is_refusal(const std::string& message) {
    return message[0] == 'E' && field_of(message, 'M').starts_with("pgchaperone");
}

// The last lines of what happened, and a number that stands for all of it.
class Trace {
public:
    explicit Trace(std::size_t lines) : lines_max_(lines) {}
    bool on() const { return lines_max_ > 0; }
    void line(std::string text) {
        if (!on()) return;
        lines_.push_back(std::move(text));
        if (lines_.size() > lines_max_) lines_.pop_front();
    }
    void mix(std::uint64_t what, std::string_view bytes = {}) {
        digest_ = (digest_ ^ what) * 0x100000001B3U;
        for (const char c : bytes) {
            digest_ = (digest_ ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
        }
    }
    std::uint64_t digest() const { return digest_; }
    std::vector<std::string> take() { return {lines_.begin(), lines_.end()}; }

private:
    std::size_t lines_max_;
    std::deque<std::string> lines_;
    std::uint64_t digest_ = 0xCBF29CE484222325U;
};

// Shows a stream of bytes as messages, in the trace.
class Tap {
public:
    Tap(Trace& trace, protocol::Side from, std::string label)
        : on_(trace.on()),
          dumper_(from, [&trace, label = std::move(label)](std::uint64_t, std::string_view line) {
              trace.line(label + std::string(line));
          }) {}
    void feed(std::string_view bytes) {
        if (on_) dumper_.feed(bytes);
    }

private:
    bool on_;
    protocol::StreamDumper dumper_;
};

// A question to the policy that is not answered yet.
struct Question {
    session::Judge judge;
    std::string sql;
    std::vector<policy::RelationName> own_tables;
    policy::NameDoubts name_doubts;
    std::optional<std::vector<std::string>> search_path;
};

class World;

// A connection through the guard: the core, and its host in place of Connection. The client's end
// is the World's business for the session, and a single packet for a cancel request.
class Link {
public:
    Link(World& world, std::uint64_t id, bool is_cancel);

    session::Session core;
    std::unique_ptr<ModelServer> server;
    std::string from_client;  // not read by the guard yet (a cancel's packet)
    std::string to_client;    // not sent by the guard yet
    std::string to_server;
    std::optional<Question> question;
    bool records_wait = false;
    bool is_cancel;
    bool connect_wanted = false;
    bool shutdown_server = false;  // once all is sent
    bool server_told_end = false;
    bool client_told_end = false;
    bool server_end_told = false;
    bool closing = false;
    std::map<session::DeadlineKind, std::chrono::system_clock::time_point> deadlines;
    // What the store, and those who decide, have said and the guard has not heard yet.
    std::deque<std::variant<session::TicketClaimed, session::TicketOpened, session::TicketDecided>>
        answers;
    std::set<std::string> watched;  // tickets
    std::string cancel_key;
    // A cancel that the core has asked for: on its way to the server, then on its way back.
    enum class OwnCancel : std::uint8_t { none, sent, seen };
    OwnCancel own_cancel = OwnCancel::none;
    bool own_cancel_hurried = false;
    bool killed = false;
    std::uint64_t hoarded = 0;  // bytes of the client since anything last left
    std::string close_reason;

    bool over() const {
        return closing && to_client.empty() && to_server.empty() &&
               (server == nullptr || server_told_end);
    }
    template <class Event>
    void tell(const Event& event);
    void carry_out_all();

private:
    void carry_out(session::SendToClient& command);
    void carry_out(session::SendToServer& command);
    void carry_out(session::Judge& command);
    void carry_out(session::StoreAudit& command);
    void carry_out(session::FindUpstream&) {
        core.handle(session::UpstreamFound{session::Upstream{}});
    }
    void carry_out(session::Connect&) { connect_wanted = true; }
    void carry_out(session::StartTls&) {}
    void carry_out(session::SetDeadline& command);
    void carry_out(session::ClearDeadline& command) { deadlines.erase(command.kind); }
    void carry_out(session::ShutdownServer&) { shutdown_server = true; }
    void carry_out(session::Close& command) {
        closing = true;
        close_reason = command.reason;
        deadlines.clear();
        question.reset();
        records_wait = false;
    }
    void carry_out(session::Log&) {}
    void carry_out(session::ClaimTicket& command);
    void carry_out(session::OpenTicket& command);
    void carry_out(session::ReleaseTicket& command);
    void carry_out(session::WithdrawTicket& command);
    void carry_out(session::FinishTicket& command);
    void carry_out(session::AskChaperone&) {}
    void carry_out(session::FindCancelled& command);
    void carry_out(session::KnowCancelKey& command) { cancel_key = command.key; }
    void carry_out(session::CancelServer& command);
    template <class Answer>
    void answer(Answer given);

    World& world_;
};

session::Setup setup_of(std::uint64_t id) {
    session::Setup setup;
    setup.id = id;
    setup.client.local = true;
    // Some have to be asked which server it is.
    if (id % 2 == 0) setup.upstream.reset();
    return setup;
}

// Session ids never repeat within a process: caches key on them.
std::uint64_t fresh_session_id() {
    static std::atomic<std::uint64_t> last{0};
    return ++last;
}

class World {
public:
    World(const Plan& plan, policy::Engine& engine, std::size_t trace_lines);
    Result go();

    void violate(std::string what) {
        if (result_.violation.empty()) {
            result_.violation = std::move(what);
            trace_.line("VIOLATION " + result_.violation);
        }
    }
    policy::Judgement judge(const Question& question, const policy::SessionFacts& facts);
    void to_client(Link& link, std::string_view bytes);
    void to_server(Link& link, std::string_view bytes);
    const Weather& weather() const { return plan_.weather; }
    bool answer_audit_well();
    // A millisecond a step, and what was waited for.
    std::chrono::system_clock::time_point now() const {
        return std::chrono::system_clock::time_point(std::chrono::hours(24 * 20'000)) +
               std::chrono::milliseconds(result_.steps) + waited_;
    }
    session::TicketClaimed claim(Link& link, const approval::Claim& claim);
    session::TicketOpened open(Link& link, approval::Request request);
    void release(const std::string& id);
    void withdraw(const std::string& id, const std::string& why);
    void finish(const std::string& id, const std::string& outcome);
    bool cancel_held(std::string_view key);
    bool may_be_approved();
    policy::Engine& engine() { return engine_; }
    Sabotage sabotage() const { return plan_.sabotage; }

private:
    enum class Doing : std::uint8_t {
        client_step,
        client_bytes,
        client_end,
        client_reads,
        client_closed,
        connect,
        verdict,
        audit,
        server_receives,
        server_told_end,
        server_step,
        server_bytes,
        server_end,
        deadline,
        store_answers,
        approver,
        own_cancel,
        weather,
    };
    struct Action {
        Doing doing;
        Link* link;
        unsigned weight;
    };
    ModelServer::Hooks hooks();
    std::unique_ptr<ModelServer> new_server(std::uint64_t seed);
    void gather(std::vector<Action>& actions);
    void gather(Link& link, std::vector<Action>& actions);
    void act(const Action& action);
    void client_bytes(Link& link);
    void server_bytes(Link& link);
    void client_step();
    void connect(Link& link);
    void fire_deadline(Link& link);
    void own_cancel(Link& link);
    void limit_writes(const Question& question, policy::Judgement& judgement);
    bool may_take_long(std::string_view sql) const;
    bool only_own_cancels() const { return !plan_.taste.cancels && !plan_.weather.direct_cancels; }
    void bad_weather();
    void check_now();
    void check_at_the_end();
    void compare();
    void sabotage_client_bytes(std::string& bytes);
    std::size_t chunk(std::size_t available);

    void arrived(std::string_view sql);
    std::string runs(const Statement& statement, const ModelServer::Running& how);
    void commits(const std::vector<Effect>& effects);
    void store_answers(Link& link);
    void approver();
    void decided(const std::string& id);
    void wait_until(std::chrono::system_clock::time_point when);
    bool held_now() const { return !main_->watched.empty(); }
    bool store_fails() { return plan_.weather.store_fails && random_.one_in(5); }
    void begin_again();
    void check_tickets();
    void kill();

    // A ticket that was claimed, and what its statement may do by it.
    struct Live {
        approval::Ticket ticket;
        std::vector<std::string> texts;  // that may run yet, once each
        bool ran = false;
        bool over = false;
    };

    const Plan& plan_;
    const PolicyCase& policy_;
    policy::Engine& engine_;
    Trace trace_;
    Random random_;
    Result result_;
    ModelDatabase database_;
    ModelStore store_;
    std::unique_ptr<ModelClient> client_;
    std::unique_ptr<Link> main_;
    std::vector<std::unique_ptr<Link>> cancels_;
    std::set<std::string, std::less<>> allowed_texts_;
    std::set<std::string, std::less<>> limited_texts_;  // of which a statement has a time limit
    bool cancelled_for_time_ = false;                   // the last cancel was one of the core's
    std::uint64_t rows_committed_ = 0;
    int talks_left_ = 100;
    std::chrono::microseconds waited_{0};
    int votes_left_ = 300;
    bool again_ = false;  // the client's second session
    std::map<std::string, Live> live_;
    // What ran by an approval in the transaction under way, and what it was approved of; and
    // whether something did that was approved of whatever it does.
    std::map<std::string, approval::Evidence> approved_runs_;  // by ticket
    bool approved_uncounted_ = false;
    std::map<std::string, std::size_t> approved_told_;  // ticket -> session
    std::set<std::string> store_lied_;  // tickets that were opened, and the guard was told not
    bool chaos_ = false;                // the server died, a deadline ended the session, ...
    bool guard_failed_ = false;         // something of the guard's own
    bool sabotaged_ = false;
    std::string passed_to_client_;  // the part of a message that sabotage looks at
    Tap client_tap_;
    Tap to_server_tap_;
    Tap from_server_tap_;
    Tap to_client_tap_;
};

Link::Link(World& world, std::uint64_t id, bool cancel)
    : core(setup_of(id)), is_cancel(cancel), world_(world) {
    carry_out_all();
}

template <class Event>
void Link::tell(const Event& event) {
    core.set_policy_version(world_.engine().policy_version());
    core.handle(event);
    carry_out_all();
}

void Link::carry_out_all() {
    while (auto command = core.next()) {
        std::visit([this](auto& one) { carry_out(one); }, *command);
    }
}

void Link::carry_out(session::SendToClient& command) {
    hoarded = 0;
    world_.to_client(*this, command.data.bytes());
}

void Link::carry_out(session::SendToServer& command) {
    hoarded = 0;
    world_.to_server(*this, command.data.bytes());
}

void Link::carry_out(session::Judge& command) {
    Question asked{command, std::string(command.sql), *command.own_tables, *command.name_doubts,
                   *command.search_path};
    if (world_.weather().late_verdicts || world_.sabotage() == Sabotage::lose_verdict) {
        question = std::move(asked);
        return;
    }
    core.handle(session::Verdict{world_.judge(asked, core.facts()), world_.now(),
                                 world_.may_be_approved()});
}

void Link::carry_out(session::SetDeadline& command) {
    deadlines[command.kind] = world_.now() + command.after;
}

void Link::carry_out(session::CancelServer& command) {
    if (command.key != cancel_key) return world_.violate("a cancel has another's key");
    if (own_cancel != OwnCancel::none) return world_.violate("two cancels at the same time");
    own_cancel = OwnCancel::sent;
}

// What the store says comes at once, or joins what it has said before.
template <class Answer>
void Link::answer(Answer given) {
    if (world_.weather().late_store || closing) {
        answers.emplace_back(std::move(given));
    } else {
        core.handle(given);
    }
}

void Link::carry_out(session::ClaimTicket& command) { answer(world_.claim(*this, command.claim)); }

void Link::carry_out(session::OpenTicket& command) {
    answer(world_.open(*this, std::move(command.request)));
}

void Link::carry_out(session::ReleaseTicket& command) { world_.release(command.id); }

void Link::carry_out(session::WithdrawTicket& command) { world_.withdraw(command.id, command.why); }

void Link::carry_out(session::FinishTicket& command) { world_.finish(command.id, command.outcome); }

void Link::carry_out(session::FindCancelled& command) {
    core.handle(session::CancelTaken{world_.cancel_held(command.key)});
}

void Link::carry_out(session::StoreAudit& command) {
    if (!command.awaited) return;
    if (world_.weather().late_audit) {
        records_wait = true;
        return;
    }
    const bool ok = world_.answer_audit_well();
    core.handle(session::AuditStored{ok, ok ? "" : "disk full"});
}

World::World(const Plan& plan, policy::Engine& engine, std::size_t trace_lines)
    : plan_(plan),
      policy_(policy_cases().at(plan.policy)),
      engine_(engine),
      trace_(trace_lines),
      random_(plan.seed ^ 0xA11CE),
      client_(std::make_unique<ModelClient>(plan.script)),
      client_tap_(trace_, protocol::Side::frontend, "client -> guard            "),
      to_server_tap_(trace_, protocol::Side::frontend, "          guard -> server  "),
      from_server_tap_(trace_, protocol::Side::backend, "          guard <- server  "),
      to_client_tap_(trace_, protocol::Side::backend, "client <- guard            ") {
    database_.counters_on = !plan.weather.counters_off;
    database_.counters_lie = plan.sabotage == Sabotage::counters_lie;
    database_.on_commit = [this](const std::vector<Effect>& effects) { commits(effects); };
    database_.on_end = [this](const CountsByTable&, bool) {
        approved_runs_.clear();
        approved_uncounted_ = false;
    };
    store_.violation = [this](std::string what) { violate(std::move(what)); };
    store_.claims_unapproved = plan.sabotage == Sabotage::claim_unapproved;
    store_.claims_twice = plan.sabotage == Sabotage::claim_twice;
    client_tap_.feed(client_->out);
    main_ = std::make_unique<Link>(*this, fresh_session_id(), false);
}

ModelServer::Hooks World::hooks() {
    ModelServer::Hooks hooks;
    hooks.arrived = [this](std::string_view sql) { arrived(sql); };
    hooks.runs = [this](const Statement& statement, const ModelServer::Running& how) {
        return runs(statement, how);
    };
    hooks.cancelled = [this](std::string_view sql) {
        ++result_.cancels_hit;
        if (is_injected(sql)) ++result_.cancels_hit_guard;
        const bool by_time = std::exchange(cancelled_for_time_, false);
        if (by_time && only_own_cancels() && !is_injected(sql) && may_take_long(sql)) {
            violate("a cancel for a time limit hit what has none: " +
                    std::string(sql.substr(0, 70)));
        }
        trace_.line("                     cancelled: " + std::string(sql.substr(0, 70)));
    };
    hooks.fails = [this](std::string_view sql) -> std::optional<Failure> {
        // A ROLLBACK never fails, nor does what only sets something behind a COMMIT.
        const bool may = plan_.weather.guard_fails && is_injected(sql) && !is_substitute(sql) &&
                         !sql.starts_with("ROLLBACK TO") && !sql.starts_with("RELEASE") &&
                         sql != session::rollback_sql && sql != session::read_write_sql &&
                         !sql.empty();
        if (!may || !random_.one_in(6)) return std::nullopt;
        guard_failed_ = true;
        trace_.line("                     fails: " + std::string(sql.substr(0, 70)));
        if (random_.one_in(2)) return Failure{"55P03", "canceling statement due to lock timeout"};
        return Failure{"57014", "canceling statement due to statement timeout"};
    };
    hooks.cancel_request = [this](std::int32_t id, std::string_view key) {
        if (id != ModelServer::process_id || key != ModelServer::secret_key) {
            return violate("a CancelRequest arrived that was changed");
        }
        trace_.line("                     a cancel request arrives");
        if (main_->server) main_->server->cancel();
    };
    hooks.impossible = [this](std::string_view) { violate("the server was sent no message"); };
    return hooks;
}

std::unique_ptr<ModelServer> World::new_server(std::uint64_t seed) {
    auto server = std::make_unique<ModelServer>(database_, seed, hooks());
    if (plan_.weather.idle_timeout) server->idle_timeout = 30'000;
    server->keeps_trials = plan_.sabotage == Sabotage::keep_trials;
    if (plan_.weather.glass) server->reason = "the shop is on fire";
    return server;
}

// What runs for real, and not only to be looked at, has been approved where it had to be: the whole
// of the text, with these parameters, once.
std::string World::runs(const Statement& statement, const ModelServer::Running& how) {
    trace_.line("                     " + std::string(how.trial ? "is tried: " : "runs: ") +
                statement.text.substr(0, 70));
    if (policy_.blocks(statement)) violate("a blocked statement ran: " + statement.text);
    if (how.again || is_injected(statement.text)) return {};
    if (how.trial) {
        if (!policy_.tried) violate("a statement was tried without need: " + statement.text);
        return {};
    }
    // A failed block keeps it, and can do nothing with it.
    if (main_->server->trial_left() && !statement.ends_failed_block())
        violate("a trial's savepoint is left in a transaction");
    const bool call = statement.text == "function call";
    std::vector<std::optional<std::string>> parameters;
    for (int i = 0; how.parameters != nullptr && i < statement.parameters; ++i) {
        parameters.emplace_back(std::to_string((*how.parameters)[static_cast<std::size_t>(i)]));
    }
    for (auto& [id, live] : live_) {
        if (live.over) continue;
        const approval::Request& request = live.ticket.request;
        const auto text = std::find(live.texts.begin(), live.texts.end(), statement.text);
        const bool same = text != live.texts.end() && request.parameters == parameters;
        const bool called = call && live.texts.size() == 1 && live.texts[0].empty();
        if (!same && !called) continue;
        live.texts.erase(called ? live.texts.begin() : text);
        live.ran = true;
        ++result_.approved_runs;
        trace_.line("                     by ticket " + id);
        // The statements of one message are approved of together.
        if (request.evidence.binds()) {
            approved_runs_[id] = request.evidence;
        } else {
            approved_uncounted_ = true;
        }
        return id;
    }
    if (policy_.holds(statement)) {
        violate("a held statement ran without an approval: " + statement.text);
    }
    return {};
}

void World::commits(const std::vector<Effect>& effects) {
    std::vector<Effect> others;
    CountsByTable approved{};
    bool any = false;
    for (const Effect& effect : effects) {
        any = any || effect.changes();
        if (effect.trial) violate("a trial was committed: " + effect.text);
        // Where not everything waits, nobody can say who has deferred what, nor whose reading has
        // seen what a cursor did.
        const bool vague = effect.deferred || effect.text.starts_with("declare");
        if (vague && policy_.exceeding_waits && !approved_runs_.empty()) continue;
        if (effect.deferred && approved_uncounted_) continue;
        const bool of_approved = effect.deferred ? !approved_runs_.empty()
                                                 : approved_runs_.contains(effect.ticket);
        if (!of_approved) {
            others.push_back(effect);
            continue;
        }
        for (std::size_t table = 0; table < approved.size(); ++table) {
            approved[table].inserted += effect.counts[table].inserted;
            approved[table].updated += effect.counts[table].updated;
            approved[table].deleted += effect.counts[table].deleted;
        }
    }
    if (any) ++result_.commits;
    for (int table = 0; table < tables_count; ++table) {
        Counts may;
        for (const auto& [id, evidence] : approved_runs_) {
            for (const approval::TableRows& rows : evidence.tables) {
                if (rows.table != "public.t" + std::to_string(table + 1)) continue;
                may.inserted += rows.inserted;
                may.updated += rows.updated;
                may.deleted += rows.deleted;
            }
        }
        const Counts& did = approved[static_cast<std::size_t>(table)];
        if (did.inserted > may.inserted || did.changed() > may.changed()) {
            violate("more was committed than was approved of: of t" + std::to_string(table + 1) +
                    " " + std::to_string(did.inserted) + " inserted and " +
                    std::to_string(did.changed()) + " changed, approved " +
                    std::to_string(may.inserted) + " and " + std::to_string(may.changed()));
        }
    }
    if (const auto why = policy_.forbids(others, rows_committed_)) {
        violate("a transaction that the policy forbids was committed: " + *why);
    }
    for (const Effect& effect : others) rows_committed_ += effect.rows();
}

// --- Tickets

session::TicketClaimed World::claim(Link& link, const approval::Claim& claim) {
    if (store_fails()) {
        return {approval::Failure{approval::Problem::store_failed, "the disk is full", ""}};
    }
    auto answer = store_.claim(claim, now());
    if (!answer || !*answer) {
        trace_.line("                     no ticket to claim" +
                    (answer ? std::string() : ": " + answer.error().text));
        return {std::move(answer)};
    }
    const approval::Ticket& ticket = **answer;
    trace_.line("                     claims ticket " + ticket.id);
    link.watched.erase(ticket.id);
    approved_told_.erase(ticket.id);
    if (!rightly_approved(ticket)) {
        violate("ticket " + ticket.id + " was claimed, and not enough people have approved it");
    }
    if (live_.contains(ticket.id)) violate("ticket " + ticket.id + " was used twice");
    Live live;
    live.ticket = ticket;
    const auto statements = parse_sql(sent(ticket.request));
    const bool unreadable = !statements.empty() && statements[0].verb == Verb::syntax_error;
    for (const Statement& statement : statements) {
        live.texts.push_back(unreadable ? std::string() : statement.text);
    }
    if (live.texts.empty()) live.texts.emplace_back();
    live_[ticket.id] = std::move(live);
    return {std::move(answer)};
}

session::TicketOpened World::open(Link& link, approval::Request request) {
    const approval::Failure full{approval::Problem::store_failed, "the disk is full", ""};
    const bool fails = store_fails();
    // It may have happened nevertheless.
    if (fails && random_.one_in(2)) return {full};
    const approval::Ticket ticket = store_.open(std::move(request), now());
    ++result_.tickets;
    trace_.line("                     ticket " + ticket.id + " for " +
                ticket.request.statement.substr(0, 60) +
                (ticket.request.evidence.binds() ? ", " + ticket.request.evidence.summary() : ""));
    if (fails) {
        store_lied_.insert(ticket.id);
        return {full};
    }
    if (ticket.state == approval::State::used) {
        Live live;
        live.ticket = ticket;
        for (const Statement& statement : parse_sql(sent(ticket.request))) {
            live.texts.push_back(statement.verb == Verb::syntax_error ? "" : statement.text);
        }
        if (live.texts.empty()) live.texts.emplace_back();
        live_[ticket.id] = std::move(live);
    } else if (ticket.state == approval::State::pending) {
        link.watched.insert(ticket.id);
    }
    return {ticket};
}

void World::release(const std::string& id) {
    trace_.line("                     releases ticket " + id);
    main_->watched.erase(id);
    // It gave up before it could hear of the approval, or could not use it.
    if (plan_.sabotage != Sabotage::forget_decision) approved_told_.erase(id);
    if (plan_.sabotage != Sabotage::forget_release) store_.release(id, now());
}

void World::withdraw(const std::string& id, const std::string& why) {
    trace_.line("                     withdraws ticket " + id + ": " + why);
    main_->watched.erase(id);
    if (plan_.sabotage != Sabotage::forget_release) store_.withdraw(id, nullptr, why, now());
}

void World::finish(const std::string& id, const std::string& outcome) {
    trace_.line("                     finishes ticket " + id + ": " + outcome);
    store_.finish(id, outcome);
    const auto found = live_.find(id);
    if (found == live_.end()) return;
    Live& live = found->second;
    // What is on its way to the server when its session ends may yet run.
    live.over = outcome.find("may have run or not") == std::string::npos;
    if (live.ran && outcome.starts_with("not run")) {
        violate("ticket " + id + " is said not to have run, and it has: " + outcome);
    }
    // A first error may keep all of it from running.
    const bool vague = outcome.empty() || outcome.starts_with("not run") ||
                       outcome.starts_with("failed") ||
                       outcome.find("may have run or not") != std::string::npos;
    if (!live.ran && !vague) {
        violate("ticket " + id + " is said to have run, and it has not: " + outcome);
    }
}

bool World::cancel_held(std::string_view key) {
    if (key.empty() || key != main_->cancel_key || main_->closing) return false;
    const bool taken = main_->core.handle(session::CancelAsked{});
    main_->carry_out_all();
    if (taken) ++result_.cancels_hit;
    trace_.line(std::string("                     a cancel is ") +
                (taken ? "taken by the guard" : "passed on"));
    return taken;
}

bool World::may_be_approved() { return store_.any_approved() || random_.one_in(8); }

// What the store has said reaches the guard, or what is left of it.
void World::store_answers(Link& link) {
    auto answer = std::move(link.answers.front());
    link.answers.pop_front();
    if (link.killed) return;
    if (!link.closing) {
        return std::visit([&](const auto& event) { link.tell(event); }, answer);
    }
    // As the host does for a session that is not there any more.
    if (const auto* const claimed = std::get_if<session::TicketClaimed>(&answer)) {
        if (claimed->answer && *claimed->answer) {
            finish((*claimed->answer)->id, "not run: its session had ended");
        }
    } else if (const auto* const opened = std::get_if<session::TicketOpened>(&answer)) {
        if (opened->answer && opened->answer->open()) {
            withdraw(opened->answer->id, "disconnected");
        } else if (opened->answer) {
            finish(opened->answer->id, "not run: its session had ended");
        }
    }
}

void World::wait_until(std::chrono::system_clock::time_point when) {
    if (when > now()) {
        waited_ += std::chrono::duration_cast<std::chrono::microseconds>(when - now());
    }
}

// Its session hears of it once.
void World::decided(const std::string& id) {
    if (main_->watched.erase(id) == 0 || main_->closing) return;
    const approval::Ticket& ticket = *store_.find(id);
    const bool waited_for = ticket.request.wait.count() > 0;
    if (ticket.state == approval::State::approved && waited_for)
        approved_told_[id] = main_->core.facts().id;
    if (plan_.sabotage == Sabotage::forget_decision) return;
    main_->answers.emplace_back(session::TicketDecided{ticket});
}

// Somebody looks at a ticket, and decides or not.
void World::approver() {
    --votes_left_;
    const std::vector<std::string> ids = store_.open_ids();
    if (ids.empty()) return;
    const std::string id = ids[random_.below(ids.size())];
    const auto mood = plan_.weather.approvers;
    static const std::array<approval::Person, 4> people{
        approval::Person{"boss", 1001, {"boss"}}, approval::Person{"chief", 1002, {"chief"}},
        approval::Person{"clerk", 16384, {"clerk", "boss"}},
        approval::Person{"outsider", 1003, {"outsider"}}};
    if (random_.one_in(16)) {
        // At its last moment, or at the one when it is over.
        const auto end = store_.find(id)->expires;
        wait_until(random_.one_in(2) ? end : end - std::chrono::microseconds(1));
    }
    const std::size_t most = random_.one_in(4) ? 3 : 1;
    for (std::size_t i = 0; i < most; ++i) {
        const approval::Person&
            by = people[random_.one_in(6) ? random_.below(4) : random_.below(2)];
        const unsigned denials = mood == Weather::Approvers::willing ? 40
                                 : mood == Weather::Approvers::mixed ? 4
                                                                     : 2;
        if (by.role == "clerk" && random_.one_in(4)) {
            if (store_.withdraw(id, &by, "changed my mind", now())) decided(id);
            continue;
        }
        const auto voted = store_.vote(id, by, !random_.one_in(denials), now());
        if (voted) {
            trace_.line("                     " + by.role + " votes on " + id + ": " +
                        std::string(state_name(voted->state)));
        }
        if (voted && voted->state != approval::State::pending) decided(id);
    }
}

void World::kill() {
    trace_.line("                     the guard is killed");
    chaos_ = true;
    Link& link = *main_;
    link.killed = link.closing = true;
    link.deadlines.clear();
    link.answers.clear();
    link.question.reset();
    link.records_wait = link.connect_wanted = false;
    link.to_client.clear();
    link.to_server.clear();
    link.watched.clear();
    client_->cut_off = true;
}

// When the session is over, no ticket is waited for, and what was claimed has come to an end.
void World::check_tickets() {
    if (main_->killed) return approved_told_.clear();
    for (const approval::Ticket& ticket : store_.tickets()) {
        if (ticket.request.session != main_->core.facts().id) continue;
        if (store_lied_.contains(ticket.id)) continue;
        if (ticket.open() && ticket.held_until > ticket.opened) {
            return violate("nobody waits for ticket " + ticket.id + " any more, and it is still " +
                           std::string(state_name(ticket.state)) + " and held");
        }
    }
    const bool fair = !chaos_ && !guard_failed_ && cancels_.empty() && !client_->broken &&
                      !plan_.weather.store_fails && !plan_.weather.audit_fails &&
                      !plan_.script.empty() && plan_.script.back().kind == Step::Kind::terminate;
    for (const auto& [id, session] : approved_told_) {
        if (fair && store_.find(id)->state == approval::State::approved) {
            return violate("ticket " + id + " was approved while its session waited, for nothing");
        }
    }
    approved_told_.clear();
    for (auto& [id, live] : live_) {
        const bool sent = live.ticket.outcome.find("may have run") != std::string::npos;
        if (!live.over && !sent && store_.find(id)->outcome.empty() &&
            live.ticket.request.session == main_->core.facts().id) {
            return violate("what became of the run of ticket " + id + " was never said");
        }
        live.over = true;
    }
}

// A new session with the same script, on what the first has left.
void World::begin_again() {
    trace_.line("                     the same client comes again");
    again_ = true;
    chaos_ = guard_failed_ = false;
    rows_committed_ = 0;
    cancels_.clear();
    approved_runs_.clear();
    result_.cancels_hit = result_.cancels_hit_guard = 0;
    for (auto& [id, live] : live_) live.over = true;
    client_ = std::make_unique<ModelClient>(plan_.script);
    main_ = std::make_unique<Link>(*this, fresh_session_id(), false);
}

// No text reaches the server that was not judged and allowed, whole or as one of several
// statements.
void World::arrived(std::string_view sql) {
    if (is_guard_plan(sql)) sql = planned_text(sql);
    if (is_injected(sql) || allowed_texts_.contains(sql)) return;
    for (const std::string& text : allowed_texts_) {
        if (!sql.empty() && text.find(sql) != std::string::npos) return;
    }
    violate("a text reached the server that was not allowed: " + std::string(sql.substr(0, 100)));
}

policy::Judgement World::judge(const Question& question, const policy::SessionFacts& facts) {
    policy::Moment moment;
    moment.now = now();
    moment.in_transaction = question.judge.in_transaction;
    moment.in_implicit_block = question.judge.in_implicit_block;
    moment.own_tables = question.own_tables;
    moment.name_doubts = question.name_doubts;
    moment.search_path = question.search_path;
    policy::Judgement judgement;
    switch (question.judge.kind) {
        case session::StatementKind::query:
        case session::StatementKind::parse:
            judgement = question.judge.oversized_bytes > 0
                            ? engine_.judge_oversized(question.judge.oversized_bytes, facts, moment)
                        : question.judge.analysis
                            ? engine_.judge_once(question.judge.analysis, facts, moment)
                            : engine_.judge(question.sql, question.judge.lexical, facts, moment);
            break;
        case session::StatementKind::bind:
        case session::StatementKind::execute:
            judgement = question.judge.analysis
                            ? engine_.judge_again(question.judge.analysis, facts, moment)
                            : engine_.judge_unknown_statement(facts, moment);
            break;
        case session::StatementKind::function_call:
            judgement = engine_.judge_function_call(question.judge.function_oid, facts, moment);
            break;
    }
    if (plan_.weather.time_limits && judgement.analysis) limit_writes(question, judgement);
    if (plan_.sabotage == Sabotage::allow_blocked) judgement.decisions.clear();
    const bool refused = std::any_of(
        judgement.decisions.begin(), judgement.decisions.end(),
        [](const policy::Decision& d) { return d.action == policy::Action::block && !d.observed; });
    const bool has_text = question.judge.kind == session::StatementKind::query ||
                          question.judge.kind == session::StatementKind::parse;
    if (!refused && has_text) allowed_texts_.insert(question.sql);
    trace_.line(
        "          judged: " + question.sql.substr(0, 60) +
        (refused ? " -> blocked"
         : judgement.decisions.empty()
             ? " -> allowed"
             : " -> " + std::string(policy::action_name(judgement.decisions.front().action))));
    return judgement;
}

// As rules that limit would.
void World::limit_writes(const Question& question, policy::Judgement& judgement) {
    const std::vector<policy::StatementFacts>& statements = judgement.analysis->statements;
    for (std::size_t i = 0; i < statements.size(); ++i) {
        const auto& classes = statements[i].classes;
        const bool writes = std::find(classes.begin(), classes.end(),
                                      policy::StatementClass::write) != classes.end();
        // Whether a COPY FROM STDIN that is cancelled at its beginning has read the Sync behind it
        // depends on the moment, which the client's side of this does not know.
        if (!writes || statements[i].chaperone || statements[i].copies_in) continue;
        judgement.decisions.resize(std::max(judgement.decisions.size(), statements.size()));
        judgement.decisions[i].statement_timeout = {std::chrono::milliseconds(50), "quick"};
        limited_texts_.insert(judgement.analysis->text);
        limited_texts_.insert(question.sql);
    }
}

// Of a text with several statements any may be hit: it is sent as one.
bool World::may_take_long(std::string_view sql) const {
    return std::none_of(limited_texts_.begin(), limited_texts_.end(), [&](const std::string& text) {
        return text.find(sql) != std::string::npos;
    });
}

// The server's signal comes before the end of the connection that asked for it.
void World::own_cancel(Link& link) {
    const bool hurried = plan_.sabotage == Sabotage::hurry_cancel && !link.own_cancel_hurried &&
                         !link.closing;
    if (hurried) {
        link.own_cancel_hurried = true;
        return link.tell(session::ServerCancelled{});
    }
    if (link.own_cancel == Link::OwnCancel::sent) {
        trace_.line("                     a cancel for a time limit arrives");
        link.own_cancel = Link::OwnCancel::seen;
        if (!link.server) return;
        cancelled_for_time_ = true;
        link.server->cancel();
        return;
    }
    link.own_cancel = Link::OwnCancel::none;
    const bool told = std::exchange(link.own_cancel_hurried, false);
    if (!link.closing && !told) link.tell(session::ServerCancelled{});
}

bool World::answer_audit_well() { return !(plan_.weather.audit_fails && random_.one_in(4)); }

void World::to_client(Link& link, std::string_view bytes) {
    if (!link.is_cancel) to_client_tap_.feed(bytes);
    trace_.mix(1, bytes);
    if (link.is_cancel) return;
    std::string sent(bytes);
    if (plan_.sabotage == Sabotage::swallow_ready || plan_.sabotage == Sabotage::double_ready ||
        plan_.sabotage == Sabotage::change_tag || plan_.sabotage == Sabotage::wrong_status) {
        sabotage_client_bytes(sent);
    }
    link.to_client += sent;
}

void World::to_server(Link& link, std::string_view bytes) {
    if (!link.is_cancel) to_server_tap_.feed(bytes);
    trace_.mix(2, bytes);
    link.to_server += bytes;
    if (plan_.sabotage == Sabotage::skip_judge && !link.is_cancel && !sabotaged_ &&
        client_->dialogue.logged_in()) {
        sabotaged_ = true;
        link.to_server += protocol::encoded(protocol::Query{"select 2"});
    }
}

// Changes one message on its way, behind the login.
void World::sabotage_client_bytes(std::string& bytes) {
    passed_to_client_ += bytes;
    bytes.clear();
    while (const auto size = message_size(passed_to_client_)) {
        std::string message = passed_to_client_.substr(0, *size);
        passed_to_client_.erase(0, *size);
        const bool first_ready = message[0] == 'Z' && client_->position() == 0;
        if (!sabotaged_ && !first_ready) {
            if (plan_.sabotage == Sabotage::wrong_status) {
                if (message[0] == 'Z') message.back() = message.back() == 'I' ? 'T' : 'I';
            } else if (message[0] == 'Z' && plan_.sabotage != Sabotage::change_tag) {
                sabotaged_ = true;
                if (plan_.sabotage == Sabotage::swallow_ready) continue;
                bytes += message;
            } else if (message[0] == 'C' && plan_.sabotage == Sabotage::change_tag) {
                sabotaged_ = true;
                message[message.size() - 2] = '!';
            }
        }
        bytes += message;
    }
}

std::size_t World::chunk(std::size_t available) {
    const std::size_t most = std::min(available, plan_.weather.chunk_max);
    return random_.one_in(3) ? most : 1 + random_.below(most);
}

void World::gather(std::vector<Action>& actions) {
    if (client_->can_step()) actions.push_back({Doing::client_step, main_.get(), 3});
    gather(*main_, actions);
    for (const auto& cancel : cancels_) gather(*cancel, actions);
    if (main_->own_cancel != Link::OwnCancel::none) {
        actions.push_back({Doing::own_cancel, main_.get(), 2});
    }
    const auto timed = main_->deadlines.find(session::DeadlineKind::statement);
    if (timed != main_->deadlines.end() && !main_->closing && random_.one_in(6)) {
        actions.push_back({Doing::deadline, main_.get(), 3});
    }
    const bool anything = !actions.empty();
    const bool attended = plan_.weather.approvers != Weather::Approvers::absent;
    if (attended && votes_left_ > 0 && held_now() && (!anything || random_.one_in(12))) {
        actions.push_back({Doing::approver, main_.get(), anything ? 4U : 6U});
    }
    Link* const link = main_.get();
    if (!link->deadlines.empty() && !link->closing) {
        if (!anything) {
            actions.push_back({Doing::deadline, link, 1});
        } else if (plan_.weather.early_deadlines && random_.one_in(400)) {
            actions.push_back({Doing::deadline, link, 1});
        }
    }
    if (!anything) {
        for (const auto& cancel : cancels_) {
            if (!cancel->deadlines.empty() && !cancel->closing) {
                actions.push_back({Doing::deadline, cancel.get(), 1});
            }
        }
    }
    if (anything &&
        (plan_.weather.server_dies || plan_.weather.server_talks ||
         (plan_.weather.killed && !again_)) &&
        random_.one_in(120)) {
        actions.push_back({Doing::weather, main_.get(), 4});
    }
}

void World::gather(Link& link, std::vector<Action>& actions) {
    const bool main = !link.is_cancel;
    std::string& incoming = main ? client_->out : link.from_client;
    if (!link.closing) {
        const bool room = link.to_server.size() <= pending_bytes_max;
        if (!incoming.empty() && room && link.core.wants_client_bytes()) {
            actions.push_back({Doing::client_bytes, &link, 3});
        }
        // Where the guard does not read, a broken connection still shows.
        const bool ended = main ? client_->ended : true;
        if (ended && !link.client_told_end &&
            (incoming.empty() || (main && client_->broken && random_.one_in(4)))) {
            actions.push_back({Doing::client_end, &link, 2});
        }
        if (link.connect_wanted) actions.push_back({Doing::connect, &link, 2});
        if (link.question && plan_.sabotage != Sabotage::lose_verdict) {
            actions.push_back({Doing::verdict, &link, 2});
        }
        if (link.records_wait) actions.push_back({Doing::audit, &link, 2});
    }
    if (!link.answers.empty()) actions.push_back({Doing::store_answers, &link, 2});
    if (main && !link.to_client.empty()) actions.push_back({Doing::client_reads, &link, 3});
    if (main && link.closing && link.to_client.empty() && !client_->cut_off) {
        actions.push_back({Doing::client_closed, &link, 2});
    }
    if (!link.server) return;
    ModelServer& server = *link.server;
    if (!link.to_server.empty() && server.unread_bytes() < socket_bytes_max) {
        actions.push_back({Doing::server_receives, &link, 3});
    }
    const bool end_due = link.shutdown_server || link.closing;
    if (end_due && link.to_server.empty() && !link.server_told_end &&
        plan_.sabotage != Sabotage::keep_server_open) {
        actions.push_back({Doing::server_told_end, &link, 2});
    }
    if (server.can_step()) actions.push_back({Doing::server_step, &link, 3});
    if (link.closing) {
        // Nobody reads it any more.
        server.output.clear();
        return;
    }
    if (!server.output.empty() && link.to_client.size() <= pending_bytes_max &&
        link.core.wants_server_bytes()) {
        actions.push_back({Doing::server_bytes, &link, 3});
    }
    if (server.closed() && server.output.empty() && !link.server_end_told) {
        actions.push_back({Doing::server_end, &link, 2});
    }
}

void World::client_step() {
    const std::size_t before = client_->out.size();
    if (client_->step(random_)) {
        if (plan_.weather.direct_cancels && random_.one_in(3)) {
            trace_.line("                     a cancel reaches the server by another way");
            if (main_->server) main_->server->cancel();
            guard_failed_ = true;  // without it, it would not have come at this moment
            return;
        }
        trace_.line("client                     asks for a cancel");
        auto link = std::make_unique<Link>(*this, fresh_session_id(), true);
        link->from_client = protocol::encoded(
            protocol::CancelRequest{ModelServer::process_id, ModelServer::secret_key});
        cancels_.push_back(std::move(link));
    } else if (client_->out.size() > before) {
        client_tap_.feed(std::string_view(client_->out).substr(before));
    }
}

void World::client_bytes(Link& link) {
    std::string& incoming = link.is_cancel ? link.from_client : client_->out;
    // A buffer of its own that is gone afterwards: a view kept too long shows under a sanitizer.
    const std::string bytes = incoming.substr(0, chunk(incoming.size()));
    incoming.erase(0, bytes.size());
    link.hoarded += bytes.size();
    link.tell(session::ClientBytes{bytes});
    if (plan_.sabotage == Sabotage::hoard && !link.is_cancel && link.question) {
        const std::string more(session::Session::backlog_bytes_max * 2, 'x');
        link.hoarded += more.size();
        link.tell(session::ClientBytes{more});
    }
}

void World::server_bytes(Link& link) {
    std::string& outgoing = link.server->output;
    std::string bytes = outgoing.substr(0, chunk(outgoing.size()));
    outgoing.erase(0, bytes.size());
    if (!link.is_cancel) from_server_tap_.feed(bytes);
    trace_.mix(3, bytes);
    link.tell(session::ServerBytes{bytes});
}

void World::connect(Link& link) {
    link.connect_wanted = false;
    if (plan_.weather.connect_fails && random_.one_in(2)) {
        chaos_ = true;
        session::Connected none{false, "no server there", false, {}};
        // Or there are too many sessions already.
        if (!link.is_cancel && random_.one_in(3)) {
            none.denied = policy::Refusal{"53300", "too many connections", {}, {}};
        }
        return link.tell(none);
    }
    link.server = new_server(plan_.seed + (link.is_cancel ? 17 : 0));
    link.tell(session::Connected{true, {}, false, {}});
}

void World::fire_deadline(Link& link) {
    auto which = link.deadlines.find(session::DeadlineKind::statement);
    if (which != link.deadlines.end()) {
        // However fast it is.
    } else if (which = link.deadlines.begin(); plan_.weather.early_deadlines) {
        std::advance(which, random_.below(link.deadlines.size()));
    } else {
        which = std::min_element(link.deadlines.begin(), link.deadlines.end(),
                                 [](const auto& a, const auto& b) { return a.second < b.second; });
    }
    const session::DeadlineKind kind = which->first;
    const bool of_a_hold = kind == session::DeadlineKind::held ||
                           kind == session::DeadlineKind::notice ||
                           kind == session::DeadlineKind::keep_alive;
    if (of_a_hold) wait_until(which->second);
    link.deadlines.erase(which);
    if (kind == session::DeadlineKind::statement) {
        guard_failed_ = true;  // without it, nothing would have been cancelled
    } else if (!link.is_cancel && !of_a_hold) {
        chaos_ = true;
    }
    trace_.line("                     a deadline passes: " +
                std::to_string(static_cast<int>(kind)));
    link.tell(session::Deadline{kind});
}

void World::bad_weather() {
    if (plan_.weather.killed && !again_ && !main_->closing && random_.one_in(3)) return kill();
    if (!main_->server || (!plan_.weather.server_talks && !plan_.weather.server_dies)) return;
    if (plan_.weather.server_talks && (!plan_.weather.server_dies || random_.one_in(2))) {
        // Not for ever: it would hide that nothing else happens.
        if (talks_left_-- > 0) main_->server->say_something();
        return;
    }
    chaos_ = true;
    trace_.line("                     the server dies");
    main_->server->die(random_.one_in(2));
}

void World::act(const Action& action) {
    Link& link = *action.link;
    trace_.mix(static_cast<std::uint64_t>(action.doing) + 16);
    switch (action.doing) {
        case Doing::client_step: return client_step();
        case Doing::client_bytes: return client_bytes(link);
        case Doing::client_end:
            link.client_told_end = true;
            return link.tell(session::ClientClosed{!link.is_cancel && client_->broken});
        case Doing::client_reads: {
            const std::string bytes = link.to_client.substr(0, chunk(link.to_client.size()));
            link.to_client.erase(0, bytes.size());
            if (auto wrong = client_->receive(bytes)) violate("the client got " + *wrong);
            return;
        }
        case Doing::client_closed: client_->cut_off = true; return;
        case Doing::connect: return connect(link);
        case Doing::verdict: {
            const Question question = std::move(*link.question);
            link.question.reset();
            return link.tell(
                session::Verdict{judge(question, link.core.facts()), now(), may_be_approved()});
        }
        case Doing::audit: {
            link.records_wait = false;
            const bool ok = answer_audit_well();
            return link.tell(session::AuditStored{ok, ok ? "" : "disk full"});
        }
        case Doing::server_receives: {
            const std::string bytes = link.to_server.substr(0, chunk(link.to_server.size()));
            link.to_server.erase(0, bytes.size());
            return link.server->receive(bytes);
        }
        case Doing::server_told_end: link.server_told_end = true; return link.server->receive_end();
        case Doing::server_step: return link.server->step();
        case Doing::server_bytes: return server_bytes(link);
        case Doing::server_end:
            link.server_end_told = true;
            return link.tell(session::ServerClosed{chaos_ && random_.one_in(2)});
        case Doing::deadline: return fire_deadline(link);
        case Doing::store_answers: return store_answers(link);
        case Doing::approver: return approver();
        case Doing::own_cancel: return own_cancel(link);
        case Doing::weather: return bad_weather();
    }
}

void World::check_now() {
    for (const std::string& id : store_.expire(now())) decided(id);
    const Link& link = *main_;
    if (link.core.ledger().size() > session::Ledger::entries_max) violate("the ledger grows");
    // A longer text has to be seen whole before it is judged; no script has one.
    const std::size_t most = session::Session::backlog_bytes_max + plan_.weather.chunk_max + 16'384;
    if (link.hoarded > most && !link.core.ledger().skipping()) {
        violate("the core keeps more of a client's bytes than it may");
    }
}

Result World::go() {
    std::vector<Action> actions;
    while (result_.violation.empty()) {
        actions.clear();
        gather(actions);
        if (actions.empty()) {
            check_at_the_end();
            check_tickets();
            if (result_.violation.empty() && !again_) compare();
            if (!plan_.weather.again || again_ || !result_.violation.empty()) break;
            // Those who decide do so although nobody waits.
            for (int i = 0; i < 6 && plan_.weather.approvers != Weather::Approvers::absent; ++i) {
                approver();
            }
            begin_again();
            continue;
        }
        unsigned sum = 0;
        for (const Action& action : actions) sum += action.weight;
        std::size_t chosen = random_.below(sum);
        std::size_t index = 0;
        while (chosen >= actions[index].weight) chosen -= actions[index++].weight;
        act(actions[index]);
        check_now();
        if (++result_.steps > steps_max) violate("no end: the run goes round in circles");
        if (plan_.sabotage == Sabotage::chance && result_.steps == 20) {
            static std::atomic<std::uint64_t> unseeded{0};
            trace_.mix(++unseeded);
        }
    }
    result_.digest = trace_.digest();
    result_.trace = trace_.take();
    for (const std::string& message : client_->messages) {
        if (is_refusal(message)) ++result_.refusals;
    }
    return std::move(result_);
}

// Nothing can happen any more: then nothing may be owed.
void World::check_at_the_end() {
    const Link& link = *main_;
    const bool excused = client_->broken || chaos_ || client_->dialogue.fatal();
    if (main_->killed) return;
    if (!client_->done()) {
        return violate("a hang: the client waits at step " + std::to_string(client_->position()) +
                       ", " + std::to_string(client_->dialogue.owed()) + " replies are owed");
    }
    if (client_->ended && !link.core.closed()) {
        return violate("the client has gone, and its session goes on");
    }
    if (link.server && (link.server->in_transaction() || !link.server->closed())) {
        return violate(link.server->in_transaction()
                           ? "the session has ended, and a transaction is left open"
                           : "the session has ended, and its connection to the server is left");
    }
    for (const auto& cancel : cancels_) {
        if (!cancel->closing) return violate("a cancel request's connection never ends");
    }
    if (!excused && !client_->ended) {
        return violate("the client was cut off: " + link.close_reason);
    }
    // A COPY whose data end with the connection is not answered, nor is, in a transaction of the
    // guard's, one that was cancelled just then. What is owed without a Sync the server may keep.
    const bool copy_cut_off = client_->dialogue.copying() || client_->dialogue.copy_failed();
    if (!excused && client_->dialogue.ready_owed() > 0 && !copy_cut_off) {
        return violate(std::to_string(client_->dialogue.ready_owed()) +
                       " ReadyForQuery never came");
    }
    if (!excused && client_->in_the_middle()) return violate("the client got half a message");
    std::size_t cancelled = 0;
    for (const std::string& message : client_->messages) {
        if (message[0] != 'E' || field_of(message, 'C') != "57014") continue;
        if (field_of(message, 'M').find("user request") != std::string::npos) ++cancelled;
    }
    if (cancelled > result_.cancels_hit) violate("more was cancelled than was asked for");
    // One of the guard's own may be sent again, and nobody needs to know. Behind a refusal nothing
    // of its group is shown.
    const bool refused = std::any_of(client_->messages.begin(), client_->messages.end(),
                                     is_refusal);
    if (!excused && !refused && cancelled + result_.cancels_hit_guard < result_.cancels_hit) {
        violate("a statement was cancelled, and the client does not know it");
    }
}

// What a script does without a guard: the messages that its client gets, and whether all its
// transactions are certainly within the policy's limits.
struct Bare {
    std::vector<std::string> messages;
    bool surely_allowed = true;
    std::string violation;
};

Bare run_bare(const Plan& plan) {
    const PolicyCase& policy = policy_cases().at(plan.policy);
    Bare bare;
    ModelDatabase database;
    std::uint64_t rows = 0;
    database.on_end = [&](const CountsByTable& counts, bool locked) {
        if (!policy.surely_within(counts, rows, locked)) bare.surely_allowed = false;
        rows += rows_changed(counts);
    };
    ModelServer::Hooks hooks;
    for (const std::string& text : texts_of(plan.script)) {
        for (const Statement& statement : parse_sql(text)) {
            if (policy.blocks(statement) || policy.holds(statement)) bare.surely_allowed = false;
            if (policy.held &&
                (statement.verb == Verb::prepare || statement.verb == Verb::declare_cursor)) {
                bare.surely_allowed = false;
            }
            // What commits by itself can't be supervised.
            if (policy.supervised && statement.verb == Verb::call_sweep) {
                bare.surely_allowed = false;
            }
        }
    }
    for (const Step& step : plan.script) {
        if (policy.held && step.tag() == 'F') bare.surely_allowed = false;
        // An Execute of nobody knows what.
        if (policy.held && step.bytes.find("nowhere") != std::string::npos) {
            bare.surely_allowed = false;
        }
    }
    ModelServer server(database, plan.seed, std::move(hooks));
    ModelClient client(plan.script);
    Random random(plan.seed);
    bool ended = false;
    while (bare.violation.empty()) {
        if (!server.output.empty()) {
            if (auto wrong = client.receive(std::exchange(server.output, {}))) {
                bare.violation = "without a guard, the client got " + *wrong;
            }
        } else if (server.can_step()) {
            server.step();
        } else if (!client.out.empty()) {
            server.receive(std::exchange(client.out, {}));
        } else if (client.can_step()) {
            client.step(random);
        } else if (client.ended && !ended) {
            ended = true;
            server.receive_end();
        } else {
            break;
        }
    }
    if (bare.violation.empty() && client.dialogue.ready_owed() > 0 && !client.dialogue.fatal()) {
        bare.violation = "without a guard, replies are owed at the end";
    }
    bare.messages = std::move(client.messages);
    return bare;
}

// Where nothing but the script decided, the client must have seen what it would have seen without a
// guard: up to the first refusal, and there may be none where nothing could be refused.
void World::compare() {
    const bool by_script_alone = !chaos_ && cancels_.empty() && !client_->broken &&
                                 !plan_.weather.audit_fails && !plan_.weather.counters_off &&
                                 !guard_failed_ && !client_->dialogue.fatal();
    const bool terminated = !plan_.script.empty() &&
                            plan_.script.back().kind == Step::Kind::terminate;
    if (!by_script_alone || !terminated) return;
    Bare bare = run_bare(plan_);
    if (!bare.violation.empty()) return violate(bare.violation);
    // What the guard says of its own.
    std::vector<std::string> seen = client_->messages;
    std::erase_if(seen, [](const std::string& message) {
        return message[0] == 'N' && field_of(message, 'M').starts_with("pgchaperone");
    });
    for (std::size_t i = 0; i < std::max(seen.size(), bare.messages.size()); ++i) {
        if (i < seen.size() && is_refusal(seen[i])) {
            if (bare.surely_allowed) {
                violate("refused, although nothing exceeds a limit: " + field_of(seen[i], 'M'));
            }
            return;
        }
        if (i < seen.size() && i < bare.messages.size() && seen[i] == bare.messages[i]) continue;
        // What nobody has asked for by a Sync the server may keep for ever, and the guard may ask.
        if (i >= bare.messages.size() && seen[i][0] != 'Z') continue;
        // A COMMIT without a block is warned about, and the guard finds the violated constraint
        // before it gets there.
        if (i < seen.size() && i + 1 < bare.messages.size() && seen[i][0] == 'E' &&
            seen[i] == bare.messages[i + 1] && bare.messages[i][0] == 'N' &&
            field_of(bare.messages[i], 'C') == "25P01") {
            bare.messages.erase(bare.messages.begin() + static_cast<std::ptrdiff_t>(i));
            continue;
        }
        // What fails when it is tried fails before anything else of its group.
        if (policy_.tried && i < seen.size() && seen[i][0] == 'E') return;
        const auto show = [&](const std::vector<std::string>& list) {
            return i < list.size() ? protocol::dump(protocol::Side::backend, list[i]) : "nothing";
        };
        return violate("the client's message " + std::to_string(i) + " is " + show(seen) +
                       " where it is " + show(bare.messages) + " without a guard");
    }
    result_.compared = true;
}

}  // namespace

Result run(const Plan& plan, policy::Engine& engine, std::size_t trace_lines) {
    return World(plan, engine, trace_lines).go();
}

Plan make_plan(std::uint64_t seed) {
    Random random(seed);
    Plan plan;
    plan.seed = seed;
    plan.policy = random.below(policy_cases().size());
    Taste& taste = plan.taste;
    taste.rows_max = random.one_in(2) ? 1 : 4;
    taste.wild = random.one_in(3);
    taste.cancels = random.one_in(4);
    taste.vanishes = random.one_in(5);
    taste.opaque = !random.one_in(4);
    taste.failures = random.one_in(2);
    taste.scenes = random.one_in(5) ? 12 : 3;
    Weather& weather = plan.weather;
    static constexpr std::array<std::size_t, 5> sizes{1, 3, 20, 200, 8192};
    weather.chunk_max = sizes[random.below(sizes.size())];
    weather.late_verdicts = random.one_in(3);
    weather.late_audit = random.one_in(3);
    weather.audit_fails = random.one_in(15);
    weather.server_dies = random.one_in(8);
    weather.server_talks = random.one_in(5);
    weather.early_deadlines = random.one_in(15);
    weather.connect_fails = random.one_in(40);
    weather.counters_off = random.one_in(30);
    weather.guard_fails = random.one_in(8);
    weather.late_store = random.one_in(2);
    weather.store_fails = random.one_in(10);
    weather.killed = random.one_in(12);
    weather.direct_cancels = random.one_in(3);
    weather.idle_timeout = random.one_in(4);
    weather.glass = random.one_in(8);
    static constexpr std::array moods{Weather::Approvers::willing, Weather::Approvers::willing,
                                      Weather::Approvers::mixed, Weather::Approvers::strict,
                                      Weather::Approvers::absent};
    weather.approvers = moods[random.below(moods.size())];
    weather.again = random.one_in(3);
    // No number is drawn for it: the scripts of all seeds stay what they were.
    weather.time_limits = (seed * 0x9E3779B97F4A7C15U >> 60) < 3;
    plan.script = make_script(random, taste);
    std::size_t bytes = 0;
    for (const Step& step : plan.script) bytes += step.bytes.size();
    if (bytes > 50'000) weather.chunk_max = std::max<std::size_t>(weather.chunk_max, 200);
    return plan;
}

std::string to_text(const Plan& plan) {
    std::string out = "policy: " + std::string(policy_cases().at(plan.policy).name) + "\nweather:";
    const Weather& weather = plan.weather;
    out += " chunks up to " + std::to_string(weather.chunk_max);
    if (weather.late_verdicts) out += ", late verdicts";
    if (weather.late_audit) out += ", late audit";
    if (weather.audit_fails) out += ", audit fails";
    if (weather.server_dies) out += ", server dies";
    if (weather.server_talks) out += ", server talks";
    if (weather.early_deadlines) out += ", early deadlines";
    if (weather.connect_fails) out += ", connect fails";
    if (weather.counters_off) out += ", counters off";
    if (weather.guard_fails) out += ", the guard's own statements fail";
    if (weather.late_store) out += ", late tickets";
    if (weather.store_fails) out += ", the store fails";
    if (weather.killed) out += ", the guard is killed";
    if (weather.direct_cancels) out += ", cancels go past the guard";
    if (weather.idle_timeout) out += ", an idle timeout";
    if (weather.glass) out += ", a reason is set";
    if (weather.time_limits) out += ", time limits";
    static constexpr std::array moods{"willing", "mixed", "strict", "absent"};
    out += std::string(", approvers ") + moods[static_cast<std::size_t>(weather.approvers)];
    if (weather.again) out += ", twice";
    return out + "\nscript:\n" + to_text(plan.script);
}

Plan shrink(const Plan& plan, const std::function<std::string(const Plan&)>& violation_of) {
    Plan smallest = plan;
    // How a violation begins tells its kind.
    const std::string violation = violation_of(plan).substr(0, 20);
    if (violation.empty()) return plan;
    const auto still_fails = [&](const Plan& candidate) {
        return flushes_before_waiting(candidate.script) &&
               violation_of(candidate).starts_with(violation);
    };
    const auto without = [&](bool Weather::*flag) {
        if (!(smallest.weather.*flag)) return;
        Plan candidate = smallest;
        candidate.weather.*flag = false;
        if (still_fails(candidate)) smallest = std::move(candidate);
    };
    for (bool Weather::*const flag :
         {&Weather::late_verdicts, &Weather::late_audit, &Weather::audit_fails,
          &Weather::server_dies, &Weather::server_talks, &Weather::early_deadlines,
          &Weather::connect_fails, &Weather::counters_off, &Weather::guard_fails,
          &Weather::late_store, &Weather::store_fails, &Weather::killed, &Weather::direct_cancels,
          &Weather::idle_timeout, &Weather::glass, &Weather::time_limits, &Weather::again}) {
        without(flag);
    }
    Plan whole_chunks = smallest;
    whole_chunks.weather.chunk_max = 8192;
    if (still_fails(whole_chunks)) smallest = std::move(whole_chunks);
    // Units of the script, half of them at a time, then fewer. The last step ends the session.
    const auto units_of = [](const Script& script) {
        std::vector<int> units;
        for (std::size_t i = 0; i + 1 < script.size(); ++i) {
            if (units.empty() || units.back() != script[i].unit) units.push_back(script[i].unit);
        }
        return units;
    };
    for (std::size_t size = units_of(smallest.script).size(); size > 0; size /= 2) {
        for (std::size_t at = 0; at < units_of(smallest.script).size();) {
            const std::vector<int> units = units_of(smallest.script);
            const std::set<int> dropped(
                units.begin() + static_cast<std::ptrdiff_t>(at),
                units.begin() + static_cast<std::ptrdiff_t>(std::min(at + size, units.size())));
            Plan candidate = smallest;
            Script& script = candidate.script;
            script.erase(
                std::remove_if(script.begin(), script.end() - 1,
                               [&](const Step& step) { return dropped.contains(step.unit); }),
                script.end() - 1);
            if (still_fails(candidate)) {
                smallest = std::move(candidate);
            } else {
                at += size;
            }
        }
    }
    return smallest;
}

}  // namespace pgchaperone::sim
