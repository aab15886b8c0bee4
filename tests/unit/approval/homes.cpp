#include "homes.h"

#include "postgres_server.h"

#include <signal.h>
#include <sys/resource.h>

#include <cstdlib>
#include <stdexcept>

namespace pgchaperone::test {
namespace {

// No file may be written any more, or again: even root is held by that, unlike by the mode of a
// file.
void allow_writing(bool allowed) {
    ::signal(SIGXFSZ, SIG_IGN);
    rlimit limit{};
    ::getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = allowed ? limit.rlim_max : 0;
    ::setrlimit(RLIMIT_FSIZE, &limit);
}

}  // namespace

Home::Home(HomeKind kind) : kind_(kind) {
    if (kind == HomeKind::postgres) {
        connection_ = PostgresServer::instance().make_database();
        return;
    }
    std::string pattern = (std::filesystem::temp_directory_path() / "pgchaperone-tickets-XXXXXX")
                              .string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("no temporary directory");
    folder_ = pattern;
}

Home::~Home() {
    if (sabotaged_) mend();
    std::error_code ignored;
    if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
}

approval::Result<std::unique_ptr<approval::Store>> Home::try_open() const {
    return kind_ == HomeKind::sqlite ? approval::open_sqlite_store(file().string())
                                     : approval::open_postgres_store(connection_);
}

std::unique_ptr<approval::Store> Home::open() const {
    auto store = try_open();
    if (!store) throw std::runtime_error(store.error().text);
    return std::move(*store);
}

void Home::sabotage() {
    sabotaged_ = true;
    if (kind_ == HomeKind::sqlite)
        allow_writing(false);
    else
        PostgresServer::instance().stop();
}

void Home::mend() {
    sabotaged_ = false;
    if (kind_ == HomeKind::sqlite)
        allow_writing(true);
    else
        PostgresServer::instance().start();
}

}  // namespace pgchaperone::test
