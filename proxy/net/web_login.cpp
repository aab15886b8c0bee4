#include "proxy/net/web_login.h"

#include "proxy/session/identity.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <libpq-fe.h>
#include <openssl/crypto.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

namespace pgchaperone::net {

namespace asio = boost::asio;
using asio::awaitable;
using Clock = std::chrono::steady_clock;
using web::Admission;
using web::Known;

namespace {

// The first libpq that can begin with TLS directly.
constexpr int direct_tls_since = 170000;

void log_failure(std::exception_ptr failure) {
    if (!failure) return;
    try {
        std::rethrow_exception(failure);
    } catch (const std::exception& error) {
        spdlog::error("web: internal error: {}", error.what());
    }
}

struct Finish {
    void operator()(PGconn* connection) const { PQfinish(connection); }
};
using Connection = std::unique_ptr<PGconn, Finish>;

// What libpq or the server says, on one line and without what it is prefixed with.
std::string words_of(PGconn* connection) {
    std::string text = connection == nullptr ? "out of memory" : PQerrorMessage(connection);
    for (char& c : text) c = c == '\n' || c == '\r' || c == '\t' ? ' ' : c;
    while (text.ends_with(' ')) text.pop_back();
    if (const auto at = text.find("FATAL:  "); at != std::string::npos) text.erase(0, at + 8);
    return text.empty() ? "no reason was given" : text;
}

// False: the deadline has passed. libpq's socket may be another one after any call, so it is only
// borrowed.
awaitable<bool> wait_for(int socket, bool to_read, Clock::time_point deadline) {
    const auto executor = co_await asio::this_coro::executor;
    const int borrowed = ::dup(socket);
    if (borrowed < 0) co_return false;
    const auto descriptor = std::make_shared<asio::posix::stream_descriptor>(executor, borrowed);
    asio::steady_timer timer(executor, deadline);
    timer.async_wait([descriptor](boost::system::error_code error) {
        if (!error) descriptor->cancel(error);
    });
    using Wait = asio::posix::stream_descriptor;
    const auto [error] = co_await descriptor->async_wait(
        to_read ? Wait::wait_read : Wait::wait_write, asio::as_tuple(asio::use_awaitable));
    co_return !error && Clock::now() < deadline;
}

// Asked after identity_sql. A role that may not log in any more has no say here either.
constexpr const char* still_valid_sql =
    "SELECT 'valid', '', (r.rolcanlogin AND (r.rolvaliduntil IS NULL OR r.rolvaliduntil"
    " OPERATOR(pg_catalog.>) pg_catalog.now()))::pg_catalog.text FROM pg_catalog.pg_roles r,"
    " pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a"
    " WHERE r.oid OPERATOR(pg_catalog.=) a.usesysid";

enum class Fetched { result, none, late, lost };

// The next result, when it has come.
awaitable<Fetched> fetch(PGconn* connection, Clock::time_point deadline,
                         std::shared_ptr<PGresult>& result) {
    for (int left = PQflush(connection); left == 1; left = PQflush(connection)) {
        const bool ready = co_await wait_for(PQsocket(connection), false, deadline);
        if (!ready) co_return Fetched::late;
    }
    while (PQisBusy(connection) == 1) {
        const bool ready = co_await wait_for(PQsocket(connection), true, deadline);
        if (!ready) co_return Fetched::late;
        if (PQconsumeInput(connection) != 1) co_return Fetched::lost;
    }
    result.reset(PQgetResult(connection), &PQclear);
    co_return result ? Fetched::result : Fetched::none;
}

// Who is logged in on this connection, by the server's word.
awaitable<Known> identify(PGconn* connection, std::string upstream, Clock::time_point deadline) {
    const auto lost = [&] {
        return Known{std::nullopt,
                     "the server has closed your connection: " + words_of(connection)};
    };
    const Known late{std::nullopt, "the server does not answer", false, false, true};
    std::shared_ptr<PGresult> result;
    Fetched fetched = Fetched::result;
    // What an earlier question, that was given up, is still owed.
    while (fetched == Fetched::result) fetched = co_await fetch(connection, deadline, result);
    if (fetched == Fetched::late) co_return late;
    const std::string sql = std::string(session::identity_sql) + ";" + still_valid_sql;
    if (fetched == Fetched::lost || PQsendQuery(connection, sql.c_str()) != 1) co_return lost();
    session::Identity identity;
    identity.person.upstream = std::move(upstream);
    std::string trouble;
    bool valid = false;
    while (true) {
        fetched = co_await fetch(connection, deadline, result);
        if (fetched == Fetched::late) co_return late;
        if (fetched == Fetched::lost) co_return lost();
        if (fetched == Fetched::none) break;
        if (PQresultStatus(result.get()) != PGRES_TUPLES_OK || PQnfields(result.get()) != 3) {
            trouble = words_of(connection);
            continue;
        }
        for (int row = 0; row < PQntuples(result.get()); ++row) {
            const auto value = [&](int column) -> std::string_view {
                return {PQgetvalue(result.get(), row, column),
                        static_cast<std::size_t>(PQgetlength(result.get(), row, column))};
            };
            if (value(0) == "valid") {
                valid = value(2) == "true";
            } else {
                identity.add(value(0), value(1), value(2));
            }
        }
    }
    if (!trouble.empty()) co_return Known{std::nullopt, trouble};
    if (!identity.usable()) co_return Known{std::nullopt, "the server does not say who you are"};
    if (!valid) co_return Known{std::nullopt, "your role may not log in any more", true};
    co_return Known{std::move(identity.person), {}};
}

class ServerProof final : public web::Proof, public std::enable_shared_from_this<ServerProof> {
public:
    // `valid`: whether who has proved it may still come in, whatever the server says.
    ServerProof(asio::io_context& context, Connection connection, const WebLoginOptions& options,
                std::function<bool()> valid)
        : context_(context),
          connection_(std::move(connection)),
          upstream_(options.name),
          timeout_(options.timeout),
          valid_(std::move(valid)) {}

    void ask(std::function<void(Known)> then) override {
        waiting_.push_back(std::move(then));
        if (std::exchange(asking_, true)) return;
        asio::co_spawn(context_, answer(shared_from_this()), log_failure);
    }

private:
    // All who ask meanwhile are answered together, by a question that begins after they asked.
    static awaitable<void> answer(std::shared_ptr<ServerProof> self) {
        while (!self->waiting_.empty()) {
            const auto asked = std::exchange(self->waiting_, {});
            Known known = co_await identify(self->connection_.get(), self->upstream_,
                                            Clock::now() + self->timeout_);
            if (!self->valid_()) known = {std::nullopt, "your role may not log in any more", true};
            // One that fails must not keep the others waiting.
            for (const auto& then : asked) {
                try {
                    then(known);
                } catch (const std::exception& error) {
                    spdlog::error("web: internal error: {}", error.what());
                }
            }
        }
        self->asking_ = false;
    }

    asio::io_context& context_;
    Connection connection_;
    std::string upstream_;
    std::chrono::milliseconds timeout_;
    std::function<bool()> valid_;
    std::vector<std::function<void(Known)>> waiting_;
    bool asking_ = false;
};

const char* mode_name(TlsMode mode) {
    switch (mode) {
        case TlsMode::disable: return "disable";
        case TlsMode::allow:
        case TlsMode::prefer: return "prefer";
        case TlsMode::require: return "require";
        case TlsMode::verify_ca: return "verify-ca";
        case TlsMode::verify_full: return "verify-full";
    }
    return "verify-full";
}

using Parameters = std::vector<std::pair<std::string, std::string>>;

Parameters parameters_of(const WebLoginOptions& options, const Resolved& resolved,
                         const std::string& role) {
    const Address& address = options.upstream;
    const TlsSettings& tls = options.upstream_tls;
    Parameters out = {{"user", role},
                      {"dbname", options.database},
                      {"port", std::to_string(address.port)},
                      {"application_name", "pgchaperone web"},
                      {"client_encoding", "UTF8"},
                      {"gssencmode", "disable"},
                      // Nothing of the proxy's own may stand in for what the person has typed.
                      {"passfile", "/dev/null"},
                      {"sslmode", address.unix_socket() ? "disable" : mode_name(tls.mode)}};
    std::string hosts, addresses;
    if (address.unix_socket()) {
        hosts = address.host;
    } else {
        for (const auto& endpoint : resolved.endpoints) {
            asio::ip::tcp::endpoint tcp;
            tcp.resize(endpoint.size());
            std::memcpy(tcp.data(), endpoint.data(), endpoint.size());
            hosts += (hosts.empty() ? "" : ",") + address.host;
            addresses += (addresses.empty() ? "" : ",") + tcp.address().to_string();
        }
    }
    out.emplace_back("host", hosts);
    if (!addresses.empty()) out.emplace_back("hostaddr", addresses);
    if (!tls.ca.empty()) out.emplace_back("sslrootcert", tls.ca.string());
    if (!tls.certificate.empty()) out.emplace_back("sslcert", tls.certificate.string());
    if (!tls.key.empty()) out.emplace_back("sslkey", tls.key.string());
    if (options.negotiation == UpstreamNegotiation::direct && PQlibVersion() >= direct_tls_since) {
        out.emplace_back("sslnegotiation", "direct");
    }
    return out;
}

Connection start(const Parameters& parameters, const std::string& password) {
    std::vector<const char*> names, values;
    for (const auto& [name, value] : parameters) {
        names.push_back(name.c_str());
        values.push_back(value.c_str());
    }
    names.push_back("password");
    values.push_back(password.c_str());
    names.push_back(nullptr);
    values.push_back(nullptr);
    return Connection(PQconnectStartParams(names.data(), values.data(), 0));
}

// Forgotten when the last who needs it is done.
std::shared_ptr<std::string> secret_of(std::string password) {
    std::shared_ptr<std::string> secret(new std::string(password), [](std::string* text) {
        OPENSSL_cleanse(text->data(), text->size());
        delete text;
    });
    OPENSSL_cleanse(password.data(), password.size());
    return secret;
}

awaitable<Admission> admit(asio::io_context& context, WebLoginOptions options, Resolved resolved,
                           std::string role, std::shared_ptr<std::string> password) {
    const auto failed = [](std::string why) { return Admission{nullptr, {{}, std::move(why)}}; };
    if (resolved.endpoints.empty()) co_return failed(resolved.error);
    const Clock::time_point deadline = Clock::now() + options.timeout;
    const auto users = options.users ? options.users() : nullptr;
    std::function<bool()> valid = [] { return true; };
    if (users) {
        const auto [verifier, known] = users->find(role);
        // Who was removed, or has another password since, has to log in again.
        valid = [users = options.users, role, was = verifier.text()] {
            const auto now = users();
            return now && now->find(role).first.text() == was;
        };
        if (!verifier.matches(*password) || !known) {
            co_return Admission{
                nullptr,
                {{}, "password authentication failed for user \"" + role + "\"", true, true}};
        }
        const session::Secret* const own = users->password(role);
        password = secret_of(own ? std::string(own->view()) : std::string());
    }
    Connection connection = start(parameters_of(options, resolved, role), *password);
    password.reset();
    if (!connection || PQstatus(connection.get()) == CONNECTION_BAD) {
        co_return failed(words_of(connection.get()));
    }
    PQsetNoticeProcessor(
        connection.get(), [](void*, const char*) {}, nullptr);
    PostgresPollingStatusType status = PGRES_POLLING_WRITING;
    bool late = false;
    while (!late && (status == PGRES_POLLING_READING || status == PGRES_POLLING_WRITING)) {
        const bool to_read = status == PGRES_POLLING_READING;
        const bool ready = co_await wait_for(PQsocket(connection.get()), to_read, deadline);
        late = !ready;
        if (ready) status = PQconnectPoll(connection.get());
    }
    // Only who was asked for a password, and has sent one, has tried one.
    const bool tried = !users && PQconnectionUsedPassword(connection.get()) == 1;
    if (late) co_return Admission{nullptr, {{}, "the server does not answer", false, tried}};
    if (status != PGRES_POLLING_OK) {
        co_return Admission{nullptr, {{}, words_of(connection.get()), tried, tried}};
    }
    if (!users && !tried) {
        const char* const why =
            "the server did not ask for a password, so it has checked nobody: pg_hba.conf has to "
            "say scram-sha-256 for this database and the address of pgchaperone";
        co_return Admission{nullptr, {{}, why, true, true}};
    }
    PQsetnonblocking(connection.get(), 1);
    Known known = co_await identify(connection.get(), options.name, deadline);
    if (!known.person) co_return Admission{nullptr, {{}, known.trouble, known.refused}};
    co_return Admission{
        std::make_shared<ServerProof>(context, std::move(connection), options, std::move(valid)),
        std::move(known)};
}

awaitable<void> log_in(asio::io_context& context, WebLoginOptions options, Resolved resolved,
                       std::string role, std::shared_ptr<std::string> password,
                       std::function<void(Admission)> then) {
    Admission admission = co_await admit(context, std::move(options), std::move(resolved),
                                         std::move(role), std::move(password));
    then(std::move(admission));
}

}  // namespace

web::Admit web_login(asio::io_context& context, Resolver& resolver,
                     std::vector<WebLoginOptions> servers) {
    return [&context, &resolver, servers = std::move(servers)](
               std::string role, std::string password, const std::string& upstream,
               std::function<void(Admission)> then) {
        const auto found = std::find_if(
            servers.begin(), servers.end(),
            [&](const WebLoginOptions& one) { return one.name == upstream; });
        // The page knows the same names.
        if (found == servers.end()) throw std::logic_error("no server of that name");
        const WebLoginOptions& options = *found;
        const auto begin = [&context, options, role = std::move(role),
                            password = secret_of(std::move(password)),
                            then = std::move(then)](Resolved resolved) {
            asio::post(context, [&context, options, resolved = std::move(resolved), role, password,
                                 then] {
                asio::co_spawn(context, log_in(context, options, resolved, role, password, then),
                               log_failure);
            });
        };
        resolver.resolve(options.upstream, begin);
    };
}

}  // namespace pgchaperone::net
