#include "postgres_server.h"

#include <fcntl.h>
#include <grp.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

namespace pgchaperone::test {
namespace {

namespace fs = std::filesystem;

// The newest server that the distribution has installed, or what PGCHAPERONE_PG_BIN says.
fs::path find_programs() {
    if (const char* given = std::getenv("PGCHAPERONE_PG_BIN"); given && *given) return given;
    std::vector<std::pair<int, fs::path>> found;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator("/usr/lib/postgresql", error))
        if (fs::exists(entry.path() / "bin" / "postgres"))
            found.emplace_back(std::atoi(entry.path().filename().c_str()), entry.path() / "bin");
    if (found.empty())
        throw std::runtime_error(
            "no PostgreSQL server in /usr/lib/postgresql: tools/deps test installs one, "
            "or set PGCHAPERONE_PG_BIN");
    return std::max_element(found.begin(), found.end())->second;
}

// PostgreSQL refuses to run as root.
const passwd* account() {
    if (::geteuid() != 0) return nullptr;
    const passwd* postgres = ::getpwnam("postgres");
    if (!postgres) throw std::runtime_error("there is no user postgres to run a server as");
    return postgres;
}

// In a child process; what it says goes to the file `log`.
int start_program(const std::vector<std::string>& command, const fs::path& log) {
    std::vector<char*> arguments;
    for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    const passwd* owner = account();
    const pid_t child = ::fork();
    if (child < 0) throw std::runtime_error("fork failed");
    if (child > 0) return child;
    const int output = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    ::dup2(output, 1);
    ::dup2(output, 2);
    if (owner && (::initgroups("postgres", owner->pw_gid) != 0 || ::setgid(owner->pw_gid) != 0 ||
                  ::setuid(owner->pw_uid) != 0))
        ::_exit(126);
    // After the change of user, which takes it away.
    ::prctl(PR_SET_PDEATHSIG, SIGQUIT);
    if (::chdir("/") != 0) ::_exit(126);
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
}

int status_of(int pid) {
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

}  // namespace

PostgresServer& PostgresServer::instance() {
    static PostgresServer server;
    return server;
}

PostgresServer::PostgresServer() : programs_(find_programs()) {
    std::string pattern = (fs::temp_directory_path() / "pgchaperone-store-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("no temporary directory");
    directory_ = pattern;
    if (const passwd* owner = account())
        if (::chown(directory_.c_str(), owner->pw_uid, owner->pw_gid) != 0)
            throw std::runtime_error("the temporary directory can't be given to postgres");
    const int made = start_program(
        {programs_ / "initdb", "--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8",
         "--locale=C", "-D", directory_ / "data"},
        directory_ / "initdb.log");
    if (status_of(made) != 0)
        throw std::runtime_error("initdb failed; see " + (directory_ / "initdb.log").string());
    start();
}

PostgresServer::~PostgresServer() {
    stop();
    std::error_code ignored;
    fs::remove_all(directory_, ignored);
}

void PostgresServer::start() {
    const std::string sockets = "unix_socket_directories=" + directory_.string();
    pid_ = start_program({programs_ / "postgres", "-D", directory_ / "data", "-c", sockets, "-c",
                          "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=40", "-c",
                          "shared_buffers=16MB"},
                         directory_ / "server.log");
    for (int attempt = 0; attempt < 1500; ++attempt) {
        if (PQping(connection_to("postgres").c_str()) == PQPING_OK) return;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    throw std::runtime_error("PostgreSQL does not start; see " +
                             (directory_ / "server.log").string());
}

void PostgresServer::stop() {
    if (pid_ == 0) return;
    ::kill(pid_, SIGQUIT);
    status_of(pid_);
    pid_ = 0;
}

std::string PostgresServer::connection_to(const std::string& database) const {
    return "host=" + directory_.string() + " user=postgres dbname=" + database;
}

std::string PostgresServer::make_database() {
    const std::string name = "store_" + std::to_string(++databases_);
    run("CREATE DATABASE " + name);
    return connection_to(name);
}

std::string PostgresServer::run(const std::string& sql) const {
    const std::unique_ptr<PGconn, void (*)(PGconn*)> connection(
        PQconnectdb(connection_to("postgres").c_str()), PQfinish);
    PQsetNoticeReceiver(
        connection.get(), [](void*, const PGresult*) {}, nullptr);
    const std::unique_ptr<PGresult, void (*)(PGresult*)> result(
        PQexec(connection.get(), sql.c_str()), PQclear);
    const ExecStatusType status = PQresultStatus(result.get());
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
        throw std::runtime_error(sql + ": " + PQerrorMessage(connection.get()));
    return PQntuples(result.get()) > 0 ? PQgetvalue(result.get(), 0, 0) : "";
}

}  // namespace pgchaperone::test
