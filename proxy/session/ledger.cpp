#include "proxy/session/ledger.h"

#include <boost/assert.hpp>

#include <algorithm>
#include <utility>

namespace pgchaperone::session {

namespace {

constexpr std::size_t capacity_idle = 16;
constexpr std::size_t capacity_kept = 256;

bool ends_with_ready_for_query(Owed owed) {
    return owed == Owed::query || owed == Owed::function_call || owed == Owed::sync;
}

// Whether a backend message of this tag can be a reply to a message of this kind, errors apart.
bool can_answer(Owed owed, char tag) {
    switch (owed) {
        case Owed::query:
            switch (tag) {
                case 'T':
                case 'D':
                case 'C':
                case 'I':
                case 'G':
                case 'H':
                case 'W':
                case 'd':
                case 'c':
                case 'Z': return true;
                default: return false;
            }
        case Owed::function_call: return tag == 'V' || tag == 'Z';
        case Owed::parse: return tag == '1';
        case Owed::bind: return tag == '2';
        case Owed::describe_statement: return tag == 't' || tag == 'T' || tag == 'n';
        case Owed::describe_portal: return tag == 'T' || tag == 'n';
        case Owed::execute:
            switch (tag) {
                case 'D':
                case 'C':
                case 'I':
                case 's':
                case 'G':
                case 'H':
                case 'd':
                case 'c': return true;
                default: return false;
            }
        case Owed::close: return tag == '3';
        case Owed::sync: return tag == 'Z';
        case Owed::copy_end: return false;
    }
    return false;
}

}  // namespace

Ledger::Ledger() : entries_(capacity_idle) {}

Entry& Ledger::push(Entry entry) {
    if (entries_.full()) entries_.set_capacity(entries_.capacity() * 2);
    entries_.push_back(std::move(entry));
    return entries_.back();
}

Entry Ledger::pop() {
    Entry entry = std::move(entries_.front());
    entries_.pop_front();
    if (entries_.empty() && entries_.capacity() > capacity_kept)
        entries_.set_capacity(capacity_idle);
    return entry;
}

void Ledger::drop(std::size_t index) {
    Entry entry = std::move(entries_[index]);
    entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(index));
    if (undone_) undone_(entry);
}

std::uint64_t Ledger::sent(Owed owed, Disposition disposition, std::unique_ptr<Extra> extra,
                           Role role) {
    BOOST_ASSERT(!skipping_ || owed == Owed::sync);
    Entry entry;
    entry.owed = owed;
    entry.disposition = disposition;
    entry.role = role;
    entry.extra = std::move(extra);
    entry.sequence = ++sequence_;
    entry.unsure = copy_in_open();
    // Behind a Sync that the server may have ignored, one of the two may be answered, or both.
    if (owed == Owed::sync) {
        const auto before = std::find_if(entries_.rbegin(), entries_.rend(), [](const Entry& one) {
            return one.owed != Owed::copy_end;
        });
        const bool doubtful = before != entries_.rend() && before->unsure &&
                              before->owed == Owed::sync;
        entry.unsure = entry.unsure || doubtful;
    }
    if (owed == Owed::sync) skipping_ = false;
    if (owed == Owed::copy_end && entries_.empty()) return sequence_;  // the server ignores it
    push(std::move(entry));
    return sequence_;
}

bool Ledger::copy_in_open() const {
    if (entries_.empty() || !entries_.front().copying_in) return false;
    return std::none_of(entries_.begin(), entries_.end(),
                        [](const Entry& entry) { return entry.owed == Owed::copy_end; });
}

bool Ledger::idle() const {
    return std::all_of(entries_.begin(), entries_.end(), [](const Entry& entry) {
        return entry.owed == Owed::copy_end || (entry.unsure && entry.owed == Owed::sync);
    });
}

bool Ledger::nothing_runs() const {
    return std::all_of(entries_.begin(), entries_.end(), [](const Entry& entry) {
        if (entry.role == Role::ours || entry.role == Role::reading ||
            entry.role == Role::identity) {
            return true;
        }
        switch (entry.owed) {
            case Owed::parse:
            case Owed::bind:
            case Owed::describe_statement:
            case Owed::describe_portal:
            case Owed::close:
            case Owed::copy_end: return true;
            case Owed::query:
            case Owed::function_call:
            case Owed::execute:
            case Owed::sync: return false;
        }
        return false;
    });
}

std::vector<std::shared_ptr<const PreparedStatement>> Ledger::replaced(
    std::string_view name) const {
    std::vector<std::shared_ptr<const PreparedStatement>> out;
    for (const Entry& entry : entries_) {
        if ((entry.owed == Owed::parse || entry.owed == Owed::close) && entry.extra &&
            entry.extra->previous && entry.extra->name == name) {
            out.push_back(entry.extra->previous);
        }
    }
    return out;
}

const Entry* Ledger::running() const {
    for (const Entry& entry : entries_) {
        const bool runs = ends_with_ready_for_query(entry.owed) || entry.owed == Owed::execute;
        const bool clients = entry.role == Role::client || entry.role == Role::piece ||
                             entry.role == Role::counted || entry.role == Role::adopts ||
                             entry.role == Role::trial;
        if (runs && clients) return &entry;
    }
    return nullptr;
}

Disposition Ledger::front_disposition() const {
    for (const Entry& entry : entries_) {
        if (entry.owed != Owed::copy_end) return entry.disposition;
    }
    return Disposition::forward;
}

Role Ledger::front_role() const {
    for (const Entry& entry : entries_) {
        if (entry.owed != Owed::copy_end) return entry.role;
    }
    return Role::client;
}

std::shared_ptr<const Counted> Ledger::front_counted() const {
    for (const Entry& entry : entries_) {
        if (entry.owed != Owed::copy_end) return entry.extra ? entry.extra->counted : nullptr;
    }
    return nullptr;
}

bool Ledger::front_hides_parameter() const {
    for (const Entry& entry : entries_) {
        if (entry.owed != Owed::copy_end) return entry.extra && entry.extra->hides_parameter;
    }
    return false;
}

std::vector<std::string> Ledger::hide_rest() {
    std::vector<std::string> parsed;
    for (Entry& entry : entries_) {
        if (entry.owed == Owed::sync) break;
        if (entry.owed == Owed::parse && entry.disposition == Disposition::forward && entry.extra) {
            parsed.push_back(entry.extra->name);
        }
        entry.disposition = Disposition::swallow;
        if (entry.role == Role::counted || entry.role == Role::adopts) entry.role = Role::ours;
    }
    return parsed;
}

bool Ledger::owes_client() const {
    return std::any_of(entries_.begin(), entries_.end(), [](const Entry& entry) {
        return entry.disposition != Disposition::swallow && entry.owed != Owed::copy_end;
    });
}

bool Ledger::owes_ready() const {
    return std::any_of(entries_.begin(), entries_.end(), [](const Entry& entry) {
        return ends_with_ready_for_query(entry.owed) && !(entry.unsure && entry.owed == Owed::sync);
    });
}

void Ledger::pop_markers() {
    while (!entries_.empty() && entries_.front().owed == Owed::copy_end) entries_.pop_front();
}

Reply Ledger::part(Disposition disposition) const {
    Reply reply;
    reply.kind = Reply::Kind::part;
    reply.disposition = disposition;
    reply.role = entries_.front().role;
    reply.owed = entries_.front().owed;
    reply.sequence = entries_.front().sequence;
    return reply;
}

Reply Ledger::settle(bool error) {
    Entry entry = pop();
    if (error && undone_) undone_(entry);
    Reply reply;
    reply.kind = Reply::Kind::done;
    reply.disposition = entry.disposition;
    reply.role = entry.role;
    reply.owed = entry.owed;
    reply.first_error = error;
    reply.failed = error || entry.errored;
    reply.synced = !error && ends_with_ready_for_query(entry.owed);
    reply.sequence = entry.sequence;
    reply.extra = std::move(entry.extra);
    return reply;
}

// An error in the extended protocol: the entry is done, and the server drops all up to the next
// Sync.
Reply Ledger::fail_extended() {
    Reply reply = settle(true);
    while (!entries_.empty() && entries_.front().owed != Owed::sync) drop(0);
    skipping_ = entries_.empty();
    return reply;
}

// The server ended a COPY with an error. Whether it had already read (and ignored) a Sync that the
// client sent among the data can't be seen; such a Sync stays `unsure`, and so does the one after
// it, until the next reply tells.
Reply Ledger::failed_in_copy(bool protocol_violation) {
    entries_.front().copying_in = false;
    if (protocol_violation) {
        // The server took the first message that does not belong into a COPY and threw it away.
        for (std::size_t i = 1; i < entries_.size() && entries_[i].owed != Owed::copy_end; ++i) {
            if (entries_[i].owed == Owed::sync) continue;
            drop(i);
            break;
        }
    }
    bool ambiguous = false;
    for (std::size_t i = 1; i < entries_.size(); ++i) {
        if (entries_[i].owed != Owed::sync) continue;
        if (entries_[i].unsure) {
            ambiguous = true;
        } else if (ambiguous) {
            entries_[i].unsure = true;
            break;
        }
    }
    if (entries_.front().owed == Owed::execute) return fail_extended();
    entries_.front().errored = true;
    Reply reply = part(entries_.front().disposition);
    reply.first_error = true;
    return reply;
}

void Ledger::start_copy_in() {
    entries_.front().copying_in = true;
    for (std::size_t i = 1; i < entries_.size() && entries_[i].owed != Owed::copy_end; ++i) {
        entries_[i].unsure = true;
    }
}

// The COPY ended well, so the server read everything up to the client's CopyDone as part of it.
void Ledger::finish_copy_in() {
    entries_.front().copying_in = false;
    while (entries_.size() > 1) {
        const Entry& entry = entries_[1];
        const bool end = entry.owed == Owed::copy_end;
        if (!end && !(entry.unsure && entry.owed == Owed::sync)) break;
        entries_.erase(entries_.begin() + 1);
        if (end) break;
    }
}

Reply Ledger::ready_for_query() {
    Reply reply = settle(false);
    pop_markers();
    return reply;
}

Reply Ledger::received(char tag, bool protocol_violation) {
    pop_markers();
    // A Sync that the server may have ignored and that the next reply does not answer was ignored.
    while (!entries_.empty() && entries_.front().unsure && entries_.front().owed == Owed::sync &&
           tag != 'Z') {
        entries_.pop_front();
        pop_markers();
    }
    if (entries_.empty()) {
        Reply reply;
        reply.kind = tag == 'E' ? Reply::Kind::unsolicited : Reply::Kind::impossible;
        return reply;
    }
    Entry& front = entries_.front();
    if (tag == 'E') {
        if (front.copying_in) return failed_in_copy(protocol_violation);
        if (!ends_with_ready_for_query(front.owed)) return fail_extended();
        front.errored = true;
        Reply reply = part(front.disposition);
        reply.first_error = true;
        reply.extra = std::move(front.extra);
        return reply;
    }
    if (!can_answer(front.owed, tag)) {
        Reply reply;
        reply.kind = Reply::Kind::impossible;
        return reply;
    }
    switch (tag) {
        case 'Z': return ready_for_query();
        case 'G': start_copy_in(); return part(front.disposition);
        case 'C':
            if (front.copying_in) finish_copy_in();
            return front.owed == Owed::execute ? settle(false) : part(front.disposition);
        case 'I':
        case 's': return front.owed == Owed::execute ? settle(false) : part(front.disposition);
        case '1':
        case '2':
        case '3':
        case 'n': return settle(false);
        case 'T': return front.owed == Owed::query ? part(front.disposition) : settle(false);
        default: return part(front.disposition);
    }
}

}  // namespace pgchaperone::session
