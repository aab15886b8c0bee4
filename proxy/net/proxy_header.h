#pragma once
// The header of PROXY protocol version 2, with which a load balancer says for whom it connects
// (haproxy.org, proxy-protocol.txt, section 2.2). Pure; reads no socket.

#include "policy/session_facts.h"

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace pgchaperone::net {

struct ProxyHeader {
    // Longer ones are refused: what stands behind the addresses says nothing that is used here.
    static constexpr std::size_t bytes_max = 4096;

    bool complete = false;  // else more bytes are needed, unless something is wrong
    std::size_t size = 0;   // of the header; what follows is the client's
    // For whom; nothing: the load balancer speaks for itself (LOCAL), or does not say.
    std::optional<policy::ClientAddress> source;
    std::string wrong;  // what is; empty: nothing
};

// `bytes`: all that has come so far.
ProxyHeader read_proxy_header(std::string_view bytes);

}  // namespace pgchaperone::net
