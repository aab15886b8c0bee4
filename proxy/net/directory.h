#pragma once
// Who is here: every session that has logged in, for `SHOW chaperone.sessions`, and the key by
// which the server lets it be cancelled. Thread-safe; asked at a session's milestones only, never
// on the way of a query.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace pgchaperone::net {

class Guarded;
class IoThread;

struct Present {
    std::uint64_t session = 0;
    std::string user;
    std::string database;
    std::string client;
    std::string application;
    bool tls = false;
    std::chrono::system_clock::time_point since;  // logged in
    std::string ticket;                           // of what is held there now; empty: nothing is
    std::string upstream = {};  // the name of its server; empty: that of the top level
};

class Directory {
public:
    // A session has logged in, or something of it has changed.
    void put(Present present);
    void left(std::uint64_t session);
    std::vector<Present> all() const;  // by session
    struct Size {
        std::size_t sessions = 0;
        std::size_t held = 0;  // of these, with something that is held
    };
    Size size(std::string_view upstream) const;

    // What follows the code in a CancelRequest: a process id in four bytes, and the secret.
    static constexpr std::size_t process_id_bytes = 4;
    struct Where {
        std::uint64_t session = 0;
        IoThread* thread = nullptr;
        Guarded* upstream = nullptr;
    };
    void know_key(std::string key, Where where);
    // Whose key this is. How long it takes does not tell how much of a wrong secret is right.
    std::optional<Where> find_key(std::string_view key) const;

private:
    struct Key {
        std::string secret;
        Where where;
    };
    mutable std::mutex mutex_;
    std::map<std::uint64_t, Present> present_;
    std::unordered_multimap<std::uint32_t, Key> keys_;  // by process id
    std::unordered_map<std::uint64_t, std::uint32_t> process_ids_;
};

}  // namespace pgchaperone::net
