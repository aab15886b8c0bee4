#pragma once
// The session core: one client, one server, what passes between them and what may not. A state
// machine from events to commands (event.h, command.h), the same under every host: sockets,
// scripted unit tests, a fuzzer, a simulator. No I/O, no clock, no thread, no exception.
//
// What must stay true:
// - no byte of a statement reaches the server before the policy's verdict on the whole of it;
// - an allowed byte leaves as it came, in order; how the bytes were cut into chunks never matters;
// - every reply is shown, hidden or replaced by the ledger's word alone;
// - memory stays bounded by one statement's text (text_bytes_max) and the ledger's limit.
//
// A message's way through: client.cpp (what a client sends), server.cpp (what a server answers),
// supervise.cpp (what is counted before it may commit), answer.cpp (what is for pgchaperone
// itself), startup.cpp (everything before the first ReadyForQuery). What came of what was recorded
// is outcomes.h's.

#include "policy/decision.h"
#include "policy/session_facts.h"
#include "protocol/messages.h"
#include "proxy/session/census.h"
#include "proxy/session/command.h"
#include "proxy/session/event.h"
#include "proxy/session/inlet.h"
#include "proxy/session/ledger.h"
#include "proxy/session/named_texts.h"
#include "proxy/session/names.h"
#include "proxy/session/outcomes.h"
#include "proxy/session/own_tables.h"
#include "proxy/session/settings.h"

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pgchaperone::session {

struct Login;
struct Supervision;
struct Counted;
using CountedPtr = std::shared_ptr<const Counted>;
struct Effects;
struct Hold;
class Identity;
struct ClaimedTicket;
struct Timed;
using TimedPtr = std::shared_ptr<const Timed>;
struct Clocks;

// What the host knows when a client has connected.
struct Setup {
    std::uint64_t id = 0;
    policy::ClientAddress client;
    bool tls_offered = false;  // the listener has a certificate
    bool tls_required = false;
    // Where every client comes to the same. Nothing: FindUpstream asks, once it is known to which
    // database.
    std::optional<Upstream> upstream = Upstream{};
    std::string scram_nonce;  // printable random text without a comma, at least 18 bytes' worth of
                              // randomness; not needed where the server asks for passwords itself
    std::string exchange_nonce;  // likewise, for the exchange with the client
};

class Session {
public:
    // What may wait of a client's bytes while it can't be read on: enough to see it leave.
    static constexpr std::size_t backlog_bytes_max = 64 * 1024;
    // The longest text of a Query or Parse that is looked at; longer ones are `unparsable`, and are
    // refused or streamed through unread as the policy says.
    static constexpr std::size_t text_bytes_max = 16 * 1024 * 1024;

    explicit Session(Setup setup);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    // A load balancer has said for whom it connects. Before the first of the client's bytes.
    void comes_from(policy::ClientAddress client);
    // It was to say so, and did not: what is wrong, and what to do.
    void comes_wrongly(const std::string& wrong, std::string hint);
    void handle(const ClientBytes& event);
    void handle(const ServerBytes& event);
    void handle(const Connected& event);
    void handle(const ClientTlsReady& event);
    void handle(const UpstreamFound& event);
    void handle(const Verdict& event);
    void handle(const AuditStored& event);
    void handle(const TicketClaimed& event);
    void handle(const TicketOpened& event);
    void handle(const TicketDecided& event);
    void handle(const ChaperoneAnswer& event);
    void handle(const CancelTaken& event);
    void handle(const ServerCancelled& event);
    // Whether it was meant for what is held here, and has ended that: then the server has nothing
    // to cancel.
    bool handle(const CancelAsked& event);
    void handle(const IdleLimits& event);
    void handle(const ClientClosed& event);
    void handle(const ServerClosed& event);
    void handle(const Deadline& event);
    // The process is going down: end the session as PostgreSQL does (57P01) when it is idle or only
    // waits for an approval, else say false.
    // `newcomers`: also who has not yet been answered anything. Until then they may be about to
    // send their first statement, and need not learn that they were late.
    bool end_if_idle(bool newcomers);
    // The same, whatever it does.
    void end_now();

    // What to do next; nothing when all is done. To be called until then after every event.
    std::optional<Command> next();

    // Whether bytes of this side may be given. False asks the host to stop reading until it is true
    // again.
    bool wants_client_bytes() const;
    bool wants_server_bytes() const;

    // The version of the policy in force, for statements judged before it: see
    // Engine::policy_version.
    void set_policy_version(std::uint64_t version) { policy_version_ = version; }

    // Whether anything is timed, or is about to be: then the next event is to be preceded by the
    // time. Elsewhere nobody need ask for it.
    bool wants_time() const {
        return outcomes_ && (waiting_ != Waiting::nothing || claimed_ || !outcomes_->idle());
    }
    void tell_time(std::chrono::steady_clock::time_point now) {
        if (outcomes_) outcomes_->time(now);
    }

    // What is to be counted since it was last forgotten.
    const Census& census() const { return census_; }
    void forget_census() { census_.forget(); }

    const policy::SessionFacts& facts() const { return facts_; }
    bool closed() const { return phase_ == Phase::closed; }
    // For tests and tools.
    const Ledger& ledger() const { return ledger_; }
    const Names& names() const { return names_; }
    bool remembers_a_hold() const { return hold_ != nullptr; }
    char transaction_status() const { return transaction_status_; }

private:
    enum class Phase : std::uint8_t {
        startup,     // SSLRequest, GSSENCRequest, StartupMessage or CancelRequest is awaited
        client_tls,  // the TLS handshake with the client is under way
        finding,     // which server has the client's database is asked
        checking,    // the client proves who it is, to us
        connecting,  // the upstream connection is being made
        login,       // authentication, up to the first ReadyForQuery
        relay,       // ordinary work
        cancel,      // a CancelRequest was sent on; the server's end-of-file is awaited
        closed,
    };
    // `unit`, `gate`: see supervise.cpp; `answer`: see answer.cpp; `hold`: see
    // hold.cpp.
    enum class Waiting : std::uint8_t {
        nothing,
        verdict,
        audit,
        unit,
        gate,
        answer,
        hold,
        exceeded,
        clock  // see time_limits.cpp
    };

    // A statement between its arrival and its verdict. Its bytes are at the front of from_client_.
    struct Pending {
        StatementKind kind = StatementKind::query;
        std::size_t total = 0;         // bytes of the whole message
        std::string name;              // parse: the statement's
        std::int32_t row_limit = 0;    // execute: 0: none
        StatementHandle statement;     // bind: what it binds
        bool may_be_approved = false;  // see Verdict
        bool looked = false;           // for an approval that lies ready, or was approved
        bool cleared = false;          // it is what the claimed ticket is for
        bool too_long = false;         // to be held
        policy::Judgement judgement;
        std::string rule;  // of the refusal
        std::optional<policy::Refusal> refusal;
    };

    // What happens to the rest of a message of which the head was seen.
    enum class Fate : std::uint8_t { forward, discard };

    // What PostgreSQL calls idle, where it is to be ended if that goes on.
    enum class Idleness : std::uint8_t { busy, outside, in_transaction };

    // idle.cpp
    Idleness idleness() const;
    std::chrono::milliseconds idle_limit(Idleness idleness) const;
    void watch_idleness();
    void idle_for_too_long();

    // time_limits.cpp
    void limit_time(const TimedPtr& timed, std::uint64_t sequence);
    void watch_time();
    bool time_limited() const;
    bool wait_for_clock();
    void clock_step();
    void statement_too_long();
    void transaction_too_long();
    void transaction_time_over(std::uint64_t sequence);
    bool timed_out(std::string_view sqlstate) const;
    std::string timeout_error() const;
    void record_timeout(const Timed& timed, std::string_view outcome);
    void say_good_bye_to_server();

    // startup.cpp
    bool read_startup();
    bool direct_tls();
    bool encryption_request(std::size_t size, bool& asked, char answer);
    void startup_message(const protocol::StartupMessage& startup, std::string_view packet);
    bool login_from_client();
    bool login_from_server(std::string_view message);
    bool offer_mechanisms(std::string_view message);
    bool password_exchange(std::string_view message, protocol::AuthenticationCode code);
    void come_to(Upstream upstream);
    void begin_exchange();
    bool exchange_from_client();
    bool end_exchange(std::string_view body);
    void login_upstream_as_user();
    void login_upstream_with_password(std::string_view password);
    void announce_environment();
    void logged_in();

    // client.cpp
    void read_client();
    bool client_message();
    bool client_statement(StatementKind kind, std::size_t total);
    bool client_execute(std::size_t total);
    bool client_bind(std::size_t total);
    bool judge_bind(std::size_t total, const StatementHandle& handle);
    void pass_bind(std::size_t total, std::string_view portal, const StatementHandle& handle,
                   bool readable);
    void let_bind_through();
    std::vector<std::int32_t> parsed_types();

    // run_by_name.cpp
    bool judge_what_it_runs(const policy::Judgement& judgement);
    policy::AnalysisPtr with_what_it_runs(const policy::AnalysisPtr& analysis) const;
    StatementHandle made_by_sql(std::string_view name, const StatementHandle& handle) const;
    void follow_names(const policy::Analysis& analysis, std::uint64_t sequence);
    void follow_names(const policy::Analysis& analysis, std::size_t index, bool single,
                      std::uint64_t sequence);
    void settle_names(std::uint64_t sequence, bool ok);
    void forget_names(std::uint64_t sequence, std::string_view tag);
    bool client_describe(std::size_t total);
    bool client_close(std::size_t total);
    bool client_function_call(std::size_t total);
    bool client_sync(std::size_t total);
    void client_gone_wrong(std::size_t bytes_seen, std::string why);
    void ask(Judge question, std::size_t total);
    void judged(policy::Judgement judgement);
    void count(std::size_t index);
    void explain_cut_off_tail();
    void carry_out();
    void let_through();
    void ran(const policy::Analysis* analysis, std::uint64_t sequence);
    void predict(const policy::Analysis* analysis, std::uint64_t sequence);
    void refuse(policy::Refusal refusal);
    Followed follow(std::size_t index, std::uint64_t number) const;
    std::uint64_t number_of(std::size_t index) const;
    void follow_sent(std::uint64_t sequence);
    void follow_no_more();
    void follow_unit_no_more();
    void tell_outcomes();
    void pass(std::size_t total, Fate fate);
    std::string pending_text(std::size_t index);
    std::string pending_text();

    // supervise.cpp
    Supervision& supervision();
    void refuse_what_cannot_be_supervised();
    void inject_query(std::string_view sql, Role role, CountedPtr terms);
    void inject_extended(std::string_view sql, Role role, CountedPtr terms);
    void inject(std::string_view sql, Role role, CountedPtr terms);
    void limit_lock_waits(const Counted& terms);
    bool needs_first_reading() const;
    void read_before(const CountedPtr& terms);
    void reading_done(const CountedPtr& terms);
    void lite_reading_done(const CountedPtr& terms, bool wrote);
    std::optional<policy::Refusal> verdict(const Effects& effects, const CountedPtr& terms,
                                           const policy::StatementFacts* facts);
    void record_effects(const Effects& effects, const Counted& terms,
                        const policy::Refusal* refusal);
    void transaction_over(std::uint64_t sequence);
    void forget_transaction();
    void effects_may_follow();
    void deferred_may_fire(const policy::Analysis* analysis);
    void supervise();
    bool needs_unit() const;
    bool block_is_ours() const;
    static bool counts(const policy::Judgement& judgement);
    void start_unit();
    void unit_step();
    void next_piece();
    void read_gate();
    void run_control();
    void run_piece();
    void send_piece();
    void read_behind();
    void piece_ran();
    void release_completion();
    void commit_unit();
    void fail_unit(policy::Refusal refusal);
    void fail_unit_by_server();
    void end_failed_unit();
    void undo_unit();
    void end_unit();
    bool unit_copying() const;
    bool unit_copy_message(protocol::FrontendTag tag, std::size_t total);
    bool group_refused() const;
    bool group_supervised() const;
    bool wait_at_gate(bool reads, bool commits = false);
    bool group_end_reads() const;
    void gate_step();
    void make_group_fail();
    void settle_and_read(const CountedPtr& terms);
    void refuse_group(policy::Refusal refusal);
    void finish_group(std::size_t total);
    void fold_group_into_query();
    bool folded_block() const;
    void end_folded_block();
    void refuse_in_folded_block(policy::Refusal refusal);
    bool meets_our_block(const policy::Analysis* analysis) const;
    std::uint64_t owe_execute(const policy::Analysis* analysis);
    void execute_counted();
    void pass_execute(std::size_t total);
    void read_planning();
    std::string changes_as_it_commits() const;
    bool sync_follows(std::size_t bytes_before);
    void read_execute(const CountedPtr& terms);
    void execute_ran(const CountedPtr& terms, std::string_view message);
    void planning_unknown();
    void plan(const CountedPtr& terms);
    void planning_may_run(const policy::Judgement& judgement);
    void supervised_error(const Reply& reply, std::string_view message, std::string_view sqlstate);
    bool supervised_reply(char tag, const Reply& reply, const CountedPtr& terms,
                          std::string_view message);
    bool keep_report(std::string_view message);
    bool supervised_notice(Role role, std::string_view sqlstate) const;

    // hold.cpp
    static bool holds(const policy::Judgement& judgement);
    static bool may_be_held(const policy::Judgement& judgement);
    static bool holds_when_exceeding(const policy::Judgement& judgement);
    static bool may_wait(const PreparedStatement& statement);
    void forget_unnamed();
    bool mistakable(std::string_view name) const;
    StatementHandle held_behind(const policy::Analysis* analysis) const;
    void refuse_execute_of_what_is_held();
    bool must_hold();
    bool waits_for_claim() const;
    void client_left_hold();
    void server_left_hold();
    void start_hold(bool looks_only);
    void hold_step();
    void end_asking();
    void hold_drained();
    void hold_identified();
    void make_request();
    policy::Refusal store_failed_refusal(const approval::Failure& failure) const;
    policy::Refusal claim_failed_refusal(const approval::Failure& failure) const;
    policy::Refusal decided_refusal(const approval::Ticket& ticket) const;
    policy::Refusal undecided_refusal(bool waited) const;
    void stop_waiting();
    bool trial_possible() const;
    void seek_evidence();
    std::string statement_text(std::size_t index);
    std::ptrdiff_t characters_before(std::size_t index);
    void show(std::string bytes);
    void show_kept();
    bool unit_keeps(std::size_t total);
    bool group_keeps(std::size_t total);
    std::string replayed_portal() const;
    void replay_bind();
    void send_execute(std::size_t total);
    bool exceeded_group_waits();
    void exceeded_group_retreated();
    bool claims(const Reply& reply) const;
    bool group_exceeded() const;
    std::string held_bind();
    void start_exceeded(policy::Refusal refusal, const Effects& effects, const CountedPtr& terms);
    policy::Refusal exceeded_refusal(const TicketOpened& event) const;
    void exceed_unit(policy::Refusal refusal, const CountedPtr& terms);
    void exceeded_unit_identified();
    void exceeded_unit_retreated();
    void exceed_group(policy::Refusal refusal, const Effects& effects, const CountedPtr& terms);
    void exceeded_group_step();
    void end_exceeded_group(policy::Refusal refusal);
    bool exceeded_opens() const;
    void exceeded_opened(const TicketOpened& event);
    void run_for_evidence(const std::string& sql, Role role);
    void start_trial();
    void hold_tried();
    void retreat();
    void hold_retreated();
    void open_ticket();
    void tell_that_it_waits();
    void judge_held_again();
    void cleared(const approval::Ticket& ticket);
    void finish_claimed(std::string outcome);
    void claimed_runs(std::uint64_t sequence);
    void claimed_said(std::string_view tag);
    void claimed_failed(std::string_view why);
    void claimed_ended(char status);
    void end_hold();
    void clear_hold_deadlines();
    void refuse_held(policy::Refusal refusal);
    void give_back_approval();
    void withdraw_approval(std::string_view why);
    Identity nobody_yet() const;
    void fail_held_by_server();
    void abandon_hold(std::string_view why);
    void forget_ticket(std::string_view why, bool withdraw);
    void hold_deadline(DeadlineKind kind);
    std::optional<std::vector<std::optional<std::string>>> bound_parameters(
        std::size_t total, const PreparedStatement& statement);
    audit::Record ticket_record(std::string outcome, const approval::Ticket& ticket);
    void record_ticket(std::string outcome, const approval::Ticket& ticket, std::string comment);
    void record_own_ticket(std::string outcome, std::string comment);

    // answer.cpp
    static const policy::ChaperoneCall* call_in(const policy::Judgement& judgement,
                                                std::size_t index);
    static bool asks_chaperone(const policy::Judgement& judgement);
    void refuse_what_cannot_be_answered();
    void identify_for_piece();
    void ask_for_piece();
    void piece_answered();
    std::string answered_parse(PreparedStatement& statement);
    bool client_answered_bind(std::size_t total, const StatementHandle& handle);
    void answer_bind();
    void answer_step();
    void bind_answered();
    void send_answered_bind(std::string_view rows);
    void refuse_bind(policy::Refusal refusal);
    std::string rows_for_server(std::string_view rows) const;

    // server.cpp
    void read_server();
    bool server_message();
    bool server_login_message(char tag, std::size_t total);
    bool server_notice(std::size_t total);
    bool server_error(std::size_t total);
    void server_ready(char status, const Reply& reply);
    bool server_reply(char tag, std::size_t total);
    void pass_reply(std::size_t total, Disposition disposition);
    void server_gone_wrong(const std::string& why);
    void undo(Entry& entry);

    void say(Command command);
    void flush_outputs();
    void send_to_client(std::string bytes);
    void send_to_server(std::string bytes) { from_client_.insert(std::move(bytes)); }
    // Of a login: whether it is the server that has to say something now.
    bool login_waits_for_server() const;
    void close(std::string reason, Ending ending = Ending::ordinary);
    // Tells the client why (as FATAL) and closes.
    void fatal(policy::Refusal words, std::string reason);
    void half_close();

    Setup setup_;
    Upstream upstream_;
    policy::SessionFacts facts_;
    Phase phase_ = Phase::startup;
    Waiting waiting_ = Waiting::nothing;
    char transaction_status_ = 'I';
    // transaction_status_ as it will be when everything sent has succeeded.
    char predicted_status_ = 'I';
    std::uint64_t predicted_at_ = 0;  // the message that the prediction rests on
    bool pipeline_open_ = false;      // an Execute was sent since the last Sync
    bool bound_since_sync_ = false;   // a Bind was
    bool client_closed_ = false;
    bool client_poisoned_ = false;  // the client's bytes can't be read any more; the server will
                                    // say so
    bool client_terminated_ = false;
    bool half_closed_ = false;  // the server was told that the client sends nothing more
    bool served_ = false;       // something was answered behind the login
    bool server_said_fatal_ = false;
    bool server_raw_ = false;  // the server does not speak the protocol; what it says goes through
    bool server_closed_ = false;
    std::uint64_t policy_version_ = 0;

    IdleLimits idle_limits_;
    std::unique_ptr<Clocks> clocks_;      // null: nothing has had a time limit yet
    std::string cancel_key_;              // of the server's session
    Idleness idleness_ = Idleness::busy;  // as it was when it was last looked at
    bool idle_watched_ = false;           // a deadline is set for it
    bool client_spoke_ = false;           // since then

    Inlet from_client_;
    Inlet from_server_;
    std::uint64_t client_pass_bytes_ = 0;  // of the current message's body, still to pass unread
    std::uint64_t server_pass_bytes_ = 0;
    std::string behind_server_message_;  // for the client, once that has passed
    Fate client_pass_ = Fate::forward;
    Fate server_pass_ = Fate::forward;

    Ledger ledger_;
    Names names_;
    NamedTexts prepared_;  // by SQL
    NamedTexts cursors_;
    Settings settings_;
    OwnTables own_tables_;
    Pending pending_;
    std::chrono::system_clock::time_point judged_at_;
    std::unique_ptr<Supervision> supervision_;  // null: nothing has been supervised yet
    std::unique_ptr<Hold> hold_;                // null: nothing has been held yet
    std::unique_ptr<ClaimedTicket> claimed_;    // whose statement is about to run, or runs
    unsigned stale_claims_ = 0;                 // answers to come that nobody waits for any more
    unsigned stale_opens_ = 0;
    std::uint64_t unique_ = 0;
    // The last message sent that gives the name of a statement that may have to wait to another
    // one, or to none: until it is answered the name may stand for either.
    std::uint64_t renamed_held_ = 0;
    std::uint64_t last_ran_ = 0;  // the last message sent that runs something
    // The last statement on this session was refused because it was unbounded: its command tag and
    // the rule.
    std::optional<std::pair<std::string, std::string>> refused_unbounded_;
    std::deque<Command> commands_;
    Census census_;
    std::uint64_t statements_ = 0;        // that left a record
    std::vector<Followed> followed_;      // of what is pending: whose outcome is to be recorded
    std::unique_ptr<Outcomes> outcomes_;  // null: nothing was to be followed yet

    std::unique_ptr<Login> login_;  // what is only needed until the first ReadyForQuery
};

}  // namespace pgchaperone::session
