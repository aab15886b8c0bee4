#pragma once
// A store in an SQL database: the tables, and every call of Store as SQL that SQLite and PostgreSQL
// both understand. Knows neither of them: they are a Database each, which runs statements.
//
// A ticket is one row: the whole of it in `body`, as JSON, and beside it, as columns made of it
// anew at every write, what is searched for. Every writing transaction that changes a ticket takes
// the next number of `counter.changes` as its last step and holds that row until it commits, so the
// numbers become visible in their own order, and who has seen number 7 has missed none before it.

#include "approval/store.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace pgchaperone::approval {

class Database {
public:
    virtual ~Database() = default;

    using Value = std::variant<std::monostate, std::int64_t, std::string>;  // monostate: null
    using Row = std::vector<std::optional<std::string>>;
    using Rows = std::vector<Row>;

    // Connects if need be, and begins a transaction. `writes`: excludes other writers, or will at
    // the first row that both want.
    virtual Result<void> begin(bool writes) = 0;
    // One statement; parameters are $1, $2, ... in the order of their first appearance.
    virtual Result<Rows> run(std::string_view sql, const std::vector<Value>& values = {}) = 0;
    virtual Result<void> commit() = 0;
    virtual void rollback() noexcept = 0;
    // Whether the transaction failed because the connection was lost and no COMMIT was sent: trying
    // it again on a new one is harmless.
    virtual bool may_try_again() const = 0;

    // Behind a SELECT: the rows are locked until the end of the transaction.
    virtual std::string_view for_update() const = 0;
    // In a transaction: tells others of it, if there is a way. Nothing to run: empty.
    virtual std::string_view notify_sql() const = 0;
    // A number that is another one after others have changed something. Nothing: it can't tell.
    virtual Result<std::optional<std::int64_t>> version_of_others() = 0;
    // Another after every new connection. See Store::changed.
    virtual std::string writer() const = 0;
    virtual int descriptor() const = 0;
    virtual bool told() const { return false; }  // see Store
    virtual std::string where() const = 0;
};

// The schema, as steps from each version to the next; what has been released is never edited. `%`
// stands for what goes before a table's name.
struct Migration {
    std::vector<std::string_view> sqlite;
    std::vector<std::string_view> postgres;
};
const std::vector<Migration>& migrations();

// `prefix` goes before the names of tables ("pgchaperone."). The tables must be there.
Result<std::unique_ptr<Store>> make_sql_store(std::unique_ptr<Database> database,
                                              const std::string& prefix);

}  // namespace pgchaperone::approval
