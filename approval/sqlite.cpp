#include "approval/sql_store.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <random>
#include <thread>
#include <utility>

namespace pgchaperone::approval {
namespace {

// How long a writer waits for another process's transaction. Ours take some milliseconds.
constexpr int busy_timeout_ms = 3000;
// "pgch", in the file's header: it is a database of ours (PRAGMA application_id).
constexpr std::int64_t application_id = 0x70676368;

struct CloseHandle {
    void operator()(sqlite3* handle) const { sqlite3_close_v2(handle); }
};
struct FinishStatement {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Handle = std::unique_ptr<sqlite3, CloseHandle>;
using Statement = std::unique_ptr<sqlite3_stmt, FinishStatement>;

class Sqlite final : public Database {
public:
    explicit Sqlite(std::string file) : file_(std::move(file)) {}

    Result<void> create() {
        std::error_code error;
        const std::filesystem::path folder = std::filesystem::path(file_).parent_path();
        if (!folder.empty() && !std::filesystem::exists(folder, error)) {
            if (!std::filesystem::create_directories(folder, error) && error)
                return failure("its directory can't be made: " + error.message());
            // The parents are as the umask has them; this one is ours.
            std::filesystem::permissions(folder, std::filesystem::perms::owner_all, error);
        }
        // SQLite gives the files beside it the mode of this one.
        const int descriptor = ::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (descriptor < 0) return failure(std::strerror(errno));
        ::close(descriptor);
        auto connected = connect();
        if (!connected) return connected;
        return migrate();
    }

    Result<void> begin(bool writes) override {
        if (!handle_ || moved()) {
            auto connected = connect();
            if (!connected) return connected;
            auto current = check_version();
            if (!current) return current;
        }
        return only_failure(run(writes ? "BEGIN IMMEDIATE" : "BEGIN"));
    }

    Result<Rows> run(std::string_view sql, const std::vector<Value>& values = {}) override {
        locked_ = false;
        if (!handle_) return failure("it is closed");
        sqlite3_stmt* prepared = nullptr;
        const int code = sqlite3_prepare_v2(handle_.get(), sql.data(), static_cast<int>(sql.size()),
                                            &prepared, nullptr);
        const Statement statement(prepared);
        if (code != SQLITE_OK) return broken();
        for (std::size_t i = 0; i < values.size(); ++i)
            if (bind(prepared, static_cast<int>(i) + 1, values[i]) != SQLITE_OK) return broken();
        Rows rows;
        for (;;) {
            const int step = sqlite3_step(prepared);
            if (step == SQLITE_DONE) return rows;
            if (step != SQLITE_ROW) return broken();
            Row& row = rows.emplace_back();
            for (int column = 0; column < sqlite3_column_count(prepared); ++column)
                row.push_back(column_of(prepared, column));
        }
    }

    Result<void> commit() override {
        auto committed = only_failure(run("COMMIT"));
        if (!committed) rollback();
        return committed;
    }

    void rollback() noexcept override {
        if (handle_ && sqlite3_get_autocommit(handle_.get()) == 0 &&
            sqlite3_exec(handle_.get(), "ROLLBACK", nullptr, nullptr, nullptr) != SQLITE_OK)
            handle_.reset();
    }

    bool may_try_again() const override { return false; }
    std::string_view for_update() const override { return ""; }
    std::string_view notify_sql() const override { return ""; }

    Result<std::optional<std::int64_t>> version_of_others() override {
        if (!handle_) return std::optional<std::int64_t>();
        auto version = number("PRAGMA data_version");
        if (!version) return version.error();
        return std::optional(*version);
    }

    std::string writer() const override { return writer_; }
    int descriptor() const override { return -1; }
    std::string where() const override { return file_; }

private:
    Failure failure(const std::string& what) const {
        return {Problem::store_failed, "the approval store " + file_ + " fails: " + what, ""};
    }

    // After an error the state of a handle is nobody's to know, other than that somebody else has
    // the lock.
    Failure broken() {
        const int code = sqlite3_extended_errcode(handle_.get());
        Failure result = failure(sqlite3_errmsg(handle_.get()));
        switch (code & 0xFF) {
            case SQLITE_BUSY:
            case SQLITE_LOCKED: locked_ = true; break;
            case SQLITE_NOTADB:
            case SQLITE_CORRUPT:
                result = damaged(sqlite3_errmsg(handle_.get()));
                forget_ = true;
                break;
            default: forget_ = true;
        }
        return result;
    }

    Failure damaged(const std::string& what) const {
        return {Problem::store_failed,
                "the approval store " + file_ + " is damaged or is no database of tickets (" +
                    what + ")",
                "It is left as it is. Move it away to begin with an empty one, or put back a "
                "copy."};
    }

    static Result<void> only_failure(const Result<Rows>& result) {
        return result ? Result<void>() : Result<void>(result.error());
    }

    static int bind(sqlite3_stmt* statement, int index, const Value& value) {
        if (const auto* integer = std::get_if<std::int64_t>(&value))
            return sqlite3_bind_int64(statement, index, *integer);
        if (const auto* text = std::get_if<std::string>(&value))
            return sqlite3_bind_text64(statement, index, text->data(), text->size(),
                                       SQLITE_TRANSIENT, SQLITE_UTF8);
        return sqlite3_bind_null(statement, index);
    }

    static std::optional<std::string> column_of(sqlite3_stmt* statement, int column) {
        const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, column));
        if (!text) return std::nullopt;
        return std::string(text, static_cast<std::size_t>(sqlite3_column_bytes(statement, column)));
    }

    Result<std::int64_t> number(std::string_view sql) {
        auto rows = run(sql);
        if (!rows) return rows.error();
        if (rows->empty() || rows->front().empty() || !rows->front().front())
            return failure("no answer to " + std::string(sql));
        return static_cast<std::int64_t>(std::strtoll(rows->front().front()->c_str(), nullptr, 10));
    }

    // Whether somebody has put another file in this one's place, or none: to go on writing to what
    // nobody will find again would lose tickets.
    bool moved() {
        int has_moved = 0;
        return forget_ ||
               sqlite3_file_control(handle_.get(), "main", SQLITE_FCNTL_HAS_MOVED, &has_moved) !=
                   SQLITE_OK ||
               has_moved != 0;
    }

    // Opens what is there; never makes it: an empty store would begin to count anew, and give ids a
    // second time.
    Result<void> connect() {
        handle_.reset();
        forget_ = false;
        sqlite3* opened = nullptr;
        const int code = sqlite3_open_v2(
            file_.c_str(), &opened,
            SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE, nullptr);
        handle_.reset(opened);
        if (code != SQLITE_OK) {
            const Failure why = failure(opened ? sqlite3_errmsg(opened) : "out of memory");
            handle_.reset();
            return Result<void>(why);
        }
        sqlite3_extended_result_codes(opened, 1);
        sqlite3_busy_timeout(opened, busy_timeout_ms);
        auto mine = patiently([this] { return in_one_view([this] { return check_header(); }); });
        for (const std::string_view setting :
             {"PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA foreign_keys = ON",
              "PRAGMA trusted_schema = OFF"})
            if (mine) mine = patiently([&] { return only_failure(run(setting)); });
        if (!mine) {
            handle_.reset();
            return mine;
        }
        // See Store::changed.
        std::random_device random;
        writer_ = std::to_string(random()) + "-" + std::to_string(random());
        return {};
    }

    // Where two processes make a file a WAL database at once, SQLite tells one of them at once that
    // it is locked, whatever the busy timeout: both hold what the other waits for.
    template <class Work>
    Result<void> patiently(const Work& work) {
        const auto enough = std::chrono::steady_clock::now() +
                            std::chrono::milliseconds(busy_timeout_ms);
        for (;;) {
            Result<void> done = work();
            if (done || !locked_ || std::chrono::steady_clock::now() >= enough) return done;
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
    }

    // Several readings of the same state, while another process may just be making the tables.
    template <class Work>
    Result<void> in_one_view(const Work& work) {
        auto begun = only_failure(run("BEGIN"));
        if (!begun) return begun;
        auto done = work();
        rollback();
        return done;
    }

    Result<void> check_header() {
        auto id = number("PRAGMA application_id");
        if (!id) return Result<void>(id.error());
        auto version = number("PRAGMA user_version");
        if (!version) return Result<void>(version.error());
        auto tables = number("SELECT count(*) FROM sqlite_schema");
        if (!tables) return Result<void>(tables.error());
        if (*id != application_id && (*id != 0 || *version != 0 || *tables != 0))
            return Result<void>(damaged("it is another program's database"));
        auto sound = run("PRAGMA quick_check(1)");
        if (!sound) return Result<void>(sound.error());
        if (sound->size() != 1 || sound->front().size() != 1 || sound->front().front() != "ok")
            return Result<void>(damaged(sound->empty() ? "it can't be checked"
                                                       : sound->front().front().value_or("")));
        return {};
    }

    Result<void> newer(std::int64_t version) const {
        return Result<void>(Failure{Problem::store_failed,
                                    "the approval store " + file_ +
                                        " was made by a newer version of pgchaperone "
                                        "(its tables have version " +
                                        std::to_string(version) + ", this one knows " +
                                        std::to_string(migrations().size()) + ")",
                                    "Use that version, or another file."});
    }

    Result<void> check_version() {
        auto version = number("PRAGMA user_version");
        if (!version) return Result<void>(version.error());
        const auto known = static_cast<std::int64_t>(migrations().size());
        if (*version > known) return newer(*version);
        if (*version < known) return Result<void>(damaged("it has no tables of this version"));
        return {};
    }

    Result<void> migrate() {
        auto begun = only_failure(run("BEGIN IMMEDIATE"));
        if (!begun) return begun;
        auto done = migrate_in_transaction();
        if (!done) {
            rollback();
            return done;
        }
        return commit();
    }

    Result<void> migrate_in_transaction() {
        auto version = number("PRAGMA user_version");
        if (!version) return Result<void>(version.error());
        const auto known = static_cast<std::int64_t>(migrations().size());
        if (*version > known) return newer(*version);
        for (std::int64_t step = *version; step < known; ++step)
            for (const std::string_view sql : migrations()[static_cast<std::size_t>(step)].sqlite) {
                auto done = only_failure(run(sql));
                if (!done) return done;
            }
        auto stamped = only_failure(
            run("PRAGMA application_id = " + std::to_string(application_id)));
        if (!stamped) return stamped;
        return only_failure(run("PRAGMA user_version = " + std::to_string(known)));
    }

    const std::string file_;
    Handle handle_;
    bool forget_ = false;  // the handle is not to be used any more
    bool locked_ = false;  // the last run() failed for somebody else's lock
    std::string writer_;
};

}  // namespace

Result<std::unique_ptr<Store>> open_sqlite_store(const std::string& file) {
    auto database = std::make_unique<Sqlite>(file);
    if (auto created = database->create(); !created) return created.error();
    return make_sql_store(std::move(database), "");
}

}  // namespace pgchaperone::approval
