#pragma once
// The desk: where tickets are opened, decided and claimed. Thread-safe; owns one thread, on which
// the store is used and every callback is called, so that nobody on the way of a query waits for a
// disk. Callbacks must be quick: they hand what they got to somebody else.
//
// When the store fails, everything answers with Problem::store_failed at once until it works again;
// the desk tries by itself. What has no answer (release, withdraw, finish) is done then.
//
// Who wins where two want to change a ticket is settled in the store's transactions alone. A desk
// keeps in memory only which tickets are open, to tell what happened to them and when they expire.

#include "approval/happened.h"
#include "approval/store.h"
#include "approval/ticket.h"

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::approval {

struct DeskOptions {
    std::string replica;  // names this process among those that share the store
    // False: another process of this name has sessions that wait, until alone() is called. What
    // nobody of this process waits for is left alone until then.
    bool alone = true;
    // Of this process's own doing, or told by the store; may be empty. Of all replicas exactly one
    // is told of each as its own: an expiry is that of whoever noted it, the others' is who asked.
    std::function<void(const Happened&)> on_happened;
    std::function<void(std::string_view)> on_notice;  // troubles, for the log; may be empty
    std::function<Time()> now = std::chrono::system_clock::now;
    std::size_t queue_max = 10'000;  // past it everything is answered with store_failed
    // How often it looks for what others did, where the store does not tell by itself, and what the
    // time is. An expiry may be this late.
    std::chrono::milliseconds poll{500};
};

class Desk {
public:
    template <class T>
    using Then = std::function<void(Result<T>)>;

    Desk(std::unique_ptr<Store> store, DeskOptions options);
    ~Desk();  // what is queued is answered first
    Desk(const Desk&) = delete;
    Desk& operator=(const Desk&) = delete;

    // Opens a ticket and watches it: `decided` is called once when it is approved, denied, expired
    // or withdrawn by others, at this replica or another. If the same requester has one open with
    // the same binding for which no session waits, that one is taken up again (see taken_up): the
    // answer is then that ticket, maybe approved already. One that is approved already, or opened
    // by glass and so used already, is not watched.
    void open(Request request, Then<Ticket> then, std::function<void(const Ticket&)> decided);
    // Takes an approval, if there is one: then it is used, and nobody can take it again. An answer
    // without a ticket: there is none. Where Claim::ticket names one that can't be taken, the
    // failure says why.
    void claim(Claim claim, Then<std::optional<Ticket>> then);
    // The session has given up waiting, or its client wants it no more. No answer; unwatches.
    void release(std::string id);
    void withdraw(std::string id, std::string why);
    // What became of a used ticket's run.
    void finish(std::string id, std::string outcome);

    // `provided` is asked about the ticket as it is when the vote is to count, and may refuse; it
    // has no effects, and may be asked more than once. Empty: nothing more is asked.
    using Provided = std::function<std::optional<Failure>(const Ticket&)>;
    void vote(std::string id, Person by, bool approve, std::string comment, Then<Ticket> then,
              Provided provided = {});
    void withdraw(std::string id, Person by, std::string comment, Then<Ticket> then);
    // One ticket, with whatever case its id is written in. Problem::unknown_ticket where `person`
    // may not see it.
    void find(std::string id, Person person, Then<Ticket> then);
    // What is pending or approved, oldest first; what has ended, latest first; as far as `person`
    // may see it and at most `limit`. Of each without its parameters, and with no more of its
    // statement than listed_statement_bytes.
    static constexpr std::size_t listed_statement_bytes = 8 * 1024;
    void open_tickets(Person person, std::size_t limit, Then<std::vector<Ticket>> then);
    void history(Person person, std::size_t limit, Then<std::vector<Ticket>> then);

    // The other process of this name has ended: tickets for which it waited, and which it has not
    // let go of, are freed, as they are at a start.
    void alone();

    // Whether there may be an approved ticket that a run of this role's could claim: without a
    // lock where there is none at all, from any thread. True may be wrong; false is right for what
    // was approved at this replica, and within a second for others.
    bool may_be_approved(std::string_view role, std::string_view database) const noexcept;

    struct Stats {
        std::uint64_t opened = 0, approved = 0, denied = 0, expired = 0, withdrawn = 0, used = 0;
        std::uint64_t glass = 0, store_failures = 0;
        std::size_t waiting = 0;                  // watched now
        std::chrono::nanoseconds oldest_wait{0};  // of these; 0: there is none
        bool down = false;                        // the store fails
    };
    Stats stats() const;  // of this process, since its start

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace pgchaperone::approval
