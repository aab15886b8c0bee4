#include "proxy/net/guarded.h"

#include <algorithm>

namespace pgchaperone::net {

Guarded::Guarded(std::size_t index_, UpstreamOptions options_,
                 std::shared_ptr<policy::RuleBook> rules_, policy::Capabilities capabilities)
    : index(index_),
      options(std::move(options_)),
      rules(std::move(rules_)),
      judges(std::make_unique<JudgePool>(rules, capabilities)) {
    change(options.changeable);
}

bool Guarded::has(std::string_view database) const {
    return std::any_of(options.databases.begin(), options.databases.end(),
                       [&](const policy::Glob& one) { return one.matches(database); });
}

session::Upstream Guarded::for_session() const {
    Changeable now = changeable();
    session::Upstream out;
    out.name = options.name;
    out.authentication = options.authentication;
    out.users = users();
    out.idle = now.idle;
    out.environment = std::move(now.environment);
    return out;
}

Listener::Listener(ListenerOptions options_, const std::vector<std::unique_ptr<Guarded>>& all)
    : options(std::move(options_)) {
    for (const std::size_t index : options.upstreams) upstreams.push_back(all[index].get());
}

Guarded* Listener::find(std::string_view database) const {
    const auto found = std::find_if(upstreams.begin(), upstreams.end(),
                                    [&](const Guarded* one) { return one->has(database); });
    return found == upstreams.end() ? nullptr : *found;
}

}  // namespace pgchaperone::net
