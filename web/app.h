#pragma once
// The page and its API: what each request is answered. Who may see and decide what is settled by
// the desk's functions (approval/), the same that the virtual schema uses; here it is only found
// out who asks. Knows no socket, no clock and no log; lives on one thread.
//
// What must stay true: nothing but the page itself is shown to who is not logged in; nothing is
// changed without the session's token; who decides is known by the server's word of that moment.

#include "approval/desk.h"
#include "approval/happened.h"
#include "web/http.h"
#include "web/login.h"
#include "web/sessions.h"
#include "web/throttle.h"

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::web {

// What somebody is about to say to a ticket, for the audit log.
struct Saying {
    std::string role;
    std::string upstream;  // the name of the server that knows them
    std::string client;    // address
    std::string what;      // "approve"
    std::string ticket;
    std::string comment;
};

struct AppOptions {
    SessionTerms sessions;
    // "https://guard.example.org": where people reach the page, if that is not where it listens.
    std::string url;
    std::string listen_host;  // where that is not given: the name or address that it listens on
    bool tls = false;         // people reach it by TLS, ours or that of a proxy in front
    // The servers that are guarded here. The first is that of who names none.
    struct Upstream {
        std::string name;
        std::string address;  // for people
    };
    std::vector<Upstream> upstreams;
};

class App {
public:
    struct Sources {
        approval::Desk& desk;
        Admit admit;
        // Does this on the page's thread, later; from any thread.
        std::function<void(std::function<void()>)> post;
        std::function<std::string(std::size_t bytes)> secret;  // nobody can guess them
        std::function<approval::Time()> now;
        std::function<Throttle::Time()> steady_now;
        std::function<void(const std::string&)> log;  // who came, who was turned away
        // Records it; `then` is called once, from any thread, when it is on the disk or may not be
        // waited for, or with why it can't be recorded: then it must not be done.
        std::function<void(Saying, std::function<void(std::string problem)> then)> record;
    };
    App(Sources sources, AppOptions options);
    ~App();
    App(const App&) = delete;
    App& operator=(const App&) = delete;

    // `then` is called once, on this thread: at once or later.
    using Then = std::function<void(Response)>;
    void handle(Request request, Then then);

    // Something has happened to a ticket: pages whose people may see it are told.
    void happened(const approval::Happened& happened);
    // Now and then: sessions whose time is over end.
    void tick();
    void end_all();  // the proxy stops

    std::size_t sessions() const;
    std::size_t streams() const;

    // "GET /api/v1/tickets/{id}" and so on, for the tests that hold openapi.yaml against it.
    static std::vector<std::string> routes();

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace pgchaperone::web
