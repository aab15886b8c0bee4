#pragma once
// The running proxy: listener, threads, audit log, and what signals do to them.

#include "policy/rule.h"
#include "proxy/net/server_options.h"

#include <functional>
#include <string>
#include <vector>

namespace pgchaperone::net {

// A policy, and the same as YAML, for the audit log.
struct Rules {
    policy::Policy policy;
    std::string text;
};

// The configuration as it is now. Where something is wrong with it, that and the log alone count.
struct Reloaded {
    std::string trouble;
    std::vector<webhook::Hook> webhooks;
    std::vector<Rules> rules;            // of each server, as in ServerOptions::upstreams
    std::vector<Changeable> changeable;  // likewise
    std::vector<std::string> restart;    // keys of settings that have changed, and need one
    std::string log_trouble;  // why the program's log can't go on in a new file; else empty
};

// Serves until SIGTERM or SIGINT, then drains. SIGHUP loads the certificates again, reopens the
// audit log and calls `reload`, which goes on in a new file of the program's log and gives what is
// to be in force from then on. SIGUSR2
// starts the program anew in this one's place; its sessions go on here, and then it ends. Blocks
// these signals for the calling thread and all that it makes: call it before any other thread
// exists. Returns an exit status: 0, or 2 when it could not start, in which case `trouble` was
// given a sentence that says why. `rules`: of each server, as in ServerOptions::upstreams.
int serve(ServerOptions options, const std::vector<Rules>& rules, std::function<Reloaded()> reload,
          const std::function<void(const std::string&)>& trouble);

}  // namespace pgchaperone::net
