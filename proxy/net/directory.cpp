#include "proxy/net/directory.h"

#include <openssl/crypto.h>

#include <utility>

namespace pgchaperone::net {
namespace {

std::uint32_t process_id_of(std::string_view key) {
    std::uint32_t id = 0;
    for (const char c : key.substr(0, Directory::process_id_bytes)) {
        id = id << 8 | static_cast<unsigned char>(c);
    }
    return id;
}

}  // namespace

void Directory::put(Present present) {
    const std::lock_guard lock(mutex_);
    const std::uint64_t session = present.session;
    present_.insert_or_assign(session, std::move(present));
}

void Directory::left(std::uint64_t session) {
    const std::lock_guard lock(mutex_);
    present_.erase(session);
    const auto known = process_ids_.find(session);
    if (known == process_ids_.end()) return;
    const auto [begin, end] = keys_.equal_range(known->second);
    for (auto at = begin; at != end;) {
        at = at->second.where.session == session ? keys_.erase(at) : std::next(at);
    }
    process_ids_.erase(known);
}

std::vector<Present> Directory::all() const {
    const std::lock_guard lock(mutex_);
    std::vector<Present> out;
    out.reserve(present_.size());
    for (const auto& [session, present] : present_) out.push_back(present);
    return out;
}

Directory::Size Directory::size(std::string_view upstream) const {
    const std::lock_guard lock(mutex_);
    Size size;
    for (const auto& [session, present] : present_) {
        if (present.upstream != upstream) continue;
        ++size.sessions;
        size.held += present.ticket.empty() ? 0 : 1;
    }
    return size;
}

void Directory::know_key(std::string key, Where where) {
    if (key.size() <= process_id_bytes) return;
    const std::uint32_t id = process_id_of(key);
    key.erase(0, process_id_bytes);
    const std::lock_guard lock(mutex_);
    // A server gives one key to a session. Another takes no second place.
    if (!process_ids_.emplace(where.session, id).second) return;
    keys_.emplace(id, Key{std::move(key), where});
}

std::optional<Directory::Where> Directory::find_key(std::string_view key) const {
    if (key.size() <= process_id_bytes) return std::nullopt;
    const std::string_view secret = key.substr(process_id_bytes);
    const std::lock_guard lock(mutex_);
    // Several servers behind one address may have a process of the same id.
    const auto [begin, end] = keys_.equal_range(process_id_of(key));
    for (auto at = begin; at != end; ++at) {
        const std::string& own = at->second.secret;
        if (own.size() == secret.size() &&
            CRYPTO_memcmp(own.data(), secret.data(), own.size()) == 0) {
            return at->second.where;
        }
    }
    return std::nullopt;
}

}  // namespace pgchaperone::net
