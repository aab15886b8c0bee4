#include "sim/dialogue.h"

#include "protocol/codec.h"
#include "protocol/head.h"
#include "protocol/messages.h"

#include <algorithm>
#include <utility>

namespace pgchaperone::sim {

namespace {

bool is_simple(char tag) { return tag == 'Q' || tag == 'F'; }

bool ends_transaction(const std::vector<Statement>& statements) {
    return std::any_of(statements.begin(), statements.end(), [](const Statement& statement) {
        return statement.verb == Verb::commit || statement.verb == Verb::rollback ||
               statement.verb == Verb::prepare_transaction;
    });
}

// How a statement's CommandComplete begins.
std::string_view tag_of(Verb verb) {
    switch (verb) {
        case Verb::select_rows:
        case Verb::select_constant:
        case Verb::purge:
        case Verb::make_function:
        case Verb::wipe:
        case Verb::with_remove: return "SELECT ";
        case Verb::explain_remove: return "EXPLAIN";
        case Verb::call_sweep: return "CALL";
        case Verb::prepare: return "PREPARE";
        case Verb::deallocate: return "DEALLOCATE";
        case Verb::insert: return "INSERT 0 ";
        case Verb::update: return "UPDATE ";
        case Verb::remove: return "DELETE ";
        case Verb::do_purge: return "DO";
        case Verb::truncate: return "TRUNCATE TABLE";
        case Verb::copy_in:
        case Verb::copy_out: return "COPY ";
        case Verb::savepoint: return "SAVEPOINT";
        case Verb::release: return "RELEASE";
        case Verb::rollback:
        case Verb::rollback_to: return "ROLLBACK";
        case Verb::commit_prepared: return "COMMIT PREPARED";
        case Verb::rollback_prepared: return "ROLLBACK PREPARED";
        case Verb::set_application_name:
        case Verb::set_transaction: return "SET";
        case Verb::set_constraints: return "SET CONSTRAINTS";
        case Verb::declare_cursor: return "DECLARE CURSOR";
        case Verb::fetch: return "FETCH ";
        case Verb::close_cursor: return "CLOSE CURSOR";
        case Verb::vacuum: return "VACUUM";
        // BEGIN or START TRANSACTION; COMMIT or ROLLBACK; PREPARE TRANSACTION or ROLLBACK
        // What EXECUTE runs tells.
        case Verb::execute:
        case Verb::begin:
        case Verb::commit:
        case Verb::prepare_transaction:
        case Verb::empty:
        case Verb::syntax_error:
        case Verb::guard: return "";
    }
    return "";
}

}  // namespace

void Dialogue::sent(char tag, std::vector<Statement> statements) {
    switch (tag) {
        case 'c':
        case 'f':
            for (auto owed = owed_.rbegin(); owed != owed_.rend(); ++owed) {
                if (owed->tag != 'E' && owed->tag != 'Q') continue;
                owed->copy_ended = true;
                break;
            }
            return;
        case 'd':
        case 'H':
        case 'X': return;
        default: break;
    }
    // The server ignores it while it reads COPY data.
    if (tag == 'S' && copying() && !owed_.front().copy_ended) return;
    if (skipping_ && tag != 'S') return;
    skipping_ = false;
    Owed owed;
    owed.tag = tag;
    owed.statements = std::move(statements);
    owed_.push_back(std::move(owed));
}

std::size_t Dialogue::ready_owed() const {
    return static_cast<std::size_t>(std::count_if(owed_.begin(), owed_.end(), [](const Owed& owed) {
        return is_simple(owed.tag) || owed.tag == 'S';
    }));
}

bool Dialogue::copy_awaited() const {
    return std::any_of(owed_.begin(), owed_.end(), [](const Owed& owed) {
        return !owed.copying && !owed.errored &&
               std::any_of(owed.statements.begin() + static_cast<std::ptrdiff_t>(owed.next),
                           owed.statements.end(),
                           [](const Statement& s) { return s.verb == Verb::copy_in; });
    });
}

bool Dialogue::copy_failed() const {
    if (owed_.empty() || !owed_.front().errored) return false;
    const Statement* const statement = current();
    return statement != nullptr && statement->verb == Verb::copy_in;
}

const Statement* Dialogue::current() const {
    const Owed& front = owed_.front();
    return front.next < front.statements.size() ? &front.statements[front.next] : nullptr;
}

std::optional<std::string> Dialogue::surprise(char tag) const {
    std::string words = "a message '";
    words += tag;
    words += owed_.empty() ? "' although nothing is owed"
                           : std::string("' in answer to a '") + owed_.front().tag + "'";
    return words;
}

std::optional<std::string> Dialogue::login(char tag) {
    switch (tag) {
        case 'R':
        case 'K':
        case 'S':
        case 'N':
        case 'v': return std::nullopt;
        case 'Z': logged_in_ = true; return std::nullopt;
        default: return std::string("a message '") + tag + "' during the login";
    }
}

std::optional<std::string> Dialogue::received(std::string_view message) {
    const char tag = message[0];
    const std::string_view body = message.substr(protocol::head_size);
    if (fatal_) return "a message behind a FATAL error";
    if (tag == 'E') return error(body);
    if (!logged_in_) return login(tag);
    if (tag == 'N' || tag == 'A' || tag == 'S') return std::nullopt;
    if (owed_.empty()) return surprise(tag);
    Owed& front = owed_.front();
    if (tag == 'Z') return ready(body);
    if (front.errored) return surprise(tag);
    const bool runs = front.tag == 'Q' || front.tag == 'E';
    const Statement* const statement = current();
    switch (tag) {
        case 'C': return runs && statement != nullptr ? complete(body) : surprise(tag);
        case 'I':
            if (!runs || front.empty_answered) return surprise(tag);
            if (statement != nullptr && statement->verb != Verb::empty) return surprise(tag);
            front.empty_answered = true;
            if (front.tag == 'E') owed_.pop_front();
            return std::nullopt;
        case 'T':
            if (front.tag == 'D') {
                owed_.pop_front();
                return std::nullopt;
            }
            return front.tag == 'Q' && statement != nullptr && statement->returns_rows()
                       ? std::nullopt
                       : surprise(tag);
        case 'D':
            return runs && statement != nullptr && statement->returns_rows() ? std::nullopt
                                                                             : surprise(tag);
        case 's':
            if (front.tag != 'E') return surprise(tag);
            owed_.pop_front();
            return std::nullopt;
        case 't':
            if (front.tag != 'D' || front.described) return surprise(tag);
            front.described = true;
            return std::nullopt;
        case 'n':
            if (front.tag != 'D') return surprise(tag);
            owed_.pop_front();
            return std::nullopt;
        case '1':
        case '2':
        case '3': {
            const char answers = tag == '1' ? 'P' : tag == '2' ? 'B' : 'C';
            if (front.tag != answers) return surprise(tag);
            owed_.pop_front();
            return std::nullopt;
        }
        case 'V':
            if (front.tag != 'F' || front.empty_answered) return surprise(tag);
            front.empty_answered = true;
            return std::nullopt;
        case 'G': return copy_begins();
        case 'H':
        case 'd':
        case 'c':
            return runs && statement != nullptr && statement->verb == Verb::copy_out
                       ? std::nullopt
                       : surprise(tag);
        default: return surprise(tag);
    }
}

std::optional<std::string> Dialogue::copy_begins() {
    Owed& front = owed_.front();
    const Statement* const statement = current();
    if (statement == nullptr || statement->verb != Verb::copy_in || front.copying) {
        return surprise('G');
    }
    front.copying = true;
    // A Sync right behind the Execute is read, and ignored, by the COPY.
    // (One that came behind the end of the data counts.)
    if (front.tag == 'E' && owed_.size() == 2 && owed_[1].tag == 'S' && !front.copy_ended) {
        owed_.pop_back();
    }
    return std::nullopt;
}

void Dialogue::settled(const Statement& statement) {
    switch (statement.verb) {
        case Verb::begin: block_ = true; break;
        case Verb::commit:
        case Verb::rollback:
            block_ = statement.chain;
            failed_ = false;
            break;
        case Verb::prepare_transaction: block_ = failed_ = false; break;
        case Verb::rollback_to: failed_ = false; break;
        default: break;
    }
}

std::optional<std::string> Dialogue::complete(std::string_view body) {
    Owed& front = owed_.front();
    const Statement& statement = *current();
    if (!body.starts_with(tag_of(statement.verb))) {
        return "CommandComplete \"" + std::string(body.substr(0, body.size() - 1)) + "\" for " +
               statement.text;
    }
    if (statement.verb == Verb::copy_in && !front.copying) return "a COPY ended before it began";
    settled(statement);
    front.copying = false;
    ++front.next;
    if (front.tag == 'E') owed_.pop_front();
    return std::nullopt;
}

std::optional<std::string> Dialogue::error(std::string_view body) {
    const auto response = protocol::decode<protocol::ErrorResponse>(body);
    if (response.has_error()) return "an ErrorResponse that can't be read";
    const auto severity = response->find('V');
    if (severity && (*severity == "FATAL" || *severity == "PANIC")) {
        fatal_ = true;
        return std::nullopt;
    }
    if (!logged_in_) return std::nullopt;
    if (owed_.empty()) return surprise('E');
    Owed& front = owed_.front();
    if (front.errored) return "a second error for the same request";
    const Statement* const statement = current();
    const Verb verb = statement != nullptr ? statement->verb : Verb::empty;
    // A COMMIT that fails has ended the transaction, unless it was stopped before it ran.
    if (verb == Verb::commit || verb == Verb::prepare_transaction) unsure_ = true;
    if (block_) failed_ = true;
    front.copying = false;
    if (is_simple(front.tag) || front.tag == 'S') {
        front.errored = true;
        return std::nullopt;
    }
    // The guard refuses by what it reads behind a statement, and the end of the transaction that
    // follows in the same group may have run by then.
    const bool refused = response->find('M').value_or("").starts_with("pgchaperone");
    while (!owed_.empty() && owed_.front().tag != 'S') {
        if (refused && ends_transaction(owed_.front().statements)) unsure_ = true;
        owed_.pop_front();
    }
    skipping_ = owed_.empty();
    return std::nullopt;
}

std::optional<std::string> Dialogue::ready(std::string_view body) {
    const Owed& front = owed_.front();
    if (!is_simple(front.tag) && front.tag != 'S') return surprise('Z');
    if (front.tag == 'Q' && !front.errored && !front.empty_answered &&
        front.next < front.statements.size()) {
        return "ReadyForQuery before the end of " + front.statements[front.next].text;
    }
    const char status = body.empty() ? '?' : body[0];
    const char expected = !block_ ? 'I' : failed_ ? 'E' : 'T';
    owed_.pop_front();
    if (std::exchange(unsure_, false)) {
        block_ = status != 'I';
        failed_ = status == 'E';
        return std::nullopt;
    }
    if (status == expected) return std::nullopt;
    return std::string("ReadyForQuery with transaction status '") + status + "' where '" +
           expected + "' is due";
}

}  // namespace pgchaperone::sim
