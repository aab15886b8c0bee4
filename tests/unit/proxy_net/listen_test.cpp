#include "proxy/net/listen.h"

#include "proxy/net/passed_sockets.h"
#include "support/catch.h"

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <fcntl.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <unistd.h>

using namespace pgchaperone;

namespace {

class Folder {
public:
    Folder() {
        std::string made = (std::filesystem::temp_directory_path() / "pgchaperone-listen-XXXXXX")
                               .string();
        REQUIRE(::mkdtemp(made.data()) != nullptr);
        path_ = made;
    }
    ~Folder() { std::filesystem::remove_all(path_); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    const std::string& path() const { return path_; }

private:
    std::string path_;
};

net::Acceptor listen_in(boost::asio::io_context& context, const Folder& folder) {
    const net::Address address{folder.path(), 6432};
    return net::listen_on(context, address,
                          boost::asio::local::stream_protocol::endpoint(address.text()),
                          "can't listen: ", "--listen");
}

unsigned mode_of(const std::string& path) {
    struct stat status {};
    REQUIRE(::lstat(path.c_str(), &status) == 0);
    return status.st_mode & 07777U;
}

}  // namespace

TEST_CASE("a Unix-domain socket is for everybody whom its folder lets in, whatever the umask") {
    const Folder folder;
    boost::asio::io_context context;
    const mode_t before = ::umask(077);
    const net::Acceptor acceptor = listen_in(context, folder);
    ::umask(before);
    CHECK(mode_of(folder.path() + "/.s.PGSQL.6432") == 0777U);
}

TEST_CASE("a socket that nobody listens on any more is in nobody's way, and one in use is") {
    const Folder folder;
    boost::asio::io_context context;
    { const net::Acceptor gone = listen_in(context, folder); }
    const net::Acceptor acceptor = listen_in(context, folder);
    CHECK_THROWS_WITH(listen_in(context, folder),
                      Catch::Matchers::ContainsSubstring("can't listen") &&
                          Catch::Matchers::ContainsSubstring("choose one with --listen"));
}

TEST_CASE("a socket that is there already is taken by who is to listen there, and by nobody else") {
    const Folder folder;
    boost::asio::io_context context;
    using Tcp = boost::asio::ip::tcp;
    const auto loopback = boost::asio::ip::address_v4::loopback();
    net::Acceptor local = listen_in(context, folder);
    net::Acceptor there = net::listen_on(context, {"127.0.0.1", 0}, Tcp::endpoint(loopback, 0),
                                         "can't listen: ", "--listen");
    const auto where = there.local_endpoint();
    const int numbers[] = {::dup(there.native_handle()), ::dup(local.native_handle())};
    net::ReadySockets ready({numbers[0], numbers[1]});

    CHECK_FALSE(ready.take(context, Tcp::endpoint(loopback, 1)));
    const auto taken = ready.take(context, where);
    REQUIRE(taken);
    CHECK(taken->local_endpoint() == where);
    CHECK((::fcntl(numbers[0], F_GETFD) & FD_CLOEXEC) != 0);
    // Once, and who comes later has to listen by themselves.
    CHECK_FALSE(ready.take(context, where));
    const net::Address address{folder.path(), 6432};
    const auto again = net::listen_on(context, address,
                                      boost::asio::local::stream_protocol::endpoint(address.text()),
                                      "can't listen: ", "--listen", &ready);
    CHECK(again.is_open());
    CHECK(net::where_it_listens(again) == address.text());
}

TEST_CASE("ready sockets that nobody takes are closed") {
    boost::asio::io_context context;
    int number = -1;
    {
        net::Acceptor there = net::listen_on(
            context, {"127.0.0.1", 0},
            boost::asio::ip::tcp::endpoint(boost::asio::ip::address_v4::loopback(), 0),
            "can't listen: ", "--listen");
        number = ::dup(there.native_handle());
    }
    net::ReadySockets ready({number});
    ready.close();
    CHECK(::fcntl(number, F_GETFD) == -1);
}
