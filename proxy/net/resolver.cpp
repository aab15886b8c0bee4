#include "proxy/net/resolver.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <memory>
#include <utility>

namespace pgchaperone::net {

namespace {

constexpr std::chrono::seconds kept_time{5};

using Endpoint = boost::asio::generic::stream_protocol::endpoint;

Resolved unix_socket(const Address& address) {
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    const std::string path = address.text();
    if (path.size() >= sizeof name.sun_path)
        return {{}, "the socket's path " + path + " is too long"};
    std::memcpy(name.sun_path, path.c_str(), path.size() + 1);
    return {{Endpoint(&name, sizeof name, 0)}, {}};
}

}  // namespace

Resolved resolve_now(const Address& address, bool passive, bool numeric_only) {
    if (address.unix_socket()) return unix_socket(address);
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0) |
                     (numeric_only ? AI_NUMERICHOST : 0);
    const bool any = address.host.empty() || address.host == "*";
    addrinfo* found = nullptr;
    const int status = ::getaddrinfo(any && passive ? nullptr : address.host.c_str(),
                                     std::to_string(address.port).c_str(), &hints, &found);
    if (status != 0) {
        return {{}, "the name " + address.host + " can't be resolved: " + ::gai_strerror(status)};
    }
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> guard(found, &::freeaddrinfo);
    Resolved resolved;
    for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
        resolved.endpoints.emplace_back(one->ai_addr, one->ai_addrlen, one->ai_protocol);
    }
    return resolved;
}

Resolver::Resolver() : thread_([this] { run(); }) {}

Resolver::~Resolver() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
}

void Resolver::resolve(const Address& address, Answer answer) {
    Resolved numeric = resolve_now(address, false, true);
    if (!numeric.endpoints.empty() || address.unix_socket()) return answer(std::move(numeric));
    std::unique_lock lock(mutex_);
    if (const Resolved* const known = kept(address.text())) {
        Resolved copy = *known;
        lock.unlock();
        return answer(std::move(copy));
    }
    questions_.push_back({address, std::move(answer)});
    lock.unlock();
    wake_.notify_one();
}

const Resolved* Resolver::kept(const std::string& address) const {
    const auto found = kept_.find(address);
    const bool fresh = found != kept_.end() &&
                       std::chrono::steady_clock::now() < found->second.until;
    return fresh ? &found->second.resolved : nullptr;
}

void Resolver::run() {
    std::unique_lock lock(mutex_);
    while (true) {
        wake_.wait(lock, [this] { return stopping_ || !questions_.empty(); });
        if (stopping_) return;
        std::vector<Question> questions = std::exchange(questions_, {});
        lock.unlock();
        for (const Question& question : questions) {
            const std::string text = question.address.text();
            Resolved resolved;
            lock.lock();
            const Resolved* const known = kept(text);
            if (known) resolved = *known;
            lock.unlock();
            if (!known) {
                resolved = resolve_now(question.address, false, false);
                lock.lock();
                if (!resolved.endpoints.empty())
                    kept_[text] = {resolved, std::chrono::steady_clock::now() + kept_time};
                lock.unlock();
            }
            question.answer(std::move(resolved));
        }
        lock.lock();
    }
}

}  // namespace pgchaperone::net
