#pragma once
// The port for whoever watches: /metrics, /healthz, /readyz. A thread of its own, so that it
// answers also when all others are stuck. What is answered is handed in.

#include "proxy/net/resolver.h"
#include "proxy/net/server_options.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace pgchaperone::net {

class Guarded;
class ReadySockets;

class MetricsServer {
public:
    // Called on the server's own thread. All of it outlives stop(); what the resolver calls back
    // later does nothing.
    struct Sources {
        std::function<std::string()> page;
        // Sentences for people, without a name of anybody's; empty: it lives.
        std::function<std::vector<std::string>()> dead;
        // Likewise, why no new connection can be served, but for the upstream.
        std::function<std::vector<std::string>()> unready;
        Resolver& resolver;
        std::vector<Guarded*> upstreams;  // new connections can be served while one works
    };
    // How long what was seen of the upstream counts, and how long it may take to answer. /readyz
    // waits for that; a page does not, and the next one tells of it. So that this is not too late,
    // for a page it counts for less.
    static constexpr std::chrono::seconds sight_time{5};
    static constexpr std::chrono::seconds page_sight_time{2};
    static constexpr std::chrono::seconds probe_time{2};

    // Listens, and starts the thread. Throws std::runtime_error with a sentence that says why not.
    // `ready`: sockets that it may listen with.
    MetricsServer(const Address& listen, Sources sources, ReadySockets* ready = nullptr);
    ~MetricsServer();
    MetricsServer(const MetricsServer&) = delete;
    MetricsServer& operator=(const MetricsServer&) = delete;

    // What it listens with, to be handed on before stop().
    std::vector<int> descriptors() const;
    void stop();

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace pgchaperone::net
