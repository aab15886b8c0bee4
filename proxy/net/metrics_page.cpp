#include "proxy/net/metrics_page.h"

#include "metrics/page.h"
#include "pgchaperone_version.h"

namespace pgchaperone::net {

using metrics::Page;

namespace {

constexpr auto counter = Page::Type::counter;
constexpr auto gauge = Page::Type::gauge;
constexpr auto histogram = Page::Type::histogram;

double number(std::uint64_t value) { return static_cast<double>(value); }

// One value for each name of a label. `upstream`: of which server they are; an empty label is none
// to Prometheus.
template <std::size_t size>
void put_each(Page& page, std::string_view label, const std::array<std::string_view, size>& names,
              const std::array<std::uint64_t, size>& values, std::string_view upstream = {}) {
    for (std::size_t i = 0; i < size; ++i)
        page.put(number(values[i]), {{label, names[i]}, {"upstream", upstream}});
}

void put_process_state(Page& page, const Numbers& n) {
    page.begin(gauge, "pgchaperone_build_info", "Which pgchaperone this is.")
        .put(1, {{"version", PGCHAPERONE_VERSION}, {"grammar", PGCHAPERONE_GRAMMAR_VERSION_TEXT}});
    page.begin(gauge, "pgchaperone_ready", "Whether new connections can be served.")
        .put(n.ready ? 1 : 0);
    page.begin(gauge, "pgchaperone_draining", "Whether the process is on its way out.")
        .put(n.draining ? 1 : 0);
    page.begin(gauge, "pgchaperone_io_threads", "Threads that relay.").put(number(n.io_threads));
    page.begin(gauge, "pgchaperone_io_thread_lag_seconds",
               "How long the slowest I/O thread took, or has by now taken, to answer.")
        .put(std::chrono::duration<double>(n.io_lag).count());
}

void put_connections(Page& page, const Numbers& n) {
    // Read one after the other, so that they may differ for a moment.
    const std::uint64_t here = n.sessions;
    page.begin(gauge, "pgchaperone_sessions", "Connections of clients now.")
        .put(number(n.connections > here ? n.connections - here : 0), {{"state", "login"}});
    for (const UpstreamNumbers& one : n.upstreams) {
        page.put(number(one.sessions - one.held), {{"state", "open"}, {"upstream", one.name}})
            .put(number(one.held), {{"state", "held"}, {"upstream", one.name}});
    }
    page.begin(counter, "pgchaperone_connections_accepted_total", "Connections of clients.")
        .put(number(n.upstreams.front().traffic.connections));
    page.begin(counter, "pgchaperone_connections_refused_total",
               "Connections that pgchaperone ended before they were logged in.");
    for (const UpstreamNumbers& one : n.upstreams)
        put_each(page, "reason", refused_for_names, one.traffic.refused, one.name);
    page.begin(counter, "pgchaperone_logins_total", "Logins by their outcome.");
    for (const UpstreamNumbers& one : n.upstreams) {
        page.put(number(one.traffic.logins), {{"outcome", "accepted"}, {"upstream", one.name}})
            .put(number(one.traffic.logins_failed),
                 {{"outcome", "failed"}, {"upstream", one.name}});
    }
    page.begin(counter, "pgchaperone_bytes_total", "Bytes of the protocol, without TLS.");
    for (const UpstreamNumbers& one : n.upstreams)
        put_each(page, "direction", direction_names, one.traffic.bytes, one.name);
}

void put_statements(Page& page, const Numbers& n) {
    page.begin(counter, "pgchaperone_statements_total",
               "Statements by pgaudit's class and the policy's decision.");
    for (const UpstreamNumbers& one : n.upstreams) {
        for (std::size_t i = 0; i < session::counted_classes; ++i) {
            for (std::size_t j = 0; j < session::counted_decisions; ++j) {
                const auto decision = static_cast<session::CountedDecision>(j);
                page.put(number(one.traffic.statements[i][j]),
                         {{"class", counted_class_name(static_cast<session::CountedClass>(i))},
                          {"decision", counted_decision_name(decision)},
                          {"upstream", one.name}});
            }
        }
    }
    page.begin(histogram, "pgchaperone_judge_seconds",
               "How long it took to judge a text that was not in the cache.");
    for (const UpstreamNumbers& one : n.upstreams)
        page.put(one.traffic.judge, {{"upstream", one.name}});
    page.begin(counter, "pgchaperone_parse_cache_lookups_total",
               "Texts that were, or were not, in the cache of what was parsed.");
    for (const UpstreamNumbers& one : n.upstreams) {
        page.put(number(one.traffic.cache_hits), {{"result", "hit"}, {"upstream", one.name}})
            .put(number(one.traffic.cache_misses), {{"result", "miss"}, {"upstream", one.name}});
    }
    page.begin(gauge, "pgchaperone_policy_version", "Rises with each reload of the policy.");
    for (const UpstreamNumbers& one : n.upstreams)
        page.put(number(one.policy_version), {{"upstream", one.name}});
    page.begin(counter, "pgchaperone_supervisions_total", "What became of supervised statements.");
    for (const UpstreamNumbers& one : n.upstreams) {
        for (std::size_t i = 0; i < session::supervision_ends; ++i) {
            page.put(number(one.traffic.supervisions[i]),
                     {{"outcome", supervision_end_name(static_cast<session::SupervisionEnd>(i))},
                      {"upstream", one.name}});
        }
    }
    page.begin(counter, "pgchaperone_time_limits_total",
               "What pgchaperone ended since it took too long.");
    for (const UpstreamNumbers& one : n.upstreams) {
        for (std::size_t i = 0; i < session::time_limit_kinds; ++i) {
            page.put(number(one.traffic.time_limits[i]),
                     {{"kind", time_limit_name(static_cast<session::TimeLimitKind>(i))},
                      {"upstream", one.name}});
        }
    }
}

void put_tickets(Page& page, const Numbers& n) {
    const approval::Desk::Stats& desk = n.desk;
    page.begin(counter, "pgchaperone_tickets_opened_total", "Tickets opened by this process.")
        .put(number(desk.opened));
    page.begin(counter, "pgchaperone_tickets_ended_total",
               "Tickets that were decided, or ended otherwise, by this process.");
    put_each(page, "outcome", ticket_ends,
             {desk.approved, desk.denied, desk.expired, desk.withdrawn});
    page.begin(counter, "pgchaperone_tickets_used_total", "Approvals that were used.")
        .put(number(desk.used));
    page.begin(counter, "pgchaperone_glass_broken_total",
               "Statements that ran by breaking the glass.")
        .put(number(desk.glass));
    page.begin(gauge, "pgchaperone_tickets_waiting", "Tickets that sessions wait for now.")
        .put(number(desk.waiting));
    page.begin(gauge, "pgchaperone_ticket_oldest_wait_seconds",
               "How long the oldest of these has been waited for by now; 0: none is.")
        .put(std::chrono::duration<double>(desk.oldest_wait).count());
    page.begin(histogram, "pgchaperone_ticket_wait_seconds", "From a ticket's opening to its end.");
    for (std::size_t i = 0; i < ticket_ends.size(); ++i)
        page.put(n.ticket_waits[i], {{"outcome", ticket_ends[i]}});
    page.begin(counter, "pgchaperone_ticket_store_failures_total",
               "Times that the store of tickets went down.")
        .put(number(desk.store_failures));
    page.begin(gauge, "pgchaperone_ticket_store_up", "Whether the store of tickets works.")
        .put(desk.down ? 0 : 1);
}

void put_audit(Page& page, const Numbers& n) {
    const AuditCounts& audit = n.audit;
    page.begin(counter, "pgchaperone_audit_records_total", "Records for the audit log.")
        .put(number(audit.log.records), {{"outcome", "stored"}})
        .put(number(audit.log.refused), {{"outcome", "refused"}});
    page.begin(gauge, "pgchaperone_audit_records_waiting", "Records that wait for the disk now.")
        .put(number(audit.log.waiting));
    page.begin(gauge, "pgchaperone_audit_lag_seconds",
               "How long the oldest record that waits for the disk has waited by now.")
        .put(std::chrono::duration<double>(audit.log.oldest_waits).count());
    page.begin(histogram, "pgchaperone_audit_store_seconds",
               "From a record's submission to its being on the disk.")
        .put(n.audit_times);
    page.begin(counter, "pgchaperone_audit_overdue_total", "Records that were waited for too long.")
        .put(number(audit.overdue));
    page.begin(gauge, "pgchaperone_audit_failing",
               "Whether the disk refused the last that it was given, or does not keep up.")
        .put(audit.log.failing ? 1 : 0);
    page.begin(counter, "pgchaperone_audit_checkpoints_total", "Signed checkpoints.")
        .put(number(audit.log.checkpoints));
    page.begin(counter, "pgchaperone_audit_sink_lines_total",
               "Lines for standard output and syslog.")
        .put(number(audit.sent), {{"outcome", "sent"}})
        .put(number(audit.dropped), {{"outcome", "dropped"}});
    page.begin(counter, "pgchaperone_statements_unrecorded_total",
               "Statements whose record could not be written.")
        .put(number(audit.unrecorded), {{"outcome", "ran"}})
        .put(number(audit.refused_unrecorded), {{"outcome", "refused"}});
}

void put_around(Page& page, const Numbers& n) {
    page.begin(counter, "pgchaperone_webhook_messages_total", "Messages of webhooks.")
        .put(number(n.webhooks.sent), {{"outcome", "sent"}})
        .put(number(n.webhooks.failed), {{"outcome", "failed"}})
        .put(number(n.webhooks.dropped), {{"outcome", "dropped"}});
    page.begin(gauge, "pgchaperone_webhook_messages_queued", "Messages that wait to be sent.")
        .put(number(n.webhooks.queued));
    page.begin(gauge, "pgchaperone_upstream_up",
               "Whether the server could be connected to, when it was last seen.");
    for (const UpstreamNumbers& one : n.upstreams)
        page.put(one.up ? 1 : 0, {{"upstream", one.name}});
    page.begin(counter, "pgchaperone_upstream_connects_total", "Connections made to the server.");
    for (const UpstreamNumbers& one : n.upstreams)
        page.put(number(one.traffic.upstream_connects), {{"upstream", one.name}});
    page.begin(
        counter, "pgchaperone_upstream_connect_errors_total",
        "Connections to the server that could not be made, or whose login it did not answer.");
    for (const UpstreamNumbers& one : n.upstreams)
        put_each(page, "kind", upstream_error_names, one.traffic.upstream_errors, one.name);
    page.begin(histogram, "pgchaperone_upstream_connect_seconds",
               "How long it took to connect to the server.");
    for (const UpstreamNumbers& one : n.upstreams)
        page.put(one.traffic.upstream_connect, {{"upstream", one.name}});
    page.begin(counter, "pgchaperone_reloads_total", "Reloads of the configuration.")
        .put(number(n.reloads.successes), {{"outcome", "success"}})
        .put(number(n.reloads.failures), {{"outcome", "failure"}});
    page.begin(gauge, "pgchaperone_last_reload_success_timestamp_seconds",
               "When the configuration in force was read.")
        .put(std::chrono::duration<double>(n.reloads.last_success.time_since_epoch()).count());
}

void put_process(Page& page, const ProcessNumbers& process) {
    page.begin(counter, "process_cpu_seconds_total", "CPU time used.").put(process.cpu_seconds);
    page.begin(gauge, "process_resident_memory_bytes", "Resident memory.")
        .put(number(process.resident_bytes));
    page.begin(gauge, "process_virtual_memory_bytes", "Virtual memory.")
        .put(number(process.virtual_bytes));
    page.begin(gauge, "process_open_fds", "Open file descriptors.").put(number(process.open_fds));
    page.begin(gauge, "process_max_fds", "File descriptors that may be open.")
        .put(number(process.max_fds));
    page.begin(gauge, "process_threads", "Threads.").put(number(process.threads));
    page.begin(gauge, "process_start_time_seconds", "When the process began, since 1970.")
        .put(process.start_seconds);
}

}  // namespace

std::string metrics_page(const Numbers& numbers) {
    Page page;
    put_process_state(page, numbers);
    put_connections(page, numbers);
    put_statements(page, numbers);
    put_tickets(page, numbers);
    put_audit(page, numbers);
    put_around(page, numbers);
    put_process(page, numbers.process);
    return page.text();
}

}  // namespace pgchaperone::net
