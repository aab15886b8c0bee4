#pragma once
// The host of the approval page: a listener and a thread of its own, so that pages are in no
// query's way, whatever they do. Reads and writes; what is answered is web::App's.
//
// Bounded: connections, the time that a request may take to come and an answer to go, pages that
// wait for events.

#include "approval/desk.h"
#include "policy/rule_pattern.h"
#include "proxy/net/server_options.h"
#include "proxy/net/web_login.h"
#include "web/app.h"

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace pgchaperone::net {

class ReadySockets;
class Resolver;

class WebServer {
public:
    // See web::App::Sources::record.
    using Record = std::function<void(web::Saying, std::function<void(std::string problem)>)>;
    // Listens, and starts the thread. Throws std::runtime_error with a sentence that says why not.
    // `logins`: the servers that are guarded. `desk` and `resolver` outlive it, but for what they
    // still call back: see stop(). `ready`: sockets that it may listen with.
    WebServer(const WebOptions& options, std::vector<WebLoginOptions> logins, approval::Desk& desk,
              Resolver& resolver, Record record, ReadySockets* ready = nullptr);
    ~WebServer();
    WebServer(const WebServer&) = delete;
    WebServer& operator=(const WebServer&) = delete;

    // From any thread.
    void happened(const approval::Happened& happened);
    // Loads the certificate anew, for connections to come; what is wrong, or nothing.
    std::string reload();
    // What it listens with, to be handed on before stop().
    std::vector<int> descriptors() const;
    // Pages are told that it is over, and the thread ends. What is called back later does nothing.
    void stop();

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace pgchaperone::net
