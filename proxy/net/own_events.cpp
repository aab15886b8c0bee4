#include "proxy/net/own_events.h"

#include "audit/chain.h"
#include "pgchaperone_version.h"

#include <unistd.h>

namespace pgchaperone::net {
namespace {

// As much as a statement.
constexpr std::size_t policy_limit_bytes = 64 * 1024;

audit::EventMember process() {
    return {.name = "process", .value = std::to_string(::getpid()), .number = true};
}

}  // namespace

audit::Event start_event(const ServerOptions& options, std::string listen) {
    return {"start",
            {process(),
             {.name = "version", .value = PGCHAPERONE_VERSION},
             {.name = "replica", .value = options.replica},
             {.name = "listen", .value = std::move(listen)},
             {.name = "on_failure", .value = options.audit.allow_on_failure ? "allow" : "refuse"}}};
}

audit::Event stop_event() { return {"stop", {process()}}; }

audit::Event policy_event(const UpstreamOptions& upstream, const policy::Policy& policy,
                          const std::string& text, std::uint64_t version, const Cause& cause) {
    audit::Event event{"policy", {process(), {.name = "by", .value = std::string(cause.by)}}};
    if (!cause.user.empty()) event.members.push_back({.name = "user", .value = cause.user});
    if (!upstream.name.empty())
        event.members.push_back({.name = "upstream", .value = upstream.name});
    event.members.insert(event.members.end(),
                         {{.name = "server", .value = upstream.address.text()},
                          {.name = "version", .value = std::to_string(version), .number = true},
                          {.name = "mode", .value = policy.observe ? "observe" : "enforce"},
                          {.name = "source", .value = policy.source},
                          {.name = "sha256", .value = audit::sha_256_hex(text)},
                          {.name = "policy", .value = text, .limit_bytes = policy_limit_bytes}});
    return event;
}

}  // namespace pgchaperone::net
