#pragma once
// Where tickets are kept. Used by one thread at a time (the desk's). Every call is one transaction:
// it has happened as a whole, durably, or not at all; where its answer is a failure of the store
// itself (Problem::store_failed), it may have happened nevertheless, and changed() then tells of
// it. Several processes may share a store; a change excludes theirs meanwhile.
//
// No call waits for ever: each gives up within some seconds. After a failure the next call tries
// anew, with a new connection where one is needed.

#include "approval/ticket.h"

#include <boost/system/result.hpp>

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::approval {

class Store {
public:
    virtual ~Store() = default;

    // Functions that are handed in may be called more than once in a call, where a transaction has
    // to be tried again: they have no effects.
    using Make = std::function<Ticket(std::string id)>;
    using Change = std::function<Result<Ticket>(Ticket)>;
    using Take = std::function<std::optional<Ticket>(const Ticket&)>;

    // Gives the next id, which no ticket had before, and keeps the ticket that `make` makes of it.
    // `reuse` is asked first for every open ticket with the same binding, oldest first; what it
    // makes of one that it takes is kept instead.
    virtual Result<Ticket> open(std::string_view binding, const Make& make, const Take& reuse) = 0;
    // Changes the ticket of this id. A failure of `change` is the answer and changes nothing.
    virtual Result<Ticket> update(std::string_view id, const Change& change) = 0;
    // Changes the first open ticket with this binding, oldest first, that `take` accepts.
    virtual Result<std::optional<Ticket>> claim(std::string_view binding, const Take& take) = 0;
    virtual Result<Ticket> find(std::string_view id) = 0;
    // Those that are open, oldest first, or that have ended, latest first; from the beginning, or
    // behind `after`.
    virtual Result<std::vector<Ticket>> open_tickets(std::size_t limit,
                                                     const Ticket* after = nullptr) = 0;
    virtual Result<std::vector<Ticket>> ended(std::size_t limit, const Ticket* after = nullptr) = 0;

    // What others have changed since the last call, or since the store was opened; in the order in
    // which it became visible. Does not wait. What was changed by this store itself may be among
    // it.
    struct Changed {
        Ticket ticket;        // as it is now
        bool is_new = false;  // it was opened since
    };
    virtual Result<std::vector<Changed>> changed() = 0;
    // A descriptor that becomes readable when changed() may have something to say; -1: none, or
    // none now. It may be another one after any call.
    virtual int descriptor() const = 0;
    // Whether others have told of a change since changed() was called last, so that the descriptor
    // need not become readable for it any more.
    virtual bool told() const { return false; }
    // Whether the store can be written, by writing.
    virtual Result<void> check() = 0;
    virtual std::string where() const = 0;  // for people: the file, or host and database
};

// A SQLite database in this file, made if it is not there (mode 0600, its directory 0700). WAL,
// synchronous=FULL: what has been answered survives a loss of power. A file that is no database of
// tickets, that is damaged, or that a newer version has made is a failure and is left as it is.
Result<std::unique_ptr<Store>> open_sqlite_store(const std::string& file);
// A PostgreSQL database, by libpq's connection string; tables are made in its schema `pgchaperone`.
// The role needs CREATE on the database once, for the schema. Whoever can write to these tables can
// approve: let nobody else.
Result<std::unique_ptr<Store>> open_postgres_store(const std::string& connection);

}  // namespace pgchaperone::approval
