#include "cli/guard_client.h"

#include <libpq-fe.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <stdexcept>

namespace pgchaperone::cli {
namespace {

struct Clear {
    void operator()(PGresult* result) const { PQclear(result); }
};
using Result = std::unique_ptr<PGresult, Clear>;

// Object ids of pg_type.dat.
constexpr Oid bool_oid = 16, int8_oid = 20, text_oid = 25, timestamptz_oid = 1184;
constexpr int binary_format = 1;

std::uint64_t big_endian(std::string_view bytes) {
    std::uint64_t value = 0;
    for (const char c : bytes) value = (value << 8) | static_cast<unsigned char>(c);
    return value;
}

// Binary results are the same whatever DateStyle and TimeZone the role has set: a timestamptz is
// microseconds since 2000 began.
std::optional<std::string> value_text(Oid type, std::string_view bytes) {
    if (type == text_oid) return std::string(bytes);
    if (type == bool_oid && bytes.size() == 1)
        return bytes[0] != 0 ? std::string("true") : std::string("false");
    if (type == int8_oid && bytes.size() == 8)
        return std::to_string(static_cast<std::int64_t>(big_endian(bytes)));
    if (type == timestamptz_oid && bytes.size() == 8) {
        using namespace std::chrono;
        const auto micros = static_cast<std::int64_t>(big_endian(bytes));
        // Infinity stands at both ends of the range; the calendar here ends sooner.
        if (micros > 7'000'000'000'000'000 || micros < -2'000'000'000'000'000) return std::nullopt;
        return time_text(sys_days(year(2000) / January / 1) + microseconds(micros), Look{});
    }
    return std::nullopt;
}

ValueKind kind_of(Oid type) {
    return type == bool_oid          ? ValueKind::boolean
           : type == int8_oid        ? ValueKind::number
           : type == timestamptz_oid ? ValueKind::time
                                     : ValueKind::text;
}

std::string field(const PGresult* result, int code) {
    const char* text = PQresultErrorField(result, code);
    return text == nullptr ? std::string() : std::string(text);
}

std::string without_break(std::string text) {
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
}

void show_notice(void*, const char* message) { std::cerr << visible_lines(message) << '\n'; }

// Typed at the terminal without being shown there.
std::optional<std::string> typed_password() {
    termios before{};
    if (isatty(STDIN_FILENO) == 0 || tcgetattr(STDIN_FILENO, &before) != 0) return std::nullopt;
    // Before it is asked for: what is typed at once must be neither shown nor thrown away.
    termios silent = before;
    silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
    std::cerr << "Password: " << std::flush;
    std::string password;
    const bool read = static_cast<bool>(std::getline(std::cin, password));
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
    std::cerr << '\n';
    if (!read) return std::nullopt;
    return password;
}

pg_conn* open_connection(const ConnectionWords& words, const std::string& password) {
    const auto given = [](const std::string& text) {
        return text.empty() ? nullptr : text.c_str();
    };
    // What stands behind dbname wins over what a connection string in it says.
    const char* const names[] = {"connect_timeout",
                                 "host",
                                 "port",
                                 "user",
                                 "password",
                                 "dbname",
                                 "client_encoding",
                                 "fallback_application_name",
                                 nullptr};
    const char* const values[] = {std::getenv("PGCONNECT_TIMEOUT") == nullptr ? "10" : nullptr,
                                  given(words.host),
                                  given(words.port),
                                  given(words.user),
                                  given(password),
                                  given(words.dbname),
                                  "UTF8",
                                  "pgchaperone",
                                  nullptr};
    return PQconnectdbParams(names, values, 1);
}

}  // namespace

void throw_exception_from_error(const ServerError& error, const boost::source_location&) {
    throw std::runtime_error(error.message);
}

std::string ServerError::text() const {
    std::string out = (kind == Kind::refused ? "ERROR:  " : "pgchaperone: ") +
                      visible_lines(message) + "\n";
    if (!detail.empty()) out += "DETAIL:  " + visible_lines(detail) + "\n";
    if (!hint.empty()) out += (kind == Kind::refused ? "HINT:  " : "") + visible_lines(hint) + "\n";
    return out;
}

void GuardClient::Close::operator()(pg_conn* connection) const { PQfinish(connection); }

Answer<GuardClient> GuardClient::connect(const ConnectionWords& words, bool may_ask) {
    GuardClient client(open_connection(words, {}));
    if (PQstatus(client.connection_.get()) != CONNECTION_OK && may_ask &&
        PQconnectionNeedsPassword(client.connection_.get()) != 0) {
        if (const auto password = typed_password())
            client.connection_.reset(open_connection(words, *password));
    }
    if (PQstatus(client.connection_.get()) != CONNECTION_OK) {
        ServerError error;
        error.kind = ServerError::Kind::connection;
        error.message = without_break(PQerrorMessage(client.connection_.get()));
        if (error.message.empty()) error.message = "no connection could be made";
        return error;
    }
    PQsetNoticeProcessor(client.connection_.get(), show_notice, nullptr);
    return client;
}

std::string GuardClient::where() const {
    const auto word = [](const char* text) { return text == nullptr ? "" : std::string(text); };
    const std::string host = word(PQhost(connection_.get()));
    return word(PQuser(connection_.get())) + " at " + host + ":" + word(PQport(connection_.get()));
}

bool GuardClient::is_guard() {
    const Result result(PQexec(connection_.get(), "SHOW chaperone.version"));
    return PQresultStatus(result.get()) == PGRES_TUPLES_OK && PQnfields(result.get()) > 1;
}

Answer<Rows> GuardClient::ask(const std::string& sql, const std::vector<std::string>& parameters,
                              const std::vector<std::string_view>& columns) {
    std::vector<const char*> values;
    for (const std::string& parameter : parameters) values.push_back(parameter.c_str());
    const std::vector<Oid> types(parameters.size(), text_oid);
    const Result result(PQexecParams(connection_.get(), sql.c_str(),
                                     static_cast<int>(parameters.size()), types.data(),
                                     values.data(), nullptr, nullptr, binary_format));
    ServerError error;
    const auto stranger = [&] {
        error = {};
        error.kind = ServerError::Kind::stranger;
        error.message = "this is PostgreSQL without pgchaperone in front of it (" + where() + ")";
        error.hint = "Give the guard's address by --host and --port, or by PGHOST and PGPORT.";
        return error;
    };
    if (PQresultStatus(result.get()) != PGRES_TUPLES_OK) {
        error.sqlstate = field(result.get(), PG_DIAG_SQLSTATE);
        error.message = field(result.get(), PG_DIAG_MESSAGE_PRIMARY);
        error.detail = field(result.get(), PG_DIAG_MESSAGE_DETAIL);
        error.hint = field(result.get(), PG_DIAG_MESSAGE_HINT);
        if (error.message.empty()) error.message = without_break(PQerrorMessage(connection_.get()));
        // A failure that the server ends the session with (57P01) is one of the connection.
        if (PQstatus(connection_.get()) != CONNECTION_OK) {
            error.kind = ServerError::Kind::connection;
            return error;
        }
        // "There is no such setting", "no such schema", "no such procedure".
        const bool unknown = error.sqlstate == "42704" || error.sqlstate == "3F000" ||
                             error.sqlstate == "42883";
        if (unknown && !is_guard()) return stranger();
        return error;
    }
    Rows rows;
    const int width = PQnfields(result.get());
    for (int c = 0; c < width; ++c)
        rows.columns.push_back({PQfname(result.get(), c), kind_of(PQftype(result.get(), c))});
    if (!std::all_of(columns.begin(), columns.end(), [&](auto name) { return rows.has(name); }))
        return stranger();
    for (int r = 0; r < PQntuples(result.get()); ++r) {
        auto& row = rows.values.emplace_back();
        for (int c = 0; c < width; ++c) {
            if (PQgetisnull(result.get(), r, c) != 0) {
                row.emplace_back();
                continue;
            }
            row.push_back(value_text(PQftype(result.get(), c),
                                     {PQgetvalue(result.get(), r, c),
                                      static_cast<std::size_t>(PQgetlength(result.get(), r, c))}));
        }
    }
    return rows;
}

}  // namespace pgchaperone::cli
