#pragma once
// What the audit log tells of the process itself: that it starts and ends, and which policies are
// in force from when on, by whose word. So it can be told later by which rules a statement was
// judged. Pure functions.

#include "audit/event.h"
#include "policy/rule.h"
#include "proxy/net/server_options.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace pgchaperone::net {

// By whose word a policy comes into force.
struct Cause {
    std::string_view by;
    std::string user = {};  // the operator's role; empty: none is known
};
inline Cause at_start() { return {"start"}; }
inline Cause by_signal() { return {"signal"}; }
inline Cause by_command(std::string user) { return {"command", std::move(user)}; }
// Of a guard that this one has taken over from, or that has taken over from it.
inline Cause by_another_process() { return {"another process"}; }

// `listen`: where, as configured.
audit::Event start_event(const ServerOptions& options, std::string listen);
audit::Event stop_event();

// `text`: the policy as YAML; `version`: of the rule book's edition.
audit::Event policy_event(const UpstreamOptions& upstream, const policy::Policy& policy,
                          const std::string& text, std::uint64_t version, const Cause& cause);

}  // namespace pgchaperone::net
