#include "proxy/net/metrics_server.h"

#include "metrics/page.h"
#include "protocol/codec.h"
#include "proxy/net/guarded.h"
#include "proxy/net/http_host.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <pthread.h>
#include <spdlog/spdlog.h>

#include <cstdint>
#include <exception>
#include <optional>
#include <set>
#include <thread>
#include <utility>

namespace pgchaperone::net {

namespace asio = boost::asio;
using asio::awaitable;
using Clock = std::chrono::steady_clock;

namespace {

// Whoever watches is one or a few.
constexpr std::size_t connections_max = 100;
constexpr std::size_t connections_of_a_peer_max = 50;

web::Response plain(unsigned status, std::string body) {
    web::Response response;
    response.status = status;
    response.content_type = "text/plain; charset=utf-8";
    response.body = std::move(body);
    return response;
}

web::Response all_well_or(const char* well, const std::vector<std::string>& reasons) {
    std::string text;
    for (const std::string& reason : reasons) text += reason + "\n";
    return reasons.empty() ? plain(200, std::string(well) + "\n") : plain(503, std::move(text));
}

}  // namespace

struct MetricsServer::Impl {
    Impl(const Address& listen, Sources sources_, ReadySockets* ready)
        : sources(std::move(sources_)), host(context, listen, host_options(ready)) {
        thread = std::thread([this] { run(); });
        pthread_setname_np(thread.native_handle(), "metrics");
    }

    ~Impl() { stop(); }
    void stop() {
        context.stop();
        if (thread.joinable()) thread.join();
        host.stop();
    }
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;

    using Then = HttpHost::Options::Then;

    HttpHost::Options host_options(ReadySockets* ready);
    void run();
    void answer(const web::Request& request, Then then);
    void ready(Then then);
    // Those of which nothing was seen for this time.
    std::vector<Guarded*> unseen(std::chrono::seconds time) const;
    // Begins to look at these, where nothing is looked at now.
    void look_at(const std::vector<Guarded*>& upstreams);
    void say_whether_ready(const Then& then) const;
    static awaitable<bool> probe(std::shared_ptr<asio::generic::stream_protocol::socket> socket,
                                 asio::generic::stream_protocol::endpoint endpoint, bool speaks);
    awaitable<void> look_at_upstream(Guarded& upstream, Resolved resolved, std::uint64_t look);
    void look_at(Guarded& upstream, std::uint64_t look);
    void looked(Guarded& upstream, std::uint64_t look, bool reached);

    Sources sources;
    asio::io_context context{1};
    asio::steady_timer patience{context};
    std::set<Guarded*> looking;    // which are looked at now
    std::set<Guarded*> resolving;  // whose name is looked up, for this look or an earlier one
    std::uint64_t looks = 0;       // so far: one that took too long is answered already
    std::vector<Then> waiting;     // for what it sees; as many as there are connections
    HttpHost host;
    std::thread thread;
};

HttpHost::Options MetricsServer::Impl::host_options(ReadySockets* ready) {
    HttpHost::Options out;
    out.ready = ready;
    out.name = "metrics";
    out.where = "the metrics' server";
    out.setting = "metrics.listen";
    out.connections_max = connections_max;
    out.connections_of_a_peer_max = connections_of_a_peer_max;
    out.answer = [this](web::Request request, const policy::ClientAddress&, Then then) {
        answer(request, std::move(then));
    };
    return out;
}

void MetricsServer::Impl::run() {
    while (true) {
        try {
            context.run();
            return;
        } catch (const std::exception& error) {
            spdlog::error("metrics: internal error: {}", error.what());
        }
    }
}

void MetricsServer::Impl::answer(const web::Request& request, Then then) {
    const bool known = request.path == "/metrics" || request.path == "/healthz" ||
                       request.path == "/readyz";
    if (!known) return then(plain(404, "There are /metrics, /healthz and /readyz.\n"));
    if (request.method != web::Method::get && request.method != web::Method::head) {
        web::Response refusal = plain(405, "GET and HEAD only.\n");
        refusal.headers.emplace_back("Allow", "GET, HEAD");
        return then(std::move(refusal));
    }
    if (request.path == "/healthz") return then(all_well_or("ok", sources.dead()));
    if (request.path == "/readyz") return ready(std::move(then));
    web::Response page = plain(200, sources.page());
    page.content_type = metrics::Page::content_type;
    then(std::move(page));
    // For the next page: this one waits for no server.
    look_at(unseen(page_sight_time));
}

void MetricsServer::Impl::ready(Then then) {
    for (const Guarded* const upstream : sources.upstreams) {
        if (upstream->sight.works(Clock::now(), sight_time).value_or(false))
            return say_whether_ready(then);
    }
    const std::vector<Guarded*> upstreams = unseen(sight_time);
    if (upstreams.empty()) return say_whether_ready(then);
    waiting.push_back(std::move(then));
    look_at(upstreams);  // or what is looked at now tells this one, too
}

std::vector<Guarded*> MetricsServer::Impl::unseen(std::chrono::seconds time) const {
    std::vector<Guarded*> out;
    for (Guarded* const upstream : sources.upstreams) {
        if (!upstream->sight.works(Clock::now(), time)) out.push_back(upstream);
    }
    return out;
}

void MetricsServer::Impl::look_at(const std::vector<Guarded*>& upstreams) {
    if (upstreams.empty() || !looking.empty()) return;
    // However long it takes to look up a name: whoever asks is answered.
    const std::uint64_t look = ++looks;
    looking.insert(upstreams.begin(), upstreams.end());
    patience.expires_after(probe_time);
    patience.async_wait([this, look](const boost::system::error_code& error) {
        if (error) return;
        for (Guarded* const upstream : std::set<Guarded*>(looking)) looked(*upstream, look, false);
    });
    for (Guarded* const upstream : upstreams) look_at(*upstream, look);
}

void MetricsServer::Impl::look_at(Guarded& upstream, std::uint64_t look) {
    // A name whose look-up takes longer than a look is not asked for again: logins wait behind it.
    if (!resolving.insert(&upstream).second) return;
    sources.resolver.resolve(upstream.options.address, [this, &upstream, look](Resolved resolved) {
        asio::post(context, [this, &upstream, look, resolved = std::move(resolved)]() mutable {
            resolving.erase(&upstream);
            if (look != looks || looking.count(&upstream) == 0) return;
            asio::co_spawn(context, look_at_upstream(upstream, std::move(resolved), look),
                           [this, &upstream, look](std::exception_ptr failure) {
                               if (failure) looked(upstream, look, false);
                           });
        });
    });
}

void MetricsServer::Impl::say_whether_ready(const Then& then) const {
    std::vector<std::string> reasons = sources.unready();
    std::size_t down = 0;
    for (const Guarded* const upstream : sources.upstreams) {
        // A moment more than for a question of now: the answer was on its way meanwhile.
        if (!upstream->sight.works(Clock::now(), sight_time + probe_time).value_or(false)) ++down;
    }
    if (down == sources.upstreams.size())
        reasons.push_back(down == 1 ? "the server that is guarded can't be reached"
                                    : "none of the servers that are guarded can be reached");
    then(all_well_or("ready", reasons));
}

// Asks for something that every server answers with one byte, whichever, without writing a line
// into its log. `speaks`: PostgreSQL's protocol from the first byte on.
awaitable<bool> MetricsServer::Impl::probe(
    std::shared_ptr<asio::generic::stream_protocol::socket> socket,
    asio::generic::stream_protocol::endpoint endpoint, bool speaks) {
    const auto token = asio::as_tuple(asio::use_awaitable);
    const auto [connected] = co_await socket->async_connect(endpoint, token);
    if (connected || !speaks) co_return !connected;
    const std::string question = protocol::encoded(protocol::GSSENCRequest{});
    const auto [failed, sent] = co_await asio::async_write(*socket, asio::buffer(question), token);
    if (failed) co_return false;
    char answer = 0;
    const auto [unheard, count] = co_await socket->async_read_some(asio::buffer(&answer, 1), token);
    co_return !unheard && count == 1;
}

awaitable<void> MetricsServer::Impl::look_at_upstream(Guarded& upstream, Resolved resolved,
                                                      std::uint64_t look) {
    bool reached = false;
    asio::steady_timer limit(context, patience.expiry());
    const bool speaks = upstream.options.negotiation == UpstreamNegotiation::postgres;
    for (const auto& endpoint : resolved.endpoints) {
        if (limit.expiry() <= Clock::now()) break;
        const auto socket = std::make_shared<asio::generic::stream_protocol::socket>(context);
        limit.async_wait([socket](const boost::system::error_code& error) {
            boost::system::error_code ignored;
            if (!error) socket->close(ignored);
        });
        reached = co_await probe(socket, endpoint, speaks);
        boost::system::error_code ignored;
        socket->close(ignored);
        if (reached) break;
    }
    looked(upstream, look, reached);
}

void MetricsServer::Impl::looked(Guarded& upstream, std::uint64_t look, bool reached) {
    if (look != looks || looking.erase(&upstream) == 0) return;
    upstream.sight.saw(reached, Clock::now());
    // One that works is enough; nobody waits for the others.
    if (!looking.empty() && !reached) return;
    if (looking.empty()) patience.cancel();
    for (const Then& then : std::exchange(waiting, {})) say_whether_ready(then);
}

MetricsServer::MetricsServer(const Address& listen, Sources sources, ReadySockets* ready)
    : impl_(std::make_unique<Impl>(listen, std::move(sources), ready)) {
    spdlog::info("metrics are at http://{}/metrics", listen.text());
}

MetricsServer::~MetricsServer() = default;

std::vector<int> MetricsServer::descriptors() const { return impl_->host.descriptors(); }

void MetricsServer::stop() { impl_->stop(); }

}  // namespace pgchaperone::net
