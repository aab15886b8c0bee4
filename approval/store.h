#pragma once
// Where tickets are kept. Used by one thread at a time (the desk's). Every call is one transaction:
// it has happened as a whole, durably, or not at all. Several processes may share a store where its
// kind allows it; `update` then excludes the others.

#include "approval/ticket.h"

#include <boost/system/result.hpp>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::approval {

class Store {
public:
    virtual ~Store() = default;

    // Gives `request` an id that no ticket had before, and keeps the ticket that `make` makes of
    // it. `reuse`: asked first for every open ticket with the same binding, oldest first; what it
    // makes of one that it takes is kept instead.
    using Make = std::function<Ticket(std::string id)>;
    using Change = std::function<Result<Ticket>(Ticket)>;
    using Reuse = std::function<std::optional<Ticket>(const Ticket&)>;
    virtual Result<Ticket> open(std::string_view binding, const Make& make, const Reuse& reuse) = 0;
    // Changes the ticket of this id. A failure of `change` is the answer and changes nothing.
    virtual Result<Ticket> update(std::string_view id, const Change& change) = 0;
    // Changes the first open ticket with this binding, oldest first, that `take` accepts.
    virtual Result<std::optional<Ticket>> claim(std::string_view binding, const Reuse& take) = 0;
    virtual Result<Ticket> find(std::string_view id) = 0;
    virtual Result<std::vector<Ticket>> open_tickets(std::size_t limit) = 0;  // oldest first
    virtual Result<std::vector<Ticket>> ended(std::size_t limit) = 0;         // latest first

    // Ids of tickets that others changed since the last call; waits up to `patience` for the first
    // where the store can tell, else returns at once. A failure: the connection to it is lost.
    virtual Result<std::vector<std::string>> changed(std::chrono::milliseconds patience) = 0;
    // A descriptor that becomes readable when changed() has something to say; -1: none.
    virtual int descriptor() const { return -1; }
    virtual std::string where() const = 0;  // for people: the file, or host and database
};

// A SQLite database in this file, made if it is not there (mode 0600). WAL, synchronous=FULL.
Result<std::unique_ptr<Store>> open_sqlite_store(const std::string& file);
// A PostgreSQL database, by libpq's connection string; tables are made in its schema `pgchaperone`.
Result<std::unique_ptr<Store>> open_postgres_store(const std::string& connection);

}  // namespace pgchaperone::approval
