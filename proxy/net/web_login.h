#pragma once
// Asks the upstream server who somebody is, by libpq with their role and password, without
// blocking the thread it runs on. What the server did not check (trust, peer, a certificate of the
// proxy's own) proves nobody, and is refused. With authentication: users the password is checked
// here, as it is for every other login, and the server is asked with what pgchaperone has.

#include "proxy/net/resolver.h"
#include "proxy/net/server_options.h"
#include "proxy/session/users.h"
#include "web/login.h"

#include <boost/asio/io_context.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace pgchaperone::net {

struct WebLoginOptions {
    std::string name;  // of the server
    Address upstream;
    TlsSettings upstream_tls;
    UpstreamNegotiation negotiation = UpstreamNegotiation::postgres;
    std::string database;
    std::chrono::milliseconds timeout{10'000};  // of a login, and of a question
    // Those who check people in the server's place; gives null: the server does.
    std::function<std::shared_ptr<const session::Users>()> users;
};

// What web::App is handed. `context` and `resolver` outlive it and every proof it gave; all of it
// lives on the thread that runs `context`.
// `servers`: those that people can log in to, each of another name.
web::Admit web_login(boost::asio::io_context& context, Resolver& resolver,
                     std::vector<WebLoginOptions> servers);

}  // namespace pgchaperone::net
