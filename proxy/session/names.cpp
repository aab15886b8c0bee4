#include "proxy/session/names.h"

#include <utility>

namespace pgchaperone::session {

namespace {

constexpr std::size_t name_bytes_max = 63;  // NAMEDATALEN - 1

std::string_view significant(std::string_view name) { return name.substr(0, name_bytes_max); }

}  // namespace

StatementHandle Names::statement(std::string_view name) const {
    if (name.empty()) return unnamed_statement_;
    const auto found = statements_.find(significant(name));
    return found == statements_.end() ? nullptr : found->second;
}

StatementHandle Names::portal(std::string_view name) const {
    if (name.empty()) return unnamed_portal_.handle;
    const auto found = portals_.find(significant(name));
    return found == portals_.end() ? nullptr : found->second.handle;
}

StatementHandle Names::set_statement(std::string_view name, StatementHandle handle) {
    if (name.empty()) return std::exchange(unnamed_statement_, std::move(handle));
    const auto found = statements_.find(significant(name));
    if (found == statements_.end()) {
        if (handle) statements_.emplace(significant(name), std::move(handle));
        return nullptr;
    }
    StatementHandle previous = std::exchange(found->second, std::move(handle));
    if (!found->second) statements_.erase(found);
    return previous;
}

void Names::set_portal(std::string_view name, StatementHandle handle, std::uint64_t sequence) {
    if (name.empty()) {
        unnamed_portal_ = {std::move(handle), sequence};
        return;
    }
    if (!handle) {
        const auto found = portals_.find(significant(name));
        if (found != portals_.end()) portals_.erase(found);
        return;
    }
    portals_.insert_or_assign(std::string(significant(name)), Portal{std::move(handle), sequence});
}

void Names::undo_portal(std::string_view name, std::uint64_t sequence) {
    if (name.empty()) {
        if (unnamed_portal_.sequence == sequence) unnamed_portal_.handle.reset();
        return;
    }
    const auto found = portals_.find(significant(name));
    if (found != portals_.end() && found->second.sequence == sequence) portals_.erase(found);
}

void Names::transaction_ended(std::uint64_t sequence) {
    if (unnamed_portal_.sequence < sequence) unnamed_portal_.handle.reset();
    if (portals_.empty()) return;
    erase_if(portals_, [sequence](const auto& entry) { return entry.second.sequence < sequence; });
}

void Names::forget_statements(std::uint64_t sequence) {
    // The unnamed one is not in the server's table and stays.
    erase_if(statements_,
             [sequence](const auto& entry) { return entry.second->parsed_behind < sequence; });
}

}  // namespace pgchaperone::session
