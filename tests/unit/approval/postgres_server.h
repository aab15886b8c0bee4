#pragma once
// A throw-away PostgreSQL server for the tests of the store, reachable by a Unix-domain socket in
// its own directory only. It is made when it is first asked for and erased with the process; should
// that be killed, the kernel ends the server.

#include <filesystem>
#include <string>

namespace pgchaperone::test {

class PostgresServer {
public:
    static PostgresServer& instance();

    // The connection string of a new, empty database.
    std::string make_database();
    std::string connection_to(const std::string& database) const;
    // Runs a statement in the database `postgres`; the first column of the first row.
    std::string run(const std::string& sql) const;

    void stop();  // at once, as in a crash
    void start();

private:
    PostgresServer();
    ~PostgresServer();
    PostgresServer(const PostgresServer&) = delete;
    PostgresServer& operator=(const PostgresServer&) = delete;

    std::filesystem::path directory_;
    std::filesystem::path programs_;
    int pid_ = 0;
    int databases_ = 0;
};

}  // namespace pgchaperone::test
