#include "sim/model_server.h"

#include "protocol/codec.h"
#include "protocol/head.h"
#include "protocol/peek.h"
#include "protocol/startup.h"
#include "proxy/session/supervise_sql.h"
#include "sim/injected.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace pgchaperone::sim {

namespace {

using protocol::FrontendTag;
using protocol::Side;

constexpr protocol::Int32 int4_oid = 23;

const Failure failed_block{"25P02", "current transaction is aborted"};
const Failure cancelled_by_user{"57014", "canceling statement due to user request"};

// As PostgreSQL names it in its errors.
std::string_view words_of(const Statement& s) {
    switch (s.verb) {
        case Verb::commit: return "COMMIT AND CHAIN";
        case Verb::rollback: return "ROLLBACK AND CHAIN";
        case Verb::savepoint: return "SAVEPOINT";
        case Verb::release: return "RELEASE SAVEPOINT";
        case Verb::rollback_to: return "ROLLBACK TO SAVEPOINT";
        case Verb::commit_prepared: return "COMMIT PREPARED";
        case Verb::rollback_prepared: return "ROLLBACK PREPARED";
        default: return "this";
    }
}

std::string body_of(const std::string& message) { return message.substr(protocol::head_size); }

}  // namespace

ModelServer::ModelServer(ModelDatabase& database, std::uint64_t seed, Hooks hooks)
    : database_(database),
      transaction_(database, seed ^ 0x5EED),
      random_(seed),
      hooks_(std::move(hooks)) {}

template <class Message>
void ModelServer::send(const Message& message) {
    buffer_ += protocol::encoded(message);
    if (buffer_.size() > buffer_bytes_max) flush();
}

void ModelServer::flush() {
    output += buffer_;
    buffer_.clear();
}

void ModelServer::receive(std::string_view bytes) {
    if (!closed_) input_ += bytes;
}

bool ModelServer::message_complete() const {
    if (!started_) {
        const auto packet = protocol::parse_startup(input_);
        return packet.has_error() || *packet;
    }
    const auto head = protocol::read_head(input_, Side::frontend);
    if (head.has_error()) return input_.size() >= protocol::head_size;
    return input_.size() >= head->total();
}

bool ModelServer::can_step() const {
    if (closed_ || output.size() >= output_bytes_max) return false;
    if (run_ != nullptr && !run_->copying) return true;
    if (run_ != nullptr && run_->copying && cancel_pending_) return true;
    return message_complete() || input_ended_;
}

void ModelServer::step() {
    if (!started_) {
        if (!read_startup()) end();
    } else if (run_ != nullptr && run_->copying) {
        copy_message();
    } else if (run_ != nullptr) {
        finish_statement();
    } else if (message_complete()) {
        read_message();
    } else {
        end();
    }
    // It looks for signals behind every message that it reads: what came while another was worked
    // on finds nothing to cancel.
    if (run_ == nullptr) cancel_pending_ = false;
}

// The connection is over; what was not committed never was.
void ModelServer::end() {
    closed_ = true;
    buffer_.clear();
    run_.reset();
    input_.clear();
    transaction_.roll_back();
    block_ = Block::idle;
}

void ModelServer::cancel() {
    if (!logged_in_ || closed_) return;
    // A server that waits for the next message takes no notice. What is already there may be in
    // work by now: that one is hit, if there is something in it to cancel, and none behind it.
    cancel_pending_ = run_ != nullptr || message_complete();
}

void ModelServer::die(bool with_last_word) {
    if (closed_) return;
    if (with_last_word) {
        return end_with({"57P01", "terminating connection due to administrator command"});
    }
    if (!output.empty()) output.resize(random_.below(output.size()));
    end();
}

void ModelServer::end_with(const Failure& failure) {
    protocol::ErrorResponse last;
    last.fields = {{'S', "FATAL"}, {'V', "FATAL"}, {'C', failure.sqlstate}, {'M', failure.message}};
    send(last);
    flush();
    end();
}

void ModelServer::say_something() {
    if (closed_ || !logged_in_) return;
    switch (random_.below(3)) {
        case 0: notice("LOG", "00000", "out of the blue"); break;
        case 1: send(protocol::NotificationResponse{process_id, "news", "x"}); break;
        default: send(protocol::ParameterStatus{"in_hot_standby", "off"}); break;
    }
    flush();
}

char ModelServer::status() const {
    return block_ == Block::block ? 'T' : block_ == Block::failed ? 'E' : 'I';
}

bool ModelServer::read_startup() {
    const auto parsed = protocol::parse_startup(input_);
    if (parsed.has_error() || !*parsed) return false;
    const protocol::StartupPacket& packet = **parsed;
    if (packet.kind == protocol::StartupPacket::Kind::cancel_request) {
        const auto request = protocol::decode<protocol::CancelRequest>(
            std::string_view(input_).substr(4, packet.size - 4));
        if (request && hooks_.cancel_request) {
            hooks_.cancel_request(request->process_id, request->secret_key);
        }
        return false;
    }
    if (packet.kind != protocol::StartupPacket::Kind::startup_message) return false;
    started_ = true;
    input_.erase(0, packet.size);
    send(protocol::AuthenticationOk{});
    send(protocol::ParameterStatus{"standard_conforming_strings", "on"});
    send(protocol::ParameterStatus{"client_encoding", "UTF8"});
    send(protocol::ParameterStatus{"application_name", name_});
    send(protocol::BackendKeyData{process_id, secret_key});
    send(protocol::ReadyForQuery{'I'});
    flush();
    logged_in_ = true;
    return true;
}

void ModelServer::read_message() {
    const auto head = protocol::read_head(input_, Side::frontend);
    if (head.has_error()) {
        if (hooks_.impossible) hooks_.impossible(input_);
        fail({"08P01", "invalid frontend message"}, false);
        return end();
    }
    const std::string message = input_.substr(0, head->total());
    input_.erase(0, message.size());
    const auto tag = static_cast<FrontendTag>(head->tag);
    if (skipping_ && tag != FrontendTag::Sync && tag != FrontendTag::Terminate) return;
    const std::string body = body_of(message);
    switch (tag) {
        case FrontendTag::Query: {
            const auto query = protocol::decode<protocol::Query>(body);
            if (query.has_error()) {
                fail({"08P01", "invalid message format"}, false);
                return ready_for_query();
            }
            return simple_query(query->query);
        }
        case FrontendTag::Parse: return parse(body);
        case FrontendTag::Bind: return bind(body);
        case FrontendTag::Describe: return describe(body);
        case FrontendTag::Execute: return execute(body);
        case FrontendTag::Close: return close_name(body);
        case FrontendTag::FunctionCall: return function_call(body);
        case FrontendTag::Sync: return sync();
        case FrontendTag::Terminate: return end();
        case FrontendTag::Flush: return flush();
        case FrontendTag::CopyData:
        case FrontendTag::CopyDone:
        case FrontendTag::CopyFail: return;
        case FrontendTag::PasswordMessage: break;
    }
    fail({"08P01", "invalid frontend message type"}, false);
    end();
}

// Transactions

void ModelServer::start_command() {
    if (block_ != Block::idle) return;
    block_ = Block::started;
    pipelining_ = false;
    transaction_.begin();
}

std::optional<Failure> ModelServer::finish_command() {
    if (block_ == Block::started || block_ == Block::implicit) return end_transaction(true);
    return std::nullopt;
}

std::optional<Failure> ModelServer::end_transaction(bool commit) {
    block_ = Block::idle;
    pipelining_ = false;
    names_at_savepoints_.clear();
    forget_portals();
    std::optional<Failure> failure;
    if (commit) {
        failure = transaction_.commit();
    } else {
        transaction_.roll_back();
    }
    if (!commit || failure) {
        name_ = name_committed_;
    } else {
        name_committed_ = name_;
    }
    return failure;
}

void ModelServer::forget_portals() { portals_.clear(); }

void ModelServer::fail(const Failure& failure, bool extended) {
    protocol::ErrorResponse error;
    error.fields = {
        {'S', "ERROR"}, {'V', "ERROR"}, {'C', failure.sqlstate}, {'M', failure.message}};
    send(error);
    flush();
    cancel_pending_ = false;
    if (block_ == Block::block) {
        block_ = Block::failed;
        transaction_.fail();
    }
    if (block_ == Block::started || block_ == Block::implicit) end_transaction(false);
    skipping_ = extended;
    run_.reset();
}

void ModelServer::notice(std::string_view severity, std::string_view sqlstate,
                         std::string_view text) {
    protocol::NoticeResponse response;
    response.fields = {{'S', severity}, {'V', severity}, {'C', sqlstate}, {'M', text}};
    send(response);
    flush();
}

void ModelServer::ready_for_query() {
    if (name_ != name_reported_) send(protocol::ParameterStatus{"application_name", name_});
    name_reported_ = name_;
    if (block_ == Block::idle) transaction_.idle();
    send(protocol::ReadyForQuery{status()});
    flush();
}

std::optional<Failure> ModelServer::control(const Statement& s, Outcome& outcome) {
    const bool outside = block_ == Block::started || block_ == Block::implicit;
    const Failure only_in_block{
        "25P01", std::string(words_of(s)) + " can only be used in transaction blocks"};
    switch (s.verb) {
        case Verb::begin:
            if (!outside) {
                notice("WARNING", "25001", "there is already a transaction in progress");
            }
            block_ = Block::block;
            outcome.tag = s.name.empty() ? "BEGIN" : s.name;
            return std::nullopt;
        case Verb::commit:
        case Verb::rollback: {
            if (outside && s.chain) return only_in_block;
            if (outside) notice("WARNING", "25P01", "there is no transaction in progress");
            const bool commit = (s.verb == Verb::commit || keeps_trials) && block_ != Block::failed;
            outcome.tag = commit ? "COMMIT" : "ROLLBACK";
            const bool read_only = transaction_.read_only();
            if (auto failure = end_transaction(commit)) return failure;
            if (s.chain) {
                start_command();
                transaction_.begin(read_only);
                block_ = Block::block;
            }
            return std::nullopt;
        }
        case Verb::savepoint:
            if (outside) return only_in_block;
            transaction_.savepoint(s.name);
            names_at_savepoints_.emplace_back(s.name, name_);
            outcome.tag = "SAVEPOINT";
            return std::nullopt;
        case Verb::release:
            if (outside) return only_in_block;
            outcome.tag = "RELEASE";
            if (auto failure = transaction_.release(s.name)) return failure;
            while (names_at_savepoints_.back().first != s.name) names_at_savepoints_.pop_back();
            names_at_savepoints_.pop_back();
            return std::nullopt;
        case Verb::rollback_to:
            if (outside) return only_in_block;
            if (auto failure = transaction_.roll_back_to(s.name)) return failure;
            while (names_at_savepoints_.back().first != s.name) names_at_savepoints_.pop_back();
            name_ = names_at_savepoints_.back().second;
            block_ = Block::block;
            outcome.tag = "ROLLBACK";
            return std::nullopt;
        case Verb::prepare_transaction: {
            if (outside) notice("WARNING", "25P01", "there is no transaction in progress");
            if (block_ == Block::failed || block_ == Block::started) {
                outcome.tag = "ROLLBACK";
                return block_ == Block::failed ? end_transaction(false) : std::nullopt;
            }
            outcome.tag = "PREPARE TRANSACTION";
            auto failure = transaction_.prepare(s.name);
            block_ = Block::idle;
            names_at_savepoints_.clear();
            forget_portals();
            (failure ? name_ : name_committed_) = failure ? name_committed_ : name_;
            return failure;
        }
        case Verb::commit_prepared:
        case Verb::rollback_prepared: {
            if (block_ != Block::started || pipelining_) {
                return Failure{"25001",
                               std::string(words_of(s)) + " cannot run inside a transaction block"};
            }
            if (!database_.prepared.contains(s.name)) {
                return Failure{"42704", "prepared transaction does not exist"};
            }
            const bool commit = s.verb == Verb::commit_prepared;
            // What it changes was counted when it was prepared.
            if (commit) database_.committed = database_.prepared_tables[s.name];
            database_.prepared.erase(s.name);
            database_.prepared_tables.erase(s.name);
            outcome.tag = commit ? "COMMIT PREPARED" : "ROLLBACK PREPARED";
            block_ = Block::idle;
            transaction_.roll_back();
            return std::nullopt;
        }
        default: return std::nullopt;
    }
}

// Statements

std::optional<Failure> ModelServer::before_running(const Statement& s, const Running& how) {
    if (cancel_pending_ && !random_.one_in(4)) {
        if (hooks_.cancelled) hooks_.cancelled(s.text);
        return cancelled_by_user;
    }
    if (block_ == Block::failed && !s.ends_failed_block()) return failed_block;
    if (hooks_.fails) {
        if (auto failure = hooks_.fails(s.text)) return failure;
    }
    if (hooks_.runs) transaction_.ticket = hooks_.runs(s, how);
    if (!s.fails.empty()) return Failure{s.fails, "as the script has it"};
    return std::nullopt;
}

std::optional<Failure> ModelServer::fetch(const Statement& s, Outcome& outcome) {
    const auto found = portals_.find(s.name);
    if (found == portals_.end()) return Failure{"34000", "cursor does not exist"};
    Portal& cursor = found->second;
    if (!cursor.started) {
        cursor.started = true;
        if (transaction_.ticket.empty()) transaction_.ticket = cursor.ticket;
        if (auto failure = transaction_.run(cursor.statement, {}, cursor.outcome)) return failure;
    }
    const std::size_t left = cursor.outcome.rows.size() - cursor.position;
    const std::size_t count = std::min(left, static_cast<std::size_t>(s.high.value));
    const auto begin = cursor.outcome.rows.begin() + static_cast<std::ptrdiff_t>(cursor.position);
    outcome.rows.assign(begin, begin + static_cast<std::ptrdiff_t>(count));
    cursor.position += count;
    outcome.tag = "FETCH " + std::to_string(count);
    return std::nullopt;
}

std::optional<Failure> ModelServer::declare(const Statement& s, Outcome& outcome) {
    if (block_ != Block::block && block_ != Block::implicit) {
        return Failure{"25P01", "DECLARE CURSOR can only be used in transaction blocks"};
    }
    if (portals_.contains(s.name)) return Failure{"42P03", "cursor already exists"};
    Portal cursor;
    cursor.statement = s;
    cursor.ticket = transaction_.ticket;
    cursor.statement.verb = s.inner;
    outcome.tag = "DECLARE CURSOR";
    if (s.inner == Verb::select_rows) {
        // Its snapshot is taken now.
        cursor.started = true;
        if (auto failure = transaction_.run(cursor.statement, {}, cursor.outcome)) return failure;
    }
    portals_[s.name] = std::move(cursor);
    return std::nullopt;
}

// A procedure that commits in between, which it may only outside of a block.
std::optional<Failure> ModelServer::sweep(const Statement& s, Outcome& outcome) {
    if (auto failure = transaction_.run(s, {}, outcome)) return failure;
    if (block_ != Block::started) return Failure{"2D000", "invalid transaction termination"};
    if (auto failure = end_transaction(true)) return failure;
    start_command();
    outcome = {};
    return transaction_.run(s, {}, outcome);
}

// PREPARE and what goes with it share their names with the protocol's prepared statements.
std::optional<Failure> ModelServer::prepared(const Statement& s, Outcome& outcome) {
    const auto found = prepared_.find(s.name);
    if (s.verb == Verb::prepare) {
        if (found != prepared_.end()) return Failure{"42P05", "prepared statement exists"};
        Statement inner = s;
        inner.verb = s.inner;
        prepared_[s.name] = std::move(inner);
        outcome.tag = "PREPARE";
        return std::nullopt;
    }
    if (found == prepared_.end()) return Failure{"26000", "prepared statement does not exist"};
    if (s.verb == Verb::execute) {
        Statement inner = found->second;
        inner.text = s.text;
        return transaction_.run(inner, {}, outcome);
    }
    prepared_.erase(found);
    outcome.tag = "DEALLOCATE";
    return std::nullopt;
}

std::optional<Failure> ModelServer::run(const Statement& s, const std::vector<int>& parameters,
                                        Outcome& outcome) {
    if (s.controls_transaction()) return control(s, outcome);
    switch (s.verb) {
        case Verb::fetch: return fetch(s, outcome);
        case Verb::declare_cursor: return declare(s, outcome);
        case Verb::call_sweep: return sweep(s, outcome);
        case Verb::prepare:
        case Verb::execute:
        case Verb::deallocate: return prepared(s, outcome);
        case Verb::close_cursor:
            if (portals_.erase(s.name) == 0) return Failure{"34000", "cursor does not exist"};
            outcome.tag = "CLOSE CURSOR";
            return std::nullopt;
        case Verb::set_application_name:
            name_ = s.name;
            outcome.tag = "SET";
            return std::nullopt;
        case Verb::set_transaction:
            outcome.tag = "SET";
            if (block_ == Block::started) {
                notice("WARNING", "25P01",
                       "SET TRANSACTION can only be used in transaction blocks");
            }
            return transaction_.set_read_only(s.immediate);
        case Verb::set_constraints:
            outcome.tag = "SET CONSTRAINTS";
            if (s.immediate) return transaction_.constraints_immediate();
            transaction_.constraints_deferred();
            return std::nullopt;
        case Verb::vacuum:
            if (block_ != Block::started || pipelining_) {
                return Failure{"25001", "VACUUM cannot run inside a transaction block"};
            }
            outcome.tag = "VACUUM";
            return end_transaction(true);
        case Verb::guard: return guard_reading(s, outcome);
        case Verb::truncate:
        case Verb::wipe:
            for (const auto& [name, portal] : portals_) {
                const int table = s.verb == Verb::wipe ? wiped_table : s.table;
                const bool reads = portal.started && portal.statement.verb == Verb::select_rows;
                if (reads && portal.statement.table == table) {
                    return Failure{"55006", "the table is being used by active queries"};
                }
            }
            return transaction_.run(s, parameters, outcome);
        default: return transaction_.run(s, parameters, outcome);
    }
}

std::optional<Failure> ModelServer::guard_reading(const Statement& s, Outcome& outcome) {
    if (is_guard_setting(s.text)) {
        outcome.tag = "SELECT 0";
        return std::nullopt;
    }
    if (is_guard_identity(s.text)) {
        outcome.reading = {
            {"login", "clerk", "16384"},
            {"member", "clerk", "16384"},
            {"member", "staff", "16390"},
            {"setting", "search_path", "public"},
            {"setting", "role", "none"},
            {"temporary", std::nullopt, std::nullopt},
            {"timeout", "idle_session_timeout", std::to_string(idle_timeout)},
            {"timeout", "idle_in_transaction_session_timeout", std::to_string(idle_timeout)},
            {"reason", std::nullopt, reason}};
        outcome.tag = "SELECT " + std::to_string(outcome.reading.size());
        return std::nullopt;
    }
    if (is_guard_plan(s.text)) {
        outcome.reading = {{R"([{"Plan":{"Node Type":"ModifyTable","Operation":"Update",
            "Relation Name":"t1","Schema":"public","Plans":[{"Node Type":"Seq Scan",
            "Parent Relationship":"Outer","Plan Rows":40}]}}])"}};
        outcome.tag = "EXPLAIN";
        return std::nullopt;
    }
    outcome = transaction_.reading(s.text != session::written_sql,
                                   s.text == session::effects_and_locks_sql);
    return std::nullopt;
}

void ModelServer::send_description(const Statement& s) {
    protocol::RowDescription description;
    if (s.verb == Verb::guard) {
        constexpr protocol::Int32 text_oid = 25;
        for (const char* const name :
             {"text", "o", "current_setting", "text", "int8", "int8", "int8", "float8"}) {
            description.columns.push_back({name, 0, 0, text_oid, -1, -1, 0});
        }
        return send(description);
    }
    description.columns.push_back(
        {s.verb == Verb::select_constant ? "?column?" : "id", 0, 0, int4_oid, 4, -1, 0});
    send(description);
}

void ModelServer::send_rows(const Outcome& outcome, std::size_t from, std::size_t to) {
    for (const auto& columns : outcome.reading) {
        protocol::DataRow row;
        for (const auto& column : columns) {
            row.columns.push_back(column ? protocol::Value(*column) : std::nullopt);
        }
        send(row);
    }
    for (std::size_t i = from; i < to; ++i) {
        const std::string text = std::to_string(outcome.rows[i]);
        protocol::DataRow row;
        row.columns = {std::string_view(text)};
        send(row);
    }
}

void ModelServer::send_copy_out(const Outcome& outcome) {
    protocol::CopyOutResponse response;
    response.column_formats = {0};
    send(response);
    for (const int id : outcome.rows) {
        // CopyData is encoded with the frontend's tag, which is the backend's too.
        const std::string line = std::to_string(id) + "\n";
        send(protocol::CopyData{line});
    }
    send(protocol::CopyDone{});
}

// Simple queries

void ModelServer::simple_query(std::string_view sql) {
    if (hooks_.arrived) hooks_.arrived(sql);
    prepared_.erase("");
    portals_.erase("");
    start_command();
    auto statements = parse_sql(sql);
    if (!statements.empty() && statements.front().verb == Verb::syntax_error) {
        fail({"42601", "syntax error"}, false);
        return ready_for_query();
    }
    if (statements.empty()) {
        if (auto failure = finish_command()) {
            fail(*failure, false);
        } else {
            send(protocol::EmptyQueryResponse{});
        }
        return ready_for_query();
    }
    run_ = std::make_unique<Run>();
    run_->statements = std::move(statements);
}

void ModelServer::finish_statement() {
    Run& run = *run_;
    if (run.function_call) return finish_function_call();
    const Statement statement = run.statements[run.next];
    if (run.extended) return finish_execute(statement);
    start_command();
    if (run.statements.size() > 1 && block_ == Block::started) block_ = Block::implicit;
    std::optional<Failure> failure = before_running(statement, {false, false, &run.parameters});
    Outcome outcome;
    if (!failure && statement.verb == Verb::copy_in && transaction_.read_only()) {
        failure = read_only_failure();
    }
    if (!failure && statement.verb == Verb::copy_in) {
        run.copying = true;
        transaction_.copy_begin(statement);
        protocol::CopyInResponse response;
        response.column_formats = {0};
        send(response);
        return flush();
    }
    if (!failure) {
        failure = this->run(statement, run.parameters, outcome);
        // What fails inside a function fails after its result has been described.
        const bool function = statement.verb == Verb::purge || statement.verb == Verb::wipe ||
                              statement.verb == Verb::make_function;
        if (failure && function) send_description(statement);
    }
    if (failure) {
        fail(*failure, false);
        return ready_for_query();
    }
    if (statement.notice) notice("NOTICE", "00000", "as the script has it");
    if (statement.verb == Verb::copy_out) send_copy_out(outcome);
    if (statement.returns_rows()) {
        send_description(statement);
        send_rows(outcome, 0, outcome.rows.size());
    }
    run.statements[run.next].name = outcome.tag;
    statement_done();
}

// The transaction ends before the last statement's CommandComplete is sent. The statement's `name`
// holds its tag by now.
void ModelServer::statement_done() {
    Run& run = *run_;
    const std::string tag = run.statements[run.next].name;
    const bool last = ++run.next == run.statements.size();
    if (last) {
        if (auto failure = finish_command()) {
            fail(*failure, false);
            return ready_for_query();
        }
    }
    send(protocol::CommandComplete{tag});
    if (!last) return;
    run_.reset();
    ready_for_query();
}

// COPY FROM STDIN

void ModelServer::copy_message() {
    const bool extended = run_->extended;
    const auto give_up = [&](const Failure& failure) {
        fail(failure, extended);
        if (!extended) ready_for_query();
    };
    if (cancel_pending_) {
        if (hooks_.cancelled) hooks_.cancelled(run_->statements[run_->next].text);
        return give_up(cancelled_by_user);
    }
    if (!message_complete()) return end();
    const auto head = protocol::read_head(input_, Side::frontend);
    if (head.has_error()) return end();
    const std::string message = input_.substr(0, head->total());
    input_.erase(0, message.size());
    const std::string body = body_of(message);
    switch (static_cast<FrontendTag>(head->tag)) {
        case FrontendTag::CopyData:
            if (auto failure = copy_data(body)) give_up(*failure);
            return;
        case FrontendTag::CopyDone: return copy_done();
        case FrontendTag::CopyFail: return give_up({"57014", "COPY from stdin failed"});
        case FrontendTag::Flush:
        case FrontendTag::Sync: return;
        default:
            // PostgreSQL 14 and later have not read the message yet, and can't go on.
            fail({"08P01", "unexpected message type during COPY from stdin"}, extended);
            return end_with({"08P01", "protocol synchronization was lost"});
    }
}

std::optional<Failure> ModelServer::copy_data(std::string_view data) {
    Run& run = *run_;
    run.copy_line += data;
    for (std::size_t end = run.copy_line.find('\n'); end != std::string::npos;
         end = run.copy_line.find('\n')) {
        const std::string line = run.copy_line.substr(0, end);
        run.copy_line.erase(0, end + 1);
        const int id = std::atoi(line.c_str());
        if (id <= 0) return Failure{"22P02", "invalid input syntax for type integer"};
        if (auto failure = transaction_.copy_row(run.statements[run.next], id)) return failure;
    }
    return std::nullopt;
}

void ModelServer::copy_done() {
    Run& run = *run_;
    std::string tag;
    auto failure = transaction_.copy_end(run.statements[run.next], tag);
    if (run.extended) {
        if (failure) return fail(*failure, true);
        send(protocol::CommandComplete{tag});
        pipelining_ = true;
        run_.reset();
        return;
    }
    if (failure) {
        fail(*failure, false);
        return ready_for_query();
    }
    run.copying = false;
    run.copy_line.clear();
    run.statements[run.next].name = tag;
    statement_done();
}

// The extended protocol

void ModelServer::parse(std::string_view body) {
    const auto message = protocol::decode<protocol::Parse>(body);
    if (message.has_error()) return fail({"08P01", "invalid message format"}, true);
    if (hooks_.arrived) hooks_.arrived(message->query);
    start_command();
    const std::string name(message->statement);
    if (name.empty()) prepared_.erase("");
    auto statements = parse_sql(message->query);
    if (statements.size() > 1) return fail({"42601", "cannot insert multiple commands"}, true);
    Statement statement = statements.empty() ? Statement() : std::move(statements.front());
    if (statement.verb == Verb::syntax_error) return fail({"42601", "syntax error"}, true);
    if (cancel_pending_) {
        if (hooks_.cancelled) hooks_.cancelled(message->query);
        return fail(cancelled_by_user, true);
    }
    if (block_ == Block::failed && statement.verb != Verb::empty &&
        !statement.ends_failed_block()) {
        return fail(failed_block, true);
    }
    if (prepared_.contains(name)) return fail({"42P05", "prepared statement exists"}, true);
    prepared_[name] = std::move(statement);
    send(protocol::ParseComplete{});
}

void ModelServer::bind(std::string_view body) {
    const auto message = protocol::decode<protocol::Bind>(body);
    if (message.has_error()) return fail({"08P01", "invalid message format"}, true);
    start_command();
    const auto found = prepared_.find(std::string(message->statement));
    if (found == prepared_.end()) {
        return fail({"26000", "prepared statement does not exist"}, true);
    }
    Portal portal;
    portal.statement = found->second;
    for (const protocol::Value& value : message->parameters) {
        portal.parameters.push_back(value ? std::atoi(std::string(*value).c_str()) : 0);
    }
    if (static_cast<int>(portal.parameters.size()) != portal.statement.parameters) {
        return fail({"08P01", "bind message supplies the wrong number of parameters"}, true);
    }
    if (block_ == Block::failed && !portal.statement.ends_failed_block()) {
        return fail(failed_block, true);
    }
    // 1 / 0 is computed as the plan is made.
    if (portal.statement.verb == Verb::select_constant && !portal.statement.fails.empty()) {
        return fail({portal.statement.fails, "division by zero"}, true);
    }
    const std::string name(message->portal);
    if (!name.empty() && portals_.contains(name)) return fail({"42P03", "portal exists"}, true);
    portals_[name] = std::move(portal);
    send(protocol::BindComplete{});
}

void ModelServer::describe(std::string_view body) {
    const auto message = protocol::decode<protocol::Describe>(body);
    if (message.has_error()) return fail({"08P01", "invalid message format"}, true);
    start_command();
    const std::string name(message->name);
    const Statement* statement = nullptr;
    if (message->kind == 'S') {
        const auto found = prepared_.find(name);
        if (found == prepared_.end()) return fail({"26000", "no such statement"}, true);
        statement = &found->second;
    } else {
        const auto found = portals_.find(name);
        if (found == portals_.end()) return fail({"34000", "no such portal"}, true);
        statement = &found->second.statement;
    }
    if (block_ == Block::failed && statement->returns_rows()) return fail(failed_block, true);
    if (message->kind == 'S') {
        protocol::ParameterDescription parameters;
        parameters.parameter_types.assign(static_cast<std::size_t>(statement->parameters),
                                          int4_oid);
        send(parameters);
    }
    if (statement->returns_rows()) {
        send_description(*statement);
    } else {
        send(protocol::NoData{});
    }
}

void ModelServer::execute(std::string_view body) {
    const auto message = protocol::decode<protocol::Execute>(body);
    if (message.has_error()) return fail({"08P01", "invalid message format"}, true);
    start_command();
    const auto found = portals_.find(std::string(message->portal));
    if (found == portals_.end()) return fail({"34000", "portal does not exist"}, true);
    if (found->second.statement.verb == Verb::empty) return send(protocol::EmptyQueryResponse{});
    run_ = std::make_unique<Run>();
    run_->extended = true;
    run_->portal = message->portal;
    run_->max_rows = message->max_rows;
    run_->statements = {found->second.statement};
    run_->parameters = found->second.parameters;
}

void ModelServer::finish_execute(const Statement& statement) {
    Run& run = *run_;
    Portal& portal = portals_.at(run.portal);
    if (portal.started && !statement.returns_rows()) {
        return fail({"55000", "portal cannot be run"}, true);
    }
    // A COMMIT and the like the guard runs under this name where its own block was in the way.
    const bool trial = run.portal == session::injected_name && !is_injected(statement.text) &&
                       !statement.controls_transaction();
    std::optional<Failure> failure = before_running(statement,
                                                    {trial, portal.started, &run.parameters});
    if (!failure && statement.verb == Verb::copy_in && transaction_.read_only()) {
        failure = read_only_failure();
    }
    if (!failure && statement.verb == Verb::copy_in) {
        portal.started = true;
        run.copying = true;
        transaction_.copy_begin(statement);
        protocol::CopyInResponse response;
        response.column_formats = {0};
        send(response);
        return flush();
    }
    Outcome outcome;
    const bool first = !portal.started;
    portal.started = true;
    if (!first) outcome = portal.outcome;
    if (!failure && first) {
        transaction_.trial = trial;
        failure = this->run(statement, run.parameters, outcome);
        transaction_.trial = false;
    }
    if (failure) return fail(*failure, true);
    if (first && statement.notice) notice("NOTICE", "00000", "as the script has it");
    if (statement.verb == Verb::copy_out) send_copy_out(outcome);
    bool suspended = false;
    if (statement.returns_rows()) {
        // The portal is still there: nothing that returns rows ends the transaction.
        Portal& again = portals_.at(run.portal);
        if (first) again.outcome = outcome;
        const std::size_t left = outcome.rows.size() - again.position;
        const auto limit = static_cast<std::size_t>(std::max(run.max_rows, 0));
        const std::size_t count = limit > 0 ? std::min(limit, left) : left;
        send_rows(outcome, again.position, again.position + count);
        again.position += count;
        suspended = limit > 0 && count == limit;
        // The tag counts what this Execute gave, of RETURNING too.
        if (statement.verb == Verb::select_rows || statement.returning) {
            outcome.tag.resize(outcome.tag.rfind(' ') + 1);
            outcome.tag += std::to_string(count);
        }
    }
    if (!statement.controls_transaction()) pipelining_ = block_ != Block::idle;
    run_.reset();
    if (suspended) {
        send(protocol::PortalSuspended{});
    } else {
        send(protocol::CommandComplete{outcome.tag});
    }
}

void ModelServer::close_name(std::string_view body) {
    const auto message = protocol::decode<protocol::Close>(body);
    if (message.has_error()) return fail({"08P01", "invalid message format"}, true);
    const std::string name(message->name);
    if (message->kind == 'S') {
        prepared_.erase(name);
    } else {
        portals_.erase(name);
    }
    send(protocol::CloseComplete{});
}

void ModelServer::sync() {
    skipping_ = false;
    if (auto failure = finish_command()) fail(*failure, false);
    pipelining_ = false;
    ready_for_query();
}

void ModelServer::function_call(std::string_view body) {
    const auto message = protocol::decode<protocol::FunctionCall>(body);
    if (message.has_error()) {
        fail({"08P01", "invalid message format"}, false);
        return ready_for_query();
    }
    start_command();
    if (block_ == Block::failed) {
        fail(failed_block, false);
        return ready_for_query();
    }
    Statement call;
    call.verb = Verb::purge;
    call.text = "function call";
    if (message->function_oid != purge_function_oid) call.fails = "42883";
    if (!message->arguments.empty() && message->arguments[0]) {
        call.high.value = std::atoi(std::string(*message->arguments[0]).c_str());
    }
    run_ = std::make_unique<Run>();
    run_->function_call = true;
    run_->statements = {call};
}

void ModelServer::finish_function_call() {
    const Statement call = run_->statements.front();
    Outcome outcome;
    auto failure = before_running(call, {});
    if (!failure) failure = transaction_.run(call, {}, outcome);
    if (!failure) {
        const std::string result = std::to_string(outcome.rows.front());
        send(protocol::FunctionCallResponse{std::string_view(result)});
        failure = finish_command();
    }
    if (failure) fail(*failure, false);
    run_.reset();
    ready_for_query();
}

}  // namespace pgchaperone::sim
