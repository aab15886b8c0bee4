// Statements for pgchaperone itself: SHOW chaperone.… and CALL chaperone.…(…). Who asks is read
// from the server, the host is asked for the rows, and a SELECT of them takes the statement's
// place; so its order, transaction, formats and Describe are the server's own. Where the server
// would refuse any statement (in a failed transaction, or while it skips), nothing is asked and
// nothing done.
//
// Simple protocol: a piece of a Unit (supervise.cpp), which waits twice before it is sent.
//
//   [BEGIN] identity -> identified -> AskChaperone -> asked -> ChaperoneAnswer -> the SELECT, ran
//                                                                              -> or our error
//
// Extended protocol: Parse has the SELECT in its place at once, with one parameter more than the
// client knows of; a Bind waits for what came before, asks, and gets the rows for that parameter.
//
//   Parse -> Parse of the SELECT     Describe -> its parameters but for the last
//   Bind  -> gate -> identity -> AskChaperone -> ChaperoneAnswer -> Bind with the rows
//                                                                -> or our error

#include "policy/chaperone_call.h"
#include "proxy/session/identity.h"
#include "proxy/session/session.h"
#include "proxy/session/supervise_sql.h"
#include "proxy/session/supervision.h"
#include "proxy/session/virtual_schema.h"

#include "protocol/codec.h"
#include "protocol/head.h"
#include "protocol/peek.h"

#include <boost/assert.hpp>

#include <algorithm>
#include <array>
#include <utility>

namespace pgchaperone::session {

namespace {

using policy::ChaperoneCall;
using Arguments = std::vector<std::optional<std::string>>;

constexpr std::int32_t text_oid = 25;
constexpr std::int32_t json_oid = 114;
// unknown, varchar, bpchar, name, text: their binary format is the text.
constexpr std::array<std::int32_t, 5> text_oids = {705, 1043, 1042, 19, text_oid};
constexpr std::size_t parameters_max = 65'535;
// The host's lists are bounded; this only keeps a message within what the protocol allows.
constexpr std::size_t rows_bytes_max = 64 * 1024 * 1024;
// As the rule of a refusal, in the server's log.
constexpr std::string_view rule_name = "chaperone";

policy::Refusal refusal_of(std::string sqlstate, std::string text, std::string hint = {}) {
    policy::Refusal refusal;
    refusal.sqlstate = std::move(sqlstate);
    refusal.message = "pgchaperone: " + std::move(text);
    refusal.hint = std::move(hint);
    return refusal;
}

policy::Refusal in_servers_words(std::string sqlstate, std::string text) {
    policy::Refusal refusal;
    refusal.sqlstate = std::move(sqlstate);
    refusal.message = std::move(text);
    return refusal;
}

// undefined_function, undefined_object
policy::Refusal problem_of(const ChaperoneCall& call) {
    return refusal_of(call.call ? "42883" : "42704", call.problem);
}

policy::Refusal nobody_known() {
    return refusal_of("58000", "the server did not say who is logged in here");
}

policy::Refusal too_long() {
    return refusal_of("54000", "the answer is too long", "Ask for one ticket alone.");
}

std::size_t parameters_of(const ChaperoneCall& call) {
    int most = 0;
    for (const ChaperoneCall::Argument& argument : call.arguments) {
        most = std::max(most, argument.parameter);
    }
    return static_cast<std::size_t>(most);
}

// What must not be NULL and is.
std::optional<policy::Refusal> missing_argument(const ChaperoneCall& call,
                                                const Arguments& arguments) {
    const policy::ChaperoneName* const entry = policy::find_chaperone_name(call.name, call.call);
    for (std::size_t i = 0; entry != nullptr && i < entry->required; ++i) {
        if (i < arguments.size() && arguments[i]) continue;
        return refusal_of("22004", "chaperone." + call.name + " needs its argument " +
                                       std::string(entry->arguments[i]));
    }
    return std::nullopt;
}

std::int16_t format_of(const protocol::Bind& bind, std::size_t parameter) {
    if (bind.parameter_formats.empty()) return 0;
    return bind.parameter_formats.size() == 1 ? bind.parameter_formats.front()
                                              : bind.parameter_formats[parameter];
}

// What is wrong with a Bind's lists, in the server's own words: it would count ours as well.
std::optional<policy::Refusal> wrong_lists(const protocol::Bind& bind,
                                           const PreparedStatement& statement) {
    const std::size_t given = bind.parameters.size();
    const std::size_t formats = bind.parameter_formats.size();
    const std::size_t wanted = statement.parameter_types.size();
    if (formats > 1 && formats != given) {
        return in_servers_words("08P01", "bind message has " + std::to_string(formats) +
                                             " parameter formats but " + std::to_string(given) +
                                             " parameters");
    }
    if (given != wanted) {
        return in_servers_words("08P01", "bind message supplies " + std::to_string(given) +
                                             " parameters, but prepared statement \"" +
                                             std::string(bind.statement) + "\" requires " +
                                             std::to_string(wanted));
    }
    return std::nullopt;
}

// The arguments' values; an argument that is a parameter has its value from the Bind.
boost::system::result<Arguments, policy::Refusal> values_of(const ChaperoneCall& call,
                                                            const protocol::Bind& bind,
                                                            const PreparedStatement& statement,
                                                            bool utf8) {
    Arguments values;
    for (const ChaperoneCall::Argument& argument : call.arguments) {
        if (argument.parameter == 0) {
            values.push_back(argument.text);
            continue;
        }
        const auto at = static_cast<std::size_t>(argument.parameter) - 1;
        const protocol::Value& value = bind.parameters[at];
        const bool is_text = std::find(text_oids.begin(), text_oids.end(),
                                       statement.parameter_types[at]) != text_oids.end();
        if (value && format_of(bind, at) != 0 && !is_text) {
            return refusal_of("0A000",
                              "the parameter $" + std::to_string(argument.parameter) +
                                  " of chaperone." + call.name + " is binary and no text",
                              "Send it as text, or declare it as such.");
        }
        values.push_back(value ? std::optional(readable_text(*value, utf8)) : std::nullopt);
    }
    if (auto refusal = missing_argument(call, values)) return std::move(*refusal);
    return values;
}

}  // namespace

const ChaperoneCall* Session::call_in(const policy::Judgement& judgement, std::size_t index) {
    const policy::StatementFacts* const facts = judgement.facts(index);
    return facts != nullptr ? facts->chaperone.get() : nullptr;
}

// Whether any of the statements is for pgchaperone itself.
bool Session::asks_chaperone(const policy::Judgement& judgement) {
    return judgement.analysis &&
           std::any_of(
               judgement.analysis->statements.begin(), judgement.analysis->statements.end(),
               [](const policy::StatementFacts& facts) { return facts.chaperone != nullptr; });
}

// A Parse of what can't be answered. (In a Query, its turn has to come first.)
void Session::refuse_what_cannot_be_answered() {
    if (pending_.kind != StatementKind::parse || pending_.refusal) return;
    if (!asks_chaperone(pending_.judgement)) return;
    pending_.refusal = [&]() -> std::optional<policy::Refusal> {
        // What the server would say of it; but it shall not see it.
        if (pending_.judgement.analysis->statements.size() > 1) {
            return in_servers_words("42601",
                                    "cannot insert multiple commands into a prepared statement");
        }
        const ChaperoneCall& call = *call_in(pending_.judgement, 0);
        if (!call.problem.empty()) return problem_of(call);
        const auto bytes = from_client_.peek(pending_.total);
        const auto parse = protocol::decode<protocol::Parse>(bytes->substr(protocol::head_size));
        if (!parse) return in_servers_words("08P01", "invalid message format");
        if (std::max(parse->parameter_types.size(), parameters_of(call)) >= parameters_max) {
            return refusal_of("54000", "too many parameters");
        }
        return std::nullopt;
    }();
    if (pending_.refusal) pending_.rule = rule_name;
}

std::string Session::rows_for_server(std::string_view rows) const {
    return ascii_json(rows,
                      settings_.client_encoding_is_utf8() && settings_.server_encoding_is_utf8());
}

// --- Simple protocol

void Session::identify_for_piece() {
    Supervision& s = *supervision_;
    Supervision::Unit& unit = s.unit;
    // An implicit transaction of the extended protocol, which our own Query would end, goes on as a
    // block; and so does what several statements of one string are.
    const bool open = transaction_status_ == 'I' && !unit.ours &&
                      (unit.pieces.size() > 1 || unit.read_terms != nullptr || pipeline_open_);
    if (open && facts_.replication) {
        unit.step = Supervision::Step::opened;
        unit.opening = true;
        return inject_query(begin_sql, Role::ours, nullptr);
    }
    if (open) {
        unit.opening = true;
        inject_extended(begin_sql, Role::ours, nullptr);
    }
    unit.step = Supervision::Step::identified;
    s.identity = nobody_yet();
    inject_query(identity_sql, Role::identity, nullptr);
}

void Session::ask_for_piece() {
    Supervision& s = *supervision_;
    Supervision::Unit& unit = s.unit;
    if (std::exchange(unit.opening, false)) unit.ours = transaction_status_ != 'I';
    if (!s.injected_error.empty()) return fail_unit_by_server();
    const Supervision::Piece& piece = unit.pieces[unit.at];
    if (!piece.call->problem.empty()) return fail_unit(problem_of(*piece.call));
    if (const std::size_t parameters = parameters_of(*piece.call)) {
        return fail_unit(
            refusal_of("42P02", "there is no parameter $" + std::to_string(parameters)));
    }
    if (!s.identity.usable()) return fail_unit(nobody_known());
    Arguments arguments;
    for (const ChaperoneCall::Argument& argument : piece.call->arguments) {
        arguments.push_back(argument.text);
    }
    if (auto refusal = missing_argument(*piece.call, arguments)) {
        return fail_unit(std::move(*refusal));
    }
    unit.step = Supervision::Step::asked;
    say(AskChaperone{piece.call, std::move(arguments),
                     std::exchange(s.identity, Identity{}).person});
}

void Session::piece_answered() {
    Supervision::Unit& unit = supervision_->unit;
    const ChaperoneAnswer answer = *std::exchange(supervision_->answer, std::nullopt);
    if (answer.refusal) return fail_unit(*answer.refusal);
    if (answer.rows.size() > rows_bytes_max) return fail_unit(too_long());
    Supervision::Piece& piece = unit.pieces[unit.at];
    piece.text = select_of_rows(*piece.call, rows_for_server(answer.rows));
    piece.call.reset();
    run_piece();
}

// --- Extended protocol

// What is sent in the place of the Parse at the front.
std::string Session::answered_parse(PreparedStatement& statement) {
    const ChaperoneCall& call = *call_in(pending_.judgement, 0);
    const auto bytes = from_client_.peek(pending_.total);
    auto parse = protocol::decode<protocol::Parse>(bytes->substr(protocol::head_size));
    BOOST_ASSERT_MSG(parse.has_value(), "refuse_what_cannot_be_answered has looked");
    std::vector<protocol::Int32> types = parse->parameter_types;
    types.resize(std::max(types.size(), parameters_of(call)));
    std::replace(types.begin(), types.end(), 0, text_oid);
    statement.answered = true;
    statement.parameter_types = types;
    const std::string sql = select_of_parameter(call, types.size() + 1);
    types.push_back(json_oid);
    parse->query = sql;
    parse->parameter_types = std::move(types);
    return protocol::encoded(*parse);
}

bool Session::client_answered_bind(std::size_t total, const StatementHandle& handle) {
    if (total > text_bytes_max) {
        pending_ = {};
        pending_.kind = StatementKind::bind;
        pending_.total = total;
        refuse_bind(refusal_of("54000", "the parameters are too long"));
        return true;
    }
    if (!from_client_.peek(total)) return false;
    Judge question;
    question.kind = StatementKind::bind;
    question.analysis = handle->judgement.analysis;
    pending_ = {};
    pending_.kind = StatementKind::bind;
    pending_.statement = handle;
    ask(std::move(question), total);
    return true;
}

// The Bind at the front has been judged.
void Session::answer_bind() {
    Supervision& s = supervision();
    // To a server that takes COPY data it is only a mistake.
    if (ledger_.copy_in_open()) return send_answered_bind({});
    if (!ledger_.idle() && wait_at_gate(false)) {
        s.execute_waits = true;
        return;
    }
    if (predicted_status_ == 'E') return send_answered_bind({});
    s.injected_error.clear();
    s.identity = nobody_yet();
    s.asking = Supervision::Asking::identity;
    waiting_ = Waiting::answer;
    inject_extended(identity_sql, Role::identity, nullptr);
    send_to_server(protocol::encoded(protocol::Flush{}));
}

// Goes on with the Bind at the front: the server has said who asks, or pgchaperone has answered.
void Session::answer_step() {
    Supervision& s = *supervision_;
    if (phase_ != Phase::relay || server_said_fatal_) return;
    // Our own words must not come in the middle of a message of the server's.
    if (server_pass_bytes_ > 0 && server_pass_ == Fate::forward) return;
    if (!ledger_.idle() && !ledger_.skipping()) return;
    if (s.asking == Supervision::Asking::answer) {
        if (s.answer) bind_answered();
        return;
    }
    if (ledger_.skipping() || group_refused()) {
        // The client was told of an error meanwhile.
        s.asking = Supervision::Asking::nothing;
        waiting_ = Waiting::nothing;
        pass(pending_.total, Fate::discard);
        pending_ = {};
        return;
    }
    const auto& call = pending_.statement->judgement.analysis->statements.front().chaperone;
    const auto bytes = from_client_.peek(pending_.total);
    const auto bind = protocol::decode<protocol::Bind>(bytes->substr(protocol::head_size));
    if (!bind) return send_answered_bind({});
    if (auto refusal = wrong_lists(*bind, *pending_.statement)) {
        return refuse_bind(std::move(*refusal));
    }
    if (!s.identity.usable()) return refuse_bind(nobody_known());
    auto values = values_of(*call, *bind, *pending_.statement, settings_.client_encoding_is_utf8());
    if (!values) return refuse_bind(values.error());
    s.asking = Supervision::Asking::answer;
    say(AskChaperone{call, std::move(*values), std::exchange(s.identity, Identity{}).person});
}

void Session::bind_answered() {
    const ChaperoneAnswer answer = *std::exchange(supervision_->answer, std::nullopt);
    if (answer.refusal) return refuse_bind(*answer.refusal);
    if (answer.rows.size() > rows_bytes_max) return refuse_bind(too_long());
    send_answered_bind(rows_for_server(answer.rows));
}

// The Bind at the front goes with these rows as its last parameter; empty: it will fail, whatever
// they are.
void Session::send_answered_bind(std::string_view rows) {
    const auto bytes = from_client_.peek(pending_.total);
    auto bind = protocol::decode<protocol::Bind>(bytes->substr(protocol::head_size));
    std::string message;
    std::unique_ptr<Extra> extra;
    if (bind) {
        if (!bind->parameter_formats.empty()) {
            if (bind->parameter_formats.size() == 1) {
                bind->parameter_formats.resize(bind->parameters.size(),
                                               bind->parameter_formats.front());
            }
            bind->parameter_formats.push_back(0);
        }
        bind->parameters.push_back(rows.empty() ? protocol::Value() : protocol::Value(rows));
        if (!protocol::encode(*bind, message)) {
            return refuse_bind(refusal_of("54000", "the parameters are too long"));
        }
        if (!bind->portal.empty()) {
            extra = std::make_unique<Extra>();
            extra->name = bind->portal;
            extra->names_portal = true;
        }
    }
    if (supervision_) supervision_->asking = Supervision::Asking::nothing;
    waiting_ = Waiting::nothing;
    const std::uint64_t sequence = ledger_.sent(Owed::bind, Disposition::forward, std::move(extra));
    if (bind) {
        names_.set_portal(bind->portal, pending_.statement, sequence);
        send_to_server(std::move(message));
    }
    // What can't be read is for the server to complain of.
    pass(pending_.total, bind ? Fate::discard : Fate::forward);
    pending_ = {};
}

void Session::refuse_bind(policy::Refusal refusal) {
    if (supervision_) supervision_->asking = Supervision::Asking::nothing;
    waiting_ = Waiting::nothing;
    pending_.rule = rule_name;
    refuse(std::move(refusal));
    pending_ = {};
}

void Session::handle(const ChaperoneAnswer& event) {
    if (phase_ != Phase::relay || !supervision_) return;
    Supervision& s = *supervision_;
    const bool awaited = (waiting_ == Waiting::unit && s.unit.step == Supervision::Step::asked) ||
                         (waiting_ == Waiting::answer && s.asking == Supervision::Asking::answer);
    if (!awaited) return;
    s.answer = event;
    read_client();
}

}  // namespace pgchaperone::session
