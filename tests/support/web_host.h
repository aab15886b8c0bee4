#pragma once
// A host for web::App without sockets and servers: requests go in, answers come out, people are
// whom the test says they are, and the clock stands until it is turned.

#include "approval/desk.h"
#include "support/memory_store.h"
#include "support/random.h"
#include "web/app.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace pgchaperone::test {

class WebHost {
public:
    // Who there is, by role; each one's password is the role's name.
    std::map<std::string, approval::Person> people = {{"clerk", {"clerk", 101, {"staff"}}},
                                                      {"bob", {"bob", 102, {"dba"}}},
                                                      {"carol", {"carol", 103, {"dba"}}},
                                                      {"dave", {"dave", 104, {"staff"}}}};
    bool server_away = false;
    bool server_slow = false;
    int asked = 0;  // how often the server was asked who somebody is, after their login
    std::vector<std::string> log;
    std::vector<std::string> said;  // what was recorded: "bob approve B1"
    std::string record_problem;     // why nothing can be

    WebHost()
        : desk_(std::make_unique<approval::Desk>(
              std::make_unique<MemoryStore>(),
              approval::DeskOptions{.replica = "here",
                                    .on_happened = {},
                                    .on_notice = {},
                                    .now = [this] { return now(); }})),
          app(web::App::Sources{
                  *desk_,
                  [this](std::string role, std::string password, std::string upstream, auto then) {
                      post([this, role, password, upstream, then] {
                          then(admit(role, password, upstream));
                      });
                  },
                  [this](std::function<void()> work) { post(std::move(work)); },
                  [this](std::size_t bytes) { return secret(bytes); }, [this] { return now(); },
                  [this] { return web::Throttle::Time(std::chrono::seconds(passed_s + 1000)); },
                  [this](const std::string& line) { log.push_back(line); },
                  [this](const web::Saying& saying, const auto& then) {
                      said.push_back(saying.role + " " + saying.what + " " + saying.ticket);
                      then(record_problem);
                  }},
              options()) {}
    ~WebHost() { desk_.reset(); }

    approval::Time now() const {
        return approval::Time(std::chrono::hours(400'000)) + std::chrono::seconds(passed_s + off_s);
    }
    void pass(std::chrono::seconds time) { passed_s += time.count(); }
    // What the system's clock is wrong by.
    void wall_clock_off(std::chrono::seconds time) { off_s = time.count(); }

    // A ticket of the clerk's that waits for a dba.
    std::string open(std::string binding = "b1") {
        approval::Request request;
        request.binding = std::move(binding);
        request.requester = people.at("clerk");
        request.database = "shop";
        request.command = "DELETE";
        request.statement = "DELETE FROM orders";
        request.terms.approvers = {{"dba"}};
        std::promise<std::string> id;
        desk_->open(std::move(request),
                    [&](approval::Result<approval::Ticket> ticket) { id.set_value(ticket->id); },
                    {});
        return id.get_future().get();
    }
    approval::Ticket find(const std::string& id) {
        std::promise<approval::Ticket> found;
        desk_->find(id, people.at("carol"),
                    [&](approval::Result<approval::Ticket> ticket) { found.set_value(*ticket); });
        return found.get_future().get();
    }

    // Gives the answer; throws where there is none, or more than one.
    web::Response ask(web::Request request) {
        std::vector<web::Response> answers;
        app.handle(std::move(request),
                   [&](web::Response response) { answers.push_back(std::move(response)); });
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        while (answers.empty()) {
            if (!work(until)) throw std::runtime_error("the page does not answer");
        }
        if (answers.size() != 1) throw std::runtime_error("more than one answer");
        return std::move(answers.front());
    }

    // What somebody's browser sends along.
    struct Browser {
        std::string cookie, token;
    };
    static web::Request request(web::Method method, std::string path, std::string body = {},
                                const Browser& browser = {}) {
        web::Request out;
        out.method = method;
        out.path = std::move(path);
        out.body = std::move(body);
        out.peer = "192.0.2.7";
        out.headers = {{"host", "guard"}, {"content-type", "application/json"}};
        if (!browser.cookie.empty()) out.headers.emplace_back("cookie", browser.cookie);
        if (!browser.token.empty()) out.headers.emplace_back("x-csrf-token", browser.token);
        return out;
    }
    web::Response log_in(const std::string& role, const std::string& password, Browser* browser,
                         const std::string& upstream = {}) {
        web::Response response = ask(request(web::Method::post, "/api/v1/session",
                                             R"({"role":")" + role + R"(","password":")" +
                                                 password + R"(","upstream":")" + upstream +
                                                 R"("})"));
        for (const auto& [name, value] : response.headers) {
            if (name == "Set-Cookie" && browser != nullptr)
                browser->cookie = value.substr(0, value.find(';'));
        }
        const auto at = response.body.find("\"token\":\"");
        if (at != std::string::npos && browser != nullptr)
            browser->token = response.body.substr(at + 9, 64);
        return response;
    }
    Browser browser_of(const std::string& role) {
        Browser browser;
        if (log_in(role, role, &browser).status != 200) throw std::runtime_error("not let in");
        return browser;
    }

private:
    static web::AppOptions options() {
        web::AppOptions out;
        out.listen_host = "guard";
        out.upstreams = {{"", "127.0.0.1:5432"}, {"billing", "db2:5432"}};
        return out;
    }
    struct FakeProof : web::Proof {
        FakeProof(WebHost& of, std::string who, std::string where)
            : host(of), role(std::move(who)), upstream(std::move(where)) {}
        void ask(std::function<void(web::Known)> then) override {
            ++host.asked;
            host.post([this, then] {
                if (host.server_away) return then({std::nullopt, "the server is gone", false});
                if (host.server_slow) {
                    return then({std::nullopt, "the server does not answer", false, false, true});
                }
                const auto person = host.people.find(role);
                if (person == host.people.end()) {
                    return then({std::nullopt, "the role was dropped", true});
                }
                then({host.person_of(role, upstream), {}, false});
            });
        }
        WebHost& host;
        std::string role;
        std::string upstream;
    };

    approval::Person person_of(const std::string& role, const std::string& upstream) const {
        approval::Person person = people.at(role);
        person.upstream = upstream;
        return person;
    }
    web::Admission admit(const std::string& role, const std::string& password,
                         const std::string& upstream) {
        if (server_away) return {nullptr, {std::nullopt, "nobody answers", false}};
        const auto person = people.find(role);
        if (person == people.end() || password != role) {
            return {nullptr, {std::nullopt, "password authentication failed", true, true}};
        }
        return {std::make_shared<FakeProof>(*this, role, upstream),
                {person_of(role, upstream), {}, false}};
    }
    // The same in every run; no two are alike.
    std::string secret(std::size_t bytes) { return secrets_.bytes(bytes); }
    void post(std::function<void()> work) {
        const std::lock_guard lock(mutex_);
        posted_.push_back(std::move(work));
        came_.notify_one();
    }
    bool work(std::chrono::steady_clock::time_point until) {
        std::unique_lock lock(mutex_);
        if (!came_.wait_until(lock, until, [this] { return !posted_.empty(); })) return false;
        const auto next = std::move(posted_.front());
        posted_.pop_front();
        lock.unlock();
        next();
        return true;
    }

    std::mutex mutex_;
    std::condition_variable came_;
    std::deque<std::function<void()>> posted_;
    std::atomic<long> passed_s{0}, off_s{0};
    Random secrets_{1};
    std::unique_ptr<approval::Desk> desk_;

public:
    web::App app;
};

}  // namespace pgchaperone::test
