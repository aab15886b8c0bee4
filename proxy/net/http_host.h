#pragma once
// HTTP on sockets: listens, reads requests, writes answers, keeps connections open for events, with
// TLS or in clear. What is answered is for whoever uses it. Lives on one thread, that of the
// context that it is given.
//
// Bounded: connections, in all and of one address; the time that a request may take to come and an
// answer to go; what answers on their way hold in memory. What requests may hold is bounded by
// web/http.h.

#include "proxy/net/listen.h"
#include "web/http.h"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl/context.hpp>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace pgchaperone::net {

class HttpHost {
public:
    // Null: in clear.
    using Certificate = std::shared_ptr<boost::asio::ssl::context>;
    struct Options {
        std::string name;     // for the log: "web"
        std::string where;    // for people: "the web page"
        std::string setting;  // that says where it listens: "web.listen"
        std::size_t connections_max = 1000;
        std::size_t connections_of_a_peer_max = 100;
        // Whose connections are not limited by their address: proxies. Empty: nobody.
        std::function<bool(const policy::ClientAddress&)> stands_for_many;
        // Answers by calling `then` once, on any thread, at once or later.
        using Then = std::function<void(web::Response)>;
        std::function<void(web::Request, const policy::ClientAddress& peer, Then then)> answer;
        Certificate certificate;
        ReadySockets* ready = nullptr;  // asked while it begins to listen, and not later
    };

    // Listens. Throws std::runtime_error with a sentence that says why not.
    HttpHost(boost::asio::io_context& context, const Address& address, Options options);
    ~HttpHost();
    HttpHost(const HttpHost&) = delete;
    HttpHost& operator=(const HttpHost&) = delete;

    // For connections to come.
    void use(Certificate certificate);
    // What it listens with.
    std::vector<int> descriptors();
    // No new connections; those that are there end with the answer to what they ask now.
    void stop();
    std::size_t connections() const;

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;  // kept by what still waits in the context, too
};

}  // namespace pgchaperone::net
