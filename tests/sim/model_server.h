#pragma once
// One connection of the model server: the backend's side of the protocol over ModelTransaction, as
// PostgreSQL's tcop/postgres.c and access/transam/xact.c have it. Works in steps, so that anything
// can happen between them: bytes are received, then step() reads a message, or ends the statement
// that runs, while can_step(). What it sends is appended to `output`, for the host to take.
//
// Deterministic: the same bytes in the same steps give the same output for the same seed.

#include "protocol/messages.h"
#include "sim/model_database.h"
#include "sim/model_sql.h"
#include "support/random.h"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::sim {

class ModelServer {
public:
    // How a statement runs.
    struct Running {
        bool trial = false;  // by the guard, to see what it does
        bool again = false;  // a portal that has begun before
        const std::vector<int>* parameters = nullptr;
    };
    // What the world around hears of.
    struct Hooks {
        std::function<void(std::string_view sql)> arrived;  // a Query or Parse
        // It begins to take effect: by the ticket that is answered, if any.
        std::function<std::string(const Statement& statement, const Running& how)> runs;
        std::function<void(std::string_view sql)> cancelled;                // 57014 hit this
        std::function<std::optional<Failure>(std::string_view sql)> fails;  // by the server's whim
        std::function<void(std::int32_t id, std::string_view key)> cancel_request;
        std::function<void(std::string_view bytes)> impossible;  // what no client may send
    };
    static constexpr std::int32_t process_id = 4711;
    static constexpr std::string_view secret_key = "k3y!";
    // Above this the server waits until what it has sent is taken.
    static constexpr std::size_t output_bytes_max = 4096;
    static constexpr std::size_t buffer_bytes_max = 8192;
    static constexpr std::int32_t purge_function_oid = 90'001;

    ModelServer(ModelDatabase& database, std::uint64_t seed, Hooks hooks);

    void receive(std::string_view bytes);
    void receive_end() { input_ended_ = true; }
    bool can_step() const;
    void step();

    // The signal that a cancel request causes.
    void cancel();
    // The process dies: by itself and with a last word (57P01), or at once.
    void die(bool with_last_word);
    // A notice, a notification or a ParameterStatus out of the blue.
    void say_something();

    std::string output;  // what has left it: replies are kept until a flush, as PostgreSQL does
    std::size_t unread_bytes() const { return input_.size(); }
    bool closed() const { return closed_; }  // behind what is left in `output`
    bool in_transaction() const { return transaction_.open(); }
    // Something of the guard's own is left in the client's transaction.
    bool trial_left() const { return transaction_.has_savepoint("pgchaperone_trial"); }
    bool keeps_trials = false;  // to break it on purpose
    std::string reason;         // chaperone.reason
    int idle_timeout = 0;       // in milliseconds; 0: none
    bool busy() const { return run_ != nullptr; }
    bool logged_in() const { return logged_in_; }
    char status() const;

private:
    enum class Block { idle, started, implicit, block, failed };
    struct Portal {
        Statement statement;
        std::vector<int> parameters;
        bool started = false;
        std::size_t position = 0;
        Outcome outcome;
        std::string ticket;  // a cursor's
    };
    // What runs now.
    struct Run {
        std::vector<Statement> statements;  // query: all of them; else one
        std::size_t next = 0;
        bool extended = false;
        bool function_call = false;
        std::string portal;
        std::vector<int> parameters;
        int max_rows = 0;
        bool copying = false;
        std::string copy_line;
    };

    template <class Message>
    void send(const Message& message);
    void flush();
    bool message_complete() const;
    bool read_startup();
    void read_message();
    void simple_query(std::string_view sql);
    void parse(std::string_view body);
    void bind(std::string_view body);
    void describe(std::string_view body);
    void execute(std::string_view body);
    void close_name(std::string_view body);
    void function_call(std::string_view body);
    void sync();

    void finish_statement();
    void finish_function_call();
    void finish_execute(const Statement& statement);
    void statement_done();
    void copy_message();
    std::optional<Failure> copy_data(std::string_view data);
    void copy_done();
    // Runs what is not COPY and not FETCH; nothing: it went well.
    std::optional<Failure> run(const Statement& statement, const std::vector<int>& parameters,
                               Outcome& outcome);
    std::optional<Failure> control(const Statement& statement, Outcome& outcome);
    std::optional<Failure> declare(const Statement& statement, Outcome& outcome);
    std::optional<Failure> sweep(const Statement& statement, Outcome& outcome);
    std::optional<Failure> prepared(const Statement& statement, Outcome& outcome);
    std::optional<Failure> fetch(const Statement& statement, Outcome& outcome);
    std::optional<Failure> guard_reading(const Statement& statement, Outcome& outcome);
    std::optional<Failure> before_running(const Statement& statement, const Running& how);
    std::optional<Failure> end_transaction(bool commit);
    void send_rows(const Outcome& outcome, std::size_t from, std::size_t to);
    void send_description(const Statement& statement);
    void send_copy_out(const Outcome& outcome);

    void start_command();
    std::optional<Failure> finish_command();
    void fail(const Failure& failure, bool extended);
    void notice(std::string_view severity, std::string_view sqlstate, std::string_view text);
    void ready_for_query();
    void forget_portals();
    void end();
    void end_with(const Failure& failure);

    ModelDatabase& database_;
    ModelTransaction transaction_;
    test::Random random_;
    Hooks hooks_;
    std::string input_;
    std::string buffer_;  // to be sent with the next flush
    bool input_ended_ = false;
    bool started_ = false;
    bool logged_in_ = false;
    bool closed_ = false;
    Block block_ = Block::idle;
    bool skipping_ = false;    // until Sync
    bool pipelining_ = false;  // an Execute ran since the last Sync
    bool cancel_pending_ = false;
    std::unique_ptr<Run> run_;
    std::map<std::string, Statement> prepared_;
    std::map<std::string, Portal> portals_;
    std::vector<std::pair<std::string, std::string>> names_at_savepoints_;
    std::string name_ = "script";  // application_name now, when last committed, and as reported
    std::string name_committed_ = name_;
    std::string name_reported_ = name_;
};

}  // namespace pgchaperone::sim
