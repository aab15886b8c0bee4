#pragma once
// A connection to a guard by libpq, for the subcommands that ask its virtual schema. What libpq
// takes is taken: options, PG* variables, ~/.pgpass, service files, connection URIs.

#include "cli/ticket_view.h"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct pg_conn;

namespace pgchaperone::cli {

// As psql has them; empty: libpq's own default.
struct ConnectionWords {
    std::string host;
    std::string port;
    std::string user;
    std::string dbname;  // or a whole connection string or URI
};

struct ServerError {
    // `refused`: the guard's or the server's answer; `connection`: there is none to ask, or none
    // any more; `stranger`: what is there is no pgchaperone.
    enum class Kind { refused, connection, stranger };
    Kind kind = Kind::refused;
    std::string sqlstate;
    std::string message;
    std::string detail;
    std::string hint;

    // As psql prints it, safe for a terminal, with a line break at its end.
    std::string text() const;
};
template <class T>
using Answer = boost::system::result<T, ServerError>;
[[noreturn]] void throw_exception_from_error(const ServerError& error,
                                             const boost::source_location& location);

class GuardClient {
public:
    // Asks for a password at the terminal where one is needed and `may_ask`.
    static Answer<GuardClient> connect(const ConnectionWords& words, bool may_ask);

    // One statement of the virtual schema with text parameters; all of its columns must be there,
    // or it was something else that answered.
    Answer<Rows> ask(const std::string& sql, const std::vector<std::string>& parameters,
                     const std::vector<std::string_view>& columns);
    // "clerk at 127.0.0.1:6432"
    std::string where() const;

private:
    struct Close {
        void operator()(pg_conn* connection) const;
    };
    explicit GuardClient(pg_conn* connection) : connection_(connection) {}
    bool is_guard();
    std::unique_ptr<pg_conn, Close> connection_;
};

}  // namespace pgchaperone::cli
