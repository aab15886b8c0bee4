#include "proxy/net/listen.h"
#include "support/catch.h"

#include <boost/asio/local/stream_protocol.hpp>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <string>

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
