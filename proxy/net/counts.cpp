#include "proxy/net/counts.h"

namespace pgchaperone::net {

namespace {

template <std::size_t size>
void add_up(std::array<std::uint64_t, size>& sums, const std::array<metrics::Count, size>& counts) {
    for (std::size_t i = 0; i < size; ++i) sums[i] += counts[i].value();
}

}  // namespace

void Traffic::add(const ThreadCounts& thread) {
    connections += thread.connections.value();
    add_up(refused, thread.refused);
    logins += thread.logins.value();
    logins_failed += thread.logins_failed.value();
    add_up(bytes, thread.bytes);
    for (std::size_t i = 0; i < statements.size(); ++i) add_up(statements[i], thread.statements[i]);
    add_up(supervisions, thread.supervisions);
    add_up(time_limits, thread.time_limits);
    judge.add(thread.judge.read());
    upstream_connects += thread.upstream_connects.value();
    add_up(upstream_errors, thread.upstream_errors);
    upstream_connect.add(thread.upstream_connect.read());
}

std::uint64_t Traffic::statements_decided(session::CountedDecision decision) const {
    std::uint64_t sum = 0;
    for (const auto& of_class : statements) sum += of_class[static_cast<std::size_t>(decision)];
    return sum;
}

}  // namespace pgchaperone::net
