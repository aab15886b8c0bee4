#pragma once
// Who somebody is: asked of the PostgreSQL server, with their own role and password. The host does
// it; here stands what the page needs to know of it.

#include "approval/ticket.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace pgchaperone::web {

struct Known {
    std::optional<approval::Person> person;  // as the server knows them now
    std::string trouble;                     // why it does not say, for people
    bool refused = false;                    // the server said no, rather than nothing
    bool guessed = false;        // a password was sent, and nobody knows that it was right
    bool may_ask_again = false;  // nothing is wrong but that it takes too long
};

// A person's own connection to the server, which stays as long as they are logged in: who drops a
// role, or ends its connection, logs it out. Lives on the page's thread.
class Proof {
public:
    virtual ~Proof() = default;
    // Asks the server anew: memberships may have changed. `then` is called once, on this thread,
    // unless the proof is dropped before.
    virtual void ask(std::function<void(Known)> then) = 0;
};

struct Admission {
    std::shared_ptr<Proof> proof;  // null: `known` says why not
    Known known;
};
// `upstream`: the name of the server that is asked, one of AppOptions::upstreams. `then` is called
// once, on the page's thread; never before this returns.
using Admit = std::function<void(std::string role, std::string password, std::string upstream,
                                 std::function<void(Admission)> then)>;

}  // namespace pgchaperone::web
