#pragma once
// Answers to what clients ask of pgchaperone itself: SHOW chaperone.… and CALL chaperone.…(…). The
// rows as JSON for the columns in proxy/session/virtual_schema.h, or why not. Who may see and do
// what is decided here and, for tickets, by approval/ticket.h. Thread-safe; knows no socket.

#include "approval/desk.h"
#include "audit/writer.h"
#include "policy/engine.h"
#include "policy/rule_book.h"
#include "policy/session_facts.h"
#include "proxy/net/counts.h"
#include "proxy/net/directory.h"
#include "proxy/net/webhook_sender.h"
#include "proxy/session/command.h"
#include "proxy/session/event.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace pgchaperone::net {

// How the audit log does.
struct AuditCounts {
    audit::Writer::Stats log;
    std::uint64_t unrecorded = 0;  // statements that ran without their record
    std::uint64_t overdue = 0;     // records that were waited for too long
    std::uint64_t sent = 0;        // by sinks besides the file
    std::uint64_t dropped = 0;
    std::uint64_t refused_unrecorded = 0;  // statements that did not run for want of it
};

// Since the start.
struct Reloads {
    std::uint64_t successes = 0;
    std::uint64_t failures = 0;
    std::chrono::system_clock::time_point last_success;  // at first: the start
};

// What came of a reload.
struct ReloadOutcome {
    std::string trouble;  // what is wrong; empty: nothing is
    bool policy_taken = false;
    std::string restart = {};  // keys of settings that have changed, and need one
};

// How the limits on sessions do.
struct ConnectionCounts {
    std::uint64_t taken = 0;    // places, by those who are logging in, too
    std::uint64_t refused = 0;  // since the start
};

class VirtualSchema {
public:
    // What it answers from; all of it outlives it.
    struct Sources {
        approval::Desk& desk;
        const policy::RuleBook& rules;
        const Directory& directory;
        // Does this on a thread that may take its time.
        std::function<void(std::function<void(policy::Engine&)>)> aside;
        // Loads the policy and the certificates anew, as this role wants. Called aside.
        std::function<ReloadOutcome(const std::string& role)> reload;
        std::function<WebhookStats()> webhooks;  // may be empty: there are none
        std::string store;                       // where tickets are kept, for people
        std::function<approval::Time()> now = std::chrono::system_clock::now;
        std::function<AuditCounts()> audit = {};             // empty: there is no audit log
        std::function<std::string()> environment = {};       // empty, or its answer: it has no name
        std::function<ConnectionCounts()> connections = {};  // empty: nobody counts them
        std::function<Traffic()> traffic = {};               // empty, and the next: not counted
        std::function<Reloads()> reloads = {};
        std::string upstream = {};  // the name of the server at which it is asked
    };
    explicit VirtualSchema(Sources sources) : sources_(std::move(sources)) {}
    VirtualSchema(const VirtualSchema&) = delete;
    VirtualSchema& operator=(const VirtualSchema&) = delete;

    static constexpr std::size_t rows_max = 1000;              // of a list
    static constexpr std::size_t statement_characters = 1000;  // of it, where many are shown

    // `asker`: of the session that asks. Who asks is `question.person`, by the server's word.
    // `then` is called once: at once, or later on another thread; it must be quick.
    using Then = std::function<void(session::ChaperoneAnswer)>;
    void ask(session::AskChaperone question, const policy::SessionFacts& asker, Then then);

private:
    void pending(approval::Person person, Then then);
    void ticket(std::string id, approval::Person person, Then then);
    void history(approval::Person person, Then then);
    session::ChaperoneAnswer sessions(const approval::Person& person, std::uint64_t own) const;
    session::ChaperoneAnswer rules() const;
    session::ChaperoneAnswer version() const;
    session::ChaperoneAnswer stats() const;
    void vote(session::AskChaperone question, bool approve, Then then);
    void withdraw(session::AskChaperone question, Then then);
    void explain(std::string sql, policy::SessionFacts asker, Then then);
    void reload(const approval::Person& person, Then then);

    Sources sources_;
};

}  // namespace pgchaperone::net
