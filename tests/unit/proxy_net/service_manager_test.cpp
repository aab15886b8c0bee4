// What counts reaches a manager that comes to it late, and nobody waits for one that never does.
#include "proxy/net/service_manager.h"
#include "support/catch.h"

#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>
#include <vector>

using namespace pgchaperone::net;

namespace {

// The other end of NOTIFY_SOCKET; reads only when it is told to.
class Manager {
public:
    Manager() {
        std::string pattern = (std::filesystem::temp_directory_path() / "pgchaperone-notify-XXXXXX")
                                  .string();
        REQUIRE(::mkdtemp(pattern.data()) != nullptr);
        folder_ = pattern;
        const std::string path = (folder_ / "notify").string();
        socket_ = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        REQUIRE(path.size() < sizeof address.sun_path);
        std::memcpy(address.sun_path, path.c_str(), path.size());
        REQUIRE(::bind(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
        ::setenv("NOTIFY_SOCKET", path.c_str(), 1);
    }
    ~Manager() {
        ::close(socket_);
        std::filesystem::remove_all(folder_);
    }
    Manager(const Manager&) = delete;
    Manager& operator=(const Manager&) = delete;

    std::vector<std::string> read_all() const {
        std::vector<std::string> out;
        std::array<char, 4096> buffer;
        while (true) {
            const ssize_t size = ::recv(socket_, buffer.data(), buffer.size(), MSG_DONTWAIT);
            if (size < 0) return out;
            out.emplace_back(buffer.data(), static_cast<std::size_t>(size));
        }
    }

private:
    std::filesystem::path folder_;
    int socket_ = -1;
};

void fill(ServiceManager& service) {
    for (int i = 0; i < 1000; ++i) service.alive();
}

}  // namespace

TEST_CASE("what counts reaches a service manager that is late, and the rest is left out") {
    const Manager manager;
    ServiceManager service;
    fill(service);
    std::vector<std::string> heard;
    std::thread late([&] {
        // It reads when the first of them waits already; earlier is no mistake, either.
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        while ((heard.empty() || !heard.back().starts_with("STOPPING=1")) &&
               std::chrono::steady_clock::now() < until) {
            for (std::string& one : manager.read_all()) heard.push_back(std::move(one));
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    });
    service.ready("serves");
    service.stopping("drains");
    late.join();
    REQUIRE(heard.size() > 2);
    CHECK(heard.size() < 1002);
    CHECK(heard[heard.size() - 2] == "READY=1\nSTATUS=serves");
    CHECK(heard.front() == "WATCHDOG=1");
}

TEST_CASE("a service manager that never reads keeps nobody") {
    const Manager manager;
    ServiceManager service;
    fill(service);
    service.hand_over(1);
    CHECK(manager.read_all().back() == "WATCHDOG=1");
}
