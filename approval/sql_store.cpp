#include "approval/sql_store.h"

#include "approval/ticket_json.h"

#include <charconv>
#include <utility>

namespace pgchaperone::approval {
namespace {

using Value = Database::Value;
using Row = Database::Row;
using Rows = Database::Rows;

std::int64_t moment(Time time) {
    return std::chrono::floor<std::chrono::microseconds>(time.time_since_epoch()).count();
}

Failure damaged(std::string what) {
    return {Problem::store_failed, "the approval store is damaged: " + std::move(what), ""};
}

Result<std::int64_t> number_at(const Rows& rows) {
    std::int64_t number = 0;
    if (rows.empty() || rows[0].empty() || !rows[0][0]) return damaged("its counter is missing");
    const std::string& text = *rows[0][0];
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size())
        return damaged("its counter is no number");
    return number;
}

Result<Ticket> ticket_at(const Row& row) {
    if (!row.empty() && row[0])
        if (auto ticket = ticket_of(*row[0])) return std::move(*ticket);
    return damaged("a ticket in it can't be read");
}

Result<std::vector<Ticket>> tickets_in(const Rows& rows) {
    std::vector<Ticket> tickets;
    tickets.reserve(rows.size());
    for (const Row& row : rows) {
        auto ticket = ticket_at(row);
        if (!ticket) return ticket.error();
        tickets.push_back(std::move(*ticket));
    }
    return tickets;
}

class SqlStore final : public Store {
public:
    SqlStore(std::unique_ptr<Database> database, const std::string& prefix)
        : database_(std::move(database)),
          tickets_(prefix + "tickets"),
          counter_(prefix + "counter") {}

    // From here on changed() tells.
    Result<void> start() {
        auto cursor = transaction<std::int64_t>(false, [this]() -> Result<std::int64_t> {
            auto rows = database_->run("SELECT changes FROM " + counter_);
            if (!rows) return rows.error();
            return number_at(*rows);
        });
        if (!cursor) return Result<void>(cursor.error());
        cursor_ = *cursor;
        return {};
    }

    Result<Ticket> open(std::string_view binding, const Make& make, const Take& reuse) override {
        return transaction<Ticket>(true, [&]() -> Result<Ticket> {
            auto taken = take_first(binding, reuse);
            if (!taken) return taken.error();
            if (*taken) return std::move(**taken);
            auto counted = database_->run("UPDATE " + counter_ +
                                          " SET tickets = tickets + 1 RETURNING tickets");
            if (!counted) return counted.error();
            auto number = number_at(*counted);
            if (!number) return number.error();
            Ticket ticket = make(id_of(static_cast<std::uint64_t>(*number)));
            auto inserted = insert(ticket, *number);
            if (!inserted) return inserted.error();
            return ticket;
        });
    }

    Result<Ticket> update(std::string_view id, const Change& change) override {
        const auto number = number_of(id);
        if (!number) return no_such_ticket(id);
        return transaction<Ticket>(true, [&]() -> Result<Ticket> {
            auto before = read(id, *number, database_->for_update());
            if (!before) return before.error();
            auto after = change(*before);
            if (!after) return after.error();
            auto kept = keep(*before, *after);
            if (!kept) return kept.error();
            return after;
        });
    }

    Result<std::optional<Ticket>> claim(std::string_view binding, const Take& take) override {
        return transaction<std::optional<Ticket>>(true, [&] { return take_first(binding, take); });
    }

    Result<Ticket> find(std::string_view id) override {
        const auto number = number_of(id);
        if (!number) return no_such_ticket(id);
        return transaction<Ticket>(false, [&] { return read(id, *number, ""); });
    }

    Result<std::vector<Ticket>> open_tickets(std::size_t limit, const Ticket* after) override {
        const std::int64_t from = after ? number_in(*after) : 0;
        return list("SELECT body FROM " + tickets_ +
                        " WHERE state IN ('pending', 'approved') AND number > $1 ORDER BY number",
                    {from}, limit);
    }

    Result<std::vector<Ticket>> ended(std::size_t limit, const Ticket* after) override {
        if (!after)
            return list("SELECT body FROM " + tickets_ +
                            " WHERE ended IS NOT NULL ORDER BY ended DESC, number DESC",
                        {}, limit);
        return list("SELECT body FROM " + tickets_ +
                        " WHERE ended IS NOT NULL AND (ended, number) < ($1, $2)"
                        " ORDER BY ended DESC, number DESC",
                    {moment(after->ended.value_or(Time{})), number_in(*after)}, limit);
    }

    Result<std::vector<Changed>> changed() override {
        auto version = database_->version_of_others();
        if (!version) return version.error();
        const std::string writer = database_->writer();
        if (*version && *version == heard_version_ && writer == heard_writer_)
            return std::vector<Changed>{};
        std::int64_t heard = 0;
        auto all = transaction<std::vector<Changed>>(false, [&] { return changes_since(heard); });
        if (!all) return all;
        cursor_ = heard;
        heard_version_ = *version;
        heard_writer_ = writer;
        return all;
    }

    Result<void> check() override {
        auto checked = transaction<Rows>(true, [this] {
            return database_->run("UPDATE " + counter_ +
                                  " SET checks = checks + 1 RETURNING checks");
        });
        return checked ? Result<void>() : Result<void>(checked.error());
    }

    int descriptor() const override { return database_->descriptor(); }
    bool told() const override { return database_->told(); }
    std::string where() const override { return database_->where(); }

private:
    static std::int64_t number_in(const Ticket& ticket) {
        return static_cast<std::int64_t>(number_of(ticket.id).value_or(0));
    }

    // Runs `work` in a transaction, and once more where the connection turned out to be dead before
    // anything could come of it. A failure of any kind undoes everything.
    template <class T, class Work>
    Result<T> transaction(bool writes, const Work& work) {
        for (int attempt = 0;; ++attempt) {
            const bool last = attempt > 0;
            auto begun = database_->begin(writes);
            if (!begun) {
                if (!last && database_->may_try_again()) continue;
                return begun.error();
            }
            Result<T> result = work();
            if (!result) {
                const bool again = result.error().problem == Problem::store_failed && !last &&
                                   database_->may_try_again();
                database_->rollback();
                if (again) continue;
                return result;
            }
            auto committed = database_->commit();
            if (!committed) return committed.error();
            return result;
        }
    }

    // `heard`: up to which change the answer tells everything. It is read first: what comes later
    // has a higher number, and is told the next time.
    Result<std::vector<Changed>> changes_since(std::int64_t& heard) {
        auto counter = database_->run("SELECT changes FROM " + counter_);
        if (!counter) return counter.error();
        auto last = number_at(*counter);
        if (!last) return last.error();
        heard = *last;
        auto rows = database_->run("SELECT body, number_opened FROM " + tickets_ +
                                       " WHERE number_changed > $1 AND number_changed <= $2"
                                       " AND writer <> $3 ORDER BY number_changed",
                                   {cursor_, heard, database_->writer()});
        if (!rows) return rows.error();
        std::vector<Changed> all;
        for (const Row& row : *rows) {
            auto ticket = ticket_at(row);
            if (!ticket) return ticket.error();
            auto opened = number_at(Rows{Row{row.at(1)}});
            if (!opened) return opened.error();
            all.push_back({.ticket = std::move(*ticket), .is_new = *opened > cursor_});
        }
        return all;
    }

    Result<std::vector<Ticket>> list(const std::string& sql, std::vector<Value> values,
                                     std::size_t limit) {
        auto rows = transaction<Rows>(
            false, [&] { return database_->run(sql + " LIMIT " + std::to_string(limit), values); });
        if (!rows) return rows.error();
        return tickets_in(*rows);
    }

    Result<Ticket> read(std::string_view id, std::uint64_t number, std::string_view lock) {
        auto rows = database_->run(
            "SELECT body FROM " + tickets_ + " WHERE number = $1" + std::string(lock),
            {static_cast<std::int64_t>(number)});
        if (!rows) return rows.error();
        if (rows->empty()) return no_such_ticket(id);
        return ticket_at(rows->front());
    }

    Result<std::optional<Ticket>> take_first(std::string_view binding, const Take& take) {
        auto rows = database_->run("SELECT body FROM " + tickets_ +
                                       " WHERE binding = $1 AND state IN ('pending', 'approved')"
                                       " ORDER BY number" +
                                       std::string(database_->for_update()),
                                   {std::string(binding)});
        if (!rows) return rows.error();
        for (const Row& row : *rows) {
            auto before = ticket_at(row);
            if (!before) return before.error();
            auto after = take(*before);
            if (!after) continue;
            auto kept = keep(*before, *after);
            if (!kept) return kept.error();
            return after;
        }
        return std::optional<Ticket>();
    }

    Result<std::int64_t> next_change() {
        auto rows = database_->run("UPDATE " + counter_ +
                                   " SET changes = changes + 1 RETURNING changes");
        if (!rows) return rows.error();
        return number_at(*rows);
    }

    Result<void> insert(const Ticket& ticket, std::int64_t number) {
        auto change = next_change();
        if (!change) return Result<void>(change.error());
        const Request& request = ticket.request;
        auto inserted = database_->run(
            "INSERT INTO " + tickets_ +
                " (number, id, state, binding, opened, expires, ended, number_opened,"
                " number_changed, writer, body)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            {number, ticket.id, std::string(state_name(ticket.state)), request.binding,
             moment(ticket.opened), moment(ticket.expires), ended_value(ticket), *change, *change,
             database_->writer(), json_of(ticket)});
        if (!inserted) return Result<void>(inserted.error());
        return tell(ticket);
    }

    Result<void> keep(const Ticket& before, const Ticket& after) {
        if (before == after) return {};
        auto change = next_change();
        if (!change) return Result<void>(change.error());
        auto updated = database_->run(
            "UPDATE " + tickets_ +
                " SET state = $1, opened = $2, expires = $3, ended = $4, number_changed = $5,"
                " writer = $6, body = $7 WHERE number = $8",
            {std::string(state_name(after.state)), moment(after.opened), moment(after.expires),
             ended_value(after), *change, database_->writer(), json_of(after), number_in(before)});
        if (!updated) return Result<void>(updated.error());
        return tell(after);
    }

    Result<void> tell(const Ticket& ticket) {
        const std::string_view sql = database_->notify_sql();
        if (sql.empty()) return {};
        auto told = database_->run(sql, {ticket.id});
        return told ? Result<void>() : Result<void>(told.error());
    }

    static Value ended_value(const Ticket& ticket) {
        return ticket.ended ? Value(moment(*ticket.ended)) : Value();
    }

    std::unique_ptr<Database> database_;
    const std::string tickets_;
    const std::string counter_;
    std::int64_t cursor_ = 0;  // the last change that changed() has told of
    std::optional<std::int64_t> heard_version_;
    std::string heard_writer_;
};

}  // namespace

const std::vector<Migration>& migrations() {
    static const std::vector<Migration> all{
        {.sqlite =
             {"CREATE TABLE counter (one INTEGER PRIMARY KEY CHECK (one = 1),"
              " tickets INTEGER NOT NULL, changes INTEGER NOT NULL, checks INTEGER NOT NULL)",
              "INSERT INTO counter VALUES (1, 0, 0, 0)",
              "CREATE TABLE tickets (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
              " state TEXT NOT NULL CHECK (state IN"
              " ('pending', 'approved', 'denied', 'expired', 'withdrawn', 'used')),"
              " binding TEXT NOT NULL, opened INTEGER NOT NULL, expires INTEGER NOT NULL,"
              " ended INTEGER, number_opened INTEGER NOT NULL, number_changed INTEGER NOT NULL,"
              " writer TEXT NOT NULL, body TEXT NOT NULL,"
              " CHECK ((ended IS NULL) = (state IN ('pending', 'approved'))))",
              "CREATE INDEX tickets_open ON tickets (number)"
              " WHERE state IN ('pending', 'approved')",
              "CREATE INDEX tickets_binding ON tickets (binding, number)"
              " WHERE state IN ('pending', 'approved')",
              "CREATE INDEX tickets_ended ON tickets (ended, number) WHERE ended IS NOT NULL",
              "CREATE INDEX tickets_changed ON tickets (number_changed)"},
         .postgres = {
             "CREATE TABLE pgchaperone.counter (one integer PRIMARY KEY CHECK (one = 1),"
             " tickets bigint NOT NULL, changes bigint NOT NULL, checks bigint NOT NULL)",
             "INSERT INTO pgchaperone.counter VALUES (1, 0, 0, 0)",
             "CREATE TABLE pgchaperone.tickets (number bigint PRIMARY KEY, id text NOT NULL UNIQUE,"
             " state text NOT NULL CHECK (state IN"
             " ('pending', 'approved', 'denied', 'expired', 'withdrawn', 'used')),"
             " binding text NOT NULL, opened bigint NOT NULL, expires bigint NOT NULL,"
             " ended bigint, number_opened bigint NOT NULL, number_changed bigint NOT NULL,"
             " writer text NOT NULL, body jsonb NOT NULL,"
             " CHECK ((ended IS NULL) = (state IN ('pending', 'approved'))))",
             "CREATE INDEX tickets_open ON pgchaperone.tickets (number)"
             " WHERE state IN ('pending', 'approved')",
             "CREATE INDEX tickets_binding ON pgchaperone.tickets (binding, number)"
             " WHERE state IN ('pending', 'approved')",
             "CREATE INDEX tickets_ended ON pgchaperone.tickets (ended, number)"
             " WHERE ended IS NOT NULL",
             "CREATE INDEX tickets_changed ON pgchaperone.tickets (number_changed)"}}};
    return all;
}

Result<std::unique_ptr<Store>> make_sql_store(std::unique_ptr<Database> database,
                                              const std::string& prefix) {
    auto store = std::make_unique<SqlStore>(std::move(database), prefix);
    if (auto started = store->start(); !started) return started.error();
    return std::unique_ptr<Store>(std::move(store));
}

}  // namespace pgchaperone::approval
