// Sessions that do nothing. Idle is what PostgreSQL calls so: the last statement is answered, the
// next has not come. Notifications that come meanwhile change nothing.
//
//   ReadyForQuery, nothing owed -> SetDeadline{idle} -> a statement    -> ClearDeadline{idle}
//                                                    -> Deadline{idle} -> FATAL, Terminate, Close

#include "proxy/session/refusal.h"
#include "proxy/session/session.h"

#include <utility>

namespace pgchaperone::session {

Session::Idleness Session::idleness() const {
    if (phase_ != Phase::relay || facts_.replication) return Idleness::busy;
    if (client_closed_ || client_terminated_ || client_poisoned_) return Idleness::busy;
    if (waiting_ != Waiting::nothing || !ledger_.idle() || ledger_.skipping()) {
        return Idleness::busy;
    }
    if (client_pass_bytes_ > 0 || pipeline_open_ || bound_since_sync_) return Idleness::busy;
    return transaction_status_ == 'I' ? Idleness::outside : Idleness::in_transaction;
}

std::chrono::milliseconds Session::idle_limit(Idleness idleness) const {
    switch (idleness) {
        case Idleness::busy: break;
        case Idleness::outside: return idle_limits_.outside;
        case Idleness::in_transaction: return idle_limits_.in_transaction;
    }
    return std::chrono::milliseconds(0);
}

void Session::handle(const IdleLimits& event) {
    idle_limits_ = event;
    client_spoke_ = true;  // what is idle already has the new time from now on
}

// After every event: sets or clears the deadline where that has changed anything.
void Session::watch_idleness() {
    const bool spoke = std::exchange(client_spoke_, false);
    if (phase_ == Phase::closed) return;
    const Idleness before = std::exchange(idleness_, idleness());
    const std::chrono::milliseconds limit = idle_limit(idleness_);
    if (limit.count() == 0) {
        if (std::exchange(idle_watched_, false)) {
            commands_.push_back(ClearDeadline{DeadlineKind::idle});
        }
        return;
    }
    // A client that sends a long statement slowly is not idle.
    if (idle_watched_ && idleness_ == before && !spoke) return;
    idle_watched_ = true;
    commands_.push_back(SetDeadline{DeadlineKind::idle, limit});
}

void Session::idle_for_too_long() {
    const Idleness idleness = this->idleness();
    const std::chrono::milliseconds limit = idle_limit(idleness);
    if (limit.count() == 0) return;
    const bool outside = idleness == Idleness::outside;
    const std::string setting = outside ? "idle_timeout" : "idle_in_transaction_timeout";
    census_.took_too_long(outside ? TimeLimitKind::idle : TimeLimitKind::idle_in_transaction);
    say_good_bye_to_server();
    fatal({outside ? "57P05" : "25P03",
           outside ? "pgchaperone: terminating connection due to idle-session timeout"
                   : "pgchaperone: terminating connection due to idle-in-transaction timeout",
           setting + " is " + limit_text(limit) + "." +
               (outside ? "" : " The transaction is rolled back."),
           outside ? "Connect again." : "Connect again, and end transactions when they are done."},
          "idle for longer than " + setting);
}

}  // namespace pgchaperone::session
