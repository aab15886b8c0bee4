#pragma once
// The running proxy: listener, threads, audit log, and what signals do to them.

#include "policy/engine.h"
#include "policy/rule_book.h"
#include "proxy/net/server_options.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace pgchaperone::net {

// The configuration as it is now. Where something is wrong with it, that and the log alone count.
struct Reloaded {
    std::string trouble;
    std::vector<webhook::Hook> webhooks;
    std::vector<Changeable> changeable;  // of each server, as in ServerOptions::upstreams
    std::vector<std::string> restart;    // keys of settings that have changed, and need one
    std::string log_trouble;  // why the program's log can't go on in a new file; else empty
};

// The rules that hold for each server, as in ServerOptions::upstreams.
using RuleBooks = std::vector<std::shared_ptr<policy::RuleBook>>;

// Serves until SIGTERM or SIGINT, then drains. SIGHUP loads the certificates again, reopens the
// audit log and calls `reload`, which goes on in a new file of the program's log, puts the policy
// anew in force and gives the rest. SIGUSR2
// starts the program anew in this one's place; its sessions go on here, and then it ends. Blocks
// these signals for the calling thread and all that it makes: call it before any other thread
// exists. Returns an exit status: 0, or 2 when it could not start, in which case `trouble` was
// given a sentence that says why.
int serve(ServerOptions options, RuleBooks rules, std::function<Reloaded()> reload,
          const std::function<void(const std::string&)>& trouble);

}  // namespace pgchaperone::net
