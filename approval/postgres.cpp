#include "approval/sql_store.h"

#include <libpq-fe.h>
#include <sys/poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <random>
#include <utility>

namespace pgchaperone::approval {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// For the connection as a whole, and for the answer to one statement; then it counts as lost. The
// server itself gives up sooner, so that nothing of ours goes on there after we have left.
constexpr milliseconds connect_patience{5000};
constexpr milliseconds answer_patience{6000};
constexpr const char* session_sql =
    "SELECT set_config('search_path', 'pg_catalog', false),"
    " set_config('statement_timeout', '5s', false), set_config('lock_timeout', '4s', false),"
    " set_config('idle_in_transaction_session_timeout', '10s', false)";
constexpr const char* session_14_sql = "SELECT set_config('idle_session_timeout', '0', false)";
// What has been answered survives a crash of the server, whatever its default is.
constexpr const char* durable_sql =
    "SELECT set_config('synchronous_commit', 'on', false)"
    " WHERE current_setting('synchronous_commit') = 'off'";
constexpr const char* listen_sql = "LISTEN pgchaperone_tickets";
constexpr const char* notify_tickets_sql = "SELECT pg_notify('pgchaperone_tickets', $1)";
// "pgchaper", as the key of the lock under which tables are made.
constexpr const char* lock_sql = "SELECT pg_advisory_xact_lock(8099565213036504434)";
constexpr int oldest_server = 120000;

struct FinishConnection {
    void operator()(PGconn* connection) const { PQfinish(connection); }
};
struct ClearResult {
    void operator()(PGresult* result) const { PQclear(result); }
};
using Connection = std::unique_ptr<PGconn, FinishConnection>;
using Answer = std::unique_ptr<PGresult, ClearResult>;

std::string one_line(std::string text) {
    std::replace(text.begin(), text.end(), '\n', ' ');
    while (!text.empty() && text.back() == ' ') text.pop_back();
    return text;
}

class Postgres final : public Database {
public:
    explicit Postgres(std::string connection) : target_(std::move(connection)) {}

    Result<void> create() {
        auto connected = connect();
        if (!connected) return connected;
        return migrate();
    }

    Result<void> begin(bool writes) override {
        retriable_ = false;
        if (!connection_) {
            auto connected = connect();
            if (!connected) return connected;
            // The tables may have gone meanwhile, or be a newer version's.
            auto current = check_version();
            if (!current) return current;
            retriable_ = false;
        } else {
            // One that has been there for a while may be dead without anybody having noticed.
            retriable_ = true;
        }
        return only_failure(run(writes ? "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
                                       : "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"));
    }

    Result<Rows> run(std::string_view sql, const std::vector<Value>& values = {}) override {
        if (!connection_) return failure("the connection is lost");
        std::vector<std::string> texts;
        texts.reserve(values.size());
        for (const Value& value : values) {
            const auto* integer = std::get_if<std::int64_t>(&value);
            const auto* text = std::get_if<std::string>(&value);
            texts.push_back(integer ? std::to_string(*integer) : text ? *text : std::string());
        }
        std::vector<const char*> parameters;
        for (std::size_t i = 0; i < values.size(); ++i)
            parameters.push_back(
                std::holds_alternative<std::monostate>(values[i]) ? nullptr : texts[i].c_str());
        if (PQsendQueryParams(connection_.get(), std::string(sql).c_str(),
                              static_cast<int>(parameters.size()), nullptr, parameters.data(),
                              nullptr, nullptr, 0) != 1)
            return lost();
        return answer();
    }

    Result<void> commit() override {
        retriable_ = false;  // it may have been done even if we never hear of it
        auto rows = run("COMMIT");
        if (!rows) {
            drop();
            return Result<void>(rows.error());
        }
        // Told in place of an error where something before it had failed.
        if (command_ != "COMMIT") {
            drop();
            return Result<void>(failure("the transaction was rolled back"));
        }
        return {};
    }

    void rollback() noexcept override {
        const bool retriable = retriable_;
        if (connection_ && !run("ROLLBACK")) drop();
        retriable_ = retriable;
    }

    bool may_try_again() const override { return retriable_ && !connection_; }
    std::string_view for_update() const override { return " FOR UPDATE"; }
    std::string_view notify_sql() const override { return notify_tickets_sql; }

    // Notifications only make it quicker: they may get lost, for example where a pooler stands in
    // between. So what has changed is always looked up.
    Result<std::optional<std::int64_t>> version_of_others() override {
        if (connection_) take_notifications();
        // Before what has changed is read: what comes meanwhile is for the next time.
        told_ = false;
        return std::optional<std::int64_t>();
    }

    bool told() const override { return told_; }
    std::string writer() const override { return writer_; }
    int descriptor() const override { return connection_ ? PQsocket(connection_.get()) : -1; }
    std::string where() const override { return where_.empty() ? "PostgreSQL" : where_; }

private:
    Failure failure(const std::string& what) const {
        return {Problem::store_failed,
                "the approval store " + where() + " fails: " + one_line(what), ""};
    }

    void drop() noexcept { connection_.reset(); }

    Failure lost() {
        Failure result = failure(connection_ ? PQerrorMessage(connection_.get()) : "");
        drop();
        return result;
    }

    static Result<void> only_failure(const Result<Rows>& result) {
        return result ? Result<void>() : Result<void>(result.error());
    }

    // Waits for the socket; false: time is over.
    static bool wait_for(int socket, short events, Clock::time_point until) {
        for (;;) {
            const auto left = std::chrono::ceil<milliseconds>(until - Clock::now());
            if (left.count() <= 0) return false;
            pollfd one{.fd = socket, .events = events, .revents = 0};
            const int ready = ::poll(&one, 1, static_cast<int>(left.count()));
            if (ready > 0) return true;
            if (ready < 0 && errno != EINTR) return false;
        }
    }

    void take_notifications() {
        if (PQconsumeInput(connection_.get()) != 1) {
            drop();
            return;
        }
        drain_notifications();
    }

    void drain_notifications() {
        while (PGnotify* notification = PQnotifies(connection_.get())) {
            if (notification->be_pid != PQbackendPID(connection_.get())) told_ = true;
            PQfreemem(notification);
        }
    }

    // Everything that a statement has to say; an error in it leaves the connection alone as long as
    // the server still talks to us.
    Result<Rows> answer() {
        const Clock::time_point until = Clock::now() + answer_patience;
        Rows rows;
        std::optional<Failure> refused;
        bool leave = false;
        command_.clear();
        for (;;) {
            for (int flush = 0; (flush = PQflush(connection_.get())) != 0;) {
                if (flush < 0) return lost();
                if (!wait_for(PQsocket(connection_.get()), POLLIN | POLLOUT, until))
                    return too_slow();
                if (PQconsumeInput(connection_.get()) != 1) return lost();
            }
            while (PQisBusy(connection_.get()) != 0) {
                if (!wait_for(PQsocket(connection_.get()), POLLIN, until)) return too_slow();
                if (PQconsumeInput(connection_.get()) != 1) return lost();
            }
            const Answer result(PQgetResult(connection_.get()));
            if (!result) break;
            const ExecStatusType status = PQresultStatus(result.get());
            if (status == PGRES_TUPLES_OK) {
                add_rows(rows, *result);
            } else if (status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY) {
                command_ = PQcmdStatus(result.get());
            } else {
                const char* state = PQresultErrorField(result.get(), PG_DIAG_SQLSTATE);
                const std::string_view sqlstate = state ? state : "";
                refused = failure(PQresultErrorMessage(result.get()));
                // No state: libpq's own words for a lost connection. 57P..: the server ends it.
                // 25006: it has become a standby; elsewhere there may be a primary.
                leave = sqlstate.empty() || sqlstate.substr(0, 3) == "57P" || sqlstate == "25006";
            }
            if (PQstatus(connection_.get()) == CONNECTION_BAD) break;
        }
        // They come along with an answer, too, and then the socket tells of them no more.
        drain_notifications();
        if (PQstatus(connection_.get()) == CONNECTION_BAD || leave) {
            Failure result = refused ? *refused : failure(PQerrorMessage(connection_.get()));
            drop();
            return result;
        }
        if (refused) return *refused;
        return rows;
    }

    Failure too_slow() {
        retriable_ = false;  // who asks has waited for long enough
        drop();
        return failure("it does not answer");
    }

    static void add_rows(Rows& rows, PGresult& result) {
        const int columns = PQnfields(&result);
        for (int row = 0; row < PQntuples(&result); ++row) {
            Row& out = rows.emplace_back();
            for (int column = 0; column < columns; ++column) {
                if (PQgetisnull(&result, row, column) != 0)
                    out.emplace_back(std::nullopt);
                else
                    out.emplace_back(
                        std::string(PQgetvalue(&result, row, column),
                                    static_cast<std::size_t>(PQgetlength(&result, row, column))));
            }
        }
    }

    Result<void> connect() {
        drop();
        // What the connection string says comes later in the list, and wins.
        const char* names[] = {"application_name", "keepalives_idle",  "keepalives_interval",
                               "keepalives_count", "tcp_user_timeout", "connect_timeout",
                               "dbname",           "client_encoding",  nullptr};
        const char* values[] = {"pgchaperone approvals", "10",   "5",    "3", "10000", "5",
                                target_.c_str(),         "UTF8", nullptr};
        connection_.reset(PQconnectStartParams(names, values, 1));
        if (!connection_) return Result<void>(failure("out of memory"));
        const Clock::time_point until = Clock::now() + connect_patience;
        for (auto state = PGRES_POLLING_WRITING; state != PGRES_POLLING_OK;
             state = PQconnectPoll(connection_.get())) {
            if (state == PGRES_POLLING_FAILED || PQstatus(connection_.get()) == CONNECTION_BAD)
                return Result<void>(lost());
            const short events = state == PGRES_POLLING_READING ? POLLIN : POLLOUT;
            if (!wait_for(PQsocket(connection_.get()), events, until))
                return Result<void>(too_slow());
        }
        return prepare_session();
    }

    Result<void> prepare_session() {
        PQsetnonblocking(connection_.get(), 1);
        // Notices would go to standard error.
        PQsetNoticeReceiver(
            connection_.get(), [](void*, const PGresult*) {}, nullptr);
        const char* host = PQhost(connection_.get());
        const std::string port = PQport(connection_.get());
        where_ = "PostgreSQL " + std::string(host ? host : "") + ":" + port + "/" +
                 PQdb(connection_.get());
        if (PQserverVersion(connection_.get()) < oldest_server)
            return refuse("the server is older than PostgreSQL 12");
        const char* encoding = PQparameterStatus(connection_.get(), "server_encoding");
        if (!encoding || std::string_view(encoding) != "UTF8")
            return refuse("its database has encoding " + std::string(encoding ? encoding : "?") +
                          "; one of encoding UTF8 is needed");
        const bool has_idle_timeout = PQserverVersion(connection_.get()) >= 140000;
        for (const char* sql :
             {session_sql, has_idle_timeout ? session_14_sql : "", durable_sql, listen_sql})
            if (auto rows = run(sql); !rows) {
                drop();
                return Result<void>(rows.error());
            }
        // See Store::changed.
        std::random_device random;
        writer_ = std::to_string(random()) + "-" + std::to_string(random());
        return {};
    }

    Result<void> refuse(const std::string& what) {
        drop();
        return Result<void>(failure(what));
    }

    Result<std::int64_t> number(std::string_view sql) {
        auto rows = run(sql);
        if (!rows) return rows.error();
        if (rows->empty() || !rows->front().front()) return failure("no answer");
        return static_cast<std::int64_t>(std::strtoll(rows->front().front()->c_str(), nullptr, 10));
    }

    // 0: there are no tables yet.
    Result<std::int64_t> version() {
        auto exists = number(
            "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = 'pgchaperone' AND c.relname = 'migrations'");
        if (!exists || *exists == 0) return exists;
        return number("SELECT coalesce(max(version), 0) FROM pgchaperone.migrations");
    }

    Result<void> newer(std::int64_t found) {
        drop();
        return Result<void>(
            Failure{Problem::store_failed,
                    "the approval store " + where() +
                        " was made by a newer version of pgchaperone (its tables have version " +
                        std::to_string(found) + ", this one knows " +
                        std::to_string(migrations().size()) + ")",
                    "Use that version, or another database."});
    }

    Result<void> check_version() {
        auto found = version();
        if (!found) return Result<void>(found.error());
        const auto known = static_cast<std::int64_t>(migrations().size());
        if (*found > known) return newer(*found);
        if (*found < known) return refuse("its tables are missing, or of an older version");
        return {};
    }

    Result<void> migrate() {
        auto begun = only_failure(run("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"));
        if (!begun) return begun;
        auto done = migrate_in_transaction();
        if (!done) {
            rollback();
            return done;
        }
        return commit();
    }

    // Under a lock, so that several replicas may start at once: the first makes the tables, the
    // others find them.
    Result<void> migrate_in_transaction() {
        auto locked = only_failure(run(lock_sql));
        if (!locked) return locked;
        auto found = version();
        if (!found) return Result<void>(found.error());
        const auto known = static_cast<std::int64_t>(migrations().size());
        if (*found > known) return newer(*found);
        if (*found == 0) {
            auto schema = number("SELECT count(*) FROM pg_namespace WHERE nspname = 'pgchaperone'");
            if (!schema) return Result<void>(schema.error());
            std::vector<std::string_view> first;
            // Somebody with the rights to do so may have made it for us.
            if (*schema == 0) first.emplace_back("CREATE SCHEMA pgchaperone");
            first.emplace_back(
                "CREATE TABLE pgchaperone.migrations"
                " (version integer PRIMARY KEY, made timestamptz NOT NULL"
                " DEFAULT current_timestamp)");
            for (const std::string_view sql : first)
                if (auto done = only_failure(run(sql)); !done) return done;
        }
        for (std::int64_t step = *found; step < known; ++step) {
            for (const auto sql : migrations()[static_cast<std::size_t>(step)].postgres)
                if (auto done = only_failure(run(sql)); !done) return done;
            auto stamped = only_failure(
                run("INSERT INTO pgchaperone.migrations (version) VALUES ($1)", {step + 1}));
            if (!stamped) return stamped;
        }
        return {};
    }

    const std::string target_;
    Connection connection_;
    bool retriable_ = false;
    std::string command_;  // the tag of the last command
    bool told_ = false;
    std::string writer_;
    std::string where_;
};

}  // namespace

Result<std::unique_ptr<Store>> open_postgres_store(const std::string& connection) {
    auto database = std::make_unique<Postgres>(connection);
    if (auto created = database->create(); !created) return created.error();
    return make_sql_store(std::move(database), "pgchaperone.");
}

}  // namespace pgchaperone::approval
